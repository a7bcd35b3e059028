//! The operator for windows that are kept each for itself: sessions, the global window, and windows that fire early.
//!
//! All windows of a key are one value of a point table, so that they may grow together and cold keys may go to disk. A second
//! table says when to look at a key again; a window that only grows leaves its entry there alone, so a row costs no timer.
//! Results leave in the order (last instant, first instant, key bytes); those of a row that fires a window, in the order of
//! the rows.
//!
//! Invariant: a key with windows has one entry of due time, not later than the first of them fires or goes; one whose
//! unfired windows have rows to show is among the changed ones. A row whose function panics changes no bounds and joins no
//! windows.

use super::firing::PaneInfo;
use super::kernel::{Accumulate, result};
use super::operator::{EMIT_ROWS, Windowed};
use super::pane::{Clock, Pane, Panes, Shape, Span};
use super::{Firing, progress};
use crate::env::{Bug, planted};
use crate::error::Result;
use crate::observe::{Counter, LATE};
use crate::operators::{LATE_PORT, OpenContext, Operator, OperatorFactory, Output, guarded, guarded_call};
use crate::record::{BatchBox, Epoch, Key, KeyGroup, Keys, Rows, downcast, key_group};
use crate::state::{Due, OrderedTable, PointTable, Table};
use crate::time::{EventTime, millis};
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

/// Keys that are made resident together when their time has come.
const KEYS_AT_ONCE: usize = 1024;

/// What all instances share.
struct Rules<G: Accumulate> {
    shape: Shape<G::Row>,
    lateness: i64,
    firing: Firing<G::Row>,
    aggregate: G,
}

/// Windows of a shape: `Rows<G::Row>` with keys of type `K` in, `Rows<Windowed<K, G::Out>>` out.
pub(super) fn panes<K: Key, G: Accumulate>(shape: Shape<G::Row>, lateness: i64, firing: Firing<G::Row>, aggregate: G) -> OperatorFactory {
    let rules = Arc::new(Rules { shape, lateness, firing, aggregate });
    Arc::new(move || {
        Box::new(PaneOperator::<K, G> {
            clock: Clock { watermark: None, lateness: rules.lateness },
            behind: progress::Behind::new(),
            groups: 0..0,
            max_parallelism: 1,
            rules: rules.clone(),
            table: PointTable::new("windows").with_key(K::kind()),
            due: OrderedTable::new("due").with_key(K::kind()),
            changed: OrderedTable::new("changed").with_key(K::kind()),
            late: Counter::default(),
            slots: Vec::new(),
            again: Vec::new(),
            results: Results::default(),
            tick: None,
            key: PhantomData,
        })
    })
}

struct PaneOperator<K, G: Accumulate> {
    rules: Arc<Rules<G>>,
    clock: Clock,
    table: PointTable<Panes<G::Acc>>,
    due: OrderedTable<()>,
    /// Key groups taken over from instances that had not come as far.
    behind: progress::Behind,
    groups: Range<KeyGroup>,
    max_parallelism: u16,
    /// Keys with rows since the last look at the wall clock, all at time 0; used when windows fire by it.
    changed: OrderedTable<()>,
    late: Counter,
    /// Of the rows of the batch at hand.
    slots: Vec<u32>,
    /// Windows that had fired and were given late rows by the batch at hand.
    again: Vec<(u32, Span)>,
    results: Results<G::Out>,
    /// When windows fire by the wall clock next.
    tick: Option<i64>,
    key: PhantomData<fn() -> K>,
}

/// A window that has fired.
struct Fired<O> {
    span: Span,
    key: Vec<u8>,
    value: O,
}

/// What waits to be emitted.
struct Results<O> {
    fired: Vec<Fired<O>>,
    failed: Vec<(EventTime, String)>,
}

impl<O> Default for Results<O> {
    fn default() -> Self {
        Results { fired: Vec::new(), failed: Vec::new() }
    }
}

impl<O: crate::record::Data> Results<O> {
    /// Shows a window as it is.
    fn show<G: Accumulate<Out = O>>(&mut self, rules: &Rules<G>, pane: &Pane<G::Acc>, key: &[u8]) {
        match guarded_call(|| result(&rules.aggregate, &pane.acc)) {
            Ok(Some(value)) => self.fired.push(Fired { span: pane.span, key: key.to_vec(), value }),
            Ok(None) => {}
            Err(error) => self.failed.push((pane.span.last, error)),
        }
    }

    fn sort(&mut self) {
        self.fired.sort_by(|a, b| (a.span.last, a.span.first, &a.key).cmp(&(b.span.last, b.span.first, &b.key)));
    }

