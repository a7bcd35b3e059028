//! Rows by key that only ever come: what a join keeps whose inputs take nothing back.
//!
//! A row is copied into a chunk behind the row before it and points to the newest row that its key and side had, so a row
//! costs its bytes and 12 more, no allocation, and no look at older rows. Nothing changes and nothing goes: what an epoch has
//! to store is what was added since the last one. It is stored in blocks of many rows, a key group's rows together, so that
//! runs and merges deal with few entries.
//!
//! Where the rows of a key begin lives in memory; the rows do as long as there is room, else they are in scratch files
//! ([`Chunks`]) and are read when they are asked for. A restore reads all, and leaves most on disk.
//!
//! Invariant: the rows of a key and side come newest first, after a restore as well: blocks of a key group are numbered in
//! the order in which their rows came, and no number is used twice.
//!
//! [`Chunks`]: super::chunks::Chunks

use super::chunks::{Chunks, Scratch};
use super::index::touch;
use super::keyspace::{Place, damaged, state_key};
use super::value::key_text;
use super::{KeyIndex, Side, Table, TableContext, WriteBatch};
use crate::error::Result;
use crate::record::{Epoch, Keys};
use std::borrow::Cow;
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
/// Bytes of rows that a restore leaves in memory, and a quarter more while it loads.
const LOADED: usize = if cfg!(test) { 256 } else { 64 << 20 };
/// Bytes that a row on disk probably does not exceed, its header included.
const LIKELY: usize = if cfg!(test) { 20 } else { 512 };
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
/// assert_eq!(table.rows(0, slots[0]).collect::<Result<Vec<_>, _>>()?, [&b"second"[..], b"first"]);
/// assert_eq!(table.rows(1, slots[0]).count() + table.rows(0, slots[1]).count(), 0);
/// # Ok::<(), waterwheel_engine::error::Error>(())
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
    chunks: Chunks,
    /// The chunk that is being filled, if one is: the last.
    filling: Option<usize>,
    scratch: Option<Scratch>,
    rows: usize,
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
            chunks: Chunks::default(),
            filling: None,
            scratch: None,
            rows: 0,
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
        let chunk = match self.filling {
            Some(last) if self.chunks.len(last) + size <= CHUNK => last,
            _ => {
                let chunk = self.chunks.add();
                self.chunks.open(chunk, size.max(CHUNK));
                self.filling = Some(chunk);
                chunk
            }
        };
        let start = self.chunks.len(chunk);
        let length = u32::try_from(row.len() << 1 | side).unwrap_or_else(|_| panic!("a row of 2 GiB"));
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&before.to_le_bytes());
        header[4..8].copy_from_slice(&slot.to_le_bytes());
        header[8..].copy_from_slice(&length.to_le_bytes());
        self.chunks.extend(chunk, &header);
        self.chunks.extend(chunk, row);
        // The next one begins at a unit; the last one of a full chunk may end it anywhere.
        let end = self.chunks.len(chunk);
        let padding = end.next_multiple_of(UNIT).min(size.max(CHUNK)).saturating_sub(end);
        self.chunks.extend(chunk, &[0; UNIT][..padding]);
        self.rows += 1;
        let at = chunk * UNITS + start / UNIT;
        At::try_from(at).ok().filter(|at| *at != NONE).unwrap_or_else(|| panic!("the rows of one task of a join exceed 32 GiB"))
    }

    /// The rows of a key and side, newest first. One that fails is the last.
    #[inline]
    pub fn rows(&self, side: Side, slot: u32) -> impl Iterator<Item = Result<Cow<'_, [u8]>>> {
        let mut at = self.newest[slot as usize][side];
        std::iter::from_fn(move || {
            if at == NONE {
                return None;
            }
            let row = row_at(&self.chunks, at as usize / UNITS, at as usize % UNITS * UNIT);
            at = row.as_ref().map_or(NONE, |row| row.before);
            Some(row.map(|row| row.bytes))
        })
    }

    /// Fetches what [`rows`](Self::rows) of some slots looks at first into the cache.
    pub fn touch(&self, side: Side, slots: &[u32]) {
        touch(slots.iter().copied(), |slot| {
            let at = self.newest[slot as usize][side];
            let chunk = (at != NONE).then(|| self.chunks.in_memory(at as usize / UNITS)).flatten();
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
        match self.chunks.count().checked_sub(1) {
            Some(chunk) => Cursor { chunk, at: self.chunks.len(chunk) },
            None => Cursor::default(),
        }
    }

    /// Puts the next row that is to be drained into its group's block, and the block into `out` once it is full.
    fn drain_row(&mut self, place: &Place, out: &mut WriteBatch) -> Result<()> {
        let Cursor { chunk, at } = self.drained;
        if at == self.chunks.len(chunk) {
            self.drained = Cursor { chunk: chunk + 1, at: 0 };
            return Ok(());
        }
        let Row { slot, side, bytes: row, .. } = row_at(&self.chunks, chunk, at)?;
        let group = self.index.group(slot, place.max_parallelism);
        let mut scratch = [0; 8];
        let key = self.index.key_bytes(slot, &mut scratch);
        let size = HEADER + row.len();
        let (block, next) = &mut self.blocks[usize::from(group - place.groups.start)];
        put_number(block, key.len());
        put_number(block, row.len() << 1 | side);
        block.extend_from_slice(key);
        block.extend_from_slice(&row);
        if block.len() >= BLOCK {
            put_block(place, group, block, next, out);
        }
        self.drained.at = (at + size).next_multiple_of(UNIT).min(self.chunks.len(chunk));
        Ok(())
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
            if self.chunks.bytes() > LOADED + LOADED / 4 {
                self.evict(self.chunks.bytes() - LOADED)?;
            }
        }
        self.fresh.clear();
        self.drained = self.end();
        self.frozen = self.drained;
        Ok(())
    }
}

