//! The window operator against the definition of a window: a list of rows, loops, and no slices.

use super::{Accumulate, Aggregate, LATE_PORT, SliceLayout, Sliding, Tumbling, WindowAssigner, Windowed, window};
use crate::observe::LATE;
use crate::operators::{ErrorPolicy, OperatorFactory};
use crate::record::{Keys, Rows};
use crate::testing::{Harness, Mode, Step};
use crate::time::EventTime;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

type Row = (u64, i64);
/// Key, start, end, values in order of arrival within each slice.
type Result = (u64, i64, i64, Vec<i64>);

fn layout(size: i64, slide: i64, offset: i64) -> Layout {
    Layout { size, slide, offset }
}

#[derive(Debug, Clone, Copy)]
struct Layout {
    size: i64,
    slide: i64,
    offset: i64,
}

impl WindowAssigner for Layout {
    fn layout(&self) -> crate::error::Result<SliceLayout> {
        SliceLayout::new(self.size, self.slide, self.offset)
    }
    fn describe(&self) -> String {
        format!("{self:?}")
    }
}

/// Keeps every value, so that a lost, doubled or misplaced row shows.
fn collecting(windows: Layout, lateness: i64) -> OperatorFactory {
    let aggregate = Aggregate::new(
        Vec::new,
        |all: &mut Vec<i64>, row: &Row| {
            assert!(row.1 != POISON, "poison");
            all.push(row.1);
        },
        |all: &mut Vec<i64>, later: &Vec<i64>| all.extend(later),
        |all: &Vec<i64>| all.clone(),
    );
    window::<u64, _>(&windows, Duration::from_millis(lateness as u64), aggregate).unwrap()
}

/// The same of a type that owns no memory, for which the operator keeps running aggregates: a set of numbers below 128.
fn numbered(windows: Layout, lateness: i64) -> OperatorFactory {
    type Set = (u64, u64, u32);
    let add = |set: &mut Set, value: i64| {
        let half = if value < 64 { &mut set.0 } else { &mut set.1 };
        *half |= 1 << (value % 64);
        set.2 += 1;
    };
    let list = |set: &Set| -> Vec<i64> { (0..128).filter(|v| (if *v < 64 { set.0 } else { set.1 }) >> (v % 64) & 1 == 1).collect() };
    let aggregate = Aggregate::new(
        || (0, 0, 0),
        move |set: &mut Set, row: &Row| add(set, row.1),
        |set: &mut Set, later: &Set| *set = (set.0 | later.0, set.1 | later.1, set.2 + later.2),
        move |set: &Set| {
            assert_eq!(list(set).len(), set.2 as usize, "a row counts twice");
            list(set)
        },
    );
    window::<u64, _>(&windows, Duration::from_millis(lateness as u64), aggregate).unwrap()
}

/// What rows come to depends on their order; 13 may not be merged. With a list beside it, which owns memory.
type Ordered = (u64, Vec<i64>);

fn in_order() -> impl Accumulate<Row = Row, Acc = Ordered, Out = Vec<i64>> {
    Aggregate::new(
        || (1, Vec::new()),
        |all: &mut Ordered, row: &Row| *all = (mixed(all.0, row.1), [&all.1[..], &[row.1]].concat()),
        |all: &mut Ordered, later: &Ordered| {
            assert!(!later.1.contains(&13), "unlucky");
            all.0 = later.1.iter().fold(all.0, |sum, value| mixed(sum, *value));
            all.1.extend(&later.1);
        },
        |all: &Ordered| all.1.clone(),
    )
}

fn mixed(sum: u64, value: i64) -> u64 {
    sum.wrapping_mul(31).wrapping_add(value as u64)
}

/// Affine maps: fixed in size, and not to be merged the other way round. 13 may not be merged.
#[expect(clippy::borrowed_box, reason = "an accumulator that owns memory, as small as one that does not")]
fn affine<const OWNS_MEMORY: bool>(windows: Layout, lateness: i64) -> OperatorFactory {
    type Map = (u64, u64);
    let row = |row: &Row| (2 * (row.1 as u64) + 3, row.1 as u64 ^ 5);
    let then = |a: Map, b: Map| (a.0.wrapping_mul(b.0), a.1.wrapping_mul(b.0).wrapping_add(b.1));
    let checked = move |a: Map, b: Map| {
        assert!(b.1 != 13 ^ 5, "unlucky");
        then(a, b)
    };
    let late = Duration::from_millis(lateness as u64);
    if OWNS_MEMORY {
        let aggregate = Aggregate::new(
            || Box::new((1, 0)),
            move |all: &mut Box<Map>, r: &Row| **all = then(**all, row(r)),
            move |all: &mut Box<Map>, later: &Box<Map>| **all = checked(**all, **later),
            |all: &Box<Map>| **all,
        );
        return window::<u64, _>(&windows, late, aggregate).unwrap();
    }
    let aggregate = Aggregate::new(
        || (1, 0),
        move |all: &mut Map, r: &Row| *all = then(*all, row(r)),
        move |all: &mut Map, later: &Map| *all = checked(*all, *later),
        |all: &Map| *all,
    );
    window::<u64, _>(&windows, late, aggregate).unwrap()
}

