//! The aggregate of a frame that moves on: two stacks in place of subtraction.
//!
//! The rows of a frame are cut in two at a boundary. Behind it is one accumulator of all rows, to which new ones are added.
//! Before it, of each row there is the accumulator from that row up to the boundary, so that the oldest row leaves by
//! forgetting its accumulator; when none is left, the boundary moves to the newest row and the accumulators are made anew. A
//! row is folded twice and merged twice at most, whatever the frame holds.
//!
//! Invariant: what is in here follows from the rows of the frame and the boundary; both are in state, so a restore makes it
//! again, bit by bit. A row leaves before any that cannot be in a frame with it comes, so the boundary depends on the rows
//! alone and not on when the watermark was told.

use super::kernel::{Called, OverKernel};
use crate::error::Result;
use crate::time::EventTime;

/// An encoded row and its time.
pub(super) type TimedRow<'a> = (&'a [u8], EventTime);

/// See the module's header.
#[derive(Debug, Clone)]
pub(super) struct Stacks<A> {
    /// From each row up to the boundary, the oldest last; an error where accumulators cannot be put together.
    before: Vec<Result<A, String>>,
    /// Of the rows behind the boundary, if there are any.
    behind: Option<A>,
}

impl<A> Default for Stacks<A> {
    fn default() -> Self {
        Stacks { before: Vec::new(), behind: None }
    }
}

/// The aggregate of a frame.
pub(super) enum Total<'a, A> {
    Of(&'a A),
    Merged(A),
    Failed(String),
}

impl<A> Total<'_, A> {
    pub(super) fn as_ref(&self) -> Result<&A, &String> {
        match self {
            Total::Of(acc) => Ok(acc),
            Total::Merged(acc) => Ok(acc),
            Total::Failed(error) => Err(error),
        }
    }
}

impl<A: Clone> Stacks<A> {
    /// Of rows whose first `before` are before the boundary.
    pub(super) fn of<K: OverKernel<Acc = A>>(kernel: &K, rows: &[TimedRow<'_>], before: usize) -> Result<Self> {
        let (first, rest) = rows.split_at(before.min(rows.len()));
        let mut stacks = Stacks { before: up_to_boundary(kernel, first)?, behind: None };
        stacks.refold(kernel, rest)?;
        Ok(stacks)
    }

    /// Makes the accumulator behind the boundary anew.
    pub(super) fn refold<K: OverKernel<Acc = A>>(&mut self, kernel: &K, behind: &[TimedRow<'_>]) -> Result<()> {
        self.behind = None;
        for row in behind {
            // They have been folded before; a function that fails now and then is the row's own fault either way.
            let _ = self.push(kernel, *row)?;
        }
        Ok(())
    }

    /// Adds the newest row. After a failure the rows behind the boundary must be [folded anew](Self::refold), without it.
    pub(super) fn push<K: OverKernel<Acc = A>>(&mut self, kernel: &K, (row, time): TimedRow<'_>) -> Result<Called> {
        let acc = self.behind.get_or_insert_with(|| kernel.create());
        kernel.fold(acc, row, time)
    }

    /// The oldest row leaves. `false`: it is behind the boundary, which must [move](Self::move_boundary) in its place.
    pub(super) fn pop(&mut self) -> bool {
        self.before.pop().is_some()
    }

    /// The boundary moves behind the newest of `rows`, which are all that are left.
    pub(super) fn move_boundary<K: OverKernel<Acc = A>>(&mut self, kernel: &K, rows: &[TimedRow<'_>]) -> Result<()> {
        *self = Stacks { before: up_to_boundary(kernel, rows)?, behind: None };
        Ok(())
    }

    /// Number of rows before the boundary.
    pub(super) fn before(&self) -> usize {
        self.before.len()
    }

    /// The aggregate of all rows.
    pub(super) fn total<K: OverKernel<Acc = A>>(&self, kernel: &K) -> Total<'_, A> {
        match (self.before.last(), &self.behind) {
            (None, Some(acc)) | (Some(Ok(acc)), None) => Total::Of(acc),
            (None, None) => Total::Merged(kernel.create()),
            (Some(Err(error)), _) => Total::Failed(error.clone()),
            (Some(Ok(first)), Some(rest)) => {
                let mut acc = first.clone();
                kernel.merge(&mut acc, rest).map_or_else(Total::Failed, |()| Total::Merged(acc))
            }
        }
    }
}

/// The accumulators from each row to the last one, the first row's last.
fn up_to_boundary<K: OverKernel>(kernel: &K, rows: &[TimedRow<'_>]) -> Result<Vec<Result<K::Acc, String>>> {
    let mut all: Vec<Result<K::Acc, String>> = Vec::with_capacity(rows.len());
    for &(row, time) in rows.iter().rev() {
        let mut acc = kernel.create();
        let done = kernel.fold(&mut acc, row, time)?;
        all.push(match (done, all.last()) {
            (Err(error), _) => Err(error),
            (_, Some(Err(error))) => Err(error.clone()),
            (Ok(()), Some(Ok(later))) => kernel.merge(&mut acc, later).map(|()| acc),
            (Ok(()), None) => Ok(acc),
        });
    }
    Ok(all)
}
