//! Patterns of SQL, where they are no literal of LIKE: `x LIKE y [ESCAPE 'e']` and `x SIMILAR TO y [ESCAPE 'e']`.
//!
//! Either becomes a regular expression of Java's, as Flink makes it: `_` and `.` of SIMILAR TO are no end of a line, `_` of LIKE is
//! any character.
//!
//! Invariant: a pattern is that of the whole text; what is no pattern in Flink is an error.

use super::own::ScalarFunction;
use super::regexp::Compiled;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::DataType;
use datafusion_common::ScalarValue;
use regex::Regex;
use std::iter::Peekable;
use std::str::Chars;
use std::sync::Arc;

/// The function of LIKE: text, pattern, escape if there is one.
pub(in crate::plan) const LIKE: &str = "like";
/// That of SIMILAR TO.
pub(in crate::plan) const SIMILAR: &str = "similar to";

/// What an escape may stand before in LIKE, besides itself.
pub(in crate::plan) const OF_LIKE: &str = "%_";
/// What means something else where it stands in an expression of Java's.
const OF_JAVA: &str = "[]()|^-+*?{}$\\.";
/// What an escape may stand before in SIMILAR TO, besides itself.
const OF_SIMILAR: &str = "[]()|^-+*_%?{}";
/// A character that ends no line, as `.` is in Java.
const ANY: &str = "[^\\n\\r\\u0085\\u2028\\u2029]";
/// Classes of characters within `[ ]`, by their names.
const CLASSES: [(&str, &str); 7] = [
    ("ALPHA", "a-zA-Z"),
    ("UPPER", "A-Z"),
    ("LOWER", "a-z"),
    ("DIGIT", "0-9"),
    ("SPACE", " "),
    ("WHITESPACE", " \\t\\n\\x0B\\f\\r"),
    ("ALNUM", "a-zA-Z0-9"),
];

/// A pattern and its escape as an expression of Java's.
type Translate = fn(&str, Option<char>) -> Result<String, String>;

/// Both.
pub(super) fn functions() -> [ScalarFunction; 2] {
    let function = |name, translate: Translate, check| {
        let text = DataType::Utf8;
        let arguments = vec![text.clone(), text.clone()];
        ScalarFunction::new(name, arguments, DataType::Boolean, move |args| matches(args, translate))
            .or(vec![text.clone(), text.clone(), text])
            .checked(check)
    };
    [function(LIKE, like, |args| check(args, like)), function(SIMILAR, similar, |args| check(args, similar))]
}

/// The pattern, where it is a constant.
fn check(args: &[Option<&ScalarValue>], translate: Translate) -> Result<(), String> {
    let constant = |value: &Option<&ScalarValue>| match value {
        Some(ScalarValue::Utf8(text)) => text.clone(),
        _ => None,
    };
    let (pattern, escape) = (args.get(1).and_then(constant), args.get(2).map(constant));
    match (pattern, escape) {
        (None, _) | (_, Some(None)) => Ok(()),
        (Some(pattern), escape) => {
            regex(&mut Compiled::default(), &whole(&pattern, escape.flatten().as_deref(), translate)?, &pattern).map(drop)
        }
    }
}

/// For each text whether it is one of the pattern.
fn matches(args: &[ArrayRef], translate: Translate) -> Result<ArrayRef, String> {
    let (texts, patterns) = (args[0].as_string::<i32>(), args[1].as_string::<i32>());
    let escapes = args.get(2).map(|escapes| escapes.as_string::<i32>());
    let mut compiled = Compiled::default();
    let mut last: Option<((&str, Option<&str>), String)> = None;
    let mut found: Vec<Option<bool>> = Vec::with_capacity(texts.len());
    for (row, (text, pattern)) in texts.iter().zip(patterns.iter()).enumerate() {
        let escape = escapes.map(|escapes| escapes.is_valid(row).then(|| escapes.value(row)));
        let (Some(text), Some(pattern), true) = (text, pattern, escape != Some(None)) else {
            found.push(None);
            continue;
        };
        let written = (pattern, escape.flatten());
        if last.as_ref().is_none_or(|(known, _)| *known != written) {
            last = Some((written, whole(pattern, written.1, translate)?));
        }
        let Some((_, java)) = &last else { continue };
        found.push(Some(regex(&mut compiled, java, pattern)?.is_match(text)));
    }
    Ok(Arc::new(BooleanArray::from(found)))
}

/// The matcher of an expression, whose errors show what it was made of.
fn regex<'a>(compiled: &'a mut Compiled, java: &str, pattern: &str) -> Result<&'a Regex, String> {
    compiled.of(java).map(|pattern| &pattern.regex).map_err(|why| why.replace(&format!("{java:?}"), &format!("'{pattern}'")))
}

fn whole(pattern: &str, escape: Option<&str>, translate: Translate) -> Result<String, String> {
    let escape = match escape.map(|escape| (escape, escape.chars().next())) {
        None => None,
        Some((escape, Some(c))) if c.len_utf8() == escape.len() => Some(c),
        Some((escape, _)) => return Err(format!("an ESCAPE is one character, not '{escape}'")),
    };
    Ok(format!("\\A(?:{})\\z", translate(pattern, escape)?))
}

/// A character as itself.
fn push_plain(c: char, out: &mut String) {
    if OF_JAVA.contains(c) {
        out.push('\\');
    }
    out.push(c);
}

