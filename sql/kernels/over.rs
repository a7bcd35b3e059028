//! OVER: the kernel of the engine's `over`.
//!
//! Rows are kept packed, with what the functions ask for computed behind their columns; what is computed of a frame is one
//! accumulator for all functions.
//!
//! Invariant: a result row is the input's columns, then one value a function.

use super::aggregate::{Acc, Calls};
use super::packed::{Cell, Packed};
use super::ranked::OrderColumn;
use super::value::{Value, column};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::over::{Called, OverKernel, Place};
use waterwheel_engine::record::{Batch, BatchBox, ChangeBatch, record_batch};
use waterwheel_engine::time::EventTime;

/// What one function gives.
#[derive(Debug, Clone)]
pub(crate) enum Computed {
    /// The result of an aggregate call, by its number.
    Call(usize),
    RowNumber,
    Rank,
    DenseRank,
    /// Of the frame's first row, if the frame has all its rows; else the default.
    Lag {
        column: usize,
        default: Value,
    },
    /// Of a later row.
    Lead {
        column: usize,
        default: Value,
    },
}

/// What all tasks share.
#[derive(Debug)]
pub(crate) struct OverRules {
    /// Of kept rows: the input's columns, and those computed behind them.
    pub(crate) packed: Packed,
    pub(crate) calls: Calls,
    /// Where argument and filter of each call are.
    pub(crate) arguments: Vec<(Option<usize>, Option<usize>)>,
    /// Where the arguments of each call are that is of a function of the user's.
    pub(crate) own: Vec<Vec<usize>>,
    pub(crate) computed: Vec<Computed>,
    /// How many rows LAG looks back, or LEAD ahead.
    pub(crate) distance: u32,
    /// Results wait for a later row.
    pub(crate) leads: bool,
    /// Columns of ORDER BY: behind event time those that tell rows of one time apart, else all.
    pub(crate) ties: Vec<OrderColumn>,
    /// Of the results.
    pub(crate) schema: SchemaRef,
    /// What the partitions are by, for the description.
    pub(crate) partition: String,
}

/// Of a frame.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OverAcc {
    calls: Acc,
    rows: u64,
    /// Times, rows before the last one, and that.
    times: u64,
    earlier: u64,
    last_ms: i64,
    /// The first row, where a function asks for it.
    first: Option<Vec<u8>>,
    /// Always none; snapshots of earlier versions have a row here.
    last: Option<Vec<u8>>,
    /// The last rows, up to the distance and one.
    waiting: VecDeque<Vec<u8>>,
}

/// Of one task.
pub(crate) struct OverCalls {
    rules: Arc<OverRules>,
    rows: Vec<Vec<u8>>,
    values: Vec<Vec<Value>>,
    times: Vec<EventTime>,
}

impl OverCalls {
    pub(crate) fn new(rules: Arc<OverRules>) -> Self {
        OverCalls { rules, rows: Vec::new(), values: Vec::new(), times: Vec::new() }
    }

    fn own(&self) -> usize {
        self.rules.schema.fields().len() - self.rules.computed.len()
    }

    fn value(&self, row: &[u8], column: usize) -> Result<Value> {
        self.rules.packed.value(row, column)
    }

    /// One value a function for a row, its LEADs from `later`; or what a function of the user's says instead.
    pub(super) fn values(&self, later: Option<&[u8]>, acc: &OverAcc) -> Result<std::result::Result<Vec<Value>, String>> {
        let of_calls = match self.rules.calls.values(&acc.calls) {
            Ok(of_calls) => of_calls,
            Err(why) => return Ok(Err(why)),
        };
        let at = |row: &Option<Vec<u8>>, column: usize| row.as_deref().map_or(Ok(Value::Null), |row| self.value(row, column));
        let mut values = Vec::with_capacity(self.rules.computed.len());
        for computed in &self.rules.computed {
            values.push(match computed {
                Computed::Call(call) => of_calls.get(*call).cloned().unwrap_or(Value::Null),
                Computed::RowNumber => Value::Int(acc.rows as i64),
                Computed::Rank => Value::Int(acc.earlier as i64 + 1),
                Computed::DenseRank => Value::Int(acc.times as i64),
                Computed::Lag { column, .. } if acc.rows > u64::from(self.rules.distance) => at(&acc.first, *column)?,
                Computed::Lead { column, default } => later.map_or(Ok(default.clone()), |later| self.value(later, *column))?,
                Computed::Lag { default, .. } => default.clone(),
            });
        }
        Ok(Ok(values))
    }

    fn put(&mut self, row: &[u8], later: Option<&[u8]>, acc: &OverAcc, time: EventTime) -> Result<Called> {
        Ok(self.values(later, acc)?.map(|values| self.push(row, values, time)))
    }

    /// A result.
    pub(super) fn push(&mut self, row: &[u8], values: Vec<Value>, time: EventTime) {
        self.rows.push(row.to_vec());
        self.values.push(values);
        self.times.push(time);
    }

    /// The results as columns.
    pub(super) fn take_columns(&mut self) -> Result<RecordBatch> {
        let (rows, values) = (std::mem::take(&mut self.rows), std::mem::take(&mut self.values));
        self.times.clear();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.rules.schema.fields().len());
        for i in 0..self.own() {
            columns.push(self.rules.packed.column(i, rows.iter().map(|row| Some(&row[..])))?);
        }
        for (i, field) in self.rules.schema.fields().iter().skip(self.own()).enumerate() {
            let of_function: Vec<&Value> = values.iter().map(|row| &row[i]).collect();
            columns.push(column(field.data_type(), &of_function)?);
        }
        let failed = |e| Error::restart("results of OVER cannot be put into columns").because(e);
        record_batch(self.rules.schema.clone(), columns, rows.len()).map_err(failed)
    }
}

