//! Stored entries for people: any table of a snapshot, read by its stored schema, without the types of the job.
//!
//! Invariant: what cannot be told for certain is shown as hexadecimal bytes, never guessed.

use super::described::{hex, show};
use super::keyspace::{PREFIX, damaged, split_time, table_range};
use super::pile::each_row;
use super::seen::each_id;
use super::shape::{Schema, Shape};
use super::{StateStore, table_id};
use crate::error::Result;
use crate::record::{Key, KeyGroup};
use serde::Serialize;
use serde_json::Value;
use std::ops::Range;

/// One entry of a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShownEntry {
    /// The key, or its bytes as hexadecimal text where its type is not known.
    pub key: Value,
    /// Milliseconds since the Unix epoch: when a timer or a row is due, where a window's slice ends, when an entry with a time to
    /// live was last used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_ms: Option<i64>,
    /// Name of a timer, or what tells entries of one key and time apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The value.
    pub value: Value,
}

/// Visits the entries of a table in a store, by key group and stored key. `schema` is the one that they were written with.
///
/// # Errors
/// Of the store, of the visitor, and content that the schema does not fit.
pub fn read_table(
    store: &dyn StateStore,
    groups: Range<KeyGroup>,
    operator: &str,
    table: &str,
    schema: &str,
    visit: &mut dyn FnMut(ShownEntry) -> Result<()>,
) -> Result<()> {
    let id = table_id(operator, table);
    let kind = schema.split(' ').next().unwrap_or_default();
    let has_ttl = schema.starts_with("point ttl");
    let parsed = Schema::parse(schema).ok();
    // Rows of several sides: a schema each.
    let rows = schema.strip_prefix("append ").or_else(|| schema.strip_prefix("pile ")).unwrap_or_default();
    let sides: Vec<Option<Schema>> = rows.split(" | ").map(|side| Schema::parse(&format!("append {side}")).ok()).collect();
    let of_side = |side: usize, row: &[u8]| match sides.get(side) {
        Some(Some(schema)) => show(schema, row),
        _ => Ok(Value::from(hex(row))),
    };
    let kind_of_key = parsed.as_ref().or(sides[0].as_ref()).and_then(|s| s.key.as_ref());
    let value = |bytes: &[u8]| match &parsed {
        Some(schema) => show(schema, bytes),
        None => Ok(Value::from(hex(bytes))),
    };
    let key = |bytes: &[u8]| kind_of_key.and_then(|shape| key(shape, bytes)).unwrap_or_else(|| hex(bytes).into());
    // Every key group has the same copy.
    let groups = if kind == "broadcast" { groups.start..(groups.start + 1).min(groups.end) } else { groups };
    for group in groups {
        if kind == "broadcast" && group != 0 {
            continue;
        }
        let (from, to) = table_range(group, id);
        store.scan(&from, &to, &mut |full, bytes| {
            let stored = &full[PREFIX..];
            let entry = match kind {
                "seen" => {
                    let mut id =
                        |name: &[u8], time| visit(ShownEntry { key: key(name), time_ms: Some(time), name: None, value: Value::Null });
                    return each_id(stored, bytes, &mut id).map(drop);
                }
                "slice" => {
                    let (end, name) = split_time(stored)?;
                    ShownEntry { key: key(name), time_ms: Some(end), name: None, value: value(bytes)? }
                }
                "ordered" => {
                    let (time, rest) = split_time(stored)?;
                    let (names, len) = rest.split_last_chunk::<4>().ok_or_else(|| damaged("an ordered entry is cut short"))?;
                    let split = names.split_at_checked(u32::from_be_bytes(*len) as usize);
                    let (name, tag) = split.ok_or_else(|| damaged("the key of an ordered entry is cut short"))?;
                    let tag = std::str::from_utf8(tag).map_or_else(|_| hex(tag), str::to_string);
                    let tag = Some(tag).filter(|tag| !tag.is_empty());
                    ShownEntry { key: key(name), time_ms: Some(time), name: tag, value: value(bytes)? }
                }
                "append" => {
                    let (side, rest) = stored.split_first().ok_or_else(|| damaged("the name of a row is cut short"))?;
                    let (time, _) = split_time(rest)?;
                    let cut = || damaged("a row is cut short");
                    let (len, rest) = bytes.get(1..).and_then(<[u8]>::split_first_chunk::<4>).ok_or_else(cut)?;
                    let (name, row) = rest.split_at_checked(u32::from_be_bytes(*len) as usize).ok_or_else(cut)?;
                    ShownEntry { key: key(name), time_ms: Some(time), name: None, value: of_side(usize::from(*side), row)? }
                }
                "pile" => {
                    return each_row(bytes, |side, name, row| {
                        visit(ShownEntry { key: key(name), time_ms: None, name: None, value: of_side(side, row)? })
                    });
                }
                "map" => {
                    let cut = || damaged("the name of a map's entry is cut short");
                    let (len, rest) = stored.split_first_chunk::<4>().ok_or_else(cut)?;
                    let (owner, name) = rest.split_at_checked(u32::from_be_bytes(*len) as usize).ok_or_else(cut)?;
                    ShownEntry { key: key(owner), time_ms: None, name: Some(hex(name)), value: value(bytes)? }
                }
                _ if has_ttl => {
                    let (used, bytes) = split_time(bytes)?;
                    ShownEntry { key: key(stored), time_ms: Some(used).filter(|t| *t != i64::MAX), name: None, value: value(bytes)? }
                }
                _ => ShownEntry { key: key(stored), time_ms: None, name: None, value: value(bytes)? },
            };
            visit(entry)
        })?;
    }
    Ok(())
}

