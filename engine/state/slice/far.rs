//! Accumulators that memory has no room for: how they leave it, and how they come back.
//!
//! Memory is given back by pages, a slice's in turn; a page holds keys that came at about the same time. The store has a slice
//! by key group and, within it, in the order of keys. For a look at all of a window each slice and group is read a little way
//! on, and the part ends where the first of those ways does: what lies before that is all there is. What came back for a look
//! leaves again with the next part, unless there is room.
//!
//! Invariant: a visitor that is clean is in the store as it is, for nothing is drained between its coming and its going.

use super::{Cell, PAGE, Page, Slice, SliceTable};
use crate::env::{Bug, planted};
use crate::error::Result;
use crate::state::keyspace::{split_time, time_bytes};
use crate::state::value::{decode, encode_into};
use crate::state::{StateValue, Table, Write, WriteBatch};
use std::ops::RangeInclusive;
use twox_hash::XxHash3_64;

/// Bytes that a table keeps of what came back before it was ever told to free memory: a firing after a restore must not take
/// in all there is on disk.
pub(super) const ROOM: usize = if cfg!(test) { 512 } else { 64 << 20 };

/// Bytes that are read for a part, of all slices and groups together.
const BYTES: usize = if cfg!(test) { 64 } else { 4 << 20 };

/// Bytes that an eviction writes at a time.
const EVICT_WRITE: usize = 1 << 20;

/// How far a look at all keys of some slices has come: see [`SliceTable::parts`].
pub struct Parts {
    slices: RangeInclusive<i64>,
    /// Slots that hold something in memory, by key, and how many of them have been looked at.
    near: Vec<u32>,
    seen: usize,
    /// The first key of the next part.
    from: Option<Vec<u8>>,
    /// All that has come back so far is still here.
    stays: bool,
}

impl<A: StateValue> SliceTable<A> {
    /// Whether a slice of the range may have accumulators that are not in memory.
    pub fn is_far(&self, slices: RangeInclusive<i64>) -> bool {
        self.far > 0 && !slices.is_empty() && self.slices.range(slices).any(|(_, slice)| slice.far)
    }

    /// Whether any slice may have.
    pub fn has_far(&self) -> bool {
        self.far > 0
    }

    /// Whether anything has left memory since this was last asked: a slot may have become another key's meanwhile.
    pub fn has_evicted(&mut self) -> bool {
        std::mem::take(&mut self.evicted)
    }

    /// Brings accumulators back that only the store has, by slice and slot of a key, with one read for all of them.
    ///
    /// # Errors
    /// Of the store, or an accumulator that does not decode.
    pub fn recall(&mut self, cells: impl Iterator<Item = (i64, u32)>) -> Result<()> {
        if self.far == 0 {
            return Ok(());
        }
        let is_missing = |&(end, slot): &(i64, u32)| self.slices.get(&end).is_some_and(|slice| slice.far) && self.get(end, slot).is_none();
        let mut missing: Vec<(i64, u32)> = cells.filter(is_missing).collect();
        missing.sort_unstable();
        missing.dedup();
        if missing.is_empty() {
            return Ok(());
        }
        let (mut data, mut ends) = (Vec::new(), Vec::with_capacity(missing.len()));
        for &(end, slot) in &missing {
            self.shared.push_full_key(end, slot, &mut data);
            ends.push(data.len());
        }
        let starts = [0].into_iter().chain(ends.iter().copied());
        let keys: Vec<&[u8]> = starts.zip(&ends).map(|(start, &end)| &data[start..end]).collect();
        let place = self.shared.place().clone();
        let read = place.store.multi_get(&keys, &mut |at, value| {
            let (end, slot) = missing[at];
            self.bring(end, slot, value)
        });
        read.map_err(|e| e.at(place.label))
    }

    /// Begins a look at all keys of some slices, by key bytes, in parts that memory has room for.
    pub fn parts(&mut self, slices: RangeInclusive<i64>) -> Parts {
        self.let_go();
        self.shared.sweep();
        let mut near = Vec::new();
        self.slots_in(slices.clone(), &mut near);
        Parts { slices, near, seen: 0, from: Some(Vec::new()), stays: true }
    }

