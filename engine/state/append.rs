//! Rows by time and by key: rows that wait for the watermark, and the sides of joins.
//!
//! A row comes in once and never changes. First it **waits**: by time, in the order of arrival. [`AppendTable::take_due`]
//! takes the earliest rows out, by (time, key bytes, side, arrival); whoever takes them says of each whether it is
//! [kept](AppendTable::keep) for later rows of its key to find, or [released](AppendTable::release). Kept rows of a side and
//! key form a chain in the order in which they were kept, so in order of time; they are the first to be over, and leave from
//! the front ([`AppendTable::take_over`]).
//!
//! What is known of a row lives in memory; its bytes do as long as there is room, else they are in scratch files ([`Chunks`]) and
//! are read when they are asked for. A restore loads all that is known, and leaves most of the bytes on disk. A row is written to the store once, if it lives across a barrier; rows that
//! are over go by range. A row's mark (one byte, "has found a partner") may change and is then written again.
//!
//! Invariant: a key has a slot exactly as long as it has a row (or since the last `resolve`). Rows below a side's floor are
//! gone, and none comes below it: so puts and range deletes of one drain never touch the same row.
//!
//! [`Chunks`]: super::chunks::Chunks

use super::arena::{RowArena, Span};
use super::chunks::Scratch;
use super::keyspace::{Place, damaged, split_time, state_key, time_bytes};
use super::value::key_text;
use super::{KeyIndex, Table, TableContext, WriteBatch};
use crate::env::{Bug, planted};
use crate::error::Result;
use crate::record::{Epoch, Keys};
use crate::time::EventTime;
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use twox_hash::XxHash3_64;

/// Names a row as long as it is in the table.
pub type RowId = u32;

/// Which of several inputs a row came from, from 0.
pub type Side = usize;

/// Bytes of rows that a restore leaves in memory, and a quarter more while it loads.
const LOADED: usize = if cfg!(test) { 256 } else { 64 << 20 };

/// End of a chain.
const NONE: RowId = RowId::MAX;

struct Row {
    time: i64,
    /// Arrival; part of its name in the store, and grows across restores.
    sequence: u64,
    span: Span,
    slot: u32,
    /// The key's next kept row of that side.
    next: RowId,
    /// Generation of the last change not yet drained; 0 = clean, or gone.
    stamp: u32,
    side: u8,
    mark: u8,
}

/// First and last kept row of a key.
#[derive(Clone, Copy)]
struct Chain {
    head: RowId,
    tail: RowId,
}

impl Chain {
    const EMPTY: Chain = Chain { head: NONE, tail: NONE };
}

/// What belongs to one side.
struct SideState {
    /// In order of time.
    kept: VecDeque<RowId>,
    /// By slot.
    chains: Vec<Chain>,
    /// Rows before this are gone: now, at the last freeze.
    floor: i64,
    frozen_floor: i64,
    /// No row that the store may hold is before this; MAX = it holds none.
    stored_from: i64,
}

/// A row that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// The slot of its key.
    pub slot: u32,
    /// The row.
    pub row: RowId,
}

/// See the module's header. Rows are bytes; whoever appends them encodes them.
///
/// Slots are valid until the next `resolve`, or until the last row of the key is released.
pub struct AppendTable {
    name: String,
    key: Option<String>,
    row_schema: String,
    place: Option<Place>,
    index: KeyIndex,
    /// By slot: rows of the key.
    holders: Vec<u32>,
    fresh: Vec<u32>,
    rows: Vec<Row>,
    free: Vec<RowId>,
    arena: RowArena,
    scratch: Option<Scratch>,
    waiting: BTreeMap<i64, Vec<Waiting>>,
    /// Emptied lists, to be used again.
    spare: Vec<Vec<Waiting>>,
    sides: Vec<SideState>,
    next_sequence: u64,
    generation: u32,
    changed: Vec<RowId>,
    frozen: Vec<RowId>,
    copied: WriteBatch,
}

