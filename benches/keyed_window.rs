//! How many events per second of one core go through a keyed sliding window, firing included?
//!
//! 10 s windows every second, a million rows per second of event time over 100,000 keys: each window fires 100,000 results of
//! ten slices. Rows come from memory in batches of 4096 with a watermark behind each.
//!
//! And does a window of many slices cost more? One hour every second, over an hour of event time, so that every cost that
//! comes once a window is in it: rows taken in against those of a tumbling window, and the time of a firing per result. What
//! a sliding window costs more is that of a cell for each key in each second, so its share depends on the rows that a cell
//! gets: ten, as above, and five.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use waterwheel::connectors::generator::Random;
use waterwheel::engine::operators::{Node, key_by};
use waterwheel::engine::record::{Element, Rows};
use waterwheel::engine::time::EventTime;
use waterwheel::engine::windowing::{Accumulate, Aggregate, Sliding, Tumbling, WindowAssigner, window};
use waterwheel_benches::meter::{Target, figure, millions, spent, throughput};
use waterwheel_benches::node::chain;

const KEYS: u64 = 100_000;
const ROWS_PER_SECOND: usize = 1_000_000;
const BATCH: usize = 4096;

/// The long windows: rows of a second of event time, and keys when each has ten of them.
const FEW_ROWS: usize = 10_000;
const FEW_KEYS: u64 = 1_000;
const HOUR: Duration = Duration::from_secs(3600);

#[derive(Clone)]
struct Payment {
    card: u64,
    amount: u64,
}

/// Pushes one second of event time, which begins at `start` milliseconds.
fn second(node: &mut Node, rows: &[Payment], start: i64) {
    let time = |i: usize| EventTime(start + (i / (ROWS_PER_SECOND / 1000)) as i64);
    for (at, part) in rows.chunks(BATCH).enumerate() {
        let first = at * BATCH;
        let times = (first..first + part.len()).map(time).collect();
        node.push(0, Element::Batch(Rows::new(part.to_vec(), times).boxed())).expect("rows go through");
        let watermark = EventTime(time(first + part.len() - 1).0 - 1);
        node.push(0, Element::Watermark(watermark)).expect("windows fire");
    }
}

fn payments(rows: usize, keys: u64) -> Vec<Payment> {
    let payment = |n| {
        let mut random = Random::of(7, 0, n);
        Payment { card: random.below(keys), amount: random.below(1000) }
    };
    (0..rows as u64).map(payment).collect()
}

/// An hour of event time through windows that are full: rows per CPU-second taken in, in millions, and CPU time per result.
fn hour(windows: &impl WindowAssigner, keys: u64, aggregate: impl Accumulate<Row = Payment>) -> (f64, Duration) {
    let window = window::<u64, _>(windows, Duration::ZERO, aggregate).expect("windows that make sense");
    let (mut node, results) = chain(&[key_by(|p: &Payment| p.card), window]);
    let rows = payments(FEW_ROWS, keys);
    let mut pass = |seconds: std::ops::Range<i64>| {
        let (mut taking, mut firing) = (Duration::ZERO, Duration::ZERO);
        for start in seconds.map(|second| second * 1000) {
            let batches: Vec<_> =
                rows.chunks(BATCH).map(|part| Rows::new(part.to_vec(), vec![EventTime(start); part.len()]).boxed()).collect();
            taking += spent(|| batches.into_iter().for_each(|batch| node.push(0, Element::Batch(batch)).expect("rows go through"))).0.cpu;
            firing += spent(|| node.push(0, Element::Watermark(EventTime(start + 999))).expect("windows fire")).0.cpu;
        }
        (taking, firing)
    };
    let hour = HOUR.as_secs() as i64;
    pass(0..hour);
    let before = results.load(Relaxed);
    let (taking, firing) = pass(hour..2 * hour);
    let fired = results.load(Relaxed) - before;
    (millions(FEW_ROWS as u64 * HOUR.as_secs(), taking), firing / fired.max(1) as u32)
}

fn long_windows() {
    type Acc = u64;
    let sum = || {
        Aggregate::new(
            || 0,
            |acc: &mut Acc, row: &Payment| *acc += row.amount,
            |acc: &mut Acc, later: &Acc| *acc += later,
            |acc: &Acc| *acc,
        )
    };
    let max = || {
        let most = |acc: &mut Acc, other: Acc| *acc = other.max(*acc);
        Aggregate::new(
            || 0,
            move |acc: &mut Acc, row: &Payment| most(acc, row.amount),
            move |acc: &mut Acc, later: &Acc| most(acc, *later),
            |acc: &Acc| *acc,
        )
    };
    let sliding = Sliding::of(HOUR).every(Duration::from_secs(1));
    let tumbling = Tumbling::of(HOUR);
    let (taken, sums) = hour(&sliding, FEW_KEYS, sum());
    let (_, maxima) = hour(&sliding, FEW_KEYS, max());
    let share = taken / hour(&tumbling, FEW_KEYS, sum()).0;
    let thin = hour(&sliding, 2 * FEW_KEYS, sum()).0 / hour(&tumbling, 2 * FEW_KEYS, sum()).0;
    figure("keyed_window: 1 h by 1 s, taking rows in", taken, "M rows per CPU-second", Target::AtLeast(4.0));
    figure("keyed_window: the same, share of tumbling", share, "", Target::AtLeast(0.8));
    figure("keyed_window: the same with five rows a key and second", thin, "", Target::None);
    for (name, time) in [("SUM", sums), ("MAX", maxima)] {
        figure(&format!("keyed_window: 1 h by 1 s, a result of {name}"), time.as_nanos() as f64, "ns", Target::None);
    }
}

fn main() {
    let rows = payments(ROWS_PER_SECOND, KEYS);
    let sum = Aggregate::new(
        || (0u64, 0u64),
        |acc: &mut (u64, u64), row: &Payment| *acc = (acc.0 + 1, acc.1 + row.amount),
        |acc: &mut (u64, u64), later: &(u64, u64)| *acc = (acc.0 + later.0, acc.1 + later.1),
        |acc: &(u64, u64)| *acc,
    );
    let windows = Sliding::of(Duration::from_secs(10)).every(Duration::from_secs(1));
    let window = window::<u64, _>(&windows, Duration::ZERO, sum).expect("windows that make sense");
    let (mut node, results) = chain(&[key_by(|p: &Payment| p.card), window]);
    let mut start = 0;
    let mut pass = || {
        second(&mut node, &rows, start);
        start += 1000;
    };
    // Until windows are full and slices are dropped as fast as they are made.
    (0..12).for_each(|_| pass());
    let before = results.load(Relaxed);
    assert!(before > 0, "windows fire");
    throughput("keyed_window", ROWS_PER_SECOND as u64, Target::AtLeast(5.0), pass);
    long_windows();
}
