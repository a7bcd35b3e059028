//! Windows that are kept each for itself, against their definition: a list of windows, loops, and every firing spelled out.

use super::{Aggregate, Firing, Global, LATE_PORT, Session, SliceLayout, WindowAssigner, WindowOptions, Windowed, Windows};
use crate::observe::{LATE, Metrics};
use crate::operators::{ErrorPolicy, OpenContext, OperatorFactory, Targets};
use crate::record::{Keys, OperatorId, Rows};
use crate::testing::{Harness, Mode, SimMachine, Step};
use crate::time::EventTime;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

type Row = (u64, i64);
/// Key, start, end, values (sorted), time.
type Result = (u64, i64, i64, Vec<i64>, i64);

/// A row with this value makes the aggregate panic; the gap of one with the next is nothing.
const POISON: i64 = i64::MIN;
const NO_GAP: i64 = i64::MIN + 1;

/// How often windows fire by the wall clock, where they do.
const EVERY_MS: i64 = 1000;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Session(i64),
    /// 1 + value % 9.
    SessionByRow,
    /// Size, slide, offset.
    Aligned(i64, i64, i64),
    /// Size in steps, step.
    Cumulative(i64, i64),
    Global,
}

#[derive(Debug, Clone, Copy, Default)]
struct Fires {
    every: bool,
    rows: Option<u64>,
    /// At values that are multiples of it.
    when: Option<i64>,
    discarding: bool,
}

#[derive(Debug, Clone, Copy)]
struct Case {
    kind: Kind,
    lateness: i64,
    fires: Fires,
}

struct Layout(SliceLayout);

impl WindowAssigner for Layout {
    fn layout(&self) -> crate::error::Result<SliceLayout> {
        Ok(self.0)
    }
    fn describe(&self) -> String {
        "test".into()
    }
}

fn gap(value: i64) -> i64 {
    if value == NO_GAP { 0 } else { 1 + value.rem_euclid(9) }
}

/// Keeps every value, so that a lost, doubled or misplaced row shows.
fn collecting() -> impl super::Accumulate<Row = Row, Out = Vec<i64>> {
    Aggregate::new(
        Vec::new,
        |all: &mut Vec<i64>, row: &Row| {
            assert!(row.1 != POISON, "poison");
            all.push(row.1);
        },
        |all: &mut Vec<i64>, later: &Vec<i64>| all.extend(later),
        |all: &Vec<i64>| {
            let mut all = all.clone();
            all.sort_unstable();
            all
        },
    )
}

impl Case {
    fn operator(self) -> OperatorFactory {
        let Fires { every, rows, when, discarding } = self.fires;
        let when = when.map(|n| Arc::new(move |row: &Row, _: &super::PaneInfo| row.1 % n == 0) as super::FireWhen<Row>);
        let every = every.then(|| Duration::from_millis(EVERY_MS as u64));
        let firing = Firing { every, rows, when, discarding };
        let options = WindowOptions { allowed_lateness: Duration::from_millis(self.lateness as u64), firing };
        let aligned = |layout: crate::error::Result<SliceLayout>, options| {
            Windows::operator::<u64, _>(&Layout(layout.unwrap()), options, collecting())
        };
        match self.kind {
            Kind::Session(gap) => Session::gap(Duration::from_millis(gap as u64)).operator::<u64, _>(options, collecting()),
            Kind::SessionByRow => {
                Session::gap_by(|row: &Row| Duration::from_millis(gap(row.1) as u64)).operator::<u64, _>(options, collecting())
            }
            Kind::Aligned(size, slide, offset) => aligned(SliceLayout::new(size, slide, offset), options),
            Kind::Cumulative(steps, step) => aligned(SliceLayout::cumulative(steps * step, step, 0), options),
            Kind::Global => Global.operator::<u64, _>(options, collecting()),
        }
        .unwrap()
    }
}

#[derive(Debug, Clone)]
struct Window {
    key: u64,
    first: i64,
    last: i64,
    values: Vec<i64>,
    since: u64,
}

