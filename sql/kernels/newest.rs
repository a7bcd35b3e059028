//! The newest row of a key: a kernel of the engine's `group`.
//!
//! Invariant: a row that is added takes the place of the one before; one that is taken away, whatever it says, leaves none.

use super::packed::Packed;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::over::Called;
use waterwheel_engine::operators::{GroupKernel, RowError};
use waterwheel_engine::record::{ChangeBatch, record_batch};

/// Of one task.
pub(crate) struct Newest {
    packed: Packed,
    schema: SchemaRef,
    columns: Option<RecordBatch>,
    results: Vec<Vec<u8>>,
}

impl Newest {
    pub(crate) fn new(packed: Packed, schema: SchemaRef) -> Self {
        Newest { packed, schema, columns: None, results: Vec::new() }
    }
}

impl GroupKernel for Newest {
    type Acc = Option<Vec<u8>>;

    fn describe(&self) -> String {
        format!("newest row: {}", self.packed.describe())
    }

    fn begin(&mut self, batch: &ChangeBatch, _failed: &mut Vec<RowError>) -> Result<()> {
        self.columns = Some(batch.columns.clone());
        Ok(())
    }

    fn create(&self) -> Self::Acc {
        None
    }

    fn fold(&self, acc: &mut Self::Acc, row: usize, weight: i64) -> Called {
        *acc = self.columns.as_ref().filter(|_| weight > 0).map(|columns| {
            let mut bytes = Vec::new();
            self.packed.pack(columns, row, &mut bytes);
            bytes
        });
        Ok(())
    }

    fn is_empty(&self, acc: &Self::Acc) -> bool {
        acc.is_none()
    }

    fn is_visible(&self, acc: &Self::Acc) -> bool {
        acc.is_some()
    }

    fn emit(&mut self, _key: &[u8], acc: &Self::Acc) -> Result<Called> {
        self.results.extend(acc.clone());
        Ok(Ok(()))
    }

    fn is_same(&self, a: usize, b: usize) -> bool {
        self.results[a] == self.results[b]
    }

    fn take(&mut self) -> Result<RecordBatch> {
        let rows = std::mem::take(&mut self.results);
        let columns = (0..self.packed.len()).map(|column| self.packed.column(column, rows.iter().map(|row| Some(&row[..]))));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        record_batch(self.schema.clone(), columns, rows.len()).map_err(|e| Error::fatal("plan bug: rows of other columns").because(e))
    }
}
