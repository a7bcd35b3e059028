//! Views as versions: `SELECT .. FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY k ORDER BY ts DESC) AS n FROM t) WHERE n = 1`, and what
//! a projection or a filter leaves of those of a table.
//!
//! Of the newest rows of a table that only grows each row was the newest one of its key at its time: these rows are the versions. A filter
//! takes no version out, for the one before would be back then; it is asked of the version that is found.
//!
//! Invariant: a version is that of all rows of its key; two columns of the plan, which no query sees, say whether it passes the filters
//! and what its time is.

use crate::catalog::PlannedTable;
use crate::error::{SqlError, SqlResult};
use datafusion_common::{Column, Result as PlanResult, ScalarValue};
use datafusion_expr::utils::{conjunction, split_conjunction};
use datafusion_expr::{Expr, Filter, LogicalPlan, LogicalPlanBuilder, Operator, Projection, SubqueryAlias, Window, lit};
use std::sync::Arc;

/// Whether a version passes the filters of its view.
pub(super) const IS_THERE: &str = "$is_there";
/// The time of a version, where the view says which column that is.
pub(crate) const SINCE: &str = "$since";

/// Whether no query sees a column.
pub(super) fn is_hidden(name: &str) -> bool {
    name == IS_THERE || name == SINCE
}

/// Rows that are versions, and which of their columns these are known by.
pub(super) struct View {
    pub(super) plan: LogicalPlan,
    pub(super) key: Vec<usize>,
    /// The table whose records they are; none if they are the rows of a query.
    pub(super) table: Option<PlannedTable>,
}

/// The versions that a view is.
pub(super) fn versions(plan: &LogicalPlan) -> SqlResult<View> {
    match plan {
        LogicalPlan::TableScan(scan) => match scan.source.downcast_ref::<PlannedTable>() {
            Some(PlannedTable(table)) => {
                Ok(View { plan: plan.clone(), key: table.primary_key.clone(), table: Some(PlannedTable(table.clone())) })
            }
            None => Err(none("what it reads is no table")),
        },
        LogicalPlan::SubqueryAlias(SubqueryAlias { input, alias, .. }) => {
            let view = versions(input)?;
            let plan = SubqueryAlias::try_new(Arc::new(view.plan), alias.clone()).map_err(SqlError::of_planner)?;
            Ok(View { plan: LogicalPlan::SubqueryAlias(plan), ..view })
        }
        LogicalPlan::Projection(projection) => {
            let view = versions(&projection.input)?;
            let (plan, places) = projected(projection, view.plan).map_err(SqlError::of_planner)?;
            let key = view.key.iter().map(|column| places.iter().position(|place| place == &Some(*column)));
            let key = key.collect::<Option<Vec<_>>>().ok_or_else(|| none("it leaves out a column that its versions are known by"))?;
            Ok(View { plan, key, ..view })
        }
        LogicalPlan::Filter(filter) => {
            let mut parts: Vec<Expr> = split_conjunction(&filter.predicate).into_iter().cloned().collect();
            let view = match newest(filter)? {
                Some((view, rank)) => {
                    parts.remove(rank);
                    view
                }
                None => versions(&filter.input)?,
            };
            match conjunction(parts) {
                Some(condition) => marked(view, condition).map_err(SqlError::of_planner),
                None => Ok(view),
            }
        }
        LogicalPlan::Join(_) => Err(none("a join has no versions of its own")),
        LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_) => Err(none("a group has no time at which it was so")),
        _ => Err(none("its rows are not those of a table")),
    }
}

fn none(why: &str) -> SqlError {
    SqlError::unsupported(
        "FOR SYSTEM_TIME AS OF on this view",
        why,
        "a table with a PRIMARY KEY and a WATERMARK, or its columns and rows by SELECT and WHERE; \
         SELECT .. FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY k ORDER BY ts DESC) AS n FROM t) WHERE n = 1",
    )
}

/// A projection over versions, with their hidden columns; where each column of theirs is one of its own, that.
fn projected(projection: &Projection, input: LogicalPlan) -> PlanResult<(LogicalPlan, Vec<Option<usize>>)> {
    let place = |expr: &Expr| match expr.clone().unalias() {
        Expr::Column(column) => input.schema().index_of_column(&column).ok(),
        _ => None,
    };
    let places = projection.expr.iter().map(place).collect();
    let hidden = hidden(&input);
    let plan = LogicalPlanBuilder::from(input).project(projection.expr.iter().cloned().chain(hidden))?.build()?;
    Ok((plan, places))
}

fn hidden(plan: &LogicalPlan) -> Vec<Expr> {
    plan.schema().columns().into_iter().filter(|column| is_hidden(&column.name)).map(Expr::Column).collect()
}

