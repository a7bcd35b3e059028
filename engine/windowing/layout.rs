//! Which window a row belongs to, and how windows are cut into slices: the largest spans that no window cuts.
//!
//! Invariant: windows and slices cover the whole range of event time, also below zero and at both ends, where bounds
//! saturate. Every bound of a window is a bound of a slice, so a window is a whole number of slices. Windows are ordered by
//! (last, first), and windows of later slices never end before those of earlier ones.

use super::calendar::Calendar;
use crate::env::{Bug, planted};
use crate::error::{Error, Result};
use crate::time::EventTime;

/// More slices than this in one window make each firing slower than anybody wants.
const MAX_SLICES: i64 = 100_000;

/// Windows and their slices.
///
/// Slices and windows are named by their **last** instant (end - 1): that is what the watermark is compared with, and it
/// exists also where the last instant of time lies inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SliceLayout(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Windows of `size` every `slide` milliseconds, over slices of `width` = gcd(size, slide). Tumbling is `slide` = `size`.
    Sliding(Even),
    /// Windows from each multiple of `size` to each multiple of `slide` up to the next; slices of `width` = `slide`.
    Cumulative(Even),
    /// One window and slice a day, week or month.
    Calendar(Calendar),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Even {
    size: i64,
    slide: i64,
    width: i64,
    /// In `0..slide`, for cumulative windows in `0..size`.
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
    /// Windows of `size` every `slide`, moved by `offset`, all in milliseconds.
    ///
    /// # Errors
    /// `size` or `slide` below 1 ms, `slide` above `size` (rows between windows would vanish), or so many slices per window
    /// that firing cannot keep up.
    pub fn new(size: i64, slide: i64, offset: i64) -> Result<Self> {
        let even = Even::new(size, slide, "slide")?;
        Ok(SliceLayout(Kind::Sliding(Even { offset: offset.rem_euclid(slide), ..even })))
    }

    /// Windows from each multiple of `size` that end `step` after each other, up to the next multiple; moved by `offset`, all
    /// in milliseconds.
    ///
    /// # Errors
    /// As [`new`](Self::new); also when `step` does not divide `size`: the last window would end within a step.
    pub fn cumulative(size: i64, step: i64, offset: i64) -> Result<Self> {
        let even = Even::new(size, step, "step")?;
        if even.width != step {
            return Err(Error::fatal("the step does not divide the size of a cumulative window")
                .at(format!("window of {size} ms every {step} ms"))
                .help("choose a step of which the size is a multiple"));
        }
        Ok(SliceLayout(Kind::Cumulative(Even { offset: offset.rem_euclid(size), ..even })))
    }

    /// Days, weeks or months.
    pub(crate) fn calendar(calendar: Calendar) -> Self {
        SliceLayout(Kind::Calendar(calendar))
    }

    /// How many slices make a window, at most.
    pub fn slices_per_window(&self) -> usize {
        match &self.0 {
            Kind::Sliding(even) | Kind::Cumulative(even) => (even.size / even.width) as usize,
            Kind::Calendar(_) => 1,
        }
    }

    /// In how many windows a row is, at most.
    pub fn windows_of_a_row(&self) -> usize {
        match &self.0 {
            Kind::Sliding(even) | Kind::Cumulative(even) => (even.size as u64).div_ceil(even.slide as u64) as usize,
            Kind::Calendar(_) => 1,
        }
    }

    /// The slice that holds `t`.
    #[inline]
    pub fn slice_of(&self, t: EventTime) -> Slice {
        match &self.0 {
            Kind::Sliding(even) | Kind::Cumulative(even) => {
                let into = if planted(Bug::TruncateTimes) { (t.0 % even.width).abs() } else { t.0.rem_euclid(even.width) };
                let into = into - even.offset % even.width;
                let into = if into < 0 { into + even.width } else { into };
                Slice { first: t.minus_ms(into), last: t.plus_ms(even.width - 1 - into) }
            }
            Kind::Calendar(calendar) => {
                let window = calendar.window_of(i128::from(t.0));
                Slice { first: window.start(), last: window.fires_at() }
            }
        }
    }

    /// The first window that holds the slice that `t` lies in.
    pub(crate) fn first_window(&self, t: EventTime) -> Window {
        let t = i128::from(t.0);
        match &self.0 {
            Kind::Sliding(even) => {
                let width = i128::from(even.width);
                let slice = floor(t, width, i128::from(even.offset));
                even.sliding_not_before(slice + width - 1)
            }
            Kind::Cumulative(even) => even.cumulative_not_before(t),
            Kind::Calendar(calendar) => calendar.window_of(t),
        }
    }

    /// The last window that holds the slice that `t` lies in; after it, the slice is of no use.
    pub(crate) fn last_window(&self, t: EventTime) -> Window {
        let t = i128::from(t.0);
        match &self.0 {
            Kind::Sliding(even) => {
                let first = floor(t, i128::from(even.slide), i128::from(even.offset));
                Window { first, last: first + i128::from(even.size) - 1 }
            }
            Kind::Cumulative(even) => {
                let first = floor(t, i128::from(even.size), i128::from(even.offset));
                Window { first, last: first + i128::from(even.size) - 1 }
            }
            Kind::Calendar(calendar) => calendar.window_of(t),
        }
    }

    /// The first window whose last instant is at or after `t`.
    pub(crate) fn window_not_before(&self, t: i128) -> Window {
        match &self.0 {
            Kind::Sliding(even) => even.sliding_not_before(t),
            Kind::Cumulative(even) => even.cumulative_not_before(t),
            Kind::Calendar(calendar) => calendar.window_of(t),
        }
    }

    /// The window after this one.
    pub(crate) fn next(&self, w: Window) -> Window {
        match &self.0 {
            Kind::Sliding(even) => Window { first: w.first + i128::from(even.slide), last: w.last + i128::from(even.slide) },
            Kind::Cumulative(_) | Kind::Calendar(_) => self.window_not_before(w.last + 1),
        }
    }

    /// The size that no window exceeds, in milliseconds.
    pub(crate) fn size(&self) -> i64 {
        match &self.0 {
            Kind::Sliding(even) | Kind::Cumulative(even) => even.size,
            Kind::Calendar(_) => i64::MAX,
        }
    }
}

