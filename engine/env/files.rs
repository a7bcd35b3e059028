//! Files with the operations durability needs, each by its own name.
//!
//! Invariant: data is durable after `FileWriter::sync`, a name after `sync_dir` of its folder; nothing else promises anything
//! across a crash.

use std::io::{ErrorKind, Result};
use std::path::Path;

/// A file being appended to.
pub trait FileWriter: Send {
    /// Appends all bytes.
    ///
    /// # Errors
    /// Of the file system; a part may have been written.
    fn write_all(&mut self, bytes: &[u8]) -> Result<()>;
    /// Makes what was written durable. After an error the content is unknown: never retry as if it had worked.
    ///
    /// # Errors
    /// Of the file system.
    fn sync(&mut self) -> Result<()>;
}

/// The file system. Paths are as the caller gives them; nothing is created on the way but by `create_dir_all`.
///
/// # Errors
/// All methods: those of the file system, as [`std::io::Error`] with its usual kinds (`NotFound`, `AlreadyExists`,
/// `StorageFull`, ...).
#[expect(clippy::missing_errors_doc, reason = "said once above")]
pub trait Files: Send + Sync {
    /// The whole content.
    fn read(&self, path: &Path) -> Result<Vec<u8>>;
    /// Up to `len` bytes from `offset`; fewer at the end of the file.
    fn read_at(&self, path: &Path, offset: u64, len: usize) -> Result<Vec<u8>>;
    /// A new, empty file; an older one of that name is replaced.
    fn create(&self, path: &Path) -> Result<Box<dyn FileWriter>>;
    /// As [`create`](Self::create), where there are rights: nobody but its owner may read it.
    fn create_private(&self, path: &Path) -> Result<Box<dyn FileWriter>> {
        self.create(path)
    }
    /// Opens for appending after cutting the file to `keep` bytes (made when missing).
    fn append(&self, path: &Path, keep: u64) -> Result<Box<dyn FileWriter>>;
    /// Size in bytes.
    fn len(&self, path: &Path) -> Result<u64>;
    /// Names (not paths) in a folder, sorted.
    fn list(&self, dir: &Path) -> Result<Vec<String>>;
    /// Makes a folder and its parents.
    fn create_dir_all(&self, dir: &Path) -> Result<()>;
    /// Renames, replacing the target.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
    /// Gives the file a second name; fails with `AlreadyExists` when the name is taken: put-if-absent.
    fn link_exclusive(&self, from: &Path, to: &Path) -> Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> Result<()>;
    /// Removes a folder with everything in it.
    fn remove_dir_all(&self, dir: &Path) -> Result<()>;
    /// Makes names in a folder durable.
    fn sync_dir(&self, dir: &Path) -> Result<()>;
    /// Takes a lock that dies with its holder; `Ok(None)` when another process has it. The lock is held until the guard drops.
    /// `note` is written into the file for whoever is refused.
    fn lock(&self, path: &Path, note: &str) -> Result<Option<Box<dyn Send + Sync>>>;

    /// Whether a file or folder of that name is there. A question that fails is no answer, least of all a no.
    fn exists(&self, path: &Path) -> Result<bool> {
        match self.len(path) {
            Ok(_) => Ok(true),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Writes a whole file durably under a temporary name, then renames: a reader sees the old content or the new one.
    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let temporary = path.with_extension("tmp");
        put(self, self.create(&temporary)?, bytes, &temporary, path)
    }

    /// The same of a file that nobody but its owner may read.
    fn replace_private(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let temporary = path.with_extension("tmp");
        put(self, self.create_private(&temporary)?, bytes, &temporary, path)
    }
}

fn put<F: Files + ?Sized>(files: &F, mut file: Box<dyn FileWriter>, bytes: &[u8], temporary: &Path, path: &Path) -> Result<()> {
    file.write_all(bytes)?;
    file.sync()?;
    drop(file);
    files.rename(temporary, path)?;
    files.sync_dir(path.parent().unwrap_or(Path::new(".")))
}
