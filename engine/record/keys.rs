//! The key column of a batch: canonical bytes and their frozen hash, one a row.
//!
//! Invariant: `hash(i)` is xxh3-64 (seed 0) of `bytes(i)`, whatever the layout; routing and state rest on it.

use super::Key;
use crate::error::{Error, Result};
use twox_hash::XxHash3_64;

/// Keys of a batch. Keys of 8 bytes are carried as numbers (their big-endian bytes are the canonical encoding).
#[derive(Debug, Clone)]
pub struct Keys {
    layout: Layout,
    hashes: Vec<u64>,
}

#[derive(Debug, Clone)]
enum Layout {
    U64(Vec<u64>),
    Bytes { data: Vec<u8>, ends: Vec<u32> },
}

impl Default for Keys {
    /// No keys.
    fn default() -> Self {
        Keys { layout: Layout::Bytes { data: Vec::new(), ends: Vec::new() }, hashes: Vec::new() }
    }
}

impl Keys {
    /// Encodes the keys of rows.
    pub fn encode<K: Key>(keys: impl ExactSizeIterator<Item = K>) -> Self {
        let n = keys.len();
        let mut keys = keys.peekable();
        if keys.peek().is_some_and(|k| k.as_u64().is_some()) {
            let numbers: Vec<u64> = keys.map(|k| k.as_u64().unwrap_or_default()).collect();
            let hashes = numbers.iter().map(|v| XxHash3_64::oneshot(&v.to_be_bytes())).collect();
            return Keys { layout: Layout::U64(numbers), hashes };
        }
        Keys::from_bytes(n, |_, out| {
            if let Some(key) = keys.next() {
                key.encode(out);
            }
        })
    }

    /// Keys whose canonical bytes are made elsewhere: `write(i, out)` appends those of row `i`.
    ///
    /// ```
    /// use waterwheel_engine::record::{Key, Keys};
    /// let keys = Keys::from_bytes(2, |i, out| (i as u32).encode(out));
    /// assert_eq!(keys.hashes(), Keys::encode([0u32, 1].into_iter()).hashes());
    /// ```
    pub fn from_bytes(rows: usize, mut write: impl FnMut(usize, &mut Vec<u8>)) -> Self {
        let (mut data, mut ends, mut hashes) = (Vec::with_capacity(rows * 16), Vec::with_capacity(rows), Vec::with_capacity(rows));
        for row in 0..rows {
            let start = data.len();
            write(row, &mut data);
            ends.push(u32::try_from(data.len()).unwrap_or(u32::MAX));
            hashes.push(XxHash3_64::oneshot(&data[start..]));
        }
        assert!(data.len() <= u32::MAX as usize, "keys of one batch exceed 4 GiB");
        Keys { layout: Layout::Bytes { data, ends }, hashes }
    }

    /// One key, given as canonical bytes.
    pub fn of_bytes(key: &[u8]) -> Self {
        let layout = Layout::Bytes { data: key.to_vec(), ends: vec![key.len() as u32] };
        Keys { layout, hashes: vec![XxHash3_64::oneshot(key)] }
    }

    /// Appends a key of type `K`, given by its canonical bytes. A batch takes keys of one type.
    ///
    /// # Errors
    /// The bytes are no key of that type.
    ///
    /// ```
    /// # use waterwheel_engine::record::Keys;
    /// let mut keys = Keys::default();
    /// keys.push_encoded::<u64>(&7u64.to_be_bytes())?;
    /// assert_eq!(keys.as_u64(), Some(&[7][..]));
    /// # Ok::<(), waterwheel_engine::error::Error>(())
    /// ```
    pub fn push_encoded<K: Key>(&mut self, bytes: &[u8]) -> Result<()> {
        if self.is_empty() && self.as_u64().is_none() && K::decode(&mut &bytes[..])?.as_u64().is_some() {
            self.layout = Layout::U64(Vec::new());
        }
        match &mut self.layout {
            Layout::U64(numbers) => {
                let number = bytes.try_into().map_err(|_| Error::fatal("a key of 8 bytes has another length in state"))?;
                numbers.push(u64::from_be_bytes(number));
            }
            Layout::Bytes { data, ends } => {
                data.extend_from_slice(bytes);
                assert!(data.len() <= u32::MAX as usize, "keys of one batch exceed 4 GiB");
                ends.push(data.len() as u32);
            }
        }
        self.hashes.push(XxHash3_64::oneshot(bytes));
        Ok(())
    }

    /// Forgets all keys, for others of the same type.
    pub(crate) fn clear(&mut self) {
        self.hashes.clear();
        match &mut self.layout {
            Layout::U64(numbers) => numbers.clear(),
            Layout::Bytes { data, ends } => {
                data.clear();
                ends.clear();
            }
        }
    }

    /// Keys of 8 bytes, as numbers, with their hashes.
    pub(crate) fn of_numbers(numbers: Vec<u64>, hashes: Vec<u64>) -> Self {
        debug_assert_eq!(numbers.len(), hashes.len());
        Keys { layout: Layout::U64(numbers), hashes }
    }

