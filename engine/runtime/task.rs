//! The task: one parallel instance of an operator chain, as a state machine that a worker steps.
//!
//! Invariants: a step never blocks; a barrier passes only when the snapshot of the one before is acknowledged; rows that
//! arrive after a barrier are worked on while the barrier's snapshot is drained in the background. After the last barrier
//! (`Stop`, `Final`) nothing is read any more, and the task is done once its snapshot is acknowledged.

use super::snapshot::{OnNode, Progress, Snapshot, SnapshotContext};
use super::{Control, Events, Mailbox, TaskEvent};
use crate::checkpoint::{SinkSegment, TableSchema};
use crate::env::{Bug, planted};
use crate::error::{Error, Result};
use crate::exchange::{Gate, Gated};
use crate::observe::{BLOCKED_NS, BUSY_NS, Counter, Gauge, STATE_BYTES, STATE_KEYS, WATERMARK_MS};
use crate::operators::{Node, OpenContext, SourceStep, SourceTask, SplitState, Targets};
use crate::record::{Barrier, BarrierKind, Element, OperatorId, TaskId};
use crate::state::{StateStore, Table, TableContext, evolve, forget_table};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Bytes that leave memory in one step, beyond what is too much.
const EVICTED_AT_ONCE: usize = 16 << 20;

/// Elements worked on per step: enough to pay for the step, few enough that neighbours on the thread are served soon.
const ELEMENTS_PER_STEP: usize = 8;
/// Entries of frozen state encoded per step: well under a millisecond.
const DRAIN_PER_STEP: usize = 4096;

/// What a task starts from.
pub(crate) struct Restored {
    /// Store that holds the state of the owned key groups; `None` when no operator of the task keeps keyed state.
    pub(crate) store: Option<Arc<dyn StateStore>>,
    /// Whether the store holds anything.
    pub(crate) has_state: bool,
    /// Schemas under which the tables in the store were written, by operator and table.
    pub(crate) schemas: BTreeMap<(OperatorId, String), String>,
    /// The same of tables that are in the store, but not this task's.
    pub(crate) foreign: BTreeMap<(OperatorId, String), String>,
    /// The blobs that former instances saved, by operator.
    pub(crate) blobs: Vec<(OperatorId, Vec<Vec<u8>>)>,
    /// All splits of the task's source, with positions.
    pub(crate) splits: Vec<SplitState>,
}

/// Where the rows of a task come from.
pub(crate) enum Head {
    /// From outside.
    Source {
        /// Reads.
        source: Box<SourceTask>,
        /// What hangs below.
        targets: Targets,
    },
    /// From other tasks.
    Gate {
        /// Merges the inputs.
        gate: Gate,
        /// The chain.
        node: Box<Node>,
        /// Where those inputs enter that are not the head's.
        beside: Vec<Beside>,
    },
}

/// A small table that an operator in the middle of a chain takes in through the gate.
pub(crate) struct Beside {
    /// Input of the gate.
    pub(crate) gate: usize,
    /// The operator.
    pub(crate) operator: OperatorId,
    /// Its input.
    pub(crate) input: usize,
}

/// The operator that a gate input leads to, and which input of its own that is.
fn entered<'n>(node: &'n mut Node, beside: &[Beside], gate: usize) -> (&'n mut Node, usize) {
    match beside.iter().find(|b| b.gate == gate) {
        None => (node, gate),
        Some(Beside { operator, input, .. }) => match node.find(operator) {
            Some(node) => (node, *input),
            None => unreachable!("plan bug: {operator} is not in this chain"),
        },
    }
}

/// The one input of the gate that may be read now, if there is a choice to be made.
fn only_input(node: &mut Node, beside: &[Beside]) -> Option<usize> {
    let head = node.operator.only_input();
    head.or_else(|| {
        beside.iter().find(|b| node.find(&b.operator).is_some_and(|n| n.operator.only_input() == Some(b.input))).map(|b| b.gate)
    })
}

