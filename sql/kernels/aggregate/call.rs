//! One call of an aggregate function: what it is made on, and how it keeps what it needs.
//!
//! Invariant: two calls that describe themselves alike give the same results.

use super::numbers::{Kind, Number, What};
use crate::kernels::value::{Class, Value};
use crate::own::Aggregator;
use arrow::datatypes::DataType;
use datafusion_physical_expr::PhysicalExpr;
use std::sync::Arc;

/// The aggregate functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Count,
    Sum,
    Min,
    Max,
    Avg,
    /// FIRST_VALUE, LAST_VALUE: the first or last to arrive that is not NULL.
    First,
    Last,
    /// LISTAGG: texts in the order of arrival; with DISTINCT in that in which each arrived first.
    List,
    /// ARRAY_AGG: values in the order of arrival.
    Array {
        /// NULLs too.
        nulls: bool,
    },
    /// COLLECT: how often each value is there.
    Collect,
    /// VAR_POP, VAR_SAMP, STDDEV_POP, STDDEV_SAMP.
    Variance {
        sample: bool,
        root: bool,
    },
    /// APPROX_COUNT_DISTINCT.
    ApproxCount,
    /// A function of the user's.
    Own,
}

/// One call of an aggregate function.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) function: Function,
    /// None = every row counts: COUNT(*).
    pub(crate) argument: Option<Argument>,
    /// The function of the user's and its arguments, where it is one.
    pub(crate) own: Option<OwnCall>,
    pub(crate) filter: Option<Arc<dyn PhysicalExpr>>,
    pub(crate) distinct: bool,
    /// Rows are taken out too.
    pub(crate) retracting: bool,
    /// Between the texts of LISTAGG.
    pub(crate) separator: Arc<str>,
    /// Type of the result.
    pub(crate) output: DataType,
}

/// A call of a function of the user's.
#[derive(Debug, Clone)]
pub(crate) struct OwnCall {
    pub(crate) aggregator: Aggregator,
    pub(crate) arguments: Vec<Argument>,
}

impl OwnCall {
    fn describe(&self) -> String {
        let arguments = self.arguments.iter().map(|a| format!("{}: {}", a.expr, a.kind)).collect::<Vec<_>>().join(", ");
        format!("{}({arguments})", self.aggregator.describe())
    }
}

/// What a call is made on.
#[derive(Debug, Clone)]
pub(crate) struct Argument {
    pub(crate) expr: Arc<dyn PhysicalExpr>,
    pub(crate) kind: DataType,
    pub(crate) class: Class,
    /// Calls on the same column share what they can.
    pub(crate) column: usize,
}

impl Call {
    /// For the description that state is checked against, and for `explain`.
    pub(crate) fn describe(&self) -> String {
        let argument = self.argument.as_ref().map_or("*".to_string(), |a| format!("{}: {}", a.expr, a.kind));
        let distinct = if self.distinct { "DISTINCT " } else { "" };
        let filter = self.filter.as_ref().map_or(String::new(), |f| format!(" FILTER {f}"));
        let retracting = if self.retracting { " retracting" } else { "" };
        if let Some(own) = &self.own {
            return format!("{}{filter}{retracting}", own.describe());
        }
        let separator = if self.function == Function::List { format!(", {:?}", self.separator) } else { String::new() };
        // Other words than before, which cannot be read as these.
        let long = if self.number() == Some((What::Sum, Kind::Decimal)) { " long" } else { "" };
        format!("{:?}({distinct}{argument}{separator}){filter}{retracting}{long}", self.function)
    }

    /// Whether it keeps every value that it has seen, with its count.
    pub(crate) fn keeps_values(&self) -> bool {
        let floats = self.argument.as_ref().is_some_and(|a| a.class == Class::Float);
        match self.function {
            Function::Min | Function::Max => self.retracting,
            Function::Count => self.distinct,
            Function::Sum | Function::Avg | Function::Variance { .. } => self.distinct || (self.retracting && floats),
            Function::ApproxCount => self.retracting,
            Function::Collect => true,
            Function::First | Function::Last | Function::List | Function::Array { .. } | Function::Own => false,
        }
    }

    /// Whether it keeps every value in the order of arrival.
    pub(crate) fn keeps_arrivals(&self) -> bool {
        match self.function {
            Function::First | Function::Last => self.retracting,
            Function::List | Function::Array { .. } => true,
            _ => false,
        }
    }

    /// Whether it counts the distinct values of rows that are never taken away.
    pub(super) fn counts_seen(&self) -> bool {
        self.function == Function::Count && self.distinct && !self.retracting && self.argument.is_some()
    }

    /// The number that its result is read of, beside a count; none where it keeps more than numbers.
    pub(super) fn number(&self) -> Option<(What, Kind)> {
        if self.keeps_values() || self.keeps_arrivals() {
            return None;
        }
        let kind = match self.argument.as_ref()?.class {
            Class::Bool => Kind::Bool,
            Class::Int => Kind::Int,
            Class::Float => Kind::Float,
            Class::Decimal => Kind::Decimal,
            Class::Text | Class::Bytes | Class::Nested => return None,
        };
        match self.function {
            Function::Sum | Function::Avg => Some((What::Sum, kind)),
            Function::Min => Some((What::Least, kind)),
            Function::Max => Some((What::Greatest, kind)),
            _ => None,
        }
    }

    /// The result, of a number and how many values it is of.
    pub(super) fn read(&self, number: Number, words: &[i64], count: i64) -> Value {
        let floats = self.argument.as_ref().is_some_and(|a| a.class == Class::Float);
        match self.function {
            Function::Sum | Function::Avg if floats => self.total_of_floats(number.float(words), count),
            Function::Sum | Function::Avg => self.total(number.sum(words), count),
            _ if count == 0 => Value::Null,
            _ => number.value(words),
        }
    }
}

impl Function {
    /// Whether NULL is a value like others to it.
    pub(super) fn takes_nulls(self) -> bool {
        self == Function::Array { nulls: true }
    }
}
