//! OVER in any order and over rows that change: after every prefix what DataFusion computes of it.
//!
//! The order is that of all columns where rows are taken one by one, so that rows that are equal in it are the same row; the
//! sign of a zero, which tells none apart, comes last.

use super::oracle::{calls, check, condition, input, past_nulls, pick};
use super::world::Feed;
use proptest::prelude::*;

/// Rows with columns y, x, z and w: as they come, or as they change.
fn rows() -> impl Strategy<Value = String> {
    let plain = condition().prop_map(|condition| format!("SELECT k AS y, i AS x, s AS z, ts AS w FROM t {condition}"));
    let changing =
        (pick(&["COUNT(*)", "SUM(k)", "COUNT(DISTINCT s)"]), pick(&["MAX(s)", "MIN(s)"]), pick(&["k", "k, b", "k, d"]), condition())
            .prop_map(|(x, z, keys, condition)| {
                format!("SELECT k AS y, {x} AS x, {z} AS z, MAX(ts) AS w FROM t {condition} GROUP BY {keys}")
            });
    let newest = Just(
        "SELECT y, x, z, w FROM (SELECT k AS y, i AS x, s AS z, ts AS w, ROW_NUMBER() OVER (PARTITION BY k, b ORDER BY i DESC, s, ts DESC) AS n FROM t) AS r WHERE n <= 2"
            .to_string(),
    );
    prop_oneof![plain, changing, newest]
}

/// A function and its frame, in which the order is written as O where it is of all columns.
fn function() -> impl Strategy<Value = String> {
    let by_rows = (
        pick(&[
            "COUNT(*)",
            "COUNT(z)",
            "SUM(x)",
            "SUM(y)",
            "MIN(x)",
            "MAX(z)",
            "FIRST_VALUE(z)",
            "LAST_VALUE(x)",
            "SUM(y) FILTER (WHERE x > 0)",
        ]),
        prop_oneof![(0..4u32).prop_map(|n| format!("{n} PRECEDING")), Just("UNBOUNDED PRECEDING".to_string())],
    )
        .prop_map(|(f, from)| format!("{f} OVER (P ORDER BY O ROWS BETWEEN {from} AND CURRENT ROW)"));
    let by_peers = (
        pick(&["COUNT(*)", "SUM(y)", "MAX(z)", "AVG(y)", "RANK()", "DENSE_RANK()", "COUNT(DISTINCT z)"]),
        pick(&["x", "x DESC", "z, x", "w DESC", "z NULLS LAST"]),
    )
        .prop_map(|(f, order)| format!("{f} OVER (P ORDER BY {order})"));
    let by_time = (pick(&["COUNT(*)", "SUM(y)", "MIN(z)"]), pick(&["w", "w DESC"]), pick(&["0", "30", "200"]))
        .prop_map(|(f, order, s)| format!("{f} OVER (P ORDER BY {order} RANGE BETWEEN INTERVAL '{s}' SECOND PRECEDING AND CURRENT ROW)"));
    let one_by_one = pick(&["ROW_NUMBER()", "RANK()", "LAG(x)", "LAG(z, 2, 'none')", "LEAD(x)", "LEAD(z, 2)", "LAG(w, 0)"])
        .prop_map(|f| format!("{f} OVER (P ORDER BY O)"));
    prop_oneof![3 => by_rows, 2 => by_peers, 1 => by_time, 3 => one_by_one]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn over_any_order_adds_up((splits, batch, prefixes, restarts, seed) in input(), rows in rows(), functions in proptest::collection::vec(function(), 1..4),
        partition in pick(&["PARTITION BY y", "PARTITION BY MOD(y, 2)", "PARTITION BY z", ""]),
        order in pick(&["x, y, z, w", "z DESC, x DESC, w, y", "w DESC, x, z, y", "y NULLS LAST, z, w DESC, x"]),
        around in pick(&["(q)", "(q)", "SELECT y, COUNT(*) AS n, MAX(c0) AS hi FROM (q) AS q GROUP BY y", "SELECT * FROM (q) AS q WHERE x > 0"]))
    {
        // In the order of event time, over rows that only come, results wait for the watermark: the other core, tested elsewhere.
        prop_assume!(!(rows.starts_with("SELECT k AS y") && functions.iter().any(|f| f.contains("ORDER BY w RANGE"))));
        let calls = functions.iter().enumerate().map(|(i, f)| format!("{} AS c{i}", f.replace("(P ", &format!("({partition} ")).replace("BY O", &format!("BY {order}"))));
        let query = format!("SELECT y, x, z, {} FROM ({rows}) AS r", calls.collect::<Vec<_>>().join(", "));
        let sql = if around == "(q)" { query } else { around.replace("(q)", &format!("({query})")) };
        check(&sql, &past_nulls(&sql), &Feed::new("t", splits, batch), &prefixes, &restarts, seed, true)?;
    }

    /// OVER upon OVER: the second is over rows that the first changes.
    #[test]
    fn over_upon_over_adds_up((splits, batch, prefixes, restarts, seed) in input(), calls in calls()) {
        let inner = format!("SELECT k, s, {} AS c FROM t GROUP BY k, s", calls[0]);
        let numbered = format!("SELECT k, s, ROW_NUMBER() OVER (PARTITION BY k ORDER BY s DESC) AS n FROM ({inner}) AS g");
        let sql = format!("SELECT k, n, SUM(n) OVER (PARTITION BY n ORDER BY k ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS m FROM ({numbered}) AS h");
        check(&sql, &sql, &Feed::new("t", splits, batch), &prefixes, &restarts, seed, true)?;
    }
}
