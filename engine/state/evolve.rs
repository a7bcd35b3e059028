//! State whose type has changed since it was written.
//!
//! A later version of a type may have new fields with a default, lack some, have wider numbers, call a field otherwise
//! (`#[serde(alias = "..")]` or `rename`), have more variants, make a part optional. Anything else is refused by name, before
//! state is touched. At the restore every value of the table is rewritten once, into the present form; so nothing that runs
//! later knows of former versions.
//!
//! Invariant: a change that passes [`check_schema`] loses nothing but fields that the new type lacks.

use super::described::read;
use super::shape::{Field, Schema, Shape, Type};
use super::value::{StateValue, encode_into};
use super::{StateStore, Table, TableContext, WriteBatch};
use crate::error::{Error, Result};
use std::collections::BTreeSet;

/// Compares the schema that state was written with to today's.
///
/// # Errors
/// They differ by more than a type may change; the error names what changed.
///
/// ```
/// use waterwheel_engine::state::check_schema;
/// let (old, wider) = ("point postcard/1 T; T{a: i32}", "point postcard/1 T; T{a: i64, note: str default}");
/// assert!(check_schema("totals", old, wider).is_ok());
/// let error = check_schema("totals", old, "point postcard/1 T; T{a: i32, b: str}").unwrap_err();
/// assert!(error.report().contains("T.b: str is new and has no default"));
/// ```
pub fn check_schema(table: &str, stored: &str, now: &str) -> Result<()> {
    if stored == now {
        return Ok(());
    }
    let (old, new) = match (Schema::parse(stored), Schema::parse(now)) {
        (Ok(old), Ok(new)) => (old, new),
        _ => return Err(refused(table, vec![format!("`{stored}` became `{now}`")])),
    };
    let mut compare = Compare { old: &old, new: &new, seen: BTreeSet::new(), problems: Vec::new() };
    compare.all();
    match compare.problems {
        problems if problems.is_empty() => Ok(()),
        problems => Err(refused(table, problems)),
    }
}

fn refused(table: &str, problems: Vec<String>) -> Error {
    Error::fatal(format!("the type kept in state changed: {}", problems.join("; ")))
        .at(format!("table {table}"))
        .help("give new fields a default (#[serde(default)]) and renamed ones their former name (#[serde(alias = \"...\")])")
        .help("or bring the old type back, or give the table a new name to start it empty")
}

/// Whether values have to be rewritten: something in their bytes changes.
fn is_rewritten(old: &Schema, new: &Schema) -> bool {
    fn plain(schema: &Schema) -> Schema {
        let mut schema = schema.clone();
        for of in schema.types.values_mut() {
            match of {
                Type::Struct(fields) => strip(fields),
                Type::Enum(variants) => variants.iter_mut().for_each(|(_, holds)| {
                    if let Shape::Fields(fields) = holds {
                        strip(fields);
                    }
                }),
            }
        }
        schema
    }
    fn strip(fields: &mut [Field]) {
        for field in fields {
            (field.aliases, field.default) = (Vec::new(), false);
        }
    }
    let (old, new) = (plain(old), plain(new));
    old.root != new.root || old.types != new.types
}

/// Rewrites a value that was stored behind a prefix.
pub(super) fn rewrite<V: StateValue>(stored: &Schema, prefix: usize, value: &[u8]) -> Result<Vec<u8>> {
    let (prefix, value) = value.split_at_checked(prefix).ok_or_else(|| super::keyspace::damaged("a value is cut short"))?;
    let mut out = prefix.to_vec();
    encode_into(&read::<V>(stored, value)?, &mut out);
    Ok(out)
}

/// Brings everything that a table has in its store from the `stored` schema into its present one. Before the table is opened.
///
/// # Errors
/// The change is refused, a value does not fit, or of the store.
pub fn evolve(table: &dyn Table, context: &TableContext, stored: &str) -> Result<()> {
    let now = table.schema();
    let name = format!("{} of operator {}", table.name(), context.operator);
    check_schema(&name, stored, &now)?;
    if stored == now {
        return Ok(());
    }
    let schema = Schema::parse(stored)?;
    if !is_rewritten(&schema, &Schema::parse(&now)?) {
        return Ok(());
    }
    let place = super::keyspace::Place::new(context, table.name());
    for group in context.groups.clone() {
        let mut writes = WriteBatch::default();
        let (from, to) = super::keyspace::table_range(group, place.table);
        let scan = context.store.scan(&from, &to, &mut |key, value| {
            writes.put(key, table.rewrite(&schema, value)?);
            Ok(())
        });
        scan.map_err(|e| e.at(format!("table {name}")))?;
        context.store.write(&writes)?;
    }
    Ok(())
}

/// Removes what a store holds of a table that is not used any more.
///
/// # Errors
/// Of the store.
pub fn forget_table(store: &dyn StateStore, groups: std::ops::Range<u16>, operator: &str, table: &str) -> Result<()> {
    let mut writes = WriteBatch::default();
    for name in [table.to_string(), format!("{table}/mark"), format!("{table}/cold")] {
        for group in groups.clone() {
            let (from, to) = super::keyspace::table_range(group, super::table_id(operator, &name));
            writes.delete_range(from, to);
        }
    }
    store.write(&writes)
}

