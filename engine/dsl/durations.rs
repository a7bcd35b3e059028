//! Spans of time and watermark strategies as jobs write them.
//!
//! Invariant: a span is a `std::time::Duration`; event time itself is whole milliseconds.

use crate::operators::guarded;
use crate::record::{Data, Rows};
use crate::time::{EventTime, WatermarkGenerator, WatermarkStrategy};
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

/// So many milliseconds.
pub const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// So many seconds.
///
/// ```
/// use waterwheel_engine::dsl::{mins, secs};
/// assert_eq!(mins(2), secs(120));
/// ```
pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// So many minutes.
pub const fn mins(n: u64) -> Duration {
    Duration::from_secs(60 * n)
}

/// So many hours.
pub const fn hours(n: u64) -> Duration {
    Duration::from_secs(3_600 * n)
}

/// So many days of 24 hours.
pub const fn days(n: u64) -> Duration {
    Duration::from_secs(86_400 * n)
}

/// Rows may be out of order: the watermark stays this far behind the highest time seen.
///
/// ```
/// use waterwheel_engine::dsl::{OutOfOrder, secs};
/// let strategy = OutOfOrder::by(secs(5)).idle_after(secs(60));
/// assert_eq!(strategy.describe(), "5s out of order");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct OutOfOrder;

impl OutOfOrder {
    /// By at most this much, within one split.
    pub fn by(bound: Duration) -> WatermarkStrategy {
        WatermarkStrategy::out_of_order(bound)
    }

    /// Not at all: times never go back within one split.
    pub fn never() -> WatermarkStrategy {
        WatermarkStrategy::monotonous()
    }
}

/// Some rows say how far event time has come: the last record of a file, a heartbeat, a bar that closes.
///
/// ```
/// use waterwheel_engine::dsl::Punctuated;
/// #[derive(Clone)]
/// struct Tick { at_ms: i64, closes: bool }
/// // No row of this split is earlier than one that closes.
/// let strategy = Punctuated::by(|tick: &Tick| tick.closes.then_some(tick.at_ms));
/// assert_eq!(strategy.describe(), "by marked rows");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Punctuated;

impl Punctuated {
    /// `mark` gives the watermark for rows that have one: no row of the split up to that time is expected behind it. `T` is
    /// the type of the source's rows. A row for which it panics says nothing.
    pub fn by<T: Data, E: Into<EventTime>>(mark: impl Fn(&T) -> Option<E> + Send + Sync + 'static) -> WatermarkStrategy {
        let mark: Mark<T> = Arc::new(move |row: &T| mark(row).map(Into::into));
        WatermarkStrategy::custom("by marked rows", move || Box::new(Marked { mark: mark.clone(), highest: EventTime::MIN }))
    }
}

type Mark<T> = Arc<dyn Fn(&T) -> Option<EventTime> + Send + Sync>;

struct Marked<T> {
    mark: Mark<T>,
    highest: EventTime,
}

impl<T: Data> WatermarkGenerator for Marked<T> {
    fn observe(&mut self, _times: &[EventTime]) {}

    fn observe_rows(&mut self, rows: &dyn Any, _times: &[EventTime]) {
        let Some(Rows { rows, .. }) = rows.downcast_ref::<Rows<T>>() else {
            panic!("Punctuated::by looks at rows of {}, but the source has others", std::any::type_name::<T>())
        };
        let each = |highest: &mut EventTime, i: usize| {
            *highest = (self.mark)(&rows[i]).map_or(*highest, |time| time.max(*highest));
            Ok(())
        };
        // A row that cannot be looked at leaves the watermark where it is: nothing becomes late by it.
        let _ = guarded(rows.len(), &mut self.highest, each, |_, _, _| Ok(()));
    }

    fn watermark(&self) -> EventTime {
        self.highest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marked_rows_say_how_far_time_has_come() {
        let strategy = Punctuated::by(|row: &i64| {
            assert!(*row != 13, "unlucky");
            (row % 10 == 0).then_some(*row)
        });
        let mut generator = strategy.generator();
        assert_eq!(generator.watermark(), EventTime::MIN);
        for (rows, watermark) in [(vec![7, 9], i64::MIN), (vec![13, 20, 5], 20), (vec![10], 20), (vec![21, 30], 30)] {
            let rows = Rows::new(rows.clone(), rows.into_iter().map(EventTime).collect());
            generator.observe_rows(&rows, &rows.times);
            assert_eq!(generator.watermark(), EventTime(watermark));
        }
    }
}
