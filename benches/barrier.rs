//! How long does a barrier stop a task that has five million dirty keys?
//!
//! First the freeze of the table alone. Then a whole job, its tasks stepped by hand so that every step is timed: the pause is
//! the longest step from the barrier to the complete checkpoint, with rows coming in all the while. Last, what a checkpoint
//! costs in bytes when one key in a hundred has changed.
#![expect(clippy::disallowed_methods, reason = "a bench is no part of a job: it times steps itself")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use waterwheel::connectors::blackhole::Blackhole;
use waterwheel::connectors::generator::{Generator, Random};
use waterwheel::engine::dsl::Job;
use waterwheel::engine::error::Result;
use waterwheel::engine::graph::PhysicalPlan;
use waterwheel::engine::record::Keys;
use waterwheel::engine::state::{MemoryStore, PointTable, Table, TableContext};
use waterwheel_benches::job::{Place, Stepper, Stretch};
use waterwheel_benches::meter::{Target, figure};
use waterwheel_benches::node::KEY_GROUPS;

const KEYS: u64 = 5_000_000;
const BATCH: u64 = 4096;

/// The key numbered `n`, spread over all numbers.
fn key(n: u64) -> u64 {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn main() {
    let freeze = freeze_alone();
    figure("barrier: freeze of 5 M dirty keys", freeze.as_secs_f64() * 1e3, "ms", Target::Below(100.0));
    whole_job();
}

fn freeze_alone() -> Duration {
    let mut table = PointTable::<u64>::new("counts");
    let store = Arc::new(MemoryStore::default());
    let context = TableContext { operator: "counts".into(), store, groups: 0..KEY_GROUPS, max_parallelism: KEY_GROUPS };
    table.open(&context, false).expect("an empty table opens");
    let mut slots = Vec::new();
    for first in (0..KEYS).step_by(BATCH as usize) {
        let keys: Vec<u64> = (first..(first + BATCH).min(KEYS)).map(key).collect();
        table.resolve(&Keys::encode(keys.into_iter()), &mut slots).expect("the map has no errors");
        slots.iter().for_each(|&slot| *table.get_mut(slot) = Some(1));
    }
    let start = Instant::now();
    table.freeze(1);
    start.elapsed()
}

/// Which keys the rows have: 0 = each in turn, 1 = any, 2 = one in a hundred.
type Phase = Arc<AtomicU64>;

fn plan(phase: &Phase, out: &Blackhole) -> Result<PhysicalPlan> {
    let job = Job::new("barrier");
    let phase = phase.clone();
    let numbers = Generator::new("numbers", 1, move |split, n| {
        let mut random = Random::of(1, split, n);
        Some(key(match phase.load(Relaxed) {
            0 => n % KEYS,
            1 => random.below(KEYS),
            _ => random.below(KEYS / 100),
        }))
    });
    let counts = job.source::<u64>("numbers", numbers).key_by(|n| *n).aggregate(|| 0u64, |count, _| *count += 1);
    counts.id("counts").to_sink("blackhole", out.clone());
    job.plan()
}

fn whole_job() {
    let mut place = Place::default();
    place.settings.checkpoint.interval = Duration::from_secs(3600);
    place.settings.memory_per_task = 4 << 30;
    let (phase, out) = (Phase::default(), Blackhole::default());
    let (plan_phase, plan_out) = (phase.clone(), out.clone());
    let mut job = Stepper::new(place.runner(move || plan(&plan_phase, &plan_out)), out);
    let savepoint = |n: u32| place.folder().join(format!("savepoint-{n}")).display().to_string();

    job.pass_rows(KEYS);
    phase.store(1, Relaxed);
    let usual = job.pass_rows(KEYS);
    let first = job.checkpoint(&savepoint(1));
    let per_second = |s: &Stretch| s.rows as f64 / 1e6 / s.wall.as_secs_f64();
    figure("barrier: longest step without one", usual.longest.as_secs_f64() * 1e3, "ms", Target::None);
    figure("barrier: pause with 5 M dirty keys, CPU time of it", first.longest_cpu.as_secs_f64() * 1e3, "ms", Target::None);
    figure("barrier: pause with 5 M dirty keys", first.longest.as_secs_f64() * 1e3, "ms", Target::Below(100.0));
    figure("barrier: from request to complete", first.wall.as_secs_f64(), "s", Target::None);
    figure("barrier: rows meanwhile, of the usual rate", 100.0 * per_second(&first) / per_second(&usual), "%", Target::None);

    phase.store(2, Relaxed);
    job.checkpoint(&savepoint(2)); // takes what phase 1 has changed
    let full = place.checkpoint_bytes();
    job.pass_rows(KEYS / 10);
    job.checkpoint(&savepoint(3));
    let all = job.runner().status().get().checkpoint_bytes;
    let added = place.checkpoint_bytes().saturating_sub(full);
    figure("barrier: bytes in the checkpoint", all as f64 / 1e6, "MB", Target::None);
    figure("barrier: bytes new in it, 1 % of keys changed", added as f64 / 1e6, "MB", Target::None);
}
