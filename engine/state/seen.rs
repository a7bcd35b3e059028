//! Ids and when each was seen, for a time to live: what deduplication rests on.
//!
//! Ids lie in chunks by stretches of event time (buckets), and an index of 4-byte references finds them; so an id costs little
//! more than its bytes, a bucket is dropped whole, and a snapshot writes the ids of an epoch as a few long values (pieces, one a
//! key group and bucket, named by its first instant) in place of one entry each. Beyond the memory budget the oldest buckets go
//! to the store id by id ("cold"), where an id that is not in memory is then looked for.
//!
//! Invariant: the index has the newest time of an id that is in memory, and memory goes before the store. An id is visible while
//! `time + ttl > watermark`, wherever it is, so neither the size of buckets nor eviction shows.

use super::keyspace::{Mark, Place, damaged, split_time, state_key, table_id, table_range, time_bytes};
use super::value::{key_text, schema_of};
use super::{Table, TableContext, WriteBatch};
use crate::error::{Error, Result};
use crate::record::{Epoch, Keys, key_group};
use crate::time::EventTime;
use hashbrown::HashTable;
use std::collections::BTreeMap;
use twox_hash::XxHash3_64;

/// Buckets that a time to live is cut into.
const BUCKETS: i64 = 32;
/// A chunk takes no further id when it is this long. References count 4 bytes, in chunks of at most this length (but for an id
/// that is longer by itself and begins its chunk).
const CHUNK: usize = 1 << 16;
const OFFSET_BITS: u32 = 14;
/// Bytes that an eviction writes at a time.
const EVICT_WRITE: usize = 1 << 20;
/// In front of an id: milliseconds into its bucket and length, both u32 LE.
const HEAD: usize = 8;

#[derive(Default)]
struct Chunk {
    bucket: i64,
    data: Vec<u8>,
    /// Up to here it has been put out to the store.
    drained: usize,
}

#[derive(Default)]
struct Bucket {
    chunks: Vec<u32>,
    /// The store may hold pieces of it.
    stored: bool,
}

/// See the module's header.
///
/// A batch goes: [`resolve`](SeenTable::resolve), then per row [`get`](SeenTable::get) and, where it is to be remembered,
/// [`insert`](SeenTable::insert).
pub struct SeenTable {
    name: String,
    key: Option<String>,
    place: Option<Place>,
    ttl_ms: i64,
    bucket_ms: i64,
    watermark: Mark,
    index: HashTable<u32>,
    chunks: Vec<Chunk>,
    free: Vec<u32>,
    buckets: BTreeMap<i64, Bucket>,
    /// The chunk that takes the ids of a bucket.
    open: BTreeMap<i64, u32>,
    /// Chunks with ids of this epoch, and of the frozen one, that are not put out yet.
    changed: Vec<u32>,
    frozen: Vec<u32>,
    /// Of the frozen epoch, on their way out, by group and bucket.
    pieces: BTreeMap<(u16, i64), Vec<u8>>,
    next_piece: u64,
    /// First and last bucket of runs that were dropped in this epoch, and in the frozen one.
    dropped: Vec<(i64, i64)>,
    frozen_dropped: Vec<(i64, i64)>,
    /// Left over from an epoch that was never drained.
    backlog: WriteBatch,
    bytes: usize,
    /// The store holds ids that memory does not.
    spilled: bool,
    /// By row of the batch at hand: when the store says it was seen.
    cold: Vec<Option<i64>>,
}

impl SeenTable {
    /// Ids are forgotten `ttl_ms` of event time after they were seen.
    pub fn new(name: &str, ttl_ms: i64) -> Self {
        SeenTable {
            name: name.to_string(),
            key: None,
            place: None,
            ttl_ms,
            bucket_ms: (ttl_ms / BUCKETS).clamp(1, i64::from(u32::MAX)),
            watermark: Mark::new(name),
            index: HashTable::new(),
            chunks: Vec::new(),
            free: Vec::new(),
            buckets: BTreeMap::new(),
            open: BTreeMap::new(),
            changed: Vec::new(),
            frozen: Vec::new(),
            pieces: BTreeMap::new(),
            next_piece: 0,
            dropped: Vec::new(),
            frozen_dropped: Vec::new(),
            backlog: WriteBatch::default(),
            bytes: 0,
            spilled: false,
            cold: Vec::new(),
        }
    }

