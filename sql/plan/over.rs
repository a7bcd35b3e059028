//! Functions over rows in order, `f(..) OVER (...)`: known to the planner, run by the engine's `ranked` and `over`.
//!
//! Invariant: numbers and ranks are BIGINT, as in Flink; nobody evaluates these functions row by row.

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{Result, not_impl_err};
use datafusion_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion_expr::{PartitionEvaluator, Signature, TypeSignature, Volatility, WindowUDF, WindowUDFImpl};
use std::sync::Arc;

/// Their names, and how many arguments they take.
const FUNCTIONS: [(&str, &[usize]); 7] = [
    ("row_number", &[0]),
    ("rank", &[0]),
    ("dense_rank", &[0]),
    ("lag", &[1, 2, 3]),
    ("lead", &[1, 2, 3]),
    ("first_value", &[1]),
    ("last_value", &[1]),
];

/// All of them.
pub(super) fn functions() -> impl Iterator<Item = WindowUDF> {
    FUNCTIONS.into_iter().map(|(name, arguments)| {
        let takes = arguments.iter().map(|n| if *n == 0 { TypeSignature::Nullary } else { TypeSignature::Any(*n) });
        let signature = Signature::one_of(takes.collect(), Volatility::Immutable);
        WindowUDF::from(OverFunction { name, signature })
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OverFunction {
    name: &'static str,
    signature: Signature,
}

impl WindowUDFImpl for OverFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(&self, _args: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        not_impl_err!("{} of whole tables", self.name)
    }

    /// That of the argument, or a number.
    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        let kind = args.input_fields().first().map_or(DataType::Int64, |field| field.data_type().clone());
        Ok(Arc::new(Field::new(args.name(), kind, true)))
    }
}
