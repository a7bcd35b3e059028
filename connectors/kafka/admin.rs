//! Topics by command: create, list, describe, delete, grow, produce.
//!
//! Invariant: every call ends within its deadline; what it says has happened, the broker has confirmed.

use super::book::{BookPartitioner, OVERHEAD, TopicBook};
use super::client::{self, ASK, Events, coded, lift};
use super::config::{KafkaConfig, Role};
use super::describe::describe;
use super::offsets::bounds;
use super::send;
use super::sink::KafkaSink;
use super::source::KafkaSource;
use crate::staging::Placement;
use crate::topics::{PartitionInfo, SinkOptions, SourceOptions, TopicConfig, TopicInfo, Topics, check_topic_name, no_such_topic};
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication, TopicResult};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaResult;
use rdkafka::producer::Producer as _;
use rdkafka::types::RDKafkaErrorCode as Code;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;
use waterwheel_engine::env::Env;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::{Sink, Source, SplitId};
use waterwheel_engine::record::{Batch, RawBatch};

/// How long records may take to be delivered.
const DELIVERY: Duration = Duration::from_secs(60);

/// The topics of a Kafka cluster.
pub struct KafkaTopics {
    env: Env,
    config: KafkaConfig,
}

impl KafkaTopics {
    /// Topics at these servers, with client properties by librdkafka's names. Connects to nothing yet.
    ///
    /// # Errors
    /// Fatal: a property that is refused, with the reason.
    pub fn new(env: Env, servers: &[String], options: &BTreeMap<String, String>) -> Result<Self> {
        let config = KafkaConfig::new(servers.iter().cloned());
        let config = options.iter().try_fold(config, |config, (name, value)| config.property(name, value))?;
        Ok(KafkaTopics { env, config })
    }

    /// Raises the number of partitions of a topic. Records of a key written before stay where they are: the order per key
    /// ends here.
    ///
    /// # Errors
    /// Fatal when there is no such topic, or it has as many already.
    pub fn add_partitions(&self, topic: &str, partitions: u32) -> Result<()> {
        let admin = admin_of(&self.config, topic)?;
        let grown = block_on(admin.create_partitions(&[NewPartitions::new(topic, partitions as usize)], &options()));
        self.confirmed(topic, grown, &format!("raising topic {topic} to {partitions} partitions"))?;
        wait_for_leaders(&self.config, &self.env, topic, partitions)
    }

    fn confirmed(&self, topic: &str, outcome: KafkaResult<Vec<TopicResult>>, doing: &str) -> Result<()> {
        confirmed(&self.config, topic, outcome, doing)
    }
}

impl Topics for KafkaTopics {
    fn place(&self) -> String {
        self.config.place()
    }

    fn create(&self, topic: &str, config: &TopicConfig) -> Result<()> {
        create(&self.config, &self.env, topic, config)
    }

    fn list(&self) -> Result<Vec<String>> {
        let client = client::asker(&self.config)?;
        let all = client::metadata(&client, None, "listing topics", &self.place())?;
        let mut names: Vec<String> = all.topics().iter().map(|t| t.name().to_string()).filter(|n| !n.starts_with("__")).collect();
        names.sort();
        Ok(names)
    }

    fn describe(&self, topic: &str) -> Result<TopicInfo> {
        check_topic_name(topic)?;
        let client = client::asker(&self.config)?;
        let described = match describe(&client, &[topic.to_string()], &self.place())?.remove(topic) {
            Some(Ok(described)) => described,
            Some(Err(Code::UnknownTopicOrPartition)) | None => return Err(no_such_topic(topic, &self.place())),
            Some(Err(code)) => return Err(coded(code, &format!("describing topic {topic}"), &self.place())),
        };
        let settings = super::book::settings(&self.config, topic);
        let partitions = (0..described.partitions as i32).map(|partition| {
            let (start, end) = bounds(&client, &SplitId { name: topic.into(), partition }, &self.place())?;
            Ok(PartitionInfo { start, end })
        });
        Ok(TopicInfo {
            name: topic.into(),
            id: described.id.unwrap_or_default(),
            partitions: partitions.collect::<Result<_>>()?,
            compacted: settings.compacted,
            max_record_bytes: settings.limit.saturating_sub(OVERHEAD),
        })
    }

    fn delete(&self, topic: &str) -> Result<()> {
        check_topic_name(topic)?;
        let gone = block_on(admin_of(&self.config, topic)?.delete_topics(&[topic], &options()));
        self.confirmed(topic, gone, &format!("deleting topic {topic}"))
    }

