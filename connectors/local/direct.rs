//! At least once: batches are appended in the background as they come, several to a commit when they come fast.
//!
//! Invariant: `prepared` says yes only when everything written before is committed. After a failure the task restarts and
//! writes again what may already be there.

use super::Place;
use super::appender::Session;
use std::sync::{Arc, Mutex, PoisonError};
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::{SegmentRef, SinkWriter, WriterContext};
use waterwheel_engine::record::{Batch, BatchBox, Epoch, RawBatch, downcast};

/// So many bytes may wait; then the task waits.
const QUEUE_BYTES: usize = 16 << 20;

/// Appends batches without staging.
pub(super) struct DirectWriter {
    context: WriterContext,
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    session: Mutex<Session>,
}

#[derive(Default)]
struct Queue {
    batches: Vec<RawBatch>,
    bytes: usize,
    /// A background job is on its way and will take what is queued.
    running: bool,
    failed: Option<Error>,
}

impl DirectWriter {
    pub(super) fn open(context: WriterContext, place: &Place) -> Result<Self> {
        let session = Mutex::new(Session::open(place)?);
        Ok(DirectWriter { context, shared: Arc::new(Shared { queue: Mutex::default(), session }) })
    }

    fn start(&self) {
        let (shared, waker) = (self.shared.clone(), self.context.waker.clone());
        let name = format!("append {}/{}", self.context.open.operator, self.context.open.index);
        let job = move || {
            while shared.append_queued() {
                waker();
            }
            waker();
        };
        self.context.open.env.background.run(&name, Box::new(job));
    }
}

impl Shared {
    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends what is queued; `false` when nothing is left to do.
    fn append_queued(&self) -> bool {
        let batches = std::mem::take(&mut self.queue().batches);
        let bytes: usize = batches.iter().map(Batch::bytes).sum();
        let result = self.append(batches);
        let mut queue = self.queue();
        queue.bytes -= bytes;
        queue.failed = result.err();
        queue.running = queue.failed.is_none() && !queue.batches.is_empty();
        queue.running
    }

    fn append(&self, batches: Vec<RawBatch>) -> Result<()> {
        let mut all = RawBatch::with_capacity(batches.iter().map(Batch::len).sum(), batches.iter().map(RawBatch::data_len).sum());
        batches.iter().flat_map(RawBatch::records).for_each(|record| all.push(record));
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        session.view.catch_up()?;
        session.produce(&all)
    }
}

impl SinkWriter for DirectWriter {
    fn ready(&mut self) -> Result<bool> {
        let mut queue = self.shared.queue();
        match queue.failed.take() {
            Some(e) => Err(e),
            None => Ok(queue.bytes < QUEUE_BYTES),
        }
    }

    fn write(&mut self, batch: BatchBox) -> Result<()> {
        let batch = downcast::<RawBatch>(batch);
        let mut queue = self.shared.queue();
        queue.bytes += batch.bytes();
        queue.batches.push(batch);
        if !std::mem::replace(&mut queue.running, true) {
            drop(queue);
            self.start();
        }
        Ok(())
    }

    fn prepare(&mut self, _epoch: Epoch) -> Result<()> {
        Ok(())
    }

    fn prepared(&mut self) -> Result<Option<Vec<SegmentRef>>> {
        let mut queue = self.shared.queue();
        match queue.failed.take() {
            Some(e) => Err(e),
            None => Ok((queue.bytes == 0 && !queue.running).then(Vec::new)),
        }
    }
}
