//! Tables in the order of time that have no room: entries leave memory and come back all the time.

use super::tables::{TimerModel, Timers, bytes, timer_op};
use super::{GROUPS, Step, Subject, copy, open, run};
use crate::state::{MemoryStore, OrderedTable, StateStore, Table, WriteBatch};
use crate::time::EventTime;
use proptest::prelude::*;
use std::sync::Arc;

/// Whatever is done, some of the table is on disk.
pub(super) fn pressed<Op: Clone + std::fmt::Debug + 'static>(
    op: impl Strategy<Value = Op> + 'static,
) -> impl Strategy<Value = Vec<Step<Op>>> {
    let step = prop_oneof![
        8 => op.prop_map(Step::Do),
        1 => Just(Step::Freeze),
        4 => (1usize..5).prop_map(Step::Drain),
        4 => (1usize..300).prop_map(Step::Evict),
        2 => Just(Step::Evict(usize::MAX)),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 0..80)
}

/// Rows that wait, none of them twice.
struct Waiting;

#[derive(Debug, Clone)]
enum RowOp {
    Add(i64, u8, u16),
    Pop(i64),
}

fn row_op() -> impl Strategy<Value = RowOp> {
    prop_oneof![
        4 => (-5i64..10, 0u8..4, any::<u16>()).prop_map(|(t, k, v)| RowOp::Add(t, k, v)),
        1 => (-5i64..10).prop_map(RowOp::Pop),
    ]
}

#[derive(Debug, Clone, Default)]
struct Rows {
    waiting: TimerModel,
    arrivals: u64,
}

impl PartialEq for Rows {
    /// What can be seen.
    fn eq(&self, other: &Self) -> bool {
        self.waiting == other.waiting
    }
}

impl Subject for Waiting {
    type Op = RowOp;
    type Model = Rows;
    type Table = OrderedTable<u16>;

    fn make() -> Self::Table {
        OrderedTable::of_unique("w")
    }

    fn apply(table: &mut Self::Table, model: &mut Rows, op: &RowOp) {
        match op {
            RowOp::Add(time, k, v) => {
                let (key, tag) = (bytes(*k), model.arrivals.to_be_bytes().to_vec());
                model.arrivals += 1;
                table.insert(EventTime(*time), &key, &tag, *v);
                model.waiting.insert((*time, key, tag), *v);
            }
            RowOp::Pop(watermark) => {
                let due: TimerModel = model.waiting.extract_if(.., |(time, ..), _| time <= watermark).collect();
                let mut popped = Vec::new();
                while let Some(next) = table.pop_due(EventTime(*watermark)).unwrap() {
                    popped.push(((next.time.0, next.key, next.tag), next.value));
                }
                assert_eq!(popped, due.into_iter().collect::<Vec<_>>());
            }
        }
    }

    fn read(table: &mut Self::Table) -> Rows {
        Rows { waiting: Timers::read(table), arrivals: 0 }
    }

    fn merge(mut a: Rows, b: Rows) -> Rows {
        a.waiting.extend(b.waiting);
        a
    }
}

proptest! {
    #[test]
    fn timers_on_disk_are_a_sorted_map(script in pressed(timer_op())) {
        run::<Timers>(&script);
    }

    #[test]
    fn rows_on_disk_wait_in_order(script in pressed(row_op())) {
        run::<Waiting>(&script);
    }
}

/// A thousand entries, each of a key of its own, all of them on disk.
fn far_away(time_of: impl Fn(i64) -> i64) -> (OrderedTable<String>, Arc<MemoryStore>, usize) {
    let (mut table, store) = (OrderedTable::new("o"), Arc::new(MemoryStore::default()));
    open(&mut table, &store, 0..GROUPS, false, false);
    for n in 0..1000i64 {
        let key = n.to_be_bytes();
        table.insert(EventTime(time_of(n)), &key, b"t", "x".repeat(100));
    }
    let whole = table.bytes();
    table.evict(usize::MAX).unwrap();
    (table, store, whole)
}

