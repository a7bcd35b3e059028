//! The prefix oracle: after any prefix of the input, in any batching and parallelism and after stops and restarts, what a query
//! has emitted adds up to what DataFusion computes of that prefix in one go.
//!
//! DataFusion plans and runs the text of the query by itself, over tables of the same rows; nothing is shared with the
//! streaming plan but scalar functions and AVG.

use super::world::{Feed, Feeds, Running, shown};
use crate::json::JsonRows;
use crate::plan::Functions;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) const DDL: &str = "CREATE TABLE t (k INT, s STRING, i BIGINT, f DOUBLE, d DECIMAL(10, 2), b BOOLEAN, ts TIMESTAMP(3),
    WATERMARK FOR ts AS ts - INTERVAL '1' HOUR) WITH ('connector' = 'topics', 'format' = 'json');";

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int32, true),
        Field::new("s", DataType::Utf8, true),
        Field::new("i", DataType::Int64, true),
        Field::new("f", DataType::Float64, true),
        Field::new("d", DataType::Decimal128(10, 2), true),
        Field::new("b", DataType::Boolean, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), true),
    ]))
}

/// Functions that DataFusion does not have, or has with another meaning.
const OWN: &[&str] = &["mod", "date_format", "hour", "split_index", "regexp_extract", "concat", "concat_ws", "lpad"];

/// The rows of a query over the records, with how often each is there.
pub(super) fn oracle(records: &[String], sql: &str) -> BTreeMap<Vec<String>, i64> {
    batch(&[("t", schema(), records.to_vec())], sql)
}

/// The same over several tables: name, columns, records.
pub(super) fn batch(tables: &[(&str, SchemaRef, Vec<String>)], sql: &str) -> BTreeMap<Vec<String>, i64> {
    let context = context();
    for (name, schema, records) in tables {
        let mut rows = JsonRows::new(schema.clone()).unwrap();
        records.iter().for_each(|r| rows.push(r.as_bytes()).unwrap());
        let table = MemTable::try_new(schema.clone(), vec![vec![rows.take().unwrap()]]).unwrap();
        context.register_table(*name, Arc::new(table)).unwrap();
    }
    computed(&context, sql)
}

/// DataFusion by itself, with the dialect's names, literals, order of NULLs and functions.
pub(super) fn context() -> SessionContext {
    let config = SessionConfig::new()
        .with_target_partitions(1)
        .set_bool("datafusion.sql_parser.enable_ident_normalization", false)
        .set_bool("datafusion.sql_parser.parse_float_as_decimal", true)
        .set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false)
        .set_str("datafusion.sql_parser.default_null_ordering", "nulls_min");
    let context = SessionContext::new_with_config(config);
    let functions = Functions::new();
    context.register_udaf(functions.aggregate["avg"].as_ref().clone());
    for own in OWN {
        context.register_udf(functions.scalar[*own].as_ref().clone());
    }
    context
}

/// The rows of a statement, with how often each is there.
pub(super) fn computed(context: &SessionContext, sql: &str) -> BTreeMap<Vec<String>, i64> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let batches = runtime.block_on(async { context.sql(sql).await.unwrap_or_else(|e| panic!("{sql}\n{e}")).collect().await.unwrap() });
    let mut out = BTreeMap::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let cells: Vec<String> = (0..batch.num_columns()).map(|c| shown(&crate::cell(&batch, c, row))).collect();
            *out.entry(cells).or_insert(0) += 1;
        }
    }
    out
}

