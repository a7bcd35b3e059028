//! Client properties: what a user may tell librdkafka, and what the engine tells it.
//!
//! Invariant: a property reaches the client only if it stands in `ALLOWED`, or the engine itself sets it. What loads code or
//! would break a promise is refused by name, with the reason; values of secrets appear in no text that this file makes.

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use waterwheel_engine::error::{Error, Result};

/// Which clients a property is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Any client; as a client's role: one that only asks for metadata.
    Any,
    /// Reads.
    Consumer,
    /// Writes.
    Producer,
}

use Role::{Any, Consumer, Producer};

/// Who reads: `own` (the default wherever it can) or `librdkafka`. A property of ours, which librdkafka never sees.
pub(super) const FETCHER: &str = "fetcher";

/// Who writes exactly once: `own` (the default wherever it can) or `librdkafka`; ours too.
pub(super) const PRODUCER: &str = "producer";

/// What a user may set, by client.
const ALLOWED: &[(&str, Role)] = &[
    ("broker.address.family", Any),
    ("broker.address.ttl", Any),
    ("client.dns.lookup", Any),
    ("client.id", Any),
    ("connections.max.idle.ms", Any),
    ("metadata.max.age.ms", Any),
    ("metadata.recovery.strategy", Any),
    ("receive.message.max.bytes", Any),
    ("reconnect.backoff.max.ms", Any),
    ("reconnect.backoff.ms", Any),
    ("retry.backoff.max.ms", Any),
    ("retry.backoff.ms", Any),
    ("sasl.mechanism", Any),
    ("sasl.mechanisms", Any),
    ("sasl.password", Any),
    ("sasl.username", Any),
    ("security.protocol", Any),
    ("socket.connection.setup.timeout.ms", Any),
    ("socket.keepalive.enable", Any),
    ("socket.nagle.disable", Any),
    ("socket.receive.buffer.bytes", Any),
    ("socket.send.buffer.bytes", Any),
    ("socket.timeout.ms", Any),
    ("ssl.ca.location", Any),
    ("ssl.ca.pem", Any),
    ("ssl.certificate.location", Any),
    ("ssl.certificate.pem", Any),
    ("ssl.cipher.suites", Any),
    ("ssl.crl.location", Any),
    ("ssl.curves.list", Any),
    ("ssl.endpoint.identification.algorithm", Any),
    ("ssl.key.location", Any),
    ("ssl.key.password", Any),
    ("ssl.key.pem", Any),
    ("ssl.keystore.location", Any),
    ("ssl.keystore.password", Any),
    ("ssl.sigalgs.list", Any),
    ("topic.metadata.refresh.interval.ms", Any),
    ("client.rack", Consumer),
    ("fetch.error.backoff.ms", Consumer),
    ("fetch.max.bytes", Consumer),
    ("fetch.message.max.bytes", Consumer),
    ("fetch.min.bytes", Consumer),
    ("fetch.queue.backoff.ms", Consumer),
    ("fetch.wait.max.ms", Consumer),
    ("max.partition.fetch.bytes", Consumer),
    ("queued.max.messages.kbytes", Consumer),
    ("queued.min.messages", Consumer),
    ("batch.num.messages", Producer),
    ("batch.size", Producer),
    ("compression.codec", Producer),
    ("compression.level", Producer),
    ("compression.type", Producer),
    ("linger.ms", Producer),
    ("queue.buffering.max.kbytes", Producer),
    ("queue.buffering.max.messages", Producer),
    ("queue.buffering.max.ms", Producer),
    ("request.timeout.ms", Producer),
    ("transaction.timeout.ms", Producer),
];

const RUNS_CODE: &str = "it loads or runs code in this process";
const POSITIONS: &str = "positions belong to the checkpoints, not to the group";
const EXACTLY_ONCE: &str = "exactly-once output depends on its value";
const NO_SUBSCRIPTION: &str = "partitions are assigned by the engine; no group is joined";

