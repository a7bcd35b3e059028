//! `over_changes`: each row of a key with what is computed of the rows around it in some order, kept up to date by changes.
//!
//! The core keeps the rows of a key as an ordered multiset, each with the results that it has emitted, so that what is taken
//! back is what was given. The order is the kernel's bytes, then arrival. A batch computes anew the results that its changes
//! may touch, which the kernel's [`Reach`] bounds, and emits those that differ.
//!
//! Invariant: after any batch, the sum of what was emitted is the results over the sum of what came in. Weights are signed: a
//! row may be taken away before it was added; rows without weight have no result and are part of nobody's.

use super::aging::Aging;
use super::group::check_description;
use super::touched::{Touched, TouchedKeys};
use super::{OpenContext, Operator, OperatorFactory, Output};
use crate::error::Result;
use crate::record::{BatchBox, ChangeBatch, RowKind, downcast};
use crate::state::{PointTable, Table};
use crate::time::EventTime;
use arrow_array::RecordBatch;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Which rows a result depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// So many rows before its own; none = all.
    pub before: Option<usize>,
    /// So many behind it.
    pub behind: usize,
    /// And all that are equal to it in order.
    pub peers: bool,
}

/// A row in its order.
#[derive(Debug, Clone, Copy)]
pub struct OrderedRow<'a> {
    /// Bytes that are ordered as the rows are.
    pub order: &'a [u8],
    /// The row's bytes.
    pub row: &'a [u8],
}

/// What looks inside: rows to bytes, and results of rows in order. One per task.
pub trait ChangesKernel: Send + 'static {
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
    /// Which rows a result depends on.
    fn reach(&self) -> Reach;
    /// The results of `rows[from..]`, as bytes; the rows before are those that these depend on, or all.
    ///
    /// # Errors
    /// Bytes that are no such rows.
    fn compute(&mut self, rows: &[OrderedRow<'_>], from: usize) -> Result<Vec<Vec<u8>>>;
    /// Appends a row to be emitted, with its result.
    ///
    /// # Errors
    /// Bytes that are no such row or result.
    fn emit(&mut self, row: &[u8], result: &[u8]) -> Result<()>;
    /// Takes the rows appended.
    ///
    /// # Errors
    /// Of Arrow, for columns beyond its limits.
    fn take(&mut self) -> Result<RecordBatch>;
}

/// Keyed changes in, changes of the rows with their results out: `ChangeBatch` to `ChangeBatch`. A key of which no row has come
/// or gone for `ttl_ms` milliseconds of the wall clock is forgotten, silently.
pub fn over_changes<K: ChangesKernel>(ttl_ms: Option<i64>, make: impl Fn() -> Result<K> + Send + Sync + 'static) -> OperatorFactory {
    let make = Arc::new(make);
    Arc::new(move || {
        let aging = Aging::new(ttl_ms);
        Box::new(OverChanges {
            make: make.clone(),
            kernel: None,
            aging,
            table: aging.table::<Partition>("rows"),
            slots: Vec::new(),
            touched: TouchedKeys::default(),
        })
    })
}

type Bytes = Arc<[u8]>;

/// A row's order and arrival.
type Place = (Bytes, u64);

/// The rows of a key.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Partition {
    arrived: u64,
    rows: BTreeMap<Place, Kept>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    row: Bytes,
    weight: i64,
    /// What was emitted, one a copy.
    results: Vec<Bytes>,
}

impl Kept {
    fn copies(&self) -> usize {
        usize::try_from(self.weight).unwrap_or(0)
    }
}

/// The first and the last place that a batch changes.
struct Span {
    first: Place,
    last: Place,
}

impl Partition {
    /// Adds to a row's weight; where it is. A row that has none left stays until its results are taken back.
    fn change(&mut self, order: &[u8], row: &[u8], weight: i64) -> Place {
        let order: Bytes = order.into();
        let mut equal = self.rows.range_mut::<Place, _>((order.clone(), 0)..=(order.clone(), u64::MAX));
        if let Some((place, kept)) = equal.find(|(_, kept)| *kept.row == *row) {
            kept.weight += weight;
            return place.clone();
        }
        self.arrived += 1;
        let place = (order, self.arrived);
        self.rows.insert(place.clone(), Kept { row: row.into(), weight, results: Vec::new() });
        place
    }

    /// The first of the rows whose results the changes may touch.
    fn first_touched(&self, span: &Span, reach: Reach) -> Place {
        let mut first = span.first.clone();
        let mut copies = 0;
        for (place, kept) in self.rows.range::<Place, _>(..&span.first).rev() {
            if copies >= reach.behind {
                break;
            }
            copies += kept.copies();
            first = place.clone();
        }
        if reach.peers { (first.0, 0) } else { first }
    }

    /// The last of them; none = that of the key.
    fn last_touched(&self, span: &Span, reach: Reach) -> Option<Place> {
        let before = reach.before.filter(|_| !reach.peers)?;
        let mut copies = 0;
        for (place, kept) in self.rows.range::<Place, _>((std::ops::Bound::Excluded(&span.last), std::ops::Bound::Unbounded)) {
            copies += kept.copies();
            if copies >= before {
                return Some(place.clone());
            }
        }
        None
    }

    /// Rows before a place that results from it on depend on, in order.
    fn context(&self, first: &Place, reach: Reach) -> Vec<OrderedRow<'_>> {
        let mut rows: Vec<OrderedRow<'_>> = Vec::new();
        for (place, kept) in self.rows.range::<Place, _>(..first).rev() {
            if reach.before.is_some_and(|before| rows.len() >= before) {
                break;
            }
            rows.extend(std::iter::repeat_n(OrderedRow { order: &place.0, row: &kept.row }, kept.copies()));
        }
        rows.reverse();
        rows
    }
}

