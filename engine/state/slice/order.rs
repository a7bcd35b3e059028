//! The order of keys, kept from one look at it to the next.

use crate::state::KeyIndex;

/// Live slots in key order, mended instead of sorted anew.
#[derive(Default)]
pub(super) struct Order {
    sorted: Vec<u32>,
    added: Vec<u32>,
    dead: Vec<bool>,
    any_dead: bool,
}

impl Order {
    /// `holders` says which of the added are still there.
    pub(super) fn add(&mut self, slot: u32, holders: &[u32]) {
        // Keys that come and go while nobody asks for the order would otherwise be listed again and again.
        if self.added.len() > 2 * holders.len() + 1024 {
            self.compact(holders);
        }
        self.added.push(slot);
    }

    fn compact(&mut self, holders: &[u32]) {
        self.added.retain(|&slot| holders[slot as usize] > 0);
        self.added.sort_unstable();
        self.added.dedup();
    }

    pub(super) fn remove(&mut self, slot: u32) {
        if self.dead.len() <= slot as usize {
            self.dead.resize(slot as usize + 1, false);
        }
        self.dead[slot as usize] = true;
        self.any_dead = true;
    }

    /// `holders` says which of the added are still there.
    pub(super) fn refresh(&mut self, index: &KeyIndex, holders: &[u32]) -> &[u32] {
        if self.any_dead {
            self.sorted.retain(|&slot| !self.dead.get(slot as usize).copied().unwrap_or(false));
            self.dead.clear();
            self.any_dead = false;
        }
        if !self.added.is_empty() {
            self.added.retain(|&slot| holders[slot as usize] > 0);
            index.sort(&mut self.added);
            self.added.dedup();
            let old = std::mem::take(&mut self.sorted);
            self.sorted.reserve(old.len() + self.added.len());
            let mut added = self.added.drain(..).peekable();
            for slot in old {
                while let Some(next) = added.next_if(|&next| index.compare(next, slot).is_lt()) {
                    self.sorted.push(next);
                }
                self.sorted.push(slot);
            }
            self.sorted.extend(added);
        }
        &self.sorted
    }
}
