//! Text to statements: Flink's DDL by our own parser, queries by sqlparser.
//!
//! Invariant: a script is cut at its semicolons only; every statement knows its tokens, so that an error found later still
//! has a line and a column.

mod alter;
mod create_table;
mod dialect;
mod forms;
mod hints;
mod json;
mod types;
mod within;

pub use alter::{Alter, Change, Element, Position};
pub use create_table::{ColumnDef, ColumnKind, CreateTable, Like, Part, Taking, WatermarkDef};
pub use hints::{Hinted, Hints};
pub use types::type_name;
pub(crate) use types::{Length, cast_type};

use crate::error::{SqlError, SqlResult};
use datafusion_sql::sqlparser::ast::{Expr as SqlExpr, Ident, ObjectName, Query};
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer};

pub(crate) use dialect::FlinkDialect;
pub(crate) use forms::{CATALOG, DATABASE};
pub(crate) use within::WITHIN;

/// Brackets within brackets.
const DEPTH: usize = 100;
/// Operators of a statement.
const OPERATORS: usize = 500;

/// A statement of a script, with the tokens it was read from.
#[derive(Debug, Clone)]
pub struct Statement {
    /// What it says.
    pub kind: StatementKind,
    /// Where its words are.
    pub words: Words,
    /// What stands in `/*+ .. */`.
    pub hints: Hints,
}

/// What a statement says.
#[derive(Debug, Clone)]
pub enum StatementKind {
    /// `CREATE TABLE`.
    CreateTable(Box<CreateTable>),
    /// `CREATE VIEW name AS query`.
    CreateView {
        /// Its name.
        name: Ident,
        /// Names for the columns of the query; none = the query's own.
        columns: Vec<Ident>,
        /// The query.
        query: Box<Query>,
        /// Leave an existing one alone.
        if_not_exists: bool,
        /// Replace an existing one.
        or_replace: bool,
        /// No catalog keeps it.
        temporary: bool,
    },
    /// `DROP TABLE` or `DROP VIEW`.
    Drop {
        /// A view, not a table.
        view: bool,
        /// Its name.
        name: Ident,
        /// A missing one is no error.
        if_exists: bool,
    },
    /// `ALTER TABLE` or `ALTER VIEW`.
    Alter(Box<Alter>),
    /// `INSERT INTO table query`.
    Insert(Box<Insert>),
    /// A query to be shown.
    Query(Box<Query>),
    /// `EXPLAIN` a query or an insert.
    Explain(Box<StatementKind>),
    /// `EXPLAIN ANALYZE` a query: it is run.
    Analyze(Box<Query>),
    /// `SET 'key' = 'value'`; without both: show all.
    Set(Option<(String, String)>),
    /// `RESET 'key'`; without a key: all.
    Reset(Option<String>),
    /// `SHOW TABLES` and `SHOW VIEWS`.
    ShowTables,
    /// `SHOW FUNCTIONS`.
    ShowFunctions,
    /// `SHOW CATALOGS`, `SHOW DATABASES` and `SHOW CURRENT ..`: what it is called, and the one name.
    ShowPlace(&'static str, &'static str),
    /// `USE`: there is one catalog with one database.
    Use,
    /// `SHOW CREATE TABLE name`.
    ShowCreate(Ident),
    /// `DESCRIBE name`.
    Describe(Ident),
    /// `BEGIN STATEMENT SET` and `END`: all inserts of a script are one job here.
    StatementSet,
}

/// An `INSERT INTO`.
#[derive(Debug, Clone)]
pub struct Insert {
    /// Where to.
    pub table: Ident,
    /// `PARTITION (k = 'v')`: columns that are the same in all rows.
    pub partition: Vec<(Ident, SqlExpr)>,
    /// Columns named; none = all others, in order.
    pub columns: Vec<Ident>,
    /// What.
    pub query: Box<Query>,
}

/// The words of a statement with their places.
#[derive(Debug, Clone, Default)]
pub struct Words(Vec<TokenWithSpan>);

impl Words {
    /// Where the statement begins.
    pub fn start(&self) -> Option<Span> {
        self.0.first().map(|t| t.span)
    }

