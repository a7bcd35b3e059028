//! Columns of rows and arrays, kept, joined and grouped by, and UNNEST: against DataFusion on every prefix.
//!
//! What UNNEST of a table gives is compared with a table in which every element has been written as a row of its own.

use super::oracle::{batch, past_nulls, pick};
use super::world::{Feed, Feeds, Running};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const DDL: &str = "CREATE TABLE t (id BIGINT, k INT, a ARRAY<INT>, r ROW<x INT, y STRING>, rs ARRAY<ROW<x INT, y STRING>>, ts TIMESTAMP(3),
    WATERMARK FOR ts AS ts - INTERVAL '1' HOUR) WITH ('connector' = 'topics', 'format' = 'json');";

fn row() -> DataType {
    DataType::Struct(vec![Field::new("x", DataType::Int32, true), Field::new("y", DataType::Utf8, true)].into())
}

fn schema() -> SchemaRef {
    let column = |name: &str, kind| Field::new(name, kind, true);
    Arc::new(Schema::new(vec![
        column("id", DataType::Int64),
        column("k", DataType::Int32),
        column("a", DataType::new_list(DataType::Int32, true)),
        column("r", row()),
        column("rs", DataType::new_list(row(), true)),
        column("ts", DataType::Timestamp(TimeUnit::Millisecond, None)),
    ]))
}

/// Elements of a table as rows: id, k, the element's place and its columns.
fn elements() -> SchemaRef {
    let column = |name: &str, kind| Field::new(name, kind, true);
    Arc::new(Schema::new(vec![
        column("id", DataType::Int64),
        column("k", DataType::Int32),
        column("n", DataType::Int32),
        column("v", DataType::Int32),
        column("x", DataType::Int32),
        column("y", DataType::Utf8),
    ]))
}

/// A record, and its elements: of `a`, then of `rs`.
#[derive(Debug, Clone)]
struct Record {
    k: String,
    a: Option<Vec<String>>,
    r: Option<(String, String)>,
    rs: Option<Vec<Option<(String, String)>>>,
}

impl Record {
    fn json(&self, id: usize) -> String {
        let row = |r: &Option<(String, String)>| r.as_ref().map_or("null".into(), |(x, y)| format!("{{\"x\":{x},\"y\":{y}}}"));
        let a = self.a.as_ref().map_or("null".to_string(), |a| format!("[{}]", a.join(",")));
        let rs = self.rs.as_ref().map_or("null".to_string(), |rs| format!("[{}]", rs.iter().map(row).collect::<Vec<_>>().join(",")));
        let (k, r) = (&self.k, row(&self.r));
        format!("{{\"id\":{id},\"k\":{k},\"a\":{a},\"r\":{r},\"rs\":{rs},\"ts\":\"2026-01-01 00:{:02}:00.000\"}}", id * 7 % 60)
    }

    fn elements(&self, id: usize, outer: bool) -> [Vec<String>; 2] {
        let k = &self.k;
        let line = |n: Option<usize>, v: &str, x: &str, y: &str| {
            let n = n.map_or("null".to_string(), |n| (n + 1).to_string());
            format!("{{\"id\":{id},\"k\":{k},\"n\":{n},\"v\":{v},\"x\":{x},\"y\":{y}}}")
        };
        let none = || Vec::from_iter(outer.then(|| line(None, "null", "null", "null")));
        let plain: Vec<String> = self.a.iter().flatten().enumerate().map(|(n, v)| line(Some(n), v, "null", "null")).collect();
        let of_row = |(n, r): (usize, &Option<(String, String)>)| match r {
            Some((x, y)) => line(Some(n), "null", x, y),
            None => line(Some(n), "null", "null", "null"),
        };
        let rows: Vec<String> = self.rs.iter().flatten().enumerate().map(of_row).collect();
        [plain, rows].map(|elements| if elements.is_empty() { none() } else { elements })
    }
}

fn record() -> impl Strategy<Value = Record> {
    let int = || prop_oneof![1 => Just("null".to_string()), 4 => (0..3i32).prop_map(|n| n.to_string())];
    let pair = move || (int(), prop_oneof![Just("null".to_string()), Just("\"\"".into()), Just("\"a\"".into())]);
    let a = proptest::option::weighted(0.8, proptest::collection::vec(int(), 0..3));
    let rs = proptest::option::weighted(0.8, proptest::collection::vec(proptest::option::weighted(0.8, pair()), 0..3));
    (int(), a, proptest::option::weighted(0.8, pair()), rs).prop_map(|(k, a, r, rs)| Record { k, a, r, rs })
}

#[derive(Debug)]
struct Input {
    records: Vec<Record>,
    batch: usize,
    prefixes: Vec<usize>,
    restarts: Vec<u32>,
    seed: u64,
}

fn input() -> impl Strategy<Value = Input> {
    let counts = (proptest::collection::vec(0..13usize, 0..4), proptest::collection::vec(1..4u32, 0..3));
    (proptest::collection::vec(record(), 0..12), 1..5usize, counts, any::<u64>()).prop_map(
        |(records, batch, (mut prefixes, restarts), seed)| {
            prefixes.sort_unstable();
            Input { records, batch, prefixes, restarts, seed }
        },
    )
}

