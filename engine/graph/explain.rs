//! `explain`: what a job will do, what it costs and what it promises, as text, JSON and DOT.
//!
//! Invariant: made from the graph and its plan alone, so it connects to nothing and shows no secrets; the same job gives the
//! same words.

use super::ids::assign_ids;
use super::logical::{LogicalGraph, NodeIndex, ReadAs, Role, TopicSinks};
use super::note::EqualityClass;
use super::physical::{Chain, Edge, NodeKind, PhysicalPlan, PlanNode, Routing, SourceSpec};
use crate::error::Result;
use crate::observe::human_duration;
use crate::operators::{ErrorPolicy, Guarantee};
use crate::record::OperatorId;
use serde::Serialize;
use std::fmt::{self, Write as _};
use std::time::Duration;

/// What `explain` knows of a job. `Display` is the text for a person.
#[derive(Debug, Clone, Serialize)]
pub struct Explain {
    /// Job name.
    pub job: String,
    /// Fingerprint of the plan.
    pub fingerprint: String,
    /// Number of key groups.
    pub max_parallelism: u16,
    /// Equality class of the whole: `exact`, `converging` or `time-dependent`.
    pub equality_class: String,
    /// Why not a stronger one.
    pub class_reasons: Vec<String>,
    /// What each sink promises.
    pub promises: Vec<Promise>,
    /// The operators, upstream before downstream.
    pub operators: Vec<ExplainedOperator>,
}

/// The end-to-end guarantee of one sink.
#[derive(Debug, Clone, Serialize)]
pub struct Promise {
    /// Where to: topic, or id of the sink.
    pub into: String,
    /// `exactly-once`, `at-least-once`, `idempotent upsert` or `none`.
    pub guarantee: String,
    /// What it costs: when results become visible.
    pub visible: String,
}

/// One operator.
#[derive(Debug, Clone, Serialize)]
pub struct ExplainedOperator {
    /// Stable id.
    pub id: String,
    /// The id was derived from kind and position, not given.
    pub derived_id: bool,
    /// Kind.
    pub kind: String,
    /// Name for a person.
    pub label: String,
    /// The chain it runs in, named by its head.
    pub chain: String,
    /// Number of tasks.
    pub tasks: u32,
    /// Plumbing that the text leaves out.
    pub glue: bool,
    /// Whether its rows may take others back; none where the graph does not say.
    pub changes: Option<bool>,
    /// What it does or where it reads and writes.
    pub detail: Vec<String>,
    /// State tables with their bounds.
    pub state: Vec<String>,
    /// Those of them that nothing bounds: what they keep of every key for ever.
    pub unbounded: Vec<String>,
    /// Inputs: id of the operator and how rows are dealt out.
    pub inputs: Vec<ExplainedInput>,
}

/// One input of an operator.
#[derive(Debug, Clone, Serialize)]
pub struct ExplainedInput {
    /// Id of the operator upstream.
    pub from: String,
    /// Its output port.
    pub port: usize,
    /// `chained`, `forward`, `key group`, `rebalance` or `broadcast`.
    pub routing: &'static str,
}

/// Explains a graph. `checkpoint_interval` is the latency price of exactly-once output.
///
/// # Errors
/// As [`plan`](super::plan).
pub fn explain(graph: &LogicalGraph, topics: &dyn TopicSinks, checkpoint_interval: Duration) -> Result<Explain> {
    let plan = super::plan(graph, topics)?;
    let ids = assign_ids(graph)?;
    let (equality_class, class_reasons) = class_of(graph);
    let drawn = Drawn { graph, plan: &plan, ids: &ids };
    let operators = (0..ids.len()).map(|i| drawn.operator(i)).collect();
    Ok(Explain {
        job: graph.job.clone(),
        max_parallelism: graph.max_parallelism,
        equality_class: equality_class.to_string(),
        class_reasons,
        promises: drawn.promises(checkpoint_interval),
        operators,
        fingerprint: plan.fingerprint,
    })
}

/// A graph with its plan; ids are the way from one to the other.
struct Drawn<'a> {
    graph: &'a LogicalGraph,
    plan: &'a PhysicalPlan,
    ids: &'a [OperatorId],
}

impl<'a> Drawn<'a> {
    fn find(&self, index: NodeIndex) -> (&'a Chain, &'a PlanNode) {
        let found = self.plan.chains.iter().find_map(|c| Some((c, c.nodes.iter().find(|n| n.id == self.ids[index])?)));
        found.expect("a plan holds every node of its graph")
    }

