//! Checkpoints: one consistent cut of a job, made durable, found again, and its output published exactly once.
//!
//! Who does what. [`Coordinator`] decides, and only decides: a pure state machine, told of events, answering with actions.
//! The runtime carries the actions out and reports back. [`JobLog`] is the one truth about which checkpoints are complete;
//! [`CheckpointStorage`] keeps bytes; [`LaneWorker`] publishes one lane; [`begin`] is everything between "the process has
//! started" and "tasks may run".
//!
//! # A job's folder
//! `<checkpoints>/<job>/`: `lock`, `log/` (one file an entry), `chk/` (manifests), `state/` (files of snapshots), `staging/`
//! (segments of sinks), `tmp/` (files not yet named). [`layout`] has the names. They hold the
//! attempt, so no two attempts ever write the same name. Where the store is elsewhere ([`Places`]), it has `log/`, `chk/`, `state/`
//! and a copy of `staging/`; the folder keeps the lock and what the process works with.
//!
//! # Start
//! 1. [`JobLock::acquire`], [`LocalStorage::open`], [`JobLog::open`].
//! 2. [`begin`]: has what will be restored verified ([`Restore::prepare`] brings all that the checkpoint names to local disk
//!    and checks it), so that damage stops the start before anything is claimed, fenced or published; claims the log
//!    (`AttemptStarted`; from here an older coordinator cannot complete anything), fences every lane, makes sure that the log is
//!    still ours, settles what the newest checkpoint left unpublished, writes `Published`, forks the lineage when asked to, writes
//!    the first marker of a new lineage. It may be called again after a transient error.
//! 3. [`sweep`] removes what dead attempts left behind.
//! 4. Tasks are built on what was verified.
//! 5. A source without a checkpoint: `splits(first)`, then `SplitsPinned` is appended **before** the first read; history
//!    has the pins of earlier attempts.
//!
//! # While running
//! The runtime feeds [`Coordinator::on`] and does every [`Action`] in order:
//! - `InjectBarrier`: to every source task; from there it flows.
//! - Each task answers each barrier with one `TaskAck` or one `TaskDeclined`, in order of epochs, also for an epoch that was
//!   discarded meanwhile and also when its input has ended. Segments sealed at a barrier that was declined ride in the next
//!   ack. So staged output of a failed checkpoint is never lost: the coordinator carries it into the next one.
//! - `StoreManifest` ([`store_manifest`]), `AppendLog` (then [`Retention::keep`]): on one background thread, in order;
//!   transient errors are retried there, visibly. An append has no other outcome than done or lost: whoever lost the slot stops.
//! - `Publish`: [`LaneWorker::push`] on each lane's thread, then [`LaneWorker::step`] until empty; each result goes back as
//!   `Published`.
//! - `FreeSegments`, `DeleteCheckpoints` ([`Retention::let_go`]): in the background; an error is logged and the next start sweeps.
//! - `CreateSavepoint`: [`savepoint::create`], then `SavepointStored` or `SavepointFailed`.
//! - `Fail` and `Finished` are the last action ever.
//!
//! Invariants: an epoch is published only after its `CheckpointComplete` entry is in the log. A file is deleted only after
//! the entry that lets go of it is in the log. Missing or damaged metadata stops the job; it never means "start fresh".

mod coordinator;
mod entry;
mod event;
mod lanes;
pub mod layout;
mod lock;
mod log;
mod manifest;
mod places;
mod read;
mod recovery;
mod restore;
mod retention;
pub mod savepoint;
mod seal;
mod storage;
mod upload;

#[cfg(test)]
mod tests;

pub use coordinator::Coordinator;
pub use entry::{CheckpointRef, Fork, JobHistory, LogEntry, Pinned, Published, Start};
pub use event::{Action, Event, Settings, TaskRole};
pub use lanes::{LaneWork, LaneWorker};
pub use layout::{FOLDERS as JOB_FOLDERS, load_manifest, state_file_name, store_manifest};
pub use lock::JobLock;
pub use log::{JobLog, LogError, LogWatch};
pub use manifest::{
    LaneId, Manifest, OperatorSnapshot, PlanOperator, PlanSummary, SinkLanes, SinkSegment, SnapshotFile, TableSchema, TaskSnapshot,
};
pub use places::{Places, Stores, bring_segment, keep_segment};
pub use read::read_state;
pub use recovery::{Begin, BeginOptions, From, OpenSavepoint, Verify, begin};
pub use restore::{Restore, RestoreTarget, RestoredTask};
pub use retention::{Retention, sweep};
pub use storage::{CheckpointStorage, LocalStorage};
pub use upload::Uploads;
