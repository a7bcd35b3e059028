//! GROUP BY over changes: the kernel of the engine's `group`.
//!
//! Invariant: a result row is the key's values, then one value a call.

use super::aggregate::{Acc, Arguments, Calls};
use super::keys;
use super::value::{Class, Value, column};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::{GroupKernel, RowError};
use waterwheel_engine::record::{ChangeBatch, record_batch};

/// Of one task.
pub(crate) struct GroupBy {
    pub(crate) calls: Calls,
    /// Classes of the key's columns.
    pub(crate) classes: Vec<Class>,
    /// Of the results.
    pub(crate) schema: SchemaRef,
    /// One group without key: it has a result also without rows.
    pub(crate) global: bool,
    arguments: Option<Arguments>,
    /// Row behind row, and how many.
    results: Vec<Value>,
    rows: usize,
}

impl GroupBy {
    pub(crate) fn new(calls: Calls, classes: Vec<Class>, schema: SchemaRef) -> Self {
        GroupBy { global: classes.is_empty(), calls, classes, schema, arguments: None, results: Vec::new(), rows: 0 }
    }
}

impl GroupKernel for GroupBy {
    type Acc = Acc;

    fn describe(&self) -> String {
        let kinds: Vec<String> = self.schema.fields().iter().take(self.classes.len()).map(|f| f.data_type().to_string()).collect();
        format!("group by ({}): {}", kinds.join(", "), self.calls.describe())
    }

    fn begin(&mut self, batch: &ChangeBatch, failed: &mut Vec<RowError>) -> Result<()> {
        self.arguments = Some(self.calls.arguments(batch, failed)?);
        Ok(())
    }

    fn create(&self) -> Acc {
        self.calls.create()
    }

    fn fold(&self, acc: &mut Acc, row: usize, weight: i64) {
        if let Some(arguments) = &self.arguments {
            self.calls.fold(acc, arguments, row, weight);
        }
    }

    fn is_empty(&self, acc: &Acc) -> bool {
        !self.global && Calls::is_empty(acc)
    }

    fn is_visible(&self, acc: &Acc) -> bool {
        self.global || acc.rows > 0
    }

    fn emit(&mut self, key: &[u8], acc: &Acc) -> Result<()> {
        keys::decode(&self.classes, key, &mut self.results)?;
        self.results.extend(self.calls.results(acc));
        self.rows += 1;
        Ok(())
    }

    fn is_same(&self, a: usize, b: usize) -> bool {
        let width = self.schema.fields().len();
        let row = |i: usize| &self.results[i * width..(i + 1) * width];
        row(a).iter().zip(row(b)).all(|(a, b)| a.is_same(b))
    }

    fn take(&mut self) -> Result<RecordBatch> {
        rows_to_columns(&self.schema, &std::mem::take(&mut self.results), std::mem::take(&mut self.rows))
    }
}

/// Rows of values, one behind the other, as columns of a schema.
///
/// # Errors
/// Of Arrow, for columns beyond its limits.
pub(crate) fn rows_to_columns(schema: &SchemaRef, values: &[Value], rows: usize) -> Result<RecordBatch> {
    let width = schema.fields().len();
    debug_assert_eq!(values.len(), width * rows);
    let columns = schema.fields().iter().enumerate().map(|(i, field)| {
        let values: Vec<&Value> = values.iter().skip(i).step_by(width).collect();
        column(field.data_type(), &values)
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    record_batch(schema.clone(), columns, rows).map_err(|e| Error::restart("results cannot be put into columns").because(e))
}
