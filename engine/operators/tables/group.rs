//! Grouping a table by something else than its key, and aggregates that take back what has changed.
//!
//! Two operators with an exchange between them: [`regroup`] knows the old value of each key, and sends what is no more to its
//! old group and what is new to its new one; [`aggregate_groups`] subtracts and adds.
//!
//! Invariant: a group's aggregate is over the rows that the table has now, and a group without rows has none. Whatever comes
//! of one key goes to a group in order, so nothing is taken back before it was given. A row for which `add` or `subtract`
//! fails is rejected; it still counts as a row of its group.

use super::{Changes, keys_of};
use crate::env::{Bug, planted};
use crate::error::Result;
use crate::operators::guarded::{guarded, guarded_call};
use crate::operators::{Operator, OperatorFactory, Output};
use crate::record::{BatchBox, Data, Key, Keys, Origins, Rows, downcast};
use crate::state::{PointTable, StateValue, Table};
use crate::time::EventTime;
use std::marker::PhantomData;
use std::sync::Arc;

/// A row that a group gains or loses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed<V> {
    /// Gained, else lost.
    pub is_addition: bool,
    /// The row.
    pub row: V,
}

/// Changes of a table in, `Rows<Signed<V>>` keyed by group out.
pub fn regroup<K: Key, V: Data + StateValue, G: Key>(group: impl Fn(&K, &V) -> G + Send + Sync + 'static) -> OperatorFactory {
    let group = Arc::new(group);
    Arc::new(move || {
        Box::new(Regroup {
            group: group.clone(),
            table: PointTable::<V>::new("table").with_key(K::kind()),
            slots: Vec::new(),
            types: PhantomData::<fn(K) -> G>,
        })
    })
}

struct Regroup<F, K, V, G> {
    group: Arc<F>,
    table: PointTable<V>,
    slots: Vec<u32>,
    types: PhantomData<fn(K) -> G>,
}

/// What groups gain and lose: their keys, the rows, and which change each stems from.
struct Moves<V, G> {
    groups: Vec<G>,
    rows: Vec<Signed<V>>,
    from: Vec<u32>,
}

impl<V, G> Moves<V, G> {
    fn push(&mut self, group: G, is_addition: bool, row: V, from: usize) {
        self.groups.push(group);
        self.rows.push(Signed { is_addition, row });
        self.from.push(from as u32);
    }
}

impl<F, K, V, G> Operator for Regroup<F, K, V, G>
where
    K: Key,
    V: Data + StateValue,
    G: Key,
    F: Fn(&K, &V) -> G + Send + Sync + 'static,
{
    fn tables(&mut self) -> Vec<&mut dyn Table> {
        vec![&mut self.table]
    }

    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let batch = downcast::<Changes<K, V>>(batch);
        self.table.resolve(keys_of(&batch), &mut self.slots)?;
        let Rows { rows, times, origins, .. } = batch;
        let n = rows.len();
        let mut rows = rows.into_iter();
        let (table, slots, group) = (&mut self.table, &self.slots, &self.group);
        let mut moves = Moves { groups: Vec::with_capacity(n), rows: Vec::with_capacity(n), from: Vec::with_capacity(n) };
        let each = |moves: &mut Moves<V, G>, i: usize| {
            let Some((key, value)) = rows.next() else { return Ok(()) };
            // Before anything changes, because it may fail.
            let new = value.as_ref().map(|value| group(&key, value));
            let old = match value.clone() {
                Some(value) => table.insert(slots[i], value),
                None => table.remove(slots[i]),
            };
            if let Some(old) = old.filter(|_| !planted(Bug::KeepOldGroup)) {
                moves.push(group(&key, &old), false, old, i);
            }
            if let (Some(new), Some(value)) = (new, value) {
                moves.push(new, true, value, i);
            }
            Ok(())
        };
        guarded(n, &mut moves, each, |_, i, error| out.reject(origins.as_ref().map(|o| o.0[i].clone()), times[i], error))?;
        let Moves { groups, rows, from } = moves;
        let times = from.iter().map(|&i| times[i as usize]).collect();
        let origins: Option<Origins> = origins.map(|o| o.gather(&from));
        out.emit(Rows { rows, times, keys: Some(Keys::encode(groups.into_iter())), origins }.boxed())
    }
}

