//! Functions of numbers that answer in the type of their argument, and LOG.
//!
//! Invariant: decimals are exact; a float is cut off as it is written, not as it is stored.

use super::own::ScalarFunction;
use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type};
use datafusion_common::{Result, exec_err, plan_err};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use std::sync::Arc;

/// All of them.
pub(super) fn functions() -> Vec<ScalarUDF> {
    let log = ScalarFunction::new("log", vec![DataType::Float64], DataType::Float64, |args| {
        let value = |i: usize| args[i].as_primitive::<Float64Type>();
        Ok(Arc::new(match args.len() {
            1 => value(0).unary::<_, Float64Type>(f64::ln),
            _ => value(0).iter().zip(value(1).iter()).map(|(base, x)| Some(x?.ln() / base?.ln())).collect::<Float64Array>(),
        }))
    });
    let like = |name, places| ScalarUDF::from(Like { name, places, signature: Signature::user_defined(Volatility::Immutable) });
    vec![ScalarUDF::from(log.or(vec![DataType::Float64, DataType::Float64])), like("sign", false), like("truncate", true)]
}

/// SIGN(x), TRUNCATE(x [, places]).
#[derive(Debug, PartialEq, Eq, Hash)]
struct Like {
    name: &'static str,
    /// It may be told places behind the point.
    places: bool,
    signature: Signature,
}

impl ScalarUDFImpl for Like {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        let name = self.name.to_uppercase();
        let (number, places) = match kinds {
            [number] => (number, None),
            [number, places] if self.places && (places.is_integer() || places.is_null()) => (number, Some(DataType::Int64)),
            _ => return plan_err!("{name} takes a number{}", if self.places { " and how many places stay" } else { "" }),
        };
        let number = match number {
            k if k.is_null() => DataType::Int64,
            k if k.is_signed_integer() || matches!(k, DataType::Float64 | DataType::Decimal128(_, _)) => k.clone(),
            DataType::Float32 => DataType::Float64,
            k => return plan_err!("{name} takes a number, not {}", crate::parser::type_name(k)),
        };
        Ok(std::iter::once(number).chain(places).collect())
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        Ok(kinds.first().cloned().unwrap_or(DataType::Int64))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = args.args.iter().map(|a| a.to_array(args.number_rows)).collect::<Result<Vec<_>>>()?;
        let Some(numbers) = arrays.first() else { return exec_err!("{} takes a number", self.name) };
        let places = match arrays.get(1) {
            Some(places) => places.as_primitive::<Int64Type>().clone(),
            None => Int64Array::from(vec![0; args.number_rows]),
        };
        let result: ArrayRef = match numbers.data_type() {
            DataType::Decimal128(precision, scale) => {
                let (one, of) = (10i128.pow(u32::from(scale.unsigned_abs())), numbers.as_primitive::<Decimal128Type>());
                let value = |(x, places): (Option<i128>, Option<i64>)| {
                    let (x, places) = (x?, places?);
                    Some(if self.places { cut(x, i64::from(*scale).saturating_sub(places)) } else { x.signum() * one })
                };
                let values: Decimal128Array = of.iter().zip(places.iter()).map(value).collect();
                Arc::new(values.with_precision_and_scale(*precision, *scale)?)
            }
            DataType::Float64 => {
                let value = |(x, places): (Option<f64>, Option<i64>)| {
                    let (x, places) = (x?, places?);
                    Some(match self.places {
                        true => cut_float(x, places),
                        false if x == 0.0 || x.is_nan() => x,
                        false => x.signum(),
                    })
                };
                Arc::new(numbers.as_primitive::<Float64Type>().iter().zip(places.iter()).map(value).collect::<Float64Array>())
            }
            kind => {
                let whole = cast(numbers, &DataType::Int64)?;
                let value = |(x, places): (Option<i64>, Option<i64>)| {
                    let (x, places) = (x?, places?);
                    Some(if self.places { cut(i128::from(x), places.saturating_neg()) as i64 } else { x.signum() })
                };
                let values: Int64Array = whole.as_primitive::<Int64Type>().iter().zip(places.iter()).map(value).collect();
                cast(&values, kind)?
            }
        };
        Ok(ColumnarValue::Array(result))
    }
}

/// Without the last digits, so many; they become zeros.
fn cut(x: i128, digits: i64) -> i128 {
    match u32::try_from(digits) {
        Ok(digits) => 10i128.checked_pow(digits).map_or(0, |power| x / power * power),
        Err(_) if digits < 0 => x,
        Err(_) => 0,
    }
}

fn cut_float(x: f64, places: i64) -> f64 {
    if !x.is_finite() {
        return x;
    }
    let text = x.to_string();
    let point = text.find('.').unwrap_or(text.len());
    let kept = (point as i64).saturating_add(places).saturating_add(i64::from(places > 0));
    let kept = usize::try_from(kept).unwrap_or(0);
    if kept >= text.len() {
        return x;
    }
    let digits = |(i, c): (usize, char)| if i < kept || !c.is_ascii_digit() { c } else { '0' };
    text[..point.max(kept)].char_indices().map(digits).collect::<String>().parse().unwrap_or(x)
}
