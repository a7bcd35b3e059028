//! Times from text and numbers, and computing with them. Timestamps count milliseconds in UTC.
//!
//! Invariant: a text that is no time is NULL; a time beyond the calendar is an error of its row.

use super::own::ScalarFunction;
use super::time::{date_time, format, out_of_range, parsed, pieces, stamps};
use arrow::array::{Array, ArrayRef, AsArray, Date32Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMillisecondType};
use chrono::{Datelike, Days, Months, NaiveDate, NaiveDateTime, TimeZone};
use chrono_tz::Tz;
use datafusion_common::ScalarValue;
use std::ops::RangeInclusive;
use std::sync::Arc;

const TEXT: DataType = DataType::Utf8;
const INT: DataType = DataType::Int64;
const STAMP: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);
const USUAL: &str = "yyyy-MM-dd HH:mm:ss";

/// All of them.
pub(super) fn functions() -> Vec<ScalarFunction> {
    vec![
        ScalarFunction::new("to_timestamp", vec![TEXT], STAMP, |args| {
            let times = times(args)?;
            Ok(Arc::new(
                times
                    .iter()
                    .map(|t| t.map(|t| t.and_utc().timestamp_millis()))
                    .collect::<Int64Array>()
                    .reinterpret_cast::<TimestampMillisecondType>(),
            ))
        })
        .or(vec![TEXT, TEXT])
        .checked(check_pattern),
        ScalarFunction::new("to_timestamp_ltz", vec![INT, INT], DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), |args| {
            let ms = match args[0].data_type() {
                DataType::Utf8 => instants_of_texts(args)?,
                _ => instants_of_numbers(args)?,
            };
            Ok(Arc::new(ms.reinterpret_cast::<TimestampMillisecondType>().with_timezone("UTC")))
        })
        .or(vec![INT])
        .or(vec![TEXT])
        .or(vec![TEXT, TEXT])
        .or(vec![TEXT, TEXT, TEXT])
        .checked(|args| if let Some(Some(ScalarValue::Utf8(_))) = args.get(1) { check_pattern(args) } else { Ok(()) }),
        ScalarFunction::new("to_date", vec![TEXT], DataType::Date32, |args| {
            let days = |t: &Option<NaiveDateTime>| t.map(|t| (t.date() - NaiveDate::default()).num_days() as i32);
            Ok(Arc::new(times(args)?.iter().map(days).collect::<Date32Array>()))
        })
        .or(vec![TEXT, TEXT])
        .checked(check_pattern),
        ScalarFunction::new("unix_timestamp", vec![TEXT], INT, |args| {
            Ok(Arc::new(times(args)?.iter().map(|t| t.map(|t| t.and_utc().timestamp())).collect::<Int64Array>()))
        })
        .or(vec![TEXT, TEXT])
        .checked(check_pattern),
        ScalarFunction::new("from_unixtime", vec![INT], TEXT, from_unixtime).or(vec![INT, TEXT]).checked(check_pattern),
        ScalarFunction::new("convert_tz", vec![TEXT, TEXT, TEXT], TEXT, convert_tz),
        ScalarFunction::new("timestampadd", vec![TEXT, INT, STAMP], STAMP, add).like(2).checked(check_unit),
        ScalarFunction::new("timestampdiff", vec![TEXT, STAMP, STAMP], INT, difference).checked(check_unit),
        ScalarFunction::new("floor_time", vec![TEXT, STAMP], STAMP, |args| rounded(args, false)).like(1).checked(check_unit),
        ScalarFunction::new("ceil_time", vec![TEXT, STAMP], STAMP, |args| rounded(args, true)).like(1).checked(check_unit),
    ]
}

fn constant<'a>(args: &[Option<&'a ScalarValue>], i: usize) -> Option<&'a str> {
    match args.get(i) {
        Some(Some(ScalarValue::Utf8(Some(text)))) => Some(text),
        _ => None,
    }
}

fn check_pattern(args: &[Option<&ScalarValue>]) -> Result<(), String> {
    constant(args, 1).map_or(Ok(()), |pattern| pieces(pattern).map(drop))
}

fn check_unit(args: &[Option<&ScalarValue>]) -> Result<(), String> {
    constant(args, 0).map_or(Ok(()), |unit| Unit::of(unit).map(drop))
}

/// A span of the calendar.
#[derive(Debug, Clone, Copy)]
enum Unit {
    Millis(i64),
    Months(i64),
}

const WEEK: i64 = 7 * 86_400_000;

impl Unit {
    fn of(name: &str) -> Result<Unit, String> {
        Ok(match name {
            "MILLISECOND" => Unit::Millis(1),
            "SECOND" => Unit::Millis(1000),
            "MINUTE" => Unit::Millis(60_000),
            "HOUR" => Unit::Millis(3_600_000),
            "DAY" => Unit::Millis(86_400_000),
            "WEEK" => Unit::Millis(WEEK),
            "MONTH" => Unit::Months(1),
            "QUARTER" => Unit::Months(3),
            "YEAR" => Unit::Months(12),
            other => return Err(format!("{other} is no unit: SECOND, MINUTE, HOUR, DAY, WEEK, MONTH, QUARTER or YEAR")),
        })
    }

