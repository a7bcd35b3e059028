//! Slices of windows, with room and without: pages leave memory and come back all the time.

use super::far::pressed;
use super::tables::{bytes, keys, steps};
use super::{GROUPS, Subject, copy, open, run};
use crate::record::Keys;
use crate::state::{MemoryStore, SliceTable, Table, WriteBatch};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

struct Sliced;

#[derive(Debug, Clone)]
enum SliceOp {
    Add(i64, Vec<u8>, u16),
    /// Makes an accumulator and takes it back, if there is none.
    Unmake(i64, u8),
    Put(i64, u8, u16),
    Drop(i64),
    /// A look at some keys in all slices.
    Look(Vec<u8>),
    /// A batch whose rows are all too late.
    Late(Vec<u8>),
}

fn slice_op() -> impl Strategy<Value = SliceOp> {
    let slice = prop_oneof![6 => -2i64..3, 1 => Just(i64::MIN), 1 => Just(i64::MAX)];
    prop_oneof![
        4 => (slice.clone(), proptest::collection::vec(0u8..8, 1..4), any::<u16>()).prop_map(|(s, k, v)| SliceOp::Add(s, k, v)),
        1 => (slice.clone(), 0u8..12).prop_map(|(s, k)| SliceOp::Unmake(s, k)),
        1 => (slice.clone(), 0u8..8, any::<u16>()).prop_map(|(s, k, v)| SliceOp::Put(s, k, v)),
        2 => slice.prop_map(SliceOp::Drop),
        1 => proptest::collection::vec(0u8..12, 1..4).prop_map(SliceOp::Look),
        1 => proptest::collection::vec(0u8..12, 1..4).prop_map(SliceOp::Late),
    ]
}

type SliceModel = BTreeMap<(i64, Vec<u8>), u64>;

impl Subject for Sliced {
    type Op = SliceOp;
    type Model = SliceModel;
    type Table = SliceTable<u64>;

    fn make() -> Self::Table {
        SliceTable::new("s")
    }

    fn apply(table: &mut Self::Table, model: &mut SliceModel, op: &SliceOp) {
        let mut slots = Vec::new();
        match op {
            SliceOp::Add(slice, names, value) => {
                table.resolve(&keys(names.iter().copied()), &mut slots);
                table.recall(slots.iter().map(|&slot| (*slice, slot))).unwrap();
                let mut cursor = table.slice(*slice);
                for (&slot, name) in slots.iter().zip(names) {
                    *cursor.entry(slot, || 0) += u64::from(*value);
                    *model.entry((*slice, bytes(*name))).or_default() += u64::from(*value);
                    assert_eq!(cursor.get(slot), model.get(&(*slice, bytes(*name))));
                }
            }
            SliceOp::Unmake(slice, name) => {
                table.resolve(&keys([*name].into_iter()), &mut slots);
                table.recall([(*slice, slots[0])].into_iter()).unwrap();
                if !model.contains_key(&(*slice, bytes(*name))) {
                    let made = *table.slice(*slice).entry(slots[0], || 7);
                    assert_eq!(made, 7);
                    table.unmake(*slice, slots[0]);
                }
            }
            SliceOp::Put(slice, name, value) => {
                // Whatever was there, in memory or not.
                table.resolve(&keys([*name].into_iter()), &mut slots);
                table.slice(*slice).put(slots[0], u64::from(*value));
                model.insert((*slice, bytes(*name)), u64::from(*value));
            }
            SliceOp::Look(names) => {
                table.resolve(&keys(names.iter().copied()), &mut slots);
                let ends: Vec<i64> = table.slices(..).collect();
                for end in ends {
                    table.recall(slots.iter().map(|&slot| (end, slot))).unwrap();
                    for (&slot, name) in slots.iter().zip(names) {
                        assert_eq!(table.get(end, slot), model.get(&(end, bytes(*name))));
                    }
                    table.let_go();
                }
            }
            SliceOp::Drop(slice) => {
                table.drop_slice(*slice);
                model.retain(|(s, _), _| s != slice);
            }
            SliceOp::Late(names) => table.resolve(&keys(names.iter().copied()), &mut slots),
        }
    }