/// The states of a task.
enum State {
    /// Made, not opened: the first step opens operators and loads state on the worker's thread.
    New(Restored),
    /// Works.
    Running,
    /// The last barrier has passed; only its snapshot is outstanding.
    Stopping,
    /// Finished, or failed; steps do nothing.
    Done,
}

/// What a step did, for the worker's choice between another round and sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Something moved.
    Progress,
    /// Nothing to do until woken, or until this monotonic time.
    Idle(Option<Duration>),
    /// Never again.
    Done,
}

/// How task and driver reach each other.
pub(crate) struct Link {
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) events: Events,
}

/// A task. Built by `assemble`, stepped by a worker thread or by the simulator.
pub(crate) struct Task {
    id: TaskId,
    state: State,
    head: Head,
    context: OpenContext,
    snapshots: SnapshotContext,
    snapshot: Option<Snapshot>,
    /// Segments sealed at barriers whose snapshot was given up; they ride in the next one.
    carried: Vec<SinkSegment>,
    mailbox: Arc<Mailbox>,
    events: Events,
    /// Barriers the coordinator asked this source for, oldest first.
    barriers: Vec<Barrier>,
    next_time_ms: Option<i64>,
    /// Wall time when they were last asked.
    asked_ms: i64,
    said_ended: bool,
    /// A table is still being read in, which the driver is to hear the end of.
    reads_in: bool,
    waiting: Option<String>,
    memory_budget: usize,
    busy_ns: Counter,
    blocked_ns: Counter,
    blocked_since: Option<Duration>,
    state_bytes: Gauge,
    /// Keys of each operator with tables, in the order of the walk.
    state_keys: Vec<Gauge>,
    watermark_ms: Gauge,
}

impl Task {
    pub(crate) fn new(
        id: TaskId,
        head: Head,
        context: OpenContext,
        snapshots: SnapshotContext,
        link: Link,
        memory_budget: usize,
        restored: Restored,
    ) -> Self {
        let Link { mailbox, events } = link;
        let (name, index) = (context.operator.as_str().to_string(), context.index);
        let metrics = context.metrics.clone();
        Task {
            id,
            state: State::New(restored),
            head,
            context,
            snapshots,
            snapshot: None,
            carried: Vec::new(),
            mailbox,
            events,
            barriers: Vec::new(),
            next_time_ms: None,
            asked_ms: i64::MIN,
            said_ended: false,
            reads_in: false,
            waiting: None,
            memory_budget,
            busy_ns: metrics.counter(BUSY_NS, &name, index),
            blocked_ns: metrics.counter(BLOCKED_NS, &name, index),
            blocked_since: None,
            state_bytes: metrics.gauge(STATE_BYTES, &name, index),
            state_keys: Vec::new(),
            watermark_ms: metrics.gauge(WATERMARK_MS, &name, index),
        }
    }

    pub(crate) fn id(&self) -> &TaskId {
        &self.id
    }

