//! How results leave an operator: straight into the next one of the tree, or onto an edge to another task.
//!
//! Invariant: elements leave in the order they were emitted; a fan-out clones a batch once per further consumer. Nothing here
//! blocks: the task looks for room downstream **before** it steps, and one step's results may overshoot the bound.

use super::{ErrorPolicy, OpenContext, Operator, Signal, shortened};
use crate::env::{Bug, planted};
use crate::error::{Error, Result};
use crate::exchange::EdgeSender;
use crate::observe::{Counter, DEAD_LETTERED, DROPPED, ROWS_OUT};
use crate::record::{Barrier, BatchBox, Element, OperatorId, Origin, Rejected, Rows};
use crate::time::EventTime;

/// A numbered output of an operator: 0 is the main one, side outputs follow.
pub type Port = usize;

/// Where an output port leads.
pub enum Target {
    /// The next operator of the same task, on its input 0.
    Node(Box<Node>),
    /// Other tasks.
    Edge(Box<dyn EdgeSender>),
}

/// An operator with what hangs below it.
pub struct Node {
    /// The operator.
    pub operator: Box<dyn Operator>,
    /// What it was opened with.
    pub context: OpenContext,
    /// Where its outputs lead.
    pub targets: Targets,
}

/// The outputs of a node.
pub struct Targets {
    ports: Vec<Vec<Target>>,
    errors: Vec<Target>,
    rejected: Vec<Rejected>,
    policy: ErrorPolicy,
    operator: OperatorId,
    rows_out: Counter,
    dropped: Counter,
    dead_lettered: Counter,
}

impl Targets {
    /// `ports[p]` lists the consumers of port `p`; `errors` those of rejected rows (batches of `Rows<Rejected>`).
    pub fn new(context: &OpenContext, ports: Vec<Vec<Target>>, errors: Vec<Target>) -> Self {
        Targets {
            ports,
            errors,
            rejected: Vec::new(),
            policy: context.policy,
            operator: context.operator.clone(),
            rows_out: context.metrics.counter(ROWS_OUT, context.operator.as_str(), context.index),
            dropped: context.metrics.counter(DROPPED, context.operator.as_str(), context.index),
            dead_lettered: context.metrics.counter(DEAD_LETTERED, context.operator.as_str(), context.index),
        }
    }

    /// Every target of every port.
    pub fn all(&mut self) -> impl Iterator<Item = &mut Target> {
        self.ports.iter_mut().flatten().chain(self.errors.iter_mut())
    }

    /// The output for the next call on the operator.
    pub fn output(&mut self) -> Output<'_> {
        Output { targets: self }
    }

    /// Sends one element to every consumer of every port (watermarks, barriers, end).
    ///
    /// # Errors
    /// Of an operator below.
    pub fn broadcast(&mut self, mut element: impl FnMut() -> Element) -> Result<()> {
        self.flush_rejected()?;
        for target in self.all() {
            deliver(target, element())?;
        }
        Ok(())
    }

    fn emit(&mut self, port: Port, batch: BatchBox) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let Some((last, others)) = self.ports.get_mut(port).and_then(|t| t.split_last_mut()) else {
            return Ok(()); // nobody listens on this port
        };
        self.rows_out.add(batch.len() as u64);
        for target in others {
            deliver(target, Element::Batch(batch.clone_batch()))?;
        }
        deliver(last, Element::Batch(batch))
    }

    pub(super) fn flush_rejected(&mut self) -> Result<()> {
        if self.rejected.is_empty() {
            return Ok(());
        }
        let mut rejected = std::mem::take(&mut self.rejected);
        if planted(Bug::LoseDeadLetters) {
            rejected.truncate(1);
        }
        let times = rejected.iter().map(|r| EventTime(r.time)).collect();
        let Some((last, others)) = self.errors.split_last_mut() else { return Ok(()) };
        let batch = Rows::new(rejected, times);
        for target in others {
            deliver(target, Element::Batch(batch.clone().boxed()))?;
        }
        deliver(last, Element::Batch(batch.boxed()))
    }
}

fn deliver(target: &mut Target, element: Element) -> Result<()> {
    match target {
        Target::Edge(edge) => {
            edge.send(element);
            Ok(())
        }
        Target::Node(node) => node.push(0, element),
    }
}

impl Node {
    /// Runs one element through this operator and all below it. Barriers must not come this way: the task passes them with
    /// [`Node::barrier`], because it snapshots at each operator.
    ///
    /// # Errors
    /// Of this operator or one below.
    pub fn push(&mut self, input: usize, element: Element) -> Result<()> {
        match element {
            Element::Batch(batch) => {
                let result = self.operator.on_batch(input, batch, &mut self.targets.output());
                result.map_err(|e| self.place(e))?;
                self.targets.flush_rejected()
            }
            Element::Watermark(time) => {
                let result = self.operator.on_watermark(time, &mut self.targets.output());
                result.map_err(|e| self.place(e))?;
                self.pass(Signal::Watermark(time))
            }
            Element::Idle => self.pass(Signal::Idle),
            Element::End => {
                let result = self.operator.on_end(&mut self.targets.output());
                result.map_err(|e| self.place(e))?;
                self.pass(Signal::End)
            }
            Element::Barrier(_) => unreachable!("the task passes barriers with Node::barrier"),
        }
    }

