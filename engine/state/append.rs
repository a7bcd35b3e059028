//! Rows by key in arrival order: the sides of joins.
//!
//! Rows go into chunks as they come and never change; a chain through the chunks links the rows of a key. They leave by
//! time: a chunk whose rows are all over gives its memory back. Lives in memory whole; a restore loads it all.
//!
//! Invariant: a position names a row for good; positions below `drained_to` are in the store (or on their way there), those
//! below `frozen_to` belong to the frozen epoch. A row older than the floor is never seen again.

use super::keyspace::{Mark, Place, damaged, push_key, split_time, state_key, time_bytes};
use super::{KeyIndex, Table, TableContext, WriteBatch};
use crate::error::Result;
use crate::record::{Epoch, KeyGroup, Keys};
use crate::time::EventTime;
use std::collections::VecDeque;
use twox_hash::XxHash3_64;

/// Rows per chunk.
const CHUNK: usize = if cfg!(test) { 4 } else { 1024 };

/// End of a chain.
const NONE: u64 = u64::MAX;

struct Chunk {
    slots: Vec<u32>,
    /// Position of the key's next row.
    next: Vec<u64>,
    /// Name in the store: grows with arrival, also across restores.
    ids: Vec<u64>,
    times: Vec<i64>,
    ends: Vec<u32>,
    data: Vec<u8>,
    max_time: i64,
    /// Only the chain is left.
    spent: bool,
}

impl Chunk {
    fn new() -> Self {
        let (slots, next, ids) = (Vec::with_capacity(CHUNK), Vec::with_capacity(CHUNK), Vec::with_capacity(CHUNK));
        Chunk { slots, next, ids, times: Vec::new(), ends: Vec::new(), data: Vec::new(), max_time: i64::MIN, spent: false }
    }

    fn row(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] as usize };
        &self.data[start..self.ends[at] as usize]
    }
}

/// The rows of one key.
#[derive(Clone, Copy)]
struct Chain {
    head: u64,
    tail: u64,
    /// In chunks that are not spent.
    rows: u32,
}

impl Chain {
    const EMPTY: Chain = Chain { head: NONE, tail: NONE, rows: 0 };
}

/// See the module's header. Rows are bytes; whoever appends them encodes them.
///
/// Slots are valid until the next `resolve` or `drop_before`.
pub struct AppendTable {
    name: String,
    row_schema: String,
    place: Option<Place>,
    index: KeyIndex,
    chains: Vec<Chain>,
    fresh: Vec<u32>,
    chunks: VecDeque<Chunk>,
    /// Position of the first row of the first chunk.
    base: u64,
    end: u64,
    next_id: u64,
    drained_to: u64,
    frozen_to: u64,
    floor: Mark,
    /// Deletes of this epoch and of the frozen one.
    deletes: WriteBatch,
    frozen_deletes: WriteBatch,
    copied: WriteBatch,
    /// Left over from an epoch that was never drained.
    backlog: WriteBatch,
    bytes: usize,
}

impl AppendTable {
    /// A table of that name, unique within its operator, of rows whose encoding `row_schema` describes.
    pub fn new(name: &str, row_schema: &str) -> Self {
        AppendTable {
            name: name.to_string(),
            row_schema: row_schema.to_string(),
            place: None,
            index: KeyIndex::new(),
            chains: Vec::new(),
            fresh: Vec::new(),
            chunks: VecDeque::new(),
            base: 0,
            end: 0,
            next_id: 0,
            drained_to: 0,
            frozen_to: 0,
            floor: Mark::new(name),
            deletes: WriteBatch::default(),
            frozen_deletes: WriteBatch::default(),
            copied: WriteBatch::default(),
            backlog: WriteBatch::default(),
            bytes: 0,
        }
    }

    /// Gives every key of a batch a slot, in row order, replacing the content of `slots`.
    pub fn resolve(&mut self, keys: &Keys, slots: &mut Vec<u32>) {
        for slot in std::mem::take(&mut self.fresh) {
            if self.index.is_live(slot) && self.chains[slot as usize].rows == 0 {
                self.index.release(slot);
            }
        }
        self.index.resolve(keys, slots, &mut self.fresh);
        self.chains.resize(self.index.slots(), Chain::EMPTY);
    }

