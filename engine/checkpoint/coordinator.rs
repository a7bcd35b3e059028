//! The checkpoint coordinator: a pure state machine. No IO, no clock, no thread; the same events give the same actions.
//!
//! | phase | leaves it by | to |
//! |---|---|---|
//! | `Starting` | every task runs, and tables are read in / a stop | `Idle` / `Closed` |
//! | `Idle` | a barrier is due: interval, savepoint, stop, or every input has ended | `Collecting` |
//! | `Collecting` | every task has acknowledged / declined or timed out | `Storing` / `Idle` |
//! | `Storing` | manifest stored / failed or timed out | `Logging` / `Idle` |
//! | `Logging` | the entry is in the log; no timeout: an entry cannot be taken back | `Idle`, or `Draining` after a last barrier |
//! | `Draining` | every lane is published, every savepoint made | `LastNote` |
//! | `LastNote` | the `Published` entry is in the log | `Closed` |
//!
//! Invariants: at most one checkpoint is under way. Barriers have dense epochs. An epoch is published only after its entry
//! is in the log, in order. Output staged in an abandoned epoch rides in the next complete one. In `Closed` nothing happens.

use super::entry::{CheckpointRef, Fork, JobHistory, LogEntry, Published};
use super::event::{Action, Event, Settings, TaskRole};
use super::manifest::{LaneId, MANIFEST_VERSION, Manifest, PlanSummary, SinkSegment, TaskSnapshot};
use crate::env::{Bug, planted};
use crate::error::Error;
use crate::operators::SegmentRef;
use crate::record::{Barrier, BarrierKind, Epoch, KEY_CODEC_VERSION, TaskId};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Decides when a barrier flows, when a checkpoint is complete, and what happens then. It is told of [`Event`]s and answers with
/// [`Action`]s; the parent module says who does them.
pub struct Coordinator {
    settings: Settings,
    job: JobHistory,
    plan: PlanSummary,
    tasks: BTreeMap<TaskId, Task>,
    lanes: BTreeMap<LaneId, Lane>,
    phase: Phase,
    /// Newest epoch a barrier was injected for.
    injected: Epoch,
    /// Newest complete epoch.
    complete: Epoch,
    last_begin: Duration,
    last_end: Duration,
    failures: u32,
    stop: bool,
    /// Savepoints asked for.
    wanted: VecDeque<String>,
    /// Savepoints whose checkpoint is complete; the flag says that the copy is under way.
    savepoints: BTreeMap<Epoch, (CheckpointRef, String, bool)>,
    /// Sealed in epochs that were abandoned, not in any complete checkpoint yet.
    carried: Vec<SinkSegment>,
    /// Complete checkpoints that are kept, oldest first.
    retained: Vec<CheckpointRef>,
}

struct Task {
    source: bool,
    running: bool,
    ended: bool,
    /// Newest epoch it has answered.
    answered: Epoch,
}

/// One lane's way from staged to free.
#[derive(Default)]
struct Lane {
    /// In the log as published.
    noted: Epoch,
    /// Published, as the lane says.
    published: Epoch,
    /// In complete checkpoints and not free yet, by the epoch that published or will publish them.
    segments: BTreeMap<Epoch, Vec<SegmentRef>>,
}

struct UnderWay {
    barrier: Barrier,
    since: Duration,
    savepoint: Option<String>,
    acks: BTreeMap<TaskId, TaskSnapshot>,
}

enum Phase {
    Starting,
    Idle,
    Collecting(UnderWay),
    Storing(UnderWay),
    Logging { under_way: UnderWay, checkpoint: CheckpointRef, published: Vec<Published>, dropped: Vec<CheckpointRef> },
    Draining(BarrierKind),
    LastNote(BarrierKind, Vec<Published>),
    Closed,
}

