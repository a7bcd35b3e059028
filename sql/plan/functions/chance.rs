//! Functions of chance: `UUID()`, `RAND()`, `RAND_INTEGER(n)`. A row gets 16 bytes by chance where it passes, and each call makes
//! its value of these and of its own number. With a seed, `RAND(seed)` and `RAND_INTEGER(seed, n)` are the sequence of Java's Random.
//!
//! Invariant: of the same bytes and number a call makes the same value, so that a row has one value however often it is looked at.

use super::own::ScalarFunction;
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, StringBuilder};
use arrow::datatypes::{DataType, Int64Type};
use std::fmt::Write as _;
use std::sync::Arc;

/// What a query calls; the operator that a row passes gives the bytes.
pub(crate) const CHANCE: &[&str] = &["uuid", "rand", "rand_integer"];
/// Those with a seed; the operator gives their values.
pub(crate) const SEEDED: &[&str] = &["rand_seeded", "rand_integer_seeded"];
/// Bytes and a number to a text and to a fraction.
pub(crate) const UUID_OF: &str = "uuid of";
/// See [`UUID_OF`].
pub(crate) const FRACTION_OF: &str = "fraction of";

/// All of them.
pub(super) fn functions() -> Vec<ScalarFunction> {
    let given = |_: &[ArrayRef]| Err("it is given by an operator".to_string());
    vec![
        ScalarFunction::new("uuid", Vec::new(), DataType::Utf8, given).volatile(),
        ScalarFunction::new("rand", Vec::new(), DataType::Float64, given).volatile(),
        ScalarFunction::new("rand_integer", vec![DataType::Int64], DataType::Int32, given).volatile(),
        ScalarFunction::new(SEEDED[0], vec![DataType::Int64], DataType::Float64, given).volatile(),
        ScalarFunction::new(SEEDED[1], vec![DataType::Int64, DataType::Int64], DataType::Int32, given).volatile(),
        ScalarFunction::new(UUID_OF, vec![DataType::Binary, DataType::Int64], DataType::Utf8, |args| {
            let mut texts = StringBuilder::with_capacity(args[0].len(), args[0].len() * 36);
            for row in 0..args[0].len() {
                let [high, low] = drawn(args, row);
                // Version 4, variant 1: 122 bits of chance.
                let (high, low) = (high & !0xF000 | 0x4000, low & (u64::MAX >> 2) | 1 << 63);
                let (a, b, c) = (high >> 32, high >> 16 & 0xFFFF, high & 0xFFFF);
                let _ = write!(texts, "{a:08x}-{b:04x}-{c:04x}-{:04x}-{:012x}", low >> 48, low & 0xFFFF_FFFF_FFFF);
                texts.append_value("");
            }
            Ok(Arc::new(texts.finish()))
        }),
        ScalarFunction::new(FRACTION_OF, vec![DataType::Binary, DataType::Int64], DataType::Float64, |args| {
            // 53 bits: as many as a DOUBLE below 1 has.
            let fraction = |row| (drawn(args, row)[0] >> 11) as f64 / (1u64 << 53) as f64;
            Ok(Arc::new((0..args[0].len()).map(fraction).collect::<Float64Array>()))
        }),
    ]
}

/// 128 bits of a row's bytes and a call's number.
fn drawn(args: &[ArrayRef], row: usize) -> [u64; 2] {
    let (bytes, number) = (args[0].as_binary::<i32>().value(row), args[1].as_primitive::<Int64Type>().value(row));
    let word = |at: usize| bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_le_bytes);
    let (a, b) = (word(0), word(8));
    let number = (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    [mixed(a ^ mixed(b ^ number)), mixed(b.wrapping_add(mixed(a.wrapping_add(number) ^ 0xD1B5_4A32_D192_ED03)))]
}

/// Each bit of the result depends on all of the argument (the finalizer of SplitMix64).
fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// The numbers of `java.util.Random`.
#[derive(Debug, Clone)]
pub(crate) struct Seeded {
    bits: u64,
    /// Of whole numbers from 0 up to below it; none = fractions.
    pub(crate) below: Option<i32>,
}

/// As many bits as it keeps.
const KEPT: u64 = (1 << 48) - 1;
const FACTOR: u64 = 0x5_DEEC_E66D;

impl Seeded {
    pub(crate) fn new(seed: i64, below: Option<i32>) -> Self {
        Seeded { bits: (seed as u64 ^ FACTOR) & KEPT, below }
    }

    fn next(&mut self, bits: u32) -> i32 {
        self.bits = self.bits.wrapping_mul(FACTOR).wrapping_add(0xB) & KEPT;
        (self.bits >> (48 - bits)) as i32
    }

    pub(crate) fn fraction(&mut self) -> f64 {
        let (high, low) = (i64::from(self.next(26)), i64::from(self.next(27)));
        ((high << 27) + low) as f64 / (1u64 << 53) as f64
    }

    /// Below a number above 0.
    pub(crate) fn whole(&mut self, below: i32) -> i32 {
        let mut drawn = self.next(31);
        if below & below.wrapping_sub(1) == 0 {
            return ((i64::from(below) * i64::from(drawn)) >> 31) as i32;
        }
        // Numbers that would make small ones likelier are drawn again.
        while drawn.wrapping_sub(drawn % below).wrapping_add(below - 1) < 0 {
            drawn = self.next(31);
        }
        drawn % below
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_give_the_numbers_of_java() {
        let mut seeded = Seeded::new(42, None);
        assert_eq!([seeded.fraction(), seeded.fraction()], [0.727_563_680_032_868_1, 0.683_223_471_759_845_4]);
        let mut seeded = Seeded::new(42, Some(10));
        assert_eq!([(); 5].map(|()| seeded.whole(10)), [0, 3, 8, 4, 0]);
        assert!((0..1000).all(|_| (0..64).contains(&seeded.whole(64))));
    }
}