impl AppendTable {
    /// A table of that name, unique within its operator, of rows of `sides` kinds whose encodings `row_schema` describes.
    pub fn new(name: &str, sides: usize, row_schema: &str) -> Self {
        let side =
            || SideState { kept: VecDeque::new(), chains: Vec::new(), floor: i64::MIN, frozen_floor: i64::MIN, stored_from: i64::MAX };
        AppendTable {
            name: name.to_string(),
            key: None,
            row_schema: row_schema.to_string(),
            place: None,
            index: KeyIndex::new(),
            holders: Vec::new(),
            fresh: Vec::new(),
            rows: Vec::new(),
            free: Vec::new(),
            arena: RowArena::default(),
            scratch: None,
            waiting: BTreeMap::new(),
            spare: Vec::new(),
            sides: (0..sides).map(|_| side()).collect(),
            next_sequence: 0,
            generation: 1,
            changed: Vec::new(),
            frozen: Vec::new(),
            copied: WriteBatch::default(),
        }
    }

    /// Notes the kind of its keys ([`Key::kind`](crate::record::Key::kind)), as [`PointTable::with_key`](super::PointTable::with_key).
    #[must_use]
    pub fn with_key(mut self, kind: Option<String>) -> Self {
        self.key = kind;
        self
    }

    /// Gives every key of a batch a slot, in row order, replacing the content of `slots`.
    pub fn resolve(&mut self, keys: &Keys, slots: &mut Vec<u32>) {
        for slot in std::mem::take(&mut self.fresh) {
            if self.index.is_live(slot) && self.holders[slot as usize] == 0 {
                self.index.release(slot);
            }
        }
        self.index.resolve(keys, slots, &mut self.fresh);
        self.grow();
    }

    fn grow(&mut self) {
        let slots = self.index.slots();
        self.holders.resize(slots, 0);
        self.sides.iter_mut().for_each(|side| side.chains.resize(slots, Chain::EMPTY));
    }

    /// Adds a row, which waits. One before its side's floor would never be seen: it is the caller's to refuse late rows, and
    /// such a row is not added.
    pub fn append(&mut self, side: Side, slot: u32, time: EventTime, row: &[u8]) {
        self.append_marked(side, slot, time, row, 0);
    }

    /// As [`append`](Self::append), with a mark.
    pub fn append_marked(&mut self, side: Side, slot: u32, time: EventTime, row: &[u8], mark: u8) {
        if time.0 >= self.sides[side].floor {
            let sequence = self.next_sequence;
            self.insert(side, slot, time.0, sequence, mark, row);
        }
    }

    fn insert(&mut self, side: Side, slot: u32, time: i64, sequence: u64, mark: u8, bytes: &[u8]) {
        let id = self.place_row(side, slot, time, sequence, mark, bytes);
        self.note_changed(id);
        self.wait(id);
    }

    /// Gives a row its id and its place.
    fn place_row(&mut self, side: Side, slot: u32, time: i64, sequence: u64, mark: u8, bytes: &[u8]) -> RowId {
        let id = self.free.pop().unwrap_or(self.rows.len() as RowId);
        assert!(id < NONE, "a table of rows is full: 2^32 - 1 rows");
        let span = self.arena.push(id, bytes);
        let row = Row { time, sequence, span, slot, next: NONE, stamp: self.generation, side: side as u8, mark };
        match self.rows.get_mut(id as usize) {
            Some(old) => *old = row,
            None => self.rows.push(row),
        }
        self.next_sequence = self.next_sequence.max(sequence + 1);
        self.holders[slot as usize] += 1;
        id
    }

    /// A row waits, behind others of its time.
    fn wait(&mut self, id: RowId) {
        let Row { time, slot, .. } = self.rows[id as usize];
        let spare = &mut self.spare;
        self.waiting.entry(time).or_insert_with(|| spare.pop().unwrap_or_default()).push(Waiting { slot, row: id });
    }

