//! Watermark strategies: how far event time has come, judged per source split.
//!
//! Invariant: a generator's watermark never goes back; the source merges its splits by minimum.

use super::{EventTime, millis};
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

/// Watches the times of one split and says how far event time has come.
///
/// Called by the source operator only, in the split's order. Its state is the last watermark, which the checkpoint keeps:
/// after a restore the generator is made anew and the source never emits below the restored watermark.
pub trait WatermarkGenerator: Send {
    /// Sees the times of one batch.
    fn observe(&mut self, times: &[EventTime]);
    /// Sees one batch whole: a `Rows<T>` of the source's type, for generators that look into rows.
    fn observe_rows(&mut self, _rows: &dyn Any, times: &[EventTime]) {
        self.observe(times);
    }
    /// The watermark after all that was observed; [`EventTime::MIN`] before the first row.
    fn watermark(&self) -> EventTime;
}

/// Makes one generator per split, and says when a silent split stops holding the others back.
#[derive(Clone)]
pub struct WatermarkStrategy {
    make: Arc<dyn Fn() -> Box<dyn WatermarkGenerator> + Send + Sync>,
    idle_after: Option<Duration>,
    describe: String,
}

impl std::fmt::Debug for WatermarkStrategy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.describe)
    }
}

impl WatermarkStrategy {
    /// Rows may be up to `bound` out of order: watermark = highest time - bound - 1 ms.
    pub fn out_of_order(bound: Duration) -> Self {
        let bound_ms = millis(bound);
        Self::custom(format!("{} out of order", super::human_duration(bound)), move || Box::new(BoundedOutOfOrder::new(bound_ms)))
    }

    /// Times never go back within a split.
    pub fn monotonous() -> Self {
        Self::custom("monotonous", || Box::new(Monotonous::default()))
    }

    /// A generator of the user's own, one per split.
    pub fn custom(describe: impl Into<String>, make: impl Fn() -> Box<dyn WatermarkGenerator> + Send + Sync + 'static) -> Self {
        WatermarkStrategy { make: Arc::new(make), idle_after: None, describe: describe.into() }
    }

    /// A split without rows for this long (processing time) no longer holds the watermark back. Output then depends on
    /// processing time: `explain` shows the class.
    #[must_use]
    pub fn idle_after(mut self, d: Duration) -> Self {
        self.idle_after = Some(d);
        self
    }

    /// One generator for one split.
    pub fn generator(&self) -> Box<dyn WatermarkGenerator> {
        (self.make)()
    }

    /// The idle timeout, if any.
    pub fn idle_timeout(&self) -> Option<Duration> {
        self.idle_after
    }

    /// For `explain`.
    pub fn describe(&self) -> &str {
        &self.describe
    }
}

/// Watermark = highest time seen - bound - 1 ms.
#[derive(Debug)]
pub struct BoundedOutOfOrder {
    bound_ms: i64,
    highest: Option<EventTime>,
}

impl BoundedOutOfOrder {
    /// Rows may be up to `bound_ms` milliseconds behind the highest one.
    pub fn new(bound_ms: i64) -> Self {
        BoundedOutOfOrder { bound_ms, highest: None }
    }
}

impl WatermarkGenerator for BoundedOutOfOrder {
    fn observe(&mut self, times: &[EventTime]) {
        self.highest = self.highest.max(times.iter().copied().max());
    }

    fn watermark(&self) -> EventTime {
        self.highest.map_or(EventTime::MIN, |t| t.minus_ms(self.bound_ms).minus_ms(1))
    }
}

/// Watermark = last time seen - 1 ms.
#[derive(Debug, Default)]
pub struct Monotonous {
    highest: Option<EventTime>,
}

impl WatermarkGenerator for Monotonous {
    fn observe(&mut self, times: &[EventTime]) {
        self.highest = self.highest.max(times.iter().copied().max());
    }

    fn watermark(&self) -> EventTime {
        self.highest.map_or(EventTime::MIN, |t| t.minus_ms(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watermark_never_passes_a_row_still_allowed() {
        let mut g = WatermarkStrategy::out_of_order(Duration::from_millis(5)).generator();
        assert_eq!(g.watermark(), EventTime::MIN);
        g.observe(&[EventTime(10), EventTime(7)]);
        assert_eq!(g.watermark(), EventTime(4));
        g.observe(&[EventTime(3)]);
        assert_eq!(g.watermark(), EventTime(4), "a late row does not pull it back");
    }

    #[test]
    fn extreme_times_saturate() {
        let mut g = BoundedOutOfOrder::new(1000);
        g.observe(&[EventTime::MIN]);
        assert_eq!(g.watermark(), EventTime::MIN);
    }
}
