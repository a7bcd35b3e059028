//! The head of a source task: reads, decodes, stamps event time, keeps a watermark per split, and lets barriers in.
//!
//! Invariants: a position counts as read once its rows have left downstream, never before; the watermark of the task is the
//! minimum over its splits that are neither idle nor ended, and never goes back, restored or not; a new split holds the
//! watermark until its first row or the idle timeout. Every task works out its share of the splits from the same list, so
//! that each split is read by exactly one task.

use super::{ErrorPolicy, Ingest, OpenContext, Poll, ReaderContext, Source, SourceReader, SplitId, SplitState, Targets};
use crate::env::{Bug, planted};
use crate::error::{Error, Result};
use crate::exchange::Waker;
use crate::observe::{Counter, Gauge, RECORDS_IN, WATERMARK_MS};
use crate::record::{Element, Rejected};
use crate::time::{EventTime, WatermarkGenerator, WatermarkStrategy, millis};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// One split being read.
struct Reading {
    state: SplitState,
    generator: Option<Box<dyn WatermarkGenerator>>,
    /// Monotonic milliseconds of the last row, for the idle timeout.
    active_ms: i64,
    idle: bool,
    /// Not drained now, because it is too far ahead of the others.
    held: bool,
}

/// How far the tasks of one source, or of several that keep step, have come, so that no split runs away from the others.
///
/// Tasks of one process share it; a task that has nothing to wait for counts as [`EventTime::MAX`], one that has not begun as
/// [`EventTime::MIN`]: until every split has had its first rows (or is idle, or ended) nobody knows where they are, and each
/// of the others reads one batch.
#[derive(Debug)]
pub struct Alignment {
    lowest: Vec<AtomicI64>,
}

impl Alignment {
    /// For so many tasks, of all sources together.
    pub fn new(tasks: u32) -> Arc<Self> {
        Arc::new(Alignment { lowest: (0..tasks).map(|_| AtomicI64::new(i64::MIN)).collect() })
    }

    /// The view of one task: its number among all, and how far its splits may run ahead of the slowest.
    pub fn member(self: &Arc<Self>, number: u32, max_ahead_ms: i64) -> Aligned {
        Aligned { all: self.clone(), number: number as usize, max_ahead_ms }
    }
}

/// What one task knows of an [`Alignment`].
#[derive(Debug, Clone)]
pub struct Aligned {
    all: Arc<Alignment>,
    number: usize,
    max_ahead_ms: i64,
}

impl Aligned {
    /// Notes how far the task has come; the time up to which its splits may run ahead.
    fn limit(&self, lowest: EventTime) -> EventTime {
        self.all.lowest[self.number].store(lowest.0, Ordering::Relaxed);
        let lowest = self.all.lowest.iter().map(|t| t.load(Ordering::Relaxed)).min().unwrap_or(i64::MAX);
        EventTime(lowest).plus_ms(self.max_ahead_ms)
    }
}

/// What one step of a source did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceStep {
    /// Rows left.
    Rows,
    /// Nothing to read now.
    Empty,
    /// The outside is away, for this reason; the reader tries on.
    Waiting(String),
}

/// The head of a source task. Driven by the runtime's task.
pub struct SourceTask {
    source: Arc<dyn Source>,
    reader: Box<dyn SourceReader>,
    ingest: Box<dyn Ingest>,
    watermarks: Option<WatermarkStrategy>,
    context: OpenContext,
    splits: Vec<Reading>,
    emitted: EventTime,
    said_idle: bool,
    /// Splits were taken since the last step.
    fresh: bool,
    said_end: bool,
    rejected: Vec<Rejected>,
    alignment: Option<Aligned>,
    records_in: Counter,
    watermark_ms: Gauge,
}

impl SourceTask {
    /// Opens the reader; nothing is read before [`assign`](Self::assign).
    ///
    /// # Errors
    /// Of the source.
    pub fn open(
        source: Arc<dyn Source>,
        ingest: Box<dyn Ingest>,
        watermarks: Option<WatermarkStrategy>,
        context: OpenContext,
        waker: Waker,
        batch_rows: usize,
    ) -> Result<Self> {
        let reader = source.reader(ReaderContext { open: context.clone(), waker, batch_rows })?;
        let (name, index) = (context.operator.as_str(), context.index);
        Ok(SourceTask {
            reader,
            ingest,
            watermarks,
            splits: Vec::new(),
            emitted: EventTime::MIN,
            said_idle: false,
            fresh: true,
            said_end: false,
            rejected: Vec::new(),
            alignment: None,
            records_in: context.metrics.counter(RECORDS_IN, name, index),
            watermark_ms: context.metrics.gauge(WATERMARK_MS, name, index),
            source,
            context,
        })
    }

    /// Holds splits back that run too far ahead of the others.
    #[must_use]
    pub fn aligned(mut self, alignment: Option<Aligned>) -> Self {
        self.alignment = alignment;
        self
    }

