//! What CAST means beyond what DataFusion makes of it: lengths of texts, digits of a time of day, numbers as Java writes them, whole
//! numbers of texts with a point.
//!
//! Invariant: a value that needs no change is what it was; a conversion to text never fails, so TRY_CAST of it is CAST.

use super::known;
use super::own::ScalarFunction;
use super::text::{first, text_int};
use arrow::array::{ArrayRef, AsArray, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type, Time64NanosecondType, TimeUnit};
use datafusion_common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion_expr::expr::{Cast, TryCast};
use datafusion_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion_expr::{
    ColumnarValue, Expr, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, cast,
};
use std::borrow::Cow;
use std::fmt::LowerExp;
use std::sync::{Arc, LazyLock};

const TEXT: DataType = DataType::Utf8;
const TIME: DataType = DataType::Time64(TimeUnit::Nanosecond);

/// A cast with a name of its own, which is the second argument.
pub(in crate::plan) const AS_WRITTEN: &str = "as_written";

/// What CAST becomes when a query is read.
pub(super) fn functions() -> Vec<ScalarFunction> {
    vec![
        ScalarFunction::new("cut_text", vec![TEXT, DataType::Int64], TEXT, |args| {
            text_int(args, |text, n| Some(first(text, n).to_string()))
        }),
        ScalarFunction::new("fit_text", vec![TEXT, DataType::Int64], TEXT, |args| {
            text_int(args, |text, n| {
                let missing = usize::try_from(n).unwrap_or(0).saturating_sub(text.chars().count());
                Some(format!("{}{}", first(text, n), " ".repeat(missing)))
            })
        }),
        ScalarFunction::new("cut_time", vec![TIME, DataType::Int64], TIME, cut_time),
    ]
}

/// The name of a cast.
pub(super) fn as_written() -> ScalarUDF {
    ScalarUDF::from(AsWritten(Signature::user_defined(Volatility::Immutable)))
}

/// A time of day with so many digits behind its seconds.
fn cut_time(args: &[ArrayRef]) -> std::result::Result<ArrayRef, String> {
    let (times, digits) = (args[0].as_primitive::<Time64NanosecondType>(), args[1].as_primitive::<Int64Type>());
    let cut = |(time, digits): (Option<i64>, Option<i64>)| {
        let unit = 10i64.pow(9u32.saturating_sub(u32::try_from(digits?).unwrap_or(0)));
        Some(time? / unit * unit)
    };
    let cut = times.iter().zip(digits.iter()).map(cut);
    Ok(Arc::new(cut.collect::<arrow::array::Time64NanosecondArray>()))
}

/// What stands for a cast, where DataFusion's gives something else than Flink's.
///
/// # Errors
/// Expressions without a type.
pub(in crate::plan) fn replaced(expr: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
    let (Expr::Cast(Cast { expr: inner, field }) | Expr::TryCast(TryCast { expr: inner, field })) = expr else { return Ok(None) };
    if field.data_type().is_integer() && inner.get_type(schema)? == TEXT {
        let whole = Box::new(WHOLE_OF_TEXT.call(vec![(**inner).clone()]));
        return Ok(Some(match expr {
            Expr::TryCast(_) => Expr::TryCast(TryCast { expr: whole, field: field.clone() }),
            _ => Expr::Cast(Cast { expr: whole, field: field.clone() }),
        }));
    }
    if *field.data_type() != TEXT {
        return Ok(None);
    }
    Ok(match inner.get_type(schema)? {
        // Flink writes TRUE and FALSE.
        DataType::Boolean => known("upper").map(|upper| upper.call(vec![cast((**inner).clone(), TEXT)])),
        DataType::Float64 => Some(TEXT_OF_DOUBLE.call(vec![(**inner).clone()])),
        DataType::Float32 => Some(TEXT_OF_FLOAT.call(vec![(**inner).clone()])),
        _ => None,
    })
}

static WHOLE_OF_TEXT: LazyLock<ScalarUDF> = LazyLock::new(|| {
    ScalarUDF::from(ScalarFunction::new("whole of text", vec![TEXT], TEXT, |args| {
        let texts = args[0].as_string::<i32>();
        if !texts.value_data().contains(&b'.') {
            return Ok(args[0].clone());
        }
        Ok(Arc::new(texts.iter().map(|text| text.map(whole)).collect::<StringArray>()))
    }))
});

/// The text of a whole number, of that of a number with a point, whose fraction Flink cuts off; any other text as it is.
fn whole(text: &str) -> Cow<'_, str> {
    let are_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let Some((before, behind)) = text.trim_ascii().split_once('.') else { return text.into() };
    let digits = before.strip_prefix(['-', '+']).unwrap_or(before);
    match (digits, behind) {
        _ if !are_digits(digits) || !are_digits(behind) => text.into(),
        ("", "") => text.into(),
        ("", _) => "0".into(),
        _ => before.into(),
    }
}

static TEXT_OF_DOUBLE: LazyLock<ScalarUDF> = LazyLock::new(|| {
    ScalarUDF::from(ScalarFunction::new("text of double", vec![DataType::Float64], TEXT, |args| {
        Ok(texts(args[0].as_primitive::<Float64Type>().iter(), f64::is_finite))
    }))
});