/// What nobody may set, and why.
const REFUSED: &[(&str, &str)] = &[
    ("acks", EXACTLY_ONCE),
    ("allow.auto.create.topics", "a mistyped topic must be an error; topics are made with `waterwheel topic create`"),
    ("auto.commit.enable", POSITIONS),
    ("auto.commit.interval.ms", POSITIONS),
    ("auto.offset.reset", "a lost position stops the job unless the source's `on_lost_offsets` says otherwise"),
    ("bootstrap.servers", "the servers stand in the URL: kafka://host:9092"),
    ("check.crcs", "damaged records must be found"),
    ("debug", "it prints settings into the log"),
    ("delivery.report.only.error", EXACTLY_ONCE),
    ("delivery.timeout.ms", EXACTLY_ONCE),
    ("enable.auto.commit", POSITIONS),
    ("enable.auto.offset.store", POSITIONS),
    ("enable.gapless.guarantee", EXACTLY_ONCE),
    ("enable.idempotence", EXACTLY_ONCE),
    ("enable.metrics.push", "the metrics of a job are its own"),
    ("enable.partition.eof", "the engine needs it to see the end of a partition"),
    ("enable.ssl.certificate.verification", "a connection whose peer is not verified is not safe; give ssl.ca.location"),
    ("group.id", "set the `group` of the source: it is for lag tools only"),
    ("group.instance.id", NO_SUBSCRIPTION),
    ("group.protocol", NO_SUBSCRIPTION),
    ("group.protocol.type", NO_SUBSCRIPTION),
    ("group.remote.assignor", NO_SUBSCRIPTION),
    ("heartbeat.interval.ms", NO_SUBSCRIPTION),
    ("interceptors", RUNS_CODE),
    ("isolation.level", "only committed records may enter a job"),
    ("max.in.flight", EXACTLY_ONCE),
    ("max.in.flight.requests.per.connection", EXACTLY_ONCE),
    ("max.poll.interval.ms", NO_SUBSCRIPTION),
    ("message.max.bytes", "the topic's max.message.bytes decides, and the engine reads it from there"),
    ("message.send.max.retries", EXACTLY_ONCE),
    ("message.timeout.ms", EXACTLY_ONCE),
    ("metadata.broker.list", "the servers stand in the URL: kafka://host:9092"),
    ("partition.assignment.strategy", NO_SUBSCRIPTION),
    ("partitioner", "the engine chooses partitions, as Kafka's default partitioner does (murmur2)"),
    ("plugin.library.paths", RUNS_CODE),
    ("request.required.acks", EXACTLY_ONCE),
    ("retries", EXACTLY_ONCE),
    ("sasl.kerberos.kinit.cmd", RUNS_CODE),
    ("session.timeout.ms", NO_SUBSCRIPTION),
    ("ssl.engine.id", RUNS_CODE),
    ("ssl.engine.location", RUNS_CODE),
    ("ssl.providers", RUNS_CODE),
    ("statistics.interval.ms", "the metrics of a job are its own"),
    ("transactional.id", EXACTLY_ONCE),
];

/// How to reach a Kafka cluster: servers and checked client properties.
///
/// ```
/// use waterwheel_connectors::kafka::KafkaConfig;
/// let config = KafkaConfig::new(["localhost:9092"]).property("client.id", "fraud").unwrap();
/// assert!(config.clone().property("group.id", "x").is_err());
/// assert_eq!(config.place(), "kafka://localhost:9092");
/// ```
#[derive(Clone)]
pub struct KafkaConfig {
    servers: Vec<String>,
    properties: BTreeMap<String, String>,
}

impl KafkaConfig {
    /// These servers (`host:port`), all else by default.
    pub fn new<S: Into<String>>(servers: impl IntoIterator<Item = S>) -> Self {
        KafkaConfig { servers: servers.into_iter().map(Into::into).collect(), properties: BTreeMap::new() }
    }

    /// Sets a client property by librdkafka's name.
    ///
    /// # Errors
    /// Fatal: refused by name, unknown, not of this build, or a value that librdkafka does not take.
    pub fn property(mut self, name: &str, value: &str) -> Result<Self> {
        let refuse = |why: String| Error::fatal(format!("the Kafka property {name} cannot be set: {why}")).at(self.place());
        if let Some((_, why)) = REFUSED.iter().find(|(n, _)| *n == name) {
            return Err(refuse((*why).into()));
        }
        if [FETCHER, PRODUCER].contains(&name) {
            if !["own", "librdkafka"].contains(&value) {
                return Err(refuse(format!("there are \"own\" and \"librdkafka\", not {value:?}")));
            }
            self.properties.insert(name.into(), value.into());
            return Ok(self);
        }
        if !ALLOWED.iter().any(|(n, _)| *n == name) {
            let near = nearest(name);
            return Err(refuse("no such property is known here".into()).help(format!("did you mean {near:?}?")));
        }
        if let Some(why) = needs_tls(name, value) {
            return Err(refuse(why).help("build with the feature tls:  cargo build --features tls"));
        }
        // librdkafka's own check of the value; its message repeats the value, ours does not.
        if ClientConfig::new().set(name, value).create_native_config().is_err() {
            let shown = if is_secret(name) { "its value".into() } else { format!("{value:?}") };
            return Err(refuse(format!("librdkafka does not take {shown}")));
        }
        self.properties.insert(name.into(), value.into());
        Ok(self)
    }

