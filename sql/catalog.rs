//! What is known by name: tables and views of a session.
//!
//! Invariant: a name means one thing; a table that is here has been checked: its types, its watermark, its options.

use crate::debezium::Debezium;
use crate::error::{SqlError, SqlResult};
use crate::maps::map_type;
use crate::options::{Connector, Options};
use crate::parser::{ColumnKind, CreateTable};
use crate::plan::{Functions, compute};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion_expr::{Expr, LogicalPlan, TableSource};
use datafusion_sql::sqlparser::ast::{BinaryOperator, Expr as SqlExpr};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use waterwheel_engine::graph::Input;
use waterwheel_engine::operators::OperatorFactory;

/// A table.
#[derive(Debug, Clone)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// All its columns as a query sees them.
    pub schema: SchemaRef,
    /// Where each column comes from.
    pub columns: Vec<Column>,
    /// What a record gives: physical columns, then metadata columns.
    pub record: SchemaRef,
    /// Event time.
    pub watermark: Option<Watermark>,
    /// Columns of the primary key, by position.
    pub primary_key: Vec<usize>,
    /// Columns whose values name the folders of its files, by position.
    pub partitioned_by: Vec<usize>,
    /// Connector and options.
    pub options: Options,
    /// Columns were inferred from a sample, which this says.
    pub inferred: Option<String>,
    /// It is a stream of the job.
    pub given: Option<Given>,
    /// It is what another table has left behind.
    pub(crate) left: Option<Left>,
}

/// What reading a table leaves behind, as a table: `t$errors` and `t$late`.
#[derive(Debug, Clone)]
pub(crate) enum Left {
    /// Records that are no rows of it, and why.
    Errors(Arc<Table>),
    /// Rows that came behind the watermark.
    Late(Arc<Table>),
}

/// The columns of `t$errors`, and what of the record each is.
pub(crate) const ERROR_COLUMNS: [(&str, Option<Metadata>); 7] = [
    ("record", None),
    ("error", None),
    ("topic", Some(Metadata::Topic)),
    ("partition", Some(Metadata::Partition)),
    ("offset", Some(Metadata::Offset)),
    ("timestamp", Some(Metadata::Timestamp)),
    ("key", Some(Metadata::Key)),
];

/// A stream of the job as a table.
#[derive(Clone)]
pub struct Given {
    /// The stream.
    pub input: Input,
    /// Its rows may take others back.
    pub changes: bool,
    /// Makes the operator that puts the columns at these positions of its rows in a batch; the event time is the second.
    pub encode: EncodeGiven,
}

/// See [`Given::encode`].
pub type EncodeGiven = Arc<dyn Fn(&[usize], Option<usize>) -> OperatorFactory + Send + Sync>;

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Given({:?})", self.input)
    }
}

/// Where a column comes from.
#[derive(Debug, Clone)]
pub enum Column {
    /// The record's value, by name.
    Physical,
    /// The record's surroundings.
    Metadata {
        /// Which part.
        from: Metadata,
        /// `VIRTUAL`: only read.
        is_virtual: bool,
    },
    /// The name of a folder.
    Folder,
    /// An expression over the record's columns.
    Computed(Box<Expr>),
}

impl Column {
    /// Whether an insert gives it a value.
    pub(crate) fn is_written(&self) -> bool {
        match self {
            Column::Physical | Column::Folder => true,
            Column::Metadata { from, is_virtual } => from.is_writable() && !is_virtual,
            Column::Computed(_) => false,
        }
    }
}

/// What is around a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metadata {
    /// Topic name, STRING.
    Topic,
    /// Partition, INT.
    Partition,
    /// Offset, BIGINT.
    Offset,
    /// Timestamp, TIMESTAMP_LTZ(3); can be written.
    Timestamp,
    /// Headers, MAP<STRING, BYTES>, the last of a name; can be written.
    Headers,
    /// Key as it is, BYTES.
    Key,
    /// Epoch of the partition's leader that took the record, INT; only of Kafka.
    LeaderEpoch,
    /// What the timestamp is, STRING: `NoTimestampType`, `CreateTime`, `LogAppendTime`; only of Kafka.
    TimestampType,
}

impl Metadata {
    const ALL: &[(&str, Metadata)] = &[
        ("topic", Metadata::Topic),
        ("partition", Metadata::Partition),
        ("offset", Metadata::Offset),
        ("timestamp", Metadata::Timestamp),
        ("headers", Metadata::Headers),
        ("key", Metadata::Key),
        ("leader-epoch", Metadata::LeaderEpoch),
        ("timestamp-type", Metadata::TimestampType),
    ];

