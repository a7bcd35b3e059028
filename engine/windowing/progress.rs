//! How far event time has come for a windowed operator, and what is late by it.
//!
//! Invariant: whether a row is late and whether a window has fired depend on the watermark alone, and the watermark is state:
//! after a restore nothing fires twice and nothing is late that was not late before.

use crate::env::{Bug, planted};
use crate::error::{Error, Result};
use crate::time::EventTime;

/// `None` until the first watermark: no row is late, not even at the first instant of time.
pub(super) fn save(watermark: Option<EventTime>) -> Vec<u8> {
    watermark.map_or_else(Vec::new, |wm| wm.0.to_be_bytes().to_vec())
}

/// The smallest counts. At an aligned barrier all instances have seen the same watermark, so they do not differ.
pub(super) fn restore(blobs: &[Vec<u8>]) -> Result<Option<EventTime>> {
    let mut watermarks = Vec::new();
    for blob in blobs {
        watermarks.push(match <[u8; 8]>::try_from(&blob[..]) {
            Ok(bytes) => Some(EventTime(i64::from_be_bytes(bytes))),
            Err(_) if blob.is_empty() => None,
            Err(_) => return Err(Error::fatal("the saved watermark of a window is damaged")),
        });
    }
    Ok(watermarks.into_iter().min().flatten().filter(|_| !planted(Bug::ForgetWatermark)))
}