/// One record as JSON; event times within ten minutes.
fn record() -> impl Strategy<Value = String> {
    let int = prop_oneof![4 => (-3..4i64).prop_map(|n| n.to_string()), 1 => Just("null".to_string()), 1 => Just(i64::MAX.to_string()), 1 => Just(i64::MIN.to_string())];
    let float = prop_oneof![3 => (-4..5i32).prop_map(|n| format!("{:?}", f64::from(n) / 4.0)), 1 => Just("null".to_string()), 1 => Just("-0.0".into()), 1 => Just("0.0".into())];
    let text = prop_oneof![
        Just("null".to_string()),
        Just("\"\"".into()),
        Just("\"a\"".into()),
        Just("\"b\"".into()),
        Just("\"A\\u0000\u{e9}\"".into())
    ];
    let decimal = prop_oneof![4 => (-500..500i64).prop_map(|n| format!("{n}.{:02}", n.abs() % 100)), 1 => Just("null".to_string()), 1 => Just("99999999.99".into())];
    let flag = prop_oneof![Just("true"), Just("false"), Just("null")];
    let key = prop_oneof![4 => (0..4i32).prop_map(|n| n.to_string()), 1 => Just("null".to_string())];
    (key, text, int, float, decimal, flag, 0..600_000i64).prop_map(|(k, s, i, f, d, b, ms)| {
        let at = format!("2026-01-01 00:{:02}:{:02}.{:03}", ms / 60_000, ms / 1000 % 60, ms % 1000);
        format!("{{\"k\":{k},\"s\":{s},\"i\":{i},\"f\":{f},\"d\":{d},\"b\":{b},\"ts\":\"{at}\"}}")
    })
}

pub(super) fn pick(options: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    proptest::sample::select(options)
}

/// A NaN where f is 1, for keys and extremes.
const NAN: &str = "CASE WHEN f = 1 THEN CAST('NaN' AS DOUBLE) ELSE f END";

/// Calls of aggregates over t.
pub(super) fn calls() -> impl Strategy<Value = Vec<String>> {
    let call = prop_oneof![
        Just("COUNT(*)".to_string()),
        // No extremes of NaN: DataFusion's depend on the order of the rows; here a NaN is above all numbers.
        (pick(&["COUNT", "MIN", "MAX"]), pick(&["k", "s", "i", "f", "d", "b", "ts"])).prop_map(|(f, c)| format!("{f}({c})")),
        (pick(&["SUM", "AVG"]), pick(&["k", "i", "f", "d", "i + k", "k * 2"])).prop_map(|(f, c)| format!("{f}({c})")),
        pick(&["COUNT(DISTINCT s)", "COUNT(DISTINCT f + 0)", "COUNT(DISTINCT k)", "SUM(DISTINCT i)", "MIN(DISTINCT s)"])
            .prop_map(String::from),
    ];
    // f + 0: DataFusion's COUNT(DISTINCT) tells -0.0 from 0.0, its GROUP BY does not.
    let filtered = (call, proptest::option::weighted(0.3, pick(&["k > 1", "s = 'a'", "b", "f IS NULL", "MOD(i, 2) = 0"])))
        .prop_map(|(call, filter)| filter.map_or(call.clone(), |f| format!("{call} FILTER (WHERE {f})")));
    proptest::collection::vec(filtered, 1..4)
}

pub(super) fn condition() -> impl Strategy<Value = String> {
    let one = pick(&[
        "k > 0",
        "s <> 'a'",
        "s IS NULL",
        "f < 0.5",
        "d >= 1.5",
        "b",
        "NOT b",
        "k IN (1, 2)",
        "s LIKE 'a%'",
        "i BETWEEN -1 AND 2",
        "COALESCE(k, 7) = 7",
    ]);
    proptest::option::weighted(0.5, (one, proptest::option::of((pick(&["AND", "OR"]), pick(&["k < 3", "f IS NOT NULL", "i % 2 = 0"])))))
        .prop_map(|c| {
            c.map_or(String::new(), |(a, more)| format!("WHERE {a}{}", more.map_or(String::new(), |(op, b)| format!(" {op} {b}"))))
        })
}

/// Selects with names for all columns, so that a query around them can use them.
fn aggregate() -> impl Strategy<Value = String> {
    let keys = proptest::sample::subsequence(vec!["k", "s", "f", "b", "MOD(k, 2)", NAN, "d"], 0..3);
    let having = proptest::option::weighted(0.3, pick(&["COUNT(*) > 1", "MAX(i) < 3", "COUNT(DISTINCT s) = 1"]));
    (keys, calls(), condition(), having).prop_map(|(keys, calls, condition, having)| {
        let columns =
            keys.iter().map(|k| k.to_string()).chain(calls).enumerate().map(|(i, e)| format!("{e} AS c{i}")).collect::<Vec<_>>().join(", ");
        let group = if keys.is_empty() { String::new() } else { format!("GROUP BY {}", keys.join(", ")) };
        let having = having.map_or(String::new(), |h| format!("HAVING {h}"));
        format!("SELECT {columns} FROM t {condition} {group} {having}")
    })
}

