//! The real machine. Invariant: the only file that touches `std::fs`, `std::time` clocks and `std::thread`.
#![expect(clippy::disallowed_methods, reason = "this is the door itself")]

use super::{Background, Call, Calls, Clock, Env, FileWriter, Files, Job, Rng, Running};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Result, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(super) fn env() -> Env {
    super::memory::keep_freed();
    Env {
        clock: Arc::new(RealClock(Instant::now())),
        files: Arc::new(RealFiles),
        rng: Arc::new(RealRng),
        background: Arc::new(Threads::default()),
        calls: Arc::new(Tokio::default()),
    }
}

struct RealClock(Instant);

impl Clock for RealClock {
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
    fn wall_ms(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(d) => d.as_millis() as i64,
            Err(e) => -(e.duration().as_millis() as i64),
        }
    }
}

struct RealRng;

impl Rng for RealRng {
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        let from_system = File::open("/dev/urandom").and_then(|mut f| io::Read::read_exact(&mut f, &mut bytes));
        match from_system {
            Ok(()) => u64::from_le_bytes(bytes),
            // Without /dev (a bare chroot) the process-random hasher seed still differs from run to run.
            Err(_) => foldhash::quality::RandomState::default().build_hasher().finish(),
        }
    }
}

/// One thread a lane, started on first use; lanes are few (tasks, sinks, discovery).
#[derive(Default)]
struct Threads(Mutex<HashMap<String, Sender<Job>, foldhash::fast::FixedState>>);

impl Background for Threads {
    fn run(&self, lane: &str, job: Job) {
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let job = match lanes.get(lane) {
            Some(sender) => match sender.send(job) {
                Ok(()) => return,
                Err(back) => back.0,
            },
            None => job,
        };
        let (sender, jobs) = channel::<Job>();
        let started = std::thread::Builder::new().name(lane.to_string()).spawn(move || {
            for job in jobs {
                // A panicking job must not take its lane along; its caller sees the reply channel close.
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            }
        });
        assert!(started.is_ok(), "the system refuses another thread");
        let _ = sender.send(job);
        lanes.insert(lane.to_string(), sender);
    }

    fn together<'a>(&self, jobs: Vec<Box<dyn FnOnce() + Send + 'a>>) {
        std::thread::scope(|scope| jobs.into_iter().for_each(|job| drop(scope.spawn(job))));
    }
}

/// One thread with a runtime of its own, started by the first call.
#[derive(Default)]
struct Tokio(OnceLock<tokio::runtime::Handle>);

impl Tokio {
    fn handle(&self) -> &tokio::runtime::Handle {
        self.0.get_or_init(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.unwrap_or_else(|e| panic!("the system refuses a runtime for calls: {e}"));
            let handle = runtime.handle().clone();
            let driving = std::thread::Builder::new().name("calls".into()).spawn(move || runtime.block_on(std::future::pending::<()>()));
            assert!(driving.is_ok(), "the system refuses another thread");
            handle
        })
    }
}

impl Calls for Tokio {
    fn start(&self, call: Call) -> Running {
        let call = self.handle().spawn(call).abort_handle();
        Running::new(move || call.abort())
    }
    fn sleep(&self, time: Duration) -> Call {
        // Inside, because a timer must be made where the runtime is.
        Box::pin(async move { tokio::time::sleep(time).await })
    }
}

struct RealFiles;

struct Appender(File);

impl FileWriter for Appender {
    fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all(bytes)
    }
    fn sync(&mut self) -> Result<()> {
        self.0.sync_data()
    }
}

/// Takes an old file away. It is not cut off in place: it may have other names, of checkpoints that are complete.
fn make_way(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

impl Files for RealFiles {
    fn read(&self, path: &Path) -> Result<Vec<u8>> {
        fs::read(path)
    }

    fn read_at(&self, path: &Path, offset: u64, len: usize) -> Result<Vec<u8>> {
        let file = File::open(path)?;
        let there = file.metadata()?.len().saturating_sub(offset);
        let mut bytes = vec![0; len.min(usize::try_from(there).unwrap_or(usize::MAX))];
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    fn create(&self, path: &Path) -> Result<Box<dyn FileWriter>> {
        make_way(path)?;
        Ok(Box::new(Appender(File::create(path)?)))
    }

    fn create_private(&self, path: &Path) -> Result<Box<dyn FileWriter>> {
        make_way(path)?;
        Ok(Box::new(Appender(OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?)))
    }

    fn append(&self, path: &Path, keep: u64) -> Result<Box<dyn FileWriter>> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        file.set_len(keep)?;
        io::Seek::seek(&mut file, io::SeekFrom::Start(keep))?;
        Ok(Box::new(Appender(file)))
    }

    fn len(&self, path: &Path) -> Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        let mut names =
            fs::read_dir(dir)?.map(|entry| entry.map(|e| e.file_name().to_string_lossy().into_owned())).collect::<Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to)
    }

    fn link_exclusive(&self, from: &Path, to: &Path) -> Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, dir: &Path) -> Result<()> {
        fs::remove_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        let dir = if dir.as_os_str().is_empty() { PathBuf::from(".") } else { dir.to_path_buf() };
        File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path, note: &str) -> Result<Option<Box<dyn Send + Sync>>> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                file.set_len(0)?;
                file.write_all(note.as_bytes())?;
                Ok(Some(Box::new(file)))
            }
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::env::Env;

    /// A snapshot's files have second names in complete checkpoints.
    #[test]
    fn a_new_file_leaves_the_other_names_of_an_old_one_alone() {
        let (env, dir) = (Env::real(), tempfile::tempdir().expect("a folder"));
        let (old, name) = (dir.path().join("old"), dir.path().join("name"));
        let write =
            |path: &std::path::Path, bytes: &[u8]| env.files.create(path).and_then(|mut file| file.write_all(bytes)).expect("written");
        write(&old, b"kept");
        env.files.link_exclusive(&old, &name).expect("linked");
        write(&name, b"new");
        assert_eq!((env.files.read(&old).expect("read"), env.files.read(&name).expect("read")), (b"kept".to_vec(), b"new".to_vec()));
        write(&name, b"");
        assert_eq!(env.files.len(&name).expect("there"), 0);
    }

    #[test]
    fn a_private_file_is_its_owners_whatever_was_there() {
        use std::os::unix::fs::PermissionsExt as _;
        let (env, dir) = (Env::real(), tempfile::tempdir().expect("a folder"));
        let path = dir.path().join("kept");
        env.files.replace(&path, b"old").expect("written");
        env.files.replace_private(&path, b"new").expect("written");
        #[expect(clippy::disallowed_methods, reason = "the door does not tell rights")]
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!((mode & 0o777, env.files.read(&path).expect("read")), (0o600, b"new".to_vec()));
    }
}
