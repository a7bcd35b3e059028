//! Rows of values that are compared as a whole: `(a, b) IN ((1, 2), (3, 4))`, `(a, b) IN (SELECT ..)`, `(a, b) = (1, 2)`.
//!
//! A list becomes comparisons of the values, joined by AND and OR. A subquery becomes EXISTS: that there is a row of equal values, and
//! for the third truth value that there is one that is equal but where one of the two is NULL. Which values those are is known in
//! each EXISTS, so that it stays a join by what is equal.
//!
//! Invariant: NULL is told from FALSE wherever somebody sees the difference.

use super::spans::binary;
use super::sugar::case;
use super::walk::{each_body, each_expr};
use crate::error::{SqlError, SqlResult};
use crate::parser::FlinkDialect;
use datafusion_sql::sqlparser::ast::{BinaryOperator, Expr, Ident, Query, SetExpr, Spanned, TableFactor, UnaryOperator, Value};
use datafusion_sql::sqlparser::parser::Parser;
use datafusion_sql::sqlparser::tokenizer::Span;

/// Values of a row in a subquery, where NULLs count: with n values there are 3^n ways in which they may be.
const MOST: usize = 3;

/// How a value of a row is like that of another.
#[derive(Clone, Copy, PartialEq)]
enum Like {
    Equal,
    /// It is NULL.
    Null,
    /// The other is.
    OtherNull,
}

/// Rewrites them.
pub(super) fn rewrite(query: &mut Query) -> SqlResult<()> {
    each_body(query, |body, _| match body {
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
        Expr::InSubquery { expr: row, subquery, negated } => {
            let Expr::Tuple(values) = &**row else { return Ok(()) };
            *expr = match *negated {
                false => exists(values, subquery, &vec![Like::Equal; values.len()])?,
                // Neither is it there nor could it be.
                true => {
                    let none = ways(values)?.into_iter().map(|way| exists(values, subquery, &way).map(|there| negated_if(true, there)));
                    joined(none.collect::<SqlResult<Vec<_>>>()?, BinaryOperator::And)
                }
            };
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Whether a row is in a subquery: true, false or NULL.
fn is_in(values: &[Expr], subquery: &Query) -> SqlResult<Expr> {
    let mut found = ways(values)?.into_iter().map(|way| exists(values, subquery, &way)).collect::<SqlResult<Vec<_>>>()?;
    let is_there = found.remove(0);
    let boolean = |value| Expr::Value(Value::Boolean(value).into());
    let could_be = joined(found, BinaryOperator::Or);
    Ok(case(is_there, boolean(true), case(could_be, Expr::Value(Value::Null.into()), boolean(false))))
}

/// All ways in which a row may be like another without one value being another one; first that they are equal.
fn ways(values: &[Expr]) -> SqlResult<Vec<Vec<Like>>> {
    if values.len() > MOST {
        return Err(SqlError::unsupported(
            &format!("a row of {} values in a subquery where NULLs count", values.len()),
            "there is a join for each way in which they may be NULL",
            &format!("a row of {MOST} values, or [NOT] EXISTS (SELECT 1 FROM .. WHERE x = a AND y = b)"),
        )
        .at(values.first().map_or_else(Span::empty, Spanned::span)));
    }
    Ok(values.iter().fold(vec![Vec::new()], |ways, value| {
        let is_literal = matches!(value, Expr::Value(value) if value.value != Value::Null);
        let likes = [Like::Equal, Like::OtherNull, Like::Null].into_iter().filter(|like| !(is_literal && *like == Like::Null));
        let longer = |like: Like| ways.iter().map(move |way: &Vec<Like>| way.iter().copied().chain([like]).collect());
        likes.flat_map(longer).collect()
    }))
}

/// `a IS NULL AND EXISTS (SELECT 1 FROM (subquery) AS members (..) WHERE ..)`.
fn exists(values: &[Expr], subquery: &Query, way: &[Like]) -> SqlResult<Expr> {
    // Names that no column of the query around has.
    let names: Vec<Ident> = (0..values.len()).map(|i| Ident::with_quote('`', format!("member {i}"))).collect();
    let list = names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let template = format!("EXISTS (SELECT 1 FROM (SELECT 1) AS `members` ({list}))");
    let parsed = Parser::new(&FlinkDialect).try_with_sql(&template).and_then(|mut parser| parser.parse_expr());
    let mut exists = parsed.map_err(|e| SqlError::new(e.to_string()))?;
    let nested = |value: &Expr| Box::new(Expr::Nested(Box::new(value.clone())));
    let mut all: Vec<Expr> =
        values.iter().zip(way).filter(|(_, like)| **like == Like::Null).map(|(value, _)| Expr::IsNull(nested(value))).collect();
    if let Expr::Exists { subquery: around, .. } = &mut exists
        && let SetExpr::Select(select) = &mut *around.body
    {
        for table in &mut select.from {
            if let TableFactor::Derived { subquery: inner, .. } = &mut table.relation {
                **inner = subquery.clone();
            }
        }
        let members = names.into_iter().map(Expr::Identifier).zip(values).zip(way);
        let conditions = members.filter_map(|((member, value), like)| match like {
            Like::Equal => Some(binary(member, BinaryOperator::Eq, *nested(value))),
            Like::OtherNull => Some(Expr::IsNull(Box::new(member))),
            Like::Null => None,
        });
        select.selection = conditions.reduce(|all, one| binary(all, BinaryOperator::And, one));
    }
    all.push(exists);
    Ok(joined(all, BinaryOperator::And))
}

/// Several in brackets; none is TRUE.
fn joined(exprs: Vec<Expr>, op: BinaryOperator) -> Expr {
    let all = exprs.into_iter().reduce(|all, one| binary(all, op.clone(), one));
    Expr::Nested(Box::new(all.unwrap_or_else(|| Expr::Value(Value::Boolean(true).into()))))
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
        Expr::InSubquery { expr: row, subquery, negated } => match &**row {
            Expr::Tuple(values) => Some(negated_if(*negated, is_in(values, subquery)?)),
            _ => None,
        },
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
