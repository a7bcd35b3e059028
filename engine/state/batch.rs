//! Changes on their way to a store: keys and values in one buffer, so that an entry costs no allocation.
//!
//! Invariant: changes apply in the order they were added. What is left of them when only the outcome counts is
//! [`WriteBatch::outcome`]: each key once, in key order, behind the removed ranges.

use super::index::{ABREAST, touch};
use std::cmp::Ordering;

/// Changes to a store, applied in order as one atomic write.
///
/// ```
/// use waterwheel_engine::state::{Write, WriteBatch};
/// let mut batch = WriteBatch::default();
/// batch.put(b"card 7", b"3 payments");
/// batch.delete(b"card 9");
/// assert_eq!(batch.iter().last(), Some(Write::Delete { key: b"card 9" }));
/// ```
#[derive(Default)]
pub struct WriteBatch {
    data: Vec<u8>,
    entries: Vec<Entry>,
    ranges: usize,
}

/// Where a change lies in the buffer: `first` at `at`, `second` right behind it.
#[derive(Clone, Copy)]
struct Entry {
    at: usize,
    first: u32,
    second: u32,
    kind: Kind,
}

/// What a change does; the numbers are on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Put = 0,
    Delete = 1,
    Range = 2,
}

/// One change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write<'a> {
    /// Sets.
    Put {
        /// Full key: group, table, key.
        key: &'a [u8],
        /// Encoded value.
        value: &'a [u8],
    },
    /// Removes.
    Delete {
        /// Full key.
        key: &'a [u8],
    },
    /// Removes `from..to`.
    DeleteRange {
        /// First key removed.
        from: &'a [u8],
        /// First key kept.
        to: &'a [u8],
    },
}

