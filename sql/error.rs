//! What is wrong with a statement: the message, where in the text, and what to write instead.
//!
//! Invariant: a message names the thing as the user wrote it; a place is shown as file, line, column and a caret below the
//! text; names that are not known come with the nearest one that is.

use crate::secrets::is_secret;
use datafusion_common::{Column, DataFusionError, SchemaError};
use datafusion_sql::sqlparser::tokenizer::{Location, Span};
use std::fmt::Write as _;
use waterwheel_engine::error::Error;

/// Result of parsing, planning and lowering.
pub type SqlResult<T> = Result<T, SqlError>;

/// An error in a statement.
#[derive(Debug, Clone)]
pub struct SqlError {
    message: String,
    start: Option<Location>,
    /// Characters to underline.
    width: usize,
    note: String,
    helps: Vec<String>,
}

/// A line of a statement as it may be shown: of an option that is secret the value is stars, as many as it has characters.
fn masked(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    let mut secret = false;
    // What is between quotes is every other part; a doubled quote inside a value only splits it in two.
    for (at, part) in line.split('\'').enumerate() {
        if at > 0 {
            shown.push('\'');
        }
        match at % 2 == 1 {
            true if secret => shown.extend(part.chars().map(|_| '*')),
            true => {
                secret = is_secret(part);
                shown.push_str(part);
            }
            false => {
                secret &= part.is_empty() || part.trim() == "=";
                shown.push_str(part);
            }
        }
    }
    shown
}

impl SqlError {
    /// An error without a place.
    pub fn new(message: impl Into<String>) -> Self {
        SqlError { message: message.into(), start: None, width: 1, note: String::new(), helps: Vec::new() }
    }

    /// A construct that is not supported: why, and what to write instead.
    pub fn unsupported(construct: &str, reason: &str, instead: &str) -> Self {
        let error = SqlError::new(format!("{construct} is not supported: {reason}"));
        if instead.is_empty() { error } else { error.help(instead) }
    }

    /// Sets the place.
    #[must_use]
    pub fn at(mut self, span: Span) -> Self {
        if span.start.line > 0 {
            self.start = Some(span.start);
            let one_line = span.end.line == span.start.line && span.end.column > span.start.column;
            self.width = if one_line { (span.end.column - span.start.column) as usize } else { 1 };
        }
        self
    }

    /// Sets the place if there is none yet.
    #[must_use]
    pub fn or_at(self, span: Option<Span>) -> Self {
        match span {
            Some(span) if self.start.is_none() => self.at(span),
            _ => self,
        }
    }

    /// At the place of another error.
    #[must_use]
    pub(crate) fn placed_as(mut self, other: SqlError) -> Self {
        (self.start, self.width) = (other.start, other.width);
        self
    }

    /// A few words beside the caret.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// Adds a remedy.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.helps.push(help.into());
        self
    }

    /// The message alone.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Suggests the nearest of the names that exist.
    #[must_use]
    pub fn nearest<'a>(self, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(name, known) {
            Some(near) if self.start.is_some() || self.note.is_empty() => self.note(format!("did you mean {near:?}?")),
            _ => self,
        }
    }

    /// What a terminal shows, for a statement in `text` read from `file`.
    pub fn render(&self, file: &str, text: &str) -> String {
        let mut shown = self.message.clone();
        let line = self.start.and_then(|at| Some((at, text.lines().nth(usize::try_from(at.line).ok()?.checked_sub(1)?)?)));
        match line {
            Some((at, line)) => {
                let line = masked(line);
                let number = at.line.to_string();
                let gap = " ".repeat(number.len());
                let indent: String = line.chars().take(at.column as usize - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
                let carets = "^".repeat(self.width.clamp(1, line.chars().count().saturating_sub(at.column as usize - 1).max(1)));
                let _ = write!(shown, "\n  {gap}┌ {file}:{}:{}\n  {number} │ {line}\n  {gap} │ {indent}{carets}", at.line, at.column);
                if !self.note.is_empty() {
                    let _ = write!(shown, " {}", self.note);
                }
            }
            None if !self.note.is_empty() => {
                let _ = write!(shown, ": {}", self.note);
            }
            None => {}
        }
        shown
    }

    /// As the engine's kind of error.
    pub fn into_error(self, file: &str, text: &str) -> Error {
        let error = Error::fatal(self.render(file, text));
        self.helps.into_iter().fold(error, Error::help)
    }

    /// As an error that travels through the planner.
    pub(crate) fn into_planner(self) -> DataFusionError {
        DataFusionError::External(Box::new(self))
    }

    /// Of the planner's kind: names are looked up in `text`'s tokens when the planner gives no place.
    pub fn of_planner(error: DataFusionError) -> Self {
        let span = error.diagnostic().and_then(|d| d.span);
        let place = place_if_none(span);
        match error.find_root() {
            DataFusionError::External(own) if own.is::<SqlError>() => {
                own.downcast_ref::<SqlError>().cloned().map_or_else(|| SqlError::new(own.to_string()), place)
            }
            DataFusionError::SchemaError(schema, _) => place(Self::of_schema(schema)),
            root => place(SqlError::new(words(&root.strip_backtrace()))),
        }
    }

    fn of_schema(error: &SchemaError) -> Self {
        match error {
            SchemaError::FieldNotFound { field, valid_fields } => {
                let names: Vec<&str> = valid_fields.iter().map(|c| c.name.as_str()).collect();
                let table = match (&field.relation, valid_fields.first().and_then(|c| c.relation.as_ref())) {
                    (Some(table), _) => format!(" in {table}"),
                    (None, Some(table)) if valid_fields.iter().all(|c| c.relation.as_ref() == Some(table)) => format!(" in {table}"),
                    _ => String::new(),
                };
                SqlError::new(format!("column {:?} not found{table}", field.name)).nearest(&field.name, names)
            }
            SchemaError::AmbiguousReference { field } => SqlError::new(format!("column {:?} is in several tables", field.name))
                .help(format!("write the table before it: t.{}", bare(field))),
            other => SqlError::new(words(&other.to_string())),
        }
    }

    /// The name that the message is about, to find its place with.
    pub fn subject(&self) -> Option<&str> {
        if self.start.is_some() {
            return None;
        }
        self.message.split('"').nth(1)
    }
}

