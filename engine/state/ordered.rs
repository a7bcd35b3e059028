//! Entries in the order of time: timers, and rows that wait for the watermark.
//!
//! An entry is (time, key, tag) with a value; the tag tells entries of one key and time apart (a timer's name, a row's tie
//! breaker). Registering one that is there changes nothing but its value.
//! Entries have ids: they lie in a slab with their names, if those are short, and a [`Queue`] of ids knows the order.
//!
//! When memory is short the latest entries leave it: what the store does not hold as it is goes there, the rest is forgotten.
//! They come back a [`Part`] at a time when time has come so far; until then the table knows from when on they are (`far`) and
//! nothing else. After a restore from a store that can be read on demand that is all of them.
//!
//! Invariant: entries come out by (time, key bytes, tag), never in hash order, and each lives under the key group of its
//! key, so that they follow the key through a rescale. An id is given out again only when the queue no longer has it. Before
//! `far` all entries are in memory; of a later one memory has what is newer than the store, and `gone` knows that it was
//! removed until the store knows.

use super::batch::prefix;
use super::evolve::rewrite;
use super::ids::Ids;
use super::index::touch;
use super::keyspace::{PREFIX, Place, damaged, push_key, time_bytes};
use super::names::{Name, Spans};
use super::parts::{Moment, Name as StoredName, Part};
use super::queue::{Entries, FETCHED, Queue};
use super::value::{Heap, StateValue, check_codec, decode, encode_into, key_text, schema_of};
use super::{Schema, Table, TableContext, WriteBatch};
use crate::env::{Bug, planted};
use crate::error::Result;
use crate::record::{Epoch, KeyGroup, key_group};
use crate::time::EventTime;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher};
use twox_hash::XxHash3_64;

/// What the name of an entry that was removed takes, or so.
const GONE_BYTES: usize = 64;

/// One in so many leaves memory at least when some do: looking for the latest is a look at all of them.
const LEAVE: usize = 64;

/// Bytes that are written at once when entries leave memory.
const EVICT_WRITE: usize = 1 << 20;

/// Half a line of the cache, as long as its value takes no room: a timer.
struct Entry<V> {
    time: i64,
    /// Generation of the last change not yet drained; 0 = clean.
    stamp: u32,
    /// Key, then tag.
    name: Name,
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
    /// Names that are too long for their entries.
    long_names: Spans,
    /// Ids by name; none in a table whose names never come twice, as long as all of it is in memory.
    by_name: Option<HashTable<u32>>,
}

impl<V> Slab<V> {
    fn name(&self, id: u32) -> (&[u8], &[u8]) {
        self.entries[id as usize].name.get(&self.long_names)
    }

