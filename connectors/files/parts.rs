//! The files that a lane writes to, one a folder, and what it remembers of them.
//!
//! `part-<lineage>-<lane>-<epoch>-<n>.jsonl` is written as `.<name>.<generation>`: a hidden name belongs to one owner of the lane,
//! so nobody who has lost the lane writes into a file that goes on. Which bytes of which hidden file count is said by
//! [`Stored`] alone; what lies beyond them is of an attempt that failed, and is cut off before the next line.
//!
//! Invariant: what [`PartFiles::settle`] has returned is on the disk under the names that it says.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use waterwheel_engine::env::{FileWriter, Files};
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::LaneMarker;
use waterwheel_engine::record::Epoch;

/// A folder's lines are written out at so many bytes, all at so many.
const FOLDER_BYTES: usize = 256 << 10;
const ALL_BYTES: usize = 16 << 20;
/// Files open at a time.
const HANDLES: usize = 64;

/// In the place of a topic: the staged record holds rows in columns.
pub(super) const COLUMNS: &str = "\0columns";

/// What a lane's file holds: replaced as a whole, it is the moment at which an epoch is published.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) version: u32,
    pub(super) marker: Option<LaneMarker>,
    /// Files that go on.
    pub(super) open: Vec<Part>,
    /// Finished files that are to get their names.
    pub(super) finished: Vec<Part>,
    /// Folders with rows since they were marked as complete, and the time that they are judged by.
    pub(super) waiting: BTreeMap<String, i64>,
    /// Folders that are to be marked.
    pub(super) ripe: Vec<String>,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    /// Path of its folder below the sink's; empty for the sink's own.
    pub(super) folder: String,
    /// Its name when it is finished.
    pub(super) name: String,
    /// Its name until then.
    pub(super) hidden: String,
    /// Bytes of it that count.
    pub(super) bytes: u64,
    /// When it was begun, and last written to; milliseconds since 1970.
    pub(super) begun_ms: i64,
    pub(super) written_ms: i64,
}

/// A folder of the sink.
pub(super) fn folder_path(root: &Path, folder: &str) -> PathBuf {
    if folder.is_empty() { root.to_path_buf() } else { root.join(folder) }
}

pub(super) fn file_error(path: &Path, e: std::io::Error) -> Error {
    Error::from(e).at(path.display().to_string())
}

/// Makes the folder below the root that files are in; folders with new names in them are added to `changed`.
pub(super) fn make_folder(files: &dyn Files, root: &Path, folder: &str, changed: &mut BTreeSet<PathBuf>) -> Result<()> {
    let path = folder_path(root, folder);
    if !folder.is_empty() {
        files.create_dir_all(&path).map_err(|e| file_error(&path, e))?;
        changed.extend(path.ancestors().take_while(|p| p.starts_with(root)).map(Path::to_path_buf));
    }
    changed.insert(path);
    Ok(())
}

/// How the files of an epoch are called.
pub(super) struct Names {
    /// `part-<lineage>-<lane>`.
    pub(super) stem: String,
    pub(super) ending: &'static str,
    pub(super) generation: u64,
    /// Of the rows that come now, and how many files were begun in it.
    pub(super) epoch: Epoch,
    pub(super) begun: u32,
}

impl Names {
    /// The rows that come now are of this epoch.
    pub(super) fn begin_epoch(&mut self, epoch: Epoch) {
        (self.epoch, self.begun) = (epoch, 0);
    }

    /// Of the next file: its name, and its name until it is finished.
    pub(super) fn next(&mut self) -> (String, String) {
        let Names { stem, ending, generation, epoch, begun } = self;
        let name = format!("{stem}-{epoch:010}-{begun}.{ending}");
        let hidden = format!(".{name}.{generation}");
        *begun += 1;
        (name, hidden)
    }
}

/// What staged records become: files of folders, of one form or another.
pub(super) trait PartFiles {
    /// Whether the records are rows in columns.
    fn are_columns(&self) -> bool;

    /// The rows that come now are of this epoch. Where files do not go on, each has rows of one epoch, whatever is published with
    /// it: published once more it has the same rows under the same name.
    ///
    /// # Errors
    /// Of the file system.
    fn begin_epoch(&mut self, epoch: Epoch) -> Result<()>;

    /// Appends what a staged record holds to the file of a folder.
    ///
    /// # Errors
    /// Of the file system.
    fn write(&mut self, folder: &str, staged: &[u8]) -> Result<()>;

    /// Makes all of it durable. Finished files keep their hidden names.
    ///
    /// # Errors
    /// Of the file system.
    fn settle(self: Box<Self>) -> Result<Settled>;
}

/// Files on the disk.
pub(super) struct Settled {
    /// Those that go on.
    pub(super) open: Vec<Part>,
    /// Those that are finished.
    pub(super) finished: Vec<Part>,
}

/// Files being written, by folder.
pub(super) struct Parts<'a> {
    files: Arc<dyn Files>,
    root: &'a Path,
    names: Names,
    now_ms: i64,
    limit: Option<u64>,
    open: BTreeMap<String, Open>,
    finished: Vec<Part>,
    /// Folders with names that are to be made durable.
    changed: BTreeSet<PathBuf>,
    buffered: usize,
    handles: usize,
}

struct Open {
    part: Part,
    /// Lines that are not written yet; they are in `part.bytes`.
    lines: Vec<u8>,
    file: Option<Box<dyn FileWriter>>,
}

