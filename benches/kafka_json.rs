//! How many JSON records from Kafka does a CPU-second of this process filter and map?
//!
//! Bids in the envelope of the Nexmark benchmark, 335 bytes each, in a topic of two partitions of a real broker, through
//! serde into typed rows, with a checkpoint each second, into nothing. Once with all columns of a bid, once with the three
//! that the job looks at. The topic is read once before, so that it is in the page cache.

use chrono::SecondsFormat;
use std::sync::Arc;
use std::time::Duration;
use waterwheel::connectors::kafka::KafkaTopics;
use waterwheel::engine::env::Env;
use waterwheel::engine::error::Result;
use waterwheel::engine::graph::PhysicalPlan;
use waterwheel::engine::record::{Data, RawBatch};
use waterwheel::prelude::*;
use waterwheel::topics::Topics;
use waterwheel_benches::job::{Place, Running};
use waterwheel_benches::kafka;
use waterwheel_benches::meter::{Target, figure, millions};

const EVENTS: u64 = 3_000_000;
const PARTITIONS: u64 = 2;
const EVENT_BYTES: usize = 335;

/// All columns.
#[derive(Clone, Serialize, Deserialize)]
struct Event {
    event_type: u8,
    person: Option<()>,
    auction: Option<()>,
    bid: Bid,
}

#[derive(Clone, Serialize, Deserialize)]
struct Bid {
    auction: u64,
    bidder: u64,
    price: u64,
    channel: String,
    url: String,
    #[serde(rename = "dateTime")]
    date_time: String,
    extra: String,
}

/// The columns that the job looks at.
#[derive(Clone, Deserialize)]
struct Projected {
    bid: Price,
}

#[derive(Clone, Deserialize)]
struct Price {
    auction: u64,
    price: u64,
    #[serde(rename = "dateTime")]
    date_time: DateTime<Utc>,
}

fn event(n: u64) -> Vec<u8> {
    let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let at = DateTime::from_timestamp_millis(1_760_000_000_000 + n as i64 / 10).unwrap_or_default();
    let mut event = Event {
        event_type: 2,
        person: None,
        auction: None,
        bid: Bid {
            auction: 1000 + mixed % 100_000,
            bidder: 1000 + mixed % 30_000,
            price: 100 + mixed % 10_000_000,
            channel: ["Google", "Facebook", "Baidu", "Apple"][mixed as usize % 4].into(),
            url: format!("https://www.nexmark.com/item.htm?query=1&channel_id={}", mixed % 1_000_000_000),
            date_time: at.to_rfc3339_opts(SecondsFormat::Millis, true),
            extra: String::new(),
        },
    };
    let json = |event: &Event| serde_json::to_vec(event).expect("an event is JSON");
    let room = EVENT_BYTES.saturating_sub(json(&event).len());
    event.bid.extra = (0..room).map(|i| char::from(b'a' + ((mixed >> (i % 24)) % 26) as u8)).collect();
    json(&event)
}

fn fill(topics: &dyn Topics, topic: &str) -> Result<()> {
    let name: Arc<str> = topic.into();
    for first in (0..EVENTS).step_by(20_000) {
        let mut batch = RawBatch::default();
        for n in first..first + 20_000 {
            batch.push_parts(&name, (n % PARTITIONS) as i32, -1, 1_760_000_000_000, None, Some(&event(n)), &[]);
        }
        topics.produce(&batch)?;
    }
    Ok(())
}

/// One run over the whole topic; events per CPU-second in millions.
fn run<T: Data + serde::de::DeserializeOwned>(
    topics: &Arc<dyn Topics>,
    topic: &str,
    draw: impl Fn(SourceStream<T>) + Send + Sync + 'static,
) -> f64 {
    let mut place = Place::default();
    place.settings.checkpoint.interval = Duration::from_secs(1);
    let (topics, topic) = (topics.clone(), topic.to_string());
    let plan = move || -> Result<PhysicalPlan> {
        let job = Job::new("kafka-json", topics.clone());
        draw(job.topic(&topic).end(End::Latest).json::<T>());
        job.plan()
    };
    let (spent, _) = Running::start(place.runner(plan)).wait();
    millions(EVENTS, spent.cpu)
}

fn all_columns(events: SourceStream<Event>) {
    events.filter(|e| e.bid.price % 10 != 0).map(|e| (e.bid.auction, e.bid.bidder, e.bid.price, e.bid.channel)).to_blackhole();
}

fn projected(events: SourceStream<Projected>) {
    events.filter(|e| e.bid.price % 10 != 0).map(|e| (e.bid.auction, e.bid.price, e.bid.date_time)).to_blackhole();
}

fn main() {
    let topic = kafka::new_topic("bids", PARTITIONS as i32);
    let topics = KafkaTopics::new(Env::real(), &[kafka::broker().to_string()], &Default::default()).expect("no special properties");
    let topics: Arc<dyn Topics> = Arc::new(topics);
    fill(&*topics, &topic).unwrap_or_else(|e| panic!("{}", e.report()));
    run(&topics, &topic, projected);
    let unit = "M events per CPU-second";
    figure("kafka_json: three columns", run(&topics, &topic, projected), unit, Target::AtLeast(0.9));
    figure("kafka_json: all columns", run(&topics, &topic, all_columns), unit, Target::AtLeast(0.9));
}
