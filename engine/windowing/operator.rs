//! The window operator: assign, accumulate, fire, purge; late rows leave by a side output.
//!
//! A window fires when the watermark reaches its last instant, in the order (end, key bytes). Until the allowed lateness has
//! passed as well, its slices stay, and a batch with rows for a window that has fired fires it again for the keys it
//! touched, once a batch: downstream the newest result of a (key, window) counts.
//!
//! Windows of many slices keep running aggregates ([`super::running`]) where that pays; else a window is merged from its
//! slices when it fires. Both give the same results.
//!
//! Accumulators may be on disk: those that a batch goes on with are recalled before its rows are taken in, so a row is added
//! to the same accumulator whether it had left memory or not, and results do not depend on how much memory there is. A window
//! that is on disk in part fires from its slices, a part of its keys at a time.
//!
//! Invariant: whether a row is late and whether a window has fired depend on the watermark alone, and the watermark is state:
//! after a restore nothing fires twice and nothing is late that was not late before. At a barrier instances may have come
//! differently far (an idle channel wakes up before or after another one's watermark), so each keeps its own; one that takes
//! over from several brings their keys level first.

use super::assigner::{Slice, SliceLayout, Window, WindowAssigner, saturate};
use super::kernel::Accumulate;
use super::progress;
use super::running::Running;
use crate::env::{Bug, planted};
use crate::error::Result;
use crate::observe::{Counter, LATE};
use crate::operators::{LATE_PORT, OpenContext, Operator, OperatorFactory, Output, guarded, run_rows};
use crate::record::{BatchBox, Epoch, Key, KeyGroup, Rows, downcast};
use crate::state::{SliceTable, SliceView, StateValue, Table};
use crate::time::{EventTime, millis};
use serde::{Deserialize, Serialize};
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::{Bound, Deref, Range, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

/// Rows of a batch by the slice that they fell into, named by its last instant.
type BySlice = BTreeMap<EventTime, Vec<u32>>;

/// Results per batch.
pub(super) const EMIT_ROWS: usize = 4096;

/// A window has few results when it holds so many times as many keys.
const FEW: usize = 16;

/// Keys that late rows touched, whose windows are on disk in part, are brought back so many at a time.
const RECALLED: usize = if cfg!(test) { 2 } else { 256 };

/// Results by slot, or why there is none.
type Results<R> = Vec<(u32, Result<R, String>)>;

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

/// The slices of a window, opened when they are first asked for.
struct Slices<'a, A> {
    window: Window,
    table: &'a SliceTable<A>,
    views: OnceCell<Vec<SliceView<'a, A>>>,
}

impl<'a, A: StateValue> Slices<'a, A> {
    fn of(window: Window, table: &'a SliceTable<A>) -> Self {
        Slices { window, table, views: OnceCell::new() }
    }

    fn views(&self) -> &[SliceView<'a, A>] {
        self.views.get_or_init(|| {
            let names = self.table.slices(range(self.window));
            names.map(|name| self.table.view(name)).collect()
        })
    }
}

struct WindowOperator<K, G: Accumulate> {
    layout: SliceLayout,
    lateness: i64,
    aggregate: Arc<G>,
    table: SliceTable<G::Acc>,
    running: Option<Running<G::Acc>>,
    /// The last window had results of few of the keys it held. Decides how the next one goes about it, not what it gives.
    few: bool,
    /// `None` until the first one: no row is late, not even at the first instant of time.
    watermark: Option<EventTime>,
    /// Key groups taken over from instances that had not come as far as `watermark`, and how far they had.
    behind: progress::Behind,
    groups: Range<KeyGroup>,
    max_parallelism: u16,
    late: Counter,
    slots: Vec<u32>,
    key: PhantomData<fn() -> K>,
}

