//! The kinds of windows, and which operator runs each.
//!
//! Windows of the clock ([`WindowAssigner`]) share slices as long as they fire at their end alone; what else there is keeps
//! each window for itself.
//!
//! Invariant: what a window computes ([`Accumulate`]) does not depend on its kind.

use super::assigner::WindowAssigner;
use super::kernel::Accumulate;
use super::operator::window;
use super::pane::Shape;
use super::panes::panes;
use super::session::{Global, Session, SessionBy};
use super::{Count, Firing, count};
use crate::error::{Error, Result};
use crate::operators::OperatorFactory;
use crate::record::{Data, Key};
use crate::time::millis;
use std::time::Duration;

/// A row that is kept in more windows than this costs more than anybody wants.
const MAX_WINDOWS_OF_A_ROW: usize = 1000;

/// What is said about windows besides their kind.
pub struct WindowOptions<T> {
    /// Rows up to this far behind the end of their last window still count.
    pub allowed_lateness: Duration,
    /// Firings besides the one at the end.
    pub firing: Firing<T>,
}

impl<T> Default for WindowOptions<T> {
    fn default() -> Self {
        WindowOptions { allowed_lateness: Duration::ZERO, firing: Firing::default() }
    }
}

/// What windows keep, for `explain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// A key: `30 slices a key`.
    pub what: String,
    /// The watermark ends it.
    pub until_watermark: bool,
    /// What is in a window depends on the order in which rows arrive.
    pub by_arrival: bool,
}

/// Windows over a keyed stream of `T`: [`Tumbling`](super::Tumbling), [`Sliding`](super::Sliding),
/// [`Cumulative`](super::Cumulative), [`Calendar`](super::Calendar), [`Session`], [`Count`], [`Global`].
pub trait Windows<T: Data> {
    /// For `explain`.
    fn describe(&self) -> String;
    /// For `explain`.
    fn kept(&self, firing: &Firing<T>) -> Kept;
    /// The operator that runs them.
    ///
    /// # Errors
    /// Sizes that make no sense, options that these windows cannot follow.
    fn operator<K: Key, G: Accumulate<Row = T>>(&self, options: WindowOptions<T>, aggregate: G) -> Result<OperatorFactory>;
}

fn each_kept(what: String) -> Kept {
    Kept { what, until_watermark: true, by_arrival: false }
}

impl<T: Data, W: WindowAssigner> Windows<T> for W {
    fn describe(&self) -> String {
        WindowAssigner::describe(self)
    }

    fn kept(&self, firing: &Firing<T>) -> Kept {
        let parts =
            self.layout().map_or(0, |layout| if firing.is_plain() { layout.slices_per_window() } else { layout.windows_of_a_row() });
        let one = if firing.is_plain() { "slice" } else { "window" };
        each_kept(if parts == 1 { format!("1 {one} a key") } else { format!("{parts} {one}s a key") })
    }

    fn operator<K: Key, G: Accumulate<Row = T>>(&self, options: WindowOptions<T>, aggregate: G) -> Result<OperatorFactory> {
        let WindowOptions { allowed_lateness, firing } = options;
        if firing.is_plain() {
            return window::<K, G>(self, allowed_lateness, aggregate);
        }
        let place = |e: Error| e.at(WindowAssigner::describe(self));
        let layout = self.layout().map_err(place)?;
        let windows = layout.windows_of_a_row();
        if windows > MAX_WINDOWS_OF_A_ROW {
            let what =
                format!("each row would be kept in {windows} windows, at most {MAX_WINDOWS_OF_A_ROW} are allowed with early results");
            return Err(place(Error::fatal(what).help("choose a larger step, or results at the end of windows only")));
        }
        Ok(panes::<K, G>(Shape::Aligned(layout), millis(allowed_lateness), checked(firing)?, aggregate))
    }
}

impl<T: Data> Windows<T> for Session {
    fn describe(&self) -> String {
        self.name()
    }

    fn kept(&self, _firing: &Firing<T>) -> Kept {
        each_kept("open sessions".into())
    }

    fn operator<K: Key, G: Accumulate<Row = T>>(&self, options: WindowOptions<T>, aggregate: G) -> Result<OperatorFactory> {
        let gap = self.of_any();
        if matches!(gap, super::session::Gap::Fixed(0)) {
            return Err(Error::fatal("the gap of a session is at least 1 ms").at(self.name()));
        }
        Ok(panes::<K, G>(Shape::Session(gap), millis(options.allowed_lateness), checked(options.firing)?, aggregate))
    }
}

impl<T: Data> Windows<T> for SessionBy<T> {
    fn describe(&self) -> String {
        "session, gap by row".into()
    }

    fn kept(&self, firing: &Firing<T>) -> Kept {
        Windows::<T>::kept(&Session::gap(Duration::ZERO), firing)
    }

    fn operator<K: Key, G: Accumulate<Row = T>>(&self, options: WindowOptions<T>, aggregate: G) -> Result<OperatorFactory> {
        Ok(panes::<K, G>(Shape::Session(self.rule()), millis(options.allowed_lateness), checked(options.firing)?, aggregate))
    }
}

impl<T: Data> Windows<T> for Global {
    fn describe(&self) -> String {
        "global".into()
    }

    fn kept(&self, _firing: &Firing<T>) -> Kept {
        Kept { what: "1 window a key".into(), until_watermark: false, by_arrival: false }
    }

    fn operator<K: Key, G: Accumulate<Row = T>>(&self, options: WindowOptions<T>, aggregate: G) -> Result<OperatorFactory> {
        Ok(panes::<K, G>(Shape::Global, 0, checked(options.firing)?, aggregate))
    }
}

impl<T: Data> Windows<T> for Count {
    fn describe(&self) -> String {
        self.name()
    }

    fn kept(&self, _firing: &Firing<T>) -> Kept {
        let slices = self.slices().map_or(0, |(count, _)| count);
        let what = if slices == 1 { "1 slice a key".into() } else { format!("{slices} slices a key") };
        Kept { what, until_watermark: false, by_arrival: true }
    }

    fn operator<K: Key, G: Accumulate<Row = T>>(&self, options: WindowOptions<T>, aggregate: G) -> Result<OperatorFactory> {
        if !options.firing.is_plain() {
            return Err(Error::fatal("windows that count rows fire when they are full, not earlier")
                .at(self.name())
                .help("use a global window with fire_each"));
        }
        count::count_windows::<K, G>(*self, aggregate)
    }
}

fn checked<T>(firing: Firing<T>) -> Result<Firing<T>> {
    if firing.rows == Some(0) {
        return Err(Error::fatal("a window cannot fire each 0 rows"));
    }
    if firing.every.is_some_and(|every| millis(every) == 0) {
        return Err(Error::fatal("a window cannot fire more often than every millisecond"));
    }
    Ok(firing)
}
