//! What every place of topics must do, checked through the engine's contracts only, the way the runtime calls them.
//!
//! The embedded log runs it with every test run; anything else that implements `Topics` can be handed to [`check`].
//!
//! Invariant: nothing here knows which kind of place it checks.

use crate::topics::{End, Next, Reading, SinkOptions, SourceOptions, Start, TopicConfig, Topics};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use waterwheel_engine::env::Env;
use waterwheel_engine::observe::Metrics;
use waterwheel_engine::operators::{
    ErrorPolicy, Guarantee, LaneMarker, LanePublisher, OpenContext, Poll, PublisherContext, ReaderContext, ScanOutcome, SegmentRef, Sink,
    SinkWriter, Source, SplitId, SplitState, WriterContext,
};
use waterwheel_engine::record::{BatchBox, Epoch, OperatorId, RawBatch};

fn open_context(env: &Env) -> OpenContext {
    OpenContext {
        operator: OperatorId::new("out"),
        index: 0,
        parallelism: 1,
        max_parallelism: 1,
        groups: 0..1,
        policy: ErrorPolicy::Fail,
        env: env.clone(),
        metrics: Metrics::default(),
    }
}

pub(crate) fn reader_context(env: &Env) -> ReaderContext {
    ReaderContext { open: open_context(env), waker: Arc::new(|| {}), batch_rows: 1000 }
}

pub(crate) fn writer_context(env: &Env, staging: &Path, attempt: &str) -> WriterContext {
    WriterContext { open: open_context(env), staging: staging.into(), attempt: attempt.into(), waker: Arc::new(|| {}) }
}

pub(crate) fn publisher_context(env: &Env, staging: &Path, lane: u32) -> PublisherContext {
    PublisherContext { job: "job".into(), operator: "out".into(), lane, staging: staging.into(), env: env.clone() }
}

/// Asks until there is an answer, for ten seconds.
pub(crate) fn eventually<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let clock = Env::real().clock;
    let deadline = clock.monotonic() + Duration::from_secs(10);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(clock.monotonic() < deadline, "no answer in time");
        std::thread::yield_now();
    }
}

/// The splits of a new job.
pub(crate) fn states(source: &dyn Source) -> Vec<SplitState> {
    source.splits(true).unwrap().into_iter().map(SplitState::fresh).collect()
}

/// Every batch of a bounded source; checks that positions follow on and that each split ends once.
pub(crate) fn poll_all(source: &dyn Source, splits: Vec<SplitState>, env: &Env) -> Vec<(SplitId, BatchBox)> {
    let mut reader = source.reader(reader_context(env)).unwrap();
    let mut open: Vec<SplitId> = splits.iter().map(|s| s.split.id.clone()).collect();
    reader.assign(&splits).unwrap();
    let mut batches = Vec::new();
    while !open.is_empty() {
        match eventually(|| match reader.poll().unwrap() {
            Poll::Empty | Poll::Waiting(_) => None,
            poll => Some(poll),
        }) {
            Poll::Batch { split, batch, .. } => {
                assert!(open.contains(&split), "{split} gave a batch after its end");
                batches.push((split, batch));
            }
            Poll::Ended { split } => open.retain(|s| *s != split),
            Poll::Empty | Poll::Waiting(_) => unreachable!("asked again above"),
        }
    }
    batches
}

pub(crate) fn batch(topic: &str, rows: &[(i32, &str)]) -> RawBatch {
    let topic: Arc<str> = topic.into();
    let mut batch = RawBatch::default();
    for (i, (partition, value)) in rows.iter().enumerate() {
        batch.push_parts(&topic, *partition, -1, 1000 + i as i64, None, Some(value.as_bytes()), &[]);
    }
    batch
}

/// Everything in a topic as (partition, offset, value), partition by partition.
pub(crate) fn content(topics: &dyn Topics, env: &Env, options: SourceOptions) -> Vec<(i32, i64, String)> {
    let source = topics.source(options.end(End::Latest)).unwrap();
    let mut rows = Vec::new();
    Reading::open(&*source, env)
        .unwrap()
        .drain(|batch| {
            rows.extend(batch.records().map(|r| (r.partition, r.offset, String::from_utf8_lossy(r.value.unwrap_or(b"-")).into_owned())));
            Ok(())
        })
        .unwrap();
    rows.sort_by_key(|r| r.0);
    assert!(rows.windows(2).all(|w| w[0].0 < w[1].0 || w[0].1 < w[1].1), "offsets out of order: {rows:?}");
    rows
}

/// The values of [`content`] only.
pub(crate) fn values(topics: &dyn Topics, env: &Env, topic: &str) -> Vec<String> {
    content(topics, env, SourceOptions::new(topic)).into_iter().map(|r| r.2).collect()
}

