//! `top_n`: the first rows of each key in some order, as a table by key and rank; `latest`: the newest row of each key.
//!
//! Invariant: after any batch, the ranks 1 to n of a key hold its first n rows so far, ties in the order of arrival. Ranks are
//! never removed, because rows of a stream are not. Changes of a key leave once a batch, from the first rank that changed on.

use crate::error::Result;
use crate::operators::guarded::guarded;
use crate::operators::{Operator, OperatorFactory, Output};
use crate::record::{BatchBox, Data, Key, Keys, Rows, downcast};
use crate::state::{PointTable, StateValue, Table};
use crate::time::EventTime;
use std::cmp::Ordering;
use std::marker::PhantomData;
use std::sync::Arc;

/// `Rows<T>` keyed by `K` in, changes of a table with keys `(K, rank)` out; ranks begin at 1. A row for which `order` panics is
/// rejected.
pub fn top_n<K: Key, T: Data + StateValue>(n: usize, order: impl Fn(&T, &T) -> Ordering + Send + Sync + 'static) -> OperatorFactory {
    let order = Arc::new(order);
    Arc::new(move || {
        Box::new(TopN {
            n,
            order: order.clone(),
            table: PointTable::<Vec<T>>::new("first").with_key(K::kind()),
            slots: Vec::new(),
            key: PhantomData::<fn(K)>,
        })
    })
}

struct TopN<F, K, T> {
    n: usize,
    order: Arc<F>,
    table: PointTable<Vec<T>>,
    slots: Vec<u32>,
    key: PhantomData<fn(K)>,
}

/// A key whose ranks changed in this batch.
struct Changed {
    slot: u32,
    /// Its first row.
    row: usize,
    /// 0-based.
    first_rank: usize,
    time: EventTime,
}

impl<F, K, T> Operator for TopN<F, K, T>
where
    K: Key,
    T: Data + StateValue,
    F: Fn(&T, &T) -> Ordering + Send + Sync + 'static,
{
    fn tables(&mut self) -> Vec<&mut dyn Table> {
        vec![&mut self.table]
    }

    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let batch = downcast::<Rows<T>>(batch);
        let Some(keys) = &batch.keys else { unreachable!("plan bug: a top-n needs a keyed stream") };
        self.table.resolve(keys, &mut self.slots)?;
        let (n, order, slots, table) = (self.n, &self.order, &self.slots, &mut self.table);
        let mut changed: Vec<Changed> = Vec::new();
        let each = |changed: &mut Vec<Changed>, i: usize| {
            let (slot, row) = (slots[i], &batch.rows[i]);
            let first = table.get(slot).map_or(&[][..], |rows| rows);
            // Most rows are behind the last one: they change nothing.
            let is_behind = first.len() == n && first.last().is_none_or(|last| order(last, row).is_le());
            if is_behind {
                return Ok(());
            }
            let rank = first.partition_point(|other| order(other, row).is_le());
            let rows = table.get_mut(slot).get_or_insert_default();
            rows.insert(rank, row.clone());
            rows.truncate(n);
            changed.push(Changed { slot, row: i, first_rank: rank, time: batch.times[i] });
            Ok(())
        };
        guarded(batch.rows.len(), &mut changed, each, |_, i, error| out.reject(batch.origin(i), batch.times[i], error))?;

        // One entry a key, in the order of the keys' first changes.
        let mut places = std::collections::BTreeMap::<u32, usize>::new();
        let mut merged: Vec<Changed> = Vec::new();
        for change in changed {
            match places.get(&change.slot) {
                Some(&at) => {
                    let known: &mut Changed = &mut merged[at];
                    known.first_rank = known.first_rank.min(change.first_rank);
                    known.time = known.time.max(change.time);
                }
                None => {
                    places.insert(change.slot, merged.len());
                    merged.push(change);
                }
            }
        }
        let (mut changes, mut ranked) = (Rows::default(), Vec::new());
        for Changed { slot, row, first_rank, time } in merged {
            let key = K::decode(&mut keys.bytes(row, &mut [0; 8]))?;
            for (rank, row) in self.table.get(slot).into_iter().flatten().enumerate().skip(first_rank) {
                let key = (key.clone(), rank as u32 + 1);
                ranked.push(key.clone());
                changes.push((key, Some(row.clone())), time, None);
            }
        }
        changes.keys = Some(Keys::encode(ranked.into_iter()));
        out.emit(changes.boxed())
    }
}

/// `Rows<T>` keyed by `K` in, changes of the table of the newest row of each key out. Without state.
pub fn latest<K: Key, T: Data>() -> OperatorFactory {
    Arc::new(|| Box::new(Latest { types: PhantomData::<fn(K, T)> }))
}

struct Latest<K, T> {
    types: PhantomData<fn(K, T)>,
}

impl<K: Key, T: Data> Operator for Latest<K, T> {
    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let Rows { rows, times, keys, origins } = downcast::<Rows<T>>(batch);
        let Some(keys) = keys else { unreachable!("plan bug: the newest of each key needs a keyed stream") };
        let mut changes = Vec::with_capacity(rows.len());
        for (i, row) in rows.into_iter().enumerate() {
            changes.push((K::decode(&mut keys.bytes(i, &mut [0; 8]))?, Some(row)));
        }
        out.emit(Rows { rows: changes, times, keys: Some(keys), origins }.boxed())
    }
}
