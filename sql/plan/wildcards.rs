//! `SELECT a.id, a.*`, `SELECT t.*, t.*`: a column that stands there twice. `SELECT o.addr.*`: the fields of a row as columns.
//!
//! The planner takes no two columns of one name, and a star for all columns of a table. Where it refuses a query, the stars beside other
//! columns are replaced by the columns that they stand for, which get names like any others (`names`), and it is asked again.
//!
//! Invariant: a star is replaced by what the planner says that it stands for, in that order; one it cannot say it of is left as it is.

use crate::error::{SqlError, SqlResult};
use crate::parser::{FlinkDialect, type_name};
use arrow::datatypes::DataType;
use datafusion_common::Column;
use datafusion_expr::LogicalPlan;
use datafusion_sql::sqlparser::ast::{
    AccessExpr, Cte, Expr, Ident, ObjectName, Query, Select, SelectItem, SelectItemQualifiedWildcardKind as Star, SetExpr, Spanned,
    TableWithJoins, VisitMut, VisitorMut, WildcardAdditionalOptions,
};
use datafusion_sql::sqlparser::parser::Parser;
use std::ops::ControlFlow;

/// Replaces them; whether there were any. `plan` plans a query.
pub(super) fn expand(query: &mut Query, plan: &dyn Fn(Query) -> SqlResult<LogicalPlan>) -> SqlResult<bool> {
    let mut stars = Stars { plan, scope: Vec::new(), outer: Vec::new(), replaced: false };
    match query.visit(&mut stars) {
        ControlFlow::Continue(()) => Ok(stars.replaced),
        ControlFlow::Break(error) => Err(*error),
    }
}

struct Stars<'a> {
    plan: &'a dyn Fn(Query) -> SqlResult<LogicalPlan>,
    /// What WITH has named so far.
    scope: Vec<Cte>,
    /// How much of that was there before each query around.
    outer: Vec<usize>,
    replaced: bool,
}

impl VisitorMut for Stars<'_> {
    type Break = Box<SqlError>;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Box<SqlError>> {
        self.outer.push(self.scope.len());
        for cte in query.with.iter_mut().flat_map(|with| &mut with.cte_tables) {
            cte.query.visit(self)?;
            self.scope.retain(|before| before.alias.name != cte.alias.name);
            self.scope.push(cte.clone());
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<Box<SqlError>> {
        let done = self.body(&mut query.body);
        self.scope.truncate(self.outer.pop().unwrap_or(0));
        done.map_or_else(|error| ControlFlow::Break(Box::new(error)), ControlFlow::Continue)
    }
}

impl Stars<'_> {
    fn body(&mut self, body: &mut SetExpr) -> SqlResult<()> {
        match body {
            SetExpr::Select(select) => self.select(select),
            SetExpr::SetOperation { left, right, .. } => self.body(left).and_then(|()| self.body(right)),
            _ => Ok(()),
        }
    }

    fn select(&mut self, select: &mut Select) -> SqlResult<()> {
        let is_alone = matches!(select.projection.as_slice(), [SelectItem::Wildcard(_)]);
        if is_alone || !select.projection.iter().any(is_star) {
            return Ok(());
        }
        let items = std::mem::take(&mut select.projection);
        for item in items {
            match self.columns(&item, &select.from)? {
                Some(columns) => {
                    self.replaced = true;
                    select.projection.extend(columns.into_iter().map(SelectItem::UnnamedExpr));
                }
                None => select.projection.push(item),
            }
        }
        Ok(())
    }

    /// What a star stands for; none of what is no star, or no table's.
    fn columns(&self, item: &SelectItem, from: &[TableWithJoins]) -> SqlResult<Option<Vec<Expr>>> {
        if !is_star(item) {
            return Ok(None);
        }
        if let Ok(planned) = self.planned(item.clone(), from) {
            return Ok(Some(planned.schema().columns().iter().map(column).collect()));
        }
        let row = match item {
            SelectItem::QualifiedWildcard(Star::ObjectName(name), _) => named(name),
            SelectItem::QualifiedWildcard(Star::Expr(row), _) => Some(row.clone()),
            _ => None,
        };
        let Some(row) = row else { return Ok(None) };
        let Ok(planned) = self.planned(SelectItem::UnnamedExpr(row.clone()), from) else { return Ok(None) };
        match planned.schema().fields().first().map(|field| field.data_type()) {
            Some(DataType::Struct(fields)) => Ok(Some(fields.iter().map(|field| member(&row, field.name())).collect())),
            Some(other) => {
                let is = type_name(other);
                Err(SqlError::new(format!("{row}.* is of a row or a table, and {row} is {is}")).at(item.span()).help(row.to_string()))
            }
            None => Ok(None),
        }
    }

    /// A column of a SELECT by itself.
    fn planned(&self, item: SelectItem, from: &[TableWithJoins]) -> SqlResult<LogicalPlan> {
        let text = if self.scope.is_empty() { "SELECT 1" } else { "WITH c AS (SELECT 1) SELECT 1" };
        let parsed = Parser::new(&FlinkDialect).try_with_sql(text).and_then(|mut parser| parser.parse_query());
        let mut query = *parsed.map_err(|e| SqlError::new(e.to_string()))?;
        if let Some(with) = &mut query.with {
            with.cte_tables = self.scope.clone();
        }
        if let SetExpr::Select(select) = &mut *query.body {
            select.projection = vec![item];
            select.from = from.to_vec();
        }
        (self.plan)(query)
    }
}

/// Whether it is a star without words of other dialects behind it.
fn is_star(item: &SelectItem) -> bool {
    let is_plain = |options: &WildcardAdditionalOptions| {
        let WildcardAdditionalOptions { opt_ilike, opt_exclude, opt_except, opt_replace, opt_rename, .. } = options;
        opt_ilike.is_none() && opt_exclude.is_none() && opt_except.is_none() && opt_replace.is_none() && opt_rename.is_none()
    };
    match item {
        SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options) => is_plain(options),
        _ => false,
    }
}

fn quoted(name: &str) -> Ident {
    Ident::with_quote('`', name)
}

/// A column as it is written.
fn column(column: &Column) -> Expr {
    let name = quoted(&column.name);
    match &column.relation {
        Some(table) => Expr::CompoundIdentifier(vec![quoted(table.table()), name]),
        None => Expr::Identifier(name),
    }
}

/// A name before a star as a column.
fn named(name: &ObjectName) -> Option<Expr> {
    let mut names = name.0.iter().map(|part| part.as_ident().cloned()).collect::<Option<Vec<Ident>>>()?;
    if names.len() == 1 { names.pop().map(Expr::Identifier) } else { Some(Expr::CompoundIdentifier(names)) }
}

/// A field of a row.
fn member(row: &Expr, name: &str) -> Expr {
    let name = quoted(name);
    match row {
        Expr::Identifier(column) => Expr::CompoundIdentifier(vec![column.clone(), name]),
        Expr::CompoundIdentifier(names) => Expr::CompoundIdentifier(names.iter().cloned().chain([name]).collect()),
        other => Expr::CompoundFieldAccess { root: Box::new(other.clone()), access_chain: vec![AccessExpr::Dot(Expr::Identifier(name))] },
    }
}
