//! What a person sees of a statement that is wrong: one style, with the place, and what to write instead.

use crate::connect::NoConnectors;
use crate::session::{Outcome, Session};
use std::sync::Arc;
use waterwheel_engine::graph::{LogicalGraph, SinkRef};

const TABLES: &str = "CREATE TABLE payments (id BIGINT, country STRING, amount DECIMAL(10, 2), at TIMESTAMP(3), WATERMARK FOR at AS at) WITH ('connector' = 'topics', 'format' = 'json');
CREATE TABLE plain (id BIGINT, at TIMESTAMP(3)) WITH ('connector' = 'topics', 'format' = 'json');
CREATE TABLE nested (id BIGINT, r ROW<x INT>) WITH ('connector' = 'topics', 'format' = 'json');
CREATE TABLE lists (id BIGINT, a ARRAY<INT>) WITH ('connector' = 'topics', 'format' = 'json');
CREATE TABLE rates (id BIGINT, rate DECIMAL(10, 2), at TIMESTAMP(3), WATERMARK FOR at AS at, PRIMARY KEY (id) NOT ENFORCED) WITH ('connector' = 'topics', 'format' = 'json');
CREATE TABLE sums (country STRING, total DECIMAL(20, 2)) WITH ('connector' = 'topics', 'format' = 'json');
";

/// The report of what goes wrong with a statement.
fn report(sql: &str) -> String {
    let mut session = Session::new(Arc::new(super::world::Feeds::default()));
    super::own_functions::register(&mut session);
    session.run("tables.sql", TABLES).unwrap();
    let outcomes = match session.run("job.sql", sql) {
        Ok(outcomes) => outcomes,
        Err(e) => return e.report(),
    };
    // Lowering refuses more; sources are not needed for it.
    let Some(Outcome::Query(planned) | Outcome::Insert(planned)) = outcomes.into_iter().last() else { return "nothing is wrong".into() };
    let mut graph = LogicalGraph::new("test");
    match planned.draw(&mut graph, &Anything, Some(SinkRef::Ready(Arc::new(crate::nowhere::Nowhere)))) {
        Err(e) => e.into_error("job.sql", sql).report(),
        Ok(_) => "nothing is wrong".into(),
    }
}

/// Connects everything to nothing.
struct Anything;

impl crate::connect::Connectors for Anything {
    fn source(
        &self,
        _: &crate::catalog::Table,
        _: &arrow::datatypes::SchemaRef,
    ) -> waterwheel_engine::error::Result<waterwheel_engine::graph::SourceFactory> {
        Ok(Box::new(|_| Err(waterwheel_engine::error::Error::fatal("not to be run"))))
    }
    fn sink(&self, _: &crate::catalog::Table) -> waterwheel_engine::error::Result<SinkRef> {
        Ok(SinkRef::Ready(Arc::new(crate::nowhere::Nowhere)))
    }
    fn infer(&self, name: &str) -> waterwheel_engine::error::Result<Option<crate::catalog::Table>> {
        NoConnectors.infer(name)
    }
    fn names(&self) -> waterwheel_engine::error::Result<Vec<String>> {
        Ok(Vec::new())
    }
}

