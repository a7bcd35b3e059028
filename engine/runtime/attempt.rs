//! From "the process runs" to "tasks may run": one attempt, ready to be stepped.
//!
//! Order, and why: what will be restored is verified first, so that damage stops the start before anything moves; the log is
//! claimed and the lanes settled (`checkpoint::begin`) before anything runs, so that no other attempt can complete or publish
//! anything any more; leftovers are swept after that and before any task writes; splits of a
//! new source are pinned in the log before the first read.
//!
//! Invariant: on an error nothing runs yet, and the next attempt begins from the same metadata.

use super::assemble::{Assembled, Attempt, assemble, folder};
use super::chores::{Chores, Tools, backoff};
use super::driver::{Discovery, Driver, TaskHandle};
use super::job::JobRunner;
use super::keys::KeyWatch;
use super::task::{Restored, schemas};
use super::{Events, status::Phase};
use crate::checkpoint::{
    Begin, BeginOptions, CheckpointStorage, Coordinator, JOB_FOLDERS, JobHistory, JobLog, LaneId, LaneWorker, LocalStorage, LogEntry,
    Manifest, Places, PlanOperator, PlanSummary, Restore, RestoreTarget, Retention, SinkLanes, TableSchema, TaskRole, Uploads, begin,
    savepoint, sweep,
};
use crate::env::Env;
use crate::error::{Error, Kind, Result};
use crate::exchange::Waker;
use crate::graph::{Chain, NodeKind, PhysicalPlan, PlanNode, SourceSpec};
use crate::observe::Metrics;
use crate::operators::{OpenContext, PublisherContext, Source, Split, SplitId, SplitState};
use crate::record::{BarrierKind, OperatorId, TaskId, key_groups_of};
use crate::state::StateStore;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// An attempt that has recovered: tasks to be put on workers, and the driver around them.
pub(crate) struct Execution {
    pub(crate) tasks: Vec<Assembled>,
    pub(crate) driver: Driver,
    /// Working files; removed when the attempt is over.
    pub(crate) work: PathBuf,
}

