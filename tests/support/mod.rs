//! What the tests share: a real Kafka broker, the workspace's programs and the fraud job as processes, and a reader of Rust source.

pub(crate) mod cargo;
pub(crate) mod fraud;
pub(crate) mod kafka;
pub(crate) mod rust_source;
