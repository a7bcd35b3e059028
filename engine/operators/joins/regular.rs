//! Regular join: every row with every partner that has come before it and is not forgotten, as a result that is kept up to date.
//!
//! Rows meet as they arrive, whatever their times. Inputs may take rows back; results of outer kinds do: a row that stayed
//! alone so far is taken back when its first partner comes, and given again when the last one goes. State is a bag of rows a
//! side and key: how often each is there, and how many partners it has. With a time to live a row is forgotten, silently, when
//! the watermark is that far past its event time, or the wall clock past the last time that it came or went ([`Forget`]);
//! without one it is kept for ever.
//!
//! Invariant (the class *converging*): after any batch, what has left sums up to the join of what has come in and is not
//! forgotten. A row that is taken back before it was given counts as missing once, and its copy that comes later makes no
//! result. Changes of one update leave next to each other. Rows for which the predicate fails are rejected and are no pair.

use super::kernel::{PairKernel, Paired};
use super::matches::{JoinKind, in_order};
use super::{LEFT, RIGHT, late_to, other};
use crate::env::{Bug, planted};
use crate::error::{Error, Result};
use crate::observe::{Counter, LATE};
use crate::operators::aging::tick_ms;
use crate::operators::guarded::guarded_call;
use crate::operators::{OpenContext, Operator, OperatorFactory, Output, Progress, check_description};
use crate::record::{BatchBox, RowKind};
use crate::state::{MapTable, OrderedTable, Side, Table};
use crate::time::EventTime;
use std::sync::Arc;

/// When rows of a regular join are forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Forget {
    /// Never.
    #[default]
    Never,
    /// So many milliseconds of event time after their own.
    ByWatermark(i64),
    /// So many milliseconds of the wall clock after they came or went last, as the clock is looked at now and then.
    ByClock(i64),
}

/// A regular join of two streams with keys of one type; `forget` is of the left and of the right rows, which may differ in how
/// long, not in which time. `kernel` makes a kernel per task.
pub fn regular_join<N: PairKernel>(kind: JoinKind, forget: [Forget; 2], kernel: impl Fn() -> N + Send + Sync + 'static) -> OperatorFactory {
    Arc::new(move || {
        let kernel = kernel();
        Box::new(RegularJoin {
            kind,
            forget,
            bags: ["left", "right"].map(|side| MapTable::new(side).with_key(kernel.key())),
            kernel,
            ends: [OrderedTable::new("left-ends"), OrderedTable::new("right-ends")],
            progress: Progress::default(),
            late: Counter::default(),
            slots: [Vec::new(), Vec::new()],
            scratch: Vec::new(),
        })
    })
}

/// Copies of a row (below zero: taken back before they were given), its partners, the latest time that it is forgotten by.
type Stored = (i64, i64, i64);

struct RegularJoin<N> {
    kind: JoinKind,
    /// By side.
    forget: [Forget; 2],
    kernel: N,
    /// By key and encoded row.
    bags: [MapTable<Stored>; 2],
    /// When rows are forgotten; by the clock those of a key together, without a tag.
    ends: [OrderedTable<()>; 2],
    /// Of the watermark, or of the clock.
    progress: Progress,
    late: Counter,
    slots: [Vec<u32>; 2],
    scratch: Vec<u8>,
}

/// Results per batch.
const EMIT_ROWS: usize = 4096;

impl<N: PairKernel> RegularJoin<N> {
    /// One copy of a row comes or goes; whether it is kept.
    fn change(&mut self, side: Side, i: usize, time: EventTime, row: &[u8], is_addition: bool, out: &mut Output<'_>) -> Result<bool> {
        let slot = self.slots[side][i];
        let (copies, _, latest) = self.bags[side].get(slot, row).copied().unwrap_or((0, 0, i64::MIN));
        let now = copies + if is_addition { 1 } else { -1 };
        // Copies below zero are not there to be joined.
        let partners = if now.max(0) == copies.max(0) {
            0
        } else if self.kind == JoinKind::Inner {
            self.pair_all(side, i, time, row, is_addition, out)?;
            0
        } else {
            self.meet(side, i, time, row, is_addition, out)?
        };
        if now == 0 {
            self.bags[side].remove(slot, row);
        } else {
            self.bags[side].insert(slot, row, (now, partners, latest.max(self.aged_from(side, time).0)));
        }
        Ok(now != 0)
    }

    /// When a row of this event time that comes now begins to age.
    fn aged_from(&self, side: Side, time: EventTime) -> EventTime {
        match self.forget[side] {
            Forget::ByClock(_) => self.progress.watermark().unwrap_or(EventTime::MIN),
            Forget::ByWatermark(_) | Forget::Never => time,
        }
    }

    fn ttl_ms(&self, side: Side) -> Option<i64> {
        match self.forget[side] {
            Forget::Never => None,
            Forget::ByWatermark(ttl_ms) | Forget::ByClock(ttl_ms) => Some(ttl_ms),
        }
    }

