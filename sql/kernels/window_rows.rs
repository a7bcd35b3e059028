//! Rows of windows as they are, kept until their window has ended: the first ones of each key, or all of them.
//!
//! Rows go in as references into their batch, whose rows were packed once; they come out as columns again, with their rank and
//! their window's bounds where a query has these.
//!
//! Invariant: the rows of a key and window leave in order, those that are equal in order by arrival (or the newest first).

use super::keys::KeyBytes;
use super::packed::Packed;
use super::ranked::{OrderColumn, order_of};
use super::value::Cells;
use super::window::{bound_in, stamps};
use crate::plan::Zone;
use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::joins::EncodedRows;
use waterwheel_engine::operators::{Operator, Output, check_description};
use waterwheel_engine::record::{BatchBox, ChangeBatch, Rows, downcast, record_batch};
use waterwheel_engine::windowing::{Accumulate, Windowed};

/// Rows of one result batch at most.
const EMIT_ROWS: usize = 4096;

/// The rows of a batch, and what each is ordered by, as bytes.
#[derive(Default)]
struct Encoded {
    rows: EncodedRows,
    orders: EncodedRows,
}

/// A row of a batch that is packed.
#[derive(Clone)]
pub(crate) struct PackedRow {
    batch: Arc<Encoded>,
    row: usize,
}

/// Packs the rows of batches, and hands them on with their keys and times.
#[derive(Clone)]
pub(crate) struct ToPackedRows {
    pub(crate) order: Arc<[OrderColumn]>,
    /// The row: the first columns of the batch.
    pub(crate) packed: Packed,
    /// What the windows behind it hold, which are told apart by this.
    pub(crate) description: Arc<str>,
}

impl ToPackedRows {
    fn describe(&self) -> String {
        format!("{} order {:?} of {}", self.description, self.order, self.packed.describe())
    }
}

impl Operator for ToPackedRows {
    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let batch = downcast::<ChangeBatch>(batch);
        let by = self.order.iter().map(|by| Cells::of(batch.columns.column(by.column))).collect::<Result<Vec<_>>>()?;
        let mut encoded = Encoded::default();
        self.packed.pack_all(&batch.columns, &mut encoded.rows);
        for row in 0..batch.times.len() {
            order_of(&self.order, &by, row, &mut encoded.orders.bytes);
            encoded.orders.ends.push(encoded.orders.bytes.len());
        }
        let encoded = Arc::new(encoded);
        let rows = (0..batch.times.len()).map(|row| PackedRow { batch: encoded.clone(), row }).collect();
        out.emit(Rows { rows, times: batch.times, keys: batch.keys, origins: batch.origins }.boxed())
    }

    fn save(&mut self) -> Vec<u8> {
        self.describe().into_bytes()
    }

    fn restore(&mut self, blobs: &[Vec<u8>]) -> Result<()> {
        check_description(&self.describe(), blobs)
    }
}

/// A row that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptRow {
    order: Vec<u8>,
    row: Vec<u8>,
}

/// The first rows of a key and window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FirstRows {
    /// So many.
    pub(crate) most: usize,
    /// Of rows that are equal in order the newest is first; else the oldest.
    pub(crate) newest_first: bool,
}

impl FirstRows {
    fn put(&self, kept: &mut Vec<KeptRow>, order: &[u8], row: &[u8]) {
        let before = |other: &KeptRow| if self.newest_first { *other.order < *order } else { *other.order <= *order };
        let place = kept.partition_point(before);
        if place >= self.most {
            return;
        }
        if kept.len() >= self.most {
            kept.pop();
        }
        kept.insert(place, KeptRow { order: order.to_vec(), row: row.to_vec() });
    }
}

impl Accumulate for FirstRows {
    type Row = PackedRow;
    type Acc = Vec<KeptRow>;
    type Out = Vec<KeptRow>;

    fn create(&self) -> Vec<KeptRow> {
        Vec::new()
    }

    fn accumulate(&self, acc: &mut Vec<KeptRow>, PackedRow { batch, row }: &PackedRow) {
        self.put(acc, batch.orders.row(*row), batch.rows.row(*row));
    }

    fn merge(&self, acc: &mut Vec<KeptRow>, later: &Vec<KeptRow>) {
        let put = |kept: &KeptRow| self.put(acc, &kept.order, &kept.row);
        // Each in the order of arrival, as far as that is known.
        if self.newest_first { later.iter().rev().for_each(put) } else { later.iter().for_each(put) }
    }

