//! `ranked`: the first rows of each key in some order, kept up to date by changes.
//!
//! The core sees keys, canonical bytes of rows and of what they are ordered by, and weights; what is inside is the kernel's.
//! Over rows that only come, a key keeps its first rows and no more. Over rows that are taken away too it keeps all of them,
//! because any may move up; their weights are signed, so that a row may be taken away before it was added (it came by another
//! channel).
//!
//! Invariant: after any batch, the sum of what was emitted is, of each key, its first rows so far, ties in the order of arrival
//! (or the newest first). A batch emits the differences between what was first before it and what is first after it.

mod ordered;

use super::aging::Aging;
use super::group::check_description;
use super::joins::EncodedRows;
use super::touched::{Touched, TouchedKeys};
use super::{OpenContext, Operator, OperatorFactory, Output};
use crate::error::Result;
use crate::record::{BatchBox, ChangeBatch, RowKind, downcast};
use crate::state::{PointTable, Table};
use crate::time::EventTime;
use arrow_array::RecordBatch;
use ordered::{Bytes, First, Ordered};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What looks inside: rows to bytes and back. One per task.
pub trait RankKernel: Send + 'static {
    /// Says what is computed, so that state of another query is refused.
    fn describe(&self) -> String;
    /// Looks at a batch before its rows are asked for.
    ///
    /// # Errors
    /// Columns of another type than planned.
    fn begin(&mut self, batch: &ChangeBatch) -> Result<()>;
    /// Appends bytes of row `row` that are ordered as the rows are.
    fn order(&self, row: usize, out: &mut Vec<u8>);
    /// Appends the bytes of row `row`; the same row has the same bytes.
    fn encode(&self, row: usize, out: &mut Vec<u8>);
    /// Encodes all rows of the batch, so many, replacing the content of `out`.
    fn encode_all(&self, rows: usize, out: &mut EncodedRows) {
        out.bytes.clear();
        out.ends.clear();
        for row in 0..rows {
            self.encode(row, &mut out.bytes);
            out.ends.push(out.bytes.len());
        }
    }
    /// Appends a row to be emitted, with its rank, from 1; no rank where nobody asks for it.
    ///
    /// # Errors
    /// Bytes that are no such row.
    fn emit(&mut self, row: &[u8], rank: Option<u64>) -> Result<()>;
    /// Takes the rows appended.
    ///
    /// # Errors
    /// Of Arrow, for columns beyond its limits.
    fn take(&mut self) -> Result<RecordBatch>;
}

/// What is wanted of each key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranking {
    /// So many rows.
    pub first: usize,
    /// Rows are taken away, too.
    pub retracting: bool,
    /// Of rows that are equal in order the newest is first; else the oldest.
    pub newest_first: bool,
    /// The rank is part of the result: a row that moves is a change.
    pub with_rank: bool,
    /// Nobody asks for the old row of an update: `-U` is left out.
    pub only_new: bool,
    /// A key whose first rows nothing has changed for so many milliseconds of the wall clock is forgotten, silently.
    pub ttl_ms: Option<i64>,
}

/// Keyed changes in, changes of the first rows of each key out: `ChangeBatch` to `ChangeBatch`.
pub fn ranked<K: RankKernel>(ranking: Ranking, make: impl Fn() -> Result<K> + Send + Sync + 'static) -> OperatorFactory {
    let make = Arc::new(make);
    Arc::new(move || {
        let aging = Aging::new(ranking.ttl_ms);
        Box::new(Ranked {
            make: make.clone(),
            ranking,
            kernel: None,
            aging,
            table: aging.table::<Kept>("ranked"),
            slots: Vec::new(),
            touched: TouchedKeys::default(),
            scratch: Vec::new(),
            encoded: EncodedRows::default(),
        })
    })
}

/// What is kept of a key.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Kept {
    /// The first rows, in order.
    First(First),
    /// All rows with their weights, by order and arrival; none has a weight of 0.
    All { arrived: u64, rows: BTreeMap<(Bytes, u64), (Ordered, i64)> },
}

impl Kept {
    fn none(ranking: Ranking) -> Kept {
        if ranking.retracting { Kept::All { arrived: 0, rows: BTreeMap::new() } } else { Kept::First(First::default()) }
    }

    fn is_empty(&self) -> bool {
        match self {
            Kept::First(rows) => rows.is_empty(),
            Kept::All { rows, .. } => rows.is_empty(),
        }
    }

