//! The columns of a Rust type, from the type alone: its own deserializer is asked what it would read.
//!
//! A deserializer says for each part what it expects (a number, text, a row with these fields) and is given a probe. A part that
//! refuses its probe (a number that must not be 0, a date that must be one) is given the next one, and what it takes at last says
//! what it is: text that must be an instant is a TIMESTAMP_LTZ. No value is looked at.
//!
//! Invariant: what has no columns (maps, enums with data, untagged types) is refused here, by name, and not row by row.

use crate::error::{SqlError, SqlResult};
use crate::json::{Column, Unfit};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use waterwheel_engine::error::Result as EngineResult;

/// The probes of a type, at most.
const PASSES: usize = 2000;
/// Types within types.
const DEPTH: usize = 24;

/// How a type is a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    /// Its columns.
    pub(super) schema: SchemaRef,
    /// It is one value, in a column `f0`.
    pub(super) is_value: bool,
}

impl Shape {
    /// Of `T`.
    pub(super) fn of<T: DeserializeOwned>() -> SqlResult<Shape> {
        let name = std::any::type_name::<T>();
        let refused = |reason: &str| {
            SqlError::unsupported(
                &format!("the type {name} as rows of a table"),
                reason,
                "a struct of numbers, texts, dates, rows and lists",
            )
        };
        let part = probe::<T>().map_err(|e| refused(&e))?;
        if part.is_option {
            return Err(refused("a row is there or not: it cannot be an Option"));
        }
        let (fields, is_value) = match part.kind {
            DataType::Struct(fields) => (fields, false),
            kind => (Fields::from(vec![Field::new("f0", kind, false)]), true),
        };
        Ok(Shape { schema: Arc::new(Schema::new(fields)), is_value })
    }

    /// A column for its rows.
    pub(super) fn column(&self) -> EngineResult<Column> {
        match (self.is_value, self.schema.fields()) {
            (true, fields) => Column::new(fields[0].data_type()),
            (false, fields) => Column::new(&DataType::Struct(fields.clone())),
        }
    }
}

/// What was found out of a part of the type.
#[derive(Debug, Clone)]
struct Part {
    kind: DataType,
    is_option: bool,
}

impl Part {
    fn field(&self, name: &str) -> Field {
        Field::new(name, self.kind.clone(), self.is_option)
    }
}

/// What is remembered from pass to pass.
#[derive(Default)]
struct Known {
    /// Which probe each part is at.
    probes: BTreeMap<String, usize>,
    /// The part that got its probe last.
    last: String,
    /// How many of its probes that part has.
    of_last: usize,
    /// Variants of enums that have been looked at.
    variants: BTreeMap<String, usize>,
    /// Not all variants of an enum have been looked at.
    more_variants: bool,
    /// Names that mean a field which has another name already.
    aliases: BTreeSet<String>,
    /// The field that was named last.
    last_field: String,
    /// What can have no columns.
    never: Option<String>,
}

fn probe<T: DeserializeOwned>() -> Result<Part, String> {
    let mut known = Known::default();
    for _ in 0..PASSES {
        known.more_variants = false;
        let mut part = None;
        let tried = T::deserialize(Probe { known: &mut known, path: String::new(), depth: 0, found: &mut part });
        if let Some(never) = known.never.take() {
            return Err(never);
        }
        match (tried, part) {
            (Ok(_), Some(part)) if !known.more_variants => return Ok(part),
            (Ok(_), Some(_)) => {}
            (Ok(_), None) => return Err("it reads nothing".into()),
            (Err(Unfit(error)), _) => {
                if error.starts_with("duplicate field") && known.aliases.insert(known.last_field.clone()) {
                    continue;
                }
                let at = known.probes.entry(known.last.clone()).or_insert(0);
                *at += 1;
                if *at >= known.of_last {
                    let place =
                        if known.last.is_empty() { "it".to_string() } else { format!("its field {}", known.last.trim_start_matches('.')) };
                    return Err(format!("{place} refuses every value it is asked about: {error}"));
                }
            }
        }
    }
    Err("it has too many parts".into())
}

const INTS: &[i64] = &[0, 1, -1, 100, 2000];
const FLOATS: &[f64] = &[0.0, 1.0, -1.0, 0.5];
/// Texts, and what a part is that takes none before it.
const TEXTS: &[&str] = &[
    "",
    "1970-01-01T00:00:00Z",
    "1970-01-01T00:00:00",
    "1970-01-01",
    "00:00:00",
    "a",
    "0",
    "1",
    "EUR",
    "00000000-0000-0000-0000-000000000000",
    "127.0.0.1",
];