    fn free_name(&mut self, id: u32) {
        self.entries[id as usize].name.free(&mut self.long_names);
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

    /// Entries lie where their ids are, long names and index elsewhere again: one after the other each would be waited for.
    fn fetch(&self, ids: &[u32]) {
        touch(ids.iter().copied(), |id| self.entries[id as usize].stamp as usize);
        if self.long_names.bytes() > 0 {
            touch(ids.iter().copied(), |id| self.entries[id as usize].name.touch(&self.long_names));
        }
        let Some(by_name) = &self.by_name else { return };
        let mut hashes = [0; FETCHED];
        hashes.iter_mut().zip(ids).for_each(|(hash, &id)| *hash = self.hash(id));
        touch(0..ids.len().min(FETCHED) as u32, |nth| {
            let (hash, id) = (hashes[nth as usize], ids[nth as usize]);
            by_name.find(hash, |&other| other == id).map_or(0, |&id| id as usize)
        });
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
    /// From here on the store has entries that memory does not have; `None`: memory has all.
    far: Option<Moment>,
    /// Later entries that were removed, as the store names them within their group, until it has heard of it: since the last
    /// freeze, and before.
    gone: BTreeSet<Vec<u8>>,
    frozen_gone: BTreeSet<Vec<u8>>,
    unique: bool,
    stays: bool,
}

impl<V: StateValue> OrderedTable<V> {
    /// A table of that name, unique within its operator.
    pub fn new(name: &str) -> Self {
        let mut table = OrderedTable::of_unique(name);
        (table.slab.by_name, table.unique) = (Some(HashTable::new()), false);
        table
    }

    /// The same for entries whose (time, key, tag) never come twice and are never looked for: it does not keep an index as long
    /// as all of it is in memory.
    pub fn of_unique(name: &str) -> Self {
        OrderedTable {
            name: name.to_string(),
            key: None,
            place: None,
            slab: Slab { entries: Vec::new(), long_names: Spans::default(), by_name: None },
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
            far: None,
            gone: BTreeSet::new(),
            frozen_gone: BTreeSet::new(),
            unique: true,
            stays: false,
        }
    }

    /// Stays in memory whole: for few entries that are [looked at](Self::get).
    #[must_use]
    pub fn in_memory(mut self) -> Self {
        self.stays = true;
        self
    }

    /// Notes the kind of its keys ([`Key::kind`](crate::record::Key::kind)): a restore with another one is refused, and tools
    /// can show them.
    #[must_use]
    pub fn with_key(mut self, kind: Option<String>) -> Self {
        self.key = kind;
        self
    }

    /// Adds an entry, or gives the same one another value.
    pub fn insert(&mut self, time: EventTime, key: &[u8], tag: &[u8], value: V) {
        if let Some(id) = self.find(time, key, tag) {
            self.mark(id);
            self.slab.entries[id as usize].value = Some(value);
            return;
        }
        // Nobody looks whether the store has one that is far: it is written over.
        let stored = !self.unique && self.is_far(time, key);
        let id = self.add(time.0, key, tag, self.generation, stored, value);
        self.changed.insert(id);
    }

    /// Takes an entry out before its time; its value, if it was there.
    ///
    /// # Errors
    /// Of the store, or a value that does not decode.
    pub fn remove(&mut self, time: EventTime, key: &[u8], tag: &[u8]) -> Result<Option<V>> {
        match self.find(time, key, tag) {
            Some(id) => Ok(self.take_out(id)),
            None if self.is_far(time, key) => self.remove_stored(time, key, tag),
            None => Ok(None),
        }
    }

    /// Takes out an entry that is there, without a look at it.
    pub fn discard(&mut self, time: EventTime, key: &[u8], tag: &[u8]) {
        match self.find(time, key, tag) {
            Some(id) => drop(self.take_out(id)),
            None if self.is_far(time, key) => self.delete_stored(self.stored_key(time, key, tag)),
            None => {}
        }
    }

    fn take_out(&mut self, id: u32) -> Option<V> {
        let value = self.forget(id);
        // It goes when the queue comes by it, or when too many wait for that.
        self.dead += 1;
        if self.dead > self.live + 1024 {
            let (slab, free) = (&mut self.slab, &mut self.free);
            self.queue.retain(|id| {
                let live = slab.entries[id as usize].value.is_some();
                if !live {
                    slab.free_name(id);
                    free.push(id);
                }
                live
            });
            self.dead = 0;
        }
        value
    }

    /// The value of an entry of a table that is [in memory](Self::in_memory).
    pub fn get(&self, time: EventTime, key: &[u8], tag: &[u8]) -> Option<&V> {
        self.slab.entries[self.find(time, key, tag)? as usize].value.as_ref()
    }

    /// Takes out the first entry with a time at or before `watermark`. Called until `None`: entries that are added while
    /// others fire come in their turn.
    ///
    /// # Errors
    /// As [`remove`](Self::remove).
    pub fn pop_due(&mut self, watermark: EventTime) -> Result<Option<Due<V>>> {
        self.pop_with(watermark, |time, key, tag, value| Due { time, key: key.to_vec(), tag: tag.to_vec(), value })
    }

    /// As [`pop_due`](Self::pop_due), handing out what the entry holds: time, key, tag, value.
    ///
    /// # Errors
    /// As [`remove`](Self::remove).
    pub fn pop_with<R>(&mut self, watermark: EventTime, take: impl FnOnce(EventTime, &[u8], &[u8], V) -> R) -> Result<Option<R>> {
        let (id, value) = loop {
            let near_to = self.far.as_ref().map_or(i64::MAX, |far| far.time);
            match self.queue.pop(watermark.0.min(near_to), &self.slab) {
                Some(id) if self.has_far_name(id) => {
                    self.queue.push(near_to, id);
                    self.come_back()?;
                }
                Some(id) => match self.forget(id) {
                    Some(value) => break (id, value),
                    None => {
                        self.dead -= 1;
                        self.release(id);
                    }
                },
                None if self.far.is_none() || watermark.0 < near_to => return Ok(None),
                None => self.come_back()?,
            }
        };
        let (key, tag) = self.slab.name(id);
        let result = take(EventTime(self.slab.time(id)), key, tag, value);
        self.release(id);
        Ok(Some(result))
    }

    fn release(&mut self, id: u32) {
        self.slab.free_name(id);
        self.free.push(id);
    }

    /// Visits all entries in order: time, key, tag, value. For inspection and tests: it reads and sorts them all.
    ///
    /// # Errors
    /// As [`remove`](Self::remove).
    pub fn for_each(&self, mut visit: impl FnMut(EventTime, &[u8], &[u8], &V)) -> Result<()> {
        let (mut stored, mut far) = (BTreeMap::new(), self.far.clone());
        while let Some(from) = far {
            let part = Part::read(self.place(), &from)?;
            part.for_each(|_, bytes, name, value| {
                if self.is_of_store(name, bytes) {
                    stored.insert((name.time, name.key.to_vec(), name.tag.to_vec()), decode::<V>(value)?);
                }
                Ok(())
            })?;
            far = part.end;
        }
        let held = self.live_ids().filter_map(|id| {
            let ((key, tag), value) = (self.slab.name(id), self.slab.entries[id as usize].value.as_ref()?);
            Some((self.slab.time(id), key, tag, value))
        });
        let mut all: Vec<_> = held.chain(stored.iter().map(|((time, key, tag), value)| (*time, &key[..], &tag[..], value))).collect();
        all.sort_unstable_by_key(|&(time, key, tag, _)| (time, key, tag));
        all.into_iter().for_each(|(time, key, tag, value)| visit(EventTime(time), key, tag, value));
        Ok(())
    }

    fn live_ids(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.slab.entries.len() as u32).filter(|&id| self.slab.entries[id as usize].value.is_some())
    }

    fn place(&self) -> &Place {
        self.place.as_ref().unwrap_or_else(|| unreachable!("table {} is used before it was opened", self.name))
    }

    /// Whether the store may have an entry that memory does not have.
    fn is_far(&self, time: EventTime, key: &[u8]) -> bool {
        self.far.as_ref().is_some_and(|far| !far.is_after(time.0, key))
    }

    fn has_far_name(&self, id: u32) -> bool {
        self.far.as_ref().is_some_and(|far| !far.is_after(self.slab.time(id), self.slab.name(id).0))
    }

    fn find(&self, time: EventTime, key: &[u8], tag: &[u8]) -> Option<u32> {
        let same = |&id: &u32| self.slab.time(id) == time.0 && self.slab.name(id) == (key, tag);
        self.slab.by_name.as_ref()?.find(name_hash(time.0, (key, tag)), same).copied()
    }

    fn add(&mut self, time: i64, key: &[u8], tag: &[u8], stamp: u32, stored: bool, value: V) -> u32 {
        let id = self.free.pop().unwrap_or(self.slab.entries.len() as u32);
        assert!(id < u32::MAX, "table {} is full: 2^32 - 1 entries", self.name);
        let entry = Entry { time, stamp, name: Name::new(key, tag, &mut self.slab.long_names), stored, value: Some(value) };
        self.queue.push(time, id);
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
            if self.has_far_name(id) {
                let mut key = Vec::new();
                self.push_full_key(id, &mut key);
                self.gone.insert(key.split_off(PREFIX));
            }
        }
        self.let_go(id)
    }

