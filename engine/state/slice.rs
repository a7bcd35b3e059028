//! Accumulators by (slice, key): the table below windows. A slice is a stretch of event time named by its end.
//!
//! Slots are shared by all slices; a slice holds pages of cells by slot, so it costs what it holds, and is dropped whole.
//! A slice that dies before it was ever drained never reaches the store.
//!
//! When memory is short, pages leave it, those of the earliest slices first: what the store does not hold as it is goes there,
//! the rest is forgotten. Their slice is **far** from then on: the store may hold accumulators that memory does not. They come
//! back for rows that go on with them ([`SliceTable::recall`]), and a part of the keys at a time for a look at all
//! ([`SliceTable::parts`]); after a restore from a store that can be read on demand every slice is far (see `slice/far.rs`).
//!
//! Invariant: a key has a slot exactly as long as memory has a cell of it in some slice (or since the last `resolve`); a cell
//! whose stamp is the current generation is listed as changed, or its slice is new. An accumulator that is in memory is the
//! truth; one that is not there is in the store as it is, and then its slice is far.

mod far;
mod order;

use self::order::Order;
use super::evolve::rewrite;
use super::index::{ABREAST, touch};
use super::keyspace::{Place, push_key, state_key, table_range, time_bytes};
use super::value::{Heap, StateValue, check_codec, encode_into, key_text, schema_of};
use super::{KeyIndex, Schema, Table, TableContext, WriteBatch};
use crate::env::{Bug, planted};
use crate::error::Result;
use crate::record::{Epoch, Keys};
use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};

pub use self::far::Parts;

const PAGE: usize = if cfg!(test) { 4 } else { 256 };

struct Cell<A> {
    /// Generation of the last change not yet drained; 0 = clean.
    stamp: u32,
    value: Option<A>,
}

type Page<A> = Box<[Cell<A>]>;

struct Slice<A> {
    pages: Vec<Option<Page<A>>>,
    used_pages: usize,
    cells: usize,
    /// Generation that `changed` belongs to.
    generation: u32,
    /// Made in that generation: all of its cells changed in it, and none is listed.
    is_new: bool,
    changed: Vec<u32>,
    /// Changed before the last freeze, not yet drained (or rewritten since, or gone: the stamp tells).
    frozen: Vec<u32>,
    /// The store may hold a part of it.
    stored: bool,
    /// The store may hold accumulators that memory does not.
    far: bool,
    /// The page that leaves memory next.
    hand: usize,
}

/// What all slices share.
struct Shared {
    name: String,
    key: Option<String>,
    place: Option<Place>,
    index: KeyIndex,
    /// By slot: slices that hold a cell of it.
    holders: Vec<u32>,
    /// Slots made by the last `resolve`.
    fresh: Vec<u32>,
    generation: u32,
    copied: WriteBatch,
    order: Order,
    heap: Heap,
}

/// See the module's header. `A` is an accumulator.
///
/// A batch goes: [`resolve`](SliceTable::resolve), then per run of rows of one slice [`slice`](SliceTable::slice) once and
/// [`SliceCursor::entry`] per row. A firing goes: [`slots_in`](SliceTable::slots_in), then [`get`](SliceTable::get) per slice
/// and slot (or [`view`](SliceTable::view) once per slice). All of these see what is in memory. Whoever goes on with
/// accumulators recalls them before ([`recall`](SliceTable::recall)), and a firing of [far](SliceTable::is_far) slices goes by
/// [`parts`](SliceTable::parts).
///
/// Slots are valid until the next `resolve`, `parts`, `next_part`, `drop_slice` or `evict`.
pub struct SliceTable<A> {
    shared: Shared,
    slices: BTreeMap<i64, Slice<A>>,
    /// Empty pages of slices that were dropped, for the next ones.
    spare: Vec<Page<A>>,
    /// Slices below are drained of the frozen generation.
    drained_to: Option<i64>,
    drained_all: bool,
    /// Runs of slices dropped in this epoch: first and last end.
    dropped: Vec<(i64, i64)>,
    frozen_dropped: Vec<(i64, i64)>,
    /// Left over from an epoch that was never drained.
    backlog: WriteBatch,
    /// Slices that are far.
    far: usize,
    /// Something has left memory since somebody asked.
    evicted: bool,
    /// Cells that were brought back in this step: slice and slot.
    visitors: Vec<(i64, u32)>,
    /// As long as the table holds no more bytes, what was brought back stays.
    room: usize,
}

/// One slice open for writing.
pub struct SliceCursor<'a, A> {
    end: i64,
    slice: &'a mut Slice<A>,
    shared: &'a mut Shared,
    spare: &'a mut Vec<Page<A>>,
}

