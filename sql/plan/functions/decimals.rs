//! Arithmetic with decimals, in Flink's types: `+`, `-`, `*`, `/`, `%` where one side is a decimal and the other one too or a whole
//! number; FLOOR and CEIL, whose results have no digits behind the point.
//!
//! The operators become functions when they are planned, so that everything around them sees the types of their results.
//!
//! Invariant: only the digits of the types decide what the type of a result is; a literal has those that are written.

use super::digits;
use crate::kernels::decimal::{Arithmetic, Digits, Operation};
use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Decimal128Builder};
use arrow::datatypes::{DataType, Decimal128Type, Float32Type, Float64Type};
use arrow::error::ArrowError;
use datafusion_common::{DFSchema, Result, ScalarValue, exec_err, plan_err};
use datafusion_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion_expr::{ColumnarValue, Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, cast};
use datafusion_sql::sqlparser::ast::BinaryOperator;
use std::sync::Arc;

/// FLOOR and CEIL.
pub(super) fn functions() -> Vec<ScalarUDF> {
    let of = |name, up| ScalarUDF::from(Whole { name, up, signature: Signature::user_defined(Volatility::Immutable) });
    vec![of("floor", false), of("ceil", true), of("ceiling", true)]
}

/// Plans the operators.
#[derive(Debug)]
pub(super) struct DecimalPlanner {
    operators: [(BinaryOperator, Arc<ScalarUDF>); 5],
}

impl DecimalPlanner {
    pub(super) fn new() -> Self {
        let of = |operator: BinaryOperator, name, operation| {
            let signature = Signature::user_defined(Volatility::Immutable);
            let sign = operator.to_string();
            (operator, Arc::new(ScalarUDF::from(Computed { name, sign, operation, signature })))
        };
        DecimalPlanner {
            operators: [
                of(BinaryOperator::Plus, "add", Operation::Add),
                of(BinaryOperator::Minus, "subtract", Operation::Subtract),
                of(BinaryOperator::Multiply, "multiply", Operation::Multiply),
                of(BinaryOperator::Divide, "divide", Operation::Divide),
                of(BinaryOperator::Modulo, "modulo", Operation::Modulo),
            ],
        }
    }
}

impl ExprPlanner for DecimalPlanner {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let Some((_, function)) = self.operators.iter().find(|(operator, _)| *operator == expr.op) else {
            return Ok(PlannerResult::Original(expr));
        };
        // What has no type here is told by the planner itself.
        let (Ok(left), Ok(right)) = (expr.left.get_type(schema), expr.right.get_type(schema)) else {
            return Ok(PlannerResult::Original(expr));
        };
        if types_of(&left, &right).is_none() {
            return Ok(PlannerResult::Original(expr));
        }
        Ok(PlannerResult::Planned(function.call(vec![as_written(expr.left), as_written(expr.right)])))
    }
}

/// A literal with the digits that Flink gives it: a whole number is an INT where it fits, and of `0.5` the zero counts.
fn as_written(expr: Expr) -> Expr {
    let kind = match &expr {
        Expr::Literal(ScalarValue::Int64(Some(n)), _) if i32::try_from(*n).is_ok() => DataType::Decimal128(10, 0),
        Expr::Literal(ScalarValue::Decimal128(Some(_), precision, scale), _)
            if i16::from(*precision) == i16::from(*scale) && *precision < 38 =>
        {
            DataType::Decimal128(precision + 1, *scale)
        }
        _ => return expr,
    };
    cast(expr, kind)
}

/// The digits of both sides, where at least one of them is a decimal and none is more than one or a whole number.
fn types_of(left: &DataType, right: &DataType) -> Option<(Digits, Digits)> {
    let is_decimal = |kind: &DataType| matches!(kind, DataType::Decimal128(_, _));
    let of = |kind| digits(kind).and_then(|(precision, scale)| Some(Digits { precision, scale: u8::try_from(scale).ok()? }));
    if is_decimal(left) || is_decimal(right) { of(left).zip(of(right)) } else { None }
}

fn decimal(of: Digits) -> DataType {
    DataType::Decimal128(of.precision, of.scale as i8)
}

/// The types that two numbers are computed in, where that is as decimals.
pub(super) fn operands(kinds: &[DataType]) -> Option<Vec<DataType>> {
    let [left, right] = kinds else { return None };
    types_of(left, right).map(|(left, right)| vec![decimal(left), decimal(right)])
}

/// The type of the result.
pub(super) fn result(operation: Operation, kinds: &[DataType]) -> Option<DataType> {
    let [left, right] = kinds else { return None };
    types_of(left, right).map(|(left, right)| decimal(operation.digits(left, right)))
}

