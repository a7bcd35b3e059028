//! Records that are no rows: every kind of them, under each policy, on both kinds of log. None is a panic, a loop, or lost
//! in silence; a dead letter is the record as it was, with its place and the reason.

use crate::support::fraud::Running;
use crate::support::small_job::{Log, SmallJob};

/// One bad record.
struct Bad {
    what: &'static str,
    key: Option<&'static [u8]>,
    value: Option<Vec<u8>>,
}

fn bad_records() -> Vec<Bad> {
    let bad = |what, value: &[u8]| Bad { what, key: Some(b"a"), value: Some(value.to_vec()) };
    vec![
        bad("broken JSON", br#"{"key":"a","n":1,"#),
        bad("no JSON at all", b"\x00\x01\x02"),
        bad("two values", br#"{"key":"a","n":1,"at":1} {}"#),
        bad("a wrong type", br#"{"key":"a","n":"one","at":1000}"#),
        bad("a missing field", br#"{"key":"a","at":1000}"#),
        bad("a null for a field that is none", br#"{"key":"a","n":null,"at":1000}"#),
        bad("a null", b"null"),
        bad("an empty object", b"{}"),
        bad("an array", br#"[1,2]"#),
        bad("half of a surrogate pair", br#"{"key":"\ud800","n":1,"at":1000}"#),
        bad("a number out of range", br#"{"key":"a","n":9223372036854775808,"at":1000}"#),
        bad("a number without end", br#"{"key":"a","n":1e400,"at":1000}"#),
        bad("deep nesting", "[".repeat(100_000).as_bytes()),
        bad("10 MB", &vec![b'x'; 10_000_000]),
        bad("10 MB for a number", format!("{{\"key\":\"a\",\"n\":\"{}\",\"at\":1000}}", "x".repeat(10_000_000)).as_bytes()),
        bad("an empty value", b""),
        bad("invalid UTF-8", b"{\"key\":\"\xff\xfe\",\"n\":1,\"at\":1000}"),
        bad("a time after all times", br#"{"key":"a","n":1,"at":9223372036854775807}"#),
        bad("a time before all times", br#"{"key":"a","n":1,"at":-9223372036854775808}"#),
        bad("microseconds for milliseconds", br#"{"key":"a","n":1,"at":1772442000000000}"#),
        Bad { what: "a tombstone", key: Some(b"a"), value: None },
        Bad { what: "neither key nor value", key: None, value: None },
        Bad { what: "no key", key: None, value: Some(b"nothing".to_vec()) },
        Bad { what: "a key that is no text", key: Some(b"\xff"), value: Some(b"nothing".to_vec()) },
    ]
}

/// Good records with a bad one after each; what the good ones add up to.
fn filled(log: Log, policy: &'static str) -> (SmallJob, i64) {
    let job = SmallJob::new(log, policy, 1);
    let mut total = 0;
    for (n, bad) in (1..).zip(bad_records()) {
        job.item(0, "a", n);
        total += n;
        job.record(0, bad.key, bad.value.as_deref(), &[("trace", b"t1"), ("trace", b"")]);
    }
    (job, total)
}

fn dropped(log: Log) {
    let (job, total) = filled(log, "drop");
    let (status, last, said) = job.start(&["--until-end"]).wait();
    assert!(status.success(), "{said}");
    assert_eq!(job.total(), Some(total));
    assert_eq!(last["dropped"].as_u64(), Some(bad_records().len() as u64), "{last}");
}

fn dead_lettered(log: Log) {
    let (job, total) = filled(log, "dead-letter");
    let (status, last, said) = job.start(&["--until-end"]).wait();
    assert!(status.success(), "{said}");
    assert_eq!(job.total(), Some(total));
    let bad = bad_records();
    assert_eq!(last["dead_lettered"].as_u64(), Some(bad.len() as u64), "{last}");
    let mut letters = 0;
    job.read(&job.dead_letters(), |letter| {
        let Bad { what, key, value } = &bad[letters];
        assert!(letter.key == *key && letter.value == value.as_deref(), "{what}: the record is not as it was");
        let headers: Vec<(&str, String)> =
            letter.headers().map(|(name, v)| (name, String::from_utf8_lossy(v.unwrap_or_default()).into_owned())).collect();
        let is = |at: usize, name: &str, value: &str| headers[at] == (name, value.to_owned());
        let offset = (2 * letters + 1).to_string();
        assert!(is(0, "trace", "t1") && is(1, "trace", ""), "{what}: {headers:?}");
        assert!(is(2, "waterwheel.topic", &job.input) && is(3, "waterwheel.partition", "0"), "{what}: {headers:?}");
        assert!(is(4, "waterwheel.offset", &offset), "{what}: {headers:?}");
        assert!(headers[5].0 == "waterwheel.operator" && headers[6].0 == "waterwheel.error", "{what}: {headers:?}");
        assert!((1..1_000).contains(&headers[6].1.len()), "{what}: {headers:?}");
        assert_eq!(letter.timestamp, 1_000, "{what}");
        letters += 1;
    });
    assert_eq!(letters, bad.len());
}

/// Under `fail` the job ends, naming the record, and ends there again when it is started again.
fn failed(log: Log) {
    for turn in bad_records().chunks(4) {
        let jobs: Vec<(SmallJob, Running)> = turn
            .iter()
            .map(|bad| {
                let job = SmallJob::new(log, "fail", 1);
                job.item(0, "a", 1);
                job.record(0, bad.key, bad.value.as_deref(), &[]);
                job.item(0, "a", 2);
                let running = job.start(&["--until-end"]);
                (job, running)
            })
            .collect();
        for ((job, running), Bad { what, .. }) in jobs.into_iter().zip(turn) {
            // Whoever stamps times knows the source, not the record.
            let place =
                if what.contains("time") || what.contains("micro") { job.input.clone() } else { format!("record {}/0@1", job.input) };
            for running in [running, job.start(&["--until-end"])] {
                let (status, last, said) = running.wait();
                assert_eq!(status.code(), Some(1), "{what}: {said}");
                assert!(said.contains("error: ") && said.contains(&place) && said.contains("help: "), "{what}: {said}");
                assert!(said.len() < 4_000, "{what}: the report repeats the record");
                assert_eq!(last["restarts"], 0, "{what}: it was tried over and over");
            }
            let total = job.total();
            assert!(total.is_none_or(|total| total == 1), "{what}: {total:?}");
        }
    }
}

#[test]
fn are_dropped_on_the_embedded_log() {
    dropped(Log::Embedded);
}

#[test]
fn are_dropped_on_kafka() {
    dropped(Log::Kafka);
}

#[test]
fn become_dead_letters_on_the_embedded_log() {
    dead_lettered(Log::Embedded);
}

#[test]
fn become_dead_letters_on_kafka() {
    dead_lettered(Log::Kafka);
}

#[test]
fn fail_the_job_on_the_embedded_log() {
    failed(Log::Embedded);
}

#[test]
fn fail_the_job_on_kafka() {
    failed(Log::Kafka);
}
