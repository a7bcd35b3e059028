//! Windowed join: rows of one key that fall into the same window.
//!
//! Rows wait, by time, until their last window is over. When the watermark reaches a window's last instant, its rows meet, key
//! by key: a pair that lies in several sliding windows together is a result of each of them.
//!
//! Invariant: a window fires once; its results have its last instant as their time and leave by (key bytes, left row, right
//! row), rows by (time, arrival), left rows that stay alone in their place and right ones behind the key's left rows. A row is
//! late when all its windows have fired, as in the window operator, and leaves by its side's late port, counted.

use super::assigner::{SliceLayout, Window, saturate};
use crate::env::{Bug, planted};
use crate::error::Result;
use crate::observe::{Counter, LATE};
use crate::operators::joins::{JoinKind, LEFT, Matches, PairKernel, take_in};
use crate::operators::{Behind, OpenContext, Operator, OperatorFactory, Output, Progress};
use crate::record::{Batch, BatchBox};
use crate::state::{AppendTable, Table, Waiting};
use crate::time::EventTime;
use std::sync::Arc;

/// A join of two streams with keys of one type over windows. `kernel` makes a kernel per task.
pub fn window_join<N: PairKernel>(layout: SliceLayout, kind: JoinKind, kernel: impl Fn() -> N + Send + Sync + 'static) -> OperatorFactory {
    Arc::new(move || {
        let kernel = kernel();
        Box::new(WindowJoin {
            layout,
            table: AppendTable::new("rows", 2, &kernel.schema()).with_key(kernel.key()),
            matches: Matches::new(kind, kernel),
            progress: Progress::default(),
            late: Counter::default(),
            behind: Behind::default(),
            max_parallelism: 1,
            slots: Vec::new(),
            rows: Vec::new(),
            scratch: Vec::new(),
        })
    })
}

struct WindowJoin<N> {
    layout: SliceLayout,
    table: AppendTable,
    matches: Matches<N>,
    progress: Progress,
    late: Counter,
    /// Keys that were taken over and whose windows have not fired as far as those of the others.
    behind: Behind,
    max_parallelism: u16,
    slots: Vec<u32>,
    /// Of the window that fires.
    rows: Vec<Waiting>,
    scratch: Vec<u8>,
}

/// Windows with a last instant up to this have fired.
fn fired_to(watermark: Option<EventTime>) -> i128 {
    match watermark {
        None => i128::from(i64::MIN) - 1,
        Some(EventTime::MAX) => i128::from(i64::MAX) * 4,
        Some(watermark) => i128::from(watermark.0),
    }
}

impl<N: PairKernel> WindowJoin<N> {
    /// The first window that holds rows and whose last instant is after `after`.
    fn next_window(&self, after: i128) -> Option<Window> {
        let next = self.layout.window_not_before(after + 1);
        let mut from = Some(saturate(next.first));
        while let Some(time) = from.and_then(|from| self.table.next_time_from(from)) {
            let window = self.layout.first_window(time).max(next);
            if window.holds(time) {
                return Some(window);
            }
            from = time.0.checked_add(1).map(EventTime);
        }
        None
    }

    /// Of keys that had come as far as the window's end before (`before`, unless they are behind) it has fired.
    fn fire(&mut self, window: Window, before: Option<EventTime>, out: &mut Output<'_>) -> Result<()> {
        let mut rows = std::mem::take(&mut self.rows);
        self.table.waiting_within(window.start(), window.fires_at(), &mut rows);
        let mut fired = Ok(());
        for key in rows.chunk_by(|a, b| a.slot == b.slot) {
            let had = self.behind.of(self.table.index().group(key[0].slot, self.max_parallelism), before);
            if fired.is_ok() && fired_to(had) < window.last {
                fired = self.fire_key(key, window.fires_at(), out);
            }
        }
        self.rows = rows;
        fired
    }

    /// The rows of one key, left before right.
    fn fire_key(&mut self, rows: &[Waiting], time: EventTime, out: &mut Output<'_>) -> Result<()> {
        let (table, matches) = (&self.table, &mut self.matches);
        let (lefts, rights) = rows.split_at(rows.partition_point(|row| table.side(row.row) == LEFT));
        let read = |rows: &[Waiting]| rows.iter().map(|row| table.bytes_of(row.row)).collect::<Result<Vec<_>>>();
        let (lefts, rights) = (read(lefts)?, read(rights)?);
        matches.meet_all(lefts.iter().map(|row| &**row), rights.iter().map(|row| &**row), time, out)
    }
}

impl<N: PairKernel> Operator for WindowJoin<N> {
    fn open(&mut self, context: &OpenContext) -> Result<()> {
        self.late = context.metrics.counter(LATE, context.operator.as_str(), context.index);
        self.progress.owns(&context.groups);
        self.max_parallelism = context.max_parallelism;
        self.matches.kernel().check()
    }

