//! The planner and `explain` on small graphs: what is chained, what is cut, where dead letters go.

use super::*;
use crate::error::{Error, Result};
use crate::operators::{
    ErrorPolicy, Guarantee, Ingest, LanePublisher, PublisherContext, ReaderContext, Sink, SinkWriter, Source, SourceReader, Split,
    WriterContext, dead_letters, union,
};
use crate::record::{BatchBox, Rejected};
use crate::time::WatermarkStrategy;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// Descriptions only: the planner never reads or writes.
struct Described(&'static str, Guarantee);

impl Source for Described {
    fn describe(&self) -> String {
        self.0.into()
    }
    fn is_bounded(&self) -> bool {
        false
    }
    fn splits(&self, _first: bool) -> Result<Vec<Split>> {
        Ok(Vec::new())
    }
    fn reader(&self, _context: ReaderContext) -> Result<Box<dyn SourceReader>> {
        Err(Error::fatal("a plan reads nothing"))
    }
}

impl Sink for Described {
    fn describe(&self) -> String {
        self.0.into()
    }
    fn guarantee(&self) -> Guarantee {
        self.1
    }
    fn lanes(&self) -> u32 {
        2
    }
    fn check(&self) -> Result<()> {
        Ok(())
    }
    fn writer(&self, _context: WriterContext) -> Result<Box<dyn SinkWriter>> {
        Err(Error::fatal("a plan writes nothing"))
    }
    fn lane(&self, _context: PublisherContext) -> Result<Box<dyn LanePublisher>> {
        Err(Error::fatal("a plan writes nothing"))
    }
}

struct AsIs;

impl Ingest for AsIs {
    fn ingest(&mut self, batch: BatchBox, _rejected: &mut Vec<Rejected>) -> Result<BatchBox> {
        Ok(batch)
    }
}

fn source(policy: ErrorPolicy) -> LogicalNode {
    let letters =
        DeadLetters { encode: dead_letters("bad"), sink: SinkRef::Ready(Arc::new(Described("topic bad", Guarantee::ExactlyOnce))) };
    let source = SourceNode {
        connect: Box::new(|_| Ok(Arc::new(Described("topic payments", Guarantee::None)))),
        read_as: ReadAs::Stream,
        ingest: Arc::new(|_| Box::new(AsIs)),
        watermarks: Some(WatermarkStrategy::out_of_order(Duration::from_secs(5))),
        max_ahead_ms: None,
        in_step: None,
        policy,
        dead_letters: Some(letters),
    };
    let mut node = LogicalNode::new("source", Role::Source(source), vec![]);
    node.subject = Some("payments".into());
    node.can_reject = true;
    node
}

fn operator(kind: &'static str, inputs: &[(NodeIndex, usize, Routing)]) -> LogicalNode {
    let inputs = inputs.iter().map(|&(from, port, routing)| Input { from, port, routing }).collect();
    let mut node = LogicalNode::new(kind, Role::Operator(union()), inputs);
    node.can_reject = kind != "union";
    node
}

fn sink(from: NodeIndex, guarantee: Guarantee) -> LogicalNode {
    let sink = SinkRef::Ready(Arc::new(Described("topic alerts", guarantee)));
    let mut node = LogicalNode::new("sink", Role::Sink(sink), vec![Input { from, port: 0, routing: Routing::Forward }]);
    node.subject = Some("alerts".into());
    node
}

fn window(from: NodeIndex, routing: Routing) -> LogicalNode {
    let mut node = operator("window", &[(from, 0, routing)]);
    node.note = NodeNote {
        detail: "sliding 5m/10s".into(),
        state: vec![StateNote { what: "31 slices a key".into(), bound: Bound::Watermark }],
        class: vec![(EqualityClass::TimeDependent, "late rows".into())],
        glue: false,
    };
    node
}

use Routing::{Forward, KeyGroup};

/// source -> map -> key_by => window -> sink
fn keyed(policy: ErrorPolicy) -> LogicalGraph {
    let mut g = LogicalGraph::new("fraud");
    g.parallelism = 2;
    let s = g.add(source(policy));
    let m = g.add(operator("map", &[(s, 0, Forward)]));
    let k = g.add(operator("key_by", &[(m, 0, Forward)]));
    g.node_mut(k).note.glue = true;
    let w = g.add(window(k, KeyGroup));
    g.add(sink(w, Guarantee::ExactlyOnce));
    g
}

fn text(plan: &PhysicalPlan) -> String {
    let mut out = String::new();
    for (i, c) in plan.chains.iter().enumerate() {
        let _ = writeln!(out, "{i} x{} inputs {}", c.parallelism, c.entries.len());
        for n in &c.nodes {
            let errors = if n.errors.is_empty() { String::new() } else { format!(" errors {:?}", n.errors) };
            let _ = writeln!(out, "  {} {:?}{errors}", n.id, n.ports);
        }
    }
    for (i, e) in plan.edges.iter().enumerate() {
        let _ = writeln!(out, "edge {i}: {} -> {}.{} {:?}", e.from, e.to, e.input, e.routing);
    }
    out
}

fn check(plan: &PhysicalPlan, expected: &str) {
    let lines = |t: &str| t.lines().map(str::trim).filter(|l| !l.is_empty()).map(String::from).collect::<Vec<_>>();
    assert_eq!(lines(&text(plan)), lines(expected), "\n{}", text(plan));
}

#[test]
fn a_key_by_cuts_and_all_else_is_chained() {
    check(
        &plan(&keyed(ErrorPolicy::Fail), &NoTopics).unwrap(),
        "0 x2 inputs 0
           source-payments [[Node(1)]]
           map-1 [[Node(2)]]
           key_by-1 [[Edge(0)]]
         1 x2 inputs 1
           window-1 [[Node(1)]]
           sink-alerts []
         edge 0: 0 -> 1.0 KeyGroup",
    );
}

#[test]
fn every_node_that_can_reject_leads_to_the_dead_letters_of_its_source() {
    check(
        &plan(&keyed(ErrorPolicy::DeadLetter), &NoTopics).unwrap(),
        "0 x2 inputs 0
           source-payments [[Node(1)]] errors [Edge(1)]
           map-1 [[Node(2)]] errors [Edge(2)]
           key_by-1 [[Edge(0)]] errors [Edge(3)]
         1 x2 inputs 1
           window-1 [[Node(1)]] errors [Edge(4)]
           sink-alerts []
         2 x1 inputs 4
           source-payments.dead-letters [[Node(1)]]
           source-payments.dead-letter-sink []
         edge 0: 0 -> 1.0 KeyGroup
         edge 1: 0 -> 2.0 Rebalance
         edge 2: 0 -> 2.1 Rebalance
         edge 3: 0 -> 2.2 Rebalance
         edge 4: 1 -> 2.3 Rebalance",
    );
}

#[test]
fn a_union_heads_a_chain_and_side_outputs_have_ports() {
    let mut g = LogicalGraph::new("j");
    let s = g.add(source(ErrorPolicy::Fail));
    let split = g.add(operator("split", &[(s, 0, Forward)]));
    let m = g.add(operator("map", &[(split, 1, Forward)]));
    let u = g.add(operator("union", &[(split, 0, Forward), (m, 0, Forward)]));
    g.add(sink(u, Guarantee::AtLeastOnce));
    check(
        &plan(&g, &NoTopics).unwrap(),
        "0 x1 inputs 0
           source-payments [[Node(1)]]
           split-1 [[Edge(0)], [Node(2)]]
           map-1 [[Edge(1)]]
         1 x1 inputs 2
           union-1 [[Node(1)]]
           sink-alerts []
         edge 0: 0 -> 1.0 Forward
         edge 1: 0 -> 1.1 Forward",
    );
}

#[test]
fn another_parallelism_cuts_even_when_the_numbers_happen_to_be_equal() {
    let mut g = keyed(ErrorPolicy::Fail);
    g.node_mut(1).parallelism = Some(2);
    let p = plan(&g, &NoTopics).unwrap();
    check(
        &p,
        "0 x2 inputs 0
           source-payments [[Edge(0)]]
         1 x2 inputs 1
           map-1 [[Edge(1)]]
         2 x2 inputs 1
           key_by-1 [[Edge(2)]]
         3 x2 inputs 1
           window-1 [[Node(1)]]
           sink-alerts []
         edge 0: 0 -> 1.0 Rebalance
         edge 1: 1 -> 2.0 Rebalance
         edge 2: 2 -> 3.0 KeyGroup",
    );
    g.parallelism = 3;
    let rescaled = plan(&g, &NoTopics).unwrap();
    assert_eq!(rescaled.fingerprint, p.fingerprint, "the job's parallelism changes neither chains nor routing");
    assert_eq!(rescaled.chains.iter().map(|c| c.parallelism).collect::<Vec<_>>(), [3, 2, 3, 3]);
}

#[test]
fn the_fingerprint_tells_plans_apart() {
    let same = plan(&keyed(ErrorPolicy::Fail), &NoTopics).unwrap().fingerprint;
    assert_eq!(plan(&keyed(ErrorPolicy::Fail), &NoTopics).unwrap().fingerprint, same);
    let mut other = keyed(ErrorPolicy::Fail);
    other.node_mut(3).id = Some("velocity".into());
    assert_ne!(plan(&other, &NoTopics).unwrap().fingerprint, same);
}

/// A node that sees small tables goes on in the chain of its stream: where there is a gate, and if they are tables.
#[test]
fn tables_for_every_task_enter_a_chain_in_the_middle() {
    let table = |read_as| {
        let mut node = source(ErrorPolicy::Fail);
        let Role::Source(source) = &mut node.role else { unreachable!() };
        (source.read_as, node.subject) = (read_as, Some("rules".into()));
        node
    };
    let graph = |read_as, routing| {
        let mut g = LogicalGraph::new("fraud");
        let s = g.add(source(ErrorPolicy::Fail));
        let rules = g.add(table(read_as));
        let w = g.add(window(s, routing));
        let p = g.add(operator("process", &[(w, 0, Forward), (rules, 0, Routing::Broadcast)]));
        g.add(sink(p, Guarantee::ExactlyOnce));
        plan(&g, &NoTopics).unwrap()
    };
    check(
        &graph(ReadAs::Table, KeyGroup),
        "0 x1 inputs 0
           source-payments [[Edge(0)]]
         1 x1 inputs 0
           source-rules [[Edge(1)]]
         2 x1 inputs 2
           window-1 [[Node(1)]]
           process-1 [[Node(2)]]
           sink-alerts []
         edge 0: 0 -> 2.0 KeyGroup
         edge 1: 1 -> 2.1 Broadcast",
    );
    let chains = |plan: PhysicalPlan| plan.chains.iter().map(|c| c.nodes.len()).collect::<Vec<_>>();
    assert_eq!(chains(graph(ReadAs::Stream, KeyGroup)), [1, 1, 1, 2], "a stream's event time counts");
    assert_eq!(chains(graph(ReadAs::Table, Forward)), [2, 1, 2], "a source has no gate");
}

fn refused(g: &LogicalGraph) -> String {
    plan(g, &NoTopics).unwrap_err().report()
}

#[test]
fn what_cannot_run_is_refused_with_place_and_remedy() {
    let mut twice = keyed(ErrorPolicy::Fail);
    twice.node_mut(1).id = Some("x".into());
    twice.node_mut(3).id = Some("x".into());
    assert_eq!(refused(&twice), "two operators have the id \"x\"\n  job fraud\n  help: state is found by id: give each its own");

    let mut wide = keyed(ErrorPolicy::Fail);
    wide.node_mut(3).parallelism = Some(129);
    assert!(refused(&wide).starts_with("parallelism 129 is outside 1..=128\n  operator window, job fraud"));

    let mut odd = keyed(ErrorPolicy::Fail);
    odd.node_mut(3).id = Some("a/b".into());
    assert!(refused(&odd).starts_with("\"a/b\" cannot be an operator id"));

    let mut nowhere = keyed(ErrorPolicy::DeadLetter);
    if let Role::Source(s) = &mut nowhere.node_mut(0).role {
        s.dead_letters = None;
    }
    assert!(refused(&nowhere).contains("help: name one: .dead_letters_to"));

    let mut topic = keyed(ErrorPolicy::Fail);
    topic.node_mut(4).role = Role::Sink(SinkRef::Topic(TopicRequest::new("alerts")));
    assert!(refused(&topic).starts_with("topic alerts cannot be written: this job knows no topics\n  sink sink-alerts, job fraud"));

    let mut open = LogicalGraph::new("j");
    assert!(refused(&open).starts_with("the job has no source"));
    open.add(source(ErrorPolicy::Fail));
    assert!(refused(&open).starts_with("the job has no sink"));
    open.problem(Error::fatal("no such file").help("make it"));
    assert_eq!(refused(&open), "no such file\n  job j\n  help: make it");
}

#[test]
fn derived_ids_count_per_kind_and_avoid_given_ones() {
    let mut g = keyed(ErrorPolicy::Fail);
    let second = g.add(operator("map", &[(0, 0, Forward)]));
    g.node_mut(3).id = Some("map-1".into());
    let plan = plan(&g, &NoTopics).unwrap();
    let ids: Vec<_> = plan.chains.iter().flat_map(|c| &c.nodes).map(|n| n.id.to_string()).collect();
    assert_eq!(ids, ["source-payments", "map-2", "key_by-1", "map-3", "map-1", "sink-alerts"]);
    assert_eq!(second, 5);
}

#[test]
fn explain_says_what_it_does_and_promises() {
    let explained = explain(&keyed(ErrorPolicy::DeadLetter), &NoTopics, Duration::from_secs(1)).unwrap();
    assert_eq!(
        explained.to_string(),
        "\
fraud · exactly-once into alerts (visible one checkpoint later: ~1s) · equality class: time-dependent (late rows)
 1 source payments        source-payments  2 tasks   topic payments · event time, 5s out of order · bad records to topic bad
 2 map                    map-1            chained
 3 window sliding 5m/10s  window-1*        2 tasks   state: 31 slices a key, bounded by the watermark
 4 sink alerts            sink-alerts      chained   topic alerts
 * id derived from kind and position: name it with .id(\"...\"), so that state survives changes of the job
"
    );
    let json: serde_json::Value = serde_json::from_str(&explained.to_json()).unwrap();
    assert_eq!(json["operators"][3]["inputs"][0]["routing"], "key group");
    assert_eq!(json["promises"][0]["guarantee"], "exactly-once");
    let dot = explained.to_dot();
    assert!(dot.contains("\"key_by-1\" -> \"window-1\" [label=\"key group\"];"), "{dot}");
    assert!(dot.contains("subgraph \"cluster source-payments\" { label=\"2 tasks\";"), "{dot}");
}

#[test]
fn the_class_is_the_weakest_one() {
    let mut g = keyed(ErrorPolicy::Fail);
    g.node_mut(3).note.class = vec![(EqualityClass::Converging, "running aggregate".into())];
    assert_eq!(explain(&g, &NoTopics, Duration::from_secs(1)).unwrap().equality_class, "converging");
    g.node_mut(3).note.class.clear();
    assert_eq!(explain(&g, &NoTopics, Duration::from_secs(1)).unwrap().equality_class, "exact");
    if let Role::Source(s) = &mut g.node_mut(0).role {
        s.watermarks = Some(WatermarkStrategy::monotonous().idle_after(Duration::from_secs(30)));
    }
    let idle = explain(&g, &NoTopics, Duration::from_secs(1)).unwrap();
    assert_eq!((idle.equality_class.as_str(), idle.class_reasons), ("time-dependent", vec!["idle splits".to_string()]));
}