fn query() -> impl Strategy<Value = String> {
    let stateless = (
        pick(&[
            "k, s",
            "i, i * 2 AS x, s || 'x' AS y",
            "f + 1 AS x, d * 2 AS y, b",
            "CASE WHEN b THEN k ELSE -1 END AS x",
            "UPPER(s) AS x, ts",
            "DATE_FORMAT(ts, 'HH:mm') AS x, HOUR(ts) AS y",
            "CONCAT(s, s) AS x, LPAD(s, 3, '*') AS y, SPLIT_INDEX(s, 'a', 1) AS z",
        ]),
        condition(),
    )
        .prop_map(|(columns, condition)| format!("SELECT {columns} FROM t {condition}"));
    let distinct = (pick(&["k", "s, b", "f", "MOD(k, 2) AS m, s"]), condition())
        .prop_map(|(c, condition)| format!("SELECT DISTINCT {c} FROM t {condition}"));
    // Aggregates of aggregates: their input takes rows back.
    let nested = (
        pick(&["k", "s", "f", "k, s"]),
        pick(&["COUNT(*)", "SUM(k)", "MAX(s)", "MIN(f + 0)", "AVG(d)", "SUM(f + 0)"]),
        condition(),
        pick(&[
            "SELECT x, COUNT(*) AS n FROM (q) AS q GROUP BY x",
            "SELECT COUNT(*) AS n, MIN(x) AS lo, MAX(x) AS hi, COUNT(DISTINCT x) AS u FROM (q) AS q",
            "SELECT y, MAX(x) AS hi, MIN(x) AS lo FROM (q) AS q GROUP BY y",
            "SELECT COUNT(x) AS n FROM (q) AS q WHERE x IS NOT NULL",
            "SELECT DISTINCT x FROM (q) AS q",
        ]),
        proptest::option::of(pick(&["SUM(n)", "AVG(n)"])),
    )
        .prop_map(|(keys, call, condition, outer, sum)| {
            let y = keys.split(',').next().unwrap_or("k");
            let inner = format!("SELECT {y} AS y, {call} AS x FROM t {condition} GROUP BY {keys}");
            let middle = outer.replace("(q)", &format!("({inner})"));
            match sum {
                Some(sum) if middle.contains(" n") && middle.contains("GROUP BY") => format!("SELECT {sum} AS total FROM ({middle}) AS m"),
                _ => middle,
            }
        });
    let union = (condition(), condition()).prop_map(|(a, b)| {
        format!("SELECT u.k, COUNT(*) AS n, MAX(u.x) AS hi FROM (SELECT k, i AS x FROM t {a} UNION ALL SELECT k + 1 AS k, i AS x FROM t {b}) AS u GROUP BY u.k")
    });
    prop_oneof![1 => stateless, 4 => aggregate(), 1 => distinct, 3 => nested, 1 => union, 3 => ranked(), 2 => limited()]
}

/// The first rows of subqueries and of sides of a set operation. The columns that are looked at are the whole order.
fn limited() -> impl Strategy<Value = String> {
    let rows = prop_oneof![
        (pick(&["k", "s", "b"]), pick(&["i", "d", "ts"]), condition())
            .prop_map(|(y, x, condition)| format!("SELECT {y} AS y, {x} AS x FROM t {condition}")),
        (pick(&["k", "s", "b"]), pick(&["COUNT(*)", "SUM(k)", "MAX(i)"]), condition())
            .prop_map(|(y, x, condition)| format!("SELECT {y} AS y, {x} AS x FROM t {condition} GROUP BY {y}")),
    ];
    let order = pick(&["x, y", "y DESC, x", "x DESC NULLS FIRST, y"]);
    let cut = pick(&["LIMIT 1", "LIMIT 3", "LIMIT 2 OFFSET 1", "LIMIT 0"]);
    let around = pick(&[
        "SELECT * FROM (q) AS r",
        "SELECT COUNT(*) AS c, MAX(y) AS hi FROM (q) AS r",
        "(q) UNION ALL (q)",
        "SELECT t.k, r.x FROM t, (q) AS r",
        "SELECT t.k FROM t WHERE t.i IN (SELECT CAST(COUNT(*) AS BIGINT) FROM (q) AS r GROUP BY y)",
        "WITH r AS (q) SELECT y, COUNT(*) AS c FROM r GROUP BY y",
    ]);
    (rows, order, cut, around)
        .prop_map(|(rows, order, cut, around)| around.replace("(q)", &format!("(SELECT y, x FROM ({rows}) AS i ORDER BY {order} {cut})")))
}

