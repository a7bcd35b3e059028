//! Table operators against maps: whatever the changes and their batches, what has left sums up to what the maps say.

use super::*;
use crate::operators::OperatorFactory;
use crate::record::{Change, RowKind};
use crate::testing::{Harness, Mode, Step};
use crate::time::EventTime;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Changes of one of two tables: input, then key and new value.
type Script = Vec<(usize, Vec<(u64, Option<u64>)>)>;

fn script() -> impl Strategy<Value = Script> {
    let changes = proptest::collection::vec((0u64..5, proptest::option::weighted(0.7, 0u64..20)), 1..6);
    proptest::collection::vec((0usize..2, changes), 0..15)
}

fn batch(changes: &[(u64, Option<u64>)]) -> Changes<u64, u64> {
    let mut batch = Rows::new(changes.to_vec(), vec![EventTime(1); changes.len()]);
    batch.keys = Some(Keys::encode(changes.iter().map(|c| c.0).collect::<Vec<_>>().into_iter()));
    batch
}

/// Puts changes into a map; none removes what is not there.
fn sum<V: PartialEq + std::fmt::Debug>(map: &mut BTreeMap<u64, V>, changes: Vec<((u64, Option<V>), i64)>) {
    for ((key, value), _) in changes {
        match value {
            Some(value) => drop(map.insert(key, value)),
            None => assert!(map.remove(&key).is_some(), "key {key} is removed and was not there"),
        }
    }
}

/// Feeds a script in a mode; after each step `step` sees the two tables as they are now.
fn feed(factory: &OperatorFactory, script: &Script, mode: Mode, mut step: impl FnMut(&mut Harness, &[BTreeMap<u64, u64>; 2])) {
    let mut harness = Harness::new(factory, 0);
    let mut tables = [BTreeMap::new(), BTreeMap::new()];
    for (input, changes) in script {
        for (key, value) in changes {
            match value {
                Some(value) => drop(tables[*input].insert(*key, *value)),
                None => drop(tables[*input].remove(key)),
            }
        }
        harness.run(&[Step::Batch(*input, batch(changes).boxed())], mode);
        step(&mut harness, &tables);
    }
}

