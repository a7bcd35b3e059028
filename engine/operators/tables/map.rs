//! `map_table`: turns each value of a table into another one, or leaves its key out. Without state.
//!
//! Invariant: keys, times, origins and order stay; a change whose function fails is rejected, so that its key keeps the value
//! it had.

use super::Changes;
use crate::error::Result;
use crate::operators::guarded::{guarded, retain};
use crate::operators::{Operator, OperatorFactory, Output};
use crate::record::{BatchBox, Data, Key, Rows, downcast};
use std::marker::PhantomData;
use std::sync::Arc;

/// `f(key, value)` is the new value; `None` leaves the key out, and removes it if it was there.
pub fn map_table<K: Key, V: Data, W: Data>(f: impl Fn(&K, V) -> Option<W> + Send + Sync + 'static) -> OperatorFactory {
    let f = Arc::new(f);
    Arc::new(move || Box::new(MapTable { f: f.clone(), types: PhantomData::<fn(K, V) -> W> }))
}

struct MapTable<F, K, V, W> {
    f: Arc<F>,
    types: PhantomData<fn(K, V) -> W>,
}

impl<K: Key, V: Data, W: Data, F: Fn(&K, V) -> Option<W> + Send + Sync + 'static> Operator for MapTable<F, K, V, W> {
    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let Rows { rows, times, keys, origins } = downcast::<Changes<K, V>>(batch);
        let n = rows.len();
        let (mut rows, mut keep) = (rows.into_iter(), Vec::new());
        // A failing row has a placeholder until it is taken out.
        let mut mapped: Vec<Option<(K, Option<W>)>> = Vec::with_capacity(n);
        let each = |mapped: &mut Vec<Option<(K, Option<W>)>>, _: usize| {
            if let Some((key, value)) = rows.next() {
                let value = value.and_then(|value| (self.f)(&key, value));
                mapped.push(Some((key, value)));
            }
            Ok(())
        };
        guarded(n, &mut mapped, each, |mapped, i, error| {
            mapped.push(None);
            keep.resize(n, true);
            keep[i] = false;
            out.reject(origins.as_ref().map(|o| o.0[i].clone()), times[i], error)
        })?;
        let mut batch = Rows { rows: mapped, times, keys, origins };
        if !keep.is_empty() {
            batch = retain(batch, &keep);
        }
        let Rows { rows, times, keys, origins } = batch;
        out.emit(Rows { rows: rows.into_iter().flatten().collect(), times, keys, origins }.boxed())
    }
}
