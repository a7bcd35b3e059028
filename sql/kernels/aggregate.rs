//! Aggregates as sums with signs: what each function keeps, how a row is taken in and out, how two parts merge.
//!
//! Over an input that only grows, MIN and MAX keep one value and float sums are plain. Over one that shrinks too, and for
//! DISTINCT, a multiset keeps every value with its signed count, and the result is worked out from it: float addition cannot
//! be undone, and a MIN that goes leaves the next one.
//!
//! Invariant: the state after any sequence of rows taken in and out depends on their sum alone (for floats that only come in,
//! and for functions of the order of arrival, on their order too).

use super::arrivals::Arrivals;
use super::calc::evaluate;
use super::distinct::{MOST, Seen};
use super::keys::KeyBytes;
use super::moments::{Exact, Floats};
use super::value::{Cells, Class, Value};
use arrow::array::{Array, AsArray, BooleanArray};
use arrow::datatypes::DataType;
use datafusion_physical_expr::PhysicalExpr;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use waterwheel_engine::error::Result;
use waterwheel_engine::operators::RowError;
use waterwheel_engine::record::ChangeBatch;
use waterwheel_engine::windowing::HyperLogLog;

/// The aggregate functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Count,
    Sum,
    Min,
    Max,
    Avg,
    /// FIRST_VALUE, LAST_VALUE: the first or last to arrive that is not NULL.
    First,
    Last,
    /// LISTAGG: texts in the order of arrival.
    List,
    /// ARRAY_AGG: values in the order of arrival.
    Array {
        /// NULLs too.
        nulls: bool,
    },
    /// VAR_POP, VAR_SAMP, STDDEV_POP, STDDEV_SAMP.
    Variance {
        sample: bool,
        root: bool,
    },
    /// APPROX_COUNT_DISTINCT.
    ApproxCount,
}

/// One call of an aggregate function.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) function: Function,
    /// None = every row counts: COUNT(*).
    pub(crate) argument: Option<Argument>,
    pub(crate) filter: Option<Arc<dyn PhysicalExpr>>,
    pub(crate) distinct: bool,
    /// Rows are taken out too.
    pub(crate) retracting: bool,
    /// Between the texts of LISTAGG.
    pub(crate) separator: Arc<str>,
    /// Type of the result.
    pub(crate) output: DataType,
}

/// What a call is made on.
#[derive(Debug, Clone)]
pub(crate) struct Argument {
    pub(crate) expr: Arc<dyn PhysicalExpr>,
    pub(crate) kind: DataType,
    pub(crate) class: Class,
    /// Calls on the same column share what they can.
    pub(crate) column: usize,
}

impl Call {
    /// For the description that state is checked against, and for `explain`.
    pub(crate) fn describe(&self) -> String {
        let argument = self.argument.as_ref().map_or("*".to_string(), |a| format!("{}: {}", a.expr, a.kind));
        let distinct = if self.distinct { "DISTINCT " } else { "" };
        let filter = self.filter.as_ref().map_or(String::new(), |f| format!(" FILTER {f}"));
        let retracting = if self.retracting { " retracting" } else { "" };
        let separator = if self.function == Function::List { format!(", {:?}", self.separator) } else { String::new() };
        format!("{:?}({distinct}{argument}{separator}){filter}{retracting}", self.function)
    }

    /// Whether it keeps every value that it has seen, with its count.
    pub(crate) fn keeps_values(&self) -> bool {
        let floats = self.argument.as_ref().is_some_and(|a| a.class == Class::Float);
        match self.function {
            Function::Min | Function::Max => self.retracting,
            Function::Count => self.distinct,
            Function::Sum | Function::Avg | Function::Variance { .. } => self.distinct || (self.retracting && floats),
            Function::ApproxCount => self.retracting,
            Function::First | Function::Last | Function::List | Function::Array { .. } => false,
        }
    }

    /// Whether it keeps every value in the order of arrival.
    pub(crate) fn keeps_arrivals(&self) -> bool {
        match self.function {
            Function::First | Function::Last => self.retracting,
            Function::List | Function::Array { .. } => true,
            _ => false,
        }
    }

    /// Whether it counts the distinct values of rows that are never taken away.
    fn counts_seen(&self) -> bool {
        self.function == Function::Count && self.distinct && !self.retracting && self.argument.is_some()
    }

