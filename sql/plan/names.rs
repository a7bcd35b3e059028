//! Names of columns that a query does not name: the text of the expression, and where two of a `SELECT` would have the same one,
//! `EXPR$` and the place, as in Flink.
//!
//! To the planner a CAST has the name of what is cast, and what it computes apart (aggregates, functions over rows, keys of groups)
//! has no other name. Where two of these differ in a CAST alone, the casts of their SELECT get names of their own.
//!
//! Invariant: a name that is given is kept; the planner finds no two alike.

use super::functions::AS_WRITTEN;
use super::sugar::{call, text};
use datafusion_sql::sqlparser::ast::{
    Expr, GroupByExpr, Ident, OrderBy, Query, Select, SelectItem, SetExpr, VisitMut, VisitorMut, visit_expressions, visit_expressions_mut,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// Gives names where they are needed; `is_aggregate` knows the names of aggregate functions.
pub(super) fn rewrite(query: &mut Query, is_aggregate: impl Fn(&str) -> bool) {
    let _ = query.visit(&mut Named(is_aggregate));
}

struct Named<F>(F);

impl<F: Fn(&str) -> bool> VisitorMut for Named<F> {
    type Break = ();

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let Query { body, order_by, .. } = query;
        sides(body, order_by.as_mut(), &self.0);
        ControlFlow::Continue(())
    }
}

fn sides(body: &mut SetExpr, order_by: Option<&mut OrderBy>, is_aggregate: &dyn Fn(&str) -> bool) {
    match body {
        SetExpr::Select(select) => {
            name(select);
            tell_apart(select, order_by, is_aggregate);
        }
        SetExpr::SetOperation { left, right, .. } => {
            sides(left, None, is_aggregate);
            sides(right, None, is_aggregate);
        }
        _ => {}
    }
}

/// Names the casts of a SELECT where two things that the planner computes apart differ in nothing else.
fn tell_apart(select: &mut Select, order_by: Option<&mut OrderBy>, is_aggregate: &dyn Fn(&str) -> bool) {
    let (mut calls, mut keys) = (Texts::default(), Texts::default());
    let mut collect = |expr: &Expr| {
        if let Expr::Function(function) = expr
            && (function.over.is_some() || is_aggregate(&function.name.to_string().to_lowercase()))
        {
            calls.add(expr);
        }
        ControlFlow::<()>::Continue(())
    };
    let _ = visit_expressions(&select.projection, &mut collect);
    let _ = visit_expressions(&select.having, &mut collect);
    if let Some(order_by) = order_by.as_deref() {
        let _ = visit_expressions(order_by, &mut collect);
    }
    if let GroupByExpr::Expressions(exprs, _) = &select.group_by {
        // A column is told from its casts by the table that it is of.
        exprs.iter().filter(|expr| without_casts(expr) != expr.to_string()).for_each(|expr| keys.add(expr));
    }
    if !calls.clash() && !keys.clash() {
        return;
    }
    let mut mark = |expr: &mut Expr| {
        if let Expr::Cast { .. } = expr {
            let name = text(&expr.to_string());
            *expr = call(AS_WRITTEN, vec![expr.clone(), name]);
        }
        ControlFlow::<()>::Continue(())
    };
    let _ = visit_expressions_mut(&mut select.projection, &mut mark);
    let _ = visit_expressions_mut(&mut select.group_by, &mut mark);
    let _ = visit_expressions_mut(&mut select.having, &mut mark);
    if let Some(order_by) = order_by {
        let _ = visit_expressions_mut(order_by, &mut mark);
    }
}

/// Expressions by the names that the planner would give them.
#[derive(Default)]
struct Texts(BTreeMap<String, BTreeSet<String>>);

impl Texts {
    fn add(&mut self, expr: &Expr) {
        self.0.entry(without_casts(expr)).or_default().insert(expr.to_string());
    }

    fn clash(&self) -> bool {
        self.0.values().any(|texts| texts.len() > 1)
    }
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
