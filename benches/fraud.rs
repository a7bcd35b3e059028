//! How many payments does a CPU-second of the fraud job work off, exactly-once from Kafka to Kafka?
//!
//! The example's own program with everything on: 100,000 cards, 10,000 payments per second of event time, checkpoints each
//! second. It runs as a process of its own; what it burnt is what the system says of it after its end.
#![expect(clippy::disallowed_methods, reason = "a bench is no part of a job: it looks for the example's program")]

use std::path::PathBuf;
use std::process::Command;
use waterwheel_benches::job::Place;
use waterwheel_benches::kafka;
use waterwheel_benches::meter::{Target, cpu_of_children, figure, millions};

const PAYMENTS: u64 = 6_200_000;

/// The example's program, built with the same profile as this one.
fn program() -> PathBuf {
    let me = std::env::current_exe().expect("a running program has a path");
    let built = me.ancestors().nth(2).expect("benches are built into <profile>/deps").join("fraud_detection");
    assert!(built.exists(), "{} is missing: run script/bench fraud, which builds it", built.display());
    built
}

fn call(arguments: &[&str]) {
    let mut command = Command::new(program());
    let status = command.args(arguments).stdout(std::process::Stdio::null()).status().expect("the example starts");
    assert!(status.success(), "fraud_detection {} ended with {status}", arguments.join(" "));
}

fn main() {
    let place = Place::default();
    let topics = format!("kafka://{}", kafka::broker());
    let checkpoints = place.folder().join("checkpoints").display().to_string();
    let payments = PAYMENTS.to_string();
    call(&["generate", "--topics", &topics, "--payments", &payments, "--cards", "100000", "--per-second", "10000"]);
    let before = cpu_of_children();
    call(&["run", "--topics", &topics, "--checkpoints", &checkpoints, "--checkpoint-interval", "1s", "--until-end"]);
    let spent = cpu_of_children().saturating_sub(before);
    figure("fraud", millions(PAYMENTS, spent), "M payments per CPU-second", Target::AtLeast(0.2));
}
