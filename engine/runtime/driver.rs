//! Runs one attempt: tells the coordinator what happened, does what it answers.
//!
//! Invariants: actions are done in the order given; what blocks is a [`Chore`] on a background lane and comes back as an event;
//! a transient failure of a chore is tried again after a pause, visibly, up to the deadline if there is one. The driver itself
//! never blocks, so that the simulator can step it.

use super::chores::{Chore, ChoreDone, Chores};
use super::keys::KeyWatch;
use super::status::{Phase, StatusCell};
use super::{Control, Events, JobControl, Mailbox, TaskEvent};
use crate::checkpoint::{Action, Coordinator, Event};
use crate::env::{Bug, Env, planted};
use crate::error::Error;
use crate::operators::{Split, SplitId, SplitState};
use crate::record::{BarrierKind, Epoch, OperatorId, TaskId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// The way to a task.
pub(crate) struct TaskHandle {
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) is_source: bool,
}

/// A source whose splits may grow.
pub(crate) struct Discovery {
    pub(crate) source: OperatorId,
    pub(crate) spec: Arc<dyn crate::operators::Source>,
    pub(crate) every: Duration,
    pub(crate) next: Duration,
    pub(crate) known: BTreeSet<SplitId>,
}

/// A source task and the positions it had reached.
pub(crate) type TaskPositions = (TaskId, Vec<(SplitId, i64)>);

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// As asked: `Stop` or `Final`.
    Finished(BarrierKind),
    /// With an error; its kind says what to do.
    Failed(Error),
}

/// What one attempt runs on.
pub(crate) struct Driver {
    pub(crate) env: Env,
    pub(crate) status: StatusCell,
    pub(crate) coordinator: Coordinator,
    pub(crate) chores: Chores,
    pub(crate) tasks: BTreeMap<TaskId, TaskHandle>,
    pub(crate) events: Events,
    pub(crate) control: JobControl,
    pub(crate) discoveries: Vec<Discovery>,
    pub(crate) keys: KeyWatch,
    /// Positions of source tasks by epoch, until the epoch is complete: for lag tools.
    pub(crate) positions: BTreeMap<Epoch, Vec<TaskPositions>>,
    /// Tasks that are.
    pub(crate) open: usize,
    pub(crate) started: Duration,
    pub(crate) last_error: Option<Error>,
}

impl Driver {
    /// One round: everything that has come in, and the clock. `Some` when the attempt is over.
    pub(crate) fn step(&mut self) -> Option<Ended> {
        let now = self.env.clock.monotonic();
        let mut incoming: Vec<Event> = Vec::new();
        for event in self.events.take() {
            incoming.extend(self.task_event(event, now));
        }
        for done in self.chores.take_done() {
            incoming.extend(self.chore_done(done, now));
        }
        if let Some(e) = self.last_error.take() {
            return Some(Ended::Failed(e));
        }
        incoming.extend(self.control.take_requests().into_iter().map(|request| {
            if matches!(request, Event::StopRequested) {
                self.status.update(|s| s.phase = Phase::Stopping);
            }
            request
        }));
        incoming.push(Event::Tick);
        for event in incoming {
            for action in self.coordinator.on(event, now) {
                if let Some(ended) = self.act(action, now) {
                    return Some(ended);
                }
            }
        }
        self.chores.retry(now);
        self.discover(now);
        self.keys.look(now);
        None
    }

    /// When to step again without being woken.
    pub(crate) fn next_wake(&self, now: Duration) -> Duration {
        let wakes = self.discoveries.iter().map(|d| d.next).chain(self.chores.next_retry()).chain(self.coordinator.next_wake());
        wakes.min().unwrap_or(now + Duration::from_millis(100)).min(now + Duration::from_millis(100))
    }

    fn task_event(&mut self, event: TaskEvent, now: Duration) -> Option<Event> {
        match event {
            TaskEvent::Open => {
                self.open += 1;
                if self.open == self.tasks.len() {
                    let recovery = now.saturating_sub(self.started);
                    self.status.update(|s| {
                        s.phase = Phase::Running;
                        s.recovery = recovery;
                    });
                }
                None
            }
            TaskEvent::Running(task) => Some(Event::TaskRunning(task)),
            TaskEvent::Forgot(task, splits) => {
                if let Some(d) = self.discoveries.iter_mut().find(|d| d.source == task.head) {
                    tracing::info!(source = task.head.as_str(), splits = splits.len(), "splits that are gone, and read, are forgotten");
                    d.known.retain(|id| !splits.contains(id));
                }
                None
            }
            TaskEvent::Acked(task, epoch, snapshot) => {
                let positions: Vec<_> =
                    snapshot.operators.iter().flat_map(|o| &o.splits).map(|s| (s.split.id.clone(), s.position)).collect();
                if let Some(handle) = self.tasks.get(&task).filter(|_| planted(Bug::AckUpstreamEarly)) {
                    handle.mailbox.send(Control::Completed(positions.clone()));
                }
                if !positions.is_empty() {
                    self.positions.entry(epoch).or_default().push((task, positions));
                }
                Some(Event::TaskAck { epoch, snapshot: Box::new(snapshot) })
            }
            TaskEvent::Declined(task, epoch, reason) => Some(Event::TaskDeclined { task, epoch, reason }),
            TaskEvent::Ended(task) => Some(Event::InputEnded(task)),
            TaskEvent::Done(task) => {
                tracing::debug!(%task, "task done");
                None
            }
            TaskEvent::Waiting(task, why) => {
                self.status.update(|s| match why {
                    Some(why) => drop(s.waiting.insert(task.to_string(), why)),
                    None => drop(s.waiting.remove(&task.to_string())),
                });
                None
            }
            TaskEvent::Failed(task, error) => {
                tracing::debug!(%task, %error, "task failed");
                self.last_error.get_or_insert(error);
                None
            }
        }
    }

