//! Columns being filled from JSON, one value a row, by two paths with one meaning: the scanner's and serde_json's.
//!
//! What becomes of a value is Flink's rule: text takes anything as text; numbers and BOOLEAN also read themselves from text;
//! a value that does not fit its type is an error of the record, never a NULL.
//!
//! Invariant: a column can be cut back to fewer rows, so that a record that fails leaves nothing behind. Numbers are read from
//! their text, so that none passes through a float that is not one.

use super::layout::Layout;
use super::scan::{Odd, Scan};
use super::text;
use crate::kernels::building::whole_numbers;
use crate::maps::{self, parts};
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Float32Array, Float64Array, Int64Array, ListArray, StringArray, StructArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, FieldRef, Fields, TimeUnit};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::Arc;
use waterwheel_engine::error::{Error, Result};

/// Values of one column so far.
pub(crate) struct Column {
    pub(super) valid: Vec<bool>,
    pub(super) values: Values,
}

pub(super) enum Values {
    Bool(Vec<bool>),
    /// Integers, dates, times and timestamps, in the unit of their type.
    Int(DataType, Vec<i64>),
    Float(DataType, Vec<f64>),
    Decimal(u8, i8, Vec<i128>),
    /// Texts one after the other, as bytes: that they are UTF-8 is seen when Arrow takes them.
    Text {
        data: Vec<u8>,
        ends: Ends,
    },
    Bytes {
        data: Vec<u8>,
        ends: Ends,
    },
    Row(Fields, Object),
    List {
        field: FieldRef,
        item: Box<Column>,
        ends: Ends,
    },
    Map(Box<Entries>),
}

/// Entries of maps, in the order in which they come.
pub(super) struct Entries {
    kind: DataType,
    keys: Column,
    items: Column,
    ends: Ends,
}

/// Where each value ends, behind a 0 for the begin of the first: Arrow's offsets.
pub(super) struct Ends(Vec<i32>);

impl Ends {
    fn with_capacity(rows: usize) -> Ends {
        let mut ends = Vec::with_capacity(rows + 1);
        ends.push(0);
        Ends(ends)
    }

    /// Ends beyond 2 GiB are wrong, and refused when the column is made.
    pub(super) fn push(&mut self, end: usize) {
        self.0.push(end as i32);
    }

    /// Forgets the values from `rows` on; where the last one ends now.
    fn truncate(&mut self, rows: usize) -> usize {
        self.0.truncate(rows + 1);
        self.0.last().map_or(0, |end| *end as usize)
    }

    /// The offsets of all there is, `end` bytes or values.
    fn finish(self, end: usize) -> Result<OffsetBuffer<i32>> {
        i32::try_from(end).map_err(|e| Error::restart("a batch holds over 2 GiB of one column").because(e))?;
        Ok(OffsetBuffer::new(self.0.into()))
    }
}

impl Column {
    /// An empty column of a type.
    pub(crate) fn new(kind: &DataType) -> Result<Column> {
        let values = match kind {
            DataType::Boolean => Values::Bool(Vec::new()),
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 | DataType::Date32 => {
                Values::Int(kind.clone(), Vec::new())
            }
            DataType::Time32(TimeUnit::Millisecond) | DataType::Timestamp(_, _) => Values::Int(kind.clone(), Vec::new()),
            DataType::Float32 | DataType::Float64 => Values::Float(kind.clone(), Vec::new()),
            DataType::Decimal128(precision, scale) => Values::Decimal(*precision, *scale, Vec::new()),
            DataType::Utf8 => Values::Text { data: Vec::new(), ends: Ends::with_capacity(0) },
            DataType::Binary => Values::Bytes { data: Vec::new(), ends: Ends::with_capacity(0) },
            DataType::Struct(fields) => Values::Row(fields.clone(), Object::new(fields)?),
            DataType::List(field) => {
                Values::List { field: field.clone(), item: Box::new(Column::new(field.data_type())?), ends: Ends::with_capacity(0) }
            }
            other => match parts(other) {
                Some((key, value)) => {
                    let (keys, items) = (Column::new(key.data_type())?, Column::new(value.data_type())?);
                    Values::Map(Box::new(Entries { kind: other.clone(), keys, items, ends: Ends::with_capacity(0) }))
                }
                None => return Err(Error::fatal(format!("columns of type {other} cannot be read from JSON"))),
            },
        };
        Ok(Column { valid: Vec::new(), values })
    }

