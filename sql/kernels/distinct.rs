//! Which values have been seen, and by which calls: COUNT(DISTINCT x) with several filters keeps each value once.
//!
//! Only for rows that are never taken away: a value that was seen stays seen.
//!
//! Invariant: a call counts a value when it sees it first; a value has one bit a call. No order of a table reaches a result.

use super::value::Cells;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::hash::Hash;

/// Calls of one family: as many as there are bits.
pub(super) const MOST: usize = 32;

/// Values with the calls that have seen them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Seen {
    /// Integers, times.
    Ints(Bits<i64>),
    /// Canonical bytes of all else.
    Other(Bits<Vec<u8>>),
}

/// By value, one bit a call.
#[derive(Debug, Clone)]
pub(super) struct Bits<V>(HashMap<V, u32, FixedState>);

impl<V> Default for Bits<V> {
    fn default() -> Self {
        Bits(HashMap::with_hasher(FixedState::default()))
    }
}

impl<V: Eq + Hash> Bits<V> {
    /// Sets bits of a value; those that were not set before.
    fn set(&mut self, value: V, bits: u32) -> u32 {
        let known = self.0.entry(value).or_insert(0);
        let fresh = bits & !*known;
        *known |= bits;
        fresh
    }
}

/// As a list of pairs.
impl<V: Serialize> Serialize for Bits<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter())
    }
}

impl<'de, V: Deserialize<'de> + Eq + Hash> Deserialize<'de> for Bits<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pairs = Vec::<(V, u32)>::deserialize(deserializer)?;
        let mut bits = Bits::default();
        bits.0.extend(pairs);
        Ok(bits)
    }
}

impl Seen {
    /// None yet, of values that are numbers or not.
    pub(super) fn none(numbers: bool) -> Seen {
        if numbers { Seen::Ints(Bits::default()) } else { Seen::Other(Bits::default()) }
    }

    /// Notes that some calls see the value of a row, which is not NULL; those that had not seen it before.
    pub(super) fn see(&mut self, cells: &Cells, row: usize, calls: u32) -> u32 {
        match (self, cells) {
            (Seen::Ints(seen), Cells::Int(a)) => seen.set(a.value(row), calls),
            (Seen::Other(seen), cells) => {
                let mut bytes = Vec::new();
                cells.encode(row, &mut bytes);
                seen.set(bytes, calls)
            }
            (Seen::Ints(_), _) => unreachable!("plan bug: values of another class than planned"),
        }
    }

    /// Takes in what was seen elsewhere; how many values each call had not seen before.
    pub(super) fn merge(&mut self, other: &Seen) -> [i64; MOST] {
        let mut counts = [0; MOST];
        let mut count = |mut fresh: u32| {
            while fresh != 0 {
                counts[fresh.trailing_zeros() as usize] += 1;
                fresh &= fresh - 1;
            }
        };
        match (self, other) {
            (Seen::Ints(seen), Seen::Ints(more)) => more.0.iter().for_each(|(value, calls)| count(seen.set(*value, *calls))),
            (Seen::Other(seen), Seen::Other(more)) => more.0.iter().for_each(|(value, calls)| count(seen.set(value.clone(), *calls))),
            _ => unreachable!("plan bug: parts of different aggregates are merged"),
        }
        counts
    }
}
