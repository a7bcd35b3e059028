//! `filter`: keeps the rows a predicate accepts.
//!
//! Invariant: kept rows are moved, never cloned; keys, times and origins stay with them.

use super::guarded::{guarded, retain};
use super::{Operator, OperatorFactory, Output};
use crate::error::Result;
use crate::record::{BatchBox, Data, Rows, downcast};
use std::marker::PhantomData;
use std::sync::Arc;

/// Keeps the rows for which `predicate` is true. A row for which it panics is rejected.
pub fn filter<T: Data>(predicate: impl Fn(&T) -> bool + Send + Sync + 'static) -> OperatorFactory {
    let predicate = Arc::new(predicate);
    Arc::new(move || Box::new(Filter { predicate: predicate.clone(), types: PhantomData }))
}

struct Filter<F, T> {
    predicate: Arc<F>,
    types: PhantomData<fn(T)>,
}

impl<T: Data, F: Fn(&T) -> bool + Send + Sync + 'static> Operator for Filter<F, T> {
    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let batch = downcast::<Rows<T>>(batch);
        let kept = select(batch, out, |row| (self.predicate)(row))?;
        out.emit(kept.boxed())
    }
}

/// The rows that `accept` takes; those for which it panics are rejected.
pub(crate) fn select<T: Data>(batch: Rows<T>, out: &mut Output<'_>, accept: impl Fn(&T) -> bool) -> Result<Rows<T>> {
    let n = batch.rows.len();
    let mut keep: Vec<bool> = Vec::with_capacity(n);
    let each = |keep: &mut Vec<bool>, i: usize| {
        let accepted = accept(&batch.rows[i]);
        keep.push(accepted);
        Ok(())
    };
    guarded(n, &mut keep, each, |keep, i, error| {
        keep.push(false);
        out.reject(batch.origin(i), batch.times[i], error)
    })?;
    Ok(retain(batch, &keep))
}
