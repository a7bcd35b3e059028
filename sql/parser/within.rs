//! `PATTERN (..) WITHIN INTERVAL '1' HOUR DEFINE ..`: the time of a MATCH_RECOGNIZE, which the parser of queries does not know.
//!
//! It travels as the first definition, of a variable without a name.
//!
//! Invariant: no word loses its place in the text.

use datafusion_sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan};

/// The variable that stands for the time.
pub(crate) const WITHIN: &str = "";

fn is_word(token: &TokenWithSpan, word: &str) -> bool {
    matches!(&token.token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}

/// The same words, with what stands for WITHIN where the parser can read it.
pub(super) fn rewritten(words: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let begins = |at: usize| {
        let before = at.checked_sub(1).and_then(|before| words.get(before));
        is_word(&words[at], "WITHIN")
            && before.is_some_and(|t| t.token == Token::RParen)
            && words.get(at + 1).is_some_and(|t| is_word(t, "INTERVAL"))
    };
    let mut out = Vec::with_capacity(words.len());
    let mut open = false;
    for (at, word) in words.iter().enumerate() {
        let with = |token: Token| TokenWithSpan { token, span: word.span };
        if begins(at) && words[at..].iter().any(|t| is_word(t, "DEFINE")) {
            open = true;
            out.extend([with(Token::make_keyword("DEFINE")), with(Token::make_word(WITHIN, Some('`'))), with(Token::make_keyword("AS"))]);
        } else if open && is_word(word, "DEFINE") {
            open = false;
            out.push(TokenWithSpan { token: Token::Comma, span: Span { start: word.span.start, end: word.span.end } });
        } else {
            out.push(word.clone());
        }
    }
    out
}