fn text_kind(probe: usize) -> DataType {
    match probe {
        1 => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
        2 => DataType::Timestamp(TimeUnit::Millisecond, None),
        3 => DataType::Date32,
        4 => DataType::Time32(TimeUnit::Millisecond),
        _ => DataType::Utf8,
    }
}

/// One part of the type being asked.
struct Probe<'a> {
    known: &'a mut Known,
    path: String,
    depth: usize,
    found: &'a mut Option<Part>,
}

impl Probe<'_> {
    fn found(&mut self, kind: DataType) {
        let is_option = self.found.as_ref().is_some_and(|p| p.is_option);
        *self.found = Some(Part { kind, is_option });
    }

    /// The probe whose turn it is.
    fn turn(&mut self, of: usize) -> usize {
        self.known.last.clone_from(&self.path);
        self.known.of_last = of;
        self.known.probes.get(&self.path).copied().unwrap_or(0).min(of - 1)
    }

    fn never(self, what: &str) -> Unfit {
        let place = if self.path.is_empty() { "it".to_string() } else { format!("its field {}", self.path.trim_start_matches('.')) };
        self.known.never = Some(format!("{place} is {what}"));
        Unfit(String::new())
    }

    fn int<'de, V: Visitor<'de>>(mut self, kind: DataType, visitor: V) -> Result<V::Value, Unfit> {
        let turn = self.turn(INTS.len());
        self.found(kind);
        visitor.visit_i64(INTS[turn])
    }

    fn row<'de, V: Visitor<'de>>(mut self, names: Vec<String>, by_name: bool, visitor: V) -> Result<V::Value, Unfit> {
        if self.depth > DEPTH {
            return Err(self.never("within itself, or too deep"));
        }
        let mut fields = Vec::new();
        let members = Members { known: self.known, path: &self.path, depth: self.depth, names: &names, next: 0, fields: &mut fields };
        let value = if by_name { visitor.visit_map(members) } else { visitor.visit_seq(members) };
        self.found(DataType::Struct(Fields::from(fields)));
        value
    }
}

macro_rules! ints {
    ($($method:ident => $kind:ident),* $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
            self.int(DataType::$kind, visitor)
        })*
    };
}

