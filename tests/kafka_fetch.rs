//! The own fetcher reads what Kafka's own consumer reads, however it is written and however little is asked for at once.

use std::time::Duration;

use rdkafka::producer::{BaseProducer, Producer};
use waterwheel::connectors::topics::{SourceOptions, Topics};
use waterwheel::engine::operators::SplitId;

use crate::kafka_source::{Got, Rig, topics_with};
use crate::support::kafka;
use crate::support::kafka::client::{self, NewRecord};

const LIMIT: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 5;

/// Every shape of record, from nothing to three times what is asked of a partition at once.
fn shapes(seed: usize, count: usize) -> impl Iterator<Item = NewRecord> {
    (seed..seed + count).map(|n| {
        let bytes = |n: usize| match n % 5 {
            0 => None,
            1 => Some(Vec::new()),
            4 if n % 97 == 4 => Some(vec![n as u8; 1_500_000]),
            small => Some(format!("{n} ").repeat(small * 20).into_bytes()),
        };
        NewRecord {
            partition: Some(n as i32 % PARTITIONS),
            key: bytes(n / 2),
            value: bytes(n),
            headers: (0..n % 4).map(|h| (format!("h{h}"), bytes(n + h).filter(|b| b.len() < 1000))).collect(),
            timestamp: Some(1_000_000 + n as i64),
        }
    })
}

fn producer(bootstrap: &str, codec: &str, id: Option<&str>) -> BaseProducer {
    let mut config = client::config(bootstrap);
    config.set("compression.type", codec).set("message.max.bytes", "4000000").set("linger.ms", "2");
    if let Some(id) = id {
        config.set("transactional.id", id);
    }
    let producer: BaseProducer = config.create().expect("client settings");
    if id.is_some() {
        producer.init_transactions(LIMIT).expect("init");
    }
    producer
}

/// Fills a topic with everything that can stand in one: all codecs, committed and aborted transactions of two writers at once.
fn fill(bootstrap: &str, topic: &str) {
    for (round, codec) in ["none", "gzip", "snappy", "lz4", "zstd"].into_iter().enumerate() {
        let plain = producer(bootstrap, codec, None);
        let writers = [0, 1].map(|w| producer(bootstrap, codec, Some(&format!("{topic}-{w}"))));
        for turn in 0..4 {
            let seed = round * 10_000 + turn * 1_000;
            client::send(&plain, topic, shapes(seed, 60));
            plain.flush(LIMIT).expect("flushed");
            for (w, writer) in writers.iter().enumerate() {
                writer.begin_transaction().expect("begin");
                client::send(writer, topic, shapes(seed + 100 * (w + 1), 30));
                writer.flush(LIMIT).expect("flushed");
            }
            client::send(&plain, topic, shapes(seed + 500, 20));
            plain.flush(LIMIT).expect("flushed");
            for (w, writer) in writers.iter().enumerate() {
                match (turn + w) % 2 {
                    0 => writer.commit_transaction(LIMIT).expect("commit"),
                    _ => writer.abort_transaction(LIMIT).expect("abort"),
                }
            }
        }
    }
}

fn sorted(got: impl IntoIterator<Item = Got>) -> Vec<Got> {
    let mut got: Vec<Got> = got.into_iter().collect();
    got.sort_by(|a, b| (&a.split, a.offset).cmp(&(&b.split, b.offset)));
    got
}

#[test]
fn the_own_fetcher_reads_what_a_consumer_reads() {
    let bootstrap = kafka::shared();
    for configs in
        [&[("max.message.bytes", "4000000")][..], &[("max.message.bytes", "4000000"), ("message.timestamp.type", "LogAppendTime")]]
    {
        let topic = client::new_topic_with(bootstrap, "all-kinds", PARTITIONS, configs);
        fill(bootstrap, &topic);
        let expected = sorted(client::read_committed_all(bootstrap, &topic).into_iter().map(|r| Got {
            split: format!("{topic}/{}", r.partition),
            offset: r.offset,
            timestamp: r.timestamp.expect("a time"),
            key: r.key,
            value: r.value,
            headers: r.headers,
        }));
        assert!(expected.len() > 1_500, "{} records", expected.len());
        let kinds: [&[(&str, &str)]; 4] = [
            &[],
            &[("max.partition.fetch.bytes", "1000")],
            &[("fetch.wait.max.ms", "1"), ("max.partition.fetch.bytes", "8000000")],
            &[("fetcher", "librdkafka")],
        ];
        for properties in kinds {
            let source = topics_with(bootstrap, properties).source(SourceOptions::new(&topic)).expect("good options");
            let mut rig = Rig::start(&source);
            rig.until("all", |r| r.got.len() >= expected.len());
            let got = sorted(rig.got.drain(..));
            let differs = got.iter().zip(&expected).position(|(a, b)| a != b);
            assert!(got.len() == expected.len() && differs.is_none(), "{properties:?}: record {differs:?} differs");
        }
    }
}

/// What waits for a task is bounded, and a partition whose queue is full holds nobody up: also not by a request that the
/// broker holds back since the others have nothing.
#[test]
fn a_full_partition_holds_nobody_up() {
    let bootstrap = kafka::shared();
    let topic = client::new_topic(bootstrap, "full", 2);
    let large = |n: usize| NewRecord { partition: Some(0), value: Some(vec![n as u8; 10_000]), ..NewRecord::default() };
    let small = |n: usize| NewRecord { partition: Some(1), value: Some(vec![n as u8]), ..NewRecord::default() };
    client::produce(bootstrap, &topic, (0..1_000).map(large));
    let source = topics_with(bootstrap, &[]).source(SourceOptions::new(&topic)).expect("good options");
    let mut rig = Rig::start(&source);
    rig.until("the first", |r| !r.got.is_empty());
    let held = SplitId { name: topic.as_str().into(), partition: 0 };
    rig.reader.hold_back(&held, true);
    for n in 0..5 {
        let before = rig.got.len();
        client::produce(bootstrap, &topic, [small(n)]);
        rig.until("one of the other partition", |r| r.got.len() > before);
        assert_eq!(rig.got.back().map(|g| g.value.clone()), Some(Some(vec![n as u8])));
    }
    rig.reader.hold_back(&held, false);
    rig.until("all", |r| r.got.len() == 1_005);
    let values: Vec<u8> = rig.got.iter().filter(|g| g.split.ends_with("/0")).map(|g| g.value.as_ref().expect("a value")[0]).collect();
    assert!(values.iter().enumerate().all(|(n, v)| n as u8 == *v), "in order, each once");
}
