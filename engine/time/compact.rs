//! Dates in small: for fields of type `DateTime<Utc>` in rows that are kept in state.
//!
//! chrono writes a date as text, whatever the format. In JSON that is right; in state it costs three times the bytes, and
//! writing and reading text for each row. With `#[serde(with = "...")]` a field stays text where people read it (JSON, CSV),
//! byte for byte as chrono has it, and is two numbers where only machines do.
//!
//! ```
//! use chrono::{DateTime, Utc};
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct Login {
//!     #[serde(with = "waterwheel_engine::time::compact")] // in a job: "waterwheel::compact_time"
//!     at: DateTime<Utc>,
//! }
//! let login: Login = serde_json::from_str(r#"{"at":"2026-03-02T09:00:00.25Z"}"#)?;
//! assert_eq!(serde_json::to_string(&login)?, r#"{"at":"2026-03-02T09:00:00.250Z"}"#);
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! Invariant: what is written is read back exactly, to the nanosecond, over chrono's whole range.

use super::plain_date_time;
use chrono::{DateTime, Utc};
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};
use std::fmt;

/// Writes a date.
///
/// # Errors
/// Those of the format.
pub fn serialize<S: Serializer>(at: &DateTime<Utc>, to: S) -> Result<S::Ok, S::Error> {
    if to.is_human_readable() {
        return at.serialize(to);
    }
    (at.timestamp(), at.timestamp_subsec_nanos()).serialize(to)
}

/// Reads a date.
///
/// # Errors
/// Text that is no date by RFC 3339, and numbers that are none.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<DateTime<Utc>, D::Error> {
    if from.is_human_readable() {
        return from.deserialize_str(Text);
    }
    let (seconds, nanos) = <(i64, u32)>::deserialize(from)?;
    DateTime::from_timestamp(seconds, nanos).ok_or_else(|| D::Error::custom("a date out of range"))
}

struct Text;

impl Visitor<'_> for Text {
    type Value = DateTime<Utc>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a date and time by RFC 3339, such as 2026-03-02T09:00:00Z")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<DateTime<Utc>, E> {
        match usual(text.as_bytes()) {
            Some(at) => Ok(at),
            None => text.parse().map_err(E::custom),
        }
    }
}

/// The form nearly all dates have: `2026-03-02T09:00:00Z`, with up to nine digits of a fraction. Any other is chrono's to read.
fn usual(text: &[u8]) -> Option<DateTime<Utc>> {
    let plain = text.strip_suffix(b"Z").filter(|plain| plain.get(10) == Some(&b'T'))?;
    let (seconds, nanos) = plain_date_time(plain)?;
    DateTime::from_timestamp(seconds, nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Compact(#[serde(with = "super")] DateTime<Utc>);

    fn dates() -> impl Strategy<Value = DateTime<Utc>> {
        let seconds = prop_oneof![
            DateTime::<Utc>::MIN_UTC.timestamp()..=DateTime::<Utc>::MAX_UTC.timestamp(),
            -100_000_000_000i64..300_000_000_000,
            Just(0i64),
        ];
        let nanos = prop_oneof![Just(0u32), (0u32..1_000).prop_map(|ms| ms * 1_000_000), 0u32..1_000_000_000];
        (seconds, nanos).prop_map(|(seconds, nanos)| DateTime::from_timestamp(seconds, nanos).unwrap())
    }

    /// Dates, and what is nearly one: a few bytes of it changed, cut or doubled.
    fn texts() -> impl Strategy<Value = String> {
        let byte = prop_oneof![prop::char::range('0', '9'), prop::sample::select(vec!['-', ':', 'T', 't', ' ', 'Z', 'z', '.', '+', 'é'])];
        (dates(), prop::collection::vec((0usize..40, prop::option::of(byte)), 0..3)).prop_map(|(at, edits)| {
            let mut text: Vec<char> = serde_json::to_value(at).unwrap().as_str().unwrap().chars().collect();
            for (at, edit) in edits {
                let at = at.min(text.len() - 1);
                match edit {
                    Some(byte) => text[at] = byte,
                    None => drop(text.remove(at)),
                }
            }
            text.into_iter().collect()
        })
    }

    proptest! {
        #[test]
        fn a_date_is_read_back_exactly_in_either_form(at in dates()) {
            let bytes = postcard::to_stdvec(&Compact(at)).unwrap();
            prop_assert!(bytes.len() <= 12);
            prop_assert_eq!(postcard::from_bytes::<Compact>(&bytes).unwrap(), Compact(at));
            let text = serde_json::to_string(&Compact(at)).unwrap();
            prop_assert_eq!(&text, &serde_json::to_string(&at).unwrap());
            prop_assert_eq!(serde_json::from_str::<Compact>(&text).unwrap(), Compact(at));
        }

        #[test]
        fn text_is_read_as_chrono_reads_it(text in texts()) {
            let json = serde_json::to_string(&text).unwrap();
            let (ours, chronos) = (serde_json::from_str::<Compact>(&json), serde_json::from_str::<DateTime<Utc>>(&json));
            prop_assert_eq!(ours.map(|c| c.0).map_err(|e| e.to_string()), chronos.map_err(|e| e.to_string()));
        }
    }

    #[test]
    fn numbers_that_are_no_date_are_refused() {
        let bytes = postcard::to_stdvec(&(i64::MAX, 0u32)).unwrap();
        assert!(postcard::from_bytes::<Compact>(&bytes).is_err());
        let bytes = postcard::to_stdvec(&(0i64, u32::MAX)).unwrap();
        assert!(postcard::from_bytes::<Compact>(&bytes).is_err());
    }

    #[test]
    fn the_usual_form_does_not_need_chronos_reader() {
        for text in ["2026-03-02T09:00:00Z", "2024-02-29T23:59:59.123456789Z", "0000-01-01T00:00:00.5Z"] {
            assert_eq!(usual(text.as_bytes()), Some(text.parse().unwrap()));
        }
        for text in ["2026-02-29T09:00:00Z", "2026-03-02T24:00:00Z", "2026-03-02T09:00:00+01:00", "2026-03-02T09:00:00.1234567890Z", ""] {
            assert_eq!(usual(text.as_bytes()), None, "{text}");
        }
    }
}
