//! Maps as columns: entries in the order of their keys, each key once.
//!
//! Invariant: equal maps have equal entries in equal order, wherever they come from; of entries with one key the last counts.

use arrow::array::{Array, ArrayRef, MapArray, StructArray, UInt32Array};
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
    use arrow::array::{AsArray, Int64Array, StringArray};
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
}
