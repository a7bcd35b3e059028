//! A job that sleeps while another process takes it over wakes up as a zombie: it must publish nothing more and end by
//! itself, with an error, and without harm to its successor.

use crate::support::fraud::{Fraud, Running};
use rustix::process::Signal;

/// Stops the job in the middle, lets a successor publish, and wakes the old one up while the successor runs.
fn a_zombie_ends_and_harms_nobody(fraud: &Fraud) {
    let mut zombie: Running = fraud.start(1, &[]);
    zombie.wait_for_checkpoints(1);
    zombie.signal(Signal::STOP);
    let mut successor = fraud.start(2, &["--take-over"]);
    successor.wait_for_checkpoints(1);
    zombie.signal(Signal::CONT);
    let (status, last, said) = zombie.wait();
    assert!(!status.success() && last["phase"] != "finished", "the zombie ended with {status}: {said}");
    assert!(said.contains("error: "), "it gives no reason: {said}");
    let (status, last, said) = successor.wait();
    assert!(status.success(), "the successor ended with {status}: {said}");
    assert_eq!((&last["phase"], &last["restarts"]), (&"finished".into(), &0.into()), "{said}");
    fraud.assert_exact();
}

#[test]
fn on_the_embedded_log() {
    a_zombie_ends_and_harms_nobody(&Fraud::on_embedded_log());
}
