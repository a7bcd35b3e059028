//! What looks inside the rows of an OVER window: codec, aggregate, result.
//!
//! Invariant: equal calls, equal results; a kernel keeps nothing but the results that wait to be emitted, and what it noted of
//! the batch that [`begin`](OverKernel::begin) showed it.

use crate::error::Result;
use crate::operators::Output;
use crate::operators::columnar::RowError;
use crate::record::{Batch, BatchBox};
use crate::state::StateValue;
use crate::time::EventTime;
use std::cmp::Ordering;

/// How a call that looks inside rows went: an error costs the row that it was for.
pub type Called = Result<(), String>;

/// Where a row is among its peers, the rows of its key and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// From 0.
    pub index: usize,
    /// How many of its peers are in its frame, the row included.
    pub peers: usize,
}

/// See the module's header. One per task; an accumulator may hold many aggregates, one a column.
///
/// Over frames that move on (a number of rows, a span of time) accumulators are put together: `merge` of two equals folding
/// the rows of both, the earlier first. Over all rows so far only `fold` is called.
pub trait OverKernel: Send + 'static {
    /// What is computed of a frame, before it is a result.
    type Acc: StateValue + Clone;

    /// Refuses rows or accumulators that cannot be kept in state.
    ///
    /// # Errors
    /// They cannot be read back.
    fn check(&self) -> Result<()>;
    /// Codec and schema of encoded rows, as text.
    fn schema(&self) -> String;
    /// Says what is computed, so that state of another query is refused; nothing where the types say it.
    fn describe(&self) -> String;
    /// Looks at a batch before its rows are encoded. Rows that cannot be are pushed to `failed`, in order; they are not asked
    /// for.
    ///
    /// # Errors
    /// Stops the task; never for the sake of a single row.
    fn begin(&mut self, _batch: &dyn Batch, _failed: &mut Vec<RowError>) -> Result<()> {
        Ok(())
    }
    /// Appends all of row `row` that aggregates and result need. A panic costs the row.
    fn encode(&self, batch: &dyn Batch, row: usize, out: &mut Vec<u8>);
    /// The order of encoded peers; equal ones are in the order of arrival.
    fn compare(&self, _a: &[u8], _b: &[u8]) -> Ordering {
        Ordering::Equal
    }
    /// The accumulator of no rows.
    fn create(&self) -> Self::Acc;
    /// Takes a later row in. What a row that fails has changed is undone where the frame moves on, and stays in an
    /// accumulator of all rows.
    ///
    /// # Errors
    /// A row that does not decode: damaged state.
    fn fold(&self, acc: &mut Self::Acc, row: &[u8], time: EventTime) -> Result<Called>;
    /// Takes the rows of a later accumulator in.
    ///
    /// # Errors
    /// The results that need it are rejected.
    fn merge(&self, acc: &mut Self::Acc, later: &Self::Acc) -> Called;
    /// Makes the result of a row from the accumulator of its frame, the row and its peers inside (without later peers where
    /// rows count one by one).
    ///
    /// # Errors
    /// A row that does not decode: damaged state.
    fn emit(&mut self, row: &[u8], acc: &Self::Acc, place: Place, time: EventTime) -> Result<Called>;
    /// Whether [`finish`](Self::finish) is to be called; only over all rows so far.
    fn finishes(&self) -> bool {
        false
    }
    /// The input has ended: makes the results that rows of a key still waited for.
    ///
    /// # Errors
    /// Damaged state.
    fn finish(&mut self, _acc: &Self::Acc, _time: EventTime) -> Result<Called> {
        Ok(Ok(()))
    }
    /// Results that wait.
    fn results(&self) -> usize;
    /// Takes them.
    ///
    /// # Errors
    /// Of Arrow, for columns beyond its limits.
    fn take(&mut self) -> Result<BatchBox>;
}

/// Results per batch.
const EMIT_ROWS: usize = 4096;

/// A kernel, and the way of its results out.
pub(super) struct Results<K>(K);

impl<K: OverKernel> Results<K> {
    pub(super) fn new(kernel: K) -> Self {
        Results(kernel)
    }

    pub(super) fn kernel(&self) -> &K {
        &self.0
    }

    pub(super) fn kernel_mut(&mut self) -> &mut K {
        &mut self.0
    }

    /// Emits a row's result, or rejects the row.
    pub(super) fn emit(
        &mut self,
        row: &[u8],
        acc: Result<&K::Acc, &String>,
        place: Place,
        time: EventTime,
        out: &mut Output<'_>,
    ) -> Result<()> {
        let done = match acc {
            Ok(acc) => self.0.emit(row, acc, place, time)?,
            Err(error) => Err(error.clone()),
        };
        self.done(done, time, out)
    }

    /// Emits what rows of a key waited for.
    pub(super) fn finish(&mut self, acc: &K::Acc, time: EventTime, out: &mut Output<'_>) -> Result<()> {
        let done = self.0.finish(acc, time)?;
        self.done(done, time, out)
    }

    fn done(&mut self, done: Called, time: EventTime, out: &mut Output<'_>) -> Result<()> {
        if let Err(error) = done {
            out.reject(None, time, error)?;
        }
        if self.0.results() >= EMIT_ROWS { self.flush(out) } else { Ok(()) }
    }

    /// Emits the results so far.
    pub(super) fn flush(&mut self, out: &mut Output<'_>) -> Result<()> {
        if self.0.results() == 0 {
            return Ok(());
        }
        out.emit(self.0.take()?)
    }
}
