//! Group windows, the older form: `GROUP BY k, TUMBLE(ts, INTERVAL '1' MINUTE)` with `TUMBLE_START(...)` in SELECT.
//!
//! They are rewritten to window table functions before the query is planned.
//!
//! Invariant: a query without group windows is left as it is; one whose group windows cannot be rewritten is refused here, or
//! by the planner, which does not know these functions.

use super::walk::each_body;
use crate::error::{SqlError, SqlResult};
use crate::parser::FlinkDialect;
use datafusion_sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, Query, Select, SetExpr, Spanned, TableFactor,
    VisitMut, VisitorMut,
};
use datafusion_sql::sqlparser::parser::Parser;
use std::ops::ControlFlow;

/// Rewrites every SELECT with a group window.
pub(super) fn rewrite(query: &mut Query) -> SqlResult<()> {
    each_body(query, |body, _| match body {
        SetExpr::Select(select) => select_of(select),
        _ => Ok(()),
    })
}

/// `name(time, spans...)`, with the name in upper case.
fn call(expr: &Expr) -> Option<(String, &Function, Vec<&Expr>)> {
    let Expr::Function(function) = expr else { return None };
    let FunctionArguments::List(list) = &function.args else { return None };
    let args = list.args.iter().map(|a| match a {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => Some(e),
        _ => None,
    });
    Some((function.name.to_string().to_uppercase(), function, args.collect::<Option<Vec<_>>>()?))
}

fn select_of(select: &mut Select) -> SqlResult<()> {
    let GroupByExpr::Expressions(group, _) = &select.group_by else { return Ok(()) };
    let is_window = |e: &Expr| call(e).is_some_and(|(name, ..)| matches!(name.as_str(), "TUMBLE" | "HOP" | "SESSION"));
    let windows: Vec<&Expr> = group.iter().filter(|e| is_window(e)).collect();
    let Some(window) = windows.first() else { return Ok(()) };
    let Some((name, function, args)) = call(window) else { return Ok(()) };
    let at = function.name.span();
    let tvf = format!("FROM TABLE({name}(TABLE t, DESCRIPTOR(ts), ...)) GROUP BY window_start, window_end");
    let refuse = |what: &str, why: &str| Err(SqlError::unsupported(what, why, &tvf).at(at));
    if windows.len() > 1 {
        return refuse("a GROUP BY with two windows", "a row is in one window of a query");
    }
    let (Some(Expr::Identifier(_) | Expr::CompoundIdentifier(_)), [_, spans @ ..]) = (args.first().copied(), args.as_slice()) else {
        return refuse("a window over an expression", "it is taken over the column that WATERMARK FOR names");
    };
    let time = match args[0] {
        Expr::CompoundIdentifier(names) => names.last().cloned(),
        Expr::Identifier(name) => Some(name.clone()),
        _ => None,
    };
    let [from] = select.from.as_slice() else { return refuse("a group window over several tables", "it is taken over one") };
    if !from.joins.is_empty() {
        return refuse("a group window over a join", "it is taken over one table");
    }
    let others: Vec<&Expr> = group.iter().filter(|e| !is_window(e)).collect();
    let mut columns = Vec::new();
    for other in &others {
        match other {
            Expr::Identifier(name) => columns.push(name.to_string()),
            Expr::CompoundIdentifier(names) => columns.extend(names.last().map(Ident::to_string)),
            _ if name == "SESSION" => return refuse("a session by an expression", "its rows are brought together by columns"),
            _ => {}
        }
    }
    // What is filtered is not in a window, nor does it keep a session going.
    let filter = select.selection.as_ref().map_or_else(String::new, |e| format!(" WHERE {e}"));
    let alias = alias(&from.relation);
    let from = &from.relation;
    let by = if name == "SESSION" && !columns.is_empty() { format!(" CLUSTER BY {}", columns.join(", ")) } else { String::new() };
    let spans: Vec<String> = spans.iter().map(ToString::to_string).collect();
    let time = time.map_or_else(String::new, |t| t.to_string());
    let text = format!("TABLE({name}((SELECT * FROM {from}{filter}{by}), DESCRIPTOR({time}), {})){alias}", spans.join(", "));
    let relation = Parser::new(&FlinkDialect)
        .try_with_sql(&text)
        .and_then(|mut p| p.parse_table_factor())
        .map_err(|e| SqlError::new(format!("{name}: {e}")).at(at))?;
    let wanted: Vec<String> = args.iter().map(ToString::to_string).collect();
    let mut bounds = Bounds { name, wanted, is_timed: false };
    let mut grouped: Vec<Expr> = others.into_iter().cloned().collect();
    select.from[0].relation = relation;
    select.selection = None;
    let _ = select.projection.visit(&mut bounds);
    let _ = select.having.visit(&mut bounds);
    // What is shown of a group is in GROUP BY; a window has one time.
    let of_window = ["window_start", "window_end"].into_iter().chain(bounds.is_timed.then_some("window_time"));
    grouped.extend(of_window.map(|n| Expr::Identifier(Ident::new(n))));
    select.group_by = GroupByExpr::Expressions(grouped, Vec::new());
    Ok(())
}

/// The name by which the query knows a table.
fn alias(relation: &TableFactor) -> String {
    let (alias, own) = match relation {
        TableFactor::Table { alias, name, .. } => (alias.as_ref(), name.0.last().map(ToString::to_string)),
        TableFactor::Derived { alias, .. } | TableFactor::TableFunction { alias, .. } | TableFactor::MatchRecognize { alias, .. } => {
            (alias.as_ref(), None)
        }
        _ => (None, None),
    };
    let name = alias.map(|a| a.name.to_string()).or(own);
    name.map_or_else(String::new, |name| format!(" AS {name}"))
}

/// `TUMBLE_START(ts, ...)` with the window's own arguments becomes window_start.
struct Bounds {
    name: String,
    wanted: Vec<String>,
    /// `TUMBLE_ROWTIME` is among them.
    is_timed: bool,
}

impl VisitorMut for Bounds {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let column = call(expr).and_then(|(name, _, args)| {
            let same = args.len() == self.wanted.len() && args.iter().zip(&self.wanted).all(|(a, b)| a.to_string() == *b);
            let bound = name.strip_prefix(&self.name).filter(|_| same)?;
            match bound {
                "_START" => Some("window_start"),
                "_END" => Some("window_end"),
                "_ROWTIME" => Some("window_time"),
                _ => None,
            }
        });
        self.is_timed |= column == Some("window_time");
        if let Some(column) = column {
            *expr = Expr::Identifier(Ident::new(column));
        }
        ControlFlow::Continue(())
    }
}
