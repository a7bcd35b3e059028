//! What all Kafka clients share: log and error callbacks, errors lifted to cause, place and remedy.
//!
//! Invariant: an error is `Fatal` only when no retry can mend it. "Away" is always `Transient`, because a broker that
//! restarts gives nearly every other code on its way.

use rdkafka::ClientContext;
use rdkafka::TopicPartitionList;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaErrorCode as Code;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use waterwheel_engine::error::{Error, Kind, Result};

use super::config::{KafkaConfig, Role};

/// How long a question to the broker may take before it counts as away.
pub(super) const ASK: Duration = Duration::from_secs(10);

/// A consumer, or a client that only asks.
pub(super) type Client = BaseConsumer<Events>;

/// What librdkafka tells on the side.
#[derive(Default)]
pub(super) struct Events {
    trouble: Mutex<Option<String>>,
    seen: AtomicBool,
    /// The broker does not know this user, or not so: no request will be answered.
    denied: Mutex<Option<Code>>,
}

impl Events {
    /// The last error event since the last [`calm`](Self::calm).
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The outside has answered again.
    pub(super) fn calm(&self) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.denied.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Why no request will be answered, if the user is the reason.
    pub(super) fn denied(&self) -> Option<Code> {
        *self.denied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there has ever been an error event.
    pub(super) fn ever(&self) -> bool {
        self.seen.load(Ordering::Relaxed)
    }

    pub(super) fn note(&self, why: &str) {
        self.seen.store(true, Ordering::Relaxed);
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_string());
    }
}

impl ClientContext for Events {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.note(reason);
        if let Some(code @ (Code::Authentication | Code::SaslAuthenticationFailed)) = error.rdkafka_error_code() {
            *self.denied.lock().unwrap_or_else(PoisonError::into_inner) = Some(code);
        }
    }

    fn stats_raw(&self, _: &[u8]) {}
}

impl ConsumerContext for Events {
    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        // Group offsets are for lag tools only; the checkpoint is the truth.
        if let Err(e) = result {
            tracing::debug!("group offsets were not committed: {e}");
        }
    }
}

/// librdkafka's log lines, one level quieter: whatever matters comes back as an error too.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::warn!(target: "kafka", "{facility}: {message}");
        }
        _ => tracing::debug!(target: "kafka", "{facility}: {message}"),
    }
}

/// A client that only asks: metadata, offsets, committed ends.
pub(super) fn asker(config: &KafkaConfig) -> Result<Client> {
    let mut settings = config.client(Role::Any, &[]);
    settings.set("isolation.level", "read_committed");
    create(config, &settings)
}

/// Serves what a client that is seldom asked has piled up: log lines, error events.
pub(super) fn tidy(client: &Client) {
    for _ in 0..64 {
        if client.poll(Duration::ZERO).is_none() {
            break;
        }
    }
}

/// A client from settings.
pub(super) fn create(config: &KafkaConfig, settings: &rdkafka::ClientConfig) -> Result<Client> {
    settings.create_with_context(Events::default()).map_err(|e| refused(config, &e))
}

/// The error of a client that cannot be made. librdkafka's text may repeat values, so only its short form is kept.
pub(super) fn refused(config: &KafkaConfig, e: &KafkaError) -> Error {
    let what = match e {
        KafkaError::ClientConfig(_, _, name, _) => format!("the property {name} has a value that it does not take"),
        KafkaError::ClientCreation(why) => why.clone(),
        other => other.to_string(),
    };
    Error::fatal(format!("a Kafka client cannot be made: {what}")).at(config.place())
}

/// Lifts a Kafka error: its kind follows from the code, the remedy where there is one.
pub(super) fn lift(e: &KafkaError, doing: &str, place: &str) -> Error {
    match e.rdkafka_error_code() {
        Some(code) => coded(code, doing, place),
        None => Error::restart(format!("{doing}: {e}")).at(place.to_string()),
    }
}