    fn chore_done(&mut self, done: ChoreDone, now: Duration) -> Vec<Event> {
        match done {
            ChoreDone::Event(event) => {
                if let Event::Published { epoch, .. } = &event {
                    let epoch = *epoch;
                    self.status.update(|s| s.published = s.published.max(Some(epoch)));
                }
                vec![event]
            }
            ChoreDone::Waiting { what, why } => {
                self.status.update(|s| match why {
                    Some(why) => drop(s.waiting.insert(what, why)),
                    None => drop(s.waiting.remove(&what)),
                });
                Vec::new()
            }
            ChoreDone::Splits { source, splits } => {
                self.found(&source, splits, now);
                Vec::new()
            }
            ChoreDone::Gone { source, splits } => {
                let splits = Arc::new(splits);
                for (_, handle) in self.tasks.iter().filter(|(id, handle)| handle.is_source && id.head == source) {
                    handle.mailbox.send(Control::Forget(splits.clone()));
                }
                Vec::new()
            }
            ChoreDone::Failed(error) => {
                self.last_error.get_or_insert(error);
                Vec::new()
            }
        }
    }

    fn act(&mut self, action: Action, now: Duration) -> Option<Ended> {
        match action {
            Action::InjectBarrier(barrier) => {
                for task in self.tasks.values().filter(|t| t.is_source) {
                    task.mailbox.send(Control::Barrier(barrier));
                }
            }
            Action::StoreManifest { mut manifest, savepoint } => {
                // Stamped once, here, so that a store that is tried again writes equal bytes.
                manifest.wall_ms = self.env.clock.wall_ms();
                let bytes = manifest.files().map(|f| f.state.len).sum::<u64>() + manifest.segments().map(|s| s.segment.len).sum::<u64>();
                self.status.update(|s| s.checkpoint_bytes = bytes);
                self.chores.start(Chore::StoreManifest { manifest, savepoint }, now);
            }
            Action::AppendLog(entry) => self.chores.start(Chore::Append(entry), now),
            Action::Publish { epoch, lanes } => {
                for (lane, segments) in lanes {
                    self.chores.push_lane(&lane, epoch, segments);
                    self.chores.start(Chore::Publish(lane), now);
                }
            }
            Action::NotifyComplete { epoch } => self.complete(epoch, now),
            Action::Discard { epoch, reason } => {
                self.positions.remove(&epoch);
                self.status.update(|s| s.failed_checkpoints += 1);
                tracing::warn!(epoch, reason, "checkpoint abandoned; the job goes on");
            }
            Action::FreeSegments(names) => self.chores.start(Chore::FreeSegments(names), now),
            Action::DeleteCheckpoints(dropped) => self.chores.start(Chore::DeleteCheckpoints(dropped), now),
            Action::CreateSavepoint { checkpoint, path } => self.chores.start(Chore::Savepoint { checkpoint, path }, now),
            Action::SavepointFinished { path, outcome } => self.control.answer(&path, outcome),
            Action::Fail(error) => return Some(Ended::Failed(error)),
            Action::Finished { kind } => return Some(Ended::Finished(kind)),
        }
        None
    }

    fn complete(&mut self, epoch: Epoch, now: Duration) {
        self.status.update(|s| {
            s.checkpoint = Some(epoch);
            s.checkpoint_at = now;
        });
        for (task, positions) in self.positions.remove(&epoch).unwrap_or_default() {
            if let Some(handle) = self.tasks.get(&task) {
                handle.mailbox.send(Control::Completed(positions));
            }
        }
        self.positions.retain(|e, _| *e > epoch);
    }

    fn discover(&mut self, now: Duration) {
        for d in self.discoveries.iter_mut().filter(|d| d.next <= now) {
            d.next = now + d.every;
            self.chores.start(Chore::Discover { source: d.source.clone(), spec: d.spec.clone() }, now);
        }
    }

    /// New splits begin at their beginning; the next checkpoint remembers them. Of those that are missing the source is asked whether
    /// they are gone for good.
    fn found(&mut self, source: &OperatorId, splits: Vec<Split>, now: Duration) {
        let Some(d) = self.discoveries.iter_mut().find(|d| d.source == *source) else { return };
        let there: BTreeSet<&SplitId> = splits.iter().map(|s| &s.id).collect();
        let missing: Vec<SplitId> = d.known.iter().filter(|id| !there.contains(id)).cloned().collect();
        if !missing.is_empty() {
            self.chores.start(Chore::Missing { source: source.clone(), spec: d.spec.clone(), splits: missing }, now);
        }
        let first = d.known.len();
        let new: Vec<Split> = splits.into_iter().filter(|s| !d.known.contains(&s.id)).collect();
        if new.is_empty() {
            return;
        }
        tracing::info!(source = source.as_str(), splits = new.len(), "new splits found");
        d.known.extend(new.iter().map(|s| s.id.clone()));
        let states: Vec<SplitState> = new.into_iter().map(SplitState::fresh).collect();
        for (_, handle) in self.tasks.iter().filter(|(id, handle)| handle.is_source && id.head == *source) {
            handle.mailbox.send(Control::AddSplits { found: states.clone(), first });
        }
    }
}
