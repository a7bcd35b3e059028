//! Rows by key that only ever come: what a join keeps whose inputs take nothing back.
//!
//! A row is copied into a chunk behind the row before it and points to the newest row that its key and side had, so a row
//! costs its bytes and 12 more, no allocation, and no look at older rows. Nothing changes and nothing goes: what an epoch has
//! to store is what was added since the last one. It is stored in blocks of many rows, a key group's rows together, so that
//! runs and merges deal with few entries.
//!
//! Lives in memory whole; a restore loads it all.
//!
//! Invariant: the rows of a key and side come newest first, after a restore as well: blocks of a key group are numbered in
//! the order in which their rows came, and no number is used twice.

use super::index::touch;
use super::keyspace::{Place, damaged, state_key};
use super::value::key_text;
use super::{KeyIndex, Side, Table, TableContext, WriteBatch};
use crate::error::Result;
use crate::record::{Epoch, Keys};
use twox_hash::XxHash3_64;

/// Bytes of a chunk; a longer row has one of its own.
const CHUNK: usize = if cfg!(test) { 128 } else { 64 << 10 };
/// Rows begin at multiples of this.
const UNIT: usize = 8;
/// Units of a chunk.
const UNITS: usize = CHUNK / UNIT;
/// In front of a row: the row before, the slot of its key, its length.
const HEADER: usize = 12;
/// Bytes of a stored block, more or less.
const BLOCK: usize = if cfg!(test) { 64 } else { 32 << 10 };
/// Sides of a table.
const SIDES: usize = 2;

/// Where a row is, in units from the beginning of the first chunk.
type At = u32;

/// No row.
const NONE: At = At::MAX;

/// How far something has come through the chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Cursor {
    chunk: usize,
    at: usize,
}

/// See the module's header. Rows are bytes; whoever adds them encodes them.
///
/// ```
/// use waterwheel_engine::{record::Keys, state::PileTable};
/// let (mut table, mut slots) = (PileTable::new("rows", "bytes"), Vec::new());
/// table.resolve(&Keys::encode([7u64, 9].into_iter()), &mut slots);
/// table.add(0, slots[0], b"first");
/// table.add(0, slots[0], b"second");
/// assert_eq!(table.rows(0, slots[0]).collect::<Vec<_>>(), [&b"second"[..], b"first"]);
/// assert_eq!(table.rows(1, slots[0]).count() + table.rows(0, slots[1]).count(), 0);
/// ```
pub struct PileTable {
    name: String,
    row_schema: String,
    key: Option<String>,
    place: Option<Place>,
    index: KeyIndex,
    fresh: Vec<u32>,
    /// By slot: the newest row of each side.
    newest: Vec<[At; SIDES]>,
    chunks: Vec<Vec<u8>>,
    rows: usize,
    /// Bytes of the chunks.
    held: usize,
    /// Before this all is in the store, or in `blocks`.
    drained: Cursor,
    /// Up to here is to be drained.
    frozen: Cursor,
    /// By owned key group: rows on their way into the store, and the number of the group's next block.
    blocks: Vec<(Vec<u8>, u64)>,
}

impl PileTable {
    /// A table of that name, unique within its operator, for rows of two sides whose encodings `row_schema` describes.
    pub fn new(name: &str, row_schema: &str) -> Self {
        PileTable {
            name: name.to_string(),
            row_schema: row_schema.to_string(),
            key: None,
            place: None,
            index: KeyIndex::new(),
            fresh: Vec::new(),
            newest: Vec::new(),
            chunks: Vec::new(),
            rows: 0,
            held: 0,
            drained: Cursor::default(),
            frozen: Cursor::default(),
            blocks: Vec::new(),
        }
    }

    /// Notes the kind of its keys ([`Key::kind`](crate::record::Key::kind)): a restore with another one is refused, and tools
    /// can show them.
    #[must_use]
    pub fn with_key(mut self, kind: Option<String>) -> Self {
        self.key = kind;
        self
    }

    /// Gives every key of a batch a slot, in row order, replacing the content of `slots`. Slots stay valid.
    pub fn resolve(&mut self, keys: &Keys, slots: &mut Vec<u32>) {
        self.index.resolve(keys, slots, &mut self.fresh);
        self.fresh.clear();
        self.newest.resize(self.index.slots(), [NONE; SIDES]);
    }