    /// Pairs a row with all of the other side, where nothing else depends on who has partners.
    fn pair_all(&mut self, side: Side, i: usize, time: EventTime, row: &[u8], is_addition: bool, out: &mut Output<'_>) -> Result<()> {
        let (kernel, slot) = (&mut self.kernel, self.slots[other(side)][i]);
        kernel.set_kind(if is_addition { RowKind::Insert } else { RowKind::Delete });
        for (partner, &(copies, _, _)) in self.bags[other(side)].entries(slot) {
            let (left, right) = in_order(side, row, partner);
            for copy in 0..copies {
                let paired = if copy == 0 { kernel.pair(left, right, Some(time))? } else { kernel.join(left, right, time)? };
                match paired {
                    Paired::No => break,
                    Paired::Yes => {}
                    Paired::Failed(error) => {
                        out.reject(None, time, error)?;
                        break;
                    }
                }
                if kernel.results() >= EMIT_ROWS {
                    out.emit(kernel.take()?)?;
                }
            }
        }
        Ok(())
    }

    /// A row meets all of the other side; returns how many partners it has.
    fn meet(&mut self, side: Side, i: usize, time: EventTime, row: &[u8], is_addition: bool, out: &mut Output<'_>) -> Result<i64> {
        let other_slot = self.slots[other(side)][i];
        let mut partners = 0;
        let mut met: Vec<(Vec<u8>, Stored)> = Vec::new();
        for (partner, &(copies, theirs, latest)) in self.bags[other(side)].entries(other_slot) {
            if copies <= 0 {
                continue;
            }
            let (left, right) = in_order(side, row, partner);
            match self.kernel.pair(left, right, None)? {
                Paired::No => continue,
                Paired::Yes => {}
                Paired::Failed(error) => {
                    out.reject(None, time, error)?;
                    continue;
                }
            }
            partners += copies;
            met.push((partner.to_vec(), (copies, theirs, latest)));
        }
        for (partner, (copies, theirs, latest)) in met {
            let after = theirs + if is_addition { 1 } else { -1 };
            // The partner's first, or last: it is no longer alone, or is so again.
            let turns = if is_addition { theirs == 0 } else { after == 0 };
            for _ in 0..copies {
                self.emit_pair(side, time, row, &partner, is_addition, turns, out)?;
            }
            if self.kind.marks(other(side)) {
                self.bags[other(side)].insert(other_slot, &partner, (copies, after, latest));
            }
        }
        let is_semi = side == LEFT && self.kind == JoinKind::Semi;
        let leaves = if partners > 0 { is_semi } else { self.kind.wants_alone(side) };
        if leaves {
            self.emit_alone(side, row, time, if is_addition { RowKind::Insert } else { RowKind::Delete }, out)?;
        }
        Ok(partners)
    }

    /// What changes for a partner: `turns` says that `row` is its first one, or was its last one.
    #[expect(clippy::too_many_arguments, reason = "two rows, and what happens to them")]
    fn emit_pair(
        &mut self,
        side: Side,
        time: EventTime,
        row: &[u8],
        partner: &[u8],
        is_addition: bool,
        turns: bool,
        out: &mut Output<'_>,
    ) -> Result<()> {
        let theirs = other(side);
        let with_pairs = !matches!(self.kind, JoinKind::Semi | JoinKind::Anti);
        let (pair, alone) = match (turns && self.kind.wants_alone(theirs) && with_pairs, is_addition) {
            (true, true) => (RowKind::UpdateAfter, RowKind::UpdateBefore),
            (true, false) => (RowKind::UpdateBefore, RowKind::UpdateAfter),
            (false, true) => (RowKind::Insert, RowKind::Delete),
            (false, false) => (RowKind::Delete, RowKind::Insert),
        };
        let says_alone = turns && self.kind.wants_alone(theirs);
        if says_alone && is_addition && !planted(Bug::KeepAlone) {
            self.emit_alone(theirs, partner, time, alone, out)?;
        }
        if with_pairs {
            let (left, right) = in_order(side, row, partner);
            self.kernel.set_kind(pair);
            if let Paired::Failed(error) = self.kernel.join(left, right, time)? {
                out.reject(None, time, error)?;
            }
        } else if self.kind == JoinKind::Semi && theirs == LEFT && turns {
            self.emit_alone(LEFT, partner, time, pair, out)?;
        }
        if says_alone && !is_addition {
            self.emit_alone(theirs, partner, time, alone, out)?;
        }
        if self.kernel.results() >= EMIT_ROWS { out.emit(self.kernel.take()?) } else { Ok(()) }
    }

    fn emit_alone(&mut self, side: Side, row: &[u8], time: EventTime, kind: RowKind, out: &mut Output<'_>) -> Result<()> {
        self.kernel.set_kind(kind);
        match self.kernel.alone(side, row, time)? {
            Some(error) => out.reject(None, time, error),
            None => Ok(()),
        }
    }

    fn flush(&mut self, out: &mut Output<'_>) -> Result<()> {
        if self.kernel.results() == 0 { Ok(()) } else { out.emit(self.kernel.take()?) }
    }

