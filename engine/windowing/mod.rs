//! Windows in event time over a keyed stream.
//!
//! A row is assigned to one **slice**, the largest span that no window cuts; windows are merged from slices when they fire.
//! So a row is aggregated once, however many windows overlap there. A window fires when the watermark reaches its last
//! instant, exactly once; rows that come after that, but within the allowed lateness, fire it again, updated; rows later than
//! that leave by [`LATE_PORT`], counted.
//!
//! Invariant: rows in = rows aggregated + rows rejected + rows late.

mod assigner;
mod kernel;
mod operator;
mod running;

pub use crate::operators::LATE_PORT;
pub use assigner::{Slice, SliceLayout, Sliding, Tumbling, WindowAssigner};
pub use kernel::{Accumulate, Aggregate, OnlyIf};
pub use operator::{Windowed, window};

#[cfg(test)]
mod tests;
