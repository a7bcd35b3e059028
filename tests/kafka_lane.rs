//! A publish lane against a real broker: an epoch is out once, whoever dies, and the marker knows.
//!
//! What can go wrong between a checkpoint and its output, and where it is met:
//!
//! | what | tests |
//! |---|---|
//! | epochs count from 1 again after a fresh start or a savepoint | lineages in `engine/checkpoint/tests/exactly_once.rs`, `savepoint` |
//! | the marker has expired, or its group was deleted | `kill_moments::..forgets_the_markers`, scans here |
//! | the marker is read before the fence, or while a transaction is open | `engine/checkpoint/tests/exactly_once.rs`, `zombie::..in_an_open_transaction` |
//! | another number of tasks after the crash | `kill_kafka`, `kill_moments` |
//! | a frozen process wakes up | `zombie`, `a_zombie_is_shut_out..` here; control `controls::the_fence..` |
//! | killed between commit and the note of it | `kill_moments`; control `controls::the_marker..` |
//! | the transaction outlasts its timeout: process asleep, dead, broker away | `broker_faults` |
//! | the broker dies in produce, marker or commit | `broker_faults::own_broker_is_killed..`, `every_epoch_is_out_once..` here |
//! | a right is missing | `rights` |
//! | other partitions, times or headers in a repetition | `assert_exact` of the fraud job compares them |
//! | a segment or its manifest is lost | `damage` |
//! | a record that the topic never takes | `what_the_topic_would_refuse..`, `an_epoch_that_can_never_be_published..` here |
//! | two lanes share a marker | lanes here have groups of their own, `kill_kafka` has 16 |

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::producer::{BaseProducer, Producer};
use tempfile::TempDir;
use waterwheel::connectors::topics::{SinkOptions, TopicConfig, Topics};
use waterwheel::engine::env::Env;
use waterwheel::engine::error::{Error, Kind};
use waterwheel::engine::operators::{
    Guarantee, LaneMarker, LanePublisher, PublisherContext, ScanOutcome, SegmentRef, Sink, SinkWriter, WriterContext,
};
use waterwheel::engine::record::{Epoch, RawBatch};

use crate::kafka_source::{open_context, topics, topics_with};
use crate::support::kafka::client::{self, Record};
use crate::support::kafka::{self, Broker};

const LIMIT: Duration = Duration::from_secs(90);

/// A sink with one lane, its staging folder, and a job name of its own.
struct Rig {
    sink: Arc<dyn Sink>,
    staging: TempDir,
    job: String,
    topic: String,
}

impl Rig {
    fn new(bootstrap: &str, topic: &str) -> Rig {
        Rig::with(bootstrap, topic, &[])
    }

    fn with(bootstrap: &str, topic: &str, properties: &[(&str, &str)]) -> Rig {
        let sink = topics_with(bootstrap, properties).sink(SinkOptions { lanes: 1, ..SinkOptions::new(topic) }).expect("good options");
        sink.check().unwrap_or_else(|e| panic!("{}", e.report()));
        Rig { sink, staging: tempfile::tempdir().expect("a folder"), job: format!("job-{topic}"), topic: topic.into() }
    }

    fn lane(&self) -> Box<dyn LanePublisher> {
        let context = PublisherContext {
            job: self.job.clone(),
            operator: "out".into(),
            lane: 0,
            staging: self.staging.path().into(),
            env: Env::real(),
        };
        self.sink.lane(context).expect("a lane")
    }

    /// A lane that has fenced all others.
    fn fenced(&self) -> Box<dyn LanePublisher> {
        let mut lane = self.lane();
        retried("fence", || lane.fence());
        lane
    }

    fn stage(&self, epoch: Epoch, records: usize) -> Vec<SegmentRef> {
        self.stage_batch(epoch, rows(&self.topic, epoch, records)).expect("staged")
    }

    fn stage_batch(&self, epoch: Epoch, batch: RawBatch) -> Result<Vec<SegmentRef>, Error> {
        let mut writer = self.sink.writer(writer_context(self.staging.path(), &format!("a{epoch}")))?;
        writer.write(Box::new(batch))?;
        prepared(writer.as_mut(), epoch)
    }

    fn committed(&self, bootstrap: &str) -> Vec<String> {
        texts(&client::read_committed_all(bootstrap, &self.topic))
    }
}

