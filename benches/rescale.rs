//! How long does a job with 2 GB of state take from one task to two?
//!
//! Eight million values of 256 random characters; the clock runs from the start of the second run, at twice the parallelism,
//! to its first row out: verification of every file, both halves cut out, first batch. Once beyond the memory budget, so that
//! values lie in RocksDB, and once within it.

use std::time::Duration;
use waterwheel::connectors::blackhole::Blackhole;
use waterwheel::connectors::generator::Generator;
use waterwheel::engine::dsl::Job;
use waterwheel::engine::error::Result;
use waterwheel::engine::graph::PhysicalPlan;
use waterwheel_benches::job::{Place, Running};
use waterwheel_benches::meter::{Target, figure, rss};
use waterwheel_benches::values::random_text;

const KEYS: u64 = 8_000_000;

fn plan(parallelism: u32, out: &Blackhole) -> Result<PhysicalPlan> {
    let job = Job::new("rescale");
    job.parallelism(parallelism);
    let numbers = Generator::new("numbers", 2, |split, n| Some((2 * n + u64::from(split)) % KEYS));
    let values = job.source::<u64>("numbers", numbers).key_by(|n| *n).aggregate(String::new, |text, n| *text = random_text(*n));
    values.id("values").to_sink("blackhole", out.clone());
    job.plan()
}

fn start(place: &Place, parallelism: u32) -> (Running, Blackhole) {
    let out = Blackhole::default();
    let rows = out.clone();
    (Running::start(place.runner(move || plan(parallelism, &rows))), out)
}

fn main() {
    for (name, memory_per_task) in [("beyond memory", 256 << 20), ("within memory", 8 << 30)] {
        let mut place = Place::default();
        place.settings.checkpoint.interval = Duration::from_secs(20);
        place.settings.memory_per_task = memory_per_task;
        let (job, out) = start(&place, 1);
        job.until("every key has a value", || out.rows() >= KEYS);
        let status = job.runner().status();
        job.stop();
        let bytes = status.get().checkpoint_bytes as f64;

        let (job, out) = start(&place, 2);
        let took = job.until("the first row", || out.rows() > 0);
        let memory = rss();
        job.stop();
        figure(&format!("rescale: {name}, state"), bytes / 1e9, "GB", Target::None);
        figure(&format!("rescale: {name}, 2 GB, one task to two"), took.as_secs_f64() * 2e9 / bytes, "s", Target::Below(20.0));
        figure(&format!("rescale: {name}, memory after"), memory as f64 / 1e6, "MB", Target::None);
    }
}
