//! Bytes of rows in chunks, in memory or in scratch files.
//!
//! A table of rows finds them by arrays and keeps their bytes here. A chunk that is full never changes, so one that was written
//! to a file can be let go of and read again as often as it takes. A row is read by itself at first; a chunk of which as much
//! was read as it holds comes back whole, until it is let go of once more. Those go first that were not read since the hand of a
//! clock passed.
//!
//! Scratch files are no state: no checkpoint names them, they go with the last of their chunks and with the task's folder.
//!
//! Invariant: what is read from a file is what was written, or an error: the checksums of its blocks stay in memory.

use crate::env::Files;
use crate::error::{Error, Result};
use std::borrow::Cow;
use std::cell::{Cell, OnceCell};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes read at a time, with a checksum.
const BLOCK: usize = if cfg!(test) { 16 } else { 4 << 10 };

/// Where tables may put bytes that they do not have room for: a folder that goes with the task.
#[derive(Clone)]
pub struct Scratch {
    files: Arc<dyn Files>,
    dir: PathBuf,
    named: Arc<AtomicU64>,
}

/// A file of it, removed with the last chunk in it.
struct ScratchFile {
    files: Arc<dyn Files>,
    path: PathBuf,
}

impl Drop for ScratchFile {
    fn drop(&mut self) {
        // A leftover costs space until the task ends.
        let _ = self.files.remove(&self.path);
    }
}

impl Scratch {
    /// Files below `dir`, which is made when it is needed.
    pub fn new(files: &Arc<dyn Files>, dir: &Path) -> Self {
        Scratch { files: files.clone(), dir: dir.to_path_buf(), named: Arc::default() }
    }

    /// Writes some chunks into one file; where each is.
    fn write(&self, chunks: &[(usize, Vec<u8>)]) -> Result<Vec<Place>> {
        let path = self.dir.join(format!("{:08}.rows", self.named.fetch_add(1, Relaxed)));
        let failed =
            |e| Error::restart("rows for which memory has no room could not be put to disk").because(e).at(path.display().to_string());
        self.files.create_dir_all(&self.dir).map_err(failed)?;
        let mut writer = self.files.create(&path).map_err(failed)?;
        let file = Arc::new(ScratchFile { files: self.files.clone(), path: path.clone() });
        let mut start = 0;
        let mut places = Vec::with_capacity(chunks.len());
        for (_, bytes) in chunks {
            writer.write_all(bytes).map_err(failed)?;
            let checksums = bytes.chunks(BLOCK).map(crc32fast::hash).collect();
            places.push(Place { file: file.clone(), start, checksums });
            start += bytes.len() as u64;
        }
        Ok(places)
    }
}

/// Where a chunk is in a file.
struct Place {
    file: Arc<ScratchFile>,
    start: u64,
    checksums: Vec<u32>,
}

impl Place {
    /// Some blocks of a chunk of `len` bytes.
    fn read(&self, blocks: Range<usize>, len: usize) -> Result<Vec<u8>> {
        let (from, to) = (blocks.start * BLOCK, len.min(blocks.end * BLOCK));
        let ScratchFile { files, path } = &*self.file;
        let fail = |cause: &str| Error::restart(cause).at(path.display().to_string());
        let read = files.read_at(path, self.start + from as u64, to - from);
        let bytes = read.map_err(|e| fail("rows that were put to disk cannot be read").because(e))?;
        let is_whole = bytes.len() == to - from && bytes.chunks(BLOCK).map(crc32fast::hash).eq(self.checksums[blocks].iter().copied());
        if is_whole { Ok(bytes) } else { Err(fail("rows that were put to disk are not what was written")) }
    }
}

/// A chunk.
#[derive(Default)]
struct Chunk {
    /// Empty while it is in a file only.
    data: OnceCell<Vec<u8>>,
    len: usize,
    /// Once it was written; it stays true.
    place: Option<Place>,
    /// Since the hand passed.
    used: Cell<bool>,
    /// Bytes read from the file since it was let go of.
    read: Cell<usize>,
}

impl Chunk {
    fn held(&self) -> usize {
        self.data.get().map_or(0, Vec::capacity)
    }
}

/// See the module's header. Chunks are known by their place in the list.
#[derive(Default)]
pub(super) struct Chunks {
    list: Vec<Chunk>,
    /// Bytes of chunks in memory.
    held: Cell<usize>,
    hand: usize,
}

impl Chunks {
    /// A chunk behind the last one, empty.
    pub(super) fn add(&mut self) -> usize {
        self.list.push(Chunk::default());
        self.list.len() - 1
    }

    /// Chunks, empty ones included.
    pub(super) fn count(&self) -> usize {
        self.list.len()
    }

