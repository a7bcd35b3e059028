//! Functions of text with Flink's results: NULL for a NULL argument unless said, characters and not bytes are counted.

use super::own::ScalarFunction;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Int64Type};
use std::sync::Arc;

const TEXT: DataType = DataType::Utf8;
const INT: DataType = DataType::Int64;

/// All of them.
pub(super) fn functions() -> Vec<ScalarFunction> {
    vec![
        ScalarFunction::new("split_index", vec![TEXT, TEXT, INT], TEXT, split_index),
        ScalarFunction::new("concat", vec![TEXT], TEXT, concat).repeated(),
        ScalarFunction::new("concat_ws", vec![TEXT, TEXT], TEXT, concat_ws).repeated(),
        ScalarFunction::new("left", vec![TEXT, INT], TEXT, |args| text_int(args, |text, n| Some(first(text, n).to_string()))),
        ScalarFunction::new("right", vec![TEXT, INT], TEXT, |args| {
            text_int(args, |text, n| {
                let skip = text.chars().count().saturating_sub(usize::try_from(n).unwrap_or(0));
                Some(text.chars().skip(skip).collect())
            })
        }),
        ScalarFunction::new("substring", vec![TEXT, INT], TEXT, substring).or(vec![TEXT, INT, INT]),
        ScalarFunction::new("lpad", vec![TEXT, INT, TEXT], TEXT, |args| pad(args, true)),
        ScalarFunction::new("rpad", vec![TEXT, INT, TEXT], TEXT, |args| pad(args, false)),
        ScalarFunction::new("replace", vec![TEXT, TEXT, TEXT], TEXT, replace),
        ScalarFunction::new("instr", vec![TEXT, TEXT], INT, |args| find(&args[0], &args[1])),
        ScalarFunction::new("locate", vec![TEXT, TEXT], INT, |args| match args.get(2) {
            None => find(&args[1], &args[0]),
            Some(from) => find_from(&args[1], &args[0], from),
        })
        .or(vec![TEXT, TEXT, INT]),
        ScalarFunction::new("is_alpha", vec![TEXT], DataType::Boolean, |args| every(args, char::is_alphabetic)),
        ScalarFunction::new("is_digit", vec![TEXT], DataType::Boolean, |args| every(args, char::is_numeric)),
        ScalarFunction::new("is_decimal", vec![TEXT], DataType::Boolean, |args| {
            let all = args[0].as_string::<i32>().iter().map(|text| Some(text.is_some_and(is_decimal)));
            Ok(Arc::new(all.collect::<BooleanArray>()))
        }),
    ]
}

/// `SPLIT_INDEX(text, separator, n)`: part `n` of the text, from 0; NULL when there is no such part. An empty text has none.
fn split_index(args: &[ArrayRef]) -> Result<ArrayRef, String> {
    let (texts, separators, places) = (args[0].as_string::<i32>(), args[1].as_string::<i32>(), args[2].as_primitive::<Int64Type>());
    let mut parts = StringBuilder::with_capacity(texts.len(), texts.len() * 8);
    for row in 0..texts.len() {
        let given = texts.is_valid(row) && separators.is_valid(row) && places.is_valid(row);
        let place = given.then(|| usize::try_from(places.value(row)).ok()).flatten();
        parts.append_option(place.and_then(|n| part(texts.value(row), separators.value(row), n)));
    }
    Ok(Arc::new(parts.finish()))
}

fn part<'a>(text: &'a str, separator: &str, n: usize) -> Option<&'a str> {
    if text.is_empty() {
        return None;
    }
    if separator.is_empty() {
        return text.split(char::is_whitespace).nth(n);
    }
    let &[byte] = separator.as_bytes() else { return text.split(separator).nth(n) };
    let (mut rest, mut at) = (text, n);
    // One ASCII byte is no part of a longer character.
    loop {
        let end = rest.bytes().position(|b| b == byte);
        match (at, end) {
            (0, end) => return Some(&rest[..end.unwrap_or(rest.len())]),
            (_, None) => return None,
            (_, Some(end)) => (rest, at) = (&rest[end + 1..], at - 1),
        }
    }
}

