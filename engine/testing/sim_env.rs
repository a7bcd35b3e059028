//! The simulated machine: virtual time, one disk, processes whose background work runs when the seed says.
//!
//! Fault model. A process may die at any call into the outside, or be paused there while another one runs. A power cut
//! drops memory and every byte and name that was not synced (see [`sim_disk`](super::sim_disk) for the disk). Wall time may
//! jump. Lanes of background work may stall.
//!
//! Invariant: same seed, same calls, same answers.

use super::sim_calls::SimCalls;
use super::sim_disk::{Disk, DiskFault, SimFiles};
use crate::env::{Background, Clock, Env, Job, Rng};
use std::collections::{BTreeMap, VecDeque};
use std::io::{Error, Result};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// 2026-01-01T00:00:00Z: the wall time at which every simulation starts.
const WALL_START_MS: i64 = 1_767_225_600_000;

/// One process on a simulated machine; survives the process. Clones are the same process, see
/// [`another_process`](SimMachine::another_process).
#[derive(Clone)]
pub struct SimMachine {
    clock: Arc<SimClock>,
    disk: Arc<Mutex<Disk>>,
    rng: Arc<SimRng>,
    process: Arc<Process>,
    calls: Arc<SimCalls>,
    /// Faults that were met, by name.
    met: Arc<Mutex<BTreeMap<&'static str, u64>>>,
}

impl SimMachine {
    /// A fresh machine whose every choice follows from `seed`.
    pub fn new(seed: u64) -> Self {
        let clock = Arc::<SimClock>::default();
        SimMachine {
            calls: Arc::new(SimCalls::new(clock.clone())),
            clock,
            disk: Arc::default(),
            rng: Arc::new(SimRng(Mutex::new(seed))),
            process: Arc::default(),
            met: Arc::default(),
        }
    }

    /// Another process on the same machine.
    #[must_use]
    pub fn another_process(&self) -> SimMachine {
        SimMachine { process: Arc::default(), calls: Arc::new(SimCalls::new(self.clock.clone())), ..self.clone() }
    }

    /// The environment of the process.
    pub fn env(&self) -> Env {
        let clock = Arc::new(Counted(self.clock.clone(), self.process.clone()));
        let rng = Arc::new(Counted(self.rng.clone(), self.process.clone()));
        let (files, background) = (Arc::new(SimFiles::new(self.clone())), Arc::new(Queue(self.process.clone())));
        Env { clock, files, rng, background, calls: self.calls.clone() }
    }

    /// An environment for the test itself, which looks at the machine from outside: no faults, background work is done at once.
    pub fn outside(&self) -> Env {
        Env { background: Arc::new(AtOnce), ..self.another_process().env() }
    }

    /// A number below `n`, from the seed.
    pub fn choose(&self, n: usize) -> usize {
        (self.rng.next_u64() % n.max(1) as u64) as usize
    }

