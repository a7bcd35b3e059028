//! CSV records to columns and back: a record is a line, its fields are the table's columns in order.
//!
//! A field of no letters is a text of no letters, and NULL for every other type; `csv.null-literal` names another text for
//! NULL.
//!
//! Invariant: a record gives exactly one row or one error, and what is written here is read back as the same row (where texts
//! are unlike the text for NULL).

use crate::error::{SqlError, SqlResult};
use crate::json::{Column, ColumnWriter};
use crate::options::Options;
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use csv_core::{ReadRecordResult, Reader, ReaderBuilder};
use std::collections::BTreeMap;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::record::record_batch;

/// How a table's CSV is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Csv {
    delimiter: u8,
    /// None = quotes are letters like others.
    quote: Option<u8>,
    escape: Option<u8>,
    /// What stands for NULL.
    null: Option<String>,
    /// Lines that begin with `#` are no records.
    comments: bool,
}

impl Csv {
    /// What the options say.
    pub(crate) fn of(options: &Options) -> SqlResult<Csv> {
        let character = |key: &str| match options.get(key) {
            None => Ok(None),
            Some("\\t") => Ok(Some(b'\t')),
            Some(text) => match text.as_bytes() {
                [one] if one.is_ascii() && !matches!(one, b'\n' | b'\r') => Ok(Some(*one)),
                _ => Err(SqlError::new(format!("'{key}' is one character, not '{text}'"))),
            },
        };
        let quote = character("csv.quote-character")?;
        Ok(Csv {
            delimiter: character("csv.field-delimiter")?.unwrap_or(b','),
            quote: if options.get("csv.disable-quote-character") == Some("true") { None } else { Some(quote.unwrap_or(b'"')) },
            escape: character("csv.escape-character")?,
            null: options.get("csv.null-literal").map(String::from),
            comments: options.get("csv.allow-comments") == Some("true"),
        })
    }

    /// Refuses columns that a field cannot hold.
    pub(crate) fn check(schema: &Schema) -> SqlResult<()> {
        let nested = schema.fields().iter().find(|f| matches!(f.data_type(), DataType::Struct(_) | DataType::List(_) | DataType::Map(..)));
        let Some(field) = nested else { return Ok(()) };
        Err(SqlError::unsupported(
            &format!("column {:?} of type {} in CSV", field.name(), crate::parser::type_name(field.data_type())),
            "a field is one value",
            "'format' = 'json'",
        ))
    }

    fn reader(&self) -> Reader {
        let mut builder = ReaderBuilder::new();
        builder.delimiter(self.delimiter).escape(self.escape).comment(self.comments.then_some(b'#'));
        match self.quote {
            Some(quote) => builder.quote(quote),
            None => builder.quoting(false),
        };
        builder.build()
    }

    fn is_null(&self, text: &str, kind: &DataType) -> bool {
        self.null.as_deref() == Some(text) || (text.is_empty() && !matches!(kind, DataType::Utf8 | DataType::Binary))
    }

