//! What an operator declares about itself for `explain`: state, bounds, and which equality class it allows.
//!
//! Invariant: a plan's class is the weakest of its operators'; an operator that declares nothing is exact.

use crate::observe::human_duration;
use std::fmt;
use std::time::Duration;

/// Declarations of one operator.
#[derive(Debug, Clone, Default)]
pub struct NodeNote {
    /// What it does, in a few words: `sliding 5m every 10s`.
    pub detail: String,
    /// Its state tables.
    pub state: Vec<StateNote>,
    /// Plumbing that the text of `explain` leaves out (JSON and DOT show it).
    pub glue: bool,
    /// Why the output may differ from that of a run without faults.
    pub class: Vec<(EqualityClass, String)>,
}

/// One state table.
#[derive(Debug, Clone)]
pub struct StateNote {
    /// What is kept, a key: `1 row a key`.
    pub what: String,
    /// What ends it.
    pub bound: Bound,
}

/// What keeps a state table from growing for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Goes when the watermark passes.
    Watermark,
    /// Goes this long after its last update.
    Ttl(Duration),
    /// At most so many per task, and a batch.
    Rows(usize),
    /// Stays: as many entries as there are keys.
    Unbounded,
    /// The user's own code decides.
    User,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::Watermark => f.write_str("bounded by the watermark"),
            Bound::Ttl(d) => write!(f, "kept {}", human_duration(*d)),
            Bound::Rows(n) => write!(f, "at most {n} a task, and a batch"),
            Bound::Unbounded => f.write_str("UNBOUNDED by time"),
            Bound::User => f.write_str("bounded by its own code"),
        }
    }
}

/// How the committed output compares with that of a run without faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EqualityClass {
    /// Byte-equal per key.
    Exact,
    /// The latest value per key is equal at every quiescent point.
    Converging,
    /// Equal to that of some run without faults.
    TimeDependent,
}

impl fmt::Display for EqualityClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EqualityClass::Exact => "exact",
            EqualityClass::Converging => "converging",
            EqualityClass::TimeDependent => "time-dependent",
        })
    }
}
