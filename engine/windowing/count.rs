//! Windows that count: the last so many rows of a key, every so many rows.
//!
//! Rows fall into slices of gcd(size, step) rows, in the order of arrival; a window is merged from its slices.
//!
//! Invariant: a key keeps the slices that a later window still needs, and none that holds no row. At the end of a bounded
//! input the rows that no window has shown yet leave in a last one that is not full.

use super::kernel::{Accumulate, result};
use super::operator::{EMIT_ROWS, Windowed};
use super::progress;
use crate::error::{Error, Result};
use crate::operators::{OpenContext, Operator, OperatorFactory, Output, guarded, guarded_call};
use crate::record::{BatchBox, Key, KeyGroup, Rows, downcast};
use crate::state::{PointTable, Table};
use crate::time::EventTime;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

/// All slices of a key are written together, so there must not be too many.
const MAX_SLICES: u64 = 10_000;

/// Windows of so many rows of a key, one after the other unless [`every`](Count::every) says otherwise. A window's bounds are
/// the times of its earliest and behind its latest row.
///
/// ```
/// # use waterwheel_engine::dsl::KeyedStream;
/// # use waterwheel_engine::windowing::Count;
/// # fn example(readings: KeyedStream<String, i64>) {
/// // The sum of the last hundred, each ten readings.
/// let sums = readings.window(Count::of(100).every(10)).reduce(|sum, reading| *sum += reading);
/// # let _ = sums;
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    size: u64,
    step: u64,
}

impl Count {
    /// Windows of this many rows.
    pub fn of(rows: u64) -> Self {
        Count { size: rows, step: rows }
    }

    /// A window of the last rows leaves each `step` rows; the first ones are not full.
    #[must_use]
    pub fn every(mut self, step: u64) -> Self {
        self.step = step;
        self
    }

    pub(super) fn name(self) -> String {
        if self.step == self.size { format!("count {}", self.size) } else { format!("count {}/{}", self.size, self.step) }
    }

