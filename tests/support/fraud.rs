//! The fraud-detection job as a user has it: its program, started as processes of their own, and what they commit.
//!
//! Invariant: no process of a job outlives the value that stands for it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use waterwheel::engine::env::{Bug, Env, Moment};
use waterwheel::topics::{End, Reading, SourceOptions, TopicsUrl};

use super::cargo::program;

/// All that the job writes.
const OUTPUTS: [&str; 4] = ["alerts", "account_activity", "payments.late", "payments.dead-letter"];
/// What every run is given: checkpoints as often as they can be had, so that faults meet them at every point, and batches so
/// small that the input lasts for all of them.
const RUN: [&str; 8] = ["--until-end", "--json", "--status-interval", "20ms", "--checkpoint-interval", "50ms", "--batch-rows", "8"];
/// How often a long job can be killed: its input lasts for about twice as many.
pub(crate) const KILLS: usize = 12;
/// How long anything may take before a test fails.
const LIMIT: Duration = Duration::from_secs(120);

/// One record, as far as it must be the same in every run: value, timestamp, headers.
pub(crate) type Row = (Option<Vec<u8>>, i64, Vec<(String, Option<Vec<u8>>)>);
/// Records by topic and key, in order. Records without a key have none among them and are sorted.
pub(crate) type Committed = BTreeMap<(&'static str, Option<Vec<u8>>), Vec<Row>>;

/// How much input a job has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// Enough for one fault while it is worked off.
    Brief,
    /// Enough for [`KILLS`] of them.
    Long,
}

impl Size {
    fn payments(self) -> u64 {
        match self {
            Size::Brief => 150_000,
            Size::Long => 800_000,
        }
    }
}

/// One job: where its topics and its checkpoints are. Dropped, all its files are removed.
pub(crate) struct Fraud {
    pub(crate) folder: TempDir,
    size: Size,
    topics: String,
    bug: Option<Bug>,
}

impl Fraud {
    /// On an embedded log of its own, its input written.
    pub(crate) fn on_embedded_log(size: Size) -> Self {
        let folder = new_folder();
        let topics = format!("local:{}", folder.path().join("topics").display());
        Self::filled(folder, size, topics)
    }

    /// On a Kafka broker that no other job uses (topic names are fixed), its input written. `options` of the client begin
    /// with a question mark.
    pub(crate) fn on_kafka(size: Size, bootstrap: &str, options: &str) -> Self {
        Self::filled(new_folder(), size, format!("kafka://{bootstrap}{options}"))
    }

    fn filled(folder: TempDir, size: Size, topics: String) -> Self {
        let fraud = Self { folder, size, topics, bug: None };
        let scenario = ["--payments", &size.payments().to_string(), "--cards", "4000", "--per-second", "6"];
        let made = fraud.verb("generate").args(scenario).output().expect("starts");
        assert!(made.status.success(), "{}", text(&made));
        fraud
    }

    /// Leaves a rule out of every `run` from now on: for controls.
    pub(crate) fn with_bug(mut self, bug: Bug) -> Self {
        self.bug = Some(bug);
        self
    }

    /// The folder of its checkpoints.
    pub(crate) fn checkpoints(&self) -> PathBuf {
        self.folder.path().join("checkpoints")
    }

    /// A verb of the program, told where the topics are.
    pub(crate) fn verb(&self, verb: &str) -> Command {
        let mut command = Command::new(program("fraud_detection"));
        // No settings file of the developer's reaches the job.
        command.current_dir(self.folder.path()).arg(verb).args(["--topics", &self.topics]);
        command
    }

    /// `run`, not started yet, with the job's checkpoints in a folder.
    pub(crate) fn run_in(&self, checkpoints: &Path, parallelism: u32) -> Command {
        let mut command = self.verb("run");
        if let Some(bug) = self.bug {
            command.env("WATERWHEEL_BUG", format!("{bug:?}"));
        }
        command.args(RUN).args(["--parallelism", &parallelism.to_string()]).arg("--checkpoints").arg(checkpoints);
        command
    }