    fn operator(&self, index: NodeIndex) -> ExplainedOperator {
        let node = self.graph.node(index);
        let (chain, planned) = self.find(index);
        let inputs = node.inputs.iter().enumerate().map(|(number, input)| ExplainedInput {
            from: self.ids[input.from].to_string(),
            port: input.port,
            routing: self.routing(chain, planned, number),
        });
        let what = node.subject.as_deref().unwrap_or(&node.note.detail);
        let label = node.name.clone().unwrap_or_else(|| format!("{} {what}", node.kind).trim_end().to_string());
        ExplainedOperator {
            id: planned.id.to_string(),
            derived_id: node.id.is_none(),
            kind: node.kind.to_string(),
            label,
            chain: chain.head.to_string(),
            tasks: chain.parallelism,
            glue: node.note.glue,
            changes: node.changes,
            detail: self.details(index, &planned.kind),
            state: node.note.state.iter().map(|s| format!("{}, {}", s.what, s.bound)).collect(),
            unbounded: planned.unbounded.clone(),
            inputs: inputs.collect(),
        }
    }

    fn routing(&self, chain: &Chain, node: &PlanNode, input: usize) -> &'static str {
        let enters = |e: &Edge| chain.nodes[chain.entries[e.input].node].id == node.id && chain.entries[e.input].input == input;
        let edge = self.plan.edges.iter().find(|e| self.plan.chains[e.to].head == chain.head && enters(e));
        edge.map_or("chained", |e| routing_name(e.routing))
    }

    fn details(&self, index: NodeIndex, kind: &NodeKind) -> Vec<String> {
        let node = self.graph.node(index);
        let mut out = Vec::new();
        match kind {
            NodeKind::Source(s) => {
                out.push(s.source.describe());
                let is_table = self.graph.origin(index).is_some_and(|s| s.read_as == ReadAs::Table);
                out.push(if is_table { "table, read in before the streams that join it".into() } else { event_time(s) });
                let of = s.in_step.as_ref().map_or(String::new(), |name| format!(" of {name}"));
                out.extend(
                    s.max_ahead_ms.map(|ms| format!("held back {} ahead{of}", human_duration(Duration::from_millis(ms.max(0) as u64)))),
                );
                out.extend(self.bad_records(index));
            }
            NodeKind::Sink(s) => out.push(s.sink.describe()),
            NodeKind::Operator(_) => {}
        }
        let said = node.subject.is_none() && node.name.is_none();
        if !node.note.detail.is_empty() && !said {
            out.push(node.note.detail.clone());
        }
        if node.changes == Some(true) {
            out.push("its rows change: +I -U +U -D".into());
        }
        out
    }

    fn bad_records(&self, source: NodeIndex) -> Option<String> {
        match self.graph.origin(source)?.policy {
            ErrorPolicy::Fail => None,
            ErrorPolicy::Drop => Some("bad records are dropped".into()),
            ErrorPolicy::DeadLetter => {
                let id = format!("{}.dead-letter-sink", self.ids[source]);
                let sink = self.plan.chains.iter().flat_map(|c| &c.nodes).find(|n| n.id.as_str() == id)?;
                let NodeKind::Sink(sink) = &sink.kind else { return None };
                Some(format!("bad records to {}", sink.sink.describe()))
            }
        }
    }

    fn promises(&self, interval: Duration) -> Vec<Promise> {
        let nodes = self.graph.nodes().iter().enumerate();
        let sinks = nodes.filter_map(|(i, node)| match &self.find(i).1.kind {
            NodeKind::Sink(s) => Some((node.subject.clone().unwrap_or_else(|| self.ids[i].to_string()), s.sink.guarantee())),
            _ => None,
        });
        sinks.map(|(into, guarantee)| promise(into, guarantee, interval)).collect()
    }
}

fn event_time(source: &SourceSpec) -> String {
    let Some(w) = &source.watermarks else { return "no watermark before the end".into() };
    let idle = w.idle_timeout().map_or(String::new(), |d| format!(", splits idle after {}", human_duration(d)));
    format!("event time, {}{idle}", w.describe())
}

fn class_of(graph: &LogicalGraph) -> (EqualityClass, Vec<String>) {
    let all: Vec<_> = graph.nodes().iter().flat_map(|n| &n.note.class).cloned().chain(idle_splits(graph)).collect();
    let class = all.iter().map(|(c, _)| *c).max().unwrap_or(EqualityClass::Exact);
    let mut reasons: Vec<String> = Vec::new();
    for (_, reason) in all.into_iter().filter(|(c, _)| *c == class) {
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    (class, reasons)
}

fn idle_splits(graph: &LogicalGraph) -> Option<(EqualityClass, String)> {
    let idles = |n: &super::LogicalNode| match &n.role {
        Role::Source(s) => s.watermarks.as_ref().is_some_and(|w| w.idle_timeout().is_some()),
        _ => false,
    };
    graph.nodes().iter().any(idles).then(|| (EqualityClass::TimeDependent, "idle splits".to_string()))
}

fn promise(into: String, guarantee: Guarantee, interval: Duration) -> Promise {
    let (guarantee, visible) = match guarantee {
        Guarantee::ExactlyOnce => ("exactly-once", format!("visible one checkpoint later: ~{}", human_duration(interval))),
        Guarantee::AtLeastOnce => ("at-least-once", "visible at once, may repeat after a failure".into()),
        Guarantee::IdempotentUpsert => ("idempotent upsert", "visible at once, repeats change nothing".into()),
        Guarantee::None => ("none", "visible at once, nothing is kept".into()),
    };
    Promise { into, guarantee: guarantee.into(), visible }
}

fn routing_name(routing: Routing) -> &'static str {
    match routing {
        Routing::Forward => "forward",
        Routing::KeyGroup => "key group",
        Routing::Rebalance => "rebalance",
        Routing::Broadcast => "broadcast",
    }
}

