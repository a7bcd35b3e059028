//! `suppress`: fewer changes, the newest value of each key once in a while.
//!
//! Changes wait; what waits leaves when the watermark passes a multiple of the period, one change a key, by key bytes; or only
//! at the end of the input. In event time, so that a replay suppresses the same. Where there is none (a table of a topic: its
//! watermark is at the end as soon as it has been read in), changes leave once a batch.
//!
//! Invariant: what has left and what waits sum up to what has come in. A key that is set and removed while it waits leaves as
//! removed: downstream removes nothing, or what it had.

use super::{Changes, keys_of};
use crate::error::Result;
use crate::operators::{OpenContext, Operator, OperatorFactory, Output, Progress};
use crate::record::{BatchBox, Data, Key, Keys, Rows, downcast};
use crate::state::{SliceTable, StateValue, Table};
use crate::time::{EventTime, millis};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// When changes of a table leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suppress {
    /// At most once a key in each such span of event time, at its end.
    Every(Duration),
    /// At the end of the input.
    UntilEnd,
}

/// The changes of a table, fewer of them.
pub fn suppress<K: Key, V: Data + StateValue>(when: Suppress) -> OperatorFactory {
    let period = match when {
        Suppress::Every(d) => Some(millis(d).max(1)),
        Suppress::UntilEnd => None,
    };
    Arc::new(move || {
        Box::new(Suppressed {
            period,
            waiting: SliceTable::<(i64, Option<V>)>::new("waiting"),
            progress: Progress::default(),
            slots: Vec::new(),
            key: PhantomData::<fn(K)>,
        })
    })
}

/// The one slice that changes wait in.
const WAITING: i64 = 0;

/// Changes per batch.
const EMIT_ROWS: usize = 4096;

struct Suppressed<K, V> {
    period: Option<i64>,
    /// The newest change of each key, with its time.
    waiting: SliceTable<(i64, Option<V>)>,
    progress: Progress,
    slots: Vec<u32>,
    key: PhantomData<fn(K)>,
}

impl<K: Key, V: Data + StateValue> Suppressed<K, V> {
    /// Whether a multiple of the period lies behind `before` and not behind `now`.
    fn is_due(&self, before: Option<EventTime>, now: EventTime) -> bool {
        let Some(period) = self.period else { return false };
        now == EventTime::MAX || before.is_none_or(|before| before.floor_to(period, 0) < now.floor_to(period, 0))
    }

    /// Changes leave with times behind `before`, so that they are not late downstream.
    fn emit(&mut self, before: Option<EventTime>, out: &mut Output<'_>) -> Result<()> {
        let earliest = before.filter(|before| *before < EventTime::MAX).map_or(EventTime::MIN, |before| before.plus_ms(1));
        let mut slots = std::mem::take(&mut self.slots);
        let mut parts = self.waiting.parts(WAITING..=WAITING);
        while self.waiting.next_part(&mut parts, &mut slots)? {
            self.emit_keys(&slots, earliest, out)?;
        }
        self.slots = slots;
        self.waiting.drop_slice(WAITING);
        Ok(())
    }

    fn emit_keys(&self, slots: &[u32], earliest: EventTime, out: &mut Output<'_>) -> Result<()> {
        for part in slots.chunks(EMIT_ROWS) {
            let mut changes = Rows::with_capacity(part.len());
            let mut keys = Vec::with_capacity(part.len());
            for &slot in part {
                let key = K::decode(&mut self.waiting.index().key_bytes(slot, &mut [0; 8]))?;
                if let Some((time, value)) = self.waiting.get(WAITING, slot) {
                    keys.push(key.clone());
                    changes.push((key, value.clone()), EventTime(*time).max(earliest), None);
                }
            }
            changes.keys = Some(Keys::encode(keys.into_iter()));
            out.emit(changes.boxed())?;
        }
        Ok(())
    }
}

impl<K: Key, V: Data + StateValue> Operator for Suppressed<K, V> {
    fn open(&mut self, context: &OpenContext) -> Result<()> {
        self.progress.owns(&context.groups);
        Ok(())
    }

    fn tables(&mut self) -> Vec<&mut dyn Table> {
        vec![&mut self.waiting]
    }

    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let batch = downcast::<Changes<K, V>>(batch);
        self.waiting.resolve(keys_of(&batch), &mut self.slots);
        let mut cursor = self.waiting.slice(WAITING);
        for ((&slot, (_, value)), time) in self.slots.iter().zip(batch.rows).zip(batch.times) {
            cursor.put(slot, (time.0, value));
        }
        match self.progress.watermark() {
            Some(EventTime::MAX) if self.period.is_some() => self.emit(None, out),
            _ => Ok(()),
        }
    }

    fn on_watermark(&mut self, time: EventTime, out: &mut Output<'_>) -> Result<()> {
        let before = self.progress.watermark();
        if self.progress.advance(time) && self.is_due(before, time) {
            self.emit(before, out)?;
        }
        Ok(())
    }

    fn on_end(&mut self, out: &mut Output<'_>) -> Result<()> {
        self.emit(None, out)
    }

    fn save(&mut self) -> Vec<u8> {
        self.progress.save()
    }

    fn restore(&mut self, blobs: &[Vec<u8>]) -> Result<()> {
        self.progress.restore(blobs).map(drop)
    }
}
