//! LIMIT and ORDER BY within a query, in subqueries, sides of set operations, inserts: the first rows are those of a ROW_NUMBER.
//!
//! Without LIMIT the order of such rows means nothing, and without ORDER BY the first rows are the first to come.
//!
//! What a subquery asks of the row around it is asked before its LIMIT, and a join asks it behind: so each value that it is asked of
//! gets first rows of its own, `PARTITION BY`. The same is done for any ROW_NUMBER or other OVER in such a subquery; a table in brackets
//! within one is asked behind it as well.
//!
//! Invariant: identities of bags. A condition on the row around that is no equality stays where it is written, which is refused.

use super::functions::aggregate_of;
use crate::error::SqlError;
use arrow::datatypes::DataType;
use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, Result as PlanResult};
use datafusion_expr::expr::{BinaryExpr, WindowFunction};
use datafusion_expr::logical_plan::{FetchType, SkipType, Subquery};
use datafusion_expr::utils::{conjunction, split_conjunction_owned};
use datafusion_expr::{
    Aggregate, Distinct, Expr, ExprFunctionExt, Filter, Join, JoinType, Limit, LogicalPlan, LogicalPlanBuilder, Operator, Projection, Sort,
    SubqueryAlias, Window, WindowFunctionDefinition, WindowUDF, lit,
};
use std::sync::Arc;

/// The number of a row: without an order that of its arrival.
pub(crate) const NUMBER: &str = "number of a row";

/// Rewrites all but the ORDER BY of the whole, which is for who looks at the rows.
pub(super) fn rewrite(plan: LogicalPlan, row_number: &Arc<WindowUDF>) -> PlanResult<LogicalPlan> {
    if !is_ordered(&plan) {
        return within(plan, row_number);
    }
    let plan = plan.map_expressions(|expr| expr.transform_down(of_subquery))?.data;
    let plan = plan.map_subqueries(|subquery| within(subquery, row_number).map(Transformed::yes))?.data;
    plan.map_children(|input| rewrite(input, row_number).map(Transformed::yes)).data()
}

fn within(plan: LogicalPlan, row_number: &Arc<WindowUDF>) -> PlanResult<LogicalPlan> {
    let numbered = plan.transform_down_with_subqueries(|node| numbered(node, row_number)).data()?;
    let behind = numbered.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Window(window) => asked_behind(window),
        LogicalPlan::SubqueryAlias(_) => asked_of_alias(node),
        other => check(&other).map(|()| Transformed::no(other)),
    });
    behind.data()
}

fn numbered(node: LogicalPlan, row_number: &Arc<WindowUDF>) -> PlanResult<Transformed<LogicalPlan>> {
    match node {
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => {
            numbered(Arc::unwrap_or_clone(sort.input), row_number).map(|plan| Transformed::yes(plan.data))
        }
        LogicalPlan::Limit(limit) => first_of(&limit, (*limit.input).clone(), row_number).map(Transformed::yes),
        other => other.map_expressions(|expr| expr.transform_down(of_subquery)),
    }
}

/// A LIMIT at the end of a subquery, where no more than that is asked of it.
fn of_subquery(expr: Expr) -> PlanResult<Transformed<Expr>> {
    Ok(match expr {
        // The first rows are there if there are any.
        Expr::Exists(mut exists) => match &*exists.subquery.subquery {
            LogicalPlan::Limit(limit) if first_rows(limit)?.is_some_and(|(skip, fetch)| skip == 0 && fetch > 0) => {
                exists.subquery.subquery = limit.input.clone();
                Transformed::yes(Expr::Exists(exists))
            }
            _ => Transformed::no(Expr::Exists(exists)),
        },
        // The value of one row at most: to be a join it is an aggregate.
        Expr::ScalarSubquery(subquery) => match &*subquery.subquery {
            LogicalPlan::Limit(limit) if first_rows(limit)?.is_some_and(|(_, fetch)| fetch == 1) => {
                Transformed::yes(Expr::ScalarSubquery(single(subquery)?))
            }
            _ => Transformed::no(Expr::ScalarSubquery(subquery)),
        },
        other => Transformed::no(other),
    })
}