    /// Keys as canonical bytes, with their hashes.
    pub(crate) fn of_column<'a>(keys: impl Iterator<Item = &'a [u8]>, hashes: Vec<u64>) -> Self {
        let (mut data, mut ends) = (Vec::with_capacity(hashes.len() * 16), Vec::with_capacity(hashes.len()));
        for key in keys {
            data.extend_from_slice(key);
            assert!(data.len() <= u32::MAX as usize, "keys of one batch exceed 4 GiB");
            ends.push(data.len() as u32);
        }
        debug_assert_eq!(ends.len(), hashes.len());
        Keys { layout: Layout::Bytes { data, ends }, hashes }
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// No rows.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The frozen hash of each row's key.
    pub fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    /// The keys as numbers when all are 8 bytes.
    pub fn as_u64(&self) -> Option<&[u64]> {
        match &self.layout {
            Layout::U64(v) => Some(v),
            Layout::Bytes { .. } => None,
        }
    }

    /// Canonical bytes of row `i`, through a scratch for number keys.
    pub fn bytes<'a>(&'a self, i: usize, scratch: &'a mut [u8; 8]) -> &'a [u8] {
        match &self.layout {
            Layout::U64(v) => {
                *scratch = v[i].to_be_bytes();
                scratch
            }
            Layout::Bytes { data, ends } => {
                let start = if i == 0 { 0 } else { ends[i - 1] as usize };
                &data[start..ends[i] as usize]
            }
        }
    }

    /// Approximate heap bytes.
    pub fn heap_bytes(&self) -> usize {
        let body = match &self.layout {
            Layout::U64(v) => v.len() * 8,
            Layout::Bytes { data, ends } => data.len() + ends.len() * 4,
        };
        body + self.hashes.len() * 8
    }

    /// Deals rows out as [`Batch::scatter`](super::Batch::scatter) does.
    pub fn scatter(&self, targets: &[u32], parts: usize) -> Vec<Keys> {
        let mut out: Vec<Keys> = (0..parts).map(|_| self.empty_like()).collect();
        let mut scratch = [0; 8];
        for (i, &t) in targets.iter().enumerate() {
            let part = &mut out[t as usize];
            match (&mut part.layout, &self.layout) {
                (Layout::U64(to), Layout::U64(from)) => to.push(from[i]),
                (Layout::Bytes { data, ends }, Layout::Bytes { .. }) => {
                    data.extend_from_slice(self.bytes(i, &mut scratch));
                    ends.push(data.len() as u32);
                }
                _ => unreachable!("parts are made with the layout of the whole"),
            }
            part.hashes.push(self.hashes[i]);
        }
        out
    }

    /// The rows named, in that order.
    pub fn gather(&self, rows: &[u32]) -> Keys {
        let mut out = self.empty_like();
        let mut scratch = [0; 8];
        for &r in rows {
            let i = r as usize;
            match (&mut out.layout, &self.layout) {
                (Layout::U64(to), Layout::U64(from)) => to.push(from[i]),
                (Layout::Bytes { data, ends }, _) => {
                    data.extend_from_slice(self.bytes(i, &mut scratch));
                    ends.push(data.len() as u32);
                }
                _ => unreachable!("made with the layout of the whole"),
            }
            out.hashes.push(self.hashes[i]);
        }
        out
    }

    fn empty_like(&self) -> Keys {
        let layout = match &self.layout {
            Layout::U64(_) => Layout::U64(Vec::new()),
            Layout::Bytes { .. } => Layout::Bytes { data: Vec::new(), ends: Vec::new() },
        };
        Keys { layout, hashes: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frozen: a change here breaks the state and the routing of every running job.
    #[test]
    fn hash_test_vectors() {
        let strings = Keys::encode(["", "a", "card-4271"].map(String::from).into_iter());
        let numbers = Keys::encode([0u64, 1, u64::MAX].into_iter());
        let got: Vec<String> = strings.hashes().iter().chain(numbers.hashes()).map(|h| format!("{h:016x}")).collect();
        assert_eq!(got, VECTORS);
    }
    const VECTORS: [&str; 6] =
        ["3325230e1f285505", "2c93f5437209540f", "ebc861d4b18d66d2", "c77b3abb6f87acd9", "f36b4a1a44f78bf3", "5111c7e47d784413"];

    #[test]
    fn number_layout_and_byte_layout_agree() {
        let numbers = Keys::encode([7i64, -7].into_iter());
        let mut bytes = Vec::new();
        7i64.encode(&mut bytes);
        assert_eq!(numbers.bytes(0, &mut [0; 8]), &bytes[..]);
        assert_eq!(numbers.hashes()[0], XxHash3_64::oneshot(&bytes));
    }

    #[test]
    fn scatter_and_gather_keep_rows_whole() {
        let keys = Keys::encode(["x", "yy", "zzz"].map(String::from).into_iter());
        let parts = keys.scatter(&[1, 0, 1], 2);
        assert_eq!(parts[1].bytes(1, &mut [0; 8]), keys.bytes(2, &mut [0; 8]));
        assert_eq!(keys.gather(&[2]).hashes(), &keys.hashes()[2..]);
    }
}
