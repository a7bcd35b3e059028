//! The store: calls of the engine, each of which waits for its answer.
//!
//! Invariant: every wait has a deadline; after it, as after any error, the outcome is unknown and the call may be repeated.

use super::Location;
use super::errors::failed;
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path as Key;
use object_store::{Error as StoreError, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig};
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;
use waterwheel_engine::checkpoint::CheckpointStorage;
use waterwheel_engine::env::Env;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::state::StateFile;

/// Bytes read at a time, and in one part of a large object. S3 takes no smaller parts than 5 MiB and no more than 10,000.
const PART: usize = 16 << 20;
/// Longest wait for one answer; the client below gives up earlier and tries again by itself.
const DEADLINE: Duration = Duration::from_secs(300);
/// The object with which a store shows that it does not overwrite.
const PROBE: &str = "probe";

/// See the [module](super).
pub struct S3Storage {
    env: Env,
    store: Arc<dyn ObjectStore>,
    folder: String,
    place: String,
}

impl S3Storage {
    /// By the usual variables. Nothing is asked yet.
    pub(super) fn connect(env: &Env, location: &Location) -> Result<S3Storage> {
        let endpoint = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"].iter().find_map(|name| std::env::var(name).ok());
        let mut builder = AmazonS3Builder::from_env();
        if let Some(endpoint) = endpoint {
            // Who names an endpoint without TLS means it.
            builder = builder.with_allow_http(endpoint.starts_with("http://")).with_endpoint(endpoint);
        }
        Self::with(env, location, builder)
    }

    pub(super) fn with(env: &Env, Location { bucket, folder }: &Location, builder: AmazonS3Builder) -> Result<S3Storage> {
        let place = format!("s3://{bucket}/{folder}");
        // Short: the engine tries again by itself, and says so.
        let retry = RetryConfig { max_retries: 3, retry_timeout: Duration::from_secs(30), ..RetryConfig::default() };
        let builder = builder.with_bucket_name(bucket).with_conditional_put(S3ConditionalPut::ETagMatch).with_retry(retry);
        let store = builder.build().map_err(|e| failed("settings", &place, &e))?;
        Ok(S3Storage { env: env.clone(), store: Arc::new(store), folder: folder.clone(), place })
    }

    /// Refuses a store that overwrites what is there although it was told not to.
    pub(super) fn check_conditional_put(&self) -> Result<()> {
        self.put_if_absent(PROBE, b"waterwheel")?;
        if self.put_if_absent(PROBE, b"waterwheel")? {
            return Err(Error::fatal("the object store overwrites what is there: it does not know conditional put (If-None-Match)")
                .at(&self.place)
                .help("that refusal is what keeps two processes of one job apart: keep checkpoints in another store, or in a folder"));
        }
        Ok(())
    }

    fn key(&self, name: &str) -> Result<Key> {
        let good = !name.is_empty() && name.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
        let full = if self.folder.is_empty() { name.to_string() } else { format!("{}/{name}", self.folder) };
        Key::parse(full).ok().filter(|_| good).ok_or_else(|| Error::fatal(format!("{name:?} is not a name in a checkpoint store")))
    }