/// First rows of partitions, over rows that only come and over ones that change. The columns that are looked at are the whole
/// order, so that rows that are equal in it are the same row.
fn ranked() -> impl Strategy<Value = String> {
    let rows = (pick(&["k", "s", "b", "MOD(k, 2)"]), pick(&["i", "d", "ts"]), condition())
        .prop_map(|(y, x, condition)| format!("SELECT {y} AS y, {x} AS x FROM t {condition}"));
    let changing = (pick(&["k", "s", "b"]), pick(&["COUNT(*)", "SUM(k)", "MAX(s)", "AVG(d)"]), pick(&["k, s", "s, b", "k"]), condition())
        .prop_map(|(y, x, keys, condition)| format!("SELECT {y} AS y, {x} AS x FROM t {condition} GROUP BY {keys}, {y}"));
    let order = prop_oneof![
        (pick(&["x", "x DESC", "x ASC NULLS LAST", "x DESC NULLS FIRST"]), pick(&["y", "y DESC"])).prop_map(|(a, b)| format!("{a}, {b}")),
        Just("COALESCE(y, y), x DESC".to_string()),
    ];
    let bound = pick(&["n <= 1", "n = 1", "n <= 3", "n < 3", "2 >= n AND x IS NOT NULL", "n BETWEEN 2 AND 3", "n <= 2 AND n > 1", "n < 1"]);
    let columns = pick(&["y, x, n", "x, y", "y", "n, y AS z"]);
    let around = pick(&[
        "SELECT * FROM (q) AS r",
        "SELECT COUNT(*) AS c, MAX(y) AS hi FROM (q) AS r",
        "SELECT y, COUNT(*) AS c FROM (q) AS r GROUP BY y",
    ]);
    (prop_oneof![rows, changing], pick(&["PARTITION BY y", "PARTITION BY y", "PARTITION BY x", ""]), order, bound, columns, around)
        .prop_map(|(inner, partition, order, bound, columns, around)| {
            let columns = if around.contains('y') { "y, x" } else { columns };
            let numbered = format!("SELECT *, ROW_NUMBER() OVER ({partition} ORDER BY {order}) AS n FROM ({inner}) AS i");
            around.replace("(q)", &format!("(SELECT {columns} FROM ({numbered}) AS w WHERE {bound})"))
        })
}

/// Functions over the rows up to a row. Where rows are taken one by one, the order is that of all columns, so that rows that are
/// equal in it are the same row.
fn over() -> impl Strategy<Value = String> {
    const ALL: &str = "ts, k, s NULLS LAST, i DESC, f, d, b";
    let moving = (
        pick(&["COUNT(*)", "COUNT(s)", "SUM(k)", "SUM(i)", "SUM(d)", "SUM(f)", "MIN(i)", "MAX(d)", "FIRST_VALUE(s)", "LAST_VALUE(d)"]),
        prop_oneof![
            (0..4u32).prop_map(|n| format!("ORDER BY {ALL} ROWS BETWEEN {n} PRECEDING AND CURRENT ROW")),
            pick(&["0", "1", "90", "600"])
                .prop_map(|s| format!("ORDER BY ts RANGE BETWEEN INTERVAL '{s}' SECOND PRECEDING AND CURRENT ROW")),
        ],
    )
        .prop_map(|(f, over)| {
            // Which of the rows of one time is the last one is anybody's guess.
            let f = if over.contains("RANGE") && f.contains("_VALUE") { "COUNT(k)" } else { f };
            (f.to_string(), over)
        });
    let growing = (calls(), prop_oneof![Just(format!("ORDER BY {ALL} ROWS UNBOUNDED PRECEDING")), Just("ORDER BY ts".to_string())])
        .prop_map(|(calls, over)| (calls[0].clone(), over));
    let one_by_one = pick(&["ROW_NUMBER()", "LAG(i)", "LAG(s, 2)", "LAG(k, 3, -1)", "LAG(d, 0)", "LEAD(i)", "LEAD(s, 2, 'none')"])
        .prop_map(|f| (f.to_string(), format!("ORDER BY {ALL}")));
    let ranks = pick(&["RANK()", "DENSE_RANK()"]).prop_map(|f| (f.to_string(), "ORDER BY ts".to_string()));
    let function = prop_oneof![3 => moving, 3 => growing, 2 => one_by_one, 1 => ranks];
    let partition = pick(&["PARTITION BY k", "PARTITION BY s, b", "PARTITION BY MOD(k, 2)", ""]);
    let around =
        pick(&["(q)", "(q)", "SELECT k, COUNT(*) AS n, MAX(c0) AS hi FROM (q) AS q GROUP BY k", "SELECT * FROM (q) AS q WHERE k > 0"]);
    (proptest::collection::vec((function, partition), 1..4), condition(), around).prop_map(|(functions, condition, around)| {
        // Event time ends at a LEAD, so it is the only window.
        let lead = functions.iter().position(|((f, _), _)| f.starts_with("LEAD"));
        let functions = lead.map_or(&functions[..], |at| &functions[at..=at]);
        let calls: Vec<String> =
            functions.iter().enumerate().map(|(n, ((f, over), partition))| format!("{f} OVER ({partition} {over}) AS c{n}")).collect();
        let query = format!("SELECT k, s, i, {} FROM t {condition}", calls.join(", "));
        if around == "(q)" { query } else { around.replace("(q)", &format!("({query})")) }
    })
}

