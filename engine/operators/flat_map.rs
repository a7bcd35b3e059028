//! `flat_map`, `filter_map`: one row in, any number of rows out.
//!
//! Invariant: results carry time and origin of the row they came from, in its place; a row that fails midway leaves none.

use super::guarded::{Columns, guarded};
use super::{Operator, OperatorFactory, Output};
use crate::error::Result;
use crate::record::{BatchBox, Data, Rows, downcast};
use std::marker::PhantomData;
use std::sync::Arc;

/// Turns each row into any number of rows. A row for which `f`, or the iterator it returns, panics is rejected whole.
pub fn flat_map<T: Data, U: Data, I>(f: impl Fn(T) -> I + Send + Sync + 'static) -> OperatorFactory
where
    I: IntoIterator<Item = U> + 'static,
{
    let f = Arc::new(f);
    Arc::new(move || Box::new(FlatMap { f: f.clone(), types: PhantomData::<fn(T) -> (U, I)> }))
}

/// Turns each row into another one or none. A row for which `f` panics is rejected.
pub fn filter_map<T: Data, U: Data>(f: impl Fn(T) -> Option<U> + Send + Sync + 'static) -> OperatorFactory {
    flat_map(f)
}

struct FlatMap<F, T, U, I> {
    f: Arc<F>,
    types: PhantomData<fn(T) -> (U, I)>,
}

impl<T: Data, U: Data, I, F> Operator for FlatMap<F, T, U, I>
where
    I: IntoIterator<Item = U> + 'static,
    F: Fn(T) -> I + Send + Sync + 'static,
{
    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let (rows, columns) = Columns::of(downcast::<Rows<T>>(batch));
        let n = rows.len();
        let mut rows = rows.into_iter();
        // Results, and for each the row it came from.
        let mut results: (Vec<U>, Vec<u32>) = (Vec::with_capacity(n), Vec::with_capacity(n));
        let each = |(made, from): &mut (Vec<U>, Vec<u32>), i: usize| {
            if let Some(row) = rows.next() {
                for result in (self.f)(row) {
                    made.push(result);
                    from.push(i as u32);
                }
            }
            Ok(())
        };
        guarded(n, &mut results, each, |(made, from), i, error| {
            let before = from.partition_point(|&f| (f as usize) < i);
            made.truncate(before);
            from.truncate(before);
            columns.reject(i, error, out)
        })?;
        let (made, from) = results;
        out.emit(columns.gather(made, &from).boxed())
    }
}