impl Explain {
    /// For machines.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() // strings and numbers only: cannot fail
    }

    /// For Graphviz: one box per chain.
    pub fn to_dot(&self) -> String {
        let mut dot = format!("digraph {} {{\n  rankdir=LR; node [shape=box];\n", quoted(&self.job));
        let mut chains: Vec<&str> = self.operators.iter().map(|o| o.chain.as_str()).collect();
        chains.dedup();
        let mut seen = Vec::new();
        for chain in chains {
            if seen.contains(&chain) {
                continue;
            }
            seen.push(chain);
            let members: Vec<_> = self.operators.iter().filter(|o| o.chain == chain).collect();
            let tasks = members.first().map_or(0, |o| o.tasks);
            let _ = writeln!(dot, "  subgraph {} {{ label={};", quoted(&format!("cluster {chain}")), quoted(&tasks_text(tasks)));
            for o in members {
                let _ = writeln!(dot, "    {} [label={}];", quoted(&o.id), quoted(&format!("{}\n{}", o.label, o.id)));
            }
            dot.push_str("  }\n");
        }
        for o in &self.operators {
            for i in &o.inputs {
                let label = if i.routing == "chained" { String::new() } else { format!(" [label={}]", quoted(i.routing)) };
                let _ = writeln!(dot, "  {} -> {}{label};", quoted(&i.from), quoted(&o.id));
            }
        }
        dot.push_str("}\n");
        dot
    }

    fn headline(&self) -> String {
        let mut parts = vec![self.job.clone()];
        let mut done: Vec<&str> = Vec::new();
        for p in self.promises.iter().filter(|p| p.guarantee != "none") {
            if done.contains(&p.guarantee.as_str()) {
                continue;
            }
            done.push(&p.guarantee);
            let into: Vec<_> = self.promises.iter().filter(|q| q.guarantee == p.guarantee).map(|q| q.into.as_str()).collect();
            parts.push(format!("{} into {} ({})", p.guarantee, into.join(", "), p.visible));
        }
        let reasons = if self.class_reasons.is_empty() { String::new() } else { format!(" ({})", self.class_reasons.join(", ")) };
        parts.push(format!("equality class: {}{reasons}", self.equality_class));
        parts.join(" · ")
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

fn tasks_text(tasks: u32) -> String {
    if tasks == 1 { "1 task".into() } else { format!("{tasks} tasks") }
}

impl fmt::Display for Explain {
    /// A headline, a line per operator, a note on derived ids when state hangs on one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.headline())?;
        let shown: Vec<_> = self.operators.iter().filter(|o| !o.glue).collect();
        let mark = |o: &ExplainedOperator| if needs_id(o) { format!("{}*", o.id) } else { o.id.clone() };
        let width = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0);
        let labels = width(&mut shown.iter().map(|o| o.label.chars().count()));
        let ids = width(&mut shown.iter().map(|o| mark(o).len()));
        let mut chains: Vec<&str> = Vec::new();
        for (i, o) in shown.iter().enumerate() {
            let first = !chains.contains(&o.chain.as_str());
            chains.push(&o.chain);
            let tasks = if first { tasks_text(o.tasks) } else { "chained".into() };
            let state = (!o.state.is_empty()).then(|| format!("state: {}", o.state.join("; ")));
            let notes: Vec<String> = o.detail.iter().cloned().chain(state).collect();
            let line = format!("{:>2} {:labels$}  {:ids$}  {tasks:8}  {}", i + 1, o.label, mark(o), notes.join(" · "));
            writeln!(f, "{}", line.trim_end())?;
        }
        for o in self.operators.iter().filter(|o| !o.unbounded.is_empty()) {
            writeln!(
                f,
                " ! nothing bounds the state of {} ({}): a running job warns at 1 M keys, and at each doubling",
                o.id,
                o.unbounded.join("; ")
            )?;
        }
        if self.operators.iter().any(needs_id) {
            writeln!(f, " * id derived from kind and position: name it with .id(\"...\"), so that state survives changes of the job")?;
        }
        Ok(())
    }
}

/// State or published output is filed under this id, and nobody chose it.
fn needs_id(o: &ExplainedOperator) -> bool {
    o.derived_id && !o.state.is_empty()
}
