//! Records that are no rows of a SQL table: every kind of them, in every format, under each policy, across a crash, on the simulated
//! machine. None is a panic, a loop, or lost in silence, and none moves event time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use waterwheel::prelude::*;
use waterwheel::testing::{KeyValue, TestJob};

/// Good ones are worth what their number says; each has a second of its own, a bad one behind it.
struct Kind {
    format: &'static str,
    /// Columns, and the watermark.
    columns: &'static str,
    /// True of good ones; looks at every column, for what nobody looks at is not read.
    looks: &'static str,
    good: fn(usize) -> String,
    bad: Vec<(&'static str, Option<Vec<u8>>)>,
}

/// Of a table without a key, where nothing else decides.
const NO_VALUE: (&str, Option<Vec<u8>>) = ("a tombstone", None);

fn bad<const N: usize>(all: [(&'static str, &[u8]); N]) -> Vec<(&'static str, Option<Vec<u8>>)> {
    all.into_iter().map(|(what, value)| (what, Some(value.to_vec()))).collect()
}

fn json() -> Kind {
    let mut all = bad([
        ("broken JSON", br#"{"n":1,"at":"1970-01-01 00:00:00""#),
        ("no JSON at all", b"\x00\x01\x02"),
        ("two values", br#"{"n":1,"at":"1970-01-01 00:00:00"} {}"#),
        ("not an object", b"[1, 2]"),
        ("a null", b"null"),
        ("an empty value", b""),
        ("an empty object", b"{}"),
        ("a NULL for NOT NULL", br#"{"n":null,"at":"1970-01-01 00:00:00"}"#),
        ("a missing member of NOT NULL", br#"{"at":"1970-01-01 00:00:00"}"#),
        ("a text for a number", br#"{"n":"one","at":"1970-01-01 00:00:00"}"#),
        ("a number for a text", br#"{"n":1,"s":{"a":1,"a":2},"r":5,"at":"1970-01-01 00:00:00"}"#),
        ("a number out of range", br#"{"n":9223372036854775808,"at":"1970-01-01 00:00:00"}"#),
        ("a number without end", br#"{"n":1,"f":1e400,"at":"1970-01-01 00:00:00"}"#),
        ("a decimal of too many digits", br#"{"n":1,"d":123456789.123,"at":"1970-01-01 00:00:00"}"#),
        ("an array in place of a row", br#"{"n":1,"r":[1],"at":"1970-01-01 00:00:00"}"#),
        ("a text in an array of numbers", br#"{"n":1,"a":[1,"x"],"at":"1970-01-01 00:00:00"}"#),
        ("invalid UTF-8", b"{\"n\":1,\"s\":\"\xff\xfe\",\"at\":\"1970-01-01 00:00:00\"}"),
        ("half of a surrogate pair", br#"{"n":1,"s":"\ud800","at":"1970-01-01 00:00:00"}"#),
        ("no event time", br#"{"n":1}"#),
        ("a date that is none", br#"{"n":1,"at":"1970-02-30 00:00:00"}"#),
        ("a time after all calendars", br#"{"n":1,"at":"+262000-01-01 00:00:00"}"#),
        ("a time before all calendars", br#"{"n":1,"at":"-262000-01-01 00:00:00"}"#),
        ("a computed column that fails", br#"{"n":0,"at":"1970-01-01 00:00:00"}"#),
    ]);
    all.push(("deep nesting", Some("[".repeat(100_000).into_bytes())));
    all.push(("deep nesting in a member that is read", Some(format!("{{\"n\":1,\"s\":{}", "[".repeat(100_000)).into_bytes())));
    // With the headers of a dead letter it is larger than its own topic takes.
    all.push(("no JSON, as large as can be", Some(vec![b'x'; 1_048_000])));
    all.push(("a megabyte for a number", Some(format!("{{\"n\":\"{}\"}}", "x".repeat(1_000_000)).into_bytes())));
    all.push(NO_VALUE);
    Kind {
        format: "json",
        columns: "n BIGINT NOT NULL, s STRING, f DOUBLE, d DECIMAL(10, 2), r ROW<x INT>, a ARRAY<INT>, at TIMESTAMP(3), twice AS 12 / n,
            WATERMARK FOR at AS at",
        looks: "s IS NULL AND f IS NULL AND d IS NULL AND r IS NULL AND a IS NULL AND twice >= 0",
        good: |n| format!("{{\"n\":{n},\"at\":\"1970-01-01 00:00:{n:02}\"}}"),
        bad: all,
    }
}

/// Times as numbers: in another unit they are in no calendar either.
fn numbers() -> Kind {
    let mut all = bad([
        ("a time after all times", br#"{"n":1,"ms":9223372036854775807}"#),
        ("a time before all times", br#"{"n":1,"ms":-9223372036854775808}"#),
        ("microseconds for milliseconds", br#"{"n":1,"ms":1772442000000000}"#),
        ("a time with a fraction", br#"{"n":1,"ms":1.5}"#),
        ("no time", br#"{"n":1,"ms":null}"#),
    ]);
    all.push(NO_VALUE);
    Kind {
        format: "json",
        columns: "n BIGINT, ms BIGINT, at AS TO_TIMESTAMP_LTZ(ms, 3), WATERMARK FOR at AS at",
        looks: "ms > 0",
        good: |n| format!("{{\"n\":{n},\"ms\":{}}}", n * 1000),
        bad: all,
    }
}

fn csv() -> Kind {
    let mut all = bad([
        ("too few fields", b"1"),
        ("too many fields", b"1,1970-01-01 00:00:00,x,y,z"),
        ("no number", b"one,1970-01-01 00:00:00,x"),
        ("no time", b"1,yesterday,x"),
        ("a NULL for NOT NULL", b",1970-01-01 00:00:00,x"),
        ("a quote that is not closed", b"1,1970-01-01 00:00:00,\"x"),
        ("invalid UTF-8", b"1,1970-01-01 00:00:00,\xff"),
    ]);
    all.push(NO_VALUE);
    Kind {
        format: "csv",
        columns: "n BIGINT NOT NULL, at TIMESTAMP(3), s STRING, WATERMARK FOR at AS at",
        looks: "s = 'x'",
        good: |n| format!("{n},1970-01-01 00:00:{n:02},x"),
        bad: all,
    }
}

fn raw() -> Kind {
    let mut all = bad([("invalid UTF-8", b"\xff"), ("no number", b"one")]);
    all.push(NO_VALUE);
    Kind {
        format: "raw",
        columns: "v STRING, n AS CAST(v AS BIGINT), at AS TO_TIMESTAMP_LTZ(CAST(v AS BIGINT), 0), WATERMARK FOR at AS at",
        looks: "v <> 'x'",
        good: |n| n.to_string(),
        bad: all,
    }
}

fn debezium() -> Kind {
    Kind {
        format: "debezium-json",
        columns: "n BIGINT NOT NULL, s STRING, PRIMARY KEY (n) NOT ENFORCED",
        looks: "s IS NULL",
        good: |n| format!("{{\"op\":\"c\",\"before\":null,\"after\":{{\"n\":{n}}}}}"),
        bad: bad([
            ("no JSON", b"nothing"),
            ("no kind of change", br#"{"after":{"n":1}}"#),
            ("a kind of change that nobody knows", br#"{"op":"x","after":{"n":1}}"#),
            ("a row that is not there", br#"{"op":"c","before":null,"after":null}"#),
            ("a deletion that does not say of what", br#"{"op":"d","before":null,"after":null}"#),
            ("a NULL for NOT NULL", br#"{"op":"c","after":{"n":null}}"#),
        ]),
    }
}

impl Kind {
    /// A job that passes the numbers on.
    fn test(&self, policy: &str) -> TestJob {
        let script = format!(
            "CREATE TABLE t ({}) WITH ('connector' = 'topics', 'topic' = 't', 'format' = '{}', 'error-policy' = '{policy}');
             CREATE TABLE o (n BIGINT, PRIMARY KEY (n) NOT ENFORCED)
                 WITH ('connector' = 'topics', 'topic' = 'o', 'format' = 'json', 'key.format' = 'json');
             INSERT INTO o SELECT n FROM t WHERE {}",
            self.columns, self.format, self.looks
        );
        let script = Arc::new(script);
        let test = TestJob::new("bad", move |job: &Job| job.sql(&script).map(drop));
        test.topic("t", 1);
        test
    }

    /// Good records with a bad one behind each.
    fn records(&self) -> Vec<KeyValue> {
        let bad = self.bad.iter().enumerate();
        bad.flat_map(|(i, (_, value))| [(None, Some((self.good)(i + 1).into_bytes())), (Some(b"k".to_vec()), value.clone())]).collect()
    }

    /// The numbers that came, each of them once, whatever was between them.
    fn assert_all_good(&self, test: &TestJob) {
        let mut found: Vec<u64> = test.read::<serde_json::Value>("o").iter().map(|row| row["n"].as_u64().expect("a number")).collect();
        found.sort_unstable();
        assert_eq!(found, (1..=self.bad.len() as u64).collect::<Vec<_>>(), "{}", self.format);
    }
}

/// Two halves of the records, with a crash between them.
fn run(kind: &Kind, policy: &str) -> TestJob {
    let (mut test, records) = (kind.test(policy), kind.records());
    let half = records.len() / 2;
    test.send_records("t", records[..half].to_vec());
    test.settle();
    test.crash();
    test.send_records("t", records[half..].to_vec());
    test.run(50);
    test.crash();
    test.finish();
    kind.assert_all_good(&test);
    test
}

fn kinds() -> [Kind; 5] {
    [json(), numbers(), csv(), raw(), debezium()]
}

#[test]
fn are_dropped() {
    for kind in kinds() {
        let test = run(&kind, "drop");
        assert!(test.records("t.dead-letter").is_empty());
    }
}

#[test]
fn become_dead_letters_as_they_were() {
    for kind in kinds() {
        let letters = run(&kind, "dead-letter").records("t.dead-letter");
        assert_eq!(letters.len(), kind.bad.len(), "{}: another number of dead letters than of bad records", kind.format);
        for ((what, value), (key, letter)) in kind.bad.iter().zip(letters) {
            assert!(key.as_deref() == Some(&b"k"[..]) && letter == *value, "{}: {what}: the record is not as it was", kind.format);
        }
    }
}

/// Each by itself, and again when the job is started again: it ends there, with the place and a reason that does not repeat the record.
#[test]
fn fail_the_job() {
    for kind in kinds() {
        for (what, value) in &kind.bad {
            let mut test = kind.test("fail");
            test.send_records("t", [(None, Some((kind.good)(1).into_bytes())), (None, value.clone())]);
            for turn in 0..2 {
                let failed = catch_unwind(AssertUnwindSafe(|| test.settle())).expect_err(what);
                let said = failed.downcast_ref::<String>().unwrap_or_else(|| panic!("{}: {what}", kind.format));
                assert!(said.contains("record t/0@1") && said.contains("help: "), "{}: {what}, turn {turn}: {said}", kind.format);
                assert!(said.len() < 4_000, "{}: {what}: the report repeats the record", kind.format);
                test.crash();
            }
            assert!(test.records("o").len() <= 1, "{}: {what}", kind.format);
        }
    }
}

/// A window of the record that lies about its time would close all others: none of them is late after it.
#[test]
fn times_in_no_calendar_do_not_move_event_time() {
    let script = "CREATE TABLE t (n BIGINT, ms BIGINT, at AS TO_TIMESTAMP_LTZ(ms, 3), WATERMARK FOR at AS at)
             WITH ('connector' = 'topics', 'topic' = 't', 'format' = 'json', 'error-policy' = 'drop');
         CREATE TABLE o (n BIGINT) WITH ('connector' = 'topics', 'topic' = 'o', 'format' = 'json');
         INSERT INTO o SELECT SUM(n) FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(at), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end";
    let mut test = TestJob::new("times", move |job: &Job| job.sql(script).map(drop));
    test.topic("t", 1);
    for ms in [0, i64::MAX, 30_000, 253_402_300_800_000, 59_999, i64::MIN, 61_000] {
        test.send_text("t", [format!("{{\"n\":1,\"ms\":{ms}}}")]);
    }
    test.finish();
    let mut sums: Vec<u64> = test.read::<serde_json::Value>("o").iter().filter_map(|row| row["n"].as_u64()).collect();
    sums.sort_unstable();
    assert_eq!(sums, [1, 3]);
}