impl WriteBatch {
    /// Adds a put.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.add(Kind::Put, |out| out.extend_from_slice(key.as_ref()), |out| out.extend_from_slice(value.as_ref()));
    }

    /// Adds a put whose key and value are appended to the batch's own buffer; the bytes of the value.
    pub fn put_with(&mut self, key: impl FnOnce(&mut Vec<u8>), value: impl FnOnce(&mut Vec<u8>)) -> usize {
        self.add(Kind::Put, key, value)
    }

    /// Adds a delete.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) {
        self.delete_with(|out| out.extend_from_slice(key.as_ref()));
    }

    /// Adds a delete whose key is appended to the batch's own buffer.
    pub fn delete_with(&mut self, key: impl FnOnce(&mut Vec<u8>)) {
        self.add(Kind::Delete, key, |_| {});
    }

    /// Adds a range delete.
    pub fn delete_range(&mut self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) {
        self.ranges += 1;
        self.add(Kind::Range, |out| out.extend_from_slice(from.as_ref()), |out| out.extend_from_slice(to.as_ref()));
    }

    fn add(&mut self, kind: Kind, first: impl FnOnce(&mut Vec<u8>), second: impl FnOnce(&mut Vec<u8>)) -> usize {
        let at = self.data.len();
        first(&mut self.data);
        let middle = self.data.len();
        second(&mut self.data);
        let (first, second) = (middle - at, self.data.len() - middle);
        assert!(first.max(second) <= u32::MAX as usize, "a state entry exceeds 4 GiB");
        self.entries.push(Entry { at, first: first as u32, second: second as u32, kind });
        second
    }

    /// Adds the changes of another batch after these.
    pub fn append(&mut self, other: WriteBatch) {
        if self.entries.is_empty() {
            *self = other;
            return;
        }
        self.append_copy(&other);
    }

    /// As [`append`](Self::append), of a batch that stays.
    pub(super) fn append_copy(&mut self, other: &WriteBatch) {
        let shift = self.data.len();
        self.data.extend_from_slice(&other.data);
        self.entries.extend(other.entries.iter().map(|entry| Entry { at: entry.at + shift, ..*entry }));
        self.ranges += other.ranges;
    }

    /// Whether it removes ranges.
    pub(super) fn has_ranges(&self) -> bool {
        self.ranges > 0
    }

    /// The change at a place.
    pub(super) fn nth(&self, nth: u32) -> Write<'_> {
        self.write(&self.entries[nth as usize])
    }

    /// The key of the change at a place.
    pub(super) fn key(&self, nth: u32) -> &[u8] {
        self.first(&self.entries[nth as usize])
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Bytes of memory that it takes.
    pub(super) fn memory(&self) -> usize {
        self.data.len() + self.entries.len() * size_of::<Entry>()
    }

    /// Changes.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Nothing in it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets everything but the memory.
    pub fn clear(&mut self) {
        self.data.clear();
        self.entries.clear();
        self.ranges = 0;
    }

    /// The changes, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Write<'_>> {
        self.entries.iter().map(|entry| self.write(entry))
    }

    fn first(&self, entry: &Entry) -> &[u8] {
        &self.data[entry.at..entry.at + entry.first as usize]
    }

    fn write(&self, entry: &Entry) -> Write<'_> {
        let (key, second) = (self.first(entry), &self.data[entry.at + entry.first as usize..][..entry.second as usize]);
        match entry.kind {
            Kind::Put => Write::Put { key, value: second },
            Kind::Delete => Write::Delete { key },
            Kind::Range => Write::DeleteRange { from: key, to: second },
        }
    }

    /// What the batch comes to: first the ranges, which remove what was there **before** the batch; then for each key its last
    /// change, unless a later range took it back, in key order.
    pub fn outcome(&self) -> impl Iterator<Item = Write<'_>> {
        let mut ranges = Vec::with_capacity(self.ranges);
        let mut points = Vec::with_capacity(self.entries.len() - self.ranges);
        assert!(self.entries.len() < u32::MAX as usize, "a batch of state has too many changes");
        for (nth, entry) in self.entries.iter().enumerate() {
            let first = self.first(entry);
            match self.write(entry) {
                Write::DeleteRange { from, to } if from < to => ranges.push((from, to, nth)),
                Write::DeleteRange { .. } => {}
                _ => points.push((prefix(first), nth as u32)),
            }
        }
        points.sort_unstable_by(|a, b| self.order(a, b));
        ranges.sort_unstable();
        let removed: Vec<_> = ranges.iter().map(|&(from, to, _)| Write::DeleteRange { from, to }).collect();
        let mut covered = Covered::new(ranges);
        let mut at = 0;
        let rest = std::iter::from_fn(move || {
            loop {
                let &(start, nth) = points.get(at)?;
                if at.is_multiple_of(ABREAST) {
                    self.touch(&points[at..points.len().min(at + ABREAST)]);
                }
                at += 1;
                let entry = &self.entries[nth as usize];
                let key = self.first(entry);
                let again = |&(other, later): &(Prefix, u32)| other == start && self.first(&self.entries[later as usize]) == key;
                if points.get(at).is_some_and(again) || covered.takes_back(key, nth as usize) {
                    continue;
                }
                return Some(self.write(entry));
            }
        });
        removed.into_iter().chain(rest)
    }

    /// Fetches changes into the cache: in key order they lie all over the buffer.
    fn touch(&self, points: &[(Prefix, u32)]) {
        touch(points.iter().map(|&(_, nth)| nth), |nth| {
            let entry = &self.entries[nth as usize];
            let byte = |at: usize| self.data.get(at).copied().unwrap_or_default() as usize;
            byte(entry.at) + byte(entry.at + entry.first as usize + entry.second as usize)
        });
    }

    /// By key, then by age.
    fn order(&self, a: &(Prefix, u32), b: &(Prefix, u32)) -> Ordering {
        let keys = || self.first(&self.entries[a.1 as usize]).cmp(self.first(&self.entries[b.1 as usize]));
        a.0.cmp(&b.0).then_with(keys).then(a.1.cmp(&b.1))
    }
}

/// The first 24 bytes of a key as numbers that order as they do: key group, table and most of the key, so that nearly all
/// comparisons end here.
type Prefix = [u64; 3];

