//! One value of a row as a user's function sees it.
//!
//! Invariant: what a function is given has the type that it declares, or is NULL; what it gives is looked at before it goes on.

use crate::kernels::value::{Cells, Class, Value};
use arrow::datatypes::DataType;
use std::borrow::Cow;

/// One value: an argument of a function, or its result.
///
/// Whole numbers of any width are an `Int`; so are dates (days since 1970), times of day (milliseconds) and timestamps (units
/// of their type since 1970: milliseconds of `TIMESTAMP(3)`). `FLOAT` and `DOUBLE` are a `Float`. A decimal is its digits
/// without the point: 1.50 of `DECIMAL(10, 2)` is 150.
///
/// Patterns say what a function does with NULL:
///
/// ```
/// use waterwheel_sql::Datum;
/// fn weighted(args: &[Datum<'_>]) -> Option<i64> {
///     // Not if one of them is NULL.
///     if let [Datum::Int(value), Datum::Int(weight)] = args { Some(value * weight) } else { None }
/// }
/// assert_eq!(weighted(&[3.into(), 4.into()]), Some(12));
/// assert_eq!(weighted(&[3.into(), Datum::Null]), None);
/// assert_eq!(Datum::from(None::<i64>), Datum::Null);
/// assert_eq!(Datum::from("a").as_text(), Some("a"));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum Datum<'a> {
    /// No value.
    Null,
    /// A `BOOLEAN`.
    Bool(bool),
    /// A whole number, a date, a time, a timestamp.
    Int(i64),
    /// A `FLOAT` or `DOUBLE`.
    Float(f64),
    /// The digits of a `DECIMAL`.
    Decimal(i128),
    /// A `STRING`.
    Text(Cow<'a, str>),
    /// `BYTES`.
    Bytes(Cow<'a, [u8]>),
}

impl<'a> Datum<'a> {
    /// The value of a row.
    pub(crate) fn of(cells: &'a Cells, row: usize) -> Datum<'a> {
        if cells.is_null(row) {
            return Datum::Null;
        }
        match cells {
            Cells::Bool(a) => Datum::Bool(a.value(row)),
            Cells::Int(a) => Datum::Int(a.value(row)),
            Cells::Float(a) => Datum::Float(a.value(row)),
            Cells::Decimal(a) => Datum::Decimal(a.value(row)),
            Cells::Text(a) => Datum::Text(a.value(row).into()),
            Cells::Bytes(a) => Datum::Bytes(a.value(row).into()),
        }
    }

    /// Whether it is none.
    pub fn is_null(&self) -> bool {
        *self == Datum::Null
    }

    /// The whole number, if it is one.
    pub fn as_int(&self) -> Option<i64> {
        if let Datum::Int(v) = self { Some(*v) } else { None }
    }

    /// The float, if it is one.
    pub fn as_float(&self) -> Option<f64> {
        if let Datum::Float(v) = self { Some(*v) } else { None }
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        if let Datum::Text(v) = self { Some(v) } else { None }
    }

    /// Whether a column of a type holds it.
    pub(crate) fn fits(&self, kind: &DataType) -> bool {
        match (self, Class::of(kind)) {
            (Datum::Null, _)
            | (Datum::Bool(_), Some(Class::Bool))
            | (Datum::Float(_), Some(Class::Float))
            | (Datum::Text(_), Some(Class::Text))
            | (Datum::Bytes(_), Some(Class::Bytes)) => true,
            (Datum::Int(v), Some(Class::Int)) => match kind {
                DataType::Int8 => i8::try_from(*v).is_ok(),
                DataType::Int16 => i16::try_from(*v).is_ok(),
                DataType::Int32 | DataType::Date32 | DataType::Time32(_) => i32::try_from(*v).is_ok(),
                _ => true,
            },
            (Datum::Decimal(v), Some(Class::Decimal)) => match kind {
                DataType::Decimal128(precision, _) => {
                    10u128.checked_pow(u32::from(*precision)).is_none_or(|bound| v.unsigned_abs() < bound)
                }
                _ => true,
            },
            _ => false,
        }
    }

    /// What is wrong with it as a value of a type.
    pub(crate) fn misfit(&self, kind: &DataType) -> String {
        format!("{self:?} is no {}", crate::parser::type_name(kind))
    }
}

impl From<Datum<'_>> for Value {
    fn from(datum: Datum<'_>) -> Value {
        match datum {
            Datum::Null => Value::Null,
            Datum::Bool(v) => Value::Bool(v),
            Datum::Int(v) => Value::Int(v),
            Datum::Float(v) => Value::Float(v),
            Datum::Decimal(v) => Value::Decimal(v),
            Datum::Text(v) => Value::Text(v.into_owned()),
            Datum::Bytes(v) => Value::Bytes(v.into_owned()),
        }
    }
}

impl<'a> From<&'a Value> for Datum<'a> {
    fn from(value: &'a Value) -> Datum<'a> {
        match value {
            Value::Null => Datum::Null,
            Value::Bool(v) => Datum::Bool(*v),
            Value::Int(v) => Datum::Int(*v),
            Value::Float(v) => Datum::Float(*v),
            Value::Decimal(v) => Datum::Decimal(*v),
            Value::Text(v) => Datum::Text(v.as_str().into()),
            Value::Bytes(v) => Datum::Bytes(v.as_slice().into()),
        }
    }
}

impl From<bool> for Datum<'_> {
    fn from(v: bool) -> Self {
        Datum::Bool(v)
    }
}

