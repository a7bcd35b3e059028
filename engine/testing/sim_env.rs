//! The simulated machine: virtual time, files that forget what was not synced, background work that runs when the seed says.
//!
//! Fault model: a crash drops memory and every byte and name that was not synced; of a file's unsynced tail a prefix of random
//! length may survive (a torn write). Folders are durable when made. Not modelled: misdirected and corrupted reads.
//!
//! Invariant: same seed, same calls, same answers.

use super::sim_calls::SimCalls;
use crate::env::{Background, Clock, Env, FileWriter, Files, Job, Rng};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// 2026-01-01T00:00:00Z: the wall time at which every simulation starts.
const WALL_START_MS: i64 = 1_767_225_600_000;

/// The machine behind a simulated [`Env`]; survives crashes of the processes on it.
#[derive(Clone)]
pub struct SimMachine {
    clock: Arc<SimClock>,
    files: Arc<SimFiles>,
    rng: Arc<SimRng>,
    background: Arc<SimBackground>,
    calls: Arc<SimCalls>,
}

impl SimMachine {
    /// A fresh machine whose every choice follows from `seed`.
    pub fn new(seed: u64) -> Self {
        let clock = Arc::<SimClock>::default();
        let calls = Arc::new(SimCalls::new(clock.clone()));
        SimMachine { clock, files: Arc::default(), rng: Arc::new(SimRng(Mutex::new(seed))), background: Arc::default(), calls }
    }

    /// The environment of a process on this machine.
    pub fn env(&self) -> Env {
        Env {
            clock: self.clock.clone(),
            files: self.files.clone(),
            rng: self.rng.clone(),
            background: self.background.clone(),
            calls: self.calls.clone(),
        }
    }

    /// An environment for the test itself, which looks at the machine from outside: background work is done at once.
    pub fn outside(&self) -> Env {
        Env { background: Arc::new(AtOnce), ..self.env() }
    }

    /// A number below `n`, from the seed.
    pub fn choose(&self, n: usize) -> usize {
        (self.rng.next_u64() % n.max(1) as u64) as usize
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        *lock(&self.clock.0) += by;
    }

    /// Runs one waiting background job, of a lane that the seed picks, or lets a call go on that the seed picks. `false` when
    /// neither got anywhere.
    pub fn run_background(&self) -> bool {
        let calls = self.calls.len();
        if calls > 0 && (!self.has_background() || self.choose(2) == 0) {
            return self.calls.poll(self.choose(calls));
        }
        let job = {
            let mut lanes = lock(&self.background.0);
            let waiting: Vec<String> = lanes.iter().filter(|(_, q)| !q.is_empty()).map(|(l, _)| l.clone()).collect();
            if waiting.is_empty() {
                return false;
            }
            let lane = &waiting[self.choose(waiting.len())];
            lanes.get_mut(lane).and_then(VecDeque::pop_front)
        };
        if let Some(job) = job {
            job();
        }
        true
    }

    /// Whether background jobs wait.
    pub fn has_background(&self) -> bool {
        lock(&self.background.0).values().any(|q| !q.is_empty())
    }

    /// The process dies: background jobs vanish, locks are free, unsynced bytes and names are gone.
    pub fn crash(&self) {
        lock(&self.background.0).clear();
        self.calls.clear();
        let mut disk = lock(&self.files.0);
        disk.names = disk.durable_names.clone();
        disk.locks.clear();
        for content in disk.contents.values() {
            let mut content = lock(content);
            let torn = content.live.len().saturating_sub(content.durable.len());
            let kept = self.choose(torn + 1);
            let appended = content.live.starts_with(&content.durable);
            let end = if appended { content.durable.len() + kept } else { content.durable.len() };
            content.live = if appended { content.live[..end].to_vec() } else { content.durable.clone() };
            content.durable = content.live.clone();
        }
    }

