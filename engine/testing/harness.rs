//! The operator harness: one operator, fed by hand, in every mode it may meet in production.
//!
//! [`Harness::in_every_mode`] runs the same steps as whole batches, row by row, with a snapshot and a restore into fresh
//! instances after every step, and the same while the number of instances changes; an operator is right when what it says is
//! equal in all of them.
//!
//! Invariant: a harness does to an operator what a task does, in the order that the contract of
//! [`Operator`](crate::operators::Operator) states; between snapshot and restore nothing survives but what was snapshotted.

use super::SimMachine;
use crate::env::Env;
use crate::error::Result;
use crate::exchange::EdgeSender;
use crate::observe::Metrics;
use crate::operators::{ErrorPolicy, Node, OpenContext, OperatorFactory, Port, Target, Targets};
use crate::record::{Barrier, BarrierKind, BatchBox, Data, Element, Epoch, OperatorId, Rejected, Rows, key_group, key_groups_of, task_of};
use crate::state::{MemoryStores, RestoredSnapshot, StateStore, StateStores, TableContext, TieredStores, WriteBatch};
use crate::time::EventTime;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Key groups of a harness.
const MAX_PARALLELISM: u16 = 16;

/// One thing that happens to an operator.
pub enum Step {
    /// Rows of an input.
    Batch(usize, BatchBox),
    /// Rows of an input that reach every instance.
    Broadcast(usize, BatchBox),
    /// The merged watermark grows.
    Watermark(EventTime),
    /// The watermark of one input grows.
    InputWatermark(usize, EventTime),
    /// Wall time has come so far.
    WallTime(i64),
    /// Calls to the outside get that many turns, in an order that the seed picks; then the clock is a millisecond further.
    Calls(usize),
    /// Every input has ended: watermark MAX, then the end.
    End,
}

impl Step {
    /// Rows of input 0.
    pub fn rows<T: Data>(rows: Rows<T>) -> Step {
        Step::Batch(0, rows.boxed())
    }

    /// The merged watermark, in milliseconds.
    pub fn watermark(ms: i64) -> Step {
        Step::Watermark(EventTime(ms))
    }
}

/// How the steps are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Batches as they are.
    Whole,
    /// A batch a row; after each, all leaves memory that may.
    SingleRows,
    /// Snapshot and restore into a fresh instance after every step.
    Restored,
    /// The same, from one instance to two, to three and back.
    Rescaled,
}

impl Mode {
    /// All of them.
    pub const ALL: [Mode; 4] = [Mode::Whole, Mode::SingleRows, Mode::Restored, Mode::Rescaled];
}

/// What came out: the output port (`None` for rejected rows) and the element.
type Collected = Arc<Mutex<Vec<(Option<Port>, Element)>>>;

struct Collector {
    port: Option<Port>,
    into: Collected,
}

impl EdgeSender for Collector {
    fn send(&mut self, element: Element) {
        self.into.lock().unwrap_or_else(PoisonError::into_inner).push((self.port, element));
    }
    fn has_room(&self) -> bool {
        true
    }
}

struct Instance {
    node: Node,
    store: Arc<dyn StateStore>,
    next_time: Option<i64>,
}

/// An operator and what a task would put around it. Any error is a panic: this is for tests.
pub struct Harness {
    factory: OperatorFactory,
    ports: usize,
    policy: ErrorPolicy,
    machine: SimMachine,
    env: Env,
    metrics: Metrics,
    instances: Vec<Instance>,
    collected: Collected,
    epoch: Epoch,
    wall_ms: i64,
}

impl Harness {
    /// One fresh instance with the main output and `side_ports` side outputs; rows that fail are collected.
    ///
    /// # Panics
    /// When the operator does not open.
    pub fn new(factory: &OperatorFactory, side_ports: usize) -> Harness {
        Self::with_policy(factory, side_ports, ErrorPolicy::DeadLetter)
    }

    /// The same under another error policy.
    ///
    /// # Panics
    /// When the operator does not open.
    pub fn with_policy(factory: &OperatorFactory, side_ports: usize, policy: ErrorPolicy) -> Harness {
        Self::on_machine(SimMachine::new(1), factory, side_ports, policy)
    }

