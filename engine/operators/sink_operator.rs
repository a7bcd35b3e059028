//! The operator at the end of a chain: hands rows to a sink's writing half.
//!
//! Invariant: at a barrier `prepare` comes before the barrier goes on; the epoch's segments reach the checkpoint through
//! [`Operator::prepared`].

use super::{OpenContext, Operator, Output, SegmentRef, Sink, SinkWriter, WriterContext};
use crate::error::{Error, Result};
use crate::exchange::Waker;
use crate::observe::{Counter, RECORDS_OUT};
use crate::record::{BatchBox, Epoch};
use std::path::PathBuf;
use std::sync::Arc;

/// A sink as an operator.
pub struct SinkOperator {
    sink: Arc<dyn Sink>,
    staging: PathBuf,
    attempt: String,
    waker: Waker,
    writer: Option<Box<dyn SinkWriter>>,
    records_out: Counter,
}

impl SinkOperator {
    /// For one task of one attempt.
    pub fn new(sink: Arc<dyn Sink>, staging: PathBuf, attempt: String, waker: Waker) -> Self {
        SinkOperator { sink, staging, attempt, waker, writer: None, records_out: Counter::default() }
    }

    fn writer(&mut self) -> Result<&mut Box<dyn SinkWriter>> {
        self.writer.as_mut().ok_or_else(|| Error::restart("the sink was used before it was opened"))
    }
}

impl Operator for SinkOperator {
    fn open(&mut self, context: &OpenContext) -> Result<()> {
        self.records_out = context.metrics.counter(RECORDS_OUT, context.operator.as_str(), context.index);
        self.writer = Some(self.sink.writer(WriterContext {
            open: context.clone(),
            staging: self.staging.clone(),
            attempt: self.attempt.clone(),
            waker: self.waker.clone(),
        })?);
        Ok(())
    }

    fn on_batch(&mut self, _input: usize, batch: BatchBox, _out: &mut Output<'_>) -> Result<()> {
        self.records_out.add(batch.counted() as u64);
        self.writer()?.write(batch)
    }

    fn before_barrier(&mut self, epoch: Epoch, _out: &mut Output<'_>) -> Result<()> {
        self.writer()?.prepare(epoch)
    }

    fn ready(&mut self) -> Result<bool> {
        self.writer()?.ready()
    }

    fn prepared(&mut self) -> Result<Option<Vec<SegmentRef>>> {
        self.writer()?.prepared()
    }

    fn close(&mut self) {
        self.writer = None;
    }
}
