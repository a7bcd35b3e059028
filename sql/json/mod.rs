//! JSON records to columns and back.
//!
//! The decoder reads only the columns it is asked for, straight from the record's bytes into columns; what its scanner finds
//! odd is read again by serde_json. Members that the table does not know are left out, members that are missing are NULL.
//!
//! Invariant: a record gives exactly one row or one error, and both paths give the same.

mod column;
mod encode;
mod given;
mod layout;
mod scan;
mod text;

pub(crate) use column::Column;
pub(crate) use encode::{ColumnWriter, RowWriter, cell};
pub(crate) use given::{Give, Unfit};
pub(crate) use text::{base64, to_base64};

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use column::Object;
use scan::{Odd, Scan};
use std::sync::Arc;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::record::record_batch;

/// Longest record that is looked at.
const MAX_BYTES: usize = 16 << 20;

/// Rows being made of records.
pub(crate) struct JsonRows {
    schema: SchemaRef,
    /// Of what is made: rows of which only the key is known may have NULL anywhere.
    made: SchemaRef,
    object: Object,
    rows: usize,
}

impl JsonRows {
    /// Rows of these columns.
    ///
    /// # Errors
    /// A type that JSON cannot be read into.
    pub(crate) fn new(schema: SchemaRef) -> Result<Self> {
        let object = Object::new(schema.fields())?;
        let may_be_null = |field: &Arc<Field>| field.as_ref().clone().with_nullable(true);
        let made = Arc::new(Schema::new(schema.fields().iter().map(may_be_null).collect::<Vec<_>>()));
        Ok(JsonRows { schema, made, object, rows: 0 })
    }

    /// Appends the row of one record.
    ///
    /// # Errors
    /// What is wrong with the record; then nothing is appended.
    pub(crate) fn push(&mut self, record: &[u8]) -> std::result::Result<(), String> {
        self.add(record, true)
    }

    /// Appends a row of which only the columns of its key are known; the others are NULL, whatever they may be.
    ///
    /// # Errors
    /// What is wrong with the key; then nothing is appended.
    pub(crate) fn push_key(&mut self, key: &[u8]) -> std::result::Result<(), String> {
        self.add(key, false)
    }

    fn add(&mut self, record: &[u8], is_whole: bool) -> std::result::Result<(), String> {
        if record.len() > MAX_BYTES {
            return Err(format!("the record is too large: {} bytes, the limit is {MAX_BYTES}", record.len()));
        }
        let read = match self.scan(record) {
            Ok(false) => Ok(()),
            // Nearly all records are ASCII.
            Ok(true) => text(record).map(drop),
            Err(Odd) => {
                self.object.columns.iter_mut().for_each(|c| c.truncate(self.rows));
                text(record).and_then(|text| self.read(text))
            }
        };
        let read = read.and_then(|()| if is_whole { self.check_not_null() } else { Ok(()) });
        match &read {
            Ok(()) => self.rows += 1,
            Err(_) => self.object.columns.iter_mut().for_each(|c| c.truncate(self.rows)),
        }
        read
    }

    /// Whether there may be more than ASCII in it.
    fn scan(&mut self, text: &[u8]) -> std::result::Result<bool, Odd> {
        let mut scan = Scan::new(text);
        self.object.scan(&mut scan, self.schema.fields())?;
        scan.end()?;
        Ok(scan.is_beyond_ascii())
    }

    fn read(&mut self, text: &str) -> std::result::Result<(), String> {
        if text.trim().is_empty() {
            return Err("the value is empty, JSON was expected".into());
        }
        let members = column::members(text)?;
        for (field, column) in self.schema.fields().iter().zip(&mut self.object.columns) {
            match members.get(field.name()) {
                Some(raw) => column.read(raw).map_err(|e| format!("column {}: {e}", field.name()))?,
                None => column.null(),
            }
        }
        Ok(())
    }

    fn check_not_null(&self) -> std::result::Result<(), String> {
        let broken =
            self.schema.fields().iter().zip(&self.object.columns).find(|(field, column)| !field.is_nullable() && column.last_is_null());
        match broken {
            None => Ok(()),
            Some((field, _)) => Err(format!("column {} is NOT NULL and has no value", field.name())),
        }
    }

    /// Takes the rows so far.
    ///
    /// # Errors
    /// Columns beyond the limits of Arrow.
    pub(crate) fn take(&mut self) -> Result<RecordBatch> {
        let fresh = self.object.emptied();
        let (object, rows) = (std::mem::replace(&mut self.object, fresh), std::mem::take(&mut self.rows));
        let columns = object.columns.into_iter().map(Column::finish).collect::<Result<Vec<_>>>()?;
        record_batch(self.made.clone(), columns, rows).map_err(|e| Error::restart("records cannot be put into columns").because(e))
    }
}

