//! OVER windows: each row with the rows of its key before it, in frames of every kind.
//!
//! Invariant: a result names its row, and tells its frame from any other by the rows in it and their order.

use super::super::graph::Text;
use super::super::input::{Input, Row};
use super::sessions::distance;
use super::{Order, Workload, by_key, nothing};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use waterwheel::engine::dsl::Merge;

/// A list of ids as three numbers: no two lists of a run have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct List {
    rows: u32,
    digest: u64,
    power: u64,
}

impl Default for List {
    fn default() -> Self {
        List { rows: 0, digest: 0, power: 1 }
    }
}

const BASE: u64 = 0x9E37_79B9_7F4A_7C15;

impl List {
    fn add(&mut self, row: &Row) {
        self.merge(&List { rows: 1, digest: u64::from(row.id) + 1, power: BASE });
    }

    fn text(&self, row: &Row) -> Text {
        (row.key.to_string(), format!("{}: {} rows {:x}", row.id, self.rows, self.digest))
    }
}

impl Merge for List {
    fn merge(&mut self, later: &Self) {
        self.rows += later.rows;
        self.digest = self.digest.wrapping_mul(later.power).wrapping_add(later.digest);
        self.power = self.power.wrapping_mul(later.power);
    }
}

/// The rows of each key in order.
fn in_order(input: &Input) -> impl Iterator<Item = Vec<Row>> {
    by_key(input).into_values().map(|mut rows| {
        rows.sort_by_key(|row| (row.at, row.id));
        rows
    })
}

fn rows_before(input: &Input) -> usize {
    (input.variant / 4 % 9) as usize
}

fn span(input: &Input) -> i64 {
    distance(input) * (input.variant / 4 % 9) as i64
}

/// Frames of every kind.
pub(crate) const FRAMES: Workload = Workload {
    name: "over-frames",
    draw: |draw| {
        let input = draw.ground.input.clone();
        let rows = draw.rows().key_by(|row| row.key).over().ties_by(|row| row.id);
        let rows = match input.variant % 4 {
            0 => rows,
            1 => rows.all_rows(),
            2 => rows.rows(rows_before(&input) as u32),
            _ => rows.within(Duration::from_millis(span(&input) as u64)),
        };
        let framed = rows.aggregate(List::default, List::add, |row, list| list.text(row)).id("framed");
        draw.out(&draw.watched(&framed, "watched"));
    },
    expect: |input| {
        let mut all = Vec::new();
        for rows in in_order(input) {
            for (at, row) in rows.iter().enumerate() {
                let peers = rows.iter().rposition(|other| other.at == row.at).unwrap_or(at);
                let frame = match input.variant % 4 {
                    0 => &rows[..=peers],
                    1 => &rows[..=at],
                    2 => &rows[at.saturating_sub(rows_before(input))..=at],
                    _ => &rows[rows.partition_point(|other| other.at < row.at - span(input))..=peers],
                };
                let mut list = List::default();
                frame.iter().for_each(|row| list.add(row));
                all.push(list.text(row));
            }
        }
        all
    },
    order: Order::PerKey,
    also: nothing,
};

/// A sum of floating point, of which no two orders agree.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Sum(f64);

impl Sum {
    fn add(&mut self, row: &Row) {
        self.0 += 0.1 * f64::from(row.id);
    }

    fn text(&self, row: &Row) -> Text {
        (row.key.to_string(), format!("{}: {:016x}", row.id, self.0.to_bits()))
    }
}

impl Merge for Sum {
    fn merge(&mut self, later: &Self) {
        self.0 += later.0;
    }
}

/// The rows of a frame whose first `before` are added up from the boundary on backwards, the others forwards.
fn sum(frame: &[Row], before: usize) -> Sum {
    let of = |row: &Row| {
        let mut sum = Sum::default();
        sum.add(row);
        sum
    };
    let join = |mut sum: Sum, later: Sum| {
        sum.merge(&later);
        sum
    };
    let (first, rest) = frame.split_at(before);
    let first = first.iter().rev().map(of).reduce(|later, row| join(row, later));
    let rest = (!rest.is_empty()).then(|| {
        let mut sum = Sum::default();
        rest.iter().for_each(|row| sum.add(row));
        sum
    });
    first.into_iter().chain(rest).reduce(join).unwrap_or_default()
}

/// A moving frame to the last bit: where it is cut follows from the rows, and is kept over restores.
pub(crate) const FLOATS: Workload = Workload {
    name: "over-floats",
    draw: |draw| {
        let span = Duration::from_millis(span(draw.input()) as u64);
        let rows = draw.rows().key_by(|row| row.key).over().ties_by(|row| row.id).within(span);
        draw.out(&rows.aggregate(Sum::default, Sum::add, |row, sum| sum.text(row)).id("sums"));
    },
    expect: |input| {
        let mut all = Vec::new();
        for rows in in_order(input) {
            let (mut first, mut boundary, mut next) = (0, 0, 0);
            for peers in rows.chunk_by(|a, b| a.at == b.at) {
                while first < next && rows[first].at < peers[0].at - span(input) {
                    boundary = if first < boundary { boundary } else { next };
                    first += 1;
                }
                next += peers.len();
                let total = sum(&rows[first..next], boundary.saturating_sub(first));
                all.extend(peers.iter().map(|row| total.text(row)));
            }
        }
        all
    },
    order: Order::PerKey,
    also: nothing,
};

fn id(row: Option<&Row>) -> String {
    row.map_or("none".into(), |row| row.id.to_string())
}

/// The rows before and behind each row, and its numbers: three branches of one stream.
pub(crate) const NEIGHBOURS: Workload = Workload {
    name: "over-neighbours",
    draw: |draw| {
        let distance = rows_before(draw.input()) as u32;
        let keyed = draw.rows().key_by(|row| row.key);
        let over = || keyed.over().ties_by(|row| row.id);
        let before = over().lag(distance, |row, before| (row.key.to_string(), format!("before {} {}", row.id, id(before))));
        let behind = over().lead(distance, |row, behind| (row.key.to_string(), format!("behind {} {}", row.id, id(behind))));
        let numbers = over().numbered(|row, n| (row.key.to_string(), format!("numbers {} {} {} {}", row.id, n.row, n.rank, n.dense_rank)));
        draw.out(&before.id("before").union(&behind.id("behind")).union(&numbers.id("numbers")));
    },
    expect: |input| {
        let distance = rows_before(input);
        let mut all = Vec::new();
        for rows in in_order(input) {
            let mut times = 0;
            for (at, row) in rows.iter().enumerate() {
                let mut push = |text| all.push((row.key.to_string(), text));
                push(format!("before {} {}", row.id, id(at.checked_sub(distance).map(|at| &rows[at]))));
                push(format!("behind {} {}", row.id, id(rows.get(at + distance))));
                let first = rows.partition_point(|other| other.at < row.at);
                times += i32::from(at == first);
                push(format!("numbers {} {} {} {times}", row.id, at + 1, first + 1));
            }
        }
        all
    },
    order: Order::None,
    also: nothing,
};
