//! What the tests share: a real Kafka broker, the fraud job and a small job as processes, jobs on the simulated machine, and a
//! reader of Rust source.

pub(crate) mod cargo;
pub(crate) mod fraud;
pub(crate) mod kafka;
pub(crate) mod rust_source;
pub(crate) mod simulated;
pub(crate) mod small_job;