    /// Emits the windows that end before `end`, which must be sorted to the front.
    fn emit_before<K: Key>(&mut self, end: Option<EventTime>, out: &mut Output<'_>) -> Result<()> {
        for (time, error) in self.failed.drain(..) {
            out.reject(None, time, error)?;
        }
        let count = end.map_or(self.fired.len(), |end| self.fired.partition_point(|fired| fired.span.last < end));
        let mut fired = self.fired.drain(..count);
        loop {
            let mut rows = Rows::default();
            for Fired { span, key, value } in fired.by_ref().take(EMIT_ROWS) {
                let key = K::decode(&mut &key[..])?;
                rows.push(Windowed { key, start: span.first, end: span.last.plus_ms(1), value }, span.last, None);
            }
            if rows.rows.is_empty() {
                return Ok(());
            }
            out.emit(rows.boxed())?;
        }
    }
}

impl<K: Key, G: Accumulate> PaneOperator<K, G> {
    /// Takes a row in; `false` when it is late.
    fn take(&mut self, rules: &Rules<G>, keys: &Keys, i: usize, row: &G::Row, time: EventTime) -> Result<bool, String> {
        let at = Span { first: time, last: time };
        let live = |me: &Self| me.table.get(me.slots[i]).map_or(0..0, |panes| 0..panes.live.len());
        match &rules.shape {
            Shape::Global => {
                let join = live(self);
                self.put(rules, keys, i, row, at, join)?;
                Ok(true)
            }
            Shape::Session(gap) => {
                let touches = i64::from(planted(Bug::JoinTouchingSessions));
                let claim = Span { last: time.plus_ms(gap.of(row)? - 1 + touches), ..at };
                let join = self.table.get(self.slots[i]).map_or(0..0, |panes| Panes::overlapping(&panes.live, claim));
                if join.is_empty() && self.clock.is_over(claim.last) {
                    return Ok(false);
                }
                self.put(rules, keys, i, row, claim, join)?;
                Ok(true)
            }
            Shape::Aligned(layout) => {
                let (mut window, mut taken) = (layout.first_window(time), false);
                while window.holds(time) {
                    let span = Span { first: window.start(), last: window.fires_at() };
                    if !self.clock.is_over(span.last) {
                        let join = self.table.get(self.slots[i]).map_or(0..0, |panes| Panes::exact(&panes.live, span));
                        self.put(rules, keys, i, row, span, join)?;
                        taken = true;
                    }
                    window = layout.next(window);
                }
                Ok(taken)
            }
        }
    }

    /// Puts a row into the window that the windows `join` of its key become with it. The user's functions run first.
    fn put(&mut self, rules: &Rules<G>, keys: &Keys, i: usize, row: &G::Row, claim: Span, join: Range<usize>) -> Result<(), String> {
        let slot = self.slots[i];
        let joined = self.table.get(slot).map_or(&[][..], |panes| &panes.live[join.clone()]);
        let span = joined.iter().fold(claim, |span, pane| span.union(pane.span));
        let rows = joined.iter().fold(1u64, |rows, pane| rows.saturating_add(pane.rows));
        let end = rules.shape.end(span);
        let open = !self.clock.has_fired(end);
        let changed = joined.iter().any(|pane| pane.rows > 0 && !self.clock.has_fired(rules.shape.end(pane.span)));
        let info = PaneInfo { start: span.first, end: span.last.plus_ms(1), rows };
        let fires = open && rules.firing.fires_at(row, &info);
        let made = (joined.len() != 1).then(|| {
            let mut acc = rules.aggregate.create();
            let merged = if planted(Bug::LoseMergedSession) { 1 } else { joined.len() };
            joined.iter().take(merged).for_each(|pane| rules.aggregate.merge(&mut acc, &pane.acc));
            rules.aggregate.accumulate(&mut acc, row);
            acc
        });

        let panes = self.table.get_mut(slot).get_or_insert_with(|| Panes { due: EventTime::MAX, live: Vec::new() });
        let due = self.clock.due(end);
        let unlisted = panes.live.is_empty();
        match made {
            None => {
                let pane = &mut panes.live[join.start];
                rules.aggregate.accumulate(&mut pane.acc, row);
                (pane.span, pane.rows) = (span, rows);
            }
            Some(acc) => drop(panes.live.splice(join.clone(), [Pane { span, rows, acc }])),
        }
        if unlisted || due < panes.due {
            let mut scratch = [0; 8];
            let key = keys.bytes(i, &mut scratch);
            if !unlisted {
                self.due.discard(panes.due, key, &[]);
            }
            self.due.insert(due, key, &[], ());
            panes.due = due;
        }
        if !open {
            self.again.push((slot, span));
        } else if fires {
            self.fire_now(rules, keys, i, join.start);
        } else if !changed && rules.firing.every.is_some() {
            let mut scratch = [0; 8];
            self.changed.insert(EventTime(0), keys.bytes(i, &mut scratch), &[], ());
        }
        Ok(())
    }

