//! `upsert-kafka`, and changes as Debezium writes them, as a source: the newest record of a key is the row, one without a value, or
//! that says that it was deleted, takes it away.
//!
//! Records of a key are in one partition, so they come in order; the newest is kept, and what it changes leaves.
//!
//! Invariant: what has left adds up to the newest rows of all keys, whatever was left out or repeated in the topic.

use super::{Lowered, Lowering, arrow_schema, column_expr, nullable, size};
use crate::catalog::Table;
use crate::error::{SqlError, SqlResult};
use crate::kernels::keys::ColumnKeys;
use crate::kernels::newest::Newest;
use crate::kernels::packed::Packed;
use crate::parser::type_name;
use arrow::datatypes::{DataType, Schema};
use datafusion_common::DFSchema;
use datafusion_expr::Expr;
use std::sync::Arc;
use waterwheel_engine::graph::{Bound, EqualityClass, NodeNote, Routing, StateNote};
use waterwheel_engine::operators::{Grouping, group, key_columns};

/// Refuses tables that cannot be read by their key.
pub(super) fn check_upserts(table: &Table) -> SqlResult<()> {
    let name = &table.name;
    if table.primary_key.is_empty() {
        return Err(SqlError::new(format!("table \"{name}\": 'upsert-kafka' needs a PRIMARY KEY")).help("PRIMARY KEY (id) NOT ENFORCED"));
    }
    if !matches!(table.options.format(), None | Some("json" | "debezium-json")) {
        return Err(SqlError::unsupported(
            &format!("reading \"{name}\" in this format"),
            "rows by key are JSON",
            "'value.format' = 'json'",
        ));
    }
    let is_text = |i: &usize| *table.schema.field(*i).data_type() == DataType::Utf8;
    match (table.options.get("key.format"), &table.primary_key[..]) {
        (Some("raw"), [one]) if is_text(one) => Ok(()),
        (Some("raw"), _) => {
            Err(SqlError::new("'key.format' = 'raw' reads a key of one column of type STRING").help("'key.format' = 'json'"))
        }
        _ => Ok(()),
    }
}

impl Lowering<'_> {
    /// The rows of a table that are known by its key, of records in order; `read` are the table's columns in the batch, the
    /// first `wanted` of them those that the query looks at.
    pub(super) fn newest(&mut self, records: Lowered, table: &Table, read: &[usize], wanted: usize) -> SqlResult<Lowered> {
        let schema = arrow_schema(&records.schema);
        let packed = Packed::of(&schema, false).map_err(|name| {
            let kind = schema.field_with_name(&name).map_or(String::new(), |f| type_name(f.data_type()));
            SqlError::unsupported(
                &format!("column {name:?} of type {kind} of a table by key"),
                "such values are not kept yet",
                "declare the columns that are needed",
            )
        })?;
        let key: Vec<usize> = table.primary_key.iter().filter_map(|i| read.iter().position(|r| r == i)).collect();
        let glue = NodeNote { glue: true, ..NodeNote::default() };
        let keyed = self.add("key_by", key_columns(Arc::new(ColumnKeys(key.clone()))), &[(records.node, Routing::Forward)], glue);
        let note = NodeNote {
            detail: format!("newest row of each key of {}", table.name),
            state: vec![StateNote { what: format!("1 row a key{}", size::each(&records.schema)), bound: Bound::Unbounded }],
            class: vec![(EqualityClass::Converging, "rows that replace each other".into())],
            glue: false,
        };
        let factory = group(Grouping::default(), move || Ok(Newest::new(packed.clone(), schema.clone())));
        let node = self.add("newest", factory, &[(keyed, Routing::KeyGroup)], note);
        let rows = Lowered { key: Some(key), updating: true, node, ..records };
        if wanted == read.len() {
            return Ok(rows);
        }
        // The rest of the key was only to tell rows apart.
        let fields = rows.schema.iter().take(wanted).map(|(qualifier, field)| (qualifier.cloned(), field.clone())).collect();
        let schema = DFSchema::new_with_metadata(fields, Default::default()).map_err(SqlError::of_planner)?;
        let exprs: Vec<Expr> = (0..wanted).map(|i| column_expr(&rows.schema, i)).collect();
        let columns = Arc::new(Schema::new(schema.fields().iter().map(|f| nullable(f)).collect::<Vec<_>>()));
        let node = self.calc(&rows, None, Some(&exprs), columns, "project")?;
        Ok(Lowered::plain(node, Arc::new(schema), true))
    }
}
