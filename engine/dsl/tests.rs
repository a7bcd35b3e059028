//! Jobs drawn with the DSL, as `explain` and the runtime see them; the planner's own rules are tested in `graph`.

use super::*;
use crate::error::{Error, Result};
use crate::graph::{NodeKind, PhysicalPlan, TopicRequest, TopicSinks};
use crate::operators::tables::Suppress;
use crate::operators::{
    ErrorPolicy, Guarantee, Ingest, LanePublisher, OpenContext, PublisherContext, ReaderContext, Sink, SinkWriter, Source, SourceReader,
    Split, WriterContext,
};
use crate::record::{Batch, RawBatch, Rejected, Rows, downcast};
use crate::time::EventTime;
use std::sync::Arc;

/// A place that is only named: nothing is read or written when a job is drawn.
struct Place(String, Guarantee);

impl Source for Place {
    fn describe(&self) -> String {
        self.0.clone()
    }
    fn is_bounded(&self) -> bool {
        true
    }
    fn splits(&self, _first: bool) -> Result<Vec<Split>> {
        Ok(Vec::new())
    }
    fn reader(&self, _context: ReaderContext) -> Result<Box<dyn SourceReader>> {
        Err(Error::fatal("only drawn"))
    }
}

impl Sink for Place {
    fn describe(&self) -> String {
        self.0.clone()
    }
    fn guarantee(&self) -> Guarantee {
        self.1
    }
    fn lanes(&self) -> u32 {
        0
    }
    fn check(&self) -> Result<()> {
        Ok(())
    }
    fn writer(&self, _context: WriterContext) -> Result<Box<dyn SinkWriter>> {
        Err(Error::fatal("only drawn"))
    }
    fn lane(&self, _context: PublisherContext) -> Result<Box<dyn LanePublisher>> {
        Err(Error::fatal("only drawn"))
    }
}

struct Anywhere;

impl TopicSinks for Anywhere {
    fn sink(&self, request: &TopicRequest) -> Result<Arc<dyn Sink>> {
        Ok(Arc::new(Place(format!("topic {}", request.topic), request.guarantee)))
    }
}

#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Payment {
    card: String,
    at: i64,
}

fn parse(text: &str) -> Result<Payment, String> {
    let (card, at) = text.split_once(' ').ok_or("no space")?;
    Ok(Payment { card: card.into(), at: at.parse().map_err(|_| "not a time")? })
}

fn payments(job: &Job) -> SourceStream<Payment> {
    let connect = |read_as| Ok(Arc::new(Place(format!("{read_as:?}"), Guarantee::None)) as Arc<dyn Source>);
    let decode: DecodeValue<Payment> = Arc::new(|r| r.value.map(|v| parse(&String::from_utf8_lossy(v))).transpose());
    job.source_with("payments", connect, Decoding::Values(decode))
}

fn to_topic<T: crate::record::Data>(stream: &Stream<T>, topic: &str) -> SinkHandle {
    stream.to_records(TopicRequest::new(topic), |_, _, _| Ok(()))
}

fn ingest(plan: &PhysicalPlan) -> Box<dyn Ingest> {
    let node = &plan.chains[0].nodes[0];
    let NodeKind::Source(source) = &node.kind else { panic!("the first chain begins with a source") };
    (source.ingest)(&context(node.policy))
}

fn context(policy: ErrorPolicy) -> OpenContext {
    OpenContext {
        operator: crate::record::OperatorId::new("source"),
        index: 0,
        parallelism: 1,
        max_parallelism: 128,
        groups: 0..128,
        policy,
        env: crate::env::Env::real(),
        metrics: Default::default(),
    }
}

fn enter(job: &Job, lines: &[(Option<&str>, i64)]) -> (Rows<Payment>, Vec<Rejected>) {
    let topic: Arc<str> = "payments".into();
    let mut raw = RawBatch::default();
    for (offset, (value, time)) in lines.iter().enumerate() {
        raw.push_parts(&topic, 0, offset as i64, *time, None, value.map(str::as_bytes), &[]);
    }
    let mut rejected = Vec::new();
    let plan = job.plan_with(&Anywhere).unwrap();
    let batch = ingest(&plan).ingest(Box::new(raw), &mut rejected).unwrap();
    (downcast(batch), rejected)
}