#[test]
fn statements_that_are_wrong() {
    let statements = [
        "SELECT sum(amout) FROM payments",
        "SELECT country\nFROM paymens",
        "SELECT cuont(*) FROM payments",
        "SELEC 1",
        "SELECT country FROM payments WHERE",
        "SELECT country + 1 FROM payments WHERE amount > 'x' AND",
        "SELECT p.id FROM payments AS p JOIN plain AS q ON p.id < q.id",
        "SELECT p.id FROM payments AS p, plain AS q",
        "SELECT id FROM payments WHERE amount > 3 OR EXISTS (SELECT 1 FROM plain WHERE plain.id > payments.id)",
        "SELECT id FROM payments WHERE id = ANY (ARRAY[1])",
        "SELECT id FROM payments EXCEPT ALL SELECT country FROM payments",
        "SELECT MAX(r) FROM nested",
        "SELECT n.id, m.id FROM nested AS n JOIN nested AS m ON n.r = m.r",
        "SELECT id, x FROM nested CROSS JOIN UNNEST(r) AS u (x)",
        "SELECT id, x FROM lists CROSS JOIN UNNEST(a) AS u (x, y)",
        "SELECT id, x FROM lists LEFT JOIN UNNEST(a) AS u (x) ON u.x > 1",
        "SELECT id, x FROM lists CROSS JOIN UNNEST(b) AS u (x)",
        "SELECT id, x FROM lists CROSS JOIN UNNEST(a, a) AS u (x, y)",
        "SELECT country, GROUPING(id) FROM payments GROUP BY ROLLUP (country)",
        "SELECT window_start, MAX(window_end) FROM TABLE(TUMBLE(TABLE payments, DESCRIPTOR(at), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end, ROLLUP (country)",
        "SELECT p.id FROM payments AS p JOIN nested AS n ON p.id = n.r",
        "SELECT p.id, r.rate FROM payments AS p JOIN rates FOR SYSTEM_TIME AS OF p.at AS r ON p.amount = r.rate",
        "SELECT q.id, r.rate FROM plain AS q JOIN rates FOR SYSTEM_TIME AS OF q.at AS r ON q.id = r.id",
        "SELECT p.id FROM payments AS p JOIN plain FOR SYSTEM_TIME AS OF p.at AS q ON p.id = q.id",
        "SELECT p.id FROM payments AS p JOIN rates FOR SYSTEM_TIME AS OF p.att AS r ON p.id = r.id",
        "SELECT p.id FROM payments AS p RIGHT JOIN rates FOR SYSTEM_TIME AS OF p.at AS r ON p.id = r.id",
        "SELECT p.id FROM payments AS p JOIN rates FOR SYSTEM_TIME AS OF p.at - INTERVAL '1' HOUR AS r ON p.id = r.id",
        "SELECT id FROM payments ORDER BY id LIMIT id",
        "SELECT window_start, COUNT(*) FROM TABLE(TUMBLE(TABLE plain, DESCRIPTOR(at), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end",
        "SELECT id, window_start FROM TABLE(SESSION(TABLE payments PARTITION BY country, DESCRIPTOR(at), INTERVAL '1' MINUTE))",
        "INSERT INTO sums SELECT country, SUM(amount) FROM payments GROUP BY country",
        "INSERT INTO sums SELECT country FROM payments",
        "INSERT INTO sums SELECT id, amount FROM payments",
        "INSERT INTO nowhere SELECT id FROM payments",
        "SELECT id FROM payments FOR SYSTEM_TIME AS OF at",
        "CREATE TABLE x (a INT) WITH ('connector' = 'kafak')",
        "CREATE TABLE x (a INT) WITH ('connector' = 'kafka', 'topik' = 't')",
        "CREATE TABLE x (a INTT) WITH ('connector' = 'print')",
        "CREATE TABLE x (a INT, WATERMARK FOR a AS a) WITH ('connector' = 'print')",
        "CREATE TABLE x (a INT, PRIMARY KEY (b) NOT ENFORCED) WITH ('connector' = 'print')",
        "CREATE TABLE payments (a INT) WITH ('connector' = 'print')",
        "SELECT id FROM payments /*+ OPTIONS('scan.startup.mod' = 'latest-offset') */",
        "SELECT id FROM payments /*+ OPTIONS('connector' = 'kafka') */ AS p",
        "SELECT id /*+ OPTIONS('scan.startup.mode' = 'latest-offset') */ FROM payments",
        "SELECT /*+ STATE_TTL('p' = '1 d') */ id FROM payments AS p",
        "SELECT /*+ BRODCAST(p) */ id FROM payments AS p",
        "SELECT id FROM payments /*+ OPTIONS('a' 'b') */",
        "CREATE VIEW v AS SELECT id FROM payments /*+ OPTIONS('scan.startup.mode' = 'latest-offset') */",
        "SET 'paralelism.default' = '2'",
        "SET 'table.exec.state.ttl' = 'soon'",
        "SET 'execution.checkpointing.interval' = '10 minits'",
        "SET 'execution.checkpointing.interval' = '0 s'",
        "SELECT MEDIAN(amount) FROM payments",
        "SELECT SUM(amount) OVER (PARTITION BY country ORDER BY at ROWS BETWEEN CURRENT ROW AND 1 FOLLOWING) AS s FROM payments",
        "SELECT LAG(amount, -1) OVER (PARTITION BY country ORDER BY at) AS before FROM payments",
        "SELECT LEAD(id) OVER (ORDER BY at) AS a, LEAD(id, 2) OVER (ORDER BY at) AS b FROM payments",
        "SELECT SUM(id) OVER (PARTITION BY country ORDER BY id RANGE BETWEEN 2 PRECEDING AND CURRENT ROW) AS s FROM payments",
        "SELECT NTILE(4) OVER (ORDER BY at) AS n FROM payments",
        "SELECT PROCTIME() AS p FROM payments",
        "SELECT p.id FROM (SELECT *, PROCTIME() AS now FROM payments) AS p JOIN rates FOR SYSTEM_TIME AS OF p.now AS r ON p.id = r.id",
        "SELECT * FROM payments MATCH_RECOGNIZE (ORDER BY at MEASURES A.id AS id PATTERN (A B*) DEFINE B AS B.id > A.id)",
        "SELECT * FROM payments MATCH_RECOGNIZE (ORDER BY at MEASURES A.id AS id PATTERN (A (B | C) D) DEFINE B AS B.id > A.id)",
        "SELECT * FROM payments MATCH_RECOGNIZE (ORDER BY at MEASURES A.id AS id PATTERN (A (B C)+ D) DEFINE B AS B.id > A.id)",
        "SELECT * FROM payments MATCH_RECOGNIZE (ORDER BY at MEASURES A.id AS id PATTERN (A B) DEFINE BB AS BB.id > A.id)",
        "SELECT * FROM payments MATCH_RECOGNIZE (ORDER BY id MEASURES A.id AS id PATTERN (A B) DEFINE B AS B.id > A.id)",
        "SELECT * FROM payments MATCH_RECOGNIZE (ORDER BY at MEASURES A.id AS id PATTERN (A B) DEFINE B AS B.idd > A.id)",
        "SELECT * FROM payments MATCH_RECOGNIZE (ORDER BY at MEASURES A.id AS id PATTERN (A B) DEFINE B AS X.id > A.id)",
        "SELECT * FROM payments MATCH_RECOGNIZE (ORDER BY at MEASURES A.id AS id PATTERN (A B) DEFINE B AS B.id > PREV(B.id))",
        "SELECT * FROM payments MATCH_RECOGNIZE (ORDER BY at MEASURES LAST(A.id + B.id) AS id PATTERN (A B) DEFINE B AS TRUE)",
        "SELECT * FROM payments MATCH_RECOGNIZE (ORDER BY at MEASURES SUM(A.id * B.id) AS id PATTERN (A B) DEFINE B AS TRUE)",
        "SELECT * FROM payments MATCH_RECOGNIZE (ORDER BY at MEASURES A.id AS id PATTERN (A B) DEFINE B AS B.id + 1)",
        "SELECT * FROM payments MATCH_RECOGNIZE (ORDER BY at MEASURES A.id AS id AFTER MATCH SKIP TO FIRST A PATTERN (A B) DEFINE B AS TRUE)",
        "SELECT * FROM payments MATCH_RECOGNIZE (ORDER BY at ALL ROWS PER MATCH PATTERN (A B) DEFINE B AS TRUE)",
        "SELECT * FROM payments MATCH_RECOGNIZE (ORDER BY at MEASURES A.id AS id PATTERN (A B) WITHIN INTERVAL '1' MONTH DEFINE B AS TRUE)",
        "SELECT * FROM (SELECT * FROM payments) AS c MATCH_RECOGNIZE (ORDER BY at MEASURES A.at AS t PATTERN (A B) DEFINE B AS TRUE)",
        "WITH c AS (SELECT country, MAX(at) AS at FROM payments GROUP BY country) SELECT * FROM c MATCH_RECOGNIZE (ORDER BY at MEASURES A.at AS t PATTERN (A B) DEFINE B AS TRUE)",
        "SELECT window_start, COUNT(*) FROM TABLE(TUMBLE((SELECT * FROM payments MATCH_RECOGNIZE (ORDER BY at MEASURES MATCH_ROWTIME() AS t PATTERN (A+ B) DEFINE A AS A.id > 1)), DESCRIPTOR(t), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end",
        "CREATE TABLE x (a INT, b ROW<c INT>) WITH ('connector' = 'filesystem', 'path' = 'x', 'format' = 'csv'); SELECT a FROM x",
        "CREATE TABLE x (a INT) WITH ('connector' = 'filesystem', 'path' = 'x', 'format' = 'csv', 'csv.field-delimiter' = '||'); SELECT a FROM x",
        "CREATE TABLE x (a INT) WITH ('connector' = 'filesystem', 'path' = 'x', 'format' = 'parquet', 'parquet.compression' = 'LZO')",
        "CREATE TABLE x (a INT) WITH ('connector' = 'topics', 'topic' = 'x', 'format' = 'parquet')",
        "CREATE TABLE x (a INT) WITH ('connector' = 'filesystem', 'path' = 'x', 'format' = 'json', 'parquet.compression' = 'ZSTD')",
        "CREATE TABLE x (a INT) WITH ('connector' = 'filesystem', 'path' = 'x', 'format' = 'parquet', 'parquet.block.size' = '1')",
    ];
    let all: String = statements.iter().map(|sql| format!("{sql}\nerror: {}\n\n", report(sql))).collect();
    let expected = include_str!("errors.txt");
    if std::env::var_os("WATERWHEEL_WRITE_SNAPSHOTS").is_some() {
        println!("{all}");
    }
    assert_eq!(all.trim(), expected.trim(), "--- got:\n{all}");
}

