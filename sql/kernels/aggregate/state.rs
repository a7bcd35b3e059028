//! What calls keep beside numbers: values with their counts, values in the order of arrival, moments, sketches.
//!
//! Invariant: the state after any sequence of rows taken in and out depends on their sum alone (of functions of the order of
//! arrival, on their order too).

use super::numbers::Long;
use super::{Argument, Call, Function};
use crate::kernels::arrivals::{Arrivals, DistinctArrivals};
use crate::kernels::decimal::mean;
use crate::kernels::keys::KeyBytes;
use crate::kernels::moments::{Exact, Floats};
use crate::kernels::value::{Cells, Class, Value};
use crate::own::Held;
use arrow::datatypes::DataType;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use waterwheel_engine::windowing::HyperLogLog;

/// The largest number of 38 digits: no decimal is larger.
const MOST: u128 = 10u128.pow(38) - 1;

/// What one call keeps that is no number.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum State {
    /// One of the values: the least, the first.
    Extreme(Option<Value>),
    Values(Multiset),
    Arrivals(Arrivals),
    Exact(Exact),
    Floats(Floats),
    Sketch(HyperLogLog),
    /// What a function of the user's keeps; the call has the function.
    Own(Held),
    Distinct(DistinctArrivals),
}

/// Every value by its canonical bytes, with its signed count; none has a count of 0.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Multiset {
    counts: BTreeMap<Vec<u8>, i64>,
}

impl Multiset {
    fn add(&mut self, bytes: Vec<u8>, weight: i64) {
        let count = self.counts.entry(bytes);
        match count {
            std::collections::btree_map::Entry::Vacant(entry) => drop(entry.insert(weight)),
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                *entry.get_mut() += weight;
                if *entry.get() == 0 {
                    entry.remove();
                }
            }
        }
    }
}

impl State {
    /// Whether nothing is left in it, which it keeps for a call.
    pub(super) fn is_zero(&self, call: &Call) -> bool {
        match self {
            State::Own(held) => call.own.as_ref().is_none_or(|own| own.aggregator.is_none(held)),
            State::Extreme(value) => value.is_none(),
            State::Values(values) => values.counts.is_empty(),
            State::Arrivals(arrivals) => arrivals.is_empty(),
            State::Distinct(arrivals) => arrivals.is_empty(),
            State::Exact(moments) => moments.is_zero(),
            State::Floats(moments) => moments.count == 0,
            State::Sketch(sketch) => sketch.estimate() == 0,
        }
    }

    /// Takes the value of a row in or out.
    pub(super) fn fold(&mut self, function: Function, cells: &Cells, row: usize, weight: i64) {
        let bytes = || {
            let mut bytes = Vec::new();
            cells.encode(row, &mut bytes);
            bytes
        };
        match (self, cells) {
            (State::Extreme(so_far), cells) => extreme(function, so_far, &cells.value(row)),
            (State::Values(values), _) => values.add(bytes(), weight),
            (State::Arrivals(arrivals), _) => arrivals.add(&bytes(), weight),
            (State::Distinct(arrivals), _) => arrivals.add(bytes(), weight),
            (State::Sketch(sketch), _) => sketch.insert(&KeyBytes::new(&bytes())),
            (State::Exact(moments), Cells::Int(a)) => moments.add(i128::from(a.value(row)), weight),
            (State::Exact(moments), Cells::Decimal(a)) => moments.add(a.value(row), weight),
            (State::Floats(moments), Cells::Float(a)) => moments.add(a.value(row), weight),
            (State::Exact(_) | State::Floats(_) | State::Own(_), _) => unreachable!("plan bug: a call of another class than planned"),
        }
    }

    /// Takes a single value in.
    pub(super) fn fold_value(&mut self, function: Function, value: &Value) {
        let bytes = || {
            let mut bytes = Vec::new();
            value.encode(&mut bytes);
            bytes
        };
        match (self, value) {
            (State::Extreme(so_far), value) => extreme(function, so_far, value),
            (State::Values(values), _) => values.add(bytes(), 1),
            (State::Arrivals(arrivals), _) => arrivals.add(&bytes(), 1),
            (State::Distinct(arrivals), _) => arrivals.add(bytes(), 1),
            (State::Sketch(sketch), _) => sketch.insert(&KeyBytes::new(&bytes())),
            (State::Exact(moments), Value::Int(v)) => moments.add(i128::from(*v), 1),
            (State::Exact(moments), Value::Decimal(v)) => moments.add(*v, 1),
            (State::Floats(moments), Value::Float(v)) => moments.add(*v, 1),
            (State::Exact(_) | State::Floats(_) | State::Own(_), _) => unreachable!("plan bug: a call of another class than planned"),
        }
    }

