//! The model of the broker and a real one, by the same random scripts: what one answers, the other does.
//!
//! A script has two publishers of one lane, as a process and the one that replaces it. The real one is slow, so there are few
//! scripts; what an answer means is all that is compared, not its words.
//!
//! Invariant: both sides see the same calls with the same records.

use super::graph::{Ground, Violations};
use super::input::{Form, Input};
use crate::kafka_source::{open_context, topics};
use crate::support::kafka::{self, client};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use waterwheel::connectors::topics::{SinkOptions, Topics};
use waterwheel::engine::env::Env;
use waterwheel::engine::error::{Error, Kind};
use waterwheel::engine::graph::{TopicRequest, TopicSinks};
use waterwheel::engine::operators::{LaneMarker, LanePublisher, PublisherContext, SegmentRef, Sink, WriterContext};
use waterwheel::engine::record::RawBatch;
use waterwheel::engine::testing::{SimBroker, SimMachine};

const SCRIPTS: u64 = 5;
const STEPS: usize = 16;

/// One place of publishing.
struct Side {
    sink: Arc<dyn Sink>,
    env: Env,
    staging: PathBuf,
    topic: String,
    lanes: [Option<Box<dyn LanePublisher>>; 2],
    last: Vec<SegmentRef>,
    made: u64,
}

/// One call.
#[derive(Debug, Clone, Copy)]
enum Step {
    Open(usize),
    Fence(usize),
    Marker(usize),
    Publish(usize, usize),
    Scan(usize),
}

fn script(machine: &SimMachine) -> Vec<Step> {
    let step = |_| {
        let lane = machine.choose(2);
        match machine.choose(10) {
            0 => Step::Open(lane),
            1..4 => Step::Fence(lane),
            4 => Step::Marker(lane),
            5..9 => Step::Publish(lane, machine.choose(4)),
            _ => Step::Scan(lane),
        }
    };
    [Step::Open(0), Step::Open(1), Step::Fence(0)].into_iter().chain((0..STEPS).map(step)).collect()
}

impl Side {
    fn lane(&mut self, at: usize) -> &mut Box<dyn LanePublisher> {
        let context = PublisherContext {
            job: format!("job-{}", self.topic),
            operator: "out".into(),
            lane: 0,
            env: self.env.clone(),
            staging: self.staging.clone(),
        };
        let sink = &self.sink;
        self.lanes[at].get_or_insert_with(|| sink.lane(context).expect("a lane"))
    }

    /// Records of an epoch, staged.
    fn stage(&mut self, epoch: u64, records: usize) -> Vec<SegmentRef> {
        let topic: Arc<str> = self.topic.as_str().into();
        let mut batch = RawBatch::default();
        for i in 0..records {
            batch.push_parts(&topic, -1, -1, i as i64, Some(format!("k{i}").as_bytes()), Some(format!("{epoch}-{i}").as_bytes()), &[]);
        }
        self.made += 1;
        let mut open = open_context();
        open.env = self.env.clone();
        let context = WriterContext { open, staging: self.staging.clone(), attempt: format!("a{}", self.made), waker: Arc::new(|| ()) };
        let mut writer = self.sink.writer(context).expect("a writer");
        writer.write(Box::new(batch)).expect("written");
        writer.prepare(epoch).expect("prepared");
        loop {
            if let Some(segments) = writer.prepared().expect("sealed") {
                return segments;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Makes a call, and says what came of it.
    fn play(&mut self, step: Step, epoch: u64) -> String {
        fn told<T>(result: Result<T, Error>, ok: impl Fn(T) -> String) -> String {
            match result {
                Ok(value) => ok(value),
                Err(e) if e.kind() == Kind::Transient => "refused".into(),
                Err(e) => format!("failed: {}", e.report()),
            }
        }
        match step {
            Step::Open(at) => {
                self.lanes[at] = None;
                self.lane(at);
                "opened".into()
            }
            Step::Fence(at) => {
                // The engine tries again until it works.
                for _ in 0..100 {
                    if self.lane(at).fence().is_ok() {
                        return "fenced".into();
                    }
                }
                "not fenced".into()
            }
            Step::Marker(at) => {
                told(self.lane(at).marker(), |m| m.map_or("no marker".into(), |m| format!("marker {} {}", m.lineage, m.epoch)))
            }
            Step::Publish(at, records) => {
                let segments = self.stage(epoch, records);
                let marker = LaneMarker { lineage: "line".into(), epoch, parent: None };
                let published = self.lane(at).publish(&marker, &segments);
                self.last = segments;
                told(published, |()| "published".into())
            }
            Step::Scan(at) => {
                let last = self.last.clone();
                told(self.lane(at).scan(&last), |outcome| format!("{outcome:?}"))
            }
        }
    }
}

fn sorted(values: impl Iterator<Item = Option<Vec<u8>>>) -> Vec<String> {
    let mut values: Vec<String> = values.map(|v| String::from_utf8_lossy(&v.unwrap_or_default()).into_owned()).collect();
    values.sort();
    values
}

#[test]
fn the_broker_and_its_model_answer_alike() {
    let bootstrap = kafka::shared();
    for seed in 1..=SCRIPTS {
        let machine = SimMachine::new(seed);
        let topic = client::new_topic(bootstrap, "model", 2);
        let folder = tempfile::tempdir().expect("a folder");
        let sink = topics(bootstrap).sink(SinkOptions { lanes: 1, ..SinkOptions::new(&topic) }).expect("good options");
        let side = |sink: Arc<dyn Sink>, env: Env, staging: &Path| {
            sink.check().unwrap_or_else(|e| panic!("{}", e.report()));
            Side { sink, env, staging: staging.into(), topic: topic.clone(), lanes: [None, None], last: Vec::new(), made: 0 }
        };
        let mut real = side(sink, Env::real(), folder.path());
        let broker = SimBroker::new();
        let ground = Ground {
            machine: machine.clone(),
            broker: broker.clone(),
            input: Input::make(&machine, &broker, 0, Form::Plain),
            violations: Violations::default(),
            lanes: 1,
            trims: false,
            max_ahead: None,
            shares_files: false,
        };
        let model = TopicSinks::sink(&ground, &TopicRequest::new(&topic)).expect("a sink");
        let mut model = side(model, machine.outside(), Path::new("staging"));
        for (nth, step) in script(&machine).into_iter().enumerate() {
            let epoch = nth as u64;
            let (expected, got) = (real.play(step, epoch), model.play(step, epoch));
            assert_eq!(got, expected, "seed {seed}, step {nth}: {step:?}");
        }
        let committed = sorted(client::read_committed_all(bootstrap, &topic).into_iter().map(|r| r.value));
        assert_eq!(sorted(broker.committed(&topic).into_iter().flatten().map(|r| r.value)), committed, "seed {seed}");
    }
}