struct Model {
    case: Case,
    wm: Option<i64>,
    windows: Vec<Window>,
    touched: Vec<(u64, i64, i64)>,
    fired: Vec<Result>,
    late: Vec<(Row, i64)>,
}

impl Model {
    fn end(&self, w: &Window) -> i64 {
        if self.case.kind == Kind::Global { i64::MAX } else { w.last }
    }

    fn is_past(&self, end: i64) -> bool {
        self.wm.is_some_and(|wm| end <= wm)
    }

    fn is_over(&self, end: i64) -> bool {
        self.is_past(end.saturating_add(self.case.lateness))
    }

    fn clamp(t: i128) -> i64 {
        t.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
    }

    /// What a row claims: the spans, and whether it takes in what they overlap.
    fn claims(&self, t: i64, value: i64) -> Vec<(i64, i64)> {
        let all = |size: i64, step: i64, grows: bool, offset: i64| {
            let (size, step, offset, t) = (i128::from(size), i128::from(step), i128::from(offset), i128::from(t));
            let newest = (t - offset).div_euclid(step);
            (newest - size / step - 1..=newest + size / step + 1)
                .map(|n| {
                    // Cumulative windows are named by their last step.
                    let last = (n + 1) * step - 1 + offset;
                    if grows {
                        ((last - offset).div_euclid(size) * size + offset, last)
                    } else {
                        (n * step + offset, n * step + offset + size - 1)
                    }
                })
                .filter(|(first, last)| *first <= t && t <= *last)
                .map(|(first, last)| (Self::clamp(first), Self::clamp(last)))
                .collect()
        };
        match self.case.kind {
            Kind::Session(gap) => vec![(t, t.saturating_add(gap - 1))],
            Kind::SessionByRow => vec![(t, t.saturating_add(gap(value) - 1))],
            Kind::Aligned(size, slide, offset) => all(size, slide, false, offset),
            Kind::Cumulative(steps, step) => {
                // Those that are cut at the end of time are one.
                let mut all: Vec<(i64, i64)> = all(steps * step, step, true, 0);
                all.dedup();
                all
            }
            Kind::Global => vec![(t, t)],
        }
    }

    fn row(&mut self, key: u64, t: i64, value: i64) {
        let mut taken = false;
        for (first, last) in self.claims(t, value) {
            let joins = |w: &Window| {
                w.key == key
                    && match self.case.kind {
                        Kind::Session(_) | Kind::SessionByRow => w.first <= last && first <= w.last,
                        Kind::Aligned(..) | Kind::Cumulative(..) => (w.first, w.last) == (first, last),
                        Kind::Global => true,
                    }
            };
            let mut new = Window { key, first, last, values: Vec::new(), since: 0 };
            let joined: Vec<Window> = self.windows.iter().filter(|w| joins(w)).cloned().collect();
            if joined.is_empty() && self.is_over(self.end(&new)) {
                continue;
            }
            taken = true;
            self.windows = self.windows.iter().filter(|w| !joins(w)).cloned().collect();
            for w in joined {
                (new.first, new.last) = (new.first.min(w.first), new.last.max(w.last));
                new.values.extend(w.values);
                new.since += w.since;
            }
            new.values.push(value);
            new.since += 1;
            let fires = self.case.fires.rows.is_some_and(|n| new.since >= n) || self.case.fires.when.is_some_and(|n| value % n == 0);
            if self.is_past(self.end(&new)) {
                self.touched.push((key, new.first, new.last));
                self.windows.push(new);
            } else if fires {
                self.fire(new);
            } else {
                self.windows.push(new);
            }
        }
        if !taken {
            self.late.push(((key, value), t));
        }
    }

    /// Shows a window and puts it back, where it stays.
    fn fire(&mut self, mut w: Window) {
        let mut values = w.values.clone();
        values.sort_unstable();
        self.fired.push((w.key, w.first, w.last.saturating_add(1), values, w.last));
        w.since = 0;
        if self.case.fires.discarding {
            w.values.clear();
            if !matches!(self.case.kind, Kind::Session(_) | Kind::SessionByRow) {
                return;
            }
        }
        self.windows.push(w);
    }

