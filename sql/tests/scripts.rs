//! The files of `scripts/`: tables, queries and their results as text, a file for each feature of SQL. They are read when the test
//! runs, so that a new case needs no compilation.
//!
//! A file is blocks with empty lines between them; `#` begins a comment. A block begins with a word:
//!
//! - `table NAME`: the columns as in CREATE TABLE (or a whole CREATE TABLE), `----`, and its records, a line each. `KEY => VALUE` is
//!   a record with a key, `KEY =>` one without a value. A table is one split.
//! - `rows NAME`: more records of a table. Records arrive in the order of their lines, over all tables.
//! - `statement`: what goes before all queries behind it: CREATE VIEW, SET.
//! - `query`: SQL, `----`, and the final rows, a line each, cells with ` | ` between them, in the order of their text. It is run
//!   twice: all at once by two tasks, and record by record with a restart by three in the middle. Both have these rows.
//! - `query by-record`: the same where results depend on where the watermark is between two records: record by record both times,
//!   by one task.
//! - `changes`: SQL, `----`, and all changes in order, of one task and a batch for each record. They add up to what `query` gives.
//! - `differs`: as `query`, with what Flink gives and this engine does not yet. When it does, the test fails: make it a `query`.
//! - `error`: SQL, `----`, and a part of the message, when it is planned or when it runs.
//!
//! `(empty)` is a text of no letters that stands alone. `WATERWHEEL_SCRIPT=joins` runs the files whose names have that in them.
//! `WATERWHEEL_WRITE_SNAPSHOTS=1` writes what came out in the place of what was expected, for a person to read: results are what
//! Flink documents, or `docs/sql.md` says where they are not.

#![expect(clippy::disallowed_methods, reason = "the files of the tests themselves, which no job reads")]

use super::world::{Feed, Feeds, Running};
use crate::session::{Outcome, Session};
use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::graph::{LogicalGraph, SinkRef};
use waterwheel_engine::record::RowKind;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Query,
    ByRecord,
    Changes,
    Differs,
    Error,
}

/// A query and where in the file its results are.
struct Case {
    kind: Kind,
    sql: String,
    /// Declarations and records that were there before it.
    world: World,
    line: usize,
    expected: Range<usize>,
}

/// Declarations, and the records of tables in the order of arrival.
#[derive(Clone, Default)]
struct World {
    script: String,
    records: BTreeMap<String, Vec<String>>,
    arrivals: Vec<String>,
}

impl World {
    fn declare(&mut self, name: &str, columns: &str) {
        let whole = columns.trim_start().starts_with("CREATE");
        let text = match whole {
            true => columns.to_string(),
            false => format!("CREATE TABLE {name} ({columns}) WITH ('connector' = 'topics', 'format' = 'json')"),
        };
        self.script += &format!("{text};\n");
        self.records.insert(name.into(), Vec::new());
    }

    fn add(&mut self, name: &str, line: &str) {
        let record = match line.split_once(" =>") {
            Some((key, value)) => format!("{key}\t{}", value.trim()),
            None => line.to_string(),
        };
        self.records.get_mut(name).unwrap_or_else(|| panic!("no table {name}")).push(record);
        self.arrivals.push(name.into());
    }

    fn feeds(&self, batch: usize) -> Feeds {
        let feed = |(name, records): (&String, &Vec<String>)| {
            let keyed = records.iter().any(|record| record.contains('\t'));
            let made = if keyed { Feed::keyed } else { Feed::new };
            (name.clone(), made(name, vec![records.clone()], batch))
        };
        Feeds(self.records.iter().map(feed).collect())
    }
}

/// Lets the first so many records of all tables be read.
fn reveal(world: &World, feeds: &Feeds, arrived: usize) {
    for (name, feed) in &feeds.0 {
        feed.reveal(world.arrivals[..arrived].iter().filter(|of| *of == name).count());
    }
}