impl OverRules {
    fn keeps_first(&self) -> bool {
        self.computed.iter().any(|c| matches!(c, Computed::Lag { .. }))
    }

    fn compare(&self, tie: &OrderColumn, a: &[u8], b: &[u8]) -> Result<Ordering> {
        let (a, b) = (self.packed.value(a, tie.column)?, self.packed.value(b, tie.column)?);
        let nulls = matches!(a, Value::Null).cmp(&matches!(b, Value::Null));
        Ok(match nulls {
            Ordering::Equal if tie.descending => b.total_cmp(&a),
            Ordering::Equal => a.total_cmp(&b),
            _ if tie.nulls_first => nulls.reverse(),
            _ => nulls,
        })
    }
}

impl OverKernel for OverCalls {
    type Acc = OverAcc;

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn schema(&self) -> String {
        self.rules.packed.describe()
    }

    fn describe(&self) -> String {
        let OverRules { calls, arguments, own, computed, distance, ties, partition, .. } = &*self.rules;
        let own = if calls.can_fail() { format!(" of {own:?}") } else { String::new() };
        format!("over ({partition}) then {ties:?}: {} at {arguments:?}, {computed:?} by {distance}{own}", calls.describe())
    }

    fn encode(&self, batch: &dyn Batch, row: usize, out: &mut Vec<u8>) {
        let Some(batch) = batch.as_any().downcast_ref::<ChangeBatch>() else {
            panic!("plan bug: expected a batch of columns, got {}", batch.type_name())
        };
        self.rules.packed.pack(&batch.columns, row, out);
    }

    fn compare(&self, a: &[u8], b: &[u8]) -> Ordering {
        // Damage shows when the row is folded.
        let order = |tie| self.rules.compare(tie, a, b).unwrap_or(Ordering::Equal);
        self.rules.ties.iter().map(order).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    }

    fn create(&self) -> OverAcc {
        let calls = self.rules.calls.create();
        OverAcc { calls, rows: 0, times: 0, earlier: 0, last_ms: 0, first: None, last: None, waiting: VecDeque::new() }
    }

    fn fold(&self, acc: &mut OverAcc, row: &[u8], time: EventTime) -> Result<Called> {
        let passes = |call: usize| {
            let filter = self.rules.arguments[call].1;
            filter.map_or(Ok(true), |at| self.rules.packed.cell(row, at).map(|cell| cell == Cell::Bool(true)))
        };
        let argument = |call: usize| {
            let argument = || self.rules.arguments[call].0.map_or(Ok(Value::Bool(true)), |at| self.value(row, at));
            passes(call)?.then(argument).transpose()
        };
        let own = |call: usize| {
            let arguments = || self.rules.own[call].iter().map(|&at| self.value(row, at)).collect::<Result<Vec<_>>>();
            passes(call)?.then(arguments).transpose()
        };
        if let Err(why) = self.rules.calls.fold_values(&mut acc.calls, argument, own)? {
            return Ok(Err(why));
        }
        if acc.rows == 0 || acc.last_ms != time.0 {
            (acc.times, acc.earlier, acc.last_ms) = (acc.times + 1, acc.rows, time.0);
        }
        acc.rows += 1;
        if acc.first.is_none() && self.rules.keeps_first() {
            acc.first = Some(row.to_vec());
        }
        if self.rules.leads {
            if acc.waiting.len() > self.rules.distance as usize {
                acc.waiting.pop_front();
            }
            acc.waiting.push_back(row.to_vec());
        }
        Ok(Ok(()))
    }

    /// Numbers, ranks and LEADs are over all rows, and those are never put together.
    fn merge(&self, acc: &mut OverAcc, later: &OverAcc) -> Called {
        self.rules.calls.merge(&mut acc.calls, &later.calls)?;
        acc.rows += later.rows;
        if acc.first.is_none() {
            acc.first.clone_from(&later.first);
        }
        Ok(())
    }

    fn emit(&mut self, row: &[u8], acc: &OverAcc, _place: Place, time: EventTime) -> Result<Called> {
        if !self.rules.leads {
            return self.put(row, None, acc, time);
        } else if acc.waiting.len() > self.rules.distance as usize
            && let Some(waited) = acc.waiting.front()
        {
            return self.put(waited, Some(row), acc, time);
        }
        Ok(Ok(()))
    }

    fn finishes(&self) -> bool {
        self.rules.leads
    }

    fn finish(&mut self, acc: &OverAcc, time: EventTime) -> Result<Called> {
        let settled = usize::from(acc.waiting.len() > self.rules.distance as usize);
        for row in acc.waiting.iter().skip(settled) {
            if let Err(why) = self.put(row, None, acc, time)? {
                return Ok(Err(why));
            }
        }
        Ok(Ok(()))
    }

    fn results(&self) -> usize {
        self.rows.len()
    }

    fn take(&mut self) -> Result<BatchBox> {
        let times = std::mem::take(&mut self.times);
        Ok(ChangeBatch::inserts(self.take_columns()?, times).boxed())
    }
}
