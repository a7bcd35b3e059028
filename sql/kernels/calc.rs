//! Projection and filter in one go: DataFusion's expressions over the columns of a batch.
//!
//! Invariant: a row whose expressions fail (a division by zero, a cast that does not fit) is reported and left out; the others
//! are computed as if it were not there. A filter that keeps one half of an update makes an insert or a delete of it.

use super::common::{self, Common};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::concat;
use arrow::datatypes::SchemaRef;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::utils::conjunction_opt;
use std::sync::Arc;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::{ColumnKernel, RowError};
use waterwheel_engine::record::{ChangeBatch, RowKind, record_batch};

/// An expression that is as large as this is computed where it stands rather than taken over into the calc above.
const LARGE: usize = 400;

/// Of rows that pass, so many of a hundred are not worth being copied for those that do not.
const MOST: usize = 80;

/// Computes `exprs` of the rows for which `predicate` is true.
#[derive(Debug, Clone)]
pub(crate) struct Calc {
    predicate: Option<Arc<dyn PhysicalExpr>>,
    /// None = the columns as they are.
    exprs: Option<Vec<Arc<dyn PhysicalExpr>>>,
    /// Of the result.
    schema: SchemaRef,
    /// Of the rows that come in.
    input: SchemaRef,
    /// Columns that `exprs` look at.
    needed: Vec<usize>,
    common: Option<Arc<Common>>,
}

impl Calc {
    /// Of rows with columns of the schema `input`, with results in `schema`.
    ///
    /// # Errors
    /// Expressions without a type.
    pub(crate) fn new(
        predicate: Option<Arc<dyn PhysicalExpr>>,
        exprs: Option<Vec<Arc<dyn PhysicalExpr>>>,
        schema: SchemaRef,
        input: SchemaRef,
    ) -> datafusion_common::Result<Calc> {
        let common = exprs.as_ref().map(|exprs| Common::of(predicate.as_ref(), exprs, &input)).transpose()?.flatten().map(Arc::new);
        let needed = common::needed(exprs.iter().flatten(), input.fields().len());
        Ok(Calc { predicate, exprs, schema, input, needed, common })
    }