/// The same versions, of which those that a condition is not true of are not there.
fn marked(view: View, condition: Expr) -> PlanResult<View> {
    let (mut columns, mut is_there) = (Vec::new(), Expr::IsTrue(Box::new(condition)));
    for column in view.plan.schema().columns() {
        if column.name == IS_THERE {
            is_there = Expr::Column(column).and(is_there);
        } else {
            columns.push(Expr::Column(column));
        }
    }
    columns.push(is_there.alias(IS_THERE));
    let plan = LogicalPlanBuilder::from(view.plan).project(columns)?.build()?;
    Ok(View { plan, ..view })
}

/// The rows of which a filter over ROW_NUMBER takes the newest, and which part of its condition says so; none for other filters.
fn newest(filter: &Filter) -> SqlResult<Option<(View, usize)>> {
    let Some((view, rank)) = ranked(&filter.input)? else { return Ok(None) };
    let is_rank = |expr: &Expr| matches!(expr, Expr::Column(column) if filter.input.schema().index_of_column(column).ok() == Some(rank));
    let is_one = |expr: &Expr| matches!(expr, Expr::Literal(ScalarValue::Int64(Some(1)) | ScalarValue::Int32(Some(1)), _));
    let takes_one = |part: &&Expr| match part {
        Expr::BinaryExpr(compared) => {
            let op = compared.op;
            is_rank(&compared.left) && is_one(&compared.right) && matches!(op, Operator::Eq | Operator::LtEq)
                || is_one(&compared.left) && is_rank(&compared.right) && matches!(op, Operator::Eq | Operator::GtEq)
        }
        _ => false,
    };
    match split_conjunction(&filter.predicate).iter().position(takes_one) {
        Some(part) => Ok(Some((view, part))),
        None => Err(none("of several rows of a key none is the version")),
    }
}

/// The rows below a ROW_NUMBER, each with the number that it had when it was the newest, and where that is.
fn ranked(plan: &LogicalPlan) -> SqlResult<Option<(View, usize)>> {
    match plan {
        LogicalPlan::Window(window) => numbered(window).map(Some),
        LogicalPlan::SubqueryAlias(SubqueryAlias { input, alias, .. }) => {
            let Some((view, rank)) = ranked(input)? else { return Ok(None) };
            let plan = SubqueryAlias::try_new(Arc::new(view.plan), alias.clone()).map_err(SqlError::of_planner)?;
            Ok(Some((View { plan: LogicalPlan::SubqueryAlias(plan), ..view }, rank)))
        }
        LogicalPlan::Projection(projection) => {
            let Some((view, rank)) = ranked(&projection.input)? else { return Ok(None) };
            let (plan, places) = projected(projection, view.plan).map_err(SqlError::of_planner)?;
            let at = |column: usize| places.iter().position(|place| place == &Some(column));
            let key = view.key.iter().map(|column| at(*column)).collect::<Option<Vec<_>>>();
            let key = key.ok_or_else(|| none("it leaves out a column that its versions are known by"))?;
            // Without its rank nothing is filtered by it.
            Ok(at(rank).map(|rank| (View { plan, key, ..view }, rank)))
        }
        _ => Ok(None),
    }
}

fn numbered(window: &Window) -> SqlResult<(View, usize)> {
    let one_call = || none("it is of one ROW_NUMBER() OVER (PARTITION BY k ORDER BY ts DESC)");
    let [call] = &window.window_expr[..] else { return Err(one_call()) };
    let Expr::WindowFunction(function) = call.clone().unalias() else { return Err(one_call()) };
    let [by] = &function.params.order_by[..] else { return Err(one_call()) };
    if function.fun.name() != "row_number" || by.asc || function.params.partition_by.is_empty() {
        return Err(one_call());
    }
    let column = |expr: &Expr| match expr {
        Expr::Column(column) => window.input.schema().index_of_column(column).ok(),
        _ => None,
    };
    let key = function.params.partition_by.iter().map(column).collect::<Option<Vec<_>>>();
    let key = key.ok_or_else(|| none("PARTITION BY is of columns"))?;
    let since = column(&by.expr).ok_or_else(|| none("ORDER BY is of the event time"))?;
    let built = || -> PlanResult<LogicalPlan> {
        let columns = window.input.schema().columns();
        let since = Expr::Column(columns[since].clone()).alias(SINCE);
        let (table, rank) = window.schema.qualified_field(columns.len());
        let rank = lit(1i64).alias_qualified(table.cloned(), rank.name());
        let all = columns.into_iter().map(Expr::Column).chain([rank, since]);
        LogicalPlanBuilder::from(Arc::unwrap_or_clone(window.input.clone())).project(all)?.build()
    };
    let rank = window.input.schema().fields().len();
    Ok((View { plan: built().map_err(SqlError::of_planner)?, key, table: None }, rank))
}

/// What a join has to ask of the version that it has found, on the side with these columns.
pub(super) fn is_there(side: &LogicalPlan) -> Option<Expr> {
    let column = side.schema().columns().into_iter().find(|column| column.name == IS_THERE)?;
    Some(Expr::Column(Column::new(column.relation, column.name)))
}
