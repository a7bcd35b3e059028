//! The live windows of one key where each is kept for itself: sessions, the global window, and windows that fire early.
//!
//! Invariant: `live` is in the order of (last, first); sessions among them do not overlap.

use super::assigner::SliceLayout;
use super::session::Gap;
use crate::time::EventTime;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Which rows share a window.
pub(super) enum Shape<T> {
    /// Windows that the clock makes; each row is in all that hold its time.
    Aligned(SliceLayout),
    /// Windows that grow together.
    Session(Gap<T>),
    /// One window; its span is that of its rows.
    Global,
}

impl<T> Shape<T> {
    /// The watermark at which a window is complete.
    #[inline]
    pub(super) fn end(&self, span: Span) -> EventTime {
        match self {
            Shape::Global => EventTime::MAX,
            _ => span.last,
        }
    }

    /// Whether a window's bounds say more than its rows: then it outlives what it held.
    pub(super) fn outlives_rows(&self) -> bool {
        matches!(self, Shape::Session(_))
    }
}

/// First and last instant, both inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Span {
    pub(super) first: EventTime,
    pub(super) last: EventTime,
}

impl Span {
    pub(super) fn union(self, other: Span) -> Span {
        Span { first: self.first.min(other.first), last: self.last.max(other.last) }
    }
}

/// One window of a key.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Pane<A> {
    pub(super) span: Span,
    /// Since it fired last.
    pub(super) rows: u64,
    pub(super) acc: A,
}

/// All windows of a key.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Panes<A> {
    /// When the table of due times has the key: never later than its first window fires or goes.
    pub(super) due: EventTime,
    pub(super) live: Vec<Pane<A>>,
}

impl<A> Panes<A> {
    fn place(live: &[Pane<A>], span: Span) -> usize {
        live.partition_point(|pane| (pane.span.last, pane.span.first) < (span.last, span.first))
    }

    /// The window of exactly this span, or where it would be.
    pub(super) fn exact(live: &[Pane<A>], span: Span) -> Range<usize> {
        let at = Self::place(live, span);
        at..at + usize::from(live.get(at).is_some_and(|pane| pane.span == span))
    }

    /// The sessions that a claim overlaps; they do not overlap each other, so both their ends are in order.
    pub(super) fn overlapping(live: &[Pane<A>], claim: Span) -> Range<usize> {
        let from = live.partition_point(|pane| pane.span.last < claim.first);
        let count = live[from..].partition_point(|pane| pane.span.first <= claim.last);
        from..from + count
    }
}

/// How far event time has come, and for how long windows stay after they have fired.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub(super) watermark: Option<EventTime>,
    pub(super) lateness: i64,
}

impl Clock {
    #[inline]
    pub(super) fn has_fired(self, end: EventTime) -> bool {
        self.watermark.is_some_and(|wm| end <= wm)
    }

    /// No row may come any more for a window that ends so.
    #[inline]
    pub(super) fn is_over(self, end: EventTime) -> bool {
        self.watermark.is_some_and(|wm| end.plus_ms(self.lateness) <= wm)
    }

    /// The watermark at which something happens to such a window next.
    #[inline]
    pub(super) fn due(self, end: EventTime) -> EventTime {
        if self.has_fired(end) { end.plus_ms(self.lateness) } else { end }
    }
}
