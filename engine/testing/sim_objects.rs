//! A model of an object store: named bytes elsewhere, and every way an answer can go missing.
//!
//! It promises what S3 does: what is stored is seen by every call after it, a name is stored whole or not at all, and a
//! conditional put is refused when the name is taken. Requests may be refused, be done without an answer, arrive when nobody
//! waits for them any more, take long, or be sent twice by the client underneath: then the second one of a conditional put
//! finds the first one's object and is refused, although it was ours.
//!
//! Invariant: it outlives every process and every power cut; same seed, same calls, same answers.

use super::SimMachine;
use super::sim_env::lock;
use crate::checkpoint::{CheckpointStorage, Places, Stores};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::state::StateFile;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What names begin with.
const SCHEME: &str = "sim://";

/// What can go wrong with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFault {
    /// The request is refused for now and changes nothing.
    Refused,
    /// It takes effect, and the answer is lost.
    LostAnswer,
    /// A change is held up on its way and arrives later; who asked for it was told that it failed.
    LateChange,
    /// It takes seconds.
    Slow,
    /// A put is sent twice.
    Doubled,
}

impl StoreFault {
    /// All of them.
    pub const ALL: [StoreFault; 5] =
        [StoreFault::Refused, StoreFault::LostAnswer, StoreFault::LateChange, StoreFault::Slow, StoreFault::Doubled];

    fn name(self) -> &'static str {
        match self {
            StoreFault::Refused => "store refuses",
            StoreFault::LostAnswer => "lost answer of the store",
            StoreFault::LateChange => "late change of the store",
            StoreFault::Slow => "slow store",
            StoreFault::Doubled => "doubled put",
        }
    }

    fn fits(self, request: Request) -> bool {
        match self {
            StoreFault::LateChange => request != Request::Look,
            StoreFault::Doubled => request == Request::Put,
            StoreFault::Refused | StoreFault::LostAnswer | StoreFault::Slow => true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Look,
    Put,
    Delete,
}

/// A change of one name.
#[derive(Clone)]
enum Change {
    Put { bytes: Vec<u8>, if_absent: bool },
    Delete,
}

#[derive(Default)]
struct Bucket {
    objects: BTreeMap<String, Vec<u8>>,
    /// On their way: when they arrive, and what.
    late: Vec<(Duration, String, Change)>,
    requests: u64,
    armed: Vec<(u64, StoreFault)>,
    away_until: Duration,
}

impl Bucket {
    /// Whether it was done.
    fn change(&mut self, name: &str, change: Change) -> bool {
        match change {
            Change::Put { if_absent: true, .. } if self.objects.contains_key(name) => return false,
            Change::Put { bytes, .. } => drop(self.objects.insert(name.to_string(), bytes)),
            Change::Delete => drop(self.objects.remove(name)),
        }
        true
    }

    fn pass_time(&mut self, now: Duration) {
        for (_, name, change) in self.late.extract_if(.., |(due, ..)| *due <= now).collect::<Vec<_>>() {
            self.change(&name, change);
        }
    }
}

/// The object store. Cheap to clone; outlives every process that talks to it.
#[derive(Clone, Default)]
pub struct SimObjects(Arc<Mutex<Bucket>>);

impl SimObjects {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the process on `machine` keep checkpoints here, under URLs that begin with `sim://`.
    pub fn places(&self, machine: &SimMachine) -> Places {
        Places::with(Arc::new(Opener { objects: self.clone(), machine: machine.clone() }))
    }

    /// The store at `url` for the process on `machine`, which reads and writes local files through `env`.
    pub fn store(&self, machine: &SimMachine, env: &Env, url: &str) -> Arc<dyn CheckpointStorage> {
        let folder = format!("{}/", url.trim_start_matches(SCHEME).trim_end_matches('/'));
        Arc::new(SimStorage { objects: self.clone(), machine: machine.clone(), env: env.clone(), folder })
    }

    /// The `requests`-th request from now, or a later one that can, meets this fault.
    pub fn arm(&self, requests: u64, fault: StoreFault) {
        let mut bucket = lock(&self.0);
        let at = bucket.requests + requests;
        bucket.armed.push((at, fault));
    }

    /// The store answers nobody until then.
    pub fn away_until(&self, until: Duration) {
        lock(&self.0).away_until = until;
    }

    /// No fault is to come any more; what is on its way arrives at once.
    pub fn disarm(&self) {
        let mut bucket = lock(&self.0);
        bucket.armed.clear();
        bucket.away_until = Duration::ZERO;
        bucket.pass_time(Duration::MAX);
    }
}

struct Opener {
    objects: SimObjects,
    machine: SimMachine,
}

impl Stores for Opener {
    fn open(&self, env: &Env, url: &str, _to_write: bool) -> Result<Arc<dyn CheckpointStorage>> {
        Ok(self.objects.store(&self.machine, env, url))
    }
}

/// A folder of the store as one process sees it.
struct SimStorage {
    objects: SimObjects,
    machine: SimMachine,
    env: Env,
    folder: String,
}

impl SimStorage {
    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.folder)
    }

    fn look<R>(&self, look: impl FnOnce(&Bucket) -> R) -> Result<R> {
        self.request(Request::Look, |bucket, _, _| Ok(look(bucket)))
    }

    /// Whether a change was done.
    fn change(&self, name: &str, request: Request, change: Change) -> Result<bool> {
        let name = self.name(name);
        self.request(request, |bucket, now, fault| {
            if fault == Some(StoreFault::LateChange) {
                let due = now + Duration::from_millis(self.machine.choose(500) as u64);
                bucket.late.push((due, name, change));
                return Err(Error::transient("the object store does not answer"));
            }
            if fault == Some(StoreFault::Doubled) {
                bucket.change(&name, change.clone());
            }
            Ok(bucket.change(&name, change))
        })
    }

    fn request<R>(&self, request: Request, act: impl FnOnce(&mut Bucket, Duration, Option<StoreFault>) -> Result<R>) -> Result<R> {
        self.machine.call().map_err(|e| Error::restart(e.to_string()))?;
        let fault = self.next_fault(request);
        if fault == Some(StoreFault::Slow) {
            self.machine.advance(Duration::from_millis(self.machine.choose(5_000) as u64));
        }
        let mut bucket = lock(&self.objects.0);
        let now = self.machine.now();
        bucket.pass_time(now);
        if bucket.away_until > now {
            self.machine.note("store away");
            return Err(Error::transient("the object store is away"));
        }
        if fault == Some(StoreFault::Refused) {
            return Err(Error::transient("the object store refuses for now"));
        }
        let answer = act(&mut bucket, now, fault);
        if fault == Some(StoreFault::LostAnswer) && answer.is_ok() {
            return Err(Error::transient("the answer of the object store is lost"));
        }
        answer
    }

    fn next_fault(&self, request: Request) -> Option<StoreFault> {
        let mut bucket = lock(&self.objects.0);
        bucket.requests += 1;
        let now = bucket.requests;
        let at = bucket.armed.iter().position(|(at, fault)| *at <= now && fault.fits(request))?;
        let fault = bucket.armed.swap_remove(at).1;
        drop(bucket);
        self.machine.note(fault.name());
        Some(fault)
    }
}

