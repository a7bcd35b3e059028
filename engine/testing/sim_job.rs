//! A whole job in one thread under one seed: tasks, driver and background work, a step at a time.
//!
//! The seed picks who moves next. Virtual time moves a little with every step, and more when nobody can move. A crash drops
//! everything in memory, and of the machine's files what was not synced; the next start recovers as a real process would.
//! What a failed attempt has left in the background still runs beside the next one, as it does on threads.
//!
//! Invariant: same seed, same plan, same calls: same trace.

use super::SimMachine;
use super::sim_store::SimStores;
use crate::checkpoint::JobLock;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::graph::PhysicalPlan;
use crate::record::BarrierKind;
use crate::runtime::{JobControl, JobRunner, Outcome, PlanFactory, Settings, SimExecution, SimStep};
use crate::state::{MemoryStores, StateStores, TieredStores};
use std::sync::Arc;
use std::time::Duration;

/// What a step costs in virtual time.
const STEP: Duration = Duration::from_micros(100);
/// How far virtual time moves when nobody can move.
const TICK: Duration = Duration::from_millis(1);
/// Those that fall behind give way in all but one of so many turns.
const GIVES_WAY: usize = 16;
/// After so many steps, on the mean, others fall behind.
const FALL_BEHIND: usize = 250;

/// One job on a simulated machine.
pub struct SimJob {
    machine: SimMachine,
    plan: PlanFactory,
    settings: Settings,
    process: Option<Process>,
    trace: Trace,
    quiet: usize,
    complete: u64,
    shares_files: bool,
    /// Who falls behind at present, a bit each: rare orders come from somebody who is slow for long, not from coins.
    slow: usize,
}

/// A process that runs the job, or has failed to.
struct Process {
    execution: Option<SimExecution>,
    /// The runner outlives its executions.
    runner: JobRunner,
    _lock: JobLock,
}

/// A running hash of every step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace(pub u64);

impl Trace {
    /// Adds what happened next.
    pub fn add(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(17);
    }
}

impl Drop for SimJob {
    /// What waits in the background holds the machine that it waits on.
    fn drop(&mut self) {
        self.process = None;
        self.machine.kill();
    }
}

impl SimJob {
    /// A job that has not started.
    pub fn new(machine: SimMachine, settings: Settings, plan: impl Fn() -> Result<PhysicalPlan> + Send + Sync + 'static) -> Self {
        let trace = Trace(0xCBF2_9CE4_8422_2325);
        SimJob { machine, plan: Arc::new(plan), settings, process: None, trace, quiet: 0, complete: 0, shares_files: false, slow: 0 }
    }

    /// State is kept in a store whose snapshots share files, in place of the ordered map.
    #[must_use]
    pub fn with_shared_files(mut self, yes: bool) -> Self {
        self.shares_files = yes;
        self
    }

    /// What keeps the job's state, for a process with that environment or for somebody who looks at it.
    pub fn stores(&self, env: &Env) -> Arc<dyn StateStores> {
        match self.shares_files {
            true => Arc::new(SimStores(env.clone())),
            false => Arc::new(TieredStores::new(env, Arc::new(MemoryStores::new(env.clone())))),
        }
    }

    /// What the next process is started with.
    pub fn settings(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// Starts a process: lock, recovery, tasks. One that was there is gone first.
    ///
    /// # Errors
    /// As [`JobRunner::run`]; also when the process dies on the way ([`SimMachine::has_died`]).
    pub fn start(&mut self) -> Result<()> {
        self.process = None;
        let env = self.machine.env();
        let stores = self.stores(&env);
        let runner = JobRunner::new(env, stores, self.plan.clone(), self.settings.clone());
        let lock = runner.lock()?;
        self.process = Some(Process { execution: None, runner, _lock: lock });
        self.restart()
    }

    /// The process begins another attempt, as it does when one has failed.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn restart(&mut self) -> Result<()> {
        let machine = self.machine.clone();
        let mut pause = |d: Duration| {
            machine.advance(d);
            while machine.run_background() {}
            if machine.has_died() { Err(Error::restart("the process died")) } else { Ok(()) }
        };
        let Some(process) = &mut self.process else { return Err(not_running()) };
        process.execution = None;
        self.quiet = 0;
        process.execution = Some(SimExecution::recover(&process.runner, &mut pause)?);
        self.slow = some_bits(&machine);
        Ok(())
    }

