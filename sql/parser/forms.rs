//! What a query may be written as besides: names with the one catalog and database there is, `FETCH FIRST n ROWS ONLY`, `TABLE t`.
//!
//! Invariant: a form that would mean something else behind here is refused.

use super::says;
use crate::error::{SqlError, SqlResult};
use datafusion_sql::sqlparser::ast::{
    Distinct, Expr, Fetch, LimitClause, ObjectName, Query, Select, SetExpr, Spanned, TableFactor, Value, VisitMut, VisitorMut,
};
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use std::ops::ControlFlow;

/// The catalog that every table is in.
pub(crate) const CATALOG: &str = "default_catalog";
/// The database that every table is in.
pub(crate) const DATABASE: &str = "default_database";

/// The query in the forms that are planned.
///
/// # Errors
/// Forms that are no Flink SQL.
pub(super) fn plain(query: &mut Query) -> SqlResult<()> {
    match query.visit(&mut Plain) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// `TABLE t` as a query is `SELECT * FROM t`. As an argument of a window function it stays what it is.
pub(super) fn whole_tables(words: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    const BEFORE: [&str; 14] =
        ["EXPLAIN", "FOR", "UNION", "INTERSECT", "EXCEPT", "ALL", "ANY", "SOME", "DISTINCT", "EXISTS", "AS", "IN", "FROM", "JOIN"];
    let is_insert = words.first().is_some_and(|word| says(word, "INSERT") || says(word, "EXECUTE"));
    let is_query = |at: usize| {
        if !says(&words[at], "TABLE") || !words.get(at + 1).is_some_and(|next| matches!(next.token, Token::Word(_))) {
            return false;
        }
        let Some(before) = words[..at].iter().rposition(|word| word.token != Token::LParen) else { return true };
        let (word, in_brackets) = (&words[before], before + 1 < at);
        let ends_names = word.token == Token::RParen || matches!(word.token, Token::Word(_)) && !says(word, "INTO");
        BEFORE.iter().any(|known| says(word, known)) || if in_brackets { word.token == Token::Comma } else { is_insert && ends_names }
    };
    let mut out = Vec::with_capacity(words.len());
    for (at, word) in words.iter().enumerate() {
        if is_query(at) {
            let with = |token: Token| TokenWithSpan { token, span: word.span };
            out.extend([with(Token::make_keyword("SELECT")), with(Token::Mul), with(Token::make_keyword("FROM"))]);
        } else {
            out.push(word.clone());
        }
    }
    out
}

/// The name of a table without the catalog and the database before it.
pub(super) fn bare(name: &mut ObjectName) {
    let is = |place: usize, word: &str| name.0.get(place).and_then(|part| part.as_ident()).is_some_and(|ident| ident.value == word);
    match name.0.len() {
        3 if is(0, CATALOG) && is(1, DATABASE) => drop(name.0.drain(..2)),
        2 if is(0, DATABASE) => drop(name.0.drain(..1)),
        _ => {}
    }
}

struct Plain;

impl VisitorMut for Plain {
    type Break = SqlError;

    fn pre_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<SqlError> {
        bare(relation);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<SqlError> {
        let what = match table {
            TableFactor::Pivot { .. } => "PIVOT",
            TableFactor::Unpivot { .. } => "UNPIVOT",
            _ => return ControlFlow::Continue(()),
        };
        let instead = "SUM(x) FILTER (WHERE k = 'a') AS a, or UNION ALL";
        ControlFlow::Break(SqlError::unsupported(what, "the dialect has no such clause", instead).at(table.span()))
    }

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<SqlError> {
        match fetched(query).and_then(|()| selects(&query.body)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

/// `FETCH FIRST n ROWS ONLY` is `LIMIT n`.
fn fetched(query: &mut Query) -> SqlResult<()> {
    let Some(Fetch { with_ties, percent, quantity }) = query.fetch.take() else { return Ok(()) };
    if with_ties || percent {
        return Err(SqlError::unsupported("FETCH with TIES or PERCENT", "rows are counted one by one", "FETCH FIRST n ROWS ONLY"));
    }
    let limit = Some(quantity.unwrap_or_else(|| Expr::Value(Value::Number("1".into(), false).into())));
    match &mut query.limit_clause {
        None => query.limit_clause = Some(LimitClause::LimitOffset { limit, offset: None, limit_by: Vec::new() }),
        Some(LimitClause::LimitOffset { limit: none @ None, .. }) => *none = limit,
        Some(_) => return Err(SqlError::new("LIMIT and FETCH say the same").help("leave one of them out")),
    }
    Ok(())
}

fn selects(body: &SetExpr) -> SqlResult<()> {
    match body {
        // The parser takes more words for it than there are.
        SetExpr::Table(_) => Err(SqlError::unsupported("TABLE here", "it is a query at the beginning or in brackets", "SELECT * FROM t")),
        SetExpr::Select(select) => clauses(select),
        SetExpr::SetOperation { left, right, .. } => selects(left).and_then(|()| selects(right)),
        _ => Ok(()),
    }
}

fn clauses(select: &Select) -> SqlResult<()> {
    let (what, instead) = match (&select.distinct, &select.top) {
        (Some(Distinct::On(_)), _) => {
            ("DISTINCT ON", "SELECT .. FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY k ORDER BY ts) AS n FROM t) WHERE n = 1")
        }
        (_, Some(_)) => ("TOP", "LIMIT n at the end"),
        _ => return Ok(()),
    };
    Err(SqlError::unsupported(what, "the dialect has no such clause", instead).at(select.span()))
}
