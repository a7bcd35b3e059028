//! How rows enter: what a reader hands over becomes rows with event times.
//!
//! Invariant: rows leave in the order of the records; a record that cannot be decoded is in `rejected` and nowhere else.
//! Under policy dead-letter every row carries its origin, so that a failure further down still finds the record.

use super::OpenContext;
use crate::error::Result;
use crate::record::{BatchBox, Rejected};
use std::sync::Arc;

/// Decodes what the reader hands over into rows and stamps event time; one per source task.
pub trait Ingest: Send {
    /// Takes one batch of one split and gives the rows. Records that cannot be decoded are pushed to `rejected`; the source
    /// task applies the error policy to them.
    ///
    /// # Errors
    /// Stops the task; never for the sake of a single record.
    fn ingest(&mut self, batch: BatchBox, rejected: &mut Vec<Rejected>) -> Result<BatchBox>;
}

/// Makes one [`Ingest`] per source task.
pub type IngestFactory = Arc<dyn Fn(&OpenContext) -> Box<dyn Ingest> + Send + Sync>;
