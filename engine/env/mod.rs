//! The one door to the outside: clock, files, randomness, background work, calls.
//!
//! Everything the engine wants from the machine goes through [`Env`], so that a whole job with its crashes can run in one
//! thread under one seed (see `testing::sim`). `clippy.toml` bans the direct calls elsewhere.
//!
//! Invariant: no code outside this folder reads a clock, opens a file, starts a thread or draws a random number. Calls are a
//! fixed number per batch, none per row.

mod background;
mod calls;
mod files;
mod memory;
mod moment;
mod planted;
mod real;

pub use background::{Background, Job};
pub use calls::{Call, Calls, Running};
pub use files::{FileWriter, Files};
pub use moment::{Moment, reached};
#[cfg(any(test, feature = "testing"))]
pub use planted::with_bug;
pub use planted::{Bug, planted};

use std::sync::Arc;
use std::time::Duration;

/// Clocks. Monotonic time measures waits; wall time labels things and drives processing-time timers.
pub trait Clock: Send + Sync {
    /// Time since some fixed start; never goes back.
    fn monotonic(&self) -> Duration;
    /// Milliseconds since the Unix epoch; may jump.
    fn wall_ms(&self) -> i64;
}

/// Randomness for identities and jitter, never for results.
pub trait Rng: Send + Sync {
    /// 64 fresh bits.
    fn next_u64(&self) -> u64;
}

/// The outside, as the engine sees it. Cheap to clone.
#[derive(Clone)]
pub struct Env {
    /// Clocks.
    pub clock: Arc<dyn Clock>,
    /// Files.
    pub files: Arc<dyn Files>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
    /// Work off the worker threads.
    pub background: Arc<dyn Background>,
    /// Calls to the outside that take their time.
    pub calls: Arc<dyn Calls>,
}

impl Env {
    /// The real machine.
    pub fn real() -> Env {
        real::env()
    }

    /// A fresh 128-bit identity in hex.
    pub fn fresh_id(&self) -> String {
        format!("{:016x}{:016x}", self.rng.next_u64(), self.rng.next_u64())
    }
}