impl<K: Key, G: Accumulate> WindowOperator<K, G> {
    fn new(layout: SliceLayout, lateness: i64, aggregate: Arc<G>) -> Self {
        WindowOperator {
            layout,
            lateness,
            table: SliceTable::new("slices").with_key(K::kind()),
            running: Running::for_windows(&layout, lateness, &*aggregate),
            few: false,
            aggregate,
            watermark: None,
            behind: Vec::new(),
            groups: 0..0,
            max_parallelism: 1,
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
        fired_at(self.watermark)
    }

    /// Fires for key groups that were behind what the others had fired already.
    fn level(&mut self, out: &mut Output<'_>) -> Result<()> {
        let to = self.fired_to();
        for (groups, from) in std::mem::take(&mut self.behind) {
            let mut fired = fired_at(from);
            while let Some(window) = self.next_window(fired).filter(|w| w.last <= to) {
                self.fire_from_slices(window, Some(&groups), out)?;
                fired = window.last;
            }
        }
        self.purge();
        Ok(())
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
            let mut behind = false;
            if self.watermark.is_some_and(|wm| slice.last <= wm) {
                if self.is_over(self.layout.last_window(slice.last)) {
                    late.extend(at as u32..end as u32);
                    at = end;
                    continue;
                }
                behind = true;
                if self.layout.first_window(slice.last).last <= self.fired_to() {
                    again.entry(slice.last).or_default().extend(at as u32..end as u32);
                }
            }
            self.accumulate_run(slice, at..end, batch, out)?;
            if let Some(running) = self.running.as_mut().filter(|_| behind) {
                self.slots[at..end].iter().for_each(|&slot| running.touch(slot));
            }
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
                self.table.unmake(slice.last.0, self.slots[i]);
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
            let names: Vec<i64> = self.table.slices(range(window)).collect();
            let at_once = if self.table.is_far(range(window)) { RECALLED } else { slots.len().max(1) };
            for slots in slots.chunks(at_once) {
                self.table.recall(names.iter().flat_map(|&name| slots.iter().map(move |&slot| (name, slot))))?;
                self.fire(window, slots, out)?;
                self.table.let_go();
            }
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

    /// Fires one window for all of its keys.
    fn fire_all(&mut self, window: Window, out: &mut Output<'_>) -> Result<()> {
        let evicted = self.table.has_evicted();
        let Some(running) = self.running.as_mut().filter(|_| !self.table.is_far(range(window))) else {
            return self.fire_from_slices(window, None, out);
        };
        if evicted {
            running.forget();
        }
        running.advance(window, &self.table, &*self.aggregate);
        if self.few {
            return self.fire_few(window, out);
        }
        let mut slots = std::mem::take(&mut self.slots);
        self.table.slots_where(|slot| running.may_hold(slot), &mut slots);
        let emitted = self.fire(window, &slots, out)?;
        self.few = emitted < slots.len() / FEW;
        self.slots = slots;
        Ok(())
    }

    /// Fires one window for its keys, those of some groups perhaps, by merging its slices, of which some may be on disk.
    fn fire_from_slices(&mut self, window: Window, only: Option<&Range<KeyGroup>>, out: &mut Output<'_>) -> Result<()> {
        if let Some(running) = &mut self.running {
            running.forget();
        }
        let (mut parts, mut slots) = (self.table.parts(range(window)), std::mem::take(&mut self.slots));
        while self.table.next_part(&mut parts, &mut slots)? {
            if let Some(groups) = only {
                slots.retain(|&slot| groups.contains(&self.table.index().group(slot, self.max_parallelism)));
            }
            self.fire(window, &slots, out)?;
        }
        self.slots = slots;
        Ok(())
    }

    /// Looks at all keys where they lie, and sorts only the results.
    fn fire_few(&mut self, window: Window, out: &mut Output<'_>) -> Result<()> {
        let held = self.running.as_ref().map_or(0, Running::slots);
        let mut results = self.results(&Slices::of(window, &self.table), held, |i| i as u32)?;
        self.few = results.len() < self.table.index().len() / FEW;
        results.sort_by(|a, b| self.table.index().compare(a.0, b.0));
        self.emit(window, results, out).map(drop)
    }

    /// Emits the results of one window for the slots named, which are in key order; how many there were.
    fn fire(&self, window: Window, slots: &[u32], out: &mut Output<'_>) -> Result<usize> {
        let (slices, mut emitted) = (Slices::of(window, &self.table), 0);
        for slots in slots.chunks(EMIT_ROWS) {
            emitted += self.emit(window, self.results(&slices, slots.len(), |i| slots[i])?, out)?;
        }
        Ok(emitted)
    }

    /// The results of one window for `n` slots, in their order.
    fn results(&self, slices: &Slices<'_, G::Acc>, n: usize, slot: impl Fn(usize) -> u32) -> Result<Results<G::Out>> {
        let mut results: Results<G::Out> = Vec::new();
        let each = |results: &mut Results<G::Out>, i: usize| {
            let slot = slot(i);
            results.extend(self.result_of(slot, slices).map(|result| (slot, Ok(result))));
            Ok(())
        };
        guarded(n, &mut results, each, |results, i, error| {
            results.push((slot(i), Err(error)));
            Ok(())
        })?;
        Ok(results)
    }

    fn result_of(&self, slot: u32, slices: &Slices<'_, G::Acc>) -> Option<G::Out> {
        let aggregate = &*self.aggregate;
        let finish = |all: &G::Acc| aggregate.finish(all);
        let Some(running) = self.running.as_ref().filter(|running| !running.is_stale(slot)) else {
            return self.merged(slot, slices, |all| aggregate.is_wanted(all).then(|| finish(all)))?;
        };
        let result = running.view(slot, aggregate, |all| aggregate.is_wanted(all).then(|| (!running.has_outlines()).then(|| finish(all))));
        // Wanted, says the outline: now the whole.
        result??.or_else(|| self.merged(slot, slices, finish))
    }

    /// What some slices hold of a slot, earlier ones first.
    fn merged<R>(&self, slot: u32, slices: &Slices<'_, G::Acc>, look: impl FnOnce(&G::Acc) -> R) -> Option<R> {
        let mut parts = slices.views().iter().filter_map(|slice| slice.get(slot));
        let first = parts.next()?;
        let Some(second) = parts.next() else { return Some(look(first)) };
        let mut all = self.aggregate.create();
        [first, second].into_iter().chain(parts).for_each(|part| self.aggregate.merge(&mut all, part));
        Some(look(&all))
    }

    /// Emits results of one window, in the order given; how many there were.
    fn emit(&self, window: Window, results: Results<G::Out>, out: &mut Output<'_>) -> Result<usize> {
        let (n, time) = (results.len(), window.fires_at());
        let mut rows = Vec::with_capacity(n.min(EMIT_ROWS));
        for (slot, result) in results {
            match result {
                Ok(value) => {
                    let mut scratch = [0; 8];
                    let key = K::decode(&mut self.table.index().key_bytes(slot, &mut scratch))?;
                    rows.push(Windowed { key, start: window.start(), end: window.end(), value });
                }
                Err(error) => out.reject(None, time, error)?,
            }
            if rows.len() == EMIT_ROWS {
                self.emit_rows(std::mem::take(&mut rows), time, out)?;
            }
        }
        self.emit_rows(rows, time, out)?;
        Ok(n)
    }

    fn emit_rows(&self, rows: Vec<Windowed<K, G::Out>>, time: EventTime, out: &mut Output<'_>) -> Result<()> {
        let times = vec![time; rows.len()];
        out.emit(Rows::new(rows, times).boxed())
    }

    fn purge(&mut self) {
        loop {
            let first = self.table.slices(..).next();
            let Some(first) = first else { return };
            let last = self.layout.last_window(EventTime(first));
            if self.is_over(last) || planted(Bug::PurgeEarly) && last.last <= self.fired_to() {
                self.table.drop_slice(first);
            } else {
                return;
            }
        }
    }
}

/// The names of the slices that a window may have.
fn range(window: Window) -> RangeInclusive<i64> {
    window.start().0..=window.fires_at().0
}

/// Windows with a last instant up to this have fired at that watermark.
fn fired_at(watermark: Option<EventTime>) -> i128 {
    watermark.map_or(i128::from(i64::MIN) - 1, bound)
}

/// Windows with a last instant up to this fire at watermark `wm`; at the end of time, all.
fn bound(wm: EventTime) -> i128 {
    if wm == EventTime::MAX { i128::from(i64::MAX) * 4 } else { i128::from(wm.0) + i128::from(planted(Bug::FireAhead)) }
}

impl<K: Key, G: Accumulate> Operator for WindowOperator<K, G> {
    fn open(&mut self, context: &OpenContext) -> Result<()> {
        self.late = context.metrics.counter(LATE, context.operator.as_str(), context.index);
        (self.groups, self.max_parallelism) = (context.groups.clone(), context.max_parallelism);
        Ok(())
    }

    fn tables(&mut self) -> Vec<&mut dyn Table> {
        vec![&mut self.table]
    }

    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let batch = downcast::<Rows<G::Row>>(batch);
        if !self.behind.is_empty() {
            self.level(out)?;
        }
        self.resolve(&batch);
        if self.table.has_far() {
            let names = batch.times.iter().map(|&time| self.layout.slice_of(time).last.0);
            self.table.recall(names.zip(self.slots.iter().copied()))?;
        }
        let (late, again) = self.accumulate(&batch, out)?;
        if !late.is_empty() {
            self.late.add(late.len() as u64);
            if out.is_connected(LATE_PORT) && !planted(Bug::LoseLateRows) {
                out.emit_to(LATE_PORT, batch.gather(&late).boxed())?;
            }
        }
        self.fire_again(again, out)?;
        self.table.let_go();
        Ok(())
    }

    fn before_barrier(&mut self, _epoch: Epoch, out: &mut Output<'_>) -> Result<()> {
        if self.behind.is_empty() { Ok(()) } else { self.level(out) }
    }

    fn on_watermark(&mut self, time: EventTime, out: &mut Output<'_>) -> Result<()> {
        if !self.behind.is_empty() {
            self.level(out)?;
        }
        if self.watermark.is_some_and(|wm| time <= wm) {
            return Ok(());
        }
        let mut fired_to = self.fired_to();
        while let Some(window) = self.next_window(fired_to).filter(|w| w.last <= bound(time)) {
            self.fire_all(window, out)?;
            fired_to = window.last;
        }
        self.watermark = Some(time);
        self.purge();
        Ok(())
    }

    /// Own key groups and how far they have come.
    fn save(&mut self) -> Vec<u8> {
        progress::save(&self.groups, self.watermark)
    }

    fn restore(&mut self, blobs: &[Vec<u8>]) -> Result<()> {
        (self.watermark, self.behind) = progress::restore(blobs, &self.groups)?;
        Ok(())
    }
}
