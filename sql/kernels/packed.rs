//! Rows packed into bytes: how joins, rankings and OVER keep them.
//!
//! A row is a bit a column for NULL, then the columns of fixed width, each at its place, then the bytes of texts one after the
//! other, whose ends stand in their places. So a column is read without those before it.
//!
//! Invariant: equal rows have equal bytes, and the bytes of a row give back its values. Where rows are taken back, -0.0 is
//! kept as 0.0 and every NaN as one NaN, so that a row that is taken back is found.

use super::nested;
use super::value::{Class, Value};
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, BooleanBufferBuilder, NullBufferBuilder, PrimitiveArray, RecordBatch, StringArray,
    new_null_array,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Schema,
    Time32MillisecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::joins::EncodedRows;

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

/// Texts, and whatever else has no width, are taken to be so long where there is none to look at.
const TYPICAL: usize = 16;

/// Bytes that a packed row of these types takes, as far as types tell.
pub(crate) fn about_bytes<'a>(kinds: impl IntoIterator<Item = &'a DataType>) -> usize {
    let (mut columns, mut bytes) = (0usize, 0);
    for kind in kinds {
        columns += 1;
        bytes += match Packing::of(kind) {
            Some(Packing::Bytes) | None => Packing::Bytes.width() + TYPICAL,
            Some(fixed) => fixed.width(),
        };
    }
    columns.div_ceil(8) + bytes
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
    /// Of each text: the place of the text before it, whose end is its beginning.
    before: Vec<Option<usize>>,
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
        let (mut places, mut before, mut text) = (Vec::with_capacity(kinds.len()), Vec::with_capacity(kinds.len()), None);
        for packing in &packings {
            places.push(at);
            before.push(text);
            if *packing == Packing::Bytes {
                text = Some(at);
            }
            at += packing.width();
        }
        Ok(Packed { kinds, packings, places, before, texts: at, canonical })
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
            if array.is_null(row) || *packing == Packing::Null {
                out[start + i / 8] |= 1 << (i % 8);
            }
            let place = start + self.places[i];
            if *packing == Packing::Bytes {
                each_text(array, row..row + 1, |_, text| out.extend_from_slice(text));
                // The end of a text is also that of a NULL, for the next one to begin at.
                let end = u32::try_from(out.len() - start - self.texts).unwrap_or_else(|_| panic!("texts of one row exceed 4 GiB"));
                out[place..place + 4].copy_from_slice(&end.to_le_bytes());
            } else {
                self.pack_column(i, array, row..row + 1, |_, value| out[place..place + value.len()].copy_from_slice(value));
            }
        }
    }

    /// Packs all rows of a batch, column by column, replacing the content of `out`.
    pub(crate) fn pack_all(&self, columns: &RecordBatch, out: &mut EncodedRows) {
        let rows = columns.num_rows();
        out.ends.clear();
        out.ends.resize(rows, self.texts);
        let texts = |i: &usize| self.packings[*i] == Packing::Bytes;
        for i in (0..self.len()).filter(texts) {
            each_text(columns.column(i), 0..rows, |row, text| out.ends[row] += text.len());
        }
        let mut end = 0;
        for length in &mut out.ends {
            let row = *length - self.texts;
            assert!(u32::try_from(row).is_ok(), "texts of one row exceed 4 GiB");
            end += *length;
            *length = end;
        }
        out.bytes.clear();
        out.bytes.resize(end, 0);
        // Where the next text of each row goes.
        let mut next: Vec<usize> = (0..rows).map(|row| if row == 0 { self.texts } else { out.ends[row - 1] + self.texts }).collect();
        for (i, packing) in self.packings.iter().enumerate() {
            let array = columns.column(i);
            let start = |row: usize| if row == 0 { 0 } else { out.ends[row - 1] };
            let (place, width, bytes) = (self.places[i], packing.width(), &mut out.bytes);
            if array.null_count() > 0 || *packing == Packing::Null {
                let is_null = |row: usize| *packing == Packing::Null || array.is_null(row);
                (0..rows).filter(|&row| is_null(row)).for_each(|row| bytes[start(row) + i / 8] |= 1 << (i % 8));
            }
            if *packing == Packing::Bytes {
                each_text(array, 0..rows, |row, text| {
                    bytes[next[row]..next[row] + text.len()].copy_from_slice(text);
                    next[row] += text.len();
                });
                for row in 0..rows {
                    // The end of a text is also that of a NULL, for the next one to begin at.
                    let end = (next[row] - start(row) - self.texts) as u32;
                    bytes[start(row) + place..][..4].copy_from_slice(&end.to_le_bytes());
                }
            } else {
                self.pack_column(i, array, 0..rows, |row, value| bytes[start(row) + place..][..width].copy_from_slice(value));
            }
        }
    }

    /// Hands over the bytes of the values of a column of fixed width, where they are not NULL.
    fn pack_column(&self, column: usize, array: &ArrayRef, rows: Range<usize>, mut put: impl FnMut(usize, &[u8])) {
        macro_rules! put {
            ($kind:ty, $plain:expr) => {{
                let array = array.as_primitive::<$kind>();
                let (values, plain) = (array.values(), $plain);
                rows.filter(|&row| array.is_valid(row)).for_each(|row| put(row, &plain(values[row]).to_le_bytes()))
            }};
            ($kind:ty) => {
                put!($kind, |value: <$kind as ArrowPrimitiveType>::Native| value)
            };
        }
        let canonical = self.canonical;
        match &self.kinds[column] {
            DataType::Boolean => {
                let array = array.as_boolean();
                rows.filter(|&row| array.is_valid(row)).for_each(|row| put(row, &[u8::from(array.value(row))]));
            }
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
            DataType::Float32 => put!(Float32Type, |value: f32| match canonical {
                true if value.is_nan() => f32::NAN,
                true => value + 0.0,
                false => value,
            }),
            DataType::Float64 => put!(Float64Type, |value: f64| match canonical {
                true if value.is_nan() => f64::NAN,
                true => value + 0.0,
                false => value,
            }),
            // Never a value.
            DataType::Null => {}
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
                let start = match self.before[column] {
                    Some(before) => u32::from_le_bytes(array(row.get(before..).ok_or_else(damaged)?)?) as usize,
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
        let failed = |e| Error::restart("rows that were kept cannot be put into columns").because(e);
        macro_rules! fixed {
            ($kind:ty) => {
                fixed!($kind, <$kind as ArrowPrimitiveType>::Native::from_le_bytes)
            };
            ($kind:ty, $read:expr) => {
                self.fixed::<$kind, _>(column, rows, |bytes| Ok($read(array(bytes)?)))?
            };
        }
        Ok(match &self.kinds[column] {
            DataType::Null => new_null_array(&DataType::Null, rows.count()),
            DataType::Boolean => {
                let (mut values, mut nulls) = (BooleanBufferBuilder::new(0), NullBufferBuilder::new(0));
                self.each(column, rows, |value| {
                    nulls.append(value.is_some());
                    values.append(value.is_some_and(|bytes| bytes[0] != 0));
                    Ok(())
                })?;
                Arc::new(BooleanArray::new(values.finish(), nulls.finish()))
            }
            DataType::Int8 => Arc::new(fixed!(Int8Type)),
            DataType::Int16 => Arc::new(fixed!(Int16Type)),
            DataType::Int32 => Arc::new(fixed!(Int32Type)),
            DataType::Date32 => Arc::new(fixed!(Date32Type)),
            DataType::Time32(_) => Arc::new(fixed!(Time32MillisecondType)),
            DataType::Int64 => Arc::new(fixed!(Int64Type)),
            DataType::Timestamp(TimeUnit::Second, zone) => Arc::new(fixed!(TimestampSecondType).with_timezone_opt(zone.clone())),
            DataType::Timestamp(TimeUnit::Millisecond, zone) => Arc::new(fixed!(TimestampMillisecondType).with_timezone_opt(zone.clone())),
            DataType::Timestamp(TimeUnit::Microsecond, zone) => Arc::new(fixed!(TimestampMicrosecondType).with_timezone_opt(zone.clone())),
            DataType::Timestamp(TimeUnit::Nanosecond, zone) => Arc::new(fixed!(TimestampNanosecondType).with_timezone_opt(zone.clone())),
            DataType::Float32 => Arc::new(fixed!(Float32Type)),
            DataType::Float64 => Arc::new(fixed!(Float64Type)),
            DataType::Decimal128(precision, scale) => {
                Arc::new(fixed!(Decimal128Type).with_precision_and_scale(*precision, *scale).map_err(failed)?)
            }
            kind if nested::is_nested(kind) => {
                let values = rows.map(|row| match row.map(|row| self.cell(row, column)).transpose()? {
                    Some(Cell::Bytes(bytes)) => Ok(Some(bytes)),
                    _ => Ok(None),
                });
                nested::column(kind, values.collect::<Result<Vec<_>>>()?.into_iter())?
            }
            kind => {
                let (offsets, data, nulls) = self.texts_of(column, rows)?;
                let (is_text, of) = match kind {
                    DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => (true, DataType::Utf8),
                    _ => (false, DataType::Binary),
                };
                let plain: ArrayRef = match is_text {
                    true => Arc::new(StringArray::try_new(offsets, data, nulls).map_err(|_| damaged())?),
                    false => Arc::new(BinaryArray::try_new(offsets, data, nulls).map_err(failed)?),
                };
                if *kind == of { plain } else { cast(&plain, kind).map_err(failed)? }
            }
        })
    }

    /// Visits what stands in a column's place, row by row; none where it is NULL.
    fn each<'a>(
        &self,
        column: usize,
        rows: impl Iterator<Item = Option<&'a [u8]>>,
        mut visit: impl FnMut(Option<&'a [u8]>) -> Result<()>,
    ) -> Result<()> {
        let (byte, bit) = (column / 8, 1 << (column % 8));
        let place = self.places[column]..self.places[column] + self.packings[column].width();
        for row in rows {
            let Some(row) = row else {
                visit(None)?;
                continue;
            };
            let is_null = row.get(byte).ok_or_else(damaged)? & bit != 0;
            visit(if is_null { None } else { Some(row.get(place.clone()).ok_or_else(damaged)?) })?;
        }
        Ok(())
    }

    fn fixed<'a, T: ArrowPrimitiveType, I: Iterator<Item = Option<&'a [u8]>>>(
        &self,
        column: usize,
        rows: I,
        read: impl Fn(&[u8]) -> Result<T::Native>,
    ) -> Result<PrimitiveArray<T>> {
        let room = rows.size_hint().0;
        let (mut values, mut nulls) = (Vec::with_capacity(room), NullBufferBuilder::new(room));
        self.each(column, rows, |value| {
            nulls.append(value.is_some());
            values.push(value.map_or(Ok(T::Native::default()), &read)?);
            Ok(())
        })?;
        Ok(PrimitiveArray::new(values.into(), nulls.finish()))
    }

    /// Offsets, bytes and NULLs of a column of texts.
    fn texts_of<'a>(
        &self,
        column: usize,
        rows: impl Iterator<Item = Option<&'a [u8]>>,
    ) -> Result<(OffsetBuffer<i32>, Buffer, Option<NullBuffer>)> {
        let room = rows.size_hint().0;
        let (mut data, mut offsets, mut nulls) = (Vec::<u8>::new(), Vec::with_capacity(room + 1), NullBufferBuilder::new(room));
        offsets.push(0);
        for row in rows {
            let text = match row.map(|row| self.cell(row, column)).transpose()? {
                Some(Cell::Bytes(text)) => Some(text),
                _ => None,
            };
            nulls.append(text.is_some());
            data.extend_from_slice(text.unwrap_or_default());
            let end = i32::try_from(data.len()).map_err(|e| Error::restart("a batch holds over 2 GiB of one column").because(e))?;
            offsets.push(end);
        }
        Ok((OffsetBuffer::new(offsets.into()), data.into(), nulls.finish()))
    }
}

