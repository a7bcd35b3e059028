//! Rows multiplied for grouping sets.
//!
//! Invariant: the rows of a batch come once for each set, all those of one set before those of the next, so that both halves
//! of an update stay together.

use arrow::array::{ArrayRef, Int64Array, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use std::sync::Arc;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::{ColumnKernel, RowError};
use waterwheel_engine::record::{ChangeBatch, record_batch};

/// One grouping set.
#[derive(Debug, Clone)]
pub(crate) struct KeySet {
    /// By key: whether it is of the set.
    pub(crate) has: Vec<bool>,
    pub(crate) id: i64,
}

/// Every row once for each set, with the set's number behind its columns.
#[derive(Debug, Clone)]
pub(crate) struct Expand {
    /// By column: the key that it is, if not every set has it.
    pub(crate) varying: Vec<Option<usize>>,
    pub(crate) sets: Arc<[KeySet]>,
    /// Of the result.
    pub(crate) schema: SchemaRef,
}

impl ColumnKernel for Expand {
    fn apply(&mut self, batch: &ChangeBatch, _failed: &mut Vec<RowError>) -> Result<ChangeBatch> {
        let failed = |e| Error::restart("rows cannot be put into columns").because(e);
        let rows = batch.times.len() as u32;
        let all = || self.sets.iter().flat_map(|_| 0..rows);
        let expanded = batch.gather(&all().collect::<Vec<u32>>())?;
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        for (i, varying) in self.varying.iter().enumerate() {
            let Some(key) = *varying else {
                columns.push(expanded.columns.column(i).clone());
                continue;
            };
            let of_set = |set: &KeySet| (0..rows).map(move |row| Some(row).filter(|_| set.has[key])).collect::<Vec<_>>();
            let wanted: UInt32Array = self.sets.iter().flat_map(of_set).collect();
            columns.push(take(batch.columns.column(i), &wanted, None).map_err(failed)?);
        }
        let ids: Int64Array = self.sets.iter().flat_map(|set| (0..rows).map(|_| set.id)).collect();
        let count = ids.len();
        columns.push(Arc::new(ids));
        Ok(expanded.with_columns(record_batch(self.schema.clone(), columns, count).map_err(failed)?))
    }
}