/// A row with this value makes the aggregate panic.
const POISON: i64 = i64::MIN;

fn rows(rows: &[(u64, i64, i64)]) -> Rows<Row> {
    let times = rows.iter().map(|r| EventTime(r.1)).collect();
    let mut batch = Rows::new(rows.iter().map(|r| (r.0, r.2)).collect(), times);
    batch.keys = Some(Keys::encode(rows.iter().map(|r| r.0).collect::<Vec<_>>().into_iter()));
    batch
}

fn results(harness: &mut Harness) -> Vec<(Result, i64)> {
    let flat = |w: Windowed<u64, Vec<i64>>| (w.key, w.start.0, w.end.0, w.value);
    harness.take::<Windowed<u64, Vec<i64>>>(0).into_iter().map(|(w, time)| (flat(w), time)).collect()
}

/// What may be compared between all modes: instances emit side by side, so order holds per instance only.
type Sorted = (Vec<(Result, i64)>, Vec<(Row, i64)>, u64);

fn sorted(harness: &mut Harness) -> Sorted {
    let mut results = results(harness);
    results.sort();
    let mut late = harness.take::<Row>(LATE_PORT);
    late.sort_unstable();
    (results, late, harness.count(LATE))
}

/// A step of a random script.
#[derive(Debug, Clone)]
enum Event {
    Rows(Vec<(u64, i64)>),
    Watermark(i64),
}

/// The definition. Returns the newest result per (window, key), how often each fired, and the late rows.
#[derive(Default)]
struct Model {
    wm: Option<i64>,
    /// By (last instant, first instant, key): values.
    windows: BTreeMap<(i128, i128, u64), Vec<(i64, i64)>>,
    fired: Vec<(Result, i64)>,
    late: Vec<(Row, i64)>,
}

impl Model {
    fn windows_of(w: Layout, t: i64) -> Vec<(i128, i128)> {
        let (size, slide, offset, t) = (i128::from(w.size), i128::from(w.slide), i128::from(w.offset), i128::from(t));
        let newest = (t - offset).div_euclid(slide);
        (0..=size / slide + 1)
            .map(|back| (newest - back) * slide + offset)
            .filter(|first| *first <= t && t < first + size)
            .map(|first| (first + size - 1, first))
            .collect()
    }

    fn clamp(t: i128) -> i64 {
        t.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
    }

    fn row(&mut self, w: Layout, lateness: i64, (key, t, value): (u64, i64, i64)) {
        let over = |last: i128| self.wm.is_some_and(|wm| Self::clamp(last).saturating_add(lateness) <= wm);
        let windows = Self::windows_of(w, t);
        if windows.iter().all(|(last, _)| over(*last)) {
            return self.late.push(((key, value), t));
        }
        let open: Vec<_> = windows.into_iter().filter(|(last, _)| !over(*last)).collect();
        for (last, first) in open {
            self.windows.entry((last, first, key)).or_default().push((t, value));
            if self.wm.is_some_and(|wm| Self::clamp(last) <= wm) {
                self.fire(last, first, key);
            }
        }
    }

    fn fire(&mut self, last: i128, first: i128, key: u64) {
        let mut values: Vec<i64> = self.windows[&(last, first, key)].iter().map(|(_, v)| *v).collect();
        values.sort_unstable();
        let result = (key, Self::clamp(first), Self::clamp(last + 1), values);
        self.fired.push((result, Self::clamp(last)));
    }

    fn watermark(&mut self, wm: i64) {
        if self.wm.is_some_and(|old| wm <= old) {
            return;
        }
        let due = |last: i128| Self::clamp(last) <= wm && self.wm.is_none_or(|old| Self::clamp(last) > old);
        let fire: Vec<_> = self.windows.keys().copied().filter(|(last, ..)| due(*last)).collect();
        for (last, first, key) in fire {
            self.fire(last, first, key);
        }
        self.wm = Some(wm);
    }
}

