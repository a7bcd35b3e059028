//! Apache Kafka: topics as sources and sinks, exactly once.
//!
//! | file | what it is |
//! |---|---|
//! | `config`, `java` | client properties: what a user may set, what the engine sets, and what the Java client calls them |
//! | `client` | callbacks and errors that all clients share |
//! | `describe` | topic identity, partitions and rights (DescribeTopics) |
//! | `source`, `offsets` | which partitions to read and where a new job begins |
//! | `reader`, `fetch` | the reading half, and where its records come from: the own fetcher or librdkafka |
//! | `check` | whether a position still means what it meant when it was stored |
//! | `protocol` | Kafka's protocol, as far as the own clients speak it |
//! | `sink`, `book` | the sink, and what it knows of its topics |
//! | `send` | records into a producer, delivery counted |
//! | `writer` | the at-least-once writing half |
//! | `publisher`, `marker`, `scan` | the publishing half of a lane: one short transaction per epoch, and its proof |
//! | `produce` | who publishes: the own producer or librdkafka |
//! | `admin` | topics by command: create, list, describe, delete, produce |
//!
//! Invariant: partitions are assigned by the engine, never by a group; only committed records are read; an epoch's records
//! and its marker are one transaction, and `Ok` from `publish` means that it is committed.

mod admin;
mod book;
mod check;
mod client;
mod config;
mod describe;
mod fetch;
mod java;
mod marker;
#[cfg(test)]
mod native_tests;
mod offsets;
mod produce;
mod protocol;
mod publisher;
mod reader;
mod scan;
mod send;
mod sink;
mod source;
mod writer;

pub use admin::KafkaTopics;
pub use config::KafkaConfig;
pub use java::{JavaProperty, java_property};
