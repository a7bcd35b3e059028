//! Checkpoints and savepoints in an S3-compatible object store: `s3://bucket/folder`.
//!
//! Names are object keys below the folder. What makes it a checkpoint store is conditional put (`If-None-Match`): of any number
//! of writers of one name exactly one is told that it was first. A store that overwrites instead is refused when it is opened.
//! Credentials, region and endpoint come from the usual variables (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
//! `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT_URL`, web identity, container and instance roles); they are in no message.
//!
//! Invariant: an object is whole or not there (S3 has it so), and a file is verified on its way in and out, before it counts.

mod errors;
#[cfg(test)]
mod server;
mod storage;
#[cfg(test)]
mod tests;

pub use storage::S3Storage;

use std::sync::Arc;
use waterwheel_engine::checkpoint::{CheckpointStorage, Stores};
use waterwheel_engine::env::Env;
use waterwheel_engine::error::{Error, Result};

/// Opens `s3://` URLs.
///
/// ```no_run
/// use std::sync::Arc;
/// use waterwheel_connectors::s3::S3Stores;
/// use waterwheel_engine::checkpoint::Places;
/// let places = Places::with(Arc::new(S3Stores));
/// # let _ = places;
/// ```
#[derive(Debug, Default)]
pub struct S3Stores;

impl Stores for S3Stores {
    fn open(&self, env: &Env, url: &str, to_write: bool) -> Result<Arc<dyn CheckpointStorage>> {
        let storage = S3Storage::connect(env, &Location::parse(url)?)?;
        if to_write {
            storage.check_conditional_put()?;
        }
        Ok(Arc::new(storage))
    }
}

/// A bucket, and a folder in it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Location {
    bucket: String,
    folder: String,
}

impl Location {
    fn parse(url: &str) -> Result<Location> {
        let wrong = |why: &str| Error::fatal(format!("{url} is no place for checkpoints: {why}")).help("it looks like s3://bucket/folder");
        let rest = url.strip_prefix("s3://").ok_or_else(|| wrong("only s3:// is known"))?;
        let (bucket, folder) = rest.split_once('/').unwrap_or((rest, ""));
        let folder = folder.trim_end_matches('/');
        if bucket.is_empty() || bucket.contains(['@', ':']) {
            return Err(Error::fatal("the URL of a checkpoint store names a bucket and nothing before it")
                .help("it looks like s3://bucket/folder; credentials belong into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"));
        }
        if folder.split('/').any(|part| (part.is_empty() && !folder.is_empty()) || part == "." || part == "..") {
            return Err(wrong("a part of its folder is empty"));
        }
        Ok(Location { bucket: bucket.into(), folder: folder.into() })
    }
}
