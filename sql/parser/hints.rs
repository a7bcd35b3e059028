//! Hints: `t /*+ OPTIONS('scan.startup.mode' = 'latest-offset') */` reads or writes a table with other options in that place.
//!
//! `STATE_TTL('a' = '1 d')` says how long state of an input is kept. To the tokenizer a hint is a comment. Here it is cut out of
//! the words, and a table that has one gets a name of its own in the statement, [`Hinted::name`], and its own name as an alias:
//! so every place of a query means one table with one set of options.
//!
//! Invariant: a hint that would change what comes out or what is read is heeded or refused, never passed over.

use super::{Words, text};
use crate::error::{SqlError, SqlResult};
use datafusion_sql::sqlparser::keywords::{Keyword, RESERVED_FOR_TABLE_ALIAS};
use datafusion_sql::sqlparser::parser::Parser;
use datafusion_sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer, Whitespace};

/// Says how joins are carried out on tables that end; there is one way here.
const WITHOUT_EFFECT: &[&str] =
    &["BROADCAST", "SHUFFLE_HASH", "SHUFFLE_MERGE", "NEST_LOOP", "MULTI_JOIN", "LOOKUP", "JSON_AGGREGATE_WRAPPED"];

/// A table with other options than it was declared with.
#[derive(Debug, Clone)]
pub struct Hinted {
    /// What it is called in the statement: `t#1`.
    pub name: String,
    /// The table that it is otherwise.
    pub of: String,
    /// Options and their places.
    pub options: Vec<(String, String, Span)>,
    /// Where the hint stands.
    pub span: Span,
}

/// What the hints of a statement say.
#[derive(Debug, Clone, Default)]
pub struct Hints {
    /// Tables with other options.
    pub tables: Vec<Hinted>,
    /// How long state of inputs is kept, by their names in the statement, with their places.
    pub lifetimes: Vec<(String, String, Span)>,
    /// What a person should know: hints that have no effect.
    pub notes: Vec<String>,
}

/// Whether a token is a hint.
pub(super) fn is_hint(token: &Token) -> bool {
    matches!(token, Token::Whitespace(Whitespace::MultiLineComment(text)) if text.trim_start().starts_with('+'))
}

/// The words without the hints, and what these say.
///
/// # Errors
/// A hint that is not known, or that stands where it means nothing.
pub(super) fn taken(words: Vec<TokenWithSpan>) -> SqlResult<(Vec<TokenWithSpan>, Hints)> {
    let (mut left, mut hints): (Vec<TokenWithSpan>, _) = (Vec::with_capacity(words.len()), Hints::default());
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        let comment = match &word.token {
            Token::Whitespace(Whitespace::MultiLineComment(text)) => text.clone(),
            _ => {
                left.push(word);
                continue;
            }
        };
        for (name, arguments) in calls(&comment, word.span)? {
            if WITHOUT_EFFECT.contains(&name.as_str()) {
                hints.notes.push(format!("the hint {name} has no effect here"));
                continue;
            }
            let before = left.split_last().map(|(last, rest)| (last.clone(), rest.last().cloned()));
            let table = before.and_then(|(last, before)| table_name(&last, before.as_ref()));
            match (name.as_str(), table) {
                ("OPTIONS", Some(of)) => {
                    let hinted = Hinted { name: format!("{of}#{}", hints.tables.len() + 1), of, options: arguments, span: word.span };
                    rename(&mut left, &hinted, words.peek());
                    hints.tables.push(hinted);
                }
                ("OPTIONS", None) => {
                    return Err(SqlError::new("OPTIONS stands behind no table")
                        .at(word.span)
                        .help("it belongs behind the name:  FROM t /*+ OPTIONS('key' = 'value') */ AS a"));
                }
                ("STATE_TTL", _) => hints.lifetimes.extend(arguments),
                (other, _) => {
                    let known = ["OPTIONS", "STATE_TTL"].into_iter().chain(WITHOUT_EFFECT.iter().copied());
                    return Err(SqlError::new(format!("the hint {other} is not known")).at(word.span).nearest(other, known));
                }
            }
        }
    }
    Ok((left, hints))
}

/// The table that a word names, going by the word before it.
fn table_name(word: &TokenWithSpan, before: Option<&TokenWithSpan>) -> Option<String> {
    let Token::Word(name) = &word.token else { return None };
    let behind = match before.map(|word| &word.token) {
        Some(Token::Word(w)) => matches!(w.keyword, Keyword::FROM | Keyword::JOIN | Keyword::INTO | Keyword::TABLE),
        Some(Token::Comma) => true,
        _ => false,
    };
    behind.then(|| name.value.clone())
}

