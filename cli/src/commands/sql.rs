//! `waterwheel sql`: queries, scripts and a shell.
//!
//! Invariant: rows go to standard output and everything else to standard error; Ctrl-C stops the query, and the shell only
//! when no query runs.

use clap::Args;
use std::io::{BufRead, IsTerminal, Read, Write};
use std::process::ExitCode;
use waterwheel::engine::env::Env;
use waterwheel::program::{FAILED, INTERRUPTED, Program, USAGE, fail};
use waterwheel::sql::{Form, Shell, script};
use waterwheel::topics::TopicsUrl;
use waterwheel::{Error, Result};

/// What to do when nothing is said.
const VERBS: &[&str] = &["run", "explain", "check", "savepoint"];

#[derive(Debug, Args)]
pub(crate) struct SqlArgs {
    /// Where topics are: local:FOLDER or kafka://HOST:PORT; each is a table [default: local:./data]
    #[arg(long, env = "WATERWHEEL_TOPICS", hide_env_values = true, value_name = "URL")]
    topics: Option<TopicsUrl>,
    /// Statements to carry out
    #[arg(long, short = 'e', value_name = "SQL", conflicts_with = "file")]
    execute: Option<String>,
    /// A file of statements; one with INSERTs is a job, with the verbs of every job behind it: run, explain, check, savepoint
    #[arg(long, short = 'f', value_name = "FILE")]
    file: Option<std::path::PathBuf>,
    /// How rows are shown: table, json, csv or changelog
    #[arg(long, short, default_value = "table", value_name = "FORM")]
    output: Form,
    /// Every query ends at what is there now
    #[arg(long)]
    until_end: bool,
    /// Statements; with -f: the verb and its flags
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "SQL | VERB")]
    rest: Vec<String>,
}

pub(crate) fn run(args: SqlArgs) -> ExitCode {
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
    let (name, draw) = match script(file, text) {
        Ok(Some(job)) => job,
        Ok(None) if args.rest.is_empty() => return exit(shell(args).and_then(|mut shell| shell.run(file, text))),
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
    if let Some(topics) = &args.topics {
        line.extend(["--topics".into(), topics.to_string()]);
    }
    if args.until_end && verb == "run" {
        line.push("--until-end".into());
    }
    Program::new(&name, move |job| draw(job)).main_with(line.into_iter().map(Into::into))
}

#[expect(clippy::disallowed_methods, reason = "Ctrl-C when nothing runs ends the shell, which waits for a line")]
fn shell(args: &SqlArgs) -> Result<Shell> {
    let topics = args.topics.clone().unwrap_or(TopicsUrl::Local("./data".into()));
    let shell = Shell::new(&topics, args.output, args.until_end)?;
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
    let mut shell = shell(args)?;
    match text {
        Some(text) => shell.run("query", &text),
        None => interactive(&mut shell),
    }
}

/// Reads statements up to their semicolon; an error is shown and the next one read.
fn interactive(shell: &mut Shell) -> Result<()> {
    eprintln!(" SQL ends with a semicolon; \\d shows the tables, \\d NAME their columns, \\q ends");
    let (mut lines, mut text) = (std::io::stdin().lock().lines(), String::new());
    loop {
        eprint!("{}", if text.is_empty() { "sql> " } else { "  -> " });
        let _ = std::io::stderr().flush();
        let Some(line) = lines.next() else { return Ok(()) };
        let line = line.map_err(|e| Error::fatal("standard input cannot be read").because(e))?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["\\q" | "quit" | "exit" | "quit;" | "exit;"] if text.is_empty() => return Ok(()),
            ["\\d"] if text.is_empty() => text = "SHOW TABLES;".into(),
            ["\\d", name] if text.is_empty() => text = format!("DESCRIBE `{}`;", name.trim_end_matches(';')),
            _ => {
                text.push_str(&line);
                text.push('\n');
            }
        }
        if text.trim().is_empty() {
            text.clear();
        }
        if text.trim_end().ends_with(';')
            && let Err(e) = shell.run("statement", &std::mem::take(&mut text))
        {
            eprintln!("error: {}", e.report());
        }
    }
}
