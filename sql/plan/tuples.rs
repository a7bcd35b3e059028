//! Rows of values that are compared as a whole: `(a, b) IN ((1, 2), (3, 4))`, `(a, b) IN (SELECT ..)`, `(a, b) = (1, 2)`.
//!
//! A list becomes comparisons of the values, joined by AND and OR. A subquery becomes EXISTS, which is the same where a row passes if
//! the answer is TRUE and nobody asks which of FALSE and NULL it is: within AND and OR of a WHERE.
//!
//! Invariant: elsewhere a row IN a subquery is refused.

use super::spans::binary;
use super::walk::{each_body, each_expr};
use crate::error::{SqlError, SqlResult};
use crate::parser::FlinkDialect;
use datafusion_sql::sqlparser::ast::{BinaryOperator, Expr, Ident, Query, SetExpr, Spanned, TableFactor, UnaryOperator};
use datafusion_sql::sqlparser::parser::Parser;

/// Rewrites them.
pub(super) fn rewrite(query: &mut Query) -> SqlResult<()> {
    each_body(query, |body| match body {
        SetExpr::Select(select) => select.selection.as_mut().map_or(Ok(()), condition),
        _ => Ok(()),
    })?;
    each_expr(query, |expr| {
        if let Some(other) = compared(expr)? {
            *expr = other;
        }
        Ok(())
    })
}

/// A row in a subquery, where it is only asked whether that is true.
fn condition(expr: &mut Expr) -> SqlResult<()> {
    match expr {
        Expr::BinaryOp { left, op: BinaryOperator::And | BinaryOperator::Or, right } => {
            condition(left)?;
            condition(right)
        }
        Expr::Nested(inner) => condition(inner),
        Expr::InSubquery { expr: row, subquery, negated: false } => {
            let Expr::Tuple(values) = &**row else { return Ok(()) };
            *expr = exists(values, subquery.clone())?;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// `EXISTS (SELECT 1 FROM (subquery) AS members (..) WHERE ..)`.
fn exists(values: &[Expr], subquery: Box<Query>) -> SqlResult<Expr> {
    // Names that no column of the query around has.
    let names: Vec<Ident> = (0..values.len()).map(|i| Ident::with_quote('`', format!("member {i}"))).collect();
    let list = names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let template = format!("EXISTS (SELECT 1 FROM (SELECT 1) AS `members` ({list}))");
    let parsed = Parser::new(&FlinkDialect).try_with_sql(&template).and_then(|mut parser| parser.parse_expr());
    let mut exists = parsed.map_err(|e| SqlError::new(e.to_string()))?;
    if let Expr::Exists { subquery: around, .. } = &mut exists
        && let SetExpr::Select(select) = &mut *around.body
    {
        for table in &mut select.from {
            if let TableFactor::Derived { subquery: inner, .. } = &mut table.relation {
                inner.clone_from(&subquery);
            }
        }
        let equal = names
            .into_iter()
            .zip(values)
            .map(|(name, value)| binary(Expr::Identifier(name), BinaryOperator::Eq, Expr::Nested(Box::new(value.clone()))));
        select.selection = equal.reduce(|all, one| binary(all, BinaryOperator::And, one));
    }
    Ok(exists)
}

fn compared(expr: &Expr) -> SqlResult<Option<Expr>> {
    Ok(match expr {
        Expr::InList { expr: row, list, negated } => {
            let Expr::Tuple(values) = &**row else { return Ok(None) };
            let rows = list.iter().map(|other| equal(values, other)).collect::<SqlResult<Vec<_>>>()?;
            let any = rows.into_iter().reduce(|any, one| binary(any, BinaryOperator::Or, one));
            any.map(|any| negated_if(*negated, any))
        }
        Expr::BinaryOp { left, op: op @ (BinaryOperator::Eq | BinaryOperator::NotEq), right } => match (&**left, &**right) {
            (Expr::Tuple(values), Expr::Tuple(_)) => Some(negated_if(*op == BinaryOperator::NotEq, equal(values, right)?)),
            _ => None,
        },
        Expr::InSubquery { expr: row, negated, .. } if matches!(**row, Expr::Tuple(_)) => {
            let what = if *negated { "a row NOT IN a subquery" } else { "a row IN a subquery here" };
            return Err(SqlError::unsupported(
                what,
                "NULL in one of its columns would have to be told from FALSE",
                "[NOT] EXISTS (SELECT 1 FROM .. WHERE x = a AND y = b)",
            )
            .at(row.span()));
        }
        _ => None,
    })
}

fn negated_if(negated: bool, expr: Expr) -> Expr {
    let nested = Expr::Nested(Box::new(expr));
    if negated { Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(nested) } } else { nested }
}

/// Whether all values of two rows are equal.
fn equal(values: &[Expr], other: &Expr) -> SqlResult<Expr> {
    let wrong = || {
        SqlError::new(format!("a row of {} values is compared with {other}", values.len()))
            .at(other.span())
            .help("(a, b) IN ((1, 2), (3, 4))")
    };
    let Expr::Tuple(others) = other else { return Err(wrong()) };
    if others.len() != values.len() {
        return Err(wrong());
    }
    let nested = |expr: &Expr| Expr::Nested(Box::new(expr.clone()));
    let each = values.iter().zip(others).map(|(a, b)| binary(nested(a), BinaryOperator::Eq, nested(b)));
    let all = each.reduce(|all, one| binary(all, BinaryOperator::And, one)).ok_or_else(wrong)?;
    Ok(Expr::Nested(Box::new(all)))
}
