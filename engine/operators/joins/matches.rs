//! What the kinds of join make of rows that meet and of rows that stay alone.
//!
//! Invariant: a row without a partner leaves once, by itself, exactly if its side is an outer one (or the join is an anti
//! join); a left row of a semi join leaves once, at its first partner. A pair whose function fails is rejected and counts as
//! a pair.

use super::kernel::{PairKernel, Paired};
use super::{LEFT, RIGHT};
use crate::error::Result;
use crate::operators::Output;
use crate::state::Side;
use crate::time::EventTime;

/// Which results a join has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinKind {
    /// Pairs.
    Inner,
    /// Pairs, and left rows without a partner.
    Left,
    /// Pairs, and right rows without a partner.
    Right,
    /// Pairs, and rows without a partner.
    Full,
    /// Left rows with a partner, each once.
    Semi,
    /// Left rows without a partner.
    Anti,
}

impl JoinKind {
    /// For `explain`.
    pub fn name(self) -> &'static str {
        match self {
            JoinKind::Inner => "inner",
            JoinKind::Left => "left",
            JoinKind::Right => "right",
            JoinKind::Full => "full",
            JoinKind::Semi => "semi",
            JoinKind::Anti => "anti",
        }
    }

    /// Whether rows of a side that have no partner are results.
    pub fn wants_alone(self, side: Side) -> bool {
        match side {
            LEFT => matches!(self, JoinKind::Left | JoinKind::Full | JoinKind::Anti),
            _ => matches!(self, JoinKind::Right | JoinKind::Full),
        }
    }

    /// Whether it must be remembered of a row of this side that it has found a partner.
    pub fn marks(self, side: Side) -> bool {
        self.wants_alone(side) || (self == JoinKind::Semi && side == LEFT)
    }
}

/// Results per batch.
const EMIT_ROWS: usize = 4096;

/// A kernel under a kind of join.
pub struct Matches<N> {
    kind: JoinKind,
    kernel: N,
}

impl<N: PairKernel> Matches<N> {
    /// Of that kind.
    pub fn new(kind: JoinKind, kernel: N) -> Self {
        Matches { kind, kernel }
    }

    /// The kind.
    #[inline]
    pub fn kind(&self) -> JoinKind {
        self.kind
    }

    /// The kernel.
    pub fn kernel(&self) -> &N {
        &self.kernel
    }

    /// The kernel, for pairs that are all of what the kind wants.
    pub(super) fn kernel_mut(&mut self) -> &mut N {
        &mut self.kernel
    }

    /// Two rows of one key meet; whether they belong together. `left_has_partner` is what was remembered of the left one.
    ///
    /// # Errors
    /// Damaged state, or an operator below.
    #[inline]
    pub fn meet(&mut self, left: &[u8], left_has_partner: bool, right: &[u8], time: EventTime, out: &mut Output<'_>) -> Result<bool> {
        if self.kind == JoinKind::Semi && left_has_partner {
            return Ok(true);
        }
        let result = (!matches!(self.kind, JoinKind::Semi | JoinKind::Anti)).then_some(time);
        match self.kernel.pair(left, right, result)? {
            Paired::No => return Ok(false),
            Paired::Yes if self.kind == JoinKind::Semi => self.emit_alone(LEFT, left, time, out)?,
            Paired::Yes => self.flush_full(out)?,
            Paired::Failed(error) => out.reject(None, time, error)?,
        }
        Ok(true)
    }

    /// All rows of one key that may belong together, at once: every left one meets every right one.
    ///
    /// # Errors
    /// As [`meet`](Self::meet).
    pub fn meet_all<'a>(
        &mut self,
        lefts: impl Iterator<Item = &'a [u8]>,
        rights: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
        time: EventTime,
        out: &mut Output<'_>,
    ) -> Result<()> {
        let only_whether = matches!(self.kind, JoinKind::Semi | JoinKind::Anti);
        let mut partners = vec![false; rights.len()];
        for left in lefts {
            let mut has_partner = false;
            for (right, partner) in rights.clone().zip(&mut partners) {
                if self.meet(left, has_partner, right, time, out)? {
                    (has_partner, *partner) = (true, true);
                    if only_whether {
                        break;
                    }
                }
            }
            if !has_partner {
                self.stays_alone(LEFT, left, time, out)?;
            }
        }
        let mut alone = rights.zip(partners).filter(|(_, partner)| !partner);
        alone.try_for_each(|(right, _)| self.stays_alone(RIGHT, right, time, out))
    }

    /// A row will find no partner any more: leaves if the kind says so.
    ///
    /// # Errors
    /// As [`meet`](Self::meet).
    pub fn stays_alone(&mut self, side: Side, row: &[u8], time: EventTime, out: &mut Output<'_>) -> Result<()> {
        if self.kind.wants_alone(side) { self.emit_alone(side, row, time, out) } else { Ok(()) }
    }

    fn emit_alone(&mut self, side: Side, row: &[u8], time: EventTime, out: &mut Output<'_>) -> Result<()> {
        if let Some(error) = self.kernel.alone(side, row, time)? {
            out.reject(None, time, error)?;
        }
        self.flush_full(out)
    }

    #[inline]
    fn flush_full(&mut self, out: &mut Output<'_>) -> Result<()> {
        if self.kernel.results() >= EMIT_ROWS { self.flush(out) } else { Ok(()) }
    }

    /// Emits the results so far.
    ///
    /// # Errors
    /// Of an operator below.
    pub fn flush(&mut self, out: &mut Output<'_>) -> Result<()> {
        if self.kernel.results() == 0 {
            return Ok(());
        }
        out.emit(self.kernel.take()?)
    }
}

/// The side that `row` of the pair is on decides which is left.
#[inline]
pub(super) fn in_order<T>(side: Side, row: T, partner: T) -> (T, T) {
    if side == RIGHT { (partner, row) } else { (row, partner) }
}