/// The cases of a file.
fn cases(lines: &[String]) -> Vec<Case> {
    let (mut world, mut cases, mut at) = (World::default(), Vec::new(), 0);
    while at < lines.len() {
        if lines[at].is_empty() || lines[at].starts_with('#') {
            at += 1;
            continue;
        }
        let end = (at..lines.len()).find(|&n| lines[n].is_empty()).unwrap_or(lines.len());
        let bar = (at..end).find(|&n| lines[n] == "----").unwrap_or(end);
        let sql = lines[at + 1..bar].iter().filter(|line| !line.starts_with('#')).cloned().collect::<Vec<_>>().join("\n");
        let (word, name) = lines[at].split_once(' ').unwrap_or((&lines[at], ""));
        let kind = match (word, name) {
            ("table" | "rows", name) => {
                let records = if word == "table" { end.min(bar + 1)..end } else { at + 1..end };
                if word == "table" {
                    world.declare(name, &sql);
                }
                lines[records].iter().filter(|line| !line.starts_with('#')).for_each(|line| world.add(name, line));
                None
            }
            ("statement", "") => {
                world.script += &format!("{sql};\n");
                None
            }
            ("query", "") => Some(Kind::Query),
            ("query", "by-record") => Some(Kind::ByRecord),
            ("changes", "") => Some(Kind::Changes),
            ("differs", "") => Some(Kind::Differs),
            ("error", "") => Some(Kind::Error),
            _ => panic!("line {}: {:?} begins no block", at + 1, lines[at]),
        };
        if let Some(kind) = kind {
            assert!(bar < end, "line {}: no ---- behind the query", at + 1);
            cases.push(Case { kind, sql, world: world.clone(), line: at + 1, expected: bar + 1..end });
        }
        at = end;
    }
    cases
}

/// Plans a query and draws it, which refuses what cannot be run.
fn drawn(script: &str, feeds: &Feeds) -> Result<()> {
    let outcomes = Session::new(Arc::new(feeds.clone())).run("test.sql", script)?;
    if let Some(Outcome::Query(planned) | Outcome::Insert(planned)) = outcomes.into_iter().last() {
        let nowhere = SinkRef::Ready(Arc::new(crate::nowhere::Nowhere));
        planned.draw(&mut LogicalGraph::new("query"), feeds, Some(nowhere)).map_err(|e| e.into_error("test.sql", script))?;
    }
    Ok(())
}

type Rows = BTreeMap<Vec<String>, i64>;

impl Case {
    fn script(&self) -> String {
        format!("{}{}", self.world.script, self.sql)
    }

    fn start(&self, feeds: &Feeds, parallelism: u32) -> Result<Running> {
        Running::try_start(feeds, &self.script(), self.line as u64, parallelism)
    }

    /// All at once.
    fn whole(&self) -> Result<Rows> {
        let (batch, parallelism) = if self.kind == Kind::ByRecord { (1, 1) } else { (1000, 2) };
        let feeds = self.world.feeds(batch);
        reveal(&self.world, &feeds, self.world.arrivals.len());
        let mut running = self.start(&feeds, parallelism)?;
        running.try_finish()?;
        Ok(running.rows.rows())
    }

    /// Record by record, with a restart in the middle.
    fn in_pieces(&self) -> Result<Rows> {
        let (all, feeds) = (self.world.arrivals.len(), self.world.feeds(1));
        reveal(&self.world, &feeds, all / 2);
        let mut running = self.start(&feeds, 1)?;
        running.try_settle()?;
        running.try_restart(if self.kind == Kind::ByRecord { 1 } else { 3 })?;
        reveal(&self.world, &feeds, all);
        running.try_finish()?;
        Ok(running.rows.rows())
    }

    /// Record by record, in the order of arrival.
    fn changes(&self) -> Result<Vec<(RowKind, Vec<String>)>> {
        let (arrivals, feeds) = (&self.world.arrivals, self.world.feeds(1));
        let mut running = self.start(&feeds, 1)?;
        for arrived in 1..=arrivals.len() {
            reveal(&self.world, &feeds, arrived);
            // What comes of one table comes in order by itself.
            if arrivals.get(arrived) != Some(&arrivals[arrived - 1]) {
                running.try_settle()?;
            }
        }
        running.try_finish()?;
        Ok(running.rows.log())
    }

