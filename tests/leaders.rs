//! Leaders move between three brokers while a job reads exactly once and writes: two brokers are killed in turn, and lead again
//! what they led when they are back. Records go on being written to the input all the while.
//!
//! What is committed must be, per key and in order, what is in the input; nobody restarts, and librdkafka is never called in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::JoinHandle;

use rustix::process::Signal;
use serde_json::{Value, json};
use waterwheel::topics::TopicConfig;

use crate::support::fraud::Running;
use crate::support::kafka::Cluster;
use crate::support::kafka::client::{self, NewRecord};
use crate::support::small_job::SmallJob;

const PARTITIONS: u32 = 6;
const KEYS: i64 = 20;
/// Rows that are sure to be of another fetch, and of another transaction.
const MANY: i64 = 500;

/// Somebody who writes until dropped.
struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicI64>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    fn start(servers: String, topic: String) -> Self {
        let (stop, written) = (Arc::<AtomicBool>::default(), Arc::<AtomicI64>::default());
        let (stopped, count) = (stop.clone(), written.clone());
        let row = |n: i64| {
            let key = format!("k{}", n % KEYS);
            NewRecord::new(key.clone(), json!({ "key": key, "n": n, "at": n }).to_string())
        };
        let thread = std::thread::spawn(move || {
            for first in (0..).step_by(100) {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                client::produce(&servers, &topic, (first..first + 100).map(row));
                count.store(first + 100, Ordering::Relaxed);
            }
        });
        Self { stop, written, thread: Some(thread) }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().expect("dropped once").join();
        assert!(ended.is_ok() || std::thread::panicking(), "writing to the input failed");
    }
}

/// Waits until the job has committed many more records, of which some were not there before.
fn goes_on(job: &SmallJob, running: &mut Running, writer: &Writer) {
    let committed = || job.topics.describe(&job.output).map_or(0, |topic| topic.partitions.iter().map(|p| p.end - p.start).sum::<i64>());
    let (before, there) = (committed(), writer.written.load(Ordering::Relaxed));
    client::wait_until("more output", || {
        assert!(running.runs(), "the job ended: {}", running.status());
        committed() > before.max(there) + MANY
    });
}

/// The numbers of each key, in order.
fn numbers(servers: &str, topic: &str) -> BTreeMap<String, Vec<i64>> {
    let mut numbers: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for record in client::read_committed_all(servers, topic) {
        let row: Value = serde_json::from_slice(&record.value.expect("a value")).expect("JSON");
        numbers.entry(row["key"].as_str().expect("a key").to_owned()).or_default().push(row["n"].as_i64().expect("a number"));
    }
    numbers
}

#[test]
fn own_broker_leaders_move_and_every_row_comes_once_and_in_order() {
    let mut cluster = Cluster::start();
    let servers = cluster.bootstrap();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let job = SmallJob::at(folder, format!("kafka://{servers}"), "copy");
    job.create_input(PARTITIONS);
    job.topics.create(&job.output, &TopicConfig::partitions(PARTITIONS)).unwrap_or_else(|e| panic!("{}", e.report()));
    let writer = Writer::start(servers.clone(), job.input.clone());
    let mut command = job.run(&[]);
    command.env("WATERWHEEL_LOG", "debug");
    let mut running = Running::start(command);
    for node in [2, 3] {
        let led = |of_both: bool| {
            let leads = |topic: &str| client::leaders(&servers, topic).contains(&node);
            leads(&job.input) == of_both && leads(&job.output) == of_both
        };
        client::wait_until("the broker to lead", || led(true));
        goes_on(&job, &mut running, &writer);
        cluster.broker(node).kill9();
        client::wait_until("the others to lead", || led(false));
        goes_on(&job, &mut running, &writer);
        cluster.broker(node).restart();
        // With everybody alive its partitions move back to it.
        client::wait_until("the broker to lead again", || led(true));
        goes_on(&job, &mut running, &writer);
    }
    drop(writer);
    running.signal(Signal::INT);
    let (status, last, said) = running.wait();
    assert!(status.success() && last["restarts"] == 0, "{last}: {said}");
    // What the own clients say when they give way.
    assert!(!said.contains("librdkafka reads here") && !said.contains("librdkafka publishes"), "{said}");
    let (status, _, said) = job.start(&["--until-end"]).wait();
    assert!(status.success(), "{said}");
    let expected = numbers(&servers, &job.input);
    assert_eq!(expected.len(), KEYS as usize);
    assert!(expected.values().all(|numbers| numbers.is_sorted()), "the input is not in order itself");
    assert!(numbers(&servers, &job.output) == expected, "other rows, or another order, than in the input");
}
