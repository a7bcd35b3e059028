//! Joins against the prefix oracle: every kind of join, of rows that only come and of rows that change, with duplicates and
//! NULLs on both sides.
//!
//! Regular joins are compared after every prefix; joins that wait for the watermark when the input has ended. What a plan
//! says of itself (which join it is, what bounds its state) is looked at as well: a join that is only right, and keeps all rows
//! for ever, is a fault.

use super::oracle::batch;
use super::world::{Feed, Feeds, Running};
use crate::session::{Outcome, Session};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const COLUMNS: &str = "k INT, s STRING, i BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL";
/// Rows in any order: none is late, and all is decided at the end.
const HOUR: &str = "'1' HOUR";
/// Rows in the order of their times: the watermark is behind each of them.
const SECOND: &str = "'1' SECOND";

/// Behind the columns of table b, to make it one of versions.
const KEYED: &str = ", PRIMARY KEY (k) NOT ENFORCED";

fn ddl(of_b: &str, delay: &str) -> String {
    let table = |name: &str, more: &str| {
        format!("CREATE TABLE {name} ({COLUMNS} {delay}{more}) WITH ('connector' = 'topics', 'format' = 'json');\n")
    };
    table("a", "") + &table("b", of_b)
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int32, true),
        Field::new("s", DataType::Utf8, true),
        Field::new("i", DataType::Int64, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), true),
    ]))
}

/// Few values, so that rows meet and are there several times.
fn record() -> impl Strategy<Value = String> {
    let key = prop_oneof![5 => (0..3i32).prop_map(|n| n.to_string()), 1 => Just("null".to_string())];
    let text = proptest::sample::select(vec!["null", "\"\"", "\"a\"", "\"ab\"", "\"b\""]);
    let int = prop_oneof![5 => (-1..3i64).prop_map(|n| n.to_string()), 1 => Just("null".to_string()), 1 => Just("7".to_string())];
    (key, text, int, 0..24i64, proptest::sample::select(vec![0, 0, 1, 999])).prop_map(|(k, s, i, step, ms)| {
        let at = format!("2026-01-01 00:{:02}:{:02}.{ms:03}", step / 4, step % 4 * 15);
        format!("{{\"k\":{k},\"s\":{s},\"i\":{i},\"ts\":\"{at}\"}}")
    })
}

#[derive(Debug)]
struct Input {
    splits: [Vec<Vec<String>>; 2],
    batch: usize,
    /// What of the tables is there, turn by turn.
    prefixes: Vec<(usize, usize)>,
    restarts: Vec<u32>,
    seed: u64,
    /// Rows come in the order of their times.
    in_order: bool,
}

fn input() -> impl Strategy<Value = Input> {
    let splits = || proptest::collection::vec(proptest::collection::vec(record(), 0..9), 1..3);
    let prefixes = proptest::collection::vec((0..10usize, 0..10usize), 0..4);
    (splits(), splits(), 1..5usize, prefixes, proptest::collection::vec(1..4u32, 0..3), any::<u64>(), any::<bool>()).prop_map(
        |(a, b, batch, mut prefixes, restarts, seed, in_order)| {
            for i in 1..prefixes.len() {
                let before = prefixes[i - 1];
                prefixes[i] = (prefixes[i].0.max(before.0), prefixes[i].1.max(before.1));
            }
            Input { splits: [a, b], batch, prefixes, restarts, seed, in_order }
        },
    )
}

fn feeds(input: &Input) -> Feeds {
    let time = |record: &String| record.split_once("\"ts\":").map(|(_, time)| time.to_string());
    let [a, b] = input.splits.clone().map(|mut splits| {
        if input.in_order {
            splits = vec![splits.concat()];
            splits[0].sort_by_key(time);
        }
        splits
    });
    Feeds(BTreeMap::from([("a".to_string(), Feed::new("a", a, input.batch)), ("b".to_string(), Feed::new("b", b, input.batch))]))
}

fn check(ours: &str, theirs: &str, input: &Input, every_prefix: bool) -> Result<(), TestCaseError> {
    check_with("", ours, theirs, input, every_prefix)
}

