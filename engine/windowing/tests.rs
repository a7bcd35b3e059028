//! The window operator against the definition of a window: a list of rows, loops, and no slices.

use super::{Aggregate, LATE_PORT, SliceLayout, Sliding, Tumbling, WindowAssigner, Windowed, window};
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

/// Runs a script through model and operator. `restore(step)` says on how many instances to go on after a step, if at all.
fn check(w: Layout, lateness: i64, script: &[Event], single: bool, restore: impl Fn(usize) -> Option<u32>) {
    let mut model = Model::default();
    let mut harness = Harness::new(&collecting(w, lateness), 1);
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
        if let Some(parallelism) = restore(step) {
            harness.snapshot_and_restore(parallelism);
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
        check(w, lateness, &script, false, |_| None);
        check(w, lateness, &script, true, |_| None);
    }

    #[test]
    fn snapshots_anywhere_change_nothing(
        w in windows(),
        lateness in prop_oneof![Just(0i64), 1i64..30],
        script in script(),
        on in proptest::collection::vec(proptest::option::of(1u32..4), 25),
    ) {
        check(w, lateness, &script, false, |step| on[step]);
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

#[test]
fn a_damaged_watermark_is_refused() {
    let mut operator = collecting(Layout { size: 1, slide: 1, offset: 0 }, 0)();
    assert!(operator.restore(&[vec![1, 2, 3]]).is_err());
    assert!(window::<u64, _>(&Tumbling::of(Duration::ZERO), Duration::ZERO, unit()).is_err());
}

fn unit() -> impl super::Accumulate {
    Aggregate::new(|| (), |_: &mut (), _: &u64| (), |_: &mut (), _: &()| (), |_: &()| ())
}
