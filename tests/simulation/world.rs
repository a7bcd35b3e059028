//! One simulated run: a job, its machine and its broker under one seed, from the first start to the last check.
//!
//! Invariant: a run is over when the job has finished, was started once more, and has changed nothing; a failure without a
//! fault, a fault that a person would have to mend, and a job that does not finish once the faults are gone are violations.

use super::fault::{Fault, Scenario};
use super::files;
use super::graph::{Draw, Ground, Shape, Violations};
use super::input::{Form, Input};
use super::workloads::{self, Output, Workload};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use waterwheel::engine::checkpoint;
use waterwheel::engine::env::{Bug, with_bug};
use waterwheel::engine::error::{Error, Kind};
use waterwheel::engine::runtime::{Outcome, Settings};
use waterwheel::engine::testing::{SimBroker, SimJob, SimMachine, SimObjects, Trace};

/// With the faults gone a job finishes within so many steps.
const STEPS_TO_FINISH: usize = 400_000;
/// Without a fault no checkpoint takes so long.
const PATIENT: Duration = Duration::from_secs(10);
/// The store of a job whose checkpoints are not in a folder.
const REMOTE: &str = "sim://checkpoints";
/// Starts in a row that may fail while faults go on.
const STARTS: usize = 40;

/// What to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// Of everything.
    pub(crate) seed: u64,
    /// This workload; `None` = the seed picks one.
    pub(crate) workload: Option<&'static str>,
    /// Which faults there are.
    pub(crate) scenario: Scenario,
    /// Rows of input.
    pub(crate) rows: usize,
    /// A rule that is left out.
    pub(crate) bug: Option<Bug>,
}

impl Options {
    /// A run of every fault over 2,000 rows.
    pub(crate) fn new(seed: u64) -> Self {
        Options { seed, workload: None, scenario: Scenario::All, rows: 2_000, bug: None }
    }
}

/// What became of a run.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    /// The workload.
    pub(crate) workload: &'static str,
    /// Faults that struck.
    pub(crate) strikes: u32,
    /// What was met of them, by name: one fault may fail many calls.
    pub(crate) faults: BTreeMap<&'static str, u64>,
    /// Epochs that were complete.
    pub(crate) checkpoints: u64,
    /// Tasks of the widest attempt.
    pub(crate) tasks: u32,
    /// Starts of a process or an attempt.
    pub(crate) starts: u32,
    /// Hash of every step.
    pub(crate) trace: u64,
    /// What was wrong.
    pub(crate) violation: Option<String>,
}

/// Runs once. Of some seeds also without faults: what is kept at the end must be the same.
pub(crate) fn run(options: &Options) -> Report {
    let (report, state) = run_once(options);
    let is_compared = report.violation.is_none() && options.scenario != Scenario::Quiet && options.seed.is_multiple_of(4);
    let Some(state) = state.filter(|_| is_compared) else { return report };
    let (quiet, kept) = run_once(&Options { scenario: Scenario::Quiet, bug: None, ..*options });
    let violation = quiet.violation.or_else(|| kept.and_then(|kept| other_state(&kept, &state)));
    Report { violation, ..report }
}

/// Says what is kept otherwise than without faults.
fn other_state(quiet: &[String], state: &[String]) -> Option<String> {
    let at = quiet.iter().zip(state).position(|(a, b)| a != b).unwrap_or(quiet.len().min(state.len()));
    let show = |entries: &[String]| entries.get(at).map_or("nothing".to_string(), |entry| entry.chars().take(200).collect());
    let (want, have) = (show(quiet), show(state));
    (quiet != state).then(|| format!("state differs: {} entries in place of {}; {have} in place of {want}", state.len(), quiet.len()))
}

