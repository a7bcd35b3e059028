//! Event time: when something happened, in signed 64-bit milliseconds since 1970 over the full range.
//!
//! Invariant: arithmetic saturates, division floors, so that negative and extreme times fall into the right window.

pub mod compact;
mod text;
mod watermark;

pub use text::plain_date_time;
pub use watermark::{BoundedOutOfOrder, Monotonous, WatermarkGenerator, WatermarkStrategy};

use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;
use std::time::Duration;

/// A point in event time, in milliseconds since the Unix epoch.
///
/// A watermark of `t` says: no row with a time `<= t` is still expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct EventTime(pub i64);

impl EventTime {
    /// Before everything: the watermark of a source that has read nothing.
    pub const MIN: EventTime = EventTime(i64::MIN);
    /// After everything: the watermark at the end of a bounded input.
    pub const MAX: EventTime = EventTime(i64::MAX);
    /// The years 1 to 9999. A time outside of them is a broken clock or another unit, and would push the watermark beyond
    /// every row to come: sources take rows of such times for bad records.
    pub const CALENDAR: RangeInclusive<EventTime> = EventTime(-62_135_596_800_000)..=EventTime(253_402_300_799_999);

    /// This time plus a number of milliseconds, saturating.
    pub fn plus_ms(self, ms: i64) -> Self {
        EventTime(self.0.saturating_add(ms))
    }

    /// This time minus a number of milliseconds, saturating.
    pub fn minus_ms(self, ms: i64) -> Self {
        EventTime(self.0.saturating_sub(ms))
    }

    /// The largest multiple of `step_ms` (shifted by `offset_ms`) that is not after this time; floors below zero too.
    ///
    /// ```
    /// use waterwheel_engine::time::EventTime;
    /// assert_eq!(EventTime(-1).floor_to(10, 0), EventTime(-10));
    /// assert_eq!(EventTime(25).floor_to(10, 3), EventTime(23));
    /// ```
    pub fn floor_to(self, step_ms: i64, offset_ms: i64) -> Self {
        debug_assert!(step_ms > 0);
        let wide = self.0 as i128 - offset_ms as i128;
        let floored = wide.div_euclid(step_ms as i128) * step_ms as i128 + offset_ms as i128;
        EventTime(floored.clamp(i64::MIN as i128, i64::MAX as i128) as i64)
    }
}

impl From<i64> for EventTime {
    fn from(ms: i64) -> Self {
        EventTime(ms)
    }
}

impl<Tz: chrono::TimeZone> From<chrono::DateTime<Tz>> for EventTime {
    fn from(at: chrono::DateTime<Tz>) -> Self {
        EventTime(at.timestamp_millis())
    }
}

/// A span in whole milliseconds, saturating.
pub fn millis(d: Duration) -> i64 {
    i64::try_from(d.as_millis()).unwrap_or(i64::MAX)
}

/// `5s`, `10m`, `1h30m`, `250ms`: durations as people type them.
///
/// ```
/// use std::time::Duration;
/// assert_eq!(waterwheel_engine::time::human_duration(Duration::from_millis(90_000)), "1m30s");
/// ```
pub fn human_duration(d: Duration) -> String {
    let ms = d.as_millis();
    if ms == 0 {
        return "0s".into();
    }
    let mut rest = ms;
    let mut text = String::new();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if rest >= size {
            text.push_str(&format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    text
}
