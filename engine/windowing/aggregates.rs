//! Aggregates that jobs need again and again, ready for [`aggregate_with`](crate::dsl::WindowedStream::aggregate_with).
//!
//! Several of them make one: a tuple of aggregates over the same rows is an aggregate with a tuple of results.
//!
//! ```
//! # use waterwheel_engine::dsl::{KeyedStream, mins};
//! # use waterwheel_engine::windowing::{Tumbling, aggregates::{count, max, mean}};
//! # #[derive(Clone)] struct Payment { amount: i64, fee: f64 }
//! # fn example(payments: KeyedStream<String, Payment>) {
//! let figures = payments
//!     .window(Tumbling::of(mins(1)))
//!     .aggregate_with((count(), max(|p: &Payment| p.amount), mean(|p: &Payment| p.fee)))
//!     .map(|w| format!("{}: {} payments, {} at most, {} mean fee", w.key, w.value.0, w.value.1, w.value.2));
//! # let _ = figures;
//! # }
//! ```
//!
//! Invariant: a value that cannot be represented is never shown: a sum that overflows is a bad record, or a bad result.

use super::HyperLogLog;
use super::kernel::{Accumulate, Aggregate};
use crate::record::{Data, Key};
use crate::state::StateValue;
use std::collections::BTreeSet;

/// A number that can be added up.
pub trait Number: Data + StateValue + Default {
    /// The sum; `None` when it cannot be represented.
    fn plus(&self, other: &Self) -> Option<Self>;
}

macro_rules! integers {
    ($($t:ty),*) => {$(
        impl Number for $t {
            fn plus(&self, other: &Self) -> Option<Self> { self.checked_add(*other) }
        }
    )*};
}
integers!(u8, u16, u32, u64, u128, i8, i16, i32, i64, i128);

macro_rules! floats {
    ($($t:ty),*) => {$(
        impl Number for $t {
            fn plus(&self, other: &Self) -> Option<Self> { Some(self + other) }
        }
    )*};
}
floats!(f32, f64);

/// How many rows there are.
pub fn count<T: Data>() -> impl Accumulate<Row = T, Acc = u64, Out = u64> {
    Aggregate::new(|| 0, |n: &mut u64, _: &T| *n += 1, |n: &mut u64, later: &u64| *n += later, |n: &u64| *n)
}

/// The sum. Of integers, one that overflows is a bad record; a sum of `f64` is as exact as those are.
pub fn sum<T: Data, N: Number>(of: impl Fn(&T) -> N + Send + Sync + 'static) -> impl Accumulate<Row = T, Acc = N, Out = N> {
    let add = |sum: &mut N, n: &N| match sum.plus(n) {
        Some(more) => *sum = more,
        None => panic!("the sum exceeds {}", std::any::type_name::<N>()),
    };
    Aggregate::new(N::default, move |sum: &mut N, row: &T| add(sum, &of(row)), add, N::clone)
}

/// The mean.
pub fn mean<T: Data>(of: impl Fn(&T) -> f64 + Send + Sync + 'static) -> impl Accumulate<Row = T, Acc = (f64, u64), Out = f64> {
    Aggregate::new(
        || (0.0, 0),
        move |acc: &mut (f64, u64), row: &T| *acc = (acc.0 + of(row), acc.1 + 1),
        |acc: &mut (f64, u64), later: &(f64, u64)| *acc = (acc.0 + later.0, acc.1 + later.1),
        |acc: &(f64, u64)| acc.0 / acc.1 as f64,
    )
}

/// One of the values: a later one takes the place of an earlier one if `better(later, earlier)`.
fn pick<T: Data, V: Data + StateValue>(
    of: impl Fn(&T) -> V + Send + Sync + 'static,
    better: impl Fn(&V, &V) -> bool + Copy + Send + Sync + 'static,
) -> impl Accumulate<Row = T, Acc = Option<V>, Out = V> {
    let take = move |acc: &mut Option<V>, value: V| {
        if acc.as_ref().is_none_or(|held| better(&value, held)) {
            *acc = Some(value);
        }
    };
    Aggregate::new(
        || None,
        move |acc: &mut Option<V>, row: &T| take(acc, of(row)),
        move |acc: &mut Option<V>, later: &Option<V>| {
            if let Some(value) = later {
                take(acc, value.clone());
            }
        },
        |acc: &Option<V>| match acc {
            Some(value) => value.clone(),
            None => unreachable!("a window that fires has rows"),
        },
    )
}

/// Whether a value compares with others at all: NaN does not.
fn counts<V: PartialOrd>(value: &V) -> bool {
    value.partial_cmp(value).is_some()
}

