//! The job log: the one truth about a job, and the fence between two coordinators.
//!
//! Entries have dense sequence numbers, each put if absent under `log/<sequence>`. Whoever finds a slot taken by another
//! attempt has been replaced and stops. Now and then the log folds itself into one entry and deletes what lies before it.
//!
//! Invariant: an entry is in the log once and for ever, in its slot; a gap, a damaged or a newer entry is refused, and an
//! empty log next to checkpoints is a lost log, not a new job.

use super::entry::{JobHistory, LogEntry};
use super::layout::{LOG, MANIFESTS, STATE, log_name};
use super::seal::{seal, unseal};
use super::storage::CheckpointStorage;
use crate::env::{Bug, Env, planted};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Version of the entries' format.
const VERSION: u16 = 1;
/// Entries between two folds.
const FOLD_EVERY: u64 = 256;
/// Entries kept before a fold, for people who read the log.
const KEEP: u64 = 64;

/// Why an append did not happen.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Another coordinator has taken the job over: stop, publish nothing more.
    #[error("another coordinator has taken the job over at log entry {sequence}")]
    Lost {
        /// The slot that it took.
        sequence: u64,
    },
    /// The outcome is unknown; append the same entry again.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<LogError> for Error {
    fn from(e: LogError) -> Error {
        match e {
            LogError::Failed(e) => e,
            lost => Error::fatal(lost.to_string()).help("nothing to do if that was meant; else stop the other process and run again"),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    version: u16,
    sequence: u64,
    attempt: String,
    wall_ms: i64,
    body: LogEntry,
}

/// The log of one job, as one attempt reads and writes it.
pub struct JobLog {
    env: Env,
    storage: Arc<dyn CheckpointStorage>,
    attempt: String,
    next: Arc<AtomicU64>,
    history: Option<JobHistory>,
    /// Newest folded entry; 0 = none.
    folded: u64,
    /// Oldest entry that may still be there.
    oldest: u64,
    /// An append of unknown outcome: these very bytes are tried again.
    pending: Option<(LogEntry, Vec<u8>)>,
}

impl JobLog {
    /// Reads the whole log. `attempt` is this process's fresh identity ([`Env::fresh_id`]).
    ///
    /// # Errors
    /// Fatal with the reason when entries are missing, damaged or newer than this program, or when checkpoints are there and
    /// the log is not.
    pub fn open(env: &Env, storage: Arc<dyn CheckpointStorage>, attempt: &str) -> Result<JobLog> {
        let next = Arc::new(AtomicU64::new(1));
        let mut log =
            JobLog { env: env.clone(), storage, attempt: attempt.to_string(), next, history: None, folded: 0, oldest: 1, pending: None };
        log.read()?;
        Ok(log)
    }

    /// What the entries add up to; `None` for a new job.
    pub fn history(&self) -> Option<&JobHistory> {
        self.history.as_ref()
    }

    /// What it reads and writes through.
    pub(super) fn env(&self) -> &Env {
        &self.env
    }

    /// This attempt.
    pub fn attempt(&self) -> &str {
        &self.attempt
    }

    /// Sequence number of the next entry.
    pub fn next(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }

    /// Appends. After `Failed` the entry may be there or not: append the very same entry again before any other.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn append(&mut self, entry: &LogEntry) -> Result<(), LogError> {
        if let Some((fold @ LogEntry::Folded { .. }, _)) = &self.pending {
            let fold = fold.clone();
            self.put(&fold)?;
        }
        self.put(entry)?;
        if matches!(entry, LogEntry::CheckpointComplete { .. }) && self.next() > self.folded + FOLD_EVERY {
            // A fold that fails stays pending; the entry asked for is in the log.
            let _ = self.fold();
        }
        Ok(())
    }

    /// Appends at the end, wherever that is by now: how a new attempt takes over from whoever wrote last. The entry is made
    /// from the history it will follow.
    ///
    /// # Errors
    /// Those of reading and appending; `Lost` only when another attempt wins every time.
    pub fn claim(&mut self, entry: impl Fn(Option<&JobHistory>) -> Result<LogEntry>) -> Result<(), LogError> {
        let mut lost = None;
        for _ in 0..100 {
            let entry = entry(self.history.as_ref())?;
            match self.append(&entry) {
                Err(e @ LogError::Lost { .. }) => lost = Some(e),
                other => return other,
            }
            self.read()?;
        }
        Err(lost.unwrap_or(LogError::Lost { sequence: self.next() }))
    }

    /// A handle that other threads ask whether the log is still ours.
    pub fn watch(&self) -> LogWatch {
        LogWatch { storage: self.storage.clone(), attempt: self.attempt.clone(), next: self.next.clone() }
    }

    fn put(&mut self, entry: &LogEntry) -> Result<(), LogError> {
        let sequence = self.next();
        let bytes = match &self.pending {
            Some((pending, bytes)) if pending == entry => bytes.clone(),
            Some(_) => return Err(Error::fatal("bug: another log entry while the outcome of the last is unknown").into()),
            None => {
                let wall_ms = self.env.clock.wall_ms();
                seal(&Envelope { version: VERSION, sequence, attempt: self.attempt.clone(), wall_ms, body: entry.clone() })?
            }
        };
        let mut history = self.history.clone();
        JobHistory::apply(&mut history, entry).map_err(|why| Error::fatal(format!("bug: log entry {sequence} is refused: {why}")))?;
        let name = log_name(sequence);
        self.pending = Some((entry.clone(), bytes.clone()));
        if !self.storage.put_if_absent(&name, &bytes)? && !planted(Bug::TakeAnySlot) && self.storage.get(&name)?.as_ref() != Some(&bytes) {
            self.pending = None;
            return Err(LogError::Lost { sequence });
        }
        // Where the log was folded far beyond us, our slot was free again; then its predecessor is gone as well.
        if sequence > 1 && self.storage.size(&log_name(sequence - 1))?.is_none() {
            self.storage.delete(&name)?;
            self.pending = None;
            return Err(LogError::Lost { sequence });
        }
        self.pending = None;
        self.history = history;
        self.next.store(sequence + 1, Ordering::Release);
        Ok(())
    }

    fn fold(&mut self) -> Result<(), LogError> {
        let Some(history) = self.history.clone() else { return Ok(()) };
        let sequence = self.next();
        self.put(&LogEntry::Folded { history: Box::new(history) })?;
        self.folded = sequence;
        // Upwards, so that what is left is dense whenever this ends.
        while self.oldest + KEEP < sequence {
            self.storage.delete(&log_name(self.oldest))?;
            self.oldest += 1;
        }
        Ok(())
    }

    fn read(&mut self) -> Result<()> {
        let mut sequences = Vec::new();
        for name in self.storage.list(LOG)? {
            let number = name.strip_prefix(LOG).and_then(|n| n.strip_prefix('/')).filter(|n| n.len() == 20).and_then(|n| n.parse().ok());
            sequences.push(number.ok_or_else(|| self.refuse(format!("{name} is not a log entry")))?);
        }
        (self.pending, self.history, self.folded) = (None, None, 0);
        self.oldest = sequences.first().copied().unwrap_or(1);
        let Some(&last) = sequences.last() else {
            self.next.store(1, Ordering::Release);
            let left = [self.storage.list(MANIFESTS)?, self.storage.list(STATE)?].concat();
            return match left.first() {
                None => Ok(()),
                Some(name) => Err(self.refuse(format!("the job log is gone, but {name} is there"))),
            };
        };
        let mut entries = Vec::new();
        let mut sequence = last;
        loop {
            if sequences.binary_search(&sequence).is_err() {
                return Err(self.refuse(format!("log entry {sequence} is missing, {} is there", sequence + 1)));
            }
            let entry = self.read_entry(sequence)?;
            let folded = matches!(entry, LogEntry::Folded { .. });
            entries.push((sequence, entry));
            if folded {
                self.folded = sequence;
            }
            if folded || sequence == 1 {
                break;
            }
            sequence -= 1;
        }
        for (sequence, entry) in entries.iter().rev() {
            JobHistory::apply(&mut self.history, entry)
                .map_err(|why| self.refuse(format!("log entry {sequence} contradicts those before it: {why}")))?;
        }
        self.next.store(last + 1, Ordering::Release);
        Ok(())
    }

    fn read_entry(&self, sequence: u64) -> Result<LogEntry> {
        let name = log_name(sequence);
        let bytes = self.storage.get(&name)?.ok_or_else(|| self.refuse(format!("log entry {sequence} is missing")))?;
        let envelope: Envelope = unseal(&format!("log entry {name}"), VERSION, &bytes).map_err(|e| e.at(self.storage.describe()))?;
        if envelope.sequence != sequence {
            return Err(self.refuse(format!("{name} holds entry {}", envelope.sequence)));
        }
        Ok(envelope.body)
    }

    fn refuse(&self, why: String) -> Error {
        Error::fatal(why)
            .at(format!("checkpoint store {}", self.storage.describe()))
            .help("bring the missing or damaged files back from a copy; or start from a savepoint under another name or folder")
    }
}

/// Whether this attempt still owns the job. Cheap enough to ask before and after every fence.
#[derive(Clone)]
pub struct LogWatch {
    storage: Arc<dyn CheckpointStorage>,
    attempt: String,
    next: Arc<AtomicU64>,
}

impl LogWatch {
    /// `Ok` if nobody else has written since our last entry.
    ///
    /// # Errors
    /// `Lost` when somebody has; `Failed` while the store is away.
    pub fn still_ours(&self) -> Result<(), LogError> {
        let sequence = self.next.load(Ordering::Acquire);
        let ours = match self.storage.get(&log_name(sequence))? {
            // The entry may be our own, appended at this moment by another thread.
            Some(bytes) => {
                let envelope: Envelope = unseal(&log_name(sequence), VERSION, &bytes)?;
                envelope.attempt == self.attempt
            }
            None => sequence == 1 || self.storage.size(&log_name(sequence - 1))?.is_some(),
        };
        if ours { Ok(()) } else { Err(LogError::Lost { sequence }) }
    }
}
