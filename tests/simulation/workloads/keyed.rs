//! Workloads with state per key: counts, deduplication, sorting, timers, a table.
//!
//! Invariant: what is expected of a key does not depend on the order in which splits are read.

use super::super::graph::{Draw, Text};
use super::super::input::Row;
use super::{Order, Workload, by_key, nothing};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use waterwheel::engine::dsl::Table;
use waterwheel::engine::operators::{MapState, ProcessContext, ProcessFunction, ProcessOpen, Timer, ValueState};
use waterwheel::engine::time::EventTime;

/// Counts the rows of a key: one more with each row, whatever row it is.
#[derive(Default)]
struct Counting(ValueState<u64>);

impl ProcessFunction<u32, Row, Text> for Counting {
    fn open(&mut self, open: &mut ProcessOpen<'_>) {
        self.0 = open.value("count");
    }
    fn on_element(&mut self, context: &mut ProcessContext<'_, u32, Text>, row: Row) {
        let count = self.0.get(context).copied().unwrap_or(0) + 1;
        self.0.set(context, count);
        context.emit((row.key.to_string(), count.to_string()));
    }
}

/// A process function with a value per key.
pub(crate) const COUNT: Workload = Workload {
    name: "count",
    draw: |draw| draw.out(&draw.rows().key_by(|row| row.key).process(Counting::default).id("count")),
    expect: |input| {
        let numbers = |(key, rows): (u32, Vec<Row>)| (1..=rows.len()).map(move |n| (key.to_string(), n.to_string()));
        by_key(input).into_iter().flat_map(numbers).collect()
    },
    order: Order::PerKey,
    also: nothing,
};

/// A running aggregate: converges.
pub(crate) const TOTALS: Workload = Workload {
    name: "totals",
    draw: |draw| {
        let totals = draw.rows().key_by(|row| row.key).aggregate(|| (0u64, 0u64), |t, row| *t = (t.0 + 1, t.1 + u64::from(row.id)));
        draw.out(&totals.id("totals").map(|(key, (n, sum))| (key.to_string(), format!("{n} {sum}"))));
    },
    expect: |input| {
        let total = |(key, rows): (u32, Vec<Row>)| {
            (key.to_string(), format!("{} {}", rows.len(), rows.iter().map(|row| u64::from(row.id)).sum::<u64>()))
        };
        by_key(input).into_iter().map(total).collect()
    },
    order: Order::Last,
    also: nothing,
};

/// Repeats within a split are dropped.
pub(crate) const DEDUP: Workload = Workload {
    name: "dedup",
    draw: |draw| {
        let ttl = Duration::from_millis(draw.input().span_ms as u64);
        let once = draw.rows().dedup_by(|row| row.tag, ttl).id("dedup");
        draw.out(&once.map(|row| (row.tag.to_string(), row.id.to_string())));
    },
    expect: |input| {
        // As the operator says it, but without ever forgetting.
        let mut first: BTreeMap<u32, i64> = BTreeMap::new();
        let mut passes = |row: &&Row| match first.get(&row.tag) {
            Some(at) if row.at.abs_diff(*at) < input.span_ms as u64 => false,
            Some(at) if row.at < *at => true,
            _ => {
                first.insert(row.tag, row.at);
                true
            }
        };
        input.rows().filter(|row| passes(row)).map(|row| (row.tag.to_string(), row.id.to_string())).collect()
    },
    order: Order::PerKey,
    also: nothing,
};

/// Says what comes, in the order in which it comes.
struct Shown;

