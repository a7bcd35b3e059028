//! JSON functions with the clauses of the standard; what the clauses say become arguments of the function.
//!
//! Invariant: a clause that is not known is an error; it is never left out.

use super::{take_words, word_at};
use crate::plan::sugar::{call as function, text};
use datafusion_sql::sqlparser::ast::{
    CastKind, DataType, Expr, FunctionArgumentClause, FunctionArguments, NullTreatment, UnaryOperator, Value,
};
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::Token;

type Parsed = Result<Expr, ParserError>;

/// A call that begins here.
pub(super) fn call(parser: &mut Parser<'_>) -> Option<Parsed> {
    if parser.peek_nth_token_ref(1).token != Token::LParen {
        return None;
    }
    let read: fn(&mut Parser<'_>) -> Parsed = match word_at(parser, 0).as_str() {
        "JSON_VALUE" => value,
        "JSON_QUERY" => query,
        "JSON_EXISTS" => exists,
        "JSON_OBJECT" => |parser| members(parser, true),
        "JSON_ARRAY" => |parser| members(parser, false),
        "JSON_OBJECTAGG" => return Some(aggregate(parser, true)),
        "JSON_ARRAYAGG" => return Some(aggregate(parser, false)),
        _ => return None,
    };
    parser.next_token();
    parser.next_token();
    Some(read(parser).and_then(|expr| parser.expect_token(&Token::RParen).map(|_| expr)))
}

/// `x IS [NOT] JSON [VALUE | SCALAR | ARRAY | OBJECT]`.
pub(super) fn is_json(parser: &mut Parser<'_>, expr: &Expr) -> Option<Expr> {
    let is = take_words(parser, &["IS", "JSON"]);
    if !is && !take_words(parser, &["IS", "NOT", "JSON"]) {
        return None;
    }
    let kind = ["VALUE", "SCALAR", "ARRAY", "OBJECT"].into_iter().find(|kind| take_words(parser, &[kind])).unwrap_or("VALUE");
    let test = function("is_json", vec![expr.clone(), text(kind)]);
    Some(if is { test } else { Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(test) } })
}

fn document(parser: &mut Parser<'_>) -> Result<Vec<Expr>, ParserError> {
    let document = parser.parse_expr()?;
    parser.expect_token(&Token::Comma)?;
    Ok(vec![document, parser.parse_expr()?])
}

/// What to do `ON EMPTY` and `ON ERROR`: the words, and the value of DEFAULT.
fn behaviours(parser: &mut Parser<'_>, known: &[&'static [&'static str]]) -> Result<[(String, Expr); 2], ParserError> {
    let none = || ("NULL".to_string(), Expr::Value(Value::Null.into()));
    let mut said = [none(), none()];
    loop {
        let mut this = none();
        if let Some(words) = known.iter().find(|words| take_words(parser, words)) {
            this.0 = words.join(" ");
            if this.0 == "DEFAULT" {
                this.1 = as_text(parser.parse_expr()?);
            }
        } else {
            return Ok(said);
        }
        if take_words(parser, &["ON", "EMPTY"]) {
            said[0] = this;
        } else if take_words(parser, &["ON", "ERROR"]) {
            said[1] = this;
        } else {
            return parser.expected("ON EMPTY or ON ERROR", parser.peek_token());
        }
    }
}

fn cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}

fn as_text(expr: Expr) -> Expr {
    cast(expr, DataType::Varchar(None))
}

fn value(parser: &mut Parser<'_>) -> Parsed {
    let mut args = document(parser)?;
    let mut returning = None;
    if take_words(parser, &["RETURNING"]) {
        let place = parser.peek_token();
        let kind = parser.parse_data_type()?;
        let name = match kind.to_string().to_uppercase().as_str() {
            "BOOLEAN" => "BOOLEAN",
            "INT" | "INTEGER" => "INTEGER",
            "BIGINT" => "BIGINT",
            "DOUBLE" => "DOUBLE",
            name if name == "STRING" || name.starts_with("VARCHAR") => "STRING",
            _ => return parser.expected("STRING, BOOLEAN, INTEGER, BIGINT or DOUBLE", place),
        };
        returning = Some((name, kind));
    }
    let [(empty, empty_default), (error, error_default)] = behaviours(parser, &[&["NULL"], &["ERROR"], &["DEFAULT"]])?;
    args.extend([text(returning.as_ref().map_or("STRING", |r| r.0)), text(&empty), empty_default, text(&error), error_default]);
    let value = function("json_value", args);
    Ok(match returning {
        Some((name, kind)) if name != "STRING" => cast(value, kind),
        _ => value,
    })
}

