//! RocksDB as a store, once tables evict: one database per task; all of a process share block cache, write buffers and threads.
//!
//! Nothing goes through a memtable or a write-ahead log: what tables evict is gathered in a [`Buffer`], and that, as an epoch's
//! run, goes in as a sorted file. Durability comes from checkpoints, and the live content is thrown away on restart. A checkpoint
//! hard-links the files: what was uploaded before is not written again. For the same reason files are compacted by size and
//! not by level: each epoch changes keys all over the place, and levels would be written anew for every few of them.
//!
//! Invariant: the buffer being filled is newer than the one before, and that is as new as the files or newer. After the first
//! failed write or checkpoint a store answers nothing but that error: RocksDB tries to resume by itself, and then it is not
//! known which writes it lost.

use super::batch::prefix;
use super::buffer::Buffer;
use super::index::ABREAST;
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
    BlockBasedOptions, Cache, ColumnFamily, DB, DBCompactionStyle, DBCompressionType, DEFAULT_COLUMN_FAMILY_NAME, DataBlockIndexType,
    Direction, IteratorMode, Options, ReadOptions, UniversalCompactOptions, WaitForCompactOptions, properties,
};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

/// Bytes read at a time for a checksum or a copy.
const CHUNK: usize = 1 << 20;

/// Bytes that a buffer may have when it goes in, at least and at most.
const BUFFERED: (usize, usize) = if cfg!(test) { (128, 128) } else { (1 << 20, 16 << 20) };

/// So many sorted files are merged into fewer. The longer they gather, the seldomer is written what was written before; a read
/// of a key that is not in memory asks each file's filter.
const SORTED_FILES: i32 = 8;

/// With so many, whoever brings more waits until they are merged.
const TOO_MANY_FILES: u64 = 64;

/// A key may take so much room in files that newer ones have replaced, in percent, before all are merged into one.
const REPLACED_PERCENT: i32 = 150;

/// Memory and threads that all databases of a process share.
#[derive(Debug, Clone, Copy)]
pub struct RocksSettings {
    /// Block cache, in bytes.
    pub cache_bytes: usize,
    /// What was evicted last and is on its way into a database or just came in, of one task, in bytes.
    pub write_buffer_bytes: usize,
    /// Compaction threads.
    pub threads: i32,
}

impl Default for RocksSettings {
    fn default() -> Self {
        RocksSettings { cache_bytes: 256 << 20, write_buffer_bytes: 32 << 20, threads: 2 }
    }
}

/// Makes and restores [`StateStore`]s on RocksDB.
pub struct RocksStores {
    env: Env,
    settings: RocksSettings,
    cache: Cache,
}

/// Up to which value tables have expired.
type Expired = Arc<Mutex<BTreeMap<u32, [u8; 8]>>>;

pub(super) struct RocksStore {
    database: Arc<Database>,
    pending: Arc<Pending>,
    env: Env,
    expired: Expired,
    /// Length and checksum of SST files seen before: they never change.
    known: Mutex<BTreeMap<String, (u64, u32)>>,
    /// Bytes at which a buffer goes in.
    buffered: usize,
}

/// The database itself: sorted files go in, values come out.
struct Database {
    db: DB,
    dir: PathBuf,
    failed: OnceLock<String>,
    /// Of files that hold one epoch's changes: soon to be merged with others, so not worth packing.
    run_options: Options,
    runs: AtomicU64,
}

/// What is not in the database yet, or came in last.
#[derive(Default)]
struct Pending {
    buffers: Mutex<Buffers>,
    /// Nothing is on its way in any more.
    is_in: Condvar,
}

#[derive(Default)]
struct Buffers {
    filling: Buffer,
    /// The one before. It stays when it is in, until something newer comes in beside it: what was evicted not long ago is
    /// wanted most of all, and found here for a fraction of what the database takes.
    last: Option<Arc<Buffer>>,
    /// The last one is on its way in.
    is_entering: bool,
}