/// What a function's constants say is known when the query is planned.
#[test]
fn constants_are_looked_at_before_the_start() {
    for (sql, why) in [
        ("SELECT REGEXP_EXTRACT(country, '(a)\\1', 1) FROM payments", "back references are not known here"),
        ("SELECT DATE_FORMAT(at, 'yyyy-XX') FROM payments", "is not known"),
        ("SELECT LPAD(country, 3) FROM payments", "LPAD(STRING, BIGINT, STRING)"),
        ("SELECT JSON_VALUE(country, 'a.b') FROM payments", "the path \"a.b\" cannot be used"),
        ("SELECT JSON_VALUE(country, '$.a' NULL ON TROUBLE) FROM payments", "ON EMPTY or ON ERROR"),
        ("SELECT TIMESTAMPADD(CENTURY, 1, at) FROM payments", "CENTURY is no unit"),
        (
            "SELECT country, CURRENT_TIMESTAMP AS t FROM (SELECT country, COUNT(*) AS n FROM payments GROUP BY country) AS c",
            "over rows that change",
        ),
        ("CREATE TABLE x (id BIGINT) LIKE plain", "is in \"plain\" already"),
        ("CREATE TABLE x (y BIGINT) LIKE plian", "did you mean \"plain\"?"),
        ("CREATE TABLE x (WATERMARK FOR at AS at) WITH ('format' = 'csv') LIKE payments", "has a WATERMARK already"),
        ("CREATE TABLE x LIKE payments (OVERWRITING CONSTRAINTS)", "can be OVERWRITING"),
        ("CREATE TABLE x WITH ('format' = 'csv') LIKE payments (INCLUDING OPTIONS)", "option 'format' is in"),
        ("CREATE TABLE x (a INT) WITH ('connector' = 'print') AS SELECT id FROM payments", "a column beside AS SELECT"),
        (
            "SELECT country FROM TABLE(TUMBLE(TABLE payments PARTITION BY country, DESCRIPTOR(at), INTERVAL '1' MINUTE))",
            "PARTITION BY in TUMBLE",
        ),
        ("INSERT INTO sums (country, country) SELECT country, amount FROM payments", "column \"country\" is named twice"),
        ("INSERT INTO sums (total, country) SELECT amount, country FROM payments", "nothing is wrong"),
        ("INSERT INTO sums VALUES ('a', 1.5), ('b', 2)", "nothing is wrong"),
        ("INSERT INTO sums (total) VALUES (1.5, 2)", "1 columns are named, the query has 2"),
        ("INSERT INTO sums VALUES ('a', 1 / 0)", "ivide by zero"),
    ] {
        let report = report(sql);
        assert!(report.contains(why), "{sql}\n{report}");
    }
    assert_eq!(report("SELECT COUNT(*) FROM payments GROUP BY TUMBLE(at, INTERVAL '1' MINUTE)"), "nothing is wrong");
}

