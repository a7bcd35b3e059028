//! Tests of a job: the whole of it on a simulated machine, in one thread and virtual time, without a broker and in milliseconds.
//!
//! The job is described by the same function that its program runs. A test puts rows into its topics, lets it
//! [settle](TestJob::settle), reads what it has committed, looks into its state, lets time pass, and kills it where it stands;
//! sources, operators, checkpoints, sinks and recovery are the real ones. Which task moves next is picked by a seed: the
//! same seed takes the same steps.
//!
//! ```toml
//! [dev-dependencies]
//! waterwheel = { version = "0.1", features = ["testing"] }
//! ```
//!
//! ```
//! use waterwheel::prelude::*;
//! use waterwheel::testing::TestJob;
//!
//! fn count_words(job: &Job) -> waterwheel::Result<()> {
//!     job.topic("words").string()
//!         .event_time(|_| DateTime::<Utc>::default(), OutOfOrder::by(secs(0)))
//!         .key_by(|word| word.clone())
//!         .aggregate(|| 0u64, |n, _| *n += 1).id("count")
//!         .to_topic("counts").id("counts");
//!     Ok(())
//! }
//!
//! let mut test = TestJob::new("count-words", count_words);
//! test.send_text("words", ["one", "two", "one"]);
//! test.settle();
//! test.crash(); // as with kill -9 and the power gone
//! test.send_text("words", ["one"]);
//! test.finish();
//! assert_eq!(test.read::<(String, u64)>("counts").last(), Some(&("one".to_string(), 3)));
//! ```
//!
//! An operator of one's own is tested with [`Harness`], which drives it through batches, snapshots and rescales.
//!
//! Invariant: nothing outside the test is touched, and between crash and restart nothing survives but what was synced. Errors
//! are panics here, with the report that the program would print.

use crate::Job;
use crate::program::{Draw, JobSettings, draw_job, is_published, stored};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use waterwheel_connectors::local::LocalTopics;
use waterwheel_connectors::topics::{End, Reading, SourceOptions, TopicConfig, Topics, TopicsUrl};
use waterwheel_engine::checkpoint::{Manifest, load_manifest, read_state};
use waterwheel_engine::error::Result;
use waterwheel_engine::record::RawBatch;
use waterwheel_engine::runtime::Outcome;
use waterwheel_engine::state::{MemoryStores, TieredStores};

pub use waterwheel_engine::state::ShownEntry;
pub use waterwheel_engine::testing::{Harness, Mode, SimMachine, Step};

use waterwheel_engine::testing::SimJob;

/// Folders on the simulated disk.
const TOPICS: &str = "topics";
const CHECKPOINTS: &str = "checkpoints";
/// Virtual time from one checkpoint to the next.
const INTERVAL: Duration = Duration::from_millis(5);
/// So many steps without the end that was waited for are a job that hangs.
const PATIENCE: usize = 20_000_000;
/// Steps between two looks at how far the job is.
const LOOK: usize = 64;

/// Key and value of a record, as bytes; each may be missing.
pub type KeyValue = (Option<Vec<u8>>, Option<Vec<u8>>);

/// A job under test: see the [module](self).
pub struct TestJob {
    name: String,
    machine: SimMachine,
    topics: Arc<dyn Topics>,
    settings: Arc<Mutex<JobSettings>>,
    job: SimJob,
    finished: bool,
}

impl TestJob {
    /// The job `name`, described by `draw`, with two tasks an operator and seed 1.
    pub fn new(name: &str, draw: impl Fn(&Job) -> Result<()> + Send + Sync + 'static) -> TestJob {
        TestJob::with_seed(name, 1, 2, draw)
    }

    /// The same under another seed, with another number of tasks an operator. It starts with the first call that needs it.
    pub fn with_seed(name: &str, seed: u64, parallelism: u32, draw: impl Fn(&Job) -> Result<()> + Send + Sync + 'static) -> TestJob {
        let machine = SimMachine::new(seed);
        let mut settings = JobSettings::at(TopicsUrl::Local(TOPICS.into()), CHECKPOINTS).parallelism(parallelism);
        settings.run.checkpoint.interval = INTERVAL;
        let (run, settings) = (settings.run.clone(), Arc::new(Mutex::new(settings)));
        let (env, job_name, shared, draw): (_, _, _, Draw) = (machine.env(), name.to_string(), settings.clone(), Arc::new(draw));
        let plan = move || draw_job(&job_name, &lock(&shared), &draw, &env)?.plan();
        TestJob {
            name: name.into(),
            topics: Arc::new(LocalTopics::new(machine.outside(), TOPICS.into())),
            job: SimJob::new(machine.clone(), run, plan),
            machine,
            settings,
            finished: false,
        }
    }

