//! Flink's dialect for the parser: back-quoted names, `U&'\00e4'`, `TABLE t` as an argument, `MAP[..]`, `TRIM(BOTH FROM s)`, CAST to
//! Flink's types, the clauses of JSON functions.
//!
//! Invariant: everything else is the generic dialect, the union of all others.

use super::cast_type;
use crate::plan::sugar::{call, text};
use crate::plan::{CAST_TO, TRY_CAST_TO};
use datafusion_sql::sqlparser::ast::{BinaryOperator, CastKind, Expr, TrimWhereField};
use datafusion_sql::sqlparser::dialect::{Dialect, GenericDialect};
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::Token;
use std::any::TypeId;

/// The dialect.
#[derive(Debug)]
pub(crate) struct FlinkDialect;

impl Dialect for FlinkDialect {
    fn dialect(&self) -> TypeId {
        TypeId::of::<GenericDialect>()
    }

    fn is_delimited_identifier_start(&self, c: char) -> bool {
        c == '`' || c == '"'
    }

    fn is_identifier_start(&self, c: char) -> bool {
        c.is_alphabetic() || c == '_'
    }

    fn is_identifier_part(&self, c: char) -> bool {
        c.is_alphanumeric() || c == '_' || c == '$'
    }

    fn supports_filter_during_aggregation(&self) -> bool {
        true
    }

    fn supports_group_by_expr(&self) -> bool {
        true
    }

    fn supports_unicode_string_literal(&self) -> bool {
        true
    }

    fn supports_named_fn_args_with_rarrow_operator(&self) -> bool {
        true
    }

    fn supports_match_recognize(&self) -> bool {
        true
    }

    fn supports_table_versioning(&self) -> bool {
        true
    }

    /// `TABLE bid` as an argument of a window function is the query of all its rows.
    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        if let Some(call) = super::json::call(parser) {
            return Some(call);
        }
        if super::word_at(parser, 0) == "MAP" && parser.peek_nth_token_ref(1).token == Token::LBracket {
            return Some(map(parser));
        }
        if let Some(kind) = cast_kind(parser) {
            return Some(cast(parser, kind));
        }
        let is_trim = super::word_at(parser, 0) == "TRIM" && parser.peek_nth_token_ref(1).token == Token::LParen;
        if is_trim && super::word_at(parser, 3) == "FROM" {
            return trim_blanks(parser);
        }
        let [first, second] = parser.peek_tokens_ref::<2>();
        let is_table = matches!(&first.token, Token::Word(w) if w.keyword == Keyword::TABLE && w.quote_style.is_none());
        if !is_table || !matches!(&second.token, Token::Word(_)) {
            return None;
        }
        Some(table_argument(parser))
    }

    /// `a IS [NOT] DISTINCT FROM b AND c`: the generic dialect takes `b AND c` for the second value.
    fn parse_infix(&self, parser: &mut Parser, expr: &Expr, precedence: u8) -> Option<Result<Expr, ParserError>> {
        if let Some(test) = super::json::is_json(parser, expr) {
            return Some(Ok(test));
        }
        if let Some(test) = between(parser, expr, precedence) {
            return Some(test);
        }
        let words =
            parser.peek_tokens_ref::<4>().map(|token| if let Token::Word(w) = &token.token { w.keyword } else { Keyword::NoKeyword });
        let (is_distinct, words) = match words {
            [Keyword::IS, Keyword::DISTINCT, Keyword::FROM, _] => (true, 3),
            [Keyword::IS, Keyword::NOT, Keyword::DISTINCT, Keyword::FROM] => (false, 4),
            _ => return None,
        };
        for _ in 0..words {
            parser.next_token();
        }
        let (left, right) = (Box::new(expr.clone()), parser.parse_subexpr(precedence).map(Box::new));
        let make = if is_distinct { Expr::IsDistinctFrom } else { Expr::IsNotDistinctFrom };
        Some(right.map(|right| make(left, right)))
    }
}

/// `a [NOT] BETWEEN SYMMETRIC b AND c`: the bounds in either order; ASYMMETRIC: in this one, as without a word.
fn between(parser: &mut Parser<'_>, expr: &Expr, precedence: u8) -> Option<Result<Expr, ParserError>> {
    let (negated, symmetric) = [(false, true), (false, false), (true, true), (true, false)].into_iter().find(|(negated, symmetric)| {
        let order = if *symmetric { "SYMMETRIC" } else { "ASYMMETRIC" };
        let words: &[&str] = if *negated { &["NOT", "BETWEEN", order] } else { &["BETWEEN", order] };
        super::take_words(parser, words)
    })?;
    let mut bounds = || {
        let low = parser.parse_subexpr(precedence)?;
        parser.expect_keyword_is(Keyword::AND)?;
        Ok((low, parser.parse_subexpr(precedence)?))
    };
    let within = |low: Expr, high: Expr| Expr::Between { expr: Box::new(expr.clone()), negated, low: Box::new(low), high: Box::new(high) };
    Some(bounds().map(|(low, high)| match symmetric {
        false => within(low, high),
        true => {
            let either = if negated { BinaryOperator::And } else { BinaryOperator::Or };
            let (left, right) = (Box::new(within(low.clone(), high.clone())), Box::new(within(high, low)));
            Expr::Nested(Box::new(Expr::BinaryOp { left, op: either, right }))
        }
    }))
}

