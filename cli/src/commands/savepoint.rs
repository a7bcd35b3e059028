//! `waterwheel savepoint`: the same verbs as those of a job's program, for any job.
//!
//! Invariant: what a verb does is in the library; here is only which job is meant.

use clap::Args;
use std::path::PathBuf;
use waterwheel::engine::env::Env;
use waterwheel::program::{JobSettings, Options, SavepointVerb, savepoint_verb};
use waterwheel::{Error, Result};

#[derive(Debug, Args)]
pub(crate) struct SavepointArgs {
    #[command(subcommand)]
    verb: SavepointVerb,
    /// The job, where a verb needs one
    #[arg(long, global = true, value_name = "NAME")]
    job: Option<String>,
    /// Folder of checkpoints; the job's own is below it [default: ./checkpoints]
    #[arg(long, global = true, env = "WATERWHEEL_CHECKPOINTS", value_name = "FOLDER")]
    checkpoints: Option<PathBuf>,
    /// As JSON
    #[arg(long, global = true)]
    json: bool,
}

pub(crate) fn run(args: &SavepointArgs) -> Result<()> {
    let env = Env::real();
    let options = Options { checkpoints: args.checkpoints.clone(), ..Options::default() };
    let settings: JobSettings = options.settings()?;
    let needs_job = match &args.verb {
        SavepointVerb::Create { .. } | SavepointVerb::List | SavepointVerb::Usage => true,
        SavepointVerb::Read(read) => !read.names_a_savepoint(),
        SavepointVerb::Inspect { .. } | SavepointVerb::Delete { .. } => false,
    };
    let name = match &args.job {
        Some(name) => name.as_str(),
        None if needs_job => return Err(Error::fatal("this needs a job").help("name it: --job <name>")),
        None => "",
    };
    savepoint_verb(&env, name, &settings, &args.verb, args.json)
}