/// One slice open for reading.
#[derive(Clone, Copy)]
pub struct SliceView<'a, A> {
    slice: Option<&'a Slice<A>>,
}

impl<A: StateValue> SliceTable<A> {
    /// A table of that name, unique within its operator.
    pub fn new(name: &str) -> Self {
        SliceTable {
            shared: Shared {
                name: name.to_string(),
                key: None,
                place: None,
                index: KeyIndex::new(),
                holders: Vec::new(),
                fresh: Vec::new(),
                generation: 1,
                copied: WriteBatch::default(),
                order: Order::default(),
                heap: Heap::new::<A>(),
            },
            slices: BTreeMap::new(),
            spare: Vec::new(),
            drained_to: None,
            drained_all: true,
            dropped: Vec::new(),
            frozen_dropped: Vec::new(),
            backlog: WriteBatch::default(),
            far: 0,
            evicted: false,
            visitors: Vec::new(),
            room: far::ROOM,
        }
    }

    /// Notes the kind of its keys ([`Key::kind`](crate::record::Key::kind)), as [`PointTable::with_key`](super::PointTable::with_key).
    #[must_use]
    pub fn with_key(mut self, kind: Option<String>) -> Self {
        self.shared.key = kind;
        self
    }

    /// Gives every key of a batch a slot, in row order.
    pub fn resolve(&mut self, keys: &Keys, slots: &mut Vec<u32>) {
        let shared = &mut self.shared;
        shared.sweep();
        shared.index.resolve(keys, slots, &mut shared.fresh);
        shared.holders.resize(shared.index.slots(), 0);
    }

