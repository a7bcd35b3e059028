//! Days, weeks and months as people count them: in a time zone, across changes of its clock.
//!
//! A day begins when its midnight first strikes; where the clock jumps over midnight, at the jump. So a day may have 23 or 25
//! hours, and days lie side by side without a gap even where the clock goes back across midnight. A date that a zone left out
//! has no window. The rules of all zones are compiled in, so that every machine cuts the same windows.
//!
//! Invariant: windows cover all of event time. Outside of the years 1 to 9998 there is one window before and one behind.

use super::assigner::{SliceLayout, Window, WindowAssigner};
use crate::error::{Error, Result};
use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeZone, Weekday};
use chrono_tz::Tz;

/// 0001-01-01 and 9999-01-01, UTC, in milliseconds.
const BEGIN: i128 = -62_135_596_800_000;
const END: i128 = 253_370_764_800_000;

/// What a window is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Day,
    /// From this day on.
    Week(Weekday),
    Month,
}

/// Windows of a day, a week or a month; in UTC unless a zone is named.
///
/// ```
/// use waterwheel_engine::windowing::{Calendar, WindowAssigner};
/// let days = Calendar::day().in_zone("Europe/Berlin")?;
/// assert_eq!(WindowAssigner::describe(&days), "day in Europe/Berlin");
/// assert!(Calendar::day().in_zone("Europe/Entenhausen").is_err());
/// # Ok::<(), waterwheel_engine::error::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calendar {
    unit: Unit,
    zone: Tz,
}

impl Calendar {
    fn of(unit: Unit) -> Self {
        Calendar { unit, zone: Tz::UTC }
    }

    /// A window a day.
    pub fn day() -> Self {
        Self::of(Unit::Day)
    }

    /// A window a week, from Monday on.
    pub fn week() -> Self {
        Self::week_from(Weekday::Mon)
    }

    /// A window a week, from this day on.
    pub fn week_from(day: Weekday) -> Self {
        Self::of(Unit::Week(day))
    }

    /// A window a month.
    pub fn month() -> Self {
        Self::of(Unit::Month)
    }

    /// In this zone of the IANA database: `Europe/Berlin`.
    ///
    /// # Errors
    /// No zone has that name.
    pub fn in_zone(mut self, name: &str) -> Result<Self> {
        self.zone = name.parse().map_err(|_| {
            Error::fatal(format!("there is no time zone {name:?}")).help("use a name of the IANA database, as Europe/Berlin or UTC")
        })?;
        Ok(self)
    }

    /// The window that holds an instant, in milliseconds; beyond the range of event time, one outside of it.
    pub(crate) fn window_of(&self, t: i128) -> Window {
        if t < BEGIN {
            return Window { first: i128::from(i64::MIN).min(t), last: BEGIN - 1 };
        }
        if t >= END {
            let last = i128::from(i64::MAX);
            return if t <= last { Window { first: END, last } } else { Window { first: last + 1, last: i128::MAX / 2 } };
        }
        let mut date = self.local_date(t);
        // The date at hand may begin later (the clock went back across its midnight), and dates that were left out are empty.
        while date.start(self) > t {
            date = date.step(-1);
        }
        let mut next = date.step(1);
        while next.start(self) <= t {
            next = next.step(1);
        }
        Window { first: next.step(-1).start(self).max(BEGIN), last: next.start(self).min(END) - 1 }
    }

    /// The first day of the window by the clock on the wall.
    fn local_date(&self, t: i128) -> Date {
        let utc = DateTime::from_timestamp_millis(t as i64).unwrap_or_default().naive_utc();
        let local = self.zone.from_utc_datetime(&utc).date_naive();
        let date = match self.unit {
            Unit::Day => local,
            Unit::Week(from) => local - Days::new(u64::from(local.weekday().days_since(from))),
            Unit::Month => local.with_day(1).unwrap_or(local),
        };
        Date { date, unit: self.unit }
    }
}

impl WindowAssigner for Calendar {
    fn layout(&self) -> Result<SliceLayout> {
        Ok(SliceLayout::calendar(*self))
    }

    fn describe(&self) -> String {
        let unit = match self.unit {
            Unit::Day => "day".to_string(),
            Unit::Week(Weekday::Mon) => "week".to_string(),
            Unit::Week(from) => format!("week from {from}"),
            Unit::Month => "month".to_string(),
        };
        format!("{unit} in {}", self.zone)
    }
}

/// The first day of a window.
#[derive(Debug, Clone, Copy)]
struct Date {
    date: NaiveDate,
    unit: Unit,
}

impl Date {
    /// The first day of the window after (or before) it.
    fn step(self, by: i32) -> Date {
        let days = |n: i64| self.date.checked_add_signed(chrono::TimeDelta::days(n));
        let date = match self.unit {
            Unit::Day => days(i64::from(by)),
            Unit::Week(_) => days(7 * i64::from(by)),
            Unit::Month => {
                let months = self.date.year() * 12 + self.date.month0() as i32 + by;
                NaiveDate::from_ymd_opt(months.div_euclid(12), months.rem_euclid(12) as u32 + 1, 1)
            }
        };
        Date { date: date.unwrap_or(self.date), unit: self.unit }
    }

    /// When it begins, in milliseconds.
    fn start(self, calendar: &Calendar) -> i128 {
        midnight(calendar.zone, self.date)
    }
}

