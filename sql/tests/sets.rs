//! GROUPING SETS, ROLLUP and CUBE against DataFusion: over rows that only come, over rows that change, and over windows.
//!
//! Nothing is filtered below where every prefix is compared: without a row, the set of all rows has its result at the end only.

use super::oracle::{calls, check, condition, input, pick};
use super::world::Feed;
use proptest::prelude::*;

/// GROUP BY with sets, the columns that it is by, and what may be asked of the sets.
fn sets() -> impl Strategy<Value = (String, &'static str, &'static str)> {
    let two = pick(&[
        "GROUPING SETS ((k, s), (k), ())",
        "GROUPING SETS ((k), (s))",
        "GROUPING SETS ((k, s))",
        "GROUPING SETS ((k, s), (k, s), (), ())",
        "GROUPING SETS ((), (s, k))",
        "ROLLUP (k, s)",
        "CUBE (k, s)",
        "k, ROLLUP (s)",
        "s, GROUPING SETS ((k), ())",
        "k, CUBE (s, MOD(k, 2))",
        "ROLLUP (k), CUBE (s)",
    ]);
    let asked = pick(&["GROUPING(k)", "GROUPING(s)", "GROUPING(k, s)", "GROUPING(s, k)", "GROUPING(k) + GROUPING(s)"]);
    (two, asked).prop_map(|(sets, asked)| (sets.to_string(), "k, s", asked))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn grouping_sets_add_up((splits, batch, prefixes, restarts, seed) in input(), (sets, keys, asked) in sets(), calls in calls(),
        around in pick(&["(q)", "(q) HAVING COUNT(*) > 1", "SELECT g, COUNT(*) AS n, MAX(c0) AS hi FROM (q) AS q GROUP BY g", "SELECT * FROM (q) AS q WHERE g = 0"]))
    {
        let calls = calls.iter().enumerate().map(|(i, e)| format!("{e} AS c{i}")).collect::<Vec<_>>().join(", ");
        let query = format!("SELECT {keys}, {asked} AS g, {calls} FROM t GROUP BY {sets}");
        let sql = if around.starts_with("(q)") { around.replace("(q)", &query) } else { around.replace("(q)", &format!("({query})")) };
        check(&sql, &sql, &Feed::new("t", splits, batch), &prefixes, &restarts, seed, true)?;
    }

    #[test]
    fn grouping_sets_of_rows_that_change_add_up((splits, batch, prefixes, restarts, seed) in input(), (sets, keys, asked) in sets(),
        inner in pick(&["COUNT(*)", "SUM(k)", "MAX(s)", "AVG(d)", "MAX(b)"]), outer in pick(&["COUNT(*)", "COUNT(x)", "MAX(x)", "MIN(x)", "COUNT(DISTINCT x)"]))
    {
        let changing = format!("SELECT k, s, {inner} AS x FROM t GROUP BY k, s, b");
        let sql = format!("SELECT {keys}, {asked} AS g, {outer} AS c0 FROM ({changing}) AS c GROUP BY {sets}");
        check(&sql, &sql, &Feed::new("t", splits, batch), &prefixes, &restarts, seed, true)?;
    }

    #[test]
    fn grouping_sets_of_windows_add_up((splits, batch, prefixes, restarts, seed) in input(), (sets, keys, asked) in sets(), calls in calls(), condition in condition(),
        twice: bool, hop: bool)
    {
        let calls = calls.iter().enumerate().map(|(i, e)| format!("{e} AS c{i}")).collect::<Vec<_>>().join(", ");
        let query = |table: &str| {
            let of_windows = format!("SELECT window_start, window_end, {keys}, {asked} AS g, {calls} FROM {table} {condition} GROUP BY window_start, window_end, {sets}");
            if twice { format!("SELECT window_start, window_end, COUNT(*) AS n, MAX(c0) AS hi FROM ({of_windows}) AS w GROUP BY window_start, window_end, ROLLUP (g)") } else { of_windows }
        };
        let function = if hop { "HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '60' SECOND, INTERVAL '120' SECOND)" } else { "TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '90' SECOND)" };
        let (slide, size) = if hop { (60, 120) } else { (90, 90) };
        let spread: Vec<String> = (0..size / slide).map(|i| {
            let start = format!("date_bin(INTERVAL '{slide} seconds', ts, TIMESTAMP '1970-01-01 00:00:00') - INTERVAL '{} seconds'", i * slide);
            format!("SELECT *, CAST({start} AS TIMESTAMP(3)) AS window_start, CAST({start} + INTERVAL '{size} seconds' AS TIMESTAMP(3)) AS window_end FROM t")
        }).collect();
        let theirs = query(&format!("({}) AS t", spread.join(" UNION ALL ")));
        check(&query(&format!("TABLE({function})")), &theirs, &Feed::new("t", splits, batch), &prefixes, &restarts, seed, false)?;
    }
}