    /// Makes room in an empty chunk, which is filled from now on.
    pub(super) fn open(&mut self, at: usize, capacity: usize) {
        let data = Vec::with_capacity(capacity);
        self.held.set(self.held.get() + data.capacity());
        self.list[at] = Chunk { data: OnceCell::from(data), ..Chunk::default() };
    }

    /// Adds bytes to the chunk that is being filled.
    pub(super) fn extend(&mut self, at: usize, bytes: &[u8]) {
        let chunk = &mut self.list[at];
        let Some(data) = chunk.data.get_mut() else { unreachable!("a chunk that is being filled is in memory") };
        let before = data.capacity();
        data.extend_from_slice(bytes);
        chunk.len = data.len();
        self.held.set(self.held.get() + data.capacity() - before);
    }

    /// Bytes in a chunk.
    #[inline]
    pub(super) fn len(&self, at: usize) -> usize {
        self.list[at].len
    }

    /// A chunk's bytes, if they are in memory.
    #[inline]
    pub(super) fn in_memory(&self, at: usize) -> Option<&[u8]> {
        self.list[at].data.get().map(|data| &data[..])
    }

    /// As [`in_memory`](Self::in_memory), for a look at its rows: it stays there for longer.
    #[inline]
    pub(super) fn whole(&self, at: usize) -> Option<&[u8]> {
        let chunk = &self.list[at];
        let data = chunk.data.get()?;
        chunk.used.set(true);
        Some(data)
    }

    /// Some bytes of a chunk.
    #[inline]
    pub(super) fn get(&self, at: usize, range: Range<usize>) -> Result<Cow<'_, [u8]>> {
        match self.whole(at) {
            Some(data) => Ok(Cow::Borrowed(&data[range])),
            None => self.read(&self.list[at], range),
        }
    }

    #[cold]
    fn read<'a>(&'a self, chunk: &'a Chunk, range: Range<usize>) -> Result<Cow<'a, [u8]>> {
        if range.is_empty() {
            return Ok(Cow::Borrowed(&[]));
        }
        let Some(place) = &chunk.place else { unreachable!("a chunk with bytes is in memory or in a file") };
        let blocks = range.start / BLOCK..range.end.div_ceil(BLOCK);
        chunk.used.set(true);
        chunk.read.set(chunk.read.get() + blocks.len() * BLOCK);
        if chunk.read.get() < chunk.len {
            let bytes = place.read(blocks.clone(), chunk.len)?;
            let start = blocks.start * BLOCK;
            return Ok(Cow::Owned(bytes[range.start - start..range.end - start].to_vec()));
        }
        let whole = place.read(0..place.checksums.len(), chunk.len)?;
        let data = chunk.data.get_or_init(|| whole);
        self.held.set(self.held.get() + data.capacity());
        Ok(Cow::Borrowed(&data[range]))
    }

    /// Forgets a chunk's bytes; its place in the list is empty.
    pub(super) fn close(&mut self, at: usize) {
        let chunk = std::mem::take(&mut self.list[at]);
        self.held.set(self.held.get() - chunk.held());
    }

    /// Bytes in memory, free space in chunks included.
    pub(super) fn bytes(&self) -> usize {
        self.held.get()
    }

    /// Lets go of about `target` bytes, of the chunk that is being filled only if nothing else is left: then it is full.
    pub(super) fn evict(&mut self, target: usize, filling: &mut Option<usize>, scratch: &Scratch) -> Result<()> {
        let (mut freed, mut unwritten) = (0, Vec::new());
        // The first round may only take chances away.
        for step in 0..3 * self.list.len() {
            if freed >= target {
                break;
            }
            if step == 2 * self.list.len()
                && let Some(full) = filling.take()
            {
                self.list[full].used.set(false);
            }
            self.hand = (self.hand + 1) % self.list.len();
            let chunk = &mut self.list[self.hand];
            if Some(self.hand) == *filling || chunk.held() == 0 || chunk.used.take() {
                continue;
            }
            freed += chunk.held();
            chunk.read.set(0);
            let data = chunk.data.take().unwrap_or_default();
            if chunk.place.is_none() {
                unwritten.push((self.hand, data));
            }
        }
        self.held.set(self.held.get() - freed);
        if unwritten.is_empty() {
            return Ok(());
        }
        let written = scratch.write(&unwritten);
        match written {
            Ok(places) => unwritten.into_iter().zip(places).for_each(|((at, _), place)| self.list[at].place = Some(place)),
            Err(e) => {
                for (at, data) in unwritten {
                    self.held.set(self.held.get() + data.capacity());
                    self.list[at].data = OnceCell::from(data);
                }
                return Err(e);
            }
        }
        Ok(())
    }
}
