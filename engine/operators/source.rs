//! The contract of a source.
//!
//! A [`Source`] is a description, shared by all tasks; [`Source::reader`] makes the part that reads, one per task. The engine
//! owns which split is read by which task and from where; a reader never decides that and never remembers it.
//!
//! Order of calls on a reader, all from the task's thread: `assign` (again whenever a split is added), then `poll` over and
//! over; `committed` after a checkpoint is complete; dropped at the end. `poll` hands over **batches with bytes**
//! ([`RawBatch`](crate::record::RawBatch)) or typed rows, each from one split, with the position after it. It must return
//! within about a millisecond; a connector with blocking calls keeps threads of its own and wakes the task by
//! [`ReaderContext::waker`].
//!
//! On failure: transient trouble is waited out inside the reader (`poll` returns [`Poll::Waiting`] with the reason, shown to
//! the user); a position that is gone (retention) is a fatal error; anything else restarts the job from the newest
//! checkpoint. Nothing is acknowledged upstream before the checkpoint that holds the position is durable.

use super::OpenContext;
use crate::error::Result;
use crate::record::BatchBox;
use crate::time::EventTime;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A source partition's stable name: topic (or path, or generator) and number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SplitId {
    /// Topic, path or generator name.
    pub name: Arc<str>,
    /// Partition number.
    pub partition: i32,
}

impl std::fmt::Display for SplitId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.name, self.partition)
    }
}

/// A split and where a new job begins in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Which.
    pub id: SplitId,
    /// First position to be read (half-open ranges: a position names the next record).
    pub start: i64,
    /// Bounded input: the first position not to be read.
    pub end: Option<i64>,
    /// For a table read in before the stream: the end as of the first start.
    pub bootstrap_end: Option<i64>,
    /// Identity of the topic (Kafka topic id, log uuid) or of a file that does not grow: another one means deleted and made again.
    pub topic_id: Option<String>,
}

/// A split in the middle of being read; what the checkpoint keeps of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitState {
    /// The split as first seen.
    pub split: Split,
    /// Next position to be read.
    pub position: i64,
    /// The split's watermark: it is state.
    pub watermark: EventTime,
    /// Read to its end.
    pub ended: bool,
    /// All that was there of it had been read: should it go, nothing is missing. Only of splits that may go
    /// ([`Source::gone`]).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all_read: bool,
}

impl SplitState {
    /// Of a split of which nothing was read.
    pub fn fresh(split: Split) -> Self {
        SplitState { position: split.start, split, watermark: EventTime::MIN, ended: false, all_read: false }
    }
}

/// What a source can be asked before anything is read. Shared; connectors implement it.
pub trait Source: Send + Sync {
    /// One line for `explain`: kind and place, no secrets.
    fn describe(&self) -> String;
    /// Whether the input ends by itself.
    fn is_bounded(&self) -> bool;
    /// The splits of now. With `first`, `start` of each is where a new job begins (earliest, latest, a timestamp: resolved to
    /// positions here, and pinned by the engine before the first read); without, new splits begin at their beginning. May
    /// block: called on a background thread, at start and then every [`Source::discovery_ms`].
    ///
    /// # Errors
    /// Transient while the outside is away; fatal for a missing topic, no rights, bad settings.
    fn splits(&self, first: bool) -> Result<Vec<Split>>;
    /// Whether all that its readers have given came from the splits that they were told to read. Asked when every task has
    /// passed a barrier, before the checkpoint counts: rows of something else (a topic deleted and made again, whose records a
    /// client reads on as if nothing had happened) are then forgotten with the attempt, and nothing of them is published. May
    /// block.
    ///
    /// # Errors
    /// Fatal when not; transient while the outside is away.
    fn confirm(&self) -> Result<()> {
        Ok(())
    }
    /// Those of splits that [`splits`](Self::splits) no longer names which are gone for good. The job then forgets each of which
    /// all has been read, and stops if of one not all has. May block.
    ///
    /// # Errors
    /// Transient while the outside is away.
    fn gone(&self, _missing: &[SplitId]) -> Result<BTreeSet<SplitId>> {
        Ok(BTreeSet::new())
    }
    /// How often to look for new splits, in milliseconds; `None` = the splits are fixed.
    fn discovery_ms(&self) -> Option<u64> {
        None
    }
    /// The reading half, one per task.
    ///
    /// # Errors
    /// Settings that cannot work.
    fn reader(&self, context: ReaderContext) -> Result<Box<dyn SourceReader>>;
}

/// What a reader gets at start.
#[derive(Clone)]
pub struct ReaderContext {
    /// Instance, environment, metrics.
    pub open: OpenContext,
    /// Wakes the task when there is something to poll again.
    pub waker: Arc<dyn Fn() + Send + Sync>,
    /// Rows per batch to aim for.
    pub batch_rows: usize,
}

/// The reading half of a source. See the module's header for the contract.
pub trait SourceReader: Send {
    /// Reads these splits too, each from its `position`.
    ///
    /// # Errors
    /// A position that is gone, a topic that was made again.
    fn assign(&mut self, splits: &[SplitState]) -> Result<()>;
    /// The next batch of any split that is not held back.
    ///
    /// # Errors
    /// See the module.
    fn poll(&mut self) -> Result<Poll>;
    /// Stops (`true`) or resumes draining one split: event-time alignment. Prefetched data stays queued.
    fn hold_back(&mut self, _split: &SplitId, _hold: bool) {}
    /// The checkpoint with these positions is complete; for lag tools only. Must not block.
    fn committed(&mut self, _positions: &[(SplitId, i64)]) {}
    /// Splits without an end of which all that is there has been given. Only of sources whose splits may go.
    fn all_read(&self) -> BTreeSet<SplitId> {
        BTreeSet::new()
    }
    /// Reads these splits no more: they are gone, and all of them has been read.
    fn forget(&mut self, _gone: &BTreeSet<SplitId>) {}
}

/// What a poll brought.
pub enum Poll {
    /// Rows of one split. `next` is the position after them.
    Batch {
        /// Which split.
        split: SplitId,
        /// The rows: `RawBatch` from connectors, `FileRows` from those of columnar files, `Rows<T>` from typed sources.
        batch: BatchBox,
        /// Position of the record after the batch.
        next: i64,
    },
    /// A bounded split has been read to its end, at this position.
    Ended {
        /// Which split.
        split: SplitId,
    },
    /// Nothing now. The waker will be called, or ask again after a millisecond.
    Empty,
    /// The outside is away; the reader goes on trying. Shown to the user.
    Waiting(String),
}
