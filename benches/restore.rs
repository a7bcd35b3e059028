//! How long after its start does a job with 1 GB of state work again?
//!
//! Four million values of 256 random characters; the clock runs from the start of the second run to its first row out: lock,
//! log, verification of every file, restore, first batch. Once beyond the memory budget, so that RocksDB holds them and values
//! are read when they are needed; once within it, so that all are read into memory.

use std::time::Duration;
use waterwheel::connectors::blackhole::Blackhole;
use waterwheel::connectors::generator::Generator;
use waterwheel::engine::dsl::Job;
use waterwheel::engine::error::Result;
use waterwheel::engine::graph::PhysicalPlan;
use waterwheel_benches::job::{Place, Running};
use waterwheel_benches::meter::{Target, figure};
use waterwheel_benches::values::random_text;

const KEYS: u64 = 4_000_000;

fn plan(out: &Blackhole) -> Result<PhysicalPlan> {
    let job = Job::new("restore");
    let numbers = Generator::new("numbers", 1, |_, n| Some(n % KEYS));
    let values = job.source::<u64>("numbers", numbers).key_by(|n| *n).aggregate(String::new, |text, n| *text = random_text(*n));
    values.id("values").to_sink("blackhole", out.clone());
    job.plan()
}

fn start(place: &Place) -> (Running, Blackhole) {
    let out = Blackhole::default();
    let rows = out.clone();
    (Running::start(place.runner(move || plan(&rows))), out)
}

fn main() {
    for (name, memory_per_task) in [("beyond memory", 256 << 20), ("into memory", 8 << 30)] {
        let mut place = Place::default();
        place.settings.checkpoint.interval = Duration::from_secs(20);
        place.settings.memory_per_task = memory_per_task;
        restore(name, &place);
    }
}

fn restore(name: &str, place: &Place) {
    let (job, out) = start(place);
    job.until("every key has a value", || out.rows() >= KEYS);
    let status = job.runner().status();
    job.stop();
    let bytes = status.get().checkpoint_bytes;

    let (job, out) = start(place);
    let took = job.until("the first row", || out.rows() > 0);
    let recovery = job.runner().status().get().recovery;
    job.stop();
    let per_gb = took.as_secs_f64() * 1e9 / bytes as f64;
    figure(&format!("restore: {name}, state"), bytes as f64 / 1e9, "GB", Target::None);
    figure(&format!("restore: {name}, verified and opened after"), recovery.as_secs_f64(), "s", Target::None);
    figure(&format!("restore: {name}, 1 GB, start to first row"), per_gb, "s", Target::Below(10.0));
}
