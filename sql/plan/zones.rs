//! The time zone of a session: what a `TIMESTAMP_LTZ`, which is an instant, is on a clock on the wall.
//!
//! Instants are kept, compared and written in UTC whatever the zone is. It counts where an instant becomes something local or the
//! other way: in casts, in the parts of a date, in windows' bounds and alignment, in functions of the clock and of Unix time.
//!
//! A local time that a clock shows twice is the first of the two instants; one that it skips is as long behind the gap as it is
//! behind its beginning: as in Java.
//!
//! Invariant: the pass comes behind the planner's own, which has made every conversion a cast; in UTC nothing changes but casts that are not as the planner has them.

use super::functions::{ScalarFunction, known, replaced};
use super::tvf::{WindowKind, Windows};
use crate::error::{SqlError, SqlResult};
use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::compute::cast as cast_column;
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMillisecondType};
use chrono::{DateTime, FixedOffset, Offset, TimeZone};
use chrono_tz::Tz;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{DFSchema, Result};
use datafusion_expr::expr::ScalarFunction as Call;
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::utils::merge_schema;
use datafusion_expr::{Expr, ExprSchemable, LogicalPlan, ScalarUDF, cast, lit};
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// A zone's clock can change at each quarter of an hour, and no more often.
const QUARTER_MS: i64 = 900_000;
const LOCAL: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);

fn instant_type() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

/// A zone other than UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Zone {
    /// By its name: `Europe/Berlin`.
    Named(Tz),
    /// So many seconds ahead of UTC: `GMT+01:00`.
    Fixed(i32),
}

impl PartialOrd for Zone {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.to_string().cmp(&other.to_string()))
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Zone::Named(zone) => f.write_str(zone.name()),
            Zone::Fixed(seconds) => match FixedOffset::east_opt(*seconds) {
                Some(offset) => write!(f, "GMT{offset}"),
                None => write!(f, "GMT{seconds:+}s"),
            },
        }
    }
}

impl Zone {
    /// The zone of a name; none for UTC by any of its own.
    ///
    /// # Errors
    /// No such zone.
    pub(crate) fn of(name: &str) -> SqlResult<Option<Zone>> {
        let unknown = || SqlError::new(format!("'{name}' is no time zone")).help("'UTC', 'Europe/Berlin' or 'GMT+01:00'");
        if ["UTC", "GMT", "Z", "UT"].iter().any(|utc| utc.eq_ignore_ascii_case(name)) {
            return Ok(None);
        }
        let offset = ["GMT", "UTC", ""].iter().find_map(|prefix| name.strip_prefix(prefix).filter(|rest| rest.starts_with(['+', '-'])));
        if let Some(offset) = offset {
            let seconds = offset_seconds(offset).ok_or_else(unknown)?;
            return Ok((seconds != 0).then_some(Zone::Fixed(seconds)));
        }
        match name.parse::<Tz>() {
            Ok(Tz::UTC | Tz::Etc__UTC | Tz::GMT | Tz::Etc__GMT) => Ok(None),
            Ok(zone) => Ok(Some(Zone::Named(zone))),
            Err(_) => Err(unknown().nearest(name, chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()))),
        }
    }

    /// By how much its clock is ahead of UTC at an instant; nothing beyond the calendar.
    fn ahead_ms(self, instant_ms: i64) -> Option<i64> {
        let seconds = match self {
            Zone::Fixed(seconds) => seconds,
            Zone::Named(zone) => {
                zone.offset_from_utc_datetime(&DateTime::from_timestamp_millis(instant_ms)?.naive_utc()).fix().local_minus_utc()
            }
        };
        Some(i64::from(seconds) * 1000)
    }

    /// What its clock shows at an instant, in milliseconds as if it were UTC.
    pub(crate) fn local_ms(self, instant_ms: i64) -> Option<i64> {
        instant_ms.checked_add(self.ahead_ms(instant_ms)?)
    }

    /// The instant at which its clock shows a time.
    fn instant_ms(self, local_ms: i64) -> Option<i64> {
        // What the clock was ahead by the day before and will be the day after: where both are the same nothing happens between.
        let (before, after) = (self.ahead_ms(local_ms.checked_sub(DAY_MS)?)?, self.ahead_ms(local_ms.checked_add(DAY_MS)?)?);
        let (early, late) = (local_ms.checked_sub(before)?, local_ms.checked_sub(after)?);
        let shows = |instant: i64| self.local_ms(instant) == Some(local_ms);
        // Shown by neither it is in a gap: as far behind the change as the old clock would be.
        Some(if !shows(early) && shows(late) { late } else { early })
    }

    /// The last instant at which its clock shows a time: of one that it shows twice the second, of one that it skips as long
    /// behind the gap.
    pub(crate) fn last_instant_ms(self, local_ms: i64) -> Option<i64> {
        let after = self.ahead_ms(local_ms.checked_add(DAY_MS)?)?;
        let (first, late) = (self.instant_ms(local_ms)?, local_ms.checked_sub(after)?);
        Some(if self.local_ms(late) == Some(local_ms) { first.max(late) } else { first })
    }

    /// Windows that begin on its clock as they would in UTC: with their first beginning where that is in UTC, as long as the clock
    /// changes by nothing that would make them unequal; else cut by the clock.
    fn aligned(self, windows: Windows) -> Windows {
        let every = match windows.kind {
            WindowKind::Session => return windows,
            WindowKind::Cumulative => windows.size_ms,
            WindowKind::Sliding => windows.slide_ms,
        };
        // Each month from 2000 on: before, some zones had other rules.
        let months = (366..12 * 100).filter_map(|month| self.ahead_ms(month * 30 * DAY_MS));
        let mut ahead: Vec<i64> = months.map(|ahead| ahead.rem_euclid(every)).collect();
        ahead.dedup();
        match ahead.as_slice() {
            [always] => Windows { offset_ms: windows.offset_ms - always, ..windows },
            _ => Windows { by_zone: true, ..windows },
        }
    }

    /// The windows of a time of this type, where the session is in this zone.
    pub(super) fn windows(zone: Option<Zone>, windows: Windows, of: &DataType) -> Windows {
        match zone {
            Some(zone) if is_instant(of) => Windows { zone: Some(zone), ..zone.aligned(windows) },
            _ => windows,
        }
    }
}

