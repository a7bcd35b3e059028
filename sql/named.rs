//! Columns by their names: those of a view, and those of an insert.
//!
//! Invariant: a column has one value, and each value one column.

use crate::catalog::Table;
use crate::error::{SqlError, SqlResult};
use crate::parser::Insert;
use crate::plan::{Functions, compute};
use arrow::datatypes::Schema;
use datafusion_common::{Column, DFSchema, Result as PlanResult, ScalarValue};
use datafusion_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit};
use datafusion_sql::sqlparser::ast::Ident;
use std::sync::Arc;

/// Names for the columns of a view.
pub(crate) fn renamed(plan: LogicalPlan, columns: &[Ident]) -> SqlResult<LogicalPlan> {
    let schema = plan.schema().clone();
    if columns.len() != schema.fields().len() {
        return Err(
            SqlError::new(format!("the view names {} columns, its query has {}", columns.len(), schema.fields().len())).at(columns[0].span)
        );
    }
    let exprs: Vec<_> = columns.iter().enumerate().map(|(i, name)| column(&schema, i).alias(&name.value)).collect();
    build(LogicalPlanBuilder::from(plan).project(exprs))
}

/// The columns of an insert in the table's order, with those that are the same in all rows; those it does not name are NULL.
pub(crate) fn in_order(plan: LogicalPlan, insert: &Insert, table: &Table, functions: &Functions) -> SqlResult<LogicalPlan> {
    let partition = insert.partition.iter().map(|(column, _)| column.clone()).collect::<Vec<_>>();
    let is_fixed = |name: &str| partition.iter().any(|column| column.value == name);
    let mut columns = insert.columns.clone();
    if columns.is_empty() {
        let written =
            table.schema.fields().iter().zip(&table.columns).filter(|(field, column)| column.is_written() && !is_fixed(field.name()));
        columns.extend(written.map(|(field, _)| Ident { span: insert.table.span, ..Ident::new(field.name()) }));
    }
    columns.extend(partition);
    let fixed = insert.partition.len();
    let plan = with_partition(plan, insert, table, functions)?;
    let schema = plan.schema().clone();
    if columns.len() != schema.fields().len() {
        return Err(SqlError::new(format!("{} columns are named, the query has {}", columns.len() - fixed, schema.fields().len() - fixed))
            .at(columns[0].span));
    }
    for (i, ident) in columns.iter().enumerate() {
        if columns[..i].iter().any(|before| before.value == ident.value) {
            return Err(SqlError::new(format!("column {:?} is named twice", ident.value))
                .at(ident.span)
                .help("name each column once, in the order of the query's"));
        }
        if table.schema.index_of(&ident.value).is_err() {
            let names = table.schema.fields().iter().map(|f| f.name().as_str());
            return Err(SqlError::new(format!("column {:?} not found in {}", ident.value, table.name))
                .at(ident.span)
                .nearest(&ident.value, names));
        }
    }
    let mut exprs = Vec::new();
    for (i, field) in table.schema.fields().iter().enumerate() {
        if !table.columns[i].is_written() {
            continue;
        }
        exprs.push(match columns.iter().position(|c| c.value == *field.name()) {
            Some(at) => column(&schema, at).alias(field.name()),
            None if field.is_nullable() => lit(ScalarValue::Null).alias(field.name()),
            None => return Err(SqlError::new(format!("column {:?} is NOT NULL and gets no value", field.name())).at(columns[0].span)),
        });
    }
    build(LogicalPlanBuilder::from(plan).project(exprs))
}

/// The rows with the columns that `PARTITION (k = 'v')` says.
fn with_partition(plan: LogicalPlan, insert: &Insert, table: &Table, functions: &Functions) -> SqlResult<LogicalPlan> {
    if insert.partition.is_empty() {
        return Ok(plan);
    }
    let mut exprs: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
    for (name, value) in &insert.partition {
        let by = || table.partitioned_by.iter().map(|&i| table.schema.field(i).name().as_str());
        if !by().any(|known| known == name.value) {
            let is = format!("\"{}\" is not PARTITIONED BY {:?}", table.name, name.value);
            return Err(SqlError::new(is).at(name.span).nearest(&name.value, by()).help("give the column its value in SELECT"));
        }
        let (value, _) = compute(value, &Arc::new(Schema::empty()), functions).map_err(|e| e.or_at(Some(name.span)))?;
        exprs.push(value.alias(format!("PARTITION {}", name.value)));
    }
    build(LogicalPlanBuilder::from(plan).project(exprs))
}

fn column(schema: &DFSchema, i: usize) -> Expr {
    Expr::Column(Column::from(schema.qualified_field(i)))
}

fn build(builder: PlanResult<LogicalPlanBuilder>) -> SqlResult<LogicalPlan> {
    builder.and_then(LogicalPlanBuilder::build).map_err(SqlError::of_planner)
}
