//! The straight case of reading JSON, quickly.
//!
//! Most records are plain: objects of texts, whole numbers, booleans. This reader takes those, in one pass, without an error
//! text to make; on anything else (a broken record, a value that does not fit the type, an odd escape, deep nesting) it gives
//! up, and `serde_json` reads the record from the start and says what is wrong with it.
//!
//! Invariant: what it does not give up on comes to the very value that `serde_json` makes of the same bytes.

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use std::fmt;

/// Nesting up to this; `serde_json` allows a little more.
const DEPTH: usize = 100;

/// Not a straight case. Carries nothing: the slow way finds out what is wrong.
#[derive(Debug)]
pub(super) struct GiveUp;

impl fmt::Display for GiveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a straight case")
    }
}

impl std::error::Error for GiveUp {}

impl de::Error for GiveUp {
    fn custom<T: fmt::Display>(_: T) -> Self {
        GiveUp
    }
    fn invalid_type(_: de::Unexpected<'_>, _: &dyn de::Expected) -> Self {
        GiveUp
    }
    fn invalid_value(_: de::Unexpected<'_>, _: &dyn de::Expected) -> Self {
        GiveUp
    }
    fn invalid_length(_: usize, _: &dyn de::Expected) -> Self {
        GiveUp
    }
    fn unknown_variant(_: &str, _: &'static [&'static str]) -> Self {
        GiveUp
    }
    fn unknown_field(_: &str, _: &'static [&'static str]) -> Self {
        GiveUp
    }
    fn missing_field(_: &'static str) -> Self {
        GiveUp
    }
    fn duplicate_field(_: &'static str) -> Self {
        GiveUp
    }
}

type Result<T> = std::result::Result<T, GiveUp>;

/// Reads one whole text.
pub(super) fn read<'de, T: de::Deserialize<'de>>(bytes: &'de [u8]) -> Result<T> {
    let mut reader = Reader { bytes, at: 0, depth: 0, scratch: Vec::new() };
    let value = T::deserialize(&mut reader)?;
    match reader.peek() {
        Some(_) => Err(GiveUp),
        None => Ok(value),
    }
}

struct Reader<'de> {
    bytes: &'de [u8],
    at: usize,
    depth: usize,
    scratch: Vec<u8>,
}