    /// Takes in what was kept of later rows.
    pub(super) fn merge(&mut self, function: Function, later: &State) {
        match (self, later) {
            (State::Extreme(so_far), State::Extreme(Some(value))) => extreme(function, so_far, value),
            (State::Extreme(_), State::Extreme(None)) => {}
            (State::Values(values), State::Values(more)) => more.counts.iter().for_each(|(bytes, n)| values.add(bytes.clone(), *n)),
            (State::Arrivals(arrivals), State::Arrivals(later)) => arrivals.merge(later),
            (State::Distinct(arrivals), State::Distinct(later)) => arrivals.merge(later),
            (State::Exact(moments), State::Exact(more)) => moments.merge(more),
            (State::Floats(moments), State::Floats(more)) => moments.merge(more),
            (State::Sketch(sketch), State::Sketch(more)) => sketch.merge(more),
            _ => unreachable!("plan bug: parts of different aggregates are merged"),
        }
    }
}

fn extreme(function: Function, so_far: &mut Option<Value>, value: &Value) {
    let better = |old: &Value| match function {
        Function::First => false,
        Function::Last => true,
        Function::Min => value.total_cmp(old) == Ordering::Less,
        _ => value.total_cmp(old) == Ordering::Greater,
    };
    if so_far.as_ref().is_none_or(better) {
        *so_far = Some(value.clone());
    }
}

impl Call {
    /// What it keeps at first, of calls that keep more than numbers.
    pub(super) fn create(&self) -> State {
        if let Some(own) = &self.own {
            return State::Own(own.aggregator.none());
        }
        if self.keeps_values() {
            return State::Values(Multiset::default());
        }
        if self.keeps_arrivals() && self.distinct {
            return State::Distinct(DistinctArrivals::default());
        }
        if self.keeps_arrivals() {
            return State::Arrivals(Arrivals::default());
        }
        match (self.function, self.argument.as_ref().map(|a| a.class)) {
            (Function::ApproxCount, _) => State::Sketch(HyperLogLog::default()),
            (Function::Variance { .. }, Some(Class::Float)) => State::Floats(Floats::default()),
            (Function::Variance { .. }, _) => State::Exact(Exact::default()),
            _ => State::Extreme(None),
        }
    }

    /// The result.
    pub(super) fn finish(&self, state: &State) -> Value {
        match state {
            State::Extreme(value) => value.clone().unwrap_or(Value::Null),
            State::Values(values) => self.finish_values(values),
            State::Arrivals(arrivals) => self.finish_arrivals(arrivals.values()),
            State::Distinct(arrivals) => self.finish_arrivals(arrivals.values().into_iter()),
            State::Exact(moments) => self.variance(|sample| moments.variance(sample)),
            State::Floats(moments) => self.variance(|sample| moments.variance(sample)),
            State::Sketch(sketch) => Value::Int(sketch.estimate() as i64),
            // It may fail, so it is asked for by itself.
            State::Own(_) => Value::Null,
        }
    }

    /// The variance, or its root, in the type of the result.
    fn variance(&self, of: impl Fn(bool) -> Option<f64>) -> Value {
        let Function::Variance { sample, root } = self.function else { return Value::Null };
        let Some(variance) = of(sample) else { return Value::Null };
        let from = match &self.argument {
            Some(Argument { kind: DataType::Decimal128(_, scale), .. }) => *scale,
            _ => 0,
        };
        let variance = variance / 100f64.powi(i32::from(from));
        let result = if root { variance.sqrt() } else { variance };
        match &self.output {
            DataType::Decimal128(_, to) => Value::Decimal((result * 10f64.powi(i32::from(*to))).round() as i128),
            DataType::Float64 => Value::Float(result),
            _ => Value::Int(result as i64),
        }
    }

