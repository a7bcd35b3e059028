//! Projection and filter in one go: DataFusion's expressions over the columns of a batch.
//!
//! Invariant: a row whose expressions fail (a division by zero, a cast that does not fit) is reported and left out; the others
//! are computed as if it were not there. A filter that keeps one half of an update makes an insert or a delete of it.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::concat;
use arrow::datatypes::SchemaRef;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::utils::collect_columns;
use std::sync::Arc;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::{ColumnKernel, RowError};
use waterwheel_engine::record::{ChangeBatch, RowKind, record_batch};

/// Computes `exprs` of the rows for which `predicate` is true.
#[derive(Clone)]
pub(crate) struct Calc {
    pub(crate) predicate: Option<Arc<dyn PhysicalExpr>>,
    /// None = the columns as they are.
    pub(crate) exprs: Option<Vec<Arc<dyn PhysicalExpr>>>,
    /// Of the result.
    pub(crate) schema: SchemaRef,
}

impl ColumnKernel for Calc {
    fn apply(&mut self, batch: &ChangeBatch, failed: &mut Vec<RowError>) -> Result<ChangeBatch> {
        let mut kept = None;
        if let Some(predicate) = &self.predicate {
            let (values, bad) = evaluate(std::slice::from_ref(predicate), batch)?;
            let accepted = values[0].as_boolean_opt().ok_or_else(|| Error::fatal("plan bug: a filter that is no BOOLEAN"))?;
            let accept = |i: usize| accepted.is_valid(i) && accepted.value(i);
            let mut skip = bad.iter().map(|b| b.0).peekable();
            let rows: Vec<u32> = (0..batch.times.len()).filter(|i| skip.next_if_eq(i).is_none() && accept(*i)).map(|i| i as u32).collect();
            failed.extend(bad);
            if rows.len() < batch.times.len() {
                kept = Some((self.select_needed(batch, &rows)?, rows));
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
        let rows = batch.times.len();
        let columns =
            record_batch(self.schema.clone(), columns, rows).map_err(|e| Error::fatal("plan bug: columns of another type").because(e))?;
        let computed = batch.clone().with_columns(columns);
        if bad.is_empty() {
            return Ok(computed);
        }
        let mut skip = bad.iter().map(|b| b.0).peekable();
        let good: Vec<u32> = (0..rows).filter(|i| skip.next_if_eq(i).is_none()).map(|i| i as u32).collect();
        failed.extend(bad.into_iter().map(|(row, error)| (origin.map_or(row, |rows| rows[row] as usize), error)));
        failed.sort_by_key(|f| f.0);
        select(&computed, &good)
    }
}

impl Calc {
    /// The rows named, with what the expressions look at; other columns hold anything.
    fn select_needed(&self, batch: &ChangeBatch, rows: &[u32]) -> Result<ChangeBatch> {
        let Some(exprs) = &self.exprs else { return select(batch, rows) };
        let needed: Vec<usize> = exprs.iter().flat_map(collect_columns).map(|column| column.index()).collect();
        let (schema, all) = (batch.columns.schema(), batch.columns.columns());
        let failed = |e| Error::restart("rows of a batch could not be copied").because(e);
        let in_need: Vec<usize> = (0..all.len()).filter(|i| needed.contains(i)).collect();
        let part = batch.columns.project(&in_need).map_err(failed)?;
        let part = select(&batch.clone().with_columns(part), rows)?;
        let mut columns: Vec<ArrayRef> = all.iter().map(|column| column.slice(0, rows.len())).collect();
        in_need.iter().zip(part.columns.columns()).for_each(|(&i, column)| columns[i] = column.clone());
        let columns = record_batch(schema, columns, rows.len()).map_err(failed)?;
        Ok(part.with_columns(columns))
    }
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
