//! `join_table`: enriches a stream with the latest value per key of a table.
//!
//! Input 0 is the stream, input 1 the table's changes, both keyed by the same key. The table is read in first: until its
//! watermark says that the bootstrap is done, nothing is taken from the stream ([`Operator::only_input`]).
//!
//! Invariant: a row meets the table as it is when the row comes; later changes do not touch rows that went by.

use super::bootstrap::Bootstrap;
use super::guarded::{Columns, guarded};
use super::{Operator, OperatorFactory, Output, Port};
use crate::env::{Bug, planted};
use crate::error::Result;
use crate::record::{BatchBox, Data, Key, Rows, downcast};
use crate::state::{PointTable, StateValue, Table};
use crate::time::EventTime;
use std::marker::PhantomData;
use std::sync::Arc;

/// The input with the stream.
pub const STREAM_INPUT: Port = 0;
/// The input with the table's changes: `Rows<(K, Option<V>)>`, `None` deletes.
pub const TABLE_INPUT: Port = 1;

/// Rows with a table entry become `f(row, entry)`; the others are left out. A row for which `f` panics is rejected.
pub fn join_table<K: Key, T: Data, V: Data + StateValue, R: Data>(f: impl Fn(T, &V) -> R + Send + Sync + 'static) -> OperatorFactory {
    lookup::<K, T, V, R>(move |row, entry| entry.map(|entry| f(row, entry)))
}

/// Every row becomes `f(row, entry)`, whether the table has an entry or not. A row for which `f` panics is rejected.
pub fn left_join_table<K: Key, T: Data, V: Data + StateValue, R: Data>(
    f: impl Fn(T, Option<&V>) -> R + Send + Sync + 'static,
) -> OperatorFactory {
    lookup::<K, T, V, R>(move |row, entry| Some(f(row, entry)))
}

fn lookup<K: Key, T: Data, V: Data + StateValue, R: Data>(
    f: impl Fn(T, Option<&V>) -> Option<R> + Send + Sync + 'static,
) -> OperatorFactory {
    let f = Arc::new(f);
    Arc::new(move || {
        Box::new(JoinTable {
            f: f.clone(),
            table: PointTable::<V>::new("table").with_key(K::kind()),
            slots: Vec::new(),
            bootstrap: Bootstrap::default(),
            types: PhantomData::<fn(K, T) -> R>,
        })
    })
}

struct JoinTable<F, K, T, V, R> {
    f: Arc<F>,
    table: PointTable<V>,
    slots: Vec<u32>,
    bootstrap: Bootstrap,
    types: PhantomData<fn(K, T) -> R>,
}

impl<F, K, T, V, R> JoinTable<F, K, T, V, R>
where
    K: Key,
    T: Data,
    V: Data + StateValue,
    R: Data,
    F: Fn(T, Option<&V>) -> Option<R> + Send + Sync + 'static,
{
    fn change(&mut self, batch: Rows<(K, Option<V>)>) -> Result<()> {
        let Some(keys) = &batch.keys else { unreachable!("plan bug: a table's changes are keyed") };
        self.table.resolve(keys, &mut self.slots)?;
        for (&slot, (_, value)) in self.slots.iter().zip(batch.rows) {
            match value {
                Some(value) => self.table.insert(slot, value),
                None => self.table.remove(slot),
            };
        }
        Ok(())
    }

    fn enrich(&mut self, batch: Rows<T>, out: &mut Output<'_>) -> Result<()> {
        let Some(keys) = &batch.keys else { unreachable!("plan bug: a table join needs a keyed stream") };
        self.table.resolve(keys, &mut self.slots)?;
        let (rows, columns) = Columns::of(batch);
        let n = rows.len();
        let mut rows = rows.into_iter();
        // Results, and for each the row it came from.
        let mut results: (Vec<R>, Vec<u32>) = (Vec::with_capacity(n), Vec::with_capacity(n));
        let each = |(joined, from): &mut (Vec<R>, Vec<u32>), i: usize| {
            if let Some(row) = rows.next()
                && let Some(result) = (self.f)(row, self.table.get(self.slots[i]))
            {
                joined.push(result);
                from.push(i as u32);
            }
            Ok(())
        };
        guarded(n, &mut results, each, |_, i, error| columns.reject(i, error, out))?;
        out.emit(columns.gather(results.0, &results.1).boxed())
    }
}

impl<F, K, T, V, R> Operator for JoinTable<F, K, T, V, R>
where
    K: Key,
    T: Data,
    V: Data + StateValue,
    R: Data,
    F: Fn(T, Option<&V>) -> Option<R> + Send + Sync + 'static,
{
    fn tables(&mut self) -> Vec<&mut dyn Table> {
        vec![&mut self.table]
    }

    fn on_batch(&mut self, input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        match input {
            TABLE_INPUT => self.change(downcast(batch)),
            _ => self.enrich(downcast(batch), out),
        }
    }

    fn on_input_watermark(&mut self, input: usize, time: EventTime) {
        self.bootstrap.on_input_watermark(input, time);
    }

    fn only_input(&self) -> Option<usize> {
        if planted(Bug::SkipBootstrap) { None } else { self.bootstrap.only_input() }
    }

    fn save(&mut self) -> Vec<u8> {
        self.bootstrap.save()
    }

    fn restore(&mut self, blobs: &[Vec<u8>]) -> Result<()> {
        self.bootstrap = Bootstrap::restore(blobs)?;
        Ok(())
    }
}
