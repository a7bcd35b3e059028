//! Rows packed into bytes: how a join keeps them.
//!
//! A row is a bit a column for NULL, then the columns of fixed width, each at its place, then the bytes of texts one after the
//! other, whose ends stand in their places. So a column is read without those before it.
//!
//! Invariant: equal rows have equal bytes, and the bytes of a row give back its values. Where rows are taken back, -0.0 is
//! kept as 0.0 and every NaN as one NaN, so that a row that is taken back is found.

use super::nested;
use super::value::{Class, Value};
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, PrimitiveArray, RecordBatch, StringArray, new_null_array,
};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Schema,
    Time32MillisecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use std::cmp::Ordering;
use waterwheel_engine::error::{Error, Result};

/// How a column's values are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Bool,
    /// Whole numbers, dates and times of so many bytes.
    Int(usize),
    Float32,
    Float64,
    Decimal,
    /// Text and bytes; rows and arrays as their bytes.
    Bytes,
    /// No value ever.
    Null,
}

impl Packing {
    fn of(kind: &DataType) -> Option<Packing> {
        Some(match kind {
            DataType::Boolean => Packing::Bool,
            DataType::Int8 => Packing::Int(1),
            DataType::Int16 => Packing::Int(2),
            DataType::Int32 | DataType::Date32 | DataType::Time32(TimeUnit::Millisecond) => Packing::Int(4),
            DataType::Int64 | DataType::Timestamp(_, _) => Packing::Int(8),
            DataType::Float32 => Packing::Float32,
            DataType::Float64 => Packing::Float64,
            DataType::Decimal128(_, _) => Packing::Decimal,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Packing::Bytes,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Packing::Bytes,
            DataType::Null => Packing::Null,
            nested if Class::of(nested) == Some(Class::Nested) => Packing::Bytes,
            _ => return None,
        })
    }

    fn width(self) -> usize {
        match self {
            Packing::Bool => 1,
            Packing::Int(width) => width,
            Packing::Float32 | Packing::Bytes => 4,
            Packing::Float64 => 8,
            Packing::Decimal => 16,
            Packing::Null => 0,
        }
    }
}

/// A value in a packed row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Cell<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Decimal(i128),
    Bytes(&'a [u8]),
}

