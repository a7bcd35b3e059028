//! Jobs run through the library's door, on the embedded log: bounded runs, graceful stops, savepoints while running and after.

use super::*;
use crate::prelude::*;
use std::path::Path;
use std::sync::Arc;
use waterwheel_connectors::topics::{End, Reading, SourceOptions, TopicConfig, Topics, TopicsUrl};
use waterwheel_engine::record::RawBatch;
use waterwheel_engine::runtime::Outcome;

fn sum_by_key(job: &Job) -> Result<()> {
    job.topic("in")
        .string()
        .event_time(|_| DateTime::<Utc>::default(), OutOfOrder::by(secs(1)))
        .key_by(|text| text.clone())
        .aggregate(|| 0u64, |n, _| *n += 1)
        .id("count")
        .to_topic("out")
        .key(|(word, _)| word.clone())
        .id("counts");
    Ok(())
}

struct Place {
    dir: tempfile::TempDir,
    topics: Arc<dyn Topics>,
    env: Env,
}

impl Place {
    fn new() -> Place {
        let (dir, env) = (tempfile::tempdir().unwrap(), Env::real());
        let topics = TopicsUrl::Local(dir.path().join("topics")).open(&env).unwrap();
        topics.create("in", &TopicConfig::partitions(2)).unwrap();
        Place { dir, topics, env }
    }

    fn settings(&self) -> JobSettings {
        JobSettings::at(TopicsUrl::Local(self.dir.path().join("topics")), self.dir.path().join("checkpoints"))
    }

    fn write(&self, words: &[&str]) {
        let (topic, mut batch): (Arc<str>, _) = ("in".into(), RawBatch::default());
        words.iter().for_each(|word| batch.push_parts(&topic, -1, -1, 0, Some(word.as_bytes()), Some(word.as_bytes()), &[]));
        self.topics.produce(&batch).unwrap();
    }

    /// The newest count of each word.
    fn counts(&self) -> Vec<(String, u64)> {
        let source = self.topics.source(SourceOptions::new("out").end(End::Latest)).unwrap();
        let mut newest = std::collections::BTreeMap::new();
        let each = |batch: RawBatch| {
            for record in batch.records() {
                let (word, n): (String, u64) = serde_json::from_slice(record.value.unwrap()).unwrap();
                newest.insert(word, n);
            }
            Ok(())
        };
        Reading::open(&*source, &self.env).unwrap().drain(each).unwrap();
        newest.into_iter().collect()
    }

    /// Runs without an end until `done`, then what `then` asks for; stops gracefully.
    fn run_until(&self, settings: &JobSettings, done: &[(&str, u64)], then: impl FnOnce()) {
        let runner = Arc::new(job_runner("count", settings, sum_by_key).unwrap());
        let mut inbox = requests::Inbox::new(&self.env, &settings.run.checkpoints.join("count"), runner.control(), runner.metrics());
        let (control, running) = (runner.control(), runner.clone());
        let (said, outcome) = std::sync::mpsc::channel();
        self.env.background.run("job under test", Box::new(move || said.send(running.run()).unwrap()));
        let expected: Vec<(String, u64)> = done.iter().map(|(word, n)| (word.to_string(), *n)).collect();
        wait_for(|| self.topics.list().unwrap().contains(&"out".to_string()) && self.counts() == expected);
        let env = self.env.clone();
        let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let asked = over.clone();
        env.background.run(
            "inbox under test",
            Box::new(move || {
                while !asked.load(std::sync::atomic::Ordering::Acquire) {
                    inbox.look();
                    sleep(Duration::from_millis(10));
                }
            }),
        );
        then();
        over.store(true, std::sync::atomic::Ordering::Release);
        control.stop();
        assert_eq!(outcome.recv_timeout(Duration::from_secs(30)).unwrap().unwrap(), Outcome::Stopped);
    }
}