    /// From now on every file operation fails as if the disk were full (`true`), or works again (`false`).
    pub fn disk_full(&self, full: bool) {
        self.files.1.store(full, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct SimClock(Mutex<Duration>);

impl Clock for SimClock {
    fn monotonic(&self) -> Duration {
        *lock(&self.0)
    }
    fn wall_ms(&self) -> i64 {
        WALL_START_MS + lock(&self.0).as_millis() as i64
    }
}

/// SplitMix64: small, and every seed gives a full-period sequence.
struct SimRng(Mutex<u64>);

impl Rng for SimRng {
    fn next_u64(&self) -> u64 {
        let mut state = lock(&self.0);
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

struct AtOnce;

impl Background for AtOnce {
    fn run(&self, _lane: &str, job: Job) {
        job();
    }
}

#[derive(Default)]
struct SimBackground(Mutex<BTreeMap<String, VecDeque<Job>>>);

impl Background for SimBackground {
    fn run(&self, lane: &str, job: Job) {
        lock(&self.0).entry(lane.to_string()).or_default().push_back(job);
    }
}

#[derive(Default)]
struct SimFiles(Mutex<Disk>, Arc<AtomicBool>);

#[derive(Default)]
struct Disk {
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    contents: BTreeMap<u64, Arc<Mutex<Content>>>,
    folders: BTreeSet<PathBuf>,
    locks: BTreeMap<PathBuf, Arc<()>>,
    next: u64,
}

#[derive(Default)]
struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
}

impl Disk {
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
}

struct SimWriter(Arc<Mutex<Content>>, Arc<AtomicBool>);

impl FileWriter for SimWriter {
    fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        if self.1.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::StorageFull, "simulated disk is full"));
        }
        lock(&self.0).live.extend_from_slice(bytes);
        Ok(())
    }
    fn sync(&mut self) -> Result<()> {
        let mut content = lock(&self.0);
        content.durable = content.live.clone();
        Ok(())
    }
}

impl SimFiles {
    fn writer(&self, content: Arc<Mutex<Content>>) -> Box<dyn FileWriter> {
        Box::new(SimWriter(content, self.1.clone()))
    }

    fn room(&self) -> Result<()> {
        if self.1.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::StorageFull, "simulated disk is full"));
        }
        Ok(())
    }
}

impl Files for SimFiles {
    fn read(&self, path: &Path) -> Result<Vec<u8>> {
        let content = lock(&self.0).content(path)?;
        let bytes = lock(&content).live.clone();
        Ok(bytes)
    }

    fn read_at(&self, path: &Path, offset: u64, len: usize) -> Result<Vec<u8>> {
        let content = lock(&self.0).content(path)?;
        let content = lock(&content);
        let start = (offset as usize).min(content.live.len());
        let end = start.saturating_add(len).min(content.live.len());
        Ok(content.live[start..end].to_vec())
    }

    fn create(&self, path: &Path) -> Result<Box<dyn FileWriter>> {
        self.room()?;
        let mut disk = lock(&self.0);
        disk.parent_exists(path)?;
        disk.next += 1;
        let id = disk.next;
        let content: Arc<Mutex<Content>> = Arc::default();
        disk.contents.insert(id, content.clone());
        disk.names.insert(path.to_path_buf(), id);
        Ok(self.writer(content))
    }

    fn append(&self, path: &Path, keep: u64) -> Result<Box<dyn FileWriter>> {
        self.room()?;
        if lock(&self.0).content(path).is_err() {
            drop(self.create(path)?);
        }
        let content = lock(&self.0).content(path)?;
        lock(&content).live.resize(keep as usize, 0);
        Ok(self.writer(content))
    }

