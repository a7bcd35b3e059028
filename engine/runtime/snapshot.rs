//! A task's snapshot on its way from the barrier to the acknowledgement.
//!
//! Steps: frozen entries are encoded a bounded number at a time on the task's thread and written to the store in chunks in the
//! background; sinks finish staging meanwhile; when all is written, the store's checkpoint is taken and files that are not in
//! the checkpoint storage yet are uploaded, also in the background; then the snapshot is complete.
//!
//! Invariant: nothing newer than the barrier is in the snapshot: while one is outstanding, no table is evicted into the store.

use super::task::schemas;
use crate::checkpoint::{CheckpointStorage, OperatorSnapshot, SinkSegment, SnapshotFile, TaskSnapshot, Uploads, keep_segment};
use crate::env::{Bug, Env, planted};
use crate::error::{Error, Kind, Result};
use crate::exchange::Waker;
use crate::operators::{Node, SplitState};
use crate::record::{Barrier, KeyGroup, OperatorId, TaskId};
use crate::state::{StateStore, WriteBatch};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Encoded state goes to the background in chunks of this size, each a sorted run of its own.
const CHUNK_BYTES: usize = 16 << 20;
/// Chunks in the background at a time, one of them being written: an epoch as large as all state must not be in memory twice.
const CHUNKS: usize = 2;

/// What snapshots of one task need.
pub(crate) struct SnapshotContext {
    pub(crate) env: Env,
    pub(crate) task: TaskId,
    pub(crate) groups: Range<KeyGroup>,
    pub(crate) store: Option<Arc<dyn StateStore>>,
    pub(crate) storage: Arc<dyn CheckpointStorage>,
    /// Folder for store checkpoints before upload.
    pub(crate) work: PathBuf,
    /// What the storage holds already; used by the task's background jobs, which run one at a time.
    pub(crate) uploads: Arc<Mutex<Uploads>>,
    pub(crate) waker: Waker,
    /// Folder of staged segments, where the storage is to keep them, too.
    pub(crate) staging: Option<PathBuf>,
}

type Reply = Arc<Mutex<Option<Result<Vec<SnapshotFile>>>>>;

/// Walks the operators of a task.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(OnNode<'_>) -> Result<()>;
/// What the walk does at each.
pub(crate) type OnNode<'a> = &'a mut dyn FnMut(&mut Node) -> Result<()>;

/// How far a snapshot is.
pub(crate) enum Progress {
    /// Did something, more to do.
    Working,
    /// Waits for the background.
    Waiting,
    /// Complete.
    Complete(TaskSnapshot),
    /// Given up, because the checkpoint storage is away or full; these segments ride in the next snapshot.
    Declined(String, Vec<SinkSegment>),
}

/// One outstanding snapshot.
pub(crate) struct Snapshot {
    barrier: Barrier,
    finished: bool,
    operators: Vec<OperatorSnapshot>,
    segments: Vec<SinkSegment>,
    unprepared: Vec<OperatorId>,
    has_tables: bool,
    drained: bool,
    writes: WriteBatch,
    /// Chunks that are not in the store yet.
    writing: Arc<AtomicUsize>,
    failed: Arc<Mutex<Option<Error>>>,
    reply: Option<Reply>,
    files: Option<Vec<SnapshotFile>>,
    /// Of segments on their way into the storage.
    keeping: Option<Arc<Mutex<Option<Result<()>>>>>,
    kept: bool,
    declined: Option<String>,
}

impl Snapshot {
    pub(crate) fn new(barrier: Barrier, finished: bool) -> Self {
        Snapshot {
            barrier,
            finished,
            operators: Vec::new(),
            segments: Vec::new(),
            unprepared: Vec::new(),
            has_tables: false,
            drained: false,
            writes: WriteBatch::default(),
            writing: Arc::default(),
            failed: Arc::default(),
            reply: None,
            files: None,
            keeping: None,
            kept: false,
            declined: None,
        }
    }

    pub(crate) fn barrier(&self) -> Barrier {
        self.barrier
    }