fn check_with(of_b: &str, ours: &str, theirs: &str, input: &Input, every_prefix: bool) -> Result<(), TestCaseError> {
    let feeds = feeds(input);
    let (a, b) = (feeds.0["a"].clone(), feeds.0["b"].clone());
    let expected = || batch(&[("a", schema(), a.prefix()), ("b", schema(), b.prefix())], theirs);
    let delay = if input.in_order { SECOND } else { HOUR };
    let mut running = Running::start(&feeds, &format!("{}{ours}", ddl(of_b, delay)), input.seed, 1 + (input.seed % 3) as u32);
    for (turn, &(of_a, of_b)) in input.prefixes.iter().enumerate() {
        a.reveal(of_a);
        b.reveal(of_b);
        running.settle();
        if every_prefix {
            let (got, want) = (running.rows.rows(), expected());
            prop_assert!(got == want, "after {of_a} and {of_b} rows a split:\n{ours}\n got {got:?}\nwant {want:?}");
        }
        if let Some(parallelism) = input.restarts.get(turn) {
            running.restart(*parallelism);
        }
    }
    a.reveal(usize::MAX);
    b.reveal(usize::MAX);
    running.finish();
    let (got, want) = (running.rows.rows(), expected());
    prop_assert!(got == want, "at the end:\n{ours}\n got {got:?}\nwant {want:?}");
    Ok(())
}

fn pick(options: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    proptest::sample::select(options)
}

const KINDS: &[&str] = &["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"];

/// A query of columns k, s and i over a table: rows that only come, or that change.
fn side(table: &'static str) -> impl Strategy<Value = String> {
    let queries = pick(&[
        "SELECT k, s, i FROM t",
        "SELECT k, s, i FROM t",
        "SELECT k, s, i FROM t WHERE i > 0",
        "SELECT k, s, i FROM t UNION ALL SELECT CAST(k + 1 AS INT), s, i FROM t",
        "SELECT DISTINCT k, s, i FROM t",
        "SELECT k, s, COUNT(*) AS i FROM t GROUP BY k, s",
        "SELECT k, MAX(s) AS s, MIN(i) AS i FROM t GROUP BY k",
        "SELECT CAST(COUNT(*) AS INT) AS k, s, MAX(i) AS i FROM t GROUP BY s",
    ]);
    queries.prop_map(move |query| query.replace("FROM t", &format!("FROM {table}")))
}

/// What must be true of two rows.
fn condition() -> impl Strategy<Value = String> {
    let equal = pick(&[
        "l.k = r.k",
        "l.k = r.k",
        "l.k = r.k AND l.s = r.s",
        "l.k + 1 = r.k",
        "l.i = r.k",
        "l.s = r.s AND l.k + l.i = r.i",
        "l.k IS NOT DISTINCT FROM r.k",
    ]);
    let more = pick(&[
        "l.i < r.i",
        "l.i <> 1",
        "r.i > 0",
        "l.s >= r.s",
        "l.s <> 'a'",
        "l.i BETWEEN r.i - 1 AND r.i",
        "(l.s LIKE 'a%' OR r.i = 1)",
        "l.s || 'b' = r.s",
        "(l.i IS NULL OR r.s IS NULL)",
        "COALESCE(l.i, 1) >= r.k",
    ]);
    (equal, proptest::option::weighted(0.5, more)).prop_map(|(a, b)| b.map_or(a.to_string(), |b| format!("({a}) AND {b}")))
}

fn joined() -> impl Strategy<Value = String> {
    let filter = proptest::option::weighted(0.3, pick(&["l.i > 0", "r.k IS NULL", "l.k = 1", "l.i < r.i"]));
    (side("a"), pick(KINDS), side("b"), condition(), filter).prop_map(|(left, kind, right, condition, filter)| {
        let filter = filter.map_or(String::new(), |f| format!(" WHERE {f}"));
        format!(
            "SELECT l.k AS k, l.s AS s, l.i AS i, r.k AS k2, r.s AS s2, r.i AS i2 FROM ({left}) AS l {kind} ({right}) AS r ON {condition}{filter}"
        )
    })
}