impl From<i32> for Datum<'_> {
    fn from(v: i32) -> Self {
        Datum::Int(v.into())
    }
}

impl From<i64> for Datum<'_> {
    fn from(v: i64) -> Self {
        Datum::Int(v)
    }
}

impl From<f64> for Datum<'_> {
    fn from(v: f64) -> Self {
        Datum::Float(v)
    }
}

impl<'a> From<&'a str> for Datum<'a> {
    fn from(v: &'a str) -> Self {
        Datum::Text(v.into())
    }
}

impl From<String> for Datum<'_> {
    fn from(v: String) -> Self {
        Datum::Text(v.into())
    }
}

impl<'a> From<&'a [u8]> for Datum<'a> {
    fn from(v: &'a [u8]) -> Self {
        Datum::Bytes(v.into())
    }
}

impl From<Vec<u8>> for Datum<'_> {
    fn from(v: Vec<u8>) -> Self {
        Datum::Bytes(v.into())
    }
}

impl<'a, V: Into<Datum<'a>>> From<Option<V>> for Datum<'a> {
    fn from(v: Option<V>) -> Self {
        v.map_or(Datum::Null, Into::into)
    }
}

/// Of types that a function may take or give, the first that is none of them; rows, arrays and maps are taken apart before.
pub(super) fn unknown<'k>(kinds: impl IntoIterator<Item = &'k DataType>) -> Option<&'k DataType> {
    kinds.into_iter().find(|kind| Class::of(kind).is_none_or(|class| class == Class::Nested))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_type_cannot_hold_does_not_fit() {
        let decimal = DataType::Decimal128(3, 1);
        for (datum, kind, fits) in [
            (Datum::Null, DataType::Int8, true),
            (128.into(), DataType::Int8, false),
            ((-128).into(), DataType::Int8, true),
            (i64::MAX.into(), DataType::Int64, true),
            (1.into(), DataType::Float64, false),
            (1.0.into(), DataType::Float32, true),
            (Datum::Decimal(999), decimal.clone(), true),
            (Datum::Decimal(-1000), decimal, false),
            ("a".into(), DataType::Utf8, true),
            ("a".into(), DataType::Binary, false),
            (b"a".as_slice().into(), DataType::Binary, true),
            (Some(true).into(), DataType::Boolean, true),
        ] {
            assert_eq!(datum.fits(&kind), fits, "{datum:?} {kind}");
        }
    }
}
