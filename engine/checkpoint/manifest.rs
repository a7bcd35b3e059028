//! The manifest: all that a checkpoint consists of, by name, length and checksum.
//!
//! Invariant: what a manifest names was durable before the manifest was written, and nothing is restored that it does not
//! name. It starts with its version; a newer one is refused by name.

use super::entry::{Fork, Published};
use super::seal::{seal, unseal};
use crate::error::Result;
use crate::operators::{SegmentRef, SplitState};
use crate::record::{BarrierKind, Epoch, KeyGroup, OperatorId, TaskId};
use crate::state::StateFile;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Version of the manifest's format.
pub(super) const MANIFEST_VERSION: u16 = 1;

/// One checkpoint, whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Of this format.
    pub version: u16,
    /// Job name.
    pub job: String,
    /// The attempt that made it.
    pub attempt: String,
    /// One unbroken history of epochs.
    pub lineage: String,
    /// Where the lineage forked from.
    pub parent: Option<Fork>,
    /// The epoch that ends here.
    pub epoch: Epoch,
    /// Why it was made.
    pub kind: BarrierKind,
    /// When it was stored, in milliseconds since the Unix epoch.
    pub wall_ms: i64,
    /// Number of key groups.
    pub max_parallelism: u16,
    /// Version of the key encoding.
    pub key_codec: u16,
    /// The plan that ran.
    pub plan: PlanSummary,
    /// Publish lanes of each exactly-once sink.
    pub lanes: Vec<SinkLanes>,
    /// One per task, in task order.
    pub tasks: Vec<TaskSnapshot>,
    /// Segments of earlier epochs that were not known to be published.
    pub unpublished: Vec<SinkSegment>,
    /// What was known to be published: each lane's segments here begin after it.
    pub published: Vec<Published>,
}

/// The plan, as far as a restore compares it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PlanSummary {
    /// Equal for equal plans.
    pub fingerprint: String,
    /// All operators, in plan order.
    pub operators: Vec<PlanOperator>,
}

/// One operator of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanOperator {
    /// Stable id.
    pub id: OperatorId,
    /// Number of instances.
    pub parallelism: u32,
    /// Its keyed tables.
    pub tables: Vec<TableSchema>,
}

/// A table and what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSchema {
    /// Name within the operator.
    pub name: String,
    /// Codec version and schema of key and value.
    pub schema: String,
}

/// How many lanes a sink has, fixed at job creation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkLanes {
    /// Sink operator.
    pub sink: OperatorId,
    /// Its lanes are `0..lanes`.
    pub lanes: u32,
}

/// One lane of one sink.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LaneId {
    /// Sink operator.
    pub sink: OperatorId,
    /// Which.
    pub lane: u32,
}

impl std::fmt::Display for LaneId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.sink, self.lane)
    }
}

/// What one task answers to a barrier once everything it names is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSnapshot {
    /// Which task.
    pub task: TaskId,
    /// Key groups it owns.
    pub groups: Range<KeyGroup>,
    /// Files of its keyed state; empty when it has none.
    pub files: Vec<SnapshotFile>,
    /// One per operator of its chain.
    pub operators: Vec<OperatorSnapshot>,
    /// Output staged in this epoch.
    pub segments: Vec<SinkSegment>,
    /// Its input has ended and it has nothing more to do.
    pub finished: bool,
}

/// A state file and where it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotFile {
    /// Name in the snapshot's folder, length, checksum.
    pub state: StateFile,
    /// Name in the job's folder (or in the savepoint's).
    pub path: String,
}

/// What one operator instance saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorSnapshot {
    /// Stable id.
    pub id: OperatorId,
    /// What its `save` gave.
    #[serde(with = "hex")]
    pub blob: Vec<u8>,
    /// Of a source: its splits and positions.
    pub splits: Vec<SplitState>,
    /// Its keyed tables in the task's files.
    pub tables: Vec<TableSchema>,
}

impl OperatorSnapshot {
    /// Whether anything would be lost without it.
    pub fn has_state(&self) -> bool {
        !self.blob.is_empty() || !self.splits.is_empty() || !self.tables.is_empty()
    }
}

/// A staged segment and the sink it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkSegment {
    /// Sink operator.
    pub sink: OperatorId,
    /// The segment.
    pub segment: SegmentRef,
}

impl SinkSegment {
    /// The lane that publishes it.
    pub fn lane(&self) -> LaneId {
        LaneId { sink: self.sink.clone(), lane: self.segment.lane }
    }
}

impl Manifest {
    /// The bytes to store.
    ///
    /// # Errors
    /// None for a manifest that can be written as JSON, and every one can.
    pub fn encode(&self) -> Result<Vec<u8>> {
        seal(self)
    }

    /// Verifies and parses. `what` names the file in messages.
    ///
    /// # Errors
    /// Fatal when it is cut, damaged or of a newer version.
    pub fn decode(what: &str, bytes: &[u8]) -> Result<Manifest> {
        unseal(&format!("manifest {what}"), MANIFEST_VERSION, bytes)
    }

    /// Every state file, in task order.
    pub fn files(&self) -> impl Iterator<Item = &SnapshotFile> {
        self.tasks.iter().flat_map(|t| &t.files)
    }

    /// Every segment it names, carried ones first; what is published already is among them.
    pub fn segments(&self) -> impl Iterator<Item = &SinkSegment> {
        self.unpublished.iter().chain(self.tasks.iter().flat_map(|t| &t.segments))
    }

    /// The segments of a lane after an epoch, in the order in which they are published: (epoch, task, sequence).
    pub fn segments_after(&self, lane: &LaneId, epoch: Epoch) -> Vec<SegmentRef> {
        let wanted = |s: &&SinkSegment| s.sink == lane.sink && s.segment.lane == lane.lane && s.segment.epoch > epoch;
        let mut segments: Vec<_> = self.segments().filter(wanted).map(|s| s.segment.clone()).collect();
        segments.sort_by_key(|s| (s.epoch, s.task, s.sequence));
        segments
    }
}

/// Small blobs as hexadecimal text.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&bytes.iter().map(|b| format!("{b:02x}")).collect::<String>())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(d)?;
        let digit = |c: u8| char::from(c).to_digit(16).map(|d| d as u8);
        let byte = |pair: &[u8]| match pair {
            [a, b] => Some(digit(*a)? << 4 | digit(*b)?),
            _ => None,
        };
        text.as_bytes().chunks(2).map(|pair| byte(pair).ok_or_else(|| D::Error::custom("not hexadecimal"))).collect()
    }
}