    /// Opens the slice that ends at `end` for writing, making it if needed.
    pub fn slice(&mut self, end: i64) -> SliceCursor<'_, A> {
        let generation = self.shared.generation;
        let slice = self.slices.entry(end).or_insert_with(|| Slice::new(generation));
        slice.roll(generation);
        SliceCursor { end, slice, shared: &mut self.shared, spare: &mut self.spare }
    }

    /// Opens a slice for reading; one that is not there reads as empty.
    pub fn view(&self, end: i64) -> SliceView<'_, A> {
        SliceView { slice: self.slices.get(&end) }
    }

    /// The accumulator of a key in a slice.
    pub fn get(&self, end: i64, slot: u32) -> Option<&A> {
        self.view(end).get(slot)
    }

    /// Takes back an accumulator that [`entry`](SliceCursor::entry) made since the last `resolve`: the store never heard of it.
    pub fn unmake(&mut self, end: i64, slot: u32) {
        let Some(slice) = self.slices.get_mut(&end) else { return };
        let Some(cell) = slice.find_cell(slot).filter(|cell| cell.value.is_some()) else { return };
        (cell.stamp, cell.value) = (0, None);
        slice.cells -= 1;
        if slice.cells == 0 && !slice.far {
            self.drop_slice(end);
        }
        // The slot stays until the next `resolve`: later rows of the batch may have it.
        if self.shared.unhold(slot) {
            self.shared.fresh.push(slot);
        }
    }

    /// Ends of the slices in a range, ascending.
    pub fn slices(&self, range: impl RangeBounds<i64>) -> impl DoubleEndedIterator<Item = i64> + '_ {
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        let empty = match bounds {
            (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => {
                a > b || (a == b && !matches!(bounds, (Bound::Included(_), Bound::Included(_))))
            }
            _ => false,
        };
        let bounds = if empty { (Bound::Included(i64::MAX), Bound::Excluded(i64::MAX)) } else { bounds };
        self.slices.range(bounds).map(|(end, _)| *end)
    }

    /// Slots that hold something in memory in any slice of the range, sorted by key bytes, replacing the content of `slots`.
    pub fn slots_in(&mut self, range: impl RangeBounds<i64>, slots: &mut Vec<u32>) {
        slots.clear();
        let ends: Vec<i64> = self.slices(range).collect();
        let cells: usize = ends.iter().map(|end| self.slices[end].cells).sum();
        let live = self.shared.index.len();
        if cells.saturating_mul(16) < live {
            // A thin range: sorting what it holds is cheaper than walking every key.
            for end in &ends {
                self.slices[end].occupied(|slot, _| slots.push(slot));
            }
            slots.sort_unstable();
            slots.dedup();
            return self.shared.index.sort(slots);
        }
        let mut held = vec![false; self.shared.index.slots()];
        for end in &ends {
            self.slices[end].occupied(|slot, _| held[slot as usize] = true);
        }
        self.slots_where(|slot| held[slot as usize], slots);
    }

    /// Slots that hold something in any slice and that `is_wanted`, sorted by key bytes, replacing the content of `slots`.
    pub fn slots_where(&mut self, is_wanted: impl Fn(u32) -> bool, slots: &mut Vec<u32>) {
        slots.clear();
        let sorted = self.shared.order.refresh(&self.shared.index, &self.shared.holders);
        slots.extend(sorted.iter().copied().filter(|&slot| is_wanted(slot)));
    }

    /// Drops a slice whole; keys that no other slice holds lose their slots.
    pub fn drop_slice(&mut self, end: i64) {
        let Some(mut slice) = self.slices.remove(&end) else { return };
        let shared = &mut self.shared;
        slice.roll(shared.generation);
        self.far -= usize::from(slice.far);
        for slot in std::mem::take(&mut slice.frozen) {
            let Some(cell) = slice.find_cell(slot) else { continue };
            if cell.stamp != 0 && cell.stamp < shared.generation {
                shared.copy(end, slot, cell);
                slice.stored = true;
            }
        }
        slice.occupied(|slot, _| {
            if shared.unhold(slot) {
                shared.index.release(slot);
            }
        });
        if slice.stored {
            self.note_dropped(end);
        }
        self.recycle(slice.pages);
    }

    /// Keeps pages for the slices to come, as many as one of them may need.
    fn recycle(&mut self, pages: Vec<Option<Page<A>>>) {
        if self.slices.is_empty() {
            self.spare = Vec::new();
            return;
        }
        let room = (self.shared.index.slots() / PAGE + 1).saturating_sub(self.spare.len());
        for mut page in pages.into_iter().flatten().take(room) {
            page.iter_mut().for_each(|cell| *cell = Cell { stamp: 0, value: None });
            self.spare.push(page);
        }
    }

    /// Extends the last run of dropped slices when no live slice lies between: one range delete for many slices.
    fn note_dropped(&mut self, end: i64) {
        if let Some((_, last)) = self.dropped.last_mut()
            && *last < end
            && self.slices.range(*last..end).next().is_none()
        {
            *last = end;
        } else {
            self.dropped.push((end, end));
        }
    }

    /// The key index: bytes, hash and group of a slot.
    pub fn index(&self) -> &KeyIndex {
        &self.shared.index
    }

    /// Live slices.
    pub fn len(&self) -> usize {
        self.slices.len()
    }

    /// No live slice.
    pub fn is_empty(&self) -> bool {
        self.slices.is_empty()
    }

    /// Drains frozen cells of the next undrained slice; returns the entries written.
    fn drain_slice(&mut self, out: &mut WriteBatch, entries: usize) -> usize {
        let from = self.drained_to.map_or(Bound::Unbounded, Bound::Included);
        let Some((&end, slice)) = self.slices.range_mut((from, Bound::Unbounded)).next() else {
            self.drained_all = true;
            return 0;
        };
        let generation = self.shared.generation;
        slice.roll(generation);
        let mut written = 0;
        while written < entries {
            if slice.frozen.len().is_multiple_of(ABREAST) {
                slice.touch_next(&self.shared.index);
            }
            let Some(slot) = slice.frozen.pop() else { break };
            let Some(cell) = slice.find_cell(slot).filter(|cell| (1..generation).contains(&cell.stamp)) else {
                continue; // copied at its next change, or gone
            };
            cell.stamp = 0;
            if let Some(value) = &cell.value {
                let bytes = out.put_with(|out| self.shared.push_full_key(end, slot, out), |out| encode_into(value, out));
                self.shared.heap.sample(bytes);
            }
            slice.stored = true;
            written += 1;
        }
        if slice.frozen.is_empty() {
            match end.checked_add(1) {
                Some(next) => self.drained_to = Some(next),
                None => self.drained_all = true,
            }
        }
        written
    }

    /// Writes the slices that were gone at the freeze, then what was copied since.
    fn write_pending(&mut self, out: &mut WriteBatch) {
        if let Some(place) = &self.shared.place {
            for (first, last) in self.frozen_dropped.drain(..) {
                for group in place.groups.clone() {
                    let from = state_key(group, place.table, &time_bytes(first));
                    let to = match last.checked_add(1) {
                        Some(next) => state_key(group, place.table, &time_bytes(next)),
                        None => table_range(group, place.table).1,
                    };
                    out.delete_range(from, to);
                }
            }
        }
        out.append(std::mem::take(&mut self.shared.copied));
    }
}

