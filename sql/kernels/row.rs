//! Whole rows as bytes, for state, and back into columns.
//!
//! Invariant: the same row has the same bytes; as keys, -0.0 is 0.0 and every NaN is one NaN. What is read into columns of the
//! types that were written is the same row.

use super::nested;
use super::value::{Cells, Class};
use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Decimal128Builder, Float64Builder, Int64Builder, PrimitiveArray, RecordBatch, StringBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Float32Type, Int8Type, Int16Type, Int32Type, SchemaRef, Time32MillisecondType, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use std::sync::Arc;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::record::record_batch;

/// Appends the bytes of a row of these columns.
pub(crate) fn encode(cells: &[Cells], row: usize, out: &mut Vec<u8>) {
    for cells in cells {
        if cells.is_null(row) {
            out.push(0);
            continue;
        }
        out.push(1);
        let mut bytes = |bytes: &[u8]| {
            out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(bytes);
        };
        match cells {
            Cells::Text(a) => bytes(a.value(row).as_bytes()),
            Cells::Bytes(a) => bytes(a.value(row)),
            Cells::Bool(a) => out.push(u8::from(a.value(row))),
            Cells::Int(a) => out.extend_from_slice(&a.value(row).to_le_bytes()),
            Cells::Decimal(a) => out.extend_from_slice(&a.value(row).to_le_bytes()),
            Cells::Float(a) => {
                let v = a.value(row);
                let canonical = if v.is_nan() { f64::NAN } else { v + 0.0 };
                out.extend_from_slice(&canonical.to_le_bytes());
            }
        }
    }
}

/// Columns being filled from rows' bytes.
pub(crate) struct Rows {
    schema: SchemaRef,
    columns: Vec<Builder>,
    rows: usize,
}

enum Builder {
    Bool(BooleanBuilder),
    Int(Int64Builder),
    Float(Float64Builder),
    Decimal(Decimal128Builder),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
}

impl Builder {
    fn of(class: Class) -> Builder {
        match class {
            Class::Bool => Builder::Bool(BooleanBuilder::new()),
            Class::Int => Builder::Int(Int64Builder::new()),
            Class::Float => Builder::Float(Float64Builder::new()),
            Class::Decimal => Builder::Decimal(Decimal128Builder::new()),
            Class::Text => Builder::Text(StringBuilder::new()),
            Class::Bytes | Class::Nested => Builder::Bytes(BinaryBuilder::new()),
        }
    }

    fn null(&mut self) {
        match self {
            Builder::Bool(b) => b.append_null(),
            Builder::Int(b) => b.append_null(),
            Builder::Float(b) => b.append_null(),
            Builder::Decimal(b) => b.append_null(),
            Builder::Text(b) => b.append_null(),
            Builder::Bytes(b) => b.append_null(),
        }
    }

    fn read(&mut self, from: &mut &[u8]) -> Option<()> {
        fn fixed<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
            let (head, rest) = from.split_first_chunk::<N>()?;
            *from = rest;
            Some(*head)
        }
        fn bytes<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
            let length = u32::from_le_bytes(fixed(from)?) as usize;
            let (head, rest) = from.split_at_checked(length)?;
            *from = rest;
            Some(head)
        }
        match self {
            Builder::Bool(b) => b.append_value(fixed::<1>(from)? == [1]),
            Builder::Int(b) => b.append_value(i64::from_le_bytes(fixed(from)?)),
            Builder::Float(b) => b.append_value(f64::from_le_bytes(fixed(from)?)),
            Builder::Decimal(b) => b.append_value(i128::from_le_bytes(fixed(from)?)),
            Builder::Text(b) => b.append_value(std::str::from_utf8(bytes(from)?).ok()?),
            Builder::Bytes(b) => b.append_value(bytes(from)?),
        }
        Some(())
    }

    fn finish(self, kind: &DataType) -> Result<ArrayRef> {
        let failed = |e| Error::restart("rows cannot be put into columns").because(e);
        let plain: ArrayRef = match self {
            Builder::Bool(mut b) => Arc::new(b.finish()),
            Builder::Int(mut b) => return Ok(ints(kind, &b.finish())),
            Builder::Float(mut b) if *kind == DataType::Float32 => Arc::new(b.finish().unary::<_, Float32Type>(|v| v as f32)),
            Builder::Float(mut b) => Arc::new(b.finish()),
            Builder::Decimal(mut b) => match kind {
                DataType::Decimal128(precision, scale) => {
                    Arc::new(b.finish().with_precision_and_scale(*precision, *scale).map_err(failed)?)
                }
                _ => Arc::new(b.finish()),
            },
            Builder::Text(mut b) => Arc::new(b.finish()),
            Builder::Bytes(mut b) if nested::is_nested(kind) => return nested::column(kind, b.finish().iter()),
            Builder::Bytes(mut b) => Arc::new(b.finish()),
        };
        if plain.data_type() == kind { Ok(plain) } else { cast(&plain, kind).map_err(failed) }
    }
}