/// Recovers. `pause` waits out transient trouble (on the real machine it sleeps), `wakers` are the workers', `wake` the driver's.
pub(crate) fn recover(job: &JobRunner, wakers: &[Waker], wake: &Waker, pause: &mut dyn FnMut(Duration) -> Result<()>) -> Result<Execution> {
    let env = &job.env;
    let started = env.clock.monotonic();
    job.status.update(|s| s.phase = Phase::Recovering);
    let plan = (job.plan)()?;
    check_plan(&plan)?;
    let folder = job.folder(&plan.job);
    let attempt = env.fresh_id();
    let local = LocalStorage::open(env, &folder, &JOB_FOLDERS)?;
    local.clear_temporaries()?;
    let local = Arc::new(local);
    let storage: Arc<dyn CheckpointStorage> = match &job.settings.remote {
        None => local.clone(),
        Some(url) => retry(job, "opening the checkpoint store", pause, || {
            job.settings.places.open(env, &format!("{url}/{}", plan.job), &JOB_FOLDERS)
        })?,
    };
    let mut log = retry(job, "reading the job log", pause, || JobLog::open(env, storage.clone(), &attempt))?;
    job.note_attempt(log.history().map(|h| h.attempt.as_str()), &attempt)?;
    let mut lanes = open_lanes(job, &plan, &folder, pause)?;
    let is_remote = job.settings.remote.is_some();
    let options = BeginOptions { bring_to: is_remote.then(|| folder.join("staging")), ..begin_options(job, &plan) };
    let open = |path: &str| -> Result<Arc<dyn CheckpointStorage>> {
        if Places::is_url(path) {
            return job.settings.places.existing(env, path);
        }
        if !env.files.exists(Path::new(path))? {
            return Err(Error::fatal(format!("there is no savepoint folder {path}")).help("name the folder that savepoint create made"));
        }
        Ok(Arc::new(LocalStorage::open(env, Path::new(path), &savepoint::FOLDERS)?))
    };
    // Each attempt has a folder of its own: one that was taken over may still write into its own, and removes that only. What
    // dead attempts left is removed under the job's lock, which a process that takes over does not have.
    let leftovers = folder.join("work");
    if !job.settings.take_over && env.files.exists(&leftovers)? {
        env.files.remove_dir_all(&leftovers)?;
    }
    let work = leftovers.join(&attempt);
    env.files.create_dir_all(&work)?;
    let summary = summarize(env, &plan)?;
    let drop_state: BTreeSet<OperatorId> = job.settings.drop_state.iter().map(|id| OperatorId::new(id.as_str())).collect();
    let mut verified: Option<(Manifest, String, Restore)> = None;
    let mut verify = |manifest: &Manifest, from: &Arc<dyn CheckpointStorage>| {
        if verified.as_ref().is_some_and(|(known, place, _)| known == manifest && *place == from.describe()) {
            return Ok(());
        }
        let target = RestoreTarget {
            job: &plan.job,
            max_parallelism: plan.max_parallelism,
            operators: &summary.operators,
            drop_state: &drop_state,
            // A savepoint may be another job's: that is how a copy of a job is started.
            of_any_job: !Arc::ptr_eq(from, &storage),
        };
        let restore = Restore::prepare(env, &**from, manifest, target, &work.join("restore"))?;
        verified = Some((manifest.clone(), from.describe(), restore));
        Ok(())
    };
    let Begin { history, restore } =
        retry(job, "taking the job over", pause, || begin(&mut log, &storage, &mut lanes, &options, &open, &mut verify))?;
    let retention = sweep(&*storage, &history, &log.watch()).unwrap_or_else(|e| {
        tracing::warn!(error = %e, "leftover files are not removed at this start");
        Retention::default()
    });
    if is_remote && !job.settings.take_over {
        clear_staged(&*local)?;
    }
    let restored = match (&restore, verified) {
        (None, _) => Restore::default(),
        (Some((manifest, _)), Some((known, _, restored))) if *manifest == known => {
            job.status.update(|s| s.resumed_from = Some(manifest.epoch));
            restored
        }
        (Some((manifest, _)), _) => {
            return Err(Error::restart(format!("checkpoint {} was replaced while the job started", manifest.epoch)));
        }
    };
    let (splits, discoveries) = find_splits(job, &plan, &restored, &mut log, pause)?;
    let events = Events::new(wake.clone());
    let shared = Attempt {
        env: env.clone(),
        metrics: job.metrics.clone(),
        storage: storage.clone(),
        events: events.clone(),
        id: attempt.clone(),
        work: work.clone(),
        staging: folder.join("staging"),
        keeps_segments: is_remote,
        channel_bytes: job.settings.channel_bytes,
        batch_rows: job.settings.batch_rows,
        memory_budget: job.settings.memory_per_task,
    };
    let from_own_folder = restore.as_ref().is_some_and(|(_, from)| Arc::ptr_eq(from, &storage));
    let tasks = assemble(&plan, &shared, wakers, &mut |id, chain| {
        restore_task(job, &restored, &splits, &work, &attempt, from_own_folder, plan.max_parallelism, id, chain)
    })?;
    let roles = tasks.iter().map(|t| TaskRole { task: t.task.id().clone(), source: t.is_source }).collect();
    let coordinator = Coordinator::new(job.settings.checkpoint.clone(), summary, roles, history, env.clock.monotonic());
    let watch = log.watch();
    let tools = Tools {
        env: env.clone(),
        storage,
        log: Mutex::new(log),
        lanes: lanes.into_iter().map(|l| (l.id().clone(), Mutex::new(l))).collect(),
        sources: sources(&plan).map(|(id, spec)| (id.clone(), spec.source.clone())).collect(),
        owner: Box::new(move || Ok(watch.still_ours()?)),
        staging: folder.join("staging"),
        keeps_segments: is_remote,
        places: job.settings.places.clone(),
        work: work.clone(),
        retention: Mutex::new(retention),
        stored: Mutex::default(),
    };
    let chores = Chores::new(Arc::new(tools), wake.clone(), job.settings.transient_deadline);
    job.control.attach(wake.clone());
    let handles: BTreeMap<TaskId, TaskHandle> =
        tasks.iter().map(|t| (t.task.id().clone(), TaskHandle { mailbox: t.mailbox.clone(), is_source: t.is_source })).collect();
    job.status.update(|s| {
        s.tasks = handles.len();
        s.waiting.clear();
    });
    let driver = Driver {
        env: env.clone(),
        status: job.status.clone(),
        coordinator,
        chores,
        tasks: handles,
        events,
        control: job.control.clone(),
        discoveries,
        keys: KeyWatch::new(&plan, job.metrics.clone()),
        positions: BTreeMap::new(),
        open: 0,
        started,
        last_error: None,
    };
    Ok(Execution { tasks, driver, work })
}

