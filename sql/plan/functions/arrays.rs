//! Arrays: `ARRAY[a, b]`, CARDINALITY, ARRAY_CONTAINS, `items[1]`; of maps the first and `map['key']`.
//!
//! Invariant: places count from 1; what is not there is NULL.

use crate::maps::parts;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, ListArray, MapArray, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{interleave, take};
use arrow::datatypes::{DataType, Int64Type};
use arrow::row::{RowConverter, SortField};
use datafusion_common::{Result, exec_err, plan_err};
use datafusion_expr::type_coercion::binary::type_union_resolution;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use std::sync::Arc;

/// All of them.
pub(super) fn functions() -> Vec<ScalarUDF> {
    vec![of("array_of", What::Of), of("cardinality", What::Length), of("array_contains", What::Contains)]
}

/// An item of an array, as `items[1]` asks for it.
pub(super) fn item() -> ScalarUDF {
    of("item", What::Item)
}

fn of(name: &'static str, what: What) -> ScalarUDF {
    ScalarUDF::from(OfArray { name, what, signature: Signature::user_defined(Volatility::Immutable) })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum What {
    Of,
    Length,
    Contains,
    Item,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OfArray {
    name: &'static str,
    what: What,
    signature: Signature,
}

impl ScalarUDFImpl for OfArray {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        let name = self.name.to_uppercase();
        if self.what == What::Of {
            return match type_union_resolution(kinds) {
                Some(DataType::Null) | None => plan_err!("the items of ARRAY[..] have no type in common"),
                Some(kind) => Ok(vec![kind; kinds.len()]),
            };
        }
        if let Some((kind, (key, _))) = kinds.first().and_then(|kind| Some((kind, parts(kind)?))) {
            return match (self.what, &kinds[1..]) {
                (What::Length, []) => Ok(vec![kind.clone()]),
                (What::Item, [_]) => Ok(vec![kind.clone(), key.data_type().clone()]),
                _ => plan_err!("{name} is not of a MAP: CARDINALITY(map), map['key'], MAP_KEYS(map), MAP_VALUES(map)"),
            };
        }
        let Some(DataType::List(item)) = kinds.first() else { return plan_err!("{name} takes an ARRAY or a MAP first") };
        let list = kinds[0].clone();
        match (self.what, &kinds[1..]) {
            (What::Length, []) => Ok(vec![list]),
            (What::Contains, [_]) => Ok(vec![list, item.data_type().clone()]),
            (What::Item, [place]) if place.is_integer() || place.is_null() => Ok(vec![list, DataType::Int64]),
            _ => plan_err!("{name} is called otherwise: CARDINALITY(array), ARRAY_CONTAINS(array, value), array[1]"),
        }
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        match (self.what, kinds.first()) {
            (What::Of, Some(item)) => Ok(DataType::new_list(item.clone(), true)),
            (What::Length, _) => Ok(DataType::Int64),
            (What::Contains, _) => Ok(DataType::Boolean),
            (What::Item, Some(DataType::List(item))) => Ok(item.data_type().clone()),
            (What::Item, Some(kind)) if parts(kind).is_some() => {
                Ok(parts(kind).map_or(DataType::Null, |(_, value)| value.data_type().clone()))
            }
            _ => plan_err!("only an ARRAY has items"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = args.args.iter().map(|a| a.to_array(args.number_rows)).collect::<Result<Vec<_>>>()?;
        if self.what == What::Of {
            return of_items(args.return_field.data_type(), &arrays, args.number_rows).map(ColumnarValue::Array);
        }
        if let Some(maps) = arrays.first().and_then(|a| a.as_map_opt()) {
            return Ok(ColumnarValue::Array(of_maps(maps, arrays.get(1))?));
        }
        let Some(lists) = arrays.first().and_then(|a| a.as_list_opt::<i32>()) else { return exec_err!("{} takes an ARRAY", self.name) };
        let given = |row: usize| lists.is_valid(row).then(|| lists.value_offsets()[row] as usize..lists.value_offsets()[row + 1] as usize);
        let result: ArrayRef = match (self.what, arrays.get(1)) {
            (What::Length, _) => Arc::new((0..lists.len()).map(|row| given(row).map(|r| r.len() as i64)).collect::<Int64Array>()),
            (What::Item, Some(places)) => {
                let places = places.as_primitive::<Int64Type>();
                let at = |row: usize| {
                    let (range, place) = (given(row)?, usize::try_from(places.is_valid(row).then(|| places.value(row))?).ok()?);
                    Some((range.start + place.checked_sub(1).filter(|p| *p < range.len())?) as u32)
                };
                take(lists.values(), &(0..lists.len()).map(at).collect::<UInt32Array>(), None)?
            }
            (What::Contains, Some(sought)) => {
                let converter = RowConverter::new(vec![SortField::new(sought.data_type().clone())])?;
                let items = converter.convert_columns(std::slice::from_ref(lists.values()))?;
                let sought = converter.convert_columns(std::slice::from_ref(sought))?;
                let has = |row: usize| Some(given(row)?.any(|i| items.row(i) == sought.row(row)));
                Arc::new((0..lists.len()).map(has).collect::<BooleanArray>())
            }
            _ => return exec_err!("{} takes two arguments", self.name),
        };
        Ok(ColumnarValue::Array(result))
    }
}

/// A list a row of the columns' values.
fn of_items(kind: &DataType, columns: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let DataType::List(item) = kind else { return exec_err!("ARRAY[..] gives an ARRAY") };
    let places: Vec<(usize, usize)> = (0..rows).flat_map(|row| (0..columns.len()).map(move |column| (column, row))).collect();
    let items = interleave(&columns.iter().map(AsRef::as_ref).collect::<Vec<_>>(), &places)?;
    let offsets = OffsetBuffer::from_repeated_length(columns.len(), rows);
    Ok(Arc::new(ListArray::try_new(item.clone(), offsets, items, None)?))
}

/// How many entries maps have, or the value of a key in them.
fn of_maps(maps: &MapArray, keys: Option<&ArrayRef>) -> Result<ArrayRef> {
    let given = |row: usize| maps.is_valid(row).then(|| maps.value_offsets()[row] as usize..maps.value_offsets()[row + 1] as usize);
    let Some(sought) = keys else {
        return Ok(Arc::new((0..maps.len()).map(|row| given(row).map(|r| r.len() as i64)).collect::<Int64Array>()));
    };
    let converter = RowConverter::new(vec![SortField::new(sought.data_type().clone())])?;
    let keys = converter.convert_columns(std::slice::from_ref(maps.keys()))?;
    let of_rows = converter.convert_columns(std::slice::from_ref(sought))?;
    let at = |row: usize| given(row)?.find(|i| sought.is_valid(row) && keys.row(*i) == of_rows.row(row)).map(|i| i as u32);
    Ok(take(maps.values(), &(0..maps.len()).map(at).collect::<UInt32Array>(), None)?)
}
