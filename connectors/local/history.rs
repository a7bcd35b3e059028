//! The commits on disk: read by number, linked by number, folded by the thousand. See the [module](super) for the protocol.
//!
//! Invariant: what is returned as a commit is one, never a void one: after an `e-` file its `c-` is looked for, and rules.

use super::book::Book;
use super::entry::{self, Entry};
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use waterwheel_engine::env::Env;
use waterwheel_engine::error::{Error, Result};

/// Commits in a folded file; part of the format (small in tests, so that they fold).
pub(super) const CHUNK: u64 = if cfg!(test) { 8 } else { 1024 };

/// The commit files of one log.
#[derive(Clone)]
pub(super) struct History {
    env: Env,
    root: PathBuf,
    dir: PathBuf,
}

/// A folded file.
pub(super) struct Chunk {
    /// The state before its first commit.
    pub(super) before: Book,
    pub(super) entries: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct ChunkHead {
    first: u64,
    before: Book,
}

/// A commit found by number.
pub(super) enum Found {
    /// Nobody has committed this number yet.
    Nothing,
    Single(Entry),
    Folded(Chunk),
}

/// What a look at the folder shows; files may come and go meanwhile.
#[derive(Default)]
pub(super) struct Listing {
    /// Number of the newest folded file.
    pub(super) newest_chunk: Option<u64>,
    /// Largest number of a single commit.
    pub(super) newest_single: Option<u64>,
}

impl History {
    pub(super) fn new(env: Env, root: &Path) -> Self {
        History { env, root: root.to_path_buf(), dir: root.join("log") }
    }

    fn single(&self, seq: u64) -> PathBuf {
        self.dir.join(format!("e-{seq:016}"))
    }

    fn folded(&self, chunk: u64) -> PathBuf {
        self.dir.join(format!("c-{chunk:016}"))
    }

    /// The commit of a number.
    pub(super) fn read(&self, seq: u64) -> Result<Found> {
        let path = self.single(seq);
        let single = match self.env.files.read(&path) {
            Ok(line) => Some(line),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => return Err(place(e, &path)),
        };
        if let Some(chunk) = self.chunk(seq / CHUNK)? {
            return Ok(Found::Folded(chunk));
        }
        match single {
            None => Ok(Found::Nothing),
            Some(line) => entry::decode(&line).map(Found::Single).map_err(|why| damaged(&path, 0, &why)),
        }
    }

    /// A folded file, when it is there.
    pub(super) fn chunk(&self, chunk: u64) -> Result<Option<Chunk>> {
        let path = self.folded(chunk);
        let bytes = match self.env.files.read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(place(e, &path)),
        };
        let mut at = 0;
        let mut lines = bytes.split_inclusive(|&b| b == b'\n').map(|line| {
            at += line.len();
            (at - line.len(), line)
        });
        let (_, head) = lines.next().ok_or_else(|| damaged(&path, 0, "it is empty"))?;
        let head: ChunkHead = entry::decode(head).map_err(|why| damaged(&path, 0, &why))?;
        let entries = lines.map(|(at, line)| entry::decode(line).map_err(|why| damaged(&path, at, &why)));
        let entries = entries.collect::<Result<Vec<Entry>>>()?;
        if head.first != chunk * CHUNK || entries.len() as u64 != CHUNK {
            return Err(damaged(&path, 0, &format!("it holds {} commits from {}", entries.len(), head.first)));
        }
        Ok(Some(Chunk { before: head.before, entries }))
    }

    /// The state before a folded file, without reading the rest of it.
    pub(super) fn before(&self, chunk: u64) -> Result<Option<Book>> {
        let path = self.folded(chunk);
        let mut want = 64 << 10;
        loop {
            let bytes = match self.env.files.read_at(&path, 0, want) {
                Ok(bytes) => bytes,
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(place(e, &path)),
            };
            match bytes.iter().position(|&b| b == b'\n') {
                None if bytes.len() == want => want *= 4,
                end => {
                    let head = &bytes[..end.unwrap_or(bytes.len())];
                    let head: ChunkHead = entry::decode(head).map_err(|why| damaged(&path, 0, &why))?;
                    return Ok(Some(head.before));
                }
            }
        }
    }

    /// Whether a commit is surely durable: a later one exists, or it is folded.
    pub(super) fn is_settled(&self, seq: u64) -> bool {
        let sure = |path: PathBuf| self.env.files.exists(&path).unwrap_or(false);
        sure(self.single(seq + 1)) || sure(self.folded(seq / CHUNK)) || sure(self.folded((seq + 1) / CHUNK))
    }

    /// Makes every commit that can be seen durable.
    pub(super) fn settle(&self) -> Result<()> {
        self.env.files.sync_dir(&self.dir).map_err(|e| place(e, &self.dir))
    }

    /// Makes the folders, durably.
    pub(super) fn make_folders(&self) -> Result<()> {
        let files = &self.env.files;
        let parent = self.root.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let made = files.create_dir_all(&self.dir).and_then(|()| files.sync_dir(&self.root)).and_then(|()| files.sync_dir(parent));
        made.map_err(|e| place(e, &self.dir))
    }

