//! The job: a name, a few settings, and the graph that its streams are drawn in.
//!
//! Invariant: drawing never fails in the middle of a chain of calls; what is wrong is remembered and reported by
//! [`Job::plan`].

use super::source::{Decoding, SourceStream};
use super::stream::Stream;
use crate::error::{Error, Result};
use crate::graph::{self, Explain, LogicalGraph, LogicalNode, NoTopics, NodeIndex, PhysicalPlan, ReadAs, Role, TopicSinks};
use crate::operators::Source;
use crate::record::Data;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The graph being drawn, shared by the job and its streams.
#[derive(Clone)]
pub(super) struct Draw(Rc<RefCell<LogicalGraph>>);

impl Draw {
    pub(super) fn add(&self, node: LogicalNode) -> NodeIndex {
        let mut graph = self.0.borrow_mut();
        for input in &node.inputs {
            // Rows of a table's source are changes, not the rows that an older handle of the stream promises.
            let source = graph.node(input.from);
            let is_table = matches!(&source.role, Role::Source(s) if s.read_as == ReadAs::Table);
            if is_table && has_consumers(&graph, input.from) {
                let name = source.subject.clone().unwrap_or_default();
                graph.problem(both(&name));
                break;
            }
        }
        graph.add(node)
    }

    /// Makes a source a table, before anything reads it.
    pub(super) fn make_table(&self, source: NodeIndex) {
        let mut graph = self.0.borrow_mut();
        if has_consumers(&graph, source) {
            let name = graph.node(source).subject.clone().unwrap_or_default();
            graph.problem(both(&name));
        }
        if let Role::Source(s) = &mut graph.node_mut(source).role {
            s.read_as = ReadAs::Table;
        }
    }

    /// Name of the source that a node's first inputs lead up to.
    pub(super) fn origin_name(&self, node: NodeIndex) -> String {
        let graph = self.0.borrow();
        graph.origin_index(node).and_then(|i| graph.node(i).subject.clone()).unwrap_or_default()
    }

    pub(super) fn change<R>(&self, node: NodeIndex, change: impl FnOnce(&mut LogicalNode) -> R) -> R {
        change(self.0.borrow_mut().node_mut(node))
    }

    pub(super) fn problem(&self, error: Error) {
        self.0.borrow_mut().problem(error);
    }

    pub(super) fn is_same(&self, other: &Draw) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

fn has_consumers(graph: &LogicalGraph, node: NodeIndex) -> bool {
    graph.nodes().iter().flat_map(|n| &n.inputs).any(|i| i.from == node)
}

fn both(name: &str) -> Error {
    Error::fatal(format!("{name} is read as a table and as a stream by one source")).help("name the topic twice: once for each")
}

/// A job being described.
///
/// ```
/// use waterwheel_engine::dsl::Job;
/// let job = Job::new("fraud");
/// job.parallelism(4);
/// assert!(job.plan().unwrap_err().to_string().contains("no source"));
/// ```
pub struct Job {
    draw: Draw,
}

impl Job {
    /// An empty job. State, markers and metrics are filed under the name: choose one that stays.
    pub fn new(name: impl Into<String>) -> Self {
        Job { draw: Draw(Rc::new(RefCell::new(LogicalGraph::new(name)))) }
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.draw.0.borrow().job.clone()
    }

    /// Tasks of every operator that names no number of its own; 1 unless set. May change between runs.
    pub fn parallelism(&self, tasks: u32) {
        self.draw.0.borrow_mut().parallelism = tasks;
    }

    /// Tasks per operator, as said so far.
    pub fn tasks(&self) -> u32 {
        self.draw.0.borrow().parallelism
    }

    /// Number of key groups, the upper limit of parallelism; 128 unless set. Fixed once the job has state.
    pub fn max_parallelism(&self, key_groups: u16) {
        self.draw.0.borrow_mut().max_parallelism = key_groups;
    }

