//! Columns being filled with values of Rust types: what serde shows of a row.
//!
//! Invariant: as in [`column`](super::column): a value that does not fit its type is an error of the row, and the caller cuts
//! the columns back to before it.

use super::column::{Column, Values};
use arrow::datatypes::{DataType, Fields};
use serde::ser::{self, Impossible, Serialize, Serializer};
use std::fmt;

/// Why a value cannot be in its column, or be read out of it.
#[derive(Debug)]
pub(crate) struct Unfit(pub(crate) String);

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unfit {}

impl ser::Error for Unfit {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Unfit(message.to_string())
    }
}

impl serde::de::Error for Unfit {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Unfit(message.to_string())
    }
}

type Put = Result<(), Unfit>;

impl Column {
    /// The newest value as a number in the unit of its type; none if it is NULL or no integer, date or time.
    pub(crate) fn last_int(&self) -> Option<i64> {
        match &self.values {
            Values::Int(_, v) if self.valid.last() == Some(&true) => v.last().copied(),
            _ => None,
        }
    }

    /// Appends a number in the unit of the type.
    pub(crate) fn int(&mut self, value: i128) -> Put {
        let Values::Int(kind, v) = &mut self.values else { return Err(self.wrong("a whole number")) };
        let (low, high) = match kind {
            DataType::Int8 => (i64::from(i8::MIN), i64::from(i8::MAX)),
            DataType::Int16 => (i64::from(i16::MIN), i64::from(i16::MAX)),
            DataType::Int32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
            _ => (i64::MIN, i64::MAX),
        };
        let fits = i64::try_from(value).ok().filter(|n| (low..=high).contains(n));
        v.push(fits.ok_or_else(|| Unfit(format!("{value} is no {}", crate::parser::type_name(kind))))?);
        self.valid.push(true);
        Ok(())
    }

    /// The columns of a row; a column that is none stands for itself.
    pub(crate) fn members(&self) -> &[Column] {
        match &self.values {
            Values::Row(_, object) => &object.columns,
            _ => std::slice::from_ref(self),
        }
    }

    /// As [`members`](Self::members), taken apart.
    pub(crate) fn into_members(self) -> Vec<Column> {
        match self.values {
            Values::Row(_, object) => object.columns,
            _ => vec![self],
        }
    }

    fn float(&mut self, value: f64) -> Put {
        let Values::Float(_, v) = &mut self.values else { return Err(self.wrong("a float")) };
        v.push(value);
        self.valid.push(true);
        Ok(())
    }

    fn wrong(&self, what: &str) -> Unfit {
        let kind = match &self.values {
            Values::Bool(_) => "BOOLEAN".into(),
            Values::Int(kind, _) | Values::Float(kind, _) => crate::parser::type_name(kind),
            Values::Decimal(..) => "DECIMAL".into(),
            Values::Text { .. } => "STRING".into(),
            Values::Bytes { .. } => "BYTES".into(),
            Values::Row(..) => "ROW".into(),
            Values::List { .. } => "ARRAY".into(),
            Values::Map(_) => "MAP".into(),
        };
        Unfit(format!("the type's shape was {kind}, the value is {what}"))
    }
}

/// Appends one value to a column.
pub(crate) struct Give<'a> {
    column: &'a mut Column,
    /// Which members of a row are wanted; all unless said.
    wanted: Option<&'a [bool]>,
}

impl<'a> Give<'a> {
    /// The whole of a value.
    fn to(column: &'a mut Column) -> Self {
        Give { column, wanted: None }
    }

    /// Of a row the members that are wanted; the columns of the others stay empty.
    pub(crate) fn members(column: &'a mut Column, wanted: &'a [bool]) -> Self {
        Give { column, wanted: Some(wanted) }
    }
}

