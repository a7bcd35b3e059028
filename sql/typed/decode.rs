//! Columns to rows of a type: serde reads the cells of a row.
//!
//! Invariant: a NULL where the type takes none, or a value that its own deserializer refuses, is an error of that row.

use crate::json::Unfit;
use arrow::array::{Array, AsArray, StructArray};
use arrow::datatypes::{
    DataType, Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Time32MillisecondType, TimeUnit,
    TimestampMillisecondType,
};
use chrono::{DateTime, NaiveTime, TimeDelta};
use serde::de::{DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};

/// A value of a column.
#[derive(Clone, Copy)]
pub(super) struct Cell<'a> {
    pub(super) column: &'a dyn Array,
    pub(super) row: usize,
}

fn text_of(cell: Cell<'_>) -> Result<String, Unfit> {
    let Cell { column, row } = cell;
    let range = || Unfit("a date out of range".into());
    Ok(match column.data_type() {
        DataType::Timestamp(TimeUnit::Millisecond, zone) => {
            let at = DateTime::from_timestamp_millis(column.as_primitive::<TimestampMillisecondType>().value(row)).ok_or_else(range)?;
            let text = at.format("%Y-%m-%dT%H:%M:%S%.3f");
            if zone.is_some() { format!("{text}Z") } else { text.to_string() }
        }
        DataType::Date32 => {
            let days = TimeDelta::try_days(column.as_primitive::<Date32Type>().value(row).into()).ok_or_else(range)?;
            let date = DateTime::UNIX_EPOCH.date_naive().checked_add_signed(days).ok_or_else(range)?;
            date.format("%Y-%m-%d").to_string()
        }
        DataType::Time32(TimeUnit::Millisecond) => {
            let millis = column.as_primitive::<Time32MillisecondType>().value(row);
            let (seconds, rest) = (millis.div_euclid(1000), millis.rem_euclid(1000));
            let time = NaiveTime::from_num_seconds_from_midnight_opt(seconds.unsigned_abs(), rest.unsigned_abs() * 1_000_000);
            time.ok_or_else(range)?.format("%H:%M:%S%.3f").to_string()
        }
        other => return Err(Unfit(format!("plan bug: a column of type {other} for a row"))),
    })
}

impl<'de> Deserializer<'de> for Cell<'_> {
    type Error = Unfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        let Cell { column, row } = self;
        if column.is_null(row) {
            return Err(Unfit("it is NULL, and the type takes none (make it an Option)".into()));
        }
        match column.data_type() {
            DataType::Boolean => visitor.visit_bool(column.as_boolean().value(row)),
            DataType::Int8 => visitor.visit_i8(column.as_primitive::<Int8Type>().value(row)),
            DataType::Int16 => visitor.visit_i16(column.as_primitive::<Int16Type>().value(row)),
            DataType::Int32 => visitor.visit_i32(column.as_primitive::<Int32Type>().value(row)),
            DataType::Int64 => visitor.visit_i64(column.as_primitive::<Int64Type>().value(row)),
            DataType::Float32 => visitor.visit_f32(column.as_primitive::<Float32Type>().value(row)),
            DataType::Float64 => visitor.visit_f64(column.as_primitive::<Float64Type>().value(row)),
            DataType::Utf8 => visitor.visit_str(column.as_string::<i32>().value(row)),
            DataType::Binary => visitor.visit_bytes(column.as_binary::<i32>().value(row)),
            DataType::Struct(_) => visitor.visit_map(Members { row: column.as_struct(), at: row, next: 0 }),
            DataType::List(_) => {
                let items = column.as_list::<i32>().value(row);
                visitor.visit_seq(Items { items: &items, next: 0 })
            }
            _ => visitor.visit_string(text_of(self)?),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        if self.column.is_null(self.row) { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Unfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(self, _: &'static str, _: &'static [&'static str], visitor: V) -> Result<V::Value, Unfit> {
        match self.column.data_type() {
            DataType::Utf8 if !self.column.is_null(self.row) => {
                visitor.visit_enum(self.column.as_string::<i32>().value(self.row).into_deserializer())
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Unfit> {
        match self.column.data_type() {
            DataType::Struct(_) if !self.column.is_null(self.row) => {
                visitor.visit_seq(Members { row: self.column.as_struct(), at: self.row, next: 0 })
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _: &'static str, len: usize, visitor: V) -> Result<V::Value, Unfit> {
        self.deserialize_tuple(len, visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq map struct
        identifier ignored_any
    }
}

/// The members of a row, by name or in order.
struct Members<'a> {
    row: &'a StructArray,
    at: usize,
    next: usize,
}

impl Members<'_> {
    fn cell(&self, i: usize) -> Cell<'_> {
        Cell { column: self.row.column(i), row: self.at }
    }

    fn placed(&self, i: usize, error: &Unfit) -> Unfit {
        Unfit(format!("{}: {error}", self.row.fields()[i].name()))
    }
}

impl<'de> MapAccess<'de> for Members<'_> {
    type Error = Unfit;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Unfit> {
        match self.row.fields().get(self.next) {
            Some(field) => seed.deserialize(field.name().as_str().into_deserializer()).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Unfit> {
        let i = self.next;
        self.next += 1;
        seed.deserialize(self.cell(i)).map_err(|e| self.placed(i, &e))
    }
}

impl<'de> SeqAccess<'de> for Members<'_> {
    type Error = Unfit;

    fn next_element_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<Option<V::Value>, Unfit> {
        let i = self.next;
        if i == self.row.num_columns() {
            return Ok(None);
        }
        self.next += 1;
        seed.deserialize(self.cell(i)).map(Some).map_err(|e| self.placed(i, &e))
    }
}

/// The items of an array.
struct Items<'a> {
    items: &'a dyn Array,
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Unfit;

    fn next_element_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<Option<V::Value>, Unfit> {
        if self.next == self.items.len() {
            return Ok(None);
        }
        self.next += 1;
        seed.deserialize(Cell { column: self.items, row: self.next - 1 }).map(Some)
    }
}
