//! Single values: what keys, accumulators and results are made of.
//!
//! All integers, dates, times and timestamps are numbers of one class; the column's type says what they mean. A column is
//! brought to its class once a batch; after that a value is an array access.
//!
//! Invariant: a value read from a column of a type and written to a column of that type is the same value. As keys, -0.0 is
//! 0.0 and every NaN is one NaN.

use super::building::Building;
use super::nested;
use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Time32MillisecondType,
    TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::record::{Key, decode_bytes, encode_bytes};

/// One value of any column that can be a key, an argument or a result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Decimal(i128),
    Text(String),
    Bytes(Vec<u8>),
}

impl Value {
    /// Same value, as `IS NOT DISTINCT FROM` sees it; a NaN is a NaN.
    pub(crate) fn is_same(&self, other: &Value) -> bool {
        self.total_cmp(other) == Ordering::Equal
    }

    /// The order of keys: NULL first, NaN last.
    pub(crate) fn total_cmp(&self, other: &Value) -> Ordering {
        match (self, other) {
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Value::Int(a), Value::Int(b)) => a.cmp(b),
            (Value::Decimal(a), Value::Decimal(b)) => a.cmp(b),
            (Value::Text(a), Value::Text(b)) => a.cmp(b),
            (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
            (Value::Float(a), Value::Float(b)) => a.partial_cmp(b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan())),
            _ => self.rank().cmp(&other.rank()),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Value::Null => 0,
            Value::Bool(_) => 1,
            Value::Int(_) => 2,
            Value::Float(_) => 3,
            Value::Decimal(_) => 4,
            Value::Text(_) => 5,
            Value::Bytes(_) => 6,
        }
    }

    /// Appends canonical bytes, in the order of [`total_cmp`](Self::total_cmp).
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Value::Null => return out.push(0),
            _ => out.push(1),
        }
        match self {
            Value::Null => {}
            Value::Bool(v) => v.encode(out),
            Value::Int(v) => v.encode(out),
            Value::Float(v) => v.encode(out),
            Value::Decimal(v) => v.encode(out),
            Value::Text(v) => encode_bytes(v.as_bytes(), out),
            Value::Bytes(v) => encode_bytes(v, out),
        }
    }

    /// Reads one value of a class from the front.
    pub(crate) fn decode(class: Class, bytes: &mut &[u8]) -> Result<Value> {
        if !bool::decode(bytes)? {
            return Ok(Value::Null);
        }
        Ok(match class {
            Class::Bool => Value::Bool(bool::decode(bytes)?),
            Class::Int => Value::Int(i64::decode(bytes)?),
            Class::Float => Value::Float(f64::decode(bytes)?),
            Class::Decimal => Value::Decimal(i128::decode(bytes)?),
            Class::Text => {
                Value::Text(String::from_utf8(decode_bytes(bytes)?.into_owned()).map_err(|_| Error::fatal("text in state is not UTF-8"))?)
            }
            Class::Bytes | Class::Nested => Value::Bytes(decode_bytes(bytes)?.into_owned()),
        })
    }
}

/// What a column's values are held as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Bool,
    Int,
    Float,
    Decimal,
    Text,
    Bytes,
    /// Rows and arrays, held as bytes that are equal where they are; their order means nothing.
    Nested,
}

impl Class {
    /// The class of a type; none for types that cannot be keys or arguments.
    pub(crate) fn of(kind: &DataType) -> Option<Class> {
        Some(match kind {
            DataType::Boolean => Class::Bool,
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 | DataType::Date32 => Class::Int,
            DataType::Time32(TimeUnit::Millisecond) | DataType::Timestamp(_, _) => Class::Int,
            DataType::Float32 | DataType::Float64 => Class::Float,
            DataType::Decimal128(_, _) => Class::Decimal,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Class::Text,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Class::Bytes,
            nested if nested::is_nested(nested) && nested::can_be_kept(nested) => Class::Nested,
            _ => return None,
        })
    }
}

/// A column brought to its class.
#[derive(Debug, Clone)]
pub(crate) enum Cells {
    Bool(BooleanArray),
    Int(Int64Array),
    Float(Float64Array),
    Decimal(Decimal128Array),
    Text(StringArray),
    Bytes(BinaryArray),
}

fn numbers<T: ArrowPrimitiveType>(array: &ArrayRef) -> Int64Array
where
    T::Native: Into<i64>,
{
    array.as_primitive::<T>().unary(Into::into)
}

