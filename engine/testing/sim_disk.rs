//! The simulated disk: files that forget what was not synced, and every way a call on them can go wrong.
//!
//! Fault model. A power cut drops unsynced bytes (of an unsynced tail a prefix may survive, or its length with zeros in it)
//! and unsynced names (the oldest changes may survive, in order). Folders are durable when made. A failed sync loses what it
//! was to make durable, whatever later syncs say. Not modelled: writes that land in another file.
//!
//! Invariant: same seed, same calls, same answers; what was synced without an error is there after a power cut.

use super::SimMachine;
use super::sim_env::lock;
use crate::env::{FileWriter, Files};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Error, ErrorKind, Result};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What can go wrong with one call on a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFault {
    /// The call fails and changes nothing.
    Error,
    /// A write leaves a part of its bytes in the file and fails.
    ShortWrite,
    /// A sync fails, and what it was to make durable is lost for good.
    FailedSync,
    /// A link or a rename is done, but reported as failed.
    LostAnswer,
    /// A read gives one wrong bit.
    FlippedBit,
}

impl DiskFault {
    /// All of them.
    pub const ALL: [DiskFault; 5] =
        [DiskFault::Error, DiskFault::ShortWrite, DiskFault::FailedSync, DiskFault::LostAnswer, DiskFault::FlippedBit];

    /// For reports.
    pub fn name(self) -> &'static str {
        match self {
            DiskFault::Error => "IO error",
            DiskFault::ShortWrite => "short write",
            DiskFault::FailedSync => "failed sync",
            DiskFault::LostAnswer => "lost answer of the disk",
            DiskFault::FlippedBit => "flipped bit",
        }
    }
}

/// One change of names: path and what it names from then on. Parts of a change (a rename has two) come together.
type Change = Vec<(PathBuf, Option<u64>)>;

#[derive(Default)]
pub(super) struct Disk {
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    /// Changes of names not synced yet, oldest first.
    changes: Vec<Change>,
    contents: BTreeMap<u64, Arc<Mutex<Content>>>,
    folders: BTreeSet<PathBuf>,
    locks: BTreeMap<PathBuf, Arc<()>>,
    next: u64,
    pub(super) full_until: Duration,
}

#[derive(Default)]
struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// What failed syncs have lost: zeros on the disk.
    lost: Vec<Range<usize>>,
}

impl Content {
    fn sync(&mut self) {
        self.durable.clone_from(&self.live);
        for lost in &self.lost {
            let end = lost.end.min(self.durable.len());
            if lost.start < end {
                self.durable[lost.start..end].fill(0);
            }
        }
    }

    fn power_cut(&mut self, choose: &dyn Fn(usize) -> usize) {
        let tail = self.live.len().saturating_sub(self.durable.len());
        let (kept, zeros) = (choose(tail + 1), choose(4) == 0);
        let mut after = self.durable.clone();
        if self.live.starts_with(&self.durable) && self.lost.is_empty() {
            let end = after.len() + kept;
            after = self.live[..end].to_vec();
            if zeros {
                after.resize(self.live.len(), 0);
            }
        }
        (self.live, self.durable, self.lost) = (after.clone(), after, Vec::new());
    }
}

impl Disk {
    pub(super) fn power_cut(&mut self, choose: &dyn Fn(usize) -> usize) {
        let survive = choose(self.changes.len() + 1);
        for change in std::mem::take(&mut self.changes).into_iter().take(survive) {
            for (path, id) in change {
                match id {
                    Some(id) => self.durable_names.insert(path, id),
                    None => self.durable_names.remove(&path),
                };
            }
        }
        self.names = self.durable_names.clone();
        for path in self.names.keys() {
            self.folders.extend(path.ancestors().skip(1).filter(|a| !a.as_os_str().is_empty()).map(Path::to_path_buf));
        }
        self.locks.clear();
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        self.contents.retain(|id, _| named.contains(id));
        self.contents.values().for_each(|content| lock(content).power_cut(choose));
    }

