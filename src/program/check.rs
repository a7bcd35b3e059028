//! The verb `check`: everything that `run` would trip over, without running anything.
//!
//! Invariant: nothing is read from topics, written to them, or changed in the job's state.

use super::launch::{Draw, draw_job};
use super::savepoint::{newest_checkpoint, print_json};
use super::settings::JobSettings;
use serde::Serialize;
use waterwheel_engine::checkpoint::Manifest;
use waterwheel_engine::env::Env;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::graph::{NodeKind, PhysicalPlan};

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Checked {
    what: String,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

impl Checked {
    fn of(what: String, result: Result<String>) -> Checked {
        match result {
            Ok(more) => Checked { what: format!("{what}{more}"), ok: true, problem: None },
            Err(e) => Checked { what, ok: false, problem: Some(e.report()) },
        }
    }
}

/// Checks topics, rights and state; the last error counts them.
pub(super) fn check(name: &str, settings: &JobSettings, draw: &Draw, env: &Env, json: bool) -> Result<()> {
    let job = draw_job(name, settings, draw, env)?;
    let plan = job.plan()?;
    let mut all = vec![Checked::of(format!("job {name}"), Ok(format!(": {} operators", operators(&plan).count())))];
    for node in plan.chains.iter().flat_map(|c| &c.nodes) {
        match &node.kind {
            NodeKind::Source(spec) => {
                let splits = spec.source.splits(false).map(|splits| format!(", {} splits", splits.len()));
                all.push(Checked::of(format!("source {}: {}", node.id, spec.source.describe()), splits));
            }
            NodeKind::Sink(spec) => {
                let checked = spec.sink.check().map(|()| String::new());
                all.push(Checked::of(format!("sink {}: {}", node.id, spec.sink.describe()), checked));
            }
            NodeKind::Operator(_) => {}
        }
    }
    all.push(Checked::of("state".into(), state(name, settings, &plan, env)));
    let failed = all.iter().filter(|c| !c.ok).count();
    if json {
        print_json(&all)?;
    } else {
        for c in &all {
            println!("{} {}", if c.ok { "  ok   " } else { "  FAIL " }, c.what);
            for line in c.problem.iter().flat_map(|p| p.lines()) {
                println!("         {line}");
            }
        }
    }
    match failed {
        0 => Ok(()),
        1 => Err(Error::fatal("one check failed").at(format!("job {name}"))),
        n => Err(Error::fatal(format!("{n} checks failed")).at(format!("job {name}"))),
    }
}

fn operators(plan: &PhysicalPlan) -> impl Iterator<Item = &waterwheel_engine::graph::PlanNode> {
    plan.chains.iter().flat_map(|c| &c.nodes)
}

fn state(name: &str, settings: &JobSettings, plan: &PhysicalPlan, env: &Env) -> Result<String> {
    if !env.files.exists(&settings.run.checkpoints.join(name).join("log")) {
        return Ok(": none, the job is new here".into());
    }
    let Some(manifest) = newest_checkpoint(env, name, settings)? else {
        return Ok(": no complete checkpoint yet".into());
    };
    fits(&manifest, plan)?;
    Ok(format!(": checkpoint {} fits this job", manifest.epoch))
}

/// Whether a checkpoint's state has a home in this plan.
fn fits(manifest: &Manifest, plan: &PhysicalPlan) -> Result<()> {
    if manifest.max_parallelism != plan.max_parallelism {
        return Err(Error::fatal(format!("the job has {} key groups now, its state {}", plan.max_parallelism, manifest.max_parallelism))
            .help(format!("set max_parallelism to {} again", manifest.max_parallelism)));
    }
    let known = |id: &str| operators(plan).any(|n| n.id.as_str() == id);
    let saved = manifest.tasks.iter().flat_map(|t| &t.operators).filter(|o| o.has_state());
    let mut homeless: Vec<&str> = saved.map(|o| o.id.as_str()).filter(|id| !known(id)).collect();
    homeless.sort_unstable();
    homeless.dedup();
    if homeless.is_empty() {
        return Ok(());
    }
    Err(Error::fatal(format!("checkpoint {} holds state of operators that the job has no more: {}", manifest.epoch, homeless.join(", ")))
        .help("give the operators their ids back with .id(\"...\")")
        .help(format!("or let that state go:  run --drop-state {}", homeless.join(","))))
}
