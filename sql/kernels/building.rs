//! Columns of results, made value by value.
//!
//! Invariant: what is pushed is what the column holds; a value that the column's type cannot hold is NULL.

use super::nested;
use super::value::{Class, Value};
use arrow::array::{ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, StringArray, new_null_array};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Float32Type, Int8Type, Int16Type, Int32Type, Time32MillisecondType, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use std::sync::Arc;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::record::{Key, decode_bytes};

/// A column being made.
#[derive(Debug)]
pub(crate) struct Building {
    kind: DataType,
    values: Values,
    /// By row, whether there is a value.
    valid: Vec<bool>,
}

/// As wide as the class; where there is no value, any.
#[derive(Debug)]
enum Values {
    /// Of a type that has no values.
    None,
    Bool(Vec<bool>),
    Int(Vec<i64>),
    Float(Vec<f64>),
    Decimal(Vec<i128>),
    /// Texts, bytes, nested values.
    Bytes {
        data: Vec<u8>,
        ends: Vec<usize>,
    },
}

impl Building {
    /// A column of a type, empty.
    ///
    /// # Errors
    /// A type that has no class: a bug of the planner, which checks it.
    pub(crate) fn of(kind: &DataType) -> Result<Building> {
        let values = match Class::of(kind) {
            _ if kind.is_null() => Values::None,
            Some(Class::Bool) => Values::Bool(Vec::new()),
            Some(Class::Int) => Values::Int(Vec::new()),
            Some(Class::Float) => Values::Float(Vec::new()),
            Some(Class::Decimal) => Values::Decimal(Vec::new()),
            Some(Class::Text | Class::Bytes | Class::Nested) => Values::Bytes { data: Vec::new(), ends: Vec::new() },
            None => return Err(Error::fatal(format!("plan bug: values of type {kind} have no class"))),
        };
        Ok(Building { kind: kind.clone(), values, valid: Vec::new() })
    }

    /// Appends a value.
    pub(crate) fn push(&mut self, value: &Value) {
        let valid = match (&mut self.values, value) {
            (Values::Bool(values), Value::Bool(v)) => put(values, *v),
            (Values::Int(values), Value::Int(v)) => put(values, *v),
            (Values::Float(values), Value::Float(v)) => put(values, *v),
            (Values::Decimal(values), Value::Decimal(v)) => put(values, *v),
            (Values::Bytes { data, ends }, Value::Text(text)) => put_bytes(data, ends, text.as_bytes()),
            (Values::Bytes { data, ends }, Value::Bytes(bytes)) => put_bytes(data, ends, bytes),
            (values, _) => values.put_none(),
        };
        self.valid.push(valid);
    }

    /// Appends a value by its canonical bytes, taken from the front.
    ///
    /// # Errors
    /// Bytes that are none.
    pub(crate) fn push_encoded(&mut self, bytes: &mut &[u8]) -> Result<()> {
        if !bool::decode(bytes)? {
            self.push(&Value::Null);
            return Ok(());
        }
        let valid = match &mut self.values {
            Values::None => false,
            Values::Bool(values) => put(values, bool::decode(bytes)?),
            Values::Int(values) => put(values, i64::decode(bytes)?),
            Values::Float(values) => put(values, f64::decode(bytes)?),
            Values::Decimal(values) => put(values, i128::decode(bytes)?),
            Values::Bytes { data, ends } => put_bytes(data, ends, &decode_bytes(bytes)?),
        };
        self.valid.push(valid);
        Ok(())
    }

    /// Whether two rows have the same value, as [`Value::is_same`] sees it.
    pub(crate) fn is_same(&self, a: usize, b: usize) -> bool {
        if !(self.valid[a] && self.valid[b]) {
            return self.valid[a] == self.valid[b];
        }
        match &self.values {
            Values::None => true,
            Values::Bool(values) => values[a] == values[b],
            Values::Int(values) => values[a] == values[b],
            Values::Float(values) => Value::Float(values[a]).is_same(&Value::Float(values[b])),
            Values::Decimal(values) => values[a] == values[b],
            Values::Bytes { data, ends } => {
                let row = |row: usize| &data[if row == 0 { 0 } else { ends[row - 1] }..ends[row]];
                row(a) == row(b)
            }
        }
    }

