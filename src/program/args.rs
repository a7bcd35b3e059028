//! The command line of a job's program.
//!
//! Invariant: one name means one thing in every verb.

use super::analyze;
use super::launch::{Draw, draw_job};
use super::savepoint::{SavepointVerb, print_json, running_numbers};
use super::settings::{JobSettings, Options};
use super::units::Span;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use waterwheel_engine::env::Env;
use waterwheel_engine::error::Result;

/// Heading of what is meant for one run, and so can be said on the command line only.
const THIS_RUN: &str = "For this run alone";
/// See the module's table.
const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed; 2 the command line or a setting is wrong; 3 refused before anything ran; \
130 ended at once, by the second Ctrl-C";

/// The verbs.
#[derive(Debug, Parser)]
#[command(version, disable_help_subcommand = true, subcommand_required = true, arg_required_else_help = true, after_help = EXIT_CODES)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run the job; it goes on where it was
    Run(Box<RunArgs>),
    /// Say what the job will do, what it costs and what it promises
    Explain(Box<ExplainArgs>),
    /// Connect, check topics, rights and state; run nothing
    Check(Box<CheckArgs>),
    /// Named copies of the job's state
    Savepoint(Box<SavepointArgs>),
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) options: Options,
    /// Start from this savepoint
    #[arg(long, help_heading = THIS_RUN, value_name = "FOLDER", conflicts_with = "fresh")]
    pub(super) from: Option<PathBuf>,
    /// Start over with empty state
    #[arg(long, help_heading = THIS_RUN)]
    pub(super) fresh: bool,
    /// Win against another process that runs this job
    #[arg(long, help_heading = THIS_RUN)]
    pub(super) take_over: bool,
    /// End by itself when everything is worked off that the topics hold at the start
    #[arg(long, help_heading = THIS_RUN)]
    pub(super) until_end: bool,
    /// Let the state of these operators go, which the job has no more
    #[arg(long, help_heading = THIS_RUN, value_name = "ID", value_delimiter = ',')]
    pub(super) drop_state: Vec<String>,
    /// Publish again what was published after the point of start
    #[arg(long, help_heading = THIS_RUN)]
    pub(super) accept_duplicates: bool,
    /// Show the status as JSON, an object a line, on standard output
    #[arg(long, help_heading = THIS_RUN)]
    pub(super) json: bool,
    /// How often to show the status [default: 250ms on a terminal, 500ms as JSON, else 10s]
    #[arg(long, help_heading = THIS_RUN, value_name = "DURATION")]
    pub(super) status_interval: Option<Span>,
}

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    pub(super) options: Options,
    /// As JSON
    #[arg(long)]
    pub(super) json: bool,
    /// As a graph for Graphviz:  explain --dot | dot -Tsvg > plan.svg
    #[arg(long, conflicts_with = "json")]
    pub(super) dot: bool,
    /// What each operator has done so far, of the job that runs now
    #[arg(long, conflicts_with = "dot")]
    pub(super) analyze: bool,
}

impl ExplainArgs {
    pub(super) fn explain(&self, name: &str, settings: &JobSettings, draw: &Draw, env: &Env) -> Result<()> {
        let explain = draw_job(name, settings, draw, env)?.explain(settings.run.checkpoint.interval)?;
        if self.analyze {
            let done = analyze::done(&explain, &running_numbers(env, name, settings)?);
            if self.json {
                return print_json(&done);
            }
            print!("{}", analyze::text(&done));
            return Ok(());
        }
        match () {
            () if self.json => print_json(&explain)?,
            () if self.dot => println!("{}", explain.to_dot()),
            () => println!("{explain}"),
        }
        Ok(())
    }
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    pub(super) options: Options,
    /// As JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct SavepointArgs {
    #[command(subcommand)]
    pub(super) verb: SavepointVerb,
    #[command(flatten)]
    pub(super) options: Options,
    /// As JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn settings_stand_before_and_behind_the_verb_of_a_verb() {
        for line in [
            "job savepoint create there --checkpoints x",
            "job savepoint --checkpoints x create there",
            "job savepoint list --checkpoints x --json",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            let Verb::Savepoint(args) = cli.verb else { panic!("another verb") };
            assert_eq!(args.options.checkpoints, Some("x".into()), "{line}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for line in ["job", "job runn", "job run --from x --fresh", "job run --checkpoint-interval 5", "job explain --json --dot"] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
