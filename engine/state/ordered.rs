//! Entries in the order of time: timers, and rows that wait for the watermark.
//!
//! An entry is (time, key, tag) with a value; the tag tells entries of one key and time apart (a timer's name, a row's tie
//! breaker). Registering one that is there changes nothing but its value. Lives in memory whole; a restore loads it all.
//! Entries have ids: values lie in a slab, names in an arena, and a [`Queue`] of ids knows the order.
//!
//! Invariant: entries come out by (time, key bytes, tag), never in hash order, and each lives under the key group of its
//! key, so that they follow the key through a rescale. An id is given out again only when the queue no longer has it.

use super::batch::prefix;
use super::evolve::rewrite;
use super::ids::Ids;
use super::index::{Arena, touch};
use super::keyspace::{Place, damaged, push_key, split_time, time_bytes};
use super::queue::{Entries, Queue};
use super::value::{Heap, StateValue, check_codec, decode, encode_into, key_text, schema_of};
use super::{Schema, Table, TableContext, WriteBatch};
use crate::env::{Bug, planted};
use crate::error::Result;
use crate::record::{Epoch, KeyGroup, key_group};
use crate::time::EventTime;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::cmp::Ordering;
use std::hash::{BuildHasher, Hasher};
use twox_hash::XxHash3_64;

struct Entry<V> {
    time: i64,
    key_len: u32,
    /// Generation of the last change not yet drained; 0 = clean.
    stamp: u32,
    group: KeyGroup,
    /// The store may hold it.
    stored: bool,
    /// `None`: removed before its time, and still in the queue.
    value: Option<V>,
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

/// Entries by id; the ids that are free hold anything.
struct Slab<V> {
    entries: Vec<Entry<V>>,
    /// Key, then tag.
    names: Arena,
    /// Ids by name; none in a table whose names never come twice.
    by_name: Option<HashTable<u32>>,
}

impl<V> Slab<V> {
    fn name(&self, id: u32) -> (&[u8], &[u8]) {
        self.names.get(id).split_at(self.entries[id as usize].key_len as usize)
    }

    fn hash(&self, id: u32) -> u64 {
        name_hash(self.time(id), self.name(id))
    }
}

impl<V> Entries for Slab<V> {
    fn time(&self, id: u32) -> i64 {
        self.entries[id as usize].time
    }

    /// The first 16 bytes of the key: more of it, and the tag, only where those are equal.
    fn rank(&self, id: u32) -> [u64; 2] {
        let [first, second, _] = prefix(self.name(id).0);
        [first, second]
    }

    fn compare(&self, a: u32, b: u32) -> Ordering {
        self.time(a).cmp(&self.time(b)).then_with(|| self.name(a).cmp(&self.name(b)))
    }

    /// Entries lie where their ids are, names and index elsewhere again: one after the other each would be waited for.
    fn fetch(&self, ids: &[u32]) {
        touch(ids.iter().copied(), |id| self.entries[id as usize].stamp as usize);
        self.names.touch(ids.iter().copied());
        if let Some(by_name) = &self.by_name {
            touch(ids.iter().copied(), |id| by_name.find(self.hash(id), |&other| other == id).map_or(0, |&id| id as usize));
        }
    }
}

/// In memory only, and without a seed of the process: the same calls make the same table.
fn name_hash(time: i64, (key, tag): (&[u8], &[u8])) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    hasher.write_i64(time);
    hasher.write(key);
    hasher.write(tag);
    hasher.finish()
}

/// See the module's header. Timers are an `OrderedTable<()>` with the timer's name as tag.
pub struct OrderedTable<V> {
    name: String,
    key: Option<String>,
    place: Option<Place>,
    slab: Slab<V>,
    free: Vec<u32>,
    queue: Queue,
    live: usize,
    /// Removed, and still in the queue.
    dead: usize,
    generation: u32,
    changed: Ids,
    frozen: Ids,
    /// Deletes of this epoch and of the frozen one; within an epoch they go before its puts.
    deletes: WriteBatch,
    frozen_deletes: WriteBatch,
    copied: WriteBatch,
    /// Left over from an epoch that was never drained.
    backlog: WriteBatch,
    heap: Heap,
    /// The name at hand.
    scratch: Vec<u8>,
}

impl<V: StateValue> OrderedTable<V> {
    /// A table of that name, unique within its operator.
    pub fn new(name: &str) -> Self {
        let mut table = OrderedTable::of_unique(name);
        table.slab.by_name = Some(HashTable::new());
        table
    }

