//! What a person can ask of a running job: a graceful stop, a savepoint.
//!
//! Invariant: a request is seen by the attempt that runs, or by the next one; it is never lost between two.

use crate::checkpoint::Event;
use crate::exchange::Waker;
use crate::record::Epoch;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A handle to ask things of a running job. Cheap to clone; usable from any thread.
#[derive(Clone, Default)]
pub struct JobControl(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    stop: bool,
    kill: bool,
    told: bool,
    savepoints: Vec<String>,
    answers: BTreeMap<String, Result<Epoch, String>>,
    waker: Option<Waker>,
}

impl JobControl {
    /// Asks for a graceful stop: a last checkpoint, everything published, exact resume later.
    pub fn stop(&self) {
        let mut inner = self.lock();
        inner.stop = true;
        wake(&inner);
    }

    /// Asks to end at once, as a crash would: what is not checkpointed is read again by the next run.
    pub fn kill(&self) {
        let mut inner = self.lock();
        inner.kill = true;
        wake(&inner);
    }

    /// Asks for a savepoint in a folder; see [`savepoint_outcome`](Self::savepoint_outcome).
    pub fn savepoint(&self, path: impl Into<String>) {
        let mut inner = self.lock();
        inner.savepoints.push(path.into());
        wake(&inner);
    }

    /// What became of the savepoint asked for: `None` while it is being made; its epoch; or why not.
    pub fn savepoint_outcome(&self, path: &str) -> Option<Result<Epoch, String>> {
        self.lock().answers.get(path).cloned()
    }

    /// Whether a stop was asked for.
    pub fn is_stopping(&self) -> bool {
        self.lock().stop
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.lock().kill
    }

    /// A new attempt begins: what was asked for and not done yet is asked of it again.
    pub(crate) fn attach(&self, waker: Waker) {
        let mut inner = self.lock();
        inner.waker = Some(waker);
        inner.told = false;
    }

    pub(crate) fn take_requests(&self) -> Vec<Event> {
        let mut inner = self.lock();
        let mut requests: Vec<Event> =
            std::mem::take(&mut inner.savepoints).into_iter().map(|path| Event::SavepointRequested { path }).collect();
        if inner.stop && !inner.told {
            inner.told = true;
            requests.push(Event::StopRequested);
        }
        requests
    }

    pub(crate) fn answer(&self, path: &str, outcome: Result<Epoch, String>) {
        self.lock().answers.insert(path.to_string(), outcome);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(inner: &Inner) {
    if let Some(waker) = &inner.waker {
        waker();
    }
}
