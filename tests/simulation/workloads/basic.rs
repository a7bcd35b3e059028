//! Workloads without keyed state, and graphs put together at random.
//!
//! Invariant: ids say where a row was; no workload here changes which rows there are but by a filter on the id.

use super::super::graph::{DEAD, Draw, Text};
use super::super::input::{Input, Row};
use super::keyed::keyed_entries;
use super::{Order, Output, Workload, nothing};
use std::time::Duration;
use waterwheel::engine::dsl::Stream;
use waterwheel::engine::operators::{AsyncOptions, ErrorPolicy, ProcessContext, ProcessFunction, ProcessOpen, ValueState};

/// map, filter and flat_map in one chain: the order within a split stays.
pub(crate) const STATELESS: Workload = Workload {
    name: "stateless",
    draw: |draw| {
        let rows = draw.watched(&draw.rows(), "watched").filter(|row| !row.id.is_multiple_of(7));
        let lanes = draw.input().splits.len() as u32;
        let twice =
            rows.flat_map(move |row| (0..1 + row.id % 2).map(move |n| (format!("{}", row.id % (2 * lanes)), format!("{}.{n}", row.id))));
        draw.out(&twice.map(|text| text));
    },
    expect: |input| {
        let lanes = input.splits.len() as u32;
        let kept = input.rows().filter(|row| !row.id.is_multiple_of(7));
        kept.flat_map(|row| (0..1 + row.id % 2).map(move |n| (format!("{}", row.id % (2 * lanes)), format!("{}.{n}", row.id)))).collect()
    },
    order: Order::PerKey,
    also: nothing,
};

fn id(row: &Row) -> Text {
    (row.key.to_string(), row.id.to_string())
}

/// Two branches that meet again, one of them dealt out anew.
pub(crate) const BRANCHES: Workload = Workload {
    name: "branches",
    draw: |draw| {
        let (even, odd) = draw.rows().split(|row| row.id.is_multiple_of(2));
        let both = even.rebalance().map(|row| row).union(&odd);
        draw.out(&draw.watched(&both, "watched").map(|row| id(&row)));
    },
    expect: |input| input.rows().map(id).collect(),
    order: Order::None,
    also: nothing,
};

/// Calls to the outside that answer when the seed says.
pub(crate) const CALLS: Workload = Workload {
    name: "calls",
    draw: |draw| {
        let called = draw.rows().map_async(AsyncOptions::ordered().capacity(20), |row: Row| async move { Ok(row) }).id("called");
        draw.out(&draw.watched(&called, "watched").map(|row| id(&row)));
    },
    expect: |input| input.rows().map(id).collect(),
    order: Order::None,
    also: nothing,
};

/// Records that are no rows, and rows that fail further down, leave as dead letters.
pub(crate) const DEAD_LETTERS: Workload = Workload {
    name: "dead-letters",
    draw: |draw| {
        let rows = draw.rows().on_error(ErrorPolicy::DeadLetter);
        let checked = rows.try_map(|row| if row.id % 50 == 13 { Err("unlucky".into()) } else { Ok(id(&row)) });
        draw.out(&checked.id("checked"));
    },
    expect: |input| input.rows().filter(|row| row.id % 50 != 13).map(id).collect(),
    order: Order::None,
    also: |input: &Input, output: &Output| {
        let bad = input.bad.iter().map(Vec::len).sum::<usize>() + input.rows().filter(|row| row.id % 50 == 13).count();
        let dead = output.all(DEAD).count();
        if dead == bad { Ok(()) } else { Err(format!("{dead} dead letters of {bad} bad records")) }
    },
};

/// Passes rows on, and has state all the same: a row of an id that it has seen is a violation.
#[derive(Default)]
struct Once(ValueState<u32>);

impl ProcessFunction<u32, Row, Row> for Once {
    fn open(&mut self, open: &mut ProcessOpen<'_>) {
        self.0 = open.value("seen");
    }
    fn on_element(&mut self, context: &mut ProcessContext<'_, u32, Row>, row: Row) {
        let seen = self.0.get(context).copied().unwrap_or(0);
        self.0.set(context, seen + 1);
        if seen == 0 {
            context.emit(row);
        } else {
            context.emit(Row { id: u32::MAX, ..row });
        }
    }
}

/// Passes rows on.
struct Pass;

impl ProcessFunction<u32, Row, Row> for Pass {
    fn open(&mut self, _: &mut ProcessOpen<'_>) {}
    fn on_element(&mut self, context: &mut ProcessContext<'_, u32, Row>, row: Row) {
        context.emit(row);
    }
}

/// One more operator, chosen by `pick`.
fn grow(draw: &Draw, stream: &Stream<Row>, pick: u64, nth: usize) -> Stream<Row> {
    let day = Duration::from_secs(86_400);
    match pick % 9 {
        0 => stream.map(|row| row),
        1 => stream.filter(|row| row.id % 11 != 5),
        2 => stream.rebalance().map(|row| row),
        3 => stream.key_by(|row| row.id).process(Once::default),
        4 => stream.dedup_by(|row| row.id, day),
        5 => stream.key_by(|row| row.key).sort_by_time(|row| row.id).id(&format!("sorted-{nth}")).process(|| Pass),
        6 => {
            let (a, b) = stream.split(|row| row.id % 3 == 0);
            a.map(|row| row).union(&b.rebalance().map(|row| row))
        }
        7 => {
            let id = format!("table-{nth}");
            stream.join_table(&keyed_entries(draw, &id), |row| row.key, |row, _| row)
        }
        _ => stream.flat_map(|row| [row]),
    }
    .id(&format!("grown-{nth}"))
}

fn picks(input: &Input) -> impl Iterator<Item = u64> {
    let variant = input.variant;
    (0..2 + variant % 4).map(move |n| variant >> (8 + 4 * n))
}

/// A chain of operators at random.
pub(crate) const RANDOM: Workload = Workload {
    name: "random",
    draw: |draw: &Draw| {
        let mut stream = draw.rows().stream();
        for (nth, pick) in picks(draw.input()).enumerate() {
            stream = grow(draw, &stream, pick, nth);
        }
        draw.out(&draw.watched(&stream, "watched").map(|row| id(&row)));
    },
    expect: |input| {
        let filters = picks(input).any(|pick| pick % 9 == 1);
        input.rows().filter(|row| !filters || row.id % 11 != 5).map(id).collect()
    },
    order: Order::None,
    also: nothing,
};
