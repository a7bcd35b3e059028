//! Aggregates as sums with signs: what each function keeps, how a row is taken in and out, how two parts merge.
//!
//! Counts, sums and extremes are words of one array ([`numbers`]). Over an input that only grows, MIN and MAX keep one value and
//! float sums are plain. Over one that shrinks too, and for DISTINCT, a multiset keeps every value with its signed count, and the
//! result is worked out from it ([`state`]): float addition cannot be undone, and a MIN that goes leaves the next one.
//!
//! Invariant: the state after any sequence of rows taken in and out depends on their sum alone (for floats that only come in,
//! and for functions of the order of arrival, on their order too).

mod call;
mod layout;
mod numbers;
mod own;
mod state;

pub(crate) use call::{Argument, Call, Function, OwnCall};

use super::calc::evaluate;
use super::distinct::Seen;
use super::value::{Cells, Value};
use arrow::array::{Array, AsArray};
use arrow::buffer::BooleanBuffer;
use datafusion_physical_expr::PhysicalExpr;
use layout::{Layout, Place};
use numbers::Single;
use serde::{Deserialize, Serialize};
use state::State;
use std::sync::Arc;
use waterwheel_engine::error::Result;
use waterwheel_engine::operators::RowError;
use waterwheel_engine::operators::over::Called;
use waterwheel_engine::record::ChangeBatch;

/// What is kept per key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Acc {
    /// Signed count of rows.
    pub(crate) rows: i64,
    /// Numbers of all calls.
    words: Box<[i64]>,
    /// Of calls that keep more than numbers.
    rest: Option<Box<Rest>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Rest {
    states: Vec<State>,
    /// One a family.
    seen: Vec<Seen>,
}

/// The calls of one aggregate node.
#[derive(Debug, Clone)]
pub(crate) struct Calls(Arc<Layout>);

/// Arguments and filters of a batch.
#[derive(Debug, Clone)]
pub(crate) struct Arguments {
    inputs: Vec<Given>,
    /// Of each function of the user's.
    own: Vec<Vec<Cells>>,
}

/// What an input is given of a batch.
#[derive(Debug, Clone)]
struct Given {
    cells: Option<Cells>,
    /// Rows that pass; none = all.
    passing: Option<BooleanBuffer>,
}

impl Given {
    #[inline]
    fn passes(&self, row: usize) -> bool {
        self.passing.as_ref().is_none_or(|passing| passing.value(row))
    }

    #[inline]
    fn has_value(&self, row: usize) -> bool {
        self.cells.as_ref().is_none_or(|cells| !cells.is_null(row))
    }
}

impl Calls {
    pub(crate) fn new(calls: Vec<Call>) -> Self {
        Calls(Arc::new(Layout::of(calls)))
    }

