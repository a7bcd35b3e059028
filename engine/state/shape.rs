//! The stored schema, read back: which parts a value has, in which order, of which kinds.
//!
//! Invariant: what [`schema_of`](super::schema_of) writes is read here, or refused; nothing is guessed.

use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// A kind of value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    Bool,
    Int {
        signed: bool,
        bits: u32,
    },
    F32,
    F64,
    Char,
    Str,
    Bytes,
    Unit,
    Option(Box<Shape>),
    Seq(Box<Shape>),
    Map(Box<Shape>, Box<Shape>),
    Tuple(Vec<Shape>),
    /// A struct of one part without a name: written as the part.
    Newtype(Box<Shape>),
    /// A type of [`Schema::types`], or a struct without parts.
    Named(String),
    /// Parts with names.
    Fields(Vec<Field>),
    /// What the tracer could not find out.
    Unknown,
}

/// A named part.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Field {
    pub(super) name: String,
    /// Other names by which it is found.
    pub(super) aliases: Vec<String>,
    pub(super) shape: Shape,
    /// May be missing.
    pub(super) default: bool,
}

/// A type with a name.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Type {
    Struct(Vec<Field>),
    /// Variants with what they hold: [`Shape::Unit`], a tuple or fields.
    Enum(Vec<(String, Shape)>),
}

/// Everything that a table's schema says.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    /// Kind of table and its options.
    pub(super) table: String,
    /// Kind of key, where it is known.
    pub(super) key: Option<Shape>,
    pub(super) root: Shape,
    pub(super) types: BTreeMap<String, Type>,
}

impl Shape {
    fn is_known(&self) -> bool {
        match self {
            Shape::Unknown => false,
            Shape::Option(inner) | Shape::Seq(inner) | Shape::Newtype(inner) => inner.is_known(),
            Shape::Map(key, value) => key.is_known() && value.is_known(),
            Shape::Tuple(parts) => parts.iter().all(Shape::is_known),
            Shape::Fields(fields) => fields.iter().all(|field| field.shape.is_known()),
            _ => true,
        }
    }
}

impl Schema {
    /// Whether it says of every part of a value what it holds.
    pub(super) fn is_complete(&self) -> bool {
        let known = |of: &Type| match of {
            Type::Struct(fields) => fields.iter().all(|field| field.shape.is_known()),
            Type::Enum(variants) => variants.iter().all(|(_, holds)| holds.is_known()),
        };
        self.root.is_known() && self.types.values().all(known)
    }

    /// Reads the text that a table gives as its schema.
    ///
    /// # Errors
    /// It is of another version, or not such a text.
    pub fn parse(text: &str) -> Result<Schema> {
        let unreadable = || Error::fatal(format!("the stored schema {text:?} cannot be read")).help("was it written by a newer version?");
        let (head, body) = text.split_once(super::value::CODEC).ok_or_else(unreadable)?;
        let head = head.trim_end();
        let (table, key) = match head.split_once(" key ") {
            Some((table, key)) => (table, Some(whole(key).ok_or_else(unreadable)?)),
            None => (head, None),
        };
        let mut parts = body.trim_start().split("; ");
        let root = parts.next().and_then(whole).ok_or_else(unreadable)?;
        let types = parts.map(named).collect::<Option<_>>().ok_or_else(unreadable)?;
        Ok(Schema { table: table.to_string(), key, root, types })
    }
}

/// A shape that is the whole text.
fn whole(text: &str) -> Option<Shape> {
    let mut reader = Reader(text);
    let shape = reader.shape()?;
    reader.0.is_empty().then_some(shape)
}

fn named(text: &str) -> Option<(String, Type)> {
    let mut reader = Reader(text);
    let name = reader.name()?.to_string();
    let of = match reader.0.chars().next()? {
        '{' => Type::Struct(reader.fields()?),
        '[' => Type::Enum(reader.variants()?),
        _ => return None,
    };
    reader.0.is_empty().then_some((name, of))
}

