//! Rankings against a naive model, in every mode of the harness.

use super::*;
use crate::record::{Key, Keys, record_batch};
use crate::testing::{Harness, Mode, Step};
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array};
use arrow_schema::{DataType, Field, Schema};
use proptest::prelude::*;

/// Rows of (key, value), the smallest value first.
#[derive(Default)]
struct Smallest {
    rows: Vec<(i64, i64)>,
    out: Vec<(i64, i64, i64)>,
}

impl RankKernel for Smallest {
    fn describe(&self) -> String {
        "smallest".into()
    }
    fn begin(&mut self, batch: &ChangeBatch) -> Result<()> {
        let column = |i: usize| batch.columns.column(i).as_primitive::<Int64Type>().values().to_vec();
        self.rows = column(0).into_iter().zip(column(1)).collect();
        Ok(())
    }
    fn order(&self, row: usize, out: &mut Vec<u8>) {
        // Tens only: rows of the same ten are equal in order.
        (self.rows[row].1 / 10).encode(out);
    }
    fn encode(&self, row: usize, out: &mut Vec<u8>) {
        self.rows[row].0.encode(out);
        self.rows[row].1.encode(out);
    }
    fn emit(&mut self, mut row: &[u8], rank: Option<u64>) -> Result<()> {
        let (key, value) = (i64::decode(&mut row)?, i64::decode(&mut row)?);
        self.out.push((key, value, rank.map_or(0, |r| r as i64)));
        Ok(())
    }
    fn take(&mut self) -> Result<RecordBatch> {
        let out = std::mem::take(&mut self.out);
        let column = |f: fn(&(i64, i64, i64)) -> i64| Arc::new(out.iter().map(f).collect::<Int64Array>()) as ArrayRef;
        Ok(columns(vec![column(|r| r.0), column(|r| r.1), column(|r| r.2)]))
    }
}

fn columns(columns: Vec<ArrayRef>) -> RecordBatch {
    let fields: Vec<Field> = (0..columns.len()).map(|i| Field::new(format!("c{i}"), DataType::Int64, true)).collect();
    let rows = columns[0].len();
    record_batch(Arc::new(Schema::new(fields)), columns, rows).unwrap()
}

/// Rows of (key, value, weight).
fn changes(rows: &[(i64, i64, i64)]) -> BatchBox {
    let column = |f: fn(&(i64, i64, i64)) -> i64| Arc::new(rows.iter().map(f).collect::<Int64Array>()) as ArrayRef;
    let mut batch = ChangeBatch::inserts(columns(vec![column(|r| r.0), column(|r| r.1)]), (0..rows.len() as i64).map(EventTime).collect());
    batch.kinds = Some(rows.iter().map(|r| if r.2 > 0 { RowKind::Insert } else { RowKind::Delete }).collect());
    batch.keys = Some(Keys::encode(rows.iter().map(|r| r.0).collect::<Vec<_>>().into_iter()));
    batch.boxed()
}

type Sum = BTreeMap<(i64, i64, i64), i64>;

/// What has left; without old rows of updates a new one takes the place of that of its key and rank.
fn sum(harness: &mut Harness, only_new: bool) -> Sum {
    let mut sum = Sum::new();
    for batch in harness.take_batches(Some(0)) {
        let batch = downcast::<ChangeBatch>(batch);
        let column = |i: usize| batch.columns.column(i).as_primitive::<Int64Type>().values().to_vec();
        for (row, ((key, value), rank)) in column(0).into_iter().zip(column(1)).zip(column(2)).enumerate() {
            assert!(!only_new || batch.kind(row) != RowKind::UpdateBefore);
            if only_new && batch.kind(row) == RowKind::UpdateAfter {
                sum.retain(|of, _| (of.0, of.2) != (key, rank));
            }
            *sum.entry((key, value, rank)).or_insert(0) += batch.kind(row).weight();
        }
    }
    sum.retain(|_, weight| *weight != 0);
    sum
}

