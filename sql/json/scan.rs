//! A scanner over the bytes of one JSON text: what the decoder reads with.
//!
//! It decides nothing about odd input: anything but the straight case (an escape with a number, a number it cannot read
//! exactly, a syntax error) is `Odd`, and the record goes to the careful path, which rests on serde_json.
//!
//! Invariant: what it accepts, serde_json accepts with the same meaning.

/// Not for this scanner; nothing is known about the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Odd;

/// Nesting that is followed; serde_json's own limit is 128.
const DEPTH: usize = 100;

/// A member's name with its quotes and colon, as nearly every writer has it.
pub(super) struct Name {
    /// Empty when the name may be written in more than one way.
    text: Vec<u8>,
    /// Up to 16 bytes of it, compared as one number: names are looked for more often than anything else.
    word: u128,
    mask: u128,
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
}

/// A place in a text that is known to be UTF-8.
pub(super) struct Scan<'a> {
    whole: &'a str,
    text: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Scan { whole: text, text: text.as_bytes(), at: 0 }
    }

    fn byte(&self) -> u8 {
        // 0 is in no JSON text, so the end needs no case of its own.
        self.text.get(self.at).copied().unwrap_or(0)
    }

    pub(super) fn space(&mut self) {
        while matches!(self.byte(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    /// The next byte that is no space.
    pub(super) fn peek(&mut self) -> u8 {
        self.space();
        self.byte()
    }

    /// Takes this byte.
    pub(super) fn take(&mut self, byte: u8) -> Result<(), Odd> {
        if self.peek() == byte {
            self.at += 1;
            return Ok(());
        }
        Err(Odd)
    }

    /// Takes this byte if it is next.
    pub(super) fn took(&mut self, byte: u8) -> bool {
        self.take(byte).is_ok()
    }

    /// Nothing but space is left.
    pub(super) fn end(&mut self) -> Result<(), Odd> {
        self.space();
        if self.at == self.text.len() { Ok(()) } else { Err(Odd) }
    }

    /// Takes a name that is there as it is mostly written, space for space.
    pub(super) fn took_name(&mut self, name: &Name) -> bool {
        let Some(rest) = self.text.get(self.at..) else { return false };
        let is_there = match rest.first_chunk() {
            Some(word) if name.mask != 0 => u128::from_le_bytes(*word) & name.mask == name.word,
            _ => !name.text.is_empty() && rest.starts_with(&name.text),
        };
        self.at += if is_there { name.text.len() } else { 0 };
        is_there
    }

    /// A whole number of up to 18 digits with nothing of a number behind it; else nothing is taken.
    pub(super) fn small_number(&mut self) -> Option<i64> {
        let rest = self.text.get(self.at..)?;
        let negative = rest.first() == Some(&b'-');
        let digits = &rest[usize::from(negative)..];
        let (mut value, mut length) = (0i64, 0);
        for byte in digits.iter().take(19).map(|byte| byte.wrapping_sub(b'0')) {
            if byte > 9 {
                break;
            }
            value = value.wrapping_mul(10).wrapping_add(i64::from(byte));
            length += 1;
        }
        let leads = digits.first() == Some(&b'0') && length > 1;
        if length == 0 || length > 18 || leads || matches!(digits.get(length), Some(b'.' | b'e' | b'E')) {
            return None;
        }
        self.at += length + usize::from(negative);
        Some(if negative { -value } else { value })
    }

    /// A string without escapes.
    pub(super) fn string(&mut self) -> Result<&'a str, Odd> {
        self.take(b'"')?;
        let start = self.at;
        self.at += plain(&self.text[start..]);
        if self.byte() != b'"' {
            return Err(Odd);
        }
        self.at += 1;
        self.piece(start, self.at - 1)
    }

    /// A string, appended to a text.
    pub(super) fn copy_string(&mut self, to: &mut String) -> Result<(), Odd> {
        self.take(b'"')?;
        loop {
            let start = self.at;
            self.at += plain(&self.text[start..]);
            to.push_str(self.piece(start, self.at)?);
            match self.byte() {
                b'"' => break,
                b'\\' => to.push(self.escape()?),
                _ => return Err(Odd),
            }
        }
        self.at += 1;
        Ok(())
    }

    fn skip_string(&mut self) -> Result<(), Odd> {
        self.take(b'"')?;
        loop {
            self.at += plain(&self.text[self.at..]);
            match self.byte() {
                b'"' => break,
                b'\\' => drop(self.escape()?),
                _ => return Err(Odd),
            }
        }
        self.at += 1;
        Ok(())
    }

    /// The character of an escape, which begins here; none with a number, which may be half of a character.
    fn escape(&mut self) -> Result<char, Odd> {
        let character = match self.text.get(self.at + 1) {
            Some(b'\\') => '\\',
            Some(b'"') => '"',
            Some(b'/') => '/',
            Some(b'n') => '\n',
            Some(b't') => '\t',
            Some(b'r') => '\r',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            _ => return Err(Odd),
        };
        self.at += 2;
        Ok(character)
    }

    /// A part of the text; it is cut at ASCII, which is no part of a longer character.
    fn piece(&self, start: usize, end: usize) -> Result<&'a str, Odd> {
        self.whole.get(start..end).ok_or(Odd)
    }

    /// `true`, `false`, `null`.
    pub(super) fn word(&mut self, word: &str) -> Result<(), Odd> {
        self.space();
        if !self.text[self.at.min(self.text.len())..].starts_with(word.as_bytes()) {
            return Err(Odd);
        }
        self.at += word.len();
        Ok(())
    }

    /// The text of a number.
    pub(super) fn number(&mut self) -> Result<&'a str, Odd> {
        self.space();
        let start = self.at;
        self.at += usize::from(self.byte() == b'-');
        match self.byte() {
            b'0' => self.at += 1,
            b'1'..=b'9' => self.digits()?,
            _ => return Err(Odd),
        }
        if self.byte() == b'.' {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.byte(), b'e' | b'E') {
            self.at += 1;
            self.at += usize::from(matches!(self.byte(), b'+' | b'-'));
            self.digits()?;
        }
        self.piece(start, self.at)
    }

    fn digits(&mut self) -> Result<(), Odd> {
        let start = self.at;
        while self.byte().is_ascii_digit() {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(Odd) }
    }

    /// Any value, checked and skipped; the text of it.
    pub(super) fn value(&mut self) -> Result<&'a str, Odd> {
        self.space();
        let start = self.at;
        self.skip(DEPTH)?;
        self.piece(start, self.at)
    }

    fn skip(&mut self, depth: usize) -> Result<(), Odd> {
        let depth = depth.checked_sub(1).ok_or(Odd)?;
        match self.peek() {
            b'"' => self.skip_string(),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            b'{' => {
                self.at += 1;
                if self.took(b'}') {
                    return Ok(());
                }
                loop {
                    self.string()?;
                    self.take(b':')?;
                    self.skip(depth)?;
                    if !self.took(b',') {
                        return self.take(b'}');
                    }
                }
            }
            b'[' => {
                self.at += 1;
                if self.took(b']') {
                    return Ok(());
                }
                loop {
                    self.skip(depth)?;
                    if !self.took(b',') {
                        return self.take(b']');
                    }
                }
            }
            _ => self.number().map(drop),
        }
    }
}

