//! The order of arrival: what `ORDER BY p` means where p is PROCTIME().
//!
//! The clock is in no batch, so rows are ordered without it; behind that it stands in its place again, for a window of the clock.
//!
//! Invariant: only rows that come are ordered so: one that is taken back would have another time.

use super::{Lowered, Lowering, Place, column_of, windows};
use crate::error::{SqlError, SqlResult};
use arrow::datatypes::SchemaRef;
use datafusion_common::DFSchema;
use datafusion_expr::Expr;
use datafusion_expr::expr::Sort;
use std::sync::Arc;

impl Lowered {
    /// Whether rows are to be in the order of arrival, upwards or downwards.
    pub(super) fn by_arrival(&self, order: &[Sort]) -> Option<bool> {
        let first = order.first()?;
        let is_clock =
            windows::is_clock(&first.expr) || column_of(&first.expr, &self.schema).is_some_and(|i| self.places[i] == Place::Clock);
        is_clock.then_some(first.asc)
    }
}

/// Columns as they were before the clock was taken away.
pub(super) struct Clocks(Vec<Place>);

impl Clocks {
    /// Where a column of the rows without a clock is with it.
    fn back(&self, column: usize) -> usize {
        let rows = (0..self.0.len()).filter(|i| self.0[*i] != Place::Clock);
        let all: Vec<usize> = rows.collect();
        all.get(column).copied().unwrap_or(column + self.0.len() - all.len())
    }

    /// The same with the clock in its place; columns behind those of the rows stay behind them.
    pub(super) fn put_back(&self, lowered: Lowered, schema: &Arc<DFSchema>) -> Lowered {
        let mut places = vec![Place::Clock; schema.fields().len()];
        for column in 0..lowered.schema.fields().len() {
            places[self.back(column)] = lowered.places[column];
        }
        let key = lowered.key.as_ref().map(|key| key.iter().map(|column| self.back(*column)).collect());
        Lowered { schema: schema.clone(), places, key, ..lowered }
    }
}

impl Lowering<'_> {
    /// Rows in the order of arrival: all their columns but the clock.
    pub(super) fn without_clock(&mut self, input: Lowered) -> SqlResult<(Lowered, Clocks)> {
        if input.updating {
            let why = "a row that is taken back would have another time";
            return Err(SqlError::unsupported("ORDER BY PROCTIME() over rows that change", why, "a column of the rows"));
        }
        if input.pending.is_some() || input.places.contains(&Place::AsOf) {
            let why = "its rows have left time already";
            return Err(SqlError::unsupported("ORDER BY PROCTIME() over a window", why, "aggregate in the window first"));
        }
        let kept: Vec<usize> = (0..input.places.len()).filter(|i| input.places[*i] != Place::Clock).collect();
        let field = |i: &usize| {
            let (table, field) = input.schema.qualified_field(*i);
            (table.cloned(), field.clone())
        };
        let schema = DFSchema::new_with_metadata(kept.iter().map(field).collect(), Default::default()).map_err(SqlError::of_planner)?;
        let exprs: Vec<Expr> = kept.iter().map(|i| super::column_expr(&input.schema, *i)).collect();
        let columns: SchemaRef = super::arrow_schema(&schema);
        let node = self.calc(&input, None, Some(&exprs), columns, "project")?;
        Ok((Lowered::plain(node, Arc::new(schema), false), Clocks(input.places)))
    }
}
