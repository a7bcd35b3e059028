//! What does a checkpoint upload of state that is larger than memory and changes a little at a time?
//!
//! Values of 256 random characters. Once what their load left to be merged has been merged, fifty times one in a hundred of
//! the keys changes, at random, and a checkpoint follows: what it uploads is set against all state. The first one shows what
//! changes cost; in the mean of all those files count which a compaction has written anew. `--gb N` takes more than 2 GB of
//! state; disk is needed for some three times as much.
#![expect(clippy::disallowed_methods, reason = "a bench is no part of a job: it looks into the folder itself")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use waterwheel::connectors::blackhole::Blackhole;
use waterwheel::connectors::generator::{Generator, Random};
use waterwheel::engine::dsl::Job;
use waterwheel::engine::error::Result;
use waterwheel::engine::graph::PhysicalPlan;
use waterwheel::engine::operators::{Poll, ReaderContext, Source, SourceReader, Split, SplitState};
use waterwheel_benches::job::{Place, Running};
use waterwheel_benches::meter::{Target, figure, rss, spent};
use waterwheel_benches::values::{VALUE, random_text};

const CHECKPOINTS: u32 = 50;
/// What the load left is merged after so many rounds of changes at most: as many files as RocksDB lets gather.
const MERGED_AFTER: u32 = 8;
const INTERVAL: Duration = Duration::from_secs(1);

/// Rows that may come, and no more: so that as much changes between two checkpoints as shall.
#[derive(Clone)]
struct Gate {
    numbers: Generator<u64>,
    left: Arc<AtomicU64>,
}

impl Source for Gate {
    fn describe(&self) -> String {
        self.numbers.describe()
    }
    fn is_bounded(&self) -> bool {
        false
    }
    fn splits(&self, first: bool) -> Result<Vec<Split>> {
        self.numbers.splits(first)
    }
    fn reader(&self, context: ReaderContext) -> Result<Box<dyn SourceReader>> {
        Ok(Box::new(GateReader { reader: self.numbers.reader(context)?, left: self.left.clone() }))
    }
}

struct GateReader {
    reader: Box<dyn SourceReader>,
    left: Arc<AtomicU64>,
}

impl SourceReader for GateReader {
    fn assign(&mut self, splits: &[SplitState]) -> Result<()> {
        self.reader.assign(splits)
    }
    fn poll(&mut self) -> Result<Poll> {
        let left = self.left.load(Relaxed);
        if left == 0 {
            return Ok(Poll::Empty);
        }
        let poll = self.reader.poll()?;
        if let Poll::Batch { batch, .. } = &poll {
            self.left.store(left.saturating_sub(batch.len() as u64), Relaxed);
        }
        Ok(poll)
    }
}

fn plan(keys: u64, left: &Arc<AtomicU64>, out: &Blackhole) -> Result<PhysicalPlan> {
    let job = Job::new("incremental");
    let numbers = Generator::new("numbers", 1, move |split, n| Some(if n < keys { n } else { Random::of(4, split, n).below(keys) }));
    let texts = job.source::<u64>("numbers", Gate { numbers, left: left.clone() }).key_by(|n| *n).aggregate(
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
    place.settings.checkpoint.interval = INTERVAL;
    let (left, out) = (Arc::new(AtomicU64::new(keys)), Blackhole::default());
    let gate = left.clone();
    let job = Running::start(place.runner(move || plan(keys, &gate, &out)));
    let mut uploaded = Uploaded::default();
    let mut next = || {
        let before = job.runner().status().get().checkpoint;
        job.until("a checkpoint", || job.runner().status().get().checkpoint > before);
        uploaded.new_below(&place.settings.checkpoints)
    };
    // Bytes that came into the folder by checkpoints since some rows were let in, the last one of which began after them.
    let mut upload_of = |rows: u64| {
        left.store(rows, Relaxed);
        job.until("the rows", || left.load(Relaxed) == 0);
        next() + next()
    };

    upload_of(keys);
    let state = job.runner().status().get().checkpoint_bytes as f64;
    let mut share_of = |rows: u64| 100.0 * upload_of(rows) as f64 / state;
    // The load leaves files to be merged. Those are merged when some changes have come, if not before.
    for _ in 0..MERGED_AFTER {
        while share_of(0) > 0.1 {}
        if share_of(keys / 100) > 3.0 {
            break;
        }
    }
    while share_of(0) > 0.1 {}
    figure("incremental: state", state / 1e9, "GB", Target::None);
    let (spent, mut shares) = spent(|| (0..CHECKPOINTS).map(|_| share_of(keys / 100)).collect::<Vec<f64>>());
    figure("incremental: 1 % of keys changed, first upload", shares[0], "% of state", Target::Below(3.0));
    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
    shares.sort_unstable_by(f64::total_cmp);
    figure("incremental: the same, median of 50", shares[shares.len() / 2], "% of state", Target::None);
    figure("incremental: the same, most of 50", shares[shares.len() - 1], "% of state", Target::None);
    figure("incremental: the same, mean of 50", mean, "% of state", Target::None);
    figure("incremental: 50 times 1 % of keys", spent.wall.as_secs_f64(), "s", Target::None);
    figure("incremental: memory", rss() as f64 / 1e6, "MB", Target::None);
    job.stop();
}