    fn read(table: &mut Self::Table) -> SliceModel {
        let (mut out, mut slots, mut all) = (SliceModel::new(), Vec::new(), Vec::new());
        let ends: Vec<i64> = table.slices(..).collect();
        for &end in &ends {
            table.slots_in(end..=end, &mut slots);
            assert!(slots.is_sorted_by(|&a, &b| table.index().compare(a, b).is_lt()), "by key bytes, each once");
            let (mut last, mut parts) = (None::<Vec<u8>>, table.parts(end..=end));
            let near = slots.len();
            while table.next_part(&mut parts, &mut slots).unwrap() {
                assert!(near <= slots.len() || table.is_far(end..=end));
                for &slot in &slots {
                    let key = table.index().key_bytes(slot, &mut [0; 8]).to_vec();
                    assert!(last.is_none_or(|last| last < key), "by key bytes, each once");
                    last = Some(key.clone());
                    out.insert((end, key), *table.get(end, slot).unwrap());
                }
            }
        }
        let mut parts = table.parts(i64::MIN..=i64::MAX);
        while table.next_part(&mut parts, &mut slots).unwrap() {
            for &slot in &slots {
                let key = table.index().key_bytes(slot, &mut [0; 8]).to_vec();
                for &end in &ends {
                    assert_eq!(table.get(end, slot), out.get(&(end, key.clone())), "the same in a look at all slices");
                }
                all.push(key);
            }
        }
        let expected: BTreeSet<Vec<u8>> = out.keys().map(|(_, key)| key.clone()).collect();
        assert_eq!(all, Vec::from_iter(expected), "by key bytes, each once");
        out
    }

    fn merge(mut a: SliceModel, b: SliceModel) -> SliceModel {
        a.extend(b);
        a
    }
}

proptest! {
    #[test]
    fn slice_table_is_a_map_of_maps(script in steps(slice_op())) {
        run::<Sliced>(&script);
    }

    #[test]
    fn windows_on_disk_are_a_map_by_slice_and_key(script in pressed(slice_op())) {
        run::<Sliced>(&script);
    }
}

/// A slice of a thousand keys, all of them on disk.
fn far_slice() -> (SliceTable<String>, Arc<MemoryStore>, usize) {
    let (mut table, store) = (SliceTable::new("s"), Arc::new(MemoryStore::default()));
    open(&mut table, &store, 0..GROUPS, false, false);
    let mut slots = Vec::new();
    table.resolve(&Keys::encode((0..1000u32).rev()), &mut slots);
    let mut cursor = table.slice(9);
    slots.iter().for_each(|&slot| cursor.put(slot, "x".repeat(100)));
    let whole = table.bytes();
    table.evict(usize::MAX).unwrap();
    (table, store, whole)
}

#[test]
fn a_window_on_disk_takes_no_memory_and_fires_in_parts() {
    let (mut table, store, whole) = far_slice();
    assert_eq!((table.bytes(), table.keys()), (0, 0), "of {whole} bytes");
    table.freeze(1);
    let mut batch = WriteBatch::default();
    while !table.drain(&mut batch, 10).unwrap() {}
    assert!(batch.is_empty(), "the store has it all");

    let mut restored = SliceTable::<String>::new("s");
    open(&mut restored, &copy(&[store], &(0..GROUPS)), 0..GROUPS, true, false);
    for mut table in [table, restored] {
        let (mut keys, mut slots, mut most, mut parts) = (Vec::new(), Vec::new(), 0, table.parts(9..=9));
        while table.next_part(&mut parts, &mut slots).unwrap() {
            keys.extend(slots.iter().map(|&slot| table.index().key_bytes(slot, &mut [0; 8]).to_vec()));
            assert!(slots.iter().all(|&slot| table.get(9, slot).is_some_and(|value| value.len() == 100)));
            most = most.max(table.bytes());
        }
        assert!(keys.len() == 1000 && keys.is_sorted());
        assert!(most < whole / 8, "{most} of {whole} bytes");
        assert!(table.is_far(9..=9));
        table.drop_slice(9);
        assert!(table.is_empty() && !table.has_far());
        // Gone from the store as well, with the next checkpoint.
        table.freeze(2);
        let mut batch = WriteBatch::default();
        assert!(table.drain(&mut batch, 10).unwrap());
        assert_eq!(batch.len(), usize::from(GROUPS));
    }
}

#[test]
fn some_of_a_window_leaves_and_comes_back_for_good_where_there_is_room() {
    let (mut table, store) = (SliceTable::new("s"), Arc::new(MemoryStore::default()));
    open(&mut table, &store, 0..GROUPS, false, false);
    let mut slots = Vec::new();
    table.resolve(&Keys::encode(0..1000u32), &mut slots);
    for end in [9, 19] {
        let mut cursor = table.slice(end);
        slots.iter().for_each(|&slot| *cursor.entry(slot, || 0u64) += u64::from(slot));
    }
    let whole = table.bytes();
    table.evict(whole / 4).unwrap();
    assert!((whole * 2 / 3..whole * 4 / 5).contains(&table.bytes()), "{} of {whole} bytes", table.bytes());
    assert!(table.is_far(0..=9) && !table.is_far(10..=19), "the earliest leave first");
    assert!(table.has_evicted() && !table.has_evicted());
    table.drop_slice(19);
    let mut parts = table.parts(9..=9);
    while table.next_part(&mut parts, &mut slots).unwrap() {}
    assert!(!table.has_far() && table.keys() == 1000);
    table.resolve(&Keys::encode(0..1000u32), &mut slots);
    assert!(slots.iter().zip(0..).all(|(&slot, key)| table.get(9, slot) == Some(&key)));
}
