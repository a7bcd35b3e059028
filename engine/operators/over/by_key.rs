//! Frames that are kept as one value a key: the aggregate of all rows so far, or the last rows.
//!
//! Invariant: what a key has is never older than its time to live at the turn of its next row, whenever the watermark was told.

use super::kernel::{OverKernel, Place, Results};
use super::stacks::{Stacks, TimedRow};
use super::{Frame, Frames, OverOptions, order_peers};
use crate::error::Result;
use crate::operators::Output;
use crate::record::Keys;
use crate::state::{AppendTable, PointTable, StateValue, Table, Waiting};
use crate::time::EventTime;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Rows that have their turn together, and keys whose last results leave together.
const AT_ONCE: usize = 4096;

/// What is kept of a key.
pub(super) trait Kept<K: OverKernel>: StateValue {
    /// Of no rows.
    fn none(kernel: &K) -> Self;
    /// Rows of one time have their turn.
    fn turn(&mut self, frame: Frame, peers: &[&[u8]], time: EventTime, results: &mut Results<K>, out: &mut Output<'_>) -> Result<()>;
    /// Nothing that a later row could see.
    fn is_empty(&self) -> bool;
    /// The aggregate that last results are made of.
    fn at_end(&self) -> Option<&K::Acc>;
}

/// The time of the key's last row, and what is kept.
type Dated<V> = (i64, V);

/// See the module's header.
pub(super) struct ByKey<V> {
    frame: Frame,
    ttl_ms: Option<i64>,
    table: PointTable<Dated<V>>,
    slots: Vec<u32>,
}

impl<V: StateValue> ByKey<V> {
    pub(super) fn new(options: &OverOptions) -> Self {
        let table = PointTable::new("frames").with_key(options.keys.clone());
        let table = match options.ttl_ms {
            Some(ttl) => table.with_ttl(ttl),
            None => table,
        };
        ByKey { frame: options.frame, ttl_ms: options.ttl_ms, table, slots: Vec::new() }
    }

    /// Rows whose turn has come, in order.
    fn turns<K: OverKernel>(
        &mut self,
        rows: &mut AppendTable,
        due: &[(EventTime, Waiting)],
        results: &mut Results<K>,
        out: &mut Output<'_>,
    ) -> Result<()>
    where
        V: Kept<K>,
    {
        let keys = rows.index().keys(due.iter().map(|(_, waiting)| waiting.slot));
        self.table.resolve(&keys, &mut self.slots)?;
        let mut first = 0;
        for peers in due.chunk_by(|a, b| a.0 == b.0 && a.1.slot == b.1.slot) {
            let (time, slot) = (peers[0].0, self.slots[first]);
            first += peers.len();
            let mut peers: Vec<Waiting> = peers.iter().map(|peer| peer.1).collect();
            order_peers(results.kernel(), rows, &mut peers)?;
            let read = peers.iter().map(|peer| rows.bytes_of(peer.row)).collect::<Result<Vec<_>>>()?;
            let bytes: Vec<&[u8]> = read.iter().map(|row| &**row).collect();
            let value = self.table.get_mut(slot);
            if self.ttl_ms.is_some_and(|ttl| value.as_ref().is_some_and(|(last, _)| last.saturating_add(ttl) <= time.0)) {
                *value = None;
            }
            let (last, kept) = value.get_or_insert_with(|| (time.0, V::none(results.kernel())));
            *last = time.0;
            kept.turn(self.frame, &bytes, time, results, out)?;
            if kept.is_empty() {
                self.table.remove(slot);
            } else {
                self.table.touch(slot, time);
            }
            peers.iter().try_for_each(|peer| rows.release(peer.row))?;
        }
        Ok(())
    }
}

impl<K: OverKernel, V: Kept<K>> Frames<K> for ByKey<V> {
    fn table(&mut self) -> Option<&mut dyn Table> {
        Some(&mut self.table)
    }

    fn advance(&mut self, rows: &mut AppendTable, watermark: EventTime, results: &mut Results<K>, out: &mut Output<'_>) -> Result<()> {
        let (mut due, mut of_time) = (Vec::new(), Vec::new());
        loop {
            due.clear();
            while due.len() < AT_ONCE
                && let Some(time) = rows.take_due(watermark, &mut of_time)
            {
                due.extend(of_time.iter().map(|&waiting| (time, waiting)));
            }
            if due.is_empty() {
                break;
            }
            self.turns(rows, &due, results, out)?;
        }
        rows.set_floor(super::ROWS, watermark.plus_ms(1));
        if self.ttl_ms.is_some() {
            self.table.expire(watermark);
        }
        Ok(())
    }

