//! A task's store on disk: a journal as long as its tables are in memory whole, a database from the first eviction on.
//!
//! What tables hold in memory is written to be restored, not to be read: a journal costs a fraction of what a database does,
//! which keeps everything findable. The first write that is no epoch's run (an eviction), or the first read after the restore,
//! moves the journal into a database, for good.
//!
//! Invariant: content is in one of the two, never in both; after the first failure that may have cost content the store
//! answers nothing else.

use super::journal::{Journal, runs_of};
use super::keyspace::group_range;
use super::rocks::{RocksSettings, RocksStores};
use super::run::RunReader;
use super::{RestoredSnapshot, Scratch, StateFile, StateStore, StateStores, Visit, VisitFound, Write, WriteBatch};
use crate::env::{Env, Files};
use crate::error::{Error, Kind, Result};
use crate::record::KeyGroup;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Bytes that go into the database at a time.
const MOVED_AT_ONCE: usize = 16 << 20;

/// Makes and restores stores that begin as a journal.
pub struct TieredStores {
    files: Arc<dyn Files>,
    databases: Arc<dyn StateStores>,
}

impl TieredStores {
    /// Journals through the files of `env`, and what they become once tables evict.
    pub fn new(env: &Env, databases: Arc<dyn StateStores>) -> Self {
        TieredStores { files: env.files.clone(), databases }
    }

    /// What jobs run on: journals, and RocksDB behind them.
    pub fn on_disk(env: &Env, settings: RocksSettings) -> Self {
        Self::new(env, Arc::new(RocksStores::new(env.clone(), settings)))
    }

    fn store(&self, dir: &Path) -> Result<TieredStore> {
        if self.files.exists(dir)? {
            self.files.remove_dir_all(dir)?;
        }
        let (journal_dir, database_dir) = (dir.join("journal"), dir.join("database"));
        self.files.create_dir_all(&journal_dir)?;
        Ok(TieredStore {
            files: self.files.clone(),
            databases: self.databases.clone(),
            scratch: Scratch::new(&self.files, &dir.join("rows")),
            journal_dir,
            database_dir,
            journal: Mutex::default(),
            database: OnceLock::new(),
            failed: OnceLock::new(),
        })
    }
}

impl StateStores for TieredStores {
    fn create(&self, dir: &Path) -> Result<Arc<dyn StateStore>> {
        let store = self.store(dir)?;
        *store.journal() = Some(Journal::new(&self.files, &store.journal_dir));
        Ok(Arc::new(store))
    }

    fn restore(&self, dir: &Path, snapshots: &[RestoredSnapshot], groups: Range<KeyGroup>) -> Result<Arc<dyn StateStore>> {
        let store = self.store(dir)?;
        let (mut journals, mut databases) = (Vec::new(), Vec::new());
        for snapshot in snapshots {
            let is_journal = Journal::is_snapshot(&self.files, &snapshot.dir)?;
            if is_journal { journals.push(snapshot.clone()) } else { databases.push(snapshot.clone()) }
        }
        if databases.is_empty() {
            *store.journal() = Some(Journal::restore(&self.files, &store.journal_dir, &journals, &groups)?);
            return Ok(Arc::new(store));
        }
        let database = self.databases.restore(&store.database_dir, &databases, groups.clone())?;
        for snapshot in &journals {
            for run in runs_of(&self.files, &snapshot.dir)? {
                move_run(&mut RunReader::open(&self.files, &run)?, &groups, &*database)?;
            }
        }
        let _ = store.database.set(database); // it is empty: nobody else knows the store yet
        Ok(Arc::new(store))
    }
}

struct TieredStore {
    files: Arc<dyn Files>,
    databases: Arc<dyn StateStores>,
    scratch: Scratch,
    journal_dir: PathBuf,
    database_dir: PathBuf,
    journal: Mutex<Option<Journal>>,
    database: OnceLock<Arc<dyn StateStore>>,
    failed: OnceLock<String>,
}

/// Writes what a run holds of the groups, newer than all that is there.
fn move_run(run: &mut RunReader, groups: &Range<KeyGroup>, to: &dyn StateStore) -> Result<()> {
    let (first, end) = group_range(groups);
    let is_ours = |key: &[u8]| first[..] <= *key && *key < end[..];
    let mut batch = WriteBatch::default();
    while run.advance()? {
        match run.change() {
            Some(Write::Put { key, value }) if is_ours(key) => batch.put(key, value),
            Some(Write::Delete { key }) if is_ours(key) => batch.delete(key),
            // Tables remove ranges within a group.
            Some(Write::DeleteRange { from, to }) if is_ours(from) => batch.delete_range(from, to),
            _ => {}
        }
        if batch.bytes() >= MOVED_AT_ONCE {
            to.write_run(&batch)?;
            batch.clear();
        }
    }
    to.write_run(&batch)
}

