//! Kafka over TLS, with certificates on both sides, and with a password over TLS: a typed job and a script written for Flink, killed
//! while they publish; and what is said of a wrong authority, name, port or password, and of no certificate.
//! Secrets are shown nowhere.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

use serde_json::{Value, json};
use tempfile::TempDir;
use waterwheel::prelude::*;
use waterwheel::program::Program;

use crate::support::kafka::client::{self, NewRecord};
use crate::support::kafka::{Broker, Door};

/// Tells this binary which job it is, and its command line.
const JOB: &str = "WATERWHEEL_TLS_JOB";
const LINE: &str = "WATERWHEEL_TLS_LINE";
const PASSWORD: &str = "hunter2-and-more";
const ROWS: i64 = 5_000;

#[derive(Clone, Serialize, Deserialize)]
struct Item {
    k: String,
    n: i64,
}

/// The process of a job: a script, or the typed one between two topics.
#[test]
#[ignore = "no test: the other tests start it as a process"]
fn process() {
    let Ok(told) = std::env::var(JOB) else { return };
    let program = Program::new("tls", move |job| {
        let Some((input, output)) = told.split_once(' ') else {
            job.sql(&fs::read_to_string(&told).expect("the script is read"))?;
            return Ok(());
        };
        let items = job.topic(input).json::<Item>().event_time(|_| EventTime(0), OutOfOrder::by(secs(1)));
        items.map(|item| Item { n: 2 * item.n, ..item }).to_topic(output).key(|item| item.k.clone()).id("output");
        Ok(())
    });
    let line = std::env::var(LINE).expect("its command line");
    let ended = program.main_with(line.split('\n').map(Into::into));
    let code = (0..=255u8).find(|code| format!("{:?}", ExitCode::from(*code)) == format!("{ended:?}"));
    std::process::exit(code.expect("a number").into());
}

/// A job, and the folder that it runs in.
struct TlsJob {
    folder: TempDir,
    told: String,
    topics: String,
}

impl TlsJob {
    fn new(told: String, topics: String) -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), told, topics }
    }

    fn script(text: &str) -> Self {
        let job = Self::new("script.sql".into(), "local:./topics".into());
        job.mend(text);
        job
    }

    /// Its script is another one from now on.
    fn mend(&self, text: &str) {
        fs::write(self.folder.path().join("script.sql"), text).expect("is written");
    }

    /// Runs a verb at its most talkative: how it ended, and all that it said, in which there is no secret.
    fn said(&self, verb: &str, moment: Option<&str>) -> (ExitStatus, String) {
        let more = if verb == "run" { &["--until-end", "--json", "--checkpoint-interval", "50ms"][..] } else { &[] };
        let line = [&["job", verb, "--topics", &self.topics][..], more].concat().join("\n");
        let mut command = Command::new(std::env::current_exe().expect("the test binary has a path"));
        command.current_dir(self.folder.path()).args(["--ignored", "--exact", "--nocapture", "tls::process"]);
        command.env(JOB, &self.told).env(LINE, line).env("WATERWHEEL_LOG", "trace");
        if let Some(moment) = moment {
            command.env("WATERWHEEL_MOMENT", moment);
        }
        let output = command.output().expect("starts");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status, said)
    }

    /// Does not start, for this reason and with this remedy.
    fn is_refused(&self, words: &[&str], secrets: &[&str]) {
        let (status, said) = self.said("run", None);
        assert_eq!(status.code(), Some(3), "{words:?}: {said}");
        words.iter().chain(&["error: ", "help: "]).for_each(|word| assert!(said.contains(word), "{word:?} is not said in: {said}"));
        shows_none(&said, secrets);
    }

    /// Killed with a transaction delivered and not committed, it publishes every row once when it is started again.
    fn publishes_once(&self, broker: &Broker, outputs: &[&str], secrets: &[&str]) {
        let (status, said) = self.said("run", Some("Delivered:1:kill"));
        assert_eq!(status.signal(), Some(9), "{said}");
        shows_none(&said, secrets);
        for output in outputs {
            assert!(client::read_uncommitted_all(&broker.bootstrap(), output).len() <= ROWS as usize, "killed too late");
        }
        for verb in ["explain", "check", "run", "explain"] {
            let (status, said) = self.said(verb, None);
            assert!(status.success(), "{verb}: {said}");
            shows_none(&said, secrets);
        }
        for output in outputs {
            let mut numbers: Vec<i64> = client::read_committed_all(&broker.bootstrap(), output)
                .into_iter()
                .map(|record| serde_json::from_slice::<Value>(&record.value.expect("a value")).expect("JSON")["n"].as_i64().expect("n"))
                .collect();
            numbers.sort_unstable();
            assert!(numbers.iter().copied().eq((0..ROWS).map(|n| 2 * n)), "{output}: {} rows, or other ones", numbers.len());
        }
        each_file(self.folder.path(), &mut |path| {
            if !path.ends_with("script.sql") {
                shows_none(&String::from_utf8_lossy(&fs::read(path).expect("is read")), secrets);
            }
        });
    }
}

