//! Windows that the clock makes, as users describe them: tumbling, sliding, cumulative. What they reduce to is in `layout.rs`.
//!
//! Invariant: a description says nothing that its [`SliceLayout`] does not.

pub use super::layout::{Slice, SliceLayout};
pub(crate) use super::layout::{Window, saturate};
use crate::error::Result;
use crate::observe::human_duration;
use crate::time::millis;
use std::time::Duration;

/// Describes windows; the operator works on the [`SliceLayout`] they reduce to.
pub trait WindowAssigner {
    /// The windows as slices.
    ///
    /// # Errors
    /// Sizes that make no sense.
    fn layout(&self) -> Result<SliceLayout>;
    /// For `explain`.
    fn describe(&self) -> String;
}

/// Windows side by side: `[offset + n * size, offset + (n + 1) * size)`.
///
/// ```
/// use std::time::Duration;
/// use waterwheel_engine::windowing::{Tumbling, WindowAssigner};
/// let hourly = Tumbling::of(Duration::from_secs(3600));
/// assert_eq!(hourly.describe(), "tumbling 1h");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tumbling {
    size: Duration,
    offset_ms: i64,
}

impl Tumbling {
    /// Windows of this size, aligned to 1970-01-01T00:00Z.
    pub fn of(size: Duration) -> Self {
        Tumbling { size, offset_ms: 0 }
    }

    /// Moves every window by some milliseconds, forward or back.
    #[must_use]
    pub fn offset_ms(mut self, ms: i64) -> Self {
        self.offset_ms = ms;
        self
    }
}

impl WindowAssigner for Tumbling {
    fn layout(&self) -> Result<SliceLayout> {
        SliceLayout::new(millis(self.size), millis(self.size), self.offset_ms)
    }

    fn describe(&self) -> String {
        format!("tumbling {}", human_duration(self.size))
    }
}

/// Windows of one size that start every so often and overlap.
///
/// ```
/// use std::time::Duration;
/// use waterwheel_engine::windowing::{Sliding, WindowAssigner};
/// let windows = Sliding::of(Duration::from_secs(300)).every(Duration::from_secs(10));
/// assert_eq!(windows.describe(), "sliding 5m/10s");
/// assert_eq!(windows.layout().unwrap().slices_per_window(), 30);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sliding {
    size: Duration,
    slide: Duration,
    offset_ms: i64,
}

impl Sliding {
    /// Windows of this size; say how often one starts with [`every`](Sliding::every).
    pub fn of(size: Duration) -> Self {
        Sliding { size, slide: size, offset_ms: 0 }
    }

    /// A window starts every `slide`.
    #[must_use]
    pub fn every(mut self, slide: Duration) -> Self {
        self.slide = slide;
        self
    }

    /// Moves every window by some milliseconds, forward or back.
    #[must_use]
    pub fn offset_ms(mut self, ms: i64) -> Self {
        self.offset_ms = ms;
        self
    }
}

impl WindowAssigner for Sliding {
    fn layout(&self) -> Result<SliceLayout> {
        SliceLayout::new(millis(self.size), millis(self.slide), self.offset_ms)
    }

    fn describe(&self) -> String {
        format!("sliding {}/{}", human_duration(self.size), human_duration(self.slide))
    }
}

/// Windows that grow in steps up to their size, then begin anew: today so far, every hour.
///
/// ```
/// use std::time::Duration;
/// use waterwheel_engine::windowing::{Cumulative, WindowAssigner};
/// let hour = Duration::from_secs(3600);
/// let today = Cumulative::of(24 * hour).every(hour);
/// assert_eq!(today.describe(), "cumulative 1d/1h");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cumulative {
    size: Duration,
    step: Duration,
    offset_ms: i64,
}

impl Cumulative {
    /// Windows that grow to this size; say in which steps with [`every`](Cumulative::every).
    pub fn of(size: Duration) -> Self {
        Cumulative { size, step: size, offset_ms: 0 }
    }

    /// A window ends every `step`, which divides the size.
    #[must_use]
    pub fn every(mut self, step: Duration) -> Self {
        self.step = step;
        self
    }

    /// Moves every window by some milliseconds, forward or back.
    #[must_use]
    pub fn offset_ms(mut self, ms: i64) -> Self {
        self.offset_ms = ms;
        self
    }
}

impl WindowAssigner for Cumulative {
    fn layout(&self) -> Result<SliceLayout> {
        SliceLayout::cumulative(millis(self.size), millis(self.step), self.offset_ms)
    }

    fn describe(&self) -> String {
        format!("cumulative {}/{}", human_duration(self.size), human_duration(self.step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused() {
        assert!(Tumbling::of(Duration::ZERO).layout().is_err());
        assert!(Sliding::of(Duration::from_secs(1)).every(Duration::from_secs(2)).layout().is_err());
        assert!(Cumulative::of(Duration::from_secs(5)).every(Duration::from_secs(2)).layout().is_err());
    }
}