/// One run; its state at the end, where a workload's is the same each time.
fn run_once(options: &Options) -> (Report, Option<Vec<String>>) {
    let mut world = World::new(options);
    let outcome = catch_unwind(AssertUnwindSafe(|| match options.bug {
        Some(bug) => with_bug(bug, || world.run()),
        None => world.run(),
    }));
    let violation = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(_)) if world.asked => None,
        Ok(Err(why)) => Some(why),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            Some(format!("panicked: {}", text.unwrap_or("no message")))
        }
    };
    let mut trace = world.trace;
    trace.add(world.job.trace().0);
    trace.add(world.machine.fingerprint());
    let state = (world.workload.state_is_fixed() && !world.asked).then(|| std::mem::take(&mut world.state));
    let report = Report {
        workload: world.workload.name,
        strikes: world.strikes,
        faults: world.machine.faults_met(),
        checkpoints: world.checkpoints.max(world.job.complete_epoch()),
        tasks: lock(&world.shape).parallelism,
        starts: world.starts,
        trace: trace.0,
        violation,
    };
    (report, state)
}

pub(super) struct World {
    pub(super) machine: SimMachine,
    pub(super) broker: SimBroker,
    /// Where checkpoints are, if not in a folder.
    pub(super) objects: SimObjects,
    pub(super) job: SimJob,
    pub(super) scenario: Scenario,
    workload: &'static Workload,
    ground: Ground,
    shape: Arc<Mutex<Shape>>,
    settings: Settings,
    finished: bool,
    starts: u32,
    strikes: u32,
    checkpoints: u64,
    savepoints: u32,
    /// Faults met when the present attempt began, and flipped bits among them.
    met: (u64, u64),
    /// Another process has run the job since this one began: one that was taken over may fail in any way, if it does no harm.
    rivals: bool,
    /// Markers are gone, and what was written can be told apart by nobody: a person decides, and the run is over.
    asked: bool,
    /// What it kept at its end.
    state: Vec<String>,
    trace: Trace,
}

impl World {
    pub(super) fn new(options: &Options) -> World {
        let machine = SimMachine::new(options.seed);
        let pick = |n: usize| machine.choose(n);
        let at = pick(workloads::ALL.len());
        let workload = options.workload.and_then(Workload::named).unwrap_or(&workloads::ALL[at]);
        let broker = SimBroker::new();
        let form = match workload.name {
            "dead-letters" => Form::WithBad,
            name if name.starts_with("sql-") => Form::Json,
            _ => Form::Plain,
        };
        let input = Input::make(&machine, &broker, options.rows, form);
        let checkpoint = checkpoint::Settings {
            interval: Duration::from_millis([1, 1 + pick(24) as u64][pick(2)]),
            timeout: [Duration::from_millis(1_500), Duration::from_secs(4), PATIENT, PATIENT, PATIENT][pick(5)],
            min_pause: Duration::from_millis(pick(5) as u64),
            tolerated_failures: [5, 100][pick(2)],
            retained: 1 + pick(3),
            max_unpublished: 1 + pick(4) as u64,
            max_unpublished_bytes: checkpoint::Settings::default().max_unpublished_bytes,
        };
        let mut settings = Settings {
            checkpoint,
            batch_rows: 2 + pick(40),
            channel_bytes: [200, 4_000, 256 << 10][pick(3)],
            memory_per_task: [0, 3_000, 30_000, 256 << 20][pick(4)],
            publish_bytes: [1, 2_000, 32 << 20][pick(3)],
            ..Settings::default()
        };
        if workload.name == "hours-late" {
            // What lies in channels is ahead of the watermark: it must not be half of the input.
            (settings.batch_rows, settings.channel_bytes) = (settings.batch_rows.min(8), 200);
        }
        let max_ahead = (pick(3) == 0).then(|| Duration::from_millis(1 + pick(500) as u64));
        let ground = Ground {
            machine: machine.clone(),
            broker: broker.clone(),
            input,
            violations: Violations::default(),
            lanes: 1 + pick(3) as u32,
            trims: options.scenario != Scenario::Savepoint && pick(2) == 0,
            max_ahead,
            shares_files: pick(2) == 0,
        };
        let objects = SimObjects::new();
        if pick(3) == 0 {
            (settings.remote, settings.places) = (Some(REMOTE.into()), objects.places(&machine));
        }
        let shape = Arc::new(Mutex::new(Shape { parallelism: 1 + pick(3) as u32, upgraded: false }));
        let job = job(&ground, workload, &shape, settings.clone());
        World {
            machine,
            broker,
            objects,
            job,
            scenario: options.scenario,
            workload,
            ground,
            shape,
            settings,
            finished: false,
            starts: 0,
            strikes: 0,
            checkpoints: 0,
            savepoints: 0,
            met: (0, 0),
            rivals: false,
            asked: false,
            state: Vec::new(),
            trace: Trace(0),
        }
    }

