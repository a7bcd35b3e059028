//! Keys: canonical, order-preserving bytes, hashed by a frozen function to one of `max_parallelism` key groups.
//!
//! Invariant: equal keys have equal bytes and bytes order as values do; the encoding and the hash never change within
//! version [`KEY_CODEC_VERSION`], because state on disk and routing of running jobs rest on them (test vectors below).

use super::Str;
use crate::error::{Error, Result};
use chrono::{DateTime, Utc};
use std::borrow::Cow;
use std::ops::Range;

/// Stored with every checkpoint; a change of encoding or hash raises it.
pub const KEY_CODEC_VERSION: u16 = 1;

/// One of `max_parallelism` shares of the key space; a task owns a range of them.
pub type KeyGroup = u16;

/// A type that can be a key.
///
/// `encode` appends bytes that compare (as unsigned bytes) like the values; -0.0 equals 0.0 and every NaN is one NaN, above
/// all numbers. `decode` reads one key from the front of `bytes` and moves past it.
///
/// ```
/// use waterwheel_engine::record::Key;
/// let mut a = Vec::new();
/// ("de".to_string(), -1i64).encode(&mut a);
/// let mut rest = &a[..];
/// assert_eq!(<(String, i64)>::decode(&mut rest).unwrap(), ("de".to_string(), -1));
/// assert!(rest.is_empty());
/// ```
pub trait Key: Clone + Send + 'static {
    /// Appends the canonical bytes.
    fn encode(&self, out: &mut Vec<u8>);
    /// Reads one key from the front.
    ///
    /// # Errors
    /// When the bytes are not an encoding of this type: damaged state, or state of another key type.
    fn decode(bytes: &mut &[u8]) -> Result<Self>;
    /// `Some(v)` when this key is at most 8 bytes and is carried as the number whose big-endian bytes are its encoding; then
    /// every value of the type gives `Some`.
    fn as_u64(&self) -> Option<u64> {
        None
    }
    /// How state schemas name the type: `u64`, `str`, `(str, i64)`. `None`: it has no such name, and tools show its bytes.
    fn kind() -> Option<String> {
        None
    }
}

/// The key group of a key's hash.
pub fn key_group(hash: u64, max_parallelism: u16) -> KeyGroup {
    // The high half: the low bits index hash tables, and reusing them would leave each task's table sparse.
    ((hash >> 32) % u64::from(max_parallelism)) as KeyGroup
}

/// The key groups that task `index` of `parallelism` owns.
///
/// ```
/// use waterwheel_engine::record::key_groups_of;
/// assert_eq!(key_groups_of(0, 3, 128), 0..43);
/// assert_eq!(key_groups_of(2, 3, 128), 86..128);
/// ```
pub fn key_groups_of(index: u32, parallelism: u32, max_parallelism: u16) -> Range<KeyGroup> {
    let at = |i: u32| (u64::from(i) * u64::from(max_parallelism)).div_ceil(u64::from(parallelism)) as KeyGroup;
    at(index)..at(index + 1)
}

/// The task that owns a key group.
pub fn task_of(group: KeyGroup, parallelism: u32, max_parallelism: u16) -> u32 {
    (u64::from(group) * u64::from(parallelism) / u64::from(max_parallelism)) as u32
}

fn short(what: &str) -> Error {
    Error::fatal(format!("key bytes end inside {what}")).help("the state is damaged or was written with another key type")
}

fn take<const N: usize>(bytes: &mut &[u8], what: &str) -> Result<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or_else(|| short(what))?;
    *bytes = rest;
    Ok(*head)
}

macro_rules! unsigned_key {
    ($($t:ty),*) => {$(
        impl Key for $t {
            fn encode(&self, out: &mut Vec<u8>) { out.extend_from_slice(&self.to_be_bytes()); }
            fn decode(bytes: &mut &[u8]) -> Result<Self> { Ok(<$t>::from_be_bytes(take(bytes, stringify!($t))?)) }
            fn kind() -> Option<String> { Some(stringify!($t).into()) }
        }
    )*};
}
unsigned_key!(u8, u16, u32, u128);

impl Key for u64 {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
    fn kind() -> Option<String> {
        Some("u64".into())
    }
    fn decode(bytes: &mut &[u8]) -> Result<Self> {
        Ok(u64::from_be_bytes(take(bytes, "u64")?))
    }
    fn as_u64(&self) -> Option<u64> {
        Some(*self)
    }
}