    /// Notes the kind of its ids ([`Key::kind`](crate::record::Key::kind)), as [`PointTable::with_key`](super::PointTable::with_key).
    #[must_use]
    pub fn with_key(mut self, kind: Option<String>) -> Self {
        self.key = kind;
        self
    }

    /// Makes a batch ready: looks for ids in the store that are not in memory.
    ///
    /// # Errors
    /// Of the store, or damaged state.
    pub fn resolve(&mut self, keys: &Keys) -> Result<()> {
        self.cold.clear();
        if !self.spilled {
            return Ok(());
        }
        let (place, cold_table) = (self.place(), self.cold_table());
        let mut scratch = [0; 8];
        let (mut rows, mut wanted) = (Vec::new(), Vec::new());
        for (row, &hash) in keys.hashes().iter().enumerate() {
            let key = keys.bytes(row, &mut scratch);
            if self.find(key, hash).is_none() {
                rows.push(row);
                wanted.push(state_key(key_group(hash, place.max_parallelism), cold_table, key));
            }
        }
        let wanted: Vec<&[u8]> = wanted.iter().map(Vec::as_slice).collect();
        let mut cold = vec![None; keys.len()];
        let read = place.store.multi_get(&wanted, &mut |at, bytes| {
            cold[rows[at]] = Some(split_time(bytes)?.0);
            Ok(())
        });
        read.map_err(|e| e.at(place.label.clone()))?;
        self.cold = cold;
        Ok(())
    }

    /// When the id of a row of the batch at hand was seen, if it is remembered.
    #[inline]
    pub fn get(&self, keys: &Keys, row: usize) -> Option<EventTime> {
        let mut scratch = [0; 8];
        let key = keys.bytes(row, &mut scratch);
        let time = match self.find(key, keys.hashes()[row]) {
            Some(at) => self.time(at),
            None => self.cold.get(row).copied().flatten()?,
        };
        (!self.is_over(time)).then_some(EventTime(time))
    }

    /// Remembers that the id of a row of the batch at hand was seen at `time`, in place of what was remembered of it.
    pub fn insert(&mut self, keys: &Keys, row: usize, time: EventTime) {
        if !self.is_over(time.0) {
            let mut scratch = [0; 8];
            self.add(keys.bytes(row, &mut scratch), keys.hashes()[row], time.0);
        }
    }

    /// Forgets what was seen the time to live or longer before the watermark.
    pub fn expire(&mut self, watermark: EventTime) {
        self.watermark.raise(watermark.0);
        while let Some((&bucket, _)) = self.buckets.first_key_value() {
            if !self.is_over(self.first_of(bucket).saturating_add(self.bucket_ms - 1)) {
                return;
            }
            self.drop_bucket(bucket);
        }
    }

