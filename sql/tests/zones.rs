//! `SET 'table.local-time-zone'`: instants on a zone's clock, against what Flink gives.

use super::world::{Feed, Feeds, Running};
use crate::session::Session;
use std::collections::BTreeMap;
use std::sync::Arc;

const DDL: &str = "CREATE TABLE t (l TIMESTAMP_LTZ(3), n TIMESTAMP(3), s STRING, hour_of AS HOUR(l), WATERMARK FOR l AS l)
    WITH ('connector' = 'topics', 'format' = 'json');";

fn feeds(records: &[&str]) -> (Arc<Feed>, Feeds) {
    let feed = Feed::new("t", vec![records.iter().map(|r| (*r).to_string()).collect()], 3);
    (feed.clone(), Feeds(BTreeMap::from([("t".to_string(), feed)])))
}

/// The rows of a query, each as text.
fn rows(zone: &str, sql: &str, records: &[&str]) -> Vec<String> {
    let (feed, feeds) = feeds(records);
    let mut running = Running::start(&feeds, &format!("SET 'table.local-time-zone' = '{zone}';\n{DDL}\n{sql}"), 3, 1);
    feed.reveal(usize::MAX);
    running.finish();
    running.rows.rows().into_keys().map(|cells| cells.join(" | ")).collect()
}

/// One value of one row.
fn value(zone: &str, expr: &str) -> String {
    let record = r#"{"l":"2024-07-01 22:30:15.250Z","n":"2024-07-01 22:30:15.250","s":"2024-03-31 02:30:00"}"#;
    rows(zone, &format!("SELECT {expr} AS v FROM t"), &[record]).remove(0)
}

#[test]
fn instants_become_local_where_somebody_looks_at_the_clock() {
    for (expr, utc, berlin) in [
        ("CAST(l AS STRING)", "2024-07-01 22:30:15.250", "2024-07-02 00:30:15.250"),
        ("CAST(l AS TIMESTAMP(3))", "2024-07-01 22:30:15.25", "2024-07-02 00:30:15.25"),
        ("CAST(l AS DATE)", "2024-07-01", "2024-07-02"),
        ("CAST(CAST(l AS TIME) AS STRING)", "22:30:15", "00:30:15"),
        ("CAST(CAST(l AS TIME(3)) AS STRING)", "22:30:15.250", "00:30:15.250"),
        ("DATE_FORMAT(l, 'yyyy-MM-dd HH:mm')", "2024-07-01 22:30", "2024-07-02 00:30"),
        ("HOUR(l)", "22", "0"),
        ("EXTRACT(DAY FROM l)", "1", "2"),
        ("hour_of", "22", "0"),
        ("CAST(FLOOR(l TO DAY) AS STRING)", "2024-07-01 00:00:00.000", "2024-07-02 00:00:00.000"),
        ("FROM_UNIXTIME(1719873015)", "2024-07-01 22:30:15", "2024-07-02 00:30:15"),
        ("FROM_UNIXTIME(1719873015, 'HH')", "22", "00"),
        // What is an instant stays one.
        ("l", "2024-07-01 22:30:15.25Z", "2024-07-01 22:30:15.25Z"),
        ("FLOOR(l TO DAY)", "2024-07-01 00:00:00Z", "2024-07-01 22:00:00Z"),
        ("l + INTERVAL '1' HOUR", "2024-07-01 23:30:15.25Z", "2024-07-01 23:30:15.25Z"),
        // What is on a clock stays there.
        ("n", "2024-07-01 22:30:15.25", "2024-07-01 22:30:15.25"),
        ("CAST(n AS STRING)", "2024-07-01 22:30:15.250", "2024-07-01 22:30:15.250"),
        ("'at ' || CAST(FLOOR(n TO HOUR) AS STRING)", "at 2024-07-01 22:00:00.000", "at 2024-07-01 22:00:00.000"),
        ("HOUR(n)", "22", "22"),
        ("DATE_FORMAT(n, 'HH')", "22", "22"),
        // And the other way.
        ("CAST(n AS TIMESTAMP_LTZ(3))", "2024-07-01 22:30:15.25Z", "2024-07-01 20:30:15.25Z"),
        ("CAST('2024-01-01 12:00:00' AS TIMESTAMP_LTZ(3))", "2024-01-01 12:00:00Z", "2024-01-01 11:00:00Z"),
        ("CAST('2024-01-01 12:00:00.123456' AS TIMESTAMP_LTZ(6))", "2024-01-01 12:00:00.123456Z", "2024-01-01 11:00:00.123456Z"),
        (
            "CAST(CAST('2024-01-01 12:00:00.123456' AS TIMESTAMP_LTZ(6)) AS STRING)",
            "2024-01-01 12:00:00.123456",
            "2024-01-01 12:00:00.123456",
        ),
        (
            "CAST(ROW(l, n) AS STRING)",
            "(2024-07-01 22:30:15.250, 2024-07-01 22:30:15.250)",
            "(2024-07-02 00:30:15.250, 2024-07-01 22:30:15.250)",
        ),
        ("CAST(ARRAY[n] AS ARRAY<TIMESTAMP_LTZ(3)>)[1]", "2024-07-01 22:30:15.25Z", "2024-07-01 20:30:15.25Z"),
        ("CAST(s AS TIMESTAMP_LTZ(3))", "2024-03-31 02:30:00Z", "2024-03-31 01:30:00Z"),
        ("UNIX_TIMESTAMP('2024-01-01 12:00:00')", "1704110400", "1704106800"),
        ("l > n", "false", "true"),
        ("l = CAST(n AS TIMESTAMP_LTZ(3))", "true", "false"),
        ("CASE WHEN l BETWEEN TIMESTAMP '2024-07-02 00:00:00' AND TIMESTAMP '2024-07-03 00:00:00' THEN 'in' ELSE 'out' END", "out", "in"),
    ] {
        let got = ["UTC", "GMT+00:00", "Europe/Berlin"].map(|zone| value(zone, expr));
        assert_eq!(got, [utc, utc, berlin], "{expr}");
    }
}

