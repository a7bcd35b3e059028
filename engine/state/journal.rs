//! The journal: what a store is as long as its tables are in memory whole. Epochs are added as runs, and nothing is read
//! but by a restore.
//!
//! Runs are merged when there are many, or when most of what they hold was overwritten: of runs like in size, or of all, in
//! pieces that follow what is written, so that no epoch waits for a merge of all state. Only a merge of all lets go of
//! removed and expired entries, because older runs may hold them still.
//!
//! Invariant: replayed oldest first, the runs give the content.

use super::batch::Covered;
use super::keyspace::group_range;
use super::memory::table_of;
use super::run::{Blocks, Run, RunReader, RunWriter};
use super::{RestoredSnapshot, StateFile, Visit, VisitFound, Write, WriteBatch};
use crate::env::{Bug, Files, planted};
use crate::error::{Error, Result};
use crate::record::KeyGroup;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A merge of all begins when the runs have this many times the bytes of the last such merge's result ...
const GROWTH: u64 = 3;
/// ... and these.
const SMALL: u64 = if cfg!(test) { 256 } else { 16 << 20 };
/// More runs than this are merged into fewer.
const RUNS: usize = if cfg!(test) { 4 } else { 24 };
/// Bytes merged for each byte written, so that a merge ends long before the next is due.
const PACE: u64 = 4;
/// Bytes merged at a time at least.
const STEP: u64 = if cfg!(test) { 32 } else { 1 << 20 };

const SUFFIX: &str = ".run";

/// Runs of one task, oldest first.
pub(super) struct Journal {
    files: Arc<dyn Files>,
    dir: PathBuf,
    runs: Vec<Run>,
    /// Runs named so far.
    named: u64,
    /// Bytes of the result of the last merge of all.
    base: u64,
    /// Bytes since the last `tidy`.
    written: u64,
    merging: Option<Merging>,
    expired: BTreeMap<u32, [u8; 8]>,
    /// Blocks of the only run of a restored journal to which nothing was added yet.
    restored: Option<Blocks>,
}

/// A merge under way.
struct Merging {
    merger: Merger,
    writer: RunWriter,
    /// Which runs it replaces; those with `start` 0 hold everything older.
    replaces: Range<usize>,
}

impl Journal {
    /// An empty one in an empty folder.
    pub(super) fn new(files: &Arc<dyn Files>, dir: &Path) -> Self {
        let (files, dir, expired) = (files.clone(), dir.to_path_buf(), BTreeMap::new());
        Journal { files, dir, runs: Vec::new(), named: 0, base: 0, written: 0, merging: None, expired, restored: None }
    }

    /// Whether a snapshot is one of a journal.
    pub(super) fn is_snapshot(files: &Arc<dyn Files>, dir: &Path) -> Result<bool> {
        Ok(files.list(dir)?.iter().any(|name| name.ends_with(SUFFIX)))
    }

    /// What some snapshots hold of the groups, as one run, which can be read until something is added.
    pub(super) fn restore(files: &Arc<dyn Files>, dir: &Path, snapshots: &[RestoredSnapshot], groups: &Range<KeyGroup>) -> Result<Self> {
        let mut journal = Journal::new(files, dir);
        let mut paths = Vec::new();
        for snapshot in snapshots {
            paths.extend(runs_of(files, &snapshot.dir)?);
        }
        let mut merger = Merger::open(files, &paths)?;
        let mut writer = RunWriter::create(files, &journal.next_path(), true)?;
        let (from, to) = group_range(groups);
        while let Some(write) = merger.next()? {
            if let Write::Put { key, .. } = write
                && key >= &from[..]
                && key < &to[..]
            {
                writer.add(write)?;
            }
        }
        let (run, blocks) = writer.finish()?;
        (journal.base, journal.restored) = (run.len, Some(blocks));
        journal.runs.push(run);
        Ok(journal)
    }

    fn next_path(&mut self) -> PathBuf {
        let path = self.dir.join(format!("{:012}{SUFFIX}", self.named));
        self.named += 1;
        path
    }

    /// Adds a run.
    pub(super) fn write(&mut self, batch: &WriteBatch) -> Result<()> {
        self.restored = None;
        let path = self.next_path();
        let mut writer = RunWriter::create(&self.files, &path, false)?;
        for write in batch.outcome() {
            writer.add(write)?;
        }
        let (run, _) = writer.finish()?;
        self.written += run.len;
        self.runs.push(run);
        Ok(())
    }

    /// Puts all runs into `dir` under second names.
    pub(super) fn checkpoint(&mut self, dir: &Path) -> Result<Vec<StateFile>> {
        if self.runs.is_empty() {
            // A snapshot without a file would be none.
            self.write(&WriteBatch::default())?;
        }
        self.files.create_dir_all(dir)?;
        for run in &self.runs {
            let (from, to) = (self.dir.join(&run.name), dir.join(&run.name));
            if self.files.link_exclusive(&from, &to).is_err() {
                self.copy(run, &from, &to)?;
            }
        }
        let file = |run: &Run| StateFile { name: run.name.clone(), len: run.len, crc: run.crc, immutable: true };
        let mut files: Vec<_> = self.runs.iter().map(file).collect();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }

