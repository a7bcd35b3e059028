//! Rows that come behind the watermark, and no others: what may be too late for a window.
//!
//! Invariant: a row leaves if its time is at or before the watermark when it comes, in a job that was restored as in one that was
//! not; all tasks together see one watermark if the input is dealt out to them.

use super::{OpenContext, Operator, OperatorFactory, Output, Progress};
use crate::error::Result;
use crate::record::BatchBox;
use crate::time::EventTime;
use std::sync::Arc;

/// Keeps the late rows of any batch, with their times.
///
/// ```
/// use waterwheel_engine::operators::late_rows;
/// let make = late_rows();
/// assert!(!make().holds(), "nothing waits inside");
/// ```
pub fn late_rows() -> OperatorFactory {
    Arc::new(|| Box::new(Late::default()))
}

#[derive(Default)]
struct Late {
    progress: Progress,
}

impl Operator for Late {
    fn open(&mut self, context: &OpenContext) -> Result<()> {
        self.progress.owns(&context.groups);
        Ok(())
    }

    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let targets: Vec<u32> = batch.times().iter().map(|&time| u32::from(self.progress.is_late(time))).collect();
        match batch.scatter(&targets, 2).pop() {
            Some(late) if targets.contains(&1) => out.emit(late),
            _ => Ok(()),
        }
    }

    fn on_watermark(&mut self, time: EventTime, _out: &mut Output<'_>) -> Result<()> {
        self.progress.advance(time);
        Ok(())
    }

    fn save(&mut self) -> Vec<u8> {
        self.progress.save()
    }

    fn restore(&mut self, blobs: &[Vec<u8>]) -> Result<()> {
        self.progress.restore(blobs).map(drop)
    }
}