static TEXT_OF_FLOAT: LazyLock<ScalarUDF> = LazyLock::new(|| {
    ScalarUDF::from(ScalarFunction::new("text of float", vec![DataType::Float32], TEXT, |args| {
        Ok(texts(args[0].as_primitive::<Float32Type>().iter(), f32::is_finite))
    }))
});

fn texts<F: LowerExp + PartialOrd + Default + Copy>(numbers: impl Iterator<Item = Option<F>>, is_finite: fn(F) -> bool) -> ArrayRef {
    let mut texts = StringBuilder::new();
    for number in numbers {
        match number {
            None => {
                texts.append_null();
                continue;
            }
            Some(x) if is_finite(x) => write_java(&format!("{x:e}"), &mut texts),
            Some(x) if x > F::default() => texts.append_value("Infinity"),
            Some(x) if x < F::default() => texts.append_value("-Infinity"),
            Some(_) => texts.append_value("NaN"),
        }
    }
    Arc::new(texts.finish())
}

/// A number as `Double.toString` of Java has it: the fewest digits that tell it from its neighbours, of which one at least is behind
/// the point, and an exponent below a thousandth and from ten millions on. Given is the number in the form `1.25e-3`.
fn write_java(number: &str, out: &mut StringBuilder) {
    let (sign, number) = number.strip_prefix('-').map_or(("", number), |number| ("-", number));
    let (mantissa, exponent) = number.split_once('e').unwrap_or((number, "0"));
    let (digits, exponent) = (mantissa.replace('.', ""), exponent.parse::<i32>().unwrap_or(0));
    let pointed = |whole: &str, rest: &str| format!("{sign}{whole}.{}", if rest.is_empty() { "0" } else { rest });
    let text = match exponent {
        0..7 => {
            let width = exponent as usize + 1;
            let digits = format!("{digits:0<width$}");
            pointed(&digits[..width], &digits[width..])
        }
        -3..0 => pointed("0", &format!("{}{digits}", "0".repeat(exponent.unsigned_abs() as usize - 1))),
        _ => format!("{}E{exponent}", pointed(&digits[..1], &digits[1..])),
    };
    out.append_value(text);
}

/// `as_written(cast, 'CAST(x AS INT)')`: the cast, as a column of that name.
#[derive(Debug, PartialEq, Eq, Hash)]
struct AsWritten(Signature);

impl ScalarUDFImpl for AsWritten {
    fn name(&self) -> &str {
        AS_WRITTEN
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        match args {
            [_, Expr::Literal(ScalarValue::Utf8(Some(name)), _)] => Ok(name.clone()),
            _ => plan_err!("a cast with a name is expected"),
        }
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        Ok(kinds.to_vec())
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        Ok(kinds.first().cloned().unwrap_or(DataType::Null))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<arrow::datatypes::FieldRef> {
        match args.arg_fields.first() {
            Some(field) => Ok(field.clone()),
            None => plan_err!("a cast with a name is expected"),
        }
    }

    fn simplify(&self, args: Vec<Expr>, _info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        match args.into_iter().next() {
            Some(expr) => Ok(ExprSimplifyResult::Simplified(expr)),
            None => plan_err!("a cast with a name is expected"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.into_iter().next() {
            Some(value) => Ok(value),
            None => plan_err!("a cast with a name is expected"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Array;

    #[test]
    fn fractions_are_cut_off_numbers_alone() {
        for (text, expected) in [
            ("12", "12"),
            ("12.7", "12"),
            (" -3.9 ", "-3"),
            ("+1.", "+1"),
            (".5", "0"),
            ("-.5", "0"),
            (".", "."),
            ("1.2.3", "1.2.3"),
            ("1.x", "1.x"),
            ("x.1", "x.1"),
            ("--1.0", "--1.0"),
            ("1e3.0", "1e3.0"),
        ] {
            assert_eq!(whole(text), expected, "{text}");
        }
    }

    #[test]
    fn numbers_are_written_as_in_java() {
        let of = |numbers: &[f64]| texts(numbers.iter().map(|x| Some(*x)), f64::is_finite);
        let numbers = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (-2.75, "-2.75"),
            (100.0, "100.0"),
            (0.1, "0.1"),
            (0.001, "0.001"),
            (0.012_34, "0.01234"),
            (0.000_999, "9.99E-4"),
            (9_999_999.0, "9999999.0"),
            (1_234_567.5, "1234567.5"),
            (1e7, "1.0E7"),
            (12_345_670.0, "1.234567E7"),
            (-1e-5, "-1.0E-5"),
            (f64::MAX, "1.7976931348623157E308"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
            (f64::NAN, "NaN"),
        ];
        let written = of(&numbers.map(|(x, _)| x));
        assert_eq!(written.as_string::<i32>().iter().flatten().collect::<Vec<_>>(), numbers.map(|(_, text)| text));
        let floats = texts([Some(1.1f32), None, Some(16_777_216.0)].into_iter(), f32::is_finite);
        assert_eq!(floats.as_string::<i32>().iter().collect::<Vec<_>>(), [Some("1.1"), None, Some("1.6777216E7")]);
        assert_eq!(floats.null_count(), 1);
    }
}