    /// This calc and then another one, as one; nothing where that would be much too large.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(crate) fn then(&self, next: &Calc) -> datafusion_common::Result<Option<Calc>> {
        let through = |expr: &Arc<dyn PhysicalExpr>| match &self.exprs {
            Some(inner) => common::through(expr, inner),
            None => Ok(expr.clone()),
        };
        let own = self.predicate.clone();
        let predicate = conjunction_opt(own.into_iter().chain(next.predicate.as_ref().map(through).transpose()?));
        let exprs = match &next.exprs {
            Some(exprs) => Some(exprs.iter().map(through).collect::<datafusion_common::Result<Vec<_>>>()?),
            None => self.exprs.clone(),
        };
        if predicate.iter().chain(exprs.iter().flatten()).map(common::size).sum::<usize>() > LARGE {
            return Ok(None);
        }
        Calc::new(predicate, exprs, next.schema.clone(), self.input.clone()).map(Some)
    }

    /// As written: a row that fails is known.
    fn each(&self, batch: &ChangeBatch, failed: &mut Vec<RowError>) -> Result<ChangeBatch> {
        let mut kept = None;
        if let Some(predicate) = &self.predicate {
            let (values, bad) = evaluate(std::slice::from_ref(predicate), batch)?;
            let accepted = truths(&values[0])?;
            let mut skip = bad.iter().map(|b| b.0).peekable();
            let rows: Vec<u32> =
                (0..batch.times.len()).filter(|i| skip.next_if_eq(i).is_none() && accepts(accepted, *i)).map(|i| i as u32).collect();
            failed.extend(bad);
            if rows.len() < batch.times.len() {
                let selected = if self.exprs.is_some() { select_needed(batch, &rows, &self.needed)? } else { select(batch, &rows)? };
                kept = Some((selected, rows));
            }
        }
        let (batch, origin) = match &kept {
            Some((batch, rows)) => (batch, Some(rows)),
            None => (batch, None),
        };
        let Some(exprs) = &self.exprs else {
            return Ok(batch.clone());
        };
        let (columns, bad) = evaluate(exprs, batch)?;
        let computed = self.computed(batch, columns)?;
        if bad.is_empty() {
            return Ok(computed);
        }
        let rows = batch.times.len();
        let mut skip = bad.iter().map(|b| b.0).peekable();
        let good: Vec<u32> = (0..rows).filter(|i| skip.next_if_eq(i).is_none()).map(|i| i as u32).collect();
        failed.extend(bad.into_iter().map(|(row, error)| (origin.map_or(row, |rows| rows[row] as usize), error)));
        failed.sort_by_key(|f| f.0);
        select(&computed, &good)
    }

    fn computed(&self, batch: &ChangeBatch, columns: Vec<ArrayRef>) -> Result<ChangeBatch> {
        let columns = record_batch(self.schema.clone(), columns, batch.times.len());
        Ok(batch.clone().with_columns(columns.map_err(|e| Error::fatal("plan bug: columns of another type").because(e))?))
    }

    /// With what expressions have in common computed once; nothing where a row fails.
    fn at_once(&self, common: &Common, batch: &ChangeBatch) -> Result<Option<ChangeBatch>> {
        let rows = batch.times.len();
        let Ok(mut mask) = common.first.as_ref().map(|first| value(first, &batch.columns)).transpose() else { return Ok(None) };
        let mut selected = None;
        if let Some(first) = &mask {
            let passing = passing(truths(first)?);
            if passing.len() * 100 < rows * MOST {
                selected = Some(select_needed(batch, &passing, &common.needed)?);
                mask = None;
            }
        }
        let batch = selected.as_ref().unwrap_or(batch);
        let rows = batch.times.len();
        let mut columns = batch.columns.clone();
        for step in &common.steps {
            let Ok(more) = value(&step.expr, &columns) else { return Ok(None) };
            let all = columns.columns().iter().cloned().chain([more]).collect();
            columns =
                record_batch(step.schema.clone(), all, rows).map_err(|e| Error::fatal("plan bug: columns of another type").because(e))?;
        }
        let Ok(rest) = common.rest.as_ref().map(|rest| value(rest, &columns)).transpose() else { return Ok(None) };
        let masks = [mask.as_ref(), rest.as_ref()].into_iter().flatten().map(truths).collect::<Result<Vec<_>>>()?;
        let passing: Vec<u32> = (0..rows).filter(|i| masks.iter().all(|mask| accepts(mask, *i))).map(|i| i as u32).collect();
        let mut batch = batch.clone().with_columns(columns);
        if passing.len() < rows {
            batch = select_needed(&batch, &passing, &common.needed_last)?;
        }
        let outputs: datafusion_common::Result<Vec<ArrayRef>> = common.outputs.iter().map(|expr| value(expr, &batch.columns)).collect();
        outputs.ok().map(|outputs| self.computed(&batch, outputs)).transpose()
    }
}

impl ColumnKernel for Calc {
    fn apply(&mut self, batch: &ChangeBatch, failed: &mut Vec<RowError>) -> Result<ChangeBatch> {
        match self.common.as_ref().map(|common| self.at_once(common, batch)).transpose()?.flatten() {
            Some(computed) => Ok(computed),
            None => self.each(batch, failed),
        }
    }
}

fn value(expr: &Arc<dyn PhysicalExpr>, columns: &RecordBatch) -> datafusion_common::Result<ArrayRef> {
    expr.evaluate(columns)?.into_array(columns.num_rows())
}

fn truths(values: &ArrayRef) -> Result<&BooleanArray> {
    values.as_boolean_opt().ok_or_else(|| Error::fatal("plan bug: a filter that is no BOOLEAN"))
}

fn accepts(truths: &BooleanArray, row: usize) -> bool {
    truths.is_valid(row) && truths.value(row)
}

