//! A run: changes in key order in one file, written once and never changed.
//!
//! The file is a header, blocks of changes (length, CRC-32, changes) and an end block with their number, so that one that is
//! cut or flipped is refused. Removed ranges come before all keys; they remove what older runs hold, never what their own
//! run holds.
//!
//! Invariant: nothing of a block is seen before its checksum was found to hold.

use super::Write;
use super::batch::Kind;
use super::keyspace::damaged;
use crate::env::{FileWriter, Files};
use crate::error::{Error, Result};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const HEADER: &[u8; 8] = b"WWRUN\0\0\x01";
/// Bytes of a block's changes, more or less.
const BLOCK: usize = if cfg!(test) { 64 } else { 64 << 10 };
/// Length and checksum in front of a block.
const FRAME: usize = 8;
/// Bytes read from a file at a time.
const AHEAD: usize = 256 << 10;

/// A run as it lies on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    /// File name.
    pub(super) name: String,
    /// Bytes.
    pub(super) len: u64,
    /// CRC-32 of the whole file.
    pub(super) crc: u32,
}

/// Where blocks begin: first key, place in the file, length with frame.
pub(super) type Blocks = Vec<(Vec<u8>, u64, usize)>;

/// Writes a run.
pub(super) struct RunWriter {
    file: Box<dyn FileWriter>,
    path: PathBuf,
    block: Vec<u8>,
    first_key: Vec<u8>,
    blocks: Option<Blocks>,
    changes: u64,
    len: u64,
    crc: crc32fast::Hasher,
}

impl RunWriter {
    /// Begins the file. With `indexed` it notes where blocks begin.
    pub(super) fn create(files: &Arc<dyn Files>, path: &Path, indexed: bool) -> Result<Self> {
        let file = files.create(path).map_err(|e| failed(e, path))?;
        let (path, blocks) = (path.to_path_buf(), indexed.then(Vec::new));
        let (block, crc) = (Vec::with_capacity(BLOCK + BLOCK / 4), crc32fast::Hasher::new());
        let mut run = RunWriter { file, path, block, first_key: Vec::new(), blocks, changes: 0, len: 0, crc };
        run.raw(HEADER)?;
        Ok(run)
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.len += bytes.len() as u64;
        self.crc.update(bytes);
        self.file.write_all(bytes).map_err(|e| failed(e, &self.path))
    }

    /// Adds what comes next.
    pub(super) fn add(&mut self, write: Write<'_>) -> Result<()> {
        let (kind, first, second): (Kind, &[u8], &[u8]) = match write {
            Write::Put { key, value } => (Kind::Put, key, value),
            Write::Delete { key } => (Kind::Delete, key, &[]),
            Write::DeleteRange { from, to } => (Kind::Range, from, to),
        };
        if self.block.is_empty() {
            self.block.resize(FRAME, 0);
            if self.blocks.is_some() {
                self.first_key = first.to_vec();
            }
        }
        self.block.push(kind as u8);
        put_len(&mut self.block, first.len());
        put_len(&mut self.block, second.len());
        self.block.extend_from_slice(first);
        self.block.extend_from_slice(second);
        self.changes += 1;
        if self.block.len() >= BLOCK { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let mut block = std::mem::take(&mut self.block);
        let len = u32::try_from(block.len() - FRAME).map_err(|_| Error::fatal("a state entry exceeds 4 GiB"))?;
        let crc = crc32fast::hash(&block[FRAME..]);
        block[..4].copy_from_slice(&len.to_be_bytes());
        block[4..FRAME].copy_from_slice(&crc.to_be_bytes());
        if let Some(blocks) = &mut self.blocks {
            blocks.push((std::mem::take(&mut self.first_key), self.len, block.len()));
        }
        self.raw(&block)?;
        block.clear();
        self.block = block;
        Ok(())
    }

    /// Ends the file; nothing is synced. Also where its blocks begin, if that was asked for.
    pub(super) fn finish(mut self) -> Result<(Run, Blocks)> {
        self.flush()?;
        let count = self.changes.to_be_bytes();
        let mut end = [0; FRAME + 8];
        end[4..FRAME].copy_from_slice(&crc32fast::hash(&count).to_be_bytes());
        end[FRAME..].copy_from_slice(&count);
        self.raw(&end)?;
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((Run { name, len: self.len, crc: self.crc.finalize() }, self.blocks.unwrap_or_default()))
    }
}

/// The length of a part: 7 bits a byte, the highest says whether more follow.
fn put_len(out: &mut Vec<u8>, mut len: usize) {
    while len >= 0x80 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
}

/// Reads a run from its beginning to its end, change by change.
pub(super) struct RunReader {
    files: Arc<dyn Files>,
    path: PathBuf,
    /// Read already, from `taken` on not used yet; `next` is the place in the file behind what was used.
    ahead: Vec<u8>,
    taken: usize,
    next: u64,
    block: Vec<u8>,
    /// Where the next change begins in the block.
    at: usize,
    change: Option<(Kind, Range<usize>, Range<usize>)>,
    changes: u64,
}

impl RunReader {
    /// Opens a run before its first change.
    pub(super) fn open(files: &Arc<dyn Files>, path: &Path) -> Result<Self> {
        let mut run = Self::at(files, path, 0);
        if run.read(HEADER.len(), AHEAD)? != HEADER {
            return Err(Error::fatal("this is no run of state, or one of another version")
                .at(run.path.display().to_string())
                .help("run the version of the program that wrote it"));
        }
        Ok(run)
    }