fn shows_none(said: &str, secrets: &[&str]) {
    secrets.iter().for_each(|secret| assert!(!said.contains(secret), "a secret is shown: {said}"));
}

fn each_file(folder: &Path, see: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { each_file(&path, see) } else { see(&path) }
    }
}

/// Two authorities, and certificates of the broker, for its address alone, and of a job, both signed by the first.
struct Certificates(TempDir);

impl Certificates {
    fn make() -> Self {
        let made = Self(tempfile::tempdir().expect("a folder"));
        let signed = ["-CA", "ca.pem", "-CAkey", "ca.key"];
        made.one("ca", &[]);
        made.one("other-ca", &[]);
        made.one("broker", &[&signed[..], &["-addext", "subjectAltName=IP:127.0.0.1"]].concat());
        made.one("job", &signed);
        for name in ["broker", "job"] {
            let both = made.text(&format!("{name}.key")) + &made.text(&format!("{name}.pem"));
            fs::write(made.path(&format!("{name}-store.pem")), both).expect("is written");
        }
        made
    }

    fn one(&self, name: &str, more: &[&str]) {
        let (key, certificate, subject) = (format!("{name}.key"), format!("{name}.pem"), format!("/CN={name}"));
        let mut openssl = Command::new("openssl");
        openssl.current_dir(self.0.path()).args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        openssl.args(["-days", "2", "-subj", &subject, "-keyout", &key, "-out", &certificate]).args(more);
        let done = openssl.output().expect("`openssl` starts; script/bootstrap --tests installs it");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("is read")
    }

    /// A broker with a door for those with a certificate, and one for those with a password.
    fn broker(&self) -> Broker {
        let store = |kind: &str, name: &str| [format!("ssl.{kind}.type=PEM"), format!("ssl.{kind}.location={}", self.path(name).display())];
        let shows = [store("keystore", "broker-store.pem"), store("truststore", "ca.pem")].concat();
        let asks = [&shows[..], &["ssl.client.auth=required".to_owned()]].concat();
        let scram = "scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;";
        let password = [&shows[..], &["sasl.enabled.mechanisms=SCRAM-SHA-512".to_owned(), scram.to_owned()]].concat();
        let doors =
            [Door { name: "MUTUAL", protocol: "SSL", settings: asks }, Door { name: "PASSWORD", protocol: "SASL_SSL", settings: password }];
        Broker::start_with_doors(&doors, ("job", PASSWORD))
    }

    /// `ssl.*` of librdkafka, in a URL.
    fn url(&self, servers: &str, authority: &str, more: &str) -> String {
        format!("kafka://{servers}?security.protocol=ssl&ssl.ca.location={}{more}", self.path(authority).display())
    }

    fn own(&self) -> String {
        let (certificate, key) = (self.path("job.pem"), self.path("job.key"));
        format!("&ssl.certificate.location={}&ssl.key.location={}", certificate.display(), key.display())
    }
}

/// Of the key of a file, what nobody else may see.
fn secret_of(key: &str) -> &str {
    key.lines().nth(1).expect("a line of the key")
}

fn filled(broker: &Broker) -> String {
    let input = client::new_topic(&broker.bootstrap(), "items", 2);
    let row = |n: i64| NewRecord::new(format!("k{}", n % 7), json!({ "k": format!("k{}", n % 7), "n": n }).to_string());
    client::produce(&broker.bootstrap(), &input, (0..ROWS).map(row));
    input
}

#[test]
fn own_broker_is_reached_by_tls_or_the_reason_is_said() {
    let made = Certificates::make();
    let broker = made.broker();
    let input = filled(&broker);
    typed(&made, &broker, &input);
    by_script(&made, &broker, &input);
}

