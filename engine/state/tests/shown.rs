//! What `savepoint read` shows of tables whose keys are of a known kind.

use super::GROUPS;
use crate::record::{Key, Keys};
use crate::state::{
    AppendTable, MapTable, MemoryStore, OrderedTable, PileTable, SeenTable, SliceTable, Table, TableContext, WriteBatch, read_table,
    schema_of,
};
use crate::time::EventTime;
use serde_json::json;
use std::sync::Arc;

/// What a table shows of what `fill` puts into it, in the order of the store.
fn shown<T: Table>(mut table: T, fill: impl FnOnce(&mut T, &Keys)) -> Vec<serde_json::Value> {
    let store = Arc::new(MemoryStore::default());
    let context = TableContext { operator: "o".into(), store: store.clone(), groups: 0..GROUPS, max_parallelism: GROUPS };
    table.open(&context, false).unwrap();
    fill(&mut table, &Keys::encode(["ann".to_string(), "bob".to_string()].into_iter()));
    let mut batch = WriteBatch::default();
    table.freeze(1);
    while !table.drain(&mut batch, 10).unwrap() {}
    crate::state::StateStore::write(&*store, &batch).unwrap();
    let mut all = Vec::new();
    let mut visit = |entry| {
        all.push(serde_json::to_value(entry).unwrap());
        Ok(())
    };
    read_table(&*store, 0..GROUPS, "o", table.name(), &table.schema(), &mut visit).unwrap();
    all.sort_by_key(|entry| entry["key"].to_string());
    all
}

#[test]
fn keys_of_a_known_kind_are_shown_as_they_are() {
    let kind = String::kind;
    let mut slots = Vec::new();
    let slices = shown(SliceTable::<u64>::new("t").with_key(kind()), |table, keys| {
        table.resolve(keys, &mut slots);
        let mut slice = table.slice(1000);
        slots.iter().for_each(|&slot| *slice.entry(slot, || 0) += 7);
    });
    assert_eq!(slices, [json!({"key": "ann", "time_ms": 1000, "value": 7}), json!({"key": "bob", "time_ms": 1000, "value": 7})]);
    let seen = shown(SeenTable::new("t", 1000).with_key(kind()), |table, keys| {
        table.insert(keys, 0, EventTime(5));
        table.insert(keys, 1, EventTime(6));
    });
    assert_eq!(seen, [json!({"key": "ann", "time_ms": 5, "value": null}), json!({"key": "bob", "time_ms": 6, "value": null})]);
    let both = format!("{} | {}", schema_of::<u64>(), schema_of::<String>());
    let rows = shown(AppendTable::new("t", 2, &both).with_key(kind()), |table, keys| {
        table.resolve(keys, &mut slots);
        table.append(0, slots[0], EventTime(5), &[9]);
        table.append(1, slots[1], EventTime(6), &[1, b'x']);
    });
    assert_eq!(rows, [json!({"key": "ann", "time_ms": 5, "value": 9}), json!({"key": "bob", "time_ms": 6, "value": "x"})]);
    let piled = shown(PileTable::new("t", &both).with_key(kind()), |table, keys| {
        table.resolve(keys, &mut slots);
        table.add(0, slots[0], &[9]);
        table.add(1, slots[1], &[1, b'x']);
    });
    assert_eq!(piled, [json!({"key": "ann", "value": 9}), json!({"key": "bob", "value": "x"})]);
    let maps = shown(MapTable::<u64>::new("t").with_key(kind()), |table, keys| {
        table.resolve(keys, &mut slots).unwrap();
        table.insert(slots[0], b"n", 9);
    });
    assert_eq!(maps, [json!({"key": "ann", "name": "6e", "value": 9})]);
    let timers = shown(OrderedTable::<()>::new("t").with_key(kind()), |table, keys| {
        table.insert(EventTime(5), keys.bytes(0, &mut [0; 8]), b"soon", ());
    });
    assert_eq!(timers, [json!({"key": "ann", "time_ms": 5, "name": "soon", "value": null})]);
}
