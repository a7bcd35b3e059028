//! What turns a job into a program: the verbs that every job's binary has.
//!
//! | verb | what it does |
//! |---|---|
//! | `run` | runs the job, shows how it fares, goes on where it was |
//! | `explain [--json\|--dot]` | what the job will do, what it costs, what it promises |
//! | `explain --analyze` | what each operator of the running job has done |
//! | `check` | connects, checks topics, rights and state; runs nothing |
//! | `savepoint create\|list\|inspect\|read\|delete\|usage` | named copies of the job's state, and what is in them |
//!
//! Ctrl-C (or SIGTERM) stops `run` gracefully: a last checkpoint, everything published, exact resume later. A second one ends
//! it at once, which is just as safe: the next run goes back to the newest checkpoint.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done: finished, or stopped gracefully as asked |
//! | 1 | failed |
//! | 2 | the command line or a setting is wrong |
//! | 3 | refused before anything ran: a lock held, state that does not fit or is damaged, a topic that is missing |
//! | 130 | ended at once, by the second Ctrl-C |
//!
//! Settings come from flags, else the environment, else the settings file, else the defaults: see [`settings`].
//!
//! Invariant: verbs read settings the same way and print errors in one shape; only `run` changes anything.

pub(crate) mod analyze;
mod args;
mod check;
mod launch;
mod progress;
mod prometheus;
mod requests;
mod run;
mod savepoint;
pub mod settings;
mod status;
mod units;
mod until_end;

#[cfg(test)]
mod tests;

pub use launch::{Draw, draw_job, job_runner, run_job};
pub use progress::{Progress, Watcher};
pub use savepoint::{ReadArgs, SavepointVerb, create_savepoint, newest_checkpoint, savepoint_verb};
#[cfg(feature = "testing")]
pub(crate) use savepoint::{is_published, stored};
pub use settings::{JobSettings, Options};
pub use status::line;
pub use units::{Size, Span};

use crate::Job;
use args::{Cli, Verb};
use clap::error::{ContextKind, ContextValue};
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches};
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use waterwheel_engine::env::Env;
use waterwheel_engine::error::Result;

/// Failed.
pub const FAILED: u8 = 1;
/// The command line or a setting is wrong.
pub const USAGE: u8 = 2;
/// Refused before anything ran.
pub const REFUSED: u8 = 3;
/// Ended at once, by the second Ctrl-C.
pub const INTERRUPTED: u8 = 130;

/// A job as a program: call it from `main`.
///
/// ```no_run
/// use waterwheel::prelude::*;
///
/// fn main() -> std::process::ExitCode {
///     waterwheel::main("copy", |job| {
///         job.topic("in").string().to_topic("out");
///         Ok(())
///     })
/// }
/// ```
pub fn main(name: &str, draw: impl Fn(&Job) -> Result<()> + Send + Sync + 'static) -> ExitCode {
    Program::new(name, draw).main()
}

type Extra = Box<dyn Fn(&ArgMatches) -> ExitCode>;

/// A job's program with verbs of its own beside the usual ones.
pub struct Program {
    name: String,
    about: String,
    draw: Draw,
    defaults: Options,
    extras: Vec<(Command, Extra)>,
}

impl Program {
    /// The job `name`, described by `draw`.
    pub fn new(name: &str, draw: impl Fn(&Job) -> Result<()> + Send + Sync + 'static) -> Self {
        Program {
            name: name.into(),
            about: format!("The Waterwheel job {name}"),
            draw: Arc::new(draw),
            defaults: Options::default(),
            extras: Vec::new(),
        }
    }

    /// One line for `--help`.
    #[must_use]
    pub fn about(mut self, about: &str) -> Self {
        self.about = about.into();
        self
    }

    /// Settings of the job's own, for what neither flags nor environment nor settings file name.
    #[must_use]
    pub fn defaults(mut self, defaults: Options) -> Self {
        self.defaults = defaults;
        self
    }

    /// One more verb.
    #[must_use]
    pub fn verb(mut self, command: Command, run: impl Fn(&ArgMatches) -> ExitCode + 'static) -> Self {
        self.extras.push((command, Box::new(run)));
        self
    }

    /// Does what the command line of this process says.
    pub fn main(&self) -> ExitCode {
        self.main_with(std::env::args_os())
    }

    /// Does what a command line says; the first word is the program's own name.
    pub fn main_with(&self, line: impl IntoIterator<Item = OsString>) -> ExitCode {
        let mut command = Cli::command().about(self.about.clone());
        for (extra, _) in &self.extras {
            command = command.subcommand(extra.clone());
        }
        let matches = match command.try_get_matches_from(line) {
            Ok(matches) => matches,
            Err(e) => {
                // Help and version are no mistakes; clap knows where each belongs.
                let code = if e.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
                let _ = without_secrets(e).print();
                return code;
            }
        };
        if let Some((verb, rest)) = matches.subcommand()
            && let Some((_, run)) = self.extras.iter().find(|(extra, _)| extra.get_name() == verb)
        {
            return run(rest);
        }
        match Cli::from_arg_matches(&matches) {
            Ok(cli) => self.dispatch(cli.verb),
            Err(e) => {
                let _ = e.print();
                ExitCode::from(USAGE)
            }
        }
    }

    fn dispatch(&self, verb: Verb) -> ExitCode {
        let env = Env::real();
        let options = match &verb {
            Verb::Run(args) => &args.options,
            Verb::Explain(args) => &args.options,
            Verb::Check(args) => &args.options,
            Verb::Savepoint(args) => &args.options,
        };
        let options = options.clone().with_file(&env).map(|options| options.or(self.defaults.clone()));
        let both = options.and_then(|options| Ok((options.settings()?, options)));
        let (settings, options) = match both {
            Ok(both) => both,
            Err(e) => return fail(&e, USAGE),
        };
        let name = self.name.as_str();
        let done = match verb {
            Verb::Run(args) => return run::run(name, args, settings, &options, self.draw.clone(), &env),
            Verb::Explain(args) => args.explain(name, &settings, &self.draw, &env),
            Verb::Check(args) => return finish(check::check(name, &settings, &self.draw, &env, args.json), REFUSED),
            Verb::Savepoint(args) => savepoint_verb(&env, name, &settings, &args.verb, args.json),
        };
        finish(done, FAILED)
    }
}

fn finish(done: Result<()>, code: u8) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail(&e, code),
    }
}

/// The error of a command line without what may be a secret: clap repeats a value that it refuses, and the options of a topics
/// URL may hold a password.
pub fn without_secrets(mut error: clap::Error) -> clap::Error {
    let shown = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) => value.split_once('?').map(|(place, _)| format!("{place}?...")),
        _ => None,
    };
    if let Some(shown) = shown {
        error.insert(ContextKind::InvalidValue, ContextValue::String(shown));
    }
    error
}

/// Prints an error the way every program of Waterwheel does.
pub fn fail(error: &waterwheel_engine::error::Error, code: u8) -> ExitCode {
    eprintln!("error: {}", error.report());
    ExitCode::from(code)
}

#[expect(clippy::disallowed_methods, reason = "the program around a job, not the job: nobody simulates it")]
fn sleep(time: Duration) {
    std::thread::sleep(time);
}