    fn produce(&self, records: &RawBatch) -> Result<()> {
        let book = TopicBook::new(self.env.clone(), self.config.clone());
        let mut placement = Placement::new(Box::new(BookPartitioner(book)));
        let producer = send::producer(&self.config, &self.config.producer(&[("linger.ms", "5")]))?;
        let clock = &self.env.clock;
        let mut deadline = clock.monotonic() + DELIVERY;
        for record in records.records() {
            let partition = placement.place(&record)?;
            let failed = |e: &rdkafka::error::KafkaError| lift(e, &format!("writing to {}/{partition}", record.topic), &self.place());
            while !send::send(&producer, &record, partition).map_err(|e| failed(&e))? {
                send::wait(&producer);
                if clock.monotonic() >= deadline {
                    return Err(Error::transient("the broker takes no records").at(self.place()));
                }
            }
            deadline = clock.monotonic() + DELIVERY;
        }
        while !send::settled(&producer) {
            send::wait(&producer);
            if clock.monotonic() >= deadline {
                return Err(Error::transient("the broker takes no records").at(self.place()));
            }
        }
        let counts = producer.client().context();
        match counts.failed() {
            Some((code, partition)) => Err(coded(code, &format!("writing to {partition}"), &self.place())),
            None if counts.delivered() == records.len() as u64 => Ok(()),
            None => Err(Error::restart(format!("{} of {} records were delivered", counts.delivered(), records.len())).at(self.place())),
        }
    }

    fn source(&self, options: SourceOptions) -> Result<Arc<dyn Source>> {
        Ok(Arc::new(KafkaSource::new(self.config.clone(), options)?))
    }

    fn sink(&self, options: SinkOptions) -> Result<Arc<dyn Sink>> {
        Ok(Arc::new(KafkaSink::new(self.env.clone(), self.config.clone(), options)?))
    }
}

/// Makes a topic and waits until its partitions can be written to.
pub(super) fn create(config: &KafkaConfig, env: &Env, topic: &str, made: &TopicConfig) -> Result<()> {
    check_topic_name(topic)?;
    let partitions = i32::try_from(made.partitions).ok().filter(|p| *p > 0);
    let partitions = partitions.ok_or_else(|| Error::fatal(format!("topic {topic} cannot have {} partitions", made.partitions)))?;
    let limit = made.max_record_bytes.map(|bytes| bytes.saturating_add(OVERHEAD).to_string());
    // -1: as many replicas as the cluster makes by default.
    let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
    if made.compacted {
        new = new.set("cleanup.policy", "compact");
    }
    if let Some(limit) = &limit {
        new = new.set("max.message.bytes", limit);
    }
    for (name, value) in &made.settings {
        new = new.set(name, value);
    }
    let outcome = block_on(admin_of(config, topic)?.create_topics([&new], &options()));
    confirmed(config, topic, outcome, &format!("creating topic {topic}"))?;
    wait_for_leaders(config, env, topic, made.partitions)
}

fn confirmed(config: &KafkaConfig, topic: &str, outcome: KafkaResult<Vec<TopicResult>>, doing: &str) -> Result<()> {
    let place = config.place();
    match outcome.map_err(|e| lift(&e, doing, &place))?.into_iter().next() {
        Some(Ok(_)) => Ok(()),
        Some(Err((_, Code::UnknownTopicOrPartition))) => Err(no_such_topic(topic, &place)),
        Some(Err((_, Code::TopicAlreadyExists))) => Err(Error::fatal(format!("topic {topic} exists already")).at(place)),
        Some(Err((_, code))) => Err(coded(code, doing, &place)),
        None => Err(Error::restart(format!("{doing}: the broker gave no answer")).at(place)),
    }
}

/// A new partition is announced before its leader is chosen.
fn wait_for_leaders(config: &KafkaConfig, env: &Env, topic: &str, partitions: u32) -> Result<()> {
    let client = client::asker(config)?;
    let deadline = env.clock.monotonic() + Duration::from_secs(30);
    loop {
        let led = client.fetch_metadata(Some(topic), ASK).map_err(|e| lift(&e, &format!("looking at topic {topic}"), &config.place()))?;
        let led = led.topics().iter().flat_map(|t| t.partitions()).filter(|p| p.leader() >= 0).count();
        if led >= partitions as usize {
            return Ok(());
        }
        if env.clock.monotonic() >= deadline {
            return Err(Error::transient(format!("{led} of {partitions} partitions of {topic} have a leader")).at(config.place()));
        }
        let _ = client.poll(Duration::from_millis(50));
    }
}

/// A client for administration.
pub(super) fn admin(config: &KafkaConfig) -> Result<AdminClient<Events>> {
    config.client(Role::Any, &[]).create_with_context(Events::default()).map_err(|e| client::refused(config, &e))
}

/// As [`admin`], once the cluster has answered a question about the topic: an admin client hears of no reason why it does not.
fn admin_of(config: &KafkaConfig, topic: &str) -> Result<AdminClient<Events>> {
    describe(&client::asker(config)?, &[topic.to_string()], &config.place())?;
    admin(config)
}

/// The broker's own time limit included, no request lasts longer than this.
pub(super) fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ASK * 3)).operation_timeout(Some(ASK * 2))
}

/// Waits for a future of librdkafka's, which answers by a thread of its own and within the request's time limit.
pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
