//! Temporal join: each row of a stream with the version of its key that was valid at the row's event time.
//!
//! The right input is a stream of versions: a row says what is true of its key from its event time on, until the next one;
//! some rows may say that nothing is. Rows and versions take their turn in the order of event time, when the watermark has
//! reached them, a version before the rows of its own millisecond. So of each key only the newest version behind the
//! watermark is kept, and those ahead of it.
//!
//! Invariant: results leave by (time, key bytes, arrival) with the time of their row. A late row leaves by the left late port.
//! A late version is counted and leaves by the right late port; rows that went by are not corrected, but if it is the newest of
//! its key it holds for the rows to come, as it would have had it come in time.

use super::matches::{JoinKind, Matches};
use super::{LATE_RIGHT_PORT, LEFT, PairKernel, RIGHT, take_in};
use crate::env::{Bug, planted};
use crate::error::Result;
use crate::observe::{Counter, LATE};
use crate::operators::guarded::guarded_call;
use crate::operators::{OpenContext, Operator, OperatorFactory, Output, Progress};
use crate::record::{Batch, BatchBox};
use crate::state::{AppendTable, PointTable, Side, Table, Waiting};
use crate::time::EventTime;
use std::sync::Arc;

/// Sides of the table of waiting rows: of one key and time, versions have their turn first.
const VERSIONS: Side = 0;
const ROWS: Side = 1;

/// A mark: the version says that its key has none from here on.
const ENDS: u8 = 1;

/// Rows that have their turn together.
const AT_ONCE: usize = 4096;

/// From when on it holds, and what (encoded); `None` says that there is none.
type Version = (i64, Option<Vec<u8>>);

/// Whether row `i` of a batch of versions says that its key has none from its time on.
pub type EndsVersion = Arc<dyn Fn(&dyn Batch, usize) -> bool + Send + Sync>;

/// A temporal join of a stream with the versions of its keys; `kind` is inner, left, semi or anti. `kernel` makes a kernel per
/// task.
pub fn temporal_join<N: PairKernel>(kind: JoinKind, ends: EndsVersion, kernel: impl Fn() -> N + Send + Sync + 'static) -> OperatorFactory {
    Arc::new(move || {
        let kernel = kernel();
        Box::new(TemporalJoin {
            ends: ends.clone(),
            waiting: AppendTable::new("waiting", 2, &kernel.schema()).with_key(kernel.key()),
            versions: PointTable::new("versions").with_key(kernel.key()),
            matches: Matches::new(kind, kernel),
            progress: Progress::default(),
            late: Counter::default(),
            slots: Vec::new(),
            scratch: Vec::new(),
        })
    })
}

struct TemporalJoin<N> {
    ends: EndsVersion,
    waiting: AppendTable,
    /// The newest version behind the watermark.
    versions: PointTable<Version>,
    matches: Matches<N>,
    progress: Progress,
    late: Counter,
    slots: Vec<u32>,
    scratch: Vec<u8>,
}

impl<N: PairKernel> TemporalJoin<N> {
    /// Takes versions in: those ahead of the watermark wait, a late one holds at once if it is the newest.
    fn take_versions(&mut self, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let Some(keys) = batch.keys() else { unreachable!("plan bug: a temporal join needs keyed versions") };
        self.waiting.resolve(keys, &mut self.slots);
        let mut late = Vec::new();
        for (i, &time) in batch.times().iter().enumerate() {
            self.scratch.clear();
            let (kernel, scratch) = (self.matches.kernel(), &mut self.scratch);
            let encoded = guarded_call(|| {
                kernel.encode(RIGHT, &*batch, i, scratch);
                (self.ends)(&*batch, i)
            });
            match encoded {
                Ok(ends) if self.progress.is_late(time) => late.push((i as u32, time.0, (!ends).then(|| self.scratch.clone()))),
                Ok(ends) => self.waiting.append_marked(VERSIONS, self.slots[i], time, &self.scratch, if ends { ENDS } else { 0 }),
                Err(error) => out.reject(batch.origins().map(|o| o.0[i].clone()), time, error)?,
            }
        }
        if late.is_empty() {
            return Ok(());
        }
        self.late.add(late.len() as u64);
        self.versions.resolve(keys, &mut self.slots)?;
        let mut targets = vec![0; batch.len()];
        for (i, time, version) in late {
            targets[i as usize] = 1;
            let slot = self.slots[i as usize];
            if self.versions.get(slot).is_none_or(|(newest, _)| time >= *newest) {
                self.versions.insert(slot, (time, version));
            }
        }
        match batch.scatter(&targets, 2).pop() {
            Some(late) if out.is_connected(LATE_RIGHT_PORT) => out.emit_to(LATE_RIGHT_PORT, late),
            _ => Ok(()),
        }
    }