impl Cells {
    /// Of a column whose type has a class.
    ///
    /// # Errors
    /// A type that has none: a bug of the planner, which checks it.
    pub(crate) fn of(array: &ArrayRef) -> Result<Cells> {
        let failed = |e| Error::restart("a column cannot be read").because(e);
        Ok(match array.data_type() {
            DataType::Boolean => Cells::Bool(array.as_boolean().clone()),
            DataType::Int8 => Cells::Int(numbers::<Int8Type>(array)),
            DataType::Int16 => Cells::Int(numbers::<Int16Type>(array)),
            DataType::Int32 => Cells::Int(numbers::<Int32Type>(array)),
            DataType::Date32 => Cells::Int(numbers::<Date32Type>(array)),
            DataType::Time32(TimeUnit::Millisecond) => Cells::Int(numbers::<Time32MillisecondType>(array)),
            DataType::Int64 => Cells::Int(array.as_primitive::<Int64Type>().clone()),
            DataType::Timestamp(unit, _) => Cells::Int(match unit {
                TimeUnit::Second => array.as_primitive::<TimestampSecondType>().reinterpret_cast(),
                TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().reinterpret_cast(),
                TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().reinterpret_cast(),
                TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().reinterpret_cast(),
            }),
            DataType::Float32 => Cells::Float(array.as_primitive::<Float32Type>().unary(f64::from)),
            DataType::Float64 => Cells::Float(array.as_primitive::<Float64Type>().clone()),
            DataType::Decimal128(_, _) => Cells::Decimal(array.as_primitive().clone()),
            DataType::Utf8 => Cells::Text(array.as_string::<i32>().clone()),
            DataType::LargeUtf8 | DataType::Utf8View => {
                Cells::Text(cast(array, &DataType::Utf8).map_err(failed)?.as_string::<i32>().clone())
            }
            DataType::Binary => Cells::Bytes(array.as_binary::<i32>().clone()),
            DataType::LargeBinary | DataType::BinaryView => {
                Cells::Bytes(cast(array, &DataType::Binary).map_err(failed)?.as_binary::<i32>().clone())
            }
            nested if Class::of(nested).is_some() => Cells::Bytes((0..array.len()).map(|row| nested::bytes(array, row)).collect()),
            other => return Err(Error::fatal(format!("plan bug: values of type {other} have no class"))),
        })
    }

    fn array(&self) -> &dyn Array {
        match self {
            Cells::Bool(a) => a,
            Cells::Int(a) => a,
            Cells::Float(a) => a,
            Cells::Decimal(a) => a,
            Cells::Text(a) => a,
            Cells::Bytes(a) => a,
        }
    }

    pub(crate) fn is_null(&self, row: usize) -> bool {
        self.array().is_null(row)
    }

    /// The value of a row.
    pub(crate) fn value(&self, row: usize) -> Value {
        if self.is_null(row) {
            return Value::Null;
        }
        match self {
            Cells::Bool(a) => Value::Bool(a.value(row)),
            Cells::Int(a) => Value::Int(a.value(row)),
            Cells::Float(a) => Value::Float(a.value(row)),
            Cells::Decimal(a) => Value::Decimal(a.value(row)),
            Cells::Text(a) => Value::Text(a.value(row).to_string()),
            Cells::Bytes(a) => Value::Bytes(a.value(row).to_vec()),
        }
    }

    /// Appends the canonical bytes of a row's value, as [`Value::encode`] does.
    pub(crate) fn encode(&self, row: usize, out: &mut Vec<u8>) {
        if self.is_null(row) {
            return out.push(0);
        }
        out.push(1);
        match self {
            Cells::Bool(a) => a.value(row).encode(out),
            Cells::Int(a) => a.value(row).encode(out),
            Cells::Float(a) => a.value(row).encode(out),
            Cells::Decimal(a) => a.value(row).encode(out),
            Cells::Text(a) => encode_bytes(a.value(row).as_bytes(), out),
            Cells::Bytes(a) => encode_bytes(a.value(row), out),
        }
    }
}

/// A column of a type with these values.
///
/// # Errors
/// Of Arrow, for columns beyond its limits; a type that has no class.
pub(crate) fn column(kind: &DataType, values: &[&Value]) -> Result<ArrayRef> {
    let mut column = Building::of(kind)?;
    values.iter().for_each(|value| column.push(value));
    column.take()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn value(class: Class) -> BoxedStrategy<Value> {
        let some = match class {
            Class::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
            Class::Int => prop_oneof![any::<i64>(), -3..3i64].prop_map(Value::Int).boxed(),
            Class::Float => prop_oneof![any::<f64>(), Just(0.0), Just(-0.0), Just(f64::NAN)].prop_map(Value::Float).boxed(),
            Class::Decimal => (-1000..1000i128).prop_map(Value::Decimal).boxed(),
            Class::Text => ".{0,4}".prop_map(Value::Text).boxed(),
            Class::Bytes => proptest::collection::vec(0u8..3, 0..4).prop_map(Value::Bytes).boxed(),
            Class::Nested => unreachable!("rows and arrays have tests of their own"),
        };
        prop_oneof![1 => Just(Value::Null), 5 => some].boxed()
    }

    pub(crate) fn types() -> Vec<DataType> {
        vec![
            DataType::Boolean,
            DataType::Int64,
            DataType::Float64,
            DataType::Decimal128(10, 2),
            DataType::Utf8,
            DataType::Binary,
            DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
        ]
    }

    proptest! {
        #[test]
        fn values_come_back_from_columns_and_keys_in_order((kind, a, b) in proptest::sample::select(types()).prop_flat_map(|kind| {
            let class = Class::of(&kind).unwrap();
            (Just(kind), value(class), value(class))
        })) {
            let cells = Cells::of(&column(&kind, &[&a, &b]).unwrap()).unwrap();
            prop_assert!(cells.value(0).is_same(&a) && cells.value(1).is_same(&b));
            let bytes = |v: &Value| { let mut out = Vec::new(); v.encode(&mut out); out };
            let (ka, kb) = (bytes(&a), bytes(&b));
            prop_assert_eq!(ka.cmp(&kb), a.total_cmp(&b));
            let mut of_cells = Vec::new();
            cells.encode(0, &mut of_cells);
            prop_assert_eq!(&of_cells, &ka);
            let mut rest = &ka[..];
            prop_assert!(Value::decode(Class::of(&kind).unwrap(), &mut rest).unwrap().is_same(&a));
            prop_assert!(rest.is_empty());
        }
    }
}
