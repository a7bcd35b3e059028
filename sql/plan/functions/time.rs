//! Functions of time with Flink's results. Timestamps count milliseconds in UTC.

use super::own::ScalarFunction;
use crate::plan::zones::in_second;
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringBuilder};
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMillisecondType};
use chrono::{DateTime, Datelike, NaiveDateTime, Timelike};
use datafusion_common::ScalarValue;
use std::fmt::Write as _;
use std::sync::Arc;

const STAMP: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);
const DAY_MS: i64 = 86_400_000;

/// What the clock says when a row passes, and its type; the operator that a row passes gives it.
pub(crate) const CLOCK: &[(&str, DataType)] = &[
    ("localtimestamp", STAMP),
    ("current_date", DataType::Date32),
    ("localtime", DataType::Time32(TimeUnit::Millisecond)),
    ("current_time", DataType::Time32(TimeUnit::Millisecond)),
    ("unix_timestamp_now", DataType::Int64),
];
/// Where the watermark of a time is when the row passes; the operator gives it, too.
pub(crate) const CURRENT_WATERMARK: &str = "current_watermark";
/// Those of type TIMESTAMP_LTZ(3).
const CLOCK_LTZ: &[&str] = &["current_timestamp", "now", "current_row_timestamp"];

/// Whether a function says what the clock does.
pub(crate) fn is_of_the_clock(name: &str) -> bool {
    CLOCK_LTZ.contains(&name) || CLOCK.iter().any(|(known, _)| *known == name)
}

/// Functions of the clock: planned, never computed.
pub(super) fn of_the_clock() -> impl Iterator<Item = ScalarFunction> {
    let ltz = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    let ltz = CLOCK_LTZ.iter().map(move |name| (*name, ltz.clone()));
    let all = ltz.chain(CLOCK.iter().map(|(name, kind)| (*name, kind.clone())));
    all.map(|(name, kind)| ScalarFunction::new(name, Vec::new(), kind, |_| Err("it is given by an operator".into())).volatile())
}

/// All of them.
pub(super) fn functions() -> Vec<ScalarFunction> {
    // YEAR(t) is EXTRACT(YEAR FROM t).
    let part = |(name, of): (&str, &'static str)| {
        ScalarFunction::new(name, vec![STAMP], DataType::Int64, move |args| {
            let (part, times) = (part_of(of)?, stamps(&args[0]));
            let parts = times.iter().map(|ms| ms.map(|ms| part(ms).ok_or_else(|| out_of_range(ms))).transpose());
            Ok(Arc::new(parts.collect::<Result<Int64Array, String>>()?))
        })
    };
    let parts = [
        ("year", "YEAR"),
        ("quarter", "QUARTER"),
        ("month", "MONTH"),
        ("week", "WEEK"),
        ("dayofyear", "DOY"),
        ("dayofmonth", "DAY"),
        ("dayofweek", "DOW"),
        ("hour", "HOUR"),
        ("minute", "MINUTE"),
        ("second", "SECOND"),
    ];
    let others = [
        // Planned, never computed: a row's time is given by the operator that it passes.
        ScalarFunction::new("proctime", Vec::new(), DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), |_| {
            Err("it is only the time of a window".into())
        })
        .volatile(),
        ScalarFunction::new(CURRENT_WATERMARK, vec![STAMP], STAMP, |_| Err("it is given by an operator".into())).like(0).volatile(),
        ScalarFunction::new("date_format", vec![STAMP, DataType::Utf8], DataType::Utf8, date_format)
            .or(vec![DataType::Utf8, DataType::Utf8])
            .checked(check_format),
        ScalarFunction::new("extract", vec![DataType::Utf8, STAMP], DataType::Int64, extract)
            .or(vec![DataType::Utf8, DataType::Timestamp(TimeUnit::Microsecond, None)])
            .or(vec![DataType::Utf8, DataType::Timestamp(TimeUnit::Nanosecond, None)])
            .or(vec![DataType::Utf8, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))])
            .or(vec![DataType::Utf8, DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))])
            .or(vec![DataType::Utf8, DataType::Time64(TimeUnit::Nanosecond)])
            .or(vec![DataType::Utf8, DataType::Time32(TimeUnit::Millisecond)])
            .checked(check_part),
    ];
    others.into_iter().chain(parts.map(part)).collect()
}