    /// The barrier is at this operator: freeze its tables, take its blob.
    pub(crate) fn freeze(&mut self, node: &mut Node) {
        let id = node.context.operator.clone();
        let mut tables = node.operator.tables();
        tables.iter_mut().for_each(|t| t.freeze(self.barrier.epoch));
        self.has_tables |= !tables.is_empty();
        let schemas = schemas(&tables);
        drop(tables);
        self.operators.push(OperatorSnapshot { id: id.clone(), blob: node.operator.save(), splits: Vec::new(), tables: schemas });
        self.unprepared.push(id);
    }

    /// The splits of the task's source.
    pub(crate) fn source(&mut self, id: OperatorId, splits: Vec<SplitState>) {
        self.operators.push(OperatorSnapshot { id, blob: Vec::new(), splits, tables: Vec::new() });
    }

    /// A bounded amount of work. `carried`: segments of snapshots that were given up, which ride in this one when it is complete.
    pub(crate) fn advance(
        &mut self,
        context: &SnapshotContext,
        nodes: Visit<'_>,
        entries: usize,
        carried: &mut Vec<SinkSegment>,
    ) -> Result<Progress> {
        if let Some(e) = lock(&self.failed).take() {
            return Err(e);
        }
        self.prepared(nodes)?;
        if !self.drained {
            if self.writing.load(Relaxed) >= CHUNKS {
                return Ok(Progress::Waiting);
            }
            self.drain(context, nodes, entries)?;
            return Ok(Progress::Working);
        }
        if let Some(reply) = self.reply.as_ref().filter(|_| !planted(Bug::AckBeforeUpload)) {
            let Some(result) = lock(reply).take() else { return Ok(Progress::Waiting) };
            self.reply = None;
            self.uploaded(result, nodes)?;
        }
        if (self.files.is_none() && !planted(Bug::AckBeforeUpload)) || (!self.unprepared.is_empty() && !planted(Bug::AckBeforeStaged)) {
            return Ok(Progress::Waiting);
        }
        if self.declined.is_none() && !self.keep_segments(context, carried)? {
            return Ok(Progress::Waiting);
        }
        if let Some(reason) = self.declined.take() {
            return Ok(Progress::Declined(reason, std::mem::take(&mut self.segments)));
        }
        Ok(Progress::Complete(TaskSnapshot {
            task: context.task.clone(),
            groups: context.groups.clone(),
            files: self.files.take().unwrap_or_default(),
            operators: std::mem::take(&mut self.operators),
            segments: std::mem::take(&mut self.segments),
            finished: self.finished,
        }))
    }

    /// Of a snapshot that could not be uploaded the tables are not told: what it held goes with the next one.
    fn uploaded(&mut self, result: Result<Vec<SnapshotFile>>, nodes: Visit<'_>) -> Result<()> {
        match result {
            Err(e) if e.kind() == Kind::Transient => {
                self.files = Some(Vec::new());
                self.declined = Some(e.to_string());
                Ok(())
            }
            result => {
                self.files = Some(result?);
                let epoch = self.barrier.epoch;
                nodes(&mut |node| {
                    node.operator.tables().iter_mut().for_each(|t| t.drained(epoch));
                    Ok(())
                })
            }
        }
    }

    /// Brings all segments into a storage that is not where they were staged; whether that is over.
    fn keep_segments(&mut self, context: &SnapshotContext, carried: &mut Vec<SinkSegment>) -> Result<bool> {
        if let Some(keeping) = &self.keeping {
            let Some(result) = lock(keeping).take() else { return Ok(false) };
            (self.keeping, self.kept) = (None, true);
            match result {
                Err(e) if e.kind() == Kind::Transient => self.declined = Some(e.to_string()),
                result => result?,
            }
        }
        let Some(staging) = context.staging.clone().filter(|_| !self.kept) else { return Ok(true) };
        self.segments.append(carried);
        if self.segments.is_empty() {
            return Ok(true);
        }
        let keeping: Arc<Mutex<Option<Result<()>>>> = Arc::default();
        self.keeping = Some(keeping.clone());
        let segments: Vec<_> = self.segments.iter().map(|s| s.segment.clone()).collect();
        let (storage, waker) = (context.storage.clone(), context.waker.clone());
        context.env.background.run(
            &lane(&context.task),
            Box::new(move || {
                let kept = segments.iter().try_for_each(|segment| keep_segment(&*storage, &staging, segment));
                *lock(&keeping) = Some(kept);
                waker();
            }),
        );
        Ok(false)
    }

