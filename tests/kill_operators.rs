//! A job of the operators that the fraud job does without (sessions, interval and temporal joins, timers of a function, tables)
//! is killed with SIGKILL at random moments, and started with another number of tasks each time.
//!
//! What it commits must be what loops over the input come to. `WATERWHEEL_CYCLES` and `WATERWHEEL_SEED` as for `kill_kafka`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use waterwheel::engine::record::RawBatch;
use waterwheel::prelude::*;

use crate::support::fraud::{Chance, KILLS, kill_again_and_again, rounds};
use crate::support::small_job::{Item, Log, SmallJob};

/// Enough for all kills: a row costs a task a tenth of a millisecond ([`draw`]).
const ROWS: i64 = 120_000;
const KEYS: i64 = 30;
const PARTITIONS: i64 = 3;
const GAP_MS: i64 = 400;
const WITHIN_MS: i64 = 100;
const DELAY_MS: i64 = 500;

/// What is committed: by operator and key, in no order but where a test looks at the last one.
type Results = BTreeMap<String, Vec<String>>;
type Text = (String, String);

#[derive(Clone, Default, Serialize, Deserialize)]
struct Ids(Vec<i64>);

impl Merge for Ids {
    fn merge(&mut self, later: &Self) {
        self.0.extend_from_slice(&later.0);
    }
}

fn sorted(mut ids: Vec<i64>) -> String {
    ids.sort_unstable();
    format!("{ids:?}")
}

/// Says each row a while after its time.
#[derive(Default)]
struct Delay {
    rows: MapState<i64, i64>,
}

impl ProcessFunction<String, Item, Text> for Delay {
    fn open(&mut self, open: &mut ProcessOpen<'_>) {
        self.rows = open.map("rows");
    }
    fn on_element(&mut self, context: &mut ProcessContext<'_, String, Text>, item: Item) {
        self.rows.insert(context, item.at, item.n);
        context.set_timer("due", EventTime(item.at + DELAY_MS));
    }
    fn on_timer(&mut self, context: &mut ProcessContext<'_, String, Text>, timer: &Timer) {
        let at = timer.time.0 - DELAY_MS;
        let n = self.rows.get(context, &at).copied();
        self.rows.remove(context, &at);
        let key = context.key().clone();
        context.emit((format!("timer {key}"), format!("{n:?}")));
    }
}

/// The job. Times of rows are unique, so nothing depends on the order in which rows of one time come.
pub(crate) fn draw(job: &Job, input: &str, output: &str) {
    let rows = job.topic(input).json::<Item>().event_time(|item| EventTime(item.at), OutOfOrder::by(secs(1)));
    let rows = rows.map(|item| {
        if item.n % 10 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        item
    });
    let keyed = |stream: &Stream<Item>| stream.key_by(|item| item.key.clone());
    let (versions, others) = rows.split(|item| item.n % 7 == 0);
    let (odd, even) = others.split(|item| item.n % 2 == 1);

    let sessions = keyed(&rows).window(Session::gap(millis(GAP_MS as u64))).aggregate_windows(Ids::default, |ids, item| ids.0.push(item.n));
    let sessions = sessions.id("sessions").map(|w| (format!("session {}", w.key), sorted(w.value.0)));
    let pairs = keyed(&odd).interval_join(&keyed(&even)).between(before(millis(WITHIN_MS as u64)), after(millis(WITHIN_MS as u64)));
    let pairs = pairs.inner(|a, b| (format!("pair {}", a.key), format!("{} {}", a.n, b.n))).id("pairs");
    let priced = keyed(&others).temporal_join(&keyed(&versions));
    let priced = priced.left(|a, v| (format!("version {}", a.key), format!("{} {:?}", a.n, v.map(|v| v.n)))).id("priced");
    let delayed = keyed(&rows).process(Delay::default).id("delayed");
    let sums = |stream: &Stream<Item>, id: &str| keyed(stream).aggregate(|| 0i64, |sum, item| *sum += item.n).id(id).to_table();
    let both = sums(&odd, "odd").full_join(&sums(&even, "even"), |_, a, b| (a.copied(), b.copied())).id("both");
    let both = both.changes().map(|(key, sums)| (format!("table {key}"), format!("{sums:?}")));
    let all = sessions.union(&pairs).union(&priced).union(&delayed).union(&both);
    all.to_topic(output).key(|(key, _)| key.clone()).id("output");
}

fn items() -> Vec<Item> {
    let mut chance = Chance::of(7);
    let item = |n| Item { key: format!("k{}", chance.below(KEYS as u64)), n, at: 10 * n + chance.below(10) as i64 };
    (0..ROWS).map(item).collect()
}