    /// Ids in memory.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// No id in memory.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    fn is_over(&self, time: i64) -> bool {
        time.saturating_add(self.ttl_ms) <= self.watermark.get()
    }

    fn place(&self) -> &Place {
        self.place.as_ref().unwrap_or_else(|| unreachable!("table {} is used before it was opened", self.name))
    }

    fn cold_table(&self) -> u32 {
        table_id(&self.place().operator, &format!("{}/cold", self.name))
    }

    /// First instant of a bucket; the very first one begins where time does.
    fn first_of(&self, bucket: i64) -> i64 {
        bucket.saturating_mul(self.bucket_ms)
    }

    fn find(&self, key: &[u8], hash: u64) -> Option<u32> {
        self.index.find(hash, |&at| self.entry(at).1 == key).copied()
    }

    /// Milliseconds into the bucket, and the id.
    fn entry(&self, at: u32) -> (u32, &[u8]) {
        let data = &self.chunks[(at >> OFFSET_BITS) as usize].data;
        match split_entry(&data[((at & ((1 << OFFSET_BITS) - 1)) as usize) * 4..]) {
            Some((into, key, _)) => (into, key),
            None => unreachable!("a reference leads to an id"),
        }
    }

    fn time(&self, at: u32) -> i64 {
        self.first_of(self.chunks[(at >> OFFSET_BITS) as usize].bucket).saturating_add(i64::from(self.entry(at).0))
    }

    fn add(&mut self, key: &[u8], hash: u64, time: i64) -> u32 {
        let bucket = time.div_euclid(self.bucket_ms);
        let chunk = self.open_chunk(bucket, HEAD + key.len());
        let into = time.saturating_sub(self.first_of(bucket)).max(0) as u32;
        let data = &mut self.chunks[chunk as usize].data;
        let (at, before) = ((chunk << OFFSET_BITS) | (data.len() / 4) as u32, data.len());
        put_entry(data, into, key);
        data.resize(data.len().next_multiple_of(4), 0);
        self.bytes += data.len() - before;
        match self.find(key, hash) {
            Some(old) => {
                if let Ok(mut found) = self.index.find_entry(hash, |&other| other == old) {
                    *found.get_mut() = at;
                }
            }
            None => {
                let (index, chunks) = (&mut self.index, &self.chunks);
                let key = |at: u32| &chunks[(at >> OFFSET_BITS) as usize].data[((at & ((1 << OFFSET_BITS) - 1)) as usize) * 4..];
                index.insert_unique(hash, at, |&at| split_entry(key(at)).map_or(0, |(_, key, _)| XxHash3_64::oneshot(key)));
            }
        }
        chunk
    }

    /// The chunk that takes an id of so many bytes.
    fn open_chunk(&mut self, bucket: i64, bytes: usize) -> u32 {
        let fits = |chunk: &Chunk| chunk.data.is_empty() || chunk.data.len() + bytes <= CHUNK;
        if let Some(&chunk) = self.open.get(&bucket).filter(|&&chunk| fits(&self.chunks[chunk as usize])) {
            return chunk;
        }
        let known = self.buckets.entry(bucket).or_default();
        // One of a former epoch goes on, once it is out.
        let whole = |chunk: &&u32| {
            fits(&self.chunks[**chunk as usize]) && self.chunks[**chunk as usize].drained == self.chunks[**chunk as usize].data.len()
        };
        let chunk = known.chunks.last().filter(whole).copied().unwrap_or_else(|| {
            let chunk = self.free.pop().unwrap_or(self.chunks.len() as u32);
            assert!(chunk < 1 << (32 - OFFSET_BITS), "table {} is full: 16 GiB of ids in memory", self.name);
            if chunk as usize == self.chunks.len() {
                self.chunks.push(Chunk::default());
            }
            self.chunks[chunk as usize] = Chunk { bucket, ..Chunk::default() };
            known.chunks.push(chunk);
            chunk
        });
        self.open.insert(bucket, chunk);
        self.changed.push(chunk);
        chunk
    }

    /// Forgets a bucket whole; what belongs to the frozen epoch is put out first.
    fn drop_bucket(&mut self, bucket: i64) {
        let Some(chunks) = self.buckets.get(&bucket).map(|b| b.chunks.clone()) else { return };
        let frozen: Vec<u32> = self.frozen.extract_if(.., |chunk| chunks.contains(chunk)).collect();
        for chunk in frozen {
            self.put_out(chunk);
        }
        if self.take_bucket(bucket, |_, _, _| {}) {
            match self.dropped.last_mut() {
                Some((_, last)) if *last < bucket && self.buckets.range(*last..bucket).next().is_none() => *last = bucket,
                _ => self.dropped.push((bucket, bucket)),
            }
        }
    }

    /// Takes a bucket out of memory, showing each id that stands in it with hash and time; whether the store may hold pieces.
    fn take_bucket(&mut self, bucket: i64, mut each: impl FnMut(&[u8], u64, i64)) -> bool {
        let Some(taken) = self.buckets.remove(&bucket) else { return false };
        self.open.remove(&bucket);
        for list in [&mut self.changed, &mut self.frozen] {
            list.retain(|chunk| !taken.chunks.contains(chunk));
        }
        let first = self.first_of(bucket);
        for chunk in taken.chunks {
            let data = std::mem::take(&mut self.chunks[chunk as usize].data);
            self.bytes -= data.len();
            let mut at = 0;
            while let Some((into, key, len)) = data.get(at..).and_then(split_entry) {
                let (hash, reference) = (XxHash3_64::oneshot(key), (chunk << OFFSET_BITS) | (at / 4) as u32);
                // One that was seen again since then stands elsewhere.
                if let Ok(found) = self.index.find_entry(hash, |&other| other == reference) {
                    found.remove();
                    each(key, hash, first.saturating_add(i64::from(into)));
                }
                at += len.next_multiple_of(4);
            }
            self.free.push(chunk);
        }
        taken.stored
    }

    /// Adds the ids of a chunk that are not out yet to the pieces of the frozen epoch.
    fn put_out(&mut self, chunk: u32) -> usize {
        let max_parallelism = self.place().max_parallelism;
        let Chunk { bucket, data, drained } = &mut self.chunks[chunk as usize];
        let (mut at, mut ids) = (*drained, 0);
        while let Some((into, key, len)) = data.get(at..).and_then(split_entry) {
            let group = key_group(XxHash3_64::oneshot(key), max_parallelism);
            put_entry(self.pieces.entry((group, *bucket)).or_default(), into, key);
            at += len.next_multiple_of(4);
            ids += 1;
        }
        *drained = data.len();
        if let Some(bucket) = self.buckets.get_mut(&*bucket) {
            bucket.stored = true;
        }
        ids
    }

    fn write_pieces(&mut self, out: &mut WriteBatch) {
        if self.pieces.is_empty() {
            return;
        }
        let table = self.place().table;
        for ((group, bucket), piece) in std::mem::take(&mut self.pieces) {
            let name = [time_bytes(self.first_of(bucket)), self.next_piece.to_be_bytes()].concat();
            let piece = [&self.bucket_ms.to_le_bytes()[..], &piece].concat();
            out.put(state_key(group, table, &name), piece);
        }
        self.next_piece += 1;
    }

    fn write_dropped(&mut self, out: &mut WriteBatch) {
        for (first, last) in std::mem::take(&mut self.frozen_dropped) {
            self.delete_pieces(first, last, out);
        }
    }

    fn delete_pieces(&self, first: i64, last: i64, out: &mut WriteBatch) {
        let (place, first) = (self.place(), self.first_of(first));
        for group in place.groups.clone() {
            let to = match self.first_of(last).checked_add(self.bucket_ms) {
                Some(next) => state_key(group, place.table, &time_bytes(next)),
                None => table_range(group, place.table).1,
            };
            out.delete_range(state_key(group, place.table, &time_bytes(first)), to);
        }
    }

    /// The time to live has changed, and with it the buckets: what was loaded is put out again, in place of all there is.
    fn write_anew(&mut self) {
        let place = self.place().clone();
        for group in place.groups {
            let (from, to) = table_range(group, place.table);
            self.backlog.delete_range(from, to);
        }
        self.chunks.iter_mut().for_each(|chunk| chunk.drained = 0);
        self.changed.sort_unstable();
        self.changed.dedup();
    }

    /// Whether the piece is of buckets as long as ours.
    fn load(&mut self, name: &[u8], piece: &[u8]) -> Result<bool> {
        let (_, number) = split_time(name)?;
        let number = number.try_into().map_err(|_| damaged("the name of a piece of ids is cut short"))?;
        self.next_piece = self.next_piece.max(u64::from_be_bytes(number) + 1);
        // By time: of an id that was seen twice the later time comes later.
        let bucket_ms = each_id(name, piece, &mut |key, time| {
            let chunk = self.add(key, XxHash3_64::oneshot(key), time) as usize;
            let Chunk { bucket, data, drained } = &mut self.chunks[chunk];
            *drained = data.len();
            if let Some(bucket) = self.buckets.get_mut(&*bucket) {
                bucket.stored = true;
            }
            Ok(())
        })?;
        Ok(bucket_ms == self.bucket_ms)
    }
}

