//! UNNEST: each row once for each element of an array.
//!
//! Invariant: an update of a row is no update of its elements, of which there may be more or fewer: they go, and come.

use super::calc::evaluate;
use arrow::array::{Array, ArrayRef, AsArray, Int32Array, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use datafusion_physical_expr::PhysicalExpr;
use std::sync::Arc;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::{ColumnKernel, RowError};
use waterwheel_engine::record::{ChangeBatch, RowKind, record_batch};

/// Rows beside the elements of an array.
#[derive(Debug, Clone)]
pub(crate) struct Explode {
    pub(crate) array: Arc<dyn PhysicalExpr>,
    /// A row without elements stays.
    pub(crate) outer: bool,
    /// The place of an element, from 1, is a column behind it.
    pub(crate) with_place: bool,
    /// Of the result: the row's columns, then those of an element.
    pub(crate) schema: SchemaRef,
}

impl ColumnKernel for Explode {
    fn apply(&mut self, batch: &ChangeBatch, failed: &mut Vec<RowError>) -> Result<ChangeBatch> {
        let (arrays, bad) = evaluate(std::slice::from_ref(&self.array), batch)?;
        let arrays = arrays[0].as_list_opt::<i32>().ok_or_else(|| Error::fatal("plan bug: UNNEST of what is no array"))?;
        let (mut rows, mut elements, mut places) = (Vec::new(), Vec::new(), Vec::new());
        let mut skip = bad.iter().map(|b| b.0).peekable();
        for row in 0..batch.times.len() {
            if skip.next_if_eq(&row).is_some() {
                continue;
            }
            let (from, to) = if arrays.is_null(row) { (0, 0) } else { (arrays.value_offsets()[row], arrays.value_offsets()[row + 1]) };
            for element in from..to {
                rows.push(row as u32);
                elements.push(Some(element as u32));
                places.push(Some(element - from + 1));
            }
            if from == to && self.outer {
                rows.push(row as u32);
                elements.push(None);
                places.push(None);
            }
        }
        failed.extend(bad);
        let exploded = batch.gather(&rows)?;
        let mut columns: Vec<ArrayRef> = exploded.columns.columns().to_vec();
        columns.extend(self.elements(arrays.values(), elements)?);
        if self.with_place {
            columns.push(Arc::new(Int32Array::from(places)));
        }
        let columns = record_batch(self.schema.clone(), columns, rows.len())
            .map_err(|e| Error::fatal("plan bug: elements of another type").because(e))?;
        let mut exploded = exploded.with_columns(columns);
        for kind in exploded.kinds.iter_mut().flatten() {
            *kind = if kind.is_addition() { RowKind::Insert } else { RowKind::Delete };
        }
        Ok(exploded)
    }
}

impl Explode {
    /// The columns of elements; of rows, one each of their own.
    fn elements(&self, all: &ArrayRef, wanted: Vec<Option<u32>>) -> Result<Vec<ArrayRef>> {
        let failed = |e| Error::restart("elements cannot be put into columns").because(e);
        let Some(rows) = all.as_struct_opt() else {
            return Ok(vec![take(all, &UInt32Array::from(wanted), None).map_err(failed)?]);
        };
        let there = wanted.into_iter().map(|element| element.filter(|&element| rows.is_valid(element as usize)));
        let there: UInt32Array = there.collect();
        rows.columns().iter().map(|column| take(column, &there, None).map_err(failed)).collect()
    }
}
