//! The contract of a sink: write, prepare, publish.
//!
//! A [`Sink`] is a description, shared. [`Sink::writer`] makes the writing half, one per task; for exactly-once sinks
//! [`Sink::lane`] makes the publishing half, one per **lane** (a fixed number per job; lane = hash(topic, partition)).
//!
//! Exactly once is *stage, then publish*. During epoch N writers stream records into segments ([`super::staging`]), one per
//! lane. `prepare(N)` seals them; they are part of checkpoint N. When checkpoint N is complete, each lane publishes its
//! segments in (epoch, task, sequence) order in one short transaction together with a **marker** (lineage, N). Whatever dies
//! in between, the marker tells after the next fence whether N is out. Staging must refuse what the outside would refuse
//! (size, partition, rights): an unpublishable segment in a complete checkpoint would block the job for ever.
//!
//! At-least-once and idempotent sinks write at once and flush in `prepare`.
//!
//! Order of calls on a writer, from the task's thread: `write` when `ready`; `prepare(N)` at the barrier, then `prepared`
//! again and again until it gives epoch N's segments. A `write` in between belongs to epoch N+1 (a writer that cannot take it
//! yet says so through `ready`). Nothing blocks. Order of calls on a lane, from one background thread (all
//! may block): `fence` once, `marker`, perhaps `scan`, then `publish` per epoch (or several epochs at once).

use super::{OpenContext, SegmentRef};
use crate::error::Result;
use crate::record::{BatchBox, Epoch};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;

/// What a sink promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Guarantee {
    /// Every result is in the committed output once.
    ExactlyOnce,
    /// Results may repeat after a failure.
    AtLeastOnce,
    /// Results may repeat, and repeating them changes nothing (upsert by key).
    IdempotentUpsert,
    /// Nothing leaves (blackhole) or nobody keeps it (print).
    None,
}

/// A sink's description. Connectors implement it.
pub trait Sink: Send + Sync {
    /// One line for `explain`: kind and place, no secrets.
    fn describe(&self) -> String;
    /// What it promises.
    fn guarantee(&self) -> Guarantee;
    /// Number of publish lanes, fixed at job creation; 0 for sinks that write at once.
    fn lanes(&self) -> u32;
    /// Connects and checks topics and rights before anything runs. May block.
    ///
    /// # Errors
    /// What a person must mend, or transient.
    fn check(&self) -> Result<()>;
    /// The writing half, one per task.
    ///
    /// # Errors
    /// Settings that cannot work.
    fn writer(&self, context: WriterContext) -> Result<Box<dyn SinkWriter>>;
    /// The publishing half of one lane. Called on a background thread.
    ///
    /// # Errors
    /// Settings that cannot work.
    fn lane(&self, context: PublisherContext) -> Result<Box<dyn LanePublisher>>;
}

/// What a writer gets at start.
#[derive(Clone)]
pub struct WriterContext {
    /// Instance, environment, metrics.
    pub open: OpenContext,
    /// Folder for staged segments.
    pub staging: PathBuf,
    /// Unique per attempt, part of segment names: two attempts never write the same file.
    pub attempt: String,
    /// Wakes the task when `ready` or `prepared` may have changed.
    pub waker: Arc<dyn Fn() + Send + Sync>,
}

/// The writing half.
pub trait SinkWriter: Send {
    /// Whether another batch may come.
    ///
    /// # Errors
    /// What went wrong with earlier ones.
    fn ready(&mut self) -> Result<bool>;
    /// Takes a batch: `RawBatch` for topic sinks, `Rows<T>` for typed ones.
    ///
    /// # Errors
    /// Stops the task. A record that the outside would refuse is an error here, not at publish.
    fn write(&mut self, batch: BatchBox) -> Result<()>;
    /// The epoch ends: begin to make everything written so far safe.
    ///
    /// # Errors
    /// The epoch fails, the task restarts.
    fn prepare(&mut self, epoch: Epoch) -> Result<()>;
    /// `Some` once everything up to the last `prepare` is safe: durable in the segments named, or durable outside.
    ///
    /// # Errors
    /// The epoch fails, the task restarts.
    fn prepared(&mut self) -> Result<Option<Vec<SegmentRef>>>;
}

/// What a publisher gets at start.
#[derive(Clone)]
pub struct PublisherContext {
    /// Job name.
    pub job: String,
    /// Sink operator.
    pub operator: String,
    /// Which lane.
    pub lane: u32,
    /// Folder of the staged segments, the writers' [`WriterContext::staging`].
    pub staging: PathBuf,
    /// The environment.
    pub env: crate::env::Env,
}

impl PublisherContext {
    /// `<job>/<sink>/<lane>`: transactional id and marker name, stable over attempts, never shared.
    pub fn lane_name(&self) -> String {
        format!("{}/{}/{}", self.job, self.operator, self.lane)
    }
}

/// What a lane wrote last, in the same transaction as the records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneMarker {
    /// The lineage the epoch belongs to; new at each fresh start, savepoint restore or fall-back.
    pub lineage: String,
    /// Newest epoch published.
    pub epoch: Epoch,
    /// The lineage and epoch this lineage forked from.
    pub parent: Option<(String, Epoch)>,
}

/// Whether records of an unknown outcome are in the committed output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanOutcome {
    /// They are there.
    Present,
    /// They are not.
    Absent,
    /// The range where they would be is gone, or what is there is ambiguous: a person must decide.
    Unknown,
}

/// The publishing half of one lane. All calls may block; each has a deadline of its own inside.
pub trait LanePublisher: Send {
    /// Shuts out every older publisher of this lane and settles its last transaction, one way or the other.
    ///
    /// # Errors
    /// Transient while the outside is away.
    fn fence(&mut self) -> Result<()>;
    /// The marker of the last committed transaction, read with stability (a pending one is waited for, never "absent").
    ///
    /// # Errors
    /// As `fence`.
    fn marker(&mut self) -> Result<Option<LaneMarker>>;
    /// Looks for the segments' records in the committed output, from the end offsets noted at staging.
    ///
    /// # Errors
    /// As `fence`.
    fn scan(&mut self, segments: &[SegmentRef]) -> Result<ScanOutcome>;
    /// Publishes segments, in the order given, and the marker, atomically. `Ok` only when it is committed. After any error the
    /// outcome is unknown: the caller fences again and reads the marker.
    ///
    /// # Errors
    /// Transient (fence, read the marker, try again), or fatal: the records can never be published; the segments are kept.
    fn publish(&mut self, marker: &LaneMarker, segments: &[SegmentRef]) -> Result<()>;
}
