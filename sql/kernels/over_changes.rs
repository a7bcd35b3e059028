//! OVER in any order, over rows that change: the kernel of the engine's `over_changes`.
//!
//! It computes with the accumulators of the kernel of `over`. Rows that are equal in order have one time there, their number
//! among such groups.
//!
//! Invariant: a result is one value a function; of equal rows in equal surroundings it has equal bytes.

use super::over::{OverAcc, OverCalls, OverRules};
use super::ranked::order_of;
use super::value::{Cells, Class, Value};
use arrow::array::RecordBatch;
use std::sync::Arc;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::over::{Frame, OverKernel};
use waterwheel_engine::operators::{ChangesKernel, OrderedRow, Reach};
use waterwheel_engine::record::ChangeBatch;
use waterwheel_engine::time::EventTime;

/// Of one task.
pub(crate) struct OverChanges {
    /// The order is that of its `ties`.
    rules: Arc<OverRules>,
    frame: Frame,
    calls: OverCalls,
    /// Of the results.
    classes: Vec<Class>,
    batch: Option<RecordBatch>,
    by: Vec<Cells>,
}

impl OverChanges {
    pub(crate) fn new(rules: Arc<OverRules>, frame: Frame) -> Result<Self> {
        let own = rules.schema.fields().len() - rules.computed.len();
        let class = |kind| Class::of(kind).ok_or_else(|| Error::fatal(format!("plan bug: results of type {kind} have no class")));
        let classes = rules.schema.fields().iter().skip(own).map(|field| class(field.data_type())).collect::<Result<_>>()?;
        Ok(OverChanges { calls: OverCalls::new(rules.clone()), rules, frame, classes, batch: None, by: Vec::new() })
    }

    /// Where the frame of a row begins that looks back by a span of what it is ordered by.
    fn low(&self, row: OrderedRow<'_>, ms: i64) -> Result<Vec<u8>> {
        let Some(by) = self.rules.ties.first() else { return Ok(Vec::new()) };
        let Value::Int(time) = self.rules.packed.value(row.row, by.column)? else { return Ok(row.order.to_vec()) };
        let from = if by.descending { time.saturating_add(ms) } else { time.saturating_sub(ms) };
        let mut bytes = Vec::new();
        Value::Int(from).encode(&mut bytes);
        if by.descending {
            bytes[1..].iter_mut().for_each(|byte| *byte = !*byte);
        }
        Ok(bytes)
    }

    fn fold(&self, acc: &mut OverAcc, row: &[u8], group: i64) -> Result<()> {
        self.calls.fold(acc, row, EventTime(group))?.map_err(Error::fatal)
    }

    fn fold_all(&self, acc: &mut OverAcc, rows: &[OrderedRow<'_>], groups: &[i64]) -> Result<()> {
        rows.iter().zip(groups).try_for_each(|(row, &group)| self.fold(acc, row.row, group))
    }

    fn result(&self, later: Option<&[u8]>, acc: &OverAcc) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.calls.values(later, acc)?.map_err(Error::fatal)?.iter().for_each(|value| value.encode(&mut bytes));
        Ok(bytes)
    }
}

impl ChangesKernel for OverChanges {
    fn describe(&self) -> String {
        format!("{}; {:?}; {}", self.calls.describe(), self.frame, self.calls.schema())
    }

    fn begin(&mut self, batch: &ChangeBatch) -> Result<()> {
        self.by = self.rules.ties.iter().map(|by| Cells::of(batch.columns.column(by.column))).collect::<Result<_>>()?;
        self.batch = Some(batch.columns.clone());
        Ok(())
    }

    fn order(&self, row: usize, out: &mut Vec<u8>) {
        order_of(&self.rules.ties, &self.by, row, out);
    }

    fn encode(&self, row: usize, out: &mut Vec<u8>) {
        if let Some(batch) = &self.batch {
            self.rules.packed.pack(batch, row, out);
        }
    }

    fn reach(&self) -> Reach {
        let distance = self.rules.distance as usize;
        match self.frame {
            _ if self.rules.leads => Reach { before: Some(0), behind: distance, peers: false },
            Frame::Rows(n) => Reach { before: n.map(|n| n as usize), behind: 0, peers: false },
            Frame::Range(_) => Reach { before: None, behind: 0, peers: true },
        }
    }

    fn compute(&mut self, rows: &[OrderedRow<'_>], from: usize) -> Result<Vec<Vec<u8>>> {
        let mut results = Vec::with_capacity(rows.len() - from);
        let fresh = || self.calls.create();
        if self.rules.leads {
            let nothing = fresh();
            for i in from..rows.len() {
                let later = rows.get(i + self.rules.distance as usize).map(|later| later.row);
                results.push(self.result(later, &nothing)?);
            }
            return Ok(results);
        }
        let mut groups: Vec<i64> = Vec::with_capacity(rows.len());
        for (i, row) in rows.iter().enumerate() {
            let before = groups.last().copied().unwrap_or(0);
            groups.push(before + i64::from(i > 0 && rows[i - 1].order != row.order));
        }
        let mut acc = fresh();
        match self.frame {
            Frame::Rows(Some(n)) => {
                for i in from..rows.len() {
                    let mut acc = fresh();
                    let first = i.saturating_sub(n as usize);
                    self.fold_all(&mut acc, &rows[first..=i], &groups[first..=i])?;
                    results.push(self.result(None, &acc)?);
                }
            }
            Frame::Rows(None) => {
                for (i, row) in rows.iter().enumerate() {
                    self.fold(&mut acc, row.row, groups[i])?;
                    if i >= from {
                        results.push(self.result(None, &acc)?);
                    }
                }
            }
            Frame::Range(span) => {
                let mut begin = 0;
                while begin < rows.len() {
                    let end = begin + groups[begin..].iter().take_while(|group| **group == groups[begin]).count();
                    let mut first = begin;
                    if let Some(ms) = span {
                        let low = self.low(rows[begin], ms)?;
                        first = rows.partition_point(|row| *row.order < low[..]);
                        acc = fresh();
                    }
                    self.fold_all(&mut acc, &rows[first..end], &groups[first..end])?;
                    for _ in begin.max(from)..end.max(from) {
                        results.push(self.result(None, &acc)?);
                    }
                    begin = end;
                }
            }
        }
        Ok(results)
    }

    fn emit(&mut self, row: &[u8], result: &[u8]) -> Result<()> {
        let mut bytes = result;
        let values = self.classes.iter().map(|&class| Value::decode(class, &mut bytes)).collect::<Result<Vec<_>>>()?;
        self.calls.push(row, values, EventTime(0));
        Ok(())
    }

    fn take(&mut self) -> Result<RecordBatch> {
        self.calls.take_columns()
    }
}
