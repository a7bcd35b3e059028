//! How far event time has come for a windowed operator, and what is late by it.
//!
//! At a barrier instances may have come differently far: an idle channel wakes up before or after another one's watermark. So
//! each keeps its own watermark with the key groups it is true of. One that takes over from several goes on from the latest, and
//! first brings the keys of the others level: what was due for the one is due for all.
//!
//! Invariant: whether a row is late and whether a window has fired depend on the watermark alone, and the watermark is state:
//! after a restore nothing fires twice and nothing is late that was not late before.

use crate::env::{Bug, planted};
use crate::error::{Error, Result};
use crate::record::KeyGroup;
use crate::time::EventTime;
use std::ops::Range;

/// Key groups that had not come as far as the others, and how far they had.
pub(super) type Behind = Vec<(Range<KeyGroup>, Option<EventTime>)>;

/// `None` until the first watermark: no row is late, not even at the first instant of time.
pub(super) fn save(groups: &Range<KeyGroup>, watermark: Option<EventTime>) -> Vec<u8> {
    postcard::to_allocvec(&(groups, watermark)).unwrap_or_default()
}

/// From what all former instances saved: the latest watermark of those that had some of `own`, and who is behind it.
pub(super) fn restore(blobs: &[Vec<u8>], own: &Range<KeyGroup>) -> Result<(Option<EventTime>, Behind)> {
    let mut taken_over = Behind::new();
    for blob in blobs {
        taken_over.push(postcard::from_bytes(blob).map_err(|_| Error::fatal("the saved watermark of a window is damaged"))?);
    }
    taken_over.retain(|(groups, _)| groups.start < own.end && own.start < groups.end);
    let latest = taken_over.iter().filter_map(|(_, wm)| *wm).max().filter(|_| !planted(Bug::ForgetWatermark));
    taken_over.retain(|(_, wm)| *wm < latest);
    Ok((latest, taken_over))
}
