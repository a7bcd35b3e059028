//! Values in the order of their arrival: what FIRST_VALUE, LAST_VALUE, LISTAGG and ARRAY_AGG keep of rows that change.
//!
//! Invariant: a value that is taken out is the earliest that is equal; one that is taken out before it came is owed, and never
//! shows.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Values by their canonical bytes, each with its number.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Arrivals {
    next: u64,
    values: BTreeMap<u64, Vec<u8>>,
    /// How often a value was taken out that has not come.
    owed: BTreeMap<Vec<u8>, i64>,
}

impl Arrivals {
    pub(crate) fn add(&mut self, value: &[u8], weight: i64) {
        for _ in 0..weight.unsigned_abs() {
            if weight > 0 { self.put(value) } else { self.take(value) }
        }
    }

    fn put(&mut self, value: &[u8]) {
        if let Some(count) = self.owed.get_mut(value) {
            *count -= 1;
            if *count == 0 {
                self.owed.remove(value);
            }
            return;
        }
        self.values.insert(self.next, value.to_vec());
        self.next += 1;
    }

    fn take(&mut self, value: &[u8]) {
        let at = self.values.iter().find(|(_, held)| *held == value).map(|(number, _)| *number);
        match at {
            Some(number) => drop(self.values.remove(&number)),
            None => *self.owed.entry(value.to_vec()).or_insert(0) += 1,
        }
    }

    /// Takes in what arrived elsewhere, later.
    pub(crate) fn merge(&mut self, later: &Arrivals) {
        later.values.values().for_each(|value| self.put(value));
        later.owed.iter().for_each(|(value, count)| self.add(value, -count));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty() && self.owed.is_empty()
    }

    /// The values, the first to arrive first.
    pub(crate) fn values(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.values.values().map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_of_equal_values_goes() {
        let mut arrivals = Arrivals::default();
        [b"a", b"b", b"a"].into_iter().for_each(|v| arrivals.add(v, 1));
        arrivals.add(b"a", -1);
        assert_eq!(arrivals.values().collect::<Vec<_>>(), [b"b", b"a"]);
        arrivals.add(b"c", -1);
        arrivals.add(b"c", 2);
        assert_eq!(arrivals.values().collect::<Vec<_>>(), [b"b", b"a", b"c"]);
        let mut later = Arrivals::default();
        later.add(b"b", -1);
        later.add(b"d", 1);
        arrivals.merge(&later);
        assert_eq!(arrivals.values().collect::<Vec<_>>(), [b"a", b"c", b"d"]);
        ["a", "c", "d"].into_iter().for_each(|v| arrivals.add(v.as_bytes(), -1));
        assert!(arrivals.is_empty());
    }
}