struct Reader<'a>(&'a str);

impl<'a> Reader<'a> {
    fn eat(&mut self, what: &str) -> bool {
        match self.0.strip_prefix(what) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn name(&mut self) -> Option<&'a str> {
        let end = self.0.find(|c: char| "{}[](),:;?| /".contains(c)).unwrap_or(self.0.len());
        let (name, rest) = self.0.split_at(end);
        self.0 = rest;
        (!name.is_empty()).then_some(name)
    }

    fn shape(&mut self) -> Option<Shape> {
        let mut shape = self.one()?;
        // Two answers of the tracer.
        while self.eat("|") {
            self.one()?;
            shape = Shape::Unknown;
        }
        while self.eat("?") {
            shape = Shape::Option(Box::new(shape));
        }
        Some(shape)
    }

    fn one(&mut self) -> Option<Shape> {
        if self.eat("()") {
            return Some(Shape::Unit);
        }
        if self.0.starts_with('(') {
            return self.tuple().map(Shape::Tuple);
        }
        if self.eat("[") {
            let item = self.shape()?;
            return self.eat("]").then(|| Shape::Seq(Box::new(item)));
        }
        if self.eat("{") {
            let key = self.shape()?;
            let value = self.eat(": ").then(|| self.shape())??;
            return self.eat("}").then(|| Shape::Map(Box::new(key), Box::new(value)));
        }
        let name = self.name()?;
        let int = |signed, bits: &str| bits.parse().ok().map(|bits| Shape::Int { signed, bits });
        Some(match name {
            "bool" => Shape::Bool,
            "f32" => Shape::F32,
            "f64" => Shape::F64,
            "char" => Shape::Char,
            "str" => Shape::Str,
            "bytes" => Shape::Bytes,
            "_" => Shape::Unknown,
            "i8" | "i16" | "i32" | "i64" | "i128" => int(true, &name[1..])?,
            "u8" | "u16" | "u32" | "u64" | "u128" => int(false, &name[1..])?,
            _ if self.0.starts_with('(') => match self.tuple()? {
                mut one if one.len() == 1 => Shape::Newtype(Box::new(one.remove(0))),
                many => Shape::Tuple(many),
            },
            name => Shape::Named(name.to_string()),
        })
    }

    /// `(a, b)`, or `(a x 3)`.
    fn tuple(&mut self) -> Option<Vec<Shape>> {
        if !self.eat("(") {
            return None;
        }
        let mut parts = vec![self.shape()?];
        if self.eat(" x ") {
            let times: usize = self.name()?.parse().ok()?;
            parts = vec![parts.remove(0); times];
        }
        while self.eat(", ") {
            parts.push(self.shape()?);
        }
        self.eat(")").then_some(parts)
    }

    fn fields(&mut self) -> Option<Vec<Field>> {
        if !self.eat("{") {
            return None;
        }
        let mut fields = Vec::new();
        while !self.eat("}") {
            if !fields.is_empty() && !self.eat(", ") {
                return None;
            }
            let name = self.name()?.to_string();
            let mut aliases = Vec::new();
            while self.eat("/") {
                aliases.push(self.name()?.to_string());
            }
            let shape = self.eat(": ").then(|| self.shape())??;
            let default = self.eat(" default") || (matches!(shape, Shape::Option(_)) && !self.eat(" required"));
            fields.push(Field { name, aliases, shape, default });
        }
        Some(fields)
    }

    fn variants(&mut self) -> Option<Vec<(String, Shape)>> {
        if !self.eat("[") {
            return None;
        }
        let mut variants = Vec::new();
        while !self.eat("]") {
            if !variants.is_empty() && !self.eat(", ") {
                return None;
            }
            let name = self.name()?.to_string();
            let holds = match self.0.chars().next()? {
                '(' => Shape::Tuple(self.tuple()?),
                '{' => Shape::Fields(self.fields()?),
                _ => Shape::Unit,
            };
            variants.push((name, holds));
        }
        Some(variants)
    }
}
