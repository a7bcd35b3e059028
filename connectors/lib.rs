//! Where streams come from and go to: every connector implements the engine's `Source` and `Sink` contracts.
//!
//! | module | what it is |
//! |---|---|
//! | [`topics`] | one door to topics by URL: `local:./data` or `kafka://host:9092` |
//! | [`local`] | the embedded log: topics in a folder, exactly once, no server |
//! | [`kafka`] | Apache Kafka |
//! | [`files`] | lines in and out, in one folder or in folders named after values; Parquet with the feature `parquet` |
//! | [`generator`] | rows made up on the spot, seeded and rate-limited |
//! | [`mod@print`] | results on the terminal |
//! | [`blackhole`] | results counted and forgotten |
//! | `s3` | checkpoints and savepoints in S3-compatible stores; with the feature `s3` |
//! | [`formats`] | bytes to values and back |
//! | [`staging`] | the writing half that exactly-once topic sinks share |
//! | [`partitioning`] | which partition a record goes to, and which lane publishes it |
//!
//! Invariant: connectors know the engine's contracts and nothing of graphs, SQL or clusters; they meet in `cli` and the facade.

pub mod blackhole;
#[cfg(test)]
mod conformance;
pub mod files;
pub mod formats;
pub mod generator;
pub mod kafka;
pub mod local;
pub mod partitioning;
pub mod print;
#[cfg(feature = "s3")]
pub mod s3;
pub mod staging;
pub mod topics;