    /// The same on a machine of the caller's.
    ///
    /// # Panics
    /// When the operator does not open.
    pub fn on_machine(machine: SimMachine, factory: &OperatorFactory, side_ports: usize, policy: ErrorPolicy) -> Harness {
        let mut harness = Harness {
            factory: factory.clone(),
            ports: 1 + side_ports,
            policy,
            env: machine.env(),
            machine,
            metrics: Metrics::default(),
            instances: Vec::new(),
            collected: Collected::default(),
            epoch: 0,
            wall_ms: 0,
        };
        harness.start(1, None).unwrap_or_else(|e| panic!("{}", e.report()));
        harness
    }

    /// Runs `steps` on a new harness in every mode and checks that `read` says the same after each of them. Returns that.
    ///
    /// # Panics
    /// When two modes differ, or the operator fails.
    pub fn in_every_mode<R: PartialEq + Debug>(
        factory: &OperatorFactory,
        side_ports: usize,
        steps: &[Step],
        read: impl Fn(&mut Harness) -> R,
    ) -> R {
        let mut runs = Mode::ALL.into_iter().map(|mode| {
            let mut harness = Harness::new(factory, side_ports);
            harness.run(steps, mode);
            (mode, read(&mut harness))
        });
        let Some((_, expect)) = runs.next() else { unreachable!("there are modes") };
        for (mode, got) in runs {
            assert_eq!(got, expect, "mode {mode:?} differs from whole batches");
        }
        expect
    }

    /// Carries out steps.
    ///
    /// # Panics
    /// When the operator fails.
    pub fn run(&mut self, steps: &[Step], mode: Mode) {
        for (i, step) in steps.iter().enumerate() {
            match step {
                Step::Batch(input, batch) if mode == Mode::SingleRows => {
                    let rows: Vec<u32> = (0..batch.len() as u32).collect();
                    for row in batch.clone_batch().scatter(&rows, rows.len()) {
                        self.push(*input, row);
                        self.evict();
                    }
                }
                Step::Batch(input, batch) => self.push(*input, batch.clone_batch()),
                Step::Broadcast(input, batch) => self.push_to_all(*input, batch),
                Step::Watermark(time) => self.watermark(*time),
                Step::InputWatermark(input, time) => self.input_watermark(*input, *time),
                Step::WallTime(ms) => self.wall_time(*ms),
                Step::Calls(turns) => self.calls(*turns),
                Step::End => self.end(),
            }
            match mode {
                Mode::Whole | Mode::SingleRows => {}
                Mode::Restored => self.snapshot_and_restore(1),
                Mode::Rescaled => self.snapshot_and_restore([2, 3, 1][i % 3]),
            }
        }
    }

    /// Rows of an input, routed by key over the instances; without keys to the first one.
    ///
    /// # Panics
    /// When the operator fails.
    pub fn push(&mut self, input: usize, batch: BatchBox) {
        self.try_push(input, batch).unwrap_or_else(|e| panic!("{}", e.report()));
    }

    /// Rows of an input, to every instance.
    ///
    /// # Panics
    /// When the operator fails.
    pub fn push_to_all(&mut self, input: usize, batch: &BatchBox) {
        for instance in &mut self.instances {
            let pushed = instance.node.push(input, Element::Batch(batch.clone_batch()));
            pushed.unwrap_or_else(|e| panic!("{}", e.report()));
        }
    }

    /// As [`push`](Self::push).
    ///
    /// # Errors
    /// Of the operator.
    pub fn try_push(&mut self, input: usize, batch: BatchBox) -> Result<()> {
        let n = self.instances.len();
        let targets: Vec<u32> = match batch.keys() {
            Some(keys) => keys.hashes().iter().map(|&h| task_of(key_group(h, MAX_PARALLELISM), n as u32, MAX_PARALLELISM)).collect(),
            None => vec![0; batch.len()],
        };
        let parts = if n == 1 { vec![batch] } else { batch.scatter(&targets, n) };
        for (instance, part) in self.instances.iter_mut().zip(parts) {
            if !part.is_empty() {
                instance.node.push(input, Element::Batch(part))?;
            }
        }
        Ok(())
    }

    /// The merged watermark grows.
    ///
    /// # Panics
    /// When the operator fails.
    pub fn watermark(&mut self, time: EventTime) {
        self.broadcast(|| Element::Watermark(time));
    }