    /// Where a name stands, the first time.
    pub fn find(&self, name: &str) -> Option<Span> {
        let is_it = |t: &&TokenWithSpan| match &t.token {
            Token::Word(w) => w.value.eq_ignore_ascii_case(name),
            Token::SingleQuotedString(s) => s == name,
            _ => false,
        };
        self.0.iter().find(is_it).map(|t| t.span)
    }

    /// Whether a name stands there as it is written.
    pub(crate) fn names(&self, name: &str) -> bool {
        self.0.iter().any(|t| matches!(&t.token, Token::Word(w) if w.value == name))
    }

    /// The statement as it stands in the text that it was read from.
    pub fn within<'a>(&self, text: &'a str) -> &'a str {
        let byte = |at: Location| {
            let line = text.split_inclusive('\n').take((at.line as usize).saturating_sub(1)).map(str::len).sum::<usize>();
            let letters = text[line..].chars().take((at.column as usize).saturating_sub(1)).map(char::len_utf8);
            line + letters.sum::<usize>()
        };
        match (self.0.first(), self.0.last()) {
            (Some(first), Some(last)) => text.get(byte(first.span.start)..byte(last.span.end)).unwrap_or_default(),
            _ => "",
        }
    }

    /// The text of the statement, one space between words.
    pub fn text(&self) -> String {
        self.0.iter().map(|t| t.token.to_string()).collect::<Vec<_>>().join(" ")
    }
}

/// All statements of a script.
///
/// ```
/// let script = waterwheel_sql::parse("SET 'parallelism.default' = '2'; SELECT 1 FROM t").unwrap();
/// assert_eq!(script.len(), 2);
/// ```
///
/// # Errors
/// The first statement that cannot be read, with its place.
pub fn parse(text: &str) -> SqlResult<Vec<Statement>> {
    let tokens = Tokenizer::new(&FlinkDialect, text)
        .tokenize_with_location()
        .map_err(|e| SqlError::new(e.message.clone()).at(Span { start: e.location, end: e.location }))?;
    let is_word = |t: &TokenWithSpan| !matches!(t.token, Token::Whitespace(_)) || hints::is_hint(&t.token);
    let tokens = tokens.into_iter().filter(is_word).flat_map(halves).collect::<Vec<_>>();
    let mut statements = Vec::new();
    let mut explained = false;
    for words in tokens.split(|t| t.token == Token::SemiColon) {
        let words: Vec<TokenWithSpan> = words.iter().filter(|t| t.token != Token::EOF).cloned().collect();
        let (set, words) = opened(words);
        if let Some(set) = set {
            explained = set.first().is_some_and(|word| says(word, "EXPLAIN"));
            statements.extend((!explained).then(|| Statement {
                kind: StatementKind::StatementSet,
                words: Words(set),
                hints: Hints::default(),
            }));
        }
        if words.is_empty() {
            continue;
        }
        let mut statement = parse_one(words)?;
        match statement.kind {
            StatementKind::Insert(_) if explained => statement.kind = StatementKind::Explain(Box::new(statement.kind)),
            StatementKind::StatementSet if std::mem::take(&mut explained) => continue,
            _ => {}
        }
        statements.push(statement);
    }
    Ok(statements)
}

