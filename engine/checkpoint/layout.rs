//! Names in a job's folder, and manifests by name.
//!
//! Invariant: a name that is written holds the attempt that writes it, so two attempts never write the same one.

use super::entry::CheckpointRef;
use super::manifest::Manifest;
use super::storage::CheckpointStorage;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::record::{Epoch, TaskId};
use crate::state::StateFile;

/// Entries of the job log.
pub const LOG: &str = "log";
/// Manifests.
pub const MANIFESTS: &str = "chk";
/// Files of state snapshots.
pub const STATE: &str = "state";
/// Staged segments.
pub const STAGING: &str = "staging";
/// All of them, for [`LocalStorage::open`](super::LocalStorage::open).
pub const FOLDERS: [&str; 4] = [LOG, MANIFESTS, STATE, STAGING];

pub(super) fn log_name(sequence: u64) -> String {
    format!("{LOG}/{sequence:020}")
}

pub(super) fn manifest_name(epoch: Epoch, attempt: &str) -> String {
    format!("{MANIFESTS}/{epoch:020}-{}", plain(attempt))
}

/// Where a snapshot's file is kept. Immutable files keep their name from epoch to epoch and are uploaded once.
pub fn state_file_name(attempt: &str, task: &TaskId, epoch: Epoch, file: &StateFile) -> String {
    let (attempt, head, index, name) = (plain(attempt), plain(task.head.as_str()), task.index, plain(&file.name));
    if file.immutable {
        format!("{STATE}/{attempt}-{head}-{index}-{name}")
    } else {
        format!("{STATE}/{attempt}-{head}-{index}-{name}@{epoch}")
    }
}

/// A name with everything but letters, digits, `_` and `.` written as `%xx`: safe as a file name, and `-` and `@` divide.
pub(super) fn plain(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for b in name.bytes() {
        match b {
            b'.' if out.is_empty() => out.push_str("%2e"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' => out.push(char::from(b)),
            _ => out.push_str(&format!("%{b:02x}")),
        }
    }
    out
}

/// Stamps the wall time and stores the manifest; the reference to go into the log. May be repeated after an error.
///
/// # Errors
/// Transient while the store is away; restart when the name is taken by another content.
pub fn store_manifest(
    env: &Env,
    storage: &dyn CheckpointStorage,
    manifest: &mut Manifest,
    savepoint: Option<String>,
) -> Result<CheckpointRef> {
    if manifest.wall_ms == 0 {
        // Once, so that a repeated store writes equal bytes.
        manifest.wall_ms = env.clock.wall_ms();
    }
    let bytes = manifest.encode()?;
    let name = manifest_name(manifest.epoch, &manifest.attempt);
    if !storage.put_if_absent(&name, &bytes)? && storage.get(&name)?.as_ref() != Some(&bytes) {
        return Err(Error::restart(format!("{name} was stored before with another content")).at(storage.describe()));
    }
    Ok(CheckpointRef {
        epoch: manifest.epoch,
        lineage: manifest.lineage.clone(),
        kind: manifest.kind,
        manifest: name,
        len: bytes.len() as u64,
        crc: crc32fast::hash(&bytes),
        savepoint,
    })
}

/// Reads the manifest that the log names, verified against what the log says of it.
///
/// # Errors
/// Fatal when it is missing, damaged, of a newer version, or not the one that the log means.
pub fn load_manifest(storage: &dyn CheckpointStorage, checkpoint: &CheckpointRef) -> Result<Manifest> {
    let name = &checkpoint.manifest;
    let wrong = |why: String| {
        Error::fatal(format!("manifest {name} {why}"))
            .at(format!("checkpoint {} in {}", checkpoint.epoch, storage.describe()))
            .help("restore an older checkpoint or a savepoint: run --from <path>")
    };
    let bytes = storage.get(name)?.ok_or_else(|| wrong("is missing".into()))?;
    if bytes.len() as u64 != checkpoint.len {
        return Err(wrong(format!("has {} bytes, the job log says {}", bytes.len(), checkpoint.len)));
    }
    if crc32fast::hash(&bytes) != checkpoint.crc {
        return Err(wrong("is damaged: its checksum is not the one in the job log".into()));
    }
    let manifest = Manifest::decode(name, &bytes)?;
    if (manifest.epoch, &manifest.lineage) != (checkpoint.epoch, &checkpoint.lineage) {
        return Err(wrong(format!("is of lineage {}, epoch {}", manifest.lineage, manifest.epoch)));
    }
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::OperatorId;

    #[test]
    fn different_things_get_different_safe_names() {
        let file = |name: &str, immutable| StateFile { name: name.into(), len: 1, crc: 1, immutable };
        let task = |head: &str, index| TaskId { head: OperatorId::new(head), index };
        let mut names = vec![
            state_file_name("a", &task("x", 1), 1, &file("0.sst", true)),
            state_file_name("a", &task("x", 1), 1, &file("CURRENT", false)),
            state_file_name("a", &task("x", 1), 2, &file("CURRENT", false)),
            state_file_name("a", &task("x-1", 1), 1, &file("0.sst", true)),
            state_file_name("a", &task("x/../..", 1), 1, &file("..", true)),
        ];
        assert_eq!(names[0], state_file_name("a", &task("x", 1), 2, &file("0.sst", true)));
        assert!(names.iter().all(|n| n.split('/').count() == 2 && !n.contains("/.")), "{names:?}");
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 5);
    }
}