    /// One step. An error is reported to the driver and ends the task.
    pub(crate) fn step(&mut self) -> Step {
        let start = self.context.env.clock.monotonic();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.try_step(start)));
        let result = result.unwrap_or_else(|panic| Err(Error::restart(format!("panicked: {}", panic_text(&*panic)))));
        match result {
            Ok(step) => {
                if step == Step::Progress {
                    let spent = self.context.env.clock.monotonic().saturating_sub(start);
                    self.busy_ns.add(spent.as_nanos() as u64);
                }
                step
            }
            Err(e) => {
                self.close();
                self.events.send(TaskEvent::Failed(self.id.clone(), e.at(format!("task {}", self.id))));
                Step::Done
            }
        }
    }

    fn try_step(&mut self, now: Duration) -> Result<Step> {
        let wall_ms = self.context.env.clock.wall_ms();
        match &self.state {
            State::New(_) => {
                self.open(wall_ms)?;
                return Ok(Step::Progress);
            }
            State::Done => return Ok(Step::Done),
            State::Running | State::Stopping => {}
        }
        let mut progress = self.take_mail(wall_ms)?;
        progress |= self.advance_snapshot()?;
        if matches!(self.state, State::Stopping) {
            if self.snapshot.is_none() {
                self.close();
                self.events.send(TaskEvent::Done(self.id.clone()));
                return Ok(Step::Done);
            }
            return Ok(if progress { Step::Progress } else { Step::Idle(Some(now + Duration::from_millis(1))) });
        }
        if !self.has_room(now)? {
            let released = self.has_room_below() && self.release(wall_ms)?;
            let pause = Duration::from_millis(if released { 1 } else { 5 });
            return Ok(if progress { Step::Progress } else { Step::Idle(Some(now + pause)) });
        }
        progress |= self.processing_time(wall_ms)?;
        progress |= self.work(wall_ms)?;
        Ok(if progress { Step::Progress } else { Step::Idle(self.wake_at(now, wall_ms)) })
    }

    /// When to look again without being woken: sources are polled each millisecond, timers at their time.
    fn wake_at(&self, now: Duration, wall_ms: i64) -> Option<Duration> {
        let poll = match &self.head {
            Head::Source { source, .. } if !source.has_ended() => Some(now + Duration::from_millis(1)),
            _ if self.snapshot.is_some() => Some(now + Duration::from_millis(1)),
            _ => None,
        };
        let timer = self.next_time_ms.map(|t| now + Duration::from_millis(t.saturating_sub(wall_ms).clamp(0, 60_000) as u64));
        [poll, timer].into_iter().flatten().min()
    }

    fn open(&mut self, wall_ms: i64) -> Result<()> {
        let State::New(restored) = std::mem::replace(&mut self.state, State::Running) else { return Ok(()) };
        let store = restored.store.clone();
        if let Some(store) = &store {
            // Before anything else: a snapshot to come must not carry them on.
            for (operator, table) in restored.foreign.keys() {
                forget_table(&**store, self.context.groups.clone(), operator.as_str(), table)?;
            }
        }
        self.visit(&mut |node| {
            node.operator.open(&node.context).map_err(|e| place(e, node))?;
            for table in node.operator.tables() {
                let Some(store) = &store else {
                    return Err(place(Error::fatal("an operator with tables has no store: a bug in the planner"), node));
                };
                let context = TableContext {
                    operator: node.context.operator.as_str().to_string(),
                    store: store.clone(),
                    groups: node.context.groups.clone(),
                    max_parallelism: node.context.max_parallelism,
                };
                if let Some(stored) = restored.schemas.get(&(node.context.operator.clone(), table.name().to_string())) {
                    evolve(table, &context, stored)?;
                }
                table.open(&context, restored.has_state)?;
            }
            if let Some((_, blobs)) = restored.blobs.iter().find(|(id, _)| *id == node.context.operator) {
                node.operator.restore(blobs).map_err(|e| place(e, node))?;
            }
            Ok(())
        })?;
        if let Head::Source { source, .. } = &mut self.head {
            source.assign(&restored.splits, self.context.env.clock.monotonic().as_millis() as i64)?;
            self.reads_in = source.reads_in();
        }
        self.processing_time_now(wall_ms)?;
        self.events.send(TaskEvent::Open);
        if !self.reads_in {
            self.events.send(TaskEvent::Running(self.id.clone()));
        }
        Ok(())
    }

    fn visit(&mut self, visit: &mut dyn FnMut(&mut Node) -> Result<()>) -> Result<()> {
        match &mut self.head {
            Head::Source { targets, .. } => targets.visit(visit),
            Head::Gate { node, .. } => node.visit(visit),
        }
    }

    fn take_mail(&mut self, _wall_ms: i64) -> Result<bool> {
        let mail = self.mailbox.take();
        let any = !mail.is_empty();
        for control in mail {
            match control {
                Control::Barrier(barrier) => self.barriers.push(barrier),
                Control::AddSplits { found, first } => {
                    if let Head::Source { source, .. } = &mut self.head {
                        source.add(&found, first, self.context.env.clock.monotonic().as_millis() as i64)?;
                    }
                }
                Control::Forget(gone) => {
                    if let Head::Source { source, .. } = &mut self.head {
                        let forgotten = source.forget(&gone);
                        if !forgotten.is_empty() {
                            self.events.send(TaskEvent::Forgot(self.id.clone(), forgotten));
                        }
                    }
                }
                Control::Completed(positions) => {
                    if let Head::Source { source, .. } = &mut self.head {
                        source.committed(&positions);
                    }
                }
            }
        }
        Ok(any)
    }

    /// Whether everything below can take another step's results; time spent waiting is counted.
    fn has_room(&mut self, now: Duration) -> Result<bool> {
        let mut room = match &mut self.head {
            Head::Source { targets, .. } => targets.has_room(),
            Head::Gate { node, .. } => node.targets.has_room(),
        };
        self.visit(&mut |node| {
            room &= node.operator.ready().map_err(|e| place(e, node))?;
            Ok(())
        })?;
        match (room, self.blocked_since) {
            (true, Some(since)) => {
                self.blocked_ns.add(now.saturating_sub(since).as_nanos() as u64);
                self.blocked_since = None;
            }
            (false, None) => self.blocked_since = Some(now),
            _ => {}
        }
        Ok(room)
    }

    fn processing_time(&mut self, wall_ms: i64) -> Result<bool> {
        // A clock that was set back must not let them wait until it has caught up.
        let set_back = wall_ms < self.asked_ms;
        if self.next_time_ms.is_none_or(|t| wall_ms < t) && !set_back {
            return Ok(false);
        }
        self.processing_time_now(wall_ms)?;
        Ok(true)
    }

    fn processing_time_now(&mut self, wall_ms: i64) -> Result<()> {
        self.asked_ms = wall_ms;
        let mut next: Option<i64> = None;
        self.visit(&mut |node| {
            let wanted = node.on_time(wall_ms)?;
            next = next.into_iter().chain(wanted).min();
            Ok(())
        })?;
        // Never at once again: an operator that keeps asking for the past must not keep the thread.
        self.next_time_ms = next.map(|t| t.max(wall_ms + 1));
        Ok(())
    }

    /// While nothing more is taken, operators that hold rows back may still let their results out. Whether any does hold some.
    fn release(&mut self, wall_ms: i64) -> Result<bool> {
        let mut any = false;
        self.visit(&mut |node| {
            if node.operator.holds() {
                any = true;
                node.on_time(wall_ms)?;
            }
            Ok(())
        })?;
        Ok(any)
    }

    /// Whether an operator has rows inside whose results are still to leave.
    fn holds(&mut self) -> bool {
        let mut any = false;
        // Looking cannot fail; the walk's result says nothing new.
        let _ = self.visit(&mut |node| {
            any |= node.operator.holds();
            Ok(())
        });
        any
    }

    /// The barrier after the end of everything waits for results that are still to leave.
    fn must_wait(&mut self, barrier: Barrier) -> bool {
        barrier.kind == BarrierKind::Final && self.holds()
    }

    /// Reads and works on some elements.
    fn work(&mut self, wall_ms: i64) -> Result<bool> {
        let mut progress = false;
        for _ in 0..ELEMENTS_PER_STEP {
            let moved = match &mut self.head {
                Head::Source { .. } => self.work_source()?,
                Head::Gate { .. } => self.work_gate()?,
            };
            progress |= moved;
            if !moved || matches!(self.state, State::Stopping) || !self.has_room_below() {
                break;
            }
        }
        if progress && (self.next_time_ms.is_none() || self.holds()) {
            // A row may have set a first processing-time timer, or be held back.
            self.processing_time_now(wall_ms)?;
        }
        Ok(progress)
    }

    fn has_room_below(&mut self) -> bool {
        match &mut self.head {
            Head::Source { targets, .. } => targets.has_room(),
            Head::Gate { node, .. } => node.targets.has_room(),
        }
    }

    fn work_source(&mut self) -> Result<bool> {
        let open = matches!(&self.head, Head::Source { source, .. } if source.is_bootstrapped());
        if let Some(&barrier) = self.barriers.first()
            && open
            && self.snapshot.is_none()
            && !self.must_wait(barrier)
        {
            self.barriers.remove(0);
            self.pass_barrier(barrier)?;
            return Ok(true);
        }
        let now_ms = self.context.env.clock.monotonic().as_millis() as i64;
        let Head::Source { source, targets } = &mut self.head else { return Ok(false) };
        let step = source.step(now_ms, targets)?;
        let waiting = if let SourceStep::Waiting(why) = &step { Some(why.clone()) } else { None };
        if waiting != self.waiting {
            self.waiting = waiting.clone();
            self.events.send(TaskEvent::Waiting(self.id.clone(), waiting));
        }
        if self.reads_in && source.is_bootstrapped() {
            self.reads_in = false;
            self.events.send(TaskEvent::Running(self.id.clone()));
        }
        if source.has_ended() && !self.said_ended {
            self.said_ended = true;
            self.events.send(TaskEvent::Ended(self.id.clone()));
        }
        Ok(step == SourceStep::Rows)
    }

    fn work_gate(&mut self) -> Result<bool> {
        // An aligned barrier waits until the snapshot before it is acknowledged; that is rare, since one is in flight.
        if let Some(&barrier) = self.barriers.last() {
            if self.snapshot.is_some() || self.must_wait(barrier) {
                return Ok(false);
            }
            self.barriers.pop();
            self.pass_barrier(barrier)?;
            return Ok(true);
        }
        let Head::Gate { gate, node, beside } = &mut self.head else { return Ok(false) };
        match gate.poll(only_input(node, beside)) {
            None => return Ok(false),
            Some(Gated::Batch(input, batch)) => {
                let (node, input) = entered(node, beside, input);
                node.push(input, Element::Batch(batch.0))?;
            }
            Some(Gated::InputWatermark(input, time)) => {
                let (node, input) = entered(node, beside, input);
                node.operator.on_input_watermark(input, time);
            }
            Some(Gated::Watermark(time)) => {
                self.watermark_ms.set(time.0);
                node.push(0, Element::Watermark(time))?;
            }
            Some(Gated::Idle) => node.push(0, Element::Idle)?,
            Some(Gated::End) => node.push(0, Element::End)?,
            Some(Gated::Barrier(barrier)) => self.barriers.push(barrier),
        }
        Ok(true)
    }

    /// Freezes every table, saves every blob, sends the barrier on, and begins the snapshot.
    fn pass_barrier(&mut self, barrier: Barrier) -> Result<()> {
        let mut snapshot = Snapshot::new(barrier, self.said_ended);
        let mut freeze = |node: &mut Node| {
            snapshot.freeze(node);
            Ok(())
        };
        match &mut self.head {
            Head::Source { source, targets } => {
                targets.barrier(barrier, &mut freeze)?;
                snapshot.source(self.id.head.clone(), source.states());
            }
            Head::Gate { node, .. } => node.barrier(barrier, &mut freeze)?,
        }
        self.snapshot = Some(snapshot);
        if barrier.kind.is_last() {
            self.state = State::Stopping;
        }
        Ok(())
    }

    /// Moves the outstanding snapshot on by a bounded amount of work.
    fn advance_snapshot(&mut self) -> Result<bool> {
        self.evict()?;
        let Some(mut snapshot) = self.snapshot.take() else { return Ok(false) };
        let context = &self.snapshots;
        let progress = {
            let mut nodes = |visit: OnNode<'_>| match &mut self.head {
                Head::Source { targets, .. } => targets.visit(visit),
                Head::Gate { node, .. } => node.visit(visit),
            };
            snapshot.advance(context, &mut nodes, DRAIN_PER_STEP, &mut self.carried)?
        };
        match progress {
            Progress::Working => {
                self.snapshot = Some(snapshot);
                Ok(true)
            }
            Progress::Waiting => {
                self.snapshot = Some(snapshot);
                Ok(false)
            }
            Progress::Declined(reason, segments) => {
                let epoch = snapshot.barrier().epoch;
                self.carried.extend(segments.into_iter().filter(|_| !planted(Bug::ForgetDeclined)));
                self.events.send(TaskEvent::Declined(self.id.clone(), epoch, reason));
                Ok(true)
            }
            Progress::Complete(mut done) => {
                done.segments.append(&mut self.carried);
                self.events.send(TaskEvent::Acked(self.id.clone(), snapshot.barrier().epoch, done));
                Ok(true)
            }
        }
    }

    /// Keeps the state in memory within its budget; what goes to the store, between snapshots only (see `state`). What must stay
    /// in memory may fill the budget; a quarter of it is for the rest all the same, or that would move in and out with every
    /// batch in vain.
    fn evict(&mut self) -> Result<()> {
        let is_draining = self.snapshot.is_some();
        let pinned = |table: &dyn Table| if is_draining && !table.evicts_apart() { table.bytes() } else { table.pinned_bytes() };
        let (mut staying, mut moving) = (0, 0);
        let (mut gauges, mut at) = (std::mem::take(&mut self.state_keys), 0);
        self.visit(&mut |node| {
            let tables = node.operator.tables();
            if tables.is_empty() {
                return Ok(());
            }
            let mut keys = 0;
            for table in tables {
                keys += table.keys();
                let pinned = pinned(table);
                staying += pinned;
                moving += table.bytes().saturating_sub(pinned);
            }
            if at == gauges.len() {
                gauges.push(node.context.metrics.gauge(STATE_KEYS, node.context.operator.as_str(), node.context.index));
            }
            gauges[at].set(keys as i64);
            at += 1;
            Ok(())
        })?;
        self.state_keys = gauges;
        self.state_bytes.set((staying + moving) as i64);
        let allowed = self.memory_budget.saturating_sub(staying).max(self.memory_budget / 4);
        if moving <= allowed {
            return Ok(());
        }
        // A tenth below what is allowed, so that eviction is not needed again with the next batch; not more, so that it is short.
        let excess = moving - allowed + (allowed / 10).min(EVICTED_AT_ONCE);
        self.visit(&mut |node| {
            for table in node.operator.tables() {
                let movable = table.bytes().saturating_sub(pinned(table));
                let share = (excess as u128 * movable as u128 / moving.max(1) as u128) as usize;
                if share == 0 {
                    continue;
                }
                table.evict(share).map_err(|e| e.at(format!("table {}", table.name())))?;
            }
            Ok(())
        })
    }

    fn close(&mut self) {
        self.state = State::Done;
        self.snapshot = None;
        // Closing cannot fail; the walk's result says nothing new.
        let _ = self.visit(&mut |node| {
            node.operator.close();
            Ok(())
        });
    }
}

fn place(e: Error, node: &Node) -> Error {
    e.at(format!("operator {}/{}", node.context.operator, node.context.index))
}

/// The text of a panic, as far as it has one.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_string()));
    text.unwrap_or_else(|| "no message".into())
}

/// Tables of an operator with their schema, for the manifest.
pub(crate) fn schemas(tables: &[&mut dyn Table]) -> Vec<TableSchema> {
    tables.iter().map(|t| TableSchema { name: t.name().to_string(), schema: t.schema() }).collect()
}