    fn tables(&mut self) -> Vec<&mut dyn Table> {
        vec![&mut self.table]
    }

    fn on_batch(&mut self, input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let (layout, progress) = (self.layout, self.progress);
        let is_late = |time| progress.is_late(time) && progress.is_late(layout.last_window(time).fires_at());
        let kernel = self.matches.kernel();
        let to = (&mut self.table, &mut self.slots, &mut self.scratch);
        let encode = |batch: &dyn Batch, row: usize, bytes: &mut Vec<u8>| kernel.encode(input, batch, row, bytes);
        take_in((input, input), batch, encode, is_late, to, &self.late, out)
    }

    fn on_watermark(&mut self, watermark: EventTime, out: &mut Output<'_>) -> Result<()> {
        let before = self.progress.watermark();
        if !self.progress.advance(watermark) {
            return Ok(());
        }
        let (mut fired, due) = (fired_to(self.behind.least().unwrap_or(before)), fired_to(self.progress.watermark()));
        while let Some(window) = self.next_window(fired).filter(|window| window.last <= due) {
            self.fire(window, before, out)?;
            fired = window.last;
        }
        self.behind.clear();
        // Before the first window that has not fired, no row is of use.
        if let Some(over) = self.layout.window_not_before(due + 1).first.checked_sub(1).filter(|over| *over >= i128::from(i64::MIN)) {
            self.table.release_waiting(saturate(over + i128::from(planted(Bug::ReleaseEarly))))?;
        }
        self.matches.flush(out)
    }

    fn save(&mut self) -> Vec<u8> {
        self.progress.save()
    }

    fn restore(&mut self, blobs: &[Vec<u8>]) -> Result<()> {
        self.behind = self.progress.restore(blobs)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operators::joins::tests::{Event, KINDS, batch, belong, kernel, script};
    use crate::operators::joins::{LATE_LEFT_PORT, LATE_RIGHT_PORT, RIGHT};
    use crate::testing::Harness;
    use proptest::prelude::*;

    type Out = (Option<u64>, Option<u64>);

    /// With an idle split instances come differently far; windows of keys that were ahead fired again.
    #[test]
    fn instances_that_came_differently_far_fire_each_window_once() {
        let keys: Vec<u64> = (0..40).collect();
        for parallelism in 1..4 {
            let layout = SliceLayout::new(10, 5, 0).unwrap();
            let mut harness = Harness::new(&window_join(layout, JoinKind::Inner, kernel), 2);
            harness.snapshot_and_restore(2);
            let all = |time, number| batch(&keys.iter().map(|&key| (key, time, key * 3_000 + number)).collect::<Vec<_>>()).boxed();
            harness.push(LEFT, all(7, 1));
            harness.push(RIGHT, all(8, 2));
            harness.watermark_of(0, EventTime(10));
            harness.snapshot_and_restore(parallelism);
            harness.watermark(EventTime(12));
            harness.snapshot_and_restore(1);
            harness.end();
            let mut got = harness.take::<Out>(0);
            got.sort_unstable();
            let of_key = |key: &u64| [9, 14].map(|time| ((Some(key * 3_000 + 1), Some(key * 3_000 + 2)), time));
            assert_eq!(got, keys.iter().flat_map(of_key).collect::<Vec<_>>(), "parallelism {parallelism}");
        }
    }

    #[derive(Debug, Clone, Copy)]
    struct Windows {
        size: i64,
        slide: i64,
        offset: i64,
    }

    impl Windows {
        /// First and last instant of those that hold `t`.
        fn of(self, t: i64) -> Vec<(i128, i128)> {
            let (size, slide, offset, t) = (i128::from(self.size), i128::from(self.slide), i128::from(self.offset), i128::from(t));
            let newest = (t - offset).div_euclid(slide);
            (0..=size / slide + 1)
                .map(|back| (newest - back) * slide + offset)
                .filter(|first| *first <= t && t < first + size)
                .map(|first| (first, first + size - 1))
                .collect()
        }
    }

    /// A row and the windows that had not fired when it came.
    #[derive(Debug, Clone)]
    struct Taken {
        side: usize,
        key: u64,
        time: i64,
        number: u64,
        windows: Vec<(i128, i128)>,
    }

    fn clamp(t: i128) -> i64 {
        saturate(t).0
    }

    /// The definition: every window, every pair.
    fn results(kind: JoinKind, rows: &[Taken]) -> Vec<(Out, i64)> {
        let mut windows: Vec<(i128, i128)> = rows.iter().flat_map(|row| row.windows.clone()).collect();
        windows.sort_unstable();
        windows.dedup();
        let mut out = Vec::new();
        for window in windows {
            let time = clamp(window.1);
            let mut keys: Vec<u64> = rows.iter().map(|row| row.key).collect();
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                let side = |side| {
                    let mut of: Vec<_> = rows.iter().filter(|r| r.side == side && r.key == key && r.windows.contains(&window)).collect();
                    of.sort_by_key(|row| (row.time, row.number));
                    of
                };
                let (lefts, rights) = (side(LEFT), side(RIGHT));
                for left in &lefts {
                    let with: Vec<_> = rights.iter().filter(|right| belong(left.number, right.number)).collect();
                    match kind {
                        JoinKind::Semi if !with.is_empty() => out.push(((Some(left.number), None), time)),
                        JoinKind::Semi | JoinKind::Anti => {}
                        _ => out.extend(with.iter().map(|right| ((Some(left.number), Some(right.number)), time))),
                    }
                    if with.is_empty() && kind.wants_alone(LEFT) {
                        out.push(((Some(left.number), None), time));
                    }
                }
                for right in rights.iter().filter(|right| !lefts.iter().any(|left| belong(left.number, right.number))) {
                    if kind.wants_alone(RIGHT) {
                        out.push(((None, Some(right.number)), time));
                    }
                }
            }
        }
        out
    }

