//! Which window a row belongs to: tumbling and sliding windows, cut into slices.
//!
//! Invariant: windows and slices cover the whole range of event time, also below zero and at both ends, where bounds
//! saturate. Every bound of a window is a bound of a slice, so a window is a whole number of slices.

use crate::error::{Error, Result};
use crate::observe::human_duration;
use crate::time::{EventTime, millis};
use std::time::Duration;

/// More slices than this in one window make each firing slower than anybody wants.
const MAX_SLICES: i64 = 100_000;

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

/// Windows of `size` every `slide` milliseconds, over slices of `width` = gcd(size, slide).
///
/// Slices and windows are named by their **last** instant (end - 1): that is what the watermark is compared with, and it
/// exists also where the last instant of time lies inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SliceLayout {
    size: i64,
    slide: i64,
    width: i64,
    /// In `0..slide`.
    offset: i64,
}

/// One slice: `first` and `last` instant, both inside; saturated at the ends of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// First instant.
    pub first: EventTime,
    /// Last instant; names the slice.
    pub last: EventTime,
}

impl Slice {
    /// Whether the slice holds `t`.
    #[inline]
    pub fn holds(self, t: EventTime) -> bool {
        self.first <= t && t <= self.last
    }
}

/// One window: `first` and `last` instant, both inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Window {
    /// End - 1, beyond the range of event time where the window is cut there.
    pub(crate) last: i128,
    /// Start, likewise.
    pub(crate) first: i128,
}

impl Window {
    /// The watermark at which the window is complete, and the time of its results.
    pub(crate) fn fires_at(self) -> EventTime {
        saturate(self.last)
    }
    /// First instant inside.
    pub(crate) fn start(self) -> EventTime {
        saturate(self.first)
    }
    /// First instant behind.
    pub(crate) fn end(self) -> EventTime {
        saturate(self.last + 1)
    }
    /// Whether `t` lies inside.
    pub(crate) fn holds(self, t: EventTime) -> bool {
        (self.first..=self.last).contains(&i128::from(t.0))
    }
}

pub(crate) fn saturate(t: i128) -> EventTime {
    EventTime(t.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64)
}

impl SliceLayout {
    /// All in milliseconds; `offset` moves every window.
    ///
    /// # Errors
    /// `size` or `slide` below 1 ms, `slide` above `size` (rows between windows would vanish), or so many slices per window
    /// that firing cannot keep up.
    pub fn new(size: i64, slide: i64, offset: i64) -> Result<Self> {
        let refuse = |what: String| Err(Error::fatal(what).at(format!("window of {size} ms every {slide} ms")));
        if size < 1 || slide < 1 {
            return refuse("a window has a size and a slide of at least 1 ms".into());
        }
        if slide > size {
            return refuse("the slide is larger than the window: rows in between would belong to none".into())
                .map_err(|e: Error| e.help("make the window as large as the slide, or filter these rows out before"));
        }
        let width = gcd(size, slide);
        if size / width > MAX_SLICES {
            return refuse(format!("a window is cut into {} slices, at most {MAX_SLICES} are allowed", size / width))
                .map_err(|e: Error| e.help("choose a slide that divides the size, or a larger slide"));
        }
        Ok(SliceLayout { size, slide, width, offset: offset.rem_euclid(slide) })
    }

    /// How many slices make a window.
    pub fn slices_per_window(&self) -> usize {
        (self.size / self.width) as usize
    }

    /// The slice that holds `t`.
    #[inline]
    pub fn slice_of(&self, t: EventTime) -> Slice {
        let into = t.0.rem_euclid(self.width) - self.offset % self.width;
        let into = if into < 0 { into + self.width } else { into };
        Slice { first: t.minus_ms(into), last: t.plus_ms(self.width - 1 - into) }
    }

    /// The first window that holds the slice that `t` lies in.
    pub(crate) fn first_window(&self, t: EventTime) -> Window {
        let width = i128::from(self.width);
        let slice = floor(i128::from(t.0), width, i128::from(self.offset));
        self.window_not_before(slice + width - 1)
    }