/// What EXTRACT takes of a time.
fn part_of(name: &str) -> Result<fn(i64) -> Option<i64>, String> {
    Ok(match name {
        "MILLENNIUM" => |ms| Some((i64::from(date_time(ms)?.year()) + 999).div_euclid(1000)),
        "CENTURY" => |ms| Some((i64::from(date_time(ms)?.year()) + 99).div_euclid(100)),
        "DECADE" => |ms| Some(i64::from(date_time(ms)?.year()).div_euclid(10)),
        "YEAR" => |ms| Some(i64::from(date_time(ms)?.year())),
        "ISOYEAR" => |ms| Some(i64::from(date_time(ms)?.iso_week().year())),
        "QUARTER" => |ms| Some(i64::from(date_time(ms)?.month0() / 3 + 1)),
        "MONTH" => |ms| Some(i64::from(date_time(ms)?.month())),
        "WEEK" => |ms| Some(i64::from(date_time(ms)?.iso_week().week())),
        "DOY" => |ms| Some(i64::from(date_time(ms)?.ordinal())),
        "DAY" => |ms| Some(i64::from(date_time(ms)?.day())),
        // Sunday is 1, of ISO Monday.
        "DOW" => |ms| Some(i64::from(date_time(ms)?.weekday().num_days_from_sunday()) + 1),
        "ISODOW" => |ms| Some(i64::from(date_time(ms)?.weekday().num_days_from_monday()) + 1),
        "HOUR" => |ms| Some(ms.rem_euclid(DAY_MS) / 3_600_000),
        "MINUTE" => |ms| Some(ms.rem_euclid(3_600_000) / 60_000),
        "SECOND" => |ms| Some(ms.rem_euclid(60_000) / 1000),
        // Those of the seconds too.
        "MILLISECOND" => |ms| Some(ms.rem_euclid(60_000)),
        "EPOCH" => |ms| Some(ms.div_euclid(1000)),
        other => {
            return Err(format!(
                "there is no {other}: MILLENNIUM, CENTURY, DECADE, YEAR, ISOYEAR, QUARTER, MONTH, WEEK, DOY, DAY, DOW, ISODOW, HOUR, MINUTE, SECOND, MILLISECOND, EPOCH"
            ));
        }
    })
}

fn check_part(args: &[Option<&ScalarValue>]) -> Result<(), String> {
    match args.first() {
        Some(Some(ScalarValue::Utf8(Some(name)))) => part_of(name).map(drop),
        _ => Ok(()),
    }
}

/// `EXTRACT(part FROM time)`.
fn extract(args: &[ArrayRef]) -> Result<ArrayRef, String> {
    let names = args[0].as_string::<i32>();
    // A time of day is one of 1970-01-01.
    let cast = |column: &ArrayRef, kind: &DataType| arrow::compute::cast(column, kind).map_err(|e| e.to_string());
    let times: Int64Array = match args[1].data_type() {
        DataType::Timestamp(TimeUnit::Millisecond, _) => stamps(&args[1]),
        DataType::Timestamp(unit, _) => {
            let in_ms = in_second(*unit) / 1000;
            cast(&args[1], &DataType::Int64)?.as_primitive::<Int64Type>().unary(|time| time.div_euclid(in_ms.max(1)))
        }
        _ => {
            let nanos = cast(&cast(&args[1], &DataType::Time64(TimeUnit::Nanosecond))?, &DataType::Int64)?;
            nanos.as_primitive::<Int64Type>().unary(|nanos| nanos / 1_000_000)
        }
    };
    let (mut last, mut parts) = (None, Vec::with_capacity(times.len()));
    for (name, time) in names.iter().zip(times.iter()) {
        let (Some(name), Some(ms)) = (name, time) else {
            parts.push(None);
            continue;
        };
        let part = match last {
            Some((same, part)) if same == name => part,
            _ => part_of(name)?,
        };
        last = Some((name, part));
        parts.push(Some(part(ms).ok_or_else(|| out_of_range(ms))?));
    }
    Ok(Arc::new(Int64Array::from(parts)))
}

pub(super) fn stamps(array: &ArrayRef) -> Int64Array {
    array.as_primitive::<TimestampMillisecondType>().reinterpret_cast()
}

pub(super) fn date_time(ms: i64) -> Option<NaiveDateTime> {
    Some(DateTime::from_timestamp_millis(ms)?.naive_utc())
}

#[cold]
pub(super) fn out_of_range(ms: i64) -> String {
    format!("the time {ms} ms is out of the calendar's range")
}

/// A piece of a pattern of `DATE_FORMAT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    /// A letter, so many times.
    Field(char, usize),
}

