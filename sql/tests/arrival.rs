//! The order of arrival, `ORDER BY` a column that is PROCTIME(): against lists that are kept by hand. Rows come from one split.

use super::oracle::{DDL, input};
use super::world::{Feed, Feeds, Running};
use proptest::prelude::*;
use std::collections::BTreeMap;

const ROWS: &str = "(SELECT *, PROCTIME() AS p FROM t) AS t";

/// k and i of a record.
fn row(record: &str) -> (Option<i64>, Option<i64>) {
    let value: serde_json::Value = serde_json::from_str(record).unwrap();
    (value["k"].as_i64(), value["i"].as_i64())
}

fn number(n: Option<i64>) -> String {
    n.map_or("NULL".into(), |n| n.to_string())
}

/// i of the rows of each k, in order.
fn by_key(records: &[String]) -> BTreeMap<Option<i64>, Vec<Option<i64>>> {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    records.iter().map(|record| row(record)).for_each(|(k, i)| all.entry(k).or_default().push(i));
    all
}

fn bag(rows: impl Iterator<Item = Vec<String>>) -> BTreeMap<Vec<String>, i64> {
    let mut all = BTreeMap::new();
    rows.for_each(|row| *all.entry(row).or_insert(0) += 1);
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rows_over_rows_in_the_order_of_arrival((splits, batch, prefixes, restarts, seed) in input(), with_clock: bool) {
        let feed = Feed::new("t", vec![splits.concat()], batch);
        let feeds = Feeds(BTreeMap::from([("t".to_string(), feed.clone())]));
        let over = "OVER (PARTITION BY k ORDER BY p";
        let calls = format!("ROW_NUMBER() {over}) AS n, LAG(i) {over}) AS b, COUNT(i) {over}) AS c, MAX(i) {over} ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS m");
        // The clock goes on behind it, to a window.
        let sql = if with_clock {
            format!("SELECT k, COUNT(*) AS a, SUM(n) AS s FROM (SELECT k, p, {calls} FROM {ROWS}) AS q GROUP BY k, TUMBLE(p, INTERVAL '10000' DAY)")
        } else {
            format!("SELECT k, i, {calls} FROM {ROWS}")
        };
        let mut running = Running::start(&feeds, &format!("{DDL}\n{sql}"), seed, 1 + (seed % 3) as u32);
        for (n, prefix) in prefixes.into_iter().enumerate() {
            feed.reveal(prefix);
            running.settle();
            if let Some(parallelism) = restarts.get(n) {
                running.restart(*parallelism);
            }
        }
        feed.reveal(usize::MAX);
        running.finish();
        let want = if with_clock {
            bag(by_key(&feed.prefix()).into_iter().map(|(k, all)| {
                let rows = all.len() as i64;
                vec![number(k), rows.to_string(), (rows * (rows + 1) / 2).to_string()]
            }))
        } else {
            bag(by_key(&feed.prefix()).into_iter().flat_map(|(k, all)| {
                (0..all.len()).map(move |at| {
                    let before = at.checked_sub(1).and_then(|before| all[before]);
                    let count = all[..=at].iter().flatten().count();
                    let max = all[at.saturating_sub(1)..=at].iter().flatten().max().copied();
                    vec![number(k), number(all[at]), (at + 1).to_string(), number(before), count.to_string(), number(max)]
                }).collect::<Vec<_>>()
            }))
        };
        prop_assert!(running.rows.rows() == want, "{sql}\n got {:?}\nwant {:?}", running.rows.rows(), want);
    }

    #[test]
    fn the_first_and_the_last_to_arrive((splits, batch, prefixes, restarts, seed) in input(), (order, bound, first) in prop_oneof![
        Just(("p", "n = 1", Some(1))), Just(("p", "n <= 2", Some(2))), Just(("p DESC", "n = 1", None))], with_rank: bool)
    {
        let feed = Feed::new("t", vec![splits.concat()], batch);
        let feeds = Feeds(BTreeMap::from([("t".to_string(), feed.clone())]));
        let rank = if with_rank { ", n" } else { "" };
        let sql = format!("SELECT k, i{rank} FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY k ORDER BY {order}) AS n FROM {ROWS}) AS q WHERE {bound}");
        let mut running = Running::start(&feeds, &format!("{DDL}\n{sql}"), seed, 1 + (seed % 3) as u32);
        for (n, prefix) in prefixes.into_iter().chain([usize::MAX]).enumerate() {
            feed.reveal(prefix);
            running.settle();
            let want = bag(by_key(&feed.prefix()).into_iter().flat_map(|(k, all)| {
                let kept: Vec<_> = match first {
                    Some(first) => all.into_iter().take(first).collect(),
                    None => all.into_iter().next_back().into_iter().collect(),
                };
                let ranked = kept.into_iter().enumerate();
                ranked.map(move |(at, i)| [number(k), number(i)].into_iter().chain(with_rank.then(|| (at + 1).to_string())).collect::<Vec<_>>()).collect::<Vec<_>>()
            }));
            prop_assert!(running.rows.rows() == want, "{sql}\n got {:?}\nwant {:?}", running.rows.rows(), want);
            if let Some(parallelism) = restarts.get(n) {
                running.restart(*parallelism);
            }
        }
    }
}

#[test]
fn what_has_no_order_of_arrival_is_refused() {
    let refused = |sql: &str| {
        let feeds = Feeds(BTreeMap::from([("t".to_string(), Feed::new("t", vec![], 1))]));
        let mut session = crate::session::Session::new(std::sync::Arc::new(feeds));
        session.run("test.sql", &format!("{DDL}\nEXPLAIN {sql}")).map(|_| String::new()).unwrap_or_else(|e| e.report())
    };
    for (sql, why) in [
        (format!("SELECT RANK() OVER (PARTITION BY k ORDER BY p) AS n FROM {ROWS}"), "no two rows are equal"),
        (format!("SELECT COUNT(*) OVER (ORDER BY p) AS n, COUNT(*) OVER (ORDER BY ts) AS m FROM {ROWS}"), "PROCTIME() here"),
        (format!("SELECT k FROM (SELECT k, ROW_NUMBER() OVER (PARTITION BY k ORDER BY p DESC) AS n FROM {ROWS}) AS q WHERE n <= 2"), "move all others"),
        ("SELECT COUNT(*) OVER (ORDER BY p) AS n FROM (SELECT k, PROCTIME() AS p FROM (SELECT k, COUNT(*) AS c FROM t GROUP BY k) AS g) AS t".to_string(), "another time"),
    ] {
        let report = refused(&sql);
        assert!(report.contains(why), "{sql}\n{report}");
    }
}
