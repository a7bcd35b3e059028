//! Keys of rows: canonical bytes of some of their columns, and back.
//!
//! Invariant: equal keys have equal bytes, whatever the batch; NULL is a key like any other.

use super::value::{Cells, Class, Value};
use arrow::array::Array;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::KeyKernel;
use waterwheel_engine::record::{ChangeBatch, Key, Keys};

/// The columns that make the key, in order.
pub(crate) struct ColumnKeys(pub(crate) Vec<usize>);

impl KeyKernel for ColumnKeys {
    fn keys(&self, batch: &ChangeBatch) -> Result<Keys> {
        let cells = self.0.iter().map(|&i| Cells::of(batch.columns.column(i))).collect::<Result<Vec<_>>>()?;
        Ok(Keys::from_bytes(batch.times.len(), |row, out| cells.iter().for_each(|c| c.encode(row, out))))
    }
}

/// A key of one whole number that is never NULL: eight bytes, which the engine looks up as numbers.
pub(crate) struct NumberKeys(pub(crate) usize);

impl KeyKernel for NumberKeys {
    fn keys(&self, batch: &ChangeBatch) -> Result<Keys> {
        match Cells::of(batch.columns.column(self.0))? {
            Cells::Int(numbers) if numbers.null_count() == 0 => Ok(Keys::encode(numbers.values().iter().map(|n| *n as u64))),
            _ => Err(Error::fatal("plan bug: a key that is no number, or NULL")),
        }
    }
}

/// Appends the values of a key.
///
/// # Errors
/// Bytes that are no such key.
pub(crate) fn decode(classes: &[Class], mut bytes: &[u8], out: &mut Vec<Value>) -> Result<()> {
    classes.iter().try_for_each(|&class| Value::decode(class, &mut bytes).map(|value| out.push(value)))?;
    if bytes.is_empty() { Ok(()) } else { Err(Error::fatal("a key in state is longer than the query's")) }
}

/// Key bytes as they are: a key for the engine's typed operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyBytes(pub(crate) Vec<u8>);

impl Key for KeyBytes {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self> {
        Ok(KeyBytes(std::mem::take(bytes).to_vec()))
    }
}
