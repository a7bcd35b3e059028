//! The ordered map as a store: for tests, simulation and small jobs; the model that RocksDB is compared with.
//!
//! Invariant: a snapshot is one file of checksummed blocks between a header and an end block with the number of entries, so
//! a cut or flipped file is refused.

use super::keyspace::{PREFIX, damaged, group_range};
use super::{RestoredSnapshot, StateFile, StateStore, StateStores, Visit, Write, WriteBatch};
use crate::env::{Env, FileWriter, Files};
use crate::error::{Error, Result};
use crate::record::KeyGroup;
use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

const FILE: &str = "map.state";
const HEADER: &[u8; 8] = b"WWMAP\0\0\x01";
const BLOCK: usize = 64 << 10;

/// Content, and up to which value tables have expired.
#[derive(Default)]
struct Content {
    map: BTreeMap<Vec<u8>, Vec<u8>>,
    expired: BTreeMap<u32, [u8; 8]>,
}

/// One map. Stand-alone it lives without files; [`MemoryStores`] gives it the files its checkpoints need.
#[derive(Default)]
pub struct MemoryStore {
    content: RwLock<Content>,
    files: Option<Arc<dyn Files>>,
}

/// Makes [`MemoryStore`]s whose snapshots are written through `env`.
#[derive(Clone)]
pub struct MemoryStores {
    env: Env,
}

impl MemoryStores {
    /// Over the files of `env`.
    pub fn new(env: Env) -> Self {
        MemoryStores { env }
    }
}

impl MemoryStore {
    fn read(&self) -> RwLockReadGuard<'_, Content> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, Content> {
        self.content.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateStore for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.read().map.get(key).cloned())
    }

    fn multi_get(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>> {
        let content = self.read();
        Ok(keys.iter().map(|key| content.map.get(key).cloned()).collect())
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()> {
        if from >= to {
            return Ok(());
        }
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        self.read().map.range::<[u8], _>(bounds).try_for_each(|(key, value)| visit(key, value))
    }

    fn write(&self, batch: WriteBatch) -> Result<()> {
        let map = &mut self.change().map;
        for write in batch.writes {
            match write {
                Write::Put { key, value } => drop(map.insert(key, value)),
                Write::Delete { key } => drop(map.remove(&key)),
                Write::DeleteRange { from, to } => {
                    // Cuts the range out of the map without visiting the rest.
                    let mut tail = map.split_off(&from);
                    if from < to {
                        tail = tail.split_off(&to);
                    }
                    map.append(&mut tail);
                }
            }
        }
        Ok(())
    }

    fn checkpoint(&self, dir: &Path) -> Result<Vec<StateFile>> {
        let Some(files) = &self.files else {
            return Err(Error::fatal("this store lives without files and cannot be checkpointed").help("make it with MemoryStores"));
        };
        self.compact();
        files.create_dir_all(dir)?;
        let mut out = Blocks::new(files.create(&dir.join(FILE))?)?;
        let content = self.read();
        for (key, value) in &content.map {
            out.entry(key, value)?;
        }
        drop(content);
        let (len, crc) = out.finish()?;
        files.sync_dir(dir)?;
        Ok(vec![StateFile { name: FILE.to_string(), len, crc, immutable: false }])
    }

    fn expire(&self, table: u32, before: [u8; 8]) {
        self.change().expired.insert(table, before);
    }
}

impl MemoryStore {
    /// Drops values that are over.
    pub(super) fn compact(&self) {
        let Content { map, expired } = &mut *self.change();
        if expired.is_empty() {
            return;
        }
        map.retain(|key, value| {
            let over = |before: &[u8; 8]| value.get(..8).is_some_and(|time| time < &before[..]);
            !table_of(key).and_then(|table| expired.get(&table)).is_some_and(over)
        });
    }
}

/// The table in a full key.
pub(super) fn table_of(key: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(key.get(2..PREFIX)?.try_into().ok()?))
}

/// Writes a snapshot: header, then blocks of length | crc | entries; the last one, of length 0 in place of entries, counts.
struct Blocks {
    file: Box<dyn FileWriter>,
    block: Vec<u8>,
    entries: u64,
    len: u64,
    crc: crc32fast::Hasher,
}

