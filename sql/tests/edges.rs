//! Edges: batches around the sizes at which something is cut, and decimals of all the digits there are. Against DataFusion, or by hand where
//! it has no exact result.

use super::oracle::batch;
use super::world::{Feed, Feeds, Running};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use std::collections::BTreeMap;
use std::sync::Arc;

/// All rows of a query over records of one split, read so many at a time.
fn answer(ddl: &str, sql: &str, records: &[String], size: usize, tasks: u32) -> BTreeMap<Vec<String>, i64> {
    let feed = Feed::new("t", vec![records.to_vec()], size);
    let feeds = Feeds(BTreeMap::from([("t".to_string(), feed.clone())]));
    let mut running = Running::start(&feeds, &format!("{ddl}\n{sql}"), 5, tasks);
    feed.reveal(usize::MAX);
    running.finish();
    running.rows.rows()
}

fn column(name: &str, kind: DataType) -> Field {
    Field::new(name, kind, true)
}

#[test]
fn batches_of_any_size_give_the_same() {
    let ddl = "CREATE TABLE t (id BIGINT, k INT, s STRING, a ARRAY<INT>, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
        WITH ('connector' = 'topics', 'format' = 'json');";
    let schema: SchemaRef = Arc::new(Schema::new(vec![
        column("id", DataType::Int64),
        column("k", DataType::Int32),
        column("s", DataType::Utf8),
        column("a", DataType::new_list(DataType::Int32, true)),
        column("ts", DataType::Timestamp(TimeUnit::Millisecond, None)),
    ]));
    let record = |id: usize| {
        let text = if id.is_multiple_of(5) { "null".to_string() } else { format!("\"{}\"", "x".repeat(id % 40)) };
        let list = if id.is_multiple_of(7) { "null".to_string() } else { format!("[{id},null]") };
        format!("{{\"id\":{id},\"k\":{},\"s\":{text},\"a\":{list},\"ts\":\"2026-01-01 00:00:{:02}\"}}", id % 3, id * 60 / 9000)
    };
    let records: Vec<String> = (0..9000).map(record).collect();
    for sql in [
        "SELECT id, s, a, k + 1 AS n FROM t WHERE k <> 1",
        "SELECT k, COUNT(*) AS n, COUNT(s) AS m, MAX(CHAR_LENGTH(s)) AS l, SUM(id) AS x FROM t GROUP BY k",
    ] {
        let expected = batch(&[("t", schema.clone(), records.clone())], sql);
        for size in [1, 1023, 1024, 1025, 8192] {
            assert_eq!(answer(ddl, sql, &records, size, 2), expected, "{sql}, {size} records at a time");
        }
    }
}

#[test]
fn decimals_have_all_their_digits() {
    const MOST: &str = "99999999999999999999999999999999999999";
    let ddl = "CREATE TABLE t (k INT, d DECIMAL(38, 0), e DECIMAL(38, 18)) WITH ('connector' = 'topics', 'format' = 'json');";
    let row = |k: i32, d: &str, e: &str| format!("{{\"k\":{k},\"d\":{d},\"e\":{e}}}");
    let records = [
        row(1, MOST, "12345678901234567890.123456789012345678"),
        row(1, &format!("-{MOST}"), "-0.000000000000000001"),
        row(1, "7", "null"),
        row(2, MOST, "99999999999999999999.999999999999999999"),
        row(2, "-1", "0.5"),
        row(3, "null", "null"),
    ];
    let rows = |sql: &str| -> Vec<String> {
        let found = answer(ddl, sql, &records, 2, 2);
        found.into_iter().map(|(row, weight)| format!("{} x{weight}", row.join("|"))).collect()
    };
    assert_eq!(
        rows("SELECT k, SUM(d) AS s, MIN(d) AS lo, MAX(d) AS hi, COUNT(DISTINCT d) AS n FROM t GROUP BY k"),
        [format!("1|7|-{MOST}|{MOST}|3 x1"), format!("2|{}8|-1|{MOST}|2 x1", &MOST[1..]), "3|NULL|NULL|NULL|0 x1".to_string(),]
    );
    assert_eq!(
        rows("SELECT k, MIN(e) AS lo, MAX(e) AS hi FROM t GROUP BY k"),
        [
            "1|-0.000000000000000001|12345678901234567890.123456789012345678 x1",
            "2|0.500000000000000000|99999999999999999999.999999999999999999 x1",
            "3|NULL|NULL x1"
        ]
    );
    // More digits than there are: no number is made up.
    assert_eq!(rows("SELECT COUNT(*) AS n FROM (SELECT SUM(d) AS s FROM t WHERE d > 0 OR k = 3) AS q WHERE s IS NULL"), ["1 x1"]);
    assert_eq!(rows("SELECT SUM(e) AS s FROM t WHERE k = 2 AND e < 1"), ["0.500000000000000000 x1"]);
}