/// Functions of users are refused by their names, with how they are called or what they lack.
#[test]
fn functions_of_users_that_cannot_be_called_so() {
    let hop = "FROM TABLE(HOP(TABLE payments, DESCRIPTOR(at), INTERVAL '1' MINUTE, INTERVAL '5' MINUTE)) GROUP BY window_start, window_end";
    let session = "FROM TABLE(SESSION(TABLE payments PARTITION BY country, DESCRIPTOR(at), INTERVAL '1' MINUTE)) GROUP BY country, window_start, window_end";
    let changing = "FROM (SELECT country, COUNT(*) AS n FROM payments GROUP BY country) AS c";
    for (sql, why) in [
        ("SELECT id, w FROM payments, LATERAL TABLE(splt(country)) AS s (w, n)".to_string(), "did you mean \"split\"?"),
        ("SELECT id, w FROM payments, LATERAL TABLE(split(country, id)) AS s (w, n)".into(), "is called otherwise: SPLIT(STRING)"),
        ("SELECT id, w FROM payments, LATERAL TABLE(split(id)) AS s (w, n)".into(), "SPLIT(BIGINT) is called otherwise: SPLIT(STRING)"),
        ("SELECT id, w FROM payments, LATERAL TABLE(split(country)) AS s (w)".into(), "SPLIT has 2 columns, and 1 are named"),
        ("SELECT id, w FROM payments, LATERAL TABLE(split(contry)) AS s (w, n)".into(), "column \"contry\" not found"),
        (
            "SELECT id, w FROM payments LEFT JOIN LATERAL TABLE(split(country)) AS s (w, n) ON n > 1".into(),
            "join with LATERAL TABLE and a condition",
        ),
        ("SELECT id, w FROM payments, TABLE(split(country)) AS s (w, n)".into(), "TABLE(SPLIT(...)) without LATERAL"),
        ("SELECT w FROM LATERAL TABLE(split('a b')) AS s (w, n)".into(), "LATERAL TABLE by itself"),
        ("SELECT id, w FROM payments, LATERAL split(country) AS s (w, n)".into(), "LATERAL split(..)"),
        ("SELECT id, split(country) FROM payments".into(), "it gives rows, no value"),
        ("SELECT SUM_PRODUCT(id) FROM payments".into(), "SUM_PRODUCT(BIGINT, BIGINT)"),
        ("SELECT SUM_PRODUCT(id, country) FROM payments".into(), "SUM_PRODUCT(BIGINT, BIGINT)"),
        ("SELECT SUM_PRODCT(id, id) FROM payments".into(), "did you mean \"sum_product\"?"),
        ("SELECT TOP_TEXT(DISTINCT country) FROM payments GROUP BY id".into(), "DISTINCT in TOP_TEXT"),
        (format!("SELECT PICKY(n) AS p {changing}"), "PICKY over rows that change"),
        (format!("SELECT SUM_PRODUCT(n, n) AS p {changing}"), "nothing is wrong"),
        (format!("SELECT PICKY(id) AS p {hop}"), "PICKY in a HOP window"),
        (format!("SELECT TOP_TEXT(country) AS p {hop}"), "nothing is wrong"),
        (format!("SELECT PICKY(id) AS p {session}"), "PICKY in a SESSION window"),
        (
            "SELECT PICKY(id) OVER (ORDER BY at ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS p FROM payments".into(),
            "PICKY in a frame that moves on",
        ),
        ("SELECT PICKY(id) OVER (ORDER BY at) AS p FROM payments".into(), "nothing is wrong"),
        ("SELECT TOP_TEXT(country) OVER (ORDER BY id) AS p FROM payments".into(), "TOP_TEXT OVER here"),
        (
            "SELECT * FROM payments MATCH_RECOGNIZE (ORDER BY at MEASURES TOP_TEXT(A.country) AS t PATTERN (A B) DEFINE B AS TRUE)".into(),
            "TOP_TEXT in MATCH_RECOGNIZE",
        ),
    ] {
        let report = report(&sql);
        assert!(report.contains(why), "{sql}\n{report}");
    }
}