/// Gives an error the planner's place, unless it has one.
fn place_if_none(span: Option<datafusion_common::Span>) -> impl FnOnce(SqlError) -> SqlError {
    let at = |l: datafusion_common::Location| Location { line: l.line, column: l.column };
    let span = span.map(|s| Span { start: at(s.start), end: at(s.end) });
    move |error| error.or_at(span)
}

fn bare(column: &Column) -> &str {
    &column.name
}

impl std::fmt::Display for SqlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SqlError {}

/// The planner's messages without their category, and without its list of what it could have called.
fn words(text: &str) -> String {
    let mut text = text.trim();
    if let Some((_, why)) = text.split_once(" user-defined coercion failed with: ") {
        text = why;
    }
    if let Some((why, _)) = text.split_once(". No function matches the given name and argument types") {
        text = why;
    }
    for prefix in [
        "Error during planning: ",
        "This feature is not implemented: ",
        "Schema error: ",
        "SQL error: ",
        "Invalid or Unsupported Configuration: ",
    ] {
        text = text.strip_prefix(prefix).unwrap_or(text);
    }
    text.to_string()
}

/// The known name that differs least, if it differs little.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    let limit = (lower.chars().count() + 1) / 3;
    let scored = known.into_iter().map(|k| (distance(&lower, &k.to_lowercase()), k));
    scored.filter(|(d, _)| *d <= limit).min().map(|(_, k)| k)
}

/// Edits (one character put in, left out or changed, two swapped) between two names.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = changed.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_shown_has_no_secrets() {
        for (line, shown) in [
            (
                "'a' = 'b', 'properties.sasl.password' = 'it''s x', 'c' = 'd'",
                "'a' = 'b', 'properties.sasl.password' = '**''***', 'c' = 'd'",
            ),
            ("'properties.sasl.jaas.config'='open", "'properties.sasl.jaas.config'='****"),
            ("'properties.sasl.pasword' = 'it'", "'properties.sasl.pasword' = '**'"),
            ("'properties.client.id' = 'me'", "'properties.client.id' = 'me'"),
        ] {
            assert_eq!(masked(line).chars().count(), line.chars().count(), "the caret stays below what it means");
            assert_eq!(masked(line), shown);
        }
    }

    #[test]
    fn a_call_that_does_not_fit_is_one_line() {
        let said = "Execution error: Function 'f' user-defined coercion failed with: Error during planning: F(INT) is called otherwise: F(STRING). \
            No function matches the given name and argument types 'f(Int64)'. You might need to add explicit type casts.\n\tCandidate functions:\n\tf(UserDefined)";
        assert_eq!(words(said), "F(INT) is called otherwise: F(STRING)");
        assert_eq!(words("Error during planning: x. y"), "x. y");
    }

    #[test]
    fn the_nearest_name_is_near() {
        assert_eq!(nearest("amout", ["amount", "account"]), Some("amount"));
        assert_eq!(nearest("cuont", ["count", "sum"]), Some("count"));
        assert_eq!(nearest("x", ["amount"]), None);
    }

    #[test]
    fn a_place_is_line_column_and_caret() {
        let span = Span { start: Location { line: 2, column: 8 }, end: Location { line: 2, column: 13 } };
        let shown =
            SqlError::new("column \"amout\" not found").at(span).nearest("amout", ["amount"]).render("job.sql", "x\nSELECT amout\n");
        assert_eq!(shown, "column \"amout\" not found\n   ┌ job.sql:2:8\n  2 │ SELECT amout\n    │        ^^^^^ did you mean \"amount\"?");
    }
}
