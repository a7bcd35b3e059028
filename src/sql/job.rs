//! SQL within a job: its streams are tables, and the rows of a query are a stream again.
//!
//! Invariant: all of it is one graph: one job with one checkpoint, its state under stable ids. Statements take effect in the
//! order in which they are given.

use super::Tables;
use crate::Job;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::cell::{RefCell, RefMut};
use std::sync::Arc;
use waterwheel_engine::dsl::Stream;
use waterwheel_engine::env::Env;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::record::{Change, Data};
use waterwheel_sql::catalog::Table;
use waterwheel_sql::{Function, Outcome, Planned, Session, SqlResult, changes_table, stream_table};

/// What a text is called in errors.
const TEXT: &str = "sql";

/// The tables of a job, from the first statement on.
#[derive(Default)]
pub(crate) struct JobSql(RefCell<Option<Open>>);

struct Open {
    session: Session,
    tables: Tables,
    queries: usize,
}

impl Job {
    fn open_sql(&self) -> RefMut<'_, Open> {
        let open = || {
            let tables = Tables::new(self.topics().clone(), Env::real(), self.is_until_end());
            Open { session: Session::new(Arc::new(tables.clone())), tables, queries: 0 }
        };
        RefMut::map(self.sql.0.borrow_mut(), |sql| sql.get_or_insert_with(open))
    }

    /// Makes a table of a stream, for queries of this job. Its columns are the fields of `T`, in the types that its
    /// deserializer asks for: nothing is sampled. Text that must be an instant (`DateTime<Utc>`) is a `TIMESTAMP_LTZ(3)`, what is
    /// finer is cut off; enums without data are text; `u64` is a `BIGINT`, and a row with more is a bad record.
    ///
    /// ```
    /// # use waterwheel::prelude::*;
    /// # #[derive(Clone, Serialize, Deserialize)] struct Payment { card: String, amount: i64, at: DateTime<Utc> }
    /// #[derive(Clone, Serialize, Deserialize)]
    /// struct Total { card: String, total: i64, window_end: DateTime<Utc> }
    ///
    /// # fn example(job: &Job, payments: Stream<Payment>) -> waterwheel::Result<()> {
    /// job.table("payments", &payments)?.event_time("at")?;
    /// job.sql("SELECT card, SUM(amount) AS total, window_end
    ///          FROM TABLE(TUMBLE(TABLE payments, DESCRIPTOR(at), INTERVAL '1' MINUTE)) GROUP BY card, window_start, window_end")?
    ///     .to_stream::<Total>()?
    ///     .filter(|t| t.total > 100_000)
    ///     .to_topic("totals");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `T` has no columns (maps, enums with data, untagged types); the name is taken; a stream of another job.
    pub fn table<T: Data + Serialize + DeserializeOwned>(&self, name: &str, stream: &Stream<T>) -> Result<StreamTable<'_>> {
        self.define(self.owns(stream), stream_table::<T>(name, stream.output()))
    }

    /// Makes a table of a stream of changes, such as [`Table::to_stream`](waterwheel_engine::dsl::Table::to_stream) gives: rows
    /// may take others back.
    ///
    /// # Errors
    /// As [`table`](Self::table).
    pub fn changing_table<T: Data + Serialize + DeserializeOwned>(
        &self,
        name: &str,
        changes: &Stream<Change<T>>,
    ) -> Result<StreamTable<'_>> {
        self.define(self.owns(changes), changes_table::<T>(name, changes.output()))
    }

    fn define(&self, is_own: bool, table: SqlResult<Table>) -> Result<StreamTable<'_>> {
        if !is_own {
            return Err(Error::fatal("the stream belongs to another job").help("make both in one job"));
        }
        let table = table.map_err(|e| e.into_error(TEXT, ""))?;
        self.open_sql().session.define(table.clone()).map_err(|e| e.into_error(TEXT, ""))?;
        Ok(StreamTable { job: self, table })
    }

    /// Carries out statements: declarations, inserts, and a query at the end, if any, whose rows are what is returned.
    /// Topics are tables too, as for the command `waterwheel sql`.
    ///
    /// # Errors
    /// Of the first statement that is wrong, with its place in the text.
    pub fn sql(&self, text: &str) -> Result<Query<'_>> {
        self.sql_of(TEXT, text)
    }

    /// Lets queries call a function, by its name in any case: a [`ScalarFunction`](super::ScalarFunction) of columns, an
    /// [`AggregateFunction`](super::AggregateFunction) of rows, or a [`TableFunction`](super::TableFunction) of a row to rows.
    ///
    /// ```
    /// # use waterwheel::prelude::*;
    /// # use waterwheel::sql::{ScalarFunction, arrow};
    /// # use std::sync::Arc;
    /// use arrow::array::{ArrayRef, AsArray, Int64Array};
    /// use arrow::datatypes::DataType;
    /// # fn example(job: &Job) {
    /// job.register(ScalarFunction::new("vowels", vec![DataType::Utf8], DataType::Int64, |args: &[ArrayRef]| {
    ///     let count = |text: &str| text.chars().filter(|c| "aeiou".contains(*c)).count() as i64;
    ///     Ok(Arc::new(args[0].as_string::<i32>().iter().map(|text| text.map(count)).collect::<Int64Array>()))
    /// }));
    /// # }
    /// ```
    pub fn register(&self, function: impl Into<Function>) {
        self.open_sql().session.register(function);
    }

    pub(super) fn sql_of(&self, file: &str, text: &str) -> Result<Query<'_>> {
        let mut open = self.open_sql();
        let mut outcomes = open.session.run(file, text)?;
        for note in open.session.take_notes() {
            tracing::info!("{note}");
        }
        let settings = open.session.settings();
        let tables = open.tables.until_end(self.is_until_end() || settings.is_batch());
        if let Some(tasks) = settings.get("parallelism.default").and_then(|n| n.parse().ok()) {
            self.parallelism(tasks);
        }
        let query = match outcomes.pop() {
            Some(Outcome::Query(query)) => Some(*query),
            last => {
                outcomes.extend(last);
                None
            }
        };
        for outcome in outcomes {
            match outcome {
                Outcome::Insert(insert) => {
                    self.draw(|graph| insert.draw(graph, &tables, None)).map_err(|e| e.into_error(file, text))?;
                }
                Outcome::Query(_) | Outcome::Analyze(..) => {
                    return Err(Error::fatal("the rows of a query between other statements go nowhere")
                        .at(file.to_string())
                        .help("INSERT INTO a table, or make it the last statement of its text"));
                }
                Outcome::Done(_) | Outcome::Text(_) | Outcome::Table(..) => {}
            }
        }
        let query = query.map(|query| {
            open.queries += 1;
            let name = if open.queries == 1 { "query".to_string() } else { format!("query-{}", open.queries) };
            query.named(&name)
        });
        Ok(Query { job: self, tables, query, file: file.to_string(), text: text.to_string() })
    }
}

