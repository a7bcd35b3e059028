//! Bytes that name something: keys by slot, and the names of entries.
//!
//! Invariant: a span is valid until it is freed; freed space is reused for bytes of the same size class, so that churn needs no
//! compaction.

use super::index::touch;

/// Bytes are handed out in units, so that a `u32` addresses 32 GiB.
const UNIT: usize = 8;

/// Longer ones share size classes by powers of two.
const EXACT_CLASSES: usize = 64;

/// Where some bytes are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Span {
    /// In units.
    at: u32,
    len: u32,
}

/// Bytes by span.
#[derive(Debug, Default)]
pub(super) struct Spans {
    data: Vec<u8>,
    free: Vec<Vec<u32>>,
    /// Units in use.
    used: usize,
}

/// Size class and units of so many bytes.
fn class(len: usize) -> (usize, usize) {
    let units = len.div_ceil(UNIT);
    if units < EXACT_CLASSES {
        return (units, units);
    }
    let rounded = units.next_power_of_two();
    (EXACT_CLASSES + rounded.trailing_zeros() as usize, rounded)
}

impl Spans {
    fn get(&self, span: Span) -> &[u8] {
        let start = span.at as usize * UNIT;
        &self.data[start..start + span.len as usize]
    }

    /// Reads something of a span, see [`touch`]; of one that was freed too.
    fn touch(&self, span: Span) -> usize {
        self.data.get(span.at as usize * UNIT).copied().unwrap_or_default() as usize
    }

    /// Takes up the bytes of some parts in a row.
    fn push(&mut self, parts: [&[u8]; 2]) -> Span {
        let len = parts[0].len() + parts[1].len();
        let (class, units) = class(len);
        let at = match self.free.get_mut(class).and_then(Vec::pop) {
            Some(at) => at,
            None => {
                let at = self.data.len() / UNIT;
                assert!(at + units <= u32::MAX as usize, "the keys of one table exceed 32 GiB");
                self.data.resize(self.data.len() + units * UNIT, 0);
                at as u32
            }
        };
        self.used += units;
        let (first, second) = self.data[at as usize * UNIT..][..len].split_at_mut(parts[0].len());
        first.copy_from_slice(parts[0]);
        second.copy_from_slice(parts[1]);
        Span { at, len: len as u32 }
    }

    /// Bytes in use.
    pub(super) fn bytes(&self) -> usize {
        self.used * UNIT
    }

    fn free(&mut self, span: Span) {
        let (class, units) = class(span.len as usize);
        if self.free.len() <= class {
            self.free.resize_with(class + 1, Vec::new);
        }
        self.free[class].push(span.at);
        self.used -= units;
    }
}

/// Key bytes by slot.
#[derive(Debug, Default)]
pub(super) struct Arena {
    bytes: Spans,
    spans: Vec<Span>,
}

impl Arena {
    pub(super) fn get(&self, slot: u32) -> &[u8] {
        self.bytes.get(self.spans[slot as usize])
    }

    /// Fetches the bytes of some slots into the cache.
    pub(super) fn touch(&self, slots: impl Iterator<Item = u32>) {
        touch(slots, |slot| self.spans.get(slot as usize).map_or(0, |&span| self.bytes.touch(span)));
    }

    pub(super) fn set(&mut self, slot: u32, key: &[u8]) {
        let span = self.bytes.push([key, &[]]);
        if self.spans.len() <= slot as usize {
            self.spans.resize(slot as usize + 1, Span::default());
        }
        self.spans[slot as usize] = span;
    }

    /// Bytes in use.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.bytes()
    }

    pub(super) fn free(&mut self, slot: u32) {
        self.bytes.free(self.spans[slot as usize]);
    }
}

/// Bytes of a short name.
const SHORT: usize = 16;

/// In place of the length of a short name.
const LONG: u8 = u8::MAX;

/// Key and tag of an entry. Most are short and lie in here, so that whoever has the entry in its cache has the name; of long
/// ones it says where they are.
#[derive(Debug)]
pub(super) struct Name {
    bytes: [u8; SHORT],
    len: u8,
    key_len: u8,
}

impl Name {
    pub(super) fn new(key: &[u8], tag: &[u8], long: &mut Spans) -> Name {
        let (mut bytes, len) = ([0; SHORT], key.len() + tag.len());
        if len <= SHORT {
            bytes[..key.len()].copy_from_slice(key);
            bytes[key.len()..len].copy_from_slice(tag);
            return Name { bytes, len: len as u8, key_len: key.len() as u8 };
        }
        let Span { at, len } = long.push([key, tag]);
        for (place, number) in bytes.chunks_exact_mut(4).zip([at, len, key.len() as u32]) {
            place.copy_from_slice(&number.to_ne_bytes());
        }
        Name { bytes, len: LONG, key_len: 0 }
    }

    /// Where a long name is, and the length of its key.
    fn long(&self) -> Option<(Span, usize)> {
        let ([at, len, key_len, _], []) = self.bytes.as_chunks::<4>() else { unreachable!("four numbers have room") };
        let (at, len, key_len) = (u32::from_ne_bytes(*at), u32::from_ne_bytes(*len), u32::from_ne_bytes(*key_len));
        (self.len == LONG).then_some((Span { at, len }, key_len as usize))
    }

    /// Key and tag.
    #[inline]
    pub(super) fn get<'a>(&'a self, long: &'a Spans) -> (&'a [u8], &'a [u8]) {
        match self.long() {
            None => self.bytes[..usize::from(self.len)].split_at(usize::from(self.key_len)),
            Some((span, key_len)) => long.get(span).split_at(key_len),
        }
    }

    /// Reads something of a long name, see [`touch`].
    pub(super) fn touch(&self, long: &Spans) -> usize {
        self.long().map_or(0, |(span, _)| long.touch(span))
    }

    /// The entry is gone.
    pub(super) fn free(&mut self, long: &mut Spans) {
        if let Some((span, _)) = self.long() {
            long.free(span);
        }
        (self.len, self.key_len) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn names_are_as_they_were_given_under_churn(
            script in proptest::collection::vec((0usize..8, 0usize..600, 0usize..20, any::<u8>()), 0..100),
        ) {
            let (mut long, mut names) = (Spans::default(), Vec::<(Name, Vec<u8>, Vec<u8>)>::new());
            for (at, key, tag, byte) in script {
                if at < names.len() {
                    names.swap_remove(at).0.free(&mut long);
                }
                let (key, tag) = (vec![byte; key % 40 * (key / 40 + 1)], vec![!byte; tag]);
                names.push((Name::new(&key, &tag, &mut long), key, tag));
                for (name, key, tag) in &names {
                    prop_assert_eq!(name.get(&long), (&key[..], &tag[..]));
                }
            }
            names.iter_mut().for_each(|(name, ..)| name.free(&mut long));
            prop_assert_eq!(long.bytes(), 0);
        }
    }
}