/// One change of the result.
struct Leaving {
    row: Bytes,
    result: Bytes,
    kind: RowKind,
    time: EventTime,
}

struct OverChanges<K, M> {
    make: Arc<M>,
    kernel: Option<K>,
    aging: Aging,
    table: PointTable<Partition>,
    slots: Vec<u32>,
    touched: TouchedKeys<Span>,
}

impl<K: ChangesKernel, M> OverChanges<K, M> {
    fn kernel(&mut self) -> &mut K {
        match &mut self.kernel {
            Some(kernel) => kernel,
            None => unreachable!("an operator is opened before it is used"),
        }
    }

    fn take_in(&mut self, batch: &ChangeBatch) {
        let (mut order, mut row) = (Vec::new(), Vec::new());
        for (i, &time) in batch.times.iter().enumerate() {
            let slot = self.slots[i];
            let Some(kernel) = &self.kernel else { continue };
            order.clear();
            row.clear();
            kernel.order(i, &mut order);
            kernel.encode(i, &mut row);
            let partition = self.table.get_mut(slot).get_or_insert_default();
            let place = partition.change(&order, &row, batch.kind(i).weight());
            if self.touched.again(slot, time) {
                let span = self.touched.noted(slot);
                if place < span.first {
                    span.first = place;
                } else if place > span.last {
                    span.last = place;
                }
            } else {
                self.touched.first(slot, time, Span { first: place.clone(), last: place });
            }
        }
    }

    /// What changes of the results of the keys touched, in the order of their first rows: of each key first what goes.
    fn differences(&mut self) -> Result<Vec<Leaving>> {
        let mut leaving = Vec::new();
        for Touched { slot, time, before: span } in self.touched.take() {
            let Some(kernel) = &mut self.kernel else { continue };
            let Some(partition) = self.table.get_mut(slot) else { continue };
            let reach = kernel.reach();
            let (first, last) = (partition.first_touched(&span, reach), partition.last_touched(&span, reach));
            let mut rows = partition.context(&first, reach);
            let from = rows.len();
            // Behind the last there are those that its result depends on.
            let mut behind = 0;
            for (place, kept) in partition.rows.range::<Place, _>(&first..) {
                if last.as_ref().is_some_and(|last| place > last) {
                    if behind >= reach.behind {
                        break;
                    }
                    behind += kept.copies();
                }
                rows.extend(std::iter::repeat_n(OrderedRow { order: &place.0, row: &kept.row }, kept.copies()));
            }
            let mut results = kernel.compute(&rows, from)?.into_iter();
            let (mut gone, mut left) = (Vec::new(), Vec::new());
            for (place, kept) in partition.rows.range_mut::<Place, _>(&first..) {
                if last.as_ref().is_some_and(|last| place > last) {
                    break;
                }
                let new: Vec<Bytes> = results.by_ref().take(kept.copies()).map(Bytes::from).collect();
                let leave = |result: &Bytes, kind| Leaving { row: kept.row.clone(), result: result.clone(), kind, time };
                for copy in 0..new.len().max(kept.results.len()) {
                    match (kept.results.get(copy), new.get(copy)) {
                        (Some(old), Some(new)) if old == new => {}
                        (Some(old), Some(new)) => {
                            left.push(leave(old, RowKind::UpdateBefore));
                            left.push(leave(new, RowKind::UpdateAfter));
                        }
                        (Some(old), None) => gone.push(leave(old, RowKind::Delete)),
                        (None, Some(new)) => left.push(leave(new, RowKind::Insert)),
                        (None, None) => {}
                    }
                }
                kept.results = new;
            }
            partition.rows.retain(|_, kept| kept.weight != 0);
            if partition.rows.is_empty() {
                self.table.remove(slot);
            } else {
                self.aging.touch(&mut self.table, slot);
            }
            leaving.append(&mut gone);
            leaving.append(&mut left);
        }
        Ok(leaving)
    }
}

impl<K: ChangesKernel, M: Fn() -> Result<K> + Send + Sync + 'static> Operator for OverChanges<K, M> {
    fn open(&mut self, _context: &OpenContext) -> Result<()> {
        self.kernel = Some((self.make)()?);
        Ok(())
    }

    fn tables(&mut self) -> Vec<&mut dyn Table> {
        vec![&mut self.table]
    }

    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let batch = downcast::<ChangeBatch>(batch);
        let Some(keys) = &batch.keys else { unreachable!("plan bug: rows in order are those of a key") };
        let mut slots = std::mem::take(&mut self.slots);
        self.table.resolve(keys, &mut slots)?;
        self.slots = slots;
        self.kernel().begin(&batch)?;
        self.take_in(&batch);
        let leaving = self.differences()?;
        if leaving.is_empty() {
            return Ok(());
        }
        let kernel = self.kernel();
        leaving.iter().try_for_each(|l| kernel.emit(&l.row, &l.result))?;
        let mut changes = ChangeBatch::inserts(kernel.take()?, leaving.iter().map(|l| l.time).collect());
        changes.kinds = Some(leaving.iter().map(|l| l.kind).collect());
        out.emit(changes.boxed())
    }

    fn on_time(&mut self, wall_ms: i64, _out: &mut Output<'_>) -> Result<Option<i64>> {
        Ok(self.aging.on_time(wall_ms, &mut self.table))
    }

    fn save(&mut self) -> Vec<u8> {
        self.kernel().describe().into_bytes()
    }

    fn restore(&mut self, blobs: &[Vec<u8>]) -> Result<()> {
        let now = self.kernel().describe();
        check_description(&now, blobs)
    }
}
