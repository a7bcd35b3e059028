//! Rows: `ROW(a, b)`, and rows, arrays and maps as those of another type.
//!
//! Invariant: values of a row are told by their places, never by names.

use crate::maps::{build, parts};
use arrow::array::{Array, ArrayRef, AsArray, ListArray, StructArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::error::ArrowError;
use datafusion_common::{Result, exec_err, plan_err};
use datafusion_expr::{ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use std::sync::Arc;

/// All of them.
pub(super) fn functions() -> Vec<ScalarUDF> {
    vec![ScalarUDF::from(OfRow(Signature::user_defined(Volatility::Immutable)))]
}

/// A value as one of another type that it [becomes](fits).
pub(crate) fn as_other(value: Expr, to: &DataType) -> Expr {
    ScalarUDF::from(AsOther { to: to.clone(), signature: Signature::user_defined(Volatility::Immutable) }).call(vec![value])
}

/// Whether rows, arrays and maps become others: whether all that is in them does, which `inner` tells of plain types.
pub(crate) fn fits(from: &DataType, to: &DataType, inner: fn(&DataType, &DataType) -> bool) -> bool {
    match (from, to) {
        (DataType::Struct(from), DataType::Struct(to)) => {
            from.len() == to.len() && from.iter().zip(to).all(|(from, to)| fits(from.data_type(), to.data_type(), inner))
        }
        (DataType::List(from), DataType::List(to)) => fits(from.data_type(), to.data_type(), inner),
        _ => match (parts(from), parts(to)) {
            (Some((key, value)), Some((other_key, other_value))) => {
                key.data_type() == other_key.data_type() && fits(value.data_type(), other_value.data_type(), inner)
            }
            _ => from == to || inner(from, to),
        },
    }
}

/// `ROW(a, ...)`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OfRow(Signature);

impl ScalarUDFImpl for OfRow {
    fn name(&self) -> &str {
        "row"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        if kinds.is_empty() { plan_err!("ROW has one value at least") } else { Ok(kinds.to_vec()) }
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(kinds.iter().enumerate().map(|(i, kind)| Field::new(format!("EXPR${i}"), kind.clone(), true)).collect()))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let kinds: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        Ok(Arc::new(Field::new(self.name(), self.return_type(&kinds)?, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let DataType::Struct(fields) = args.return_field.data_type() else { return exec_err!("ROW gives a ROW") };
        let columns = args.args.iter().map(|value| value.to_array(args.number_rows)).collect::<Result<Vec<_>>>()?;
        Ok(ColumnarValue::Array(Arc::new(StructArray::try_new(fields.clone(), columns, None)?)))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AsOther {
    to: DataType,
    signature: Signature,
}

impl ScalarUDFImpl for AsOther {
    fn name(&self) -> &str {
        "as_other"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        Ok(kinds.to_vec())
    }

    fn return_type(&self, _kinds: &[DataType]) -> Result<DataType> {
        Ok(self.to.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value] = &args.args[..] else { return exec_err!("one value is expected") };
        Ok(ColumnarValue::Array(other(&value.to_array(args.number_rows)?, &self.to)?))
    }
}

fn other(column: &ArrayRef, to: &DataType) -> std::result::Result<ArrayRef, ArrowError> {
    match (column.data_type(), to) {
        (from, to) if from == to => Ok(column.clone()),
        (DataType::Null, _) => Ok(new_null_array(to, column.len())),
        (DataType::Struct(_), DataType::Struct(fields)) => {
            let rows = column.as_struct();
            let columns = rows.columns().iter().zip(fields).map(|(column, field)| other(column, field.data_type()));
            Ok(Arc::new(StructArray::try_new(fields.clone(), columns.collect::<Result<_, _>>()?, rows.nulls().cloned())?))
        }
        (DataType::List(_), DataType::List(item)) => {
            let lists = column.as_list::<i32>();
            let values = other(lists.values(), item.data_type())?;
            Ok(Arc::new(ListArray::try_new(item.clone(), lists.offsets().clone(), values, lists.nulls().cloned())?))
        }
        (DataType::Map(..), DataType::Map(..)) => {
            let Some((_, value)) = parts(to) else { return Err(ArrowError::SchemaError(format!("{to} is no map"))) };
            let maps = column.as_map();
            let offsets = maps.value_offsets();
            let (start, length) = (offsets[0] as usize, (offsets[maps.len()] - offsets[0]) as usize);
            let values = other(&maps.values().slice(start, length), value.data_type())?;
            let lengths: Vec<usize> = offsets.windows(2).map(|pair| (pair[1] - pair[0]) as usize).collect();
            Ok(Arc::new(build(to, maps.keys().slice(start, length), values, &lengths, maps.nulls().cloned())?))
        }
        _ => cast_with_options(column, to, &CastOptions { safe: false, ..CastOptions::default() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int32Array, Int64Array, StringArray};

    fn wider(from: &DataType, to: &DataType) -> bool {
        from.is_null() || (from.is_integer() && to.is_integer())
    }

    fn row(fields: &[(&str, DataType)]) -> DataType {
        DataType::Struct(fields.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect())
    }

    #[test]
    fn values_of_rows_go_by_their_places() {
        let DataType::Struct(fields) = row(&[("b", DataType::Int64), ("a", DataType::Utf8), ("none", DataType::Null)]) else { return };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])),
            Arc::new(StringArray::from(vec!["x", "y", "z"])),
            new_null_array(&DataType::Null, 3),
        ];
        let rows = StructArray::try_new(fields, columns, Some(vec![true, true, false].into())).unwrap();
        let to = row(&[("a", DataType::Int32), ("c", DataType::Utf8), ("d", DataType::Int32)]);
        assert!(fits(rows.data_type(), &to, wider));
        let rows = other(&(Arc::new(rows) as ArrayRef), &to).unwrap();
        assert_eq!(rows.data_type(), &to);
        assert!(rows.is_null(2) && !rows.is_null(1));
        assert_eq!(rows.as_struct().column(0).as_ref(), &Int32Array::from(vec![Some(1), None, Some(3)]));
        assert_eq!(rows.as_struct().column(2).null_count(), 3);
    }

    #[test]
    fn what_is_within_must_fit() {
        let (small, large) = (row(&[("a", DataType::Int32)]), row(&[("b", DataType::Int64)]));
        assert!(fits(&DataType::new_list(small.clone(), true), &DataType::new_list(large.clone(), true), wider));
        assert!(!fits(&small, &row(&[("a", DataType::Utf8)]), wider));
        assert!(!fits(&small, &row(&[("a", DataType::Int32), ("b", DataType::Int32)]), wider));
        assert!(!fits(&small, &DataType::new_list(large, true), wider));
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1 << 40]));
        let DataType::Struct(fields) = row(&[("a", DataType::Int64)]) else { return };
        let rows: ArrayRef = Arc::new(StructArray::try_new(fields, vec![numbers], None).unwrap());
        assert!(other(&rows, &row(&[("a", DataType::Int32)])).is_err());
    }
}