#[test]
fn files_that_cannot_be_in_folders() {
    let table = |more: &str| format!("CREATE TABLE f (a INT, at TIMESTAMP(3), d DOUBLE, c AS a + 1{more}");
    let files = "'connector' = 'filesystem', 'path' = 'x', 'format' = 'json'";
    for (sql, why) in [
        (
            table(&format!(") PARTITIONED BY (a) WITH ({files})")) + "; INSERT INTO f PARTITION (d = 1) SELECT 1, at FROM payments",
            "\"f\" is not PARTITIONED BY \"d\"",
        ),
        (table(&format!(") PARTITIONED BY (b) WITH ({files})")), "column \"b\" not found in f"),
        (table(&format!(") PARTITIONED BY (c) WITH ({files})")), "which is computed"),
        (table(&format!(") PARTITIONED BY (d) WITH ({files})")), "of type DOUBLE is not supported"),
        (table(&format!(") PARTITIONED BY (a, a) WITH ({files})")), "twice"),
        (table(") PARTITIONED BY (a) WITH ('connector' = 'topics', 'format' = 'json')"), "only files lie in folders"),
        (format!("CREATE TABLE f (a INT) PARTITIONED BY (a) WITH ({files})"), "nothing is left for the files"),
        (
            "CREATE TABLE g (c STRING, n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'x', 'format' = 'parquet');
             INSERT INTO g SELECT country, COUNT(*) FROM payments GROUP BY country"
                .into(),
            "'filesystem' only appends",
        ),
        (
            table(&format!(") WITH ({files}, 'sink.partition-commit.policy.kind' = 'success-file')")),
            "is for tables that are PARTITIONED BY",
        ),
        (
            table(&format!(") PARTITIONED BY (a) WITH ({files}, 'sink.partition-commit.policy.kind' = 'metastore')")),
            "there is no catalog outside",
        ),
        (table(&format!(") PARTITIONED BY (a) WITH ({files}, 'sink.rolling-policy.file-size' = '0')")), "is a size such as 128MB"),
        (table(&format!(") PARTITIONED BY (a) WITH ({files}, 'sink.partition-commit.delay' = '1 fortnight')")), "is a time such as 10 min"),
        (
            table(&format!(") PARTITIONED BY (a) WITH ({files}, 'sink.partition-commit.success-file.name' = '../x')")),
            "is the name of a file",
        ),
        (table(&format!(") PARTITIONED BY (a) WITH ({files}, 'sink.partition-commit.sucess-file.name' = 'x')")), "did you mean"),
        (
            table(&format!(
                ") PARTITIONED BY (a) WITH ({files}, 'sink.partition-commit.trigger' = 'partition-time', 'partition.time-extractor.timestamp-pattern' = '$b')"
            )) + "; INSERT INTO f SELECT 1, at, 2 FROM payments",
            "names no column of the folders",
        ),
        (
            table(&format!(
                ") PARTITIONED BY (at) WITH ({files}, 'sink.partition-commit.trigger' = 'partition-time', 'sink.partition-commit.policy.kind' = 'success-file')"
            )) + "; INSERT INTO f SELECT 1, at, 2 FROM plain",
            "no row has an event time",
        ),
        (
            table(&format!(
                ") PARTITIONED BY (at) WITH ({files}, 'sink.partition-commit.trigger' = 'partition-time', 'sink.partition-commit.policy.kind' = 'success-file')"
            )) + "; INSERT INTO f SELECT 1, at, 2 FROM payments",
            "nothing is wrong",
        ),
    ] {
        let report = report(&sql);
        assert!(report.contains(why), "{sql}\n{report}");
    }
}

