//! Running what a session plans: a query until it ends or is stopped, the inserts of a script as a job.
//!
//! Invariant: a query's job is gone when it ends, with everything that it wrote; a script's job keeps its state under its name.

use super::kept::{KeptCatalog, is_declared};
use super::results::{Form, Results, table};
use super::tables::Tables;
use crate::Job;
use crate::program::{Draw, Options, Span, analyze};
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use waterwheel_connectors::topics::TopicsUrl;
use waterwheel_engine::env::Env;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::graph::{LogicalGraph, NodeKind, PhysicalPlan, SinkRef, explain, plan};
use waterwheel_engine::observe::Metrics;
use waterwheel_engine::runtime::{JobControl, JobRunner, Outcome as Ended, Settings};
use waterwheel_engine::state::{RocksSettings, TieredStores};
use waterwheel_sql::catalog::Entry;
use waterwheel_sql::options::milliseconds;
use waterwheel_sql::parser::StatementKind;
use waterwheel_sql::{Connectors, Outcome, Planned, Session, ShownRow, parse};

/// Stops the query that runs now; shared with whoever hears Ctrl-C.
#[derive(Clone, Default)]
pub struct Stopper(Arc<Mutex<Option<JobControl>>>);

impl Stopper {
    /// Stops it; `false` when nothing runs.
    pub fn stop(&self) -> bool {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(control) => {
                control.kill();
                true
            }
            None => false,
        }
    }

    fn set(&self, control: Option<JobControl>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = control;
    }
}

/// A session with a place and a terminal.
pub struct Shell {
    session: Session,
    tables: Tables,
    form: Form,
    until_end: bool,
    env: Env,
    stopper: Stopper,
    kept: Option<KeptCatalog>,
    out: fn() -> Box<dyn Write + Send>,
}

impl Shell {
    /// Tables of these topics, rows in this form on standard output. With `until_end` every query ends at what is there now.
    ///
    /// # Errors
    /// A URL with settings that are refused.
    pub fn new(topics: &TopicsUrl, form: Form, until_end: bool) -> Result<Shell> {
        let env = Env::real();
        let tables = Tables::new(topics.open(&env)?, env.clone(), until_end);
        let session = Session::new(Arc::new(tables.clone()));
        Ok(Shell { session, tables, form, until_end, env, stopper: Stopper::default(), kept: None, out: || Box::new(std::io::stdout()) })
    }

    /// Tables and views are those of a catalog, and what is declared or dropped from now on is kept there.
    ///
    /// # Errors
    /// Of a declaration that does not hold any more.
    pub fn catalog(mut self, kept: KeptCatalog) -> Result<Shell> {
        kept.read_into(&mut self.session)?;
        self.kept = Some(kept);
        Ok(self)
    }

    /// Rows go there instead of to standard output.
    #[must_use]
    pub fn out(mut self, out: fn() -> Box<dyn Write + Send>) -> Self {
        self.out = out;
        self
    }

    /// What can be named: tables, their columns, and topics that may be one (none where the place is away).
    pub fn names(&self) -> Vec<String> {
        let catalog = self.session.catalog();
        let mut names: Vec<String> = catalog.names().map(String::from).collect();
        names.extend(catalog.names().filter_map(|name| catalog.get(name)).flat_map(Entry::columns));
        names.extend(self.tables.names().unwrap_or_default());
        names.sort();
        names.dedup();
        names
    }

    /// To stop a query from another thread.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Carries out the statements of a text, one after the other; inserts run until they end or are stopped, all together, last.
    ///
    /// # Errors
    /// Of the first statement that is wrong or fails.
    pub fn run(&mut self, file: &str, text: &str) -> Result<()> {
        let statements = parse(text).map_err(|e| e.into_error(file, text))?;
        let mut inserts = Vec::new();
        for statement in &statements {
            if let Some(kept) = &self.kept {
                kept.check(statement).map_err(|e| e.into_error(file, text))?;
            }
            let was_there = is_declared(statement, &self.session);
            let outcome = self.session.execute(statement).map_err(|e| e.into_error(file, text))?;
            if let Some(kept) = &self.kept {
                kept.note(statement, text, &self.session, &outcome, was_there)?;
            }
            for note in self.session.take_notes() {
                eprintln!(" {note}");
            }
            match outcome {
                Outcome::Done(note) => eprintln!(" {note}"),
                Outcome::Text(text) => self.print(&format!("{text}\n"))?,
                Outcome::Table(head, rows) => {
                    let rows: Vec<ShownRow> = rows.into_iter().map(|cells| ShownRow { cells, json: Err(String::new()) }).collect();
                    self.print(&table(&head, &rows))?;
                }
                Outcome::Query(query) => self.query(&query, file, text)?,
                Outcome::Insert(insert) => inserts.push(*insert),
                Outcome::Analyze(query, plan) => self.analyze(*query, &plan, file, text)?,
            }
        }
        if inserts.is_empty() { Ok(()) } else { self.inserts(inserts, file, text) }
    }