impl Cell<'_> {
    /// The same by itself.
    ///
    /// # Errors
    /// Bytes of a text that are none.
    pub(crate) fn to_value(self, kind: &DataType) -> Result<Value> {
        Ok(match self {
            Cell::Null => Value::Null,
            Cell::Bool(v) => Value::Bool(v),
            Cell::Int(v) => Value::Int(v),
            Cell::Float(v) => Value::Float(v),
            Cell::Decimal(v) => Value::Decimal(v),
            Cell::Bytes(v) if Class::of(kind) == Some(Class::Text) => {
                Value::Text(std::str::from_utf8(v).map_err(|_| damaged())?.to_string())
            }
            Cell::Bytes(v) => Value::Bytes(v.to_vec()),
        })
    }

    /// The order of two values of one type; none where one is NULL, or a float.
    pub(crate) fn compare(self, other: Cell<'_>) -> Option<Ordering> {
        match (self, other) {
            (Cell::Bool(a), Cell::Bool(b)) => Some(a.cmp(&b)),
            (Cell::Int(a), Cell::Int(b)) => Some(a.cmp(&b)),
            (Cell::Decimal(a), Cell::Decimal(b)) => Some(a.cmp(&b)),
            (Cell::Bytes(a), Cell::Bytes(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }
}

/// How rows of some columns are packed.
#[derive(Debug, Clone)]
pub(crate) struct Packed {
    kinds: Vec<DataType>,
    packings: Vec<Packing>,
    /// Where each column's place begins.
    places: Vec<usize>,
    /// Where texts begin.
    texts: usize,
    /// Rows may be taken back.
    canonical: bool,
}

impl Packed {
    /// For the columns of a schema; the name of the first one that cannot be packed.
    pub(crate) fn of(schema: &Schema, canonical: bool) -> std::result::Result<Packed, String> {
        let kinds: Vec<DataType> = schema.fields().iter().map(|f| f.data_type().clone()).collect();
        let mut packings = Vec::with_capacity(kinds.len());
        for field in schema.fields() {
            packings.push(Packing::of(field.data_type()).ok_or_else(|| field.name().clone())?);
        }
        let mut at = kinds.len().div_ceil(8);
        let mut places = Vec::with_capacity(kinds.len());
        for packing in &packings {
            places.push(at);
            at += packing.width();
        }
        Ok(Packed { kinds, packings, places, texts: at, canonical })
    }

    /// Columns.
    pub(crate) fn len(&self) -> usize {
        self.kinds.len()
    }

    /// Type of a column.
    pub(crate) fn kind(&self, column: usize) -> &DataType {
        &self.kinds[column]
    }

    /// What the bytes mean, as text.
    pub(crate) fn describe(&self) -> String {
        let kinds: Vec<String> = self.kinds.iter().map(ToString::to_string).collect();
        format!("1 ({})", kinds.join(", "))
    }

    /// Appends a row of a batch, whose first columns are these.
    pub(crate) fn pack(&self, columns: &RecordBatch, row: usize, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + self.texts, 0);
        for (i, packing) in self.packings.iter().enumerate() {
            let array = columns.column(i);
            // The end of a text is also that of a NULL, for the next one to begin at.
            if array.is_null(row) || *packing == Packing::Null {
                out[start + i / 8] |= 1 << (i % 8);
            } else if *packing == Packing::Bytes {
                match nested::bytes(array, row) {
                    Some(bytes) => out.extend_from_slice(&bytes),
                    None => out.extend_from_slice(bytes_of(array, row)),
                }
            } else {
                let place = start + self.places[i];
                self.pack_fixed(i, array, row, &mut out[place..place + packing.width()]);
            }
            if *packing == Packing::Bytes {
                let end = u32::try_from(out.len() - start - self.texts).unwrap_or_else(|_| panic!("texts of one row exceed 4 GiB"));
                let place = start + self.places[i];
                out[place..place + 4].copy_from_slice(&end.to_le_bytes());
            }
        }
    }

    fn pack_fixed(&self, column: usize, array: &ArrayRef, row: usize, to: &mut [u8]) {
        macro_rules! put {
            ($kind:ty) => {
                to.copy_from_slice(&array.as_primitive::<$kind>().value(row).to_le_bytes())
            };
        }
        match &self.kinds[column] {
            DataType::Boolean => to[0] = u8::from(array.as_boolean().value(row)),
            DataType::Int8 => put!(Int8Type),
            DataType::Int16 => put!(Int16Type),
            DataType::Int32 => put!(Int32Type),
            DataType::Date32 => put!(Date32Type),
            DataType::Time32(_) => put!(Time32MillisecondType),
            DataType::Int64 => put!(Int64Type),
            DataType::Timestamp(TimeUnit::Second, _) => put!(TimestampSecondType),
            DataType::Timestamp(TimeUnit::Millisecond, _) => put!(TimestampMillisecondType),
            DataType::Timestamp(TimeUnit::Microsecond, _) => put!(TimestampMicrosecondType),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => put!(TimestampNanosecondType),
            DataType::Decimal128(_, _) => put!(Decimal128Type),
            DataType::Float32 => {
                let value = array.as_primitive::<Float32Type>().value(row);
                let plain = if value.is_nan() { f32::NAN } else { value + 0.0 };
                to.copy_from_slice(&if self.canonical { plain } else { value }.to_le_bytes());
            }
            DataType::Float64 => {
                let value = array.as_primitive::<Float64Type>().value(row);
                let plain = if value.is_nan() { f64::NAN } else { value + 0.0 };
                to.copy_from_slice(&if self.canonical { plain } else { value }.to_le_bytes());
            }
            other => unreachable!("columns of type {other} have no fixed width"),
        }
    }

    /// The value of a column.
    ///
    /// # Errors
    /// The bytes are no such row.
    pub(crate) fn cell<'a>(&self, row: &'a [u8], column: usize) -> Result<Cell<'a>> {
        let null = row.get(column / 8).ok_or_else(damaged)? & (1 << (column % 8)) != 0;
        if null {
            return Ok(Cell::Null);
        }
        let (packing, place) = (self.packings[column], self.places[column]);
        let fixed = row.get(place..place + packing.width()).ok_or_else(damaged)?;
        Ok(match packing {
            Packing::Bool => Cell::Bool(fixed[0] != 0),
            Packing::Int(1) => Cell::Int(i64::from(fixed[0] as i8)),
            Packing::Int(2) => Cell::Int(i64::from(i16::from_le_bytes(array(fixed)?))),
            Packing::Int(4) => Cell::Int(i64::from(i32::from_le_bytes(array(fixed)?))),
            Packing::Int(_) => Cell::Int(i64::from_le_bytes(array(fixed)?)),
            Packing::Float32 => Cell::Float(f64::from(f32::from_le_bytes(array(fixed)?))),
            Packing::Float64 => Cell::Float(f64::from_le_bytes(array(fixed)?)),
            Packing::Decimal => Cell::Decimal(i128::from_le_bytes(array(fixed)?)),
            Packing::Bytes => {
                let end = u32::from_le_bytes(array(fixed)?) as usize;
                let start = match self.packings[..column].iter().rposition(|p| *p == Packing::Bytes) {
                    Some(before) => u32::from_le_bytes(array(row.get(self.places[before]..).ok_or_else(damaged)?)?) as usize,
                    None => 0,
                };
                Cell::Bytes(row.get(self.texts + start..self.texts + end).ok_or_else(damaged)?)
            }
            Packing::Null => Cell::Null,
        })
    }

    /// The value of a column, by itself.
    ///
    /// # Errors
    /// As [`cell`](Self::cell).
    pub(crate) fn value(&self, row: &[u8], column: usize) -> Result<Value> {
        self.cell(row, column)?.to_value(&self.kinds[column])
    }

    /// A column of rows; where there is no row, NULL.
    ///
    /// # Errors
    /// Bytes that are no such row; of Arrow, for columns beyond its limits.
    pub(crate) fn column<'a>(&self, column: usize, rows: impl Iterator<Item = Option<&'a [u8]>>) -> Result<ArrayRef> {
        let cells = rows.map(|row| row.map_or(Ok(Cell::Null), |row| self.cell(row, column)));
        let cells = cells.collect::<Result<Vec<Cell<'a>>>>()?;
        column_of(&self.kinds[column], &cells)
    }
}

