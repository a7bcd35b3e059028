//! Key bytes to dense `u32` slots: one lookup per row, array access from there on.
//!
//! Keys of 8 bytes are compared as numbers; others live in an arena. Hashes come frozen with the batch.
//!
//! Invariant: two keys share a slot only if their bytes are equal; the hash alone never decides. A released slot is reused.

use super::names::{Arena, Span};
use crate::record::{KeyGroup, Keys, key_group};
use hashbrown::HashTable;
use std::cmp::Ordering;

/// So many keys are looked up, or cells drained, side by side.
pub(super) const ABREAST: usize = 32;

/// Reads something of each slot, for what lies there to be in the cache soon. The reads do not depend on each other, so that
/// the processor waits for all of them at once.
pub(super) fn touch(slots: impl Iterator<Item = u32>, read: impl Fn(u32) -> usize) {
    std::hint::black_box(slots.fold(0, |sum: usize, slot| sum.wrapping_add(read(slot))));
}

/// Canonical key bytes to slots.
///
/// ```
/// use waterwheel_engine::{record::Keys, state::KeyIndex};
/// let mut index = KeyIndex::new();
/// let (mut slots, mut fresh) = (Vec::new(), Vec::new());
/// index.resolve(&Keys::encode([7u64, 9, 7].into_iter()), &mut slots, &mut fresh);
/// assert_eq!(slots, [0, 1, 0]);
/// assert_eq!(fresh, [0, 1]);
/// ```
#[derive(Debug, Default)]
pub struct KeyIndex {
    table: HashTable<u32>,
    /// By slot, as all below.
    hashes: Vec<u64>,
    live: Vec<bool>,
    keys: Stored,
    free: Vec<u32>,
}

#[derive(Debug)]
enum Stored {
    /// As long as every key seen has 8 bytes.
    Numbers(Vec<u64>),
    Bytes(Arena),
}

impl Default for Stored {
    fn default() -> Self {
        Stored::Numbers(Vec::new())
    }
}

impl Stored {
    fn is(&self, slot: u32, key: &[u8]) -> bool {
        match self {
            Stored::Numbers(numbers) => key == numbers[slot as usize].to_be_bytes(),
            Stored::Bytes(arena) => key == arena.get(slot),
        }
    }
}

impl KeyIndex {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Finds or makes the slot of every key, in row order, replacing the content of `slots`. Slots made now are appended to
    /// `fresh`, each once.
    pub fn resolve(&mut self, keys: &Keys, slots: &mut Vec<u32>, fresh: &mut Vec<u32>) {
        slots.clear();
        slots.reserve(keys.len());
        if let (Some(numbers), Stored::Numbers(_)) = (keys.as_u64(), &self.keys) {
            return self.resolve_numbers(numbers, keys.hashes(), slots, fresh);
        }
        let mut scratch = [0; 8];
        for first in (0..keys.len()).step_by(ABREAST) {
            let rows = first..keys.len().min(first + ABREAST);
            let likely = self.likely(&keys.hashes()[rows.clone()]);
            for (row, likely) in rows.zip(likely) {
                let key = keys.bytes(row, &mut scratch);
                let slot = match likely {
                    Some(slot) if self.keys.is(slot, key) => slot,
                    _ => self.resolve_one(key, keys.hashes()[row], fresh),
                };
                slots.push(slot);
            }
        }
    }

    /// For some hashes the slot whose key will nearly always be the one looked for, its bytes already on their way into the
    /// cache: looked up one after the other, each key would wait for memory four times.
    fn likely(&self, hashes: &[u64]) -> [Option<u32>; ABREAST] {
        let mut slots = [None; ABREAST];
        for (slot, &hash) in slots.iter_mut().zip(hashes) {
            *slot = self.table.find(hash, |&slot| self.hashes[slot as usize] == hash).copied();
        }
        if let Stored::Bytes(arena) = &self.keys {
            arena.touch(slots.iter().flatten().copied());
        }
        slots
    }

    /// Fetches the keys of some live slots into the cache.
    pub(super) fn touch(&self, slots: impl Iterator<Item = u32>) {
        match &self.keys {
            Stored::Numbers(numbers) => touch(slots, |slot| numbers[slot as usize] as usize),
            Stored::Bytes(arena) => arena.touch(slots),
        }
    }

    /// Fetches what [`release`](Self::release) of some slots looks at into the cache.
    pub(super) fn touch_entries(&self, slots: impl Iterator<Item = u32>) {
        touch(slots, |slot| self.table.find(self.hashes[slot as usize], |&other| other == slot).map_or(0, |&slot| slot as usize));
    }

