//! Which files a source reads: one, those of a folder, those that fit a pattern, or those in folders named after values.
//!
//! Invariant: names that begin with a dot or an underscore are left out of folders and patterns.

use crate::topics::TopicNames;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use waterwheel_engine::env::Env;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::SplitId;
use waterwheel_engine::record::folders;

/// Where the files are.
#[derive(Clone)]
pub(super) struct Listing {
    pub(super) env: Env,
    pub(super) folder: PathBuf,
    names: TopicNames,
    /// Files are in folders named after values of these columns.
    columns: Vec<String>,
}

impl Listing {
    pub(super) fn new(env: Env, path: &Path) -> Listing {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let (folder, names) = match env.files.list(path) {
            Ok(_) => (path, TopicNames::Pattern("*".into())),
            Err(_) if name.contains(['*', '?']) => (parent, TopicNames::Pattern(name)),
            Err(_) => (parent, TopicNames::Named(vec![name])),
        };
        Listing { folder: folder.to_path_buf(), env, names, columns: Vec::new() }
    }

    /// Files are in folders, a level for each of these columns.
    pub(super) fn in_folders(&mut self, columns: Vec<String>) {
        self.columns = columns;
        // The folder may not be there yet.
        if let TopicNames::Named(names) = &self.names
            && let [name] = &names[..]
        {
            self.folder.push(name);
            self.names = TopicNames::Pattern("*".into());
        }
    }

    /// For people.
    pub(super) fn describe(&self) -> String {
        self.folder.join(self.names.to_string()).display().to_string()
    }

    /// The paths of the files below the folder.
    pub(super) fn files(&self) -> Result<Vec<String>> {
        let place = |e| Error::from(e).at(self.folder.display().to_string());
        if let TopicNames::Named(names) = &self.names {
            let mut there = Vec::new();
            for name in names {
                if self.env.files.exists(&self.folder.join(name)).map_err(place)? {
                    there.push(name.clone());
                }
            }
            return Ok(there);
        }
        if !self.columns.is_empty() {
            let mut found = Vec::new();
            self.files_in_folders(String::new(), &self.columns, &mut found)?;
            return Ok(found);
        }
        let names = self.env.files.list(&self.folder).map_err(place)?;
        // A folder inside the folder can be listed; a file cannot.
        let is_file =
            |n: &String| !n.starts_with(['.', '_']) && self.names.contains(n) && self.env.files.list(&self.folder.join(n)).is_err();
        Ok(names.into_iter().filter(is_file).collect())
    }

    /// Whether a file is there.
    pub(super) fn is_there(&self, name: &str) -> Result<bool> {
        let path = self.folder.join(name);
        self.env.files.exists(&path).map_err(|e| Error::from(e).at(path.display().to_string()))
    }

    /// Those of these files that are not there any more, and will not be back. A folder with nothing in it, or in whose place is none,
    /// may be of a disk that is not mounted: were its files forgotten, they would be read once more.
    pub(super) fn gone(&self, missing: &[SplitId]) -> Result<BTreeSet<SplitId>> {
        let is_empty = match self.env.files.list(&self.folder) {
            Err(e) if e.kind() == ErrorKind::NotFound => true,
            names => names.map_err(|e| Error::from(e).at(self.folder.display().to_string()))?.is_empty(),
        };
        let mut gone = BTreeSet::new();
        for split in missing.iter().filter(|_| !is_empty) {
            let is_ours = match &self.names {
                TopicNames::Named(names) => names.iter().any(|name| **name == *split.name),
                TopicNames::Pattern(_) => true,
            };
            if is_ours && !self.is_there(&split.name)? {
                gone.insert(split.clone());
            }
        }
        Ok(gone)
    }

    /// Adds the files below the folder `path`, which are a level of folders deeper for each of `columns`.
    fn files_in_folders(&self, path: String, columns: &[String], found: &mut Vec<String>) -> Result<()> {
        let folder = self.folder.join(&path);
        let place = |e: std::io::Error| Error::from(e).at(folder.display().to_string());
        for name in self.env.files.list(&folder).map_err(place)? {
            let below = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            let is_hidden = name.starts_with(['.', '_']);
            match columns.split_first() {
                Some((column, rest)) if name.starts_with(&folders::level(column)) => self.files_in_folders(below, rest, found)?,
                None if !is_hidden => found.push(below),
                Some((column, _)) if !is_hidden => {
                    return Err(Error::fatal(format!("{below} is no folder of column {column}"))
                        .at(self.folder.display().to_string())
                        .help(format!("its name would begin with {}; take it away, or hide it by a dot", folders::level(column))));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A file went while it was being read.
pub(super) fn gone(name: &str, position: impl std::fmt::Display) -> Error {
    Error::fatal(format!("file {name} is gone, and has not been read to its end"))
        .at(position.to_string())
        .help("put it back: files may go once they have been read")
}

/// There is nothing to be read.
pub(super) fn no_file(what: &str) -> Error {
    Error::fatal(format!("no file fits {what}")).help("check the path; patterns know * and ?")
}
