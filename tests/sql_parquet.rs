//! Parquet files as a user of SQL has them: written, read, with folders and without, killed in the middle, and refused.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::sql::{Place, rows_of, said};

/// Columns of every kind.
const COLUMNS: &str = "id BIGINT, flag BOOLEAN, tiny TINYINT, small SMALLINT, n INT, f FLOAT, d DOUBLE, price DECIMAL(10, 2), big DECIMAL(38, 4),
    name STRING, raw BYTES, day DATE, clock TIME, s TIMESTAMP(0), ms TIMESTAMP(3), us TIMESTAMP(6), ns TIMESTAMP(9), at TIMESTAMP_LTZ(3),
    r ROW<a INT, b ROW<c STRING, l ARRAY<INT>>>, l ARRAY<ROW<x DECIMAL(5, 1), y STRING>>, m MAP<STRING, BIGINT>, mm MAP<INT, ARRAY<STRING>>";

fn table(name: &str, columns: &str, path: &str, more: &str) -> String {
    format!("CREATE TABLE {name} ({columns}) WITH ('connector' = 'filesystem', 'path' = '{path}', 'format' = 'parquet'{more});")
}

/// Records of these columns, some with all of them, some with few.
fn records(count: usize) -> Vec<String> {
    let full = |i: usize| {
        format!(
            "{{\"id\":{i},\"flag\":{},\"tiny\":{},\"small\":{},\"n\":{},\"f\":{}.5,\"d\":{}.25,\"price\":-{i}.25,\"big\":1{:03}000000000000000000000000.1234,\
             \"name\":\"n{}\u{e9}\\u0000\",\"raw\":\"AAECA{}==\",\"day\":\"19{:02}-02-03\",\"clock\":\"23:59:{:02}\",\"s\":\"1969-12-31 23:59:{:02}\",\
             \"ms\":\"2026-01-01 00:00:00.{:03}\",\"us\":\"0001-01-01 00:00:00.000{:03}\",\"ns\":\"2026-01-01 00:00:00.000000{:03}\",\"at\":\"2026-01-01 00:00:{:02}.5Z\",\
             \"r\":{{\"a\":{i},\"b\":{{\"c\":null,\"l\":[{i},null]}}}},\"l\":[{{\"x\":{i}.5,\"y\":\"y\"}},null,{{\"y\":\"\"}}],\"m\":{{\"b\":{i},\"a\":null}},\
             \"mm\":{{\"{i}\":[\"p\",null],\"-1\":[]}}}}",
            i.is_multiple_of(2),
            i % 100,
            i * 3,
            i * 1000,
            i,
            i,
            i,
            i % 5,
            ["g", "Q", "w"][i / 3 % 3],
            i % 100,
            i % 60,
            i % 60,
            i % 1000,
            i % 1000,
            i % 1000,
            i % 60,
        )
    };
    let record = |i: usize| match i % 3 {
        0 => full(i),
        1 => format!("{{\"id\":{i},\"r\":{{\"b\":{{}}}},\"l\":[],\"m\":{{}},\"mm\":{{\"1\":null}}}}"),
        _ => format!("{{\"id\":{i},\"name\":\"\",\"r\":null}}"),
    };
    (0..count).map(record).collect()
}

fn json(place: &Place, script: &str) -> Vec<String> {
    let mut lines: Vec<String> = rows_of(place.sql(&["--until-end", "--output", "json", script])).lines().map(String::from).collect();
    lines.sort();
    lines
}

