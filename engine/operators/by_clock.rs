//! `by_clock`: rows get the wall time at which they pass as their event time, and the clock makes the watermarks.
//!
//! Time is read when the task is called for it, every few milliseconds, so that rows and watermarks see the same clock.
//! Watermarks and idleness that come from before mean nothing any more and stay here; the last one, that of the end, goes on:
//! what is open then is complete.
//!
//! Invariant: time does not go back, also over a restart with a clock that was set back; no row is behind the watermark.

use super::{Operator, OperatorFactory, Output, Signal};
use crate::error::{Error, Result};
use crate::record::{BatchBox, ChangeBatch, downcast};
use crate::time::EventTime;
use std::sync::Arc;

/// How often the clock is looked at.
const TICK_MS: i64 = 10;

/// `ChangeBatch` to `ChangeBatch`.
pub fn by_clock() -> OperatorFactory {
    Arc::new(|| Box::new(ByClock { now: None }))
}

struct ByClock {
    /// The latest time seen.
    now: Option<i64>,
}

impl Operator for ByClock {
    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let mut batch = downcast::<ChangeBatch>(batch);
        let now = self.now.ok_or_else(|| Error::restart("rows came before the clock was looked at"))?;
        batch.times.fill(EventTime(now));
        out.emit(batch.boxed())
    }

    fn on_time(&mut self, wall_ms: i64, out: &mut Output<'_>) -> Result<Option<i64>> {
        if self.now.is_none_or(|now| now < wall_ms) {
            self.now = Some(wall_ms);
            // Rows of this very millisecond may still come.
            out.forward(Signal::Watermark(EventTime(wall_ms - 1)))?;
        }
        Ok(Some(wall_ms.saturating_add(TICK_MS)))
    }

    fn hold(&mut self, signal: Signal) -> bool {
        match signal {
            Signal::Watermark(time) => time < EventTime::MAX,
            Signal::Idle => true,
            Signal::End => false,
        }
    }

    fn save(&mut self) -> Vec<u8> {
        self.now.map_or_else(Vec::new, |now| now.to_le_bytes().to_vec())
    }

    fn restore(&mut self, blobs: &[Vec<u8>]) -> Result<()> {
        for blob in blobs.iter().filter(|b| !b.is_empty()) {
            let bytes = <[u8; 8]>::try_from(blob.as_slice()).map_err(|_| Error::fatal("the saved time of a clock is damaged"))?;
            self.now = self.now.max(Some(i64::from_le_bytes(bytes)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Element, record_batch};
    use crate::testing::Harness;
    use arrow_schema::Schema;

    fn row() -> BatchBox {
        let none = record_batch(Arc::new(Schema::empty()), Vec::new(), 1).unwrap();
        ChangeBatch::inserts(none, vec![EventTime(7)]).boxed()
    }

    /// Times of the rows, and watermarks as `w` numbers.
    fn seen(harness: &mut Harness) -> Vec<String> {
        let show = |element| match element {
            Element::Batch(batch) => batch.times().iter().map(|t| t.0.to_string()).collect::<Vec<_>>().join(","),
            Element::Watermark(time) => format!("w{}", time.0),
            Element::Idle => "idle".into(),
            _ => "other".into(),
        };
        harness.take_elements(0).into_iter().map(show).collect()
    }

    #[test]
    fn the_clock_gives_times_and_watermarks() {
        let mut harness = Harness::new(&by_clock(), 0);
        seen(&mut harness);
        harness.wall_time(1_000_000);
        harness.push(0, row());
        harness.watermark(EventTime(5_000_000));
        harness.wall_time(2_000_000);
        harness.push(0, row());
        assert_eq!(seen(&mut harness), ["w999999", "1000000", "w1999999", "2000000"]);
        // A clock that was set back.
        harness.wall_time(500);
        harness.push(0, row());
        harness.snapshot_and_restore(1);
        harness.wall_time(600);
        harness.push(0, row());
        assert_eq!(seen(&mut harness), ["2000000", "other", "2000000"]);
        harness.end();
        assert_eq!(seen(&mut harness)[0], format!("w{}", i64::MAX));
    }
}