/// What loops make of the input.
fn expected(items: &[Item]) -> Results {
    let mut by_key: BTreeMap<&str, Vec<&Item>> = BTreeMap::new();
    items.iter().for_each(|item| by_key.entry(&item.key).or_default().push(item));
    let mut all = Results::new();
    for (key, items) in by_key {
        let mut say = |what: &str, values: Vec<String>| drop(all.insert(format!("{what} {key}"), values));
        let mut sessions: Vec<Vec<i64>> = Vec::new();
        for (i, item) in items.iter().enumerate() {
            match sessions.last_mut() {
                Some(session) if item.at < items[i - 1].at + GAP_MS => session.push(item.n),
                _ => sessions.push(vec![item.n]),
            }
        }
        say("session", sessions.into_iter().map(sorted).collect());
        let is_version = |item: &Item| item.n % 7 == 0;
        let (mut pairs, mut priced, mut version) = (Vec::new(), Vec::new(), None);
        let (mut odd, mut even) = (None, None);
        for (i, item) in items.iter().enumerate() {
            if is_version(item) {
                version = Some(item.n);
                continue;
            }
            priced.push(format!("{} {version:?}", item.n));
            let sum = if item.n % 2 == 1 { &mut odd } else { &mut even };
            *sum = Some(sum.unwrap_or(0) + item.n);
            for earlier in items[..i].iter().rev().take_while(|earlier| earlier.at >= item.at - WITHIN_MS) {
                if !is_version(earlier) && (earlier.n + item.n) % 2 == 1 {
                    let (odd, even) = if item.n % 2 == 1 { (item, earlier) } else { (earlier, item) };
                    pairs.push(format!("{} {}", odd.n, even.n));
                }
            }
        }
        say("pair", pairs);
        say("version", priced);
        say("timer", items.iter().map(|item| format!("{:?}", Some(item.n))).collect());
        say("table", vec![format!("{:?}", Some((odd, even)))]);
    }
    all.retain(|_, values| !values.is_empty());
    all.values_mut().for_each(|values| values.sort());
    all
}

/// Writes the input: in each partition rows are out of order within a quarter of a second.
fn write(job: &SmallJob, items: &[Item]) {
    let topic: Arc<str> = job.input.as_str().into();
    let mut chance = Chance::of(8);
    for many in items.chunks(24 * 500) {
        let mut batch = RawBatch::default();
        for chunk in many.chunks(24) {
            let mut left: Vec<&Item> = chunk.iter().collect();
            while !left.is_empty() {
                let item = left.swap_remove(chance.below(left.len() as u64) as usize);
                let value = json!({ "key": item.key, "n": item.n, "at": item.at }).to_string();
                batch.push_parts(&topic, (item.n % PARTITIONS) as i32, -1, item.at, None, Some(value.as_bytes()), &[]);
            }
        }
        job.topics.produce(&batch).unwrap_or_else(|e| panic!("{}", e.report()));
    }
}

fn committed(job: &SmallJob) -> Results {
    let mut all = Results::new();
    job.read(&job.output, |record| {
        let (key, value): Text = serde_json::from_slice(record.value.expect("a value")).expect("a result");
        all.entry(key).or_default().push(value);
    });
    for (key, values) in &mut all {
        if key.starts_with("table ") {
            // How many steps it takes to the end depends on batches; the end does not.
            values.drain(..values.len() - 1);
        }
        values.sort();
    }
    all
}

fn run(log: Log) {
    let (items, mut chance) = (items(), Chance::new(3));
    let expected = expected(&items);
    for _ in 0..rounds() {
        let job = SmallJob::new(log, "operators", PARTITIONS as u32);
        write(&job, &items);
        let start = |tasks: u32| job.start(&["--until-end", "--batch-rows", "64", "--parallelism", &tasks.to_string()]);
        kill_again_and_again(&start, KILLS, &mut chance);
        let (status, last, errors) = start(2).wait();
        assert!(status.success() && last["resumed_from"].is_u64(), "{last} {errors}");
        assert_eq!(last["late"], 0, "nothing is late in this input");
        let got = committed(&job);
        let different: Vec<&String> = expected.keys().chain(got.keys()).filter(|key| expected.get(*key) != got.get(*key)).collect();
        if let Some(key) = different.first() {
            let (got, expected) = (got.get(*key).cloned().unwrap_or_default(), expected.get(*key).cloned().unwrap_or_default());
            let at = got.iter().zip(&expected).position(|(a, b)| a != b).unwrap_or(got.len().min(expected.len()));
            panic!(
                "{} keys differ; {key}: {} of {} results; at {at}: {:?}, expected {:?}",
                different.len(),
                got.len(),
                expected.len(),
                got.get(at),
                expected.get(at)
            );
        }
    }
}

#[test]
fn output_of_all_operators_on_kafka_is_what_loops_come_to() {
    run(Log::Kafka);
}

#[test]
fn output_of_all_operators_on_the_embedded_log_is_what_loops_come_to() {
    run(Log::Embedded);
}
