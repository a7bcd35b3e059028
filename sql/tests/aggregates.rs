//! Aggregates besides the five of old: variances, values in the order of arrival, approximate counts. Against DataFusion, where
//! it has them; where order is that of arrival, rows come from one split.

use super::oracle::{DDL, check, condition, input, oracle, pick};
use super::world::{Feed, Feeds, Running};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A variance or deviation, ours and DataFusion's: of whole numbers it is cut off, of floats compared up to what rounds.
fn variance() -> impl Strategy<Value = (String, String)> {
    let function = pick(&["VAR_POP", "VAR_SAMP", "STDDEV_POP", "STDDEV_SAMP"]);
    (function, pick(&["k", "MOD(i, 5)", "f", "f * 3"]), proptest::option::weighted(0.3, pick(&["k > 1", "s = 'a'", "b"]))).prop_map(
        |(function, of, filter)| {
            let filter = filter.map_or(String::new(), |filter| format!(" FILTER (WHERE {filter})"));
            if of.starts_with('f') {
                let both = format!("ROUND({function}({of}){filter} / CAST(7.3 AS DOUBLE), 6)");
                return (both.clone(), both);
            }
            let theirs = format!("CAST(FLOOR(ROUND({function}(CAST({of} AS DOUBLE)){filter}, 9)) AS BIGINT)");
            (format!("{function}({of}){filter}"), theirs)
        },
    )
}

fn arrival() -> impl Strategy<Value = (String, String)> {
    let of = |ours: &'static str, theirs: &'static str| Just((ours.to_string(), theirs.to_string()));
    prop_oneof![
        of("FIRST_VALUE(s)", "FIRST_VALUE(s) IGNORE NULLS"),
        of("LAST_VALUE(i)", "LAST_VALUE(i) IGNORE NULLS"),
        of("FIRST_VALUE(ts) FILTER (WHERE k > 0)", "FIRST_VALUE(ts) FILTER (WHERE k > 0) IGNORE NULLS"),
        of("LISTAGG(s)", "STRING_AGG(s, ',')"),
        of("LISTAGG(s || 'x', ' - ') FILTER (WHERE b)", "STRING_AGG(s || 'x', ' - ') FILTER (WHERE b)"),
        of("ARRAY_AGG(i)", "ARRAY_AGG(i)"),
        of("ARRAY_AGG(s) IGNORE NULLS", "ARRAY_AGG(s) IGNORE NULLS"),
    ]
}

