//! GROUP BY over changes: the kernel of the engine's `group`.
//!
//! Invariant: a result row is the key's values, then one value a call.

use super::aggregate::{Acc, Arguments, Calls};
use super::building::Building;
use super::keys;
use super::value::Class;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::over::Called;
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
    /// Results so far: the columns, and how many rows.
    results: Vec<Building>,
    rows: usize,
}

impl GroupBy {
    pub(crate) fn new(calls: Calls, classes: Vec<Class>, schema: SchemaRef) -> Result<Self> {
        let results = building(&schema)?;
        Ok(GroupBy { global: classes.is_empty(), calls, classes, schema, arguments: None, results, rows: 0 })
    }
}

/// The columns of a schema, empty.
///
/// # Errors
/// As [`Building::of`].
pub(crate) fn building(schema: &SchemaRef) -> Result<Vec<Building>> {
    schema.fields().iter().map(|field| Building::of(field.data_type())).collect()
}

/// Takes the columns made so far.
///
/// # Errors
/// Of Arrow, for columns beyond its limits.
pub(crate) fn take_columns(schema: &SchemaRef, columns: &mut [Building], rows: usize) -> Result<RecordBatch> {
    let columns = columns.iter_mut().map(Building::take).collect::<Result<Vec<_>>>()?;
    record_batch(schema.clone(), columns, rows).map_err(|e| Error::restart("results cannot be put into columns").because(e))
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

    fn fold(&self, acc: &mut Acc, row: usize, weight: i64) -> Called {
        self.arguments.as_ref().map_or(Ok(()), |arguments| self.calls.fold(acc, arguments, row, weight))
    }

    fn is_empty(&self, acc: &Acc) -> bool {
        !self.global && self.calls.is_empty(acc)
    }

    fn is_visible(&self, acc: &Acc) -> bool {
        self.global || acc.rows > 0
    }

    fn emit(&mut self, key: &[u8], acc: &Acc) -> Result<Called> {
        let (of_key, of_calls) = self.results.split_at_mut(self.classes.len());
        if self.calls.can_fail() {
            match self.calls.values(acc) {
                Ok(values) => of_calls.iter_mut().zip(&values).for_each(|(column, value)| column.push(value)),
                Err(why) => return Ok(Err(why)),
            }
        } else {
            of_calls.iter_mut().zip(self.calls.results(acc)).for_each(|(column, value)| column.push(&value));
        }
        keys::decode(&self.classes, key, of_key)?;
        self.rows += 1;
        Ok(Ok(()))
    }

    fn is_same(&self, a: usize, b: usize) -> bool {
        // Their keys are.
        self.results.iter().skip(self.classes.len()).all(|column| column.is_same(a, b))
    }

    fn take(&mut self) -> Result<RecordBatch> {
        take_columns(&self.schema, &mut self.results, std::mem::take(&mut self.rows))
    }
}
