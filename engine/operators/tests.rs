//! Every operator through the harness, in all its modes.

use super::*;
use crate::error::Error;
use crate::observe::{DROPPED, DUPLICATES, LATE};
use crate::record::{Key, Keys, Origin, Origins, RawBatch, Rejected, Rows, downcast};
use crate::testing::{Harness, Mode, Step};
use std::time::Duration;

fn rows<T: crate::record::Data>(rows: impl IntoIterator<Item = (i64, T)>) -> Rows<T> {
    let (times, rows): (Vec<_>, Vec<_>) = rows.into_iter().map(|(t, row)| (EventTime(t), row)).unzip();
    Rows::new(rows, times)
}

fn keyed<K: Key, T: crate::record::Data>(list: impl IntoIterator<Item = (i64, K, T)>) -> Rows<T> {
    let (list, keys): (Vec<_>, Vec<_>) = list.into_iter().map(|(t, key, row)| ((t, row), key)).unzip();
    let mut batch = rows(list);
    batch.keys = Some(Keys::encode(keys.into_iter()));
    batch
}

/// Gives row `i` the record at offset `i` of topic `t`.
fn with_origins<T>(mut batch: Rows<T>) -> Rows<T> {
    let topic: Arc<str> = "t".into();
    let mut raw = RawBatch::default();
    let mut headers = Vec::new();
    RawBatch::encode_header(&mut headers, "h", Some(b"1"));
    for i in 0..batch.rows.len() {
        raw.push_parts(&topic, 3, i as i64, 1000 + i as i64, Some(b"key"), Some(format!("v{i}").as_bytes()), &headers);
    }
    let raw = Arc::new(raw);
    batch.origins = Some(Origins((0..batch.rows.len() as u32).map(|i| Origin::new(raw.clone(), i)).collect()));
    batch
}

/// Offset of the source record and error of each rejected row.
fn rejected(harness: &mut Harness) -> Vec<(i64, String)> {
    let of = |r: Rejected| (r.origin.map_or(-1, |o| o.record().offset), r.error);
    harness.take_rejected().into_iter().map(of).collect()
}

fn sorted<T: crate::record::Data + Ord>(harness: &mut Harness, port: Port) -> Vec<(T, i64)> {
    let mut all = harness.take::<T>(port);
    all.sort();
    all
}

fn panicked(text: &str) -> String {
    format!("user function panicked: {text}")
}

#[test]
fn map_keeps_order_times_and_origins_and_rejects_what_fails() {
    let factory = try_map(|x: i64| match x {
        2 => Err("two".to_string()),
        4 => panic!("four"),
        x => Ok(x.to_string()),
    });
    let steps = [Step::rows(with_origins(rows([(10, 1i64), (20, 2), (30, 3), (40, 4), (50, 5)])))];
    let (out, rejected) = Harness::in_every_mode(&factory, 0, &steps, |h| (h.take::<String>(0), rejected(h)));
    assert_eq!(out, [("1".into(), 10), ("3".into(), 30), ("5".into(), 50)]);
    assert_eq!(rejected, [(1, "two".into()), (3, panicked("four"))]);

    let mut h = Harness::new(&factory, 0);
    h.push(0, with_origins(rows([(1, 1i64), (2, 2), (3, 3)])).boxed());
    let batch: Rows<String> = downcast(h.take_batches(Some(0)).remove(0));
    assert_eq!(batch.origin(1).unwrap().record().offset, 2);
    assert!(batch.keys.is_none());
}

#[test]
fn policies_fail_and_drop() {
    let factory = map(|x: i64| 10 / x);
    let mut h = Harness::with_policy(&factory, 0, ErrorPolicy::Fail);
    let error = h.try_push(0, with_origins(rows([(1, 5i64), (2, 0)])).boxed()).unwrap_err();
    assert!(error.report().contains("record t/3@1"), "{}", error.report());

    let mut h = Harness::with_policy(&factory, 0, ErrorPolicy::Drop);
    h.push(0, rows([(1, 5i64), (2, 0), (3, 2)]).boxed());
    assert_eq!(h.take::<i64>(0), [(2, 1), (5, 3)]);
    assert_eq!(h.count(DROPPED), 1);
}