impl Coordinator {
    /// A coordinator that goes on from `history` as `begin` left it: everything complete is published. `plan` goes into
    /// the manifests.
    pub fn new(settings: Settings, plan: PlanSummary, tasks: Vec<TaskRole>, history: JobHistory, now: Duration) -> Self {
        let epoch = history.epoch().saturating_sub(u64::from(planted(Bug::ReuseEpoch)));
        let task = |t: TaskRole| (t.task, Task { source: t.source, running: false, ended: false, answered: epoch });
        let lane = |id: LaneId| (id, Lane { noted: epoch, published: epoch, segments: BTreeMap::new() });
        Coordinator {
            settings,
            plan,
            tasks: tasks.into_iter().map(task).collect(),
            lanes: history.lane_ids().into_iter().map(lane).collect(),
            phase: Phase::Starting,
            injected: epoch,
            complete: epoch,
            last_begin: now,
            last_end: now,
            failures: 0,
            stop: false,
            wanted: VecDeque::new(),
            savepoints: BTreeMap::new(),
            carried: Vec::new(),
            retained: history.retained.clone(),
            job: history,
        }
    }

    /// Newest complete epoch.
    pub fn complete_epoch(&self) -> Epoch {
        self.complete
    }

    /// The barrier that is under way, and since when.
    pub fn under_way(&self) -> Option<(Barrier, Duration)> {
        match &self.phase {
            Phase::Collecting(u) | Phase::Storing(u) | Phase::Logging { under_way: u, .. } => Some((u.barrier, u.since)),
            _ => None,
        }
    }

    /// Tasks that have not yet answered the barrier that is under way.
    pub fn waiting_for(&self) -> Vec<TaskId> {
        match &self.phase {
            Phase::Collecting(u) => self.tasks.keys().filter(|t| !u.acks.contains_key(t)).cloned().collect(),
            _ => Vec::new(),
        }
    }

