//! What reading a table leaves behind, as tables: records that are no rows, rows that come late.

use super::world::{Feed, Feeds, Running};
use crate::session::Session;
use std::collections::BTreeMap;
use std::sync::Arc;

const DDL: &str = "CREATE TABLE t (id BIGINT NOT NULL, twice AS 10 / id, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND)
    WITH ('connector' = 'topics', 'format' = 'json', 'error-policy' = 'drop');";

/// The rows of a query over records of one split, one at a time, with a restart in the middle. Of several tasks one may hear later
/// than another how far event time has come: what is late is certain with one.
fn answer(records: &[&str], sql: &str, tasks: u32) -> Vec<String> {
    let records: Vec<String> = records.iter().map(|record| record.to_string()).collect();
    let half = records.len() / 2;
    let feed = Feed::new("t", vec![records], 1);
    let feeds = Feeds(BTreeMap::from([("t".to_string(), feed.clone())]));
    let mut running = Running::start(&feeds, &format!("{DDL}\n{sql}"), 9, tasks);
    feed.reveal(half);
    running.settle();
    running.restart(tasks);
    feed.reveal(usize::MAX);
    running.finish();
    running.rows.rows().into_iter().map(|(row, weight)| format!("{} x{weight}", row.join("|"))).collect()
}

const RECORDS: [&str; 7] = [
    r#"{"id":1,"ts":"1970-01-01 00:00:01"}"#,
    r#"{"id":"x","ts":"1970-01-01 00:00:01"}"#,
    "nothing",
    r#"{"ts":"1970-01-01 00:00:01"}"#,
    r#"{"id":0,"ts":"1970-01-01 00:00:01"}"#,
    r#"{"id":2}"#,
    r#"{"id":3,"ts":"1970-01-01 00:00:02"}"#,
];

#[test]
fn records_that_are_no_rows_are_a_table() {
    let found = answer(&RECORDS, "SELECT `offset`, error, CHAR_LENGTH(CAST(record AS STRING)) AS n, topic, `partition` FROM t$errors", 2);
    let short: Vec<(&str, &str)> = found.iter().map(|row| row.split_once('|').unwrap()).collect();
    assert_eq!(short.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), ["1", "2", "3", "4", "5"], "{found:?}");
    for (offset, why) in ["\"x\" is no BIGINT", "not JSON", "NOT NULL", "ivide by zero", "the event time is NULL"].iter().enumerate() {
        assert!(short[offset].1.contains(why), "{why}: {found:?}");
    }
    assert!(short[1].1.ends_with("|7|t|0 x1"), "{found:?}");
    // Each record is a row of one of both.
    assert_eq!(answer(&RECORDS, "SELECT id FROM t WHERE twice > 0", 2), ["1 x1", "3 x1"]);
    assert_eq!(answer(&RECORDS, "SELECT COUNT(*) AS n FROM t$errors", 3), ["5 x1"]);
}

#[test]
fn rows_behind_the_watermark_are_a_table() {
    let records = [1, 10, 8, 9, 10, 12, 11, 3].map(|second| format!("{{\"id\":{second},\"ts\":\"1970-01-01 00:00:{second:02}\"}}"));
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    assert_eq!(answer(&records, "SELECT id FROM t$late", 1), ["11 x1", "3 x1", "8 x1", "9 x1"]);
    let sql = "SELECT id FROM t$late UNION ALL SELECT -id FROM t WHERE id > 11";
    assert_eq!(answer(&records, sql, 1), ["-12 x1", "11 x1", "3 x1", "8 x1", "9 x1"]);
}

#[test]
fn tables_that_leave_nothing_say_so() {
    let report = |sql: &str| {
        let mut session = Session::new(Arc::new(Feeds::default()));
        let ddl = "CREATE TABLE plain (id BIGINT) WITH ('connector' = 'topics', 'format' = 'json');
            CREATE TABLE out (id BIGINT) WITH ('connector' = 'print');
            CREATE TABLE u (id BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts, PRIMARY KEY (id) NOT ENFORCED) WITH ('connector' = 'upsert-kafka', 'topic' = 'u', 'format' = 'json', 'key.format' = 'json');";
        session.run("ddl.sql", ddl).unwrap();
        session.run("q.sql", sql).map_or_else(|e| e.report(), |_| "nothing is wrong".into())
    };
    for (sql, why) in [
        ("SELECT * FROM plain$late", "it has no WATERMARK"),
        ("SELECT * FROM out$errors", "only tables whose records are read"),
        ("SELECT * FROM u$late", "its rows change"),
        ("SELECT * FROM other$late", "table \"other$late\" not found"),
        ("SELECT * FROM plain$errors", "nothing is wrong"),
    ] {
        assert!(report(sql).contains(why), "{sql}\n{}", report(sql));
    }
}
