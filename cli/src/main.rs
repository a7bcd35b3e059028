//! The command `waterwheel`: topics and SQL from the shell, on the embedded log and on Kafka alike; the stored state of jobs.
//!
//! Invariant: exit code 0 = done, 1 = failed, 2 = the command line is wrong; errors say cause, place and remedy.

mod commands;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Topics, SQL and savepoints from the shell. Typed jobs are programs of their own: see `run --help` of yours.
#[derive(Debug, Parser)]
#[command(
    name = "waterwheel",
    version,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done; 1 failed; 2 the command line is wrong"
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make, list, describe, fill, read and delete topics
    Topic(commands::topic::TopicArgs),
    /// Savepoints of a job, and what is in them
    Savepoint(Box<commands::savepoint::SavepointArgs>),
    /// Query topics, or run a script of inserts as a job
    Sql(commands::sql::SqlArgs),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => waterwheel::program::without_secrets(e).exit(),
    };
    let done = match cli.verb {
        Verb::Topic(args) => commands::topic::run(args),
        Verb::Savepoint(args) => commands::savepoint::run(&args),
        Verb::Sql(args) => return commands::sql::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => waterwheel::program::fail(&e, waterwheel::program::FAILED),
    }
}
