//! Whole jobs in this process, in a folder that is gone afterwards.
//!
//! Invariant: a job runs as `run` would run it, with journal and RocksDB behind its tables; only terminal and settings files are missing.
#![expect(clippy::disallowed_methods, reason = "a bench is no part of a job: it may wait and start threads")]

use crate::meter::{Spent, spent, thread_cpu};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use waterwheel::connectors::blackhole::Blackhole;
use waterwheel::engine::env::Env;
use waterwheel::engine::error::Result;
use waterwheel::engine::graph::PhysicalPlan;
use waterwheel::engine::runtime::{JobRunner, Outcome, Settings, SimExecution, SimStep};
use waterwheel::engine::state::{RocksSettings, TieredStores};

/// How long anything here may take before the bench gives up.
const LIMIT: Duration = Duration::from_secs(900);

/// Where a job runs, and how.
pub struct Place {
    folder: TempDir,
    /// Its settings; the checkpoints are in the place's folder.
    pub settings: Settings,
    /// Memory of RocksDB.
    pub rocks: RocksSettings,
}

impl Default for Place {
    /// An empty folder, default settings.
    fn default() -> Self {
        let folder = tempfile::Builder::new().prefix("waterwheel-bench-").tempdir().expect("a folder for the bench");
        let settings = Settings { checkpoints: folder.path().join("checkpoints"), ..Settings::default() };
        Place { folder, settings, rocks: RocksSettings::default() }
    }
}

impl Place {
    /// A folder for whatever else the bench writes.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A job that is not running yet.
    pub fn runner(&self, plan: impl Fn() -> Result<PhysicalPlan> + Send + Sync + 'static) -> JobRunner {
        let env = Env::real();
        let stores = Arc::new(TieredStores::on_disk(&env, self.rocks));
        JobRunner::new(env, stores, Arc::new(plan), self.settings.clone())
    }

    /// Bytes in all files of the checkpoint folder.
    pub fn checkpoint_bytes(&self) -> u64 {
        bytes_below(&self.settings.checkpoints)
    }
}

fn bytes_below(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return std::fs::metadata(path).map_or(0, |m| m.len()) };
    entries.flatten().map(|e| bytes_below(&e.path())).sum()
}

/// A job on a thread of its own.
pub struct Running {
    runner: Arc<JobRunner>,
    thread: JoinHandle<(Spent, Result<Outcome>)>,
}

impl Running {
    /// Starts it.
    pub fn start(runner: JobRunner) -> Self {
        let runner = Arc::new(runner);
        let runs = runner.clone();
        let thread = std::thread::spawn(move || spent(|| runs.run()));
        Running { runner, thread }
    }

    /// The job.
    pub fn runner(&self) -> &JobRunner {
        &self.runner
    }

    /// Waits until `holds`; how long that took.
    ///
    /// # Panics
    /// When the job ends before, or nothing happens for a quarter of an hour.
    pub fn until(&self, what: &str, mut holds: impl FnMut() -> bool) -> Duration {
        let start = Instant::now();
        while !holds() {
            assert!(!self.thread.is_finished() || holds(), "the job ended before {what}");
            assert!(start.elapsed() < LIMIT, "waited {LIMIT:?} in vain for {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
        start.elapsed()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it failed.
    pub fn wait(self) -> (Spent, Outcome) {
        let (spent, outcome) = self.thread.join().expect("the job's thread does not panic");
        (spent, outcome.unwrap_or_else(|e| panic!("{}", e.report())))
    }

    /// Asks for a graceful stop and waits for it.
    ///
    /// # Panics
    /// When it failed.
    pub fn stop(self) -> Spent {
        self.runner.control().stop();
        self.wait().0
    }
}

/// A job whose tasks are stepped by hand, so that every step can be timed and a checkpoint comes when it is wanted.
pub struct Stepper {
    execution: SimExecution,
    runner: JobRunner,
    /// Counts the rows that have come out.
    out: Blackhole,
}

/// What a stretch of steps was like.
pub struct Stretch {
    /// The longest step in wall time.
    pub longest: Duration,
    /// The longest step in CPU time: less than in wall time when the machine was busy with others.
    pub longest_cpu: Duration,
    /// All of it, in wall time.
    pub wall: Duration,
    /// Rows that came out meanwhile.
    pub rows: u64,
}

impl Stepper {
    /// A job that has not begun; `out` is its sink.
    ///
    /// # Panics
    /// When it does not start.
    pub fn new(runner: JobRunner, out: Blackhole) -> Self {
        let execution = SimExecution::recover(&runner, &mut |_| Ok(())).expect("a new job starts");
        Stepper { execution, runner, out }
    }

    /// The job.
    pub fn runner(&self) -> &JobRunner {
        &self.runner
    }

    /// Steps all tasks in turn until `done`.
    ///
    /// # Panics
    /// When the job fails or ends.
    pub fn until(&mut self, mut done: impl FnMut(&Self) -> bool) -> Stretch {
        let (start, before) = (Instant::now(), self.out.rows());
        let (mut longest, mut longest_cpu) = (Duration::ZERO, Duration::ZERO);
        while !done(self) {
            for task in 0..self.execution.tasks() {
                let (step, cpu) = (Instant::now(), thread_cpu());
                self.execution.step_task(task);
                longest = longest.max(step.elapsed());
                longest_cpu = longest_cpu.max(thread_cpu() - cpu);
            }
            match self.execution.step_driver() {
                SimStep::Running => {}
                SimStep::Finished(_) => panic!("nobody stops the job"),
                SimStep::Failed(e) => panic!("{}", e.report()),
            }
        }
        Stretch { longest, longest_cpu, wall: start.elapsed(), rows: self.out.rows() - before }
    }

    /// Steps until so many rows more have come out.
    ///
    /// # Panics
    /// When the job fails or ends.
    pub fn pass_rows(&mut self, rows: u64) -> Stretch {
        let to = self.out.rows() + rows;
        self.until(|me| me.out.rows() >= to)
    }

    /// A savepoint is the barrier that can be asked for: steps from the request to its end.
    ///
    /// # Panics
    /// When the job fails or ends.
    pub fn checkpoint(&mut self, path: &str) -> Stretch {
        self.runner.control().savepoint(path);
        self.until(|me| {
            let outcome = me.runner.control().savepoint_outcome(path);
            outcome.map(|o| o.unwrap_or_else(|e| panic!("{e}"))).is_some()
        })
    }
}
