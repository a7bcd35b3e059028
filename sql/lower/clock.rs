//! CURRENT_TIMESTAMP and its kin: the time at which a row passes, as a column that an operator puts beside it.
//!
//! Invariant: all rows of a batch have one time; a row that may be taken back never gets one, because it would not be the row
//! that was put in.

use super::{Lowered, Lowering};
use crate::error::{SqlError, SqlResult};
use crate::plan::is_of_the_clock;
use arrow::array::Int64Array;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, TimeUnit, TimestampMillisecondType};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, DFSchema, TableReference};
use datafusion_expr::{Expr, cast, lit};
use std::sync::Arc;
use waterwheel_engine::env::Env;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::graph::{NodeIndex, NodeNote, Routing};
use waterwheel_engine::operators::{OpenContext, Operator, Output};
use waterwheel_engine::record::{BatchBox, ChangeBatch, downcast, record_batch};

/// No name of a query's is empty.
const NOW: &str = "";

/// Expressions with the clock as a column, behind the operator that gives it.
pub(super) struct Clocked {
    pub(super) node: NodeIndex,
    pub(super) schema: DFSchema,
    pub(super) predicate: Option<Expr>,
    pub(super) exprs: Vec<Expr>,
}

impl Lowering<'_> {
    /// None where no expression asks for the time.
    pub(super) fn clocked(
        &mut self,
        input: &Lowered,
        from: &DFSchema,
        predicate: Option<&Expr>,
        exprs: Option<&[Expr]>,
    ) -> SqlResult<Option<Clocked>> {
        let Some(name) = predicate.into_iter().chain(exprs.into_iter().flatten()).find_map(asks) else { return Ok(None) };
        if input.updating {
            return Err(SqlError::unsupported(
                &format!("{} over rows that change", name.to_uppercase()),
                "a row is taken back as it was put in, and it would have another time by then",
                "take the time below the aggregate or join, or leave it to what reads the result",
            ));
        }
        let node = self.add(
            "clock",
            Arc::new(|| Box::new(Clock { env: None })),
            &[(input.node, Routing::Forward)],
            NodeNote { glue: true, ..NodeNote::default() },
        );
        let mut fields: Vec<(Option<TableReference>, FieldRef)> = from.iter().map(|(q, f)| (q.cloned(), f.clone())).collect();
        fields.push((None, Arc::new(now())));
        let schema = DFSchema::new_with_metadata(fields, Default::default()).map_err(SqlError::of_planner)?;
        let exprs = match exprs {
            Some(exprs) => exprs.iter().map(with_column).collect::<SqlResult<Vec<_>>>()?,
            None => (0..from.fields().len()).map(|i| super::column_expr(from, i)).collect(),
        };
        Ok(Some(Clocked { node, schema, predicate: predicate.map(with_column).transpose()?, exprs }))
    }
}

/// Refuses what asks for the time where no operator gives it.
pub(super) fn check_none(expr: &Expr) -> SqlResult<()> {
    match asks(expr) {
        None => Ok(()),
        Some(name) => Err(SqlError::unsupported(
            &format!("{} here", name.to_uppercase()),
            "a row has its time where it passes SELECT or WHERE",
            "select it in a view or subquery below",
        )),
    }
}

/// The function by which an expression asks for the time.
fn asks(expr: &Expr) -> Option<String> {
    let mut found = None;
    let _ = expr.apply(|e| {
        if let Expr::ScalarFunction(function) = e
            && is_of_the_clock(function.name())
        {
            found = Some(function.name().to_string());
        }
        Ok(datafusion_common::tree_node::TreeNodeRecursion::Continue)
    });
    found
}

fn now() -> Field {
    Field::new(NOW, DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true)
}

fn with_column(expr: &Expr) -> SqlResult<Expr> {
    let local = DataType::Timestamp(TimeUnit::Millisecond, None);
    let replaced = expr.clone().transform(|e| {
        let Expr::ScalarFunction(function) = &e else { return Ok(Transformed::no(e)) };
        if !is_of_the_clock(function.name()) {
            return Ok(Transformed::no(e));
        }
        let now = Expr::Column(Column::new_unqualified(NOW));
        Ok(Transformed::yes(match function.name() {
            "localtimestamp" => cast(now, local.clone()),
            "current_date" => cast(cast(now, local.clone()), DataType::Date32),
            "localtime" | "current_time" => cast(cast(now, local.clone()), DataType::Time32(TimeUnit::Millisecond)),
            "unix_timestamp_now" => cast(now, DataType::Int64) / lit(1000i64),
            _ => now,
        }))
    });
    replaced.map(|t| t.data).map_err(SqlError::of_planner)
}

/// Puts the clock's time beside each row.
struct Clock {
    env: Option<Env>,
}

impl Operator for Clock {
    fn open(&mut self, context: &OpenContext) -> Result<()> {
        self.env = Some(context.env.clone());
        Ok(())
    }

    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let batch = downcast::<ChangeBatch>(batch);
        let Some(env) = &self.env else { unreachable!("an operator is opened before it is used") };
        let rows = batch.times.len();
        let times = Int64Array::from(vec![env.clock.wall_ms(); rows]).reinterpret_cast::<TimestampMillisecondType>().with_timezone("UTC");
        let mut columns = batch.columns.columns().to_vec();
        let mut fields: Vec<FieldRef> = batch.columns.schema().fields().iter().cloned().collect();
        columns.push(Arc::new(times));
        fields.push(Arc::new(now()));
        let columns = record_batch(Arc::new(Schema::new(fields)), columns, rows)
            .map_err(|e| Error::fatal("plan bug: no column beside the others").because(e))?;
        out.emit(batch.with_columns(columns).boxed())
    }
}