fn comes_back_in_parts(time_of: impl Fn(i64) -> i64) {
    let (mut table, store, whole) = far_away(time_of);
    assert!(table.bytes() < whole / 50, "{} of {whole} bytes", table.bytes());
    table.freeze(1);
    let mut batch = WriteBatch::default();
    while !table.drain(&mut batch, 10).unwrap() {}
    store.write(&batch).unwrap();

    let mut restored = OrderedTable::<String>::new("o");
    open(&mut restored, &copy(&[store], &(0..GROUPS)), 0..GROUPS, true, false);
    for mut table in [table, restored] {
        let (mut seen, mut most) = (Vec::new(), table.bytes());
        while let Some(due) = table.pop_due(EventTime::MAX).unwrap() {
            seen.push((due.time.0, due.key));
            most = most.max(table.bytes());
            if seen.len().is_multiple_of(100) {
                // There is something to write, so that nothing else leaves.
                table.evict(1).unwrap();
            }
        }
        assert!(seen.len() == 1000 && seen.is_sorted());
        assert!(most < whole / 4, "{most} of {whole} bytes");
    }
}

#[test]
fn what_is_far_away_takes_no_memory_and_comes_back_in_parts() {
    comes_back_in_parts(|n| n * 7 % 1009);
}

#[test]
fn what_is_due_at_one_time_comes_back_in_parts_too() {
    comes_back_in_parts(|_| 5);
}

#[test]
fn the_latest_leave_and_the_others_stay() {
    let (mut table, store) = (OrderedTable::new("o"), Arc::new(MemoryStore::default()));
    open(&mut table, &store, 0..GROUPS, false, false);
    for n in 0..1000i64 {
        let key = n.to_be_bytes();
        table.insert(EventTime(n * 7 % 1009), &key, b"t", n);
    }
    let whole = table.bytes();
    table.evict(whole / 4).unwrap();
    assert!((whole / 2..whole * 4 / 5).contains(&table.bytes()), "{} of {whole} bytes", table.bytes());
    let mut stored = Vec::new();
    let mut see = |key: &[u8], _: &[u8]| {
        stored.push(key[6..14].to_vec());
        Ok(())
    };
    store.scan(&[], &[0xff; 8], &mut see).unwrap();
    let first = stored.iter().min().unwrap();
    let of_time = |time: i64| ((time as u64) ^ (1 << 63)).to_be_bytes();
    assert!((of_time(700)..of_time(800)).contains(&first[..].try_into().unwrap()), "{first:?}");
}

/// A job that fires more between two checkpoints than memory holds.
#[test]
fn what_has_fired_waits_in_memory_only_as_long_as_there_is_room() {
    let (mut table, store, _) = far_away(|n| n);
    let stored = || {
        let mut stored = 0;
        let mut see = |_: &[u8], _: &[u8]| {
            stored += 1;
            Ok(())
        };
        store.scan(&[], &[0xff; 8], &mut see).unwrap();
        stored
    };
    while table.pop_due(EventTime(499)).unwrap().is_some() {}
    assert_eq!(stored(), 1000);
    let (before, pending) = (table.bytes(), 500 * 27);
    assert!(before > pending, "{before}");
    table.evict(pending).unwrap();
    assert_eq!(stored(), 500);
    assert!(table.bytes() <= before - pending, "{} of {before}", table.bytes());
    while table.pop_due(EventTime::MAX).unwrap().is_some() {}
    table.evict(1).unwrap();
    assert_eq!((stored(), table.bytes()), (0, 0));
}

#[test]
fn an_entry_that_cannot_be_read_is_an_error() {
    let (mut table, store, _) = far_away(|n| n);
    let mut cut = WriteBatch::default();
    let mut see = |key: &[u8], _: &[u8]| {
        cut.put(key, b"");
        Ok(())
    };
    store.scan(&[], &[0xff; 8], &mut see).unwrap();
    store.write(&cut).unwrap();
    assert!(table.remove(EventTime(7), &7i64.to_be_bytes(), b"t").is_err());
    assert!(table.pop_due(EventTime::MAX).is_err());
}
