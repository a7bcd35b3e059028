//! Waterwheel: a dataflow stream-processing engine. Filters, keyed windows, joins and aggregates over topics, exactly once.
//!
//! A job is a function that describes a graph of Rust types:
//!
//! ```
//! use waterwheel::prelude::*;
//!
//! #[derive(Clone, Serialize, Deserialize)]
//! struct Payment { card: String, amount: i64, at: DateTime<Utc> }
//!
//! #[derive(Clone, Serialize)]
//! struct Alert { card: String, amount: i64 }
//!
//! fn describe(job: &Job) -> waterwheel::Result<()> {
//!     job.topic("payments").json::<Payment>()
//!         .on_error(DeadLetter)                               // to payments.dead-letter, with its place and the error
//!         .event_time(|p| p.at, OutOfOrder::by(secs(5)))
//!         .filter(|p| p.amount > 100_000)
//!         .map(|p| Alert { card: p.card, amount: p.amount })
//!         .to_topic("alerts")                                 // exactly once unless said otherwise
//!         .id("large-payments");                              // stable across versions of the job
//!     Ok(())
//! }
//! # let topics = "local:./data".parse::<waterwheel::topics::TopicsUrl>()?.open(&waterwheel::engine::env::Env::real())?;
//! # let job = Job::new("fraud", topics);
//! # describe(&job)?;
//! # assert!(job.explain(secs(1))?.to_string().contains("exactly-once into alerts"));
//! # Ok::<(), waterwheel::Error>(())
//! ```
//!
//! [`main`] makes a program of it, with the verbs `run`, `explain`, `check` and `savepoint`.
//!
//! The walk of a record, one file a step:
//!
//! | step | where | what happens |
//! |---|---|---|
//! | read | [`connectors`]: `kafka/source.rs`, `local/` | takes a batch of records, keeps offsets for the next barrier |
//! | enter | [`engine::operators`]: `source_task.rs` | decodes, stamps event time, emits batch, watermark, barrier in order |
//! | transform | [`engine::operators`]: `map.rs`, `filter.rs`, `key_by.rs` | chained calls inside one task, no queue between |
//! | route | [`engine::exchange`] | key, key group, task; a full channel means wait |
//! | align | [`engine::exchange`]: `gate.rs` | several inputs become one ordered stream; barriers are aligned here |
//! | window | [`engine::windowing`] | assign, accumulate, fire, purge; late rows leave by a side output |
//! | remember | [`engine::state`] | key to slot, the table kinds, what is in memory and what is on disk |
//! | write | [`engine::operators`]: `sink.rs`, then the connector | stage until the barrier, publish when the checkpoint is complete |
//!
//! What describes a job is in [`engine::dsl`]; what a job becomes in [`engine::graph`]; `ARCHITECTURE.md` has the whole.

mod job;
mod outputs;
pub mod program;
#[cfg(feature = "sql")]
pub mod sql;
#[cfg(feature = "testing")]
pub mod testing;
mod topic;

pub use job::Job;
pub use outputs::ToOutputs;
pub use program::main;
pub use topic::{TableToTopic, ToTopic, Topic, TopicSink};
pub use waterwheel_connectors as connectors;
pub use waterwheel_connectors::topics;
pub use waterwheel_engine as engine;
pub use waterwheel_engine::error::{Error, Kind, Result};
pub use waterwheel_engine::time::compact as compact_time;

/// What a job needs, in one line: `use waterwheel::prelude::*;`.
pub mod prelude {
    pub use crate::{Job, TableToTopic, ToOutputs, ToTopic};
    pub use chrono::{DateTime, Utc};
    pub use serde::{Deserialize, Serialize};
    pub use waterwheel_connectors::topics::{End, OnLostOffsets, Start};
    pub use waterwheel_engine::dsl::{
        Broadcast, KeyedStream, Merge, OutOfOrder, OverStream, Punctuated, SortedStream, SourceStream, Stream, Table, WindowedStream,
        after, before, days, hours, millis, mins, secs,
    };
    pub use waterwheel_engine::operators::ErrorPolicy::{self, DeadLetter};
    pub use waterwheel_engine::operators::tables::Suppress;
    pub use waterwheel_engine::operators::{
        AfterMatch, AggregatingState, AsyncOptions, BroadcastState, Either, ListState, MapState, Match, Pattern, ProcessContext,
        ProcessFunction, ProcessOpen, ReducingState, SideOutput, Timer, Ttl, ValueState,
    };
    pub use waterwheel_engine::record::{Change, Key, RowKind, Str};
    pub use waterwheel_engine::time::EventTime;
    pub use waterwheel_engine::windowing::{Calendar, Count, Cumulative, Global, Session, Sliding, Tumbling, Windowed};
}

/// Compiles the code of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct ReadmeExamples;

/// Compiles the code of `docs/state.md`.
#[cfg(doctest)]
#[doc = include_str!("../docs/state.md")]
pub struct StateExamples;

/// Compiles the code of `docs/savepoints.md`.
#[cfg(doctest)]
#[doc = include_str!("../docs/savepoints.md")]
pub struct SavepointExamples;

/// Compiles the code of `docs/windows.md`.
#[cfg(doctest)]
#[doc = include_str!("../docs/windows.md")]
pub struct WindowsExamples;

/// Compiles the code of the page on joins.
#[cfg(doctest)]
#[doc = include_str!("../docs/joins.md")]
pub struct JoinsExamples;

/// Compiles the code of the page on tests.
#[cfg(all(doctest, feature = "testing"))]
#[doc = include_str!("../docs/testing.md")]
pub struct TestingExamples;

/// Compiles the code of the page on tables.
#[cfg(doctest)]
#[doc = include_str!("../docs/tables.md")]
pub struct TablesExamples;

/// Compiles the code of the page on SQL.
#[cfg(all(doctest, feature = "sql"))]
#[doc = include_str!("../docs/sql.md")]
pub struct SqlExamples;
