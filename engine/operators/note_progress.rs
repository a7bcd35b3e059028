//! Tells a sink, at each barrier, how far event time has come: for sinks whose publishers act on it.
//!
//! The publishing half of a sink sees staged records only, so a note is one: without a value, its key says which task of how
//! many it is of, its timestamp how far that task has come. After the last row that is [`EventTime::MAX`].
//!
//! Invariant: a note leaves behind all rows of its epoch that the watermark in it speaks of. Before the first watermark, and
//! after a restore until the next one, it says [`EventTime::MIN`]: nothing is known.

use super::{OpenContext, Operator, OperatorFactory, Output};
use crate::env::{Bug, planted};
use crate::error::Result;
use crate::record::{BatchBox, Epoch, RawBatch, RawRecord};
use crate::time::EventTime;
use std::sync::Arc;

/// How far event time has come at one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgressNote {
    /// Which task.
    pub task: u32,
    /// Of how many.
    pub tasks: u32,
    /// Its watermark.
    pub watermark: EventTime,
}

impl ProgressNote {
    /// Appends it to records for this topic.
    ///
    /// ```
    /// use waterwheel_engine::{operators::ProgressNote, record::RawBatch, time::EventTime};
    /// let note = ProgressNote { task: 1, tasks: 2, watermark: EventTime(7) };
    /// let mut batch = RawBatch::default();
    /// note.push(&"out".into(), &mut batch);
    /// assert_eq!(ProgressNote::of(&batch.record(0)), Some(note));
    /// ```
    pub fn push(self, topic: &Arc<str>, batch: &mut RawBatch) {
        let key = [self.task.to_le_bytes(), self.tasks.to_le_bytes()].concat();
        batch.push_parts(topic, -1, -1, self.watermark.0, Some(&key), None, &[]);
    }

    /// The note that a record is, if it is one.
    pub fn of(record: &RawRecord<'_>) -> Option<ProgressNote> {
        let (None, Some(key)) = (record.value, record.key) else { return None };
        let (task, tasks) = (key.first_chunk::<4>()?, key.get(4..)?.try_into().ok()?);
        Some(ProgressNote { task: u32::from_le_bytes(*task), tasks: u32::from_le_bytes(tasks), watermark: EventTime(record.timestamp) })
    }
}

/// Passes records on, and a note before each barrier.
pub fn note_progress() -> OperatorFactory {
    Arc::new(|| Box::new(Notes { task: 0, tasks: 1, watermark: EventTime::MIN, topic: "".into() }))
}

struct Notes {
    task: u32,
    tasks: u32,
    watermark: EventTime,
    topic: Arc<str>,
}

impl Operator for Notes {
    fn open(&mut self, context: &OpenContext) -> Result<()> {
        (self.task, self.tasks) = (context.index, context.parallelism);
        self.topic = context.operator.as_str().into();
        Ok(())
    }

    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        out.emit(batch)
    }

    fn on_watermark(&mut self, time: EventTime, _out: &mut Output<'_>) -> Result<()> {
        self.watermark = self.watermark.max(time);
        Ok(())
    }

    fn before_barrier(&mut self, _epoch: Epoch, out: &mut Output<'_>) -> Result<()> {
        let mut batch = RawBatch::with_capacity(1, 16);
        let watermark = self.watermark.plus_ms(i64::from(planted(Bug::NoteAhead)));
        ProgressNote { task: self.task, tasks: self.tasks, watermark }.push(&self.topic, &mut batch);
        out.emit(Box::new(batch))
    }
}