/// Runs a script through model and operator. `restore(step)` says on how many instances to go on after a step, if at all; on
/// none means that all leaves memory that may.
fn check(
    make: impl Fn(Layout, i64) -> OperatorFactory,
    (w, lateness): (Layout, i64),
    script: &[Event],
    single: bool,
    restore: impl Fn(usize) -> Option<u32>,
) {
    let mut model = Model::default();
    let mut harness = Harness::new(&make(w, lateness), 1);
    let (mut got, mut value) = (Vec::new(), 0);
    for (step, event) in script.iter().enumerate() {
        match event {
            Event::Rows(list) => {
                let numbered: Vec<_> = list
                    .iter()
                    .map(|(key, t)| {
                        (*key, *t, {
                            value += 1;
                            value
                        })
                    })
                    .collect();
                numbered.iter().for_each(|row| model.row(w, lateness, *row));
                for part in numbered.chunks(if single { 1 } else { usize::MAX }) {
                    harness.push(0, rows(part).boxed());
                }
            }
            Event::Watermark(wm) => {
                harness.watermark(EventTime(*wm));
                model.watermark(*wm);
            }
        }
        got.extend(results(&mut harness));
        match restore(step) {
            None => {}
            Some(0) => harness.evict(),
            Some(parallelism) => harness.snapshot_and_restore(parallelism),
        }
    }
    harness.end();
    model.watermark(i64::MAX);
    got.extend(results(&mut harness));
    for ((.., values), _) in &mut got {
        values.sort_unstable();
    }
    if single {
        // Row by row, every single firing is defined.
        let mut expect = model.fired.clone();
        expect.sort();
        let mut got = got.clone();
        got.sort();
        assert_eq!(got, expect);
    }
    // However batched: nothing fires but what the definition says, and the newest result of each window is the same.
    let newest = |all: &[(Result, i64)]| -> BTreeMap<(i64, i64, u64, i64), Vec<i64>> {
        all.iter().map(|((key, start, end, v), time)| ((*end, *start, *key, *time), v.clone())).collect()
    };
    let (got_newest, expect) = (newest(&got), newest(&model.fired));
    assert_eq!(got_newest, expect);
    let mut late = harness.take::<Row>(LATE_PORT);
    late.sort_unstable();
    model.late.sort_unstable();
    assert_eq!(late, model.late);
    assert_eq!(harness.count(LATE), model.late.len() as u64);
    if lateness == 0 {
        assert_eq!(got.len(), expect.len(), "a window fired twice");
    }
    // Conservation: every row is late or in the newest result of some window.
    let mut seen: Vec<i64> = got_newest.into_values().flatten().chain(late.iter().map(|((_, v), _)| *v)).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, (1..=value).collect::<Vec<_>>());
    // The next batch, late like all from now on, takes the slots of keys away that held nothing.
    harness.push(0, rows(&[(99, 0, 0)]).boxed());
    assert!(harness.state_bytes() < 1024, "slices are left over after the end: {} bytes", harness.state_bytes());
}

fn time() -> impl Strategy<Value = i64> {
    prop_oneof![
        8 => -60i64..60,
        1 => i64::MIN..i64::MIN + 40,
        1 => i64::MAX - 40..=i64::MAX,
    ]
}

fn script() -> impl Strategy<Value = Vec<Event>> {
    let rows = proptest::collection::vec((0u64..4, time()), 1..6).prop_map(Event::Rows);
    let watermark = prop_oneof![8 => -70i64..70, 1 => i64::MIN..i64::MIN + 40, 1 => i64::MAX - 40..i64::MAX].prop_map(Event::Watermark);
    proptest::collection::vec(prop_oneof![3 => rows, 1 => watermark], 0..25)
}

