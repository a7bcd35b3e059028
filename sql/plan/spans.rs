//! Spans of time as they are written: intervals of two units, and `(a, b) OVERLAPS (c, d)`.
//!
//! Invariant: an interval of two units is as long as its parts together, all with the sign that stands before the first.

use super::sugar::{case, text};
use crate::error::{SqlError, SqlResult};
use datafusion_sql::sqlparser::ast::{BinaryOperator, DateTimeField, Expr, Interval, Spanned, Value};

/// Units of the longer kind, the longest first, and how many of the next are one; then those of the shorter kind.
static MONTHS: [(DateTimeField, i64); 2] = [(DateTimeField::Year, 12), (DateTimeField::Month, 1)];
static SECONDS: [(DateTimeField, i64); 4] =
    [(DateTimeField::Day, 24), (DateTimeField::Hour, 60), (DateTimeField::Minute, 60), (DateTimeField::Second, 1)];

/// `INTERVAL '1 2:30' DAY TO MINUTE` in the smallest unit there is, seconds or months; none for an interval of one unit, which
/// is as the planner has it but for the digits that its unit may have.
pub(super) fn in_one_unit(interval: &Interval) -> SqlResult<Option<Expr>> {
    let Some(from) = &interval.leading_field else { return Ok(None) };
    let of_one = |value: Box<Expr>, unit: DateTimeField| {
        Expr::Interval(Interval {
            value,
            leading_field: Some(unit),
            leading_precision: None,
            last_field: None,
            fractional_seconds_precision: None,
        })
    };
    let Some(to) = &interval.last_field else {
        // The planner knows no quarters.
        if *from == DateTimeField::Quarter {
            let quarters = match &*interval.value {
                Expr::Value(value) => value.value.clone().into_string().and_then(|text| text.trim().parse::<i64>().ok()),
                _ => None,
            };
            let months = quarters.and_then(|quarters| quarters.checked_mul(3));
            let months =
                months.ok_or_else(|| SqlError::new(format!("{} is no number of quarters", interval.value)).at(interval.value.span()))?;
            return Ok(Some(of_one(Box::new(text(&months.to_string())), DateTimeField::Month)));
        }
        let has_digits = interval.leading_precision.is_some() || interval.fractional_seconds_precision.is_some();
        return Ok(has_digits.then(|| of_one(interval.value.clone(), from.clone())));
    };
    let wrong =
        |why: String| SqlError::new(why).at(interval.value.span()).help("INTERVAL '1 02:30' DAY TO MINUTE, INTERVAL '1-6' YEAR TO MONTH");
    let (months, seconds) = (units(&MONTHS, from, to), units(&SECONDS, from, to));
    let (parts, unit) = match (months, seconds) {
        (Some(units), _) => (units, DateTimeField::Month),
        (_, Some(units)) => (units, DateTimeField::Second),
        _ => return Err(wrong(format!("there is no interval of {from} TO {to}"))),
    };
    let Expr::Value(value) = &*interval.value else { return Err(wrong("an interval of two units is a text in single quotes".into())) };
    let Value::SingleQuotedString(written) = &value.value else {
        return Err(wrong("an interval of two units is a text in single quotes".into()));
    };
    let total = total(written.trim(), parts).ok_or_else(|| wrong(format!("'{written}' is no interval of {from} TO {to}")))?;
    Ok(Some(of_one(Box::new(text(&total)), unit)))
}

/// From one unit to a smaller one.
fn units<'a>(all: &'a [(DateTimeField, i64)], from: &DateTimeField, to: &DateTimeField) -> Option<&'a [(DateTimeField, i64)]> {
    let place = |unit: &DateTimeField| all.iter().position(|(known, _)| known == unit);
    let (from, to) = (place(from)?, place(to)?);
    if from < to { all.get(from..=to) } else { None }
}

