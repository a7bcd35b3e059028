//! A job that is left in the middle goes on: left by this version, and by earlier ones, whose folders are kept in `tests/golden/` (topics,
//! job log, checkpoint) from the first release on.
//!
//! Keys and values are of different types, so that one cannot be taken for the other. A version that cannot read what an earlier one wrote
//! fails here. `WATERWHEEL_WRITE_SNAPSHOTS=1` keeps the folder of this version, where there is none of it. Folders are copied as git keeps
//! them, without empty ones, so that what goes on from this version's copy goes on from a clone.
//!
//! Invariant checked: what comes out is what a run of this version over the whole input gives.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use waterwheel::engine::env::Env;
use waterwheel::engine::record::RawBatch;
use waterwheel::engine::runtime::Outcome;
use waterwheel::prelude::*;
use waterwheel::program::{JobSettings, job_runner, run_job};
use waterwheel::topics::{Reading, SourceOptions, TopicConfig, Topics, TopicsUrl};

use crate::support::cargo;
use crate::support::kafka::client;

const NAME: &str = "golden";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Rows, and after how many of them the folder was left.
const ROWS: i64 = 120;
const HALF: i64 = 70;

#[derive(Clone, Serialize, Deserialize)]
struct Item {
    key: String,
    n: i64,
    /// Event time in milliseconds.
    at: i64,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Ids(Vec<i64>);

impl Merge for Ids {
    fn merge(&mut self, later: &Self) {
        self.0.extend_from_slice(&later.0);
    }
}

/// What a process function keeps of a key.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Last {
    seen: u32,
    text: Option<String>,
    ratio: f32,
}

type Text = (String, String);

/// Says of each row what was before it, and which rows of its key are due.
#[derive(Default)]
struct Watch {
    last: ValueState<Last>,
    rows: MapState<i32, String>,
}

impl ProcessFunction<(String, u32), Item, Text> for Watch {
    fn open(&mut self, open: &mut ProcessOpen<'_>) {
        self.last = open.value("last");
        self.rows = open.map("rows");
    }
    fn on_element(&mut self, context: &mut ProcessContext<'_, (String, u32), Text>, item: Item) {
        let before = self.last.get(context).cloned().unwrap_or_default();
        self.last.set(context, Last { seen: before.seen + 1, text: Some(item.n.to_string()), ratio: item.n as f32 / 4.0 });
        self.rows.insert(context, item.n as i32, item.at.to_string());
        context.set_timer("due", EventTime(item.at + 300));
        context.emit((format!("seen {}", item.n), format!("{} {:?} {}", before.seen, before.text, before.ratio)));
    }
    fn on_timer(&mut self, context: &mut ProcessContext<'_, (String, u32), Text>, timer: &Timer) {
        // Rows behind the timer may be there already.
        let is_due = |at: &str| at.parse::<i64>().is_ok_and(|at| at + 300 <= timer.time.0);
        let due = self.rows.entries(context).filter(|(_, at)| is_due(at)).count();
        let (name, part) = context.key();
        context.emit((format!("due {name} {part} {}", timer.time.0), due.to_string()));
    }
}

fn draw(job: &Job) -> waterwheel::Result<()> {
    let rows = job.topic("in").json::<Item>().event_time(|item| EventTime(item.at), OutOfOrder::by(millis(50))).stream();
    let by_key = |stream: &Stream<Item>| stream.key_by(|item| item.key.clone());
    let (odd, even) = rows.split(|item| item.n % 2 == 1);
    let ids = |ids: &mut Ids, item: &Item| ids.0.push(item.n);
    let windows = by_key(&rows).window(Sliding::of(millis(400)).every(millis(100))).aggregate_windows(Ids::default, ids);
    let windows = windows.id("windows").map(|w| (format!("window {} {}", w.key, w.start.0), format!("{:?}", w.value.0)));
    let sessions = by_key(&rows).window(Session::gap(millis(60))).aggregate_windows(Ids::default, ids);
    let sessions = sessions.id("sessions").map(|w| (format!("session {} {}", w.key, w.start.0), format!("{:?}", w.value.0)));
    let counts = by_key(&rows).window(Count::of(4)).aggregate_windows(Ids::default, ids);
    let counts = counts.id("counts").map(|w| (format!("count {}", w.key), format!("{:?}", w.value.0)));
    let watched = rows.key_by(|item| (item.key.clone(), (item.n % 3) as u32)).sort_by_time(|item| item.n).id("sorted");
    let watched = watched.process(Watch::default).id("watched");
    let pairs = by_key(&odd).interval_join(&by_key(&even)).between(before(millis(40)), after(millis(40)));
    let pairs = pairs.left(|a, b| (format!("pair {}", a.n), format!("{:?}", b.map(|b| b.n)))).id("pairs");
    let once = rows.dedup_by(|item| item.n % 50, millis(100_000)).id("once").map(|item| (format!("once {}", item.n), String::new()));
    let all = windows.union(&sessions).union(&counts).union(&watched).union(&pairs).union(&once);
    all.to_topic("out").key(|(key, _)| key.clone()).id("output");
    job.sql(
        "CREATE TABLE items (`key` STRING, n BIGINT, at BIGINT, ts AS TO_TIMESTAMP_LTZ(at, 3), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND)
             WITH ('connector' = 'topics', 'topic' = 'in', 'format' = 'json');
         CREATE TABLE sums (`key` STRING, n BIGINT, mean DECIMAL(38, 6), most DOUBLE, kinds BIGINT, PRIMARY KEY (`key`) NOT ENFORCED)
             WITH ('connector' = 'topics', 'topic' = 'sums', 'format' = 'json', 'key.format' = 'raw');
         CREATE TABLE newest (n BIGINT, near BIGINT, PRIMARY KEY (n) NOT ENFORCED)
             WITH ('connector' = 'topics', 'topic' = 'newest', 'format' = 'json', 'key.format' = 'json');
         INSERT INTO sums SELECT `key`, SUM(n), AVG(CAST(n AS DECIMAL(20, 3))), MAX(CAST(n AS DOUBLE) / 8), COUNT(DISTINCT MOD(n, 7)) FROM items GROUP BY `key`;
         INSERT INTO newest SELECT a.n, COUNT(b.n) FROM items AS a LEFT JOIN items AS b ON a.`key` = b.`key` AND a.n = b.n + 7 GROUP BY a.n",
    )?;
    Ok(())
}

