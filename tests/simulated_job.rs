//! A whole job on the simulated machine: embedded log in and out, windows, two parallel tasks, crashes at random steps.
//!
//! Invariant checked: what is committed after any number of crashes equals, per key, what a run without faults commits; the
//! same seed takes the same steps.

use std::collections::BTreeMap;
use std::sync::Arc;
use waterwheel::Kind;
use waterwheel::engine::env::{Bug, Env, with_bug};
use waterwheel::engine::error::Result;
use waterwheel::engine::graph::PhysicalPlan;
use waterwheel::engine::record::RawBatch;
use waterwheel::engine::runtime::{Outcome, Settings};
use waterwheel::engine::testing::{SimJob, SimMachine, Trace};
use waterwheel::prelude::*;
use waterwheel::topics::TopicConfig;

use crate::support::simulated::{each_committed, settings, topics};

/// Runs of the whole job per test; each has one to four crashes.
const SEEDS: u64 = 150;

#[derive(Clone, Serialize, Deserialize)]
struct Reading {
    sensor: u64,
    value: i64,
    at: i64,
}

#[derive(Clone, Serialize, Deserialize)]
struct Total {
    sensor: u64,
    end: i64,
    sum: i64,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Sum(i64);

impl Merge for Sum {
    fn merge(&mut self, later: &Self) {
        self.0 += later.0;
    }
}

fn plan(env: &Env) -> Result<PhysicalPlan> {
    let job = Job::new("totals", topics(env));
    job.parallelism(2);
    job.topic("readings")
        .end(End::Latest)
        .json::<Reading>()
        .event_time(|r| r.at, OutOfOrder::by(secs(1)))
        .key_by(|r| r.sensor)
        .window(Tumbling::of(secs(2)))
        .allow_late(secs(3))
        .aggregate_windows(Sum::default, |sum, r| sum.0 += r.value)
        .id("sums")
        .map(|w| Total { sensor: w.key, end: w.end.0, sum: w.value.0 })
        .to_topic("totals")
        .key(|t| t.sensor.to_string())
        .id("totals");
    job.plan()
}

fn fill(env: &Env, n: i64) {
    let topics = topics(env);
    topics.create("readings", &TopicConfig::partitions(3)).unwrap();
    let name: Arc<str> = "readings".into();
    // A commit of the log per second of event time: the source reads them one after the other.
    for second in 0..n / 10 {
        let mut batch = RawBatch::default();
        for i in second * 10..(second + 1) * 10 {
            let reading = Reading { sensor: (i % 7) as u64, value: i, at: i * 100 };
            let json = serde_json::to_vec(&reading).unwrap();
            batch.push_parts(&name, (i % 3) as i32, -1, reading.at, None, Some(&json), &[]);
        }
        topics.produce(&batch).unwrap();
    }
}

/// Committed values by key, in order.
fn committed(machine: &SimMachine) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let env = machine.outside();
    let topics = topics(&env);
    let mut by_key: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    if !topics.list().unwrap().contains(&"totals".to_string()) {
        return by_key;
    }
    each_committed(&env, "totals", |r| by_key.entry(r.key.unwrap().to_vec()).or_default().push(r.value.unwrap().to_vec()));
    by_key
}

type MakePlan = fn(&Env) -> Result<PhysicalPlan>;

fn sim(seed: u64) -> (SimMachine, SimJob) {
    sim_of(seed, plan, 256 << 20)
}

fn sim_of(seed: u64, plan: MakePlan, memory_per_task: usize) -> (SimMachine, SimJob) {
    let machine = SimMachine::new(seed);
    let env = machine.env();
    fill(&env, 300);
    let settings = Settings { memory_per_task, ..settings() };
    let job = SimJob::new(machine.clone(), settings, move || plan(&env));
    (machine, job)
}

/// Runs a job that has started to its end; what is committed then.
fn finish(machine: &SimMachine, job: &mut SimJob) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let outcome = job.run(400_000).unwrap();
    assert_eq!(outcome, Some(Outcome::Finished), "the job does not come to its end: {}", job.describe());
    committed(machine)
}

fn run(seed: u64, crashes: usize) -> (BTreeMap<Vec<u8>, Vec<Vec<u8>>>, Trace) {
    run_of(crashes, sim(seed))
}