impl TieredStore {
    fn journal(&self) -> MutexGuard<'_, Option<Journal>> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self) -> Result<()> {
        match self.failed.get() {
            None => Ok(()),
            Some(first) => {
                Err(Error::restart(format!("the state store failed before: {first}")).at(self.journal_dir.display().to_string()))
            }
        }
    }

    /// A failure after which the content is unknown.
    fn noted<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(e) = &result {
            let _ = self.failed.set(e.to_string()); // the first one counts
        }
        result
    }

    /// Does something in the journal, if that is still where content goes.
    fn in_journal<T>(&self, work: impl FnOnce(&mut Journal) -> Result<T>) -> Result<Option<T>> {
        self.check()?;
        if self.database.get().is_some() {
            return Ok(None);
        }
        match &mut *self.journal() {
            Some(journal) => self.noted(work(journal)).map(Some),
            None => Ok(None),
        }
    }

    /// The database; at first the journal is moved into it.
    fn database(&self) -> Result<&dyn StateStore> {
        self.check()?;
        if let Some(database) = self.database.get() {
            return Ok(&**database);
        }
        let mut journal = self.journal();
        if let Some(old) = &*journal {
            let database = self.noted(self.moved(old))?;
            let _ = self.database.set(database); // it is empty: we hold the lock and there was a journal
            *journal = None;
            // It has served; a leftover only costs space until the task ends.
            let _ = self.files.remove_dir_all(&self.journal_dir);
        }
        let database = self.database.get().map(|database| &**database);
        database.ok_or_else(|| Error::fatal("a state store has neither journal nor database: a bug"))
    }

    fn moved(&self, journal: &Journal) -> Result<Arc<dyn StateStore>> {
        let database = self.databases.create(&self.database_dir)?;
        journal.replay(&mut |run| move_run(run, &(0..KeyGroup::MAX), &*database))?;
        Ok(database)
    }

    /// Reads the journal, if it can be read.
    fn read_journal(&self, read: impl FnOnce(&Journal) -> Option<Result<()>>) -> Option<Result<()>> {
        if self.database.get().is_some() {
            return None;
        }
        self.journal().as_ref().and_then(read)
    }
}

impl StateStore for TieredStore {
    fn multi_get(&self, keys: &[&[u8]], visit: VisitFound<'_>) -> Result<()> {
        match self.read_journal(|journal| journal.multi_get(keys, visit)) {
            Some(result) => result,
            None => self.database()?.multi_get(keys, visit),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()> {
        match self.read_journal(|journal| journal.scan(from, to, visit)) {
            Some(result) => result,
            None => self.database()?.scan(from, to, visit),
        }
    }

    fn is_resident(&self) -> bool {
        self.database.get().is_none()
    }

    fn write(&self, batch: &WriteBatch) -> Result<()> {
        self.database()?.write(batch)
    }

    fn write_run(&self, batch: &WriteBatch) -> Result<()> {
        match self.in_journal(|journal| journal.write(batch))? {
            Some(()) => Ok(()),
            None => self.database()?.write_run(batch),
        }
    }

    fn checkpoint(&self, dir: &Path) -> Result<Vec<StateFile>> {
        // One that fails leaves the journal as it was: the next may work.
        match self.in_journal(|journal| Ok(journal.checkpoint(dir)))? {
            Some(files) => files,
            None => self.database()?.checkpoint(dir),
        }
    }

    fn tidy(&self) -> Result<()> {
        // Trouble that passes leaves the journal as it was; a run that cannot be read any more must not go unnoticed.
        match self.in_journal(|journal| Ok(journal.tidy()))? {
            Some(Err(e)) if e.kind() != Kind::Transient => self.noted(Err(e)),
            Some(result) => result,
            None => self.database()?.tidy(),
        }
    }

    fn scratch(&self) -> Option<Scratch> {
        Some(self.scratch.clone())
    }

    fn expire(&self, table: u32, before: [u8; 8]) {
        match self.database.get() {
            Some(database) => database.expire(table, before),
            // Called by the task, which must not wait for the background: whoever comes too late tells the next time.
            None => {
                if let Ok(mut journal) = self.journal.try_lock()
                    && let Some(journal) = &mut *journal
                {
                    journal.expire(table, before);
                }
            }
        }
    }
}
