//! Ids in the order of time, cheaper than a sorted map: a radix heap with digits of six bits.
//!
//! An id waits at the level of the highest digit in which its time differs from the last time that was reached, in the bucket
//! of that digit. When time comes to a bucket, its ids are dealt out to lower levels; so an id is touched once per digit at
//! most, in sequence, and never compared. Only ids that are due are sorted.
//!
//! Invariant: `due` and `fresh` hold every id with a time up to `last`; a bucket holds those whose time has its digit at its
//! level and differs from `last` in no higher one. So the lowest bucket of the lowest level comes first.

use std::cmp::Ordering;

/// So many ids that have become due are put into order one by one; more of them by sorting anew.
const FEW: usize = 8;
/// So many times stand for all those of a bucket.
const SAMPLED: usize = 4096;
/// Bits of a digit, its buckets, and the digits of a time.
const DIGIT: usize = 6;
const BUCKETS: usize = 1 << DIGIT;
const LEVELS: usize = 64_usize.div_ceil(DIGIT);
/// A bucket that was dealt out keeps room for so many ids.
const ROOM: usize = 64;
/// So many entries, at most, are brought into the cache side by side.
pub(super) const FETCHED: usize = 64;

/// What the queue asks of the entries behind its ids.
pub(super) trait Entries {
    /// Event time of an entry in the queue.
    fn time(&self, id: u32) -> i64;
    /// Orders entries of one time as [`compare`](Self::compare) does, as far as it goes: different numbers decide.
    fn rank(&self, id: u32) -> [u64; 2];
    /// In which order two entries leave.
    fn compare(&self, a: u32, b: u32) -> Ordering;
    /// Some entries will be looked at soon.
    fn fetch(&self, _ids: &[u32]) {}
}

/// An id that is due, and what decides nearly every comparison without a look at its entry.
#[derive(Debug, Clone, Copy)]
struct Due {
    time: u64,
    rank: [u64; 2],
    id: u32,
}

impl Due {
    fn compare(&self, other: &Due, entries: &impl Entries) -> Ordering {
        (self.time, self.rank).cmp(&(other.time, other.rank)).then_with(|| entries.compare(self.id, other.id))
    }
}

/// An id in a bucket.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    id: u32,
    /// The low half of its time: with what the bucket says all of it, so that ids are dealt out without a look at their entries.
    low: u32,
}

/// Buckets of one digit; none as long as no id was here.
#[derive(Debug, Default)]
struct Level {
    buckets: Vec<Vec<Waiting>>,
    /// Which buckets hold ids, a bit each.
    filled: u64,
}

#[derive(Debug)]
pub(super) struct Queue {
    last: u64,
    /// The next one to leave comes last.
    due: Vec<Due>,
    /// Due, and not yet in order.
    fresh: Vec<u32>,
    levels: [Level; LEVELS],
}

/// From which time on `wanted` of `len` times are, or so: of many only some are looked at.
fn where_latest_begin(times: impl Iterator<Item = i64>, len: usize, wanted: usize) -> Option<i64> {
    let mut some: Vec<i64> = times.step_by(len.div_ceil(SAMPLED).max(1)).collect();
    some.sort_unstable_by(|a, b| b.cmp(a));
    let at = (wanted - 1) * some.len() / len.max(1);
    some.get(at).copied()
}

/// A number that orders as the time does.
fn ordered(time: i64) -> u64 {
    (time as u64) ^ (1 << 63)
}

impl Queue {
    /// Bytes that it takes for each id.
    pub(super) const EACH: usize = size_of::<Waiting>();

    pub(super) fn new() -> Self {
        Queue { last: 0, due: Vec::new(), fresh: Vec::new(), levels: Default::default() }
    }

    pub(super) fn push(&mut self, time: i64, id: u32) {
        self.deal(ordered(time), id);
    }

