//! Values of ROW, ARRAY and MAP types as bytes and back: as keys, in state, in results.
//!
//! A row is its fields one after the other, an array its length and its elements, each with a mark whether it is NULL; a map is an
//! array of its keys and values in turn, which are in order.
//!
//! Invariant: the same value has the same bytes, and they say where they end. As in keys, -0.0 is 0.0 and every NaN is one NaN.

use super::value::{Cells, Class, Value, column as column_of};
use crate::maps;
use arrow::array::{Array, ArrayRef, AsArray, ListArray, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::DataType;
use std::sync::Arc;
use waterwheel_engine::error::{Error, Result};

/// Whether a type is made of others.
pub(crate) fn is_nested(kind: &DataType) -> bool {
    matches!(kind, DataType::Struct(_) | DataType::List(_) | DataType::Map(..))
}

/// Whether all that a type is made of can be kept.
pub(crate) fn can_be_kept(kind: &DataType) -> bool {
    match kind {
        DataType::Struct(fields) => fields.iter().all(|field| can_be_kept(field.data_type())),
        DataType::List(item) => can_be_kept(item.data_type()),
        DataType::Map(entries, _) => can_be_kept(entries.data_type()),
        other => Class::of(other).is_some(),
    }
}

/// The bytes of a value; none of NULL, and where the type is no row and no array.
///
/// # Panics
/// When the type cannot be kept: the planner checks it.
pub(crate) fn bytes(array: &ArrayRef, row: usize) -> Option<Vec<u8>> {
    if !is_nested(array.data_type()) || array.is_null(row) {
        return None;
    }
    let mut out = Vec::new();
    encode(array, row, &mut out);
    Some(out)
}

/// Appends the bytes of a value that is not NULL.
fn encode(array: &dyn Array, row: usize, out: &mut Vec<u8>) {
    match array.data_type() {
        DataType::Struct(_) => array.as_struct().columns().iter().for_each(|column| encode_part(column, row, out)),
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            out.extend_from_slice(&(entries.len() as u32).to_le_bytes());
            (0..entries.len()).for_each(|i| entries.columns().iter().for_each(|column| encode_part(column, i, out)));
        }
        _ => {
            let items = array.as_list::<i32>().value(row);
            out.extend_from_slice(&(items.len() as u32).to_le_bytes());
            (0..items.len()).for_each(|i| encode_part(&items, i, out));
        }
    }
}

fn encode_part(array: &ArrayRef, row: usize, out: &mut Vec<u8>) {
    if !is_nested(array.data_type()) {
        match Cells::of(&array.slice(row, 1)) {
            Ok(cells) => cells.encode(0, out),
            Err(e) => panic!("{}", e.report()),
        }
    } else if array.is_null(row) {
        out.push(0);
    } else {
        out.push(1);
        encode(array, row, out);
    }
}

/// A value taken apart.
enum Tree {
    Null,
    Leaf(Value),
    Parts(Vec<Tree>),
}

fn damaged() -> Error {
    Error::fatal("a row or array in state cannot be read back")
}

fn decode(kind: &DataType, bytes: &mut &[u8]) -> Result<Tree> {
    match kind {
        DataType::Struct(fields) => {
            let parts = fields.iter().map(|field| decode_part(field.data_type(), bytes));
            Ok(Tree::Parts(parts.collect::<Result<_>>()?))
        }
        DataType::List(_) | DataType::Map(..) => {
            let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
            *bytes = rest;
            // Each element has a byte at least, so that a damaged length is noticed before it is believed.
            let length = u32::from_le_bytes(*length) as usize;
            if length > bytes.len() {
                return Err(damaged());
            }
            let kinds: Vec<&DataType> = match (kind, maps::parts(kind)) {
                (_, Some((key, value))) => vec![key.data_type(), value.data_type()],
                (DataType::List(item), _) => vec![item.data_type()],
                _ => return Err(damaged()),
            };
            let parts = (0..length).flat_map(|_| kinds.iter()).map(|kind| decode_part(kind, bytes));
            Ok(Tree::Parts(parts.collect::<Result<_>>()?))
        }
        _ => Err(damaged()),
    }
}

fn decode_part(kind: &DataType, bytes: &mut &[u8]) -> Result<Tree> {
    if !is_nested(kind) {
        return Ok(Tree::Leaf(Value::decode(Class::of(kind).ok_or_else(damaged)?, bytes)?));
    }
    let (mark, rest) = bytes.split_first().ok_or_else(damaged)?;
    *bytes = rest;
    if *mark == 0 { Ok(Tree::Null) } else { decode(kind, bytes) }
}

/// A column of values by their bytes.
///
/// # Errors
/// Bytes that are no such values; of Arrow, for columns beyond its limits.
pub(crate) fn column<'a>(kind: &DataType, rows: impl Iterator<Item = Option<&'a [u8]>>) -> Result<ArrayRef> {
    let tree = |row: Option<&[u8]>| {
        let Some(mut bytes) = row else { return Ok(Tree::Null) };
        let tree = decode(kind, &mut bytes)?;
        if bytes.is_empty() { Ok(tree) } else { Err(damaged()) }
    };
    let trees = rows.map(tree).collect::<Result<Vec<Tree>>>()?;
    build(kind, &trees.iter().collect::<Vec<_>>())
}

