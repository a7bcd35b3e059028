//! Uploads of a task's snapshots: immutable files once, the rest every time.
//!
//! Invariant: a file is skipped only if this very task uploaded that very file (name, length, checksum) before, or was
//! restored from it in place.

use super::layout::state_file_name;
use super::manifest::SnapshotFile;
use super::storage::CheckpointStorage;
use crate::error::Result;
use crate::record::{Epoch, TaskId};
use crate::state::StateFile;
use std::collections::BTreeMap;
use std::path::Path;

/// What one task has uploaded; one per task, used on its background lane.
#[derive(Debug)]
pub struct Uploads {
    attempt: String,
    task: TaskId,
    known: BTreeMap<String, SnapshotFile>,
}

impl Uploads {
    /// Of a task that starts. `in_place`: the files of the one snapshot that its store was opened from without a copy (same
    /// groups); empty in any other case, because a copied store gives old names to new files.
    pub fn new(attempt: &str, task: TaskId, in_place: &[SnapshotFile]) -> Self {
        let known = in_place.iter().filter(|f| f.state.immutable).map(|f| (f.state.name.clone(), f.clone())).collect();
        Uploads { attempt: attempt.to_string(), task, known }
    }

    /// Uploads what is new of a snapshot in `dir`; all of its files as the manifest names them.
    ///
    /// # Errors
    /// Of the store; may be repeated.
    pub fn upload(&mut self, storage: &dyn CheckpointStorage, epoch: Epoch, dir: &Path, files: &[StateFile]) -> Result<Vec<SnapshotFile>> {
        let mut named = Vec::with_capacity(files.len());
        let mut immutable = BTreeMap::new();
        for file in files {
            let uploaded = match self.known.get(&file.name) {
                Some(known) if known.state == *file => known.clone(),
                _ => {
                    let path = state_file_name(&self.attempt, &self.task, epoch, file);
                    storage.put_file(&path, &dir.join(&file.name), file)?;
                    SnapshotFile { state: file.clone(), path }
                }
            };
            if file.immutable {
                immutable.insert(file.name.clone(), uploaded.clone());
            }
            named.push(uploaded);
        }
        // Files that are gone from the snapshot are forgotten: retention may delete them from now on.
        self.known = immutable;
        Ok(named)
    }
}
