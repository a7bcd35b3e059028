//! Entries by key and name, each on its own in the store: what one key has many of (rows that refer to it, rows of a join).
//!
//! Unlike a map kept as one value, changing an entry writes that entry only. A key's entries are in memory all or none of them:
//! those of cold keys are in the store alone, and come back when a batch names their key. Of these keys the hashes stay, so
//! that the store is not asked for keys that it does not have. A restore from a store that is in memory anyway loads all.
//!
//! Invariant: the entries of a key come in the order of their names. A key has a slot as long as it has an entry in memory (or
//! since the last `resolve`). Entries live under the key group of their key, so that they follow it through a rescale.

use super::evolve::rewrite;
use super::keyspace::{Place, damaged, state_key};
use super::value::{Heap, StateValue, check_codec, decode, encode, key_text, schema_of};
use super::{KeyIndex, Schema, Table, TableContext, WriteBatch};
use crate::error::Result;
use crate::record::{Epoch, Keys};
use hashbrown::HashMap;
use std::collections::BTreeMap;
use std::sync::Arc;
use twox_hash::XxHash3_64;

/// Encoded bytes that an eviction writes at a time.
const EVICT_WRITE: usize = 1 << 20;

/// Name of an entry, shared between the map and the change lists.
type Name = Arc<[u8]>;

struct Entry<V> {
    /// Generation of the last change not yet drained; 0 = clean.
    stamp: u32,
    /// The store may hold it.
    stored: bool,
    value: V,
}

/// See the module's header.
///
/// Slots are valid until the next `resolve`.
pub struct MapTable<V> {
    name: String,
    key: Option<String>,
    place: Option<Place>,
    index: KeyIndex,
    /// By slot.
    maps: Vec<BTreeMap<Name, Entry<V>>>,
    /// By slot: it was asked for since the clock hand passed; counted once something was evicted.
    used: Vec<bool>,
    /// By hash, how many keys have their entries in the store alone.
    cold: HashMap<u64, u32, foldhash::fast::RandomState>,
    hand: usize,
    /// Slots that may be without entries.
    fresh: Vec<u32>,
    entries: usize,
    name_bytes: usize,
    generation: u32,
    changed: Vec<(u32, Name)>,
    frozen: Vec<(u32, Name)>,
    /// Deletes of this epoch and of the frozen one; within an epoch they go before its puts.
    deletes: WriteBatch,
    frozen_deletes: WriteBatch,
    copied: WriteBatch,
    /// Left over from an epoch that was never drained.
    backlog: WriteBatch,
    heap: Heap,
}

impl<V: StateValue> MapTable<V> {
    /// A table of that name, unique within its operator.
    pub fn new(name: &str) -> Self {
        MapTable {
            name: name.to_string(),
            key: None,
            place: None,
            index: KeyIndex::new(),
            maps: Vec::new(),
            used: Vec::new(),
            cold: HashMap::default(),
            hand: 0,
            fresh: Vec::new(),
            entries: 0,
            name_bytes: 0,
            generation: 1,
            changed: Vec::new(),
            frozen: Vec::new(),
            deletes: WriteBatch::default(),
            frozen_deletes: WriteBatch::default(),
            copied: WriteBatch::default(),
            backlog: WriteBatch::default(),
            heap: Heap::new::<V>(),
        }
    }

    /// Notes the kind of its keys ([`Key::kind`](crate::record::Key::kind)): a restore with another one is refused, and tools
    /// can show them.
    #[must_use]
    pub fn with_key(mut self, kind: Option<String>) -> Self {
        self.key = kind;
        self
    }

    /// Gives every key of a batch a slot, in row order, replacing the content of `slots`, and brings back the entries of those
    /// that were cold.
    ///
    /// # Errors
    /// Of the store, or a stored value that does not decode.
    pub fn resolve(&mut self, keys: &Keys, slots: &mut Vec<u32>) -> Result<()> {
        self.sweep();
        let known = self.fresh.len();
        self.index.resolve(keys, slots, &mut self.fresh);
        self.grow();
        slots.iter().for_each(|&slot| self.used[slot as usize] = true);
        if self.cold.is_empty() {
            return Ok(());
        }
        let fresh = self.fresh[known..].to_vec();
        fresh.into_iter().try_for_each(|slot| self.warm(slot))
    }