    /// Adds a row.
    ///
    /// # Panics
    /// Beyond 32 GiB of rows in one task.
    pub fn add(&mut self, side: Side, slot: u32, row: &[u8]) {
        let newest = self.newest[slot as usize][side];
        let at = self.push(side, slot, newest, row);
        self.newest[slot as usize][side] = at;
    }

    fn push(&mut self, side: Side, slot: u32, before: At, row: &[u8]) -> At {
        let size = HEADER + row.len();
        let chunk = match self.chunks.last_mut() {
            Some(chunk) if chunk.len() + size <= CHUNK => chunk,
            _ => {
                self.held += size.max(CHUNK);
                self.chunks.push(Vec::with_capacity(size.max(CHUNK)));
                let last = self.chunks.len() - 1;
                &mut self.chunks[last]
            }
        };
        let start = chunk.len();
        let length = u32::try_from(row.len() << 1 | side).unwrap_or_else(|_| panic!("a row of 2 GiB"));
        chunk.extend_from_slice(&before.to_le_bytes());
        chunk.extend_from_slice(&slot.to_le_bytes());
        chunk.extend_from_slice(&length.to_le_bytes());
        chunk.extend_from_slice(row);
        // The next one begins at a unit; the last one of a full chunk may end it anywhere.
        chunk.resize(chunk.len().next_multiple_of(UNIT).min(chunk.capacity()), 0);
        self.rows += 1;
        let at = (self.chunks.len() - 1) * UNITS + start / UNIT;
        At::try_from(at).ok().filter(|at| *at != NONE).unwrap_or_else(|| panic!("the rows of one task of a join exceed 32 GiB"))
    }

    /// The rows of a key and side, newest first.
    #[inline]
    pub fn rows(&self, side: Side, slot: u32) -> impl Iterator<Item = &[u8]> {
        let mut at = self.newest[slot as usize][side];
        std::iter::from_fn(move || {
            if at == NONE {
                return None;
            }
            let (before, _, _, row) = row_at(&self.chunks[at as usize / UNITS], at as usize % UNITS * UNIT);
            at = before;
            Some(row)
        })
    }

    /// Fetches what [`rows`](Self::rows) of some slots looks at first into the cache.
    pub fn touch(&self, side: Side, slots: &[u32]) {
        touch(slots.iter().copied(), |slot| {
            let at = self.newest[slot as usize][side];
            let chunk = self.chunks.get(at as usize / UNITS);
            chunk.and_then(|chunk| chunk.get(at as usize % UNITS * UNIT)).copied().unwrap_or_default() as usize
        });
    }

    /// The key index: bytes, hash and group of a slot.
    pub fn index(&self) -> &KeyIndex {
        &self.index
    }

    /// Rows in the table.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// No row.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    fn end(&self) -> Cursor {
        match self.chunks.last() {
            Some(chunk) => Cursor { chunk: self.chunks.len() - 1, at: chunk.len() },
            None => Cursor::default(),
        }
    }

    /// Puts the next row that is to be drained into its group's block, and the block into `out` once it is full.
    fn drain_row(&mut self, place: &Place, out: &mut WriteBatch) {
        let Cursor { chunk, at } = self.drained;
        if at == self.chunks[chunk].len() {
            self.drained = Cursor { chunk: chunk + 1, at: 0 };
            return;
        }
        let (_, slot, side, row) = row_at(&self.chunks[chunk], at);
        let group = self.index.group(slot, place.max_parallelism);
        let mut scratch = [0; 8];
        let key = self.index.key_bytes(slot, &mut scratch);
        let size = HEADER + row.len();
        let (block, next) = &mut self.blocks[usize::from(group - place.groups.start)];
        put_number(block, key.len());
        put_number(block, row.len() << 1 | side);
        block.extend_from_slice(key);
        block.extend_from_slice(row);
        if block.len() >= BLOCK {
            put_block(place, group, block, next, out);
        }
        self.drained.at = (at + size).next_multiple_of(UNIT).min(self.chunks[chunk].len());
    }

    fn load(&mut self, place: &Place) -> Result<()> {
        let mut blocks: Vec<(u16, u64, Vec<u8>)> = Vec::new();
        place.scan(|group, name, value| {
            let number = name.try_into().map_err(|_| damaged("the name of a block of rows has another length"))?;
            blocks.push((group, u64::from_be_bytes(number), value.to_vec()));
            Ok(())
        })?;
        for (group, number, block) in blocks {
            self.blocks[usize::from(group - place.groups.start)].1 = number + 1;
            each_row(&block, |side, key, row| {
                let slot = self.index.resolve_one(key, XxHash3_64::oneshot(key), &mut self.fresh);
                self.newest.resize(self.index.slots(), [NONE; SIDES]);
                self.add(side, slot, row);
                Ok(())
            })?;
        }
        self.fresh.clear();
        self.drained = self.end();
        self.frozen = self.drained;
        Ok(())
    }
}

