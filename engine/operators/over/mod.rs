//! OVER: each row with an aggregate of the rows of its key around it, up to itself.
//!
//! Rows wait until the watermark has reached them and have their turn in the order of event time; rows of one key and time are
//! **peers**. The frame of a row is a number of rows before it (ROWS), a span of event time before it (RANGE, peers inside), or
//! all rows so far. The core sees times, keys and encoded rows; what is inside them is the kernel's ([`OverKernel`]).
//!
//! Where a frame moves on, nothing is ever subtracted: sums that overflow, infinities and rounding of rows that have left
//! leave no trace (`stacks.rs`). What a row's result is follows from the rows of its key and their order alone, to the last bit,
//! whatever the batches, watermarks and restarts.
//!
//! Invariant: every row has one result, or is late (counted, by the late port), or is rejected; results leave by (time, key
//! bytes, order of peers) with the time of their row. A row that cannot be folded is in no frame. Of a key no row is kept that
//! no later one can see; spans of time are released by the watermark, also of keys that fall silent.

mod by_key;
mod kernel;
mod ready;
mod spans;
mod stacks;
mod typed;

pub use kernel::{Called, OverKernel, Place};
pub use ready::{Lag, Lead, Numbered, Numbers};
pub use typed::{OverFunctions, Tie, TypedOver, tie};

use super::columnar::RowError;
use super::guarded::guarded_call;
use super::{LATE_PORT, OpenContext, Operator, OperatorFactory, Output, Progress, check_description};
use crate::error::{Error, Result};
use crate::observe::{Counter, LATE};
use crate::record::BatchBox;
use crate::state::{AppendTable, Side, Table, Waiting};
use crate::time::EventTime;
use by_key::{All, ByKey, Last};
use kernel::Results;
use spans::Spans;
use std::sync::Arc;

/// The rows before a row that its result is made of, besides itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// So many rows before it, one by one; `None`: all of them.
    Rows(Option<u32>),
    /// Rows at most so many milliseconds earlier, and its peers; `None`: all earlier ones.
    Range(Option<i64>),
}

/// What is wanted of [`over`].
#[derive(Debug, Clone)]
pub struct OverOptions {
    /// Which rows.
    pub frame: Frame,
    /// What is kept of a key goes when it had no row for so many milliseconds of event time. Spans go by themselves.
    pub ttl_ms: Option<i64>,
    /// The kind of the keys ([`Key::kind`](crate::record::Key::kind)), for tools.
    pub keys: Option<String>,
}

/// The only side of the table of rows.
const ROWS: Side = 0;

/// Keyed rows in, results out; late rows leave by [`LATE_PORT`] as they came. `make` makes a kernel per task.
pub fn over<K: OverKernel>(options: OverOptions, make: impl Fn() -> Result<K> + Send + Sync + 'static) -> OperatorFactory {
    Arc::new(move || -> Box<dyn Operator> {
        let kernel = match make() {
            Ok(kernel) => kernel,
            Err(error) => return Box::new(NotMade(Some(error))),
        };
        match options.frame {
            Frame::Range(Some(ms)) => Box::new(Over::new(kernel, &options, Spans::new(ms))),
            Frame::Rows(Some(_)) => Box::new(Over::new(kernel, &options, ByKey::<Last<K::Acc>>::new(&options))),
            Frame::Rows(None) | Frame::Range(None) => Box::new(Over::new(kernel, &options, ByKey::<All<K::Acc>>::new(&options))),
        }
    })
}

