//! Where an entry lives in a store: key group | table | key.
//!
//! Invariant: the layout and the hash are frozen; a snapshot is read back by them after any upgrade, and rescale copies
//! contiguous ranges of key groups.

use super::{StateStore, TableContext, WriteBatch};
use crate::error::{Error, Result};
use crate::record::KeyGroup;
use std::ops::Range;
use std::sync::Arc;
use twox_hash::XxHash3_64;

/// Bytes in front of the key: key group and table.
pub(super) const PREFIX: usize = 6;

/// The frozen id of an operator's table: the high half of the xxh3-64 of operator, a zero byte, and name.
///
/// Two tables of one task with one id would mix their entries; whoever opens them refuses that.
///
/// ```
/// use waterwheel_engine::state::table_id;
/// assert_ne!(table_id("totals", "window"), table_id("totals", "timers"));
/// ```
pub fn table_id(operator: &str, name: &str) -> u32 {
    let mut text = Vec::with_capacity(operator.len() + name.len() + 1);
    text.extend_from_slice(operator.as_bytes());
    text.push(0);
    text.extend_from_slice(name.as_bytes());
    (XxHash3_64::oneshot(&text) >> 32) as u32
}

/// The full key of an entry in a store.
///
/// ```
/// use waterwheel_engine::state::state_key;
/// assert_eq!(state_key(1, 2, b"k"), [0, 1, 0, 0, 0, 2, b'k']);
/// ```
pub fn state_key(group: KeyGroup, table: u32, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(PREFIX + key.len());
    push_key(&mut out, group, table, key);
    out
}

/// Appends the full key of an entry.
pub(super) fn push_key(out: &mut Vec<u8>, group: KeyGroup, table: u32, key: &[u8]) {
    out.extend_from_slice(&group.to_be_bytes());
    out.extend_from_slice(&table.to_be_bytes());
    out.extend_from_slice(key);
}

/// First key of a table in a group, and the first key after it.
pub(super) fn table_range(group: KeyGroup, table: u32) -> (Vec<u8>, Vec<u8>) {
    let at = (u64::from(group) << 32) | u64::from(table);
    let bound = |v: u64| v.to_be_bytes()[2..].to_vec();
    (bound(at), bound(at + 1))
}

/// First key of the groups, and the first key after them.
pub(super) fn group_range(groups: &Range<KeyGroup>) -> (Vec<u8>, Vec<u8>) {
    (groups.start.to_be_bytes().to_vec(), groups.end.to_be_bytes().to_vec())
}

/// Bytes of a time that order as the time does.
pub(super) fn time_bytes(ms: i64) -> [u8; 8] {
    ((ms as u64) ^ (1 << 63)).to_be_bytes()
}

/// The time at the front of `bytes`, and the rest.
pub(super) fn split_time(bytes: &[u8]) -> Result<(i64, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<8>().ok_or_else(|| damaged("a time is cut short"))?;
    Ok(((u64::from_be_bytes(*head) ^ (1 << 63)) as i64, rest))
}

/// Content that no version of this table writes.
pub(super) fn damaged(what: &str) -> Error {
    Error::fatal(format!("state is damaged: {what}")).help("restore an older checkpoint: its files are verified before use")
}

/// An opened table's place in its store.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) store: Arc<dyn StateStore>,
    pub(super) groups: Range<KeyGroup>,
    pub(super) max_parallelism: u16,
    pub(super) table: u32,
    pub(super) operator: String,
    pub(super) label: String,
}

impl Place {
    pub(super) fn new(context: &TableContext, name: &str) -> Place {
        Place {
            store: context.store.clone(),
            groups: context.groups.clone(),
            max_parallelism: context.max_parallelism,
            table: table_id(&context.operator, name),
            operator: context.operator.clone(),
            label: format!("operator {}, table {name}", context.operator),
        }
    }

