//! Generated queries as whole jobs on the simulated machine: crashes at random steps, another parallelism at every restart.
//!
//! Invariant checked: a reader of the output, who keeps the newest row of each key, ends with what a run of the same script
//! without faults gives. That those results are right is what the prefix oracle of `sql/tests` shows.

use std::collections::BTreeMap;
use std::sync::Arc;
use waterwheel::engine::env::{Bug, Env, with_bug};
use waterwheel::engine::error::Result;
use waterwheel::engine::graph::PhysicalPlan;
use waterwheel::engine::record::RawBatch;
use waterwheel::engine::testing::SimMachine;
use waterwheel::prelude::*;
use waterwheel::topics::TopicConfig;

use crate::support::fraud::Chance;
use crate::support::simulated::{crash_and_rescale, each_committed, topics};

const SEEDS: u64 = 60;
/// Queries of one job.
const QUERIES: usize = 3;
const EVENTS: i64 = 160;
const KEYS: u64 = 7;

const INPUTS: &str = "
    CREATE TABLE events (id BIGINT, k BIGINT, v BIGINT, at TIMESTAMP(3), WATERMARK FOR at AS at - INTERVAL '1' SECOND)
        WITH ('connector' = 'topics', 'topic' = 'events', 'format' = 'json', 'scan.bounded.mode' = 'latest-offset');
    CREATE TABLE facts (k BIGINT, g STRING, w BIGINT, PRIMARY KEY (k) NOT ENFORCED)
        WITH ('connector' = 'upsert-kafka', 'topic' = 'facts', 'key.format' = 'json', 'value.format' = 'json', 'scan.bounded.mode' = 'latest-offset');";

/// Columns, key and text of a random query whose result does not depend on the order of arrival.
fn query(chance: &mut Chance) -> (&'static str, &'static str, String) {
    let mut any = |from: u64, to: u64| from + chance.below(to - from + 1);
    let join = ["JOIN", "LEFT JOIN"][any(0, 1) as usize];
    let extreme = ["MIN", "MAX"][any(0, 1) as usize];
    let not = ["", "NOT"][any(0, 1) as usize];
    let (a, b, c, n) = (any(1, 5), any(2, 6), any(0, 1), any(1, 3));
    match any(0, 10) {
        0 => (
            "a BIGINT, n BIGINT, s BIGINT, m BIGINT, d BIGINT",
            "a",
            format!(
                "SELECT k % {a}, COUNT(*), SUM(v), {extreme}(v), COUNT(DISTINCT v % 5) FROM events WHERE v % {b} <> {c} GROUP BY k % {a}"
            ),
        ),
        1 => (
            "g STRING, n BIGINT, s BIGINT",
            "g",
            format!(
                "SELECT COALESCE(f.g, 'none'), COUNT(*), SUM(e.v - COALESCE(f.w, 0)) FROM events e {join} facts f ON e.k = f.k
                 GROUP BY COALESCE(f.g, 'none')"
            ),
        ),
        2 => ("g STRING, s BIGINT, m BIGINT", "g", format!("SELECT g, SUM(w), {extreme}(w) FROM facts GROUP BY g HAVING COUNT(*) >= {n}")),
        3 => (
            "w TIMESTAMP(3), a BIGINT, n BIGINT, m BIGINT",
            "w, a",
            format!(
                "SELECT window_start, k % {a}, COUNT(*), {extreme}(v) FROM TABLE(HOP(TABLE events, DESCRIPTOR(at), INTERVAL '{n}' SECOND,
                 INTERVAL '{}' SECOND)) GROUP BY window_start, window_end, k % {a}",
                n * b
            ),
        ),
        4 => (
            "w TIMESTAMP(3), k BIGINT, n BIGINT, s BIGINT",
            "w, k",
            format!(
                "SELECT window_start, k, COUNT(*), SUM(v) FROM TABLE(SESSION(TABLE events PARTITION BY k, DESCRIPTOR(at),
                 INTERVAL '{n}' SECOND)) GROUP BY window_start, window_end, k"
            ),
        ),
        5 => (
            "k BIGINT, rn BIGINT, id BIGINT, v BIGINT",
            "k, rn",
            format!(
                "SELECT k, rn, id, v FROM (SELECT k, id, v, ROW_NUMBER() OVER (PARTITION BY k ORDER BY v DESC, id) AS rn FROM events)
                 WHERE rn <= {}",
                n + 1
            ),
        ),
        6 => (
            "k BIGINT, w BIGINT",
            "k",
            format!("SELECT k, w FROM facts WHERE {not} EXISTS (SELECT 1 FROM events e WHERE e.k = facts.k AND e.v % {b} = {c})"),
        ),
        7 => (
            "id BIGINT, s BIGINT, n BIGINT",
            "id",
            format!(
                "SELECT id, SUM(v) OVER w, COUNT(*) OVER w FROM events
                 WINDOW w AS (PARTITION BY k ORDER BY at ROWS BETWEEN {b} PRECEDING AND CURRENT ROW)"
            ),
        ),
        8 => (
            "id BIGINT, other BIGINT, s BIGINT",
            "id, other",
            format!(
                "SELECT a.id, b.id, a.v + b.v FROM events a JOIN events b
                 ON a.k = b.k AND b.at BETWEEN a.at AND a.at + INTERVAL '{n}' SECOND WHERE a.id < b.id"
            ),
        ),
        9 => (
            "k BIGINT, n BIGINT, m BIGINT",
            "k",
            format!("SELECT a.k, COUNT(*), {extreme}(b.w) FROM facts a JOIN facts b ON a.w % {b} = b.w % {b} GROUP BY a.k"),
        ),
        _ => (
            "k BIGINT, n BIGINT, s BIGINT",
            "k",
            format!(
                "SELECT k, COUNT(*), SUM(x) FROM (SELECT k, v AS x FROM events WHERE v % {b} = {c} UNION ALL SELECT k, w FROM facts) GROUP BY k"
            ),
        ),
    }
}

