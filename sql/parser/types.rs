//! Flink's column types and what they are in Arrow.
//!
//! Invariant: every type that parses has one Arrow type that holds all its values; text is `Utf8`, timestamps have the unit of
//! their precision, `TIMESTAMP_LTZ` is in UTC.

use super::FlinkDialect;
use crate::error::{SqlError, SqlResult};
use crate::maps::{map_type, parts};
use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::parser::Parser;
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use std::borrow::Cow;

/// Characters of a CHAR(n), which is filled up, at most.
const LONGEST_FILLED: u64 = 1 << 20;

/// Characters of a STRING at most.
const LONGEST_TEXT: u64 = i32::MAX as u64;

/// Names for the error of an unknown type.
const NAMES: &[&str] = &[
    "BOOLEAN",
    "TINYINT",
    "SMALLINT",
    "INT",
    "INTEGER",
    "BIGINT",
    "FLOAT",
    "DOUBLE",
    "DECIMAL",
    "NUMERIC",
    "STRING",
    "VARCHAR",
    "CHAR",
    "BYTES",
    "VARBINARY",
    "BINARY",
    "DATE",
    "TIME",
    "TIMESTAMP",
    "TIMESTAMP_LTZ",
    "ROW",
    "ARRAY",
    "MAP",
    "MULTISET",
];

/// How long a text is in a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Length {
    /// `VARCHAR(n)`: so many characters at most.
    Most(u32),
    /// `CHAR(n)`: so many, filled up with blanks.
    Exactly(u32),
}

impl Length {
    /// A text of this length.
    pub(crate) fn of(self, text: &str) -> Cow<'_, str> {
        let (Length::Most(n) | Length::Exactly(n)) = self;
        let cut = text.char_indices().nth(n as usize).map_or(text, |(end, _)| &text[..end]);
        match self {
            Length::Exactly(n) if cut.len() == text.len() => {
                let missing = (n as usize).saturating_sub(text.chars().count());
                if missing == 0 { cut.into() } else { format!("{cut}{}", " ".repeat(missing)).into() }
            }
            _ => cut.into(),
        }
    }
}

/// The type that a text spells, and the lengths of the texts in it, in order.
///
/// # Errors
/// No type.
pub(crate) fn cast_type(text: &str) -> SqlResult<(DataType, Vec<Option<Length>>)> {
    let tokens = Tokenizer::new(&FlinkDialect, text).tokenize_with_location().map_err(|e| SqlError::new(e.message))?;
    let is_word = |t: &TokenWithSpan| !matches!(t.token, Token::Whitespace(_));
    let tokens = tokens.into_iter().filter(is_word).flat_map(super::halves).collect();
    let mut parser = Parser::new(&FlinkDialect).with_tokens_with_locations(tokens);
    let mut lengths = Vec::new();
    let kind = parse_bare(&mut parser, &mut lengths)?;
    match parser.peek_token_ref().token {
        Token::EOF => Ok((kind, lengths)),
        _ => Err(SqlError::new(format!("{text} is no type"))),
    }
}

/// A type, and whether `NOT NULL` follows.
pub(super) fn parse_type(parser: &mut Parser<'_>) -> SqlResult<(DataType, bool)> {
    parse_part(parser, &mut Vec::new())
}

fn parse_part(parser: &mut Parser<'_>, lengths: &mut Vec<Option<Length>>) -> SqlResult<(DataType, bool)> {
    let kind = parse_bare(parser, lengths)?;
    let not_null = parser.parse_keywords(&[Keyword::NOT, Keyword::NULL]);
    if !not_null {
        let _ = parser.parse_keyword(Keyword::NULL);
    }
    Ok((kind, not_null))
}

