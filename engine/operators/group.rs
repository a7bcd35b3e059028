//! `group`: one result row per key over the whole stream so far, kept up to date by changes.
//!
//! The core sees keys, slots, weights and whether results are equal; what is inside a row or an accumulator is the kernel's.
//! State keeps signed weights: a row may be taken away before it was added (it came by another channel), and a group whose
//! weights add up to nothing or less is invisible.
//!
//! Invariant: after any batch, the sum of what was emitted is the result over the sum of what came in. A batch emits for each
//! key that it touches at most one old result (-U, -D) and one new one (+U, +I), none when they are equal, in the order of the
//! keys' first rows; so the sum, and never the sequence, is independent of how rows were batched.

use super::aging::Aging;
use super::columnar::RowError;
use super::over::Called;
use super::touched::{Touched, TouchedKeys};
use super::{OpenContext, Operator, OperatorFactory, Output};
use crate::error::{Error, Result};
use crate::record::{BatchBox, ChangeBatch, KeyGroup, Keys, RowKind, downcast, key_group};
use crate::state::{PointTable, StateValue, Table};
use crate::time::EventTime;
use std::ops::Range;
use std::sync::Arc;

/// What looks inside: folds rows into accumulators and makes result rows of them. One per task.
pub trait GroupKernel: Send + 'static {
    /// What is kept per key.
    type Acc: StateValue;

    /// Says what is computed, so that state of another query is refused.
    fn describe(&self) -> String;
    /// Looks at a batch before its rows are folded. Rows that cannot be folded are pushed to `failed`, in order; they are
    /// not folded.
    ///
    /// # Errors
    /// Stops the task; never for the sake of a single row.
    fn begin(&mut self, batch: &ChangeBatch, failed: &mut Vec<RowError>) -> Result<()>;
    /// The accumulator of no rows.
    fn create(&self) -> Self::Acc;
    /// Takes row `row` of the batch in (weight 1) or out (-1). A row that fails has changed nothing.
    ///
    /// # Errors
    /// The row is rejected.
    fn fold(&self, acc: &mut Self::Acc, row: usize, weight: i64) -> Called;
    /// Whether nothing is left in it, not even something owed.
    fn is_empty(&self, acc: &Self::Acc) -> bool;
    /// Whether there is a result.
    fn is_visible(&self, acc: &Self::Acc) -> bool;
    /// Appends the result of a key to the rows to be emitted; of one that cannot be computed nothing, and the key has none until
    /// it can.
    ///
    /// # Errors
    /// Key bytes that do not decode.
    fn emit(&mut self, key: &[u8], acc: &Self::Acc) -> Result<Called>;
    /// Whether two of the rows appended are the same.
    fn is_same(&self, a: usize, b: usize) -> bool;
    /// Takes the rows appended.
    ///
    /// # Errors
    /// Of Arrow, for columns beyond its limits.
    fn take(&mut self) -> Result<arrow_array::RecordBatch>;
}

/// What is asked of groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Grouping {
    /// There is one key for all rows, the empty one, and it has a result even without rows: at the end of an input that had none.
    pub global: bool,
    /// Nobody asks for the old row of an update: `-U` is left out.
    pub only_new: bool,
    /// A key that nothing has changed for so many milliseconds of the wall clock is forgotten, silently.
    pub ttl_ms: Option<i64>,
    /// A key is forgotten so many milliseconds of event time after the latest of its rows, silently; not beside `ttl_ms`.
    pub ends_ms: Option<i64>,
}

/// Keyed changes in, changes of the results out: `ChangeBatch` to `ChangeBatch`.
pub fn group<K: GroupKernel>(grouping: Grouping, make: impl Fn() -> Result<K> + Send + Sync + 'static) -> OperatorFactory {
    let make = Arc::new(make);
    Arc::new(move || {
        let aging = Aging::new(grouping.ttl_ms);
        Box::new(Group {
            make: make.clone(),
            grouping,
            kernel: None,
            aging,
            table: match grouping.ends_ms {
                Some(ends_ms) => PointTable::new("groups").with_ttl(ends_ms),
                None => aging.table::<K::Acc>("groups"),
            },
            slots: Vec::new(),
            touched: TouchedKeys::default(),
            groups: 0..0,
            max_parallelism: 1,
        })
    })
}

/// What is noted of a key at its first row in a batch.
struct Before {
    /// That row.
    row: u32,
    /// Its old result, among the rows appended.
    old: Option<usize>,
}