fn script(seed: u64) -> String {
    let mut chance = Chance::of(seed);
    let each = (0..QUERIES).map(|i| {
        let (columns, key, text) = query(&mut chance);
        format!(
            "CREATE TABLE out{i} ({columns}, PRIMARY KEY ({key}) NOT ENFORCED)
                 WITH ('connector' = 'topics', 'topic' = 'out{i}', 'format' = 'json', 'key.format' = 'json');
             INSERT INTO out{i} {text};\n"
        )
    });
    std::iter::once(INPUTS.to_string()).chain(each).collect()
}

fn plan(env: &Env, script: &str, parallelism: u32) -> Result<PhysicalPlan> {
    let job = Job::new("queries", topics(env));
    job.parallelism(parallelism);
    job.sql(script)?;
    job.plan()
}

/// Events within a second of their order; facts that change, go and come back.
fn fill(env: &Env, seed: u64) {
    let mut chance = Chance::of(seed ^ 0x5eed);
    let topics = topics(env);
    for topic in ["events", "facts"] {
        topics.create(topic, &TopicConfig::partitions(3)).unwrap();
        let name: Arc<str> = topic.into();
        let mut batch = RawBatch::default();
        for i in 0..EVENTS {
            let k = chance.below(KEYS);
            if topic == "events" {
                // No two of one time: OVER says nothing of their order.
                let at = 10_000 + i * 125 - chance.below(7) as i64 * 125 + i % 100;
                let value = format!(
                    "{{\"id\":{i},\"k\":{k},\"v\":{},\"at\":\"1970-01-01 00:00:{:02}.{:03}\"}}",
                    chance.below(50),
                    at / 1000,
                    at % 1000
                );
                batch.push_parts(&name, (i % 3) as i32, -1, at, None, Some(value.as_bytes()), &[]);
            } else {
                let value = (chance.below(6) > 0)
                    .then(|| format!("{{\"k\":{k},\"g\":\"g{}\",\"w\":{}}}", chance.below(3), chance.below(30)).into_bytes());
                let key = format!("{{\"k\":{k}}}");
                batch.push_parts(&name, (k % 3) as i32, -1, i, Some(key.as_bytes()), value.as_deref(), &[]);
            }
        }
        topics.produce(&batch).unwrap();
    }
}

/// The newest row of each key that was not taken away, by topic.
type Results = Vec<BTreeMap<String, String>>;

fn results(env: &Env) -> Results {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let of = |i: usize| {
        let mut rows = BTreeMap::new();
        each_committed(env, &format!("out{i}"), |r| {
            let key = text(r.key.unwrap());
            match r.value {
                Some(value) => drop(rows.insert(key, text(value))),
                None => drop(rows.remove(&key)),
            }
        });
        rows
    };
    (0..QUERIES).map(of).collect()
}

fn run(seed: u64, crashes: usize) -> Results {
    let machine = SimMachine::new(seed);
    let text = script(seed);
    fill(&machine.env(), seed);
    crash_and_rescale(&machine, crashes, move |env, parallelism| plan(env, &text, parallelism));
    results(&machine.outside())
}

#[test]
fn crashes_and_rescales_change_nothing_that_a_query_says() {
    let mut rows = 0;
    for seed in 1..=SEEDS {
        let expected = run(seed, 0);
        rows += expected.iter().map(BTreeMap::len).sum::<usize>();
        let got = run(seed, 1 + seed as usize % 4);
        assert!(got == expected, "seed {seed}: {got:?}\nis not\n{expected:?}\n{}", script(seed));
    }
    assert!(rows > 30 * SEEDS as usize, "the queries say something: {rows} rows");
}

/// The test would see a wrong answer: with each of these bugs in the engine it does.
#[test]
fn planted_bugs_show() {
    let bugs = [
        Bug::LoseLastChunk,
        Bug::RestoreOneTask,
        Bug::RereadOneRecord,
        Bug::SkipOneRecord,
        Bug::RouteByHash,
        Bug::SkipAlignment,
        Bug::FastestWatermark,
    ];
    let expected: Vec<Results> = (1..=SEEDS).map(|seed| run(seed, 0)).collect();
    let hides = |bug: Bug, seed: u64, expected: &Results| {
        std::panic::catch_unwind(|| with_bug(bug, || run(seed, 1 + seed as usize % 4))).is_ok_and(|got| got == *expected)
    };
    let hidden: Vec<Bug> =
        bugs.into_iter().filter(|bug| (1..=SEEDS).zip(&expected).all(|(seed, expected)| hides(*bug, seed, expected))).collect();
    assert!(hidden.is_empty(), "never found: {hidden:?}");
}
