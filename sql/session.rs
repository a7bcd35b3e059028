//! A session: statement after statement, and what each leaves.
//!
//! Invariant: a statement takes effect whole or not at all; an error names its place in the text.

use crate::alter::altered;
use crate::catalog::{Catalog, Entry, Table, View};
use crate::connect::Connectors;
use crate::error::{SqlError, SqlResult};
use crate::like::merged;
use crate::lower::{Target, check_insert, lower_insert};
use crate::named::{in_order, renamed};
use crate::options::{Options, milliseconds};
use crate::order::{OrderBy, Wanted, wanted};
use crate::own::Function;
use crate::parser::{
    Alter, Change, ColumnDef, ColumnKind, CreateTable, Hinted, Hints, Insert, Statement, StatementKind, Words, parse, type_name,
};
use crate::plan::{Functions, optimize, plan};
use crate::settings::{Settings, Terms};
use arrow::datatypes::SchemaRef;
use datafusion_expr::LogicalPlan;
use datafusion_sql::sqlparser::ast::{Ident, Query};
use datafusion_sql::sqlparser::tokenizer::Span;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use waterwheel_engine::error::Result;
use waterwheel_engine::graph::{self, LogicalGraph, SinkRef};

/// Bytes of stack for planning; only what is touched takes memory.
const STACK: usize = 64 << 20;

/// What a statement left.
#[derive(Debug)]
pub enum Outcome {
    /// Nothing to look at, but this is to be said.
    Done(String),
    /// A small table: headings and rows.
    Table(Vec<String>, Vec<Vec<String>>),
    /// Text: a plan.
    Text(String),
    /// A query, ready to be run and shown.
    Query(Box<Planned>),
    /// An insert, ready to be run.
    Insert(Box<Planned>),
    /// A query to be run for its numbers, and its plan as text.
    Analyze(Box<Planned>, String),
}

/// A query or an insert that can be run.
#[derive(Clone)]
pub struct Planned {
    plan: LogicalPlan,
    /// What it was read from, for the place of an error.
    words: Words,
    /// Name of its operators, and of its sink.
    name: String,
    table: Option<Arc<Table>>,
    wanted: Wanted,
    /// How long it keeps what, and when its windows give results.
    pub(crate) terms: Terms,
}

impl std::fmt::Debug for Planned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, self.plan.display_indent())
    }
}

impl Planned {
    /// Name of its sink.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same under another name, with which the ids of its operators begin.
    #[must_use]
    pub fn named(self, name: &str) -> Planned {
        Planned { name: name.to_string(), ..self }
    }

    pub(crate) fn plan(&self) -> &LogicalPlan {
        &self.plan
    }

    /// An error with its place in the text of the query.
    pub(crate) fn placed<T>(&self, done: SqlResult<T>) -> SqlResult<T> {
        done.map_err(|e| placed(e, &self.words))
    }

    /// Columns of its rows.
    pub fn schema(&self) -> SchemaRef {
        Arc::new(self.plan.schema().as_arrow().clone())
    }

    /// How the final rows are to be put in order, for inputs that end.
    pub fn order(&self) -> &[OrderBy] {
        &self.wanted.order
    }

    /// How many of them are wanted.
    pub fn limit(&self) -> Option<usize> {
        self.wanted.limit
    }

    /// How many are left out before these.
    pub fn offset(&self) -> usize {
        self.wanted.offset
    }

    /// Draws it into a job. The rows of a query go to `sink`, whose writer takes
    /// [`ChangeBatch`](waterwheel_engine::record::ChangeBatch)es; an insert knows its own. Answers whether rows change later.
    ///
    /// # Errors
    /// What cannot be run, and what to write instead.
    pub fn draw(&self, graph: &mut LogicalGraph, connectors: &dyn Connectors, sink: Option<SinkRef>) -> SqlResult<bool> {
        let target = match (&self.table, sink) {
            (Some(table), _) => Target::Table(table.clone()),
            (None, Some(sink)) => Target::Changes(sink),
            (None, None) => return Err(SqlError::new("a query needs a place for its rows")),
        };
        lower_insert(graph, connectors, &self.name, &self.plan, &self.terms, &target).map_err(|e| placed(e, &self.words))
    }
}