impl Blocks {
    fn new(file: Box<dyn FileWriter>) -> Result<Self> {
        let mut out = Blocks { file, block: Vec::new(), entries: 0, len: 0, crc: crc32fast::Hasher::new() };
        out.raw(HEADER)?;
        Ok(out)
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.len += bytes.len() as u64;
        self.crc.update(bytes);
        Ok(self.file.write_all(bytes)?)
    }

    fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        for part in [key, value] {
            let len = u32::try_from(part.len()).map_err(|_| Error::fatal("a state entry exceeds 4 GiB"))?;
            self.block.extend_from_slice(&len.to_be_bytes());
            self.block.extend_from_slice(part);
        }
        self.entries += 1;
        if self.block.len() < BLOCK {
            return Ok(());
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        let block = std::mem::take(&mut self.block);
        if !block.is_empty() {
            self.raw(&(block.len() as u64).to_be_bytes())?;
            self.raw(&crc32fast::hash(&block).to_be_bytes())?;
            self.raw(&block)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(u64, u32)> {
        self.flush()?;
        let count = self.entries.to_be_bytes();
        self.raw(&0u64.to_be_bytes())?;
        self.raw(&crc32fast::hash(&count).to_be_bytes())?;
        self.raw(&count)?;
        self.file.sync()?;
        Ok((self.len, self.crc.finalize()))
    }
}

fn take<'a>(bytes: &mut &'a [u8], len: u64) -> Result<&'a [u8]> {
    let len = usize::try_from(len).map_err(|_| damaged("a length is absurd"))?;
    let (head, rest) = bytes.split_at_checked(len).ok_or_else(|| damaged("the snapshot ends early"))?;
    *bytes = rest;
    Ok(head)
}

fn number<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N]> {
    let mut out = [0; N];
    out.copy_from_slice(take(bytes, N as u64)?);
    Ok(out)
}

/// Reads a snapshot back.
fn read_blocks(mut bytes: &[u8], entry: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
    if take(&mut bytes, HEADER.len() as u64)? != HEADER {
        return Err(Error::fatal("this is no state snapshot of the memory store, or one of another version")
            .help("restore with the state backend that wrote it"));
    }
    let mut entries = 0;
    loop {
        let len = u64::from_be_bytes(number(&mut bytes)?);
        let crc = u32::from_be_bytes(number(&mut bytes)?);
        let mut block = take(&mut bytes, if len == 0 { 8 } else { len })?;
        if crc32fast::hash(block) != crc {
            return Err(damaged("a checksum does not hold"));
        }
        if len == 0 {
            let counted = u64::from_be_bytes(number(&mut block)?) == entries;
            return if counted && bytes.is_empty() { Ok(()) } else { Err(damaged("entries are missing or too many")) };
        }
        while !block.is_empty() {
            let len = u32::from_be_bytes(number(&mut block)?);
            let key = take(&mut block, u64::from(len))?;
            let len = u32::from_be_bytes(number(&mut block)?);
            entry(key, take(&mut block, u64::from(len))?);
            entries += 1;
        }
    }
}

impl StateStores for MemoryStores {
    fn create(&self, _dir: &Path) -> Result<Arc<dyn StateStore>> {
        Ok(Arc::new(MemoryStore { content: RwLock::default(), files: Some(self.env.files.clone()) }))
    }

    fn restore(&self, _dir: &Path, snapshots: &[RestoredSnapshot], groups: Range<KeyGroup>) -> Result<Arc<dyn StateStore>> {
        let mut content = Content::default();
        for snapshot in snapshots {
            let wanted = snapshot.groups.start.max(groups.start)..snapshot.groups.end.min(groups.end);
            let (from, to) = group_range(&wanted);
            let path = snapshot.dir.join(FILE);
            let bytes = self.env.files.read(&path).map_err(|e| Error::from(e).at(path.display().to_string()))?;
            read_blocks(&bytes, &mut |key, value| {
                if key >= &from[..] && key < &to[..] {
                    content.map.insert(key.to_vec(), value.to_vec());
                }
            })
            .map_err(|e| e.at(path.display().to_string()))?;
        }
        Ok(Arc::new(MemoryStore { content: RwLock::new(content), files: Some(self.env.files.clone()) }))
    }
}
