//! CURRENT_TIMESTAMP and its kin, UUID and its own: the time at which a row passes, and bytes by chance, as columns that an
//! operator puts beside it.
//!
//! Invariant: all rows of a batch have one time; a row that may be taken back never gets one, nor such bytes, because it would
//! not be the row that was put in.

use super::{Lowered, Lowering};
use crate::error::{SqlError, SqlResult};
use crate::plan::{CHANCE, FRACTION_OF, UUID_OF, is_of_the_clock, known};
use arrow::array::{BinaryArray, BinaryBuilder, Int64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, TimeUnit, TimestampMillisecondType};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, DFSchema, DataFusionError, TableReference};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::{Expr, cast, lit};
use std::sync::Arc;
use waterwheel_engine::env::Env;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::graph::{NodeIndex, NodeNote, Routing};
use waterwheel_engine::operators::{OpenContext, Operator, Output};
use waterwheel_engine::record::{BatchBox, ChangeBatch, downcast, record_batch};

/// No name of a query's is empty.
const NOW: &str = "";
/// Nor is it this.
const CHANCES: &str = "\u{0}";

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
            let what = if CHANCE.contains(&name.as_str()) { "value" } else { "time" };
            return Err(SqlError::unsupported(
                &format!("{} over rows that change", name.to_uppercase()),
                &format!("a row is taken back as it was put in, and it would have another {what} by then"),
                &format!("take the {what} below the aggregate or join, or leave it to what reads the result"),
            ));
        }
        let by_chance = predicate.into_iter().chain(exprs.into_iter().flatten()).any(is_by_chance);
        let node = self.add(
            "clock",
            Arc::new(move || Box::new(Clock { env: None, by_chance })),
            &[(input.node, Routing::Forward)],
            NodeNote { glue: true, ..NodeNote::default() },
        );
        let mut fields: Vec<(Option<TableReference>, FieldRef)> = from.iter().map(|(q, f)| (q.cloned(), f.clone())).collect();
        fields.push((None, Arc::new(now())));
        if by_chance {
            fields.push((None, Arc::new(chances())));
        }
        let schema = DFSchema::new_with_metadata(fields, Default::default()).map_err(SqlError::of_planner)?;
        let mut calls = 0;
        let predicate = predicate.map(|expr| with_columns(expr, &mut calls)).transpose()?;
        let exprs = match exprs {
            Some(exprs) => exprs.iter().map(|expr| with_columns(expr, &mut calls)).collect::<SqlResult<Vec<_>>>()?,
            None => (0..from.fields().len()).map(|i| super::column_expr(from, i)).collect(),
        };
        Ok(Some(Clocked { node, schema, predicate, exprs }))
    }
}

/// Refuses what asks for the time or for chance where no operator gives it.
pub(super) fn check_none(expr: &Expr) -> SqlResult<()> {
    match asks(expr) {
        None => Ok(()),
        Some(name) => Err(SqlError::unsupported(
            &format!("{} here", name.to_uppercase()),
            "a row gets it where it passes SELECT or WHERE",
            "select it in a view or subquery below",
        )),
    }
}

/// The function by which an expression asks for the time or for chance.
fn asks(expr: &Expr) -> Option<String> {
    calls(expr, |name| is_of_the_clock(name) || CHANCE.contains(&name))
}

fn is_by_chance(expr: &Expr) -> bool {
    calls(expr, |name| CHANCE.contains(&name)).is_some()
}

/// The first function of these that an expression calls.
fn calls(expr: &Expr, is_one: impl Fn(&str) -> bool) -> Option<String> {
    let mut found = None;
    let _ = expr.apply(|e| {
        if let Expr::ScalarFunction(function) = e
            && is_one(function.name())
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

fn chances() -> Field {
    Field::new(CHANCES, DataType::Binary, true)
}

/// The expression over the columns that the operator gives; `calls` counts those of chance, so that each has a value of its own.
fn with_columns(expr: &Expr, calls: &mut i64) -> SqlResult<Expr> {
    let local = DataType::Timestamp(TimeUnit::Millisecond, None);
    let replaced = expr.clone().transform(|e| {
        let Expr::ScalarFunction(function) = &e else { return Ok(Transformed::no(e)) };
        if CHANCE.contains(&function.name()) {
            *calls += 1;
            return by_chance(function, *calls).map(Transformed::yes);
        }
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

fn by_chance(function: &ScalarFunction, call: i64) -> datafusion_common::Result<Expr> {
    let of = |name: &str| {
        let function = known(name).ok_or_else(|| DataFusionError::Internal(format!("{name} is not known")))?;
        let args = vec![Expr::Column(Column::new_unqualified(CHANCES)), lit(call)];
        Ok::<_, DataFusionError>(Expr::ScalarFunction(ScalarFunction::new_udf(function, args)))
    };
    match (function.name(), function.args.first()) {
        ("uuid", _) => of(UUID_OF),
        ("rand_integer", Some(below)) => {
            let below = cast(below.clone(), DataType::Float64);
            // Cut off towards zero: of 0 up to below it.
            Ok(cast(cast(of(FRACTION_OF)? * below, DataType::Int64), DataType::Int32))
        }
        _ => of(FRACTION_OF),
    }
}

/// Puts the clock's time beside each row, and chance where it is asked for.
struct Clock {
    env: Option<Env>,
    /// And bytes by chance.
    by_chance: bool,
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
        if self.by_chance {
            columns.push(Arc::new(drawn(env, rows)));
            fields.push(Arc::new(chances()));
        }
        let columns = record_batch(Arc::new(Schema::new(fields)), columns, rows)
            .map_err(|e| Error::fatal("plan bug: no column beside the others").because(e))?;
        out.emit(batch.with_columns(columns).boxed())
    }
}

/// Sixteen bytes a row that no other row has: those of the batch, drawn, and the row's number added.
fn drawn(env: &Env, rows: usize) -> BinaryArray {
    let (high, low) = (env.rng.next_u64(), env.rng.next_u64());
    let mut bytes = BinaryBuilder::with_capacity(rows, rows * 16);
    for row in 0..rows as u64 {
        let mut of_row = [0; 16];
        of_row[..8].copy_from_slice(&high.to_le_bytes());
        of_row[8..].copy_from_slice(&low.wrapping_add(row).to_le_bytes());
        bytes.append_value(of_row);
    }
    bytes.finish()
}