fn parse_bare(parser: &mut Parser<'_>, lengths: &mut Vec<Option<Length>>) -> SqlResult<DataType> {
    let token = parser.next_token();
    let unknown = || SqlError::new(format!("{} is no column type", token.token)).at(token.span);
    let Token::Word(word) = &token.token else { return Err(unknown()) };
    let name = word.value.to_uppercase();
    Ok(match name.as_str() {
        "BOOLEAN" => DataType::Boolean,
        "TINYINT" => DataType::Int8,
        "SMALLINT" => DataType::Int16,
        "INT" | "INTEGER" => DataType::Int32,
        "BIGINT" => DataType::Int64,
        "FLOAT" => DataType::Float32,
        "DOUBLE" => {
            let _ = parser.parse_keyword(Keyword::PRECISION);
            DataType::Float64
        }
        "DECIMAL" | "DEC" | "NUMERIC" => {
            let (precision, scale) = pair(parser, (10, 0))?;
            let (Ok(precision @ 1..=38), Ok(scale)) = (u8::try_from(precision), i8::try_from(scale)) else {
                return Err(SqlError::new(format!("DECIMAL({precision}, {scale}): the precision is 1 to 38")).at(token.span));
            };
            if scale as u8 > precision {
                return Err(SqlError::new(format!("DECIMAL({precision}, {scale}): the scale is at most the precision")).at(token.span));
            }
            DataType::Decimal128(precision, scale)
        }
        "STRING" => {
            lengths.push(None);
            DataType::Utf8
        }
        "VARCHAR" | "CHAR" | "CHARACTER" => {
            let varies = parser.parse_keyword(Keyword::VARYING) || name == "VARCHAR";
            lengths.push(text_length(length(parser)?, varies).map_err(|e| e.at(token.span))?);
            DataType::Utf8
        }
        "BYTES" => DataType::Binary,
        "VARBINARY" | "BINARY" => {
            length(parser)?;
            DataType::Binary
        }
        "DATE" => DataType::Date32,
        "TIME" => {
            length(parser)?;
            DataType::Time32(TimeUnit::Millisecond)
        }
        "TIMESTAMP" | "TIMESTAMP_LTZ" => {
            let precision = length(parser)?.unwrap_or(6);
            let unit = match precision {
                0 => TimeUnit::Second,
                1..=3 => TimeUnit::Millisecond,
                4..=6 => TimeUnit::Microsecond,
                7..=9 => TimeUnit::Nanosecond,
                _ => return Err(SqlError::new("the precision of a timestamp is 0 to 9").at(token.span)),
            };
            let mut local = name == "TIMESTAMP_LTZ";
            if parser.parse_keyword(Keyword::WITH) {
                local = word_is(parser, "LOCAL");
                if !(local && word_is(parser, "TIME") && word_is(parser, "ZONE")) {
                    return Err(
                        SqlError::unsupported("TIMESTAMP WITH TIME ZONE", "values carry no zone", "write TIMESTAMP_LTZ(3)").at(token.span)
                    );
                }
            } else if parser.parse_keyword(Keyword::WITHOUT) && !(word_is(parser, "TIME") && word_is(parser, "ZONE")) {
                return Err(unknown());
            }
            DataType::Timestamp(unit, local.then(|| "UTC".into()))
        }
        "ROW" => row(parser, lengths)?,
        "ARRAY" => {
            expect(parser, &Token::Lt)?;
            let (item, _) = parse_part(parser, lengths)?;
            close_angle(parser)?;
            DataType::new_list(item, true)
        }
        "MAP" => {
            expect(parser, &Token::Lt)?;
            let (key, _) = parse_part(parser, lengths)?;
            if matches!(key, DataType::Struct(_) | DataType::List(_) | DataType::Map(..)) {
                return Err(SqlError::new(format!("{} is no key of a MAP", type_name(&key))).at(token.span).help("MAP<STRING, ...>"));
            }
            expect(parser, &Token::Comma)?;
            let (value, _) = parse_part(parser, lengths)?;
            close_angle(parser)?;
            map_type(key, value)
        }
        // A bag: how often each value is in it.
        "MULTISET" => {
            expect(parser, &Token::Lt)?;
            let (value, _) = parse_part(parser, lengths)?;
            if matches!(value, DataType::Struct(_) | DataType::List(_) | DataType::Map(..)) {
                return Err(SqlError::new(format!("{} is no value of a MULTISET", type_name(&value)))
                    .at(token.span)
                    .help("MULTISET<STRING>"));
            }
            close_angle(parser)?;
            map_type(value, DataType::Int32)
        }
        "RAW" | "VARIANT" | "INTERVAL" => {
            return Err(SqlError::unsupported(
                &format!("a column of type {name}"),
                "it has no form in a record yet",
                "use ROW<...> or STRING",
            )
            .at(token.span));
        }
        _ => return Err(unknown().nearest(&word.value, NAMES.iter().copied())),
    })
}

