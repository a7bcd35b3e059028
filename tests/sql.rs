//! SQL as a user has it: the command, on topics of the embedded log, from a query to a job that is stopped and goes on.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use waterwheel::engine::env::Env;
use waterwheel::engine::record::RawBatch;
use waterwheel::topics::{End, Reading, SourceOptions, TopicConfig, TopicsUrl};

use crate::support::cargo::program;

pub(crate) struct Place {
    pub(crate) folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place { folder: TempDir::new().expect("a folder") }
    }

    fn url(&self) -> String {
        format!("local:{}", self.folder.path().join("topics").display())
    }

    pub(crate) fn topics(&self) -> std::sync::Arc<dyn waterwheel::topics::Topics> {
        self.url().parse::<TopicsUrl>().expect("a URL").open(&Env::real()).expect("opens")
    }

    /// Appends records to a topic, made when missing.
    pub(crate) fn produce(&self, topic: &str, records: &[String]) {
        let topics = self.topics();
        if !topics.list().expect("lists").iter().any(|t| t == topic) {
            topics.create(topic, &TopicConfig::partitions(2)).expect("is made");
        }
        let name: std::sync::Arc<str> = topic.into();
        let mut batch = RawBatch::default();
        for (i, record) in records.iter().enumerate() {
            batch.push_parts(&name, (i % 2) as i32, -1, 1000, None, Some(record.as_bytes()), &[]);
        }
        topics.produce(&batch).expect("is written");
    }

    pub(crate) fn sql(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program("waterwheel"));
        command.current_dir(self.folder.path()).args(["sql", "--topics", &self.url()]).args(args);
        command
    }

    /// Committed values of a topic with their keys, sorted.
    pub(crate) fn committed(&self, topic: &str) -> Vec<(Option<String>, Option<String>)> {
        let source = self.topics().source(SourceOptions::new(topic).end(End::Latest)).expect("a source");
        let mut rows = Vec::new();
        let text = |b: Option<&[u8]>| b.map(|b| String::from_utf8_lossy(b).into_owned());
        Reading::open(&*source, &Env::real())
            .expect("opens")
            .drain(|batch| {
                rows.extend(batch.records().map(|r| (text(r.key), text(r.value))));
                Ok(())
            })
            .expect("is read");
        rows.sort();
        rows
    }
}

fn payments() -> Vec<String> {
    let countries = ["DE", "FR", "DE", "IT", "DE", "FR"];
    let row = |i: usize| {
        format!("{{\"id\":{i},\"country\":\"{}\",\"amount\":{}.5,\"at\":\"2026-01-01 00:00:{:02}\"}}", countries[i % 6], i, i % 60)
    };
    (0..60).map(row).collect()
}

pub(crate) fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn rows(output: Output) -> String {
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn a_query_needs_no_set_up() {
    let place = Place::new();
    place.produce("payments", &payments());
    let query = "SELECT country, COUNT(*) AS n, SUM(amount) AS total FROM payments GROUP BY country ORDER BY n DESC, country";
    let output = place.sql(&["--until-end", query]).output().expect("starts");
    assert!(said(&output).contains("columns inferred from 60 records"), "{}", said(&output));
    let expected = " country │  n │ total\n─────────┼────┼───────\n DE      │ 30 │ 885.0\n FR      │ 20 │ 610.0\n IT      │ 10 │ 305.0\n";
    assert_eq!(rows(output), expected);
    let json = rows(place.sql(&["--until-end", "--output", "json", query]).output().expect("starts"));
    let first: Value = serde_json::from_str(json.lines().next().expect("a row")).expect("JSON");
    assert_eq!((&first["country"], &first["n"]), (&Value::from("DE"), &Value::from(30)));
    let changes =
        rows(place.sql(&["--until-end", "--output", "changelog", "SELECT id FROM payments WHERE id < 2"]).output().expect("starts"));
    assert_eq!(changes.lines().collect::<std::collections::BTreeSet<_>>(), ["+I[0]", "+I[1]"].into());
    assert!(!Path::new(&place.folder.path().join("checkpoints")).exists(), "a query leaves nothing behind");
}

#[test]
fn explain_analyze_says_what_each_operator_did() {
    let place = Place::new();
    place.produce("payments", &payments());
    let query = "EXPLAIN ANALYZE SELECT country, COUNT(*) AS n FROM payments WHERE id < 30 GROUP BY country";
    let said_of = rows(place.sql(&["--until-end", query]).output().expect("starts"));
    let of = |operator: &str| -> Vec<String> {
        let line =
            said_of.lines().find(|l| l.contains(operator) && l.contains('\u{2502}')).unwrap_or_else(|| panic!("{operator}: {said_of}"));
        line.split('\u{2502}').map(|cell| cell.trim().to_string()).collect()
    };
    assert_eq!(of("query-source-1")[1], "60", "{said_of}");
    assert_eq!(of("query-filter-1")[1], "30", "{said_of}");
    let keys: u64 = said_of.lines().filter_map(|l| l.split('\u{2502}').nth(2)?.trim().parse::<u64>().ok()).sum();
    assert_eq!(keys, 3, "three countries: {said_of}");
    assert!(said_of.contains("reads 2 of 4 columns"), "{said_of}");
    let output = place.sql(&[query]).output().expect("starts");
    assert!(said(&output).contains("needs an input that ends"), "{}", said(&output));
}

#[test]
fn mistakes_are_shown_where_they_are() {
    let place = Place::new();
    place.produce("payments", &payments());
    let output = place.sql(&["-e", "SELECT sum(amout)\nFROM payments"]).output().expect("starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("query:1:12") && said(&output).contains("did you mean \"amount\"?"), "{}", said(&output));
}

