//! Changes of a table in columns: the batch of SQL.
//!
//! Row `i` is column values plus a row kind. The kinds of a stream add up: after any batch, the rows added minus the rows
//! taken away are the table. `-U` and `+U` of one change stand next to each other where they were made; whoever tears such a
//! pair apart (a filter) makes a plain `-D` or `+I` of what is left.
//!
//! Invariant: `times` has one entry a row, and so have `kinds`, `keys` and `origins` where present.

use super::{Batch, BatchBox, Keys, Origin, Origins, RowKind};
use crate::error::{Error, Result};
use crate::time::EventTime;
use arrow_array::builder::BooleanBufferBuilder;
use arrow_array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow_schema::SchemaRef;
use arrow_select::filter::FilterBuilder;
use std::any::Any;

/// A batch of changes.
#[derive(Debug, Clone)]
pub struct ChangeBatch {
    /// The values.
    pub columns: RecordBatch,
    /// Row kinds; none = every row is an insert.
    pub kinds: Option<Vec<RowKind>>,
    /// Event time of each row.
    pub times: Vec<EventTime>,
    /// Keys, after a key was computed.
    pub keys: Option<Keys>,
    /// Source records, when the source asked for dead letters.
    pub origins: Option<Origins>,
}

impl ChangeBatch {
    /// Inserts.
    ///
    /// # Panics
    /// When `times` has not one entry a row.
    pub fn inserts(columns: RecordBatch, times: Vec<EventTime>) -> Self {
        assert_eq!(columns.num_rows(), times.len(), "one time a row");
        ChangeBatch { columns, kinds: None, times, keys: None, origins: None }
    }

    /// Kind of row `i`.
    pub fn kind(&self, i: usize) -> RowKind {
        self.kinds.as_ref().map_or(RowKind::Insert, |kinds| kinds[i])
    }

    /// The origin of row `i`, cloned (a reference count).
    pub fn origin(&self, i: usize) -> Option<Origin> {
        self.origins.as_ref().map(|o| o.0[i].clone())
    }

    /// The same rows with other columns: keys go, all else stays.
    ///
    /// # Panics
    /// When `columns` has another number of rows.
    #[must_use]
    pub fn with_columns(self, columns: RecordBatch) -> Self {
        assert_eq!(columns.num_rows(), self.times.len(), "one row a row");
        ChangeBatch { columns, keys: None, ..self }
    }

    /// The rows named, in that order, copied.
    ///
    /// # Errors
    /// Of Arrow, for columns beyond its limits (2 GiB of text in one column).
    pub fn gather(&self, rows: &[u32]) -> Result<ChangeBatch> {
        Ok(ChangeBatch {
            columns: gather_columns(&self.columns, rows)?,
            kinds: self.kinds.as_ref().map(|kinds| rows.iter().map(|&r| kinds[r as usize]).collect()),
            times: rows.iter().map(|&r| self.times[r as usize]).collect(),
            keys: self.keys.as_ref().map(|k| k.gather(rows)),
            origins: self.origins.as_ref().map(|o| o.gather(rows)),
        })
    }

    /// Boxed, to be sent.
    pub fn boxed(self) -> BatchBox {
        Box::new(self)
    }
}

/// The rows named, in that order; knows batches without columns, which have rows all the same.
fn gather_columns(columns: &RecordBatch, rows: &[u32]) -> Result<RecordBatch> {
    let failed = |e| Error::restart("rows of a batch could not be copied").because(e);
    let all = columns.num_rows();
    if rows.len() * 2 >= all && rows.windows(2).all(|pair| pair[0] < pair[1]) {
        // Most rows, in their order: copied in runs.
        let mut kept = BooleanBufferBuilder::new(all);
        kept.append_n(all, false);
        rows.iter().for_each(|&row| kept.set_bit(row as usize, true));
        let filter = FilterBuilder::new(&BooleanArray::new(kept.finish(), None)).optimize().build();
        let kept = columns.columns().iter().map(|c| filter.filter(c)).collect::<Result<Vec<_>, _>>();
        return record_batch(columns.schema(), kept.map_err(failed)?, rows.len()).map_err(failed);
    }
    let indices = UInt32Array::from(rows.to_vec());
    let taken = columns.columns().iter().map(|c| arrow_select::take::take(c, &indices, None)).collect::<Result<Vec<_>, _>>();
    record_batch(columns.schema(), taken.map_err(failed)?, rows.len()).map_err(failed)
}

/// A record batch of so many rows, also of none or one without columns.
///
/// # Errors
/// When the columns do not fit the schema or the number of rows.
pub fn record_batch(schema: SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, arrow_schema::ArrowError> {
    RecordBatch::try_new_with_options(schema, columns, &RecordBatchOptions::new().with_row_count(Some(rows)))
}

impl Batch for ChangeBatch {
    fn len(&self) -> usize {
        self.times.len()
    }

    fn bytes(&self) -> usize {
        self.columns.get_array_memory_size() + self.times.len() * 9 + self.keys.as_ref().map_or(0, Keys::heap_bytes)
    }

    fn times(&self) -> &[EventTime] {
        &self.times
    }

    fn keys(&self) -> Option<&Keys> {
        self.keys.as_ref()
    }

    fn origins(&self) -> Option<&Origins> {
        self.origins.as_ref()
    }

    fn scatter(self: Box<Self>, targets: &[u32], parts: usize) -> Vec<BatchBox> {
        let mut rows: Vec<Vec<u32>> = vec![Vec::new(); parts];
        for (i, &target) in targets.iter().enumerate() {
            rows[target as usize].push(i as u32);
        }
        let part = |rows: Vec<u32>| {
            // A part of a batch that exists is within the limits that the whole was within.
            let part = self.gather(&rows).unwrap_or_else(|e| panic!("a part of a batch: {}", e.report()));
            part.boxed()
        };
        rows.into_iter().map(part).collect()
    }

    fn clone_batch(&self) -> BatchBox {
        self.clone().boxed()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn type_name(&self) -> &'static str {
        std::any::type_name::<Self>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::Int64Array;
    use arrow_schema::{DataType, Field, Schema};
    use std::sync::Arc;

    fn changes() -> ChangeBatch {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        let columns = record_batch(schema, vec![Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]))], 3).unwrap();
        let mut batch = ChangeBatch::inserts(columns, (0..3).map(EventTime).collect());
        batch.kinds = Some(vec![RowKind::Insert, RowKind::UpdateBefore, RowKind::UpdateAfter]);
        batch.keys = Some(Keys::encode([7u64, 8, 7].into_iter()));
        batch
    }

    #[test]
    fn scatter_keeps_rows_whole_and_in_order() {
        let parts = Box::new(changes()).scatter(&[1, 0, 1], 2);
        let odd = super::super::downcast::<ChangeBatch>(parts.into_iter().nth(1).unwrap());
        let column: &Int64Array = odd.columns.column(0).as_any().downcast_ref().unwrap();
        assert_eq!(column.values(), &[1, 3]);
        assert_eq!((odd.kind(0), odd.kind(1)), (RowKind::Insert, RowKind::UpdateAfter));
        assert_eq!(odd.times, [EventTime(0), EventTime(2)]);
        assert_eq!(odd.keys.unwrap().as_u64().unwrap(), [7, 7]);
    }

    #[test]
    fn rows_without_columns_are_rows() {
        let none = record_batch(Arc::new(Schema::empty()), Vec::new(), 3).unwrap();
        let batch = ChangeBatch::inserts(none, vec![EventTime(5); 3]);
        assert_eq!(batch.gather(&[0, 2]).unwrap().len(), 2);
    }
}