    /// The same for entries whose (time, key, tag) never come twice and are never looked for: it does not keep an index.
    pub fn of_unique(name: &str) -> Self {
        OrderedTable {
            name: name.to_string(),
            key: None,
            place: None,
            slab: Slab { entries: Vec::new(), names: Arena::default(), by_name: None },
            free: Vec::new(),
            queue: Queue::new(),
            live: 0,
            dead: 0,
            generation: 1,
            changed: Ids::default(),
            frozen: Ids::default(),
            deletes: WriteBatch::default(),
            frozen_deletes: WriteBatch::default(),
            copied: WriteBatch::default(),
            backlog: WriteBatch::default(),
            heap: Heap::new::<V>(),
            scratch: Vec::new(),
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
        if let Some(id) = self.find(time, key, tag) {
            self.mark(id);
            return self.slab.entries[id as usize].value.replace(value);
        }
        let group = key_group(hash, self.place().max_parallelism);
        let entry = Entry { time: time.0, key_len: key.len() as u32, stamp: self.generation, group, stored: false, value: Some(value) };
        let id = self.add(entry, key, tag);
        self.changed.insert(id);
        None
    }

    /// Takes an entry out before its time.
    pub fn remove(&mut self, time: EventTime, key: &[u8], tag: &[u8]) -> Option<V> {
        let id = self.find(time, key, tag)?;
        let value = self.forget(id);
        // It goes when the queue comes by it, or when too many wait for that.
        self.dead += 1;
        if self.dead > self.live + 1024 {
            let (slab, free) = (&mut self.slab, &mut self.free);
            self.queue.retain(|id| {
                let live = slab.entries[id as usize].value.is_some();
                if !live {
                    slab.names.free(id);
                    free.push(id);
                }
                live
            });
            self.dead = 0;
        }
        value
    }

    /// The value of an entry.
    pub fn get(&self, time: EventTime, key: &[u8], tag: &[u8]) -> Option<&V> {
        self.slab.entries[self.find(time, key, tag)? as usize].value.as_ref()
    }

    /// Whether an entry is there.
    pub fn contains(&self, time: EventTime, key: &[u8], tag: &[u8]) -> bool {
        self.find(time, key, tag).is_some()
    }

    /// Takes out the first entry with a time at or before `watermark`. Called until `None`: entries that are added while
    /// others fire come in their turn.
    pub fn pop_due(&mut self, watermark: EventTime) -> Option<Due<V>> {
        self.pop_with(watermark, |time, key, tag, value| Due { time, key: key.to_vec(), tag: tag.to_vec(), value })
    }

    /// As [`pop_due`](Self::pop_due), handing out what the entry holds: time, key, tag, value.
    pub fn pop_with<R>(&mut self, watermark: EventTime, take: impl FnOnce(EventTime, &[u8], &[u8], V) -> R) -> Option<R> {
        let (id, value) = loop {
            let id = self.queue.pop(watermark.0, &self.slab)?;
            if let Some(value) = self.forget(id) {
                break (id, value);
            }
            self.dead -= 1;
            self.release(id);
        };
        let (key, tag) = self.slab.name(id);
        let result = take(EventTime(self.slab.time(id)), key, tag, value);
        self.release(id);
        Some(result)
    }

    fn release(&mut self, id: u32) {
        self.slab.names.free(id);
        self.free.push(id);
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.live
    }

    /// No entry.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Visits all entries in order: time, key, tag, value. For inspection and tests: it sorts them all.
    pub fn for_each(&self, mut visit: impl FnMut(EventTime, &[u8], &[u8], &V)) {
        let mut ids: Vec<u32> = (0..self.slab.entries.len() as u32).filter(|&id| self.slab.entries[id as usize].value.is_some()).collect();
        ids.sort_unstable_by(|&a, &b| self.slab.compare(a, b));
        for id in ids {
            let (key, tag) = self.slab.name(id);
            if let Some(value) = &self.slab.entries[id as usize].value {
                visit(EventTime(self.slab.time(id)), key, tag, value);
            }
        }
    }

    fn place(&self) -> &Place {
        self.place.as_ref().unwrap_or_else(|| unreachable!("table {} is used before it was opened", self.name))
    }

    fn find(&self, time: EventTime, key: &[u8], tag: &[u8]) -> Option<u32> {
        let same = |&id: &u32| self.slab.time(id) == time.0 && self.slab.name(id) == (key, tag);
        self.slab.by_name.as_ref()?.find(name_hash(time.0, (key, tag)), same).copied()
    }

    fn add(&mut self, entry: Entry<V>, key: &[u8], tag: &[u8]) -> u32 {
        self.scratch.clear();
        self.scratch.extend_from_slice(key);
        self.scratch.extend_from_slice(tag);
        let id = self.free.pop().unwrap_or(self.slab.entries.len() as u32);
        assert!(id < u32::MAX, "table {} is full: 2^32 - 1 entries", self.name);
        self.slab.names.set(id, &self.scratch);
        self.queue.push(entry.time, id);
        match self.slab.entries.get_mut(id as usize) {
            Some(free) => *free = entry,
            None => self.slab.entries.push(entry),
        }
        self.live += 1;
        // Out of the slab meanwhile, whose names it hashes when it grows.
        if let Some(mut by_name) = self.slab.by_name.take() {
            by_name.insert_unique(self.slab.hash(id), id, |&id| self.slab.hash(id));
            self.slab.by_name = Some(by_name);
        }
        id
    }

    /// An entry that is there is about to change.
    fn mark(&mut self, id: u32) {
        let entry = &mut self.slab.entries[id as usize];
        if entry.stamp == self.generation {
            return;
        }
        let frozen = std::mem::replace(&mut entry.stamp, self.generation) != 0;
        if frozen {
            entry.stored = true;
            self.copy(id);
        }
        self.changed.insert(id);
    }

    /// Encodes a frozen entry that is about to change or go.
    fn copy(&mut self, id: u32) {
        let entry = &self.slab.entries[id as usize];
        if let Some(value) = &entry.value {
            let mut copied = std::mem::take(&mut self.copied);
            copied.put_with(|out| self.push_full_key(id, out), |out| encode_into(value, out));
            self.copied = copied;
        }
    }

    /// Takes the value of an entry; its id stays taken.
    fn forget(&mut self, id: u32) -> Option<V> {
        let entry = &self.slab.entries[id as usize];
        let (stamp, stored) = (entry.stamp, entry.stored);
        entry.value.as_ref()?;
        let frozen = stamp != 0 && stamp != self.generation;
        if frozen {
            self.copy(id);
        }
        if (frozen || stored) && !planted(Bug::KeepFiredTimers) {
            let mut deletes = std::mem::take(&mut self.deletes);
            deletes.delete_with(|out| self.push_full_key(id, out));
            self.deletes = deletes;
        }
        let hash = self.slab.hash(id);
        if let Some(by_name) = &mut self.slab.by_name
            && let Ok(found) = by_name.find_entry(hash, |&other| other == id)
        {
            found.remove();
        }
        self.live -= 1;
        let entry = &mut self.slab.entries[id as usize];
        entry.stamp = 0;
        entry.value.take()
    }

    fn write_pending(&mut self, out: &mut WriteBatch) {
        out.append(std::mem::take(&mut self.frozen_deletes));
        out.append(std::mem::take(&mut self.copied));
    }

    fn load(&mut self, group: KeyGroup, stored: &[u8], value: &[u8]) -> Result<()> {
        let (time, rest) = split_time(stored)?;
        let (bytes, key_len) = rest.split_last_chunk::<4>().ok_or_else(|| damaged("an ordered entry is cut short"))?;
        let key_len = u32::from_be_bytes(*key_len);
        let (key, tag) = bytes.split_at_checked(key_len as usize).ok_or_else(|| damaged("the key of an ordered entry is cut short"))?;
        if key_group(XxHash3_64::oneshot(key), self.place().max_parallelism) != group {
            return Err(damaged("an ordered entry lies in another key group than its key"));
        }
        self.add(Entry { time, key_len, stamp: 0, group, stored: true, value: Some(decode(value)?) }, key, tag);
        Ok(())
    }

    /// time | key | tag | length of the key: the time first, so that the store holds entries in firing order.
    fn push_full_key(&self, id: u32, out: &mut Vec<u8>) {
        let entry = &self.slab.entries[id as usize];
        push_key(out, entry.group, self.place().table, &time_bytes(entry.time));
        out.extend_from_slice(self.slab.names.get(id));
        out.extend_from_slice(&entry.key_len.to_be_bytes());
    }
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
            let forgotten = |group| planted(Bug::ForgetTimerGroup) && group == place.groups.start;
            place.scan(|group, key, value| if forgotten(group) { Ok(()) } else { self.load(group, key, value) })?;
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
        self.frozen.append(&mut self.changed);
    }