/// A row of a chunk.
struct Row<'a> {
    /// The row that its key and side had before.
    before: At,
    slot: u32,
    side: Side,
    bytes: Cow<'a, [u8]>,
}

/// The row that begins at a place of a chunk.
#[inline]
fn row_at(chunks: &Chunks, chunk: usize, at: usize) -> Result<Row<'_>> {
    if let Some(bytes) = chunks.whole(chunk) {
        let (head, rest) = bytes[at..].split_at(HEADER);
        let (before, slot, side, len) = header(head);
        return Ok(Row { before, slot, side, bytes: Cow::Borrowed(&rest[..len]) });
    }
    // Most rows are short: header and row in one.
    let some = chunks.get(chunk, at..chunks.len(chunk).min(at + LIKELY))?;
    let (before, slot, side, len) = header(&some[..HEADER]);
    let end = HEADER + len;
    let bytes = match some {
        some if some.len() < end => chunks.get(chunk, at + HEADER..at + end)?,
        Cow::Borrowed(some) => Cow::Borrowed(&some[HEADER..end]),
        Cow::Owned(some) => Cow::Owned(some[HEADER..end].to_vec()),
    };
    Ok(Row { before, slot, side, bytes })
}

/// What is in front of a row: the row before, the slot of its key, its side, its length.
#[inline]
fn header(head: &[u8]) -> (At, u32, Side, usize) {
    let number = |i: usize| u32::from_le_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]);
    let length = number(8);
    (number(0), number(4), (length & 1) as Side, length as usize >> 1)
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
        self.scratch = place.store.scratch();
        self.blocks = place.groups.clone().map(|_| (Vec::new(), 0)).collect();
        if restored {
            self.load(&place).map_err(|e| e.at(place.label.clone()))?;
        }
        Ok(())
    }

    fn freeze(&mut self, _epoch: Epoch) {
        self.frozen = self.end();
    }

    fn drain(&mut self, out: &mut WriteBatch, entries: usize) -> Result<bool> {
        let Some(place) = self.place.clone() else { return Ok(true) };
        let mut left = entries;
        while left > 0 && self.drained < self.frozen {
            self.drain_row(&place, out)?;
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
        Ok(is_done)
    }

    fn drained(&mut self, _epoch: Epoch) {}

    fn keys(&self) -> usize {
        self.index.len()
    }

    fn bytes(&self) -> usize {
        self.chunks.bytes() + self.index.bytes() + self.index.len() * size_of::<[At; SIDES]>()
    }

    fn pinned_bytes(&self) -> usize {
        let moving = if self.scratch.is_some() { self.chunks.bytes() } else { 0 };
        self.bytes() - moving
    }

    fn evicts_apart(&self) -> bool {
        true
    }

    fn evict(&mut self, target: usize) -> Result<()> {
        self.scratch.as_ref().map_or(Ok(()), |scratch| self.chunks.evict(target, &mut self.filling, scratch))
    }
}
