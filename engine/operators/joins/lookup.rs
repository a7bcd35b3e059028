//! Lookup join: each row of a stream with the rows of its key that a table has when the row comes.
//!
//! The table is read in first: until its watermark says that this is done, nothing is taken from the stream. Of a table that
//! does not change after that, the results are the same whatever comes when.
//!
//! Invariant: a row leaves at once, with its own time, with each row of the table (in the order of their bytes), or by itself
//! where the kind wants it; later changes of the table do not touch it. The table is a bag: of equal rows each is met.

use super::kernel::EncodedRows;
use super::matches::{JoinKind, Matches};
use super::pairings::Pairings;
use super::{LEFT, PairKernel, RIGHT};
use crate::error::{Error, Result};
use crate::operators::bootstrap::Bootstrap;
use crate::operators::guarded::guarded_call;
use crate::operators::{OpenContext, Operator, OperatorFactory, Output, TABLE_INPUT, check_description};
use crate::record::{Batch, BatchBox};
use crate::state::{MapTable, Table};
use crate::time::EventTime;
use std::borrow::Cow;
use std::sync::Arc;

/// A lookup join of a stream (input 0) with a table (input 1), both keyed by keys of one type; `kind` is inner, left, semi or
/// anti. `kernel` makes a kernel per task.
pub fn lookup_join<N: PairKernel>(kind: JoinKind, kernel: impl Fn() -> N + Send + Sync + 'static) -> OperatorFactory {
    Arc::new(move || {
        let kernel = kernel();
        Box::new(LookupJoin {
            bags: MapTable::new("table").with_key(kernel.key()),
            matches: Matches::new(kind, kernel),
            bootstrap: Bootstrap::default(),
            slots: Vec::new(),
            scratch: Vec::new(),
            encoded: EncodedRows::default(),
        })
    })
}

struct LookupJoin<N> {
    /// By key and encoded row: how often it is there.
    bags: MapTable<i64>,
    matches: Matches<N>,
    bootstrap: Bootstrap,
    slots: Vec<u32>,
    scratch: Vec<u8>,
    encoded: EncodedRows,
}

impl<N: PairKernel> LookupJoin<N> {
    /// All rows of a batch of the stream meet the table at once; their slots are known.
    fn meet_all(&mut self, batch: &dyn Batch, out: &mut Output<'_>) -> Result<()> {
        let LookupJoin { bags, matches, slots, encoded, .. } = self;
        let kernel = matches.kernel_mut();
        let bad = kernel.encode_all(LEFT, batch, encoded);
        let mut pairs = Pairings::of(LEFT, batch, encoded);
        for (row, &slot) in slots.iter().enumerate() {
            if !bad.is_empty() && bad.iter().any(|(bad, _)| *bad == row) {
                continue;
            }
            for (partner, &copies) in bags.entries(slot) {
                (0..copies).try_for_each(|_| pairs.add(row, Cow::Borrowed(partner), kernel, out))?;
            }
        }
        pairs.flush(kernel, out)?;
        bad.into_iter().try_for_each(|(row, error)| out.reject(batch.origins().map(|o| o.0[row].clone()), batch.times()[row], error))
    }

    /// A row of the table comes or goes.
    fn change(&mut self, slot: u32, row: &[u8], is_addition: bool) {
        let copies = self.bags.get(slot, row).copied().unwrap_or(0) + if is_addition { 1 } else { -1 };
        if copies == 0 {
            self.bags.remove(slot, row);
        } else {
            self.bags.insert(slot, row, copies);
        }
    }

    fn meet(&mut self, slot: u32, row: &[u8], time: EventTime, out: &mut Output<'_>) -> Result<()> {
        let (mut has_partner, once) = (false, matches!(self.matches.kind(), JoinKind::Semi | JoinKind::Anti));
        'partners: for (partner, &copies) in self.bags.entries(slot) {
            for _ in 0..copies {
                if !self.matches.meet(row, has_partner, partner, time, out)? {
                    break;
                }
                has_partner = true;
                if once {
                    break 'partners;
                }
            }
        }
        if has_partner { Ok(()) } else { self.matches.stays_alone(LEFT, row, time, out) }
    }
}

impl<N: PairKernel> Operator for LookupJoin<N> {
    fn open(&mut self, _context: &OpenContext) -> Result<()> {
        self.matches.kernel().check()
    }

    fn tables(&mut self) -> Vec<&mut dyn Table> {
        vec![&mut self.bags]
    }