    /// When a `Tick` is needed at the latest; `None` = not before another event.
    pub fn next_wake(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Idle if self.last_kind().is_none() && self.wanted.is_empty() && !self.is_held() => Some(self.due()),
            Phase::Collecting(u) | Phase::Storing(u) => Some(u.since.saturating_add(self.settings.timeout)),
            _ => None,
        }
    }

    /// Takes an event, gives what is to be done, in order. `now` is monotonic.
    pub fn on(&mut self, event: Event, now: Duration) -> Vec<Action> {
        let mut out = Vec::new();
        if matches!(self.phase, Phase::Closed) {
            return out;
        }
        match event {
            Event::Tick => self.check_timeout(now, &mut out),
            Event::TaskRunning(task) => self.on_running(&task, now),
            Event::InputEnded(task) => {
                if let Some(task) = self.tasks.get_mut(&task) {
                    task.ended = true;
                }
            }
            Event::StopRequested => self.on_stop(&mut out),
            Event::SavepointRequested { path } => self.on_savepoint(path, &mut out),
            Event::TaskAck { epoch, snapshot } => self.on_ack(epoch, *snapshot, &mut out),
            Event::TaskDeclined { task, epoch, reason } => self.on_decline(&task, epoch, &reason, now, &mut out),
            Event::ManifestStored(checkpoint) => self.on_stored(checkpoint, &mut out),
            Event::ManifestFailed { epoch, reason } => self.on_store_failed(epoch, &reason, now, &mut out),
            Event::LogAppended => self.on_logged(now, &mut out),
            Event::LogLost => self.fail(
                Error::fatal("another process has taken this job over")
                    .help("nothing to do if that was meant; else stop that process and run again"),
                &mut out,
            ),
            Event::Published { lane, epoch } => self.on_published(&lane, epoch, &mut out),
            Event::SavepointStored { epoch } => self.on_copied(epoch, Ok(epoch), &mut out),
            Event::SavepointFailed { epoch, reason } => self.on_copied(epoch, Err(reason), &mut out),
        }
        self.start_savepoints(&mut out);
        self.drain(&mut out);
        self.begin_if_due(now, &mut out);
        out
    }

    // ---- from barrier to acks

    fn on_running(&mut self, task: &TaskId, now: Duration) {
        if let Some(task) = self.tasks.get_mut(task) {
            task.running = true;
        }
        if matches!(self.phase, Phase::Starting) && self.tasks.values().all(|t| t.running) {
            self.phase = Phase::Idle;
            (self.last_begin, self.last_end) = (now, now);
        }
    }

    fn due(&self) -> Duration {
        let by_interval = self.last_begin.saturating_add(self.settings.interval);
        by_interval.max(self.last_end.saturating_add(self.settings.min_pause))
    }

    /// Too much output waits to be published; sinks fill up until it is.
    fn is_held(&self) -> bool {
        let behind = |lane: &Lane| self.complete - lane.published.min(self.complete) >= self.settings.max_unpublished.max(1);
        let waiting = |lane: &Lane| lane.segments.range(lane.published + 1..).flat_map(|(_, s)| s).map(|s| s.len).sum::<u64>();
        self.lanes.values().any(behind) || self.lanes.values().map(waiting).sum::<u64>() >= self.settings.max_unpublished_bytes.max(1)
    }

    /// The last barrier, once nothing else can come.
    fn last_kind(&self) -> Option<BarrierKind> {
        let mut sources = self.tasks.values().filter(|t| t.source).peekable();
        if sources.peek().is_some() && sources.all(|t| t.ended) { Some(BarrierKind::Final) } else { self.stop.then_some(BarrierKind::Stop) }
    }

    fn begin_if_due(&mut self, now: Duration, out: &mut Vec<Action>) {
        if !matches!(self.phase, Phase::Idle) || self.is_held() {
            return;
        }
        // Savepoints asked for before a stop are still made.
        let savepoint = self.wanted.pop_front();
        let kind = match (&savepoint, self.last_kind()) {
            (Some(_), _) => BarrierKind::Savepoint,
            (None, Some(last)) => last,
            (None, None) if now >= self.due() => BarrierKind::Checkpoint,
            (None, None) => return,
        };
        self.injected += 1;
        self.last_begin = now;
        let barrier = Barrier { epoch: self.injected, kind };
        self.phase = Phase::Collecting(UnderWay { barrier, since: now, savepoint, acks: BTreeMap::new() });
        out.push(Action::InjectBarrier(barrier));
    }

    /// Counts an answer; `false` (and the job restarts) when it cannot be one.
    fn answer(&mut self, task: &TaskId, epoch: Epoch, out: &mut Vec<Action>) -> bool {
        let injected = self.injected;
        let expected = self.tasks.get_mut(task).filter(|t| epoch == t.answered + 1 && epoch <= injected);
        match expected {
            Some(task) => {
                task.answered = epoch;
                true
            }
            None => {
                // An answer left out may have held segments: going on would lose output.
                self.fail(Error::restart(format!("task {task} answered barrier {epoch} out of turn")).at("checkpoint coordinator"), out);
                false
            }
        }
    }

    fn on_ack(&mut self, epoch: Epoch, snapshot: TaskSnapshot, out: &mut Vec<Action>) {
        if !self.answer(&snapshot.task, epoch, out) {
            return;
        }
        match &mut self.phase {
            Phase::Collecting(u) if u.barrier.epoch == epoch => {
                u.acks.insert(snapshot.task.clone(), snapshot);
                if u.acks.len() + usize::from(planted(Bug::MissAnAck)) >= self.tasks.len() {
                    self.store(out);
                }
            }
            // Of an abandoned epoch: the state is of no use, the output is.
            _ => self.carried.extend(snapshot.segments.into_iter().filter(|_| !planted(Bug::ForgetLateAck))),
        }
    }

    fn on_decline(&mut self, task: &TaskId, epoch: Epoch, reason: &str, now: Duration, out: &mut Vec<Action>) {
        if self.answer(task, epoch, out) && matches!(&self.phase, Phase::Collecting(u) if u.barrier.epoch == epoch) {
            self.abandon(format!("task {task}: {reason}"), now, out);
        }
    }

    fn check_timeout(&mut self, now: Duration, out: &mut Vec<Action>) {
        let (u, what) = match &self.phase {
            Phase::Collecting(u) => (u, "its tasks"),
            Phase::Storing(u) => (u, "its manifest"),
            _ => return,
        };
        if now >= u.since.saturating_add(self.settings.timeout) {
            let late: Vec<_> = self.waiting_for().iter().map(ToString::to_string).collect();
            let limit = crate::observe::human_duration(self.settings.timeout);
            self.abandon(format!("timed out after {limit} waiting for {what} {}", late.join(", ")), now, out);
        }
    }

    /// Gives the checkpoint up; its staged output is carried into the next one.
    fn abandon(&mut self, reason: String, now: Duration, out: &mut Vec<Action>) {
        let (Phase::Collecting(u) | Phase::Storing(u)) = std::mem::replace(&mut self.phase, Phase::Idle) else { return };
        let Barrier { epoch, kind } = u.barrier;
        self.last_end = now;
        self.failures += 1;
        self.carried.extend(u.acks.into_values().flat_map(|a| a.segments).filter(|_| !planted(Bug::ForgetAbandoned)));
        if let Some(path) = u.savepoint {
            out.push(Action::SavepointFinished { path, outcome: Err(reason.clone()) });
        }
        out.push(Action::Discard { epoch, reason: reason.clone() });
        if kind.is_last() || self.failures > self.settings.tolerated_failures {
            let error = Error::restart(format!("checkpoint {epoch} failed: {reason}")).at(format!("{} in a row", self.failures));
            self.fail(error, out);
        }
    }

    // ---- from acks to the log

    fn store(&mut self, out: &mut Vec<Action>) {
        let Phase::Collecting(u) = std::mem::replace(&mut self.phase, Phase::Idle) else { return };
        let unpublished = self.lanes.iter().flat_map(|(id, lane)| {
            let waiting = lane.segments.range(lane.published + 1..).flat_map(|(_, s)| s).filter(|_| !planted(Bug::ForgetUnpublished));
            waiting.map(|segment| SinkSegment { sink: id.sink.clone(), segment: segment.clone() })
        });
        let manifest = Manifest {
            version: MANIFEST_VERSION,
            job: self.job.job.clone(),
            attempt: self.job.attempt.clone(),
            lineage: self.job.lineage.clone(),
            parent: self.parent(),
            epoch: u.barrier.epoch,
            kind: u.barrier.kind,
            wall_ms: 0,
            max_parallelism: self.job.max_parallelism,
            key_codec: KEY_CODEC_VERSION,
            plan: self.plan.clone(),
            lanes: self.job.lanes.clone(),
            tasks: u.acks.values().cloned().collect(),
            unpublished: unpublished.chain(self.carried.iter().cloned()).collect(),
            published: self.lanes.iter().map(|(id, lane)| self.note(id, lane.published)).collect(),
        };
        out.push(Action::StoreManifest { manifest: Box::new(manifest), savepoint: u.savepoint.clone() });
        self.phase = Phase::Storing(u);
    }

    fn parent(&self) -> Option<Fork> {
        self.job.start.parent()
    }

    fn note(&self, lane: &LaneId, epoch: Epoch) -> Published {
        Published { lane: lane.clone(), lineage: self.job.lineage.clone(), epoch }
    }

    /// What is published and not in the log.
    fn notes(&self) -> Vec<Published> {
        self.lanes.iter().filter(|(_, lane)| lane.published > lane.noted).map(|(id, lane)| self.note(id, lane.published)).collect()
    }

    fn on_stored(&mut self, checkpoint: CheckpointRef, out: &mut Vec<Action>) {
        // A manifest that comes after its checkpoint was abandoned stays an orphan: no log entry names it.
        if !matches!(&self.phase, Phase::Storing(u) if u.barrier.epoch == checkpoint.epoch) {
            return;
        }
        let Phase::Storing(under_way) = std::mem::replace(&mut self.phase, Phase::Idle) else { return };
        let published = self.notes();
        let dropped = self.surplus();
        out.push(Action::AppendLog(Box::new(LogEntry::CheckpointComplete {
            checkpoint: checkpoint.clone(),
            published: published.clone(),
            dropped: dropped.clone(),
        })));
        if planted(Bug::DeleteBeforeLog) {
            out.push(Action::DeleteCheckpoints(dropped.clone()));
        }
        self.phase = Phase::Logging { under_way, checkpoint, published, dropped };
        if planted(Bug::PublishBeforeLog) {
            self.on_logged(self.last_begin, out);
        }
    }

    /// Checkpoints that go when one more is complete: the oldest, but none that a savepoint is being copied from.
    fn surplus(&self) -> Vec<CheckpointRef> {
        let surplus = (self.retained.len() + 1).saturating_sub(self.settings.retained.max(1));
        let in_use = |c: &CheckpointRef| self.savepoints.values().any(|(copied, ..)| copied.manifest == c.manifest);
        self.retained.iter().take(surplus).filter(|c| !in_use(c)).cloned().collect()
    }

    fn on_store_failed(&mut self, epoch: Epoch, reason: &str, now: Duration, out: &mut Vec<Action>) {
        if matches!(&self.phase, Phase::Storing(u) if u.barrier.epoch == epoch) {
            self.abandon(format!("its manifest cannot be stored: {reason}"), now, out);
        }
    }

    // ---- from the log to the outside

    fn on_logged(&mut self, now: Duration, out: &mut Vec<Action>) {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Logging { under_way, checkpoint, published, dropped } => {
                let kind = under_way.barrier.kind;
                self.complete_one(under_way, checkpoint, dropped, now, out);
                self.free(published, out);
                self.phase = if kind.is_last() { Phase::Draining(kind) } else { Phase::Idle };
            }
            Phase::LastNote(kind, published) => {
                self.free(published, out);
                out.push(Action::Finished { kind });
                self.phase = Phase::Closed;
            }
            other => self.phase = other,
        }
    }

    fn complete_one(&mut self, u: UnderWay, checkpoint: CheckpointRef, dropped: Vec<CheckpointRef>, now: Duration, out: &mut Vec<Action>) {
        let epoch = checkpoint.epoch;
        (self.complete, self.last_end, self.failures) = (epoch, now, 0);
        let carried = std::mem::take(&mut self.carried);
        for staged in carried.into_iter().chain(u.acks.into_values().flat_map(|a| a.segments)) {
            if let Some(lane) = self.lanes.get_mut(&staged.lane()) {
                lane.segments.entry(epoch).or_default().push(staged.segment);
            }
        }
        let mut lanes = Vec::with_capacity(self.lanes.len());
        for (id, lane) in &mut self.lanes {
            let segments = lane.segments.entry(epoch).or_default();
            segments.sort_by_key(|s| (s.epoch, s.task, s.sequence));
            lanes.push((id.clone(), segments.clone()));
        }
        self.retained.retain(|c| !dropped.iter().any(|d| d.manifest == c.manifest));
        self.retained.push(checkpoint.clone());
        if !lanes.is_empty() {
            out.push(Action::Publish { epoch, lanes });
        }
        out.push(Action::NotifyComplete { epoch });
        if !dropped.is_empty() {
            out.push(Action::DeleteCheckpoints(dropped));
        }
        if let Some(path) = u.savepoint {
            self.savepoints.insert(epoch, (checkpoint, path, false));
        }
    }

    /// The log says that these are published: their segments may go.
    fn free(&mut self, published: Vec<Published>, out: &mut Vec<Action>) {
        let mut names = Vec::new();
        for note in published {
            if let Some(lane) = self.lanes.get_mut(&note.lane) {
                lane.noted = note.epoch;
                let kept = lane.segments.split_off(&(note.epoch + 1));
                names.extend(std::mem::replace(&mut lane.segments, kept).into_values().flatten().map(|s| s.name));
            }
        }
        if !names.is_empty() {
            out.push(Action::FreeSegments(names));
        }
    }

    fn on_published(&mut self, id: &LaneId, epoch: Epoch, out: &mut Vec<Action>) {
        let complete = self.complete;
        match self.lanes.get_mut(id) {
            Some(lane) if epoch <= complete => lane.published = lane.published.max(epoch),
            _ => self
                .fail(Error::restart(format!("lane {id} reports epoch {epoch}, complete is {complete}")).at("checkpoint coordinator"), out),
        }
    }

    // ---- savepoints and the end

    fn on_stop(&mut self, out: &mut Vec<Action>) {
        self.stop = true;
        if matches!(self.phase, Phase::Starting) {
            // Nothing has been made that a checkpoint could hold, tables that are still read in apart: what the log says is where the
            // job resumes.
            self.give_up_savepoints("the job stopped before it ran, or had read its tables in", out);
            self.phase = Phase::Closed;
            out.push(Action::Finished { kind: BarrierKind::Stop });
        }
    }

    fn on_savepoint(&mut self, path: String, out: &mut Vec<Action>) {
        let ending = self.stop || matches!(self.phase, Phase::Draining(_) | Phase::LastNote(..));
        if ending || self.last_kind().is_some() {
            out.push(Action::SavepointFinished { path, outcome: Err("the job is about to end".into()) });
        } else {
            self.wanted.push_back(path);
        }
    }

    fn start_savepoints(&mut self, out: &mut Vec<Action>) {
        let published = self.lanes.values().map(|l| l.published).min().unwrap_or(self.complete);
        for (_, (checkpoint, path, copying)) in self.savepoints.range_mut(..=published) {
            if !std::mem::replace(copying, true) {
                out.push(Action::CreateSavepoint { checkpoint: checkpoint.clone(), path: path.clone() });
            }
        }
    }

    fn on_copied(&mut self, epoch: Epoch, outcome: Result<Epoch, String>, out: &mut Vec<Action>) {
        if let Some((_, path, _)) = self.savepoints.remove(&epoch) {
            out.push(Action::SavepointFinished { path, outcome });
        }
    }

    fn drain(&mut self, out: &mut Vec<Action>) {
        let Phase::Draining(kind) = self.phase else { return };
        if !planted(Bug::StopUndrained) && (!self.savepoints.is_empty() || self.lanes.values().any(|l| l.published < self.complete)) {
            return;
        }
        let published = self.notes();
        if published.is_empty() {
            out.push(Action::Finished { kind });
            self.phase = Phase::Closed;
        } else {
            out.push(Action::AppendLog(Box::new(LogEntry::Published { published: published.clone() })));
            self.phase = Phase::LastNote(kind, published);
        }
    }

    fn give_up_savepoints(&mut self, why: &str, out: &mut Vec<Action>) {
        let copying = std::mem::take(&mut self.savepoints).into_values().map(|(_, path, _)| path);
        for path in self.wanted.drain(..).chain(copying) {
            out.push(Action::SavepointFinished { path, outcome: Err(why.into()) });
        }
    }

    fn fail(&mut self, error: Error, out: &mut Vec<Action>) {
        if let Phase::Collecting(u) | Phase::Storing(u) | Phase::Logging { under_way: u, .. } = &mut self.phase {
            self.wanted.extend(u.savepoint.take());
        }
        self.give_up_savepoints("the job failed", out);
        self.phase = Phase::Closed;
        out.push(Action::Fail(error));
    }
}
