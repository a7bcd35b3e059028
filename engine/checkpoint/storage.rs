//! Where checkpoints are kept: named bytes that appear whole or not at all.
//!
//! Invariant: a name is never seen half-written, and what a call reported as stored is there after a crash.

use crate::env::{Bug, Env, FileWriter, planted};
use crate::error::{Error, Result};
use crate::state::StateFile;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Bytes moved at a time.
const CHUNK: usize = 1 << 20;
/// Files that are not named yet.
const TEMPORARY: &str = "tmp";

/// Keeps named bytes. Shared by all threads of a job; every call may block.
///
/// Names are relative, parts divided by `/`. What is stored under a name never changes: names hold the attempt that wrote
/// them, so nobody writes another content under a name that was used. Everything is durable when the call returns `Ok`. After
/// an error the outcome is unknown; all calls may be repeated. A store that cannot refuse to overwrite (`put_if_absent`) is
/// of no use here: that refusal is the fence between two coordinators.
pub trait CheckpointStorage: Send + Sync {
    /// Where it is, for messages; no secrets.
    fn describe(&self) -> String;
    /// Stores under a name that is free: `true` = stored, `false` = somebody (perhaps an earlier try of ours) was there
    /// first. Of any number of callers exactly one gets `true`.
    ///
    /// # Errors
    /// Transient while the store is away or full.
    fn put_if_absent(&self, name: &str, bytes: &[u8]) -> Result<bool>;
    /// Stores a local file's content, verified on the way where it is read. Repeating it with the same content is fine.
    ///
    /// # Errors
    /// As `put_if_absent`; a local file that is not as `file` says costs the task.
    fn put_file(&self, name: &str, from: &Path, file: &StateFile) -> Result<()>;
    /// The content, or nothing under that name.
    ///
    /// # Errors
    /// As `put_if_absent`.
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>>;
    /// Brings the content to a local file (replaced if there) and verifies length and checksum **before** it returns.
    ///
    /// # Errors
    /// Fatal when it is missing or not as `file` says.
    fn get_file(&self, name: &str, to: &Path, file: &StateFile) -> Result<()>;
    /// All full names in a folder and below, sorted.
    ///
    /// # Errors
    /// As `put_if_absent`.
    fn list(&self, folder: &str) -> Result<Vec<String>>;
    /// Removes a name; one that is not there is fine.
    ///
    /// # Errors
    /// As `put_if_absent`.
    fn delete(&self, name: &str) -> Result<()>;
    /// Bytes under a name, or nothing there.
    ///
    /// # Errors
    /// As `put_if_absent`.
    fn size(&self, name: &str) -> Result<Option<u64>>;
}

/// A folder of the local file system.
///
/// A file is written and synced under a temporary name, then linked exclusively or renamed, then its folder is synced.
/// Immutable state files on the same file system are linked, not copied.
pub struct LocalStorage {
    env: Env,
    root: PathBuf,
}

impl LocalStorage {
    /// Makes the folder and what it needs. `folders` are those that names will be put in.
    ///
    /// # Errors
    /// Fatal when it cannot be written.
    pub fn open(env: &Env, root: &Path, folders: &[&str]) -> Result<LocalStorage> {
        let storage = LocalStorage { env: env.clone(), root: root.to_path_buf() };
        for folder in folders.iter().chain([&TEMPORARY]) {
            let path = storage.path(folder)?;
            env.files.create_dir_all(&path).map_err(|e| storage.failed("cannot be made", folder, e))?;
        }
        for dir in [Some(root), root.parent()].into_iter().flatten().filter(|d| !d.as_os_str().is_empty()) {
            env.files.sync_dir(dir).map_err(|e| storage.failed("cannot be synced", "", e))?;
        }
        Ok(storage)
    }

    /// A folder that must be there already; nothing is made.
    ///
    /// # Errors
    /// Fatal when it is not there.
    pub fn existing(env: &Env, root: &Path) -> Result<LocalStorage> {
        if !env.files.exists(root)? {
            return Err(Error::fatal(format!("there is no folder {}", root.display())).help("check the path"));
        }
        Ok(LocalStorage { env: env.clone(), root: root.to_path_buf() })
    }

