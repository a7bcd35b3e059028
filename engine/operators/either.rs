//! `either`: two keyed streams become one whose rows say which they came from.
//!
//! Whatever works on one keyed stream works on two this way: a process function with state and timers that both share, a
//! window over both (a co-group), both in the order of event time.
//!
//! Invariant: rows keep their keys, times and origins; rows of one input keep their order.

use super::{Operator, OperatorFactory, Output};
use crate::error::Result;
use crate::record::{BatchBox, Data, Rows, downcast};
use crate::time::EventTime;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A row of the first or of the second of two connected streams.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Either<A, B> {
    /// Of the first.
    First(A),
    /// Of the second.
    Second(B),
}

impl<A, B> Either<A, B> {
    /// The row, if it is of the first stream.
    pub fn first(&self) -> Option<&A> {
        match self {
            Either::First(row) => Some(row),
            Either::Second(_) => None,
        }
    }

    /// The row, if it is of the second stream.
    pub fn second(&self) -> Option<&B> {
        match self {
            Either::First(_) => None,
            Either::Second(row) => Some(row),
        }
    }
}

/// Input 0 is the first stream, input 1 the second; both keyed by the same type of key.
pub fn either<A: Data, B: Data>() -> OperatorFactory {
    merged::<A, B, _>(|row, _| row)
}

/// As [`either`]; each row with its event time in milliseconds.
pub fn timed_either<A: Data, B: Data>() -> OperatorFactory {
    merged::<A, B, _>(|row, time| (time.0, row))
}

fn merged<A: Data, B: Data, E: Data>(emit: fn(Either<A, B>, EventTime) -> E) -> OperatorFactory {
    Arc::new(move || Box::new(Merge { emit }))
}

struct Merge<A, B, E> {
    /// What leaves of a row.
    emit: fn(Either<A, B>, EventTime) -> E,
}

impl<A: Data, B: Data, E: Data> Operator for Merge<A, B, E> {
    fn on_batch(&mut self, input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let emit = self.emit;
        match input {
            0 => out.emit(each(downcast::<Rows<A>>(batch), |row, time| emit(Either::First(row), time))),
            _ => out.emit(each(downcast::<Rows<B>>(batch), |row, time| emit(Either::Second(row), time))),
        }
    }
}

fn each<T, E: Data>(batch: Rows<T>, emit: impl Fn(T, EventTime) -> E) -> BatchBox {
    let Rows { rows, times, keys, origins } = batch;
    Rows { rows: rows.into_iter().zip(&times).map(|(row, &time)| emit(row, time)).collect(), times, keys, origins }.boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Keys;
    use crate::testing::{Harness, Step};

    #[test]
    fn rows_say_where_they_come_from_and_keep_their_keys() {
        let keyed = |rows: Rows<i64>| Rows { keys: Some(Keys::encode(rows.rows.clone().into_iter())), ..rows };
        let first = keyed(Rows::new(vec![1i64, 2], vec![EventTime(5), EventTime(6)]));
        let second = Rows::new(vec!["x".to_string()], vec![EventTime(7)]);
        let steps = [Step::rows(first.clone()), Step::Batch(1, second.boxed())];
        let out = Harness::in_every_mode(&either::<i64, String>(), 0, &steps, |h| {
            let mut all = h.take::<Either<i64, String>>(0);
            all.sort();
            all
        });
        assert_eq!(out, [(Either::First(1), 5), (Either::First(2), 6), (Either::Second("x".into()), 7)]);
        let mut h = Harness::new(&either::<i64, String>(), 0);
        h.push(0, first.boxed());
        let batch = h.take_batches(Some(0)).remove(0);
        assert_eq!(batch.keys().unwrap().as_u64(), Keys::encode([1i64, 2].into_iter()).as_u64());
    }
}