    /// Takes this task's share of `all` splits that it does not read yet. Shares go by position in the sorted list, so every
    /// task must be given the same list.
    ///
    /// # Errors
    /// A position that is gone, a topic that was made again.
    pub fn assign(&mut self, all: &[SplitState], now_ms: i64) -> Result<()> {
        let mut sorted: Vec<&SplitState> = all.iter().collect();
        sorted.sort_by(|a, b| a.split.id.cmp(&b.split.id));
        let parallelism = self.context.parallelism as usize;
        let mine: Vec<SplitState> = sorted
            .into_iter()
            .enumerate()
            .filter(|(i, s)| (i % parallelism == self.context.index as usize || planted(Bug::ShareASplit)) && !self.reads(&s.split.id))
            .map(|(_, s)| s.clone())
            .collect();
        self.take(mine, now_ms)
    }

    /// Takes splits found while running. `first` is how many splits the job had before, so that shares go on evenly.
    ///
    /// # Errors
    /// As [`assign`](Self::assign).
    pub fn add(&mut self, found: &[SplitState], first: usize, now_ms: i64) -> Result<()> {
        let parallelism = self.context.parallelism as usize;
        let mine = found
            .iter()
            .enumerate()
            .filter(|(i, s)| (first + i) % parallelism == self.context.index as usize && !self.reads(&s.split.id))
            .map(|(_, s)| s.clone())
            .collect();
        self.take(mine, now_ms)
    }

    fn reads(&self, id: &SplitId) -> bool {
        self.splits.iter().any(|r| r.state.split.id == *id)
    }

    fn take(&mut self, mut mine: Vec<SplitState>, now_ms: i64) -> Result<()> {
        if planted(Bug::RereadOneRecord) {
            mine.iter_mut().filter(|s| s.position > s.split.start).for_each(|s| s.position -= 1);
        }
        if planted(Bug::SkipOneRecord) {
            mine.iter_mut().filter(|s| s.position > s.split.start).for_each(|s| s.position += 1);
        }
        if mine.is_empty() {
            return Ok(());
        }
        let open: Vec<SplitState> = mine.iter().filter(|s| !s.ended).cloned().collect();
        self.reader.assign(&open).map_err(|e| self.place(e))?;
        for state in mine {
            let generator = self.watermarks.as_ref().map(WatermarkStrategy::generator);
            self.splits.push(Reading { state, generator, active_ms: now_ms, idle: false, held: false });
        }
        self.said_idle = false;
        self.fresh = true;
        Ok(())
    }

    /// What the checkpoint keeps.
    pub fn states(&self) -> Vec<SplitState> {
        let all_read = self.reader.all_read();
        self.splits.iter().map(|r| SplitState { all_read: all_read.contains(&r.state.split.id), ..r.state.clone() }).collect()
    }

    /// Forgets those of these splits, which are gone, of which all has been read; which they are. One that was read in part stays, and
    /// the reader fails of it.
    pub fn forget(&mut self, gone: &BTreeSet<SplitId>) -> BTreeSet<SplitId> {
        let all_read = self.reader.all_read();
        let is_over = |r: &&Reading| gone.contains(&r.state.split.id) && (r.state.ended || all_read.contains(&r.state.split.id));
        let over: BTreeSet<SplitId> = self.splits.iter().filter(is_over).map(|r| r.state.split.id.clone()).collect();
        self.splits.retain(|r| !over.contains(&r.state.split.id));
        self.reader.forget(&over);
        over
    }

    /// The checkpoint that named these positions is complete.
    pub fn committed(&mut self, positions: &[(SplitId, i64)]) {
        self.reader.committed(positions);
    }

    /// The highest watermark that has left.
    pub fn watermark(&self) -> EventTime {
        self.emitted
    }

    /// Whether a table is still to be read in: no barrier can be let in before that.
    pub fn reads_in(&self) -> bool {
        !planted(Bug::EagerBarrier) && self.splits.iter().any(|r| !Self::is_read_in(&r.state))
    }

    fn is_read_in(state: &SplitState) -> bool {
        state.ended || state.split.bootstrap_end.is_none_or(|end| state.position >= end)
    }

    /// Whether a table has been read up to where its stream may pass, and the watermark has left that says so: a task without
    /// splits says it with its first step. Until then no barrier may be let in: the join at the other end takes nothing but
    /// the table, so it would wait for the stream's barrier for ever.
    pub fn is_bootstrapped(&self) -> bool {
        let has_said = !self.fresh || planted(Bug::EagerBarrier);
        has_said && self.splits.iter().all(|r| Self::is_read_in(&r.state))
    }

    /// Every split has been read to its end (and the source is bounded).
    pub fn has_ended(&self) -> bool {
        self.said_end
    }

    /// Whether the source ends by itself.
    pub fn is_bounded(&self) -> bool {
        self.source.is_bounded()
    }

