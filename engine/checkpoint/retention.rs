//! Which files may go: those that only let-go checkpoints name.
//!
//! Invariant: nothing is deleted on a guess. A file of a dropped checkpoint goes only if no retained manifest names it, and
//! only after the log entry that drops it; a file that no manifest names goes only at a start, if it was there before anybody
//! claimed the job after us; and nothing goes while a retained manifest cannot be read.

use super::entry::{CheckpointRef, JobHistory};
use super::layout::{MANIFESTS, STAGING, STATE, load_manifest};
use super::log::LogWatch;
use super::manifest::Manifest;
use super::storage::CheckpointStorage;
use crate::env::{Bug, planted};
use crate::error::Result;
use std::collections::{BTreeMap, BTreeSet};

/// Files by how many retained manifests name them.
#[derive(Debug, Default)]
pub struct Retention {
    references: BTreeMap<String, usize>,
    manifests: BTreeMap<String, Vec<String>>,
}

impl Retention {
    /// Counts a complete checkpoint in. Call it when its log entry is appended, before any deletion that follows.
    pub fn keep(&mut self, checkpoint: &CheckpointRef, manifest: &Manifest) {
        let files: Vec<_> = manifest.files().map(|f| f.path.clone()).collect();
        for file in &files {
            *self.references.entry(file.clone()).or_default() += 1;
        }
        self.manifests.insert(checkpoint.manifest.clone(), files);
    }

    /// Counts checkpoints out and deletes what nobody names any more; how many files went. A checkpoint that was never
    /// counted in is left for the next sweep.
    ///
    /// # Errors
    /// Of the store; what is left over is found by the next sweep.
    pub fn let_go(&mut self, storage: &dyn CheckpointStorage, dropped: &[CheckpointRef]) -> Result<usize> {
        let mut doomed = Vec::new();
        for checkpoint in dropped {
            let Some(files) = self.manifests.remove(&checkpoint.manifest) else { continue };
            doomed.push(checkpoint.manifest.clone());
            for file in files {
                if let Some(count) = self.references.get_mut(&file) {
                    *count -= 1;
                    if *count == 0 || planted(Bug::DeleteShared) {
                        self.references.remove(&file);
                        doomed.push(file);
                    }
                }
            }
        }
        for name in &doomed {
            storage.delete(name)?;
        }
        Ok(doomed.len())
    }
}

/// At a start, after `begin` and before any task writes: deletes what dead attempts left, and gives the counts to go on with.
/// `watch` is asked between looking and deleting: what is deleted was there before anybody claimed the job after us, so a
/// process that was paused here never deletes what its successor has written.
///
/// # Errors
/// Of the store, a lost log, or a retained manifest that cannot be read: then nothing was deleted. In the last case the job
/// may go on with `Retention::default()`, and files stay until a later start.
pub fn sweep(storage: &dyn CheckpointStorage, history: &JobHistory, watch: &LogWatch) -> Result<Retention> {
    let mut retention = Retention::default();
    let mut named = BTreeSet::new();
    for checkpoint in &history.retained {
        let manifest = load_manifest(storage, checkpoint)?;
        retention.keep(checkpoint, &manifest);
        named.insert(checkpoint.manifest.clone());
        // Of another lineage nothing is noted here any more: its segments go when it does.
        let ours = checkpoint.lineage == history.lineage;
        let waiting = manifest.segments().filter(|s| !ours || s.segment.epoch > history.published(&s.lane()));
        named.extend(waiting.map(|s| format!("{STAGING}/{}", s.segment.name)));
    }
    named.extend(retention.references.keys().cloned());
    let mut found = Vec::new();
    for folder in [MANIFESTS, STATE, STAGING] {
        found.extend(storage.list(folder)?);
    }
    watch.still_ours()?;
    for name in found.iter().filter(|name| !named.contains(*name)) {
        storage.delete(name)?;
    }
    Ok(retention)
}
