//! The two ends of a job on the simulated broker: a source that reads what is committed, and a lane's publisher.
//!
//! Invariant: both do what a connector does, in the same order and with the same promises; they hide no fault of the broker.

use super::sim_broker::SimBroker;
use super::{SimMachine, SimRecord};
use crate::error::{Error, Result};
use crate::graph::ReadAs;
use crate::operators::{
    LaneMarker, LanePublisher, Poll, PublisherContext, ReaderContext, ScanOutcome, SegmentReader, SegmentRef, Source, SourceReader, Split,
    SplitId, SplitState,
};
use crate::record::{RawBatch, RawRecord};
use std::sync::Arc;

/// A topic as a source, read up to where it ended when the source was made.
pub struct SimSource {
    broker: SimBroker,
    machine: SimMachine,
    topic: Arc<str>,
    read_as: ReadAs,
    /// Whether retention follows what is reported as committed.
    trims: bool,
}

impl SimSource {
    /// For the process on `machine`. With `trims` the broker deletes what the job has reported as covered by a checkpoint.
    pub fn new(broker: &SimBroker, machine: &SimMachine, topic: &str, read_as: ReadAs, trims: bool) -> Self {
        SimSource { broker: broker.clone(), machine: machine.clone(), topic: topic.into(), read_as, trims }
    }
}

impl Source for SimSource {
    fn describe(&self) -> String {
        format!("simulated topic {}", self.topic)
    }

    fn is_bounded(&self) -> bool {
        true
    }

    fn splits(&self, _first: bool) -> Result<Vec<Split>> {
        self.machine.call().map_err(|e| Error::restart(e.to_string()))?;
        if self.broker.is_away(self.machine.now()) {
            self.machine.note("broker away");
            return Err(Error::transient("the broker is away"));
        }
        let split = |partition: u32| {
            let (start, end) = self.broker.bounds(&self.topic, partition as usize);
            let id = SplitId { name: self.topic.clone(), partition: partition as i32 };
            Split { id, start, end: Some(end), bootstrap_end: (self.read_as == ReadAs::Table).then_some(end), topic_id: None }
        };
        Ok((0..self.broker.partitions(&self.topic)).map(split).collect())
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn SourceReader>> {
        let (broker, machine, topic) = (self.broker.clone(), self.machine.clone(), self.topic.clone());
        Ok(Box::new(Reader { broker, machine, topic, trims: self.trims, batch_rows: context.batch_rows, splits: Vec::new() }))
    }
}

struct Reading {
    id: SplitId,
    next: i64,
    end: i64,
    held: bool,
    ended: bool,
}

/// Polls come when the seed says, and bring as many rows as it says.
struct Reader {
    broker: SimBroker,
    machine: SimMachine,
    topic: Arc<str>,
    trims: bool,
    batch_rows: usize,
    splits: Vec<Reading>,
}

impl SourceReader for Reader {
    fn assign(&mut self, splits: &[SplitState]) -> Result<()> {
        for s in splits {
            let end = s.split.end.unwrap_or(i64::MAX);
            self.splits.push(Reading { id: s.split.id.clone(), next: s.position, end, held: false, ended: false });
        }
        Ok(())
    }