    /// Reads one batch and sends it down.
    ///
    /// # Errors
    /// Of the reader or of an operator below.
    pub fn step(&mut self, now_ms: i64, targets: &mut Targets) -> Result<SourceStep> {
        if self.said_end {
            return Ok(SourceStep::Empty);
        }
        if std::mem::take(&mut self.fresh) {
            // A restored watermark goes ahead of the first rows: what was late before is late again.
            self.advance(now_ms, targets)?;
            if self.said_end {
                return Ok(SourceStep::Empty);
            }
        }
        let polled = self.reader.poll().map_err(|e| self.place(e))?;
        let step = match polled {
            Poll::Batch { split, batch, next } => {
                self.rows(&split, batch, next, now_ms, targets)?;
                SourceStep::Rows
            }
            Poll::Ended { split } => {
                if let Some(reading) = self.splits.iter_mut().find(|r| r.state.split.id == split) {
                    reading.state.ended = true;
                }
                SourceStep::Rows
            }
            Poll::Empty => SourceStep::Empty,
            Poll::Waiting(why) => SourceStep::Waiting(why),
        };
        self.advance(now_ms, targets)?;
        Ok(step)
    }

    fn rows(&mut self, split: &SplitId, batch: crate::record::BatchBox, next: i64, now_ms: i64, targets: &mut Targets) -> Result<()> {
        let Some(at) = self.splits.iter().position(|r| r.state.split.id == *split) else {
            return Err(self.place(Error::restart(format!("the reader gave rows of {split}, which it was not assigned"))));
        };
        let read = batch.len() as u64;
        let rows = self.ingest.ingest(batch, &mut self.rejected).map_err(|e| self.place(e))?;
        self.records_in.add(read);
        let reading = &mut self.splits[at];
        if let Some(generator) = &mut reading.generator {
            generator.observe_rows(rows.as_any(), rows.times());
            let seen = generator.watermark().plus_ms(i64::from(planted(Bug::WatermarkAhead)));
            reading.state.watermark = reading.state.watermark.max(seen);
        }
        if read > 0 {
            reading.active_ms = now_ms;
            reading.idle = false;
        }
        let mut out = targets.output();
        for r in std::mem::take(&mut self.rejected) {
            out.reject(r.origin, EventTime(r.time), r.error)?;
        }
        out.emit(rows)?;
        targets.flush_rejected()?;
        // Only now: had something below failed, the rows would have to be read again.
        self.splits[at].state.position = next;
        Ok(())
    }

    /// Sends what has changed: watermark, idleness, end.
    fn advance(&mut self, now_ms: i64, targets: &mut Targets) -> Result<()> {
        if let Some(timeout) = self.watermarks.as_ref().and_then(WatermarkStrategy::idle_timeout) {
            for r in self.splits.iter_mut().filter(|r| !r.state.ended) {
                r.idle = !r.held && now_ms - r.active_ms >= millis(timeout);
            }
        }
        self.align();
        let ended = !self.splits.is_empty() && self.splits.iter().all(|r| r.state.ended);
        let nothing_to_read = self.splits.is_empty() || ended;
        if nothing_to_read && self.source.is_bounded() {
            self.said_end = true;
            self.emit_watermark(EventTime::MAX, targets)?;
            return targets.broadcast(|| Element::End);
        }
        let active = self.splits.iter().filter(|r| !r.state.ended && !r.idle);
        match active.map(Self::split_watermark).min() {
            Some(low) if low > self.emitted => {
                self.said_idle = false;
                self.emit_watermark(low, targets)
            }
            Some(_) => {
                if self.said_idle && self.emitted > EventTime::MIN {
                    // Rows again after idleness: downstream counts this task's watermark once more.
                    self.said_idle = false;
                    return self.emit_watermark(self.emitted, targets);
                }
                Ok(())
            }
            None if !self.said_idle => {
                self.said_idle = true;
                targets.broadcast(|| Element::Idle)
            }
            None => Ok(()),
        }
    }

    /// Holds back what is too far ahead, lets go what no longer is.
    fn align(&mut self) {
        let Some(alignment) = &self.alignment else { return };
        let waited_for = |r: &&Reading| !r.state.ended && !r.idle;
        let lowest = self.splits.iter().filter(waited_for).map(|r| r.state.watermark).min().unwrap_or(EventTime::MAX);
        let limit = alignment.limit(lowest);
        for r in self.splits.iter_mut().filter(|r| !r.state.ended) {
            let hold = r.state.watermark > limit;
            if hold != r.held {
                r.held = hold;
                self.reader.hold_back(&r.state.split.id, hold);
            }
        }
    }

    /// A table's split counts as far as it must be read before its stream may pass: nowhere, then everywhere.
    fn split_watermark(reading: &Reading) -> EventTime {
        match reading.state.split.bootstrap_end {
            Some(end) if reading.state.position >= end => EventTime::MAX,
            Some(_) => EventTime::MIN,
            None => reading.state.watermark,
        }
    }

    fn emit_watermark(&mut self, time: EventTime, targets: &mut Targets) -> Result<()> {
        self.emitted = time;
        self.watermark_ms.set(time.0);
        targets.broadcast(|| Element::Watermark(time))
    }

    fn place(&self, e: Error) -> Error {
        e.at(format!("source {}/{}", self.context.operator, self.context.index))
    }

    /// The policy of the source's records.
    pub fn policy(&self) -> ErrorPolicy {
        self.context.policy
    }

    /// What it was opened with.
    pub fn context(&self) -> &OpenContext {
        &self.context
    }
}

#[cfg(test)]
#[path = "tests/source_task.rs"]
mod tests;