/// One side of an operation: a column, or one value for all rows.
enum Side {
    One(Option<i128>),
    Column(Decimal128Array),
}

impl Side {
    fn of(value: &ColumnarValue) -> Result<Side> {
        match value {
            ColumnarValue::Scalar(ScalarValue::Decimal128(value, _, _)) => Ok(Side::One(*value)),
            ColumnarValue::Array(column) if matches!(column.data_type(), DataType::Decimal128(_, _)) => {
                Ok(Side::Column(column.as_primitive::<Decimal128Type>().clone()))
            }
            other => exec_err!("a decimal is expected, not {}", other.data_type()),
        }
    }

    #[inline]
    fn value(&self, row: usize) -> Option<i128> {
        match self {
            Side::One(value) => *value,
            Side::Column(column) => column.is_valid(row).then(|| column.value(row)),
        }
    }
}

/// Computes it; what does not fit is NULL.
///
/// # Errors
/// A division by zero.
pub(super) fn compute(operation: Operation, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let [left, right] = &args.args[..] else { return exec_err!("two numbers are expected") };
    let kinds = [left.data_type(), right.data_type()];
    let digits = types_of(&kinds[0], &kinds[1]).map(|(a, b)| (a, b, operation.digits(a, b)));
    let arithmetic = digits.and_then(|(a, b, result)| Some((Arithmetic::new(operation, a, b, result)?, result)));
    let Some((arithmetic, of)) = arithmetic else { return exec_err!("{operation:?} of {} and {}", kinds[0], kinds[1]) };
    let (left, right) = (Side::of(left)?, Side::of(right)?);
    let mut results = Decimal128Builder::with_capacity(args.number_rows).with_data_type(decimal(of));
    for row in 0..args.number_rows {
        let (Some(a), Some(b)) = (left.value(row), right.value(row)) else {
            results.append_null();
            continue;
        };
        if b == 0 && arithmetic.divides() {
            return Err(ArrowError::DivideByZero.into());
        }
        results.append_option(arithmetic.compute(a, b));
    }
    Ok(ColumnarValue::Array(Arc::new(results.finish())))
}

/// An operator.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Computed {
    name: &'static str,
    sign: String,
    operation: Operation,
    signature: Signature,
}

impl ScalarUDFImpl for Computed {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// As it is written.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let names: Vec<String> = args.iter().map(|arg| arg.schema_name().to_string()).collect();
        Ok(names.join(&format!(" {} ", self.sign)))
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        match operands(kinds) {
            Some(kinds) => Ok(kinds),
            None => plan_err!("{} is of two decimals", self.sign),
        }
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        match result(self.operation, kinds) {
            Some(kind) => Ok(kind),
            None => plan_err!("{} is of two decimals", self.sign),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        compute(self.operation, &args)
    }
}

/// `FLOOR(x)` and `CEIL(x)`: of a decimal one without digits behind the point, else in the type of the argument.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Whole {
    name: &'static str,
    up: bool,
    signature: Signature,
}

impl ScalarUDFImpl for Whole {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        let name = self.name.to_uppercase();
        match kinds {
            [kind] if kind.is_null() => Ok(vec![DataType::Float64]),
            [kind] if kind.is_integer() || kind.is_floating() || matches!(kind, DataType::Decimal128(_, _)) => Ok(vec![kind.clone()]),
            [kind] => plan_err!("{name} takes a number, not {}", crate::parser::type_name(kind)),
            _ => plan_err!("{name} takes one number"),
        }
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        Ok(match kinds {
            [DataType::Decimal128(precision, 1..)] => DataType::Decimal128(*precision, 0),
            [kind] => kind.clone(),
            _ => DataType::Float64,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [numbers] = &arrays[..] else { return exec_err!("{} takes one number", self.name) };
        let result: ArrayRef = match numbers.data_type() {
            DataType::Decimal128(precision, scale @ 1..) => {
                let one = 10i128.pow(u32::from(scale.unsigned_abs()));
                let whole = |x: i128| if self.up { -(-x).div_euclid(one) } else { x.div_euclid(one) };
                let whole = numbers.as_primitive::<Decimal128Type>().unary::<_, Decimal128Type>(whole);
                Arc::new(whole.with_precision_and_scale(*precision, 0)?)
            }
            DataType::Float64 => {
                let of = numbers.as_primitive::<Float64Type>();
                Arc::new(of.unary::<_, Float64Type>(if self.up { f64::ceil } else { f64::floor }))
            }
            DataType::Float32 => {
                let of = numbers.as_primitive::<Float32Type>();
                Arc::new(of.unary::<_, Float32Type>(if self.up { f32::ceil } else { f32::floor }))
            }
            _ => numbers.clone(),
        };
        Ok(ColumnarValue::Array(result))
    }
}
