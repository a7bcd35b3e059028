//! `CREATE TABLE` as Flink writes it: physical, computed and metadata columns, watermark, primary key, options.
//!
//! Invariant: an option or clause that is read here is kept in the definition; one that is not understood is an error.

use super::types::parse_type;
use super::{OrSyntax, name, take_words, text, word_at};
use crate::error::{SqlError, SqlResult};
use arrow::datatypes::DataType;
use datafusion_sql::sqlparser::ast::{Expr as SqlExpr, Ident, Query};
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::parser::Parser;
use datafusion_sql::sqlparser::tokenizer::{Span, Token};

/// A table as declared.
#[derive(Debug, Clone)]
pub struct CreateTable {
    /// Its name.
    pub name: Ident,
    /// Leave an existing one alone.
    pub if_not_exists: bool,
    /// No catalog keeps it.
    pub temporary: bool,
    /// Its columns in order.
    pub columns: Vec<ColumnDef>,
    /// Event time, if declared.
    pub watermark: Option<WatermarkDef>,
    /// Columns of the primary key.
    pub primary_key: Vec<Ident>,
    /// Columns that partition its files.
    pub partitioned_by: Vec<Ident>,
    /// `WITH`: key, value and place of the key.
    pub options: Vec<(String, String, Span)>,
    /// `LIKE table`: columns and options of another one come first.
    pub like: Option<Like>,
    /// `AS SELECT`: its columns are those of the query, which fills it.
    pub query: Option<Box<Query>>,
}

impl CreateTable {
    /// Of nothing but a name.
    pub(super) fn named(name: Ident) -> Self {
        CreateTable {
            name,
            if_not_exists: false,
            temporary: false,
            columns: Vec::new(),
            watermark: None,
            primary_key: Vec::new(),
            partitioned_by: Vec::new(),
            options: Vec::new(),
            like: None,
            query: None,
        }
    }
}

/// `LIKE table (INCLUDING ALL ...)`.
#[derive(Debug, Clone)]
pub struct Like {
    /// The other table.
    pub table: Ident,
    /// What is said of the parts of its declaration, in order; a part that nothing is said of goes by `ALL`.
    pub parts: Vec<(Part, Taking)>,
}

/// A part of a declaration that `LIKE` takes over or not. Physical columns always are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Whatever is not named.
    All,
    /// The primary key.
    Constraints,
    /// `PARTITIONED BY`.
    Partitions,
    /// Computed columns.
    Generated,
    /// Metadata columns.
    Metadata,
    /// `WITH`.
    Options,
    /// The watermark.
    Watermarks,
}

/// How a part is taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taking {
    /// It is; declared again it is an error.
    Including,
    /// It is not.
    Excluding,
    /// It is, unless declared again.
    Overwriting,
}

/// A column as declared.
#[derive(Debug, Clone)]
pub struct ColumnDef {
    /// Its name.
    pub name: Ident,
    /// Where its values come from.
    pub kind: ColumnKind,
    /// Declared `NOT NULL`.
    pub not_null: bool,
}

/// Where the values of a column come from.
#[derive(Debug, Clone)]
pub enum ColumnKind {
    /// From the record's value.
    Physical(DataType),
    /// From the record's surroundings: partition, offset, timestamp, key.
    Metadata {
        /// Its type.
        kind: DataType,
        /// Which; none = the column's own name.
        from: Option<String>,
        /// Declared `VIRTUAL`: an insert gives it no value.
        is_virtual: bool,
    },
    /// From other columns.
    Computed(Box<SqlExpr>),
}

/// `WATERMARK FOR column AS expression`.
#[derive(Debug, Clone)]
pub struct WatermarkDef {
    /// The column with the event time.
    pub column: Ident,
    /// The watermark of a row.
    pub expr: SqlExpr,
    /// Where it stands.
    pub span: Span,
}

/// After `CREATE TABLE`.
pub(super) fn parse(parser: &mut Parser<'_>) -> SqlResult<CreateTable> {
    let if_not_exists = take_words(parser, &["IF", "NOT", "EXISTS"]);
    let mut table = CreateTable { if_not_exists, ..CreateTable::named(name(parser)?) };
    if parser.consume_token(&Token::LParen) {
        elements(parser, &mut table)?;
    }
    loop {
        let place = parser.peek_token_ref().span;
        match word_at(parser, 0).as_str() {
            "COMMENT" => {
                parser.next_token();
                text(parser)?;
            }
            "PARTITIONED" => {
                parser.next_token();
                parser.expect_keyword_is(Keyword::BY).or_syntax(parser)?;
                table.partitioned_by = names(parser)?;
            }
            "WITH" => {
                parser.next_token();
                options(parser, &mut table.options)?;
            }
            "LIKE" => {
                parser.next_token();
                table.like = Some(Like { table: name(parser)?, parts: parts(parser)? });
            }
            "AS" => {
                parser.next_token();
                table.query = Some(parser.parse_query().or_syntax(parser)?);
            }
            "DISTRIBUTED" => {
                return Err(SqlError::unsupported("DISTRIBUTED BY", "the key of the record decides its partition", "key.fields").at(place));
            }
            _ => break,
        }
    }
    Ok(table)
}

