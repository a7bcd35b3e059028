//! `SET 'table.exec.state.ttl'` and the hint `STATE_TTL`: what a query forgets of keys that nothing changes, and what EXPLAIN says of it.

use super::oracle::DDL;
use super::world::{Feed, Feeds, Running};
use crate::session::{Outcome, Session};
use std::collections::BTreeMap;
use std::sync::Arc;

const HOUR_MS: i64 = 3_600_000;
/// Rows without a time of their own.
const TIMELESS: &str = "CREATE TABLE t (k INT, i BIGINT) WITH ('connector' = 'topics', 'format' = 'json');";

fn feeds(records: &[&str]) -> (Arc<Feed>, Feeds) {
    let feed = Feed::new("t", vec![records.iter().map(|r| (*r).to_string()).collect()], 1);
    (feed.clone(), Feeds(BTreeMap::from([("t".to_string(), feed)])))
}

/// What the query's rows add up to when `pause_ms` passes between each two records, with a restart in the middle of it.
fn after_pauses(sql: &str, records: &[&str], pause_ms: i64) -> Vec<(String, i64)> {
    let (feed, feeds) = feeds(records);
    let mut running = Running::start(&feeds, &format!("{TIMELESS}\nSET 'table.exec.state.ttl' = '1 h';\n{sql}"), 7, 2);
    for n in 1..=records.len() {
        feed.reveal(n);
        running.settle();
        running.later(pause_ms / 2);
        running.restart(1 + (n % 2) as u32);
        running.later(pause_ms - pause_ms / 2);
        running.settle();
    }
    running.finish();
    running.rows.rows().into_iter().map(|(cells, weight)| (cells.join(","), weight)).collect()
}

#[test]
fn keys_that_nothing_changes_are_forgotten() {
    let records = ["{\"k\":1,\"i\":5}", "{\"k\":1,\"i\":7}"];
    let both = |sql: &str| {
        let text = |rows: Vec<(String, i64)>| rows.into_iter().map(|(row, n)| format!("{row} x{n}")).collect::<Vec<_>>().join("; ");
        (text(after_pauses(sql, &records, HOUR_MS / 2)), text(after_pauses(sql, &records, HOUR_MS * 2)))
    };
    let says = |kept: &str, forgotten: &str| (kept.to_string(), forgotten.to_string());
    // What was said of a key that is forgotten stays.
    assert_eq!(both("SELECT k, COUNT(*) AS n, SUM(i) AS s FROM t GROUP BY k"), says("1,2,12 x1", "1,1,5 x1; 1,1,7 x1"));
    assert_eq!(both("SELECT DISTINCT k FROM t"), says("1 x1", "1 x2"));
    let first = "SELECT k, i FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY k ORDER BY i) AS n FROM t) WHERE n = 1";
    assert_eq!(both(first), says("1,5 x1", "1,5 x1; 1,7 x1"));
    let pairs = "SELECT a.i, b.i FROM t AS a JOIN t AS b ON a.k = b.k AND a.i < b.i";
    assert_eq!(both(pairs), says("5,7 x1", ""));
    let alone = "SELECT a.i, b.i FROM t AS a LEFT JOIN t AS b ON a.k = b.k AND a.i > b.i";
    assert_eq!(both(alone), says("5,NULL x1; 7,5 x1", "5,NULL x1; 7,NULL x1"));
    let numbered = "SELECT i, COUNT(*) OVER (PARTITION BY k ORDER BY i) AS n FROM t";
    assert_eq!(both(numbered), says("5,1 x1; 7,2 x1", "5,1 x1; 7,1 x1"));
}

/// A hint says it of one input, whatever the session says.
#[test]
fn inputs_that_a_hint_names_are_forgotten_by_themselves() {
    let records = ["{\"k\":1,\"i\":5}", "{\"k\":1,\"i\":7}"];
    let after = |sql: &str, pause_ms: i64| {
        after_pauses(sql, &records, pause_ms).into_iter().map(|(row, n)| format!("{row} x{n}")).collect::<Vec<_>>().join("; ")
    };
    // The earlier row is of the side that is kept long, or of the one that is not.
    let pairs = |hint: &str| format!("SELECT {hint} a.i, b.i FROM t AS a JOIN t AS b ON a.k = b.k AND a.i < b.i");
    for pause in [HOUR_MS / 2, HOUR_MS * 2] {
        assert_eq!(after(&pairs("/*+ STATE_TTL('a' = '1 d') */"), pause), "5,7 x1");
        assert_eq!(after(&pairs("/*+ STATE_TTL('a' = '0', 'b' = '1 min') */"), pause), "5,7 x1");
        assert_eq!(after(&pairs("/*+ STATE_TTL('a' = '1 min', 'b' = '1 d') */"), pause), "");
        let counts = "SELECT /*+ STATE_TTL('x' = '1 d') */ k, COUNT(*) AS n FROM t AS x GROUP BY k";
        assert_eq!(after(counts, pause), "1,2 x1");
    }
    let counts = "SELECT /*+ STATE_TTL('x' = '1 min') */ k, COUNT(*) AS n FROM t AS x GROUP BY k";
    assert_eq!(after(counts, HOUR_MS / 2), "1,1 x2");
}

#[test]
fn a_plan_says_what_is_forgotten_when() {
    let explained = |set: &str, sql: &str| {
        let mut session = Session::new(Arc::new(feeds(&[]).1));
        let outcomes = session.run("test.sql", &format!("{DDL}\n{set}EXPLAIN {sql}")).unwrap_or_else(|e| panic!("{}", e.report()));
        match outcomes.into_iter().last() {
            Some(Outcome::Text(text)) => text,
            other => panic!("no plan: {other:?}"),
        }
    };
    let set = "SET 'table.exec.state.ttl' = '36 h';\n";
    for sql in [
        "SELECT k, COUNT(*) FROM t GROUP BY k",
        "SELECT a.i FROM t AS a JOIN t AS b ON a.k = b.k",
        "SELECT k FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY k ORDER BY i) AS n FROM t) WHERE n = 1",
        "SELECT COUNT(*) OVER (PARTITION BY k ORDER BY i) AS n FROM t",
    ] {
        let (without, with) = (explained("", sql), explained(set, sql));
        assert!(without.contains("UNBOUNDED by time") && !without.contains("forgotten"), "{sql}\n{without}");
        assert!(with.contains("kept 1d12h") && with.contains("state that is forgotten by the clock"), "{sql}\n{with}");
        assert!(!with.contains("UNBOUNDED by time") && !with.contains("nothing bounds"), "{sql}\n{with}");
        assert_eq!(explained("SET 'table.exec.state.ttl' = '0';\n", sql), without);
    }
    let hinted = explained("", "SELECT /*+ STATE_TTL('a' = '2 d') */ a.i FROM t AS a JOIN t AS b ON a.k = b.k");
    assert!(hinted.contains("left rows") && hinted.contains("kept 2d") && hinted.contains("UNBOUNDED by time"), "{hinted}");
    // What event time bounds it bounds still.
    let window =
        "SELECT window_start, COUNT(*) FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end";
    assert_eq!(explained(set, window), explained("", window));
    let late = explained("SET 'table.exec.emit.allow-lateness' = '1 h';\n", window);
    assert!(late.contains("late rows change results for 1h") && late.contains("newest result of each window"), "{late}");
}
