//! `dedup_by`: the first row of an id passes, its repeats within a span of event time are dropped and counted.
//!
//! Invariant: a row repeats another when their ids are equal and their event times are less than `ttl` apart. An id is
//! forgotten when the watermark has passed first time + `ttl`: rows that are not late are judged the same either way, so the
//! result does not depend on when the watermark came.

use super::guarded::retain;
use super::{OpenContext, Operator, OperatorFactory, Output};
use crate::env::{Bug, planted};
use crate::error::Result;
use crate::observe::{Counter, DUPLICATES};
use crate::record::{BatchBox, Data, Key, Keys, Rows, downcast};
use crate::state::{SeenTable, Table};
use crate::time::{EventTime, millis};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// Drops repeats; the stream is keyed by the id. Keys, times and origins stay with the rows that pass.
pub fn dedup_by<K: Key, T: Data>(ttl: Duration) -> OperatorFactory {
    let ttl = millis(ttl);
    Arc::new(move || {
        let seen = SeenTable::new("seen", ttl).with_key(K::kind());
        Box::new(Dedup::<T> { ttl, seen, duplicates: Counter::default(), types: PhantomData })
    })
}

struct Dedup<T> {
    ttl: i64,
    /// Event time of the row that passed.
    seen: SeenTable,
    duplicates: Counter,
    types: PhantomData<fn(T)>,
}

impl<T> Dedup<T> {
    fn is_first(&mut self, keys: &Keys, row: usize, time: EventTime) -> bool {
        match self.seen.get(keys, row) {
            Some(first) if time.0.abs_diff(first.0) < self.ttl.unsigned_abs() => false,
            // A row from long before the one that is remembered: the later one goes on standing for the id.
            Some(first) if time < first => true,
            _ => {
                self.seen.insert(keys, row, time);
                true
            }
        }
    }
}

impl<T: Data> Operator for Dedup<T> {
    fn open(&mut self, context: &OpenContext) -> Result<()> {
        self.duplicates = context.metrics.counter(DUPLICATES, context.operator.as_str(), context.index);
        Ok(())
    }

    fn tables(&mut self) -> Vec<&mut dyn Table> {
        vec![&mut self.seen]
    }

    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let batch = downcast::<Rows<T>>(batch);
        let Some(keys) = &batch.keys else { unreachable!("plan bug: dedup needs a stream keyed by the id") };
        self.seen.resolve(keys)?;
        let keep: Vec<bool> = batch.times.iter().enumerate().map(|(row, &time)| self.is_first(keys, row, time)).collect();
        self.duplicates.add(keep.iter().filter(|keep| !**keep).count() as u64);
        out.emit(retain(batch, &keep).boxed())
    }

    fn on_watermark(&mut self, time: EventTime, _out: &mut Output<'_>) -> Result<()> {
        self.seen.expire(if planted(Bug::ForgetIdsEarly) { time.plus_ms(self.ttl) } else { time });
        Ok(())
    }
}
