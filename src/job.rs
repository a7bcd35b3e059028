//! The job of a program: the engine's [`Job`](waterwheel_engine::dsl::Job) plus the place where its topics are.
//!
//! Invariant: the same description makes the same graph wherever the topics are; only the sources and sinks differ.

use crate::topic::Topic;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;
use waterwheel_connectors::topics::{OnLostOffsets, SinkOptions, Topics};
use waterwheel_engine::dsl;
use waterwheel_engine::error::Result;
use waterwheel_engine::graph::{Explain, PhysicalPlan, TopicRequest, TopicSinks};
use waterwheel_engine::operators::Sink;

/// A job whose topics are at one place. Everything of the engine's [`dsl::Job`] is there too.
pub struct Job {
    job: dsl::Job,
    topics: Arc<dyn Topics>,
    on_lost_offsets: OnLostOffsets,
    until_end: bool,
    #[cfg(feature = "sql")]
    pub(crate) sql: crate::sql::JobSql,
}

impl Deref for Job {
    type Target = dsl::Job;
    fn deref(&self) -> &dsl::Job {
        &self.job
    }
}

impl Job {
    /// An empty job. State, markers and metrics are filed under the name: choose one that stays.
    pub fn new(name: impl Into<String>, topics: Arc<dyn Topics>) -> Self {
        Job {
            job: dsl::Job::new(name),
            topics,
            on_lost_offsets: OnLostOffsets::Fail,
            until_end: false,
            #[cfg(feature = "sql")]
            sql: Default::default(),
        }
    }

    /// What sources do that do not say it themselves, when the position to read from is gone.
    #[must_use]
    pub fn on_lost_offsets(mut self, what: OnLostOffsets) -> Self {
        self.on_lost_offsets = what;
        self
    }

    /// Sources without an end of their own end at what is there when the job is first started.
    #[must_use]
    pub(crate) fn until_end(mut self, until_end: bool) -> Self {
        self.until_end = until_end;
        self
    }

    /// Whether [`until_end`](Self::until_end) was asked for; for sources that do not come through [`topics`](Self::topics).
    #[cfg(feature = "sql")]
    pub(crate) fn is_until_end(&self) -> bool {
        self.until_end
    }

    /// Reads a topic, several (`"a,b"`) or all that fit a pattern (`"payments-*"`): say how with the methods of [`Topic`].
    pub fn topic(&self, names: &str) -> Topic<'_> {
        Topic::new(&self.job, self.topics.clone(), names).on_lost_offsets(self.on_lost_offsets)
    }

    /// Where the topics are.
    pub fn topics(&self) -> &Arc<dyn Topics> {
        &self.topics
    }

    /// The plan that the runtime runs.
    ///
    /// # Errors
    /// What is wrong with the description: see [`waterwheel_engine::graph::plan`].
    pub fn plan(&self) -> Result<PhysicalPlan> {
        self.job.plan_with(&Connected(&*self.topics))
    }

    /// What the job will do, cost and promise. `checkpoint_interval` is the latency price of exactly-once output.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub fn explain(&self, checkpoint_interval: Duration) -> Result<Explain> {
        self.job.explain_with(&Connected(&*self.topics), checkpoint_interval)
    }
}

/// Topics by name become sinks at the job's place.
struct Connected<'a>(&'a dyn Topics);

impl TopicSinks for Connected<'_> {
    fn sink(&self, request: &TopicRequest) -> Result<Arc<dyn Sink>> {
        let options = SinkOptions::new(&request.topic).guarantee(request.guarantee);
        let &TopicRequest { create_partitions, compacted, max_record_bytes, .. } = request;
        self.0.sink(SinkOptions { create_partitions, compacted, max_record_bytes, ..options })
    }
}
