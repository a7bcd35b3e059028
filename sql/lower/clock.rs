//! CURRENT_TIMESTAMP and its kin, UUID and its own, CURRENT_WATERMARK: the time at which a row passes, bytes by chance, numbers of a
//! seed and the watermark, as columns that an operator puts beside it.
//!
//! Invariant: all rows of a batch have one time and watermark; a row that may be taken back never gets any of these, because it
//! would not be the row that was put in. The numbers of a seed begin anew where a task starts.

use super::{Lowered, Lowering};
use crate::error::{SqlError, SqlResult};
use crate::plan::{CHANCE, CURRENT_WATERMARK, FRACTION_OF, SEEDED, Seeded, UUID_OF, is_of_the_clock, known};
use arrow::array::{ArrayRef, BinaryArray, BinaryBuilder, Float64Array, Int32Array, Int64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, TimeUnit, TimestampMillisecondType};
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, DFSchema, DataFusionError, ScalarValue, TableReference, plan_err};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::{Expr, ExprSchemable, cast, lit};
use std::sync::Arc;
use waterwheel_engine::env::Env;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::graph::{NodeIndex, NodeNote, Routing};
use waterwheel_engine::operators::{OpenContext, Operator, Output};
use waterwheel_engine::record::{BatchBox, ChangeBatch, downcast, record_batch};
use waterwheel_engine::time::EventTime;

/// No name of a query's is empty.
const NOW: &str = "";
/// Nor is it this.
const CHANCES: &str = "\u{0}";
/// Nor this.
const WATERMARK: &str = "\u{1}";

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
            let by_chance = [CHANCE, SEEDED].iter().any(|names| names.contains(&name.as_str()));
            let what = if by_chance { "value" } else { "time" };
            return Err(SqlError::unsupported(
                &format!("{} over rows that change", name.to_uppercase()),
                &format!("a row is taken back as it was put in, and it would have another {what} by then"),
                &format!("take the {what} below the aggregate or join, or leave it to what reads the result"),
            ));
        }
        for expr in predicate.into_iter().chain(exprs.into_iter().flatten()) {
            check_watermark(expr, input)?;
        }
        let mut beside = Beside::default();
        let predicate = predicate.map(|expr| with_columns(expr, from, &mut beside)).transpose()?;
        let exprs = match exprs {
            Some(exprs) => exprs.iter().map(|expr| with_columns(expr, from, &mut beside)).collect::<SqlResult<Vec<_>>>()?,
            None => (0..from.fields().len()).map(|i| super::column_expr(from, i)).collect(),
        };
        let mut fields: Vec<(Option<TableReference>, FieldRef)> = from.iter().map(|(q, f)| (q.cloned(), f.clone())).collect();
        fields.extend(beside.fields().map(|field| (None, Arc::new(field))));
        let schema = DFSchema::new_with_metadata(fields, Default::default()).map_err(SqlError::of_planner)?;
        let node = self.add(
            "clock",
            Arc::new(move || Box::new(Clock { env: None, watermark: None, beside: beside.clone() })),
            &[(input.node, Routing::Forward)],
            NodeNote { glue: true, ..NodeNote::default() },
        );
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