#[test]
fn changes_that_cannot_be_read_or_written() {
    let debezium = "'topic' = 'd', 'format' = 'debezium-json'";
    for (sql, why) in [
        (
            format!("CREATE TABLE d (id INT, PRIMARY KEY (id) NOT ENFORCED) WITH ('connector' = 'upsert-kafka', {debezium})"),
            "'upsert-kafka' with format 'debezium-json' is not supported",
        ),
        (
            format!(
                "CREATE TABLE d (id INT, PRIMARY KEY (id) NOT ENFORCED) WITH ('connector' = 'kafka', {debezium}, 'debezium-json.schema-include' = 'true'); INSERT INTO d SELECT id FROM plain"
            ),
            "changes are written without a schema",
        ),
        (
            format!(
                "CREATE TABLE d (id BIGINT, n BIGINT) WITH ('connector' = 'kafka', {debezium}); INSERT INTO d SELECT id, COUNT(*) FROM plain GROUP BY id"
            ),
            "a table with a PRIMARY KEY",
        ),
        (
            format!(
                "CREATE TABLE d (id BIGINT, n BIGINT, PRIMARY KEY (id) NOT ENFORCED) WITH ('connector' = 'kafka', {debezium}); INSERT INTO d SELECT id, COUNT(*) FROM plain GROUP BY id"
            ),
            "nothing is wrong",
        ),
        (
            format!(
                "CREATE TABLE d (id BIGINT, at TIMESTAMP(3), WATERMARK FOR at AS at) WITH ('connector' = 'kafka', {debezium}); SELECT id FROM TABLE(TUMBLE(TABLE d, DESCRIPTOR(at), INTERVAL '1' MINUTE))"
            ),
            "a window over rows that change",
        ),
    ] {
        let report = report(&sql);
        assert!(report.contains(why), "{sql}\n{report}");
    }
}

