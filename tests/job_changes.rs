//! A job that changes between two runs: types of state that evolve, operators that come and go. On the simulated machine.
//!
//! Invariant checked: state is found again by operator and field; what was let go does not come back.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use waterwheel::connectors::local::LocalTopics;
use waterwheel::engine::checkpoint;
use waterwheel::engine::env::Env;
use waterwheel::engine::error::Result;
use waterwheel::engine::graph::PhysicalPlan;
use waterwheel::engine::record::RawBatch;
use waterwheel::engine::runtime::{Outcome, Settings};
use waterwheel::engine::testing::{SimJob, SimMachine};
use waterwheel::prelude::*;
use waterwheel::topics::{End, Next, Reading as Reader, SourceOptions, TopicConfig, Topics};

#[derive(Clone, Serialize, Deserialize)]
struct Reading {
    sensor: u64,
    value: i64,
    at: i64,
}

mod v1 {
    use super::*;
    #[derive(Debug, Clone, Default, Serialize, Deserialize)]
    pub(super) struct Sum {
        pub(super) total: i32,
        pub(super) unused: Vec<String>,
    }
}

mod v2 {
    use super::*;
    #[derive(Debug, Clone, Default, Serialize, Deserialize)]
    pub(super) struct Sum {
        #[serde(default)]
        pub(super) count: u32,
        #[serde(alias = "total")]
        pub(super) sum: i64,
    }
}

mod narrower {
    use super::*;
    #[derive(Debug, Clone, Default, Serialize, Deserialize)]
    pub(super) struct Sum {
        pub(super) total: i8,
    }
}

/// Emits sensor, count and sum after each reading; `S` is the type of its state.
struct Sums<S>(ValueState<S>);

trait Add: Clone + Default + Send + Serialize + for<'de> Deserialize<'de> + 'static {
    fn add(&mut self, value: i64) -> (u32, i64);
}

impl Add for v1::Sum {
    fn add(&mut self, value: i64) -> (u32, i64) {
        self.total += value as i32;
        self.unused.push(value.to_string());
        (0, i64::from(self.total))
    }
}

impl Add for v2::Sum {
    fn add(&mut self, value: i64) -> (u32, i64) {
        self.sum += value;
        self.count += 1;
        (self.count, self.sum)
    }
}

impl Add for narrower::Sum {
    fn add(&mut self, value: i64) -> (u32, i64) {
        self.total += value as i8;
        (0, i64::from(self.total))
    }
}

impl<S: Add> ProcessFunction<u64, Reading, (u64, u32, i64)> for Sums<S> {
    fn open(&mut self, open: &mut ProcessOpen<'_>) {
        self.0 = open.value("sum");
    }
    fn on_element(&mut self, context: &mut ProcessContext<'_, u64, (u64, u32, i64)>, reading: Reading) {
        let (count, sum) = self.0.update(context, |sum| sum.get_or_insert_default().add(reading.value));
        context.emit((reading.sensor, count, sum));
    }
}

fn topics(env: &Env) -> Arc<dyn Topics> {
    Arc::new(LocalTopics::new(env.clone(), PathBuf::from("data")))
}

fn in_order(job: &Job) -> SortedStream<u64, Reading> {
    job.parallelism(2);
    let readings = job.topic("readings").json::<Reading>().event_time(|r| r.at, OutOfOrder::never()).id("readings");
    readings.key_by(|r| r.sensor).sort_by_time(|r| r.value).id("in-order")
}

fn sums<S: Add>(env: &Env) -> Result<PhysicalPlan> {
    let job = Job::new("sums", topics(env));
    let sums = in_order(&job).process(|| Sums::<S>(ValueState::default())).id("sums");
    sums.to_topic("out").key(|(sensor, ..)| sensor.to_string()).id("out");
    job.plan()
}

/// Without the operator `sums`, which runs in one task with `in-order`.
fn none(env: &Env) -> Result<PhysicalPlan> {
    let job = Job::new("sums", topics(env));
    let passed = in_order(&job).process(Pass::default).id("pass");
    passed.to_topic("out").key(|(sensor, ..)| sensor.to_string()).id("out");
    job.plan()
}

#[derive(Default)]
struct Pass(ValueState<u8>);