    /// Commits under a number unless it is taken: `false`. Durable only after `settle`; after an error the outcome is open.
    pub(super) fn link(&self, seq: u64, entry: &Entry) -> Result<bool> {
        let files = &self.env.files;
        let path = self.single(seq);
        let temporary = self.dir.join(format!("t-{seq:016}-{}", self.env.fresh_id()));
        let line = entry::encode(entry).map_err(|why| Error::fatal(format!("a commit cannot be written: {why}")))?;
        let written = files.create(&temporary).and_then(|mut file| {
            file.write_all(&line)?;
            file.sync()
        });
        written.map_err(|e| place(e, &temporary))?;
        let linked = match files.link_exclusive(&temporary, &path) {
            Ok(()) => true,
            // A temporary name that is gone was tidied away because its number is long taken.
            Err(e) if matches!(e.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound) => false,
            Err(e) => return Err(place(e, &path)),
        };
        // Tidiness only; what is left over goes when its chunk is folded.
        let _ = files.remove(&temporary);
        if !linked {
            return Ok(false);
        }
        // Folded meanwhile: the name may have been free again, and then another commit rules.
        Ok(self.chunk(seq / CHUNK)?.is_none_or(|chunk| chunk.entries[(seq % CHUNK) as usize] == *entry))
    }

    /// Folds a full, durable chunk into one file, then removes its single commits and what else is left over from before.
    pub(super) fn fold(&self, chunk: u64) -> Result<()> {
        let files = &self.env.files;
        let path = self.folded(chunk);
        if !files.exists(&path).map_err(|e| place(e, &path))? {
            let Some(bytes) = self.folded_bytes(chunk)? else { return Ok(()) };
            let temporary = self.dir.join(format!("t-{:016}-{}", chunk * CHUNK, self.env.fresh_id()));
            let written = files.create(&temporary).and_then(|mut file| {
                file.write_all(&bytes)?;
                file.sync()?;
                files.rename(&temporary, &path)
            });
            written.map_err(|e| place(e, &path))?;
        }
        self.settle()?;
        for name in files.list(&self.dir).map_err(|e| place(e, &self.dir))? {
            if number(&name, "e-").or(number(&name, "t-")).is_some_and(|seq| seq < (chunk + 1) * CHUNK) {
                let _ = files.remove(&self.dir.join(name));
            }
        }
        Ok(())
    }

    /// The bytes of a folded file; `None` when another process has folded it meanwhile.
    fn folded_bytes(&self, chunk: u64) -> Result<Option<Vec<u8>>> {
        let first = chunk * CHUNK;
        let before = match chunk {
            0 => Book::default(),
            _ => {
                let Some(earlier) = self.chunk(chunk - 1)? else { return Ok(None) };
                let mut book = earlier.before;
                for entry in &earlier.entries {
                    book.apply(entry).map_err(|why| damaged(&self.folded(chunk - 1), 0, &why))?;
                }
                book
            }
        };
        let cannot = |why: String| Error::fatal(format!("commits cannot be folded: {why}"));
        let mut bytes = entry::encode(&ChunkHead { first, before }).map_err(cannot)?;
        for seq in first..first + CHUNK {
            let Found::Single(entry) = self.read(seq)? else { return Ok(None) };
            bytes.extend(entry::encode(&entry).map_err(cannot)?);
        }
        Ok(Some(bytes))
    }

    /// What the folder shows now; nothing when there is no folder.
    pub(super) fn listing(&self) -> Result<Listing> {
        let names = match self.env.files.list(&self.dir) {
            Ok(names) => names,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Listing::default()),
            Err(e) => return Err(place(e, &self.dir)),
        };
        Ok(Listing {
            newest_chunk: names.iter().filter_map(|n| number(n, "c-")).max(),
            newest_single: names.iter().filter_map(|n| number(n, "e-")).max(),
        })
    }

    /// The error for a number that must be there and is not.
    pub(super) fn hole(&self, seq: u64) -> Error {
        damaged(&self.single(seq), 0, "it is missing, while later commits are there")
    }

    /// The error for a commit that does not follow from the ones before.
    pub(super) fn contradiction(&self, seq: u64, why: &str) -> Error {
        damaged(&self.single(seq), 0, why)
    }
}

/// The number in `<prefix><number>` or `<prefix><number>-<anything>`.
fn number(name: &str, prefix: &str) -> Option<u64> {
    name.strip_prefix(prefix)?.split('-').next()?.parse().ok()
}

fn place(e: std::io::Error, path: &Path) -> Error {
    Error::from(e).at(path.display().to_string())
}

/// The error for damage: the file and the byte.
pub(super) fn damaged(path: &Path, at: usize, why: &str) -> Error {
    Error::fatal(format!("the log is damaged: {why}"))
        .at(format!("{}, byte {at}", path.display()))
        .help("restore the folder from a copy; nothing was skipped and nothing was changed")
}
