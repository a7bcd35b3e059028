//! From a manifest to local folders: everything verified before anything is used.
//!
//! Invariant: a restore either accounts for every byte, operator, table, split and key group that the manifest names, or
//! refuses with the reason; nothing of the manifest is left out but what `drop_state` names.

use super::layout::plain;
use super::manifest::{Manifest, OperatorSnapshot, PlanOperator, SnapshotFile};
use super::storage::CheckpointStorage;
use crate::env::{Bug, Env, planted};
use crate::error::{Error, Result};
use crate::operators::SplitState;
use crate::record::{KEY_CODEC_VERSION, KeyGroup, OperatorId, TaskId};
use crate::state::{RestoredSnapshot, check_schema};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The plan that is to run.
#[derive(Debug, Clone, Copy)]
pub struct RestoreTarget<'a> {
    /// Job name.
    pub job: &'a str,
    /// Number of key groups.
    pub max_parallelism: u16,
    /// Its operators.
    pub operators: &'a [PlanOperator],
    /// State of these operators may be dropped.
    pub drop_state: &'a BTreeSet<OperatorId>,
    /// The state may be another job's: a savepoint that starts a copy of it.
    pub of_any_job: bool,
}

/// One old task's snapshot, verified, on local disk.
#[derive(Debug, Clone)]
pub struct RestoredTask {
    /// Which task it was.
    pub task: TaskId,
    /// Key groups it owned.
    pub groups: Range<KeyGroup>,
    /// Where its files are now.
    pub dir: PathBuf,
    /// Its files as the manifest names them.
    pub files: Vec<SnapshotFile>,
    /// What its operators saved.
    pub operators: Vec<OperatorSnapshot>,
}

/// A verified checkpoint, ready to build tasks from.
#[derive(Debug, Clone, Default)]
pub struct Restore {
    tasks: Vec<RestoredTask>,
    dropped: BTreeSet<OperatorId>,
}

impl Restore {
    /// Checks that `manifest` fits the plan, then brings every file into its own folder per old task below `dir` (emptied
    /// first) and verifies it.
    ///
    /// # Errors
    /// Fatal: what does not fit or is damaged. Transient while the store is away; may be called again.
    pub fn prepare(
        env: &Env,
        storage: &dyn CheckpointStorage,
        manifest: &Manifest,
        target: RestoreTarget<'_>,
        dir: &Path,
    ) -> Result<Restore> {
        Restore::check(manifest, target)?;
        if env.files.exists(dir)? {
            env.files.remove_dir_all(dir)?;
        }
        let mut tasks = Vec::with_capacity(manifest.tasks.len());
        for old in &manifest.tasks {
            let dir = dir.join(format!("{}-{}", plain(old.task.head.as_str()), old.task.index));
            env.files.create_dir_all(&dir)?;
            for file in &old.files {
                storage.get_file(&file.path, &dir.join(&file.state.name), &file.state)?;
            }
            let (files, operators) = (old.files.clone(), old.operators.clone());
            tasks.push(RestoredTask { task: old.task.clone(), groups: old.groups.clone(), dir, files, operators });
        }
        Ok(Restore { tasks, dropped: target.drop_state.clone() })
    }

    /// Checks that `manifest` fits the plan: job, key groups, operators, tables and their schemas. Reads no state.
    ///
    /// # Errors
    /// Fatal: what does not fit, and what can be done.
    pub fn check(manifest: &Manifest, target: RestoreTarget<'_>) -> Result<()> {
        check(manifest, target).map_err(|e| e.at(format!("checkpoint {} of job {}", manifest.epoch, manifest.job)))
    }

    /// The old tasks.
    pub fn tasks(&self) -> &[RestoredTask] {
        &self.tasks
    }

    /// Old snapshots that hold tables of `operators` in any of `groups`, for a new task.
    pub fn snapshots(&self, operators: &[OperatorId], groups: &Range<KeyGroup>) -> Vec<&RestoredTask> {
        let wanted = |o: &OperatorSnapshot| !o.tables.is_empty() && operators.contains(&o.id) && !self.dropped.contains(&o.id);
        let overlaps = |t: &RestoredTask| t.groups.start < groups.end && groups.start < t.groups.end;
        let all = self.tasks.iter().filter(|t| !t.files.is_empty() && overlaps(t) && t.operators.iter().any(wanted));
        all.take(if planted(Bug::RestoreOneTask) { 1 } else { usize::MAX }).collect()
    }

    /// Whether the state of an operator is dropped.
    pub fn is_dropped(&self, operator: &OperatorId) -> bool {
        self.dropped.contains(operator)
    }

    /// What all former instances of an operator saved, in task order.
    pub fn blobs(&self, operator: &OperatorId) -> Vec<Vec<u8>> {
        self.saved(operator).map(|o| o.blob.clone()).filter(|blob| !blob.is_empty()).collect()
    }

