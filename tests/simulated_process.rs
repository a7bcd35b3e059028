//! Process functions with broadcast rules, asynchronous calls and patterns, as one job on the simulated machine that crashes.
//!
//! Invariant checked: what is committed after any number of crashes equals, per topic and key, what a run without faults
//! commits; rows that waited for an answer at a crash are neither lost nor doubled.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Poll;
use waterwheel::engine::env::{Bug, Env, with_bug};
use waterwheel::engine::error::Result;
use waterwheel::engine::graph::PhysicalPlan;
use waterwheel::engine::record::RawBatch;
use waterwheel::engine::runtime::Outcome;
use waterwheel::engine::testing::{SimJob, SimMachine};
use waterwheel::prelude::*;
use waterwheel::topics::TopicConfig;

use crate::support::simulated::{each_committed, settings, topics};

/// Runs of the whole job; each has one to three crashes.
const SEEDS: u64 = 40;
const OUTPUTS: [&str; 3] = ["checked", "bursts", "broken-off"];

#[derive(Clone, Serialize, Deserialize)]
struct Reading {
    sensor: u64,
    value: i64,
    at: i64,
}

#[derive(Clone, Serialize, Deserialize)]
struct Rule {
    name: String,
    above: i64,
}

#[derive(Clone, Serialize)]
struct Found {
    sensor: u64,
    values: Vec<i64>,
    rule: String,
}

/// Names each rule that a reading breaks, and how many the sensor has broken by then.
#[derive(Default)]
struct Check {
    rules: BroadcastState<String, Rule>,
    broken: ReducingState<i64>,
}

impl ProcessFunction<u64, Reading, Found> for Check {
    fn open(&mut self, open: &mut ProcessOpen<'_>) {
        self.rules = open.broadcast("rules");
        self.broken = open.reducing("broken", |so_far, more| *so_far += more);
    }
    fn on_element(&mut self, context: &mut ProcessContext<'_, u64, Found>, reading: Reading) {
        let broken: Vec<String> =
            self.rules.entries(context).filter(|(_, r)| reading.value > r.above).map(|(name, _)| name.clone()).collect();
        for rule in broken {
            self.broken.add(context, 1);
            let count = self.broken.get(context).copied().unwrap_or(0);
            context.emit(Found { sensor: reading.sensor, values: vec![reading.value, count], rule });
        }
    }
}

/// Some turns until the answer is there.
async fn ask(reading: Reading) -> Result<Reading, String> {
    let mut left = reading.value % 4;
    std::future::poll_fn(|_| {
        left -= 1;
        if left < 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    Ok(Reading { value: reading.value * 10, ..reading })
}

fn plan(env: &Env) -> Result<PhysicalPlan> {
    let job = Job::new("checks", topics(env));
    job.parallelism(2);
    let rules = job.topic("rules").end(End::Latest).json::<Rule>().table(|r| r.name.clone()).broadcast("rules");
    let readings = job.topic("readings").end(End::Latest).json::<Reading>().event_time(|r| r.at, OutOfOrder::by(secs(1)));
    let asked = readings.key_by(|r| r.sensor).map_async(AsyncOptions::unordered().capacity(3), ask).id("ask");
    let in_order = asked.key_by(|r| r.sensor).sort_by_time(|r| r.value).id("in-order");
    let checked = in_order.with_broadcast(&rules).process(Check::default).id("check");
    checked.to_topic("checked").key(|f| f.sensor.to_string()).id("checked");
    let pattern = Pattern::begin("low", |r: &Reading, _| r.value % 3 == 0)
        .times_or_more(2)
        .greedy()
        .followed_by("high", |r, so_far| so_far.last("low").is_some_and(|low| r.value > low.value + 70))
        .within(millis(2_500))
        .after_match(AfterMatch::PastLast);
    let show = |rule: &'static str| {
        move |m: &Match<'_, Reading>| {
            let sensor = m.rows().next().map_or(0, |(.., r)| r.sensor);
            Found { sensor, values: m.rows().map(|(.., r)| r.value).collect(), rule: rule.into() }
        }
    };
    let (bursts, broken_off) = in_order.detect_or_time_out(&pattern, show("burst"), show("broken off"));
    bursts.id("bursts").to_topic("bursts").key(|f| f.sensor.to_string()).id("bursts-topic");
    broken_off.to_topic("broken-off").key(|f| f.sensor.to_string()).id("broken-off-topic");
    job.plan()
}

