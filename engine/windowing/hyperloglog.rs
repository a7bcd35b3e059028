//! HyperLogLog: how many distinct values there were, from a few kilobytes, within a known error.
//!
//! `2^precision` registers keep the largest number of leading zeros seen among the hashes that fall to them. With the standard
//! precision of 12 that is 4 KiB and a standard error of 1.6 % (1.04 / sqrt(registers)); few values are kept as a list and
//! cost 4 bytes each. The estimate is Ertl's ("New cardinality estimation algorithms for HyperLogLog sketches", 2017): good
//! over the whole range without tables of corrections.
//!
//! Invariant: a sketch depends on the set of values alone, not on their order or on how they were merged. The hash is the
//! frozen one of keys.

use crate::record::Key;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

/// See the module's header.
///
/// ```
/// use waterwheel_engine::windowing::HyperLogLog;
/// let (mut a, mut b) = (HyperLogLog::default(), HyperLogLog::default());
/// (0..700u64).for_each(|n| a.insert(&n));
/// (300..1000u64).for_each(|n| b.insert(&n));
/// a.merge(&b);
/// assert!((950..=1050).contains(&a.estimate()));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HyperLogLog {
    precision: u8,
    registers: Registers,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Registers {
    /// Register `<< 8 |` rank, ascending; one entry a register.
    Sparse(Vec<u32>),
    /// A rank a register; 0 = none.
    Dense(Vec<u8>),
}

impl Default for HyperLogLog {
    /// With the standard precision of 12.
    fn default() -> Self {
        Self::with_precision(12)
    }
}

impl HyperLogLog {
    /// With `2^precision` registers, 4 to 16: the standard error is 1.04 / sqrt(registers).
    ///
    /// # Panics
    /// When the precision is outside of that.
    pub fn with_precision(precision: u8) -> Self {
        assert!((4..=16).contains(&precision), "a precision is 4 to 16, not {precision}");
        HyperLogLog { precision, registers: Registers::Sparse(Vec::new()) }
    }

    /// Takes a value in.
    pub fn insert<K: Key>(&mut self, value: &K) {
        let mut bytes = Vec::with_capacity(16);
        value.encode(&mut bytes);
        self.insert_hash(XxHash3_64::oneshot(&bytes));
    }

    /// Takes a value in by its hash, of which all 64 bits must be good.
    pub fn insert_hash(&mut self, hash: u64) {
        let register = (hash >> (64 - self.precision)) as u32;
        // A one behind the last bit bounds the rank.
        let rest = (hash << self.precision) | (1 << (self.precision - 1));
        self.raise(register, rest.leading_zeros() as u8 + 1);
    }

    fn raise(&mut self, register: u32, rank: u8) {
        match &mut self.registers {
            Registers::Dense(ranks) => {
                let held = &mut ranks[register as usize];
                *held = rank.max(*held);
            }
            Registers::Sparse(entries) => {
                let entry = (register << 8) | u32::from(rank);
                let at = entries.partition_point(|held| held >> 8 < register);
                match entries.get_mut(at) {
                    Some(held) if *held >> 8 == register => *held = entry.max(*held),
                    _ => {
                        entries.insert(at, entry);
                        self.thicken();
                    }
                }
            }
        }
    }

    /// A list as large as the registers becomes registers.
    fn thicken(&mut self) {
        let registers = 1usize << self.precision;
        let Registers::Sparse(entries) = &self.registers else { return };
        if 4 * entries.len() < registers {
            return;
        }
        let mut ranks = vec![0; registers];
        for entry in entries {
            ranks[(entry >> 8) as usize] = *entry as u8;
        }
        self.registers = Registers::Dense(ranks);
    }

    /// Takes in what another sketch has seen.
    ///
    /// # Panics
    /// When their precisions differ.
    pub fn merge(&mut self, other: &Self) {
        assert_eq!(self.precision, other.precision, "sketches of different precision cannot be merged");
        other.each(|register, rank| self.raise(register, rank));
    }

    fn each(&self, mut visit: impl FnMut(u32, u8)) {
        match &self.registers {
            Registers::Sparse(entries) => entries.iter().for_each(|entry| visit(entry >> 8, *entry as u8)),
            Registers::Dense(ranks) => {
                ranks.iter().enumerate().filter(|(_, rank)| **rank > 0).for_each(|(register, rank)| visit(register as u32, *rank));
            }
        }
    }

    /// About how many distinct values there were.
    pub fn estimate(&self) -> u64 {
        let (m, q) = (f64::from(1u32 << self.precision), 64 - self.precision as usize);
        // How many registers have each rank.
        let mut counts = vec![0u32; q + 2];
        let mut held = 0;
        self.each(|_, rank| {
            counts[rank as usize] += 1;
            held += 1;
        });
        counts[0] = (1u32 << self.precision) - held;
        let mut z = m * tau(1.0 - f64::from(counts[q + 1]) / m);
        for k in (1..=q).rev() {
            z = 0.5 * (z + f64::from(counts[k]));
        }
        z += m * sigma(f64::from(counts[0]) / m);
        (m * m / (2.0 * std::f64::consts::LN_2 * z)).round() as u64
    }
}

fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x).powi(2) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Over many sets of each size, the error has the standard deviation that the theory says, and no bias to speak of.
    #[test]
    fn the_error_is_as_promised() {
        for precision in [8u8, 12] {
            let promised = 1.04 / f64::from(1u32 << precision).sqrt();
            for size in [1u64, 10, 100, 1000, 20_000] {
                let errors: Vec<f64> = (0..60u64)
                    .map(|set| {
                        let mut sketch = HyperLogLog::with_precision(precision);
                        (0..size).for_each(|n| sketch.insert(&(set * 1_000_000 + n)));
                        (sketch.estimate() as f64 - size as f64) / size as f64
                    })
                    .collect();
                let mean = errors.iter().sum::<f64>() / 60.0;
                let deviation = (errors.iter().map(|e| e * e).sum::<f64>() / 60.0).sqrt();
                assert!(deviation < 1.3 * promised, "precision {precision}, {size} values: {deviation} over {promised}");
                assert!(mean.abs() < 0.5 * promised, "precision {precision}, {size} values: bias {mean}");
                assert!(errors.iter().all(|e| e.abs() < 4.5 * promised));
            }
        }
    }

    #[test]
    fn few_are_counted_exactly() {
        let mut sketch = HyperLogLog::default();
        assert_eq!(sketch.estimate(), 0);
        for n in 1..=20u64 {
            sketch.insert(&n);
            sketch.insert(&n);
            assert_eq!(sketch.estimate(), n);
        }
    }

    proptest! {
        /// Order, repeats and merging change nothing; small or large.
        #[test]
        fn a_sketch_is_that_of_the_set(mut values in proptest::collection::vec(0u64..5000, 0..3000), cut in 0usize..3000) {
            let cut = cut.min(values.len());
            let sketch = |values: &[u64]| {
                let mut sketch = HyperLogLog::with_precision(10);
                values.iter().for_each(|v| sketch.insert(v));
                sketch
            };
            let mut merged = sketch(&values[..cut]);
            merged.merge(&sketch(&values[cut..]));
            values.sort_unstable();
            prop_assert_eq!(merged, sketch(&values));
        }
    }
}
