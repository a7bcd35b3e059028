//! Paths into JSON texts: `$.a.b[0]`, `$['a']`, `$.a[*]`, `lax` (unless said) or `strict`.
//!
//! Invariant: values are parts of the text as it is written, so numbers and the order of members stay what they are; of a
//! member that is there twice the last one counts.

use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// A way through a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    strict: bool,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Member(String),
    /// From 0; from the end where it is below 0.
    Item(i64),
    All,
}

/// What is at the end of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// A text without space between its parts.
    Value(String),
    Nothing,
    /// The text is no JSON, or a strict path leads nowhere.
    Wrong,
}

impl Path {
    /// Reads a path.
    pub(super) fn of(text: &str) -> Result<Path, String> {
        let given = text.trim();
        let (strict, rest) = match given.split_once(char::is_whitespace) {
            Some((word, rest)) if word.eq_ignore_ascii_case("lax") => (false, rest.trim()),
            Some((word, rest)) if word.eq_ignore_ascii_case("strict") => (true, rest.trim()),
            _ => (false, given),
        };
        let wrong = || format!("the path {text:?} cannot be used: it is like '$.a.b[0]', '$[''a'']' or '$.a[*]'");
        let mut rest = rest.strip_prefix('$').ok_or_else(wrong)?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                let name = &after[..end];
                if name.is_empty() || name.contains(['*', '(', ' ', '\'', '"', '@', '?']) {
                    return Err(wrong());
                }
                steps.push(Step::Member(name.to_string()));
                rest = &after[end..];
                continue;
            }
            let inner = rest.strip_prefix('[').ok_or_else(wrong)?;
            if let Some(quote) = inner.chars().next().filter(|c| matches!(c, '\'' | '"')) {
                let (name, after) = inner[1..].split_once(quote).ok_or_else(wrong)?;
                steps.push(Step::Member(name.to_string()));
                rest = after.strip_prefix(']').ok_or_else(wrong)?;
            } else {
                let (item, after) = inner.split_once(']').ok_or_else(wrong)?;
                steps.push(if item.trim() == "*" { Step::All } else { Step::Item(item.trim().parse().map_err(|_| wrong())?) });
                rest = after;
            }
        }
        Ok(Path { strict, steps })
    }

    /// What it leads to.
    pub(super) fn find(&self, text: &str) -> Found {
        let Ok(whole) = serde_json::from_str::<&RawValue>(text) else { return Found::Wrong };
        match self.walk(whole, &self.steps) {
            Some(found) if found == "null" => Found::Nothing,
            Some(found) => Found::Value(found),
            None if self.strict => Found::Wrong,
            None => Found::Nothing,
        }
    }

    pub(super) fn is_strict(&self) -> bool {
        self.strict
    }

    fn walk(&self, at: &RawValue, steps: &[Step]) -> Option<String> {
        let Some((step, rest)) = steps.split_first() else { return Some(compact(at.get())) };
        let items = || serde_json::from_str::<Vec<&RawValue>>(at.get()).ok();
        match step {
            Step::Member(name) => {
                let members: BTreeMap<String, &RawValue> = serde_json::from_str(at.get()).ok()?;
                self.walk(members.get(name)?, rest)
            }
            Step::Item(n) => {
                let items = items()?;
                let place =
                    if *n < 0 { items.len().checked_sub(usize::try_from(n.unsigned_abs()).ok()?)? } else { usize::try_from(*n).ok()? };
                self.walk(items.get(place)?, rest)
            }
            Step::All => {
                let all: Vec<String> = items()?.into_iter().filter_map(|item| self.walk(item, rest)).collect();
                Some(format!("[{}]", all.join(",")))
            }
        }
    }
}

/// Without the space between its parts.
fn compact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut quoted, mut escaped) = (false, false);
    for c in json.chars() {
        if quoted {
            quoted = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else if c.is_ascii_whitespace() {
            continue;
        } else {
            quoted = c == '"';
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_a_part_of_the_text() {
        let text = r#"{"a": {"b": [1.50, {"c": "x \" y"}, null]}, "d.e": true, "a2": 1, "a2": 2}"#;
        let find = |path: &str| Path::of(path).unwrap().find(text);
        let value = |v: &str| Found::Value(v.to_string());
        assert_eq!(find("$.a.b[0]"), value("1.50"));
        assert_eq!(find("lax $.a.b[1].c"), value(r#""x \" y""#));
        assert_eq!(find("$.a"), value(r#"{"b":[1.50,{"c":"x \" y"},null]}"#));
        assert_eq!(find("$['d.e']"), value("true"));
        assert_eq!(find("$.a2"), value("2"));
        assert_eq!(find("$.a.b[*].c"), value(r#"["x \" y"]"#));
        assert_eq!(find("$.a.b[2]"), Found::Nothing);
        assert_eq!(find("$.a.b[-2].c"), value(r#""x \" y""#));
        assert_eq!(find("$.a.x.y"), Found::Nothing);
        assert_eq!(find("strict $.a.x"), Found::Wrong);
        assert_eq!(Path::of("$").unwrap().find("{"), Found::Wrong);
        for bad in ["", "a", "$..a", "$.*", "$[a]", "$.a[?(@.b)]", "$['a"] {
            assert!(Path::of(bad).is_err(), "{bad}");
        }
    }
}