/// Visits the ids of a stored piece with the time of each; gives the length of its bucket.
pub(super) fn each_id(name: &[u8], piece: &[u8], visit: &mut dyn FnMut(&[u8], i64) -> Result<()>) -> Result<i64> {
    let cut = || damaged("a piece of ids is cut short");
    let (first, _) = split_time(name)?;
    let (bucket_ms, mut rest) = piece.split_first_chunk::<8>().ok_or_else(cut)?;
    while !rest.is_empty() {
        let (into, key, len) = split_entry(rest).ok_or_else(cut)?;
        visit(key, first.saturating_add(i64::from(into)))?;
        rest = &rest[len..];
    }
    Ok(i64::from_le_bytes(*bucket_ms))
}

fn put_entry(out: &mut Vec<u8>, into: u32, key: &[u8]) {
    out.extend_from_slice(&into.to_le_bytes());
    out.extend_from_slice(&(key.len() as u32).to_le_bytes());
    out.extend_from_slice(key);
}

/// Milliseconds into the bucket, the id, and the bytes of both.
fn split_entry(bytes: &[u8]) -> Option<(u32, &[u8], usize)> {
    let (into, rest) = bytes.split_first_chunk::<4>()?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let len = u32::from_le_bytes(*len) as usize;
    Some((u32::from_le_bytes(*into), rest.get(..len)?, HEAD + len))
}

