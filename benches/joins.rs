//! How many rows per second of one core go through joins of two streams, both sides together, and through tables?
//!
//! 100,000 keys, a million rows per second of event time on the two sides together, in batches of 4096 with a watermark behind
//! each; rows come from memory, up to 100 ms out of order. One row in a hundred has a partner.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use waterwheel::connectors::generator::Random;
use waterwheel::engine::operators::joins::{Bounds, JoinKind, LEFT, RIGHT, TypedPairs, interval_join, temporal_join};
use waterwheel::engine::operators::tables::{Retract, aggregate_groups, regroup};
use waterwheel::engine::operators::{OperatorFactory, STREAM_INPUT, TABLE_INPUT, join_table};
use waterwheel::engine::record::{Element, Keys, Rows};
use waterwheel::engine::time::EventTime;
use waterwheel::engine::windowing::{Tumbling, WindowAssigner, window_join};
use waterwheel_benches::meter::{Target, figure, rss, throughput};
use waterwheel_benches::node::chain;

const KEYS: u64 = 100_000;
const ROWS_PER_SECOND: usize = 1_000_000;
const BATCH: usize = 4096;
/// Milliseconds by which rows are out of order.
const DISORDER: u64 = 100;

#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Row {
    key: u64,
    amount: u64,
}

/// The rows of one second, with their times in it: left and right by turns. Of the right ones, one in `match_one_in` has the
/// key of the left one before it, the others have keys that no left one has.
fn rows(match_one_in: u64) -> Vec<(Row, i64)> {
    let mut last = 0;
    (0..ROWS_PER_SECOND as u64)
        .map(|n| {
            let mut random = Random::of(7, 0, n);
            let key = match n % 2 {
                0 => random.below(KEYS / 2) * 2,
                _ if random.below(match_one_in) == 0 => last,
                _ => random.below(KEYS / 2) * 2 + 1,
            };
            last = key;
            let time = (n / (ROWS_PER_SECOND as u64 / 1000)) as i64 - random.below(DISORDER) as i64;
            (Row { key, amount: random.below(1000) }, time)
        })
        .collect()
}

fn measure(name: &str, factory: OperatorFactory, rows: &[(Row, i64)], target: f64) {
    let (mut node, results) = chain(&[factory]);
    let mut start = 0;
    let mut pass = || {
        for pair in rows.chunks(2 * BATCH) {
            for side in [LEFT, RIGHT] {
                let mine: Vec<_> = pair.iter().skip(side).step_by(2).collect();
                let mut batch =
                    Rows::new(mine.iter().map(|r| r.0.clone()).collect(), mine.iter().map(|r| EventTime(start + r.1)).collect());
                batch.keys = Some(Keys::encode(mine.iter().map(|r| r.0.key).collect::<Vec<_>>().into_iter()));
                node.push(side, Element::Batch(batch.boxed())).expect("rows go through");
            }
            let last = pair.last().map_or(0, |r| r.1);
            node.push(0, Element::Watermark(EventTime(start + last - DISORDER as i64 - 1))).expect("the join goes on");
        }
        start += 1000;
    };
    (0..3).for_each(|_| pass());
    assert!(results.load(Relaxed) > 0, "rows find partners");
    throughput(name, ROWS_PER_SECOND as u64, Target::AtLeast(target), pass);
    figure(&format!("{name}_rss"), rss() as f64 / 1e6, "MB", Target::None);
}

/// Batches of rows keyed by `key`, from memory.
fn keyed<T: Clone + Send + 'static>(rows: Vec<(u64, T)>) -> Vec<Rows<T>> {
    let batch = |part: &[(u64, T)]| {
        let mut batch = Rows::new(part.iter().map(|r| r.1.clone()).collect(), vec![EventTime(0); part.len()]);
        batch.keys = Some(Keys::encode(part.iter().map(|r| r.0).collect::<Vec<_>>().into_iter()));
        batch
    };
    rows.chunks(BATCH).map(batch).collect()
}