impl<A: StateValue> SliceCursor<'_, A> {
    /// The accumulator of a key in this slice, made by `create` at first.
    #[inline]
    pub fn entry(&mut self, slot: u32, create: impl FnOnce() -> A) -> &mut A {
        self.cell(slot).get_or_insert_with(create)
    }

    /// Sets the accumulator of a key in this slice.
    pub fn put(&mut self, slot: u32, value: A) {
        *self.cell(slot) = Some(value);
    }

    /// The accumulator of a key in this slice, unchanged.
    pub fn get(&self, slot: u32) -> Option<&A> {
        SliceView { slice: Some(self.slice) }.get(slot)
    }

    /// A cell about to be given a value.
    #[inline]
    fn cell(&mut self, slot: u32) -> &mut Option<A> {
        let (page, at) = (slot as usize / PAGE, slot as usize % PAGE);
        let current = match self.slice.pages.get(page) {
            Some(Some(cells)) => cells[at].stamp == self.shared.generation,
            _ => false,
        };
        if !current {
            self.touch(slot);
        }
        match &mut self.slice.pages[page] {
            Some(cells) => &mut cells[at].value,
            None => unreachable!("a touched cell has a page"),
        }
    }

    /// The first change of a cell in this generation.
    #[cold]
    fn touch(&mut self, slot: u32) {
        let (slice, shared) = (&mut *self.slice, &mut *self.shared);
        let cell = slice.make_cell(slot, self.spare);
        if cell.value.is_none() {
            shared.hold(slot);
            slice.cells += 1;
        } else if cell.stamp != 0 && !planted(Bug::OverwriteFrozenSlice) {
            shared.copy(self.end, slot, cell);
            slice.stored = true;
        }
        slice.cell(slot).stamp = shared.generation;
        if !slice.is_new {
            slice.changed.push(slot);
        }
    }
}

impl<'a, A> SliceView<'a, A> {
    /// The accumulator of a key in this slice.
    #[inline]
    pub fn get(&self, slot: u32) -> Option<&'a A> {
        match self.slice?.pages.get(slot as usize / PAGE)? {
            Some(cells) => cells[slot as usize % PAGE].value.as_ref(),
            None => None,
        }
    }

    /// Accumulators in it.
    pub fn len(&self) -> usize {
        self.slice.map_or(0, |slice| slice.cells)
    }

    /// Nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Visits the accumulators of slots from `first` on, by slot.
    pub fn for_each_from(&self, first: u32, mut visit: impl FnMut(u32, &'a A)) {
        let Some(slice) = self.slice else { return };
        let (first_page, first_at) = (first as usize / PAGE, first as usize % PAGE);
        for (page, cells) in slice.pages.iter().enumerate().skip(first_page) {
            let Some(cells) = cells else { continue };
            let first = if page == first_page { first_at } else { 0 };
            for (at, cell) in cells.iter().enumerate().skip(first) {
                if let Some(value) = &cell.value {
                    visit((page * PAGE + at) as u32, value);
                }
            }
        }
    }
}

impl<A> Slice<A> {
    fn new(generation: u32) -> Self {
        Slice {
            pages: Vec::new(),
            used_pages: 0,
            cells: 0,
            generation,
            is_new: true,
            changed: Vec::new(),
            frozen: Vec::new(),
            stored: false,
            far: false,
            hand: 0,
        }
    }

    /// Catches up with a freeze: what changed before it is frozen now.
    fn roll(&mut self, generation: u32) {
        if self.generation == generation {
            return;
        }
        self.generation = generation;
        self.frozen.append(&mut self.changed);
        if std::mem::take(&mut self.is_new) {
            let mut all = Vec::with_capacity(self.cells);
            self.occupied(|slot, _| all.push(slot));
            self.frozen = all;
        }
    }

    fn cell(&mut self, slot: u32) -> &mut Cell<A> {
        match &mut self.pages[slot as usize / PAGE] {
            Some(cells) => &mut cells[slot as usize % PAGE],
            None => unreachable!("slot {slot} was written, so it has a page"),
        }
    }

    /// The cell of a slot whose page may have left memory.
    fn find_cell(&mut self, slot: u32) -> Option<&mut Cell<A>> {
        self.pages.get_mut(slot as usize / PAGE)?.as_mut()?.get_mut(slot as usize % PAGE)
    }

