//! The physical plan: which operators run in one task, how many tasks there are, and how rows travel between them.
//!
//! Invariant: within a chain the nodes form a tree below `nodes[0]` (each has one parent, of a lower index); beside its parent's
//! rows a node takes in nothing but small tables, through the gate of the chain; every gate input of a chain is fed by exactly
//! one edge; a port or an errors output leads to its own edge, never to one that another output uses. Same graph, same
//! settings: same plan and same fingerprint.

use crate::operators::{ErrorPolicy, IngestFactory, OperatorFactory, Sink, Source};
use crate::record::OperatorId;
use crate::time::WatermarkStrategy;
use std::fmt;
use std::sync::Arc;

/// What the runtime runs. Built by [`plan`](super::plan).
#[derive(Debug)]
pub struct PhysicalPlan {
    /// Job name.
    pub job: String,
    /// Chains, upstream before downstream.
    pub chains: Vec<Chain>,
    /// Connections between chains.
    pub edges: Vec<Edge>,
    /// Number of key groups, fixed for the life of the job's state.
    pub max_parallelism: u16,
    /// Hash of ids, kinds and routing: two processes that run the same plan have the same one. Parallelism is not part of
    /// it, because a job may be restored with another one.
    pub fingerprint: String,
}

/// Operators that run in one task; `nodes[0]` is the head. There are `parallelism` such tasks.
#[derive(Debug)]
pub struct Chain {
    /// Id of the head: names the tasks.
    pub head: OperatorId,
    /// Number of tasks.
    pub parallelism: u32,
    /// The operators, parents before children.
    pub nodes: Vec<PlanNode>,
    /// Where each gate input enters: those of the head first. None for a source.
    pub entries: Vec<Entry>,
}

/// Where a gate input enters a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Index of the node.
    pub node: usize,
    /// Which of the node's inputs it is.
    pub input: usize,
}

/// One operator of a chain.
#[derive(Debug)]
pub struct PlanNode {
    /// Stable id.
    pub id: OperatorId,
    /// What it is.
    pub kind: NodeKind,
    /// `ports[p]` lists the consumers of output port `p`.
    pub ports: Vec<Vec<PlanTarget>>,
    /// Consumers of rejected rows (batches of `Rows<Rejected>`); empty unless the policy is dead-letter.
    pub errors: Vec<PlanTarget>,
    /// What becomes of a row that fails here.
    pub policy: ErrorPolicy,
    /// What it keeps of every key for ever.
    pub unbounded: Vec<String>,
}

/// What a node is.
pub enum NodeKind {
    /// Reads from outside; always a head without inputs.
    Source(SourceSpec),
    /// Computes.
    Operator(OperatorFactory),
    /// Writes to the outside; never has consumers.
    Sink(SinkSpec),
}

impl fmt::Debug for NodeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeKind::Source(s) => write!(f, "Source({})", s.source.describe()),
            NodeKind::Operator(_) => f.write_str("Operator"),
            NodeKind::Sink(s) => write!(f, "Sink({})", s.sink.describe()),
        }
    }
}

/// Where an output leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanTarget {
    /// A node of the same chain, by index.
    Node(usize),
    /// An edge, by index into [`PhysicalPlan::edges`].
    Edge(usize),
}

/// A connection from one output of one chain to one gate input of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// Chain it leaves.
    pub from: usize,
    /// Chain it enters.
    pub to: usize,
    /// Gate input it feeds.
    pub input: usize,
    /// Which task gets which row.
    pub routing: Routing,
}

pub use crate::exchange::Routing;

/// A source and how its rows enter.
#[derive(Clone)]
pub struct SourceSpec {
    /// Where rows come from.
    pub source: Arc<dyn Source>,
    /// Decodes and stamps event time; one per task.
    pub ingest: IngestFactory,
    /// How far event time has come, per split; `None` = no watermark before the end of the input.
    pub watermarks: Option<WatermarkStrategy>,
    /// A split whose watermark is more than this many milliseconds ahead of the job's minimum is held back; `None` = never.
    pub max_ahead_ms: Option<i64>,
    /// Sources of one name keep step with each other.
    pub in_step: Option<String>,
    /// It is read in before the stream that joins it; event time is that stream's.
    pub is_table: bool,
}

/// A sink.
#[derive(Clone)]
pub struct SinkSpec {
    /// Where rows go.
    pub sink: Arc<dyn Sink>,
}