    fn deal(&mut self, time: u64, id: u32) {
        if time <= self.last {
            return self.fresh.push(id);
        }
        let level = (63 - (time ^ self.last).leading_zeros() as usize) / DIGIT;
        let digit = (time >> (level * DIGIT)) as usize % BUCKETS;
        let Level { buckets, filled } = &mut self.levels[level];
        if buckets.is_empty() {
            buckets.resize_with(BUCKETS, Vec::new);
        }
        buckets[digit].push(Waiting { id, low: time as u32 });
        *filled |= 1 << digit;
    }

    /// Takes out the next id with a time at or before `until`.
    pub(super) fn pop(&mut self, until: i64, entries: &impl Entries) -> Option<u32> {
        loop {
            self.settle(entries);
            match self.due.last() {
                Some(due) if due.time <= ordered(until) => return self.due.pop().map(|due| due.id),
                Some(_) => return None,
                None => {}
            }
            let level = self.levels.iter().position(|level| level.filled != 0)?;
            let digit = self.levels[level].filled.trailing_zeros() as usize;
            // The least time that it may hold.
            let low = level * DIGIT;
            let begin = (((self.last >> low) & !(BUCKETS as u64 - 1)) | digit as u64) << low;
            if begin > ordered(until) {
                return None;
            }
            self.last = begin;
            self.levels[level].filled &= !(1 << digit);
            let mut ids = std::mem::take(&mut self.levels[level].buckets[digit]);
            for Waiting { id, low: half } in ids.drain(..) {
                let time = if low <= 32 { begin | (u64::from(half) & ((1 << low) - 1)) } else { ordered(entries.time(id)) };
                self.deal(time, id);
            }
            if ids.capacity() <= ROOM {
                self.levels[level].buckets[digit] = ids; // empty, with its room
            }
        }
    }

    /// Puts what is due into order.
    fn settle(&mut self, entries: &impl Entries) {
        if self.fresh.is_empty() {
            return;
        }
        self.fresh.chunks(FETCHED).for_each(|ids| entries.fetch(ids));
        let fresh = self.fresh.drain(..).map(|id| Due { time: ordered(entries.time(id)), rank: entries.rank(id), id });
        if fresh.len() > FEW || self.due.is_empty() {
            self.due.extend(fresh);
            return self.due.sort_unstable_by(|a, b| b.compare(a, entries));
        }
        for fresh in fresh {
            let at = self.due.partition_point(|other| other.compare(&fresh, entries).is_gt());
            self.due.insert(at, fresh);
        }
    }

    /// In the order of their times.
    fn buckets(&self) -> impl DoubleEndedIterator<Item = &Vec<Waiting>> {
        self.levels.iter().flat_map(|level| &level.buckets)
    }

    /// From which time on some `count` of the ids are, the latest of all; `None` when there is no id.
    pub(super) fn latest(&self, count: usize, entries: &impl Entries) -> Option<i64> {
        let soon = self.due.len() + self.fresh.len();
        let all = soon + self.buckets().map(Vec::len).sum::<usize>();
        let mut wanted = count.clamp(1, all.max(1));
        for ids in self.buckets().rev().filter(|ids| !ids.is_empty()) {
            if wanted <= ids.len() {
                return where_latest_begin(ids.iter().map(|waiting| entries.time(waiting.id)), ids.len(), wanted);
            }
            wanted -= ids.len();
        }
        let ids = self.due.iter().map(|due| due.id).chain(self.fresh.iter().copied());
        where_latest_begin(ids.map(|id| entries.time(id)), soon, wanted)
    }

