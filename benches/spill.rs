//! What does state cost that is ten times as large as the memory for it?
//!
//! A running aggregate over a million keys, each row a random one of them: the worst case, since nothing is hot. First with
//! all state in memory, then with a tenth of that as the budget of the task: once with RocksDB's cache as it is by default,
//! which holds the rest, once with a cache as small as the budget, so that nearly each row reads and unpacks a block.

use std::time::Duration;
use waterwheel::connectors::blackhole::Blackhole;
use waterwheel::connectors::generator::{Generator, Random};
use waterwheel::engine::dsl::Job;
use waterwheel::engine::error::Result;
use waterwheel::engine::graph::PhysicalPlan;
use waterwheel::engine::observe::STATE_BYTES;
use waterwheel_benches::job::{Place, Running};
use waterwheel_benches::meter::{Target, cpu, figure, millions};

const KEYS: u64 = 1_000_000;
const UPDATES: u64 = 2_000_000;

fn plan(out: &Blackhole) -> Result<PhysicalPlan> {
    let job = Job::new("spill");
    let cards = Generator::new("cards", 1, |split, n| {
        let card = if n < KEYS { n } else { Random::of(5, split, n).below(KEYS) };
        Some(card.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    });
    let totals = job.source::<u64>("cards", cards).key_by(|n| *n).aggregate(
        || [0u64; 8],
        |acc, card| {
            acc[0] += 1;
            acc[(card % 7) as usize + 1] = *card;
        },
    );
    totals.id("totals").to_sink("blackhole", out.clone());
    job.plan()
}

/// Rate of updates once every key is there, and the bytes of state that the job says it holds.
fn run(place: &Place) -> (f64, i64) {
    let out = Blackhole::default();
    let rows = out.clone();
    let job = Running::start(place.runner(move || plan(&rows)));
    job.until("every key has state", || out.rows() >= KEYS);
    let (from, start) = (out.rows(), cpu());
    job.until("the updates", || out.rows() >= KEYS + UPDATES);
    let rate = millions(out.rows() - from, cpu() - start);
    let bytes = job.runner().metrics().gauge(STATE_BYTES, "totals", 0).get();
    job.stop();
    (rate, bytes)
}

fn main() {
    let mut place = Place::default();
    // One checkpoint's drain would be the whole of so short a run.
    place.settings.checkpoint.interval = Duration::from_secs(600);
    place.settings.memory_per_task = 4 << 30;
    let (in_memory, bytes) = run(&place);
    assert!(bytes > 0, "the job says how much state it holds");

    figure("spill: state", bytes as f64 / 1e6, "MB", Target::None);
    figure("spill: all in memory", in_memory, "M rows per CPU-second", Target::None);
    for (name, cache_bytes) in [("blocks cached", 256 << 20), ("blocks not cached", bytes as usize / 10)] {
        let mut place = Place::default();
        place.settings.checkpoint.interval = Duration::from_secs(600);
        place.settings.memory_per_task = bytes as usize / 10;
        place.rocks.cache_bytes = cache_bytes;
        place.rocks.write_buffer_bytes = cache_bytes / 2;
        let (spilled, held) = run(&place);
        figure(&format!("spill: {name}, held by tables"), held as f64 / 1e6, "MB", Target::None);
        figure(&format!("spill: {name}"), spilled, "M rows per CPU-second", Target::None);
        figure(&format!("spill: {name}, slowdown"), in_memory / spilled, "x", Target::None);
    }
}
