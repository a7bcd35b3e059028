//! One value per key: what value, list, map, reducing and aggregating state rest on.
//!
//! Hot entries live in an array over slots; cold ones in the store only. `resolve` makes a whole batch resident, with one
//! read of the store for all that is missing there; after it everything is array access.
//!
//! Time to live, where asked for, counts from the last [`touch`](PointTable::touch) in event time. An entry is visible while
//! `last + ttl > watermark`, whether it is in memory, on disk or restored. In memory it is dropped by
//! [`expire`](PointTable::expire); on disk the store drops it when it next compacts ([`StateStore::expire`]).
//!
//! Invariant: what is in memory is the truth; a key whose newest value has not reached the store is in memory.
//!
//! [`StateStore::expire`]: super::StateStore::expire

use super::evolve::rewrite;
use super::index::{ABREAST, touch};
use super::keyspace::{Mark, Place, push_key, split_time, time_bytes};
use super::value::{Heap, StateValue, check_codec, decode, encode_into, key_text, schema_of};
use super::{KeyIndex, Schema, Table, TableContext, WriteBatch};
use crate::env::{Bug, planted};
use crate::error::Result;
use crate::record::{Epoch, Keys};
use crate::time::EventTime;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use twox_hash::XxHash3_64;

/// Last-update time of an entry that was never touched: it does not expire.
const UNTOUCHED: i64 = i64::MAX;

/// Rounds of the clock hand that an entry in frequent use survives unused: keys that come often stay, those seen once go first.
const HOT: u8 = 3;

/// Entries that a drain takes up at a time.
const DRAINED_AT_ONCE: usize = if cfg!(test) { 2 } else { 256 };

/// Encoded bytes that an eviction writes at a time.
const EVICT_WRITE: usize = 1 << 20;

struct Cell<V> {
    /// Generation of the last change not yet drained; 0 = clean.
    stamp: u32,
    /// The store may hold a value of this key.
    stored: bool,
    /// Its delete was drained and is not known to be in the store yet.
    awaiting: bool,
    value: Option<V>,
}

impl<V> Cell<V> {
    const EMPTY: Cell<V> = Cell { stamp: 0, stored: false, awaiting: false, value: None };

    fn is_idle(&self) -> bool {
        self.value.is_none() && self.stamp == 0 && !self.awaiting
    }
}

/// Event-time expiry of a table.
struct Ttl {
    ms: i64,
    /// Last update by slot.
    times: Vec<i64>,
    /// At most one entry of a slot counts: the one whose time is in `queued`. It is never later than the last update.
    queue: BinaryHeap<Reverse<(i64, u32)>>,
    queued: Vec<i64>,
    watermark: Mark,
}

impl Ttl {
    fn is_over(&self, time: i64) -> bool {
        time != UNTOUCHED && time.saturating_add(self.ms) <= self.watermark.get()
    }

    fn enqueue(&mut self, slot: u32) {
        let time = self.times[slot as usize];
        if time != UNTOUCHED && self.queued[slot as usize] > time {
            self.queued[slot as usize] = time;
            self.queue.push(Reverse((time, slot)));
        }
    }

    fn forget(&mut self, slot: u32) {
        self.times[slot as usize] = UNTOUCHED;
        self.queued[slot as usize] = UNTOUCHED;
    }
}

