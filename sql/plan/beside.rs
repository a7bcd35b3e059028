//! `LATERAL (SELECT e * t.x FROM UNNEST(t.items) AS u (e) WHERE ..)`: a query that reads nothing but the row beside it.
//!
//! Such a query is a part of the one around: what it reads are the rows beside, with their elements.
//!
//! Invariant: a row beside is there as often as the query has rows for it; of LEFT JOIN a row for which it has none stays, beside NULLs,
//! or the join is refused.

use super::unnest::Unnested;
use crate::error::SqlError;
use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion_common::{Column, JoinType, Result as PlanResult, ScalarValue, TableReference};
use datafusion_expr::{Expr, Filter, Join, LogicalPlan, LogicalPlanBuilder, Projection, SubqueryAlias};
use std::sync::Arc;

/// The join as one query over the rows beside; none if the query on its right reads a table.
pub(super) fn joined(join: &Join) -> PlanResult<Option<LogicalPlan>> {
    if !is_beside(&join.right, false) {
        return Ok(None);
    }
    let outer = match join.join_type {
        _ if !join.on.is_empty() => return Ok(None),
        JoinType::Inner => false,
        JoinType::Left if join.filter.as_ref().is_none_or(is_true) && is_plain(&join.right) => true,
        JoinType::Left => {
            let what = "LEFT JOIN LATERAL (SELECT ..) of elements with a condition or expressions";
            let instead = "CROSS JOIN LATERAL (..); or LEFT JOIN UNNEST(..) ON TRUE, with the expressions in SELECT";
            let why = "a row for which there are none has to stay";
            return Err(SqlError::unsupported(what, why, instead).into_planner());
        }
        _ => return Ok(None),
    };
    let rows = Rows { beside: join.left.as_ref(), outer };
    let plan = rows.of(&join.right)?;
    match join.filter.clone().filter(|filter| !is_true(filter)) {
        Some(filter) => Filter::try_new(filter, Arc::new(plan)).map(|filter| Some(LogicalPlan::Filter(filter))),
        None => Ok(Some(plan)),
    }
}

fn is_true(filter: &Expr) -> bool {
    matches!(filter, Expr::Literal(ScalarValue::Boolean(Some(true)), _))
}

/// Whether a plan is a subquery (`within` one) of nothing but filters and projections over elements of the row around, or over nothing.
fn is_beside(plan: &LogicalPlan, within: bool) -> bool {
    match plan {
        LogicalPlan::Subquery(subquery) => is_beside(&subquery.subquery, true),
        LogicalPlan::SubqueryAlias(alias) => is_beside(&alias.input, within),
        LogicalPlan::Projection(projection) => within && is_beside(&projection.input, true),
        LogicalPlan::Filter(filter) => within && is_beside(&filter.input, true),
        LogicalPlan::EmptyRelation(nothing) => within && nothing.produce_one_row,
        other => within && Unnested::loose(other).is_some(),
    }
}

/// Whether it gives elements as they are.
fn is_plain(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Subquery(subquery) => is_plain(&subquery.subquery),
        LogicalPlan::SubqueryAlias(alias) => is_plain(&alias.input),
        LogicalPlan::Projection(projection) => {
            let is_column = |expr: &Expr| matches!(expr.clone().unalias(), Expr::Column(_));
            projection.expr.iter().all(is_column) && is_plain(&projection.input)
        }
        other => Unnested::loose(other).is_some(),
    }
}

struct Rows<'a> {
    beside: &'a LogicalPlan,
    outer: bool,
}

impl Rows<'_> {
    /// The columns of the rows beside, and behind them those of a plan.
    fn of(&self, plan: &LogicalPlan) -> PlanResult<LogicalPlan> {
        match plan {
            LogicalPlan::Subquery(subquery) => self.of(&subquery.subquery),
            LogicalPlan::SubqueryAlias(SubqueryAlias { input, alias, .. }) => {
                let own = input
                    .schema()
                    .iter()
                    .map(|(table, field)| Expr::Column(Column::from((table, field))).alias_qualified(Some(alias.clone()), field.name()));
                self.project(self.of(input)?, own.collect())
            }
            LogicalPlan::Projection(Projection { expr, input, schema, .. }) => {
                let own = expr.iter().zip(schema.iter()).map(|(expr, (table, field))| named(of_row(expr.clone())?, table, field.name()));
                self.project(self.of(input)?, own.collect::<PlanResult<_>>()?)
            }
            LogicalPlan::Filter(Filter { predicate, input, .. }) => {
                Filter::try_new(of_row(predicate.clone())?, Arc::new(self.of(input)?)).map(LogicalPlan::Filter)
            }
            LogicalPlan::EmptyRelation(_) => Ok(self.beside.clone()),
            other => match Unnested::loose(other) {
                Some(elements) => elements.beside(self.beside.clone(), self.outer),
                None => Ok(other.clone()),
            },
        }
    }

    fn project(&self, input: LogicalPlan, own: Vec<Expr>) -> PlanResult<LogicalPlan> {
        let beside = self.beside.schema().columns().into_iter().map(Expr::Column);
        LogicalPlanBuilder::from(input).project(beside.chain(own))?.build()
    }
}

fn named(expr: Expr, table: Option<&TableReference>, name: &str) -> PlanResult<Expr> {
    Ok(match &expr {
        Expr::Column(column) if column.relation.as_ref() == table && column.name == name => expr,
        _ => expr.unalias().alias_qualified(table.cloned(), name),
    })
}

/// Columns of the row around as those of the rows beside.
fn of_row(expr: Expr) -> PlanResult<Expr> {
    let of_row = |expr: Expr| match expr {
        Expr::OuterReferenceColumn(_, column) => Ok(Transformed::yes(Expr::Column(column))),
        other => Ok(Transformed::no(other)),
    };
    expr.transform(of_row).data()
}