/// Librdkafka's properties, in the URL of a typed job.
fn typed(made: &Certificates, broker: &Broker, input: &str) {
    let output = client::new_topic(&broker.bootstrap(), "typed", 2);
    let (mutual, own) = (broker.door("MUTUAL"), made.own());
    let job = |url: String| TlsJob::new(format!("{input} {output}"), url);
    let by_name = mutual.replace("127.0.0.1", "localhost");
    for (servers, authority) in [(&mutual, "other-ca.pem"), (&by_name, "ca.pem")] {
        let words = ["the broker's certificate cannot be verified", servers, "ssl.ca.location", "a name that its certificate has"];
        job(made.url(servers, authority, &own)).is_refused(&words, &[]);
    }
    let words = ["without a certificate that it trusts", &mutual, "ssl.certificate.location and ssl.key.location"];
    job(made.url(&mutual, "ca.pem", "")).is_refused(&words, &[]);
    // Commands on topics say so too, before their time is up.
    let wrong = made.url(&mutual, "other-ca.pem", &own).parse::<waterwheel::topics::TopicsUrl>().expect("a URL");
    let topics = wrong.open(&waterwheel::engine::env::Env::real()).expect("nothing is asked yet");
    for refused in
        [topics.list().map(drop), topics.create("new", &waterwheel::topics::TopicConfig::partitions(1)), topics.describe("t").map(drop)]
    {
        let report = refused.expect_err("no TLS").report();
        assert!(report.contains("cannot be verified") && report.contains("ssl.ca.location"), "{report}");
    }
    job(made.url(&mutual, "ca.pem", &own)).publishes_once(broker, &[&output], &[secret_of(&made.text("job.key"))]);
}

/// Flink's properties: in by a password over TLS, out by certificates, given in the script itself and as a file.
fn by_script(made: &Certificates, broker: &Broker, input: &str) {
    let outputs = ["inline", "file"].map(|name| client::new_topic(&broker.bootstrap(), name, 2));
    let key = made.text("job.key");
    let script = |password: &str, authority: &str| {
        let table = |name: &str, topic: &str, door: &str, more: &str| {
            format!(
                "CREATE TABLE {name} (k STRING, n BIGINT) WITH ('connector' = 'kafka', 'topic' = '{topic}', 'format' = 'json',
                 'properties.bootstrap.servers' = '{}', 'properties.ssl.truststore.type' = 'PEM', {more});\n",
                broker.door(door)
            )
        };
        let login = "org.apache.kafka.common.security.scram.ScramLoginModule";
        let source = format!(
            "'properties.security.protocol' = 'SASL_SSL', 'properties.sasl.mechanism' = 'SCRAM-SHA-512',
             'properties.sasl.jaas.config' = '{login} required username=\"job\" password=\"{password}\";',
             'properties.ssl.truststore.location' = '{}', 'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset'",
            made.path(authority).display()
        );
        let inline = format!(
            "'properties.security.protocol' = 'SSL', 'properties.ssl.truststore.certificates' = '{}',
             'properties.ssl.keystore.type' = 'PEM', 'properties.ssl.keystore.certificate.chain' = '{}', 'properties.ssl.keystore.key' = '{key}'",
            made.text("ca.pem"),
            made.text("job.pem"),
        );
        let file = format!(
            "'properties.security.protocol' = 'SSL', 'properties.ssl.truststore.location' = '{}', 'properties.ssl.keystore.type' = 'PEM',
             'properties.ssl.keystore.location' = '{}'",
            made.path("ca.pem").display(),
            made.path("job-store.pem").display()
        );
        let tables = table("items", input, "PASSWORD", &source)
            + &table("inline", &outputs[0], "MUTUAL", &inline)
            + &table("file", &outputs[1], "MUTUAL", &file);
        tables + "INSERT INTO inline SELECT k, 2 * n FROM items; INSERT INTO file SELECT k, 2 * n FROM items;"
    };
    let secrets = [PASSWORD, secret_of(&key)];
    let words = ["does not accept this user and password", &broker.door("PASSWORD"), "check sasl.username and sasl.password"];
    let job = TlsJob::script(&script(&format!("{PASSWORD}-mistyped"), "ca.pem"));
    job.is_refused(&words, &secrets);
    let words = ["the broker's certificate cannot be verified", &broker.door("PASSWORD"), "ssl.ca.location"];
    job.mend(&script(PASSWORD, "other-ca.pem"));
    job.is_refused(&words, &secrets);
    job.mend(&script(PASSWORD, "ca.pem"));
    job.publishes_once(broker, &[&outputs[0], &outputs[1]], &secrets);
}
