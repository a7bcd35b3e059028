//! The verb `check`: everything that `run` would trip over, without running anything.
//!
//! Invariant: nothing is read from topics, written to them, or changed in the job's state.

use super::launch::{Draw, draw_job};
use super::savepoint::{newest_checkpoint, print_json};
use super::settings::JobSettings;
use serde::Serialize;
use std::collections::BTreeSet;
use waterwheel_engine::checkpoint::{Restore, RestoreTarget};
use waterwheel_engine::env::Env;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::graph::{NodeKind, PhysicalPlan};
use waterwheel_engine::record::OperatorId;
use waterwheel_engine::runtime::summarize;

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
    let is_new = match settings.run.remote {
        Some(_) => settings.storage(env, name)?.list("log")?.is_empty(),
        None => !env.files.exists(&settings.run.checkpoints.join(name).join("log"))?,
    };
    if is_new {
        return Ok(": none, the job is new here".into());
    }
    let Some(manifest) = newest_checkpoint(env, name, settings)? else {
        return Ok(": no complete checkpoint yet".into());
    };
    let drop_state: BTreeSet<OperatorId> = settings.run.drop_state.iter().map(|id| OperatorId::new(id.as_str())).collect();
    let summary = summarize(env, plan)?;
    Restore::check(
        &manifest,
        RestoreTarget {
            job: name,
            max_parallelism: plan.max_parallelism,
            operators: &summary.operators,
            drop_state: &drop_state,
            of_any_job: false,
        },
    )?;
    Ok(format!(": checkpoint {} fits this job", manifest.epoch))
}