/// A text: as it lies in the record, or put together in the scratch.
enum Text<'de, 's> {
    Borrowed(&'de str),
    Scratch(&'s str),
}

const ONES: u64 = u64::MAX / 255;
const HIGHS: u64 = ONES << 7;

/// Marks (in the high bit of a byte) quotes, backslashes and control characters; the lowest mark is exact.
#[inline]
fn marks(word: u64) -> u64 {
    let zero = |x: u64| x.wrapping_sub(ONES) & !x & HIGHS;
    let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
    zero(word ^ (ONES * u64::from(b'"'))) | zero(word ^ (ONES * u64::from(b'\\'))) | control
}

impl<'de> Reader<'de> {
    /// The next byte that is no white space.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        loop {
            match *self.bytes.get(self.at)? {
                b' ' | b'\n' | b'\t' | b'\r' => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    #[inline]
    fn expect(&mut self, wanted: u8) -> Result<()> {
        if self.peek() != Some(wanted) {
            return Err(GiveUp);
        }
        self.at += 1;
        Ok(())
    }

    #[inline]
    fn literal(&mut self, rest: &[u8]) -> Result<()> {
        let end = self.at + rest.len();
        if self.bytes.get(self.at..end) != Some(rest) {
            return Err(GiveUp);
        }
        self.at = end;
        Ok(())
    }

    /// Moves to the next quote, backslash or control character inside of a text.
    #[inline]
    fn skip_plain(&mut self) -> Result<u8> {
        while let Some(word) = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk::<8>) {
            let marks = marks(u64::from_le_bytes(*word));
            if marks != 0 {
                self.at += marks.trailing_zeros() as usize / 8;
                return Ok(self.bytes[self.at]);
            }
            self.at += 8;
        }
        loop {
            match *self.bytes.get(self.at).ok_or(GiveUp)? {
                byte @ (b'"' | b'\\' | 0..0x20) => return Ok(byte),
                _ => self.at += 1,
            }
        }
    }

    /// A text, from its opening quote on.
    #[inline]
    fn text(&mut self) -> Result<Text<'de, '_>> {
        self.expect(b'"')?;
        let start = self.at;
        let stop = self.skip_plain()?;
        let bytes: &'de [u8] = &self.bytes[start..self.at];
        match stop {
            b'"' => {
                self.at += 1;
                Ok(Text::Borrowed(std::str::from_utf8(bytes).map_err(|_| GiveUp)?))
            }
            b'\\' => {
                self.scratch.clear();
                self.scratch.extend_from_slice(bytes);
                self.unescape()?;
                Ok(Text::Scratch(std::str::from_utf8(&self.scratch).map_err(|_| GiveUp)?))
            }
            _ => Err(GiveUp),
        }
    }

    #[inline]
    fn visit_text<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value> {
        match self.text()? {
            Text::Borrowed(text) => visitor.visit_borrowed_str(text),
            Text::Scratch(text) => visitor.visit_str(text),
        }
    }

    fn unit_variant<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value> {
        let name: StrDeserializer<'_, GiveUp> = match self.text()? {
            Text::Borrowed(text) | Text::Scratch(text) => text.into_deserializer(),
        };
        visitor.visit_enum(name)
    }

    fn boolean<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value> {
        let value = self.bytes[self.at] == b't';
        self.literal(if value { b"true" } else { b"false" })?;
        visitor.visit_bool(value)
    }

    fn null<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value> {
        self.literal(b"null")?;
        visitor.visit_unit()
    }

    /// Puts the rest of a text, from a backslash on, into the scratch.
    fn unescape(&mut self) -> Result<()> {
        loop {
            let plain = match self.escape()? {
                Some(byte) => byte,
                None => return Err(GiveUp),
            };
            self.scratch.push(plain);
            let start = self.at;
            let stop = self.skip_plain()?;
            self.scratch.extend_from_slice(&self.bytes[start..self.at]);
            match stop {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => {}
                _ => return Err(GiveUp),
            }
        }
    }

    /// The byte that a short escape stands for; none for `\u`.
    #[inline]
    fn escape(&mut self) -> Result<Option<u8>> {
        let byte = *self.bytes.get(self.at + 1).ok_or(GiveUp)?;
        let plain = match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => return Ok(None),
            _ => return Err(GiveUp),
        };
        self.at += 2;
        Ok(Some(plain))
    }

    fn skip_text(&mut self) -> Result<()> {
        self.expect(b'"')?;
        loop {
            match self.skip_plain()? {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => self.escape()?.ok_or(GiveUp).map(drop)?,
                _ => return Err(GiveUp),
            }
        }
    }

    /// A number, of which the first byte is there: whole ones here, others as `serde_json` reads them.
    #[inline]
    fn number<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value> {
        let start = self.at;
        let negative = self.bytes[start] == b'-';
        self.at += usize::from(negative);
        let first = self.at;
        let mut number = 0u64;
        while let Some(digit @ b'0'..=b'9') = self.bytes.get(self.at) {
            number = number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            self.at += 1;
        }
        let digits = self.at - first;
        if matches!(self.bytes.get(self.at), Some(b'.' | b'e' | b'E')) {
            return self.fraction(start, visitor);
        }
        // 18 digits fit for sure; a zero in front, or alone behind a minus, is a case of its own.
        if digits == 0 || digits > 18 || (self.bytes[first] == b'0' && (digits > 1 || negative)) {
            return Err(GiveUp);
        }
        if negative { visitor.visit_i64(-(number as i64)) } else { visitor.visit_u64(number) }
    }