    /// An empty column of the same type, with room for as many values as this has and some more: growing copies everything. What
    /// was learned of the order of members goes over to it.
    pub(crate) fn emptied(&mut self) -> Column {
        let some_more = |n: usize| n + n / 8;
        let rows = some_more(self.len());
        let values = match &mut self.values {
            Values::Bool(_) => Values::Bool(Vec::with_capacity(rows)),
            Values::Int(kind, _) => Values::Int(kind.clone(), Vec::with_capacity(rows)),
            Values::Float(kind, _) => Values::Float(kind.clone(), Vec::with_capacity(rows)),
            Values::Decimal(precision, scale, _) => Values::Decimal(*precision, *scale, Vec::with_capacity(rows)),
            Values::Text { data, .. } => Values::Text { data: Vec::with_capacity(some_more(data.len())), ends: Ends::with_capacity(rows) },
            Values::Bytes { data, .. } => {
                Values::Bytes { data: Vec::with_capacity(some_more(data.len())), ends: Ends::with_capacity(rows) }
            }
            Values::Row(fields, object) => Values::Row(fields.clone(), object.emptied()),
            Values::List { field, item, .. } => {
                Values::List { field: field.clone(), item: Box::new(item.emptied()), ends: Ends::with_capacity(rows) }
            }
            Values::Map(map) => Values::Map(Box::new(Entries {
                kind: map.kind.clone(),
                keys: map.keys.emptied(),
                items: map.items.emptied(),
                ends: Ends::with_capacity(rows),
            })),
        };
        Column { valid: Vec::with_capacity(rows), values }
    }

    /// Rows so far.
    pub(crate) fn len(&self) -> usize {
        self.valid.len()
    }

    /// Whether the newest row is NULL.
    pub(crate) fn last_is_null(&self) -> bool {
        self.valid.last() == Some(&false)
    }

    /// Forgets the rows from `rows` on.
    pub(crate) fn truncate(&mut self, rows: usize) {
        self.valid.truncate(rows);
        match &mut self.values {
            Values::Bool(v) => v.truncate(rows),
            Values::Int(_, v) => v.truncate(rows),
            Values::Float(_, v) => v.truncate(rows),
            Values::Decimal(_, _, v) => v.truncate(rows),
            Values::Text { data, ends } | Values::Bytes { data, ends } => data.truncate(ends.truncate(rows)),
            Values::Row(_, object) => object.columns.iter_mut().for_each(|c| c.truncate(rows)),
            Values::List { item, ends, .. } => item.truncate(ends.truncate(rows)),
            Values::Map(map) => {
                let entries = map.ends.truncate(rows);
                map.keys.truncate(entries);
                map.items.truncate(entries);
            }
        }
    }

    /// Appends NULL.
    pub(crate) fn null(&mut self) {
        self.valid.push(false);
        match &mut self.values {
            Values::Bool(v) => v.push(false),
            Values::Int(_, v) => v.push(0),
            Values::Float(_, v) => v.push(0.0),
            Values::Decimal(_, _, v) => v.push(0),
            Values::Text { data, ends } | Values::Bytes { data, ends } => ends.push(data.len()),
            Values::Row(_, object) => object.columns.iter_mut().for_each(Column::null),
            Values::List { item, ends, .. } => ends.push(item.len()),
            Values::Map(map) => map.ends.push(map.keys.len()),
        }
    }

