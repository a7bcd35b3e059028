//! What the job log says, entry by entry, and what it adds up to.
//!
//! Invariant: [`JobHistory`] is the fold of the entries in order and nothing else; the same entries give the same history.

use super::manifest::{LaneId, SinkLanes};
use crate::operators::Split;
use crate::record::{BarrierKind, Epoch, OperatorId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A point in a history of epochs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// Lineage.
    pub lineage: String,
    /// The last epoch that belongs to what comes after.
    pub epoch: Epoch,
}

/// A complete checkpoint: where its manifest is, and how to know it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRef {
    /// Epoch that ends with it.
    pub epoch: Epoch,
    /// Its lineage.
    pub lineage: String,
    /// Why it was made.
    pub kind: BarrierKind,
    /// Name of the manifest in the job's folder.
    pub manifest: String,
    /// Bytes of the manifest.
    pub len: u64,
    /// CRC-32 of the whole manifest file.
    pub crc: u32,
    /// Folder of the savepoint it was made for.
    pub savepoint: Option<String>,
}

impl CheckpointRef {
    /// As a point in history.
    pub fn point(&self) -> Fork {
        Fork { lineage: self.lineage.clone(), epoch: self.epoch }
    }
}

/// A lane's output up to an epoch is committed outside, and we were told so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Which lane.
    pub lane: LaneId,
    /// Lineage of the epoch.
    pub lineage: String,
    /// Newest epoch that is out.
    pub epoch: Epoch,
}

/// Where a lineage begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum Start {
    /// With empty state, at the pinned start of every split.
    Fresh,
    /// From a retained checkpoint of this job's folder: a fall-back.
    Checkpoint {
        /// Which.
        checkpoint: CheckpointRef,
    },
    /// From a savepoint's folder.
    Savepoint {
        /// The folder, as given.
        path: String,
        /// What it holds.
        point: Fork,
        /// CRC-32 of its manifest: another savepoint in the same folder is not taken for it.
        crc: u32,
    },
}

impl Start {
    /// The point in an older lineage that it continues.
    pub fn parent(&self) -> Option<Fork> {
        match self {
            Start::Fresh => None,
            Start::Checkpoint { checkpoint } => Some(checkpoint.point()),
            Start::Savepoint { point, .. } => Some(point.clone()),
        }
    }
}

/// One entry of the job log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub enum LogEntry {
    /// The first one: the job exists from here.
    JobCreated {
        /// Name.
        job: String,
        /// Publish lanes of each exactly-once sink.
        lanes: Vec<SinkLanes>,
        /// Number of key groups, for good.
        max_parallelism: u16,
        /// First lineage.
        lineage: String,
        /// Where it begins.
        start: Start,
    },
    /// A coordinator has taken over; whoever wrote before cannot write any more.
    AttemptStarted {
        /// Fresh, unique.
        attempt: String,
        /// Instances of the widest operator.
        parallelism: u32,
        /// Lineage it found.
        lineage: String,
        /// Lanes of the sinks that the plan has now.
        lanes: Vec<SinkLanes>,
    },
    /// Where a source begins in its splits; written before the first read.
    SplitsPinned {
        /// Source operator.
        source: OperatorId,
        /// Its splits.
        splits: Vec<Split>,
    },
    /// A checkpoint is complete: from here it is what a restart restores.
    CheckpointComplete {
        /// Which.
        checkpoint: CheckpointRef,
        /// What was published since the last entry.
        published: Vec<Published>,
        /// Manifests that are not retained any more; their files go after this entry.
        dropped: Vec<CheckpointRef>,
    },
    /// What was published since the last entry, at recovery and at a graceful stop.
    Published {
        /// Per lane.
        published: Vec<Published>,
    },
    /// A new lineage begins; epochs count from 1 again.
    Forked {
        /// Its name.
        lineage: String,
        /// Where it begins.
        start: Start,
    },
    /// All entries before this one, folded; they may be deleted.
    Folded {
        /// What they add up to.
        history: Box<JobHistory>,
    },
}

/// A source's splits as first pinned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinned {
    /// Source operator.
    pub source: OperatorId,
    /// Its splits, in the order of their ids.
    pub splits: Vec<Split>,
}

/// What the log says of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobHistory {
    /// Name.
    pub job: String,
    /// Number of key groups.
    pub max_parallelism: u16,
    /// Publish lanes of the newest attempt's sinks.
    pub lanes: Vec<SinkLanes>,
    /// Present lineage.
    pub lineage: String,
    /// Where it begins.
    pub start: Start,
    /// Complete and retained checkpoints of all lineages, oldest first.
    pub retained: Vec<CheckpointRef>,
    /// What each lane of the present lineage is known to have published.
    pub published: Vec<Published>,
    /// Newest attempt.
    pub attempt: String,
    /// Number of attempts.
    pub attempts: u64,
    /// Parallelism of every attempt since the newest checkpoint, sorted.
    pub parallelisms: Vec<u32>,
    /// Pinned splits of the present lineage.
    pub pinned: Vec<Pinned>,
}

