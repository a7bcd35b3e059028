//! Running aggregates of windows that overlap: a firing costs a key the same however many slices a window has.
//!
//! The slices of a window are on two stacks. When the older one is used up there is a **turn**: all slices of the window at
//! hand go onto it, merged from the newest down, and each remembers what it replaced, so that the oldest slice is taken off by
//! putting that back. Slices that come later are merged forward into the newer stack. A window is the older stack followed by
//! the newer one; an accumulator is merged twice in its life, whatever size/slide is.
//!
//! It pays where accumulators are small: of a type that owns no memory, or with an outline ([`Accumulate::outline`]).
//! Others, as lists, are merged slice by slice for each window, which copies no more than the result holds.
//!
//! Invariant: for a slot that is not stale, `older` followed by `newer` is the merge of its accumulators in the slices of the
//! window that was last advanced to, earlier ones first. Stale is a slot whose accumulators may have changed since they were
//! taken in (by a row behind the watermark), or whose merge panicked: it is merged slice by slice until the next turn. This
//! is no state: after a restore the first firing is a turn. While a window is on disk in part there is none of it either, and
//! every slot is stale.

use super::assigner::{SliceLayout, Window};
use super::kernel::Accumulate;
use crate::operators::guarded_call;
use crate::state::{SliceTable, SliceView, StateValue};
use std::ops::Bound;

/// With fewer slices in a window, merging them directly is as cheap.
const FEWEST_SLICES: usize = 4;

/// By slot, what was there before.
type Before<A> = Vec<(u32, Option<A>)>;

pub(super) struct Running<A> {
    /// By slot: the slices up to the last turn that are still in the window.
    older: Vec<Option<A>>,
    /// By slice on the older stack, the oldest last: its name, and what its cells replaced.
    replaced: Vec<(i64, Before<A>)>,
    /// By slot: the slices since the last turn.
    newer: Vec<Option<A>>,
    /// Slices up to this have been taken in.
    taken_to: i64,
    stale: Vec<bool>,
    /// There has been a turn since all was forgotten.
    has_turned: bool,
    /// Accumulators here are outlines of those in the slices.
    outlines: bool,
}

impl<A: StateValue> Running<A> {
    /// For these windows, if it pays for them. Rows that may come later than a window is long would keep more keys than a
    /// window has, and each firing looks at all of them.
    pub(super) fn for_windows<G: Accumulate<Acc = A>>(layout: &SliceLayout, lateness: i64, aggregate: &G) -> Option<Self> {
        if layout.slices_per_window() < FEWEST_SLICES || lateness > layout.size() {
            return None;
        }
        let outlines = guarded_call(|| aggregate.outline(&aggregate.create()).is_some()).unwrap_or(false);
        (outlines || !std::mem::needs_drop::<A>()).then(|| Running {
            older: Vec::new(),
            replaced: Vec::new(),
            newer: Vec::new(),
            taken_to: i64::MIN,
            stale: Vec::new(),
            has_turned: false,
            outlines,
        })
    }

    pub(super) fn has_outlines(&self) -> bool {
        self.outlines
    }

    /// An accumulator of this slot, in a slice whose end the watermark has passed, is about to change.
    pub(super) fn touch(&mut self, slot: u32) {
        if self.stale.len() <= slot as usize {
            self.stale.resize(slot as usize + 1, false);
        }
        self.stale[slot as usize] = true;
    }

    /// All is stale until the next turn, and costs no memory.
    pub(super) fn forget(&mut self) {
        (self.older, self.newer, self.stale, self.replaced) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        self.has_turned = false;
    }

    /// Whether the window may hold anything of a slot.
    pub(super) fn may_hold(&self, slot: u32) -> bool {
        let at = slot as usize;
        self.is_stale(slot) || self.older.get(at).is_some_and(Option::is_some) || self.newer.get(at).is_some_and(Option::is_some)
    }

