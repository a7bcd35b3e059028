//! Calls to the outside that take their time: futures, run off the worker threads.
//!
//! Invariant: a future talks back only through what it captured; dropping its [`Running`] ends it without another word. On
//! the simulated machine the seed decides which future goes on next, and its sleeps are virtual.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// A future that has nothing to say.
pub type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs futures.
pub trait Calls: Send + Sync {
    /// Runs a future to its end, elsewhere. On the real machine it runs inside tokio (one thread for all: made for waiting,
    /// not for computing).
    fn start(&self, call: Call) -> Running;
    /// A future that is over after `time`.
    fn sleep(&self, time: Duration) -> Call;
}

/// A call under way. Dropped, it ends the call.
#[must_use = "dropping it ends the call"]
pub struct Running(Option<Box<dyn FnOnce() + Send>>);

impl Running {
    /// `cancel` ends the call; one that is over already is left alone.
    pub fn new(cancel: impl FnOnce() + Send + 'static) -> Self {
        Running(Some(Box::new(cancel)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(cancel) = self.0.take() {
            cancel();
        }
    }
}