    /// Takes the value of an entry out of memory; its id stays taken.
    fn let_go(&mut self, id: u32) -> Option<V> {
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

    /// Takes an entry of the store into memory.
    fn load(&mut self, group: KeyGroup, name: &StoredName<'_>, value: &[u8]) -> Result<()> {
        let &StoredName { time, key, tag } = name;
        if key_group(XxHash3_64::oneshot(key), self.place().max_parallelism) != group {
            return Err(damaged("an ordered entry lies in another key group than its key"));
        }
        self.heap.sample(value.len());
        self.add(time, key, tag, 0, true, decode(value)?);
        Ok(())
    }

    /// Whether an entry that the store has far away is neither newer in memory nor gone.
    fn is_of_store(&self, name: &StoredName<'_>, bytes: &[u8]) -> bool {
        !self.gone.contains(bytes) && !self.frozen_gone.contains(bytes) && self.find(EventTime(name.time), name.key, name.tag).is_none()
    }

    /// Brings the next part back into memory.
    #[cold]
    fn come_back(&mut self) -> Result<()> {
        let Some(from) = &self.far else { return Ok(()) };
        let part = Part::read(self.place(), from)?;
        let forgotten = (planted(Bug::ForgetLateTimers) || planted(Bug::ForgetTimerGroup)).then_some(self.place().groups.start);
        part.for_each(
            |group, bytes, name, value| {
                if Some(group) == forgotten || !self.is_of_store(name, bytes) { Ok(()) } else { self.load(group, name, value) }
            },
        )
        .map_err(|e| e.at(self.place().label.clone()))?;
        self.far = part.end;
        Ok(())
    }

    /// Changes that wait for the next barrier, or leave when others do: what was taken out of the store. Those of a frozen
    /// epoch leave with its first drain.
    fn pending_bytes(&self) -> usize {
        self.deletes.memory() + self.backlog.memory()
    }

    /// What waits to be written leaves memory, and the latest entries, `count` of them or so. Called only while no epoch is
    /// being drained: so whatever is written before them is older, and the store knows of all that was removed.
    fn leave(&mut self, count: usize) -> Result<()> {
        let store = self.place().store.clone();
        let mut batch = std::mem::take(&mut self.backlog);
        self.write_pending(&mut batch);
        batch.append(std::mem::take(&mut self.deletes));
        (self.gone, self.frozen_gone) = (BTreeSet::new(), BTreeSet::new());
        if count > 0
            && let Some(from) = self.queue.latest(count.max(self.live / LEAVE), &self.slab)
        {
            self.index_names();
            let far = Moment::begin(from);
            self.far = Some(self.far.take().map_or(far.clone(), |so_far| so_far.min(far)));
            for id in self.queue.take_from(from, &self.slab) {
                let entry = &self.slab.entries[id as usize];
                match &entry.value {
                    None => self.dead -= 1,
                    Some(value) => {
                        if entry.stamp != 0 && !planted(Bug::EvictDirty) {
                            let bytes = batch.put_with(|out| self.push_full_key(id, out), |out| encode_into(value, out));
                            self.heap.sample(bytes);
                        }
                        self.let_go(id);
                    }
                }
                self.release(id);
                if batch.bytes() >= EVICT_WRITE {
                    store.write(&batch)?;
                    batch.clear();
                }
            }
        }
        if batch.is_empty() { Ok(()) } else { store.write(&batch) }
    }

    /// What may be in memory and in the store is looked for when it comes back.
    fn index_names(&mut self) {
        if self.slab.by_name.is_some() {
            return;
        }
        let mut by_name = HashTable::with_capacity(self.live);
        for id in self.live_ids() {
            by_name.insert_unique(self.slab.hash(id), id, |&id| self.slab.hash(id));
        }
        self.slab.by_name = Some(by_name);
    }

    fn stored_key(&self, time: EventTime, key: &[u8], tag: &[u8]) -> Vec<u8> {
        let mut full = Vec::new();
        self.push_stored_key(time.0, (key, tag), &mut full);
        full
    }

    #[cold]
    fn remove_stored(&mut self, time: EventTime, key: &[u8], tag: &[u8]) -> Result<Option<V>> {
        let full = self.stored_key(time, key, tag);
        if self.gone.contains(&full[PREFIX..]) || self.frozen_gone.contains(&full[PREFIX..]) {
            return Ok(None);
        }
        let Some(value) = self.place().store.get(&full).map_err(|e| e.at(self.place().label.clone()))? else { return Ok(None) };
        self.delete_stored(full);
        decode(&value).map(Some)
    }

    fn delete_stored(&mut self, mut full: Vec<u8>) {
        self.deletes.delete(&full);
        self.gone.insert(full.split_off(PREFIX));
    }

    fn push_full_key(&self, id: u32, out: &mut Vec<u8>) {
        self.push_stored_key(self.slab.time(id), self.slab.name(id), out);
    }

    /// time | key | tag | length of the key: the time first, so that the store holds entries in firing order.
    fn push_stored_key(&self, time: i64, (key, tag): (&[u8], &[u8]), out: &mut Vec<u8>) {
        let place = self.place();
        push_key(out, key_group(XxHash3_64::oneshot(key), place.max_parallelism), place.table, &time_bytes(time));
        out.extend_from_slice(key);
        out.extend_from_slice(tag);
        out.extend_from_slice(&(key.len() as u32).to_be_bytes());
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
            if !self.stays && !context.store.is_resident() {
                self.far = Some(Moment::begin(i64::MIN));
                self.index_names();
                return Ok(());
            }
            let forgotten = |group| planted(Bug::ForgetTimerGroup) && group == place.groups.start;
            place.scan(|group, bytes, value| if forgotten(group) { Ok(()) } else { self.load(group, &StoredName::of(bytes)?, value) })?;
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
        self.frozen_gone.append(&mut self.gone);
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

    fn drained(&mut self, _epoch: Epoch) {
        self.frozen_gone.clear();
    }

    fn keys(&self) -> usize {
        0
    }

    fn bytes(&self) -> usize {
        // With its place in the queue; a table of ids is 7/8 full at most and half full on average.
        let each = size_of::<Entry<V>>() + Queue::EACH + if self.slab.by_name.is_some() { 8 } else { 0 };
        let gone = (self.gone.len() + self.frozen_gone.len()) * GONE_BYTES;
        (self.live + self.dead) * each + self.live * self.heap.mean() + self.slab.long_names.bytes() + gone + self.pending_bytes()
    }

    fn pinned_bytes(&self) -> usize {
        if self.stays { self.bytes() } else { 0 }
    }

    fn evict(&mut self, target: usize) -> Result<()> {
        if self.stays {
            return Ok(());
        }
        let pending = self.pending_bytes();
        let each = (self.bytes() - pending).div_ceil(self.live.max(1)).max(1);
        self.leave(target.saturating_sub(pending).div_ceil(each))
    }
}