    /// Reads one block that is known to begin at `at` and to have `len` bytes: its changes come next, and no others.
    pub(super) fn block(files: &Arc<dyn Files>, path: &Path, at: u64, len: usize) -> Result<Self> {
        let mut run = Self::at(files, path, at);
        run.next_block(len)?;
        Ok(run)
    }

    fn at(files: &Arc<dyn Files>, path: &Path, next: u64) -> Self {
        let (files, path, ahead) = (files.clone(), path.to_path_buf(), Vec::new());
        RunReader { files, path, ahead, taken: 0, next, block: Vec::new(), at: 0, change: None, changes: 0 }
    }

    /// The next `len` bytes; reads at least `ahead` from the file if it must read.
    fn read(&mut self, len: usize, ahead: usize) -> Result<&[u8]> {
        if self.ahead.len() - self.taken < len {
            self.ahead = self.files.read_at(&self.path, self.next, ahead.max(len)).map_err(|e| failed(e, &self.path))?;
            self.taken = 0;
        }
        if self.ahead.len() < len {
            return Err(self.damaged("it ends early"));
        }
        self.taken += len;
        self.next += len as u64;
        Ok(&self.ahead[self.taken - len..self.taken])
    }

    fn damaged(&self, what: &str) -> Error {
        damaged(what).at(self.path.display().to_string())
    }

    /// The next block; `false` after the last.
    fn next_block(&mut self, ahead: usize) -> Result<bool> {
        let frame = self.read(FRAME, ahead)?;
        let number = |bytes: &[u8]| bytes.iter().fold(0u32, |n, &b| (n << 8) | u32::from(b));
        let (len, crc) = (number(&frame[..4]) as usize, number(&frame[4..]));
        let mut block = std::mem::take(&mut self.block);
        block.clear();
        block.extend_from_slice(self.read(if len == 0 { 8 } else { len }, ahead)?);
        (self.block, self.at) = (block, 0);
        if crc32fast::hash(&self.block) != crc {
            return Err(self.damaged("a checksum does not hold"));
        }
        if len > 0 {
            return Ok(true);
        }
        let whole = self.block == self.changes.to_be_bytes();
        self.block.clear();
        let at_end = self.files.len(&self.path).map_err(|e| failed(e, &self.path))? == self.next;
        if whole && at_end { Ok(false) } else { Err(self.damaged("changes are missing or too many")) }
    }

    /// Goes to the next change; `false` at the end.
    pub(super) fn advance(&mut self) -> Result<bool> {
        self.change = None;
        if self.at == self.block.len() && !self.next_block(AHEAD)? {
            return Ok(false);
        }
        self.parse()?;
        Ok(true)
    }

    /// As `advance`, within the block.
    pub(super) fn advance_in_block(&mut self) -> Result<bool> {
        self.change = None;
        if self.at == self.block.len() {
            return Ok(false);
        }
        self.parse()?;
        Ok(true)
    }