    fn fire_all(&mut self, which: impl Fn(&Self, &Window) -> bool) {
        let (fire, keep): (Vec<Window>, Vec<Window>) = self.windows.clone().into_iter().partition(|w| which(self, w));
        self.windows = keep;
        fire.into_iter().for_each(|w| self.fire(w));
    }

    /// Windows that had fired and were given rows by the batch that ends fire again.
    fn end_batch(&mut self) {
        let touched: BTreeSet<_> = std::mem::take(&mut self.touched).into_iter().collect();
        self.fire_all(|_, w| touched.contains(&(w.key, w.first, w.last)));
    }

    fn watermark(&mut self, wm: i64) {
        if self.wm.is_some_and(|old| wm <= old) {
            return;
        }
        let old = self.wm;
        self.wm = Some(wm);
        self.fire_all(|me, w| {
            let end = me.end(w);
            end <= wm && old.is_none_or(|old| end > old) && (w.since > 0 || !me.case.fires.discarding)
        });
        self.windows = self.windows.clone().into_iter().filter(|w| !self.is_over(self.end(w))).collect();
    }

    fn tick(&mut self) {
        if self.case.fires.every {
            self.fire_all(|me, w| w.since > 0 && !me.is_past(me.end(w)));
        }
    }
}

fn rows(rows: &[(u64, i64, i64)]) -> Rows<Row> {
    let times = rows.iter().map(|r| EventTime(r.1)).collect();
    let mut batch = Rows::new(rows.iter().map(|r| (r.0, r.2)).collect(), times);
    batch.keys = Some(Keys::encode(rows.iter().map(|r| r.0).collect::<Vec<_>>().into_iter()));
    batch
}

fn results(harness: &mut Harness) -> Vec<Result> {
    let flat = |(w, time): (Windowed<u64, Vec<i64>>, i64)| (w.key, w.start.0, w.end.0, w.value, time);
    harness.take::<Windowed<u64, Vec<i64>>>(0).into_iter().map(flat).collect()
}

#[derive(Debug, Clone)]
enum Event {
    Rows(Vec<(u64, i64)>),
    Watermark(i64),
    Tick,
}

/// Runs a script through model and operator, and compares every firing after every step. `restore(step)` says on how many
/// instances to go on after a step, if at all.
fn check(case: Case, script: &[Event], single: bool, restore: impl Fn(usize) -> Option<u32>) {
    let mut model = Model { case, wm: None, windows: Vec::new(), touched: Vec::new(), fired: Vec::new(), late: Vec::new() };
    let mut harness = Harness::new(&case.operator(), 1);
    let (mut value, mut wall) = (0, 0);
    let compare = |model: &mut Model, harness: &mut Harness, what: &dyn std::fmt::Debug| {
        let (mut got, mut expect) = (results(harness), std::mem::take(&mut model.fired));
        got.sort();
        expect.sort();
        assert_eq!(got, expect, "after {what:?}");
    };
    for (step, event) in script.iter().enumerate() {
        match event {
            Event::Rows(list) => {
                let numbered: Vec<_> = list.iter().zip(value + 1..).map(|((key, t), value)| (*key, *t, value)).collect();
                value += list.len() as i64;
                for part in numbered.chunks(if single { 1 } else { usize::MAX }) {
                    harness.push(0, rows(part).boxed());
                    part.iter().for_each(|(key, t, value)| model.row(*key, *t, *value));
                    model.end_batch();
                }
            }
            Event::Watermark(wm) => {
                harness.watermark(EventTime(*wm));
                model.watermark(*wm);
            }
            Event::Tick => {
                wall += EVERY_MS;
                harness.wall_time(wall);
                model.tick();
            }
        }
        compare(&mut model, &mut harness, event);
        if let Some(parallelism) = restore(step) {
            harness.snapshot_and_restore(parallelism);
        }
    }
    harness.end();
    model.watermark(i64::MAX);
    compare(&mut model, &mut harness, &"the end");
    let mut late = harness.take::<Row>(LATE_PORT);
    late.sort_unstable();
    model.late.sort_unstable();
    assert_eq!(late, model.late);
    assert_eq!(harness.count(LATE), model.late.len() as u64);
    // What was removed is remembered until its epoch is stored.
    harness.snapshot_and_restore(1);
    harness.push(0, rows(&[(99, 0, 0)]).boxed());
    if case.kind != Kind::Global {
        assert!(harness.state_bytes() < 1024, "windows are left over after the end: {} bytes", harness.state_bytes());
    }
}

