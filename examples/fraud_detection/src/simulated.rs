//! The whole job on the simulated machine: virtual time, simulated files, one thread, one seed.
//!
//! Invariant: with crashes at random steps the committed topics are exactly as planted; the same seed takes the same steps.

use crate::generate::{Target, generate};
use crate::scenario::Scenario;
use crate::truth::{Verdict, verify};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use waterwheel::connectors::local::LocalTopics;
use waterwheel::engine::checkpoint;
use waterwheel::engine::env::Env;
use waterwheel::engine::runtime::{Outcome, Settings};
use waterwheel::engine::testing::{SimJob, SimMachine, Trace};
use waterwheel::program::{Draw, JobSettings, draw_job};
use waterwheel::topics::Topics;

fn topics(env: &Env) -> Arc<dyn Topics> {
    Arc::new(LocalTopics::new(env.clone(), PathBuf::from("data")))
}

/// The job, ready to be stepped, and its topics.
fn job(machine: &SimMachine) -> (SimJob, Arc<dyn Topics>) {
    job_of(machine, Arc::new(crate::fraud))
}

/// A job over a made-up day.
pub fn job_of(machine: &SimMachine, draw: Draw) -> (SimJob, Arc<dyn Topics>) {
    let outside = topics(&machine.outside());
    let scenario = Scenario {
        payments: 20_000,
        cards: 700,
        per_second: 1,
        frauds: [18, 12, 9, 6],
        duplicates: 100,
        late: 40,
        broken: 25,
        giant: false,
        ..Scenario::default()
    };
    generate(&Target { topics: &*outside, partitions: 4, retention: false }, &scenario).unwrap();
    let env = machine.env();
    let settings = JobSettings::at("local:data".parse().unwrap(), "checkpoints").parallelism(2).until_end();
    let checkpoint = checkpoint::Settings { interval: Duration::from_millis(2), ..Default::default() };
    let run = Settings { batch_rows: 64, checkpoint, ..Settings::default() };
    let mut simulated = SimJob::new(machine.clone(), run, move || draw_job("fraud", &settings, &draw, &env)?.plan());
    simulated.start().unwrap();
    (simulated, outside)
}

/// How many steps the job takes when nothing happens, in hundreds.
fn hundreds(seed: u64) -> usize {
    let (mut simulated, _) = job(&SimMachine::new(seed));
    1 + (0..).take_while(|_| simulated.run(100).unwrap().is_none()).count()
}

/// With one crash in the middle.
fn run(seed: u64, hundreds: usize) -> (Verdict, Trace) {
    let machine = SimMachine::new(seed);
    let (mut simulated, outside) = job(&machine);
    assert_eq!(simulated.run(20 * hundreds + machine.choose(60 * hundreds)).unwrap(), None, "the crash comes too late");
    simulated.crash();
    simulated.start().unwrap();
    let outcome = simulated.run(5_000_000).unwrap();
    assert_eq!(outcome, Some(Outcome::Finished), "{}", simulated.describe());
    (verify(&*outside).unwrap(), simulated.trace())
}

#[test]
fn a_crash_changes_nothing_and_a_seed_takes_the_same_steps_twice() {
    for seed in [1, 2] {
        let hundreds = hundreds(seed);
        let (verdict, trace) = run(seed, hundreds);
        assert!(verdict.is_exact(), "seed {seed}:\n{verdict}");
        assert_eq!(run(seed, hundreds).1, trace, "seed {seed} took other steps");
    }
}
