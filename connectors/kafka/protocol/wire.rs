//! The bytes of Kafka's protocol: numbers in network order, varints, compact lengths, tagged fields.
//!
//! Invariant: nothing is read beyond the end of what was given, whatever a length says; a length that does not fit is
//! [`Damaged`], never a panic and never an allocation of its size.

use std::fmt;

/// What cannot be read, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kafka) struct Damaged(pub(in crate::kafka) &'static str);

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

pub(in crate::kafka) type Read<T> = Result<T, Damaged>;

/// Bytes being read from the front.
#[derive(Debug, Clone, Copy)]
pub(in crate::kafka) struct Cursor<'a>(pub(in crate::kafka) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(in crate::kafka) fn bytes(&mut self, n: usize) -> Read<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(Damaged("it ends in the middle of a field"))?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Damaged("it ends in the middle of a number"))?;
        self.0 = rest;
        Ok(*head)
    }

    pub(in crate::kafka) fn i8(&mut self) -> Read<i8> {
        self.array().map(i8::from_be_bytes)
    }

    pub(in crate::kafka) fn i16(&mut self) -> Read<i16> {
        self.array().map(i16::from_be_bytes)
    }

    pub(in crate::kafka) fn i32(&mut self) -> Read<i32> {
        self.array().map(i32::from_be_bytes)
    }

    pub(in crate::kafka) fn u32(&mut self) -> Read<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(in crate::kafka) fn i64(&mut self) -> Read<i64> {
        self.array().map(i64::from_be_bytes)
    }

    pub(in crate::kafka) fn uuid(&mut self) -> Read<[u8; 16]> {
        self.array()
    }

    /// An unsigned varint of up to 64 bits.
    #[inline(always)] // seven a record
    pub(in crate::kafka) fn uvarint(&mut self) -> Read<u64> {
        // Nearly every length and difference in a record is below 128 or below 16,384.
        match *self.0 {
            [a, ref rest @ ..] if a < 0x80 => {
                self.0 = rest;
                Ok(u64::from(a))
            }
            [a, b, ref rest @ ..] if b < 0x80 => {
                self.0 = rest;
                Ok(u64::from(a & 0x7f) | u64::from(b) << 7)
            }
            _ => self.long_uvarint(),
        }
    }

    #[cold]
    fn long_uvarint(&mut self) -> Read<u64> {
        let mut value = 0;
        for (at, &byte) in self.0.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                self.0 = &self.0[at + 1..];
                return Ok(value);
            }
        }
        Err(Damaged("a varint does not end"))
    }

    /// A signed (zigzag) varint.
    #[inline(always)]
    pub(in crate::kafka) fn varint(&mut self) -> Read<i64> {
        let n = self.uvarint()?;
        Ok((n >> 1) as i64 ^ -((n & 1) as i64))
    }

    /// A count or length of the compact form; `None` is null.
    pub(in crate::kafka) fn compact_len(&mut self) -> Read<Option<usize>> {
        match self.uvarint()? {
            0 => Ok(None),
            n => usize::try_from(n - 1).map(Some).map_err(|_| Damaged("a length is out of range")),
        }
    }

    /// A text of the older form; `None` is null.
    pub(in crate::kafka) fn text(&mut self) -> Read<Option<&'a [u8]>> {
        match self.i16()? {
            -1 => Ok(None),
            len => self.bytes(usize::try_from(len).map_err(|_| Damaged("a length below zero"))?).map(Some),
        }
    }

    /// Tagged fields: `each` sees those there are, by number.
    pub(in crate::kafka) fn tags(&mut self, mut each: impl FnMut(u64, Cursor<'a>)) -> Read<()> {
        for _ in 0..self.uvarint()? {
            let tag = self.uvarint()?;
            let len = usize::try_from(self.uvarint()?).map_err(|_| Damaged("a length is out of range"))?;
            each(tag, Cursor(self.bytes(len)?));
        }
        Ok(())
    }
}

/// Appends an unsigned varint.
pub(in crate::kafka) fn put_uvarint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Zigzag: small numbers of either sign become small ones.
#[inline]
fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}

/// Appends a signed (zigzag) varint.
#[inline]
pub(in crate::kafka) fn put_varint(out: &mut Vec<u8>, n: i64) {
    put_uvarint(out, zigzag(n));
}

/// Bytes of a signed (zigzag) varint.
#[inline]
pub(in crate::kafka) fn varint_len(n: i64) -> usize {
    let bits = 64 - (zigzag(n) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Appends a text with its length before it, in the older form. No text of this protocol is as long as 32 KiB.
pub(in crate::kafka) fn put_text(out: &mut Vec<u8>, text: &str) {
    debug_assert!(text.len() <= i16::MAX as usize, "whoever lets a text in looks at its length");
    out.extend_from_slice(&(text.len() as i16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Appends a text of the compact form.
pub(in crate::kafka) fn put_compact(out: &mut Vec<u8>, text: &str) {
    put_uvarint(out, text.len() as u64 + 1);
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_come_back(n: u64, small in 0_u64..40_000) {
            for n in [n, small] {
                let mut out = Vec::new();
                put_uvarint(&mut out, n);
                let mut cursor = Cursor(&out);
                prop_assert_eq!(cursor.uvarint(), Ok(n));
                prop_assert!(cursor.0.is_empty());
                for cut in 0..out.len() {
                    prop_assert!(Cursor(&out[..cut]).uvarint().is_err());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn signed_varints_come_back_and_are_as_long_as_said(n: i64, small in -10_000_i64..10_000) {
            for n in [n, small] {
                let mut out = Vec::new();
                put_varint(&mut out, n);
                prop_assert_eq!(out.len(), varint_len(n));
                prop_assert_eq!(Cursor(&out).varint(), Ok(n));
            }
        }
    }

    #[test]
    fn zigzag_is_kafkas() {
        for (byte, n) in [(0, 0), (1, -1), (2, 1), (3, -2), (4, 2), (127, -64)] {
            assert_eq!(Cursor(&[byte]).varint(), Ok(n));
        }
    }

    #[test]
    fn lengths_that_lie_are_damage() {
        assert!(Cursor(&[0xff; 11]).uvarint().is_err());
        assert!(Cursor(&[1, 2, 3]).bytes(4).is_err());
        assert!(Cursor(&[1, 0, 200, 1]).tags(|_, _| ()).is_err());
        assert_eq!(Cursor(&[0]).compact_len(), Ok(None));
        assert_eq!((Cursor(&[255, 255]).text(), Cursor(&[0, 1, b'x']).text()), (Ok(None), Ok(Some(&b"x"[..]))));
        assert!(Cursor(&[255, 0]).text().is_err() && Cursor(&[0, 2, b'x']).text().is_err());
    }
}
