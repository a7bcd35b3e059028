//! A model of an output with transactions: lanes, fences, markers, and every way a publish can end.
//!
//! Invariant (of the honest model): records and marker of a publish appear together or not at all, and a fenced publisher
//! changes nothing.

use super::disk::Calls;
use crate::error::{Error, Result};
use crate::operators::{LaneMarker, LanePublisher, ScanOutcome, SegmentRef};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// A rule left out, to see that the tests would notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// None: the honest model.
    None,
    /// The fence shuts nobody out and settles nothing.
    NoFence,
    /// The marker is never found, the scan finds nothing: always publish again.
    AlwaysRedo,
    /// The marker is never found, the scan finds everything: never publish again.
    NeverRedo,
    /// An absent marker is taken for "not published".
    AbsentMeansNo,
    /// The marker is read before the fence.
    MarkerBeforeFence,
    /// Whatever lineage the marker has is taken for ours.
    NoLineage,
    /// The marker is committed in a transaction of its own, before the records.
    MarkerFirst,
}

/// What a transaction holds: its records and its marker.
type Transaction = (Vec<u64>, LaneMarker);

#[derive(Default)]
struct Lane {
    generation: u64,
    committed: Vec<u64>,
    marker: Option<LaneMarker>,
    /// A commit was asked for and not answered.
    pending: Option<Transaction>,
}

#[derive(Default)]
struct Content {
    lanes: BTreeMap<u32, Lane>,
    /// Records in staged segments.
    staged: BTreeMap<String, Vec<u64>>,
    /// The lineage that the job is in, for `NoLineage`.
    lineage: String,
    coin: u64,
}

/// The output and the staged segments.
#[derive(Clone)]
pub(super) struct Topic {
    content: Arc<Mutex<Content>>,
    calls: Calls,
    fault: Fault,
}

impl Topic {
    pub(super) fn new(calls: Calls, fault: Fault, seed: u64) -> Self {
        let content = Content { coin: seed.wrapping_mul(2).wrapping_add(1), ..Content::default() };
        Topic { content: Arc::new(Mutex::new(content)), calls, fault }
    }
    pub(super) fn stage(&self, name: &str, records: Vec<u64>) {
        self.lock().staged.insert(name.into(), records);
    }
    pub(super) fn free(&self, name: &str) {
        self.lock().staged.remove(name);
    }
    pub(super) fn committed(&self, lane: u32) -> Vec<u64> {
        self.lock().lanes.get(&lane).map_or_else(Vec::new, |l| l.committed.clone())
    }
    pub(super) fn expire_markers(&self) {
        self.lock().lanes.values_mut().for_each(|l| l.marker = None);
    }
    pub(super) fn lineage_is(&self, lineage: &str) {
        self.lock().lineage = lineage.into();
    }
    pub(super) fn publisher(&self, lane: u32) -> Box<dyn LanePublisher> {
        let early = self.lock().lanes.entry(lane).or_default().marker.clone();
        Box::new(Publisher { topic: self.clone(), lane, generation: 0, early })
    }
    /// A coin of the outside.
    pub(super) fn flip(&self) -> bool {
        let mut content = self.lock();
        content.coin = content.coin.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        content.coin >> 62 & 1 == 1
    }
    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap()
    }
    fn call(&self) -> Result<()> {
        if self.calls.call() { Ok(()) } else { Err(Error::transient("the process is dead")) }
    }
}

struct Publisher {
    topic: Topic,
    lane: u32,
    generation: u64,
    early: Option<LaneMarker>,
}

impl Publisher {
    fn lane<R>(&self, f: impl FnOnce(&mut Lane) -> R) -> R {
        f(self.topic.lock().lanes.entry(self.lane).or_default())
    }
    fn check_fence(&self) -> Result<()> {
        if self.lane(|l| l.generation) == self.generation { Ok(()) } else { Err(Error::transient("fenced")) }
    }
    fn commit(&self, (records, marker): Transaction) {
        self.lane(|l| {
            l.committed.extend(records);
            l.marker = Some(marker);
        });
    }
}

impl LanePublisher for Publisher {
    fn fence(&mut self) -> Result<()> {
        self.topic.call()?;
        if self.topic.fault == Fault::NoFence {
            self.generation = self.lane(|l| l.generation);
            return Ok(());
        }
        // What an older publisher left behind is decided here, one way or the other.
        let commits = self.topic.flip();
        self.generation = self.lane(|l| {
            l.generation += 1;
            l.generation
        });
        match self.lane(|l| l.pending.take()) {
            Some(transaction) if commits => self.commit(transaction),
            _ => {}
        }
        Ok(())
    }

    fn marker(&mut self) -> Result<Option<LaneMarker>> {
        self.topic.call()?;
        let marker = self.lane(|l| l.marker.clone());
        Ok(match self.topic.fault {
            Fault::AlwaysRedo | Fault::NeverRedo => None,
            Fault::MarkerBeforeFence => self.early.clone(),
            Fault::NoLineage => marker.map(|m| LaneMarker { lineage: self.topic.lock().lineage.clone(), ..m }),
            _ => marker,
        })
    }

    fn scan(&mut self, segments: &[SegmentRef]) -> Result<ScanOutcome> {
        self.topic.call()?;
        let content = self.topic.lock();
        let records: Vec<u64> = segments.iter().flat_map(|s| content.staged[&s.name].clone()).collect();
        let committed = &content.lanes[&self.lane].committed;
        let found = records.iter().filter(|r| committed.contains(r)).count();
        Ok(match self.topic.fault {
            Fault::NeverRedo => ScanOutcome::Present,
            Fault::AlwaysRedo | Fault::AbsentMeansNo => ScanOutcome::Absent,
            _ if found == 0 => ScanOutcome::Absent,
            _ if found == records.len() => ScanOutcome::Present,
            _ => ScanOutcome::Unknown,
        })
    }

    fn publish(&mut self, marker: &LaneMarker, segments: &[SegmentRef]) -> Result<()> {
        self.topic.call()?;
        self.check_fence()?;
        let records: Vec<u64> = {
            let content = self.topic.lock();
            let records =
                |s: &SegmentRef| content.staged.get(&s.name).cloned().ok_or_else(|| Error::fatal(format!("segment {} is gone", s.name)));
            segments.iter().map(records).collect::<Result<Vec<_>>>()?.concat()
        };
        let mut transaction = (records, marker.clone());
        if self.topic.fault == Fault::MarkerFirst {
            self.commit((Vec::new(), marker.clone()));
            transaction.1.clone_from(marker);
        }
        // The commit is asked for; whether it happens shows at the next fence if nobody is left to hear the answer.
        self.lane(|l| l.pending = Some(transaction));
        self.topic.call()?;
        self.check_fence()?;
        if let Some(transaction) = self.lane(|l| l.pending.take()) {
            self.commit(transaction);
        }
        // Committed, but the answer may be lost.
        self.topic.call()
    }
}
