//! `sort_by_time`: rows leave in the order of event time, once the watermark says that nothing earlier can come.
//!
//! Invariant: rows leave by (time, key bytes, tie breaker, arrival), each exactly once; a row at or before the watermark is
//! late: it would break the order, so it leaves by a side output, counted. Rows in = rows out + rows late + rows rejected.
//!
//! Waiting rows are state. Their source records are not kept: rows that leave have no origin.

use super::guarded::guarded_call;
use super::{OpenContext, Operator, OperatorFactory, Output, Port};
use crate::env::{Bug, planted};
use crate::error::{Error, Result};
use crate::observe::{Counter, LATE};
use crate::record::{BatchBox, Data, Key, Keys, Rows, downcast};
use crate::state::{OrderedTable, StateValue, Table};
use crate::time::EventTime;
use std::marker::PhantomData;
use std::sync::Arc;

/// Where rows at or before the watermark leave, as `Rows<T>` with their keys.
pub const LATE_PORT: Port = 1;

/// Rows per batch.
const EMIT_ROWS: usize = 4096;

/// Sorts a keyed stream; `tie` orders rows of one key and time (equal ties: in order of arrival). Rows keep their keys. A row
/// for which `tie` panics is rejected.
pub fn sort_by_time<K: Key, T: Data + StateValue, O: Key>(tie: impl Fn(&T) -> O + Send + Sync + 'static) -> OperatorFactory {
    let tie = Arc::new(tie);
    Arc::new(move || {
        Box::new(Sort {
            tie: tie.clone(),
            waiting: OrderedTable::<T>::of_unique("waiting").with_key(K::kind()),
            watermark: EventTime::MIN,
            room: 0,
            arrivals: 0,
            late: Counter::default(),
            types: PhantomData::<fn(K, O)>,
        })
    })
}

struct Sort<F, K, T, O> {
    tie: Arc<F>,
    waiting: OrderedTable<T>,
    /// MIN = none yet.
    watermark: EventTime,
    /// Rows that left last time, as room for the next.
    room: usize,
    /// Tells equal rows apart; grows over the life of the job.
    arrivals: u64,
    late: Counter,
    types: PhantomData<fn(K, O)>,
}

impl<F, K, T, O> Operator for Sort<F, K, T, O>
where
    K: Key,
    T: Data + StateValue,
    O: Key,
    F: Fn(&T) -> O + Send + Sync + 'static,
{
    fn open(&mut self, context: &OpenContext) -> Result<()> {
        self.late = context.metrics.counter(LATE, context.operator.as_str(), context.index);
        Ok(())
    }

    fn tables(&mut self) -> Vec<&mut dyn Table> {
        vec![&mut self.waiting]
    }

    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let batch = downcast::<Rows<T>>(batch);
        let is_late = |time: EventTime, watermark: EventTime| time <= watermark && watermark > EventTime::MIN;
        let late: Vec<u32> = (0..batch.times.len() as u32).filter(|&i| is_late(batch.times[i as usize], self.watermark)).collect();
        if !late.is_empty() {
            self.late.add(late.len() as u64);
            out.emit_to(LATE_PORT, batch.gather(&late).boxed())?;
        }
        let Rows { rows, times, keys, origins } = batch;
        let Some(keys) = keys else { unreachable!("plan bug: sorting needs a keyed stream") };
        let (mut scratch, mut tag, mut late) = ([0; 8], Vec::new(), late.into_iter().peekable());
        for (i, row) in rows.into_iter().enumerate() {
            if late.next_if_eq(&(i as u32)).is_some() {
                continue;
            }
            tag.clear();
            if let Err(error) = guarded_call(|| (self.tie)(&row).encode(&mut tag)) {
                out.reject(origins.as_ref().map(|o| o.0[i].clone()), times[i], error)?;
                continue;
            }
            tag.extend_from_slice(&self.arrivals.to_be_bytes());
            self.arrivals += 1;
            self.waiting.insert(times[i], keys.bytes(i, &mut scratch), &tag, row);
        }
        Ok(())
    }

    fn on_watermark(&mut self, time: EventTime, out: &mut Output<'_>) -> Result<()> {
        self.watermark = self.watermark.max(time);
        loop {
            let (mut rows, mut keys) = (Rows::default(), Keys::default());
            let due = self.watermark.plus_ms(i64::from(planted(Bug::SortAhead)));
            while rows.rows.len() < EMIT_ROWS {
                let room = self.room;
                let popped = self.waiting.pop_with(due, |time, key, _, row| {
                    if rows.rows.is_empty() {
                        rows = Rows::with_capacity(room);
                    }
                    rows.push(row, time, None);
                    keys.push_encoded::<K>(key)
                })?;
                match popped {
                    Some(pushed) => pushed?,
                    None => break,
                }
            }
            if rows.rows.is_empty() {
                return Ok(());
            }
            self.room = rows.rows.len() + rows.rows.len() / 8;
            rows.keys = Some(keys);
            out.emit(rows.boxed())?;
        }
    }

    fn save(&mut self) -> Vec<u8> {
        [self.watermark.0.to_be_bytes(), self.arrivals.to_be_bytes()].concat()
    }

    /// The largest watermark and the largest number of arrivals. With an idle channel in front instances come differently far;
    /// what one has let out must not be followed by older rows, and what waits in the others is due with the next watermark.
    fn restore(&mut self, blobs: &[Vec<u8>]) -> Result<()> {
        let damaged = || Error::fatal("the saved progress of a sort is damaged");
        for blob in blobs {
            let (wm, arrivals) = blob.split_first_chunk::<8>().ok_or_else(damaged)?;
            let arrivals = u64::from_be_bytes(arrivals.try_into().map_err(|_| damaged())?);
            self.arrivals = self.arrivals.max(arrivals);
            self.watermark = self.watermark.max(EventTime(i64::from_be_bytes(*wm)));
        }
        Ok(())
    }
}