/// Tries until it works, waiting visibly between tries while the outside is away.
fn retry<T>(job: &JobRunner, what: &str, pause: &mut dyn FnMut(Duration) -> Result<()>, mut op: impl FnMut() -> Result<T>) -> Result<T> {
    let since = job.env.clock.monotonic();
    let mut failures = 0;
    loop {
        match op() {
            Err(e) if e.kind() == Kind::Transient => {
                if job.settings.transient_deadline.is_some_and(|d| job.env.clock.monotonic().saturating_sub(since) > d) {
                    return Err(e.turned(Kind::Fatal, &format!("{what} kept failing")).help("mend the cause and run again"));
                }
                failures += 1;
                job.status.update(|s| drop(s.waiting.insert(what.to_string(), e.to_string())));
                if failures == 1 {
                    tracing::warn!(error = %e, "{what}: waiting for the outside");
                }
                pause(backoff(failures))?;
            }
            result => {
                job.status.update(|s| drop(s.waiting.remove(what)));
                return result;
            }
        }
    }
}

fn check_plan(plan: &PhysicalPlan) -> Result<()> {
    for chain in &plan.chains {
        if chain.parallelism == 0 || chain.parallelism > u32::from(plan.max_parallelism) {
            return Err(Error::fatal(format!(
                "parallelism {} of {} is not between 1 and {}",
                chain.parallelism, chain.head, plan.max_parallelism
            ))
            .help("set --parallelism lower, or max_parallelism of a new job higher"));
        }
    }
    Ok(())
}

fn nodes(plan: &PhysicalPlan) -> impl Iterator<Item = (&Chain, &PlanNode)> {
    plan.chains.iter().flat_map(|c| c.nodes.iter().map(move |n| (c, n)))
}

fn sources(plan: &PhysicalPlan) -> impl Iterator<Item = (&OperatorId, &SourceSpec)> {
    nodes(plan).filter_map(|(_, n)| match &n.kind {
        NodeKind::Source(spec) => Some((&n.id, spec)),
        _ => None,
    })
}

fn sink_lanes(plan: &PhysicalPlan) -> Vec<SinkLanes> {
    let lanes = nodes(plan).filter_map(|(_, n)| match &n.kind {
        NodeKind::Sink(spec) => Some(SinkLanes { sink: n.id.clone(), lanes: spec.sink.lanes() }),
        _ => None,
    });
    lanes.filter(|l| l.lanes > 0).collect()
}

fn begin_options(job: &JobRunner, plan: &PhysicalPlan) -> BeginOptions {
    use crate::checkpoint::From;
    let from = match &job.settings.from {
        Some(path) => From::Savepoint(path.clone()),
        None if job.settings.fresh => From::Fresh,
        None => From::Newest,
    };
    BeginOptions {
        job: plan.job.clone(),
        parallelism: plan.chains.iter().map(|c| c.parallelism).max().unwrap_or(1),
        max_parallelism: plan.max_parallelism,
        lanes: sink_lanes(plan),
        lineage: job.lineage.clone(),
        from,
        accept_duplicates: job.settings.accept_duplicates,
        bring_to: None,
    }
}