    /// Appends the next value of a text; on `Odd` the caller cuts back.
    pub(super) fn scan(&mut self, scan: &mut Scan<'_>) -> Result<(), Odd> {
        let next = scan.peek();
        if next == b'n' {
            scan.word("null")?;
            self.null();
            return Ok(());
        }
        match &mut self.values {
            Values::Bool(v) => {
                let value = next == b't';
                scan.word(if value { "true" } else { "false" })?;
                v.push(value);
            }
            Values::Int(kind, v) => {
                let value = match next {
                    b'"' => text::of_string(kind, scan.string_bytes()?),
                    _ => match scan.small_number() {
                        Some(value) if text::fits(kind, value) => Ok(value),
                        Some(_) => return Err(Odd),
                        None => text::of_number(kind, scan.number()?),
                    },
                };
                v.push(value.map_err(|_| Odd)?);
            }
            Values::Float(kind, v) => v.push(text::float(kind, scan.number()?).map_err(|_| Odd)?),
            Values::Decimal(precision, scale, v) => v.push(text::decimal(scan.number()?, *precision, *scale).map_err(|_| Odd)?),
            Values::Text { data, ends } if next == b'"' => {
                scan.copy_string(data)?;
                ends.push(data.len());
            }
            Values::Row(fields, object) => object.scan(scan, fields)?,
            Values::List { item, ends, .. } => {
                scan.take(b'[')?;
                if !scan.took(b']') {
                    loop {
                        item.scan(scan)?;
                        if !scan.took(b',') {
                            break scan.take(b']')?;
                        }
                    }
                }
                ends.push(item.len());
            }
            Values::Map(map) => {
                scan.take(b'{')?;
                if !scan.took(b'}') {
                    loop {
                        let key = scan.string()?;
                        map.keys.text(key).map_err(|_| Odd)?;
                        scan.take(b':')?;
                        map.items.scan(scan)?;
                        if !scan.took(b',') {
                            break scan.take(b'}')?;
                        }
                    }
                }
                map.ends.push(map.keys.len());
            }
            Values::Text { .. } | Values::Bytes { .. } => return Err(Odd),
        }
        self.valid.push(true);
        Ok(())
    }

    /// Appends a value by the careful path; on an error the caller cuts back.
    pub(super) fn read(&mut self, raw: &RawValue) -> Result<(), String> {
        let json = raw.get();
        if json == "null" {
            self.null();
            return Ok(());
        }
        let quoted = json.starts_with('"');
        let unquoted = || if quoted { string(json) } else { Ok(json.to_string()) };
        match &mut self.values {
            Values::Bool(v) => v.push(match unquoted()?.trim() {
                t if t.eq_ignore_ascii_case("true") => true,
                t if t.eq_ignore_ascii_case("false") => false,
                _ => return Err(format!("{json} is no BOOLEAN")),
            }),
            Values::Int(kind, v) => v.push(if quoted { text::of_text(kind, &string(json)?)? } else { text::of_number(kind, json)? }),
            Values::Float(kind, v) => v.push(text::float(kind, unquoted()?.trim())?),
            Values::Decimal(precision, scale, v) => v.push(text::decimal(unquoted()?.trim(), *precision, *scale)?),
            Values::Text { data, ends } => {
                data.extend_from_slice(unquoted()?.as_bytes());
                ends.push(data.len());
            }
            Values::Bytes { data, ends } => {
                data.extend(text::base64(&unquoted()?)?);
                ends.push(data.len());
            }
            Values::Row(fields, object) => {
                let members = members(json)?;
                for (field, column) in fields.iter().zip(&mut object.columns) {
                    match members.get(field.name()) {
                        Some(raw) => column.read(raw).map_err(|e| format!("{}: {e}", field.name()))?,
                        None => column.null(),
                    }
                }
            }
            Values::List { item, ends, .. } => {
                let items: Vec<&RawValue> = serde_json::from_str(json).map_err(|_| format!("{} is no array", excerpt(json)))?;
                items.into_iter().try_for_each(|raw| item.read(raw))?;
                ends.push(item.len());
            }
            Values::Map(map) => {
                for (key, raw) in members(json)? {
                    map.keys.text(&key)?;
                    map.items.read(raw).map_err(|e| format!("{key}: {e}"))?;
                }
                map.ends.push(map.keys.len());
            }
        }
        self.valid.push(true);
        Ok(())
    }

