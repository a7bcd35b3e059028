//! PERCENTILE: of the values of a group with how often each is there, which COLLECT and ARRAY_AGG keep.
//!
//! Invariant: the result is that of the values in order, between two of them in proportion; NULL of no values.

use crate::maps::parts;
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Float64Builder, ListBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion_common::{Result, exec_err, plan_err};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use std::sync::Arc;

/// `percentile_of(COLLECT(x), share)` and `percentile_of(ARRAY_AGG(ROW(x, frequency)), share)`.
pub(super) fn function() -> ScalarUDF {
    ScalarUDF::from(PercentileOf(Signature::user_defined(Volatility::Immutable)))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct PercentileOf(Signature);

fn is_number(kind: &DataType) -> bool {
    kind.is_integer() || kind.is_floating() || matches!(kind, DataType::Decimal128(..))
}

/// The types of the values and of their frequencies.
fn counted(kind: &DataType) -> Option<(&DataType, &DataType)> {
    match kind {
        DataType::List(item) => match item.data_type() {
            DataType::Struct(fields) => Some((fields.first()?.data_type(), fields.get(1)?.data_type())),
            _ => None,
        },
        bag => parts(bag).map(|(value, count)| (value.data_type(), count.data_type())),
    }
}

impl ScalarUDFImpl for PercentileOf {
    fn name(&self) -> &str {
        "percentile_of"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        const USAGE: &str = "PERCENTILE is called otherwise: PERCENTILE(number, share [, frequency]), where a share, or each of an ARRAY of them, is 0 to 1";
        let [values, shares] = kinds else { return plan_err!("{USAGE}") };
        let fits = counted(values).is_some_and(|(value, count)| is_number(value) && count.is_integer());
        match shares {
            share if fits && is_number(share) => Ok(vec![values.clone(), DataType::Float64]),
            DataType::List(share) if fits && is_number(share.data_type()) => {
                Ok(vec![values.clone(), DataType::new_list(DataType::Float64, true)])
            }
            _ => plan_err!("{USAGE}"),
        }
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        Ok(kinds.get(1).cloned().unwrap_or(DataType::Float64))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [groups, shares] = &args.args[..] else { return exec_err!("PERCENTILE has two arguments") };
        let (groups, shares) = (groups.to_array(args.number_rows)?, shares.to_array(args.number_rows)?);
        let groups = (0..args.number_rows).map(|row| sorted(&groups, row)).collect::<Result<Vec<_>>>()?;
        if let Some(shares) = shares.as_list_opt::<i32>() {
            let mut out = ListBuilder::new(Float64Builder::new());
            for (row, group) in groups.iter().enumerate() {
                let wanted = shares.is_valid(row).then(|| shares.value(row)).filter(|wanted| !wanted.is_empty() && !group.is_empty());
                for share in wanted.iter().flat_map(|wanted| wanted.as_primitive::<Float64Type>().iter()) {
                    out.values().append_option(share.map(|share| percentile(group, share)).transpose()?);
                }
                out.append(wanted.is_some());
            }
            return Ok(ColumnarValue::Array(Arc::new(out.finish())));
        }
        let shares = shares.as_primitive::<Float64Type>();
        let one = |(group, share): (&Vec<(f64, i64)>, Option<f64>)| match share {
            Some(share) if !group.is_empty() => percentile(group, share).map(Some),
            _ => Ok(None),
        };
        Ok(ColumnarValue::Array(Arc::new(groups.iter().zip(shares.iter()).map(one).collect::<Result<Float64Array>>()?)))
    }
}

/// The values of a group in order, each with how often it is there; what is there no times, or has no value, is none.
fn sorted(groups: &ArrayRef, row: usize) -> Result<Vec<(f64, i64)>> {
    if groups.is_null(row) {
        return Ok(Vec::new());
    }
    let (values, counts) = match groups.as_list_opt::<i32>() {
        Some(lists) => {
            let rows = lists.value(row);
            let rows = rows.as_struct();
            (rows.column(0).clone(), rows.column(1).clone())
        }
        None => {
            let entries = groups.as_map().value(row);
            (entries.column(0).clone(), entries.column(1).clone())
        }
    };
    let (values, counts) = (cast(&values, &DataType::Float64)?, cast(&counts, &DataType::Int64)?);
    let pairs = values.as_primitive::<Float64Type>().iter().zip(counts.as_primitive::<Int64Type>().iter());
    let mut sorted: Vec<(f64, i64)> = pairs.filter_map(|(value, count)| Some((value?, count.filter(|count| *count > 0)?))).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    Ok(sorted)
}

/// Of values in order.
fn percentile(group: &[(f64, i64)], share: f64) -> Result<f64> {
    if !(0.0..=1.0).contains(&share) {
        return exec_err!("PERCENTILE: the share is 0 to 1, not {share}");
    }
    let total: i64 = group.iter().fold(0, |total: i64, (_, count)| total.saturating_add(*count));
    let position = (total - 1) as f64 * share;
    let at = |place: i64| {
        let mut before = 0i64;
        let holds = |(_, count): &&(f64, i64)| {
            before = before.saturating_add(*count);
            before > place
        };
        group.iter().find(holds).or(group.last()).map_or(f64::NAN, |(value, _)| *value)
    };
    let (low, high) = (at(position.floor() as i64), at(position.ceil() as i64));
    let above = position - position.floor();
    Ok(if low == high { low } else { low * (1.0 - above) + high * above })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_two_values_in_proportion() {
        let group = [(1.0, 1), (2.0, 2), (10.0, 1)];
        for (share, expected) in [(0.0, 1.0), (0.5, 2.0), (1.0, 10.0), (0.25, 1.75), (0.75, 4.0)] {
            assert!((percentile(&group, share).unwrap() - expected).abs() < 1e-12, "{share}");
        }
        assert_eq!(percentile(&[(3.0, 1)], 0.3).unwrap(), 3.0);
        assert!(percentile(&group, 1.5).is_err() && percentile(&group, f64::NAN).is_err());
    }
}