/// What is staged in the folder of a job whose store is elsewhere: by now published, or in the store.
fn clear_staged(local: &dyn CheckpointStorage) -> Result<()> {
    local.list("staging")?.iter().try_for_each(|name| local.delete(name))
}

fn open_lanes(
    job: &JobRunner,
    plan: &PhysicalPlan,
    folder: &Path,
    pause: &mut dyn FnMut(Duration) -> Result<()>,
) -> Result<Vec<LaneWorker>> {
    let mut workers = Vec::new();
    for (_, node) in nodes(plan) {
        let NodeKind::Sink(spec) = &node.kind else { continue };
        retry(job, "checking sinks", pause, || spec.sink.check()).map_err(|e| e.at(format!("sink {}", node.id)))?;
        for lane in 0..spec.sink.lanes() {
            let context = PublisherContext {
                job: plan.job.clone(),
                operator: node.id.as_str().to_string(),
                lane,
                env: job.env.clone(),
                staging: folder.join("staging"),
            };
            let publisher = retry(job, "opening lanes", pause, || spec.sink.lane(context.clone()))?;
            workers.push(LaneWorker::new(LaneId { sink: node.id.clone(), lane }, publisher, job.settings.publish_bytes));
        }
    }
    Ok(workers)
}

/// Ids, parallelism and tables of every operator. Tables are known once an operator is open, so one of each is opened here
/// for a moment; its metrics go nowhere.
///
/// # Errors
/// Of an operator that does not open.
pub fn summarize(env: &Env, plan: &PhysicalPlan) -> Result<PlanSummary> {
    let mut operators = Vec::new();
    for (chain, node) in nodes(plan) {
        let tables = tables_of(env, chain, node, plan.max_parallelism)?;
        operators.push(PlanOperator { id: node.id.clone(), parallelism: chain.parallelism, tables });
    }
    Ok(PlanSummary { fingerprint: plan.fingerprint.clone(), operators })
}

type Splits = BTreeMap<OperatorId, Vec<SplitState>>;

/// Where every source goes on: at the checkpoint's positions; else at the pinned start; else at its first start, which is
/// pinned now. Splits that nobody knew begin at their beginning.
fn find_splits(
    job: &JobRunner,
    plan: &PhysicalPlan,
    restored: &Restore,
    log: &mut JobLog,
    pause: &mut dyn FnMut(Duration) -> Result<()>,
) -> Result<(Splits, Vec<Discovery>)> {
    let mut all = Splits::new();
    let mut discoveries = Vec::new();
    let is_over = log.history().and_then(JobHistory::newest).is_some_and(|c| c.kind == BarrierKind::Final);
    for (id, SourceSpec { source, .. }) in sources(plan) {
        let place = |e: Error| e.at(format!("source {id}"));
        if is_over && !source.is_bounded() {
            return Err(place(Error::fatal(format!(
                "job {} is finished: its input came to its end, and all windows are closed",
                plan.job
            )))
            .help("read on in a run of its own, with empty state: run --fresh")
            .help("or run it with --until-end, as before: there is nothing left to do"));
        }
        let mut states = restored.splits(id);
        // What the checkpoint of a source does not have any more is forgotten, wherever the job began.
        let is_restored = restored.knows(id);
        let pinned = log.history().filter(|_| !is_restored).and_then(|h| h.pinned(id)).map(<[_]>::to_vec).unwrap_or_default();
        let is_new = !is_restored && pinned.is_empty();
        let now = retry(job, "looking for splits", pause, || source.splits(is_new)).map_err(place)?;
        if is_new {
            let entry = LogEntry::SplitsPinned { source: id.clone(), splits: now.clone() };
            retry(job, "pinning splits", pause, || Ok(log.append(&entry)?))?;
        }
        for split in pinned.into_iter().chain(now.iter().cloned()) {
            if !states.iter().any(|s| s.split.id == split.id) {
                states.push(SplitState::fresh(split));
            }
        }
        retry(job, "looking for splits", pause, || let_go(&mut states, &now, &**source)).map_err(place)?;
        for state in &mut states {
            let found = now.iter().find(|s| s.id == state.split.id);
            meet(state, found, source.is_bounded()).map_err(place)?;
        }
        states.sort_by(|a, b| a.split.id.cmp(&b.split.id));
        if let Some(ms) = source.discovery_ms() {
            let every = Duration::from_millis(ms);
            let next = job.env.clock.monotonic() + every;
            let known = states.iter().map(|s| s.split.id.clone()).collect();
            discoveries.push(Discovery { source: id.clone(), spec: source.clone(), every, next, known });
        }
        all.insert(id.clone(), states);
    }
    Ok((all, discoveries))
}