    /// The earliest time of a row that waits.
    pub fn next_time(&self) -> Option<EventTime> {
        self.waiting.first_key_value().map(|(time, _)| EventTime(*time))
    }

    /// Takes out the waiting rows of the earliest time, if that is at or before `until`, by (key bytes, side, arrival),
    /// replacing the content of `due`. Each is to be kept or released.
    pub fn take_due(&mut self, until: EventTime, due: &mut Vec<Waiting>) -> Option<EventTime> {
        due.clear();
        let first = self.waiting.first_entry()?;
        if *first.key() > until.0 {
            return None;
        }
        let (time, mut rows) = first.remove_entry();
        std::mem::swap(due, &mut rows);
        if rows.capacity() > 0 && self.spare.len() < 64 {
            self.spare.push(rows);
        }
        self.sort(due);
        Some(EventTime(time))
    }

    /// Rows of one time that were taken out go on waiting, behind others of that time.
    pub fn wait_again(&mut self, time: EventTime, rows: &[Waiting]) {
        self.waiting.entry(time.0).or_default().extend_from_slice(rows);
    }

    /// Waiting rows from `first` to `last`, both inside, by (key bytes, side, time, arrival), replacing the content of `rows`.
    /// They go on waiting.
    pub fn waiting_within(&self, first: EventTime, last: EventTime, rows: &mut Vec<Waiting>) {
        rows.clear();
        self.waiting.range(first.0..=last.0).for_each(|(_, list)| rows.extend_from_slice(list));
        self.sort(rows);
    }

    /// The earliest time of a waiting row at or after `from`.
    pub fn next_time_from(&self, from: EventTime) -> Option<EventTime> {
        self.waiting.range(from.0..).next().map(|(time, _)| EventTime(*time))
    }

    /// By (key bytes, side), else as they are.
    fn sort(&self, rows: &mut [Waiting]) {
        if rows.len() > 1 {
            let side = |w: &Waiting| self.rows[w.row as usize].side;
            rows.sort_by(|a, b| {
                let keys = if a.slot == b.slot { std::cmp::Ordering::Equal } else { self.index.compare(a.slot, b.slot) };
                keys.then_with(|| side(a).cmp(&side(b)))
            });
        }
    }

    /// Puts a row that was taken out behind the others of its key and side. Rows of a key are kept in order of time; those of keys
    /// that are behind the others after a restore may come later than later ones of other keys.
    pub fn keep(&mut self, id: RowId) {
        let (slot, side, time) = {
            let row = &self.rows[id as usize];
            (row.slot, usize::from(row.side), row.time)
        };
        let state = &mut self.sides[side];
        if state.kept.back().is_none_or(|&last| self.rows[last as usize].time <= time) {
            state.kept.push_back(id);
        } else {
            let at = state.kept.partition_point(|&other| self.rows[other as usize].time <= time);
            state.kept.insert(at, id);
        }
        let chain = &mut state.chains[slot as usize];
        match chain.tail {
            NONE => chain.head = id,
            tail => self.rows[tail as usize].next = id,
        }
        chain.tail = id;
    }

    /// Keeps waiting rows up to `until` without anybody looking: those that have had their turn, as `had_turn` says of slot and
    /// time. After a restore.
    pub fn keep_until(&mut self, until: EventTime, had_turn: impl Fn(&KeyIndex, u32, EventTime) -> bool) {
        let (mut due, mut waiting) = (Vec::new(), Vec::new());
        while let Some(time) = self.take_due(until, &mut due) {
            for w in &due {
                match had_turn(&self.index, w.slot, time) {
                    true => self.keep(w.row),
                    false => waiting.push((time, *w)),
                }
            }
        }
        waiting.into_iter().for_each(|(time, w)| self.wait_again(time, &[w]));
    }

    /// The first kept row of a key and side, the oldest.
    #[inline]
    pub fn first(&self, side: Side, slot: u32) -> Option<RowId> {
        Some(self.sides[side].chains[slot as usize].head).filter(|&id| id != NONE)
    }

