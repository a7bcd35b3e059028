//! `to_raw`: encodes typed rows as records for a sink.
//!
//! Invariant: a row that cannot be encoded is rejected and leaves no record behind, not even one it had appended before it
//! failed.

use super::guarded::{Columns, guarded};
use super::{Operator, OperatorFactory, Output};
use crate::error::Result;
use crate::record::{Batch, BatchBox, Data, RawBatch, Rows, downcast};
use crate::time::EventTime;
use std::marker::PhantomData;
use std::sync::Arc;

/// Appends the records of each row with `encode`: usually one, none to leave the row out, several where a row is written to
/// several topics.
pub fn to_raw<T: Data>(encode: impl Fn(&T, EventTime, &mut RawBatch) -> Result<(), String> + Send + Sync + 'static) -> OperatorFactory {
    let encode = Arc::new(encode);
    Arc::new(move || Box::new(ToRaw { encode: encode.clone(), record_bytes: 64, types: PhantomData }))
}

struct ToRaw<F, T> {
    encode: Arc<F>,
    /// Bytes a record took so far, to size the next arena.
    record_bytes: usize,
    types: PhantomData<fn(T)>,
}

impl<T: Data, F> Operator for ToRaw<F, T>
where
    F: Fn(&T, EventTime, &mut RawBatch) -> Result<(), String> + Send + Sync + 'static,
{
    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let (rows, columns) = Columns::of(downcast::<Rows<T>>(batch));
        // The records, and how many of them belong to rows that are done.
        let mut state = (RawBatch::with_capacity(rows.len(), rows.len() * self.record_bytes), 0);
        let each = |(raw, done): &mut (RawBatch, usize), i: usize| {
            (self.encode)(&rows[i], columns.times[i], raw)?;
            *done = raw.len();
            Ok(())
        };
        guarded(rows.len(), &mut state, each, |(raw, done), i, error| {
            if raw.len() > *done {
                *raw = first_records(raw, *done);
            }
            columns.reject(i, error, out)
        })?;
        let raw = state.0;
        if !raw.is_empty() {
            self.record_bytes = raw.data_len().div_ceil(raw.len());
        }
        out.emit(Box::new(raw))
    }
}

fn first_records(raw: &RawBatch, n: usize) -> RawBatch {
    let mut kept = RawBatch::with_capacity(n, raw.data_len());
    raw.records().take(n).for_each(|r| kept.push(r));
    kept
}