    /// The watermark of one instance grows: with idle channels in front, others may come as far only later.
    ///
    /// # Panics
    /// When the operator fails, or there is no such instance.
    pub fn watermark_of(&mut self, instance: usize, time: EventTime) {
        self.instances[instance].node.push(0, Element::Watermark(time)).unwrap_or_else(|e| panic!("{}", e.report()));
    }

    /// The watermark of one input grows.
    pub fn input_watermark(&mut self, input: usize, time: EventTime) {
        for instance in &mut self.instances {
            instance.node.operator.on_input_watermark(input, time);
        }
    }

    /// Wall time has come to `ms`: calls the instances that asked for it, until they ask for a later time.
    ///
    /// # Panics
    /// When the operator fails.
    pub fn wall_time(&mut self, ms: i64) {
        self.wall_ms = ms;
        for instance in &mut self.instances {
            if instance.node.operator.holds() || instance.next_time.is_some_and(|at| at <= ms) {
                let next = instance.node.on_time(ms);
                instance.next_time = next.unwrap_or_else(|e| panic!("{}", e.report()));
                assert!(instance.next_time.is_none_or(|next| next > ms), "asks for a time that has passed");
            }
        }
    }

    /// Lets calls to the outside go on for some turns, then lets a millisecond pass.
    ///
    /// # Panics
    /// When the operator fails.
    pub fn calls(&mut self, turns: usize) {
        for _ in 0..turns {
            self.machine.run_background();
        }
        self.machine.advance(Duration::from_millis(1));
        self.wall_time(self.wall_ms + 1);
    }

    /// Whether an instance has rows inside whose results are still to leave.
    pub fn holds(&self) -> bool {
        self.instances.iter().any(|instance| instance.node.operator.holds())
    }

    /// Every input ends.
    ///
    /// # Panics
    /// When the operator fails.
    pub fn end(&mut self) {
        self.watermark(EventTime::MAX);
        self.broadcast(|| Element::End);
    }

    /// The input that the operator wants to read before others; all instances agree.
    ///
    /// # Panics
    /// When they do not.
    pub fn only_input(&self) -> Option<usize> {
        let mut wants = self.instances.iter().map(|i| i.node.operator.only_input());
        let first = wants.next().flatten();
        assert!(wants.all(|w| w == first), "instances want different inputs");
        first
    }

    /// All state leaves memory that may.
    ///
    /// # Panics
    /// When the disk fails.
    pub fn evict(&mut self) {
        for instance in &mut self.instances {
            for table in instance.node.operator.tables() {
                table.evict(usize::MAX).unwrap_or_else(|e| panic!("{}", e.report()));
            }
        }
    }

    /// Takes a checkpoint of all instances and goes on with `parallelism` fresh ones restored from it.
    ///
    /// # Panics
    /// When the operator fails.
    pub fn snapshot_and_restore(&mut self, parallelism: u32) {
        self.try_snapshot_and_restore(parallelism).unwrap_or_else(|e| panic!("{}", e.report()));
    }

    /// As [`snapshot_and_restore`](Self::snapshot_and_restore).
    ///
    /// # Errors
    /// Of the operator or its tables.
    pub fn try_snapshot_and_restore(&mut self, parallelism: u32) -> Result<()> {
        self.epoch += 1;
        let (mut snapshots, mut blobs) = (Vec::new(), Vec::new());
        let barrier = Barrier { epoch: self.epoch, kind: BarrierKind::Checkpoint };
        for (i, instance) in self.instances.iter_mut().enumerate() {
            instance.node.barrier(barrier, &mut |node| {
                node.operator.tables().iter_mut().for_each(|t| t.freeze(barrier.epoch));
                blobs.push(node.operator.save());
                Ok(())
            })?;
            for table in instance.node.operator.tables() {
                let mut done = false;
                while !done {
                    let mut writes = WriteBatch::default();
                    done = table.drain(&mut writes, 2)?;
                    instance.store.write_run(&writes)?;
                }
                table.drained(self.epoch);
            }
            let dir = PathBuf::from(format!("/snapshots/{}/{i}", self.epoch));
            instance.store.checkpoint(&dir)?;
            snapshots.push(RestoredSnapshot { dir, groups: instance.node.context.groups.clone() });
            instance.node.operator.close();
        }
        self.start(parallelism, Some((snapshots, blobs)))
    }