const RECORDS: [&str; 4] = [
    r#"{"l":"2024-01-01 10:10:00Z"}"#,
    r#"{"l":"2024-01-01 10:40:00Z"}"#,
    r#"{"l":"2024-01-01 17:05:00Z"}"#,
    r#"{"l":"2024-01-01 23:59:00Z"}"#,
];

#[test]
fn windows_have_their_bounds_on_the_zones_clock() {
    let counted = |zone: &str, window: &str| {
        let sql = format!("SELECT window_start, window_end, COUNT(*) FROM TABLE({window}) GROUP BY window_start, window_end");
        rows(zone, &sql, &RECORDS)
    };
    let hour = "TUMBLE(TABLE t, DESCRIPTOR(l), INTERVAL '1' HOUR)";
    let day = "TUMBLE(TABLE t, DESCRIPTOR(l), INTERVAL '1' DAY)";
    let row = |from: &str, to: &str, n: i64| format!("2024-01-{from}:00 | 2024-01-{to}:00 | {n}");
    assert_eq!(
        counted("Europe/Berlin", hour),
        [row("01 11:00", "01 12:00", 2), row("01 18:00", "01 19:00", 1), row("02 00:00", "02 01:00", 1)]
    );
    // Half an hour beside UTC, windows are too.
    assert_eq!(
        counted("Asia/Kolkata", hour),
        [row("01 15:00", "01 16:00", 1), row("01 16:00", "01 17:00", 1), row("01 22:00", "01 23:00", 1), row("02 05:00", "02 06:00", 1)]
    );
    assert_eq!(counted("Asia/Shanghai", day).len(), 2, "{:?}", counted("Asia/Shanghai", day));
    assert_eq!(counted("GMT+08:00", day), [row("01 00:00", "02 00:00", 2), row("02 00:00", "03 00:00", 2)]);
    let sessions = "SELECT CAST(window_start AS STRING) AS a, COUNT(*) FROM TABLE(SESSION(TABLE t PARTITION BY s, DESCRIPTOR(l), INTERVAL '1' HOUR)) GROUP BY s, window_start, window_end";
    assert_eq!(rows("GMT+01:00", sessions, &RECORDS)[0], "2024-01-01 11:10:00.000 | 2");
    // Every row with its window.
    let spread = format!("SELECT window_start, l FROM TABLE({hour}) WHERE window_start < TIMESTAMP '2024-01-01 12:00:00'");
    assert_eq!(rows("Europe/Berlin", &spread, &RECORDS)[0], "2024-01-01 11:00:00 | 2024-01-01 10:10:00Z");
    // Windows of windows.
    let twice = format!(
        "WITH h AS (SELECT window_time AS rt, COUNT(*) AS n FROM TABLE({hour}) GROUP BY window_start, window_end, window_time)
         SELECT window_start, SUM(n) FROM TABLE(TUMBLE(TABLE h, DESCRIPTOR(rt), INTERVAL '1' DAY)) GROUP BY window_start, window_end"
    );
    assert_eq!(rows("GMT+08:00", &twice, &RECORDS), ["2024-01-01 00:00:00 | 2", "2024-01-02 00:00:00 | 2"]);
}