struct Group<K: GroupKernel, M> {
    make: Arc<M>,
    grouping: Grouping,
    kernel: Option<K>,
    aging: Aging,
    table: PointTable<K::Acc>,
    slots: Vec<u32>,
    touched: TouchedKeys<Before>,
    groups: Range<KeyGroup>,
    max_parallelism: u16,
}

impl<K: GroupKernel, M> Group<K, M> {
    fn kernel(&mut self) -> &mut K {
        match &mut self.kernel {
            Some(kernel) => kernel,
            None => unreachable!("an operator is opened before it is used"),
        }
    }

    /// Notes that row `row` changes its key; the first time in a batch, appends the old result.
    fn touch(&mut self, row: usize, time: EventTime, keys: &Keys, appended: &mut usize) -> Result<()> {
        let slot = self.slots[row];
        if self.touched.again(slot, time) {
            return Ok(());
        }
        let old = match (&mut self.kernel, self.table.get(slot)) {
            // A result that could not be computed has never left; why was said then.
            (Some(kernel), Some(acc)) if kernel.is_visible(acc) => kernel.emit(keys.bytes(row, &mut [0; 8]), acc)?.ok().map(|()| {
                *appended += 1;
                *appended - 1
            }),
            _ => None,
        };
        self.touched.first(slot, time, Before { row: row as u32, old });
        Ok(())
    }

    /// Appends the new results and says which of all rows appended leave, in which order, as what. Rows whose key has no result
    /// because it cannot be computed are pushed to `failed`.
    fn results(&mut self, keys: &Keys, mut appended: usize, failed: &mut Vec<RowError>) -> Result<Vec<(u32, RowKind, EventTime)>> {
        let touched = self.touched.take();
        let mut leaving = Vec::with_capacity(touched.len() * 2);
        for Touched { slot, time, before: Before { row, old } } in touched {
            let Some(kernel) = &mut self.kernel else { continue };
            let mut new = None;
            let mut gone = true;
            if let Some(acc) = self.table.get(slot) {
                gone = kernel.is_empty(acc);
                if kernel.is_visible(acc) {
                    match kernel.emit(keys.bytes(row as usize, &mut [0; 8]), acc)? {
                        Ok(()) => {
                            new = Some(appended);
                            appended += 1;
                        }
                        Err(why) => failed.push((row as usize, why)),
                    }
                }
            }
            if gone {
                self.table.remove(slot);
            } else if self.grouping.ends_ms.is_some() {
                self.table.touch(slot, time);
            } else {
                self.aging.touch(&mut self.table, slot);
            }
            match (old, new) {
                (Some(old), Some(new)) if kernel.is_same(old, new) => {}
                (Some(old), Some(new)) => {
                    if !self.grouping.only_new {
                        leaving.push((old as u32, RowKind::UpdateBefore, time));
                    }
                    leaving.push((new as u32, RowKind::UpdateAfter, time));
                }
                (Some(old), None) => leaving.push((old as u32, RowKind::Delete, time)),
                (None, Some(new)) => leaving.push((new as u32, RowKind::Insert, time)),
                (None, None) => {}
            }
        }
        Ok(leaving)
    }

    fn leave(&mut self, leaving: &[(u32, RowKind, EventTime)], out: &mut Output<'_>) -> Result<()> {
        let columns = self.kernel().take()?;
        if leaving.is_empty() {
            return Ok(());
        }
        let rows: Vec<u32> = leaving.iter().map(|l| l.0).collect();
        let all = ChangeBatch::inserts(columns.clone(), vec![EventTime(0); columns.num_rows()]);
        let mut batch = all.gather(&rows)?;
        batch.kinds = Some(leaving.iter().map(|l| l.1).collect());
        batch.times = leaving.iter().map(|l| l.2).collect();
        out.emit(batch.boxed())
    }
}

