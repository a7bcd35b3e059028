//! Names of columns that a query does not name: the text of the expression, and where two of a `SELECT` would have the same one,
//! `EXPR$` and the place, as in Flink.
//!
//! Invariant: a name that is given is kept; the planner, to which a CAST has the name of what is cast, finds no two alike.

use super::walk::each_body;
use crate::error::SqlResult;
use datafusion_sql::sqlparser::ast::{Expr, Ident, Query, Select, SelectItem, SetExpr, visit_expressions_mut};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// Gives names where they are needed.
pub(super) fn rewrite(query: &mut Query) -> SqlResult<()> {
    each_body(query, |body| {
        if let SetExpr::Select(select) = body {
            name(select);
        }
        Ok(())
    })
}

fn name(select: &mut Select) {
    let is_column = |expr: &Expr| matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
    let mut taken: BTreeSet<String> = BTreeSet::new();
    for item in &select.projection {
        match item {
            SelectItem::UnnamedExpr(expr) if is_column(expr) => drop(taken.insert(expr.to_string())),
            SelectItem::ExprWithAlias { alias, .. } => drop(taken.insert(alias.to_string())),
            _ => {}
        }
    }
    for (place, item) in select.projection.iter_mut().enumerate() {
        if let SelectItem::UnnamedExpr(expr) = item
            && !is_column(expr)
            && !taken.insert(without_casts(expr))
        {
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::new(format!("EXPR${place}")) };
        }
    }
}

/// The text of an expression without its casts and brackets, which the planner does not see.
fn without_casts(expr: &Expr) -> String {
    let mut plain = expr.clone();
    let _ = visit_expressions_mut(&mut plain, |part| {
        if let Expr::Cast { expr, .. } | Expr::Nested(expr) = part {
            *part = (**expr).clone();
        }
        ControlFlow::<()>::Continue(())
    });
    plain.to_string()
}