    fn run(&mut self) -> Result<(), String> {
        let faults = match self.scenario {
            Scenario::Quiet => 0,
            _ => 1 + self.machine.choose(8),
        };
        for _ in 0..faults {
            self.advance_by_chance(500)?;
            if self.finished {
                break;
            }
            let fault = Fault::draw(self.scenario, &self.machine);
            self.trace.add(fault.index() as u64);
            self.strikes += 1;
            tracing::info!(epoch = self.job.complete_epoch(), ?fault, "strikes");
            fault.strike(self)?;
        }
        self.machine.disarm();
        self.broker.disarm();
        self.objects.disarm();
        self.finish()?;
        let output = Output::read(&self.broker);
        self.workload.check(&self.ground.input, &output)?;
        self.state = files::state(&self.machine, &self.job, self.remote())?;
        // Started once more, it finds nothing to do, and nothing that nobody needs any more. By itself, because one that takes
        // over leaves alone what the other may still use.
        self.finished = false;
        self.job.settings().take_over = false;
        self.ensure_running()?;
        files::check(&self.machine, self.remote())?;
        self.finish()?;
        if Output::read(&self.broker).without_notes() != output.without_notes() {
            return Err("the job was finished, and a further start changed its output".into());
        }
        self.ground.violations.first().map_or(Ok(()), Err)
    }

    /// Whether checkpoints are elsewhere than in a folder.
    pub(super) fn is_remote(&self) -> bool {
        self.settings.remote.is_some()
    }

    fn remote(&self) -> Option<(&SimObjects, &'static str)> {
        self.is_remote().then_some((&self.objects, REMOTE))
    }

    /// Some steps, as chance has it.
    pub(super) fn advance_by_chance(&mut self, steps: usize) -> Result<(), String> {
        let steps = self.machine.choose(steps);
        self.advance(steps)
    }

    /// Steps of a job that runs, or is started.
    pub(super) fn advance(&mut self, steps: usize) -> Result<(), String> {
        if self.finished {
            return Ok(());
        }
        self.ensure_running()?;
        let failed = self.job.failed_checkpoints();
        let run = self.job.run(steps);
        if self.job.failed_checkpoints() > failed && self.settings.checkpoint.timeout == PATIENT && self.met_nothing() {
            return Err(format!("a checkpoint failed without a fault: {}", self.job.describe()));
        }
        match run {
            Ok(Some(Outcome::Finished)) => self.finished = true,
            Ok(Some(Outcome::Stopped | Outcome::Killed)) => {}
            // Dead, or just not at its end.
            Ok(None) => {}
            Err(e) => self.failed(&e)?,
        }
        Ok(())
    }