    /// Asks for a graceful stop.
    pub fn stop(&self) {
        if let Some(control) = self.control() {
            control.stop();
        }
    }

    /// To ask things of the process.
    pub fn control(&self) -> Option<JobControl> {
        self.process.as_ref().map(|p| p.runner.control())
    }

    /// Takes up to `steps` steps; `Some` when the job has ended. Ends early when the process dies.
    ///
    /// # Errors
    /// What failed the attempt; `start` it again for a new process, or [`restart`](Self::restart) for a new attempt.
    pub fn run(&mut self, steps: usize) -> Result<Option<Outcome>> {
        for _ in 0..steps {
            let ended = self.step();
            if self.machine.has_died() {
                self.process = None;
                return Ok(None);
            }
            if let Some(outcome) = ended? {
                return Ok(Some(outcome));
            }
        }
        Ok(None)
    }

    fn step(&mut self) -> Result<Option<Outcome>> {
        let Some(Process { execution: Some(execution), runner, .. }) = &mut self.process else { return Err(not_running()) };
        let tasks = execution.tasks();
        // The tasks, the background work, and the driver.
        let movers = tasks + 2;
        if self.machine.choose(FALL_BEHIND) == 0 {
            self.slow = some_bits(&self.machine);
        }
        let mut pick = self.machine.choose(movers);
        if (self.slow >> (pick % 32)) & 1 == 1 && self.machine.choose(GIVES_WAY) > 0 {
            pick = self.machine.choose(movers);
        }
        self.trace.add(pick as u64);
        self.machine.advance(STEP);
        let moved = if pick < tasks {
            execution.step_task(pick)
        } else if pick == tasks {
            self.machine.run_background()
        } else {
            match execution.step_driver() {
                SimStep::Running => {
                    self.complete = self.complete.max(runner.status().get().checkpoint.unwrap_or(0));
                    false
                }
                SimStep::Finished(kind) => {
                    self.kill();
                    return Ok(Some(if kind == BarrierKind::Final { Outcome::Finished } else { Outcome::Stopped }));
                }
                SimStep::Failed(e) => {
                    if let Some(process) = &mut self.process {
                        process.execution = None;
                    }
                    return Err(e);
                }
            }
        };
        self.trace.add(u64::from(moved));
        self.quiet = if moved { 0 } else { self.quiet + 1 };
        if self.quiet > 2 * movers {
            self.machine.advance(TICK);
        }
        Ok(None)
    }

    /// The process dies where it stands; the machine goes on.
    pub fn kill(&mut self) {
        self.process = None;
        self.machine.kill();
        self.trace.add(u64::MAX - 1);
    }

    /// The process dies where it stands, and the machine with it.
    pub fn crash(&mut self) {
        self.process = None;
        self.machine.crash();
        self.trace.add(u64::MAX);
    }

    /// Whether an attempt is running.
    pub fn is_running(&self) -> bool {
        self.process.as_ref().is_some_and(|p| p.execution.is_some())
    }

    /// Whether there is a process, although its attempt may have failed.
    pub fn has_process(&self) -> bool {
        self.process.is_some()
    }

    /// Checkpoints of this process that failed.
    pub fn failed_checkpoints(&self) -> u64 {
        self.process.as_ref().map_or(0, |process| process.runner.status().get().failed_checkpoints)
    }

    /// Newest epoch that any process saw complete.
    pub fn complete_epoch(&self) -> u64 {
        self.complete
    }

    /// Where the job stands, for the message of a test that waits in vain.
    pub fn describe(&self) -> String {
        match &self.process {
            Some(Process { execution: Some(execution), runner, .. }) => format!("{:?}; {}", runner.status().get(), execution.describe()),
            _ => "not running".into(),
        }
    }

    /// The hash of every step so far.
    pub fn trace(&self) -> Trace {
        self.trace
    }
}

/// A quarter of 32 bits, on the mean.
fn some_bits(machine: &SimMachine) -> usize {
    machine.choose(1 << 32) & machine.choose(1 << 32)
}

