//! `waterwheel sql`: queries, scripts and a shell.
//!
//! Invariant: rows go to standard output and everything else to standard error; Ctrl-C stops the query, and the shell only
//! when no query runs.

use super::shell;
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser};
use std::io::{IsTerminal, Read};
use std::process::ExitCode;
use waterwheel::engine::env::Env;
use waterwheel::program::{FAILED, INTERRUPTED, Program, USAGE, fail};
use waterwheel::sql::{Form, KeptCatalog, Script, Shell, script};
use waterwheel::topics::TopicsUrl;
use waterwheel::{Error, Result};

/// What to do when nothing is said.
const VERBS: &[&str] = &["run", "explain", "check", "savepoint"];

#[derive(Debug, Args)]
pub(crate) struct SqlArgs {
    #[command(flatten)]
    flags: Flags,
    /// Statements to carry out
    #[arg(long, short = 'e', value_name = "SQL", conflicts_with = "file")]
    execute: Option<String>,
    /// A file of statements; one with INSERTs is a job, with the verbs of every job behind it: run, explain, check, savepoint
    #[arg(long, short = 'f', value_name = "FILE")]
    file: Option<std::path::PathBuf>,
    /// Statements; with -f: the verb and its flags
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "SQL | VERB")]
    rest: Vec<String>,
}

#[derive(Debug, Default, Args)]
struct Flags {
    /// Where topics are: local:FOLDER or kafka://HOST:PORT; each is a table [default: local:./data]
    #[arg(long, env = "WATERWHEEL_TOPICS", hide_env_values = true, value_name = "URL")]
    topics: Option<TopicsUrl>,
    /// How rows are shown: table, json, csv or changelog [default: table]
    #[arg(long, short, value_name = "FORM")]
    output: Option<Form>,
    /// Every query ends at what is there now
    #[arg(long)]
    until_end: bool,
    /// Declarations of tables and views are kept in this folder, and are there again at the next start
    #[arg(long, value_name = "FOLDER")]
    catalog: Option<std::path::PathBuf>,
}

/// Flags behind the statements.
#[derive(Debug, Parser)]
#[command(name = "waterwheel sql", no_binary_name = true)]
struct Later {
    #[command(flatten)]
    flags: Flags,
}

/// Takes the flags that stand behind the statements, and what looks like a flag in front of them: neither is SQL.
fn take_flags(args: &mut SqlArgs) -> std::result::Result<(), clap::Error> {
    let is_flag = |word: &String| word.starts_with('-') && !word.contains(char::is_whitespace);
    let Some(first) = args.rest.iter().position(is_flag) else { return Ok(()) };
    let matches = Later::command().try_get_matches_from(args.rest.drain(first..))?;
    let Later { flags } = Later::from_arg_matches(&matches)?;
    // What the environment says does not count twice.
    let said = matches.value_source("topics") == Some(ValueSource::CommandLine);
    args.flags = Flags {
        topics: flags.topics.filter(|_| said).or(args.flags.topics.take()),
        output: flags.output.or(args.flags.output),
        until_end: flags.until_end || args.flags.until_end,
        catalog: flags.catalog.or(args.flags.catalog.take()),
    };
    Ok(())
}

pub(crate) fn run(mut args: SqlArgs) -> ExitCode {
    if args.file.is_none()
        && let Err(wrong) = take_flags(&mut args)
    {
        wrong.exit();
    }
    let done = match &args.file {
        Some(path) => match Env::real().files.read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()) {
            Ok(text) => return of_file(&args, &path.display().to_string(), &text),
            Err(e) => Err(Error::fatal("the script cannot be read").because(e).at(path.display().to_string())),
        },
        None => statements(&args),
    };
    exit(done)
}

fn exit(done: Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail(&e, FAILED),
    }
}