    /// Its name in `METADATA FROM`.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|m| m.1 == self).map_or("", |m| m.0)
    }

    /// Whether a record that is written can be given it.
    pub fn is_writable(self) -> bool {
        matches!(self, Metadata::Timestamp | Metadata::Headers)
    }

    /// Its type.
    pub fn data_type(self) -> DataType {
        match self {
            Metadata::Topic | Metadata::TimestampType => DataType::Utf8,
            Metadata::Partition | Metadata::LeaderEpoch => DataType::Int32,
            Metadata::Offset => DataType::Int64,
            Metadata::Timestamp => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
            Metadata::Headers => map_type(DataType::Utf8, DataType::Binary),
            Metadata::Key => DataType::Binary,
        }
    }
}

/// Event time of a table: `WATERMARK FOR column AS column - delay`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermark {
    /// The column, by position.
    pub column: usize,
    /// How far behind the highest time, in milliseconds.
    pub delay_ms: i64,
}

/// The tables and views of a session.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    entries: BTreeMap<String, Entry>,
}

/// What a name means.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A table.
    Table(Arc<Table>),
    /// A view: the plan of its query.
    View(Arc<View>),
}

impl Entry {
    /// Names of its columns.
    pub fn columns(&self) -> Vec<String> {
        match self {
            Entry::Table(table) => table.schema.fields().iter().map(|f| f.name().clone()).collect(),
            Entry::View(view) => view.plan.schema().fields().iter().map(|f| f.name().clone()).collect(),
        }
    }
}

/// A view.
#[derive(Debug)]
pub struct View {
    /// Its query as written.
    pub text: String,
    /// Its query as planned, not optimised.
    pub plan: LogicalPlan,
}

impl Catalog {
    /// What a name means.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Gives a name a meaning, in place of any it had.
    pub fn put(&mut self, name: &str, entry: Entry) {
        self.entries.insert(name.to_string(), entry);
    }

    /// Forgets a name.
    pub fn remove(&mut self, name: &str) -> Option<Entry> {
        self.entries.remove(name)
    }

    /// The table that a name with `$errors` or `$late` behind that of a table means, if it is one.
    ///
    /// # Errors
    /// The table leaves no such thing.
    pub(crate) fn left(&self, name: &str) -> SqlResult<Option<Table>> {
        let of = |suffix| name.strip_suffix(suffix).and_then(|base| self.get(base));
        let (base, errors) = match (of("$errors"), of("$late")) {
            (Some(Entry::Table(base)), _) => (base, true),
            (_, Some(Entry::Table(base))) => (base, false),
            _ => return Ok(None),
        };
        let refuse = |why: &str, instead: &str| Err(SqlError::unsupported(&format!("\"{name}\""), why, instead));
        if base.given.is_some() || !base.options.connector.is_source() {
            return refuse("only tables whose records are read have it", "a table of a topic or of files");
        }
        if errors {
            let field = |(column, metadata): &(&str, Option<Metadata>)| {
                let kind = match (*column, metadata) {
                    (_, Some(metadata)) => metadata.data_type(),
                    ("record", _) => DataType::Binary,
                    _ => DataType::Utf8,
                };
                Field::new(*column, kind, true)
            };
            let schema = Arc::new(Schema::new(ERROR_COLUMNS.iter().map(field).collect::<Vec<_>>()));
            let table = Table::implied(name, schema, base.options.clone(), None);
            return Ok(Some(Table { left: Some(Left::Errors(base.clone())), ..table }));
        }
        if base.watermark.is_none() {
            return refuse("no row of it is late: it has no WATERMARK", "WATERMARK FOR ts AS ts - INTERVAL '5' SECOND in its declaration");
        }
        if base.is_by_key() || base.debezium().is_some() {
            return refuse("its rows change, and are never too late for that", "a table that only grows");
        }
        Ok(Some(Table { name: name.to_string(), left: Some(Left::Late(base.clone())), primary_key: Vec::new(), ..base.as_ref().clone() }))
    }

    /// The error for a name that means nothing.
    pub fn missing(&self, name: &str) -> SqlError {
        SqlError::new(format!("table \"{name}\" not found")).nearest(name, self.names())
    }
}