pub(super) fn prefix(key: &[u8]) -> Prefix {
    let mut start = [0; 24];
    let len = key.len().min(24);
    start[..len].copy_from_slice(&key[..len]);
    let (parts, _) = start.as_chunks::<8>();
    [parts[0], parts[1], parts[2]].map(u64::from_be_bytes)
}

/// Removed ranges, met in key order.
pub(super) struct Covered<K> {
    /// Sorted: from, to, age.
    ranges: Vec<(K, K, usize)>,
    next: usize,
    /// Those that have begun: end and age.
    open: Vec<(K, usize)>,
}

impl<K: AsRef<[u8]> + Clone> Covered<K> {
    /// Of ranges sorted by their beginning; the larger `age`, the later.
    pub(super) fn new(ranges: Vec<(K, K, usize)>) -> Self {
        Covered { ranges, next: 0, open: Vec::new() }
    }

    /// Whether a range that is later than `age` removes the key. Keys come ascending.
    pub(super) fn takes_back(&mut self, key: &[u8], age: usize) -> bool {
        while let Some((from, to, later)) = self.ranges.get(self.next)
            && from.as_ref() <= key
        {
            self.open.push((to.clone(), *later));
            self.next += 1;
        }
        self.open.retain(|(to, _)| to.as_ref() > key);
        self.open.iter().any(|(_, later)| *later > age)
    }
}

impl std::fmt::Debug for WriteBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Debug, Clone)]
    enum Change {
        Put(Vec<u8>, u8),
        Delete(Vec<u8>),
        Range(Vec<u8>, Vec<u8>),
    }

    fn key() -> impl Strategy<Value = Vec<u8>> {
        // Some differ only beyond the 24 bytes that are compared first, or are the start of another.
        (0usize..3, 0u8..4).prop_map(|(len, k)| [&[7; 23][..], &vec![0; len], &[k]].concat())
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            4 => (key(), any::<u8>()).prop_map(|(k, v)| Change::Put(k, v)),
            2 => key().prop_map(Change::Delete),
            1 => (key(), key()).prop_map(|(a, b)| Change::Range(a, b)),
        ]
    }

    fn apply(map: &mut BTreeMap<Vec<u8>, Vec<u8>>, write: Write<'_>) {
        match write {
            Write::Put { key, value } => drop(map.insert(key.to_vec(), value.to_vec())),
            Write::Delete { key } => drop(map.remove(key)),
            Write::DeleteRange { from, to } => map.retain(|key, _| !(from <= &key[..] && &key[..] < to)),
        }
    }

    proptest! {
        #[test]
        fn the_outcome_is_that_of_the_changes_in_order(
            before in proptest::collection::btree_map(key(), proptest::collection::vec(any::<u8>(), 1), 0..6),
            changes in proptest::collection::vec(change(), 0..30),
            cut in 0usize..30,
        ) {
            let (mut batch, mut second) = (WriteBatch::default(), WriteBatch::default());
            for (nth, change) in changes.iter().enumerate() {
                let to = if nth < cut { &mut batch } else { &mut second };
                match change {
                    Change::Put(k, v) => to.put(k, [*v]),
                    Change::Delete(k) => to.delete(k),
                    Change::Range(a, b) => to.delete_range(a, b),
                }
            }
            batch.append(second);
            prop_assert_eq!(batch.len(), changes.len());
            let (mut in_order, mut by_outcome) = (before.clone(), before);
            batch.iter().for_each(|write| apply(&mut in_order, write));
            let mut last: Option<Vec<u8>> = None;
            for write in batch.outcome() {
                match write {
                    Write::Put { key, .. } | Write::Delete { key } => {
                        prop_assert!(last.as_deref().is_none_or(|last| last < key), "in key order, each once");
                        last = Some(key.to_vec());
                    }
                    Write::DeleteRange { .. } => prop_assert!(last.is_none(), "ranges first"),
                }
                apply(&mut by_outcome, write);
            }
            prop_assert_eq!(by_outcome, in_order);
        }
    }
}
