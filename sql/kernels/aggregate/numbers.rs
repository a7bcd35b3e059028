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

impl Number {
    /// In the words behind those that are taken, which it takes too.
    pub(super) fn new(what: What, kind: Kind, taken: &mut usize) -> Number {
        let at = *taken;
        // As wide as needed never to forget: BIGINT values add up without wrapping.
        *taken += if kind == Kind::Decimal || (what == What::Sum && kind == Kind::Int) { 2 } else { 1 };
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
                self.put_wide(words, self.wide(words).wrapping_add(v.wrapping_mul(i128::from(weight))));
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
            (What::Sum, _) => self.put_wide(words, self.wide(words).wrapping_add(self.wide(later))),
            (What::Least | What::Greatest, _) if any => self.fold(words, first, self.get(later), 1),
            (What::Least | What::Greatest, _) => {}
        }
    }

    /// A sum of whole numbers or decimals.
    #[inline]
    pub(super) fn wide(self, words: &[i64]) -> i128 {
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