/// Joins in other words.
fn query() -> impl Strategy<Value = String> {
    let comma = (side("a"), side("b"), condition())
        .prop_map(|(left, right, condition)| format!("SELECT l.s, l.i, r.i AS i2 FROM ({left}) AS l, ({right}) AS r WHERE {condition}"));
    let exists = (side("a"), pick(&["EXISTS", "NOT EXISTS"]), side("b"), condition()).prop_map(|(left, exists, right, condition)| {
        format!("SELECT l.k, l.s, l.i FROM ({left}) AS l WHERE {exists} (SELECT 1 FROM ({right}) AS r WHERE {condition})")
    });
    let within = (side("a"), side("b"), pick(&["", " WHERE r.i > 0", " WHERE r.s = l.s"])).prop_map(|(left, right, filter)| {
        format!("SELECT l.k, l.s, l.i FROM ({left}) AS l WHERE l.k IN (SELECT r.k FROM ({right}) AS r{filter})")
    });
    let value = (side("a"), pick(&["MAX", "MIN"]), side("b"), pick(&["", " WHERE r.k = l.k"])).prop_map(|(left, call, right, filter)| {
        format!("SELECT l.k, l.i FROM ({left}) AS l WHERE l.i >= (SELECT {call}(r.i) FROM ({right}) AS r{filter})")
    });
    let set = (side("a"), pick(&["INTERSECT", "EXCEPT", "UNION"]), side("b")).prop_map(|(left, op, right)| format!("{left} {op} {right}"));
    let aggregated = joined().prop_map(|join| format!("SELECT k, COUNT(*) AS n, MAX(s2) AS hi FROM ({join}) AS j GROUP BY k"));
    let twice = (joined(), pick(KINDS), side("a"))
        .prop_map(|(join, kind, third)| format!("SELECT j.k, j.i2, t.s FROM ({join}) AS j {kind} ({third}) AS t ON j.k2 = t.k"));
    prop_oneof![6 => joined(), 1 => comma, 2 => exists, 1 => within, 1 => value, 1 => set, 1 => aggregated, 1 => twice]
}