/// As [`lift`], from the code alone.
pub(super) fn coded(code: Code, doing: &str, place: &str) -> Error {
    let e = Error::new(kind_of(code), format!("{doing}: {}", text(code))).at(place.to_string());
    match code {
        Code::TopicAuthorizationFailed => {
            e.help("give the user READ and DESCRIBE on topics it reads, READ, WRITE and DESCRIBE on topics it writes")
        }
        Code::GroupAuthorizationFailed => e.help("give the user READ on the group"),
        Code::TransactionalIdAuthorizationFailed => e.help("give the user WRITE on transactional ids that begin with the job's name"),
        Code::ClusterAuthorizationFailed => e.help("give the user IDEMPOTENT_WRITE on the cluster"),
        Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve => {
            e.help("check the address, and that the broker runs and can be reached from here")
        }
        Code::SaslAuthenticationFailed | Code::Authentication => e.help("check sasl.username and sasl.password"),
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
            e.help("check the name, or make the topic:  waterwheel topic create")
        }
        _ => e,
    }
}

/// What to do about an error code.
pub(super) fn kind_of(code: Code) -> Kind {
    match code {
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::SaslAuthenticationFailed
        | Code::Authentication
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::UnknownTopicOrPartition
        | Code::UnknownTopic
        | Code::UnknownPartition
        | Code::InvalidTopic
        | Code::InvalidTransactionTimeout
        | Code::MessageSizeTooLarge
        | Code::InvalidTimestamp
        | Code::InvalidRecord
        | Code::InvalidConfig
        | Code::InvalidPartitions
        | Code::InvalidReplicationFactor
        | Code::TopicAlreadyExists
        | Code::PolicyViolation
        | Code::UnsupportedVersion
        | Code::UnsupportedFeature
        | Code::OffsetMetadataTooLarge => Kind::Fatal,
        Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::Resolve
        | Code::SSL
        | Code::OperationTimedOut
        | Code::TimedOutQueue
        | Code::MessageTimedOut
        | Code::WaitingForCoordinator
        | Code::RequestTimedOut
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::BrokerNotAvailable
        | Code::ReplicaNotAvailable
        | Code::NetworkException
        | Code::CoordinatorLoadInProgress
        | Code::CoordinatorNotAvailable
        | Code::NotCoordinator
        | Code::NotEnoughReplicas
        | Code::NotEnoughReplicasAfterAppend
        | Code::NotController
        | Code::KafkaStorageError
        | Code::FencedLeaderEpoch
        | Code::UnknownLeaderEpoch
        | Code::OffsetNotAvailable
        | Code::UnstableOffsetCommit
        | Code::ThrottlingQuotaExceeded
        | Code::ConcurrentTransactions
        | Code::Retry => Kind::Transient,
        _ => Kind::Restart,
    }
}

/// A code in words.
pub(super) fn text(code: Code) -> String {
    match code {
        Code::BrokerTransportFailure | Code::AllBrokersDown => "the broker does not answer".into(),
        Code::OperationTimedOut | Code::RequestTimedOut => "the broker did not answer in time".into(),
        Code::Resolve => "the broker's name is not known to DNS".into(),
        Code::UnknownTopicOrPartition | Code::UnknownTopic => "no such topic".into(),
        Code::UnknownPartition => "no such partition".into(),
        Code::TopicAuthorizationFailed => "no permission for the topic".into(),
        Code::GroupAuthorizationFailed => "no permission for the group".into(),
        Code::TransactionalIdAuthorizationFailed => "no permission for the transactional id".into(),
        Code::SaslAuthenticationFailed | Code::Authentication => "the broker does not accept this user and password".into(),
        Code::MessageSizeTooLarge => "the record is larger than the topic takes".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_is_away_is_never_fatal_and_a_missing_right_always_is() {
        for code in [Code::AllBrokersDown, Code::OperationTimedOut, Code::NotCoordinator, Code::Resolve, Code::LeaderNotAvailable] {
            assert_eq!(kind_of(code), Kind::Transient, "{code:?}");
        }
        for code in [Code::TopicAuthorizationFailed, Code::SaslAuthenticationFailed, Code::MessageSizeTooLarge, Code::UnknownPartition] {
            assert_eq!(kind_of(code), Kind::Fatal, "{code:?}");
        }
        for code in [Code::Fenced, Code::InvalidProducerEpoch, Code::Fatal, Code::BadMessage] {
            assert_eq!(kind_of(code), Kind::Restart, "{code:?}");
        }
    }
}
