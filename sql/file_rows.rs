//! Rows that come in columns, from files, and rows that leave so: no record in between.
//!
//! Invariant: what is asked of a record, where it was and what was in it, can be asked of a row of a file too.

use crate::catalog::{Column, Table};
use crate::error::SqlResult;
use crate::folders::{Folders, Last};
use crate::ingest::{Decoded, Reading, metadata_column};
use crate::json;
use crate::maps;
use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Schema, SchemaRef};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::{Operator, OperatorFactory, Output};
use waterwheel_engine::record::{Batch, BatchBox, ChangeBatch, FileRows, RawBatch, downcast, record_batch};
use waterwheel_engine::time::EventTime;

/// The rows of a file, as records where somebody wants some.
pub(crate) struct FileRecords {
    file: FileRows,
    raw: OnceLock<Arc<RawBatch>>,
}

impl FileRecords {
    pub(crate) fn of(file: FileRows) -> FileRecords {
        FileRecords { file, raw: OnceLock::new() }
    }

    /// A record a row: its value is what was read of the row, as JSON; none where JSON cannot say it.
    pub(crate) fn raw(&self) -> &Arc<RawBatch> {
        self.raw.get_or_init(|| {
            let rows = json::RowWriter::of(&self.file.rows.columns);
            let mut text = Vec::new();
            Arc::new(records(&self.file, |row| {
                text.clear();
                rows.json(row, &mut text).ok().map(|()| text.clone())
            }))
        })
    }

    pub(crate) fn time(&self, row: usize) -> EventTime {
        self.file.rows.times[row]
    }
}

/// The places of rows: the file is the topic, the number of the row the offset.
fn records(file: &FileRows, mut value: impl FnMut(usize) -> Option<Vec<u8>>) -> RawBatch {
    let mut raw = RawBatch::with_capacity(file.len(), 0);
    for (row, time) in file.rows.times.iter().enumerate() {
        raw.push_parts(&file.path, 0, file.first + row as i64, time.0, None, value(row).as_deref(), &[]);
    }
    raw
}

/// The columns of a record that are read, and what is wrong with rows that are none.
///
/// # Errors
/// A plan that does not fit.
pub(crate) fn decode(reading: &Reading, file: &FileRows) -> Result<(Decoded, Vec<(usize, String)>)> {
    let read = &file.rows.columns;
    let mut failed: BTreeMap<usize, String> = BTreeMap::new();
    for (field, column) in reading.value.fields().iter().zip(read.columns()) {
        if field.is_nullable() || column.null_count() == 0 {
            continue;
        }
        for row in (0..column.len()).filter(|&row| column.is_null(row)) {
            failed.entry(row).or_insert_with(|| format!("column {} is NOT NULL and has no value", field.name()));
        }
    }
    let folders = match folder_columns(reading, file) {
        Ok(folders) => folders?,
        Err(error) => {
            failed.extend((0..file.len()).map(|row| (row, error.clone())));
            Vec::new()
        }
    };
    let good: Vec<u32> = (0..file.len()).filter(|row| !failed.contains_key(row)).map(|row| row as u32).collect();
    let broken = |e| Error::fatal("plan bug: the columns of a file differ from the plan's").because(e);
    let mut columns = Vec::with_capacity(reading.record.fields().len());
    for column in read.columns() {
        let kept = if failed.is_empty() { column.clone() } else { take(column, &UInt32Array::from(good.clone()), None).map_err(broken)? };
        columns.push(maps::normal(&kept).map_err(broken)?);
    }
    if !reading.metadata.is_empty() {
        let places = records(file, |_| None);
        for metadata in &reading.metadata {
            columns.push(metadata_column(*metadata, &places, &good)?);
        }
    }
    let each = UInt32Array::from(vec![0; good.len()]);
    let wanted = reading.record.fields().len() - columns.len();
    for i in 0..wanted {
        let column: ArrayRef = match folders.get(i) {
            Some(one) => take(one, &each, None).map_err(broken)?,
            // No row is good.
            None => arrow::array::new_empty_array(reading.record.field(columns.len()).data_type()),
        };
        columns.push(column);
    }
    Ok((Decoded { columns, good, kinds: None }, failed.into_iter().collect()))
}

/// The columns of the folder that a file is in, of one row; outside, what is wrong with the path.
fn folder_columns(reading: &Reading, file: &FileRows) -> std::result::Result<Result<Vec<ArrayRef>>, String> {
    let Some(folders) = &reading.folders else { return Ok(Ok(Vec::new())) };
    let mut columns = match folders.columns() {
        Ok(columns) => columns,
        Err(e) => return Ok(Err(e)),
    };
    columns.push(&file.path)?;
    Ok(columns.finish())
}

/// How rows leave in columns.
pub(crate) struct Columns {
    /// Columns of the row that are in the files.
    in_file: Vec<usize>,
    /// The same, with the names that the table has for them.
    schema: SchemaRef,
    folders: Option<Folders>,
}

/// Deals rows out to the folders that they go to.
pub(crate) fn into_folders(columns: Arc<Columns>) -> OperatorFactory {
    Arc::new(move || Box::new(IntoFolders(columns.clone())))
}

struct IntoFolders(Arc<Columns>);

impl Operator for IntoFolders {
    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let batch = downcast::<ChangeBatch>(batch);
        let Some(folders) = &self.0.folders else {
            let rows = self.0.written(batch, None, -1)?;
            return out.emit(Box::new(rows));
        };
        // By path, so that what is staged does not depend on anything else.
        let mut found: BTreeMap<String, (i64, Vec<u32>)> = BTreeMap::new();
        let mut last = Last::default();
        for row in 0..batch.len() {
            match folders.folder(&batch.columns, row, &mut last) {
                Ok((path, time)) => match found.get_mut(path) {
                    Some((_, rows)) => rows.push(row as u32),
                    None => drop(found.insert(path.to_string(), (time, vec![row as u32]))),
                },
                Err(error) => out.reject(batch.origin(row), batch.times[row], error)?,
            }
        }
        for (path, (time, rows)) in found {
            let part = if rows.len() == batch.len() { batch.clone() } else { batch.gather(&rows)? };
            out.emit(Box::new(self.0.written(part, Some(&path), time)?))?;
        }
        Ok(())
    }
}

impl Columns {
    /// For a table. In a file any column may be NULL, whatever the table says.
    ///
    /// # Errors
    /// A pattern that gives folders no time.
    pub(crate) fn of(table: &Table) -> SqlResult<Columns> {
        let row = table.written();
        let in_file: Vec<usize> = (0..row.len()).filter(|&at| matches!(table.columns[row[at]], Column::Physical)).collect();
        let fields = in_file.iter().map(|&at| table.schema.field(row[at]).clone().with_nullable(true)).collect::<Vec<_>>();
        Ok(Columns { in_file, schema: Arc::new(Schema::new(fields)), folders: Folders::of(table)? })
    }

    fn written(&self, batch: ChangeBatch, folder: Option<&str>, time: i64) -> Result<FileRows> {
        let columns = self.in_file.iter().map(|&i| batch.columns.column(i).clone()).collect();
        let columns = record_batch(self.schema.clone(), columns, batch.len())
            .map_err(|e| Error::fatal("plan bug: columns of another type than the table's").because(e))?;
        let rows = ChangeBatch::inserts(columns, vec![EventTime(time); batch.len()]);
        Ok(FileRows { path: folder.unwrap_or_default().into(), first: 0, rows })
    }
}
