//! The life of a job: lock, attempt after attempt, until it is finished or beyond help.
//!
//! Shutdown of an attempt, in order: the driver ends (finished or failed); `cancel` is raised and every worker woken; each worker
//! drops its tasks and says so; only then may the next attempt begin, so that two attempts of one process never run at once.
//!
//! Invariant: an error that only a person can mend ends the job at once; any other one restarts it from the newest checkpoint,
//! a bounded number of times within a window.

use super::attempt::{Execution, recover};
use super::control::JobControl;
use super::driver::Ended;
use super::settings::Settings;
use super::status::{Phase, StatusCell};
use super::task::Task;
use super::worker::{self, Bell};
use crate::checkpoint::JobLock;
use crate::env::Env;
use crate::error::{Error, Kind, Result};
use crate::exchange::Waker;
use crate::graph::PhysicalPlan;
use crate::observe::Metrics;
use crate::record::BarrierKind;
use crate::state::StateStores;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Makes the plan anew for every attempt.
pub type PlanFactory = Arc<dyn Fn() -> Result<PhysicalPlan> + Send + Sync>;

/// Tries in a row that failed because the outside is away, and since when.
type Waits = (u32, Option<Duration>);

/// How a job ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Stopped as asked; it resumes exactly here.
    Stopped,
    /// Its bounded input is worked off and all output is published.
    Finished,
    /// Ended at once as asked; the next run goes back to the newest checkpoint.
    Killed,
}

/// Runs one job in this process.
pub struct JobRunner {
    pub(crate) env: Env,
    pub(crate) stores: Arc<dyn StateStores>,
    pub(crate) plan: PlanFactory,
    pub(crate) settings: Settings,
    pub(crate) metrics: Metrics,
    pub(crate) status: StatusCell,
    pub(crate) control: JobControl,
    /// Name of the lineage that begins if one does: one per process, so that a restart within it does not fork again.
    pub(crate) lineage: String,
    /// Attempts of this process. A restart goes on only if the job's newest attempt is one of them: else another process has
    /// taken the job over, and this one must not take it back.
    pub(crate) attempts: Mutex<Vec<String>>,
}

impl JobRunner {
    /// A job that is not running yet. `stores` keeps its state ([`crate::state::RocksStores`], or the ordered map in tests).
    pub fn new(env: Env, stores: Arc<dyn StateStores>, plan: PlanFactory, settings: Settings) -> Self {
        let lineage = env.fresh_id();
        JobRunner {
            env,
            stores,
            plan,
            settings,
            metrics: Metrics::default(),
            status: StatusCell::default(),
            control: JobControl::default(),
            lineage,
            attempts: Mutex::default(),
        }
    }

    /// To stop it, or to ask for savepoints.
    pub fn control(&self) -> JobControl {
        self.control.clone()
    }

    /// Its metrics.
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Its status.
    pub fn status(&self) -> StatusCell {
        self.status.clone()
    }

    pub(crate) fn folder(&self, job: &str) -> PathBuf {
        self.settings.checkpoints.join(job)
    }

    /// Notes a new attempt of this process; fails if `newest`, the attempt that the job log knows, is another process's.
    pub(crate) fn note_attempt(&self, newest: Option<&str>, fresh: &str) -> Result<()> {
        let mut ours = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        match newest {
            // What this process found when it began is no successor of it.
            Some(newest) if ours.is_empty() => ours.push(newest.to_string()),
            Some(newest) if !ours.iter().any(|a| a == newest) => {
                return Err(Error::fatal("another process has taken the job over")
                    .help("nothing to do if that was meant; else stop the other process and run again"));
            }
            _ => {}
        }
        ours.push(fresh.to_string());
        Ok(())
    }

    /// Takes the job's lock, which dies with its holder.
    pub(crate) fn lock(&self) -> Result<JobLock> {
        let job = (self.plan)()?.job;
        JobLock::acquire(&self.env, &self.folder(&job), &job, std::process::id(), self.settings.take_over)
    }

    /// A killed process holds its lock until the system has taken it apart, so a refusal counts only after a moment.
    fn lock_patiently(&self) -> Result<JobLock> {
        let bell = Bell::default();
        for _ in 0..20 {
            match self.lock() {
                Err(e) if e.kind() == Kind::Fatal && !self.control.is_stopping() => bell.wait(Duration::from_millis(100)),
                result => return result,
            }
        }
        self.lock()
    }

    /// Runs until the job is stopped, finished or beyond help. Blocks.
    ///
    /// # Errors
    /// With cause, place and remedy: what only a person can mend, or too many restarts.
    pub fn run(&self) -> Result<Outcome> {
        let job = (self.plan)()?.job;
        let _lock = self.lock_patiently()?;
        let mut failures: VecDeque<Duration> = VecDeque::new();
        let mut waits: Waits = (0, None);
        loop {
            let error = match self.attempt() {
                Ok(Ended::Finished(kind)) => {
                    self.status.update(|s| s.phase = Phase::Finished);
                    return Ok(if kind == BarrierKind::Final { Outcome::Finished } else { Outcome::Stopped });
                }
                Ok(Ended::Failed(e)) | Err(e) => e,
            };
            if self.control.is_killed() {
                return Ok(Outcome::Killed);
            }
            self.consider_restart(error.at(format!("job {job}")), &mut failures, &mut waits)?;
        }
    }