    /// Adds a row behind the others of its key. One older than the floor is not kept.
    pub fn append(&mut self, slot: u32, time: EventTime, row: &[u8]) {
        if time.0 >= self.floor.get() {
            let id = self.next_id;
            self.push(slot, time.0, row, id);
        }
    }

    /// The rows of a key in arrival order.
    pub fn rows(&self, slot: u32) -> impl Iterator<Item = (EventTime, &[u8])> + '_ {
        let chain = self.chains[slot as usize];
        let mut next = if chain.rows == 0 { NONE } else { chain.head };
        std::iter::from_fn(move || {
            while next != NONE {
                let (chunk, at) = self.locate(next);
                next = chunk.next[at];
                if !chunk.spent && chunk.times[at] >= self.floor.get() {
                    return Some((EventTime(chunk.times[at]), chunk.row(at)));
                }
            }
            None
        })
    }

    /// Rows with a time before `floor` are over.
    pub fn drop_before(&mut self, floor: EventTime) {
        if floor.0 <= self.floor.get() {
            return;
        }
        self.floor.raise(floor.0);
        for nth in 0..self.chunks.len() {
            let chunk = &self.chunks[nth];
            if !chunk.spent && chunk.slots.len() == CHUNK && chunk.max_time < floor.0 {
                self.spend(nth);
            }
        }
        while self.chunks.front().is_some_and(|chunk| chunk.spent) {
            let Some(chunk) = self.chunks.pop_front() else { break };
            for (at, (&slot, &next)) in chunk.slots.iter().zip(&chunk.next).enumerate() {
                let head = &mut self.chains[slot as usize].head;
                if *head == self.base + at as u64 {
                    *head = next;
                }
            }
            self.base += CHUNK as u64;
        }
    }

    /// The key index: bytes, hash and group of a slot.
    pub fn index(&self) -> &KeyIndex {
        &self.index
    }

    fn place(&self) -> &Place {
        self.place.as_ref().unwrap_or_else(|| unreachable!("table {} is used before it was opened", self.name))
    }

    fn locate(&self, position: u64) -> (&Chunk, usize) {
        let offset = (position - self.base) as usize;
        (&self.chunks[offset / CHUNK], offset % CHUNK)
    }

    fn push(&mut self, slot: u32, time: i64, row: &[u8], id: u64) {
        let (position, chain) = (self.end, &mut self.chains[slot as usize]);
        if chain.rows == 0 {
            chain.head = position;
        } else {
            let offset = (chain.tail - self.base) as usize;
            self.chunks[offset / CHUNK].next[offset % CHUNK] = position;
        }
        (chain.tail, chain.rows) = (position, chain.rows + 1);
        if (position - self.base) as usize / CHUNK == self.chunks.len() {
            self.chunks.push_back(Chunk::new());
            self.bytes += CHUNK * (4 + 8 + 8);
        }
        if let Some(chunk) = self.chunks.back_mut() {
            chunk.slots.push(slot);
            chunk.next.push(NONE);
            chunk.ids.push(id);
            chunk.times.push(time);
            chunk.data.extend_from_slice(row);
            assert!(chunk.data.len() <= u32::MAX as usize, "the rows of one chunk exceed 4 GiB");
            chunk.ends.push(chunk.data.len() as u32);
            chunk.max_time = chunk.max_time.max(time);
        }
        self.bytes += row.len() + 12;
        self.next_id = self.next_id.max(id + 1);
        self.end += 1;
    }

    /// Gives up the rows of a chunk: into the frozen epoch what it still lacks, out of the store what it has.
    fn spend(&mut self, nth: usize) {
        let first = self.base + (nth * CHUNK) as u64;
        for at in 0..CHUNK {
            let position = first + at as u64;
            if position < self.frozen_to {
                if position >= self.drained_to {
                    let mut copied = std::mem::take(&mut self.copied);
                    self.encode(nth, at, &mut copied);
                    self.copied = copied;
                }
                let (place, chunk) = (self.place(), &self.chunks[nth]);
                let group = self.index.group(chunk.slots[at], place.max_parallelism);
                let key = state_key(group, place.table, &chunk.ids[at].to_be_bytes());
                self.deletes.delete(key);
            }
        }
        let chunk = &mut self.chunks[nth];
        self.bytes -= chunk.data.len() + 12 * CHUNK;
        chunk.spent = true;
        (chunk.data, chunk.ends, chunk.times, chunk.ids) = Default::default();
        for slot in &chunk.slots {
            let chain = &mut self.chains[*slot as usize];
            chain.rows -= 1;
            if chain.rows == 0 {
                *chain = Chain::EMPTY;
                self.index.release(*slot);
            }
        }
    }

    /// id -> time | length of the key | key | row.
    fn encode(&self, nth: usize, at: usize, out: &mut WriteBatch) {
        let (place, chunk, mut scratch) = (self.place(), &self.chunks[nth], [0; 8]);
        let key = self.index.key_bytes(chunk.slots[at], &mut scratch);
        let group = self.index.group(chunk.slots[at], place.max_parallelism);
        out.put_with(
            |out| push_key(out, group, place.table, &chunk.ids[at].to_be_bytes()),
            |out| {
                out.extend_from_slice(&time_bytes(chunk.times[at]));
                out.extend_from_slice(&(key.len() as u32).to_be_bytes());
                out.extend_from_slice(key);
                out.extend_from_slice(chunk.row(at));
            },
        );
    }

    fn write_pending(&mut self, out: &mut WriteBatch) {
        out.append(std::mem::take(&mut self.frozen_deletes));
        out.append(std::mem::take(&mut self.copied));
    }

    fn load(&mut self, place: &Place) -> Result<()> {
        self.floor.restore(place)?;
        let mut rows: Vec<(u64, KeyGroup, Vec<u8>)> = Vec::new();
        place.scan(|group, id, value| {
            let id = id.try_into().map_err(|_| damaged("the id of a row has another length"))?;
            rows.push((u64::from_be_bytes(id), group, value.to_vec()));
            Ok(())
        })?;
        // Old tasks counted each for itself; rows of one key come from one of them.
        rows.sort_unstable();
        for (id, group, value) in rows {
            let (time, rest) = split_time(&value)?;
            let (len, rest) = rest.split_first_chunk::<4>().ok_or_else(|| damaged("a row is cut short"))?;
            let (key, row) = rest.split_at_checked(u32::from_be_bytes(*len) as usize).ok_or_else(|| damaged("a row's key is cut short"))?;
            if time < self.floor.get() {
                self.deletes.delete(state_key(group, place.table, &id.to_be_bytes()));
                continue;
            }
            let slot = self.index.resolve_one(key, XxHash3_64::oneshot(key), &mut self.fresh);
            self.chains.resize(self.index.slots(), Chain::EMPTY);
            self.push(slot, time, row, id);
        }
        (self.drained_to, self.frozen_to) = (self.end, self.end);
        Ok(())
    }
}