fn passing(truths: &BooleanArray) -> Vec<u32> {
    (0..truths.len()).filter(|i| accepts(truths, *i)).map(|i| i as u32).collect()
}

/// The rows named, with the columns that are needed; others hold anything.
fn select_needed(batch: &ChangeBatch, rows: &[u32], needed: &[usize]) -> Result<ChangeBatch> {
    let (schema, all) = (batch.columns.schema(), batch.columns.columns());
    let failed = |e| Error::restart("rows of a batch could not be copied").because(e);
    let part = batch.columns.project(needed).map_err(failed)?;
    let part = select(&batch.clone().with_columns(part), rows)?;
    let mut columns: Vec<ArrayRef> = all.iter().map(|column| column.slice(0, rows.len())).collect();
    needed.iter().zip(part.columns.columns()).for_each(|(&i, column)| columns[i] = column.clone());
    let columns = record_batch(schema, columns, rows.len()).map_err(failed)?;
    Ok(part.with_columns(columns))
}

/// The rows named; the half of an update that stays alone becomes an insert or a delete.
fn select(batch: &ChangeBatch, rows: &[u32]) -> Result<ChangeBatch> {
    let mut selected = batch.gather(rows)?;
    let Some(kinds) = &mut selected.kinds else { return Ok(selected) };
    for (i, &row) in rows.iter().enumerate() {
        match kinds[i] {
            RowKind::UpdateBefore if rows.get(i + 1) != Some(&(row + 1)) => kinds[i] = RowKind::Delete,
            RowKind::UpdateAfter if i == 0 || rows[i - 1] + 1 != row => kinds[i] = RowKind::Insert,
            _ => {}
        }
    }
    Ok(selected)
}

/// The columns of expressions, one value a row, and the rows for which one of them fails (their values mean nothing).
///
/// # Errors
/// Columns beyond the limits of Arrow.
pub(crate) fn evaluate(exprs: &[Arc<dyn PhysicalExpr>], batch: &ChangeBatch) -> Result<(Vec<ArrayRef>, Vec<RowError>)> {
    let rows = batch.times.len();
    let all: datafusion_common::Result<Vec<ArrayRef>> = exprs.iter().map(|e| e.evaluate(&batch.columns)?.into_array(rows)).collect();
    let Err(whole) = all else { return Ok((all.unwrap_or_default(), Vec::new())) };
    // Some row is to blame: find it, row by row.
    let mut bad = Vec::new();
    let mut pieces: Vec<Vec<ArrayRef>> = vec![Vec::with_capacity(rows); exprs.len()];
    let schema = batch.columns.schema();
    for row in 0..rows {
        let one = batch.columns.slice(row, 1);
        let values: datafusion_common::Result<Vec<ArrayRef>> = exprs.iter().map(|e| e.evaluate(&one)?.into_array(1)).collect();
        match values {
            Ok(values) => values.into_iter().zip(&mut pieces).for_each(|(value, piece)| piece.push(value)),
            Err(e) => {
                bad.push((row, explain(&e)));
                for (expr, piece) in exprs.iter().zip(&mut pieces) {
                    let kind = expr.data_type(&schema).map_err(|e| Error::fatal("plan bug: an expression without a type").because(e))?;
                    piece.push(arrow::array::new_null_array(&kind, 1));
                }
            }
        }
    }
    if bad.is_empty() {
        // No single row fails, the batch does: too much text in one column, or a bug.
        return Err(Error::fatal("an expression fails for a batch and for none of its rows").because(whole));
    }
    let joined = pieces.iter().map(|p| concat(&p.iter().map(|a| a.as_ref()).collect::<Vec<_>>())).collect::<Result<Vec<_>, _>>();
    Ok((joined.map_err(|e| Error::restart("columns cannot be put together").because(e))?, bad))
}

#[cold]
pub(crate) fn explain(error: &datafusion_common::DataFusionError) -> String {
    let text = error.strip_backtrace();
    let text = text.rsplit("error: ").next().unwrap_or(&text);
    text.to_string()
}