/// An aggregate that can give back what it took.
pub trait Retract: Send + Sync + 'static {
    /// What comes in.
    type Row: Data;
    /// What is kept of a group.
    type Acc: StateValue;
    /// What comes out.
    type Out: Data;

    /// Of no rows.
    fn create(&self) -> Self::Acc;
    /// Takes a row in.
    fn add(&self, acc: &mut Self::Acc, row: &Self::Row);
    /// Takes a row out that was taken in before.
    fn subtract(&self, acc: &mut Self::Acc, row: &Self::Row);
    /// The result.
    fn finish(&self, acc: &Self::Acc) -> Self::Out;
}

/// `Rows<Signed<T::Row>>` keyed by group in, changes of the table of groups out: one a group and batch, in the order of the
/// groups' first rows there, each with the latest event time among its rows.
pub fn aggregate_groups<G: Key, T: Retract>(aggregate: T) -> OperatorFactory {
    let aggregate = Arc::new(aggregate);
    Arc::new(move || {
        Box::new(Groups {
            aggregate: aggregate.clone(),
            table: PointTable::<(i64, T::Acc)>::new("groups").with_key(G::kind()),
            slots: Vec::new(),
            touched: Vec::new(),
            places: Vec::new(),
            key: PhantomData::<fn(G)>,
        })
    })
}

/// A group that rows of this batch touched.
struct Touched {
    slot: u32,
    /// Its first row.
    row: u32,
    time: EventTime,
    existed: bool,
}

struct Groups<G, T: Retract> {
    aggregate: Arc<T>,
    /// Rows of the group, and its accumulator.
    table: PointTable<(i64, T::Acc)>,
    slots: Vec<u32>,
    touched: Vec<Touched>,
    /// By slot: 1 + index into `touched`; 0 = not touched by this batch.
    places: Vec<u32>,
    key: PhantomData<fn(G)>,
}

impl<G: Key, T: Retract> Groups<G, T> {
    fn touch(&mut self, row: usize, time: EventTime) {
        let slot = self.slots[row];
        if self.places.len() <= slot as usize {
            self.places.resize(slot as usize + 1, 0);
        }
        match self.places[slot as usize] {
            0 => {
                let existed = self.table.get(slot).is_some_and(|(rows, _)| *rows > 0);
                self.touched.push(Touched { slot, row: row as u32, time, existed });
                self.places[slot as usize] = self.touched.len() as u32;
            }
            place => {
                let latest = &mut self.touched[place as usize - 1].time;
                *latest = time.max(*latest);
            }
        }
    }
}

impl<G: Key, T: Retract> Operator for Groups<G, T> {
    fn tables(&mut self) -> Vec<&mut dyn Table> {
        vec![&mut self.table]
    }

    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let batch = downcast::<Rows<Signed<T::Row>>>(batch);
        let keys = keys_of(&batch);
        let aggregate = self.aggregate.clone();
        self.table.resolve(keys, &mut self.slots)?;
        let each = |me: &mut &mut Self, i: usize| {
            me.touch(i, batch.times[i]);
            let Signed { is_addition, row } = &batch.rows[i];
            let (rows, acc) = me.table.get_mut(me.slots[i]).get_or_insert_with(|| (0, aggregate.create()));
            if *is_addition {
                *rows += 1;
                aggregate.add(acc, row);
            } else {
                *rows -= 1;
                aggregate.subtract(acc, row);
            }
            Ok(())
        };
        guarded(batch.rows.len(), &mut &mut *self, each, |_, i, error| out.reject(batch.origin(i), batch.times[i], error))?;

        let (mut results, mut from) = (Rows::with_capacity(self.touched.len()), Vec::with_capacity(self.touched.len()));
        for Touched { slot, row, time, existed } in self.touched.drain(..) {
            self.places[slot as usize] = 0;
            let rows = self.table.get(slot).map_or(0, |(rows, _)| *rows);
            let result = match self.table.get(slot).filter(|(rows, _)| *rows > 0) {
                Some((_, acc)) => match guarded_call(|| aggregate.finish(acc)) {
                    Ok(result) => Some(result),
                    Err(error) => {
                        out.reject(None, time, error)?;
                        continue;
                    }
                },
                None if existed => None,
                None => continue,
            };
            if rows == 0 {
                // What rounding errors have left in it goes too.
                self.table.remove(slot);
            }
            let key = G::decode(&mut keys.bytes(row as usize, &mut [0; 8]))?;
            results.push((key, result), time, None);
            from.push(row);
        }
        results.keys = Some(keys.gather(&from));
        out.emit(results.boxed())
    }
}