    fn fraction<V: Visitor<'de>>(&mut self, start: usize, visitor: V) -> Result<V::Value> {
        let rest = &self.bytes[start..];
        let end = rest.iter().position(|b| !matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')).unwrap_or(rest.len());
        self.at = start + end;
        visitor.visit_f64(serde_json::from_slice(&rest[..end]).map_err(|_| GiveUp)?)
    }

    fn nested<R>(&mut self, inside: impl FnOnce(&mut Self) -> Result<R>) -> Result<R> {
        if self.depth == DEPTH {
            return Err(GiveUp);
        }
        self.depth += 1;
        let result = inside(self)?;
        self.depth -= 1;
        Ok(result)
    }

    fn map<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value> {
        self.expect(b'{')?;
        self.nested(|reader| {
            let mut items = Items { reader, close: b'}', first: true, done: false };
            let value = visitor.visit_map(&mut items)?;
            if items.done { Ok(value) } else { Err(GiveUp) }
        })
    }

    fn seq<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value> {
        self.expect(b'[')?;
        self.nested(|reader| {
            let mut items = Items { reader, close: b']', first: true, done: false };
            let value = visitor.visit_seq(&mut items)?;
            // What is complete as far as the visitor is concerned may still lack its bracket.
            if items.done || !items.next()? { Ok(value) } else { Err(GiveUp) }
        })
    }

    /// Goes over a value of any kind, as strictly as `serde_json` does.
    fn skip(&mut self) -> Result<()> {
        match self.peek().ok_or(GiveUp)? {
            b'"' => self.skip_text(),
            b'{' => {
                self.at += 1;
                self.nested(|reader| {
                    let mut items = Items { reader, close: b'}', first: true, done: false };
                    while items.next()? {
                        items.reader.skip_key()?;
                        items.reader.skip()?;
                    }
                    Ok(())
                })
            }
            b'[' => {
                self.at += 1;
                self.nested(|reader| {
                    let mut items = Items { reader, close: b']', first: true, done: false };
                    while items.next()? {
                        items.reader.skip()?;
                    }
                    Ok(())
                })
            }
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            b'-' | b'0'..=b'9' => self.number(de::IgnoredAny).map(drop),
            _ => Err(GiveUp),
        }
    }

    fn skip_key(&mut self) -> Result<()> {
        // As `serde_json`, which reads the keys of what it ignores as texts.
        self.text().map(drop)?;
        self.expect(b':')
    }
}

/// What lies between two brackets.
struct Items<'r, 'de> {
    reader: &'r mut Reader<'de>,
    close: u8,
    first: bool,
    done: bool,
}

impl Items<'_, '_> {
    /// Whether another item follows; moves past the comma, or past the end.
    #[inline]
    fn next(&mut self) -> Result<bool> {
        let byte = self.reader.peek().ok_or(GiveUp)?;
        if byte == self.close {
            self.reader.at += 1;
            self.done = true;
            return Ok(false);
        }
        if std::mem::take(&mut self.first) {
            return Ok(true);
        }
        if byte != b',' {
            return Err(GiveUp);
        }
        self.reader.at += 1;
        // No comma in front of the end.
        if self.reader.peek() == Some(self.close) { Err(GiveUp) } else { Ok(true) }
    }
}

impl<'de> de::MapAccess<'de> for &mut Items<'_, 'de> {
    type Error = GiveUp;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        if self.done || !self.next()? {
            return Ok(None);
        }
        let key = seed.deserialize(Key(self.reader))?;
        self.reader.expect(b':')?;
        Ok(Some(key))
    }

    #[inline]
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        seed.deserialize(&mut *self.reader)
    }
}

impl<'de> de::SeqAccess<'de> for &mut Items<'_, 'de> {
    type Error = GiveUp;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        if self.done || !self.next()? {
            return Ok(None);
        }
        seed.deserialize(&mut *self.reader).map(Some)
    }
}

/// The key of a map; only texts are straight cases.
struct Key<'r, 'de>(&'r mut Reader<'de>);

