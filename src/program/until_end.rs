//! `--until-end`: topics whose sources end at what is there when the job is started so.
//!
//! Invariant: only sources without an end of their own are changed; the ends are kept by the engine (in the job log, then in
//! the checkpoints), so a restart ends at the same records.

use std::sync::Arc;
use waterwheel_connectors::topics::{End, SinkOptions, SourceOptions, TopicConfig, TopicInfo, Topics};
use waterwheel_engine::error::Result;
use waterwheel_engine::operators::{Sink, Source};
use waterwheel_engine::record::RawBatch;

/// The same topics, with an end.
pub(super) struct UntilEnd(pub(super) Arc<dyn Topics>);

impl Topics for UntilEnd {
    fn place(&self) -> String {
        self.0.place()
    }
    fn create(&self, topic: &str, config: &TopicConfig) -> Result<()> {
        self.0.create(topic, config)
    }
    fn list(&self) -> Result<Vec<String>> {
        self.0.list()
    }
    fn describe(&self, topic: &str) -> Result<TopicInfo> {
        self.0.describe(topic)
    }
    fn delete(&self, topic: &str) -> Result<()> {
        self.0.delete(topic)
    }
    fn produce(&self, records: &RawBatch) -> Result<()> {
        self.0.produce(records)
    }
    fn source(&self, mut options: SourceOptions) -> Result<Arc<dyn Source>> {
        if options.end == End::Never {
            options.end = End::Latest;
        }
        self.0.source(options)
    }
    fn sink(&self, options: SinkOptions) -> Result<Arc<dyn Sink>> {
        self.0.sink(options)
    }
}