fn measure_batches<T: Clone + Send + 'static>(name: &str, operators: &[OperatorFactory], input: usize, batches: &[Rows<T>], target: f64) {
    let (mut node, results) = chain(operators);
    let mut pass = || batches.iter().for_each(|batch| node.push(input, Element::Batch(batch.clone().boxed())).expect("rows go through"));
    pass();
    assert!(results.load(Relaxed) > 0, "results leave");
    let rows = batches.iter().map(|batch| batch.rows.len() as u64).sum();
    throughput(name, rows, Target::AtLeast(target), pass);
    figure(&format!("{name}_rss"), rss() as f64 / 1e6, "MB", Target::None);
}

/// A table of 100,000 keys whose values change group with every change: each change takes out of one group and puts into
/// another.
fn table_aggregate() {
    let changes = (0..ROWS_PER_SECOND as u64).map(|n| {
        let mut random = Random::of(8, 0, n);
        let key = random.below(KEYS);
        (key, (key, Some(random.below(1000))))
    });
    let group = |_: &u64, value: &u64| value % 1000;
    let batches = keyed(changes.collect());
    measure_batches("table_aggregate", &[regroup(group), aggregate_groups::<u64, _>(Sum)], 0, &batches, 3.0);
}

struct Sum;

impl Retract for Sum {
    type Row = u64;
    type Acc = u64;
    type Out = u64;
    fn create(&self) -> u64 {
        0
    }
    fn add(&self, acc: &mut u64, row: &u64) {
        *acc += row;
    }
    fn subtract(&self, acc: &mut u64, row: &u64) {
        *acc -= row;
    }
    fn finish(&self, acc: &u64) -> u64 {
        *acc
    }
}

/// A stream that looks its rows up in a table of a million keys.
fn lookup() {
    const TABLE: u64 = 1_000_000;
    let (mut node, results) = chain(&[join_table::<u64, Row, u64, u64>(|row: Row, entry: &u64| row.amount + entry)]);
    for batch in keyed((0..TABLE).map(|key| (key, (key, Some(key)))).collect::<Vec<_>>()) {
        node.push(TABLE_INPUT, Element::Batch(batch.boxed())).expect("the table is read in");
    }
    let rows = (0..ROWS_PER_SECOND as u64).map(|n| {
        let mut random = Random::of(9, 0, n);
        let key = random.below(TABLE);
        (key, Row { key, amount: random.below(1000) })
    });
    let batches = keyed(rows.collect());
    let pass = || batches.iter().for_each(|batch| node.push(STREAM_INPUT, Element::Batch(batch.clone().boxed())).expect("rows go through"));
    throughput("stream_table_join_1m_keys", ROWS_PER_SECOND as u64, Target::AtLeast(4.0), pass);
    assert!(results.load(Relaxed) > 0, "rows find entries");
    figure("stream_table_join_1m_keys_rss", rss() as f64 / 1e6, "MB", Target::None);
}

fn main() {
    table_aggregate();
    lookup();
    let kernel = || {
        let result = |left: Option<&Row>, right: Option<&Row>| Some((left.map_or(0, |l| l.amount), right.map_or(0, |r| r.amount)));
        TypedPairs::new(|_: &Row, _: &Row| true, result)
    };
    let rare = rows(100);
    let bounds = Bounds::new(-1000, 1000).expect("bounds that make sense");
    measure("interval_join", interval_join(bounds, JoinKind::Inner, kernel), &rare, 2.0);
    measure("interval_join_left", interval_join(bounds, JoinKind::Left, kernel), &rare, 2.0);
    let windows = Tumbling::of(Duration::from_secs(1)).layout().expect("windows that make sense");
    measure("window_join", window_join(windows, JoinKind::Inner, kernel), &rare, 2.0);
    let ends = std::sync::Arc::new(|_: &dyn waterwheel::engine::record::Batch, _: usize| false);
    measure("temporal_join", temporal_join(JoinKind::Inner, ends, kernel), &rows(2), 2.0);
}
