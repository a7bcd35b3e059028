//! What all Kafka clients share: log and error callbacks, errors lifted to cause, place and remedy.
//!
//! Invariant: an error is `Fatal` only when no retry can mend it. "Away" is always `Transient`, because a broker that
//! restarts gives nearly every other code on its way.

use rdkafka::ClientContext;
use rdkafka::TopicPartitionList;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::metadata::Metadata;
use rdkafka::types::RDKafkaErrorCode as Code;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use waterwheel_engine::error::{Error, Kind, Result};

use super::config::{KafkaConfig, Role};

/// How long a question to the broker may take before it counts as away.
pub(super) const ASK: Duration = Duration::from_secs(10);

/// Within so long a broker that is there has nearly always answered.
const GLANCE: Duration = Duration::from_secs(1);

/// A consumer, or a client that only asks.
pub(super) type Client = BaseConsumer<Events>;

/// What librdkafka tells on the side.
#[derive(Default)]
pub(super) struct Events {
    trouble: Mutex<Option<String>>,
    seen: AtomicBool,
    /// Why no request will be answered: the broker does not know this user, or there is no TLS between us.
    denied: Mutex<Option<Denial>>,
}

/// What no waiting mends.
#[derive(Debug, Clone, Copy)]
enum Denial {
    User(Code),
    Tls { what: &'static str, help: &'static str },
}

impl Denial {
    /// What an error event says, if it is one of these. Of TLS librdkafka gives one code for all, and OpenSSL's words.
    fn of(code: Option<Code>, reason: &str) -> Option<Denial> {
        let tls = |what, help| Some(Denial::Tls { what, help });
        match code? {
            code @ (Code::Authentication | Code::SaslAuthenticationFailed) => Some(Denial::User(code)),
            _ if ["alert certificate required", "alert bad certificate", "alert unknown ca"].iter().any(|alert| reason.contains(alert)) => {
                tls("the broker takes no TLS connection without a certificate that it trusts", OWN_CERTIFICATE)
            }
            Code::SSL if reason.contains("certificate verify failed") => tls("the broker's certificate cannot be verified", TRUSTED),
            Code::SSL if reason.contains("wrong version number") || reason.contains("packet length too long") => {
                tls("there is no TLS at the broker's port", "check the port, and security.protocol")
            }
            _ => None,
        }
    }

    fn error(self, doing: &str, place: &str) -> Error {
        match self {
            Denial::User(code) => coded(code, doing, place),
            Denial::Tls { what, help } => Error::fatal(format!("{doing}: {what}")).at(place.to_string()).help(help),
        }
    }
}

const TRUSTED: &str = "give the certificate of who signed it as ssl.ca.location, and address the broker by a name that its certificate has";
const OWN_CERTIFICATE: &str = "give the job's own certificate and key as ssl.certificate.location and ssl.key.location";

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

    /// Whether no request will be answered.
    pub(super) fn is_denied(&self) -> bool {
        self.denied.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// That no request will be answered, and why.
    pub(super) fn denied(&self, doing: &str, place: &str) -> Option<Error> {
        self.denied.lock().unwrap_or_else(PoisonError::into_inner).map(|denial| denial.error(doing, place))
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
        if let Some(denial) = Denial::of(error.rdkafka_error_code(), reason) {
            *self.denied.lock().unwrap_or_else(PoisonError::into_inner) = Some(denial);
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

/// What a topic is, or what topics there are. The first look is short: it may be that nobody will ever answer.
pub(super) fn metadata(client: &Client, topic: Option<&str>, doing: &str, place: &str) -> Result<Metadata> {
    let again = |e| {
        // One event a call, and a call that waits is sure to see those that are there.
        for _ in 0..8 {
            let _ = client.poll(Duration::from_millis(10));
        }
        if client.context().is_denied() { Err(e) } else { client.fetch_metadata(topic, ASK) }
    };
    let asked = client.fetch_metadata(topic, GLANCE).or_else(again);
    asked.map_err(|e| unanswered(client, &e, doing, place))
}

/// As [`lift`], of a client that asked: what was told on the side may say why there is no answer.
pub(super) fn unanswered(client: &Client, e: &KafkaError, doing: &str, place: &str) -> Error {
    tidy(client);
    client.context().denied(doing, place).unwrap_or_else(|| lift(e, doing, place))
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
    fn only_what_no_waiting_mends_is_a_denial() {
        let says = |code, reason: &str| Denial::of(Some(code), reason).map(|denial| denial.error("asking", "here").report());
        let untrusted = "ssl://a:1/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker ...";
        assert!(says(Code::SSL, untrusted).is_some_and(|report| report.contains("ssl.ca.location")));
        let plain = "ssl://a:1/bootstrap: SSL handshake failed: error:0A00010B:SSL routines::wrong version number";
        assert!(says(Code::SSL, plain).is_some_and(|report| report.contains("security.protocol")));
        let own = "ssl://a:1/1: SSL transport error: error:0A00045C:SSL routines::tlsv13 alert certificate required";
        assert!(says(Code::BrokerTransportFailure, own).is_some_and(|report| report.contains("ssl.key.location")));
        assert!(says(Code::SaslAuthenticationFailed, "").is_some_and(|report| report.contains("sasl.password")));
        for (code, reason) in [
            (Code::SSL, "ssl://a:1/1: SSL handshake failed: SSL transport error: Connection reset"),
            (Code::BrokerTransportFailure, "ssl://a:1/1: SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?"),
            (Code::AllBrokersDown, "1/1 brokers are down"),
        ] {
            assert_eq!(says(code, reason), None, "{reason}");
        }
    }

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