/// Ours over `t`; theirs over `t`, and over its elements as `e` (of a), `er` (of rs), and with rows that have none `eo`, `ero`.
fn check(ours: &str, theirs: &str, input: &Input, every_prefix: bool) -> Result<(), TestCaseError> {
    let records: Vec<String> = input.records.iter().enumerate().map(|(id, record)| record.json(id)).collect();
    let feed = Feed::new("t", vec![records], input.batch);
    let feeds = Feeds(BTreeMap::from([("t".to_string(), feed.clone())]));
    let expected = || {
        let there = feed.prefix();
        let of = |outer: bool, which: usize| -> Vec<String> {
            let records = input.records[..there.len()].iter().enumerate();
            records.flat_map(|(id, record)| record.elements(id, outer)[which].clone()).collect()
        };
        let tables = [
            ("t", schema(), there.clone()),
            ("e", elements(), of(false, 0)),
            ("er", elements(), of(false, 1)),
            ("eo", elements(), of(true, 0)),
            ("ero", elements(), of(true, 1)),
        ];
        batch(&tables, theirs)
    };
    let mut running = Running::start(&feeds, &format!("{DDL}\n{ours}"), input.seed, 1 + (input.seed % 3) as u32);
    for (turn, &prefix) in input.prefixes.iter().enumerate() {
        feed.reveal(prefix);
        running.settle();
        if every_prefix {
            let (got, want) = (running.rows.rows(), expected());
            prop_assert!(got == want, "after {} rows:\n{ours}\n got {got:?}\nwant {want:?}", feed.prefix().len());
        }
        if let Some(parallelism) = input.restarts.get(turn) {
            running.restart(*parallelism);
        }
    }
    feed.reveal(usize::MAX);
    running.finish();
    let (got, want) = (running.rows.rows(), expected());
    prop_assert!(got == want, "at the end:\n{ours}\n got {got:?}\nwant {want:?}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rows_and_arrays_are_kept(input in input(), sql in pick(&[
        "SELECT l.id, l.r, l.a, m.rs FROM t AS l JOIN t AS m ON l.k = m.k",
        "SELECT l.id, l.r, m.a, m.rs FROM t AS l LEFT JOIN t AS m ON l.id = m.k",
        "SELECT l.id, l.r, m.a, m.rs FROM t AS l FULL JOIN t AS m ON l.id = m.k AND m.id > 2",
        "SELECT r, COUNT(*) AS n FROM t GROUP BY r",
        "SELECT a, rs, COUNT(*) AS n, MAX(id) AS hi FROM t GROUP BY a, rs",
        "SELECT DISTINCT r, a FROM t",
        "SELECT n, COUNT(*) AS c FROM (SELECT a, COUNT(*) AS n FROM t GROUP BY a) AS g GROUP BY n",
        "SELECT k, r, a, rs FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY k ORDER BY id DESC) AS n FROM t) AS w WHERE n <= 2",
        "SELECT g.r, g.n, m.rs FROM (SELECT k, r, COUNT(*) AS n FROM t GROUP BY k, r) AS g JOIN t AS m ON g.k = m.k",
        "SELECT r, a, GROUPING(r) AS g, COUNT(*) AS n FROM t GROUP BY GROUPING SETS ((r), (a))",
        "SELECT a, r FROM t UNION ALL SELECT a, r FROM t WHERE k > 0",
    ])) {
        check(sql, sql, &input, true)?;
    }

    #[test]
    fn rows_and_arrays_are_kept_over(input in input(), function in pick(&["FIRST_VALUE(r)", "LAST_VALUE(a)", "LAG(rs)", "LAG(a, 2)"])) {
        let sql = format!("SELECT id, r, {function} OVER (PARTITION BY k ORDER BY ts, id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS f FROM t");
        check(&sql, &past_nulls(&sql), &input, false)?;
    }

    #[test]
    fn elements_are_rows(input in input(), (ours, theirs) in proptest::sample::select(vec![
        ("SELECT id, x FROM t CROSS JOIN UNNEST(a) AS u (x)", "SELECT id, v FROM e"),
        ("SELECT t.id, u.x FROM t, UNNEST(t.a) AS u (x) WHERE u.x > 0", "SELECT id, v FROM e WHERE v > 0"),
        ("SELECT id, x FROM t LEFT JOIN UNNEST(a) AS u (x) ON TRUE", "SELECT id, v FROM eo"),
        ("SELECT id, n, x FROM t CROSS JOIN UNNEST(a) WITH ORDINALITY AS u (x, n)", "SELECT id, n, v FROM e"),
        ("SELECT id, p, q FROM t CROSS JOIN UNNEST(rs) AS u (p, q)", "SELECT id, x, y FROM er"),
        ("SELECT id, u.y, u.x FROM t JOIN UNNEST(rs) AS u ON TRUE", "SELECT id, y, x FROM er"),
        ("SELECT id, p, q, n FROM t LEFT JOIN UNNEST(rs) WITH ORDINALITY AS u (p, q, n) ON TRUE", "SELECT id, x, y, n FROM ero"),
        ("SELECT x, COUNT(*) AS n FROM t CROSS JOIN UNNEST(a) AS u (x) GROUP BY x", "SELECT v, COUNT(*) AS n FROM e GROUP BY v"),
        ("SELECT l.id, u.x, m.id FROM t AS l CROSS JOIN UNNEST(l.a) AS u (x) JOIN t AS m ON u.x = m.k", "SELECT e.id, e.v, t.id FROM e JOIN t ON e.v = t.k"),
        ("SELECT t.id, u.x, w.q FROM t CROSS JOIN UNNEST(a) AS u (x) CROSS JOIN UNNEST(rs) AS w (p, q)", "SELECT e.id, e.v, er.y FROM e JOIN er ON e.id = er.id"),
        // Rows that change.
        ("SELECT g.c, u.x FROM (SELECT a, COUNT(*) AS c FROM t GROUP BY a) AS g CROSS JOIN UNNEST(g.a) AS u (x)",
            "SELECT c, unnest(a) AS x FROM (SELECT a, COUNT(*) AS c FROM t WHERE a IS NOT NULL GROUP BY a) AS g"),
        ("SELECT g.k, u.x FROM (SELECT k, a FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY k ORDER BY id DESC) AS n FROM t) AS w WHERE n = 1) AS g CROSS JOIN UNNEST(g.a) AS u (x)",
            "SELECT k, v FROM (SELECT e.k, e.v, e.id FROM e JOIN (SELECT COALESCE(k, -1) AS k, MAX(id) AS id FROM t GROUP BY COALESCE(k, -1)) AS m ON e.id = m.id) AS w"),
    ])) {
        check(ours, theirs, &input, true)?;
    }

    /// Elements have the event time of their rows.
    #[test]
    fn elements_are_in_the_windows_of_their_rows(input in input()) {
        let ours = "SELECT window_start, x, COUNT(*) AS n FROM TABLE(TUMBLE(TABLE v, DESCRIPTOR(ts), INTERVAL '10' MINUTE)) GROUP BY window_start, window_end, x";
        let ours = format!("CREATE VIEW v AS SELECT t.ts, u.x FROM t CROSS JOIN UNNEST(a) AS u (x);\n{ours}");
        let start = "CAST(date_bin(INTERVAL '600 seconds', t.ts, TIMESTAMP '1970-01-01 00:00:00') AS TIMESTAMP(3))";
        let theirs = format!("SELECT {start} AS window_start, e.v, COUNT(*) AS n FROM e JOIN t ON e.id = t.id GROUP BY {start}, e.v");
        check(&ours, &theirs, &input, false)?;
    }
}

