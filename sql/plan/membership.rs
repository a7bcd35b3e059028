//! IN and EXISTS where they are no semi or anti join: within OR, behind NOT IN with NULLs, as values in SELECT.
//!
//! They become counts, which are joins like any other value of a subquery: `EXISTS (q)` is that the rows of q are more than none.
//! `x IN (q)` is true if there is a row of q that is equal to x, else NULL if x or a row of q is NULL and there is one at all.
//!
//! Invariant: the three values of SQL, also where DataFusion's mark joins have but two.

use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, Result as PlanResult, Spans};
use datafusion_expr::expr::{BinaryExpr, Exists, InSubquery};
use datafusion_expr::utils::{conjunction, split_conjunction_owned};
use datafusion_expr::{Expr, ExprSchemable, Filter, LogicalPlan, LogicalPlanBuilder, Operator, Projection, Subquery, lit, not, when};
use datafusion_functions::core::expr_fn::coalesce;
use datafusion_functions_aggregate::expr_fn::count;
use datafusion_optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use std::sync::Arc;

/// The column of a subquery that IN compares with.
const MEMBER: &str = "member";

/// The rule.
#[derive(Debug, Default)]
pub(super) struct Memberships;

impl OptimizerRule for Memberships {
    fn name(&self) -> &str {
        "memberships"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> PlanResult<Transformed<LogicalPlan>> {
        rewritten(plan)
    }
}

fn rewritten(plan: LogicalPlan) -> PlanResult<Transformed<LogicalPlan>> {
    let plan = plan.map_subqueries(|subquery| subquery.transform_down(rewritten))?.data;
    match plan {
        LogicalPlan::Filter(filter) if asks(&filter.predicate)? => {
            let Filter { predicate, input, .. } = filter;
            let parts = split_conjunction_owned(predicate).into_iter().map(|part| of_condition(part, &input));
            let predicate = conjunction(parts.collect::<PlanResult<Vec<_>>>()?).unwrap_or_else(|| lit(true));
            Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(predicate, input)?)))
        }
        LogicalPlan::Projection(projection) if any_asks(&projection.expr)? => {
            let Projection { expr, input, schema, .. } = projection;
            let named = |(i, expr): (usize, Expr)| {
                let (table, field) = schema.qualified_field(i);
                if !asks(&expr)? {
                    return Ok(expr);
                }
                Ok(counted(expr.unalias(), &input, false)?.alias_qualified(table.cloned(), field.name()))
            };
            let exprs = expr.into_iter().enumerate().map(named).collect::<PlanResult<Vec<_>>>()?;
            Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(exprs, input)?)))
        }
        other => Ok(Transformed::no(other)),
    }
}

fn any_asks(exprs: &[Expr]) -> PlanResult<bool> {
    exprs.iter().try_fold(false, |any, expr| Ok(any || asks(expr)?))
}

/// Whether there is an IN or EXISTS in an expression.
fn asks(expr: &Expr) -> PlanResult<bool> {
    expr.exists(|e| Ok(matches!(e, Expr::Exists(_) | Expr::InSubquery(_))))
}

/// One of the conditions that must all be true: semi and anti joins are left to DataFusion.
fn of_condition(part: Expr, input: &LogicalPlan) -> PlanResult<Expr> {
    match &part {
        _ if !asks(&part)? => return Ok(part),
        Expr::Not(inner) if is_join(inner, true, input)? => return Ok(part),
        _ if is_join(&part, false, input)? => return Ok(part),
        _ => {}
    }
    counted(part, input, true)
}

/// Whether a condition by itself, or what is not to be true, is a semi or anti join with something to be equal.
fn is_join(expr: &Expr, not: bool, input: &LogicalPlan) -> PlanResult<bool> {
    Ok(match expr {
        Expr::Exists(of) => !of.subquery.outer_ref_columns.is_empty(),
        Expr::InSubquery(of) => !of.expr.column_refs().is_empty() && (of.negated == not || !may_be_null(of, input)?),
        _ => false,
    })
}

/// Whether NULL is among what IN compares.
fn may_be_null(of: &InSubquery, input: &LogicalPlan) -> PlanResult<bool> {
    let values = of.subquery.subquery.schema().fields();
    Ok(of.expr.nullable(input.schema())? || values.iter().any(|field| field.is_nullable()))
}

