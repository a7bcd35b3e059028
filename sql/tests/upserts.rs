//! Tables by key against the prefix oracle: DataFusion is given the newest rows of the prefix.

use super::oracle::batch;
use super::world::{Feed, Feeds, Running};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const DDL: &str = "CREATE TABLE u (k INT, s STRING, i BIGINT NOT NULL, PRIMARY KEY (k) NOT ENFORCED)
    WITH ('connector' = 'upsert-kafka', 'topic' = 'u', 'key.format' = 'json', 'value.format' = 'json');";

fn schema() -> SchemaRef {
    let field = |name: &str, kind| Field::new(name, kind, true);
    Arc::new(Schema::new(vec![field("k", DataType::Int32), field("s", DataType::Utf8), field("i", DataType::Int64)]))
}

/// The newest values, of records in order.
fn newest(records: &[String]) -> Vec<String> {
    let mut rows = BTreeMap::new();
    for (key, value) in records.iter().filter_map(|record| record.split_once('\t')) {
        if value.is_empty() {
            rows.remove(key)
        } else {
            rows.insert(key, value.to_string())
        };
    }
    rows.into_values().collect()
}

/// Keys of one split, so that each has its order.
fn split(number: i64) -> impl Strategy<Value = Vec<String>> {
    let text = proptest::sample::select(vec!["null", "\"a\"", "\"b\""]);
    let row = proptest::option::weighted(0.75, (text, -1..4i64));
    proptest::collection::vec((0..3i64, row), 0..12).prop_map(move |rows| {
        let record = |(key, row): (i64, Option<(&str, i64)>)| {
            let k = key * 2 + number;
            let value = row.map_or(String::new(), |(s, i)| format!("{{\"k\":{k},\"s\":{s},\"i\":{i}}}"));
            format!("{{\"k\":{k}}}\t{value}")
        };
        rows.into_iter().map(record).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_newest_record_of_a_key_is_the_row(
        splits in (split(0), split(1)),
        records in 1..5usize,
        mut prefixes in proptest::collection::vec(0..12usize, 0..4),
        restarts in proptest::collection::vec(1..4u32, 0..3),
        seed: u64,
        sql in proptest::sample::select(vec![
            "SELECT k, s, i FROM u",
            "SELECT s FROM u",
            "SELECT k FROM u WHERE i > 0",
            "SELECT s, COUNT(*) AS n, MAX(i) AS hi FROM u GROUP BY s",
            "SELECT l.k, r.s FROM u AS l LEFT JOIN u AS r ON l.i = r.k",
            "SELECT i, k FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY s ORDER BY i DESC, k) AS n FROM u) AS x WHERE n <= 1",
        ]),
    ) {
        prefixes.sort_unstable();
        let feed = Feed::keyed("u", vec![splits.0, splits.1], records);
        let feeds = Feeds(BTreeMap::from([("u".to_string(), feed.clone())]));
        let mut running = Running::start(&feeds, &format!("{DDL}\n{sql}"), seed, 1 + (seed % 3) as u32);
        for (turn, &prefix) in prefixes.iter().enumerate() {
            feed.reveal(prefix);
            running.settle();
            let (got, want) = (running.rows.rows(), batch(&[("u", schema(), newest(&feed.prefix()))], sql));
            prop_assert!(got == want, "after {prefix} of each split:\n{sql}\n got {got:?}\nwant {want:?}");
            if let Some(parallelism) = restarts.get(turn) {
                running.restart(*parallelism);
            }
        }
        feed.reveal(usize::MAX);
        running.finish();
        let (got, want) = (running.rows.rows(), batch(&[("u", schema(), newest(&feed.prefix()))], sql));
        prop_assert!(got == want, "at the end:\n{sql}\n got {got:?}\nwant {want:?}");
    }
}