/// See the module's header.
///
/// Slots are valid until the next `resolve`, `expire`, `evict` or `drained` of this table.
///
/// ```
/// # use std::sync::Arc;
/// use waterwheel_engine::state::{MemoryStore, PointTable, Table, TableContext};
/// use waterwheel_engine::record::Keys;
/// # let store = Arc::new(MemoryStore::default());
/// # let context = TableContext { operator: "count".into(), store, groups: 0..128, max_parallelism: 128 };
/// let mut counts = PointTable::<u64>::new("counts");
/// counts.open(&context, false)?;
/// let mut slots = Vec::new();
/// counts.resolve(&Keys::encode(["a", "b", "a"].map(String::from).into_iter()), &mut slots)?;
/// for &slot in &slots {
///     *counts.get_mut(slot).get_or_insert(0) += 1;
/// }
/// assert_eq!(counts.get(slots[0]), Some(&2));
/// # Ok::<(), waterwheel_engine::error::Error>(())
/// ```
pub struct PointTable<V> {
    name: String,
    key: Option<String>,
    place: Option<Place>,
    index: KeyIndex,
    cells: Vec<Cell<V>>,
    /// By slot: uses since the clock hand passed, up to [`HOT`]; counted once something was evicted.
    used: Vec<u8>,
    ttl: Option<Ttl>,
    generation: u32,
    changed: Vec<u32>,
    frozen: Vec<u32>,
    copied: WriteBatch,
    /// Slots that may hold nothing: looked at by the next `resolve`.
    fresh: Vec<u32>,
    /// Slots whose delete awaits `drained` of its epoch.
    awaiting: Vec<(Epoch, u32)>,
    /// The last one frozen.
    epoch: Epoch,
    /// The store may hold keys that memory does not.
    spilled: bool,
    hand: usize,
    heap: Heap,
    writes: usize,
    scratch: Vec<u8>,
}