    /// Brings the next part of the keys into memory and puts their slots into `slots`, in the place of what was there;
    /// `false` when there is none left. Nothing else may be done to the table between the parts of a look.
    ///
    /// # Errors
    /// As [`recall`](Self::recall).
    pub fn next_part(&mut self, parts: &mut Parts, slots: &mut Vec<u32>) -> Result<bool> {
        slots.clear();
        parts.stays &= self.let_go();
        self.shared.sweep();
        let Some(from) = parts.from.take() else {
            if parts.stays {
                self.are_near(parts.slices.clone());
            }
            return Ok(false);
        };
        if self.is_far(parts.slices.clone()) {
            parts.from = self.bring_part(&parts.slices, &from)?;
        }
        let (index, near) = (&self.shared.index, &parts.near[parts.seen..]);
        let count = match &parts.from {
            Some(end) => near.partition_point(|&slot| index.key_bytes(slot, &mut [0; 8]) < &end[..]),
            None => near.len(),
        };
        slots.extend_from_slice(&near[..count]);
        parts.seen += count;
        if !self.visitors.is_empty() {
            slots.extend(self.visitors.iter().map(|&(_, slot)| slot));
            index.sort(slots);
            slots.dedup();
        }
        Ok(true)
    }

    /// What was brought back in this step and did not change leaves memory again, unless there is room; whether there was.
    /// Slots stay valid.
    pub fn let_go(&mut self) -> bool {
        let mut visitors = std::mem::take(&mut self.visitors);
        if visitors.is_empty() || self.bytes() <= self.room {
            return true;
        }
        self.spare = Vec::new();
        if self.bytes() <= self.room {
            return true;
        }
        for &(end, slot) in &visitors {
            let Some(slice) = self.slices.get_mut(&end) else { continue };
            let Some(cell) = slice.find_cell(slot).filter(|cell| cell.stamp == 0 && cell.value.is_some()) else { continue };
            cell.value = None;
            slice.cells -= 1;
            if self.shared.unhold(slot) {
                self.shared.fresh.push(slot);
            }
        }
        visitors.iter_mut().for_each(|(_, slot)| *slot /= PAGE as u32);
        visitors.sort_unstable();
        visitors.dedup();
        for (end, page) in visitors {
            if let Some(slice) = self.slices.get_mut(&end) {
                slice.give_back_if_empty(page as usize);
            }
        }
        false
    }

    /// Memory has all that these slices hold.
    fn are_near(&mut self, slices: RangeInclusive<i64>) {
        if slices.is_empty() {
            return;
        }
        for slice in self.slices.range_mut(slices).map(|(_, slice)| slice) {
            self.far -= usize::from(std::mem::take(&mut slice.far));
        }
    }

    /// Brings back what the store has of the slices from a key on, as far as the part goes; where the next one begins.
    fn bring_part(&mut self, slices: &RangeInclusive<i64>, from: &[u8]) -> Result<Option<Vec<u8>>> {
        let place = self.shared.place().clone();
        let ends: Vec<i64> = self.slices.range(slices.clone()).filter(|(_, slice)| slice.far).map(|(&end, _)| end).collect();
        let room = BYTES / (ends.len() * place.groups.len()).max(1);
        let (mut read, mut behind) = (WriteBatch::default(), None::<Vec<u8>>);
        for &end in &ends {
            let first = [&time_bytes(end)[..], from].concat();
            for group in place.groups.clone() {
                let mut taken = 0;
                place.scan_from(group, &first, |name, value| {
                    let (time, key) = split_time(name)?;
                    if time != end || behind.as_deref().is_some_and(|behind| key >= behind) {
                        return Ok(false);
                    }
                    if taken > room {
                        behind = Some(key.to_vec());
                        return Ok(false);
                    }
                    taken += name.len() + value.len();
                    read.put(name, value);
                    Ok(true)
                })?;
            }
        }
        for write in read.iter() {
            let Write::Put { key: name, value } = write else { continue };
            let (end, key) = split_time(name)?;
            if behind.as_deref().is_none_or(|behind| key < behind) {
                self.load(end, key, value).map_err(|e| e.at(place.label.clone()))?;
            }
        }
        Ok(behind)
    }

    /// An accumulator of the store comes into memory, if that has no newer one.
    fn load(&mut self, end: i64, key: &[u8], value: &[u8]) -> Result<()> {
        let shared = &mut self.shared;
        let slot = shared.index.resolve_one(key, XxHash3_64::oneshot(key), &mut shared.fresh);
        shared.holders.resize(shared.index.slots(), 0);
        if self.get(end, slot).is_some() { Ok(()) } else { self.bring(end, slot, value) }
    }

    fn bring(&mut self, end: i64, slot: u32, value: &[u8]) -> Result<()> {
        self.shared.heap.sample(value.len());
        let value = decode(value)?;
        let generation = self.shared.generation;
        let slice = self.slices.entry(end).or_insert_with(|| Slice::new(generation));
        let cell = slice.make_cell(slot, &mut self.spare);
        (cell.stamp, cell.value) = (0, Some(value));
        slice.cells += 1;
        slice.stored = true;
        self.shared.hold(slot);
        self.visitors.push((end, slot));
        Ok(())
    }

