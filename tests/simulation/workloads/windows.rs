//! Workloads with windows. Their accumulators hold ids, so that a row that is missing or twice in a window shows.
//!
//! Invariant: a window's value is the sorted list of its ids, whatever their order of arrival.

use super::super::graph::{Draw, OUT, SIDE, Text};
use super::super::input::{Input, Row};
use super::{Order, Output, Workload, nothing};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use waterwheel::engine::dsl::{Merge, OutOfOrder, Stream};
use waterwheel::engine::operators::late_rows;
use waterwheel::engine::time::EventTime;
use waterwheel::engine::windowing::{Sliding, Tumbling, Windowed};

/// The ids of rows.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Ids(pub(super) Vec<u32>);

impl Merge for Ids {
    fn merge(&mut self, later: &Self) {
        self.0.extend_from_slice(&later.0);
    }
}

/// A window by its start, or another of its bounds.
pub(super) fn show(start: i64, mut ids: Vec<u32>) -> String {
    ids.sort_unstable();
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    format!("{start} {}", ids.join(","))
}

/// Windows by their start.
pub(super) fn shown(windows: &Stream<Windowed<u32, Ids>>) -> Stream<Text> {
    windows.map(|w| (w.key.to_string(), show(w.start.0, w.value.0)))
}

fn millis(ms: i64) -> Duration {
    Duration::from_millis(ms as u64)
}

/// Every window of `size` that begins at a multiple of `slide` and holds rows.
fn windows(input: &Input, size: i64, slide: i64) -> BTreeMap<(u32, i64), Vec<u32>> {
    let mut windows: BTreeMap<(u32, i64), Vec<u32>> = BTreeMap::new();
    for row in input.rows() {
        let mut start = row.at.div_euclid(slide) * slide;
        while start > row.at - size {
            windows.entry((row.key, start)).or_default().push(row.id);
            start -= slide;
        }
    }
    windows
}

fn expected(input: &Input, size: i64, slide: i64) -> Vec<Text> {
    windows(input, size, slide).into_iter().map(|((key, start), ids)| (key.to_string(), show(start, ids))).collect()
}

/// Tumbling windows, nothing late.
pub(crate) const TUMBLING: Workload = Workload {
    name: "tumbling",
    draw: |draw| {
        let windows = draw.rows().key_by(|row| row.key).window(Tumbling::of(millis(draw.input().span_ms)));
        let windows = windows.aggregate_windows(Ids::default, |ids, row: &Row| ids.0.push(row.id)).id("windows");
        draw.out(&draw.watched(&shown(&windows), "watched"));
    },
    expect: |input| expected(input, input.span_ms, input.span_ms),
    order: Order::PerKey,
    also: nothing,
};

fn slide(input: &Input) -> i64 {
    (input.span_ms / (1 + (input.variant % 5) as i64)).max(1)
}

fn size(input: &Input) -> i64 {
    slide(input) * (1 + (input.variant / 5 % 6) as i64)
}

/// Sliding windows, nothing late.
pub(crate) const SLIDING: Workload = Workload {
    name: "sliding",
    draw: |draw| {
        let (size, slide) = (size(draw.input()), slide(draw.input()));
        let windows = draw.rows().key_by(|row| row.key).window(Sliding::of(millis(size)).every(millis(slide)));
        let windows = windows.aggregate_windows(Ids::default, |ids, row: &Row| ids.0.push(row.id)).id("windows");
        draw.out(&draw.watched(&shown(&windows), "watched"));
    },
    expect: |input| expected(input, size(input), slide(input)),
    order: Order::PerKey,
    also: nothing,
};

/// A watermark that many rows are behind: each is in its window's last result or in the side output, never in both.
pub(crate) const LATE: Workload = Workload {
    name: "late",
    draw: |draw| {
        let (span, lateness) = (draw.input().span_ms, draw.input().variant % 100);
        let ground = draw.ground.clone();
        // Half of the runs also call a split idle that is only slow.
        let strict = OutOfOrder::never();
        let idle = draw.input().variant % 2 == 1;
        let rows = draw.rows_by(if idle { strict.idle_after(Duration::from_millis(3)) } else { strict });
        let windows = rows.key_by(|row| row.key).window(Tumbling::of(millis(span))).allow_late(Duration::from_millis(lateness));
        let windows = windows.late_to(move |late| ground.write(&late.map(|row: Row| (row.key.to_string(), row.id.to_string())), SIDE));
        draw.out(&shown(&windows.aggregate_windows(Ids::default, |ids, row: &Row| ids.0.push(row.id)).id("windows")));
    },
    expect: |_| Vec::new(),
    order: Order::Open,
    also: late,
};