/// `CONCAT(a, ...)`: NULL when one of them is.
fn concat(args: &[ArrayRef]) -> Result<ArrayRef, String> {
    let columns: Vec<&StringArray> = args.iter().map(|a| a.as_string::<i32>()).collect();
    let row = |row: usize| columns.iter().map(|c| c.is_valid(row).then(|| c.value(row))).collect::<Option<String>>();
    Ok(Arc::new((0..args[0].len()).map(row).collect::<StringArray>()))
}

/// `CONCAT_WS(separator, a, ...)`: those that are not NULL, the separator between them; NULL when the separator is.
fn concat_ws(args: &[ArrayRef]) -> Result<ArrayRef, String> {
    let columns: Vec<&StringArray> = args.iter().map(|a| a.as_string::<i32>()).collect();
    let row = |row: usize| {
        let separator = columns[0].is_valid(row).then(|| columns[0].value(row))?;
        let parts: Vec<&str> = columns[1..].iter().filter(|c| c.is_valid(row)).map(|c| c.value(row)).collect();
        Some(parts.join(separator))
    };
    Ok(Arc::new((0..args[0].len()).map(row).collect::<StringArray>()))
}

fn text_int(args: &[ArrayRef], f: impl Fn(&str, i64) -> Option<String>) -> Result<ArrayRef, String> {
    let (texts, numbers) = (args[0].as_string::<i32>(), args[1].as_primitive::<Int64Type>());
    Ok(Arc::new(texts.iter().zip(numbers.iter()).map(|(text, n)| f(text?, n?)).collect::<StringArray>()))
}

/// The first `n` characters; none for a number below 1.
fn first(text: &str, n: i64) -> &str {
    let n = usize::try_from(n).unwrap_or(0);
    text.char_indices().nth(n).map_or(text, |(end, _)| &text[..end])
}

/// `LPAD`, `RPAD`: to so many characters; cut off where there are more. NULL for a length below 0 or nothing to pad with.
fn pad(args: &[ArrayRef], left: bool) -> Result<ArrayRef, String> {
    const LONGEST: i64 = 1 << 20;
    let (texts, lengths, pads) = (args[0].as_string::<i32>(), args[1].as_primitive::<Int64Type>(), args[2].as_string::<i32>());
    let mut padded: Vec<Option<String>> = Vec::with_capacity(texts.len());
    for ((text, length), pad) in texts.iter().zip(lengths.iter()).zip(pads.iter()) {
        let (Some(text), Some(length), Some(pad)) = (text, length, pad) else {
            padded.push(None);
            continue;
        };
        if length > LONGEST {
            return Err(format!("a text of {length} characters is too long, the limit is {LONGEST}"));
        }
        padded.push((length >= 0 && !pad.is_empty()).then(|| {
            let missing = usize::try_from(length).unwrap_or(0).saturating_sub(text.chars().count());
            let filling: String = pad.chars().cycle().take(missing).collect();
            match (missing, left) {
                (0, _) => first(text, length).to_string(),
                (_, true) => filling + text,
                (_, false) => text.to_string() + &filling,
            }
        }));
    }
    Ok(Arc::new(StringArray::from(padded)))
}

/// Where a text is in another, from 1; 0 when it is not.
fn find(texts: &ArrayRef, sought: &ArrayRef) -> Result<ArrayRef, String> {
    let place = |(text, sought): (Option<&str>, Option<&str>)| {
        let text = text?;
        Some(text.find(sought?).map_or(0, |at| text[..at].chars().count() as i64 + 1))
    };
    Ok(Arc::new(texts.as_string::<i32>().iter().zip(sought.as_string::<i32>().iter()).map(place).collect::<Int64Array>()))
}

/// The same from a place on.
fn find_from(texts: &ArrayRef, sought: &ArrayRef, from: &ArrayRef) -> Result<ArrayRef, String> {
    let (texts, sought, from) = (texts.as_string::<i32>(), sought.as_string::<i32>(), from.as_primitive::<Int64Type>());
    let place = |((text, sought), from): ((Option<&str>, Option<&str>), Option<i64>)| {
        let (text, sought) = (text?, sought?);
        let skip = usize::try_from(from?.saturating_sub(1)).unwrap_or(0);
        if sought.is_empty() {
            return Some(1);
        }
        let rest = text.char_indices().nth(skip).map_or("", |(at, _)| &text[at..]);
        Some(rest.find(sought).map_or(0, |at| (skip + rest[..at].chars().count()) as i64 + 1))
    };
    Ok(Arc::new(texts.iter().zip(sought.iter()).zip(from.iter()).map(place).collect::<Int64Array>()))
}

