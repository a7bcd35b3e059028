//! A scanner over the bytes of one JSON text: what the decoder reads with.
//!
//! It decides nothing about odd input: anything but the straight case (an escape with a number, a number it cannot read
//! exactly, a syntax error) is `Odd`, and the record goes to the careful path, which rests on serde_json.
//!
//! Invariant: what it accepts, serde_json accepts with the same meaning.

use super::layout::Name;

/// Not for this scanner; nothing is known about the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Odd;

/// Nesting that is followed; serde_json's own limit is 128.
const DEPTH: usize = 100;

/// A place in a text that is known to be UTF-8. It is kept as bytes: pieces of it are put together before anybody needs to know
/// once more that they are texts.
pub(super) struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Scan { text, at: 0 }
    }

    #[cfg(test)]
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.text[self.at..]
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
        let (value, length) = few_digits(digits).unwrap_or_else(|| {
            let (mut value, mut length) = (0i64, 0);
            for byte in digits.iter().take(19).map(|byte| byte.wrapping_sub(b'0')) {
                if byte > 9 {
                    break;
                }
                value = value.wrapping_mul(10).wrapping_add(i64::from(byte));
                length += 1;
            }
            (value, length)
        });
        let leads = digits.first() == Some(&b'0') && length > 1;
        if length == 0 || length > 18 || leads || matches!(digits.get(length), Some(b'.' | b'e' | b'E')) {
            return None;
        }
        self.at += length + usize::from(negative);
        Some(if negative { -value } else { value })
    }

    /// A string without escapes.
    pub(super) fn string(&mut self) -> Result<&'a str, Odd> {
        self.string_bytes().and_then(text)
    }

    /// The same as bytes.
    pub(super) fn string_bytes(&mut self) -> Result<&'a [u8], Odd> {
        self.take(b'"')?;
        let start = self.at;
        self.at += plain(&self.text[start..]);
        if self.byte() != b'"' {
            return Err(Odd);
        }
        self.at += 1;
        Ok(&self.text[start..self.at - 1])
    }

    /// A string, appended to a text.
    pub(super) fn copy_string(&mut self, to: &mut Vec<u8>) -> Result<(), Odd> {
        self.take(b'"')?;
        loop {
            let start = self.at;
            self.at += plain(&self.text[start..]);
            to.extend_from_slice(&self.text[start..self.at]);
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

    /// The byte that an escape means, which begins here; none with a number, which may be half of a character.
    fn escape(&mut self) -> Result<u8, Odd> {
        let character = match self.text.get(self.at + 1) {
            Some(b'\\') => b'\\',
            Some(b'"') => b'"',
            Some(b'/') => b'/',
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'r') => b'\r',
            Some(b'b') => 0x8,
            Some(b'f') => 0xc,
            _ => return Err(Odd),
        };
        self.at += 2;
        Ok(character)
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
        text(&self.text[start..self.at])
    }

    fn digits(&mut self) -> Result<(), Odd> {
        let start = self.at;
        while self.byte().is_ascii_digit() {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(Odd) }
    }

    /// Any value, checked and skipped.
    pub(super) fn value(&mut self) -> Result<(), Odd> {
        self.skip(DEPTH)
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
                    self.string_bytes()?;
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

/// Cut at ASCII, which is no part of a longer character: it is a text as the whole is.
fn text(piece: &[u8]) -> Result<&str, Odd> {
    std::str::from_utf8(piece).map_err(|_| Odd)
}

/// How many bytes come before the first quote, backslash or control character.
fn plain(bytes: &[u8]) -> usize {
    let is_special = |byte: u8| (byte == b'"') | (byte == b'\\') | (byte < 0x20);
    let mut chunks = bytes.chunks_exact(16);
    for (i, chunk) in chunks.by_ref().enumerate() {
        // Written so that compilers compare all sixteen at once.
        let marks: [u8; 16] = std::array::from_fn(|i| if is_special(chunk[i]) { 0xff } else { 0 });
        let marks = u128::from_le_bytes(marks);
        let (low, high) = (marks as u64, (marks >> 64) as u64);
        if low | high != 0 {
            let first = if low != 0 { low.trailing_zeros() } else { 64 + high.trailing_zeros() };
            return i * 16 + first as usize / 8;
        }
    }
    let rest = chunks.remainder();
    bytes.len() - rest.len() + rest.iter().position(|byte| is_special(*byte)).unwrap_or(rest.len())
}

/// The number that up to seven digits make, and how many they are; none when there are more, or the text may end here.
#[inline]
fn few_digits(text: &[u8]) -> Option<(i64, usize)> {
    let word = u64::from_le_bytes(*text.first_chunk()?) ^ 0x3030_3030_3030_3030;
    // Digits are 0 to 9 now: with 0x76 added nothing else stays below 0x80. Carries come from bytes behind the first such.
    let others = (word.wrapping_add(0x7676_7676_7676_7676) | word) & 0x8080_8080_8080_8080;
    let length = others.trailing_zeros() as usize / 8;
    if others == 0 || length == 0 {
        return None;
    }
    // The last digit into the highest byte, zeros before the first; then pairs, fours and all eight are put together.
    let digits = word << (64 - 8 * length);
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0x0000_ffff_0000_ffff;
    let all = fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xffff_ffff;
    Some((all as i64, length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_first_special_byte_is_found(bytes in proptest::collection::vec(prop_oneof![6 => 0x20u8..=255, 1 => Just(b'"'), 1 => Just(b'\\'), 1 => 0u8..0x20], 0..40), before in 0usize..100) {
            let bytes = [vec![b'x'; before], bytes].concat();
            let first = bytes.iter().position(|b| *b == b'"' || *b == b'\\' || *b < 0x20).unwrap_or(bytes.len());
            prop_assert_eq!(plain(&bytes), first);
        }

        #[test]
        fn few_digits_are_the_number_that_they_say(number in 0u32..100_000_000, digits in 1usize..9, tail in "[^0-9][ -~]{0,8}") {
            let text = format!("{:0digits$}", number % 10u32.pow(digits as u32));
            let whole = format!("{text}{tail}");
            match few_digits(whole.as_bytes()) {
                Some((value, length)) => prop_assert_eq!((value, length), (text.parse().unwrap(), text.len())),
                None => prop_assert!(whole.len() < 8 || text.len() > 7),
            }
        }

        #[test]
        fn whatever_follows_is_no_digit(bytes: [u8; 8]) {
            let count = bytes.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(8);
            prop_assert_eq!(few_digits(&bytes).map(|(_, length)| length), (1..8).contains(&count).then_some(count));
        }
    }
}
