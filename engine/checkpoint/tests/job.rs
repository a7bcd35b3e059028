//! A small job on the model: two tasks that count, one sink with two lanes, and all of this module around them.
//!
//! Each task turns its own positions into records, one per lane and epoch, so the right output is known without running.

use super::super::*;
use super::disk::Disk;
use super::topic::Topic;
use crate::env::Env;
use crate::error::{Error, Kind, Result};
use crate::operators::SegmentRef;
use crate::record::{Barrier, BarrierKind, Epoch, OperatorId, TaskId};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(super) const LANES: u32 = 2;
const TASKS: u32 = 2;
/// Positions that each task reads to its end.
pub(super) const INPUT: u64 = 4;

pub(super) fn settings() -> Settings {
    Settings { interval: Duration::ZERO, retained: 2, max_unpublished: 3, ..Settings::default() }
}

pub(super) fn options(from: From, lineage: &str, accept_duplicates: bool) -> BeginOptions {
    let lanes = vec![SinkLanes { sink: sink(), lanes: LANES }];
    let (job, lineage) = ("job".into(), lineage.into());
    BeginOptions { job, parallelism: TASKS, max_parallelism: 8, lanes, lineage, from, accept_duplicates, bring_to: None }
}

fn sink() -> OperatorId {
    OperatorId::new("sink")
}

/// What a task reads at a position, for a lane; `run` tells lineages apart that read the input anew.
pub(super) fn record(run: u64, task: u32, position: u64, lane: u32) -> u64 {
    run * 10_000 + u64::from(task) * 1_000 + position * 10 + u64::from(lane)
}

/// The whole output of one lane, sorted.
pub(super) fn whole(run: u64, lane: u32) -> Vec<u64> {
    (0..TASKS).flat_map(|t| (0..INPUT).map(move |p| record(run, t, p, lane))).collect()
}

/// One process that runs the job.
pub(super) struct Attempt {
    env: Env,
    topic: Topic,
    storage: Arc<dyn CheckpointStorage>,
    log: JobLog,
    retention: Retention,
    lanes: Vec<LaneWorker>,
    coordinator: Coordinator,
    actions: VecDeque<Action>,
    positions: Vec<u64>,
    stored: Option<(CheckpointRef, Manifest)>,
    run: u64,
    now: Duration,
    stop_after: Option<Epoch>,
}

/// What an attempt did.
#[derive(Debug)]
pub(super) enum Outcome {
    Going,
    Finished(BarrierKind),
}

impl Attempt {
    /// From nothing to running tasks. Transient errors are tried again as long as the process lives.
    pub(super) fn start(disk: &Disk, topic: &Topic, options: &BeginOptions, run: u64) -> Result<Attempt> {
        Self::start_if(disk, topic, options, run, &mut |_, _| Ok(()))
    }

    /// As `start`, if `verify` has nothing against what is restored.
    pub(super) fn start_if(disk: &Disk, topic: &Topic, options: &BeginOptions, run: u64, verify: Verify<'_>) -> Result<Attempt> {
        let env = disk.env();
        let storage: Arc<dyn CheckpointStorage> = Arc::new(LocalStorage::open(&env, Path::new("/job"), &JOB_FOLDERS)?);
        let mut log = JobLog::open(&env, storage.clone(), &env.fresh_id())?;
        let mut lanes: Vec<_> = (0..LANES).map(|lane| LaneWorker::new(LaneId { sink: sink(), lane }, topic.publisher(lane), 250)).collect();
        let no_savepoints = |path: &str| -> Result<Arc<dyn CheckpointStorage>> { savepoint_store(&disk.env(), path) };
        topic.lineage_is(log.history().map_or(&options.lineage, |h| &h.lineage));
        let begun = again(disk, || begin(&mut log, &storage, &mut lanes, options, &no_savepoints, &mut *verify))?;
        topic.lineage_is(&begun.history.lineage);
        let retention = sweep(&*storage, &begun.history, &log.watch())?;
        let mut positions = vec![0; TASKS as usize];
        if let Some((manifest, _)) = &begun.restore {
            for (position, task) in positions.iter_mut().zip(&manifest.tasks) {
                *position = u64::from_le_bytes(task.operators[0].blob[..].try_into().unwrap());
            }
        }
        let tasks = (0..TASKS).map(|i| TaskRole { task: task(i), source: true }).collect();
        let mut coordinator = Coordinator::new(settings(), PlanSummary::default(), tasks, begun.history, Duration::ZERO);
        let mut actions = VecDeque::new();
        for i in 0..TASKS {
            actions.extend(coordinator.on(Event::TaskRunning(task(i)), Duration::ZERO));
        }
        let (topic, now, stored) = (topic.clone(), Duration::ZERO, None);
        Ok(Attempt { env, topic, storage, log, retention, lanes, coordinator, actions, positions, stored, run, now, stop_after: None })
    }

    /// Stops gracefully once that epoch is complete.
    pub(super) fn stop_after(&mut self, epoch: Epoch) {
        self.stop_after = Some(epoch);
    }

    /// Runs to its end, or to the death of its process.
    pub(super) fn finish(&mut self, disk: &Disk) -> Result<BarrierKind> {
        loop {
            match self.step(disk)? {
                Outcome::Going => {}
                Outcome::Finished(kind) => return Ok(kind),
            }
        }
    }