/// Maps are read from JSON, kept, grouped by and looked into.
#[test]
fn maps_are_values_like_others() {
    let ddl =
        "CREATE TABLE m (id BIGINT, m MAP<STRING, INT>, deep MAP<STRING, ARRAY<BIGINT>>) WITH ('connector' = 'topics', 'format' = 'json');";
    let records = [
        r#"{"id":1,"m":{"b":2,"a":1},"deep":{"x":[1,2]}}"#,
        r#"{"id":2,"m":{"a":1,"b":2},"deep":{}}"#,
        r#"{"id":3,"m":{"a":null},"deep":null}"#,
        r#"{"id":4,"m":{"a":9,"\u0061":1,"b":2}}"#,
        r#"{"id":5}"#,
    ];
    let answer = |sql: &str| -> Vec<String> {
        let feed = Feed::new("m", vec![records.map(String::from).to_vec()], 2);
        feed.reveal(usize::MAX);
        let mut running = Running::start(&Feeds(BTreeMap::from([("m".to_string(), feed)])), &format!("{ddl}\n{sql}"), 3, 2);
        running.restart(3);
        running.finish();
        running.rows.rows().into_iter().map(|(row, weight)| format!("{} x{weight}", row.join(" "))).collect()
    };
    assert_eq!(answer("SELECT m, COUNT(*) AS n FROM m GROUP BY m"), ["NULL 1 x1", "{\"a\":1,\"b\":2} 3 x1", "{\"a\":null} 1 x1"]);
    assert_eq!(answer("SELECT id FROM m WHERE m['a'] = 1 AND CARDINALITY(m) = 2"), ["1 x1", "2 x1", "4 x1"]);
    assert_eq!(answer("SELECT l.id, r.deep['x'] FROM m AS l JOIN m AS r ON l.id = r.id WHERE l.id < 3"), ["1 [1,2] x1", "2 NULL x1"]);
    assert_eq!(
        answer(
            "SELECT id, m FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY m['b'] ORDER BY id DESC) AS n FROM m) AS x WHERE n <= 1 AND m['b'] = 2"
        ),
        ["4 {\"a\":1,\"b\":2} x1"]
    );
    assert_eq!(answer("SELECT id, k FROM m CROSS JOIN UNNEST(MAP_KEYS(m)) AS u (k) WHERE id > 2"), ["3 a x1", "4 a x1", "4 b x1"]);
}
