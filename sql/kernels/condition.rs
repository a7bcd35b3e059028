//! What a join asks of two rows besides equal keys.
//!
//! Comparisons of columns and constants are made on the packed rows; all else is an expression over a batch of one pair, with
//! the columns that it needs.
//!
//! Invariant: a pair belongs together if the condition is true of it; NULL is not true.

use super::packed::{Cell, Packed};
use arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use datafusion_physical_expr::PhysicalExpr;
use std::cmp::Ordering;
use std::sync::Arc;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::joins::{LEFT, Pairing};
use waterwheel_engine::record::record_batch;

/// One side of a comparison.
#[derive(Debug, Clone)]
pub(crate) enum Operand {
    /// A column of a side's row, and what is added to it if it is a number or time.
    Column(usize, usize, i64),
    Int(i64),
    Decimal(i128),
    Text(String),
}

/// Which orders of two values make it true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Orders {
    pub(crate) less: bool,
    pub(crate) equal: bool,
    pub(crate) greater: bool,
}

/// `a op b`.
#[derive(Debug, Clone)]
pub(crate) struct Comparison {
    pub(crate) left: Operand,
    pub(crate) orders: Orders,
    pub(crate) right: Operand,
}

/// The rest: an expression over some columns of both sides.
#[derive(Debug, Clone)]
pub(crate) struct Residual {
    pub(crate) expr: Arc<dyn PhysicalExpr>,
    /// Side and column of each of its columns.
    pub(crate) columns: Vec<(usize, usize)>,
    pub(crate) schema: SchemaRef,
}

/// All must be true.
#[derive(Debug, Clone, Default)]
pub(crate) struct Condition {
    pub(crate) comparisons: Vec<Comparison>,
    pub(crate) residual: Option<Residual>,
}

impl Condition {
    /// Whether it is true of a pair; the inner error is that of the pair's values.
    ///
    /// # Errors
    /// Bytes that are no rows.
    pub(crate) fn holds(&self, sides: &[Packed; 2], left: &[u8], right: &[u8]) -> Result<std::result::Result<bool, String>> {
        for comparison in &self.comparisons {
            if !comparison.holds(sides, left, right)? {
                return Ok(Ok(false));
            }
        }
        self.residual.as_ref().map_or(Ok(Ok(true)), |residual| residual.holds(sides, left, right))
    }
}

/// Pairs: the rows of a batch, and their partners.
type Kept<'a> = (Vec<u32>, Vec<&'a [u8]>);

impl Condition {
    /// The pairs of which it is true; none = of all. Those for which it fails are pushed to `failed`, by the batch's row.
    ///
    /// # Errors
    /// Bytes that are no rows.
    pub(crate) fn select<'a>(
        &self,
        sides: &[Packed; 2],
        side: usize,
        own: &RecordBatch,
        pairing: &Pairing<'a>,
        failed: &mut Vec<(usize, String)>,
    ) -> Result<Option<Kept<'a>>> {
        let mut kept: Kept<'a> = (pairing.rows.to_vec(), pairing.partners.to_vec());
        if !self.comparisons.is_empty() {
            kept.0.clear();
            kept.1.clear();
            for (&row, &partner) in pairing.rows.iter().zip(pairing.partners) {
                let own = pairing.own.row(row as usize);
                let (left, right) = if side == LEFT { (own, partner) } else { (partner, own) };
                let mut holds = true;
                for comparison in &self.comparisons {
                    holds = holds && comparison.holds(sides, left, right)?;
                }
                if holds {
                    kept.0.push(row);
                    kept.1.push(partner);
                }
            }
        }
        match &self.residual {
            Some(residual) if !kept.0.is_empty() => residual.select(sides, side, own, pairing, kept, failed).map(Some),
            _ => Ok((!self.comparisons.is_empty()).then_some(kept)),
        }
    }
}

