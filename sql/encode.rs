//! Rows to records: what a sink takes.
//!
//! Invariant: a row that cannot be written leaves nothing behind and is rejected; of a row that is known by its key the newest
//! record is the row, and one without a value says that there is none.

use crate::catalog::{Column, Metadata, Table};
use crate::csv::Csv;
use crate::debezium::write_change;
use crate::error::{SqlError, SqlResult};
use crate::folders::{Folders, Last};
use crate::json::{ColumnWriter, RowWriter};
use crate::options::Connector;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, TimestampMillisecondType};
use std::sync::Arc;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::{Operator, OperatorFactory, Output};
use waterwheel_engine::record::{Batch, BatchBox, ChangeBatch, RawBatch, RowKind, downcast};

/// Bytes of lines in one record, give or take a line.
const LINES_BYTES: usize = 256 << 10;

/// How rows become records.
pub(crate) struct Encoding {
    topic: Arc<str>,
    value: Value,
    key: Key,
    /// Changes of rows that are known by their key.
    upsert: bool,
    /// Some columns are in the names of folders; such a record's key is its folder.
    folders: Option<Folders>,
    /// Columns of the row that are in the value; all unless said.
    in_value: Option<Vec<usize>>,
    /// A record is as many lines as there are rows for one folder in a batch: the sink takes them so.
    lines: bool,
    /// Columns that are the record's timestamp and headers.
    timestamp: Option<usize>,
    headers: Option<usize>,
}