fn time() -> impl Strategy<Value = i64> {
    prop_oneof![16 => -60i64..60, 1 => i64::MIN..i64::MIN + 40, 1 => i64::MAX - 40..=i64::MAX]
}

fn script() -> impl Strategy<Value = Vec<Event>> {
    let rows = proptest::collection::vec((0u64..3, time()), 1..6).prop_map(Event::Rows);
    let watermark = prop_oneof![8 => -70i64..70, 1 => i64::MIN..i64::MIN + 40, 1 => i64::MAX - 40..i64::MAX].prop_map(Event::Watermark);
    proptest::collection::vec(prop_oneof![6 => rows, 2 => watermark, 1 => Just(Event::Tick)], 0..25)
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        3 => (1i64..25).prop_map(Kind::Session),
        1 => Just(Kind::SessionByRow),
        2 => (1i64..12, 0i64..20, -9i64..9).prop_map(|(slide, more, offset)| Kind::Aligned(slide + more, slide, offset)),
        1 => (1i64..5, 1i64..9).prop_map(|(steps, step)| Kind::Cumulative(steps, step)),
        1 => Just(Kind::Global),
    ]
}

fn fires() -> impl Strategy<Value = Fires> {
    (any::<bool>(), proptest::option::of(1u64..5), proptest::option::of(2i64..6), any::<bool>())
        .prop_map(|(every, rows, when, discarding)| Fires { every, rows, when, discarding })
}