    /// A time so many of it later.
    fn later(self, ms: i64, n: i64) -> Result<i64, String> {
        let beyond = || format!("{n} units from {ms} ms are beyond the calendar");
        match self {
            Unit::Millis(span) => n.checked_mul(span).and_then(|more| ms.checked_add(more)).ok_or_else(beyond),
            Unit::Months(span) => {
                let months = n.checked_mul(span).ok_or_else(beyond)?;
                let by = Months::new(u32::try_from(months.unsigned_abs()).map_err(|_| beyond())?);
                let at = date_time(ms).ok_or_else(|| out_of_range(ms))?;
                let moved = if months < 0 { at.checked_sub_months(by) } else { at.checked_add_months(by) };
                Ok(moved.ok_or_else(beyond)?.and_utc().timestamp_millis())
            }
        }
    }

    /// The last beginning of one, that instant included. Weeks begin on Sunday.
    fn start(self, ms: i64) -> Result<i64, String> {
        match self {
            // 1970-01-04 was a Sunday.
            Unit::Millis(WEEK) => Ok(ms - (ms - 3 * 86_400_000).rem_euclid(WEEK)),
            Unit::Millis(span) => Ok(ms - ms.rem_euclid(span)),
            Unit::Months(span) => {
                let at = date_time(ms).ok_or_else(|| out_of_range(ms))?;
                let month = i64::from(at.month0()) / span * span;
                let first = NaiveDate::from_ymd_opt(at.year(), month as u32 + 1, 1).ok_or_else(|| out_of_range(ms))?;
                Ok((first - NaiveDate::default()).num_milliseconds())
            }
        }
    }
}

/// Texts as times: by the pattern of each row, or as they are usually written.
fn times(args: &[ArrayRef]) -> Result<Vec<Option<NaiveDateTime>>, String> {
    let texts = args[0].as_string::<i32>();
    let Some(patterns) = args.get(1).map(|p| p.as_string::<i32>()) else {
        return Ok(texts.iter().map(|text| usual(text?)).collect());
    };
    let mut known = None;
    let mut all = Vec::with_capacity(texts.len());
    for (text, pattern) in texts.iter().zip(patterns.iter()) {
        let (Some(text), Some(pattern)) = (text, pattern) else {
            all.push(None);
            continue;
        };
        if known.as_ref().is_none_or(|(same, _)| *same != pattern) {
            known = Some((pattern, pieces(pattern)?));
        }
        all.push(known.as_ref().and_then(|(_, pieces)| parsed(pieces, text)));
    }
    Ok(all)
}

fn usual(text: &str) -> Option<NaiveDateTime> {
    let text = text.trim();
    NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f")
        .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f"))
        .ok()
        .or_else(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0))
}

/// Instants of the years 0 to 9999, which Flink has.
const KNOWN_MS: RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;

/// `TO_TIMESTAMP_LTZ(number [, precision])`: of seconds (0) or of milliseconds (3).
fn instants_of_numbers(args: &[ArrayRef]) -> Result<Int64Array, String> {
    let numbers = args[0].as_primitive::<Int64Type>();
    let precisions = args.get(1).map(|precisions| precisions.as_primitive::<Int64Type>());
    let one = |(row, number): (usize, Option<i64>)| {
        let precision = precisions.map_or(Some(3), |precisions| precisions.is_valid(row).then(|| precisions.value(row)));
        let (Some(number), Some(precision)) = (number, precision) else { return Ok(None) };
        let ms = match precision {
            0 => number.checked_mul(1000),
            3 => Some(number),
            other => return Err(format!("the precision is 0 (seconds) or 3 (milliseconds), not {other}")),
        };
        Ok(ms.filter(|ms| KNOWN_MS.contains(ms)))
    };
    numbers.iter().enumerate().map(one).collect()
}

/// `TO_TIMESTAMP_LTZ(text [, pattern [, zone]])`: what the clock of the zone, UTC unless said, shows.
fn instants_of_texts(args: &[ArrayRef]) -> Result<Int64Array, String> {
    let (times, zones) = (times(&args[..args.len().min(2)])?, args.get(2).map(|zones| zones.as_string::<i32>()));
    let one = |(row, time): (usize, Option<NaiveDateTime>)| {
        let Some(time) = time else { return Ok(None) };
        let Some(zones) = zones else { return Ok(Some(time.and_utc().timestamp_millis())) };
        if zones.is_null(row) {
            return Ok(None);
        }
        // An hour that a clock skips is none; of two the earlier is meant.
        Ok(zone(zones.value(row))?.from_local_datetime(&time).earliest().map(|time| time.timestamp_millis()))
    };
    times.into_iter().enumerate().map(one).collect()
}