fn single(subquery: Subquery) -> PlanResult<Subquery> {
    let plan = subquery.subquery.as_ref().clone();
    let (table, field) = plan.schema().qualified_field(0);
    let (value, name) = (Expr::Column(Column::from((table, field))), field.name().clone());
    let kept = match field.data_type() {
        DataType::Struct(_) | DataType::List(_) | DataType::Map(..) | DataType::Boolean => "first_value",
        _ => "max",
    };
    let call = aggregate_of(kept).ok_or_else(|| SqlError::new(format!("{kept} is not known")).into_planner())?.call(vec![value]);
    let of_one = LogicalPlanBuilder::from(plan).aggregate(Vec::<Expr>::new(), vec![call])?;
    let value = Expr::Column(of_one.schema().columns().swap_remove(0));
    Ok(Subquery { subquery: Arc::new(of_one.project(vec![value.alias(name)])?.build()?), ..subquery })
}

/// How many rows are left out, and how many are wanted then; none if all others are.
fn first_rows(limit: &Limit) -> PlanResult<Option<(usize, usize)>> {
    let computed = || SqlError::unsupported("a computed LIMIT or OFFSET", "it is a number", "LIMIT 10").into_planner();
    let SkipType::Literal(skip) = limit.get_skip_type()? else { return Err(computed()) };
    match limit.get_fetch_type()? {
        FetchType::Literal(fetch) => Ok(fetch.map(|fetch| (skip, fetch))),
        FetchType::UnsupportedExpr => Err(computed()),
    }
}

fn first_of(limit: &Limit, input: LogicalPlan, row_number: &Arc<WindowUDF>) -> PlanResult<LogicalPlan> {
    let (input, order) = match input {
        LogicalPlan::Projection(projection) if is_ordered(&projection.input) => {
            let input = first_of(limit, Arc::unwrap_or_clone(projection.input), row_number)?;
            let projection = Projection::try_new_with_schema(projection.expr, Arc::new(input), projection.schema)?;
            return Ok(LogicalPlan::Projection(projection));
        }
        LogicalPlan::Sort(Sort { input, expr, fetch: None }) => (Arc::unwrap_or_clone(input), expr),
        other => (other, Vec::new()),
    };
    let Some((skip, fetch)) = first_rows(limit)? else {
        let (why, instead) =
            ("all other rows change their place with each one that comes", "OFFSET at the end of a query, or LIMIT n OFFSET m");
        return Err(SqlError::unsupported("OFFSET without LIMIT here", why, instead).into_planner());
    };
    let (skip, last) = (as_number(skip), as_number(skip.saturating_add(fetch)));
    let columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    let number = Expr::from(WindowFunction::new(WindowFunctionDefinition::WindowUDF(row_number.clone()), Vec::new()));
    let number = if order.is_empty() { number } else { number.order_by(order).build()? }.alias(NUMBER);
    let is_first = Expr::Column(Column::new_unqualified(NUMBER)).lt_eq(lit(last));
    let is_wanted = if skip > 0 { is_first.and(Expr::Column(Column::new_unqualified(NUMBER)).gt(lit(skip))) } else { is_first };
    LogicalPlanBuilder::from(input).window(vec![number])?.filter(is_wanted)?.project(columns)?.build()
}

fn as_number(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

fn is_ordered(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => is_ordered(&projection.input),
        other => matches!(other, LogicalPlan::Sort(_)),
    }
}