    /// The slot of one key, given as canonical bytes with their hash, if it has entries.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub fn find(&mut self, key: &[u8], hash: u64) -> Result<Option<u32>> {
        if let Some(slot) = self.index.find(key, hash) {
            return Ok(Some(slot));
        }
        if !self.cold.contains_key(&hash) {
            return Ok(None);
        }
        let slot = self.index.resolve_one(key, hash, &mut self.fresh);
        self.grow();
        self.warm(slot)?;
        Ok(Some(slot).filter(|slot| !self.maps[*slot as usize].is_empty()))
    }

    fn grow(&mut self) {
        self.maps.resize_with(self.index.slots(), BTreeMap::new);
        self.used.resize(self.index.slots(), false);
    }

    /// Releases slots that hold nothing.
    fn sweep(&mut self) {
        for slot in std::mem::take(&mut self.fresh) {
            if self.index.is_live(slot) && self.maps[slot as usize].is_empty() {
                self.index.release(slot);
            }
        }
    }

    /// Brings back the entries of a key that has just got a slot.
    fn warm(&mut self, slot: u32) -> Result<()> {
        let hash = self.index.hash(slot);
        if !self.cold.contains_key(&hash) {
            return Ok(());
        }
        let place = self.place().clone();
        let from = self.full_key(slot, &[]);
        let (mut to, length) = (from.clone(), from.len());
        // What follows all names of this key; its length is in front of it, so that no other key begins with it.
        while to.last() == Some(&u8::MAX) {
            to.pop();
        }
        if let Some(last) = to.last_mut() {
            *last += 1;
        }
        let mut found: Vec<(Name, V)> = Vec::new();
        let mut bytes = 0;
        let read = place.store.scan(&from, &to, &mut |key, value| {
            bytes += value.len();
            found.push((key[length..].into(), decode(value)?));
            Ok(())
        });
        read.map_err(|e| e.at(place.label))?;
        let Some(mean) = bytes.checked_div(found.len()) else { return Ok(()) }; // another key of this hash
        self.heap.sample(mean);
        if let hashbrown::hash_map::Entry::Occupied(mut keys) = self.cold.entry(hash) {
            *keys.get_mut() -= 1;
            if *keys.get() == 0 {
                keys.remove();
            }
        }
        for (name, value) in found {
            self.entries += 1;
            self.name_bytes += name.len();
            self.maps[slot as usize].insert(name, Entry { stamp: 0, stored: true, value });
        }
        Ok(())
    }

    /// One entry of a key.
    pub fn get(&self, slot: u32, name: &[u8]) -> Option<&V> {
        self.maps[slot as usize].get(name).map(|entry| &entry.value)
    }

    /// Sets one entry of a key; returns what was there.
    pub fn insert(&mut self, slot: u32, name: &[u8], value: V) -> Option<V> {
        let generation = self.generation;
        let Some((shared, entry)) = self.maps[slot as usize].get_key_value(name) else {
            let name: Name = name.into();
            self.entries += 1;
            self.name_bytes += name.len();
            self.note_changed(slot, name.clone());
            self.maps[slot as usize].insert(name, Entry { stamp: generation, stored: false, value });
            return None;
        };
        let stamp = entry.stamp;
        if stamp != generation {
            let shared = shared.clone();
            if stamp != 0 {
                let encoded = encode(&entry.value);
                let key = self.full_key(slot, name);
                self.copied.put(key, encoded);
            }
            self.note_changed(slot, shared);
        }
        let entry = self.maps[slot as usize].get_mut(name)?;
        entry.stored |= stamp != 0 && stamp != generation;
        entry.stamp = generation;
        Some(std::mem::replace(&mut entry.value, value))
    }

    /// Removes one entry of a key.
    pub fn remove(&mut self, slot: u32, name: &[u8]) -> Option<V> {
        let entry = self.maps[slot as usize].remove(name)?;
        self.entries -= 1;
        self.name_bytes -= name.len();
        let frozen = entry.stamp != 0 && entry.stamp != self.generation;
        if frozen || entry.stored {
            let key = self.full_key(slot, name);
            if frozen {
                self.copied.put(key.clone(), encode(&entry.value));
            }
            self.deletes.delete(key);
        }
        if self.maps[slot as usize].is_empty() {
            self.fresh.push(slot);
        }
        Some(entry.value)
    }

    /// The entries of a key, by name.
    pub fn entries(&self, slot: u32) -> impl Iterator<Item = (&[u8], &V)> {
        self.maps[slot as usize].iter().map(|(name, entry)| (&name[..], &entry.value))
    }

    /// The key index: bytes, hash and group of a slot.
    pub fn index(&self) -> &KeyIndex {
        &self.index
    }

    /// Entries of all keys.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// No entry.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    fn note_changed(&mut self, slot: u32, name: Name) {
        // Entries that come and go within an epoch would otherwise be listed for ever.
        if self.changed.len() > 2 * self.entries + 1024 {
            let (maps, generation) = (&self.maps, self.generation);
            self.changed.retain(|(slot, name)| maps[*slot as usize].get(name).is_some_and(|entry| entry.stamp == generation));
            self.changed.sort_unstable();
            self.changed.dedup();
        }
        self.changed.push((slot, name));
    }

    fn place(&self) -> &Place {
        self.place.as_ref().unwrap_or_else(|| unreachable!("table {} is used before it was opened", self.name))
    }

    /// group | table | length of the key | key | name.
    fn full_key(&self, slot: u32, name: &[u8]) -> Vec<u8> {
        let place = self.place();
        let mut scratch = [0; 8];
        let key = self.index.key_bytes(slot, &mut scratch);
        let mut full = state_key(self.index.group(slot, place.max_parallelism), place.table, &(key.len() as u32).to_be_bytes());
        full.extend_from_slice(key);
        full.extend_from_slice(name);
        full
    }

    fn write_pending(&mut self, out: &mut WriteBatch) {
        out.append(std::mem::take(&mut self.frozen_deletes));
        out.append(std::mem::take(&mut self.copied));
    }

    fn load(&mut self, stored: &[u8], value: &[u8]) -> Result<()> {
        let (key, name) = key_and_name(stored)?;
        let slot = self.index.resolve_one(key, XxHash3_64::oneshot(key), &mut self.fresh);
        self.grow();
        self.heap.sample(value.len());
        self.maps[slot as usize].insert(name.into(), Entry { stamp: 0, stored: true, value: decode(value)? });
        self.entries += 1;
        self.name_bytes += name.len();
        Ok(())
    }
}

