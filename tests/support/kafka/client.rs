//! What tests do to topics: create, fill, and read back what a `read_committed` consumer may see.
//!
//! All functions take the broker's `host:port` and panic with the reason when Kafka refuses: a test has no plan B.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

/// How long any single step may take before the test fails.
const LIMIT: Duration = Duration::from_secs(60);

/// One record to be written.
#[derive(Clone, Debug, Default)]
pub(crate) struct NewRecord {
    /// The partition; by Kafka's own (murmur2) partitioner if nothing.
    pub(crate) partition: Option<i32>,
    /// The key; nothing is Kafka's null.
    pub(crate) key: Option<Vec<u8>>,
    /// The value; nothing is Kafka's null, a tombstone.
    pub(crate) value: Option<Vec<u8>>,
    /// Headers in order.
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
    /// `CreateTime` in milliseconds; the time of sending if nothing.
    pub(crate) timestamp: Option<i64>,
}

impl NewRecord {
    /// A record of a key and a value.
    pub(crate) fn new(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Self { key: Some(key.into()), value: Some(value.into()), ..Self::default() }
    }
}

/// One record as it stands in a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Record {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds, whichever clock the topic uses.
    pub(crate) timestamp: Option<i64>,
}

/// Client settings for the broker: the point where tests start their own clients.
pub(crate) fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    config
}

/// Whether the broker answers a metadata request within a second, with itself as a live member.
pub(crate) fn answers(bootstrap: &str) -> bool {
    let mut config = config(bootstrap);
    // Tried while the broker boots: refused connections are no news, and the next try must come soon.
    config.set("log_level", "0").set("reconnect.backoff.ms", "50").set("reconnect.backoff.max.ms", "200");
    let client: BaseConsumer<Silent> = config.create_with_context(Silent).expect("client settings");
    client.fetch_metadata(None, Duration::from_secs(1)).is_ok_and(|metadata| !metadata.brokers().is_empty())
}

/// How many brokers a cluster says that it has.
pub(crate) fn members(bootstrap: &str) -> usize {
    reader(bootstrap, "read_committed").fetch_metadata(None, LIMIT).map_or(0, |metadata| metadata.brokers().len())
}

/// Who leads each partition of a topic; -1 while nobody does.
pub(crate) fn leaders(bootstrap: &str, topic: &str) -> Vec<i32> {
    let metadata = reader(bootstrap, "read_committed").fetch_metadata(Some(topic), LIMIT).expect("the broker answers");
    metadata.topics()[0].partitions().iter().map(|partition| partition.leader()).collect()
}

/// Drops what librdkafka would log.
struct Silent;
impl ClientContext for Silent {
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}
impl rdkafka::consumer::ConsumerContext for Silent {}

/// Creates a topic and waits until its partitions can be written to.
pub(crate) fn create_topic(bootstrap: &str, name: &str, partitions: i32, configs: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> = config(bootstrap).create().expect("client settings");
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    for (key, value) in configs {
        topic = topic.set(key, value);
    }
    let options = AdminOptions::new().operation_timeout(Some(LIMIT)).request_timeout(Some(LIMIT));
    let results = block_on(admin.create_topics([&topic], &options)).expect("the broker answers");
    for result in results {
        result.unwrap_or_else(|(topic, code)| panic!("topic {topic} was not created: {code}"));
    }
    let led = || {
        let metadata = admin.inner().fetch_metadata(Some(name), LIMIT).expect("the broker answers");
        let found = metadata.topics()[0].partitions();
        found.len() == partitions as usize && found.iter().all(|partition| partition.leader() >= 0)
    };
    wait_until(&format!("every partition of {name} to have a leader"), led);
}

/// Creates a topic under a name that no other test has, and returns that name. It starts with `prefix`.
pub(crate) fn new_topic(bootstrap: &str, prefix: &str, partitions: i32) -> String {
    new_topic_with(bootstrap, prefix, partitions, &[])
}

/// As [`new_topic`], with settings.
pub(crate) fn new_topic_with(bootstrap: &str, prefix: &str, partitions: i32, configs: &[(&str, &str)]) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    let name = format!("{prefix}-{now:x}-{:x}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    create_topic(bootstrap, &name, partitions, configs);
    name
}

/// Deletes a topic.
#[allow(dead_code, reason = "for tests that delete and recreate topics")]
pub(crate) fn delete_topic(bootstrap: &str, name: &str) {
    let admin: AdminClient<DefaultClientContext> = config(bootstrap).create().expect("client settings");
    let options = AdminOptions::new().operation_timeout(Some(LIMIT));
    for result in block_on(admin.delete_topics(&[name], &options)).expect("the broker answers") {
        result.unwrap_or_else(|(topic, code)| panic!("topic {topic} was not deleted: {code}"));
    }
}

/// Deletes all consumer groups whose names begin with `prefix`; how many there were.
pub(crate) fn delete_groups(bootstrap: &str, prefix: &str) -> usize {
    let all = reader(bootstrap, "read_committed").fetch_group_list(None, LIMIT).expect("the broker answers");
    let names: Vec<&str> = all.groups().iter().map(|group| group.name()).filter(|name| name.starts_with(prefix)).collect();
    let admin: AdminClient<DefaultClientContext> = config(bootstrap).create().expect("client settings");
    for result in block_on(admin.delete_groups(&names, &AdminOptions::new())).expect("the broker answers") {
        result.unwrap_or_else(|(group, code)| panic!("group {group} was not deleted: {code}"));
    }
    names.len()
}