/// All parts in the smallest unit of the kind, with the fraction of a second as it is written.
fn total(written: &str, units: &[(DateTimeField, i64)]) -> Option<String> {
    let (sign, mut rest) = match written.strip_prefix('-') {
        Some(rest) => ("-", rest.trim_start()),
        None => ("", written.strip_prefix('+').unwrap_or(written).trim_start()),
    };
    let (mut sum, mut fraction) = (0i64, "");
    for (i, (unit, times)) in units.iter().enumerate() {
        let is_last = i + 1 == units.len();
        let separator = match unit {
            DateTimeField::Year => '-',
            DateTimeField::Day => ' ',
            _ => ':',
        };
        let (part, behind) = if is_last { (rest, "") } else { rest.split_once(separator)? };
        rest = behind.trim_start();
        let mut whole = part;
        if is_last && *unit == DateTimeField::Second {
            (whole, fraction) = part.split_once('.').unwrap_or((part, ""));
        }
        let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        let number: i64 = whole.parse().ok().filter(|_| is_number(whole) && is_number(fraction))?;
        // Parts behind the first are less than one of the unit before.
        let fits = i == 0 || number < units[i - 1].1;
        sum = sum.checked_add(number).filter(|_| fits)?.checked_mul(if is_last { 1 } else { *times })?;
    }
    let smallest = units.last().map(|(unit, _)| unit)?;
    let seconds = match smallest {
        DateTimeField::Day => 86_400,
        DateTimeField::Hour => 3_600,
        DateTimeField::Minute => 60,
        _ => 1,
    };
    let sum = sum.checked_mul(seconds)?;
    Some(if fraction.is_empty() { format!("{sign}{sum}") } else { format!("{sign}{sum}.{fraction}") })
}

/// Whether two spans have an instant in common, their ends included. Each is two times, in any order, or a time and an interval.
pub(super) fn overlaps(left: &Expr, right: &Expr) -> SqlResult<Expr> {
    let ((from, to), (other_from, other_to)) = (ends(left)?, ends(right)?);
    let reaches = binary(to, BinaryOperator::GtEq, other_from);
    let is_reached = binary(other_to, BinaryOperator::GtEq, from);
    Ok(Expr::Nested(Box::new(binary(reaches, BinaryOperator::And, is_reached))))
}

/// The earlier and the later end of a span.
fn ends(span: &Expr) -> SqlResult<(Expr, Expr)> {
    let Expr::Tuple(parts) = span else {
        return Err(wrong_span(span));
    };
    let [start, end] = parts.as_slice() else { return Err(wrong_span(span)) };
    let end = match end {
        Expr::Interval(_) => binary(start.clone(), BinaryOperator::Plus, end.clone()),
        other => other.clone(),
    };
    let in_order = || binary(start.clone(), BinaryOperator::LtEq, end.clone());
    Ok((case(in_order(), start.clone(), end.clone()), case(in_order(), end.clone(), start.clone())))
}

fn wrong_span(span: &Expr) -> SqlError {
    SqlError::new(format!("{span} is no span of time")).at(span.span()).help("(start, end) OVERLAPS (start, INTERVAL '1' HOUR)")
}

pub(super) fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up() {
        use DateTimeField::{Day, Hour, Minute, Month, Second, Year};
        let of = |written: &str, from: DateTimeField, to: DateTimeField| {
            let units = units(&MONTHS, &from, &to).or_else(|| units(&SECONDS, &from, &to))?;
            total(written, units)
        };
        assert_eq!(of("1-6", Year, Month).as_deref(), Some("18"));
        assert_eq!(of("-1-6", Year, Month).as_deref(), Some("-18"));
        assert_eq!(of("1 2", Day, Hour).as_deref(), Some("93600"));
        assert_eq!(of("1 2:03", Day, Minute).as_deref(), Some("93780"));
        assert_eq!(of("1 02:03:04.5", Day, Second).as_deref(), Some("93784.5"));
        assert_eq!(of("36:30", Hour, Minute).as_deref(), Some("131400"));
        assert_eq!(of("1:00:01", Hour, Second).as_deref(), Some("3601"));
        assert_eq!(of("-1:30", Minute, Second).as_deref(), Some("-90"));
        for (wrong, from, to) in [
            ("1", Day, Hour),
            ("1 24", Day, Hour),
            ("1:60", Minute, Second),
            ("1-12", Year, Month),
            ("1 x", Day, Hour),
            ("1 +2", Day, Hour),
            ("1.5:30", Minute, Second),
            ("1:2.x", Minute, Second),
            ("1:2:3", Minute, Second),
            ("99999999999999999 1", Day, Hour),
            ("1", Hour, Day),
            ("1-1", Year, Day),
        ] {
            assert_eq!(of(wrong, from, to), None, "{wrong}");
        }
    }
}