/// A window function over a table by a time, and the same rows by arithmetic.
fn windowed(table: &str, time: &str, size: i64, slide: i64) -> (String, String) {
    let ours = if size == slide {
        format!("TABLE(TUMBLE(TABLE {table}, DESCRIPTOR({time}), INTERVAL '{size}' SECOND))")
    } else {
        format!("TABLE(HOP(TABLE {table}, DESCRIPTOR({time}), INTERVAL '{slide}' SECOND, INTERVAL '{size}' SECOND))")
    };
    let spread = (0..size / slide).map(|i| {
        let start = format!("date_bin(INTERVAL '{slide} seconds', {time}, TIMESTAMP '1970-01-01 00:00:00') - INTERVAL '{} seconds'", i * slide);
        format!(
            "SELECT *, CAST({start} AS TIMESTAMP(3)) AS window_start, CAST({start} + INTERVAL '{size} seconds' AS TIMESTAMP(3)) AS window_end FROM {table}"
        )
    });
    (ours, format!("({})", spread.collect::<Vec<_>>().join(" UNION ALL ")))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn joins_add_up_after_every_prefix(input in input(), sql in query()) {
        check(&sql, &sql, &input, true)?;
    }

    #[test]
    fn joins_within_a_span_of_time_add_up(
        input in input(),
        kind in 0..KINDS.len() + 2,
        equal in pick(&["l.k = r.k", "l.k = r.k AND l.s = r.s", "l.ts = r.ts", "l.k = r.k AND l.ts = r.ts"]),
        (from, to) in (-70..70i64, 0..90i64).prop_map(|(from, length)| (from, from + length)),
        strict: bool,
        more in proptest::option::weighted(0.4, pick(&["l.i < r.i", "l.s || 'b' = r.s", "r.i > 0"])),
        outer in 0..3usize,
    ) {
        let shift = |by: i64| if by < 0 { format!("- INTERVAL '{}' SECOND", -by) } else { format!("+ INTERVAL '{by}' SECOND") };
        let bounds = if strict {
            format!("r.ts > l.ts {} AND l.ts {} > r.ts", shift(from), shift(to + 1))
        } else {
            format!("r.ts BETWEEN l.ts {} AND l.ts {}", shift(from), shift(to))
        };
        let more = more.map_or(String::new(), |m| format!(" AND {m}"));
        let condition = format!("{equal} AND {bounds}{more}");
        let join = match KINDS.get(kind) {
            Some(kind) => format!("SELECT l.k AS k, l.ts AS at, l.i AS i, r.i AS i2, r.ts AS ts FROM a AS l {kind} b AS r ON {condition}"),
            None => {
                let exists = if kind == KINDS.len() { "EXISTS" } else { "NOT EXISTS" };
                format!("SELECT l.k AS k, l.i AS i2 FROM a AS l WHERE {exists} (SELECT 1 FROM b AS r WHERE {condition})")
            }
        };
        // A window over the join, by a time of a side that has a row in every result.
        let time = match KINDS.get(kind) {
            Some(&"JOIN") if strict => Some("at"),
            Some(&"JOIN" | &"RIGHT JOIN") => Some("ts"),
            Some(&"LEFT JOIN") => Some("at"),
            _ => None,
        };
        let around = |window: &str, view: &str| format!("{view}SELECT window_start, k, COUNT(*) AS n FROM {window} AS w GROUP BY window_start, window_end, k");
        let (ours, theirs) = match (outer, time) {
            (1, Some(time)) => {
                let (ours, theirs) = windowed("j", time, 60, 60);
                let (ours, theirs) = (around(&ours, &format!("CREATE VIEW j AS {join};\n")), around(&theirs, ""));
                (ours, format!("WITH j AS ({join}) {theirs}"))
            }
            (2, _) => (format!("SELECT k, COUNT(i2) AS n FROM ({join}) AS j GROUP BY k"), format!("SELECT k, COUNT(i2) AS n FROM ({join}) AS j GROUP BY k")),
            _ => (join.clone(), join),
        };
        prop_assert!(explained(&ours).contains("interval_join"), "{}", explained(&ours));
        check(&ours, &theirs, &input, false)?;
    }

    #[test]
    fn joins_of_windows_add_up(
        input in input(),
        kind in 0..KINDS.len() + 2,
        aggregated in any::<(bool, bool)>(),
        (size, slide) in proptest::sample::select(vec![(60, 60), (90, 90), (60, 30), (120, 40)]),
        more in proptest::option::weighted(0.6, pick(&["l.k = r.k", "l.n = r.n", "l.k = r.k AND l.n < r.n", "l.n >= r.n", "l.ws >= TIMESTAMP '2026-01-01 00:02:00'", "r.we < TIMESTAMP '2026-01-01 00:05:00' AND l.k = r.k"])),
        outer in 0..3usize,
    ) {
        let more = more.map_or(String::new(), |m| format!(" AND {m}"));
        let side = |window: &str, aggregated: bool| if aggregated {
            format!("(SELECT window_start AS ws, window_end AS we, k, COUNT(*) AS n FROM {window} AS w GROUP BY window_start, window_end, k)")
        } else {
            format!("(SELECT window_start AS ws, window_end AS we, k, i AS n FROM {window} AS w)")
        };
        let write = |a: &str, b: &str| {
            let (left, right) = (side(a, aggregated.0), side(b, aggregated.1));
            let condition = format!("l.ws = r.ws AND l.we = r.we{more}");
            let join = match KINDS.get(kind) {
                Some(kind) => format!("SELECT l.ws AS ws, l.we AS we, l.k AS k, l.n AS n, r.k AS k2, r.n AS n2, r.we AS we2 FROM {left} AS l {kind} {right} AS r ON {condition}"),
                None => {
                    let exists = if kind == KINDS.len() { "EXISTS" } else { "NOT EXISTS" };
                    format!("SELECT l.ws AS ws, l.we AS we, l.k AS k, l.n AS n FROM {left} AS l WHERE {exists} (SELECT 1 FROM {right} AS r WHERE {condition})")
                }
            };
            match outer {
                0 => join,
                1 => format!("SELECT ws, we, MAX(n) AS hi FROM ({join}) AS j GROUP BY ws, we"),
                _ => format!("SELECT k, COUNT(*) AS many FROM ({join}) AS j GROUP BY k"),
            }
        };
        let ((a, their_a), (b, their_b)) = (windowed("a", "ts", size, slide), windowed("b", "ts", size, slide));
        let (ours, theirs) = (write(&a, &b), write(&their_a, &their_b));
        prop_assert!(explained(&ours).contains("window_join"), "{}", explained(&ours));
        check(&ours, &theirs, &input, false)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes first: the table is read to its end before the stream.
    #[test]
    fn rows_of_files_are_looked_up(
        input in input(),
        kind in pick(&["JOIN", "LEFT JOIN"]),
        equal in pick(&["l.k = r.k", "l.k + 1 = r.k", "l.k = r.k AND l.s = r.s"]),
        more in proptest::option::weighted(0.4, pick(&["r.i > 0", "l.i <= r.i", "l.s || 'b' = r.s"])),
        filter in proptest::option::weighted(0.4, pick(&["r.i > 0", "l.i > 0", "r.k IS NULL"])),
    ) {
        let more = more.map_or(String::new(), |m| format!(" AND {m}"));
        let filter = filter.map_or(String::new(), |f| format!(" WHERE {f}"));
        let write = |left: &str, right: &str| {
            format!("SELECT l.k, l.i, l.s, r.i AS i2, r.s AS s2 FROM {left} AS l {kind} {right} AS r ON {equal}{more}{filter}")
        };
        let ours = write("(SELECT *, PROCTIME() AS p FROM a)", "b FOR SYSTEM_TIME AS OF l.p");
        let Input { splits: [_, rows], .. } = &input;
        // The same rows as lines of CSV.
        let line = |record: &String| {
            let row: serde_json::Value = serde_json::from_str(record).unwrap();
            let cell = |name: &str| match &row[name] {
                serde_json::Value::Null => "-".to_string(),
                serde_json::Value::String(text) => format!("\"{text}\""),
                other => other.to_string(),
            };
            ["k", "s", "i", "ts"].map(cell).join(";")
        };
        let rows: Vec<Vec<String>> = rows.iter().map(|split| split.iter().map(line).collect()).collect();
        let ddl = format!(
            "CREATE TABLE a ({COLUMNS} {HOUR}) WITH ('connector' = 'topics', 'format' = 'json');
             CREATE TABLE b (k INT, s STRING, i BIGINT, ts TIMESTAMP(3)) WITH ('connector' = 'filesystem', 'path' = 'b', 'format' = 'csv',
             'csv.field-delimiter' = ';', 'csv.null-literal' = '-');\n"
        );
        let feeds = Feeds(BTreeMap::from([
            ("a".to_string(), Feed::new("a", input.splits[0].clone(), input.batch)),
            ("b".to_string(), Feed::new("b", rows, input.batch)),
        ]));
        let mut running = Running::start(&feeds, &format!("{ddl}{ours}"), input.seed, 1 + (input.seed % 3) as u32);
        feeds.0["b"].reveal(usize::MAX);
        for (turn, &(of_a, _)) in input.prefixes.iter().enumerate() {
            feeds.0["a"].reveal(of_a);
            running.settle();
            if let Some(parallelism) = input.restarts.get(turn) {
                running.restart(*parallelism);
            }
        }
        feeds.0.values().for_each(|feed| feed.reveal(usize::MAX));
        running.finish();
        let all = |side: usize| input.splits[side].concat();
        let want = batch(&[("a", schema(), all(0)), ("b", schema(), all(1))], &write("a", "b"));
        let got = running.rows.rows();
        prop_assert!(got == want, "{ours}\n got {got:?}\nwant {want:?}");
    }
}

/// What EXPLAIN says of a query.
fn explained(sql: &str) -> String {
    explained_with(sql, "")
}

fn explained_with(sql: &str, of_b: &str) -> String {
    let (before, sql) = sql.split_at(sql.rfind(";\n").map_or(0, |at| at + 2));
    let none = Input { splits: [vec![vec![]], vec![vec![]]], batch: 1, prefixes: vec![], restarts: vec![], seed: 0, in_order: false };
    let mut session = Session::new(Arc::new(feeds(&none)));
    let outcomes =
        session.run("test.sql", &format!("{}{before}EXPLAIN {sql}", ddl(of_b, HOUR))).unwrap_or_else(|e| panic!("{sql}\n{}", e.report()));
    match outcomes.into_iter().last() {
        Some(Outcome::Text(text)) => text,
        other => panic!("no plan: {other:?}"),
    }
}

#[test]
fn a_plan_says_what_a_join_keeps_and_whether_its_rows_change() {
    let regular = explained("SELECT l.k, r.i FROM a AS l JOIN b AS r ON l.k = r.k AND l.i < r.i WHERE l.s = 'a'");
    assert!(regular.contains("inner on l.k = r.k AND l.i < r.i; rows only come"), "{regular}");
    assert!(
        regular.contains("the rows of both sides, about ") && regular.contains(" B each") && regular.contains("UNBOUNDED by time"),
        "{regular}"
    );
    // The condition on one side is applied before the join.
    let (above, below) = regular.split_once("Inner Join").unwrap();
    assert!(!above.contains("Filter") && below.contains("Filter: a.s = Utf8(\"a\")"), "{regular}");
    assert!(regular.contains("nothing bounds the state of query-join-1") && !regular.contains("its rows change"), "{regular}");
    let grouped = explained("SELECT k, COUNT(*) FROM a GROUP BY k");
    assert!(grouped.contains("its rows change: +I -U +U -D") && grouped.contains("columns: k"), "{grouped}");
    let outer = explained("SELECT l.k, r.i FROM a AS l LEFT JOIN b AS r ON l.k = r.k");
    assert!(outer.contains("left on l.k = r.k; rows change later"), "{outer}");
    let span = explained("SELECT l.k FROM a AS l LEFT JOIN b AS r ON l.k = r.k AND r.ts BETWEEN l.ts AND l.ts + INTERVAL '5' MINUTE");
    assert!(span.contains("left on l.k = r.k; rows only come") && span.contains("left rows for 5m of event time"), "{span}");
    // One bound is not enough to let go of rows.
    let half = explained("SELECT l.k FROM a AS l JOIN b AS r ON l.k = r.k AND r.ts >= l.ts");
    assert!(!half.contains("interval_join"), "{half}");
    // Rows that change have no event time.
    let changing = explained(
        "SELECT l.k FROM a AS l JOIN (SELECT k, MAX(ts) AS ts FROM b GROUP BY k) AS r ON l.k = r.k AND r.ts BETWEEN l.ts AND l.ts + INTERVAL '5' MINUTE",
    );
    assert!(!changing.contains("interval_join"), "{changing}");
    // A condition on a window's bounds leaves its aggregate one of windows.
    let above = explained(
        "SELECT k, n FROM (SELECT window_start, window_end, k, COUNT(*) AS n FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end, k) AS w WHERE window_start > TIMESTAMP '2026-01-01 00:00:00' AND k = 1",
    );
    assert!(above.contains("slices a key"), "{above}");
    // Tables side by side do not change the order in which versions are looked up.
    let beside = explained_with(
        "SELECT l.k, r.i FROM a AS l JOIN b FOR SYSTEM_TIME AS OF l.ts AS r ON l.k = r.k, a AS t WHERE t.k = r.k AND r.i > 0 AND l.i > 0",
        KEYED,
    );
    assert!(beside.contains("temporal_join") && beside.contains("inner on r.k = t.k"), "{beside}");
    // Neither time of the join is lost: of the earlier one the watermark is behind.
    let window = |time: &str| {
        explained(&format!(
            "CREATE VIEW j AS SELECT l.k, l.ts AS lt, r.ts AS rt FROM a AS l JOIN b AS r ON l.k = r.k AND r.ts BETWEEN l.ts AND l.ts + INTERVAL '5' MINUTE;
SELECT window_start, COUNT(*) AS n FROM TABLE(TUMBLE(TABLE j, DESCRIPTOR({time}), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end"
        ))
    };
    assert!(window("lt").contains("lt, watermark 5m behind"), "{}", window("lt"));
    assert!(!window("rt").contains("behind"), "{}", window("rt"));
}

/// DataFusion itself takes the second equality for one of NULLs too.
#[test]
fn nulls_that_are_equal_in_one_key_are_not_in_another() {
    let rows = |ks: &[(&str, &str)]| {
        ks.iter().map(|(k, i)| format!("{{\"k\":{k},\"s\":\"\",\"i\":{i},\"ts\":\"2026-01-01 00:00:00\"}}")).collect::<Vec<_>>()
    };
    let sides = [
        vec![rows(&[("null", "null"), ("null", "1"), ("1", "1"), ("2", "null")])],
        vec![rows(&[("null", "null"), ("null", "1"), ("2", "null")])],
    ];
    let input = Input { splits: sides, batch: 2, prefixes: vec![], restarts: vec![], seed: 1, in_order: false };
    for sql in [
        "SELECT l.k, r.i FROM a AS l JOIN b AS r ON l.k IS NOT DISTINCT FROM r.k WHERE l.i = r.i",
        "SELECT l.k, r.i FROM a AS l, b AS r WHERE l.k IS NOT DISTINCT FROM r.k AND l.i = r.i",
    ] {
        let feeds = feeds(&input);
        let mut running = Running::start(&feeds, &format!("{}{sql}", ddl("", HOUR)), 1, 2);
        feeds.0.values().for_each(|feed| feed.reveal(usize::MAX));
        running.finish();
        assert_eq!(running.rows.rows(), BTreeMap::from([(vec!["NULL".to_string(), "1".to_string()], 1)]), "{sql}");
    }
}

/// Versions of a table, each at an instant of its own.
fn versions() -> impl Strategy<Value = Vec<Vec<String>>> {
    let one = (0..3i32, proptest::sample::select(vec!["null", "\"a\"", "\"b\""]), -1..3i64, 0..24i64);
    proptest::collection::vec(proptest::collection::vec(one, 0..9), 1..3).prop_map(|splits| {
        let mut unique = 0;
        let mut record = |(k, s, i, step): (i32, &str, i64, i64)| {
            unique += 1;
            let at = format!("2026-01-01 00:{:02}:{:02}.{unique:03}", step / 4, step % 4 * 15);
            format!("{{\"k\":{k},\"s\":{s},\"i\":{i},\"ts\":\"{at}\"}}")
        };
        splits.into_iter().map(|split| split.into_iter().map(&mut record).collect()).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn versions_are_those_of_the_row_s_time(
        input in (input(), versions()).prop_map(|(input, b)| { let [a, _] = input.splits; Input { splits: [a, b], ..input } }),
        kind in pick(&["JOIN", "LEFT JOIN"]),
        more in proptest::option::weighted(0.5, pick(&["l.s = r.s", "r.i > 0", "l.i <= r.i", "l.s || 'b' = r.s"])),
        filter in proptest::option::weighted(0.5, pick(&["r.i > 0", "l.i > 0", "r.s IS NULL", "r.i > 0 AND l.i >= 0", "r.k = 1"])),
        nested: bool,
    ) {
        let more = more.map_or(String::new(), |m| format!(" AND {m}"));
        let filter = filter.map_or(String::new(), |f| format!(" WHERE {f}"));
        let columns = "l.k AS k, l.i AS i, l.s AS s, r.k AS k2, r.i AS i2, r.s AS s2";
        let join = |filter: &str| format!("SELECT {columns} FROM a AS l {kind} b FOR SYSTEM_TIME AS OF l.ts AS r ON l.k = r.k{more}{filter}");
        let ours = if nested {
            let mut outside = filter.clone();
            for (inside, named) in [("r.i", "i2"), ("r.s", "s2"), ("r.k", "k2"), ("l.i", "i")] {
                outside = outside.replace(inside, named);
            }
            format!("SELECT * FROM (SELECT * FROM ({}) AS x) AS y{outside}", join(""))
        } else {
            join(&filter)
        };
        // The newest version not after the row, by comparing all; then what else is asked of it.
        let newest = "SELECT n, vk, vs, vi FROM (SELECT l.n, r.k AS vk, r.s AS vs, r.i AS vi, ROW_NUMBER() OVER (PARTITION BY l.n ORDER BY r.ts DESC) AS rank
            FROM numbered AS l JOIN b AS r ON l.k = r.k AND r.ts <= l.ts) AS all_versions WHERE rank = 1";
        let theirs = format!("WITH numbered AS (SELECT *, ROW_NUMBER() OVER (ORDER BY ts) AS n FROM a), newest AS ({newest})
            SELECT {columns} FROM numbered AS l {kind} (SELECT n, vk AS k, vs AS s, vi AS i FROM newest) AS r ON l.n = r.n{more}{filter}");
        prop_assert!(explained_with(&ours, KEYED).contains("temporal_join"), "{}", explained_with(&ours, KEYED));
        check_with(KEYED, &ours, &theirs, &input, false)?;
    }
}
