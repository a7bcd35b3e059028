//! The workloads: what is drawn, and what must come out of it.
//!
//! A new operator brings one function that draws it, one that works out its output from the input alone, and a line in
//! [`ALL`].
//!
//! Invariant: what is expected follows from the input, never from a run.

mod basic;
mod broadcast;
mod joins;
mod keyed;
mod over;
mod progress;
mod sessions;
#[cfg(feature = "sql")]
mod sql;
mod tables;
mod windows;

use super::graph::{DEAD, Draw, Noted, OUT, SIDE, Text};
use super::input::{Input, Row};
use std::collections::BTreeMap;
use waterwheel::engine::testing::SimBroker;

/// Results by key, in order.
pub(crate) type ByKey = BTreeMap<String, Vec<String>>;

/// How far the order of results is fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Per key.
    PerKey,
    /// Not at all.
    None,
    /// Only the last result of a key is.
    Last,
    /// As `Last`, and a key whose last result is [`GONE`] has none.
    Table,
    /// Neither order nor results: they depend on timing, and `also` says what must hold.
    Open,
}

/// One workload.
pub(crate) struct Workload {
    /// Its name.
    pub(crate) name: &'static str,
    /// Draws the job.
    pub(crate) draw: fn(&Draw),
    /// What is in [`OUT`] at the end.
    pub(crate) expect: fn(&Input) -> Vec<Text>,
    /// In which order.
    pub(crate) order: Order,
    /// What else must hold.
    pub(crate) also: fn(&Input, &Output) -> Result<(), String>,
}

/// All of them.
pub(crate) const ALL: &[Workload] = &[
    basic::STATELESS,
    basic::BRANCHES,
    basic::CALLS,
    basic::DEAD_LETTERS,
    basic::RANDOM,
    keyed::COUNT,
    keyed::TOTALS,
    keyed::DEDUP,
    keyed::SORT,
    keyed::TIMERS,
    keyed::TABLE,
    broadcast::JOIN,
    broadcast::MAP,
    windows::TUMBLING,
    windows::SLIDING,
    windows::LATE,
    windows::HOURS_LATE,
    windows::LATE_ROWS,
    sessions::SESSIONS,
    sessions::COUNTS,
    sessions::CUMULATIVE,
    joins::INTERVAL,
    joins::WINDOW,
    joins::SESSION,
    joins::TEMPORAL,
    joins::REGULAR,
    over::FRAMES,
    over::FLOATS,
    over::NEIGHBOURS,
    progress::NOTES,
    tables::TABLES,
    tables::PATTERNS,
    #[cfg(feature = "sql")]
    sql::WINDOWS,
    #[cfg(feature = "sql")]
    sql::GROUPS,
    #[cfg(feature = "sql")]
    sql::NESTED,
    #[cfg(feature = "sql")]
    sql::OVER,
];

/// What a table says of a key that it has no more: a record without a value reads like this.
const GONE: &str = "";

/// The rows of each key, in no order that means anything.
fn by_key(input: &Input) -> BTreeMap<u32, Vec<Row>> {
    let mut by_key: BTreeMap<u32, Vec<Row>> = BTreeMap::new();
    input.rows().for_each(|row| by_key.entry(row.key).or_default().push(*row));
    by_key
}

/// Nothing more to check.
fn nothing(_: &Input, _: &Output) -> Result<(), String> {
    Ok(())
}

/// What was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Output {
    /// By topic: results by key, in order.
    pub(crate) topics: BTreeMap<&'static str, ByKey>,
}

impl Output {
    /// Reads all of it.
    pub(crate) fn read(broker: &SimBroker) -> Output {
        let utf8 = |bytes: &Option<Vec<u8>>| String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned();
        let read = |topic: &'static str| {
            let mut by_key = ByKey::new();
            for record in broker.committed(topic).iter().flatten() {
                by_key.entry(utf8(&record.key)).or_default().push(utf8(&record.value));
            }
            (topic, by_key)
        };
        Output { topics: [OUT, SIDE, DEAD].map(read).into() }
    }

    /// Without what tasks note of event time, as they do at every barrier, also of a job that has nothing to do any more.
    pub(crate) fn without_notes(mut self) -> Output {
        let is_note = |value: &String| matches!(Noted::parse(value), Some(Noted::Progress { .. }));
        self.topics.values_mut().flat_map(BTreeMap::values_mut).for_each(|values| values.retain(|value| !is_note(value)));
        self
    }

    /// The results of a topic, in any order.
    pub(crate) fn all(&self, topic: &str) -> impl Iterator<Item = (&String, &String)> {
        self.topics[topic].iter().flat_map(|(key, values)| values.iter().map(move |value| (key, value)))
    }
}

impl Workload {
    /// Whether records of one epoch may be the same as those of another: then nobody can tell them apart without their marker.
    pub(crate) fn may_repeat(&self) -> bool {
        matches!(self.order, Order::Last | Order::Table | Order::Open)
    }

    /// Whether what is kept at the end follows from the input alone. Not where results do not; and a foreign join counts the
    /// changes that it was told of, of which there are as many as batches make.
    pub(crate) fn state_is_fixed(&self) -> bool {
        self.order != Order::Open && self.name != "tables"
    }

    /// The workload of that name.
    pub(crate) fn named(name: &str) -> Option<&'static Workload> {
        ALL.iter().find(|w| w.name == name)
    }

    /// Whether the output is right.
    pub(crate) fn check(&self, input: &Input, output: &Output) -> Result<(), String> {
        let mut expected = ByKey::new();
        for (key, value) in (self.expect)(input) {
            expected.entry(key).or_default().push(value);
        }
        let mut got = output.topics[OUT].clone();
        match self.order {
            Order::PerKey => {}
            Order::None => expected.values_mut().chain(got.values_mut()).for_each(|values| values.sort()),
            Order::Open => return (self.also)(input, output),
            Order::Last | Order::Table => {
                expected.values_mut().chain(got.values_mut()).for_each(|values| drop(values.drain(..values.len() - 1)));
                got.retain(|_, values| self.order == Order::Last || values[0] != GONE);
            }
        }
        for key in expected.keys().chain(got.keys()) {
            let (want, have) = (expected.get(key), got.get(key));
            if want != have {
                return Err(difference(key, want.map_or(&[], |v| v), have.map_or(&[], |v| v)));
            }
        }
        (self.also)(input, output)
    }
}

fn difference(key: &str, want: &[String], have: &[String]) -> String {
    let at = want.iter().zip(have).position(|(a, b)| a != b).unwrap_or(want.len().min(have.len()));
    let show = |v: &[String]| v.get(at).map_or("nothing".into(), |s| s.chars().take(80).collect::<String>());
    format!(
        "key {key}: {} results expected, {} committed; number {at} is {:?}, expected {:?}",
        want.len(),
        have.len(),
        show(have),
        show(want)
    )
}
