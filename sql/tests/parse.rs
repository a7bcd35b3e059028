//! What the dialect reads.

use crate::parse;
use crate::parser::{ColumnKind, StatementKind};
use datafusion_sql::sqlparser::ast::{BinaryOperator, Expr, SetExpr};

#[test]
fn flinks_statements_are_read() {
    for sql in [
        "CREATE TABLE a (x INT, PRIMARY KEY (x) NOT ENFORCED) WITH ('connector' = 'kafka', 'topic' = 't')",
        "CREATE TEMPORARY TABLE IF NOT EXISTS a (x BIGINT NOT NULL PRIMARY KEY NOT ENFORCED COMMENT 'c', y AS x + 1, p INT METADATA FROM 'partition' VIRTUAL) COMMENT 'it''s' WITH ()",
        "CREATE TABLE datagen (event_type INT, person ROW<id BIGINT, name VARCHAR, extra VARCHAR>, bid ROW<auction BIGINT, price BIGINT, deep ROW<a INT, b ARRAY<ROW<c INT>>>>,
            dateTime AS CASE WHEN event_type = 0 THEN person.id ELSE bid.price END, WATERMARK FOR dateTime AS dateTime - INTERVAL '4' SECOND) WITH ('connector' = 'datagen')",
        "CREATE VIEW bid AS SELECT bid.auction FROM datagen WHERE event_type = 2",
        "CREATE OR REPLACE TEMPORARY VIEW v (a, b) AS SELECT 1, 2 FROM t",
        "INSERT INTO a SELECT x FROM b; EXECUTE INSERT INTO a (x) SELECT x FROM b",
        "BEGIN STATEMENT SET; INSERT INTO a SELECT x FROM b; END",
        "EXECUTE STATEMENT SET BEGIN INSERT INTO a SELECT x FROM b; INSERT INTO c SELECT x FROM b; END",
        "EXPLAIN CHANGELOG_MODE, ESTIMATED_COST SELECT x FROM b; USE CATALOG default_catalog; USE default_database; SHOW CATALOGS; SHOW CURRENT DATABASE; SHOW COLUMNS FROM a",
        "EXPLAIN PLAN FOR SELECT x FROM b; EXPLAIN ANALYZE SELECT x FROM b; EXPLAIN INSERT INTO a SELECT x FROM b; DESCRIBE a; DESC a; SHOW TABLES; SHOW CREATE TABLE a; DROP VIEW IF EXISTS v; DROP TABLE a",
        "SET 'parallelism.default' = '2'; SET parallelism.default = 2; SET; RESET; RESET 'parallelism.default'",
        "SELECT * FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '10' SECOND))",
        "SELECT * FROM TABLE(HOP(DATA => TABLE bid, TIMECOL => DESCRIPTOR(ts), SLIDE => INTERVAL '2' SECOND, SIZE => INTERVAL '10' SECOND))",
        "WITH a AS (SELECT x FROM b) SELECT `x`, \"x\" FROM a -- a comment\n /* and another */",
        "SELECT COUNT(*) FILTER (WHERE x > 1), COUNT(DISTINCT y) FROM b GROUP BY ROLLUP (x)",
    ] {
        parse(sql).unwrap_or_else(|e| panic!("{}", e.render("test.sql", sql)));
    }
}

#[test]
fn columns_are_what_they_are_declared_as() {
    let sql = "CREATE TABLE a (x DECIMAL(10, 2) NOT NULL, ts TIMESTAMP_LTZ(3) METADATA FROM 'timestamp', y AS x * 2, WATERMARK FOR ts AS ts) WITH ('connector' = 'topics')";
    let StatementKind::CreateTable(table) = &parse(sql).unwrap()[0].kind else { panic!("no table") };
    assert_eq!(table.columns.len(), 3);
    assert!(table.columns[0].not_null && matches!(table.columns[0].kind, ColumnKind::Physical(_)));
    assert!(matches!(&table.columns[1].kind, ColumnKind::Metadata { from: Some(from), .. } if from == "timestamp"));
    assert!(matches!(table.columns[2].kind, ColumnKind::Computed(_)));
    assert_eq!(table.watermark.as_ref().unwrap().column.value, "ts");
}

#[test]
fn distinct_from_takes_one_value() {
    let sql = "SELECT 1 FROM t WHERE a IS NOT DISTINCT FROM b + 1 AND c IS DISTINCT FROM NULL OR d";
    let StatementKind::Query(query) = &parse(sql).unwrap()[0].kind else { panic!("no query") };
    let SetExpr::Select(select) = &*query.body else { panic!("no select") };
    let Some(Expr::BinaryOp { left, op: BinaryOperator::Or, .. }) = &select.selection else { panic!("{select}") };
    let Expr::BinaryOp { left, op: BinaryOperator::And, right } = &**left else { panic!("{select}") };
    assert!(matches!(&**left, Expr::IsNotDistinctFrom(_, sum) if sum.to_string() == "b + 1"), "{select}");
    assert!(matches!(&**right, Expr::IsDistinctFrom(_, null) if null.to_string() == "NULL"), "{select}");
}