/// All kinds as they are (those of the clock run on slices then), and with firings in between.
fn cases() -> impl Strategy<Value = Case> {
    let lateness = || prop_oneof![Just(0i64), 1i64..30];
    let fires = prop_oneof![1 => Just(Fires::default()), 2 => fires()];
    (kinds(), lateness(), fires).prop_map(|(kind, lateness, fires)| {
        let lateness = if kind == Kind::Global { 0 } else { lateness };
        Case { kind, lateness, fires }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn windows_are_what_the_definition_says(case in cases(), script in script()) {
        check(case, &script, false, |_| None);
        check(case, &script, true, |_| None);
    }

    #[test]
    fn snapshots_anywhere_change_nothing(case in cases(), script in script(), on in proptest::collection::vec(proptest::option::of(1u32..4), 25)) {
        check(case, &script, false, |step| on[step]);
    }
}

fn sessions(gap: i64, lateness: i64) -> Case {
    Case { kind: Kind::Session(gap), lateness, fires: Fires::default() }
}

/// Fires at watermark end - 1 and not before; a row exactly a gap behind begins a new session, before and after that.
#[test]
fn the_boundary_of_a_session_is_exact() {
    for (wm, fires) in [(8, 0), (9, 1), (10, 1)] {
        let mut h = Harness::new(&sessions(10, 0).operator(), 1);
        h.push(0, rows(&[(1, 0, 1)]).boxed());
        h.watermark(EventTime(wm));
        assert_eq!(results(&mut h).len(), fires, "watermark {wm}");
        h.push(0, rows(&[(1, 10, 2)]).boxed());
        h.end();
        let all: Vec<_> = results(&mut h).into_iter().map(|(_, start, end, values, _)| (start, end, values)).collect();
        assert_eq!(all.last(), Some(&(10, 20, vec![2])), "watermark {wm}");
        for (t, late) in [(wm - 10, true), (wm - 9, true), (wm - 8, false)] {
            let mut h = Harness::new(&sessions(10, 0).operator(), 1);
            h.watermark(EventTime(wm));
            h.push(0, rows(&[(1, t, 1)]).boxed());
            assert_eq!(h.count(LATE) == 1, late, "row {t} at watermark {wm}");
        }
    }
}

/// A row between two sessions makes them one; a late one joins what is still open, and no other.
#[test]
fn sessions_merge_in_any_order() {
    let steps = [
        Step::rows(rows(&[(1, 0, 1), (1, 18, 2), (2, 30, 3)])),
        Step::rows(rows(&[(1, 9, 4)])),
        Step::watermark(20),
        // Its own time is over, but it lies within the session that is open.
        Step::rows(rows(&[(1, 5, 5), (2, 5, 6)])),
        Step::watermark(27),
        Step::End,
    ];
    let (results, late) = Harness::in_every_mode(&sessions(10, 0).operator(), 1, &steps, |h| {
        let mut results = results(h);
        results.sort();
        (results, h.take::<Row>(LATE_PORT))
    });
    assert_eq!(results, [(1, 0, 28, vec![1, 2, 4, 5], 27), (2, 30, 40, vec![3], 39)]);
    assert_eq!(late, [((2, 6), 5)]);
}

/// Ordered by end, start and key, over many keys and several rounds of due times.
#[test]
fn results_come_in_order_of_end_and_key() {
    let mut h = Harness::new(&sessions(100, 0).operator(), 1);
    let all: Vec<(u64, i64, i64)> = (0..5000).map(|i| (i * 7919 % 5000, (i as i64 * 31) % 50, i as i64)).collect();
    h.push(0, rows(&all).boxed());
    // Most of them grow, so that they are looked at twice.
    let more: Vec<(u64, i64, i64)> = all.iter().filter(|r| r.0 % 3 > 0).map(|(key, t, v)| (*key, t + 20, *v)).collect();
    h.push(0, rows(&more).boxed());
    h.watermark(EventTime(155));
    h.watermark(EventTime(1000));
    let order: Vec<_> = results(&mut h).into_iter().map(|(key, start, _, _, time)| (time, start, key)).collect();
    assert_eq!(order.len(), 5000);
    assert!(order.is_sorted());
}

/// A row that makes a function panic changes nothing: no sessions are joined by it, none is made, none grows.
#[test]
fn a_poison_row_costs_itself_only() {
    let case = Case { kind: Kind::SessionByRow, lateness: 0, fires: Fires::default() };
    let steps = [
        // Gaps: 9 ms for 8, 17 and 26, 2 ms for the poison: it would join the first two.
        Step::rows(rows(&[(1, 0, 8), (1, 9, 17), (1, 8, POISON), (2, 5, POISON), (3, 5, NO_GAP), (4, 1, 8), (4, 2, POISON)])),
        Step::rows(rows(&[(1, 21, 26), (1, 21, NO_GAP)])),
        Step::End,
    ];
    let (results, rejected) = Harness::in_every_mode(&case.operator(), 1, &steps, |h| {
        let mut rejected: Vec<(i64, bool)> = h.take_rejected().iter().map(|r| (r.time, r.error.contains("gap"))).collect();
        rejected.sort_unstable();
        let mut results = results(h);
        results.sort();
        (results, rejected)
    });
    assert_eq!(results, [(1, 0, 9, vec![8], 8), (1, 9, 18, vec![17], 17), (1, 21, 30, vec![26], 29), (4, 1, 10, vec![8], 9)]);
    assert_eq!(rejected, [(2, false), (5, false), (5, true), (8, false), (21, true)]);
}

/// Early results show the window so far, or what is new; the one at the end comes in any case, if there is something to show.
#[test]
fn early_results_accumulate_or_discard() {
    for (discarding, expect) in
        [(false, vec![vec![1, 2], vec![1, 2, 3, 4], vec![1, 2, 3, 4, 5]]), (true, vec![vec![1, 2], vec![3, 4], vec![5]])]
    {
        let fires = Fires { rows: Some(2), discarding, ..Fires::default() };
        let case = Case { kind: Kind::Aligned(10, 10, 0), lateness: 0, fires };
        let steps = [Step::rows(rows(&[(1, 1, 1), (1, 2, 2), (1, 3, 3)])), Step::rows(rows(&[(1, 4, 4), (1, 5, 5)])), Step::watermark(9)];
        let got = Harness::in_every_mode(&case.operator(), 1, &steps, |h| results(h).into_iter().map(|r| r.3).collect::<Vec<_>>());
        assert_eq!(got, expect);
    }
}

/// By the wall clock: once a tick for what changed, and not for what did not.
#[test]
fn early_results_by_the_wall_clock() {
    let fires = Fires { every: true, ..Fires::default() };
    let case = Case { kind: Kind::Aligned(10, 10, 0), lateness: 0, fires };
    let steps = [
        Step::WallTime(500),
        Step::rows(rows(&[(1, 1, 1), (2, 1, 2)])),
        Step::WallTime(EVERY_MS),
        Step::rows(rows(&[(1, 2, 3)])),
        Step::WallTime(2 * EVERY_MS),
        Step::WallTime(3 * EVERY_MS),
        Step::watermark(9),
    ];
    let mut h = Harness::new(&case.operator(), 1);
    h.run(&steps, Mode::Whole);
    let got: Vec<_> = results(&mut h).into_iter().map(|r| (r.0, r.3)).collect();
    assert_eq!(got, [(1, vec![1]), (2, vec![2]), (1, vec![1, 3]), (1, vec![1, 3]), (2, vec![2])]);
}

/// A late row goes to a session that has fired, and the next row of its batch opens that session again: the next tick shows
/// it. Found by a random script; the key was taken for one that had been seen.
#[test]
fn a_session_opened_again_by_a_late_batch_is_shown_early() {
    let case = Case { kind: Kind::Session(19), lateness: 4, fires: Fires { every: true, ..Fires::default() } };
    let script = [Event::Tick, Event::Watermark(57), Event::Rows(vec![(1, 36), (1, 40)]), Event::Tick];
    check(case, &script, false, |_| None);
    check(case, &script, true, |_| None);
}

/// Another operator of the task may have it called too early, and the clock may be set back.
#[test]
fn early_results_keep_their_pace() {
    let firing = Firing { every: Some(Duration::from_millis(EVERY_MS as u64)), ..Firing::default() };
    let options = WindowOptions { firing, ..WindowOptions::default() };
    let mut operator = Global.operator::<u64, _>(options, collecting()).unwrap()();
    let context = OpenContext {
        operator: OperatorId::new("pace"),
        index: 0,
        parallelism: 1,
        max_parallelism: 16,
        groups: 0..16,
        policy: ErrorPolicy::Fail,
        env: SimMachine::new(1).env(),
        metrics: Metrics::default(),
    };
    let mut out = Targets::new(&context, vec![Vec::new()], Vec::new());
    let hour = 3_600_000;
    let asked = [(hour, 1000), (hour + 50, 950), (hour + 1000, 1000), (0, 1000), (999, 1), (1000, 1000)];
    for (wall, after) in asked {
        assert_eq!(operator.on_time(wall, &mut out.output()).unwrap(), Some(wall + after), "at {wall}");
    }
}

/// Keys of nothing and of a megabyte, in operators of all three sorts.
#[test]
fn keys_may_be_empty_or_large() {
    let large = "k".repeat(1 << 20);
    let count = super::aggregates::count::<String>;
    let options = WindowOptions::default;
    let all = [
        super::Tumbling::of(Duration::from_millis(10)).operator::<String, _>(options(), count()).unwrap(),
        Session::gap(Duration::from_millis(10)).operator::<String, _>(options(), count()).unwrap(),
        super::Count::of(2).operator::<String, _>(options(), count()).unwrap(),
    ];
    for windows in all {
        let names = vec![String::new(), large.clone(), String::new()];
        let mut batch = Rows::new(names.clone(), [0, 1, 2].map(EventTime).to_vec());
        batch.keys = Some(Keys::encode(names.into_iter()));
        let mut got = Harness::in_every_mode(&windows, 0, &[Step::rows(batch), Step::End], |h| {
            let mut all: Vec<(usize, u64)> = h.take::<Windowed<String, u64>>(0).into_iter().map(|(w, _)| (w.key.len(), w.value)).collect();
            all.sort_unstable();
            all
        });
        got.sort_unstable();
        assert_eq!(got, [(0, 2), (1 << 20, 1)]);
    }
}

/// The day on which Berlin's clocks go forward has 23 hours, in results as well as for lateness.
#[test]
fn a_day_ends_at_midnight_by_the_wall() {
    let hour = 3_600_000;
    let day = 1_774_738_800_000; // 2026-03-28T23:00Z, midnight in Berlin
    let days = super::Calendar::day().in_zone("Europe/Berlin").unwrap();
    let windows = days.operator::<u64, _>(WindowOptions::default(), collecting()).unwrap();
    let steps = [
        Step::rows(rows(&[(1, day - 1, 1), (1, day, 2), (1, day + 23 * hour - 1, 3), (1, day + 23 * hour, 4)])),
        Step::watermark(day + 23 * hour - 2),
        Step::watermark(day + 23 * hour - 1),
        Step::rows(rows(&[(1, day + 23 * hour - 1, 5)])),
    ];
    let (got, late) = Harness::in_every_mode(&windows, 1, &steps, |h| (results(h), h.count(LATE)));
    let got: Vec<_> = got.into_iter().map(|r| ((r.2 - r.1) / hour, r.3, r.4)).collect();
    assert_eq!(got, [(24, vec![1], day - 1), (23, vec![2, 3], day + 23 * hour - 1)]);
    assert_eq!(late, 1);
}

/// Windows of one millisecond and of ten years, and more lateness than window.
#[test]
fn windows_may_be_tiny_or_huge_and_lateness_larger() {
    for size in [1, 10 * 366 * 86_400_000] {
        let case = Case { kind: Kind::Aligned(size, size, 0), lateness: 3 * size, fires: Fires::default() };
        let steps = [
            Step::rows(rows(&[(1, 0, 1), (1, -1, 2)])),
            Step::watermark(size),
            Step::rows(rows(&[(1, 0, 3)])),
            Step::watermark(4 * size - 1),
            Step::rows(rows(&[(1, 0, 4)])),
        ];
        let got = Harness::in_every_mode(&case.operator(), 1, &steps, |h| (results(h), h.count(LATE)));
        let first = (1, -size, 0, vec![2], -1);
        assert_eq!(got, (vec![first, (1, 0, size, vec![1], size - 1), (1, 0, size, vec![1, 3], size - 1)], 1));
    }
}

#[test]
fn nonsense_is_refused() {
    let refused = |windows: &dyn Fn() -> crate::error::Result<OperatorFactory>| windows().err().unwrap().report();
    let early = |rows| WindowOptions { firing: Firing { rows: Some(rows), ..Firing::default() }, ..WindowOptions::default() };
    let error = refused(&|| Session::gap(Duration::ZERO).operator::<u64, _>(WindowOptions::default(), collecting()));
    assert!(error.contains("at least 1 ms"), "{error}");
    let error = refused(&|| Global.operator::<u64, _>(early(0), collecting()));
    assert!(error.contains("each 0 rows"), "{error}");
    let hour = Layout(SliceLayout::new(3_600_000, 1000, 0).unwrap());
    let error = refused(&|| Windows::operator::<u64, _>(&hour, early(5), collecting()));
    assert!(error.contains("3600 windows"), "{error}");
}
