//! Keyed state as a file: an entry a row, for whoever has a tool that reads Parquet.
//!
//! Columns: `operator`, `table`, `key` and `value` (as JSON), `time` (a timer's or slice's, where there is one), `name`.
//!
//! Invariant: the file is there whole or not at all.

use super::Codec;
use super::parts::RowsOut;
use arrow::array::{ArrayRef, RecordBatch, StringBuilder, TimestampMillisecondBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use waterwheel_engine::env::Env;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::state::ShownEntry;

/// Entries that are put into columns at a time.
const BATCH_ROWS: usize = 4096;

/// Writes entries of keyed state.
///
/// ```
/// use serde_json::json;
/// use waterwheel_connectors::files::parquet::StateFile;
/// use waterwheel_engine::{env::Env, state::ShownEntry};
/// let dir = tempfile::tempdir().unwrap();
/// let mut file = StateFile::create(&Env::real(), &dir.path().join("state.parquet")).unwrap();
/// let entry = ShownEntry { key: json!("ann"), time_ms: None, name: None, value: json!(7) };
/// file.push("totals", "sums", &entry).unwrap();
/// assert_eq!(file.finish().unwrap(), 1);
/// ```
pub struct StateFile {
    env: Env,
    /// Until it is finished.
    file: Option<RowsOut>,
    schema: SchemaRef,
    path: PathBuf,
    hidden: PathBuf,
    texts: [StringBuilder; 5],
    times: TimestampMillisecondBuilder,
    waiting: usize,
    rows: u64,
}

impl StateFile {
    /// A new file, which has its name when it is [finished](Self::finish); one that is there is replaced then.
    ///
    /// # Errors
    /// Of the file system.
    pub fn create(env: &Env, path: &Path) -> Result<StateFile> {
        let name = path.file_name().ok_or_else(|| Error::fatal(format!("{} is no name of a file", path.display())))?;
        let hidden = path.with_file_name(format!(".{}.{}", name.to_string_lossy(), env.fresh_id()));
        let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
        let time = Field::new("time", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true);
        let schema: SchemaRef = Arc::new(Schema::new(vec![
            text("operator", false),
            text("table", false),
            text("key", false),
            text("value", false),
            text("name", true),
            time,
        ]));
        let file = RowsOut::create(&env.files, hidden.clone(), &schema, Codec::default())?;
        let (texts, times) = (Default::default(), TimestampMillisecondBuilder::new().with_timezone("UTC"));
        Ok(StateFile { env: env.clone(), file: Some(file), schema, path: path.to_path_buf(), hidden, texts, times, waiting: 0, rows: 0 })
    }

    /// Appends an entry.
    ///
    /// # Errors
    /// Of the file system.
    pub fn push(&mut self, operator: &str, table: &str, entry: &ShownEntry) -> Result<()> {
        let [operators, tables, keys, values, names] = &mut self.texts;
        operators.append_value(operator);
        tables.append_value(table);
        keys.append_value(entry.key.to_string());
        values.append_value(entry.value.to_string());
        names.append_option(entry.name.as_deref());
        self.times.append_option(entry.time_ms);
        self.waiting += 1;
        if self.waiting >= BATCH_ROWS { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<()> {
        let mut columns: Vec<ArrayRef> = self.texts.iter_mut().map(|text| Arc::new(text.finish()) as ArrayRef).collect();
        columns.push(Arc::new(self.times.finish()));
        let rows = RecordBatch::try_new(self.schema.clone(), columns).map_err(|e| super::unwritten(&self.path, e.into()))?;
        self.rows += self.waiting as u64;
        self.waiting = 0;
        self.file.as_mut().map_or(Ok(()), |file| file.write(&rows))
    }

    /// Writes the rest and gives the file its name; how many entries there are.
    ///
    /// # Errors
    /// Of the file system.
    pub fn finish(mut self) -> Result<u64> {
        self.write()?;
        self.file.take().map_or(Ok(0), RowsOut::finish)?;
        let files = &self.env.files;
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let named = files.rename(&self.hidden, &self.path).and_then(|()| files.sync_dir(folder));
        named.map_err(|e| Error::from(e).at(self.path.display().to_string()))?;
        Ok(self.rows)
    }
}

impl Drop for StateFile {
    fn drop(&mut self) {
        // What is not finished is nothing; what is has its name.
        let _ = self.env.files.remove(&self.hidden);
    }
}
