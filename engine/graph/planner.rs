//! The planner: logical graph to physical plan.
//!
//! Chaining: a node joins the chain of its only input when rows need not move (`Forward`) and both ask for the same
//! parallelism. So does a node that sees small tables besides: these come to every task, through the gate of the chain, and a
//! table holds no event time back. Everything else begins a chain: sources, nodes with several streams as inputs, whatever
//! follows a `key_by`, a `rebalance` or a change of parallelism. Dead letters of a source get one chain of their own, with a
//! single task.
//!
//! Invariant: chains depend on the graph alone, never on the job's default parallelism, so that a job restored with another
//! `--parallelism` has the same tasks, state and fingerprint.

use super::ids::assign_ids;
use super::logical::{DeadLetters, Input, LogicalGraph, NodeIndex, ReadAs, Role, SinkRef, TopicSinks};
use super::note::Bound;
use super::physical::{Chain, Edge, Entry, NodeKind, PhysicalPlan, PlanNode, PlanTarget, Routing, SinkSpec, SourceSpec};
use crate::error::{Error, Result};
use crate::operators::{ErrorPolicy, Sink};
use crate::record::OperatorId;
use std::sync::Arc;
use twox_hash::XxHash3_64;

/// Turns a graph into the plan that the runtime runs. Connects to no broker; `topics` only makes descriptions of sinks.
///
/// # Errors
/// Anything wrong with the graph: an error met while drawing, an id given twice, no source, no sink, a parallelism of 0 or
/// above the number of key groups, dead letters without a place to go.
pub fn plan(graph: &LogicalGraph, topics: &dyn TopicSinks) -> Result<PhysicalPlan> {
    let in_job = |e: Error| e.at(format!("job {}", graph.job));
    check(graph).map_err(in_job)?;
    let ids = assign_ids(graph).map_err(in_job)?;
    Planner::new(graph, topics, &ids).run().map_err(in_job)
}

fn check(graph: &LogicalGraph) -> Result<()> {
    if let Some(problem) = graph.problems().first() {
        let e = problem.helps().iter().fold(Error::new(problem.kind(), problem.to_string()), |e, h| e.help(h.clone()));
        return Err(problem.places().iter().fold(e, |e, p| e.at(p.clone())));
    }
    if graph.max_parallelism == 0 {
        return Err(Error::fatal("the number of key groups is 0").help("set max_parallelism to 128, or leave it out"));
    }
    if !graph.nodes().iter().any(|n| matches!(n.role, Role::Source(_))) {
        return Err(Error::fatal("the job has no source").help("begin with job.topic(\"...\")"));
    }
    if !graph.nodes().iter().any(|n| matches!(n.role, Role::Sink(_))) {
        return Err(Error::fatal("the job has no sink").help("end a stream with .to_topic(\"...\"), .to_print() or .to_blackhole()"));
    }
    for node in graph.nodes() {
        let tasks = node.parallelism.unwrap_or(graph.parallelism);
        if tasks == 0 || tasks > u32::from(graph.max_parallelism) {
            let name = node.id.as_deref().unwrap_or(node.kind);
            return Err(Error::fatal(format!("parallelism {tasks} is outside 1..={}", graph.max_parallelism))
                .at(format!("operator {name}"))
                .help("key groups are the limit; a new job may raise max_parallelism"));
        }
    }
    Ok(())
}

/// Where a logical node ended up.
#[derive(Clone, Copy)]
struct Place {
    chain: usize,
    node: usize,
}

struct Planner<'a> {
    graph: &'a LogicalGraph,
    topics: &'a dyn TopicSinks,
    ids: &'a [OperatorId],
    places: Vec<Place>,
    chains: Vec<Chain>,
    edges: Vec<Edge>,
}

impl<'a> Planner<'a> {
    fn new(graph: &'a LogicalGraph, topics: &'a dyn TopicSinks, ids: &'a [OperatorId]) -> Self {
        Planner { graph, topics, ids, places: Vec::new(), chains: Vec::new(), edges: Vec::new() }
    }

