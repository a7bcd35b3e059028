//! A job that sleeps while another process takes it over wakes up as a zombie: it must publish nothing more and end by
//! itself, with an error, and without harm to its successor.
//!
//! It falls asleep between two publishes, in the middle of one (its records delivered, its transaction open), and just
//! before the commit (the marker in it).

use crate::support::fraud::{Fraud, Running, Size};
use crate::support::kafka::Broker;
use rustix::process::Signal;
use waterwheel::engine::env::Moment;

/// When the zombie falls asleep.
#[derive(Clone, Copy)]
pub(crate) enum Sleep {
    /// After its first checkpoint, whatever it does then.
    Sometime,
    /// There, for the third time.
    At(Moment),
}

/// Stops the job in the middle, lets a successor publish, and wakes the old one up while the successor runs.
///
/// # Panics
/// If anything is published that should not be, or the zombie goes on.
pub(crate) fn a_zombie_ends_and_harms_nobody(fraud: &Fraud, sleep: Sleep) {
    let mut zombie: Running = match sleep {
        Sleep::Sometime => {
            let mut job = fraud.start(1, &[]);
            job.wait_for_checkpoints(1);
            job.signal(Signal::STOP);
            job
        }
        Sleep::At(moment) => fraud.start_until(1, moment, 3, Signal::STOP),
    };
    zombie.wait_until_frozen();
    let mut successor = fraud.start(2, &["--take-over"]);
    successor.wait_for_checkpoints(1);
    zombie.signal(Signal::CONT);
    let (status, last, said) = zombie.wait();
    assert!(!status.success() && last["phase"] != "finished", "the zombie ended with {status}: {said}");
    assert!(said.contains("error: ") && said.contains("taken"), "it gives no reason: {said}");
    let (status, last, said) = successor.wait();
    assert!(status.success(), "the successor ended with {status}: {said}");
    assert_eq!((&last["phase"], &last["restarts"]), (&"finished".into(), &0.into()), "{said}");
    fraud.assert_exact();
}

#[test]
fn on_the_embedded_log() {
    for sleep in [Sleep::Sometime, Sleep::At(Moment::Delivered)] {
        a_zombie_ends_and_harms_nobody(&Fraud::on_embedded_log(Size::Brief), sleep);
    }
}

#[test]
fn on_its_own_broker_between_two_publishes() {
    let broker = Broker::start();
    a_zombie_ends_and_harms_nobody(&Fraud::on_kafka(Size::Brief, &broker.bootstrap(), ""), Sleep::Sometime);
}

#[test]
fn on_its_own_broker_in_an_open_transaction() {
    let broker = Broker::start();
    a_zombie_ends_and_harms_nobody(&Fraud::on_kafka(Size::Brief, &broker.bootstrap(), ""), Sleep::At(Moment::Delivered));
}

#[test]
fn on_its_own_broker_before_the_commit() {
    let broker = Broker::start();
    a_zombie_ends_and_harms_nobody(&Fraud::on_kafka(Size::Brief, &broker.bootstrap(), ""), Sleep::At(Moment::Marked));
}
