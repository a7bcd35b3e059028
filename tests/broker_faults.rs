//! The broker dies under the whole fraud job, or is away for longer than a transaction may stay open: the job waits, says
//! so, and goes on by itself; what it commits is what a run without faults commits.

use crate::support::fraud::{Fraud, Running, Size};
use crate::support::kafka::Broker;
use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;
use waterwheel::engine::env::Moment;

/// Longer than the transactions of the second half of these tests may last, and than the broker's next look at them.
const OUTAGE: Duration = Duration::from_secs(5);
const SHORT_TRANSACTIONS: &str = "?transaction.timeout.ms=2000";

fn waits_visibly(job: &mut Running) {
    let told = job.wait_for("word of the broker being away", |s| s["waiting"].as_object().is_some_and(|w| !w.is_empty()));
    assert!(told, "the job ended when the broker went away");
}

fn ends_well(job: Running, fraud: &Fraud) {
    let (status, last, said) = job.wait();
    assert!(status.success() && last["phase"] == "finished", "the job ended with {status}: {said}");
    fraud.assert_exact();
}

#[test]
fn own_broker_is_killed_twice_under_the_job() {
    let mut broker = Broker::start();
    let fraud = Fraud::on_kafka(Size::Long, &broker.bootstrap(), "");
    let mut job = fraud.start(1, &[]);
    for published in [1, 2] {
        let out = job.wait_for("output", |s| s["published"].as_u64() >= Some(published));
        assert!(out, "the job ended before the broker was killed for the second time");
        broker.kill9();
        waits_visibly(&mut job);
        broker.restart();
    }
    ends_well(job, &fraud);
}

/// A process that sleeps in an open transaction finds it aborted, and publishes once more.
fn sleeps_in_an_open_transaction(moment: Moment) {
    let broker = Broker::start();
    let fraud = Fraud::on_kafka(Size::Brief, &broker.bootstrap(), SHORT_TRANSACTIONS);
    let mut job = fraud.start_until(1, moment, 2, Signal::STOP);
    job.wait_until_frozen();
    std::thread::sleep(OUTAGE);
    job.signal(Signal::CONT);
    ends_well(job, &fraud);
}

#[test]
fn own_broker_aborts_the_records_of_a_sleeper() {
    sleeps_in_an_open_transaction(Moment::Delivered);
}

#[test]
fn own_broker_aborts_the_marker_of_a_sleeper() {
    sleeps_in_an_open_transaction(Moment::Marked);
}

/// What two-phase commit loses: the process is gone, and the broker aborts what it had open and complete.
#[test]
fn own_broker_aborts_what_a_dead_process_has_open() {
    let broker = Broker::start();
    let fraud = Fraud::on_kafka(Size::Brief, &broker.bootstrap(), SHORT_TRANSACTIONS);
    for moment in [Moment::Delivered, Moment::Marked] {
        let (status, ..) = fraud.start_until(1, moment, 3, Signal::KILL).wait();
        assert_eq!(status.signal(), Some(9), "{moment:?} is not reached");
        std::thread::sleep(OUTAGE);
    }
    ends_well(fraud.start(2, &[]), &fraud);
}

#[test]
fn own_broker_is_away_for_longer_than_a_transaction_lasts() {
    let broker = Broker::start();
    let fraud = Fraud::on_kafka(Size::Brief, &broker.bootstrap(), SHORT_TRANSACTIONS);
    let mut job = fraud.start(1, &[]);
    job.wait_for_checkpoints(2);
    broker.sigstop();
    std::thread::sleep(OUTAGE);
    broker.sigcont();
    ends_well(job, &fraud);
}

#[test]
fn own_broker_is_away_at_the_start() {
    let mut broker = Broker::start();
    let fraud = Fraud::on_kafka(Size::Brief, &broker.bootstrap(), "");
    broker.kill9();
    // With a deadline the job gives up; without one it waits until the broker is there.
    let (status, _, said) = fraud.start(1, &["--outside-deadline", "2s"]).wait();
    assert_eq!(status.code(), Some(3), "{said}");
    assert!(said.contains("kept failing") && said.contains(&broker.bootstrap()) && said.contains("help: "), "{said}");
    let mut job = fraud.start(1, &[]);
    waits_visibly(&mut job);
    broker.restart();
    ends_well(job, &fraud);
}