#[test]
fn filter_and_inspect_keep_keys() {
    let even = filter(|x: &i64| {
        assert!(*x != 7, "seven");
        x % 2 == 0
    });
    let batch = || with_origins(keyed([(1, 11u64, 2i64), (2, 12, 3), (3, 13, 7), (4, 14, 8)]));
    let steps = [Step::rows(batch())];
    let (out, rejected) = Harness::in_every_mode(&even, 0, &steps, |h| (sorted::<i64>(h, 0), rejected(h)));
    assert_eq!(out, [(2, 1), (8, 4)]);
    assert_eq!(rejected, [(2, panicked("seven"))]);

    for (factory, expect) in [(even, vec![11, 14]), (inspect(|x: &i64| assert!(*x != 8, "eight")), vec![11, 12, 13])] {
        let mut h = Harness::new(&factory, 0);
        h.push(0, batch().boxed());
        let out = h.take_batches(Some(0)).remove(0);
        assert_eq!(out.keys().unwrap().as_u64().unwrap(), expect);
        assert_eq!(out.origins().unwrap().0.len(), expect.len());
    }
}

#[test]
fn flat_map_takes_back_the_results_of_a_row_that_fails_midway() {
    let factory = flat_map(|x: i64| (0..x).map(move |i| if x == 3 && i == 2 { panic!("late") } else { x * 10 + i }));
    let steps = [Step::rows(with_origins(rows([(1, 2i64), (2, 3), (3, 0), (4, 1)])))];
    let (out, rejected) = Harness::in_every_mode(&factory, 0, &steps, |h| (h.take::<i64>(0), rejected(h)));
    assert_eq!(out, [(20, 1), (21, 1), (10, 4)]);
    assert_eq!(rejected, [(1, panicked("late"))]);

    let halves = filter_map(|x: i64| (x % 2 == 0).then_some(x / 2));
    let steps = [Step::rows(rows([(1, 4i64), (2, 5), (3, 6)]))];
    assert_eq!(Harness::in_every_mode(&halves, 0, &steps, |h| h.take::<i64>(0)), [(2, 1), (3, 3)]);
}

#[test]
fn key_by_gives_keys_to_the_rows_that_have_one() {
    let factory = key_by(|x: &String| x.chars().next().expect("not empty").to_string());
    let mut h = Harness::new(&factory, 0);
    h.push(0, with_origins(rows([(1, "ab".to_string()), (2, String::new()), (3, "c".to_string())])).boxed());
    let out = h.take_batches(Some(0)).remove(0);
    let expect = Keys::encode(["a".to_string(), "c".to_string()].into_iter());
    assert_eq!(out.keys().unwrap().hashes(), expect.hashes());
    assert_eq!(rejected(&mut h), [(1, panicked("not empty"))]);
}

#[test]
fn union_passes_all_inputs_on() {
    let steps = [Step::Batch(0, rows([(1, 1i64)]).boxed()), Step::Batch(2, rows([(2, 2i64)]).boxed())];
    assert_eq!(Harness::in_every_mode(&union(), 0, &steps, |h| h.take::<i64>(0)), [(1, 1), (2, 2)]);
}

#[test]
fn split_deals_rows_out() {
    let factory = split(2, |x: &i64| *x as usize % 3);
    let steps = [Step::rows(with_origins(rows([(1, 3i64), (2, 1), (3, 2), (4, 6)])))];
    let (a, b, rejected) = Harness::in_every_mode(&factory, 1, &steps, |h| (h.take::<i64>(0), h.take::<i64>(1), rejected(h)));
    assert_eq!((a, b), (vec![(3, 1), (6, 4)], vec![(1, 2)]));
    assert_eq!(rejected, [(2, "split function names port 2, there are 2".to_string())]);
}

fn records(harness: &mut Harness) -> Vec<(String, Option<Vec<u8>>, i64)> {
    let batches = harness.take_batches(Some(0)).into_iter().map(downcast::<RawBatch>);
    let all =
        batches.flat_map(|b| b.records().map(|r| (r.topic.to_string(), r.value.map(<[u8]>::to_vec), r.timestamp)).collect::<Vec<_>>());
    all.collect()
}