    /// Visits every entry of the table in the owned groups: group, key, value.
    pub(super) fn scan(&self, mut visit: impl FnMut(KeyGroup, &[u8], &[u8]) -> Result<()>) -> Result<()> {
        for group in self.groups.clone() {
            let (from, to) = table_range(group, self.table);
            self.store.scan(&from, &to, &mut |key, value| visit(group, &key[PREFIX..], value)).map_err(|e| e.at(self.label.clone()))?;
        }
        Ok(())
    }

    /// Visits entries of the table in a group from `first` on, group and table left out, as long as `visit` says so.
    pub(super) fn scan_from(&self, group: KeyGroup, first: &[u8], mut visit: impl FnMut(&[u8], &[u8]) -> Result<bool>) -> Result<()> {
        let (from, (_, to)) = (state_key(group, self.table, first), table_range(group, self.table));
        let mut enough = false;
        let scanned = self.store.scan(&from, &to, &mut |key, value| {
            enough = !visit(&key[PREFIX..], value)?;
            // The scan of a store ends early by an error and no other way.
            if enough { Err(Error::fatal("enough was read")) } else { Ok(()) }
        });
        if enough { Ok(()) } else { scanned.map_err(|e| e.at(self.label.clone())) }
    }
}

/// A number that belongs to a whole table (how far it has expired), kept once per key group so that it survives a rescale.
pub(super) struct Mark {
    name: String,
    current: i64,
    frozen: i64,
    stored: i64,
}

impl Mark {
    pub(super) fn new(table: &str) -> Mark {
        Mark { name: format!("{table}/mark"), current: i64::MIN, frozen: i64::MIN, stored: i64::MIN }
    }

    pub(super) fn get(&self) -> i64 {
        self.current
    }

    /// As of the last freeze.
    pub(super) fn frozen(&self) -> i64 {
        self.frozen
    }

    pub(super) fn raise(&mut self, to: i64) {
        self.current = self.current.max(to);
    }

    pub(super) fn freeze(&mut self) {
        self.frozen = self.current;
    }

    pub(super) fn drain(&mut self, place: &Place, out: &mut WriteBatch) {
        if self.stored == self.frozen {
            return;
        }
        let table = table_id(&place.operator, &self.name);
        for group in place.groups.clone() {
            out.put(state_key(group, table, &[]), time_bytes(self.frozen));
        }
        self.stored = self.frozen;
    }

    /// Every old task had the same mark at the barrier; the smallest is the safe one should they differ.
    pub(super) fn restore(&mut self, place: &Place) -> Result<()> {
        let table = table_id(&place.operator, &self.name);
        let keys: Vec<_> = place.groups.clone().map(|group| state_key(group, table, &[])).collect();
        let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
        let mut least = None;
        place.store.multi_get(&keys, &mut |_, value| {
            let (mark, _) = split_time(value)?;
            least = Some(least.map_or(mark, |l: i64| l.min(mark)));
            Ok(())
        })?;
        let mark = least.unwrap_or(i64::MIN);
        (self.current, self.frozen, self.stored) = (mark, mark, mark);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frozen: a change here loses the state of every running job.
    #[test]
    fn table_id_test_vectors() {
        let ids = [table_id("", ""), table_id("totals", "window"), table_id("totals\0window", "")];
        assert_eq!(ids.map(|id| format!("{id:08x}")), ["c44bdff4", "438d1d8c", "3a61e6d9"]);
    }

    #[test]
    fn the_last_table_of_a_group_ends_where_the_next_group_starts() {
        let (from, to) = table_range(7, u32::MAX);
        assert_eq!(from, state_key(7, u32::MAX, &[]));
        assert_eq!(to, state_key(8, 0, &[]));
    }

    #[test]
    fn times_order_as_bytes() {
        let times = [i64::MIN, -1, 0, 1, i64::MAX];
        assert!(times.windows(2).all(|w| time_bytes(w[0]) < time_bytes(w[1])));
        assert!(times.iter().all(|&t| split_time(&time_bytes(t)).unwrap().0 == t));
        assert!(split_time(b"short").is_err());
    }
}
