//! Values read by their stored schema: into a later version of their type, by the names of fields, or into JSON for people.
//!
//! Invariant: exactly the bytes of a value are read, in the order in which they were written; a part that the reader does not
//! want is passed by, not skipped over blindly.

use super::keyspace::damaged;
use super::shape::{Field, Schema, Shape, Type};
use crate::error::Result;
use postcard::de_flavors::Slice;
use serde::Deserialize;
use serde::de::value::{Error, StrDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};

type Bytes<'de> = postcard::Deserializer<'de, Slice<'de>>;

/// Reads a value that was written under `schema` as today's type.
pub(super) fn read<V: DeserializeOwned>(schema: &Schema, bytes: &[u8]) -> Result<V> {
    let mut de = Bytes::from_bytes(bytes);
    let value = V::deserialize(Described { shape: &schema.root, schema, de: &mut de });
    let value = value.map_err(|e| damaged(&format!("a value of a former version does not fit: {e}")))?;
    match de.finalize() {
        Ok([]) => Ok(value),
        _ => Err(damaged("a value of a former version has bytes left over")),
    }
}

/// A value that was written under `schema`, as JSON: for people, without its type. One with a part of which the schema does
/// not say what it holds is given as hexadecimal text.
///
/// # Errors
/// The bytes do not fit the schema.
pub fn show(schema: &Schema, bytes: &[u8]) -> Result<serde_json::Value> {
    let mut de = Bytes::from_bytes(bytes);
    let value = json(&schema.root, schema, &mut de).map_err(|e| damaged(&format!("a value does not fit its schema: {e}")));
    let shown = value.and_then(|value| match de.finalize() {
        Ok([]) => Ok(value),
        _ => Err(damaged("a value has bytes left over")),
    });
    if shown.is_err() && !schema.is_complete() { Ok(hex(bytes).into()) } else { shown }
}

struct Described<'a, 'de> {
    shape: &'a Shape,
    schema: &'a Schema,
    de: &'a mut Bytes<'de>,
}

fn raw<'de, T: Deserialize<'de>>(de: &mut Bytes<'de>) -> Result<T, Error> {
    T::deserialize(de).map_err(Error::custom)
}

fn length(de: &mut Bytes<'_>) -> Result<usize, Error> {
    raw::<u64>(de).map(|n| usize::try_from(n).unwrap_or(usize::MAX))
}

fn unknown() -> Error {
    Error::custom("the schema does not say what it holds")
}

