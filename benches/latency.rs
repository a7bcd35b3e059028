//! How long is a record under way, from its append to Kafka to a read_committed reader behind the job?
//!
//! A thousand records a second for half a minute, open loop: each record carries the time at which it was due, so a stall
//! counts for every record that should have come in meanwhile. Once at-least-once, once exactly-once with a checkpoint each
//! 200 ms. Broker, job, sender and reader share this machine.
#![expect(clippy::disallowed_methods, reason = "a bench is no part of a job: it keeps its own time")]

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use std::sync::Arc;
use std::time::{Duration, Instant};
use waterwheel::connectors::kafka::KafkaTopics;
use waterwheel::engine::env::Env;
use waterwheel::engine::error::Result;
use waterwheel::engine::graph::PhysicalPlan;
use waterwheel::engine::operators::Guarantee;
use waterwheel::prelude::*;
use waterwheel::topics::Topics;
use waterwheel_benches::job::{Place, Running};
use waterwheel_benches::kafka;
use waterwheel_benches::meter::{Target, figure, percentile};

const PER_SECOND: u64 = 1000;
/// Not counted: connections are made, caches fill.
const WARM_UP: u64 = 5 * PER_SECOND;
const RECORDS: u64 = 30 * PER_SECOND;

#[derive(Clone, Serialize, Deserialize)]
struct Ping {
    /// Its number; due `n` milliseconds after the start.
    n: u64,
}

fn client() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka::broker());
    config
}

/// Sends every record when it is due.
fn send(topic: &str, start: Instant) {
    let producer: BaseProducer = client().set("linger.ms", "0").set("acks", "1").create().expect("client settings");
    for n in 0..WARM_UP + RECORDS {
        let due = start + Duration::from_micros(n * 1_000_000 / PER_SECOND);
        while let Some(early) = due.checked_duration_since(Instant::now()) {
            producer.poll(early.min(Duration::from_millis(1)));
        }
        let value = format!("{{\"n\":{n}}}");
        producer.send(BaseRecord::<(), str>::to(topic).payload(&value)).expect("the queue has room");
    }
    producer.flush(Duration::from_secs(30)).expect("the broker takes the records");
}

/// Reads every committed record; how long each was under way.
fn read(topic: &str, start: Instant) -> Vec<Duration> {
    let consumer: BaseConsumer = client()
        .set("group.id", "waterwheel-latency")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("fetch.wait.max.ms", "20")
        .set("fetch.queue.backoff.ms", "1")
        .create()
        .expect("client settings");
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, 0, Offset::Beginning).expect("a valid offset");
    consumer.assign(&assignment).expect("a valid assignment");
    let (mut under_way, mut seen) = (Vec::new(), 0);
    let deadline = start + Duration::from_secs(120);
    while seen < WARM_UP + RECORDS {
        assert!(Instant::now() < deadline, "only {seen} records came out");
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message.expect("the topic is readable");
        let text = std::str::from_utf8(message.payload().unwrap_or_default()).unwrap_or_default();
        let n: u64 = text.trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("a record of this bench");
        seen += 1;
        if n >= WARM_UP {
            under_way.push(start.elapsed().saturating_sub(Duration::from_micros(n * 1_000_000 / PER_SECOND)));
        }
    }
    under_way
}

fn run(topics: &Arc<dyn Topics>, guarantee: Guarantee, interval: Duration) -> Vec<Duration> {
    let (from, to) = (kafka::new_topic("pings", 1), kafka::new_topic("pongs", 1));
    let mut place = Place::default();
    place.settings.checkpoint.interval = interval;
    let (topics, job_from, job_to) = (topics.clone(), from.clone(), to.clone());
    let plan = move || -> Result<PhysicalPlan> {
        let job = Job::new("latency", topics.clone());
        let sink = job.topic(&job_from).json::<Ping>().to_topic(&job_to).must_exist();
        let _ = if guarantee == Guarantee::AtLeastOnce { sink.at_least_once() } else { sink };
        job.plan()
    };
    let job = Running::start(place.runner(plan));
    job.until("the first checkpoint", || job.runner().status().get().checkpoint.is_some());
    let start = Instant::now();
    let reader = std::thread::spawn(move || read(&to, start));
    send(&from, start);
    let under_way = reader.join().expect("every record comes out");
    job.stop();
    under_way
}

fn main() {
    let topics = KafkaTopics::new(Env::real(), &[kafka::broker().to_string()], &Default::default()).expect("no special properties");
    let topics: Arc<dyn Topics> = Arc::new(topics);
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    let modes = [("at-least-once", Guarantee::AtLeastOnce, 1000, 20.0), ("exactly-once", Guarantee::ExactlyOnce, 200, 400.0)];
    for (name, guarantee, interval_ms, target) in modes {
        let mut under_way = run(&topics, guarantee, Duration::from_millis(interval_ms));
        figure(&format!("latency: {name}, p50"), ms(percentile(&mut under_way, 0.5)), "ms", Target::None);
        figure(&format!("latency: {name}, p99"), ms(percentile(&mut under_way, 0.99)), "ms", Target::Below(target));
        figure(&format!("latency: {name}, longest"), ms(percentile(&mut under_way, 1.0)), "ms", Target::None);
    }
}
