//! Random numbers for row `n` of split `s`, reachable without making the rows before.
//!
//! Invariant: frozen: the same (seed, split, n) gives the same numbers on every machine and in every version.

/// A small generator (splitmix64), one per row. Not for secrets.
///
/// ```
/// use waterwheel_connectors::generator::Random;
/// assert_eq!(Random::of(1, 2, 3).next_u64(), Random::of(1, 2, 3).next_u64());
/// assert!(Random::of(1, 2, 3).below(10) < 10);
/// ```
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The numbers of one row.
    pub fn of(seed: u64, split: u32, n: u64) -> Self {
        let mut mixed = Random(seed);
        let a = mixed.next_u64() ^ u64::from(split);
        let mut mixed = Random(a);
        Random(mixed.next_u64() ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..n`; 0 when `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }

    /// True once in `n` times on average.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_and_frozen() {
        let mut counts = [0; 10];
        (0..10_000).for_each(|n| counts[Random::of(7, 0, n).below(10) as usize] += 1);
        assert!(counts.iter().all(|c| (800..1200).contains(c)), "{counts:?}");
        assert_eq!(Random::of(0, 0, 0).next_u64(), FROZEN);
    }
    const FROZEN: u64 = 2_558_736_989_570_252_433;
}