/// A stream that has become a table.
pub struct StreamTable<'a> {
    job: &'a Job,
    table: Table,
}

impl StreamTable<'_> {
    /// The stream's event time is the column of this name: one of the type's that holds it (a row for which it does not is a bad
    /// record), or a further one.
    ///
    /// # Errors
    /// That column is no timestamp.
    pub fn event_time(self, column: &str) -> Result<Self> {
        self.change(|table| table.with_event_time(column))
    }

    /// The columns that a row is known by; with event time, `FOR SYSTEM_TIME AS OF` finds its versions.
    ///
    /// # Errors
    /// There is no such column.
    pub fn primary_key(self, columns: &[&str]) -> Result<Self> {
        self.change(|table| table.with_primary_key(columns))
    }

    fn change(self, change: impl FnOnce(Table) -> SqlResult<Table>) -> Result<Self> {
        let table = change(self.table).map_err(|e| e.into_error(TEXT, ""))?;
        self.job.open_sql().session.redefine(table.clone());
        Ok(StreamTable { table, ..self })
    }
}

/// The rows of a query, to become a stream of the job.
pub struct Query<'a> {
    job: &'a Job,
    tables: Tables,
    query: Option<Planned>,
    file: String,
    text: String,
}

impl Query<'_> {
    /// Begins the ids of its operators, so that its state is found again when queries before it come or go; `query`, `query-2`
    /// and so on unless said.
    #[must_use]
    pub fn id(mut self, id: &str) -> Self {
        self.query = self.query.map(|query| query.named(id));
        self
    }

    /// Whether there is one.
    pub(super) fn is_some(&self) -> bool {
        self.query.is_some()
    }

    /// Its rows as a stream of `T`: a column for each field, by name, in a type that fits; event time goes on.
    ///
    /// # Errors
    /// Rows change later (then [`to_changelog`](Self::to_changelog)); the columns are not the fields of `T`; the text holds no
    /// query; what cannot be run.
    pub fn to_stream<T: Data + DeserializeOwned>(self) -> Result<Stream<T>> {
        let query = self.planned()?;
        let node = self.job.draw(|graph| query.draw_rows::<T>(graph, &self.tables));
        Ok(self.job.stream_of(node.map_err(|e| e.into_error(&self.file, &self.text))?))
    }

    /// Its rows with what each says: a row that comes, and for rows that change the one taken back.
    ///
    /// # Errors
    /// As [`to_stream`](Self::to_stream), changes apart.
    pub fn to_changelog<T: Data + DeserializeOwned>(self) -> Result<Stream<Change<T>>> {
        let query = self.planned()?;
        let node = self.job.draw(|graph| query.draw_changes::<T>(graph, &self.tables));
        Ok(self.job.stream_of(node.map_err(|e| e.into_error(&self.file, &self.text))?))
    }

    fn planned(&self) -> Result<&Planned> {
        let none = || Error::fatal("the text ends with no query").at(self.file.clone()).help("end it with a SELECT");
        self.query.as_ref().ok_or_else(none)
    }
}