/// A row of a chunk: the row before, the slot of its key, its side, its bytes.
#[inline]
fn row_at(chunk: &[u8], at: usize) -> (At, u32, Side, &[u8]) {
    let (head, rest) = chunk[at..].split_at(HEADER);
    let number = |i: usize| u32::from_le_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]);
    let length = number(8);
    (number(0), number(4), (length & 1) as Side, &rest[..length as usize >> 1])
}

/// Rows of a stored block: side, key and row.
pub(super) fn each_row(block: &[u8], mut visit: impl FnMut(Side, &[u8], &[u8]) -> Result<()>) -> Result<()> {
    let cut = || damaged("a block of rows is cut short");
    let mut rest = block;
    while !rest.is_empty() {
        let key = take_number(&mut rest).ok_or_else(cut)?;
        let length = take_number(&mut rest).ok_or_else(cut)?;
        let (key, behind) = rest.split_at_checked(key).ok_or_else(cut)?;
        let (row, behind) = behind.split_at_checked(length >> 1).ok_or_else(cut)?;
        visit(length & 1, key, row)?;
        rest = behind;
    }
    Ok(())
}

fn put_block(place: &Place, group: u16, block: &mut Vec<u8>, next: &mut u64, out: &mut WriteBatch) {
    out.put(state_key(group, place.table, &next.to_be_bytes()), &*block);
    block.clear();
    *next += 1;
}

/// Seven bits a byte, the lowest first.
fn put_number(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(from: &mut &[u8]) -> Option<usize> {
    let mut number = 0;
    for shift in (0..35).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        number |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

impl Table for PileTable {
    fn name(&self) -> &str {
        &self.name
    }

    fn schema(&self) -> String {
        format!("pile{} {}", key_text(self.key.as_deref()), self.row_schema)
    }

    fn open(&mut self, context: &TableContext, restored: bool) -> Result<()> {
        let place = Place::new(context, &self.name);
        self.place = Some(place.clone());
        self.blocks = place.groups.clone().map(|_| (Vec::new(), 0)).collect();
        if restored {
            self.load(&place).map_err(|e| e.at(place.label.clone()))?;
        }
        Ok(())
    }

    fn freeze(&mut self, _epoch: Epoch) {
        self.frozen = self.end();
    }

    fn drain(&mut self, out: &mut WriteBatch, entries: usize) -> bool {
        let Some(place) = self.place.take() else { return true };
        let mut left = entries;
        while left > 0 && self.drained < self.frozen {
            self.drain_row(&place, out);
            left -= 1;
        }
        let is_done = self.drained >= self.frozen;
        if is_done {
            for (group, (block, next)) in place.groups.clone().zip(&mut self.blocks) {
                if !block.is_empty() {
                    put_block(&place, group, block, next, out);
                }
            }
        }
        self.place = Some(place);
        is_done
    }

    fn drained(&mut self, _epoch: Epoch) {}

    fn keys(&self) -> usize {
        self.index.len()
    }

    fn bytes(&self) -> usize {
        self.held + self.index.bytes() + self.index.len() * size_of::<[At; SIDES]>()
    }

    fn stays_in_memory(&self) -> bool {
        true
    }

    fn evict(&mut self, _target: usize) -> Result<()> {
        Ok(())
    }
}