fn windows() -> impl Strategy<Value = Layout> {
    (1i64..12, 0i64..4, 0i64..12, -9i64..9).prop_map(|(slide, times, more, offset)| layout(slide * times + more.max(slide), slide, offset))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn windows_are_what_the_definition_says(w in windows(), lateness in prop_oneof![Just(0i64), 1i64..30], script in script()) {
        for make in [collecting, numbered] {
            check(make, (w, lateness), &script, false, |_| None);
            check(make, (w, lateness), &script, true, |_| None);
            check(make, (w, lateness), &script, true, |_| Some(0));
        }
    }

    #[test]
    fn snapshots_anywhere_change_nothing(
        w in windows(),
        lateness in prop_oneof![Just(0i64), 1i64..30],
        script in script(),
        on in proptest::collection::vec(proptest::option::of(0u32..4), 25),
    ) {
        for make in [collecting, numbered] {
            check(make, (w, lateness), &script, false, |step| on[step]);
        }
    }

    /// Running aggregates against merging each window from its slices: the same rows in the same order, however often the one
    /// of them is restored or leaves memory, and the same rejections.
    #[test]
    fn running_aggregates_change_nothing(
        (w, lateness) in (windows(), 0i64..12),
        script in script(),
        on in proptest::collection::vec(0u8..3, 25),
    ) {
        let drive = |factory: &OperatorFactory, restores: bool| {
            let mut h = Harness::new(factory, 1);
            let mut value = 0;
            for (step, event) in script.iter().enumerate() {
                match event {
                    Event::Rows(list) => {
                        let list: Vec<_> = list.iter().map(|(key, t)| { value += 1; (*key, *t, value) }).collect();
                        h.push(0, rows(&list).boxed());
                    }
                    Event::Watermark(wm) => h.watermark(EventTime(*wm)),
                }
                match on[step] {
                    1 if restores => h.snapshot_and_restore(1),
                    2 if restores => h.evict(),
                    _ => {}
                }
            }
            h.end();
            h
        };
        let taken = |h: &mut Harness| {
            let rejected: Vec<i64> = h.take_rejected().iter().map(|r| r.time).collect();
            let rows: Vec<_> = h.take::<Windowed<u64, (u64, u64)>>(0).into_iter().map(|(w, t)| (w.key, w.start, w.end, w.value, t)).collect();
            (rows, rejected)
        };
        let expect = taken(&mut drive(&affine::<true>(w, lateness), false));
        prop_assert_eq!(&taken(&mut drive(&affine::<false>(w, lateness), false)), &expect);
        prop_assert_eq!(&taken(&mut drive(&affine::<false>(w, lateness), true)), &expect);

        // With an outline, only what is wanted is put together, and it is all there.
        let wanted = |sum: u64| !sum.is_multiple_of(3);
        let late = Duration::from_millis(lateness as u64);
        let lists = |h: &mut Harness| -> Vec<_> {
            h.take::<Windowed<u64, Vec<i64>>>(0).into_iter().map(|(w, t)| (w.key, w.start, w.end, w.value, t)).collect()
        };
        let mut all = drive(&window::<u64, _>(&w, late, in_order()).unwrap(), false);
        let sum = |list: &[i64]| list.iter().fold(1, |sum, value| mixed(sum, *value));
        let expect: Vec<_> = lists(&mut all).into_iter().filter(|r| wanted(sum(&r.3))).collect();
        let outlined = in_order().only_if(|all| (all.0, all.1.clone()), move |all| wanted(all.0));
        let outlined = window::<u64, _>(&w, late, outlined).unwrap();
        prop_assert_eq!(&lists(&mut drive(&outlined, false)), &expect);
        prop_assert_eq!(&lists(&mut drive(&outlined, true)), &expect);
    }
}

/// Fires at wm = end - 1 and not before; a row is late from there on and not before.
#[test]
fn the_boundary_is_exact() {
    for (wm, fires) in [(8, 0), (9, 1), (10, 1)] {
        let mut h = Harness::new(&collecting(layout(10, 10, 0), 0), 1);
        h.push(0, rows(&[(1, 9, 1)]).boxed());
        h.watermark(EventTime(wm));
        assert_eq!(results(&mut h).len(), fires, "watermark {wm}");
        for (t, late) in [(wm - 1, true), (wm, true), (wm + 1, false)] {
            let mut h = Harness::new(&collecting(layout(1, 1, 0), 0), 1);
            h.watermark(EventTime(wm));
            h.push(0, rows(&[(1, t, 1)]).boxed());
            assert_eq!(h.count(LATE) == 1, late, "row {t} at watermark {wm}");
        }
    }
}