    /// The last window that holds the slice that `t` lies in; after it, the slice is of no use.
    pub(crate) fn last_window(&self, t: EventTime) -> Window {
        let first = floor(i128::from(t.0), i128::from(self.slide), i128::from(self.offset));
        Window { first, last: first + i128::from(self.size) - 1 }
    }

    /// The first window whose last instant is at or after `t`.
    pub(crate) fn window_not_before(&self, t: i128) -> Window {
        let (size, slide) = (i128::from(self.size), i128::from(self.slide));
        // last = offset + n * slide + size - 1 >= t, for the smallest n.
        let last = -floor(-(t), slide, -(i128::from(self.offset) + size - 1));
        Window { first: last + 1 - size, last }
    }

    /// The window after this one.
    pub(crate) fn next(&self, w: Window) -> Window {
        Window { first: w.first + i128::from(self.slide), last: w.last + i128::from(self.slide) }
    }

    /// Size of a window in milliseconds.
    pub(crate) fn size(&self) -> i64 {
        self.size
    }
}

/// The largest `offset + n * step` that is not above `t`.
fn floor(t: i128, step: i128, offset: i128) -> i128 {
    (t - offset).div_euclid(step) * step + offset
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn times() -> impl Strategy<Value = i64> {
        prop_oneof![any::<i64>(), -100i64..100, (i64::MIN..=i64::MIN + 50), (i64::MAX - 50..=i64::MAX)]
    }

    proptest! {
        /// The definition, by counting: the windows [offset + n * slide, + size) that hold `t`.
        #[test]
        fn slices_and_windows_hold_their_rows(t in times(), slide in 1i64..40, more in 0i64..90, offset in -50i64..50) {
            let size = slide + more;
            let layout = SliceLayout::new(size, slide, offset).unwrap();
            let slice = layout.slice_of(EventTime(t));
            prop_assert!(slice.holds(EventTime(t)));
            prop_assert!(i128::from(slice.last.0) - i128::from(slice.first.0) < i128::from(layout.width));
            prop_assert_eq!(layout.slice_of(slice.last), slice);
            prop_assert_eq!(layout.slice_of(slice.first), slice);

            let n0 = (i128::from(t) - i128::from(offset)).div_euclid(i128::from(slide));
            let mut expect: Vec<(i128, i128)> = (n0 - 200..=n0 + 2)
                .map(|n| i128::from(offset) + n * i128::from(slide))
                .map(|first| (first, first + i128::from(size) - 1))
                .filter(|(first, last)| *first <= i128::from(t) && i128::from(t) <= *last)
                .collect();
            expect.sort_unstable();
            let mut got = Vec::new();
            let mut w = layout.first_window(slice.last);
            while w.holds(slice.last) {
                got.push((w.first, w.last));
                w = layout.next(w);
            }
            prop_assert_eq!(&got, &expect);
            let last = layout.last_window(slice.last);
            prop_assert_eq!(Some(&(last.first, last.last)), expect.last());
        }

        #[test]
        fn window_not_before_is_the_nearest(t in times(), slide in 1i64..40, more in 0i64..90, offset in -50i64..50) {
            let layout = SliceLayout::new(slide + more, slide, offset).unwrap();
            let t = i128::from(t);
            let w = layout.window_not_before(t);
            prop_assert!(w.last >= t && w.last - i128::from(slide) < t);
            prop_assert_eq!(w.last - w.first + 1, i128::from(slide + more));
            prop_assert_eq!((w.first - i128::from(offset)).rem_euclid(i128::from(slide)), 0);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(SliceLayout::new(0, 0, 0).is_err());
        assert!(SliceLayout::new(10, 0, 0).is_err());
        assert!(SliceLayout::new(5, 10, 0).is_err());
        assert!(SliceLayout::new(86_400_000, 7, 0).unwrap_err().report().contains("help"));
        assert!(Tumbling::of(Duration::ZERO).layout().is_err());
    }
}