impl<V: StateValue> PointTable<V> {
    /// A table of that name, unique within its operator.
    pub fn new(name: &str) -> Self {
        PointTable {
            name: name.to_string(),
            key: None,
            place: None,
            index: KeyIndex::new(),
            cells: Vec::new(),
            used: Vec::new(),
            ttl: None,
            generation: 1,
            changed: Vec::new(),
            frozen: Vec::new(),
            copied: WriteBatch::default(),
            fresh: Vec::new(),
            awaiting: Vec::new(),
            epoch: 0,
            spilled: false,
            hand: 0,
            heap: Heap::new::<V>(),
            writes: 0,
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

    /// Entries expire `ttl_ms` of event time after their last touch.
    #[must_use]
    pub fn with_ttl(mut self, ttl_ms: i64) -> Self {
        self.ttl =
            Some(Ttl { ms: ttl_ms, times: Vec::new(), queue: BinaryHeap::new(), queued: Vec::new(), watermark: Mark::new(&self.name) });
        self
    }

    /// Makes every key of a batch resident and gives its slot, in row order, replacing the content of `slots`.
    ///
    /// # Errors
    /// Of the store, or a stored value that does not decode.
    pub fn resolve(&mut self, keys: &Keys, slots: &mut Vec<u32>) -> Result<()> {
        self.sweep();
        self.index.resolve(keys, slots, &mut self.fresh);
        self.grow();
        if self.spilled {
            for &slot in slots.iter() {
                let used = &mut self.used[slot as usize];
                *used = (*used + 1).min(HOT);
            }
            self.fresh.iter().for_each(|&slot| self.used[slot as usize] = 0);
            self.load()?;
        }
        touch(slots.iter().copied(), |slot| self.cells[slot as usize].stamp as usize);
        Ok(())
    }

    /// The value of a resident key.
    #[inline]
    pub fn get(&self, slot: u32) -> Option<&V> {
        if let Some(ttl) = &self.ttl
            && ttl.is_over(ttl.times[slot as usize])
        {
            return None;
        }
        self.cells[slot as usize].value.as_ref()
    }

    /// The value of a resident key for writing; counts as changed. `None` removes.
    #[inline]
    pub fn get_mut(&mut self, slot: u32) -> &mut Option<V> {
        if self.cells[slot as usize].stamp != self.generation {
            self.mark(slot);
        }
        let cell = &mut self.cells[slot as usize];
        if let Some(ttl) = &mut self.ttl
            && (cell.value.is_none() || ttl.is_over(ttl.times[slot as usize]))
        {
            ttl.forget(slot);
            cell.value = None;
        }
        &mut cell.value
    }

    /// Changes the value of a resident key.
    pub fn update<R>(&mut self, slot: u32, change: impl FnOnce(&mut Option<V>) -> R) -> R {
        change(self.get_mut(slot))
    }

    /// Sets the value of a resident key.
    pub fn insert(&mut self, slot: u32, value: V) -> Option<V> {
        self.get_mut(slot).replace(value)
    }

    /// Removes the value of a resident key.
    pub fn remove(&mut self, slot: u32) -> Option<V> {
        self.get(slot)?;
        let value = self.get_mut(slot).take();
        self.discard(slot);
        value
    }

    /// Notes that the value of a resident key was used at `time`; the latest of all touches counts. Without a value or a time
    /// to live it does nothing; an entry that was never touched does not expire.
    pub fn touch(&mut self, slot: u32, time: EventTime) {
        let Some(ttl) = &self.ttl else { return };
        let last = ttl.times[slot as usize];
        let time = time.0.min(UNTOUCHED - 1);
        if self.get(slot).is_none() || (last != UNTOUCHED && last >= time) {
            return;
        }
        if self.cells[slot as usize].stamp != self.generation {
            // First, because a frozen entry is copied with its old time.
            self.mark(slot);
        }
        if let Some(ttl) = &mut self.ttl {
            ttl.times[slot as usize] = time;
            ttl.enqueue(slot);
        }
    }

    /// Whether a resident key has a value that was touched and is not over.
    pub(crate) fn is_touched(&self, slot: u32) -> bool {
        let last = self.ttl.as_ref().map_or(UNTOUCHED, |ttl| ttl.times[slot as usize]);
        last != UNTOUCHED && self.get(slot).is_some()
    }

    /// Up to which time entries have expired, also before a restore; the beginning of time without a time to live.
    pub(crate) fn expired_to(&self) -> EventTime {
        self.ttl.as_ref().map_or(EventTime::MIN, |ttl| EventTime(ttl.watermark.get()))
    }

    /// Drops entries whose last touch lies the time to live or longer before the watermark; returns how many were in memory.
    pub fn expire(&mut self, watermark: EventTime) -> u64 {
        let Some(ttl) = &mut self.ttl else { return 0 };
        ttl.watermark.raise(watermark.0);
        let mut over = Vec::new();
        while let Some(&Reverse((time, slot))) = ttl.queue.peek() {
            if !ttl.is_over(time) {
                break;
            }
            ttl.queue.pop();
            if ttl.queued[slot as usize] != time {
                continue; // of a former entry of this slot
            }
            ttl.queued[slot as usize] = UNTOUCHED;
            if ttl.is_over(ttl.times[slot as usize]) {
                over.push(slot);
            } else {
                ttl.enqueue(slot);
            }
        }
        let mut dropped = 0;
        for slot in over {
            dropped += u64::from(self.cells[slot as usize].value.is_some());
            // Takes the value, because it is over.
            self.get_mut(slot);
            self.discard(slot);
        }
        self.sweep();
        dropped
    }

    /// Visits every entry, in memory or not, by key bytes. For inspection and tests: it holds all of it at once.
    ///
    /// # Errors
    /// Of the store, or a stored value that does not decode.
    pub fn for_each(&self, mut visit: impl FnMut(&[u8], &V)) -> Result<()> {
        let mut stored = BTreeMap::new();
        if self.spilled {
            self.place().scan(|_, key, bytes| {
                let (time, value) = decode_entry(self.ttl.is_some(), bytes).map_err(|e| e.at(self.place().label.clone()))?;
                if !self.ttl.as_ref().is_some_and(|ttl| ttl.is_over(time)) {
                    stored.insert(key.to_vec(), value);
                }
                Ok(())
            })?;
        }
        let mut slots: Vec<u32> = self.index.live_slots().collect();
        self.index.sort(&mut slots);
        let mut scratch = [0; 8];
        for &slot in &slots {
            stored.remove(self.index.key_bytes(slot, &mut scratch));
        }
        let mut stored = stored.into_iter().peekable();
        for slot in slots {
            let key = self.index.key_bytes(slot, &mut scratch);
            while let Some((key, value)) = stored.next_if(|(stored, _)| &stored[..] < key) {
                visit(&key, &value);
            }
            if let Some(value) = self.get(slot) {
                visit(key, value);
            }
        }
        stored.for_each(|(key, value)| visit(&key, &value));
        Ok(())
    }

    /// The key index: bytes, hash and group of a slot.
    pub fn index(&self) -> &KeyIndex {
        &self.index
    }

    fn place(&self) -> &Place {
        self.place.as_ref().unwrap_or_else(|| unreachable!("table {} is used before it was opened", self.name))
    }

    fn grow(&mut self) {
        let slots = self.index.slots();
        self.cells.resize_with(slots, || Cell::EMPTY);
        self.used.resize(slots, 0);
        if let Some(ttl) = &mut self.ttl {
            ttl.times.resize(slots, UNTOUCHED);
            ttl.queued.resize(slots, UNTOUCHED);
        }
    }

    /// Releases slots that turned out to hold nothing.
    fn sweep(&mut self) {
        for slot in std::mem::take(&mut self.fresh) {
            if self.index.is_live(slot) && self.cells[slot as usize].is_idle() {
                self.release(slot);
            }
        }
    }

    fn release(&mut self, slot: u32) {
        self.index.release(slot);
        self.cells[slot as usize] = Cell::EMPTY;
        if let Some(ttl) = &mut self.ttl {
            ttl.forget(slot);
        }
    }

    /// Reads what the store holds of the fresh slots.
    fn load(&mut self) -> Result<()> {
        if self.fresh.is_empty() {
            return Ok(());
        }
        let (mut data, mut ends) = (Vec::new(), Vec::with_capacity(self.fresh.len()));
        for &slot in &self.fresh {
            self.push_full_key(slot, &mut data);
            ends.push(data.len());
        }
        let starts = [0].into_iter().chain(ends.iter().copied());
        let keys: Vec<&[u8]> = starts.zip(&ends).map(|(start, &end)| &data[start..end]).collect();
        let place = self.place().clone();
        let fresh = std::mem::take(&mut self.fresh);
        let read = place.store.multi_get(&keys, &mut |at, bytes| self.keep(fresh[at], bytes));
        self.fresh = fresh;
        read.map_err(|e| e.at(place.label))
    }

    /// Reads all that the store holds.
    fn load_all(&mut self) -> Result<()> {
        self.place().clone().scan(|_, key, bytes| {
            let slot = self.index.resolve_one(key, XxHash3_64::oneshot(key), &mut self.fresh);
            self.grow();
            self.keep(slot, bytes)
        })?;
        self.fresh.clear();
        Ok(())
    }

    /// A value that the store holds becomes resident.
    fn keep(&mut self, slot: u32, bytes: &[u8]) -> Result<()> {
        let (time, value) = decode_entry(self.ttl.is_some(), bytes)?;
        self.heap.sample(bytes.len());
        let cell = &mut self.cells[slot as usize];
        (cell.value, cell.stored) = (Some(value), true);
        if let Some(ttl) = &mut self.ttl {
            // One that is over stays hidden, and goes with the next `expire`.
            ttl.times[slot as usize] = time;
            ttl.enqueue(slot);
        }
        Ok(())
    }

    fn push_full_key(&self, slot: u32, out: &mut Vec<u8>) {
        let (place, mut scratch) = (self.place(), [0; 8]);
        push_key(out, self.index.group(slot, place.max_parallelism), place.table, self.index.key_bytes(slot, &mut scratch));
    }

    /// The first change of an entry in this generation.
    #[cold]
    fn mark(&mut self, slot: u32) {
        if self.cells[slot as usize].stamp != 0 && !planted(Bug::OverwriteFrozen) {
            let mut copied = std::mem::take(&mut self.copied);
            self.write(slot, &mut copied);
            self.copied = copied;
        }
        self.cells[slot as usize].stamp = self.generation;
        // Entries that come and go within an epoch would otherwise be listed again and again.
        if self.changed.len() > 2 * self.cells.len() + 1024 {
            self.changed.sort_unstable();
            self.changed.dedup();
        }
        self.changed.push(slot);
        self.writes += 1;
        if self.writes.is_multiple_of(256)
            && let Some(value) = &self.cells[slot as usize].value
        {
            self.scratch.clear();
            encode_into(value, &mut self.scratch);
            self.heap.sample(self.scratch.len());
        }
    }

    /// Encodes the present state of an entry; it is clean afterwards.
    fn write(&mut self, slot: u32, out: &mut WriteBatch) {
        let cell = &self.cells[slot as usize];
        match &cell.value {
            Some(value) => {
                let time = self.ttl.as_ref().map(|ttl| time_bytes(ttl.times[slot as usize]));
                let bytes = out.put_with(
                    |out| self.push_full_key(slot, out),
                    |out| {
                        out.extend_from_slice(time.as_ref().map_or(&[], |time| &time[..]));
                        encode_into(value, out);
                    },
                );
                self.heap.sample(bytes);
                self.cells[slot as usize].stored = true;
            }
            None if cell.stored => {
                if !planted(Bug::KeepRemoved) {
                    out.delete_with(|out| self.push_full_key(slot, out));
                }
                let cell = &mut self.cells[slot as usize];
                (cell.stored, cell.awaiting) = (false, true);
                self.awaiting.push((self.epoch, slot));
            }
            None => self.fresh.push(slot),
        }
        self.cells[slot as usize].stamp = 0;
    }

    /// A removed entry that never reached the store leaves no trace.
    fn discard(&mut self, slot: u32) {
        let cell = &mut self.cells[slot as usize];
        if !cell.stored {
            cell.stamp = 0;
            self.fresh.push(slot);
        }
    }

    /// Keys removed up to `epoch` may be forgotten.
    fn deletes_are_stored(&mut self, epoch: Epoch) {
        let (cells, fresh) = (&mut self.cells, &mut self.fresh);
        self.awaiting.retain(|&(at, slot)| {
            if at <= epoch {
                cells[slot as usize].awaiting = false;
                fresh.push(slot);
            }
            at > epoch
        });
        self.sweep();
    }

    /// Estimated bytes of one entry.
    fn entry_bytes(&self) -> usize {
        let ttl = if self.ttl.is_some() { 2 * 8 + 16 } else { 0 };
        size_of::<Cell<V>>() + size_of::<u32>() + 1 + ttl + self.heap.mean()
    }
}

/// Time of the last touch, and value.
fn decode_entry<V: StateValue>(timed: bool, bytes: &[u8]) -> Result<(i64, V)> {
    let (time, rest) = if timed { split_time(bytes)? } else { (UNTOUCHED, bytes) };
    Ok((time, decode(rest)?))
}

impl<V: StateValue> Table for PointTable<V> {
    fn name(&self) -> &str {
        &self.name
    }

    fn schema(&self) -> String {
        format!("point{}{} {}", if self.ttl.is_some() { " ttl" } else { "" }, key_text(self.key.as_deref()), schema_of::<V>())
    }

    fn rewrite(&self, stored: &Schema, value: &[u8]) -> Result<Vec<u8>> {
        rewrite::<V>(stored, if self.ttl.is_some() { 8 } else { 0 }, value)
    }

    fn open(&mut self, context: &TableContext, restored: bool) -> Result<()> {
        check_codec::<V>().map_err(|e| e.at(format!("operator {}, table {}", context.operator, self.name)))?;
        let place = Place::new(context, &self.name);
        if restored && let Some(ttl) = &mut self.ttl {
            ttl.watermark.restore(&place)?;
        }
        let resident = place.store.is_resident();
        self.place = Some(place);
        self.spilled = restored && !resident;
        if restored && resident { self.load_all() } else { Ok(()) }
    }

    fn freeze(&mut self, epoch: Epoch) {
        self.generation += 1;
        self.epoch = epoch;
        if self.frozen.is_empty() {
            std::mem::swap(&mut self.frozen, &mut self.changed);
        } else {
            self.frozen.append(&mut self.changed);
        }
        if let Some(ttl) = &mut self.ttl {
            ttl.watermark.freeze();
        }
    }

    fn drain(&mut self, out: &mut WriteBatch, entries: usize) -> Result<bool> {
        out.append(std::mem::take(&mut self.copied));
        if let (Some(ttl), Some(place)) = (&mut self.ttl, &self.place) {
            ttl.watermark.drain(place, out);
        }
        let mut written = 0;
        while written < entries && !self.frozen.is_empty() {
            // In two passes, so that the processor waits for many cells at a time and not for one after the other.
            let mut slots = self.frozen.split_off(self.frozen.len().saturating_sub(DRAINED_AT_ONCE));
            slots.retain(|&slot| (1..self.generation).contains(&self.cells[slot as usize].stamp));
            self.index.touch(slots.iter().copied());
            for &slot in &slots {
                // A slot listed twice was written at its first turn.
                if self.cells[slot as usize].stamp != 0 {
                    self.write(slot, out);
                }
            }
            written += slots.len();
        }
        Ok(self.frozen.is_empty())
    }

    fn drained(&mut self, epoch: Epoch) {
        self.deletes_are_stored(epoch);
        // As of the freeze, so that no checkpoint loses what was still visible at its barrier.
        if let (Some(ttl), Some(place)) = (&self.ttl, &self.place)
            && let Some(last_over) = ttl.watermark.frozen().checked_sub(ttl.ms)
        {
            place.store.expire(place.table, time_bytes(last_over.saturating_add(1)));
        }
    }

    fn keys(&self) -> usize {
        self.index.len()
    }

    fn bytes(&self) -> usize {
        self.index.bytes() + self.index.len() * self.entry_bytes()
    }

    fn evict(&mut self, target: usize) -> Result<()> {
        let store = self.place().store.clone();
        let (mut freed, mut batch) = (0, WriteBatch::default());
        let each = self.entry_bytes() + self.index.bytes() / self.index.len().max(1);
        // The first rounds may only take chances away.
        for _ in 0..(usize::from(HOT) + 1) * self.cells.len() {
            if freed >= target {
                break;
            }
            self.hand = (self.hand + 1) % self.cells.len();
            if self.hand.is_multiple_of(ABREAST) {
                self.index.touch_entries(self.hand as u32..self.cells.len().min(self.hand + ABREAST) as u32);
            }
            let slot = self.hand as u32;
            if self.used[self.hand] > 0 {
                self.used[self.hand] -= 1;
                continue;
            }
            if !self.index.is_live(slot) || self.cells[self.hand].awaiting {
                continue;
            }
            if self.cells[self.hand].stamp != 0 && !planted(Bug::EvictDirty) {
                self.write(slot, &mut batch);
            }
            if self.cells[self.hand].awaiting {
                continue; // its delete must be in the store before the key is forgotten
            }
            self.spilled = true;
            self.release(slot);
            freed += each;
            if batch.bytes() >= EVICT_WRITE {
                store.write(&batch)?;
                batch.clear();
            }
        }
        if !batch.is_empty() {
            store.write(&batch)?;
        }
        self.deletes_are_stored(Epoch::MAX);
        Ok(())
    }
}