/// What an entry is called in the store.
fn key_and_name(stored: &[u8]) -> Result<(&[u8], &[u8])> {
    let cut = || damaged("the name of a map's entry is cut short");
    let (len, rest) = stored.split_first_chunk::<4>().ok_or_else(cut)?;
    rest.split_at_checked(u32::from_be_bytes(*len) as usize).ok_or_else(cut)
}

impl<V: StateValue> Table for MapTable<V> {
    fn name(&self) -> &str {
        &self.name
    }

    fn schema(&self) -> String {
        format!("map{} {}", key_text(self.key.as_deref()), schema_of::<V>())
    }

    fn rewrite(&self, stored: &Schema, value: &[u8]) -> Result<Vec<u8>> {
        rewrite::<V>(stored, 0, value)
    }

    fn open(&mut self, context: &TableContext, restored: bool) -> Result<()> {
        check_codec::<V>().map_err(|e| e.at(format!("operator {}, table {}", context.operator, self.name)))?;
        let place = Place::new(context, &self.name);
        self.place = Some(place.clone());
        if restored && place.store.is_resident() {
            place.scan(|_, name, value| self.load(name, value))?;
            self.fresh.clear();
        } else if restored {
            // Entries of a key come one behind the other.
            let mut last: Option<Name> = None;
            place.scan(|_, name, _| {
                let key = key_and_name(name)?.0;
                if last.as_deref() != Some(key) {
                    *self.cold.entry(XxHash3_64::oneshot(key)).or_insert(0) += 1;
                    last = Some(key.into());
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn freeze(&mut self, _epoch: Epoch) {
        let mut backlog = std::mem::take(&mut self.backlog);
        // Holds something only if the epoch before was given up; it stays in front of this one.
        self.write_pending(&mut backlog);
        self.backlog = backlog;
        self.generation += 1;
        std::mem::swap(&mut self.deletes, &mut self.frozen_deletes);
        if self.frozen.is_empty() {
            std::mem::swap(&mut self.frozen, &mut self.changed);
        } else {
            self.frozen.append(&mut self.changed);
        }
    }

    fn drain(&mut self, out: &mut WriteBatch, entries: usize) -> Result<bool> {
        out.append(std::mem::take(&mut self.backlog));
        self.write_pending(out);
        let mut written = 0;
        while written < entries {
            let Some((slot, name)) = self.frozen.pop() else { return Ok(true) };
            let generation = self.generation;
            let Some(entry) = self.maps[slot as usize].get_mut(&name) else { continue };
            if entry.stamp == 0 || entry.stamp >= generation {
                continue; // copied when it changed again
            }
            (entry.stamp, entry.stored) = (0, true);
            let value = encode(&entry.value);
            self.heap.sample(value.len());
            out.put(self.full_key(slot, &name), value);
            written += 1;
        }
        Ok(self.frozen.is_empty())
    }

    fn drained(&mut self, _epoch: Epoch) {}

    fn keys(&self) -> usize {
        self.index.len()
    }

    fn bytes(&self) -> usize {
        // A name with its counts, and a map that is three quarters full.
        let each = 16 + (size_of::<Name>() + size_of::<Entry<V>>()) * 4 / 3;
        let per_key = size_of::<BTreeMap<Name, Entry<V>>>();
        let entries = self.name_bytes + self.entries * (each + self.heap.mean());
        entries + self.index.bytes() + self.index.len() * per_key + self.pinned_bytes()
    }

    fn pinned_bytes(&self) -> usize {
        self.cold.allocation_size()
    }

    fn evict(&mut self, target: usize) -> Result<()> {
        debug_assert!(self.copied.is_empty() && self.frozen_deletes.is_empty(), "an epoch is being drained");
        self.sweep();
        let store = self.place().store.clone();
        let (each, per_key) = (self.bytes() / self.entries.max(1), self.index.bytes() / self.index.len().max(1));
        // What was removed goes first: a key that is cold is what the store says.
        let (mut freed, mut batch) = (0, std::mem::take(&mut self.deletes));
        // The first round may only take chances away.
        for _ in 0..2 * self.maps.len() {
            if freed >= target {
                break;
            }
            self.hand = (self.hand + 1) % self.maps.len();
            let slot = self.hand as u32;
            if std::mem::take(&mut self.used[self.hand]) || !self.index.is_live(slot) {
                continue;
            }
            if self.maps[self.hand].is_empty() {
                continue; // the next `resolve` releases it
            }
            let map = std::mem::take(&mut self.maps[self.hand]);
            for (name, entry) in map.iter().filter(|(_, entry)| entry.stamp != 0) {
                batch.put(self.full_key(slot, name), encode(&entry.value));
            }
            self.entries -= map.len();
            self.name_bytes -= map.keys().map(|name| name.len()).sum::<usize>();
            *self.cold.entry(self.index.hash(slot)).or_insert(0) += 1;
            self.index.release(slot);
            freed += map.len() * each + per_key;
            if batch.bytes() >= EVICT_WRITE {
                store.write(&batch)?;
                batch.clear();
            }
        }
        if !batch.is_empty() {
            store.write(&batch)?;
        }
        Ok(())
    }
}
