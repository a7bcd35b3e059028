//! OVER windows against their definition: a sorted list of rows, and loops over those before each.

use super::*;
use crate::env::{Bug, with_bug};
use crate::observe::LATE;
use crate::record::{Keys, Rows};
use crate::testing::{Harness, Mode, Step};
use proptest::prelude::*;

/// Key and number.
type Row = (u64, u64);
/// Number of the row, and the numbers of its frame in order.
type Seen = (u64, Vec<u64>);

/// Numbers that cannot be folded.
fn is_poison(number: u64) -> bool {
    number.is_multiple_of(7)
}

/// The numbers of a frame, in order: wrong in any order but the right one, and if a row is missing or twice. Where frames move
/// on, what a row has done before it failed is undone.
struct List {
    moves: bool,
}

impl OverFunctions for List {
    type Row = Row;
    type Acc = Vec<u64>;
    type Out = Seen;

    fn create(&self) -> Vec<u64> {
        Vec::new()
    }
    fn fold(&self, acc: &mut Vec<u64>, row: &Row, _time: EventTime) {
        if is_poison(row.1) {
            if self.moves {
                acc.clear();
            }
            panic!("poison");
        }
        acc.push(row.1);
    }
    fn merge(&self, acc: &mut Vec<u64>, later: &Vec<u64>) {
        acc.extend(later);
    }
    fn result(&self, row: &Row, acc: &Vec<u64>, place: Place) -> Option<Seen> {
        assert!((1..=acc.len()).contains(&place.peers));
        Some((row.1, acc.clone()))
    }
}

fn factory(frame: Frame, ttl_ms: Option<i64>, tied: bool) -> OperatorFactory {
    let options = OverOptions { frame, ttl_ms, keys: None };
    let backwards = move || tied.then(|| tie(|row: &Row| u64::MAX - row.1));
    let moves = matches!(frame, Frame::Rows(Some(_)) | Frame::Range(Some(_)));
    over(options, move || Ok(TypedOver::new(Arc::new(List { moves }), backwards())))
}

fn batch(rows: &[(u64, i64, u64)]) -> Rows<Row> {
    let mut batch = Rows::new(rows.iter().map(|r| (r.0, r.2)).collect(), rows.iter().map(|r| EventTime(r.1)).collect());
    batch.keys = Some(Keys::encode(rows.iter().map(|r| r.0).collect::<Vec<_>>().into_iter()));
    batch
}

#[derive(Debug, Clone)]
enum Event {
    /// Key and time of each row.
    Rows(Vec<(u64, i64)>),
    Watermark(i64),
}

/// Time, key and number, not late.
type Taken = (i64, u64, u64);

/// What the definition says, in the order in which results leave; all rows are due.
fn results(frame: Frame, ttl: Option<i64>, tied: bool, rows: &[Taken]) -> Vec<(Seen, i64)> {
    let all = rows;
    let mut rows: Vec<Taken> = rows.iter().copied().filter(|row| !is_poison(row.2)).collect();
    rows.sort_by_key(|&(time, key, number)| (time, key, if tied { u64::MAX - number } else { number }));
    let mut out = Vec::new();
    for (at, &(time, key, number)) in rows.iter().enumerate() {
        let of_key = |end: usize| rows[..end].iter().filter(|row| row.1 == key).copied().collect::<Vec<_>>();
        let with_peers = rows.iter().rposition(|row| row.0 == time && row.1 == key).unwrap() + 1;
        let mut seen = match frame {
            Frame::Rows(_) => of_key(at + 1),
            Frame::Range(_) => of_key(with_peers),
        };
        if let Some(ttl) = ttl {
            // A gap as long as that forgets what was before it; a row that was rejected is a row here.
            let mut times: Vec<i64> = all.iter().filter(|row| row.1 == key && row.0 <= time).map(|row| row.0).collect();
            times.sort_unstable();
            let gap = times.windows(2).rposition(|pair| pair[0].saturating_add(ttl) <= pair[1]);
            let from = gap.map_or(i64::MIN, |at| times[at + 1]);
            seen.retain(|row| row.0 >= from);
        }
        match frame {
            Frame::Rows(Some(n)) => drop(seen.drain(..seen.len().saturating_sub(n as usize + 1))),
            Frame::Range(Some(span)) => seen.retain(|row| i128::from(row.0) >= i128::from(time) - i128::from(span)),
            _ => {}
        }
        out.push(((number, seen.into_iter().map(|row| row.2).collect()), time));
    }
    out
}