    /// After a restore: all of it.
    pub(super) fn load_all(&mut self) -> Result<()> {
        self.shared.place().clone().scan(|_, name, value| {
            let (end, key) = split_time(name)?;
            self.load(end, key, value)
        })?;
        self.shared.fresh.clear();
        self.visitors = Vec::new();
        Ok(())
    }

    /// After a restore: which slices there are.
    pub(super) fn find_slices(&mut self) -> Result<()> {
        let place = self.shared.place().clone();
        for group in place.groups.clone() {
            let mut next = Some(i64::MIN);
            while let Some(from) = next {
                let mut found = None;
                place.scan_from(group, &time_bytes(from), |name, _| {
                    found = Some(split_time(name)?.0);
                    Ok(false)
                })?;
                if let Some(end) = found {
                    let slice = self.slices.entry(end).or_insert_with(|| Slice::new(1));
                    (slice.stored, slice.far) = (true, true);
                }
                next = found.and_then(|end| end.checked_add(1));
            }
        }
        self.far = self.slices.len();
        Ok(())
    }

    /// Pages leave memory until about `target` bytes are free. Called only while no epoch is being drained: whatever waits to
    /// be written is older.
    pub(super) fn leave(&mut self, target: usize) -> Result<()> {
        self.visitors.clear();
        let store = self.shared.place().store.clone();
        let mut batch = std::mem::take(&mut self.backlog);
        self.write_pending(&mut batch);
        std::mem::swap(&mut self.dropped, &mut self.frozen_dropped);
        self.write_pending(&mut batch);
        if !batch.is_empty() {
            store.write(&batch)?;
            batch.clear();
        }
        let shared = &mut self.shared;
        let page_bytes = PAGE * size_of::<Cell<A>>();
        let mut freed = std::mem::take(&mut self.spare).len() * page_bytes;
        for (&end, slice) in &mut self.slices {
            while freed < target
                && let Some((page, cells)) = slice.next_page()
            {
                freed += page_bytes;
                let (key_bytes, before) = (shared.index.bytes() / shared.index.len().max(1), slice.cells);
                for (at, cell) in cells.iter().enumerate() {
                    let (slot, Some(value)) = ((page * PAGE + at) as u32, &cell.value) else { continue };
                    if cell.stamp != 0 && !planted(Bug::EvictDirty) {
                        let bytes = batch.put_with(|out| shared.push_full_key(end, slot, out), |out| encode_into(value, out));
                        shared.heap.sample(bytes);
                    }
                    slice.cells -= 1;
                    if shared.unhold(slot) {
                        shared.index.release(slot);
                        freed += key_bytes;
                    }
                }
                freed += (before - slice.cells) * shared.heap.mean();
                if before > slice.cells {
                    self.far += usize::from(!std::mem::replace(&mut slice.far, true));
                    (slice.stored, self.evicted) = (true, true);
                }
                if batch.bytes() >= EVICT_WRITE {
                    store.write(&batch)?;
                    batch.clear();
                }
            }
            slice.forget_gone();
            if freed >= target {
                break;
            }
        }
        if !batch.is_empty() {
            store.write(&batch)?;
        }
        self.room = self.bytes();
        Ok(())
    }
}

impl<A> Slice<A> {
    /// Takes out the page whose turn it is.
    fn next_page(&mut self) -> Option<(usize, Page<A>)> {
        if self.used_pages == 0 {
            return None;
        }
        let (before, after) = self.pages.split_at(self.hand.min(self.pages.len()));
        let is_used = |page: &Option<Page<A>>| page.is_some();
        let page = after.iter().position(is_used).map(|at| before.len() + at).or_else(|| before.iter().position(is_used))?;
        self.hand = page + 1;
        self.used_pages -= 1;
        self.pages[page].take().map(|cells| (page, cells))
    }

    /// Slots that come and go would otherwise be listed again and again.
    fn forget_gone(&mut self) {
        if self.changed.len() > 2 * self.cells + 1024 {
            let mut changed = std::mem::take(&mut self.changed);
            changed.sort_unstable();
            changed.dedup();
            changed.retain(|&slot| self.find_cell(slot).is_some_and(|cell| cell.stamp != 0));
            self.changed = changed;
        }
    }

    fn give_back_if_empty(&mut self, page: usize) {
        if let Some(slot) = self.pages.get_mut(page)
            && slot.as_ref().is_some_and(|cells| cells.iter().all(|cell| cell.value.is_none()))
        {
            *slot = None;
            self.used_pages -= 1;
        }
    }
}
