//! Rows to JSON, as Flink writes them.
//!
//! Invariant: what is written here, the decoder reads back as the same row (timestamps to their precision; a float that is no
//! number has no JSON and is an error of the row).

use super::text::to_base64;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Date32Type, Decimal128Type, Float32Type, Float64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use std::io::Write;

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
            let _ = write!(out, "{}", cell(column, row));
        }
        _ => quoted(&cell(column, row), out),
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
    if column.is_null(row) {
        return "NULL".into();
    }
    match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row).to_string(),
        DataType::Binary => to_base64(column.as_binary::<i32>().value(row)),
        DataType::Decimal128(_, scale) => decimal(column.as_primitive::<Decimal128Type>().value(row), *scale),
        DataType::Date32 => column.as_primitive::<Date32Type>().value_as_date(row).map_or_else(|| "out of range".into(), |d| d.to_string()),
        DataType::Timestamp(_, zone) => {
            let plain = ArrayFormatter::try_new(
                column,
                &FormatOptions::new()
                    .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"))
                    .with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.f")),
            );
            let text = plain.map_or_else(|e| e.to_string(), |f| f.value(row).try_to_string().unwrap_or_else(|_| "out of range".into()));
            // Fractions as short as they are, as Flink writes them.
            let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
            if zone.is_some() { format!("{text}Z") } else { text.to_string() }
        }
        DataType::Struct(_) | DataType::List(_) | DataType::Map(..) => {
            let mut json = Vec::new();
            match write_value(column, row, &mut json) {
                Ok(()) => String::from_utf8_lossy(&json).into_owned(),
                Err(e) => e,
            }
        }
        _ => ArrayFormatter::try_new(column, &FormatOptions::new()).map_or_else(|e| e.to_string(), |f| f.value(row).to_string()),
    }
}

/// All digits of the scale, as in SQL.
fn decimal(number: i128, scale: i8) -> String {
    let Ok(scale @ 1..) = usize::try_from(scale) else { return number.to_string() };
    let digits = format!("{:0>width$}", number.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{}{whole}.{fraction}", if number < 0 { "-" } else { "" })
}
