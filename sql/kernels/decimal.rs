//! Decimals as Flink computes with them: exact, then rounded half away from zero to the digits of the result's type.
//!
//! What lies between is as long as it has to be: 128 bits where that is enough, else 256, which hold a product of any two
//! decimals.
//!
//! Invariant: a result is the number of its type that is nearest to the exact one; one that is too long for its type is none,
//! which is NULL in Flink.

use arrow::datatypes::i256;

/// Digits that a decimal has at most.
const MOST: i32 = 38;

/// Digits behind the point that stay where there are too many before and behind it.
const LEAST_SCALE: i32 = 6;

/// How long the numbers of a type are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Digits {
    /// All digits, 1 to 38.
    pub(crate) precision: u8,
    /// Those of them behind the point.
    pub(crate) scale: u8,
}

/// What is computed of two decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    /// The rest of a division to a whole number; it has the sign of the first.
    Modulo,
}

impl Operation {
    /// The type of the result, by Flink's rules.
    pub(crate) fn digits(self, a: Digits, b: Digits) -> Digits {
        let [p1, s1, p2, s2] = [a.precision, a.scale, b.precision, b.scale].map(i32::from);
        let (whole1, whole2) = (p1 - s1, p2 - s2);
        let (precision, scale) = match self {
            Operation::Add | Operation::Subtract => (whole1.max(whole2) + s1.max(s2) + 1, s1.max(s2)),
            Operation::Multiply => (p1 + p2 + 1, s1 + s2),
            Operation::Divide => {
                let scale = (s1 + p2 + 1).max(LEAST_SCALE);
                (whole1 + s2 + scale, scale)
            }
            Operation::Modulo => (whole1.min(whole2) + s1.max(s2), s1.max(s2)),
        };
        let scale = match precision {
            fits if fits <= MOST => scale,
            // The digits before the point matter more.
            _ => (MOST - (precision - scale)).max(scale.min(LEAST_SCALE)),
        };
        Digits { precision: precision.clamp(1, MOST) as u8, scale: scale as u8 }
    }
}

/// An operation on decimals of two types, into a third one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arithmetic {
    operation: Operation,
    /// What each of the two is multiplied by first, so that both have one scale, or the quotient that of the result.
    factors: [i256; 2],
    /// What the exact result is divided by in the end.
    divisor: i256,
    /// The same, where 128 bits are enough.
    short: Option<([i128; 2], i128)>,
    /// The factors, where the result of any two numbers fits its type as it is.
    fitting: Option<[i128; 2]>,
    /// The first number that is too long for the result.
    limit: u128,
}

impl Arithmetic {
    /// None where the types are none of [`Operation::digits`].
    pub(crate) fn new(operation: Operation, a: Digits, b: Digits, result: Digits) -> Option<Arithmetic> {
        let [s1, s2, scale] = [a.scale, b.scale, result.scale].map(i32::from);
        let common = s1.max(s2);
        let [left, right, down] = match operation {
            Operation::Add | Operation::Subtract | Operation::Modulo => [common - s1, common - s2, common - scale],
            Operation::Multiply => [0, 0, s1 + s2 - scale],
            Operation::Divide => [scale - s1 + s2, 0, 0],
        };
        let (left, right, divisor) = (power(left)?, power(right)?, power(down)?);
        let short = || Some(([left.to_i128()?, right.to_i128()?], divisor.to_i128()?));
        let limit = 10u128.checked_pow(u32::from(result.precision))?;
        let mut arithmetic = Arithmetic { operation, factors: [left, right], divisor, short: short(), fitting: None, limit };
        // A type of fewer digits than there may be has all of them.
        if i32::from(result.precision) < MOST && down == 0 && !arithmetic.divides() {
            arithmetic.fitting = arithmetic.short.map(|(factors, _)| factors);
        }
        Some(arithmetic)
    }

    /// Whether nothing can be computed with 0 on the right.
    pub(crate) fn divides(&self) -> bool {
        matches!(self.operation, Operation::Divide | Operation::Modulo)
    }