    fn resolve_numbers(&mut self, numbers: &[u64], hashes: &[u64], slots: &mut Vec<u32>, fresh: &mut Vec<u32>) {
        for (&number, &hash) in numbers.iter().zip(hashes) {
            let Stored::Numbers(stored) = &self.keys else { unreachable!("the caller looked") };
            let slot = match self.table.find(hash, |&slot| stored[slot as usize] == number) {
                Some(&slot) => slot,
                None => self.insert(&number.to_be_bytes(), hash, fresh),
            };
            slots.push(slot);
        }
    }

    /// Finds or makes the slot of one key, given as canonical bytes with their hash.
    pub fn resolve_one(&mut self, key: &[u8], hash: u64, fresh: &mut Vec<u32>) -> u32 {
        match self.find(key, hash) {
            Some(slot) => slot,
            None => self.insert(key, hash, fresh),
        }
    }

    /// The slot of a key that has one.
    pub fn find(&self, key: &[u8], hash: u64) -> Option<u32> {
        self.table.find(hash, |&slot| self.keys.is(slot, key)).copied()
    }

    #[cold]
    fn insert(&mut self, key: &[u8], hash: u64, fresh: &mut Vec<u32>) -> u32 {
        let slot = self.free.pop().unwrap_or(self.hashes.len() as u32);
        assert!(slot < u32::MAX, "an index of keys is full: 2^32 - 1 slots");
        self.store(slot, key);
        let at = slot as usize;
        if at == self.hashes.len() {
            self.hashes.push(hash);
            self.live.push(true);
        } else {
            self.hashes[at] = hash;
            self.live[at] = true;
        }
        let hashes = &self.hashes;
        self.table.insert_unique(hash, slot, |&slot| hashes[slot as usize]);
        fresh.push(slot);
        slot
    }

    fn store(&mut self, slot: u32, key: &[u8]) {
        if let Stored::Numbers(numbers) = &mut self.keys {
            if let Ok(key) = <[u8; 8]>::try_from(key) {
                let number = u64::from_be_bytes(key);
                match numbers.get_mut(slot as usize) {
                    Some(old) => *old = number,
                    None => numbers.push(number),
                }
                return;
            }
            // The first key of another length: from here on all are bytes.
            let mut arena = Arena::default();
            for (old, number) in numbers.iter().enumerate().filter(|(old, _)| self.live[*old]) {
                arena.set(old as u32, &number.to_be_bytes());
            }
            self.keys = Stored::Bytes(arena);
        }
        if let Stored::Bytes(arena) = &mut self.keys {
            arena.set(slot, key);
        }
    }

    /// Canonical bytes of a live slot's key, through a scratch for number keys.
    pub fn key_bytes<'a>(&'a self, slot: u32, scratch: &'a mut [u8; 8]) -> &'a [u8] {
        match &self.keys {
            Stored::Numbers(numbers) => {
                *scratch = numbers[slot as usize].to_be_bytes();
                scratch
            }
            Stored::Bytes(arena) => arena.get(slot),
        }
    }

    /// The keys of live slots as a column.
    pub fn keys(&self, slots: impl Iterator<Item = u32> + Clone) -> Keys {
        let hashes = slots.clone().map(|slot| self.hashes[slot as usize]).collect();
        match &self.keys {
            Stored::Numbers(numbers) => Keys::of_numbers(slots.map(|slot| numbers[slot as usize]).collect(), hashes),
            Stored::Bytes(arena) => Keys::of_column(slots.map(|slot| arena.get(slot)), hashes),
        }
    }

    /// The frozen hash of a live slot's key.
    pub fn hash(&self, slot: u32) -> u64 {
        self.hashes[slot as usize]
    }

    /// The key group of a live slot's key.
    pub fn group(&self, slot: u32, max_parallelism: u16) -> KeyGroup {
        key_group(self.hashes[slot as usize], max_parallelism)
    }

    /// Whether a slot has a key.
    pub fn is_live(&self, slot: u32) -> bool {
        self.live.get(slot as usize).copied().unwrap_or(false)
    }

    /// Forgets a live slot's key; the slot may come back for another one.
    pub fn release(&mut self, slot: u32) {
        let hash = self.hashes[slot as usize];
        match self.table.find_entry(hash, |&s| s == slot) {
            Ok(entry) => entry.remove(),
            Err(_) => unreachable!("slot {slot} is released twice"),
        };
        self.live[slot as usize] = false;
        if let Stored::Bytes(arena) = &mut self.keys {
            arena.free(slot);
        }
        self.free.push(slot);
    }