    fn drain(&mut self, out: &mut WriteBatch, entries: usize) -> Result<bool> {
        out.append(std::mem::take(&mut self.backlog));
        self.write_pending(out);
        let mut written = 0;
        while written < entries {
            let Some(id) = self.frozen.pop() else { return Ok(true) };
            let entry = &self.slab.entries[id as usize];
            // Else it was copied when it changed again, or is gone; its id may be another entry's by now.
            if entry.stamp != 0
                && entry.stamp < self.generation
                && let Some(value) = &entry.value
            {
                let bytes = out.put_with(|out| self.push_full_key(id, out), |out| encode_into(value, out));
                self.heap.sample(bytes);
                let entry = &mut self.slab.entries[id as usize];
                (entry.stamp, entry.stored) = (0, true);
                written += 1;
            }
        }
        Ok(self.frozen.is_empty())
    }

    fn drained(&mut self, _epoch: Epoch) {}

    fn keys(&self) -> usize {
        0
    }

    fn bytes(&self) -> usize {
        // Place of the name, id in the queue; a table of ids is 7/8 full at most and half full on average.
        let each = size_of::<Entry<V>>() + 8 + 4 + if self.slab.by_name.is_some() { 8 } else { 0 };
        (self.live + self.dead) * each + self.live * self.heap.mean() + self.slab.names.bytes()
    }

    fn pinned_bytes(&self) -> usize {
        self.bytes()
    }

    fn evict(&mut self, _target: usize) -> Result<()> {
        Ok(())
    }
}
