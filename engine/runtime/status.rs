//! What a running job shows of itself: read by the status block, `--metrics` and tests.
//!
//! Invariant: written by the driver only; readers see a whole value, never a half-changed one.

use crate::record::Epoch;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Where a job is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Phase {
    /// Reading the job log, verifying state, settling unpublished output.
    #[default]
    Recovering,
    /// Rows flow.
    Running,
    /// A graceful stop is under way.
    Stopping,
    /// An attempt failed; the next one starts soon.
    Restarting {
        /// Why.
        reason: String,
    },
    /// Over.
    Finished,
}

/// A job as of now.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Where it is.
    pub phase: Phase,
    /// Tasks of this attempt.
    pub tasks: usize,
    /// The checkpoint this attempt started from, if any.
    pub resumed_from: Option<Epoch>,
    /// How long recovery took, from the start of the attempt to the first task running.
    pub recovery: Duration,
    /// Newest complete checkpoint.
    pub checkpoint: Option<Epoch>,
    /// Monotonic time of its completion.
    pub checkpoint_at: Duration,
    /// Bytes its files hold in all.
    pub checkpoint_bytes: u64,
    /// Newest epoch that every lane has published.
    pub published: Option<Epoch>,
    /// Checkpoints that failed.
    pub failed_checkpoints: u64,
    /// Restarts since the process began.
    pub restarts: u64,
    /// Who waits for the outside, and why.
    pub waiting: BTreeMap<String, String>,
}

/// The shared cell.
#[derive(Debug, Clone, Default)]
pub struct StatusCell(Arc<Mutex<Status>>);

impl StatusCell {
    /// A copy of the present status.
    pub fn get(&self) -> Status {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes it.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