    fn create(&self) -> State {
        if self.counts_seen() {
            return State::Count(0);
        }
        if self.keeps_values() {
            return State::Values(Multiset::default());
        }
        if self.keeps_arrivals() {
            return State::Arrivals(Arrivals::default());
        }
        match (self.function, self.argument.as_ref().map(|a| a.class)) {
            (Function::Count, _) => State::Count(0),
            (Function::Min | Function::Max | Function::First | Function::Last, _) => State::Extreme(None),
            (Function::ApproxCount, _) => State::Sketch(HyperLogLog::default()),
            (Function::Variance { .. }, Some(Class::Float)) => State::Floats(Floats::default()),
            (Function::Variance { .. }, _) => State::Exact(Exact::default()),
            (_, Some(Class::Float)) => State::Float { sum: 0.0, count: 0 },
            (_, Some(Class::Decimal)) => State::Decimal { sum: 0, count: 0 },
            _ => State::Int { sum: 0, count: 0 },
        }
    }

    /// The result.
    fn finish(&self, state: &State) -> Value {
        match state {
            State::Count(n) => Value::Int(*n),
            State::Int { count: 0, .. } | State::Float { count: 0, .. } | State::Decimal { count: 0, .. } => Value::Null,
            State::Int { sum, count } => match self.function {
                Function::Avg => sum.checked_div(i128::from(*count)).map_or(Value::Null, |mean| Value::Int(mean as i64)),
                // Wraps, as BIGINT does.
                _ => Value::Int(*sum as i64),
            },
            State::Float { sum, count } => self.float(*sum, *count),
            State::Decimal { sum, count } => self.decimal(*sum, *count),
            State::Extreme(value) => value.clone().unwrap_or(Value::Null),
            State::Values(values) => self.finish_values(values),
            State::Arrivals(arrivals) => self.finish_arrivals(arrivals),
            State::Exact(moments) => self.variance(|sample| moments.variance(sample)),
            State::Floats(moments) => self.variance(|sample| moments.variance(sample)),
            State::Sketch(sketch) => Value::Int(sketch.estimate() as i64),
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

    fn finish_arrivals(&self, arrivals: &Arrivals) -> Value {
        let Some(Argument { class, .. }) = &self.argument else { return Value::Null };
        let read = |bytes: &[u8]| Value::decode(*class, &mut &bytes[..]).unwrap_or(Value::Null);
        match self.function {
            Function::First => arrivals.values().next().map_or(Value::Null, read),
            Function::Last => arrivals.values().next_back().map_or(Value::Null, read),
            Function::List => {
                let texts: Vec<String> =
                    arrivals.values().filter_map(|bytes| if let Value::Text(text) = read(bytes) { Some(text) } else { None }).collect();
                if texts.is_empty() { Value::Null } else { Value::Text(texts.join(&self.separator)) }
            }
            _ => {
                let values: Vec<&[u8]> = arrivals.values().collect();
                if values.is_empty() { Value::Null } else { Value::Bytes(array_of(*class, &values)) }
            }
        }
    }

    fn float(&self, sum: f64, count: i64) -> Value {
        Value::Float(if self.function == Function::Avg { sum / count as f64 } else { sum })
    }

    fn decimal(&self, sum: i128, count: i64) -> Value {
        if self.function != Function::Avg {
            return Value::Decimal(sum);
        }
        let (Some(Argument { kind: DataType::Decimal128(_, from), .. }), DataType::Decimal128(_, to)) = (&self.argument, &self.output)
        else {
            return Value::Null;
        };
        mean(sum, count, *from, *to).map_or(Value::Null, Value::Decimal)
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
            Function::First | Function::Last | Function::List | Function::Array { .. } => Value::Null,
            Function::Min => present.next().map_or(Value::Null, |(bytes, _)| read(bytes)),
            Function::Max => present.next_back().map_or(Value::Null, |(bytes, _)| read(bytes)),
            Function::Sum | Function::Avg => {
                let mut state = match class {
                    Class::Float => State::Float { sum: 0.0, count: 0 },
                    Class::Decimal => State::Decimal { sum: 0, count: 0 },
                    _ => State::Int { sum: 0, count: 0 },
                };
                for (bytes, n) in present {
                    let times = if self.distinct { 1 } else { *n };
                    match (&mut state, read(bytes)) {
                        (State::Float { sum, count }, Value::Float(v)) => (*sum, *count) = (*sum + v * times as f64, *count + times),
                        (State::Decimal { sum, count }, Value::Decimal(v)) => {
                            (*sum, *count) = (sum.wrapping_add(v.wrapping_mul(i128::from(times))), *count + times)
                        }
                        (State::Int { sum, count }, Value::Int(v)) => {
                            (*sum, *count) = (*sum + i128::from(v) * i128::from(times), *count + times)
                        }
                        _ => {}
                    }
                }
                self.finish(&state)
            }
        }
    }
}

/// `sum / count` from scale `from` to scale `to`, half away from zero; none when it does not fit.
pub(crate) fn mean(sum: i128, count: i64, from: i8, to: i8) -> Option<i128> {
    let shifted = sum.checked_mul(10i128.checked_pow(u32::try_from(to - from).ok()?)?)?;
    let count = i128::from(count);
    let (quotient, rest) = (shifted.checked_div(count)?, shifted.checked_rem(count)?);
    let up = rest.unsigned_abs() * 2 >= count.unsigned_abs();
    Some(if up { quotient + shifted.signum() * count.signum() } else { quotient })
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

/// What one call keeps.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum State {
    Count(i64),
    /// As wide as needed never to forget: BIGINT values add up in it without wrapping.
    Int {
        sum: i128,
        count: i64,
    },
    Float {
        sum: f64,
        count: i64,
    },
    Decimal {
        sum: i128,
        count: i64,
    },
    /// One of the values: the least, the first.
    Extreme(Option<Value>),
    Values(Multiset),
    Arrivals(Arrivals),
    Exact(Exact),
    Floats(Floats),
    Sketch(HyperLogLog),
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
    fn is_zero(&self) -> bool {
        match self {
            State::Count(n) => *n == 0,
            State::Int { sum, count } => *sum == 0 && *count == 0,
            State::Float { count, .. } => *count == 0,
            State::Decimal { sum, count } => *sum == 0 && *count == 0,
            State::Extreme(value) => value.is_none(),
            State::Values(values) => values.counts.is_empty(),
            State::Arrivals(arrivals) => arrivals.is_empty(),
            State::Exact(moments) => moments.is_zero(),
            State::Floats(moments) => moments.count == 0,
            State::Sketch(sketch) => sketch.estimate() == 0,
        }
    }

    fn fold(&mut self, function: Function, cells: Option<&Cells>, row: usize, weight: i64) {
        let Some(cells) = cells else {
            if let State::Count(n) = self {
                *n += weight;
            }
            return;
        };
        if cells.is_null(row) && function != (Function::Array { nulls: true }) {
            return;
        }
        match (self, cells) {
            (State::Count(n), _) => *n += weight,
            (State::Int { sum, count }, Cells::Int(a)) => {
                (*sum, *count) = (*sum + i128::from(a.value(row)) * i128::from(weight), *count + weight)
            }
            (State::Float { sum, count }, Cells::Float(a)) => (*sum, *count) = (*sum + a.value(row) * weight as f64, *count + weight),
            (State::Decimal { sum, count }, Cells::Decimal(a)) => {
                (*sum, *count) = (sum.wrapping_add(a.value(row).wrapping_mul(i128::from(weight))), *count + weight);
            }
            (State::Extreme(so_far), cells) => extreme(function, so_far, &cells.value(row)),
            (State::Values(values), cells) => {
                let mut bytes = Vec::new();
                cells.encode(row, &mut bytes);
                values.add(bytes, weight);
            }
            (State::Arrivals(arrivals), cells) => {
                let mut bytes = Vec::new();
                cells.encode(row, &mut bytes);
                arrivals.add(&bytes, weight);
            }
            (State::Sketch(sketch), cells) => {
                let mut bytes = Vec::new();
                cells.encode(row, &mut bytes);
                sketch.insert(&KeyBytes(bytes));
            }
            (State::Exact(moments), Cells::Int(a)) => moments.add(i128::from(a.value(row)), weight),
            (State::Exact(moments), Cells::Decimal(a)) => moments.add(a.value(row), weight),
            (State::Floats(moments), Cells::Float(a)) => moments.add(a.value(row), weight),
            (State::Int { .. } | State::Float { .. } | State::Decimal { .. } | State::Exact(_) | State::Floats(_), _) => {
                unreachable!("plan bug: a sum over another class than planned")
            }
        }
    }

    fn fold_value(&mut self, function: Function, value: Value) {
        match (self, value) {
            (_, Value::Null) if function != (Function::Array { nulls: true }) => {}
            (State::Count(n), _) => *n += 1,
            (State::Int { sum, count }, Value::Int(v)) => (*sum, *count) = (*sum + i128::from(v), *count + 1),
            (State::Float { sum, count }, Value::Float(v)) => (*sum, *count) = (*sum + v, *count + 1),
            (State::Decimal { sum, count }, Value::Decimal(v)) => (*sum, *count) = (sum.wrapping_add(v), *count + 1),
            (State::Extreme(so_far), value) => extreme(function, so_far, &value),
            (State::Values(values), value) => {
                let mut bytes = Vec::new();
                value.encode(&mut bytes);
                values.add(bytes, 1);
            }
            (State::Arrivals(arrivals), value) => {
                let mut bytes = Vec::new();
                value.encode(&mut bytes);
                arrivals.add(&bytes, 1);
            }
            (State::Sketch(sketch), value) => {
                let mut bytes = Vec::new();
                value.encode(&mut bytes);
                sketch.insert(&KeyBytes(bytes));
            }
            (State::Exact(moments), Value::Int(v)) => moments.add(i128::from(v), 1),
            (State::Exact(moments), Value::Decimal(v)) => moments.add(v, 1),
            (State::Floats(moments), Value::Float(v)) => moments.add(v, 1),
            (State::Int { .. } | State::Float { .. } | State::Decimal { .. } | State::Exact(_) | State::Floats(_), _) => {
                unreachable!("plan bug: a sum over another class than planned")
            }
        }
    }

    fn merge(&mut self, function: Function, later: &State) {
        match (self, later) {
            (State::Count(n), State::Count(m)) => *n += m,
            (State::Int { sum, count }, State::Int { sum: s, count: c }) => (*sum, *count) = (*sum + s, *count + c),
            (State::Float { sum, count }, State::Float { sum: s, count: c }) => (*sum, *count) = (*sum + s, *count + c),
            (State::Decimal { sum, count }, State::Decimal { sum: s, count: c }) => (*sum, *count) = (sum.wrapping_add(*s), *count + c),
            (State::Extreme(so_far), State::Extreme(Some(value))) => extreme(function, so_far, value),
            (State::Extreme(_), State::Extreme(None)) => {}
            (State::Values(values), State::Values(more)) => more.counts.iter().for_each(|(bytes, n)| values.add(bytes.clone(), *n)),
            (State::Arrivals(arrivals), State::Arrivals(later)) => arrivals.merge(later),
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

/// What is kept per key: rows, and one state a call.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Acc {
    /// Signed count of rows.
    pub(crate) rows: i64,
    states: Vec<State>,
    /// One a family.
    seen: Vec<Seen>,
}

/// The calls of one aggregate node.
#[derive(Debug, Clone)]
pub(crate) struct Calls(pub(crate) Arc<[Call]>, Arc<[Family]>);

/// Calls that count the distinct values of one column, each with its filter.
#[derive(Debug)]
struct Family {
    numbers: bool,
    calls: Vec<usize>,
}

/// Arguments and filters of a batch, by call.
#[derive(Debug, Clone)]
pub(crate) struct Arguments(Vec<(Option<Cells>, Option<BooleanArray>)>);

impl Calls {
    pub(crate) fn new(calls: Vec<Call>) -> Self {
        let mut families: Vec<(usize, Family)> = Vec::new();
        for (i, call) in calls.iter().enumerate().filter(|(_, call)| call.counts_seen()) {
            let Some(argument) = &call.argument else { continue };
            match families.iter_mut().find(|(column, family)| *column == argument.column && family.calls.len() < MOST) {
                Some((_, family)) => family.calls.push(i),
                None => families.push((argument.column, Family { numbers: argument.class == Class::Int, calls: vec![i] })),
            }
        }
        Calls(calls.into(), families.into_iter().map(|(_, family)| family).collect())
    }

    /// For the description that state is checked against.
    pub(crate) fn describe(&self) -> String {
        self.0.iter().map(Call::describe).collect::<Vec<_>>().join(", ")
    }

    /// Evaluates what the calls need of a batch.
    ///
    /// # Errors
    /// As [`evaluate`].
    pub(crate) fn arguments(&self, batch: &ChangeBatch, failed: &mut Vec<RowError>) -> Result<Arguments> {
        let exprs: Vec<Arc<dyn PhysicalExpr>> =
            self.0.iter().flat_map(|c| c.argument.iter().map(|a| &a.expr).chain(&c.filter)).cloned().collect();
        let (columns, bad) = evaluate(&exprs, batch)?;
        failed.extend(bad);
        let mut columns = columns.into_iter();
        let arguments = self.0.iter().map(|call| {
            let cells = call.argument.as_ref().and_then(|_| columns.next()).map(|a| Cells::of(&a)).transpose()?;
            let filter = call.filter.as_ref().and_then(|_| columns.next()).map(|a| a.as_boolean().clone());
            Ok((cells, filter))
        });
        Ok(Arguments(arguments.collect::<Result<Vec<_>>>()?))
    }

    /// The accumulator of no rows.
    pub(crate) fn create(&self) -> Acc {
        Acc {
            rows: 0,
            states: self.0.iter().map(Call::create).collect(),
            seen: self.1.iter().map(|family| Seen::none(family.numbers)).collect(),
        }
    }

    /// Takes a row in (weight 1) or out (-1).
    pub(crate) fn fold(&self, acc: &mut Acc, arguments: &Arguments, row: usize, weight: i64) {
        acc.rows += weight;
        let passes = |filter: &Option<BooleanArray>| filter.as_ref().is_none_or(|f| f.is_valid(row) && f.value(row));
        for ((call, state), (cells, filter)) in self.0.iter().zip(&mut acc.states).zip(&arguments.0) {
            if !call.counts_seen() && passes(filter) {
                state.fold(call.function, cells.as_ref(), row, weight);
            }
        }
        for (family, seen) in self.1.iter().zip(&mut acc.seen) {
            let Some(cells) = arguments.0[family.calls[0]].0.as_ref().filter(|cells| !cells.is_null(row)) else { continue };
            let mut bits = 0;
            for (bit, &call) in family.calls.iter().enumerate() {
                bits |= u32::from(passes(&arguments.0[call].1)) << bit;
            }
            let mut fresh = if bits == 0 { 0 } else { seen.see(cells, row, bits) };
            while fresh != 0 {
                if let State::Count(n) = &mut acc.states[family.calls[fresh.trailing_zeros() as usize]] {
                    *n += 1;
                }
                fresh &= fresh - 1;
            }
        }
    }

    /// Takes a row in whose arguments are single values: `argument` gives that of a call, none where the row does not count
    /// for it. Not for calls that count distinct values of rows that are never taken away.
    ///
    /// # Errors
    /// Of `argument`.
    pub(crate) fn fold_values(&self, acc: &mut Acc, mut argument: impl FnMut(usize) -> Result<Option<Value>>) -> Result<()> {
        acc.rows += 1;
        for (i, (call, state)) in self.0.iter().zip(&mut acc.states).enumerate() {
            if let Some(value) = argument(i)? {
                state.fold_value(call.function, value);
            }
        }
        Ok(())
    }

    /// Whether they only count rows, so that nothing of a row is looked at.
    pub(crate) fn only_count_rows(&self) -> bool {
        self.0.iter().all(|c| c.argument.is_none() && c.filter.is_none())
    }

    /// Takes a row in, for calls that only count rows.
    pub(crate) fn count_row(acc: &mut Acc) {
        acc.rows += 1;
        for state in &mut acc.states {
            if let State::Count(n) = state {
                *n += 1;
            }
        }
    }

    /// Takes in what was accumulated elsewhere.
    pub(crate) fn merge(&self, acc: &mut Acc, later: &Acc) {
        acc.rows += later.rows;
        for ((call, state), later) in self.0.iter().zip(&mut acc.states).zip(&later.states) {
            if !call.counts_seen() {
                state.merge(call.function, later);
            }
        }
        for ((family, seen), later) in self.1.iter().zip(&mut acc.seen).zip(&later.seen) {
            let counts = seen.merge(later);
            for (&call, count) in family.calls.iter().zip(counts) {
                if let State::Count(n) = &mut acc.states[call] {
                    *n += count;
                }
            }
        }
    }

    /// The results, one a call.
    pub(crate) fn results(&self, acc: &Acc) -> impl Iterator<Item = Value> {
        self.0.iter().zip(&acc.states).map(|(call, state)| call.finish(state))
    }

    /// Whether nothing is left in it.
    pub(crate) fn is_empty(acc: &Acc) -> bool {
        acc.rows == 0 && acc.states.iter().all(State::is_zero)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_round_half_away_from_zero() {
        assert_eq!(mean(100, 3, 2, 6), Some(333_333));
        assert_eq!(mean(-200, 3, 2, 6), Some(-666_667));
        assert_eq!(mean(5, 2, 0, 0), Some(3));
        assert_eq!(mean(i128::MAX, 2, 0, 6), None);
    }
}