/// A folder with topics and checkpoints.
struct Place {
    folder: tempfile::TempDir,
    topics: Arc<dyn Topics>,
}

impl Place {
    fn new(from: Option<&Path>) -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        if let Some(from) = from {
            copy(from, folder.path());
        }
        let topics = TopicsUrl::Local(folder.path().join("topics")).open(&Env::real()).expect("opens");
        if from.is_none() {
            ["in", "out"].iter().for_each(|name| topics.create(name, &TopicConfig::partitions(1)).expect("is made"));
        }
        Place { folder, topics }
    }

    fn settings(&self) -> JobSettings {
        let mut settings = JobSettings::at(TopicsUrl::Local(self.folder.path().join("topics")), self.folder.path().join("checkpoints"));
        settings.run.checkpoint.interval = Duration::from_millis(200);
        settings
    }

    fn write(&self, rows: std::ops::Range<i64>) {
        let (topic, mut batch): (Arc<str>, _) = ("in".into(), RawBatch::default());
        for n in rows {
            // Every third row is behind the one before it.
            let at = 20 * n - if n % 3 == 0 { 30 } else { 0 };
            let value = serde_json::to_vec(&Item { key: format!("k{}", n * n % 11), n, at }).expect("JSON");
            batch.push_parts(&topic, 0, -1, 1_000 + at, None, Some(&value), &[]);
        }
        self.topics.produce(&batch).expect("is written");
    }

    /// Values of a topic by key, in order.
    fn read(&self, topic: &str) -> BTreeMap<String, Vec<String>> {
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let source = self.topics.source(SourceOptions::new(topic).end(End::Latest)).expect("a source");
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let each = |batch: RawBatch| {
            batch.records().for_each(|r| found.entry(text(r.key)).or_default().push(text(r.value)));
            Ok(())
        };
        Reading::open(&*source, &Env::real()).expect("opens").drain(each).expect("is read");
        found
    }

    /// All output; of what is kept up to date the newest row of each key.
    fn output(&self) -> [BTreeMap<String, Vec<String>>; 3] {
        let newest = |mut rows: BTreeMap<String, Vec<String>>| {
            rows.values_mut().for_each(|values| drop(values.drain(..values.len() - 1)));
            rows
        };
        [self.read("out"), newest(self.read("sums")), newest(self.read("newest"))]
    }

    fn finish(&self) {
        let outcome = run_job(NAME, &self.settings().until_end(), draw);
        assert_eq!(outcome.unwrap_or_else(|e| panic!("{}", e.report())), Outcome::Finished);
    }

    /// Leaves a job in the middle: it is stopped when the first rows are out, with a checkpoint.
    fn leave(&self) {
        let runner = Arc::new(job_runner(NAME, &self.settings().parallelism(2), draw).unwrap_or_else(|e| panic!("{}", e.report())));
        let (control, running) = (runner.control(), runner.clone());
        let job = std::thread::spawn(move || running.run());
        // The watermark holds the last rows back.
        client::wait_until("the first rows", || self.read("out").keys().filter(|key| key.starts_with("seen ")).count() as i64 > HALF - 10);
        control.stop();
        let outcome = job.join().expect("no panic");
        assert_eq!(outcome.unwrap_or_else(|e| panic!("{}", e.report())), Outcome::Stopped);
    }
}

/// Copies files, and the folders that they are in.
fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target)
        } else {
            std::fs::create_dir_all(to).expect("is made");
            let _bytes = std::fs::copy(&path, &target).expect("is copied");
        }
    }
}

/// Folders that versions left, and this one's.
fn left(own: &Place) -> Vec<PathBuf> {
    let kept = cargo::root().join("tests/golden");
    if std::env::var_os("WATERWHEEL_WRITE_SNAPSHOTS").is_some() && !kept.join(VERSION).exists() {
        copy(own.folder.path(), &kept.join(VERSION));
    }
    let mut all = vec![own.folder.path().to_path_buf()];
    if let Ok(folder) = std::fs::read_dir(kept) {
        all.extend(folder.map(|entry| entry.expect("an entry").path()));
    }
    all
}

#[test]
fn what_earlier_versions_left_goes_on() {
    let own = Place::new(None);
    own.write(0..HALF);
    own.leave();
    let whole = Place::new(None);
    whole.write(0..ROWS);
    whole.finish();
    let expected = whole.output();
    for folder in left(&own) {
        let place = Place::new(Some(&folder));
        assert!(!place.read("out").is_empty(), "{}: nothing was out", folder.display());
        place.write(HALF..ROWS);
        place.finish();
        assert_eq!(place.output(), expected, "{}", folder.display());
    }
}