impl RocksStores {
    /// Databases below folders of the real file system; checksums and copies go through `env`.
    pub fn new(env: Env, settings: RocksSettings) -> Self {
        let cache = Cache::new_hyper_clock_cache(settings.cache_bytes, 0);
        RocksStores { env, settings, cache }
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
        options.set_compression_type(DBCompressionType::Lz4);
        let mut universal = UniversalCompactOptions::default();
        universal.set_max_size_amplification_percent(REPLACED_PERCENT);
        options.set_compaction_style(DBCompactionStyle::Universal);
        options.set_universal_compaction_options(&universal);
        options.set_level_zero_file_num_compaction_trigger(SORTED_FILES);
        options.set_level_zero_slowdown_writes_trigger(4 * SORTED_FILES);
        options.set_level_zero_stop_writes_trigger(16 * SORTED_FILES);
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
        let (failed, runs) = (OnceLock::new(), AtomicU64::new(0));
        let database = Database { db, dir: dir.to_path_buf(), failed, run_options, runs };
        Ok(RocksStore {
            database: Arc::new(database),
            pending: Arc::default(),
            env: self.env.clone(),
            expired,
            known: Mutex::default(),
            // One is filled while another one goes in.
            buffered: (self.settings.write_buffer_bytes / 2).clamp(BUFFERED.0, BUFFERED.1),
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
        let Database { db, dir, .. } = &*store.database;
        options.set_db_log_dir(dir);
        let source = DB::open_for_read_only(&options, &snapshot.dir, false).map_err(|e| unreadable(e, &snapshot.dir))?;
        let (from, to) = group_range(wanted);
        let mut read = ReadOptions::default();
        read.set_iterate_upper_bound(to);
        let writing = self.options();
        let mut files = SortedFiles::new(db, &writing, dir.join(format!("restore-{nth}")));
        for row in source.iterator_opt(IteratorMode::From(&from, Direction::Forward), read) {
            let (key, value) = row.map_err(|e| unreadable(e, &snapshot.dir))?;
            files.add(Write::Put { key: &key, value: &value }).map_err(|e| failure(e, dir))?;
        }
        files.ingest().map_err(|e| failure(e, dir))
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

impl Database {
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

    /// Takes a batch in as sorted files. While there are far too many of them it waits: else reads would get slower and slower.
    fn enter(&self, batch: &WriteBatch) -> Result<()> {
        self.check()?;
        let files = self.db.property_int_value(properties::num_files_at_level(0)).map_err(|e| self.fail(e))?;
        if files.is_some_and(|files| files >= TOO_MANY_FILES) {
            self.db.wait_for_compact(&WaitForCompactOptions::default()).map_err(|e| self.fail(e))?;
        }
        let nth = self.runs.fetch_add(1, Relaxed);
        let mut files = SortedFiles::new(&self.db, &self.run_options, self.dir.join(format!("run-{nth}")));
        let added = batch.outcome().try_for_each(|write| files.add(write));
        added.and_then(|()| files.ingest()).map_err(|e| self.fail(e))
    }
}

impl Pending {
    fn lock(&self) -> MutexGuard<'_, Buffers> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As soon as nothing is on its way in.
    fn when_in(&self) -> MutexGuard<'_, Buffers> {
        self.is_in.wait_while(self.lock(), |buffers| buffers.is_entering).unwrap_or_else(PoisonError::into_inner)
    }

    /// What was on its way is in the database, or that has failed and says so.
    fn entered(&self) {
        self.lock().is_entering = false;
        self.is_in.notify_all();
    }
}

impl Buffers {
    /// Sends off what there is; the next changes are newer.
    fn send(&mut self) -> Arc<Buffer> {
        let next = Buffer::like(&self.filling);
        let buffer = Arc::new(std::mem::replace(&mut self.filling, next));
        (self.last, self.is_entering) = (Some(buffer.clone()), true);
        buffer
    }
}

impl RocksStore {
    /// Everything buffered is in the database.
    fn settle(&self) -> Result<()> {
        let mut buffers = self.pending.when_in();
        if buffers.filling.is_empty() {
            return self.database.check();
        }
        let buffer = buffers.send();
        drop(buffers);
        let entered = self.database.enter(buffer.batch());
        self.pending.entered();
        entered
    }

    /// Lets a full buffer go in, without waiting for it.
    fn send_full(&self) {
        let mut buffers = self.pending.when_in();
        let buffer = buffers.send();
        drop(buffers);
        let (database, pending) = (self.database.clone(), self.pending.clone());
        let enter = move || {
            // Whatever comes next finds the failure noted.
            let _ = database.enter(buffer.batch());
            // First, because whoever waits may open the folder again.
            drop(database);
            pending.entered();
        };
        self.env.background.run(&format!("spill {}", self.database.dir.display()), Box::new(enter));
    }

    #[cfg(test)]
    pub(super) fn compact(&self) -> Result<()> {
        self.settle()?;
        self.database.db.compact_range(None::<&[u8]>, None::<&[u8]>);
        Ok(())
    }

    /// Lengths and checksums of a checkpoint's files.
    fn describe(&self, dir: &Path) -> Result<Vec<StateFile>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut still_there = BTreeMap::new();
        let mut files = Vec::new();
        for name in self.env.files.list(dir)? {
            let immutable = is_sst(&name);
            let (len, crc) = match known.get(&name) {
                Some(&seen) => seen,
                None => {
                    let (mut len, mut crc) = (0, crc32fast::Hasher::new());
                    read_chunks(&self.env.files, &dir.join(&name), &mut |chunk| {
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

impl Drop for RocksStore {
    fn drop(&mut self) {
        // The folder may be used again at once.
        drop(self.pending.when_in());
    }
}

impl StateStore for RocksStore {
    fn multi_get(&self, keys: &[&[u8]], visit: VisitFound<'_>) -> Result<()> {
        let database = &*self.database;
        database.check()?;
        let mut missing = Vec::with_capacity(keys.len());
        {
            let buffers = self.pending.lock();
            let newest_first = || [&buffers.filling].into_iter().chain(buffers.last.as_deref());
            for (nth, some) in keys.chunks(ABREAST).enumerate() {
                let mut hashes = [0; ABREAST];
                hashes.iter_mut().zip(some).for_each(|(hash, key)| *hash = Buffer::hash(key));
                newest_first().for_each(|buffer| buffer.touch(&hashes[..some.len()]));
                for (at, (key, hash)) in (nth * ABREAST..).zip(some.iter().zip(hashes)) {
                    match newest_first().find_map(|buffer| buffer.get(key, hash)) {
                        Some(Some(value)) => visit(at, value)?,
                        Some(None) => {}
                        None => missing.push((prefix(key), at)),
                    }
                }
            }
        }
        // The database wants them in order; it would compare bytes where numbers do.
        missing.sort_unstable_by(|&(start, at), &(other, other_at)| start.cmp(&other).then_with(|| keys[at].cmp(keys[other_at])));
        let found = database.db.batched_multi_get_cf(database.family()?, missing.iter().map(|&(_, at)| keys[at]), true);
        for ((_, at), value) in missing.into_iter().zip(found) {
            if let Some(value) = value.map_err(|e| failure(e, &database.dir))? {
                visit(at, &value)?;
            }
        }
        Ok(())
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()> {
        self.settle()?;
        if from >= to {
            return Ok(());
        }
        let mut read = ReadOptions::default();
        read.set_iterate_upper_bound(to);
        for row in self.database.db.iterator_opt(IteratorMode::From(from, Direction::Forward), read) {
            let (key, value) = row.map_err(|e| failure(e, &self.database.dir))?;
            visit(&key, &value)?;
        }
        Ok(())
    }

    fn write(&self, batch: &WriteBatch) -> Result<()> {
        if batch.has_ranges() || batch.bytes() >= self.buffered {
            return self.write_run(batch);
        }
        self.database.check()?;
        let is_full = {
            let mut buffers = self.pending.lock();
            buffers.filling.add(batch);
            buffers.filling.bytes() >= self.buffered
        };
        if is_full {
            self.send_full();
        }
        Ok(())
    }

    fn write_run(&self, batch: &WriteBatch) -> Result<()> {
        self.settle()?;
        self.pending.when_in().last = None; // older than what comes in now
        self.database.enter(batch)
    }

    fn checkpoint(&self, dir: &Path) -> Result<Vec<StateFile>> {
        self.settle()?;
        if let Some(parent) = dir.parent() {
            self.env.files.create_dir_all(parent)?;
        }
        let database = &*self.database;
        Checkpoint::new(&database.db).and_then(|checkpoint| checkpoint.create_checkpoint(dir)).map_err(|e| database.fail(e))?;
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
