//! Client properties as the Java client and Flink name them (`properties.*` of a table), in librdkafka's words.
//!
//! Invariant: a property has the effect that it has in Java, or is known to need none here, or is refused with the reason; no
//! value of a secret stands in an error.

use waterwheel_engine::error::{Error, Result};

/// What a property of the Java client is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JavaProperty {
    /// These of librdkafka, or of [`KafkaConfig`](super::KafkaConfig).
    Set(Vec<(String, String)>),
    /// Nothing need be done, and why.
    NoEffect(&'static str),
}

/// By another name here.
const RENAMED: &[(&str, &str)] = &[
    ("fetch.max.wait.ms", "fetch.wait.max.ms"),
    ("receive.buffer.bytes", "socket.receive.buffer.bytes"),
    ("send.buffer.bytes", "socket.send.buffer.bytes"),
    ("ssl.ca.certificates", "ssl.ca.pem"),
    ("ssl.keystore.certificate.chain", "ssl.certificate.pem"),
    ("ssl.keystore.key", "ssl.key.pem"),
    ("ssl.truststore.certificates", "ssl.ca.pem"),
];

const POSITIONS: &str = "positions belong to the checkpoints";
const ASSIGNED: &str = "partitions are assigned by the engine; no group is joined";
const FORMATS: &str = "'format' says how records are read and written";
const PROMISED: &str = "the sink's guarantee decides it";
const OWN_MEMORY: &str = "the engine bounds what waits by its own budget";
const OTHER: &str = "it has no counterpart here";

/// Without a counterpart that would be missed.
const NO_EFFECT: &[(&str, &str)] = &[
    ("acks", PROMISED),
    ("allow.auto.create.topics", "a missing topic is an error"),
    ("auto.commit.interval.ms", POSITIONS),
    ("auto.offset.reset", "'scan.startup.mode' says where to begin; a lost position stops the job"),
    ("buffer.memory", OWN_MEMORY),
    ("check.crcs", "damaged records are always found"),
    ("commit.offsets.on.checkpoint", "a source with a group always commits its positions, for lag tools"),
    ("default.api.timeout.ms", OTHER),
    ("delivery.timeout.ms", PROMISED),
    ("enable.auto.commit", POSITIONS),
    ("enable.idempotence", PROMISED),
    ("exclude.internal.topics", OTHER),
    ("group.instance.id", ASSIGNED),
    ("group.protocol", ASSIGNED),
    ("heartbeat.interval.ms", ASSIGNED),
    ("key.deserializer", FORMATS),
    ("key.serializer", FORMATS),
    ("max.block.ms", OTHER),
    ("max.in.flight.requests.per.connection", PROMISED),
    ("max.poll.interval.ms", ASSIGNED),
    ("max.poll.records", OWN_MEMORY),
    ("max.request.size", "the topic's max.message.bytes decides"),
    ("metrics.num.samples", OTHER),
    ("metrics.recording.level", OTHER),
    ("metrics.sample.window.ms", OTHER),
    ("partition.assignment.strategy", ASSIGNED),
    ("partition.discovery.interval.ms", "new partitions are looked for all the time"),
    ("partitioner.ignore.keys", OTHER),
    ("retries", PROMISED),
    ("session.timeout.ms", ASSIGNED),
    ("transactional.id", PROMISED),
    ("value.deserializer", FORMATS),
    ("value.serializer", FORMATS),
];

/// What names a class that Java would load.
const CODE: &[&str] = &[
    "interceptor.classes",
    "metric.reporters",
    "partitioner.class",
    "sasl.client.callback.handler.class",
    "sasl.login.callback.handler.class",
    "sasl.login.class",
    "security.providers",
    "ssl.engine.factory.class",
    "ssl.keymanager.algorithm",
    "ssl.provider",
    "ssl.trustmanager.algorithm",
];

/// A property of the Java client in this project's words. Names that Java does not have either are given on as they are: the
/// check of [`KafkaConfig::property`](super::KafkaConfig::property) finds them, with the nearest name.
///
/// ```
/// use waterwheel_connectors::kafka::{JavaProperty, java_property};
/// assert_eq!(
///     java_property("fetch.max.wait.ms", "100").unwrap(),
///     JavaProperty::Set(vec![("fetch.wait.max.ms".into(), "100".into())])
/// );
/// assert!(matches!(java_property("max.poll.records", "500").unwrap(), JavaProperty::NoEffect(_)));
/// assert!(java_property("interceptor.classes", "com.example.Spy").is_err());
/// ```
///
/// # Errors
/// Fatal: it would load code, weaken a promise, or has a form that is not read here.
pub fn java_property(name: &str, value: &str) -> Result<JavaProperty> {
    let set = |pairs: &[(&str, &str)]| Ok(JavaProperty::Set(pairs.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect()));
    if CODE.contains(&name) || name.ends_with(".class") || name.ends_with(".classes") {
        return Err(refuse(name, "it names code for Java to load; nothing is loaded into this process"));
    }
    if let Some((_, why)) = NO_EFFECT.iter().find(|(n, _)| *n == name) {
        return Ok(JavaProperty::NoEffect(why));
    }
    match name {
        "isolation.level" if value == "read_committed" => Ok(JavaProperty::NoEffect("only committed records are ever read")),
        "isolation.level" => Err(refuse(name, "only committed records may enter a job")),
        "sasl.jaas.config" => jaas(name, value),
        "ssl.truststore.type" | "ssl.keystore.type" if value.eq_ignore_ascii_case("PEM") => {
            Ok(JavaProperty::NoEffect("files of certificates are PEM"))
        }
        "ssl.keystore.type" if value.eq_ignore_ascii_case("PKCS12") => {
            Ok(JavaProperty::NoEffect("a keystore at ssl.keystore.location is PKCS#12"))
        }
        "ssl.truststore.type" | "ssl.keystore.type" => Err(refuse(name, "Java's own stores are not read").help(PEM)),
        "ssl.truststore.location" if is_java_store(value) => Err(refuse(name, "Java's own stores are not read").help(PEM)),
        "ssl.truststore.location" => set(&[("ssl.ca.location", value)]),
        "ssl.truststore.password" => Ok(JavaProperty::NoEffect("a PEM file of certificates has no password")),
        "ssl.keystore.location" if is_java_store(value) => Err(refuse(name, "Java's own stores are not read").help(PEM)),
        // Java keeps key and certificates in one file; its other stores are PKCS#12, as librdkafka's.
        "ssl.keystore.location" if value.to_ascii_lowercase().ends_with(".pem") => {
            set(&[("ssl.certificate.location", value), ("ssl.key.location", value)])
        }
        // Java's empty text, librdkafka's word.
        "ssl.endpoint.identification.algorithm" if value.is_empty() => set(&[(name, "none")]),
        _ => match RENAMED.iter().find(|(java, _)| *java == name) {
            Some((_, here)) => set(&[(here, value)]),
            None => set(&[(name, value)]),
        },
    }
}