fn writer_context(staging: &Path, attempt: &str) -> WriterContext {
    WriterContext { open: open_context(), staging: staging.into(), attempt: attempt.into(), waker: Arc::new(|| {}) }
}

fn prepared(writer: &mut dyn SinkWriter, epoch: Epoch) -> Result<Vec<SegmentRef>, Error> {
    writer.prepare(epoch)?;
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(segments) = writer.prepared()? {
            return Ok(segments);
        }
        assert!(Instant::now() < deadline, "not prepared in {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn rows(topic: &str, epoch: Epoch, records: usize) -> RawBatch {
    let topic: Arc<str> = topic.into();
    let mut batch = RawBatch::default();
    let mut headers = Vec::new();
    RawBatch::encode_header(&mut headers, "h", Some(b"x"));
    RawBatch::encode_header(&mut headers, "n", None);
    for i in 0..records {
        let key = format!("k{}", i % 7);
        batch.push_parts(&topic, -1, -1, i as i64, Some(key.as_bytes()), Some(format!("{epoch}-{i:04}").as_bytes()), &headers);
    }
    batch
}

/// Values, sorted.
fn texts(records: &[Record]) -> Vec<String> {
    let mut all: Vec<String> = records.iter().map(|r| String::from_utf8(r.value.clone().unwrap_or_default()).expect("text")).collect();
    all.sort();
    all
}

fn expected(epochs: &[(Epoch, usize)]) -> Vec<String> {
    let mut all: Vec<String> = epochs.iter().flat_map(|(e, n)| (0..*n).map(move |i| format!("{e}-{i:04}"))).collect();
    all.sort();
    all
}

fn marker(epoch: Epoch) -> LaneMarker {
    LaneMarker { lineage: "line".into(), epoch, parent: Some(("before".into(), 3)) }
}

/// Tries again while the error is transient, as the engine does.
fn retried<T>(what: &str, mut attempt: impl FnMut() -> Result<T, Error>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(e) => assert!(e.kind() == Kind::Transient && Instant::now() < deadline, "{what}: {}", e.report()),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn records_and_marker_are_out_together() {
    let bootstrap = kafka::shared();
    let rig = Rig::new(bootstrap, &client::new_topic(bootstrap, "lane", 3));
    let mut lane = rig.fenced();
    assert_eq!(lane.marker().expect("read"), None, "a new lane has no marker");
    lane.publish(&marker(0), &[]).expect("the first marker");
    assert_eq!(lane.marker().expect("read"), Some(marker(0)));
    let segments = rig.stage(1, 100);
    assert_eq!(segments.iter().map(|s| s.records).sum::<u64>(), 100);
    lane.publish(&marker(1), &segments).expect("published");
    assert_eq!(lane.marker().expect("read"), Some(marker(1)));
    assert_eq!(rig.committed(bootstrap), expected(&[(1, 100)]));
    // Several epochs in one transaction.
    let both = [rig.stage(2, 10), rig.stage(3, 10)].concat();
    lane.publish(&marker(3), &both).expect("published");
    assert_eq!(lane.marker().expect("read"), Some(marker(3)));
    assert_eq!(rig.committed(bootstrap), expected(&[(1, 100), (2, 10), (3, 10)]));
    // No output: the marker grows all the same.
    lane.publish(&marker(4), &[]).expect("marker only");
    assert_eq!(lane.marker().expect("read"), Some(marker(4)));

    let all = client::read_committed_all(bootstrap, &rig.topic);
    let record = all.iter().find(|r| r.value.as_deref() == Some(b"1-0042")).expect("there");
    assert_eq!((record.key.as_deref(), record.timestamp), (Some(&b"k0"[..]), Some(42)));
    assert_eq!(record.headers, [("h".to_string(), Some(b"x".to_vec())), ("n".to_string(), None)]);
    let zero = all.iter().find(|r| r.value.as_deref() == Some(b"1-0000")).expect("there");
    assert_eq!(zero.timestamp, Some(1), "0 would be read as now, differently each time");
}

#[test]
fn a_zombie_is_shut_out_between_and_inside_transactions() {
    let bootstrap = kafka::shared();
    let rig = Rig::new(bootstrap, &client::new_topic(bootstrap, "zombie", 2));
    let mut old = rig.fenced();
    old.publish(&marker(0), &[]).expect("the first marker");
    let segments = rig.stage(1, 50);
    old.publish(&marker(1), &segments).expect("published");
    let mut new = rig.fenced();
    assert_eq!(new.marker().expect("read"), Some(marker(1)));
    let two = rig.stage(2, 50);
    let refused = old.publish(&marker(2), &two).expect_err("fenced");
    assert_eq!(refused.kind(), Kind::Transient, "{}", refused.report());
    // Without a fence of its own it can do nothing more.
    assert!(old.publish(&marker(2), &two).is_err());
    assert!(old.publish(&marker(2), &[]).is_err(), "a marker alone neither");
    new.publish(&marker(2), &two).expect("published");
    assert_eq!(rig.committed(bootstrap), expected(&[(1, 50), (2, 50)]));
}

#[test]
fn either_producer_fences_the_other_and_goes_on_behind_its_marker() {
    let bootstrap = kafka::shared();
    let topic = client::new_topic(bootstrap, "turns", 3);
    let rigs = ["own", "librdkafka"].map(|producer| Rig::with(bootstrap, &topic, &[("producer", producer)]));
    let mut lane = rigs[0].fenced();
    lane.publish(&marker(0), &[]).expect("the first marker");
    for epoch in 1..=4 {
        let (rig, other) = (&rigs[epoch as usize % 2], &rigs[(epoch as usize + 1) % 2]);
        let mut next = rig.fenced();
        assert_eq!(next.marker().expect("read"), Some(marker(epoch - 1)));
        let refused = lane.publish(&marker(epoch), &other.stage(epoch, 30)).expect_err("fenced");
        assert_eq!(refused.kind(), Kind::Transient, "{}", refused.report());
        next.publish(&marker(epoch), &rig.stage(epoch, 30)).expect("published");
        lane = next;
    }
    assert_eq!(rigs[0].committed(bootstrap), expected(&[(1, 30), (2, 30), (3, 30), (4, 30)]));
}

/// Partitions and batches of every size, packed in every way: each record is where it was put, in its order.
#[test]
fn large_epochs_are_whole_and_in_order_under_every_codec() {
    let bootstrap = kafka::shared();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = client::new_topic(bootstrap, &format!("packed-{codec}"), 3);
        let rig = Rig::with(bootstrap, &topic, &[("compression.type", codec)]);
        let mut lane = rig.fenced();
        lane.publish(&marker(0), &[]).expect("the first marker");
        let name: Arc<str> = topic.as_str().into();
        let mut batch = RawBatch::default();
        for i in 0..3_000_usize {
            let value = format!("{i:05}").repeat(1 + i % 700);
            batch.push_parts(&name, -1, -1, 5, Some(format!("k{}", i % 11).as_bytes()), Some(value.as_bytes()), &[]);
        }
        let segments = rig.stage_batch(1, batch).expect("staged");
        lane.publish(&marker(1), &segments).unwrap_or_else(|e| panic!("{codec}: {}", e.report()));
        let mut last = std::collections::BTreeMap::new();
        let all = client::read_committed_all(bootstrap, &topic);
        for record in &all {
            let value = String::from_utf8(record.value.clone().unwrap_or_default()).expect("text");
            let i: usize = value[..5].parse().expect("a number");
            assert!(value == format!("{i:05}").repeat(1 + i % 700), "{codec}: record {i}");
            assert!(last.insert(record.key.clone(), i).is_none_or(|before| before < i), "{codec}: record {i} is out of its order");
        }
        assert_eq!(all.len(), 3_000, "{codec}");
    }
}

#[test]
fn a_dead_transaction_is_settled_by_the_fence() {
    let bootstrap = kafka::shared();
    let rig = Rig::new(bootstrap, &client::new_topic(bootstrap, "dead", 1));
    let name = format!("{}/out/0", rig.job);
    let dead: BaseProducer = client::config(bootstrap).set("transactional.id", &name).create().expect("client settings");
    dead.init_transactions(LIMIT).expect("init");
    dead.begin_transaction().expect("begin");
    client::send(&dead, &rig.topic, [client::NewRecord::new("k", "half")]);
    dead.flush(LIMIT).expect("flush");
    let mut lane = rig.fenced();
    lane.publish(&marker(1), &rig.stage(1, 10)).expect("published");
    assert_eq!(rig.committed(bootstrap), expected(&[(1, 10)]));
}

#[test]
fn a_scan_tells_present_from_absent() {
    let bootstrap = kafka::shared();
    let rig = Rig::new(bootstrap, &client::new_topic(bootstrap, "scan", 3));
    let mut lane = rig.fenced();
    let one = rig.stage(1, 100);
    lane.publish(&marker(1), &one).expect("published");
    client::produce(bootstrap, &rig.topic, (0..20).map(|i| client::NewRecord::new("k1", format!("other {i}"))));
    let two = rig.stage(2, 100);
    assert_eq!(lane.scan(&one).expect("scanned"), ScanOutcome::Present);
    assert_eq!(lane.scan(&two).expect("scanned"), ScanOutcome::Absent);
    lane.publish(&marker(2), &two).expect("published");
    assert_eq!(lane.scan(&two).expect("scanned"), ScanOutcome::Present);
    assert_eq!(lane.scan(&[one, two].concat()).expect("scanned"), ScanOutcome::Present);
}

#[test]
fn a_scan_whose_range_is_gone_does_not_guess() {
    let bootstrap = kafka::shared();
    let rig = Rig::new(bootstrap, &client::new_topic(bootstrap, "gone", 1));
    let mut lane = rig.fenced();
    let one = rig.stage(1, 10);
    lane.publish(&marker(1), &one).expect("published");
    crate::kafka_source::delete_records(bootstrap, &rig.topic, 5);
    assert_eq!(lane.scan(&one).expect("scanned"), ScanOutcome::Unknown);
}

#[test]
fn what_the_topic_would_refuse_is_refused_at_staging() {
    let bootstrap = kafka::shared();
    let topic = format!("{}-small", client::new_topic(bootstrap, "limit", 1));
    let small = TopicConfig { max_record_bytes: Some(2_000), ..TopicConfig::partitions(1) };
    topics(bootstrap).create(&topic, &small).expect("created");
    let rig = Rig::new(bootstrap, &topic);
    let sized = |bytes: usize, timestamp: i64| {
        let mut batch = RawBatch::default();
        batch.push_parts(&topic.as_str().into(), -1, -1, timestamp, None, Some(&vec![b'x'; bytes]), &[]);
        batch
    };
    let e = rig.stage_batch(1, sized(2_001, 5)).expect_err("too large");
    assert!(e.kind() == Kind::Fatal && e.report().contains("max.message.bytes"), "{}", e.report());
    let e = rig.stage_batch(1, sized(10, i64::MAX / 2)).expect_err("a time far in the future");
    assert!(e.kind() == Kind::Fatal && e.report().contains("message.timestamp.after.max.ms"), "{}", e.report());
    // What passes staging is published, at the limit too, and many of them although a batch may not be larger either.
    let mut many = RawBatch::default();
    for _ in 0..50 {
        many.push(sized(2_000, 5).record(0));
    }
    let mut lane = rig.fenced();
    lane.publish(&marker(1), &rig.stage_batch(1, many).expect("staged")).unwrap_or_else(|e| panic!("{}", e.report()));
    assert_eq!(rig.committed(bootstrap).len(), 50);
}

#[test]
fn an_epoch_that_can_never_be_published_stops_and_keeps_its_segment() {
    let bootstrap = kafka::shared();
    let rig = Rig::new(bootstrap, &client::new_topic(bootstrap, "poison", 2));
    let mut lane = rig.fenced();
    lane.publish(&marker(0), &[]).expect("the first marker");
    let segments = rig.stage(1, 20);
    // The limit is lowered behind the sink's back, below what was staged.
    let kafka = topics(bootstrap);
    kafka.delete(&rig.topic).expect("deleted");
    let tiny = TopicConfig {
        max_record_bytes: Some(1),
        settings: [("max.message.bytes".into(), "60".into())].into(),
        ..TopicConfig::partitions(2)
    };
    client::wait_until("the topic to be made again", || {
        kafka.create(&rig.topic, &TopicConfig { max_record_bytes: None, ..tiny.clone() }).is_ok()
    });
    let mut lane = rig.fenced();
    let e = retried("the poison to be seen", || match lane.publish(&marker(1), &segments) {
        Ok(()) => panic!("published"),
        Err(e) if e.kind() == Kind::Fatal => Ok(e),
        Err(e) => {
            lane.fence()?;
            Err(e)
        }
    });
    assert!(e.report().contains("larger than the topic takes"), "{}", e.report());
    assert!(segments.iter().all(|s| rig.staging.path().join(&s.name).exists()));
    assert_eq!(rig.committed(bootstrap), Vec::<String>::new());
}

#[test]
fn at_least_once_is_out_when_prepared() {
    let bootstrap = kafka::shared();
    let topic = client::new_topic(bootstrap, "direct", 3);
    let sink = topics(bootstrap).sink(SinkOptions::new(&topic).guarantee(Guarantee::AtLeastOnce)).expect("good options");
    sink.check().expect("there");
    assert_eq!(sink.lanes(), 0);
    let staging = tempfile::tempdir().expect("a folder");
    let mut writer = sink.writer(writer_context(staging.path(), "a1")).expect("a writer");
    for epoch in 1..4 {
        writer.write(Box::new(rows(&topic, epoch, 500))).expect("written");
        assert_eq!(prepared(writer.as_mut(), epoch).expect("prepared"), []);
    }
    assert_eq!(texts(&client::read_committed_all(bootstrap, &topic)), expected(&[(1, 500), (2, 500), (3, 500)]));
}

/// Publishes until it is out, as the engine does: after an error fence, and let the marker say what is left to do.
fn publish_surely(rig: &Rig, lane: &mut Box<dyn LanePublisher>, epoch: Epoch, segments: &[SegmentRef]) {
    let mut again = false;
    retried("publishing", || {
        if std::mem::replace(&mut again, true) {
            *lane = rig.lane();
            lane.fence()?;
            if lane.marker()?.is_some_and(|m| m.epoch >= epoch) {
                return Ok(());
            }
        }
        lane.publish(&marker(epoch), segments)
    });
}

#[test]
fn every_epoch_is_out_once_though_its_own_broker_is_killed_while_publishing() {
    let mut broker = Broker::start();
    let bootstrap = broker.bootstrap();
    client::create_topic(&bootstrap, "alerts", 3, &[]);
    let rig = Rig::new(&bootstrap, "alerts");
    let mut lane = rig.fenced();
    lane.publish(&marker(0), &[]).expect("the first marker");
    let mut epochs = Vec::new();
    for round in 0..3_u64 {
        let epoch = round + 1;
        let segments = rig.stage(epoch, 20_000);
        epochs.push((epoch, 20_000));
        std::thread::scope(|scope| {
            let publishing = scope.spawn(|| publish_surely(&rig, &mut lane, epoch, &segments));
            std::thread::sleep(Duration::from_millis(5 + 60 * round));
            broker.kill9();
            broker.restart();
            publishing.join().expect("published");
        });
    }
    assert_eq!(retried("the marker", || lane.marker()), Some(marker(3)));
    assert_eq!(rig.committed(&bootstrap), expected(&epochs));
}

#[test]
fn an_outage_of_its_own_broker_longer_than_the_transaction_timeout_loses_nothing() {
    let broker = Broker::start();
    let bootstrap = broker.bootstrap();
    client::create_topic(&bootstrap, "alerts", 1, &[]);
    let options = [("transaction.timeout.ms".to_string(), "2000".to_string())].into();
    let kafka = waterwheel::connectors::kafka::KafkaTopics::new(Env::real(), std::slice::from_ref(&bootstrap), &options).expect("allowed");
    let sink = kafka.sink(SinkOptions { lanes: 1, ..SinkOptions::new("alerts") }).expect("good options");
    sink.check().expect("there");
    let rig = Rig { sink, staging: tempfile::tempdir().expect("a folder"), job: "job".into(), topic: "alerts".into() };
    let mut lane = rig.fenced();
    lane.publish(&marker(1), &rig.stage(1, 100)).expect("published");
    let segments = rig.stage(2, 5_000);
    broker.sigstop();
    let refused = lane.publish(&marker(2), &segments).expect_err("nobody answers");
    assert_eq!(refused.kind(), Kind::Transient, "{}", refused.report());
    std::thread::sleep(Duration::from_secs(2));
    broker.sigcont();
    publish_surely(&rig, &mut lane, 2, &segments);
    assert_eq!(rig.committed(&bootstrap), expected(&[(1, 100), (2, 5_000)]));
}
