//! Aggregates that DataFusion has not, or with other types, and those of users: known to the planner, run by the kernels alone.
//!
//! Invariant: their types are Flink's: a sum of decimals has 38 digits, variances and deviations have the type of AVG, values in the
//! order of arrival their own; those of users have the types that are declared.

use super::own::becomes;
use crate::maps::map_type;
use crate::own::Aggregator;
use arrow::datatypes::{DataType, FieldRef};
use datafusion_common::{Result, not_impl_err, plan_err};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Their names; the second of a pair is another one for the first.
const NAMES: [(&str, &[&str]); 11] = [
    ("sum", &[]),
    ("first_value", &[]),
    ("last_value", &[]),
    ("listagg", &[]),
    ("array_agg", &[]),
    ("collect", &[]),
    ("var_pop", &[]),
    ("var_samp", &["variance"]),
    ("stddev_pop", &[]),
    ("stddev_samp", &["stddev"]),
    ("approx_count_distinct", &[]),
];

/// All of them, by every name.
pub(super) fn functions() -> impl Iterator<Item = (String, Arc<AggregateUDF>)> {
    NAMES.into_iter().flat_map(|(name, others)| {
        let function = Arc::new(AggregateUDF::from(OwnAggregate { name, signature: Signature::user_defined(Volatility::Immutable) }));
        std::iter::once(name).chain(others.iter().copied()).map(move |name| (name.to_string(), function.clone()))
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OwnAggregate {
    name: &'static str,
    signature: Signature,
}

impl AggregateUDFImpl for OwnAggregate {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        let name = self.name.to_uppercase();
        match (self.name, kinds) {
            ("listagg", [text @ (DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)]) => Ok(vec![text.clone()]),
            ("listagg", [text @ (DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View), _]) => Ok(vec![text.clone(), DataType::Utf8]),
            ("listagg", _) => plan_err!("LISTAGG takes a STRING and a separator: CAST the argument to STRING"),
            ("collect", [kind]) if kind.is_nested() || kind.is_null() => plan_err!("COLLECT takes values that can be keys, not {kind}"),
            ("first_value" | "last_value" | "array_agg" | "collect" | "approx_count_distinct", [kind]) => Ok(vec![kind.clone()]),
            (_, [kind]) if kind.is_integer() || kind.is_null() => Ok(vec![DataType::Int64]),
            (_, [kind]) if kind.is_floating() => Ok(vec![DataType::Float64]),
            (_, [kind @ DataType::Decimal128(_, _)]) => Ok(vec![kind.clone()]),
            (_, [kind]) => plan_err!("{name} takes a number, not {}", crate::parser::type_name(kind)),
            _ => plan_err!("{name} takes one argument"),
        }
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        let kind = kinds.first().cloned().unwrap_or(DataType::Null);
        Ok(match self.name {
            "first_value" | "last_value" | "listagg" => kind,
            "array_agg" => DataType::new_list(kind, true),
            "collect" => map_type(kind, DataType::Int32),
            "approx_count_distinct" => DataType::Int64,
            _ => match kind {
                DataType::Decimal128(_, scale) if self.name == "sum" => DataType::Decimal128(38, scale),
                DataType::Decimal128(_, scale) => DataType::Decimal128(38, scale.max(6)),
                kind if kind.is_floating() => DataType::Float64,
                _ => DataType::Int64,
            },
        })
    }

    fn supports_null_handling_clause(&self) -> bool {
        self.name == "array_agg"
    }

    fn accumulator(&self, _args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        not_impl_err!("{} of whole tables", self.name)
    }

    fn state_fields(&self, _args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        not_impl_err!("{} of whole tables", self.name)
    }
}

/// A user's function, as the planner knows it.
pub(super) fn of_user(aggregator: Aggregator) -> AggregateUDF {
    AggregateUDF::from(OfUser { aggregator, signature: Signature::user_defined(Volatility::Immutable) })
}

/// The user's function that a function is, if it is one.
pub(crate) fn own_of(function: &AggregateUDF) -> Option<&Aggregator> {
    function.inner().downcast_ref::<OfUser>().map(|of_user| &of_user.aggregator)
}

#[derive(Debug)]
struct OfUser {
    aggregator: Aggregator,
    signature: Signature,
}

impl PartialEq for OfUser {
    fn eq(&self, other: &Self) -> bool {
        let types = |of: &OfUser| (of.aggregator.arguments().to_vec(), of.aggregator.result().clone());
        self.aggregator.name() == other.aggregator.name() && types(self) == types(other)
    }
}

impl Eq for OfUser {}

impl Hash for OfUser {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.aggregator.name().hash(state);
    }
}

impl AggregateUDFImpl for OfUser {
    fn name(&self) -> &str {
        self.aggregator.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        let wanted = self.aggregator.arguments();
        if wanted.len() == kinds.len() && kinds.iter().zip(wanted).all(|(from, to)| becomes(from, to)) {
            return Ok(wanted.to_vec());
        }
        let given = kinds.iter().map(crate::parser::type_name).collect::<Vec<_>>().join(", ");
        plan_err!("{}({given}) is called otherwise: {}", self.aggregator.shown(), self.aggregator.usage())
    }

    fn return_type(&self, _kinds: &[DataType]) -> Result<DataType> {
        Ok(self.aggregator.result().clone())
    }

    fn supports_null_handling_clause(&self) -> bool {
        false
    }

    fn accumulator(&self, _args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        not_impl_err!("{} of whole tables", self.aggregator.name())
    }

    fn state_fields(&self, _args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        not_impl_err!("{} of whole tables", self.aggregator.name())
    }
}