/// Windows into a topic that only grows, running totals into one that is compacted; stopped in the middle, gone on with other
/// tasks: every result is there once.
#[test]
fn a_script_is_a_job_that_goes_on_where_it_was() {
    let place = Place::new();
    let all = payments();
    place.produce("payments", &all[..30]);
    let script = place.folder.path().join("totals.sql");
    std::fs::write(
        &script,
        "SET 'pipeline.name' = 'totals';
         CREATE TABLE payments (id BIGINT, country STRING, amount DECIMAL(10, 2), at TIMESTAMP(3), WATERMARK FOR at AS at - INTERVAL '1' SECOND)
             WITH ('connector' = 'topics', 'topic' = 'payments', 'format' = 'json');
         CREATE TABLE per_window (window_end TIMESTAMP(3), country STRING, n BIGINT) WITH ('connector' = 'topics', 'topic' = 'per-window', 'format' = 'json');
         CREATE TABLE totals (country STRING, total DECIMAL(20, 2), PRIMARY KEY (country) NOT ENFORCED)
             WITH ('connector' = 'topics', 'topic' = 'totals', 'format' = 'json', 'key.format' = 'raw');
         INSERT INTO per_window SELECT window_end, country, COUNT(*)
             FROM TABLE(TUMBLE(TABLE payments, DESCRIPTOR(at), INTERVAL '20' SECOND)) GROUP BY window_start, window_end, country;
         INSERT INTO totals SELECT country, SUM(amount) FROM payments GROUP BY country;",
    )
    .expect("is written");
    let file = script.to_str().expect("UTF-8");
    let explained = rows(place.sql(&["-f", file, "explain"]).output().expect("starts"));
    assert!(explained.contains("UNBOUNDED by time") && explained.contains("bounded by the watermark"), "{explained}");
    let checked = place.sql(&["-f", file, "check"]).output().expect("starts");
    assert!(checked.status.success(), "{}", said(&checked));

    // Until half of the input is worked off, then the rest with three tasks. Its end is pinned at the first start.
    let mut job =
        place.sql(&["-f", file, "run", "--json", "--status-interval", "20ms", "--checkpoint-interval", "50ms"]).spawn().expect("starts");
    for _ in 0..600 {
        if place.topics().list().expect("lists").contains(&"totals".to_string()) && !place.committed("totals").is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let pid = rustix::process::Pid::from_child(&job);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("is told");
    assert!(job.wait().expect("ends").success());
    place.produce("payments", &all[30..]);
    let rest = place.sql(&["-f", file, "run", "--parallelism", "3", "--json"]).spawn();
    let mut rest = rest.expect("starts");
    let total = |rows: &[(Option<String>, Option<String>)]| {
        let row = |r: &(Option<String>, Option<String>)| r.1.as_deref().is_some_and(|v| v.contains("885.00"));
        rows.iter().any(row)
    };
    for _ in 0..600 {
        if total(&place.committed("totals")) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&rest), rustix::process::Signal::INT).expect("is told");
    assert!(rest.wait().expect("ends").success());
    assert!(total(&place.committed("totals")), "{:?}", place.committed("totals"));
    // The first two windows have fired, once each; the third waits for the watermark.
    let windows: Vec<Value> =
        place.committed("per-window").iter().map(|(_, v)| serde_json::from_str(v.as_deref().expect("a value")).expect("JSON")).collect();
    let counted: i64 = windows.iter().filter_map(|w| w["n"].as_i64()).sum();
    assert_eq!(counted, 40, "{windows:?}");
    assert_eq!(windows.len(), 6, "{windows:?}");
}