    /// A copy of a run. What is read here is named by a checkpoint, and nobody looks at it again before it is needed.
    fn copy(&self, run: &Run, from: &Path, to: &Path) -> Result<()> {
        let bytes = self.files.read(from)?;
        if (bytes.len() as u64, crc32fast::hash(&bytes)) != (run.len, run.crc) && !planted(Bug::CopyUnseen) {
            return Err(Error::restart(format!("run of state {} is not what was written", from.display())));
        }
        Ok(self.files.create(to)?.write_all(&bytes)?)
    }

    /// Values of `table` whose first 8 bytes are below `before` are over.
    pub(super) fn expire(&mut self, table: u32, before: [u8; 8]) {
        self.expired.insert(table, before);
    }

    /// Merges a piece of what is to be merged.
    pub(super) fn tidy(&mut self) -> Result<()> {
        let mut budget = STEP.max(PACE * std::mem::take(&mut self.written));
        if self.runs.len() > 4 * RUNS {
            budget = u64::MAX;
        }
        while budget > 0 {
            let merging = match self.merging.take() {
                Some(merging) => merging,
                None => match self.due() {
                    Some(replaces) => self.begin(replaces)?,
                    None => return Ok(()),
                },
            };
            budget = self.merge(merging, budget)?;
        }
        Ok(())
    }

    /// Which runs are to be merged.
    fn due(&self) -> Option<Range<usize>> {
        let total: u64 = self.runs.iter().map(|run| run.len).sum();
        if self.runs.len() > 1 && total > GROWTH * self.base + SMALL {
            return Some(0..self.runs.len());
        }
        if self.runs.len() <= RUNS {
            return None;
        }
        // The newest, back to one that is larger than all after it: what is merged grows at least by half each time.
        let (mut start, mut sum) = (self.runs.len(), 0);
        while start > 0 && (self.runs.len() - start < RUNS / 2 || self.runs[start - 1].len <= sum) {
            start -= 1;
            sum += self.runs[start].len;
        }
        Some(start..self.runs.len())
    }

    fn begin(&mut self, replaces: Range<usize>) -> Result<Merging> {
        let paths: Vec<_> = self.runs[replaces.clone()].iter().map(|run| self.dir.join(&run.name)).collect();
        let merger = Merger::open(&self.files, &paths)?;
        let path = self.next_path();
        let mut writer = RunWriter::create(&self.files, &path, false)?;
        if replaces.start > 0 {
            for (from, to) in merger.ranges() {
                writer.add(Write::DeleteRange { from: &from, to: &to })?;
            }
        }
        Ok(Merging { merger, writer, replaces })
    }

    /// Merges up to `budget` bytes; what is left of it.
    fn merge(&mut self, mut merging: Merging, mut budget: u64) -> Result<u64> {
        let all = merging.replaces.start == 0;
        while budget > 0 {
            let Some(write) = merging.merger.next()? else {
                self.end(merging)?;
                return Ok(budget);
            };
            let (bytes, kept) = match write {
                Write::Put { key, value } => (key.len() + value.len(), !(all && is_over(&self.expired, key, value))),
                Write::Delete { key } => (key.len(), !all),
                Write::DeleteRange { .. } => (0, false),
            };
            budget = budget.saturating_sub(bytes as u64 + 1);
            if kept {
                merging.writer.add(write)?;
            }
        }
        self.merging = Some(merging);
        Ok(0)
    }

    fn end(&mut self, merging: Merging) -> Result<()> {
        let (run, _) = merging.writer.finish()?;
        if merging.replaces.start == 0 {
            self.base = run.len;
        }
        // Runs that came meanwhile stay behind it.
        for old in self.runs.splice(merging.replaces, [run]) {
            // A leftover costs space until the task ends.
            let _ = self.files.remove(&self.dir.join(old.name));
        }
        Ok(())
    }

    /// Visits `from..to` of a restored journal in key order; `None` if something was added since.
    pub(super) fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Option<Result<()>> {
        self.restored.as_ref().map(|blocks| self.scan_blocks(blocks, from, to, visit))
    }