    /// Reads from a source of your own whose reader hands over [`Rows<T>`](crate::record::Rows). The name becomes part of
    /// the operator's id.
    ///
    /// A source is a description ([`Source`]) that makes readers, one per task; the engine decides which task reads which
    /// split from where. This one counts:
    ///
    /// ```
    /// use waterwheel_engine::dsl::{Job, OutOfOrder};
    /// use waterwheel_engine::error::Result;
    /// use waterwheel_engine::operators::{Poll, ReaderContext, Source, SourceReader, Split, SplitId, SplitState};
    /// use waterwheel_engine::record::Rows;
    /// use waterwheel_engine::time::EventTime;
    ///
    /// struct Count { to: i64 }
    ///
    /// impl Source for Count {
    ///     fn describe(&self) -> String { format!("count to {}", self.to) }
    ///     fn is_bounded(&self) -> bool { true }
    ///     fn splits(&self, _first: bool) -> Result<Vec<Split>> {
    ///         let id = SplitId { name: "count".into(), partition: 0 };
    ///         Ok(vec![Split { id, start: 0, end: Some(self.to), bootstrap_end: None, topic_id: None }])
    ///     }
    ///     fn reader(&self, context: ReaderContext) -> Result<Box<dyn SourceReader>> {
    ///         Ok(Box::new(Counting { splits: Vec::new(), rows: context.batch_rows as i64 }))
    ///     }
    /// }
    ///
    /// struct Counting { splits: Vec<SplitState>, rows: i64 }
    ///
    /// impl SourceReader for Counting {
    ///     // Reads on where the engine says: after a restart that is the position of the checkpoint.
    ///     fn assign(&mut self, splits: &[SplitState]) -> Result<()> {
    ///         self.splits.extend_from_slice(splits);
    ///         Ok(())
    ///     }
    ///     fn poll(&mut self) -> Result<Poll> {
    ///         let Some(s) = self.splits.last_mut() else { return Ok(Poll::Empty) };
    ///         let next = s.split.end.unwrap_or(i64::MAX).min(s.position + self.rows);
    ///         if next == s.position {
    ///             let split = s.split.id.clone();
    ///             self.splits.pop();
    ///             return Ok(Poll::Ended { split });
    ///         }
    ///         let rows: Vec<i64> = (s.position..next).collect();
    ///         let times = rows.iter().map(|n| EventTime(*n)).collect();
    ///         s.position = next;
    ///         Ok(Poll::Batch { split: s.split.id.clone(), batch: Rows::new(rows, times).boxed(), next })
    ///     }
    /// }
    ///
    /// let job = Job::new("sum");
    /// let numbers = job.source::<i64>("numbers", Count { to: 1000 }).event_time(|n| *n, OutOfOrder::never());
    /// # let _ = numbers;
    /// ```
    pub fn source<T: Data>(&self, name: &str, source: impl Source + 'static) -> SourceStream<T> {
        let source: Arc<dyn Source> = Arc::new(source);
        self.source_with(name, move |_| Ok(source.clone()), Decoding::Typed)
    }

    /// Reads from a source that is made when the plan is, and whose batches need decoding. Connectors build on it.
    pub fn source_with<T: Data>(
        &self,
        name: &str,
        connect: impl Fn(ReadAs) -> Result<Arc<dyn Source>> + 'static,
        decoding: Decoding<T>,
    ) -> SourceStream<T> {
        SourceStream::new(&self.draw, name, Box::new(connect), decoding)
    }

    /// The stream that leaves a node drawn by another front end (SQL), whose batches are [`Rows<T>`](crate::record::Rows).
    pub fn stream_of<T: Data>(&self, node: NodeIndex) -> Stream<T> {
        Stream::of(self.draw.clone(), node, 0)
    }

    /// Whether a stream belongs to this job.
    pub fn owns<T>(&self, stream: &Stream<T>) -> bool {
        self.draw.is_same(stream.draw())
    }

    /// Draws straight into the job's graph: for front ends other than this one (SQL).
    pub fn draw<R>(&self, draw: impl FnOnce(&mut LogicalGraph) -> R) -> R {
        draw(&mut self.draw.0.borrow_mut())
    }

    /// Remembers an error met while describing the job; [`Job::plan`] reports it.
    pub fn problem(&self, error: Error) {
        self.draw.problem(error);
    }

    /// The plan that the runtime runs, for a job whose sinks are all its own.
    ///
    /// # Errors
    /// As [`graph::plan`].
    pub fn plan(&self) -> Result<PhysicalPlan> {
        self.plan_with(&NoTopics)
    }

    /// The plan that the runtime runs; topics are connected by `topics`.
    ///
    /// # Errors
    /// As [`graph::plan`].
    pub fn plan_with(&self, topics: &dyn TopicSinks) -> Result<PhysicalPlan> {
        graph::plan(&self.draw.0.borrow(), topics)
    }

    /// What the job will do, cost and promise. `checkpoint_interval` is the latency price of exactly-once output.
    ///
    /// # Errors
    /// As [`graph::plan`].
    pub fn explain_with(&self, topics: &dyn TopicSinks, checkpoint_interval: Duration) -> Result<Explain> {
        graph::explain(&self.draw.0.borrow(), topics, checkpoint_interval)
    }

    /// As [`explain_with`](Self::explain_with), for a job that names no topics and a checkpoint each second.
    ///
    /// # Errors
    /// As [`graph::plan`].
    pub fn explain(&self) -> Result<Explain> {
        self.explain_with(&NoTopics, Duration::from_secs(1))
    }
}
