//! The keys that a batch touches: what each was before the first of its rows, and the latest time among them.
//!
//! Invariant: a key is in the list once, in the order of first rows; between two batches the list is empty.

use crate::time::EventTime;

/// A key that the batch touches.
pub(super) struct Touched<T> {
    pub(super) slot: u32,
    /// Latest time among its rows.
    pub(super) time: EventTime,
    /// Noted at its first row, or since.
    pub(super) before: T,
}

pub(super) struct TouchedKeys<T> {
    keys: Vec<Touched<T>>,
    /// By slot: 1 + index into `keys`; 0 = not touched by this batch.
    places: Vec<u32>,
}

impl<T> Default for TouchedKeys<T> {
    fn default() -> Self {
        TouchedKeys { keys: Vec::new(), places: Vec::new() }
    }
}

impl<T> TouchedKeys<T> {
    /// Notes one more row of a key that is in the list; `false`: it is not, and [`first`](Self::first) puts it there.
    pub(super) fn again(&mut self, slot: u32, time: EventTime) -> bool {
        let Some(place @ 1..) = self.places.get(slot as usize).copied() else { return false };
        let latest = &mut self.keys[place as usize - 1].time;
        *latest = time.max(*latest);
        true
    }

    /// Notes the first row of a key.
    pub(super) fn first(&mut self, slot: u32, time: EventTime, before: T) {
        if self.places.len() <= slot as usize {
            self.places.resize(slot as usize + 1, 0);
        }
        self.keys.push(Touched { slot, time, before });
        self.places[slot as usize] = self.keys.len() as u32;
    }

    /// What was noted of a key in the list.
    pub(super) fn noted(&mut self, slot: u32) -> &mut T {
        &mut self.keys[self.places[slot as usize] as usize - 1].before
    }

    /// Takes the list.
    pub(super) fn take(&mut self) -> Vec<Touched<T>> {
        let keys = std::mem::take(&mut self.keys);
        keys.iter().for_each(|key| self.places[key.slot as usize] = 0);
        keys
    }
}