/// `REPLACE(text, sought, new)`: a text of no letters is found around each letter, as in Java.
fn replace(args: &[ArrayRef]) -> Result<ArrayRef, String> {
    let [texts, sought, new] = [0, 1, 2].map(|i: usize| args[i].as_string::<i32>());
    let one = |((text, sought), new): ((Option<&str>, Option<&str>), Option<&str>)| Some(text?.replace(sought?, new?));
    Ok(Arc::new(texts.iter().zip(sought.iter()).zip(new.iter()).map(one).collect::<StringArray>()))
}

/// `SUBSTRING(text FROM start [FOR length])`: NULL for a length below 0.
fn substring(args: &[ArrayRef]) -> Result<ArrayRef, String> {
    let (texts, starts) = (args[0].as_string::<i32>(), args[1].as_primitive::<Int64Type>());
    let lengths = args.get(2).map(|lengths| lengths.as_primitive::<Int64Type>());
    let row = |row: usize| {
        let text = texts.is_valid(row).then(|| texts.value(row))?;
        let start = starts.is_valid(row).then(|| starts.value(row))?;
        let length = match lengths {
            Some(lengths) => usize::try_from(lengths.is_valid(row).then(|| lengths.value(row))?).ok()?,
            None => usize::MAX,
        };
        Some(cut(text, start, length))
    };
    Ok(Arc::new((0..texts.len()).map(row).collect::<StringArray>()))
}

/// So many characters from a place on, which is counted from 1, and below 0 from the end.
fn cut(text: &str, start: i64, length: usize) -> &str {
    let before = match start {
        ..0 => start.saturating_add(text.chars().count() as i64),
        _ => start.saturating_sub(1).max(0),
    };
    let Ok(before) = usize::try_from(before) else { return "" };
    let byte = |text: &str, characters: usize| text.char_indices().nth(characters).map_or(text.len(), |(at, _)| at);
    let rest = &text[byte(text, before)..];
    &rest[..byte(rest, length)]
}

/// Whether a text has characters, all of this kind; FALSE for NULL.
fn every(args: &[ArrayRef], kind: fn(char) -> bool) -> Result<ArrayRef, String> {
    let all = |text: Option<&str>| Some(text.is_some_and(|t| !t.is_empty() && t.chars().all(kind)));
    Ok(Arc::new(args[0].as_string::<i32>().iter().map(all).collect::<BooleanArray>()))
}

/// Digits with a sign before them and a point among them at most.
fn is_decimal(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (before, behind) = digits.split_once('.').unwrap_or((digits, ""));
    let are_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    are_digits(before) && are_digits(behind) && !(before.is_empty() && behind.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_text() {
        assert_eq!(part("https://a.b/c//e", "/", 2), Some("a.b"));
        assert_eq!(part("https://a.b/c//e", "/", 4), Some(""));
        assert_eq!(part("https://a.b/c//e", "/", 5), Some("e"));
        assert_eq!(part("https://a.b/c//e", "/", 6), None);
        assert_eq!(part("a--b", "--", 1), Some("b"));
        assert_eq!(part("a b", "", 1), Some("b"));
        assert_eq!(part("", "/", 0), None);
        assert_eq!(part("/", "/", 1), Some(""));
    }

    #[test]
    fn padding_counts_characters() {
        let args = |text: &str, n: i64, pad: &str| -> [ArrayRef; 3] {
            [Arc::new(StringArray::from(vec![text])), Arc::new(Int64Array::from(vec![n])), Arc::new(StringArray::from(vec![pad]))]
        };
        let shown = |args: [ArrayRef; 3], left| {
            let array = pad(&args, left).unwrap();
            array.is_valid(0).then(|| array.as_string::<i32>().value(0).to_string())
        };
        assert_eq!(shown(args("h\u{e9}", 4, "?!"), true).as_deref(), Some("?!h\u{e9}"));
        assert_eq!(shown(args("h\u{e9}", 5, "?!"), false).as_deref(), Some("h\u{e9}?!?"));
        assert_eq!(shown(args("h\u{e9}llo", 2, "?"), false).as_deref(), Some("h\u{e9}"));
        assert_eq!(shown(args("h", -1, "?"), false), None);
        assert!(pad(&args("h", i64::MAX, "?"), false).is_err());
    }
}