    fn run(mut self) -> Result<PhysicalPlan> {
        for index in 0..self.graph.nodes().len() {
            let node = self.node(index)?;
            let place = match self.parent(index) {
                Some(input) => self.chain_behind(input, index, node),
                None => self.begin_chain(index, node),
            };
            self.places.push(place);
        }
        self.wire_dead_letters()?;
        let fingerprint = fingerprint(self.graph, self.ids, &self.chains, &self.edges);
        Ok(PhysicalPlan {
            job: self.graph.job.clone(),
            chains: self.chains,
            edges: self.edges,
            max_parallelism: self.graph.max_parallelism,
            fingerprint,
        })
    }

    /// The input in whose chain a node goes on, if it does.
    fn parent(&self, index: NodeIndex) -> Option<Input> {
        let node = self.graph.node(index);
        let (input, beside) = node.inputs.split_first()?;
        let same = self.graph.node(input.from).parallelism == node.parallelism;
        // A source has no gate through which tables could come.
        let has_gate = || !self.chains[self.places[input.from].chain].entries.is_empty();
        let tables = || beside.iter().all(|input| input.routing == Routing::Broadcast && self.is_table(input.from));
        (same && input.routing == Routing::Forward && (beside.is_empty() || (has_gate() && tables()))).then_some(*input)
    }

    /// Whether nothing but tables from outside goes into a node: then its event time is that of whoever joins it.
    fn is_table(&self, index: NodeIndex) -> bool {
        match &self.graph.node(index).role {
            Role::Source(source) => source.read_as == ReadAs::Table,
            _ => self.graph.node(index).inputs.iter().all(|input| self.is_table(input.from)),
        }
    }

    fn tasks(&self, index: NodeIndex) -> u32 {
        self.graph.node(index).parallelism.unwrap_or(self.graph.parallelism)
    }

    fn node(&self, index: NodeIndex) -> Result<PlanNode> {
        let policy = self.graph.origin(index).map_or(ErrorPolicy::Fail, |s| s.policy);
        let kind = match &self.graph.node(index).role {
            Role::Source(s) if s.in_step.is_some() && s.watermarks.is_none() => {
                return Err(Error::fatal("a source without event time would hold back all that keep step with it")
                    .at(format!("source {}", self.ids[index]))
                    .help("say where event time is in its rows (event_time, record_time), or leave it out of in_step"));
            }
            Role::Source(s) => NodeKind::Source(SourceSpec {
                source: (s.connect)(s.read_as).map_err(|e| e.at(format!("source {}", self.ids[index])))?,
                ingest: s.ingest.clone(),
                watermarks: s.watermarks.clone(),
                max_ahead_ms: s.max_ahead_ms,
                in_step: s.in_step.clone(),
                is_table: s.read_as == ReadAs::Table,
            }),
            Role::Operator(factory) => NodeKind::Operator(factory.clone()),
            Role::Sink(sink) => NodeKind::Sink(SinkSpec { sink: connect(self.topics, sink, &self.ids[index])? }),
        };
        let unbounded = self.graph.node(index).note.state.iter().filter(|s| s.bound == Bound::Unbounded).map(|s| s.what.clone());
        Ok(PlanNode { id: self.ids[index].clone(), kind, ports: Vec::new(), errors: Vec::new(), policy, unbounded: unbounded.collect() })
    }

    fn chain_behind(&mut self, input: Input, index: NodeIndex, node: PlanNode) -> Place {
        let parent = self.places[input.from];
        let nodes = &mut self.chains[parent.chain].nodes;
        nodes.push(node);
        let place = Place { chain: parent.chain, node: nodes.len() - 1 };
        connect_port(&mut nodes[parent.node], input.port, PlanTarget::Node(place.node));
        self.enter(index, place, 1);
        place
    }

    fn begin_chain(&mut self, index: NodeIndex, node: PlanNode) -> Place {
        let place = Place { chain: self.chains.len(), node: 0 };
        let head = node.id.clone();
        self.chains.push(Chain { head, parallelism: self.tasks(index), nodes: vec![node], entries: Vec::new() });
        self.enter(index, place, 0);
        place
    }

