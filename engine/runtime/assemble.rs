//! From a plan to the tasks of one attempt: channels, gates, operator trees.
//!
//! Invariant: for every edge there is one channel per (sending task, receiving task) pair that the routing allows; a gate
//! lists its channels in (input, edge, sending task) order, so that the order is the same in every attempt.

use super::snapshot::SnapshotContext;
use super::task::{Beside, Head, Link, Restored, Task};
use super::{Events, Mailbox};
use crate::checkpoint::{CheckpointStorage, Uploads};
use crate::env::Env;
use crate::error::Result;
use crate::exchange::{Edge, EdgeSender, Gate, InStep, Receiver, Routing, Sender, Waker, channel};
use crate::graph::{Chain, NodeKind, PhysicalPlan, PlanNode, PlanTarget};
use crate::observe::Metrics;
use crate::operators::{Aligned, Alignment, Node, OpenContext, Operator, SinkOperator, SourceTask, Target, Targets};
use crate::record::{TaskId, key_groups_of};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// What every task of an attempt shares.
pub(crate) struct Attempt {
    pub(crate) env: Env,
    pub(crate) metrics: Metrics,
    pub(crate) storage: Arc<dyn CheckpointStorage>,
    pub(crate) events: Events,
    /// Unique per attempt.
    pub(crate) id: String,
    /// Folder for working files of this attempt.
    pub(crate) work: PathBuf,
    /// Folder for staged segments.
    pub(crate) staging: PathBuf,
    /// Staged segments are kept in the storage, too: it is not the folder that they are in.
    pub(crate) keeps_segments: bool,
    /// Bytes queued per channel before the sender waits.
    pub(crate) channel_bytes: usize,
    /// Rows per source batch.
    pub(crate) batch_rows: usize,
    /// State bytes in memory per task.
    pub(crate) memory_budget: usize,
}

/// A task with the way to reach it.
pub(crate) struct Assembled {
    pub(crate) task: Task,
    pub(crate) mailbox: Arc<Mailbox>,
    /// Worker it runs on.
    pub(crate) worker: usize,
    /// It reads from outside: barriers start here.
    pub(crate) is_source: bool,
}

/// Channels of the whole plan, keyed by (edge, sending task) and (chain, receiving task).
#[derive(Default)]
struct Wires {
    senders: BTreeMap<(usize, u32), Vec<Sender>>,
    receivers: BTreeMap<(usize, u32), Vec<(usize, Receiver)>>,
}

/// Which worker a task runs on: by index, so that chains of one index share a thread and its caches.
pub(crate) fn worker_of(index: u32, workers: usize) -> usize {
    index as usize % workers
}

/// Gives what a task starts from.
pub(crate) type RestoreTask<'a> = &'a mut dyn FnMut(&TaskId, &Chain) -> Result<(Restored, Arc<Mutex<Uploads>>)>;

/// Builds every task. `wakers[w]` wakes worker `w`; `restored` gives what a task starts from.
pub(crate) fn assemble(plan: &PhysicalPlan, attempt: &Attempt, wakers: &[Waker], restored: RestoreTask<'_>) -> Result<Vec<Assembled>> {
    let mut wires = wire(plan, attempt.channel_bytes, wakers);
    let mut all = Vec::new();
    let (mut aligned, ahead) = (align(plan), max_ahead(plan));
    for (at, chain) in plan.chains.iter().enumerate() {
        let in_step = in_step(plan, at, &ahead);
        for index in 0..chain.parallelism {
            let id = TaskId { head: chain.head.clone(), index };
            let (restored, uploads) = restored(&id, chain)?;
            let waker = wakers[worker_of(index, wakers.len())].clone();
            let aligned = aligned.remove(&(at, index));
            let builder = Builder { plan, attempt, chain, at, index, waker, aligned, in_step: in_step.clone() };
            all.push(builder.build(id, &mut wires, restored, uploads)?);
        }
    }
    Ok(all)
}