macro_rules! forward {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.deserialize_any(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Described<'_, 'de> {
    type Error = Error;

    forward!(
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128 deserialize_u8 deserialize_u16
        deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64 deserialize_char deserialize_str
        deserialize_string deserialize_bytes deserialize_byte_buf deserialize_unit deserialize_seq deserialize_map
        deserialize_identifier deserialize_ignored_any
    );

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Described { shape, schema, de } = self;
        match shape {
            Shape::Bool => visitor.visit_bool(raw(de)?),
            Shape::Int { signed: true, bits: 8 } => visitor.visit_i8(raw(de)?),
            Shape::Int { signed: true, bits: 16 } => visitor.visit_i16(raw(de)?),
            Shape::Int { signed: true, bits: 32 } => visitor.visit_i32(raw(de)?),
            Shape::Int { signed: true, bits: 64 } => visitor.visit_i64(raw(de)?),
            Shape::Int { signed: true, .. } => visitor.visit_i128(raw(de)?),
            Shape::Int { bits: 8, .. } => visitor.visit_u8(raw(de)?),
            Shape::Int { bits: 16, .. } => visitor.visit_u16(raw(de)?),
            Shape::Int { bits: 32, .. } => visitor.visit_u32(raw(de)?),
            Shape::Int { bits: 64, .. } => visitor.visit_u64(raw(de)?),
            Shape::Int { .. } => visitor.visit_u128(raw(de)?),
            Shape::F32 => visitor.visit_f32(raw(de)?),
            Shape::F64 => visitor.visit_f64(raw(de)?),
            Shape::Char => visitor.visit_char(raw(de)?),
            Shape::Str => visitor.visit_borrowed_str(raw(de)?),
            Shape::Bytes => visitor.visit_borrowed_bytes(raw(de)?),
            Shape::Unit => visitor.visit_unit(),
            Shape::Option(inner) => match raw::<u8>(de)? {
                0 => visitor.visit_none(),
                _ => visitor.visit_some(Described { shape: inner, schema, de }),
            },
            Shape::Seq(item) => {
                let left = length(de)?;
                visitor.visit_seq(Items { shapes: Shapes::Same(item, left), schema, de })
            }
            Shape::Map(key, value) => {
                let left = length(de)?;
                visitor.visit_map(Entries { key, value, left, schema, de })
            }
            Shape::Tuple(parts) => visitor.visit_seq(Items { shapes: Shapes::Each(parts), schema, de }),
            Shape::Newtype(inner) => visitor.visit_newtype_struct(Described { shape: inner, schema, de }),
            Shape::Fields(fields) => visitor.visit_map(Named { fields, value: None, schema, de }),
            Shape::Named(name) => match schema.types.get(name) {
                None => visitor.visit_unit(),
                Some(Type::Struct(fields)) => visitor.visit_map(Named { fields, value: None, schema, de }),
                Some(Type::Enum(variants)) => visitor.visit_enum(Variant { variants, holds: &Shape::Unit, schema, de }),
            },
            Shape::Unknown => Err(unknown()),
        }
    }

    /// A part that became optional.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.shape {
            Shape::Option(_) => self.deserialize_any(visitor),
            _ => visitor.visit_some(self),
        }
    }

    /// A part that was wrapped into a struct of its own.
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Error> {
        match self.shape {
            Shape::Newtype(_) => self.deserialize_any(visitor),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _name: &'static str, _len: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(self, _: &'static str, _: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(self, _: &'static str, _: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }
}

enum Shapes<'a> {
    Same(&'a Shape, usize),
    Each(&'a [Shape]),
}

struct Items<'a, 'de> {
    shapes: Shapes<'a>,
    schema: &'a Schema,
    de: &'a mut Bytes<'de>,
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let shape = match &mut self.shapes {
            Shapes::Same(_, 0) | Shapes::Each([]) => return Ok(None),
            Shapes::Same(shape, left) => {
                *left -= 1;
                *shape
            }
            Shapes::Each(shapes) => {
                let (first, rest) = (&shapes[0], &shapes[1..]);
                *shapes = rest;
                first
            }
        };
        seed.deserialize(Described { shape, schema: self.schema, de: self.de }).map(Some)
    }
}

struct Entries<'a, 'de> {
    key: &'a Shape,
    value: &'a Shape,
    left: usize,
    schema: &'a Schema,
    de: &'a mut Bytes<'de>,
}

impl<'de> MapAccess<'de> for Entries<'_, 'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(Described { shape: self.key, schema: self.schema, de: self.de }).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(Described { shape: self.value, schema: self.schema, de: self.de })
    }
}

/// Parts by name.
struct Named<'a, 'de> {
    fields: &'a [Field],
    value: Option<&'a Shape>,
    schema: &'a Schema,
    de: &'a mut Bytes<'de>,
}

impl<'de> MapAccess<'de> for Named<'_, 'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((field, rest)) = self.fields.split_first() else { return Ok(None) };
        (self.fields, self.value) = (rest, Some(&field.shape));
        let name: StrDeserializer<'_, Error> = field.name.as_str().into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        let shape = self.value.take().ok_or_else(unknown)?;
        seed.deserialize(Described { shape, schema: self.schema, de: self.de })
    }
}

struct Variant<'a, 'de> {
    variants: &'a [(String, Shape)],
    holds: &'a Shape,
    schema: &'a Schema,
    de: &'a mut Bytes<'de>,
}

impl<'a, 'de> EnumAccess<'de> for Variant<'a, 'de> {
    type Error = Error;
    type Variant = Variant<'a, 'de>;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), Error> {
        let (name, holds) = variant(self.variants, self.de)?;
        let name: StrDeserializer<'_, Error> = name.into_deserializer();
        Ok((seed.deserialize(name)?, Variant { holds, ..self }))
    }
}

fn variant<'a>(variants: &'a [(String, Shape)], de: &mut Bytes<'_>) -> Result<(&'a str, &'a Shape), Error> {
    let number = raw::<u32>(de)? as usize;
    let (name, holds) = variants.get(number).ok_or_else(|| Error::custom(format!("there is no variant {number}")))?;
    Ok((name, holds))
}