/// Stages one epoch through a sink's writer.
pub(crate) fn stage(writer: &mut dyn SinkWriter, epoch: Epoch, rows: &RawBatch) -> Vec<SegmentRef> {
    eventually(|| writer.ready().unwrap().then_some(()));
    writer.write(Box::new(rows.clone())).unwrap();
    writer.prepare(epoch).unwrap();
    eventually(|| writer.prepared().unwrap())
}

pub(crate) fn marker(epoch: Epoch) -> LaneMarker {
    LaneMarker { lineage: "line".into(), epoch, parent: None }
}

/// A fenced lane of a sink.
pub(crate) fn lane(sink: &dyn Sink, env: &Env, staging: &Path, lane: u32) -> Box<dyn LanePublisher> {
    let mut publisher = sink.lane(publisher_context(env, staging, lane)).unwrap();
    publisher.fence().unwrap();
    publisher
}

/// Runs all checks. Topics named `conformance-*` are made and removed.
pub(crate) fn check(topics: &dyn Topics, env: &Env, staging: &Path) {
    topics_are_made_and_removed(topics);
    a_source_reads_what_was_produced(topics, env);
    a_source_follows(topics, env);
    exactly_once_shows_whole_epochs(topics, env, staging);
    a_zombie_publishes_nothing(topics, env, staging);
    at_least_once_is_there_when_prepared(topics, env, staging);
    a_topic_made_again_is_noticed(topics, env);
}

fn topics_are_made_and_removed(topics: &dyn Topics) {
    let name = "conformance-made";
    topics.create(name, &TopicConfig::partitions(3)).unwrap();
    assert!(topics.create(name, &TopicConfig::partitions(3)).is_err());
    assert!(topics.list().unwrap().contains(&name.to_string()));
    let info = topics.describe(name).unwrap();
    assert_eq!(info.partitions.iter().map(|p| p.end - p.start).collect::<Vec<_>>(), [0, 0, 0]);
    topics.delete(name).unwrap();
    assert!(topics.describe(name).is_err() && topics.delete(name).is_err());
    assert!(topics.create("no/name", &TopicConfig::partitions(1)).is_err());
}

fn a_source_reads_what_was_produced(topics: &dyn Topics, env: &Env) {
    let name = "conformance-read";
    topics.create(name, &TopicConfig::partitions(2)).unwrap();
    let topic: Arc<str> = name.into();
    let mut headers = Vec::new();
    RawBatch::encode_header(&mut headers, "h", Some(b"1"));
    let mut written = RawBatch::default();
    written.push_parts(&topic, 0, -1, 10, Some(b"k"), None, &headers);
    written.push_parts(&topic, 0, -1, 30, None, Some(b""), &[]);
    written.push_parts(&topic, 0, -1, 20, Some(b""), Some(b"v"), &[]);
    topics.produce(&written).unwrap();
    let source = topics.source(SourceOptions::new(name).end(End::Latest)).unwrap();
    let mut rows = Vec::new();
    Reading::open(&*source, env)
        .unwrap()
        .drain(|batch| {
            rows.extend(
                batch
                    .records()
                    .map(|r| (r.offset, r.timestamp, r.key.map(<[u8]>::to_vec), r.value.map(<[u8]>::to_vec), r.headers().count())),
            );
            Ok(())
        })
        .unwrap();
    let expected = [(0, 10, Some(b"k".to_vec()), None, 1), (1, 30, None, Some(vec![]), 0), (2, 20, Some(vec![]), Some(b"v".to_vec()), 0)];
    assert_eq!(rows, expected);
    let from = |start| content(topics, env, SourceOptions::new(name).start(start)).into_iter().map(|r| r.1).collect::<Vec<_>>();
    assert_eq!(from(Start::Timestamp(11)), [1, 2]);
    assert_eq!(from(Start::Timestamp(31)), [0i64; 0]);
    assert_eq!(from(Start::Offsets([((name.to_string(), 0), 2)].into())), [2]);
    let table = SourceOptions { table: true, ..SourceOptions::new(name) };
    assert_eq!(topics.source(table).unwrap().splits(true).unwrap()[0].bootstrap_end, Some(3));
    assert!(topics.source(SourceOptions::new("conformance-absent")).unwrap().splits(true).is_err());
    topics.delete(name).unwrap();
}

fn a_source_follows(topics: &dyn Topics, env: &Env) {
    let name = "conformance-follow";
    topics.create(name, &TopicConfig::partitions(1)).unwrap();
    topics.produce(&batch(name, &[(0, "before")])).unwrap();
    let source = topics.source(SourceOptions::new(name).start(Start::Latest)).unwrap();
    let mut reading = Reading::open(&*source, env).unwrap();
    assert!(matches!(reading.next(Duration::from_millis(20)).unwrap(), Next::Nothing));
    for n in 0..20 {
        let value = format!("v{n}");
        topics.produce(&batch(name, &[(0, &value)])).unwrap();
        let Next::Records(batch) = reading.next(Duration::from_secs(10)).unwrap() else { panic!("nothing came") };
        assert_eq!(batch.record(0).value, Some(value.as_bytes()));
    }
    topics.delete(name).unwrap();
}