    fn prepared(&mut self, nodes: Visit<'_>) -> Result<()> {
        if self.unprepared.is_empty() {
            return Ok(());
        }
        let (unprepared, segments) = (&mut self.unprepared, &mut self.segments);
        nodes(&mut |node| {
            let id = node.context.operator.clone();
            if !unprepared.contains(&id) {
                return Ok(());
            }
            if let Some(done) = node.operator.prepared().map_err(|e| e.at(format!("operator {id}")))? {
                segments.extend(done.into_iter().map(|segment| SinkSegment { sink: id.clone(), segment }));
                unprepared.retain(|u| *u != id);
            }
            Ok(())
        })
    }

    fn drain(&mut self, context: &SnapshotContext, nodes: Visit<'_>, entries: usize) -> Result<()> {
        let (mut all, writes) = (true, &mut self.writes);
        nodes(&mut |node| {
            for table in node.operator.tables() {
                all &= table.drain(writes, entries).map_err(|e| e.at(format!("table {}", table.name())))?;
            }
            Ok(())
        })?;
        self.drained = all;
        if all && planted(Bug::LoseLastChunk) {
            self.writes = WriteBatch::default();
        }
        if self.writes.bytes() >= CHUNK_BYTES || (all && !self.writes.is_empty()) {
            self.write_chunk(context);
        }
        if all {
            self.store_checkpoint(context);
        }
        Ok(())
    }

    fn write_chunk(&mut self, context: &SnapshotContext) {
        let Some(store) = context.store.clone() else { return };
        let writes = std::mem::take(&mut self.writes);
        let (failed, writing, waker) = (self.failed.clone(), self.writing.clone(), context.waker.clone());
        writing.fetch_add(1, Relaxed);
        context.env.background.run(
            &lane(&context.task),
            Box::new(move || {
                if let Err(e) = store.write_run(&writes) {
                    lock(&failed).get_or_insert(e);
                }
                writing.fetch_sub(1, Relaxed);
                waker();
            }),
        );
    }

    /// After the last chunk, in order on the same lane.
    fn store_checkpoint(&mut self, context: &SnapshotContext) {
        let Some(store) = context.store.clone().filter(|_| self.has_tables) else {
            self.files = Some(Vec::new());
            return;
        };
        let reply: Reply = Arc::default();
        self.reply = Some(reply.clone());
        let failed = self.failed.clone();
        let epoch = self.barrier.epoch;
        let upload = Upload {
            env: context.env.clone(),
            storage: context.storage.clone(),
            dir: context.work.join(format!("chk-{epoch}")),
            epoch,
            uploads: context.uploads.clone(),
        };
        let waker = context.waker.clone();
        context.env.background.run(
            &lane(&context.task),
            Box::new(move || {
                // Not in the `match`: it would hold the lock, for which the task's next step waits, until the upload is done.
                let written = lock(&failed).take().map_or(Ok(()), Err);
                let result = written.and_then(|()| upload.run(&*store));
                *lock(&reply) = Some(result);
                waker();
                if let Err(e) = store.tidy() {
                    // The store answers every later call with it. There is none where the job has ended and cleared its folder.
                    tracing::debug!(error = %e, "tidying up state failed");
                }
            }),
        );
    }
}

struct Upload {
    env: Env,
    storage: Arc<dyn CheckpointStorage>,
    dir: PathBuf,
    epoch: u64,
    uploads: Arc<Mutex<Uploads>>,
}

impl Upload {
    fn run(&self, store: &dyn StateStore) -> Result<Vec<SnapshotFile>> {
        if self.env.files.exists(&self.dir)? {
            self.env.files.remove_dir_all(&self.dir)?;
        }
        let files = store.checkpoint(&self.dir)?;
        let uploaded = lock(&self.uploads).upload(&*self.storage, self.epoch, &self.dir, &files);
        // What the storage holds is durable; the local copy has served. A leftover folder only costs space.
        let _ = self.env.files.remove_dir_all(&self.dir);
        uploaded
    }
}

fn lane(task: &TaskId) -> String {
    format!("state {task}")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