    /// Takes out the ids with a time at or after `time`.
    pub(super) fn take_from(&mut self, time: i64, entries: &impl Entries) -> Vec<u32> {
        let mut later = Vec::new();
        // Times of a bucket lie behind those of all lower ones.
        for Level { buckets, filled } in self.levels.iter_mut().rev() {
            for (digit, ids) in buckets.iter_mut().enumerate().rev() {
                later.extend(ids.extract_if(.., |waiting| entries.time(waiting.id) >= time).map(|waiting| waiting.id));
                if !ids.is_empty() {
                    return later;
                }
                *filled &= !(1 << digit);
            }
        }
        later.extend(self.fresh.extract_if(.., |id| entries.time(*id) >= time));
        later.extend(self.due.extract_if(.., |due| due.time >= ordered(time)).map(|due| due.id));
        later
    }

    /// Keeps the ids that `keep` accepts.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(u32) -> bool) {
        self.due.retain(|due| keep(due.id));
        self.fresh.retain(|&id| keep(id));
        for Level { buckets, filled } in &mut self.levels {
            for (digit, ids) in buckets.iter_mut().enumerate() {
                ids.retain(|waiting| keep(waiting.id));
                if ids.is_empty() {
                    *filled &= !(1 << digit);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Times(Vec<i64>);

    impl Entries for Times {
        fn time(&self, id: u32) -> i64 {
            self.0[id as usize]
        }
        fn rank(&self, id: u32) -> [u64; 2] {
            [0, u64::from(id / 4)]
        }
        fn compare(&self, a: u32, b: u32) -> Ordering {
            (self.time(a), a).cmp(&(self.time(b), b))
        }
    }

    proptest! {
        /// The latest leave: about as many as are asked for, and no id twice.
        #[test]
        fn the_latest_ids_can_be_taken_out(script in proptest::collection::vec((-40i64..40, proptest::option::of((-50i64..50, 1usize..9))), 0..80)) {
            let (mut queue, mut times, mut model) = (Queue::new(), Times(Vec::new()), Vec::new());
            for (time, step) in script {
                let id = times.0.len() as u32;
                times.0.push(time);
                queue.push(time, id);
                model.push((time, id));
                let Some((until, count)) = step else { continue };
                model.sort_unstable();
                let left = model.partition_point(|(time, _)| *time <= until);
                let expect: Vec<u32> = model.drain(..left).map(|(_, id)| id).collect();
                let got: Vec<u32> = std::iter::from_fn(|| queue.pop(until, &times)).collect();
                prop_assert_eq!(got, expect);
                let latest = queue.latest(count, &times);
                prop_assert_eq!(latest.is_none(), model.is_empty());
                let Some(latest) = latest else { continue };
                let kept = model.partition_point(|(time, _)| *time < latest);
                prop_assert!(model.len() - kept >= count.min(model.len()));
                let mut expect: Vec<u32> = model.drain(kept..).map(|(_, id)| id).collect();
                // Fewer would do only if some of these went alone.
                prop_assert!(expect.iter().filter(|&&id| times.time(id) > latest).count() < count);
                let mut got = queue.take_from(latest, &times);
                expect.sort_unstable();
                got.sort_unstable();
                prop_assert_eq!(got, expect);
            }
        }

        /// Against sorting, with ids that come after later ones have left.
        #[test]
        fn ids_leave_in_order(script in proptest::collection::vec((prop_oneof![any::<i64>(), -40i64..40], proptest::option::of(-50i64..50)), 0..120)) {
            let (mut queue, mut times, mut model) = (Queue::new(), Times(Vec::new()), Vec::new());
            for (time, until) in script.into_iter().chain([(0, Some(i64::MAX))]) {
                let id = times.0.len() as u32;
                times.0.push(time);
                queue.push(time, id);
                model.push((time, id));
                let Some(until) = until else { continue };
                model.sort_unstable();
                let left = model.partition_point(|(time, _)| *time <= until);
                let expect: Vec<u32> = model.drain(..left).map(|(_, id)| id).collect();
                let got: Vec<u32> = std::iter::from_fn(|| queue.pop(until, &times)).collect();
                prop_assert_eq!(got, expect);
            }
            prop_assert!(model.is_empty());
        }
    }
}