impl<K: GroupKernel, M: Fn() -> Result<K> + Send + Sync + 'static> Operator for Group<K, M> {
    fn open(&mut self, context: &OpenContext) -> Result<()> {
        self.kernel = Some((self.make)()?);
        (self.groups, self.max_parallelism) = (context.groups.clone(), context.max_parallelism);
        Ok(())
    }

    fn tables(&mut self) -> Vec<&mut dyn Table> {
        vec![&mut self.table]
    }

    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let batch = downcast::<ChangeBatch>(batch);
        let Some(keys) = &batch.keys else { unreachable!("plan bug: a group needs keyed rows") };
        let mut slots = std::mem::take(&mut self.slots);
        self.table.resolve(keys, &mut slots)?;
        self.slots = slots;
        let mut failed = Vec::new();
        self.kernel().begin(&batch, &mut failed)?;
        let mut bad = failed.iter().map(|f| f.0).peekable();
        let (mut appended, mut refused) = (0, Vec::new());
        for row in 0..batch.times.len() {
            if bad.next_if_eq(&row).is_some() {
                continue;
            }
            self.touch(row, batch.times[row], keys, &mut appended)?;
            let Some(kernel) = &self.kernel else { continue };
            let acc = self.table.get_mut(self.slots[row]).get_or_insert_with(|| kernel.create());
            if let Err(why) = kernel.fold(acc, row, batch.kind(row).weight()) {
                refused.push((row, why));
            }
        }
        let leaving = self.results(keys, appended, &mut refused)?;
        for (row, error) in failed.into_iter().chain(refused) {
            out.reject(batch.origin(row), batch.times[row], error)?;
        }
        self.leave(&leaving, out)
    }

    fn on_watermark(&mut self, watermark: EventTime, _out: &mut Output<'_>) -> Result<()> {
        if self.grouping.ends_ms.is_some() {
            self.table.expire(watermark);
        }
        Ok(())
    }

    fn on_time(&mut self, wall_ms: i64, _out: &mut Output<'_>) -> Result<Option<i64>> {
        Ok(self.aging.on_time(wall_ms, &mut self.table))
    }

    fn on_end(&mut self, out: &mut Output<'_>) -> Result<()> {
        if !self.grouping.global {
            return Ok(());
        }
        let keys = Keys::from_bytes(1, |_, _| {});
        if !self.groups.contains(&key_group(keys.hashes()[0], self.max_parallelism)) {
            return Ok(());
        }
        let mut slots = Vec::new();
        self.table.resolve(&keys, &mut slots)?;
        let kernel = self.kernel.as_mut().ok_or_else(|| Error::restart("the operator was used before it was opened"))?;
        if self.table.get(slots[0]).is_some() {
            return Ok(());
        }
        let acc = kernel.create();
        let done = kernel.emit(&[], &acc)?;
        *self.table.get_mut(slots[0]) = Some(acc);
        if let Err(why) = done {
            return out.reject(None, EventTime::MAX, why);
        }
        self.leave(&[(0, RowKind::Insert, EventTime::MAX)], out)
    }

    fn save(&mut self) -> Vec<u8> {
        self.kernel().describe().into_bytes()
    }

    fn restore(&mut self, blobs: &[Vec<u8>]) -> Result<()> {
        check_description(&self.kernel().describe(), blobs)
    }
}