fn late(input: &Input, output: &Output) -> Result<(), String> {
    let mut newest: BTreeMap<(&str, &str), BTreeSet<u32>> = BTreeMap::new();
    for (key, value) in output.all(OUT) {
        let (start, ids) = value.split_once(' ').ok_or("a result without a window")?;
        let list: Vec<u32> = ids.split(',').filter_map(|id| id.parse().ok()).collect();
        let ids: BTreeSet<u32> = list.iter().copied().collect();
        if ids.len() != list.len() {
            return Err(format!("a row is twice in window {start} of key {key}"));
        }
        let before = newest.entry((key, start)).or_default();
        if !before.is_subset(&ids) {
            return Err(format!("window {start} of key {key} has lost rows"));
        }
        *before = ids;
    }
    let mut rows: BTreeMap<u32, Row> = input.rows().map(|row| (row.id, *row)).collect();
    for ((key, start), ids) in &newest {
        for id in ids {
            let row = rows.remove(id).ok_or_else(|| format!("row {id} is in two windows"))?;
            let at_home =
                row.key.to_string() == *key && row.at.div_euclid(input.span_ms) * input.span_ms == start.parse().unwrap_or(i64::MIN);
            if !at_home {
                return Err(format!("row {id} at {} is in window {start} of key {key}", row.at));
            }
        }
    }
    for (_, id) in output.all(SIDE) {
        let late = id.parse().ok().and_then(|id: u32| rows.remove(&id));
        late.ok_or_else(|| format!("row {id} is late and in a window, or late twice"))?;
    }
    match rows.len() {
        0 => Ok(()),
        n => Err(format!("{n} rows are neither in a window nor late")),
    }
}

/// Some rows of the second half of the input say that they are from long before it began.
fn is_hours_late(input: &Input, row: &Row) -> bool {
    let splits = input.splits.len() as u32;
    row.id.is_multiple_of(9) && row.id / splits > input.splits[0].len() as u32 / 2
}

/// The rows, some of them hours late, dealt out to the tasks.
fn dealt(draw: &Draw) -> Stream<Row> {
    let input = draw.ground.input.clone();
    let begin = begin(&input);
    let time = move |row: &Row| EventTime(if is_hours_late(&input, row) { begin - 1 } else { row.at });
    let tenth = (draw.input().rows().map(|row| row.at - begin).max().unwrap_or(0) / 10).max(1);
    let disorder = OutOfOrder::by(millis(draw.input().disorder_ms));
    draw.rows_at(time, disorder).max_ahead(millis(tenth)).rebalance().map(|row| row).id("dealt")
}

/// Rows that are late whatever happens, as any stream tells them apart.
pub(crate) const LATE_ROWS: Workload = Workload {
    name: "late-rows",
    draw: |draw| {
        let late: Stream<Row> = dealt(draw).operator("late", late_rows()).id("late");
        draw.out(&late.map(|row| (row.key.to_string(), row.id.to_string())));
    },
    expect: |input| {
        let late = input.rows().filter(|row| is_hours_late(input, row));
        late.map(|row| (row.key.to_string(), row.id.to_string())).collect()
    },
    order: Order::None,
    also: nothing,
};

/// Rows that are late whatever happens: no split runs far ahead, so the watermark has long passed them. Each of them leaves by
/// the side, in whatever attempt and task; no other row does.
pub(crate) const HOURS_LATE: Workload = Workload {
    name: "hours-late",
    draw: |draw| {
        let ground = draw.ground.clone();
        let sorted = dealt(draw).key_by(|row| row.key).sort_by_time(|row| row.id);
        let sorted = sorted.late_to(move |late| ground.write(&late.map(|row| (row.key.to_string(), row.id.to_string())), SIDE)).id("sort");
        let windows = sorted.window(Tumbling::of(millis(draw.input().span_ms)));
        draw.out(&shown(&windows.aggregate_windows(Ids::default, |ids, row: &Row| ids.0.push(row.id)).id("windows")));
    },
    expect: |input| {
        let mut windows: BTreeMap<(u32, i64), Vec<u32>> = BTreeMap::new();
        for row in input.rows().filter(|row| !is_hours_late(input, row)) {
            let start = row.at.div_euclid(input.span_ms) * input.span_ms;
            windows.entry((row.key, start)).or_default().push(row.id);
        }
        windows.into_iter().map(|((key, start), ids)| (key.to_string(), show(start, ids))).collect()
    },
    order: Order::PerKey,
    also: |input, output| {
        let expected: BTreeSet<String> = input.rows().filter(|row| is_hours_late(input, row)).map(|row| row.id.to_string()).collect();
        let late: Vec<&String> = output.all(SIDE).map(|(_, id)| id).collect();
        let once: BTreeSet<&String> = late.iter().copied().collect();
        match once.len() == late.len() && expected.iter().collect::<BTreeSet<_>>() == once {
            true => Ok(()),
            false => Err(format!("{} rows are late, {} of them different ones; {} expected", late.len(), once.len(), expected.len())),
        }
    },
};

fn begin(input: &Input) -> i64 {
    input.rows().map(|row| row.at).min().unwrap_or(0)
}