    fn finish(&self, acc: &Vec<KeptRow>) -> Vec<KeptRow> {
        acc.clone()
    }
}

/// Where a column of a result comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowColumn {
    /// The row's own, at this position.
    Row(usize),
    /// Its place among the rows of its key and window, from 1.
    Rank,
    WindowStart,
    WindowEnd,
    WindowTime,
}

/// The rows of windows to columns.
#[derive(Clone)]
pub(crate) struct FromPackedRows {
    pub(crate) packed: Packed,
    pub(crate) columns: Vec<RowColumn>,
    pub(crate) schema: SchemaRef,
    /// By how much the engine's windows are longer than the query's.
    pub(crate) longer_ms: i64,
    /// Whose clock shows the bounds; none = UTC.
    pub(crate) zone: Option<Zone>,
}

/// A row that leaves, with its window and its rank.
type Leaving<'a> = (&'a Windowed<KeyBytes, Vec<KeptRow>>, usize);

impl FromPackedRows {
    fn column(&self, i: usize, rows: &[Leaving<'_>]) -> Result<ArrayRef> {
        let kind = self.schema.field(i).data_type();
        let end = |window: &Windowed<KeyBytes, Vec<KeptRow>>| window.end.0.saturating_sub(self.longer_ms);
        match self.columns[i] {
            RowColumn::Row(column) => self.packed.column(column, rows.iter().map(|(window, rank)| Some(&window.value[*rank].row[..]))),
            RowColumn::Rank => Ok(Arc::new(rows.iter().map(|(_, rank)| Some(*rank as i64 + 1)).collect::<Int64Array>())),
            RowColumn::WindowStart => stamps(rows.iter().map(|(window, _)| bound_in(self.zone, window.start.0)), kind),
            RowColumn::WindowEnd => stamps(rows.iter().map(|(window, _)| bound_in(self.zone, end(window))), kind),
            RowColumn::WindowTime => stamps(rows.iter().map(|(window, _)| Ok(end(window).saturating_sub(1))), kind),
        }
    }
}

impl Operator for FromPackedRows {
    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let batch = downcast::<Rows<Windowed<KeyBytes, Vec<KeptRow>>>>(batch);
        let (mut rows, mut times): (Vec<Leaving<'_>>, _) = (Vec::new(), Vec::new());
        for (window, &time) in batch.rows.iter().zip(&batch.times) {
            rows.extend((0..window.value.len()).map(|rank| (window, rank)));
            times.resize(rows.len(), time);
        }
        for (rows, times) in rows.chunks(EMIT_ROWS).zip(times.chunks(EMIT_ROWS)) {
            let columns = (0..self.columns.len()).map(|i| self.column(i, rows)).collect::<Result<Vec<_>>>()?;
            let columns = record_batch(self.schema.clone(), columns, rows.len())
                .map_err(|e| Error::restart("rows of windows cannot be put into columns").because(e))?;
            out.emit(ChangeBatch::inserts(columns, times.to_vec()).boxed())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is left of rows, each an order and a number, that came in this order.
    fn first(rule: FirstRows, rows: &[(u8, u8)]) -> Vec<KeptRow> {
        let mut kept = rule.create();
        rows.iter().for_each(|&(order, row)| rule.put(&mut kept, &[order], &[row]));
        kept
    }

    proptest! {
        #[test]
        fn the_first_rows_are_those_of_all_rows_in_order(
            orders in proptest::collection::vec(0u8..6, 0..30),
            most in 1usize..8,
            newest_first: bool,
            cut in 0usize..30,
        ) {
            let rule = FirstRows { most, newest_first };
            let rows: Vec<(u8, u8)> = orders.iter().enumerate().map(|(i, order)| (*order, i as u8)).collect();
            let mut all = rows.clone();
            if newest_first {
                all.reverse();
            }
            all.sort_by_key(|row| row.0);
            all.truncate(most);
            let expected: Vec<KeptRow> = all.into_iter().map(|(order, row)| KeptRow { order: vec![order], row: vec![row] }).collect();
            prop_assert_eq!(&first(rule, &rows), &expected);
            // In two parts, put together.
            let (early, late) = rows.split_at(cut.min(rows.len()));
            let mut kept = first(rule, early);
            rule.merge(&mut kept, &first(rule, late));
            prop_assert_eq!(kept, expected);
        }
    }
}
