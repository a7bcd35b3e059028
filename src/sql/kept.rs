//! A catalog that is kept: declarations in a folder, in the order in which they were made, read back at the next start.
//!
//! Invariant: the file holds exactly the declarations that are in force, as they were written; it is replaced as a whole. No secret is
//! written to it: options say where in the environment one is.

use std::path::{Path, PathBuf};
use waterwheel_engine::env::Env;
use waterwheel_engine::error::{Error, Result};
use waterwheel_sql::catalog::Entry;
use waterwheel_sql::parser::{Change, Statement, StatementKind};
use waterwheel_sql::secrets;
use waterwheel_sql::{Outcome, Session, SqlError, SqlResult, parse};

/// Between two declarations; what stands behind it names the one that follows.
const MARK: &str = "-- declared: ";

/// Declarations in a folder.
#[derive(Clone)]
pub struct KeptCatalog {
    env: Env,
    path: PathBuf,
}

impl KeptCatalog {
    /// In this folder, made when missing.
    ///
    /// # Errors
    /// Of the file system.
    pub fn open(env: &Env, folder: &Path) -> Result<KeptCatalog> {
        env.files.create_dir_all(folder).map_err(|e| Error::from(e).at(format!("catalog {}", folder.display())))?;
        Ok(KeptCatalog { env: env.clone(), path: folder.join("catalog.sql") })
    }

    /// Where the declarations are.
    pub fn file(&self) -> String {
        self.path.display().to_string()
    }

    /// All declarations as one text.
    ///
    /// # Errors
    /// Of the file system.
    pub fn text(&self) -> Result<String> {
        match self.env.files.read(&self.path) {
            Ok(bytes) => String::from_utf8(bytes).map_err(|_| Error::fatal("the catalog is not UTF-8").at(self.file())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            Err(e) => Err(Error::from(e).at(self.file())),
        }
    }

    /// Makes its declarations in a session.
    ///
    /// # Errors
    /// Of a declaration that does not hold any more.
    pub fn read_into(&self, session: &mut Session) -> Result<()> {
        let text = self.text()?;
        session.run(&self.file(), &text)?;
        for statement in parse(&text).map_err(|e| e.into_error(&self.file(), &text))? {
            // Of a time when they were kept as they came, or put there by hand.
            if let Some((key, _)) = secrets::in_declaration(&statement) {
                tracing::warn!("{} holds a secret ('{key}'): write '${{env:NAME}}' in its place", self.file());
            }
        }
        Ok(())
    }

    /// Refuses a declaration that would be kept with a secret in it.
    ///
    /// # Errors
    /// At the option, with what to write instead.
    pub(super) fn check(&self, statement: &Statement) -> SqlResult<()> {
        match secrets::in_declaration(statement) {
            Some((key, place)) => Err(SqlError::new(format!("'{key}' is a secret, and {} is no place for one", self.file()))
                .at(place)
                .help(format!("name a variable of the environment, which is looked up when the table is used:  '{key}' = '${{env:NAME}}'"))
                .help("or make the table for this session alone:  CREATE TEMPORARY TABLE ...")),
            None => Ok(()),
        }
    }

    fn declarations(&self) -> Result<Vec<(String, String)>> {
        let text = self.text()?;
        let one =
            |part: &str| part.split_once('\n').map(|(name, sql)| (name.to_string(), sql.trim_end().trim_end_matches(';').to_string()));
        Ok(text.split(MARK).skip(1).filter_map(one).collect())
    }

    /// Keeps what a statement of `text` has declared or dropped; `was_there` says whether its name meant something before.
    ///
    /// # Errors
    /// Of the file system.
    pub(super) fn note(&self, statement: &Statement, text: &str, session: &Session, outcome: &Outcome, was_there: bool) -> Result<()> {
        let (name, sql) = match &statement.kind {
            StatementKind::CreateTable(table) if !(table.temporary || (table.if_not_exists && was_there)) => {
                // A table made by a query is declared by its columns: the query has filled it.
                let made = matches!(outcome, Outcome::Insert(_)).then(|| session.create_text(&table.name.value)).flatten();
                (&table.name.value, Some(made.unwrap_or_else(|| statement.words.within(text).to_string())))
            }
            StatementKind::CreateView { name, if_not_exists, temporary: false, .. } if !(*if_not_exists && was_there) => {
                (&name.value, Some(statement.words.within(text).to_string()))
            }
            StatementKind::Alter(alter) => (&alter.name.value, Some(statement.words.within(text).to_string())),
            StatementKind::Drop { name, .. } => (&name.value, None),
            _ => return Ok(()),
        };
        let mut all = self.declarations()?;
        let at = all.iter().position(|(known, _)| known == name);
        match (at, sql) {
            // Carried out after what it may name, as it was here; of a table for this session alone nothing is kept.
            (at, Some(sql)) if matches!(statement.kind, StatementKind::Alter(_)) => {
                if at.is_none() {
                    return Ok(());
                }
                all.push((name.clone(), sql));
                if let StatementKind::Alter(alter) = &statement.kind
                    && let Change::Rename(to) = &alter.change
                {
                    all.iter_mut().filter(|(known, _)| known == name).for_each(|(known, _)| known.clone_from(&to.value));
                }
            }
            (Some(at), Some(sql)) => {
                let mut again = 0..;
                all.retain(|(known, _)| known != name || again.next() == Some(0));
                all[at].1 = sql;
            }
            (Some(_), None) => all.retain(|(known, _)| known != name),
            (None, Some(sql)) => all.push((name.clone(), sql)),
            (None, None) => return Ok(()),
        }
        let text: String = all.iter().map(|(name, sql)| format!("{MARK}{name}\n{sql};\n\n")).collect();
        // What is written must be read again as it is meant.
        parse(&text).map_err(|e| e.into_error(&self.file(), &text))?;
        self.env.files.replace_private(&self.path, text.as_bytes()).map_err(|e| Error::from(e).at(self.file()))
    }
}

/// Whether a declaration names what is there already, declared.
pub(super) fn is_declared(statement: &Statement, session: &Session) -> bool {
    let name = match &statement.kind {
        StatementKind::CreateTable(table) => &table.name.value,
        StatementKind::CreateView { name, .. } => &name.value,
        _ => return false,
    };
    match session.catalog().get(name) {
        Some(Entry::Table(table)) => table.inferred.is_none(),
        other => other.is_some(),
    }
}
