//! Pairs of a batch's rows with rows of the other side, handed to a kernel many at a time.
//!
//! Invariant: the kernel gets them in the order in which they were added. A pair for which its function fails is rejected.

use super::kernel::{EncodedRows, PairKernel, Pairing};
use crate::error::Result;
use crate::operators::Output;
use crate::record::Batch;
use crate::state::Side;
use std::borrow::Cow;

/// Pairs that a kernel gets together.
const PAIRS: usize = 4096;

/// The pairs so far.
pub(super) struct Pairings<'a> {
    side: Side,
    batch: &'a dyn Batch,
    own: &'a EncodedRows,
    rows: Vec<u32>,
    /// Read from disk, where they were not in memory.
    partners: Vec<Cow<'a, [u8]>>,
}

impl<'a> Pairings<'a> {
    /// Of a batch of that side, whose rows are encoded.
    pub(super) fn of(side: Side, batch: &'a dyn Batch, own: &'a EncodedRows) -> Self {
        Pairings { side, batch, own, rows: Vec::with_capacity(PAIRS), partners: Vec::with_capacity(PAIRS) }
    }

    /// A row meets a partner; rows ascend.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    #[inline]
    pub(super) fn add<N: PairKernel>(&mut self, row: usize, partner: Cow<'a, [u8]>, kernel: &mut N, out: &mut Output<'_>) -> Result<()> {
        self.rows.push(row as u32);
        self.partners.push(partner);
        if self.rows.len() == PAIRS { self.flush(kernel, out) } else { Ok(()) }
    }

    /// Emits what the pairs make.
    ///
    /// # Errors
    /// Damaged state, or an operator below.
    pub(super) fn flush<N: PairKernel>(&mut self, kernel: &mut N, out: &mut Output<'_>) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let partners: Vec<&[u8]> = self.partners.iter().map(|partner| &**partner).collect();
        let pairing = Pairing { batch: self.batch, own: self.own, rows: &self.rows, partners: &partners };
        let mut failed = Vec::new();
        if let Some(results) = kernel.meet(self.side, &pairing, &mut failed)? {
            out.emit(results)?;
        }
        self.rows.clear();
        self.partners.clear();
        failed.into_iter().try_for_each(|(row, error)| out.reject(None, self.batch.times()[row], error))
    }
}
