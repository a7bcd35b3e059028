//! What the coordinator is told and what it answers.
//!
//! Invariant: every action but `Fail` and `Finished` may be followed by others; those two are the last ever.

use super::entry::{CheckpointRef, LogEntry};
use super::manifest::{LaneId, Manifest, TaskSnapshot};
use crate::error::Error;
use crate::operators::SegmentRef;
use crate::record::{Barrier, BarrierKind, Epoch, TaskId};
use std::time::Duration;

/// How checkpoints are made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// From one barrier to the next.
    pub interval: Duration,
    /// From barrier to stored manifest; longer counts as failed.
    pub timeout: Duration,
    /// From the end of one checkpoint to the next barrier, at least.
    pub min_pause: Duration,
    /// This many may fail in a row; one more restarts the job.
    pub tolerated_failures: u32,
    /// Complete checkpoints that are kept; at least 1.
    pub retained: usize,
    /// Complete epochs whose output is not published yet; at this many no barrier flows, and sinks fill up.
    pub max_unpublished: u64,
    /// Bytes of such output; at this many no barrier flows either.
    pub max_unpublished_bytes: u64,
}

impl Default for Settings {
    /// Every second; ten minutes; no pause; three failures; three kept; sixteen or 1 GiB unpublished.
    fn default() -> Self {
        Settings {
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(600),
            min_pause: Duration::ZERO,
            tolerated_failures: 3,
            retained: 3,
            max_unpublished: 16,
            max_unpublished_bytes: 1 << 30,
        }
    }
}

/// A task, as the coordinator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRole {
    /// Which.
    pub task: TaskId,
    /// It reads a source: its input may end by itself.
    pub source: bool,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// Time has passed; see `next_wake`.
    Tick,
    /// A task takes input and barriers: its operators are open, and a table that others wait for is read in.
    TaskRunning(TaskId),
    /// A task has made its part of the epoch durable.
    TaskAck {
        /// Which epoch.
        epoch: Epoch,
        /// What it made.
        snapshot: Box<TaskSnapshot>,
    },
    /// A task could not; segments it has sealed ride in its next ack.
    TaskDeclined {
        /// Which task.
        task: TaskId,
        /// Which epoch.
        epoch: Epoch,
        /// Why.
        reason: String,
    },
    /// A source task has read its bounded input to its end.
    InputEnded(TaskId),
    /// A person wants a graceful stop.
    StopRequested,
    /// A person wants a savepoint in this folder.
    SavepointRequested {
        /// The folder.
        path: String,
    },
    /// The manifest is durable.
    ManifestStored(CheckpointRef),
    /// It is not, and will not be.
    ManifestFailed {
        /// Which epoch.
        epoch: Epoch,
        /// Why.
        reason: String,
    },
    /// The entry asked for last is in the log.
    LogAppended,
    /// Somebody else took the slot.
    LogLost,
    /// A lane's output is committed up to this epoch.
    Published {
        /// Which lane.
        lane: LaneId,
        /// Up to which epoch.
        epoch: Epoch,
    },
    /// A savepoint's copy is durable.
    SavepointStored {
        /// Its epoch.
        epoch: Epoch,
    },
    /// It could not be made.
    SavepointFailed {
        /// Its epoch.
        epoch: Epoch,
        /// Why.
        reason: String,
    },
}

/// What to do.
#[derive(Debug)]
pub enum Action {
    /// To every source task.
    InjectBarrier(Barrier),
    /// Store it, answer `ManifestStored` or `ManifestFailed`.
    StoreManifest {
        /// What to store.
        manifest: Box<Manifest>,
        /// To go into the reference.
        savepoint: Option<String>,
    },
    /// Append it, answer `LogAppended` or `LogLost`. One at a time.
    AppendLog(Box<LogEntry>),
    /// Hand to every lane; segments are in publish order. Answer `Published` per lane.
    Publish {
        /// The epoch of the marker.
        epoch: Epoch,
        /// Every lane of the job, also those without output.
        lanes: Vec<(LaneId, Vec<SegmentRef>)>,
    },
    /// Tell the tasks: sources pass positions on to lag tools.
    NotifyComplete {
        /// The complete epoch.
        epoch: Epoch,
    },
    /// Tell the tasks: this epoch's uploads are of no use. They still answer its barrier.
    Discard {
        /// The abandoned epoch.
        epoch: Epoch,
        /// Why.
        reason: String,
    },
    /// Delete these from the staging folder: published, and the log says so.
    FreeSegments(Vec<String>),
    /// Delete what only these checkpoints name.
    DeleteCheckpoints(Vec<CheckpointRef>),
    /// Copy the checkpoint into that folder; everything before it is published. Answer `SavepointStored` or `-Failed`.
    CreateSavepoint {
        /// What to copy.
        checkpoint: CheckpointRef,
        /// Where to.
        path: String,
    },
    /// Tell who asked for it.
    SavepointFinished {
        /// The folder.
        path: String,
        /// Its epoch, or why not.
        outcome: Result<Epoch, String>,
    },
    /// The job cannot go on: restart or stop, as the error's kind says.
    Fail(Error),
    /// All done: everything is complete, published, and in the log.
    Finished {
        /// `Stop` or `Final`.
        kind: BarrierKind,
    },
}