    /// Removes temporary files of dead processes. Only for who holds the job's lock.
    ///
    /// # Errors
    /// Of the file system.
    pub fn clear_temporaries(&self) -> Result<()> {
        let dir = self.root.join(TEMPORARY);
        for name in self.env.files.list(&dir).map_err(|e| self.failed("cannot be listed", TEMPORARY, e))? {
            self.removed(&dir.join(name), TEMPORARY)?;
        }
        Ok(())
    }

    fn path(&self, name: &str) -> Result<PathBuf> {
        let good = !name.is_empty() && name.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
        if good { Ok(self.root.join(name)) } else { Err(Error::fatal(format!("{name:?} is not a name in a checkpoint store"))) }
    }

    fn failed(&self, what: &str, name: &str, e: std::io::Error) -> Error {
        let kind = e.kind();
        let error = Error::from(e).at(format!("{what}: {}", self.root.join(name).display()));
        match kind {
            ErrorKind::StorageFull => error.help("make room on this disk; the job waits and keeps its last good checkpoint"),
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                error.help("give this user the right to write there, or name another folder: --checkpoints <folder>")
            }
            _ => error,
        }
    }

    fn temporary(&self) -> PathBuf {
        self.root.join(TEMPORARY).join(self.env.fresh_id())
    }

    fn write_temporary(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        let mut file = self.env.files.create(path)?;
        file.write_all(bytes)?;
        if planted(Bug::SkipFileSync) { Ok(()) } else { file.sync() }
    }

    fn sync_parent(&self, path: &Path, name: &str) -> Result<()> {
        let dir = path.parent().unwrap_or(&self.root);
        if planted(Bug::SkipFolderSync) {
            return Ok(());
        }
        self.env.files.sync_dir(dir).map_err(|e| self.failed("cannot be synced", name, e))
    }

    fn removed(&self, path: &Path, name: &str) -> Result<()> {
        match self.env.files.remove(path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(self.failed("cannot be removed", name, e)),
            _ => Ok(()),
        }
    }

    /// Makes durable what a file's writer may have left in the page cache.
    ///
    /// A sync that fails has lost bytes, and no later one says so: the next would succeed, and the file be linked without them.
    /// So the attempt that wrote the file is over, and its files with it.
    fn sync_source(&self, from: &Path) -> Result<()> {
        let unread = |e| Error::from(e).at(format!("cannot be read: {}", from.display()));
        // Opened without cutting anything off.
        let mut file = self.env.files.len(from).and_then(|len| self.env.files.append(from, len)).map_err(unread)?;
        file.sync().map_err(|e| {
            let why = format!("the disk has not taken in a file of state: {e}");
            let error = if planted(Bug::RetrySync) { Error::transient(why) } else { Error::restart(why) };
            error.at(from.display().to_string())
        })
    }

    /// A second name for an immutable file; `false` where the file systems differ or do not know links.
    fn link(&self, from: &Path, to: &Path) -> Result<bool> {
        Ok(match self.env.files.link_exclusive(from, to) {
            Ok(()) => true,
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                self.removed(to, "")?;
                self.env.files.link_exclusive(from, to).is_ok()
            }
            Err(_) => false,
        })
    }

    fn list_into(&self, folder: &str, names: &mut Vec<String>) -> Result<()> {
        let path = self.path(folder)?;
        let children = match self.env.files.list(&path) {
            Ok(children) => children,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                if self.env.files.exists(&path).map_err(|e| self.failed("cannot be listed", folder, e))? {
                    names.push(folder.to_string());
                }
                return Ok(());
            }
            Err(e) => return Err(self.failed("cannot be listed", folder, e)),
        };
        for child in children {
            self.list_into(&format!("{folder}/{child}"), names)?;
        }
        Ok(())
    }
}