    /// Slices a window and rows a slice.
    ///
    /// # Errors
    /// Sizes that make no sense.
    pub(super) fn slices(self) -> Result<(u64, u64)> {
        let refuse = |what: String| Err(Error::fatal(what).at(format!("window of {} rows each {} rows", self.size, self.step)));
        if self.size < 1 || self.step < 1 {
            return refuse("a window has a size and a step of at least one row".into());
        }
        if self.step > self.size {
            return refuse("the step is larger than the window: rows in between would belong to none".into());
        }
        let width = gcd(self.size, self.step);
        if self.size / width > MAX_SLICES {
            return refuse(format!("a window is cut into {} slices, at most {MAX_SLICES} are allowed", self.size / width))
                .map_err(|e: Error| e.help("choose a step that divides the size, or a larger step"));
        }
        Ok((self.size / width, width))
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Some rows in a row.
#[derive(Serialize, Deserialize)]
struct Slice<A> {
    earliest: EventTime,
    latest: EventTime,
    acc: A,
}

/// The rows of a key that a later window needs.
#[derive(Serialize, Deserialize)]
struct Slices<A> {
    /// The last one may still grow.
    slices: VecDeque<Slice<A>>,
    /// Rows in the last slice while it grows; 0 = it is full.
    growing: u64,
    /// Rows since a window left.
    unseen: u64,
}

/// Count windows as an operator: `Rows<G::Row>` with keys of type `K` in, `Rows<Windowed<K, G::Out>>` out, each with the
/// event time of its latest row.
pub(super) fn count_windows<K: Key, G: Accumulate>(windows: Count, aggregate: G) -> Result<OperatorFactory> {
    let (count, width) = windows.slices()?;
    let rules = Arc::new(Rules { aggregate, count: count as usize, width, step: windows.step });
    Ok(Arc::new(move || {
        Box::new(CountOperator::<K, G> {
            rules: rules.clone(),
            table: PointTable::new("slices"),
            watermark: None,
            groups: 0..0,
            slots: Vec::new(),
            key: PhantomData,
        })
    }))
}

struct Rules<G> {
    aggregate: G,
    /// Slices a window.
    count: usize,
    /// Rows a slice.
    width: u64,
    /// Rows between windows.
    step: u64,
}

struct CountOperator<K, G: Accumulate> {
    rules: Arc<Rules<G>>,
    table: PointTable<Slices<G::Acc>>,
    watermark: Option<EventTime>,
    groups: Range<KeyGroup>,
    slots: Vec<u32>,
    key: PhantomData<fn() -> K>,
}

/// A window's span and value, or when and why it has none.
type Shown<O> = Result<(EventTime, EventTime, O), (EventTime, String)>;

impl<G: Accumulate> Rules<G> {
    /// Takes a row in; a window that it completes.
    fn take(&self, value: &mut Option<Slices<G::Acc>>, row: &G::Row, time: EventTime) -> Option<Shown<G::Out>> {
        let keeps = value.as_ref().is_some_and(|all| all.growing > 0);
        if !keeps {
            let mut acc = self.aggregate.create();
            self.aggregate.accumulate(&mut acc, row);
            let all = value.get_or_insert_with(|| Slices { slices: VecDeque::new(), growing: 0, unseen: 0 });
            all.slices.push_back(Slice { earliest: time, latest: time, acc });
        }
        let all = value.as_mut()?;
        if keeps && let Some(slice) = all.slices.back_mut() {
            self.aggregate.accumulate(&mut slice.acc, row);
            (slice.earliest, slice.latest) = (slice.earliest.min(time), slice.latest.max(time));
        }
        all.growing = (all.growing + 1) % self.width;
        all.unseen += 1;
        if all.unseen < self.step {
            return None;
        }
        let shown = self.show(&all.slices);
        all.unseen = 0;
        let needed = self.count - (self.step / self.width) as usize;
        let excess = all.slices.len().saturating_sub(needed);
        drop(all.slices.drain(..excess));
        shown
    }

    fn show(&self, slices: &VecDeque<Slice<G::Acc>>) -> Option<Shown<G::Out>> {
        let (earliest, latest) = (slices.iter().map(|s| s.earliest).min()?, slices.iter().map(|s| s.latest).max()?);
        let value = guarded_call(|| match slices.len() {
            1 => result(&self.aggregate, &slices[0].acc),
            _ => {
                let mut acc = self.aggregate.create();
                slices.iter().for_each(|slice| self.aggregate.merge(&mut acc, &slice.acc));
                result(&self.aggregate, &acc)
            }
        });
        value.map(|value| value.map(|value| (earliest, latest, value))).transpose().map(|shown| shown.map_err(|error| (latest, error)))
    }
}

impl<K: Key, G: Accumulate> CountOperator<K, G> {
    fn emit(shown: Vec<(K, Shown<G::Out>)>, out: &mut Output<'_>) -> Result<()> {
        let mut rows = Rows::default();
        for (key, shown) in shown {
            match shown {
                Ok((start, latest, value)) => rows.push(Windowed { key, start, end: latest.plus_ms(1), value }, latest, None),
                Err((time, error)) => out.reject(None, time, error)?,
            }
            if rows.rows.len() >= EMIT_ROWS {
                out.emit(std::mem::take(&mut rows).boxed())?;
            }
        }
        out.emit(rows.boxed())
    }
}

impl<K: Key, G: Accumulate> Operator for CountOperator<K, G> {
    fn open(&mut self, context: &OpenContext) -> Result<()> {
        self.groups = context.groups.clone();
        Ok(())
    }

    fn tables(&mut self) -> Vec<&mut dyn Table> {
        vec![&mut self.table]
    }

    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let batch = downcast::<Rows<G::Row>>(batch);
        let Some(keys) = &batch.keys else { unreachable!("plan bug: a window needs a keyed stream") };
        self.table.resolve(keys, &mut self.slots)?;
        let (rules, table, slots) = (self.rules.clone(), &mut self.table, &self.slots);
        let mut shown = Vec::new();
        let each = |shown: &mut Vec<_>, i: usize| {
            let value = table.get_mut(slots[i]);
            let window = rules.take(value, &batch.rows[i], batch.times[i]);
            if value.as_ref().is_some_and(|all| all.slices.is_empty()) {
                table.remove(slots[i]);
            }
            shown.extend(window.map(|window| (i, window)));
            Ok(())
        };
        guarded(batch.rows.len(), &mut shown, each, |_, i, error| out.reject(batch.origin(i), batch.times[i], error))?;
        let mut scratch = [0; 8];
        let keyed: Result<Vec<_>> =
            shown.into_iter().map(|(i, window)| Ok((K::decode(&mut keys.bytes(i, &mut scratch))?, window))).collect();
        Self::emit(keyed?, out)
    }

    fn on_watermark(&mut self, time: EventTime, out: &mut Output<'_>) -> Result<()> {
        let ended = time == EventTime::MAX && self.watermark != Some(time);
        self.watermark = self.watermark.max(Some(time));
        if !ended {
            return Ok(());
        }
        let (mut rest, mut damaged) = (Vec::new(), None);
        self.table.for_each(|mut key, all| {
            if all.unseen == 0 {
                return;
            }
            match K::decode(&mut key) {
                Ok(key) => rest.extend(self.rules.show(&all.slices).map(|shown| (key, shown))),
                Err(e) => damaged = Some(e),
            }
        })?;
        match damaged {
            Some(e) => Err(e),
            None => Self::emit(rest, out),
        }
    }

    fn save(&mut self) -> Vec<u8> {
        progress::save(&self.groups, self.watermark)
    }

    fn restore(&mut self, blobs: &[Vec<u8>]) -> Result<()> {
        self.watermark = progress::restore(blobs, &self.groups)?.0;
        Ok(())
    }
}
