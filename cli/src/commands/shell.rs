//! The shell: statements typed in, with a history, and names completed by Tab.
//!
//! Lines are typed at the terminal, also where rows go elsewhere.
//!
//! Invariant: Ctrl-C while typing drops what was typed, while a query runs stops the query; Ctrl-D ends.

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Behavior, CompletionType, Config, Context, Editor, Helper, Highlighter, Hinter};
use std::path::PathBuf;
use waterwheel::sql::Shell;
use waterwheel::{Error, Result};

/// Words that are completed besides names.
const KEYWORDS: &[&str] = &[
    "ALTER",
    "AND",
    "AS",
    "AVG(",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST(",
    "COUNT(",
    "CREATE",
    "CUMULATE(",
    "DESCRIBE",
    "DESCRIPTOR(",
    "DISTINCT",
    "DROP",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "FILTER",
    "FOR SYSTEM_TIME AS OF",
    "FROM",
    "FULL",
    "GROUP BY",
    "HAVING",
    "HOP(",
    "IN",
    "INNER",
    "INSERT INTO",
    "INTERSECT",
    "INTERVAL",
    "IS NULL",
    "JOIN",
    "LEFT",
    "LIKE",
    "LIMIT",
    "MAX(",
    "MIN(",
    "NOT",
    "NULL",
    "ON",
    "OR",
    "ORDER BY",
    "OVER",
    "PARTITION BY",
    "PRIMARY KEY",
    "RIGHT",
    "ROW_NUMBER()",
    "SELECT",
    "SESSION(",
    "SET",
    "SHOW TABLES",
    "SUM(",
    "TABLE",
    "THEN",
    "TUMBLE(",
    "UNION ALL",
    "VIEW",
    "WATERMARK FOR",
    "WHEN",
    "WHERE",
    "WITH",
];

/// What the line editor asks.
#[derive(Helper, Highlighter, Hinter)]
struct Names {
    /// Tables, views and their columns.
    names: Vec<String>,
}

impl Completer for Names {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let before = &line[..at];
        let start = before
            .rfind(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-'))
            .map_or(0, |i| i + before[i..].chars().next().map_or(1, char::len_utf8));
        Ok((start, self.candidates(&before[start..])))
    }
}

impl Names {
    /// Names that begin so, and keywords in the case of what was typed.
    fn candidates(&self, word: &str) -> Vec<String> {
        let mut found: Vec<String> = self.names.iter().filter(|name| name.starts_with(word)).cloned().collect();
        if word.is_empty() {
            return found;
        }
        let lower = word.chars().all(|c| !c.is_uppercase());
        let keywords =
            KEYWORDS.iter().filter(|k| k.len() > word.len() && k.get(..word.len()).is_some_and(|k| k.eq_ignore_ascii_case(word)));
        found.extend(keywords.map(|k| if lower { k.to_lowercase() } else { k.to_string() }));
        found
    }
}

impl Validator for Names {
    /// A statement goes on until its semicolon.
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let text = context.input().trim();
        let is_whole = text.is_empty() || text.ends_with(';') || command(text).is_some();
        Ok(if is_whole { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

/// What is asked without SQL.
enum Command {
    Quit,
    /// As a statement.
    Show(String),
}

fn command(text: &str) -> Option<Command> {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.as_slice() {
        ["\\q" | "quit" | "exit" | "quit;" | "exit;"] => Some(Command::Quit),
        ["\\d"] => Some(Command::Show("SHOW TABLES;".into())),
        ["\\d", name] => Some(Command::Show(format!("DESCRIBE `{}`;", name.trim_end_matches(';')))),
        _ => None,
    }
}

/// Reads statements up to their semicolon; an error is shown and the next one read.
pub(super) fn interactive(shell: &mut Shell) -> Result<()> {
    let failed = |e: ReadlineError| Error::fatal("the terminal cannot be read").because(e);
    let config = Config::builder()
        .behavior(Behavior::PreferTerm)
        .completion_type(CompletionType::List)
        .auto_add_history(true)
        .max_history_size(10_000)
        .map_err(failed)?;
    let mut editor: Editor<Names, DefaultHistory> = Editor::with_config(config.build()).map_err(failed)?;
    let history = history();
    if let Some(path) = &history {
        // The first time there is none.
        let _ = editor.load_history(path);
    }
    eprintln!(" SQL ends with a semicolon; \\d shows the tables, \\d NAME their columns, \\q ends; Tab completes");
    loop {
        editor.set_helper(Some(Names { names: shell.names() }));
        let text = match editor.readline("sql> ") {
            Ok(text) => text,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(e) => return Err(failed(e)),
        };
        let statement = match command(text.trim()) {
            Some(Command::Quit) => break,
            Some(Command::Show(statement)) => statement,
            None if text.trim().is_empty() => continue,
            None => text,
        };
        if let Some(path) = &history
            && let Err(e) = editor.save_history(path)
        {
            eprintln!(" the history is not kept: {e}");
        }
        if let Err(e) = shell.run("statement", &statement) {
            eprintln!("error: {}", e.report());
        }
    }
    Ok(())
}

/// Where what was typed is kept; nowhere without a home.
#[expect(clippy::disallowed_methods, reason = "a file of the user's, no part of a job")]
fn history() -> Option<PathBuf> {
    let folder = match std::env::var_os("XDG_STATE_HOME").filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".local/state"),
    };
    let folder = folder.join("waterwheel");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("sql_history"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_keywords_are_completed() {
        let names = Names { names: vec!["payments".into(), "payments-2".into(), "amount".into()] };
        assert_eq!(names.candidates("pay"), ["payments", "payments-2"]);
        assert_eq!(names.candidates("SEL"), ["SELECT"]);
        assert_eq!(names.candidates("sel"), ["select"]);
        assert_eq!(names.candidates("am"), ["amount"]);
        assert_eq!(names.candidates("").len(), 3);
        let history = DefaultHistory::new();
        let (start, found) = names.complete("SELECT sum(amo", 14, &Context::new(&history)).unwrap();
        assert_eq!((start, found), (11, vec!["amount".to_string()]));
    }
}
