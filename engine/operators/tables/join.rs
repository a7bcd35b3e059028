//! `join_tables`: two tables with the same keys become one.
//!
//! Invariant: the result has a value for each key that the kind asks for, made of the two newest values. A change for which
//! the function fails is rejected and leaves both tables as they were.

use super::{Changes, keys_of};
use crate::error::Result;
use crate::operators::guarded::guarded;
use crate::operators::{Operator, OperatorFactory, Output};
use crate::record::{BatchBox, Data, Key, Rows, downcast};
use crate::state::{PointTable, StateValue, Table};
use std::marker::PhantomData;
use std::sync::Arc;

/// Which keys the result has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableJoinKind {
    /// Those of both.
    Inner,
    /// Those of the left one.
    Left,
    /// Those of either.
    Full,
}

impl TableJoinKind {
    fn has(self, left: bool, right: bool) -> bool {
        match self {
            TableJoinKind::Inner => left && right,
            TableJoinKind::Left => left,
            TableJoinKind::Full => left || right,
        }
    }
}

/// Input 0 are the changes of the left table, input 1 those of the right one. `result(key, left, right)` is the value of a key
/// that the kind asks for.
pub fn join_tables<K: Key, V, W, R>(
    kind: TableJoinKind,
    result: impl Fn(&K, Option<&V>, Option<&W>) -> Option<R> + Send + Sync + 'static,
) -> OperatorFactory
where
    V: Data + StateValue,
    W: Data + StateValue,
    R: Data,
{
    let result = Arc::new(result);
    Arc::new(move || {
        Box::new(JoinTables {
            kind,
            result: result.clone(),
            left: PointTable::<V>::new("left").with_key(K::kind()),
            right: PointTable::<W>::new("right").with_key(K::kind()),
            slots: (Vec::new(), Vec::new()),
            types: PhantomData::<fn(K) -> R>,
        })
    })
}

struct JoinTables<F, K, V, W, R> {
    kind: TableJoinKind,
    result: Arc<F>,
    left: PointTable<V>,
    right: PointTable<W>,
    slots: (Vec<u32>, Vec<u32>),
    types: PhantomData<fn(K) -> R>,
}

/// Takes changes of `mine` in; `result` and `has` are given the side that changes first.
fn change<K: Key, A: Data + StateValue, B: Data + StateValue, R: Data>(
    batch: Changes<K, A>,
    (mine, my_slots): (&mut PointTable<A>, &mut Vec<u32>),
    (theirs, their_slots): (&mut PointTable<B>, &mut Vec<u32>),
    result: impl Fn(&K, Option<&A>, Option<&B>) -> Option<R>,
    has: impl Fn(bool, bool) -> bool,
    out: &mut Output<'_>,
) -> Result<()> {
    mine.resolve(keys_of(&batch), my_slots)?;
    theirs.resolve(keys_of(&batch), their_slots)?;
    let Rows { rows, times, keys, origins } = batch;
    let n = rows.len();
    let mut rows = rows.into_iter();
    let mut results: (Vec<(K, Option<R>)>, Vec<u32>) = (Vec::with_capacity(n), Vec::with_capacity(n));
    let each = |(changes, from): &mut (Vec<(K, Option<R>)>, Vec<u32>), i: usize| {
        let Some((key, value)) = rows.next() else { return Ok(()) };
        let other = theirs.get(their_slots[i]);
        let had = has(mine.get(my_slots[i]).is_some(), other.is_some());
        let now = has(value.is_some(), other.is_some());
        // Before anything changes, because it may fail.
        let joined = if now { result(&key, value.as_ref(), other) } else { None };
        match value {
            Some(value) => drop(mine.insert(my_slots[i], value)),
            None => drop(mine.remove(my_slots[i])),
        }
        if now || had {
            changes.push((key, joined));
            from.push(i as u32);
        }
        Ok(())
    };
    guarded(n, &mut results, each, |_, i, error| out.reject(origins.as_ref().map(|o| o.0[i].clone()), times[i], error))?;
    let (rows, from) = results;
    let times = from.iter().map(|&i| times[i as usize]).collect();
    let (keys, origins) = (keys.map(|keys| keys.gather(&from)), origins.map(|o| o.gather(&from)));
    out.emit(Rows { rows, times, keys, origins }.boxed())
}

impl<F, K, V, W, R> Operator for JoinTables<F, K, V, W, R>
where
    K: Key,
    V: Data + StateValue,
    W: Data + StateValue,
    R: Data,
    F: Fn(&K, Option<&V>, Option<&W>) -> Option<R> + Send + Sync + 'static,
{
    fn tables(&mut self) -> Vec<&mut dyn Table> {
        vec![&mut self.left, &mut self.right]
    }

    fn on_batch(&mut self, input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let (kind, f) = (self.kind, self.result.clone());
        let left = (&mut self.left, &mut self.slots.0);
        let right = (&mut self.right, &mut self.slots.1);
        match input {
            0 => change::<K, V, W, R>(downcast(batch), left, right, |k, v, w| f(k, v, w), |v, w| kind.has(v, w), out),
            _ => change::<K, W, V, R>(downcast(batch), right, left, |k, w, v| f(k, v, w), |w, v| kind.has(v, w), out),
        }
    }
}
