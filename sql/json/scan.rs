//! A scanner over the bytes of one JSON text: what the decoder reads with.
//!
//! It decides nothing about odd input: anything but the straight case (an escape with a number, a number it cannot read
//! exactly, a syntax error) is `Odd`, and the record goes to the careful path, which rests on serde_json.
//!
//! Invariant: what it accepts, serde_json accepts with the same meaning, provided that a text with anything
//! [beyond ASCII](Scan::is_beyond_ascii) is UTF-8.

use super::layout::Name;
use wide::u8x16;

/// Not for this scanner; nothing is known about the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Odd;

/// Nesting that is followed; serde_json's own limit is 128.
const DEPTH: usize = 100;

/// A place in a text. It is kept as bytes: pieces of it are put together before anybody needs to know that they are texts.
pub(super) struct Scan<'a> {
    text: &'a [u8],
    at: usize,
    /// Bits of bytes of strings that were no ASCII.
    beyond: u32,
}

impl<'a> Scan<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Scan { text, at: 0, beyond: 0 }
    }

    /// Whether a string may have held more than ASCII; only then the text may not be UTF-8 though all of it was taken.
    pub(super) fn is_beyond_ascii(&self) -> bool {
        self.beyond != 0
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
        let (value, length) = few_digits(digits).or_else(|| more_digits(digits)).unwrap_or_else(|| {
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
        self.plain();
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
            self.copy_plain(to);
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
            self.plain();
            match self.byte() {
                b'"' => break,
                b'\\' => drop(self.escape()?),
                _ => return Err(Odd),
            }
        }
        self.at += 1;
        Ok(())
    }

    /// Skips what comes before the first quote, backslash or control character.
    #[inline]
    fn plain(&mut self) {
        while let Some(chunk) = self.text.get(self.at..).and_then(<[u8]>::first_chunk) {
            let (special, beyond) = marks(chunk);
            self.beyond |= beyond;
            if special != 0 {
                self.at += special.trailing_zeros() as usize;
                return;
            }
            self.at += CHUNK;
        }
        self.last_plain();
    }

    /// The same where fewer bytes than a chunk are left: the last chunk of the text, without what came before.
    fn last_plain(&mut self) {
        let Some(chunk) = self.text.last_chunk() else {
            let rest = self.text.get(self.at..).unwrap_or_default();
            self.beyond |= u32::from(!rest.is_ascii());
            self.at += rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)).unwrap_or(rest.len());
            return;
        };
        let (special, beyond) = marks(chunk);
        self.beyond |= beyond;
        let ahead = special >> (CHUNK - (self.text.len() - self.at));
        self.at = if ahead == 0 { self.text.len() } else { self.at + ahead.trailing_zeros() as usize };
    }

    /// The same, appending what is skipped.
    #[inline]
    fn copy_plain(&mut self, to: &mut Vec<u8>) {
        while let Some(chunk) = self.text.get(self.at..).and_then(<[u8]>::first_chunk) {
            let (special, beyond) = marks(chunk);
            self.beyond |= beyond;
            // All sixteen, of which some may go again: a copy whose length is known is a move.
            to.extend_from_slice(chunk);
            if special != 0 {
                let plain = special.trailing_zeros() as usize;
                to.truncate(to.len() - CHUNK + plain);
                self.at += plain;
                return;
            }
            self.at += CHUNK;
        }
        let start = self.at;
        self.last_plain();
        to.extend_from_slice(&self.text[start..self.at]);
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

/// Bytes that are looked at together.
const CHUNK: usize = 16;

/// Which of the bytes are quotes, backslashes or control characters, and which are no ASCII: the first byte is the lowest bit.
#[inline(always)]
fn marks(chunk: &[u8; CHUNK]) -> (u32, u32) {
    let bytes = u8x16::new(*chunk);
    let is_control = bytes.min(u8x16::splat(0x1f)).simd_eq(bytes);
    let special = bytes.simd_eq(u8x16::splat(b'"')) | bytes.simd_eq(u8x16::splat(b'\\')) | is_control;
    (special.to_bitmask(), bytes.to_bitmask())
}

/// Whether no byte is a quote, a backslash or a control character.
pub(super) fn is_plain(bytes: &[u8]) -> bool {
    let mut scan = Scan::new(bytes);
    scan.plain();
    scan.at == bytes.len()
}

/// The number that up to seven digits make, and how many they are; none when there are more, or the text may end here.
#[inline]
fn few_digits(text: &[u8]) -> Option<(i64, usize)> {
    let (word, length) = digits(text)?;
    // The last digit into the highest byte, zeros before the first.
    (1..8).contains(&length).then(|| (together(word << (64 - 8 * length)), length))
}

/// The same of eight to fifteen digits.
fn more_digits(text: &[u8]) -> Option<(i64, usize)> {
    let (high, 8) = digits(text)? else { return None };
    match few_digits(&text[8..]) {
        Some((low, length)) => Some((together(high) * 10i64.pow(length as u32) + low, 8 + length)),
        // Exactly eight: what follows them is no digit, and there is enough of it.
        None => matches!(digits(&text[8..])?, (_, 0)).then(|| (together(high), 8)),
    }
}

/// Eight bytes as digits from 0 to 9, and how many of them are some.
#[inline]
fn digits(text: &[u8]) -> Option<(u64, usize)> {
    let word = u64::from_le_bytes(*text.first_chunk()?) ^ 0x3030_3030_3030_3030;
    // Digits are 0 to 9 now: with 0x76 added nothing else stays below 0x80. Carries come from bytes behind the first such.
    let others = (word.wrapping_add(0x7676_7676_7676_7676) | word) & 0x8080_8080_8080_8080;
    Some((word, others.trailing_zeros() as usize / 8))
}

/// The number that eight digits make, the first in the lowest byte: pairs, fours and all eight are put together.
#[inline]
fn together(digits: u64) -> i64 {
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0x0000_ffff_0000_ffff;
    (fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xffff_ffff) as i64
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
            let mut scan = Scan::new(&bytes);
            scan.plain();
            prop_assert_eq!(scan.at, first);
            prop_assert!(scan.is_beyond_ascii() || bytes[..first].is_ascii());
            let (mut copied, mut scan) = (b"before".to_vec(), Scan::new(&bytes));
            scan.copy_plain(&mut copied);
            prop_assert_eq!((scan.at, &copied[6..]), (first, &bytes[..first]));
            prop_assert!(scan.is_beyond_ascii() || bytes[..first].is_ascii());
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
        fn more_digits_are_the_number_that_they_say(number in 0u64..10_000_000_000_000_000, digits in 6usize..17, tail in "[^0-9][ -~]{0,12}") {
            let text = format!("{:0digits$}", number % 10u64.pow(digits as u32));
            let whole = format!("{text}{tail}");
            match more_digits(whole.as_bytes()) {
                Some((value, length)) => prop_assert_eq!((value, length), (text.parse().unwrap(), text.len())),
                None => prop_assert!(whole.len() < 16 || !(8..16).contains(&text.len())),
            }
            prop_assert_eq!(Scan::new(whole.as_bytes()).small_number().is_some(), !text.starts_with('0') && !tail.starts_with(['.', 'e', 'E']));
        }

        #[test]
        fn whatever_follows_is_no_digit(bytes: [u8; 8]) {
            let count = bytes.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(8);
            prop_assert_eq!(few_digits(&bytes).map(|(_, length)| length), (1..8).contains(&count).then_some(count));
            prop_assert_eq!(super::digits(&bytes).map(|(_, length)| length), Some(count));
        }
    }
}
