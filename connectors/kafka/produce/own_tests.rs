//! The own producer against the broker that librdkafka brings along, which knows transactions as far as their requests go (what it
//! promises about them is tested with a real one, `tests/kafka_lane.rs`).
//!
//! Invariant: what the own producer wrote is what librdkafka's consumer reads.
#![allow(clippy::disallowed_methods, reason = "a broker in this process answers in real time")]

use super::super::client;
use super::super::config::KafkaConfig;
use super::super::marker::MarkerStore;
use super::super::send::timestamp;
use super::{Own, Transactions, Trouble};
use rdkafka::message::{Headers, Message};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey as Api, RDKafkaErrorCode as Code, RDKafkaRespErr as Wrong};
use rdkafka::{Offset, TopicPartitionList, consumer::Consumer};
use std::sync::Arc;
use std::time::{Duration, Instant};
use waterwheel_engine::env::Env;
use waterwheel_engine::operators::LaneMarker;
use waterwheel_engine::record::RawBatch;

const TOPIC: &str = "rows";
const PARTITIONS: i32 = 3;
const SOON: Duration = Duration::from_secs(30);

/// Timestamp, key, value, headers.
type Plain = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<u8>);

fn cluster() -> (MockCluster<'static, DefaultProducerContext>, KafkaConfig) {
    let cluster = MockCluster::new(2).expect("librdkafka brings a broker along");
    cluster.create_topic(TOPIC, PARTITIONS, 1).expect("a topic");
    let config = KafkaConfig::new([cluster.bootstrap_servers()]);
    (cluster, config)
}

/// A producer whose batches hold a few records.
fn producer(config: &KafkaConfig) -> Own {
    let store = Arc::new(MarkerStore::new(config, "job/out/0".into(), TOPIC.into()).unwrap());
    Own::new(config, store, Env::real(), "job/out/0".into(), 2_000, Duration::from_secs(60))
}

fn fenced(config: &KafkaConfig) -> Own {
    let mut producer = producer(config);
    producer.fence(SOON).unwrap();
    producer
}

fn deadline() -> Duration {
    Env::real().clock.monotonic() + SOON
}

fn marker(epoch: u64) -> LaneMarker {
    LaneMarker { lineage: "line".into(), epoch, parent: None }
}

/// Records of every shape, dealt out over the partitions.
fn rows(from: usize, count: usize) -> RawBatch {
    let (topic, mut batch) = (TOPIC.into(), RawBatch::default());
    for n in from..from + count {
        let bytes = |seed: usize| [None, Some(vec![]), Some(vec![n as u8; 30]), Some(vec![n as u8; 900])][seed % 4].clone();
        let mut headers = Vec::new();
        (0..n % 3).for_each(|i| RawBatch::encode_header(&mut headers, &format!("h{i}"), bytes(n / 2 + i).as_deref()));
        let (key, value) = (bytes(n), bytes(n / 4));
        batch.push_parts(&topic, n as i32 % PARTITIONS, -1, n as i64, key.as_deref(), value.as_deref(), &headers);
    }
    batch
}

fn publish(producer: &mut Own, epoch: u64, batch: &RawBatch) -> Result<u64, Trouble> {
    producer.begin().expect("begun");
    producer.send(batch, deadline())?;
    let delivered = producer.delivered(deadline())?;
    producer.mark(&marker(epoch), deadline())?;
    producer.commit(deadline()).map_err(|code| Trouble::Refused(code, "the commit".into()))?;
    Ok(delivered)
}

/// All of a partition, with librdkafka.
fn read(config: &KafkaConfig, partition: i32, count: usize) -> Vec<Plain> {
    let consumer = client::create(config, &config.consumer("g", &[])).unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(TOPIC, partition, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let (mut out, begun) = (Vec::new(), Instant::now());
    while out.len() < count && begun.elapsed() < SOON {
        let Some(Ok(m)) = consumer.poll(Duration::from_millis(50)) else { continue };
        assert_eq!(m.offset(), out.len() as i64);
        let mut headers = Vec::new();
        for header in m.headers().into_iter().flat_map(|h| (0..h.count()).map(move |i| h.get(i))) {
            RawBatch::encode_header(&mut headers, header.key, header.value);
        }
        out.push((m.timestamp().to_millis().unwrap_or(-1), m.key().map(<[u8]>::to_vec), m.payload().map(<[u8]>::to_vec), headers));
    }
    out
}

fn expected(batches: &[RawBatch], partition: i32) -> Vec<Plain> {
    let all = batches.iter().flat_map(RawBatch::records).filter(|r| r.partition == partition);
    all.map(|r| (timestamp(r.timestamp), r.key.map(<[u8]>::to_vec), r.value.map(<[u8]>::to_vec), r.header_bytes().to_vec())).collect()
}

fn assert_written(config: &KafkaConfig, batches: &[RawBatch]) {
    for partition in 0..PARTITIONS {
        let expected = expected(batches, partition);
        assert!(read(config, partition, expected.len()) == expected, "partition {partition}: other records came than were written");
    }
}

#[test]
fn what_is_published_is_what_librdkafka_reads() {
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let (_cluster, config) = cluster();
        let config = config.property("compression.type", codec).unwrap();
        let mut producer = fenced(&config);
        let batches = [rows(0, 300), rows(300, 5), rows(305, 0), rows(305, 100)];
        for (epoch, batch) in batches.iter().enumerate() {
            assert_eq!(publish(&mut producer, epoch as u64, batch).unwrap(), batch.records().len() as u64, "{codec}");
            assert!(!producer.is_troubled());
        }
        assert_written(&config, &batches);
    }
}