/// The same for DataFusion: to FIRST_VALUE and LAST_VALUE over rows NULL is no value.
pub(super) fn past_nulls(sql: &str) -> String {
    let mut parts = sql.split("_VALUE(");
    let first = parts.next().unwrap_or_default().to_string();
    parts.fold(first, |sql, part| format!("{sql}_VALUE({}", part.replacen(')', ") IGNORE NULLS", 1)))
}

/// Whether the outermost query is an aggregate of all rows.
fn is_global(sql: &str) -> bool {
    let (mut outermost, mut depth) = (String::new(), 0);
    for c in sql.chars() {
        depth += i32::from(c == '(');
        if depth == 0 {
            outermost.push(c);
        }
        depth -= i32::from(c == ')');
    }
    !outermost.contains("GROUP BY") && ["COUNT", "SUM", "MIN", "MAX", "AVG"].iter().any(|f| outermost.contains(f))
}

pub(super) fn check(
    sql: &str,
    theirs: &str,
    feed: &Arc<Feed>,
    prefixes: &[usize],
    restarts: &[u32],
    seed: u64,
    every_prefix: bool,
) -> Result<(), TestCaseError> {
    let feeds = Feeds(BTreeMap::from([("t".to_string(), feed.clone())]));
    let mut running = Running::start(&feeds, &format!("{DDL}\n{sql}"), seed, 1 + (seed % 3) as u32);
    for (i, &prefix) in prefixes.iter().enumerate() {
        feed.reveal(prefix);
        running.settle();
        if every_prefix {
            let (got, want) = (running.rows.rows(), oracle(&feed.prefix(), theirs));
            // A group of all rows has a result of no rows only when the input has ended; so has each set without keys.
            let waits = got.is_empty() && (is_global(sql) || feed.prefix().is_empty());
            prop_assert!(waits || got == want, "after {} rows:\n{sql}\n got {got:?}\nwant {want:?}", feed.prefix().len());
        }
        if let Some(parallelism) = restarts.get(i) {
            running.restart(*parallelism);
        }
    }
    feed.reveal(usize::MAX);
    running.finish();
    let (got, want) = (running.rows.rows(), oracle(&feed.prefix(), theirs));
    prop_assert!(got == want, "at the end, {} rows:\n{sql}\n got {got:?}\nwant {want:?}", feed.prefix().len());
    Ok(())
}