enum Value {
    Json,
    Raw,
    Csv(Csv),
    /// What became of the row.
    Debezium,
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
            Connector::Print => {
                let (value, key, folders, in_value) = (Value::Text, Key::None, None, None);
                return Ok(Some(Encoding {
                    topic,
                    value,
                    key,
                    upsert: false,
                    folders,
                    in_value,
                    lines: false,
                    timestamp: None,
                    headers: None,
                }));
            }
            _ => {}
        }
        let row = table.written();
        let in_value: Vec<usize> = (0..row.len()).filter(|&at| matches!(table.columns[row[at]], Column::Physical)).collect();
        let fields: Vec<FieldRef> = in_value.iter().map(|&at| table.schema.fields()[row[at]].clone()).collect();
        let place =
            |wanted: Metadata| row.iter().position(|&i| matches!(table.columns[i], Column::Metadata { from, .. } if from == wanted));
        let value = match table.options.format() {
            Some("json") => Value::Json,
            Some("debezium-json") => Value::Debezium,
            Some("csv") => {
                Csv::check(&Schema::new(fields))?;
                Value::Csv(Csv::of(&table.options)?)
            }
            Some("raw") if fields.len() == 1 && is_bytes(&fields[0]) => Value::Raw,
            Some("raw") => return Err(SqlError::new("format 'raw' writes one column of type STRING or BYTES")),
            Some(other) => {
                return Err(SqlError::unsupported(
                    &format!("writing format '{other}'"),
                    "rows become JSON, CSV or changes",
                    "'format' = 'json', 'csv' or 'debezium-json'",
                ));
            }
            None => return Err(SqlError::new(format!("table \"{}\" has no 'format'", table.name)).help("'format' = 'json'")),
        };
        let columns = match table.options.get("key.fields") {
            Some(names) => {
                let find = |name: &str| {
                    let place = table.schema.index_of(name).ok().and_then(|i| row.iter().position(|&r| r == i));
                    place.ok_or_else(|| SqlError::new(format!("'key.fields': the table has no column {name:?} that is written")))
                };
                names.split(';').filter(|n| !n.trim().is_empty()).map(|n| find(n.trim())).collect::<SqlResult<Vec<_>>>()?
            }
            None => table.written_key(),
        };
        if (upsert || matches!(value, Value::Debezium)) && columns != table.written_key() {
            return Err(SqlError::new("'key.fields' differ from the PRIMARY KEY").help("leave 'key.fields' out"));
        }
        let key = match (columns.as_slice(), table.options.get("key.format")) {
            ([], _) => Key::None,
            ([one], Some("raw")) if is_bytes(table.schema.field(row[*one])) => Key::Raw(*one),
            (_, Some("raw")) => return Err(SqlError::new("'key.format' = 'raw' writes one column of type STRING or BYTES")),
            _ => Key::Json(columns),
        };
        let (timestamp, headers) = (place(Metadata::Timestamp), place(Metadata::Headers));
        let in_value = (in_value.len() < row.len()).then_some(in_value);
        let lines = table.options.connector == Connector::Filesystem && matches!(value, Value::Json | Value::Csv(_));
        Ok(Some(Encoding { topic, value, key, upsert, folders: Folders::of(table)?, in_value, lines, timestamp, headers }))
    }

    fn write(
        &self,
        batch: &ChangeBatch,
        parts: &Parts<'_>,
        row: usize,
        last: &mut Last,
        out: &mut RawBatch,
    ) -> std::result::Result<(), String> {
        if let Some(folders) = &self.folders {
            let (folder, time) = folders.folder(&batch.columns, row, last)?;
            return out
                .push_with(&self.topic, -1, time, Some(folder.as_bytes()), &[], |value| parts.rows.value(row, RowKind::Insert, value));
        }
        let kind = batch.kind(row);
        let key = match (&self.key, &parts.key) {
            (Key::Raw(i), _) => Some(bytes(&batch.columns, *i, row).ok_or("the key is NULL")?.to_vec()),
            (Key::Json(_), Some(keys)) => {
                let mut key = Vec::new();
                keys.json(row, &mut key)?;
                Some(key)
            }
            _ => None,
        };
        // A record has no negative time: such a row gets the sink's default.
        let time = batch.times[row].0.max(-1);
        let time = if batch.times[row] == waterwheel_engine::time::EventTime::MAX { -1 } else { time };
        let time = match self.timestamp.map(|i| batch.columns.column(i)).filter(|column| column.is_valid(row)) {
            Some(column) => column.as_primitive::<TimestampMillisecondType>().value(row),
            None => time,
        };
        if time < -1 {
            return Err(format!("a record cannot have a time before 1970: {time} ms"));
        }
        let headers = self.headers.map_or(Vec::new(), |i| headers(batch.columns.column(i), row));
        if self.upsert && kind.weight() < 0 {
            // The new version of a row takes the place of the old one by itself.
            if kind == RowKind::Delete {
                out.push_parts(&self.topic, -1, -1, time, key.as_deref(), None, &headers);
            }
            return Ok(());
        }
        out.push_with(&self.topic, -1, time, key.as_deref(), &headers, |value| parts.rows.value(row, kind, value))
    }

    /// Appends records of lines, rows of one folder together as long as they follow each other; what is wrong with rows that
    /// cannot be written.
    fn write_lines(&self, batch: &ChangeBatch, parts: &Parts<'_>, out: &mut RawBatch) -> Vec<(usize, String)> {
        let (mut failed, mut last, mut row) = (Vec::new(), Last::default(), 0);
        let folder = |row: usize, last: &mut Last| match &self.folders {
            Some(folders) => folders.folder(&batch.columns, row, last).map(|(folder, time)| (Some(folder.to_string()), time)),
            None => Ok((None, -1)),
        };
        while row < batch.len() {
            let (path, time) = match folder(row, &mut last) {
                Ok(found) => found,
                Err(error) => {
                    failed.push((row, error));
                    row += 1;
                    continue;
                }
            };
            let mut lines = 0;
            let key = path.as_ref().map(String::as_bytes);
            let pushed = out.push_with(&self.topic, -1, time, key, &[], |value| {
                let start = value.len();
                while row < batch.len() && value.len() - start < LINES_BYTES && self.is_beside(batch, row, &mut last, path.as_deref()) {
                    let end = value.len();
                    if lines > 0 {
                        value.push(b'\n');
                    }
                    match parts.rows.value(row, RowKind::Insert, value) {
                        Ok(()) => lines += 1,
                        Err(error) => {
                            value.truncate(end);
                            failed.push((row, error));
                        }
                    }
                    row += 1;
                }
                if lines > 0 { Ok(()) } else { Err(()) }
            });
            if pushed.is_ok() {
                out.stands_for(lines);
            }
        }
        failed
    }

    /// Whether a row goes to a folder.
    fn is_beside(&self, batch: &ChangeBatch, row: usize, last: &mut Last, path: Option<&str>) -> bool {
        self.folders.as_ref().is_none_or(|folders| folders.folder(&batch.columns, row, last).ok().map(|(folder, _)| folder) == path)
    }

    fn project(&self, columns: &RecordBatch) -> Result<Projected> {
        let project = |fields: &Vec<usize>| columns.project(fields).map_err(|e| Error::fatal("plan bug: no such columns").because(e));
        let key = match &self.key {
            Key::Json(fields) => Some(project(fields)?),
            Key::None | Key::Raw(_) => None,
        };
        Ok(Projected { key, value: self.in_value.as_ref().map(project).transpose()? })
    }
}

