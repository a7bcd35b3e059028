//! The Kafka source: which partitions there are, and where a new job begins in them.
//!
//! Invariant: a partition once seen keeps its `Split` for as long as the source lives; a topic whose identity changes under
//! a running job is an error, never a new split of the old name.

use super::client::{self, Client, coded};
use super::config::KafkaConfig;
use super::describe::{Description, describe};
use super::{offsets, reader::KafkaReader};
use crate::topics::{End, SourceOptions, Start, TopicNames, no_such_topic, topic_replaced};
use rdkafka::types::RDKafkaErrorCode as Code;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::{ReaderContext, Source, SourceReader, Split, SplitId};

/// A broker that has just started may deny a topic for a moment; only this many denials, a second apart, are believed.
const DENIALS: usize = 4;

pub(super) struct KafkaSource {
    config: KafkaConfig,
    options: SourceOptions,
    seen: Mutex<BTreeMap<SplitId, Split>>,
    /// Kept, because a checkpoint asks every time.
    asker: Mutex<Option<Arc<Client>>>,
}

impl KafkaSource {
    pub(super) fn new(config: KafkaConfig, options: SourceOptions) -> Result<Self> {
        options.check()?;
        Ok(KafkaSource { config, options, seen: Mutex::default(), asker: Mutex::default() })
    }

    fn asker(&self) -> Result<Arc<Client>> {
        let mut kept = self.asker.lock().unwrap_or_else(PoisonError::into_inner);
        let client = match kept.take() {
            Some(client) => client,
            None => Arc::new(client::asker(&self.config)?),
        };
        client::tidy(&client);
        *kept = Some(client.clone());
        Ok(client)
    }

    /// The topics meant, that exist now.
    fn topics(&self, client: &Client) -> Result<Vec<String>> {
        match &self.options.topics {
            TopicNames::Named(names) => Ok(names.clone()),
            TopicNames::Pattern(_) => {
                let all = client::metadata(client, None, "listing topics", &self.config.place())?;
                let names = all.topics().iter().map(|t| t.name().to_string());
                Ok(names.filter(|n| !n.starts_with("__") && self.options.topics.contains(n)).collect())
            }
        }
    }
}

impl Source for KafkaSource {
    fn describe(&self) -> String {
        format!("kafka {} at {}", self.options.topics, self.config.place())
    }

    fn is_bounded(&self) -> bool {
        self.options.is_bounded()
    }

    fn splits(&self, first: bool) -> Result<Vec<Split>> {
        let client = match &self.options.start {
            Start::GroupOffsets(group) if first => Arc::new(client::create(&self.config, &self.config.consumer(group, &[]))?),
            _ => self.asker()?,
        };
        let topics = self.topics(&client)?;
        if first {
            // A new beginning is resolved anew, also after an attempt that failed half way.
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        let missing = |topic: &str| match self.seen.lock().unwrap_or_else(PoisonError::into_inner).keys().find(|id| *id.name == *topic) {
            Some(id) => topic_replaced(topic, id.partition),
            None => no_such_topic(topic, &self.config.place()),
        };
        let described = described(&client, &topics, &self.config.place(), missing)?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fresh = Vec::new();
        for (topic, found) in &described {
            for partition in 0..found.partitions as i32 {
                let id = SplitId { name: topic.as_str().into(), partition };
                if !seen.contains_key(&id) {
                    fresh.push((id, found.id.clone()));
                }
            }
        }
        seen.values().try_for_each(|split| same(split, described.get(&*split.id.name)))?;
        for split in offsets::resolve(&client, &self.options, first, fresh, &self.config.place())? {
            seen.insert(split.id.clone(), split);
        }
        Ok(seen.values().cloned().collect())
    }

    fn confirm(&self) -> Result<()> {
        let seen: Vec<Split> = self.seen.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let mut topics: Vec<String> = seen.iter().map(|s| s.id.name.to_string()).collect();
        topics.dedup();
        let described = described(&*self.asker()?, &topics, &self.config.place(), |topic| topic_replaced(topic, 0))?;
        seen.iter().try_for_each(|split| same(split, described.get(&*split.id.name)))
    }

    fn discovery_ms(&self) -> Option<u64> {
        if self.options.end == End::Never { self.options.discovery_ms } else { None }
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn SourceReader>> {
        Ok(Box::new(KafkaReader::new(context, self.config.clone(), self.options.clone())))
    }
}

/// Whether a split is still one of the topic that it was found in.
pub(super) fn same(split: &Split, now: Option<&Description>) -> Result<()> {
    let id = &split.id;
    let now = now.filter(|d| id.partition < d.partitions as i32);
    let differs = |d: &Description| split.topic_id.is_some() && d.id.is_some() && split.topic_id != d.id;
    if now.is_none_or(differs) { Err(topic_replaced(&id.name, id.partition)) } else { Ok(()) }
}

/// Describes topics that must exist and be readable.
///
/// # Errors
/// Fatal when one is missing (what `missing` says of it) or closed to us; transient while the broker is away.
pub(super) fn described(
    client: &Client,
    topics: &[String],
    place: &str,
    missing: impl Fn(&str) -> Error,
) -> Result<BTreeMap<String, Description>> {
    let mut denials = 0;
    loop {
        let mut good = BTreeMap::new();
        let mut denied = None;
        for (topic, described) in describe(client, topics, place)? {
            match described {
                Ok(d) if d.rights.is_some_and(|r| !r.read) => {
                    return Err(coded(Code::TopicAuthorizationFailed, &format!("reading topic {topic}"), place));
                }
                Ok(d) => {
                    good.insert(topic, d);
                }
                Err(Code::UnknownTopicOrPartition) => denied = Some(topic),
                Err(code) => return Err(coded(code, &format!("describing topic {topic}"), place)),
            }
        }
        match denied {
            None => return Ok(good),
            Some(topic) => {
                denials += 1;
                if denials >= DENIALS {
                    return Err(missing(&topic));
                }
                let _ = client.poll(Duration::from_secs(1));
            }
        }
    }
}