    /// Starts `run` with more arguments. The first start of a job has one task an operator: a late row is late for certain
    /// only when all partitions have begun, and channels between several tasks hold more than these inputs have before it.
    pub(crate) fn start(&self, parallelism: u32, more: &[&str]) -> Running {
        let mut command = self.run_in(&self.checkpoints(), parallelism);
        command.args(more);
        Running::start(command)
    }

    /// Starts `run`, with a signal to come when it reaches a moment for the `times`th time.
    pub(crate) fn start_until(&self, parallelism: u32, moment: Moment, times: u32, signal: Signal) -> Running {
        let what = if signal == Signal::KILL { "kill" } else { "stop" };
        let mut command = self.run_in(&self.checkpoints(), parallelism);
        command.env("WATERWHEEL_MOMENT", format!("{moment:?}:{times}:{what}"));
        Running::start(command)
    }

    /// Runs to the end of the input.
    pub(crate) fn finish(&self, parallelism: u32) -> Value {
        let (status, last, errors) = self.start(parallelism, &[]).wait();
        assert!(status.success(), "the job ended with {status}: {errors}");
        assert_eq!(last["phase"], "finished");
        last
    }

    /// What is committed now.
    pub(crate) fn committed(&self) -> Committed {
        let env = Env::real();
        let topics = self.topics.parse::<TopicsUrl>().and_then(|url| url.open(&env)).expect("the topics open");
        let mut committed = Committed::new();
        for topic in OUTPUTS {
            let source = topics.source(SourceOptions::new(topic).end(End::Latest)).expect("the topic is there");
            let reading = Reading::open(&*source, &env).expect("the topic opens");
            let read = reading.drain(|batch| {
                for r in batch.records() {
                    let headers = r.headers().map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec))).collect();
                    let rows = committed.entry((topic, r.key.map(<[u8]>::to_vec))).or_default();
                    rows.push((r.value.map(<[u8]>::to_vec), r.timestamp, headers));
                }
                Ok(())
            });
            read.expect("the topic can be read");
            if let Some(rows) = committed.get_mut(&(topic, None)) {
                rows.sort();
            }
        }
        committed
    }

    /// Records of its input.
    pub(crate) fn input(&self) -> u64 {
        self.size.payments()
    }

    /// Asserts that the output is what a run without faults commits, and exactly what was planted; how many records it has.
    pub(crate) fn assert_exact(&self) -> u64 {
        let committed = self.committed();
        assert_same(&committed, faultless(self.size));
        let verdict = self.verb("verify").output().expect("starts");
        assert!(verdict.status.success(), "{}", text(&verdict));
        committed.values().map(|rows| rows.len() as u64).sum()
    }
}

/// What a run without any fault commits, on the embedded log.
fn faultless(size: Size) -> &'static Committed {
    static FAULTLESS: [OnceLock<Committed>; 2] = [const { OnceLock::new() }; 2];
    FAULTLESS[size as usize].get_or_init(|| {
        let fraud = Fraud::on_embedded_log(size);
        fraud.finish(1);
        let committed = fraud.committed();
        for topic in OUTPUTS {
            let records: usize = committed.iter().filter(|((of, _), _)| *of == topic).map(|(_, rows)| rows.len()).sum();
            assert!(records > 100, "{topic} has {records} records only");
        }
        committed
    })
}