    fn start(&mut self, parallelism: u32, restored: Option<(Vec<RestoredSnapshot>, Vec<Vec<u8>>)>) -> Result<()> {
        self.instances.clear();
        for index in 0..parallelism {
            let context = OpenContext {
                operator: OperatorId::new("harness"),
                index,
                parallelism,
                max_parallelism: MAX_PARALLELISM,
                groups: key_groups_of(index, parallelism, MAX_PARALLELISM),
                policy: self.policy,
                env: self.env.clone(),
                metrics: self.metrics.clone(),
            };
            let stores = TieredStores::new(&self.env, Arc::new(MemoryStores::new(self.env.clone())));
            let dir = PathBuf::from(format!("/live/{}/{index}", self.epoch));
            let store = match &restored {
                Some((snapshots, _)) => stores.restore(&dir, snapshots, context.groups.clone())?,
                None => stores.create(&dir)?,
            };
            let blobs = restored.as_ref().map(|(_, blobs)| &blobs[..]);
            let instance = self.instance(context, store, blobs)?;
            self.instances.push(instance);
        }
        Ok(())
    }

    fn instance(&self, context: OpenContext, store: Arc<dyn StateStore>, blobs: Option<&[Vec<u8>]>) -> Result<Instance> {
        let collector = |port| Target::Edge(Box::new(Collector { port, into: self.collected.clone() }));
        let ports = (0..self.ports).map(|port| vec![collector(Some(port))]).collect();
        let targets = Targets::new(&context, ports, vec![collector(None)]);
        let mut node = Node { operator: (self.factory)(), context, targets };
        node.operator.open(&node.context)?;
        for table in node.operator.tables() {
            let context = TableContext {
                operator: node.context.operator.as_str().to_string(),
                store: store.clone(),
                groups: node.context.groups.clone(),
                max_parallelism: node.context.max_parallelism,
            };
            table.open(&context, blobs.is_some())?;
        }
        if let Some(blobs) = blobs {
            node.operator.restore(blobs)?;
        }
        let next_time = node.on_time(self.wall_ms)?;
        Ok(Instance { node, store, next_time })
    }

    fn broadcast(&mut self, element: impl Fn() -> Element) {
        for instance in &mut self.instances {
            instance.node.push(0, element()).unwrap_or_else(|e| panic!("{}", e.report()));
        }
    }

    /// Takes the batches that left by a port (`None`: rejected rows), as they are.
    pub fn take_batches(&mut self, port: Option<Port>) -> Vec<BatchBox> {
        let mut all = self.collected.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut taken, mut kept) = (Vec::new(), Vec::new());
        for (p, element) in all.drain(..) {
            match element {
                Element::Batch(batch) if p == port => taken.push(batch),
                element => kept.push((p, element)),
            }
        }
        *all = kept;
        taken
    }

    /// Takes everything that left by a port, in order: rows, watermarks, barriers, the end.
    pub fn take_elements(&mut self, port: Port) -> Vec<Element> {
        let mut all = self.collected.lock().unwrap_or_else(PoisonError::into_inner);
        let (taken, kept) = all.drain(..).partition(|(p, _)| *p == Some(port));
        *all = kept;
        let taken: Vec<(Option<Port>, Element)> = taken;
        taken.into_iter().map(|(_, element)| element).collect()
    }

    /// Takes the rows that left by a port, with their times.
    pub fn take<T: Data>(&mut self, port: Port) -> Vec<(T, i64)> {
        let rows = |batch| {
            let rows = crate::record::downcast::<Rows<T>>(batch);
            rows.rows.into_iter().zip(rows.times.into_iter().map(|t| t.0))
        };
        self.take_batches(Some(port)).into_iter().flat_map(rows).collect()
    }

    /// Takes the rows that were rejected.
    pub fn take_rejected(&mut self) -> Vec<Rejected> {
        self.take_batches(None).into_iter().flat_map(|batch| crate::record::downcast::<Rows<Rejected>>(batch).rows).collect()
    }

    /// A counter's sum over all instances.
    pub fn count(&self, name: &str) -> u64 {
        self.metrics.sum(name)
    }

    /// Bytes that the tables of all instances hold in memory.
    pub fn state_bytes(&mut self) -> usize {
        let bytes = |i: &mut Instance| i.node.operator.tables().iter().map(|t| t.bytes()).sum::<usize>();
        self.instances.iter_mut().map(bytes).sum()
    }
}
