//! Calls in every order of completion that the seed picks, with failures, and while instances come and go.

use super::*;
use crate::operators::ErrorPolicy;
use crate::record::Element;
use crate::testing::{Harness, Mode, SimMachine, Step};
use proptest::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

/// Rows of (key, number), keyed by the key.
fn batch(rows: &[(u64, i64)]) -> Rows<(u64, i64)> {
    let mut batch = Rows::new(rows.to_vec(), rows.iter().map(|r| EventTime(r.1)).collect());
    batch.keys = Some(Keys::encode(rows.iter().map(|r| r.0).collect::<Vec<_>>().into_iter()));
    batch
}

/// Takes some turns of its future to answer.
async fn slow(turns: usize) {
    let mut left = turns;
    std::future::poll_fn(|_| {
        left = left.saturating_sub(1);
        if left == 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

fn harness(seed: u64, factory: &OperatorFactory) -> Harness {
    Harness::on_machine(SimMachine::new(seed), factory, 0, ErrorPolicy::DeadLetter)
}

/// Lets every call end.
fn finish(h: &mut Harness) {
    for _ in 0..10_000 {
        if !h.holds() {
            return;
        }
        h.calls(10);
    }
    panic!("calls do not end");
}

fn echo(options: AsyncOptions, keyed: bool) -> OperatorFactory {
    map_async(options, keyed, |row: (u64, i64)| async move {
        slow((row.1 % 3) as usize).await;
        if row.1 % 7 == 6 { Err("seven".to_string()) } else { Ok(row) }
    })
}

/// What comes out: rows, and watermarks as `Err`.
fn out(h: &mut Harness) -> Vec<Result<(u64, i64), i64>> {
    let mut all = Vec::new();
    for element in h.take_elements(0) {
        match element {
            Element::Batch(batch) => all.extend(downcast::<Rows<(u64, i64)>>(batch).rows.into_iter().map(Ok)),
            Element::Watermark(time) => all.push(Err(time.0)),
            _ => {}
        }
    }
    all
}

fn script() -> impl Strategy<Value = Vec<(Option<u64>, usize)>> {
    // A row of a key or a watermark; then turns for the calls.
    proptest::collection::vec((proptest::option::weighted(0.8, 0u64..4), 0usize..4), 1..40)
}

/// Row `i` has number and time `i`; a watermark says that all rows so far have come.
fn steps(script: &[(Option<u64>, usize)]) -> (Vec<Step>, Vec<(u64, i64)>) {
    let (mut steps, mut rows) = (Vec::new(), Vec::new());
    for (key, turns) in script {
        match key {
            Some(key) => {
                let row = (*key, rows.len() as i64);
                rows.push(row);
                steps.push(Step::rows(batch(&[row])));
            }
            None => steps.push(Step::watermark(rows.len() as i64 - 1)),
        }
        steps.push(Step::Calls(*turns));
    }
    (steps, rows)
}

/// Behind a watermark comes no row that it says has come.
fn assert_nothing_late(all: &[Result<(u64, i64), i64>]) {
    let mut watermark = i64::MIN;
    for element in all {
        match element {
            Ok(row) => assert!(row.1 > watermark, "{row:?} is late behind {watermark}"),
            Err(time) => watermark = watermark.max(*time),
        }
    }
}

proptest! {
    #[test]
    fn every_row_leaves_once_in_the_promised_order(script in script(), seed in 0u64..1000, capacity in 1usize..6, ordered in any::<bool>()) {
        let options = AsyncOptions { ordered, ..AsyncOptions::ordered() }.capacity(capacity).retries(0, Duration::ZERO);
        let (steps, rows) = steps(&script);
        for keyed in [true, false] {
            for mode in Mode::ALL {
                let mut h = harness(seed, &echo(options.clone(), keyed));
                h.run(&steps, mode);
                finish(&mut h);
                let all = out(&mut h);
                if mode == Mode::Whole || mode == Mode::SingleRows {
                    assert_nothing_late(&all);
                }
                let got: Vec<(u64, i64)> = all.into_iter().filter_map(Result::ok).collect();
                let expect: Vec<(u64, i64)> = rows.iter().copied().filter(|r| r.1 % 7 != 6).collect();
                prop_assert_eq!(h.take_rejected().len(), rows.len() - expect.len());
                if ordered && mode != Mode::Rescaled {
                    prop_assert_eq!(&got, &expect, "{:?}", mode);
                }
                if keyed {
                    for key in 0..4 {
                        let of = |rows: &[(u64, i64)]| rows.iter().copied().filter(|r| r.0 == key).collect::<Vec<_>>();
                        prop_assert_eq!(of(&got), of(&expect), "key {} in {:?}", key, mode);
                    }
                }
                let mut sorted = got;
                sorted.sort_by_key(|r| r.1);
                prop_assert_eq!(sorted, expect, "{:?}", mode);
            }
        }
    }
}

#[test]
fn the_end_waits_for_every_result() {
    let mut h = harness(3, &echo(AsyncOptions::unordered().capacity(2), false));
    h.push(0, batch(&[(1, 1), (1, 2), (1, 3), (1, 4)]).boxed());
    h.end();
    assert!(h.holds());
    finish(&mut h);
    let all = h.take_elements(0);
    let rows: usize = all.iter().map(|e| if let Element::Batch(batch) = e { batch.len() } else { 0 }).sum();
    assert_eq!(rows, 4);
    assert!(matches!(all[all.len() - 2..], [Element::Watermark(EventTime::MAX), Element::End]), "{all:?}");
}

#[test]
fn a_failing_call_is_made_again_and_then_rejected_with_its_last_error() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = attempts.clone();
    let options = AsyncOptions::ordered().retries(2, Duration::from_millis(3)).timeout(Duration::from_millis(5));
    let factory = map_async(options, false, move |row: (u64, i64)| {
        let attempt = counted.fetch_add(1, Ordering::Relaxed);
        assert!(row.1 != 4, "before it began");
        async move {
            match row.1 {
                1 if attempt < 2 => Err("not yet".to_string()),
                2 => std::future::pending().await,
                3 => panic!("in the middle"),
                n => Ok(n),
            }
        }
    });
    let mut h = harness(1, &factory);
    for n in 1..=5 {
        h.push(0, batch(&[(0, n)]).boxed());
        finish(&mut h);
    }
    assert_eq!(h.take::<i64>(0), [(1, 1), (5, 5)]);
    assert_eq!(attempts.load(Ordering::Relaxed), 3 + 3 + 3 + 3 + 1);
    let errors: Vec<_> = h.take_rejected().into_iter().map(|r| r.error).collect();
    assert_eq!(errors, ["no answer within 5ms", "user function panicked: in the middle", "user function panicked: before it began"]);
}

#[test]
fn no_more_calls_than_the_capacity_and_one_at_a_time_for_a_key() {
    let under_way = Arc::new(Mutex::new((BTreeMap::<u64, usize>::new(), 0)));
    let seen = under_way.clone();
    let factory = map_async(AsyncOptions::unordered().capacity(3), true, move |row: (u64, i64)| {
        let seen = seen.clone();
        async move {
            {
                let mut seen = seen.lock().unwrap();
                *seen.0.entry(row.0).or_default() += 1;
                assert_eq!(seen.0[&row.0], 1, "two calls of one key");
                seen.1 = seen.1.max(seen.0.values().sum());
            }
            slow(4).await;
            *seen.lock().unwrap().0.entry(row.0).or_default() -= 1;
            Ok(row)
        }
    });
    let mut h = harness(5, &factory);
    h.push(0, batch(&(0..40).map(|n| ((n % 8) as u64, n)).collect::<Vec<_>>()).boxed());
    finish(&mut h);
    assert_eq!(h.take::<(u64, i64)>(0).len(), 40);
    assert!(h.take_rejected().is_empty());
    assert_eq!(under_way.lock().unwrap().1, 3);
}

#[test]
fn answers_are_remembered_until_they_expire() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let factory = lookup_async(
        AsyncOptions::ordered().capacity(1).cache(Duration::from_millis(50), 2),
        false,
        |row: &(u64, i64)| row.0,
        move |key: u64| {
            let n = counted.fetch_add(1, Ordering::Relaxed);
            async move { Ok((key, n)) }
        },
        |row, answer: &(u64, usize)| {
            assert_eq!(row.0, answer.0);
            answer.1
        },
    );
    let mut h = harness(1, &factory);
    let mut ask = |key, wall_ms| {
        h.wall_time(wall_ms);
        h.push(0, batch(&[(key, 0)]).boxed());
        finish(&mut h);
        h.take::<usize>(0)[0].0
    };
    assert_eq!([ask(1, 0), ask(1, 10), ask(2, 10), ask(1, 20)], [0, 0, 1, 0]);
    assert_eq!([ask(1, 60), ask(1, 70)], [2, 2], "it had expired");
    assert_eq!([ask(3, 70), ask(1, 75), ask(2, 76)], [3, 2, 4], "the oldest makes room");
    h.snapshot_and_restore(1);
    h.wall_time(80);
    h.push(0, batch(&[(1, 0)]).boxed());
    finish(&mut h);
    assert_eq!(calls.load(Ordering::Relaxed), 6);
}
