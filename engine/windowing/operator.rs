//! The window operator: assign, accumulate, fire, purge; late rows leave by a side output.
//!
//! A window fires when the watermark reaches its last instant, in the order (end, key bytes). Until the allowed lateness has
//! passed as well, its slices stay, and a batch with rows for a window that has fired fires it again for the keys it
//! touched, once a batch: downstream the newest result of a (key, window) counts.
//!
//! Invariant: whether a row is late and whether a window has fired depend on the watermark alone, and the watermark is state:
//! after a restore nothing fires twice and nothing is late that was not late before.

use super::assigner::{Slice, SliceLayout, Window, WindowAssigner, saturate};
use super::kernel::Accumulate;
use crate::env::{Bug, planted};
use crate::error::{Error, Result};
use crate::observe::{Counter, LATE};
use crate::operators::{LATE_PORT, OpenContext, Operator, OperatorFactory, Output, guarded, run_rows};
use crate::record::{BatchBox, Key, Rows, downcast};
use crate::state::{SliceTable, Table};
use crate::time::{EventTime, millis};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::{Bound, Deref};
use std::sync::Arc;
use std::time::Duration;

/// Rows of a batch by the slice that they fell into, named by its last instant.
type BySlice = BTreeMap<EventTime, Vec<u32>>;

/// Results per batch.
const EMIT_ROWS: usize = 4096;

/// The result of one window of one key; derefs to the value. Its event time is the window's last instant, `end` - 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Windowed<K, A> {
    /// The key.
    pub key: K,
    /// First instant inside.
    pub start: EventTime,
    /// First instant behind.
    pub end: EventTime,
    /// The aggregate's result.
    pub value: A,
}

impl<K, A> Deref for Windowed<K, A> {
    type Target = A;
    fn deref(&self) -> &A {
        &self.value
    }
}

/// A windowed aggregate over a keyed stream: `Rows<G::Row>` with keys of type `K` in, `Rows<Windowed<K, G::Out>>` out. Rows
/// up to `allowed_lateness` behind the end of their last window still count.
///
/// # Errors
/// Windows whose sizes make no sense.
pub fn window<K: Key, G: Accumulate>(assigner: &impl WindowAssigner, allowed_lateness: Duration, aggregate: G) -> Result<OperatorFactory> {
    let layout = assigner.layout().map_err(|e| e.at(assigner.describe()))?;
    let aggregate = Arc::new(aggregate);
    let lateness = millis(allowed_lateness);
    Ok(Arc::new(move || Box::new(WindowOperator::<K, G>::new(layout, lateness, aggregate.clone()))))
}

struct WindowOperator<K, G: Accumulate> {
    layout: SliceLayout,
    lateness: i64,
    aggregate: Arc<G>,
    table: SliceTable<G::Acc>,
    /// `None` until the first one: no row is late, not even at the first instant of time.
    watermark: Option<EventTime>,
    late: Counter,
    slots: Vec<u32>,
    key: PhantomData<fn() -> K>,
}

impl<K: Key, G: Accumulate> WindowOperator<K, G> {
    fn new(layout: SliceLayout, lateness: i64, aggregate: Arc<G>) -> Self {
        WindowOperator {
            layout,
            lateness,
            aggregate,
            table: SliceTable::new("slices"),
            watermark: None,
            late: Counter::default(),
            slots: Vec::new(),
            key: PhantomData,
        }
    }

    fn resolve(&mut self, batch: &Rows<G::Row>) {
        let Some(keys) = &batch.keys else { unreachable!("plan bug: a window needs a keyed stream") };
        self.table.resolve(keys, &mut self.slots);
    }

    /// Windows with a last instant up to this have fired.
    fn fired_to(&self) -> i128 {
        match self.watermark {
            None => i128::from(i64::MIN) - 1,
            Some(wm) => bound(wm),
        }
    }

    /// No row may come any more for a window that ends so.
    fn is_over(&self, window: Window) -> bool {
        self.watermark.is_some_and(|wm| window.fires_at().plus_ms(self.lateness) <= wm)
    }