    /// The URL to show to people: servers only.
    pub fn place(&self) -> String {
        format!("kafka://{}", self.servers.join(","))
    }

    /// A property as set, or librdkafka's default given by the caller, in milliseconds.
    pub(super) fn millis(&self, name: &str, default: u64) -> Duration {
        Duration::from_millis(self.properties.get(name).and_then(|v| v.parse().ok()).unwrap_or(default))
    }

    /// A property as set.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.properties.get(name).map(String::as_str)
    }

    /// Names of the properties set that have a say in reading, [`FETCHER`] aside.
    pub(super) fn for_reading(&self) -> impl Iterator<Item = &str> {
        let says = |name: &str| ALLOWED.iter().any(|(n, role)| *n == name && *role != Producer);
        self.properties.keys().map(String::as_str).filter(move |name| says(name))
    }

    /// Names of the properties set that have a say in writing, [`PRODUCER`] aside.
    pub(super) fn for_writing(&self) -> impl Iterator<Item = &str> {
        let says = |name: &str| ALLOWED.iter().any(|(n, role)| *n == name && *role != Consumer);
        self.properties.keys().map(String::as_str).filter(move |name| says(name))
    }

    /// Settings for a client: the user's that fit its role, over defaults; the engine's over both.
    pub(super) fn client(&self, role: Role, defaults: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Info);
        config.set("client.id", "waterwheel");
        for (name, value) in defaults {
            config.set(*name, *value);
        }
        for (name, value) in &self.properties {
            let fits = ALLOWED.iter().any(|(n, r)| n == name && (*r == Any || *r == role));
            if fits {
                config.set(name, value);
            }
        }
        config.set("bootstrap.servers", self.servers.join(","));
        config.set("allow.auto.create.topics", "false");
        config.set("enable.metrics.push", "false");
        config
    }

    /// Settings for a client that reads: committed records only, nothing reset, nothing committed by itself.
    pub(super) fn consumer(&self, group: &str, defaults: &[(&str, &str)]) -> ClientConfig {
        let mut config = self.client(Consumer, &[&[("fetch.queue.backoff.ms", "2")], defaults].concat());
        for (name, value) in [
            ("group.id", group),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            ("isolation.level", "read_committed"),
            ("enable.partition.eof", "true"),
            ("check.crcs", "true"),
        ] {
            config.set(name, value);
        }
        config
    }

    /// Settings for a client that writes: idempotent, in order, everything acknowledged by all replicas.
    pub(super) fn producer(&self, defaults: &[(&str, &str)]) -> ClientConfig {
        let mut config = self.client(Producer, defaults);
        for (name, value) in [
            ("enable.idempotence", "true"),
            ("acks", "all"),
            // The topic's limit decides, not the client's: a refusal must come from one place.
            ("message.max.bytes", "1000000000"),
        ] {
            config.set(name, value);
        }
        config
    }
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.properties.iter().map(|(name, value)| (name, if is_secret(name) { "***" } else { value.as_str() }));
        f.debug_struct("KafkaConfig").field("servers", &self.servers).field("properties", &shown.collect::<BTreeMap<_, _>>()).finish()
    }
}

/// Whether a value must never be shown.
fn is_secret(name: &str) -> bool {
    name.contains("password") || name.starts_with("sasl.") || name.starts_with("ssl.key") || name.ends_with(".pem")
}

/// Why this build cannot do it, if so.
fn needs_tls(name: &str, value: &str) -> Option<String> {
    if cfg!(feature = "tls") {
        return None;
    }
    let lower = value.to_ascii_lowercase();
    let needed = match name {
        "security.protocol" => lower.contains("ssl"),
        "sasl.mechanism" | "sasl.mechanisms" => lower != "plain",
        _ => name.starts_with("ssl."),
    };
    needed.then(|| "this program was built without TLS".to_string())
}

/// The allowed or refused name that is the fewest edits away.
fn nearest(name: &str) -> &'static str {
    let names = ALLOWED.iter().map(|(n, _)| *n).chain([FETCHER, PRODUCER]);
    names.min_by_key(|n| edits(name.as_bytes(), n.as_bytes())).expect("ALLOWED is not empty")
}