/// Refuses what the planner would ask behind something that makes another question of it.
fn check(plan: &LogicalPlan) -> PlanResult<()> {
    match plan {
        LogicalPlan::Join(join) => {
            let (left, right) = (asks_below(&join.left), asks_below(&join.right));
            let is_optional = match join.join_type {
                JoinType::Inner => false,
                JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => right,
                JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => left,
                JoinType::Full => left || right,
            };
            if is_optional {
                let why = "a row that it is not true of would be left out behind the join, not beside NULLs";
                let what = "a condition on the row around a subquery, on a side of an outer join";
                return Err(SqlError::unsupported(what, why, "the condition in WHERE, on the other side or an inner join").into_planner());
            }
            Ok(())
        }
        // Rows that are one are one for each value that is asked about.
        LogicalPlan::Subquery(lateral) => lateral
            .subquery
            .apply(|node| {
                let input = match node {
                    LogicalPlan::Subquery(_) => return Ok(TreeNodeRecursion::Jump),
                    LogicalPlan::Distinct(Distinct::All(input)) => input,
                    LogicalPlan::Aggregate(aggregate) if aggregate.aggr_expr.is_empty() => &aggregate.input,
                    _ => return Ok(TreeNodeRecursion::Continue),
                };
                lifted(input.as_ref().clone())?.of_row_around.iter().try_for_each(|condition| own_side(condition).map(drop))?;
                Ok(TreeNodeRecursion::Continue)
            })
            .map(drop),
        _ => Ok(()),
    }
}

/// What is asked of the row around a subquery below an OVER, asked behind it.
fn asked_behind(window: Window) -> PlanResult<Transformed<LogicalPlan>> {
    if !asks_below(&window.input) {
        return Ok(Transformed::no(LogicalPlan::Window(window)));
    }
    let wanted: Vec<Expr> = window.schema.columns().into_iter().map(Expr::Column).collect();
    let Asked { plan, of_row_around } = lifted(Arc::unwrap_or_clone(window.input))?;
    let by = of_row_around.iter().map(own_side).collect::<PlanResult<Vec<_>>>()?;
    let mut calls = Vec::with_capacity(window.window_expr.len());
    for call in window.window_expr {
        let partitioned = call.transform(|expr| {
            let Expr::WindowFunction(mut function) = expr else { return Ok(Transformed::no(expr)) };
            let more = by.iter().filter(|by| !function.params.partition_by.contains(by)).cloned().collect::<Vec<_>>();
            function.params.partition_by.extend(more);
            Ok(Transformed::yes(Expr::WindowFunction(function)))
        });
        calls.push(partitioned?.data);
    }
    // What computes the functions has their text for a name: columns are known by what they were called before.
    let names: Vec<String> = wanted[wanted.len() - calls.len()..].iter().map(|column| column.schema_name().to_string()).collect();
    let calls: Vec<Expr> = calls.into_iter().zip(names).map(|(call, name)| call.unalias().alias(name)).collect();
    let behind = LogicalPlanBuilder::from(plan).window(calls)?;
    let behind = match conjunction(of_row_around) {
        Some(condition) => behind.filter(condition)?,
        None => behind,
    };
    behind.project(wanted)?.build().map(Transformed::yes)
}

/// The same behind other names, which the planner's joins of subqueries do not see through.
fn asked_of_alias(plan: LogicalPlan) -> PlanResult<Transformed<LogicalPlan>> {
    if !asks_below(&plan) {
        return Ok(Transformed::no(plan));
    }
    let wanted: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
    let Ok(Asked { plan: below, of_row_around }) = lifted(plan.clone()) else { return Ok(Transformed::no(plan)) };
    let Some(condition) = conjunction(of_row_around) else { return Ok(Transformed::no(plan)) };
    LogicalPlanBuilder::from(below).filter(condition)?.project(wanted)?.build().map(Transformed::yes)
}

/// Whether a condition names the row around this subquery, not that around one within it.
fn asks_below(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Subquery(_) => false,
        _ => plan.contains_outer_reference() || plan.inputs().into_iter().any(asks_below),
    }
}

/// The side of an equality that is of the subquery's own rows.
fn own_side(condition: &Expr) -> PlanResult<Expr> {
    if let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition {
        match (left.contains_outer(), right.contains_outer()) {
            (true, false) => return Ok((**right).clone()),
            (false, true) => return Ok((**left).clone()),
            _ => {}
        }
    }
    let what = format!("{condition} in a subquery with LIMIT, OVER or DISTINCT");
    let why = "its rows are counted for each value, by what is equal to it";
    Err(SqlError::unsupported(&what, why, "b.x = a.y; of the latest version, JOIN b FOR SYSTEM_TIME AS OF a.ts ON ..").into_planner())
}

