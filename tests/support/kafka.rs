//! A real Apache Kafka broker for a test: one node in a folder of its own, that can be killed, restarted and paused.
//!
//! Invariant: no broker outlives the test process, however that ends. Each broker hangs on a pipe from it (its
//! lifeline); when the pipe closes, the guard around the broker kills it and removes its folder.

pub(crate) mod client;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

/// How long a broker may take from its start to its first answer; a busy machine needs several times the usual 4 s.
const BOOT_LIMIT: Duration = Duration::from_secs(90);

/// Any 16 bytes in base64; one node alone has nobody to be told apart from.
const CLUSTER_ID: &str = "V2F0ZXJ3aGVlbFRlc3RzMQ";

/// Runs the broker (`"$@"`) until it ends or standard input closes. `read` gives 1 at the end of input and more than
/// 128 after its second of waiting.
const GUARD: &str = r#"
    folder=$0
    "$@" &
    broker=$!
    until read -r -t 1; [ $? = 1 ]; do kill -0 $broker 2>/dev/null || exit 1; done
    kill -9 $broker
    wait
    rm -rf "$folder"
"#;

/// A way into a broker besides the one where nobody asks who comes.
#[derive(Clone)]
pub(crate) struct Door {
    /// Its name, in capitals.
    pub(crate) name: &'static str,
    /// `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`.
    pub(crate) protocol: &'static str,
    /// Its settings, each without the prefix of the listener.
    pub(crate) settings: Vec<String>,
}

/// What a broker is told.
#[derive(Clone)]
struct Setup {
    host: String,
    node: u32,
    /// The port of the controller, which is node 1; any for a node that is alone.
    controller: Option<u16>,
    doors: Vec<Door>,
    /// Lines of its settings, which overrule those that all have.
    settings: String,
    /// What more its folder is formatted with.
    format: Vec<String>,
}

impl Setup {
    fn at(host: &str) -> Self {
        Self { host: host.to_owned(), node: 1, controller: None, doors: Vec::new(), settings: String::new(), format: Vec::new() }
    }
}

/// A broker of one test's own. Dropped, it is killed and its data removed.
pub(crate) struct Broker {
    folder: TempDir,
    /// The address at which clients reach it.
    host: String,
    port: u16,
    /// The ports of its doors, by name.
    doors: BTreeMap<&'static str, u16>,
    /// The guard, leader of the process group in which the broker runs; nothing while the broker is down.
    guard: Option<Child>,
}

impl Broker {
    /// Starts a new, empty broker and waits until it answers.
    ///
    /// # Panics
    /// If Kafka was not fetched (`script/test` does), or the broker does not come up.
    pub(crate) fn start() -> Self {
        Self::start_at("127.0.0.1")
    }

    /// As [`Self::start`], at another address of this machine.
    pub(crate) fn start_at(host: &str) -> Self {
        Self::start_with(&Setup::at(host))
    }

    /// As [`Self::start`], with these doors too, and a user who is known by SCRAM-SHA-512.
    #[allow(dead_code, reason = "for the tests of TLS, which are a binary of their own")]
    pub(crate) fn start_with_doors(doors: &[Door], (user, password): (&str, &str)) -> Self {
        let scram = ["--add-scram".to_owned(), format!("SCRAM-SHA-512=[name={user},password={password}]")];
        Self::start_with(&Setup { doors: doors.to_vec(), format: scram.to_vec(), ..Setup::at("127.0.0.1") })
    }

    /// As [`Self::start`], with a second door ([`Self::secured`]) where only the user `job` with this password is let in, who
    /// may do nothing but what [`Self::grant`] allows. Whoever comes by the first door may do everything.
    pub(crate) fn start_secured(password: &str) -> Self {
        let module = "org.apache.kafka.common.security.plain.PlainLoginModule";
        let user = format!("plain.sasl.jaas.config={module} required user_job=\"{password}\";");
        let settings = vec!["sasl.enabled.mechanisms=PLAIN".to_owned(), user];
        let door = Door { name: "SECURED", protocol: "SASL_PLAINTEXT", settings };
        let guarded = "\
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
";
        Self::start_with(&Setup { doors: vec![door], settings: guarded.to_owned(), ..Setup::at("127.0.0.1") })
    }

    fn start_with(setup: &Setup) -> Self {
        let jars = jars();
        // Another process may take a port between our look and the broker's bind: then once more with others.
        for _ in 0..2 {
            if let Ok(broker) = Self::boot(&jars, setup) {
                return broker;
            }
        }
        Self::boot(&jars, setup).unwrap_or_else(|reason| panic!("{reason}"))
    }

    /// `host:port` of the door where users have to say who they are.
    pub(crate) fn secured(&self) -> String {
        self.door("SECURED")
    }

    /// `host:port` of one of its doors.
    pub(crate) fn door(&self, name: &str) -> String {
        format!("{}:{}", self.host, self.doors[name])
    }

