//! Windows that the rows make, and windows that grow: sessions, counts, cumulative windows.
//!
//! Invariant: as for all windows, a window's value is the sorted list of its ids.

use super::super::input::{Input, Row};
use super::windows::{Ids, show, shown};
use super::{Order, Workload, by_key, nothing};
use std::time::Duration;
use waterwheel::engine::windowing::{Count, Cumulative, Session};

fn millis(ms: i64) -> Duration {
    Duration::from_millis(ms as u64)
}

/// About the distance between two rows of a key, so that pauses are as long as the gap, longer and shorter.
pub(super) fn distance(input: &Input) -> i64 {
    let times = || input.rows().map(|row| row.at);
    let (first, last) = (times().min().unwrap_or(0), times().max().unwrap_or(0));
    let keys = by_key(input).len() as i64;
    ((last - first) * keys / input.rows().count().max(1) as i64).max(1)
}

fn gap(input: &Input) -> i64 {
    distance(input) * (1 + (input.variant % 2) as i64)
}

/// In half of the runs a row says itself how long a pause it allows.
fn allows(input: &Input, row: &Row) -> i64 {
    let own = input.variant / 4 % 2 == 1 && row.id.is_multiple_of(3);
    gap(input) * if own { 2 } else { 1 }
}

/// Sessions, nothing late.
pub(crate) const SESSIONS: Workload = Workload {
    name: "sessions",
    draw: |draw| {
        let input = draw.ground.input.clone();
        let keyed = draw.rows().key_by(|row| row.key);
        let add = |ids: &mut Ids, row: &Row| ids.0.push(row.id);
        let windows = if input.variant / 4 % 2 == 1 {
            keyed.window(Session::gap_by(move |row| millis(allows(&input, row)))).aggregate_windows(Ids::default, add)
        } else {
            keyed.window(Session::gap(millis(gap(&input)))).aggregate_windows(Ids::default, add)
        };
        draw.out(&draw.watched(&shown(&windows.id("sessions")), "watched"));
    },
    expect: |input| {
        let mut all = Vec::new();
        for (key, mut rows) in by_key(input) {
            rows.sort_by_key(|row| row.at);
            let mut sessions: Vec<(i64, i64, Vec<u32>)> = Vec::new();
            for row in rows {
                let end = row.at + allows(input, &row);
                match sessions.last_mut() {
                    Some((_, over, ids)) if row.at < *over => {
                        *over = end.max(*over);
                        ids.push(row.id);
                    }
                    _ => sessions.push((row.at, end, vec![row.id])),
                }
            }
            all.extend(sessions.into_iter().map(|(start, _, ids)| (key.to_string(), show(start, ids))));
        }
        all
    },
    order: Order::PerKey,
    also: nothing,
};

fn rows_a_window(input: &Input) -> u64 {
    2 + input.variant % 7
}

/// Windows of so many rows of a split, whatever their times. What is left at the end is a smaller one.
pub(crate) const COUNTS: Workload = Workload {
    name: "counts",
    draw: |draw| {
        let (splits, rows) = (draw.input().splits.len() as u32, rows_a_window(draw.input()));
        let windows = draw.rows().key_by(move |row| row.id % splits).window(Count::of(rows));
        let windows = windows.aggregate_windows(Ids::default, |ids, row: &Row| ids.0.push(row.id)).id("counts");
        draw.out(&windows.map(|w| (w.key.to_string(), show(0, w.value.0))));
    },
    expect: |input| {
        let size = rows_a_window(input) as usize;
        let of_split = |(split, rows): (usize, &Vec<Row>)| {
            let ids = |rows: &[Row]| rows.iter().map(|row| row.id).collect();
            rows.chunks(size).map(|rows| (split.to_string(), show(0, ids(rows)))).collect::<Vec<_>>()
        };
        input.splits.iter().enumerate().flat_map(of_split).collect()
    },
    order: Order::PerKey,
    also: nothing,
};

/// Windows that grow step by step: every row is in all that end after it.
pub(crate) const CUMULATIVE: Workload = Workload {
    name: "cumulative",
    draw: |draw| {
        let (steps, step) = steps(draw.input());
        let windows = draw.rows().key_by(|row| row.key).window(Cumulative::of(millis(steps * step)).every(millis(step)));
        let windows = windows.aggregate_windows(Ids::default, |ids, row: &Row| ids.0.push(row.id)).id("windows");
        draw.out(&draw.watched(&windows.map(|w| (w.key.to_string(), show(w.end.0, w.value.0))), "watched"));
    },
    expect: |input| {
        let (steps, step) = steps(input);
        let mut windows: std::collections::BTreeMap<(u32, i64), Vec<u32>> = Default::default();
        for row in input.rows() {
            let start = row.at.div_euclid(steps * step) * steps * step;
            let ends = (1..=steps).map(|n| start + n * step).filter(|end| *end > row.at);
            ends.for_each(|end| windows.entry((row.key, end)).or_default().push(row.id));
        }
        windows.into_iter().map(|((key, end), ids)| (key.to_string(), show(end, ids))).collect()
    },
    order: Order::PerKey,
    also: nothing,
};

/// How many steps, and how long one is.
fn steps(input: &Input) -> (i64, i64) {
    let steps = 1 + (input.variant % 5) as i64;
    (steps, (input.span_ms / steps).max(1))
}
