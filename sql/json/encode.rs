//! Rows to JSON, as Flink writes them.
//!
//! Invariant: what is written here, the decoder reads back as the same row (timestamps to their precision; a float that is no
//! number has no JSON and is an error of the row).

use super::text::to_base64;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimeUnit, TimestampMillisecondType,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::{Datelike, NaiveDate};

const DAY_MS: i64 = 86_400_000;
/// 1970-01-01 by the count that has the first day of the year 1 as its first.
const DAYS_BEFORE_1970: i64 = 719_163;

/// Appends a row as one JSON object.
///
/// # Errors
/// A value that JSON cannot say.
pub(crate) fn write_row(batch: &RecordBatch, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
    members(batch.schema_ref().fields().iter().map(|f| f.name().as_str()).zip(batch.columns()), row, out)
}

fn members<'a>(columns: impl Iterator<Item = (&'a str, &'a ArrayRef)>, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
    out.push(b'{');
    for (i, (name, column)) in columns.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        quoted(name, out);
        out.push(b':');
        write_value(column, row, out).map_err(|e| format!("column {name}: {e}"))?;
    }
    out.push(b'}');
    Ok(())
}

fn quoted(text: &str, out: &mut Vec<u8>) {
    // Writing to memory does not fail.
    let _ = serde_json::to_writer(out, text);
}

/// Appends one value.
///
/// # Errors
/// A value that JSON cannot say.
pub(crate) fn write_value(column: &ArrayRef, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
    if column.is_null(row) || *column.data_type() == DataType::Null {
        out.extend_from_slice(b"null");
        return Ok(());
    }
    match column.data_type() {
        DataType::Utf8 => quoted(column.as_string::<i32>().value(row), out),
        DataType::Binary => quoted(&to_base64(column.as_binary::<i32>().value(row)), out),
        DataType::Float64 => float(column.as_primitive::<Float64Type>().value(row), out)?,
        DataType::Float32 => {
            let number = column.as_primitive::<Float32Type>().value(row);
            if !number.is_finite() {
                return Err(format!("{number} is no JSON"));
            }
            let _ = serde_json::to_writer(out, &number);
        }
        DataType::Struct(fields) => members(fields.iter().map(|f| f.name().as_str()).zip(column.as_struct().columns()), row, out)?,
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            out.push(b'[');
            for i in 0..items.len() {
                if i > 0 {
                    out.push(b',');
                }
                write_value(&items, i, out)?;
            }
            out.push(b']');
        }
        DataType::Map(..) => {
            let entries = column.as_map().value(row);
            out.push(b'{');
            for i in 0..entries.len() {
                if i > 0 {
                    out.push(b',');
                }
                quoted(&cell(entries.column(0), i), out);
                out.push(b':');
                write_value(entries.column(1), i, out)?;
            }
            out.push(b'}');
        }
        DataType::Boolean | DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 | DataType::Decimal128(_, _) => {
            write_cell(column, row, out);
        }
        // Dates and times: nothing in them is to be escaped.
        _ => {
            out.push(b'"');
            write_cell(column, row, out);
            out.push(b'"');
        }
    }
    Ok(())
}

fn float(number: f64, out: &mut Vec<u8>) -> Result<(), String> {
    if !number.is_finite() {
        return Err(format!("{number} is no JSON"));
    }
    let _ = serde_json::to_writer(out, &number);
    Ok(())
}

/// A value as people and CSV read it; `NULL` for none.
pub(crate) fn cell(column: &ArrayRef, row: usize) -> String {
    let mut out = Vec::new();
    match column.is_null(row) {
        true => out.extend_from_slice(b"NULL"),
        false => write_cell(column, row, &mut out),
    }
    String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

/// Appends a value, which is not NULL, as people and CSV read it.
pub(crate) fn write_cell(column: &ArrayRef, row: usize, out: &mut Vec<u8>) {
    match column.data_type() {
        DataType::Utf8 => out.extend_from_slice(column.as_string::<i32>().value(row).as_bytes()),
        DataType::Binary => out.extend_from_slice(to_base64(column.as_binary::<i32>().value(row)).as_bytes()),
        DataType::Int64 => write_number(column.as_primitive::<Int64Type>().value(row), out),
        DataType::Int32 => write_number(column.as_primitive::<Int32Type>().value(row).into(), out),
        DataType::Timestamp(TimeUnit::Millisecond, zone) => {
            let ms = column.as_primitive::<TimestampMillisecondType>().value(row);
            if !write_date_time(ms, out) {
                out.extend_from_slice(odd_date_time(column, row).as_bytes());
            }
            out.extend(zone.is_some().then_some(b'Z'));
        }
        DataType::Timestamp(_, zone) => {
            out.extend_from_slice(odd_date_time(column, row).as_bytes());
            out.extend(zone.is_some().then_some(b'Z'));
        }
        DataType::Decimal128(_, scale) => {
            out.extend_from_slice(decimal(column.as_primitive::<Decimal128Type>().value(row), *scale).as_bytes());
        }
        DataType::Date32 => match column.as_primitive::<Date32Type>().value_as_date(row) {
            Some(date) => out.extend_from_slice(date.to_string().as_bytes()),
            None => out.extend_from_slice(b"out of range"),
        },
        DataType::Struct(_) | DataType::List(_) | DataType::Map(..) => {
            let start = out.len();
            if let Err(e) = write_value(column, row, out) {
                out.truncate(start);
                out.extend_from_slice(e.as_bytes());
            }
        }
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