    /// What comes out, as lines.
    fn got(&self) -> Result<Vec<String>> {
        drawn(&self.script(), &self.world.feeds(1))?;
        let whole = self.whole()?;
        let pieces = self.in_pieces()?;
        if whole != pieces {
            return Ok(["all at once:".to_string()]
                .into_iter()
                .chain(lines(whole))
                .chain(["in pieces:".into()])
                .chain(lines(pieces))
                .collect());
        }
        if self.kind != Kind::Changes {
            return Ok(lines(whole));
        }
        let log = self.changes()?;
        let mut sum = Rows::new();
        log.iter().for_each(|(kind, row)| *sum.entry(row.clone()).or_insert(0) += kind.weight());
        sum.retain(|_, weight| *weight != 0);
        let mut shown: Vec<String> = log.iter().map(|(kind, row)| format!("{kind} {}", line(row))).collect();
        if sum != whole {
            shown.extend(["which is not what it is all at once:".to_string()].into_iter().chain(lines(whole)));
        }
        Ok(shown)
    }

    /// What should stand in the file, if something else does.
    fn fault(&self, file: &[String]) -> Option<Vec<String>> {
        let expected = &file[self.expected.clone()];
        // A panic is a fault of this case, and hides none of the others.
        let got = catch_unwind(AssertUnwindSafe(|| self.got())).unwrap_or_else(|_| Err(Error::fatal("it panicked, see above")));
        match (self.kind, got) {
            (Kind::Error, Err(e)) => {
                let said = e.report();
                (expected.is_empty() || !expected.iter().all(|part| said.contains(part)))
                    .then(|| said.lines().take(1).map(String::from).collect())
            }
            (Kind::Error, Ok(rows)) => Some(["no error:".to_string()].into_iter().chain(rows).collect()),
            (Kind::Differs, got) => got.is_ok_and(|rows| rows == expected).then(|| vec!["the same: make it a query".to_string()]),
            (_, Err(e)) => Some(e.report().lines().filter(|line| !line.is_empty()).map(|line| format!("! {line}")).collect()),
            (_, Ok(rows)) => (rows != expected).then_some(rows),
        }
    }
}

/// A row as text, without blanks at its end.
fn line(row: &[String]) -> String {
    let text = row.join(" | ");
    if text.is_empty() { "(empty)".into() } else { text.trim_end().into() }
}

fn lines(rows: Rows) -> Vec<String> {
    let repeated = |(row, weight): (Vec<String>, i64)| {
        // A row that was taken back more often than it was given is a fault to be seen.
        let line = if weight < 0 { format!("{} x{weight}", line(&row)) } else { line(&row) };
        std::iter::repeat_n(line, weight.unsigned_abs() as usize)
    };
    rows.into_iter().flat_map(repeated).collect()
}

/// Runs a file; what is wrong in it, and of how many cases.
fn run(path: &Path, write: bool) -> (usize, Vec<String>) {
    let text = std::fs::read_to_string(path).unwrap();
    let mut file: Vec<String> = text.lines().map(String::from).collect();
    let (cases, mut faults) = (cases(&file), Vec::new());
    // From the end, so that places before it stay what they are.
    for case in cases.iter().rev() {
        let Some(got) = case.fault(&file) else { continue };
        let expected = file[case.expected.clone()].join("\n");
        faults.push(format!("{}:{}\n{}\nexpected:\n{expected}\ngot:\n{}\n", path.display(), case.line, case.sql, got.join("\n")));
        if write && case.kind != Kind::Differs {
            file.splice(case.expected.clone(), got);
        }
    }
    if write && !faults.is_empty() {
        std::fs::write(path, file.join("\n") + "\n").unwrap();
    }
    faults.reverse();
    (cases.len(), faults)
}

#[test]
fn scripts_have_these_results() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let only = std::env::var("WATERWHEEL_SCRIPT").unwrap_or_default();
    let write = std::env::var_os("WATERWHEEL_WRITE_SNAPSHOTS").is_some();
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "slt") && path.file_stem().unwrap().to_string_lossy().contains(&only));
    files.sort();
    let (next, found) = (Mutex::new(files.into_iter()), Mutex::new((0, Vec::new())));
    let work = || {
        while let Some(path) = { next.lock().unwrap().next() } {
            let (count, faults) = run(&path, write);
            let mut found = found.lock().unwrap();
            found.0 += count;
            found.1.extend(faults);
        }
    };
    std::thread::scope(|scope| (0..std::thread::available_parallelism().map_or(1, usize::from)).for_each(|_| drop(scope.spawn(work))));
    let (count, mut faults) = found.into_inner().unwrap();
    faults.sort();
    assert!(faults.is_empty(), "{} of {count} queries\n\n{}", faults.len(), faults.join("\n"));
    assert!(!only.is_empty() || count > 100, "only {count} queries: the test looks in the wrong place");
}
