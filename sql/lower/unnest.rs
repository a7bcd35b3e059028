//! UNNEST: rows beside the elements of their arrays.
//!
//! Invariant: the columns of the result are those of the rows, then those of an element.

use super::{Lowered, Lowering, Place, nullable, physical};
use crate::error::{SqlError, SqlResult};
use crate::kernels::explode::Explode;
use crate::plan::Unnested;
use arrow::datatypes::{Field, Schema};
use datafusion_expr::logical_plan::UserDefinedLogicalNodeCore;
use std::sync::Arc;
use waterwheel_engine::graph::{NodeNote, Routing};
use waterwheel_engine::operators::columns;

impl Lowering<'_> {
    pub(super) fn unnest(&mut self, node: &Unnested) -> SqlResult<Lowered> {
        let Some(rows) = node.input() else {
            return Err(SqlError::unsupported(
                "UNNEST by itself",
                "its elements are those of an array of the row beside",
                "FROM t CROSS JOIN UNNEST(t.array) AS e (x)",
            ));
        };
        let mut input = self.lower(rows)?;
        if self.uses_windows(node.array(), &input) {
            input = self.materialised(input)?;
        }
        let from = input.batch_schema()?;
        let array = physical(node.array(), &from)?;
        let own = input.schema.fields().len();
        let of_elements = node.schema().fields().iter().skip(own);
        let fields: Vec<Field> = from.fields().iter().chain(of_elements).map(|field| nullable(field)).collect();
        let width = from.fields().len();
        let places = input.places.iter().copied().chain((width..fields.len()).map(Place::Batch)).collect();
        let kernel = Explode { array, outer: node.outer(), with_place: node.with_place(), schema: Arc::new(Schema::new(fields)) };
        let factory = columns(Arc::new(move || Ok(Box::new(kernel.clone()))));
        let kept = if node.outer() { ", rows without elements too" } else { "" };
        let note = NodeNote { detail: format!("{}{kept}", node.array()), ..NodeNote::default() };
        let unnested = self.add("unnest", factory, &[(input.node, Routing::Forward)], note);
        Ok(Lowered { node: unnested, schema: node.schema().clone(), places, key: None, ..input })
    }
}