/// A pattern as Java's `DateTimeFormatter` reads it.
pub(super) fn pieces(pattern: &str) -> Result<Vec<Piece>, String> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut chars = pattern.chars().peekable();
    let text = |pieces: &mut Vec<Piece>, more: &str| match pieces.last_mut() {
        Some(Piece::Text(text)) => text.push_str(more),
        _ => pieces.push(Piece::Text(more.to_string())),
    };
    while let Some(c) = chars.next() {
        match c {
            '\'' if chars.next_if_eq(&'\'').is_some() => text(&mut pieces, "'"),
            '\'' => loop {
                match chars.next() {
                    Some('\'') if chars.next_if_eq(&'\'').is_none() => break,
                    Some(c) => text(&mut pieces, c.encode_utf8(&mut [0; 4])),
                    None => return Err(format!("the pattern {pattern:?} has a quote that does not end")),
                }
            },
            c if c.is_ascii_alphabetic() => {
                let mut count = 1;
                while chars.next_if_eq(&c).is_some() {
                    count += 1;
                }
                let known = match c {
                    'y' | 'u' => count <= 4,
                    'M' | 'L' | 'E' => count <= 4,
                    'd' | 'H' | 'h' | 'K' | 'k' | 'm' | 's' => count <= 2,
                    'D' => count <= 3,
                    'S' => count <= 9,
                    'a' | 'Q' => count == 1,
                    _ => false,
                };
                if !known {
                    return Err(format!("{:?} in the pattern {pattern:?} is not known", c.to_string().repeat(count)));
                }
                pieces.push(Piece::Field(c, count));
            }
            '[' | ']' | '{' | '}' | '#' => return Err(format!("{c:?} in the pattern {pattern:?} is reserved")),
            c => text(&mut pieces, c.encode_utf8(&mut [0; 4])),
        }
    }
    Ok(pieces)
}

/// Times within the same span of so many milliseconds look the same.
fn granularity(pieces: &[Piece]) -> i64 {
    let of = |piece: &Piece| match piece {
        Piece::Field('S', _) => 1,
        Piece::Field('s', _) => 1000,
        Piece::Field('m', _) => 60_000,
        Piece::Field('H' | 'h' | 'K' | 'k' | 'a', _) => 3_600_000,
        _ => DAY_MS,
    };
    pieces.iter().map(of).min().unwrap_or(DAY_MS)
}

pub(super) fn format(pieces: &[Piece], ms: i64, out: &mut String) -> Result<(), String> {
    let time = date_time(ms).ok_or_else(|| out_of_range(ms))?;
    let (hour, names) =
        (i64::from(time.hour()), |name: &str, count: usize| if count < 4 { name[..3].to_string() } else { name.to_string() });
    for piece in pieces {
        let (number, width) = match *piece {
            Piece::Text(ref text) => {
                out.push_str(text);
                continue;
            }
            Piece::Field('y' | 'u', 2) => (i64::from(time.year()).rem_euclid(100), 2),
            Piece::Field('y' | 'u', count) => (i64::from(time.year()), count),
            Piece::Field('M' | 'L', count @ 3..) => {
                out.push_str(&names(MONTHS[time.month0() as usize], count));
                continue;
            }
            Piece::Field('E', count) => {
                out.push_str(&names(DAYS[time.weekday().num_days_from_monday() as usize], count));
                continue;
            }
            Piece::Field('a', _) => {
                out.push_str(if hour < 12 { "AM" } else { "PM" });
                continue;
            }
            Piece::Field('S', count) => {
                let digits = format!("{:03}000000", ms.rem_euclid(1000));
                out.push_str(&digits[..count]);
                continue;
            }
            Piece::Field('M' | 'L', count) => (i64::from(time.month()), count),
            Piece::Field('d', count) => (i64::from(time.day()), count),
            Piece::Field('D', count) => (i64::from(time.ordinal()), count),
            Piece::Field('Q', count) => (i64::from(time.month0() / 3 + 1), count),
            Piece::Field('H', count) => (hour, count),
            Piece::Field('k', count) => (if hour == 0 { 24 } else { hour }, count),
            Piece::Field('K', count) => (hour % 12, count),
            Piece::Field('h', count) => (if hour % 12 == 0 { 12 } else { hour % 12 }, count),
            Piece::Field('m', count) => (i64::from(time.minute()), count),
            Piece::Field('s', count) => (i64::from(time.second()), count),
            Piece::Field(other, _) => return Err(format!("{other:?} in a pattern is not known")),
        };
        let _ = write!(out, "{number:0width$}");
    }
    Ok(())
}