/// Refuses state whose operators described themselves otherwise: the types may be the same, the meaning is not.
///
/// # Errors
/// With both descriptions.
pub fn check_description(now: &str, saved: &[Vec<u8>]) -> Result<()> {
    match saved.iter().map(|blob| String::from_utf8_lossy(blob)).find(|stored| stored != now) {
        None => Ok(()),
        Some(stored) => Err(Error::fatal(format!("the state is of another query: {stored}; now it is {now}"))
            .help("give the changed query a new name, or start over:  run --fresh")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Key, record_batch};
    use crate::testing::{Harness, Mode, Step};
    use arrow_array::cast::AsArray;
    use arrow_array::types::Int64Type;
    use arrow_array::{ArrayRef, Int64Array, RecordBatch};
    use arrow_schema::{DataType, Field, Schema};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Sum of column 0 per key; a row of 13 cannot be folded, one of 14 is refused then, and a sum of 22 is no result.
    #[derive(Default)]
    struct Sums {
        values: Vec<i64>,
        results: Vec<(i64, i64)>,
    }

    impl GroupKernel for Sums {
        type Acc = (i64, i64);

        fn describe(&self) -> String {
            "sums".into()
        }
        fn begin(&mut self, batch: &ChangeBatch, failed: &mut Vec<RowError>) -> Result<()> {
            self.values = batch.columns.column(0).as_primitive::<Int64Type>().values().to_vec();
            failed.extend(self.values.iter().enumerate().filter(|v| *v.1 == 13).map(|(row, _)| (row, "unlucky".to_string())));
            Ok(())
        }
        fn create(&self) -> (i64, i64) {
            (0, 0)
        }
        fn fold(&self, (rows, sum): &mut (i64, i64), row: usize, weight: i64) -> Called {
            if self.values[row] == 14 {
                return Err("refused".into());
            }
            (*rows, *sum) = (*rows + weight, *sum + weight * self.values[row]);
            Ok(())
        }
        fn is_empty(&self, acc: &(i64, i64)) -> bool {
            *acc == (0, 0)
        }
        fn is_visible(&self, (rows, _): &(i64, i64)) -> bool {
            *rows > 0
        }
        fn emit(&mut self, mut key: &[u8], (_, sum): &(i64, i64)) -> Result<Called> {
            if *sum == 22 {
                return Ok(Err("no result".into()));
            }
            let key = if key.is_empty() { -1 } else { i64::decode(&mut key)? };
            self.results.push((key, *sum));
            Ok(Ok(()))
        }
        fn is_same(&self, a: usize, b: usize) -> bool {
            self.results[a] == self.results[b]
        }
        fn take(&mut self) -> Result<RecordBatch> {
            let results = std::mem::take(&mut self.results);
            let column = |f: fn(&(i64, i64)) -> i64| Arc::new(results.iter().map(f).collect::<Int64Array>()) as ArrayRef;
            Ok(columns(vec![column(|r| r.0), column(|r| r.1)]))
        }
    }

    fn columns(columns: Vec<ArrayRef>) -> RecordBatch {
        let fields: Vec<Field> = (0..columns.len()).map(|i| Field::new(format!("c{i}"), DataType::Int64, true)).collect();
        let rows = columns[0].len();
        record_batch(Arc::new(Schema::new(fields)), columns, rows).unwrap()
    }

    /// Rows of (key, value, weight).
    fn changes(rows: &[(i64, i64, i64)]) -> BatchBox {
        let values: ArrayRef = Arc::new(rows.iter().map(|r| r.1).collect::<Int64Array>());
        let mut batch = ChangeBatch::inserts(columns(vec![values]), (0..rows.len() as i64).map(EventTime).collect());
        batch.kinds = Some(rows.iter().map(|r| if r.2 > 0 { RowKind::Insert } else { RowKind::Delete }).collect());
        batch.keys = Some(Keys::encode(rows.iter().map(|r| r.0).collect::<Vec<_>>().into_iter()));
        batch.boxed()
    }

    /// What has left; without old rows of updates a new one takes the place of its key's.
    fn sum(harness: &mut Harness, only_new: bool) -> BTreeMap<(i64, i64), i64> {
        let mut sum = BTreeMap::new();
        for batch in harness.take_batches(Some(0)) {
            let batch = downcast::<ChangeBatch>(batch);
            let column = |i: usize| batch.columns.column(i).as_primitive::<Int64Type>().values().to_vec();
            for (row, (key, value)) in column(0).into_iter().zip(column(1)).enumerate() {
                if only_new && batch.kind(row) == RowKind::UpdateAfter {
                    sum.retain(|of: &(i64, i64), _| of.0 != key);
                }
                assert!(!only_new || batch.kind(row) != RowKind::UpdateBefore);
                *sum.entry((key, value)).or_insert(0) += batch.kind(row).weight();
            }
        }
        sum.retain(|_, weight| *weight != 0);
        sum
    }

    proptest! {
        /// Rows may be taken away before they were added: they came by another channel.
        #[test]
        fn what_is_emitted_adds_up(batches in proptest::collection::vec(proptest::collection::vec((0..3i64, 10..15i64, prop_oneof![Just(1i64), Just(-1i64)]), 0..6), 0..6), only_new: bool) {
            let mut model: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
            for (key, value, weight) in batches.iter().flatten().filter(|r| r.1 < 13) {
                let (rows, sum) = model.entry(*key).or_default();
                (*rows, *sum) = (*rows + weight, *sum + weight * value);
            }
            let expected: BTreeMap<(i64, i64), i64> = model.into_iter().filter(|(_, (rows, sum))| *rows > 0 && *sum != 22).map(|(key, (_, sum))| ((key, sum), 1)).collect();
            for mode in Mode::ALL {
                let mut harness = Harness::new(&group(Grouping { only_new, ..Grouping::default() }, || Ok(Sums::default())), 0);
                let steps: Vec<Step> = batches.iter().map(|rows| Step::Batch(0, changes(rows))).chain([Step::End]).collect();
                harness.run(&steps, mode);
                prop_assert_eq!(sum(&mut harness, only_new), expected.clone(), "{:?}", mode);
                let rejected = harness.take_rejected().into_iter().filter(|rejected| rejected.error != "no result").count();
                prop_assert_eq!(rejected, batches.iter().flatten().filter(|r| r.1 >= 13).count());
            }
        }
    }

    const TTL: i64 = 320;

    proptest! {
        /// A key is there as long as less than its time to live has passed since its last change; what it gave stays.
        #[test]
        fn what_nothing_changes_is_forgotten_by_the_clock(
            batches in proptest::collection::vec((0..40i64, proptest::collection::vec((0..3i64, 30..33i64, prop_oneof![3 => Just(1i64), 1 => Just(-1i64)]), 0..4)), 0..12),
        ) {
            let mut model: BTreeMap<i64, (i64, i64, i64)> = BTreeMap::new();
            let (mut now, mut steps) = (1_000_000, Vec::new());
            let mut expected: BTreeMap<(i64, i64), i64> = BTreeMap::new();
            for (later, rows) in &batches {
                now += later * 10;
                model.retain(|key, (rows, sum, last)| {
                    let stays = *last + TTL > now;
                    if !stays && *rows > 0 {
                        *expected.entry((*key, *sum)).or_insert(0) += 1;
                    }
                    stays
                });
                for (key, value, weight) in rows {
                    let (rows, sum, last) = model.entry(*key).or_default();
                    (*rows, *sum, *last) = (*rows + weight, *sum + weight * value, now);
                    if (*rows, *sum) == (0, 0) {
                        model.remove(key);
                    }
                }
                steps.push(Step::WallTime(now));
                steps.push(Step::Batch(0, changes(rows)));
            }
            for (key, (_, sum, _)) in model.into_iter().filter(|(_, (rows, ..))| *rows > 0) {
                *expected.entry((key, sum)).or_insert(0) += 1;
            }
            steps.push(Step::End);
            for mode in Mode::ALL {
                let grouping = Grouping { ttl_ms: Some(TTL), ..Grouping::default() };
                let mut harness = Harness::new(&group(grouping, || Ok(Sums::default())), 0);
                harness.run(&steps, mode);
                prop_assert_eq!(sum(&mut harness, false), expected.clone(), "{:?}", mode);
            }
        }
    }

    /// A key is there until the watermark is its time past the latest of its rows, exactly, also after a restore.
    #[test]
    fn keys_end_with_event_time() {
        for (watermark, is_there) in [(19, true), (20, true), (21, false)] {
            let mut harness = Harness::new(&group(Grouping { ends_ms: Some(20), ..Grouping::default() }, || Ok(Sums::default())), 0);
            // At the times 0 and 1.
            harness.push(0, changes(&[(1, 5, 1), (1, 6, 1)]));
            harness.watermark(EventTime(watermark));
            harness.snapshot_and_restore(2);
            assert_eq!(sum(&mut harness, false), BTreeMap::from([((1, 11), 1)]));
            harness.push(0, changes(&[(1, 7, 1)]));
            let expected = if is_there { BTreeMap::from([((1, 11), -1), ((1, 18), 1)]) } else { BTreeMap::from([((1, 7), 1)]) };
            assert_eq!(sum(&mut harness, false), expected, "watermark {watermark}");
        }
    }

    #[test]
    fn a_change_is_a_pair_and_no_change_is_nothing() {
        let mut harness = Harness::new(&group(Grouping::default(), || Ok(Sums::default())), 0);
        let mut kinds = |rows: &[(i64, i64, i64)]| {
            harness.push(0, changes(rows));
            let batches = harness.take_batches(Some(0));
            batches.into_iter().flat_map(|b| downcast::<ChangeBatch>(b).kinds.unwrap()).map(RowKind::short).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(kinds(&[(1, 5, 1), (2, 5, 1)]), "+I +I");
        assert_eq!(kinds(&[(1, 2, 1), (1, 2, -1)]), "");
        assert_eq!(kinds(&[(1, 2, 1), (2, 5, -1)]), "-U +U -D");
    }

    #[test]
    fn all_rows_have_a_result_also_when_there_are_none() {
        for mode in Mode::ALL {
            let mut harness = Harness::new(&group(Grouping { global: true, ..Grouping::default() }, || Ok(Sums::default())), 0);
            harness.run(&[Step::watermark(5), Step::End], mode);
            assert_eq!(sum(&mut harness, false), BTreeMap::from([((-1, 0), 1)]), "{mode:?}");
        }
    }
}