/// The smallest value; of equal ones the first. NaN only if there is nothing else.
pub fn min<T: Data, V: Data + StateValue + PartialOrd>(
    of: impl Fn(&T) -> V + Send + Sync + 'static,
) -> impl Accumulate<Row = T, Acc = Option<V>, Out = V> {
    pick(of, |value, held| value < held || (!counts(held) && counts(value)))
}

/// The largest value; of equal ones the first. NaN only if there is nothing else.
pub fn max<T: Data, V: Data + StateValue + PartialOrd>(
    of: impl Fn(&T) -> V + Send + Sync + 'static,
) -> impl Accumulate<Row = T, Acc = Option<V>, Out = V> {
    pick(of, |value, held| value > held || (!counts(held) && counts(value)))
}

/// The value of the first row: of the earliest slice, by arrival within it. For the first by event time, take the
/// [`min`] of a pair of time and value.
pub fn first<T: Data, V: Data + StateValue>(
    of: impl Fn(&T) -> V + Send + Sync + 'static,
) -> impl Accumulate<Row = T, Acc = Option<V>, Out = V> {
    pick(of, |_, _| false)
}

/// The value of the last row: of the latest slice, by arrival within it.
pub fn last<T: Data, V: Data + StateValue>(
    of: impl Fn(&T) -> V + Send + Sync + 'static,
) -> impl Accumulate<Row = T, Acc = Option<V>, Out = V> {
    pick(of, |_, _| true)
}

/// All rows: slice by slice, by arrival within them.
pub fn collect<T: Data + StateValue>() -> impl Accumulate<Row = T, Acc = Vec<T>, Out = Vec<T>> {
    Aggregate::new(
        Vec::new,
        |all: &mut Vec<T>, row: &T| all.push(row.clone()),
        |all: &mut Vec<T>, later: &Vec<T>| all.extend_from_slice(later),
        Vec::clone,
    )
}

/// The `n` rows that are the highest by `by`, highest first; of equal ones those that [`collect`] has first.
///
/// ```
/// use waterwheel_engine::windowing::{Accumulate, aggregates::top};
/// let largest = top(2, |amount: &i64| *amount);
/// let mut acc = largest.create();
/// [3, 9, 4, 7].iter().for_each(|amount| largest.accumulate(&mut acc, amount));
/// assert_eq!(largest.finish(&acc), [9, 7]);
/// ```
pub fn top<T: Data + StateValue, O: Ord>(
    n: usize,
    by: impl Fn(&T) -> O + Send + Sync + 'static,
) -> impl Accumulate<Row = T, Acc = Vec<T>, Out = Vec<T>> {
    let take = std::sync::Arc::new(move |best: &mut Vec<T>, row: &T| {
        let rank = by(row);
        if n > 0 && (best.len() < n || best.last().is_some_and(|lowest| by(lowest) < rank)) {
            best.truncate(n - 1);
            let at = best.partition_point(|held| by(held) >= rank);
            best.insert(at, row.clone());
        }
    });
    let merge = take.clone();
    Aggregate::new(
        Vec::new,
        move |best: &mut Vec<T>, row: &T| take(best, row),
        move |best: &mut Vec<T>, later: &Vec<T>| later.iter().for_each(|row| merge(best, row)),
        Vec::clone,
    )
}

/// How many different values there are, exactly: keeps each of them.
pub fn count_distinct<T: Data, V: Data + StateValue + Ord>(
    of: impl Fn(&T) -> V + Send + Sync + 'static,
) -> impl Accumulate<Row = T, Acc = BTreeSet<V>, Out = u64> {
    Aggregate::new(
        BTreeSet::new,
        move |seen: &mut BTreeSet<V>, row: &T| {
            seen.insert(of(row));
        },
        |seen: &mut BTreeSet<V>, later: &BTreeSet<V>| seen.extend(later.iter().cloned()),
        |seen: &BTreeSet<V>| seen.len() as u64,
    )
}

/// About how many different values there are: standard error 1.6 %, 4 KiB a window at most. See [`HyperLogLog`].
pub fn approx_count_distinct<T: Data, V: Key>(
    of: impl Fn(&T) -> V + Send + Sync + 'static,
) -> impl Accumulate<Row = T, Acc = HyperLogLog, Out = u64> {
    Aggregate::new(
        HyperLogLog::default,
        move |seen: &mut HyperLogLog, row: &T| seen.insert(&of(row)),
        |seen: &mut HyperLogLog, later: &HyperLogLog| seen.merge(later),
        HyperLogLog::estimate,
    )
}