fn wait_for(done: impl Fn() -> bool) {
    for _ in 0..3_000 {
        if done() {
            return;
        }
        sleep(Duration::from_millis(10));
    }
    panic!("not within 30 s");
}

#[test]
fn a_bounded_run_works_everything_off_and_says_so() {
    let place = Place::new();
    place.write(&["a", "b", "a", "c", "a"]);
    let settings = place.settings().parallelism(2).until_end();
    assert_eq!(run_job("count", &settings, sum_by_key).unwrap(), Outcome::Finished);
    assert_eq!(place.counts(), [("a".into(), 3), ("b".into(), 1), ("c".into(), 1)]);
}

#[test]
fn a_stopped_job_goes_on_where_it_was_also_with_more_tasks() {
    let place = Place::new();
    place.write(&["a", "b", "a"]);
    place.run_until(&place.settings(), &[("a", 2), ("b", 1)], || ());
    place.write(&["a", "c"]);
    place.run_until(&place.settings().parallelism(3), &[("a", 3), ("b", 1), ("c", 1)], || ());
}

#[test]
fn savepoints_are_made_by_the_running_job_and_of_one_that_is_stopped() {
    let place = Place::new();
    let settings = place.settings();
    let path = |name: &str| place.dir.path().join(name);
    assert!(create_savepoint(&place.env, "count", &settings, &path("none")).is_err(), "a job without state");
    place.write(&["a"]);
    let live = path("live");
    let savepoint = |to: &Path| create_savepoint(&place.env, "count", &settings, to).unwrap();
    place.run_until(&settings, &[("a", 1)], || assert!(savepoint(&live) > 0));
    let stopped = path("stopped");
    assert_eq!(savepoint(&stopped), newest_checkpoint(&place.env, "count", &settings).unwrap().unwrap().epoch);
    // Each of them is a beginning: the count of before is in it.
    place.write(&["a"]);
    for from in [live, stopped] {
        let mut settings = place.settings();
        settings.run.checkpoints = path(&format!("checkpoints of {}", from.file_name().unwrap().to_string_lossy()));
        settings.run.from = Some(from.to_string_lossy().into_owned());
        settings.run.accept_duplicates = true;
        place.run_until(&settings, &[("a", 2)], || ());
    }
}

#[test]
fn check_names_what_is_missing_and_changes_nothing() {
    let place = Place::new();
    place.topics.delete("in").unwrap();
    let draw: Draw = Arc::new(sum_by_key);
    assert!(check::check("count", &place.settings(), &draw, &place.env, true).is_err());
    place.topics.create("in", &TopicConfig::partitions(1)).unwrap();
    check::check("count", &place.settings(), &draw, &place.env, true).unwrap();
    assert!(!place.env.files.exists(&place.settings().run.checkpoints).unwrap());
}

#[test]
fn exit_codes_are_the_documented_ones() {
    let place = Place::new();
    let program = Program::new("count", sum_by_key).verb(Command::new("greet"), |_| ExitCode::from(7));
    let topics = format!("--topics=local:{}", place.dir.path().join("topics").display());
    let code = |line: &[&str]| {
        let line = std::iter::once("job").chain(line.iter().copied()).map(OsString::from);
        format!("{:?}", program.main_with(line))
    };
    let expected = |code: u8| format!("{:?}", ExitCode::from(code));
    assert_eq!(code(&["greet"]), expected(7));
    assert_eq!(code(&["--help"]), expected(0));
    assert_eq!(code(&["runn"]), expected(USAGE));
    assert_eq!(code(&["run", "--checkpoint-interval", "5"]), expected(USAGE));
    assert_eq!(code(&["explain", "--dot", &topics]), expected(0));
    assert_eq!(code(&["check", "--topics=local:/nowhere/at/all"]), expected(REFUSED));
    assert_eq!(code(&["savepoint", "list", &topics, "--checkpoints=/nowhere/at/all"]), expected(FAILED));
}