impl<'de> Deserializer<'de> for Key<'_, 'de> {
    type Error = GiveUp;

    #[inline]
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.0.visit_text(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, _: V) -> Result<V::Value> {
        Err(GiveUp)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, _: V) -> Result<V::Value> {
        Err(GiveUp)
    }

    // What is not made of a text refuses it: that is no straight case.
    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string option unit unit_struct seq tuple tuple_struct map struct
        enum identifier ignored_any
    }
}

/// Kinds of values that begin in one way only.
macro_rules! values {
    ($($method:ident($($argument:ty),*) $begins:pat => $read:ident;)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, $(_: $argument,)* visitor: V) -> Result<V::Value> {
            match self.peek() {
                Some($begins) => self.$read(visitor),
                _ => Err(GiveUp),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = GiveUp;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.peek().ok_or(GiveUp)? {
            b'"' => self.visit_text(visitor),
            b'{' => self.map(visitor),
            b'[' => self.seq(visitor),
            b't' | b'f' => self.boolean(visitor),
            b'n' => self.null(visitor),
            b'-' | b'0'..=b'9' => self.number(visitor),
            _ => Err(GiveUp),
        }
    }

    values! {
        deserialize_bool() b't' | b'f' => boolean;
        deserialize_i8() b'-' | b'0'..=b'9' => number;
        deserialize_i16() b'-' | b'0'..=b'9' => number;
        deserialize_i32() b'-' | b'0'..=b'9' => number;
        deserialize_i64() b'-' | b'0'..=b'9' => number;
        deserialize_u8() b'-' | b'0'..=b'9' => number;
        deserialize_u16() b'-' | b'0'..=b'9' => number;
        deserialize_u32() b'-' | b'0'..=b'9' => number;
        deserialize_u64() b'-' | b'0'..=b'9' => number;
        deserialize_f32() b'-' | b'0'..=b'9' => number;
        deserialize_f64() b'-' | b'0'..=b'9' => number;
        deserialize_char() b'"' => visit_text;
        deserialize_str() b'"' => visit_text;
        deserialize_string() b'"' => visit_text;
        deserialize_identifier() b'"' => visit_text;
        deserialize_unit() b'n' => null;
        deserialize_unit_struct(&'static str) b'n' => null;
        deserialize_seq() b'[' => seq;
        deserialize_tuple(usize) b'[' => seq;
        deserialize_tuple_struct(&'static str, usize) b'[' => seq;
        deserialize_map() b'{' => map;
        deserialize_struct(&'static str, &'static [&'static str]) b'{' => map;
        deserialize_enum(&'static str, &'static [&'static str]) b'"' => unit_variant;
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.peek() {
            Some(b'n') => {
                self.literal(b"null")?;
                visitor.visit_none()
            }
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value> {
        // By such names `serde_json` knows types of its own, which take more than a value from it.
        if name.starts_with("$serde_json") { Err(GiveUp) } else { visitor.visit_newtype_struct(self) }
    }

    #[inline]
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.skip()?;
        visitor.visit_unit()
    }

    fn deserialize_i128<V: Visitor<'de>>(self, _: V) -> Result<V::Value> {
        Err(GiveUp)
    }

    fn deserialize_u128<V: Visitor<'de>>(self, _: V) -> Result<V::Value> {
        Err(GiveUp)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, _: V) -> Result<V::Value> {
        Err(GiveUp)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, _: V) -> Result<V::Value> {
        Err(GiveUp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Kind {
        First,
        Second,
        Other { n: i32 },
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Wrapped(i16);

    #[derive(Debug, PartialEq, Deserialize)]
    struct All<'a> {
        text: String,
        #[serde(borrow)]
        part: Option<&'a str>,
        small: Option<u8>,
        large: i64,
        ratio: f64,
        yes: bool,
        #[serde(default)]
        kind: Option<Kind>,
        #[serde(default)]
        list: Vec<Wrapped>,
        #[serde(default)]
        pair: Option<(u32, char)>,
        #[serde(default)]
        names: BTreeMap<String, i64>,
        #[serde(default)]
        numbers: BTreeMap<u8, ()>,
        #[serde(default)]
        any: serde_json::Value,
    }

    /// The one promise: what is read at all is what `serde_json` reads.
    fn check(bytes: &[u8]) -> bool {
        let mut read_any = false;
        macro_rules! same {
            ($($t:ty),*) => {$(
                if let Ok(value) = read::<$t>(bytes) {
                    let slow = serde_json::from_slice::<$t>(bytes);
                    assert!(slow.as_ref().is_ok_and(|slow| *slow == value), "{:?} {value:?} {slow:?}", String::from_utf8_lossy(bytes));
                    read_any = true;
                }
            )*};
        }
        same!(All<'_>, serde_json::Value, de::IgnoredAny, Vec<i8>, (u64, f64), String, Option<bool>, Kind, f32, i128, BTreeMap<String, u16>);
        read_any
    }

    const PLAIN: &str = r#"{"text":"a\n\"b\/","part":"straight","small":7,"large":-12345678901,"ratio":0.25,"yes":true,"kind":"second",
        "list":[1,-2, 3],"pair":[4,"x"],"names":{"a":1,"b":-1},"unknown":{"x":[1,"2\t",null,{"y":false}],"z":1.5e3},"any":[null,{"k":"v"}]}"#;

    #[test]
    fn plain_records_are_straight_cases() {
        let value: All<'_> = read(PLAIN.as_bytes()).expect("nothing is odd here");
        assert_eq!(value, serde_json::from_str(PLAIN).unwrap());
        for plain in [
            "{}",
            "[]",
            " [ 1 , 2 ] ",
            "0",
            "-1",
            "18446",
            "1.5",
            "\"\"",
            "\"\u{fc}\u{10348} text of more than eight bytes\"",
            "null",
            "true",
        ] {
            assert!(check(plain.as_bytes()), "{plain}");
        }
    }

    #[test]
    fn odd_ones_are_left_to_the_slow_way() {
        let deep = "[".repeat(200) + &"]".repeat(200);
        let cut = &PLAIN[..PLAIN.len() - 1];
        for odd in [
            "",
            " ",
            "01",
            "-0",
            "-",
            "1.",
            "1e400",
            "1 2",
            "{\"a\":1,}",
            "[1,]",
            "[,1]",
            "{\"a\" 1}",
            "{a:1}",
            "nul",
            "truex",
            "\"a",
            "\"\u{1}\"",
            "\"\\x\"",
            "\"\\u00e4\"",
            "99999999999999999999",
            "[1",
            "]",
            "\"\u{7f}\\",
            &deep,
            cut,
        ] {
            check(odd.as_bytes());
            assert!(read::<serde_json::Value>(odd.as_bytes()).is_err(), "{odd}");
        }
        assert!(read::<String>(b"\"\xff\"").is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn changed_records_are_read_as_the_slow_way_reads_them(
            changes in proptest::collection::vec((0usize..400, prop_oneof![any::<u8>(), prop::sample::select(&b"\"\\{}[]:,-.eE0123nulltrfas \n/u"[..])], 0u8..3), 1..4),
        ) {
            let mut bytes = PLAIN.as_bytes().to_vec();
            for (at, byte, how) in changes {
                let at = at % bytes.len();
                match how {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    _ => drop(bytes.remove(at)),
                }
            }
            check(&bytes);
        }

        #[test]
        fn texts_and_numbers_are_exact(text in "\\PC{0,20}|[\"\\\\/\n\t\u{1}-\u{30}a-c]{0,20}", number: i64, ratio: f64) {
            for json in [serde_json::to_string(&text).unwrap(), number.to_string(), format!("[{},{ratio:?}]", number.unsigned_abs()), format!("\"{text}\"")] {
                check(json.as_bytes());
            }
        }
    }
}