    fn content(&self, path: &Path) -> Result<Arc<Mutex<Content>>> {
        let id = self.names.get(path).ok_or_else(|| Error::new(ErrorKind::NotFound, path.display().to_string()))?;
        Ok(self.contents[id].clone())
    }

    fn parent_exists(&self, path: &Path) -> Result<()> {
        match path.parent() {
            Some(p) if !p.as_os_str().is_empty() && !self.folders.contains(p) => {
                Err(Error::new(ErrorKind::NotFound, format!("folder {}", p.display())))
            }
            _ => Ok(()),
        }
    }

    fn change(&mut self, change: Change) {
        for (path, id) in &change {
            match id {
                Some(id) => self.names.insert(path.clone(), *id),
                None => self.names.remove(path),
            };
        }
        self.changes.push(change);
    }

    fn sync_dir(&mut self, dir: &Path) {
        for change in &mut self.changes {
            for (path, id) in change.extract_if(.., |(path, _)| path.parent() == Some(dir)) {
                match id {
                    Some(id) => self.durable_names.insert(path, id),
                    None => self.durable_names.remove(&path),
                };
            }
        }
        self.changes.retain(|change| !change.is_empty());
    }
}

/// The disk as one process sees it.
pub(super) struct SimFiles(SimMachine);

struct SimWriter(SimMachine, Arc<Mutex<Content>>);

impl SimFiles {
    pub(super) fn new(machine: SimMachine) -> Self {
        SimFiles(machine)
    }
}

/// One call into the outside, which may fail before it does anything.
fn enter(machine: &SimMachine, writes: bool) -> Result<()> {
    machine.call()?;
    if writes && machine.disk().full_until > machine.now() {
        machine.note("full disk");
        return Err(Error::new(ErrorKind::StorageFull, "simulated disk is full"));
    }
    match machine.meets(&[DiskFault::Error]) {
        Some(_) => Err(failure(machine)),
        None => Ok(()),
    }
}

/// An error that passes, or one that costs the task.
fn failure(machine: &SimMachine) -> Error {
    let kind = if machine.choose(2) == 0 { ErrorKind::TimedOut } else { ErrorKind::Other };
    Error::new(kind, "simulated failure of the disk")
}

/// The answer of a call that was done.
fn answer(machine: &SimMachine) -> Result<()> {
    match machine.meets(&[DiskFault::LostAnswer]) {
        Some(_) => Err(failure(machine)),
        None => Ok(()),
    }
}

fn flip(machine: &SimMachine, bytes: &mut [u8]) {
    if !bytes.is_empty() && machine.meets(&[DiskFault::FlippedBit]).is_some() {
        bytes[machine.choose(bytes.len())] ^= 1 << machine.choose(8);
    }
}

impl FileWriter for SimWriter {
    fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        let SimWriter(machine, content) = self;
        enter(machine, true)?;
        if machine.meets(&[DiskFault::ShortWrite]).is_some() {
            lock(content).live.extend_from_slice(&bytes[..machine.choose(bytes.len() + 1)]);
            return Err(failure(machine));
        }
        lock(content).live.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        let SimWriter(machine, content) = self;
        enter(machine, false)?;
        let mut content = lock(content);
        if machine.meets(&[DiskFault::FailedSync]).is_some() {
            let lost = content.durable.len()..content.live.len();
            // The pages count as written: sooner or later they leave memory, and what is read then is what the disk has.
            if machine.choose(2) == 0 {
                content.live[lost.clone()].fill(0);
            }
            content.lost.push(lost);
            return Err(failure(machine));
        }
        content.sync();
        Ok(())
    }
}

impl Files for SimFiles {
    fn read(&self, path: &Path) -> Result<Vec<u8>> {
        enter(&self.0, false)?;
        let content = self.0.disk().content(path)?;
        let mut bytes = lock(&content).live.clone();
        flip(&self.0, &mut bytes);
        Ok(bytes)
    }

