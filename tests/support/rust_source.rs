//! A reader of Rust source that is just good enough for the house checks: it blanks what is not code.
//!
//! Invariant: blanking keeps every line break, so line numbers hold.

use std::fs;
use std::path::{Path, PathBuf};

/// All files below `folder` whose name ends in one of `endings`, sorted; build output and hidden folders are left out.
pub(crate) fn files(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with('.') || name == "target" {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// `source` with comments and the content of string and character literals replaced by blanks.
pub(crate) fn blank_text(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// Where the comment or literal that starts at `at` ends; `at` itself if none starts there.
fn literal_end(chars: &[char], at: usize) -> usize {
    let follows = |text: &str| text.chars().enumerate().all(|(i, c)| chars.get(at + i) == Some(&c));
    let starts_word = at == 0 || !(chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match chars[at] {
        '/' if follows("//") => find(chars, at, |rest| rest[0] == '\n'),
        '/' if follows("/*") => block_comment_end(chars, at),
        '"' => quoted_end(chars, at + 1, '"'),
        'r' if starts_word && (follows("r\"") || follows("r#")) => raw_string_end(chars, at),
        '\'' => char_end(chars, at),
        _ => at,
    }
}

fn find(chars: &[char], from: usize, holds: impl Fn(&[char]) -> bool) -> usize {
    (from..chars.len()).find(|&i| holds(&chars[i..])).unwrap_or(chars.len())
}

fn block_comment_end(chars: &[char], at: usize) -> usize {
    let mut depth = 0;
    let mut i = at;
    while i < chars.len() {
        match chars[i..] {
            ['/', '*', ..] => (depth, i) = (depth + 1, i + 2),
            ['*', '/', ..] => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    i
}

fn quoted_end(chars: &[char], from: usize, quote: char) -> usize {
    let mut i = from;
    while i < chars.len() && chars[i] != quote {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

fn raw_string_end(chars: &[char], at: usize) -> usize {
    let hashes = chars[at + 1..].iter().take_while(|&&c| c == '#').count();
    if chars.get(at + 1 + hashes) != Some(&'"') {
        return at; // a raw identifier
    }
    let close = find(chars, at + 2 + hashes, |rest| rest[0] == '"' && rest.len() > hashes && rest[1..=hashes].iter().all(|&c| c == '#'));
    (close + 1 + hashes).min(chars.len())
}

/// A quote opens a character literal or a lifetime; a lifetime has no closing quote after one character.
fn char_end(chars: &[char], at: usize) -> usize {
    match chars[at + 1..] {
        ['\\', ..] => quoted_end(chars, at + 1, '\''),
        [_, '\'', ..] => at + 3,
        _ => at,
    }
}

/// `code` (from [`blank_text`]) without the items under `#[cfg(test)]` or `#[cfg(all(test, ..))]`.
pub(crate) fn blank_tests(code: &str) -> String {
    let mut out = code.to_owned();
    while let Some(start) = ["#[cfg(test)", "#[cfg(all(test"].iter().filter_map(|cfg| out.find(cfg)).min() {
        let end = item_end(&out, start);
        let blank: String = out[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(start..end, &blank);
    }
    out
}

/// The end of the item whose first attribute starts at `start`: its `;`, the brace that closes its body, or (for a
/// field) the brace that closes the item around it.
fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0;
    for (i, c) in code[start..].char_indices() {
        match c {
            '[' | '(' | '{' => depth += 1,
            ']' | ')' | '}' => depth -= 1,
            ';' if depth == 0 => return start + i + 1,
            _ => continue,
        }
        if c == '}' && depth <= 0 {
            return start + i + usize::from(depth == 0);
        }
    }
    code.len()
}

#[test]
fn text_is_blanked_and_lines_are_kept() {
    let source = "a // crate::b\n/* x /* y */ \n */ c(\"d\\\" e\", 'f', '\\'', b\"g\") <'h> r#\"i \"j\"# r#type\n";
    let code = blank_text(source);
    assert_eq!(code.len(), source.len());
    assert_eq!(code.matches('\n').count(), 3);
    let words: Vec<&str> = code.split_whitespace().collect();
    assert_eq!(words, ["a", "c(", ",", ",", ",", "b", ")", "<'h>", "r#type"]);
}

#[test]
fn test_items_are_blanked_and_nothing_else() {
    let source = "use a;\n#[cfg(test)]\nuse b;\n#[cfg(any(test, feature = \"x\"))] fn c() {}\n\
                  #[cfg(test)] #[expect(d)] mod tests { fn e() { f[0]; } }\nstruct G { #[cfg(test)] h: I }\nfn j() {}";
    let code = blank_tests(&blank_text(source));
    assert_eq!(code.matches('\n').count(), source.matches('\n').count());
    for gone in ["use b", "mod tests", "f[0]", "h: I"] {
        assert!(!code.contains(gone), "{gone} is still in {code}");
    }
    for kept in ["use a;", "fn c() {}", "struct G {", "}\nfn j() {}"] {
        assert!(code.contains(kept), "{kept} is gone from {code}");
    }
}
