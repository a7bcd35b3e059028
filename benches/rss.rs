//! Does memory stay flat over a long run?
//!
//! Fifty million events through a keyed sliding window with a checkpoint each second, all in this process; its resident set
//! after each ten million.

use std::sync::{Arc, Mutex};
use std::time::Duration;
use waterwheel::connectors::blackhole::Blackhole;
use waterwheel::connectors::generator::{Generator, Random};
use waterwheel::engine::dsl::{Job, Merge, OutOfOrder, secs};
use waterwheel::engine::error::Result;
use waterwheel::engine::graph::PhysicalPlan;
use waterwheel::engine::windowing::Sliding;
use waterwheel::prelude::{Deserialize, Serialize};
use waterwheel_benches::job::{Place, Running};
use waterwheel_benches::meter::{Target, figure, millions, rss};

const EVENTS: u64 = 50_000_000;
const EACH: u64 = 10_000_000;
const KEYS: u64 = 100_000;

#[derive(Clone, Default, Serialize, Deserialize)]
struct Activity {
    payments: u64,
    amount: u64,
}

impl Merge for Activity {
    fn merge(&mut self, later: &Self) {
        self.payments += later.payments;
        self.amount += later.amount;
    }
}

#[derive(Clone)]
struct Payment {
    card: u64,
    amount: u64,
    at_ms: i64,
}

/// Resident bytes after each ten million events.
type Samples = Arc<Mutex<Vec<u64>>>;

fn plan(samples: &Samples) -> Result<PhysicalPlan> {
    let job = Job::new("rss");
    let samples = samples.clone();
    let payments = Generator::new("payments", 1, move |split, n| {
        if n % EACH == EACH - 1 {
            samples.lock().expect("nobody panics while it is locked").push(rss());
        }
        let mut random = Random::of(11, split, n);
        Some(Payment { card: random.below(KEYS), amount: random.below(1000), at_ms: (n / 500) as i64 })
    });
    job.source::<Payment>("payments", payments.count(EVENTS))
        .event_time(|p| p.at_ms, OutOfOrder::by(secs(1)))
        .key_by(|p| p.card)
        .window(Sliding::of(secs(10)).every(secs(1)))
        .aggregate(Activity::default, |a, p| {
            a.payments += 1;
            a.amount += p.amount;
        })
        .to_sink("blackhole", Blackhole::default());
    job.plan()
}

fn main() {
    let mut place = Place::default();
    place.settings.checkpoint.interval = Duration::from_secs(1);
    let samples = Samples::default();
    let sampled = samples.clone();
    let (spent, _) = Running::start(place.runner(move || plan(&sampled))).wait();
    let samples = samples.lock().expect("the job is over").clone();
    for (at, bytes) in samples.iter().enumerate() {
        figure(&format!("rss: at {} M events", 10 * (at + 1)), *bytes as f64 / 1e6, "MB", Target::None);
    }
    // The first checkpoints fill RocksDB's buffers and the allocator's pools; a leak shows behind them.
    let (early, late) = (samples[2] as f64, samples[4] as f64);
    figure("rss: growth from 30 M to 50 M", 100.0 * (late / early - 1.0), "%", Target::Below(10.0));
    figure("rss: the job, checkpoints each second", millions(EVENTS, spent.cpu), "M events per CPU-second", Target::None);
}