    /// The result, without its point; none if it is too long, and of a division by zero.
    #[inline]
    pub(crate) fn compute(&self, a: i128, b: i128) -> Option<i128> {
        let Some([left, right]) = self.fitting else { return self.checked(a, b) };
        let (x, y) = (a.wrapping_mul(left), b.wrapping_mul(right));
        match self.operation {
            Operation::Add => Some(x.wrapping_add(y)),
            Operation::Subtract => Some(x.wrapping_sub(y)),
            Operation::Multiply => Some(x.wrapping_mul(y)),
            Operation::Divide | Operation::Modulo => self.checked(a, b),
        }
    }

    fn checked(&self, a: i128, b: i128) -> Option<i128> {
        let result = self.shortly(a, b).or_else(|| self.at_length(a, b)?.to_i128());
        result.filter(|result| result.unsigned_abs() < self.limit)
    }

    /// None where 128 bits are too few, too.
    fn shortly(&self, a: i128, b: i128) -> Option<i128> {
        let ([left, right], divisor) = self.short?;
        let (a, b) = (a.checked_mul(left)?, b.checked_mul(right)?);
        let exact = match self.operation {
            Operation::Add => a.checked_add(b)?,
            Operation::Subtract => a.checked_sub(b)?,
            Operation::Multiply => a.checked_mul(b)?,
            Operation::Divide => return nearest_short(a, b),
            Operation::Modulo => return a.checked_rem(b),
        };
        if divisor == 1 { Some(exact) } else { nearest_short(exact, divisor) }
    }

    fn at_length(&self, a: i128, b: i128) -> Option<i256> {
        let [left, right] = self.factors;
        // What is too long here gives a quotient of more than 38 digits.
        let (a, b) = (i256::from_i128(a).checked_mul(left)?, i256::from_i128(b).checked_mul(right)?);
        let exact = match self.operation {
            Operation::Add => a.checked_add(b)?,
            Operation::Subtract => a.checked_sub(b)?,
            Operation::Multiply => a.checked_mul(b)?,
            Operation::Divide => return nearest(a, b),
            Operation::Modulo => return a.checked_rem(b),
        };
        nearest(exact, self.divisor)
    }
}

/// The mean of numbers with so many digits behind the point, with others; none if it has more than 38.
pub(crate) fn mean(sum: i128, count: i64, from: i8, to: i8) -> Option<i128> {
    let sum = i256::from_i128(sum).checked_mul(power(i32::from(to) - i32::from(from))?)?;
    let mean = nearest(sum, i256::from_i128(i128::from(count)))?.to_i128()?;
    Some(mean).filter(|mean| mean.unsigned_abs() < 10u128.pow(MOST as u32))
}

fn power(digits: i32) -> Option<i256> {
    i256::from_i128(10).checked_pow(u32::try_from(digits).ok()?)
}

/// The whole number nearest to a quotient, half away from zero; none of a division by zero.
fn nearest_short(a: i128, b: i128) -> Option<i128> {
    let (quotient, rest) = (a.checked_div(b)?, a.checked_rem(b)?.unsigned_abs());
    let up = rest != 0 && rest >= b.unsigned_abs() - rest;
    Some(if up { quotient + if (a < 0) == (b < 0) { 1 } else { -1 } } else { quotient })
}

