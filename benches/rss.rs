//! Does memory stay flat over a long run?
//!
//! Fifty million events through a keyed sliding window with a checkpoint each second, all in this process; its resident set
//! at ten million and at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
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
const EARLY: u64 = 10_000_000;
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

fn plan(early: &Arc<AtomicU64>) -> Result<PhysicalPlan> {
    let job = Job::new("rss");
    let early = early.clone();
    let payments = Generator::new("payments", 1, move |split, n| {
        if n == EARLY {
            early.store(rss(), Relaxed);
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
    let early = Arc::<AtomicU64>::default();
    let sampled = early.clone();
    let (spent, _) = Running::start(place.runner(move || plan(&early))).wait();
    let (early, late) = (sampled.load(Relaxed), rss());
    figure("rss: at 10 M events", early as f64 / 1e6, "MB", Target::None);
    figure("rss: at 50 M events", late as f64 / 1e6, "MB", Target::None);
    figure("rss: growth", 100.0 * (late as f64 / early as f64 - 1.0), "%", Target::Below(10.0));
    figure("rss: the job, checkpoints each second", millions(EVENTS, spent.cpu), "M events per CPU-second", Target::None);
}
