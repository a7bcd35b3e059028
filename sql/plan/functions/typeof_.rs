//! `TYPEOF(x)`: the type of an expression as Flink writes it, known when a query is planned.
//!
//! Invariant: nothing is computed: it is a text before rows come.

use crate::parser::type_name;
use arrow::datatypes::DataType;
use datafusion_common::{Result, ScalarValue, exec_err, plan_err};
use datafusion_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit};

/// The function.
pub(super) fn function() -> ScalarUDF {
    ScalarUDF::from(TypeOf(Signature::user_defined(Volatility::Immutable)))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TypeOf(Signature);

impl ScalarUDFImpl for TypeOf {
    fn name(&self) -> &str {
        "typeof"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        match kinds {
            [_] | [_, DataType::Boolean] => Ok(kinds.to_vec()),
            _ => plan_err!("TYPEOF is called otherwise: TYPEOF(value [, whether a catalog can keep it])"),
        }
    }

    fn return_type(&self, _kinds: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let is_full = match args.get(1) {
            None => false,
            Some(Expr::Literal(ScalarValue::Boolean(Some(full)), _)) => *full,
            Some(_) => return plan_err!("TYPEOF: the second argument is TRUE or FALSE"),
        };
        let Some(value) = args.first() else { return plan_err!("TYPEOF takes a value") };
        let name = match value {
            // A text that is written is as long as it is.
            Expr::Literal(ScalarValue::Utf8(Some(text)), _) if !text.is_empty() => format!("CHAR({})", text.chars().count()),
            _ => match type_name(&info.get_data_type(value)?) {
                name if is_full => name.replace("STRING", "VARCHAR(2147483647)").replace("BYTES", "VARBINARY(2147483647)"),
                name => name,
            },
        };
        let nulls = if info.nullable(value)? { "" } else { " NOT NULL" };
        Ok(ExprSimplifyResult::Simplified(lit(name + nulls)))
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        exec_err!("TYPEOF is known when a query is planned")
    }
}
