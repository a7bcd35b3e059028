//! What can be kept in state, and its codec: postcard, compact and without field names, beside a stored schema with them.
//!
//! Invariant: bytes of a value are read only under the schema they were written with; a restore compares schemas first
//! ([`check_schema`](super::check_schema)); a type that changed in a way that it may is rewritten (see `evolve`), any other change
//! refused by field name.

use super::schema::{self, Traced};
use crate::error::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Stored in front of every schema; a change of the codec raises it.
pub(super) const CODEC: &str = "postcard/1";

/// A type that can be a value in state: any serde type that is read back by position.
///
/// Not `#[serde(flatten)]`, `untagged` or `tag`, nor `serde_json::Value`: their bytes do not describe themselves; a table of
/// such a type refuses to open. `skip_serializing_if` must not be used either (it cannot be detected).
pub trait StateValue: Serialize + DeserializeOwned + Send + 'static {}
impl<V: Serialize + DeserializeOwned + Send + 'static> StateValue for V {}

/// Encodes a value.
pub(super) fn encode<V: StateValue>(value: &V) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    encode_into(value, &mut out);
    out
}

/// Appends an encoded value.
///
/// # Panics
/// A `Serialize` that fails is a bug in the type: with derived code and a type that passed [`check_codec`] it cannot.
pub fn encode_into<V: StateValue>(value: &V, out: &mut Vec<u8>) {
    match postcard::to_extend(value, std::mem::take(out)) {
        Ok(filled) => *out = filled,
        Err(e) => panic!("a state value of type {} does not serialize: {e}", std::any::type_name::<V>()),
    }
}

/// Decodes a whole value.
///
/// # Errors
/// Bytes that are none.
pub fn decode<V: StateValue>(bytes: &[u8]) -> Result<V> {
    let wrong = |what: String| {
        Error::fatal(format!("a state value does not decode as {}: {what}", std::any::type_name::<V>()))
            .help("the type's fields or their order changed without its schema showing it (a custom Deserialize?), or the state is damaged")
    };
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(wrong(format!("{} bytes are left over", rest.len()))),
        Err(e) => Err(wrong(e.to_string())),
    }
}

/// Codec version, fields and their types, as text; equal texts read each other's bytes.
///
/// ```
/// use waterwheel_engine::state::schema_of;
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Total { amount: i64, currency: Option<String> }
/// assert_eq!(schema_of::<Total>(), "postcard/1 Total; Total{amount: i64, currency: str?}");
/// ```
pub fn schema_of<V: StateValue>() -> String {
    format!("{CODEC} {}", schema::trace::<V>().text())
}

/// The kind of a table's keys, as its schema has it.
pub(super) fn key_text(kind: Option<&str>) -> String {
    kind.map_or(String::new(), |kind| format!(" key {kind}"))
}

/// Refuses a type that the codec cannot read back.
///
/// # Errors
/// What of it cannot be.
pub fn check_codec<V: StateValue>() -> Result<()> {
    let Traced { unreadable: Some(what), .. } = schema::trace::<V>() else { return Ok(()) };
    Err(Error::fatal(format!("{} cannot be kept in state: {what}", std::any::type_name::<V>()))
        .help("use plain structs and enums without flatten, tag or untagged; keep free-form JSON as a String"))
}

/// Estimates what values hold beyond their own size: the mean encoded length of sampled values, for types with anything of
/// variable length in them; nothing for others.
pub(super) struct Heap {
    varies: bool,
    count: usize,
    bytes: usize,
}

impl Heap {
    /// What a value of variable length is taken for until one was seen.
    const GUESS: usize = 64;

    pub(super) fn new<V: StateValue>() -> Heap {
        Heap { varies: schema::trace::<V>().varies, count: 0, bytes: 0 }
    }

    pub(super) fn sample(&mut self, encoded: usize) {
        // Forgets slowly, so that the mean follows values that grow.
        if self.count == 1 << 16 {
            (self.count, self.bytes) = (self.count / 2, self.bytes / 2);
        }
        self.count += 1;
        self.bytes += encoded;
    }

    /// Bytes per value; an allocation costs about as much again as what it holds.
    pub(super) fn mean(&self) -> usize {
        match (self.varies, self.count) {
            (false, _) => 0,
            (true, 0) => Self::GUESS,
            (true, count) => 2 * self.bytes / count,
        }
    }
}