impl Operand {
    fn cell<'a>(&'a self, sides: &[Packed; 2], left: &'a [u8], right: &'a [u8]) -> Result<(Cell<'a>, i64)> {
        Ok(match self {
            Operand::Column(side, column, plus) => (sides[*side].cell(if *side == LEFT { left } else { right }, *column)?, *plus),
            Operand::Int(n) => (Cell::Int(*n), 0),
            Operand::Decimal(n) => (Cell::Decimal(*n), 0),
            Operand::Text(text) => (Cell::Bytes(text.as_bytes()), 0),
        })
    }
}

impl Comparison {
    fn holds(&self, sides: &[Packed; 2], left: &[u8], right: &[u8]) -> Result<bool> {
        let order = match (self.left.cell(sides, left, right)?, self.right.cell(sides, left, right)?) {
            ((Cell::Int(a), plus_a), (Cell::Int(b), plus_b)) => {
                Some((i128::from(a) + i128::from(plus_a)).cmp(&(i128::from(b) + i128::from(plus_b))))
            }
            ((a, _), (b, _)) => a.compare(b),
        };
        Ok(match order {
            Some(Ordering::Less) => self.orders.less,
            Some(Ordering::Equal) => self.orders.equal,
            Some(Ordering::Greater) => self.orders.greater,
            None => false,
        })
    }
}

impl Residual {
    fn select<'a>(
        &self,
        sides: &[Packed; 2],
        side: usize,
        own: &RecordBatch,
        pairing: &Pairing<'a>,
        (rows, partners): Kept<'a>,
        failed: &mut Vec<(usize, String)>,
    ) -> Result<Kept<'a>> {
        let places = UInt32Array::from(rows.clone());
        let column = |&(of, column): &(usize, usize)| match of == side {
            true => {
                take(own.column(column), &places, None).map_err(|e| Error::restart("rows of a join cannot be put into columns").because(e))
            }
            false => sides[of].column(column, partners.iter().map(|row| Some(*row))),
        };
        let columns = self.columns.iter().map(column).collect::<Result<Vec<_>>>()?;
        let batch = record_batch(self.schema.clone(), columns, rows.len())
            .map_err(|e| Error::fatal("plan bug: a condition over columns of another type").because(e))?;
        let mut kept = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
        let values = self.expr.evaluate(&batch).and_then(|value| value.into_array(rows.len())).ok();
        for (i, (row, partner)) in rows.into_iter().zip(partners).enumerate() {
            let holds = match &values {
                Some(values) => {
                    let values = values.as_boolean_opt().ok_or_else(|| Error::fatal("plan bug: a condition that is no BOOLEAN"))?;
                    Ok(values.is_valid(i) && values.value(i))
                }
                // Some pair is to blame.
                None => {
                    let own = pairing.own.row(row as usize);
                    let (left, right) = if side == LEFT { (own, partner) } else { (partner, own) };
                    self.holds(sides, left, right)?
                }
            };
            match holds {
                Ok(true) => {
                    kept.0.push(row);
                    kept.1.push(partner);
                }
                Ok(false) => {}
                Err(error) => failed.push((row as usize, error)),
            }
        }
        Ok(kept)
    }

    fn holds(&self, sides: &[Packed; 2], left: &[u8], right: &[u8]) -> Result<std::result::Result<bool, String>> {
        let row = |side: usize| Some(if side == LEFT { left } else { right });
        let columns = self.columns.iter().map(|&(side, column)| sides[side].column(column, [row(side)].into_iter()));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let batch = record_batch(self.schema.clone(), columns, 1)
            .map_err(|e| Error::fatal("plan bug: a condition over columns of another type").because(e))?;
        let value = match self.expr.evaluate(&batch).and_then(|value| value.into_array(1)) {
            Ok(value) => value,
            Err(e) => return Ok(Err(super::calc::explain(&e))),
        };
        let value = value.as_boolean_opt().ok_or_else(|| Error::fatal("plan bug: a condition that is no BOOLEAN"))?;
        Ok(Ok(value.is_valid(0) && value.value(0)))
    }
}