    /// Allows the user `job` something, in the words of Kafka's `kafka-acls --add`.
    pub(crate) fn grant(&self, what: &[&str]) {
        let mut acls = java(&jars());
        acls.args(["org.apache.kafka.tools.AclCommand", "--bootstrap-server", &self.bootstrap(), "--add", "--allow-principal", "User:job"]);
        let done = acls.args(what).output().expect("java starts");
        assert!(done.status.success(), "{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    }

    /// Lets every client send and read so many bytes a second, or as many as it likes.
    pub(crate) fn throttle(&self, rates: Option<(u64, u64)>) {
        let (verb, what) = match rates {
            Some((send, read)) => ("--add-config", format!("producer_byte_rate={send},consumer_byte_rate={read}")),
            None => ("--delete-config", "producer_byte_rate,consumer_byte_rate".to_owned()),
        };
        let mut quotas = java(&jars());
        quotas.args(["kafka.admin.ConfigCommand", "--bootstrap-server", &self.bootstrap(), "--alter", verb, &what]);
        let done = quotas.args(["--entity-type", "clients", "--entity-default"]).output().expect("java starts");
        assert!(done.status.success(), "{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    }

    /// `host:port` for clients.
    pub(crate) fn bootstrap(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Kills the broker with SIGKILL, as a power cut would: it flushes nothing and says goodbye to nobody.
    pub(crate) fn kill9(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            signal(&guard, Signal::KILL);
            guard.wait().expect("the killed guard is our child");
        }
    }

    /// Starts the broker again over its data, on the same port (after [`Self::kill9`] if it still runs), and waits until
    /// it answers: 5 to 10 s, since the controller first lets the session of the dead broker end.
    pub(crate) fn restart(&mut self) {
        self.kill9();
        self.launch(&jars()).unwrap_or_else(|reason| panic!("{reason}"));
    }

    /// Pauses the broker: its connections stay open and nothing answers.
    pub(crate) fn sigstop(&self) {
        signal(self.running(), Signal::STOP);
    }

    /// Lets a paused broker go on.
    pub(crate) fn sigcont(&self) {
        signal(self.running(), Signal::CONT);
    }

    fn running(&self) -> &Child {
        self.guard.as_ref().expect("the broker was killed and not restarted")
    }

    /// One attempt at a new broker.
    fn boot(jars: &Path, setup: &Setup) -> Result<Self, String> {
        let folder = tempfile::Builder::new().prefix("waterwheel-kafka-").tempdir().map_err(|e| e.to_string())?;
        let (port, controller) = (free_port(), setup.controller.unwrap_or_else(free_port));
        let doors: BTreeMap<_, _> = setup.doors.iter().map(|door| (door.name, free_port())).collect();
        let settings = folder.path().join("server.properties");
        let said = properties(&folder.path().join("data"), setup, port, controller, &doors);
        fs::write(&settings, said).map_err(|e| e.to_string())?;
        let alone = if setup.node == 1 { &["--standalone"][..] } else { &[] };
        let format = java(jars)
            .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"])
            .arg(&settings)
            .args(alone)
            .args(&setup.format)
            .output()
            .map_err(|error| format!("`java` does not start ({error}): run script/test, which installs it"))?;
        if !format.status.success() {
            return Err(format!("Kafka's format failed: {}", String::from_utf8_lossy(&format.stderr)));
        }
        let mut broker = Self { folder, host: setup.host.clone(), port, doors, guard: None };
        broker.launch(jars)?;
        Ok(broker)
    }

    /// Starts the process over the formatted folder and waits until it answers.
    fn launch(&mut self, jars: &Path) -> Result<(), String> {
        let log = self.folder.path().join("broker.log");
        let output = fs::File::options().create(true).append(true).open(&log).map_err(|e| e.to_string())?;
        let broker = java(jars);
        let mut guard = Command::new("bash")
            .args(["-c", GUARD])
            .arg(self.folder.path())
            .arg(broker.get_program())
            .args(broker.get_args())
            .arg("kafka.Kafka")
            .arg(self.folder.path().join("server.properties"))
            .stdin(Stdio::piped())
            .stdout(output.try_clone().map_err(|e| e.to_string())?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .map_err(|error| format!("bash does not start: {error}"))?;
        let deadline = Instant::now() + BOOT_LIMIT;
        loop {
            if client::answers(&self.bootstrap()) {
                self.guard = Some(guard);
                return Ok(());
            }
            let ended = guard.try_wait().expect("the guard is our child").is_some();
            if ended || Instant::now() > deadline {
                signal(&guard, Signal::KILL);
                let _ = guard.wait();
                let what = if ended { "ended" } else { "gave no answer in time" };
                return Err(format!("the Kafka broker {what}; the end of its log:\n{}", tail(&log)));
            }
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// Three brokers that keep three replicas of everything, of which two must have what is acknowledged. The first one is the
/// controller too: only the others may be killed. Who comes back leads again what it is meant to lead.
pub(crate) struct Cluster {
    brokers: Vec<Broker>,
}

impl Cluster {
    /// Starts all three, and waits until they know each other.
    ///
    /// # Panics
    /// As [`Broker::start`].
    pub(crate) fn start() -> Self {
        const REPLICATED: &str = "\
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
leader.imbalance.check.interval.seconds=1
leader.imbalance.per.broker.percentage=0
broker.session.timeout.ms=3000
";
        let (jars, controller) = (jars(), Some(free_port()));
        let boot = |node| Broker::boot(&jars, &Setup { node, controller, settings: REPLICATED.to_owned(), ..Setup::at("127.0.0.1") });
        let brokers = std::thread::scope(|scope| {
            let booting = [1, 2, 3].map(|node| scope.spawn(move || boot(node).unwrap_or_else(|reason| panic!("{reason}"))));
            booting.into_iter().map(|broker| broker.join().expect("the broker starts")).collect()
        });
        let cluster = Self { brokers };
        client::wait_until("three brokers", || client::members(&cluster.bootstrap()) == 3);
        cluster
    }

    /// `host:port` of each, for clients.
    pub(crate) fn bootstrap(&self) -> String {
        self.brokers.iter().map(Broker::bootstrap).collect::<Vec<_>>().join(",")
    }

    /// One of them, by its number from 1 on.
    pub(crate) fn broker(&mut self, node: i32) -> &mut Broker {
        &mut self.brokers[node as usize - 1]
    }
}

/// `host:port` of the broker that tests share when they neither kill nor pause it: the user's own from
/// `WATERWHEEL_TEST_KAFKA`, else one that is started at the first call and ends with the process.
/// Other tests use it too: take topic names from [`client::new_topic`].
pub(crate) fn shared() -> &'static str {
    static SHARED: OnceLock<(String, Option<Broker>)> = OnceLock::new();
    let (bootstrap, _) = SHARED.get_or_init(|| match std::env::var("WATERWHEEL_TEST_KAFKA") {
        Ok(bootstrap) if !bootstrap.is_empty() => (bootstrap, None),
        _ => {
            let broker = Broker::start();
            (broker.bootstrap(), Some(broker))
        }
    });
    bootstrap
}

/// The folder of Kafka's jars in the cache, where `script/test` puts them.
fn jars() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("WATERWHEEL_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("waterwheel")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/waterwheel")))
        .expect("HOME is set");
    let kafka = cache.join("kafka-4.2.0");
    assert!(
        kafka.join("complete").exists(),
        "this test needs Apache Kafka, and {} does not have it: run script/test once, which fetches it",
        kafka.display()
    );
    kafka.join("lib")
}

/// `java` with Kafka on its class path, tuned for a short life on a shared machine.
fn java(jars: &Path) -> Command {
    let java = std::env::var_os("JAVA_HOME").map_or_else(|| "java".into(), |home| PathBuf::from(home).join("bin/java"));
    let mut command = Command::new(java);
    command
        .args(["-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
        .arg("-Dorg.apache.logging.log4j.level=WARN")
        .arg("-cp")
        .arg(jars.join("*"));
    command
}

/// The broker's settings: internal topics small, old timestamps kept, and sessions short, so that a killed broker is back in
/// seconds. Of several lines with one name the last one counts.
fn properties(data: &Path, setup: &Setup, port: u16, controller: u16, doors: &BTreeMap<&str, u16>) -> String {
    let (host, node) = (&setup.host, setup.node);
    let entries: String = doors.iter().map(|(name, port)| format!(",{name}://{host}:{port}")).collect();
    let protocols: String = setup.doors.iter().map(|door| format!(",{}:{}", door.name, door.protocol)).collect();
    let (roles, control) = match node {
        1 => ("broker,controller", format!(",CONTROLLER://127.0.0.1:{controller}")),
        _ => ("broker", String::new()),
    };
    let mut said = format!(
        "\
process.roles={roles}
node.id={node}
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners=PLAINTEXT://{host}:{port}{entries}{control}
advertised.listeners=PLAINTEXT://{host}:{port}{entries}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT{protocols}
inter.broker.listener.name=PLAINTEXT
log.dirs={}
log.retention.ms=-1
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
broker.session.timeout.ms=1000
broker.heartbeat.interval.ms=300
",
        data.display()
    );
    for door in &setup.doors {
        let prefix = format!("listener.name.{}", door.name.to_lowercase());
        door.settings.iter().for_each(|setting| said += &format!("{prefix}.{setting}\n"));
    }
    said + &setup.settings
}

/// A port that nobody listens on. Below the ports that the kernel gives to clients: a client that keeps trying a dead
/// broker's port from that range can be given the same port and connect to itself.
fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % u32::from(COUNT)).expect("below COUNT");
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(step < COUNT, "no port is free from {FIRST} on");
        let port = FIRST + (start + step) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn signal(guard: &Child, signal: Signal) {
    let group = Pid::from_child(guard);
    // The group is gone already if the broker ended by itself; the test then fails where it misses the broker.
    let _ = kill_process_group(group, signal);
}

/// The last lines of a file.
fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
