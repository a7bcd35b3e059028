//! Joins and tables as a whole job on the simulated machine: crashes at random steps, and another parallelism at every restart.
//!
//! Invariant checked: joins in event time commit, per key, what a run without faults commits, in the same order; tables end up
//! the same, however often they changed on the way.

use std::collections::BTreeMap;
use std::sync::Arc;
use waterwheel::engine::env::Env;
use waterwheel::engine::error::Result;
use waterwheel::engine::graph::PhysicalPlan;
use waterwheel::engine::record::RawBatch;
use waterwheel::engine::testing::SimMachine;
use waterwheel::prelude::*;
use waterwheel::topics::TopicConfig;

use crate::support::simulated::{crash_and_rescale, each_committed, topics};

const SEEDS: u64 = 40;

/// Compared record by record, and by the last record of each key.
const JOINS: [&str; 4] = ["near", "together", "visits", "versions"];
const TABLES: [&str; 4] = ["sums", "foreign", "groups", "paired"];

#[derive(Clone, Serialize, Deserialize)]
struct Row {
    key: u64,
    value: i64,
    at: i64,
}

fn plan(env: &Env, parallelism: u32) -> Result<PhysicalPlan> {
    let job = Job::new("joins", topics(env));
    job.parallelism(parallelism);
    let rows = |topic: &str| {
        let rows = job.topic(topic).end(End::Latest).json::<Row>().event_time(|r| r.at, OutOfOrder::by(secs(1))).id(topic);
        rows.key_by(|r| r.key)
    };
    let (left, right) = (rows("left"), rows("right"));
    let pair = |l: Option<&Row>, r: Option<&Row>| {
        let key = l.or(r).map_or(0, |row| row.key);
        (key, l.map(|l| l.value), r.map(|r| r.value))
    };
    let write = |pairs: Stream<(u64, Option<i64>, Option<i64>)>, name: &str| {
        pairs.id(name).to_topic(name).key(|pair| pair.0.to_string()).id(&format!("{name}-sink"));
    };
    let near = left.interval_join(&right).between(before(millis(700)), after(secs(1))).on(|l, r| (l.value + r.value) % 3 != 0);
    write(near.full(pair), "near");
    write(left.window_join(&right, Sliding::of(secs(2)).every(secs(1))).left(move |l, r| pair(Some(l), r)), "together");
    write(left.window_join(&right, Session::gap(millis(400))).full(pair), "visits");
    write(left.temporal_join(&right).ends_when(|r| r.value % 5 == 0).left(move |l, r| pair(Some(l), r)), "versions");

    let sum = |keyed: &KeyedStream<u64, Row>, name: &str| keyed.aggregate(|| 0, |sum, r| *sum += r.value).id(name).to_table();
    let (lefts, rights) = (sum(&left, "left-sum"), sum(&right, "right-sum"));
    let sums = lefts.full_join(&rights, |_, l, r| l.unwrap_or(&0) - r.unwrap_or(&0)).id("joined").filter(|_, sum| sum % 2 == 0);
    sums.to_topic("sums").id("sums");
    let foreign = lefts.foreign_join(&rights, |sum| sum.unsigned_abs() % 9, |_, l, r| l + r);
    foreign.to_topic("foreign").id("foreign");
    sums.group_by(|_, sum| sum % 10).count().to_topic("groups").id("groups");
    // What is given less what is taken back, of a join that keeps everything.
    let changes = left.join(&right).on(|l, r| l.value % 4 == r.value % 4).left(move |l, r| pair(Some(l), r)).id("regular");
    let signed = changes.map(|change| (change.row.0, if change.kind.is_addition() { change.row } else { (0, change.row.1, change.row.2) }));
    let sum_of = |sum: &mut i64, (_, row): &(u64, (u64, Option<i64>, Option<i64>))| {
        let value = row.1.unwrap_or(0) * 31 + row.2.unwrap_or(0);
        *sum += if row.0 == 0 { -value } else { value };
    };
    signed.key_by(|row| row.0).aggregate(|| 0, sum_of).id("paired").to_table().to_topic("paired").id("paired-sink");
    job.plan()
}

fn fill(env: &Env) {
    let topics = topics(env);
    for (side, topic) in ["left", "right"].into_iter().enumerate() {
        topics.create(topic, &TopicConfig::partitions(3)).unwrap();
        let name: Arc<str> = topic.into();
        for second in 0..15 {
            let mut batch = RawBatch::default();
            for i in second * 8..(second + 1) * 8 {
                // Keys from 1: the sign of a change is told by a key of 0.
                let key = 1 + (i * (side as i64 + 2) % 7) as u64;
                let row = Row { key, value: i * 3 + side as i64, at: i * 125 + side as i64 * 60 };
                let json = serde_json::to_vec(&row).unwrap();
                batch.push_parts(&name, (key % 3) as i32, -1, row.at, None, Some(&json), &[]);
            }
            topics.produce(&batch).unwrap();
        }
    }
}

/// Committed values by key, in order; `None` is a tombstone.
type Committed = BTreeMap<Vec<u8>, Vec<Option<String>>>;

fn committed(env: &Env, topic: &str) -> Committed {
    let mut by_key = Committed::new();
    each_committed(env, topic, |r| {
        let value = r.value.map(|v| String::from_utf8(v.to_vec()).unwrap());
        by_key.entry(r.key.unwrap().to_vec()).or_default().push(value);
    });
    by_key
}

/// What joins commit, record by record, and what tables end up as.
fn results(machine: &SimMachine) -> BTreeMap<&'static str, Committed> {
    let env = machine.outside();
    let joins = JOINS.into_iter().map(|topic| (topic, committed(&env, topic)));
    let tables = TABLES.into_iter().map(|topic| {
        let newest = committed(&env, topic).into_iter().map(|(key, mut values)| (key, values.pop().into_iter().collect::<Vec<_>>()));
        (topic, newest.filter(|(_, newest)| newest != &[None]).collect())
    });
    joins.chain(tables).collect()
}

fn run(seed: u64, crashes: usize) -> BTreeMap<&'static str, Committed> {
    let machine = SimMachine::new(seed);
    fill(&machine.env());
    crash_and_rescale(&machine, crashes, plan);
    results(&machine)
}

#[test]
fn crashes_and_rescales_change_nothing_that_is_committed() {
    let expected = run(0, 0);
    for (topic, keys) in &expected {
        assert!(keys.len() > 1, "{topic} has output of several keys");
    }
    for seed in 1..=SEEDS {
        let got = run(seed, 1 + seed as usize % 4);
        for (topic, keys) in &expected {
            assert_eq!(got[topic], *keys, "seed {seed}, topic {topic}");
        }
    }
}