fn nearest(a: i256, b: i256) -> Option<i256> {
    let (quotient, rest) = (a.checked_div(b)?, a.checked_rem(b)?.checked_abs()?);
    if rest == i256::ZERO || rest < b.checked_abs()?.checked_sub(rest)? {
        return Some(quotient);
    }
    quotient.checked_add(if a.is_negative() == b.is_negative() { i256::ONE } else { i256::MINUS_ONE })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cmp::Ordering;

    fn digits(precision: u8, scale: u8) -> Digits {
        Digits { precision, scale }
    }

    /// Of Flink's own tests of its types, and of the rules by hand.
    #[test]
    fn types_are_those_of_flink() {
        use Operation::{Add, Divide, Modulo, Multiply, Subtract};
        for (operation, a, b, result) in [
            (Divide, (32, 8), (38, 8), (38, 6)),
            (Divide, (30, 20), (30, 20), (38, 8)),
            (Divide, (10, 2), (5, 3), (19, 8)),
            (Divide, (2, 1), (10, 0), (13, 12)),
            (Divide, (38, 0), (38, 38), (38, 6)),
            (Multiply, (30, 10), (30, 10), (38, 6)),
            (Multiply, (30, 20), (30, 20), (38, 17)),
            (Multiply, (38, 2), (38, 3), (38, 5)),
            (Multiply, (10, 2), (5, 3), (16, 5)),
            (Add, (10, 2), (5, 3), (12, 3)),
            (Subtract, (38, 8), (32, 8), (38, 7)),
            (Add, (38, 0), (38, 38), (38, 6)),
            (Modulo, (30, 10), (30, 10), (30, 10)),
            (Modulo, (10, 2), (10, 0), (10, 2)),
        ] {
            assert_eq!(operation.digits(digits(a.0, a.1), digits(b.0, b.1)), digits(result.0, result.1), "{operation:?} {a:?} {b:?}");
        }
    }

    fn compute(operation: Operation, a: (i128, u8, u8), b: (i128, u8, u8)) -> Option<i128> {
        let (x, y) = (digits(a.1, a.2), digits(b.1, b.2));
        Arithmetic::new(operation, x, y, operation.digits(x, y)).unwrap().compute(a.0, b.0)
    }

    #[test]
    fn halves_go_away_from_zero() {
        // 0.0000005, of which six digits behind the point stay.
        assert_eq!(compute(Operation::Divide, (1, 38, 0), (2_000_000, 38, 0)), Some(1));
        assert_eq!(compute(Operation::Divide, (-1, 38, 0), (2_000_000, 38, 0)), Some(-1));
        assert_eq!(compute(Operation::Divide, (1, 38, 0), (2_000_001, 38, 0)), Some(0));
        assert_eq!(compute(Operation::Divide, (1, 1, 0), (0, 1, 0)), None);
        assert_eq!(nearest_short(i128::MIN, -1), None);
        assert_eq!(nearest_short(i128::MAX, 2), Some(1 << 126));
    }

    #[test]
    fn what_is_too_long_is_none() {
        let most = 10i128.pow(38) - 1;
        assert_eq!(compute(Operation::Add, (most, 38, 0), (1, 38, 0)), None);
        assert_eq!(compute(Operation::Add, (most, 38, 0), (-1, 38, 0)), Some(most - 1));
        assert_eq!(compute(Operation::Multiply, (most, 38, 0), (most, 38, 0)), None);
        assert_eq!(compute(Operation::Multiply, (most, 38, 38), (most, 38, 38)), Some(10i128.pow(37)), "next to 1");
        assert_eq!(compute(Operation::Divide, (most, 38, 0), (1, 38, 38)), None);
    }

    #[test]
    fn means_round_half_away_from_zero() {
        assert_eq!(mean(100, 3, 2, 6), Some(333_333));
        assert_eq!(mean(-200, 3, 2, 6), Some(-666_667));
        assert_eq!(mean(5, 2, 0, 0), Some(3));
        assert_eq!(mean(i128::MAX, 2, 0, 6), None);
        assert_eq!(mean(i128::MAX, 1, 0, 0), None, "39 digits");
        assert_eq!(mean(5 * 10i128.pow(32), 10, 0, 6), Some(5 * 10i128.pow(37)), "the sum with six more digits is too long, the mean not");
        assert_eq!(mean(1, 0, 0, 6), None);
    }

    /// Numbers as people write them: a sign, and digits from the lowest up, with no zeros at the end.
    #[derive(Debug, Clone, PartialEq)]
    struct Naive(bool, Vec<u8>);

    impl Naive {
        fn of(value: i128) -> Naive {
            Naive(value < 0, value.unsigned_abs().to_string().bytes().rev().map(|b| b - b'0').collect()).tidy()
        }

        fn tidy(mut self) -> Naive {
            while self.1.last() == Some(&0) {
                self.1.pop();
            }
            self.0 &= !self.1.is_empty();
            self
        }

        fn shifted(&self, digits: usize) -> Naive {
            Naive(self.0, std::iter::repeat_n(0, digits).chain(self.1.iter().copied()).collect()).tidy()
        }

        fn larger(&self, other: &Naive) -> Ordering {
            self.1.len().cmp(&other.1.len()).then_with(|| self.1.iter().rev().cmp(other.1.iter().rev()))
        }

        fn plus(&self, other: &Naive) -> Naive {
            let at = |of: &Naive, i: usize| i32::from(of.1.get(i).copied().unwrap_or(0));
            if self.0 != other.0 && self.larger(other).is_lt() {
                return other.plus(self);
            }
            let sign = if self.0 == other.0 { 1 } else { -1 };
            let (mut carry, mut out) = (0, Vec::new());
            for i in 0..=self.1.len().max(other.1.len()) {
                let sum = at(self, i) + sign * at(other, i) + carry;
                out.push(sum.rem_euclid(10) as u8);
                carry = sum.div_euclid(10);
            }
            Naive(self.0, out).tidy()
        }

        fn negated(&self) -> Naive {
            Naive(!self.0, self.1.clone()).tidy()
        }

        fn times(&self, other: &Naive) -> Naive {
            let mut out = vec![0u32; self.1.len() + other.1.len() + 1];
            for (i, a) in self.1.iter().enumerate() {
                for (j, b) in other.1.iter().enumerate() {
                    out[i + j] += u32::from(*a) * u32::from(*b);
                }
            }
            for i in 1..out.len() {
                out[i] += out[i - 1] / 10;
                out[i - 1] %= 10;
            }
            Naive(self.0 != other.0, out.into_iter().map(|d| d as u8).collect()).tidy()
        }

        /// Quotient and rest, as at school.
        fn divided(&self, by: &Naive) -> (Naive, Naive) {
            let by_abs = Naive(false, by.1.clone());
            let (mut quotient, mut rest) = (vec![0; self.1.len()], Naive(false, Vec::new()));
            for i in (0..self.1.len()).rev() {
                rest.1.insert(0, self.1[i]);
                rest = rest.tidy();
                while rest.larger(&by_abs).is_ge() {
                    rest = rest.plus(&by_abs.negated());
                    quotient[i] += 1;
                }
            }
            (Naive(self.0 != by.0, quotient).tidy(), Naive(self.0, rest.1).tidy())
        }

        fn rounded(&self, by: &Naive) -> Naive {
            let (quotient, rest) = self.divided(by);
            let up = rest.plus(&rest).larger(by).is_ge() && !rest.1.is_empty();
            if up { quotient.plus(&Naive(self.0 != by.0, vec![1])) } else { quotient }
        }
    }

    fn naive(operation: Operation, (a, s1): (i128, usize), (b, s2): (i128, usize), result: Digits) -> Option<Naive> {
        let (a, b, scale) = (Naive::of(a), Naive::of(b), usize::from(result.scale));
        let common = s1.max(s2);
        let (x, y) = (a.shifted(common - s1), b.shifted(common - s2));
        let one = Naive(false, vec![1]);
        let found = match operation {
            Operation::Add => x.plus(&y).rounded(&one.shifted(common - scale)),
            Operation::Subtract => x.plus(&y.negated()).rounded(&one.shifted(common - scale)),
            Operation::Multiply => a.times(&b).rounded(&one.shifted(s1 + s2 - scale)),
            Operation::Divide | Operation::Modulo if b.1.is_empty() => return None,
            Operation::Divide => a.shifted(scale + s2).rounded(&b.shifted(s1)),
            Operation::Modulo => x.divided(&y).1,
        };
        (found.1.len() <= usize::from(result.precision)).then_some(found)
    }

    /// A type and a number of it: short ones, long ones, and those that differ from a power of ten by little.
    fn decimal() -> impl Strategy<Value = (i128, Digits)> {
        (1..=38u8)
            .prop_flat_map(|precision| (Just(precision), 0..=precision, any::<u128>(), 0..=precision, 0..4u8, any::<bool>()))
            .prop_map(|(precision, scale, bits, length, kind, negative)| {
                let (whole, part) = (10u128.pow(u32::from(precision)), 10u128.pow(u32::from(length)));
                let value = match kind {
                    0 => whole - 1 - bits % 3 % whole,
                    1 => part.min(whole - 1) / 2,
                    _ => bits % part,
                } as i128;
                (if negative { -value } else { value }, digits(precision, scale))
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn results_are_those_of_long_hand((a, x) in decimal(), (b, y) in decimal()) {
            for operation in [Operation::Add, Operation::Subtract, Operation::Multiply, Operation::Divide, Operation::Modulo] {
                let result = operation.digits(x, y);
                let arithmetic = Arithmetic::new(operation, x, y, result).unwrap();
                let expected = naive(operation, (a, usize::from(x.scale)), (b, usize::from(y.scale)), result);
                prop_assert_eq!(arithmetic.compute(a, b).map(Naive::of), expected, "{:?} of {} {:?} and {} {:?}", operation, a, x, b, y);
            }
        }
    }
}
