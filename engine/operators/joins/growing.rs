//! Inner join of rows that only come: every row with every partner that has come before it, each pair once.
//!
//! The regular join of such inputs without its bags: nothing is taken back, so no row need be found again, counted or
//! changed, and what is kept is a pile of encoded rows. A batch meets the other side as a whole: its keys are looked up at
//! once, and kernels get all its pairs together.
//!
//! Invariant (the class *converging*): after any batch, what has left is the join of what has come in. Rows for which the
//! predicate fails are rejected and are no pair.

use super::kernel::{EncodedRows, PairKernel};
use super::other;
use super::pairings::Pairings;
use crate::error::Result;
use crate::operators::{OpenContext, Operator, OperatorFactory, Output};
use crate::record::BatchBox;
use crate::state::{PileTable, Side, Table};
use std::sync::Arc;

/// An inner join of two streams with keys of one type that take nothing back. `kernel` makes a kernel per task.
pub fn growing_join<N: PairKernel>(kernel: impl Fn() -> N + Send + Sync + 'static) -> OperatorFactory {
    Arc::new(move || {
        let kernel = kernel();
        Box::new(GrowingJoin {
            table: PileTable::new("rows", &kernel.schema()).with_key(kernel.key()),
            kernel,
            slots: Vec::new(),
            encoded: EncodedRows::default(),
        })
    })
}

/// Keys whose rows are fetched into the cache together.
const ABREAST: usize = 32;

struct GrowingJoin<N> {
    kernel: N,
    table: PileTable,
    slots: Vec<u32>,
    /// Of the batch.
    encoded: EncodedRows,
}

impl<N: PairKernel> Operator for GrowingJoin<N> {
    fn open(&mut self, _context: &OpenContext) -> Result<()> {
        self.kernel.check()
    }

    fn tables(&mut self) -> Vec<&mut dyn Table> {
        vec![&mut self.table]
    }

    fn on_batch(&mut self, side: Side, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let Some(keys) = batch.keys() else { unreachable!("plan bug: a join needs keyed streams") };
        let GrowingJoin { kernel, table, slots, encoded } = self;
        table.resolve(keys, slots);
        let bad = kernel.encode_all(side, &*batch, encoded);
        let is_bad = |row: usize| bad.binary_search_by_key(&row, |(row, _)| *row).is_ok();
        let mut pairs = Pairings::of(side, &*batch, encoded);
        for (row, &slot) in slots.iter().enumerate() {
            if row % ABREAST == 0 {
                table.touch(other(side), &slots[row..slots.len().min(row + ABREAST)]);
            }
            if !bad.is_empty() && is_bad(row) {
                continue;
            }
            for partner in table.rows(other(side), slot) {
                pairs.add(row, partner?, kernel, out)?;
            }
        }
        pairs.flush(kernel, out)?;
        for (row, &slot) in slots.iter().enumerate().filter(|(row, _)| bad.is_empty() || !is_bad(*row)) {
            table.add(side, slot, encoded.row(row));
        }
        bad.into_iter().try_for_each(|(row, error)| out.reject(batch.origins().map(|o| o.0[row].clone()), batch.times()[row], error))
    }
}
