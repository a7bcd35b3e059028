//! What a sink knows of its topics: partition counts, limits, end offsets; asked once, refreshed in the background.
//!
//! Invariant: an end offset kept here was the partition's end at some time before now, so a scan may begin there; it is never
//! newer than what was asked.

use super::admin::{self, block_on};
use super::client::{self, ASK, Client, coded, lift};
use super::config::KafkaConfig;
use super::describe::describe;
use crate::staging::{Partitioner, TopicFacts};
use crate::topics::no_such_topic;
use rdkafka::admin::{ConfigResource, ResourceSpecifier};
use rdkafka::consumer::Consumer;
use rdkafka::types::RDKafkaErrorCode as Code;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use waterwheel_engine::env::Env;
use waterwheel_engine::error::{Error, Result};

/// Room for the headers of a record batch and of the record: `max.message.bytes` bounds the batch, a record alone is one.
pub(super) const OVERHEAD: u64 = 512;
/// Kafka's default of `max.message.bytes`.
const DEFAULT_LIMIT: u64 = 1_048_588;
/// End offsets older than this are asked anew, in the background.
const STALE: Duration = Duration::from_secs(5);

/// One output topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TopicPage {
    pub(super) partitions: u32,
    /// `max.message.bytes`.
    pub(super) limit: u64,
    /// The broker replaces timestamps by its own.
    pub(super) log_append_time: bool,
    /// How far into the future a timestamp may lie, in milliseconds.
    pub(super) future_ms: i64,
    /// How far back a timestamp may lie, in milliseconds.
    pub(super) past_ms: i64,
    /// `retention.ms`; -1 = for ever.
    pub(super) retention_ms: i64,
    pub(super) compacted: bool,
    /// Whether the user may read it; the marker needs that. Taken as given when the broker does not say.
    pub(super) readable: bool,
    ends: Vec<i64>,
}

/// All output topics of a sink; shared by its writers and lanes.
pub(super) struct TopicBook {
    pub(super) config: KafkaConfig,
    env: Env,
    client: Mutex<Option<Arc<Client>>>,
    pages: Mutex<BTreeMap<String, (Duration, TopicPage)>>,
}

impl TopicBook {
    pub(super) fn new(env: Env, config: KafkaConfig) -> Arc<Self> {
        Arc::new(TopicBook { config, env, client: Mutex::default(), pages: Mutex::default() })
    }

    /// The page of a topic, from memory if it is there. Blocks the first time.
    ///
    /// # Errors
    /// No such topic, no rights, or the broker is away.
    pub(super) fn page(&self, topic: &str) -> Result<TopicPage> {
        let known = self.lock().get(topic).map(|(_, page)| page.clone());
        known.map_or_else(|| self.refresh(topic), Ok)
    }

    /// Asks the broker anew.
    ///
    /// # Errors
    /// As [`page`](Self::page).
    pub(super) fn refresh(&self, topic: &str) -> Result<TopicPage> {
        let client = self.client()?;
        client::tidy(&client);
        let place = self.config.place();
        let now = self.env.clock.monotonic();
        let described = describe(&client, &[topic.to_string()], &place)?.remove(topic);
        let described = match described {
            Some(Ok(d)) => d,
            Some(Err(Code::UnknownTopicOrPartition)) | None => return Err(no_such_topic(topic, &place)),
            Some(Err(code)) => return Err(coded(code, &format!("describing topic {topic}"), &place)),
        };
        if described.rights.is_some_and(|r| !r.write) {
            return Err(coded(Code::TopicAuthorizationFailed, &format!("writing to topic {topic}"), &place));
        }
        let mut page = TopicPage {
            partitions: described.partitions,
            readable: described.rights.is_none_or(|r| r.read),
            ..settings(&self.config, topic)
        };
        for partition in 0..page.partitions as i32 {
            let ends = client.fetch_watermarks(topic, partition, ASK);
            page.ends.push(ends.map_err(|e| lift(&e, &format!("asking for the end of {topic}/{partition}"), &place))?.1);
        }
        self.lock().insert(topic.to_string(), (now, page.clone()));
        Ok(page)
    }

