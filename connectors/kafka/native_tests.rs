//! The blocks that speak to librdkafka by hand, against the broker that librdkafka itself brings along (no Kafka needed).
//!
//! `script/sanitize` runs them under AddressSanitizer: what is used after it was freed, freed twice or never shows there.
//!
//! Invariant: what is written with rdkafka's own safe calls is what the blocks read.
#![allow(clippy::disallowed_methods, reason = "a broker in this process answers in real time")]

use super::config::KafkaConfig;
use super::describe::describe;
use super::fetch::{Fetched, PartitionQueue, Wake};
use super::{client, config};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList, consumer::Consumer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use waterwheel_engine::error::Kind;
use waterwheel_engine::record::{RawBatch, Timestamps};

const TOPIC: &str = "rows";
const PARTITIONS: i32 = 2;
const RECORDS: usize = 300;
const SOON: Duration = Duration::from_secs(30);

/// A record as it was written, and as it must be read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<u8>,
}

/// Every shape that a record can have: parts absent, empty, short and longer than a buffer of headers that was big enough so far.
fn shape(n: usize) -> (Record, OwnedHeaders) {
    let bytes = |seed: usize| match seed % 4 {
        0 => None,
        1 => Some(Vec::new()),
        2 => Some(vec![n as u8; 1 + n % 7]),
        _ => Some(vec![n as u8; 40 * n]),
    };
    let (mut headers, mut encoded) = (OwnedHeaders::new(), Vec::new());
    for i in 0..n % 4 {
        let (name, value) = (format!("h{i}"), bytes(n / 3 + i));
        RawBatch::encode_header(&mut encoded, &name, value.as_deref());
        headers = headers.insert(Header { key: &name, value: value.as_deref() });
    }
    (Record { timestamp: 1_000 + n as i64, key: bytes(n), value: bytes(n / 4), headers: encoded }, headers)
}

/// A broker inside this process, with the records in it, dealt out over the partitions.
fn cluster() -> (MockCluster<'static, DefaultProducerContext>, KafkaConfig) {
    let cluster = MockCluster::new(1).expect("librdkafka brings a broker along");
    cluster.create_topic(TOPIC, PARTITIONS, 1).expect("a topic");
    let config = KafkaConfig::new([cluster.bootstrap_servers()]);
    let producer: ThreadedProducer<DefaultProducerContext> = config.client(config::Role::Producer, &[]).create().expect("a producer");
    for n in 0..RECORDS {
        let (record, headers) = shape(n);
        let mut base: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(TOPIC).partition(n as i32 % PARTITIONS).timestamp(record.timestamp).headers(headers);
        (base.key, base.payload) = (record.key.as_deref(), record.value.as_deref());
        producer.send(base).map_err(|(e, _)| e).expect("room in the queue");
    }
    producer.flush(SOON).expect("all delivered");
    (cluster, config)
}

#[test]
fn what_was_written_is_fetched_in_batches_of_any_size() {
    let (_cluster, config) = cluster();
    let consumer = Arc::new(client::create(&config, &config.consumer("g", &[])).unwrap());
    let woken = Arc::new(AtomicU32::new(0));
    let wake = |count: &Arc<AtomicU32>| -> Wake {
        let count = count.clone();
        Arc::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        })
    };
    let mut queues: Vec<PartitionQueue> =
        (0..PARTITIONS).map(|p| PartitionQueue::open(&consumer, TOPIC, p, wake(&woken)).expect("a queue")).collect();
    let mut list = TopicPartitionList::new();
    (0..PARTITIONS).for_each(|p| list.add_partition_offset(TOPIC, p, Offset::Beginning).unwrap());
    consumer.assign(&list).unwrap();

    for (partition, queue) in queues.iter_mut().enumerate() {
        let (mut got, mut end, begun, mut limit) = (Vec::new(), None, Instant::now(), 1);
        while end.is_none() && begun.elapsed() < SOON {
            let _ = consumer.poll(Duration::from_millis(1));
            limit = limit % 37 + 5;
            queue.take(limit, |fetched| match fetched {
                Fetched::Record(r) => {
                    assert_eq!(r.offset, got.len() as i64);
                    assert_eq!(r.logged.timestamps, Timestamps::Created);
                    let (key, value) = (r.key.map(<[u8]>::to_vec), r.value.map(<[u8]>::to_vec));
                    got.push(Record { timestamp: r.timestamp, key, value, headers: r.headers.to_vec() });
                }
                Fetched::End(at) => end = Some(at),
                Fetched::Failed(code, why) => panic!("{code:?}: {why}"),
            });
        }
        let written: Vec<Record> = (partition..RECORDS).step_by(PARTITIONS as usize).map(|n| shape(n).0).collect();
        assert_eq!(end, Some(written.len() as i64));
        assert!(got == written, "partition {partition}: other records came than were written");
    }
    assert!(woken.load(Ordering::Relaxed) > 0, "a queue that gets something says so");
}

/// Until 1.9 a restarting broker, or an answer out of order, made librdkafka number records anew, and lose them while it said that they
/// were delivered.
#[test]
fn the_client_is_one_without_the_losses_of_old_versions() {
    let (version, text) = rdkafka::util::get_rdkafka_version();
    assert!(version >= 0x0200_0000, "librdkafka {text}");
}

/// A reader is dropped whenever its job is: with records in the queue, and while librdkafka's threads are calling the waker.
#[test]
fn a_queue_may_be_dropped_at_any_moment() {
    let (_cluster, config) = cluster();
    for round in 0..8_u64 {
        let consumer = Arc::new(client::create(&config, &config.consumer("g", &[])).unwrap());
        let mut queue = PartitionQueue::open(&consumer, TOPIC, 0, Arc::new(|| ())).expect("a queue");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(TOPIC, 0, Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        let until = Instant::now() + Duration::from_millis(round * 3);
        while Instant::now() < until {
            let _ = consumer.poll(Duration::from_millis(1));
        }
        queue.take(round as usize, |_| ());
        if round % 2 == 0 {
            drop(consumer);
        }
    }
    assert!(PartitionQueue::open(&Arc::new(client::asker(&config).unwrap()), "no\0name", 0, Arc::new(|| ())).is_none());
}

/// Kafka's DescribeTopics is more than the broker of librdkafka knows, so here it is asked in vain; what it answers is tested with
/// a real one (`tests/kafka_source.rs`).
#[test]
fn a_question_in_vain_leaves_nothing_behind() {
    let (_cluster, config) = cluster();
    let client = client::asker(&config).unwrap();
    assert_eq!(describe(&client, &[TOPIC.to_string()], "here").unwrap_err().kind(), Kind::Transient);
    assert!(describe(&client, &[], "here").unwrap().is_empty());
    let refused = describe(&client, &["no\0name".to_string()], "here").unwrap_err().report();
    assert!(refused.contains("zero byte"), "{refused}");
}