#[test]
fn what_passes_is_waited_for() {
    let (cluster, config) = cluster();
    let busy = [Wrong::RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS, Wrong::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS];
    let elsewhere = [Wrong::RD_KAFKA_RESP_ERR_NOT_COORDINATOR, Wrong::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE];
    for api in [Api::InitProducerId, Api::AddPartitionsToTxn, Api::AddOffsetsToTxn, Api::TxnOffsetCommit, Api::EndTxn] {
        cluster.request_errors(api, &[busy, elsewhere].concat());
    }
    cluster.request_errors(Api::FindCoordinator, &elsewhere[1..]);
    let mut producer = fenced(&config);
    let batch = rows(0, 50);
    assert_eq!(publish(&mut producer, 1, &batch).unwrap(), 50);
    assert_written(&config, &[batch]);
}

#[test]
fn a_refusal_ends_the_transaction_and_says_whose_it_is() {
    let (cluster, config) = cluster();
    for (api, wrong, code) in [
        (Api::Produce, Wrong::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, Code::NotLeaderForPartition),
        (Api::Produce, Wrong::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, Code::MessageSizeTooLarge),
        // The topic is there, so this broker is only late.
        (Api::Produce, Wrong::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, Code::NotLeaderForPartition),
        (Api::Produce, Wrong::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, Code::InvalidProducerEpoch),
        (Api::AddPartitionsToTxn, Wrong::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, Code::TopicAuthorizationFailed),
        (Api::TxnOffsetCommit, Wrong::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED, Code::GroupAuthorizationFailed),
        (Api::EndTxn, Wrong::RD_KAFKA_RESP_ERR_PRODUCER_FENCED, Code::ProducerFenced),
    ] {
        let mut producer = fenced(&config);
        cluster.request_errors(api, &[wrong]);
        let Err(Trouble::Refused(got, what)) = publish(&mut producer, 1, &rows(0, 9)) else { panic!("{code:?} is lost") };
        assert_eq!(got, code, "{what}");
        assert!(!matches!(api, Api::Produce | Api::AddPartitionsToTxn) || what.starts_with("rows/"), "{what}");
        producer.abandon();
        cluster.clear_request_errors(api);
        // A new one goes on.
        assert_eq!(publish(&mut fenced(&config), 1, &rows(0, 9)).unwrap(), 9, "{code:?}");
    }
    let missing = RawBatch::default();
    assert_eq!(publish(&mut fenced(&config), 2, &missing).unwrap(), 0);
}

#[test]
fn a_broker_that_goes_away_or_is_too_old_is_named_so() {
    let (cluster, config) = cluster();
    let mut writing = fenced(&config);
    assert_eq!(publish(&mut writing, 1, &rows(0, 9)).unwrap(), 9);
    [1, 2].into_iter().for_each(|broker| cluster.broker_down(broker).unwrap());
    let (code, retriable) = producer(&config).fence(Duration::from_millis(300)).unwrap_err();
    assert!(retriable, "{code:?}");
    [1, 2].into_iter().for_each(|broker| cluster.broker_up(broker).unwrap());
    // Its connections are gone, and nothing was on its way.
    assert_eq!(publish(&mut writing, 2, &rows(9, 9)).unwrap(), 9);

    cluster.apiversion(Api::Produce, Some(0), Some(7)).unwrap();
    assert_eq!(producer(&config).fence(SOON).unwrap_err(), (Code::UnsupportedVersion, false));
}

#[test]
fn it_writes_where_a_connection_is_plain_and_all_that_is_set_is_heeded() {
    let fits = |name: &str, value: &str| Own::fits(&KafkaConfig::new(["a:9092"]).property(name, value).unwrap(), "id");
    assert!(fits("producer", "own") && fits("compression.type", "zstd") && fits("fetch.min.bytes", "9") && fits("linger.ms", "9"));
    assert!(!fits("security.protocol", "sasl_plaintext") && !fits("compression.level", "3") && !fits("producer", "librdkafka"));
}
