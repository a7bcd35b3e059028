//! Values as texts, as CAST writes them: TRUE, numbers as Java has them, times with the digits of their type, `(1, a)` of rows,
//! `[1, 2]` of arrays, `{k=v}` of maps, `+1 02:03:04.005` and `+1-02` of intervals.
//!
//! Invariant: every value has a text; within rows, arrays and maps that of NULL is `NULL`.

use crate::plan::zones::{Zone, in_second, shifted};
use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, DurationMillisecondType, Float32Type, Float64Type, Int64Type, IntervalDayTimeType, IntervalMonthDayNanoType, IntervalUnit,
    IntervalYearMonthType, TimeUnit,
};
use chrono::DateTime;
use std::fmt::{LowerExp, Write as _};
use std::ops::Range;

/// The texts of a column; of instants what the clock of the zone shows.
///
/// # Errors
/// Times beyond the calendar.
pub(super) fn texts(column: &ArrayRef, zone: Option<Zone>) -> Result<StringArray, String> {
    Ok(match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().clone(),
        DataType::Boolean => column.as_boolean().iter().map(|b| b.map(|b| if b { "TRUE" } else { "FALSE" })).collect(),
        DataType::Float64 => numbers(column.as_primitive::<Float64Type>().iter(), f64::is_finite),
        DataType::Float32 => numbers(column.as_primitive::<Float32Type>().iter(), f32::is_finite),
        DataType::Timestamp(unit, None) => times(column, *unit)?,
        DataType::Timestamp(unit, Some(_)) => times(&shifted(column, zone, true)?, *unit)?,
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let spans = column.as_primitive::<IntervalMonthDayNanoType>().iter();
            let of_days = |days: i32, nanos: i64| i64::from(days) * 86_400_000 + nanos / 1_000_000;
            let text = |months: i32, days: i32, nanos: i64| match of_days(days, nanos) {
                0 if months != 0 => months_text(months),
                ms => millis_text(ms),
            };
            spans.map(|span| span.map(|span| text(span.months, span.days, span.nanoseconds))).collect()
        }
        DataType::Interval(IntervalUnit::YearMonth) => {
            column.as_primitive::<IntervalYearMonthType>().iter().map(|months| months.map(months_text)).collect()
        }
        DataType::Interval(IntervalUnit::DayTime) => {
            let spans = column.as_primitive::<IntervalDayTimeType>().iter();
            let ms = |days: i32, ms: i32| i64::from(days) * 86_400_000 + i64::from(ms);
            spans.map(|span| span.map(|span| millis_text(ms(span.days, span.milliseconds)))).collect()
        }
        DataType::Duration(_) => {
            let spans = cast(column, &DataType::Duration(TimeUnit::Millisecond)).map_err(|e| e.to_string())?;
            spans.as_primitive::<DurationMillisecondType>().iter().map(|ms| ms.map(millis_text)).collect()
        }
        // What is no text in UTF-8 shows its wrong places, as in Java.
        DataType::Binary => column.as_binary::<i32>().iter().map(|bytes| bytes.map(String::from_utf8_lossy)).collect(),
        DataType::Struct(_) => {
            let rows = column.as_struct();
            let fields = rows.columns().iter().map(|field| texts(field, zone)).collect::<Result<Vec<_>, _>>()?;
            let text = |row: usize| format!("({})", fields.iter().map(|field| given(field, row)).collect::<Vec<_>>().join(", "));
            (0..rows.len()).map(|row| rows.is_valid(row).then(|| text(row))).collect()
        }
        DataType::List(_) => {
            let lists = column.as_list::<i32>();
            let items = texts(lists.values(), zone)?;
            let text = |range: Range<usize>| format!("[{}]", range.map(|i| given(&items, i)).collect::<Vec<_>>().join(", "));
            (0..lists.len()).map(|row| lists.is_valid(row).then(|| text(range(lists.value_offsets(), row)))).collect()
        }
        DataType::Map(..) => {
            let maps = column.as_map();
            let (keys, values) = (texts(maps.keys(), zone)?, texts(maps.values(), zone)?);
            let entry = |i: usize| format!("{}={}", given(&keys, i), given(&values, i));
            let text = |range: Range<usize>| format!("{{{}}}", range.map(entry).collect::<Vec<_>>().join(", "));
            (0..maps.len()).map(|row| maps.is_valid(row).then(|| text(range(maps.value_offsets(), row)))).collect()
        }
        _ => cast(column, &DataType::Utf8).map_err(|e| e.to_string())?.as_string::<i32>().clone(),
    })
}

fn given(texts: &StringArray, row: usize) -> &str {
    if texts.is_valid(row) { texts.value(row) } else { "NULL" }
}

fn range(offsets: &[i32], row: usize) -> Range<usize> {
    offsets[row] as usize..offsets[row + 1] as usize
}

