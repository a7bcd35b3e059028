//! What happens to a row that fails: fail, drop or dead-letter, decided per source and inherited downstream.
//!
//! Invariant: rows in = rows out + counted late + dropped + dead-lettered; a poison row never loops, because under `fail` the
//! job stops with its place instead of restarting into it again.

use serde::{Deserialize, Serialize};

/// The policy for a record that cannot be decoded or whose user function fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ErrorPolicy {
    /// The job stops, naming the record.
    #[default]
    Fail,
    /// The record is counted and dropped.
    Drop,
    /// The record goes, with its bytes and its place, to the dead-letter topic of its source, in the same epoch.
    DeadLetter,
}
