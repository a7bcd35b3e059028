//! Bytes as they are. Invariant: nothing is looked at.

use super::{Decode, Encode};
use waterwheel_engine::record::RawRecord;

/// The value's bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Raw;

impl Decode<Vec<u8>> for Raw {
    fn decode(&self, record: RawRecord<'_>) -> Result<Option<Vec<u8>>, String> {
        Ok(record.value.map(<[u8]>::to_vec))
    }
}

impl<T: AsRef<[u8]>> Encode<T> for Raw {
    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), String> {
        out.extend_from_slice(value.as_ref());
        Ok(())
    }
}
