//! What does a checkpoint upload of state that hardly changes?
//!
//! State larger than memory, values of 256 random characters. First the one checkpoint after one key in a hundred has changed,
//! then the mean over fifty such checkpoints one after the other, so that files which compaction has written anew count.
//! `--gb N` takes more than 2 GB of state; disk is needed for some three times as much.
#![expect(clippy::disallowed_methods, reason = "a bench is no part of a job: it looks into the folder itself")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use waterwheel::connectors::blackhole::Blackhole;
use waterwheel::connectors::generator::{Generator, Random};
use waterwheel::engine::dsl::Job;
use waterwheel::engine::error::Result;
use waterwheel::engine::graph::PhysicalPlan;
use waterwheel_benches::job::{Place, Stepper};
use waterwheel_benches::meter::{Target, figure, rss};
use waterwheel_benches::values::{VALUE, random_text};

const CHECKPOINTS: u32 = 50;

fn plan(keys: u64, out: &Blackhole) -> Result<PhysicalPlan> {
    let job = Job::new("incremental");
    let numbers = Generator::new("numbers", 1, move |split, n| Some(if n < keys { n } else { Random::of(4, split, n).below(keys) }));
    let texts = job.source::<u64>("numbers", numbers).key_by(|n| *n).aggregate(
        || (0u64, String::new()),
        |(changes, text), n| {
            *changes += 1;
            *text = random_text(*n ^ *changes << 40);
        },
    );
    texts.id("texts").to_sink("blackhole", out.clone());
    job.plan()
}

/// Every file of the checkpoint folder that was ever seen, with its bytes.
#[derive(Default)]
struct Uploaded(BTreeMap<PathBuf, u64>);

impl Uploaded {
    /// Bytes of files that were not there before.
    fn new_below(&mut self, path: &Path) -> u64 {
        let Ok(entries) = std::fs::read_dir(path) else {
            let bytes = std::fs::metadata(path).map_or(0, |m| m.len());
            return if self.0.insert(path.to_path_buf(), bytes).is_none() { bytes } else { 0 };
        };
        entries.flatten().map(|e| self.new_below(&e.path())).sum()
    }
}

/// N of `--gb N`; 2 if it is not said.
fn gigabytes() -> u64 {
    let arguments: Vec<String> = std::env::args().collect();
    let said = arguments.iter().position(|a| a == "--gb").and_then(|at| arguments.get(at + 1)?.parse().ok());
    said.unwrap_or(2)
}

fn main() {
    let keys = gigabytes() * 1_000_000_000 / VALUE as u64;
    let mut place = Place::default();
    place.settings.checkpoint.interval = Duration::from_secs(3600);
    let out = Blackhole::default();
    let rows = out.clone();
    let mut job = Stepper::new(place.runner(move || plan(keys, &rows)), out);
    let mut uploaded = Uploaded::default();
    let mut checkpoint = |job: &mut Stepper, n: u32| {
        let savepoint = place.folder().join(format!("savepoint-{n}"));
        let took = job.checkpoint(&savepoint.display().to_string()).wall;
        std::fs::remove_dir_all(&savepoint).expect("the savepoint can go");
        (uploaded.new_below(&place.settings.checkpoints), took)
    };

    job.pass_rows(keys);
    checkpoint(&mut job, 0);
    let state = job.runner().status().get().checkpoint_bytes;
    let share = |bytes: u64| 100.0 * bytes as f64 / state as f64;
    figure("incremental: state", state as f64 / 1e9, "GB", Target::None);
    let (mut sum, mut worst) = (0, 0);
    for n in 1..=CHECKPOINTS {
        job.pass_rows(keys / 100);
        let (bytes, took) = checkpoint(&mut job, n);
        if n == 1 {
            figure("incremental: first after 1 % of the keys changed, uploads", share(bytes), "% of state", Target::Below(3.0));
            figure("incremental: first, from request to complete", took.as_secs_f64(), "s", Target::None);
        }
        (sum, worst) = (sum + bytes, worst.max(bytes));
    }
    figure("incremental: mean over 50, compaction included", share(sum / u64::from(CHECKPOINTS)), "% of state", Target::None);
    figure("incremental: most of 50", share(worst), "% of state", Target::None);
    figure("incremental: memory", rss() as f64 / 1e6, "MB", Target::None);
}