    /// Takes rows in, run by run of one slice; returns the late ones and, by slice, those whose windows are to be fired again.
    fn accumulate(&mut self, batch: &Rows<G::Row>, out: &mut Output<'_>) -> Result<(Vec<u32>, BySlice)> {
        let (mut late, mut again) = (Vec::new(), BySlice::new());
        let n = batch.rows.len();
        let mut at = 0;
        while at < n {
            let slice = self.layout.slice_of(batch.times[at]);
            let end = at + batch.times[at..].iter().position(|&t| !slice.holds(t)).unwrap_or(n - at);
            // Ahead of the watermark nothing is late and nothing has fired.
            if self.watermark.is_some_and(|wm| slice.last <= wm) {
                if self.is_over(self.layout.last_window(slice.last)) {
                    late.extend(at as u32..end as u32);
                    at = end;
                    continue;
                }
                if self.layout.first_window(slice.last).last <= self.fired_to() {
                    again.entry(slice.last).or_default().extend(at as u32..end as u32);
                }
            }
            self.accumulate_run(slice, at..end, batch, out)?;
            at = end;
        }
        Ok((late, again))
    }

    fn accumulate_run(&mut self, slice: Slice, mut rows: std::ops::Range<usize>, batch: &Rows<G::Row>, out: &mut Output<'_>) -> Result<()> {
        loop {
            let mut made = None;
            let mut cursor = self.table.slice(slice.last.0);
            let failed = run_rows(rows.clone(), &mut cursor, |cursor, i| {
                let acc = cursor.entry(self.slots[i], || {
                    made = Some(i);
                    self.aggregate.create()
                });
                self.aggregate.accumulate(acc, &batch.rows[i]);
                Ok(())
            });
            let Some((i, error)) = failed else { return Ok(()) };
            if made == Some(i) {
                // An accumulator of no rows would fire as a result of none.
                self.table.remove(slice.last.0, self.slots[i]);
                self.resolve(batch); // the key may have lost its slot
            }
            out.reject(batch.origin(i), batch.times[i], error)?;
            rows.start = i + 1;
        }
    }

    /// Fires windows that have fired before, for the keys that late rows touched.
    fn fire_again(&mut self, touched: BySlice, out: &mut Output<'_>) -> Result<()> {
        let mut windows: BTreeMap<Window, Vec<u32>> = BTreeMap::new();
        for (slice, rows) in touched {
            let slots: Vec<u32> = rows.iter().map(|&row| self.slots[row as usize]).collect();
            let mut window = self.layout.first_window(slice);
            while window.holds(slice) && window.last <= self.fired_to() {
                if !self.is_over(window) {
                    windows.entry(window).or_default().extend_from_slice(&slots);
                }
                window = self.layout.next(window);
            }
        }
        for (window, mut slots) in windows {
            slots.sort_unstable();
            slots.dedup();
            self.table.index().sort(&mut slots);
            self.fire(window, &slots, out)?;
        }
        Ok(())
    }

    /// The first window that holds rows and whose last instant is after `after`.
    fn next_window(&self, after: i128) -> Option<Window> {
        let from = saturate(after - i128::from(self.layout.size())).0;
        let from = if i128::from(from) > after - i128::from(self.layout.size()) { Bound::Unbounded } else { Bound::Excluded(from) };
        let next = self.layout.window_not_before(after.checked_add(1)?);
        // Ascending slices have ascending windows: the first hit is the earliest.
        self.table.slices((from, Bound::Unbounded)).find_map(|name| {
            let window = self.layout.first_window(EventTime(name)).max(next);
            window.holds(EventTime(name)).then_some(window)
        })
    }