impl<'a> Serializer for Give<'a> {
    type Ok = ();
    type Error = Unfit;
    type SerializeSeq = Items<'a>;
    type SerializeTuple = Members<'a>;
    type SerializeTupleStruct = Members<'a>;
    type SerializeStruct = Members<'a>;
    type SerializeTupleVariant = Impossible<(), Unfit>;
    type SerializeMap = Impossible<(), Unfit>;
    type SerializeStructVariant = Impossible<(), Unfit>;

    fn serialize_bool(self, value: bool) -> Put {
        let Values::Bool(v) = &mut self.column.values else { return Err(self.column.wrong("a BOOLEAN")) };
        v.push(value);
        self.column.valid.push(true);
        Ok(())
    }
    fn serialize_i8(self, value: i8) -> Put {
        self.column.int(value.into())
    }
    fn serialize_i16(self, value: i16) -> Put {
        self.column.int(value.into())
    }
    fn serialize_i32(self, value: i32) -> Put {
        self.column.int(value.into())
    }
    fn serialize_i64(self, value: i64) -> Put {
        self.column.int(value.into())
    }
    fn serialize_u8(self, value: u8) -> Put {
        self.column.int(value.into())
    }
    fn serialize_u16(self, value: u16) -> Put {
        self.column.int(value.into())
    }
    fn serialize_u32(self, value: u32) -> Put {
        self.column.int(value.into())
    }
    fn serialize_u64(self, value: u64) -> Put {
        self.column.int(value.into())
    }
    fn serialize_f32(self, value: f32) -> Put {
        self.column.float(value.into())
    }
    fn serialize_f64(self, value: f64) -> Put {
        self.column.float(value)
    }
    fn serialize_char(self, value: char) -> Put {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }
    fn serialize_str(self, value: &str) -> Put {
        match &self.column.values {
            Values::Text { .. } => {}
            // Instants, dates and times of day are text to serde.
            Values::Int(DataType::Timestamp(..) | DataType::Date32 | DataType::Time32(_), _) => {}
            _ => return Err(self.column.wrong("text")),
        }
        self.column.text(value).map_err(Unfit)
    }
    fn serialize_bytes(self, value: &[u8]) -> Put {
        let Values::Bytes { data, ends } = &mut self.column.values else { return Err(self.column.wrong("bytes")) };
        data.extend_from_slice(value);
        ends.push(data.len());
        self.column.valid.push(true);
        Ok(())
    }
    fn serialize_none(self) -> Put {
        self.column.null();
        Ok(())
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Put {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Put {
        Err(Unfit("a unit holds no value".into()))
    }
    fn serialize_unit_struct(self, _name: &'static str) -> Put {
        self.serialize_unit()
    }
    fn serialize_unit_variant(self, _name: &'static str, _index: u32, variant: &'static str) -> Put {
        self.serialize_str(variant)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _name: &'static str, value: &T) -> Put {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(self, _: &'static str, _: u32, variant: &'static str, _: &T) -> Put {
        Err(with_data(variant))
    }
    fn serialize_seq(self, _len: Option<usize>) -> Result<Items<'a>, Unfit> {
        match &self.column.values {
            Values::List { .. } => Ok(Items(self.column)),
            _ => Err(self.column.wrong("a list")),
        }
    }
    fn serialize_tuple(self, _len: usize) -> Result<Members<'a>, Unfit> {
        Members::of(self.column, self.wanted)
    }
    fn serialize_tuple_struct(self, _name: &'static str, _len: usize) -> Result<Members<'a>, Unfit> {
        Members::of(self.column, self.wanted)
    }
    fn serialize_tuple_variant(self, _: &'static str, _: u32, variant: &'static str, _: usize) -> Result<Impossible<(), Unfit>, Unfit> {
        Err(with_data(variant))
    }
    fn serialize_map(self, _len: Option<usize>) -> Result<Impossible<(), Unfit>, Unfit> {
        Err(self.column.wrong("a map"))
    }
    fn serialize_struct(self, _name: &'static str, _len: usize) -> Result<Members<'a>, Unfit> {
        Members::of(self.column, self.wanted)
    }
    fn serialize_struct_variant(self, _: &'static str, _: u32, variant: &'static str, _: usize) -> Result<Impossible<(), Unfit>, Unfit> {
        Err(with_data(variant))
    }
}

fn with_data(variant: &str) -> Unfit {
    Unfit(format!("the variant {variant} holds data, which no column takes"))
}

/// The items of a list.
pub(crate) struct Items<'a>(&'a mut Column);

impl ser::SerializeSeq for Items<'_> {
    type Ok = ();
    type Error = Unfit;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Put {
        match &mut self.0.values {
            Values::List { item, .. } => value.serialize(Give::to(item)),
            _ => Err(self.0.wrong("a list")),
        }
    }
    fn end(self) -> Put {
        if let Values::List { item, ends, .. } = &mut self.0.values {
            ends.push(item.len());
        }
        self.0.valid.push(true);
        Ok(())
    }
}

