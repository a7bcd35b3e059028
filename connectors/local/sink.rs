//! The sink of the embedded log: staged and published in lanes (exactly once), or appended at once (at least once).
//!
//! Invariant: `check` is the only place that makes the topic; writers refuse a topic that is not there.

use super::appender::{end_offset, facts};
use super::direct::DirectWriter;
use super::publisher::LocalPublisher;
use super::view::View;
use super::{LocalTopics, Place};
use crate::staging::{Partitioner, StagingWriter, TopicFacts};
use crate::topics::{SinkOptions, TopicConfig, Topics, no_such_topic};
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::{Guarantee, LanePublisher, PublisherContext, Sink, SinkWriter, WriterContext};

/// Writes to topics of the embedded log.
pub(super) struct LocalSink {
    place: Place,
    options: SinkOptions,
}

impl LocalSink {
    pub(super) fn new(place: Place, options: SinkOptions) -> Self {
        LocalSink { place, options }
    }
}

impl Sink for LocalSink {
    fn describe(&self) -> String {
        format!("{} in {}", self.options.topic, self.place.url())
    }

    fn guarantee(&self) -> Guarantee {
        self.options.guarantee
    }

    fn lanes(&self) -> u32 {
        if self.options.guarantee == Guarantee::ExactlyOnce { self.options.lanes } else { 0 }
    }

    fn check(&self) -> Result<()> {
        let topics = LocalTopics::new(self.place.env.clone(), self.place.root.clone());
        let topic = &self.options.topic;
        let exists = || Ok::<_, Error>(topics.list()?.contains(topic));
        if exists()? {
            return Ok(());
        }
        let partitions = self.options.create_partitions.ok_or_else(|| no_such_topic(topic, &self.place.url()))?;
        let SinkOptions { compacted, max_record_bytes, .. } = self.options;
        let config = TopicConfig { compacted, max_record_bytes, ..TopicConfig::partitions(partitions) };
        match topics.create(topic, &config) {
            // Another process was faster.
            Err(_) if exists()? => Ok(()),
            result => result,
        }
    }

    fn writer(&self, context: WriterContext) -> Result<Box<dyn SinkWriter>> {
        if self.lanes() == 0 {
            return Ok(Box::new(DirectWriter::open(context, &self.place)?));
        }
        let view = View::open(self.place.history())?;
        let partitioner = ViewFacts { view, place: self.place.url() };
        Ok(Box::new(StagingWriter::new(context, self.options.lanes, Box::new(partitioner))?))
    }

    fn lane(&self, context: PublisherContext) -> Result<Box<dyn LanePublisher>> {
        Ok(Box::new(LocalPublisher::new(self.place.clone(), context)))
    }
}

/// Facts from the newest state, without ever waiting for the disk to sync.
struct ViewFacts {
    view: View,
    place: String,
}

impl Partitioner for ViewFacts {
    fn topic(&mut self, topic: &str) -> Result<TopicFacts> {
        self.view.look()?;
        facts(self.view.book(), topic, &self.place)
    }

    fn end_offset(&mut self, topic: &str, partition: i32) -> Result<i64> {
        end_offset(self.view.book(), topic, partition, &self.place)
    }
}