#[test]
fn a_table_with_a_hint_has_a_name_and_its_own_alias() {
    let read = |sql: &str| {
        let statement = parse(sql).unwrap_or_else(|e| panic!("{}", e.render("test.sql", sql))).remove(0);
        let tables: Vec<String> = statement.hints.tables.iter().map(|t| format!("{}={}", t.name, t.options.len())).collect();
        let text = match &statement.kind {
            StatementKind::Query(query) => query.to_string(),
            StatementKind::Insert(insert) => format!("{} <- {}", insert.table, insert.query),
            other => panic!("{other:?}"),
        };
        (text, tables.join(" "))
    };
    let hint = "/*+ OPTIONS('a'='1', 'b.c' = 'x, y') */";
    for (sql, text) in [
        (format!("SELECT t.x FROM t {hint} WHERE t.x > 1"), "SELECT t.x FROM `t#1` AS `t` WHERE t.x > 1"),
        (format!("SELECT x FROM t {hint}"), "SELECT x FROM `t#1` AS `t`"),
        (format!("SELECT x FROM t {hint} AS u"), "SELECT x FROM `t#1` AS u"),
        (format!("SELECT x FROM t {hint} u"), "SELECT x FROM `t#1` u"),
        (format!("SELECT x FROM u, t {hint} JOIN v ON v.x = t.x"), "SELECT x FROM u, `t#1` AS `t` JOIN v ON v.x = t.x"),
        (format!("INSERT INTO t {hint} SELECT x FROM u"), "`t#1` <- SELECT x FROM u"),
    ] {
        assert_eq!(read(&sql), (text.to_string(), "t#1=2".to_string()), "{sql}");
    }
    let (text, tables) = read("SELECT * FROM a /*+ OPTIONS('k'='1') */ JOIN a /*+ OPTIONS('k'='2') */ AS b ON a.x = b.x");
    assert_eq!((text.as_str(), tables.as_str()), ("SELECT * FROM `a#1` AS `a` JOIN `a#2` AS b ON a.x = b.x", "a#1=1 a#2=1"));
    assert_eq!(parse("SELECT /*+ BROADCAST(t) */ x FROM t /* not a hint */").unwrap()[0].hints.notes.len(), 1);
    for sql in ["SELECT x FROM t /*+ */", "SELECT x FROM t /*+ OPTIONS('a'='1' */", "SELECT x FROM t /*+ 'a' */"] {
        assert!(parse(sql).is_err(), "{sql}");
    }
}

#[test]
fn a_set_of_statements_is_its_statements() {
    let kinds = |sql: &str| -> Vec<String> {
        let statements = parse(sql).unwrap_or_else(|e| panic!("{}", e.render("test.sql", sql)));
        statements.iter().map(|s| format!("{:?}", s.kind).split(['(', ' ']).next().unwrap_or_default().to_string()).collect()
    };
    let both = "BEGIN INSERT INTO a SELECT x FROM b; INSERT INTO c SELECT x FROM b; END;";
    assert_eq!(kinds(&format!("EXECUTE STATEMENT SET {both}")), ["StatementSet", "Insert", "Insert", "StatementSet"]);
    assert_eq!(kinds(&format!("EXPLAIN STATEMENT SET {both} INSERT INTO a SELECT x FROM b")), ["Explain", "Explain", "Insert"]);
}

#[test]
fn names_may_say_the_one_catalog_and_database() {
    let read = |sql: &str| match parse(sql).map(|mut statements| statements.remove(0).kind) {
        Ok(StatementKind::Query(query)) => query.to_string(),
        Ok(StatementKind::Insert(insert)) => format!("{} <- {}", insert.table, insert.query),
        Ok(StatementKind::Describe(name)) => name.value,
        other => format!("{other:?}"),
    };
    assert_eq!(read("SELECT x FROM default_catalog.default_database.b JOIN default_database.c ON TRUE"), "SELECT x FROM b JOIN c ON true");
    assert_eq!(read("INSERT INTO `default_catalog`.`default_database`.`a` SELECT 1 FROM t"), "`a` <- SELECT 1 FROM t");
    assert_eq!(read("DESCRIBE default_database.a"), "a");
    assert_eq!(read("SELECT x FROM b FETCH NEXT 3 ROWS ONLY"), "SELECT x FROM b LIMIT 3");
    for (sql, why) in [
        ("USE other", "there is no database other"),
        ("USE CATALOG hive", "there is no catalog hive"),
        ("SELECT x FROM b LIMIT 1 FETCH FIRST 2 ROWS ONLY", "say the same"),
        ("SELECT DISTINCT ON (x) x, y FROM b", "DISTINCT ON"),
        ("SELECT TOP 3 x FROM b", "TOP"),
        ("SELECT * FROM b PIVOT (SUM(v) FOR r IN ('x', 'y'))", "PIVOT"),
        ("SELECT x FROM b FETCH FIRST 2 ROWS WITH TIES", "TIES"),
    ] {
        assert!(read(sql).contains(why), "{sql}: {}", read(sql));
    }
}