#[test]
fn encoding_leaves_nothing_of_a_row_that_fails() {
    let topic: Arc<str> = "out".into();
    let factory = to_raw(move |x: &i64, time, raw| {
        raw.push_parts(&topic, -1, -1, time.0, None, Some(x.to_string().as_bytes()), &[]);
        match x {
            2 => Err("two".into()),
            3 => panic!("three"),
            _ => Ok(()),
        }
    });
    let steps = [Step::rows(with_origins(rows([(1, 1i64), (2, 2), (3, 3), (4, 4)])))];
    let (out, rejected) = Harness::in_every_mode(&factory, 0, &steps, |h| (records(h), rejected(h)));
    assert_eq!(out, [("out".into(), Some(b"1".to_vec()), 1), ("out".into(), Some(b"4".to_vec()), 4)]);
    assert_eq!(rejected, [(1, "two".into()), (2, panicked("three"))]);
}

#[test]
fn a_dead_letter_holds_the_record_and_the_reason() {
    let origin = with_origins(rows([(7, 1)])).origin(0);
    let reject = |origin, time| Rejected { origin, operator: OperatorId::new("parse"), error: "no".into(), time };
    let mut h = Harness::new(&dead_letters("t.dead-letter"), 0);
    h.push(0, rows([(7, reject(origin, 7)), (8, reject(None, 8))]).boxed());
    let batch: RawBatch = downcast(h.take_batches(Some(0)).remove(0));
    let with_record = batch.record(0);
    assert_eq!((with_record.key, with_record.value, with_record.timestamp), (Some(&b"key"[..]), Some(&b"v0"[..]), 1000));
    let headers: Vec<_> = with_record.headers().map(|(n, v)| (n, std::str::from_utf8(v.unwrap()).unwrap())).collect();
    let expect =
        [("h", "1"), (HEADER_TOPIC, "t"), (HEADER_PARTITION, "3"), (HEADER_OFFSET, "0"), (HEADER_OPERATOR, "parse"), (HEADER_ERROR, "no")];
    assert_eq!(headers, expect);
    let without = batch.record(1);
    assert_eq!((without.key, without.value, without.timestamp, without.headers().count()), (None, None, 8, 2));
}

#[test]
fn aggregate_emits_the_newest_value_of_each_key_once_a_batch() {
    let sum = aggregate::<String, i64, i64, i64>(
        || 0,
        |sum, x| {
            assert!(*x >= 0, "negative");
            *sum += x;
        },
        |sum| *sum,
    );
    let k = |s: &str| s.to_string();
    let batch = || keyed([(5, k("b"), 1i64), (1, k("a"), 2), (3, k("b"), 4), (9, k("a"), -1)]);
    let mut h = Harness::new(&sum, 0);
    h.push(0, with_origins(batch()).boxed());
    assert_eq!(h.take::<(String, i64)>(0), [((k("b"), 5), 5), ((k("a"), 2), 1)]);
    assert_eq!(rejected(&mut h), [(3, panicked("negative"))]);

    // In every mode, the newest result of each key is the same.
    let steps = [Step::rows(batch()), Step::rows(keyed([(10, k("c"), 7i64), (11, k("b"), 10)])), Step::rows(keyed([(12, k("a"), 1i64)]))];
    let newest =
        |h: &mut Harness| h.take::<(String, i64)>(0).into_iter().map(|((k, v), _)| (k, v)).collect::<std::collections::BTreeMap<_, _>>();
    let out = Harness::in_every_mode(&sum, 0, &steps, newest);
    assert_eq!(out.into_iter().collect::<Vec<_>>(), [(k("a"), 3), (k("b"), 15), (k("c"), 7)]);
}

#[test]
fn reduce_starts_with_the_first_row() {
    let longest = reduce::<u64, String>(|a, b| if b.len() > a.len() { b.clone() } else { a.clone() });
    let steps = [Step::rows(keyed([(1, 1u64, "aa".to_string()), (2, 1, "b".into())])), Step::rows(keyed([(3, 1u64, "ccc".to_string())]))];
    let last = Harness::in_every_mode(&longest, 0, &steps, |h| h.take::<(u64, String)>(0).pop());
    assert_eq!(last, Some(((1, "ccc".to_string()), 3)));
}