    /// The first rows.
    fn first(&self, n: usize) -> Cow<'_, First> {
        match self {
            // It keeps no more.
            Kept::First(rows) => Cow::Borrowed(rows),
            Kept::All { rows, .. } => {
                let present = rows.values().filter(|(_, weight)| *weight > 0);
                Cow::Owned(present.flat_map(|(row, weight)| std::iter::repeat_n(row, *weight as usize)).take(n).cloned().collect())
            }
        }
    }

    /// Whether one more row changes nothing, because it comes behind the last one.
    fn is_behind(&self, order: &[u8], ranking: Ranking) -> bool {
        let Kept::First(first) = self else { return false };
        let rows = first.rows();
        let behind = |last: &[u8]| if ranking.newest_first { last < order } else { last <= order };
        rows.len() >= ranking.first && rows.last().is_none_or(|last| behind(last.order()))
    }

    fn change(&mut self, row: Ordered, weight: i64, ranking: Ranking) {
        match self {
            Kept::First(rows) => {
                let order = row.order();
                let before = |other: &Ordered| if ranking.newest_first { other.order() < order } else { other.order() <= order };
                let rank = rows.rows().partition_point(before);
                rows.insert(rank, row, ranking.first);
            }
            Kept::All { arrived, rows } => {
                let order = Bytes(row.order().into());
                let same = rows.range((order.clone(), 0)..=(order.clone(), u64::MAX)).find(|(_, (other, _))| *other == row);
                if let Some(place) = same.map(|(place, _)| place.clone()) {
                    let gone = rows.get_mut(&place).is_some_and(|(_, sum)| {
                        *sum += weight;
                        *sum == 0
                    });
                    if gone {
                        rows.remove(&place);
                    }
                    return;
                }
                *arrived += 1;
                let arrival = if ranking.newest_first { u64::MAX - *arrived } else { *arrived };
                rows.insert((order, arrival), (row, weight));
            }
        }
    }
}

struct Ranked<K, M> {
    make: Arc<M>,
    ranking: Ranking,
    kernel: Option<K>,
    aging: Aging,
    table: PointTable<Kept>,
    slots: Vec<u32>,
    /// With its first rows.
    touched: TouchedKeys<First>,
    scratch: Vec<u8>,
    encoded: EncodedRows,
}

impl<K: RankKernel, M> Ranked<K, M> {
    fn kernel(&mut self) -> &mut K {
        match &mut self.kernel {
            Some(kernel) => kernel,
            None => unreachable!("an operator is opened before it is used"),
        }
    }

    /// What state rests on.
    fn describe(&mut self) -> String {
        let Ranking { first, retracting, newest_first, with_rank, .. } = self.ranking;
        let newest = if newest_first { ", the newest first" } else { "" };
        let (all, ranks) = (if retracting { ", all kept" } else { "" }, if with_rank { ", with ranks" } else { "" });
        format!("first {first}{newest}{all}{ranks}: {}", self.kernel().describe())
    }

    fn touch(&mut self, slot: u32, time: EventTime) {
        if !self.touched.again(slot, time) {
            let before = self.table.get(slot).map_or_else(First::default, |kept| kept.first(self.ranking.first).into_owned());
            self.touched.first(slot, time, before);
        }
    }

    fn take_in(&mut self, batch: &ChangeBatch) {
        let mut bytes = std::mem::take(&mut self.scratch);
        // Of most keys one row is new: then nearly every row is looked at whole.
        let all = self.ranking.first == 1;
        if let Some(kernel) = self.kernel.as_ref().filter(|_| all) {
            kernel.encode_all(batch.times.len(), &mut self.encoded);
        }
        for i in 0..batch.times.len() {
            let slot = self.slots[i];
            let Some(kernel) = &self.kernel else { continue };
            bytes.clear();
            kernel.order(i, &mut bytes);
            if self.table.get(slot).is_some_and(|kept| kept.is_behind(&bytes, self.ranking)) {
                continue;
            }
            let order = bytes.len();
            if all {
                bytes.extend_from_slice(self.encoded.row(i));
            } else {
                kernel.encode(i, &mut bytes);
            }
            self.touch(slot, batch.times[i]);
            let kept = self.table.get_mut(slot).get_or_insert_with(|| Kept::none(self.ranking));
            kept.change(Ordered::new(&bytes, order), batch.kind(i).weight(), self.ranking);
        }
        self.scratch = bytes;
    }