    /// Whether it has a source's splits, be it that there are none.
    pub fn knows(&self, source: &OperatorId) -> bool {
        self.saved(source).next().is_some()
    }

    /// All splits of a source, in the order of their ids.
    pub fn splits(&self, source: &OperatorId) -> Vec<SplitState> {
        let mut splits: Vec<_> = self.saved(source).flat_map(|o| o.splits.iter().cloned()).collect();
        splits.sort_by(|a, b| a.split.id.cmp(&b.split.id));
        if planted(Bug::ForgetASplit) {
            splits.pop();
        }
        splits
    }

    fn saved<'a>(&'a self, operator: &'a OperatorId) -> impl Iterator<Item = &'a OperatorSnapshot> {
        let dropped = self.dropped.contains(operator);
        self.tasks.iter().flat_map(|t| &t.operators).filter(move |o| o.id == *operator && !dropped)
    }
}

impl RestoredTask {
    /// As the state stores take it.
    pub fn snapshot(&self) -> RestoredSnapshot {
        RestoredSnapshot { dir: self.dir.clone(), groups: self.groups.clone() }
    }
}

fn check(manifest: &Manifest, target: RestoreTarget<'_>) -> Result<()> {
    if manifest.job != target.job && !target.of_any_job {
        return Err(Error::fatal(format!("it is of job {}, this is job {}", manifest.job, target.job))
            .help("name the folder of this job, or run under that job's name"));
    }
    if manifest.max_parallelism != target.max_parallelism {
        let (was, is) = (manifest.max_parallelism, target.max_parallelism);
        return Err(Error::fatal(format!("it has {was} key groups, the plan has {is}")).help(format!("set max_parallelism to {was}")));
    }
    if manifest.key_codec != KEY_CODEC_VERSION {
        let found = manifest.key_codec;
        return Err(Error::fatal(format!("its keys are encoded in version {found}, this program's are in version {KEY_CODEC_VERSION}"))
            .help("run the version of the program that wrote it"));
    }
    check_whole(manifest)?;
    for saved in manifest.tasks.iter().flat_map(|t| &t.operators) {
        check_operator(saved, target)?;
    }
    Ok(())
}

/// Every key group of every keyed chain is there once, and every split of every source.
fn check_whole(manifest: &Manifest) -> Result<()> {
    let mut chains: BTreeMap<&OperatorId, Vec<Range<KeyGroup>>> = BTreeMap::new();
    let mut splits = BTreeSet::new();
    for task in &manifest.tasks {
        if task.operators.iter().any(|o| !o.tables.is_empty()) {
            chains.entry(&task.task.head).or_default().push(task.groups.clone());
        }
        for (operator, split) in task.operators.iter().flat_map(|o| o.splits.iter().map(move |s| (&o.id, s))) {
            if !splits.insert((operator, &split.split.id)) {
                return Err(Error::fatal(format!("split {} of {operator} is in it twice", split.split.id)));
            }
        }
    }
    for (head, mut groups) in chains {
        groups.retain(|g| !g.is_empty());
        groups.sort_by_key(|g| g.start);
        let mut next = 0;
        for range in groups {
            if range.start != next {
                return Err(Error::fatal(format!("its key groups of {head} have a gap or an overlap at {}", range.start)));
            }
            next = range.end;
        }
        if next != manifest.max_parallelism {
            return Err(Error::fatal(format!("its key groups of {head} end at {next} of {}", manifest.max_parallelism)));
        }
    }
    Ok(())
}

fn check_operator(saved: &OperatorSnapshot, target: RestoreTarget<'_>) -> Result<()> {
    let id = &saved.id;
    if !saved.has_state() || target.drop_state.contains(id) {
        return Ok(());
    }
    let Some(planned) = target.operators.iter().find(|o| o.id == *id) else {
        let known: Vec<_> = target.operators.iter().map(|o| o.id.as_str()).collect();
        return Err(Error::fatal(format!("it holds state of operator {id}, which is not in the plan"))
            .help(format!("give the operator its former id back: .id(\"{id}\"); the plan has {}", known.join(", ")))
            .help(format!("or drop that state: --drop-state {id}")));
    };
    for old in &saved.tables {
        let drop = format!("or drop the operator's state: --drop-state {id}");
        match planned.tables.iter().find(|new| new.name == old.name) {
            Some(new) => check_schema(&format!("{} of operator {id}", old.name), &old.schema, &new.schema).map_err(|e| e.help(drop))?,
            None => {
                return Err(Error::fatal(format!("table {} of operator {id} is not in the plan any more", old.name))
                    .help("bring it back")
                    .help(drop));
            }
        }
    }
    Ok(())
}
