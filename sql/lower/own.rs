//! Where aggregate functions of users may stand: what each place asks of one.
//!
//! Invariant: a function is asked for nothing at run time that it has not: what takes rows out needs `retract`, what puts parts
//! together `merge`; else it is refused here, by its name.

use super::check_class;
use crate::error::{SqlError, SqlResult};
use crate::kernels::aggregate::{Argument, OwnCall};
use crate::own::Aggregator;
use crate::plan::{WindowKind, Windows, own_of};
use arrow::datatypes::DataType;
use datafusion_expr::Expr;
use datafusion_expr::expr::AggregateFunction;
use datafusion_physical_expr::PhysicalExpr;
use std::sync::Arc;
use waterwheel_engine::operators::over::Frame;

/// The arguments of a function of the user's; of others, which have theirs elsewhere, none.
pub(super) fn own_arguments(function: &AggregateFunction) -> &[Expr] {
    if own_of(&function.func).is_some() { &function.params.args } else { &[] }
}

/// The call of a function of the user's, on columns of these types; none where it is another function.
pub(super) fn own_call(
    function: &AggregateFunction,
    columns: &[usize],
    read: impl Fn(usize) -> SqlResult<(Arc<dyn PhysicalExpr>, DataType)>,
) -> SqlResult<Option<OwnCall>> {
    let Some(aggregator) = own_of(&function.func) else { return Ok(None) };
    aggregator.check()?;
    let argument = |(&column, wanted): (&usize, &DataType)| {
        let (expr, kind) = read(column)?;
        if kind != *wanted {
            return Err(SqlError::new(format!("{} is called with {kind} for {wanted}", aggregator.usage())).help("CAST the argument"));
        }
        let class = check_class(&kind, &aggregator.shown())?;
        Ok(Argument { expr, kind, class, column })
    };
    let arguments = columns.iter().zip(aggregator.arguments()).map(argument).collect::<SqlResult<_>>()?;
    Ok(Some(OwnCall { aggregator: aggregator.clone(), arguments }))
}

fn each(functions: &[&AggregateFunction], check: impl Fn(&Aggregator) -> SqlResult<()>) -> SqlResult<()> {
    functions.iter().filter_map(|function| own_of(&function.func)).try_for_each(check)
}

/// What rows are aggregated over that are taken out too.
pub(super) fn check_changes(functions: &[&AggregateFunction]) -> SqlResult<()> {
    each(functions, |function| match function.retracts() {
        true => Ok(()),
        false => Err(SqlError::unsupported(
            &format!("{} over rows that change", function.shown()),
            "it cannot take a row out again",
            "AggregateFunction::new(..).retract(..)",
        )),
    })
}

/// What windows ask for.
pub(super) fn check_windows(functions: &[&AggregateFunction], windows: &Windows) -> SqlResult<()> {
    let name = match windows.kind {
        WindowKind::Session => "a SESSION window",
        WindowKind::Cumulative => "a CUMULATE window",
        WindowKind::Sliding if windows.size_ms == windows.slide_ms => return Ok(()),
        WindowKind::Sliding => "a HOP window",
    };
    check_parts(functions, name, "TUMBLE")
}

/// What a frame of OVER asks for, in the order of event time or in another.
pub(super) fn check_frame(functions: &[&AggregateFunction], frame: Frame, in_turn: bool) -> SqlResult<()> {
    if !in_turn {
        return each(functions, |function| {
            Err(SqlError::unsupported(
                &format!("{} OVER here", function.shown()),
                "rows that change, or are in another order than that of event time, are computed anew where no row can be refused",
                "ORDER BY the event time of rows that only come",
            ))
        });
    }
    match frame {
        Frame::Rows(None) | Frame::Range(None) => Ok(()),
        Frame::Rows(Some(_)) | Frame::Range(Some(_)) => check_parts(functions, "a frame that moves on", "a frame of all rows so far"),
    }
}

fn check_parts(functions: &[&AggregateFunction], place: &str, instead: &str) -> SqlResult<()> {
    each(functions, |function| match function.merges() {
        true => Ok(()),
        false => Err(SqlError::unsupported(
            &format!("{} in {place}", function.shown()),
            "its rows are aggregated in parts, which it cannot put together",
            &format!("AggregateFunction::new(..).merge(..), or {instead}"),
        )),
    })
}

/// In patterns there is none.
pub(super) fn check_pattern(function: &AggregateFunction) -> SqlResult<()> {
    each(&[function], |own| {
        Err(SqlError::unsupported(
            &format!("{} in MATCH_RECOGNIZE", own.shown()),
            "a match has no row that could be refused",
            "COUNT, SUM, MIN, MAX, AVG, or the function over the matches",
        ))
    })
}
