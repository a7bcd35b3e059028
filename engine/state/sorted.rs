//! Sorted files that RocksDB takes in whole: no memtable and no flush, each entry is written once.
//!
//! Invariant: keys come ascending, each once. Removed ranges come before all keys, and remove what the database held before,
//! never what the files hold.

use super::Write;
use rocksdb::{DB, Error, IngestExternalFileOptions, Options, SstFileWriter};
use std::path::PathBuf;

/// Bytes after which the next file is begun.
const FILE: u64 = if cfg!(test) { 1 << 10 } else { 64 << 20 };

/// Files on their way into a database.
pub(super) struct SortedFiles<'a> {
    db: &'a DB,
    options: &'a Options,
    /// What the paths of the files start with.
    stem: PathBuf,
    paths: Vec<PathBuf>,
    writer: Option<SstFileWriter<'a>>,
    bytes: u64,
}

impl<'a> SortedFiles<'a> {
    /// `stem` is a path on the database's file system under which nothing else starts.
    pub(super) fn new(db: &'a DB, options: &'a Options, stem: PathBuf) -> Self {
        SortedFiles { db, options, stem, paths: Vec::new(), writer: None, bytes: 0 }
    }

    /// Adds what comes next.
    pub(super) fn add(&mut self, write: Write<'_>) -> Result<(), Error> {
        let bytes = match write {
            Write::Put { key, value } => key.len() + value.len(),
            Write::Delete { key } => key.len(),
            Write::DeleteRange { from, to } => from.len() + to.len(),
        };
        let writer = self.writer()?;
        match write {
            Write::Put { key, value } => writer.put(key, value)?,
            Write::Delete { key } => writer.delete(key)?,
            Write::DeleteRange { from, to } => writer.delete_range(from, to)?,
        }
        self.bytes += bytes as u64;
        if self.bytes >= FILE { self.close() } else { Ok(()) }
    }

    /// Moves the files in, all or none of them.
    pub(super) fn ingest(mut self) -> Result<(), Error> {
        self.close()?;
        if self.paths.is_empty() {
            return Ok(());
        }
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        // Later files win over earlier ones, so keys win over the ranges in the first.
        self.db.ingest_external_file_opts(&options, self.paths)
    }

    fn writer(&mut self) -> Result<&mut SstFileWriter<'a>, Error> {
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None => {
                let mut path = self.stem.clone().into_os_string();
                path.push(format!("-{}.tmp", self.paths.len()));
                let (path, writer) = (PathBuf::from(path), SstFileWriter::create(self.options));
                writer.open(&path)?;
                self.paths.push(path);
                writer
            }
        };
        Ok(self.writer.insert(writer))
    }

    fn close(&mut self) -> Result<(), Error> {
        self.bytes = 0;
        self.writer.take().map_or(Ok(()), |mut writer| writer.finish())
    }
}
