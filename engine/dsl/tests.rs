//! Jobs drawn with the DSL, as `explain` and the runtime see them; the planner's own rules are tested in `graph`.

use super::*;
use crate::error::{Error, Result};
use crate::graph::{NodeKind, PhysicalPlan, TopicRequest, TopicSinks};
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

#[derive(Clone)]
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
    let decode = records(|r| parse(std::str::from_utf8(r.value.ok_or("no value")?).map_err(|e| e.to_string())?).map(Some));
    job.source_with("payments", connect, decode)
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
    assert_eq!(letters.inputs, 4);
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
    assert_eq!(errors, [("no space", 71), ("no value", 73), ("event time 5000 is out of range", 5000)]);
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