const DAY_MS: i64 = 86_400_000;

/// `+01:00`, `-8`, `+0530`.
fn offset_seconds(text: &str) -> Option<i32> {
    let (sign, rest) = text.split_at_checked(1)?;
    let digits: String = rest.chars().filter(|c| *c != ':').collect();
    let (hours, minutes) = if digits.len() > 2 { digits.split_at(digits.len() - 2) } else { (digits.as_str(), "0") };
    let is_number = |text: &str| !text.is_empty() && text.len() <= 2 && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(hours) || !is_number(minutes) {
        return None;
    }
    let (hours, minutes) = (hours.parse::<i32>().ok()?, minutes.parse::<i32>().ok()?);
    let seconds = (hours * 60 + minutes) * 60;
    (minutes < 60 && hours <= 18).then_some(if sign == "-" { -seconds } else { seconds })
}

/// Whether a type is TIMESTAMP_LTZ.
fn is_instant(kind: &DataType) -> bool {
    matches!(kind, DataType::Timestamp(_, Some(_)))
}

/// Expressions as a session in a zone means them.
pub(super) struct Zoned {
    /// None = UTC.
    zone: Option<Clock>,
}

/// A zone, with the functions to what its clock shows and back.
struct Clock {
    zone: Zone,
    local: Arc<ScalarUDF>,
    instant: Arc<ScalarUDF>,
}

impl Zoned {
    /// None = UTC.
    pub(super) fn of(zone: Option<Zone>) -> Self {
        Zoned { zone: zone.map(|zone| Clock { zone, local: Arc::new(shift(zone, true)), instant: Arc::new(shift(zone, false)) }) }
    }

    /// The plan with all its expressions.
    ///
    /// # Errors
    /// Expressions without a type.
    pub(super) fn plan(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let done = plan.transform_up_with_subqueries(|plan| {
            let schema = merge_schema(&plan.inputs());
            let names = NamePreserver::new(&plan);
            let mapped = plan.map_expressions(|expr| {
                let name = names.save(&expr);
                Ok(self.expr(expr, &schema)?.update_data(|expr| name.restore(expr)))
            })?;
            if mapped.transformed { mapped.map_data(LogicalPlan::recompute_schema) } else { Ok(mapped) }
        });
        done.map(|done| done.data)
    }

    /// An expression over columns of a schema.
    ///
    /// # Errors
    /// Expressions without a type.
    pub(super) fn expr(&self, expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        expr.transform_up(|expr| self.part(expr, schema))
    }

    fn part(&self, expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let zone = self.zone.as_ref().map(|clock| clock.zone);
        if let Some(other) = replaced(&expr, schema, zone)? {
            return Ok(Transformed::yes(other));
        }
        match &expr {
            Expr::ScalarFunction(call) if self.zone.is_some() => Ok(match self.call(call, schema)? {
                Some(other) => Transformed::yes(other),
                None => Transformed::no(expr),
            }),
            _ => Ok(Transformed::no(expr)),
        }
    }