    fn parse(&mut self) -> Result<()> {
        let kind = match self.block[self.at] {
            0 => Kind::Put,
            1 => Kind::Delete,
            2 => Kind::Range,
            _ => return Err(self.damaged("it has a change of no known kind")),
        };
        let mut at = self.at + 1;
        let (first, second) = (self.take_len(&mut at)?, self.take_len(&mut at)?);
        let parts = at.checked_add(first).and_then(|middle| Some((middle, middle.checked_add(second)?)));
        let Some((middle, end)) = parts.filter(|(_, end)| *end <= self.block.len()) else {
            return Err(self.damaged("a change is cut short"));
        };
        (self.change, self.at) = (Some((kind, at..middle, middle..end)), end);
        self.changes += 1;
        Ok(())
    }

    fn take_len(&self, at: &mut usize) -> Result<usize> {
        let (mut len, mut shift) = (0usize, 0);
        loop {
            let byte = *self.block.get(*at).ok_or_else(|| self.damaged("a length is cut short"))?;
            *at += 1;
            if shift > 42 {
                return Err(self.damaged("a length is absurd"));
            }
            len |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return Ok(len);
            }
        }
    }

    /// The change that the last `advance` went to.
    pub(super) fn change(&self) -> Option<Write<'_>> {
        let (kind, first, second) = self.change.as_ref()?;
        let (key, second) = (&self.block[first.clone()], &self.block[second.clone()]);
        Some(match kind {
            Kind::Put => Write::Put { key, value: second },
            Kind::Delete => Write::Delete { key },
            Kind::Range => Write::DeleteRange { from: key, to: second },
        })
    }

    /// Key of the present change; its first key if it is a range.
    pub(super) fn key(&self) -> Option<&[u8]> {
        self.change.as_ref().map(|(_, first, _)| &self.block[first.clone()])
    }
}

fn failed(e: std::io::Error, path: &Path) -> Error {
    Error::from(e).at(path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Env;
    use proptest::prelude::*;

    /// A run of these blocks, checksums right, that claims so many changes.
    fn sealed(blocks: &[Vec<u8>], changes: u64) -> Vec<u8> {
        let mut bytes = HEADER.to_vec();
        let mut frame = |len: usize, body: &[u8]| {
            bytes.extend_from_slice(&(len as u32).to_be_bytes());
            bytes.extend_from_slice(&crc32fast::hash(body).to_be_bytes());
            bytes.extend_from_slice(body);
        };
        blocks.iter().for_each(|block| frame(block.len(), block));
        frame(0, &changes.to_be_bytes());
        bytes
    }

    /// Reads it all: how many changes, or that it is damaged.
    fn changes(bytes: &[u8]) -> Result<u64> {
        let (env, dir) = (Env::real(), tempfile::tempdir().expect("a folder"));
        let path = dir.path().join("noise.run");
        env.files.create(&path).and_then(|mut file| file.write_all(bytes)).expect("written");
        let mut reader = RunReader::open(&env.files, &path)?;
        let mut n = 0;
        while reader.advance()? {
            let bytes = match reader.change() {
                Some(Write::Put { key, value }) => key.len() + value.len(),
                Some(Write::Delete { key }) => key.len(),
                Some(Write::DeleteRange { from, to }) => from.len() + to.len(),
                None => 0,
            };
            assert!(bytes <= reader.block.len());
            n += 1;
        }
        Ok(n)
    }

    proptest! {
        #[test]
        fn noise_behind_a_good_checksum_is_refused_or_understood(
            blocks in proptest::collection::vec(proptest::collection::vec(prop_oneof![0u8..6, any::<u8>()], 1..40), 0..4),
            claimed in 0u64..8,
        ) {
            if let Ok(n) = changes(&sealed(&blocks, claimed)) {
                prop_assert_eq!(n, claimed);
            }
        }

        #[test]
        fn any_flipped_bit_or_cut_is_found(key in proptest::collection::vec(any::<u8>(), 0..9), at: proptest::sample::Index, bit in 0u8..8) {
            let put = [&[0, key.len() as u8, 1][..], &key, &[7]].concat();
            let good = sealed(&[[put.clone(), put].concat()], 2);
            prop_assert_eq!(changes(&good).ok(), Some(2));
            let mut flipped = good.clone();
            flipped[at.index(good.len())] ^= 1 << bit;
            prop_assert!(changes(&flipped).is_err());
            prop_assert!(changes(&good[..at.index(good.len())]).is_err());
        }
    }
}