    /// The cell of a slot, with its page if need be.
    fn make_cell(&mut self, slot: u32, spare: &mut Vec<Page<A>>) -> &mut Cell<A> {
        let page = slot as usize / PAGE;
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, || None);
        }
        let used = &mut self.used_pages;
        let cells = self.pages[page].get_or_insert_with(|| {
            *used += 1;
            spare.pop().unwrap_or_else(|| (0..PAGE).map(|_| Cell { stamp: 0, value: None }).collect())
        });
        &mut cells[slot as usize % PAGE]
    }

    /// Fetches into the cache what draining the next cells will need.
    fn touch_next(&self, index: &KeyIndex) {
        let next = || self.frozen[self.frozen.len().saturating_sub(ABREAST)..].iter().copied();
        touch(next(), |slot| match self.pages.get(slot as usize / PAGE) {
            Some(Some(cells)) => cells[slot as usize % PAGE].stamp as usize,
            _ => 0,
        });
        index.touch(next());
    }

    /// Visits cells that hold a value, by slot.
    fn occupied(&self, visit: impl FnMut(u32, &A)) {
        SliceView { slice: Some(self) }.for_each_from(0, visit);
    }
}

impl Shared {
    fn place(&self) -> &Place {
        self.place.as_ref().unwrap_or_else(|| unreachable!("table {} is used before it was opened", self.name))
    }

    fn push_full_key(&self, end: i64, slot: u32, out: &mut Vec<u8>) {
        let (place, mut scratch) = (self.place(), [0; 8]);
        push_key(out, self.index.group(slot, place.max_parallelism), place.table, &time_bytes(end));
        out.extend_from_slice(self.index.key_bytes(slot, &mut scratch));
    }

    /// Encodes a frozen cell that is about to change.
    fn copy<A: StateValue>(&mut self, end: i64, slot: u32, cell: &Cell<A>) {
        if let Some(value) = &cell.value {
            let mut copied = std::mem::take(&mut self.copied);
            copied.put_with(|out| self.push_full_key(end, slot, out), |out| encode_into(value, out));
            self.copied = copied;
        }
    }

    /// Forgets keys that hold nothing: those whose rows were all too late, and those that only came back for a look.
    fn sweep(&mut self) {
        for slot in self.fresh.drain(..) {
            if self.holders[slot as usize] == 0 && self.index.is_live(slot) {
                self.index.release(slot);
            }
        }
    }

    fn hold(&mut self, slot: u32) {
        let holders = &mut self.holders[slot as usize];
        *holders += 1;
        if *holders == 1 {
            self.order.add(slot, &self.holders);
        }
    }

    /// Whether no slice holds the key any more.
    fn unhold(&mut self, slot: u32) -> bool {
        let holders = &mut self.holders[slot as usize];
        *holders -= 1;
        let unheld = *holders == 0;
        if unheld {
            self.order.remove(slot);
        }
        unheld
    }
}

impl<A: StateValue> Table for SliceTable<A> {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn schema(&self) -> String {
        format!("slice{} {}", key_text(self.shared.key.as_deref()), schema_of::<A>())
    }

    fn rewrite(&self, stored: &Schema, value: &[u8]) -> Result<Vec<u8>> {
        rewrite::<A>(stored, 0, value)
    }

    fn open(&mut self, context: &TableContext, restored: bool) -> Result<()> {
        check_codec::<A>().map_err(|e| e.at(format!("operator {}, table {}", context.operator, self.shared.name)))?;
        self.shared.place = Some(Place::new(context, &self.shared.name));
        match (restored, context.store.is_resident()) {
            (false, _) => Ok(()),
            (true, true) => self.load_all(),
            (true, false) => self.find_slices(),
        }
    }

    fn freeze(&mut self, _epoch: Epoch) {
        self.visitors.clear();
        if !self.drained_all {
            // The epoch before was given up: what it still had to write stays in front of this one's.
            let mut backlog = std::mem::take(&mut self.backlog);
            self.write_pending(&mut backlog);
            self.backlog = backlog;
        }
        self.shared.generation += 1;
        std::mem::swap(&mut self.dropped, &mut self.frozen_dropped);
        (self.drained_to, self.drained_all) = (None, false);
    }

    fn drain(&mut self, out: &mut WriteBatch, entries: usize) -> Result<bool> {
        out.append(std::mem::take(&mut self.backlog));
        self.write_pending(out);
        let mut written = 0;
        while !self.drained_all && written < entries {
            written += self.drain_slice(out, entries - written);
        }
        Ok(self.drained_all)
    }

    fn drained(&mut self, _epoch: Epoch) {}

    fn keys(&self) -> usize {
        self.shared.index.len()
    }

    fn bytes(&self) -> usize {
        let pages = self.spare.len() + self.slices.values().map(|slice| slice.used_pages).sum::<usize>();
        let cells: usize = self.slices.values().map(|slice| slice.cells).sum();
        pages * PAGE * size_of::<Cell<A>>() + cells * self.shared.heap.mean() + self.shared.index.bytes()
    }

    fn evict(&mut self, target: usize) -> Result<()> {
        self.leave(target)
    }
}