/// Writes records outside any transaction and waits until the broker has them all, in order per partition.
pub(crate) fn produce(bootstrap: &str, topic: &str, records: impl IntoIterator<Item = NewRecord>) {
    let producer: BaseProducer<Failures> = config(bootstrap)
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "1")
        .create_with_context(Failures::default())
        .expect("client settings");
    send(&producer, topic, records);
    producer.flush(LIMIT).expect("the broker takes the records");
    producer.context().check();
}

/// Hands records to a producer of the caller's (a transactional one, say); the caller flushes or commits.
pub(crate) fn send<C: ProducerContext<DeliveryOpaque = ()> + 'static>(
    producer: &BaseProducer<C>,
    topic: &str,
    records: impl IntoIterator<Item = NewRecord>,
) {
    for record in records {
        let mut out = BaseRecord::<[u8], [u8]>::to(topic);
        out.partition = record.partition;
        out.key = record.key.as_deref();
        out.payload = record.value.as_deref();
        out.timestamp = record.timestamp;
        out.headers = (!record.headers.is_empty()).then(|| {
            record.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: value.as_ref() }))
        });
        let mut waiting = Some(out);
        while let Some(out) = waiting.take() {
            match producer.send(out) {
                Ok(()) => {}
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), out)) => {
                    producer.poll(Duration::from_millis(10));
                    waiting = Some(out);
                }
                Err((error, _)) => panic!("a record for {topic} was refused: {error}"),
            }
        }
        producer.poll(Duration::ZERO);
    }
}

/// Collects the records that were not delivered.
#[derive(Default)]
struct Failures(Mutex<Vec<String>>);

impl Failures {
    fn check(&self) {
        let failures = self.0.lock().expect("no panic while locked");
        assert!(failures.is_empty(), "{} records were not delivered; the first: {}", failures.len(), failures[0]);
    }
}

impl ClientContext for Failures {}
impl ProducerContext for Failures {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.0.lock().expect("no panic while locked").push(error.to_string());
        }
    }
}

/// Reads a whole topic as a `read_committed` consumer sees it: all committed records up to the end that each partition has
/// now, sorted by partition and offset.
///
/// An open transaction hides what follows it, so this waits until the last stable offset has reached that end.
///
/// # Panics
/// If a transaction stays open for a minute.
pub(crate) fn read_committed_all(bootstrap: &str, topic: &str) -> Vec<Record> {
    read_all(bootstrap, topic, "read_committed")
}

/// Reads a whole topic with all that was ever written to it, aborted records included.
pub(crate) fn read_uncommitted_all(bootstrap: &str, topic: &str) -> Vec<Record> {
    read_all(bootstrap, topic, "read_uncommitted")
}

fn read_all(bootstrap: &str, topic: &str, isolation: &str) -> Vec<Record> {
    let consumer = reader(bootstrap, isolation);
    let ends = end_offsets(&reader(bootstrap, "read_uncommitted"), topic);
    wait_until(&format!("open transactions on {topic} to end"), || {
        end_offsets(&consumer, topic).iter().zip(&ends).all(|(stable, end)| stable >= end)
    });
    let mut assignment = TopicPartitionList::new();
    for partition in 0..ends.len() {
        assignment.add_partition_offset(topic, partition as i32, Offset::Beginning).expect("a valid offset");
    }
    consumer.assign(&assignment).expect("a valid assignment");
    let mut records = Vec::new();
    let mut open: Vec<bool> = vec![true; ends.len()];
    let mut deadline = Instant::now() + LIMIT;
    while open.contains(&true) {
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                records.push(record(&message));
                deadline = Instant::now() + LIMIT;
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => open[partition as usize] = false,
            Some(Err(error)) => panic!("reading {topic} failed: {error}"),
            None => assert!(Instant::now() < deadline, "{topic}: no end of partition in {LIMIT:?}"),
        }
    }
    // What came after the ends were taken belongs to a later moment.
    records.retain(|record| record.offset < ends[record.partition as usize]);
    records.sort();
    records
}

fn reader(bootstrap: &str, isolation: &str) -> BaseConsumer {
    config(bootstrap)
        .set("group.id", "waterwheel-tests")
        .set("isolation.level", isolation)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "error")
        .create()
        .expect("client settings")
}

/// The offset after the last record of every partition; of a `read_committed` reader, after the last stable one.
fn end_offsets(consumer: &BaseConsumer, topic: &str) -> Vec<i64> {
    let metadata = consumer.fetch_metadata(Some(topic), LIMIT).expect("the broker answers");
    let found = &metadata.topics()[0];
    assert!(found.error().is_none(), "topic {topic}: {:?}", found.error());
    let ends = (0..found.partitions().len() as i32)
        .map(|partition| consumer.fetch_watermarks(topic, partition, LIMIT).expect("the broker answers").1);
    ends.collect()
}

fn record(message: &impl Message) -> Record {
    let headers =
        message.headers().map(|headers| headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect());
    Record {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
        timestamp: message.timestamp().to_millis(),
    }
}

/// Waits until `holds`, asking twenty times a second.
///
/// # Panics
/// If it does not hold within a minute; `what` names what was waited for.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "waited {LIMIT:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}
