//! A disk in memory that can fail, and lose what was not synced.
//!
//! Invariant: after a power loss only synced bytes and synced names are sure to be there; how much of the rest is there is the
//! test's choice. A dead disk answers every call with an error: the process that used it is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use waterwheel_engine::env::{Background, Env, FileWriter, Files, Job, Rng};

/// When the process dies, relative to the operation at which it does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Moment {
    Before,
    Inside,
    After,
}

/// What remains.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Loss {
    /// The process was killed: the system keeps everything.
    Process,
    /// Power failed: names that were not synced are gone; so many unsynced bytes of each file remain.
    Power { kept: usize },
    /// Power failed, and by chance every name was on the disk already, but no unsynced byte.
    PowerButNames,
    /// Power failed, and of what happened to names only the removals were on the disk already.
    PowerAndRemovals,
}

#[derive(Clone, Default)]
struct Inode {
    bytes: Vec<u8>,
    synced: usize,
}

#[derive(Clone, Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    folders: BTreeSet<PathBuf>,
    durable_names: BTreeMap<PathBuf, usize>,
    durable_folders: BTreeSet<PathBuf>,
    operations: u64,
    fail: Option<(u64, Moment)>,
    dead: bool,
}

type Hook = Box<dyn FnOnce() + Send>;

/// The disk; clones share it.
#[derive(Clone, Default)]
pub(super) struct Disk {
    state: Arc<Mutex<State>>,
    /// Runs once, just before the operation of that number, while its caller is stopped.
    hook: Arc<Mutex<Option<(u64, Hook)>>>,
}

impl Disk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// An environment on this disk; background work runs at once.
    pub(super) fn env(&self, seed: u64) -> Env {
        Env { files: Arc::new(self.clone()), background: Arc::new(AtOnce), rng: Arc::new(Counter(Mutex::new(seed << 32))), ..Env::real() }
    }

    /// Dies at operation `n` from now.
    pub(super) fn fail_at(&self, n: u64, moment: Moment) {
        let mut state = self.state();
        state.operations = 0;
        state.fail = Some((n, moment));
    }

    /// Runs `hook` just before operation `n` from now.
    pub(super) fn stop_at(&self, n: u64, hook: Hook) {
        self.state().operations = 0;
        *self.hook.lock().unwrap() = Some((n, hook));
    }

    /// Whether the hook has not run.
    pub(super) fn hook_is_waiting(&self) -> bool {
        self.hook.lock().unwrap().is_some()
    }

    pub(super) fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// The disk as the next process finds it.
    pub(super) fn after(&self, loss: Loss) -> Disk {
        let mut state = self.state().clone();
        (state.fail, state.dead) = (None, false);
        if matches!(loss, Loss::Power { .. } | Loss::PowerAndRemovals) {
            let live = std::mem::take(&mut state.names);
            let kept = |path: &PathBuf| loss != Loss::PowerAndRemovals || live.contains_key(path);
            let folders = state.durable_folders.clone();
            let reachable = |path: &Path| path.ancestors().skip(1).filter(|a| !a.as_os_str().is_empty()).all(|a| folders.contains(a));
            state.names = state.durable_names.clone().into_iter().filter(|(path, _)| reachable(path) && kept(path)).collect();
            state.folders = folders.iter().filter(|path| reachable(path)).cloned().collect();
        }
        let kept = if let Loss::Power { kept } = loss { kept } else { 0 };
        if loss != Loss::Process {
            for inode in &mut state.inodes {
                inode.bytes.truncate(inode.synced.saturating_add(kept));
            }
        }
        Disk { state: Arc::new(Mutex::new(state)), hook: Arc::default() }
    }

    /// Every file, for planting damage.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.state().names.keys().cloned().collect()
    }

    /// Counts an operation that changes the disk, and runs it as far as the fault allows.
    fn change<T>(&self, inside: impl FnOnce(&mut State), whole: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let due = self.hook.lock().unwrap().take_if(|(n, _)| *n <= self.state().operations);
        if let Some((_, hook)) = due {
            hook();
        }
        let mut state = self.state();
        alive(&state)?;
        let now = state.operations;
        state.operations += 1;
        match state.fail {
            Some((at, moment)) if at == now => {
                state.dead = true;
                match moment {
                    Moment::Before => {}
                    Moment::Inside => inside(&mut state),
                    Moment::After => drop(whole(&mut state)),
                }
                Err(Error::other("the process died here"))
            }
            _ => whole(&mut state),
        }
    }
}

fn alive(state: &State) -> Result<()> {
    if state.dead { Err(Error::other("the process is dead")) } else { Ok(()) }
}

fn parent_is_there(state: &State, path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() && !state.folders.contains(parent) => Err(ErrorKind::NotFound.into()),
        _ => Ok(()),
    }
}

struct Writer {
    disk: Disk,
    inode: usize,
}