    /// Emits the results of one window for the slots named, which are in key order.
    fn fire(&self, window: Window, slots: &[u32], out: &mut Output<'_>) -> Result<()> {
        let names: Vec<i64> = self.table.slices(window.start().0..=window.fires_at().0).collect();
        let views: Vec<_> = names.iter().map(|&name| self.table.view(name)).collect();
        let time = window.fires_at();
        for slots in slots.chunks(EMIT_ROWS) {
            let mut results: Vec<(u32, G::Out)> = Vec::with_capacity(slots.len());
            let each = |results: &mut Vec<(u32, G::Out)>, i: usize| {
                let mut parts = views.iter().filter_map(|view| view.get(slots[i]));
                let Some(first) = parts.next() else { return Ok(()) };
                let value = match parts.next() {
                    None => self.aggregate.finish(first),
                    Some(second) => {
                        let mut acc = self.aggregate.create();
                        [first, second].into_iter().chain(parts).for_each(|part| self.aggregate.merge(&mut acc, part));
                        self.aggregate.finish(&acc)
                    }
                };
                results.push((slots[i], value));
                Ok(())
            };
            guarded(slots.len(), &mut results, each, |_, _, error| out.reject(None, time, error))?;
            let mut rows = Vec::with_capacity(results.len());
            for (slot, value) in results {
                let mut scratch = [0; 8];
                let key = K::decode(&mut self.table.index().key_bytes(slot, &mut scratch))?;
                rows.push(Windowed { key, start: window.start(), end: window.end(), value });
            }
            let times = vec![time; rows.len()];
            out.emit(Rows::new(rows, times).boxed())?;
        }
        Ok(())
    }

    fn purge(&mut self) {
        loop {
            let first = self.table.slices(..).next();
            match first {
                Some(first) if self.is_over(self.layout.last_window(EventTime(first))) => self.table.drop_slice(first),
                _ => return,
            }
        }
    }
}

/// Windows with a last instant up to this fire at watermark `wm`; at the end of time, all.
fn bound(wm: EventTime) -> i128 {
    if wm == EventTime::MAX { i128::from(i64::MAX) * 4 } else { i128::from(wm.0) }
}

impl<K: Key, G: Accumulate> Operator for WindowOperator<K, G> {
    fn open(&mut self, context: &OpenContext) -> Result<()> {
        self.late = context.metrics.counter(LATE, context.operator.as_str(), context.index);
        Ok(())
    }

    fn tables(&mut self) -> Vec<&mut dyn Table> {
        vec![&mut self.table]
    }

    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let batch = downcast::<Rows<G::Row>>(batch);
        self.resolve(&batch);
        let (late, again) = self.accumulate(&batch, out)?;
        if !late.is_empty() {
            self.late.add(late.len() as u64);
            if out.is_connected(LATE_PORT) {
                out.emit_to(LATE_PORT, batch.gather(&late).boxed())?;
            }
        }
        self.fire_again(again, out)
    }

    fn on_watermark(&mut self, time: EventTime, out: &mut Output<'_>) -> Result<()> {
        if self.watermark.is_some_and(|wm| time <= wm) {
            return Ok(());
        }
        let mut fired_to = self.fired_to();
        while let Some(window) = self.next_window(fired_to).filter(|w| w.last <= bound(time)) {
            let mut slots = std::mem::take(&mut self.slots);
            self.table.slots_in(window.start().0..=window.fires_at().0, &mut slots);
            let fired = self.fire(window, &slots, out);
            self.slots = slots;
            fired?;
            fired_to = window.last;
        }
        self.watermark = Some(time);
        self.purge();
        Ok(())
    }

    fn save(&mut self) -> Vec<u8> {
        self.watermark.map_or_else(Vec::new, |wm| wm.0.to_be_bytes().to_vec())
    }

    /// The smallest counts. At an aligned barrier all instances have seen the same watermark, so they do not differ.
    fn restore(&mut self, blobs: &[Vec<u8>]) -> Result<()> {
        let mut watermarks = Vec::new();
        for blob in blobs {
            watermarks.push(match <[u8; 8]>::try_from(&blob[..]) {
                Ok(bytes) => Some(EventTime(i64::from_be_bytes(bytes))),
                Err(_) if blob.is_empty() => None,
                Err(_) => return Err(Error::fatal("the saved watermark of a window is damaged")),
            });
        }
        self.watermark = watermarks.into_iter().min().flatten().filter(|_| !planted(Bug::ForgetWatermark));
        Ok(())
    }
}
