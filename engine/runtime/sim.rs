//! The door for the simulator: an attempt whose tasks and driver are stepped from outside.
//!
//! Invariant: the same [`recover`], the same tasks, the same driver as on threads; only the order of steps is the caller's.

use super::attempt::{Execution, recover};
use super::driver::Ended;
use super::job::JobRunner;
use super::task::Step;
use crate::error::{Error, Result};
use crate::exchange::Waker;
use crate::record::BarrierKind;
use std::sync::Arc;
use std::time::Duration;

/// An attempt in the simulator's hands.
pub struct SimExecution(Execution);

/// What a step of the driver led to.
#[derive(Debug)]
pub enum SimStep {
    /// It goes on.
    Running,
    /// Finished, as asked.
    Finished(BarrierKind),
    /// The attempt failed.
    Failed(Error),
}

impl SimExecution {
    /// Recovers; nothing is read yet.
    ///
    /// # Errors
    /// As [`JobRunner::run`].
    pub fn recover(job: &JobRunner, pause: &mut dyn FnMut(Duration) -> Result<()>) -> Result<Self> {
        let nobody: Waker = Arc::new(|| ());
        recover(job, std::slice::from_ref(&nobody), &nobody, pause).map(SimExecution)
    }

    /// Number of tasks.
    pub fn tasks(&self) -> usize {
        self.0.tasks.len()
    }

    /// Steps one task; whether anything moved.
    pub fn step_task(&mut self, task: usize) -> bool {
        self.0.tasks[task].task.step() == Step::Progress
    }

    /// What the coordinator waits for.
    pub fn describe(&self) -> String {
        let coordinator = &self.0.driver.coordinator;
        format!("barrier under way: {:?}, not answered by {:?}", coordinator.under_way(), coordinator.waiting_for())
    }

    /// Steps the driver.
    pub fn step_driver(&mut self) -> SimStep {
        match self.0.driver.step() {
            None => SimStep::Running,
            Some(Ended::Finished(kind)) => SimStep::Finished(kind),
            Some(Ended::Failed(e)) => SimStep::Failed(e),
        }
    }
}