    /// A call that means something else in the zone.
    fn call(&self, call: &Call, schema: &DFSchema) -> Result<Option<Expr>> {
        let at = |args: &[Expr], i: usize| args.get(i).map(|arg| arg.get_type(schema)).transpose();
        let of = |name: &str, args: Vec<Expr>| known(name).map(|f| Expr::ScalarFunction(Call::new_udf(f, args)));
        let now = || of("current_timestamp", Vec::new()).map(|now| self.local(&now));
        Ok(match call.name() {
            "floor_time" | "ceil_time" if at(&call.args, 1)?.as_ref().is_some_and(is_instant) => {
                let args = call.args.iter().enumerate().map(|(i, arg)| if i == 1 { self.local(arg) } else { arg.clone() }).collect();
                Some(self.instant(Expr::ScalarFunction(Call::new_udf(call.func.clone(), args))))
            }
            "extract" if at(&call.args, 1)?.as_ref().is_some_and(is_instant) => {
                let args = call.args.iter().enumerate().map(|(i, arg)| if i == 1 { self.local(arg) } else { arg.clone() }).collect();
                Some(Expr::ScalarFunction(Call::new_udf(call.func.clone(), args)))
            }
            "localtimestamp" => now(),
            "current_date" => now().map(|now| cast(now, DataType::Date32)),
            "localtime" | "current_time" => now().map(|now| cast(now, DataType::Time32(TimeUnit::Millisecond))),
            "unix_timestamp" => of("to_timestamp", call.args.clone())
                .map(|local| Expr::ScalarFunction(Call::new_udf(Arc::new(to_seconds()), vec![self.instant(local)]))),
            "from_unixtime" => {
                let seconds = of("to_timestamp_ltz", vec![cast(call.args[0].clone(), DataType::Int64), lit(0i64)]);
                let pattern = call.args.get(1).cloned().unwrap_or_else(|| lit("yyyy-MM-dd HH:mm:ss"));
                seconds.and_then(|seconds| of("date_format", vec![self.local(&seconds), pattern]))
            }
            _ => None,
        })
    }

    fn local(&self, instant: &Expr) -> Expr {
        match &self.zone {
            Some(clock) => Expr::ScalarFunction(Call::new_udf(clock.local.clone(), vec![cast(instant.clone(), instant_type())])),
            None => cast(instant.clone(), LOCAL),
        }
    }

    fn instant(&self, local: Expr) -> Expr {
        match &self.zone {
            Some(clock) => Expr::ScalarFunction(Call::new_udf(clock.instant.clone(), vec![local])),
            None => cast(local, instant_type()),
        }
    }
}

/// Instants to what the zone's clock shows, or the other way.
fn shift(zone: Zone, to_local: bool) -> ScalarUDF {
    let (name, from, to) = match to_local {
        true => (format!("local of {zone}"), instant_type(), LOCAL),
        false => (format!("instant in {zone}"), LOCAL, instant_type()),
    };
    ScalarUDF::from(ScalarFunction::new(&name, vec![from], to, move |args| shifted(&args[0], Some(zone), to_local)))
}

/// How many of a unit are a second.
pub(super) fn in_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// Instants of any unit as what the zone's clock shows, or the other way; none = UTC.
///
/// # Errors
/// Times beyond the calendar.
pub(super) fn shifted(times: &ArrayRef, zone: Option<Zone>, to_local: bool) -> std::result::Result<ArrayRef, String> {
    let DataType::Timestamp(unit, _) = times.data_type() else { return Err(format!("{} is no time", times.data_type())) };
    let (kind, in_second) = (DataType::Timestamp(*unit, (!to_local).then(|| "UTC".into())), in_second(*unit));
    let as_kind = |numbers: &ArrayRef| cast_column(numbers, &kind).map_err(|e| e.to_string());
    let numbers = cast_column(times, &DataType::Int64).map_err(|e| e.to_string())?;
    let Some(zone) = zone else { return as_kind(&numbers) };
    let mut known: Option<(i64, i64)> = None;
    // Clocks change at whole seconds.
    let mut by_ms = |ms: i64| {
        if !to_local {
            return zone.instant_ms(ms)?.checked_sub(ms);
        }
        let quarter = ms.div_euclid(QUARTER_MS);
        match known {
            Some((same, ahead)) if same == quarter => Some(ahead),
            _ => {
                let start = quarter.checked_mul(QUARTER_MS).and_then(|start| zone.ahead_ms(start));
                let end = (quarter + 1).checked_mul(QUARTER_MS).and_then(|end| zone.ahead_ms(end - 1));
                known = start.filter(|_| start == end).map(|ahead| (quarter, ahead));
                zone.ahead_ms(ms)
            }
        }
    };
    let mut one = |time: i64| {
        let by_ms = by_ms(time.div_euclid(in_second).checked_mul(1000)?)?;
        time.checked_add((by_ms / 1000).checked_mul(in_second)?)
    };
    let beyond = |time: i64| format!("{} s since 1970 are beyond the calendar of {zone}", time.div_euclid(in_second));
    let shifted = numbers.as_primitive::<Int64Type>().iter().map(|time| time.map(|time| one(time).ok_or_else(|| beyond(time))).transpose());
    as_kind(&(Arc::new(shifted.collect::<std::result::Result<Int64Array, String>>()?) as ArrayRef))
}

