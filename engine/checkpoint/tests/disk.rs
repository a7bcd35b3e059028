//! A file system in memory that forgets what was not synced, and an environment on it.
//!
//! Invariant: after `power_off` a file has the content of its last sync, and a folder the names of its last sync.

use crate::env::{Background, Clock, Env, FileWriter, Files, Job, Rng};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// What happens at one call into the outside.
type Interruption = Box<dyn FnOnce() + Send>;

/// Counts every call into the outside, of files and topics alike, and can interrupt any of them.
#[derive(Clone, Default)]
pub(super) struct Calls(Arc<Mutex<Plan>>);

#[derive(Default)]
struct Plan {
    made: u64,
    crash_at: Option<u64>,
    down: bool,
    interrupt: Option<(u64, Interruption)>,
}

impl Calls {
    pub(super) fn made(&self) -> u64 {
        self.0.lock().unwrap().made
    }
    /// The process dies at that call: it and all later ones fail.
    pub(super) fn crash_at(&self, call: Option<u64>) {
        let mut plan = self.0.lock().unwrap();
        (plan.crash_at, plan.down) = (call, false);
    }
    pub(super) fn is_down(&self) -> bool {
        self.0.lock().unwrap().down
    }
    /// Before that call something else runs to its end: the caller is a process that was paused.
    pub(super) fn interrupt_at(&self, call: u64, what: Interruption) {
        self.0.lock().unwrap().interrupt = Some((call, what));
    }
    /// One call; `false` when the process is dead.
    pub(super) fn call(&self) -> bool {
        let mut plan = self.0.lock().unwrap();
        plan.made += 1;
        if plan.crash_at.is_some_and(|at| plan.made >= at) {
            plan.down = true;
        }
        let now = plan.made;
        let interruption = plan.interrupt.take_if(|(at, _)| *at == now);
        let alive = !plan.down;
        drop(plan);
        if let Some((_, run)) = interruption {
            run();
        }
        alive
    }
}

#[derive(Default)]
struct Content {
    inodes: Vec<(Vec<u8>, Vec<u8>)>,
    names: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    dirs: BTreeSet<PathBuf>,
}

#[derive(Clone, Default)]
pub(super) struct Disk {
    content: Arc<Mutex<Content>>,
    pub(super) calls: Calls,
    ids: Arc<AtomicU64>,
}

impl Disk {
    pub(super) fn env(&self) -> Env {
        Env {
            clock: Arc::new(Still),
            files: Arc::new(self.clone()),
            rng: Arc::new(self.clone()),
            background: Arc::new(Now),
            calls: Env::real().calls,
        }
    }

    pub(super) fn power_off(&self) {
        let mut content = self.content.lock().unwrap();
        let content = &mut *content;
        content.names = content.durable.clone();
        for (data, synced) in &mut content.inodes {
            data.clone_from(synced);
        }
    }

    /// Flips one bit of a file, behind everybody's back.
    pub(super) fn flip(&self, path: &Path, at: usize) {
        let mut content = self.content.lock().unwrap();
        let inode = content.names[path];
        content.inodes[inode].0[at] ^= 1;
    }

    fn content(&self) -> Result<MutexGuard<'_, Content>> {
        if self.calls.call() { Ok(self.content.lock().unwrap()) } else { Err(Error::other("the process is dead")) }
    }
}

impl Content {
    fn find(&self, path: &Path) -> Result<usize> {
        self.names.get(path).copied().ok_or_else(|| ErrorKind::NotFound.into())
    }
}

struct Writer {
    disk: Disk,
    inode: usize,
}

impl FileWriter for Writer {
    fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        self.disk.content()?.inodes[self.inode].0.extend_from_slice(bytes);
        Ok(())
    }
    fn sync(&mut self) -> Result<()> {
        let mut content = self.disk.content()?;
        let (data, synced) = &mut content.inodes[self.inode];
        synced.clone_from(data);
        Ok(())
    }
}

impl Files for Disk {
    fn read(&self, path: &Path) -> Result<Vec<u8>> {
        let content = self.content()?;
        Ok(content.inodes[content.find(path)?].0.clone())
    }
    fn read_at(&self, path: &Path, offset: u64, len: usize) -> Result<Vec<u8>> {
        let content = self.content()?;
        let data = &content.inodes[content.find(path)?].0;
        let from = (offset as usize).min(data.len());
        Ok(data[from..(from + len).min(data.len())].to_vec())
    }
    fn create(&self, path: &Path) -> Result<Box<dyn FileWriter>> {
        let mut content = self.content()?;
        if !content.dirs.contains(path.parent().unwrap()) {
            return Err(ErrorKind::NotFound.into());
        }
        let inode = content.inodes.len();
        content.inodes.push(Default::default());
        content.names.insert(path.into(), inode);
        Ok(Box::new(Writer { disk: self.clone(), inode }))
    }
    fn append(&self, path: &Path, keep: u64) -> Result<Box<dyn FileWriter>> {
        let mut content = self.content()?;
        let inode = content.find(path)?;
        content.inodes[inode].0.truncate(keep as usize);
        Ok(Box::new(Writer { disk: self.clone(), inode }))
    }
    fn len(&self, path: &Path) -> Result<u64> {
        let content = self.content()?;
        if content.dirs.contains(path) {
            return Ok(0);
        }
        Ok(content.inodes[content.find(path)?].0.len() as u64)
    }
    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        let content = self.content()?;
        if !content.dirs.contains(dir) {
            let kind = if content.names.contains_key(dir) { ErrorKind::NotADirectory } else { ErrorKind::NotFound };
            return Err(kind.into());
        }
        let children = content.names.keys().chain(&content.dirs).filter(|p| p.parent() == Some(dir));
        Ok(children.map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect())
    }
    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        let mut content = self.content()?;
        content.dirs.extend(dir.ancestors().map(Path::to_path_buf));
        Ok(())
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut content = self.content()?;
        let inode = content.find(from)?;
        content.names.remove(from);
        content.names.insert(to.into(), inode);
        Ok(())
    }
    fn link_exclusive(&self, from: &Path, to: &Path) -> Result<()> {
        let mut content = self.content()?;
        let inode = content.find(from)?;
        if content.names.contains_key(to) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        content.names.insert(to.into(), inode);
        Ok(())
    }
    fn remove(&self, path: &Path) -> Result<()> {
        let mut content = self.content()?;
        content.find(path)?;
        content.names.remove(path);
        Ok(())
    }
    fn remove_dir_all(&self, dir: &Path) -> Result<()> {
        let mut content = self.content()?;
        content.names.retain(|p, _| !p.starts_with(dir));
        content.dirs.retain(|p| !p.starts_with(dir));
        Ok(())
    }
    fn sync_dir(&self, dir: &Path) -> Result<()> {
        let mut content = self.content()?;
        let content = &mut *content;
        content.durable.retain(|p, _| p.parent() != Some(dir));
        content.durable.extend(content.names.iter().filter(|(p, _)| p.parent() == Some(dir)).map(|(p, i)| (p.clone(), *i)));
        Ok(())
    }
    fn lock(&self, _: &Path, _: &str) -> Result<Option<Box<dyn Send + Sync>>> {
        Ok(Some(Box::new(())))
    }
}

impl Rng for Disk {
    fn next_u64(&self) -> u64 {
        self.ids.fetch_add(1, SeqCst)
    }
}

struct Still;

impl Clock for Still {
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
    fn wall_ms(&self) -> i64 {
        1
    }
}

struct Now;

impl Background for Now {
    fn run(&self, _: &str, job: Job) {
        job();
    }
}