    /// The kept row behind this one, of the same key and side.
    #[inline]
    pub fn after(&self, id: RowId) -> Option<RowId> {
        Some(self.rows[id as usize].next).filter(|&id| id != NONE)
    }

    /// A row's time.
    #[inline]
    pub fn time(&self, id: RowId) -> EventTime {
        EventTime(self.rows[id as usize].time)
    }

    /// The slot of a row's key.
    #[inline]
    pub fn slot(&self, id: RowId) -> u32 {
        self.rows[id as usize].slot
    }

    /// A row's side.
    #[inline]
    pub fn side(&self, id: RowId) -> Side {
        usize::from(self.rows[id as usize].side)
    }

    /// A row's bytes.
    ///
    /// # Errors
    /// Of the disk.
    #[inline]
    pub fn bytes_of(&self, id: RowId) -> Result<Cow<'_, [u8]>> {
        self.arena.get(self.rows[id as usize].span)
    }

    /// A row's mark; 0 at first.
    #[inline]
    pub fn mark(&self, id: RowId) -> u8 {
        self.rows[id as usize].mark
    }

    /// Sets a row's mark.
    ///
    /// # Errors
    /// Of the disk.
    pub fn set_mark(&mut self, id: RowId, mark: u8) -> Result<()> {
        let stamp = self.rows[id as usize].stamp;
        if self.rows[id as usize].mark == mark {
            return Ok(());
        }
        if stamp != self.generation && !planted(Bug::ForgetPartners) {
            self.copy_frozen(id)?;
            self.rows[id as usize].stamp = self.generation;
            self.note_changed(id);
        }
        self.rows[id as usize].mark = mark;
        Ok(())
    }

    /// The earliest time of a kept row of a side.
    #[inline]
    pub fn first_kept(&self, side: Side) -> Option<EventTime> {
        self.sides[side].kept.front().map(|&id| self.time(id))
    }

    /// Takes the earliest kept row of a side out of its chain, if its time is at or before `until`; it is to be released.
    #[inline]
    pub fn take_over(&mut self, side: Side, until: EventTime) -> Option<RowId> {
        let state = &mut self.sides[side];
        let &id = state.kept.front()?;
        let row = &self.rows[id as usize];
        if row.time > until.0 {
            return None;
        }
        state.kept.pop_front();
        let chain = &mut state.chains[row.slot as usize];
        chain.head = row.next;
        if chain.head == NONE {
            chain.tail = NONE;
        }
        Some(id)
    }

    /// Gives up a row that was taken out. Before the next freeze its side's [floor](Self::set_floor) must be above it: that is what
    /// takes it out of the store.
    ///
    /// # Errors
    /// Of the disk.
    pub fn release(&mut self, id: RowId) -> Result<()> {
        self.copy_frozen(id)?;
        let row = &mut self.rows[id as usize];
        (row.stamp, row.next) = (0, NONE);
        let (slot, span) = (row.slot, row.span);
        self.free.push(id);
        if let Some(thin) = self.arena.free(span) {
            for &other in &thin.rows {
                let row = &self.rows[other as usize];
                if self.holds(other, id) && RowArena::is_in(row.span, &thin) {
                    self.rows[other as usize].span = self.arena.move_row(other, row.span);
                }
            }
            self.arena.thinned(&thin);
        }
        self.rows[id as usize].span = Span::default();
        self.rows[id as usize].slot = NONE;
        let holders = &mut self.holders[slot as usize];
        *holders -= 1;
        if *holders == 0 {
            self.index.release(slot);
        }
        Ok(())
    }

    /// Whether an id that was in use once names a row now; `gone` is being released.
    fn holds(&self, id: RowId, gone: RowId) -> bool {
        id != gone && self.rows[id as usize].slot != NONE
    }

    /// Rows of a side before `floor` have all been released, and none of them will come any more.
    pub fn set_floor(&mut self, side: Side, floor: EventTime) {
        let state = &mut self.sides[side];
        state.floor = state.floor.max(floor.0);
    }

    /// Releases all waiting rows up to `until`; none of them will come any more.
    ///
    /// # Errors
    /// Of the disk.
    pub fn release_waiting(&mut self, until: EventTime) -> Result<()> {
        let mut due = Vec::new();
        while self.take_due(until, &mut due).is_some() {
            due.iter().try_for_each(|w| self.release(w.row))?;
        }
        (0..self.sides.len()).for_each(|side| self.set_floor(side, until.plus_ms(1)));
        Ok(())
    }

    /// The key index: bytes, hash and group of a slot.
    pub fn index(&self) -> &KeyIndex {
        &self.index
    }

    /// Rows in the table.
    pub fn len(&self) -> usize {
        self.rows.len() - self.free.len()
    }

    /// No row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn note_changed(&mut self, id: RowId) {
        // Rows that come and go within an epoch would otherwise be listed again and again.
        if self.changed.len() > 2 * self.len() + 1024 {
            let (rows, generation) = (&self.rows, self.generation);
            self.changed.sort_unstable();
            self.changed.dedup();
            self.changed.retain(|&id| rows[id as usize].stamp == generation);
        }
        self.changed.push(id);
    }

    /// A frozen row that is about to change or to go is encoded first.
    fn copy_frozen(&mut self, id: RowId) -> Result<()> {
        let row = &self.rows[id as usize];
        if row.stamp != 0 && row.stamp != self.generation {
            let (key, value) = self.encode(id)?;
            let state = &mut self.sides[usize::from(self.rows[id as usize].side)];
            state.stored_from = state.stored_from.min(self.rows[id as usize].time);
            self.copied.put(key, value);
        }
        Ok(())
    }

    fn place(&self) -> &Place {
        self.place.as_ref().unwrap_or_else(|| unreachable!("table {} is used before it was opened", self.name))
    }

    /// side | time | arrival -> mark | length of the key | key | row.
    fn encode(&self, id: RowId) -> Result<(Vec<u8>, Vec<u8>)> {
        let (place, row, mut scratch) = (self.place(), &self.rows[id as usize], [0; 8]);
        let key = self.index.key_bytes(row.slot, &mut scratch);
        let bytes = self.arena.get(row.span)?;
        let mut value = Vec::with_capacity(5 + key.len() + bytes.len());
        value.push(row.mark);
        value.extend_from_slice(&(key.len() as u32).to_be_bytes());
        value.extend_from_slice(key);
        value.extend_from_slice(&bytes);
        let mut name = [0; 17];
        name[0] = row.side;
        name[1..9].copy_from_slice(&time_bytes(row.time));
        name[9..].copy_from_slice(&row.sequence.to_be_bytes());
        Ok((state_key(self.index.group(row.slot, place.max_parallelism), place.table, &name), value))
    }

    /// Rows in the order of the store: group, side, time, arrival.
    fn load(&mut self, place: &Place) -> Result<()> {
        let mut arrived = Vec::new();
        place.scan(|_, name, value| {
            let (side, rest) = name.split_first().ok_or_else(|| damaged("the name of a row is cut short"))?;
            let (time, sequence) = split_time(rest)?;
            let sequence = sequence.try_into().map_err(|_| damaged("the name of a row has another length"))?;
            let id = self.load_row(*side, time, u64::from_be_bytes(sequence), value)?;
            arrived.push(id);
            match &self.scratch {
                Some(scratch) if self.arena.bytes() > LOADED + LOADED / 4 => self.arena.evict(self.arena.bytes() - LOADED, scratch),
                _ => Ok(()),
            }
        })?;
        // By arrival. Old tasks counted each for itself; rows of one key come from one of them.
        arrived.sort_by_key(|&id| self.rows[id as usize].sequence);
        arrived.into_iter().for_each(|id| self.wait(id));
        self.fresh.clear();
        Ok(())
    }

    fn load_row(&mut self, side: u8, time: i64, sequence: u64, value: &[u8]) -> Result<RowId> {
        let cut = || damaged("a row is cut short");
        let (mark, rest) = value.split_first().ok_or_else(cut)?;
        let (len, rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let (key, row) = rest.split_at_checked(u32::from_be_bytes(*len) as usize).ok_or_else(cut)?;
        let slot = self.index.resolve_one(key, XxHash3_64::oneshot(key), &mut self.fresh);
        self.grow();
        let state = self.sides.get_mut(usize::from(side)).ok_or_else(|| damaged("a row is of a side that there is not"))?;
        state.stored_from = state.stored_from.min(time);
        let id = self.place_row(usize::from(side), slot, time, sequence, *mark, row);
        self.rows[id as usize].stamp = 0;
        Ok(id)
    }
}