/// The time that a text says in a pattern's form; fields that the pattern does not have are those of 1970-01-01.
pub(super) fn parsed(pieces: &[Piece], text: &str) -> Option<NaiveDateTime> {
    let (mut date, mut clock, mut nanos, mut half) = ([1970, 1, 1], [0, 0, 0], 0, None);
    let mut rest = text;
    for (i, piece) in pieces.iter().enumerate() {
        let (letter, count) = match piece {
            Piece::Text(text) => {
                rest = rest.strip_prefix(text.as_str())?;
                continue;
            }
            Piece::Field('a', _) => {
                let word = rest.get(..2)?;
                half = Some(if word.eq_ignore_ascii_case("PM") {
                    12
                } else if word.eq_ignore_ascii_case("AM") {
                    0
                } else {
                    return None;
                });
                rest = &rest[2..];
                continue;
            }
            Piece::Field('M' | 'L', 3..) => {
                let place =
                    MONTHS.iter().position(|name| rest.starts_with(if matches!(piece, Piece::Field(_, 3)) { &name[..3] } else { name }))?;
                date[1] = place as u32 + 1;
                rest = &rest[if matches!(piece, Piece::Field(_, 3)) { 3 } else { MONTHS[place].len() }..];
                continue;
            }
            Piece::Field(letter, count) => (*letter, *count),
        };
        // A single letter takes as many digits as there are, unless digits of another field follow at once.
        let open = count == 1 && !matches!(pieces.get(i + 1), Some(Piece::Field(..)));
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let width = if open { digits } else { count };
        if digits < width || width == 0 || width > 9 {
            return None;
        }
        let number: u32 = rest[..width].parse().ok()?;
        rest = &rest[width..];
        match letter {
            'y' | 'u' => date[0] = if count == 2 { 2000 + number } else { number },
            'M' | 'L' => date[1] = number,
            'd' => date[2] = number,
            'h' if number == 12 => clock[0] = 0,
            'k' if number == 24 => clock[0] = 0,
            'H' | 'h' | 'K' | 'k' => clock[0] = number,
            'm' => clock[1] = number,
            's' => clock[2] = number,
            'S' => nanos = number * 10u32.pow(9 - width as u32),
            _ => return None,
        }
    }
    let hour = clock[0] + half.unwrap_or(0);
    let day = chrono::NaiveDate::from_ymd_opt(i32::try_from(date[0]).ok()?, date[1], date[2])?;
    rest.is_empty().then(|| day.and_hms_nano_opt(hour, clock[1], clock[2], nanos)).flatten()
}

const MONTHS: [&str; 12] =
    ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

fn check_format(args: &[Option<&ScalarValue>]) -> Result<(), String> {
    match args.get(1) {
        Some(Some(ScalarValue::Utf8(Some(pattern)))) => pieces(pattern).map(drop),
        _ => Ok(()),
    }
}

/// `DATE_FORMAT(time, pattern)`, also of the text of a time: one that is none gives NULL.
fn date_format(args: &[ArrayRef]) -> Result<ArrayRef, String> {
    let times = arrow::compute::cast(&args[0], &STAMP).map_err(|e| e.to_string())?;
    let (times, patterns) = (stamps(&times), args[1].as_string::<i32>());
    let mut texts = StringBuilder::with_capacity(times.len(), times.len() * 10);
    let (mut pattern, mut parsed, mut span) = (None, Vec::new(), DAY_MS);
    // Neighbours mostly look the same.
    let (mut last, mut text) = (None, String::new());
    for row in 0..times.len() {
        if times.is_null(row) || patterns.is_null(row) {
            texts.append_null();
            continue;
        }
        if pattern != Some(patterns.value(row)) {
            parsed = pieces(patterns.value(row))?;
            span = granularity(&parsed);
            (pattern, last) = (Some(patterns.value(row)), None);
        }
        let at = times.value(row).div_euclid(span);
        if last != Some(at) {
            text.clear();
            format(&parsed, times.value(row), &mut text)?;
            last = Some(at);
        }
        texts.append_value(&text);
    }
    Ok(Arc::new(texts.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(ms: i64, pattern: &str) -> Result<String, String> {
        let mut out = String::new();
        format(&pieces(pattern)?, ms, &mut out)?;
        Ok(out)
    }

    #[test]
    fn patterns_are_java_s() {
        let ms = 1_704_099_909_087; // Monday, 2024-01-01 09:05:09.087
        assert_eq!(shown(ms, "yyyy-MM-dd HH:mm:ss.SSS").unwrap(), "2024-01-01 09:05:09.087");
        assert_eq!(shown(ms, "yy/M/d H:m:s S").unwrap(), "24/1/1 9:5:9 0");
        assert_eq!(shown(ms, "EEEE, d MMMM; EEE MMM 'at' hh 'o''clock' a").unwrap(), "Monday, 1 January; Mon Jan at 09 o'clock AM");
        assert_eq!(shown(-1, "HH:mm:ss.SSSSSS k K D Q").unwrap(), "23:59:59.999000 23 11 365 4");
        for bad in ["yyyyy", "x", "'a", "[HH]", "MMMMM"] {
            assert!(shown(ms, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_finest_field_decides_how_long_a_text_holds() {
        assert_eq!(granularity(&pieces("yyyy-MM-dd").unwrap()), DAY_MS);
        assert_eq!(granularity(&pieces("HH:mm").unwrap()), 60_000);
        assert_eq!(granularity(&pieces("ss.S").unwrap()), 1);
    }
}
