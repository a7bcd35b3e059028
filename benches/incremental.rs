//! What does a checkpoint upload of state that is larger than memory and changes a little at a time?
//!
//! Values of 256 random characters, of which rows of random keys change one after the other; a checkpoint each two seconds.
//! What each uploads is set against the state that changed since the one before: of the first one after what the load left
//! to be compacted has settled, and over fifty, so that files which compaction has written anew count. `--gb N` takes more
//! than 2 GB of state; disk is needed for some three times as much.
#![expect(clippy::disallowed_methods, reason = "a bench is no part of a job: it looks into the folder itself")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use waterwheel::connectors::blackhole::Blackhole;
use waterwheel::connectors::generator::{Generator, Random};
use waterwheel::engine::dsl::Job;
use waterwheel::engine::error::Result;
use waterwheel::engine::graph::PhysicalPlan;
use waterwheel_benches::job::{Place, Running};
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

/// One checkpoint.
#[derive(Clone, Copy)]
struct Upload {
    /// Rows that had come out when it was complete.
    rows: u64,
    /// Bytes of files that no checkpoint had before.
    bytes: u64,
}

fn main() {
    let keys = gigabytes() * 1_000_000_000 / VALUE as u64;
    let mut place = Place::default();
    place.settings.checkpoint.interval = Duration::from_secs(2);
    let out = Blackhole::default();
    let rows = out.clone();
    let job = Running::start(place.runner(move || plan(keys, &rows)));
    let mut uploaded = Uploaded::default();
    let mut next = || {
        let before = job.runner().status().get().checkpoint;
        job.until("a checkpoint", || job.runner().status().get().checkpoint > before);
        Upload { rows: out.rows(), bytes: uploaded.new_below(&place.settings.checkpoints) }
    };

    job.until("every key has a value", || out.rows() >= keys);
    let state = || job.runner().status().get().checkpoint_bytes;
    let mut last = next();
    // The load leaves levels to be merged; checkpoints come meanwhile as they do later.
    let settled = |upload: &Upload| upload.bytes * 50 < state();
    while !settled(&last) && last.rows < 2 * keys {
        last = next();
    }
    let each = state() as f64 / keys as f64;
    figure("incremental: state", state() as f64 / 1e9, "GB", Target::None);
    let (from, mut sum) = (last, 0);
    for n in 0..CHECKPOINTS {
        let upload = next();
        let changed = (upload.rows - last.rows) as f64;
        if n == 0 {
            figure("incremental: first, changed", 100.0 * changed / keys as f64, "% of keys", Target::None);
            figure("incremental: first, uploads of what changed", upload.bytes as f64 / (changed * each), "x", Target::Below(3.0));
        }
        (last, sum) = (upload, sum + upload.bytes);
    }
    let changed = (last.rows - from.rows) as f64;
    figure("incremental: mean over 50, changed", 100.0 * changed / keys as f64 / f64::from(CHECKPOINTS), "% of keys", Target::None);
    figure("incremental: mean over 50, compaction included, uploads of what changed", sum as f64 / (changed * each), "x", Target::None);
    figure("incremental: memory", rss() as f64 / 1e6, "MB", Target::None);
    job.stop();
}