    /// Tells the operator what time it is; when it wants to know again.
    ///
    /// # Errors
    /// Of this operator or one below.
    pub fn on_time(&mut self, wall_ms: i64) -> Result<Option<i64>> {
        let next = self.operator.on_time(wall_ms, &mut self.targets.output()).map_err(|e| self.place(e))?;
        self.targets.flush_rejected()?;
        Ok(next)
    }

    /// Sends a signal on, unless the operator holds it until rows have left that came before.
    fn pass(&mut self, signal: Signal) -> Result<()> {
        if self.operator.hold(signal) {
            return self.targets.flush_rejected();
        }
        self.targets.broadcast(|| signal.into())
    }

    /// Passes a barrier: lets the operator emit, calls `snapshot` on it, then does the same below. Depth first, so that an
    /// edge gets the barrier after everything that precedes it.
    ///
    /// # Errors
    /// Of an operator, or of `snapshot`.
    pub fn barrier(&mut self, barrier: Barrier, snapshot: &mut dyn FnMut(&mut Node) -> Result<()>) -> Result<()> {
        let result = self.operator.before_barrier(barrier.epoch, &mut self.targets.output());
        result.map_err(|e| self.place(e))?;
        self.targets.flush_rejected()?;
        snapshot(self)?;
        self.targets.barrier(barrier, snapshot)
    }

    /// This node or the one below that has this id.
    pub fn find(&mut self, id: &OperatorId) -> Option<&mut Node> {
        if self.context.operator == *id {
            return Some(self);
        }
        self.targets.all().find_map(|target| match target {
            Target::Node(node) => node.find(id),
            Target::Edge(_) => None,
        })
    }

    /// Calls `visit` on this node and all below, parents first.
    ///
    /// # Errors
    /// Of `visit`; the walk ends there.
    pub fn visit(&mut self, visit: &mut dyn FnMut(&mut Node) -> Result<()>) -> Result<()> {
        visit(self)?;
        self.targets.visit(visit)
    }

    fn place(&self, e: Error) -> Error {
        e.at(format!("operator {}/{}", self.context.operator, self.context.index))
    }
}

impl Targets {
    /// Passes a barrier to everything below; for heads that are no operator (sources).
    ///
    /// # Errors
    /// As [`Node::barrier`].
    pub fn barrier(&mut self, barrier: Barrier, snapshot: &mut dyn FnMut(&mut Node) -> Result<()>) -> Result<()> {
        // What was rejected before the barrier belongs to its epoch.
        self.flush_rejected()?;
        for target in self.all() {
            match target {
                Target::Node(node) => node.barrier(barrier, snapshot)?,
                Target::Edge(edge) => edge.send(Element::Barrier(barrier)),
            }
        }
        Ok(())
    }

    /// Calls `visit` on every node below, parents first.
    ///
    /// # Errors
    /// Of `visit`.
    pub fn visit(&mut self, visit: &mut dyn FnMut(&mut Node) -> Result<()>) -> Result<()> {
        for target in self.all() {
            if let Target::Node(node) = target {
                node.visit(visit)?;
            }
        }
        Ok(())
    }

    /// Whether every edge below has room for another step's results.
    pub fn has_room(&mut self) -> bool {
        self.all().all(|target| match target {
            Target::Edge(edge) => edge.has_room(),
            Target::Node(node) => node.targets.has_room(),
        })
    }
}

/// Where an operator puts its results during one call.
pub struct Output<'a> {
    targets: &'a mut Targets,
}

impl Output<'_> {
    /// Emits rows on the main output.
    ///
    /// # Errors
    /// Of an operator below; return it.
    pub fn emit(&mut self, batch: BatchBox) -> Result<()> {
        self.targets.emit(0, batch)
    }

    /// Emits rows on a numbered output; dropped when nobody listens there.
    ///
    /// # Errors
    /// Of an operator below; return it.
    pub fn emit_to(&mut self, port: Port, batch: BatchBox) -> Result<()> {
        self.targets.emit(port, batch)
    }

    /// Sends on what the operator [held](Operator::hold), behind what it has emitted.
    ///
    /// # Errors
    /// Of an operator below; return it.
    pub fn forward(&mut self, signal: Signal) -> Result<()> {
        self.targets.broadcast(|| signal.into())
    }

    /// Whether anybody listens on a port, to spare the work.
    pub fn is_connected(&self, port: Port) -> bool {
        self.targets.ports.get(port).is_some_and(|t| !t.is_empty())
    }

    /// A row cannot be processed; the source's error policy says what becomes of it.
    ///
    /// # Errors
    /// Under policy `fail`: the error that stops the job, naming the record.
    pub fn reject(&mut self, origin: Option<Origin>, time: EventTime, error: impl Into<String>) -> Result<()> {
        let error = shortened(error.into());
        match self.targets.policy {
            ErrorPolicy::Fail => {
                let mut e = Error::fatal(error);
                if let Some(o) = &origin {
                    let r = o.record();
                    e = e.at(format!("record {}/{}@{}", r.topic, r.partition, r.offset));
                }
                Err(e
                    .help("send such records aside: .on_error(DeadLetter), or leave them out: .on_error(ErrorPolicy::Drop)")
                    .help("the same in SQL:         'error-policy' = 'dead-letter' or 'drop'"))
            }
            ErrorPolicy::Drop => {
                self.targets.dropped.add(1);
                Ok(())
            }
            ErrorPolicy::DeadLetter => {
                self.targets.dead_lettered.add(1);
                let operator = self.targets.operator.clone();
                self.targets.rejected.push(Rejected { origin, operator, error, time: time.0 });
                Ok(())
            }
        }
    }
}