    /// The smallest `max.message.bytes` of the topics known; Kafka's default when none is.
    pub(super) fn smallest_limit(&self) -> u64 {
        self.lock().values().map(|(_, page)| page.limit).min().unwrap_or(DEFAULT_LIMIT)
    }

    /// The client that asks. Its ends are the last stable ones: at or before the first record that might be ours.
    fn client(&self) -> Result<Arc<Client>> {
        let mut slot = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_none() {
            *slot = Some(Arc::new(client::asker(&self.config)?));
        }
        Ok(slot.clone().expect("filled above"))
    }

    /// Asks for newer ends in the background when they are stale; the ones at hand stay good meanwhile.
    fn freshen(self: &Arc<Self>, topic: &str) {
        let now = self.env.clock.monotonic();
        let stale = match self.lock().get_mut(topic) {
            Some((asked, _)) if now.saturating_sub(*asked) > STALE => {
                *asked = now;
                true
            }
            _ => false,
        };
        if stale {
            let (book, topic) = (self.clone(), topic.to_string());
            let ask = move || {
                if let Err(e) = book.refresh(&topic) {
                    tracing::debug!("ends of {topic} could not be asked for: {e}");
                }
            };
            self.env.background.run("kafka ends", Box::new(ask));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, (Duration, TopicPage)>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writers' view of the book.
pub(super) struct BookPartitioner(pub(super) Arc<TopicBook>);

impl Partitioner for BookPartitioner {
    fn topic(&mut self, topic: &str) -> Result<TopicFacts> {
        self.0.freshen(topic);
        let page = self.0.page(topic)?;
        Ok(TopicFacts { partitions: page.partitions, max_record_bytes: page.limit.saturating_sub(OVERHEAD) })
    }

    fn end_offset(&mut self, topic: &str, partition: i32) -> Result<i64> {
        let page = self.0.page(topic)?;
        let end = usize::try_from(partition).ok().and_then(|p| page.ends.get(p).copied());
        end.ok_or_else(|| Error::restart(format!("{topic}/{partition} is not known yet")))
    }
}

/// The topic's settings that bound what may be written; defaults where the user may not ask.
pub(super) fn settings(config: &KafkaConfig, topic: &str) -> TopicPage {
    let mut page = TopicPage { limit: DEFAULT_LIMIT, future_ms: i64::MAX, past_ms: i64::MAX, retention_ms: -1, ..TopicPage::default() };
    let asked = || -> Result<ConfigResource> {
        let asked = block_on(admin::admin(config)?.describe_configs(&[ResourceSpecifier::Topic(topic)], &admin::options()));
        let place = config.place();
        let doing = "reading its settings";
        let first = asked.map_err(|e| lift(&e, doing, &place))?.into_iter().next();
        first.ok_or_else(|| Error::restart("no answer"))?.map_err(|code| coded(code, doing, &place))
    };
    let asked = asked();
    let described = match asked {
        Ok(described) => described,
        Err(e) => {
            tracing::warn!("settings of topic {topic} cannot be read ({e}): its record limit is taken as {DEFAULT_LIMIT} bytes");
            return page;
        }
    };
    let value = |name: &str| described.get(name).and_then(|e| e.value.as_deref());
    let number = |name: &str| value(name).and_then(|v| v.parse::<i64>().ok());
    page.limit = number("max.message.bytes").and_then(|n| u64::try_from(n).ok()).unwrap_or(DEFAULT_LIMIT);
    page.log_append_time = value("message.timestamp.type") == Some("LogAppendTime");
    page.future_ms = number("message.timestamp.after.max.ms").unwrap_or(i64::MAX);
    page.past_ms = number("message.timestamp.before.max.ms").unwrap_or(i64::MAX);
    page.retention_ms = number("retention.ms").unwrap_or(-1);
    page.compacted = value("cleanup.policy").is_some_and(|v| v.contains("compact"));
    page
}