/// How many bytes come before the first quote, backslash or control character.
fn plain(bytes: &[u8]) -> usize {
    // Names and most values end soon; what goes on is looked at in pieces that the compiler makes vectors of.
    let (head, rest) = bytes.split_at(bytes.len().min(16));
    let at = words(head);
    if at < head.len() {
        return at;
    }
    let mut at = head.len();
    for chunk in rest.chunks_exact(32) {
        if chunk.iter().fold(false, |any, byte| any | is_special(*byte)) {
            break;
        }
        at += chunk.len();
    }
    at + words(&bytes[at..])
}

fn is_special(byte: u8) -> bool {
    (byte == b'"') | (byte == b'\\') | (byte < 0x20)
}

/// The same, eight at a time.
fn words(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let mut chunks = bytes.chunks_exact(8);
    for (i, chunk) in chunks.by_ref().enumerate() {
        let word = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
        // The lowest high bit that is set marks the first byte that is 0, or below 0x20; those above may be carries.
        let zero = |x: u64| x.wrapping_sub(ONES) & !x & HIGH;
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        let special = zero(word ^ (ONES * u64::from(b'"'))) | zero(word ^ (ONES * u64::from(b'\\'))) | control;
        if special != 0 {
            return i * 8 + special.trailing_zeros() as usize / 8;
        }
    }
    let rest = chunks.remainder();
    bytes.len() - rest.len() + rest.iter().position(|byte| is_special(*byte)).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_of_any_length_are_taken_or_left() {
        for name in ["", "a", "dateTime", "thirteen_byte", "fourteen_bytes", "a name that is longer than sixteen bytes", "ü"] {
            let known = Name::of(name);
            for tail in ["", "1", "1}", ",\"and\":\"more than sixteen bytes\""] {
                let text = format!("\"{name}\":{tail}");
                let mut scan = Scan::new(&text);
                assert!(scan.took_name(&known), "{text}");
                assert_eq!(&text[scan.at..], tail);
                let other = format!("\"{name}x\":{tail}");
                assert!(!Scan::new(&other).took_name(&known), "{other}");
                assert!(!Scan::new(&text[..text.len() - tail.len() - 1]).took_name(&known), "cut off");
            }
        }
        assert!(!Scan::new("\"a\"b\":").took_name(&Name::of("a\"b")), "written in more than one way");
    }

    proptest! {
        #[test]
        fn the_first_special_byte_is_found(bytes in proptest::collection::vec(prop_oneof![6 => 0x20u8..=255, 1 => Just(b'"'), 1 => Just(b'\\'), 1 => 0u8..0x20], 0..40), before in 0usize..100) {
            let bytes = [vec![b'x'; before], bytes].concat();
            let first = bytes.iter().position(|b| *b == b'"' || *b == b'\\' || *b < 0x20).unwrap_or(bytes.len());
            prop_assert_eq!(plain(&bytes), first);
        }
    }
}
