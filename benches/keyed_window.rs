//! How many events per second of one core go through a keyed sliding window, firing included?
//!
//! 10 s windows every second, a million rows per second of event time over 100,000 keys: each window fires 100,000 results of
//! ten slices. Rows come from memory in batches of 4096 with a watermark behind each.

use std::time::Duration;
use waterwheel::connectors::generator::Random;
use waterwheel::engine::operators::{Node, key_by};
use waterwheel::engine::record::{Element, Rows};
use waterwheel::engine::time::EventTime;
use waterwheel::engine::windowing::{Aggregate, Sliding, window};
use waterwheel_benches::meter::{Target, throughput};
use waterwheel_benches::node::chain;

const KEYS: u64 = 100_000;
const ROWS_PER_SECOND: usize = 1_000_000;
const BATCH: usize = 4096;

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

fn main() {
    let rows: Vec<Payment> = (0..ROWS_PER_SECOND as u64)
        .map(|n| {
            let mut random = Random::of(7, 0, n);
            Payment { card: random.below(KEYS), amount: random.below(1000) }
        })
        .collect();
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
    let before = results.load(std::sync::atomic::Ordering::Relaxed);
    assert!(before > 0, "windows fire");
    throughput("keyed_window", ROWS_PER_SECOND as u64, Target::AtLeast(5.0), pass);
}
