//! Joins of two keyed streams.
//!
//! Each join is a **core** that sees times, slots and encoded rows, over a **kernel** ([`PairKernel`]) that looks inside: it
//! encodes rows, decides whether two of one key belong together, and makes the results. What a kind of join emits of pairs
//! and of rows that stay alone is decided in one place ([`Matches`]).
//!
//! All cores but the regular, the growing and the lookup join's work in the order of event time: a row waits until the watermark has reached it, then meets the rows before it. So
//! the same rows give the same results in the same order, whatever the batches and whichever input came first, and a result
//! is never late downstream.

mod broadcast;
mod growing;
mod interval;
mod kernel;
mod lookup;
mod matches;
mod pairings;
mod regular;
mod temporal;

pub use broadcast::broadcast_join;
pub use growing::growing_join;
pub use interval::{Bounds, interval_join};
pub use kernel::{EncodedRows, PairKernel, Paired, Pairing, TypedPairs};
pub use lookup::lookup_join;
pub use matches::{JoinKind, Matches};
pub use regular::{Forget, regular_join};
pub use temporal::{EndsVersion, temporal_join};

use super::guarded::guarded_call;
use super::{Output, Port};
use crate::error::Result;
use crate::observe::Counter;
use crate::record::{Batch, BatchBox};
use crate::state::{AppendTable, Side};
use crate::time::EventTime;

/// The left input of a join.
pub const LEFT: Side = 0;
/// The right input of a join.
pub const RIGHT: Side = 1;
/// Where late rows of the left input leave, as they came.
pub const LATE_LEFT_PORT: Port = 1;
/// Where late rows of the right input leave, as they came.
pub const LATE_RIGHT_PORT: Port = 2;

/// The other side.
#[inline]
fn other(side: Side) -> Side {
    1 - side
}

/// Adds the rows of a batch that are not late to a table, encoded; rejects those that cannot be encoded. The late ones leave
/// by the late port of their input, counted. `(input, side)`: where they come from, and their side in the table.
pub(crate) fn take_in(
    (input, side): (Side, Side),
    batch: BatchBox,
    encode: impl Fn(&dyn Batch, usize, &mut Vec<u8>),
    is_late: impl Fn(EventTime) -> bool,
    to: (&mut AppendTable, &mut Vec<u32>, &mut Vec<u8>),
    late: &Counter,
    out: &mut Output<'_>,
) -> Result<()> {
    let (table, slots, scratch) = to;
    let Some(keys) = batch.keys() else { unreachable!("plan bug: a join needs keyed streams") };
    table.resolve(keys, slots);
    for (i, &time) in batch.times().iter().enumerate() {
        if is_late(time) {
            continue;
        }
        scratch.clear();
        match guarded_call(|| encode(&*batch, i, scratch)) {
            Ok(()) => table.append(side, slots[i], time, scratch),
            Err(error) => out.reject(batch.origins().map(|o| o.0[i].clone()), time, error)?,
        }
    }
    late_to(input, batch, is_late, late, out)
}

/// Counts the late rows of a batch and lets them leave by the late port of their input.
fn late_to(input: Side, batch: BatchBox, is_late: impl Fn(EventTime) -> bool, late: &Counter, out: &mut Output<'_>) -> Result<()> {
    let rows = batch.times().iter().filter(|&&time| is_late(time)).count();
    if rows == 0 {
        return Ok(());
    }
    late.add(rows as u64);
    let port = if input == LEFT { LATE_LEFT_PORT } else { LATE_RIGHT_PORT };
    if !out.is_connected(port) {
        return Ok(());
    }
    let targets: Vec<u32> = batch.times().iter().map(|&time| u32::from(is_late(time))).collect();
    batch.scatter(&targets, 2).pop().map_or(Ok(()), |late| out.emit_to(port, late))
}

#[cfg(test)]
pub(crate) mod tests;