/// Lines of all visible files below a folder, by the folder that they are in, and the names of its other files.
pub(crate) fn lines_below(folder: &Path) -> std::collections::BTreeMap<String, (Vec<String>, bool)> {
    let mut all = std::collections::BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(path) = folders.pop() {
        for entry in std::fs::read_dir(&path).into_iter().flatten() {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("UTF-8");
            if name.starts_with('.') {
                continue;
            }
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else {
                let place = path.strip_prefix(folder).expect("is below").to_str().expect("UTF-8").to_string();
                let (lines, marked): &mut (Vec<String>, bool) = all.entry(place).or_default();
                match name.as_str() {
                    "_SUCCESS" => *marked = true,
                    _ => lines.extend(std::fs::read_to_string(entry.path()).expect("is read").lines().map(String::from)),
                }
            }
        }
    }
    all
}

/// A job that writes files into folders is killed again and again: every row is there once, folders that event time has passed are
/// marked, and the files are a table again.
#[test]
fn files_in_folders_have_every_row_once_when_the_job_is_killed() {
    let place = Place::new();
    let countries = ["DE", "a/b", "..", "", "__DEFAULT_PARTITION__", "x=y %25"];
    let row = |i: usize| {
        let country = if i % 7 == 6 { "null".to_string() } else { format!("{:?}", countries[i % 7]) };
        format!("{{\"id\":{i},\"country\":{country},\"at\":\"2026-01-01 00:{:02}:{:02}\"}}", i / 600, i / 10 % 60)
    };
    let all: Vec<String> = (0..2400).map(row).collect();
    let tables = |folder: &str| {
        format!(
            "CREATE TABLE payments (id BIGINT, country STRING, at TIMESTAMP(3), WATERMARK FOR at AS at - INTERVAL '1' SECOND)
                 WITH ('connector' = 'topics', 'topic' = 'payments', 'format' = 'json');
             CREATE TABLE files (id BIGINT, country STRING, at TIMESTAMP(3), minute STRING) PARTITIONED BY (country, minute)
                 WITH ('connector' = 'filesystem', 'path' = '{folder}', 'format' = 'csv', 'sink.rolling-policy.file-size' = '700 b',
                       'sink.rolling-policy.rollover-interval' = '200 ms', 'sink.partition-commit.trigger' = 'partition-time',
                       'sink.partition-commit.delay' = '1 min', 'sink.partition-commit.policy.kind' = 'success-file',
                       'partition.time-extractor.timestamp-pattern' = '2026-01-01 $minute:00');"
        )
    };
    let script = place.folder.path().join("files.sql");
    let insert = "INSERT INTO files SELECT id, country, at, DATE_FORMAT(at, 'HH:mm') FROM payments;";
    std::fs::write(&script, tables("out") + insert).expect("is written");
    let out = place.folder.path().join("out");
    let visible = || lines_below(&out).values().map(|(lines, _)| lines.len()).sum::<usize>();
    let start = |tasks: usize| {
        let file = script.to_str().expect("UTF-8");
        let tasks = tasks.to_string();
        let mut job = place.sql(&["-f", file, "run", "--json", "--checkpoint-interval", "30ms", "--parallelism", &tasks]);
        job.stdout(std::process::Stdio::null()).spawn().expect("starts")
    };
    for (round, portion) in all.chunks(480).enumerate() {
        place.produce("payments", portion);
        let mut job = start(1 + round % 3);
        let last = round == 4;
        // Killed while rows are on their way: some are in files, some in files without a name, some in none.
        let wanted = if last { all.len() } else { round * 480 + 100 };
        let begun = std::time::Instant::now();
        let marked = || lines_below(&out).values().filter(|(_, marked)| *marked).count();
        while visible() < wanted || (last && marked() < 7 * 3) {
            assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{} of {wanted} rows are there", visible());
            std::thread::sleep(std::time::Duration::from_millis(if last { 50 } else { 3 }));
        }
        job.kill().expect("is killed");
        job.wait().expect("ends");
    }
    let found = lines_below(&out);
    let mut ids: Vec<usize> = Vec::new();
    for (folder, (lines, marked)) in &found {
        let minute: usize = folder.rsplit_once("%3A").expect("a minute").1.parse().expect("a number");
        // Event time has come to 00:03:58.
        assert_eq!(*marked, minute < 3, "{folder}");
        ids.extend(lines.iter().map(|line| line.split(',').next().expect("a field").parse::<usize>().expect("an id")));
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..2400).collect::<Vec<_>>());
    assert!(found.contains_key("country=__DEFAULT_PARTITION__/minute=00%3A03"), "{:?}", found.keys());
    assert!(found.contains_key("country=%5F_DEFAULT_PARTITION__/minute=00%3A03"), "{:?}", found.keys());
    let count = "SELECT country, minute, COUNT(*) AS n, SUM(id) AS ids, MAX(at) AS latest FROM";
    let of = |rows: &str| {
        let text = format!("{}{count} {rows} GROUP BY country, minute ORDER BY minute, country", tables("out"));
        rows_of(place.sql(&["--until-end", "--output", "json", &text]))
    };
    let read_back = of("files");
    assert_eq!(read_back, of("(SELECT *, DATE_FORMAT(at, 'HH:mm') AS minute FROM payments) AS p"));
    assert_eq!(read_back.lines().count(), 7 * 4, "{read_back}");
}