/// By chain and index: what keeps the tasks of a source, or of several sources, in step.
fn align(plan: &PhysicalPlan) -> BTreeMap<(usize, u32), Aligned> {
    // A source without a name keeps step with itself alone.
    let mut groups: BTreeMap<(Option<&str>, usize), Vec<_>> = BTreeMap::new();
    for (at, chain) in plan.chains.iter().enumerate() {
        if let NodeKind::Source(spec) = &chain.nodes[0].kind
            && let Some(ms) = spec.max_ahead_ms
        {
            let name = spec.in_step.as_deref();
            let members = groups.entry((name, if name.is_some() { 0 } else { at })).or_default();
            members.extend((0..chain.parallelism).map(|index| (at, index, ms)));
        }
    }
    let mut aligned = BTreeMap::new();
    for members in groups.into_values() {
        let all = Alignment::new(members.len() as u32);
        aligned.extend(members.into_iter().zip(0..).map(|((at, index, ms), number)| ((at, index), all.member(number, ms))));
    }
    aligned
}

/// By chain: how far its tasks may be apart in event time, in milliseconds, as the sources above it are told. 0: no stream
/// feeds it, only tables; the largest number: nothing is told.
fn max_ahead(plan: &PhysicalPlan) -> Vec<i64> {
    let own = |chain: &Chain| match &chain.nodes[0].kind {
        NodeKind::Source(spec) if !spec.is_table => spec.max_ahead_ms.unwrap_or(i64::MAX),
        _ => 0,
    };
    let mut ahead: Vec<i64> = plan.chains.iter().map(own).collect();
    for _ in &plan.chains {
        plan.edges.iter().for_each(|edge| ahead[edge.to] = ahead[edge.to].max(ahead[edge.from]));
    }
    ahead
}

/// What the gate of a chain keeps in step.
fn in_step(plan: &PhysicalPlan, chain: usize, ahead: &[i64]) -> Option<InStep> {
    let of_streams = plan.edges.iter().filter(|edge| edge.to == chain && ahead[edge.from] > 0);
    let max_ahead_ms = of_streams.clone().map(|edge| ahead[edge.from]).max().filter(|ms| *ms < i64::MAX)?;
    Some(InStep { max_ahead_ms, inputs: of_streams.map(|edge| edge.input).collect() })
}

fn wire(plan: &PhysicalPlan, capacity: usize, wakers: &[Waker]) -> Wires {
    let mut wires = Wires::default();
    for (e, edge) in plan.edges.iter().enumerate() {
        let (from, to) = (plan.chains[edge.from].parallelism, plan.chains[edge.to].parallelism);
        for sender in 0..from {
            for receiver in 0..to {
                if edge.routing == Routing::Forward && sender != receiver {
                    continue;
                }
                let waker = |index: u32| wakers[worker_of(index, wakers.len())].clone();
                let (tx, rx) = channel(capacity, waker(sender), waker(receiver));
                wires.senders.entry((e, sender)).or_default().push(tx);
                wires.receivers.entry((edge.to, receiver)).or_default().push((edge.input, rx));
            }
        }
    }
    for channels in wires.receivers.values_mut() {
        channels.sort_by_key(|(input, _)| *input);
    }
    wires
}

struct Builder<'a> {
    plan: &'a PhysicalPlan,
    attempt: &'a Attempt,
    chain: &'a Chain,
    at: usize,
    index: u32,
    waker: Waker,
    aligned: Option<Aligned>,
    in_step: Option<InStep>,
}

