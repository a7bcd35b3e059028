//! What does state cost that is ten times as large as the memory for it?
//!
//! A running aggregate over a million keys. First with all state in memory, then with a tenth of that as the budget of the
//! task: with RocksDB's cache as it is by default, which holds the rest, and with a cache as small as the budget, so that a
//! row of a cold key reads and unpacks a block. Once each row has a random key, the worst case, since nothing is hot; once keys
//! come as often as in life, few of them very often (a Zipf distribution of exponent 0.99).

use std::sync::Arc;
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

/// Which keys come.
type Draw = Arc<dyn Fn(&mut Random) -> u64 + Send + Sync>;

/// Some million draws of a Zipf distribution of exponent 0.99: made before, so that rows cost no powers and logarithms.
fn zipf() -> Draw {
    let mut random = Random::of(6, 0, 0);
    let mut sums = Vec::with_capacity(KEYS as usize);
    let mut sum = 0.0;
    for rank in 1..=KEYS {
        sum += (rank as f64).powf(-0.99);
        sums.push(sum);
    }
    let mut draw = || {
        let at = random.below(1 << 52) as f64 / (1u64 << 52) as f64 * sum;
        sums.partition_point(|&s| s < at).min(KEYS as usize - 1) as u32
    };
    let draws: Vec<u32> = (0..4_000_000).map(|_| draw()).collect();
    Arc::new(move |random: &mut Random| u64::from(draws[random.below(draws.len() as u64) as usize]))
}

fn plan(draw: &Draw, out: &Blackhole) -> Result<PhysicalPlan> {
    let job = Job::new("spill");
    let draw = draw.clone();
    let cards = Generator::new("cards", 1, move |split, n| {
        let card = if n < KEYS { n } else { draw(&mut Random::of(5, split, n)) };
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
fn run(place: &Place, draw: &Draw) -> (f64, i64) {
    let out = Blackhole::default();
    let (rows, draw) = (out.clone(), draw.clone());
    let job = Running::start(place.runner(move || plan(&draw, &rows)));
    job.until("every key has state", || out.rows() >= KEYS);
    let (from, start) = (out.rows(), cpu());
    job.until("the updates", || out.rows() >= KEYS + UPDATES);
    let rate = millions(out.rows() - from, cpu() - start);
    let bytes = job.runner().metrics().gauge(STATE_BYTES, "totals", 0).get();
    job.stop();
    (rate, bytes)
}

fn main() {
    let uniform: Draw = Arc::new(|random: &mut Random| random.below(KEYS));
    for (name, draw, target) in [("any key", uniform, Target::AtLeast(0.2)), ("Zipf keys", zipf(), Target::AtLeast(1.0))] {
        distribution(name, &draw, target);
    }
}

fn distribution(name: &str, draw: &Draw, target: Target) {
    let mut place = Place::default();
    // One checkpoint's drain would be the whole of so short a run.
    place.settings.checkpoint.interval = Duration::from_secs(600);
    place.settings.memory_per_task = 4 << 30;
    let (in_memory, bytes) = run(&place, draw);
    assert!(bytes > 0, "the job says how much state it holds");
    figure(&format!("spill: {name}, state"), bytes as f64 / 1e6, "MB", Target::None);
    figure(&format!("spill: {name}, all in memory"), in_memory, "M rows per CPU-second", Target::None);
    for (blocks, cache_bytes, target) in [("blocks cached", 256 << 20, target), ("blocks not cached", bytes as usize / 10, Target::None)] {
        let mut place = Place::default();
        place.settings.checkpoint.interval = Duration::from_secs(600);
        place.settings.memory_per_task = bytes as usize / 10;
        place.rocks.cache_bytes = cache_bytes;
        place.rocks.write_buffer_bytes = cache_bytes / 2;
        let (spilled, held) = run(&place, draw);
        figure(&format!("spill: {name}, {blocks}, held by tables"), held as f64 / 1e6, "MB", Target::None);
        figure(&format!("spill: {name}, {blocks}"), spilled, "M rows per CPU-second", target);
        figure(&format!("spill: {name}, {blocks}, slowdown"), in_memory / spilled, "x", Target::None);
    }
}
