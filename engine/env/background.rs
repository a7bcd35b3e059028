//! Work that may block, off the worker threads: uploads, state writes, publishing, discovery.
//!
//! Invariant: a job talks back only through what it captured (a channel or a shared cell); the caller never waits for it on a
//! worker thread.

/// One piece of blocking work.
pub type Job = Box<dyn FnOnce() + Send>;

/// Runs blocking work elsewhere.
pub trait Background: Send + Sync {
    /// Runs `job` on some other thread. Jobs of one `lane` run one after the other, in order; different lanes run side by
    /// side. The simulated pool runs them one at a time, when the seed says so.
    fn run(&self, lane: &str, job: Job);

    /// Does all jobs, side by side where that can be, and comes back when all are done. One after the other unless overridden.
    fn together<'a>(&self, jobs: Vec<Box<dyn FnOnce() + Send + 'a>>) {
        jobs.into_iter().for_each(|job| job());
    }
}