/// Instants to whole seconds since 1970.
fn to_seconds() -> ScalarUDF {
    let function = ScalarFunction::new("seconds of", vec![instant_type()], DataType::Int64, |args| {
        let times = args[0].as_primitive::<TimestampMillisecondType>();
        Ok(Arc::new(times.iter().map(|ms| ms.map(|ms| ms.div_euclid(1000))).collect::<Int64Array>()))
    });
    ScalarUDF::from(function)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> i64 {
        chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap().and_utc().timestamp_millis()
    }

    #[test]
    fn clocks_that_change() {
        let berlin = Zone::of("Europe/Berlin").unwrap().unwrap();
        for (utc, local) in [
            ("2024-01-01 12:00", "2024-01-01 13:00"),
            ("2024-03-31 00:59", "2024-03-31 01:59"),
            ("2024-03-31 01:00", "2024-03-31 03:00"),
            ("2024-10-27 00:30", "2024-10-27 02:30"),
            ("2024-10-27 01:30", "2024-10-27 02:30"),
            ("2024-10-27 02:00", "2024-10-27 03:00"),
        ] {
            assert_eq!(berlin.local_ms(ms(utc)), Some(ms(local)), "{utc}");
        }
        for (local, utc) in [
            ("2024-01-01 13:00", "2024-01-01 12:00"),
            ("2024-07-01 13:00", "2024-07-01 11:00"),
            // Skipped: an hour later than it says; shown twice: the first time.
            ("2024-03-31 02:30", "2024-03-31 01:30"),
            ("2024-03-31 03:00", "2024-03-31 01:00"),
            ("2024-10-27 02:30", "2024-10-27 00:30"),
            ("2024-10-27 03:00", "2024-10-27 02:00"),
        ] {
            assert_eq!(berlin.instant_ms(ms(local)), Some(ms(utc)), "{local}");
        }
        for (local, utc) in [
            ("2024-01-01 13:00", "2024-01-01 12:00"),
            ("2024-03-31 02:30", "2024-03-31 01:30"),
            ("2024-10-27 01:59", "2024-10-26 23:59"),
            ("2024-10-27 02:30", "2024-10-27 01:30"),
            ("2024-10-27 03:00", "2024-10-27 02:00"),
        ] {
            assert_eq!(berlin.last_instant_ms(ms(local)), Some(ms(utc)), "{local}");
        }
    }

    #[test]
    fn zones_have_names_and_numbers() {
        for utc in ["UTC", "utc", "GMT", "Z", "Etc/UTC", "GMT+0", "+00:00"] {
            assert_eq!(Zone::of(utc).unwrap(), None, "{utc}");
        }
        for (name, seconds) in [("GMT+01:00", 3600), ("UTC-8", -28_800), ("+0530", 19_800), ("-03:30", -12_600)] {
            assert_eq!(Zone::of(name).unwrap(), Some(Zone::Fixed(seconds)), "{name}");
        }
        for wrong in ["", "Europe/Berln", "GMT+19", "+1:75", "CEST2", "+"] {
            assert!(Zone::of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn windows_are_on_the_hours_of_the_zone() {
        let windows = |size_ms| Windows {
            kind: WindowKind::Sliding,
            size_ms,
            slide_ms: size_ms,
            offset_ms: 0,
            of_clock: false,
            zone: None,
            by_zone: false,
        };
        let offset = |zone: &str, size_ms| Zone::of(zone).unwrap().unwrap().aligned(windows(size_ms));
        let offset = |zone: &str, size_ms| Some(offset(zone, size_ms)).filter(|w| !w.by_zone).map(|w| w.offset_ms);
        let hour = 3_600_000;
        assert_eq!(offset("Europe/Berlin", hour), Some(0));
        assert_eq!(offset("Europe/Berlin", 24 * hour), None);
        assert_eq!(offset("Asia/Kolkata", hour), Some(-hour / 2));
        assert_eq!(offset("GMT+08:00", 24 * hour), Some(-8 * hour));
        assert_eq!(offset("America/New_York", 60_000), Some(0));
    }
}