fn values(lines: &[String]) -> Vec<Value> {
    lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn json_becomes_parquet_and_is_read_back_as_it_was() {
    let place = Place::new();
    place.produce("all", &records(300));
    let source = format!("CREATE TABLE given ({COLUMNS}) WITH ('connector' = 'topics', 'topic' = 'all', 'format' = 'json');");
    let given = json(&place, &format!("{source} SELECT * FROM given"));
    assert_eq!(given.len(), 300);
    for (path, more) in [("snappy", ""), ("zstd", ", 'parquet.compression' = 'zstd'"), ("none", ", 'parquet.compression' = 'UNCOMPRESSED'")]
    {
        let files = table("files", COLUMNS, path, more);
        let script = place.folder.path().join(format!("{path}.sql"));
        std::fs::write(&script, format!("{source} {files} INSERT INTO files SELECT * FROM given;")).expect("is written");
        rows_of(place.sql(&["--until-end", "-f", script.to_str().expect("UTF-8"), "run"]));
        assert_eq!(json(&place, &format!("{files} SELECT * FROM files")), given, "{path}");
        // Few columns of nested ones, wider ones, and none at all.
        let some = table("some", "big DECIMAL(38, 4), n BIGINT, f DOUBLE, r ROW<b ROW<l ARRAY<BIGINT>>>, nothing STRING", path, "");
        let query = "SELECT n, f, r.b.l AS l, nothing FROM some WHERE big IS NOT NULL";
        let same = "SELECT CAST(n AS BIGINT) AS n, CAST(f AS DOUBLE) AS f, r.b.l AS l, CAST(NULL AS STRING) AS nothing FROM given WHERE big IS NOT NULL";
        assert_eq!(json(&place, &format!("{some} {query}")), json(&place, &format!("{source} {same}")));
        assert_eq!(json(&place, &format!("{files} SELECT COUNT(*) AS n FROM files")), ["{\"n\":300}"]);
    }
    let explained =
        rows_of(place.sql(&[&format!("{} EXPLAIN SELECT id, r.a FROM files WHERE n > 3", table("files", COLUMNS, "snappy", ""))]));
    assert!(explained.contains("rows of Parquet files") && explained.contains("reads 3 of 22 columns: id, n, r(a)"), "{explained}");
}

#[test]
fn files_are_tables_of_queries_with_time_metadata_and_lookups() {
    let place = Place::new();
    let payments: Vec<String> =
        (0..60).map(|i| format!("{{\"id\":{i},\"country\":\"{}\",\"at\":\"2026-01-01 00:00:{i:02}\"}}", ["DE", "FR"][i % 2])).collect();
    place.produce("payments", &payments);
    let columns = "id BIGINT, country STRING, at TIMESTAMP(3)";
    let given = format!("CREATE TABLE given ({columns}) WITH ('connector' = 'topics', 'topic' = 'payments', 'format' = 'json');");
    let folders = format!(
        "CREATE TABLE files ({columns}, WATERMARK FOR at AS at, file STRING METADATA FROM 'topic' VIRTUAL, place BIGINT METADATA FROM 'offset' VIRTUAL) PARTITIONED BY (country)
            WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'parquet');"
    );
    rows_of(place.sql(&["--until-end", "-e", &format!("{given} {folders} INSERT INTO files SELECT id, country, at FROM given")]));
    assert!(place.folder.path().join("out/country=DE").is_dir());
    let windows = "SELECT country, window_end, COUNT(*) AS n, SUM(id) AS ids FROM TABLE(TUMBLE(TABLE files, DESCRIPTOR(at), INTERVAL '20' SECOND)) GROUP BY country, window_start, window_end";
    let found = values(&json(&place, &format!("{folders} {windows}")));
    assert_eq!(found.len(), 6);
    assert!(found.iter().all(|row| row["n"] == 10), "{found:?}");
    let places = values(&json(&place, &format!("{folders} SELECT file, place, country FROM files")));
    let of = |country: &str| {
        let mut places: Vec<i64> =
            places.iter().filter(|row| row["country"] == *country).map(|row| row["place"].as_i64().expect("a number")).collect();
        places.sort_unstable();
        places
    };
    assert_eq!(of("DE"), (0..30).collect::<Vec<_>>());
    assert!(places.iter().all(|row| row["file"].as_str().expect("a text").starts_with("country=")), "{places:?}");
    // As the other side of a lookup.
    let names: Vec<String> = ["{\"code\":\"DE\",\"name\":\"Germany\"}", "{\"code\":\"XX\",\"name\":null}"].map(String::from).to_vec();
    place.produce("names", &names);
    let lookup = table("lookup", "code STRING, name STRING NOT NULL", "names", ", 'error-policy' = 'drop'");
    let fill = "CREATE TABLE n (code STRING, name STRING) WITH ('connector' = 'topics', 'topic' = 'names', 'format' = 'json');";
    rows_of(place.sql(&["--until-end", "-e", &format!("{fill} {lookup} INSERT INTO lookup SELECT code, name FROM n")]));
    let join = "SELECT p.id, l.name FROM (SELECT *, PROCTIME() AS now FROM given) AS p LEFT JOIN lookup FOR SYSTEM_TIME AS OF p.now AS l ON p.country = l.code";
    let joined = json(&place, &format!("{given} {lookup} {join}"));
    assert_eq!((joined.len(), joined.iter().filter(|row| row.contains("\"Germany\"")).count()), (60, 30), "{joined:?}");
    // A row that is none, as the table has it.
    let strict = table("strict", "code STRING, name STRING NOT NULL", "names", "");
    let errors = values(&json(&place, &format!("{strict} SELECT error, CAST(record AS STRING) AS record, `offset` FROM `strict$errors`")));
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0]["error"], "column name is NOT NULL and has no value");
    assert_eq!(errors[0]["record"], "{\"code\":\"XX\",\"name\":null}");
    let failed = place.sql(&["--until-end", &format!("{strict} SELECT * FROM strict")]).output().expect("starts");
    assert!(said(&failed).contains("column name is NOT NULL and has no value"), "{}", said(&failed));
}

