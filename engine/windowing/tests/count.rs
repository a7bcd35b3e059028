//! Count windows against their definition: the list of a key's rows, cut by index.

use super::{Aggregate, Count, WindowOptions, Windowed, Windows};
use crate::operators::OperatorFactory;
use crate::record::{Keys, Rows};
use crate::testing::{Harness, Step};
use crate::time::EventTime;
use proptest::prelude::*;
use std::collections::BTreeMap;

type Row = (u64, i64);
/// Start, end, values, time.
type Result = (i64, i64, Vec<i64>, i64);

const POISON: i64 = i64::MIN;

fn operator(size: u64, step: u64) -> OperatorFactory {
    let all = Aggregate::new(
        Vec::new,
        |all: &mut Vec<i64>, row: &Row| {
            assert!(row.1 != POISON, "poison");
            all.push(row.1);
        },
        |all: &mut Vec<i64>, later: &Vec<i64>| all.extend(later),
        |all: &Vec<i64>| all.clone(),
    );
    Count::of(size).every(step).operator::<u64, _>(WindowOptions::default(), all).unwrap()
}

fn rows(list: &[(u64, i64, i64)]) -> Rows<Row> {
    let mut batch = Rows::new(list.iter().map(|r| (r.0, r.2)).collect(), list.iter().map(|r| EventTime(r.1)).collect());
    batch.keys = Some(Keys::encode(list.iter().map(|r| r.0).collect::<Vec<_>>().into_iter()));
    batch
}

/// By key, in order.
fn results(h: &mut Harness) -> BTreeMap<u64, Vec<Result>> {
    let mut by_key = BTreeMap::<u64, Vec<Result>>::new();
    for (w, time) in h.take::<Windowed<u64, Vec<i64>>>(0) {
        by_key.entry(w.key).or_default().push((w.start.0, w.end.0, w.value, time));
    }
    by_key
}

fn definition(size: usize, step: usize, rows: &[(i64, i64)]) -> Vec<Result> {
    let ends = (step..=rows.len()).step_by(step).chain((!rows.len().is_multiple_of(step)).then_some(rows.len()));
    ends.map(|end| {
        // The last one, that is not full, begins where the next full one would.
        let full = end.next_multiple_of(step);
        let window = &rows[full.saturating_sub(size)..end];
        let (low, high) = (window.iter().map(|r| r.0).min().unwrap(), window.iter().map(|r| r.0).max().unwrap());
        (low, high.saturating_add(1), window.iter().map(|r| r.1).collect(), high)
    })
    .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn windows_are_what_the_definition_says(
        (size, step) in (1usize..9).prop_flat_map(|size| (Just(size), 1..=size)),
        script in proptest::collection::vec(proptest::collection::vec((0u64..3, any::<i64>()), 1..8), 0..12),
        restore in proptest::collection::vec(proptest::option::of(1u32..4), 12),
    ) {
        let mut h = Harness::new(&operator(size as u64, step as u64), 0);
        let (mut value, mut all, mut got) = (0, BTreeMap::<u64, Vec<(i64, i64)>>::new(), BTreeMap::<u64, Vec<Result>>::new());
        for (i, list) in script.iter().enumerate() {
            let numbered: Vec<_> = list.iter().zip(value..).map(|((key, t), value)| (*key, *t, value)).collect();
            value += list.len() as i64;
            numbered.iter().for_each(|(key, t, value)| all.entry(*key).or_default().push((*t, *value)));
            h.push(0, rows(&numbered).boxed());
            results(&mut h).into_iter().for_each(|(key, more)| got.entry(key).or_default().extend(more));
            if let Some(n) = restore[i] {
                h.snapshot_and_restore(n);
            }
        }
        h.end();
        results(&mut h).into_iter().for_each(|(key, more)| got.entry(key).or_default().extend(more));
        let expect: BTreeMap<u64, Vec<Result>> = all.into_iter().map(|(key, rows)| (key, definition(size, step, &rows))).collect();
        prop_assert_eq!(got, expect);
        // The end comes once, also when it comes again behind a restore.
        h.snapshot_and_restore(2);
        h.end();
        prop_assert!(results(&mut h).is_empty());
    }
}

#[test]
fn a_poison_row_is_not_counted() {
    let steps = [Step::rows(rows(&[(1, 1, POISON), (1, 2, 10), (1, 3, POISON), (1, 4, 11), (2, 5, POISON)])), Step::End];
    let (results, rejected) =
        Harness::in_every_mode(&operator(2, 2), 0, &steps, |h| (results(h), h.take_rejected().iter().map(|r| r.time).collect::<Vec<_>>()));
    assert_eq!(results, BTreeMap::from([(1, vec![(2, 5, vec![10, 11], 4)])]));
    assert_eq!(rejected, [1, 3, 5]);
}

/// A key that has shown all that it had keeps nothing.
#[test]
fn full_windows_leave_no_state() {
    let mut h = Harness::new(&operator(2, 2), 0);
    let twice: Vec<_> = (0..2000u64).flat_map(|key| [(key, 1, 1), (key, 2, 2)]).collect();
    h.push(0, rows(&twice).boxed());
    h.push(0, rows(&[(0, 3, 3), (0, 4, 4)]).boxed());
    assert_eq!(results(&mut h).values().map(Vec::len).sum::<usize>(), 2001);
    assert!(h.state_bytes() < 1024, "{} bytes", h.state_bytes());
}

#[test]
fn nonsense_is_refused() {
    for (windows, why) in [
        (Count::of(0), "at least one row"),
        (Count::of(2).every(3), "larger than the window"),
        (Count::of(1_000_003).every(7), "cut into 1000003 slices"),
    ] {
        let count = super::aggregates::count::<Row>();
        let error = windows.operator::<u64, _>(WindowOptions::default(), count).err().unwrap().report();
        assert!(error.contains(why), "{error}");
    }
}