    /// Appends a row as one line, without its line break.
    ///
    /// # Errors
    /// A value that CSV cannot say.
    pub(crate) fn write_row(&self, columns: &[ColumnWriter<'_>], row: usize, out: &mut Vec<u8>) -> std::result::Result<(), String> {
        let special = self.special();
        for (i, column) in columns.iter().enumerate() {
            if i > 0 {
                out.push(self.delimiter);
            }
            let start = out.len();
            match (column.is_null(row), &self.null) {
                (false, _) => column.plain(row, out),
                (true, Some(null)) => out.extend_from_slice(null.as_bytes()),
                (true, None) => {}
            }
            let text = &out[start..];
            // A line of no letters is no record.
            let must = columns.len() == 1 && text.is_empty() || self.comments && i == 0 && text.starts_with(b"#");
            // Without an end at the first, so that compilers compare many letters at once.
            if must || text.iter().fold(false, |any, byte| any | special.iter().fold(false, |any, s| any | (s == byte))) {
                self.put_quotes(start, out)?;
            }
        }
        Ok(())
    }

    /// The letters with which a field stands in quotes.
    fn special(&self) -> [u8; 5] {
        [b'\n', b'\r', self.delimiter, self.quote.unwrap_or(b'\n'), self.escape.unwrap_or(b'\n')]
    }

    /// Puts the field that begins at `start` into quotes.
    fn put_quotes(&self, start: usize, out: &mut Vec<u8>) -> std::result::Result<(), String> {
        let field = out.split_off(start);
        let Some(quote) = self.quote else {
            let text = String::from_utf8_lossy(&field);
            return Err(format!("{text:?} needs quotes, which 'csv.disable-quote-character' takes away"));
        };
        if field.contains(&b'\n') {
            return Err("a line break in a text would end the record".into());
        }
        out.push(quote);
        for byte in field {
            if byte == quote || self.escape == Some(byte) {
                out.push(self.escape.unwrap_or(quote));
            }
            out.push(byte);
        }
        out.push(quote);
        Ok(())
    }
}

/// Rows being made of records.
pub(crate) struct CsvRows {
    csv: Csv,
    reader: Reader,
    schema: SchemaRef,
    columns: Vec<Column>,
    /// By field of a record: the column that it goes to.
    fields: Vec<Option<usize>>,
    rows: usize,
    /// Of the record that is read: its text, and where its fields end.
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl CsvRows {
    /// Rows of these columns, of records that have all of `names` as fields.
    ///
    /// # Errors
    /// A type that CSV cannot be read into.
    pub(crate) fn new(csv: Csv, schema: SchemaRef, names: &[String]) -> Result<Self> {
        let columns = schema.fields().iter().map(|f| Column::new(f.data_type())).collect::<Result<_>>()?;
        let places: BTreeMap<&str, usize> = schema.fields().iter().enumerate().map(|(i, f)| (f.name().as_str(), i)).collect();
        let fields = names.iter().map(|name| places.get(name.as_str()).copied()).collect();
        Ok(CsvRows { reader: csv.reader(), csv, schema, columns, fields, rows: 0, text: vec![0; 256], ends: vec![0; names.len() + 1] })
    }

    /// Appends the row of one record; `false` where the line is none.
    ///
    /// # Errors
    /// What is wrong with the record; then nothing is appended.
    pub(crate) fn push(&mut self, record: &[u8]) -> std::result::Result<bool, String> {
        let Some(count) = self.split(record)? else { return Ok(false) };
        let read = self.read(count);
        match read {
            Ok(()) => self.rows += 1,
            Err(_) => self.columns.iter_mut().for_each(|c| c.truncate(self.rows)),
        }
        read.map(|()| true)
    }

    /// Takes a record apart; how many fields it has, if it is one.
    fn split(&mut self, record: &[u8]) -> std::result::Result<Option<usize>, String> {
        self.reader.reset();
        let (mut written, mut count) = (0, 0);
        for part in [record, b"\n"] {
            let mut rest = part;
            loop {
                let (result, read, more, ended) = self.reader.read_record(rest, &mut self.text[written..], &mut self.ends[count..]);
                rest = &rest[read..];
                written += more;
                count += ended;
                match result {
                    ReadRecordResult::InputEmpty => break,
                    ReadRecordResult::OutputFull => self.text.resize(self.text.len() * 2, 0),
                    ReadRecordResult::OutputEndsFull => return Err(format!("the record has more than {} fields", self.fields.len())),
                    ReadRecordResult::Record if rest.is_empty() => return Ok(Some(count)),
                    ReadRecordResult::Record => return Err("the record has more than one line".into()),
                    ReadRecordResult::End => return Ok(None),
                }
            }
        }
        let is_none = record.iter().all(|b| matches!(b, b'\r' | b'\n')) || (self.csv.comments && record.first() == Some(&b'#'));
        if is_none { Ok(None) } else { Err("a quote is not closed".into()) }
    }

    fn read(&mut self, count: usize) -> std::result::Result<(), String> {
        if count != self.fields.len() {
            return Err(format!("the record has {count} fields, the table {}", self.fields.len()));
        }
        for (i, column) in self.fields.iter().enumerate() {
            let Some(column) = *column else { continue };
            let field = self.schema.field(column);
            let start = if i == 0 { 0 } else { self.ends[i - 1] };
            let text =
                std::str::from_utf8(&self.text[start..self.ends[i]]).map_err(|e| format!("column {} is not UTF-8: {e}", field.name()))?;
            if self.csv.is_null(text, field.data_type()) {
                if !field.is_nullable() {
                    return Err(format!("column {} is NOT NULL and has no value", field.name()));
                }
                self.columns[column].null();
            } else {
                self.columns[column].text(text).map_err(|e| format!("column {}: {e}", field.name()))?;
            }
        }
        Ok(())
    }

    /// Takes the rows so far.
    ///
    /// # Errors
    /// Columns beyond the limits of Arrow.
    pub(crate) fn take(&mut self) -> Result<RecordBatch> {
        let fresh = self.columns.iter_mut().map(Column::emptied).collect();
        let (columns, rows) = (std::mem::replace(&mut self.columns, fresh), std::mem::take(&mut self.rows));
        let columns = columns.into_iter().map(Column::finish).collect::<Result<Vec<_>>>()?;
        record_batch(self.schema.clone(), columns, rows).map_err(|e| Error::restart("records cannot be put into columns").because(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::cell;
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::datatypes::{Field, TimeUnit};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn csv() -> Csv {
        Csv { delimiter: b',', quote: Some(b'"'), escape: None, null: None, comments: false }
    }

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("text", DataType::Utf8, true),
            Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        ]))
    }