/// Takes those splits away that are gone and were read to their end. Of one that is gone and was not, rows would be missing.
fn let_go(states: &mut Vec<SplitState>, now: &[Split], source: &dyn Source) -> Result<()> {
    let there: BTreeSet<&SplitId> = now.iter().map(|s| &s.id).collect();
    let missing: Vec<SplitId> = states.iter().map(|s| &s.split.id).filter(|id| !there.contains(id)).cloned().collect();
    if missing.is_empty() {
        return Ok(());
    }
    let gone = source.gone(&missing)?;
    if let Some(state) = states.iter().find(|s| gone.contains(&s.split.id) && !s.ended && !s.all_read) {
        return Err(Error::fatal(format!("{} is gone, and has not been read to its end", state.split.id.name))
            .at(format!("position {}", state.position))
            .help("put it back: it may go once the job has read it")
            .help("or read what is there from its beginning, forgetting all state:  run --fresh"));
    }
    states.retain(|s| !gone.contains(&s.split.id));
    Ok(())
}

/// A split as the job knows it meets the one of now. Its identity must be the same. Whether it ends is asked for anew by every
/// run: where an end is wanted and none is known, it is the end of now.
fn meet(state: &mut SplitState, found: Option<&Split>, bounded: bool) -> Result<()> {
    let identity = |split: &Split| split.topic_id.clone();
    if let (Some(known), Some(now)) = (identity(&state.split), found.and_then(identity))
        && known != now
    {
        return Err(Error::fatal(format!(
            "{} was deleted or made again: the positions of this job no longer mean anything in it",
            state.split.id.name
        ))
        .at(format!("split {}, identity {known}, now {now}", state.split.id))
        .help("read the new one from its beginning, forgetting all state:  run --fresh"));
    }
    let end = found.and_then(|s| s.end);
    if !bounded && end.is_none() {
        (state.split.end, state.ended) = (None, false);
    } else if bounded && state.split.end.is_none() {
        state.split.end = end;
    }
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "the one place where a task's past comes together")]
fn restore_task(
    job: &JobRunner,
    restored: &Restore,
    splits: &Splits,
    work: &Path,
    attempt: &str,
    from_own_folder: bool,
    max_parallelism: u16,
    id: &TaskId,
    chain: &Chain,
) -> Result<(Restored, Arc<Mutex<Uploads>>)> {
    let groups = key_groups_of(id.index, chain.parallelism, max_parallelism);
    let operators: Vec<OperatorId> = chain.nodes.iter().map(|n| n.id.clone()).collect();
    let old = restored.snapshots(&operators, &groups);
    let dir = work.join(folder(id)).join("store");
    let snapshots: Vec<_> = old.iter().map(|t| t.snapshot()).collect();
    // Kept only by chains with tables; an empty store costs little, but a RocksDB per stateless task would.
    let has_operators = chain.nodes.iter().any(|n| matches!(n.kind, NodeKind::Operator(_)));
    let store: Option<Arc<dyn StateStore>> = match (has_operators, snapshots.is_empty()) {
        (false, _) => None,
        (true, true) if !chain_has_tables(job, chain, max_parallelism)? => None,
        (true, true) => Some(job.stores.create(&dir)?),
        (true, false) => Some(job.stores.restore(&dir, &snapshots, groups.clone())?),
    };
    let in_place = match &old[..] {
        [one] if from_own_folder && one.groups == groups => &one.files[..],
        _ => &[],
    };
    let uploads = Arc::new(Mutex::new(Uploads::new(attempt, id.clone(), in_place)));
    let blobs = operators.iter().map(|o| (o.clone(), restored.blobs(o))).filter(|(_, b)| !b.is_empty()).collect();
    let splits = splits.get(&id.head).cloned().unwrap_or_default();
    // Files hold whole tasks: tables of operators that run elsewhere now, or whose state is dropped, come along.
    let stored = old.iter().flat_map(|t| &t.operators).flat_map(|o| o.tables.iter().map(move |table| (o.id.clone(), table.clone())));
    let stored: BTreeMap<_, _> = stored.map(|(id, table)| ((id, table.name), table.schema)).collect();
    let (schemas, foreign) = stored.into_iter().partition(|((id, _), _)| operators.contains(id) && !restored.is_dropped(id));
    Ok((Restored { has_state: !snapshots.is_empty(), store, schemas, foreign, blobs, splits }, uploads))
}