/// `(INCLUDING ALL EXCLUDING OPTIONS ...)`, if there.
fn parts(parser: &mut Parser<'_>) -> SqlResult<Vec<(Part, Taking)>> {
    let mut parts = Vec::new();
    if !parser.consume_token(&Token::LParen) {
        return Ok(parts);
    }
    while !parser.consume_token(&Token::RParen) {
        let place = parser.peek_token_ref().span;
        let taking = match word_at(parser, 0).as_str() {
            "INCLUDING" => Taking::Including,
            "EXCLUDING" => Taking::Excluding,
            "OVERWRITING" => Taking::Overwriting,
            _ => return Err(SqlError::new("LIKE knows INCLUDING, EXCLUDING and OVERWRITING").at(place)),
        };
        parser.next_token();
        let (part, overwritten) = match word_at(parser, 0).as_str() {
            "ALL" => (Part::All, false),
            "CONSTRAINTS" => (Part::Constraints, false),
            "PARTITIONS" => (Part::Partitions, false),
            "GENERATED" => (Part::Generated, true),
            "METADATA" => (Part::Metadata, true),
            "OPTIONS" => (Part::Options, true),
            "WATERMARKS" => (Part::Watermarks, true),
            _ => {
                return Err(SqlError::new("the parts are ALL, CONSTRAINTS, PARTITIONS, GENERATED, METADATA, OPTIONS and WATERMARKS")
                    .at(parser.peek_token_ref().span));
            }
        };
        if taking == Taking::Overwriting && !overwritten {
            return Err(SqlError::new("only GENERATED, METADATA, OPTIONS and WATERMARKS can be OVERWRITING").at(place));
        }
        parser.next_token();
        parts.push((part, taking));
    }
    Ok(parts)
}

fn elements(parser: &mut Parser<'_>, table: &mut CreateTable) -> SqlResult<()> {
    loop {
        if parser.consume_token(&Token::RParen) {
            return Ok(());
        }
        element(parser, table)?;
        if !parser.consume_token(&Token::Comma) {
            return parser.expect_token(&Token::RParen).map(drop).or_syntax(parser);
        }
    }
}

pub(super) fn element(parser: &mut Parser<'_>, table: &mut CreateTable) -> SqlResult<()> {
    let place = parser.peek_token_ref().span;
    if take_words(parser, &["WATERMARK", "FOR"]) {
        let column = parser.parse_identifier().or_syntax(parser)?;
        parser.expect_keyword_is(Keyword::AS).or_syntax(parser)?;
        let expr = parser.parse_expr().or_syntax(parser)?;
        if table.watermark.is_some() {
            return Err(SqlError::new("a table has one WATERMARK").at(place));
        }
        table.watermark = Some(WatermarkDef { column, expr, span: place });
        return Ok(());
    }
    if take_words(parser, &["CONSTRAINT"]) {
        parser.parse_identifier().or_syntax(parser)?;
    }
    if take_words(parser, &["PRIMARY", "KEY"]) {
        let columns = names(parser)?;
        return primary_key(parser, table, columns, place);
    }
    column(parser, table)
}

fn primary_key(parser: &mut Parser<'_>, table: &mut CreateTable, columns: Vec<Ident>, place: Span) -> SqlResult<()> {
    if !take_words(parser, &["NOT", "ENFORCED"]) {
        return Err(SqlError::new("a PRIMARY KEY is not checked here").at(place).help("write NOT ENFORCED behind it"));
    }
    if !table.primary_key.is_empty() {
        return Err(SqlError::new("a table has one PRIMARY KEY").at(place));
    }
    table.primary_key = columns;
    Ok(())
}

fn column(parser: &mut Parser<'_>, table: &mut CreateTable) -> SqlResult<()> {
    let place = parser.peek_token_ref().span;
    let name = parser.parse_identifier().or_syntax(parser)?;
    if table.columns.iter().any(|c| c.name.value == name.value) {
        return Err(SqlError::new(format!("column {:?} is declared twice", name.value)).at(place));
    }
    if parser.parse_keyword(Keyword::AS) {
        let expr = parser.parse_expr().or_syntax(parser)?;
        comment(parser)?;
        table.columns.push(ColumnDef { name, kind: ColumnKind::Computed(Box::new(expr)), not_null: false });
        return Ok(());
    }
    let (kind, mut not_null) = parse_type(parser)?;
    let mut column_kind = ColumnKind::Physical(kind.clone());
    if take_words(parser, &["METADATA"]) {
        let from = if parser.parse_keyword(Keyword::FROM) { Some(text(parser)?) } else { None };
        column_kind = ColumnKind::Metadata { kind, from, is_virtual: take_words(parser, &["VIRTUAL"]) };
    }
    if take_words(parser, &["PRIMARY", "KEY"]) {
        not_null = true;
        primary_key(parser, table, vec![name.clone()], place)?;
    }
    comment(parser)?;
    table.columns.push(ColumnDef { name, kind: column_kind, not_null });
    Ok(())
}

fn comment(parser: &mut Parser<'_>) -> SqlResult<()> {
    if take_words(parser, &["COMMENT"]) {
        text(parser)?;
    }
    Ok(())
}

fn names(parser: &mut Parser<'_>) -> SqlResult<Vec<Ident>> {
    parser.expect_token(&Token::LParen).or_syntax(parser)?;
    let names = parser.parse_comma_separated(Parser::parse_identifier).or_syntax(parser)?;
    parser.expect_token(&Token::RParen).or_syntax(parser)?;
    Ok(names)
}

pub(super) fn options(parser: &mut Parser<'_>, options: &mut Vec<(String, String, Span)>) -> SqlResult<()> {
    parser.expect_token(&Token::LParen).or_syntax(parser)?;
    loop {
        if parser.consume_token(&Token::RParen) {
            return Ok(());
        }
        let place = parser.peek_token_ref().span;
        let key = text(parser)?;
        parser.expect_token(&Token::Eq).or_syntax(parser)?;
        let value = text(parser)?;
        if options.iter().any(|o| o.0 == key) {
            return Err(SqlError::new(format!("option '{key}' is given twice")).at(place));
        }
        options.push((key, value, place));
        if !parser.consume_token(&Token::Comma) {
            return parser.expect_token(&Token::RParen).map(drop).or_syntax(parser);
        }
    }
}