pub(super) fn input() -> impl Strategy<Value = (Vec<Vec<String>>, usize, Vec<usize>, Vec<u32>, u64)> {
    let splits = proptest::collection::vec(proptest::collection::vec(record(), 0..14), 1..3);
    (splits, 1..6usize, proptest::collection::vec(0..15usize, 0..4), proptest::collection::vec(1..4u32, 0..3), any::<u64>()).prop_map(
        |(splits, batch, mut prefixes, restarts, seed)| {
            prefixes.sort_unstable();
            (splits, batch, prefixes, restarts, seed)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_prefix_adds_up((splits, batch, prefixes, restarts, seed) in input(), sql in query()) {
        check(&sql, &sql, &Feed::new("t", splits, batch), &prefixes, &restarts, seed, true)?;
    }

    #[test]
    fn rows_over_rows_add_up_at_the_end((splits, batch, prefixes, restarts, seed) in input(), sql in over()) {
        check(&sql, &past_nulls(&sql), &Feed::new("t", splits, batch), &prefixes, &restarts, seed, false)?;
    }

    #[test]
    fn windows_add_up_at_the_end((splits, batch, prefixes, restarts, seed) in input(), calls in calls(), keys in proptest::sample::subsequence(vec!["k", "s", "b"], 0..3),
        condition in condition(), (size, slide) in proptest::sample::select(vec![(60, 60), (90, 90), (60, 20), (120, 60)]), outer in 0..3usize,
        cumulative: bool)
    {
        let columns = keys.iter().map(|k| k.to_string()).chain(calls).enumerate().map(|(i, e)| format!("{e} AS c{i}")).collect::<Vec<_>>().join(", ");
        let group = ["window_start", "window_end"].into_iter().chain(keys.iter().copied()).collect::<Vec<_>>().join(", ");
        let wrap = |inner: String| match outer {
            0 => inner,
            1 => format!("SELECT window_start, window_end, COUNT(*) AS n, MAX(c0) AS hi FROM ({inner}) AS w GROUP BY window_start, window_end"),
            _ => format!("SELECT c0, COUNT(*) AS n FROM ({inner}) AS w GROUP BY c0"),
        };
        let function = if cumulative {
            format!("CUMULATE(TABLE t, DESCRIPTOR(ts), INTERVAL '{slide}' SECOND, INTERVAL '{size}' SECOND)")
        } else if size == slide {
            format!("TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '{size}' SECOND)")
        } else {
            format!("HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '{slide}' SECOND, INTERVAL '{size}' SECOND)")
        };
        let ours = wrap(format!("SELECT window_start, window_end, {columns} FROM TABLE({function}) {condition} GROUP BY {group}"));
        // Each row once for each of its windows, by arithmetic of its own.
        let epoch = "TIMESTAMP '1970-01-01 00:00:00'";
        let spread: Vec<String> = (0..size / slide).map(|i| {
            if cumulative {
                let start = format!("date_bin(INTERVAL '{size} seconds', ts, {epoch})");
                let end = format!("{start} + INTERVAL '{} seconds'", (i + 1) * slide);
                return format!("SELECT *, CAST({start} AS TIMESTAMP(3)) AS window_start, CAST({end} AS TIMESTAMP(3)) AS window_end FROM t WHERE ts < {end}");
            }
            let start = format!("date_bin(INTERVAL '{slide} seconds', ts, {epoch}) - INTERVAL '{} seconds'", i * slide);
            format!("SELECT *, CAST({start} AS TIMESTAMP(3)) AS window_start, CAST({start} + INTERVAL '{size} seconds' AS TIMESTAMP(3)) AS window_end FROM t")
        }).collect();
        let theirs = wrap(format!("SELECT window_start, window_end, {columns} FROM ({}) AS t {condition} GROUP BY {group}", spread.join(" UNION ALL ")));
        check(&ours, &theirs, &Feed::new("t", splits, batch), &prefixes, &restarts, seed, false)?;
    }

    /// The columns that are looked at are the whole order, so that rows that are equal in it are the same row.
    #[test]
    fn first_rows_of_windows_add_up_at_the_end((splits, batch, prefixes, restarts, seed) in input(), condition in condition(),
        (size, slide) in proptest::sample::select(vec![(60, 60), (60, 20), (120, 60)]), key in pick(&["k", "s", "b"]),
        order in pick(&["i, k, s, b", "ts DESC, k DESC, i, s, b", "d NULLS LAST, i DESC, k, s, b"]),
        bound in pick(&["n <= 1", "n = 1", "n <= 3", "n = 2", "n BETWEEN 2 AND 3"]), again: bool)
    {
        let numbered = |from: &str| {
            let rows = format!("SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end, {key} ORDER BY {order}) AS n FROM {from} {condition}");
            let columns = if order.starts_with('d') { "d, k, s, b, i" } else if order.starts_with('t') { "ts, k, i, s, b" } else { "k, s, b, i" };
            let first = format!("SELECT window_start, window_end, n, {columns} FROM ({rows}) AS r WHERE {bound}");
            if again {
                format!("SELECT window_start, window_end, COUNT(*) AS c, MAX(i) AS hi FROM ({first}) AS f GROUP BY window_start, window_end")
            } else {
                first
            }
        };
        let function = if size == slide {
            format!("TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '{size}' SECOND)")
        } else {
            format!("HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '{slide}' SECOND, INTERVAL '{size}' SECOND)")
        };
        let spread: Vec<String> = (0..size / slide).map(|i| {
            let start = format!("date_bin(INTERVAL '{slide} seconds', ts, TIMESTAMP '1970-01-01 00:00:00') - INTERVAL '{} seconds'", i * slide);
            format!("SELECT *, CAST({start} AS TIMESTAMP(3)) AS window_start, CAST({start} + INTERVAL '{size} seconds' AS TIMESTAMP(3)) AS window_end FROM t")
        }).collect();
        let (ours, theirs) = (numbered(&format!("TABLE({function})")), numbered(&format!("({}) AS t", spread.join(" UNION ALL "))));
        check(&ours, &theirs, &Feed::new("t", splits, batch), &prefixes, &restarts, seed, false)?;
    }

    /// Sessions by arithmetic of their own: where the pause before a row is longer than the gap, one begins.
    #[test]
    fn sessions_add_up_at_the_end((splits, batch, prefixes, restarts, seed) in input(), calls in calls(),
        keys in proptest::sample::subsequence(vec!["k", "s", "b"], 0..3), legacy: bool, behind: bool, gap in proptest::sample::select(vec![5, 20, 60]))
    {
        let names = |more: &[&str]| keys.iter().chain(more).map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let calls = calls.iter().enumerate().map(|(i, e)| format!("{e} AS c{i}")).collect::<Vec<_>>().join(", ");
        let partition = if keys.is_empty() { String::new() } else { format!("PARTITION BY {}", names(&[])) };
        let span = format!("INTERVAL '{gap}' SECOND");
        // Rows that are left out behind the sessions have kept them going; a session that none is left of gives nothing.
        let kept = if behind && !legacy { "WHERE i IS NOT NULL AND f IS NOT NULL" } else { "" };
        let ours = if legacy {
            let columns = names(&[&format!("SESSION_START(ts, {span}) AS w0"), &format!("SESSION_END(ts, {span}) AS w1"), &calls]);
            format!("SELECT {columns} FROM t WHERE i IS NOT NULL GROUP BY {}", names(&[&format!("SESSION(ts, {span})")]))
        } else {
            let columns = names(&["window_start AS w0", "window_end AS w1", &calls]);
            let group = names(&["window_start", "window_end"]);
            format!("SELECT {columns} FROM TABLE(SESSION(TABLE t {partition}, DESCRIPTOR(ts), {span})) {kept} GROUP BY {group}")
        };
        let condition = if legacy { "WHERE i IS NOT NULL" } else { "" };
        let begins = format!("CASE WHEN LAG(ts) OVER ({partition} ORDER BY ts) >= ts - INTERVAL '{gap} seconds' THEN 0 ELSE 1 END");
        let marked = format!("SELECT *, {begins} AS begins FROM t {condition}");
        let numbered = format!("SELECT *, SUM(begins) OVER ({partition} ORDER BY ts ROWS UNBOUNDED PRECEDING) AS sid FROM ({marked}) AS m");
        let whole = names(&["sid"]);
        let bounds = format!("MIN(ts) OVER (PARTITION BY {whole}) AS earliest, MAX(ts) OVER (PARTITION BY {whole}) AS latest");
        let bounded = format!("SELECT *, {bounds} FROM ({numbered}) AS n");
        let columns =
            names(&["MIN(earliest) AS w0", &format!("CAST(MAX(latest) + INTERVAL '{gap} seconds' AS TIMESTAMP(3)) AS w1"), &calls]);
        let theirs = format!("SELECT {columns} FROM ({bounded}) AS n {kept} GROUP BY {whole}");
        check(&ours, &theirs, &Feed::new("t", splits, batch), &prefixes, &restarts, seed, false)?;
    }
}
