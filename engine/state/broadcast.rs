//! A map that every task holds whole: rules, settings, small dimensions.
//!
//! Every task gets the same changes, so every task has the same content; each writes it under **each** key group that it
//! owns. So whatever task owns a group after a rescale finds the whole map there, at the price of one copy per key group in
//! the store: for some thousands of entries. Lives in memory whole.
//!
//! Invariant: at a barrier the maps of all tasks are equal, and so are the copies of all key groups.

use super::evolve::rewrite;
use super::keyspace::{Place, damaged, state_key, table_range};
use super::value::{StateValue, check_codec, decode, encode, key_text, schema_of};
use super::{Schema, Table, TableContext, WriteBatch};
use crate::error::Result;
use crate::record::{Epoch, Key, KeyGroup};
use std::collections::{BTreeMap, VecDeque};

/// Canonical key bytes, and the encoded value if there is one now.
type Change = (Vec<u8>, Option<Vec<u8>>);

/// See the module's header.
pub struct BroadcastTable<K, V> {
    name: String,
    place: Option<Place>,
    /// By canonical key bytes.
    entries: BTreeMap<Vec<u8>, (K, V)>,
    changed: Vec<Change>,
    frozen: VecDeque<Change>,
    /// Key group that the first frozen change is to be written to next.
    next_group: KeyGroup,
    bytes: usize,
}

impl<K: Key, V: StateValue> BroadcastTable<K, V> {
    /// A table of that name, unique within its operator.
    pub fn new(name: &str) -> Self {
        let (entries, changed, frozen) = Default::default();
        BroadcastTable { name: name.to_string(), place: None, entries, changed, frozen, next_group: 0, bytes: 0 }
    }

    /// Sets (`Some`) or removes an entry. All tasks must do the same.
    pub fn change(&mut self, key: K, value: Option<V>) {
        let mut name = Vec::new();
        key.encode(&mut name);
        let encoded = value.as_ref().map(|value| encode(value));
        let size = |value: &Option<Vec<u8>>| value.as_ref().map_or(0, |v| 2 * (name.len() + v.len()) + 64);
        self.bytes += size(&encoded);
        let old = match value {
            Some(value) => self.entries.insert(name.clone(), (key, value)),
            None => self.entries.remove(&name),
        };
        if let Some((_, old)) = old {
            self.bytes = self.bytes.saturating_sub(size(&Some(encode(&old))));
        } else if encoded.is_none() {
            return; // nothing was removed
        }
        self.changed.push((name, encoded));
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        let mut name = Vec::new();
        key.encode(&mut name);
        self.entries.get(&name).map(|(_, value)| value)
    }

    /// All entries, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.values().map(|(key, value)| (key, value))
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// No entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl<K: Key, V: StateValue> Table for BroadcastTable<K, V> {
    fn name(&self) -> &str {
        &self.name
    }

    fn schema(&self) -> String {
        format!("broadcast{} {}", key_text(K::kind().as_deref()), schema_of::<V>())
    }

    fn rewrite(&self, stored: &Schema, value: &[u8]) -> Result<Vec<u8>> {
        rewrite::<V>(stored, 0, value)
    }

    fn open(&mut self, context: &TableContext, restored: bool) -> Result<()> {
        check_codec::<V>().map_err(|e| e.at(format!("operator {}, table {}", context.operator, self.name)))?;
        let place = Place::new(context, &self.name);
        if restored {
            let (from, to) = table_range(place.groups.start, place.table);
            let prefix = state_key(place.groups.start, place.table, &[]).len();
            let read = place.store.scan(&from, &to, &mut |full, value| {
                let (name, mut rest) = (&full[prefix..], &full[prefix..]);
                let key = K::decode(&mut rest)?;
                if !rest.is_empty() {
                    return Err(damaged("the key of a broadcast entry is too long"));
                }
                self.bytes += 2 * (name.len() + value.len()) + 64;
                self.entries.insert(name.to_vec(), (key, decode(value)?));
                Ok(())
            });
            read.map_err(|e| e.at(place.label.clone()))?;
        }
        self.next_group = place.groups.start;
        self.place = Some(place);
        Ok(())
    }

    /// Changes of an epoch that was given up stay in front of this one's.
    fn freeze(&mut self, _epoch: Epoch) {
        self.frozen.extend(self.changed.drain(..));
    }

    fn drain(&mut self, out: &mut WriteBatch, entries: usize) -> Result<bool> {
        let Some(place) = &self.place else { return Ok(true) };
        let mut written = 0;
        while let Some((name, value)) = self.frozen.front() {
            while self.next_group < place.groups.end && written < entries {
                let full = state_key(self.next_group, place.table, name);
                match value {
                    Some(value) => out.put(full, value.clone()),
                    None => out.delete(full),
                }
                self.next_group += 1;
                written += 1;
            }
            if self.next_group < place.groups.end {
                return Ok(false);
            }
            self.next_group = place.groups.start;
            self.frozen.pop_front();
        }
        Ok(true)
    }

    fn drained(&mut self, _epoch: Epoch) {}

    fn keys(&self) -> usize {
        self.len()
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn evict(&mut self, _target: usize) -> Result<()> {
        Ok(())
    }
}