    /// Waits a moment before the next attempt, or gives the error back when there shall be none.
    fn consider_restart(&self, error: Error, failures: &mut VecDeque<Duration>, waits: &mut Waits) -> Result<()> {
        if error.kind() == Kind::Fatal {
            return Err(error);
        }
        if error.kind() == Kind::Transient {
            return self.wait_for_the_outside(error, waits);
        }
        *waits = (0, None);
        let now = self.env.clock.monotonic();
        failures.push_back(now);
        while failures.front().is_some_and(|t| now.saturating_sub(*t) > self.settings.restart_window) {
            failures.pop_front();
        }
        if failures.len() > self.settings.max_restarts {
            let window = crate::observe::human_duration(self.settings.restart_window);
            return Err(error.at(format!("restarted {} times within {window}", failures.len() - 1)));
        }
        tracing::warn!(error = %error.report(), "the job restarts from its newest checkpoint");
        self.status.update(|s| {
            s.restarts += 1;
            s.phase = Phase::Restarting { reason: error.to_string() };
        });
        let bell = Arc::new(Bell::default());
        self.control.attach(bell.waker());
        bell.wait(Duration::from_millis(100) * failures.len() as u32);
        Ok(())
    }

    /// The outside is away (a full disk, say): tries again after a pause that grows, as long as the deadline allows.
    fn wait_for_the_outside(&self, error: Error, (tries, since): &mut Waits) -> Result<()> {
        let now = self.env.clock.monotonic();
        // A long while of running well in between makes it another trouble.
        if self.status.get().checkpoint_at > since.unwrap_or(now) {
            (*tries, *since) = (0, None);
        }
        let since = *since.get_or_insert(now);
        if self.settings.transient_deadline.is_some_and(|d| now.saturating_sub(since) > d) {
            return Err(error.help("mend the cause and run again; the last checkpoint is safe"));
        }
        *tries += 1;
        tracing::warn!(error = %error.report(), "waiting for the outside; the job goes on from its newest checkpoint");
        self.status.update(|s| s.phase = Phase::Restarting { reason: error.to_string() });
        let bell = Arc::new(Bell::default());
        self.control.attach(bell.waker());
        bell.wait(super::chores::backoff(*tries));
        if self.control.is_stopping() {
            return Err(error.help("it was asked to stop while it waited; the last checkpoint is safe"));
        }
        Ok(())
    }

    fn attempt(&self) -> Result<Ended> {
        let workers = self.settings.workers.max(1);
        let bells: Vec<Arc<Bell>> = (0..workers).map(|_| Arc::new(Bell::default())).collect();
        let wakers: Vec<Waker> = bells.iter().map(Bell::waker).collect();
        let bell = Arc::new(Bell::default());
        self.control.attach(bell.waker());
        let pause_bell = bell.clone();
        let mut pause = |d: Duration| {
            pause_bell.wait(d);
            if self.control.is_stopping() || self.control.is_killed() {
                return Err(Error::fatal("stopped while it waited for the outside").help("run it again when the outside is back"));
            }
            Ok(())
        };
        let Execution { tasks, mut driver, work } = recover(self, &wakers, &bell.waker(), &mut pause)?;
        let mut shares: Vec<Vec<Task>> = (0..workers).map(|_| Vec::new()).collect();
        for assembled in tasks {
            shares[assembled.worker % workers].push(assembled.task);
        }
        let threads = Threads::start(&self.env, shares, &bells, &bell);
        let ended = loop {
            if let Some(ended) = driver.step() {
                break ended;
            }
            if self.control.is_killed() {
                break Ended::Failed(Error::restart("killed as asked"));
            }
            let now = self.env.clock.monotonic();
            bell.wait(driver.next_wake(now).saturating_sub(now));
        };
        threads.stop(&bells, &bell)?;
        drop(driver);
        // Working files are of no use to anybody; the next start removes them if this fails.
        let _ = self.env.files.remove_dir_all(&work);
        Ok(ended)
    }
}

/// The worker threads of one attempt.
struct Threads {
    cancel: Arc<AtomicBool>,
    alive: Arc<AtomicUsize>,
}

impl Threads {
    fn start(env: &Env, shares: Vec<Vec<Task>>, bells: &[Arc<Bell>], driver: &Arc<Bell>) -> Self {
        let cancel = Arc::new(AtomicBool::new(false));
        let alive = Arc::new(AtomicUsize::new(shares.len()));
        for (i, (share, bell)) in shares.into_iter().zip(bells).enumerate() {
            let (env_, bell, cancel, alive, driver) = (env.clone(), bell.clone(), cancel.clone(), alive.clone(), driver.clone());
            let run = move || {
                worker::run(&env_, share, &bell, &cancel);
                alive.fetch_sub(1, Ordering::SeqCst);
                driver.ring();
            };
            env.background.run(&format!("worker-{i}"), Box::new(run));
        }
        Threads { cancel, alive }
    }

    /// Raises `cancel` and waits for every worker.
    fn stop(self, bells: &[Arc<Bell>], driver: &Bell) -> Result<()> {
        self.cancel.store(true, Ordering::SeqCst);
        for _ in 0..600 {
            bells.iter().for_each(|b| b.ring());
            if self.alive.load(Ordering::SeqCst) == 0 {
                return Ok(());
            }
            driver.wait(Duration::from_millis(50));
        }
        Err(Error::fatal("a task did not end within 30 s: a user function that never returns?")
            .help("see which operator is busy in the status; the last checkpoint is safe, run again"))
    }
}
