//! Joins of every kind: of rows near each other, in one window, with the version of their time, and of all with all.
//!
//! Both sides are the rows, dealt out by their ids. What is expected is the definition: every pair is looked at.
//!
//! Invariant: a result names both ids, so that a pair that is missing, twice or wrong shows.

use super::super::graph::Text;
use super::super::input::{Input, Row};
use super::sessions::distance;
use super::{Order, Output, Workload, by_key, nothing};
use std::collections::BTreeMap;
use std::time::Duration;
use waterwheel::engine::dsl::{Join, Offset, Stream};
use waterwheel::engine::operators::joins::JoinKind::{self, Anti, Full, Inner, Left, Right, Semi};
use waterwheel::engine::windowing::{Session, Sliding};

fn is_left(row: &Row) -> bool {
    (row.id / 5).is_multiple_of(2)
}

/// What belongs together besides.
fn fits(left: &Row, right: &Row) -> bool {
    !(left.id + right.id).is_multiple_of(3)
}

fn kind(input: &Input) -> JoinKind {
    [Inner, Left, Right, Full, Semi, Anti][(input.variant / 8 % 6) as usize]
}

fn pair(left: Option<&Row>, right: Option<&Row>) -> Text {
    let key = left.or(right).map_or(0, |row| row.key);
    let id = |row: Option<&Row>| row.map_or("none".into(), |row| row.id.to_string());
    (key.to_string(), format!("{} {}", id(left), id(right)))
}

/// The results of a kind of join.
fn results(join: Join<Row, Row>, kind: JoinKind) -> Stream<Text> {
    let join = join.on(fits);
    match kind {
        Inner => join.inner(|l, r| pair(Some(l), Some(r))),
        Left => join.left(|l, r| pair(Some(l), r)),
        Right => join.right(|l, r| pair(l, Some(r))),
        Full => join.full(pair),
        Semi => join.semi().map(|row| pair(Some(&row), None)),
        Anti => join.anti().map(|row| pair(Some(&row), None)),
    }
}

/// The definition, over rows of one key.
fn expected(kind: JoinKind, lefts: &[Row], rights: &[Row], belong: impl Fn(&Row, &Row) -> bool) -> Vec<Text> {
    let mut all = Vec::new();
    for left in lefts {
        let with: Vec<&Row> = rights.iter().filter(|right| belong(left, right)).collect();
        match kind {
            Semi | Anti => all.extend((with.is_empty() == (kind == Anti)).then(|| pair(Some(left), None))),
            _ if with.is_empty() && matches!(kind, Left | Full) => all.push(pair(Some(left), None)),
            _ => all.extend(with.into_iter().map(|right| pair(Some(left), Some(right)))),
        }
    }
    if matches!(kind, Right | Full) {
        let alone = rights.iter().filter(|right| !lefts.iter().any(|left| belong(left, right)));
        all.extend(alone.map(|right| pair(None, Some(right))));
    }
    all
}

fn sides(rows: &[Row]) -> (Vec<Row>, Vec<Row>) {
    rows.iter().partition(|row| is_left(row))
}

/// From when to when a right row belongs to a left one, in milliseconds after it.
fn reach(input: &Input) -> (i64, i64) {
    let some = 3 * distance(input);
    [(-some, some), (0, some), (-some, -1), (-some / 2, 2 * some)][(input.variant % 4) as usize]
}

/// Rows near each other.
pub(crate) const INTERVAL: Workload = Workload {
    name: "interval-join",
    draw: |draw| {
        let (left, right) = draw.rows().split(is_left);
        let (from, to) = reach(draw.input());
        let join = left.key_by(|row| row.key).interval_join(&right.key_by(|row| row.key)).between(Offset(from), Offset(to));
        let joined = results(join, kind(draw.input())).id("joined");
        draw.out(&draw.watched(&joined, "watched").map(|text| text));
    },
    expect: |input| {
        let (from, to) = reach(input);
        let near = move |l: &Row, r: &Row| (l.at + from..=l.at + to).contains(&r.at) && fits(l, r);
        let of_key = |rows: &Vec<Row>| {
            let (lefts, rights) = sides(rows);
            expected(kind(input), &lefts, &rights, near)
        };
        by_key(input).values().flat_map(of_key).collect()
    },
    order: Order::None,
    also: nothing,
};

/// Size and slide: a window holds a handful of a key's rows.
fn window(input: &Input) -> (i64, i64) {
    let slide = distance(input) * (1 + (input.variant % 3) as i64);
    (slide * (1 + (input.variant / 3 % 3) as i64), slide)
}

/// Rows in one window.
pub(crate) const WINDOW: Workload = Workload {
    name: "window-join",
    draw: |draw| {
        let (left, right) = draw.rows().split(is_left);
        let (size, slide) = window(draw.input());
        let millis = |ms: i64| Duration::from_millis(ms as u64);
        let join = left.key_by(|row| row.key).window_join(&right.key_by(|row| row.key), Sliding::of(millis(size)).every(millis(slide)));
        let joined = results(join, kind(draw.input())).id("joined");
        draw.out(&draw.watched(&joined, "watched").map(|text| text));
    },
    expect: |input| {
        let (size, slide) = window(input);
        let mut all = Vec::new();
        for rows in by_key(input).values() {
            let mut windows: BTreeMap<i64, Vec<Row>> = BTreeMap::new();
            for row in rows {
                let newest = row.at.div_euclid(slide) * slide;
                let starts = (0..size / slide).map(|back| newest - back * slide);
                starts.for_each(|start| windows.entry(start).or_default().push(*row));
            }
            for rows in windows.values() {
                let (lefts, rights) = sides(rows);
                all.extend(expected(kind(input), &lefts, &rights, fits));
            }
        }
        all
    },
    order: Order::None,
    also: nothing,
};

