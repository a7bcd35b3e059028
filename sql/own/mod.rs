//! Functions of users: of a row to a value, of a row to rows, of many rows to a value.
//!
//! Invariant: what a user's function does wrong (an error, a panic, a value of another type than declared) costs the row or
//! the result that it was called for, and is said with the function's name.

mod aggregate;
mod datum;
mod table;

pub use aggregate::AggregateFunction;
pub(crate) use aggregate::{Aggregator, Held};
pub use datum::Datum;
pub use table::{TableFunction, TableRows};

use crate::plan::ScalarFunction;
use datafusion_expr::ScalarUDFImpl;
use waterwheel_engine::state::StateValue;

/// A function that queries may call, of any kind: what `register` takes.
#[derive(Debug)]
pub struct Function(pub(crate) Kind);

#[derive(Debug)]
pub(crate) enum Kind {
    Scalar(ScalarFunction),
    Aggregate(Aggregator),
    Table(TableFunction),
}

impl Function {
    pub(crate) fn name(&self) -> &str {
        match &self.0 {
            Kind::Scalar(function) => function.name(),
            Kind::Aggregate(function) => function.name(),
            Kind::Table(function) => function.name(),
        }
    }
}

impl From<ScalarFunction> for Function {
    fn from(function: ScalarFunction) -> Self {
        Function(Kind::Scalar(function))
    }
}

impl<A: StateValue + Clone + Sync> From<AggregateFunction<A>> for Function {
    fn from(function: AggregateFunction<A>) -> Self {
        Function(Kind::Aggregate(function.erased()))
    }
}

impl From<TableFunction> for Function {
    fn from(function: TableFunction) -> Self {
        Function(Kind::Table(function))
    }
}
