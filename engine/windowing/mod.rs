//! Windows in event time over a keyed stream.
//!
//! A row is assigned to one **slice**, the largest span that no window cuts; windows are merged from slices when they fire.
//! So a row is aggregated once, however many windows overlap there. A window fires when the watermark reaches its last
//! instant, exactly once; rows that come after that, but within the allowed lateness, fire it again, updated; rows later than
//! that leave by [`LATE_PORT`], counted.
//!
//! The kinds: windows of the clock ([`Tumbling`], [`Sliding`], [`Cumulative`], [`Calendar`]), which share slices; windows that
//! rows make ([`Session`], [`Count`], [`Global`]); and any of them with firings besides the one at its end ([`Firing`]).
//!
//! Invariant: rows in = rows aggregated + rows rejected + rows late.

pub mod aggregates;
mod assigner;
mod calendar;
mod count;
mod firing;
mod hyperloglog;
mod join;
mod kernel;
mod kinds;
mod layout;
mod operator;
mod pane;
mod panes;
mod progress;
mod running;
mod session;
mod session_join;

pub use crate::operators::LATE_PORT;
pub use assigner::{Cumulative, Slice, SliceLayout, Sliding, Tumbling, WindowAssigner};
pub use calendar::Calendar;
pub use count::Count;
pub use firing::{FireWhen, Firing, PaneInfo};
pub use hyperloglog::HyperLogLog;
pub use join::window_join;
pub use kernel::{Accumulate, Aggregate, OnlyIf};
pub use kinds::{Kept, WindowOptions, Windows};
pub use operator::{Windowed, window};
pub use session::{Global, Session, SessionBy};
pub use session_join::{Sides, TimedEither, Together, pair_sides};

#[cfg(test)]
#[path = "tests/count.rs"]
mod count_tests;
#[cfg(test)]
#[path = "tests/panes.rs"]
mod pane_tests;
#[cfg(test)]
mod tests;
