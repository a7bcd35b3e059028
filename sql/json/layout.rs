//! The order in which objects have their members: what a scanner tries first, instead of looking a name up.
//!
//! Writers have one order. What was seen once, members that nobody asked for included, is compared as a number from then on.
//!
//! Invariant: a layout decides how fast a member is found, never which: each name stands in it once.

use super::scan::{Odd, Scan};
use arrow::datatypes::Fields;

/// Members beyond these are looked up every time.
const LEARNED: usize = 64;

/// A member's name with its quotes and colon, as nearly every writer has it.
pub(super) struct Name {
    /// Empty when the name may be written in more than one way.
    pub(super) text: Vec<u8>,
    /// Up to 16 bytes of it, compared as one number: names are looked for more often than anything else.
    pub(super) word: u128,
    pub(super) mask: u128,
}

impl Name {
    pub(super) fn of(name: &str) -> Name {
        if name.bytes().any(|byte| byte == b'"' || byte == b'\\' || byte < 0x20) {
            return Name { text: Vec::new(), word: 0, mask: 0 };
        }
        let text = format!("\"{name}\":").into_bytes();
        let (mut word, mut mask) = ([0; 16], [0; 16]);
        if text.len() <= 16 {
            word[..text.len()].copy_from_slice(&text);
            mask[..text.len()].fill(0xff);
        }
        Name { text, word: u128::from_le_bytes(word), mask: u128::from_le_bytes(mask) }
    }

    /// Whether it is this one; a name that may be written in more than one way never is.
    fn is(&self, name: &str) -> bool {
        let inner = self.text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\":"));
        inner == Some(name.as_bytes())
    }
}

/// Members in their order, each with the column that it goes to, if any.
#[derive(Default)]
pub(super) struct Layout(Vec<(Name, Option<usize>)>);

impl Layout {
    /// The order of the columns.
    pub(super) fn of(fields: &Fields) -> Layout {
        Layout(fields.iter().enumerate().map(|(column, field)| (Name::of(field.name()), Some(column))).collect())
    }

    /// Takes the name of the next member and its colon; the column that it goes to. `at` is where it is expected, and moves on.
    #[inline]
    pub(super) fn take(&mut self, at: &mut usize, scan: &mut Scan<'_>, fields: &Fields) -> Result<Option<usize>, Odd> {
        if let Some((name, column)) = self.0.get(*at)
            && scan.took_name(name)
        {
            *at += 1;
            return Ok(*column);
        }
        let name = scan.string()?;
        scan.take(b':')?;
        Ok(self.find(at, name, fields))
    }

    #[cold]
    fn find(&mut self, at: &mut usize, name: &str, fields: &Fields) -> Option<usize> {
        let known = |from: usize| self.0.iter().skip(from).position(|(known, _)| known.is(name)).map(|i| i + from);
        if let Some(found) = known(*at).or_else(|| known(0)) {
            *at = found + 1;
            return self.0[found].1;
        }
        let column = fields.iter().position(|field| field.name() == name);
        if self.0.len() < LEARNED {
            self.0.insert((*at).min(self.0.len()), (Name::of(name), column));
            *at += 1;
        }
        column
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{DataType, Field};
    use proptest::prelude::*;

    #[test]
    fn names_of_any_length_are_taken_or_left() {
        for name in ["", "a", "dateTime", "thirteen_byte", "fourteen_bytes", "a name that is longer than sixteen bytes", "ü"] {
            let known = Name::of(name);
            for tail in ["", "1", "1}", ",\"and\":\"more than sixteen bytes\""] {
                let text = format!("\"{name}\":{tail}");
                let mut scan = Scan::new(text.as_bytes());
                assert!(scan.took_name(&known), "{text}");
                assert_eq!(scan.rest(), tail.as_bytes());
                let other = format!("\"{name}x\":{tail}");
                assert!(!Scan::new(other.as_bytes()).took_name(&known), "{other}");
                assert!(!Scan::new(&text.as_bytes()[..text.len() - tail.len() - 1]).took_name(&known), "cut off");
            }
        }
        assert!(!Scan::new(b"\"a\"b\":").took_name(&Name::of("a\"b")), "written in more than one way");
    }

    proptest! {
        #[test]
        fn whatever_came_before_a_member_goes_to_its_column(objects in proptest::collection::vec(proptest::collection::vec(0u32..90, 0..9), 1..30)) {
            let fields: Fields = (0..5).map(|n| Field::new(format!("m{n}"), DataType::Int64, true)).collect();
            let mut layout = Layout::of(&fields);
            for object in objects {
                let mut at = 0;
                for member in object {
                    let name = format!("\"m{member}\":");
                    let column = layout.take(&mut at, &mut Scan::new(name.as_bytes()), &fields).unwrap();
                    prop_assert_eq!(column, (member < 5).then_some(member as usize));
                }
            }
            prop_assert!(layout.0.len() <= LEARNED);
        }
    }
}