/// Levenshtein distance.
fn edits(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> KafkaConfig {
        KafkaConfig::new(["a:9092"])
    }

    #[test]
    fn every_allowed_property_is_one_of_librdkafka() {
        let value = |name: &str| match name {
            "sasl.mechanism" | "sasl.mechanisms" => "PLAIN",
            n if n.ends_with("bytes") => "1000000",
            n if n.ends_with("ms") || n.ends_with("ttl") || n.contains("max") || n.contains("min.") => "1000",
            n if n.ends_with("enable") || n.ends_with("disable") => "true",
            "batch.num.messages" | "batch.size" => "1000",
            "broker.address.family" => "v4",
            "client.dns.lookup" => "use_all_dns_ips",
            "compression.codec" | "compression.type" => "zstd",
            "compression.level" => "3",
            "metadata.recovery.strategy" => "none",
            "security.protocol" => "plaintext",
            "ssl.endpoint.identification.algorithm" => "https",
            _ => "x",
        };
        for (name, _) in ALLOWED.iter().filter(|(n, _)| cfg!(feature = "tls") || !n.starts_with("ssl.")) {
            if let Err(e) = config().property(name, value(name)) {
                panic!("{}", e.report());
            }
        }
    }

    #[test]
    fn code_and_the_engines_own_are_refused_with_the_reason() {
        for (name, why) in REFUSED {
            let report = config().property(name, "1").unwrap_err().report();
            assert!(report.contains(name) && report.contains(why), "{report}");
        }
        for name in ["plugin.library.paths", "sasl.kerberos.kinit.cmd", "ssl.engine.location", "isolation.level"] {
            assert!(REFUSED.iter().any(|(n, _)| *n == name), "{name}");
            assert!(!ALLOWED.iter().any(|(n, _)| *n == name), "{name}");
        }
    }

    #[test]
    fn who_reads_is_a_property_of_ours() {
        let c = config().property("fetcher", "librdkafka").unwrap().property("client.id", "x").unwrap().property("linger.ms", "1").unwrap();
        assert_eq!((c.get(FETCHER), c.consumer("g", &[]).get(FETCHER)), (Some("librdkafka"), None));
        assert_eq!(c.for_reading().collect::<Vec<_>>(), ["client.id"]);
        assert!(config().property("fetcher", "java").unwrap_err().report().contains("own"));
    }

    #[test]
    fn who_writes_is_a_property_of_ours() {
        let c = config()
            .property("producer", "librdkafka")
            .unwrap()
            .property("client.id", "x")
            .unwrap()
            .property("fetch.min.bytes", "1")
            .unwrap();
        assert_eq!((c.get(PRODUCER), c.producer(&[]).get(PRODUCER)), (Some("librdkafka"), None));
        assert_eq!(c.for_writing().collect::<Vec<_>>(), ["client.id"]);
        assert!(config().property("producer", "java").unwrap_err().report().contains("own"));
    }

    #[test]
    fn a_typing_error_gets_the_nearest_name() {
        let report = config().property("fetch.wait.max", "1").unwrap_err().report();
        assert!(report.contains("did you mean \"fetch.wait.max.ms\""), "{report}");
    }

    #[test]
    fn a_wrong_value_is_refused_at_once_and_secrets_are_never_shown() {
        assert!(config().property("socket.timeout.ms", "soon").unwrap_err().report().contains("soon"));
        let secret = config().property("sasl.password", "hunter2").unwrap().property("sasl.username", "alice").unwrap();
        let shown = format!("{secret:?} {}", secret.place());
        assert!(!shown.contains("hunter2") && !shown.contains("alice"), "{shown}");
        assert_eq!(secret.client(Any, &[]).get("sasl.password"), Some("hunter2"));
    }

    #[test]
    fn the_engine_has_the_last_word_and_roles_are_kept_apart() {
        let c = config().property("linger.ms", "7").unwrap().property("fetch.min.bytes", "9").unwrap();
        assert_eq!(c.consumer("g", &[]).get("linger.ms"), None);
        assert_eq!(c.consumer("g", &[]).get("fetch.min.bytes"), Some("9"));
        assert_eq!(c.consumer("g", &[]).get("auto.offset.reset"), Some("error"));
        assert_eq!(c.producer(&[("linger.ms", "1")]).get("linger.ms"), Some("7"));
        assert_eq!(c.producer(&[]).get("fetch.min.bytes"), None);
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn without_tls_its_settings_are_refused_and_say_so() {
        for (name, value) in [("security.protocol", "SASL_SSL"), ("sasl.mechanism", "SCRAM-SHA-256"), ("ssl.ca.location", "/ca")] {
            assert!(config().property(name, value).unwrap_err().report().contains("feature tls"), "{name}");
        }
        assert!(config().property("security.protocol", "sasl_plaintext").is_ok());
        assert!(config().property("sasl.mechanism", "PLAIN").is_ok());
    }
}