    fn check(kind: JoinKind, w: Windows, script: &[Event], single: bool, restore: impl Fn(usize) -> Option<u32>) {
        let layout = SliceLayout::new(w.size, w.slide, w.offset).unwrap();
        let mut harness = Harness::new(&window_join(layout, kind, kernel), 2);
        let (mut taken, mut late, mut watermark, mut number) = (Vec::new(), 0, None::<i64>, 0);
        let (mut got, mut rescaled) = (Vec::new(), false);
        let ended = [Event::Watermark(i64::MAX)];
        for (step, event) in script.iter().chain(&ended).enumerate() {
            match event {
                Event::Rows(side, list) => {
                    let mut numbered = Vec::new();
                    for &(key, time) in list {
                        number += 1;
                        numbered.push((key, time, number));
                        let mut windows = w.of(time);
                        windows.retain(|window| watermark.is_none_or(|wm| clamp(window.1) > wm));
                        if windows.is_empty() {
                            late += 1;
                        } else {
                            taken.push(Taken { side: *side, key, time, number, windows });
                        }
                    }
                    for part in numbered.chunks(if single { 1 } else { usize::MAX }) {
                        harness.push(*side, batch(part).boxed());
                        if single {
                            harness.evict(); // and all that is kept is on disk
                        }
                    }
                }
                Event::Watermark(wm) => {
                    harness.watermark(EventTime(*wm));
                    watermark = watermark.max(Some(*wm));
                }
            }
            got.extend(harness.take::<Out>(0));
            let settled = |time: i64| watermark.is_some_and(|wm| time <= wm);
            let mut expect: Vec<_> = results(kind, &taken).into_iter().filter(|(_, time)| settled(*time)).collect();
            let mut seen = got.clone();
            if rescaled {
                expect.sort_unstable();
                seen.sort_unstable();
            }
            assert_eq!(seen, expect, "after {event:?}");
            if let Some(parallelism) = restore(step) {
                harness.snapshot_and_restore(parallelism);
                rescaled |= parallelism > 1;
            }
        }
        let aside = harness.take::<(u64, u64)>(LATE_LEFT_PORT).len() + harness.take::<(u64, u64)>(LATE_RIGHT_PORT).len();
        assert_eq!((aside, harness.count(LATE)), (late, late as u64));
        harness.push(LEFT, batch(&[(99, 0, 1)]).boxed());
        assert!(harness.state_bytes() < 1024, "rows are left over after the end: {} bytes", harness.state_bytes());
    }

    fn windows() -> impl Strategy<Value = Windows> {
        (1i64..12, 0i64..4, 0i64..12, -9i64..9).prop_map(|(slide, times, more, offset)| Windows {
            size: slide * times + more.max(slide),
            slide,
            offset,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn a_windowed_join_is_what_the_definition_says(kind in 0usize..6, w in windows(), script in script()) {
            check(KINDS[kind], w, &script, false, |_| None);
            check(KINDS[kind], w, &script, true, |_| None);
        }

        #[test]
        fn snapshots_anywhere_change_nothing(
            kind in 0usize..6,
            w in windows(),
            script in script(),
            on in proptest::collection::vec(proptest::option::of(1u32..4), 26),
        ) {
            check(KINDS[kind], w, &script, false, |step| on[step].map(|_| 1));
            check(KINDS[kind], w, &script, false, |step| on[step]);
        }
    }
}
