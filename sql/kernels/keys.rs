//! Keys of rows: canonical bytes of some of their columns, and back.
//!
//! Invariant: equal keys have equal bytes, whatever the batch; NULL is a key like any other.

use super::building::Building;
use super::value::{Cells, Class, Value};
use arrow::array::Array;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::KeyKernel;
use waterwheel_engine::record::{ChangeBatch, Key, Keys};

/// The columns that make the key, in order.
///
/// A whole number by itself is its eight bytes, which the engine looks up as a number, and NULL no byte at all.
pub(crate) struct ColumnKeys(pub(crate) Vec<usize>);

impl KeyKernel for ColumnKeys {
    fn keys(&self, batch: &ChangeBatch) -> Result<Keys> {
        let cells = self.0.iter().map(|&i| Cells::of(batch.columns.column(i))).collect::<Result<Vec<_>>>()?;
        Ok(match &cells[..] {
            [Cells::Int(numbers)] if numbers.null_count() == 0 => Keys::encode(numbers.values().iter().copied()),
            [Cells::Int(numbers)] => Keys::from_bytes(batch.times.len(), |row, out| {
                if numbers.is_valid(row) {
                    numbers.value(row).encode(out);
                }
            }),
            _ => Keys::from_bytes(batch.times.len(), |row, out| cells.iter().for_each(|c| c.encode(row, out))),
        })
    }
}

/// Appends the values of a key, one to each column.
///
/// # Errors
/// Bytes that are no such key.
pub(crate) fn decode(classes: &[Class], mut bytes: &[u8], out: &mut [Building]) -> Result<()> {
    if let ([Class::Int], [column]) = (classes, &mut *out) {
        let value = if bytes.is_empty() { Value::Null } else { Value::Int(i64::decode(&mut bytes)?) };
        column.push(&value);
    } else {
        out.iter_mut().try_for_each(|column| column.push_encoded(&mut bytes))?;
    }
    if bytes.is_empty() { Ok(()) } else { Err(Error::fatal("a key in state is longer than the query's")) }
}

/// The most bytes that a key has without an allocation of its own: as long as two whole numbers in canonical bytes.
const SHORT: usize = 22;

/// Key bytes as they are: a key for the engine's typed operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyBytes(Bytes);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Bytes {
    Short { len: u8, bytes: [u8; SHORT] },
    Long(Box<[u8]>),
}

impl KeyBytes {
    pub(crate) fn new(key: &[u8]) -> Self {
        if key.len() > SHORT {
            return KeyBytes(Bytes::Long(key.into()));
        }
        let mut bytes = [0; SHORT];
        bytes[..key.len()].copy_from_slice(key);
        KeyBytes(Bytes::Short { len: key.len() as u8, bytes })
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Bytes::Short { len, bytes } => &bytes[..usize::from(*len)],
            Bytes::Long(bytes) => bytes,
        }
    }
}

impl Key for KeyBytes {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_slice());
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self> {
        Ok(KeyBytes::new(std::mem::take(bytes)))
    }
}