fn fill(env: &Env) {
    let topics = topics(env);
    topics.create("readings", &TopicConfig::partitions(3)).unwrap();
    topics.create("rules", &TopicConfig::partitions(1)).unwrap();
    let push = |batch: &mut RawBatch, topic: &Arc<str>, partition, at, key: Option<&[u8]>, json: Option<Vec<u8>>| {
        batch.push_parts(topic, partition, -1, at, key, json.as_deref(), &[]);
    };
    let (readings, rules): (Arc<str>, Arc<str>) = ("readings".into(), "rules".into());
    let mut batch = RawBatch::default();
    let rule = |name: &str, above| Some(serde_json::to_vec(&Rule { name: name.into(), above }).unwrap());
    push(&mut batch, &rules, 0, 0, Some(b"high"), rule("high", 10));
    push(&mut batch, &rules, 0, 1, Some(b"gone"), rule("gone", 0));
    push(&mut batch, &rules, 0, 2, Some(b"high"), rule("high", 1_200));
    push(&mut batch, &rules, 0, 3, Some(b"gone"), None);
    topics.produce(&batch).unwrap();
    for second in 0..15 {
        let mut batch = RawBatch::default();
        for i in second * 10..(second + 1) * 10 {
            let reading = Reading { sensor: (i % 5) as u64, value: (i * 37) % 211, at: i * 100 };
            push(&mut batch, &readings, (i % 3) as i32, reading.at, None, Some(serde_json::to_vec(&reading).unwrap()));
        }
        topics.produce(&batch).unwrap();
    }
}

type Committed = BTreeMap<(&'static str, Vec<u8>), Vec<Vec<u8>>>;

fn committed(machine: &SimMachine) -> Committed {
    let env = machine.outside();
    let topics = topics(&env);
    let mut by_key = Committed::new();
    for topic in OUTPUTS {
        if !topics.list().unwrap().contains(&topic.to_string()) {
            continue;
        }
        each_committed(&env, topic, |r| by_key.entry((topic, r.key.unwrap().to_vec())).or_default().push(r.value.unwrap().to_vec()));
    }
    by_key
}

fn run(seed: u64, crashes: u64) -> Committed {
    let machine = SimMachine::new(seed);
    let env = machine.env();
    fill(&env);
    let mut job = SimJob::new(machine.clone(), settings(), move || plan(&env));
    job.start().unwrap();
    for _ in 0..crashes {
        if job.run(1_000 + machine.choose(8_000)).unwrap().is_none() {
            job.crash();
        }
        job.start().unwrap();
    }
    let outcome = job.run(600_000).unwrap();
    assert_eq!(outcome, Some(Outcome::Finished), "the job does not come to its end: {}", job.describe());
    committed(&machine)
}

#[test]
fn crashes_change_nothing_that_is_committed() {
    let expected = run(0, 0);
    for topic in OUTPUTS {
        assert!(expected.keys().any(|(t, _)| *t == topic), "{topic} has output");
    }
    let gone = |rows: &Vec<Vec<u8>>| rows.iter().any(|row| String::from_utf8_lossy(row).contains("gone"));
    assert!(!expected.values().any(gone), "the rules are read in whole before the first row");
    for seed in 1..=SEEDS {
        assert_eq!(run(seed, 1 + seed % 3), expected, "seed {seed}");
    }
}

/// The control: when rows that waited for an answer are forgotten, the comparison above fails for some seed.
#[test]
fn forgotten_calls_are_found() {
    let expected = run(0, 0);
    let notices = |seed: &u64| with_bug(Bug::ForgetCalls, || run(*seed, 1 + seed % 3)) != expected;
    assert!((1..=SEEDS).any(|seed| notices(&seed)), "forgotten calls go unnoticed in {SEEDS} seeds");
}
