//! What the benches share: the CPU clock and the printed figure, operators driven without a job, jobs without a terminal,
//! and the tests' Kafka broker.
//!
//! Each file beside this folder answers one question and prints its figure with the target beside it. Figures are per second
//! of CPU time of this process, so that they mean the same on a busy machine; pauses and latencies are in wall time.

pub mod job;
pub mod meter;
pub mod node;
pub mod values;

/// The broker of the tests: theirs is the only code that boots one.
#[expect(dead_code, clippy::disallowed_methods, reason = "tests do more to a broker than benches do, and keep their own time")]
#[path = "../../tests/support"]
mod support {
    pub(crate) mod kafka;
}

/// Real Kafka: the user's own broker, or one that ends with this process.
pub mod kafka {
    use crate::support::kafka as tests;

    /// `host:port`: from `WATERWHEEL_TEST_KAFKA`, else a broker that is started at the first call.
    ///
    /// # Panics
    /// When Kafka is not in the cache (`script/bench` fetches it) or does not come up.
    pub fn broker() -> &'static str {
        tests::shared()
    }

    /// A new topic; its name starts with `prefix`.
    ///
    /// # Panics
    /// When the broker refuses.
    pub fn new_topic(prefix: &str, partitions: i32) -> String {
        tests::client::new_topic(broker(), prefix, partitions)
    }
}
