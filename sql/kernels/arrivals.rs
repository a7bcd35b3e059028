//! Values in the order of their arrival: what FIRST_VALUE, LAST_VALUE, LISTAGG and ARRAY_AGG keep of rows that change.
//!
//! Invariant: a value that is taken out is the earliest that is equal; one that is taken out before it came is owed, and never
//! shows.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

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

/// Distinct values in the order in which each arrived first, with its signed count; none has a count of 0.
///
/// Of a value that is there several times, those that came later are taken out first, so that it keeps its place.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct DistinctArrivals {
    next: u64,
    values: BTreeMap<Vec<u8>, (u64, i64)>,
}

impl DistinctArrivals {
    pub(crate) fn add(&mut self, value: Vec<u8>, weight: i64) {
        let mut entry = match self.values.entry(value) {
            Entry::Vacant(entry) => entry.insert_entry((0, 0)),
            Entry::Occupied(entry) => entry,
        };
        let (number, count) = entry.get_mut();
        let was_there = *count > 0;
        *count += weight;
        if *count > 0 && !was_there {
            *number = self.next;
            self.next += 1;
        }
        if *count == 0 {
            entry.remove();
        }
    }

    /// Takes in what arrived elsewhere, later.
    pub(crate) fn merge(&mut self, later: &DistinctArrivals) {
        let mut values: Vec<_> = later.values.iter().collect();
        values.sort_unstable_by_key(|(_, (number, _))| *number);
        values.into_iter().for_each(|(value, (_, count))| self.add(value.clone(), *count));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The values that are there, the first to arrive first.
    pub(crate) fn values(&self) -> Vec<&[u8]> {
        let mut values: Vec<(u64, &[u8])> =
            self.values.iter().filter(|(_, (_, count))| *count > 0).map(|(value, (number, _))| (*number, value.as_slice())).collect();
        values.sort_unstable();
        values.into_iter().map(|(_, value)| value).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distinct_value_keeps_its_place() {
        let mut arrivals = DistinctArrivals::default();
        let add = |arrivals: &mut DistinctArrivals, values: &[(&[u8], i64)]| {
            values.iter().for_each(|(value, weight)| arrivals.add(value.to_vec(), *weight));
        };
        add(&mut arrivals, &[(b"b", 1), (b"a", 1), (b"b", 1)]);
        assert_eq!(arrivals.values(), [b"b", b"a"]);
        add(&mut arrivals, &[(b"b", -1)]);
        assert_eq!(arrivals.values(), [b"b", b"a"]);
        add(&mut arrivals, &[(b"b", -1), (b"b", 1), (b"c", -1)]);
        assert_eq!(arrivals.values(), [b"a", b"b"]);
        let mut later = DistinctArrivals::default();
        add(&mut later, &[(b"d", 1), (b"c", 2), (b"a", 1)]);
        arrivals.merge(&later);
        assert_eq!(arrivals.values(), [b"a", b"b", b"d", b"c"]);
        add(&mut arrivals, &[(b"a", -2), (b"b", -1), (b"c", -1), (b"d", -1)]);
        assert!(arrivals.is_empty());
    }

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