/// When a date begins in a zone: its midnight, the first of two, or the jump over it.
fn midnight(zone: Tz, date: NaiveDate) -> i128 {
    let local = date.and_time(NaiveTime::MIN);
    if let Some(at) = zone.from_local_datetime(&local).earliest() {
        return i128::from(at.timestamp_millis());
    }
    // The clock jumps over it. Offsets lie within 15 hours of UTC, so the jump is between these two.
    let offset = |ms: i64| zone.offset_from_utc_datetime(&utc(ms)).fix().local_minus_utc();
    let day = 86_400_000;
    let (mut before, mut after) = (local.and_utc().timestamp_millis() - 2 * day, local.and_utc().timestamp_millis() + day);
    let old = offset(before);
    while after - before > 1 {
        let middle = before + (after - before) / 2;
        if offset(middle) == old { before = middle } else { after = middle }
    }
    i128::from(after)
}

fn utc(ms: i64) -> NaiveDateTime {
    DateTime::from_timestamp_millis(ms).unwrap_or_default().naive_utc()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::EventTime;
    use proptest::prelude::*;

    fn window(calendar: Calendar, at: &str) -> (String, i64) {
        let t: DateTime<chrono::Utc> = at.parse().unwrap();
        let w = calendar.window_of(i128::from(t.timestamp_millis()));
        let start = DateTime::from_timestamp_millis(w.start().0).unwrap();
        (start.format("%FT%TZ").to_string(), (w.last + 1 - w.first) as i64 / 60_000)
    }

    fn day(zone: &str, at: &str) -> (String, i64) {
        window(Calendar::day().in_zone(zone).unwrap(), at)
    }

    /// Start in UTC and minutes of the day that holds an instant.
    #[test]
    fn days_follow_the_clock_on_the_wall() {
        let cases = [
            ("Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", 23 * 60),
            ("Europe/Berlin", "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", 25 * 60),
            ("Europe/Berlin", "2026-01-01T22:59:59Z", "2025-12-31T23:00:00Z", 24 * 60),
            ("Europe/Berlin", "2026-01-01T23:00:00Z", "2026-01-01T23:00:00Z", 24 * 60),
            ("Asia/Tashkent", "2026-03-29T18:59:59Z", "2026-03-28T19:00:00Z", 24 * 60), // +05:00, no summer time
            ("Asia/Kolkata", "2026-03-29T18:29:59Z", "2026-03-28T18:30:00Z", 24 * 60),
            ("Australia/Lord_Howe", "2026-04-04T16:00:00Z", "2026-04-04T13:00:00Z", 24 * 60 + 30), // half an hour
            ("America/Sao_Paulo", "2018-11-04T12:00:00Z", "2018-11-04T03:00:00Z", 23 * 60),        // midnight does not exist
            ("America/Sao_Paulo", "2018-11-04T02:59:59Z", "2018-11-03T03:00:00Z", 24 * 60),
            ("Pacific/Apia", "2011-12-30T09:59:59Z", "2011-12-29T10:00:00Z", 24 * 60), // the 30th was left out
            ("Pacific/Apia", "2011-12-30T10:00:00Z", "2011-12-30T10:00:00Z", 24 * 60),
            ("UTC", "1969-12-31T23:59:59Z", "1969-12-31T00:00:00Z", 24 * 60),
        ];
        for (zone, at, start, minutes) in cases {
            assert_eq!(day(zone, at), (start.to_string(), minutes), "{zone} {at}");
        }
    }

    #[test]
    fn weeks_and_months() {
        let berlin = |c: Calendar| c.in_zone("Europe/Berlin").unwrap();
        let hour = 60;
        assert_eq!(window(berlin(Calendar::month()), "2026-03-31T21:59:59Z"), ("2026-02-28T23:00:00Z".into(), (31 * 24 - 1) * hour));
        assert_eq!(window(berlin(Calendar::month()), "2026-03-31T22:00:00Z"), ("2026-03-31T22:00:00Z".into(), 30 * 24 * hour));
        assert_eq!(window(Calendar::month(), "2024-02-29T00:00:00Z"), ("2024-02-01T00:00:00Z".into(), 29 * 24 * hour));
        assert_eq!(window(berlin(Calendar::week()), "2026-03-25T00:00:00Z"), ("2026-03-22T23:00:00Z".into(), (7 * 24 - 1) * hour));
        assert_eq!(window(Calendar::week_from(Weekday::Sun), "2026-03-25T00:00:00Z"), ("2026-03-22T00:00:00Z".into(), 7 * 24 * hour));
        assert_eq!(WindowAssigner::describe(&Calendar::week_from(Weekday::Sun)), "week from Sun in UTC");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// Whatever zone and instant: windows hold their instants and lie side by side.
        #[test]
        fn windows_lie_side_by_side(
            zone in 0..chrono_tz::TZ_VARIANTS.len(),
            unit in 0usize..3,
            t in prop_oneof![any::<i64>(), -4_000_000_000_000i64..4_000_000_000_000, i64::MIN..i64::MIN + 9, i64::MAX - 9..=i64::MAX],
        ) {
            let unit = [Unit::Day, Unit::Week(Weekday::Mon), Unit::Month][unit];
            let calendar = Calendar { unit, zone: chrono_tz::TZ_VARIANTS[zone] };
            let mut w = calendar.window_of(i128::from(t));
            prop_assert!(w.holds(EventTime(t)));
            for _ in 0..40 {
                prop_assert_eq!(calendar.window_of(w.first), w);
                prop_assert_eq!(calendar.window_of(w.last), w);
                prop_assert!(w.first <= w.last);
                if w.last >= i128::from(i64::MAX) {
                    break;
                }
                let next = calendar.window_of(w.last + 1);
                prop_assert_eq!(next.first, w.last + 1);
                prop_assert!(next.last > w.last);
                w = next;
            }
        }
    }
}
