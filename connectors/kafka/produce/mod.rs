//! Who publishes: the own producer on plain connections, librdkafka on all others.
//!
//! librdkafka's cost is per message; the own producer's is per batch of up to a megabyte, built straight from staged records.
//! It is made for what a lane does, one short transaction after another, and has no repetitions to speak of: a lane gives a
//! client up after anything out of the ordinary, fences with a new one and reads its marker.
//!
//! | file | what it is |
//! |---|---|
//! | `own` | the own producer: batches a partition, requests a leader |
//! | `cluster` | leaders, coordinators, questions to them |
//! | `request`, `batch` | what is sent and answered |
//! | `native` | librdkafka's producer |
//!
//! Invariant: `Ok` from `commit` means that the broker has committed; records that `delivered` counts are in the log, in the
//! order in which they were handed over, once, as part of the transaction.

mod batch;
mod cluster;
mod native;
mod own;
#[cfg(test)]
mod own_tests;
mod request;

pub(super) use native::Native;
pub(super) use own::Own;

use rdkafka::types::RDKafkaErrorCode as Code;
use std::time::Duration;
use waterwheel_engine::error::Error;
use waterwheel_engine::operators::LaneMarker;
use waterwheel_engine::record::RawBatch;

/// Why a transaction cannot go on.
#[derive(Debug)]
pub(super) enum Trouble {
    /// This was not taken: a partition's records, the marker.
    Refused(Code, String),
    /// What is no answer of a broker.
    Failed(Error),
}

impl From<Error> for Trouble {
    fn from(e: Error) -> Self {
        Trouble::Failed(e)
    }
}

/// A client that publishes one transaction after another, until the first trouble. Deadlines are by the monotonic clock.
pub(super) trait Transactions: Send {
    /// Shuts out every older client of the lane and settles its transaction.
    ///
    /// # Errors
    /// The code, and whether this may simply be called again.
    fn fence(&mut self, limit: Duration) -> Result<(), (Code, bool)>;

    /// Whether anything out of the ordinary has happened.
    fn is_troubled(&mut self) -> bool;

    /// Begins a transaction.
    ///
    /// # Errors
    /// This client can do nothing any more.
    fn begin(&mut self) -> Result<(), Code>;

    /// Hands records over; their partitions are chosen.
    ///
    /// # Errors
    /// One of these or of earlier ones was not taken, or there was no room until the deadline.
    fn send(&mut self, batch: &RawBatch, deadline: Duration) -> Result<(), Trouble>;

    /// Waits until the broker has all that was handed over in this transaction: how many.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    fn delivered(&mut self, deadline: Duration) -> Result<u64, Trouble>;

    /// Makes the lane's marker part of the transaction.
    ///
    /// # Errors
    /// It was not taken, or nobody knows.
    fn mark(&mut self, marker: &LaneMarker, deadline: Duration) -> Result<(), Trouble>;

    /// Commits.
    ///
    /// # Errors
    /// Perhaps committed, perhaps not.
    fn commit(&mut self, deadline: Duration) -> Result<(), Code>;

    /// Gives the open transaction up, as far as that is quickly possible; the client is dropped after it.
    fn abandon(&mut self);
}