fn not_running() -> Error {
    Error::fatal("the simulated job is not running: call start")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dsl::Job;
    use crate::operators::{
        Guarantee, LanePublisher, Poll, PublisherContext, ReaderContext, SegmentRef, Sink, SinkWriter, Source, SourceReader, Split,
        SplitId, SplitState, WriterContext,
    };
    use crate::record::{BatchBox, Epoch, Rows};
    use crate::time::EventTime;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// A table of one row, which comes when it may.
    #[derive(Clone)]
    struct Slow {
        may: Arc<AtomicBool>,
        position: i64,
    }

    impl Source for Slow {
        fn describe(&self) -> String {
            "a slow table".into()
        }
        fn is_bounded(&self) -> bool {
            false
        }
        fn splits(&self, _first: bool) -> Result<Vec<Split>> {
            let id = SplitId { name: "slow".into(), partition: 0 };
            Ok(vec![Split { id, start: 0, end: None, bootstrap_end: Some(1), topic_id: None }])
        }
        fn reader(&self, _: ReaderContext) -> Result<Box<dyn SourceReader>> {
            Ok(Box::new(self.clone()))
        }
    }

    impl SourceReader for Slow {
        fn assign(&mut self, splits: &[SplitState]) -> Result<()> {
            self.position = splits.first().map_or(1, |split| split.position);
            Ok(())
        }
        fn poll(&mut self) -> Result<Poll> {
            if self.position > 0 || !self.may.load(Ordering::SeqCst) {
                return Ok(Poll::Empty);
            }
            self.position = 1;
            let (split, batch) = (SplitId { name: "slow".into(), partition: 0 }, Rows::new(vec![1_i64], vec![EventTime(0)]).boxed());
            Ok(Poll::Batch { split, batch, next: 1 })
        }
    }

    struct Nowhere;

    impl Sink for Nowhere {
        fn describe(&self) -> String {
            "nowhere".into()
        }
        fn guarantee(&self) -> Guarantee {
            Guarantee::AtLeastOnce
        }
        fn lanes(&self) -> u32 {
            0
        }
        fn check(&self) -> Result<()> {
            Ok(())
        }
        fn writer(&self, _: WriterContext) -> Result<Box<dyn SinkWriter>> {
            Ok(Box::new(Nowhere))
        }
        fn lane(&self, _: PublisherContext) -> Result<Box<dyn LanePublisher>> {
            Err(Error::fatal("there are no lanes"))
        }
    }

    impl SinkWriter for Nowhere {
        fn ready(&mut self) -> Result<bool> {
            Ok(true)
        }
        fn write(&mut self, _: BatchBox) -> Result<()> {
            Ok(())
        }
        fn prepare(&mut self, _: Epoch) -> Result<()> {
            Ok(())
        }
        fn prepared(&mut self) -> Result<Option<Vec<SegmentRef>>> {
            Ok(Some(Vec::new()))
        }
    }

    /// While a table is read in, no barrier is tried, so none runs into its timeout; and a stop need not wait.
    #[test]
    fn a_table_that_is_slow_holds_up_neither_a_stop_nor_checkpoints_to_come() {
        let (machine, may) = (SimMachine::new(1), Arc::new(AtomicBool::new(false)));
        let table = Slow { may: may.clone(), position: 1 };
        let mut settings = Settings::default();
        let timeout = Duration::from_millis(300);
        (settings.checkpoint.interval, settings.checkpoint.timeout) = (Duration::from_millis(1), timeout);
        let mut job = SimJob::new(machine.clone(), settings, move || {
            let job = Job::new("job");
            job.source::<i64>("table", table.clone()).to_sink("nowhere", Nowhere);
            job.plan()
        });
        job.start().unwrap();
        let until = machine.now() + 10 * timeout;
        while machine.now() < until {
            assert_eq!(job.run(100).unwrap(), None);
        }
        assert_eq!((job.complete_epoch(), job.failed_checkpoints()), (0, 0), "{}", job.describe());
        job.stop();
        assert_eq!(job.run(5_000).unwrap(), Some(Outcome::Stopped), "{}", job.describe());

        job.start().unwrap();
        assert_eq!(job.run(1_000).unwrap(), None);
        may.store(true, Ordering::SeqCst);
        assert_eq!(job.run(5_000).unwrap(), None);
        assert!(job.complete_epoch() > 1 && job.failed_checkpoints() == 0, "{}", job.describe());
        job.stop();
        assert_eq!(job.run(50_000).unwrap(), Some(Outcome::Stopped), "{}", job.describe());
    }
}
