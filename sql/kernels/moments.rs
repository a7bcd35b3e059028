//! Variances: of whole numbers and decimals from exact sums, of floats from mean and squared distance.
//!
//! Exact sums can be taken back and put together in any order; means of floats cannot be taken back, so where rows are taken
//! out, the floats themselves are kept and this is worked out anew.
//!
//! Invariant: no value of whole numbers depends on the order of the rows.

use arrow::datatypes::i256;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Count, sum and sum of squares of whole numbers, or of decimals without their point.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Exact {
    pub(crate) count: i64,
    sum: Wide,
    squares: Wide,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Wide(i256);

impl Serialize for Wide {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.to_parts().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Wide {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (low, high) = <(u128, i128)>::deserialize(deserializer)?;
        Ok(Wide(i256::from_parts(low, high)))
    }
}

impl Exact {
    pub(crate) fn add(&mut self, value: i128, weight: i64) {
        let (value, weight) = (i256::from_i128(value), i256::from_i128(i128::from(weight)));
        self.count += weight.to_i128().unwrap_or(0) as i64;
        self.sum.0 = self.sum.0.wrapping_add(value.wrapping_mul(weight));
        self.squares.0 = self.squares.0.wrapping_add(value.wrapping_mul(value).wrapping_mul(weight));
    }

    pub(crate) fn merge(&mut self, other: &Exact) {
        self.count += other.count;
        self.sum.0 = self.sum.0.wrapping_add(other.sum.0);
        self.squares.0 = self.squares.0.wrapping_add(other.squares.0);
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.count == 0 && self.sum == Wide::default() && self.squares == Wide::default()
    }

    /// The squared distance from the mean, all together: exact up to its last rounding.
    fn squared_distance(&self) -> f64 {
        let n = i256::from_i128(i128::from(self.count));
        let exact = n.checked_mul(self.squares.0).and_then(|a| Some((a, self.sum.0.checked_mul(self.sum.0)?)));
        match exact.and_then(|(a, b)| a.checked_sub(b)) {
            Some(all) => number(all) / self.count as f64,
            // Beyond 256 bits only decimals of more than 30 digits come.
            None => (number(self.squares.0) - number(self.sum.0) * number(self.sum.0) / self.count as f64).max(0.0),
        }
    }

    /// The variance; none of too few values.
    pub(crate) fn variance(&self, sample: bool) -> Option<f64> {
        divided(self.squared_distance(), self.count, sample)
    }
}

/// The nearest float.
fn number(wide: i256) -> f64 {
    let (low, high) = wide.wrapping_abs().to_parts();
    let size = high as u128 as f64 * 2f64.powi(128) + low as f64;
    if wide < i256::ZERO { -size } else { size }
}

fn divided(distance: f64, count: i64, sample: bool) -> Option<f64> {
    let by = count - i64::from(sample);
    (count > 0 && by > 0).then(|| distance / by as f64)
}

/// Count, mean and squared distance from it, of floats.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Floats {
    pub(crate) count: i64,
    mean: f64,
    distance: f64,
}

impl Floats {
    /// Takes a value in, so often.
    pub(crate) fn add(&mut self, value: f64, times: i64) {
        self.merge(&Floats { count: times, mean: value, distance: 0.0 });
    }

    pub(crate) fn merge(&mut self, other: &Floats) {
        let count = self.count + other.count;
        if other.count == 0 || count == 0 {
            return;
        }
        let apart = other.mean - self.mean;
        let share = other.count as f64 / count as f64;
        self.distance += other.distance + apart * apart * self.count as f64 * share;
        self.mean += apart * share;
        self.count = count;
    }

    /// The variance; none of too few values.
    pub(crate) fn variance(&self, sample: bool) -> Option<f64> {
        divided(self.distance, self.count, sample)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// By the definition.
    fn naive(values: &[f64], sample: bool) -> Option<f64> {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let by = n - f64::from(u8::from(sample));
        (by > 0.0).then(|| values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / by)
    }

    proptest! {
        #[test]
        fn variances_are_those_of_the_definition(values in proptest::collection::vec(-1000..1000i64, 0..12), gone in proptest::collection::vec(any::<i64>(), 0..5), cut in 0..12usize) {
            let (mut a, mut b) = (Exact::default(), Exact::default());
            let (mut f, mut g) = (Floats::default(), Floats::default());
            for (i, value) in values.iter().enumerate() {
                if i < cut { a.add(i128::from(*value), 1); f.add(*value as f64, 1) } else { b.add(i128::from(*value), 1); g.add(*value as f64, 1) }
            }
            // What comes and goes leaves no trace, however large.
            gone.iter().for_each(|v| a.add(i128::from(*v), 2));
            gone.iter().for_each(|v| b.add(i128::from(*v), -2));
            a.merge(&b);
            f.merge(&g);
            let floats: Vec<f64> = values.iter().map(|v| *v as f64).collect();
            for sample in [false, true] {
                let (want, got, of_floats) = (naive(&floats, sample), a.variance(sample), f.variance(sample));
                prop_assert_eq!(want.is_some() && !values.is_empty(), got.is_some());
                if let (Some(want), Some(got), Some(of_floats)) = (want, got, of_floats) {
                    prop_assert!((want - got).abs() <= 1e-9 * want.max(1.0), "{} {}", want, got);
                    prop_assert!((want - of_floats).abs() <= 1e-9 * want.max(1.0), "{} {}", want, of_floats);
                }
            }
        }
    }

    #[test]
    fn large_numbers_do_not_drown_small_differences() {
        let mut exact = Exact::default();
        [i64::MAX, i64::MAX - 2].into_iter().for_each(|v| exact.add(i128::from(v), 1));
        assert_eq!((exact.variance(false), exact.variance(true)), (Some(1.0), Some(2.0)));
        let bytes = postcard_like(&exact);
        assert_eq!(bytes.variance(false), Some(1.0));
    }

    fn postcard_like(exact: &Exact) -> Exact {
        serde_json::from_str(&serde_json::to_string(exact).unwrap()).unwrap()
    }
}