/// The same query with our calls and with theirs.
fn both(calls: &[(String, String)], write: impl Fn(&str) -> String) -> (String, String) {
    let list = |of: fn(&(String, String)) -> &String| {
        calls.iter().map(of).enumerate().map(|(i, c)| format!("{c} AS c{i}")).collect::<Vec<_>>().join(", ")
    };
    (write(&list(|c| &c.0)), write(&list(|c| &c.1)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn variances_add_up((splits, batch, prefixes, restarts, seed) in input(), calls in proptest::collection::vec(variance(), 1..4),
        key in pick(&["k", "s", "b"]), condition in condition())
    {
        let (ours, theirs) = both(&calls, |calls| format!("SELECT {key}, {calls} FROM t {condition} GROUP BY {key}"));
        check(&ours, &theirs, &Feed::new("t", splits, batch), &prefixes, &restarts, seed, true)?;
    }

    #[test]
    fn variances_over_rows_that_change_add_up((splits, batch, prefixes, restarts, seed) in input(), function in pick(&["VAR_POP", "VAR_SAMP", "STDDEV_POP"]),
        inner in pick(&["COUNT(*)", "SUM(k)", "MAX(f + 0)"]), distinct: bool)
    {
        let distinct = if distinct { "DISTINCT " } else { "" };
        let write = |call: String| format!("SELECT y, {call} AS v FROM (SELECT k AS y, {inner} AS x FROM t GROUP BY k, s, b) AS q GROUP BY y");
        let (ours, theirs) = if inner.contains('f') {
            // A float's deviation is what rounds.
            let of = |distinct: &str| write(format!("ROUND({function}({distinct}x) / CAST(7.3 AS DOUBLE), 6)"));
            (of(""), of(""))
        } else {
            // DataFusion has no DISTINCT here: of distinct rows it is the same.
            let theirs = format!("CAST(FLOOR(ROUND({function}(CAST(x AS DOUBLE)), 9)) AS BIGINT)");
            let source = format!("SELECT k AS y, {inner} AS x FROM t GROUP BY k, s, b");
            let source = if distinct.is_empty() { source } else { format!("SELECT DISTINCT y, x FROM ({source}) AS d") };
            (write(format!("{function}({distinct}x)")), format!("SELECT y, {theirs} AS v FROM ({source}) AS q GROUP BY y"))
        };
        check(&ours, &theirs, &Feed::new("t", splits, batch), &prefixes, &restarts, seed, true)?;
    }

    #[test]
    fn values_in_the_order_of_arrival_add_up((splits, batch, prefixes, restarts, seed) in input(), calls in proptest::collection::vec(arrival(), 1..4),
        key in pick(&["k", "b", "MOD(k, 2)"]), window: bool)
    {
        let feed = Feed::new("t", vec![splits.concat()], batch);
        let (_, theirs) = both(&calls, |calls| format!("SELECT {key} AS y, {calls} FROM t GROUP BY {key}"));
        let (ours, _) = both(&calls, |calls| {
            // All rows are in one window of an hour.
            let window = if window { ", TUMBLE(ts, INTERVAL '1' HOUR)" } else { "" };
            format!("SELECT {key} AS y, {calls} FROM t GROUP BY {key}{window}")
        });
        check(&ours, &theirs, &feed, &prefixes, &restarts, seed, !window)?;
    }

    /// Of rows that change, what arrives when depends on the batches; which values there are does not.
    #[test]
    fn values_of_rows_that_change_are_those_that_are_there((splits, batch, prefixes, restarts, seed) in input(), inner in pick(&["COUNT(*)", "SUM(k)", "MAX(s)"])) {
        let write = |call: &str| format!("SELECT y, {call} AS v FROM (SELECT k AS y, CAST({inner} AS VARCHAR) AS x FROM t GROUP BY k, s, b) AS q GROUP BY y");
        let feed = Feed::new("t", splits, batch);
        let feeds = Feeds(BTreeMap::from([("t".to_string(), feed.clone())]));
        let mut running = Running::start(&feeds, &format!("{DDL}\n{}", write("LISTAGG(x)")), seed, 1 + (seed % 3) as u32);
        let sorted = |rows: BTreeMap<Vec<String>, i64>| -> BTreeMap<Vec<String>, i64> {
            let sort = |text: &str| { let mut parts: Vec<&str> = text.split(',').collect(); parts.sort_unstable(); parts.join(",") };
            rows.into_iter().map(|(row, n)| (vec![row[0].clone(), sort(&row[1])], n)).collect()
        };
        for (i, prefix) in prefixes.into_iter().chain([usize::MAX]).enumerate() {
            feed.reveal(prefix);
            running.settle();
            let (got, want) = (sorted(running.rows.rows()), sorted(oracle(&feed.prefix(), &write("STRING_AGG(x, ',')"))));
            prop_assert!(got == want, "got {:?}\nwant {:?}", got, want);
            if let Some(parallelism) = restarts.get(i) {
                running.restart(*parallelism);
            }
        }
    }

    #[test]
    fn variances_of_windows_add_up((splits, batch, prefixes, restarts, seed) in input(), calls in proptest::collection::vec(variance(), 1..3), over: bool) {
        let feed = Feed::new("t", splits, batch);
        let (ours, theirs) = if over {
            // OVER stands behind the aggregate, which ends the innermost call.
            let with = |(ours, theirs): &(String, String)| {
                let put = |call: &String| {
                    let at = call.find(" / CAST(7").or_else(|| call.find(", 9))")).unwrap_or(call.len());
                    format!("{} OVER (PARTITION BY k ORDER BY ts){}", &call[..at], &call[at..])
                };
                (put(ours), put(theirs))
            };
            both(&calls.iter().map(with).collect::<Vec<_>>(), |calls| format!("SELECT k, {calls} FROM t"))
        } else {
            let spread = |n: u32| format!("SELECT *, CAST(date_bin(INTERVAL '60 seconds', ts, TIMESTAMP '1970-01-01 00:00:00') - INTERVAL '{} seconds' AS TIMESTAMP(3)) AS w FROM t", n * 60);
            let (ours, _) = both(&calls, |calls| format!("SELECT window_start AS w, {calls} FROM TABLE(HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '60' SECOND, INTERVAL '120' SECOND)) GROUP BY window_start, window_end"));
            let (_, theirs) = both(&calls, |calls| format!("SELECT w, {calls} FROM ({} UNION ALL {}) AS t GROUP BY w", spread(0), spread(1)));
            (ours, theirs)
        };
        check(&ours, &theirs, &feed, &prefixes, &restarts, seed, false)?;
    }
}

/// The rows of a query over records, to the end.
fn rows_of(records: Vec<String>, sql: &str) -> Vec<Vec<String>> {
    let feed = Feed::new("t", vec![records], 7);
    let feeds = Feeds(BTreeMap::from([("t".to_string(), feed.clone())]));
    let mut running = Running::start(&feeds, &format!("{DDL}\n{sql}"), 3, 2);
    feed.reveal(usize::MAX);
    running.finish();
    running.rows.rows().into_keys().collect()
}

fn record(k: i64, s: &str, d: &str) -> String {
    format!("{{\"k\":{k},\"s\":\"{s}\",\"i\":{k},\"d\":{d},\"ts\":\"2026-01-01 00:00:{:02}\"}}", k % 60)
}

#[test]
fn types_and_few_values() {
    let records = || vec![record(1, "a", "1.00"), record(2, "b", "2.00"), record(4, "c", "2.50")];
    let of = |calls: &str, rows: usize| rows_of(records()[..rows].to_vec(), &format!("SELECT {calls} FROM t GROUP BY b")).concat();
    assert_eq!(of("VAR_POP(d), STDDEV_POP(d), VAR_SAMP(d), VARIANCE(d)", 2), ["0.250000", "0.500000", "0.500000", "0.500000"]);
    assert_eq!(of("VAR_POP(k), VAR_SAMP(k), STDDEV(k), STDDEV_POP(f)", 1), ["0", "NULL", "NULL", "NULL"]);
    // As AVG of whole numbers, cut off: 14 / 9 and 14 / 6.
    assert_eq!(of("VAR_POP(k), VAR_SAMP(k)", 3), ["1", "2"]);
    assert_eq!(of("LISTAGG(s, ''), ARRAY_AGG(d), FIRST_VALUE(d), LAST_VALUE(s)", 3), ["abc", "[1.00,2.00,2.50]", "1.00", "c"]);
    let many = (0..600).map(|k| record(k, "a", "1")).collect();
    let count: u64 = rows_of(many, "SELECT APPROX_COUNT_DISTINCT(i) FROM t GROUP BY b").concat()[0].parse().unwrap();
    assert!((560..=640).contains(&count), "{count}");
    // Over rows that change the count is exact.
    let few = vec![record(1, "a", "1"), record(2, "a", "1"), record(2, "b", "1")];
    let counted = "SELECT APPROX_COUNT_DISTINCT(n) AS m FROM (SELECT k, COUNT(*) AS n, MAX(b) AS b FROM t GROUP BY k) AS q GROUP BY b";
    assert_eq!(rows_of(few, counted).concat(), ["2"]);
}
