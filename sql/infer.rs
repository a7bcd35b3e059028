//! Columns of a topic that nobody declared, from a sample of its records.
//!
//! Invariant: every record of the sample reads into the columns found; what is sometimes this and sometimes that is text.

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde_json::Value;
use std::sync::Arc;

/// What a member's values were so far.
#[derive(Debug, Clone, PartialEq)]
enum Seen {
    Nothing,
    Bool,
    Int,
    Float,
    Text,
    Row(Vec<(String, Seen)>),
    List(Box<Seen>),
}

/// The columns of JSON records, by name.
///
/// ```
/// let schema = waterwheel_sql::infer([&b"{\"a\":1,\"b\":null}"[..], b"{\"a\":1.5,\"c\":{\"d\":\"x\"}}"]).unwrap();
/// let columns: Vec<String> = schema.fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect();
/// assert_eq!(columns[0], "a Float64");
/// assert_eq!(schema.fields().len(), 3);
/// ```
///
/// # Errors
/// No record, or one that is no JSON object.
pub fn infer<'a>(records: impl IntoIterator<Item = &'a [u8]>) -> Result<SchemaRef, String> {
    let mut all = Seen::Nothing;
    for record in records {
        let value: Value = serde_json::from_slice(record)
            .map_err(|e| format!("a record is no JSON ({e}): {:?}", String::from_utf8_lossy(&record[..record.len().min(60)])))?;
        if !value.is_object() {
            return Err(format!("a record is no JSON object: {}", value.to_string().chars().take(60).collect::<String>()));
        }
        all = both(all, seen(&value));
    }
    match all {
        Seen::Row(members) if !members.is_empty() => Ok(Arc::new(Schema::new(fields(&members)))),
        _ => Err("there are no records to see columns in".into()),
    }
}

fn seen(value: &Value) -> Seen {
    match value {
        Value::Null => Seen::Nothing,
        Value::Bool(_) => Seen::Bool,
        Value::Number(n) if n.is_i64() => Seen::Int,
        Value::Number(_) => Seen::Float,
        Value::String(_) => Seen::Text,
        Value::Array(items) => Seen::List(Box::new(items.iter().map(seen).fold(Seen::Nothing, both))),
        Value::Object(members) => Seen::Row(members.iter().map(|(name, value)| (name.clone(), seen(value))).collect()),
    }
}

fn both(a: Seen, b: Seen) -> Seen {
    match (a, b) {
        (Seen::Nothing, other) | (other, Seen::Nothing) => other,
        (Seen::Int, Seen::Float) | (Seen::Float, Seen::Int) => Seen::Float,
        (Seen::List(a), Seen::List(b)) => Seen::List(Box::new(both(*a, *b))),
        (Seen::Row(mut a), Seen::Row(b)) => {
            for (name, more) in b {
                match a.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, so_far)) => *so_far = both(std::mem::replace(so_far, Seen::Nothing), more),
                    None => a.push((name, more)),
                }
            }
            Seen::Row(a)
        }
        (a, b) if a == b => a,
        _ => Seen::Text,
    }
}

fn fields(members: &[(String, Seen)]) -> Vec<Field> {
    members.iter().map(|(name, seen)| Field::new(name, data_type(seen), true)).collect()
}

fn data_type(seen: &Seen) -> DataType {
    match seen {
        Seen::Bool => DataType::Boolean,
        Seen::Int => DataType::Int64,
        Seen::Float => DataType::Float64,
        Seen::Nothing | Seen::Text => DataType::Utf8,
        Seen::Row(members) if members.is_empty() => DataType::Utf8,
        Seen::Row(members) => DataType::Struct(fields(members).into()),
        Seen::List(item) => DataType::new_list(data_type(item), true),
    }
}