/// `2024-07-01 22:30:15.250`: with the digits of the unit.
fn times(column: &ArrayRef, unit: TimeUnit) -> Result<StringArray, String> {
    let times = cast(column, &DataType::Int64).map_err(|e| e.to_string())?;
    let times = times.as_primitive::<Int64Type>();
    let (in_second, digits) = (in_second(unit), in_second(unit).ilog10() as usize);
    let mut texts = StringBuilder::with_capacity(times.len(), times.len() * 23);
    for time in times {
        let Some(time) = time else {
            texts.append_null();
            continue;
        };
        let (seconds, rest) = (time.div_euclid(in_second), time.rem_euclid(in_second));
        let at = DateTime::from_timestamp(seconds, 0);
        let at = at.ok_or_else(|| format!("{seconds} s since 1970 are beyond the calendar"))?;
        let _ = write!(texts, "{}", at.format("%Y-%m-%d %H:%M:%S"));
        if digits > 0 {
            let _ = write!(texts, ".{rest:0digits$}");
        }
        texts.append_value("");
    }
    Ok(texts.finish())
}

/// `+1-02`: years and months.
fn months_text(months: i32) -> String {
    let (sign, months) = (if months < 0 { '-' } else { '+' }, months.unsigned_abs());
    format!("{sign}{}-{:02}", months / 12, months % 12)
}

/// `+1 02:03:04.005`: days and a time of day.
fn millis_text(ms: i64) -> String {
    let (sign, ms) = (if ms < 0 { '-' } else { '+' }, ms.unsigned_abs());
    let (seconds, ms) = (ms / 1000, ms % 1000);
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    format!("{sign}{} {:02}:{:02}:{:02}.{ms:03}", hours / 24, hours % 24, minutes % 60, seconds % 60)
}

fn numbers<F: LowerExp + PartialOrd + Default + Copy>(numbers: impl Iterator<Item = Option<F>>, is_finite: fn(F) -> bool) -> StringArray {
    let mut texts = StringBuilder::new();
    for number in numbers {
        match number {
            None => texts.append_null(),
            Some(x) if is_finite(x) => write_java(&format!("{x:e}"), &mut texts),
            Some(x) if x > F::default() => texts.append_value("Infinity"),
            Some(x) if x < F::default() => texts.append_value("-Infinity"),
            Some(_) => texts.append_value("NaN"),
        }
    }
    texts.finish()
}

/// A number as `Double.toString` of Java has it: the fewest digits that tell it from its neighbours, of which one at least is behind
/// the point, and an exponent below a thousandth and from ten millions on. Given is the number in the form `1.25e-3`.
fn write_java(number: &str, out: &mut StringBuilder) {
    let (sign, number) = number.strip_prefix('-').map_or(("", number), |number| ("-", number));
    let (mantissa, exponent) = number.split_once('e').unwrap_or((number, "0"));
    let (digits, exponent) = (mantissa.replace('.', ""), exponent.parse::<i32>().unwrap_or(0));
    let pointed = |whole: &str, rest: &str| format!("{sign}{whole}.{}", if rest.is_empty() { "0" } else { rest });
    let text = match exponent {
        0..7 => {
            let width = exponent as usize + 1;
            let digits = format!("{digits:0<width$}");
            pointed(&digits[..width], &digits[width..])
        }
        -3..0 => pointed("0", &format!("{}{digits}", "0".repeat(exponent.unsigned_abs() as usize - 1))),
        _ => format!("{}E{exponent}", pointed(&digits[..1], &digits[1..])),
    };
    out.append_value(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_in_java() {
        let of = |all: &[f64]| numbers(all.iter().map(|x| Some(*x)), f64::is_finite);
        let all = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (-2.75, "-2.75"),
            (100.0, "100.0"),
            (0.1, "0.1"),
            (0.001, "0.001"),
            (0.012_34, "0.01234"),
            (0.000_999, "9.99E-4"),
            (9_999_999.0, "9999999.0"),
            (1_234_567.5, "1234567.5"),
            (1e7, "1.0E7"),
            (12_345_670.0, "1.234567E7"),
            (-1e-5, "-1.0E-5"),
            (f64::MAX, "1.7976931348623157E308"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
            (f64::NAN, "NaN"),
        ];
        let written = of(&all.map(|(x, _)| x));
        assert_eq!(written.iter().flatten().collect::<Vec<_>>(), all.map(|(_, text)| text));
        let floats = numbers([Some(1.1f32), None, Some(16_777_216.0)].into_iter(), f32::is_finite);
        assert_eq!(floats.iter().collect::<Vec<_>>(), [Some("1.1"), None, Some("1.6777216E7")]);
        assert_eq!(floats.null_count(), 1);
    }
    #[test]
    fn intervals_have_signs() {
        for (months, text) in [(84, "+7-00"), (5, "+0-05"), (-123, "-10-03"), (12_334, "+1027-10")] {
            assert_eq!(months_text(months), text);
        }
        for (ms, text) in
            [(10, "+0 00:00:00.010"), (123_456_789, "+1 10:17:36.789"), (129_600_000, "+1 12:00:00.000"), (-1, "-0 00:00:00.001")]
        {
            assert_eq!(millis_text(ms), text);
        }
    }
}
