//! What the one door to the outside costs: a fixed number of calls a batch, none a row.
//!
//! Invariant: both runs have the same number of batches and steps, so what differs is the rows.

use super::graph::{Draw, Ground, Shape, Violations};
use super::input::{Form, Input};
use super::workloads::Workload;
use std::time::Duration;
use waterwheel::engine::checkpoint;
use waterwheel::engine::runtime::{Outcome, Settings};
use waterwheel::engine::testing::{SimBroker, SimJob, SimMachine};

/// Calls a batch, with the checkpoints that fall on it.
const A_BATCH: u64 = 60;

/// Calls into the environment of a run of so many rows in so many batches.
fn calls(workload: &'static str, rows: usize, batches: usize) -> u64 {
    let machine = SimMachine::new(7);
    let broker = SimBroker::new();
    let input = Input::make(&machine, &broker, rows, Form::Plain);
    let before = machine.env_calls();
    let ground = Ground {
        machine: machine.clone(),
        broker,
        input,
        violations: Violations::default(),
        lanes: 2,
        trims: false,
        max_ahead: None,
        shares_files: false,
    };
    let checkpoint = checkpoint::Settings { interval: Duration::from_millis(50), ..Default::default() };
    let settings = Settings { batch_rows: rows / batches, channel_bytes: 64 << 20, checkpoint, ..Settings::default() };
    let workload = Workload::named(workload).expect("a workload");
    let plan = move || {
        let draw = Draw::new(ground.clone(), Shape { parallelism: 2, upgraded: false });
        (workload.draw)(&draw);
        draw.plan()
    };
    let mut job = SimJob::new(machine.clone(), settings, plan);
    job.start().unwrap();
    assert_eq!(job.run(400_000).unwrap(), Some(Outcome::Finished));
    machine.env_calls() - before
}

#[test]
fn the_environment_is_asked_per_batch_and_never_per_row() {
    for workload in ["stateless", "count", "tumbling", "sort", "dedup"] {
        let (few, many) = (calls(workload, 2_000, 200), calls(workload, 20_000, 200));
        assert!(many < few * 3 / 2, "{workload}: ten times the rows in as many batches make {many} calls in place of {few}");
        assert!(few < 200 * A_BATCH, "{workload}: {few} calls for 200 batches");
    }
}
