//! How many events per second of one core go through session windows?
//!
//! 100,000 keys, a million rows per second of event time (each key has one every 100 ms on average), rows up to 50 ms out of
//! order, from memory in batches of 4096 with a watermark behind each. Sessions of a gap of 500 ms are long and grow; those of
//! 100 ms hold two or three rows, so that nearly every third row makes one, and every third ends one.

use std::time::Duration;
use waterwheel::connectors::generator::Random;
use waterwheel::engine::operators::{Node, key_by};
use waterwheel::engine::record::{Element, Rows};
use waterwheel::engine::time::EventTime;
use waterwheel::engine::windowing::{Session, WindowOptions, Windows, aggregates};
use waterwheel_benches::meter::{Target, throughput};
use waterwheel_benches::node::chain;

const KEYS: u64 = 100_000;
const ROWS_PER_SECOND: usize = 1_000_000;
const BATCH: usize = 4096;
const OUT_OF_ORDER_MS: u64 = 50;

#[derive(Clone)]
struct Payment {
    card: u64,
    amount: u64,
    late_ms: i64,
}

/// Pushes one second of event time, which begins at `start` milliseconds.
fn second(node: &mut Node, rows: &[Payment], start: i64) {
    let time = |i: usize| EventTime(start + (i / (ROWS_PER_SECOND / 1000)) as i64);
    for (at, part) in rows.chunks(BATCH).enumerate() {
        let first = at * BATCH;
        let times = part.iter().enumerate().map(|(i, row)| time(first + i).minus_ms(row.late_ms)).collect();
        node.push(0, Element::Batch(Rows::new(part.to_vec(), times).boxed())).expect("rows go through");
        let watermark = time(first + part.len() - 1).minus_ms(OUT_OF_ORDER_MS as i64 + 1);
        node.push(0, Element::Watermark(watermark)).expect("windows fire");
    }
}

fn main() {
    let rows: Vec<Payment> = (0..ROWS_PER_SECOND as u64)
        .map(|n| {
            let mut random = Random::of(7, 0, n);
            Payment { card: random.below(KEYS), amount: random.below(1000), late_ms: random.below(OUT_OF_ORDER_MS) as i64 }
        })
        .collect();
    for (gap_ms, name, target) in [(500, "sessions", Target::AtLeast(2.0)), (100, "sessions_short", Target::None)] {
        let figures = (aggregates::count(), aggregates::sum(|row: &Payment| row.amount));
        let window = Session::gap(Duration::from_millis(gap_ms)).operator::<u64, _>(WindowOptions::default(), figures);
        let (mut node, results) = chain(&[key_by(|p: &Payment| p.card), window.expect("windows that make sense")]);
        let mut start = 0;
        let mut pass = || {
            second(&mut node, &rows, start);
            start += 1000;
        };
        (0..3).for_each(|_| pass());
        assert!(results.load(std::sync::atomic::Ordering::Relaxed) > 0, "sessions fire");
        throughput(name, ROWS_PER_SECOND as u64, target, pass);
    }
}
