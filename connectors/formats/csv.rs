//! One line of comma-separated values into the user's type, by column names.
//!
//! Quotes as in RFC 4180, but no line breaks inside a cell: a record is a line. A cell becomes what the field's type asks for;
//! an empty cell without quotes is `None` for an `Option`.
//!
//! Invariant: a line has exactly as many cells as there are columns, else it is an error.

use super::{Decode, excerpt};
use serde::de::value::{Error as CellError, MapDeserializer};
use serde::de::{DeserializeOwned, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use std::borrow::Cow;
use std::sync::Arc;
use waterwheel_engine::record::RawRecord;

/// Decodes lines with these columns.
///
/// ```
/// use waterwheel_connectors::formats::{Csv, Decode};
/// use waterwheel_engine::record::RawBatch;
/// let mut batch = RawBatch::default();
/// batch.push_parts(&"t".into(), 0, 0, 0, None, Some(b"DE,\"a, b\""), &[]);
/// let csv = Csv::new("country,name").unwrap();
/// let row: std::collections::BTreeMap<String, String> = csv.decode(batch.record(0)).unwrap().unwrap();
/// assert_eq!(row["name"], "a, b");
/// ```
#[derive(Debug, Clone)]
pub struct Csv {
    columns: Arc<[String]>,
}

impl Csv {
    /// Columns from a header line.
    ///
    /// # Errors
    /// When the line is no CSV.
    pub fn new(header: &str) -> Result<Self, String> {
        let columns = cells(header.trim_end_matches(['\r', '\n']))?.into_iter().map(|c| c.text.trim().to_string()).collect();
        Ok(Csv { columns })
    }
}

impl<T: DeserializeOwned> Decode<T> for Csv {
    fn decode(&self, record: RawRecord<'_>) -> Result<Option<T>, String> {
        let Some(value) = record.value else { return Ok(None) };
        let line = std::str::from_utf8(value).map_err(|_| format!("the line is not UTF-8: {}", excerpt(value)))?;
        let cells = cells(line)?;
        if cells.len() != self.columns.len() {
            return Err(format!("the line has {} cells, the header {}: {}", cells.len(), self.columns.len(), excerpt(value)));
        }
        let row = MapDeserializer::<_, CellError>::new(self.columns.iter().map(String::as_str).zip(cells));
        T::deserialize(row).map(Some).map_err(|e| format!("the line does not fit the type: {e}, in {}", excerpt(value)))
    }
}

/// One cell; knows whether it was quoted.
struct Cell<'a> {
    text: Cow<'a, str>,
    quoted: bool,
}

/// The cells of a line.
fn cells(line: &str) -> Result<Vec<Cell<'_>>, String> {
    let mut cells = Vec::new();
    let mut rest = line;
    loop {
        let (cell, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_cell(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (Cell { text: rest[..end].into(), quoted: false }, &rest[end..])
            }
        };
        cells.push(cell);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(cells),
            None => return Err(format!("text after a closing quote: {}", excerpt(after.as_bytes()))),
        }
    }
}

/// The cell after an opening quote, and what follows its closing quote.
fn quoted_cell(text: &str) -> Result<(Cell<'_>, &str), String> {
    let mut from = 0;
    let mut doubled = false;
    loop {
        let at = text[from..].find('"').ok_or("a quote is not closed")? + from;
        if text[at + 1..].starts_with('"') {
            doubled = true;
            from = at + 2;
            continue;
        }
        let inner = &text[..at];
        let text_of = if doubled { Cow::Owned(inner.replace("\"\"", "\"")) } else { Cow::Borrowed(inner) };
        return Ok((Cell { text: text_of, quoted: true }, &text[at + 1..]));
    }
}

impl<'a> IntoDeserializer<'_, CellError> for Cell<'a> {
    type Deserializer = Cell<'a>;
    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! parsed {
    ($($method:ident $visit:ident $what:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CellError> {
            let value = self.text.trim().parse::<$what>();
            visitor.$visit(value.map_err(|_| CellError::custom(format_args!("{:?} is no {}", self.text, stringify!($what))))?)
        }
    )*};
}

impl<'de> serde::Deserializer<'de> for Cell<'_> {
    type Error = CellError;

    parsed! {
        deserialize_bool visit_bool bool;
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
        deserialize_i128 visit_i128 i128;
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
        deserialize_u128 visit_u128 u128;
        deserialize_f32 visit_f32 f32;
        deserialize_f64 visit_f64 f64;
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CellError> {
        match self.text {
            Cow::Borrowed(text) => visitor.visit_str(text),
            Cow::Owned(text) => visitor.visit_string(text),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CellError> {
        if self.text.is_empty() && !self.quoted { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, CellError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CellError> {
        IntoDeserializer::<CellError>::into_deserializer(&*self.text).deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use waterwheel_engine::record::RawBatch;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Row {
        name: String,
        n: Option<i64>,
        kind: Kind,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Big,
        Small,
    }

    fn decode(line: &[u8]) -> Result<Row, String> {
        let mut batch = RawBatch::default();
        batch.push_parts(&"t".into(), 0, 0, 0, None, Some(line), &[]);
        Csv::new("kind,name,n").unwrap().decode(batch.record(0)).map(Option::unwrap)
    }

    #[test]
    fn cells_become_what_the_type_asks_for() {
        assert_eq!(decode(br#"big,"say ""hi"", you",7"#), Ok(Row { name: "say \"hi\", you".into(), n: Some(7), kind: Kind::Big }));
        assert_eq!(decode(b"small,42,"), Ok(Row { name: "42".into(), n: None, kind: Kind::Small }));
    }

    #[test]
    fn bad_lines_are_errors() {
        for (line, says) in [
            (&b"big,a"[..], "2 cells"),
            (b"big,a,x", "is no i64"),
            (b"huge,a,1", "unknown variant"),
            (b"big,\"a,1", "not closed"),
            (b"big,\"a\"b,1", "after a closing quote"),
            (b"big,\xff,1", "UTF-8"),
            (b"", "1 cells"),
        ] {
            let error = decode(line).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn noise_is_an_error_or_a_row_and_no_panic(line in "[big,\"\\r\n0-9\u{e4}-]{0,30}", bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..40)) {
            let _ = (decode(line.as_bytes()), decode(&bytes), Csv::new(&line));
        }
    }
}