impl JobHistory {
    /// The newest complete checkpoint of the present lineage.
    pub fn newest(&self) -> Option<&CheckpointRef> {
        self.retained.iter().rfind(|c| c.lineage == self.lineage)
    }

    /// Newest complete epoch of the present lineage; 0 before the first.
    pub fn epoch(&self) -> Epoch {
        self.newest().map_or(0, |c| c.epoch)
    }

    /// What a lane of the present lineage is known to have published; 0 for nothing.
    pub fn published(&self, lane: &LaneId) -> Epoch {
        self.published.iter().find(|p| p.lane == *lane).map_or(0, |p| p.epoch)
    }

    /// The splits pinned for a source in this lineage.
    pub fn pinned(&self, source: &OperatorId) -> Option<&[Split]> {
        self.pinned.iter().find(|p| p.source == *source).map(|p| &p.splits[..])
    }

    /// Every lane that the newest attempt publishes.
    pub fn lane_ids(&self) -> Vec<LaneId> {
        let lanes = |s: &SinkLanes| (0..s.lanes).map(|lane| LaneId { sink: s.sink.clone(), lane }).collect::<Vec<_>>();
        self.lanes.iter().flat_map(lanes).collect()
    }

    /// Adds the next entry. `Err` says why it cannot follow what came before.
    pub(super) fn apply(history: &mut Option<JobHistory>, entry: &LogEntry) -> Result<(), String> {
        match (entry, &mut *history) {
            (LogEntry::JobCreated { job, lanes, max_parallelism, lineage, start }, None) => {
                *history = Some(JobHistory {
                    job: job.clone(),
                    max_parallelism: *max_parallelism,
                    lanes: lanes.clone(),
                    lineage: lineage.clone(),
                    start: start.clone(),
                    retained: Vec::new(),
                    published: Vec::new(),
                    attempt: String::new(),
                    attempts: 0,
                    parallelisms: Vec::new(),
                    pinned: Vec::new(),
                });
                Ok(())
            }
            (LogEntry::Folded { history: folded }, None) => {
                *history = Some((**folded).clone());
                Ok(())
            }
            (LogEntry::Folded { history: folded }, Some(known)) if **folded == *known => Ok(()),
            (LogEntry::Folded { .. }, Some(_)) => Err("it does not add up to the entries before it".into()),
            (LogEntry::JobCreated { .. }, Some(_)) => Err("the job was created before".into()),
            (_, None) => Err("no job was created before".into()),
            (entry, Some(known)) => known.follow(entry),
        }
    }

    fn follow(&mut self, entry: &LogEntry) -> Result<(), String> {
        match entry {
            LogEntry::JobCreated { .. } | LogEntry::Folded { .. } => {}
            LogEntry::AttemptStarted { attempt, parallelism, lanes, .. } => {
                self.attempt.clone_from(attempt);
                self.attempts += 1;
                if let Err(at) = self.parallelisms.binary_search(parallelism) {
                    self.parallelisms.insert(at, *parallelism);
                }
                self.lanes.clone_from(lanes);
            }
            LogEntry::SplitsPinned { source, splits } => self.pin(source, splits),
            LogEntry::CheckpointComplete { checkpoint, published, dropped } => {
                if checkpoint.lineage != self.lineage || checkpoint.epoch <= self.epoch() {
                    return Err(format!("epoch {} cannot follow epoch {}", checkpoint.epoch, self.epoch()));
                }
                self.note(published)?;
                self.retained.retain(|c| !dropped.iter().any(|d| d.manifest == c.manifest));
                self.retained.push(checkpoint.clone());
                self.parallelisms.clear();
            }
            LogEntry::Published { published } => self.note(published)?,
            LogEntry::Forked { lineage, start } => {
                self.lineage.clone_from(lineage);
                self.start = start.clone();
                self.published.clear();
                self.pinned.clear();
            }
        }
        Ok(())
    }

    fn note(&mut self, published: &[Published]) -> Result<(), String> {
        for new in published {
            if new.lineage != self.lineage || new.epoch < self.published(&new.lane) {
                return Err(format!("lane {} cannot go back to epoch {}", new.lane, new.epoch));
            }
            match self.published.iter_mut().find(|p| p.lane == new.lane) {
                Some(known) => known.epoch = new.epoch,
                None => self.published.push(new.clone()),
            }
        }
        self.published.sort_by(|a, b| a.lane.cmp(&b.lane));
        Ok(())
    }

    /// Pins stay: a split that is pinned already keeps its first start.
    fn pin(&mut self, source: &OperatorId, splits: &[Split]) {
        let mut all: BTreeMap<_, Split> = splits.iter().map(|s| (s.id.clone(), s.clone())).collect();
        if let Some(known) = self.pinned.iter().position(|p| p.source == *source) {
            all.extend(self.pinned.remove(known).splits.into_iter().map(|s| (s.id.clone(), s)));
        }
        self.pinned.push(Pinned { source: source.clone(), splits: all.into_values().collect() });
        self.pinned.sort_by(|a, b| a.source.cmp(&b.source));
    }
}
