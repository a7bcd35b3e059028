//! What a job says about the topics it reads and writes, the same for every kind of place.
//!
//! Invariant: the defaults are the safe ones: from the earliest record, fail on lost offsets, exactly once.

use std::collections::BTreeMap;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::Guarantee;

/// Which topics a source reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicNames {
    /// Exactly these.
    Named(Vec<String>),
    /// All whose name fits, also those made later: `*` stands for any text, `?` for one character.
    Pattern(String),
}

impl TopicNames {
    /// A name, or a pattern when it holds `*` or `?`; several by comma.
    ///
    /// ```
    /// use waterwheel_connectors::topics::TopicNames;
    /// assert!(TopicNames::parse("payments-*").contains("payments-eu"));
    /// assert!(TopicNames::parse("a,b").contains("b"));
    /// ```
    pub fn parse(text: &str) -> Self {
        if text.contains(['*', '?']) {
            return TopicNames::Pattern(text.into());
        }
        TopicNames::Named(text.split(',').map(|t| t.trim().to_string()).filter(|t| !t.is_empty()).collect())
    }

    /// Whether a topic is meant.
    pub fn contains(&self, topic: &str) -> bool {
        match self {
            TopicNames::Named(names) => names.iter().any(|n| n == topic),
            TopicNames::Pattern(pattern) => fits(pattern.as_bytes(), topic.as_bytes()),
        }
    }
}

impl std::fmt::Display for TopicNames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TopicNames::Named(names) => f.write_str(&names.join(",")),
            TopicNames::Pattern(pattern) => f.write_str(pattern),
        }
    }
}

/// Glob match in O(pattern * name): on a mismatch the last `*` takes one more character.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    n = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

/// Where a new job begins to read. A checkpoint overrules it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Start {
    /// The oldest record.
    #[default]
    Earliest,
    /// What comes after the start.
    Latest,
    /// The first record with this timestamp (milliseconds) or a later one, per partition.
    Timestamp(i64),
    /// Where this consumer group has committed; partitions without a commit fail the start.
    GroupOffsets(String),
    /// These offsets by (topic, partition); all other partitions from the oldest record.
    Offsets(BTreeMap<(String, i32), i64>),
}

/// Where a source ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum End {
    /// Never.
    #[default]
    Never,
    /// What is there when the job is first started.
    Latest,
    /// Before these offsets by (topic, partition); all other partitions at what is there at the first start.
    Offsets(BTreeMap<(String, i32), i64>),
}

/// What to do when the position to read from is gone (retention).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnLostOffsets {
    /// Stop with an error that names the gap.
    #[default]
    Fail,
    /// Go on at the oldest record and accept the gap.
    Earliest,
    /// Go on at the end and accept the gap.
    Latest,
}

/// How to read topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceOptions {
    /// Which.
    pub topics: TopicNames,
    /// Where a new job begins.
    pub start: Start,
    /// Where the source ends.
    pub end: End,
    /// Read as a table: the end offsets of the first start are recorded in `Split::bootstrap_end`.
    pub table: bool,
    /// When the position is gone.
    pub on_lost_offsets: OnLostOffsets,
    /// How often to look for new partitions and topics, in milliseconds; `None` = never.
    pub discovery_ms: Option<u64>,
    /// Consumer group whose offsets follow the checkpoints, for lag tools only.
    pub group: Option<String>,
}

impl SourceOptions {
    /// Reads these topics (see [`TopicNames::parse`]), all else by default.
    pub fn new(topics: &str) -> Self {
        SourceOptions {
            topics: TopicNames::parse(topics),
            start: Start::Earliest,
            end: End::Never,
            table: false,
            on_lost_offsets: OnLostOffsets::Fail,
            discovery_ms: Some(30_000),
            group: None,
        }
    }

    /// Begins there.
    #[must_use]
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Ends there.
    #[must_use]
    pub fn end(mut self, end: End) -> Self {
        self.end = end;
        self
    }

    /// Refuses what contradicts itself; both kinds of place call it.
    ///
    /// # Errors
    /// Fatal, with the contradiction.
    pub fn check(&self) -> Result<()> {
        match &self.topics {
            TopicNames::Named(names) if names.is_empty() => return Err(Error::fatal("a source names no topic")),
            TopicNames::Named(names) => names.iter().try_for_each(|name| super::check_topic_name(name))?,
            TopicNames::Pattern(_) => {}
        }
        if self.end != End::Never && self.start == Start::Latest {
            return Err(Error::fatal(format!("source {}: from latest to a fixed end there is nothing to read", self.topics))
                .help("begin at earliest, or leave the end open"));
        }
        Ok(())
    }

    /// Whether the source ends by itself.
    pub fn is_bounded(&self) -> bool {
        self.end != End::Never
    }
}

/// How to write to a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkOptions {
    /// The topic; records may name others.
    pub topic: String,
    /// `ExactlyOnce` or `AtLeastOnce`.
    pub guarantee: Guarantee,
    /// Publish lanes of an exactly-once sink, fixed when the job is created.
    pub lanes: u32,
    /// Make the topic with so many partitions when it is missing; `None` = a missing topic is an error.
    pub create_partitions: Option<u32>,
    /// Make it compacted.
    pub compacted: bool,
    /// Make it for records of up to so many bytes; `None` = what is usual there.
    pub max_record_bytes: Option<u64>,
}

impl SinkOptions {
    /// Exactly once into this topic, which must exist.
    pub fn new(topic: &str) -> Self {
        SinkOptions {
            topic: topic.into(),
            guarantee: Guarantee::ExactlyOnce,
            lanes: 2,
            create_partitions: None,
            compacted: false,
            max_record_bytes: None,
        }
    }

    /// Makes the topic when it is missing.
    #[must_use]
    pub fn create(mut self, partitions: u32) -> Self {
        self.create_partitions = Some(partitions);
        self
    }

    /// Promises less or more.
    #[must_use]
    pub fn guarantee(mut self, guarantee: Guarantee) -> Self {
        self.guarantee = guarantee;
        self
    }

    /// Refuses what cannot work; both kinds of place call it.
    ///
    /// # Errors
    /// Fatal, with the reason.
    pub fn check(&self) -> Result<()> {
        super::check_topic_name(&self.topic)?;
        match self.guarantee {
            Guarantee::ExactlyOnce if self.lanes == 0 => Err(Error::fatal("an exactly-once sink needs a lane").help("lanes: 1 or more")),
            Guarantee::ExactlyOnce | Guarantee::AtLeastOnce => Ok(()),
            other => Err(Error::fatal(format!("a topic sink cannot promise {other:?}")).help("choose exactly-once or at-least-once")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("payments-*", "payments-eu", true),
            ("payments-*", "payments", false),
            ("*", "x", true),
            ("*.eu", "a.b.eu", true),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "a1c2b", false),
            ("t?", "t1", true),
            ("t?", "t", false),
        ] {
            assert_eq!(TopicNames::Pattern(pattern.into()).contains(name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(SourceOptions::new("").check().is_err());
        assert!(SourceOptions::new("a").start(Start::Latest).end(End::Latest).check().is_err());
        assert!(SourceOptions::new("a/b").check().is_err());
        assert!(SourceOptions::new("a,b-*").check().is_ok());
        assert!(SinkOptions::new("a").guarantee(Guarantee::None).check().is_err());
        assert!(SinkOptions::new("a").check().is_ok());
    }
}
