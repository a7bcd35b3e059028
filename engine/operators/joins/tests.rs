//! Joins against their definition: lists of rows, and loops over all pairs.

use super::*;
use crate::error::Result;
use crate::observe::LATE;
use crate::operators::{OperatorFactory, TABLE_INPUT};
use crate::record::{Batch, BatchBox, Change, Keys, RowKind, Rows};
use crate::testing::{Harness, Mode, Step};
use crate::time::EventTime;
use proptest::prelude::*;

/// Key and number.
type Row = (u64, u64);
type Out = (Option<u64>, Option<u64>);

pub(crate) const KINDS: [JoinKind; 6] = [JoinKind::Inner, JoinKind::Left, JoinKind::Right, JoinKind::Full, JoinKind::Semi, JoinKind::Anti];

/// A number for which the predicate panics.
const POISON: u64 = 1 << 60;

/// Numbers join unless both are divisible by three.
pub(crate) fn belong(left: u64, right: u64) -> bool {
    !(left.is_multiple_of(3) && right.is_multiple_of(3))
}

pub(crate) fn kernel() -> impl PairKernel {
    TypedPairs::new(
        |l: &Row, r: &Row| {
            assert!(l.1 != POISON, "poison");
            belong(l.1, r.1)
        },
        |l: Option<&Row>, r: Option<&Row>| Some((l.map(|l| l.1), r.map(|r| r.1))),
    )
}

fn factory(kind: JoinKind, from: i64, to: i64) -> OperatorFactory {
    interval_join(Bounds::new(from, to).unwrap(), kind, kernel)
}

pub(crate) fn batch(rows: &[(u64, i64, u64)]) -> Rows<Row> {
    let mut batch = Rows::new(rows.iter().map(|r| (r.0, r.2)).collect(), rows.iter().map(|r| EventTime(r.1)).collect());
    batch.keys = Some(Keys::encode(rows.iter().map(|r| r.0).collect::<Vec<_>>().into_iter()));
    batch
}

#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// Side, then key and time of each row.
    Rows(Side, Vec<(u64, i64)>),
    Watermark(i64),
}

/// A row that was not late.
#[derive(Debug, Clone, Copy)]
struct Taken {
    side: Side,
    key: u64,
    time: i64,
    number: u64,
}

/// What the definition says: every result with its time, in the order in which they leave.
fn results(kind: JoinKind, from: i64, to: i64, rows: &[Taken]) -> Vec<(Out, i64)> {
    // A left row of a right row's own millisecond has its turn first, so it waits for the end of that millisecond.
    let keeps = |side| if side == LEFT { Some(to).filter(|to| *to >= 0) } else { Some(-from).filter(|from| *from > 0) };
    let of = |side| rows.iter().filter(move |row| row.side == side);
    // Place in the order: time, phase, and what decides within.
    let mut out: Vec<([i128; 8], Out, i64)> = Vec::new();
    let mut partners = std::collections::BTreeSet::new();
    for l in of(LEFT) {
        let mut pairs = Vec::new();
        for r in of(RIGHT).filter(|r| r.key == l.key && belong(l.number, r.number)) {
            let apart = i128::from(r.time) - i128::from(l.time);
            if i128::from(from) <= apart && apart <= i128::from(to) {
                let (turn, partner) = if r.time >= l.time { (r, l) } else { (l, r) };
                let place = [
                    turn.time.into(),
                    0,
                    turn.key.into(),
                    turn.side as i128,
                    turn.number.into(),
                    partner.time.into(),
                    partner.number.into(),
                    0,
                ];
                pairs.push((place, (Some(l.number), Some(r.number)), turn.time));
                partners.insert(l.number);
                partners.insert(r.number);
            }
        }
        match kind {
            JoinKind::Anti => {}
            JoinKind::Semi => {
                pairs.sort();
                out.extend(pairs.into_iter().take(1).map(|(place, (l, _), time)| (place, (l, None), time)));
            }
            _ => out.extend(pairs),
        }
    }
    for row in rows.iter().filter(|row| kind.wants_alone(row.side) && !partners.contains(&row.number)) {
        let result = if row.side == LEFT { (Some(row.number), None) } else { (None, Some(row.number)) };
        let at = row.time.saturating_add(keeps(row.side).unwrap_or(0));
        let (key, side) = (i128::from(row.key), row.side as i128);
        let place = match keeps(row.side) {
            None => [at.into(), 0, key, side, row.number.into(), 0, 0, 0],
            _ => [at.into(), 1, side, row.time.into(), key, row.number.into(), 0, 0],
        };
        out.push((place, result, at));
    }
    out.sort();
    out.into_iter().map(|(_, result, time)| (result, time)).collect()
}