/// Columns that records are made of, where they are not those of the row.
struct Projected {
    key: Option<RecordBatch>,
    value: Option<RecordBatch>,
}

/// What the records of a batch are written from.
struct Parts<'a> {
    key: Option<RowWriter<'a>>,
    rows: Rows<'a>,
}

impl<'a> Parts<'a> {
    fn of(encoding: &'a Encoding, batch: &'a ChangeBatch, projected: &'a Projected) -> Self {
        let columns = projected.value.as_ref().unwrap_or(&batch.columns);
        let rows = match &encoding.value {
            Value::Raw => Rows::Raw(columns),
            Value::Json => Rows::Json(RowWriter::of(columns)),
            Value::Debezium => Rows::Debezium(RowWriter::of(columns)),
            Value::Csv(csv) => Rows::Csv(csv, ColumnWriter::all(columns)),
            Value::Text => Rows::Text(ColumnWriter::all(columns)),
        };
        Parts { key: projected.key.as_ref().map(RowWriter::of), rows }
    }
}

/// Rows as the values of records.
enum Rows<'a> {
    Raw(&'a RecordBatch),
    Json(RowWriter<'a>),
    Debezium(RowWriter<'a>),
    Csv(&'a Csv, Vec<ColumnWriter<'a>>),
    Text(Vec<ColumnWriter<'a>>),
}

impl Rows<'_> {
    fn value(&self, row: usize, kind: RowKind, out: &mut Vec<u8>) -> std::result::Result<(), String> {
        match self {
            Rows::Raw(columns) => out.extend_from_slice(bytes(columns, 0, row).ok_or("the value is NULL")?),
            Rows::Json(rows) => return rows.json(row, out),
            Rows::Debezium(rows) => return write_change(rows, row, kind, out),
            Rows::Csv(csv, columns) => return csv.write_row(columns, row, out),
            Rows::Text(columns) => put_line(kind, columns, row, out),
        }
        Ok(())
    }
}

/// Appends `+I[1, a]`: a change as people know it from Flink.
pub(crate) fn put_line(kind: RowKind, columns: &[ColumnWriter<'_>], row: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(kind.short().as_bytes());
    out.push(b'[');
    for (i, column) in columns.iter().enumerate() {
        if i > 0 {
            out.extend_from_slice(b", ");
        }
        column.put_cell(row, out);
    }
    out.push(b']');
}

/// The headers that a map says, as they are in a record.
fn headers(maps: &ArrayRef, row: usize) -> Vec<u8> {
    let mut out = Vec::new();
    if maps.is_valid(row) {
        let entries = maps.as_map().value(row);
        let (names, values) = (entries.column(0).as_string::<i32>(), entries.column(1).as_binary::<i32>());
        for i in 0..entries.len() {
            RawBatch::encode_header(&mut out, names.value(i), values.is_valid(i).then(|| values.value(i)));
        }
    }
    out
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
        let projected = self.0.project(&batch.columns)?;
        let (parts, mut last) = (Parts::of(&self.0, &batch, &projected), Last::default());
        let mut raw = RawBatch::with_capacity(if self.0.lines { 1 } else { batch.len() }, batch.len() * 64);
        if self.0.lines {
            for (row, error) in self.0.write_lines(&batch, &parts, &mut raw) {
                out.reject(batch.origin(row), batch.times[row], error)?;
            }
            return out.emit(Box::new(raw));
        }
        for row in 0..batch.len() {
            if let Err(error) = self.0.write(&batch, &parts, row, &mut last, &mut raw) {
                out.reject(batch.origin(row), batch.times[row], error)?;
            }
        }
        out.emit(Box::new(raw))
    }
}