    /// Fires a window before its end.
    fn fire_now(&mut self, rules: &Rules<G>, keys: &Keys, i: usize, at: usize) {
        let mut scratch = [0; 8];
        let key = keys.bytes(i, &mut scratch);
        let Some(panes) = self.table.get_mut(self.slots[i]) else { return };
        let pane = &mut panes.live[at];
        self.results.show(rules, pane, key);
        if !Self::settle(rules, pane) {
            panes.live.remove(at);
            self.forget_if_empty(self.slots[i], key);
        }
    }

    /// After a firing: whether the window stays.
    fn settle(rules: &Rules<G>, pane: &mut Pane<G::Acc>) -> bool {
        pane.rows = 0;
        if !rules.firing.discarding {
            return true;
        }
        match guarded_call(|| rules.aggregate.create()) {
            Ok(acc) if rules.shape.outlives_rows() => pane.acc = acc,
            _ => return false,
        }
        true
    }

    fn forget_if_empty(&mut self, slot: u32, key: &[u8]) {
        if let Some(panes) = self.table.get(slot)
            && panes.live.is_empty()
        {
            self.due.discard(panes.due, key, &[]);
            self.table.remove(slot);
        }
    }

    /// Fires windows that had fired before and were given late rows since.
    fn fire_again(&mut self, rules: &Rules<G>, out: &mut Output<'_>) -> Result<()> {
        let mut again = std::mem::take(&mut self.again);
        let index = self.table.index();
        again.sort_by(|(a, x), (b, y)| (x.last, x.first).cmp(&(y.last, y.first)).then_with(|| index.compare(*a, *b)));
        again.dedup();
        for (slot, span) in again {
            // Gone when a later row made it part of another window.
            let found = self.table.get(slot).map_or(0..0, |panes| Panes::exact(&panes.live, span));
            if found.is_empty() {
                continue;
            }
            let mut scratch = [0; 8];
            let key = self.table.index().key_bytes(slot, &mut scratch).to_vec();
            let Some(panes) = self.table.get_mut(slot) else { continue };
            let pane = &mut panes.live[found.start];
            self.results.show(rules, pane, &key);
            if !Self::settle(rules, pane) {
                panes.live.remove(found.start);
                self.forget_if_empty(slot, &key);
            }
        }
        self.results.emit_before::<K>(None, out)
    }

    /// Makes the keys of these entries resident.
    fn resolve(&mut self, entries: &[Due<()>]) -> Result<Keys> {
        let keys: Result<Vec<K>> = entries.iter().map(|entry| K::decode(&mut &entry.key[..])).collect();
        let keys = Keys::encode(keys?.into_iter());
        self.table.resolve(&keys, &mut self.slots)?;
        Ok(keys)
    }

    /// The time of a key has come: its windows that are complete fire, those that are over go. `before` is the watermark up to
    /// which windows had fired.
    fn pass(&mut self, rules: &Rules<G>, slot: u32, key: &[u8], before: Clock) {
        if self.table.get(slot).is_none() {
            return;
        }
        let (clock, results) = (self.clock, &mut self.results);
        let Some(panes) = self.table.get_mut(slot) else { return };
        panes.live.retain_mut(|pane| {
            let end = rules.shape.end(pane.span);
            let mut stays = true;
            if clock.has_fired(end) && !before.has_fired(end) && (pane.rows > 0 || !rules.firing.discarding) {
                results.show(rules, pane, key);
                stays = Self::settle(rules, pane);
            }
            stays && !clock.is_over(end)
        });
        let next = panes.live.iter().map(|pane| clock.due(rules.shape.end(pane.span))).min();
        match next {
            Some(due) => {
                panes.due = due;
                self.due.insert(due, key, &[], ());
            }
            None => drop(self.table.remove(slot)),
        }
    }
}

impl<K: Key, G: Accumulate> PaneOperator<K, G> {
    /// Passes all that is due by `time`; `before` tells how far event time had come for a key group until now.
    fn pass_due(&mut self, time: EventTime, before: impl Fn(KeyGroup) -> Clock, out: &mut Output<'_>) -> Result<()> {
        let rules = self.rules.clone();
        loop {
            let due = pop(&mut self.due, time)?;
            let keys = self.resolve(&due)?;
            for (i, entry) in due.iter().enumerate() {
                let group = key_group(keys.hashes()[i], self.max_parallelism);
                self.pass(&rules, self.slots[i], &entry.key, before(group));
            }
            self.results.sort();
            // A window that ends before the last of these entries was due has been seen.
            let seen = due.last().filter(|_| due.len() == KEYS_AT_ONCE).map(|entry| entry.time);
            self.results.emit_before::<K>(seen, out)?;
            if seen.is_none() {
                return Ok(());
            }
        }
    }

