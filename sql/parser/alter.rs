//! `ALTER TABLE t ..` and `ALTER VIEW v ..` as Flink writes them.
//!
//! Invariant: a clause that is read here is carried out whole; one that is not understood is an error.

use super::create_table::{self, ColumnDef, CreateTable, WatermarkDef};
use super::{OrSyntax, name, take_words, text, whole_query, word_at};
use crate::error::{SqlError, SqlResult};
use datafusion_sql::sqlparser::ast::{Ident, Query};
use datafusion_sql::sqlparser::parser::Parser;
use datafusion_sql::sqlparser::tokenizer::{Span, Token};

/// A declaration that is changed.
#[derive(Debug, Clone)]
pub struct Alter {
    /// Of a view, not a table.
    pub view: bool,
    /// Its name.
    pub name: Ident,
    /// A missing one is no error.
    pub if_exists: bool,
    /// How.
    pub change: Change,
}

/// How a declaration is changed.
#[derive(Debug, Clone)]
pub enum Change {
    /// `RENAME TO name`.
    Rename(Ident),
    /// `RENAME column TO name`.
    RenameColumn(Ident, Ident),
    /// `SET ('key' = 'value', ..)`: key, value and place of the key.
    Set(Vec<(String, String, Span)>),
    /// `RESET ('key', ..)`.
    Reset(Vec<(String, Span)>),
    /// `ADD ..`.
    Add(Vec<Element>),
    /// `MODIFY ..`.
    Modify(Vec<Element>),
    /// `DROP column` or `DROP (column, ..)`.
    Drop(Vec<Ident>),
    /// `DROP PRIMARY KEY`.
    DropKey(Span),
    /// `DROP WATERMARK`.
    DropWatermark(Span),
    /// `AS query`, of a view.
    Query(Box<Query>),
}

/// A part of a declaration that is added or put in the place of one of its kind.
#[derive(Debug, Clone)]
pub enum Element {
    /// A column, and where it goes.
    Column(ColumnDef, Position),
    /// The watermark.
    Watermark(Box<WatermarkDef>),
    /// The primary key.
    PrimaryKey(Vec<Ident>, Span),
}

/// Where a column goes.
#[derive(Debug, Clone)]
pub enum Position {
    /// It is not said: a new one behind all others.
    Unsaid,
    /// Before all others.
    First,
    /// Behind this one.
    After(Ident),
}

/// After `ALTER`.
pub(super) fn parse(parser: &mut Parser<'_>) -> SqlResult<Alter> {
    let place = parser.peek_token_ref().span;
    let view = match word_at(parser, 0).as_str() {
        "TABLE" => false,
        "VIEW" => true,
        what => return Err(SqlError::unsupported(&format!("ALTER {what}"), "only tables and views are kept", "").at(place)),
    };
    parser.next_token();
    let if_exists = take_words(parser, &["IF", "EXISTS"]);
    let name = name(parser)?;
    let change = if view { of_view(parser)? } else { of_table(parser)? };
    Ok(Alter { view, name, if_exists, change })
}

fn of_view(parser: &mut Parser<'_>) -> SqlResult<Change> {
    if take_words(parser, &["RENAME", "TO"]) {
        return name(parser).map(Change::Rename);
    }
    if take_words(parser, &["AS"]) {
        return whole_query(parser).map(Change::Query);
    }
    Err(SqlError::new("ALTER VIEW knows RENAME TO and AS").at(parser.peek_token_ref().span))
}

fn of_table(parser: &mut Parser<'_>) -> SqlResult<Change> {
    let place = parser.peek_token_ref().span;
    if take_words(parser, &["RENAME", "TO"]) {
        return name(parser).map(Change::Rename);
    }
    if take_words(parser, &["RENAME"]) {
        let column = parser.parse_identifier().or_syntax(parser)?;
        if !take_words(parser, &["TO"]) {
            return Err(SqlError::new("TO and the new name are expected").at(parser.peek_token_ref().span));
        }
        return Ok(Change::RenameColumn(column, parser.parse_identifier().or_syntax(parser)?));
    }
    if take_words(parser, &["SET"]) {
        let mut options = Vec::new();
        create_table::options(parser, &mut options)?;
        return Ok(Change::Set(options));
    }
    if take_words(parser, &["RESET"]) {
        let key = |parser: &mut Parser<'_>| {
            let place = parser.peek_token_ref().span;
            text(parser).map(|key| (key, place))
        };
        return listed(parser, key).map(Change::Reset);
    }
    if take_words(parser, &["ADD"]) {
        return elements(parser).map(Change::Add);
    }
    if take_words(parser, &["MODIFY"]) {
        return elements(parser).map(Change::Modify);
    }
    if take_words(parser, &["DROP"]) {
        if take_words(parser, &["PRIMARY", "KEY"]) {
            return Ok(Change::DropKey(place));
        }
        if take_words(parser, &["CONSTRAINT"]) {
            // A key is the only one, and its name is not kept.
            parser.parse_identifier().or_syntax(parser)?;
            return Ok(Change::DropKey(place));
        }
        if take_words(parser, &["WATERMARK"]) {
            return Ok(Change::DropWatermark(place));
        }
        if take_words(parser, &["PARTITION"]) {
            let why = "partitions are the folders that are there";
            return Err(SqlError::unsupported("DROP PARTITION", why, "take the folder away").at(place));
        }
        let _ = take_words(parser, &["COLUMN"]);
        if parser.peek_token_ref().token != Token::LParen {
            return Ok(Change::Drop(vec![parser.parse_identifier().or_syntax(parser)?]));
        }
        return listed(parser, |parser| parser.parse_identifier().or_syntax(parser)).map(Change::Drop);
    }
    Err(SqlError::new("ALTER TABLE knows RENAME, ADD, MODIFY, DROP, SET and RESET").at(place))
}

/// Things in brackets, with commas between them.
fn listed<T>(parser: &mut Parser<'_>, mut one: impl FnMut(&mut Parser<'_>) -> SqlResult<T>) -> SqlResult<Vec<T>> {
    parser.expect_token(&Token::LParen).or_syntax(parser)?;
    let mut all = vec![one(parser)?];
    while parser.consume_token(&Token::Comma) {
        all.push(one(parser)?);
    }
    parser.expect_token(&Token::RParen).or_syntax(parser)?;
    Ok(all)
}

/// One part of a declaration, or several in brackets.
fn elements(parser: &mut Parser<'_>) -> SqlResult<Vec<Element>> {
    if parser.peek_token_ref().token == Token::LParen {
        let all = listed(parser, element)?;
        return Ok(all.into_iter().flatten().collect());
    }
    let _ = take_words(parser, &["COLUMN"]);
    element(parser)
}

/// A column, which may be the primary key too.
fn element(parser: &mut Parser<'_>) -> SqlResult<Vec<Element>> {
    let place = parser.peek_token_ref().span;
    let mut table = CreateTable::named(Ident::new(""));
    create_table::element(parser, &mut table)?;
    let position = if take_words(parser, &["FIRST"]) {
        Position::First
    } else if take_words(parser, &["AFTER"]) {
        Position::After(parser.parse_identifier().or_syntax(parser)?)
    } else {
        Position::Unsaid
    };
    let CreateTable { columns, watermark, primary_key, .. } = table;
    let mut elements: Vec<Element> = columns.into_iter().map(|column| Element::Column(column, position.clone())).collect();
    elements.extend(watermark.map(|watermark| Element::Watermark(Box::new(watermark))));
    if !primary_key.is_empty() {
        elements.push(Element::PrimaryKey(primary_key, place));
    }
    Ok(elements)
}