    fn finish_arrivals<'a>(&self, mut arrivals: impl DoubleEndedIterator<Item = &'a [u8]>) -> Value {
        let Some(Argument { class, .. }) = &self.argument else { return Value::Null };
        let read = |bytes: &[u8]| Value::decode(*class, &mut &bytes[..]).unwrap_or(Value::Null);
        match self.function {
            Function::First => arrivals.next().map_or(Value::Null, read),
            Function::Last => arrivals.next_back().map_or(Value::Null, read),
            Function::List => {
                let texts: Vec<String> =
                    arrivals.filter_map(|bytes| if let Value::Text(text) = read(bytes) { Some(text) } else { None }).collect();
                if texts.is_empty() { Value::Null } else { Value::Text(texts.join(&self.separator)) }
            }
            _ => {
                let values: Vec<&[u8]> = arrivals.collect();
                if values.is_empty() { Value::Null } else { Value::Bytes(array_of(*class, &values)) }
            }
        }
    }

    /// Sum or mean of floats.
    pub(super) fn total_of_floats(&self, sum: f64, count: i64) -> Value {
        match (self.function, count) {
            (_, 0) => Value::Null,
            (Function::Avg, count) => Value::Float(sum / count as f64),
            _ => Value::Float(sum),
        }
    }

    /// Sum or mean of whole numbers or decimals. One with more digits than its type has is NULL, as in Flink.
    pub(super) fn total(&self, sum: Option<i128>, count: i64) -> Value {
        let Some(sum) = sum else { return Value::Null };
        let from = match &self.argument {
            Some(Argument { kind: DataType::Decimal128(_, from), .. }) => Some(*from),
            _ => None,
        };
        match (self.function, from, &self.output) {
            _ if count == 0 => Value::Null,
            (Function::Avg, Some(from), DataType::Decimal128(_, to)) => mean(sum, count, from, *to).map_or(Value::Null, Value::Decimal),
            (Function::Avg, Some(_), _) => Value::Null,
            (Function::Avg, None, _) => sum.checked_div(i128::from(count)).map_or(Value::Null, |mean| Value::Int(mean as i64)),
            (_, Some(_), _) if sum.unsigned_abs() > MOST => Value::Null,
            (_, Some(_), _) => Value::Decimal(sum),
            // Wraps, as BIGINT does.
            (_, None, _) => Value::Int(sum as i64),
        }
    }

    fn variance_of(&self, values: impl Iterator<Item = (Value, i64)>) -> Value {
        let (mut exact, mut floats) = (Exact::default(), Floats::default());
        for (value, times) in values {
            match value {
                Value::Int(v) => exact.add(i128::from(v), times),
                Value::Decimal(v) => exact.add(v, times),
                Value::Float(v) => floats.add(v, times),
                _ => {}
            }
        }
        self.variance(|sample| if floats.count > 0 { floats.variance(sample) } else { exact.variance(sample) })
    }

    fn finish_values(&self, values: &Multiset) -> Value {
        let Some(Argument { class, .. }) = &self.argument else { return Value::Null };
        let read = |bytes: &[u8]| Value::decode(*class, &mut &bytes[..]).unwrap_or(Value::Null);
        let mut present = values.counts.iter().filter(|(_, n)| **n > 0);
        match self.function {
            Function::Count | Function::ApproxCount => Value::Int(present.count() as i64),
            Function::Variance { .. } => self.variance_of(present.map(|(bytes, n)| (read(bytes), if self.distinct { 1 } else { *n }))),
            Function::First | Function::Last | Function::List | Function::Array { .. } | Function::Own => Value::Null,
            Function::Collect => Value::Bytes(bag_of(present.map(|(bytes, n)| (&bytes[..], if self.distinct { 1 } else { *n })))),
            Function::Min => present.next().map_or(Value::Null, |(bytes, _)| read(bytes)),
            Function::Max => present.next_back().map_or(Value::Null, |(bytes, _)| read(bytes)),
            Function::Sum | Function::Avg => {
                let (mut floats, mut exact, mut count) = (0.0, Long::default(), 0);
                for (bytes, n) in present {
                    let times = if self.distinct { 1 } else { *n };
                    match read(bytes) {
                        Value::Float(v) => floats += v * times as f64,
                        Value::Decimal(v) => exact.add(v, times),
                        Value::Int(v) => exact.add(i128::from(v), times),
                        _ => continue,
                    }
                    count += times;
                }
                match class {
                    Class::Float => self.total_of_floats(floats, count),
                    _ => self.total(exact.short(), count),
                }
            }
        }
    }
}

/// The bytes of a map of values, by their canonical bytes, to how often they are there.
fn bag_of<'a>(values: impl Iterator<Item = (&'a [u8], i64)>) -> Vec<u8> {
    let (mut out, mut count) = (vec![0; 4], 0u32);
    for (bytes, times) in values {
        count += 1;
        out.extend_from_slice(bytes);
        Value::Int(times.min(i64::from(i32::MAX))).encode(&mut out);
    }
    out[..4].copy_from_slice(&count.to_le_bytes());
    out
}

/// The bytes of an array of values by their canonical bytes.
fn array_of(class: Class, values: &[&[u8]]) -> Vec<u8> {
    let mut out = (values.len() as u32).to_le_bytes().to_vec();
    for bytes in values {
        match class {
            // Within an array, a row stands as it is.
            Class::Nested => match Value::decode(class, &mut &bytes[..]) {
                Ok(Value::Bytes(row)) => {
                    out.push(1);
                    out.extend_from_slice(&row);
                }
                _ => out.push(0),
            },
            _ => out.extend_from_slice(bytes),
        }
    }
    out
}
