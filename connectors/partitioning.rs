//! Which partition a record goes to, and which lane publishes it.
//!
//! Keys go where Kafka's default partitioner sends them (murmur2), so that topics written by others stay aligned. Records
//! without a key go round robin in sticky runs whose start and steps follow from the records themselves: a replay of an
//! epoch chooses as the first run did.
//!
//! Invariant: both functions are frozen. A change would tear the order per key, and let two lanes publish one partition.

/// How many records without a key stay on one partition before the next one's turn.
const STICKY_RUN: u64 = 64;

/// Kafka's 32-bit murmur2 (seed 0x9747b28c).
///
/// ```
/// assert_eq!(waterwheel_connectors::partitioning::murmur2(b"foobar"), -790_332_482);
/// ```
pub fn murmur2(data: &[u8]) -> i32 {
    const M: u32 = 0x5bd1_e995;
    let mut h: u32 = 0x9747_b28c ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (i, &byte) in rest.iter().enumerate() {
            h ^= u32::from(byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    (h ^ (h >> 15)) as i32
}

/// The partition of a key among `partitions` (1 or more), as Kafka's default partitioner chooses it.
pub fn partition_of_key(key: &[u8], partitions: u32) -> i32 {
    ((murmur2(key) & i32::MAX) as u32 % partitions) as i32
}

/// The lane that publishes a partition, among `lanes` (1 or more).
pub fn lane_of(topic: &str, partition: i32, lanes: u32) -> u32 {
    // Spreads neighbouring partitions evenly: the topic decides where the count begins.
    let begin = (murmur2(topic.as_bytes()) & i32::MAX) as u32;
    begin.wrapping_add(partition as u32) % lanes
}

/// Deals records without a key; one per topic and epoch.
#[derive(Debug, Clone, Copy, Default)]
pub struct StickyRoundRobin {
    first: Option<u32>,
    seen: u64,
}

impl StickyRoundRobin {
    /// The partition of the next record without a key. The first one of an epoch sets the start by its timestamp.
    pub fn next(&mut self, timestamp: i64, partitions: u32) -> i32 {
        let first = *self.first.get_or_insert_with(|| (murmur2(&timestamp.to_le_bytes()) & i32::MAX) as u32);
        let run = self.seen / STICKY_RUN;
        self.seen += 1;
        ((u64::from(first) + run) % u64::from(partitions)) as i32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kafka's published vectors.
    #[test]
    fn murmur2_vectors() {
        for (text, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()), hash, "{text}");
        }
    }

    /// Frozen: a change lets two lanes publish one partition across an upgrade.
    #[test]
    fn lane_vectors() {
        let lanes: Vec<u32> = (0..4).map(|p| lane_of("alerts", p, 2)).chain((0..4).map(|p| lane_of("foobar", p, 3))).collect();
        assert_eq!(lanes, LANES);
    }
    const LANES: [u32; 8] = [0, 1, 0, 1, 0, 1, 2, 0];

    #[test]
    fn a_replay_deals_alike_and_all_partitions_get_some() {
        let deal = || {
            let mut dealer = StickyRoundRobin::default();
            (0..1000).map(|i| dealer.next(77 + i, 3)).collect::<Vec<_>>()
        };
        assert_eq!(deal(), deal());
        assert_eq!(deal().into_iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
    }
}