impl ProcessFunction<u64, Reading, (u64, u32, i64)> for Pass {
    fn open(&mut self, open: &mut ProcessOpen<'_>) {
        self.0 = open.value("seen");
    }
    fn on_element(&mut self, context: &mut ProcessContext<'_, u64, (u64, u32, i64)>, reading: Reading) {
        let new = self.0.get(context).is_none();
        self.0.set(context, 1);
        context.emit((reading.sensor, u32::from(new), 0));
    }
}

/// Two readings of 10 for each of five sensors, at a time, and one that lets time pass.
fn produce(env: &Env, at: i64) {
    let (topics, name): (_, Arc<str>) = (topics(env), "readings".into());
    let mut batch = RawBatch::default();
    for i in 0..11 {
        let reading = Reading { sensor: i % 5 + if i == 10 { 90 } else { 0 }, value: 10, at: at + if i == 10 { 10 } else { 0 } };
        batch.push_parts(&name, 0, -1, reading.at, None, Some(&serde_json::to_vec(&reading).unwrap()), &[]);
    }
    topics.produce(&batch).unwrap();
}

/// What sensor 3 has led to.
fn of_sensor_3(machine: &SimMachine) -> Vec<(u32, i64)> {
    let env = machine.outside();
    let topics = topics(&env);
    let mut rows = Vec::new();
    if !topics.list().unwrap().contains(&"out".to_string()) {
        return rows;
    }
    let source = topics.source(SourceOptions::new("out").end(End::Latest)).unwrap();
    let mut reader = Reader::open(&*source, &env).unwrap();
    loop {
        match reader.next(Duration::ZERO).unwrap() {
            Next::Records(batch) => {
                let found = batch.records().map(|r| serde_json::from_slice::<(u64, u32, i64)>(r.value.unwrap()).unwrap());
                rows.extend(found.filter(|(sensor, ..)| *sensor == 3).map(|(_, count, sum)| (count, sum)));
            }
            Next::End => return rows,
            Next::Nothing | Next::Waiting(_) => {}
        }
    }
}

fn job(machine: &SimMachine, drop_state: &[&str], plan: fn(&Env) -> Result<PhysicalPlan>) -> SimJob {
    let checkpoint = checkpoint::Settings { interval: Duration::from_millis(5), ..Default::default() };
    let drop_state = drop_state.iter().map(|id| id.to_string()).collect();
    let settings = Settings { checkpoint, drop_state, ..Settings::default() };
    let env = machine.env();
    SimJob::new(machine.clone(), settings, move || plan(&env))
}

/// Runs until so many rows of sensor 3 are out, then stops gracefully.
fn run(machine: &SimMachine, mut job: SimJob, rows: usize) -> Vec<(u32, i64)> {
    job.start().unwrap_or_else(|e| panic!("{}", e.report()));
    for _ in 0..500 {
        assert_eq!(job.run(500).unwrap(), None);
        if of_sensor_3(machine).len() >= rows {
            job.stop();
            assert_eq!(job.run(200_000).unwrap(), Some(Outcome::Stopped));
            return of_sensor_3(machine);
        }
    }
    panic!("{rows} rows do not come: {}", job.describe());
}

#[test]
fn types_evolve_and_dropped_state_does_not_come_back() {
    let machine = SimMachine::new(5);
    let outside = machine.outside();
    topics(&outside).create("readings", &TopicConfig::partitions(1)).unwrap();
    produce(&outside, 0);
    assert_eq!(run(&machine, job(&machine, &[], sums::<v1::Sum>), 2), [(0, 10), (0, 20)]);

    // Narrower is refused by name; the state is as it was.
    let refused = job(&machine, &[], sums::<narrower::Sum>).start().unwrap_err().report();
    assert!(refused.contains("Sum.total: i32 became i8") && refused.contains("operator sums"), "{refused}");

    // Wider, with a new field and without an old one.
    produce(&outside, 100);
    assert_eq!(run(&machine, job(&machine, &[], sums::<v2::Sum>), 4)[2..], [(1, 30), (2, 40)]);

    // Without the operator: only when told so.
    let refused = job(&machine, &[], none).start().unwrap_err().report();
    assert!(refused.contains("--drop-state sums"), "{refused}");
    produce(&outside, 200);
    assert_eq!(run(&machine, job(&machine, &["sums"], none), 6)[4..], [(1, 0), (0, 0)]);

    // With it again: it starts empty, and the state of the other operator is refused in its turn.
    produce(&outside, 300);
    assert_eq!(run(&machine, job(&machine, &["pass"], sums::<v2::Sum>), 8)[6..], [(1, 10), (2, 20)]);
}