    fn len(&self, path: &Path) -> Result<u64> {
        let disk = lock(&self.0);
        if disk.folders.contains(path) {
            return Ok(0);
        }
        let content = disk.content(path)?;
        let len = lock(&content).live.len();
        Ok(len as u64)
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        let disk = lock(&self.0);
        if !disk.folders.contains(dir) {
            return Err(Error::new(ErrorKind::NotFound, dir.display().to_string()));
        }
        let names = disk.names.keys().chain(disk.folders.iter()).filter(|p| p.parent() == Some(dir));
        let mut names: Vec<String> = names.filter_map(|p| p.file_name()).map(|n| n.to_string_lossy().into_owned()).collect();
        names.sort();
        Ok(names)
    }

    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        let mut disk = lock(&self.0);
        for folder in dir.ancestors().filter(|a| !a.as_os_str().is_empty()) {
            disk.folders.insert(folder.to_path_buf());
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.room()?;
        let mut disk = lock(&self.0);
        disk.content(from)?;
        disk.parent_exists(to)?;
        if let Some(id) = disk.names.remove(from) {
            disk.names.insert(to.to_path_buf(), id);
        }
        Ok(())
    }

    fn link_exclusive(&self, from: &Path, to: &Path) -> Result<()> {
        self.room()?;
        let mut disk = lock(&self.0);
        disk.content(from)?;
        disk.parent_exists(to)?;
        if disk.names.contains_key(to) {
            return Err(Error::new(ErrorKind::AlreadyExists, to.display().to_string()));
        }
        let id = disk.names[from];
        disk.names.insert(to.to_path_buf(), id);
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let mut disk = lock(&self.0);
        disk.content(path)?;
        disk.names.remove(path);
        Ok(())
    }

    fn remove_dir_all(&self, dir: &Path) -> Result<()> {
        let mut disk = lock(&self.0);
        if !disk.folders.contains(dir) {
            return Err(Error::new(ErrorKind::NotFound, dir.display().to_string()));
        }
        disk.names.retain(|p, _| !p.starts_with(dir));
        disk.durable_names.retain(|p, _| !p.starts_with(dir));
        disk.folders.retain(|p| !p.starts_with(dir));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        let mut disk = lock(&self.0);
        let now: Vec<(PathBuf, u64)> = disk.names.iter().filter(|(p, _)| p.parent() == Some(dir)).map(|(p, id)| (p.clone(), *id)).collect();
        disk.durable_names.retain(|p, _| p.parent() != Some(dir));
        disk.durable_names.extend(now);
        Ok(())
    }

    fn lock(&self, path: &Path, note: &str) -> Result<Option<Box<dyn Send + Sync>>> {
        if lock(&self.0).content(path).is_err() {
            self.create(path)?.write_all(note.as_bytes())?;
        }
        let mut disk = lock(&self.0);
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

    #[test]
    fn a_crash_forgets_what_was_not_synced() {
        let machine = SimMachine::new(1);
        let files = machine.env().files;
        let dir = Path::new("d");
        files.create_dir_all(dir).unwrap();
        let mut named = files.create(&dir.join("synced")).unwrap();
        named.write_all(b"kept").unwrap();
        named.sync().unwrap();
        files.sync_dir(dir).unwrap();
        files.create(&dir.join("unsynced name")).unwrap().sync().unwrap();
        machine.crash();
        assert_eq!(files.read(&dir.join("synced")).unwrap(), b"kept");
        assert!(!files.exists(&dir.join("unsynced name")));
    }

    #[test]
    fn of_an_unsynced_tail_only_a_prefix_survives() {
        for seed in 0..20 {
            let machine = SimMachine::new(seed);
            let files = machine.env().files;
            files.create_dir_all(Path::new("d")).unwrap();
            let mut w = files.create(Path::new("d/f")).unwrap();
            w.write_all(b"ab").unwrap();
            w.sync().unwrap();
            files.sync_dir(Path::new("d")).unwrap();
            w.write_all(b"cdef").unwrap();
            machine.crash();
            let left = files.read(Path::new("d/f")).unwrap();
            assert!(left.len() >= 2 && b"abcdef".starts_with(&left));
        }
    }
}