    fn print(&self, text: &str) -> Result<()> {
        let mut out = (self.out)();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| Error::fatal("standard output cannot be written").because(e))
    }

    fn tables(&self) -> Tables {
        self.tables.until_end(self.until_end || self.session.settings().is_batch())
    }

    fn parallelism(&self) -> u32 {
        self.session.settings().get("parallelism.default").and_then(|n| n.parse().ok()).unwrap_or(1)
    }

    fn query(&self, query: &Planned, file: &str, text: &str) -> Result<()> {
        let tables = self.tables();
        let nowhere: SinkRef = SinkRef::Ready(Arc::new(waterwheel_connectors::blackhole::Blackhole::default()));
        let mut graph = LogicalGraph::new("query");
        let changes = query.draw(&mut graph, &tables, Some(nowhere)).map_err(|e| e.into_error(file, text))?;
        let ends = is_bounded(&plan(&graph, tables.topics())?);
        if !ends && !query.order().is_empty() {
            return Err(Error::fatal("ORDER BY needs an input that ends: rows of a stream have no last one")
                .help("read what is there now:  --until-end, or SET 'execution.runtime-mode' = 'batch'"));
        }
        let is_cut = query.limit().is_some() || query.offset() > 0;
        if !ends && changes && is_cut {
            return Err(Error::fatal("LIMIT and OFFSET of rows that change needs an input that ends")
                .help("read what is there now:  --until-end, or SET 'execution.runtime-mode' = 'batch'"));
        }
        let collects = ends && (changes || !query.order().is_empty() || is_cut);
        let results = Results::new(query, self.form, collects, (self.out)());
        let (planned, sink, parallelism) = (query.clone(), results.clone(), self.parallelism());
        let draw = move || {
            let mut graph = LogicalGraph::new("query");
            graph.parallelism = parallelism;
            let sink = SinkRef::Ready(Arc::new(sink.clone()));
            planned.draw(&mut graph, &tables, Some(sink)).map_err(|e| Error::fatal(e.message()))?;
            plan(&graph, tables.topics())
        };
        let (ended, _) = self.run_here(draw)?;
        if ended == Ended::Finished {
            results.finish()?;
        }
        Ok(())
    }

    /// Runs a query whose input ends, and says what each operator did.
    fn analyze(&self, query: Planned, plan_text: &str, file: &str, text: &str) -> Result<()> {
        let (tables, parallelism) = (self.tables(), self.parallelism());
        let draw = move || {
            let mut graph = LogicalGraph::new("query");
            graph.parallelism = parallelism;
            let nowhere = SinkRef::Ready(Arc::new(waterwheel_connectors::blackhole::Blackhole::default()));
            query.draw(&mut graph, &tables, Some(nowhere)).map(|_| (graph, tables.clone()))
        };
        let (graph, tables) = draw().map_err(|e| e.into_error(file, text))?;
        if !is_bounded(&plan(&graph, tables.topics())?) {
            return Err(Error::fatal("EXPLAIN ANALYZE needs an input that ends: it runs the query to its end")
                .help("read what is there now:  --until-end, or SET 'execution.runtime-mode' = 'batch'"));
        }
        let explained = explain(&graph, tables.topics(), Duration::from_secs(1))?;
        let (_, metrics) = self.run_here(move || {
            let (graph, tables) = draw().map_err(|e| Error::fatal(e.message()))?;
            plan(&graph, tables.topics())
        })?;
        let done = analyze::done(&explained, &analyze::numbers(&metrics));
        let rows = done.iter().map(|done| ShownRow { cells: done.cells().to_vec(), json: Err(String::new()) });
        let rows = table(&analyze::HEAD.map(String::from), &rows.collect::<Vec<_>>());
        self.print(&format!("{plan_text}\n{rows}"))
    }

    fn inserts(&self, inserts: Vec<Planned>, file: &str, text: &str) -> Result<()> {
        let (tables, parallelism) = (self.tables(), self.parallelism());
        let (file, text) = (file.to_string(), text.to_string());
        // What it writes remembers the job: the next one is another, and two at a time do not shut each other out.
        let name = format!("inserts-{}", &self.env.fresh_id()[..12]);
        let draw = move || {
            let mut graph = LogicalGraph::new(name.as_str());
            graph.parallelism = parallelism;
            for insert in &inserts {
                insert.draw(&mut graph, &tables, None).map_err(|e| e.into_error(&file, &text))?;
            }
            plan(&graph, tables.topics())
        };
        eprintln!(" running until the input ends; Ctrl-C stops (a script with -f keeps its place)");
        self.run_here(draw).map(drop)
    }

    /// Runs a job on this thread in a folder of its own, which goes when it ends.
    fn run_here(&self, draw: impl Fn() -> Result<PhysicalPlan> + Send + Sync + 'static) -> Result<(Ended, Metrics)> {
        let folder = std::env::temp_dir().join(format!("waterwheel-sql-{}", self.env.fresh_id()));
        let stores = Arc::new(TieredStores::on_disk(&self.env, RocksSettings::default()));
        let runner = JobRunner::new(self.env.clone(), stores, Arc::new(draw), self.settings(folder.clone()));
        self.stopper.set(Some(runner.control()));
        let ended = runner.run();
        self.stopper.set(None);
        let cleared = self.env.files.exists(&folder).and_then(|there| if there { self.env.files.remove_dir_all(&folder) } else { Ok(()) });
        let ended = ended?;
        cleared.map_err(|e| Error::from(e).at(folder.display().to_string()))?;
        Ok((ended, runner.metrics()))
    }

    fn settings(&self, checkpoints: PathBuf) -> Settings {
        let mut settings = Settings { checkpoints, workers: self.parallelism() as usize, max_restarts: 0, ..Settings::default() };
        // Nothing will go on from these; output of inserts becomes visible with each.
        settings.checkpoint.interval = self.session.settings().checkpoint_interval().unwrap_or(Duration::from_secs(1));
        settings
    }
}

