//! Counts, sums and extremes of fixed width: the numbers of all calls of a node, one behind the other in words.
//!
//! Calls that look at the same rows (column and filter) share what they can: AVG and SUM one sum, all of them one count.
//!
//! Invariant: words of no rows are all 0; after rows that were taken in and out again they are all 0 again (sums of floats,
//! and extremes, are of rows that only come in).

use crate::kernels::value::{Cells, Value};
use std::cmp::Ordering;

/// A number in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number {
    what: What,
    kind: Kind,
    /// Its first word.
    at: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Sum,
    Least,
    Greatest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int,
    Float,
    Decimal,
}

/// One value that is a number.
#[derive(Debug, Clone, Copy)]
pub(super) enum Single {
    Bool(bool),
    Int(i64),
    Float(f64),
    Decimal(i128),
}

impl Single {
    /// That of a row, which is not NULL; none of texts and the like.
    #[inline]
    pub(super) fn of(cells: &Cells, row: usize) -> Option<Single> {
        match cells {
            Cells::Int(a) => Some(Single::Int(a.value(row))),
            Cells::Float(a) => Some(Single::Float(a.value(row))),
            Cells::Decimal(a) => Some(Single::Decimal(a.value(row))),
            Cells::Bool(a) => Some(Single::Bool(a.value(row))),
            Cells::Text(_) | Cells::Bytes(_) => None,
        }
    }

    pub(super) fn of_value(value: &Value) -> Option<Single> {
        match value {
            Value::Int(v) => Some(Single::Int(*v)),
            Value::Float(v) => Some(Single::Float(*v)),
            Value::Decimal(v) => Some(Single::Decimal(*v)),
            Value::Bool(v) => Some(Single::Bool(*v)),
            Value::Null | Value::Text(_) | Value::Bytes(_) => None,
        }
    }

    fn value(self) -> Value {
        match self {
            Single::Bool(v) => Value::Bool(v),
            Single::Int(v) => Value::Int(v),
            Single::Float(v) => Value::Float(v),
            Single::Decimal(v) => Value::Decimal(v),
        }
    }

    /// The order of [`Value::total_cmp`].
    #[inline]
    fn compare(self, other: Single) -> Ordering {
        match (self, other) {
            (Single::Int(a), Single::Int(b)) => a.cmp(&b),
            (a, b) => a.value().total_cmp(&b.value()),
        }
    }
}

/// A sum of decimals that never wraps: 192 bits, more than the largest decimals need that can be counted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Long {
    low: u128,
    high: i64,
}

impl Long {
    /// Adds a value so many times.
    #[inline]
    pub(super) fn add(&mut self, value: i128, times: i64) {
        self.plus(if times == 1 { Long { low: value as u128, high: (value >> 127) as i64 } } else { Long::product(value, times) });
    }

    fn product(value: i128, times: i64) -> Long {
        // The upper half with its sign, and the lower one, each of them times `times`.
        let (upper, lower) = ((value >> 64) * i128::from(times), i128::from(value as u64) * i128::from(times));
        let upper = upper + (lower >> 64);
        Long { low: ((upper as u128) << 64) | u128::from(lower as u64), high: (upper >> 64) as i64 }
    }

    #[inline]
    fn plus(&mut self, other: Long) {
        let (low, carry) = self.low.overflowing_add(other.low);
        *self = Long { low, high: self.high.wrapping_add(other.high).wrapping_add(i64::from(carry)) };
    }

    /// The sum, if it is no longer than a decimal may be at most in memory.
    pub(super) fn short(self) -> Option<i128> {
        let short = self.low as i128;
        (self.high == (short >> 127) as i64).then_some(short)
    }
}

impl Number {
    /// In the words behind those that are taken, which it takes too.
    pub(super) fn new(what: What, kind: Kind, taken: &mut usize) -> Number {
        let at = *taken;
        // As wide as needed never to forget: values add up without wrapping.
        *taken += match (what, kind) {
            (What::Sum, Kind::Decimal) => 3,
            (What::Sum, Kind::Int) | (_, Kind::Decimal) => 2,
            _ => 1,
        };
        Number { what, kind, at }
    }

    /// Whether it is that number, wherever it is.
    pub(super) fn is(self, what: What, kind: Kind) -> bool {
        (self.what, self.kind) == (what, kind)
    }