#[test]
fn dedup_judges_by_event_time_alone() {
    let factory = dedup_by::<u64, i64>(Duration::from_millis(10));
    let steps = [
        Step::rows(keyed([(100, 1u64, 1i64), (100, 1, 2), (105, 2, 3)])),
        Step::rows(keyed([(109, 1u64, 4i64), (91, 1, 5)])),
        Step::watermark(108),
        Step::rows(keyed([(109, 1u64, 6i64), (110, 1, 7), (110, 1, 8)])),
        Step::watermark(200),
        Step::rows(keyed([(201, 2u64, 9i64)])),
    ];
    let (out, duplicates) = Harness::in_every_mode(&factory, 0, &steps, |h| (sorted::<i64>(h, 0), h.count(DUPLICATES)));
    assert_eq!(out, [(1, 100), (3, 105), (7, 110), (9, 201)]);
    assert_eq!(duplicates, 5);
}

#[test]
fn dedup_forgets_what_cannot_repeat() {
    let factory = dedup_by::<u64, u64>(Duration::from_millis(10));
    let mut h = Harness::new(&factory, 0);
    let empty = h.state_bytes();
    h.push(0, keyed((0..1000u64).map(|i| (i as i64, i, i))).boxed());
    let full = h.state_bytes();
    h.watermark(EventTime(5000));
    assert_eq!(h.state_bytes(), empty, "of {full}");
}

fn price(row: i64, entry: Option<&i64>) -> i64 {
    assert!(row != 13, "unlucky");
    row * entry.copied().unwrap_or(-1)
}

#[test]
fn a_row_meets_the_table_as_it_is() {
    let change = |list: Vec<(u64, Option<i64>)>| Step::Batch(TABLE_INPUT, keyed(list.into_iter().map(|c| (0, c.0, c))).boxed());
    let steps = || {
        [
            change(vec![(1, Some(10)), (2, Some(20)), (1, Some(11))]),
            Step::InputWatermark(TABLE_INPUT, EventTime(0)),
            Step::rows(with_origins(keyed([(1, 1u64, 2i64), (2, 2, 3), (3, 3, 4), (4, 2, 13)]))),
            change(vec![(2, None), (3, Some(30))]),
            Step::rows(keyed([(5, 2u64, 5i64), (6, 3, 6)])),
        ]
    };
    let inner = join_table::<u64, i64, i64, i64>(|row, entry| price(row, Some(entry)));
    let (out, failed) = Harness::in_every_mode(&inner, 0, &steps(), |h| (sorted::<i64>(h, 0), rejected(h)));
    assert_eq!(out, [(22, 1), (60, 2), (180, 6)]);
    assert_eq!(failed, [(3, panicked("unlucky"))]);
    let left = left_join_table::<u64, i64, i64, i64>(price);
    let out = Harness::in_every_mode(&left, 0, &steps(), |h| sorted::<i64>(h, 0));
    assert_eq!(out, [(-5, 5), (-4, 3), (22, 1), (60, 2), (180, 6)]);
}

#[test]
fn the_table_is_read_in_first_and_only_once() {
    let factory = join_table::<u64, i64, i64, i64>(|row, entry| row * entry);
    let mut h = Harness::new(&factory, 0);
    assert_eq!(h.only_input(), Some(TABLE_INPUT));
    h.snapshot_and_restore(2);
    h.input_watermark(TABLE_INPUT, EventTime::MIN);
    h.input_watermark(STREAM_INPUT, EventTime(5));
    assert_eq!(h.only_input(), Some(TABLE_INPUT), "the bootstrap is not done");
    h.input_watermark(TABLE_INPUT, EventTime(1));
    assert_eq!(h.only_input(), None);
    h.snapshot_and_restore(3);
    assert_eq!(h.only_input(), None, "a restore does not read the table in again");
}

