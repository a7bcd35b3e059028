//! Maps: `MAP['a', 1]`, MAP_KEYS, MAP_VALUES, MAP_ENTRIES, MAP_UNION, MAP_FROM_ARRAYS, STR_TO_MAP. What an array can, too, is in `arrays`.
//!
//! Invariant: a map has each key once, the last of several; none is NULL.

use crate::maps::{build, map_type, parts};
use arrow::array::{Array, ArrayRef, AsArray, ListArray, MapArray, StringArray, StructArray, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::compute::interleave;
use arrow::datatypes::{DataType, Field, Fields};
use datafusion_common::{Result, exec_err, plan_err};
use datafusion_expr::type_coercion::binary::type_union_resolution;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use std::sync::Arc;

/// All of them.
pub(super) fn functions() -> Vec<ScalarUDF> {
    let all = [
        ("map_of", What::Of),
        ("map_from_arrays", What::FromArrays),
        ("map_keys", What::Keys),
        ("map_values", What::Values),
        ("map_entries", What::Entries),
        ("str_to_map", What::FromText),
        ("map_union", What::Union),
    ];
    all.map(|(name, what)| ScalarUDF::from(OfMap { name, what, signature: Signature::user_defined(Volatility::Immutable) })).into()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum What {
    Of,
    FromArrays,
    Keys,
    Values,
    Entries,
    FromText,
    Union,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OfMap {
    name: &'static str,
    what: What,
    signature: Signature,
}

/// The type that values of these types have in common.
fn common(kinds: Vec<DataType>, what: &str) -> Result<DataType> {
    match type_union_resolution(&kinds) {
        Some(DataType::Null) | None => plan_err!("the {what} of MAP[..] have no type in common"),
        Some(kind) => Ok(kind),
    }
}

fn every_other<T: Clone>(all: &[T], first: usize) -> Vec<T> {
    all.iter().skip(first).step_by(2).cloned().collect()
}

impl ScalarUDFImpl for OfMap {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        let is_text = |kind: &DataType| matches!(kind, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::Null);
        match (self.what, kinds) {
            (What::Of, [_, _, ..]) if kinds.len().is_multiple_of(2) => {
                let (key, value) = (common(every_other(kinds, 0), "keys")?, common(every_other(kinds, 1), "values")?);
                Ok((0..kinds.len()).map(|i| if i % 2 == 0 { key.clone() } else { value.clone() }).collect())
            }
            (What::FromArrays, [DataType::List(_), DataType::List(_)]) => Ok(kinds.to_vec()),
            (What::Union, [_, ..])
                if kinds.iter().all(|kind| kind.is_null() || parts(kind).is_some()) && kinds.iter().any(|kind| !kind.is_null()) =>
            {
                let (keys, values) =
                    kinds.iter().filter_map(parts).map(|(key, value)| (key.data_type().clone(), value.data_type().clone())).unzip();
                Ok(vec![map_type(common(keys, "keys")?, common(values, "values")?); kinds.len()])
            }
            (What::Keys | What::Values | What::Entries, [kind @ DataType::Map(..)]) => Ok(vec![kind.clone()]),
            (What::FromText, [_] | [_, _, _]) if kinds.iter().all(is_text) => Ok(vec![DataType::Utf8; kinds.len()]),
            _ => plan_err!(
                "{} is called otherwise: MAP[key, value, ..], MAP_FROM_ARRAYS(keys, values), MAP_KEYS(map), MAP_VALUES(map), MAP_ENTRIES(map), MAP_UNION(map, ..), STR_TO_MAP(text, ',', '=')",
                if self.what == What::Of { "MAP".to_string() } else { self.name.to_uppercase() }
            ),
        }
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        Ok(match (self.what, kinds) {
            (What::Of, [key, value, ..]) => map_type(key.clone(), value.clone()),
            (What::FromArrays, [DataType::List(key), DataType::List(value)]) => {
                map_type(key.data_type().clone(), value.data_type().clone())
            }
            (What::FromText, _) => map_type(DataType::Utf8, DataType::Utf8),
            (What::Union, [kind, ..]) => kind.clone(),
            (What::Keys | What::Values | What::Entries, [kind]) => match parts(kind) {
                Some((key, _)) if self.what == What::Keys => DataType::new_list(key.data_type().clone(), true),
                Some((_, value)) if self.what == What::Values => DataType::new_list(value.data_type().clone(), true),
                Some((key, value)) => {
                    let fields = [Field::new("key", key.data_type().clone(), true), Field::new("value", value.data_type().clone(), true)];
                    DataType::new_list(DataType::Struct(Fields::from_iter(fields)), true)
                }
                None => return plan_err!("{} takes a MAP", self.name.to_uppercase()),
            },
            _ => return plan_err!("{} takes other arguments", self.name.to_uppercase()),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let kind = args.return_field.data_type().clone();
        let arrays = args.args.iter().map(|a| a.to_array(args.number_rows)).collect::<Result<Vec<_>>>()?;
        let result: ArrayRef = match (self.what, &arrays[..]) {
            (What::Of, _) => of_entries(&kind, &arrays, args.number_rows)?,
            (What::FromArrays, [keys, values]) => of_arrays(&kind, keys.as_list(), values.as_list())?,
            (What::Union, _) => union(&kind, &arrays, args.number_rows)?,
            (What::FromText, [texts, delimiters @ ..]) => of_texts(&kind, texts.as_string(), delimiters)?,
            (What::Keys | What::Values, [maps]) => {
                let maps = maps.as_map();
                let items = if self.what == What::Keys { maps.keys() } else { maps.values() };
                let DataType::List(item) = &kind else { return exec_err!("{} gives an ARRAY", self.name) };
                Arc::new(ListArray::try_new(item.clone(), maps.offsets().clone(), items.clone(), maps.nulls().cloned())?)
            }
            (What::Entries, [maps]) => {
                let maps = maps.as_map();
                let DataType::List(item) = &kind else { return exec_err!("{} gives an ARRAY", self.name) };
                let DataType::Struct(fields) = item.data_type() else { return exec_err!("{} gives an ARRAY of ROWs", self.name) };
                let entries = StructArray::try_new(fields.clone(), vec![maps.keys().clone(), maps.values().clone()], None)?;
                Arc::new(ListArray::try_new(item.clone(), maps.offsets().clone(), Arc::new(entries), maps.nulls().cloned())?)
            }
            _ => return exec_err!("{} has other arguments", self.name),
        };
        Ok(ColumnarValue::Array(result))
    }
}

/// `MAP[k, v, ..]`: an entry of every two arguments.
fn of_entries(kind: &DataType, arrays: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let entries = arrays.len() / 2;
    let column = |first: usize| -> Result<ArrayRef> {
        let columns = every_other(arrays, first);
        let columns: Vec<&dyn Array> = columns.iter().map(|column| column.as_ref()).collect();
        let places: Vec<(usize, usize)> = (0..rows).flat_map(|row| (0..entries).map(move |entry| (entry, row))).collect();
        Ok(interleave(&columns, &places)?)
    };
    let keys = column(0)?;
    if keys.null_count() > 0 {
        return exec_err!("a key of a MAP is NULL");
    }
    Ok(Arc::new(build(kind, keys, column(1)?, &vec![entries; rows], None)?))
}

fn of_arrays(kind: &DataType, keys: &ListArray, values: &ListArray) -> Result<ArrayRef> {
    let (mut places, mut lengths, mut valid) = ((Vec::new(), Vec::new()), Vec::new(), Vec::new());
    let range = |list: &ListArray, row: usize| list.value_offsets()[row] as usize..list.value_offsets()[row + 1] as usize;
    for row in 0..keys.len() {
        let is_valid = keys.is_valid(row) && values.is_valid(row);
        let (of_keys, of_values) = if is_valid { (range(keys, row), range(values, row)) } else { (0..0, 0..0) };
        if of_keys.len() != of_values.len() {
            return exec_err!("MAP_FROM_ARRAYS has {} keys and {} values", of_keys.len(), of_values.len());
        }
        lengths.push(of_keys.len());
        valid.push(is_valid);
        places.0.extend(of_keys.map(|i| (0, i)));
        places.1.extend(of_values.map(|i| (0, i)));
    }
    let keys = interleave(&[keys.values().as_ref()], &places.0)?;
    if keys.null_count() > 0 {
        return exec_err!("a key of a MAP is NULL");
    }
    Ok(Arc::new(build(kind, keys, interleave(&[values.values().as_ref()], &places.1)?, &lengths, Some(NullBuffer::from(valid)))?))
}

/// The entries of all maps of a row, of which the last with a key counts.
fn union(kind: &DataType, arrays: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let maps: Vec<&MapArray> = arrays.iter().map(|array| array.as_map()).collect();
    let (mut places, mut lengths, mut valid) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..rows {
        let (before, is_valid) = (places.len(), maps.iter().all(|map| map.is_valid(row)));
        for (map, entries) in maps.iter().enumerate().filter(|_| is_valid) {
            places.extend((entries.value_offsets()[row]..entries.value_offsets()[row + 1]).map(|entry| (map, entry as usize)));
        }
        lengths.push(places.len() - before);
        valid.push(is_valid);
    }
    let column = |of: fn(&MapArray) -> &ArrayRef| interleave(&maps.iter().map(|map| of(map).as_ref()).collect::<Vec<_>>(), &places);
    Ok(Arc::new(build(kind, column(MapArray::keys)?, column(MapArray::values)?, &lengths, Some(NullBuffer::from(valid)))?))
}

/// Entries that a text holds: `a=1,b=2`; what has no second sign is a key without a value.
fn of_texts(kind: &DataType, texts: &StringArray, delimiters: &[ArrayRef]) -> Result<ArrayRef> {
    let delimiters: Vec<&StringArray> = delimiters.iter().map(|array| array.as_string()).collect();
    let (mut keys, mut values, mut lengths, mut valid) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for row in 0..texts.len() {
        let is_valid = texts.is_valid(row) && delimiters.iter().all(|d| d.is_valid(row));
        valid.push(is_valid);
        let before = keys.len();
        if is_valid && !texts.value(row).is_empty() {
            let (between, within) = match delimiters[..] {
                [between, within] => (between.value(row), within.value(row)),
                _ => (",", "="),
            };
            if between.is_empty() || within.is_empty() {
                return exec_err!("a delimiter of STR_TO_MAP is empty");
            }
            for entry in texts.value(row).trim_end_matches(between).split(between) {
                let (key, value) = entry.split_once(within).map_or((entry, None), |(key, value)| (key, Some(value)));
                keys.push(key);
                values.push(value);
            }
        }
        lengths.push(keys.len() - before);
    }
    let values: ArrayRef = if values.is_empty() { new_null_array(&DataType::Utf8, 0) } else { Arc::new(StringArray::from(values)) };
    Ok(Arc::new(build(kind, Arc::new(StringArray::from(keys)), values, &lengths, Some(NullBuffer::from(valid)))?))
}