impl Table {
    /// Checks a declaration.
    pub(crate) fn of(declared: &CreateTable, functions: &Functions) -> SqlResult<Table> {
        let mut record = Vec::new();
        let mut kinds = Vec::new();
        for column in &declared.columns {
            let name = &column.name.value;
            match &column.kind {
                ColumnKind::Physical(kind) => {
                    record.push(Field::new(name, kind.clone(), !column.not_null));
                    kinds.push((Column::Physical, kind.clone()));
                }
                ColumnKind::Metadata { kind, from, is_virtual } => {
                    let metadata = metadata(from.as_ref().unwrap_or(name), kind).map_err(|e| e.at(column.name.span))?;
                    record.push(Field::new(name, metadata.data_type(), true));
                    kinds.push((Column::Metadata { from: metadata, is_virtual: *is_virtual }, kind.clone()));
                }
                ColumnKind::Computed(_) => kinds.push((Column::Physical, DataType::Null)), // replaced below
            }
        }
        let record = Arc::new(Schema::new(record));
        for (column, kind) in declared.columns.iter().zip(&mut kinds) {
            if let ColumnKind::Computed(expr) = &column.kind {
                let (expr, data_type) = compute(expr, &record, functions).map_err(|e| e.or_at(Some(column.name.span)))?;
                *kind = (Column::Computed(Box::new(expr)), data_type);
            }
        }
        let fields: Vec<Field> =
            declared.columns.iter().zip(&kinds).map(|(c, (_, kind))| Field::new(&c.name.value, kind.clone(), !c.not_null)).collect();
        let names: Vec<&str> = declared.columns.iter().map(|c| c.name.value.as_str()).collect();
        let options = Options::of(&declared.options, &names)?;
        let position = |ident: &datafusion_sql::sqlparser::ast::Ident| {
            names.iter().position(|n| *n == ident.value).ok_or_else(|| {
                SqlError::new(format!("column {:?} not found in {}", ident.value, declared.name.value))
                    .at(ident.span)
                    .nearest(&ident.value, names.iter().copied())
            })
        };
        let watermark = declared
            .watermark
            .as_ref()
            .map(|w| watermark(w, position(&w.column)?, &fields).map_err(|e| e.or_at(Some(w.span))))
            .transpose()?;
        let primary_key = declared.primary_key.iter().map(position).collect::<SqlResult<Vec<_>>>()?;
        let partitioned_by = declared.partitioned_by.iter().map(position).collect::<SqlResult<Vec<_>>>()?;
        let mut columns: Vec<Column> = kinds.into_iter().map(|k| k.0).collect();
        for (ident, &i) in declared.partitioned_by.iter().zip(&partitioned_by) {
            check_folder(&columns[i], &fields[i], options.connector).map_err(|e| e.at(ident.span))?;
            columns[i] = Column::Folder;
        }
        if let (Some(last), false) = (declared.partitioned_by.last(), columns.iter().any(|c| matches!(c, Column::Physical))) {
            return Err(SqlError::new("every column is in PARTITIONED BY: nothing is left for the files").at(last.span));
        }
        if partitioned_by.is_empty()
            && let Some((key, _, span)) = declared.options.iter().find(|o| o.0.starts_with("sink.partition-commit.policy"))
        {
            return Err(SqlError::new(format!("'{key}' is for tables that are PARTITIONED BY columns")).at(*span));
        }
        if options.format() == Some("debezium-json") && (options.connector == Connector::UpsertKafka || !partitioned_by.is_empty()) {
            let what = if partitioned_by.is_empty() { "'upsert-kafka'" } else { "PARTITIONED BY" };
            return Err(SqlError::unsupported(
                &format!("{what} with format 'debezium-json'"),
                "its records are changes already",
                "'connector' = 'kafka' with a PRIMARY KEY",
            )
            .at(declared.name.span));
        }
        Ok(Table {
            name: declared.name.value.clone(),
            schema: Arc::new(Schema::new(fields)),
            columns,
            record,
            watermark,
            primary_key,
            partitioned_by,
            options,
            inferred: None,
            given: None,
            left: None,
        })
    }

    /// The columns that an insert gives values to, by position: the columns of the rows that are written.
    pub(crate) fn written(&self) -> Vec<usize> {
        (0..self.columns.len()).filter(|&i| self.columns[i].is_written()).collect()
    }

    /// The primary key by position in the rows that are written.
    pub(crate) fn written_key(&self) -> Vec<usize> {
        let written = self.written();
        self.primary_key.iter().filter_map(|i| written.iter().position(|w| w == i)).collect()
    }

    /// How its records say what became of rows, if they do.
    pub(crate) fn debezium(&self) -> Option<Debezium> {
        let in_payload = self.options.get("debezium-json.schema-include") == Some("true");
        (self.options.format() == Some("debezium-json")).then_some(Debezium { in_payload, by_key: !self.primary_key.is_empty() })
    }

