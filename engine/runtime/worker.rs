//! A worker: one thread that owns tasks and steps them.
//!
//! Invariant: a worker sleeps only when no task of it can move, and a wake-up is never lost: the flag is raised before the
//! sleeper is notified and lowered before the tasks are looked at.

use super::task::{Step, Task};
use crate::env::Env;
use crate::exchange::Waker;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// A sleeping place that remembers one wake-up.
#[derive(Default)]
pub(crate) struct Bell {
    rung: AtomicBool,
    sleeping: Mutex<()>,
    bell: Condvar,
}

impl Bell {
    /// A waker that rings this bell.
    pub(crate) fn waker(self: &Arc<Self>) -> Waker {
        let bell = self.clone();
        Arc::new(move || bell.ring())
    }

    pub(crate) fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            // Taking the lock orders this after the sleeper's last look at the flag.
            drop(self.sleeping.lock().unwrap_or_else(PoisonError::into_inner));
            self.bell.notify_one();
        }
    }

    /// Sleeps until rung, at most `at_most`. Returns at once when rung since the last call.
    pub(crate) fn wait(&self, at_most: Duration) {
        let guard = self.sleeping.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.rung.load(Ordering::SeqCst) {
            let _ = self.bell.wait_timeout(guard, at_most);
        }
        self.rung.store(false, Ordering::SeqCst);
    }
}

/// Steps `tasks` until all are done or `cancel` is raised; then drops them.
pub(crate) fn run(env: &Env, mut tasks: Vec<Task>, bell: &Bell, cancel: &AtomicBool) {
    let longest = Duration::from_millis(100);
    while !tasks.is_empty() && !cancel.load(Ordering::Relaxed) {
        let mut progress = false;
        let mut wake_at: Option<Duration> = None;
        tasks.retain_mut(|task| match task.step() {
            Step::Progress => {
                progress = true;
                true
            }
            Step::Idle(at) => {
                wake_at = wake_at.into_iter().chain(at).min();
                true
            }
            Step::Done => false,
        });
        if !progress && !tasks.is_empty() {
            let now = env.clock.monotonic();
            bell.wait(wake_at.map_or(longest, |at| at.saturating_sub(now).min(longest)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_before_the_wait_is_not_lost() {
        let bell = Arc::new(Bell::default());
        (bell.waker())();
        let clock = Env::real().clock;
        let start = clock.monotonic();
        bell.wait(Duration::from_secs(5));
        assert!(clock.monotonic() - start < Duration::from_secs(1));
    }
}