    fn on_batch(&mut self, input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let Some(keys) = batch.keys() else { unreachable!("plan bug: a join needs keyed streams") };
        let side = if input == TABLE_INPUT { RIGHT } else { LEFT };
        self.bags.resolve(keys, &mut self.slots)?;
        // Of an inner join nothing is to be remembered of a row but its pairs.
        if side == LEFT && self.matches.kind() == JoinKind::Inner {
            return self.meet_all(&*batch, out);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        for (i, &time) in batch.times().iter().enumerate() {
            scratch.clear();
            let kernel = self.matches.kernel();
            let encoded = guarded_call(|| {
                kernel.encode(side, &*batch, i, &mut scratch);
                kernel.is_addition(side, &*batch, i)
            });
            match encoded {
                Ok(is_addition) if side == RIGHT => self.change(self.slots[i], &scratch, is_addition),
                Ok(_) => self.meet(self.slots[i], &scratch, time, out)?,
                Err(error) => out.reject(batch.origins().map(|o| o.0[i].clone()), time, error)?,
            }
        }
        self.scratch = scratch;
        self.matches.flush(out)
    }

    fn on_input_watermark(&mut self, input: usize, time: EventTime) {
        self.bootstrap.on_input_watermark(input, time);
    }

    fn only_input(&self) -> Option<usize> {
        self.bootstrap.only_input()
    }

    /// Whether the table is there, and what its rows are.
    fn save(&mut self) -> Vec<u8> {
        [self.bootstrap.save(), self.matches.kernel().schema().into_bytes()].concat()
    }

    fn restore(&mut self, blobs: &[Vec<u8>]) -> Result<()> {
        let parts: Option<Vec<_>> = blobs.iter().map(|blob| blob.split_at_checked(1)).collect();
        let parts = parts.ok_or_else(|| Error::fatal("what a join has saved is damaged"))?;
        let (read, schemas): (Vec<_>, Vec<_>) = parts.into_iter().map(|(read, schema)| (read.to_vec(), schema.to_vec())).unzip();
        check_description(&self.matches.kernel().schema(), &schemas)?;
        self.bootstrap = Bootstrap::restore(&read)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{batch, belong, kernel};
    use super::*;
    use crate::testing::Harness;
    use proptest::prelude::*;

    type Out = (Option<u64>, Option<u64>);

    proptest! {
        #[test]
        fn rows_meet_the_table_as_it_is(
            kind in 0usize..4,
            script in proptest::collection::vec((any::<bool>(), proptest::collection::vec((0u64..3, 0i64..9), 0..5)), 0..8),
            restores in proptest::collection::vec(proptest::option::of(1u32..4), 8),
        ) {
            let kind = [JoinKind::Inner, JoinKind::Left, JoinKind::Semi, JoinKind::Anti][kind];
            let mut harness = Harness::new(&lookup_join(kind, kernel), 2);
            let (mut table, mut number) = (Vec::new(), 0);
            for ((is_table, rows), restore) in script.iter().zip(&restores) {
                let rows: Vec<_> = rows.iter().map(|&(key, time)| { number += 1; (key, time, number) }).collect();
                harness.push(if *is_table { RIGHT } else { LEFT }, batch(&rows).boxed());
                let mut got = harness.take::<Out>(0);
                let mut want: Vec<(Out, i64)> = Vec::new();
                if *is_table {
                    table.extend(rows);
                } else {
                    for (key, time, number) in rows {
                        let with: Vec<u64> = table.iter().filter(|(k, _, n)| *k == key && belong(number, *n)).map(|row: &(u64, i64, u64)| row.2).collect();
                        match kind {
                            JoinKind::Semi if !with.is_empty() => want.push(((Some(number), None), time)),
                            JoinKind::Semi | JoinKind::Anti => {}
                            _ => want.extend(with.iter().map(|n| ((Some(number), Some(*n)), time))),
                        }
                        if with.is_empty() && kind.wants_alone(LEFT) {
                            want.push(((Some(number), None), time));
                        }
                    }
                }
                got.sort_unstable();
                want.sort_unstable();
                prop_assert_eq!(got, want);
                if let Some(parallelism) = restore {
                    harness.snapshot_and_restore(*parallelism);
                }
            }
        }
    }

    #[test]
    fn nothing_is_taken_from_the_stream_before_the_table_is_there() {
        let factory = lookup_join(JoinKind::Inner, kernel);
        let mut join = factory();
        assert_eq!(join.only_input(), Some(TABLE_INPUT));
        join.on_input_watermark(LEFT, EventTime::MAX);
        assert_eq!(join.only_input(), Some(TABLE_INPUT));
        join.on_input_watermark(RIGHT, EventTime::MAX);
        assert_eq!(join.only_input(), None);
        let mut restored = factory();
        restored.restore(&[join.save()]).unwrap();
        assert_eq!(restored.only_input(), None);
        assert!(restored.restore(&[Vec::new()]).is_err());
    }
}