    fn is_over(&self, side: Side, time: EventTime) -> bool {
        matches!(self.forget[side], Forget::ByWatermark(ttl_ms) if self.progress.is_late(time.plus_ms(ttl_ms)))
    }

    /// Forgets rows that are too old, now that it is so late.
    fn forget(&mut self, now: EventTime) -> Result<()> {
        if !self.progress.advance(now) {
            return Ok(());
        }
        for side in [LEFT, RIGHT] {
            let Some(ttl_ms) = self.ttl_ms(side) else { continue };
            while let Some(end) = self.ends[side].pop_due(now)? {
                let bag = &mut self.bags[side];
                let Some(slot) = bag.find(&end.key, twox_hash::XxHash3_64::oneshot(&end.key))? else { continue };
                let is_over = |stored: &Stored| EventTime(stored.2).plus_ms(ttl_ms) <= now;
                if let Forget::ByClock(_) = self.forget[side] {
                    let over: Vec<Vec<u8>> = bag.entries(slot).filter(|row| is_over(row.1)).map(|row| row.0.to_vec()).collect();
                    for row in over {
                        bag.remove(slot, &row);
                    }
                } else if bag.get(slot, &end.tag).is_some_and(is_over) {
                    bag.remove(slot, &end.tag);
                }
            }
        }
        Ok(())
    }
}

impl<N: PairKernel> Operator for RegularJoin<N> {
    fn open(&mut self, context: &OpenContext) -> Result<()> {
        self.late = context.metrics.counter(LATE, context.operator.as_str(), context.index);
        self.progress.owns(&context.groups);
        self.kernel.check()
    }

    fn tables(&mut self) -> Vec<&mut dyn Table> {
        let (bags, ends) = (self.bags.iter_mut(), self.ends.iter_mut());
        bags.map(|bag| bag as &mut dyn Table).chain(ends.map(|ends| ends as &mut dyn Table)).collect()
    }

    fn on_batch(&mut self, side: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let Some(keys) = batch.keys() else { unreachable!("plan bug: a join needs keyed streams") };
        for (bag, slots) in self.bags.iter_mut().zip(&mut self.slots) {
            bag.resolve(keys, slots)?;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        for (i, &time) in batch.times().iter().enumerate() {
            if self.is_over(side, time) {
                continue;
            }
            scratch.clear();
            let encoded = guarded_call(|| {
                self.kernel.encode(side, &*batch, i, &mut scratch);
                self.kernel.is_addition(side, &*batch, i)
            });
            match encoded {
                Ok(is_addition) => {
                    let is_kept = self.change(side, i, time, &scratch, is_addition, out)?;
                    if let Some(ttl_ms) = self.ttl_ms(side).filter(|_| is_kept) {
                        let end = self.aged_from(side, time).plus_ms(ttl_ms);
                        let tag = if matches!(self.forget[side], Forget::ByClock(_)) { &[][..] } else { &scratch };
                        self.ends[side].insert(end, keys.bytes(i, &mut [0; 8]), tag, ());
                    }
                }
                Err(error) => out.reject(batch.origins().map(|o| o.0[i].clone()), time, error)?,
            }
        }
        self.scratch = scratch;
        self.flush(out)?;
        late_to(side, batch, |time| self.is_over(side, time), &self.late, out)
    }

    fn on_watermark(&mut self, watermark: EventTime, _out: &mut Output<'_>) -> Result<()> {
        if self.forget.iter().any(|forget| matches!(forget, Forget::ByWatermark(_))) {
            self.forget(watermark)?;
        }
        Ok(())
    }

    fn on_time(&mut self, wall_ms: i64, _out: &mut Output<'_>) -> Result<Option<i64>> {
        let ticks =
            self.forget.iter().filter_map(|forget| if let Forget::ByClock(ttl_ms) = forget { Some(tick_ms(*ttl_ms)) } else { None });
        let Some(tick) = ticks.min() else { return Ok(None) };
        self.forget(EventTime(wall_ms))?;
        Ok(Some(wall_ms.saturating_add(tick)))
    }

    /// The watermark, its length before it, and what the kept rows are.
    fn save(&mut self) -> Vec<u8> {
        let mut saved = vec![0];
        saved.extend(self.progress.save());
        saved[0] = (saved.len() - 1) as u8;
        saved.extend(self.kernel.schema().into_bytes());
        saved
    }

    fn restore(&mut self, blobs: &[Vec<u8>]) -> Result<()> {
        let cut = |blob: &Vec<u8>| {
            let (&length, rest) = blob.split_first()?;
            let (progress, schema) = rest.split_at_checked(length.into())?;
            Some((progress.to_vec(), schema.to_vec()))
        };
        let parts: Option<Vec<_>> = blobs.iter().map(cut).collect();
        let parts = parts.ok_or_else(|| Error::fatal("what a join has saved is damaged"))?;
        let (progress, schemas): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        check_description(&self.kernel.schema(), &schemas)?;
        self.progress.restore(&progress).map(drop)
    }
}