#[test]
fn rows_leave_in_event_time_order_and_late_ones_aside() {
    let factory = sort_by_time::<u64, (i64, i64), i64>(|row| {
        assert!(row.1 != 66, "no tie");
        row.0
    });
    let steps = [
        Step::rows(keyed([(30, 1u64, (9i64, 1i64)), (10, 1, (5, 2)), (10, 1, (4, 3)), (10, 1, (4, 4)), (20, 2, (0, 66))])),
        Step::watermark(9),
        Step::rows(keyed([(9, 1u64, (0i64, 5i64)), (10, 2, (0, 6)), (i64::MIN, 2, (0, 7))])),
        Step::watermark(10),
        Step::rows(keyed([(11, 1u64, (0i64, 8i64)), (10, 1, (0, 9))])),
        Step::End,
    ];
    let by_key = |h: &mut Harness| {
        let (mut out, late, failed) = (h.take::<(i64, i64)>(0), sorted::<(i64, i64)>(h, LATE_PORT), h.take_rejected().len());
        // Instances leave side by side; per key and time the order is fixed.
        out.sort_by_key(|(_, time)| *time);
        (out.into_iter().filter(|(row, _)| row.1 != 6).map(|(row, _)| row.1).collect::<Vec<_>>(), late, h.count(LATE), failed)
    };
    let (order, late, count, failed) = Harness::in_every_mode(&factory, 1, &steps, by_key);
    assert_eq!(order, [3, 4, 2, 8, 1]);
    assert_eq!(late, [((0, 5), 9), ((0, 7), i64::MIN), ((0, 9), 10)]);
    assert_eq!((count, failed), (3, 1));

    let mut h = Harness::new(&factory, 1);
    h.run(&steps[..4], Mode::Whole);
    let batch = h.take_batches(Some(0)).remove(0);
    assert_eq!(batch.keys().unwrap().as_u64().unwrap(), [1, 1, 1, 2], "rows keep their keys, and leave by time, key, tie");
}

/// Uses every kind of state. Out: what it knows of the key after each row.
#[derive(Default)]
struct Everything {
    count: ValueState<u64>,
    recent: ValueState<i64>,
    list: ListState<i64>,
    map: MapState<String, i64>,
    side: Option<SideOutput<String>>,
    seen: crate::observe::Counter,
}

impl ProcessFunction<u64, i64, (u64, String)> for Everything {
    fn open(&mut self, open: &mut ProcessOpen<'_>) {
        self.count = open.value("count");
        self.recent = open.value_with_ttl("recent", Duration::from_millis(10));
        self.list = open.list("list");
        self.map = open.map("map");
        self.side = Some(open.side_output(1));
        self.seen = open.counter("seen");
    }

    fn on_element(&mut self, c: &mut ProcessContext<'_, u64, (u64, String)>, row: i64) {
        self.seen.add(1);
        let key = c.key();
        if row == 13 {
            c.emit((key, "must not be seen".into()));
            if let Some(side) = &self.side {
                c.emit_to(side, "nor this".into());
            }
            panic!("unlucky");
        }
        let count = self.count.update(c, |n| {
            *n = Some(n.unwrap_or(0) + 1);
            n.unwrap_or(0)
        });
        let recent = self.recent.get(c).copied();
        self.recent.set(c, row);
        self.list.push(c, row);
        self.list.retain(c, |x| *x != 7);
        self.map.insert(c, format!("m{}", row % 2), row);
        if row == 8 {
            self.map.remove(c, &"m1".to_string());
        }
        let map: Vec<i64> = self.map.entries(c).map(|(_, v)| *v).collect();
        let list = self.list.get(c).to_vec();
        c.emit((key, format!("n{count} r{recent:?} l{list:?} m{map:?}")));
        if let Some(side) = &self.side {
            c.emit_to(side, format!("{key}:{row}"));
        }
    }
}

#[test]
fn process_keeps_all_kinds_of_state() {
    let factory = process(Everything::default);
    let steps = [
        Step::rows(with_origins(keyed([(1, 1u64, 5i64), (2, 2, 6), (3, 1, 13), (4, 1, 7)]))),
        Step::watermark(5),
        Step::rows(keyed([(6, 1u64, 8i64), (7, 1, 9)])),
        Step::watermark(17),
        Step::rows(keyed([(18, 1u64, 10i64)])),
    ];
    let read = |h: &mut Harness| (sorted::<(u64, String)>(h, 0), sorted::<String>(h, 1), rejected(h), h.count("seen"));
    let (out, side, failed, seen) = Harness::in_every_mode(&factory, 1, &steps, read);
    let expect = [
        ((1, "n1 rNone l[5] m[5]".to_string()), 1),
        ((1, "n2 rSome(5) l[5] m[7]".to_string()), 4),
        ((1, "n3 rSome(7) l[5, 8] m[8]".to_string()), 6),
        ((1, "n4 rSome(8) l[5, 8, 9] m[8, 9]".to_string()), 7),
        ((1, "n5 rNone l[5, 8, 9, 10] m[10, 9]".to_string()), 18),
        ((2, "n1 rNone l[6] m[6]".to_string()), 2),
    ];
    assert_eq!(out, expect);
    assert_eq!(side.len(), 6);
    assert_eq!(failed, [(2, panicked("unlucky"))]);
    assert_eq!(seen, 7);
}

