//! `aggregate`, `reduce`: one running value per key, over the whole stream so far.
//!
//! Invariant: after any batch, the newest result of a key is the aggregate of all its accepted rows. Results are emitted once
//! per key and batch, in the order of the keys' first rows there, so their number depends on how rows were batched: what
//! consumes them keeps the newest (an upsert).

use super::guarded::{guarded, guarded_call};
use super::{Operator, OperatorFactory, Output};
use crate::error::Result;
use crate::record::{BatchBox, Data, Key, Rows, downcast};
use crate::state::{PointTable, StateValue, Table};
use crate::time::EventTime;
use std::marker::PhantomData;
use std::sync::Arc;

/// Keyed running aggregate: `Rows<T>` with keys of type `K` in, `Rows<(K, R)>` out, each with the latest event time among the
/// rows it stems from. A row for which `accumulate` panics is rejected; what it had changed in the accumulator stays.
pub fn aggregate<K: Key, T: Data, A: StateValue, R: Data>(
    create: impl Fn() -> A + Send + Sync + 'static,
    accumulate: impl Fn(&mut A, &T) + Send + Sync + 'static,
    finish: impl Fn(&A) -> R + Send + Sync + 'static,
) -> OperatorFactory {
    let update = move |value: &mut Option<A>, row: &T| accumulate(value.get_or_insert_with(&create), row);
    running::<K, T, A, R>(update, finish)
}

/// Keyed running reduction: `combine(so_far, row)`; the first row of a key is its first value. `Rows<(K, T)>` out, see
/// [`aggregate`]. A row for which `combine` panics is rejected and changes nothing.
pub fn reduce<K: Key, T: Data + StateValue>(combine: impl Fn(&T, &T) -> T + Send + Sync + 'static) -> OperatorFactory {
    let update = move |value: &mut Option<T>, row: &T| {
        *value = Some(match &*value {
            None => row.clone(),
            Some(so_far) => combine(so_far, row),
        });
    };
    running::<K, T, T, T>(update, T::clone)
}

fn running<K: Key, T: Data, A: StateValue, R: Data>(
    update: impl Fn(&mut Option<A>, &T) + Send + Sync + 'static,
    finish: impl Fn(&A) -> R + Send + Sync + 'static,
) -> OperatorFactory {
    let functions = Arc::new((update, finish));
    Arc::new(move || {
        Box::new(Running {
            functions: functions.clone(),
            table: PointTable::<A>::new("values").with_key(K::kind()),
            slots: Vec::new(),
            touched: Vec::new(),
            places: Vec::new(),
            types: PhantomData::<fn(K, T) -> R>,
        })
    })
}

struct Running<U, F, K, T, A, R> {
    functions: Arc<(U, F)>,
    table: PointTable<A>,
    slots: Vec<u32>,
    /// Slots of this batch in order of their first row: slot, that row, latest time.
    touched: Vec<(u32, u32, EventTime)>,
    /// By slot: 1 + index into `touched`; 0 = not touched by this batch.
    places: Vec<u32>,
    types: PhantomData<fn(K, T) -> R>,
}

impl<U, F, K, T, A: StateValue, R> Running<U, F, K, T, A, R> {
    fn touch(&mut self, row: usize, time: EventTime) {
        let slot = self.slots[row];
        if self.places.len() <= slot as usize {
            self.places.resize(slot as usize + 1, 0);
        }
        match self.places[slot as usize] {
            0 => {
                self.touched.push((slot, row as u32, time));
                self.places[slot as usize] = self.touched.len() as u32;
            }
            place => {
                let latest = &mut self.touched[place as usize - 1].2;
                *latest = time.max(*latest);
            }
        }
    }
}

impl<U, F, K, T, A, R> Operator for Running<U, F, K, T, A, R>
where
    K: Key,
    T: Data,
    A: StateValue,
    R: Data,
    U: Fn(&mut Option<A>, &T) + Send + Sync + 'static,
    F: Fn(&A) -> R + Send + Sync + 'static,
{
    fn tables(&mut self) -> Vec<&mut dyn Table> {
        vec![&mut self.table]
    }

    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let batch = downcast::<Rows<T>>(batch);
        let Some(keys) = &batch.keys else { unreachable!("plan bug: an aggregate needs a keyed stream") };
        let functions = self.functions.clone();
        let (update, finish) = &*functions;
        self.table.resolve(keys, &mut self.slots)?;
        let each = |me: &mut &mut Self, i: usize| {
            update(me.table.get_mut(me.slots[i]), &batch.rows[i]);
            me.touch(i, batch.times[i]);
            Ok(())
        };
        guarded(batch.rows.len(), &mut &mut *self, each, |_, i, error| out.reject(batch.origin(i), batch.times[i], error))?;

        let mut results = Rows::with_capacity(self.touched.len());
        for (slot, row, time) in self.touched.drain(..) {
            self.places[slot as usize] = 0;
            let Some(value) = self.table.get(slot) else { continue };
            let mut scratch = [0; 8];
            let key = K::decode(&mut keys.bytes(row as usize, &mut scratch))?;
            match guarded_call(|| finish(value)) {
                Ok(result) => results.push((key, result), time, None),
                Err(error) => out.reject(None, time, error)?,
            }
        }
        out.emit(results.boxed())
    }
}