    /// Starts the job until it runs.
    pub(super) fn ensure_running(&mut self) -> Result<(), String> {
        for _ in 0..STARTS {
            if self.machine.has_died() {
                self.die();
            }
            if self.job.is_running() {
                return Ok(());
            }
            let again = self.job.has_process();
            if !again {
                self.rivals = false;
                // A new process may be given another number of tasks, or be of a later version.
                let (tasks, is_later) = (1 + self.machine.choose(4) as u32, self.machine.choose(8) == 0);
                let mut shape = lock(&self.shape);
                if self.machine.choose(2) == 0 {
                    shape.parallelism = tasks;
                }
                if is_later && !shape.upgraded {
                    self.machine.note("job upgraded");
                    shape.upgraded = true;
                }
            }
            self.begin_attempt();
            tracing::info!(again, shape = ?*lock(&self.shape), "starts");
            let started = if again { self.job.restart() } else { self.job.start() };
            match started {
                Ok(()) => self.job.settings().from = None,
                Err(_) if self.machine.has_died() => {}
                Err(e) if e.to_string().contains("does not end where this start begins") && self.job.settings().from.is_some() => {
                    self.machine.note("savepoint refused");
                    self.job.settings().from = None;
                    self.job.kill();
                }
                Err(e) => self.failed(&e)?,
            }
        }
        Err(format!("the job does not start: {}", self.job.describe()))
    }

    /// This attempt has met no fault and no other process.
    fn met_nothing(&self) -> bool {
        self.machine.faults_met().values().sum::<u64>() == self.met.0 && !self.rivals
    }

    fn begin_attempt(&mut self) {
        self.starts += 1;
        let met = self.machine.faults_met();
        self.met = (met.values().sum(), met.get("flipped bit").copied().unwrap_or(0));
    }

    /// The dead process is gone, by itself or with the power.
    fn die(&mut self) {
        if self.machine.choose(2) == 0 {
            self.job.crash();
        } else {
            self.job.kill();
        }
    }

    /// An attempt has failed. Goes on if that was to be expected.
    pub(super) fn failed(&mut self, e: &Error) -> Result<(), String> {
        tracing::info!(error = %e.report(), "an attempt fails");
        let met = self.machine.faults_met();
        let (all, flips) = (met.values().sum::<u64>(), met.get("flipped bit").copied().unwrap_or(0));
        let report = e.report();
        if report.contains("panicked") {
            return Err(report);
        }
        if met.contains_key("markers expired") && self.workload.may_repeat() && report.contains("nobody can tell whether") {
            self.machine.note("a person is asked");
            self.asked = true;
            return Err(report);
        }
        let is_slow = report.contains("timed out after") && self.settings.checkpoint.timeout != PATIENT;
        if all == self.met.0 && !self.rivals && !is_slow {
            return Err(format!("the job failed without a fault: {report}"));
        }
        if e.kind() == Kind::Fatal && flips == self.met.1 && !self.rivals {
            return Err(format!("the job stopped for good after a fault that passes: {report}"));
        }
        // A process ends with a fatal error, and sometimes with another one.
        if e.kind() == Kind::Fatal || self.machine.choose(2) == 0 {
            self.job.kill();
        }
        Ok(())
    }

    /// Runs to the end, and has the right output; no fault is to come.
    #[cfg(test)]
    pub(super) fn ends_right(&mut self) -> Result<(), String> {
        self.finish()?;
        self.workload.check(&self.ground.input, &Output::read(&self.broker))
    }

    /// Runs to the end; no fault is to come.
    fn finish(&mut self) -> Result<(), String> {
        for _ in 0..STARTS {
            self.advance(STEPS_TO_FINISH)?;
            if self.finished {
                return Ok(());
            }
            if self.job.is_running() {
                return Err(format!("the job stalls: {}", self.job.describe()));
            }
        }
        Err("the job stops again and again".into())
    }

