//! Rows on their way into files: staged as columns, some thousand of them a record.
//!
//! A staged record's value is a stream of Arrow's, of one batch; its key is the folder that the rows go to, where there are
//! folders.
//!
//! Invariant: what was staged is read back as the same columns; nothing is turned to text on the way.

use super::super::parts::COLUMNS;
use super::super::sink::{check_folder, note_for_lanes};
use crate::staging::StagingWriter;
use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use std::sync::Arc;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::{SegmentRef, SinkWriter};
use waterwheel_engine::record::{BatchBox, Epoch, FileRows, RawBatch, downcast};

/// Bytes of a record that is not cut into two any more.
const RECORD_BYTES: usize = 4 << 20;

/// Stages [`FileRows`]. Rows of a folder have one lane; notes go to every lane.
pub(in crate::files) struct Columns {
    pub(in crate::files) inner: StagingWriter,
    pub(in crate::files) lanes: u32,
    pub(in crate::files) in_folders: bool,
}

impl SinkWriter for Columns {
    fn ready(&mut self) -> Result<bool> {
        self.inner.ready()
    }

    fn write(&mut self, batch: BatchBox) -> Result<()> {
        if batch.as_any().is::<RawBatch>() {
            let raw = downcast::<RawBatch>(batch);
            let note = note_for_lanes(&raw, self.lanes).ok_or_else(|| Error::fatal("plan bug: records on their way into Parquet files"))?;
            return self.inner.write(Box::new(note));
        }
        let FileRows { path, rows, .. } = downcast::<FileRows>(batch);
        if rows.times.is_empty() {
            return Ok(());
        }
        let folder = self.in_folders.then_some(path.as_bytes());
        if self.in_folders {
            check_folder(folder)?;
        }
        let time = rows.times[0].0;
        let mut raw = RawBatch::with_capacity(1, rows.columns.get_array_memory_size());
        let (topic, mut rest): (Arc<str>, Vec<RecordBatch>) = (COLUMNS.into(), vec![rows.columns]);
        while let Some(columns) = rest.pop() {
            let encoded = encode(&columns).map_err(|e| Error::restart("rows cannot be staged").because(e))?;
            if encoded.len() > RECORD_BYTES && columns.num_rows() > 1 {
                let half = columns.num_rows() / 2;
                rest.extend([columns.slice(half, columns.num_rows() - half), columns.slice(0, half)]);
                continue;
            }
            raw.push_parts(&topic, -1, -1, time, folder, Some(&encoded), &[]);
        }
        self.inner.write(Box::new(raw))
    }

    fn prepare(&mut self, epoch: Epoch) -> Result<()> {
        self.inner.prepare(epoch)
    }

    fn prepared(&mut self) -> Result<Option<Vec<SegmentRef>>> {
        self.inner.prepared()
    }
}

fn encode(columns: &RecordBatch) -> std::result::Result<Vec<u8>, ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::with_capacity(columns.get_array_memory_size().min(RECORD_BYTES)), columns.schema_ref())?;
    writer.write(columns)?;
    writer.into_inner()
}

/// The rows of a staged record.
///
/// # Errors
/// A record that holds none.
pub(super) fn decode(staged: &[u8]) -> Result<RecordBatch> {
    let mut batches = StreamReader::try_new(staged, None).map_err(unstaged)?;
    let batch = batches.next().ok_or_else(|| Error::fatal("a staged record has no rows"))?;
    batch.map_err(unstaged)
}

fn unstaged(e: ArrowError) -> Error {
    Error::fatal("a staged record cannot be read").because(e)
}