/// One value kept as each time to live says; a row above 0 is set, 0 looks at it.
#[derive(Default)]
struct Kept([ValueState<i64>; 3]);

impl ProcessFunction<u64, i64, (u64, String)> for Kept {
    fn open(&mut self, open: &mut ProcessOpen<'_>) {
        let span = Duration::from_millis(10);
        let ttls = [Ttl::since_creation(span), Ttl::since_change(span), Ttl::since_use(span)];
        self.0 = [0, 1, 2].map(|i| open.value_with_ttl(["creation", "change", "use"][i], ttls[i]));
    }

    fn on_element(&mut self, c: &mut ProcessContext<'_, u64, (u64, String)>, row: i64) {
        let known: Vec<i64> = self.0.iter().map(|state| state.get(c).copied().unwrap_or(0)).collect();
        let key = c.key();
        c.emit((key, format!("{known:?}")));
        if row > 0 {
            self.0.iter().for_each(|state| state.set(c, row));
        }
    }
}

#[test]
fn a_time_to_live_counts_from_creation_change_or_use() {
    let seen = |rows: &[(i64, i64)], watermark: i64| {
        let mut steps: Vec<Step> = rows.iter().map(|(time, row)| Step::rows(keyed([(*time, 1u64, *row)]))).collect();
        steps.push(Step::watermark(watermark));
        steps.push(Step::rows(keyed([(watermark + 1, 1u64, 0i64)])));
        let read = |h: &mut Harness| sorted::<(u64, String)>(h, 0);
        let all = Harness::in_every_mode(&process(Kept::default), 0, &steps, read);
        all.into_iter().find(|(_, time)| *time == watermark + 1).map(|((_, text), _)| text).unwrap()
    };
    // Made at 1: there up to a watermark of 10.
    assert_eq!(seen(&[(1, 5)], 10), "[5, 5, 5]");
    assert_eq!(seen(&[(1, 5)], 11), "[0, 0, 0]");
    // Changed at 4, looked at at 7.
    let rows = [(1, 5), (4, 6), (7, 0)];
    assert_eq!(seen(&rows, 10), "[6, 6, 6]");
    assert_eq!(seen(&rows, 13), "[0, 6, 6]");
    assert_eq!(seen(&rows, 14), "[0, 0, 6]");
    assert_eq!(seen(&rows, 16), "[0, 0, 6]");
    assert_eq!(seen(&rows, 17), "[0, 0, 0]");
}

/// Row x > 0: timer "a" at x and "b" at x; x < 0: delete "a" at -x. A timer "a" sets "again" ten later; "again" panics at 40.
#[derive(Default)]
struct Timers;