impl Table for AppendTable {
    fn name(&self) -> &str {
        &self.name
    }

    fn schema(&self) -> String {
        format!("append{} {}", key_text(self.key.as_deref()), self.row_schema)
    }

    fn open(&mut self, context: &TableContext, restored: bool) -> Result<()> {
        let place = Place::new(context, &self.name);
        self.place = Some(place.clone());
        self.scratch = place.store.scratch();
        if restored {
            self.load(&place).map_err(|e| e.at(place.label.clone()))?;
        }
        Ok(())
    }

    fn freeze(&mut self, _epoch: Epoch) {
        self.generation += 1;
        if self.frozen.is_empty() {
            std::mem::swap(&mut self.frozen, &mut self.changed);
        } else {
            self.frozen.append(&mut self.changed);
        }
        self.sides.iter_mut().for_each(|side| side.frozen_floor = side.floor);
    }

    fn drain(&mut self, out: &mut WriteBatch, entries: usize) -> Result<bool> {
        // First, because an epoch that was given up may have left rows here that are over by now.
        out.append(std::mem::take(&mut self.copied));
        if let Some(place) = &self.place {
            for (side, state) in self.sides.iter_mut().enumerate().filter(|(_, state)| state.stored_from < state.frozen_floor) {
                for group in place.groups.clone() {
                    let bound = |time| state_key(group, place.table, &[&[side as u8][..], &time_bytes(time)].concat());
                    out.delete_range(bound(state.stored_from), bound(state.frozen_floor));
                }
                state.stored_from = state.frozen_floor;
            }
        }
        let mut written = 0;
        while written < entries {
            let Some(id) = self.frozen.pop() else { return Ok(true) };
            let stamp = self.rows[id as usize].stamp;
            if stamp == 0 || stamp >= self.generation {
                continue; // copied when it changed, or gone
            }
            let encoded = self.encode(id);
            if encoded.is_err() {
                self.frozen.push(id);
            }
            let (key, value) = encoded?;
            out.put(key, value);
            let row = &mut self.rows[id as usize];
            row.stamp = 0;
            let state = &mut self.sides[usize::from(row.side)];
            state.stored_from = state.stored_from.min(row.time);
            written += 1;
        }
        Ok(self.frozen.is_empty())
    }

    fn drained(&mut self, _epoch: Epoch) {}

    fn keys(&self) -> usize {
        self.index.len()
    }

    fn bytes(&self) -> usize {
        let per_row = size_of::<Row>() + size_of::<Waiting>() + 2 * size_of::<RowId>();
        let per_key = size_of::<u32>() + self.sides.len() * size_of::<Chain>();
        self.len() * per_row + self.arena.bytes() + self.index.bytes() + self.index.len() * per_key
    }

    fn pinned_bytes(&self) -> usize {
        let moving = if self.scratch.is_some() { self.arena.bytes() } else { 0 };
        self.bytes() - moving
    }

    fn evicts_apart(&self) -> bool {
        true
    }

    fn evict(&mut self, target: usize) -> Result<()> {
        self.scratch.as_ref().map_or(Ok(()), |scratch| self.arena.evict(target, scratch))
    }
}
