//! A small job as a user has it, started as processes of its own: running totals by key, exactly once, on either kind of log.
//!
//! Its program is this test binary, told by the environment to be a job ([`process`]), so that nothing more is linked. Names
//! of topics and jobs are fresh each time, so that many share one broker.
//!
//! Invariant: the test binary is a job only if it is told so; else [`process`] does nothing.

use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;
use tempfile::TempDir;
use waterwheel::engine::env::Env;
use waterwheel::engine::record::RawBatch;
use waterwheel::prelude::*;
use waterwheel::program::Program;
use waterwheel::topics::{Reading, SourceOptions, TopicConfig, Topics, TopicsUrl};

use super::fraud::Running;
use super::kafka::{self, client};
use crate::kill_operators;

/// Tells the test binary which job it is: name, policy (or "operators", "copy"), input, output.
const VARIABLE: &str = "WATERWHEEL_SMALL_JOB";
/// Room for records of 10 MB.
const LARGEST: u64 = 12_000_000;

/// A row of the input.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Item {
    pub(crate) key: String,
    pub(crate) n: i64,
    /// Event time in milliseconds.
    pub(crate) at: i64,
}

fn totals(job: &Job, policy: ErrorPolicy, input: &str, output: &str) {
    job.topic(input)
        .json::<Item>()
        .on_error(policy)
        .event_time(|item| EventTime(item.at), OutOfOrder::by(secs(1)))
        .key_by(|item| item.key.clone())
        .aggregate(|| 0i64, |total, item| *total += item.n)
        .id("totals")
        .to_topic(output)
        .key(|(key, _)| key.clone())
        .id("output");
}

/// Every row of the input, as it is, under its key.
fn copied(job: &Job, input: &str, output: &str) {
    let items = job.topic(input).json::<Item>().event_time(|item| EventTime(item.at), OutOfOrder::by(secs(1)));
    items.to_topic(output).key(|item| item.key.clone()).id("output");
}

/// The process of a small job.
#[test]
#[ignore = "no test: other tests start it as a process"]
fn process() {
    let Ok(told) = std::env::var(VARIABLE) else { return };
    let told: Vec<String> = told.split(' ').map(str::to_owned).collect();
    let [name, what, input, output] = &told[..] else { panic!("{VARIABLE} is not understood") };
    let (what, input, output) = (what.clone(), input.clone(), output.clone());
    let program = Program::new(name, move |job| {
        match what.as_str() {
            "operators" => kill_operators::draw(job, &input, &output),
            "copy" => copied(job, &input, &output),
            "fail" => totals(job, ErrorPolicy::Fail, &input, &output),
            "drop" => totals(job, ErrorPolicy::Drop, &input, &output),
            _ => totals(job, ErrorPolicy::DeadLetter, &input, &output),
        }
        Ok(())
    });
    let line = std::env::var("WATERWHEEL_SMALL_JOB_LINE").expect("its command line");
    let ended = program.main_with(line.split('\n').map(Into::into));
    // An exit code tells its number to nobody but the system.
    let code = (0..=255u8).find(|code| format!("{:?}", ExitCode::from(*code)) == format!("{ended:?}"));
    std::process::exit(code.expect("a number").into());
}

/// Where topics are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Log {
    /// An embedded log of the job's own.
    Embedded,
    /// The broker that tests share.
    Kafka,
}

/// One small job.
pub(crate) struct SmallJob {
    pub(crate) folder: TempDir,
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) topics: Arc<dyn Topics>,
    pub(crate) input: String,
    pub(crate) output: String,
    policy: &'static str,
}