    fn end(&mut self, results: &mut Results<K>, out: &mut Output<'_>) -> Result<()> {
        if !results.kernel().finishes() {
            return Ok(());
        }
        let mut keys: Vec<Vec<u8>> = Vec::new();
        self.table.for_each(|key, _| keys.push(key.to_vec()))?;
        for keys in keys.chunks(AT_ONCE) {
            let resolved = Keys::from_bytes(keys.len(), |i, bytes| bytes.extend_from_slice(&keys[i]));
            self.table.resolve(&resolved, &mut self.slots)?;
            for &slot in &self.slots {
                if let Some((_, kept)) = self.table.remove(slot)
                    && let Some(acc) = kept.at_end()
                {
                    results.finish(acc, EventTime::MAX, out)?;
                }
            }
        }
        Ok(())
    }
}

/// The aggregate of all rows so far.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct All<A>(A);

impl<K: OverKernel> Kept<K> for All<K::Acc> {
    fn none(kernel: &K) -> Self {
        All(kernel.create())
    }

    fn turn(&mut self, frame: Frame, peers: &[&[u8]], time: EventTime, results: &mut Results<K>, out: &mut Output<'_>) -> Result<()> {
        let mut in_frame = Vec::with_capacity(peers.len());
        for &row in peers {
            match results.kernel().fold(&mut self.0, row, time)? {
                Err(error) => out.reject(None, time, error)?,
                Ok(()) => {
                    in_frame.push(row);
                    if matches!(frame, Frame::Rows(_)) {
                        let place = Place { index: in_frame.len() - 1, peers: in_frame.len() };
                        results.emit(row, Ok(&self.0), place, time, out)?;
                    }
                }
            }
        }
        if matches!(frame, Frame::Rows(_)) {
            return Ok(());
        }
        let peers = in_frame.len();
        in_frame.iter().enumerate().try_for_each(|(index, row)| results.emit(row, Ok(&self.0), Place { index, peers }, time, out))
    }

    fn is_empty(&self) -> bool {
        false
    }

    fn at_end(&self) -> Option<&K::Acc> {
        Some(&self.0)
    }
}

/// The last rows, and their aggregate.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub(super) struct Last<A> {
    /// Time and encoded row, the oldest first.
    rows: VecDeque<(i64, Vec<u8>)>,
    /// So many of them are before the boundary.
    before: u64,
    /// Made of the others when it is needed first.
    #[serde(skip)]
    stacks: Option<Stacks<A>>,
}

fn timed(rows: &VecDeque<(i64, Vec<u8>)>) -> Vec<TimedRow<'_>> {
    rows.iter().map(|(time, row)| (&row[..], EventTime(*time))).collect()
}

impl<K: OverKernel> Kept<K> for Last<K::Acc> {
    fn none(_kernel: &K) -> Self {
        Last { rows: VecDeque::new(), before: 0, stacks: None }
    }

    fn turn(&mut self, frame: Frame, peers: &[&[u8]], time: EventTime, results: &mut Results<K>, out: &mut Output<'_>) -> Result<()> {
        let Frame::Rows(Some(depth)) = frame else { unreachable!("plan bug: last rows without their number") };
        let mut stacks = match self.stacks.take() {
            Some(stacks) => stacks,
            None => Stacks::of(results.kernel(), &timed(&self.rows), self.before as usize)?,
        };
        let mut index = 0;
        for &row in peers {
            if let Err(error) = stacks.push(results.kernel(), (row, time))? {
                out.reject(None, time, error)?;
                stacks.refold(results.kernel(), &timed(&self.rows)[stacks.before()..])?;
                continue;
            }
            self.rows.push_back((time.0, row.to_vec()));
            let place = Place { index, peers: (index + 1).min(depth as usize + 1) };
            index += 1;
            results.emit(row, stacks.total(results.kernel()).as_ref(), place, time, out)?;
            if self.rows.len() > depth as usize {
                self.rows.pop_front();
                if !stacks.pop() {
                    stacks.move_boundary(results.kernel(), &timed(&self.rows))?;
                }
            }
        }
        self.before = stacks.before() as u64;
        self.stacks = Some(stacks);
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn at_end(&self) -> Option<&K::Acc> {
        None
    }
}