fn is_bounded(plan: &PhysicalPlan) -> bool {
    plan.chains.iter().flat_map(|c| &c.nodes).all(|node| match &node.kind {
        NodeKind::Source(spec) => spec.source.is_bounded(),
        _ => true,
    })
}

/// A script of declarations and inserts that is a job.
pub struct Script {
    /// The job's name.
    pub name: String,
    /// How it is drawn.
    pub draw: Draw,
    /// What it says of how it is run, by `SET`.
    pub options: Options,
}

/// A script as a job; none when it holds no insert. It may name what is in a catalog; what it declares itself is its own.
///
/// # Errors
/// Of the first statement that is wrong; a query between the inserts.
pub fn script(file: &str, text: &str, catalog: Option<&KeptCatalog>) -> Result<Option<Script>> {
    let statements = parse(text).map_err(|e| e.into_error(file, text))?;
    if !statements.iter().any(|statement| matches!(statement.kind, StatementKind::Insert(_))) {
        return Ok(None);
    }
    let stem = std::path::Path::new(file).file_stem().map_or("sql".to_string(), |s| s.to_string_lossy().into_owned());
    let set = |wanted: &str| {
        statements.iter().rev().find_map(|statement| match &statement.kind {
            StatementKind::Set(Some((key, value))) if key == wanted => Some(value.clone()),
            _ => None,
        })
    };
    let name = set("pipeline.name").unwrap_or(stem).replace(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')), "-");
    // What cannot be is an error where the statements are carried out.
    let interval = set("execution.checkpointing.interval").and_then(|text| milliseconds(&text));
    let options = Options {
        checkpoint_interval: interval.map(|ms| Span(Duration::from_millis(ms))),
        parallelism: set("parallelism.default").and_then(|text| text.parse().ok()),
        ..Options::default()
    };
    let (file, text) = (file.to_string(), text.to_string());
    let declared = catalog.map(|kept| Ok::<_, Error>((kept.file(), kept.text()?))).transpose()?;
    let draw: Draw = Arc::new(move |job: &Job| draw(job, &file, &text, declared.as_ref()));
    Ok(Some(Script { name, draw, options }))
}

fn draw(job: &Job, file: &str, text: &str, declared: Option<&(String, String)>) -> Result<()> {
    // What the script sets is among the settings that the job was made with, where a flag comes first.
    let tasks = job.tasks();
    draw_statements(job, file, text, declared)?;
    job.parallelism(tasks);
    Ok(())
}

fn draw_statements(job: &Job, file: &str, text: &str, declared: Option<&(String, String)>) -> Result<()> {
    if let Some((file, text)) = declared {
        job.sql_of(file, text)?;
    }
    if job.sql_of(file, text)?.is_some() {
        return Err(Error::fatal("a script that is run as a job inserts; it shows no rows")
            .at(file.to_string())
            .help("INSERT INTO a table, or run the query by itself:  waterwheel sql -e '...'"));
    }
    Ok(())
}
