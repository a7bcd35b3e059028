//! The files that a lane writes rows into, one a folder and epoch.
//!
//! Rows are put into pages as they come and written out by row groups; only so many bytes wait in memory, of all folders
//! together. A file that nobody writes to any more has its footer and is durable under its hidden name before anybody hears
//! of it.
//!
//! Invariant: an epoch published again gives the same rows under the same names; a file holds rows of one epoch.

use super::super::parts::{Names, Part, PartFiles, Settled, file_error, folder_path, make_folder};
use super::super::sink::InColumns;
use super::stage::decode;
use super::{Codec, unwritten};
use ::parquet::arrow::ArrowWriter;
use ::parquet::arrow::arrow_writer::ArrowWriterOptions;
use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use waterwheel_engine::env::{FileWriter, Files};
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::record::{Epoch, record_batch};

/// A row group is written out at so many bytes; the largest one when all that wait have so many.
const GROUP_BYTES: usize = 64 << 20;
const ALL_BYTES: usize = 128 << 20;
/// Folders that are written to at a time.
const OPEN_FILES: usize = 64;

/// Files being written, by folder.
pub(in crate::files) struct ColumnParts<'a> {
    files: Arc<dyn Files>,
    root: &'a Path,
    names: Names,
    now_ms: i64,
    codec: Codec,
    limit: Option<u64>,
    open: BTreeMap<String, Open>,
    finished: Vec<Part>,
    /// Folders with names that are to be made durable.
    changed: BTreeSet<PathBuf>,
    waiting: usize,
    /// Batches so far: the clock by which a folder was written to last.
    turn: u64,
}

struct Open {
    part: Part,
    schema: SchemaRef,
    file: RowsOut,
    /// Bytes that wait in it.
    waiting: usize,
    turn: u64,
}

/// Rows into one new file.
pub(super) struct RowsOut {
    writer: ArrowWriter<Out>,
    /// As they are written.
    schema: SchemaRef,
    path: PathBuf,
}

/// The file system's way to write, and how many bytes it has taken.
struct Out(Box<dyn FileWriter>, u64);

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write_all(bytes)?;
        self.1 += bytes.len() as u64;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl RowsOut {
    /// A new file; one that is there is replaced.
    ///
    /// # Errors
    /// Of the file system, or a type that Parquet has not.
    pub(super) fn create(files: &Arc<dyn Files>, path: PathBuf, schema: &SchemaRef, codec: Codec) -> Result<RowsOut> {
        let out = Out(files.create(&path).map_err(|e| file_error(&path, e))?, 0);
        let schema: SchemaRef = Arc::new(Schema::new(schema.fields().iter().map(written_as).collect::<Vec<_>>()));
        let options = ArrowWriterOptions::new().with_properties(codec.properties()).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(out, schema.clone(), options).map_err(|e| unwritten(&path, e))?;
        Ok(RowsOut { writer, schema, path })
    }

    /// Appends rows, which are written out with their row group.
    ///
    /// # Errors
    /// Of the file system.
    pub(super) fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        let as_written = |(column, field): (&ArrayRef, &FieldRef)| match column.data_type() == field.data_type() {
            true => Ok(column.clone()),
            false => cast_with_options(column, field.data_type(), &CastOptions { safe: false, ..CastOptions::default() }),
        };
        let columns = rows.columns().iter().zip(self.schema.fields()).map(as_written).collect::<Result<Vec<_>, _>>();
        let rows = columns.and_then(|columns| record_batch(self.schema.clone(), columns, rows.num_rows()));
        self.writer.write(&rows.map_err(|e| unwritten(&self.path, e.into()))?).map_err(|e| unwritten(&self.path, e))?;
        if self.writer.memory_size() >= GROUP_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.writer.flush().map_err(|e| unwritten(&self.path, e))
    }

    /// Bytes that the file would have now.
    fn bytes(&self) -> u64 {
        (self.writer.bytes_written() + self.writer.in_progress_size()) as u64
    }

    /// Writes the rest and the footer, durably; how many bytes there are.
    ///
    /// # Errors
    /// Of the file system.
    pub(super) fn finish(self) -> Result<u64> {
        let RowsOut { writer, path, .. } = self;
        let Out(mut file, bytes) = writer.into_inner().map_err(|e| unwritten(&path, e))?;
        file.sync().map_err(|e| file_error(&path, e))?;
        Ok(bytes)
    }
}