/// How long a hint says that state of an input is kept; none = for ever.
fn lifetime((name, said, span): &(String, String, Span)) -> SqlResult<(String, Option<Duration>, Span)> {
    let ms = milliseconds(said).ok_or_else(|| {
        SqlError::new(format!("STATE_TTL of {name:?} cannot be '{said}'")).at(*span).help("write a time: 10 s, 5 min, 36 h, PT10M")
    })?;
    Ok((name.clone(), Some(Duration::from_millis(ms)).filter(|ttl| !ttl.is_zero()), *span))
}

/// Tables, views and settings, and the world that tables are connected to.
pub struct Session {
    catalog: Catalog,
    functions: Functions,
    settings: Settings,
    connectors: Arc<dyn Connectors>,
    inserts: usize,
    undeclared: Option<BTreeSet<String>>,
    /// Tables as they were declared, for LIKE.
    declared: BTreeMap<String, CreateTable>,
    notes: Vec<String>,
    /// Of the statement at hand: how long state of inputs is kept, as hints say.
    lifetimes: Vec<(String, Option<Duration>, Span)>,
}

impl Session {
    /// An empty one.
    pub fn new(connectors: Arc<dyn Connectors>) -> Self {
        Session {
            catalog: Catalog::default(),
            functions: Functions::new(),
            settings: Settings::default(),
            connectors,
            inserts: 0,
            undeclared: None,
            declared: BTreeMap::new(),
            notes: Vec::new(),
            lifetimes: Vec::new(),
        }
    }

    /// Lets queries call a function, by its name in any case, in place of any other of that name: a
    /// [`ScalarFunction`](crate::ScalarFunction), an [`AggregateFunction`](crate::AggregateFunction) or a
    /// [`TableFunction`](crate::TableFunction).
    pub fn register(&mut self, function: impl Into<Function>) {
        self.functions.register(function.into());
    }

    /// Makes a name mean a table, in place of what was only inferred.
    ///
    /// # Errors
    /// The name means something already.
    pub fn define(&mut self, table: Table) -> SqlResult<()> {
        match self.catalog.get(&table.name) {
            Some(Entry::Table(known)) if known.inferred.is_some() => {}
            None => {}
            Some(_) => return Err(SqlError::new(format!("\"{}\" is there already", table.name)).help("give the stream another name")),
        }
        self.redefine(table);
        Ok(())
    }

    /// Lets a name mean this table, whatever it meant.
    pub fn redefine(&mut self, table: Table) {
        let name = table.name.clone();
        self.catalog.put(&name, Entry::Table(Arc::new(table)));
    }

    /// What was set.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Tables and views.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// What a person should know of the statements so far: inferred columns. Said once.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// Carries out every statement of a text, in order, up to the first error. `file` is the text's name for errors.
    ///
    /// # Errors
    /// Of the first statement that is wrong, with its place.
    pub fn run(&mut self, file: &str, text: &str) -> Result<Vec<Outcome>> {
        let statements = parse(text).map_err(|e| e.into_error(file, text))?;
        statements.iter().map(|s| self.execute(s).map_err(|e| e.into_error(file, text))).collect()
    }