    /// Takes a value in or out; `first` = there is none so far.
    #[inline]
    pub(super) fn fold(self, words: &mut [i64], first: bool, value: Single, weight: i64) {
        match (self.what, value) {
            (What::Sum, Single::Int(v)) => self.put_wide(words, self.wide(words) + i128::from(v) * i128::from(weight)),
            (What::Sum, Single::Decimal(v)) => {
                let mut sum = self.long(words);
                sum.add(v, weight);
                self.put_long(words, sum);
            }
            (What::Sum, Single::Float(v)) => self.put(words, Single::Float(self.float(words) + v * weight as f64)),
            // What is no number has no sum.
            (What::Sum, Single::Bool(_)) => {}
            (What::Least, value) if first || value.compare(self.get(words)).is_lt() => self.put(words, value),
            (What::Greatest, value) if first || value.compare(self.get(words)).is_gt() => self.put(words, value),
            (What::Least | What::Greatest, _) => {}
        }
    }

    /// Takes in what later words hold; `first` = there is no value so far, `any` = there is one in the later ones.
    #[inline]
    pub(super) fn merge(self, words: &mut [i64], first: bool, later: &[i64], any: bool) {
        match (self.what, self.kind) {
            (What::Sum, Kind::Float) => self.put(words, Single::Float(self.float(words) + self.float(later))),
            (What::Sum, Kind::Decimal) => {
                let mut sum = self.long(words);
                sum.plus(self.long(later));
                self.put_long(words, sum);
            }
            (What::Sum, _) => self.put_wide(words, self.wide(words).wrapping_add(self.wide(later))),
            (What::Least | What::Greatest, _) if any => self.fold(words, first, self.get(later), 1),
            (What::Least | What::Greatest, _) => {}
        }
    }

    /// A sum of whole numbers or decimals; none if it is longer than any decimal.
    pub(super) fn sum(self, words: &[i64]) -> Option<i128> {
        if self.kind == Kind::Decimal { self.long(words).short() } else { Some(self.wide(words)) }
    }

    #[inline]
    fn long(self, words: &[i64]) -> Long {
        Long { low: self.wide(words) as u128, high: words[self.at + 2] }
    }

    #[inline]
    fn put_long(self, words: &mut [i64], sum: Long) {
        self.put_wide(words, sum.low as i128);
        words[self.at + 2] = sum.high;
    }

    #[inline]
    fn wide(self, words: &[i64]) -> i128 {
        (i128::from(words[self.at + 1]) << 64) | i128::from(words[self.at] as u64)
    }

    /// A sum of floats.
    pub(super) fn float(self, words: &[i64]) -> f64 {
        f64::from_bits(words[self.at] as u64)
    }

    /// An extreme.
    pub(super) fn value(self, words: &[i64]) -> Value {
        self.get(words).value()
    }

    #[inline]
    fn get(self, words: &[i64]) -> Single {
        match self.kind {
            Kind::Bool => Single::Bool(words[self.at] != 0),
            Kind::Int => Single::Int(words[self.at]),
            Kind::Float => Single::Float(self.float(words)),
            Kind::Decimal => Single::Decimal(self.wide(words)),
        }
    }

    #[inline]
    fn put(self, words: &mut [i64], value: Single) {
        match value {
            Single::Bool(v) => words[self.at] = i64::from(v),
            Single::Int(v) => words[self.at] = v,
            Single::Float(v) => words[self.at] = v.to_bits() as i64,
            Single::Decimal(v) => self.put_wide(words, v),
        }
    }

    #[inline]
    fn put_wide(self, words: &mut [i64], value: i128) {
        words[self.at] = value as i64;
        words[self.at + 1] = (value >> 64) as i64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However long the way: a sum that fits is the sum, and one that does not is none.
        #[test]
        fn sums_of_decimals_never_wrap(
            values in proptest::collection::vec((prop_oneof![any::<i128>(), -9i128..9, Just(i128::MAX), Just(i128::MIN)], -3i64..4), 0..20),
        ) {
            let mut sum = Long::default();
            values.iter().for_each(|(value, times)| sum.add(*value, *times));
            // By halves, which fit many times over.
            let halves = values.iter().map(|(v, times)| ((v >> 64) * i128::from(*times), i128::from(*v as u64) * i128::from(*times)));
            let (upper, lower) = halves.fold((0i128, 0i128), |all, half| (all.0 + half.0, all.1 + half.1));
            let upper = upper + (lower >> 64);
            let expected = i64::try_from(upper).ok().map(|upper| (i128::from(upper) << 64) | i128::from(lower as u64));
            prop_assert_eq!(sum.short(), expected);
            values.iter().for_each(|(value, times)| sum.add(*value, -*times));
            prop_assert_eq!((sum.low, sum.high), (0, 0));
        }
    }

    #[test]
    fn a_value_may_be_taken_as_often_as_can_be_counted() {
        for value in [i128::MAX, i128::MIN, -1, 1] {
            let mut sum = Long::default();
            for times in [i64::MAX, i64::MIN, 1] {
                sum.add(value, times);
            }
            assert_eq!(sum.short(), Some(0), "{value}");
        }
    }
}
