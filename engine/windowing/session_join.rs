//! Join of two streams over sessions: the rows of both sides together make the sessions of a key, and all pairs of one
//! session meet when it fires.
//!
//! It is the window operator over both streams at once ([`Together`] keeps the rows of a session, side by side), and behind it
//! [`pair_sides`], which does to each session what the windowed join does to the rows of a key and window. So sessions are
//! those of any window: rows in any order, late ones as there.
//!
//! Invariant: results have the session's last instant as their time and leave by (key bytes, left row, right row), rows by
//! (time, arrival), left rows that stay alone in their place and right ones behind the key's left rows.

use super::kernel::Accumulate;
use crate::error::Result;
use crate::operators::joins::{JoinKind, LEFT, Matches, PairKernel, RIGHT};
use crate::operators::{Either, OpenContext, Operator, OperatorFactory, Output};
use crate::record::{BatchBox, Data, Rows, downcast};
use crate::state::StateValue;
use crate::time::EventTime;
use std::marker::PhantomData;
use std::sync::Arc;

/// A row of either side with its event time in milliseconds.
pub type TimedEither<L, R> = (i64, Either<L, R>);

/// The rows of a session, left and right, with their times.
pub type Sides<L, R> = (Vec<(i64, L)>, Vec<(i64, R)>);

/// Keeps all rows, side by side.
pub struct Together<L, R>(PhantomData<fn(L, R)>);

impl<L, R> Default for Together<L, R> {
    /// The only one there is.
    fn default() -> Self {
        Together(PhantomData)
    }
}

impl<L: Data + StateValue, R: Data + StateValue> Accumulate for Together<L, R> {
    type Row = TimedEither<L, R>;
    type Acc = Sides<L, R>;
    type Out = Sides<L, R>;

    fn create(&self) -> Sides<L, R> {
        (Vec::new(), Vec::new())
    }
    fn accumulate(&self, acc: &mut Sides<L, R>, (time, row): &TimedEither<L, R>) {
        match row {
            Either::First(left) => acc.0.push((*time, left.clone())),
            Either::Second(right) => acc.1.push((*time, right.clone())),
        }
    }
    fn merge(&self, acc: &mut Sides<L, R>, later: &Sides<L, R>) {
        acc.0.extend_from_slice(&later.0);
        acc.1.extend_from_slice(&later.1);
    }
    fn finish(&self, acc: &Sides<L, R>) -> Sides<L, R> {
        let mut sides = acc.clone();
        // Of one time in the order of arrival: rows of one time are never in sessions that were apart.
        sides.0.sort_by_key(|row| row.0);
        sides.1.sort_by_key(|row| row.0);
        sides
    }
}

/// `Rows<Sides<L, R>>` in; what a kind of join makes of the rows of each out, as `kernel` says.
pub fn pair_sides<L, R, N>(kind: JoinKind, kernel: impl Fn() -> N + Send + Sync + 'static) -> OperatorFactory
where
    L: Data + StateValue,
    R: Data + StateValue,
    N: PairKernel,
{
    Arc::new(move || Box::new(PairSides::<L, R, N> { matches: Matches::new(kind, kernel()), rows: PhantomData }))
}

struct PairSides<L, R, N> {
    matches: Matches<N>,
    rows: PhantomData<fn(L, R)>,
}

impl<L: Data + StateValue, R: Data + StateValue, N: PairKernel> Operator for PairSides<L, R, N> {
    fn open(&mut self, _context: &OpenContext) -> Result<()> {
        self.matches.kernel().check()
    }

    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let Rows { rows, times, .. } = downcast::<Rows<Sides<L, R>>>(batch);
        for ((lefts, rights), time) in rows.into_iter().zip(times) {
            let (lefts, rights) = (self.encoded(LEFT, lefts), self.encoded(RIGHT, rights));
            self.matches.meet_all(lefts.iter().map(|row| &row[..]), rights.iter().map(|row| &row[..]), time, out)?;
        }
        self.matches.flush(out)
    }
}

impl<L, R, N: PairKernel> PairSides<L, R, N> {
    /// The rows as the kernel reads them.
    fn encoded<T: Data>(&self, side: usize, rows: Vec<(i64, T)>) -> Vec<Vec<u8>> {
        let times = rows.iter().map(|row| EventTime(row.0)).collect();
        let batch = Rows::new(rows.into_iter().map(|row| row.1).collect(), times);
        let encode = |row| {
            let mut bytes = Vec::new();
            self.matches.kernel().encode(side, &batch, row, &mut bytes);
            bytes
        };
        (0..batch.rows.len()).map(encode).collect()
    }
}