/// Rows, and what is still to be asked of them.
struct Asked {
    plan: LogicalPlan,
    of_row_around: Vec<Expr>,
}

/// Takes the conditions on the row around out of a plan; its columns stay, and those that the conditions need are there too.
fn lifted(plan: LogicalPlan) -> PlanResult<Asked> {
    if !asks_below(&plan) {
        return Ok(Asked { plan, of_row_around: Vec::new() });
    }
    match plan {
        LogicalPlan::Filter(Filter { predicate, input, .. }) => {
            let mut below = lifted(Arc::unwrap_or_clone(input))?;
            let (around, own): (Vec<Expr>, Vec<Expr>) = split_conjunction_owned(predicate).into_iter().partition(Expr::contains_outer);
            if let Some(own) = conjunction(own) {
                below.plan = LogicalPlan::Filter(Filter::try_new(own, Arc::new(below.plan))?);
            }
            below.of_row_around.extend(around);
            Ok(below)
        }
        LogicalPlan::Projection(Projection { mut expr, input, .. }) if !expr.iter().any(Expr::contains_outer) => {
            let Asked { plan, of_row_around } = lifted(Arc::unwrap_or_clone(input))?;
            for column in of_row_around.iter().flat_map(Expr::column_refs) {
                let column = Expr::Column(column.clone());
                if !expr.contains(&column) {
                    expr.push(column);
                }
            }
            let plan = LogicalPlan::Projection(Projection::try_new(expr, Arc::new(plan))?);
            Ok(Asked { plan, of_row_around })
        }
        LogicalPlan::SubqueryAlias(SubqueryAlias { input, alias, .. }) => {
            let Asked { plan, of_row_around } = lifted(Arc::unwrap_or_clone(input))?;
            let renamed = |condition: Expr| {
                let of_alias = |expr| match expr {
                    Expr::Column(column) => Ok(Transformed::yes(Expr::Column(Column::new(Some(alias.clone()), column.name)))),
                    other => Ok(Transformed::no(other)),
                };
                condition.transform(of_alias).data()
            };
            let of_row_around = of_row_around.into_iter().map(renamed).collect::<PlanResult<Vec<_>>>()?;
            let plan = LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(plan), alias.clone())?);
            Ok(Asked { plan, of_row_around })
        }
        // Groups of several values at once are groups of each.
        LogicalPlan::Aggregate(Aggregate { input, mut group_expr, aggr_expr, .. })
            if !group_expr.is_empty() && !matches!(group_expr[..], [Expr::GroupingSet(_)]) =>
        {
            let Asked { plan, of_row_around } = lifted(Arc::unwrap_or_clone(input))?;
            for condition in &of_row_around {
                own_side(condition)?;
                for column in condition.column_refs() {
                    let column = Expr::Column(column.clone());
                    if !group_expr.contains(&column) {
                        group_expr.push(column);
                    }
                }
            }
            let plan = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(plan), group_expr, aggr_expr)?);
            Ok(Asked { plan, of_row_around })
        }
        LogicalPlan::Join(join) if join.join_type == JoinType::Inner || join.join_type == JoinType::Left && !asks_below(&join.right) => {
            let (left, right) = (lifted(Arc::unwrap_or_clone(join.left))?, lifted(Arc::unwrap_or_clone(join.right))?);
            let (left_plan, right_plan) = (Arc::new(left.plan), Arc::new(right.plan));
            let (constraint, equality) = (join.join_constraint, join.null_equality);
            let plan = Join::try_new(left_plan, right_plan, join.on, join.filter, join.join_type, constraint, equality, join.null_aware)?;
            let of_row_around = left.of_row_around.into_iter().chain(right.of_row_around).collect();
            Ok(Asked { plan: LogicalPlan::Join(plan), of_row_around })
        }
        _ => {
            let (what, why) =
                ("this subquery with LIMIT, OVER or DISTINCT", "what it asks of the row around it cannot be asked behind that");
            Err(SqlError::unsupported(what, why, "WHERE b.x = a.y beside ORDER BY and LIMIT, of a table or an inner join").into_planner())
        }
    }
}
