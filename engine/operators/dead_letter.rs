//! Dead letters: rejected rows become records of the dead-letter topic of their source.
//!
//! Invariant: a dead letter holds the source record as it was (key, value, headers) and says why and where it failed, and
//! nothing that differs from run to run: a replay writes the same bytes.

use super::{Operator, OperatorFactory, Output};
use crate::error::Result;
use crate::record::{BatchBox, RawBatch, Rejected, Rows, downcast};
use std::sync::Arc;

/// Header: topic of the source record.
pub const HEADER_TOPIC: &str = "waterwheel.topic";
/// Header: partition of the source record, decimal.
pub const HEADER_PARTITION: &str = "waterwheel.partition";
/// Header: offset of the source record, decimal.
pub const HEADER_OFFSET: &str = "waterwheel.offset";
/// Header: the operator that refused the row.
pub const HEADER_OPERATOR: &str = "waterwheel.operator";
/// Header: why, for a person.
pub const HEADER_ERROR: &str = "waterwheel.error";

/// Turns `Rows<Rejected>` into records for `topic` (by convention `<source topic>.dead-letter`). The record's timestamp is
/// that of the source record, else the row's event time. A row without a source record (a failed result of an aggregate)
/// gives a record without key and value; the headers tell what is known.
pub fn dead_letters(topic: impl Into<Arc<str>>) -> OperatorFactory {
    let topic = topic.into();
    Arc::new(move || Box::new(DeadLetters { topic: topic.clone() }))
}

struct DeadLetters {
    topic: Arc<str>,
}

impl Operator for DeadLetters {
    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let rejected = downcast::<Rows<Rejected>>(batch);
        let mut raw = RawBatch::with_capacity(rejected.rows.len(), rejected.rows.len() * 256);
        for row in &rejected.rows {
            self.append(&mut raw, row);
        }
        out.emit(Box::new(raw))
    }
}

impl DeadLetters {
    fn append(&self, raw: &mut RawBatch, row: &Rejected) {
        let mut headers = Vec::new();
        let mut header = |name: &str, value: &str| RawBatch::encode_header(&mut headers, name, Some(value.as_bytes()));
        let record = row.origin.as_ref().map(|o| o.record());
        if let Some(r) = &record {
            header(HEADER_TOPIC, r.topic);
            header(HEADER_PARTITION, &r.partition.to_string());
            header(HEADER_OFFSET, &r.offset.to_string());
        }
        header(HEADER_OPERATOR, row.operator.as_str());
        header(HEADER_ERROR, &row.error);
        // A record has no negative time; "none" would let the broker put the wall time in.
        let timestamp = record.map(|r| r.timestamp).filter(|t| *t >= 0).unwrap_or(row.time).max(0);
        let (key, value) = record.map_or((None, None), |r| (r.key, r.value));
        let original = record.map_or(&[][..], |r| r.header_bytes());
        let all = [original, &headers].concat();
        raw.push_parts(&self.topic, -1, -1, timestamp, key, value, &all);
    }
}