fn zone(name: &str) -> Result<Tz, String> {
    name.parse::<Tz>().map_err(|_| format!("{name:?} is no time zone: 'Europe/Berlin', 'UTC'"))
}

fn from_unixtime(args: &[ArrayRef]) -> Result<ArrayRef, String> {
    let (seconds, patterns) = (args[0].as_primitive::<Int64Type>(), args.get(1).map(|p| p.as_string::<i32>()));
    let one = |row: usize| {
        let pattern = match patterns {
            Some(patterns) if patterns.is_null(row) => return Ok(None),
            Some(patterns) => patterns.value(row),
            None => USUAL,
        };
        if seconds.is_null(row) {
            return Ok(None);
        }
        let mut text = String::new();
        let ms = seconds.value(row).checked_mul(1000).ok_or_else(|| format!("{} seconds are out of range", seconds.value(row)))?;
        format(&pieces(pattern)?, ms, &mut text)?;
        Ok(Some(text))
    };
    Ok(Arc::new((0..seconds.len()).map(one).collect::<Result<StringArray, String>>()?))
}

/// `CONVERT_TZ('2024-01-01 12:00:00', 'UTC', 'Europe/Berlin')`.
fn convert_tz(args: &[ArrayRef]) -> Result<ArrayRef, String> {
    let columns: Vec<&StringArray> = args.iter().map(|a| a.as_string::<i32>()).collect();
    let one = |row: usize| {
        let all = columns.iter().map(|c| c.is_valid(row).then(|| c.value(row))).collect::<Option<Vec<&str>>>();
        let Some(all) = all else { return Ok(None) };
        let (from, to) = (zone(all[1])?, zone(all[2])?);
        // An hour that a clock skips is none; of two the earlier is meant.
        let at = usual(all[0]).and_then(|at| from.from_local_datetime(&at).earliest());
        Ok(at.map(|at| at.with_timezone(&to).format("%Y-%m-%d %H:%M:%S").to_string()))
    };
    Ok(Arc::new((0..args[0].len()).map(one).collect::<Result<StringArray, String>>()?))
}

/// The unit and a function of it, row by row; NULL where the unit or an argument is.
fn by_unit(units: &ArrayRef, f: impl Fn(Unit, usize) -> Result<Option<i64>, String>) -> Result<Int64Array, String> {
    let units = units.as_string::<i32>();
    let one = |row: usize| if units.is_null(row) { Ok(None) } else { f(Unit::of(units.value(row))?, row) };
    (0..units.len()).map(one).collect()
}

fn add(args: &[ArrayRef]) -> Result<ArrayRef, String> {
    let (numbers, times) = (args[1].as_primitive::<Int64Type>(), stamps(&args[2]));
    let sums = by_unit(&args[0], |unit, row| {
        let given = numbers.is_valid(row) && times.is_valid(row);
        given.then(|| unit.later(times.value(row), numbers.value(row))).transpose()
    })?;
    Ok(Arc::new(sums.reinterpret_cast::<TimestampMillisecondType>()))
}

fn rounded(args: &[ArrayRef], up: bool) -> Result<ArrayRef, String> {
    let times = stamps(&args[1]);
    let all = by_unit(&args[0], |unit, row| {
        if times.is_null(row) {
            return Ok(None);
        }
        let start = unit.start(times.value(row))?;
        if up && start < times.value(row) { unit.later(start, 1).map(Some) } else { Ok(Some(start)) }
    })?;
    Ok(Arc::new(all.reinterpret_cast::<TimestampMillisecondType>()))
}

/// How many whole units from one time to another.
fn difference(args: &[ArrayRef]) -> Result<ArrayRef, String> {
    let (from, to) = (stamps(&args[1]), stamps(&args[2]));
    let all = by_unit(&args[0], |unit, row| {
        if from.is_null(row) || to.is_null(row) {
            return Ok(None);
        }
        let (a, b) = (from.value(row), to.value(row));
        Ok(Some(match unit {
            Unit::Millis(span) => b.checked_sub(a).ok_or_else(|| format!("{a} ms and {b} ms are too far apart"))? / span,
            Unit::Months(span) => whole_months(a, b)? / span,
        }))
    })?;
    Ok(Arc::new(all))
}

fn whole_months(a: i64, b: i64) -> Result<i64, String> {
    if a > b {
        return Ok(-whole_months(b, a)?);
    }
    let (from, to) = (date_time(a).ok_or_else(|| out_of_range(a))?, date_time(b).ok_or_else(|| out_of_range(b))?);
    let months = i64::from(to.year() - from.year()) * 12 + i64::from(to.month0()) - i64::from(from.month0());
    let day = |t: NaiveDateTime| (t.day(), t.time());
    // The last day of a month is as good as a later one that it does not have.
    let last = to.date().checked_add_days(Days::new(1)).is_some_and(|next| next.day() == 1);
    let reached = day(to) >= day(from) || (last && from.day() > to.day() && to.time() >= from.time());
    Ok(if reached { months } else { months - 1 })
}
