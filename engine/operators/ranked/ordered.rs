//! Rows with what they are ordered by, as bytes: one allocation a row; and the first ones of a key.
//!
//! Invariant: two are equal if their rows are; the order of rows' bytes is that of the type.

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// Bytes that are written as such.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bytes(pub(super) Arc<[u8]>);

/// Bytes of another owner.
struct Slice<'a>(&'a [u8]);

impl Serialize for Slice<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Bytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.into()))
            }
        }
        deserializer.deserialize_bytes(Read)
    }
}

/// A row behind what it is ordered by.
#[derive(Clone)]
pub(super) struct Ordered {
    bytes: Arc<[u8]>,
    /// Where the row begins.
    at: u32,
}

impl Ordered {
    /// Of both, one behind the other.
    pub(super) fn new(bytes: &[u8], order: usize) -> Self {
        let at = u32::try_from(order).unwrap_or_else(|_| panic!("what a row is ordered by exceeds 4 GiB"));
        Ordered { bytes: bytes.into(), at }
    }

    /// What it is ordered by.
    pub(super) fn order(&self) -> &[u8] {
        &self.bytes[..self.at as usize]
    }

    /// The row.
    pub(super) fn row(&self) -> &[u8] {
        &self.bytes[self.at as usize..]
    }
}

impl fmt::Debug for Ordered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} by {:?}", self.row(), self.order())
    }
}

impl PartialEq for Ordered {
    fn eq(&self, other: &Self) -> bool {
        (self.at == other.at && Arc::ptr_eq(&self.bytes, &other.bytes)) || self.row() == other.row()
    }
}

impl Eq for Ordered {}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> Ordering {
        self.row().cmp(other.row())
    }
}

impl Serialize for Ordered {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (Slice(self.order()), Slice(self.row())).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (order, row) = <(Bytes, Bytes)>::deserialize(deserializer)?;
        Ok(Ordered::new(&[&order.0[..], &row.0].concat(), order.0.len()))
    }
}

/// The first rows of a key. Most rankings are of one row, which needs no list.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) enum First {
    #[default]
    None,
    One(Ordered),
    Many(Vec<Ordered>),
}

impl First {
    pub(super) fn rows(&self) -> &[Ordered] {
        match self {
            First::None => &[],
            First::One(row) => std::slice::from_ref(row),
            First::Many(rows) => rows,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows().is_empty()
    }

    /// Puts a row into its place, or behind all others; of more than `most` rows the last one goes.
    pub(super) fn insert(&mut self, at: usize, row: Ordered, most: usize) {
        match self {
            First::None => *self = First::One(row),
            First::One(last) if most <= 1 => *last = row,
            First::One(first) => {
                let first = first.clone();
                *self = First::Many(if at == 0 { vec![row, first] } else { vec![first, row] });
            }
            First::Many(rows) => {
                if rows.len() >= most {
                    rows.pop();
                }
                rows.insert(at.min(rows.len()), row);
            }
        }
    }
}

impl FromIterator<Ordered> for First {
    fn from_iter<I: IntoIterator<Item = Ordered>>(rows: I) -> Self {
        First::Many(rows.into_iter().collect())
    }
}