impl Even {
    fn new(size: i64, slide: i64, step: &str) -> Result<Even> {
        let refuse = |what: String| Err(Error::fatal(what).at(format!("window of {size} ms every {slide} ms")));
        if size < 1 || slide < 1 {
            return refuse(format!("a window has a size and a {step} of at least 1 ms"));
        }
        if slide > size {
            return refuse(format!("the {step} is larger than the window: rows in between would belong to none"))
                .map_err(|e: Error| e.help("make the window as large, or filter these rows out before"));
        }
        let width = gcd(size, slide);
        if size / width > MAX_SLICES {
            return refuse(format!("a window is cut into {} slices, at most {MAX_SLICES} are allowed", size / width))
                .map_err(|e: Error| e.help(format!("choose a {step} that divides the size, or a larger {step}")));
        }
        Ok(Even { size, slide, width, offset: 0 })
    }

    fn sliding_not_before(&self, t: i128) -> Window {
        let (size, slide) = (i128::from(self.size), i128::from(self.slide));
        // last = offset + n * slide + size - 1 >= t, for the smallest n.
        let last = -floor(-(t), slide, -(i128::from(self.offset) + size - 1));
        Window { first: last + 1 - size, last }
    }

    fn cumulative_not_before(&self, t: i128) -> Window {
        let (size, step, offset) = (i128::from(self.size), i128::from(self.slide), i128::from(self.offset));
        let (first, last) = (floor(t, size, offset), floor(t, step, offset) + step - 1);
        // Those that reach the end of time are one: nothing could tell them apart.
        Window { first, last: if last >= i128::from(i64::MAX) { first + size - 1 } else { last } }
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

    /// Walks the windows of a slice and compares them with the expected ones, sorted by (last, first).
    fn check(layout: SliceLayout, t: i64, expect: Vec<(i128, i128)>) {
        let slice = layout.slice_of(EventTime(t));
        assert!(slice.holds(EventTime(t)));
        assert_eq!(layout.slice_of(slice.last), slice);
        assert_eq!(layout.slice_of(slice.first), slice);
        let mut got = Vec::new();
        let mut w = layout.first_window(slice.last);
        assert_eq!(w, layout.first_window(EventTime(t)));
        while w.holds(slice.last) {
            got.push((w.first, w.last));
            w = layout.next(w);
        }
        assert_eq!(got, expect);
        let last = layout.last_window(slice.last);
        assert_eq!(Some(&(last.first, last.last)), expect.last());
        assert!(got.len() <= layout.windows_of_a_row());
        for (first, last) in got {
            assert!(first <= i128::from(slice.first.0).max(first) && i128::from(slice.last.0) <= last);
            assert_eq!(layout.window_not_before(last), Window { first, last }, "the first that ends then");
        }
    }

    proptest! {
        /// The definition, by counting: the windows [offset + n * slide, + size) that hold `t`.
        #[test]
        fn sliding_windows_hold_their_rows(t in times(), slide in 1i64..40, more in 0i64..90, offset in -50i64..50) {
            let size = slide + more;
            let layout = SliceLayout::new(size, slide, offset).unwrap();
            let n0 = (i128::from(t) - i128::from(offset)).div_euclid(i128::from(slide));
            let mut expect: Vec<(i128, i128)> = (n0 - 200..=n0 + 2)
                .map(|n| i128::from(offset) + n * i128::from(slide))
                .map(|first| (first, first + i128::from(size) - 1))
                .filter(|(first, last)| *first <= i128::from(t) && i128::from(t) <= *last)
                .collect();
            expect.sort_unstable();
            check(layout, t, expect);
        }

        #[test]
        fn cumulative_windows_hold_their_rows(t in times(), step in 1i64..40, steps in 1i64..9, offset in -50i64..50) {
            let size = step * steps;
            let layout = SliceLayout::cumulative(size, step, offset).unwrap();
            let t128 = i128::from(t);
            let first = (t128 - i128::from(offset)).div_euclid(i128::from(size)) * i128::from(size) + i128::from(offset);
            let ends = (1..=steps).map(|k| first + i128::from(k * step) - 1);
            let whole = first + i128::from(size) - 1;
            let ends = ends.filter(|last| *last >= t128 && (*last < i128::from(i64::MAX) || *last == whole));
            check(layout, t, ends.map(|last| (first, last)).collect());
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
        assert!(SliceLayout::cumulative(10, 3, 0).unwrap_err().report().contains("multiple"));
    }

    /// Ten years, and all of time.
    #[test]
    fn windows_may_be_as_large_as_one_likes() {
        for size in [10 * 366 * 86_400_000, i64::MAX] {
            let layout = SliceLayout::new(size, size, 0).unwrap();
            for t in [i64::MIN, -1, 0, 1, i64::MAX] {
                assert!(layout.first_window(EventTime(t)).holds(EventTime(t)));
                assert!(layout.slice_of(EventTime(t)).holds(EventTime(t)));
            }
        }
    }
}