impl CheckpointStorage for SimStorage {
    fn describe(&self) -> String {
        format!("{SCHEME}{}", self.folder.trim_end_matches('/'))
    }

    fn put_if_absent(&self, name: &str, bytes: &[u8]) -> Result<bool> {
        self.change(name, Request::Put, Change::Put { bytes: bytes.to_vec(), if_absent: true })
    }

    fn put_file(&self, name: &str, from: &Path, file: &StateFile) -> Result<()> {
        let bytes = self.env.files.read(from)?;
        if (bytes.len() as u64, crc32fast::hash(&bytes)) != (file.len, file.crc) {
            return Err(Error::restart(format!("state file {} is not what its snapshot says", from.display())));
        }
        self.change(name, Request::Put, Change::Put { bytes, if_absent: false }).map(drop)
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.look(|bucket| bucket.objects.get(&self.name(name)).cloned())
    }

    fn get_file(&self, name: &str, to: &Path, file: &StateFile) -> Result<()> {
        let damaged = |why: &str| Error::fatal(format!("{name} {why}")).at(self.describe());
        let bytes = self.get(name)?.ok_or_else(|| damaged("is missing"))?;
        self.env.files.create(to)?.write_all(&bytes)?;
        match (bytes.len() as u64, crc32fast::hash(&bytes)) == (file.len, file.crc) {
            true => Ok(()),
            false => Err(damaged("is damaged")),
        }
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        let folder = format!("{}/", self.name(folder.trim_end_matches('/')));
        self.look(|bucket| {
            let names = bucket.objects.keys().filter(|name| name.starts_with(&folder));
            names.map(|name| name[self.folder.len()..].to_string()).collect()
        })
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.change(name, Request::Delete, Change::Delete).map(drop)
    }

    fn size(&self, name: &str) -> Result<Option<u64>> {
        self.look(|bucket| bucket.objects.get(&self.name(name)).map(|bytes| bytes.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{StorageStep, storage_conforms};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_a_checkpoint_store_like_any_other(steps in proptest::collection::vec(any::<(u8, u8, u8)>(), 1..40)) {
            let machine = SimMachine::new(1);
            let env = machine.env();
            env.files.create_dir_all("scratch".as_ref()).unwrap();
            let store = SimObjects::new().store(&machine, &env, "sim://bucket/job");
            let script: Vec<StorageStep> = steps.into_iter().map(StorageStep::of).collect();
            storage_conforms(&env, &*store, "scratch".as_ref(), &script, 100);
        }
    }

    #[test]
    fn a_put_may_be_ours_although_it_is_refused_and_done_although_it_failed() {
        let (machine, objects) = (SimMachine::new(1), SimObjects::new());
        let store = objects.store(&machine, &machine.env(), "sim://bucket");
        objects.arm(0, StoreFault::Doubled);
        assert!(!store.put_if_absent("doubled", b"1").unwrap());
        objects.arm(0, StoreFault::LostAnswer);
        assert!(store.put_if_absent("lost", b"1").is_err());
        objects.arm(0, StoreFault::LateChange);
        assert!(store.put_if_absent("late", b"1").is_err());
        machine.advance(Duration::from_secs(1));
        objects.arm(0, StoreFault::Refused);
        assert!(store.put_if_absent("refused", b"1").is_err());
        let there = ["doubled", "lost", "late", "refused"].map(|name| store.get(name).unwrap().is_some());
        assert_eq!(there, [true, true, true, false]);
    }
}