fn like(pattern: &str, escape: Option<char>) -> Result<String, String> {
    let (mut out, mut chars) = (String::with_capacity(pattern.len() * 2), pattern.chars());
    while let Some(c) = chars.next() {
        match c {
            _ if Some(c) == escape => push_plain(escaped(pattern, c, chars.next(), OF_LIKE)?, &mut out),
            '_' => out.push_str("(?s:.)"),
            '%' => out.push_str("(?s:.*)"),
            _ => push_plain(c, &mut out),
        }
    }
    Ok(out)
}

fn similar(pattern: &str, escape: Option<char>) -> Result<String, String> {
    let (mut out, mut chars) = (String::with_capacity(pattern.len() * 2), pattern.chars().peekable());
    while let Some(c) = chars.next() {
        match c {
            _ if Some(c) == escape => push_plain(escaped(pattern, c, chars.next(), OF_SIMILAR)?, &mut out),
            '_' | '.' => out.push_str(ANY),
            '%' => out.push_str("(?s:.*)"),
            '[' => class(pattern, escape, &mut chars, &mut out)?,
            ']' => return Err(format!("the pattern '{pattern}' has a ] without its [")),
            '\\' | '$' => push_plain(c, &mut out),
            _ => out.push(c),
        }
    }
    Ok(out)
}

/// What is within `[ ]`, behind the opening one.
fn class(pattern: &str, escape: Option<char>, chars: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    out.push('[');
    while let Some(c) = chars.next() {
        match c {
            ']' => {
                out.push(']');
                return Ok(());
            }
            _ if Some(c) == escape => push_plain(escaped(pattern, c, chars.next(), OF_SIMILAR)?, out),
            '-' | '^' => out.push(c),
            '[' if chars.peek() == Some(&':') => {
                let name: String = chars.by_ref().skip(1).take_while(|c| *c != ':').collect();
                let known = CLASSES.iter().find(|(known, _)| *known == name || known.to_lowercase() == name);
                let (Some((_, class)), Some(']')) = (known, chars.next()) else {
                    let names: Vec<String> = CLASSES.iter().map(|(name, _)| format!("[:{name}:]")).collect();
                    return Err(format!("the pattern '{pattern}' has a class that is not known, which are {}", names.join(", ")));
                };
                out.push_str(class);
            }
            _ if OF_SIMILAR.contains(c) => return Err(format!("the pattern '{pattern}' has a {c} within [ ], which needs an ESCAPE")),
            _ => out.push(c),
        }
    }
    Err(format!("the pattern '{pattern}' has a [ without its ]"))
}

/// The character behind an escape.
///
/// # Errors
/// One that no escape may stand before.
pub(in crate::plan) fn escaped(pattern: &str, escape: char, next: Option<char>, special: &str) -> Result<char, String> {
    let before = || match special {
        OF_LIKE => "%, _".to_string(),
        _ => format!("one of {special}"),
    };
    next.filter(|next| *next == escape || special.contains(*next))
        .ok_or_else(|| format!("the escape {escape} in '{pattern}' stands before no {} or {escape}", before()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_match(text: &str, pattern: &str, escape: Option<&str>, translate: Translate) -> Result<bool, String> {
        regex(&mut Compiled::default(), &whole(pattern, escape, translate)?, pattern).map(|regex| regex.is_match(text))
    }

    #[test]
    fn patterns_of_similar_to() {
        for (text, pattern) in [
            ("abc", "a%"),
            ("abc", "(a|x)_c"),
            ("abc", "[a-c]{3}"),
            ("abc", "[^d]+"),
            ("ab12", "[:a-z]+[[:DIGIT:]]{1,2}"),
            ("x y", "[[:alnum:][:SPACE:]]*"),
            ("a\\b$", "a\\b$"),
            ("a\nb", "a%b"),
            ("", "(a)?"),
            ("b", "a|b"),
            ("abc", "a.c"),
        ] {
            assert_eq!(is_match(text, pattern, None, similar), Ok(true), "{text} {pattern}");
        }
        for (text, pattern) in [("abc", "b"), ("abc", "a|b|c"), ("a\nb", "a_b"), ("a\u{2028}b", "a.b"), ("a\n", "a"), ("é", "[[:ALPHA:]]")]
        {
            assert_eq!(is_match(text, pattern, None, similar), Ok(false), "{text} {pattern}");
        }
        assert_eq!(is_match("a%[-]", "a!%![[!-]!]", Some("!"), similar), Ok(true));
        assert_eq!(is_match("a!", "a!!", Some("!"), similar), Ok(true));
        assert_eq!(is_match("a\\b", "a\\\\b", Some("\\"), similar), Ok(true));
        for bad in ["a]", "[a", "[a[b]", "[a%]", "[[:VOWEL:]]", "[[:ALPHA]]", "(a", "*", "a++", "(?=a)"] {
            assert!(is_match("a", bad, None, similar).is_err(), "{bad}");
        }
        assert!(is_match("a", "a!b", Some("!"), similar).is_err());
        assert!(is_match("a", "a!", Some("!"), similar).is_err());
        assert!(is_match("a", "a", Some("!!"), similar).is_err());
    }

    #[test]
    fn patterns_of_like() {
        for (text, pattern, escape) in [
            ("a.b", "a.%", None),
            ("a\nb", "a_b", None),
            ("a%(b", "a!%(_", Some("!")),
            ("a\\b", "a\\b", None),
            ("a_", "a\\_", Some("\\")),
            ("", "%", None),
        ] {
            assert_eq!(is_match(text, pattern, escape, like), Ok(true), "{text} {pattern}");
        }
        assert_eq!(is_match("axb", "a.b", None, like), Ok(false));
        assert_eq!(is_match("ab", "b", None, like), Ok(false));
        assert!(is_match("ab", "a!b", Some("!"), like).is_err());
    }
}