#[test]
fn what_does_not_fit_is_said_with_column_file_and_types() {
    let place = Place::new();
    place.produce("ids", &["{\"id\":1,\"name\":\"x\"}".to_string()]);
    let ids = "CREATE TABLE ids (id BIGINT, name STRING) WITH ('connector' = 'topics', 'topic' = 'ids', 'format' = 'json');";
    let files = table("files", "id BIGINT, name STRING", "out", "");
    rows_of(place.sql(&["--until-end", "-e", &format!("{ids} {files} INSERT INTO files SELECT * FROM ids")]));
    let refused = |columns: &str, more: &str, query: &str| {
        let output = place.sql(&["--until-end", &format!("{} {query}", table("t", columns, "out", more))]).output().expect("starts");
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        said(&output)
    };
    let why = refused("id INT, name STRING", "", "SELECT id FROM t");
    assert!(why.contains("column \"id\" is BIGINT in the file and INT in the table") && why.contains("out/part-"), "{why}");
    assert!(why.contains("help: declare it  id BIGINT"), "{why}");
    // Columns that are not read may be what they are.
    assert_eq!(json(&place, &format!("{} SELECT name FROM t", table("t", "id INT, name STRING", "out", ""))), ["{\"name\":\"x\"}"]);
    let why = refused("id BIGINT, other INT NOT NULL", "", "SELECT id FROM t");
    assert!(why.contains("the file has no column \"other\", which is NOT NULL"), "{why}");
    let why = refused("id BIGINT", ", 'parquet.compression' = 'LZO'", "SELECT id FROM t");
    assert!(why.contains("'parquet.compression' is SNAPPY or ZSTD or UNCOMPRESSED, not 'LZO'"), "{why}");
    std::fs::write(place.folder.path().join("out/broken.parquet"), "no Parquet").expect("is written");
    let why = refused("id BIGINT", "", "SELECT id FROM t");
    assert!(why.contains("broken.parquet") && why.contains("it does not end with a footer"), "{why}");
}