impl<'a> Parts<'a> {
    /// Goes on with `open`. A file is finished rather than to have more than `limit` bytes; without a limit files do not go on.
    pub(super) fn new(files: Arc<dyn Files>, root: &'a Path, names: Names, now_ms: i64, limit: Option<u64>, open: &[Part]) -> Self {
        let open = open.iter().map(|part| (part.folder.clone(), Open { part: part.clone(), lines: Vec::new(), file: None })).collect();
        let (finished, changed) = (Vec::new(), BTreeSet::new());
        Parts { files, root, names, now_ms, limit, open, finished, changed, buffered: 0, handles: 0 }
    }

    fn begin(&mut self, folder: &str) -> Result<Open> {
        let (name, hidden) = self.names.next();
        make_folder(&*self.files, self.root, folder, &mut self.changed)?;
        let part = Part { folder: folder.to_string(), name, hidden, bytes: 0, begun_ms: self.now_ms, written_ms: self.now_ms };
        Ok(Open { part, lines: Vec::new(), file: None })
    }

    fn write_out(&mut self, open: &mut Open) -> Result<()> {
        if open.lines.is_empty() {
            return Ok(());
        }
        let path = folder_path(self.root, &open.part.folder).join(&open.part.hidden);
        if open.file.is_none() {
            let kept = open.part.bytes - open.lines.len() as u64;
            // Cutting a file to more bytes than it has would make up the rest.
            if kept > 0 && self.files.len(&path).map_err(|e| file_error(&path, e))? < kept {
                return Err(cut_short(&path, kept));
            }
            open.file = Some(self.files.append(&path, kept).map_err(|e| file_error(&path, e))?);
            self.handles += 1;
        }
        if let Some(file) = &mut open.file {
            file.write_all(&open.lines).map_err(|e| file_error(&path, e))?;
        }
        self.buffered -= open.lines.len();
        open.lines.clear();
        if self.handles > HANDLES {
            self.sync(open)?;
            self.on_all(Self::sync)?;
        }
        Ok(())
    }

    fn sync(&mut self, open: &mut Open) -> Result<()> {
        let Some(mut file) = open.file.take() else { return Ok(()) };
        self.handles -= 1;
        file.sync().map_err(|e| file_error(&folder_path(self.root, &open.part.folder).join(&open.part.hidden), e))
    }

    fn on_open(&mut self, folder: &str, act: fn(&mut Self, &mut Open) -> Result<()>) -> Result<()> {
        let Some((folder, mut open)) = self.open.remove_entry(folder) else { return Ok(()) };
        let done = act(self, &mut open);
        self.open.insert(folder, open);
        done
    }

    fn on_all(&mut self, act: fn(&mut Self, &mut Open) -> Result<()>) -> Result<()> {
        let mut all = std::mem::take(&mut self.open);
        let done = all.values_mut().try_for_each(|open| act(self, open));
        self.open.extend(all);
        done
    }
}

impl PartFiles for Parts<'_> {
    fn are_columns(&self) -> bool {
        false
    }

    fn begin_epoch(&mut self, epoch: Epoch) -> Result<()> {
        self.names.begin_epoch(epoch);
        if self.limit.is_some() {
            return Ok(());
        }
        for mut open in std::mem::take(&mut self.open).into_values() {
            self.write_out(&mut open)?;
            self.sync(&mut open)?;
            self.finished.push(open.part);
        }
        Ok(())
    }

    fn write(&mut self, folder: &str, line: &[u8]) -> Result<()> {
        let bytes = line.len() as u64 + 1;
        let has = self.open.get(folder).map_or(0, |open| open.part.bytes);
        if self.limit.is_some_and(|limit| has + bytes > limit) && line.contains(&b'\n') {
            return line.split(|&byte| byte == b'\n').try_for_each(|line| self.write(folder, line));
        }
        let is_full = |open: &Open| self.limit.is_some_and(|limit| open.part.bytes > 0 && open.part.bytes + bytes > limit);
        if self.open.get(folder).is_some_and(is_full)
            && let Some(mut full) = self.open.remove(folder)
        {
            self.write_out(&mut full)?;
            self.sync(&mut full)?;
            self.finished.push(full.part);
        }
        if !self.open.contains_key(folder) {
            let begun = self.begin(folder)?;
            self.open.insert(folder.to_string(), begun);
        }
        let Some(open) = self.open.get_mut(folder) else { unreachable!("begun above") };
        open.lines.extend_from_slice(line);
        open.lines.push(b'\n');
        open.part.bytes += bytes;
        open.part.written_ms = self.now_ms;
        self.buffered += bytes as usize;
        if open.lines.len() >= FOLDER_BYTES {
            return self.on_open(folder, Self::write_out);
        }
        if self.buffered >= ALL_BYTES { self.on_all(Self::write_out) } else { Ok(()) }
    }

    fn settle(mut self: Box<Self>) -> Result<Settled> {
        self.on_all(|parts, open| {
            parts.write_out(open)?;
            parts.sync(open)
        })?;
        for folder in &self.changed {
            self.files.sync_dir(folder).map_err(|e| file_error(folder, e))?;
        }
        Ok(Settled { open: self.open.into_values().map(|open| open.part).collect(), finished: self.finished })
    }
}

/// A hidden file that has lost bytes which were durable.
pub(super) fn cut_short(path: &Path, bytes: u64) -> Error {
    Error::fatal(format!("a file that is still written to has lost bytes that were published: it had {bytes}"))
        .at(path.display().to_string())
        .help("bring the folder's hidden files back, or start from a savepoint: run --from <path>")
}
