//! A store whose snapshots share files, as RocksDB's do: sorted runs that never change, merged now and then.
//!
//! What it is for: files that several checkpoints name, that are uploaded once, linked into place at a restore, and must go
//! with the last checkpoint that needs them. The ordered map of [`crate::state`] has one file a snapshot and shares nothing.
//!
//! Invariant: a run's name is never used for another content while its store lives; whatever is read back was checked.

use super::sim_env::lock;
use crate::env::{Env, Files};
use crate::error::{Error, Result};
use crate::record::KeyGroup;
use crate::state::{RestoredSnapshot, StateFile, StateStore, StateStores, Visit, VisitFound, Write, WriteBatch};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::ops::{Bound, Range};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Names the runs of a snapshot.
const CURRENT: &str = "CURRENT";
/// Runs that are merged into one.
const RUNS: usize = 4;

/// Makes stores of runs.
pub(super) struct SimStores(pub(super) Env);

type Map = BTreeMap<Vec<u8>, Vec<u8>>;
/// Changes since a run, a removal being `None`.
type Run = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

#[derive(Default)]
struct Content {
    map: Map,
    /// Keys changed since the last run.
    changed: BTreeSet<Vec<u8>>,
    runs: Vec<StateFile>,
    next: u64,
    /// Up to which value tables have expired.
    expired: BTreeMap<u32, [u8; 8]>,
}

struct SimStore {
    files: Arc<dyn Files>,
    dir: PathBuf,
    content: Mutex<Content>,
}

impl SimStore {
    /// Changes, or all of it, become a run.
    fn add_run(&self, content: &mut Content) -> Result<()> {
        let whole = content.runs.len() >= RUNS;
        if whole {
            let Content { map, expired, .. } = content;
            let over = |key: &[u8], value: &[u8]| {
                let table = key.get(2..6).and_then(|t| t.try_into().ok()).map(u32::from_be_bytes);
                table.and_then(|t| expired.get(&t)).is_some_and(|before| value.get(..8).is_some_and(|time| time < &before[..]))
            };
            map.retain(|key, value| !over(key, value));
        }
        let run: Run = if whole {
            content.map.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect()
        } else {
            content.changed.iter().map(|key| (key.clone(), content.map.get(key).cloned())).collect()
        };
        if run.is_empty() && !whole {
            return Ok(());
        }
        let name = format!("{:06}.run", content.next);
        let file = write(&*self.files, &self.dir, &name, &run, true)?;
        content.next += 1;
        if whole {
            content.runs.clear();
        }
        content.runs.push(file);
        content.changed.clear();
        Ok(())
    }
}

fn write<T: serde::Serialize>(files: &dyn Files, dir: &Path, name: &str, value: &T, immutable: bool) -> Result<StateFile> {
    let body = postcard::to_allocvec(value).map_err(|e| Error::fatal(format!("a run cannot be written: {e}")))?;
    let bytes = [&crc32fast::hash(&body).to_le_bytes()[..], &body].concat();
    let mut file = files.create(&dir.join(name))?;
    file.write_all(&bytes)?;
    file.sync()?;
    files.sync_dir(dir)?;
    Ok(StateFile { name: name.into(), len: bytes.len() as u64, crc: crc32fast::hash(&bytes), immutable })
}

fn read<T: serde::de::DeserializeOwned>(files: &dyn Files, path: &Path) -> Result<T> {
    let damaged = || Error::fatal(format!("{} is damaged", path.display()));
    let bytes = files.read(path)?;
    let (crc, body) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return Err(damaged());
    }
    postcard::from_bytes(body).map_err(|_| damaged())
}

