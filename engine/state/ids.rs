//! A set of small numbers: which entries have changed since the last barrier.
//!
//! A bit each, so that it costs next to nothing however many there are, and never lists one twice.
//!
//! Invariant: no id below `from` is in the set, and `len` is how many are.

/// See the module's header.
#[derive(Debug, Default)]
pub(super) struct Ids {
    words: Vec<u64>,
    len: usize,
    from: u32,
}

impl Ids {
    /// Adds an id.
    #[inline]
    pub(super) fn insert(&mut self, id: u32) {
        let word = id as usize / 64;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let bit = 1 << (id % 64);
        self.len += usize::from(self.words[word] & bit == 0);
        self.words[word] |= bit;
        self.from = self.from.min(id);
    }

    /// Takes the least id out.
    pub(super) fn pop(&mut self) -> Option<u32> {
        if self.len == 0 {
            return None;
        }
        let mut word = self.from as usize / 64;
        while self.words[word] == 0 {
            word += 1;
        }
        let id = word as u32 * 64 + self.words[word].trailing_zeros();
        self.words[word] &= self.words[word] - 1;
        self.len -= 1;
        self.from = if self.len == 0 { 0 } else { id };
        Some(id)
    }

    /// No id.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Moves all of `other` here.
    pub(super) fn append(&mut self, other: &mut Ids) {
        if self.is_empty() {
            return std::mem::swap(self, other);
        }
        while let Some(id) = other.pop() {
            self.insert(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set_in_order(script in proptest::collection::vec(proptest::option::of(0u32..300), 0..200), more in proptest::collection::vec(0u32..300, 0..20)) {
            let (mut ids, mut model) = (Ids::default(), BTreeSet::new());
            for step in script {
                match step {
                    Some(id) => {
                        ids.insert(id);
                        model.insert(id);
                    }
                    None => prop_assert_eq!(ids.pop(), model.pop_first()),
                }
                prop_assert_eq!(ids.is_empty(), model.is_empty());
            }
            let mut other = Ids::default();
            more.iter().for_each(|&id| other.insert(id));
            model.extend(more);
            ids.append(&mut other);
            prop_assert!(other.is_empty() && other.pop().is_none());
            prop_assert_eq!(std::iter::from_fn(|| ids.pop()).collect::<Vec<_>>(), model.into_iter().collect::<Vec<_>>());
        }
    }
}
