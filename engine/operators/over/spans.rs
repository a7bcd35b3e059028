//! Frames that are spans of event time: the rows themselves are the state, written once and released by the watermark.
//!
//! Invariant: at a row's turn exactly the rows of its key that are at most a span earlier are kept. Marks, which are part of
//! their state, name the newest row before the boundary of a key's [`Stacks`] and the rows that could not be folded; so the
//! stacks can be made again of the rows.

use super::kernel::{OverKernel, Place, Results};
use super::stacks::{Stacks, TimedRow};
use super::{Frames, ROWS, order_peers};
use crate::env::{Bug, planted};
use crate::error::Result;
use crate::operators::Output;
use crate::state::{AppendTable, RowId, Table, Waiting};
use crate::time::EventTime;
use std::borrow::Cow;

/// A mark: the newest row before the boundary.
const BOUNDARY: u8 = 1;
/// A mark: the row was rejected at its turn. It leaves with its span.
const REJECTED: u8 = 2;

/// See the module's header.
pub(super) struct Spans<A> {
    /// Milliseconds.
    span: i64,
    /// By slot of the table of rows; a key without kept rows has none.
    stacks: Vec<Option<Stacks<A>>>,
}

/// The kept rows of a key that were folded, the oldest first.
fn folded(rows: &AppendTable, slot: u32) -> Vec<RowId> {
    let chain = std::iter::successors(rows.first(ROWS, slot), |&row| rows.after(row));
    chain.filter(|&row| rows.mark(row) != REJECTED).collect()
}

/// Rows with their times.
struct Read<'a>(Vec<(Cow<'a, [u8]>, EventTime)>);

impl<'a> Read<'a> {
    fn of(rows: &'a AppendTable, ids: &[RowId]) -> Result<Self> {
        ids.iter().map(|&row| Ok((rows.bytes_of(row)?, rows.time(row)))).collect::<Result<_>>().map(Read)
    }

    fn timed(&self) -> Vec<TimedRow<'_>> {
        self.0.iter().map(|(bytes, time)| (&**bytes, *time)).collect()
    }
}

impl<A: Clone> Spans<A> {
    pub(super) fn new(span: i64) -> Self {
        Spans { span: span.max(0), stacks: Vec::new() }
    }

    fn put(&mut self, slot: u32, stacks: Stacks<A>) {
        if self.stacks.len() <= slot as usize {
            self.stacks.resize_with(slot as usize + 1, || None);
        }
        self.stacks[slot as usize] = Some(stacks);
    }

    fn take(&mut self, slot: u32) -> Option<Stacks<A>> {
        self.stacks.get_mut(slot as usize).and_then(Option::take)
    }

    /// Kept rows at or before `until` leave.
    fn let_go<K: OverKernel<Acc = A>>(&mut self, rows: &mut AppendTable, until: EventTime, kernel: &K) -> Result<()> {
        while let Some(row) = rows.take_over(ROWS, until) {
            let slot = rows.slot(row);
            if let Some(mut stacks) = self.take(slot) {
                if rows.mark(row) != REJECTED && !stacks.pop() {
                    let left = folded(rows, slot);
                    stacks.move_boundary(kernel, &Read::of(rows, &left)?.timed())?;
                    if let Some(&newest) = left.last().filter(|_| !planted(Bug::ForgetBoundary)) {
                        rows.set_mark(newest, BOUNDARY)?;
                    }
                }
                if rows.first(ROWS, slot).is_some() {
                    self.put(slot, stacks);
                }
            }
            rows.release(row)?;
        }
        Ok(())
    }

    /// Rows of one key and time have their turn.
    fn turn<K: OverKernel<Acc = A>>(
        &mut self,
        rows: &mut AppendTable,
        peers: &mut [Waiting],
        time: EventTime,
        results: &mut Results<K>,
        out: &mut Output<'_>,
    ) -> Result<()> {
        order_peers(results.kernel(), rows, peers)?;
        let slot = peers[0].slot;
        let mut stacks = self.take(slot).unwrap_or_default();
        let mut in_frame = Vec::with_capacity(peers.len());
        for peer in peers.iter() {
            let done = stacks.push(results.kernel(), (&rows.bytes_of(peer.row)?, time))?;
            if let Err(error) = done {
                out.reject(None, time, error)?;
                rows.set_mark(peer.row, REJECTED)?;
                let before = folded(rows, slot);
                stacks.refold(results.kernel(), &Read::of(rows, &before[stacks.before()..])?.timed())?;
            } else {
                in_frame.push(peer.row);
            }
            rows.keep(peer.row);
        }
        let total = stacks.total(results.kernel());
        for (index, &row) in in_frame.iter().enumerate() {
            let place = Place { index, peers: in_frame.len() };
            results.emit(&rows.bytes_of(row)?, total.as_ref(), place, time, out)?;
        }
        drop(total);
        self.put(slot, stacks);
        Ok(())
    }
}

impl<K: OverKernel> Frames<K> for Spans<K::Acc> {
    fn table(&mut self) -> Option<&mut dyn Table> {
        None
    }

    fn advance(&mut self, rows: &mut AppendTable, watermark: EventTime, results: &mut Results<K>, out: &mut Output<'_>) -> Result<()> {
        let mut due = Vec::new();
        while let Some(time) = rows.next_time().filter(|&time| time <= watermark) {
            let early = i64::from(planted(Bug::ForgetRowsEarly));
            if let Some(before) = time.0.checked_sub(self.span - early).and_then(|first| first.checked_sub(1)) {
                self.let_go(rows, EventTime(before), results.kernel())?;
            }
            rows.take_due(time, &mut due);
            for peers in due.chunk_by_mut(|a, b| a.slot == b.slot) {
                self.turn(rows, peers, time, results, out)?;
            }
        }
        // Rows to come are behind the watermark.
        let over = if watermark == EventTime::MAX { Some(i64::MAX) } else { watermark.0.checked_sub(self.span) };
        if let Some(over) = over {
            self.let_go(rows, EventTime(over), results.kernel())?;
            rows.set_floor(ROWS, EventTime(over).plus_ms(1));
        }
        Ok(())
    }

    fn restore(&mut self, rows: &mut AppendTable, had_turn: &dyn Fn(&AppendTable, u32) -> Option<EventTime>, kernel: &K) -> Result<()> {
        let (mut due, mut waiting, mut slots) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(time) = rows.take_due(EventTime::MAX, &mut due) {
            for peers in due.chunk_by_mut(|a, b| a.slot == b.slot) {
                let slot = peers[0].slot;
                if planted(Bug::RepeatTurns) || had_turn(rows, slot).is_none_or(|until| time > until) {
                    waiting.push((time, peers.to_vec()));
                    continue;
                }
                order_peers(kernel, rows, peers)?;
                peers.iter().for_each(|peer| rows.keep(peer.row));
                slots.push(slot);
            }
        }
        waiting.into_iter().for_each(|(time, peers)| rows.wait_again(time, &peers));
        slots.sort_unstable();
        slots.dedup();
        for slot in slots {
            let all = folded(rows, slot);
            let before = all.iter().rposition(|&row| rows.mark(row) == BOUNDARY).map_or(0, |newest| newest + 1);
            self.put(slot, Stacks::of(kernel, &Read::of(rows, &all)?.timed(), before)?);
        }
        Ok(())
    }
}