/// The members of a row, by name or by position.
pub(crate) struct Members<'a> {
    fields: &'a Fields,
    columns: &'a mut [Column],
    wanted: Option<&'a [bool]>,
    /// The rows before this one.
    rows: usize,
    /// Where the next member is looked for first.
    next: usize,
    valid: &'a mut Vec<bool>,
}

impl<'a> Members<'a> {
    fn of(column: &'a mut Column, wanted: Option<&'a [bool]>) -> Result<Self, Unfit> {
        if !matches!(column.values, Values::Row(..)) {
            return Err(column.wrong("a row"));
        }
        let rows = column.valid.len();
        let Values::Row(fields, object) = &mut column.values else { unreachable!("it is a row") };
        Ok(Members { fields, columns: &mut object.columns, wanted, rows, next: 0, valid: &mut column.valid })
    }

    fn is_wanted(&self, i: usize) -> bool {
        self.wanted.is_none_or(|wanted| wanted[i])
    }

    fn put<T: Serialize + ?Sized>(&mut self, i: usize, value: &T) -> Put {
        self.next = i + 1;
        if self.is_wanted(i) {
            value.serialize(Give::to(&mut self.columns[i])).map_err(|e| Unfit(format!("{}: {e}", self.fields[i].name())))?;
        }
        Ok(())
    }

    fn named<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Put {
        let expected = self.fields.get(self.next).is_some_and(|f| f.name() == name);
        let found = if expected { Some(self.next) } else { self.fields.iter().position(|f| f.name() == name) };
        match found {
            Some(i) => self.put(i, value),
            None => Err(Unfit(format!("{name} is written but never read: it has no column"))),
        }
    }

    /// Members that were left out are NULL.
    fn finish(self) -> Put {
        for i in 0..self.fields.len() {
            if self.is_wanted(i) && self.columns[i].len() == self.rows {
                if !self.fields[i].is_nullable() {
                    return Err(Unfit(format!("{} is left out, and is no Option", self.fields[i].name())));
                }
                self.columns[i].null();
            }
        }
        self.valid.push(true);
        Ok(())
    }
}

impl ser::SerializeStruct for Members<'_> {
    type Ok = ();
    type Error = Unfit;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Put {
        self.named(name, value)
    }
    fn end(self) -> Put {
        self.finish()
    }
}

impl ser::SerializeTuple for Members<'_> {
    type Ok = ();
    type Error = Unfit;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Put {
        match self.next {
            i if i < self.fields.len() => self.put(i, value),
            _ => Err(Unfit("more values than the type's shape has".into())),
        }
    }
    fn end(self) -> Put {
        self.finish()
    }
}

impl ser::SerializeTupleStruct for Members<'_> {
    type Ok = ();
    type Error = Unfit;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Put {
        ser::SerializeTuple::serialize_element(self, value)
    }
    fn end(self) -> Put {
        self.finish()
    }
}