/// How rows of one kind of frame have their turn.
trait Frames<K: OverKernel>: Send {
    /// State besides the rows.
    fn table(&mut self) -> Option<&mut dyn Table>;
    /// The watermark has come to `watermark`: rows up to it have their turn.
    fn advance(&mut self, rows: &mut AppendTable, watermark: EventTime, results: &mut Results<K>, out: &mut Output<'_>) -> Result<()>;
    /// The input has ended.
    fn end(&mut self, _results: &mut Results<K>, _out: &mut Output<'_>) -> Result<()> {
        Ok(())
    }
    /// Rows were read back, and all wait; `had_turn(slot)` says up to when rows of a key have had their turn.
    fn restore(&mut self, _rows: &mut AppendTable, _had_turn: &dyn Fn(&AppendTable, u32) -> Option<EventTime>, _kernel: &K) -> Result<()> {
        Ok(())
    }
}

/// Rows that wait, and frames of one kind.
struct Over<K, F> {
    frame: Frame,
    results: Results<K>,
    rows: AppendTable,
    frames: F,
    progress: Progress,
    late: Counter,
    max_parallelism: u16,
    slots: Vec<u32>,
    failed: Vec<RowError>,
    scratch: Vec<u8>,
}

impl<K: OverKernel, F: Frames<K>> Over<K, F> {
    fn new(kernel: K, options: &OverOptions, frames: F) -> Self {
        let rows = AppendTable::new("rows", 1, &kernel.schema()).with_key(options.keys.clone());
        Over {
            frame: options.frame,
            results: Results::new(kernel),
            rows,
            frames,
            progress: Progress::default(),
            late: Counter::default(),
            max_parallelism: 1,
            slots: Vec::new(),
            failed: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Says what is computed.
    fn description(&self) -> String {
        format!("{:?} {}", self.frame, self.results.kernel().describe())
    }

    /// Adds the rows that are not late; counts and passes on the others.
    fn take_in(&mut self, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let Some(keys) = batch.keys() else { unreachable!("plan bug: over needs keyed rows") };
        self.rows.resolve(keys, &mut self.slots);
        self.failed.clear();
        self.results.kernel_mut().begin(&*batch, &mut self.failed)?;
        let mut failed = std::mem::take(&mut self.failed).into_iter().peekable();
        let mut targets = Vec::new();
        for (row, &time) in batch.times().iter().enumerate() {
            let origin = || batch.origins().map(|o| o.0[row].clone());
            if let Some((_, error)) = failed.next_if(|f| f.0 == row) {
                out.reject(origin(), time, error)?;
                continue;
            }
            if self.progress.is_late(time) {
                targets.resize(batch.len(), 0);
                targets[row] = 1;
                continue;
            }
            self.scratch.clear();
            let (kernel, scratch) = (self.results.kernel(), &mut self.scratch);
            match guarded_call(|| kernel.encode(&*batch, row, scratch)) {
                Ok(()) => self.rows.append(ROWS, self.slots[row], time, &self.scratch),
                Err(error) => out.reject(origin(), time, error)?,
            }
        }
        let late: u32 = targets.iter().sum();
        self.late.add(u64::from(late));
        match late > 0 && out.is_connected(LATE_PORT) {
            true => batch.scatter(&targets, 2).pop().map_or(Ok(()), |late| out.emit_to(LATE_PORT, late)),
            false => Ok(()),
        }
    }
}

/// Puts peers, given in the order of arrival, in the order that the kernel wants.
fn order_peers<K: OverKernel>(kernel: &K, rows: &AppendTable, peers: &mut [Waiting]) -> Result<()> {
    if peers.len() > 1 {
        let mut read = peers.iter().map(|peer| Ok((rows.bytes_of(peer.row)?, *peer))).collect::<Result<Vec<_>>>()?;
        read.sort_by(|(a, _), (b, _)| kernel.compare(a, b));
        peers.iter_mut().zip(read).for_each(|(peer, (_, in_order))| *peer = in_order);
    }
    Ok(())
}

impl<K: OverKernel, F: Frames<K>> Operator for Over<K, F> {
    fn open(&mut self, context: &OpenContext) -> Result<()> {
        self.late = context.metrics.counter(LATE, context.operator.as_str(), context.index);
        self.progress.owns(&context.groups);
        self.max_parallelism = context.max_parallelism;
        self.results.kernel().check()
    }

    fn tables(&mut self) -> Vec<&mut dyn Table> {
        let mut tables: Vec<&mut dyn Table> = vec![&mut self.rows];
        tables.extend(self.frames.table());
        tables
    }

    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        self.take_in(batch, out)
    }

    fn on_watermark(&mut self, watermark: EventTime, out: &mut Output<'_>) -> Result<()> {
        if !self.progress.advance(watermark) {
            return Ok(());
        }
        self.frames.advance(&mut self.rows, watermark, &mut self.results, out)?;
        self.results.flush(out)
    }

    fn on_end(&mut self, out: &mut Output<'_>) -> Result<()> {
        self.frames.end(&mut self.results, out)?;
        self.results.flush(out)
    }

    /// Length of the progress | progress | description.
    fn save(&mut self) -> Vec<u8> {
        let progress = self.progress.save();
        [&[progress.len() as u8], &progress[..], self.description().as_bytes()].concat()
    }

    fn restore(&mut self, blobs: &[Vec<u8>]) -> Result<()> {
        let (mut progress, mut descriptions) = (Vec::new(), Vec::new());
        for blob in blobs {
            let parts = blob.split_first().and_then(|(len, rest)| rest.split_at_checked(usize::from(*len)));
            let (passed, description) = parts.ok_or_else(|| Error::fatal("the saved progress of an over window is damaged"))?;
            progress.push(passed.to_vec());
            descriptions.push(description.to_vec());
        }
        check_description(&self.description(), &descriptions)?;
        let behind = self.progress.restore(&progress)?;
        let (latest, max_parallelism) = (self.progress.watermark(), self.max_parallelism);
        let had_turn = |rows: &AppendTable, slot| behind.of(rows.index().group(slot, max_parallelism), latest);
        self.frames.restore(&mut self.rows, &had_turn, self.results.kernel())
    }
}

/// Stands for an operator whose kernel could not be made: it does not open.
struct NotMade(Option<Error>);

impl Operator for NotMade {
    fn open(&mut self, _context: &OpenContext) -> Result<()> {
        Err(self.0.take().unwrap_or_else(|| Error::fatal("the kernel of an over window could not be made")))
    }

    fn on_batch(&mut self, _input: usize, _batch: BatchBox, _out: &mut Output<'_>) -> Result<()> {
        unreachable!("an operator that did not open is given nothing")
    }
}

#[cfg(test)]
mod tests;
