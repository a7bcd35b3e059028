//! ROW_NUMBER: the kernel of the engine's `ranked`.
//!
//! Invariant: a result row is the input's columns, then the rank; the bytes of an order are ordered as ORDER BY says, NULL
//! before or behind all else.

use super::row::{self, Rows};
use super::value::Cells;
use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::{Schema, SchemaRef};
use std::sync::Arc;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::RankKernel;
use waterwheel_engine::record::{ChangeBatch, record_batch};

/// One column of ORDER BY.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OrderColumn {
    /// In the batch.
    pub(crate) column: usize,
    pub(crate) descending: bool,
    pub(crate) nulls_first: bool,
}

/// Of one task.
pub(crate) struct RowNumbers {
    order: Arc<[OrderColumn]>,
    /// How many columns of the batch are the row; what is behind them was computed for the key and the order.
    columns: usize,
    /// Of the results: the row, then the rank.
    schema: SchemaRef,
    /// What the partitions are by, for the description.
    partition: Arc<str>,
    cells: Vec<Cells>,
    by: Vec<Cells>,
    rows: Rows,
    ranks: Vec<Option<i64>>,
}

impl RowNumbers {
    pub(crate) fn new(order: Arc<[OrderColumn]>, schema: SchemaRef, partition: Arc<str>) -> Result<Self> {
        let columns = schema.fields().len() - 1;
        let of_row = Arc::new(Schema::new(schema.fields()[..columns].to_vec()));
        let rows = Rows::new(of_row)?;
        Ok(RowNumbers { order, columns, schema, partition, cells: Vec::new(), by: Vec::new(), rows, ranks: Vec::new() })
    }
}

impl RankKernel for RowNumbers {
    fn describe(&self) -> String {
        let kinds: Vec<String> = self.schema.fields().iter().map(|f| f.data_type().to_string()).collect();
        format!("row_number by ({}) order {:?} of ({})", self.partition, self.order, kinds.join(", "))
    }

    fn begin(&mut self, batch: &ChangeBatch) -> Result<()> {
        let cells = |i: usize| Cells::of(batch.columns.column(i));
        self.cells = (0..self.columns).map(cells).collect::<Result<_>>()?;
        self.by = self.order.iter().map(|by| cells(by.column)).collect::<Result<_>>()?;
        Ok(())
    }

    fn order(&self, row: usize, out: &mut Vec<u8>) {
        for (by, cells) in self.order.iter().zip(&self.by) {
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

    fn encode(&self, row: usize, out: &mut Vec<u8>) {
        row::encode(&self.cells, row, out);
    }

    fn emit(&mut self, row: &[u8], rank: Option<u64>) -> Result<()> {
        self.ranks.push(rank.map(|r| r as i64));
        self.rows.push(row)
    }

    fn take(&mut self) -> Result<arrow::array::RecordBatch> {
        let rows = self.rows.take()?;
        let ranks: ArrayRef = Arc::new(std::mem::take(&mut self.ranks).into_iter().collect::<Int64Array>());
        let count = rows.num_rows();
        let columns = rows.columns().iter().cloned().chain([ranks]).collect();
        record_batch(self.schema.clone(), columns, count).map_err(|e| Error::restart("ranks cannot be put into columns").because(e))
    }
}
