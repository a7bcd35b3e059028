//! The logical graph: operators and the streams between them, as the DSL draws it.
//!
//! Invariant: a node's inputs exist before the node, so there are no cycles and creation order is a topological order.
//! Sources and sinks that are named only (a topic) are connected when the plan is made, not when the graph is drawn.

use super::{NodeNote, Routing};
use crate::error::{Error, Result};
use crate::operators::{ErrorPolicy, Guarantee, IngestFactory, OperatorFactory, Sink, Source};
use crate::time::WatermarkStrategy;
use std::sync::Arc;

/// Index of a node in its graph.
pub type NodeIndex = usize;

/// Number of key groups unless the job says otherwise.
pub const DEFAULT_MAX_PARALLELISM: u16 = 128;

/// A job as drawn.
pub struct LogicalGraph {
    /// Job name: state, markers and metrics are filed under it.
    pub job: String,
    /// Tasks per operator that names no number of its own.
    pub parallelism: u32,
    /// Number of key groups; fixed once the job has state.
    pub max_parallelism: u16,
    nodes: Vec<LogicalNode>,
    problems: Vec<Error>,
}

/// An operator as drawn.
pub struct LogicalNode {
    /// Kind, one word: `map`, `window`; derived ids begin with it.
    pub kind: &'static str,
    /// Id given by the user.
    pub id: Option<String>,
    /// What a derived id is made of in place of the kind: `source-payments`.
    pub subject: Option<String>,
    /// Display name given by the user.
    pub name: Option<String>,
    /// What it does.
    pub role: Role,
    /// What it reads, in the order of its input numbers.
    pub inputs: Vec<Input>,
    /// Number of tasks asked for; `None` = the job's.
    pub parallelism: Option<u32>,
    /// Whether its rows may take others back, where that is known.
    pub changes: Option<bool>,
    /// Whether rows can fail here: then it gets an errors output under policy dead-letter.
    pub can_reject: bool,
    /// What `explain` says of it.
    pub note: NodeNote,
}

/// One input of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input {
    /// The node it reads from.
    pub from: NodeIndex,
    /// Which of its output ports.
    pub port: usize,
    /// How rows are dealt out. [`Routing::Forward`] is a wish: it becomes `Rebalance` between different parallelisms.
    pub routing: Routing,
}

/// What a node does.
pub enum Role {
    /// Reads from outside.
    Source(SourceNode),
    /// Computes.
    Operator(OperatorFactory),
    /// Writes to the outside.
    Sink(SinkRef),
}

/// Whether a source is read as a stream, or first up to its present end, as a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadAs {
    /// Rows as they come.
    Stream,
    /// The latest value of each key; read in before the streams that join it.
    Table,
}

/// Connects to a source when the plan is made.
pub type SourceFactory = Box<dyn Fn(ReadAs) -> Result<Arc<dyn Source>>>;

/// A source as drawn.
pub struct SourceNode {
    /// Makes the description of the source.
    pub connect: SourceFactory,
    /// Stream or table.
    pub read_as: ReadAs,
    /// Decodes and stamps.
    pub ingest: IngestFactory,
    /// Watermarks, if event time was asked for.
    pub watermarks: Option<WatermarkStrategy>,
    /// How far ahead of the job's minimum a split may run, in milliseconds.
    pub max_ahead_ms: Option<i64>,
    /// Sources of one name keep step with each other; without one, the splits of this source do among themselves.
    pub in_step: Option<String>,
    /// What becomes of a record that fails here or downstream.
    pub policy: ErrorPolicy,
    /// Where dead letters go: needed under policy dead-letter.
    pub dead_letters: Option<DeadLetters>,
}

/// How dead letters are written.
#[derive(Clone)]
pub struct DeadLetters {
    /// Turns `Rows<Rejected>` into what the sink takes.
    pub encode: OperatorFactory,
    /// Where they go.
    pub sink: SinkRef,
}

/// A sink, or the wish for one.
#[derive(Clone)]
pub enum SinkRef {
    /// A sink as it is.
    Ready(Arc<dyn Sink>),
    /// A topic, connected through [`TopicSinks`] when the plan is made.
    Topic(TopicRequest),
}

/// A topic to be written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRequest {
    /// Topic name.
    pub topic: String,
    /// [`Guarantee::ExactlyOnce`] or [`Guarantee::AtLeastOnce`].
    pub guarantee: Guarantee,
    /// Make the topic with so many partitions when it is missing; `None` = a missing topic is an error.
    pub create_partitions: Option<u32>,
    /// A topic made here is a compacted one: only the newest record of a key matters.
    pub compacted: bool,
    /// The largest record that a topic made here takes, in bytes; `None` = what is usual there.
    pub max_record_bytes: Option<u64>,
}

