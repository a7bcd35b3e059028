//! Stores by name: folders, and what a program has besides (`s3://bucket/folder`).
//!
//! Invariant: a name with `://` is never taken for a folder; what nobody can open is refused with what would.

use super::layout::STAGING;
use super::storage::{CheckpointStorage, LocalStorage};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::operators::SegmentRef;
use crate::state::StateFile;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Opens stores elsewhere than in a folder.
pub trait Stores: Send + Sync {
    /// The store at `url`. One that is to be written is refused if it cannot keep names from being overwritten.
    ///
    /// # Errors
    /// Fatal when the URL is none, or the store cannot be used; transient while it is away.
    fn open(&self, env: &Env, url: &str, to_write: bool) -> Result<Arc<dyn CheckpointStorage>>;
}

/// Where a program can keep checkpoints and savepoints. By default in folders only.
#[derive(Clone, Default)]
pub struct Places(Option<Arc<dyn Stores>>);

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "folders and object stores" } else { "folders" })
    }
}

impl Places {
    /// Folders, and what `stores` opens.
    pub fn with(stores: Arc<dyn Stores>) -> Self {
        Places(Some(stores))
    }

    /// Whether a name is that of a store elsewhere.
    ///
    /// ```
    /// use waterwheel_engine::checkpoint::Places;
    /// assert!(Places::is_url("s3://bucket/jobs") && !Places::is_url("./checkpoints"));
    /// ```
    pub fn is_url(place: &str) -> bool {
        place.contains("://")
    }

    /// A store to write to; a folder is made, with those that names will be put in.
    ///
    /// # Errors
    /// Of the place.
    pub fn open(&self, env: &Env, place: &str, folders: &[&str]) -> Result<Arc<dyn CheckpointStorage>> {
        match Places::is_url(place) {
            true => self.elsewhere(place)?.open(env, place, true),
            false => Ok(Arc::new(LocalStorage::open(env, Path::new(place), folders)?)),
        }
    }

    /// A store that must be there already; nothing is made.
    ///
    /// # Errors
    /// Fatal when there is no such folder; of the place.
    pub fn existing(&self, env: &Env, place: &str) -> Result<Arc<dyn CheckpointStorage>> {
        match Places::is_url(place) {
            true => self.elsewhere(place)?.open(env, place, false),
            false => Ok(Arc::new(LocalStorage::existing(env, Path::new(place))?)),
        }
    }

    fn elsewhere(&self, place: &str) -> Result<&dyn Stores> {
        let missing = || {
            Error::fatal(format!("{place} is in no folder, and this program can keep state in folders only"))
                .help("build it with the feature s3 of waterwheel: waterwheel = { features = [\"s3\"] }")
        };
        self.0.as_deref().ok_or_else(missing)
    }
}

/// A staged segment as a file of the store: where the job's folder is not the store, segments are kept in both.
fn as_file(segment: &SegmentRef) -> (String, StateFile) {
    let SegmentRef { name, len, crc, .. } = segment;
    (format!("{STAGING}/{name}"), StateFile { name: name.clone(), len: *len, crc: *crc, immutable: false })
}

/// Stores a segment that was sealed in the local folder `staging`.
///
/// # Errors
/// Of the store.
pub fn keep_segment(storage: &dyn CheckpointStorage, staging: &Path, segment: &SegmentRef) -> Result<()> {
    let (name, file) = as_file(segment);
    storage.put_file(&name, &staging.join(&segment.name), &file)
}

/// Brings a segment that is to be published into the local folder `staging`, verified.
///
/// # Errors
/// Fatal when it is missing or damaged; of the store.
pub fn bring_segment(storage: &dyn CheckpointStorage, staging: &Path, segment: &SegmentRef) -> Result<()> {
    let (name, file) = as_file(segment);
    storage.get_file(&name, &staging.join(&segment.name), &file)
}
