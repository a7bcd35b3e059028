//! Walks over the syntax tree of a query, for what is rewritten before it is planned.
//!
//! Invariant: from the inside out, so that what is rewritten has its parts rewritten already; the first error ends the walk.

use crate::error::{SqlError, SqlResult};
use datafusion_sql::sqlparser::ast::{Expr, OrderBy, Query, SetExpr, VisitMut, VisitorMut, visit_expressions_mut};
use std::ops::ControlFlow;

type Flow = ControlFlow<Box<SqlError>>;

/// Changes every expression.
pub(super) fn each_expr(within: &mut impl VisitMut, mut change: impl FnMut(&mut Expr) -> SqlResult<()>) -> SqlResult<()> {
    result(visit_expressions_mut(within, |expr| flow(change(expr))))
}

/// Changes the body of every query, and both sides of every UNION, INTERSECT and EXCEPT in it; with the body of a query goes
/// its ORDER BY.
pub(super) fn each_body(query: &mut Query, change: impl FnMut(&mut SetExpr, Option<&mut OrderBy>) -> SqlResult<()>) -> SqlResult<()> {
    result(query.visit(&mut Bodies(change)))
}

struct Bodies<F>(F);

impl<F: FnMut(&mut SetExpr, Option<&mut OrderBy>) -> SqlResult<()>> VisitorMut for Bodies<F> {
    type Break = Box<SqlError>;

    fn post_visit_query(&mut self, query: &mut Query) -> Flow {
        let Query { body, order_by, .. } = query;
        flow(sides_first(body, order_by.as_mut(), &mut self.0))
    }
}

fn sides_first(
    body: &mut SetExpr,
    order_by: Option<&mut OrderBy>,
    change: &mut impl FnMut(&mut SetExpr, Option<&mut OrderBy>) -> SqlResult<()>,
) -> SqlResult<()> {
    if let SetExpr::SetOperation { left, right, .. } = body {
        sides_first(left, None, change)?;
        sides_first(right, None, change)?;
    }
    change(body, order_by)
}

fn flow(done: SqlResult<()>) -> Flow {
    match done {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(Box::new(error)),
    }
}

fn result(flow: Flow) -> SqlResult<()> {
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}