    pub(super) fn is_stale(&self, slot: u32) -> bool {
        !self.has_turned || self.stale.get(slot as usize).copied().unwrap_or(false)
    }

    /// Moves on to a window, which is complete; windows come in order.
    pub(super) fn advance<G: Accumulate<Acc = A>>(&mut self, window: Window, table: &SliceTable<A>, aggregate: &G) {
        let slots = table.index().slots();
        self.older.resize_with(slots.max(self.older.len()), || None);
        self.newer.resize_with(slots.max(self.newer.len()), || None);
        self.stale.resize(slots.max(self.stale.len()), false);
        let (first, last) = (window.start().0, window.fires_at().0);
        while let Some((_, cells)) = self.replaced.pop_if(|(name, _)| *name < first) {
            for (slot, before) in cells {
                self.older[slot as usize] = before;
            }
        }
        if self.replaced.is_empty() {
            self.turn(first, last, table, aggregate);
        } else {
            for name in table.slices((Bound::Excluded(self.taken_to), Bound::Included(last))) {
                let newer = &mut self.newer;
                each_cell(table.view(name), &mut self.stale, |slot, acc| match &mut newer[slot as usize] {
                    Some(sum) => merge(aggregate, sum, acc),
                    empty => *empty = Some(copy(aggregate, acc)),
                });
            }
        }
        self.taken_to = last;
    }

    fn turn<G: Accumulate<Acc = A>>(&mut self, first: i64, last: i64, table: &SliceTable<A>, aggregate: &G) {
        self.older.fill_with(|| None);
        self.newer.fill_with(|| None);
        self.stale.fill(false);
        self.has_turned = true;
        for name in table.slices(first..=last).rev() {
            let (older, mut cells) = (&mut self.older, Vec::with_capacity(table.view(name).len()));
            each_cell(table.view(name), &mut self.stale, |slot, acc| {
                let later = &mut older[slot as usize];
                let mut sum = copy(aggregate, acc);
                if let Some(later) = later {
                    aggregate.merge(&mut sum, later);
                }
                cells.push((slot, later.replace(sum)));
            });
            self.replaced.push((name, cells));
        }
    }

    /// Slots there may be something of.
    pub(super) fn slots(&self) -> usize {
        self.older.len()
    }

    /// What the window holds of a slot that is not stale: all of it, or its outline where the aggregate has outlines.
    #[inline]
    pub(super) fn view<G: Accumulate<Acc = A>, R>(&self, slot: u32, aggregate: &G, look: impl FnOnce(&A) -> R) -> Option<R> {
        match (&self.older[slot as usize], &self.newer[slot as usize]) {
            (None, None) => None,
            (Some(all), None) | (None, Some(all)) => Some(look(all)),
            (Some(older), Some(newer)) => {
                let mut all = aggregate.create();
                aggregate.merge(&mut all, older);
                aggregate.merge(&mut all, newer);
                Some(look(&all))
            }
        }
    }
}

fn copy<G: Accumulate>(aggregate: &G, acc: &G::Acc) -> G::Acc {
    aggregate.outline(acc).unwrap_or_else(|| {
        let mut copy = aggregate.create();
        aggregate.merge(&mut copy, acc);
        copy
    })
}

fn merge<G: Accumulate>(aggregate: &G, sum: &mut G::Acc, later: &G::Acc) {
    match aggregate.outline(later) {
        Some(outline) => aggregate.merge(sum, &outline),
        None => aggregate.merge(sum, later),
    }
}

/// Visits the cells of a slice; a slot for which `take` panics is stale, the others go on.
fn each_cell<'a, A>(view: SliceView<'a, A>, stale: &mut [bool], mut take: impl FnMut(u32, &'a A)) {
    let mut from = 0;
    loop {
        let mut at = from;
        let done = guarded_call(|| {
            view.for_each_from(from, |slot, acc| {
                at = slot;
                take(slot, acc);
            });
        });
        if done.is_ok() {
            return;
        }
        stale[at as usize] = true;
        from = at + 1;
    }
}