    /// One action, or the passing of time.
    pub(super) fn step(&mut self, disk: &Disk) -> Result<Outcome> {
        self.now += Duration::from_millis(1);
        let Some(action) = self.actions.pop_front() else {
            self.tell(Event::Tick);
            return Ok(Outcome::Going);
        };
        match action {
            Action::InjectBarrier(barrier) => self.pass(barrier),
            Action::StoreManifest { mut manifest, savepoint } => {
                let stored = again(disk, || store_manifest(&self.env, &*self.storage, &mut manifest, savepoint.clone()))?;
                self.stored = Some((stored.clone(), *manifest));
                self.tell(Event::ManifestStored(stored));
            }
            Action::AppendLog(entry) => match again(disk, || match self.log.append(&entry) {
                Err(LogError::Failed(e)) => Err(e),
                other => Ok(other),
            })? {
                Ok(()) => {
                    if let (LogEntry::CheckpointComplete { .. }, Some((stored, manifest))) = (&*entry, self.stored.take()) {
                        self.retention.keep(&stored, &manifest);
                    }
                    self.tell(Event::LogAppended);
                }
                Err(_) => self.tell(Event::LogLost),
            },
            Action::Publish { epoch, lanes } => {
                // A slow lane: several epochs may come together. The last one always goes.
                for ((_, segments), worker) in lanes.into_iter().zip(&mut self.lanes) {
                    worker.push(epoch, segments);
                }
                self.publish(disk)?;
            }
            Action::FreeSegments(names) => names.iter().for_each(|name| self.topic.free(name)),
            Action::DeleteCheckpoints(dropped) => drop(self.retention.let_go(&*self.storage, &dropped)),
            Action::Fail(e) => return Err(e),
            Action::Finished { kind } => {
                // Said again if somebody asks again.
                self.actions.push_front(Action::Finished { kind });
                return Ok(Outcome::Finished(kind));
            }
            Action::CreateSavepoint { checkpoint, path } => {
                let to = LocalStorage::open(&self.env, Path::new(&path), &savepoint::FOLDERS)?;
                let manifest = load_manifest(&*self.storage, &checkpoint)?;
                savepoint::create(&self.env, &*self.storage, &manifest, &to, Path::new("/scratch"))?;
                self.tell(Event::SavepointStored { epoch: checkpoint.epoch });
            }
            Action::NotifyComplete { epoch } if self.stop_after.is_some_and(|at| epoch >= at) => {
                self.stop_after = None;
                self.tell(Event::StopRequested);
            }
            Action::NotifyComplete { .. } | Action::Discard { .. } | Action::SavepointFinished { .. } => {}
        }
        Ok(Outcome::Going)
    }

    pub(super) fn tell(&mut self, event: Event) {
        self.actions.extend(self.coordinator.on(event, self.now));
    }

    fn publish(&mut self, disk: &Disk) -> Result<()> {
        let watch = self.log.watch();
        let mut published = Vec::new();
        for worker in &mut self.lanes {
            while let Some(epoch) = again(disk, || worker.step(&|| Ok(watch.still_ours()?)))? {
                published.push(Event::Published { lane: worker.id().clone(), epoch });
            }
        }
        published.into_iter().for_each(|event| self.tell(event));
        Ok(())
    }

    /// The barrier passes every task: each has read one more position before it, if there was one.
    fn pass(&mut self, Barrier { epoch, .. }: Barrier) {
        for index in 0..TASKS {
            let position = self.positions[index as usize];
            let mut segments = Vec::new();
            if position < INPUT {
                for lane in 0..LANES {
                    let name = format!("{}-{epoch}-{index}-{lane}", self.log.attempt());
                    self.topic.stage(&name, vec![record(self.run, index, position, lane)]);
                    let (sequence, len, crc, records, noted_ends) = (0, 100, 0, 1, Vec::new());
                    let segment = SegmentRef { name, lane, epoch, task: index, sequence, len, crc, records, noted_ends };
                    segments.push(SinkSegment { sink: sink(), segment });
                }
                self.positions[index as usize] += 1;
            }
            let ended = position + 1 >= INPUT;
            let blob = self.positions[index as usize].to_le_bytes().to_vec();
            let operators = vec![OperatorSnapshot { id: OperatorId::new("count"), blob, splits: vec![], tables: vec![] }];
            let groups = crate::record::key_groups_of(index, TASKS, 8);
            let snapshot = TaskSnapshot { task: task(index), groups, files: vec![], operators, segments, finished: ended };
            self.tell(Event::TaskAck { epoch, snapshot: Box::new(snapshot) });
            if ended {
                self.tell(Event::InputEnded(task(index)));
            }
        }
    }
}

fn task(index: u32) -> TaskId {
    TaskId { head: OperatorId::new("count"), index }
}

pub(super) fn savepoint_store(env: &Env, path: &str) -> Result<Arc<dyn CheckpointStorage>> {
    Ok(Arc::new(LocalStorage::open(env, Path::new(path), &savepoint::FOLDERS)?))
}

/// Tries again what failed for now, while the process lives.
fn again<R>(disk: &Disk, mut f: impl FnMut() -> Result<R>) -> Result<R> {
    for _ in 0..20 {
        match f() {
            Err(e) if e.kind() != Kind::Fatal && !disk.calls.is_down() => {}
            other => return other,
        }
    }
    Err(Error::restart("tried twenty times"))
}