impl FileWriter for Writer {
    fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        let half = &bytes[..bytes.len() / 2];
        let inode = self.inode;
        self.disk.change(
            |s| s.inodes[inode].bytes.extend_from_slice(half),
            |s| {
                s.inodes[inode].bytes.extend_from_slice(bytes);
                Ok(())
            },
        )
    }

    fn sync(&mut self) -> Result<()> {
        let inode = self.inode;
        self.disk.change(
            |s| s.inodes[inode].synced = (s.inodes[inode].synced + s.inodes[inode].bytes.len()) / 2,
            |s| {
                s.inodes[inode].synced = s.inodes[inode].bytes.len();
                Ok(())
            },
        )
    }
}

impl Files for Disk {
    fn read(&self, path: &Path) -> Result<Vec<u8>> {
        self.read_at(path, 0, usize::MAX)
    }

    fn read_at(&self, path: &Path, offset: u64, len: usize) -> Result<Vec<u8>> {
        let state = self.state();
        alive(&state)?;
        let inode = *state.names.get(path).ok_or(ErrorKind::NotFound)?;
        let bytes = &state.inodes[inode].bytes;
        let from = (offset as usize).min(bytes.len());
        Ok(bytes[from..from.saturating_add(len).min(bytes.len())].to_vec())
    }

    fn create(&self, path: &Path) -> Result<Box<dyn FileWriter>> {
        let inode = self.change(
            |_| {},
            |s| {
                parent_is_there(s, path)?;
                s.inodes.push(Inode::default());
                s.names.insert(path.into(), s.inodes.len() - 1);
                Ok(s.inodes.len() - 1)
            },
        )?;
        Ok(Box::new(Writer { disk: self.clone(), inode }))
    }

    fn append(&self, _: &Path, _: u64) -> Result<Box<dyn FileWriter>> {
        unreachable!("the log never opens a file again to write")
    }

    fn len(&self, path: &Path) -> Result<u64> {
        let state = self.state();
        alive(&state)?;
        match state.names.get(path) {
            Some(&inode) => Ok(state.inodes[inode].bytes.len() as u64),
            None if state.folders.contains(path) => Ok(0),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        let state = self.state();
        alive(&state)?;
        if !state.folders.contains(dir) {
            return Err(ErrorKind::NotFound.into());
        }
        let all = state.names.keys().chain(&state.folders).filter(|p| p.parent() == Some(dir));
        let mut names: Vec<String> = all.map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect();
        names.sort();
        Ok(names)
    }

    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        self.change(
            |_| {},
            |s| {
                s.folders.extend(dir.ancestors().filter(|a| !a.as_os_str().is_empty()).map(Path::to_path_buf));
                Ok(())
            },
        )
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.change(
            |_| {},
            |s| {
                let inode = s.names.remove(from).ok_or(ErrorKind::NotFound)?;
                s.names.insert(to.into(), inode);
                Ok(())
            },
        )
    }

    fn link_exclusive(&self, from: &Path, to: &Path) -> Result<()> {
        self.change(
            |_| {},
            |s| {
                let inode = *s.names.get(from).ok_or(ErrorKind::NotFound)?;
                if s.names.contains_key(to) {
                    return Err(ErrorKind::AlreadyExists.into());
                }
                s.names.insert(to.into(), inode);
                Ok(())
            },
        )
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.change(|_| {}, |s| s.names.remove(path).map(drop).ok_or(ErrorKind::NotFound.into()))
    }

    fn remove_dir_all(&self, dir: &Path) -> Result<()> {
        self.change(
            |_| {},
            |s| {
                s.names.retain(|p, _| !p.starts_with(dir));
                s.folders.retain(|p| !p.starts_with(dir));
                Ok(())
            },
        )
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.change(
            |_| {},
            |s| {
                let inside =
                    |p: &Path| p.parent().is_some_and(|parent| parent == dir || (parent.as_os_str().is_empty() && dir == Path::new(".")));
                s.durable_names.retain(|p, _| !inside(p));
                s.durable_names.extend(s.names.iter().filter(|(p, _)| inside(p)).map(|(p, i)| (p.clone(), *i)));
                s.durable_folders.retain(|p| !inside(p));
                s.durable_folders.extend(s.folders.iter().filter(|p| inside(p)).cloned());
                Ok(())
            },
        )
    }

    fn lock(&self, _: &Path, _: &str) -> Result<Option<Box<dyn Send + Sync>>> {
        unreachable!("the log locks nothing")
    }
}

struct AtOnce;

impl Background for AtOnce {
    fn run(&self, _: &str, job: Job) {
        job();
    }
}

struct Counter(Mutex<u64>);

impl Rng for Counter {
    fn next_u64(&self) -> u64 {
        let mut n = self.0.lock().unwrap();
        *n += 1;
        *n
    }
}