impl Table for SeenTable {
    fn name(&self) -> &str {
        &self.name
    }

    fn schema(&self) -> String {
        format!("seen{} {}", key_text(self.key.as_deref()), schema_of::<()>())
    }

    fn open(&mut self, context: &TableContext, restored: bool) -> Result<()> {
        let place = Place::new(context, &self.name);
        self.place = Some(place.clone());
        if !restored {
            return Ok(());
        }
        self.watermark.restore(&place)?;
        let mut same = true;
        place.scan(|_, name, piece| {
            same &= self.load(name, piece)?;
            Ok(())
        })?;
        self.open.clear();
        if same {
            self.changed.clear();
        } else {
            self.write_anew();
        }
        let cold = self.cold_table();
        let (mut spilled, mut groups) = (false, place.groups.clone());
        while let (false, Some(group)) = (spilled, groups.next()) {
            let (from, to) = table_range(group, cold);
            let first = place.store.scan(&from, &to, &mut |_, _| {
                spilled = true;
                Err(Error::restart("one is enough"))
            });
            if !spilled {
                first.map_err(|e| e.at(place.label.clone()))?;
            }
        }
        self.spilled = spilled;
        Ok(())
    }

    fn freeze(&mut self, _epoch: Epoch) {
        // Holds something only if the epoch before was given up; it stays in front of this one.
        let mut backlog = std::mem::take(&mut self.backlog);
        self.write_dropped(&mut backlog);
        self.write_pieces(&mut backlog);
        self.backlog = backlog;
        self.frozen_dropped = std::mem::take(&mut self.dropped);
        self.frozen.append(&mut self.changed);
        // What comes now is of the next epoch, and goes into chunks of its own.
        self.open.clear();
        self.watermark.freeze();
    }

    fn drain(&mut self, out: &mut WriteBatch, entries: usize) -> Result<bool> {
        out.append(std::mem::take(&mut self.backlog));
        self.write_dropped(out);
        if let Some(place) = &self.place {
            self.watermark.drain(place, out);
        }
        let mut written = 0;
        while written < entries {
            let Some(chunk) = self.frozen.pop() else {
                self.write_pieces(out);
                return Ok(true);
            };
            written += self.put_out(chunk);
        }
        Ok(false)
    }

    fn drained(&mut self, _epoch: Epoch) {
        if let Some(last_over) = self.watermark.frozen().checked_sub(self.ttl_ms)
            && self.spilled
        {
            self.place().store.expire(self.cold_table(), time_bytes(last_over.saturating_add(1)));
        }
    }

    fn keys(&self) -> usize {
        self.index.len()
    }

    fn bytes(&self) -> usize {
        // A table of references is 7/8 full at most and half full on average.
        self.bytes + self.index.len() * 8 + (self.chunks.len() - self.free.len()) * size_of::<Chunk>()
    }

    fn evict(&mut self, target: usize) -> Result<()> {
        let (place, cold) = (self.place().clone(), self.cold_table());
        // First what an epoch that was given up has left: what follows goes on top of it.
        let (before, mut batch) = (self.bytes(), std::mem::take(&mut self.backlog));
        while before.saturating_sub(self.bytes()) < target
            && let Some((&bucket, _)) = self.buckets.first_key_value()
        {
            self.spilled = true;
            let (ttl_ms, watermark) = (self.ttl_ms, self.watermark.get());
            let stored = self.take_bucket(bucket, |key, hash, time| {
                if time.saturating_add(ttl_ms) > watermark {
                    batch.put(state_key(key_group(hash, place.max_parallelism), cold, key), time_bytes(time));
                }
            });
            if stored {
                self.delete_pieces(bucket, bucket, &mut batch);
            }
            if batch.bytes() >= EVICT_WRITE {
                place.store.write(&batch)?;
                batch.clear();
            }
        }
        if batch.is_empty() { Ok(()) } else { place.store.write(&batch) }
    }
}