/// Numbers as the values of a type that was read as numbers.
fn ints(kind: &DataType, values: &PrimitiveArray<arrow::datatypes::Int64Type>) -> ArrayRef {
    // They were of that type, so none is cut off.
    fn narrow<T: ArrowPrimitiveType>(values: &PrimitiveArray<arrow::datatypes::Int64Type>, f: fn(i64) -> T::Native) -> ArrayRef {
        Arc::new(values.unary::<_, T>(f))
    }
    match kind {
        DataType::Int8 => narrow::<Int8Type>(values, |v| v as i8),
        DataType::Int16 => narrow::<Int16Type>(values, |v| v as i16),
        DataType::Int32 => narrow::<Int32Type>(values, |v| v as i32),
        DataType::Date32 => narrow::<Date32Type>(values, |v| v as i32),
        DataType::Time32(TimeUnit::Millisecond) => narrow::<Time32MillisecondType>(values, |v| v as i32),
        DataType::Timestamp(unit, zone) => match unit {
            TimeUnit::Second => Arc::new(values.reinterpret_cast::<TimestampSecondType>().with_timezone_opt(zone.clone())),
            TimeUnit::Millisecond => Arc::new(values.reinterpret_cast::<TimestampMillisecondType>().with_timezone_opt(zone.clone())),
            TimeUnit::Microsecond => Arc::new(values.reinterpret_cast::<TimestampMicrosecondType>().with_timezone_opt(zone.clone())),
            TimeUnit::Nanosecond => Arc::new(values.reinterpret_cast::<TimestampNanosecondType>().with_timezone_opt(zone.clone())),
        },
        _ => Arc::new(values.clone()),
    }
}

impl Rows {
    /// None yet.
    ///
    /// # Errors
    /// A type that has no class: a bug of the planner, which checks it.
    pub(crate) fn new(schema: SchemaRef) -> Result<Rows> {
        let class = |kind: &DataType| Class::of(kind).ok_or_else(|| Error::fatal(format!("plan bug: values of type {kind} have no class")));
        let columns = schema.fields().iter().map(|f| Ok(Builder::of(class(f.data_type())?))).collect::<Result<_>>()?;
        Ok(Rows { schema, columns, rows: 0 })
    }

    /// Appends a row.
    ///
    /// # Errors
    /// Bytes that are no such row.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        let damaged = || Error::fatal("a row in state is not of the query's columns");
        for column in &mut self.columns {
            let (&given, rest) = bytes.split_first().ok_or_else(damaged)?;
            bytes = rest;
            if given == 0 {
                column.null();
            } else {
                column.read(&mut bytes).ok_or_else(damaged)?;
            }
        }
        self.rows += 1;
        if bytes.is_empty() { Ok(()) } else { Err(damaged()) }
    }

    /// Takes the rows so far.
    ///
    /// # Errors
    /// Of Arrow, for columns beyond its limits.
    pub(crate) fn take(&mut self) -> Result<RecordBatch> {
        let fresh = Rows::new(self.schema.clone())?;
        let Rows { schema, columns, rows } = std::mem::replace(self, fresh);
        let columns = columns.into_iter().zip(schema.fields()).map(|(b, f)| b.finish(f.data_type())).collect::<Result<Vec<_>>>()?;
        record_batch(schema, columns, rows).map_err(|e| Error::restart("rows cannot be put into columns").because(e))
    }
}

#[cfg(test)]
mod tests {
    use super::super::value::column;
    use super::super::value::tests::{types, value};
    use super::*;
    use arrow::datatypes::{Field, Schema};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_come_back(rows in proptest::collection::vec(types().iter().map(|k| value(Class::of(k).unwrap())).collect::<Vec<_>>(), 1..5)) {
            let schema: SchemaRef = Arc::new(Schema::new(types().into_iter().enumerate().map(|(i, k)| Field::new(format!("c{i}"), k, true)).collect::<Vec<_>>()));
            let arrays: Vec<ArrayRef> = (0..types().len()).map(|c| column(&types()[c], &rows.iter().map(|r| &r[c]).collect::<Vec<_>>()).unwrap()).collect();
            let cells: Vec<Cells> = arrays.iter().map(|a| Cells::of(a).unwrap()).collect();
            let mut back = Rows::new(schema).unwrap();
            for row in 0..rows.len() {
                let mut bytes = Vec::new();
                encode(&cells, row, &mut bytes);
                back.push(&bytes).unwrap();
                prop_assert!(Rows::new(back.schema.clone()).unwrap().push(&bytes[..bytes.len() - 1]).is_err());
            }
            let batch = back.take().unwrap();
            for (c, array) in batch.columns().iter().enumerate() {
                let cells = Cells::of(array).unwrap();
                for (row, values) in rows.iter().enumerate() {
                    prop_assert!(cells.value(row).is_same(&values[c]));
                }
            }
        }
    }
}