/// Days of 23, 24 and 25 hours: a window is what the zone's clock shows.
#[test]
fn windows_are_as_long_as_the_zones_clock_makes_them() {
    let records = [
        r#"{"l":"2024-03-30 22:59:00Z"}"#,
        r#"{"l":"2024-03-30 23:00:00Z"}"#,
        r#"{"l":"2024-03-31 21:59:00Z"}"#,
        r#"{"l":"2024-03-31 22:00:00Z"}"#,
        r#"{"l":"2024-10-26 22:00:00Z"}"#,
        r#"{"l":"2024-10-27 00:30:00Z"}"#,
        r#"{"l":"2024-10-27 01:30:00Z"}"#,
        r#"{"l":"2024-10-27 22:59:00Z"}"#,
        r#"{"l":"2024-10-27 23:00:00Z"}"#,
    ];
    let counted = |window: &str, columns: &str| {
        let sql = format!("SELECT {columns}, COUNT(*) FROM TABLE({window}) GROUP BY window_start, window_end, window_time");
        rows("Europe/Berlin", &sql, &records)
    };
    let day = "TUMBLE(TABLE t, DESCRIPTOR(l), INTERVAL '1' DAY)";
    assert_eq!(
        counted(day, "window_start, window_time"),
        [
            "2024-03-30 00:00:00 | 2024-03-30 22:59:59.999Z | 1",
            "2024-03-31 00:00:00 | 2024-03-31 21:59:59.999Z | 2",
            "2024-04-01 00:00:00 | 2024-04-01 21:59:59.999Z | 1",
            "2024-10-27 00:00:00 | 2024-10-27 22:59:59.999Z | 4",
            "2024-10-28 00:00:00 | 2024-10-28 22:59:59.999Z | 1",
        ]
    );
    let twice = "HOP(TABLE t, DESCRIPTOR(l), INTERVAL '12' HOUR, INTERVAL '1' DAY)";
    assert!(counted(twice, "window_start, window_end").contains(&"2024-10-26 12:00:00 | 2024-10-27 12:00:00 | 3".to_string()));
    let growing = "CUMULATE(TABLE t, DESCRIPTOR(l), INTERVAL '12' HOUR, INTERVAL '1' DAY)";
    let growing = counted(growing, "window_start, window_end");
    assert!(growing.contains(&"2024-10-27 00:00:00 | 2024-10-27 12:00:00 | 3".to_string()), "{growing:?}");
    assert!(growing.contains(&"2024-10-27 00:00:00 | 2024-10-28 00:00:00 | 4".to_string()), "{growing:?}");
    // The first rows of a day, and days of aggregates.
    let first = format!(
        "SELECT window_start, l FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY l DESC) AS rn FROM TABLE({day})) AS q WHERE rn = 1"
    );
    let first = rows("Europe/Berlin", &first, &records);
    assert!(first.contains(&"2024-10-27 00:00:00 | 2024-10-27 22:59:00Z".to_string()), "{first:?}");
    let of_hours = "WITH h AS (SELECT window_time AS rt, COUNT(*) AS n FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(l), INTERVAL '1' HOUR)) GROUP BY window_start, window_end, window_time)
         SELECT window_start, SUM(n) FROM TABLE(TUMBLE(TABLE h, DESCRIPTOR(rt), INTERVAL '1' DAY)) GROUP BY window_start, window_end";
    let of_hours = rows("Europe/Berlin", of_hours, &records);
    assert!(of_hours.contains(&"2024-10-27 00:00:00 | 4".to_string()), "{of_hours:?}");
}

/// Days of the zone's clock over the time at which rows come: whatever day it is, they are cut at its midnights.
#[test]
fn windows_of_the_clock_are_as_long_as_the_zone_makes_them() {
    let day = "SELECT window_start, window_end, COUNT(*) AS n, FLOOR(window_start TO DAY) = window_start AS at_midnight
        FROM TABLE(TUMBLE(TABLE q, DESCRIPTOR(p), INTERVAL '1' DAY)) GROUP BY window_start, window_end";
    let with = "WITH q AS (SELECT *, PROCTIME() AS p FROM t)";
    let counted = rows("Europe/Berlin", &format!("{with} SELECT at_midnight, SUM(n) FROM ({day}) AS d GROUP BY at_midnight"), &RECORDS);
    assert_eq!(counted, ["true | 4"]);
    let growing = "SELECT window_start, COUNT(*) FROM TABLE(CUMULATE(TABLE q, DESCRIPTOR(p), INTERVAL '12' HOUR, INTERVAL '1' DAY)) GROUP BY window_start, window_end";
    let growing = rows("Europe/Berlin", &format!("{with} {growing}"), &RECORDS);
    assert!(!growing.is_empty() && growing.iter().all(|row| row.contains(" 00:00:00 | ")), "{growing:?}");
}

#[test]
fn zones_that_nobody_knows_are_refused() {
    let report = |zone: &str| {
        let mut session = Session::new(Arc::new(feeds(&[]).1));
        let text = format!("SET 'table.local-time-zone' = '{zone}';\n{DDL}\nEXPLAIN SELECT l FROM t");
        session.run("test.sql", &text).map(|_| String::new()).unwrap_or_else(|e| e.report())
    };
    assert_eq!(report("Asia/Tokyo"), "");
    assert!(report("Europe/Berln").contains("did you mean \"Europe/Berlin\"?"), "{}", report("Europe/Berln"));
}