macro_rules! tuples {
    ($head:ident $($name:ident $i:tt),+) => {
        impl<$head: Accumulate, $($name: Accumulate<Row = $head::Row>),+> Accumulate for ($head, $($name),+) {
            type Row = $head::Row;
            type Acc = ($head::Acc, $($name::Acc),+);
            type Out = ($head::Out, $($name::Out),+);

            fn create(&self) -> Self::Acc {
                (self.0.create(), $(self.$i.create()),+)
            }
            fn accumulate(&self, acc: &mut Self::Acc, row: &Self::Row) {
                self.0.accumulate(&mut acc.0, row);
                $(self.$i.accumulate(&mut acc.$i, row);)+
            }
            fn merge(&self, acc: &mut Self::Acc, later: &Self::Acc) {
                self.0.merge(&mut acc.0, &later.0);
                $(self.$i.merge(&mut acc.$i, &later.$i);)+
            }
            fn finish(&self, acc: &Self::Acc) -> Self::Out {
                (self.0.finish(&acc.0), $(self.$i.finish(&acc.$i)),+)
            }
        }
    };
}
tuples!(A B 1);
tuples!(A B 1, C 2);
tuples!(A B 1, C 2, D 3);
tuples!(A B 1, C 2, D 3, E 4);
tuples!(A B 1, C 2, D 3, E 4, F 5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operators::guarded_call;
    use proptest::prelude::*;

    /// The result over rows that came in slices.
    fn run<G: Accumulate>(aggregate: &G, slices: &[Vec<G::Row>]) -> G::Out {
        let mut parts = slices.iter().map(|rows| {
            let mut acc = aggregate.create();
            rows.iter().for_each(|row| aggregate.accumulate(&mut acc, row));
            acc
        });
        let mut acc = parts.next().unwrap();
        parts.for_each(|part| aggregate.merge(&mut acc, &part));
        aggregate.finish(&acc)
    }

    proptest! {
        #[test]
        fn aggregates_are_what_their_names_say(slices in proptest::collection::vec(proptest::collection::vec(-9i64..9, 1..6), 1..5)) {
            let all: Vec<i64> = slices.concat();
            let value = |n: &i64| *n;
            let basics = (count(), sum(value), min(value), max(value), first(value), last(value));
            let expect = (
                all.len() as u64,
                all.iter().sum::<i64>(),
                *all.iter().min().unwrap(),
                *all.iter().max().unwrap(),
                all[0],
                all[all.len() - 1],
            );
            prop_assert_eq!(run(&basics, &slices), expect);
            let mean = run(&mean(|n: &i64| *n as f64), &slices);
            prop_assert!((mean - all.iter().sum::<i64>() as f64 / all.len() as f64).abs() < 1e-9);
            let different = all.iter().collect::<BTreeSet<_>>().len() as u64;
            prop_assert_eq!(run(&(count_distinct(value), approx_count_distinct(value)), &slices), (different, different));
            prop_assert_eq!(run(&collect(), &slices), all.clone());
            // Ranked by the tens, so that there are ties: a stable sort keeps the first.
            let mut best = all;
            best.sort_by_key(|n| std::cmp::Reverse(n / 3));
            best.truncate(3);
            prop_assert_eq!(run(&top(3, |n: &i64| n / 3), &slices), best);
        }

        /// NaN never hides a number, wherever it stands.
        #[test]
        fn nan_counts_only_alone(mut values in proptest::collection::vec(prop_oneof![Just(f64::NAN), -5.0f64..5.0], 1..8)) {
            let (low, high) = run(&(min(|v: &f64| *v), max(|v: &f64| *v)), &[values.clone()]);
            values.retain(|v| !v.is_nan());
            if values.is_empty() {
                prop_assert!(low.is_nan() && high.is_nan());
            } else {
                prop_assert_eq!(low, values.iter().copied().fold(f64::INFINITY, f64::min));
                prop_assert_eq!(high, values.iter().copied().fold(f64::NEG_INFINITY, f64::max));
            }
        }
    }

    #[test]
    fn a_sum_that_overflows_is_no_sum() {
        let total = sum(|n: &i64| *n);
        let mut acc = i64::MAX;
        let error = guarded_call(|| total.accumulate(&mut acc, &1)).unwrap_err();
        assert!(error.contains("the sum exceeds i64"), "{error}");
        assert_eq!(acc, i64::MAX);
    }

    #[test]
    fn none_of_the_top_is_nothing() {
        assert_eq!(run(&top(0, |n: &i64| *n), &[vec![1, 2]]), Vec::<i64>::new());
    }
}