fn run_of(crashes: usize, (machine, mut job): (SimMachine, SimJob)) -> (BTreeMap<Vec<u8>, Vec<Vec<u8>>>, Trace) {
    job.start().unwrap();
    for _ in 0..crashes {
        if job.run(machine.choose(600)).unwrap().is_none() {
            job.crash();
        }
        job.start().unwrap();
    }
    (finish(&machine, &mut job), job.trace())
}

#[test]
fn crashes_change_nothing_that_is_committed() {
    let (expected, _) = run(0, 0);
    assert_eq!(expected.len(), 7, "every sensor has output");
    for seed in 1..=SEEDS {
        let (got, _) = run(seed, 1 + seed as usize % 4);
        assert_eq!(got, expected, "seed {seed}");
    }
}

/// Running sums: their state is evicted, and read again.
fn running_sums(env: &Env) -> Result<PhysicalPlan> {
    let job = Job::new("sums", topics(env));
    job.parallelism(2);
    job.topic("readings")
        .end(End::Latest)
        .json::<Reading>()
        .key_by(|r| r.sensor)
        .aggregate(|| 0i64, |sum, r| *sum += r.value)
        .id("sums")
        .map(|(sensor, sum)| Total { sensor, end: 0, sum })
        .to_topic("totals")
        .key(|t| t.sensor.to_string())
        .id("totals");
    job.plan()
}

#[test]
fn state_beyond_memory_survives_crashes() {
    let expected: BTreeMap<u64, i64> = (0..7).map(|sensor| (sensor, (0..300).filter(|i| i % 7 == sensor as i64).sum())).collect();
    for seed in 1..=SEEDS / 3 {
        // No memory at all, room for a key or two, room for all.
        let memory = [0, 500, 1 << 20][seed as usize % 3];
        let (committed, _) = run_of(1 + seed as usize % 4, sim_of(seed, running_sums, memory));
        let last = |values: &Vec<Vec<u8>>| serde_json::from_slice::<Total>(values.last().unwrap()).unwrap();
        let got: BTreeMap<u64, i64> = committed.values().map(last).map(|t| (t.sensor, t.sum)).collect();
        assert_eq!(got, expected, "seed {seed}, {memory} bytes");
    }
}

/// A checkpoint that cannot be stored is given up, output that cannot be staged restarts the job: nothing is lost or doubled.
#[test]
fn a_full_disk_is_waited_out() {
    let (expected, _) = run(0, 0);
    let mut failed = 0;
    for seed in 1..=SEEDS {
        let (machine, mut job) = sim(seed);
        job.start().unwrap();
        let mut running = job.run(machine.choose(600)).unwrap().is_none();
        machine.disk_full(true);
        if running {
            match job.run(machine.choose(300)) {
                Ok(outcome) => running = outcome.is_none(),
                Err(e) => {
                    assert_ne!(e.kind(), Kind::Fatal, "seed {seed}: {}", e.report());
                    (running, failed) = (false, failed + 1);
                }
            }
        }
        machine.disk_full(false);
        // What failed while the disk was full may come out only now.
        if running && let Err(e) = job.run(300) {
            assert_ne!(e.kind(), Kind::Fatal, "seed {seed}: {}", e.report());
            (running, failed) = (false, failed + 1);
        }
        if !running || !job.is_running() {
            job.start().unwrap();
        }
        assert_eq!(finish(&machine, &mut job), expected, "seed {seed}");
    }
    assert!(failed > 0, "the full disk is never met");
}

/// The control: with a rule left out, the comparison above must fail for some seed.
#[test]
fn planted_bugs_are_found() {
    let (expected, _) = run(0, 0);
    for bug in [Bug::SkipAlignment, Bug::IgnoreMarker, Bug::TrustTheLog, Bug::LoseLastChunk, Bug::RereadOneRecord, Bug::ForgetWatermark] {
        let notices = |seed: &u64| {
            let outcome = std::panic::catch_unwind(|| with_bug(bug, || run(*seed, 1 + *seed as usize % 4).0));
            outcome.map_or(true, |got| got != expected)
        };
        let found = (1..=SEEDS).find(notices);
        assert!(found.is_some(), "{bug:?} goes unnoticed in {SEEDS} seeds");
    }
}

#[test]
fn the_same_seed_takes_the_same_steps() {
    for seed in [3, 8] {
        assert_eq!(run(seed, 2).1, run(seed, 2).1);
    }
}