pub(crate) fn rows_of(mut command: Command) -> String {
    rows(command.output().expect("starts"))
}

#[test]
fn timestamps_and_headers_of_records_are_written_and_read() {
    let place = Place::new();
    place.produce("payments", &payments()[..3]);
    let script = "CREATE TABLE t (id BIGINT, at TIMESTAMP_LTZ(3) METADATA FROM 'timestamp', headers MAP<STRING, BYTES> METADATA,
            place INT METADATA FROM 'partition' VIRTUAL, k BYTES METADATA FROM 'key' VIRTUAL, country STRING)
            WITH ('connector' = 'topics', 'topic' = 't', 'format' = 'json', 'key.fields' = 'country', 'key.format' = 'raw');
        INSERT INTO t SELECT id, TO_TIMESTAMP_LTZ(id * 1000, 3), MAP['from', CAST(country AS BYTES), 'n', CAST(NULL AS BYTES)], country FROM payments;";
    let made = place.sql(&["--until-end", "-e", script]).output().expect("starts");
    assert!(made.status.success(), "{}", said(&made));
    // Only the columns of the value are in it.
    let values: Vec<String> = place.committed("t").into_iter().filter_map(|(_, value)| value).collect();
    assert!(values.contains(&"{\"id\":1,\"country\":\"FR\"}".to_string()), "{values:?}");
    let declared = script.split_once("INSERT").expect("an insert").0;
    let query = format!(
        "{declared} SELECT id, at, CAST(headers['from'] AS STRING) AS f, CARDINALITY(headers) AS n, CAST(k AS STRING) AS k FROM t ORDER BY id"
    );
    let found = rows_of(place.sql(&["--until-end", "--output", "json", &query]));
    let first = "{\"id\":0,\"at\":\"1970-01-01 00:00:00Z\",\"f\":\"DE\",\"n\":2,\"k\":\"DE\"}";
    assert_eq!(found.lines().next(), Some(first), "{found}");
    assert_eq!(found.lines().count(), 3);
}