/// A script with inserts is a job like any other; one without is carried out.
fn of_file(args: &SqlArgs, file: &str, text: &str) -> ExitCode {
    let catalog = match args.flags.catalog.as_ref().map(|folder| KeptCatalog::open(&Env::real(), folder)).transpose() {
        Ok(catalog) => catalog,
        Err(e) => return fail(&e, FAILED),
    };
    let Script { name, draw, options } = match script(file, text, catalog.as_ref()) {
        Ok(Some(job)) => job,
        Ok(None) if args.rest.is_empty() => return exit(open(args).and_then(|mut shell| shell.run(file, text))),
        Ok(None) => return fail(&Error::fatal("a script without INSERT is no job, so it has no verbs").at(file.to_string()), USAGE),
        Err(e) => return fail(&e, FAILED),
    };
    let mut line = vec![name.clone()];
    let (verb, flags) = args.rest.split_first().map_or(("run", &[][..]), |(verb, flags)| (verb.as_str(), flags));
    if !VERBS.contains(&verb) {
        return fail(&Error::fatal(format!("{verb} is no verb of a script")).help(format!("{} [flags]", VERBS.join(", "))), USAGE);
    }
    line.push(verb.into());
    line.extend(flags.iter().cloned());
    if let Some(topics) = &args.flags.topics {
        line.extend(["--topics".into(), topics.in_full()]);
    }
    if args.flags.until_end && verb == "run" {
        line.push("--until-end".into());
    }
    Program::new(&name, move |job| draw(job)).defaults(options).main_with(line.into_iter().map(Into::into))
}

#[expect(clippy::disallowed_methods, reason = "Ctrl-C when nothing runs ends the shell, which waits for a line")]
fn open(args: &SqlArgs) -> Result<Shell> {
    let topics = args.flags.topics.clone().unwrap_or(TopicsUrl::Local("./data".into()));
    let mut shell = Shell::new(&topics, args.flags.output.unwrap_or(Form::Table), args.flags.until_end)?;
    if let Some(folder) = &args.flags.catalog {
        shell = shell.catalog(KeptCatalog::open(&Env::real(), folder)?)?;
    }
    let stopper = shell.stopper();
    let handler = ctrlc::set_handler(move || {
        if !stopper.stop() {
            std::process::exit(i32::from(INTERRUPTED));
        }
    });
    handler.map_err(|e| Error::fatal("signals cannot be caught").because(e))?;
    Ok(shell)
}

fn statements(args: &SqlArgs) -> Result<()> {
    let text = match (&args.execute, args.rest.as_slice()) {
        (Some(text), []) => Some(text.clone()),
        (None, [text]) => Some(text.clone()),
        (None, []) if std::io::stdin().is_terminal() => None,
        (None, []) => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(|e| Error::fatal("standard input cannot be read").because(e))?;
            Some(text)
        }
        _ => return Err(Error::fatal("one text of statements is expected").help("quote it:  waterwheel sql \"SELECT ...\"")),
    };
    let mut shell = open(args)?;
    match text {
        Some(text) => shell.run("query", &text),
        None => shell::interactive(&mut shell),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Parser)]
    struct Whole {
        #[command(flatten)]
        args: SqlArgs,
    }

    fn read(words: &[&str]) -> std::result::Result<SqlArgs, clap::Error> {
        let mut args = Whole::try_parse_from([&["sql"], words].concat())?.args;
        take_flags(&mut args)?;
        Ok(args)
    }

    #[test]
    fn flags_are_flags_wherever_they_stand() {
        for words in [
            &["--until-end", "-o", "json", "--topics", "local:x", "SELECT 1"][..],
            &["SELECT 1", "--until-end", "--output", "json", "--topics", "local:x"],
            &["--until-end", "SELECT 1", "-o", "json", "--topics=local:x"],
        ] {
            let args = read(words).unwrap_or_else(|e| panic!("{words:?}: {e}"));
            assert!(args.flags.until_end && args.flags.output == Some(Form::Json), "{words:?}");
            assert_eq!(args.flags.topics.map(|t| t.to_string()), Some("local:x".into()), "{words:?}");
            assert_eq!(args.rest, ["SELECT 1"], "{words:?}");
        }
        assert_eq!(read(&["-- a remark\nSELECT 1"]).unwrap().rest.len(), 1);
        assert!(read(&["SELECT 1", "--until-edn"]).is_err());
        assert!(read(&["--until-edn", "SELECT 1"]).is_err());
    }
}