macro_rules! signed_key {
    ($($t:ty, $u:ty);*) => {$(
        impl Key for $t {
            fn encode(&self, out: &mut Vec<u8>) { out.extend_from_slice(&((*self as $u) ^ (1 << (<$u>::BITS - 1))).to_be_bytes()); }
            fn decode(bytes: &mut &[u8]) -> Result<Self> { Ok((<$u>::from_be_bytes(take(bytes, stringify!($t))?) ^ (1 << (<$u>::BITS - 1))) as $t) }
            fn kind() -> Option<String> { Some(stringify!($t).into()) }
        }
    )*};
}
signed_key!(i8, u8; i16, u16; i32, u32; i128, u128);

const SIGN: u64 = 1 << 63;

impl Key for i64 {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&((*self as u64) ^ SIGN).to_be_bytes());
    }
    fn kind() -> Option<String> {
        Some("i64".into())
    }
    fn decode(bytes: &mut &[u8]) -> Result<Self> {
        Ok((u64::from_be_bytes(take(bytes, "i64")?) ^ SIGN) as i64)
    }
    fn as_u64(&self) -> Option<u64> {
        Some((*self as u64) ^ SIGN)
    }
}

impl Key for f64 {
    fn encode(&self, out: &mut Vec<u8>) {
        let canonical = if self.is_nan() {
            f64::NAN.copysign(1.0)
        } else if *self == 0.0 {
            0.0
        } else {
            *self
        };
        let bits = canonical.to_bits();
        let ordered = if bits & SIGN != 0 { !bits } else { bits ^ SIGN };
        out.extend_from_slice(&ordered.to_be_bytes());
    }
    fn kind() -> Option<String> {
        Some("f64".into())
    }
    fn decode(bytes: &mut &[u8]) -> Result<Self> {
        let ordered = u64::from_be_bytes(take(bytes, "f64")?);
        Ok(f64::from_bits(if ordered & SIGN != 0 { ordered ^ SIGN } else { !ordered }))
    }
}

impl Key for bool {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn kind() -> Option<String> {
        Some("bool".into())
    }
    fn decode(bytes: &mut &[u8]) -> Result<Self> {
        Ok(take::<1>(bytes, "bool")?[0] != 0)
    }
}

impl Key for () {
    fn encode(&self, _: &mut Vec<u8>) {}
    fn kind() -> Option<String> {
        Some("()".into())
    }
    fn decode(_: &mut &[u8]) -> Result<Self> {
        Ok(())
    }
}

/// The canonical bytes of bytes or text: they end with `00 00`; a zero byte inside becomes `00 FF`, so that a prefix sorts
/// first.
pub fn encode_bytes(mut value: &[u8], out: &mut Vec<u8>) {
    while let Some(zero) = value.iter().position(|&b| b == 0) {
        out.extend_from_slice(&value[..=zero]);
        out.push(0xFF);
        value = &value[zero + 1..];
    }
    out.extend_from_slice(value);
    out.extend_from_slice(&[0, 0]);
}

/// Reads what [`encode_bytes`] wrote from the front.
///
/// # Errors
/// When the bytes end before their end mark.
pub fn decode_bytes<'a>(bytes: &mut &'a [u8]) -> Result<Cow<'a, [u8]>> {
    let mut value = Cow::Borrowed(&[][..]);
    loop {
        let zero = bytes.iter().position(|&b| b == 0).ok_or_else(|| short("bytes"))?;
        let (part, rest) = bytes.split_at(zero);
        let (mark, rest) = rest.split_first_chunk::<2>().ok_or_else(|| short("bytes"))?;
        *bytes = rest;
        if value.is_empty() {
            value = Cow::Borrowed(part);
        } else {
            value.to_mut().extend_from_slice(part);
        }
        if mark[1] == 0 {
            return Ok(value);
        }
        value.to_mut().push(0);
    }
}

fn decode_text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| short("a string (not UTF-8)"))
}

impl Key for Vec<u8> {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_bytes(self, out);
    }
    fn kind() -> Option<String> {
        Some("bytes".into())
    }
    fn decode(bytes: &mut &[u8]) -> Result<Self> {
        Ok(decode_bytes(bytes)?.into_owned())
    }
}