    /// One after the other.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Call> {
        self.0.calls.iter()
    }

    /// For the description that state is checked against.
    pub(crate) fn describe(&self) -> String {
        self.iter().map(Call::describe).collect::<Vec<_>>().join(", ")
    }

    /// Evaluates what the calls need of a batch.
    ///
    /// # Errors
    /// As [`evaluate`].
    pub(crate) fn arguments(&self, batch: &ChangeBatch, failed: &mut Vec<RowError>) -> Result<Arguments> {
        let calls = || self.0.inputs.iter().map(|input| &self.0.calls[input.call]);
        let exprs: Vec<Arc<dyn PhysicalExpr>> =
            calls().flat_map(|c| c.argument.iter().map(|a| &a.expr).chain(&c.filter)).chain(self.own_exprs()).cloned().collect();
        let (columns, bad) = evaluate(&exprs, batch)?;
        failed.extend(bad);
        let mut columns = columns.into_iter();
        let columns = &mut columns;
        let given = calls().map(|call| {
            let cells = call.argument.as_ref().and_then(|_| columns.next()).map(|a| Cells::of(&a)).transpose()?;
            let passing = call.filter.as_ref().and_then(|_| columns.next()).map(|filter| {
                let filter = filter.as_boolean();
                filter.nulls().map_or_else(|| filter.values().clone(), |valid| filter.values() & valid.inner())
            });
            Ok(Given { cells, passing })
        });
        let inputs = given.collect::<Result<Vec<_>>>()?;
        Ok(Arguments { inputs, own: self.own_cells(columns)? })
    }

    /// The accumulator of no rows.
    pub(crate) fn create(&self) -> Acc {
        self.0.create()
    }

    /// Takes a row in (weight 1) or out (-1).
    ///
    /// # Errors
    /// Of a function of the user's; the row is taken in by no call.
    pub(crate) fn fold(&self, acc: &mut Acc, arguments: &Arguments, row: usize, weight: i64) -> Called {
        if self.can_fail() {
            self.fold_own(acc, arguments, row, weight)?;
        }
        acc.rows += weight;
        for (input, given) in self.0.inputs.iter().zip(&arguments.inputs) {
            if !given.passes(row) {
                continue;
            }
            if given.has_value(row) {
                input.fold(&mut acc.words, given.cells.as_ref().and_then(|cells| Single::of(cells, row)), weight);
            }
            let (Some(rest), Some(cells)) = (&mut acc.rest, &given.cells) else { continue };
            for &(call, state) in &input.states {
                let function = self.0.calls[call].function;
                if given.has_value(row) || function.takes_nulls() {
                    rest.states[state].fold(function, cells, row, weight);
                }
            }
        }
        if let Some(rest) = &mut acc.rest {
            self.see(&mut acc.words, &mut rest.seen, arguments, row);
        }
        Ok(())
    }

    /// Notes the values of a row that is never taken away.
    fn see(&self, words: &mut [i64], seen: &mut [Seen], arguments: &Arguments, row: usize) {
        for (family, seen) in self.0.families.iter().zip(seen) {
            let given = |bit: usize| &arguments.inputs[family.calls[bit].0];
            let Some(cells) = given(0).cells.as_ref().filter(|cells| !cells.is_null(row)) else { continue };
            let bits = (0..family.calls.len()).fold(0, |bits, bit| bits | u32::from(given(bit).passes(row)) << bit);
            let mut fresh = if bits == 0 { 0 } else { seen.see(cells, row, bits) };
            while fresh != 0 {
                words[family.calls[fresh.trailing_zeros() as usize].1] += 1;
                fresh &= fresh - 1;
            }
        }
    }

    /// Takes a row in whose arguments are single values: `argument` gives that of a call, none where the row does not count
    /// for it, and `own` those of a call of a function of the user's. Not for calls that count distinct values of rows that are
    /// never taken away.
    ///
    /// # Errors
    /// Of `argument` and `own`; within, of a function of the user's: the row is taken in by no call.
    pub(crate) fn fold_values(
        &self,
        acc: &mut Acc,
        mut argument: impl FnMut(usize) -> Result<Option<Value>>,
        own: impl FnMut(usize) -> Result<Option<Vec<Value>>>,
    ) -> Result<Called> {
        if self.can_fail()
            && let Err(why) = self.fold_own_values(acc, own)?
        {
            return Ok(Err(why));
        }
        acc.rows += 1;
        for input in &self.0.inputs {
            let Some(value) = argument(input.call)? else { continue };
            let is_null = matches!(value, Value::Null);
            if !is_null {
                input.fold(&mut acc.words, Single::of_value(&value), 1);
            }
            let Some(rest) = &mut acc.rest else { continue };
            for &(call, state) in &input.states {
                let function = self.0.calls[call].function;
                if !is_null || function.takes_nulls() {
                    rest.states[state].fold_value(function, &value);
                }
            }
        }
        Ok(Ok(()))
    }

    /// Whether they only count rows, so that nothing of a row is looked at.
    pub(crate) fn only_count_rows(&self) -> bool {
        self.0.places.iter().all(|place| matches!(place, Place::Rows))
    }

    /// Whether they keep numbers alone, so that an accumulator is small whatever it has taken in.
    pub(crate) fn are_numbers(&self) -> bool {
        self.0.stateful.is_empty() && self.0.families.is_empty()
    }

    /// Takes in what was accumulated elsewhere, of later rows.
    ///
    /// # Errors
    /// Of a function of the user's.
    pub(crate) fn merge(&self, acc: &mut Acc, later: &Acc) -> Called {
        self.merge_own(acc, later)?;
        acc.rows += later.rows;
        for input in &self.0.inputs {
            let Some(count) = input.count else { continue };
            let (first, any) = (acc.words[count] == 0, later.words[count] != 0);
            input.numbers.iter().for_each(|number| number.merge(&mut acc.words, first, &later.words, any));
            acc.words[count] += later.words[count];
        }
        let (Some(rest), Some(later)) = (&mut acc.rest, &later.rest) else { return Ok(()) };
        let states = self.0.stateful.iter().zip(&mut rest.states).zip(&later.states);
        for ((&call, state), later) in states.filter(|((call, _), _)| self.0.calls[**call].own.is_none()) {
            state.merge(self.0.calls[call].function, later);
        }
        for ((family, seen), later) in self.0.families.iter().zip(&mut rest.seen).zip(&later.seen) {
            let counts = seen.merge(later);
            family.calls.iter().zip(counts).for_each(|(&(_, word), count)| acc.words[word] += count);
        }
        Ok(())
    }

    /// The results, one a call; of functions of the user's NULL, because they may fail.
    pub(crate) fn results<'a>(&'a self, acc: &'a Acc) -> impl Iterator<Item = Value> + use<'a> {
        self.iter().zip(&self.0.places).map(|(call, place)| match *place {
            Place::Rows => Value::Int(acc.rows),
            Place::Count(word) => Value::Int(acc.words[word]),
            Place::Number { number, count } => call.read(number, &acc.words, acc.words[count]),
            Place::State(state) => acc.rest.as_ref().map_or(Value::Null, |rest| call.finish(&rest.states[state])),
        })
    }

    /// Whether nothing is left in it.
    pub(crate) fn is_empty(&self, acc: &Acc) -> bool {
        let is_zero = |(call, state): (&usize, &State)| state.is_zero(&self.0.calls[*call]);
        acc.rows == 0
            && acc.words.iter().all(|word| *word == 0)
            && acc.rest.as_ref().is_none_or(|rest| self.0.stateful.iter().zip(&rest.states).all(is_zero))
    }
}