#[test]
fn a_join_is_known_by_the_key_of_the_side_that_is_in_every_row() {
    let of = |kind: &str, on: &str| {
        report(&format!(
            "CREATE TABLE both (country STRING, n BIGINT, m BIGINT, PRIMARY KEY (country) NOT ENFORCED) WITH ('connector' = 'upsert-kafka', 'format' = 'json', 'key.format' = 'json');
            INSERT INTO both SELECT l.country, l.n, r.n FROM (SELECT country, COUNT(*) AS n FROM payments GROUP BY country) AS l
            {kind} JOIN (SELECT country, COUNT(*) AS n FROM payments WHERE amount > 10 GROUP BY country) AS r ON {on}"
        ))
    };
    for kind in ["", "LEFT"] {
        assert_eq!(of(kind, "l.country = r.country"), "nothing is wrong");
        assert_eq!(of(kind, "l.country = r.country AND l.n > r.n"), "nothing is wrong");
    }
    // Several rows of r for one of l, or rows of r alone: one country is several rows.
    for (kind, on) in [("", "l.n = r.n"), ("FULL", "l.country = r.country"), ("RIGHT", "l.country = r.country")] {
        assert!(of(kind, on).contains("the query's rows are known by"), "{kind} {on}: {}", of(kind, on));
    }
}

#[test]
fn a_table_is_declared_by_another_or_by_a_query() {
    let mut session = Session::new(Arc::new(super::world::Feeds::default()));
    session.run("tables.sql", TABLES).unwrap();
    let script = "CREATE TABLE a (n BIGINT, twice AS n * 2) WITH ('topic' = 'other') LIKE payments;
        CREATE TABLE b (WATERMARK FOR at AS at - INTERVAL '1' SECOND) WITH ('connector' = 'print') LIKE a (EXCLUDING OPTIONS EXCLUDING GENERATED OVERWRITING WATERMARKS);
        CREATE TABLE c LIKE rates (EXCLUDING ALL INCLUDING OPTIONS);
        CREATE TABLE d (PRIMARY KEY (country) NOT ENFORCED) WITH ('connector' = 'topics', 'format' = 'json') AS SELECT country, COUNT(*) AS n FROM payments GROUP BY country";
    let outcomes = session.run("job.sql", script).unwrap_or_else(|e| panic!("{}", e.report()));
    assert!(matches!(&outcomes[3], Outcome::Insert(planned) if planned.name() == "d"));
    let table = |name: &str| match session.catalog().get(name) {
        Some(crate::catalog::Entry::Table(table)) => table.clone(),
        other => panic!("no table: {other:?}"),
    };
    let columns = |name: &str| table(name).schema.fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>().join(" ");
    assert_eq!(columns("a"), "id country amount at n twice");
    assert_eq!((table("a").options.get("topic"), table("a").options.format()), (Some("other"), Some("json")));
    assert_eq!(table("a").watermark.unwrap().delay_ms, 0);
    assert_eq!(columns("b"), "id country amount at n");
    assert_eq!((table("b").options.get("format"), table("b").watermark.unwrap().delay_ms), (None, 1000));
    assert_eq!((columns("c").as_str(), table("c").watermark, table("c").primary_key.len()), ("id rate at", None, 0));
    assert_eq!((columns("d").as_str(), &table("d").primary_key[..]), ("country n", &[0][..]));
    // A statement that fails leaves no table.
    assert!(session.run("x.sql", "CREATE TABLE e WITH ('connector' = 'datagen') AS SELECT id FROM payments").is_err());
    assert!(session.catalog().get("e").is_none());
}
