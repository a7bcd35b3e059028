//! The Kafka sink: stage, then publish in lanes (exactly once); or write at once (at least once).
//!
//! Invariant: what a writer accepts, the topic takes: partition, size and timestamp are checked on the way in, because an
//! epoch that cannot be published would block the job for ever.

use super::book::{BookPartitioner, TopicBook, TopicPage};
use super::config::KafkaConfig;
use super::publisher::KafkaLane;
use super::send;
use super::writer::DirectWriter;
use crate::staging::{Placement, StagingWriter};
use crate::topics::{SinkOptions, TopicConfig};
use rdkafka::types::RDKafkaErrorCode as Code;
use std::sync::Arc;
use waterwheel_engine::env::Env;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::{Guarantee, LanePublisher, PublisherContext, SegmentRef, Sink, SinkWriter, WriterContext};
use waterwheel_engine::record::{BatchBox, Epoch, RawBatch};

/// Further than this into the future a record may get while it waits for its checkpoint.
const CLOCK_SLACK_MS: i64 = 60_000;

pub(super) struct KafkaSink {
    config: KafkaConfig,
    options: SinkOptions,
    book: Arc<TopicBook>,
    env: Env,
}

impl KafkaSink {
    pub(super) fn new(env: Env, config: KafkaConfig, options: SinkOptions) -> Result<Self> {
        options.check()?;
        Ok(KafkaSink { book: TopicBook::new(env.clone(), config.clone()), config, options, env })
    }

    fn partitioner(&self) -> Box<BookPartitioner> {
        Box::new(BookPartitioner(self.book.clone()))
    }
}

impl Sink for KafkaSink {
    fn describe(&self) -> String {
        format!("kafka {} at {}", self.options.topic, self.config.place())
    }

    fn guarantee(&self) -> Guarantee {
        self.options.guarantee
    }

    fn lanes(&self) -> u32 {
        if self.options.guarantee == Guarantee::ExactlyOnce { self.options.lanes } else { 0 }
    }

    fn check(&self) -> Result<()> {
        let topic = &self.options.topic;
        let page = match (self.book.refresh(topic), self.options.create_partitions) {
            (Err(e), Some(partitions)) if e.to_string().ends_with("does not exist") => {
                let SinkOptions { compacted, max_record_bytes, .. } = self.options;
                let made = TopicConfig { compacted, max_record_bytes, ..TopicConfig::partitions(partitions) };
                super::admin::create(&self.config, &self.env, topic, &made)?;
                self.book.refresh(topic)?
            }
            (page, _) => page?,
        };
        if page.partitions == 0 {
            return Err(Error::transient(format!("topic {topic} has no partition with a leader")).at(self.config.place()));
        }
        if self.lanes() > 0 && !page.readable {
            let e =
                super::client::coded(Code::TopicAuthorizationFailed, &format!("keeping the marker on topic {topic}"), &self.config.place());
            return Err(e.help("exactly-once output needs READ on the topics it writes"));
        }
        if !page.log_append_time && page.retention_ms >= 0 && !page.compacted {
            tracing::warn!(
                "topic {topic} keeps records for {} by their own timestamps: output older than that is deleted soon after it is \
                 written (message.timestamp.type=LogAppendTime or retention.ms=-1 keep it)",
                waterwheel_engine::observe::human_duration(std::time::Duration::from_millis(page.retention_ms as u64))
            );
        }
        Ok(())
    }

    fn writer(&self, context: WriterContext) -> Result<Box<dyn SinkWriter>> {
        let clocked = Clocked { book: self.book.clone(), env: self.env.clone() };
        if self.options.guarantee == Guarantee::ExactlyOnce {
            let staging = StagingWriter::new(context, self.options.lanes, self.partitioner())?;
            return Ok(Box::new(CheckedStaging { staging, clocked }));
        }
        let producer = send::producer(&self.config, &self.config.producer(&[("linger.ms", "1")]))?;
        Ok(Box::new(DirectWriter::new(self.config.place(), producer, Placement::new(self.partitioner()), clocked)))
    }

    fn lane(&self, context: PublisherContext) -> Result<Box<dyn LanePublisher>> {
        Ok(Box::new(KafkaLane::new(self.book.clone(), context, self.options.topic.clone())?))
    }
}

/// Checks timestamps against what the topics take.
pub(super) struct Clocked {
    book: Arc<TopicBook>,
    env: Env,
}

impl Clocked {
    /// # Errors
    /// Fatal: a record that the broker would refuse for its time.
    pub(super) fn check(&self, batch: &RawBatch) -> Result<()> {
        let wall = self.env.clock.wall_ms();
        let mut known: Option<(Arc<str>, TopicPage)> = None;
        for record in batch.records() {
            let page = match &known {
                Some((topic, page)) if Arc::ptr_eq(topic, record.topic) => page,
                _ => &known.insert((record.topic.clone(), self.book.page(record.topic)?)).1,
            };
            let written = send::timestamp(record.timestamp);
            if page.log_append_time || written < 0 {
                continue;
            }
            let (ahead, behind) = (written.saturating_sub(wall), wall.saturating_sub(written));
            if ahead > page.future_ms || behind.saturating_add(CLOCK_SLACK_MS) > page.past_ms {
                return Err(Error::fatal(format!(
                    "a record for topic {} has the timestamp {written} ms, which it does not take",
                    record.topic
                ))
                .at(format!(
                    "its message.timestamp.after.max.ms is {}, its message.timestamp.before.max.ms {}",
                    page.future_ms, page.past_ms
                ))
                .help("drop rows of impossible times before the sink, or raise these settings of the topic"));
            }
        }
        Ok(())
    }
}

/// Staging, with timestamps checked.
struct CheckedStaging {
    staging: StagingWriter,
    clocked: Clocked,
}

impl SinkWriter for CheckedStaging {
    fn ready(&mut self) -> Result<bool> {
        self.staging.ready()
    }

    fn write(&mut self, batch: BatchBox) -> Result<()> {
        if let Some(raw) = batch.as_any().downcast_ref::<RawBatch>() {
            self.clocked.check(raw)?;
        }
        self.staging.write(batch)
    }

    fn prepare(&mut self, epoch: Epoch) -> Result<()> {
        self.staging.prepare(epoch)
    }

    fn prepared(&mut self) -> Result<Option<Vec<SegmentRef>>> {
        self.staging.prepared()
    }
}