impl Key for String {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_bytes(self.as_bytes(), out);
    }
    fn kind() -> Option<String> {
        Some("str".into())
    }
    fn decode(bytes: &mut &[u8]) -> Result<Self> {
        Ok(decode_text(&decode_bytes(bytes)?)?.to_string())
    }
}

impl Key for Str {
    fn kind() -> Option<String> {
        Some("str".into())
    }
    fn encode(&self, out: &mut Vec<u8>) {
        encode_bytes(self.as_bytes(), out);
    }
    fn decode(bytes: &mut &[u8]) -> Result<Self> {
        Ok(decode_text(&decode_bytes(bytes)?)?.into())
    }
}

impl<K: Key> Key for Option<K> {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            None => out.push(0),
            Some(k) => {
                out.push(1);
                k.encode(out);
            }
        }
    }
    fn kind() -> Option<String> {
        K::kind().map(|kind| format!("{kind}?"))
    }
    fn decode(bytes: &mut &[u8]) -> Result<Self> {
        Ok(match take::<1>(bytes, "an option")? {
            [0] => None,
            _ => Some(K::decode(bytes)?),
        })
    }
}

impl Key for DateTime<Utc> {
    fn encode(&self, out: &mut Vec<u8>) {
        self.timestamp_millis().encode(out);
    }
    fn kind() -> Option<String> {
        Some("i64".into())
    }
    fn decode(bytes: &mut &[u8]) -> Result<Self> {
        DateTime::from_timestamp_millis(i64::decode(bytes)?).ok_or_else(|| short("a time (out of range)"))
    }
}

macro_rules! tuple_key {
    ($($name:ident $i:tt),+) => {
        impl<$($name: Key),+> Key for ($($name,)+) {
            fn encode(&self, out: &mut Vec<u8>) { $(self.$i.encode(out);)+ }
            fn decode(bytes: &mut &[u8]) -> Result<Self> { Ok(($($name::decode(bytes)?,)+)) }
            fn kind() -> Option<String> {
                let parts: Option<Vec<String>> = [$($name::kind()),+].into_iter().collect();
                parts.map(|parts| format!("({})", parts.join(", ")))
            }
        }
    };
}
tuple_key!(A 0);
tuple_key!(A 0, B 1);
tuple_key!(A 0, B 1, C 2);
tuple_key!(A 0, B 1, C 2, D 3);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes<K: Key>(k: &K) -> Vec<u8> {
        let mut out = Vec::new();
        k.encode(&mut out);
        out
    }

    proptest! {
        #[test]
        fn strings_keep_order_and_come_back(a in "[\\x00a-c\u{ff}]{0,8}|.{0,8}", b in "[\\x00a-c]{0,8}", x: i64, y: i64) {
            let (ka, kb) = ((a.clone(), x), (b.clone(), y));
            prop_assert_eq!(ka.cmp(&kb), bytes(&ka).cmp(&bytes(&kb)));
            prop_assert_eq!(bytes(&Str::from(&a)), bytes(&a));
            prop_assert_eq!(<(Str, i64)>::decode(&mut &bytes(&ka)[..]).unwrap(), (Str::from(&a), x));
            prop_assert_eq!(<(String, i64)>::decode(&mut &bytes(&ka)[..]).unwrap(), ka);
        }

        #[test]
        fn floats_keep_order(a: f64, b: f64) {
            prop_assume!(!a.is_nan() && !b.is_nan());
            prop_assert_eq!(a.partial_cmp(&b).unwrap(), bytes(&a).cmp(&bytes(&b)));
        }

        #[test]
        fn damaged_bytes_never_panic(junk in proptest::collection::vec(any::<u8>(), 0..20)) {
            let _ = <(String, Option<i64>, f64)>::decode(&mut &junk[..]);
        }

        #[test]
        fn every_group_belongs_to_the_task_whose_range_holds_it(p in 1u32..200, max in 1u16..512) {
            prop_assume!(p <= u32::from(max));
            for g in 0..max {
                prop_assert!(key_groups_of(task_of(g, p, max), p, max).contains(&g));
            }
        }
    }

    #[test]
    fn zeros_are_one_key_and_nans_are_one_key() {
        assert_eq!(bytes(&0.0f64), bytes(&-0.0f64));
        assert_eq!(bytes(&f64::NAN), bytes(&-f64::NAN));
        assert!(bytes(&f64::NAN) > bytes(&f64::INFINITY));
    }
}