macro_rules! never {
    ($($method:ident => $what:literal),* $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Unfit> {
            Err(self.never($what))
        })*
    };
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Unfit;

    ints! {
        deserialize_i8 => Int8, deserialize_i16 => Int16, deserialize_i32 => Int32, deserialize_i64 => Int64,
        deserialize_u8 => Int16, deserialize_u16 => Int32, deserialize_u32 => Int64, deserialize_u64 => Int64,
    }

    never! {
        deserialize_any => "of no fixed shape (untagged, or any value)",
        deserialize_ignored_any => "of no fixed shape",
        deserialize_i128 => "a 128-bit number, for which there is no column",
        deserialize_u128 => "a 128-bit number, for which there is no column",
        deserialize_map => "a map, or has flattened fields: the names of its columns are not known",
        deserialize_unit => "a unit, which holds no value",
        deserialize_identifier => "a name",
    }

    fn deserialize_bool<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Unfit> {
        let turn = self.turn(2);
        self.found(DataType::Boolean);
        visitor.visit_bool(turn == 1)
    }

    fn deserialize_f32<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Unfit> {
        let turn = self.turn(FLOATS.len());
        self.found(DataType::Float32);
        visitor.visit_f32(FLOATS[turn] as f32)
    }

    fn deserialize_f64<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Unfit> {
        let turn = self.turn(FLOATS.len());
        self.found(DataType::Float64);
        visitor.visit_f64(FLOATS[turn])
    }

    fn deserialize_char<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Unfit> {
        self.turn(1);
        self.found(DataType::Utf8);
        visitor.visit_char('a')
    }

    fn deserialize_str<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Unfit> {
        let turn = self.turn(TEXTS.len());
        self.found(text_kind(turn));
        visitor.visit_str(TEXTS[turn])
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Unfit> {
        self.turn(1);
        self.found(DataType::Binary);
        visitor.visit_bytes(&[])
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        *self.found = Some(Part { kind: DataType::Null, is_option: true });
        visitor.visit_some(self)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _name: &'static str, _visitor: V) -> Result<V::Value, Unfit> {
        Err(self.never("a unit, which holds no value"))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(mut self, _name: &'static str, visitor: V) -> Result<V::Value, Unfit> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(self.never("within itself, or too deep"));
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Unfit> {
        if self.depth > DEPTH {
            return Err(self.never("within itself, or too deep"));
        }
        let mut item = None;
        let path = format!("{}[]", self.path);
        let value = visitor.visit_seq(One { known: self.known, path, depth: self.depth + 1, item: &mut item, done: false });
        match item {
            Some(item) => self.found(DataType::List(Arc::new(item.field("item")))),
            None if value.is_ok() => return Err(self.never("a list that reads no item")),
            None => {}
        }
        value
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Unfit> {
        self.row((0..len).map(|i| format!("f{i}")).collect(), false, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _: &'static str, len: usize, visitor: V) -> Result<V::Value, Unfit> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unfit> {
        self.row(fields.iter().map(|f| (*f).to_string()).collect(), true, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        mut self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unfit> {
        let at = self.known.variants.entry(self.path.clone()).or_insert(0);
        let Some(variant) = variants.get((*at).min(variants.len().saturating_sub(1))) else {
            return Err(self.never("an enum without variants"));
        };
        *at += 1;
        self.known.more_variants |= *at < variants.len();
        self.found(DataType::Utf8);
        visitor.visit_enum(Variant { probe: self, name: variant })
    }
}

/// The members of a row, each asked in turn.
struct Members<'a> {
    known: &'a mut Known,
    path: &'a str,
    depth: usize,
    names: &'a [String],
    next: usize,
    fields: &'a mut Vec<Field>,
}

impl Members<'_> {
    fn ask<'de, S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Unfit> {
        let name = &self.names[self.next];
        self.next += 1;
        let mut part = None;
        let path = format!("{}.{name}", self.path);
        let value = seed.deserialize(Probe { known: self.known, path, depth: self.depth + 1, found: &mut part })?;
        if let Some(part) = part {
            self.fields.push(part.field(name));
        }
        Ok(value)
    }
}

impl<'de> MapAccess<'de> for Members<'_> {
    type Error = Unfit;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Unfit> {
        let of = |name: &String| format!("{}.{name}", self.path);
        while self.names.get(self.next).is_some_and(|name| self.known.aliases.contains(&of(name))) {
            self.next += 1;
        }
        let Some(name) = self.names.get(self.next) else { return Ok(None) };
        self.known.last_field = of(name);
        seed.deserialize(StrDeserializer::<Unfit>::new(name)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Unfit> {
        self.ask(seed)
    }
}

impl<'de> SeqAccess<'de> for Members<'_> {
    type Error = Unfit;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Unfit> {
        if self.next == self.names.len() { Ok(None) } else { self.ask(seed).map(Some) }
    }
}

/// A list of one item.
struct One<'a> {
    known: &'a mut Known,
    path: String,
    depth: usize,
    item: &'a mut Option<Part>,
    done: bool,
}

impl<'de> SeqAccess<'de> for One<'_> {
    type Error = Unfit;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Unfit> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(None);
        }
        let probe = Probe { known: self.known, path: self.path.clone(), depth: self.depth, found: self.item };
        seed.deserialize(probe).map(Some)
    }
}

/// One variant of an enum: a text, if it holds nothing.
struct Variant<'a> {
    probe: Probe<'a>,
    name: &'static str,
}

impl<'a, 'de> EnumAccess<'de> for Variant<'a> {
    type Error = Unfit;
    type Variant = Variant<'a>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Variant<'a>), Unfit> {
        Ok((seed.deserialize(StrDeserializer::<Unfit>::new(self.name))?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Unfit;

    fn unit_variant(self) -> Result<(), Unfit> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, _seed: S) -> Result<S::Value, Unfit> {
        Err(self.probe.never("an enum whose variants hold data"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, _visitor: V) -> Result<V::Value, Unfit> {
        Err(self.probe.never("an enum whose variants hold data"))
    }

    fn struct_variant<V: Visitor<'de>>(self, _fields: &'static [&'static str], _visitor: V) -> Result<V::Value, Unfit> {
        Err(self.probe.never("an enum whose variants hold data"))
    }
}