impl ProcessFunction<u64, i64, (u64, String)> for Timers {
    fn open(&mut self, _open: &mut ProcessOpen<'_>) {}

    fn on_element(&mut self, c: &mut ProcessContext<'_, u64, (u64, String)>, row: i64) {
        if row > 0 {
            c.set_timer("b", EventTime(row));
            c.set_timer("a", EventTime(row));
            c.set_timer("a", EventTime(row));
        } else {
            assert!(c.delete_timer("a", EventTime(-row)));
            assert!(!c.delete_timer("a", EventTime(-row)));
        }
    }

    fn on_timer(&mut self, c: &mut ProcessContext<'_, u64, (u64, String)>, timer: &Timer) {
        let key = c.key();
        assert_eq!(c.time(), timer.time);
        c.emit((key, format!("{} {}", timer.name, timer.time.0)));
        if timer.name == "a" {
            c.set_timer("again", timer.time.plus_ms(10));
        }
        if timer.name == "again" {
            assert!(timer.time.0 != 40, "forty");
            c.set_timer("again", timer.time.plus_ms(10));
        }
    }
}

#[test]
fn timers_fire_in_order_and_periodic_ones_end() {
    let factory = process(|| Timers);
    let steps = [
        Step::rows(keyed([(1, 2u64, 20i64), (1, 1, 20), (1, 3, 5), (1, 1, 25)])),
        Step::watermark(4),
        Step::rows(keyed([(5, 1u64, -25i64)])),
        Step::watermark(30),
        Step::End,
    ];
    let read = |h: &mut Harness| (sorted::<(u64, String)>(h, 0), rejected(h));
    let (out, failed) = Harness::in_every_mode(&factory, 0, &steps, read);
    let out: Vec<_> = out.iter().map(|((key, text), time)| format!("{key} {text} {time}")).collect();
    let expect = [
        "1 a 20 20",
        "1 again 30 30",
        "1 b 20 20",
        "1 b 25 25",
        "2 a 20 20",
        "2 again 30 30",
        "2 b 20 20",
        "3 a 5 5",
        "3 again 15 15",
        "3 again 25 25",
        "3 again 35 35",
        "3 b 5 5",
    ];
    assert_eq!(out, expect);
    assert_eq!(failed, [(-1, panicked("forty")), (-1, panicked("forty"))]);

    let mut h = Harness::new(&factory, 0);
    h.run(&steps[..4], Mode::Whole);
    let order: Vec<_> = h.take::<(u64, String)>(0).into_iter().map(|((key, text), _)| format!("{key} {text}")).collect();
    let expect =
        ["3 a 5", "3 b 5", "3 again 15", "1 a 20", "1 b 20", "2 a 20", "2 b 20", "1 b 25", "3 again 25", "1 again 30", "2 again 30"];
    assert_eq!(order, expect, "by time, key, name");
}

struct Wall;

impl ProcessFunction<u64, i64, String> for Wall {
    fn open(&mut self, open: &mut ProcessOpen<'_>) {
        open.use_processing_time();
    }
    fn on_element(&mut self, c: &mut ProcessContext<'_, u64, String>, row: i64) {
        if row < 0 {
            assert!(c.delete_processing_timer("t", -row));
        } else {
            c.set_processing_timer("t", row);
        }
    }
    fn on_timer(&mut self, c: &mut ProcessContext<'_, u64, String>, timer: &Timer) {
        assert!(timer.is_processing_time);
        c.emit(format!("{} due {}", c.key(), timer.time.0));
    }
}

#[test]
fn processing_time_timers_fire_when_the_clock_says_so() {
    let steps = [
        Step::WallTime(1000),
        Step::rows(keyed([(1, 1u64, 1500i64), (1, 2, 1400), (1, 3, 1200), (1, 4, 1300)])),
        Step::rows(keyed([(1, 4u64, -1300i64)])),
        Step::WallTime(1300),
        Step::WallTime(1450),
    ];
    let out = Harness::in_every_mode(&process(|| Wall), 0, &steps, |h| h.take::<String>(0).into_iter().map(|r| r.0).collect::<Vec<_>>());
    assert_eq!(out, ["3 due 1200", "2 due 1400"]);
}

struct Twins;

impl ProcessFunction<u64, i64, i64> for Twins {
    fn open(&mut self, open: &mut ProcessOpen<'_>) {
        let _: (ValueState<u64>, ListState<u64>) = (open.value("same"), open.list("same"));
    }
    fn on_element(&mut self, _: &mut ProcessContext<'_, u64, i64>, _: i64) {}
}

#[test]
fn two_states_of_one_name_are_refused() {
    let factory = process(|| Twins);
    let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| Harness::new(&factory, 0))).err().expect("does not open");
    assert!(opened.downcast_ref::<String>().is_some_and(|text| text.contains("two states")));
}

#[test]
fn damaged_blobs_are_refused() {
    let factories: [OperatorFactory; 3] =
        [process(|| Timers), sort_by_time::<u64, i64, i64>(|x| *x), join_table::<u64, i64, i64, i64>(|row, entry| row * entry)];
    for factory in factories {
        let refused: Result<(), Error> = factory().restore(&[vec![7; 5]]);
        assert!(refused.is_err());
    }
}