    /// Carries out one statement.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn execute(&mut self, statement: &Statement) -> SqlResult<Outcome> {
        // Planning goes down every chain of operators; the parser bounds how long one is, and this is room for it.
        stacker::maybe_grow(STACK / 2, STACK, || {
            self.infer(statement)?;
            let hinted = self.hint(&statement.hints)?;
            let outcome = self.outcome(&statement.kind, &statement.words).map_err(|e| placed(e, &statement.words));
            hinted.iter().for_each(|name| drop(self.catalog.remove(name)));
            outcome
        })
    }

    /// Puts the tables into the catalog that a statement gives other options; their names there.
    fn hint(&mut self, hints: &Hints) -> SqlResult<Vec<String>> {
        let tables = hints.tables.iter().map(|hinted| self.hinted(hinted)).collect::<SqlResult<Vec<_>>>()?;
        self.lifetimes = hints.lifetimes.iter().map(lifetime).collect::<SqlResult<_>>()?;
        self.notes.extend(hints.notes.iter().cloned());
        let names = tables.iter().map(|table| table.name.clone()).collect();
        tables.into_iter().for_each(|table| self.catalog.put(&table.name.clone(), Entry::Table(Arc::new(table))));
        Ok(names)
    }

    /// A table with other options than it was declared with.
    fn hinted(&self, hinted: &Hinted) -> SqlResult<Table> {
        let table = match self.catalog.get(&hinted.of) {
            Some(Entry::Table(table)) => table,
            Some(Entry::View(_)) => {
                return Err(SqlError::new(format!("\"{}\" is a view: it has no options", hinted.of))
                    .at(hinted.span)
                    .help("write the query of the view with the hint"));
            }
            None => return Err(self.catalog.missing(&hinted.of).or_at(Some(hinted.span))),
        };
        if let Some((.., span)) = hinted.options.iter().find(|option| option.0 == "connector") {
            return Err(SqlError::new("a hint cannot change the connector").at(*span).help("declare another table"));
        }
        let merged = |declared: &[(String, String, Span)]| {
            let kept = declared.iter().filter(|old| hinted.options.iter().all(|new| new.0 != old.0));
            kept.chain(&hinted.options).cloned().collect::<Vec<_>>()
        };
        if let Some(declared) = self.declared.get(&hinted.of) {
            let name = Ident::new(&hinted.name);
            return Table::of(&CreateTable { name, options: merged(&declared.options), ..declared.clone() }, &self.functions);
        }
        let implied = std::iter::once(("connector", table.options.connector.name())).chain(table.options.iter());
        let implied: Vec<_> = implied.map(|(key, value)| (key.to_string(), value.to_string(), hinted.span)).collect();
        let columns: Vec<&str> = table.schema.fields().iter().map(|field| field.name().as_str()).collect();
        let options = Options::of(&merged(&implied), &columns)?;
        Ok(Table { name: hinted.name.clone(), options, ..Table::clone(table) })
    }

    /// Makes tables of topics that a statement names and nobody has declared, nor declares now: a topic may be empty until then.
    fn infer(&mut self, statement: &Statement) -> SqlResult<()> {
        let words = &statement.words;
        let declared = match &statement.kind {
            StatementKind::CreateTable(table) => Some(&table.name.value),
            StatementKind::CreateView { name, .. } => Some(&name.value),
            _ => None,
        };
        if self.undeclared.is_none() {
            let names = self.connectors.names().map_err(|e| SqlError::new(e.report()))?;
            self.undeclared = Some(names.into_iter().collect());
        }
        let known = self.undeclared.iter().flatten();
        let is_hinted = |name: &String| statement.hints.tables.iter().any(|hinted| hinted.of == *name);
        let is_meant = |name: &String| is_named(words, name) || is_hinted(name);
        let named = known.filter(|name| Some(*name) != declared && self.catalog.get(name).is_none() && is_meant(name));
        let named: Vec<String> = named.cloned().collect();
        for name in named {
            if let Some(table) = self.connectors.infer(&name).map_err(|e| SqlError::new(e.report()).or_at(words.find(&name)))? {
                self.notes.extend(table.inferred.clone().map(|how| format!("{name}: {how}")));
                self.catalog.put(&name, Entry::Table(Arc::new(table)));
            }
        }
        Ok(())
    }

    fn outcome(&mut self, kind: &StatementKind, words: &Words) -> SqlResult<Outcome> {
        let done = |text: &str| Ok(Outcome::Done(text.to_string()));
        match kind {
            StatementKind::CreateTable(table) => self.create_table(table, words),
            StatementKind::CreateView { name, columns, query, if_not_exists, or_replace, .. } => {
                if !or_replace && !self.is_free(name, *if_not_exists)? {
                    return done("it is there already");
                }
                let mut planned = plan(query, &self.catalog, &self.functions)?;
                if !columns.is_empty() {
                    planned = renamed(planned, columns)?;
                }
                self.catalog.put(&name.value, Entry::View(Arc::new(View { text: words.text(), plan: planned })));
                done("view created")
            }
            StatementKind::Drop { view, name, if_exists } => {
                let is_view = match self.catalog.get(&name.value) {
                    Some(entry) => matches!(entry, Entry::View(_)),
                    None if *if_exists => return done("there was none"),
                    None => return Err(self.catalog.missing(&name.value).or_at(Some(name.span))),
                };
                if is_view != *view {
                    let (is, say) = if is_view { ("a view", "DROP VIEW") } else { ("a table", "DROP TABLE") };
                    return Err(SqlError::new(format!("\"{}\" is {is}", name.value)).at(name.span).help(say));
                }
                self.catalog.remove(&name.value);
                self.declared.remove(&name.value);
                done("dropped")
            }
            StatementKind::Alter(alter) => self.alter(alter, words),
            StatementKind::Insert(insert) => {
                let planned = self.insert(insert, words)?;
                self.inserts += 1;
                Ok(Outcome::Insert(Box::new(planned)))
            }
            StatementKind::Query(query) => Ok(Outcome::Query(Box::new(self.query(query, words)?))),
            StatementKind::Explain(explained) => {
                let planned = match &**explained {
                    StatementKind::Insert(insert) => self.insert(insert, words)?,
                    StatementKind::Query(query) => self.query(query, words)?,
                    _ => return Err(SqlError::new("only queries and inserts have a plan")),
                };
                self.explain(&planned).map(Outcome::Text)
            }
            StatementKind::Analyze(query) => {
                let planned = self.query(query, words)?;
                let plan = self.explain(&planned)?;
                Ok(Outcome::Analyze(Box::new(planned), plan))
            }
            StatementKind::Set(None) => Ok(Outcome::Table(["key", "value", "meaning"].map(String::from).to_vec(), self.settings.list())),
            StatementKind::Set(Some((key, value))) => {
                let note = self.settings.set(key, value).map_err(|e| e.or_at(words.find(key)))?;
                self.functions.set_zone(self.settings.zone());
                Ok(Outcome::Done(note.unwrap_or_else(|| "set".into())))
            }
            StatementKind::Reset(key) => {
                self.settings.reset(key.as_deref());
                self.functions.set_zone(self.settings.zone());
                done("reset")
            }
            StatementKind::ShowTables => Ok(self.show_tables()),
            StatementKind::ShowFunctions => {
                let names = self.functions.names().into_iter().map(|name| vec![name.to_uppercase()]);
                Ok(Outcome::Table(vec!["function".into()], names.collect()))
            }
            StatementKind::ShowPlace(what, name) => Ok(Outcome::Table(vec![(*what).into()], vec![vec![(*name).into()]])),
            StatementKind::Use => done("there is one catalog with one database"),
            StatementKind::ShowCreate(name) => self.show_create(name),
            StatementKind::Describe(name) => self.describe(name),
            StatementKind::StatementSet => done("all inserts of a script are one job"),
        }
    }

    /// Whether a name means nothing yet; an error if it does and that was not foreseen.
    fn is_free(&self, name: &Ident, if_not_exists: bool) -> SqlResult<bool> {
        match self.catalog.get(&name.value) {
            None => Ok(true),
            Some(_) if if_not_exists => Ok(false),
            // What was only inferred gives way to what is declared.
            Some(Entry::Table(table)) if table.inferred.is_some() => Ok(true),
            Some(_) => Err(SqlError::new(format!("\"{}\" is there already", name.value))
                .at(name.span)
                .help("DROP it first, or CREATE ... IF NOT EXISTS")),
        }
    }

    fn create_table(&mut self, declared: &CreateTable, words: &Words) -> SqlResult<Outcome> {
        if !self.is_free(&declared.name, declared.if_not_exists)? {
            return Ok(Outcome::Done("it is there already".into()));
        }
        let mut declared = declared.clone();
        if let Some(like) = declared.like.take() {
            let base = self.declared.get(&like.table.value).filter(|_| self.catalog.get(&like.table.value).is_some());
            let Some(base) = base else {
                let span = Some(like.table.span);
                return Err(match self.catalog.get(&like.table.value) {
                    None => self.catalog.missing(&like.table.value).or_at(span),
                    Some(_) => SqlError::new(format!("\"{}\" was not declared by CREATE TABLE", like.table.value))
                        .or_at(span)
                        .help("write the columns"),
                });
            };
            declared = merged(base, &declared, &like)?;
        }
        if let Some(query) = declared.query.take() {
            return self.create_table_as(declared, query, words);
        }
        if declared.columns.is_empty() {
            return Err(SqlError::new(format!("table \"{}\" has no columns", declared.name.value)).at(declared.name.span));
        }
        self.put_table(declared)?;
        Ok(Outcome::Done("table created".into()))
    }

    fn put_table(&mut self, declared: CreateTable) -> SqlResult<()> {
        let table = Table::of(&declared, &self.functions)?;
        let name = declared.name.value.clone();
        self.catalog.put(&name, Entry::Table(Arc::new(table)));
        self.declared.insert(name, declared);
        Ok(())
    }

    fn alter(&mut self, alter: &Alter, words: &Words) -> SqlResult<Outcome> {
        let (name, done) = (&alter.name, |what: &str| Ok(Outcome::Done(what.into())));
        let view = match self.catalog.get(&name.value) {
            None if alter.if_exists => return done("there was none"),
            None => return Err(self.catalog.missing(&name.value).or_at(Some(name.span))),
            Some(Entry::View(view)) => Some(view.clone()),
            Some(Entry::Table(_)) => None,
        };
        if view.is_some() != alter.view {
            let (is, say) = if alter.view { ("a table", "ALTER TABLE") } else { ("a view", "ALTER VIEW") };
            return Err(SqlError::new(format!("\"{}\" is {is}", name.value)).at(name.span).help(say));
        }
        if let Change::Rename(to) = &alter.change {
            self.is_free(to, false)?;
        }
        match (view, &alter.change) {
            (Some(view), Change::Rename(to)) => {
                self.catalog.remove(&name.value);
                self.catalog.put(&to.value, Entry::View(view));
                done("view renamed")
            }
            (_, Change::Query(query)) => {
                let plan = plan(query, &self.catalog, &self.functions)?;
                self.catalog.put(&name.value, Entry::View(Arc::new(View { text: words.text(), plan })));
                done("view changed")
            }
            _ => {
                let Some(declared) = self.declared.get(&name.value) else {
                    let is = format!("\"{}\" was not declared by CREATE TABLE", name.value);
                    return Err(SqlError::new(is).at(name.span).help("declare it, with what is to be changed"));
                };
                self.put_table(altered(declared, &alter.change)?)?;
                if let Change::Rename(_) = &alter.change {
                    self.catalog.remove(&name.value);
                    self.declared.remove(&name.value);
                }
                done("table changed")
            }
        }
    }

    /// A table with the columns of a query, and the insert that fills it.
    fn create_table_as(&mut self, mut declared: CreateTable, query: Box<Query>, words: &Words) -> SqlResult<Outcome> {
        if let Some(column) = declared.columns.first() {
            return Err(SqlError::unsupported(
                "a column beside AS SELECT",
                "the query says which columns there are",
                "leave the columns out",
            )
            .at(column.name.span));
        }
        let name = declared.name.clone();
        for field in plan(&query, &self.catalog, &self.functions)?.schema().fields() {
            let kind = field.data_type().clone();
            if kind.is_null() || kind.is_unsigned_integer() {
                return Err(SqlError::new(format!("column {:?} of the query has no type that a table can have", field.name()))
                    .or_at(words.find(field.name()))
                    .help("CAST it"));
            }
            let kind = ColumnKind::Physical(kind);
            declared.columns.push(ColumnDef { name: Ident::new(field.name()), kind, not_null: false });
        }
        self.put_table(declared)?;
        let insert = Insert { table: name.clone(), partition: Vec::new(), columns: Vec::new(), query };
        match self.insert(&insert, words) {
            Ok(planned) => {
                self.inserts += 1;
                Ok(Outcome::Insert(Box::new(planned)))
            }
            Err(error) => {
                // The statement takes effect whole or not at all.
                self.catalog.remove(&name.value);
                self.declared.remove(&name.value);
                Err(error)
            }
        }
    }

    /// What settings and hints say of the statement at hand.
    fn terms(&self) -> Terms {
        Terms { hinted: self.lifetimes.clone(), ..self.settings.terms() }
    }

    fn query(&self, query: &Query, words: &Words) -> SqlResult<Planned> {
        let (plan, wanted) = wanted(plan(query, &self.catalog, &self.functions)?)?;
        let (plan, terms) = (optimize(plan, &self.functions)?, self.terms());
        Ok(Planned { plan, words: words.clone(), name: "query".into(), table: None, wanted, terms })
    }

    fn insert(&self, insert: &Insert, words: &Words) -> SqlResult<Planned> {
        let table = match self.catalog.get(&insert.table.value) {
            Some(Entry::Table(table)) => table.clone(),
            Some(Entry::View(_)) => {
                return Err(SqlError::new(format!("\"{}\" is a view: nothing is written to it", insert.table.value)).at(insert.table.span));
            }
            None => return Err(self.catalog.missing(&insert.table.value).or_at(Some(insert.table.span))),
        };
        let mut planned = plan(&insert.query, &self.catalog, &self.functions)?;
        if !insert.partition.is_empty() || !insert.columns.is_empty() {
            planned = in_order(planned, insert, &table, &self.functions)?;
        }
        let planned = check_insert(planned, &table).map_err(|e| e.or_at(Some(insert.table.span)))?;
        let name = without_number(&table.name);
        let name = if self.inserts == 0 { name.to_string() } else { format!("{name}-{}", self.inserts + 1) };
        Ok(Planned {
            plan: optimize(planned, &self.functions)?,
            words: words.clone(),
            name,
            table: Some(table),
            wanted: Wanted::default(),
            terms: self.terms(),
        })
    }

    /// The plan as optimised, then what will run.
    fn explain(&self, planned: &Planned) -> SqlResult<String> {
        let mut graph = LogicalGraph::new(planned.name());
        let nowhere = SinkRef::Ready(Arc::new(crate::nowhere::Nowhere));
        planned.draw(&mut graph, &*self.connectors, Some(nowhere))?;
        let interval = Duration::from_secs(1);
        let physical = graph::explain(&graph, self.connectors.topics(), interval).map_err(|e| SqlError::new(e.report()))?;
        Ok(format!("{}\n\n{physical}", planned.plan.display_indent()))
    }

    fn show_tables(&self) -> Outcome {
        let row = |name: &str| {
            let what = match self.catalog.get(name) {
                Some(Entry::View(_)) => "view".to_string(),
                Some(Entry::Table(table)) => table.options.connector.name().to_string(),
                None => "topic".to_string(),
            };
            vec![name.to_string(), what]
        };
        let mut names: BTreeSet<String> = self.catalog.names().map(String::from).collect();
        names.extend(self.undeclared.iter().flatten().cloned());
        Outcome::Table(vec!["table".into(), "what".into()], names.iter().map(|n| row(n)).collect())
    }

    fn describe(&self, name: &Ident) -> SqlResult<Outcome> {
        let head = ["column", "type", "null", "key", "from"].map(String::from).to_vec();
        let rows = match self.catalog.get(&name.value) {
            Some(Entry::Table(table)) => table
                .schema
                .fields()
                .iter()
                .enumerate()
                .map(|(i, field)| {
                    let from = match &table.columns[i] {
                        _ if table.watermark.is_some_and(|w| w.column == i) => "event time".to_string(),
                        crate::catalog::Column::Physical => String::new(),
                        crate::catalog::Column::Folder => "folder".to_string(),
                        crate::catalog::Column::Metadata { from, .. } => format!("metadata {}", from.name()),
                        crate::catalog::Column::Computed(expr) => format!("{expr}"),
                    };
                    let key = if table.primary_key.contains(&i) { "PRI" } else { "" };
                    vec![field.name().clone(), type_name(field.data_type()), nullability(field.is_nullable()), key.to_string(), from]
                })
                .collect(),
            Some(Entry::View(view)) => view
                .plan
                .schema()
                .fields()
                .iter()
                .map(|f| vec![f.name().clone(), type_name(f.data_type()), nullability(f.is_nullable()), String::new(), String::new()])
                .collect(),
            None => return Err(self.catalog.missing(&name.value).or_at(Some(name.span))),
        };
        Ok(Outcome::Table(head, rows))
    }

    /// A declaration that makes a table again, by its columns.
    pub fn create_text(&self, table: &str) -> Option<String> {
        match self.catalog.get(table) {
            Some(Entry::Table(table)) => Some(create_text(table, table.options.iter())),
            _ => None,
        }
    }

    fn show_create(&self, name: &Ident) -> SqlResult<Outcome> {
        match self.catalog.get(&name.value) {
            Some(Entry::View(view)) => Ok(Outcome::Text(view.text.clone())),
            Some(Entry::Table(table)) => Ok(Outcome::Text(create_text(table, table.options.shown()))),
            None => Err(self.catalog.missing(&name.value).or_at(Some(name.span))),
        }
    }
}

