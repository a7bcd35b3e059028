//! How many rows per second of one core go through a chain of map and filter?

use waterwheel::engine::operators::{filter, map};
use waterwheel::engine::record::{Element, Rows};
use waterwheel::engine::time::EventTime;
use waterwheel_benches::meter::{Target, throughput};
use waterwheel_benches::node::chain;

const BATCH: u64 = 4096;

#[derive(Clone)]
struct Reading {
    sensor: u64,
    value: u64,
}

fn main() {
    let (mut node, _) = chain(&[map(|r: Reading| Reading { value: r.value * 3 + r.sensor, ..r }), filter(|r: &Reading| r.value % 8 < 6)]);
    let rows = (0..BATCH).map(|n| Reading { sensor: n % 10, value: n.wrapping_mul(0x9e37_79b9) >> 3 }).collect();
    let batch = Rows::new(rows, (0..BATCH as i64).map(EventTime).collect());
    throughput("chain", BATCH, Target::AtLeast(50.0), || {
        node.push(0, Element::Batch(batch.clone().boxed())).expect("rows go through");
    });
}