impl<'de> VariantAccess<'de> for Variant<'_, 'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        match self.holds {
            Shape::Unit => Ok(()),
            _ => Err(Error::custom("the variant holds something")),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        let shape = match self.holds {
            Shape::Tuple(parts) if parts.len() == 1 => &parts[0],
            other => other,
        };
        seed.deserialize(Described { shape, schema: self.schema, de: self.de })
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Error> {
        Described { shape: self.holds, schema: self.schema, de: self.de }.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _fields: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        Described { shape: self.holds, schema: self.schema, de: self.de }.deserialize_any(visitor)
    }
}

/// What a person sees: structs are objects; an enum's variant is its name, or an object of that one name; maps whose keys are
/// no texts or numbers are lists of pairs.
fn json(shape: &Shape, schema: &Schema, de: &mut Bytes<'_>) -> Result<serde_json::Value, Error> {
    use serde_json::Value;
    Ok(match shape {
        Shape::Bool => Value::from(raw::<bool>(de)?),
        Shape::Int { signed: true, bits: 8 } => Value::from(raw::<i8>(de)?),
        Shape::Int { signed: true, bits: 128 } => wide(raw::<i128>(de)?),
        Shape::Int { signed: true, .. } => Value::from(raw::<i64>(de)?),
        Shape::Int { bits: 8, .. } => Value::from(raw::<u8>(de)?),
        Shape::Int { bits: 128, .. } => wide(raw::<u128>(de)?),
        Shape::Int { .. } => Value::from(raw::<u64>(de)?),
        Shape::F32 => float(f64::from(raw::<f32>(de)?)),
        Shape::F64 => float(raw::<f64>(de)?),
        Shape::Char => Value::from(raw::<char>(de)?.to_string()),
        Shape::Str => Value::from(raw::<&str>(de)?),
        Shape::Bytes => Value::from(hex(raw::<&[u8]>(de)?)),
        Shape::Unit => Value::Null,
        Shape::Option(inner) => match raw::<u8>(de)? {
            0 => Value::Null,
            _ => json(inner, schema, de)?,
        },
        Shape::Seq(item) => Value::Array((0..length(de)?).map(|_| json(item, schema, de)).collect::<Result<_, _>>()?),
        Shape::Map(key, value) => {
            let entries = (0..length(de)?).map(|_| Ok((json(key, schema, de)?, json(value, schema, de)?)));
            object(entries.collect::<Result<_, Error>>()?)
        }
        Shape::Tuple(parts) => Value::Array(parts.iter().map(|part| json(part, schema, de)).collect::<Result<_, _>>()?),
        Shape::Newtype(inner) => json(inner, schema, de)?,
        Shape::Fields(fields) => fields_json(fields, schema, de)?,
        Shape::Named(name) => match schema.types.get(name) {
            None => Value::Null,
            Some(Type::Struct(fields)) => fields_json(fields, schema, de)?,
            Some(Type::Enum(variants)) => {
                let (name, holds) = variant(variants, de)?;
                match holds {
                    Shape::Unit => Value::from(name),
                    Shape::Tuple(parts) if parts.len() == 1 => object(vec![(Value::from(name), json(&parts[0], schema, de)?)]),
                    holds => object(vec![(Value::from(name), json(holds, schema, de)?)]),
                }
            }
        },
        Shape::Unknown => return Err(unknown()),
    })
}

fn fields_json(fields: &[Field], schema: &Schema, de: &mut Bytes<'_>) -> Result<serde_json::Value, Error> {
    let parts = fields.iter().map(|field| Ok((field.name.clone(), json(&field.shape, schema, de)?)));
    Ok(serde_json::Value::Object(parts.collect::<Result<_, Error>>()?))
}

fn object(entries: Vec<(serde_json::Value, serde_json::Value)>) -> serde_json::Value {
    use serde_json::Value;
    let name = |key: &Value| match key {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(is) => Some(is.to_string()),
        _ => None,
    };
    let named: Option<serde_json::Map<_, _>> = entries.iter().map(|(key, value)| Some((name(key)?, value.clone()))).collect();
    named.map_or_else(|| entries.into_iter().map(|(key, value)| Value::Array(vec![key, value])).collect(), Value::Object)
}

/// Numbers that JSON readers do not all take are texts.
fn wide(number: impl TryInto<i64> + ToString + Copy) -> serde_json::Value {
    number.try_into().map_or_else(|_| number.to_string().into(), serde_json::Value::from)
}

fn float(number: f64) -> serde_json::Value {
    serde_json::Number::from_f64(number).map_or_else(|| number.to_string().into(), serde_json::Value::Number)
}

/// Bytes as hexadecimal text.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