#[test]
fn a_job_reads_as_it_is_written() {
    let job = Job::new("cards");
    let payments = payments(&job).on_error(ErrorPolicy::DeadLetter).event_time(|p| p.at, OutOfOrder::by(secs(5)));
    let (old, new) = payments.split(|p| p.at < 0);
    let _ = to_topic(&old.union(&new.filter(|p| !p.card.is_empty()).id("known").parallelism(3)), "cards").id("out");
    assert_eq!(
        job.explain_with(&Anywhere, secs(2)).unwrap().to_string(),
        "\
cards · exactly-once into cards (visible one checkpoint later: ~2s) · equality class: exact
 1 source payments  source-payments  1 task    Stream · event time, 5s out of order · bad records to topic payments.dead-letter
 2 split            split-1          chained
 3 filter           known            3 tasks
 4 union            union-1          1 task
 5 sink cards       out              chained   topic cards
"
    );
    let plan = job.plan_with(&Anywhere).unwrap();
    let letters = plan.chains.last().unwrap();
    assert_eq!(letters.head.as_str(), "source-payments.dead-letters");
    // source, split, filter and encode can reject; union cannot.
    assert_eq!(letters.entries.len(), 4);
}

#[test]
fn rows_get_event_time_and_bad_records_are_named() {
    let job = Job::new("j");
    let stream = payments(&job).event_time(|p| p.at, OutOfOrder::never()).times_within(0..=1_000);
    let _ = to_topic(&stream, "out");
    let (rows, rejected) = enter(&job, &[(Some("a 7"), 70), (Some("broken"), 71), (Some("b 5000"), 72), (None, 73), (Some("c 9"), 74)]);
    assert_eq!(rows.rows.iter().map(|p| p.card.as_str()).collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(rows.times, [EventTime(7), EventTime(9)]);
    assert!(rows.origins().is_none(), "nobody asked for dead letters");
    let errors: Vec<_> = rejected.iter().map(|r| (r.error.as_str(), r.time)).collect();
    assert_eq!(errors, [("no space", 71), ("the record has no value (a tombstone)", 73), ("event time 5000 is out of range", 5000)]);
}

#[test]
fn under_dead_letter_every_row_knows_its_record() {
    let job = Job::new("j");
    let stream = payments(&job)
        .event_time(
            |p| {
                assert!(p.at != 3, "a clock of the third kind");
                p.at
            },
            OutOfOrder::never(),
        )
        .on_error(ErrorPolicy::DeadLetter);
    let _ = to_topic(&stream, "out");
    let (rows, rejected) = enter(&job, &[(Some("a 1"), 0), (Some("b 3"), 0), (Some("c 4"), 0)]);
    assert_eq!(rows.origin(1).unwrap().record().offset, 2);
    assert_eq!(rejected.len(), 1);
    assert_eq!(rejected[0].error, "user function panicked: a clock of the third kind");
    assert_eq!(rejected[0].origin.as_ref().unwrap().record().offset, 1);
}

#[test]
fn streams_of_two_jobs_do_not_meet() {
    let (one, two) = (Job::new("one"), Job::new("two"));
    let _ = to_topic(&payments(&one).union(&payments(&two)), "out");
    assert_eq!(one.plan_with(&Anywhere).unwrap_err().to_string(), "two streams of different jobs meet in one operator");
}

#[test]
fn a_sink_can_be_changed_after_it_is_drawn() {
    let job = Job::new("j");
    let _ = to_topic(&payments(&job), "out").request(|r| r.guarantee = Guarantee::AtLeastOnce).parallelism(2).name("results");
    let explained = job.explain_with(&Anywhere, secs(1)).unwrap();
    assert_eq!(explained.promises[0].guarantee, "at-least-once");
    let sink = explained.operators.last().unwrap();
    assert_eq!((sink.label.as_str(), sink.tasks, sink.inputs[0].routing), ("results", 2, "chained"));
}

#[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
struct Activity {
    account: String,
    count: u64,
    allowed: u64,
}

impl Activity {
    fn add(&mut self, p: &Payment) {
        self.count += 1;
        self.account.clone_from(&p.card);
    }
    fn with_limit(self, customer: Option<&u64>) -> Activity {
        Activity { allowed: customer.copied().unwrap_or(3), ..self }
    }
}

impl Merge for Activity {
    fn merge(&mut self, later: &Activity) {
        self.count += later.count;
    }
}

fn customers(job: &Job) -> SourceStream<u64> {
    let decode: DecodeValue<u64> = Arc::new(|r| Ok(r.value.map(|v| v.len() as u64)));
    let connect = |read_as| Ok(Arc::new(Place(format!("{read_as:?}"), Guarantee::None)) as Arc<dyn Source>);
    job.source_with("customers", connect, Decoding::Values(decode))
}

#[test]
fn the_whole_walk_is_explained() {
    let job = Job::new("fraud");
    job.parallelism(2);
    let payments = payments(&job)
        .on_error(ErrorPolicy::DeadLetter)
        .event_time(|p| p.at, OutOfOrder::by(secs(5)))
        .dedup_by(|p| format!("{}{}", p.card, p.at), hours(1));
    let customers = customers(&job).table(|limit| limit.to_string());
    let alerts = payments
        .key_by(|p| p.card.clone())
        .window(crate::windowing::Sliding::of(mins(5)).every(secs(10)))
        .allow_late(secs(30))
        .late_to(|late| to_topic(&late, "late"))
        .aggregate(Activity::default, |a, p| a.add(p))
        .id("velocity")
        .join_table(&customers, |a| a.account.clone(), Activity::with_limit)
        .filter(|a| a.count > a.allowed);
    let _ = to_topic(&alerts, "alerts").id("velocity-alerts");
    assert_eq!(
        job.explain_with(&Anywhere, secs(1)).unwrap().to_string(),
        "\
fraud · exactly-once into late, alerts (visible one checkpoint later: ~1s) · equality class: time-dependent (late rows, latest-value join)
 1 source payments                     source-payments   2 tasks   Stream · event time, 5s out of order · bad records to topic payments.dead-letter
 2 dedup                               dedup-1*          2 tasks   state: 1 time an id, kept 1h
 3 source customers                    source-customers  2 tasks   Table · table, read in before the streams that join it
 4 window sliding 5m/10s, late by 30s  velocity          2 tasks   state: 30 slices a key, bounded by the watermark
 5 sink late                           sink-late         chained   topic late
 6 join_table with customers           join_table-1*     2 tasks   state: 1 row a key of customers, UNBOUNDED by time
 7 filter                              filter-1          chained
 8 sink alerts                         velocity-alerts   chained   topic alerts
 ! nothing bounds the state of join_table-1 (1 row a key of customers): a running job warns at 1 M keys, and at each doubling
 * id derived from kind and position: name it with .id(\"...\"), so that state survives changes of the job
"
    );
}

/// Passes rows on, and says which key had how many by the end.
#[derive(Default)]
struct PassOn(crate::operators::ValueState<u64>);

impl crate::operators::ProcessFunction<String, Payment, Payment> for PassOn {
    fn open(&mut self, open: &mut crate::operators::ProcessOpen<'_>) {
        self.0 = open.value("count");
    }
    fn on_element(&mut self, context: &mut crate::operators::ProcessContext<'_, String, Payment>, row: Payment) {
        self.0.update(context, |count| *count = Some(count.unwrap_or(0) + 1));
        context.emit(row);
    }
}

fn class(job: &Job) -> (String, Vec<String>) {
    let explained = job.explain_with(&Anywhere, secs(1)).unwrap();
    (explained.equality_class, explained.class_reasons)
}

#[test]
fn what_keyed_operators_promise() {
    let keyed = |job: &Job| payments(job).event_time(|p| p.at, OutOfOrder::never()).key_by(|p| p.card.clone());

    let job = Job::new("totals");
    let _ = to_topic(&keyed(&job).aggregate(|| 0u64, |n, _| *n += 1), "totals");
    assert_eq!(class(&job), ("converging".into(), vec!["running aggregate".into()]));

    let job = Job::new("arrival");
    let _ = to_topic(&keyed(&job).process(PassOn::default), "out");
    assert_eq!(class(&job), ("time-dependent".into(), vec!["arrival order in process".into()]));

    let job = Job::new("sorted");
    let sorted = keyed(&job).sort_by_time(|p| p.at).late_to(|late| to_topic(&late, "late")).id("in-order");
    let _ = to_topic(&sorted.process(PassOn::default).id("pass"), "out");
    assert_eq!(class(&job), ("time-dependent".into(), vec!["late rows".into()]));
    let explained = job.explain_with(&Anywhere, secs(1)).unwrap();
    let process = explained.operators.iter().find(|o| o.id == "pass").unwrap();
    assert_eq!(process.inputs[0].routing, "chained", "rows of a key stay in their task behind a sort");
}

#[test]
fn a_record_without_a_value_removes_from_a_table_and_is_bad_in_a_stream() {
    let job = Job::new("j");
    let table = customers(&job).table(|limit| limit.to_string());
    let _ = to_topic(&payments(&job).join_table(&table, |p| p.card.clone(), |p, _| p), "out");
    let topic: Arc<str> = "customers".into();
    let mut raw = RawBatch::default();
    raw.push_parts(&topic, 0, 0, 0, Some(b"3"), Some(b"abc"), &[]);
    raw.push_parts(&topic, 0, 1, 0, Some(b"3"), None, &[]);
    raw.push_parts(&topic, 0, 2, 0, None, None, &[]);
    let mut rejected = Vec::new();
    let plan = job.plan_with(&Anywhere).unwrap();
    let batch = ingest(&plan).ingest(Box::new(raw), &mut rejected).unwrap();
    assert_eq!(downcast::<Rows<(String, Option<u64>)>>(batch).rows, [("3".to_string(), Some(3)), ("3".to_string(), None)]);
    assert_eq!(rejected[0].error, "the record has neither key nor value");
}

#[test]
fn one_source_is_a_table_or_a_stream() {
    for table_first in [true, false] {
        let job = Job::new("j");
        let source = customers(&job);
        let stream = source.stream();
        if !table_first {
            let _ = to_topic(&stream, "out");
        }
        let table = source.table(|limit| limit.to_string());
        if table_first {
            let _ = to_topic(&stream, "out");
        }
        let _ = to_topic(&payments(&job).join_table(&table, |p| p.card.clone(), |p, _| p), "joined");
        let error = job.plan_with(&Anywhere).unwrap_err();
        assert_eq!(error.to_string(), "customers is read as a table and as a stream by one source");
    }
}

#[test]
fn windows_that_make_no_sense_are_refused_when_planned() {
    let job = Job::new("j");
    let sums = payments(&job).key_by(|p| p.card.clone()).window(crate::windowing::Tumbling::of(secs(0)));
    let _ = to_topic(&sums.aggregate(Activity::default, Activity::add), "out");
    assert!(job.plan_with(&Anywhere).unwrap_err().report().contains("at least 1 ms"));
}

#[derive(Default)]
struct Looks(crate::operators::BroadcastState<String, u64>);

impl crate::operators::ProcessFunction<String, crate::operators::Either<Payment, u64>, Payment> for Looks {
    fn open(&mut self, open: &mut crate::operators::ProcessOpen<'_>) {
        self.0 = open.broadcast("limits");
    }
    fn on_element(
        &mut self,
        context: &mut crate::operators::ProcessContext<'_, String, Payment>,
        row: crate::operators::Either<Payment, u64>,
    ) {
        let limit = self.0.get(context, &context.key()).copied();
        if let Some(payment) = row.first().filter(|p| limit.is_some_and(|limit| p.at as u64 > limit)) {
            context.emit(payment.clone());
        }
    }
}

#[test]
fn two_streams_and_a_broadcast_map_meet_in_one_function() {
    let job = Job::new("j");
    job.parallelism(2);
    let limits = customers(&job).table(|limit| limit.to_string()).broadcast("limits");
    let numbers = customers(&job).event_time(|n| *n as i64, OutOfOrder::never()).key_by(|n| n.to_string());
    let both = payments(&job).key_by(|p| p.card.clone()).connect(&numbers);
    let _ = to_topic(&both.sort_by_time(|_| 0u64).with_broadcast(&limits).process(Looks::default).id("look"), "out");
    let explained = job.explain_with(&Anywhere, secs(1)).unwrap();
    let look = explained.operators.iter().find(|o| o.id == "look").unwrap();
    assert_eq!(look.inputs.iter().map(|i| i.routing).collect::<Vec<_>>(), ["chained", "broadcast"]);
    assert!(explained.class_reasons.contains(&"limits as it is when a row comes".to_string()), "{:?}", explained.class_reasons);
    assert!(explained.to_string().contains("limits whole, in every task"), "{explained}");
    let plan = job.plan_with(&Anywhere).unwrap();
    let connect = plan.chains.iter().find(|c| c.head.as_str().starts_with("connect")).unwrap();
    assert_eq!((connect.entries.len(), connect.nodes.len()), (3, 5), "what follows a connect is chained to it, a small table beside");
}

/// What `explain` says of windows: what they keep, what ends it, and what results depend on.
#[test]
fn windows_are_explained() {
    use crate::windowing::{Calendar, Count, Cumulative, Global, Session, aggregates::count};
    let job = Job::new("j");
    let keyed = payments(&job).event_time(|p| p.at, OutOfOrder::never()).in_step("cards", mins(10)).key_by(|p| p.card.clone());
    let n = || count::<Payment>();
    let _ = to_topic(&keyed.window(Session::gap(mins(30))).allow_late(mins(5)).aggregate_with(n()).id("a"), "a");
    let _ = to_topic(&keyed.window(Cumulative::of(hours(24)).every(hours(1))).aggregate_with(n()).id("b"), "b");
    let _ = to_topic(&keyed.window(Calendar::week()).fire_every(secs(5)).aggregate_with(n()).id("c"), "c");
    let _ = to_topic(&keyed.window(Count::of(100).every(10)).aggregate_with(n()).id("d"), "d");
    let _ = to_topic(&keyed.window(Global).fire_each(7).discarding().aggregate_with(n()).id("e"), "e");
    let _ = to_topic(&keyed.window(Global).collect().id("f").reduce(|_, _| ()), "f");
    let text = job.explain_with(&Anywhere, secs(1)).unwrap().to_string();
    for line in [
        "held back 10m ahead of cards",
        "equality class: time-dependent (late rows, early results by processing time, arrival order in windows, early results by arrival",
        "window session 30m, late by 5m",
        "open sessions, bounded by the watermark",
        "window cumulative 1d/1h",
        "24 slices a key, bounded by the watermark",
        "window week in UTC, early every 5s",
        "1 window a key, bounded by the watermark",
        "window count 100/10",
        "10 slices a key, UNBOUNDED by time",
        "window global, early each 7 rows, discarding",
        "1 window a key, UNBOUNDED by time",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_source_without_event_time_keeps_step_with_none() {
    let job = Job::new("j");
    let _ = to_topic(&payments(&job).in_step("cards", mins(10)).stream(), "out");
    let error = job.plan_with(&Anywhere).unwrap_err().report();
    assert!(error.contains("without event time"), "{error}");
}

#[test]
fn joins_say_what_they_keep() {
    let job = Job::new("joins");
    let stream = || payments(&job).event_time(|p| p.at, OutOfOrder::by(secs(5)));
    let (left, right) = (stream().id("left").key_by(|p| p.card.clone()), stream().id("right").key_by(|p| p.card.clone()));
    let near = left
        .interval_join(&right)
        .between(before(secs(10)), after(mins(1)))
        .late_left_to(|late| to_topic(&late, "late"))
        .left(|l, r| (l.at, r.map(|r| r.at)));
    let _ = to_topic(&near.id("near"), "near");
    let together = left.window_join(&right, crate::windowing::Tumbling::of(hours(1))).on(|l, r| l.at < r.at).semi();
    let _ = to_topic(&together.id("together"), "together");
    let priced = left.temporal_join(&right).ends_when(|r| r.at == 0).inner(|l, r| l.at - r.at);
    let _ = to_topic(&priced.id("priced"), "priced");
    let text = job.explain_with(&Anywhere, secs(1)).unwrap().to_string();
    for line in [
        "interval_join left",
        "state: left rows for 1m of event time, bounded by the watermark; right rows for 10s, bounded by the watermark",
        "window_join semi, tumbling 1h",
        "state: the rows of both sides, bounded by the watermark",
        "temporal_join inner",
        "1 version a key, UNBOUNDED by time",
        "equality class: time-dependent (late rows)",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    let job = Job::new("nonsense");
    let keyed = payments(&job).key_by(|p| p.card.clone());
    let none = keyed.interval_join(&keyed).between(after(secs(1)), before(secs(1))).inner(|_, _| 0);
    let _ = to_topic(&none, "none");
    assert!(job.plan_with(&Anywhere).unwrap_err().to_string().contains("joins nothing"));
}

#[test]
fn tables_converge_and_say_what_they_keep() {
    let job = Job::new("tables");
    job.parallelism(2);
    let limits = customers(&job).table(|limit| limit.to_string());
    let counts = payments(&job).key_by(|p| p.card.clone()).aggregate(|| 0u64, |n, _| *n += 1).id("counts").to_table();
    let over = counts.join(&limits, |_, count, limit| (*count, *limit)).id("over").filter(|_, (count, limit)| count > limit);
    let _ = to_topic(&over.group_by(|_, (count, _)| *count).count().suppress(Suppress::Every(secs(1))).changes(), "by-count");
    let _ = to_topic(&counts.foreign_join(&limits, |n| n.to_string(), |_, n, limit| n + limit).changes(), "foreign");
    let _ = to_topic(&over.to_stream(), "changes");
    let text = job.explain_with(&Anywhere, secs(1)).unwrap().to_string();
    for line in [
        "join_tables inner",
        "1 row a key of both tables, UNBOUNDED by time",
        "suppress to one change in 1s",
        "1 value a group, UNBOUNDED by time",
        "equality class: converging",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    let plan = job.plan_with(&Anywhere).unwrap();
    let nodes =
        plan.chains.iter().map(|chain| chain.nodes.iter().map(|n| n.id.to_string()).collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
    assert!(nodes.iter().any(|chain| chain.starts_with("over filter")), "a filter needs no exchange: {nodes:?}");
}
