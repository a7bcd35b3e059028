//! Names of columns, no two of a `SELECT` alike: of what a query does not name, the text of the expression as it is written. Where
//! an earlier column has that name, it is `EXPR$` and the place, as in Flink; of a name that is written, the name and a number (`id0`).
//!
//! To the planner a CAST has the name of what is cast, and what it computes apart (aggregates, functions over rows, keys of groups)
//! has no other name. Where two of these differ in a CAST alone, the casts of their SELECT get names of their own.
//!
//! Invariant: the first column of a name keeps it; the planner finds no two alike.

use super::functions::AS_WRITTEN;
use super::sugar::{call, text};
use super::walk::each_body;
use crate::error::SqlResult;
use datafusion_sql::sqlparser::ast::{
    Expr, GroupByExpr, Ident, OrderBy, OrderByKind, Query, Select, SelectItem, SetExpr, visit_expressions, visit_expressions_mut,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// Gives names where they are needed; `is_aggregate` knows the names of aggregate functions.
pub(super) fn rewrite(query: &mut Query, is_aggregate: impl Fn(&str) -> bool) -> SqlResult<()> {
    each_body(query, |body, mut order_by| {
        if let SetExpr::Select(select) = body {
            name(select, order_by.as_deref_mut());
            tell_apart(select, order_by, &is_aggregate);
        }
        Ok(())
    })
}

/// Gives every column of a SELECT a name of its own.
fn name(select: &mut Select, order_by: Option<&mut OrderBy>) {
    let mut taken = BTreeSet::new();
    // By the text of the expression.
    let mut named: BTreeMap<String, Ident> = BTreeMap::new();
    for (place, item) in select.projection.iter_mut().enumerate() {
        let (expr, written) = match &*item {
            SelectItem::ExprWithAlias { expr, alias } => (expr, Some(&alias.value)),
            SelectItem::UnnamedExpr(expr) => (expr, column(expr)),
            _ => continue,
        };
        let name = match written {
            Some(written) => {
                std::iter::once(written.clone()).chain((0..).map(|n| format!("{written}{n}"))).find(|name| !taken.contains(name))
            }
            None => Some(expr.to_string()).filter(|text| !taken.contains(text)).or_else(|| Some(format!("EXPR${place}"))),
        };
        let Some(name) = name else { continue };
        taken.insert(name.clone());
        if written != Some(&name) {
            let (expr, alias) = (expr.clone(), Ident::new(name));
            if matches!(item, SelectItem::UnnamedExpr(_)) {
                named.entry(expr.to_string()).or_insert_with(|| alias.clone());
            }
            *item = SelectItem::ExprWithAlias { expr, alias };
        }
    }
    // What is sorted by is known by its name.
    let kind = order_by.map(|order_by| &mut order_by.kind);
    let Some(OrderByKind::Expressions(order)) = kind else { return };
    for by in order {
        if let Some(name) = named.get(&by.expr.to_string()) {
            by.expr = Expr::Identifier(name.clone());
        }
    }
}

/// The name of a column.
fn column(expr: &Expr) -> Option<&String> {
    match expr {
        Expr::Identifier(name) => Some(&name.value),
        Expr::CompoundIdentifier(names) => names.last().map(|name| &name.value),
        Expr::Nested(inner) => column(inner),
        _ => None,
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
