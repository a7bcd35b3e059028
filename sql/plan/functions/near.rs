//! Finding a pattern by a text that is in each of its matches.
//!
//! Of `(&|^)channel_id=([^&]*)` a match begins at most one byte before `channel_id=`. To look for these bytes, and then to match
//! from the few places where a match with the first of them can begin, is several times faster than to look for the pattern,
//! and most texts without a match are done with the bytes alone.
//!
//! Invariant: what is found is the leftmost match, as ever; the time stays linear in the text, because after the first place of
//! the bytes the pattern itself is looked for.

use memchr::memmem;
use regex_automata::meta::Regex;
use regex_automata::util::captures::Captures;
use regex_automata::{Anchored, Input};
use regex_syntax::hir::{Hir, HirKind, Literal};
use std::cell::RefCell;
use std::ops::Range;

/// Bytes that a match may have before the text.
const BEFORE: usize = 4;
/// A shorter text is found too often.
const SHORTEST: usize = 3;

/// A pattern with such a text.
pub(super) struct Near {
    regex: Regex,
    text: memmem::Finder<'static>,
    before: usize,
    /// Of the last search.
    caught: RefCell<Captures>,
}

impl Near {
    /// Of a pattern in the matcher's words; none if no such text is known of it.
    pub(super) fn of(pattern: &str) -> Option<Near> {
        let hir = regex_syntax::parse(pattern).ok()?;
        let (text, before) = required(&hir)?;
        let regex = Regex::builder().build_from_hir(&hir).ok()?;
        let caught = RefCell::new(regex.create_captures());
        Some(Near { regex, text: memmem::Finder::new(text).into_owned(), before, caught })
    }

    /// What the group caught of the first match.
    pub(super) fn group(&self, text: &str, group: usize) -> Option<Range<usize>> {
        let at = self.text.find(text.as_bytes())?;
        let mut caught = self.caught.borrow_mut();
        for start in at.saturating_sub(self.before)..=at {
            self.regex.search_captures(&Input::new(text).range(start..).anchored(Anchored::Yes), &mut caught);
            if caught.is_match() {
                return caught.get_group(group).map(|span| span.range());
            }
        }
        self.regex.search_captures(&Input::new(text).range(at + 1..), &mut caught);
        caught.get_group(group).map(|span| span.range())
    }
}

/// A text that every match has, and how many bytes of the match are before it at most.
fn required(hir: &Hir) -> Option<(&[u8], usize)> {
    let HirKind::Concat(parts) = hir.kind() else { return None };
    let mut before = 0;
    for part in parts {
        if let HirKind::Literal(Literal(text)) = part.kind()
            && text.len() >= SHORTEST
        {
            return Some((text, before));
        }
        before += part.properties().maximum_len()?;
        if before > BEFORE {
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PATTERNS: [&str; 8] = [
        "(&|^)abc=([^&]*)",
        "abc(=)?",
        "(a|)(b?)abc",
        "\u{e9}?aba(.*)b",
        "aba(ba)*c",
        "a{0,3}abc$",
        "(?-u:\\b)abc(?-u:\\b)",
        "(a??)aaa(a*)",
    ];

    #[test]
    fn a_text_is_known_of_some_patterns() {
        let of = |pattern: &str| required(&regex_syntax::parse(pattern).unwrap()).map(|(text, before)| (text.to_vec(), before));
        assert_eq!(of("(&|^)channel_id=([^&]*)"), Some((b"channel_id=".to_vec(), 1)));
        assert!(PATTERNS.iter().all(|pattern| of(pattern).is_some()));
        for none in ["[^/]*abc(.)", "abc|abd", "(?i)abc(.)", "ab(.)", "(abc)?d", ".{2}abc(.)", "a.*abc"] {
            assert_eq!(of(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_the_pattern_finds(text in "[abc=&\u{e9} ]{0,16}", infix in "(a|b|&|\u{e9}){0,3}(abc|aba|aaa)[=ab&]{0,3}", tail in "[abc=&]{0,8}") {
            for text in [text.clone(), format!("{text}{infix}{tail}")] {
                for pattern in PATTERNS {
                    let expected = regex::Regex::new(pattern).unwrap();
                    let near = Near::of(pattern).unwrap();
                    for group in 0..3 {
                        let wanted = expected.captures(&text).and_then(|c| c.get(group)).map(|m| m.range());
                        prop_assert_eq!(near.group(&text, group), wanted, "{} in {:?}", pattern, text);
                    }
                }
            }
        }
    }
}
