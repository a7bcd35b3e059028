//! Blocking work of an attempt, on background lanes, with retries.
//!
//! Invariant: chores of one lane run in the order they were started, also when one is tried again: a lane with a chore that
//! waits for its retry starts nothing else.

use crate::checkpoint::{
    CheckpointRef, CheckpointStorage, Event, JobLog, LaneId, LaneWorker, LogEntry, LogError, Manifest, Places, Retention, layout::STAGING,
    load_manifest, savepoint, store_manifest,
};
use crate::env::{Env, Moment, reached};
use crate::error::{Error, Kind, Result};
use crate::exchange::Waker;
use crate::operators::{SegmentRef, Source, Split, SplitId};
use crate::record::{Epoch, OperatorId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One piece of blocking work.
#[derive(Clone)]
pub(crate) enum Chore {
    StoreManifest { manifest: Box<Manifest>, savepoint: Option<String> },
    Append(Box<LogEntry>),
    Publish(LaneId),
    FreeSegments(Vec<String>),
    DeleteCheckpoints(Vec<CheckpointRef>),
    Savepoint { checkpoint: CheckpointRef, path: String },
    Discover { source: OperatorId, spec: Arc<dyn Source> },
    Missing { source: OperatorId, spec: Arc<dyn Source>, splits: Vec<SplitId> },
}

impl Chore {
    /// Chores of one lane run one after the other.
    fn lane(&self) -> String {
        match self {
            Chore::StoreManifest { .. } | Chore::Append(_) => "job log".into(),
            Chore::Publish(lane) => format!("publish {lane}"),
            Chore::FreeSegments(_) | Chore::DeleteCheckpoints(_) => "clean-up".into(),
            Chore::Savepoint { .. } => "savepoint".into(),
            Chore::Discover { source, .. } | Chore::Missing { source, .. } => format!("discover {source}"),
        }
    }

    fn describe(&self) -> String {
        match self {
            Chore::StoreManifest { manifest, .. } => format!("storing checkpoint {}", manifest.epoch),
            Chore::Append(_) => "writing the job log".into(),
            Chore::Publish(lane) => format!("publishing {lane}"),
            Chore::FreeSegments(_) | Chore::DeleteCheckpoints(_) => "cleaning up".into(),
            Chore::Savepoint { path, .. } => format!("writing savepoint {path}"),
            Chore::Discover { source, .. } | Chore::Missing { source, .. } => format!("looking for splits of {source}"),
        }
    }

    /// Whether its failure may be left at that. A source whose topics are gone, or others by now, is no such case.
    fn may_fail_with(&self, kind: Kind) -> bool {
        match self {
            Chore::FreeSegments(_) | Chore::DeleteCheckpoints(_) => true,
            Chore::Discover { .. } | Chore::Missing { .. } => kind != Kind::Fatal,
            _ => false,
        }
    }
}

/// What came of a chore.
pub(crate) enum ChoreDone {
    /// For the coordinator.
    Event(Event),
    /// For the status: who waits why; `None`: no longer.
    Waiting { what: String, why: Option<String> },
    /// Splits of a source as of now.
    Splits { source: OperatorId, splits: Vec<Split> },
    /// Splits of a source that are gone for good.
    Gone { source: OperatorId, splits: BTreeSet<SplitId> },
    /// The attempt cannot go on.
    Failed(Error),
}

/// What came back from a background thread.
struct Reply {
    lane: String,
    chore: Chore,
    result: Result<Vec<ChoreDone>>,
}

struct Lane {
    waiting: VecDeque<Chore>,
    running: bool,
    retry_at: Option<Duration>,
    failures: u32,
    failing_since: Option<Duration>,
}

/// What chores work with; shared with the background threads.
pub(crate) struct Tools {
    pub(crate) env: Env,
    pub(crate) storage: Arc<dyn CheckpointStorage>,
    pub(crate) log: Mutex<JobLog>,
    pub(crate) lanes: BTreeMap<LaneId, Mutex<LaneWorker>>,
    /// What is read: each is asked to confirm what it gave before a checkpoint counts.
    pub(crate) sources: Vec<(OperatorId, Arc<dyn Source>)>,
    /// Whether this attempt still owns the job; fails when not.
    pub(crate) owner: Box<dyn Fn() -> Result<()> + Send + Sync>,
    pub(crate) staging: PathBuf,
    /// Staged segments are in the storage, too.
    pub(crate) keeps_segments: bool,
    /// Opens the places of savepoints.
    pub(crate) places: Places,
    /// Folder for working files.
    pub(crate) work: PathBuf,
    pub(crate) retention: Mutex<Retention>,
    /// The manifest stored last: counted in once its log entry is there.
    pub(crate) stored: Mutex<Option<(CheckpointRef, Box<Manifest>)>>,
}

/// Starts chores and collects what comes of them.
pub(crate) struct Chores {
    tools: Arc<Tools>,
    lanes: BTreeMap<String, Lane>,
    replies: Arc<Mutex<Vec<Reply>>>,
    waker: Waker,
    deadline: Option<Duration>,
}

impl Chores {
    /// `deadline`: how long a transient failure may last before it fails the job; `None` = for ever.
    pub(crate) fn new(tools: Arc<Tools>, waker: Waker, deadline: Option<Duration>) -> Self {
        Chores { tools, lanes: BTreeMap::new(), replies: Arc::default(), waker, deadline }
    }

    pub(crate) fn push_lane(&self, lane: &LaneId, epoch: Epoch, segments: Vec<SegmentRef>) {
        // The queue is behind a lock that a publish holds while it blocks, so it is filled in the lane's own thread.
        let tools = self.tools.clone();
        let id = lane.clone();
        self.tools.env.background.run(
            &format!("publish {lane}"),
            Box::new(move || {
                if let Some(worker) = tools.lanes.get(&id) {
                    lock(worker).push(epoch, segments);
                }
            }),
        );
    }

    pub(crate) fn start(&mut self, chore: Chore, _now: Duration) {
        let name = chore.lane();
        let lane = self.lanes.entry(name.clone()).or_insert_with(|| Lane {
            waiting: VecDeque::new(),
            running: false,
            retry_at: None,
            failures: 0,
            failing_since: None,
        });
        lane.waiting.push_back(chore);
        self.pump(&name);
    }

    fn pump(&mut self, name: &str) {
        let Some(lane) = self.lanes.get_mut(name) else { return };
        if lane.running || lane.retry_at.is_some() {
            return;
        }
        let Some(chore) = lane.waiting.pop_front() else { return };
        lane.running = true;
        let (tools, replies, waker, name) = (self.tools.clone(), self.replies.clone(), self.waker.clone(), name.to_string());
        self.tools.env.background.run(
            &name.clone(),
            Box::new(move || {
                let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| tools.run(&chore)));
                let result = result
                    .unwrap_or_else(|p| Err(Error::restart(format!("{} panicked: {}", chore.describe(), super::task::panic_text(&*p)))));
                lock(&replies).push(Reply { lane: name, chore, result });
                waker();
            }),
        );
    }

    /// What has come back since the last call.
    pub(crate) fn take_done(&mut self) -> Vec<ChoreDone> {
        let replies = std::mem::take(&mut *lock(&self.replies));
        let now = self.tools.env.clock.monotonic();
        let mut done = Vec::new();
        for Reply { lane: name, chore, result } in replies {
            let Some(lane) = self.lanes.get_mut(&name) else { continue };
            lane.running = false;
            let what = chore.describe();
            match result {
                Ok(outcome) => {
                    if lane.failures > 0 {
                        done.push(ChoreDone::Waiting { what, why: None });
                    }
                    (lane.failures, lane.failing_since) = (0, None);
                    done.extend(outcome);
                }
                Err(e) if e.kind() == Kind::Transient => {
                    let since = *lane.failing_since.get_or_insert(now);
                    if self.deadline.is_some_and(|d| now.saturating_sub(since) > d) {
                        let e = e.turned(Kind::Fatal, &format!("{what} kept failing"));
                        done.push(ChoreDone::Failed(e.help("raise --outside-deadline, or mend the cause and run again")));
                        continue;
                    }
                    done.push(ChoreDone::Waiting { what, why: Some(e.to_string()) });
                    lane.failures += 1;
                    lane.retry_at = Some(now + backoff(lane.failures));
                    lane.waiting.push_front(chore);
                }
                Err(e) if chore.may_fail_with(e.kind()) => tracing::warn!(error = %e, "{what} failed; the next start makes up for it"),
                Err(e) => done.extend(give_up(&chore, e.at(what))),
            }
            self.pump(&name);
        }
        done
    }

    /// Starts what has waited long enough.
    pub(crate) fn retry(&mut self, now: Duration) {
        let due: Vec<String> = self.lanes.iter().filter(|(_, l)| l.retry_at.is_some_and(|t| t <= now)).map(|(n, _)| n.clone()).collect();
        for name in due {
            if let Some(lane) = self.lanes.get_mut(&name) {
                lane.retry_at = None;
            }
            self.pump(&name);
        }
    }

    pub(crate) fn next_retry(&self) -> Option<Duration> {
        self.lanes.values().filter_map(|l| l.retry_at).min()
    }
}