/// Gives the last word its name in the statement, and an alias where a query would miss its own.
fn rename(words: &mut Vec<TokenWithSpan>, hinted: &Hinted, next: Option<&TokenWithSpan>) {
    let before = words.len().checked_sub(2).and_then(|at| words.get(at)).map(|word| word.token.clone());
    let Some(last) = words.last_mut() else { return };
    let span = last.span;
    last.token = Token::make_word(&hinted.name, Some('`'));
    let is_reference = !matches!(&before, Some(Token::Word(w)) if matches!(w.keyword, Keyword::INTO | Keyword::TABLE));
    if is_reference && !has_alias(next) {
        let alias = [Token::make_keyword("AS"), Token::make_word(&hinted.of, Some('`'))];
        words.extend(alias.map(|token| TokenWithSpan { token, span }));
    }
}

/// Whether what follows a table is its alias, or a clause behind which the alias is.
fn has_alias(next: Option<&TokenWithSpan>) -> bool {
    match next.map(|word| &word.token) {
        Some(Token::Word(w)) if matches!(w.keyword, Keyword::AS | Keyword::FOR | Keyword::MATCH_RECOGNIZE) => true,
        Some(Token::Word(w)) => w.quote_style.is_some() || !RESERVED_FOR_TABLE_ALIAS.contains(&w.keyword),
        _ => false,
    }
}

/// `NAME('key' = 'value', ..) [,] NAME ..`: names in capitals, with those arguments that are options.
type Calls = Vec<(String, Vec<(String, String, Span)>)>;

fn calls(comment: &str, span: Span) -> SqlResult<Calls> {
    let broken = |why: &str| SqlError::new(format!("the hint cannot be read: {why}")).at(span).help("/*+ OPTIONS('key' = 'value') */");
    let inside = comment.trim_start().strip_prefix('+').unwrap_or_default();
    let tokens = Tokenizer::new(&super::FlinkDialect, inside).tokenize_with_location().map_err(|e| broken(&e.message))?;
    // Places inside of it are those of the text around, as long as the hint begins where its comment does.
    let skipped = 2 + comment.len() - inside.len();
    let tokens = tokens.into_iter().filter(|t| !matches!(t.token, Token::Whitespace(_))).map(|t| TokenWithSpan {
        span: Span { start: moved(t.span.start, span.start, skipped), end: moved(t.span.end, span.start, skipped) },
        ..t
    });
    let mut parser = Parser::new(&super::FlinkDialect).with_tokens_with_locations(tokens.collect());
    let mut all = Calls::new();
    while parser.peek_token_ref().token != Token::EOF {
        let Token::Word(name) = parser.next_token().token else { return Err(broken("a name is expected")) };
        let mut arguments = Vec::new();
        if parser.consume_token(&Token::LParen) {
            while !parser.consume_token(&Token::RParen) {
                let place = parser.peek_token_ref().span;
                match parser.peek_nth_token_ref(1).token {
                    Token::Eq => {
                        let key = text(&mut parser)?;
                        parser.next_token();
                        arguments.push((key, text(&mut parser)?, place));
                    }
                    Token::EOF => return Err(broken("a bracket is not closed")),
                    _ if ["OPTIONS", "STATE_TTL"].iter().any(|known| name.value.eq_ignore_ascii_case(known)) => {
                        return Err(broken("an option is 'key' = 'value'"));
                    }
                    _ => drop(parser.next_token()),
                }
                let _ = parser.consume_token(&Token::Comma);
            }
        }
        all.push((name.value.to_uppercase(), arguments));
        let _ = parser.consume_token(&Token::Comma);
    }
    if all.is_empty() { Err(broken("it is empty")) } else { Ok(all) }
}

fn moved(at: Location, origin: Location, skipped: usize) -> Location {
    if at.line > 1 {
        return Location { line: origin.line + at.line - 1, column: at.column };
    }
    Location { line: origin.line, column: origin.column + skipped as u64 + at.column - 1 }
}

impl Hints {
    /// An error where a statement with hints is none that can have them.
    pub(super) fn refused(&self, words: &Words) -> SqlResult<()> {
        let spans = self.tables.iter().map(|hinted| hinted.span).chain(self.lifetimes.iter().map(|lifetime| lifetime.2));
        match spans.into_iter().next() {
            None => Ok(()),
            Some(span) => Err(SqlError::new("a hint has no meaning in this statement").at(span).or_at(words.start())),
        }
    }
}
