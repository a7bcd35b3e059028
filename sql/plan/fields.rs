//! Fields of rows: `bid.price` is a column named `price`, as in Flink; items of arrays and maps.
//!
//! Invariant: what a field is named changes nothing in what it is.

use arrow::datatypes::{DataType, Field};
use datafusion_common::{Column, DFSchema, Result, TableReference};
use datafusion_expr::planner::{ExprPlanner, PlannerResult, RawFieldAccessExpr};
use datafusion_expr::{Expr, ExprSchemable, GetFieldAccess, ScalarUDF, lit};
use std::sync::Arc;

/// Plans `column.field.field` and `items[1]`.
#[derive(Debug)]
pub(super) struct FieldPlanner {
    /// An item of an array or a map.
    pub(super) item: Arc<ScalarUDF>,
}

impl ExprPlanner for FieldPlanner {
    fn plan_field_access(&self, access: RawFieldAccessExpr, schema: &DFSchema) -> Result<PlannerResult<RawFieldAccessExpr>> {
        if let GetFieldAccess::NamedStructField { name } = &access.field_access
            && matches!(access.expr.get_type(schema), Ok(DataType::Map(..)))
        {
            return Ok(PlannerResult::Planned(self.item.call(vec![access.expr.clone(), lit(name.clone())])));
        }
        Ok(match access {
            RawFieldAccessExpr { field_access: GetFieldAccess::ListIndex { key }, expr } => {
                PlannerResult::Planned(self.item.call(vec![expr, *key]))
            }
            other => PlannerResult::Original(other),
        })
    }

    fn plan_compound_identifier(
        &self,
        field: &Field,
        qualifier: Option<&TableReference>,
        nested_names: &[String],
    ) -> Result<PlannerResult<Vec<Expr>>> {
        let column = Expr::Column(Column::from((qualifier, field)));
        let get = |row: Expr, name: &String| datafusion_functions::core::get_field().call(vec![row, lit(name.as_str())]);
        let expr = nested_names.iter().fold(column, get);
        Ok(PlannerResult::Planned(match nested_names.last() {
            Some(name) => expr.alias(name),
            None => expr,
        }))
    }
}
