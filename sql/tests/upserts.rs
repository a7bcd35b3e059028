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

const CHANGES: &str = "CREATE TABLE u (k INT, s STRING, i BIGINT NOT NULL, PRIMARY KEY (k) NOT ENFORCED)
    WITH ('connector' = 'kafka', 'topic' = 'u', 'format' = 'debezium-json');";

/// The newest rows, of changes in order.
fn changed(records: &[String]) -> Vec<String> {
    let mut rows = BTreeMap::new();
    for value in records.iter().filter_map(|record| record.split_once('\t')).map(|(_, value)| value).filter(|value| !value.is_empty()) {
        let change: serde_json::Value = serde_json::from_str(value).unwrap();
        match change["op"].as_str() {
            Some("d") => rows.remove(&change["before"]["k"].as_i64()),
            _ => rows.insert(change["after"]["k"].as_i64(), change["after"].to_string()),
        };
    }
    rows.into_values().collect()
}

/// Changes of the keys of one split as Debezium writes them, some of them once more: as after its restart.
fn changes(number: i64) -> impl Strategy<Value = Vec<String>> {
    let text = proptest::sample::select(vec!["null", "\"a\"", "\"b\""]);
    let row = proptest::option::weighted(0.75, (text, -1..4i64));
    let step = (0..3i64, row, proptest::bool::weighted(0.5), 0..8usize);
    proptest::collection::vec(step, 0..10).prop_map(move |steps| {
        let (mut rows, mut records): (BTreeMap<i64, String>, Vec<String>) = Default::default();
        for (key, row, is_whole, again) in steps {
            let k = key * 2 + number;
            let before = rows.get(&k).cloned();
            // What a database says of the row before: all, its key, or nothing.
            let partial = |row: &String| if is_whole { row.clone() } else { format!("{{\"k\":{k},\"s\":null}}") };
            let mut write = |value: String| records.push(format!("{{\"k\":{k}}}\t{value}"));
            match (before, row) {
                (None, None) => continue,
                (Some(before), None) => {
                    write(format!("{{\"before\":{},\"after\":null,\"op\":\"d\",\"ts_ms\":5}}", partial(&before)));
                    write(String::new());
                    rows.remove(&k);
                }
                (before, Some((s, i))) => {
                    let after = format!("{{\"k\":{k},\"s\":{s},\"i\":{i}}}");
                    let (op, before) = match &before {
                        Some(before) => ("u", if is_whole { before.clone() } else { "null".into() }),
                        None => (if is_whole { "c" } else { "r" }, "null".into()),
                    };
                    write(format!("{{\"op\":\"{op}\",\"before\":{before},\"source\":{{\"x\":[1]}},\"after\":{after}}}"));
                    rows.insert(k, after);
                }
            }
            if again < 3 {
                let from = records.len().saturating_sub(again);
                records.extend_from_within(from..);
            }
        }
        records
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changes_by_key_add_up_to_the_table_whatever_is_repeated(
        splits in (changes(0), changes(1)),
        records in 1..5usize,
        mut prefixes in proptest::collection::vec(0..16usize, 0..4),
        restarts in proptest::collection::vec(1..4u32, 0..3),
        seed: u64,
        sql in proptest::sample::select(vec![
            "SELECT k, s, i FROM u",
            "SELECT k FROM u WHERE i > 0",
            "SELECT s, COUNT(*) AS n, MAX(i) AS hi FROM u GROUP BY s",
            "SELECT l.k, r.s FROM u AS l LEFT JOIN u AS r ON l.i = r.k",
        ]),
    ) {
        prefixes.sort_unstable();
        let feed = Feed::keyed("u", vec![splits.0, splits.1], records);
        let feeds = Feeds(BTreeMap::from([("u".to_string(), feed.clone())]));
        let mut running = Running::start(&feeds, &format!("{CHANGES}\n{sql}"), seed, 1 + (seed % 3) as u32);
        for (turn, &prefix) in prefixes.iter().enumerate() {
            feed.reveal(prefix);
            running.settle();
            let (got, want) = (running.rows.rows(), batch(&[("u", schema(), changed(&feed.prefix()))], sql));
            prop_assert!(got == want, "after {prefix} of each split:\n{sql}\n got {got:?}\nwant {want:?}");
            if let Some(parallelism) = restarts.get(turn) {
                running.restart(*parallelism);
            }
        }
        feed.reveal(usize::MAX);
        running.finish();
        let (got, want) = (running.rows.rows(), batch(&[("u", schema(), changed(&feed.prefix()))], sql));
        prop_assert!(got == want, "at the end:\n{sql}\n got {got:?}\nwant {want:?}");
    }
}

/// The rows of a query over one feed of records in order.
fn answer(ddl: &str, feeds: &[(&str, Vec<String>)], sql: &str) -> Vec<String> {
    let feeds: BTreeMap<String, Arc<Feed>> =
        feeds.iter().map(|(name, records)| (name.to_string(), Feed::keyed(name, vec![records.clone()], 2))).collect();
    feeds.values().for_each(|feed| feed.reveal(usize::MAX));
    let mut running = Running::start(&Feeds(feeds), &format!("{ddl}\n{sql}"), 5, 2);
    running.finish();
    let shown = |(row, weight): (Vec<String>, i64)| format!("{} x{weight}", row.join(","));
    running.rows.rows().into_iter().map(shown).collect()
}

#[test]
fn changes_without_a_key_are_counted_as_they_are() {
    let ddl = "CREATE TABLE c (s STRING, i INT) WITH ('connector' = 'kafka', 'topic' = 'c', 'format' = 'debezium-json', 'debezium-json.schema-include' = 'true', 'error-policy' = 'drop');";
    let change = |op: &str, before: &str, after: &str| {
        format!("\t{{\"schema\":{{\"type\":\"struct\"}},\"payload\":{{\"before\":{before},\"after\":{after},\"op\":\"{op}\"}}}}")
    };
    let records = vec![
        change("r", "null", r#"{"s":"a","i":1}"#),
        change("c", "null", r#"{"s":"a","i":2}"#),
        change("u", r#"{"s":"a","i":2}"#, r#"{"s":"b","i":7}"#),
        change("c", "null", r#"{"s":"b","i":1}"#),
        change("d", r#"{"s":"a","i":1}"#, "null"),
        // None of these says what becomes of a row.
        change("u", "null", r#"{"s":"b","i":3}"#),
        change("c", r#"{"s":"b","i":3}"#, "null"),
        change("d", "null", "null"),
        change("t", "null", "null"),
        r#"	{"s":"b","i":3}"#.to_string(),
        "\t".to_string(),
        change("c", "null", r#"{"s":"c","i":null}"#),
    ];
    assert_eq!(answer(ddl, &[("c", records)], "SELECT s, COUNT(*) AS n, SUM(i) AS t FROM c GROUP BY s"), ["b,2,8 x1", "c,1,NULL x1"]);
}

/// A table by key with event time has versions: one that was deleted is none, from the time of its record on.
#[test]
fn rows_by_key_have_versions() {
    let rows = |more: &str| {
        format!("CREATE TABLE r (k INT, rate INT, at TIMESTAMP(3), WATERMARK FOR at AS at, PRIMARY KEY (k) NOT ENFORCED) WITH ({more});")
    };
    let orders = "CREATE TABLE o (id INT, k INT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH ('connector' = 'kafka', 'topic' = 'o', 'format' = 'json');";
    let second = |at: i64| format!("1970-01-01 00:00:{at:02}");
    let order = |id: i64, at: i64| format!("\t{{\"id\":{id},\"k\":{},\"ts\":\"{}\"}}", id % 2, second(at));
    let row = |k: i64, rate: i64, at: i64| format!("{{\"k\":{k},\"rate\":{rate},\"at\":\"{}\"}}", second(at));
    // Record n has the timestamp 1000 + n milliseconds: the deletions hold from the first second on.
    let upserts = vec![
        format!("{{\"k\":1}}\t{}", row(1, 10, 0)),
        format!("{{\"k\":0}}\t{}", row(0, 20, 0)),
        "{\"k\":1}\t".to_string(),
        format!("{{\"k\":1}}\t{}", row(1, 11, 3)),
        format!("{{\"k\":0}}\t{}", row(0, 99, 9)),
    ];
    let changes = vec![
        format!("\t{{\"before\":null,\"after\":{},\"op\":\"c\"}}", row(1, 10, 0)),
        format!("\t{{\"before\":null,\"after\":{},\"op\":\"c\"}}", row(0, 20, 0)),
        format!("\t{{\"before\":{},\"after\":null,\"op\":\"d\"}}", row(1, 10, 0)),
        format!("\t{{\"before\":null,\"after\":{},\"op\":\"c\"}}", row(1, 11, 3)),
        format!("\t{{\"before\":{},\"after\":{},\"op\":\"u\"}}", row(0, 20, 0), row(0, 99, 9)),
    ];
    let records = vec![order(1, 0), order(2, 1), order(3, 2), order(5, 4), order(6, 8), order(8, 9)];
    let upsert = rows("'connector' = 'upsert-kafka', 'topic' = 'r', 'key.format' = 'json', 'value.format' = 'json'");
    let debezium = rows("'connector' = 'kafka', 'topic' = 'r', 'format' = 'debezium-json'");
    for (ddl, versions) in [(upsert, upserts), (debezium, changes)] {
        let ddl = format!("{ddl}{orders}");
        let feeds = [("r", versions), ("o", records.clone())];
        let sql = "SELECT o.id, r.rate FROM o LEFT JOIN r FOR SYSTEM_TIME AS OF o.ts AS r ON o.k = r.k";
        assert_eq!(answer(&ddl, &feeds, sql), ["1,10 x1", "2,20 x1", "3,NULL x1", "5,11 x1", "6,20 x1", "8,99 x1"]);
        assert_eq!(answer(&ddl, &feeds, "SELECT k, rate FROM r"), ["0,99 x1", "1,11 x1"]);
    }
}