/// The first bytes, as many as wanted.
fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes.get(..N).and_then(|bytes| bytes.try_into().ok()).ok_or_else(damaged)
}

#[cold]
fn damaged() -> Error {
    Error::fatal("a row that a join has kept cannot be read back")
}

fn bytes_of(array: &ArrayRef, row: usize) -> &[u8] {
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(row).as_bytes(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row).as_bytes(),
        DataType::Utf8View => array.as_string_view().value(row).as_bytes(),
        DataType::Binary => array.as_binary::<i32>().value(row),
        DataType::LargeBinary => array.as_binary::<i64>().value(row),
        _ => array.as_binary_view().value(row),
    }
}

fn ints<T: ArrowPrimitiveType>(cells: &[Cell<'_>]) -> PrimitiveArray<T>
where
    T::Native: TryFrom<i64>,
{
    // It was packed from this type, so it fits.
    cells.iter().map(|cell| if let Cell::Int(n) = cell { T::Native::try_from(*n).ok() } else { None }).collect()
}

fn column_of(kind: &DataType, cells: &[Cell<'_>]) -> Result<ArrayRef> {
    use std::sync::Arc;
    let failed = |e| Error::restart("results of a join cannot be put into columns").because(e);
    let floats = || cells.iter().map(|cell| if let Cell::Float(n) = cell { Some(*n) } else { None });
    let bytes = || cells.iter().map(|cell| if let Cell::Bytes(b) = cell { Some(*b) } else { None });
    Ok(match kind {
        DataType::Null => new_null_array(kind, cells.len()),
        DataType::Boolean => {
            Arc::new(cells.iter().map(|cell| if let Cell::Bool(b) = cell { Some(*b) } else { None }).collect::<BooleanArray>())
        }
        DataType::Int8 => Arc::new(ints::<Int8Type>(cells)),
        DataType::Int16 => Arc::new(ints::<Int16Type>(cells)),
        DataType::Int32 => Arc::new(ints::<Int32Type>(cells)),
        DataType::Date32 => Arc::new(ints::<Date32Type>(cells)),
        DataType::Time32(_) => Arc::new(ints::<Time32MillisecondType>(cells)),
        DataType::Int64 => Arc::new(ints::<Int64Type>(cells)),
        DataType::Timestamp(TimeUnit::Second, zone) => Arc::new(ints::<TimestampSecondType>(cells).with_timezone_opt(zone.clone())),
        DataType::Timestamp(TimeUnit::Millisecond, zone) => {
            Arc::new(ints::<TimestampMillisecondType>(cells).with_timezone_opt(zone.clone()))
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            Arc::new(ints::<TimestampMicrosecondType>(cells).with_timezone_opt(zone.clone()))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => Arc::new(ints::<TimestampNanosecondType>(cells).with_timezone_opt(zone.clone())),
        DataType::Float32 => Arc::new(floats().map(|v| v.map(|v| v as f32)).collect::<PrimitiveArray<Float32Type>>()),
        DataType::Float64 => Arc::new(floats().collect::<PrimitiveArray<Float64Type>>()),
        DataType::Decimal128(precision, scale) => {
            let numbers = cells.iter().map(|cell| if let Cell::Decimal(n) = cell { Some(*n) } else { None });
            Arc::new(numbers.collect::<Decimal128Array>().with_precision_and_scale(*precision, *scale).map_err(failed)?)
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let texts = bytes().map(|b| b.map(|b| std::str::from_utf8(b).map_err(|_| damaged())).transpose());
            let plain: ArrayRef = Arc::new(texts.collect::<Result<StringArray>>()?);
            if *kind == DataType::Utf8 { plain } else { cast(&plain, kind).map_err(failed)? }
        }
        nested if nested::is_nested(nested) => nested::column(nested, bytes())?,
        other => {
            let plain: ArrayRef = Arc::new(bytes().collect::<BinaryArray>());
            if *other == DataType::Binary { plain } else { cast(&plain, other).map_err(failed)? }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::value::{column, tests::value};
    use super::*;
    use arrow::datatypes::{Field, SchemaRef};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn kinds() -> Vec<DataType> {
        vec![
            DataType::Boolean,
            DataType::Int64,
            DataType::Utf8,
            DataType::Float64,
            DataType::Decimal128(10, 2),
            DataType::Utf8View,
            DataType::Binary,
            DataType::LargeUtf8,
            DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
        ]
    }

    fn rows() -> impl Strategy<Value = (Vec<DataType>, Vec<Vec<Value>>)> {
        proptest::sample::subsequence(kinds(), 1..9).prop_flat_map(|kinds| {
            let row: Vec<_> = kinds.iter().map(|kind| value(Class::of(kind).unwrap())).collect();
            (Just(kinds), proptest::collection::vec(row, 1..5))
        })
    }

    proptest! {
        #[test]
        fn rows_come_back_and_equal_rows_have_equal_bytes((kinds, rows) in rows(), canonical in any::<bool>()) {
            let fields: Vec<Field> = kinds.iter().enumerate().map(|(i, kind)| Field::new(format!("c{i}"), kind.clone(), true)).collect();
            let schema: SchemaRef = Arc::new(Schema::new(fields));
            let columns = (0..kinds.len()).map(|c| column(&kinds[c], &rows.iter().map(|row| &row[c]).collect::<Vec<_>>()).unwrap());
            let batch = RecordBatch::try_new(schema.clone(), columns.collect()).unwrap();
            let packed = Packed::of(&schema, canonical).unwrap();
            let bytes: Vec<Vec<u8>> = (0..rows.len()).map(|row| { let mut out = vec![]; packed.pack(&batch, row, &mut out); out }).collect();
            for (c, kind) in kinds.iter().enumerate() {
                let back = packed.column(c, bytes.iter().map(|b| Some(&b[..])).chain([None])).unwrap();
                prop_assert_eq!(back.data_type(), kind);
                prop_assert!(back.is_null(rows.len()));
                let cells = super::super::value::Cells::of(&back).unwrap();
                for (row, values) in rows.iter().enumerate() {
                    prop_assert!(cells.value(row).is_same(&values[c]), "{:?} came back as {:?}", values[c], cells.value(row));
                }
            }
            if canonical {
                for (a, left) in rows.iter().enumerate() {
                    for (b, right) in rows.iter().enumerate() {
                        let same = left.iter().zip(right).all(|(a, b)| a.is_same(b));
                        prop_assert_eq!(bytes[a] == bytes[b], same);
                    }
                }
            }
        }

        #[test]
        fn damaged_rows_are_errors_and_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let fields: Vec<Field> = kinds().into_iter().enumerate().map(|(i, kind)| Field::new(format!("c{i}"), kind, true)).collect();
            let packed = Packed::of(&Schema::new(fields), false).unwrap();
            for c in 0..packed.len() {
                let _ = packed.column(c, [Some(&bytes[..])].into_iter());
            }
        }
    }
}