fn query(parser: &mut Parser<'_>) -> Parsed {
    let mut args = document(parser)?;
    if take_words(parser, &["RETURNING"]) {
        let place = parser.peek_token();
        let kind = parser.parse_data_type()?.to_string().to_uppercase();
        if kind != "STRING" && !kind.starts_with("VARCHAR") {
            return parser.expected("STRING", place);
        }
    }
    let mut wrapper = "WITHOUT";
    if take_words(parser, &["WITHOUT"]) {
        let _ = take_words(parser, &["ARRAY"]);
        parser.expect_keyword_is(Keyword::WRAPPER)?;
    } else if take_words(parser, &["WITH"]) {
        wrapper = if take_words(parser, &["CONDITIONAL"]) { "CONDITIONAL" } else { "UNCONDITIONAL" };
        let _ = take_words(parser, &["UNCONDITIONAL"]);
        let _ = take_words(parser, &["ARRAY"]);
        parser.expect_keyword_is(Keyword::WRAPPER)?;
    }
    let [(empty, _), (error, _)] = behaviours(parser, &[&["NULL"], &["ERROR"], &["EMPTY", "ARRAY"], &["EMPTY", "OBJECT"]])?;
    args.extend([text(wrapper), text(&empty), text(&error)]);
    Ok(function("json_query", args))
}

fn exists(parser: &mut Parser<'_>) -> Parsed {
    let mut args = document(parser)?;
    let said = ["TRUE", "FALSE", "UNKNOWN", "ERROR"].into_iter().find(|word| take_words(parser, &[word, "ON", "ERROR"]));
    args.push(text(said.unwrap_or("FALSE")));
    Ok(function("json_exists", args))
}

/// Of an object: `[KEY] 'name' VALUE x, ...`; of an array: `x, ...`.
fn members(parser: &mut Parser<'_>, named: bool) -> Parsed {
    let mut args = Vec::new();
    let ends = |parser: &Parser<'_>| parser.peek_token_ref().token == Token::RParen || word_at(parser, 1) == "ON";
    while !ends(parser) {
        if named {
            let _ = take_words(parser, &["KEY"]);
            args.push(parser.parse_expr()?);
            if !take_words(parser, &["VALUE"]) {
                return parser.expected("VALUE", parser.peek_token());
            }
        }
        let value = parser.parse_expr()?;
        args.extend([text(if is_json_already(&value) { "raw" } else { "plain" }), value]);
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    let absent = take_words(parser, &["ABSENT", "ON", "NULL"]) || (!take_words(parser, &["NULL", "ON", "NULL"]) && !named);
    args.insert(0, text(if absent { "ABSENT" } else { "NULL" }));
    Ok(function(if named { "json_object" } else { "json_array" }, args))
}

fn is_json_already(value: &Expr) -> bool {
    matches!(value, Expr::Function(f) if ["json_object", "json_array", "json_object_of", "json_array_of"].contains(&f.name.to_string().as_str()))
}

/// `JSON_OBJECTAGG([KEY] key VALUE x)` and `JSON_ARRAYAGG(x)`: texts of JSON that ARRAY_AGG gathers, made one by a function of the
/// result.
fn aggregate(parser: &mut Parser<'_>, named: bool) -> Parsed {
    parser.next_token();
    parser.next_token();
    let mut key = None;
    if named {
        let _ = take_words(parser, &["KEY"]);
        key = Some(parser.parse_expr()?);
        if !take_words(parser, &["VALUE"]) {
            return parser.expected("VALUE", parser.peek_token());
        }
    }
    let value = parser.parse_expr()?;
    let absent = take_words(parser, &["ABSENT", "ON", "NULL"]) || (!take_words(parser, &["NULL", "ON", "NULL"]) && !named);
    parser.expect_token(&Token::RParen)?;
    let mut member = if is_json_already(&value) { value } else { function("json_string", vec![value]) };
    if !absent {
        member = function("coalesce", vec![member, text("null")]);
    }
    if let Some(key) = key {
        // One without a name is told when the object is made.
        let name = function("coalesce", vec![function("json_quote", vec![key]), text("")]);
        member = function("concat", vec![name, text(":"), member]);
    }
    let Expr::Function(mut gathered) = function("array_agg", vec![member]) else {
        return parser.expected("a function", parser.peek_token());
    };
    if let FunctionArguments::List(list) = &mut gathered.args
        && absent
    {
        list.clauses.push(FunctionArgumentClause::IgnoreOrRespectNulls(NullTreatment::IgnoreNulls));
    }
    if take_words(parser, &["FILTER"]) {
        parser.expect_token(&Token::LParen)?;
        parser.expect_keyword_is(Keyword::WHERE)?;
        gathered.filter = Some(Box::new(parser.parse_expr()?));
        parser.expect_token(&Token::RParen)?;
    }
    if word_at(parser, 0) == "OVER" {
        return parser.expected("no OVER, which JSON_OBJECTAGG and JSON_ARRAYAGG do not take", parser.peek_token());
    }
    Ok(function(if named { "json_object_of" } else { "json_array_of" }, vec![Expr::Function(gathered)]))
}
