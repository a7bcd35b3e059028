//! Calls on the simulated machine: futures that are polled one at a time, when the seed picks them.
//!
//! Invariant: nothing runs by itself; a future that waits for something other than [`Calls::sleep`] or another call never
//! ends.

use crate::env::{Call, Calls, Clock, Running};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

pub(super) struct SimCalls {
    clock: Arc<dyn Clock>,
    /// Under way, by number.
    calls: Arc<Mutex<Vec<(u64, Call)>>>,
    next: Mutex<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SimCalls {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        SimCalls { clock, calls: Arc::default(), next: Mutex::default() }
    }

    pub(super) fn len(&self) -> usize {
        lock(&self.calls).len()
    }

    /// Lets the `at`-th call go on; whether it ended.
    pub(super) fn poll(&self, at: usize) -> bool {
        // Taken out, because a call may start others.
        let (number, mut call) = lock(&self.calls).remove(at);
        match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(()) => true,
            Poll::Pending => {
                let mut calls = lock(&self.calls);
                let at = at.min(calls.len());
                calls.insert(at, (number, call));
                false
            }
        }
    }

    pub(super) fn clear(&self) {
        lock(&self.calls).clear();
    }
}

impl Calls for SimCalls {
    fn start(&self, call: Call) -> Running {
        let number = {
            let mut next = lock(&self.next);
            *next += 1;
            *next
        };
        lock(&self.calls).push((number, call));
        let calls = Arc::downgrade(&self.calls);
        Running::new(move || {
            let Some(calls) = calls.upgrade() else { return };
            let cancelled = {
                let mut calls = lock(&calls);
                calls.iter().position(|(n, _)| *n == number).map(|at| calls.remove(at))
            };
            drop(cancelled); // outside of the lock: it may own other calls
        })
    }

    fn sleep(&self, time: Duration) -> Call {
        let clock = self.clock.clone();
        let until = clock.monotonic() + time;
        Box::pin(poll_fn(move |_| if clock.monotonic() >= until { Poll::Ready(()) } else { Poll::Pending }))
    }
}