    /// Makes a topic of so many partitions. Those that a test sends to without this have one.
    ///
    /// # Panics
    /// When it is there already.
    pub fn topic(&self, name: &str, partitions: u32) {
        expect(self.topics.create(name, &TopicConfig::partitions(partitions)), "the topic");
    }

    /// Appends rows to a topic, as JSON and without keys.
    ///
    /// # Panics
    /// When a row cannot be written as JSON.
    pub fn send<T: Serialize>(&self, topic: &str, rows: impl IntoIterator<Item = T>) {
        let json = |row| serde_json::to_vec(&row).unwrap_or_else(|e| panic!("a row for {topic} cannot be written as JSON: {e}"));
        self.send_records(topic, rows.into_iter().map(|row| (None, Some(json(row)))));
    }

    /// Appends records of text, without keys; also what is no JSON.
    pub fn send_text<T: Into<String>>(&self, topic: &str, texts: impl IntoIterator<Item = T>) {
        self.send_records(topic, texts.into_iter().map(|text| (None, Some(text.into().into_bytes()))));
    }

    /// Appends records: key and value, each of which may be missing. Records of one key go to one partition.
    ///
    /// # Panics
    /// When the topic cannot take them.
    pub fn send_records(&self, topic: &str, records: impl IntoIterator<Item = KeyValue>) {
        if !self.has(topic) {
            self.topic(topic, 1);
        }
        let (name, now): (Arc<str>, _) = (topic.into(), self.machine.outside().clock.wall_ms());
        let mut batch = RawBatch::default();
        for (key, value) in records {
            batch.push_parts(&name, -1, -1, now, key.as_deref(), value.as_deref(), &[]);
        }
        expect(self.topics.produce(&batch), "the records");
    }

    /// Runs the job until all that its topics hold by now is worked off, checkpointed and committed. Rows that wait for a
    /// later watermark, such as those of an open window, still wait afterwards.
    ///
    /// # Panics
    /// When the job fails, or does not get there.
    pub fn settle(&mut self) {
        self.start();
        let begun = self.job.complete_epoch();
        // The checkpoint after the next one has begun after now.
        let is_there = |test: &TestJob| test.job.complete_epoch() >= begun + 2 && test.is_worked_off();
        self.run_until("work off what its topics hold", is_there);
    }

    /// Lets time pass: the clock jumps, timers of processing time fire, idle partitions are found idle. Then as
    /// [`settle`](Self::settle).
    ///
    /// # Panics
    /// As `settle`.
    pub fn pass(&mut self, time: Duration) {
        self.start();
        self.machine.advance(time);
        self.settle();
    }

    /// Takes some steps, wherever that leads: for a crash in the middle.
    ///
    /// # Panics
    /// When the job fails.
    pub fn run(&mut self, steps: usize) {
        self.start();
        let ended = expect(self.job.run(steps), "the job");
        self.finished |= ended.is_some();
    }

    /// The process dies where it stands and the machine with it: what was not synced is lost. The next call starts it again.
    pub fn crash(&mut self) {
        self.job.crash();
    }

    /// Runs the job to its end: nothing comes after what its topics hold now, so the watermark passes everything, every window
    /// fires and every timer of event time. The job cannot go on after that.
    ///
    /// # Panics
    /// As [`settle`](Self::settle).
    pub fn finish(&mut self) {
        self.settle();
        if !self.finished {
            self.job.stop();
            self.run_until("stop", |_| false);
            lock(&self.settings).until_end = true;
            self.finished = false;
            self.start();
            self.run_until("finish", |_| false);
        }
    }

    /// What a topic holds, committed records only, by partition and offset, read from JSON. A record without a value reads as
    /// `null`. Empty if there is no such topic.
    ///
    /// # Panics
    /// When a record does not fit the type.
    pub fn read<T: DeserializeOwned>(&self, topic: &str) -> Vec<T> {
        let row = |(_, value): (_, Option<Vec<u8>>)| {
            let value = value.unwrap_or_else(|| b"null".to_vec());
            serde_json::from_slice(&value)
                .unwrap_or_else(|e| panic!("a record of {topic} does not fit the type: {e}\n  {}", String::from_utf8_lossy(&value)))
        };
        self.records(topic).into_iter().map(row).collect()
    }

