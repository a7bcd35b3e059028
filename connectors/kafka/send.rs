//! Records into a producer, and how many of them the broker has.
//!
//! librdkafka commits a transaction happily without a record whose `send` or delivery failed; so everything is counted here,
//! and whoever promises something compares the counts.
//!
//! Invariant: every record handed over is counted exactly once, as delivered or as failed.

use super::client::{Events, log};
use super::config::KafkaConfig;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::types::RDKafkaErrorCode as Code;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use waterwheel_engine::error::Result;
use waterwheel_engine::record::RawRecord;

/// Between two looks at what the broker has said.
const MOMENT: Duration = Duration::from_micros(500);

/// A producer that counts.
pub(super) type Producer = BaseProducer<Deliveries>;

/// What has become of the records handed over.
#[derive(Default)]
pub(super) struct Deliveries {
    pub(super) events: Events,
    delivered: AtomicU64,
    failed: Mutex<Option<(Code, String)>>,
}

impl Deliveries {
    /// Records the broker has, since the last [`reset`](Self::reset).
    pub(super) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Acquire)
    }

    /// The first failed record: why, and which partition.
    pub(super) fn failed(&self) -> Option<(Code, String)> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins to count anew; nothing may be in flight.
    pub(super) fn reset(&self) {
        self.delivered.store(0, Ordering::Release);
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }
    fn error(&self, _: KafkaError, reason: &str) {
        self.events.note(reason);
    }
    fn stats_raw(&self, _: &[u8]) {}
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.delivered.fetch_add(1, Ordering::AcqRel);
            }
            Err((e, message)) => {
                let code = e.rdkafka_error_code().unwrap_or(Code::Unknown);
                let place = format!("{}/{}", message.topic(), message.partition());
                self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((code, place));
            }
        }
    }
}

/// A producer with these settings.
///
/// # Errors
/// Settings that cannot work.
pub(super) fn producer(config: &KafkaConfig, settings: &rdkafka::ClientConfig) -> Result<Producer> {
    settings.create_with_context(Deliveries::default()).map_err(|e| super::client::refused(config, &e))
}

/// Hands a record over; `false` = the queue is full, poll and try again.
///
/// # Errors
/// The record was not taken and will not be.
pub(super) fn send(producer: &Producer, record: &RawRecord<'_>, partition: i32) -> KafkaResult<bool> {
    let mut out = BaseRecord::<[u8], [u8]>::to(record.topic).partition(partition).timestamp(timestamp(record.timestamp));
    out.key = record.key;
    out.payload = record.value;
    out.headers = headers(record);
    match producer.send(out) {
        Ok(()) => Ok(true),
        Err((KafkaError::MessageProduction(Code::QueueFull), _)) => Ok(false),
        Err((e, _)) => Err(e),
    }
}

/// Serves what is there, without waiting.
pub(super) fn serve(producer: &Producer) {
    // One event a call; an event carries many deliveries.
    for _ in 0..8 {
        producer.poll(Duration::ZERO);
    }
}

/// Gives the broker a moment, and serves what has come. Not a `poll` with a time: rdkafka rounds what is left of that down to
/// whole milliseconds, and so spins through the last one.
pub(super) fn wait(producer: &Producer) {
    std::thread::park_timeout(MOMENT);
    serve(producer);
}

/// Whether everything handed over has been settled, one way or the other.
pub(super) fn settled(producer: &Producer) -> bool {
    producer.in_flight_count() == 0
}

/// The timestamp as Kafka can keep it: librdkafka reads 0 as "now" (written as 1 ms instead, so that writing again gives
/// equal bytes), and Kafka knows no time before 1970 (written as none).
pub(super) fn timestamp(ms: i64) -> i64 {
    match ms {
        0 => 1,
        ms => ms.max(-1),
    }
}

fn headers(record: &RawRecord<'_>) -> Option<OwnedHeaders> {
    let mut out: Option<OwnedHeaders> = None;
    for (key, value) in record.headers() {
        out = Some(out.unwrap_or_default().insert(Header { key, value }));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_what_kafka_can_keep() {
        assert_eq!([0, -1, -5, i64::MIN, 7].map(timestamp), [1, -1, -1, -1, 7]);
    }
}