fn build(kind: &DataType, trees: &[&Tree]) -> Result<ArrayRef> {
    let failed = |e| Error::restart("rows and arrays cannot be put into columns").because(e);
    let nulls = || Some(NullBuffer::from_iter(trees.iter().map(|tree| matches!(tree, Tree::Parts(_)))));
    let none: &[Tree] = &[];
    let parts: Vec<&[Tree]> = trees.iter().map(|tree| if let Tree::Parts(parts) = tree { parts } else { none }).collect();
    Ok(match kind {
        DataType::Struct(fields) => {
            let mut columns = Vec::with_capacity(fields.len());
            for (i, field) in fields.iter().enumerate() {
                let of_field: Vec<&Tree> = parts.iter().map(|parts| parts.get(i).unwrap_or(&Tree::Null)).collect();
                columns.push(build(field.data_type(), &of_field)?);
            }
            Arc::new(StructArray::try_new_with_length(fields.clone(), columns, nulls(), trees.len()).map_err(failed)?)
        }
        DataType::List(item) => {
            let lengths: Vec<usize> = parts.iter().map(|parts| parts.len()).collect();
            if i32::try_from(lengths.iter().sum::<usize>()).is_err() {
                return Err(Error::restart("arrays of more than 2147483647 elements in one column"));
            }
            let items = build(item.data_type(), &parts.iter().copied().flatten().collect::<Vec<_>>())?;
            Arc::new(ListArray::try_new(item.clone(), OffsetBuffer::from_lengths(lengths), items, nulls()).map_err(failed)?)
        }
        DataType::Map(..) => {
            let (key, value) = maps::parts(kind).ok_or_else(damaged)?;
            let every_other = |first: usize| parts.iter().flat_map(|parts| parts.iter().skip(first).step_by(2)).collect::<Vec<_>>();
            let (keys, items) = (build(key.data_type(), &every_other(0))?, build(value.data_type(), &every_other(1))?);
            let lengths: Vec<usize> = parts.iter().map(|parts| parts.len() / 2).collect();
            Arc::new(maps::build(kind, keys, items, &lengths, nulls()).map_err(failed)?)
        }
        leaf => {
            let values: Vec<&Value> = trees.iter().map(|tree| if let Tree::Leaf(value) = tree { value } else { &Value::Null }).collect();
            column_of(leaf, &values)?
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::JsonRows;
    use arrow::datatypes::{Field, Schema};
    use proptest::prelude::*;

    fn kinds() -> [DataType; 4] {
        let row = DataType::Struct(vec![Field::new("x", DataType::Int32, true), Field::new("y", DataType::Utf8, true)].into());
        let list = |item: DataType| DataType::new_list(item, true);
        let deep = DataType::Struct(vec![Field::new("a", list(row.clone()), true), Field::new("n", DataType::Float64, true)].into());
        let map = maps::map_type(DataType::Utf8, list(DataType::Int64));
        [list(list(DataType::Int64)), list(row), deep, map]
    }

    fn values() -> impl Strategy<Value = [String; 4]> {
        fn maybe(some: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
            prop_oneof![1 => Just("null".to_string()), 4 => some]
        }
        fn list(item: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
            proptest::collection::vec(item, 0..4).prop_map(|items| format!("[{}]", items.join(",")))
        }
        fn int() -> impl Strategy<Value = String> {
            maybe((-3..4i64).prop_map(|n| n.to_string()))
        }
        fn row() -> impl Strategy<Value = String> {
            (int(), maybe("[ab]{0,2}".prop_map(|s| format!("{s:?}")))).prop_map(|(x, y)| format!("{{\"x\":{x},\"y\":{y}}}"))
        }
        let deep = (maybe(list(maybe(row()))), int()).prop_map(|(a, n)| format!("{{\"a\":{a},\"n\":{n}}}"));
        let map = proptest::collection::btree_map("[ab]{0,2}", maybe(list(int())), 0..4)
            .prop_map(|map| format!("{{{}}}", map.iter().map(|(k, v)| format!("{k:?}:{v}")).collect::<Vec<_>>().join(",")));
        (maybe(list(maybe(list(int())))), maybe(list(maybe(row()))), maybe(deep), maybe(map)).prop_map(|(a, b, c, d)| [a, b, c, d])
    }

    proptest! {
        #[test]
        fn rows_and_arrays_come_back_and_equal_ones_have_equal_bytes(rows in proptest::collection::vec(values(), 1..8), cut in 1..9usize) {
            let fields: Vec<Field> = kinds().into_iter().enumerate().map(|(i, kind)| Field::new(format!("c{i}"), kind, true)).collect();
            let mut json = JsonRows::new(Arc::new(Schema::new(fields))).unwrap();
            for [a, b, c, d] in &rows {
                json.push(format!("{{\"c0\":{a},\"c1\":{b},\"c2\":{c},\"c3\":{d}}}").as_bytes()).unwrap();
            }
            let batch = json.take().unwrap();
            for (c, kind) in kinds().iter().enumerate() {
                let array = batch.column(c);
                let bytes: Vec<Option<Vec<u8>>> = (0..rows.len()).map(|row| super::bytes(array, row)).collect();
                let back = column(kind, bytes.iter().map(|b| b.as_deref())).unwrap();
                prop_assert_eq!(&back, array);
                for (i, a) in rows.iter().enumerate() {
                    for (j, b) in rows.iter().enumerate() {
                        prop_assert_eq!(bytes[i] == bytes[j], a[c] == b[c]);
                    }
                }
                // Fewer bytes are no value, and never a panic.
                for value in bytes.iter().flatten() {
                    prop_assert!(column(kind, [Some(&value[..value.len().saturating_sub(cut)])].into_iter()).is_err());
                }
            }
        }
    }
}
