//! RocksDB as a store, once tables evict: one database per task; all of a process share block cache, write buffers and threads.
//!
//! The write-ahead log is off: durability comes from checkpoints, and the live content is thrown away on restart. A
//! checkpoint flushes, then hard-links the SST files: what was uploaded before is not written again.
//!
//! Invariant: after the first failed write, flush or checkpoint a store answers nothing but that error. RocksDB tries to
//! resume by itself, and then it is not known which writes it lost.

use super::keyspace::group_range;
use super::memory::table_of;
use super::sorted::SortedFiles;
use super::{RestoredSnapshot, StateFile, StateStore, StateStores, Visit, VisitFound, Write, WriteBatch};
use crate::env::{Env, Files};
use crate::error::{Error, Result};
use crate::record::KeyGroup;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::compaction_filter::{CompactionFilter, Decision};
use rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, DB, DBCompressionType, DEFAULT_COLUMN_FAMILY_NAME, DataBlockIndexType, Direction, IteratorMode,
    Options, ReadOptions, WriteBufferManager, WriteOptions,
};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Bytes read at a time for a checksum or a copy.
const CHUNK: usize = 1 << 20;

/// A run smaller than this goes the way of any write: a file costs more than it saves.
const RUN_BYTES: usize = if cfg!(test) { 64 } else { 256 << 10 };

/// Files at level 0 that are merged into the levels below.
const LEVEL_0_FILES: i32 = 8;

/// Memory and threads that all databases of a process share.
#[derive(Debug, Clone, Copy)]
pub struct RocksSettings {
    /// Block cache, in bytes; write buffers are counted in it.
    pub cache_bytes: usize,
    /// All write buffers together, in bytes.
    pub write_buffer_bytes: usize,
    /// Flush and compaction threads.
    pub threads: i32,
}

impl Default for RocksSettings {
    fn default() -> Self {
        RocksSettings { cache_bytes: 256 << 20, write_buffer_bytes: 128 << 20, threads: 2 }
    }
}

/// Makes and restores [`StateStore`]s on RocksDB.
pub struct RocksStores {
    env: Env,
    settings: RocksSettings,
    cache: Cache,
    buffers: WriteBufferManager,
}

/// Up to which value tables have expired.
type Expired = Arc<Mutex<BTreeMap<u32, [u8; 8]>>>;

pub(super) struct RocksStore {
    db: DB,
    files: Arc<dyn Files>,
    dir: PathBuf,
    expired: Expired,
    /// Length and checksum of SST files seen before: they never change.
    known: Mutex<BTreeMap<String, (u64, u32)>>,
    failed: OnceLock<String>,
    /// Of files that hold one epoch's changes: soon to be merged with others, so not worth packing.
    run_options: Options,
    runs: AtomicU64,
}

impl RocksStores {
    /// Databases below folders of the real file system; checksums and copies go through `env`.
    pub fn new(env: Env, settings: RocksSettings) -> Self {
        let cache = Cache::new_hyper_clock_cache(settings.cache_bytes, 0);
        let buffers = WriteBufferManager::new_write_buffer_manager_with_cache(settings.write_buffer_bytes, false, cache.clone());
        RocksStores { env, settings, cache, buffers }
    }