impl ProcessFunction<u32, Row, Text> for Shown {
    fn open(&mut self, _: &mut ProcessOpen<'_>) {}
    fn on_element(&mut self, context: &mut ProcessContext<'_, u32, Text>, row: Row) {
        context.emit((row.key.to_string(), format!("{} {}", row.at, row.id)));
    }
}

/// Rows of a key in the order of time, over all splits.
pub(crate) const SORT: Workload = Workload {
    name: "sort",
    draw: |draw| {
        let sorted = draw.rows().key_by(|row| row.key).sort_by_time(|row| row.id).id("sort");
        draw.out(&draw.watched(&sorted.process(|| Shown).id("shown"), "watched"));
    },
    expect: |input| {
        let sorted = |(key, mut rows): (u32, Vec<Row>)| {
            rows.sort_by_key(|row| (row.at, row.id));
            rows.into_iter().map(move |row| (key.to_string(), format!("{} {}", row.at, row.id)))
        };
        by_key(input).into_iter().flat_map(sorted).collect()
    },
    order: Order::PerKey,
    also: nothing,
};

/// Keeps rows until a timer of theirs fires, a span after them; then says which of the key are due.
struct Delay {
    span_ms: i64,
    rows: MapState<(i64, u32), u32>,
}

impl ProcessFunction<u32, Row, Text> for Delay {
    fn open(&mut self, open: &mut ProcessOpen<'_>) {
        self.rows = open.map("rows");
    }
    fn on_element(&mut self, context: &mut ProcessContext<'_, u32, Text>, row: Row) {
        self.rows.insert(context, (row.at, row.id), row.tag);
        context.set_timer(if row.id.is_multiple_of(2) { "even" } else { "odd" }, EventTime(row.at + self.span_ms));
    }
    fn on_timer(&mut self, context: &mut ProcessContext<'_, u32, Text>, timer: &Timer) {
        let parity = u32::from(timer.name == "odd");
        let until = timer.time.0 - self.span_ms;
        let due: Vec<(i64, u32)> =
            self.rows.entries(context).map(|(row, _)| *row).filter(|(at, id)| *at <= until && id % 2 == parity).collect();
        for row in &due {
            self.rows.remove(context, row);
        }
        let ids: Vec<String> = due.iter().map(|(_, id)| id.to_string()).collect();
        let key = context.key();
        context.emit((key.to_string(), format!("{} {} {}", timer.time.0, timer.name, ids.join(","))));
    }
}

/// Timers with state, far beyond the disorder.
pub(crate) const TIMERS: Workload = Workload {
    name: "timers",
    draw: |draw| {
        let span_ms = draw.input().span_ms;
        let delayed = draw.rows().key_by(|row| row.key).process(move || Delay { span_ms, rows: MapState::default() }).id("delay");
        draw.out(&draw.watched(&delayed, "watched").map(|text| text));
    },
    expect: |input| {
        let mut all = Vec::new();
        for (key, rows) in by_key(input) {
            let timers: BTreeSet<(i64, &str)> =
                rows.iter().map(|row| (row.at, if row.id.is_multiple_of(2) { "even" } else { "odd" })).collect();
            for (at, name) in timers {
                let parity = u32::from(name == "odd");
                let mut ids: Vec<u32> = rows.iter().filter(|row| row.at == at && row.id % 2 == parity).map(|row| row.id).collect();
                ids.sort_unstable();
                let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
                all.push((key.to_string(), format!("{} {name} {}", at + input.span_ms, ids.join(","))));
            }
        }
        all
    },
    order: Order::PerKey,
    also: nothing,
};

/// The input's table, by key.
pub(super) fn keyed_entries(draw: &Draw, id: &str) -> Table<u32, (u32, u32)> {
    let key_of = |name: &[u8]| std::str::from_utf8(name).ok().and_then(|text| text.parse().ok()).ok_or_else(|| "no key".to_string());
    draw.entries().id(id).table_by(|(key, _)| *key, key_of)
}

/// A table that is complete before the stream begins.
pub(crate) const TABLE: Workload = Workload {
    name: "table",
    draw: |draw| {
        let joined =
            draw.rows().join_table(&keyed_entries(draw, "table"), |row| row.key, |row, entry| (row, entry.map(|(_, value)| *value)));
        let lanes = draw.input().splits.len() as u32;
        draw.out(&joined.id("joined").map(move |(row, value)| {
            (format!("{}/{}", row.key, row.id % lanes), format!("{} {}", row.id, value.map_or("none".into(), |v| v.to_string())))
        }));
    },
    expect: |input| {
        let table: BTreeMap<u32, Option<u32>> = input.changes.iter().copied().collect();
        let lanes = input.splits.len() as u32;
        let join = |row: &Row| {
            let value = table.get(&row.key).copied().flatten();
            (format!("{}/{}", row.key, row.id % lanes), format!("{} {}", row.id, value.map_or("none".into(), |v| v.to_string())))
        };
        input.rows().map(join).collect()
    },
    order: Order::PerKey,
    also: nothing,
};
