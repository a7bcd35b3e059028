//! `map`, `try_map`: one row in, one row out.
//!
//! Invariant: order, times and origins stay; keys do not, because the new row may have another one.

use super::guarded::{Columns, guarded};
use super::{Operator, OperatorFactory, Output};
use crate::error::Result;
use crate::record::{BatchBox, Data, Rows, downcast};
use std::marker::PhantomData;
use std::sync::Arc;

/// Turns each row into another one. A row for which `f` panics is rejected.
pub fn map<T: Data, U: Data>(f: impl Fn(T) -> U + Send + Sync + 'static) -> OperatorFactory {
    try_map(move |row| Ok(f(row)))
}

/// Turns each row into another one; a row for which `f` returns an error or panics is rejected.
pub fn try_map<T: Data, U: Data>(f: impl Fn(T) -> Result<U, String> + Send + Sync + 'static) -> OperatorFactory {
    let f = Arc::new(f);
    Arc::new(move || Box::new(Map { f: f.clone(), types: PhantomData }))
}

struct Map<F, T, U> {
    f: Arc<F>,
    types: PhantomData<fn(T) -> U>,
}

impl<T: Data, U: Data, F> Operator for Map<F, T, U>
where
    F: Fn(T) -> Result<U, String> + Send + Sync + 'static,
{
    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let (rows, columns) = Columns::of(downcast::<Rows<T>>(batch));
        let n = rows.len();
        let mut rows = rows.into_iter();
        let mut mapped = Vec::with_capacity(n);
        let mut rejected = Vec::new();
        let each = |mapped: &mut Vec<U>, _| {
            if let Some(row) = rows.next() {
                mapped.push((self.f)(row)?);
            }
            Ok(())
        };
        guarded(n, &mut mapped, each, |_, i, error| {
            rejected.push(i);
            columns.reject(i, error, out)
        })?;
        if rejected.is_empty() {
            return out.emit(Rows { rows: mapped, times: columns.times, keys: None, origins: columns.origins }.boxed());
        }
        let mut rejected = rejected.into_iter().peekable();
        let from: Vec<u32> = (0..n).filter(|i| rejected.next_if_eq(i).is_none()).map(|i| i as u32).collect();
        out.emit(columns.gather(mapped, &from).boxed())
    }
}
