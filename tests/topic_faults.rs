//! What becomes of a job whose topics change or lose records under it: while it runs, and while it is stopped.

use crate::support::fraud::Running;
use crate::support::kafka::client;
use crate::support::small_job::{Log, SmallJob};
use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

/// How soon a job must notice that its input is another topic.
const SOON: Duration = Duration::from_secs(15);

/// Waits until this is the newest committed total of a job that runs.
pub(crate) fn total_becomes(job: &SmallJob, running: &mut Running, expected: i64) {
    client::wait_until(&format!("the total {expected}"), || {
        assert!(running.runs(), "the job ended: {}", running.status());
        job.total() == Some(expected)
    });
}

fn stopped(job: Running) {
    job.signal(Signal::INT);
    let (status, _, said) = job.wait();
    assert!(status.success(), "{said}");
}

/// Ends with an exit code and these words.
fn ends(job: Running, code: i32, says: &[&str]) {
    let (status, _, said) = job.wait();
    assert_eq!(status.code(), Some(code), "{said}");
    for word in says.iter().chain(&["error: ", "help: "]) {
        assert!(said.contains(word), "{word:?} is not said in: {said}");
    }
}

/// Deletes the input and makes it again, with more records than were ever read.
pub(crate) fn made_again(job: &SmallJob) {
    job.topics.delete(&job.input).expect("deleted");
    client::wait_until("the topic to be gone", || !job.topics.list().expect("topics").contains(&job.input));
    job.create_again();
    (0..20).for_each(|_| job.item(0, "a", 1_000));
}

fn another_topic_of_that_name_while_it_is_stopped(log: Log) {
    let job = SmallJob::new(log, "fail", 1);
    job.item(0, "a", 1);
    job.item(0, "a", 2);
    let mut running = job.start(&[]);
    total_becomes(&job, &mut running, 3);
    stopped(running);
    made_again(&job);
    for _ in 0..2 {
        ends(job.start(&["--until-end"]), 3, &["made again", &job.input, "--fresh"]);
    }
    assert_eq!(job.total(), Some(3), "something of the new topic was published");
    let (status, _, said) = job.start(&["--until-end", "--fresh"]).wait();
    assert!(status.success(), "{said}");
    assert_eq!(job.total(), Some(20_000));
}

fn another_topic_of_that_name_while_it_runs(log: Log) {
    let job = SmallJob::new(log, "fail", 1);
    job.item(0, "a", 1);
    job.item(0, "a", 2);
    let mut running = job.start(&[]);
    total_becomes(&job, &mut running, 3);
    made_again(&job);
    let since = Instant::now();
    ends(running, 1, &["made again", &job.input, "--fresh"]);
    assert!(since.elapsed() < SOON, "noticed only after {:?}", since.elapsed());
    assert_eq!(job.total(), Some(3), "something of the new topic was published");
}

#[test]
fn made_again_while_stopped_on_the_embedded_log() {
    another_topic_of_that_name_while_it_is_stopped(Log::Embedded);
}

#[test]
fn made_again_while_stopped_on_kafka() {
    another_topic_of_that_name_while_it_is_stopped(Log::Kafka);
}

#[test]
fn made_again_while_running_on_the_embedded_log() {
    another_topic_of_that_name_while_it_runs(Log::Embedded);
}

#[test]
fn made_again_while_running_on_kafka() {
    another_topic_of_that_name_while_it_runs(Log::Kafka);
}

#[test]
fn deleted_while_running() {
    for log in [Log::Embedded, Log::Kafka] {
        let job = SmallJob::new(log, "fail", 1);
        job.item(0, "a", 1);
        let mut running = job.start(&[]);
        total_becomes(&job, &mut running, 1);
        job.topics.delete(&job.input).expect("deleted");
        ends(running, 1, &[&job.input]);
        assert_eq!(job.total(), Some(1));
    }
}

#[test]
fn a_partition_added_while_it_runs_is_read_from_its_beginning() {
    let job = SmallJob::new(Log::Kafka, "fail", 1);
    job.item(0, "a", 1);
    let mut running = job.start(&[]);
    total_becomes(&job, &mut running, 1);
    crate::kafka_source::topics(crate::support::kafka::shared()).add_partitions(&job.input, 3).expect("grown");
    job.item(2, "a", 10);
    job.item(1, "a", 100);
    total_becomes(&job, &mut running, 111);
    stopped(running);
    job.item(2, "a", 1_000);
    let mut running = job.start(&[]);
    total_becomes(&job, &mut running, 1_111);
    stopped(running);
}

#[test]
fn offsets_that_are_gone_stop_the_job_unless_the_gap_is_accepted() {
    let job = SmallJob::new(Log::Kafka, "fail", 1);
    job.item(0, "a", 1);
    let mut running = job.start(&[]);
    total_becomes(&job, &mut running, 1);
    stopped(running);
    (0..4).for_each(|_| job.item(0, "a", 10));
    crate::kafka_source::delete_records(crate::support::kafka::shared(), &job.input, 4);
    ends(job.start(&[]), 1, &["offsets 1..4", "retention", "run --on-lost-offsets earliest", "run --from <savepoint>"]);
    assert_eq!(job.total(), Some(1));
    let mut running = job.start(&["--on-lost-offsets", "earliest"]);
    total_becomes(&job, &mut running, 11);
    stopped(running);
}

#[test]
fn a_topic_that_is_missing_is_refused_with_the_command_that_makes_it() {
    for log in [Log::Embedded, Log::Kafka] {
        let job = SmallJob::new(log, "fail", 1);
        job.topics.delete(&job.input).expect("deleted");
        let create = format!("waterwheel topic create {} --partitions 4 --topics {}", job.input, job.url);
        ends(job.start(&[]), 3, &["does not exist", &create]);
    }
}

/// The ends of a run with `--until-end` are those of its start, also for a job that began without an end; and a job that
/// began with one reads on without.
#[test]
fn an_end_can_be_set_and_taken_away_later() {
    for log in [Log::Embedded, Log::Kafka] {
        let job = SmallJob::new(log, "fail", 2);
        job.item(0, "a", 1);
        let mut running = job.start(&[]);
        total_becomes(&job, &mut running, 1);
        stopped(running);
        job.item(1, "a", 10);
        let (status, last, said) = job.start(&["--until-end"]).wait();
        assert!(status.success() && last["phase"] == "finished", "{said}");
        assert_eq!(job.total(), Some(11));
        // What is finished stays so: its windows are closed.
        job.item(1, "a", 100);
        ends(job.start(&[]), 3, &["is finished", "--fresh"]);
        assert!(job.start(&["--until-end"]).wait().0.success());
        assert_eq!(job.total(), Some(11));
    }
}

#[test]
fn an_end_can_be_taken_away_before_it_is_reached() {
    let job = SmallJob::new(Log::Embedded, "fail", 2);
    // Enough for several checkpoint intervals: 200,000 are read within one.
    job.items("a", 1_000_000);
    let mut dies = job.run(&["--until-end", "--batch-rows", "8"]);
    dies.env("WATERWHEEL_MOMENT", "CheckpointLogged:1:kill");
    let (status, _, said) = Running::start(dies).wait();
    assert_eq!(status.signal(), Some(9), "{said}");
    job.items("a", 10);
    let mut running = job.start(&[]);
    total_becomes(&job, &mut running, 1_000_010);
    stopped(running);
}