    /// Monotonic time.
    pub fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        *lock(&self.clock.monotonic) += by;
    }

    /// The wall clock jumps, forwards or backwards.
    pub fn jump_wall(&self, by_ms: i64) {
        self.clock.wall_offset_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Runs one waiting background job, of a lane that the seed picks, or lets a call go on that the seed picks. `false` when
    /// neither got anywhere.
    pub fn run_background(&self) -> bool {
        let calls = self.calls.len();
        if calls > 0 && (!self.has_background() || self.choose(2) == 0) {
            return self.calls.poll(self.choose(calls));
        }
        let now = self.now();
        let job = {
            let mut lanes = lock(&self.process.lanes);
            let ready = |lane: &Lane| !lane.jobs.is_empty() && lane.stalled_until <= now;
            let waiting = lanes.values().filter(|lane| ready(lane)).count();
            if waiting == 0 {
                return false;
            }
            let pick = self.choose(waiting);
            lanes.values_mut().filter(|lane| ready(lane)).nth(pick).and_then(|lane| lane.jobs.pop_front())
        };
        if let Some(job) = job {
            job();
        }
        true
    }

    /// Whether background jobs wait.
    pub fn has_background(&self) -> bool {
        lock(&self.process.lanes).values().any(|lane| !lane.jobs.is_empty())
    }

    /// One lane, chosen by the seed, does nothing for a while.
    pub fn stall_a_lane(&self, for_: Duration) {
        let until = self.now() + for_;
        let mut lanes = lock(&self.process.lanes);
        let pick = self.choose(lanes.len());
        if let Some(lane) = lanes.values_mut().nth(pick) {
            lane.stalled_until = until;
        }
    }

    /// The process dies and a new one may begin in its place; files stay as they are.
    pub fn kill(&self) {
        self.process.end();
        self.calls.clear();
    }

    /// The process dies and the power is cut: unsynced bytes and names are gone, as far as the seed says.
    pub fn crash(&self) {
        self.kill();
        lock(&self.disk).power_cut(&|n| self.choose(n));
    }

    /// The process dies at its `calls`-th call into the outside from now.
    pub fn die_in(&self, calls: u64) {
        self.process.die_at.store(self.process.calls.load(Ordering::Relaxed) + calls.max(1), Ordering::Relaxed);
    }

    /// Whether it has died since it was last [killed](SimMachine::kill) or began.
    pub fn has_died(&self) -> bool {
        self.process.dead.load(Ordering::Relaxed)
    }

    /// Before its `calls`-th call into the outside from now the process is paused, and `what` runs meanwhile.
    pub fn pause_in(&self, calls: u64, what: impl FnOnce() + Send + 'static) {
        let at = self.process.calls.load(Ordering::Relaxed) + calls.max(1);
        *lock(&self.process.pause) = Some((at, Box::new(what)));
    }

    /// From now on every file operation fails as if the disk were full (`true`), or works again (`false`).
    pub fn disk_full(&self, full: bool) {
        lock(&self.disk).full_until = if full { Duration::MAX } else { Duration::ZERO };
    }

    /// The disk is full for so long.
    pub fn disk_full_for(&self, for_: Duration) {
        lock(&self.disk).full_until = self.now() + for_;
    }

    /// A call of the process that can meet this fault, the `calls`-th into the outside from now or a later one, meets it.
    pub fn arm(&self, calls: u64, fault: DiskFault) {
        lock(&self.process.armed).push((self.process.calls.load(Ordering::Relaxed) + calls, fault));
    }

    /// No fault is to come any more.
    pub fn disarm(&self) {
        lock(&self.process.armed).clear();
        *lock(&self.process.pause) = None;
        self.process.die_at.store(u64::MAX, Ordering::Relaxed);
        lock(&self.process.lanes).values_mut().for_each(|lane| lane.stalled_until = Duration::ZERO);
        self.disk_full(false);
    }

    /// Calls into the outside that the process has made: files and broker.
    pub fn calls(&self) -> u64 {
        self.process.calls.load(Ordering::Relaxed)
    }

    /// The same, and those for clocks, chance and background work.
    pub fn env_calls(&self) -> u64 {
        self.calls() + self.process.asked.load(Ordering::Relaxed)
    }

    /// One call into the outside: the place where a process dies or is paused.
    ///
    /// # Errors
    /// When the process is dead.
    pub fn call(&self) -> Result<()> {
        let process = &self.process;
        let now = process.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let pause = lock(&process.pause).take_if(|(at, _)| *at <= now);
        if let Some((_, meanwhile)) = pause {
            self.note("paused");
            meanwhile();
        }
        if now >= process.die_at.load(Ordering::Relaxed) && !process.dead.swap(true, Ordering::Relaxed) {
            self.note("died in a call");
        }
        if self.has_died() { Err(Error::other("the process is dead")) } else { Ok(()) }
    }

    /// The fault that this call meets, if it is one of `possible`.
    pub(super) fn meets(&self, possible: &[DiskFault]) -> Option<DiskFault> {
        let mut armed = lock(&self.process.armed);
        let now = self.calls();
        let at = armed.iter().position(|(at, fault)| *at <= now && possible.contains(fault))?;
        let fault = armed.swap_remove(at).1;
        drop(armed);
        self.note(fault.name());
        Some(fault)
    }

    pub(super) fn disk(&self) -> MutexGuard<'_, Disk> {
        lock(&self.disk)
    }

    /// Counts a fault that was met.
    pub fn note(&self, fault: &'static str) {
        *lock(&self.met).entry(fault).or_default() += 1;
    }

    /// Faults that were met so far, by name.
    pub fn faults_met(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.met).clone()
    }

    /// Where chance stands: equal after equal runs.
    pub fn fingerprint(&self) -> u64 {
        *lock(&self.rng.0)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What runs while a process is paused.
type Meanwhile = Box<dyn FnOnce() + Send>;

/// What dies with a process.
struct Process {
    calls: AtomicU64,
    /// Calls that cannot fail.
    asked: AtomicU64,
    die_at: AtomicU64,
    dead: AtomicBool,
    lanes: Mutex<BTreeMap<String, Lane>>,
    armed: Mutex<Vec<(u64, DiskFault)>>,
    pause: Mutex<Option<(u64, Meanwhile)>>,
}

impl Default for Process {
    fn default() -> Self {
        Process {
            calls: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            die_at: AtomicU64::new(u64::MAX),
            dead: AtomicBool::new(false),
            lanes: Mutex::default(),
            armed: Mutex::default(),
            pause: Mutex::default(),
        }
    }
}

impl Process {
    fn end(&self) {
        // Dropped outside of the lock: a job may hold what queues another one when it goes.
        let lanes = std::mem::take(&mut *lock(&self.lanes));
        drop(lanes);
        lock(&self.lanes).clear();
        lock(&self.armed).clear();
        *lock(&self.pause) = None;
        self.die_at.store(u64::MAX, Ordering::Relaxed);
        self.dead.store(false, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct SimClock {
    monotonic: Mutex<Duration>,
    wall_offset_ms: AtomicI64,
}

impl Clock for SimClock {
    fn monotonic(&self) -> Duration {
        *lock(&self.monotonic)
    }
    fn wall_ms(&self) -> i64 {
        WALL_START_MS + self.wall_offset_ms.load(Ordering::Relaxed) + lock(&self.monotonic).as_millis() as i64
    }
}

/// SplitMix64: small, and every seed gives a full-period sequence.
struct SimRng(Mutex<u64>);

impl Rng for SimRng {
    fn next_u64(&self) -> u64 {
        let mut state = lock(&self.0);
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// A part of an environment whose calls are counted.
struct Counted<T>(Arc<T>, Arc<Process>);

impl<T> Counted<T> {
    fn part(&self) -> &T {
        self.1.asked.fetch_add(1, Ordering::Relaxed);
        &self.0
    }
}

impl<T: Clock> Clock for Counted<T> {
    fn monotonic(&self) -> Duration {
        self.part().monotonic()
    }
    fn wall_ms(&self) -> i64 {
        self.part().wall_ms()
    }
}

impl<T: Rng> Rng for Counted<T> {
    fn next_u64(&self) -> u64 {
        self.part().next_u64()
    }
}

struct AtOnce;

impl Background for AtOnce {
    fn run(&self, _lane: &str, job: Job) {
        job();
    }
}

#[derive(Default)]
struct Lane {
    jobs: VecDeque<Job>,
    stalled_until: Duration,
}

struct Queue(Arc<Process>);

impl Background for Queue {
    fn run(&self, lane: &str, job: Job) {
        self.0.asked.fetch_add(1, Ordering::Relaxed);
        if self.0.dead.load(Ordering::Relaxed) {
            return;
        }
        lock(&self.0.lanes).entry(lane.to_string()).or_default().jobs.push_back(job);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_dies_in_a_call_and_its_work_with_it() {
        let machine = SimMachine::new(1);
        let env = machine.env();
        env.files.create_dir_all("d".as_ref()).unwrap();
        machine.die_in(2);
        env.files.create("d/first".as_ref()).unwrap();
        assert!(env.files.create("d/second".as_ref()).is_err());
        assert!(machine.has_died());
        env.background.run("lane", Box::new(|| ()));
        assert!(!machine.has_background(), "a dead process starts nothing");
        machine.kill();
        assert!(env.files.create("d/third".as_ref()).is_ok());
        assert!(!env.files.exists("d/second".as_ref()).unwrap());
    }

    #[test]
    fn a_paused_process_goes_on_where_it_was() {
        let machine = SimMachine::new(1);
        let (env, other) = (machine.env(), machine.another_process());
        machine.pause_in(1, move || other.env().files.create_dir_all("made".as_ref()).unwrap());
        assert!(env.files.exists("made".as_ref()).unwrap(), "the other one ran first");
    }

    #[test]
    fn a_stalled_lane_waits_and_others_do_not() {
        let machine = SimMachine::new(1);
        machine.env().background.run("a", Box::new(|| ()));
        machine.stall_a_lane(Duration::from_secs(1));
        assert!(!machine.run_background() && machine.has_background());
        machine.env().background.run("b", Box::new(|| ()));
        assert!(machine.run_background());
        machine.advance(Duration::from_secs(1));
        assert!(machine.run_background() && !machine.has_background());
    }
}