/// Of each key the first rows of what is there, in the order of value and arrival.
fn model(rows: &[(i64, i64, i64)], ranking: Ranking) -> Sum {
    let mut keys: BTreeMap<i64, Vec<(i64, i64)>> = BTreeMap::new();
    for &(key, value, weight) in rows {
        let of_key = keys.entry(key).or_default();
        match of_key.iter_mut().find(|(v, _)| *v == value).filter(|_| ranking.retracting) {
            Some((_, sum)) => *sum += weight,
            None if ranking.newest_first => of_key.insert(0, (value, weight)),
            None => of_key.push((value, weight)),
        }
        of_key.retain(|(_, weight)| *weight != 0);
    }
    let mut first = Sum::new();
    for (key, mut rows) in keys {
        rows.sort_by_key(|(value, _)| value / 10);
        let present = rows.into_iter().flat_map(|(value, weight)| std::iter::repeat_n(value, weight.max(0) as usize));
        for (i, value) in present.take(ranking.first).enumerate() {
            *first.entry((key, value, if ranking.with_rank { i as i64 + 1 } else { 0 })).or_insert(0) += 1;
        }
    }
    first
}

proptest! {
    #[test]
    fn what_is_emitted_adds_up(
        batches in proptest::collection::vec(proptest::collection::vec((0..2i64, 0..40i64, prop_oneof![3 => Just(1i64), 1 => Just(-1i64)]), 0..8), 0..6),
        first in 1..4usize, retracting: bool, newest_first: bool, with_rank: bool, only_new: bool,
    ) {
        let ranking = Ranking { first, retracting, newest_first, with_rank, only_new, ttl_ms: None };
        let batches: Vec<Vec<_>> = batches.into_iter().map(|b| b.into_iter().map(|(k, v, w)| (k, v, if retracting { w } else { 1 })).collect()).collect();
        for mode in Mode::ALL {
            let mut harness = Harness::new(&ranked(ranking, || Ok(Smallest::default())), 0);
            let steps: Vec<Step> = batches.iter().map(|rows| Step::Batch(0, changes(rows))).chain([Step::End]).collect();
            harness.run(&steps, mode);
            prop_assert_eq!(sum(&mut harness, only_new), model(&batches.concat(), ranking), "{:?}", mode);
        }
    }
}

#[test]
fn a_row_that_moves_is_a_change_where_ranks_are_asked_for() {
    let kinds = |with_rank: bool| {
        let ranking = Ranking { first: 2, retracting: false, newest_first: false, with_rank, only_new: false, ttl_ms: None };
        let mut harness = Harness::new(&ranked(ranking, || Ok(Smallest::default())), 0);
        let mut kinds = Vec::new();
        for rows in [&[(1, 20, 1), (1, 30, 1)][..], &[(1, 10, 1)], &[(1, 90, 1)]] {
            harness.push(0, changes(rows));
            let batches = harness.take_batches(Some(0));
            kinds.push(
                batches
                    .into_iter()
                    .flat_map(|b| downcast::<ChangeBatch>(b).kinds.unwrap())
                    .map(RowKind::short)
                    .collect::<Vec<_>>()
                    .join(" "),
            );
        }
        kinds
    };
    assert_eq!(kinds(true), ["+I +I", "-U +U -U +U", ""]);
    assert_eq!(kinds(false), ["+I +I", "-D +I", ""]);
}

#[test]
fn first_rows_that_nothing_changes_are_forgotten_by_the_clock() {
    for retracting in [false, true] {
        for (later, is_there) in [(300, true), (320, false)] {
            let ranking = Ranking { first: 1, retracting, newest_first: false, with_rank: false, only_new: false, ttl_ms: Some(320) };
            let mut harness = Harness::new(&ranked(ranking, || Ok(Smallest::default())), 0);
            harness.wall_time(1_000);
            harness.push(0, changes(&[(1, 20, 1)]));
            harness.take_batches(Some(0));
            harness.snapshot_and_restore(2);
            // A clock that was set back does not make anything younger.
            harness.wall_time(500);
            harness.wall_time(1_000 + later);
            harness.push(0, changes(&[(1, 30, 1)]));
            let left: usize = harness.take_batches(Some(0)).iter().map(|batch| batch.len()).sum();
            assert_eq!(left, usize::from(!is_there), "{retracting} {later}");
        }
    }
}