const PEM: &str = "export it:  keytool -importkeystore ... -deststoretype PKCS12, then openssl pkcs12 -in ... -out ca.pem";

fn refuse(name: &str, why: &str) -> Error {
    Error::fatal(format!("the Kafka property {name} cannot be set: {why}"))
}

fn is_java_store(path: &str) -> bool {
    path.to_ascii_lowercase().ends_with(".jks")
}

/// `org.apache.kafka.common.security.plain.PlainLoginModule required username="u" password="p";`: only the two that take a
/// name and a password.
fn jaas(name: &str, value: &str) -> Result<JavaProperty> {
    let form = || {
        refuse(name, "it is not of the form `...PlainLoginModule required username=\"..\" password=\"..\";`")
            .help("or set sasl.username and sasl.password")
    };
    let module = value.split_whitespace().next().ok_or_else(form)?;
    if !module.ends_with(".PlainLoginModule") && !module.ends_with(".ScramLoginModule") {
        return Err(refuse(name, "only PlainLoginModule and ScramLoginModule are known here").help("set sasl.username and sasl.password"));
    }
    let given = |option: &str| {
        let (before, rest) = value.split_once(&format!("{option}="))?;
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let (text, _) = rest[1..].split_once(quote)?;
        before.ends_with(char::is_whitespace).then_some(text)
    };
    let (Some(user), Some(password)) = (given("username"), given("password")) else { return Err(form()) };
    Ok(JavaProperty::Set(vec![("sasl.username".into(), user.into()), ("sasl.password".into(), password.into())]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::KafkaConfig;

    fn set(name: &str, value: &str) -> Vec<(String, String)> {
        match java_property(name, value) {
            Ok(JavaProperty::Set(pairs)) => pairs,
            other => panic!("{name}: {other:?}"),
        }
    }

    #[test]
    fn what_is_renamed_is_known_by_its_new_name() {
        for (java, here) in RENAMED.iter().filter(|(_, here)| cfg!(feature = "tls") || !here.starts_with("ssl.")) {
            let pairs = set(java, "100000");
            assert_eq!(pairs[0].0, *here);
            KafkaConfig::new(["a:1"]).property(&pairs[0].0, &pairs[0].1).unwrap_or_else(|e| panic!("{}", e.report()));
        }
    }

    #[test]
    fn users_and_passwords_are_taken_out_of_jaas_and_never_shown() {
        let jaas = r#"org.apache.kafka.common.security.plain.PlainLoginModule required username="alice" password="hunter2";"#;
        let pairs = [("sasl.username", "alice"), ("sasl.password", "hunter2")].map(|(n, v)| (n.to_string(), v.to_string()));
        assert_eq!(set("sasl.jaas.config", jaas), pairs);
        for wrong in [
            "com.evil.Login required username=\"alice\" password=\"hunter2\";",
            "org.apache.kafka.common.security.plain.PlainLoginModule required username=\"alice\" password=hunter2;",
            "",
        ] {
            let report = java_property("sasl.jaas.config", wrong).unwrap_err().report();
            assert!(!report.contains("hunter2") && report.contains("sasl.username"), "{report}");
        }
    }

    #[test]
    fn code_and_weaker_promises_are_refused() {
        for (name, value) in [
            ("interceptor.classes", "x"),
            ("sasl.login.callback.handler.class", "x"),
            ("some.new.handler.class", "x"),
            ("isolation.level", "read_uncommitted"),
            ("ssl.truststore.location", "/etc/trust.jks"),
            ("ssl.keystore.type", "JKS"),
        ] {
            assert!(java_property(name, value).unwrap_err().report().contains(name), "{name}");
        }
        assert_eq!(set("ssl.truststore.location", "/ca.pem")[0], ("ssl.ca.location".to_string(), "/ca.pem".to_string()));
        let both = ["ssl.certificate.location", "ssl.key.location"].map(|name| (name.to_string(), "/job.pem".to_string()));
        assert_eq!(set("ssl.keystore.location", "/job.pem"), both);
        assert_eq!(set("ssl.endpoint.identification.algorithm", "")[0].1, "none");
        assert!(matches!(java_property("isolation.level", "read_committed"), Ok(JavaProperty::NoEffect(_))));
    }
}