fn exactly_once_shows_whole_epochs(topics: &dyn Topics, env: &Env, staging: &Path) {
    let name = "conformance-once";
    let sink = topics.sink(SinkOptions { lanes: 1, ..SinkOptions::new(name).create(2) }).unwrap();
    sink.check().unwrap();
    let mut publisher = lane(&*sink, env, staging, 0);
    assert_eq!(publisher.marker().unwrap(), None);
    publisher.publish(&marker(0), &[]).unwrap();
    let mut writer = sink.writer(writer_context(env, staging, "once")).unwrap();
    let first = stage(&mut *writer, 1, &batch(name, &[(0, "a"), (1, "b"), (0, "c")]));
    let second = stage(&mut *writer, 2, &batch(name, &[(0, "d")]));
    assert!(values(topics, env, name).is_empty(), "staged records are not visible");
    assert_eq!(publisher.scan(&first).unwrap(), ScanOutcome::Absent);
    publisher.publish(&marker(1), &first).unwrap();
    topics.produce(&batch(name, &[(0, "between")])).unwrap();
    publisher.publish(&marker(2), &second).unwrap();
    publisher.publish(&marker(3), &[]).unwrap();
    let mut successor = lane(&*sink, env, staging, 0);
    assert_eq!(successor.marker().unwrap(), Some(marker(3)));
    assert_eq!(successor.scan(&first).unwrap(), ScanOutcome::Present);
    assert_eq!(values(topics, env, name), ["a", "c", "between", "d", "b"]);
    topics.delete(name).unwrap();
}

fn a_zombie_publishes_nothing(topics: &dyn Topics, env: &Env, staging: &Path) {
    let name = "conformance-zombie";
    let sink = topics.sink(SinkOptions { lanes: 1, ..SinkOptions::new(name).create(1) }).unwrap();
    sink.check().unwrap();
    let staging = &staging.join("zombie");
    let mut writer = sink.writer(writer_context(env, staging, "zombie")).unwrap();
    let segments = stage(&mut *writer, 101, &batch(name, &[(0, "a")]));
    let mut zombie = lane(&*sink, env, staging, 0);
    let mut successor = lane(&*sink, env, staging, 0);
    assert!(zombie.publish(&marker(101), &segments).is_err());
    assert!(values(topics, env, name).is_empty());
    successor.publish(&marker(101), &segments).unwrap();
    assert!(zombie.publish(&marker(102), &[]).is_err());
    assert_eq!(successor.marker().unwrap(), Some(marker(101)));
    assert_eq!(values(topics, env, name), ["a"]);
    topics.delete(name).unwrap();
}

fn at_least_once_is_there_when_prepared(topics: &dyn Topics, env: &Env, staging: &Path) {
    let name = "conformance-direct";
    let sink = topics.sink(SinkOptions::new(name).create(1).guarantee(Guarantee::AtLeastOnce)).unwrap();
    sink.check().unwrap();
    assert_eq!(sink.lanes(), 0);
    let mut writer = sink.writer(writer_context(env, staging, "direct")).unwrap();
    let expected: Vec<String> = (0..50).map(|n| format!("v{n}")).collect();
    for value in &expected {
        eventually(|| writer.ready().unwrap().then_some(()));
        writer.write(Box::new(batch(name, &[(0, value)]))).unwrap();
    }
    writer.prepare(1).unwrap();
    assert!(eventually(|| writer.prepared().unwrap()).is_empty());
    assert_eq!(values(topics, env, name), expected);
    topics.delete(name).unwrap();
}

fn a_topic_made_again_is_noticed(topics: &dyn Topics, env: &Env) {
    let name = "conformance-again";
    topics.create(name, &TopicConfig::partitions(1)).unwrap();
    let source = topics.source(SourceOptions::new(name)).unwrap();
    let old = states(&*source);
    topics.delete(name).unwrap();
    topics.create(name, &TopicConfig::partitions(1)).unwrap();
    let mut reader = source.reader(reader_context(env)).unwrap();
    let clock = Env::real().clock;
    let deadline = clock.monotonic() + Duration::from_secs(10);
    let mut outcome = reader.assign(&old);
    while outcome.is_ok() {
        assert!(clock.monotonic() < deadline, "nobody noticed");
        outcome = reader.poll().map(drop);
    }
    topics.delete(name).unwrap();
}
