//! The files of a job that has just been started: all that a retained checkpoint names is there and whole, nothing else is.
//!
//! Invariant: looking changes nothing.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use waterwheel::engine::checkpoint::{CheckpointStorage, JobLog, LocalStorage, load_manifest, read_state};
use waterwheel::engine::env::Env;
use waterwheel::engine::error::Error;
use waterwheel::engine::record::OperatorId;
use waterwheel::engine::state::ShownEntry;
use waterwheel::engine::testing::{SimJob, SimMachine, SimObjects};

/// Says what is wrong. `remote` is the store and its URL, if checkpoints are kept in one.
pub(super) fn check(machine: &SimMachine, remote: Option<(&SimObjects, &str)>) -> Result<(), String> {
    let found = look(machine, remote).map_err(|e| format!("the job's files cannot be read: {}", e.report()))?;
    found.map_or(Ok(()), Err)
}

/// All keyed state of the newest checkpoint, by operator and table, as text. But for that of an operator that a later version
/// of the job has more.
pub(super) fn state(machine: &SimMachine, job: &SimJob, remote: Option<(&SimObjects, &str)>) -> Result<Vec<String>, String> {
    let read = || -> Result<Vec<String>, Error> {
        let env = machine.outside();
        let (_, storage) = places(machine, &env, remote)?;
        let log = JobLog::open(&env, storage.clone(), "onlooker")?;
        let Some(newest) = log.history().and_then(|history| history.newest()) else { return Ok(Vec::new()) };
        let manifest = load_manifest(&*storage, newest)?;
        let mut entries = Vec::new();
        let mut visit = |operator: &OperatorId, table: &str, entry: ShownEntry| {
            entries.push(format!("{operator} {table} {entry:?}"));
            Ok(())
        };
        let wanted = |operator: &OperatorId, _: &str| operator.as_str() != "added";
        read_state(&env, &*storage, &manifest, &*job.stores(&env), Path::new("onlooker"), &wanted, &mut visit)?;
        entries.sort();
        Ok(entries)
    };
    read().map_err(|e| format!("the job's state cannot be read: {}", e.report()))
}

type Storage = Arc<dyn CheckpointStorage>;

/// The job's folder, and where its checkpoints are.
fn places(machine: &SimMachine, env: &Env, remote: Option<(&SimObjects, &str)>) -> Result<(Storage, Storage), Error> {
    let local: Storage = Arc::new(LocalStorage::existing(env, Path::new("checkpoints/job"))?);
    let storage = remote.map_or(local.clone(), |(objects, url)| objects.store(&machine.another_process(), env, &format!("{url}/job")));
    Ok((local, storage))
}

fn look(machine: &SimMachine, remote: Option<(&SimObjects, &str)>) -> Result<Option<String>, Error> {
    let env = machine.outside();
    let (local, storage) = places(machine, &env, remote)?;
    let log = JobLog::open(&env, storage.clone(), "onlooker")?;
    let Some(history) = log.history() else { return Ok(Some("the job log is empty".into())) };
    let mut named = BTreeSet::new();
    for checkpoint in &history.retained {
        let manifest = load_manifest(&*storage, checkpoint)?;
        named.insert(checkpoint.manifest.clone());
        for file in manifest.files() {
            let Some(bytes) = storage.get(&file.path)? else {
                return Ok(Some(format!("{} is gone, which checkpoint {} names", file.path, checkpoint.epoch)));
            };
            if bytes.len() as u64 != file.state.len {
                return Ok(Some(format!("{} has another length than checkpoint {} says", file.path, checkpoint.epoch)));
            }
            named.insert(file.path.clone());
        }
        let ours = checkpoint.lineage == history.lineage;
        for staged in manifest.segments().filter(|s| !ours || s.segment.epoch > history.published(&s.lane())) {
            named.insert(format!("staging/{}", staged.segment.name));
        }
    }
    // Beside a store elsewhere the folder has copies of segments, and nothing that is not there.
    for (place, folder) in [&storage, &local].into_iter().flat_map(|place| ["chk", "state", "staging", "tmp"].map(|folder| (place, folder)))
    {
        if let Some(name) = place.list(folder)?.into_iter().find(|name| !named.contains(name)) {
            return Ok(Some(format!("{name} is left over in {}", place.describe())));
        }
    }
    Ok(None)
}
