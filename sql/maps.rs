//! Maps as columns: entries in the order of their keys, each key once.
//!
//! Invariant: equal maps have equal entries in equal order, wherever they come from; of entries with one key the last counts.

use arrow::array::{Array, ArrayRef, AsArray, ListArray, MapArray, StructArray, UInt32Array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use std::sync::Arc;

/// The type of a map.
pub(crate) fn map_type(key: DataType, value: DataType) -> DataType {
    let entries = vec![Field::new("key", key, false), Field::new("value", value, true)];
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries.into()), false)), false)
}

/// The fields of a map's keys and values; none of other types.
pub(crate) fn parts(kind: &DataType) -> Option<(&FieldRef, &FieldRef)> {
    let DataType::Map(entries, _) = kind else { return None };
    match entries.data_type() {
        DataType::Struct(fields) => fields.first().zip(fields.get(1)),
        _ => None,
    }
}

/// Maps of this type of their entries, so many a map.
///
/// # Errors
/// Of Arrow: a key that is NULL, columns beyond its limits.
pub(crate) fn build(
    kind: &DataType,
    keys: ArrayRef,
    values: ArrayRef,
    lengths: &[usize],
    nulls: Option<NullBuffer>,
) -> Result<MapArray, ArrowError> {
    let DataType::Map(entries, _) = kind else { return Err(ArrowError::SchemaError(format!("{kind} is no map"))) };
    let DataType::Struct(fields) = entries.data_type() else { return Err(ArrowError::SchemaError(format!("{kind} is no map"))) };
    if i32::try_from(lengths.iter().sum::<usize>()).is_err() {
        return Err(ArrowError::ComputeError("maps of more than 2147483647 entries in one column".into()));
    }
    let (kept, lengths) = in_order(&keys, lengths)?;
    let (keys, values) = match kept {
        Some(kept) => (take(&keys, &kept, None)?, take(&values, &kept, None)?),
        None => (keys, values),
    };
    let entry_columns = StructArray::try_new(fields.clone(), vec![keys, values], None)?;
    MapArray::try_new(entries.clone(), OffsetBuffer::from_lengths(lengths), entry_columns, nulls, false)
}

/// Maps that somebody else has made, at any depth of a column.
///
/// # Errors
/// As of [`build`].
pub(crate) fn normal(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    if !has_maps(column.data_type()) {
        return Ok(column.clone());
    }
    match column.data_type() {
        DataType::Struct(fields) => {
            let rows = column.as_struct();
            let members = rows.columns().iter().map(normal).collect::<Result<Vec<_>, _>>()?;
            Ok(Arc::new(StructArray::try_new(fields.clone(), members, rows.nulls().cloned())?))
        }
        DataType::List(item) => {
            let lists = column.as_list::<i32>();
            let items = normal(lists.values())?;
            Ok(Arc::new(ListArray::try_new(item.clone(), lists.offsets().clone(), items, lists.nulls().cloned())?))
        }
        kind => {
            let maps = column.as_map();
            let offsets = maps.offsets();
            let (begin, lengths) = (offsets[0] as usize, offsets.lengths().collect::<Vec<usize>>());
            let entries: usize = lengths.iter().sum();
            let values = normal(&maps.values().slice(begin, entries))?;
            Ok(Arc::new(build(kind, maps.keys().slice(begin, entries), values, &lengths, maps.nulls().cloned())?))
        }
    }
}

fn has_maps(kind: &DataType) -> bool {
    match kind {
        DataType::Map(..) => true,
        DataType::Struct(fields) => fields.iter().any(|field| has_maps(field.data_type())),
        DataType::List(item) => has_maps(item.data_type()),
        _ => false,
    }
}

/// Which entries stay, in order, and how many a map has then; nothing where all are in order.
fn in_order(keys: &ArrayRef, lengths: &[usize]) -> Result<(Option<UInt32Array>, Vec<usize>), ArrowError> {
    let rows = RowConverter::new(vec![SortField::new(keys.data_type().clone())])?.convert_columns(std::slice::from_ref(keys))?;
    let mut begin = 0;
    let ranges: Vec<std::ops::Range<usize>> = lengths
        .iter()
        .map(|length| {
            begin += length;
            begin - length..begin
        })
        .collect();
    if ranges.iter().all(|range| range.clone().skip(1).all(|i| rows.row(i - 1) < rows.row(i))) {
        return Ok((None, lengths.to_vec()));
    }
    let (mut kept, mut counts) = (Vec::new(), Vec::with_capacity(lengths.len()));
    for range in ranges {
        let mut entries: Vec<usize> = range.collect();
        entries.sort_by(|a, b| rows.row(*a).cmp(&rows.row(*b)));
        // Of equal ones, which are in the order in which they came, the last.
        let last = |i: usize| entries.get(i + 1).is_none_or(|next| rows.row(*next) != rows.row(entries[i]));
        let before = kept.len();
        kept.extend((0..entries.len()).filter(|&i| last(i)).map(|i| entries[i] as u32));
        counts.push(kept.len() - before);
    }
    Ok((Some(kept.into()), counts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::Int64Type;

    #[test]
    fn entries_are_in_order_and_the_last_of_a_key_counts() {
        let kind = map_type(DataType::Utf8, DataType::Int64);
        let keys: ArrayRef = Arc::new(StringArray::from(vec!["b", "a", "b", "x"]));
        let values: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(2), Some(3), None]));
        let maps = build(&kind, keys, values, &[3, 0, 1], Some(NullBuffer::from(vec![true, false, true]))).unwrap();
        assert_eq!(maps.value_offsets(), [0, 2, 2, 3]);
        assert_eq!(maps.keys().as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["a", "b", "x"]);
        assert_eq!(maps.values().as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(2), Some(3), None]);
        assert!(maps.is_null(1) && !maps.is_null(2));
    }

    #[test]
    fn maps_that_others_made_are_put_in_order_wherever_they_are() {
        let kind = map_type(DataType::Utf8, DataType::Int64);
        let DataType::Map(entries, _) = &kind else { panic!("a map") };
        let DataType::Struct(fields) = entries.data_type() else { panic!("a row") };
        let keys: ArrayRef = Arc::new(StringArray::from(vec!["gone", "z", "b", "a", "c", "c"]));
        let values: ArrayRef = Arc::new(Int64Array::from(vec![0, 9, 1, 2, 3, 4]));
        let pairs = StructArray::new(fields.clone(), vec![keys, values], None);
        let maps = MapArray::new(entries.clone(), OffsetBuffer::from_lengths([1, 1, 2, 0, 2]), pairs, None, false).slice(1, 4);
        let item = Arc::new(Field::new("item", kind.clone(), true));
        let lists = ListArray::new(item.clone(), OffsetBuffer::from_lengths([3, 1]), Arc::new(maps), None);
        let row: Vec<FieldRef> = vec![Arc::new(Field::new("l", DataType::List(item), true))];
        let rows: ArrayRef = Arc::new(StructArray::new(row.into(), vec![Arc::new(lists)], None));
        let normal = normal(&rows).unwrap();
        assert_eq!(normal.data_type(), rows.data_type());
        let lists = normal.as_struct().column(0).as_list::<i32>().clone();
        let maps = lists.values().as_map();
        assert_eq!(maps.value_offsets(), [0, 1, 3, 3, 4]);
        assert_eq!(maps.keys().as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["z", "a", "b", "c"]);
        assert_eq!(maps.values().as_primitive::<Int64Type>().values(), &[9, 2, 1, 4]);
    }
}