/// Visible Parquet files below a folder.
fn files_below(folder: &Path) -> usize {
    let below = |path: std::path::PathBuf| match path.is_dir() {
        true => files_below(&path),
        false => {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            usize::from(name.ends_with(".parquet") && !name.starts_with('.'))
        }
    };
    std::fs::read_dir(folder).into_iter().flatten().map(|entry| below(entry.expect("an entry").path())).sum()
}

/// From files into folders, killed again and again while files come: every row is there once, and what is seen is whole.
#[test]
fn from_parquet_to_parquet_every_row_is_there_once_when_the_job_is_killed() {
    let place = Place::new();
    let input = "CREATE TABLE input (id BIGINT, part INT, at TIMESTAMP(3), WATERMARK FOR at AS at)
        WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'parquet', 'source.monitor-interval' = '20 ms');";
    let output = "CREATE TABLE output (id BIGINT, at TIMESTAMP(3), part INT) PARTITIONED BY (part)
        WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'parquet', 'sink.rolling-policy.file-size' = '20kb',
            'sink.partition-commit.policy.kind' = 'success-file', 'sink.partition-commit.delay' = '1 s');";
    // The rows come in three times, as files of a query each.
    let fill = |from: usize| {
        let made = "CREATE TABLE made (id BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '20000', 'rows-per-second' = '1000000',
            'fields.id.kind' = 'sequence', 'fields.id.start' = '0');";
        let insert = format!(
            "INSERT INTO input SELECT id + {from}, CAST(MOD(id, 3) AS INT), TO_TIMESTAMP(FROM_UNIXTIME((id + {from}) / 1000)) FROM made"
        );
        rows_of(place.sql(&["-e", &format!("{made} {input} {insert}")]));
    };
    std::fs::create_dir_all(place.folder.path().join("in")).expect("is made");
    let script = place.folder.path().join("copy.sql");
    std::fs::write(&script, format!("{input} {output} INSERT INTO output SELECT id, at, part FROM input;")).expect("is written");
    let out = place.folder.path().join("out");
    let count = |before: bool| {
        if before && files_below(&out) == 0 {
            return 0;
        }
        let query = format!("{output} SELECT COUNT(*) AS n, COUNT(DISTINCT id) AS ids, SUM(id) AS total FROM output");
        let found = values(&json(&place, &query));
        // Whatever is seen in the middle is seen once.
        assert_eq!(found[0]["n"], found[0]["ids"], "{found:?}");
        found[0]["n"].as_u64().expect("a number")
    };
    for round in 0..3 {
        fill(round * 20_000);
        let last = round == 2;
        let tasks = (1 + round % 2).to_string();
        let file = script.to_str().expect("UTF-8");
        let mut job = place.sql(&["-f", file, "run", "--json", "--checkpoint-interval", "30ms", "--parallelism", &tasks]);
        let mut job = job.stdout(std::process::Stdio::null()).spawn().expect("starts");
        let begun = Instant::now();
        if last {
            while count(true) < 60_000 || (0..3).any(|part| !out.join(format!("part={part}/_SUCCESS")).exists()) {
                assert!(begun.elapsed() < Duration::from_secs(60), "{} rows are there", count(true));
                std::thread::sleep(Duration::from_millis(50));
            }
        } else {
            let before = files_below(&out);
            while files_below(&out) <= before {
                assert!(begun.elapsed() < Duration::from_secs(60), "no file comes");
                std::thread::sleep(Duration::from_millis(3));
            }
        }
        job.kill().expect("is killed");
        job.wait().expect("ends");
    }
    assert_eq!(count(false), 60_000);
    let found = values(&json(&place, &format!("{output} SELECT part, COUNT(*) AS n, SUM(id) AS total FROM output GROUP BY part")));
    assert_eq!(found.iter().map(|row| row["total"].as_u64().expect("a number")).sum::<u64>(), (0..60_000u64).sum::<u64>());
}
