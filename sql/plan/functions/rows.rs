//! Rows: `ROW(a, b)`, and which rows, arrays and maps become those of another type.
//!
//! Invariant: values of a row are told by their places, never by names.

use crate::maps::parts;
use arrow::array::StructArray;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{Result, exec_err, plan_err};
use datafusion_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use std::sync::Arc;

/// All of them.
pub(super) fn functions() -> Vec<ScalarUDF> {
    vec![ScalarUDF::from(OfRow(Signature::user_defined(Volatility::Immutable)))]
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

#[cfg(test)]
mod tests {
    use super::*;

    fn wider(from: &DataType, to: &DataType) -> bool {
        from.is_null() || (from.is_integer() && to.is_integer())
    }

    fn row(fields: &[(&str, DataType)]) -> DataType {
        DataType::Struct(fields.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect())
    }

    #[test]
    fn what_is_within_must_fit() {
        let (small, large) = (row(&[("a", DataType::Int32)]), row(&[("b", DataType::Int64)]));
        assert!(fits(&DataType::new_list(small.clone(), true), &DataType::new_list(large.clone(), true), wider));
        assert!(!fits(&small, &row(&[("a", DataType::Utf8)]), wider));
        assert!(!fits(&small, &row(&[("a", DataType::Int32), ("b", DataType::Int32)]), wider));
        assert!(!fits(&small, &DataType::new_list(large, true), wider));
    }
}