struct Compare<'a> {
    old: &'a Schema,
    new: &'a Schema,
    /// Pairs of named types that were compared, or are being.
    seen: BTreeSet<(String, String)>,
    problems: Vec<String>,
}

impl Compare<'_> {
    fn all(&mut self) {
        let (old, new) = (self.old, self.new);
        if new.table == "append" && is_rewritten(old, new) {
            self.problems.push(format!("rows that wait for others cannot change: {} became {}", text(&old.root), text(&new.root)));
        }
        if old.table != new.table {
            self.problems.push(format!("the table was `{}` and is `{}`", old.table, new.table));
        }
        if let (Some(was), Some(is)) = (&old.key, &new.key)
            && was != is
        {
            self.problems.push(format!("the key was {} and is {}", text(was), text(is)));
        }
        self.shapes("value", &old.root, &new.root);
    }

    fn became(&mut self, at: &str, old: &Shape, new: &Shape) {
        self.problems.push(format!("{at}: {} became {}", text(old), text(new)));
    }

    fn shapes(&mut self, at: &str, old: &Shape, new: &Shape) {
        match (old, new) {
            (Shape::Unknown, _) | (_, Shape::Unknown) => {
                if self.old != self.new {
                    self.became(at, old, new);
                }
            }
            (Shape::Int { signed: a, bits: was }, Shape::Int { signed: b, bits: is }) => {
                let fits = if a == b { is >= was } else { *b && is > was };
                if !fits {
                    self.became(at, old, new);
                }
            }
            (Shape::F32, Shape::F64) => {}
            (Shape::Option(old), Shape::Option(new)) | (Shape::Seq(old), Shape::Seq(new)) => self.shapes(at, old, new),
            (old, Shape::Option(new)) => self.shapes(at, old, new),
            (Shape::Map(old_key, old), Shape::Map(new_key, new)) => {
                self.shapes(at, old_key, new_key);
                self.shapes(at, old, new);
            }
            (Shape::Tuple(was), Shape::Tuple(is)) if was.len() == is.len() => {
                was.iter().zip(is).for_each(|(old, new)| self.shapes(at, old, new));
            }
            (Shape::Newtype(old), Shape::Newtype(new)) => self.shapes(at, old, new),
            (old, Shape::Newtype(new)) => self.shapes(at, old, new),
            (Shape::Fields(was), Shape::Fields(is)) => self.fields(at, was, is),
            (Shape::Named(was), Shape::Named(is)) => self.named(at, was, is),
            (old, new) if old == new => {}
            (old, new) => self.became(at, old, new),
        }
    }

    fn named(&mut self, at: &str, was: &str, is: &str) {
        if !self.seen.insert((was.to_string(), is.to_string())) {
            return;
        }
        let (old, new) = (self.old, self.new);
        match (old.types.get(was), new.types.get(is)) {
            (None, None) => {}
            (Some(Type::Struct(was)), Some(Type::Struct(now))) => self.fields(is, was, now),
            (Some(Type::Enum(was)), Some(Type::Enum(now))) => {
                for (variant, holds) in was {
                    match now.iter().find(|(name, _)| name == variant) {
                        Some((_, now)) => self.shapes(&format!("{is}.{variant}"), holds, now),
                        None => self.problems.push(format!("{is}.{variant}{} is gone", content(holds))),
                    }
                }
            }
            _ => self.problems.push(format!("{at}: {was} became {is}")),
        }
    }

    fn fields(&mut self, of: &str, was: &[Field], now: &[Field]) {
        for new in now {
            let names: Vec<&String> = std::iter::once(&new.name).chain(&new.aliases).collect();
            let mut found = was.iter().filter(|old| names.contains(&&old.name));
            match (found.next(), found.next()) {
                (Some(old), None) => self.shapes(&format!("{of}.{}", new.name), &old.shape, &new.shape),
                (Some(_), Some(second)) => {
                    self.problems.push(format!("{of}.{}: stored as {} too, by an alias", new.name, second.name));
                }
                (None, _) if new.default => {}
                (None, _) => self.problems.push(format!("{of}.{}: {} is new and has no default", new.name, text(&new.shape))),
            }
        }
    }
}

fn content(holds: &Shape) -> String {
    if *holds == Shape::Unit { String::new() } else { format!(": {}", text(holds)) }
}

/// A shape as the schema writes it.
fn text(shape: &Shape) -> String {
    match shape {
        Shape::Bool => "bool".into(),
        Shape::Int { signed, bits } => format!("{}{bits}", if *signed { 'i' } else { 'u' }),
        Shape::F32 => "f32".into(),
        Shape::F64 => "f64".into(),
        Shape::Char => "char".into(),
        Shape::Str => "str".into(),
        Shape::Bytes => "bytes".into(),
        Shape::Unit => "()".into(),
        Shape::Option(inner) => format!("{}?", text(inner)),
        Shape::Seq(item) => format!("[{}]", text(item)),
        Shape::Map(key, value) => format!("{{{}: {}}}", text(key), text(value)),
        Shape::Tuple(parts) => format!("({})", parts.iter().map(text).collect::<Vec<_>>().join(", ")),
        Shape::Newtype(inner) => text(inner),
        Shape::Named(name) => name.clone(),
        Shape::Fields(fields) => {
            let fields: Vec<_> = fields.iter().map(|f| format!("{}: {}", f.name, text(&f.shape))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        Shape::Unknown => "_".into(),
    }
}