    fn scan_blocks(&self, blocks: &Blocks, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()> {
        let Some(run) = self.runs.first() else { return Ok(()) };
        let first = blocks.partition_point(|(key, ..)| &key[..] <= from).saturating_sub(1);
        for (key, at, len) in &blocks[first..] {
            if &key[..] >= to {
                break;
            }
            let mut reader = RunReader::block(&self.files, &self.dir.join(&run.name), *at, *len)?;
            while reader.advance_in_block()? {
                if let Some(Write::Put { key, value }) = reader.change()
                    && key >= from
                    && key < to
                {
                    visit(key, value)?;
                }
            }
        }
        Ok(())
    }

    /// Some values of a restored journal; `None` if something was added since.
    pub(super) fn multi_get(&self, keys: &[&[u8]], visit: VisitFound<'_>) -> Option<Result<()>> {
        let blocks = self.restored.as_ref()?;
        Some(keys.iter().enumerate().try_for_each(|(at, &key)| {
            let behind = [key, &[0][..]].concat();
            self.scan_blocks(blocks, key, &behind, &mut |_, value| visit(at, value))
        }))
    }

    /// Sees every run, oldest first.
    pub(super) fn replay(&self, run: &mut dyn FnMut(&mut RunReader) -> Result<()>) -> Result<()> {
        self.runs.iter().try_for_each(|r| run(&mut RunReader::open(&self.files, &self.dir.join(&r.name))?))
    }
}

/// The runs of a snapshot, oldest first.
pub(super) fn runs_of(files: &Arc<dyn Files>, dir: &Path) -> Result<Vec<PathBuf>> {
    let names = files.list(dir).map_err(|e| Error::from(e).at(dir.display().to_string()))?;
    Ok(names.iter().filter(|name| name.ends_with(SUFFIX)).map(|name| dir.join(name)).collect())
}

fn is_over(expired: &BTreeMap<u32, [u8; 8]>, key: &[u8], value: &[u8]) -> bool {
    let before = table_of(key).and_then(|table| expired.get(&table));
    before.is_some_and(|before| value.get(..8).is_some_and(|time| time < &before[..]))
}

/// Reads runs as one: each key once, with its newest change, if no newer run removed it.
struct Merger {
    /// Oldest first.
    readers: Vec<RunReader>,
    /// A heap of readers by key, the newest first among equals.
    heap: Vec<usize>,
    ranges: Vec<(Vec<u8>, Vec<u8>, usize)>,
    covered: Covered<Vec<u8>>,
    /// The last key seen; what `heap` has on top is of a key not seen yet, unless `seen` is set.
    last: Vec<u8>,
    seen: bool,
}

impl Merger {
    fn open(files: &Arc<dyn Files>, paths: &[PathBuf]) -> Result<Self> {
        let (mut readers, mut heap, mut ranges) = (Vec::new(), Vec::new(), Vec::new());
        for (age, path) in paths.iter().enumerate() {
            let mut reader = RunReader::open(files, path)?;
            let mut any = reader.advance()?;
            while let Some(Write::DeleteRange { from, to }) = reader.change() {
                ranges.push((from.to_vec(), to.to_vec(), age));
                any = reader.advance()?;
            }
            readers.push(reader);
            if any {
                heap.push(age);
            }
        }
        ranges.sort_unstable();
        let covered = Covered::new(ranges.clone());
        let mut merger = Merger { readers, heap, ranges, covered, last: Vec::new(), seen: false };
        (0..merger.heap.len() / 2).rev().for_each(|at| merger.sink(at));
        Ok(merger)
    }

    /// The ranges of all runs as few as possible.
    fn ranges(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut out: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for (from, to, _) in &self.ranges {
            match out.last_mut() {
                Some((_, end)) if from <= end => *end = std::mem::take(end).max(to.clone()),
                _ => out.push((from.clone(), to.clone())),
            }
        }
        out
    }

    fn next(&mut self) -> Result<Option<Write<'_>>> {
        if self.seen {
            self.pass()?;
        }
        loop {
            let Some(&age) = self.heap.first() else { return Ok(None) };
            let Some(key) = self.readers[age].key() else { return Ok(None) };
            if !self.covered.takes_back(key, age) {
                self.seen = true;
                return Ok(self.readers[age].change());
            }
            self.pass()?;
        }
    }

    /// Passes the key on top, in every run that has it.
    fn pass(&mut self) -> Result<()> {
        self.seen = false;
        self.last.clear();
        if let Some(&age) = self.heap.first() {
            self.last.extend_from_slice(self.readers[age].key().unwrap_or_default());
        }
        while let Some(&age) = self.heap.first()
            && self.readers[age].key() == Some(&self.last[..])
        {
            if !self.readers[age].advance()? {
                self.heap.swap_remove(0);
            }
            self.sink(0);
        }
        Ok(())
    }

    fn before(&self, a: usize, b: usize) -> bool {
        let (a, b) = (self.heap[a], self.heap[b]);
        self.readers[a].key().cmp(&self.readers[b].key()).then(b.cmp(&a)).is_lt()
    }

    fn sink(&mut self, mut at: usize) {
        loop {
            let mut least = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if child < self.heap.len() && self.before(child, least) {
                    least = child;
                }
            }
            if least == at {
                return;
            }
            self.heap.swap(at, least);
            at = least;
        }
    }
}
