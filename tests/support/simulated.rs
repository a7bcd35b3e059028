//! What tests of whole jobs on the simulated machine share: its topics, what was committed to them, and a run with crashes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use waterwheel::connectors::local::LocalTopics;
use waterwheel::engine::checkpoint;
use waterwheel::engine::env::Env;
use waterwheel::engine::error::Result;
use waterwheel::engine::graph::PhysicalPlan;
use waterwheel::engine::record::RawRecord;
use waterwheel::engine::runtime::{Outcome, Settings};
use waterwheel::engine::testing::{SimJob, SimMachine};
use waterwheel::topics::{End, Reading, SourceOptions, Topics};

/// The machine's topics.
pub(crate) fn topics(env: &Env) -> Arc<dyn Topics> {
    Arc::new(LocalTopics::new(env.clone(), PathBuf::from("data")))
}

/// Every committed record of a topic, in order by partition.
pub(crate) fn each_committed(env: &Env, topic: &str, mut each: impl FnMut(RawRecord<'_>)) {
    let source = topics(env).source(SourceOptions::new(topic).end(End::Latest)).unwrap();
    let drained = Reading::open(&*source, env).unwrap().drain(|batch| {
        batch.records().for_each(&mut each);
        Ok(())
    });
    drained.unwrap();
}

/// Small batches and a checkpoint each few milliseconds, so that little work meets many moments.
pub(crate) fn settings() -> Settings {
    let checkpoint = checkpoint::Settings { interval: Duration::from_millis(5), ..Default::default() };
    Settings { batch_rows: 4, checkpoint, ..Settings::default() }
}

/// Runs a job to its end through crashes at random steps, with other numbers of tasks after each; `plan` gets how many.
pub(crate) fn crash_and_rescale(
    machine: &SimMachine,
    crashes: usize,
    plan: impl Fn(&Env, u32) -> Result<PhysicalPlan> + Send + Sync + 'static,
) {
    let (env, parallelism) = (machine.env(), Arc::new(AtomicU32::new(2)));
    let tasks = parallelism.clone();
    let mut job = SimJob::new(machine.clone(), settings(), move || plan(&env, tasks.load(Relaxed)));
    job.start().unwrap_or_else(|e| panic!("{}", e.report()));
    for _ in 0..crashes {
        if job.run(machine.choose(3000)).unwrap().is_none() {
            job.crash();
        }
        parallelism.store(1 + machine.choose(3) as u32, Relaxed);
        job.start().unwrap();
    }
    let outcome = job.run(2_000_000).unwrap();
    assert_eq!(outcome, Some(Outcome::Finished), "the job does not come to its end: {}", job.describe());
}
