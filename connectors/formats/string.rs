//! Text. Invariant: only valid UTF-8 becomes a string.

use super::{Decode, Encode, excerpt};
use waterwheel_engine::record::RawRecord;

/// The value as UTF-8 text.
#[derive(Debug, Clone, Copy, Default)]
pub struct Text;

impl Decode<String> for Text {
    fn decode(&self, record: RawRecord<'_>) -> Result<Option<String>, String> {
        let text = |v: &[u8]| std::str::from_utf8(v).map(str::to_string).map_err(|_| format!("the value is not UTF-8: {}", excerpt(v)));
        record.value.map(text).transpose()
    }
}

impl<T: AsRef<str>> Encode<T> for Text {
    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), String> {
        out.extend_from_slice(value.as_ref().as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use waterwheel_engine::record::RawBatch;

    #[test]
    fn only_utf8_is_text() {
        let mut batch = RawBatch::default();
        for value in [&b"gr\xc3\xbc\xc3\x9f"[..], b"\xff"] {
            batch.push_parts(&"t".into(), 0, 0, 0, None, Some(value), &[]);
        }
        assert_eq!(Text.decode(batch.record(0)), Ok(Some("grüß".into())));
        assert!(Text.decode(batch.record(1)).unwrap_err().contains("UTF-8"));
    }
}
