//! What was evicted last and is not in the database yet, or just came in: a batch with an index over it.
//!
//! Keys that do not fit into memory go out and come back: what comes back soon is found here by its hash. A database's own
//! buffer is a sorted list, in which every key that goes out or comes in costs twenty steps through memory; here only what
//! leaves as a whole is sorted, once.
//!
//! Invariant: the newest change of a key that was added is the one that is found.

use super::batch::{Write, WriteBatch};
use super::index::touch;
use hashbrown::HashTable;
use twox_hash::XxHash3_64;

/// See the module's header.
#[derive(Default)]
pub(super) struct Buffer {
    batch: WriteBatch,
    /// The newest change of each key.
    index: HashTable<u32>,
}

impl Buffer {
    /// Empty, with room for as many keys as another one has: the index is not built anew again and again while it fills.
    pub(super) fn like(other: &Buffer) -> Buffer {
        Buffer { batch: WriteBatch::default(), index: HashTable::with_capacity(other.index.len()) }
    }

    /// Adds the changes of a batch without ranges.
    pub(super) fn add(&mut self, changes: &WriteBatch) {
        let first = self.batch.len() as u32;
        self.batch.append_copy(changes);
        for (nth, write) in (first..).zip(changes.iter()) {
            let (Write::Put { key, .. } | Write::Delete { key }) = write else {
                unreachable!("a range is not for a buffer: its caller looked")
            };
            let hash = Self::hash(key);
            match self.index.find_mut(hash, |&other| self.batch.key(other) == key) {
                Some(other) => *other = nth,
                None => drop(self.index.insert_unique(hash, nth, |&other| Self::hash(self.batch.key(other)))),
            }
        }
    }

    /// By which a key is found.
    pub(super) fn hash(key: &[u8]) -> u64 {
        XxHash3_64::oneshot(key)
    }

    /// Fetches the changes of some keys into the cache: one after the other each would wait for memory three times.
    pub(super) fn touch(&self, hashes: &[u64]) {
        touch(0..hashes.len() as u32, |at| {
            let likely = self.index.find(hashes[at as usize], |_| true);
            likely.and_then(|&nth| self.batch.key(nth).first()).map_or(0, |&byte| usize::from(byte))
        });
    }

    /// The newest change of a key, if there is one: its value, `None` for a removed one.
    pub(super) fn get(&self, key: &[u8], hash: u64) -> Option<Option<&[u8]>> {
        let nth = self.index.find(hash, |&nth| self.batch.key(nth) == key)?;
        match self.batch.nth(*nth) {
            Write::Put { value, .. } => Some(Some(value)),
            _ => Some(None),
        }
    }

    /// Bytes of keys and values, those that newer ones have replaced included.
    pub(super) fn bytes(&self) -> usize {
        self.batch.bytes()
    }

    /// Nothing was added.
    pub(super) fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// All of it.
    pub(super) fn batch(&self) -> &WriteBatch {
        &self.batch
    }
}