impl<'a> ColumnParts<'a> {
    /// Begins without a file. Those of lines that would go on, of a job that wrote lines before, are finished as they are.
    pub(in crate::files) fn new(
        files: Arc<dyn Files>,
        root: &'a Path,
        names: Names,
        now_ms: i64,
        InColumns { codec, file_bytes }: InColumns,
        lines: &[Part],
    ) -> Self {
        let (open, finished, changed) = (BTreeMap::new(), lines.to_vec(), BTreeSet::new());
        ColumnParts { files, root, names, now_ms, codec, limit: file_bytes, open, finished, changed, waiting: 0, turn: 0 }
    }

    fn begin(&mut self, folder: &str, schema: SchemaRef) -> Result<Open> {
        let (name, hidden) = self.names.next();
        make_folder(&*self.files, self.root, folder, &mut self.changed)?;
        let path = folder_path(self.root, folder).join(&hidden);
        let file = RowsOut::create(&self.files, path, &schema, self.codec)?;
        let part = Part { folder: folder.to_string(), name, hidden, bytes: 0, begun_ms: self.now_ms, written_ms: self.now_ms };
        Ok(Open { part, schema, file, waiting: 0, turn: self.turn })
    }

    fn finish(&mut self, folder: &str) -> Result<()> {
        let Some(mut open) = self.open.remove(folder) else { return Ok(()) };
        self.waiting -= open.waiting;
        open.part.bytes = open.file.finish()?;
        self.finished.push(open.part);
        Ok(())
    }

    /// Makes room in memory and among the open files.
    fn make_room(&mut self) -> Result<()> {
        if self.open.len() > OPEN_FILES
            && let Some(oldest) = self.open.iter().min_by_key(|(_, open)| open.turn).map(|(folder, _)| folder.clone())
        {
            self.finish(&oldest)?;
        }
        if self.waiting >= ALL_BYTES
            && let Some(open) = self.open.values_mut().max_by_key(|open| open.waiting)
        {
            open.file.flush()?;
            let left = open.file.writer.memory_size();
            self.waiting = self.waiting + left - open.waiting;
            open.waiting = left;
        }
        Ok(())
    }
}

/// With the types that Parquet has: seconds are no unit of its times.
fn written_as(field: &FieldRef) -> FieldRef {
    let kind = match field.data_type() {
        DataType::Timestamp(TimeUnit::Second, zone) => DataType::Timestamp(TimeUnit::Millisecond, zone.clone()),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(written_as).collect()),
        DataType::List(item) => DataType::List(written_as(item)),
        DataType::Map(entries, sorted) => DataType::Map(written_as(entries), *sorted),
        _ => return field.clone(),
    };
    if kind == *field.data_type() { field.clone() } else { Arc::new(Field::clone(field).with_data_type(kind)) }
}

impl PartFiles for ColumnParts<'_> {
    fn are_columns(&self) -> bool {
        true
    }

    fn begin_epoch(&mut self, epoch: Epoch) -> Result<()> {
        let all: Vec<String> = self.open.keys().cloned().collect();
        all.iter().try_for_each(|folder| self.finish(folder))?;
        self.names.begin_epoch(epoch);
        Ok(())
    }

    fn write(&mut self, folder: &str, staged: &[u8]) -> Result<()> {
        let rows = decode(staged)?;
        self.turn += 1;
        let is_other = |open: &Open| open.schema != rows.schema();
        if self.open.get(folder).is_some_and(is_other) {
            self.finish(folder)?;
        }
        if !self.open.contains_key(folder) {
            let begun = self.begin(folder, rows.schema())?;
            self.open.insert(folder.to_string(), begun);
        }
        let Some(open) = self.open.get_mut(folder) else { return Err(Error::restart("a file was begun and is not there")) };
        open.turn = self.turn;
        open.file.write(&rows)?;
        let waiting = open.file.writer.memory_size();
        self.waiting = self.waiting + waiting - open.waiting;
        open.waiting = waiting;
        if self.limit.is_some_and(|limit| open.file.bytes() >= limit) {
            return self.finish(folder);
        }
        self.make_room()
    }

    fn settle(mut self: Box<Self>) -> Result<Settled> {
        let all: Vec<String> = self.open.keys().cloned().collect();
        all.iter().try_for_each(|folder| self.finish(folder))?;
        for folder in &self.changed {
            self.files.sync_dir(folder).map_err(|e| file_error(folder, e))?;
        }
        Ok(Settled { open: Vec::new(), finished: self.finished })
    }
}