/// A batch of old and new rows: the old ones are late, the new ones count.
#[test]
fn batches_may_be_mixed() {
    let steps = [
        Step::watermark(99),
        Step::rows(rows(&[(1, 5, 1), (1, 100, 2), (2, 50, 3), (2, 120, 4), (1, 101, 5)])),
        Step::watermark(119),
        Step::watermark(500),
    ];
    let (results, late, count) = Harness::in_every_mode(&collecting(layout(20, 10, 0), 0), 1, &steps, sorted);
    assert_eq!(late, [((1, 1), 5), ((2, 3), 50)]);
    assert_eq!(count, 2);
    let expect = [(1, 90, 110, vec![2, 5]), (1, 100, 120, vec![2, 5]), (2, 110, 130, vec![4]), (2, 120, 140, vec![4])];
    assert_eq!(results.into_iter().map(|(r, _)| r).collect::<Vec<_>>(), expect);
}

#[test]
fn results_come_in_order_of_end_and_key() {
    let mut h = Harness::new(&collecting(layout(10, 5, 0), 0), 1);
    h.push(0, rows(&[(300, 12, 1), (2, 3, 2), (1, 14, 3), (2, 12, 4)]).boxed());
    h.end();
    let order: Vec<_> = results(&mut h).into_iter().map(|((key, _, end, _), _)| (end, key)).collect();
    assert_eq!(order, [(5, 2), (10, 2), (15, 1), (15, 2), (15, 300), (20, 1), (20, 2), (20, 300)]);
}

/// Lateness: an updated result at once, the same window, the whole value; then late for good.
#[test]
fn allowed_lateness_fires_again() {
    let steps = [
        Step::rows(rows(&[(1, 1, 1), (2, 2, 2)])),
        Step::watermark(9),
        Step::rows(rows(&[(1, 3, 3)])),
        Step::watermark(13),
        Step::rows(rows(&[(1, 4, 4)])),
        Step::watermark(14),
        Step::rows(rows(&[(1, 5, 5)])),
    ];
    let (results, late, _) = Harness::in_every_mode(&collecting(layout(10, 10, 0), 5), 1, &steps, sorted);
    let values: Vec<_> = results.into_iter().map(|((key, .., v), time)| (key, v, time)).collect();
    assert_eq!(values, [(1, vec![1], 9), (1, vec![1, 3], 9), (1, vec![1, 3, 4], 9), (2, vec![2], 9)]);
    assert_eq!(late, [((1, 5), 5)]);
}

#[test]
fn a_poison_row_costs_itself_only() {
    let steps = [
        Step::rows(rows(&[
            (1, 1, POISON),
            (1, 2, 10),
            (2, 3, POISON),
            (3, 4, 30),
            (3, 5, POISON),
            (3, 6, 31),
            (4, 25, POISON),
            (4, 26, 40),
        ])),
        Step::rows(rows(&[(2, 7, POISON), (5, 8, 50)])),
        Step::End,
    ];
    let (results, rejected) = Harness::in_every_mode(&collecting(layout(10, 10, 0), 0), 1, &steps, |h| {
        let mut rejected: Vec<i64> = h.take_rejected().iter().map(|r| r.time).collect();
        rejected.sort_unstable();
        (sorted(h).0, rejected)
    });
    let expect = [(1, 0, 10, vec![10]), (3, 0, 10, vec![30, 31]), (4, 20, 30, vec![40]), (5, 0, 10, vec![50])];
    assert_eq!(results.into_iter().map(|(r, _)| r).collect::<Vec<_>>(), expect);
    assert_eq!(rejected, [1, 3, 5, 7, 25]);
}

#[test]
fn under_policy_fail_the_job_stops() {
    let mut h = Harness::with_policy(&collecting(layout(10, 10, 0), 0), 1, ErrorPolicy::Fail);
    let error = h.try_push(0, rows(&[(1, 1, POISON)]).boxed()).unwrap_err();
    assert!(error.to_string().contains("poison"), "{error}");
    assert!(error.report().contains("operator harness/0"), "{}", error.report());
}

/// In many batches of results, with text keys.
#[test]
fn many_keys_leave_in_several_batches() {
    let count = Aggregate::new(|| 0u64, |n: &mut u64, _: &String| *n += 1, |n: &mut u64, m: &u64| *n += m, |n: &u64| *n);
    let windows = Sliding::of(Duration::from_millis(20)).every(Duration::from_millis(10));
    let factory = window::<String, _>(&windows, Duration::ZERO, count).unwrap();
    let names: Vec<String> = (0..5000).map(|i| format!("key {i}")).collect();
    let mut batch = Rows::new(names.clone(), vec![EventTime(5); 5000]);
    batch.keys = Some(Keys::encode(names.into_iter()));
    let mut h = Harness::new(&factory, 1);
    h.run(&[Step::rows(batch), Step::watermark(9)], Mode::Restored);
    let batches: Vec<usize> = h.take_batches(Some(0)).iter().map(|b| b.len()).collect();
    assert_eq!(batches, [4096, 904]);
    h.run(&[Step::End], Mode::Restored);
    let second = h.take::<Windowed<String, u64>>(0);
    assert_eq!(second.len(), 5000);
    assert!(second.is_sorted_by(|a, b| a.0.key < b.0.key));
    assert_eq!((second[0].0.start, second[0].0.end, *second[0].0), (EventTime(0), EventTime(20), 1));
}

