//! Numbers, dates and times from their text, exactly.
//!
//! Invariant: a text that has no exact value in the type is an error; only floats round, as IEEE says.

use arrow::datatypes::{DataType, TimeUnit};
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Timelike};
use waterwheel_engine::time::plain_date_time;

/// Whether an integer column takes this number.
pub(super) fn fits(kind: &DataType, number: i64) -> bool {
    match kind {
        DataType::Int64 => true,
        DataType::Int32 => i32::try_from(number).is_ok(),
        DataType::Int16 => i16::try_from(number).is_ok(),
        DataType::Int8 => i8::try_from(number).is_ok(),
        _ => false,
    }
}

/// A number for an integer column; for dates and times it is no number that is expected.
pub(super) fn of_number(kind: &DataType, text: &str) -> Result<i64, String> {
    let (low, high, name) = match kind {
        DataType::Int8 => (i64::from(i8::MIN), i64::from(i8::MAX), "TINYINT"),
        DataType::Int16 => (i64::from(i16::MIN), i64::from(i16::MAX), "SMALLINT"),
        DataType::Int32 => (i64::from(i32::MIN), i64::from(i32::MAX), "INT"),
        DataType::Int64 => (i64::MIN, i64::MAX, "BIGINT"),
        DataType::Timestamp(_, _) => {
            return Err(format!(
                "{text} is no timestamp: a text like '2026-01-31 12:00:00.000' is expected, or declare the column BIGINT and compute TO_TIMESTAMP_LTZ(column, 3)"
            ));
        }
        _ => return Err(format!("{text} is no {}", crate::parser::type_name(kind))),
    };
    match text.parse::<i64>() {
        Ok(n) if (low..=high).contains(&n) => Ok(n),
        _ => Err(format!("{text} is no {name}")),
    }
}

/// As [`of_text`], of a text that is still bytes.
pub(super) fn of_string(kind: &DataType, text: &[u8]) -> Result<i64, String> {
    if let DataType::Timestamp(unit, zone) = kind
        // Nearly all texts of instants end in a Z.
        && let Some(at) = plain_date_time(if zone.is_some() { text.strip_suffix(b"Z").unwrap_or(text) } else { text })
    {
        return in_unit(at, *unit).ok_or_else(|| "beyond the type".to_string());
    }
    of_text(kind, std::str::from_utf8(text).map_err(|e| e.to_string())?)
}

/// A text for an integer, date, time or timestamp column.
pub(super) fn of_text(kind: &DataType, text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is no {}", crate::parser::type_name(kind));
    match kind {
        DataType::Date32 => {
            let date = NaiveDate::parse_from_str(text.trim(), "%Y-%m-%d").map_err(|_| wrong())?;
            Ok((date - NaiveDate::default()).num_days())
        }
        DataType::Time32(_) => {
            let time = NaiveTime::parse_from_str(text.trim(), "%H:%M:%S%.f").map_err(|_| wrong())?;
            let millis = i64::from(time.num_seconds_from_midnight()) * 1000 + i64::from(time.nanosecond() / 1_000_000);
            if time.nanosecond() % 1_000_000 == 0 { Ok(millis) } else { Err(wrong()) }
        }
        DataType::Timestamp(unit, zone) => timestamp(text.trim(), *unit, zone.is_some()).ok_or_else(wrong),
        _ => of_number(kind, text.trim()).map_err(|_| wrong()),
    }
}

/// `2026-01-31 12:00:00.000` or with a `T`; a zone (`Z`, `+02:00`) only where the type is in UTC, and then it may be missing.
fn timestamp(text: &str, unit: TimeUnit, local: bool) -> Option<i64> {
    let plain = |text: &str| {
        NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f")
            .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f"))
            .ok()
    };
    let in_utc = if local { text.strip_suffix('Z').unwrap_or(text) } else { text };
    if let Some(at) = plain_date_time(in_utc.as_bytes()) {
        return in_unit(at, unit);
    }
    let at = match plain(in_utc) {
        Some(at) => at.and_utc(),
        None if local => DateTime::parse_from_rfc3339(&text.replacen(' ', "T", 1)).ok()?.to_utc(),
        None => return None,
    };
    in_unit((at.timestamp(), at.timestamp_subsec_nanos()), unit)
}

fn in_unit((seconds, nanos): (i64, u32), unit: TimeUnit) -> Option<i64> {
    let (per_second, step) = match unit {
        TimeUnit::Second => (1, 1_000_000_000),
        TimeUnit::Millisecond => (1_000, 1_000_000),
        TimeUnit::Microsecond => (1_000_000, 1_000),
        TimeUnit::Nanosecond => (1_000_000_000, 1),
    };
    // Finer than the type: Flink cuts it off, and so do we, downwards.
    seconds.checked_mul(per_second)?.checked_add(i64::from(nanos) / step)
}