    fn options(&self) -> Options {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&self.cache);
        blocks.set_bloom_filter(10.0, false);
        blocks.set_format_version(5);
        blocks.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
        blocks.set_data_block_hash_ratio(0.75);
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&blocks);
        options.set_write_buffer_manager(&self.buffers);
        options.set_write_buffer_size(self.settings.write_buffer_bytes.clamp(1 << 20, 64 << 20));
        options.set_compression_type(DBCompressionType::Lz4);
        // Most keys asked for are not among those written last.
        options.set_memtable_whole_key_filtering(true);
        options.set_memtable_prefix_bloom_ratio(0.05);
        // Each epoch adds files of all keys at level 0. The longer they gather, the seldomer the levels below are rewritten; a
        // read of a key that is not in memory asks each file's filter.
        options.set_level_zero_file_num_compaction_trigger(LEVEL_0_FILES);
        options.set_level_zero_slowdown_writes_trigger(4 * LEVEL_0_FILES);
        options.set_level_zero_stop_writes_trigger(8 * LEVEL_0_FILES);
        options.set_max_background_jobs(self.settings.threads);
        options.set_paranoid_checks(true);
        options.set_max_open_files(512);
        options.set_keep_log_file_num(1);
        options.set_stats_dump_period_sec(0);
        options
    }

    pub(super) fn open(&self, dir: &Path) -> Result<RocksStore> {
        let expired = Expired::default();
        let mut family = self.options();
        family.set_compaction_filter_factory(DropExpired(expired.clone()));
        let db = DB::open_cf_with_opts(&self.options(), dir, [(DEFAULT_COLUMN_FAMILY_NAME, family)]).map_err(|e| unreadable(e, dir))?;
        let mut run_options = self.options();
        run_options.set_compression_type(DBCompressionType::None);
        Ok(RocksStore {
            db,
            files: self.env.files.clone(),
            dir: dir.to_path_buf(),
            expired,
            known: Mutex::default(),
            failed: OnceLock::new(),
            run_options,
            runs: AtomicU64::new(0),
        })
    }

    fn empty_dir(&self, dir: &Path) -> Result<()> {
        let files = &self.env.files;
        if files.exists(dir)? {
            files.remove_dir_all(dir)?;
        }
        Ok(files.create_dir_all(dir)?)
    }

    /// Links what never changes, copies the rest: opening a database appends to its manifest.
    fn link_snapshot(&self, from: &Path, to: &Path) -> Result<()> {
        let files = &self.env.files;
        for name in files.list(from)? {
            let (source, target) = (from.join(&name), to.join(&name));
            if !is_sst(&name) || files.link_exclusive(&source, &target).is_err() {
                let mut copy = files.create(&target)?;
                read_chunks(files, &source, &mut |chunk| Ok(copy.write_all(chunk)?))?;
            }
        }
        Ok(())
    }

    /// Copies the wanted groups of a snapshot as sorted files that are moved in whole.
    fn copy_groups(&self, store: &RocksStore, snapshot: &RestoredSnapshot, wanted: &Range<KeyGroup>, nth: usize) -> Result<()> {
        let mut options = self.options();
        options.create_if_missing(false);
        // Its log must not land among the snapshot's files.
        options.set_db_log_dir(&store.dir);
        let source = DB::open_for_read_only(&options, &snapshot.dir, false).map_err(|e| unreadable(e, &snapshot.dir))?;
        let (from, to) = group_range(wanted);
        let mut read = ReadOptions::default();
        read.set_iterate_upper_bound(to);
        let writing = self.options();
        let mut files = SortedFiles::new(&store.db, &writing, store.dir.join(format!("restore-{nth}")));
        for row in source.iterator_opt(IteratorMode::From(&from, Direction::Forward), read) {
            let (key, value) = row.map_err(|e| unreadable(e, &snapshot.dir))?;
            files.add(Write::Put { key: &key, value: &value }).map_err(|e| failure(e, &store.dir))?;
        }
        files.ingest().map_err(|e| failure(e, &store.dir))
    }
}

impl StateStores for RocksStores {
    fn create(&self, dir: &Path) -> Result<Arc<dyn StateStore>> {
        self.empty_dir(dir)?;
        Ok(Arc::new(self.open(dir)?))
    }

    fn restore(&self, dir: &Path, snapshots: &[RestoredSnapshot], groups: Range<KeyGroup>) -> Result<Arc<dyn StateStore>> {
        self.empty_dir(dir)?;
        if let [only] = snapshots
            && only.groups == groups
        {
            self.link_snapshot(&only.dir, dir)?;
            return Ok(Arc::new(self.open(dir)?));
        }
        let store = self.open(dir)?;
        for (nth, snapshot) in snapshots.iter().enumerate() {
            let wanted = snapshot.groups.start.max(groups.start)..snapshot.groups.end.min(groups.end);
            if !wanted.is_empty() {
                self.copy_groups(&store, snapshot, &wanted, nth)?;
            }
        }
        Ok(Arc::new(store))
    }
}

impl RocksStore {
    fn family(&self) -> Result<&ColumnFamily> {
        let missing = || Error::fatal("a state database has no default column family").at(self.dir.display().to_string());
        self.db.cf_handle(DEFAULT_COLUMN_FAMILY_NAME).ok_or_else(missing)
    }

    fn check(&self) -> Result<()> {
        match self.failed.get() {
            None => Ok(()),
            Some(first) => Err(Error::restart(format!("the state store failed before: {first}")).at(self.dir.display().to_string())),
        }
    }

    /// A failure after which the content is unknown.
    fn fail(&self, e: rocksdb::Error) -> Error {
        let _ = self.failed.set(e.to_string());
        failure(e, &self.dir)
    }

    #[cfg(test)]
    pub(super) fn compact(&self) -> Result<()> {
        self.db.flush().map_err(|e| self.fail(e))?;
        self.db.compact_range(None::<&[u8]>, None::<&[u8]>);
        Ok(())
    }

    /// Lengths and checksums of a checkpoint's files.
    fn describe(&self, dir: &Path) -> Result<Vec<StateFile>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut still_there = BTreeMap::new();
        let mut files = Vec::new();
        for name in self.files.list(dir)? {
            let immutable = is_sst(&name);
            let (len, crc) = match known.get(&name) {
                Some(&seen) => seen,
                None => {
                    let (mut len, mut crc) = (0, crc32fast::Hasher::new());
                    read_chunks(&self.files, &dir.join(&name), &mut |chunk| {
                        len += chunk.len() as u64;
                        crc.update(chunk);
                        Ok(())
                    })?;
                    (len, crc.finalize())
                }
            };
            if immutable {
                still_there.insert(name.clone(), (len, crc));
            }
            files.push(StateFile { name, len, crc, immutable });
        }
        *known = still_there;
        Ok(files)
    }
}