/// A key as its type shows it; `None` when the bytes are of another type.
fn key(shape: &Shape, bytes: &[u8]) -> Option<Value> {
    let mut rest = bytes;
    let value = key_part(shape, &mut rest)?;
    rest.is_empty().then_some(value)
}

fn key_part(shape: &Shape, bytes: &mut &[u8]) -> Option<Value> {
    fn one<K: Key + Into<Value>>(bytes: &mut &[u8]) -> Option<Value> {
        K::decode(bytes).ok().map(Into::into)
    }
    match shape {
        Shape::Bool => one::<bool>(bytes),
        Shape::Str => one::<String>(bytes),
        Shape::F64 => one::<f64>(bytes),
        Shape::Unit => Some(Value::Null),
        Shape::Bytes => Vec::<u8>::decode(bytes).ok().map(|bytes| hex(&bytes).into()),
        Shape::Int { signed: true, bits: 8 } => one::<i8>(bytes),
        Shape::Int { signed: true, bits: 16 } => one::<i16>(bytes),
        Shape::Int { signed: true, bits: 32 } => one::<i32>(bytes),
        Shape::Int { signed: true, bits: 64 } => one::<i64>(bytes),
        Shape::Int { signed: false, bits: 8 } => one::<u8>(bytes),
        Shape::Int { signed: false, bits: 16 } => one::<u16>(bytes),
        Shape::Int { signed: false, bits: 32 } => one::<u32>(bytes),
        Shape::Int { signed: false, bits: 64 } => one::<u64>(bytes),
        Shape::Int { signed: true, .. } => i128::decode(bytes).ok().map(|n| n.to_string().into()),
        Shape::Int { .. } => u128::decode(bytes).ok().map(|n| n.to_string().into()),
        Shape::Option(inner) => {
            let (tag, rest) = bytes.split_first()?;
            *bytes = rest;
            if *tag == 0 { Some(Value::Null) } else { key_part(inner, bytes) }
        }
        Shape::Tuple(parts) => parts.iter().map(|part| key_part(part, bytes)).collect::<Option<Vec<_>>>().map(Value::Array),
        _ => None,
    }
}
