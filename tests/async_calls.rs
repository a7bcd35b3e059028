//! Asynchronous calls on the real machine: tokio timers, many at once, to the end of a bounded job.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use waterwheel::engine::env::Env;
use waterwheel::engine::record::RawBatch;
use waterwheel::prelude::*;
use waterwheel::program::{JobSettings, run_job};
use waterwheel::topics::{End, Next, Reading, SourceOptions, TopicConfig, TopicsUrl};

const ROWS: usize = 600;

#[test]
fn calls_wait_side_by_side_and_every_result_is_committed_once() {
    let folder = tempfile::tempdir().expect("made");
    let url: TopicsUrl = format!("local:{}", folder.path().join("topics").display()).parse().expect("a URL");
    let topics = url.open(&Env::real()).expect("opens");
    topics.create("in", &TopicConfig::partitions(2)).expect("made");
    let name: Arc<str> = "in".into();
    let mut batch = RawBatch::default();
    for i in 0..ROWS {
        batch.push_parts(&name, (i % 2) as i32, -1, i as i64, None, Some(i.to_string().as_bytes()), &[]);
    }
    topics.produce(&batch).expect("written");
    let settings = JobSettings::at(url, folder.path().join("checkpoints")).until_end();
    let start = Instant::now();
    let ran = run_job("calls", &settings, |job| {
        let options = AsyncOptions::unordered().capacity(100).retries(2, millis(1));
        job.topic("in")
            .string()
            .map_async(options, |row| async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok(format!("{row}!"))
            })
            .id("ask")
            .to_topic("out");
        Ok(())
    });
    ran.unwrap_or_else(|e| panic!("{}", e.report()));
    assert!(start.elapsed() < Duration::from_millis(20 * ROWS as u64 / 2), "calls were made one after the other");
    let source = topics.source(SourceOptions::new("out").end(End::Latest)).expect("a source");
    let (env, mut got) = (Env::real(), Vec::new());
    let mut reader = Reading::open(&*source, &env).expect("opens");
    loop {
        match reader.next(Duration::from_secs(5)).expect("read") {
            Next::Records(batch) => got.extend(batch.records().map(|r| String::from_utf8_lossy(r.value.expect("a value")).into_owned())),
            Next::End => break,
            Next::Nothing | Next::Waiting(_) => {}
        }
    }
    assert_eq!(got.len(), ROWS);
    assert_eq!(got.into_iter().collect::<BTreeSet<_>>(), (0..ROWS).map(|i| format!("\"{i}!\"")).collect());
}
