//! UNNEST and LATERAL TABLE: rows beside the elements of their arrays, or beside those that a function makes of them.
//!
//! Invariant: the columns of the result are those of the rows, then those of an element.

use super::{Lowered, Lowering, Place, nullable, physical};
use crate::error::{SqlError, SqlResult};
use crate::kernels::explode::Explode;
use crate::plan::{Of, Unnested};
use arrow::datatypes::{Field, Schema};
use datafusion_expr::logical_plan::UserDefinedLogicalNodeCore;
use std::sync::Arc;
use waterwheel_engine::graph::{NodeNote, Routing};
use waterwheel_engine::operators::columns;

impl Lowering<'_> {
    pub(super) fn unnest(&mut self, node: &Unnested) -> SqlResult<Lowered> {
        let Some(rows) = node.input() else {
            let (what, why, instead) = match node.of() {
                Of::Array => ("UNNEST", "its elements are those of an array of the row beside", "UNNEST(t.array) AS e (x)"),
                Of::Function => ("LATERAL TABLE", "its rows are those of the row beside", "LATERAL TABLE(f(t.x)) AS s (a)"),
            };
            return Err(SqlError::unsupported(&format!("{what} by itself"), why, &format!("FROM t CROSS JOIN {instead}")));
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
        let (kind, none) = match node.of() {
            Of::Array => ("unnest", ", rows without elements too"),
            Of::Function => ("table_function", ", rows of which it makes none too"),
        };
        let kept = if node.outer() { none } else { "" };
        let note = NodeNote { detail: format!("{}{kept}", node.array()), ..NodeNote::default() };
        let unnested = self.add(kind, factory, &[(input.node, Routing::Forward)], note);
        Ok(Lowered { node: unnested, schema: node.schema().clone(), places, key: None, ..input })
    }
}
