//! ROW_NUMBER: the kernel of the engine's `ranked`.
//!
//! Invariant: a result row is the input's columns, then the rank; the bytes of an order are ordered as ORDER BY says, NULL
//! before or behind all else.

use super::packed::Packed;
use super::value::{Cells, Value};
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use std::sync::Arc;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::RankKernel;
use waterwheel_engine::operators::joins::EncodedRows;
use waterwheel_engine::record::{ChangeBatch, record_batch};

/// One column of ORDER BY.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OrderColumn {
    /// In the batch.
    pub(crate) column: usize,
    pub(crate) descending: bool,
    pub(crate) nulls_first: bool,
}

/// Appends bytes of a row that are ordered as ORDER BY says.
pub(crate) fn order_of(order: &[OrderColumn], by: &[Cells], row: usize, out: &mut Vec<u8>) {
    for (by, cells) in order.iter().zip(by) {
        if cells.is_null(row) {
            out.push(if by.nulls_first { 0 } else { 2 });
            continue;
        }
        // The mark that a value is there is the middle one.
        let start = out.len();
        cells.encode(row, out);
        if by.descending {
            out[start + 1..].iter_mut().for_each(|byte| *byte = !*byte);
        }
    }
}

/// The same bytes of a row that is packed.
///
/// # Errors
/// Bytes that are no such row.
pub(crate) fn order_of_packed(order: &[OrderColumn], packed: &Packed, row: &[u8], out: &mut Vec<u8>) -> Result<()> {
    for by in order {
        let value = packed.value(row, by.column)?;
        if matches!(value, Value::Null) {
            out.push(if by.nulls_first { 0 } else { 2 });
            continue;
        }
        let start = out.len();
        value.encode(out);
        if by.descending {
            out[start + 1..].iter_mut().for_each(|byte| *byte = !*byte);
        }
    }
    Ok(())
}

/// Of one task.
pub(crate) struct RowNumbers {
    order: Arc<[OrderColumn]>,
    /// The row: the first columns of the batch; what is behind them was computed for the key and the order.
    packed: Packed,
    /// Of the results: the row, then the rank.
    schema: SchemaRef,
    /// What the partitions are by, for the description.
    partition: Arc<str>,
    columns: Option<RecordBatch>,
    by: Vec<Cells>,
    /// To be emitted.
    rows: EncodedRows,
    ranks: Vec<Option<i64>>,
}

impl RowNumbers {
    pub(crate) fn new(order: Arc<[OrderColumn]>, schema: SchemaRef, partition: Arc<str>) -> Result<Self> {
        let columns = schema.fields().len() - 1;
        let of_row = Schema::new(schema.fields()[..columns].to_vec());
        let packed = Packed::of(&of_row, true).map_err(|column| Error::fatal(format!("plan bug: column {column} cannot be kept")))?;
        let rows = EncodedRows::default();
        Ok(RowNumbers { order, packed, schema, partition, columns: None, by: Vec::new(), rows, ranks: Vec::new() })
    }
}

impl RankKernel for RowNumbers {
    fn describe(&self) -> String {
        format!("row_number by ({}) order {:?} of {}", self.partition, self.order, self.packed.describe())
    }

    fn begin(&mut self, batch: &ChangeBatch) -> Result<()> {
        let cells = |i: usize| Cells::of(batch.columns.column(i));
        self.by = self.order.iter().map(|by| cells(by.column)).collect::<Result<_>>()?;
        self.columns = Some(batch.columns.clone());
        Ok(())
    }

    fn order(&self, row: usize, out: &mut Vec<u8>) {
        order_of(&self.order, &self.by, row, out);
    }

    fn encode(&self, row: usize, out: &mut Vec<u8>) {
        if let Some(columns) = &self.columns {
            self.packed.pack(columns, row, out);
        }
    }

    fn encode_all(&self, _rows: usize, out: &mut EncodedRows) {
        if let Some(columns) = &self.columns {
            self.packed.pack_all(columns, out);
        }
    }

    fn emit(&mut self, row: &[u8], rank: Option<u64>) -> Result<()> {
        self.ranks.push(rank.map(|r| r as i64));
        self.rows.bytes.extend_from_slice(row);
        self.rows.ends.push(self.rows.bytes.len());
        Ok(())
    }

    fn take(&mut self) -> Result<RecordBatch> {
        let rows = std::mem::take(&mut self.rows);
        let count = rows.ends.len();
        let columns = (0..self.packed.len()).map(|column| self.packed.column(column, (0..count).map(|row| Some(rows.row(row)))));
        let mut columns = columns.collect::<Result<Vec<_>>>()?;
        columns.push(Arc::new(std::mem::take(&mut self.ranks).into_iter().collect::<Int64Array>()) as ArrayRef);
        record_batch(self.schema.clone(), columns, count).map_err(|e| Error::restart("ranks cannot be put into columns").because(e))
    }
}
