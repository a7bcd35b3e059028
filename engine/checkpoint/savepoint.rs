//! Savepoints: a checkpoint copied whole into a folder of its own.
//!
//! A savepoint is made only when everything before it is published; so it names no segments, and a job that starts from it
//! has nothing to settle.
//!
//! Invariant: the manifest is written last. A folder without one is no savepoint; a folder with one is whole.

use super::layout::STATE;
use super::manifest::Manifest;
use super::storage::CheckpointStorage;
use crate::env::Env;
use crate::error::{Error, Result};
use std::path::Path;

/// Name of the manifest in a savepoint's folder.
const MANIFEST: &str = "manifest";
/// What a savepoint's folder holds, for [`LocalStorage::open`](super::LocalStorage::open).
pub const FOLDERS: [&str; 1] = [STATE];

/// Copies everything that `manifest` names from `from` to `to`, by way of the local folder `scratch` (made, then removed).
///
/// # Errors
/// Fatal when another savepoint is there or a file is damaged; of the stores. What was copied by then is no savepoint.
pub fn create(env: &Env, from: &dyn CheckpointStorage, manifest: &Manifest, to: &dyn CheckpointStorage, scratch: &Path) -> Result<()> {
    let mut own = manifest.clone();
    own.unpublished.clear();
    own.published.clear();
    own.tasks.iter_mut().for_each(|task| task.segments.clear());
    let bytes = own.encode()?;
    let taken = |there: Option<Vec<u8>>| match there {
        Some(there) if there != bytes => Err(Error::fatal(format!("there is another savepoint in {}", to.describe()))
            .help("name an empty folder; savepoints are never overwritten")),
        there => Ok(there.is_some()),
    };
    if taken(to.get(MANIFEST)?)? {
        return Ok(());
    }
    env.files.create_dir_all(scratch)?;
    let local = scratch.join("file");
    for file in manifest.files() {
        from.get_file(&file.path, &local, &file.state)?;
        to.put_file(&file.path, &local, &file.state)?;
        env.files.remove(&local)?;
    }
    env.files.remove_dir_all(scratch)?;
    if !to.put_if_absent(MANIFEST, &bytes)? {
        taken(to.get(MANIFEST)?)?;
    }
    Ok(())
}

/// Deletes a savepoint: its manifest first, so that what is left after a crash is no savepoint, then the files that it names.
/// Anything else in the folder stays.
///
/// # Errors
/// Fatal when there is no savepoint; of the store.
pub fn delete(storage: &dyn CheckpointStorage) -> Result<Manifest> {
    let (manifest, _) = open(storage)?;
    storage.delete(MANIFEST)?;
    for file in manifest.files() {
        storage.delete(&file.path)?;
    }
    Ok(manifest)
}

/// Reads a savepoint's manifest; also its checksum, by which it is known again.
///
/// # Errors
/// Fatal when there is none, or it is damaged or newer than this program.
pub fn open(storage: &dyn CheckpointStorage) -> Result<(Manifest, u32)> {
    let place = storage.describe();
    let bytes = storage.get(MANIFEST)?.ok_or_else(|| {
        Error::fatal(format!("there is no savepoint in {place}"))
            .help("a savepoint's folder holds a file named manifest; was it copied whole?")
    })?;
    let manifest = Manifest::decode(&format!("of the savepoint in {place}"), &bytes)?;
    Ok((manifest, crc32fast::hash(&bytes)))
}
