//! Window aggregation: the kernels around the engine's window operator.
//!
//! Rows go in as references into their batch, whose arguments were evaluated once; results come out as values and become
//! columns again.
//!
//! Invariant: a result row has the window's bounds where the query names them, and the key's values elsewhere, in the order of
//! the query's GROUP BY.

use super::aggregate::{Acc, Arguments, Calls};
use super::group::rows_to_columns;
use super::keys::{self, KeyBytes};
use super::value::{Class, Value};
use arrow::datatypes::SchemaRef;
use std::sync::Arc;
use waterwheel_engine::error::Result;
use waterwheel_engine::operators::{Operator, Output, check_description};
use waterwheel_engine::record::{BatchBox, ChangeBatch, Rows, downcast};
use waterwheel_engine::windowing::{Accumulate, Windowed};

/// A row of a batch whose arguments are evaluated; none where nothing of a row is looked at.
#[derive(Debug, Clone)]
pub(crate) struct RowRef {
    arguments: Option<Arc<Arguments>>,
    row: u32,
}

/// Evaluates arguments and hands rows on as references, with their keys and times.
pub(crate) struct ToRowRefs(pub(crate) Calls);

impl Operator for ToRowRefs {
    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let batch = downcast::<ChangeBatch>(batch);
        let mut failed = Vec::new();
        let arguments = if self.0.only_count_rows() { None } else { Some(Arc::new(self.0.arguments(&batch, &mut failed)?)) };
        let refs = (0..batch.times.len() as u32).map(|row| RowRef { arguments: arguments.clone(), row }).collect();
        let rows = Rows { rows: refs, times: batch.times, keys: batch.keys, origins: batch.origins };
        if failed.is_empty() {
            return out.emit(rows.boxed());
        }
        let mut skip = failed.iter().map(|f| f.0).peekable();
        let good: Vec<u32> = (0..rows.rows.len()).filter(|i| skip.next_if_eq(i).is_none()).map(|i| i as u32).collect();
        let kept = rows.gather(&good);
        for (row, error) in failed {
            out.reject(rows.origin(row), rows.times[row], error)?;
        }
        out.emit(kept.boxed())
    }

    /// The slices behind it are told apart by what they hold, which this says.
    fn save(&mut self) -> Vec<u8> {
        self.0.describe().into_bytes()
    }

    fn restore(&mut self, blobs: &[Vec<u8>]) -> Result<()> {
        check_description(&self.0.describe(), blobs)
    }
}

/// The calls as the engine's aggregate.
pub(crate) struct WindowCalls(pub(crate) Calls);

impl Accumulate for WindowCalls {
    type Row = RowRef;
    type Acc = Acc;
    type Out = Vec<Value>;

    fn create(&self) -> Acc {
        self.0.create()
    }

    fn accumulate(&self, acc: &mut Acc, row: &RowRef) {
        match &row.arguments {
            Some(arguments) => self.0.fold(acc, arguments, row.row as usize, 1),
            None => Calls::count_row(acc),
        }
    }

    fn merge(&self, acc: &mut Acc, later: &Acc) {
        self.0.merge(acc, later);
    }

    fn finish(&self, acc: &Acc) -> Vec<Value> {
        self.0.results(acc).collect()
    }
}

/// Where a column of a result comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupColumn {
    /// The next value of the key.
    Key,
    WindowStart,
    WindowEnd,
    WindowTime,
}

/// Results of windows to columns.
pub(crate) struct FromWindows {
    pub(crate) columns: Vec<GroupColumn>,
    pub(crate) classes: Vec<Class>,
    pub(crate) schema: SchemaRef,
    /// By how much the engine's windows are longer than the query's.
    pub(crate) longer_ms: i64,
}

impl Operator for FromWindows {
    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let batch = downcast::<Rows<Windowed<KeyBytes, Vec<Value>>>>(batch);
        let rows = batch.rows.len();
        let (mut key, mut values) = (Vec::new(), Vec::with_capacity(rows * self.schema.fields().len()));
        for window in batch.rows {
            keys::decode(&self.classes, &window.key.0, &mut key)?;
            let mut key = key.drain(..);
            let value = |column: &GroupColumn| match column {
                GroupColumn::Key => key.next().unwrap_or(Value::Null),
                GroupColumn::WindowStart => Value::Int(window.start.0),
                GroupColumn::WindowEnd => Value::Int(window.end.0.saturating_sub(self.longer_ms)),
                GroupColumn::WindowTime => Value::Int(window.end.0.saturating_sub(1 + self.longer_ms)),
            };
            values.extend(self.columns.iter().map(value));
            values.extend(window.value);
        }
        let columns = rows_to_columns(&self.schema, &values, rows)?;
        out.emit(ChangeBatch::inserts(columns, batch.times).boxed())
    }
}
