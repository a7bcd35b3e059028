//! At least once: records go out at once, the barrier waits until the broker has them.
//!
//! Invariant: `prepared` says so only when every record handed over before `prepare` was delivered; one failure fails the
//! epoch, and the restart writes it again.

use super::client::{coded, kind_of};
use super::send::{self, Producer};
use super::sink::Clocked;
use crate::staging::Placement;
use rdkafka::types::RDKafkaErrorCode as Code;
use waterwheel_engine::error::{Error, Kind, Result};
use waterwheel_engine::operators::{SegmentRef, SinkWriter};
use waterwheel_engine::record::{Batch, BatchBox, Epoch, RawBatch, downcast};

pub(super) struct DirectWriter {
    place: String,
    producer: Producer,
    placement: Placement,
    clocked: Clocked,
    /// Records that found the queue full: from this row on.
    waiting: Option<(Box<RawBatch>, usize)>,
}

impl DirectWriter {
    pub(super) fn new(place: String, producer: Producer, placement: Placement, clocked: Clocked) -> Self {
        DirectWriter { place, producer, placement, clocked, waiting: None }
    }

    /// Hands records over until the queue is full.
    fn push(&mut self, batch: Box<RawBatch>, from: usize) -> Result<()> {
        for at in from..batch.len() {
            let record = batch.record(at);
            let partition = self.placement.place(&record)?;
            match send::send(&self.producer, &record, partition) {
                Ok(true) => {}
                Ok(false) => {
                    self.waiting = Some((batch, at));
                    return Ok(());
                }
                Err(e) => {
                    let code = e.rdkafka_error_code().unwrap_or(Code::Unknown);
                    return Err(coded(code, &format!("writing to {}/{partition}", record.topic), &self.place));
                }
            }
        }
        Ok(())
    }

    /// Serves deliveries, and goes on with what waits.
    fn serve(&mut self) -> Result<()> {
        send::serve(&self.producer);
        if let Some((code, partition)) = self.producer_failure() {
            let e = coded(code, &format!("writing to {partition}"), &self.place);
            // The epoch is written again from its beginning, whatever kept the broker from taking it.
            return Err(if kind_of(code) == Kind::Transient { Error::restart(e.to_string()).at(self.place.clone()) } else { e });
        }
        match self.waiting.take() {
            Some((batch, from)) => self.push(batch, from),
            None => Ok(()),
        }
    }

    fn producer_failure(&self) -> Option<(Code, String)> {
        use rdkafka::producer::Producer as _;
        self.producer.client().context().failed()
    }
}

impl SinkWriter for DirectWriter {
    fn ready(&mut self) -> Result<bool> {
        self.serve()?;
        Ok(self.waiting.is_none())
    }

    fn write(&mut self, batch: BatchBox) -> Result<()> {
        let batch = downcast::<RawBatch>(batch);
        self.clocked.check(&batch)?;
        match &mut self.waiting {
            // Only when written to without being ready; order must hold all the same.
            Some((waiting, _)) => batch.records().for_each(|r| waiting.push(r)),
            None => self.push(Box::new(batch), 0)?,
        }
        self.serve()
    }

    fn prepare(&mut self, _: Epoch) -> Result<()> {
        self.placement.end_epoch();
        self.serve()
    }

    fn prepared(&mut self) -> Result<Option<Vec<SegmentRef>>> {
        self.serve()?;
        let safe = self.waiting.is_none() && send::settled(&self.producer);
        // Once more: the last delivery may have been a failure.
        self.serve()?;
        Ok(safe.then(Vec::new))
    }
}