    fn read_at(&self, path: &Path, offset: u64, len: usize) -> Result<Vec<u8>> {
        enter(&self.0, false)?;
        let content = self.0.disk().content(path)?;
        let content = lock(&content);
        let start = (offset as usize).min(content.live.len());
        let end = start.saturating_add(len).min(content.live.len());
        let mut bytes = content.live[start..end].to_vec();
        flip(&self.0, &mut bytes);
        Ok(bytes)
    }

    fn create(&self, path: &Path) -> Result<Box<dyn FileWriter>> {
        enter(&self.0, true)?;
        let mut disk = self.0.disk();
        disk.parent_exists(path)?;
        disk.next += 1;
        let id = disk.next;
        let content: Arc<Mutex<Content>> = Arc::default();
        disk.contents.insert(id, content.clone());
        disk.change(vec![(path.to_path_buf(), Some(id))]);
        Ok(Box::new(SimWriter(self.0.clone(), content)))
    }

    fn append(&self, path: &Path, keep: u64) -> Result<Box<dyn FileWriter>> {
        if self.0.disk().content(path).is_err() {
            drop(self.create(path)?);
        } else {
            enter(&self.0, true)?;
        }
        let content = self.0.disk().content(path)?;
        lock(&content).live.resize(keep as usize, 0);
        Ok(Box::new(SimWriter(self.0.clone(), content)))
    }

