//! Spans of time as jobs write them.
//!
//! Invariant: a span is a `std::time::Duration`; event time itself is whole milliseconds.

use crate::time::WatermarkStrategy;
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