impl Table for AppendTable {
    fn name(&self) -> &str {
        &self.name
    }

    fn schema(&self) -> String {
        format!("append {}", self.row_schema)
    }

    fn open(&mut self, context: &TableContext, restored: bool) -> Result<()> {
        let place = Place::new(context, &self.name);
        self.place = Some(place.clone());
        if restored {
            self.load(&place).map_err(|e| e.at(place.label.clone()))?;
        }
        Ok(())
    }

    fn freeze(&mut self, _epoch: Epoch) {
        let mut backlog = std::mem::take(&mut self.backlog);
        // Holds something only if the epoch before was given up; it stays in front of this one.
        self.write_pending(&mut backlog);
        self.backlog = backlog;
        std::mem::swap(&mut self.deletes, &mut self.frozen_deletes);
        self.frozen_to = self.end;
        self.floor.freeze();
    }

    fn drain(&mut self, out: &mut WriteBatch, entries: usize) -> bool {
        out.append(std::mem::take(&mut self.backlog));
        self.write_pending(out);
        if let Some(place) = &self.place {
            self.floor.drain(place, out);
        }
        self.drained_to = self.drained_to.max(self.base);
        let mut written = 0;
        while self.drained_to < self.frozen_to && written < entries {
            let offset = (self.drained_to - self.base) as usize;
            if !self.chunks[offset / CHUNK].spent {
                self.encode(offset / CHUNK, offset % CHUNK, out);
                written += 1;
            }
            self.drained_to += 1;
        }
        self.drained_to >= self.frozen_to
    }

    fn drained(&mut self, _epoch: Epoch) {}

    fn bytes(&self) -> usize {
        self.bytes + self.index.bytes() + self.chains.len() * size_of::<Chain>()
    }

    fn stays_in_memory(&self) -> bool {
        true
    }

    fn evict(&mut self, _target: usize) -> Result<()> {
        Ok(())
    }
}
