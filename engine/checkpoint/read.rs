//! Looking into the keyed state of a checkpoint or savepoint, without the job that wrote it.
//!
//! Invariant: every file is verified before it is read, and nothing but the scratch folder is written.

use super::manifest::Manifest;
use super::storage::CheckpointStorage;
use crate::env::Env;
use crate::error::Result;
use crate::record::OperatorId;
use crate::state::{RestoredSnapshot, ShownEntry, StateStores, read_table};
use std::path::Path;

/// Visits the entries of all tables for which `wanted` says so, task by task. `stores` opens the snapshots, in folders below
/// `scratch` (made; removed afterwards).
///
/// # Errors
/// A file that is missing or damaged, content that does not fit its schema, and those of the visitor.
pub fn read_state(
    env: &Env,
    storage: &dyn CheckpointStorage,
    manifest: &Manifest,
    stores: &dyn StateStores,
    scratch: &Path,
    wanted: &dyn Fn(&OperatorId, &str) -> bool,
    visit: &mut dyn FnMut(&OperatorId, &str, ShownEntry) -> Result<()>,
) -> Result<()> {
    let read = read_tasks(env, storage, manifest, stores, scratch, wanted, visit);
    if env.files.exists(scratch)? {
        // What was read is right all the same; a leftover folder only costs space.
        let _ = env.files.remove_dir_all(scratch);
    }
    read
}

fn read_tasks(
    env: &Env,
    storage: &dyn CheckpointStorage,
    manifest: &Manifest,
    stores: &dyn StateStores,
    scratch: &Path,
    wanted: &dyn Fn(&OperatorId, &str) -> bool,
    visit: &mut dyn FnMut(&OperatorId, &str, ShownEntry) -> Result<()>,
) -> Result<()> {
    for (number, task) in manifest.tasks.iter().enumerate() {
        let tables: Vec<_> = task.operators.iter().flat_map(|o| o.tables.iter().map(move |table| (&o.id, table))).collect();
        let tables: Vec<_> = tables.into_iter().filter(|(id, table)| wanted(id, &table.name)).collect();
        if tables.is_empty() || task.files.is_empty() {
            continue;
        }
        let dir = scratch.join(number.to_string());
        let files = dir.join("files");
        env.files.create_dir_all(&files)?;
        for file in &task.files {
            storage.get_file(&file.path, &files.join(&file.state.name), &file.state)?;
        }
        let snapshot = RestoredSnapshot { dir: files, groups: task.groups.clone() };
        let store = stores.restore(&dir.join("store"), &[snapshot], task.groups.clone())?;
        for (id, table) in tables {
            let (operator, name) = (id.as_str(), table.name.as_str());
            read_table(&*store, task.groups.clone(), operator, name, &table.schema, &mut |entry| visit(id, name, entry))?;
        }
        drop(store);
        env.files.remove_dir_all(&dir)?;
    }
    Ok(())
}
