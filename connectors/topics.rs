//! One door to topics, wherever they live: the embedded log (`local:./data`) or Kafka (`kafka://host:9092`).
//!
//! A job names topics; a URL says where they are. Both kinds implement [`Topics`], so that the same job runs on either, and
//! so that `waterwheel topic create|list|describe|produce|consume` are written once.
//!
//! Invariant: nothing outside the two implementations asks which kind it has; a URL shown to people carries no secrets.

mod options;
mod reading;
mod url;

pub use options::{End, OnLostOffsets, SinkOptions, SourceOptions, Start, TopicNames};
pub use reading::{Next, Reading};
pub use url::TopicsUrl;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::{Sink, Source};
use waterwheel_engine::record::RawBatch;

/// Topics at one place. All calls but `source` and `sink` may block for seconds: not for a task's thread.
pub trait Topics: Send + Sync {
    /// The URL to show to people: no secrets.
    fn place(&self) -> String;
    /// Makes a topic.
    ///
    /// # Errors
    /// Fatal when it exists, when the name or a setting is not valid, or without rights.
    fn create(&self, topic: &str, config: &TopicConfig) -> Result<()>;
    /// Names of all topics, sorted; internal ones left out.
    ///
    /// # Errors
    /// Transient while the place is away; fatal when it is damaged or closed to us.
    fn list(&self) -> Result<Vec<String>>;
    /// What is known of a topic.
    ///
    /// # Errors
    /// Fatal when there is no such topic.
    fn describe(&self, topic: &str) -> Result<TopicInfo>;
    /// Removes a topic with all its records.
    ///
    /// # Errors
    /// Fatal when there is no such topic.
    fn delete(&self, topic: &str) -> Result<()>;
    /// Appends records and waits until they are safe; where the partition is -1 the key decides. Not transactional over
    /// several calls.
    ///
    /// # Errors
    /// After an error some of the records may be there.
    fn produce(&self, records: &RawBatch) -> Result<()>;
    /// A source of records as bytes ([`RawBatch`]); looks at nothing before its `splits` is called.
    ///
    /// # Errors
    /// Options that contradict each other.
    fn source(&self, options: SourceOptions) -> Result<Arc<dyn Source>>;
    /// A sink of records as bytes ([`RawBatch`]); looks at nothing before its `check` is called.
    ///
    /// # Errors
    /// Options that contradict each other.
    fn sink(&self, options: SinkOptions) -> Result<Arc<dyn Sink>>;
}

/// How a topic is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicConfig {
    /// Number of partitions, 1 or more.
    pub partitions: u32,
    /// Only the newest record of a key matters. Kafka drops the older ones in time; the embedded log keeps them.
    pub compacted: bool,
    /// Largest record in bytes: key, value and headers. `None` = the place's default (about 1 MB).
    pub max_record_bytes: Option<u64>,
    /// Further settings by Kafka's names (`retention.ms`, ...). The embedded log refuses them.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

impl TopicConfig {
    /// So many partitions, all else by default.
    pub fn partitions(partitions: u32) -> Self {
        TopicConfig { partitions, compacted: false, max_record_bytes: None, settings: BTreeMap::new() }
    }

    /// Marks the topic as compacted.
    #[must_use]
    pub fn compacted(mut self) -> Self {
        self.compacted = true;
        self
    }
}

/// What [`Topics::describe`] tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicInfo {
    /// Name.
    pub name: String,
    /// Identity: another one means deleted and made again.
    pub id: String,
    /// Half-open offset range of each partition.
    pub partitions: Vec<PartitionInfo>,
    /// Compacted.
    pub compacted: bool,
    /// Largest record in bytes.
    pub max_record_bytes: u64,
}

/// The records of a partition: offsets `start..end`, visible ones only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionInfo {
    /// Offset of the oldest record.
    pub start: i64,
    /// Offset that the next visible record will have.
    pub end: i64,
}

/// Refuses names that Kafka would refuse: 1 to 249 of letters, digits, `.`, `_`, `-`; not `.` or `..`.
///
/// # Errors
/// Fatal, with the rule.
///
/// ```
/// assert!(waterwheel_connectors::topics::check_topic_name("payments.dead-letter").is_ok());
/// assert!(waterwheel_connectors::topics::check_topic_name("a/b").is_err());
/// ```
pub fn check_topic_name(name: &str) -> Result<()> {
    let fits = (1..=249).contains(&name.len()) && name != "." && name != "..";
    if fits && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        return Ok(());
    }
    Err(Error::fatal(format!("{name:?} cannot be the name of a topic")).help("use 1 to 249 letters, digits, dots, underscores and dashes"))
}

/// The error for a topic that is not there.
pub(crate) fn no_such_topic(topic: &str, place: &str) -> Error {
    Error::fatal(format!("topic {topic} does not exist"))
        .at(place.to_string())
        .help(format!("create it:  waterwheel topic create {topic} --partitions 4 --topics {place}"))
}

/// The error for a topic that was deleted, or deleted and made again, under a running or stored job.
pub(crate) fn topic_replaced(topic: &str, partition: i32) -> Error {
    Error::fatal(format!("topic {topic} was deleted or made again: the positions of this job no longer mean anything in it"))
        .at(format!("{topic}/{partition}"))
        .help("read the new topic from its beginning, forgetting all state:  run --fresh")
}