#[test]
fn a_catalog_in_a_folder_is_there_again() {
    let place = Place::new();
    place.produce("payments", &payments());
    let with_catalog = |args: &[&str]| rows_of(place.sql(&[&["--catalog", "kept", "--until-end"], args].concat()));
    with_catalog(&[
        "-e",
        "CREATE TABLE p (id BIGINT, country STRING, note AS 'it''s \u{e9}; -- no remark')
            WITH ('connector' = 'topics', 'topic' = 'payments', 'format' = 'json');
        CREATE TEMPORARY VIEW gone AS SELECT id FROM p;
        CREATE VIEW few AS SELECT id, note FROM p WHERE id < 2;
        CREATE TABLE IF NOT EXISTS p (x INT) WITH ('connector' = 'print');
        CREATE TABLE q (PRIMARY KEY (country) NOT ENFORCED) WITH ('connector' = 'topics', 'topic' = 'q', 'format' = 'json') AS
            SELECT country, COUNT(*) AS n FROM p GROUP BY country",
    ]);
    let few = with_catalog(&["--output", "json", "-e", "SELECT id, note FROM few ORDER BY id"]);
    let row = |id: i64| format!("{{\"id\":{id},\"note\":\"it's \u{e9}; -- no remark\"}}\n");
    assert_eq!(few, row(0) + &row(1));
    let newest = with_catalog(&["--output", "changelog", "-e", "SELECT n FROM q WHERE country = 'DE'"]);
    assert!(newest.ends_with("[30]\n"), "{newest}");
    let gone = place.sql(&["--catalog", "kept", "-e", "SELECT id FROM gone"]).output().expect("starts");
    assert!(said(&gone).contains("\"gone\" not found"), "{}", said(&gone));
    // A script reads it too.
    let script = place.folder.path().join("s.sql");
    let text = "CREATE TABLE out (id BIGINT) WITH ('connector' = 'topics', 'topic' = 'out', 'format' = 'json'); INSERT INTO out SELECT id FROM few;";
    std::fs::write(&script, text).expect("is written");
    rows_of(place.sql(&["--catalog", "kept", "-f", script.to_str().expect("UTF-8"), "check"]));
    with_catalog(&[
        "-e",
        "ALTER TABLE p ADD twice AS id * 2; ALTER TABLE p RENAME TO renamed; CREATE TABLE p (x INT) WITH ('connector' = 'print')",
    ]);
    let altered = with_catalog(&["--output", "json", "-e", "SELECT id, twice FROM renamed ORDER BY id LIMIT 2 OFFSET 1"]);
    assert_eq!(altered, "{\"id\":1,\"twice\":2}\n{\"id\":2,\"twice\":4}\n");
    with_catalog(&["-e", "DROP VIEW few; DROP TABLE q; DROP TABLE renamed"]);
    let tables = with_catalog(&["-e", "SHOW TABLES"]);
    assert!(tables.contains(" p ") && !tables.contains("few") && !tables.contains("renamed"), "{tables}");
    assert!(with_catalog(&["-e", "SHOW FUNCTIONS"]).contains(" DATE_FORMAT"));
}

#[test]
fn rows_can_be_inserted_again_and_again() {
    let place = Place::new();
    place.produce("payments", &payments()[..3]);
    let declared = "CREATE TABLE t (id BIGINT) WITH ('connector' = 'topics', 'topic' = 't', 'format' = 'json');
        CREATE TABLE f (id BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');
        CREATE TABLE g (dt STRING, id BIGINT) PARTITIONED BY (dt) WITH ('connector' = 'filesystem', 'path' = 'days', 'format' = 'json');";
    for _ in 0..2 {
        let insert = format!(
            "{declared} INSERT INTO t SELECT id FROM payments; INSERT INTO f SELECT id FROM payments;
            INSERT INTO g PARTITION (dt = 'one') SELECT id FROM payments; INSERT INTO g PARTITION (dt = 'two') (id) SELECT 7;"
        );
        rows_of(place.sql(&["--until-end", "-e", &insert]));
    }
    let count =
        |table: &str| rows_of(place.sql(&["--until-end", "--output", "json", &format!("{declared} SELECT COUNT(*) AS n FROM {table}")]));
    assert_eq!((count("t"), count("f")), ("{\"n\":6}\n".to_string(), "{\"n\":6}\n".to_string()));
    let days = format!("{declared} SELECT dt, COUNT(*) AS n, MAX(id) AS id FROM g GROUP BY dt ORDER BY dt");
    let days = rows_of(place.sql(&["--until-end", "--output", "json", &days]));
    assert_eq!(days, "{\"dt\":\"one\",\"n\":6,\"id\":2}\n{\"dt\":\"two\",\"n\":2,\"id\":7}\n");
}