/// Whether a table's name is there, or that of what it leaves behind.
fn is_named(words: &Words, name: &str) -> bool {
    words.names(name) || ["$errors", "$late"].iter().any(|left| words.names(&format!("{name}{left}")))
}

/// The name of a table, without the number that a hint has given it in its statement.
fn without_number(name: &str) -> &str {
    name.rsplit_once('#').filter(|(_, number)| number.parse::<u32>().is_ok()).map_or(name, |(name, _)| name)
}

/// The planner's errors name things; where they stand is looked up.
fn placed(error: SqlError, words: &Words) -> SqlError {
    let place = error.subject().and_then(|name| words.find(name)).or_else(|| words.start());
    error.or_at(place)
}

fn nullability(nullable: bool) -> String {
    if nullable { "NULL".into() } else { "NOT NULL".into() }
}

/// A declaration that makes this table again.
fn create_text<'a>(table: &'a Table, options: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    if table.given.is_some() {
        return format!("-- \"{}\" is a stream of the job", table.name);
    }
    let mut lines: Vec<String> = Vec::new();
    for (i, field) in table.schema.fields().iter().enumerate() {
        let name = format!("`{}`", field.name());
        let not_null = if field.is_nullable() { "" } else { " NOT NULL" };
        lines.push(match &table.columns[i] {
            crate::catalog::Column::Physical | crate::catalog::Column::Folder => {
                format!("{name} {}{not_null}", type_name(field.data_type()))
            }
            crate::catalog::Column::Metadata { from, is_virtual } => {
                let is_virtual = if *is_virtual { " VIRTUAL" } else { "" };
                format!("{name} {} METADATA FROM '{}'{is_virtual}", type_name(field.data_type()), from.name())
            }
            crate::catalog::Column::Computed(expr) => format!("{name} AS {expr}"),
        });
    }
    if let Some(w) = table.watermark {
        let name = table.schema.field(w.column).name();
        lines.push(format!("WATERMARK FOR `{name}` AS `{name}` - INTERVAL '{}' MILLISECOND", w.delay_ms));
    }
    if !table.primary_key.is_empty() {
        let names: Vec<String> = table.primary_key.iter().map(|&i| format!("`{}`", table.schema.field(i).name())).collect();
        lines.push(format!("PRIMARY KEY ({}) NOT ENFORCED", names.join(", ")));
    }
    let options = std::iter::once(("connector", table.options.connector.name())).chain(options);
    let options: Vec<String> = options.map(|(k, v)| format!("  '{k}' = '{}'", v.replace('\'', "''"))).collect();
    let partitioned: Vec<String> = table.partitioned_by.iter().map(|&i| format!("`{}`", table.schema.field(i).name())).collect();
    let partitioned = if partitioned.is_empty() { String::new() } else { format!(" PARTITIONED BY ({})", partitioned.join(", ")) };
    format!("CREATE TABLE `{}` (\n  {}\n){partitioned} WITH (\n{}\n)", table.name, lines.join(",\n  "), options.join(",\n"))
}