/// Asserts that two outputs are the same, and names the first difference if not.
fn assert_same(got: &Committed, expected: &Committed) {
    if got == expected {
        return;
    }
    let count = |all: &Committed| all.values().map(Vec::len).sum::<usize>();
    let total = format!("{} records, {} expected", count(got), count(expected));
    let keys = || expected.keys().chain(got.keys());
    let different: Vec<_> = keys().filter(|key| got.get(key) != expected.get(key)).collect();
    let (topic, key) = different[0];
    let (got, expected) = (got.get(different[0]), expected.get(different[0]));
    let rows = |rows: Option<&Vec<Row>>| rows.map_or(0, Vec::len);
    let at = (0..).find(|i| got.and_then(|rows| rows.get(*i)) != expected.and_then(|rows| rows.get(*i))).expect("they differ");
    let show = |rows: Option<&Vec<Row>>| {
        rows.and_then(|rows| rows.get(at)).map_or("nothing".into(), |(value, time, headers)| {
            let headers: Vec<String> = headers.iter().map(|(name, value)| format!("{name}={}", lossy(value.as_deref()))).collect();
            format!("{time} {} {}", lossy(value.as_deref()), headers.join(" "))
        })
    };
    panic!(
        "{} keys differ; {total}. The first: {topic}, key {}, record {at} of {}, of {} expected\nexpected:  {}\ncommitted: {}",
        different.len(),
        lossy(key.as_deref()),
        rows(got),
        rows(expected),
        show(expected),
        show(got),
    );
}

fn lossy(bytes: Option<&[u8]>) -> String {
    bytes.map_or("null".into(), |bytes| String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned())
}

fn new_folder() -> TempDir {
    tempfile::Builder::new().prefix("waterwheel-fraud-").tempdir().expect("a temporary folder")
}

