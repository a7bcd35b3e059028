//! Runs a plan: tasks on worker threads, one driver around them.
//!
//! * `task` is one parallel instance of a chain: a state machine with one `step`.
//! * `worker` steps the tasks of one thread; `assemble` builds the tasks of an attempt from the plan.
//! * `attempt` recovers: it claims the job, settles its output, restores its state.
//! * `driver` runs one attempt: it feeds the checkpoint coordinator with what tasks report and carries out what it answers.
//! * `job` is the life of a job: recover, run an attempt, restart or stop.
//!
//! Invariant: tasks never touch the coordinator and the driver never touches an operator; they talk through `Mailbox` and
//! `Events` only. So the same parts run on threads (`job`) and, one step at a time under a seed, in `testing::SimJob`.

mod assemble;
mod attempt;
mod chores;
mod control;
mod driver;
mod job;
mod keys;
mod settings;
#[cfg(any(test, feature = "testing"))]
mod sim;
mod snapshot;
mod status;
mod task;
mod worker;

pub use attempt::summarize;
pub use control::JobControl;
pub use job::{JobRunner, Outcome, PlanFactory};
pub use settings::Settings;
#[cfg(any(test, feature = "testing"))]
pub use sim::{SimExecution, SimStep};
pub use status::{Phase, Status, StatusCell};

use crate::checkpoint::TaskSnapshot;
use crate::error::Error;
use crate::exchange::Waker;
use crate::operators::{SplitId, SplitState};
use crate::record::{Barrier, Epoch, TaskId};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// What the driver tells a task.
pub(crate) enum Control {
    /// A source lets this barrier in before its next batch.
    Barrier(Barrier),
    /// Splits found while running; `first` is how many the job had before.
    AddSplits {
        /// The new splits.
        found: Vec<SplitState>,
        /// Splits before.
        first: usize,
    },
    /// These splits are gone: a source forgets those of which it has read all.
    Forget(Arc<BTreeSet<SplitId>>),
    /// The checkpoint with these positions is complete.
    Completed(Vec<(SplitId, i64)>),
}

/// What a task tells the driver.
#[derive(Debug)]
pub(crate) enum TaskEvent {
    /// Opened and working.
    Open,
    /// Takes barriers, too: a source has read in what it must before.
    Running(TaskId),
    /// The snapshot of an epoch is complete.
    Acked(TaskId, Epoch, TaskSnapshot),
    /// The snapshot of an epoch was given up, for this reason; the task goes on.
    Declined(TaskId, Epoch, String),
    /// A source has read all there is.
    Ended(TaskId),
    /// A source has forgotten splits that are gone.
    Forgot(TaskId, BTreeSet<SplitId>),
    /// The last barrier's snapshot is complete; the task is closed.
    Done(TaskId),
    /// The outside is away, for this reason; `None`: it is back.
    Waiting(TaskId, Option<String>),
    /// The task is lost.
    Failed(TaskId, Error),
}

/// The way from the driver to one task.
pub(crate) struct Mailbox {
    mail: Mutex<Vec<Control>>,
    waker: Waker,
}

impl Mailbox {
    pub(crate) fn new(waker: Waker) -> Arc<Self> {
        Arc::new(Mailbox { mail: Mutex::default(), waker })
    }

    pub(crate) fn send(&self, control: Control) {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner).push(control);
        (self.waker)();
    }

    pub(crate) fn take(&self) -> Vec<Control> {
        std::mem::take(&mut *self.mail.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The way from the tasks to the driver.
#[derive(Clone)]
pub(crate) struct Events {
    events: Arc<Mutex<Vec<TaskEvent>>>,
    waker: Waker,
}

impl Events {
    pub(crate) fn new(waker: Waker) -> Self {
        Events { events: Arc::default(), waker }
    }

    pub(crate) fn send(&self, event: TaskEvent) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
        (self.waker)();
    }

    pub(crate) fn take(&self) -> Vec<TaskEvent> {
        std::mem::take(&mut *self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