    /// Takes the column; none of its rows are left.
    ///
    /// # Errors
    /// Of Arrow, for columns beyond its limits; texts that are no UTF-8.
    pub(crate) fn take(&mut self) -> Result<ArrayRef> {
        let valid = std::mem::take(&mut self.valid);
        let rows = valid.len();
        let nulls = valid.contains(&false).then(|| NullBuffer::from(valid));
        match &mut self.values {
            Values::None => Ok(new_null_array(&self.kind, rows)),
            Values::Bool(values) => Ok(Arc::new(BooleanArray::new(BooleanBuffer::from(std::mem::take(values)), nulls))),
            Values::Int(values) => Ok(whole_numbers(&self.kind, Int64Array::new(std::mem::take(values).into(), nulls))),
            Values::Float(values) => {
                let numbers = Float64Array::new(std::mem::take(values).into(), nulls);
                Ok(match &self.kind {
                    DataType::Float32 => Arc::new(numbers.unary::<_, Float32Type>(|v| v as f32)),
                    _ => Arc::new(numbers),
                })
            }
            Values::Decimal(values) => {
                let numbers = Decimal128Array::new(std::mem::take(values).into(), nulls);
                match &self.kind {
                    DataType::Decimal128(precision, scale) => {
                        Ok(Arc::new(numbers.with_precision_and_scale(*precision, *scale).map_err(failed)?))
                    }
                    _ => Ok(Arc::new(numbers)),
                }
            }
            Values::Bytes { data, ends } => letters(&self.kind, std::mem::take(data), &std::mem::take(ends), nulls),
        }
    }
}

impl Values {
    fn put_none(&mut self) -> bool {
        match self {
            Values::None => {}
            Values::Bool(values) => values.push(false),
            Values::Int(values) => values.push(0),
            Values::Float(values) => values.push(0.0),
            Values::Decimal(values) => values.push(0),
            Values::Bytes { data, ends } => ends.push(data.len()),
        }
        false
    }
}

fn put<T>(values: &mut Vec<T>, value: T) -> bool {
    values.push(value);
    true
}

fn put_bytes(data: &mut Vec<u8>, ends: &mut Vec<usize>, bytes: &[u8]) -> bool {
    data.extend_from_slice(bytes);
    ends.push(data.len());
    true
}

fn failed(e: arrow::error::ArrowError) -> Error {
    Error::restart("a column cannot be made").because(e)
}

/// Numbers as a column of a type that is of whole numbers underneath; NULL where one does not fit.
pub(crate) fn whole_numbers(kind: &DataType, numbers: Int64Array) -> ArrayRef {
    match kind {
        DataType::Int8 => narrow::<Int8Type>(&numbers),
        DataType::Int16 => narrow::<Int16Type>(&numbers),
        DataType::Int32 => narrow::<Int32Type>(&numbers),
        DataType::Date32 => narrow::<Date32Type>(&numbers),
        DataType::Time32(TimeUnit::Millisecond) => narrow::<Time32MillisecondType>(&numbers),
        DataType::Timestamp(unit, zone) => match unit {
            TimeUnit::Second => Arc::new(numbers.reinterpret_cast::<TimestampSecondType>().with_timezone_opt(zone.clone())),
            TimeUnit::Millisecond => Arc::new(numbers.reinterpret_cast::<TimestampMillisecondType>().with_timezone_opt(zone.clone())),
            TimeUnit::Microsecond => Arc::new(numbers.reinterpret_cast::<TimestampMicrosecondType>().with_timezone_opt(zone.clone())),
            TimeUnit::Nanosecond => Arc::new(numbers.reinterpret_cast::<TimestampNanosecondType>().with_timezone_opt(zone.clone())),
        },
        _ => Arc::new(numbers),
    }
}

/// A number that does not fit was made by wrapping arithmetic of a wider type; the planner casts before it comes here.
fn narrow<T: ArrowPrimitiveType>(numbers: &Int64Array) -> ArrayRef
where
    T::Native: TryFrom<i64>,
{
    Arc::new(numbers.unary_opt::<_, T>(|number| T::Native::try_from(number).ok()))
}

/// Texts, bytes or nested values as a column.
fn letters(kind: &DataType, data: Vec<u8>, ends: &[usize], nulls: Option<NullBuffer>) -> Result<ArrayRef> {
    if nested::is_nested(kind) {
        let is_valid = |row: usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
        let starts = [0].into_iter().chain(ends.iter().copied());
        let rows = starts.zip(ends).enumerate().map(|(row, (start, &end))| is_valid(row).then(|| &data[start..end]));
        return nested::column(kind, rows);
    }
    let mut offsets = Vec::with_capacity(ends.len() + 1);
    offsets.push(0);
    for &end in ends {
        offsets.push(i32::try_from(end).map_err(|e| Error::restart("a batch holds over 2 GiB of one column").because(e))?);
    }
    let offsets = OffsetBuffer::new(offsets.into());
    let (plain, of): (ArrayRef, _) = match Class::of(kind) {
        Some(Class::Text) => {
            let texts = StringArray::try_new(offsets, data.into(), nulls);
            (Arc::new(texts.map_err(|_| Error::fatal("text in state is not UTF-8"))?), DataType::Utf8)
        }
        _ => (Arc::new(BinaryArray::try_new(offsets, data.into(), nulls).map_err(failed)?), DataType::Binary),
    };
    if *kind == of { Ok(plain) } else { cast(&plain, kind).map_err(failed) }
}