/// Windows that are wanted for few keys: looked at where they lie, and in the order of keys all the same.
#[test]
fn few_results_of_many_keys_come_in_order() {
    let wanted = |sum: &i64| sum % 250 == 0;
    let sums = Aggregate::new(|| 0, |sum: &mut i64, row: &Row| *sum += row.1, |sum: &mut i64, later: &i64| *sum += later, |sum: &i64| *sum);
    let factory = window::<u64, _>(&layout(50, 10, 0), Duration::ZERO, sums.only_if(|sum| *sum, wanted)).unwrap();
    let keys: Vec<u64> = (1..=210).map(|key| key * 37 % 211).collect();
    for mode in [Mode::Whole, Mode::Restored] {
        let mut h = Harness::new(&factory, 1);
        let steps: Vec<Step> = (0..10)
            .flat_map(|second: i64| {
                let row = |key: &u64| (*key, second * 10, *key as i64);
                [Step::rows(rows(&keys.iter().map(row).collect::<Vec<_>>())), Step::watermark(second * 10 + 9)]
            })
            .chain([Step::End])
            .collect();
        h.run(&steps, mode);
        let got: Vec<_> = h.take::<Windowed<u64, i64>>(0).into_iter().map(|(w, _)| (w.end.0, w.key, w.value)).collect();
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        let expect: Vec<_> = (1..=14)
            .flat_map(|n: i64| {
                let slices = n.min(10) - (n - 5).max(0);
                let result = move |key: &u64| (n * 10, *key, slices * *key as i64);
                sorted.iter().map(result).filter(|result| wanted(&result.2)).collect::<Vec<_>>()
            })
            .collect();
        assert!(expect.len() > 20 && expect.len() < 14 * keys.len() / 16);
        assert_eq!(got, expect);
    }
}

#[test]
fn a_damaged_watermark_is_refused() {
    let mut operator = collecting(Layout { size: 1, slide: 1, offset: 0 }, 0)();
    assert!(operator.restore(&[vec![1, 2, 3]]).is_err());
    assert!(window::<u64, _>(&Tumbling::of(Duration::ZERO), Duration::ZERO, unit()).is_err());
}

/// Found by the simulator: with an idle split instances come differently far, a restore took the smallest watermark for all, and
/// windows that one of them had fired and dropped began anew with what came next.
#[test]
fn instances_that_came_differently_far_do_not_begin_windows_anew() {
    let keys: Vec<u64> = (0..40).collect();
    for (slide, parallelism) in [(10, 1), (10, 2), (10, 3), (5, 1), (5, 2)] {
        let mut harness = Harness::new(&collecting(layout(10, slide, 0), 0), 1);
        harness.snapshot_and_restore(2);
        let all = |time, value| rows(&keys.iter().map(|&key| (key, time, value)).collect::<Vec<_>>()).boxed();
        harness.push(0, all(7, 1));
        harness.watermark_of(0, EventTime(29));
        let mut fired = results(&mut harness);
        harness.snapshot_and_restore(parallelism);
        harness.push(0, all(8, 2));
        harness.watermark(EventTime(29));
        fired.extend(results(&mut harness));
        let windows = 10 / slide as usize;
        assert_eq!(fired.len(), windows * keys.len(), "each window of each key fires once");
        // Only an instance that takes over nothing from the one that was ahead still takes the later rows.
        let with_late = fired.iter().filter(|((.., values), _)| values.contains(&2)).count();
        assert_eq!(with_late > 0, parallelism > 1, "slide {slide}, parallelism {parallelism}");
        assert!(fired.iter().all(|((.., values), _)| values.contains(&1)), "a window lost what it held");
    }
}

fn unit() -> impl Accumulate {
    Aggregate::new(|| (), |_: &mut (), _: &u64| (), |_: &mut (), _: &()| (), |_: &()| ())
}