/// All changes of a script as those of one table.
fn single(script: Script) -> Script {
    script.into_iter().map(|(_, changes)| (0, changes)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_join_of_tables_is_a_join_of_maps(script in script()) {
        for mode in Mode::ALL {
            for kind in [TableJoinKind::Inner, TableJoinKind::Left, TableJoinKind::Full] {
                let factory = join_tables::<u64, u64, u64, _>(kind, |key, l: Option<&u64>, r: Option<&u64>| Some((*key, l.copied(), r.copied())));
                let mut got = BTreeMap::new();
                feed(&factory, &script, mode, |harness, [left, right]| {
                    sum(&mut got, harness.take::<(u64, Option<(u64, Option<u64>, Option<u64>)>)>(0));
                    let has = |key: &u64| match kind {
                        TableJoinKind::Inner => left.contains_key(key) && right.contains_key(key),
                        TableJoinKind::Left => left.contains_key(key),
                        TableJoinKind::Full => true,
                    };
                    let keys = left.keys().chain(right.keys()).filter(|key| has(key));
                    let expect = keys.map(|k| (*k, (*k, left.get(k).copied(), right.get(k).copied()))).collect();
                    assert_eq!(got, expect, "{kind:?} {mode:?}");
                });
            }
        }
    }

    #[test]
    fn changes_of_a_table_sum_up_to_it_in_order(script in script().prop_map(single)) {
        for mode in Mode::ALL {
            let mut got = BTreeMap::<u64, u64>::new();
            let mut open = BTreeMap::<u64, u64>::new();
            feed(&to_changes::<u64, u64>(), &script, mode, |harness, [table, _]| {
                for (Change { kind, row: (key, value) }, _) in harness.take::<Change<(u64, u64)>>(0) {
                    match kind {
                        RowKind::Insert => assert_eq!(got.insert(key, value), None),
                        RowKind::UpdateBefore => {
                            assert_eq!(got.get(&key), Some(&value));
                            open.insert(key, value);
                        }
                        RowKind::UpdateAfter => {
                            let before = open.remove(&key);
                            assert_eq!(before, got.insert(key, value), "-U and +U come in pairs");
                            assert_ne!(before, Some(value), "an update changes something");
                        }
                        RowKind::Delete => assert_eq!(got.remove(&key), Some(value)),
                    }
                }
                assert!(open.is_empty());
                assert_eq!(&got, table);
            });
        }
    }

    /// Through both operators, with the exchange between them as it is: by group.
    #[test]
    fn groups_are_aggregated_over_what_the_table_has_now(script in script().prop_map(single)) {
        for mode in Mode::ALL {
            let mut groups = Harness::new(&aggregate_groups::<u64, _>(SumAndCount), 0);
            let mut got = BTreeMap::new();
            feed(&regroup(|_: &u64, value: &u64| value % 3), &script, mode, |harness, [table, _]| {
                let moves: Vec<_> = harness.take_batches(Some(0)).into_iter().map(|batch| Step::Batch(0, batch)).collect();
                groups.run(&moves, mode);
                sum(&mut got, groups.take::<(u64, Option<(u64, u64)>)>(0));
                let mut expect = BTreeMap::<u64, (u64, u64)>::new();
                for value in table.values() {
                    let group = expect.entry(value % 3).or_default();
                    *group = (group.0 + value, group.1 + 1);
                }
                assert_eq!(got, expect, "{mode:?}");
            });
        }
    }

    #[test]
    fn suppressed_changes_are_the_newest_of_each_key(script in script().prop_map(single), every in 1u64..4) {
        let factory = suppress::<u64, u64>(Suppress::Every(std::time::Duration::from_millis(every)));
        for mode in Mode::ALL {
            let (mut got, mut time) = (BTreeMap::<u64, u64>::new(), 0);
            feed(&factory, &script, mode, |harness, [table, _]| {
                assert!(harness.take_batches(Some(0)).is_empty());
                time += 1;
                harness.run(&[Step::watermark(time)], mode);
                let out = harness.take::<(u64, Option<u64>)>(0);
                assert!(out.iter().all(|(_, at)| *at >= time), "none is late downstream");
                let mut keys: Vec<u64> = out.iter().map(|((key, _), _)| *key).collect();
                keys.sort_unstable();
                let n = keys.len();
                keys.dedup();
                assert_eq!(keys.len(), n, "one change a key");
                for ((key, value), _) in out {
                    // A key that came and went meanwhile was never there.
                    match value {
                        Some(value) => drop(got.insert(key, value)),
                        None => drop(got.remove(&key)),
                    }
                }
                if time % every as i64 == 0 {
                    assert_eq!(&got, table);
                }
            });
        }
    }
}

/// The three operators of a foreign-key join, with tasks that are scheduled by hand, so that answers overtake each other.
struct Foreign {
    refer: Harness,
    answer: Harness,
    collect: Harness,
    /// Answers that are on their way, by the right key's task.
    under_way: [std::collections::VecDeque<crate::record::BatchBox>; 2],
}

/// Left rows refer to `value % 5`; odd right keys are one task's, even ones the other's.
const REFERS_TO: u64 = 5;

impl Foreign {
    fn new(left: bool) -> Self {
        let result = move |_: &u64, l: &u64, r: Option<&u64>| (left || r.is_some()).then(|| (*l, r.copied()));
        Foreign {
            refer: Harness::new(&refer::<u64, u64, u64>(|value| value % REFERS_TO), 0),
            answer: Harness::new(&answer::<u64, u64, u64, u64, (u64, Option<u64>)>(result), 0),
            collect: Harness::new(&collect::<u64, (u64, Option<u64>)>(), 0),
            under_way: Default::default(),
        }
    }

    fn push(&mut self, input: usize, changes: &[(u64, Option<u64>)]) {
        if input == 0 {
            self.refer.push(0, batch(changes).boxed());
            for told in self.refer.take_batches(Some(0)) {
                self.answer_to(0, told);
            }
        } else {
            self.answer_to(1, batch(changes).boxed());
        }
    }

    /// One task of `answer` after the other, as if they ran side by side.
    fn answer_to(&mut self, input: usize, batch: crate::record::BatchBox) {
        let targets: Vec<u32> = batch.keys().unwrap().as_u64().unwrap().iter().map(|key| (key % 2) as u32).collect();
        for (task, part) in batch.scatter(&targets, 2).into_iter().enumerate() {
            self.answer.push(input, part);
            let answers = self.answer.take_batches(Some(0));
            self.under_way[task].extend(answers);
        }
    }

    /// Lets one batch of one task arrive.
    fn arrive(&mut self, task: usize) {
        if let Some(answers) = self.under_way[task].pop_front() {
            self.collect.push(0, answers);
        }
    }

    /// Lets everything arrive, the other task first.
    fn settle(&mut self, first: usize) {
        for task in [first, 1 - first] {
            while !self.under_way[task].is_empty() {
                self.arrive(task);
            }
        }
    }

    fn restore(&mut self, parallelism: u32) {
        self.settle(1);
        for harness in [&mut self.refer, &mut self.answer, &mut self.collect] {
            harness.snapshot_and_restore(parallelism);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_foreign_key_join_follows_both_sides(
        left: bool,
        script in script(),
        schedule in proptest::collection::vec((proptest::collection::vec(0usize..2, 0..4), 0u32..8), 15),
    ) {
        let mut foreign = Foreign::new(left);
        let (mut tables, mut got) = ([BTreeMap::new(), BTreeMap::new()], BTreeMap::new());
        for ((input, changes), (arrivals, what)) in script.iter().zip(&schedule) {
            foreign.push(*input, changes);
            for (key, value) in changes {
                match value {
                    Some(value) => drop(tables[*input].insert(*key, *value)),
                    None => drop(tables[*input].remove(key)),
                }
            }
            arrivals.iter().for_each(|task| foreign.arrive(*task));
            match what {
                1..=3 => foreign.restore(*what),
                4 | 5 => foreign.settle(*what as usize - 4),
                _ => {}
            }
            sum(&mut got, foreign.collect.take::<(u64, Option<(u64, Option<u64>)>)>(0));
            if *what > 0 && *what < 6 {
                let [lefts, rights] = &tables;
                let mut expect: BTreeMap<u64, (u64, Option<u64>)> =
                    lefts.iter().map(|(key, value)| (*key, (*value, rights.get(&(value % REFERS_TO)).copied()))).collect();
                expect.retain(|_, (_, right)| left || right.is_some());
                assert_eq!(got, expect);
            }
        }
    }
}

struct SumAndCount;

impl Retract for SumAndCount {
    type Row = u64;
    type Acc = (u64, u64);
    type Out = (u64, u64);
    fn create(&self) -> (u64, u64) {
        (0, 0)
    }
    fn add(&self, acc: &mut (u64, u64), row: &u64) {
        *acc = (acc.0 + row, acc.1 + 1);
    }
    fn subtract(&self, acc: &mut (u64, u64), row: &u64) {
        *acc = (acc.0 - row, acc.1 - 1);
    }
    fn finish(&self, acc: &(u64, u64)) -> (u64, u64) {
        *acc
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Ranks are the first rows of a sorted list, equal ones in the order of arrival.
    #[test]
    fn the_first_rows_of_each_key_are_ranked(
        n in 1usize..4,
        script in proptest::collection::vec(proptest::collection::vec((0u64..3, 0u64..6), 1..6), 0..12),
    ) {
        for mode in Mode::ALL {
            let order = |a: &(u64, u64), b: &(u64, u64)| a.0.cmp(&b.0);
            let mut harness = Harness::new(&top_n::<u64, (u64, u64)>(n, order), 0);
            let (mut lists, mut got, mut arrival) = (BTreeMap::<u64, Vec<(u64, u64)>>::new(), BTreeMap::new(), 0);
            for rows in &script {
                let mut batch = Rows::default();
                for (key, value) in rows {
                    arrival += 1;
                    lists.entry(*key).or_default().push((*value, arrival));
                    batch.push((*value, arrival), EventTime(arrival as i64), None);
                }
                batch.keys = Some(Keys::encode(rows.iter().map(|r| r.0).collect::<Vec<_>>().into_iter()));
                harness.run(&[Step::rows(batch)], mode);
                for ((rank, row), _) in harness.take::<((u64, u32), Option<(u64, u64)>)>(0) {
                    got.insert(rank, row.unwrap());
                }
                let mut expect = BTreeMap::new();
                for (key, list) in &mut lists {
                    list.sort_by_key(|row| row.0);
                    expect.extend(list.iter().take(n).enumerate().map(|(rank, row)| ((*key, rank as u32 + 1), *row)));
                }
                assert_eq!(got, expect, "{mode:?}");
            }
        }
    }
}

#[test]
fn suppression_ends_with_the_input_and_where_there_is_no_event_time() {
    let changes = || Step::Batch(0, batch(&[(1, Some(5)), (2, Some(6)), (1, Some(7)), (2, None)]).boxed());
    let newest = [((1, Some(7)), 1), ((2, None), 1)];
    let mut h = Harness::new(&suppress::<u64, u64>(Suppress::UntilEnd), 0);
    h.run(&[changes(), Step::watermark(1000)], Mode::Restored);
    assert!(h.take_batches(Some(0)).is_empty());
    h.run(&[Step::End], Mode::Restored);
    assert_eq!(h.take::<(u64, Option<u64>)>(0), newest);
    // A table that has been read in.
    let mut h = Harness::new(&suppress::<u64, u64>(Suppress::Every(std::time::Duration::from_secs(1))), 0);
    h.run(&[Step::Watermark(EventTime::MAX), changes()], Mode::Whole);
    assert_eq!(h.take::<(u64, Option<u64>)>(0), newest);
}

/// A change that fails leaves everything as it was.
#[test]
fn a_change_that_fails_changes_nothing() {
    let poison = |value: u64| assert!(value != 13, "thirteen");
    let steps = || [Step::Batch(0, batch(&[(1, Some(5)), (1, Some(13)), (2, Some(13)), (3, Some(4)), (3, None)]).boxed())];
    let mapped = map_table(move |_: &u64, value: u64| {
        poison(value);
        (value != 4).then_some(value)
    });
    let (out, failed) = Harness::in_every_mode(&mapped, 0, &steps(), |h| {
        let mut out = h.take::<(u64, Option<u64>)>(0);
        out.sort_unstable();
        (out, h.take_rejected().len())
    });
    assert_eq!((out, failed), (vec![((1, Some(5)), 1), ((3, None), 1), ((3, None), 1)], 2));

    let joined = join_tables::<u64, u64, u64, u64>(TableJoinKind::Left, move |_, left: Option<&u64>, _: Option<&u64>| {
        left.iter().for_each(|value| poison(**value));
        left.copied()
    });
    let (out, failed) = Harness::in_every_mode(&joined, 0, &steps(), |h| {
        let mut got = BTreeMap::new();
        let mut out = h.take::<(u64, Option<u64>)>(0);
        out.sort_by_key(|((key, _), _)| *key);
        sum(&mut got, out);
        (got, h.take_rejected().len())
    });
    assert_eq!((out, failed), (BTreeMap::from([(1, 5)]), 2));
}
