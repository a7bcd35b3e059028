//! `key_by`: computes the key column of a batch; the rows stay what they are.
//!
//! Invariant: what follows (exchange, keyed operators) sees only the canonical key bytes and their frozen hash.

use super::guarded::{guarded, retain};
use super::{Operator, OperatorFactory, Output};
use crate::error::Result;
use crate::record::{BatchBox, Data, Key, Keys, Rows, downcast};
use std::marker::PhantomData;
use std::sync::Arc;

/// Gives each row the key that `f` takes from it. A row for which `f` panics is rejected.
pub fn key_by<T: Data, K: Key>(f: impl Fn(&T) -> K + Send + Sync + 'static) -> OperatorFactory {
    let f = Arc::new(f);
    Arc::new(move || Box::new(KeyBy { f: f.clone(), types: PhantomData::<fn(T) -> K> }))
}

struct KeyBy<F, T, K> {
    f: Arc<F>,
    types: PhantomData<fn(T) -> K>,
}

impl<T: Data, K: Key, F: Fn(&T) -> K + Send + Sync + 'static> Operator for KeyBy<F, T, K> {
    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let mut batch = downcast::<Rows<T>>(batch);
        batch.keys = None;
        let n = batch.rows.len();
        let mut keys: Vec<K> = Vec::with_capacity(n);
        let mut keep = Vec::new();
        let each = |keys: &mut Vec<K>, i: usize| {
            keys.push((self.f)(&batch.rows[i]));
            Ok(())
        };
        guarded(n, &mut keys, each, |_, i, error| {
            keep.resize(n, true);
            keep[i] = false;
            out.reject(batch.origin(i), batch.times[i], error)
        })?;
        if !keep.is_empty() {
            batch = retain(batch, &keep);
        }
        batch.keys = Some(Keys::encode(keys.into_iter()));
        out.emit(batch.boxed())
    }
}
