//! Entries in the order of time: timers, and rows that wait for the watermark.
//!
//! An entry is (time, key, tag) with a value; the tag tells entries of one key and time apart (a timer's name, a row's tie
//! breaker). Registering one that is there changes nothing but its value. Lives in memory whole; a restore loads it all.
//!
//! Invariant: entries come out by (time, key bytes, tag), never in hash order, and each lives under the key group of its
//! key, so that they follow the key through a rescale.

use super::evolve::rewrite;
use super::keyspace::{Place, damaged, split_time, state_key, time_bytes};
use super::value::{Heap, StateValue, check_codec, decode, encode, key_text, schema_of};
use super::{Schema, Table, TableContext, WriteBatch};
use crate::error::Result;
use crate::record::{Epoch, KeyGroup, key_group};
use crate::time::EventTime;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use twox_hash::XxHash3_64;

/// Name of an entry. Shared between the map and the change lists.
#[derive(Debug, PartialEq, Eq)]
struct Name {
    time: i64,
    /// Key, then tag.
    bytes: Box<[u8]>,
    key_len: u32,
}

impl Name {
    fn new(time: i64, key: &[u8], tag: &[u8]) -> Arc<Name> {
        Arc::new(Name { time, bytes: [key, tag].concat().into(), key_len: key.len() as u32 })
    }