    fn read(csv: Csv, lines: &[&str]) -> Vec<std::result::Result<String, String>> {
        let names = ["id", "other", "text", "at"].map(String::from);
        let one = |line: &&str| {
            let mut rows = CsvRows::new(csv.clone(), schema(), &names).unwrap();
            let is_row = rows.push(line.as_bytes())?;
            let batch = rows.take().unwrap();
            assert_eq!(batch.num_rows(), usize::from(is_row));
            let cells = |row| batch.columns().iter().map(|c| cell(c, row)).collect::<Vec<_>>().join("|");
            Ok(if is_row { cells(0) } else { "none".into() })
        };
        lines.iter().map(one).collect()
    }

    #[test]
    fn records_are_read_by_position() {
        let rows = read(
            csv(),
            &[
                "1,x,a,2026-01-01 00:00:00.5",
                " 2 ,\"x,y\",\"say \"\"hi\"\"\",",
                ",,,",
                "1,x,a",
                "1,x,a,2026-01-01 00:00:00,5",
                "one,x,a,",
                "1,x,\"a,",
                "1,x,a,\r",
                "",
                "1,x,a,\n2,x,a,",
            ],
        );
        assert_eq!(rows[0], Ok("1|a|2026-01-01 00:00:00.5".into()));
        assert_eq!(rows[1], Ok("2|say \"hi\"|NULL".into()));
        assert_eq!(rows[2], Ok("NULL||NULL".into()));
        assert_eq!(rows[3], Err("the record has 3 fields, the table 4".into()));
        assert_eq!(rows[4], Err("the record has 5 fields, the table 4".into()));
        assert_eq!(rows[5], Err("column id: \"one\" is no BIGINT".into()));
        assert_eq!(rows[6], Err("a quote is not closed".into()));
        assert_eq!(rows[7], Ok("1|a|NULL".into()));
        assert_eq!(rows[8], Ok("none".into()));
        assert_eq!(rows[9], Err("the record has more than one line".into()));
    }

    #[test]
    fn options_change_what_is_read() {
        let other = Csv { delimiter: b';', quote: Some(b'\''), escape: Some(b'\\'), null: Some("n/a".into()), comments: true };
        let rows = read(other, &["1;x;'a;b\\'c';n/a", "n/a;x;n/a;", "# nothing"]);
        assert_eq!(rows, [Ok("1|a;b'c|NULL".into()), Ok("NULL|NULL|NULL".into()), Ok("none".into())]);
        let unquoted = Csv { quote: None, ..csv() };
        assert_eq!(read(unquoted, &["1,x,\"a,"]), [Ok("1|\"a|NULL".into())]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            ids in proptest::collection::vec(proptest::option::of(any::<i64>()), 1..4),
            text in "[a-c,;\"' #\\\\\u{e9}]{0,6}",
            escape: bool,
            null in proptest::option::of(Just("NULL".to_string())),
        ) {
            let csv = Csv { escape: escape.then_some(b'\\'), null, ..csv() };
            let texts: ArrayRef = Arc::new(StringArray::from(vec![text.as_str(); ids.len()]));
            let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true), Field::new("text", DataType::Utf8, true)]));
            let batch = record_batch(schema.clone(), vec![Arc::new(Int64Array::from(ids.clone())), texts], ids.len()).unwrap();
            let mut rows = CsvRows::new(csv.clone(), schema, &["id".to_string(), "text".to_string()]).unwrap();
            for row in 0..ids.len() {
                let mut line = Vec::new();
                csv.write_row(&ColumnWriter::all(&batch), row, &mut line).unwrap();
                prop_assert_eq!(rows.push(&line), Ok(true), "{:?}", String::from_utf8_lossy(&line));
            }
            prop_assert_eq!(rows.take().unwrap(), batch);
        }

        #[test]
        fn damaged_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = CsvRows::new(csv(), schema(), &["id".to_string(), "text".to_string(), "at".to_string()]).unwrap().push(&bytes);
        }
    }
}
