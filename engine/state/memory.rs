//! The ordered map as a store: for tests, simulation and small jobs; the model that RocksDB is compared with.
//!
//! Invariant: a snapshot is one run of everything there is.

use super::keyspace::{PREFIX, group_range};
use super::run::{Run, RunReader, RunWriter};
use super::{RestoredSnapshot, StateFile, StateStore, StateStores, Visit, VisitFound, Write, WriteBatch};
use crate::env::{Bug, Env, Files, planted};
use crate::error::{Error, Result};
use crate::record::KeyGroup;
use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

const FILE: &str = "map.state";

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

    fn multi_get(&self, keys: &[&[u8]], visit: VisitFound<'_>) -> Result<()> {
        let content = self.read();
        keys.iter().enumerate().try_for_each(|(at, &key)| content.map.get(key).map_or(Ok(()), |value| visit(at, value)))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()> {
        if from >= to {
            return Ok(());
        }
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        self.read().map.range::<[u8], _>(bounds).try_for_each(|(key, value)| visit(key, value))
    }

    fn write(&self, batch: &WriteBatch) -> Result<()> {
        let map = &mut self.change().map;
        for write in batch.iter() {
            match write {
                Write::Put { key, value } => drop(map.insert(key.to_vec(), value.to_vec())),
                Write::Delete { key } => drop(map.remove(key)),
                Write::DeleteRange { from, to } => {
                    // Cuts the range out of the map without visiting the rest.
                    let mut tail = map.split_off(from);
                    if from < to {
                        tail = tail.split_off(to);
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
        let mut out = RunWriter::create(files, &dir.join(FILE), false)?;
        for (key, value) in &self.read().map {
            out.add(Write::Put { key, value })?;
        }
        let (Run { name, len, crc }, _) = out.finish()?;
        Ok(vec![StateFile { name, len, crc, immutable: false }])
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

impl StateStores for MemoryStores {
    fn create(&self, _dir: &Path) -> Result<Arc<dyn StateStore>> {
        Ok(Arc::new(MemoryStore { content: RwLock::default(), files: Some(self.env.files.clone()) }))
    }

    fn restore(&self, _dir: &Path, snapshots: &[RestoredSnapshot], groups: Range<KeyGroup>) -> Result<Arc<dyn StateStore>> {
        let mut content = Content::default();
        for snapshot in snapshots {
            let end = groups.end - u16::from(planted(Bug::ForgetLastGroup) && snapshots.len() > 1);
            let wanted = snapshot.groups.start.max(groups.start)..snapshot.groups.end.min(end);
            let (from, to) = group_range(&wanted);
            let mut run = RunReader::open(&self.env.files, &snapshot.dir.join(FILE))?;
            while run.advance()? {
                if let Some(Write::Put { key, value }) = run.change()
                    && key >= &from[..]
                    && key < &to[..]
                {
                    content.map.insert(key.to_vec(), value.to_vec());
                }
            }
        }
        Ok(Arc::new(MemoryStore { content: RwLock::new(content), files: Some(self.env.files.clone()) }))
    }
}