    /// Live keys.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// No live key.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// One more than the largest slot ever given: the size of an array over slots.
    pub fn slots(&self) -> usize {
        self.hashes.len()
    }

    /// Live slots, ascending: stable, though no order of keys.
    pub fn live_slots(&self) -> impl Iterator<Item = u32> + '_ {
        self.live.iter().enumerate().filter(|(_, live)| **live).map(|(slot, _)| slot as u32)
    }

    /// How the keys of two live slots compare.
    pub fn compare(&self, a: u32, b: u32) -> Ordering {
        match &self.keys {
            Stored::Numbers(numbers) => numbers[a as usize].cmp(&numbers[b as usize]),
            Stored::Bytes(arena) => arena.get(a).cmp(arena.get(b)),
        }
    }

    /// Sorts live slots by key bytes: the order of everything that fires.
    pub fn sort(&self, slots: &mut [u32]) {
        match &self.keys {
            Stored::Numbers(numbers) => slots.sort_unstable_by_key(|&slot| numbers[slot as usize]),
            Stored::Bytes(arena) => slots.sort_unstable_by(|&a, &b| arena.get(a).cmp(arena.get(b))),
        }
    }

    /// Bytes held for the live keys.
    pub fn bytes(&self) -> usize {
        let keys = match &self.keys {
            Stored::Numbers(_) => self.len() * 8,
            Stored::Bytes(arena) => arena.bytes() + self.len() * size_of::<Span>(),
        };
        // Hash, liveness, and a table that is 7/8 full at most and half full on average.
        keys + self.len() * (8 + 1 + 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use twox_hash::XxHash3_64;

    #[test]
    fn keys_with_one_hash_get_slots_of_their_own() {
        let (mut index, mut fresh) = (KeyIndex::new(), Vec::new());
        let slots: Vec<u32> = (0..100u64).map(|k| index.resolve_one(&k.to_be_bytes(), 42, &mut fresh)).collect();
        assert_eq!(slots, (0..100).collect::<Vec<u32>>());
        assert_eq!(index.find(&77u64.to_be_bytes(), 42), Some(77));
        assert_eq!(index.find(&777u64.to_be_bytes(), 42), None);
    }

    #[test]
    fn number_keys_survive_the_change_to_bytes() {
        let (mut index, mut slots, mut fresh) = (KeyIndex::new(), Vec::new(), Vec::new());
        index.resolve(&Keys::encode([1u64, 2, 3].into_iter()), &mut slots, &mut fresh);
        index.release(1);
        let text = Keys::encode(["two".to_string()].into_iter());
        index.resolve(&text, &mut slots, &mut fresh);
        assert_eq!(slots, [1]);
        assert_eq!(index.key_bytes(0, &mut [0; 8]), 1u64.to_be_bytes());
        index.resolve(&Keys::encode([3u64].into_iter()), &mut slots, &mut fresh);
        assert_eq!(slots, [2]);
    }

    fn key() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(0u8..3, 0..3),
            proptest::collection::vec(0u8..2, 8..9),
            proptest::collection::vec(0u8..2, 600..602),
        ]
    }

    proptest! {
        #[test]
        fn index_is_a_map_under_churn(script in proptest::collection::vec((any::<bool>(), key()), 0..200)) {
            let (mut index, mut model, mut fresh) = (KeyIndex::new(), BTreeMap::new(), Vec::new());
            for (add, key) in script {
                // A weak hash, so that collisions are common.
                let hash = XxHash3_64::oneshot(&key) & 3;
                if add {
                    let slot = index.resolve_one(&key, hash, &mut fresh);
                    let old = model.insert(key, slot);
                    prop_assert!(old.is_none_or(|old| old == slot));
                } else if let Some(slot) = model.remove(&key) {
                    index.release(slot);
                } else {
                    prop_assert_eq!(index.find(&key, hash), None);
                }
                prop_assert_eq!(index.len(), model.len());
                for (key, &slot) in &model {
                    let mut scratch = [0; 8];
                    prop_assert_eq!(index.key_bytes(slot, &mut scratch), &key[..]);
                }
            }
            let mut slots: Vec<u32> = index.live_slots().collect();
            index.sort(&mut slots);
            prop_assert_eq!(slots, model.into_values().collect::<Vec<_>>());
        }
    }
}
