//! Functions of users: table functions and aggregates, against DataFusion on every prefix, with stops and restarts; what is refused,
//! and what a function that fails costs.

use super::oracle::{DDL, check, condition, input, pick};
use super::world::{Feed, Feeds, Running};
use crate::session::{Outcome, Session};
use crate::{AggregateFunction, Datum, TableFunction};
use arrow::datatypes::DataType::{Decimal128, Float64, Int32, Int64, Utf8};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Counts of texts; less than none is owed.
type Texts = BTreeMap<String, i64>;

fn count(texts: &mut Texts, text: &str, by: i64) {
    let count = texts.entry(text.to_string()).or_insert(0);
    *count += by;
    if *count == 0 {
        texts.remove(text);
    }
}

fn add_product(sum: &mut (i64, i64), args: &[Datum<'_>], sign: i64) -> Result<(), String> {
    if let [Datum::Int(value), Datum::Int(weight)] = args {
        *sum = (sum.0 + sign * value * weight, sum.1 + sign);
    }
    Ok(())
}

/// Lets a session call them.
pub(super) fn register(session: &mut Session) {
    session.register(TableFunction::new("split", vec![Utf8], &[("word", Utf8), ("n", Int64)], |args, rows| {
        for word in args[0].as_text().unwrap_or_default().split_whitespace() {
            rows.push([word.into(), (word.len() as i64).into()]);
        }
        Ok(())
    }));
    // From 0 up to its argument.
    session.register(TableFunction::new("series", vec![Int64], &[("v", Int64)], |args, rows| match args {
        [Datum::Int(-1)] => Err("less than nothing".into()),
        [Datum::Int(-2)] => panic!("out of order"),
        [Datum::Int(-3)] => {
            rows.push([1.into(), 2.into()]);
            Ok(())
        }
        [Datum::Int(-4)] => {
            rows.push(["one".into()]);
            Ok(())
        }
        _ => {
            (0..args[0].as_int().unwrap_or(0)).for_each(|v| rows.push([v.into()]));
            Ok(())
        }
    }));
    session.register(TableFunction::new("twice", vec![], &[("x", Int32)], |_, rows| {
        (1..3).for_each(|x| rows.push([x.into()]));
        Ok(())
    }));
    let product = AggregateFunction::new(
        "sum_product",
        vec![Int64, Int64],
        Int64,
        (0i64, 0i64),
        |sum, args| add_product(sum, args, 1),
        |&(sum, rows)| Ok((rows != 0).then_some(sum).into()),
    );
    session.register(product.retract(|sum, args| add_product(sum, args, -1)).merge(|sum, later| {
        *sum = (sum.0 + later.0, sum.1 + later.1);
        Ok(())
    }));
    let text = |by: i64| {
        move |texts: &mut Texts, args: &[Datum<'_>]| {
            args[0].as_text().into_iter().for_each(|text| count(texts, text, by));
            Ok(())
        }
    };
    let last = |texts: &Texts| Ok(texts.iter().rev().find(|(_, n)| **n > 0).map(|(text, _)| text.clone()).into());
    let top = AggregateFunction::new("top_text", vec![Utf8], Utf8, Texts::new(), text(1), last);
    session.register(top.retract(text(-1)).merge(|texts, later| {
        later.iter().for_each(|(text, by)| count(texts, text, *by));
        Ok(())
    }));
    let null = |by: i64| {
        move |nulls: &mut i64, args: &[Datum<'_>]| {
            *nulls += by * args.iter().filter(|arg| arg.is_null()).count() as i64;
            Ok(())
        }
    };
    let nulls = AggregateFunction::new("nulls", vec![Decimal128(10, 2), Float64], Int64, 0i64, null(1), |nulls| Ok((*nulls).into()));
    session.register(nulls.retract(null(-1)).merge(|nulls, later| {
        *nulls += later;
        Ok(())
    }));
    // It only takes rows in, some of them.
    let picky = |sum: &mut i64, args: &[Datum<'_>]| match args[0].as_int().unwrap_or(0) {
        2 => Err("two is one too many".to_string()),
        3 => panic!("three"),
        n => {
            *sum += n;
            Ok(())
        }
    };
    let most = |sum: &i64| if *sum == 5 { Err("five".to_string()) } else { Ok((*sum).into()) };
    session.register(AggregateFunction::new("picky", vec![Int64], Int64, 0i64, picky, most));
}

/// Calls of ours, and the same in DataFusion's words.
fn calls() -> impl Strategy<Value = Vec<(String, String)>> {
    let call = proptest::sample::select(vec![
        ("SUM_PRODUCT(k, MOD(i, 5))", "SUM(k * MOD(i, 5))"),
        ("sum_product(k + 1, 2)", "SUM((k + 1) * 2)"),
        ("TOP_TEXT(s)", "MAX(s)"),
        ("top_text(s || 'x')", "MAX(s || 'x')"),
        ("NULLS(d, f)", "COUNT(*)F + COUNT(*)F - COUNT(d)F - COUNT(f)F"),
        ("COUNT(*)", "COUNT(*)"),
        ("COUNT(DISTINCT s)", "COUNT(DISTINCT s)"),
    ]);
    let filter = proptest::option::weighted(0.3, pick(&["k > 1", "s = 'a'", "b"]));
    let filtered = (call, filter).prop_map(|((ours, theirs), filter)| {
        let filter = filter.map_or(String::new(), |filter| format!(" FILTER (WHERE {filter})"));
        let theirs = if theirs.contains(")F") { theirs.replace(")F", &format!("){filter}")) } else { format!("{theirs}{filter}") };
        (format!("{ours}{filter}"), theirs)
    });
    proptest::collection::vec(filtered, 1..4)
}

/// The same query with our calls and with theirs.
fn both(calls: &[(String, String)], write: impl Fn(&str) -> String) -> (String, String) {
    let list = |of: fn(&(String, String)) -> &String| {
        calls.iter().map(of).enumerate().map(|(i, c)| format!("{c} AS c{i}")).collect::<Vec<_>>().join(", ")
    };
    (write(&list(|c| &c.0)), write(&list(|c| &c.1)))
}

const SERIES: &str = "(VALUES (0), (1), (2), (3), (4), (5)) AS s (v)";

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rows_of_table_functions_stand_beside_theirs((splits, batch, prefixes, restarts, seed) in input(), (ours, theirs) in proptest::sample::select(vec![
        ("SELECT t.k, s.v FROM t, LATERAL TABLE(series(t.k)) AS s (v)", "SELECT t.k, s.v FROM t JOIN S ON s.v < t.k"),
        ("SELECT t.k, s.v FROM t CROSS JOIN LATERAL TABLE(SERIES(k)) AS s", "SELECT t.k, s.v FROM t JOIN S ON s.v < t.k"),
        ("SELECT k, v FROM t JOIN LATERAL TABLE(series(k + 2)) ON TRUE WHERE k > 0", "SELECT t.k, s.v FROM t JOIN S ON s.v < t.k + 2 WHERE k > 0"),
        ("SELECT t.s, x.w FROM t LEFT JOIN LATERAL TABLE(series(t.k)) AS x (w) ON TRUE", "SELECT t.s, s.v FROM t LEFT JOIN S ON s.v < t.k"),
        ("SELECT v, COUNT(*) AS n FROM t, LATERAL TABLE(series(k)) AS x WHERE v > 0 GROUP BY v", "SELECT v, COUNT(*) AS n FROM t JOIN S ON s.v < t.k WHERE v > 0 GROUP BY v"),
        ("SELECT k, a.v, b.v FROM t, LATERAL TABLE(series(k)) AS a, LATERAL TABLE(series(a.v)) AS b", "SELECT k, s.v, r.v FROM t JOIN S ON s.v < t.k JOIN R ON r.v < s.v"),
        ("SELECT k, w, n FROM t LEFT JOIN LATERAL TABLE(split(s || ' bb')) AS x (w, n) ON TRUE WHERE w = 'bb' OR s IS NULL", "SELECT k, CASE WHEN s IS NULL THEN NULL ELSE 'bb' END, CASE WHEN s IS NULL THEN NULL ELSE 2 END FROM t"),
        ("SELECT k, x FROM t, LATERAL TABLE(twice()) AS x WHERE x > 1", "SELECT k, 2 FROM t"),
        ("SELECT k, v, n FROM t, LATERAL TABLE(series(k)) WITH ORDINALITY AS x (v, n)", "SELECT t.k, s.v, s.v + 1 FROM t JOIN S ON s.v < t.k"),
        // Rows that change.
        ("SELECT g.k, g.n, x.v FROM (SELECT k, COUNT(*) AS n FROM t GROUP BY k) AS g CROSS JOIN LATERAL TABLE(series(MOD(g.n, 4))) AS x (v)",
            "SELECT g.k, g.n, s.v FROM (SELECT k, COUNT(*) AS n FROM t GROUP BY k) AS g JOIN S ON s.v < MOD(g.n, 4)"),
        ("SELECT g.hi, x.v FROM (SELECT k, MAX(k) + COUNT(b) AS hi FROM t GROUP BY k, s) AS g LEFT JOIN LATERAL TABLE(series(MOD(hi, 3))) AS x (v) ON TRUE",
            "SELECT g.hi, s.v FROM (SELECT k, MAX(k) + COUNT(b) AS hi FROM t GROUP BY k, s) AS g LEFT JOIN S ON s.v < MOD(g.hi, 3)"),
        ("SELECT v, COUNT(*) AS n FROM (SELECT k, s FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY b ORDER BY k DESC, s) AS n FROM t) AS w WHERE n = 1) AS g, LATERAL TABLE(series(g.k)) GROUP BY v",
            "SELECT v, COUNT(*) AS n FROM (SELECT k, s FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY b ORDER BY k DESC, s) AS n FROM t) AS w WHERE n = 1) AS g JOIN S ON s.v < g.k GROUP BY v"),
    ])) {
        let theirs = theirs.replace("JOIN S", &format!("JOIN {SERIES}")).replace("JOIN R", &format!("JOIN {}", SERIES.replace("AS s", "AS r")));
        check(ours, &theirs, &Feed::new("t", splits, batch), &prefixes, &restarts, seed, true)?;
    }

    /// Rows of a table function have the event time of their rows.
    #[test]
    fn rows_of_table_functions_are_in_windows((splits, batch, prefixes, restarts, seed) in input()) {
        let window = "TUMBLE(TABLE v, DESCRIPTOR(ts), INTERVAL '1' MINUTE)";
        let ours = format!("CREATE VIEW v AS SELECT t.ts, x.v FROM t, LATERAL TABLE(series(k)) AS x (v);
            SELECT window_start, v, COUNT(*) AS n FROM TABLE({window}) GROUP BY window_start, window_end, v");
        let start = "CAST(date_bin(INTERVAL '60 seconds', ts, TIMESTAMP '1970-01-01 00:00:00') AS TIMESTAMP(3))";
        let theirs = format!("SELECT {start} AS w, v, COUNT(*) AS n FROM t JOIN {SERIES} ON v < k GROUP BY {start}, v");
        check(&ours, &theirs, &Feed::new("t", splits, batch), &prefixes, &restarts, seed, false)?;
    }

    #[test]
    fn aggregates_of_users_add_up((splits, batch, prefixes, restarts, seed) in input(), calls in calls(), key in pick(&["k", "s", "b"]), condition in condition(), sets: bool) {
        let group = if sets { format!("GROUPING SETS (({key}), ({key}, d))") } else { key.to_string() };
        let (ours, theirs) = both(&calls, |calls| format!("SELECT {key}, {calls} FROM t {condition} GROUP BY {group}"));
        check(&ours, &theirs, &Feed::new("t", splits, batch), &prefixes, &restarts, seed, true)?;
    }

    #[test]
    fn aggregates_of_users_over_rows_that_change_add_up((splits, batch, prefixes, restarts, seed) in input(), calls in calls(), keys in pick(&["k, s", "s, b", "k"]), global: bool) {
        let inner = format!("SELECT MAX(k) AS k, SUM(MOD(i, 5)) AS i, MIN(s) AS s, MAX(d) AS d, MAX(f + 0) AS f, MAX(b) AS b, COUNT(*) AS n FROM t GROUP BY {keys}");
        let (key, group) = if global { ("", "") } else { ("b, ", "GROUP BY b") };
        let (ours, theirs) = both(&calls, |calls| format!("SELECT {key}{calls} FROM ({inner}) AS q {group}"));
        // The row of a query over all rows without a row comes at the end.
        check(&ours, &theirs, &Feed::new("t", splits, batch), &prefixes, &restarts, seed, !global)?;
    }

    #[test]
    fn aggregates_of_users_add_up_in_windows((splits, batch, prefixes, restarts, seed) in input(), calls in calls(), kind in 0..3usize) {
        let start = |seconds: u32| format!("date_bin(INTERVAL '{seconds} seconds', ts, TIMESTAMP '1970-01-01 00:00:00')");
        let row = |e: u32, w: String| format!("SELECT *, {e} AS e, CAST({w} AS TIMESTAMP(3)) AS w FROM t");
        let hop = |n: u32| row(0, format!("{} - INTERVAL '{} seconds'", start(60), n * 60));
        let (window, rows) = match kind {
            0 => ("TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE)", vec![hop(0)]),
            1 => ("HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE, INTERVAL '5' MINUTE)", (0..5).map(hop).collect()),
            _ => (
                "CUMULATE(TABLE t, DESCRIPTOR(ts), INTERVAL '5' MINUTE, INTERVAL '10' MINUTE)",
                vec![format!("{} WHERE ts < {} + INTERVAL '300 seconds'", row(1, start(600)), start(600)), row(2, start(600))],
            ),
        };
        let (ours, _) = both(&calls, |calls| format!("SELECT k, window_start AS w, {calls} FROM TABLE({window}) GROUP BY k, window_start, window_end"));
        let rows = rows.join(" UNION ALL ");
        let (_, theirs) = both(&calls, |calls| format!("SELECT k, w, {calls} FROM ({rows}) AS t GROUP BY k, w, e"));
        check(&ours, &theirs, &Feed::new("t", splits, batch), &prefixes, &restarts, seed, false)?;
    }

    #[test]
    fn aggregates_of_users_add_up_in_sessions((splits, batch, prefixes, restarts, seed) in input(), calls in calls(), gap in proptest::sample::select(vec![5, 20, 60])) {
        let (ours, _) = both(&calls, |calls| format!(
            "SELECT k, window_start AS w, {calls} FROM TABLE(SESSION(TABLE t PARTITION BY k, DESCRIPTOR(ts), INTERVAL '{gap}' SECOND)) GROUP BY k, window_start, window_end"));
        let begins = format!("CASE WHEN LAG(ts) OVER (PARTITION BY k ORDER BY ts) >= ts - INTERVAL '{gap} seconds' THEN 0 ELSE 1 END");
        let numbered = format!("SELECT *, SUM(begins) OVER (PARTITION BY k ORDER BY ts ROWS UNBOUNDED PRECEDING) AS sid FROM (SELECT *, {begins} AS begins FROM t) AS m");
        let (_, theirs) = both(&calls, |calls| format!("SELECT k, MIN(ts) AS w, {calls} FROM ({numbered}) AS t GROUP BY k, sid"));
        check(&ours, &theirs, &Feed::new("t", splits, batch), &prefixes, &restarts, seed, false)?;
    }

    #[test]
    fn aggregates_of_users_add_up_over_frames((splits, batch, prefixes, restarts, seed) in input(), calls in calls(), frame in pick(&[
        "ORDER BY ts", "ORDER BY ts RANGE BETWEEN INTERVAL '90' SECOND PRECEDING AND CURRENT ROW",
        "ORDER BY ts, k, s NULLS LAST, i DESC, f, d, b ROWS BETWEEN 2 PRECEDING AND CURRENT ROW",
        "ORDER BY ts, k, s NULLS LAST, i DESC, f, d, b ROWS UNBOUNDED PRECEDING",
    ])) {
        let over = |call: &String| call.split(" + ").map(|part| part.split(" - ").map(|part| format!("{part} OVER (PARTITION BY b {frame})")).collect::<Vec<_>>().join(" - ")).collect::<Vec<_>>().join(" + ");
        let plain: Vec<_> = calls.into_iter().filter(|(ours, _)| !ours.contains('+') && !ours.contains("DISTINCT")).collect();
        let with: Vec<_> = plain.iter().map(|(ours, theirs)| (over(ours), over(theirs))).collect();
        prop_assume!(!with.is_empty());
        let (ours, theirs) = both(&with, |calls| format!("SELECT k, s, i, {calls} FROM t"));
        check(&ours, &theirs, &Feed::new("t", splits, batch), &prefixes, &restarts, seed, false)?;
    }
}

/// The rows of a query over records, to the end; rows that fail are left out.
fn rows_of(records: &[&str], sql: &str) -> Vec<String> {
    let feed = Feed::new("t", vec![records.iter().map(|r| r.to_string()).collect()], 2);
    feed.reveal(usize::MAX);
    let ddl = DDL.replace("'connector'", "'error-policy' = 'drop', 'connector'");
    let mut running = Running::start(&Feeds([("t".to_string(), feed)].into()), &format!("{ddl}\n{sql}"), 3, 1);
    running.finish();
    running.rows.rows().into_iter().map(|(row, weight)| format!("{} x{weight}", row.join(" "))).collect()
}

fn record(k: i64, n: i64) -> String {
    format!("{{\"k\":{k},\"i\":{n},\"ts\":\"2026-01-01 00:00:00.000\"}}")
}

#[test]
fn a_function_that_fails_costs_its_row() {
    let records: Vec<String> =
        [(1, 1), (1, 2), (2, 3), (1, 3), (2, 1), (3, -1), (4, -2), (5, -3), (6, -4)].map(|(k, n)| record(k, n)).into();
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    let series = "SELECT k, v FROM t, LATERAL TABLE(series(i)) AS x (v)";
    assert_eq!(rows_of(&records, series), ["1 0 x3", "1 1 x2", "1 2 x1", "2 0 x2", "2 1 x1", "2 2 x1"]);
    // A row that one call refuses is in none.
    let grouped = "SELECT k, PICKY(i) AS p, COUNT(*) AS n, SUM_PRODUCT(i, 1) AS s FROM t WHERE k < 3 GROUP BY k";
    assert_eq!(rows_of(&records, grouped), ["1 1 1 1 x1", "2 1 1 1 x1"]);
    let windowed =
        "SELECT k, SUM_PRODUCT(i, 1) AS s, PICKY(i) AS p, COUNT(*) AS n FROM t WHERE k < 3 GROUP BY k, TUMBLE(ts, INTERVAL '1' MINUTE)";
    assert_eq!(rows_of(&records, windowed), ["1 1 1 1 x1", "2 1 1 1 x1"]);
    let over = "SELECT k, SUM_PRODUCT(i, 1) OVER (PARTITION BY k ORDER BY ts ROWS UNBOUNDED PRECEDING) AS s,
        PICKY(i) OVER (PARTITION BY k ORDER BY ts ROWS UNBOUNDED PRECEDING) AS p FROM t WHERE k < 3";
    assert_eq!(rows_of(&records, over), ["1 1 1 x1", "2 1 1 x1"]);
}

#[test]
fn a_result_that_fails_is_none_until_it_can_be_computed() {
    let records: Vec<String> = [(1, 1), (1, 4), (2, 5), (2, 1), (3, 5)].map(|(k, n)| record(k, n)).into();
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    assert_eq!(rows_of(&records, "SELECT k, PICKY(i) AS p FROM t GROUP BY k"), ["2 6 x1"]);
    assert_eq!(rows_of(&records, "SELECT k, PICKY(i) AS p FROM t GROUP BY k, TUMBLE(ts, INTERVAL '1' MINUTE)"), ["2 6 x1"]);
}

#[test]
fn without_a_policy_the_error_stops_the_job_with_the_name() {
    for (sql, why) in [
        ("SELECT k, v FROM t, LATERAL TABLE(series(i)) AS x (v)", "SERIES: user function panicked: out of order"),
        ("SELECT PICKY(i) AS p FROM t WHERE i > 0 GROUP BY k", "PICKY: user function panicked: three"),
        ("SELECT PICKY(5) AS p FROM t GROUP BY k", "PICKY: five"),
    ] {
        let feed = Feed::new("t", vec![vec![record(1, 1), record(1, -2), record(1, 3)]], 1);
        feed.reveal(usize::MAX);
        let mut running = Running::start(&Feeds([("t".to_string(), feed)].into()), &format!("{DDL}\n{sql}"), 3, 1);
        let report = running.failure();
        assert!(report.contains(why), "{sql}\n{report}");
    }
}

/// Plans the last statement of a text.
fn planned(sql: &str) -> Result<Vec<Outcome>, String> {
    let mut session = Session::new(Arc::new(Feeds([("t".to_string(), Feed::new("t", vec![Vec::new()], 1))].into())));
    register(&mut session);
    session.run("test.sql", &format!("{DDL}{sql}")).map_err(|e| e.report())
}

#[test]
fn functions_are_listed_and_explained() {
    let Ok(outcomes) = planned("SHOW FUNCTIONS;") else { panic!("no functions") };
    let Some(Outcome::Table(_, rows)) = outcomes.into_iter().last() else { panic!("no table") };
    for name in ["SPLIT", "SERIES", "SUM_PRODUCT", "TOP_TEXT", "COUNT", "UPPER"] {
        assert!(rows.contains(&vec![name.to_string()]), "{name}");
    }
    let explain = |sql: &str| match planned(&format!("EXPLAIN {sql}")).map(|mut outcomes| outcomes.pop()) {
        Ok(Some(Outcome::Text(text))) => text,
        other => panic!("{other:?}"),
    };
    let text = explain("SELECT t.k, x.w FROM t LEFT JOIN LATERAL TABLE(split(t.s)) AS x (w, n) ON TRUE");
    assert!(text.contains("table_function") && text.contains("split(t.s), rows of which it makes none too"), "{text}");
    let text = explain("SELECT k, TOP_TEXT(s) AS hi FROM t GROUP BY k");
    assert!(text.contains("top_text(t.s) by t.k"), "{text}");
}

#[test]
fn the_latest_of_a_name_counts() {
    let mut session = Session::new(Arc::new(Feeds::default()));
    register(&mut session);
    session.register(super::world::count_char());
    session.register(AggregateFunction::new("Count_Char", vec![Int64], Int64, 0i64, |_, _| Ok(()), |n| Ok((*n).into())));
    session.register(TableFunction::new("picky", vec![], &[("x", Int64)], |_, _| Ok(())));
    let mut run = |sql: &str| session.run("test.sql", sql).map_err(|e| e.report());
    run(DDL).unwrap();
    assert!(run("SELECT COUNT_CHAR(i) AS n FROM t GROUP BY k").is_ok());
    assert!(run("SELECT COUNT_CHAR(s, 'a') AS n FROM t").is_err());
    assert!(run("SELECT x FROM t, LATERAL TABLE(picky())").is_ok());
    let error = run("SELECT PICKY(i) AS n FROM t").unwrap_err();
    assert!(error.contains("it gives rows, no value"), "{error}");
}