/// The same with counts; `null_is_false` where nobody sees which of the two it is.
fn counted(expr: Expr, input: &LogicalPlan, null_is_false: bool) -> PlanResult<Expr> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Or | Operator::And), right }) => {
            let (left, right) = (counted(*left, input, null_is_false)?, counted(*right, input, null_is_false)?);
            Ok(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right))))
        }
        Expr::Exists(Exists { subquery, negated }) => {
            let exists = more_than_none(rows(Arc::unwrap_or_clone(subquery.subquery), subquery.outer_ref_columns)?);
            Ok(if negated { not(exists) } else { exists })
        }
        Expr::InSubquery(of) => {
            let negated = of.negated;
            let is_in = is_in(of, input, null_is_false && !negated)?;
            Ok(if negated { not(is_in) } else { is_in })
        }
        other => other.map_children(|child| counted_child(child, input)).map(|e| e.data),
    }
}

fn counted_child(expr: Expr, input: &LogicalPlan) -> PlanResult<Transformed<Expr>> {
    if asks(&expr)? { counted(expr, input, false).map(Transformed::yes) } else { Ok(Transformed::no(expr)) }
}

fn is_in(of: InSubquery, input: &LogicalPlan, null_is_false: bool) -> PlanResult<Expr> {
    let InSubquery { expr, subquery: Subquery { subquery, outer_ref_columns, .. }, .. } = of;
    let of_value_nullable = subquery.schema().field(0).is_nullable();
    let subquery = Arc::new(named(Arc::unwrap_or_clone(subquery))?);
    let value = Expr::Column(Column::new_unqualified(MEMBER));
    let mut outer = outer_ref_columns.clone();
    let asked = expr.clone().transform(|e| match e {
        Expr::Column(column) => {
            let field = input.schema().field(input.schema().index_of_column(&column)?);
            let column = Expr::OuterReferenceColumn(field.clone(), column);
            outer.push(column.clone());
            Ok(Transformed::yes(column))
        }
        other => Ok(Transformed::no(other)),
    });
    let equal = LogicalPlanBuilder::from(Arc::unwrap_or_clone(subquery.clone())).filter(value.clone().eq(asked?.data))?.build()?;
    let found = more_than_none(rows(equal, outer)?);
    if null_is_false {
        return Ok(found);
    }
    let mut unknown = Vec::new();
    if expr.nullable(input.schema())? {
        let any = more_than_none(rows(Arc::unwrap_or_clone(subquery.clone()), outer_ref_columns.clone())?);
        unknown.push(expr.is_null().and(any));
    }
    if of_value_nullable {
        let nulls = LogicalPlanBuilder::from(Arc::unwrap_or_clone(subquery)).filter(value.is_null())?.build()?;
        unknown.push(more_than_none(rows(nulls, outer_ref_columns)?));
    }
    match unknown.into_iter().reduce(Expr::or) {
        None => Ok(found),
        Some(unknown) => when(found, lit(true)).when(unknown, lit(datafusion_common::ScalarValue::Boolean(None))).otherwise(lit(false)),
    }
}

/// The same rows, with a name for what they are: columns that they are tied by may have the same.
fn named(subquery: LogicalPlan) -> PlanResult<LogicalPlan> {
    match subquery {
        LogicalPlan::Projection(Projection { mut expr, input, .. }) if expr.len() == 1 => {
            let value = expr.swap_remove(0).unalias().alias(MEMBER);
            Projection::try_new(vec![value], input).map(LogicalPlan::Projection)
        }
        other => {
            let value = Expr::Column(other.schema().columns().swap_remove(0)).alias(MEMBER);
            LogicalPlanBuilder::from(other).project(vec![value])?.build()
        }
    }
}

/// How many rows a subquery has, as a value.
fn rows(plan: LogicalPlan, outer_ref_columns: Vec<Expr>) -> PlanResult<Expr> {
    let counted = LogicalPlanBuilder::from(plan).aggregate(Vec::<Expr>::new(), vec![count(lit(1i64))])?.build()?;
    Ok(Expr::ScalarSubquery(Subquery { subquery: Arc::new(counted), outer_ref_columns, spans: Spans::new() }))
}

/// Before its first row, a count of all rows is not there yet.
fn more_than_none(rows: Expr) -> Expr {
    coalesce(vec![rows, lit(0i64)]).gt(lit(0i64))
}
