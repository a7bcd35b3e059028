//! A scanner over the bytes of one JSON text: what the decoder reads with.
//!
//! It decides nothing about odd input: anything but the straight case (an escape, a number it cannot read exactly, a syntax
//! error) is `Odd`, and the record goes to the careful path, which rests on serde_json.
//!
//! Invariant: what it accepts, serde_json accepts with the same meaning.

/// Not for this scanner; nothing is known about the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Odd;

/// Nesting that is followed; serde_json's own limit is 128.
const DEPTH: usize = 100;

/// A place in a text that is known to be UTF-8.
pub(super) struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Scan { text: text.as_bytes(), at: 0 }
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

    /// A string without escapes.
    pub(super) fn string(&mut self) -> Result<&'a str, Odd> {
        self.take(b'"')?;
        let start = self.at;
        let len = self.text[start..].iter().position(|&b| b == b'"' || b == b'\\' || b < 0x20).ok_or(Odd)?;
        self.at = start + len + 1;
        if self.text[start + len] != b'"' {
            return Err(Odd);
        }
        // Cut at quotes, which are no part of a longer character.
        std::str::from_utf8(&self.text[start..start + len]).map_err(|_| Odd)
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
        std::str::from_utf8(&self.text[start..self.at]).map_err(|_| Odd)
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
        std::str::from_utf8(&self.text[start..self.at]).map_err(|_| Odd)
    }

    fn skip(&mut self, depth: usize) -> Result<(), Odd> {
        let depth = depth.checked_sub(1).ok_or(Odd)?;
        match self.peek() {
            b'"' => self.string().map(drop),
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
