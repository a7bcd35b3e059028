//! Subqueries in GROUP BY and in the arguments of aggregates: their values are columns of the rows that are grouped.
//!
//! Invariant: a subquery that is written twice is one column; the columns of the result keep their names.

use datafusion_common::Result as PlanResult;
use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder};
use std::sync::Arc;

/// Puts them below.
pub(super) fn rewrite(plan: LogicalPlan) -> PlanResult<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Aggregate(aggregate) => below(aggregate),
        other => Ok(Transformed::no(other)),
    });
    rewritten.data()
}

fn below(aggregate: Aggregate) -> PlanResult<Transformed<LogicalPlan>> {
    let mut asked: Vec<Expr> = Vec::new();
    let mut as_column = |expr: Expr| match expr {
        Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) => {
            let place = asked.iter().position(|known| *known == expr).unwrap_or_else(|| {
                asked.push(expr);
                asked.len() - 1
            });
            Ok(Transformed::yes(datafusion_expr::col(name(place))))
        }
        other => Ok(Transformed::no(other)),
    };
    let mut replaced = |exprs: &[Expr]| exprs.iter().map(|expr| expr.clone().transform_down(&mut as_column).data()).collect();
    let (groups, calls): (PlanResult<Vec<Expr>>, PlanResult<Vec<Expr>>) = (replaced(&aggregate.group_expr), replaced(&aggregate.aggr_expr));
    if asked.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let own = aggregate.input.schema().columns().into_iter().map(Expr::Column);
    let columns: Vec<Expr> = own.chain(asked.into_iter().enumerate().map(|(place, expr)| expr.alias(name(place)))).collect();
    let rows = LogicalPlanBuilder::from(Arc::unwrap_or_clone(aggregate.input)).project(columns)?;
    let grouped = rows.aggregate(groups?, calls?)?;
    let found = grouped.schema().columns().into_iter().zip(aggregate.schema.iter());
    let named = found.map(|(column, (table, field))| Expr::Column(column).alias_qualified(table.cloned(), field.name()));
    let named: Vec<Expr> = named.collect();
    grouped.project(named)?.build().map(Transformed::yes)
}

fn name(place: usize) -> String {
    format!("subquery {place}")
}
