//! Where a row came from, for dead letters: a reference to the source record, not a copy.
//!
//! Invariant: present on every row downstream of a source whose error policy is dead-letter, up to the first operator that
//! makes new rows out of several (aggregate, window); those rows have no single origin.

use super::{OperatorId, RawBatch, RawRecord};
use std::sync::Arc;

/// The source record of one row.
#[derive(Debug, Clone)]
pub struct Origin {
    batch: Arc<RawBatch>,
    row: u32,
}

impl Origin {
    /// Record `row` of `batch`.
    pub fn new(batch: Arc<RawBatch>, row: u32) -> Self {
        Origin { batch, row }
    }

    /// The record with its bytes, key, headers, topic, partition and offset.
    pub fn record(&self) -> RawRecord<'_> {
        self.batch.record(self.row as usize)
    }
}

/// The origins of a batch's rows.
#[derive(Debug, Clone, Default)]
pub struct Origins(pub Vec<Origin>);

impl Origins {
    /// The rows named, in that order.
    pub fn gather(&self, rows: &[u32]) -> Origins {
        Origins(rows.iter().map(|&r| self.0[r as usize].clone()).collect())
    }
}

/// A row that could not be processed: it leaves by the errors port under policy dead-letter.
#[derive(Debug, Clone)]
pub struct Rejected {
    /// The source record, when the row has one.
    pub origin: Option<Origin>,
    /// The operator that refused it.
    pub operator: OperatorId,
    /// Why, for a person.
    pub error: String,
    /// The row's event time in milliseconds (the record's timestamp when decoding failed): dead letters carry no wall time,
    /// so that a replay writes them byte-equal.
    pub time: i64,
}
