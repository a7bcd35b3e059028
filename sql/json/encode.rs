//! Rows to JSON, as Flink writes them.
//!
//! Invariant: what is written here, the decoder reads back as the same row (timestamps to their precision; a float that is no
//! number has no JSON and is an error of the row).

use super::scan::is_plain;
use super::text::to_base64;
use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, ListArray, MapArray, RecordBatch, StringArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimeUnit, TimestampMillisecondType,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::{Datelike, NaiveDate};

const DAY_MS: i64 = 86_400_000;
/// 1970-01-01 by the count that has the first day of the year 1 as its first.
const DAYS_BEFORE_1970: i64 = 719_163;

/// Writes rows of a batch as JSON objects. What the columns are is asked once, not for every value.
pub(crate) struct RowWriter<'a>(Vec<Member<'a>>);

struct Member<'a> {
    name: &'a str,
    /// `"name":`
    quoted: Vec<u8>,
    values: ColumnWriter<'a>,
}

impl<'a> RowWriter<'a> {
    pub(crate) fn of(batch: &'a RecordBatch) -> Self {
        Self::named(batch.schema_ref().fields().iter().map(|f| f.name().as_str()).zip(batch.columns()))
    }

    fn named(columns: impl Iterator<Item = (&'a str, &'a ArrayRef)>) -> Self {
        let member = |(name, column)| {
            let mut quoted = Vec::new();
            put_quoted(name, &mut quoted);
            quoted.push(b':');
            Member { name, quoted, values: ColumnWriter::of(column) }
        };
        RowWriter(columns.map(member).collect())
    }

    /// Appends a row as one object.
    ///
    /// # Errors
    /// A value that JSON cannot say.
    pub(crate) fn json(&self, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        out.push(b'{');
        for (i, member) in self.0.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&member.quoted);
            member.values.json(row, out).map_err(|e| format!("column {}: {e}", member.name))?;
        }
        out.push(b'}');
        Ok(())
    }
}

/// Writes values of a column.
pub(crate) struct ColumnWriter<'a> {
    nulls: Option<&'a NullBuffer>,
    values: Values<'a>,
}