impl Builder<'_> {
    fn build(&self, id: TaskId, wires: &mut Wires, restored: Restored, uploads: Arc<Mutex<Uploads>>) -> Result<Assembled> {
        let head_node = &self.chain.nodes[0];
        let context = self.context(head_node);
        let mailbox = Mailbox::new(self.waker.clone());
        let mut is_source = false;
        let head = match &head_node.kind {
            NodeKind::Source(spec) => {
                is_source = true;
                let ingest = (spec.ingest)(&context);
                let (source, watermarks) = (spec.source.clone(), spec.watermarks.clone());
                let source = SourceTask::open(source, ingest, watermarks, context.clone(), self.waker.clone(), self.attempt.batch_rows)?;
                Head::Source { source: Box::new(source.aligned(self.aligned.clone())), targets: self.targets(head_node, &context, wires) }
            }
            _ => {
                let receivers = wires.receivers.remove(&(self.at, self.index)).unwrap_or_default();
                let gate = Gate::new(receivers).in_step(self.in_step.clone());
                Head::Gate { gate, node: Box::new(self.node(0, wires)), beside: self.beside() }
            }
        };
        let snapshots = SnapshotContext {
            env: self.attempt.env.clone(),
            task: id.clone(),
            groups: context.groups.clone(),
            store: restored.store.clone(),
            storage: self.attempt.storage.clone(),
            work: self.attempt.work.join(folder(&id)),
            uploads,
            waker: self.waker.clone(),
            staging: self.attempt.keeps_segments.then(|| self.attempt.staging.clone()),
        };
        let link = Link { mailbox: mailbox.clone(), events: self.attempt.events.clone() };
        let task = Task::new(id, head, context, snapshots, link, self.attempt.memory_budget, restored);
        Ok(Assembled { task, mailbox, worker: self.index as usize, is_source })
    }

    fn beside(&self) -> Vec<Beside> {
        let entries = self.chain.entries.iter().enumerate().filter(|(_, entry)| entry.node > 0);
        entries.map(|(gate, entry)| Beside { gate, operator: self.chain.nodes[entry.node].id.clone(), input: entry.input }).collect()
    }

    fn context(&self, node: &PlanNode) -> OpenContext {
        OpenContext {
            operator: node.id.clone(),
            index: self.index,
            parallelism: self.chain.parallelism,
            max_parallelism: self.plan.max_parallelism,
            groups: key_groups_of(self.index, self.chain.parallelism, self.plan.max_parallelism),
            policy: node.policy,
            env: self.attempt.env.clone(),
            metrics: self.attempt.metrics.clone(),
        }
    }

    fn node(&self, at: usize, wires: &mut Wires) -> Node {
        let node = &self.chain.nodes[at];
        let context = self.context(node);
        let operator: Box<dyn Operator> = match &node.kind {
            NodeKind::Operator(make) => make(),
            NodeKind::Sink(spec) => {
                let (staging, attempt) = (self.attempt.staging.clone(), self.attempt.id.clone());
                Box::new(SinkOperator::new(spec.sink.clone(), staging, attempt, self.waker.clone()))
            }
            NodeKind::Source(_) => unreachable!("a source is always a head"),
        };
        let targets = self.targets(node, &context, wires);
        Node { operator, context, targets }
    }

    fn targets(&self, node: &PlanNode, context: &OpenContext, wires: &mut Wires) -> Targets {
        let ports = node.ports.iter().map(|p| p.iter().map(|t| self.target(*t, wires)).collect()).collect();
        let errors = node.errors.iter().map(|t| self.target(*t, wires)).collect();
        Targets::new(context, ports, errors)
    }

    fn target(&self, target: PlanTarget, wires: &mut Wires) -> Target {
        match target {
            PlanTarget::Node(at) => Target::Node(Box::new(self.node(at, wires))),
            PlanTarget::Edge(e) => {
                let senders = wires.senders.remove(&(e, self.index)).unwrap_or_default();
                let edge: Box<dyn EdgeSender> = Box::new(Edge::new(senders, self.plan.edges[e].routing, self.plan.max_parallelism));
                Target::Edge(edge)
            }
        }
    }
}

/// A task's folder name: its id with what a file system may not like replaced, and the index.
pub(crate) fn folder(id: &TaskId) -> String {
    let safe: String =
        id.head.as_str().chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.' { c } else { '_' }).collect();
    format!("{safe}.{}", id.index)
}