fn text(record: &[u8]) -> std::result::Result<&str, String> {
    std::str::from_utf8(record).map_err(|e| format!("the value is not UTF-8: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{DataType, TimeUnit};
    use proptest::prelude::*;

    fn schema() -> SchemaRef {
        let row = DataType::Struct(vec![Field::new("x", DataType::Int32, true), Field::new("y", DataType::Utf8, true)].into());
        Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("text", DataType::Utf8, true),
            Field::new("f", DataType::Float64, true),
            Field::new("d", DataType::Decimal128(10, 2), true),
            Field::new("ok", DataType::Boolean, true),
            Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true),
            Field::new("row", row, true),
            Field::new("list", DataType::new_list(DataType::Int64, true), true),
            Field::new("map", crate::maps::map_type(DataType::Utf8, DataType::Int64), true),
        ]))
    }

    /// By the careful path alone.
    fn carefully(text: &str) -> std::result::Result<String, String> {
        let mut rows = JsonRows::new(schema()).unwrap();
        rows.read(text)?;
        rows.rows = 1;
        Ok(shown(&mut rows))
    }

    fn shown(rows: &mut JsonRows) -> String {
        let batch = rows.take().unwrap();
        let mut out = Vec::new();
        RowWriter::of(&batch).json(0, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn decode(text: &str) -> std::result::Result<String, String> {
        let mut rows = JsonRows::new(schema()).unwrap();
        rows.push(text.as_bytes())?;
        Ok(shown(&mut rows))
    }

    #[test]
    fn odd_input_means_the_same_on_both_paths() {
        for text in [
            r#"{"id":1,"text":"a","f":1.5,"d":"1.50","ok":true,"at":"2026-01-01 00:00:00.001","row":{"x":1,"y":"b"},"list":[1,null]}"#,
            r#" { "list" : [ ] , "row" : { } , "id" : "7" , "text" : { "a" : [ 1 , 2 ] } } "#,
            r#"{"id":1,"id":2,"te\u0078t":"\ud83d\ude00\n"}"#,
            r#"{"id":9223372036854775807,"f":1e300,"d":12345678.9,"text":-0.0}"#,
            r#"{"map":{"b":1,"a":null,"b":3,"\u0061b":4}}"#,
            r#"{"map": { } }"#,
            r#"{"unknown":{"deep":[[[{"a":"\\"}]]]},"ok":"TRUE","text":null}"#,
            "{}",
        ] {
            assert_eq!(decode(text), carefully(text), "{text}");
            assert!(decode(text).is_ok(), "{text}: {:?}", decode(text));
        }
    }

    #[test]
    fn a_bad_record_is_an_error_and_leaves_nothing_behind() {
        let mut rows = JsonRows::new(schema()).unwrap();
        rows.push(br#"{"id":1,"list":[1,2]}"#).unwrap();
        for bad in [
            "",
            "x",
            "{",
            "[]",
            "1",
            r#"{"id":1.5}"#,
            r#"{"id":9223372036854775808}"#,
            r#"{"id":1} x"#,
            r#"{"id":01}"#,
            r#"{"text":"a}"#,
            r#"{"list":[1,"x"]}"#,
            r#"{"row":{"x":"y"}}"#,
            r#"{"map":{"x":"y"}}"#,
            r#"{"map":[1]}"#,
            r#"{"ok":1}"#,
            r#"{"d":1.234}"#,
            r#"{"at":5}"#,
            r#"{"id":1,}"#,
            r#"{"a":tru}"#,
            "{\"text\":\"\u{1}\"}",
            r#"{"f":1e999}"#,
        ] {
            assert!(rows.push(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(rows.push(b"{\"text\":\"\xff\"}").is_err());
        for deep in ["[".repeat(100_000), format!("{{\"list\":{}", "[".repeat(100_000)), format!("{{\"x\":{}", "{\"x\":".repeat(100_000))] {
            assert!(rows.push(deep.as_bytes()).is_err());
        }
        let large = format!("{{\"text\":\"{}\"}}", "x".repeat(MAX_BYTES));
        assert!(rows.push(large.as_bytes()).unwrap_err().contains("too large"));
        rows.push(br#"{"id":3}"#).unwrap();
        assert_eq!(rows.take().unwrap().num_rows(), 2);
    }

    /// Texts that are JSON mostly.
    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_string()),
            Just("true".into()),
            any::<i64>().prop_map(|n| n.to_string()),
            any::<f64>().prop_map(|f| format!("{f:e}")),
            (-9999..9999i64).prop_map(|n| format!("{}.{:02}", n, n.abs() % 100)),
            "[a-z\\\\\"\n\u{e9}\u{1f600} ]{0,5}".prop_map(|s| serde_json::to_string(&s).unwrap()),
            Just("\"2026-05-05 01:02:03.004\"".into()),
            Just("\"12\"".into()),
            Just("1e2".into()),
            Just("-".into()),
        ];
        let name = prop_oneof![
            Just("id"),
            Just("text"),
            Just("f"),
            Just("d"),
            Just("ok"),
            Just("at"),
            Just("row"),
            Just("list"),
            Just("map"),
            Just("x"),
            Just("y"),
            Just("t\\u0065xt")
        ];
        leaf.prop_recursive(3, 20, 6, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(|v| format!("[{}]", v.join(","))),
                proptest::collection::vec((name.clone(), inner), 0..8)
                    .prop_map(|v| format!("{{{}}}", v.into_iter().map(|(n, v)| format!("\"{n}\": {v}")).collect::<Vec<_>>().join(","))),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn scanner_and_serde_json_agree(text in json()) {
            prop_assert_eq!(decode(&text).map_err(drop), carefully(&text).map_err(drop));
        }

        #[test]
        fn what_the_scanner_skips_serde_json_takes(text in json()) {
            let mut scan = Scan::new(text.as_bytes());
            if scan.value().and_then(|_| scan.end()).is_ok() {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
            }
        }

        #[test]
        fn damaged_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = JsonRows::new(schema()).unwrap().push(&bytes);
        }
    }
}