/// `ROW<a INT, b STRING>`, also with parentheses.
fn row(parser: &mut Parser<'_>, lengths: &mut Vec<Option<Length>>) -> SqlResult<DataType> {
    let round = parser.consume_token(&Token::LParen);
    if !round {
        expect(parser, &Token::Lt)?;
    }
    let mut fields = Vec::new();
    loop {
        let name = parser.parse_identifier().map_err(|e| super::syntax(e, parser))?.value;
        let (kind, _) = parse_part(parser, lengths)?;
        if matches!(parser.peek_token_ref().token, Token::SingleQuotedString(_)) {
            parser.next_token(); // a comment on the field
        }
        fields.push(Field::new(name, kind, true));
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    if round {
        expect(parser, &Token::RParen)?
    } else {
        close_angle(parser)?
    }
    Ok(DataType::Struct(fields.into()))
}

/// `>`; the first half of `>>` where two types end at once.
fn close_angle(parser: &mut Parser<'_>) -> SqlResult<()> {
    expect(parser, &Token::Gt)
}

fn expect(parser: &mut Parser<'_>, token: &Token) -> SqlResult<()> {
    parser.expect_token(token).map(drop).map_err(|e| super::syntax(e, parser))
}

fn word_is(parser: &mut Parser<'_>, word: &str) -> bool {
    let here = matches!(&parser.peek_token_ref().token, Token::Word(w) if w.value.eq_ignore_ascii_case(word));
    if here {
        parser.next_token();
    }
    here
}

/// `(n)`, if there.
fn length(parser: &mut Parser<'_>) -> SqlResult<Option<u64>> {
    if !parser.consume_token(&Token::LParen) {
        return Ok(None);
    }
    let n = parser.parse_literal_uint().map_err(|e| super::syntax(e, parser))?;
    expect(parser, &Token::RParen)?;
    Ok(Some(n))
}

/// What the length of a text type says.
fn text_length(written: Option<u64>, varies: bool) -> SqlResult<Option<Length>> {
    let most = if varies { LONGEST_TEXT } else { LONGEST_FILLED };
    let (name, make): (_, fn(u32) -> Length) = if varies { ("VARCHAR", Length::Most) } else { ("CHAR", Length::Exactly) };
    match (written, u32::try_from(written.unwrap_or(1))) {
        (None, _) if varies => Ok(None),
        (Some(LONGEST_TEXT..), _) if varies => Ok(None),
        (_, Ok(length)) if (1..=most).contains(&u64::from(length)) => Ok(Some(make(length))),
        (length, _) => Err(SqlError::new(format!("{name}({}): the length is 1 to {most}", length.unwrap_or(1)))),
    }
}

/// `(p, s)`, `(p)` or nothing.
fn pair(parser: &mut Parser<'_>, default: (u64, u64)) -> SqlResult<(u64, u64)> {
    if !parser.consume_token(&Token::LParen) {
        return Ok(default);
    }
    let first = parser.parse_literal_uint().map_err(|e| super::syntax(e, parser))?;
    let mut second = 0;
    if parser.consume_token(&Token::Comma) {
        second = parser.parse_literal_uint().map_err(|e| super::syntax(e, parser))?;
    }
    expect(parser, &Token::RParen)?;
    Ok((first, second))
}

/// How Flink writes an Arrow type.
pub fn type_name(kind: &DataType) -> String {
    let stamp = |unit: &TimeUnit| match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    };
    match kind {
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int8 => "TINYINT".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int32 => "INT".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::Float32 => "FLOAT".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Decimal128(p, s) => format!("DECIMAL({p}, {s})"),
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => "STRING".into(),
        DataType::Binary | DataType::BinaryView | DataType::LargeBinary => "BYTES".into(),
        DataType::Date32 => "DATE".into(),
        DataType::Time32(_) | DataType::Time64(_) => "TIME".into(),
        DataType::Timestamp(unit, None) => format!("TIMESTAMP({})", stamp(unit)),
        DataType::Timestamp(unit, Some(_)) => format!("TIMESTAMP_LTZ({})", stamp(unit)),
        DataType::Struct(fields) => {
            let fields: Vec<String> = fields.iter().map(|f| format!("{} {}", f.name(), type_name(f.data_type()))).collect();
            format!("ROW<{}>", fields.join(", "))
        }
        DataType::List(item) => format!("ARRAY<{}>", type_name(item.data_type())),
        map if parts(map).is_some() => parts(map)
            .map_or(String::new(), |(key, value)| format!("MAP<{}, {}>", type_name(key.data_type()), type_name(value.data_type()))),
        other => other.to_string(),
    }
}