    /// A savepoint, and a start from it; refused if more was published meanwhile.
    pub(super) fn savepoint(&mut self) -> Result<(), String> {
        if self.ground.trims {
            // A savepoint is older than what retention has left by then.
            return Ok(());
        }
        self.savepoints += 1;
        // A savepoint may be elsewhere than checkpoints are.
        let folder = if self.is_remote() && self.machine.choose(2) == 0 { "sim://savepoints" } else { "savepoints" };
        let path = format!("{folder}/{}", self.savepoints);
        self.ensure_running()?;
        let Some(control) = self.job.control() else { return Ok(()) };
        control.savepoint(&path);
        for _ in 0..200 {
            self.advance(20)?;
            if self.finished || !self.job.is_running() {
                return Ok(());
            }
            match control.savepoint_outcome(&path) {
                None => {}
                Some(Err(_)) => return Ok(()),
                Some(Ok(_)) => {
                    self.checkpoints += self.job.complete_epoch();
                    self.machine.note("start from savepoint");
                    self.job.kill();
                    self.job.settings().from = Some(path);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The process is paused in the middle of a call; another one takes the job over; the first one wakes up.
    pub(super) fn zombie(&mut self) -> Result<(), String> {
        self.ensure_running()?;
        let other = self.machine.another_process();
        let mut ground = self.ground.clone();
        ground.machine = other.clone();
        let places = self.objects.places(&other);
        let settings = Settings { take_over: true, places, ..self.settings.clone() };
        let mut rival = job(&ground, self.workload, &self.shape, settings);
        type Begun = Arc<Mutex<Option<(SimJob, Option<Error>)>>>;
        let begun: Begun = Arc::default();
        let (slot, steps) = (begun.clone(), self.machine.choose(800));
        self.machine.pause_in(1 + self.machine.choose(150) as u64, move || {
            let outcome = rival.start().and_then(|()| rival.run(steps));
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some((rival, outcome.err()));
        });
        // This one may have been taken over before, by a process that has finished since.
        let before = std::mem::replace(&mut self.rivals, true);
        self.advance_until(|_| begun.lock().unwrap_or_else(PoisonError::into_inner).is_some())?;
        let Some((rival, failed)) = begun.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            self.machine.disarm();
            self.rivals = before;
            return Ok(());
        };
        self.rivals = true;
        self.starts += 1;
        let first = std::mem::replace(&mut self.job, rival);
        let first_machine = std::mem::replace(&mut self.machine, other);
        self.ground.machine = self.machine.clone();
        if let Some(e) = failed {
            self.failed(&e)?;
        }
        self.settle_rivals(first, first_machine)
    }

    fn advance_until(&mut self, done: impl Fn(&World) -> bool) -> Result<(), String> {
        for _ in 0..100 {
            if done(self) || self.finished {
                break;
            }
            self.advance(10)?;
        }
        Ok(())
    }

    /// Both run until one is gone.
    fn settle_rivals(&mut self, mut old: SimJob, mut old_machine: SimMachine) -> Result<(), String> {
        for _ in 0..3_000 {
            if !old.has_process() {
                return Ok(());
            }
            if !self.job.has_process() || self.machine.choose(2) == 0 {
                std::mem::swap(&mut self.job, &mut old);
                std::mem::swap(&mut self.machine, &mut old_machine);
                self.ground.machine = self.machine.clone();
            }
            let steps = 1 + self.machine.choose(40);
            let stepped = if self.job.is_running() { self.job.run(steps).map(Some) } else { self.job.restart().map(|()| None) };
            match stepped {
                Ok(Some(Some(Outcome::Finished))) => {
                    self.finished = true;
                    old.kill();
                    return Ok(());
                }
                Ok(_) => {}
                Err(e) => self.failed(&e)?,
            }
        }
        Err("two processes run the same job side by side".into())
    }
}

fn lock(shape: &Mutex<Shape>) -> MutexGuard<'_, Shape> {
    shape.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The job of one process.
fn job(ground: &Ground, workload: &'static Workload, shape: &Arc<Mutex<Shape>>, settings: Settings) -> SimJob {
    let (machine, ground, shape) = (ground.machine.clone(), ground.clone(), shape.clone());
    let shares_files = ground.shares_files;
    let plan = move || {
        let draw = Draw::new(ground.clone(), *lock(&shape));
        (workload.draw)(&draw);
        draw.plan()
    };
    SimJob::new(machine, settings, plan).with_shared_files(shares_files)
}