/// `TABLE t [PARTITION BY a, b]`. The columns travel as CLUSTER BY, which no query of the dialect has.
fn table_argument(parser: &mut Parser) -> Result<Expr, ParserError> {
    parser.next_token();
    let name = parser.parse_object_name(false)?;
    let mut text = format!("SELECT * FROM {name}");
    if parser.parse_keywords(&[Keyword::PARTITION, Keyword::BY]) {
        let mut columns = vec![parser.parse_identifier()?.to_string()];
        while another_column(parser) {
            parser.next_token();
            columns.push(parser.parse_identifier()?.to_string());
        }
        text.push_str(&format!(" CLUSTER BY {}", columns.join(", ")));
    }
    let query = Parser::new(&FlinkDialect).try_with_sql(&text)?.parse_query()?;
    Ok(Expr::Subquery(query))
}

/// Whether a comma and one more column follow, and not the next argument: `DESCRIPTOR(...)`, an interval, `name => ...`.
fn another_column(parser: &Parser) -> bool {
    let [comma, name, behind] = parser.peek_tokens_ref::<3>();
    let is_name = matches!(&name.token, Token::Word(w) if w.keyword != Keyword::INTERVAL || w.quote_style.is_some());
    comma.token == Token::Comma && is_name && !matches!(behind.token, Token::LParen | Token::RArrow)
}

/// `TRIM(BOTH FROM text)`: without what is trimmed, that is blanks.
fn trim_blanks(parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
    let side = match super::word_at(parser, 2).as_str() {
        "BOTH" => TrimWhereField::Both,
        "LEADING" => TrimWhereField::Leading,
        "TRAILING" => TrimWhereField::Trailing,
        _ => return None,
    };
    for _ in 0..4 {
        parser.next_token();
    }
    let text = parser.parse_expr().and_then(|expr| parser.expect_token(&Token::RParen).map(|_| expr));
    Some(text.map(|expr| Expr::Trim { expr: Box::new(expr), trim_where: Some(side), trim_what: None, trim_characters: None }))
}

/// The cast that begins here.
fn cast_kind(parser: &Parser<'_>) -> Option<CastKind> {
    let kind = match super::word_at(parser, 0).as_str() {
        "CAST" => CastKind::Cast,
        "TRY_CAST" => CastKind::TryCast,
        _ => return None,
    };
    (parser.peek_nth_token_ref(1).token == Token::LParen).then_some(kind)
}

/// `CAST(x AS type)`: as a call where only Flink has the type.
fn cast(parser: &mut Parser<'_>, kind: CastKind) -> Result<Expr, ParserError> {
    parser.next_token();
    parser.expect_token(&Token::LParen)?;
    let expr = parser.parse_expr()?;
    parser.expect_keyword_is(Keyword::AS)?;
    let (place, words) = (parser.peek_token_ref().span.start, type_words(parser));
    let written = words.join(" ");
    let is_own = matches!(super::word_at(parser, 0).as_str(), "ROW" | "ARRAY" | "MAP" | "MULTISET" | "TIMESTAMP_LTZ" | "INTERVAL");
    if !is_own && !written.contains(" LOCAL ") {
        let data_type = parser.parse_data_type()?;
        parser.expect_token(&Token::RParen)?;
        return Ok(Expr::Cast { kind, expr: Box::new(expr), data_type, array: false, format: None });
    }
    // The parser's errors have their place behind them.
    cast_type(&written).map_err(|e| ParserError::ParserError(format!("{}{place}", e.message())))?;
    for _ in words {
        parser.next_token();
    }
    parser.expect_token(&Token::RParen)?;
    let name = if kind == CastKind::Cast { CAST_TO } else { TRY_CAST_TO };
    Ok(call(name, vec![expr, text(&written)]))
}

/// The words up to the bracket that closes what is around them.
fn type_words(parser: &Parser<'_>) -> Vec<String> {
    let (mut depth, mut words) = (0usize, Vec::new());
    for n in 0.. {
        match &parser.peek_nth_token_ref(n).token {
            Token::EOF => break,
            Token::RParen if depth == 0 => break,
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ => {}
        }
        words.push(parser.peek_nth_token_ref(n).token.to_string());
    }
    words
}

/// `MAP[key, value, ..]`.
fn map(parser: &mut Parser<'_>) -> Result<Expr, ParserError> {
    parser.next_token();
    parser.expect_token(&Token::LBracket)?;
    let entries = parser.parse_comma_separated(Parser::parse_expr)?;
    parser.expect_token(&Token::RBracket)?;
    Ok(call("map_of", entries))
}