/// All that a program said.
pub(crate) fn text(output: &Output) -> String {
    format!("{}\n{}{}", output.status, String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A running job. Dropped, it is killed.
pub(crate) struct Running {
    child: Child,
    status: Arc<Mutex<Value>>,
    listener: Option<JoinHandle<()>>,
    errors: Option<JoinHandle<String>>,
}

impl Running {
    /// Starts the process.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        let (out, mut err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let status = Arc::new(Mutex::new(Value::Null));
        let seen = status.clone();
        let listener = std::thread::spawn(move || {
            // A kill cuts the last line off.
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if let Ok(line) = serde_json::from_str(&line) {
                    *seen.lock().expect("no panic while locked") = line;
                }
            }
        });
        let errors = std::thread::spawn(move || {
            let mut text = Vec::new();
            // What was said before the pipe broke is kept.
            let _ = err.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        Self { child, status, listener: Some(listener), errors: Some(errors) }
    }

    /// Process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The newest status line of the job; null before the first.
    pub(crate) fn status(&self) -> Value {
        self.status.lock().expect("no panic while locked").clone()
    }

    /// Whether the process still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }

    /// Waits until the status is as wanted; `false` when the process ended before.
    ///
    /// # Panics
    /// If neither happens within two minutes.
    pub(crate) fn wait_for(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> bool {
        let deadline = Instant::now() + LIMIT;
        loop {
            let status = self.status();
            if wanted(&status) {
                return true;
            }
            if !self.runs() {
                return false;
            }
            assert!(Instant::now() < deadline, "waited in vain for {what}; the job says {status}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until this process has completed `n` checkpoints.
    ///
    /// # Panics
    /// If it ends before.
    pub(crate) fn wait_for_checkpoints(&mut self, n: u64) {
        let there = self.wait_for("checkpoints", |s| s["checkpoint"].as_u64().unwrap_or(0) >= s["resumed_from"].as_u64().unwrap_or(0) + n);
        assert!(there, "the job ended early: {}", self.status());
    }

    /// Waits until the process stands still, by a SIGSTOP that it was sent or sent itself.
    ///
    /// # Panics
    /// If it ends before, or does not stop within two minutes.
    pub(crate) fn wait_until_frozen(&mut self) {
        let deadline = Instant::now() + LIMIT;
        let state = format!("/proc/{}/stat", self.pid());
        while !fs::read_to_string(&state).is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))) {
            assert!(self.runs(), "the job ended before it reached its moment: {}", self.status());
            assert!(Instant::now() < deadline, "the job does not reach its moment; it says {}", self.status());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("our child is there");
    }

    /// Kills it with SIGKILL; `false` when it had ended before.
    pub(crate) fn kill9(mut self) -> bool {
        let ran = self.runs();
        self.child.kill().expect("our child");
        self.child.wait().expect("our child");
        ran
    }

    /// Waits for its end: how it ended, its last status line, and what it said on standard error.
    ///
    /// # Panics
    /// If it does not end within two minutes.
    pub(crate) fn wait(mut self) -> (ExitStatus, Value, String) {
        let deadline = Instant::now() + LIMIT;
        while self.runs() {
            assert!(Instant::now() < deadline, "the job does not end; it says {}", self.status());
            std::thread::sleep(Duration::from_millis(5));
        }
        let status = self.child.wait().expect("our child");
        self.listener.take().expect("waited once").join().expect("no panic");
        let errors = self.errors.take().expect("waited once").join().expect("no panic");
        (status, self.status(), errors)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already, or nobody waits for it any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Random numbers that a seed decides: `WATERWHEEL_SEED`, else always the same ones.
pub(crate) struct Chance(u64);

impl Chance {
    /// From the environment's seed, different for every `test`. Says the seed, for a failed test to show.
    pub(crate) fn new(test: u64) -> Self {
        let seed = number("WATERWHEEL_SEED", 1);
        println!("WATERWHEEL_SEED={seed}");
        Self(Self::of(seed).0 ^ test.wrapping_mul(0xD6E8_FEB8_6659_FD93))
    }

    /// From a seed alone.
    pub(crate) fn of(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    /// From nothing to below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end
    }
}

/// How many jobs to kill [`KILLS`] times each: `WATERWHEEL_CYCLES` says how often in all, at least once.
pub(crate) fn rounds() -> u64 {
    number("WATERWHEEL_CYCLES", 1).div_ceil(KILLS as u64)
}

/// A number in the environment.
pub(crate) fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Kills a job with SIGKILL at `kills` random moments, with 3, 2 and 1 tasks an operator in turn.
///
/// # Panics
/// If the job ended before, or never had anything to resume from.
pub(crate) fn kill_again_and_again(start: &dyn Fn(u32) -> Running, kills: usize, chance: &mut Chance) {
    let began = Instant::now();
    let (mut killed, mut resumed) = (0, 0);
    for cycle in 0..kills {
        // One task until something is kept: see `Fraud::start`.
        let parallelism = if resumed == 0 { 1 } else { [3, 2, 1][cycle % 3] };
        let mut job = start(parallelism);
        // While it starts, while it runs, or around the completion of a checkpoint; the first one gets to keep something.
        match chance.below(3) {
            0 if cycle > 0 => {}
            1 if cycle > 0 => drop(job.wait_for("the job to run", |s| s["phase"] == "running")),
            _ => job.wait_for_checkpoints(1),
        }
        std::thread::sleep(Duration::from_millis(chance.below(100)));
        let status = job.status();
        println!("{:?} kill {cycle}, {parallelism} tasks: {status}", began.elapsed());
        resumed += usize::from(status["resumed_from"].is_u64());
        killed += usize::from(job.kill9());
    }
    assert_eq!(killed, kills, "the input ended before the kills did");
    assert!(resumed > 0, "nothing was ever resumed");
}

/// Kills the fraud job so, then lets it finish.
///
/// # Panics
/// If the output is not that of a run without faults.
pub(crate) fn kill_and_verify(fraud: &Fraud, kills: usize, chance: &mut Chance) {
    let began = Instant::now();
    kill_again_and_again(&|parallelism| fraud.start(parallelism, &[]), kills, chance);
    let last = fraud.finish(2);
    assert!(last["resumed_from"].is_u64(), "nothing was resumed at the end");
    fraud.assert_exact();
    println!("{:?} exact after {kills} kills", began.elapsed());
}