    /// Rows and versions whose turn has come, in order.
    fn turns(&mut self, due: &[(EventTime, Waiting)], out: &mut Output<'_>) -> Result<()> {
        let keys = self.waiting.index().keys(due.iter().map(|(_, waiting)| waiting.slot));
        self.versions.resolve(&keys, &mut self.slots)?;
        for (&(time, waiting), &slot) in due.iter().zip(&self.slots) {
            let row = waiting.row;
            if self.waiting.side(row) == VERSIONS {
                let version = match self.waiting.mark(row) {
                    ENDS => None,
                    _ => Some(self.waiting.bytes_of(row)?.into_owned()),
                };
                let older = i64::from(planted(Bug::OlderVersion));
                if self.versions.get(slot).is_none_or(|(newest, _)| time.0 >= newest.saturating_add(older)) {
                    self.versions.insert(slot, (time.0, version));
                }
            } else {
                let bytes = &self.waiting.bytes_of(row)?;
                let has_version = match self.versions.get(slot) {
                    Some((_, Some(version))) => self.matches.meet(bytes, false, version, time, out)?,
                    _ => false,
                };
                if !has_version {
                    self.matches.stays_alone(LEFT, bytes, time, out)?;
                }
            }
            self.waiting.release(row)?;
        }
        Ok(())
    }
}

impl<N: PairKernel> Operator for TemporalJoin<N> {
    fn open(&mut self, context: &OpenContext) -> Result<()> {
        self.late = context.metrics.counter(LATE, context.operator.as_str(), context.index);
        self.progress.owns(&context.groups);
        self.matches.kernel().check()
    }

    fn tables(&mut self) -> Vec<&mut dyn Table> {
        vec![&mut self.waiting, &mut self.versions]
    }

    fn on_batch(&mut self, input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        if input == RIGHT {
            return self.take_versions(batch, out);
        }
        let progress = self.progress;
        let kernel = self.matches.kernel();
        let to = (&mut self.waiting, &mut self.slots, &mut self.scratch);
        let encode = |batch: &dyn Batch, row: usize, bytes: &mut Vec<u8>| kernel.encode(LEFT, batch, row, bytes);
        take_in((LEFT, ROWS), batch, encode, |time| progress.is_late(time), to, &self.late, out)
    }

    fn on_watermark(&mut self, watermark: EventTime, out: &mut Output<'_>) -> Result<()> {
        if !self.progress.advance(watermark) {
            return Ok(());
        }
        let (mut due, mut rows) = (Vec::new(), Vec::new());
        loop {
            due.clear();
            while due.len() < AT_ONCE
                && let Some(time) = self.waiting.take_due(watermark, &mut rows)
            {
                due.extend(rows.iter().map(|&row| (time, row)));
            }
            if due.is_empty() {
                break;
            }
            self.turns(&due, out)?;
        }
        for side in [VERSIONS, ROWS] {
            self.waiting.set_floor(side, watermark.plus_ms(1));
        }
        self.matches.flush(out)
    }

    fn save(&mut self) -> Vec<u8> {
        self.progress.save()
    }

    fn restore(&mut self, blobs: &[Vec<u8>]) -> Result<()> {
        // What waits of keys that are behind has its turn with the next watermark.
        self.progress.restore(blobs).map(drop)
    }
}