    /// Appends the differences of all keys touched, in the order of their first rows; as what they leave, and their times.
    fn differences(&mut self) -> Result<(Vec<RowKind>, Vec<EventTime>)> {
        let touched = self.touched.take();
        let (mut kinds, mut times) = (Vec::with_capacity(touched.len()), Vec::with_capacity(touched.len()));
        let Ranking { first, with_rank, only_new, .. } = self.ranking;
        for Touched { slot, time, before } in touched {
            let Some(kernel) = &mut self.kernel else { continue };
            let after = self.table.get(slot).map_or(Cow::Owned(First::default()), |kept| kept.first(first));
            let leave = |row: &Ordered, rank: Option<u64>, kind: RowKind| {
                if only_new && kind == RowKind::UpdateBefore {
                    return Ok(());
                }
                kinds.push(kind);
                times.push(time);
                kernel.emit(row.row(), rank.filter(|_| with_rank))
            };
            if with_rank || first == 1 {
                by_rank(before.rows(), after.rows(), leave)?;
            } else {
                by_row(before.rows(), after.rows(), leave)?;
            }
            if self.table.get(slot).is_some_and(Kept::is_empty) {
                self.table.remove(slot);
            } else {
                self.aging.touch(&mut self.table, slot);
            }
        }
        Ok((kinds, times))
    }
}

fn by_rank(before: &[Ordered], after: &[Ordered], mut leave: impl FnMut(&Ordered, Option<u64>, RowKind) -> Result<()>) -> Result<()> {
    for i in 0..before.len().max(after.len()) {
        let rank = Some(i as u64 + 1);
        match (before.get(i), after.get(i)) {
            (Some(old), Some(new)) if old == new => {}
            (Some(old), Some(new)) => {
                leave(old, rank, RowKind::UpdateBefore)?;
                leave(new, rank, RowKind::UpdateAfter)?;
            }
            (Some(old), None) => leave(old, rank, RowKind::Delete)?,
            (None, Some(new)) => leave(new, rank, RowKind::Insert)?,
            (None, None) => {}
        }
    }
    Ok(())
}

fn by_row(before: &[Ordered], after: &[Ordered], mut leave: impl FnMut(&Ordered, Option<u64>, RowKind) -> Result<()>) -> Result<()> {
    // Both are in order: what stands in both meets itself on the way, but for rows that are equal in order.
    let (mut old, mut new) = (before.iter().peekable(), after.iter().peekable());
    let mut sum: BTreeMap<&Ordered, i64> = BTreeMap::new();
    loop {
        let (goes, comes) = match (old.peek(), new.peek()) {
            (None, None) => break,
            (Some(a), Some(b)) if a == b => {
                old.next();
                new.next();
                continue;
            }
            (Some(a), Some(b)) => (a.order() <= b.order(), b.order() <= a.order()),
            (a, b) => (a.is_some(), b.is_some()),
        };
        old.next_if(|_| goes).into_iter().for_each(|row| *sum.entry(row).or_insert(0) -= 1);
        new.next_if(|_| comes).into_iter().for_each(|row| *sum.entry(row).or_insert(0) += 1);
    }
    // What goes leaves first, so that there are never more rows than wanted.
    for gone in [true, false] {
        let kind = if gone { RowKind::Delete } else { RowKind::Insert };
        for (row, weight) in sum.iter().filter(|(_, weight)| **weight != 0 && (**weight < 0) == gone) {
            (0..weight.unsigned_abs()).try_for_each(|_| leave(row, None, kind))?;
        }
    }
    Ok(())
}

impl<K: RankKernel, M: Fn() -> Result<K> + Send + Sync + 'static> Operator for Ranked<K, M> {
    fn open(&mut self, _context: &OpenContext) -> Result<()> {
        self.kernel = Some((self.make)()?);
        Ok(())
    }

    fn tables(&mut self) -> Vec<&mut dyn Table> {
        vec![&mut self.table]
    }

    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let batch = downcast::<ChangeBatch>(batch);
        let Some(keys) = &batch.keys else { unreachable!("plan bug: a ranking needs keyed rows") };
        let mut slots = std::mem::take(&mut self.slots);
        self.table.resolve(keys, &mut slots)?;
        self.slots = slots;
        self.kernel().begin(&batch)?;
        self.take_in(&batch);
        let (kinds, times) = self.differences()?;
        if kinds.is_empty() {
            return Ok(());
        }
        let mut changes = ChangeBatch::inserts(self.kernel().take()?, times);
        changes.kinds = Some(kinds);
        out.emit(changes.boxed())
    }

    fn on_time(&mut self, wall_ms: i64, _out: &mut Output<'_>) -> Result<Option<i64>> {
        Ok(self.aging.on_time(wall_ms, &mut self.table))
    }

    fn save(&mut self) -> Vec<u8> {
        self.describe().into_bytes()
    }

    fn restore(&mut self, blobs: &[Vec<u8>]) -> Result<()> {
        check_description(&self.describe(), blobs)
    }
}

#[cfg(test)]
#[path = "tests/ranked.rs"]
mod tests;