    /// Whether the newest record of a key is the row.
    pub(crate) fn is_by_key(&self) -> bool {
        self.options.connector == Connector::UpsertKafka || self.debezium().is_some_and(|debezium| debezium.by_key)
    }

    /// A table of physical columns, not declared.
    pub fn implied(name: &str, schema: SchemaRef, options: Options, inferred: Option<String>) -> Table {
        Table {
            name: name.to_string(),
            columns: vec![Column::Physical; schema.fields().len()],
            record: schema.clone(),
            schema,
            watermark: None,
            primary_key: Vec::new(),
            partitioned_by: Vec::new(),
            options,
            inferred,
            given: None,
            left: None,
        }
    }
}

/// Refuses what cannot name a folder.
fn check_folder(column: &Column, field: &Field, connector: Connector) -> SqlResult<()> {
    if connector != Connector::Filesystem {
        return Err(SqlError::unsupported(
            &format!("PARTITIONED BY with '{}'", connector.name()),
            "only files lie in folders",
            "'key.fields' decides the partition of a topic's record",
        ));
    }
    let name = field.name();
    match (column, field.data_type()) {
        (Column::Computed(_), _) => {
            Err(SqlError::new(format!("PARTITIONED BY {name:?}, which is computed")).help("declare the column, and select its value"))
        }
        (Column::Metadata { .. } | Column::Folder, _) => Err(SqlError::new(format!("PARTITIONED BY {name:?} twice, or of metadata"))),
        (
            Column::Physical,
            DataType::Struct(_) | DataType::List(_) | DataType::Map(..) | DataType::Binary | DataType::Float32 | DataType::Float64,
        ) => Err(SqlError::unsupported(
            &format!("PARTITIONED BY {name:?} of type {}", crate::parser::type_name(field.data_type())),
            "such a value has no name that it could be read back from",
            "a column of type STRING, BIGINT, DATE, ...",
        )),
        (Column::Physical, _) => Ok(()),
    }
}

fn metadata(name: &str, kind: &DataType) -> SqlResult<Metadata> {
    let Some(&(_, metadata)) = Metadata::ALL.iter().find(|m| m.0 == name) else {
        return Err(SqlError::new(format!("records have no metadata '{name}'")).nearest(name, Metadata::ALL.iter().map(|m| m.0)));
    };
    if *kind != metadata.data_type() {
        let wanted = crate::parser::type_name(&metadata.data_type());
        return Err(SqlError::new(format!("metadata '{name}' is {wanted}, not {}", crate::parser::type_name(kind))));
    }
    Ok(metadata)
}

/// Milliseconds of the watermark's delay: the forms that say it plainly.
fn watermark(declared: &crate::parser::WatermarkDef, column: usize, fields: &[Field]) -> SqlResult<Watermark> {
    if !matches!(fields[column].data_type(), DataType::Timestamp(TimeUnit::Millisecond, _)) {
        let kind = crate::parser::type_name(fields[column].data_type());
        return Err(SqlError::new(format!("event time is TIMESTAMP(3) or TIMESTAMP_LTZ(3), and {:?} is {kind}", declared.column.value))
            .at(declared.column.span)
            .help("compute one:  ts AS TO_TIMESTAMP_LTZ(millis, 3)"));
    }
    let is_column = |e: &SqlExpr| matches!(e, SqlExpr::Identifier(i) if i.value == declared.column.value);
    let delay_ms = match &declared.expr {
        e if is_column(e) => Some(0),
        SqlExpr::BinaryOp { left, op: BinaryOperator::Minus, right } if is_column(left) => crate::plan::interval_ms(right),
        _ => None,
    };
    let delay_ms = delay_ms.filter(|ms| *ms >= 0).ok_or_else(|| {
        SqlError::unsupported(
            &format!("the watermark {}", declared.expr),
            "it is the column, or the column less a fixed time",
            &format!("WATERMARK FOR {0} AS {0} - INTERVAL '5' SECOND", declared.column.value),
        )
    })?;
    Ok(Watermark { column, delay_ms })
}

/// A table in a plan.
pub(crate) struct PlannedTable(pub(crate) Arc<Table>);

impl TableSource for PlannedTable {
    fn schema(&self) -> SchemaRef {
        self.0.schema.clone()
    }
}

/// A view in a plan: its own plan takes its place.
pub(crate) struct PlannedView {
    pub(crate) view: Arc<View>,
    pub(crate) schema: SchemaRef,
}

impl TableSource for PlannedView {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn get_logical_plan(&'_ self) -> Option<Cow<'_, LogicalPlan>> {
        Some(Cow::Borrowed(&self.view.plan))
    }
}
