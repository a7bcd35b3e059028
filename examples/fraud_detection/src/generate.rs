//! Writes a scenario into topics, through the same door that jobs use.
//!
//! Invariant: every topic the job reads or writes exists afterwards, large enough for what comes, and holds nothing else.

use crate::limits::Setting;
use crate::model::{Rule, thousands};
use crate::scenario::Scenario;
use crate::truth::{ACTIVITY, ALERTS, BAD_RULES, CUSTOMERS, DEAD_LETTERS, LATE, PAYMENTS, RULES, TRUTH};
use serde::Serialize;
use std::sync::Arc;
use waterwheel::engine::record::{Batch, RawBatch};
use waterwheel::topics::{TopicConfig, Topics, TopicsUrl};
use waterwheel::{Error, Result};

/// Room for the largest record of all.
const LARGEST: u64 = 12_000_000;
/// Records and bytes written in one go.
const BATCH: (usize, usize) = (5_000, 4_000_000);

/// Where and how topics are made.
pub struct Target<'a> {
    /// The place.
    pub topics: &'a dyn Topics,
    /// Partitions of each topic but the small ones.
    pub partitions: u32,
    /// The place deletes old records by itself unless told not to; the scenario's times are long past.
    pub retention: bool,
}

impl<'a> Target<'a> {
    /// Topics at a URL, opened before.
    pub fn new(topics: &'a dyn Topics, url: &TopicsUrl, partitions: u32) -> Self {
        Target { topics, partitions, retention: matches!(url, TopicsUrl::Kafka { .. }) }
    }

    fn create(&self, topic: &str, partitions: u32, compacted: bool, large: bool) -> Result<()> {
        let mut config = TopicConfig::partitions(partitions);
        config.compacted = compacted;
        config.max_record_bytes = large.then_some(LARGEST);
        if self.retention && !compacted {
            config.settings.insert("retention.ms".into(), "-1".into());
        }
        self.topics.create(topic, &config)
    }

    fn create_all(&self) -> Result<()> {
        let there = self.topics.list()?;
        let all = [PAYMENTS, CUSTOMERS, RULES, BAD_RULES, ALERTS, ACTIVITY, DEAD_LETTERS, LATE, TRUTH];
        if let Some(taken) = all.into_iter().find(|t| there.iter().any(|name| name == t)) {
            return Err(Error::fatal(format!("topic {taken} is there already"))
                .at(self.topics.place())
                .help("a scenario needs topics of its own: name another place")
                .help(format!("or remove it:  waterwheel topic delete {taken} --topics {}", self.topics.place())));
        }
        self.create(PAYMENTS, self.partitions, false, true)?;
        self.create(CUSTOMERS, self.partitions, true, false)?;
        self.create(RULES, 1, true, false)?;
        self.create(BAD_RULES, 1, false, false)?;
        self.create(ALERTS, self.partitions, false, false)?;
        self.create(ACTIVITY, self.partitions, true, false)?;
        self.create(DEAD_LETTERS, self.partitions, false, true)?;
        self.create(LATE, self.partitions, false, false)?;
        self.create(TRUTH, 1, false, false)
    }
}

/// Makes the topics and writes everything. What was written, for a person.
///
/// # Errors
/// Topics that are there already, a scenario that cannot be exact, and those of the place.
pub fn generate(target: &Target<'_>, scenario: &Scenario) -> Result<String> {
    let (truth, records) = scenario.play()?;
    target.create_all()?;
    let mut customers = Writer::new(target.topics, CUSTOMERS);
    for customer in scenario.customers() {
        customers.json(Some(&customer.account), &customer, scenario.start.timestamp_millis())?;
    }
    let accounts = customers.finish()?;
    let mut planted = Writer::new(target.topics, TRUTH);
    for item in &truth {
        planted.json(None, item, scenario.start.timestamp_millis())?;
    }
    planted.finish()?;
    let mut payments = Writer::new(target.topics, PAYMENTS);
    for record in records {
        // Without a key the place would deal records out as it likes; here they take turns.
        let turn = if record.key.is_some() { -1 } else { (payments.written % u64::from(target.partitions)) as i32 };
        payments.record(turn, record.key.as_deref(), &record.value, record.timestamp)?;
    }
    let written = payments.finish()?;
    let frauds: u64 = scenario.frauds.iter().sum();
    Ok(format!(
        "{} payments of {} customers, {} of event time; planted: {} frauds, {} duplicates, {} late and {} broken records",
        thousands(written),
        thousands(accounts),
        waterwheel::engine::observe::human_duration(std::time::Duration::from_secs(scenario.payments / scenario.per_second)),
        thousands(frauds),
        thousands(scenario.duplicates),
        thousands(scenario.late),
        thousands(scenario.broken),
    ))
}

/// Writes the setting of a rule, or takes it back: what the rule is by default.
///
/// # Errors
/// Of the place.
pub fn set_rule(topics: &dyn Topics, rule: Rule, setting: Option<&Setting>, now_ms: i64) -> Result<()> {
    let mut rules = Writer::new(topics, RULES);
    let value = setting.map(serde_json::to_vec).transpose().map_err(|e| Error::fatal("cannot be written as JSON").because(e))?;
    rules.batch.push_parts(&rules.topic, -1, -1, now_ms, Some(rule.to_string().as_bytes()), value.as_deref(), &[]);
    rules.flush()
}

/// Collects records and writes them in batches.
struct Writer<'a> {
    topics: &'a dyn Topics,
    topic: Arc<str>,
    batch: RawBatch,
    written: u64,
}

impl<'a> Writer<'a> {
    fn new(topics: &'a dyn Topics, topic: &str) -> Self {
        Writer { topics, topic: topic.into(), batch: RawBatch::default(), written: 0 }
    }

    fn json<T: Serialize>(&mut self, key: Option<&str>, value: &T, timestamp: i64) -> Result<()> {
        let value = serde_json::to_vec(value).map_err(|e| Error::fatal("cannot be written as JSON").because(e))?;
        self.record(-1, key, &value, timestamp)
    }

    fn record(&mut self, partition: i32, key: Option<&str>, value: &[u8], timestamp: i64) -> Result<()> {
        self.batch.push_parts(&self.topic, partition, -1, timestamp, key.map(str::as_bytes), Some(value), &[]);
        self.written += 1;
        if self.batch.len() >= BATCH.0 || self.batch.data_len() >= BATCH.1 { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.topics.produce(&std::mem::take(&mut self.batch))
    }

    fn finish(mut self) -> Result<u64> {
        if !self.batch.is_empty() {
            self.flush()?;
        }
        Ok(self.written)
    }
}