    fn split(&self) -> (&[u8], &[u8]) {
        self.bytes.split_at(self.key_len as usize)
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        self.time.cmp(&other.time).then_with(|| self.split().cmp(&other.split()))
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

struct Entry<V> {
    /// Generation of the last change not yet drained; 0 = clean.
    stamp: u32,
    /// The store may hold it.
    stored: bool,
    group: KeyGroup,
    value: V,
}

/// An entry whose time has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due<V> {
    /// When it was due.
    pub time: EventTime,
    /// Canonical key bytes.
    pub key: Vec<u8>,
    /// What tells it apart from others of that key and time.
    pub tag: Vec<u8>,
    /// Its value.
    pub value: V,
}

/// See the module's header. Timers are an `OrderedTable<()>` with the timer's name as tag.
pub struct OrderedTable<V> {
    name: String,
    key: Option<String>,
    place: Option<Place>,
    entries: BTreeMap<Arc<Name>, Entry<V>>,
    generation: u32,
    changed: Vec<Arc<Name>>,
    frozen: Vec<Arc<Name>>,
    /// Deletes of this epoch and of the frozen one; within an epoch they go before its puts.
    deletes: WriteBatch,
    frozen_deletes: WriteBatch,
    copied: WriteBatch,
    /// Left over from an epoch that was never drained.
    backlog: WriteBatch,
    name_bytes: usize,
    heap: Heap,
}

impl<V: StateValue> OrderedTable<V> {
    /// A table of that name, unique within its operator.
    pub fn new(name: &str) -> Self {
        OrderedTable {
            name: name.to_string(),
            key: None,
            place: None,
            entries: BTreeMap::new(),
            generation: 1,
            changed: Vec::new(),
            frozen: Vec::new(),
            deletes: WriteBatch::default(),
            frozen_deletes: WriteBatch::default(),
            copied: WriteBatch::default(),
            backlog: WriteBatch::default(),
            name_bytes: 0,
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

    /// Adds an entry; `hash` is the frozen hash of `key`. Returns the value of the same entry if it was there.
    pub fn insert(&mut self, time: EventTime, key: &[u8], hash: u64, tag: &[u8], value: V) -> Option<V> {
        let name = Name::new(time.0, key, tag);
        let generation = self.generation;
        if let Some(entry) = self.entries.get_mut(&name) {
            if entry.stamp != 0 && entry.stamp != generation {
                let full = full_key(&self.place, entry.group, &name);
                self.copied.put(full, encode(&entry.value));
                entry.stored = true;
            }
            if entry.stamp != generation {
                entry.stamp = generation;
                self.changed.push(name);
            }
            return Some(std::mem::replace(&mut entry.value, value));
        }
        let group = key_group(hash, self.place().max_parallelism);
        self.name_bytes += name.bytes.len();
        self.note_changed(name.clone());
        self.entries.insert(name, Entry { stamp: generation, stored: false, group, value });
        None
    }

    /// Takes an entry out before its time.
    pub fn remove(&mut self, time: EventTime, key: &[u8], tag: &[u8]) -> Option<V> {
        let name = Name::new(time.0, key, tag);
        let entry = self.entries.remove(&name)?;
        Some(self.forget(&name, entry))
    }

    /// The value of an entry.
    pub fn get(&self, time: EventTime, key: &[u8], tag: &[u8]) -> Option<&V> {
        self.entries.get(&Name::new(time.0, key, tag)).map(|entry| &entry.value)
    }

    /// Whether an entry is there.
    pub fn contains(&self, time: EventTime, key: &[u8], tag: &[u8]) -> bool {
        self.entries.contains_key(&Name::new(time.0, key, tag))
    }

    /// Takes out the first entry with a time at or before `watermark`. Called until `None`: entries that are added while
    /// others fire come in their turn.
    pub fn pop_due(&mut self, watermark: EventTime) -> Option<Due<V>> {
        let first = self.entries.first_entry()?;
        if first.key().time > watermark.0 {
            return None;
        }
        let (name, entry) = first.remove_entry();
        let value = self.forget(&name, entry);
        let (key, tag) = name.split();
        Some(Due { time: EventTime(name.time), key: key.to_vec(), tag: tag.to_vec(), value })
    }

    /// The earliest time of any entry.
    pub fn next_time(&self) -> Option<EventTime> {
        self.entries.first_key_value().map(|(name, _)| EventTime(name.time))
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// No entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Visits all entries in order: time, key, tag, value.
    pub fn for_each(&self, mut visit: impl FnMut(EventTime, &[u8], &[u8], &V)) {
        for (name, entry) in &self.entries {
            let (key, tag) = name.split();
            visit(EventTime(name.time), key, tag, &entry.value);
        }
    }

    fn place(&self) -> &Place {
        self.place.as_ref().unwrap_or_else(|| unreachable!("table {} is used before it was opened", self.name))
    }

    fn note_changed(&mut self, name: Arc<Name>) {
        // Entries that come and go within an epoch would otherwise be listed for ever.
        if self.changed.len() > 2 * self.entries.len() + 1024 {
            let (entries, generation) = (&self.entries, self.generation);
            self.changed.retain(|name| entries.get(name).is_some_and(|entry| entry.stamp == generation));
            self.changed.sort_unstable();
            self.changed.dedup();
        }
        self.changed.push(name);
    }

    /// An entry left the map.
    fn forget(&mut self, name: &Name, entry: Entry<V>) -> V {
        self.name_bytes -= name.bytes.len();
        let frozen = entry.stamp != 0 && entry.stamp != self.generation;
        if frozen {
            let full = full_key(&self.place, entry.group, name);
            self.copied.put(full, encode(&entry.value));
        }
        if frozen || entry.stored {
            let full = full_key(&self.place, entry.group, name);
            self.deletes.delete(full);
        }
        entry.value
    }

    fn write_pending(&mut self, out: &mut WriteBatch) {
        out.append(std::mem::take(&mut self.frozen_deletes));
        out.append(std::mem::take(&mut self.copied));
    }

    fn load(&mut self, group: KeyGroup, stored: &[u8], value: &[u8]) -> Result<()> {
        let (time, rest) = split_time(stored)?;
        let (bytes, key_len) = rest.split_last_chunk::<4>().ok_or_else(|| damaged("an ordered entry is cut short"))?;
        let key_len = u32::from_be_bytes(*key_len) as usize;
        let (key, tag) = bytes.split_at_checked(key_len).ok_or_else(|| damaged("the key of an ordered entry is cut short"))?;
        if key_group(XxHash3_64::oneshot(key), self.place().max_parallelism) != group {
            return Err(damaged("an ordered entry lies in another key group than its key"));
        }
        let entry = Entry { stamp: 0, stored: true, group, value: decode(value)? };
        self.name_bytes += bytes.len();
        self.entries.insert(Name::new(time, key, tag), entry);
        Ok(())
    }
}

/// time | key | tag | length of the key: the time first, so that the store holds entries in firing order.
fn full_key(place: &Option<Place>, group: KeyGroup, name: &Name) -> Vec<u8> {
    let table = place.as_ref().map_or_else(|| unreachable!("a table is used before it was opened"), |place| place.table);
    let mut full = state_key(group, table, &time_bytes(name.time));
    full.extend_from_slice(&name.bytes);
    full.extend_from_slice(&name.key_len.to_be_bytes());
    full
}

impl<V: StateValue> Table for OrderedTable<V> {
    fn name(&self) -> &str {
        &self.name
    }

    fn schema(&self) -> String {
        format!("ordered{} {}", key_text(self.key.as_deref()), schema_of::<V>())
    }

    fn rewrite(&self, stored: &Schema, value: &[u8]) -> Result<Vec<u8>> {
        rewrite::<V>(stored, 0, value)
    }

    fn open(&mut self, context: &TableContext, restored: bool) -> Result<()> {
        check_codec::<V>().map_err(|e| e.at(format!("operator {}, table {}", context.operator, self.name)))?;
        let place = Place::new(context, &self.name);
        self.place = Some(place.clone());
        if restored {
            place.scan(|group, key, value| self.load(group, key, value))?;
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

    fn drain(&mut self, out: &mut WriteBatch, entries: usize) -> bool {
        out.append(std::mem::take(&mut self.backlog));
        self.write_pending(out);
        let mut written = 0;
        while written < entries {
            let Some(name) = self.frozen.pop() else { return true };
            let Some(entry) = self.entries.get_mut(&name) else { continue };
            if entry.stamp == 0 || entry.stamp >= self.generation {
                continue; // copied when it changed again
            }
            let value = encode(&entry.value);
            self.heap.sample(value.len());
            out.put(full_key(&self.place, entry.group, &name), value);
            (entry.stamp, entry.stored) = (0, true);
            written += 1;
        }
        self.frozen.is_empty()
    }

    fn drained(&mut self, _epoch: Epoch) {}

    fn bytes(&self) -> usize {
        // A name with its counts, and a map that is three quarters full.
        let each = size_of::<Name>() + 16 + (size_of::<Arc<Name>>() + size_of::<Entry<V>>()) * 4 / 3;
        self.name_bytes + self.entries.len() * (each + self.heap.mean())
    }

    fn evict(&mut self, _target: usize) -> Result<()> {
        Ok(())
    }
}
