//! Formats: bytes of a record to a value and back.
//!
//! Invariant: bad input is an error text for the record's error policy, never a panic; a decoder is the same for every record
//! and holds no state between them.

mod csv;
mod json;
mod quick_json;
mod raw;
mod string;

pub use csv::Csv;
pub use json::Json;
pub use raw::Raw;
pub use string::Text;

use std::sync::Arc;
use waterwheel_engine::record::{RawBatch, RawRecord};

/// Makes a value of a record.
pub trait Decode<T>: Send + Sync + Clone + 'static {
    /// The value; `None` for a tombstone (a null value), which the caller may take as a removal.
    ///
    /// # Errors
    /// What is wrong with this record, for a person.
    fn decode(&self, record: RawRecord<'_>) -> Result<Option<T>, String>;
}

/// Makes the bytes of a value.
pub trait Encode<T>: Send + Sync + Clone + 'static {
    /// Appends the value's bytes to `out`. What was appended before an error is cut off by the caller.
    ///
    /// # Errors
    /// What is wrong with this value, for a person.
    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), String>;
}

/// Appends a value as a record, written straight into the batch's arena. The sink chooses the partition.
///
/// # Errors
/// As [`Encode::encode`]; nothing is appended then.
///
/// ```
/// use waterwheel_connectors::formats::{Json, push};
/// use waterwheel_engine::record::{Batch, RawBatch};
/// let mut batch = RawBatch::default();
/// push(&Json::default(), &[1, 2], &"out".into(), Some(b"key"), 7, &mut batch).unwrap();
/// assert_eq!(batch.record(0).value, Some(&b"[1,2]"[..]));
/// ```
pub fn push<T, F: Encode<T>>(
    format: &F,
    value: &T,
    topic: &Arc<str>,
    key: Option<&[u8]>,
    timestamp: i64,
    batch: &mut RawBatch,
) -> Result<(), String> {
    batch.push_with(topic, -1, timestamp, key, &[], |out| format.encode(value, out))
}

/// The start of a value, to be shown in an error.
fn excerpt(bytes: &[u8]) -> String {
    const SHOWN: usize = 80;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]);
    format!("{text:?}{}", if bytes.len() > SHOWN { "..." } else { "" })
}