    /// Lets the inputs of a node, from the `first` on, into its chain.
    fn enter(&mut self, index: NodeIndex, place: Place, first: usize) {
        let graph = self.graph;
        for (number, input) in graph.node(index).inputs.iter().enumerate().skip(first) {
            // Equal wishes, not equal numbers: the routing must not change with --parallelism.
            let same = graph.node(input.from).parallelism == graph.node(index).parallelism;
            let routing = if input.routing == Routing::Forward && !same { Routing::Rebalance } else { input.routing };
            let from = self.places[input.from];
            let entries = &mut self.chains[place.chain].entries;
            entries.push(Entry { node: place.node, input: number });
            self.edges.push(Edge { from: from.chain, to: place.chain, input: entries.len() - 1, routing });
            let edge = PlanTarget::Edge(self.edges.len() - 1);
            connect_port(&mut self.chains[from.chain].nodes[from.node], input.port, edge);
        }
    }

    /// One chain per source with policy dead-letter: encode, sink. Every node below that can reject rows leads there.
    fn wire_dead_letters(&mut self) -> Result<()> {
        for source in 0..self.graph.nodes().len() {
            let Role::Source(s) = &self.graph.node(source).role else { continue };
            if s.policy != ErrorPolicy::DeadLetter {
                continue;
            }
            let letters = s.dead_letters.as_ref().ok_or_else(|| {
                Error::fatal("the error policy is dead-letter, but no place for dead letters is given")
                    .at(format!("source {}", self.ids[source]))
                    .help("name one: .dead_letters_to(\"...\")")
            })?;
            let chain = self.dead_letter_chain(source, letters)?;
            for index in 0..self.places.len() {
                if self.graph.node(index).can_reject && self.graph.origin_index(index) == Some(source) {
                    self.connect_errors(index, chain);
                }
            }
        }
        Ok(())
    }

    fn dead_letter_chain(&mut self, source: NodeIndex, letters: &DeadLetters) -> Result<usize> {
        let head = OperatorId::new(format!("{}.dead-letters", self.ids[source]));
        let sink_id = OperatorId::new(format!("{}.dead-letter-sink", self.ids[source]));
        let sink = connect(self.topics, &letters.sink, &sink_id)?;
        let node = |id: OperatorId, kind, ports| PlanNode {
            id,
            kind,
            ports,
            errors: Vec::new(),
            policy: ErrorPolicy::Fail,
            unbounded: Vec::new(),
        };
        let nodes = vec![
            node(head.clone(), NodeKind::Operator(letters.encode.clone()), vec![vec![PlanTarget::Node(1)]]),
            node(sink_id, NodeKind::Sink(SinkSpec { sink }), Vec::new()),
        ];
        self.chains.push(Chain { head, parallelism: 1, nodes, entries: Vec::new() });
        Ok(self.chains.len() - 1)
    }

    fn connect_errors(&mut self, index: NodeIndex, to: usize) {
        let from = self.places[index];
        let input = self.chains[to].entries.len();
        self.chains[to].entries.push(Entry { node: 0, input });
        self.edges.push(Edge { from: from.chain, to, input, routing: Routing::Rebalance });
        self.chains[from.chain].nodes[from.node].errors.push(PlanTarget::Edge(self.edges.len() - 1));
    }
}

fn connect(topics: &dyn TopicSinks, sink: &SinkRef, id: &OperatorId) -> Result<Arc<dyn Sink>> {
    match sink {
        SinkRef::Ready(sink) => Ok(sink.clone()),
        SinkRef::Topic(request) => topics.sink(request).map_err(|e| e.at(format!("sink {id}"))),
    }
}

fn connect_port(node: &mut PlanNode, port: usize, target: PlanTarget) {
    if node.ports.len() <= port {
        node.ports.resize_with(port + 1, Vec::new);
    }
    node.ports[port].push(target);
}

fn fingerprint(graph: &LogicalGraph, ids: &[OperatorId], chains: &[Chain], edges: &[Edge]) -> String {
    let mut text = format!("plan 1\njob {}\nkey groups {}\n", graph.job, graph.max_parallelism);
    for (node, id) in graph.nodes().iter().zip(ids) {
        text.push_str(&format!("node {id} {}\n", node.kind));
    }
    for chain in chains {
        text.push_str("chain");
        for node in &chain.nodes {
            text.push_str(&format!(" {} {:?} {:?} {:?};", node.id, node.policy, node.ports, node.errors));
        }
        text.push('\n');
    }
    for edge in edges {
        text.push_str(&format!("edge {} {} {} {:?}\n", edge.from, edge.to, edge.input, edge.routing));
    }
    format!("{:016x}", XxHash3_64::oneshot(text.as_bytes()))
}