/// Runs a script; `restore(step)` says on how many instances to go on after a step, if at all.
fn check(kind: JoinKind, (from, to): (i64, i64), script: &[Event], single: bool, restore: impl Fn(usize) -> Option<u32>) {
    let mut harness = Harness::new(&factory(kind, from, to), 2);
    let (mut taken, mut late, mut watermark, mut number) = (Vec::new(), [Vec::new(), Vec::new()], None::<i64>, 0);
    let (mut got, mut rescaled) = (Vec::new(), false);
    let ended = [Event::Watermark(i64::MAX)];
    for (step, event) in script.iter().chain(&ended).enumerate() {
        match event {
            Event::Rows(side, list) => {
                let mut numbered = Vec::new();
                for &(key, time) in list {
                    number += 1;
                    numbered.push((key, time, number));
                    if watermark.is_some_and(|wm| time <= wm) {
                        late[*side].push(((key, number), time));
                    } else {
                        taken.push(Taken { side: *side, key, time, number });
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
        // Everything that the watermark has settled is out, and nothing else.
        let mut expect: Vec<_> =
            results(kind, from, to, &taken).into_iter().filter(|(_, time)| watermark.is_some_and(|wm| *time <= wm)).collect();
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
    for (side, port) in [(LEFT, LATE_LEFT_PORT), (RIGHT, LATE_RIGHT_PORT)] {
        let mut seen = harness.take::<Row>(port);
        seen.sort_unstable();
        late[side].sort_unstable();
        assert_eq!(seen, late[side]);
    }
    assert_eq!(harness.count(LATE), (late[0].len() + late[1].len()) as u64);
    harness.push(LEFT, batch(&[(99, 0, 1)]).boxed());
    assert!(harness.state_bytes() < 1024, "rows are left over after the end: {} bytes", harness.state_bytes());
}

fn time() -> impl Strategy<Value = i64> {
    prop_oneof![20 => -40i64..40, 1 => i64::MIN..i64::MIN + 40, 1 => i64::MAX - 40..=i64::MAX]
}

pub(crate) fn script() -> impl Strategy<Value = Vec<Event>> {
    let rows = (0usize..2, proptest::collection::vec((0u64..3, time()), 1..6)).prop_map(|(side, rows)| Event::Rows(side, rows));
    let watermark = prop_oneof![20 => -45i64..45, 1 => i64::MIN..i64::MIN + 40, 1 => i64::MAX - 40..i64::MAX].prop_map(Event::Watermark);
    proptest::collection::vec(prop_oneof![3 => rows, 1 => watermark], 0..25)
}

fn bounds() -> impl Strategy<Value = (i64, i64)> {
    (-15i64..15, 0i64..20).prop_map(|(from, width)| (from, from + width))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn an_interval_join_is_what_the_definition_says(kind in 0usize..6, bounds in bounds(), script in script()) {
        check(KINDS[kind], bounds, &script, false, |_| None);
        check(KINDS[kind], bounds, &script, true, |_| None);
    }

    #[test]
    fn snapshots_anywhere_change_nothing(
        kind in 0usize..6,
        bounds in bounds(),
        script in script(),
        on in proptest::collection::vec(proptest::option::of(1u32..4), 26),
    ) {
        check(KINDS[kind], bounds, &script, false, |step| on[step].map(|_| 1));
        check(KINDS[kind], bounds, &script, false, |step| on[step]);
    }
}

/// Both ends of the span are inside; a row at the watermark is late, one behind it is not.
#[test]
fn the_boundaries_are_exact() {
    for (apart, joins) in [(-11, false), (-10, true), (5, true), (6, false)] {
        let mut h = Harness::new(&factory(JoinKind::Inner, -10, 5), 2);
        h.push(LEFT, batch(&[(1, 100, 1)]).boxed());
        h.push(RIGHT, batch(&[(1, 100 + apart, 2)]).boxed());
        h.watermark(EventTime(99.max(99 + apart)));
        assert!(h.take::<Out>(0).is_empty(), "the later row is not settled yet");
        h.watermark(EventTime(100.max(100 + apart)));
        assert_eq!(h.take::<Out>(0).len(), usize::from(joins), "{apart} apart");
    }
    // A span that lies before the begin of time holds nothing, not even its first millisecond.
    let mut h = Harness::new(&factory(JoinKind::Inner, -10, -10), 2);
    h.push(LEFT, batch(&[(1, i64::MIN + 9, 1)]).boxed());
    h.push(RIGHT, batch(&[(1, i64::MIN, 2)]).boxed());
    h.watermark(EventTime(0));
    assert!(h.take::<Out>(0).is_empty());
    // The left row waits for the last right row that may come: not a millisecond less, and not more.
    let mut h = Harness::new(&factory(JoinKind::Left, -10, 5), 2);
    h.push(LEFT, batch(&[(1, 100, 1)]).boxed());
    h.watermark(EventTime(104));
    assert!(h.take::<Out>(0).is_empty());
    h.push(RIGHT, batch(&[(1, 104, 2), (2, 105, 3)]).boxed());
    assert_eq!(h.count(LATE), 1);
    h.watermark(EventTime(105));
    assert_eq!(h.take::<Out>(0), [((Some(1), None), 105)]);
}

#[test]
fn a_pair_that_fails_costs_itself_only() {
    let steps = [
        Step::Batch(LEFT, batch(&[(1, 1, POISON), (1, 2, 4), (2, 3, 6)]).boxed()),
        Step::Batch(RIGHT, batch(&[(1, 5, 7), (3, 5, 8)]).boxed()),
        Step::End,
    ];
    let (out, rejected) = Harness::in_every_mode(&factory(JoinKind::Full, -10, 10), 2, &steps, |h| {
        let mut out = h.take::<Out>(0);
        out.sort_unstable();
        (out, h.take_rejected().into_iter().map(|r| (r.time, r.error)).collect::<Vec<_>>())
    });
    // The poisoned row is in a rejected pair, and so not alone.
    assert_eq!(out, [((None, Some(8)), 15), ((Some(4), Some(7)), 5), ((Some(6), None), 13)]);
    assert_eq!(rejected, [(5, "user function panicked: poison".to_string())]);
}

/// With an idle split instances come differently far; a restore took the smallest watermark for all, and rows of keys that were
/// ahead had their turn again.
#[test]
fn instances_that_came_differently_far_repeat_nothing_and_lose_nothing() {
    let keys: Vec<u64> = (0..40).collect();
    for parallelism in 1..4 {
        let mut h = Harness::new(&factory(JoinKind::Full, -10, 10), 2);
        h.snapshot_and_restore(2);
        let all = |time, number| batch(&keys.iter().map(|&key| (key, time, key * 1_000 + number)).collect::<Vec<_>>()).boxed();
        h.push(LEFT, all(7, 1));
        h.push(RIGHT, all(8, 2));
        h.watermark_of(0, EventTime(9));
        h.snapshot_and_restore(parallelism);
        h.push(RIGHT, all(15, 4));
        h.watermark(EventTime(16));
        h.snapshot_and_restore(1);
        h.end();
        let mut got: Vec<Out> = h.take::<Out>(0).into_iter().map(|(pair, _)| pair).collect();
        got.sort_unstable();
        let number = |key: &u64, n| Some(key * 1_000 + n);
        let pairs =
            keys.iter().flat_map(|k| [2, 4].map(|right| (number(k, 1), number(k, right)))).filter(|(l, r)| belong(l.unwrap(), r.unwrap()));
        let paired: Vec<Out> = pairs.collect();
        let alone = |n: u64| keys.iter().map(move |k| k * 1_000 + n).filter(|n| !paired_has(&paired, *n));
        let mut expect = paired.clone();
        expect.extend(alone(1).map(|n| (Some(n), None)));
        expect.extend([2, 4].into_iter().flat_map(alone).map(|n| (None, Some(n))));
        expect.sort_unstable();
        assert_eq!(got, expect, "parallelism {parallelism}");
    }
}

fn paired_has(pairs: &[Out], number: u64) -> bool {
    pairs.iter().any(|(l, r)| *l == Some(number) || *r == Some(number))
}

/// One side never moves on: its rows wait, nothing is lost, and nothing leaves early.
#[test]
fn a_side_that_stands_still_holds_everything() {
    let mut h = Harness::new(&factory(JoinKind::Left, 0, 10), 2);
    let many: Vec<_> = (0..5000).map(|n| (n % 7, n as i64, n)).collect();
    h.push(LEFT, batch(&many).boxed());
    h.input_watermark(LEFT, EventTime(5000));
    assert!(h.take::<Out>(0).is_empty());
    h.snapshot_and_restore(3);
    h.end();
    assert_eq!(h.take::<Out>(0).len(), 5000);
}

#[test]
fn nonsense_and_damage_are_refused() {
    assert!(Bounds::new(1, 0).unwrap_err().report().contains("help"));
    let mut operator = factory(JoinKind::Inner, 0, 1)();
    assert!(operator.restore(&[vec![1, 2, 3]]).is_err());
    #[derive(Clone, serde::Serialize, serde::Deserialize)]
    #[serde(untagged)]
    enum Odd {
        Text(String),
    }
    let odd = || TypedPairs::new(|_: &Odd, _: &u64| true, |_: Option<&Odd>, _: Option<&u64>| Some(()));
    let refused: Result<()> = odd().check();
    assert!(refused.is_err());
}

fn temporal(kind: JoinKind) -> OperatorFactory {
    let ends = |batch: &dyn Batch, i: usize| batch.as_any().downcast_ref::<Rows<Row>>().unwrap().rows[i].1.is_multiple_of(4);
    temporal_join(kind, std::sync::Arc::new(ends), kernel)
}

/// The definition: a sorted list of turns, and the newest version of each key.
fn check_temporal(kind: JoinKind, script: &[Event], single: bool, restore: impl Fn(usize) -> Option<u32>) {
    let mut harness = Harness::new(&temporal(kind), 2);
    let (mut waiting, mut newest) = (Vec::<(i64, u64, bool, u64)>::new(), std::collections::BTreeMap::<u64, (i64, u64)>::new());
    let (mut watermark, mut number, mut late, mut rescaled) = (None::<i64>, 0, 0, false);
    let ended = [Event::Watermark(i64::MAX)];
    for (step, event) in script.iter().chain(&ended).enumerate() {
        let mut expect = Vec::new();
        match event {
            Event::Rows(side, list) => {
                let mut numbered = Vec::new();
                for &(key, time) in list {
                    number += 1;
                    numbered.push((key, time, number));
                    if watermark.is_none_or(|wm| time > wm) {
                        waiting.push((time, key, *side == LEFT, number));
                    } else {
                        late += 1;
                        if *side == RIGHT && newest.get(&key).is_none_or(|v| v.0 <= time) {
                            newest.insert(key, (time, number));
                        }
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
                let mut due: Vec<_> = waiting.extract_if(.., |row| Some(row.0) <= watermark).collect();
                due.sort_unstable();
                for (time, key, is_row, number) in due {
                    if !is_row {
                        if newest.get(&key).is_none_or(|v| v.0 <= time) {
                            newest.insert(key, (time, number));
                        }
                        continue;
                    }
                    let version = newest.get(&key).map(|v| v.1).filter(|v| !v.is_multiple_of(4) && belong(number, *v));
                    if version.is_some() || kind == JoinKind::Left {
                        expect.push(((Some(number), version), time));
                    }
                }
            }
        }
        let mut got = harness.take::<Out>(0);
        if rescaled {
            got.sort_unstable();
            expect.sort_unstable();
        }
        assert_eq!(got, expect, "after {event:?}");
        if let Some(parallelism) = restore(step) {
            harness.snapshot_and_restore(parallelism);
            rescaled |= parallelism > 1;
        }
    }
    let aside = harness.take::<Row>(LATE_LEFT_PORT).len() + harness.take::<Row>(LATE_RIGHT_PORT).len();
    assert_eq!((aside, harness.count(LATE)), (late, late as u64));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_temporal_join_is_what_the_definition_says(
        left: bool,
        script in script(),
        on in proptest::collection::vec(proptest::option::of(1u32..4), 26),
    ) {
        let kind = if left { JoinKind::Left } else { JoinKind::Inner };
        check_temporal(kind, &script, false, |_| None);
        check_temporal(kind, &script, true, |_| None);
        check_temporal(kind, &script, false, |step| on[step].map(|_| 1));
        check_temporal(kind, &script, false, |step| on[step]);
    }
}

/// Rows that are given and taken back: a kernel of its own, as one for columns would be.
struct Signed {
    kind: RowKind,
    out: Rows<(RowKind, Out)>,
}

/// Number, and whether it is given.
type SignedRow = (u64, bool);

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().unwrap())
}

impl PairKernel for Signed {
    fn check(&self) -> Result<()> {
        Ok(())
    }
    fn schema(&self) -> String {
        "number".into()
    }
    fn encode(&self, _side: Side, batch: &dyn Batch, row: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&batch.as_any().downcast_ref::<Rows<SignedRow>>().unwrap().rows[row].0.to_be_bytes());
    }
    fn is_addition(&self, _side: Side, batch: &dyn Batch, row: usize) -> bool {
        batch.as_any().downcast_ref::<Rows<SignedRow>>().unwrap().rows[row].1
    }
    fn set_kind(&mut self, kind: RowKind) {
        self.kind = kind;
    }
    fn pair(&mut self, left: &[u8], right: &[u8], result: Option<EventTime>) -> Result<Paired> {
        let (left, right) = (number(left), number(right));
        if !belong(left, right) {
            return Ok(Paired::No);
        }
        if let Some(time) = result {
            self.out.push((self.kind, (Some(left), Some(right))), time, None);
        }
        Ok(Paired::Yes)
    }
    fn alone(&mut self, side: Side, row: &[u8], time: EventTime) -> Result<Option<String>> {
        let row = Some(number(row));
        self.out.push((self.kind, if side == LEFT { (row, None) } else { (None, row) }), time, None);
        Ok(None)
    }
    fn results(&self) -> usize {
        self.out.rows.len()
    }
    fn take(&mut self) -> Result<BatchBox> {
        Ok(std::mem::take(&mut self.out).boxed())
    }
}

/// Copies of each row of one side, by key and number.
type Bag = std::collections::BTreeMap<(u64, u64), i64>;

/// The join of two bags, by loops.
fn join_bags(kind: JoinKind, left: &Bag, right: &Bag) -> std::collections::BTreeMap<Out, i64> {
    let mut out = std::collections::BTreeMap::new();
    let there = |bag: &Bag| bag.clone().into_iter().filter(|(_, copies)| *copies > 0).collect::<Vec<_>>();
    let (lefts, rights) = (there(left), there(right));
    let mut add = |row: Out, copies: i64| *out.entry(row).or_insert(0) += copies;
    for ((key, l), copies) in &lefts {
        let partners: Vec<_> = rights.iter().filter(|((k, r), _)| k == key && belong(*l, *r)).collect();
        match kind {
            JoinKind::Semi if !partners.is_empty() => add((Some(*l), None), *copies),
            JoinKind::Semi | JoinKind::Anti => {}
            _ => partners.iter().for_each(|((_, r), times)| add((Some(*l), Some(*r)), copies * times)),
        }
        if partners.is_empty() && kind.wants_alone(LEFT) {
            add((Some(*l), None), *copies);
        }
    }
    for ((key, r), copies) in &rights {
        if kind.wants_alone(RIGHT) && !lefts.iter().any(|((k, l), _)| k == key && belong(*l, *r)) {
            add((None, Some(*r)), *copies);
        }
    }
    out
}

/// Side, then key, number and whether it is given.
type Signs = Vec<(usize, Vec<(u64, u64, bool)>)>;

fn signs() -> impl Strategy<Value = Signs> {
    let rows = proptest::collection::vec((0u64..2, 1u64..5, proptest::bool::weighted(0.65)), 1..6);
    proptest::collection::vec((0usize..2, rows), 0..15)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever the batches: what has left sums up to the join of what has come in, and nothing is taken back that was not given.
    #[test]
    fn a_regular_join_is_kept_up_to_date(
        kind in 0usize..6,
        single: bool,
        script in signs(),
        on in proptest::collection::vec(proptest::option::of(1u32..4), 15),
    ) {
        let kernel = || Signed { kind: RowKind::Insert, out: Rows::default() };
        let mut harness = Harness::new(&regular_join(KINDS[kind], [Forget::Never; 2], kernel), 2);
        let (mut bags, mut got) = ([Bag::new(), Bag::new()], std::collections::BTreeMap::<Out, i64>::new());
        for ((side, rows), restore) in script.iter().zip(on) {
            for part in rows.chunks(if single { 1 } else { usize::MAX }) {
                let mut batch = Rows::new(part.iter().map(|r| (r.1, r.2)).collect(), vec![EventTime(0); part.len()]);
                batch.keys = Some(Keys::encode(part.iter().map(|r| r.0).collect::<Vec<_>>().into_iter()));
                harness.push(*side, batch.boxed());
                if single {
                    harness.evict(); // and all that is kept is on disk
                }
            }
            for (key, number, is_addition) in rows {
                *bags[*side].entry((*key, *number)).or_default() += if *is_addition { 1 } else { -1 };
            }
            for ((kind, row), _) in harness.take::<(RowKind, Out)>(0) {
                let copies = got.entry(row).or_default();
                *copies += if kind.is_addition() { 1 } else { -1 };
                assert!(*copies >= 0, "{row:?} is taken back and was not given");
            }
            got.retain(|_, copies| *copies != 0);
            assert_eq!(got, join_bags(KINDS[kind], &bags[LEFT], &bags[RIGHT]));
            if let Some(parallelism) = restore {
                harness.snapshot_and_restore(parallelism);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever the batches: what has left is the join of what has come in, and pairs of poison are rejected.
    #[test]
    fn a_growing_join_is_the_join_so_far(script in signs(), single: bool, poison in 0usize..40, on in proptest::collection::vec(proptest::option::of(1u32..4), 15)) {
        let mut harness = Harness::new(&growing_join(kernel), 0);
        let (mut bags, mut got) = ([Bag::new(), Bag::new()], std::collections::BTreeMap::<Out, i64>::new());
        let (mut nth, mut rejected) = (0, 0);
        for ((side, rows), restore) in script.iter().zip(on) {
            let numbered: Vec<Row> = rows.iter().map(|(key, number, _)| {
                nth += 1;
                (*key, if *side == LEFT && nth == poison { POISON } else { *number })
            }).collect();
            for part in numbered.chunks(if single { 1 } else { usize::MAX }) {
                let mut batch = Rows::new(part.to_vec(), vec![EventTime(7); part.len()]);
                batch.keys = Some(Keys::encode(part.iter().map(|r| r.0).collect::<Vec<_>>().into_iter()));
                harness.push(*side, batch.boxed());
                if single {
                    harness.evict(); // and all that is kept is on disk
                }
            }
            for (key, number) in numbered {
                let met = bags[other(*side)].iter().filter(|((k, n), _)| *k == key && (number == POISON || *n == POISON));
                rejected += met.map(|(_, copies)| *copies as usize).sum::<usize>();
                *bags[*side].entry((key, number)).or_default() += 1;
            }
            for (row, time) in harness.take::<Out>(0) {
                assert_eq!(time, 7);
                *got.entry(row).or_default() += 1;
            }
            let healthy = |bag: &Bag| bag.clone().into_iter().filter(|((_, n), _)| *n != POISON).collect::<Bag>();
            assert_eq!(got, join_bags(JoinKind::Inner, &healthy(&bags[LEFT]), &healthy(&bags[RIGHT])));
            assert_eq!(harness.take_rejected().len(), std::mem::take(&mut rejected));
            if let Some(parallelism) = restore {
                harness.snapshot_and_restore(parallelism);
            }
        }
    }
}

/// A row is forgotten when the watermark is its time to live past its event time, exactly, also after a restore.
#[test]
fn a_regular_join_forgets() {
    let typed = || {
        let result = |l: Option<&Row>, r: Option<&Row>| Some((l.map(|l| l.1), r.map(|r| r.1)));
        TypedPairs::changes(|_: &Row, _: &Row| true, result)
    };
    for (watermark, is_there) in [(108, true), (109, true), (110, false)] {
        let mut h = Harness::new(&regular_join(JoinKind::Left, [Forget::ByWatermark(10); 2], typed), 2);
        h.push(LEFT, batch(&[(1, 100, 1)]).boxed());
        assert_eq!(h.take::<Change<Out>>(0)[0].0, Change { kind: RowKind::Insert, row: (Some(1), None) });
        h.watermark(EventTime(watermark));
        h.snapshot_and_restore(2);
        h.push(RIGHT, batch(&[(1, 115, 2), (1, 100, 3)]).boxed());
        let changes: Vec<_> = h.take::<Change<Out>>(0).into_iter().map(|(change, _)| (change.kind, change.row)).collect();
        let mut expect = vec![];
        if is_there {
            expect.extend([(RowKind::UpdateBefore, (Some(1), None)), (RowKind::UpdateAfter, (Some(1), Some(2)))]);
            expect.push((RowKind::Insert, (Some(1), Some(3))));
        }
        assert_eq!(changes, expect, "watermark {watermark}");
        assert_eq!(h.count(LATE), u64::from(!is_there), "a row that would be forgotten at once is late");
    }
}

/// By the clock a row is forgotten its time to live after it came or went last, whatever its event time.
#[test]
fn a_regular_join_forgets_by_the_clock() {
    let typed = || {
        let result = |l: Option<&Row>, r: Option<&Row>| Some((l.map(|l| l.1), r.map(|r| r.1)));
        TypedPairs::changes(|_: &Row, _: &Row| true, result)
    };
    for (again, now, is_there) in
        [(false, 1_310, true), (false, 1_320, false), (true, 1_320, true), (true, 1_419, true), (true, 1_420, false)]
    {
        let mut h = Harness::new(&regular_join(JoinKind::Left, [Forget::ByClock(320); 2], typed), 2);
        h.wall_time(1_000);
        h.push(LEFT, batch(&[(1, 900_000, 1)]).boxed());
        if again {
            h.wall_time(1_100);
            h.push(LEFT, batch(&[(1, 5, 1)]).boxed());
        }
        // The watermark means nothing.
        h.watermark(EventTime(2_000_000));
        h.snapshot_and_restore(2);
        h.take::<Change<Out>>(0);
        h.wall_time(now);
        h.push(RIGHT, batch(&[(1, 3, 2)]).boxed());
        let pairs = h.take::<Change<Out>>(0).into_iter().filter(|(change, _)| change.row == (Some(1), Some(2))).count();
        assert_eq!(pairs, if is_there { 1 + usize::from(again) } else { 0 }, "again {again}, at {now}");
        assert_eq!(h.count(LATE), 0);
    }
}

/// Each side forgets by itself.
#[test]
fn sides_of_a_regular_join_forget_by_themselves() {
    let typed = || {
        let result = |l: Option<&Row>, r: Option<&Row>| Some((l.map(|l| l.1), r.map(|r| r.1)));
        TypedPairs::changes(|_: &Row, _: &Row| true, result)
    };
    for (forget, left, right) in [
        ([Forget::ByClock(320), Forget::Never], false, true),
        ([Forget::Never, Forget::ByClock(320)], true, false),
        ([Forget::ByClock(320), Forget::ByClock(32_000)], false, true),
    ] {
        let mut h = Harness::new(&regular_join(JoinKind::Inner, forget, typed), 2);
        h.wall_time(1_000);
        h.push(LEFT, batch(&[(1, 5, 1)]).boxed());
        h.push(RIGHT, batch(&[(2, 5, 2)]).boxed());
        h.wall_time(2_000);
        h.snapshot_and_restore(2);
        h.wall_time(2_010);
        h.push(RIGHT, batch(&[(1, 5, 3)]).boxed());
        h.push(LEFT, batch(&[(2, 5, 4)]).boxed());
        let rows: Vec<Out> = h.take::<Change<Out>>(0).into_iter().map(|(change, _)| change.row).collect();
        assert_eq!(rows.contains(&(Some(1), Some(3))), left, "{forget:?}");
        assert_eq!(rows.contains(&(Some(4), Some(2))), right, "{forget:?}");
    }
}

/// Every task sees the whole table, also after a rescale, and rows without a key go wherever they go.
#[test]
fn a_broadcast_join_sees_the_whole_table_in_every_task() {
    let change = |list: &[(u64, Option<u64>)]| Step::Batch(TABLE_INPUT, Rows::new(list.to_vec(), vec![EventTime(0); list.len()]).boxed());
    let rows = |list: &[u64]| Step::rows(Rows::new(list.to_vec(), vec![EventTime(1); list.len()]));
    let factory = broadcast_join::<u64, u64, u64, (u64, Option<u64>)>(
        |row| {
            assert!(*row != 66, "no key");
            row % 10
        },
        |row, entry| (row < 90).then(|| (row, entry.copied())),
    );
    let mut h = Harness::new(&factory, 0);
    assert_eq!(h.only_input(), Some(TABLE_INPUT));
    h.run(
        &[change(&[(1, Some(10)), (2, Some(20)), (3, Some(30)), (2, None)]), Step::InputWatermark(TABLE_INPUT, EventTime::MAX)],
        Mode::Whole,
    );
    for parallelism in [1, 3, 2] {
        h.snapshot_and_restore(parallelism);
        assert_eq!(h.only_input(), None);
        h.run(&[rows(&[11, 12, 66, 13, 93])], Mode::Whole);
        assert_eq!(h.take::<(u64, Option<u64>)>(0), [((11, Some(10)), 1), ((12, None), 1), ((13, Some(30)), 1)]);
        assert_eq!(h.take_rejected().len(), 1);
    }
}