fn tables_of(env: &Env, chain: &Chain, node: &PlanNode, max_parallelism: u16) -> Result<Vec<TableSchema>> {
    let NodeKind::Operator(make) = &node.kind else { return Ok(Vec::new()) };
    let mut probe = make();
    probe.open(&OpenContext {
        operator: node.id.clone(),
        index: 0,
        parallelism: chain.parallelism,
        max_parallelism,
        groups: key_groups_of(0, chain.parallelism, max_parallelism),
        policy: node.policy,
        env: env.clone(),
        metrics: Metrics::default(),
    })?;
    let tables = schemas(&probe.tables());
    probe.close();
    Ok(tables)
}

fn chain_has_tables(job: &JobRunner, chain: &Chain, max_parallelism: u16) -> Result<bool> {
    for node in &chain.nodes {
        if !tables_of(&job.env, chain, node, max_parallelism)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operators::{ReaderContext, SourceReader};

    /// Splits of these numbers are gone.
    struct Gone(&'static [i32]);

    impl Source for Gone {
        fn describe(&self) -> String {
            "gone".into()
        }
        fn is_bounded(&self) -> bool {
            false
        }
        fn splits(&self, _first: bool) -> Result<Vec<Split>> {
            Ok(Vec::new())
        }
        fn gone(&self, missing: &[SplitId]) -> Result<BTreeSet<SplitId>> {
            Ok(missing.iter().filter(|split| self.0.contains(&split.partition)).cloned().collect())
        }
        fn reader(&self, _context: ReaderContext) -> Result<Box<dyn SourceReader>> {
            Err(Error::fatal("nothing is read"))
        }
    }

    fn state(partition: i32, ended: bool, all_read: bool) -> SplitState {
        let id = SplitId { name: "file".into(), partition };
        let split = Split { id, start: 0, end: None, bootstrap_end: None, topic_id: None };
        SplitState { ended, all_read, position: 7, ..SplitState::fresh(split) }
    }

    #[test]
    fn what_is_gone_is_forgotten_if_all_of_it_was_read() {
        let now = [state(3, false, false).split];
        let all = [state(0, true, false), state(1, false, true), state(2, false, false), state(3, false, false)];
        let left = |gone: &'static [i32]| {
            let mut states = all.to_vec();
            let_go(&mut states, &now, &Gone(gone)).map(|()| states.iter().map(|s| s.split.id.partition).collect::<Vec<_>>())
        };
        assert_eq!(left(&[0, 1, 3]).unwrap(), [2, 3], "what is there is not asked for");
        assert_eq!(left(&[]).unwrap(), [0, 1, 2, 3]);
        let report = left(&[0, 2]).unwrap_err().report();
        assert!(report.contains("file is gone") && report.contains("position 7") && report.contains("run --fresh"), "{report}");
    }
}