impl StateStore for RocksStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.check()?;
        self.db.get(key).map_err(|e| failure(e, &self.dir))
    }

    fn multi_get(&self, keys: &[&[u8]], visit: VisitFound<'_>) -> Result<()> {
        self.check()?;
        let found = self.db.batched_multi_get_cf(self.family()?, keys.iter().copied(), false);
        for (at, value) in found.into_iter().enumerate() {
            if let Some(value) = value.map_err(|e| failure(e, &self.dir))? {
                visit(at, &value)?;
            }
        }
        Ok(())
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()> {
        self.check()?;
        if from >= to {
            return Ok(());
        }
        let mut read = ReadOptions::default();
        read.set_iterate_upper_bound(to);
        for row in self.db.iterator_opt(IteratorMode::From(from, Direction::Forward), read) {
            let (key, value) = row.map_err(|e| failure(e, &self.dir))?;
            visit(&key, &value)?;
        }
        Ok(())
    }

    fn write(&self, batch: &WriteBatch) -> Result<()> {
        self.check()?;
        // In key order the memtable finds each place near the one before.
        let mut writes = rocksdb::WriteBatch::default();
        for write in batch.outcome() {
            match write {
                Write::Put { key, value } => writes.put(key, value),
                Write::Delete { key } => writes.delete(key),
                Write::DeleteRange { from, to } => writes.delete_range(from, to),
            }
        }
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db.write_opt(writes, &options).map_err(|e| self.fail(e))
    }

    fn write_run(&self, batch: &WriteBatch) -> Result<()> {
        if batch.bytes() < RUN_BYTES {
            return self.write(batch);
        }
        self.check()?;
        let nth = self.runs.fetch_add(1, Relaxed);
        let mut files = SortedFiles::new(&self.db, &self.run_options, self.dir.join(format!("run-{nth}")));
        let added = batch.outcome().try_for_each(|write| files.add(write));
        added.and_then(|()| files.ingest()).map_err(|e| self.fail(e))
    }

    fn checkpoint(&self, dir: &Path) -> Result<Vec<StateFile>> {
        self.check()?;
        if let Some(parent) = dir.parent() {
            self.files.create_dir_all(parent)?;
        }
        // Without a log, what is not flushed is in no file.
        self.db.flush().map_err(|e| self.fail(e))?;
        Checkpoint::new(&self.db).and_then(|checkpoint| checkpoint.create_checkpoint(dir)).map_err(|e| self.fail(e))?;
        self.describe(dir)
    }

    fn expire(&self, table: u32, before: [u8; 8]) {
        self.expired.lock().unwrap_or_else(PoisonError::into_inner).insert(table, before);
    }
}

/// Drops values that are over while compacting.
struct DropExpired(Expired);

struct Filter(BTreeMap<u32, [u8; 8]>);

impl CompactionFilterFactory for DropExpired {
    type Filter = Filter;

    fn create(&mut self, _: CompactionFilterContext) -> Filter {
        Filter(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn name(&self) -> &CStr {
        c"waterwheel.expired"
    }
}

impl CompactionFilter for Filter {
    fn filter(&mut self, _level: u32, key: &[u8], value: &[u8]) -> Decision {
        let before = table_of(key).and_then(|table| self.0.get(&table));
        match (before, value.get(..8)) {
            (Some(before), Some(time)) if time < &before[..] => Decision::Remove,
            _ => Decision::Keep,
        }
    }

    fn name(&self) -> &CStr {
        c"waterwheel.expired"
    }
}

fn is_sst(name: &str) -> bool {
    name.ends_with(".sst")
}

fn read_chunks(files: &Arc<dyn Files>, path: &Path, visit: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut at = 0;
    loop {
        let chunk = files.read_at(path, at, CHUNK).map_err(|e| Error::from(e).at(path.display().to_string()))?;
        if chunk.is_empty() {
            return Ok(());
        }
        at += chunk.len() as u64;
        visit(&chunk)?;
    }
}

/// The live content is expendable: the newest checkpoint has what counts.
fn failure(e: rocksdb::Error, dir: &Path) -> Error {
    Error::restart("the state store failed").because(e).at(dir.display().to_string())
}

fn unreadable(e: rocksdb::Error, dir: &Path) -> Error {
    Error::fatal("a state database cannot be opened")
        .because(e)
        .at(dir.display().to_string())
        .help("check rights and space of the folder; a damaged checkpoint: restore an older one")
}