/// Copies a file in pieces; its length and checksum. Nothing is synced.
fn copy(env: &Env, from: &Path, to: &mut dyn FileWriter) -> std::io::Result<(u64, u32)> {
    let mut at = 0;
    let mut crc = crc32fast::Hasher::new();
    loop {
        let bytes = env.files.read_at(from, at, CHUNK)?;
        if bytes.is_empty() {
            return Ok((at, crc.finalize()));
        }
        at += bytes.len() as u64;
        crc.update(&bytes);
        to.write_all(&bytes)?;
    }
}

/// Reads a file to its end; its length and checksum.
fn measure(env: &Env, path: &Path) -> std::io::Result<(u64, u32)> {
    struct Nowhere;
    impl FileWriter for Nowhere {
        fn write_all(&mut self, _: &[u8]) -> std::io::Result<()> {
            Ok(())
        }
        fn sync(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    copy(env, path, &mut Nowhere)
}

impl CheckpointStorage for LocalStorage {
    fn describe(&self) -> String {
        self.root.display().to_string()
    }

    fn put_if_absent(&self, name: &str, bytes: &[u8]) -> Result<bool> {
        let path = self.path(name)?;
        let temporary = self.temporary();
        let linked = self.write_temporary(&temporary, bytes).and_then(|()| self.env.files.link_exclusive(&temporary, &path));
        self.removed(&temporary, TEMPORARY)?;
        let first = match linked {
            Ok(()) => true,
            Err(e) if e.kind() == ErrorKind::AlreadyExists => false,
            Err(e) => return Err(self.failed("cannot be written", name, e)),
        };
        // Also when somebody else was first: what we saw must be durable before we act on it.
        self.sync_parent(&path, name)?;
        Ok(first)
    }

    fn put_file(&self, name: &str, from: &Path, file: &StateFile) -> Result<()> {
        let path = self.path(name)?;
        if file.immutable {
            self.sync_source(from)?;
        }
        if !(file.immutable && self.link(from, &path)?) {
            let temporary = self.temporary();
            let copied = self.env.files.create(&temporary).and_then(|mut to| {
                let measured = copy(&self.env, from, &mut *to)?;
                to.sync().map(|()| measured)
            });
            let measured = copied.map_err(|e| self.failed("cannot be written", name, e))?;
            if measured != (file.len, file.crc) {
                self.removed(&temporary, TEMPORARY)?;
                return Err(Error::restart(format!("state file {} is not what its snapshot says", from.display())));
            }
            self.env.files.rename(&temporary, &path).map_err(|e| self.failed("cannot be written", name, e))?;
        }
        self.sync_parent(&path, name)
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        match self.env.files.read(&self.path(name)?) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.failed("cannot be read", name, e)),
        }
    }

    fn get_file(&self, name: &str, to: &Path, file: &StateFile) -> Result<()> {
        let from = self.path(name)?;
        let damaged = |why: String| {
            Error::fatal(format!("{name} {why}"))
                .at(format!("checkpoint store {}", self.describe()))
                .help("restore an older checkpoint or a savepoint: run --from <path>")
        };
        let is_there = self.env.files.exists(&from).map_err(|e| self.failed("cannot be read", name, e))?;
        let measured = if file.immutable && is_there && self.link(&from, to)? {
            measure(&self.env, to)
        } else {
            self.env.files.create(to).and_then(|mut writer| copy(&self.env, &from, &mut *writer))
        };
        match measured {
            Ok(measured) if measured == (file.len, file.crc) => Ok(()),
            Ok((len, _)) if len != file.len => Err(damaged(format!("has {len} bytes, the checkpoint says {}", file.len))),
            Ok(_) => Err(damaged("is damaged: its checksum does not hold".into())),
            Err(e) if e.kind() == ErrorKind::NotFound && !is_there => Err(damaged("is missing".into())),
            Err(e) => Err(self.failed("cannot be read", name, e)),
        }
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        self.list_into(folder.trim_end_matches('/'), &mut names)?;
        names.sort();
        Ok(names)
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.removed(&self.path(name)?, name)
    }

    fn size(&self, name: &str) -> Result<Option<u64>> {
        match self.env.files.len(&self.path(name)?) {
            Ok(len) => Ok(Some(len)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.failed("cannot be read", name, e)),
        }
    }
}
