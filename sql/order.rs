//! ORDER BY, LIMIT and OFFSET at the end of a query: for who looks at its rows, when the input has ended.
//!
//! Invariant: the plan that is left has the same rows in no order.

use crate::error::{SqlError, SqlResult};
use datafusion_expr::logical_plan::{FetchType, SkipType};
use datafusion_expr::{Expr, LogicalPlan};
use std::sync::Arc;

/// One column of ORDER BY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderBy {
    /// By position.
    pub column: usize,
    /// Largest first.
    pub descending: bool,
    /// NULLs before all else.
    pub nulls_first: bool,
}

/// Which rows of a query are to be shown, and how.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) order: Vec<OrderBy>,
    pub(crate) limit: Option<usize>,
    /// So many rows before these are left out.
    pub(crate) offset: usize,
}

/// Takes ORDER BY, LIMIT and OFFSET off the end of a query.
pub(crate) fn wanted(plan: LogicalPlan) -> SqlResult<(LogicalPlan, Wanted)> {
    let (plan, limit, offset) = match plan {
        LogicalPlan::Limit(limit) => {
            let computed = || SqlError::unsupported("a computed LIMIT or OFFSET", "it is a number", "LIMIT 10 OFFSET 20");
            let FetchType::Literal(fetch) = limit.get_fetch_type().map_err(SqlError::of_planner)? else { return Err(computed()) };
            let SkipType::Literal(skip) = limit.get_skip_type().map_err(SqlError::of_planner)? else { return Err(computed()) };
            (Arc::unwrap_or_clone(limit.input), fetch, skip)
        }
        other => (other, None, 0),
    };
    let LogicalPlan::Sort(sort) = plan else { return Ok((plan, Wanted { order: Vec::new(), limit, offset })) };
    let input = Arc::unwrap_or_clone(sort.input);
    let mut order = Vec::with_capacity(sort.expr.len());
    for by in &sort.expr {
        let Expr::Column(column) = &by.expr else {
            return Err(SqlError::unsupported(
                &format!("ORDER BY {}", by.expr),
                "it is a column of the result",
                "give it a name in SELECT and order by that",
            ));
        };
        let column = input.schema().index_of_column(column).map_err(SqlError::of_planner)?;
        order.push(OrderBy { column, descending: !by.asc, nulls_first: by.nulls_first });
    }
    Ok((input, Wanted { order, limit: limit.or(sort.fetch), offset }))
}