    /// The same as bytes: key and value.
    ///
    /// # Panics
    /// When the topic cannot be read.
    pub fn records(&self, topic: &str) -> Vec<KeyValue> {
        if !self.has(topic) {
            return Vec::new();
        }
        let mut records = Vec::new();
        let source = expect(self.topics.source(SourceOptions::new(topic).end(End::Latest)), "the topic");
        let reading = expect(Reading::open(&*source, &self.machine.outside()), "the topic");
        let each = |batch: RawBatch| {
            let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
            records.extend(batch.records().map(|r| ((r.partition, r.offset), (owned(r.key), owned(r.value)))));
            Ok(())
        };
        expect(reading.drain(each), "the topic");
        records.sort_by_key(|(place, _)| *place);
        records.into_iter().map(|(_, record)| record).collect()
    }

    /// The keyed state of an operator as of the newest checkpoint: [`settle`](Self::settle) first.
    ///
    /// # Panics
    /// When there is no checkpoint, or none of that operator's state in it.
    pub fn state(&self, operator: &str) -> Vec<ShownEntry> {
        let env = self.machine.outside();
        let stored = expect(stored(&env, &self.name, &lock(&self.settings)), "the state");
        let newest = stored.history.newest().unwrap_or_else(|| panic!("job {} has no checkpoint yet: settle first", self.name));
        let manifest = expect(load_manifest(&*stored.storage, newest), "the state");
        let known = manifest.plan.operators.iter().any(|o| o.id.as_str() == operator && !o.tables.is_empty());
        assert!(known, "operator {operator} keeps no state in job {}", self.name);
        let stores = TieredStores::new(&env, Arc::new(MemoryStores::new(env.clone())));
        let mut entries = Vec::new();
        let mut visit = |_: &_, _: &str, entry| {
            entries.push(entry);
            Ok(())
        };
        let is_wanted = |id: &waterwheel_engine::record::OperatorId, _: &str| id.as_str() == operator;
        let read = read_state(&env, &*stored.storage, &manifest, &stores, Path::new("scratch"), &is_wanted, &mut visit);
        expect(read, "the state");
        entries
    }

    fn start(&mut self) {
        assert!(!self.finished, "job {} has finished", self.name);
        if !self.job.is_running() {
            expect(self.job.start(), "starting the job");
        }
    }

    fn run_until(&mut self, what: &str, is_there: impl Fn(&TestJob) -> bool) {
        for _ in 0..PATIENCE / LOOK {
            let ended = expect(self.job.run(LOOK), "the job");
            self.finished |= ended == Some(Outcome::Finished);
            if ended.is_some() || is_there(self) {
                return;
            }
        }
        panic!("job {} does not {what}: {}", self.name, self.job.describe());
    }

    /// Whether the newest checkpoint has read to the present end of every partition, and all its output is out.
    fn is_worked_off(&self) -> bool {
        let stored = expect(stored(&self.machine.outside(), &self.name, &lock(&self.settings)), "the state");
        let Some(newest) = stored.history.newest() else { return false };
        let manifest = expect(load_manifest(&*stored.storage, newest), "the state");
        is_published(&manifest, &stored.history) && self.has_read_all(&manifest)
    }

    fn has_read_all(&self, manifest: &Manifest) -> bool {
        manifest.tasks.iter().flat_map(|task| &task.operators).flat_map(|operator| &operator.splits).all(|state| {
            let id = &state.split.id;
            let end = self.topics.describe(&id.name).ok().and_then(|t| Some(t.partitions.get(usize::try_from(id.partition).ok()?)?.end));
            state.ended || end.is_none_or(|end| state.position >= end)
        })
    }

    fn has(&self, topic: &str) -> bool {
        expect(self.topics.list(), "the topics").iter().any(|name| name == topic)
    }
}

fn lock(settings: &Mutex<JobSettings>) -> MutexGuard<'_, JobSettings> {
    settings.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A test has no use for an error but to see it.
fn expect<T>(result: Result<T>, what: &str) -> T {
    result.unwrap_or_else(|e| panic!("{what}: {}", e.report()))
}