    /// Appends the value that a text says, outside of JSON.
    ///
    /// # Errors
    /// It says none of the type; then nothing is appended.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), String> {
        match &mut self.values {
            Values::Bool(v) => v.push(match text.trim() {
                t if t.eq_ignore_ascii_case("true") => true,
                t if t.eq_ignore_ascii_case("false") => false,
                _ => return Err(format!("{text:?} is no BOOLEAN")),
            }),
            Values::Int(kind, v) => v.push(text::of_text(kind, text)?),
            Values::Float(kind, v) => v.push(text::float(kind, text.trim())?),
            Values::Decimal(precision, scale, v) => v.push(text::decimal(text.trim(), *precision, *scale)?),
            Values::Text { data, ends } => {
                data.extend_from_slice(text.as_bytes());
                ends.push(data.len());
            }
            Values::Bytes { data, ends } => {
                data.extend(text::base64(text)?);
                ends.push(data.len());
            }
            Values::Row(..) | Values::List { .. } | Values::Map(_) => return Err("a text holds no row, array or map".into()),
        }
        self.valid.push(true);
        Ok(())
    }

    /// The values as an Arrow column.
    ///
    /// # Errors
    /// Columns beyond the limits of Arrow (2 GiB of text).
    pub(crate) fn finish(self) -> Result<ArrayRef> {
        let failed = |e| Error::restart("a column cannot be made").because(e);
        let rows = self.valid.len();
        let nulls = self.valid.contains(&false).then(|| NullBuffer::from(self.valid));
        Ok(match self.values {
            Values::Bool(v) => Arc::new(BooleanArray::new(v.into(), nulls)),
            Values::Int(kind, v) => whole_numbers(&kind, Int64Array::new(v.into(), nulls)),
            Values::Float(DataType::Float32, v) => {
                Arc::new(Float32Array::new(v.into_iter().map(|v| v as f32).collect::<Vec<_>>().into(), nulls))
            }
            Values::Float(_, v) => Arc::new(Float64Array::new(v.into(), nulls)),
            Values::Decimal(precision, scale, v) => {
                Arc::new(Decimal128Array::new(v.into(), nulls).with_precision_and_scale(precision, scale).map_err(failed)?)
            }
            Values::Text { data, ends } => Arc::new(StringArray::try_new(ends.finish(data.len())?, data.into(), nulls).map_err(failed)?),
            Values::Bytes { data, ends } => Arc::new(BinaryArray::try_new(ends.finish(data.len())?, data.into(), nulls).map_err(failed)?),
            Values::Row(fields, object) => {
                let columns = object.columns.into_iter().map(Column::finish).collect::<Result<Vec<_>>>()?;
                Arc::new(StructArray::try_new_with_length(fields, columns, nulls, rows).map_err(failed)?)
            }
            Values::Map(map) => {
                let Entries { kind, keys, items, ends } = *map;
                let lengths: Vec<usize> = ends.finish(keys.len())?.lengths().collect();
                Arc::new(maps::build(&kind, keys.finish()?, items.finish()?, &lengths, nulls).map_err(failed)?)
            }
            Values::List { field, item, ends } => {
                Arc::new(ListArray::try_new(field, ends.finish(item.len())?, item.finish()?, nulls).map_err(failed)?)
            }
        })
    }
}

/// Columns that are the members of an object.
pub(super) struct Object {
    pub(super) columns: Vec<Column>,
    layout: Layout,
}

impl Object {
    /// Empty columns of some fields.
    pub(super) fn new(fields: &Fields) -> Result<Object> {
        let columns = fields.iter().map(|f| Column::new(f.data_type())).collect::<Result<_>>()?;
        Ok(Object { columns, layout: Layout::of(fields) })
    }

    /// As [`Column::emptied`].
    pub(super) fn emptied(&mut self) -> Object {
        Object { columns: self.columns.iter_mut().map(Column::emptied).collect(), layout: std::mem::take(&mut self.layout) }
    }

    /// The members of an object into the columns of these fields; each column gets one row.
    pub(super) fn scan(&mut self, scan: &mut Scan<'_>, fields: &Fields) -> Result<(), Odd> {
        let Object { columns, layout } = self;
        let rows = columns.first().map_or(0, Column::len);
        scan.take(b'{')?;
        if !scan.took(b'}') {
            let mut at = 0;
            loop {
                scan.space();
                match layout.take(&mut at, scan, fields)? {
                    Some(i) if columns[i].len() == rows => columns[i].scan(scan)?,
                    Some(_) => return Err(Odd), // twice: the last one counts
                    None => scan.value()?,
                }
                if !scan.took(b',') {
                    break scan.take(b'}')?;
                }
            }
        }
        columns.iter_mut().filter(|c| c.len() == rows).for_each(Column::null);
        Ok(())
    }
}

/// The members of an object; of equal names the last one counts.
pub(super) fn members(json: &str) -> Result<BTreeMap<String, &RawValue>, String> {
    serde_json::from_str(json)
        .map_err(|e| if e.is_data() { format!("{} is no object", excerpt(json)) } else { format!("the value is not JSON: {e}") })
}

fn string(json: &str) -> Result<String, String> {
    serde_json::from_str(json).map_err(|e| format!("the value is not JSON: {e}"))
}

/// The start of a text, for an error.
pub(super) fn excerpt(text: &str) -> String {
    let shown: String = text.chars().take(60).collect();
    if shown.len() < text.len() { format!("{shown}...") } else { shown }
}
