//! Rows to records: what a sink takes.
//!
//! Invariant: a row that cannot be written leaves nothing behind and is rejected; of a row that is known by its key the newest
//! record is the row, and one without a value says that there is none.

use crate::catalog::Table;
use crate::csv::Csv;
use crate::error::{SqlError, SqlResult};
use crate::json;
use crate::options::Connector;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field};
use std::sync::Arc;
use waterwheel_engine::error::Result;
use waterwheel_engine::operators::{Operator, OperatorFactory, Output};
use waterwheel_engine::record::{Batch, BatchBox, ChangeBatch, RawBatch, RowKind, downcast};

/// How rows become records.
pub(crate) struct Encoding {
    topic: Arc<str>,
    value: Value,
    key: Key,
    /// Changes of rows that are known by their key.
    upsert: bool,
}

enum Value {
    Json,
    Raw,
    Csv(Csv),
    /// `+I[1, a]`, for people.
    Text,
}

enum Key {
    None,
    Json(Vec<usize>),
    Raw(usize),
}

impl Encoding {
    /// For a table; none for sinks that take columns as they are.
    pub(crate) fn of(table: &Table, upsert: bool) -> SqlResult<Option<Encoding>> {
        let topic: Arc<str> = table.options.get("topic").unwrap_or(&table.name).into();
        match table.options.connector {
            Connector::Blackhole => return Ok(None),
            Connector::Print => return Ok(Some(Encoding { topic, value: Value::Text, key: Key::None, upsert: false })),
            _ => {}
        }
        let value = match table.options.format() {
            Some("json") => Value::Json,
            Some("csv") => {
                Csv::check(&table.schema)?;
                Value::Csv(Csv::of(&table.options)?)
            }
            Some("raw") if table.schema.fields().len() == 1 && is_bytes(table.schema.field(0)) => Value::Raw,
            Some("raw") => return Err(SqlError::new("format 'raw' writes one column of type STRING or BYTES")),
            Some(other) => {
                return Err(SqlError::unsupported(
                    &format!("writing format '{other}'"),
                    "rows become JSON or CSV",
                    "'format' = 'json' or 'csv'",
                ));
            }
            None => return Err(SqlError::new(format!("table \"{}\" has no 'format'", table.name)).help("'format' = 'json'")),
        };
        let columns = match table.options.get("key.fields") {
            Some(names) => {
                let find = |name: &str| {
                    table.schema.index_of(name).map_err(|_| SqlError::new(format!("'key.fields': the table has no column {name:?}")))
                };
                names.split(';').filter(|n| !n.trim().is_empty()).map(|n| find(n.trim())).collect::<SqlResult<Vec<_>>>()?
            }
            None => table.primary_key.clone(),
        };
        if upsert && columns != table.primary_key {
            return Err(SqlError::new("'key.fields' differ from the PRIMARY KEY").help("leave 'key.fields' out"));
        }
        let key = match (columns.as_slice(), table.options.get("key.format")) {
            ([], _) => Key::None,
            ([one], Some("raw")) if is_bytes(table.schema.field(*one)) => Key::Raw(*one),
            (_, Some("raw")) => return Err(SqlError::new("'key.format' = 'raw' writes one column of type STRING or BYTES")),
            _ => Key::Json(columns),
        };
        Ok(Some(Encoding { topic, value, key, upsert }))
    }

    fn write(
        &self,
        batch: &ChangeBatch,
        key_columns: Option<&RecordBatch>,
        row: usize,
        out: &mut RawBatch,
    ) -> std::result::Result<(), String> {
        let columns = &batch.columns;
        let kind = batch.kind(row);
        let key = match (&self.key, key_columns) {
            (Key::Raw(i), _) => Some(bytes(columns, *i, row).ok_or("the key is NULL")?.to_vec()),
            (Key::Json(_), Some(keys)) => {
                let mut key = Vec::new();
                json::write_row(keys, row, &mut key)?;
                Some(key)
            }
            _ => None,
        };
        // A record has no negative time: such a row gets the sink's default.
        let time = batch.times[row].0.max(-1);
        let time = if batch.times[row] == waterwheel_engine::time::EventTime::MAX { -1 } else { time };
        if self.upsert && kind.weight() < 0 {
            // The new version of a row takes the place of the old one by itself.
            if kind == RowKind::Delete {
                out.push_parts(&self.topic, -1, -1, time, key.as_deref(), None, &[]);
            }
            return Ok(());
        }
        let raw = match self.value {
            Value::Raw => Some(bytes(columns, 0, row).ok_or("the value is NULL")?),
            _ => None,
        };
        out.push_with(&self.topic, -1, time, key.as_deref(), &[], |value| match &self.value {
            Value::Raw => {
                value.extend_from_slice(raw.unwrap_or_default());
                Ok(())
            }
            Value::Json => json::write_row(columns, row, value),
            Value::Csv(csv) => csv.write_row(columns, row, value),
            Value::Text => {
                value.extend_from_slice(line(kind, columns, row).as_bytes());
                Ok(())
            }
        })
    }

    fn keys(&self, columns: &RecordBatch) -> Result<Option<RecordBatch>> {
        let Key::Json(fields) = &self.key else { return Ok(None) };
        let project = columns.project(fields);
        project.map(Some).map_err(|e| waterwheel_engine::error::Error::fatal("plan bug: no such key columns").because(e))
    }
}

/// `+I[1, a]`: a change as people know it from Flink.
pub(crate) fn line(kind: RowKind, columns: &RecordBatch, row: usize) -> String {
    let cells: Vec<String> = columns.columns().iter().map(|c| json::cell(c, row)).collect();
    format!("{}[{}]", kind.short(), cells.join(", "))
}

fn is_bytes(field: &Field) -> bool {
    matches!(field.data_type(), DataType::Utf8 | DataType::Binary)
}

fn bytes(columns: &RecordBatch, i: usize, row: usize) -> Option<&[u8]> {
    let column = columns.column(i);
    if column.is_null(row) {
        return None;
    }
    match column.data_type() {
        DataType::Utf8 => Some(column.as_string::<i32>().value(row).as_bytes()),
        _ => Some(column.as_binary::<i32>().value(row)),
    }
}

/// Encodes changes as records.
pub(crate) fn encode(encoding: Arc<Encoding>) -> OperatorFactory {
    Arc::new(move || Box::new(Encoder(encoding.clone())))
}

struct Encoder(Arc<Encoding>);

impl Operator for Encoder {
    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let batch = downcast::<ChangeBatch>(batch);
        let keys = self.0.keys(&batch.columns)?;
        let mut raw = RawBatch::with_capacity(batch.len(), batch.len() * 64);
        for row in 0..batch.len() {
            if let Err(error) = self.0.write(&batch, keys.as_ref(), row, &mut raw) {
                out.reject(batch.origin(row), batch.times[row], error)?;
            }
        }
        out.emit(Box::new(raw))
    }
}