    /// Passes what is due for key groups that were behind the others when they were taken over.
    fn level(&mut self, out: &mut Output<'_>) -> Result<()> {
        let behind = std::mem::take(&mut self.behind);
        let (Some(time), false) = (self.clock.watermark, behind.is_empty()) else { return Ok(()) };
        let clock = self.clock;
        let before = |group| {
            let watermark = behind.iter().find(|(groups, _)| groups.contains(&group)).map_or(clock.watermark, |(_, wm)| *wm);
            Clock { watermark, ..clock }
        };
        self.pass_due(time, before, out)
    }
}

/// Takes out some entries that are due.
fn pop(table: &mut OrderedTable<()>, until: EventTime) -> Result<Vec<Due<()>>> {
    std::iter::from_fn(|| table.pop_due(until).transpose()).take(KEYS_AT_ONCE).collect()
}

impl<K: Key, G: Accumulate> Operator for PaneOperator<K, G> {
    fn open(&mut self, context: &OpenContext) -> Result<()> {
        self.late = context.metrics.counter(LATE, context.operator.as_str(), context.index);
        (self.groups, self.max_parallelism) = (context.groups.clone(), context.max_parallelism);
        Ok(())
    }

    fn tables(&mut self) -> Vec<&mut dyn Table> {
        vec![&mut self.table, &mut self.due, &mut self.changed]
    }

    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let batch = downcast::<Rows<G::Row>>(batch);
        let Some(keys) = &batch.keys else { unreachable!("plan bug: a window needs a keyed stream") };
        self.level(out)?;
        self.table.resolve(keys, &mut self.slots)?;
        let (rules, mut late) = (self.rules.clone(), Vec::new());
        let each = |me: &mut &mut Self, i: usize| {
            if !me.take(&rules, keys, i, &batch.rows[i], batch.times[i])? {
                late.push(i as u32);
            }
            Ok(())
        };
        guarded(batch.rows.len(), &mut &mut *self, each, |_, i, error| out.reject(batch.origin(i), batch.times[i], error))?;
        if !late.is_empty() {
            self.late.add(late.len() as u64);
            if out.is_connected(LATE_PORT) {
                out.emit_to(LATE_PORT, batch.gather(&late).boxed())?;
            }
        }
        self.results.emit_before::<K>(None, out)?;
        self.fire_again(&rules, out)
    }

    fn before_barrier(&mut self, _epoch: Epoch, out: &mut Output<'_>) -> Result<()> {
        self.level(out)
    }

    fn on_watermark(&mut self, time: EventTime, out: &mut Output<'_>) -> Result<()> {
        self.level(out)?;
        if self.clock.watermark.is_some_and(|wm| time <= wm) {
            return Ok(());
        }
        let before = self.clock;
        self.clock.watermark = Some(time);
        self.pass_due(time, |_| before, out)
    }

    fn on_time(&mut self, wall_ms: i64, out: &mut Output<'_>) -> Result<Option<i64>> {
        let Some(every) = self.rules.firing.every else { return Ok(None) };
        self.level(out)?;
        let (rules, next) = (self.rules.clone(), wall_ms.saturating_add(millis(every)));
        // Called at start, or for the sake of another operator; a clock that was set back must not stop early results.
        if self.tick.is_none_or(|tick| wall_ms < tick) {
            self.tick = Some(self.tick.map_or(next, |tick| tick.min(next)));
            return Ok(self.tick);
        }
        self.tick = Some(next);
        loop {
            let changed = pop(&mut self.changed, EventTime::MAX)?;
            if changed.is_empty() {
                break;
            }
            let keys = self.resolve(&changed)?;
            for i in 0..changed.len() {
                let open = self.table.get(self.slots[i]).map_or(0, |panes| panes.live.len());
                for at in (0..open).rev() {
                    let fires = self.table.get(self.slots[i]).is_some_and(|panes| {
                        let pane = &panes.live[at];
                        pane.rows > 0 && !self.clock.has_fired(rules.shape.end(pane.span))
                    });
                    if fires {
                        self.fire_now(&rules, &keys, i, at);
                    }
                }
            }
        }
        self.results.sort();
        self.results.emit_before::<K>(None, out)?;
        Ok(Some(next))
    }

    fn save(&mut self) -> Vec<u8> {
        progress::save(&self.groups, self.clock.watermark)
    }

    fn restore(&mut self, blobs: &[Vec<u8>]) -> Result<()> {
        (self.clock.watermark, self.behind) = progress::restore(blobs, &self.groups)?;
        Ok(())
    }
}