impl SmallJob {
    /// With its input made, of so many partitions, and empty.
    pub(crate) fn new(log: Log, policy: &'static str, partitions: u32) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = match log {
            Log::Embedded => format!("local:{}", folder.path().join("topics").display()),
            Log::Kafka => format!("kafka://{}", kafka::shared()),
        };
        let job = Self::at(folder, url, policy);
        job.create_input(partitions);
        job
    }

    /// With topics at a URL; nothing is made.
    pub(crate) fn at(folder: TempDir, url: String, policy: &'static str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let topics = url.parse::<TopicsUrl>().and_then(|url| url.open(&Env::real())).expect("the topics open");
        let own = format!("{}-{}-{}", Env::real().clock.wall_ms(), std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let (name, input, output) = (format!("totals-{own}"), format!("items-{own}"), format!("totals-of-{own}"));
        Self { folder, name, url, topics, input, output, policy }
    }

    /// Makes the input.
    pub(crate) fn create_input(&self, partitions: u32) {
        let config = TopicConfig { max_record_bytes: Some(LARGEST), ..TopicConfig::partitions(partitions) };
        self.topics.create(&self.input, &config).unwrap_or_else(|e| panic!("{}", e.report()));
        if self.policy == "dead-letter" {
            let config = TopicConfig { partitions: 1, ..config };
            self.topics.create(&self.dead_letters(), &config).unwrap_or_else(|e| panic!("{}", e.report()));
        }
    }

    /// Makes the output, which the job makes itself where it may.
    pub(crate) fn create_output(&self) {
        self.topics.create(&self.output, &TopicConfig::partitions(1)).unwrap_or_else(|e| panic!("{}", e.report()));
    }

    /// Makes the input once more, of one partition, after it was deleted.
    pub(crate) fn create_again(&self) {
        client::wait_until("the topic to be made again", || self.topics.create(&self.input, &TopicConfig::partitions(1)).is_ok());
    }

    /// Its dead-letter topic.
    pub(crate) fn dead_letters(&self) -> String {
        format!("{}.dead-letter", self.input)
    }

    /// A command of its program.
    pub(crate) fn command(&self, line: &[&str]) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("the test binary has a path"));
        command.current_dir(self.folder.path()).args(["--ignored", "--exact", "--nocapture", "support::small_job::process"]);
        command.env(VARIABLE, [&*self.name, self.policy, &self.input, &self.output].join(" "));
        command.env("WATERWHEEL_SMALL_JOB_LINE", [&["job"], line].concat().join("\n"));
        command
    }

    /// `run` with more arguments, not started yet.
    pub(crate) fn run(&self, more: &[&str]) -> Command {
        let usual = ["run", "--topics", &self.url, "--json", "--status-interval", "20ms", "--checkpoint-interval", "50ms"];
        self.command(&[&usual, more].concat())
    }

    /// Starts `run` with more arguments.
    pub(crate) fn start(&self, more: &[&str]) -> Running {
        Running::start(self.run(more))
    }

    /// Writes `n` to a key, in a partition.
    pub(crate) fn item(&self, partition: i32, key: &str, n: i64) {
        let value = json!({ "key": key, "n": n, "at": 1_000 }).to_string();
        self.record(partition, Some(key.as_bytes()), Some(value.as_bytes()), &[]);
    }

    /// Writes 1 to a key, so many times.
    pub(crate) fn items(&self, key: &str, times: usize) {
        let value = json!({ "key": key, "n": 1, "at": 1_000 }).to_string();
        let (topic, mut batch): (Arc<str>, _) = (self.input.as_str().into(), RawBatch::default());
        (0..times).for_each(|_| batch.push_parts(&topic, -1, -1, 1_000, None, Some(value.as_bytes()), &[]));
        self.topics.produce(&batch).unwrap_or_else(|e| panic!("{}", e.report()));
    }

    /// Writes a record as it is.
    pub(crate) fn record(&self, partition: i32, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&str, &[u8])]) {
        let mut encoded = Vec::new();
        headers.iter().for_each(|(name, value)| RawBatch::encode_header(&mut encoded, name, Some(value)));
        let mut batch = RawBatch::default();
        batch.push_parts(&self.input.as_str().into(), partition, -1, 1_000, key, value, &encoded);
        self.topics.produce(&batch).unwrap_or_else(|e| panic!("{}", e.report()));
    }

    /// The newest committed total of the key `a`. (How many totals come on the way to it depends on the batches.)
    pub(crate) fn total(&self) -> Option<i64> {
        let mut newest = None;
        if self.topics.list().expect("the topics are there").contains(&self.output) {
            self.read(&self.output, |record| {
                let (key, total): (String, i64) = serde_json::from_slice(record.value.expect("a value")).expect("a total");
                newest = if key == "a" { Some(total) } else { newest };
            });
        }
        newest
    }

    /// Reads a topic to its end.
    pub(crate) fn read(&self, topic: &str, mut each: impl FnMut(waterwheel::engine::record::RawRecord<'_>)) {
        let source = self.topics.source(SourceOptions::new(topic).end(End::Latest)).expect("good options");
        let reading = Reading::open(&*source, &Env::real()).unwrap_or_else(|e| panic!("{}", e.report()));
        let drained = reading.drain(|batch| {
            batch.records().for_each(&mut each);
            Ok(())
        });
        drained.unwrap_or_else(|e| panic!("{}", e.report()));
    }
}