    fn poll(&mut self) -> Result<Poll> {
        self.machine.call().map_err(|e| Error::restart(e.to_string()))?;
        if self.broker.is_away(self.machine.now()) {
            self.machine.note("broker away");
            return Ok(Poll::Waiting("the broker is away".into()));
        }
        let open = self.splits.iter().filter(|s| !s.ended && !s.held).count();
        if open == 0 || self.machine.choose(8) == 0 {
            return Ok(Poll::Empty);
        }
        let pick = self.machine.choose(open);
        let Some(reading) = self.splits.iter_mut().filter(|s| !s.ended && !s.held).nth(pick) else { return Ok(Poll::Empty) };
        let partition = reading.id.partition as usize;
        let (start, _) = self.broker.bounds(&self.topic, partition);
        if reading.next < start {
            return Err(Error::fatal(format!("records {}..{start} of {} are gone (retention)", reading.next, reading.id)));
        }
        if reading.next >= reading.end {
            reading.ended = true;
            return Ok(Poll::Ended { split: reading.id.clone() });
        }
        let rows = 1 + self.machine.choose(self.batch_rows);
        let (records, next) = self.broker.read(&self.topic, partition, reading.next, rows);
        let mut batch = RawBatch::with_capacity(records.len(), 64 * records.len());
        for r in records.iter().filter(|r| r.offset < reading.end) {
            let (key, value) = (r.key.as_deref(), r.value.as_deref());
            batch.push_parts(&self.topic, reading.id.partition, r.offset, r.timestamp, key, value, &r.headers);
        }
        reading.next = next.min(reading.end);
        Ok(Poll::Batch { split: reading.id.clone(), batch: Box::new(batch), next: reading.next })
    }

    fn hold_back(&mut self, split: &SplitId, hold: bool) {
        self.splits.iter_mut().filter(|s| s.id == *split).for_each(|s| s.held = hold);
    }

    fn committed(&mut self, positions: &[(SplitId, i64)]) {
        for (split, position) in positions.iter().filter(|_| self.trims) {
            self.broker.trim(&self.topic, split.partition as usize, *position);
        }
    }
}

/// A lane of a sink on the broker: one transactional id, named like the lane.
pub struct SimLane {
    broker: SimBroker,
    machine: SimMachine,
    context: PublisherContext,
    id: String,
    epoch: Option<u32>,
}

impl SimLane {
    /// For the process on `machine`.
    pub fn new(broker: &SimBroker, machine: &SimMachine, context: PublisherContext) -> Self {
        let id = context.lane_name();
        SimLane { broker: broker.clone(), machine: machine.clone(), context, id, epoch: None }
    }

    fn each_batch(&self, segments: &[SegmentRef], mut visit: impl FnMut(&[RawRecord<'_>]) -> Result<()>) -> Result<()> {
        for segment in segments {
            let mut reader = SegmentReader::open(&self.context.env, &self.context.staging, segment)?;
            while let Some(batch) = reader.next_batch()? {
                visit(&batch.records().collect::<Vec<_>>())?;
            }
        }
        Ok(())
    }
}

impl LanePublisher for SimLane {
    fn fence(&mut self) -> Result<()> {
        self.epoch = None;
        self.epoch = Some(self.broker.register(&self.machine, &self.id)?);
        Ok(())
    }

    fn marker(&mut self) -> Result<Option<LaneMarker>> {
        self.broker.marker(&self.machine, &self.id)
    }

    fn scan(&mut self, segments: &[SegmentRef]) -> Result<ScanOutcome> {
        let noted = |topic: &str, partition: i32| {
            let ends = segments.iter().flat_map(|s| &s.noted_ends).filter(|(t, p, _)| t == topic && *p == partition);
            ends.map(|(.., end)| *end).min().unwrap_or(0)
        };
        let (mut found, mut missing) = (false, false);
        self.each_batch(segments, |records| {
            for record in records {
                let from = noted(record.topic, record.partition);
                let there = self.broker.read(record.topic, record.partition as usize, from, usize::MAX).0;
                let is_there = there.iter().any(|r: &SimRecord| r.is(record));
                (found, missing) = (found || is_there, missing || !is_there);
            }
            Ok(())
        })?;
        // A transaction is there as a whole or not at all: some of it are equal records of another epoch.
        Ok(if found && !missing { ScanOutcome::Present } else { ScanOutcome::Absent })
    }

    fn publish(&mut self, marker: &LaneMarker, segments: &[SegmentRef]) -> Result<()> {
        let epoch = self.epoch.ok_or_else(|| Error::transient("the lane is not fenced"))?;
        self.each_batch(segments, |records| self.broker.produce(&self.machine, &self.id, epoch, records))?;
        self.broker.mark(&self.machine, &self.id, epoch, marker)?;
        self.broker.commit(&self.machine, &self.id, epoch)
    }
}