fn says(token: &TokenWithSpan, word: &str) -> bool {
    matches!(&token.token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}

/// `EXECUTE STATEMENT SET BEGIN`, or `EXPLAIN ..`, apart from the first statement of the set, which no semicolon parts from it.
fn opened(mut words: Vec<TokenWithSpan>) -> (Option<Vec<TokenWithSpan>>, Vec<TokenWithSpan>) {
    let begins = ["EXECUTE", "EXPLAIN"].iter().any(|first| {
        let head = [*first, "STATEMENT", "SET", "BEGIN"];
        words.len() >= head.len() && words.iter().zip(head).all(|(token, word)| says(token, word))
    });
    if !begins {
        return (None, words);
    }
    let rest = words.split_off(4);
    (Some(words), rest)
}

/// `>>` is two closing brackets: the dialect has no shifts. `U&'\00e4'` is a text as any other, once it is read.
fn halves(token: TokenWithSpan) -> Vec<TokenWithSpan> {
    match token.token {
        Token::ShiftRight => {}
        Token::UnicodeStringLiteral(text) => return vec![TokenWithSpan { token: Token::SingleQuotedString(text), span: token.span }],
        _ => return vec![token],
    }
    let middle = Location { line: token.span.start.line, column: token.span.start.column + 1 };
    let half = |start, end| TokenWithSpan { token: Token::Gt, span: Span { start, end } };
    vec![half(token.span.start, middle), half(middle, token.span.end)]
}

/// Where brackets are nested more deeply than in any statement that means something: what reads them calls itself.
fn too_deep(words: &[TokenWithSpan]) -> Option<Span> {
    let (mut depth, mut is_type) = (0usize, false);
    for word in words {
        match &word.token {
            Token::LParen => depth += 1,
            Token::Lt if is_type => depth += 1,
            Token::RParen | Token::Gt => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH {
            return Some(word.span);
        }
        is_type = matches!(&word.token, Token::Word(w) if ["ROW", "ARRAY", "MAP"].iter().any(|kind| w.value.eq_ignore_ascii_case(kind)));
    }
    None
}

/// The word at which a statement has more operators than planning has room for: a chain of them is as deep as it is long.
fn too_long(words: &[TokenWithSpan]) -> Option<Span> {
    let is_operator = |word: &&TokenWithSpan| match &word.token {
        Token::Plus | Token::Minus | Token::Mul | Token::Div | Token::Mod | Token::StringConcat => true,
        Token::Word(w) => ["AND", "OR", "NOT", "UNION", "INTERSECT", "EXCEPT", "JOIN"].iter().any(|o| w.value.eq_ignore_ascii_case(o)),
        _ => false,
    };
    words.iter().filter(is_operator).nth(OPERATORS).map(|word| word.span)
}

fn parse_one(words: Vec<TokenWithSpan>) -> SqlResult<Statement> {
    if let Some(span) = too_deep(&words) {
        return Err(SqlError::new("the statement is nested too deeply").at(span));
    }
    if let Some(span) = too_long(&words) {
        return Err(SqlError::new(format!("the statement has more than {OPERATORS} operators"))
            .at(span)
            .help("a list of values has no limit:  x IN (1, 2, 3);  long queries are split by CREATE VIEW"));
    }
    let (words, hints) = hints::taken(words)?;
    let mut parser = Parser::new(&FlinkDialect).with_tokens_with_locations(forms::whole_tables(within::rewritten(words.clone())));
    // The parser has no place for the end of the text: it is behind the last word.
    let end = words.last().map(|t| Span { start: t.span.end, end: t.span.end });
    let kind = statement(&mut parser).map_err(|e| e.or_at(end))?;
    let rest = parser.peek_token();
    if word_at(&parser, 0) == "MATCH_RECOGNIZE" {
        return Err(SqlError::unsupported(
            "MATCH_RECOGNIZE behind a subquery or function",
            "it stands behind the name of a table, view or CTE",
            "WITH rows AS (...) SELECT ... FROM rows MATCH_RECOGNIZE (...)",
        )
        .at(rest.span));
    }
    if rest.token != Token::EOF {
        return Err(SqlError::new(format!("{} was not expected here", rest.token)).at(rest.span));
    }
    let words = Words(words);
    if !matches!(kind, StatementKind::Insert(_) | StatementKind::Query(_) | StatementKind::Explain(_) | StatementKind::Analyze(_)) {
        hints.refused(&words)?;
    }
    Ok(Statement { kind, words, hints })
}

/// What the parser says, with the place where it stopped.
fn syntax(error: ParserError, parser: &Parser<'_>) -> SqlError {
    let text = match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
        ParserError::RecursionLimitExceeded => "the statement is nested too deeply".into(),
    };
    let span = place_in(&text).unwrap_or(parser.peek_token_ref().span);
    let text = text.split(" at Line: ").next().unwrap_or(&text).replace("found: EOF", "found: the end");
    SqlError::new(text).at(span)
}

/// `... at Line: 1, Column: 8` of the parser's messages.
fn place_in(text: &str) -> Option<Span> {
    let (_, place) = text.rsplit_once(" at Line: ")?;
    let (line, column) = place.split_once(", Column: ")?;
    let start = Location { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? };
    Some(Span { start, end: start })
}

trait OrSyntax<T> {
    fn or_syntax(self, parser: &Parser<'_>) -> SqlResult<T>;
}

impl<T> OrSyntax<T> for Result<T, ParserError> {
    fn or_syntax(self, parser: &Parser<'_>) -> SqlResult<T> {
        self.map_err(|e| syntax(e, parser))
    }
}

fn word_at(parser: &Parser<'_>, n: usize) -> String {
    match &parser.peek_nth_token_ref(n).token {
        Token::Word(w) if w.quote_style.is_none() => w.value.to_uppercase(),
        _ => String::new(),
    }
}

fn take_words(parser: &mut Parser<'_>, words: &[&str]) -> bool {
    let here = words.iter().enumerate().all(|(n, word)| word_at(parser, n) == *word);
    if here {
        words.iter().for_each(|_| drop(parser.next_token()));
    }
    here
}

fn statement(parser: &mut Parser<'_>) -> SqlResult<StatementKind> {
    let first = parser.peek_token();
    match word_at(parser, 0).as_str() {
        "CREATE" => create(parser),
        "DROP" => drop_statement(parser),
        "ALTER" => {
            parser.next_token();
            alter::parse(parser).map(|alter| StatementKind::Alter(Box::new(alter)))
        }
        "INSERT" => insert(parser),
        "EXECUTE" => {
            parser.next_token();
            insert(parser)
        }
        "BEGIN" if take_words(parser, &["BEGIN", "STATEMENT", "SET"]) => Ok(StatementKind::StatementSet),
        "END" if take_words(parser, &["END"]) => Ok(StatementKind::StatementSet),
        "SELECT" | "WITH" | "VALUES" | "TABLE" | "" => query(parser),
        "EXPLAIN" => {
            parser.next_token();
            let is_run = take_words(parser, &["ANALYZE"]);
            let _ = take_words(parser, &["PLAN", "FOR"]);
            // All of it is said anyway.
            while ["CHANGELOG_MODE", "ESTIMATED_COST", "PLAN_ADVICE"].iter().any(|detail| take_words(parser, &[*detail])) {
                let _ = parser.consume_token(&Token::Comma);
            }
            let explained = statement(parser)?;
            match explained {
                StatementKind::Query(query) if is_run => Ok(StatementKind::Analyze(query)),
                StatementKind::Insert(_) if is_run => Err(SqlError::unsupported(
                    "EXPLAIN ANALYZE of an INSERT",
                    "it runs what it explains, and would write",
                    "EXPLAIN ANALYZE SELECT ...",
                )
                .at(first.span)),
                StatementKind::Query(_) | StatementKind::Insert(_) => Ok(StatementKind::Explain(Box::new(explained))),
                _ => Err(SqlError::unsupported(
                    "EXPLAIN of this statement",
                    "it has no plan",
                    "EXPLAIN SELECT ... or EXPLAIN INSERT INTO ...",
                )
                .at(first.span)),
            }
        }
        "SET" => set(parser),
        "RESET" => {
            parser.next_token();
            let key = if parser.peek_token_ref().token == Token::EOF { None } else { Some(text(parser)?) };
            Ok(StatementKind::Reset(key))
        }
        "SHOW" => show(parser),
        "USE" => used(parser),
        "DESCRIBE" | "DESC" => {
            parser.next_token();
            Ok(StatementKind::Describe(name(parser)?))
        }
        other => {
            let known = ["SELECT", "CREATE", "INSERT", "DROP", "ALTER", "EXPLAIN", "DESCRIBE", "SHOW", "SET", "RESET", "WITH"];
            Err(SqlError::new(format!("{other} begins no statement that is supported")).at(first.span).nearest(other, known))
        }
    }
}

fn query(parser: &mut Parser<'_>) -> SqlResult<StatementKind> {
    Ok(StatementKind::Query(whole_query(parser)?))
}

fn whole_query(parser: &mut Parser<'_>) -> SqlResult<Box<Query>> {
    let mut query = parser.parse_query().or_syntax(parser)?;
    forms::plain(&mut query)?;
    Ok(query)
}

fn create(parser: &mut Parser<'_>) -> SqlResult<StatementKind> {
    let start = parser.next_token();
    let or_replace = take_words(parser, &["OR", "REPLACE"]);
    let temporary = take_words(parser, &["TEMPORARY"]) || take_words(parser, &["TEMP"]);
    match word_at(parser, 0).as_str() {
        "TABLE" => {
            parser.next_token();
            create_table::parse(parser).map(|table| StatementKind::CreateTable(Box::new(CreateTable { temporary, ..table })))
        }
        "VIEW" => {
            parser.next_token();
            let if_not_exists = take_words(parser, &["IF", "NOT", "EXISTS"]);
            let name = name(parser)?;
            let mut columns = Vec::new();
            if parser.consume_token(&Token::LParen) {
                columns = parser.parse_comma_separated(Parser::parse_identifier).or_syntax(parser)?;
                parser.expect_token(&Token::RParen).or_syntax(parser)?;
            }
            if take_words(parser, &["COMMENT"]) {
                text(parser)?;
            }
            parser.expect_keyword_is(Keyword::AS).or_syntax(parser)?;
            let query = whole_query(parser)?;
            Ok(StatementKind::CreateView { name, columns, query, if_not_exists, or_replace, temporary })
        }
        "FUNCTION" | "SYSTEM" => Err(of_functions("CREATE FUNCTION").at(start.span)),
        what => Err(SqlError::unsupported(&format!("CREATE {what}"), "only tables and views are kept", "").at(start.span)),
    }
}

/// What is said to a statement about functions.
fn of_functions(statement: &str) -> SqlError {
    let why = "a function is Rust, and part of the program that runs the job";
    let instead = "job.register(ScalarFunction::new(\"name\", vec![Utf8], Int64, |args| ..)); AggregateFunction and TableFunction likewise";
    SqlError::unsupported(statement, why, instead)
}

fn drop_statement(parser: &mut Parser<'_>) -> SqlResult<StatementKind> {
    let start = parser.next_token();
    let _temporary = take_words(parser, &["TEMPORARY"]);
    let view = match word_at(parser, 0).as_str() {
        "TABLE" => false,
        "VIEW" => true,
        "FUNCTION" | "SYSTEM" => return Err(of_functions("DROP FUNCTION").at(start.span)),
        what => return Err(SqlError::unsupported(&format!("DROP {what}"), "only tables and views are kept", "").at(start.span)),
    };
    parser.next_token();
    let if_exists = take_words(parser, &["IF", "EXISTS"]);
    Ok(StatementKind::Drop { view, name: name(parser)?, if_exists })
}

/// `INSERT INTO t [PARTITION (k = 'v', ..)] [(a, b, ..)] query`.
fn insert(parser: &mut Parser<'_>) -> SqlResult<StatementKind> {
    let place = parser.next_token().span;
    if take_words(parser, &["OVERWRITE"]) {
        return Err(
            SqlError::unsupported("INSERT OVERWRITE", "a stream has no end after which to replace a table", "INSERT INTO").at(place)
        );
    }
    parser.expect_keyword_is(Keyword::INTO).or_syntax(parser)?;
    let _ = take_words(parser, &["TABLE"]);
    let table = name(parser)?;
    let mut partition = Vec::new();
    if take_words(parser, &["PARTITION"]) {
        let one = |parser: &mut Parser<'_>| {
            let column = parser.parse_identifier()?;
            parser.expect_token(&Token::Eq)?;
            parser.parse_expr().map(|value| (column, value))
        };
        parser.expect_token(&Token::LParen).or_syntax(parser)?;
        partition = parser.parse_comma_separated(one).or_syntax(parser)?;
        parser.expect_token(&Token::RParen).or_syntax(parser)?;
    }
    let begins_query =
        parser.peek_nth_token_ref(1).token == Token::LParen || ["SELECT", "WITH", "VALUES", "TABLE"].contains(&word_at(parser, 1).as_str());
    let mut columns = Vec::new();
    if parser.peek_token_ref().token == Token::LParen && !begins_query {
        parser.next_token();
        columns = parser.parse_comma_separated(Parser::parse_identifier).or_syntax(parser)?;
        parser.expect_token(&Token::RParen).or_syntax(parser)?;
    }
    Ok(StatementKind::Insert(Box::new(Insert { table, partition, columns, query: whole_query(parser)? })))
}

fn set(parser: &mut Parser<'_>) -> SqlResult<StatementKind> {
    parser.next_token();
    if parser.peek_token_ref().token == Token::EOF {
        return Ok(StatementKind::Set(None));
    }
    let key = dotted(parser)?;
    parser.expect_token(&Token::Eq).or_syntax(parser)?;
    Ok(StatementKind::Set(Some((key, dotted(parser)?))))
}

fn show(parser: &mut Parser<'_>) -> SqlResult<StatementKind> {
    let start = parser.next_token();
    if take_words(parser, &["TABLES"]) || take_words(parser, &["VIEWS"]) {
        return Ok(StatementKind::ShowTables);
    }
    if take_words(parser, &["FUNCTIONS"]) {
        return Ok(StatementKind::ShowFunctions);
    }
    if take_words(parser, &["CREATE", "TABLE"]) || take_words(parser, &["CREATE", "VIEW"]) {
        return Ok(StatementKind::ShowCreate(name(parser)?));
    }
    if take_words(parser, &["COLUMNS", "FROM"]) || take_words(parser, &["COLUMNS", "IN"]) {
        return Ok(StatementKind::Describe(name(parser)?));
    }
    if take_words(parser, &["CATALOGS"]) || take_words(parser, &["CURRENT", "CATALOG"]) {
        return Ok(StatementKind::ShowPlace("catalog", CATALOG));
    }
    if take_words(parser, &["DATABASES"]) || take_words(parser, &["CURRENT", "DATABASE"]) {
        return Ok(StatementKind::ShowPlace("database", DATABASE));
    }
    Err(SqlError::new("SHOW knows TABLES, VIEWS, FUNCTIONS, COLUMNS FROM name, CREATE TABLE name, CATALOGS and DATABASES").at(start.span))
}

/// `USE [CATALOG] name`, where the name is the only one.
fn used(parser: &mut Parser<'_>) -> SqlResult<StatementKind> {
    parser.next_token();
    let is_catalog = take_words(parser, &["CATALOG"]);
    let start = parser.peek_token_ref().span;
    let name = parser.parse_object_name(false).or_syntax(parser)?.to_string().replace('`', "");
    let known = if is_catalog { name == CATALOG } else { name == DATABASE || name == format!("{CATALOG}.{DATABASE}") };
    match known {
        true => Ok(StatementKind::Use),
        false => Err(SqlError::new(format!("there is no {} {name}", if is_catalog { "catalog" } else { "database" }))
            .at(start)
            .help(format!("all tables are in {CATALOG}.{DATABASE}"))),
    }
}

/// A quoted text.
pub(super) fn text(parser: &mut Parser<'_>) -> SqlResult<String> {
    let token = parser.next_token();
    match token.token {
        Token::SingleQuotedString(text) => Ok(text),
        other => Err(SqlError::new(format!("a text in single quotes is expected, not {other}")).at(token.span)),
    }
}

/// A quoted text, or words up to the next `=` or the end, as in `SET parallelism.default = 2`.
fn dotted(parser: &mut Parser<'_>) -> SqlResult<String> {
    if matches!(parser.peek_token_ref().token, Token::SingleQuotedString(_)) {
        return text(parser);
    }
    let mut words = String::new();
    while !matches!(parser.peek_token_ref().token, Token::Eq | Token::EOF) {
        words.push_str(&parser.next_token().token.to_string());
    }
    Ok(words)
}

/// A name of one part.
pub(super) fn name(parser: &mut Parser<'_>) -> SqlResult<Ident> {
    let place = parser.peek_token_ref().span;
    let name = parser.parse_object_name(false).or_syntax(parser)?;
    single(&name, place)
}

fn single(name: &ObjectName, place: Span) -> SqlResult<Ident> {
    let mut name = name.clone();
    forms::bare(&mut name);
    match name.0.as_slice() {
        [part] => part.as_ident().cloned().ok_or_else(|| SqlError::new(format!("{name} is no name")).at(place)),
        _ => Err(SqlError::unsupported("a name with a catalog or database before it", "there is one of each", "leave it out").at(place)),
    }
}
