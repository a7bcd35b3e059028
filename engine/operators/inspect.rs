//! `inspect`: looks at each row and passes it on unchanged.
//!
//! Invariant: rows, keys, times and origins stay; only a row for which the function panics is taken out (rejected).

use super::filter::select;
use super::{Operator, OperatorFactory, Output};
use crate::error::Result;
use crate::record::{BatchBox, Data, Rows, downcast};
use std::marker::PhantomData;
use std::sync::Arc;

/// Calls `f` with each row. After a restart it sees rows again: not for exactly-once effects.
pub fn inspect<T: Data>(f: impl Fn(&T) + Send + Sync + 'static) -> OperatorFactory {
    let f = Arc::new(f);
    Arc::new(move || Box::new(Inspect { f: f.clone(), types: PhantomData }))
}

struct Inspect<F, T> {
    f: Arc<F>,
    types: PhantomData<fn(T)>,
}

impl<T: Data, F: Fn(&T) + Send + Sync + 'static> Operator for Inspect<F, T> {
    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let seen = select(downcast::<Rows<T>>(batch), out, |row| {
            (self.f)(row);
            true
        })?;
        out.emit(seen.boxed())
    }
}
