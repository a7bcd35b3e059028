//! Window aggregation: the kernels around the engine's window operator.
//!
//! Rows go in as references into their batch, whose arguments were evaluated once; results come out as values and become
//! columns again.
//!
//! Invariant: a result row has the window's bounds where the query names them, and the key's values elsewhere, in the order of
//! the query's GROUP BY.

use super::aggregate::{Acc, Arguments, Calls};
use super::building::Building;
use super::group::{building, take_columns};
use super::keys::{self, KeyBytes};
use super::value::{Class, Value};
use crate::plan::Zone;
use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::{DataType, SchemaRef, TimestampMillisecondType};
use std::sync::Arc;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::{Operator, Output, check_description, refuse};
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
    type Out = Outcome;

    fn create(&self) -> Acc {
        self.0.create()
    }

    fn accumulate(&self, acc: &mut Acc, row: &RowRef) {
        match &row.arguments {
            Some(arguments) => self.0.fold(acc, arguments, row.row as usize, 1).unwrap_or_else(|why| refuse(why)),
            None => acc.count_row(),
        }
    }

    fn merge(&self, acc: &mut Acc, later: &Acc) {
        self.0.merge(acc, later).unwrap_or_else(|why| refuse(why));
    }

    fn finish(&self, acc: &Acc) -> Outcome {
        if self.0.are_numbers() {
            return Outcome::Numbers(acc.clone());
        }
        Outcome::Values(self.0.values(acc).unwrap_or_else(|why| refuse(why)))
    }
}

/// What a window gives of a key.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// What small accumulators hold, to be read when columns are made of it.
    Numbers(Acc),
    Values(Vec<Value>),
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
    pub(crate) calls: Calls,
    pub(crate) columns: Vec<GroupColumn>,
    pub(crate) classes: Vec<Class>,
    pub(crate) schema: SchemaRef,
    /// By how much the engine's windows are longer than the query's.
    pub(crate) longer_ms: i64,
    /// Whose clock shows the bounds; none = UTC.
    pub(crate) zone: Option<Zone>,
}

impl FromWindows {
    fn shown(&self, bound_ms: i64) -> Result<i64> {
        bound_in(self.zone, bound_ms)
    }
}

/// A window's bound as a zone's clock shows it, in milliseconds.
///
/// # Errors
/// A time beyond the calendar.
pub(crate) fn bound_in(zone: Option<Zone>, bound_ms: i64) -> Result<i64> {
    match zone {
        None => Ok(bound_ms),
        Some(zone) => zone
            .local_ms(bound_ms)
            .ok_or_else(|| Error::fatal(format!("a window's bound, {bound_ms} ms since 1970, is beyond the calendar of {zone}"))),
    }
}

/// A column of bounds, which are in milliseconds.
///
/// # Errors
/// The first bound's that there is not.
pub(crate) fn stamps(bounds: impl Iterator<Item = Result<i64>>, kind: &DataType) -> Result<ArrayRef> {
    let values = bounds.map(|bound| bound.map(Some)).collect::<Result<Int64Array>>()?;
    let zone = if let DataType::Timestamp(_, zone) = kind { zone.clone() } else { None };
    Ok(Arc::new(values.reinterpret_cast::<TimestampMillisecondType>().with_timezone_opt(zone)))
}

impl Operator for FromWindows {
    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let batch = downcast::<Rows<Windowed<KeyBytes, Outcome>>>(batch);
        let (rows, grouped) = (batch.rows.len(), self.columns.len());
        let mut columns = building(&self.schema)?;
        // Columns of the key are made in its order and put into their places behind.
        let kinds = self.columns.iter().zip(self.schema.fields()).filter(|(column, _)| **column == GroupColumn::Key);
        let mut key = kinds.map(|(_, field)| Building::of(field.data_type())).collect::<Result<Vec<_>>>()?;
        for window in &batch.rows {
            keys::decode(&self.classes, window.key.as_slice(), &mut key)?;
            for (column, place) in columns.iter_mut().zip(&self.columns) {
                match place {
                    GroupColumn::Key => {}
                    GroupColumn::WindowStart => column.push(&Value::Int(self.shown(window.start.0)?)),
                    GroupColumn::WindowEnd => column.push(&Value::Int(self.shown(window.end.0.saturating_sub(self.longer_ms))?)),
                    GroupColumn::WindowTime => column.push(&Value::Int(window.end.0.saturating_sub(1 + self.longer_ms))),
                }
            }
            let of_calls = columns.iter_mut().skip(grouped);
            match &window.value {
                Outcome::Numbers(acc) => of_calls.zip(self.calls.results(acc)).for_each(|(column, value)| column.push(&value)),
                Outcome::Values(values) => of_calls.zip(values).for_each(|(column, value)| column.push(value)),
            }
        }
        let mut key = key.into_iter();
        for (column, _) in columns.iter_mut().zip(&self.columns).filter(|(_, place)| **place == GroupColumn::Key) {
            if let Some(made) = key.next() {
                *column = made;
            }
        }
        let columns = take_columns(&self.schema, &mut columns, rows)?;
        out.emit(ChangeBatch::inserts(columns, batch.times).boxed())
    }
}
