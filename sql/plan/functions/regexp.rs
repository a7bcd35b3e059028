//! Regular expressions with Java's meaning, run by a matcher whose time is linear in the text.
//!
//! What is written alike and means something else in Java is rewritten (`\d` is an ASCII digit there) or refused: back
//! references, looking ahead and behind, possessive quantifiers.
//!
//! Invariant: a pattern that is accepted finds what Java's finds.

use super::near::Near;
use super::own::ScalarFunction;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, ListBuilder, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Int64Type};
use datafusion_common::ScalarValue;
use regex::{CaptureLocations, Regex};
use std::cell::{OnceCell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

const TEXT: DataType = DataType::Utf8;

/// All of them.
pub(super) fn functions() -> Vec<ScalarFunction> {
    vec![
        ScalarFunction::new("regexp_extract", vec![TEXT, TEXT, DataType::Int64], TEXT, extract).or(vec![TEXT, TEXT]).checked(check),
        ScalarFunction::new("regexp_replace", vec![TEXT, TEXT, TEXT], TEXT, replace).checked(check),
        ScalarFunction::new("regexp", vec![TEXT, TEXT], DataType::Boolean, matches).checked(check),
        ScalarFunction::new("regexp_count", vec![TEXT, TEXT], DataType::Int64, |args| {
            let counts = each(args, |regex, text| {
                let mut count = 0;
                each_match(regex, text, |_| count += 1);
                Some(count)
            });
            Ok(Arc::new(Int64Array::from(counts?)))
        })
        .checked(check),
        ScalarFunction::new("regexp_instr", vec![TEXT, TEXT], DataType::Int64, |args| {
            let place = |at: usize, text: &str| text[..at].chars().count() as i64 + 1;
            let places = each(args, |regex, text| Some(regex.find(text).map_or(0, |found| place(found.start(), text))));
            Ok(Arc::new(Int64Array::from(places?)))
        })
        .checked(check),
        ScalarFunction::new("regexp_substr", vec![TEXT, TEXT], TEXT, |args| {
            let found = each(args, |regex, text| regex.find(text).map(|found| found.as_str().to_string()));
            Ok(Arc::new(StringArray::from(found?)))
        })
        .checked(check),
        ScalarFunction::new("regexp_extract_all", vec![TEXT, TEXT, DataType::Int64], DataType::new_list(TEXT, true), extract_all)
            .or(vec![TEXT, TEXT])
            .checked(check),
    ]
}

fn check(args: &[Option<&ScalarValue>]) -> Result<(), String> {
    match args.get(1) {
        Some(Some(ScalarValue::Utf8(Some(pattern)))) => compile(pattern).map(drop),
        _ => Ok(()),
    }
}

fn compile(pattern: &str) -> Result<Regex, String> {
    let text = translated(pattern)?;
    Regex::new(&text).map_err(|e| {
        let why = e.to_string();
        let why = why.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_string();
        format!("the pattern {pattern:?} cannot be used: {why}")
    })
}

/// A pattern of Java's as one of the matcher's.
fn translated(pattern: &str) -> Result<String, String> {
    let refuse = |what: &str| Err(format!("the pattern {pattern:?} cannot be used: {what}"));
    let mut out = String::with_capacity(pattern.len());
    let (mut chars, mut depth, mut after_quantifier) = (pattern.chars().peekable(), 0, false);
    while let Some(c) = chars.next() {
        let was_quantifier = std::mem::replace(&mut after_quantifier, false);
        match c {
            '\\' => match chars.next() {
                Some('d') => out.push_str("[0-9]"),
                Some('D') => out.push_str("[^0-9]"),
                Some('w') => out.push_str("[a-zA-Z0-9_]"),
                Some('W') => out.push_str("[^a-zA-Z0-9_]"),
                Some('s') => out.push_str("[ \\t\\n\\x0B\\f\\r]"),
                Some('S') => out.push_str("[^ \\t\\n\\x0B\\f\\r]"),
                Some('p' | 'P') => return refuse("name the characters instead of \\p"),
                Some('Q' | 'E' | 'G' | 'Z' | 'R' | 'X' | 'h' | 'H' | 'v' | 'V' | 'c' | 'e' | 'N' | 'k') => {
                    return refuse("this escape is not known here");
                }
                Some('b') if depth == 0 => out.push_str("(?-u:\\b)"),
                Some('B') if depth == 0 => out.push_str("(?-u:\\B)"),
                Some(digit) if digit.is_ascii_digit() => return refuse("back references are not known here"),
                Some(other) => {
                    out.push('\\');
                    out.push(other);
                }
                None => return refuse("it ends with a backslash"),
            },
            '[' => {
                depth += 1;
                out.push(c);
            }
            ']' if depth > 0 => {
                depth -= 1;
                out.push(c);
            }
            // What the matcher has for differences of classes.
            '~' if depth > 0 => out.push_str("\\~"),
            '-' if depth > 0 && chars.peek() == Some(&'-') => return refuse("of -- in brackets, write \\-"),
            // Java's `$` also matches before a line break at the end.
            '$' if depth == 0 && chars.peek().is_none() => out.push_str("(?:$|(?:\\r?\\n)$)"),
            '$' if depth == 0 => return refuse("$ is only known at its end"),
            '(' if depth == 0 => {
                let mut ahead = chars.clone();
                if ahead.next() == Some('?') && !matches!(ahead.next(), Some(':' | 'i' | 's' | 'm' | 'x' | '-')) {
                    return refuse("of the groups with ?, (?:...) and flags are known");
                }
                out.push(c);
            }
            '+' if depth == 0 && was_quantifier => return refuse("possessive quantifiers are not known here"),
            '*' | '+' | '?' | '}' if depth == 0 => {
                // `a*?` is one quantifier.
                after_quantifier = !(c == '?' && was_quantifier);
                out.push(c);
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

/// Patterns that a thread keeps: to compile one takes as long as to match it with hundreds of rows.
const KEPT: usize = 64;

thread_local! {
    /// The newest last.
    static USED: RefCell<Vec<(String, Rc<Pattern>)>> = const { RefCell::new(Vec::new()) };
}

/// A pattern, ready.
pub(super) struct Pattern {
    pub(super) regex: Regex,
    /// Made when a group is first asked for: most patterns are only matched.
    near: OnceCell<Option<Near>>,
    /// Of the last search, where there is no `near`.
    caught: RefCell<CaptureLocations>,
}

impl Pattern {
    fn new(pattern: &str) -> Result<Pattern, String> {
        let regex = compile(pattern)?;
        Ok(Pattern { near: OnceCell::new(), caught: RefCell::new(regex.capture_locations()), regex })
    }

    /// What a group caught of the first match.
    fn group(&self, text: &str, group: usize) -> Option<Range<usize>> {
        if let Some(near) = self.near.get_or_init(|| Near::of(self.regex.as_str())) {
            return near.group(text, group);
        }
        let mut caught = self.caught.borrow_mut();
        self.regex.captures_read(&mut caught, text)?;
        caught.get(group).map(|(start, end)| start..end)
    }
}

fn kept(pattern: &str) -> Result<Rc<Pattern>, String> {
    USED.with_borrow_mut(|used| {
        if let Some((_, regex)) = used.iter().rev().find(|(text, _)| text == pattern) {
            return Ok(regex.clone());
        }
        let regex = Rc::new(Pattern::new(pattern)?);
        if used.len() == KEPT {
            used.remove(0);
        }
        used.push((pattern.to_string(), regex.clone()));
        Ok(regex)
    })
}

/// The pattern of the last row: mostly that of all rows.
#[derive(Default)]
pub(super) struct Compiled(Option<(String, Rc<Pattern>)>);

impl Compiled {
    pub(super) fn of(&mut self, pattern: &str) -> Result<&Pattern, String> {
        match &self.0 {
            Some((text, _)) if text == pattern => {}
            _ => self.0 = Some((pattern.to_string(), kept(pattern)?)),
        }
        match &self.0 {
            Some((_, regex)) => Ok(regex),
            None => Err("no pattern".into()),
        }
    }
}

/// A value of each text and its pattern.
fn each<T>(args: &[ArrayRef], f: impl Fn(&Regex, &str) -> Option<T>) -> Result<Vec<Option<T>>, String> {
    let mut compiled = Compiled::default();
    let one = |(text, pattern): (Option<&str>, Option<&str>)| match (text, pattern) {
        (Some(text), Some(pattern)) => compiled.of(pattern).map(|pattern| f(&pattern.regex, text)),
        _ => Ok(None),
    };
    args[0].as_string::<i32>().iter().zip(args[1].as_string::<i32>().iter()).map(one).collect()
}

/// Every match as Java finds them: one of no letters counts also where the match before it ends.
fn each_match(regex: &Regex, text: &str, mut f: impl FnMut(&CaptureLocations)) {
    let (mut locations, mut from) = (regex.capture_locations(), 0);
    while let Some(found) = regex.captures_read_at(&mut locations, text, from) {
        f(&locations);
        from = match text[found.end()..].chars().next() {
            Some(next) if found.is_empty() => found.end() + next.len_utf8(),
            None if found.is_empty() => return,
            _ => found.end(),
        };
    }
}

/// `REGEXP_EXTRACT_ALL(text, pattern[, group])`: what the group, the first unless said, caught of each match; NULL where the
/// pattern has no such group.
fn extract_all(args: &[ArrayRef]) -> Result<ArrayRef, String> {
    let (texts, patterns) = (args[0].as_string::<i32>(), args[1].as_string::<i32>());
    let groups = args.get(2).map(|groups| groups.as_primitive::<Int64Type>());
    let (mut compiled, mut all) = (Compiled::default(), ListBuilder::new(StringBuilder::new()));
    for (row, (text, pattern)) in texts.iter().zip(patterns.iter()).enumerate() {
        let group = groups.map_or(Some(1), |groups| if groups.is_valid(row) { usize::try_from(groups.value(row)).ok() } else { None });
        let (Some(text), Some(pattern), Some(group)) = (text, pattern, group) else {
            all.append_null();
            continue;
        };
        let regex = &compiled.of(pattern)?.regex;
        let known = group < regex.captures_len();
        if known {
            each_match(regex, text, |found| all.values().append_option(found.get(group).map(|(start, end)| &text[start..end])));
        }
        all.append(known);
    }
    Ok(Arc::new(all.finish()))
}

/// `REGEXP_EXTRACT(text, pattern[, group])`: what the group caught of the first match; NULL when there is none.
fn extract(args: &[ArrayRef]) -> Result<ArrayRef, String> {
    let (texts, patterns) = (args[0].as_string::<i32>(), args[1].as_string::<i32>());
    let groups = args.get(2).map(|g| g.as_primitive::<Int64Type>());
    let mut compiled = Compiled::default();
    let mut found = StringBuilder::with_capacity(texts.len(), texts.len() * 8);
    for row in 0..texts.len() {
        let group = groups.map_or(Some(0), |g| if g.is_valid(row) { usize::try_from(g.value(row)).ok() } else { None });
        let (Some(group), true, true) = (group, texts.is_valid(row), patterns.is_valid(row)) else {
            found.append_null();
            continue;
        };
        let text = texts.value(row);
        found.append_option(compiled.of(patterns.value(row))?.group(text, group).map(|caught| &text[caught]));
    }
    Ok(Arc::new(found.finish()))
}

/// `REGEXP_REPLACE(text, pattern, with)`: every match replaced by this text; a `$` in it is one, as in Flink.
fn replace(args: &[ArrayRef]) -> Result<ArrayRef, String> {
    let (texts, patterns, with) = (args[0].as_string::<i32>(), args[1].as_string::<i32>(), args[2].as_string::<i32>());
    let mut compiled = Compiled::default();
    let mut replaced: Vec<Option<String>> = Vec::with_capacity(texts.len());
    for ((text, pattern), with) in texts.iter().zip(patterns.iter()).zip(with.iter()) {
        let (Some(text), Some(pattern), Some(with)) = (text, pattern, with) else {
            replaced.push(None);
            continue;
        };
        let (mut new, mut behind) = (String::with_capacity(text.len()), 0);
        each_match(&compiled.of(pattern)?.regex, text, |found| {
            let Some((start, end)) = found.get(0) else { return };
            new.push_str(&text[behind..start]);
            new.push_str(with);
            behind = end;
        });
        new.push_str(&text[behind..]);
        replaced.push(Some(new));
    }
    Ok(Arc::new(StringArray::from(replaced)))
}

/// `REGEXP(text, pattern)`: whether there is a match.
fn matches(args: &[ArrayRef]) -> Result<ArrayRef, String> {
    Ok(Arc::new(BooleanArray::from(each(args, |regex, text| Some(regex.is_match(text)))?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(text: &str, pattern: &str, n: usize) -> Option<String> {
        compile(pattern).unwrap().captures(text).and_then(|c| c.get(n)).map(|m| m.as_str().to_string())
    }

    #[test]
    fn patterns_mean_what_they_mean_in_java() {
        let channel = "(&|^)channel_id=([^&]*)";
        assert_eq!(group("a?query=1&channel_id=17&x", channel, 2).as_deref(), Some("17"));
        assert_eq!(group("a?query=1", channel, 2), None);
        assert!(!compile("^\\d$").unwrap().is_match("\u{664}"), "an Arabic digit is no \\d");
        assert!(!compile("^[\\w.]+$").unwrap().is_match("\u{e9}"));
        assert!(compile("^[\\w.]+$").unwrap().is_match("a.b\n"));
        assert!(compile("a.*?b").is_ok());
        for bad in ["a++", "(?=a)", "(?<!a)b", "(a)\\1", "a$b", "\\p{Alpha}", "(", "a\\"] {
            assert!(compile(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn more_patterns_than_are_kept_are_compiled_again() {
        for n in (0..2 * KEPT).chain(0..KEPT) {
            assert!(kept(&format!("^a{n}$")).unwrap().regex.is_match(&format!("a{n}")));
        }
        assert_eq!(USED.with_borrow(Vec::len), KEPT);
    }
}
