//! The files of a job that has just been started: all that a retained checkpoint names is there and whole, nothing else is.
//!
//! Invariant: looking changes nothing.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use waterwheel::engine::checkpoint::{CheckpointStorage, JobLog, LocalStorage, load_manifest};
use waterwheel::engine::error::Error;
use waterwheel::engine::testing::{SimMachine, SimObjects};

/// Says what is wrong. `remote` is the store and its URL, if checkpoints are kept in one.
pub(super) fn check(machine: &SimMachine, remote: Option<(&SimObjects, &str)>) -> Result<(), String> {
    let found = look(machine, remote).map_err(|e| format!("the job's files cannot be read: {}", e.report()))?;
    found.map_or(Ok(()), Err)
}

fn look(machine: &SimMachine, remote: Option<(&SimObjects, &str)>) -> Result<Option<String>, Error> {
    let env = machine.outside();
    let local: Arc<dyn CheckpointStorage> = Arc::new(LocalStorage::existing(&env, Path::new("checkpoints/job"))?);
    let storage = remote.map_or(local.clone(), |(objects, url)| objects.store(&machine.another_process(), &env, &format!("{url}/job")));
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