impl StateStore for SimStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(lock(&self.content).map.get(key).cloned())
    }

    fn multi_get(&self, keys: &[&[u8]], visit: VisitFound<'_>) -> Result<()> {
        let content = lock(&self.content);
        keys.iter().enumerate().filter_map(|(at, key)| Some((at, content.map.get(*key)?))).try_for_each(|(at, value)| visit(at, value))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()> {
        if from >= to {
            return Ok(());
        }
        let content = lock(&self.content);
        content.map.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to))).try_for_each(|(key, value)| visit(key, value))
    }

    fn write(&self, batch: &WriteBatch) -> Result<()> {
        let content = &mut *lock(&self.content);
        for write in batch.iter() {
            match write {
                Write::Put { key, value } => {
                    content.changed.insert(key.to_vec());
                    content.map.insert(key.to_vec(), value.to_vec());
                }
                Write::Delete { key } => {
                    content.map.remove(key);
                    content.changed.insert(key.to_vec());
                }
                Write::DeleteRange { from, to } if from < to => {
                    let inside: Vec<Vec<u8>> =
                        content.map.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to))).map(|(key, _)| key.clone()).collect();
                    for key in inside {
                        content.map.remove(&key);
                        content.changed.insert(key);
                    }
                }
                Write::DeleteRange { .. } => {}
            }
        }
        Ok(())
    }

    fn checkpoint(&self, dir: &Path) -> Result<Vec<StateFile>> {
        let content = &mut *lock(&self.content);
        self.add_run(content)?;
        self.files.create_dir_all(dir)?;
        for run in &content.runs {
            self.files.link_exclusive(&self.dir.join(&run.name), &dir.join(&run.name))?;
        }
        let current = write(&*self.files, dir, CURRENT, &(content.next, &content.runs), false)?;
        Ok(content.runs.iter().cloned().chain([current]).collect())
    }

    fn expire(&self, table: u32, before: [u8; 8]) {
        lock(&self.content).expired.insert(table, before);
    }
}

impl StateStores for SimStores {
    fn create(&self, dir: &Path) -> Result<Arc<dyn StateStore>> {
        let files = self.0.files.clone();
        match files.remove_dir_all(dir) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
        files.create_dir_all(dir)?;
        Ok(Arc::new(SimStore { files, dir: dir.to_path_buf(), content: Mutex::default() }))
    }

    fn restore(&self, dir: &Path, snapshots: &[RestoredSnapshot], groups: Range<KeyGroup>) -> Result<Arc<dyn StateStore>> {
        self.create(dir)?;
        let files = self.0.files.clone();
        let mut content = Content::default();
        for snapshot in snapshots {
            let (next, runs): (u64, Vec<StateFile>) = read(&*files, &snapshot.dir.join(CURRENT))?;
            let mut map = Map::new();
            for run in &runs {
                for (key, value) in read::<Run>(&*files, &snapshot.dir.join(&run.name))? {
                    match value {
                        Some(value) => map.insert(key, value),
                        None => map.remove(&key),
                    };
                }
            }
            if let [one] = snapshots
                && one.groups == groups
            {
                for run in &runs {
                    files.link_exclusive(&one.dir.join(&run.name), &dir.join(&run.name))?;
                }
                (content.map, content.runs, content.next) = (map, runs, next);
                break;
            }
            let end = groups.end - u16::from(crate::env::planted(crate::env::Bug::ForgetLastGroup));
            let wanted = snapshot.groups.start.max(groups.start)..snapshot.groups.end.min(end);
            let inside = |key: &Vec<u8>| key.get(..2).is_some_and(|g| wanted.contains(&u16::from_be_bytes([g[0], g[1]])));
            map.retain(|key, _| inside(key));
            content.changed.extend(map.keys().cloned());
            content.map.append(&mut map);
        }
        Ok(Arc::new(SimStore { files, dir: dir.to_path_buf(), content: Mutex::new(content) }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::SimMachine;
    use super::*;

    #[test]
    fn runs_are_shared_and_merged_and_come_back_cut_to_their_groups() {
        let machine = SimMachine::new(1);
        let stores = SimStores(machine.outside());
        let store = stores.create(Path::new("live")).unwrap();
        let mut names = Vec::new();
        for n in 0..10u8 {
            let mut batch = WriteBatch::default();
            batch.put(vec![0, n, 0, 0, 0, 0, n], vec![n]);
            batch.delete(vec![0, n / 2, 0, 0, 0, 0, n / 2]);
            store.write(&batch).unwrap();
            let dir = PathBuf::from(format!("snapshot-{n}"));
            names.push(store.checkpoint(&dir).unwrap());
        }
        assert!(names.windows(2).any(|pair| pair[1].contains(&pair[0][0])), "runs are shared");
        assert!(names.iter().all(|files| files.len() <= RUNS + 1), "runs are merged");
        let snapshot = RestoredSnapshot { dir: "snapshot-9".into(), groups: 0..16 };
        for (groups, expected) in [(0..16, 5), (6..8, 2)] {
            let restored = stores.restore(Path::new("again"), std::slice::from_ref(&snapshot), groups).unwrap();
            let mut found = 0;
            let mut count = |_: &[u8], _: &[u8]| {
                found += 1;
                Ok(())
            };
            restored.scan(&[0], &[1], &mut count).unwrap();
            assert_eq!(found, expected);
        }
    }
}
