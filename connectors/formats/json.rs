//! JSON through serde.
//!
//! Invariant: a value is one whole JSON text in UTF-8, with nothing after it, no longer than the limit.

use super::{Decode, Encode, excerpt, quick_json};
use serde::Serialize;
use serde::de::DeserializeOwned;
use waterwheel_engine::record::RawRecord;

/// JSON into and out of the user's type.
///
/// ```
/// use waterwheel_connectors::formats::{Decode, Json};
/// use waterwheel_engine::record::RawBatch;
/// let mut batch = RawBatch::default();
/// batch.push_parts(&"t".into(), 0, 0, 0, None, Some(b"{\"n\":1}"), &[]);
/// let n: Option<std::collections::BTreeMap<String, i32>> = Json::default().decode(batch.record(0)).unwrap();
/// assert_eq!(n.unwrap()["n"], 1);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Json {
    /// Longest value in bytes that is looked at.
    pub max_bytes: usize,
}

impl Default for Json {
    /// Up to 16 MiB a record.
    fn default() -> Self {
        Json { max_bytes: 16 << 20 }
    }
}

impl<T: DeserializeOwned> Decode<T> for Json {
    fn decode(&self, record: RawRecord<'_>) -> Result<Option<T>, String> {
        let Some(value) = record.value else { return Ok(None) };
        if value.len() > self.max_bytes {
            return Err(format!("the record is too large: {} bytes, the limit is {}", value.len(), self.max_bytes));
        }
        match quick_json::read(value) {
            Ok(row) => Ok(Some(row)),
            Err(quick_json::GiveUp) => serde_json::from_slice(value).map(Some).map_err(|e| explain(value, &e)),
        }
    }
}

impl<T: Serialize> Encode<T> for Json {
    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), String> {
        serde_json::to_writer(out, value).map_err(|e| format!("the value cannot be written as JSON: {e}"))
    }
}

#[cold]
fn explain(value: &[u8], e: &serde_json::Error) -> String {
    if value.is_empty() {
        return "the value is empty, JSON was expected".into();
    }
    if std::str::from_utf8(value).is_err() {
        return format!("the value is not UTF-8: {}", excerpt(value));
    }
    let what = if e.is_data() { "the JSON does not fit the type" } else { "the value is not JSON" };
    format!("{what}: {e}, in {}", excerpt(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use waterwheel_engine::record::RawBatch;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Payment {
        id: String,
        amount: i32,
    }

    fn decode(value: Option<&[u8]>) -> Result<Option<Payment>, String> {
        let mut batch = RawBatch::default();
        batch.push_parts(&"t".into(), 0, 0, 0, None, value, &[]);
        Json { max_bytes: 100 }.decode(batch.record(0))
    }

    #[test]
    fn a_fitting_record_and_a_tombstone() {
        assert_eq!(decode(Some(br#"{"id":"a","amount":1}"#)), Ok(Some(Payment { id: "a".into(), amount: 1 })));
        assert_eq!(decode(None), Ok(None));
    }

    #[test]
    fn each_kind_of_bad_record_gets_an_error_that_names_it() {
        let large = vec![b' '; 101];
        for (value, says) in [
            (&b""[..], "empty"),
            (b"{\"id\":\"a\",\"amo", "not JSON"),
            (b"{\"id\":\"a\",\"amount\":1} x", "not JSON"),
            (b"{\"id\":\"a\"}", "missing field `amount`"),
            (b"{\"id\":\"a\",\"amount\":\"1\"}", "does not fit"),
            (b"{\"id\":\"a\",\"amount\":99999999999}", "does not fit"),
            (b"{\"id\":\"\xff\",\"amount\":1}", "not UTF-8"),
            (&large, "too large"),
            (b"[[[[[[[[[[[[", "JSON"),
        ] {
            let error = decode(Some(value)).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