/// The largest dead letter, in bytes, of a topic that is made for them: several times what topics usually take, and no more than hosted
/// brokers allow.
const LARGEST_LETTER: u64 = 8_000_000;

/// Partitions of an output topic that is missing and is made.
pub const NEW_TOPIC_PARTITIONS: u32 = 4;

impl TopicRequest {
    /// Exactly once into this topic, which is made when it is missing.
    pub fn new(topic: impl Into<String>) -> Self {
        TopicRequest {
            topic: topic.into(),
            guarantee: Guarantee::ExactlyOnce,
            create_partitions: Some(NEW_TOPIC_PARTITIONS),
            compacted: false,
            max_record_bytes: None,
        }
    }

    /// The same for dead letters. Made here, the topic takes more than others: a record as large as its source takes comes with headers,
    /// and if it could not be put aside it would stop the job.
    pub fn dead_letters(topic: impl Into<String>) -> Self {
        TopicRequest { max_record_bytes: Some(LARGEST_LETTER), ..TopicRequest::new(topic) }
    }
}

/// Makes sinks of topic names; what `--topics` means decides how.
pub trait TopicSinks {
    /// The sink for a topic.
    ///
    /// # Errors
    /// Settings that cannot work.
    fn sink(&self, request: &TopicRequest) -> Result<Arc<dyn Sink>>;
}

/// For graphs that name no topics: every request is an error.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoTopics;

impl TopicSinks for NoTopics {
    fn sink(&self, request: &TopicRequest) -> Result<Arc<dyn Sink>> {
        Err(Error::fatal(format!("topic {} cannot be written: this job knows no topics", request.topic))
            .help("make the job with waterwheel::main or waterwheel::Job, which take --topics"))
    }
}

impl LogicalGraph {
    /// An empty graph.
    pub fn new(job: impl Into<String>) -> Self {
        LogicalGraph { job: job.into(), parallelism: 1, max_parallelism: DEFAULT_MAX_PARALLELISM, nodes: Vec::new(), problems: Vec::new() }
    }

    /// Adds a node behind its inputs.
    ///
    /// # Panics
    /// When an input is not in the graph: a bug of the caller.
    pub fn add(&mut self, node: LogicalNode) -> NodeIndex {
        assert!(node.inputs.iter().all(|i| i.from < self.nodes.len()), "an input must exist before its consumer");
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// The nodes, inputs before consumers.
    pub fn nodes(&self) -> &[LogicalNode] {
        &self.nodes
    }

    /// One node.
    pub fn node(&self, index: NodeIndex) -> &LogicalNode {
        &self.nodes[index]
    }

    /// One node, to be changed.
    pub fn node_mut(&mut self, index: NodeIndex) -> &mut LogicalNode {
        &mut self.nodes[index]
    }

    /// Remembers an error met while drawing; the planner reports the first one.
    pub fn problem(&mut self, error: Error) {
        self.problems.push(error);
    }

    /// Errors met while drawing.
    pub fn problems(&self) -> &[Error] {
        &self.problems
    }

    /// The source whose error policy a node inherits: that of its first input, all the way up.
    pub fn origin(&self, mut index: NodeIndex) -> Option<&SourceNode> {
        loop {
            match &self.nodes[index].role {
                Role::Source(source) => return Some(source),
                _ => index = self.nodes[index].inputs.first()?.from,
            }
        }
    }

    /// As [`origin`](Self::origin), its index.
    pub fn origin_index(&self, mut index: NodeIndex) -> Option<NodeIndex> {
        while !matches!(self.nodes[index].role, Role::Source(_)) {
            index = self.nodes[index].inputs.first()?.from;
        }
        Some(index)
    }
}

impl LogicalNode {
    /// A node with nothing but its kind, role and inputs.
    pub fn new(kind: &'static str, role: Role, inputs: Vec<Input>) -> Self {
        LogicalNode {
            kind,
            id: None,
            subject: None,
            name: None,
            role,
            inputs,
            parallelism: None,
            changes: None,
            can_reject: false,
            note: NodeNote::default(),
        }
    }

    /// Whether it keeps keyed state.
    pub fn is_stateful(&self) -> bool {
        !self.note.state.is_empty()
    }
}
