//! A whole job in one thread under one seed: tasks, driver and background work, a step at a time.
//!
//! The seed picks who moves next. Virtual time moves a little with every step, and more when nobody can move. A crash drops everything in memory, and of the
//! machine's files what was not synced; the next start recovers as a real process would.
//!
//! Invariant: same seed, same plan, same calls: same trace.

use super::SimMachine;
use crate::checkpoint::JobLock;
use crate::error::{Error, Result};
use crate::graph::PhysicalPlan;
use crate::record::BarrierKind;
use crate::runtime::{JobControl, JobRunner, Outcome, Settings, SimExecution, SimStep, StatusCell};
use crate::state::{MemoryStores, TieredStores};
use std::sync::Arc;
use std::time::Duration;

/// What a step costs in virtual time.
const STEP: Duration = Duration::from_micros(100);
/// How far virtual time moves when nobody can move.
const TICK: Duration = Duration::from_millis(1);

/// One job on a simulated machine.
pub struct SimJob {
    machine: SimMachine,
    make: Box<dyn Fn() -> JobRunner>,
    running: Option<Running>,
    trace: Trace,
}

struct Running {
    execution: SimExecution,
    control: JobControl,
    status: StatusCell,
    _lock: JobLock,
    /// The runner outlives its execution.
    _runner: JobRunner,
}

/// A running hash of every step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace(u64);

impl Trace {
    fn add(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(17);
    }
}

impl SimJob {
    /// A job that has not started.
    pub fn new(machine: SimMachine, settings: Settings, plan: impl Fn() -> Result<PhysicalPlan> + Send + Sync + 'static) -> Self {
        let (env, plan) = (machine.env(), Arc::new(plan));
        let make = move || {
            let stores = Arc::new(TieredStores::new(&env, Arc::new(MemoryStores::new(env.clone()))));
            JobRunner::new(env.clone(), stores, plan.clone(), settings.clone())
        };
        SimJob { machine, make: Box::new(make), running: None, trace: Trace(0xCBF2_9CE4_8422_2325) }
    }

    /// Starts the process: lock, recovery, tasks.
    ///
    /// # Errors
    /// As [`JobRunner::run`].
    pub fn start(&mut self) -> Result<()> {
        let runner = (self.make)();
        let lock = runner.lock()?;
        let machine = self.machine.clone();
        let mut pause = |d: Duration| {
            machine.advance(d);
            while machine.run_background() {}
            Ok(())
        };
        let execution = SimExecution::recover(&runner, &mut pause)?;
        let (control, status) = (runner.control(), runner.status());
        self.running = Some(Running { execution, control, status, _lock: lock, _runner: runner });
        Ok(())
    }

    /// Asks for a graceful stop.
    pub fn stop(&self) {
        if let Some(running) = &self.running {
            running.control.stop();
        }
    }

    /// Takes up to `steps` steps; `Some` when the job has ended.
    ///
    /// # Errors
    /// What failed the attempt; `start` it again for a restart.
    pub fn run(&mut self, steps: usize) -> Result<Option<Outcome>> {
        let mut quiet = 0;
        for _ in 0..steps {
            let Some(running) = &mut self.running else { return Err(Error::fatal("the simulated job is not running: call start")) };
            let tasks = running.execution.tasks();
            let pick = self.machine.choose(tasks + 2);
            self.trace.add(pick as u64);
            self.machine.advance(STEP);
            let moved = if pick < tasks {
                running.execution.step_task(pick)
            } else if pick == tasks {
                self.machine.run_background()
            } else {
                match running.execution.step_driver() {
                    SimStep::Running => false,
                    SimStep::Finished(kind) => {
                        self.running = None;
                        return Ok(Some(if kind == BarrierKind::Final { Outcome::Finished } else { Outcome::Stopped }));
                    }
                    SimStep::Failed(e) => {
                        self.running = None;
                        return Err(e);
                    }
                }
            };
            self.trace.add(u64::from(moved));
            quiet = if moved { 0 } else { quiet + 1 };
            if quiet > 2 * (tasks + 2) {
                self.machine.advance(TICK);
            }
        }
        Ok(None)
    }

    /// The process dies where it stands, and the machine with it.
    pub fn crash(&mut self) {
        self.running = None;
        self.machine.crash();
        self.trace.add(u64::MAX);
    }

    /// Whether a process is running.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Where the job stands, for the message of a test that waits in vain.
    pub fn describe(&self) -> String {
        let Some(running) = &self.running else { return "not running".into() };
        format!("{:?}; {}", running.status.get(), running.execution.describe())
    }

    /// The hash of every step so far.
    pub fn trace(&self) -> Trace {
        self.trace
    }
}