    fn len(&self, path: &Path) -> Result<u64> {
        enter(&self.0, false)?;
        let disk = self.0.disk();
        if disk.folders.contains(path) {
            return Ok(0);
        }
        let content = disk.content(path)?;
        let len = lock(&content).live.len();
        Ok(len as u64)
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        enter(&self.0, false)?;
        let disk = self.0.disk();
        if !disk.folders.contains(dir) {
            let kind = if disk.names.contains_key(dir) { ErrorKind::NotADirectory } else { ErrorKind::NotFound };
            return Err(Error::new(kind, dir.display().to_string()));
        }
        let names = disk.names.keys().chain(disk.folders.iter()).filter(|p| p.parent() == Some(dir));
        let mut names: Vec<String> = names.filter_map(|p| p.file_name()).map(|n| n.to_string_lossy().into_owned()).collect();
        names.sort();
        Ok(names)
    }

    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        enter(&self.0, false)?;
        let folders = dir.ancestors().filter(|a| !a.as_os_str().is_empty()).map(Path::to_path_buf);
        self.0.disk().folders.extend(folders);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        enter(&self.0, true)?;
        {
            let mut disk = self.0.disk();
            disk.content(from)?;
            disk.parent_exists(to)?;
            let id = disk.names[from];
            disk.change(vec![(from.to_path_buf(), None), (to.to_path_buf(), Some(id))]);
        }
        answer(&self.0)
    }

    fn link_exclusive(&self, from: &Path, to: &Path) -> Result<()> {
        enter(&self.0, true)?;
        {
            let mut disk = self.0.disk();
            disk.content(from)?;
            disk.parent_exists(to)?;
            if disk.names.contains_key(to) {
                return Err(Error::new(ErrorKind::AlreadyExists, to.display().to_string()));
            }
            let id = disk.names[from];
            disk.change(vec![(to.to_path_buf(), Some(id))]);
        }
        answer(&self.0)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        enter(&self.0, false)?;
        let mut disk = self.0.disk();
        disk.content(path)?;
        disk.change(vec![(path.to_path_buf(), None)]);
        Ok(())
    }

    fn remove_dir_all(&self, dir: &Path) -> Result<()> {
        enter(&self.0, false)?;
        let mut disk = self.0.disk();
        if !disk.folders.contains(dir) {
            return Err(Error::new(ErrorKind::NotFound, dir.display().to_string()));
        }
        let inside: Vec<PathBuf> = disk.names.keys().filter(|p| p.starts_with(dir)).cloned().collect();
        inside.into_iter().for_each(|path| disk.change(vec![(path, None)]));
        disk.folders.retain(|p| !p.starts_with(dir));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        enter(&self.0, false)?;
        self.0.disk().sync_dir(dir);
        Ok(())
    }

    fn lock(&self, path: &Path, note: &str) -> Result<Option<Box<dyn Send + Sync>>> {
        if self.0.disk().content(path).is_err() {
            self.create(path)?.write_all(note.as_bytes())?;
        }
        let mut disk = self.0.disk();
        if disk.locks.get(path).is_some_and(|held| Arc::strong_count(held) > 1) {
            return Ok(None);
        }
        let guard = Arc::new(());
        disk.locks.insert(path.to_path_buf(), guard.clone());
        Ok(Some(Box::new(guard)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(files: &dyn Files, path: &str, bytes: &[u8]) -> Box<dyn FileWriter> {
        let mut writer = files.create(Path::new(path)).unwrap();
        writer.write_all(bytes).unwrap();
        writer
    }

    #[test]
    fn a_crash_forgets_what_was_not_synced() {
        let mut forgot = 0;
        for seed in 0..20 {
            let machine = SimMachine::new(seed);
            let files = machine.env().files;
            files.create_dir_all(Path::new("d")).unwrap();
            write(&*files, "d/synced", b"kept").sync().unwrap();
            files.sync_dir(Path::new("d")).unwrap();
            write(&*files, "d/unsynced", b"name").sync().unwrap();
            files.rename(Path::new("d/unsynced"), Path::new("d/renamed")).unwrap();
            machine.crash();
            assert_eq!(files.read(Path::new("d/synced")).unwrap(), b"kept");
            let (old, new) = (files.exists(Path::new("d/unsynced")).unwrap(), files.exists(Path::new("d/renamed")).unwrap());
            assert!(!(old && new), "a rename is one change");
            forgot += u32::from(!old && !new);
        }
        assert!(forgot > 0 && forgot < 20, "{forgot}");
    }

    #[test]
    fn of_an_unsynced_tail_only_a_prefix_survives_or_its_length() {
        for seed in 0..50 {
            let machine = SimMachine::new(seed);
            let files = machine.env().files;
            files.create_dir_all(Path::new("d")).unwrap();
            let mut w = write(&*files, "d/f", b"ab");
            w.sync().unwrap();
            files.sync_dir(Path::new("d")).unwrap();
            w.write_all(b"cdef").unwrap();
            machine.crash();
            let left = files.read(Path::new("d/f")).unwrap();
            let kept = left.iter().position(|&b| b == 0).unwrap_or(left.len());
            assert!(kept >= 2 && b"abcdef".starts_with(&left[..kept]) && left[kept..].iter().all(|&b| b == 0), "{left:?}");
        }
    }

    #[test]
    fn a_failed_sync_loses_its_bytes_at_once_or_later_whatever_the_next_one_says() {
        let mut later = 0;
        for seed in 0..10 {
            let machine = SimMachine::new(seed);
            let files = machine.env().files;
            files.create_dir_all(Path::new("d")).unwrap();
            let mut w = write(&*files, "d/f", b"ab");
            files.sync_dir(Path::new("d")).unwrap();
            machine.arm(0, DiskFault::FailedSync);
            assert!(w.sync().is_err());
            w.write_all(b"cd").unwrap();
            w.sync().unwrap();
            later += u32::from(files.read(Path::new("d/f")).unwrap() == b"abcd");
            machine.crash();
            assert_eq!(files.read(Path::new("d/f")).unwrap(), b"\0\0cd");
        }
        assert!((1..10).contains(&later), "{later} of 10");
    }

    #[test]
    fn a_lost_answer_is_a_link_that_is_there() {
        let machine = SimMachine::new(4);
        let files = machine.env().files;
        files.create_dir_all(Path::new("d")).unwrap();
        write(&*files, "d/a", b"x").sync().unwrap();
        machine.arm(0, DiskFault::LostAnswer);
        assert!(files.link_exclusive(Path::new("d/a"), Path::new("d/b")).is_err());
        assert!(files.exists(Path::new("d/b")).unwrap());
        assert_eq!(machine.faults_met().get("lost answer of the disk"), Some(&1));
    }
}