enum Values<'a> {
    /// Of a type that has only NULL.
    None,
    Text(&'a StringArray),
    Bytes(&'a BinaryArray),
    Bool(&'a BooleanArray),
    Long(&'a [i64]),
    Int(&'a [i32]),
    Double(&'a [f64], &'a ArrayRef),
    Float(&'a [f32], &'a ArrayRef),
    Decimal(&'a Decimal128Array, i8),
    /// Milliseconds; with a zone they are in UTC.
    Time(&'a [i64], bool, &'a ArrayRef),
    Row(RowWriter<'a>),
    List(&'a ListArray, Box<ColumnWriter<'a>>),
    Map(&'a MapArray, Box<[ColumnWriter<'a>; 2]>),
    /// Whole numbers of other sizes.
    OtherNumber(&'a ArrayRef),
    /// Dates and times of other kinds: nothing in them is to be escaped.
    Other(&'a ArrayRef),
}

impl<'a> ColumnWriter<'a> {
    /// Of each column of a batch.
    pub(crate) fn all(batch: &'a RecordBatch) -> Vec<Self> {
        batch.columns().iter().map(Self::of).collect()
    }

    pub(crate) fn of(column: &'a ArrayRef) -> Self {
        let values = match column.data_type() {
            DataType::Null => Values::None,
            DataType::Utf8 => Values::Text(column.as_string()),
            DataType::Binary => Values::Bytes(column.as_binary()),
            DataType::Boolean => Values::Bool(column.as_boolean()),
            DataType::Int64 => Values::Long(column.as_primitive::<Int64Type>().values()),
            DataType::Int32 => Values::Int(column.as_primitive::<Int32Type>().values()),
            DataType::Int8 | DataType::Int16 => Values::OtherNumber(column),
            DataType::Float64 => Values::Double(column.as_primitive::<Float64Type>().values(), column),
            DataType::Float32 => Values::Float(column.as_primitive::<Float32Type>().values(), column),
            DataType::Decimal128(_, scale) => Values::Decimal(column.as_primitive::<Decimal128Type>(), *scale),
            DataType::Timestamp(TimeUnit::Millisecond, zone) => {
                Values::Time(column.as_primitive::<TimestampMillisecondType>().values(), zone.is_some(), column)
            }
            DataType::Struct(fields) => {
                Values::Row(RowWriter::named(fields.iter().map(|f| f.name().as_str()).zip(column.as_struct().columns())))
            }
            DataType::List(_) => Values::List(column.as_list(), Box::new(ColumnWriter::of(column.as_list::<i32>().values()))),
            DataType::Map(..) => {
                let maps = column.as_map();
                Values::Map(maps, Box::new([ColumnWriter::of(maps.keys()), ColumnWriter::of(maps.values())]))
            }
            _ => Values::Other(column),
        };
        ColumnWriter { nulls: column.nulls(), values }
    }

    pub(crate) fn is_null(&self, row: usize) -> bool {
        matches!(self.values, Values::None) || self.nulls.is_some_and(|nulls| nulls.is_null(row))
    }

    /// Appends a value.
    ///
    /// # Errors
    /// A value that JSON cannot say.
    pub(crate) fn json(&self, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        if self.is_null(row) {
            out.extend_from_slice(b"null");
            return Ok(());
        }
        match &self.values {
            Values::Text(texts) => put_quoted(texts.value(row), out),
            Values::Bytes(bytes) => put_quoted(&to_base64(bytes.value(row)), out),
            Values::Double(numbers, _) => number(numbers[row], numbers[row].is_finite(), out)?,
            Values::Float(numbers, _) => number(numbers[row], numbers[row].is_finite(), out)?,
            Values::Row(members) => members.json(row, out)?,
            Values::List(lists, items) => {
                out.push(b'[');
                for (i, item) in range(lists.value_offsets(), row).enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    items.json(item, out)?;
                }
                out.push(b']');
            }
            Values::Map(maps, entries) => {
                let [keys, values] = &**entries;
                out.push(b'{');
                for (i, entry) in range(maps.value_offsets(), row).enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    put_quoted(&keys.cell(entry), out);
                    out.push(b':');
                    values.json(entry, out)?;
                }
                out.push(b'}');
            }
            Values::None | Values::Bool(_) | Values::Long(_) | Values::Int(_) | Values::Decimal(..) | Values::OtherNumber(_) => {
                self.plain(row, out);
            }
            Values::Time(..) | Values::Other(_) => {
                out.push(b'"');
                self.plain(row, out);
                out.push(b'"');
            }
        }
        Ok(())
    }

    /// Appends a value, which is not NULL, as people and CSV read it.
    pub(crate) fn plain(&self, row: usize, out: &mut Vec<u8>) {
        match &self.values {
            Values::None => {}
            Values::Text(texts) => out.extend_from_slice(texts.value(row).as_bytes()),
            Values::Bytes(bytes) => out.extend_from_slice(to_base64(bytes.value(row)).as_bytes()),
            Values::Bool(flags) => out.extend_from_slice(if flags.value(row) { b"true" } else { b"false" }),
            Values::Long(numbers) => write_number(numbers[row], out),
            Values::Int(numbers) => write_number(numbers[row].into(), out),
            Values::Decimal(numbers, scale) => out.extend_from_slice(decimal(numbers.value(row), *scale).as_bytes()),
            Values::Time(times, is_utc, column) => {
                if !write_date_time(times[row], out) {
                    out.extend_from_slice(odd_date_time(column, row).as_bytes());
                }
                out.extend(is_utc.then_some(b'Z'));
            }
            Values::Row(..) | Values::List(..) | Values::Map(..) => {
                let start = out.len();
                if let Err(e) = self.json(row, out) {
                    out.truncate(start);
                    out.extend_from_slice(e.as_bytes());
                }
            }
            Values::Double(_, column) | Values::Float(_, column) | Values::OtherNumber(column) | Values::Other(column) => {
                other(column, row, out);
            }
        }
    }

    /// Appends a value as people read it, `NULL` for none.
    pub(crate) fn put_cell(&self, row: usize, out: &mut Vec<u8>) {
        match self.is_null(row) {
            true => out.extend_from_slice(b"NULL"),
            false => self.plain(row, out),
        }
    }

    fn cell(&self, row: usize) -> String {
        let mut out = Vec::new();
        self.put_cell(row, &mut out);
        String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
    }
}

/// A value as people and CSV read it; `NULL` for none.
pub(crate) fn cell(column: &ArrayRef, row: usize) -> String {
    ColumnWriter::of(column).cell(row)
}

fn range(offsets: &[i32], row: usize) -> std::ops::Range<usize> {
    offsets[row] as usize..offsets[row + 1] as usize
}

fn put_quoted(text: &str, out: &mut Vec<u8>) {
    if is_plain(text.as_bytes()) {
        out.reserve(text.len() + 2);
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        // Writing to memory does not fail.
        let _ = serde_json::to_writer(out, text);
    }
}

fn number(number: impl serde::Serialize + std::fmt::Display, is_finite: bool, out: &mut Vec<u8>) -> Result<(), String> {
    if !is_finite {
        return Err(format!("{number} is no JSON"));
    }
    let _ = serde_json::to_writer(out, &number);
    Ok(())
}

/// Values of the less usual kinds.
fn other(column: &ArrayRef, row: usize, out: &mut Vec<u8>) {
    match column.data_type() {
        DataType::Timestamp(_, zone) => {
            out.extend_from_slice(odd_date_time(column, row).as_bytes());
            out.extend(zone.is_some().then_some(b'Z'));
        }
        DataType::Date32 => match column.as_primitive::<Date32Type>().value_as_date(row) {
            Some(date) => out.extend_from_slice(date.to_string().as_bytes()),
            None => out.extend_from_slice(b"out of range"),
        },
        _ => {
            let text = ArrayFormatter::try_new(column, &FormatOptions::new()).map_or_else(|e| e.to_string(), |f| f.value(row).to_string());
            out.extend_from_slice(text.as_bytes());
        }
    }
}

/// Appends a whole number.
fn write_number(number: i64, out: &mut Vec<u8>) {
    let (mut digits, mut at, mut rest) = ([0; 20], 20, number.unsigned_abs());
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends `2026-03-02 09:00:00.25`, the fraction as short as it is, as Flink writes it; `false` where the year has not four
/// digits, with nothing appended.
fn write_date_time(ms: i64, out: &mut Vec<u8>) -> bool {
    let (days, of_day) = (ms.div_euclid(DAY_MS), ms.rem_euclid(DAY_MS) as u32);
    let date = i32::try_from(days + DAYS_BEFORE_1970).ok().and_then(NaiveDate::from_num_days_from_ce_opt);
    let Some(date) = date.filter(|date| (0..10_000).contains(&date.year())) else { return false };
    let pair = |number: u32| [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
    let year = date.year().unsigned_abs();
    let [[y1, y2], [y3, y4], [m1, m2], [d1, d2]] = [year / 100, year % 100, date.month(), date.day()].map(pair);
    let [[h1, h2], [i1, i2], [s1, s2]] = [of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1000 % 60].map(pair);
    out.extend_from_slice(&[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b' ', h1, h2, b':', i1, i2, b':', s1, s2]);
    let fraction = of_day % 1000;
    if fraction > 0 {
        let digits = [b'.', b'0' + (fraction / 100) as u8, b'0' + (fraction / 10 % 10) as u8, b'0' + (fraction % 10) as u8];
        let zeros = digits.iter().rev().take_while(|digit| **digit == b'0').count();
        out.extend_from_slice(&digits[..4 - zeros]);
    }
    true
}

/// A time of any unit and any year.
#[cold]
fn odd_date_time(column: &ArrayRef, row: usize) -> String {
    let plain = ArrayFormatter::try_new(
        column,
        &FormatOptions::new().with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f")).with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.f")),
    );
    let text = plain.map_or_else(|e| e.to_string(), |f| f.value(row).try_to_string().unwrap_or_else(|_| "out of range".into()));
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
}

/// All digits of the scale, as in SQL.
fn decimal(number: i128, scale: i8) -> String {
    let Ok(scale @ 1..) = usize::try_from(scale) else { return number.to_string() };
    let digits = format!("{:0>width$}", number.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{}{whole}.{fraction}", if number < 0 { "-" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::TimestampMillisecondArray;
    use proptest::prelude::*;
    use std::sync::Arc;

    proptest! {
        #[test]
        fn plain_times_are_written_as_any_others(ms in prop_oneof![any::<i64>(), -80_000_000_000_000..300_000_000_000_000i64]) {
            for zone in [None, Some("UTC")] {
                let column: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![ms]).with_timezone_opt(zone));
                let suffix = if zone.is_some() { "Z" } else { "" };
                prop_assert_eq!(cell(&column, 0), format!("{}{suffix}", odd_date_time(&column, 0)));
            }
        }

        #[test]
        fn numbers_are_written_as_rust_writes_them(number in prop_oneof![any::<i64>(), -11..11i64, Just(i64::MIN)]) {
            let mut out = Vec::new();
            write_number(number, &mut out);
            prop_assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
    }
}
