//! Entries in the order of time, read from a store a part at a time.
//!
//! A store has them by key group, and in the order of time within each. So each group is read a little way on, and the part
//! ends where the first of those ways does: what lies before that is all there is.
//!
//! Invariant: a part holds every stored entry from where it was begun to its end, of a key and time all or none, and at least
//! one if any is left. It rests on canonical keys: none is the beginning of another, so that bytes in the store order as
//! (time, key) does. Only the empty key, NULL in SQL, is the beginning of all; it is looked for by itself.

use super::keyspace::{Place, damaged, split_time, time_bytes};
use crate::error::Result;
use crate::record::{KeyGroup, key_group};
use std::cmp::Ordering;
use twox_hash::XxHash3_64;

/// Bytes that are read for a part, of all groups together.
const BYTES: usize = if cfg!(test) { 256 } else { 4 << 20 };

/// An entry's name, as the store has it behind group and table: time | key | tag | length of the key.
pub(super) struct Name<'a> {
    pub(super) time: i64,
    pub(super) key: &'a [u8],
    pub(super) tag: &'a [u8],
}

impl<'a> Name<'a> {
    pub(super) fn of(stored: &'a [u8]) -> Result<Name<'a>> {
        let (time, rest) = split_time(stored)?;
        let (bytes, key_len) = rest.split_last_chunk::<4>().ok_or_else(|| damaged("an ordered entry is cut short"))?;
        let key_len = u32::from_be_bytes(*key_len) as usize;
        let (key, tag) = bytes.split_at_checked(key_len).ok_or_else(|| damaged("the key of an ordered entry is cut short"))?;
        Ok(Name { time, key, tag })
    }
}

/// A place in the order of entries: before all tags of a key at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment {
    pub(super) time: i64,
    key: Vec<u8>,
}

impl Moment {
    /// Before all entries of a time.
    pub(super) fn begin(time: i64) -> Moment {
        Moment { time, key: Vec::new() }
    }

    /// Whether an entry lies before it.
    pub(super) fn is_after(&self, time: i64, key: &[u8]) -> bool {
        time.cmp(&self.time).then_with(|| key.cmp(&self.key)) == Ordering::Less
    }

    fn bytes(&self) -> Vec<u8> {
        [&time_bytes(self.time)[..], &self.key].concat()
    }
}

/// See the module's header.
pub(super) struct Part {
    /// Group, name and value of what was read, in order within a group; some may lie behind the end.
    read: Vec<(KeyGroup, Vec<u8>, Vec<u8>)>,
    /// Where the next part begins; `None` if this is the last.
    pub(super) end: Option<Moment>,
}

impl Part {
    /// What comes first from a moment on.
    pub(super) fn read(place: &Place, from: &Moment) -> Result<Part> {
        let (mut part, room) = (Part { read: Vec::new(), end: None }, BYTES / place.groups.len().max(1));
        for group in place.groups.clone() {
            let mut taken = 0;
            place.scan_from(group, &from.bytes(), |bytes, value| {
                let Name { time, key, .. } = Name::of(bytes)?;
                if part.is_behind(time, key) {
                    return Ok(false);
                }
                let begins = &bytes[..size_of::<i64>() + key.len()];
                let is_next = || !key.is_empty() && !part.read.last().is_some_and(|(_, last, _)| last.starts_with(begins));
                if taken > room && is_next() {
                    part.end = Some(Moment { time, key: key.to_vec() });
                    return Ok(false);
                }
                if !from.is_after(time, key) {
                    taken += bytes.len() + value.len();
                    part.read.push((group, bytes.to_vec(), value.to_vec()));
                }
                Ok(true)
            })?;
        }
        if let Some(begin) = part.end.as_ref().map(|end| Moment::begin(end.time))
            && *from <= begin
        {
            part.read_empty_key(place, &begin)?;
        }
        Ok(part)
    }

    /// Entries of the empty key at a time: they come first, but the store may have them between those of other keys.
    fn read_empty_key(&mut self, place: &Place, begin: &Moment) -> Result<()> {
        let group = key_group(XxHash3_64::oneshot(&[]), place.max_parallelism);
        if !place.groups.contains(&group) {
            return Ok(());
        }
        place.scan_from(group, &begin.bytes(), |bytes, value| {
            let Name { time, key, .. } = Name::of(bytes)?;
            if time == begin.time && key.is_empty() {
                self.read.push((group, bytes.to_vec(), value.to_vec()));
            }
            Ok(time == begin.time)
        })
    }

    fn is_behind(&self, time: i64, key: &[u8]) -> bool {
        self.end.as_ref().is_some_and(|end| !end.is_after(time, key))
    }

    /// Visits its entries, those of the empty key twice perhaps: group, bytes of the name and what they say, value.
    pub(super) fn for_each(&self, mut visit: impl FnMut(KeyGroup, &[u8], &Name<'_>, &[u8]) -> Result<()>) -> Result<()> {
        for (group, bytes, value) in &self.read {
            let name = Name::of(bytes)?;
            if !self.is_behind(name.time, name.key) {
                visit(*group, bytes, &name, value)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Keys;
    use crate::state::{MemoryStore, StateStore, TableContext, WriteBatch, state_key, table_id};
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::sync::Arc;

    const GROUPS: u16 = 8;

    proptest! {
        /// However they lie: parts are whole, in order, small, and all there is.
        #[test]
        fn parts_make_up_what_is_stored(entries in proptest::collection::btree_set((prop_oneof![-3i64..3, any::<i64>()], 0u16..40, any::<u8>()), 0..120), from in -4i64..4) {
            let (store, mut batch, mut expected) = (Arc::new(MemoryStore::default()), WriteBatch::default(), BTreeSet::new());
            for (time, key, tag) in entries {
                let encoded = Keys::encode([key.to_string()].into_iter()).bytes(0, &mut [0; 8]).to_vec();
                let key = if key < 4 { Vec::new() } else { encoded };
                let name = [&time_bytes(time)[..], &key, &[tag], &(key.len() as u32).to_be_bytes()].concat();
                batch.put(state_key(key_group(XxHash3_64::oneshot(&key), GROUPS), table_id("op", "t"), &name), [0; 20]);
                if time >= from {
                    expected.insert((time, key, vec![tag]));
                }
            }
            store.write(&batch).unwrap();
            let context = TableContext { operator: "op".into(), store, groups: 0..GROUPS, max_parallelism: GROUPS };
            let place = Place::new(&context, "t");
            let mut next = Some(Moment::begin(from));
            while let Some(from) = next {
                let part = Part::read(&place, &from).unwrap();
                let mut found = BTreeSet::new();
                part.for_each(|_, _, name, _| {
                    found.insert((name.time, name.key.to_vec(), name.tag.to_vec()));
                    Ok(())
                }).unwrap();
                let before = |(time, key, _): &(i64, Vec<u8>, Vec<u8>)| part.end.as_ref().is_none_or(|end| end.is_after(*time, key));
                let expect: BTreeSet<_> = expected.extract_if(.., |entry| before(entry)).collect();
                prop_assert!(part.end.is_none() || !expect.is_empty());
                // A part has room for these; a key at a time, and the empty one, come whole.
                let keys: BTreeSet<_> = found.iter().filter(|(_, key, _)| !key.is_empty()).map(|(time, key, _)| (time, key)).collect();
                prop_assert!(keys.len() <= BYTES / 32 + usize::from(2 * GROUPS), "{} keys", keys.len());
                prop_assert_eq!(found, expect);
                next = part.end;
            }
            prop_assert!(expected.is_empty());
        }
    }
}
