//! From a description and settings to a job that runs: what the verb `run` and tests share.
//!
//! Invariant: the description is drawn anew for every attempt, with the same settings, so that a restart runs the same plan.

use super::settings::JobSettings;
use super::until_end::UntilEnd;
use crate::Job;
use std::sync::Arc;
use waterwheel_connectors::topics::Topics;
use waterwheel_engine::env::Env;
use waterwheel_engine::error::Result;
use waterwheel_engine::runtime::{JobRunner, Outcome};
use waterwheel_engine::state::{RocksSettings, TieredStores};

/// Describes a job.
pub type Draw = Arc<dyn Fn(&Job) -> Result<()> + Send + Sync>;

/// The job as drawn, its topics at the place that the settings name. Connects to nothing.
///
/// # Errors
/// Settings that cannot work, and those of the description.
pub fn draw_job(name: &str, settings: &JobSettings, draw: &Draw, env: &Env) -> Result<Job> {
    let mut topics: Arc<dyn Topics> = settings.topics.open(env)?;
    if settings.until_end {
        topics = Arc::new(UntilEnd(topics));
    }
    let job = Job::new(name, topics).on_lost_offsets(settings.on_lost_offsets).until_end(settings.until_end);
    job.parallelism(settings.parallelism);
    draw(&job)?;
    Ok(job)
}

/// A job on the real machine, ready to [`run`](JobRunner::run); its [`control`](JobRunner::control), metrics and status are
/// at hand before it does.
///
/// # Errors
/// As [`draw_job`], and what is wrong with the plan.
pub fn job_runner(name: &str, settings: &JobSettings, draw: impl Fn(&Job) -> Result<()> + Send + Sync + 'static) -> Result<JobRunner> {
    runner(name, settings, Arc::new(draw), Env::real())
}

/// Runs a job on this thread until it is finished, stopped or beyond help.
///
/// ```no_run
/// use waterwheel::program::{JobSettings, run_job};
/// let settings = JobSettings::at("local:./data".parse()?, "./checkpoints").until_end();
/// run_job("copy", &settings, |job| {
///     use waterwheel::prelude::*;
///     job.topic("in").string().to_topic("out");
///     Ok(())
/// })?;
/// # Ok::<(), waterwheel::Error>(())
/// ```
///
/// # Errors
/// As [`job_runner`] and [`JobRunner::run`].
pub fn run_job(name: &str, settings: &JobSettings, draw: impl Fn(&Job) -> Result<()> + Send + Sync + 'static) -> Result<Outcome> {
    job_runner(name, settings, draw)?.run()
}

pub(super) fn runner(name: &str, settings: &JobSettings, draw: Draw, env: Env) -> Result<JobRunner> {
    let plan = draw_job(name, settings, &draw, &env)?.plan()?;
    let mut run = settings.run.clone();
    if let Some(memory) = settings.memory {
        let tasks: u64 = plan.chains.iter().map(|chain| u64::from(chain.parallelism)).sum();
        run.memory_per_task = usize::try_from(memory / tasks.max(1)).unwrap_or(usize::MAX);
    }
    drop(plan);
    let stores = Arc::new(TieredStores::on_disk(&env, RocksSettings::default()));
    let (name, settings, env_) = (name.to_string(), settings.clone(), env.clone());
    let plan = Arc::new(move || draw_job(&name, &settings, &draw, &env_)?.plan());
    Ok(JobRunner::new(env, stores, plan, run))
}