/// The pause that ends a session.
fn gap(input: &Input) -> i64 {
    distance(input) * (1 + (input.variant % 5) as i64) / 2 + 1
}

/// Rows of one session.
pub(crate) const SESSION: Workload = Workload {
    name: "session-join",
    draw: |draw| {
        let (left, right) = draw.rows().split(is_left);
        let gap = Duration::from_millis(gap(draw.input()) as u64);
        let join = left.key_by(|row| row.key).window_join(&right.key_by(|row| row.key), Session::gap(gap));
        let joined = results(join, kind(draw.input())).id("joined");
        draw.out(&draw.watched(&joined, "watched").map(|text| text));
    },
    expect: |input| {
        let mut all = Vec::new();
        for rows in by_key(input).values() {
            let mut rows = rows.clone();
            rows.sort_by_key(|row| row.at);
            for session in rows.chunk_by(|a, b| b.at - a.at < gap(input)) {
                let (lefts, rights) = sides(session);
                all.extend(expected(kind(input), &lefts, &rights, fits));
            }
        }
        all
    },
    order: Order::None,
    also: nothing,
};

/// Rows of the first split say what is true of their key from then on; some say that nothing is.
fn ends(version: &Row) -> bool {
    version.tag.is_multiple_of(5)
}

/// Rows with the version of their time. Versions come from one split, so that it is certain which of one millisecond is the newer.
pub(crate) const TEMPORAL: Workload = Workload {
    name: "temporal-join",
    draw: |draw| {
        let splits = draw.input().splits.len() as u32;
        let (versions, rows) = draw.rows().split(move |row| row.id.is_multiple_of(splits));
        let join = rows.key_by(|row| row.key).temporal_join(&versions.key_by(|row| row.key)).ends_when(ends);
        let joined = match kind(draw.input()) {
            Inner | Semi | Right => join.inner(|l, r| pair(Some(l), Some(r))),
            _ => join.left(|l, r| pair(Some(l), r)),
        };
        draw.out(&draw.watched(&joined.id("joined"), "watched").map(|text| text));
    },
    expect: |input| {
        let splits = input.splits.len() as u32;
        let inner = matches!(kind(input), Inner | Semi | Right);
        let mut all = Vec::new();
        for rows in by_key(input).values() {
            let (mut versions, rows): (Vec<Row>, Vec<Row>) = rows.iter().partition(|row| row.id.is_multiple_of(splits));
            versions.sort_by_key(|version| (version.at, version.id));
            for row in &rows {
                let valid = versions.iter().rfind(|version| version.at <= row.at).filter(|version| !ends(version));
                all.extend((valid.is_some() || !inner).then(|| pair(Some(row), valid)));
            }
        }
        all
    },
    order: Order::None,
    also: nothing,
};

/// Few rows have one of these keys in common, whatever keys the input has.
fn fine(row: &Row) -> u32 {
    row.key * 64 + row.id % 64
}

/// All with all, kept up to date: what was given less what was taken back is the join.
pub(crate) const REGULAR: Workload = Workload {
    name: "regular-join",
    draw: |draw| {
        let (left, right) = draw.rows().split(is_left);
        let join = left.key_by(fine).join(&right.key_by(fine)).on(fits);
        let changes = match kind(draw.input()) {
            Inner => join.inner(|l, r| pair(Some(l), Some(r))).map(|text| (true, text)),
            Left => join.left(|l, r| pair(Some(l), r)).map(|c| (c.kind.is_addition(), c.row)),
            Right => join.right(|l, r| pair(l, Some(r))).map(|c| (c.kind.is_addition(), c.row)),
            Full => join.full(pair).map(|c| (c.kind.is_addition(), c.row)),
            Semi => join.semi().map(|row| (true, pair(Some(&row), None))),
            Anti => join.anti().map(|c| (c.kind.is_addition(), pair(Some(&c.row), None))),
        };
        draw.out(&changes.map(|(given, (key, text))| (key, format!("{}{text}", if given { '+' } else { '-' }))));
    },
    expect: |_| Vec::new(),
    order: Order::Open,
    also: |input: &Input, output: &Output| {
        let mut sums: BTreeMap<(String, String), i64> = BTreeMap::new();
        let mut by_fine: BTreeMap<u32, Vec<Row>> = BTreeMap::new();
        input.rows().for_each(|row| by_fine.entry(fine(row)).or_default().push(*row));
        for rows in by_fine.values() {
            let (lefts, rights) = sides(rows);
            for text in expected(kind(input), &lefts, &rights, fits) {
                *sums.entry(text).or_default() -= 1;
            }
        }
        for (key, value) in output.all(super::super::graph::OUT) {
            let (sign, text) = value.split_at(1);
            *sums.entry((key.clone(), text.to_string())).or_default() += if sign == "+" { 1 } else { -1 };
        }
        match sums.into_iter().find(|(_, sum)| *sum != 0) {
            None => Ok(()),
            Some(((key, text), sum)) => Err(format!("key {key}: {text} is there {sum:+} times more than in the join")),
        }
    },
};