/// The first bytes, as many as wanted.
fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes.get(..N).and_then(|bytes| bytes.try_into().ok()).ok_or_else(damaged)
}

#[cold]
fn damaged() -> Error {
    Error::fatal("a row in state is not of the query's columns")
}

/// Visits the texts of a column that are not NULL.
fn each_text(array: &ArrayRef, rows: Range<usize>, mut visit: impl FnMut(usize, &[u8])) {
    macro_rules! each {
        ($array:expr) => {{
            let array = $array;
            rows.filter(|&row| array.is_valid(row)).for_each(|row| visit(row, array.value(row).as_ref()))
        }};
    }
    match array.data_type() {
        DataType::Utf8 => each!(array.as_string::<i32>()),
        DataType::LargeUtf8 => each!(array.as_string::<i64>()),
        DataType::Utf8View => each!(array.as_string_view()),
        DataType::Binary => each!(array.as_binary::<i32>()),
        DataType::LargeBinary => each!(array.as_binary::<i64>()),
        kind if nested::is_nested(kind) => {
            for row in rows {
                nested::bytes(array, row).iter().for_each(|bytes| visit(row, bytes));
            }
        }
        _ => each!(array.as_binary_view()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::value::{column, tests::value};
    use super::*;
    use arrow::datatypes::{Field, SchemaRef};
    use proptest::prelude::*;

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
            let mut all = EncodedRows::default();
            packed.pack_all(&batch, &mut all);
            prop_assert_eq!((0..rows.len()).map(|row| all.row(row).to_vec()).collect::<Vec<_>>(), bytes.clone());
            let fixed = kinds.iter().all(|kind| Packing::of(kind) != Some(Packing::Bytes));
            prop_assert!(!fixed || bytes.iter().all(|row| row.len() == about_bytes(&kinds)));
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
