//! Tables computed with tables, and event patterns.
//!
//! Invariant: of a table the last value of a key counts, and a key whose last value is [`GONE`] is not in it.

use super::super::graph::Text;
use super::super::input::{Input, Row};
use super::sessions::distance;
use super::{GONE, Order, Workload, by_key, nothing};
use std::collections::BTreeMap;
use std::time::Duration;
use waterwheel::engine::dsl::{Stream, Table};
use waterwheel::engine::operators::Pattern;

/// A table's changes, its keys named after it.
fn changes<K: waterwheel::engine::record::Key + std::fmt::Debug, V: waterwheel::engine::record::Data + std::fmt::Display>(
    table: &Table<K, V>,
    name: &'static str,
) -> Stream<Text> {
    table.changes().map(move |(key, value)| (format!("{name} {key:?}"), value.map_or(GONE.into(), |value| value.to_string())))
}

/// Every change makes many more, so some of the rows must do.
fn counts(row: &Row) -> bool {
    row.id % 5 < 2
}

/// Rows and sum of the ids of a key's rows on one side.
type Sum = (u64, u64);

/// Counts of both sides, joined by key, grouped, and referred to; the highest ids of each key.
pub(crate) const TABLES: Workload = Workload {
    name: "tables",
    draw: |draw| {
        let rows = draw.rows().filter(counts).key_by(|row| row.key);
        let sums = |parity: u32, id: &str| {
            let add = move |sum: &mut Sum, row: &Row| {
                if row.id % 2 == parity {
                    *sum = (sum.0 + 1, sum.1 + u64::from(row.id));
                }
            };
            rows.aggregate(|| (0, 0), add).id(id).to_table()
        };
        let (even, odd) = (sums(0, "even"), sums(1, "odd").filter(|_, sum| !sum.1.is_multiple_of(4)));
        let joined = even.full_join(&odd, |_, e, o| e.map_or(0, |e| e.1) + 1_000_000 * o.map_or(0, |o| o.0));
        let referring = even.left_foreign_join(&odd, |sum| (sum.1 % 40) as u32, |_, e, o| e.0 * 1_000_000 + o.map_or(7, |o| o.1));
        let grouped = even.group_by(|_, sum| sum.1 % 3).aggregate(|| 0u64, |n, sum| *n += sum.0, |n, sum| *n -= sum.0);
        let top = rows.top_n(3, |a, b| b.id.cmp(&a.id)).id("top").map(|_, row| row.id);
        let all = changes(&joined.id("joined"), "joined")
            .union(&changes(&referring.id("referring"), "referring"))
            .union(&changes(&grouped.id("grouped"), "grouped"))
            .union(&changes(&top, "top"));
        draw.out(&all);
    },
    expect: |input| {
        let sum = |rows: &[Row], parity: u32| -> Sum {
            rows.iter().filter(|row| row.id % 2 == parity).fold((0, 0), |sum, row| (sum.0 + 1, sum.1 + u64::from(row.id)))
        };
        let mut keys = by_key(input);
        keys.values_mut().for_each(|rows| rows.retain(counts));
        keys.retain(|_, rows| !rows.is_empty());
        let even: BTreeMap<u32, Sum> = keys.iter().map(|(key, rows)| (*key, sum(rows, 0))).collect();
        let odd: BTreeMap<u32, Sum> =
            keys.iter().map(|(key, rows)| (*key, sum(rows, 1))).filter(|(_, sum)| !sum.1.is_multiple_of(4)).collect();
        let mut all = Vec::new();
        let mut groups: BTreeMap<u64, u64> = BTreeMap::new();
        for (key, e) in &even {
            let o = odd.get(key).map_or(0, |o| o.0);
            all.push((format!("joined {key:?}"), (e.1 + 1_000_000 * o).to_string()));
            let other = odd.get(&((e.1 % 40) as u32)).map_or(7, |o| o.1);
            all.push((format!("referring {key:?}"), (e.0 * 1_000_000 + other).to_string()));
            *groups.entry(e.1 % 3).or_default() += e.0;
        }
        all.extend(groups.into_iter().map(|(group, n)| (format!("grouped {group:?}"), n.to_string())));
        for (key, rows) in keys {
            let mut ids: Vec<u32> = rows.iter().map(|row| row.id).collect();
            ids.sort_unstable_by(|a, b| b.cmp(a));
            let ranked = ids.into_iter().take(3).zip(1u32..).map(|(id, rank)| (format!("top {:?}", (key, rank)), id.to_string()));
            all.extend(ranked);
        }
        all
    },
    order: Order::Table,
    also: nothing,
};

fn within(input: &Input) -> i64 {
    distance(input) * (1 + (input.variant % 6) as i64)
}

/// A row of one sort followed, within a span, by one of another sort: each of the first sort is in a match or has timed out.
pub(crate) const PATTERNS: Workload = Workload {
    name: "patterns",
    draw: |draw| {
        let pattern = Pattern::begin("first", |row: &Row, _| row.id.is_multiple_of(3))
            .followed_by("second", |row: &Row, _| row.id % 3 == 1)
            .within(Duration::from_millis(within(draw.input()) as u64));
        let sorted = draw.rows().key_by(|row| row.key).sort_by_time(|row| row.id).id("sorted");
        let show = |found: &waterwheel::engine::operators::Match<'_, Row>| {
            let key = found.last("first").map_or(0, |row| row.key);
            let ids: Vec<String> = found.rows().map(|(.., row)| row.id.to_string()).collect();
            (key.to_string(), ids.join(" "))
        };
        let (found, timed_out) = sorted.detect_or_time_out(&pattern, show, show);
        draw.out(&draw.watched(&found.id("found"), "watched").union(&timed_out.map(|text| text)));
    },
    expect: |input| {
        let mut all = Vec::new();
        for (key, mut rows) in by_key(input) {
            rows.sort_by_key(|row| (row.at, row.id));
            for (at, first) in rows.iter().enumerate().filter(|(_, row)| row.id.is_multiple_of(3)) {
                let second = rows[at + 1..].iter().take_while(|row| row.at < first.at + within(input)).find(|row| row.id % 3 == 1);
                let text = second.map_or(first.id.to_string(), |second| format!("{} {}", first.id, second.id));
                all.push((key.to_string(), text));
            }
        }
        all
    },
    order: Order::None,
    also: nothing,
};