    /// Runs a call where the network is, and waits.
    fn wait<T: Send + 'static>(&self, call: impl Future<Output = object_store::Result<T>> + Send + 'static) -> object_store::Result<T> {
        let (answer, answered) = sync_channel(1);
        let running = self.env.calls.start(Box::pin(async move {
            // Who asked may have given up.
            let _ = answer.send(call.await);
        }));
        let late = || StoreError::Generic { store: "S3", source: format!("no answer within {} s", DEADLINE.as_secs()).into() };
        let result = answered.recv_timeout(DEADLINE).unwrap_or_else(|_| Err(late()));
        drop(running);
        result
    }

    fn failed(&self, doing: &str, name: &str, e: &StoreError) -> Error {
        failed(doing, &format!("{}/{name}", self.place), e)
    }

    fn put(&self, name: &str, bytes: Vec<u8>, mode: PutMode) -> Result<object_store::Result<()>> {
        let (store, key) = (self.store.clone(), self.key(name)?);
        let options = PutOptions { mode, ..PutOptions::default() };
        Ok(self.wait(async move { store.put_opts(&key, PutPayload::from(bytes), options).await.map(drop) }))
    }

    /// A local file's bytes from `at` on, at most a part.
    fn part(&self, from: &Path, at: u64) -> Result<Vec<u8>> {
        let mut part = Vec::new();
        while part.len() < PART {
            let bytes = self.env.files.read_at(from, at + part.len() as u64, PART - part.len())?;
            if bytes.is_empty() {
                break;
            }
            part.extend_from_slice(&bytes);
        }
        Ok(part)
    }

    /// Sends a large file in parts; it is an object only when the last call says so, after its checksum held.
    fn put_parts(&self, name: &str, from: &Path, file: &StateFile, first: Vec<u8>) -> Result<()> {
        let (store, key) = (self.store.clone(), self.key(name)?);
        let writing = |e: StoreError| self.failed("writing", name, &e);
        let mut upload = self.wait(async move { store.put_multipart(&key).await }).map_err(writing)?;
        let mut sent = || -> Result<bool> {
            let (mut part, mut len, mut crc) = (first.clone(), 0, crc32fast::Hasher::new());
            while !part.is_empty() {
                len += part.len() as u64;
                crc.update(&part);
                let sending = upload.put_part(PutPayload::from(part));
                self.wait(sending).map_err(writing)?;
                part = self.part(from, len)?;
            }
            Ok((len, crc.finalize()) == (file.len, file.crc))
        };
        let sent = sent();
        if let Ok(true) = sent {
            return self.wait(async move { upload.complete().await.map(drop) }).map_err(writing);
        }
        // What was sent costs space until it is given up; that it cannot be is no reason to fail otherwise.
        let _ = self.wait(async move { upload.abort().await });
        sent.and_then(|_| Err(changed(from)))
    }

    fn length(&self, name: &str) -> Result<Option<u64>> {
        let (store, key) = (self.store.clone(), self.key(name)?);
        match self.wait(async move { store.head(&key).await }) {
            Ok(object) => Ok(Some(object.size)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.failed("looking up", name, &e)),
        }
    }

    fn names_in(&self, folder: &str, names: &mut Vec<String>) -> Result<()> {
        let (store, key) = (self.store.clone(), self.key(folder)?);
        let list = self.wait(async move { store.list_with_delimiter(Some(&key)).await });
        let list = list.map_err(|e| self.failed("listing", folder, &e))?;
        let skip = if self.folder.is_empty() { 0 } else { self.folder.len() + 1 };
        let name = |key: &Key| key.as_ref().get(skip..).unwrap_or_default().to_string();
        names.extend(list.objects.iter().map(|object| name(&object.location)));
        list.common_prefixes.iter().try_for_each(|folder| self.names_in(&name(folder), names))
    }
}

fn changed(from: &Path) -> Error {
    Error::restart(format!("state file {} is not what its snapshot says", from.display()))
}

impl CheckpointStorage for S3Storage {
    fn describe(&self) -> String {
        self.place.clone()
    }

    fn put_if_absent(&self, name: &str, bytes: &[u8]) -> Result<bool> {
        match self.put(name, bytes.to_vec(), PutMode::Create)? {
            Ok(()) => Ok(true),
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => Ok(false),
            Err(e) => Err(self.failed("writing", name, &e)),
        }
    }

    fn put_file(&self, name: &str, from: &Path, file: &StateFile) -> Result<()> {
        let first = self.part(from, 0)?;
        if first.len() == PART {
            return self.put_parts(name, from, file, first);
        }
        if (first.len() as u64, crc32fast::hash(&first)) != (file.len, file.crc) {
            return Err(changed(from));
        }
        self.put(name, first, PutMode::Overwrite)?.map_err(|e| self.failed("writing", name, &e))
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let (store, key) = (self.store.clone(), self.key(name)?);
        match self.wait(async move { store.get(&key).await?.bytes().await }) {
            Ok(bytes) => Ok(Some(bytes.to_vec())),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.failed("reading", name, &e)),
        }
    }

    fn get_file(&self, name: &str, to: &Path, file: &StateFile) -> Result<()> {
        let damaged = |why: String| {
            Error::fatal(format!("{name} {why}"))
                .at(format!("checkpoint store {}", self.place))
                .help("restore an older checkpoint or a savepoint: run --from <path>")
        };
        let len = self.length(name)?.ok_or_else(|| damaged("is missing".into()))?;
        if len != file.len {
            return Err(damaged(format!("has {len} bytes, the checkpoint says {}", file.len)));
        }
        let (mut writer, mut at, mut crc) = (self.env.files.create(to)?, 0, crc32fast::Hasher::new());
        while at < len {
            let (store, key, range) = (self.store.clone(), self.key(name)?, at..len.min(at + PART as u64));
            let bytes = self.wait(async move { store.get_range(&key, range).await }).map_err(|e| self.failed("reading", name, &e))?;
            if bytes.is_empty() {
                return Err(damaged(format!("ends at {at} of {len} bytes")));
            }
            at += bytes.len() as u64;
            crc.update(&bytes);
            writer.write_all(&bytes)?;
        }
        if crc.finalize() == file.crc { Ok(()) } else { Err(damaged("is damaged: its checksum does not hold".into())) }
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        self.names_in(folder.trim_end_matches('/'), &mut names)?;
        names.sort();
        Ok(names)
    }

    fn delete(&self, name: &str) -> Result<()> {
        let (store, key) = (self.store.clone(), self.key(name)?);
        match self.wait(async move { store.delete(&key).await }) {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(e) => Err(self.failed("deleting", name, &e)),
        }
    }

    fn size(&self, name: &str) -> Result<Option<u64>> {
        self.length(name)
    }
}