impl Acc {
    /// Takes a row in, for calls that only count rows.
    #[inline]
    pub(crate) fn count_row(&mut self) {
        self.rows += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::value::Class;
    use arrow::array::{ArrayRef, BooleanArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion_physical_expr::expressions::Column;
    use proptest::prelude::*;
    use waterwheel_engine::record::record_batch;
    use waterwheel_engine::time::EventTime;

    const FUNCTIONS: [Function; 5] = [Function::Count, Function::Sum, Function::Min, Function::Max, Function::Avg];

    /// COUNT(*), then each function of a column of numbers, with and without a filter.
    fn calls(retracting: bool) -> Calls {
        let column = |name: &str, at: usize| -> Arc<dyn PhysicalExpr> { Arc::new(Column::new(name, at)) };
        let argument = || Some(Argument { expr: column("n", 0), kind: DataType::Int64, class: Class::Int, column: 0 });
        let (separator, output): (Arc<str>, _) = ("".into(), DataType::Int64);
        let call = |function, argument, filter| Call {
            function,
            argument,
            own: None,
            filter,
            distinct: false,
            retracting,
            separator: separator.clone(),
            output: output.clone(),
        };
        let filters = [None, Some(column("f", 1))];
        let of_column = filters.iter().flat_map(|filter| FUNCTIONS.map(|function| call(function, argument(), filter.clone())));
        Calls::new([call(Function::Count, None, None)].into_iter().chain(of_column).collect())
    }

    type Row = (Option<i64>, Option<bool>);

    fn arguments(calls: &Calls, rows: &[Row]) -> Arguments {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|row| row.1).collect::<BooleanArray>()),
        ];
        let fields = vec![Field::new("n", DataType::Int64, true), Field::new("f", DataType::Boolean, true)];
        let columns = record_batch(Arc::new(Schema::new(fields)), columns, rows.len()).unwrap();
        calls.arguments(&ChangeBatch::inserts(columns, vec![EventTime(0); rows.len()]), &mut Vec::new()).unwrap()
    }

    fn naive(rows: &[Row]) -> Vec<Option<i64>> {
        let mut results = vec![Some(rows.len() as i64)];
        for filtered in [false, true] {
            let values: Vec<i64> = rows.iter().filter(|row| !filtered || row.1 == Some(true)).filter_map(|row| row.0).collect();
            let sum: i128 = values.iter().map(|v| i128::from(*v)).sum();
            let any = |v: i128| (!values.is_empty()).then_some(v as i64);
            let mean = any(sum.checked_div(values.len() as i128).unwrap_or(0));
            results.extend([Some(values.len() as i64), any(sum), values.iter().min().copied(), values.iter().max().copied(), mean]);
        }
        results
    }

    fn results(calls: &Calls, acc: &Acc) -> Vec<Option<i64>> {
        calls.results(acc).map(|value| if let Value::Int(n) = value { Some(n) } else { None }).collect()
    }

    fn folded(calls: &Calls, rows: &[Row], weight: i64, acc: &mut Acc) {
        let arguments = arguments(calls, rows);
        (0..rows.len()).try_for_each(|row| calls.fold(acc, &arguments, row, weight)).unwrap();
    }

    proptest! {
        #[test]
        fn shared_numbers_are_what_each_call_gives(
            rows in proptest::collection::vec((proptest::option::of(prop_oneof![any::<i64>(), -3..3i64]), proptest::option::of(any::<bool>())), 0..8),
            at in 0..8usize,
        ) {
            for retracting in [false, true] {
                let calls = calls(retracting);
                prop_assert_eq!(calls.are_numbers(), !retracting);
                let (early, late) = rows.split_at(at.min(rows.len()));
                let (mut acc, mut later) = (calls.create(), calls.create());
                folded(&calls, early, 1, &mut acc);
                folded(&calls, late, 1, &mut later);
                calls.merge(&mut acc, &later).unwrap();
                prop_assert_eq!(results(&calls, &acc), naive(&rows));
                if retracting {
                    folded(&calls, early, -1, &mut acc);
                    prop_assert_eq!(results(&calls, &acc), naive(late));
                    folded(&calls, late, -1, &mut acc);
                    prop_assert!(calls.is_empty(&acc));
                }
            }
        }
    }
}