/// The function by which an expression asks for the time, for chance or for the watermark.
fn asks(expr: &Expr) -> Option<String> {
    let is_one = |name: &str| is_of_the_clock(name) || CHANCE.contains(&name) || SEEDED.contains(&name) || name == CURRENT_WATERMARK;
    let mut found = None;
    let _ = expr.apply(|e| {
        if let Expr::ScalarFunction(function) = e
            && is_one(function.name())
        {
            found = Some(function.name().to_string());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

/// Only a time that has a watermark here has a current one.
fn check_watermark(expr: &Expr, input: &Lowered) -> SqlResult<()> {
    let mut wrong = None;
    let _ = expr.apply(|e| {
        if let Expr::ScalarFunction(function) = e
            && function.name() == CURRENT_WATERMARK
        {
            let time = function.args.first().and_then(|time| super::column_of(time, &input.schema));
            if !time.is_some_and(|time| input.rowtimes.contains(&time)) {
                wrong = function.args.first().cloned();
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    match wrong {
        None => Ok(()),
        Some(time) => Err(SqlError::unsupported(
            &format!("CURRENT_WATERMARK({time})"),
            "it is no column with a watermark here",
            "the column that a table declares:  WATERMARK FOR ts AS ts - INTERVAL '5' SECOND",
        )),
    }
}

fn now() -> Field {
    Field::new(NOW, DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true)
}

fn chances() -> Field {
    Field::new(CHANCES, DataType::Binary, true)
}

/// What is put beside rows besides the time.
#[derive(Debug, Clone, Default)]
struct Beside {
    /// Calls of chance, each with a value of its own.
    chances: i64,
    /// Calls with a seed, a column each.
    seeded: Vec<Seeded>,
    watermark: bool,
}

impl Beside {
    fn fields(&self) -> impl Iterator<Item = Field> {
        let seeded =
            self.seeded.iter().enumerate().map(|(i, seeded)| {
                Field::new(seeded_name(i), if seeded.below.is_some() { DataType::Int32 } else { DataType::Float64 }, true)
            });
        let watermark = Field::new(WATERMARK, now().data_type().clone(), true);
        let rest = [(self.chances > 0).then(chances), self.watermark.then_some(watermark)];
        std::iter::once(now()).chain(rest.into_iter().flatten()).chain(seeded.collect::<Vec<_>>())
    }
}

fn seeded_name(place: usize) -> String {
    format!("{CHANCES}{place}")
}

/// The expression over the columns that the operator gives.
fn with_columns(expr: &Expr, from: &DFSchema, beside: &mut Beside) -> SqlResult<Expr> {
    let local = DataType::Timestamp(TimeUnit::Millisecond, None);
    let replaced = expr.clone().transform(|e| {
        let Expr::ScalarFunction(function) = &e else { return Ok(Transformed::no(e)) };
        if CHANCE.contains(&function.name()) {
            beside.chances += 1;
            return by_chance(function, beside.chances).map(Transformed::yes);
        }
        if SEEDED.contains(&function.name()) {
            beside.seeded.push(seeded(function)?);
            return Ok(Transformed::yes(Expr::Column(Column::new_unqualified(seeded_name(beside.seeded.len() - 1)))));
        }
        if function.name() == CURRENT_WATERMARK {
            beside.watermark = true;
            let watermark = Expr::Column(Column::new_unqualified(WATERMARK));
            let is_instant = matches!(e.get_type(from)?, DataType::Timestamp(_, Some(_)));
            return Ok(Transformed::yes(if is_instant { watermark } else { cast(watermark, local.clone()) }));
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

/// The numbers of a seed and a bound that are written.
fn seeded(function: &ScalarFunction) -> datafusion_common::Result<Seeded> {
    let number = |arg: &Expr| match arg {
        Expr::Literal(ScalarValue::Int64(Some(number)), _) => i32::try_from(*number).ok(),
        _ => None,
    };
    match (&function.args[..], function.args.iter().map(number).collect::<Option<Vec<_>>>().as_deref()) {
        ([_], Some([seed])) => Ok(Seeded::new(i64::from(*seed), None)),
        ([_, _], Some([seed, below])) if *below > 0 => Ok(Seeded::new(i64::from(*seed), Some(*below))),
        ([_], _) => plan_err!("the seed of RAND is a number that is written there: RAND(42)"),
        _ => plan_err!("the seed of RAND_INTEGER and its bound, above 0, are numbers that are written there: RAND_INTEGER(42, 10)"),
    }
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

/// Puts the clock's time beside each row, and what else is asked for.
struct Clock {
    env: Option<Env>,
    /// None before there is one.
    watermark: Option<i64>,
    beside: Beside,
}

impl Operator for Clock {
    fn open(&mut self, context: &OpenContext) -> Result<()> {
        self.env = Some(context.env.clone());
        Ok(())
    }

    fn on_watermark(&mut self, time: EventTime, _out: &mut Output<'_>) -> Result<()> {
        self.watermark = Some(time.0);
        Ok(())
    }

    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let batch = downcast::<ChangeBatch>(batch);
        let Some(env) = &self.env else { unreachable!("an operator is opened before it is used") };
        let rows = batch.times.len();
        let instants = |ms: Option<i64>| -> ArrayRef {
            Arc::new(Int64Array::from(vec![ms; rows]).reinterpret_cast::<TimestampMillisecondType>().with_timezone("UTC"))
        };
        let mut columns = batch.columns.columns().to_vec();
        let mut fields: Vec<FieldRef> = batch.columns.schema().fields().iter().cloned().collect();
        fields.extend(self.beside.fields().map(Arc::new));
        columns.push(instants(Some(env.clock.wall_ms())));
        if self.beside.chances > 0 {
            columns.push(Arc::new(drawn(env, rows)));
        }
        if self.beside.watermark {
            columns.push(instants(self.watermark));
        }
        for seeded in &mut self.beside.seeded {
            columns.push(match seeded.below {
                Some(below) => Arc::new((0..rows).map(|_| seeded.whole(below)).collect::<Int32Array>()),
                None => Arc::new((0..rows).map(|_| seeded.fraction()).collect::<Float64Array>()),
            });
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