/// A float.
pub(super) fn float(kind: &DataType, text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().map_err(|_| format!("{text} is no {}", crate::parser::type_name(kind)))?;
    // A FLOAT is rounded once, from the text.
    let value = if *kind == DataType::Float32 { text.parse::<f32>().map_or(value, f64::from) } else { value };
    let names_it = text.trim_start_matches(['-', '+']).to_ascii_lowercase();
    if value.is_infinite() && !names_it.starts_with("inf") {
        return Err(format!("{text} is too large for {}", crate::parser::type_name(kind)));
    }
    Ok(value)
}

/// A decimal: digits beyond its scale are an error unless they are zeros.
pub(super) fn decimal(text: &str, precision: u8, scale: i8) -> Result<i128, String> {
    let wrong = || format!("{text} is no DECIMAL({precision}, {scale})");
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], text[at + 1..].parse::<i32>().map_err(|_| wrong())?),
        None => (text, 0),
    };
    let (negative, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.len() + fraction.len() == 0 || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    // The value is digits * 10^-shift.
    let mut shift = fraction.len() as i64 - i64::from(exponent) - i64::from(scale);
    let digits: String = [whole, fraction].concat();
    let mut digits = digits.trim_start_matches('0');
    while shift > 0 {
        match digits.strip_suffix('0') {
            Some(rest) => digits = rest,
            None if digits.is_empty() => break,
            None => return Err(wrong()),
        }
        shift -= 1;
    }
    if digits.is_empty() {
        return Ok(0);
    }
    if digits.len() as i64 - shift.min(0) > i64::from(precision) {
        return Err(wrong());
    }
    let value: i128 = digits.parse().map_err(|_| wrong())?;
    let value = value * 10i128.pow((-shift.min(0)) as u32);
    Ok(if negative { -value } else { value })
}

/// BYTES are base64 in JSON.
pub(crate) fn base64(text: &str) -> Result<Vec<u8>, String> {
    let wrong = || format!("{:?} is no base64", super::column::excerpt(text));
    let body = text.trim_end_matches('=');
    if text.len() - body.len() > 2 || (text.len() != body.len() && !text.len().is_multiple_of(4)) || body.len() % 4 == 1 {
        return Err(wrong());
    }
    let mut out = Vec::with_capacity(body.len() * 3 / 4);
    let (mut bits, mut held) = (0u32, 0);
    for byte in body.bytes() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return Err(wrong()),
        };
        bits = bits << 6 | u32::from(digit);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    Ok(out)
}

/// Bytes as base64.
pub(crate) fn to_base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, b| bits << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            out.push(if i <= chunk.len() { DIGITS[(bits >> (18 - 6 * i)) as usize & 63] as char } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact_or_refused() {
        assert_eq!(decimal("12.30", 5, 2), Ok(1230));
        assert_eq!(decimal("-0.5e1", 5, 2), Ok(-500));
        assert_eq!(decimal("1.2300", 5, 2), Ok(123));
        assert_eq!(decimal("0.000", 1, 0), Ok(0));
        assert_eq!(decimal("99999999999999999999999999999999999999", 38, 0), Ok(10i128.pow(38) - 1));
        for wrong in ["1.234", "1000", "x", "", ".", "1e40", "1e-9"] {
            assert!(decimal(wrong, 5, 2).is_err(), "{wrong}");
        }
    }

    #[test]
    fn timestamps_with_and_without_zone() {
        let utc = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
        let plain = DataType::Timestamp(TimeUnit::Millisecond, None);
        assert_eq!(of_text(&plain, "1970-01-01 00:00:01.5"), Ok(1500));
        assert_eq!(of_text(&plain, "1969-12-31T23:59:59.9999"), Ok(-1), "cut off downwards");
        assert_eq!(of_text(&utc, "1970-01-01T02:00:00+02:00"), Ok(0));
        assert_eq!(of_text(&utc, "1970-01-01 00:00:00Z"), Ok(0));
        assert!(of_text(&plain, "1970-01-01 00:00:00Z").is_err());
        assert_eq!(of_text(&DataType::Date32, "1969-12-31"), Ok(-1));
    }

    #[test]
    fn bytes_come_back_from_base64() {
        for bytes in [&b""[..], b"a", b"ab", b"abc", b"\xff\x00\x10z"] {
            assert_eq!(base64(&to_base64(bytes)).unwrap(), bytes);
        }
        assert!(base64("a").is_err() && base64("ab=c").is_err());
    }
}