/// 50 ms doubling to 5 s.
pub(crate) fn backoff(failures: u32) -> Duration {
    Duration::from_millis(50u64.saturating_mul(1 << failures.saturating_sub(1).min(7))).min(Duration::from_secs(5))
}

/// What a failure that no retry mends means for the attempt.
fn give_up(chore: &Chore, e: Error) -> Vec<ChoreDone> {
    match chore {
        Chore::StoreManifest { manifest, .. } if e.kind() != Kind::Fatal => {
            vec![ChoreDone::Event(Event::ManifestFailed { epoch: manifest.epoch, reason: e.to_string() })]
        }
        Chore::Savepoint { checkpoint, .. } => {
            vec![ChoreDone::Event(Event::SavepointFailed { epoch: checkpoint.epoch, reason: e.report() })]
        }
        _ => vec![ChoreDone::Failed(e)],
    }
}

impl Tools {
    fn run(&self, chore: &Chore) -> Result<Vec<ChoreDone>> {
        let event = match chore {
            Chore::StoreManifest { manifest, savepoint } => {
                for (id, source) in &self.sources {
                    source.confirm().map_err(|e| e.at(format!("source {id}")))?;
                }
                let mut manifest = manifest.clone();
                let stored = store_manifest(&self.env, &*self.storage, &mut manifest, savepoint.clone())?;
                reached(Moment::ManifestStored);
                *lock(&self.stored) = Some((stored.clone(), manifest));
                Event::ManifestStored(stored)
            }
            Chore::Append(entry) => match lock(&self.log).append(entry) {
                Ok(()) => {
                    if matches!(**entry, LogEntry::CheckpointComplete { .. }) {
                        reached(Moment::CheckpointLogged);
                    }
                    self.count_in(entry);
                    Event::LogAppended
                }
                Err(LogError::Lost { .. }) => Event::LogLost,
                Err(LogError::Failed(e)) => return Err(e),
            },
            Chore::Publish(id) => {
                let Some(worker) = self.lanes.get(id) else { return Err(Error::fatal(format!("lane {id} is not open: a bug"))) };
                let mut worker = lock(worker);
                let mut done = Vec::new();
                while let Some(epoch) = worker.step(&self.owner)? {
                    done.push(ChoreDone::Event(Event::Published { lane: id.clone(), epoch }));
                }
                return Ok(done);
            }
            Chore::FreeSegments(names) => {
                for name in names {
                    match self.env.files.remove(&self.staging.join(name)) {
                        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
                        _ => {}
                    }
                    if self.keeps_segments {
                        self.storage.delete(&format!("{STAGING}/{name}"))?;
                    }
                }
                return Ok(Vec::new());
            }
            Chore::DeleteCheckpoints(dropped) => {
                lock(&self.retention).let_go(&*self.storage, dropped)?;
                return Ok(Vec::new());
            }
            Chore::Savepoint { checkpoint, path } => {
                let manifest = load_manifest(&*self.storage, checkpoint)?;
                let to = self.places.open(&self.env, path, &savepoint::FOLDERS)?;
                savepoint::create(&self.env, &*self.storage, &manifest, &*to, &self.work.join("savepoint"))?;
                Event::SavepointStored { epoch: checkpoint.epoch }
            }
            Chore::Discover { source, spec } => {
                return Ok(vec![ChoreDone::Splits { source: source.clone(), splits: spec.splits(false)? }]);
            }
            Chore::Missing { source, spec, splits } => {
                let gone = spec.gone(splits)?;
                return Ok(if gone.is_empty() { Vec::new() } else { vec![ChoreDone::Gone { source: source.clone(), splits: gone }] });
            }
        };
        Ok(vec![ChoreDone::Event(event)])
    }
}

impl Tools {
    /// The checkpoint is in the log: its files are named by one more retained manifest.
    fn count_in(&self, entry: &LogEntry) {
        if let LogEntry::CheckpointComplete { checkpoint, .. } = entry
            && let Some((stored, manifest)) = lock(&self.stored).take()
            && stored == *checkpoint
        {
            lock(&self.retention).keep(&stored, &manifest);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
