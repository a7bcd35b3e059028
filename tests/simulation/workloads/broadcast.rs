//! Tables that every task holds whole.
//!
//! Invariant: they are complete before the stream begins, in every task; a key's rows see them with their own key and with all.

use super::super::graph::Text;
use super::super::input::{Input, Row};
use super::keyed::keyed_entries;
use super::{Order, Workload, nothing};
use std::collections::BTreeMap;
use waterwheel::engine::operators::{BroadcastState, ProcessContext, ProcessFunction, ProcessOpen, ValueState};

/// The table as it ends.
fn table(input: &Input) -> BTreeMap<u32, u32> {
    let last: BTreeMap<u32, Option<u32>> = input.changes.iter().copied().collect();
    last.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

/// The key that a row looks up: often one that belongs to another task.
fn other(row: &Row) -> u32 {
    (row.key + row.id) % 41
}

/// The stream is not dealt out by key.
pub(crate) const JOIN: Workload = Workload {
    name: "broadcast-join",
    draw: |draw| {
        let lanes = draw.input().splits.len() as u32;
        let joined = draw.rows().broadcast_join(&keyed_entries(draw, "table"), other, move |row, entry| -> Text {
            (format!("{}", row.id % lanes), format!("{} {:?}", row.id, entry.map(|(_, value)| *value)))
        });
        draw.out(&draw.watched(&joined.id("joined"), "watched"));
    },
    expect: |input| {
        let (table, lanes) = (table(input), input.splits.len() as u32);
        let join = |row: &Row| (format!("{}", row.id % lanes), format!("{} {:?}", row.id, table.get(&other(row))));
        input.rows().map(join).collect()
    },
    order: Order::PerKey,
    also: nothing,
};

/// Rows by key, with the map and a state of their own.
#[derive(Default)]
struct Looks {
    map: BroadcastState<u32, (u32, u32)>,
    seen: ValueState<u64>,
}

impl ProcessFunction<u32, Row, Text> for Looks {
    fn open(&mut self, open: &mut ProcessOpen<'_>) {
        self.map = open.broadcast("entries");
        self.seen = open.value("seen");
    }

    fn on_element(&mut self, context: &mut ProcessContext<'_, u32, Text>, row: Row) {
        let seen = self.seen.get(context).copied().unwrap_or(0) + 1;
        self.seen.set(context, seen);
        let sum: u64 = self.map.entries(context).map(|(key, (_, value))| u64::from(key ^ value)).sum();
        let found = self.map.get(context, &other(&row)).map(|(_, value)| *value);
        // Apart, because the input does not fix which of a key's rows comes first.
        context.emit((format!("{} {found:?} {sum}", row.id), String::new()));
        context.emit((format!("seen {}", row.key), seen.to_string()));
    }
}

/// A process function that sees the whole table.
pub(crate) const MAP: Workload = Workload {
    name: "broadcast-map",
    draw: |draw| {
        let map = keyed_entries(draw, "table").broadcast("entries");
        let keyed = draw.rows().key_by(|row| row.key);
        // The map enters at the head of a task, or in the middle.
        let keyed = if draw.input().variant.is_multiple_of(2) { keyed } else { keyed.sort_by_time(|row| row.id).id("sorted").clone() };
        draw.out(&keyed.with_broadcast(&map).process(Looks::default).id("looks"));
    },
    expect: |input| {
        let table = table(input);
        let sum: u64 = table.iter().map(|(key, value)| u64::from(key ^ value)).sum();
        let mut seen: BTreeMap<u32, u64> = BTreeMap::new();
        let mut all = Vec::new();
        for row in input.rows() {
            let seen = seen.entry(row.key).or_default();
            *seen += 1;
            all.push((format!("{} {:?} {sum}", row.id, table.get(&other(row))), String::new()));
            all.push((format!("seen {}", row.key), seen.to_string()));
        }
        all
    },
    order: Order::PerKey,
    also: nothing,
};