/// Runs a script; `restore(step)` says on how many instances to go on after a step, if at all.
fn check(frame: Frame, ttl: Option<i64>, tied: bool, script: &[Event], single: bool, restore: impl Fn(usize) -> Option<u32>) {
    let mut harness = Harness::new(&factory(frame, ttl, tied), 1);
    let (mut taken, mut late, mut watermark, mut number) = (Vec::new(), Vec::new(), None::<i64>, 0);
    let (mut got, mut rescaled) = (Vec::new(), false);
    for (step, event) in script.iter().chain(&[Event::Watermark(i64::MAX)]).enumerate() {
        match event {
            Event::Rows(list) => {
                let mut numbered = Vec::new();
                for &(key, time) in list {
                    number += 1;
                    numbered.push((key, time, number));
                    if watermark.is_some_and(|wm| time <= wm) {
                        late.push(((key, number), time));
                    } else {
                        taken.push((time, key, number));
                    }
                }
                for part in numbered.chunks(if single { 1 } else { usize::MAX }) {
                    harness.push(0, batch(part).boxed());
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
        got.extend(harness.take::<Seen>(0));
        let due: Vec<Taken> = taken.iter().copied().filter(|row| watermark.is_some_and(|wm| row.0 <= wm)).collect();
        let mut expect = results(frame, ttl, tied, &due);
        let mut seen = got.clone();
        if rescaled {
            expect.sort();
            seen.sort();
        }
        assert_eq!(seen, expect, "after {event:?}");
        if let Some(parallelism) = restore(step) {
            harness.snapshot_and_restore(parallelism);
            rescaled |= parallelism > 1;
        }
    }
    let mut seen = harness.take::<Row>(LATE_PORT);
    seen.sort_unstable();
    late.sort_unstable();
    assert_eq!(seen, late);
    assert_eq!(harness.count(LATE), late.len() as u64);
    assert_eq!(harness.take_rejected().len(), taken.iter().filter(|row| is_poison(row.2)).count());
    if matches!(frame, Frame::Range(Some(_))) {
        harness.push(0, batch(&[(99, 0, 1)]).boxed());
        assert!(harness.state_bytes() < 1024, "rows are left over after the end: {} bytes", harness.state_bytes());
    }
}

fn script() -> impl Strategy<Value = Vec<Event>> {
    let time = || prop_oneof![20 => -20i64..20, 1 => i64::MIN..i64::MIN + 20, 1 => i64::MAX - 20..=i64::MAX];
    let rows = proptest::collection::vec((0u64..3, time()), 1..7).prop_map(Event::Rows);
    let watermark = prop_oneof![20 => -25i64..25, 1 => i64::MIN..i64::MIN + 20, 1 => i64::MAX - 20..i64::MAX].prop_map(Event::Watermark);
    proptest::collection::vec(prop_oneof![3 => rows, 2 => watermark], 0..25)
}

fn frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        Just(Frame::Rows(None)),
        Just(Frame::Range(None)),
        (0u32..5).prop_map(|n| Frame::Rows(Some(n))),
        (0i64..15).prop_map(|ms| Frame::Range(Some(ms))),
        Just(Frame::Range(Some(i64::MAX))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_frame_is_what_the_definition_says(frame in frame(), tied: bool, script in script()) {
        check(frame, None, tied, &script, false, |_| None);
        check(frame, None, tied, &script, true, |_| None);
    }

    #[test]
    fn snapshots_anywhere_change_nothing(
        frame in frame(),
        tied: bool,
        script in script(),
        on in proptest::collection::vec(proptest::option::of(1u32..4), 26),
    ) {
        check(frame, None, tied, &script, false, |step| on[step].map(|_| 1));
        check(frame, None, tied, &script, false, |step| on[step]);
    }

    #[test]
    fn what_is_forgotten_depends_on_rows_alone(
        frame in prop_oneof![Just(Frame::Rows(None)), Just(Frame::Range(None)), (1u32..4).prop_map(|n| Frame::Rows(Some(n)))],
        ttl in 1i64..12,
        script in script(),
        on in proptest::collection::vec(proptest::option::of(1u32..4), 26),
    ) {
        check(frame, Some(ttl), false, &script, false, |_| None);
        check(frame, Some(ttl), false, &script, false, |step| on[step]);
    }
}

/// With an idle split instances come differently far: every row has one turn all the same, and sees the rows before it.
#[test]
fn instances_that_came_differently_far_repeat_nothing_and_lose_nothing() {
    let keys: Vec<u64> = (0..40).collect();
    for frame in [Frame::Rows(Some(1)), Frame::Range(Some(10)), Frame::Range(None)] {
        for parallelism in 1..4 {
            let mut harness = Harness::new(&factory(frame, None, false), 1);
            harness.snapshot_and_restore(2);
            let all = |time, number| batch(&keys.iter().map(|&key| (key, time, key * 7 + number)).collect::<Vec<_>>()).boxed();
            harness.push(0, all(7, 1));
            harness.watermark_of(0, EventTime(9));
            harness.snapshot_and_restore(parallelism);
            harness.push(0, all(15, 2));
            harness.watermark(EventTime(16));
            harness.snapshot_and_restore(1);
            harness.end();
            let mut got = harness.take::<Seen>(0);
            got.sort_unstable();
            let of_key = |key: &u64| [((key * 7 + 1, vec![key * 7 + 1]), 7), ((key * 7 + 2, vec![key * 7 + 1, key * 7 + 2]), 15)];
            assert_eq!(got, keys.iter().flat_map(of_key).collect::<Vec<_>>(), "{frame:?}, parallelism {parallelism}");
        }
    }
}

/// Sums of floating point, of which no two orders agree.
struct Sum;

impl OverFunctions for Sum {
    type Row = Row;
    type Acc = f64;
    type Out = u64;

    fn create(&self) -> f64 {
        0.0
    }
    fn fold(&self, acc: &mut f64, row: &Row, _time: EventTime) {
        *acc += 0.1 * row.1 as f64;
    }
    fn merge(&self, acc: &mut f64, later: &f64) {
        *acc += later;
    }
    fn result(&self, _row: &Row, acc: &f64, _place: Place) -> Option<u64> {
        Some(acc.to_bits())
    }
}

/// 400 rows of a key, with a watermark after every `each` of them.
fn sums(frame: Frame, each: usize, restore: bool) -> Vec<(u64, i64)> {
    let factory = over(OverOptions { frame, ttl_ms: None, keys: None }, || Ok(TypedOver::new(Arc::new(Sum), None)));
    let mut harness = Harness::new(&factory, 1);
    let rows: Vec<_> = (0..400u64).map(|n| (1, (n / 3) as i64, n)).collect();
    for part in rows.chunks(each) {
        harness.push(0, batch(part).boxed());
        harness.watermark(EventTime(part[0].1 - 1));
        if restore {
            harness.snapshot_and_restore(1);
        }
    }
    harness.end();
    harness.take(0)
}

#[test]
fn floating_point_is_equal_to_the_last_bit_whatever_the_batches_and_restarts() {
    for frame in [Frame::Range(Some(20)), Frame::Rows(Some(25))] {
        let expect = sums(frame, 400, false);
        for each in [1, 7, 50] {
            assert_eq!(sums(frame, each, false), expect, "{frame:?} {each}");
            assert_eq!(sums(frame, each, true), expect, "{frame:?} {each} restored");
        }
    }
    // Without the boundary in the state they are not.
    let forgotten = with_bug(Bug::ForgetBoundary, || sums(Frame::Range(Some(20)), 7, true));
    assert_ne!(forgotten, sums(Frame::Range(Some(20)), 7, true));
}

fn in_all_modes<F: OverFunctions<Row = Row>>(frame: Frame, make: impl Fn() -> F, steps: &[Step]) -> Vec<(F::Out, i64)>
where
    F::Out: Ord + std::fmt::Debug,
{
    let functions = Arc::new(make());
    let options = OverOptions { frame, ttl_ms: None, keys: None };
    let factory = over(options, move || Ok(TypedOver::new(functions.clone(), None)));
    Harness::in_every_mode(&factory, 1, steps, |harness| {
        let mut out = harness.take::<F::Out>(0);
        out.sort();
        out
    })
}

fn steps() -> Vec<Step> {
    vec![
        Step::rows(batch(&[(1, 10, 1), (2, 10, 2), (1, 30, 5)])),
        Step::watermark(15),
        Step::rows(batch(&[(1, 20, 3), (1, 20, 4)])),
        Step::watermark(40),
        Step::End,
    ]
}

#[test]
fn the_row_before_and_the_row_behind() {
    let pair = |row: &Row, other: Option<&Row>| (row.1, other.map(|o| o.1));
    let lag = Lag::new(1, pair);
    let before = in_all_modes(lag.frame(), || Lag::new(1, pair), &steps());
    assert_eq!(before, [((1, None), 10), ((2, None), 10), ((3, Some(1)), 20), ((4, Some(3)), 20), ((5, Some(4)), 30)]);
    let behind = in_all_modes(Frame::Rows(None), || Lead::new(2, pair), &steps());
    let end = i64::MAX;
    assert_eq!(behind, [((1, Some(4)), 20), ((2, None), end), ((3, Some(5)), 30), ((4, None), end), ((5, None), end)]);
    // The row itself.
    let same = in_all_modes(Frame::Rows(None), || Lead::new(0, pair), &steps());
    assert!(same.iter().all(|((row, other), _)| *other == Some(*row)) && same.len() == 5);
}

#[test]
fn numbers_and_ranks() {
    let number = |row: &Row, n: Numbers| (row.1, n.row, n.rank, n.dense_rank);
    let numbers = in_all_modes(Frame::Rows(None), || Numbered::new(number), &steps());
    assert_eq!(numbers, [((1, 1, 1, 1), 10), ((2, 1, 1, 1), 10), ((3, 2, 2, 2), 20), ((4, 3, 2, 2), 20), ((5, 4, 4, 3), 30)]);
}

/// A sum that does not fit costs the row with which it does not; it leaves no trace behind.
#[test]
fn an_overflow_goes_with_the_row_that_caused_it() {
    struct Checked;
    impl OverFunctions for Checked {
        type Row = Row;
        type Acc = u64;
        type Out = u64;
        fn create(&self) -> u64 {
            0
        }
        fn fold(&self, acc: &mut u64, row: &Row, _time: EventTime) {
            *acc = acc.checked_add(row.1).expect("too large");
        }
        fn merge(&self, acc: &mut u64, later: &u64) {
            *acc = acc.checked_add(*later).expect("too large");
        }
        fn result(&self, _row: &Row, acc: &u64, _place: Place) -> Option<u64> {
            Some(*acc)
        }
    }
    let rows: Vec<_> = [5, u64::MAX - 5, 1, 2, 3, 4].into_iter().enumerate().map(|(i, n)| (1, i as i64 * 10, n)).collect();
    for mode in Mode::ALL {
        let options = OverOptions { frame: Frame::Range(Some(20)), ttl_ms: None, keys: None };
        let mut harness = Harness::new(&over(options, || Ok(TypedOver::new(Arc::new(Checked), None))), 1);
        let mut steps: Vec<Step> = Vec::new();
        rows.iter().for_each(|row| steps.extend([Step::rows(batch(&[*row])), Step::watermark(row.1)]));
        harness.run(&steps, mode);
        let out: Vec<u64> = harness.take::<u64>(0).into_iter().map(|o| o.0).collect();
        assert_eq!(out, [5, u64::MAX, u64::MAX - 3, 5, 9], "{mode:?}");
        assert_eq!(harness.take_rejected().len(), 1);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let describe = |distance| {
        let options = OverOptions { frame: Frame::Rows(None), ttl_ms: None, keys: None };
        over(options, move || Ok(TypedOver::new(Arc::new(Lead::new(distance, |row: &Row, _: Option<&Row>| row.1)), None)))
    };
    let (mut one, mut two) = (describe(1)(), describe(2)());
    assert!(two.restore(&[one.save()]).unwrap_err().report().contains("lead 1"));
    let saved = one.save();
    assert!(one.restore(&[saved]).is_ok());
    assert!(one.restore(&[vec![1, 2, 3]]).is_err());
    let refused =
        over::<TypedOver<List>>(OverOptions { frame: Frame::Rows(None), ttl_ms: None, keys: None }, || Err(Error::fatal("no kernel")));
    assert!(guarded_call(|| Harness::new(&refused, 1)).is_err());
}
