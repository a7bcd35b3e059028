//! Text that nobody meant: cut, doubled, swapped, made of words at random, and nested without end. It is refused or understood;
//! never a panic, and never more time and memory than it is worth.

use crate::connect::NoConnectors;
use crate::session::Session;
use proptest::prelude::*;
use std::sync::Arc;

const GOOD: &[&str] = &[
    "CREATE TABLE a (x BIGINT NOT NULL, s STRING, d DECIMAL(10, 2), r ROW<b INT, c ARRAY<STRING>>, ts TIMESTAMP(3), y AS x + 1,
        p INT METADATA FROM 'partition', WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) WITH ('connector' = 'topics', 'format' = 'json')",
    "CREATE TABLE o (x BIGINT, n BIGINT, PRIMARY KEY (x) NOT ENFORCED) WITH ('connector' = 'topics', 'topic' = 'o', 'format' = 'json')",
    "CREATE VIEW v AS SELECT x, s FROM a WHERE x > 1",
    "INSERT INTO o SELECT x, COUNT(DISTINCT s) FILTER (WHERE d > 1.5) FROM a GROUP BY x HAVING COUNT(*) > 2",
    "SELECT window_start, SUM(x) FROM TABLE(HOP(TABLE a, DESCRIPTOR(ts), INTERVAL '1' SECOND, INTERVAL '10' MINUTE)) GROUP BY window_start, window_end",
    "SELECT CASE WHEN s LIKE 'a%' THEN CAST(x AS STRING) ELSE 'b' || s END FROM (SELECT x, s FROM v UNION ALL SELECT x, s FROM a) AS u ORDER BY 1 LIMIT 3",
    "SET 'parallelism.default' = '2'",
    "BEGIN STATEMENT SET; INSERT INTO o SELECT x, 1 FROM a; END",
];

/// Words that mean something somewhere.
const WORDS: &[&str] = &[
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP BY",
    "(",
    ")",
    "<",
    ">",
    ">>",
    ",",
    ";",
    "'",
    "\"",
    "`",
    "a",
    "x",
    "ts",
    "1",
    "-",
    "*",
    ".",
    "INTERVAL",
    "'9'",
    "SECOND",
    "TABLE",
    "CREATE",
    "WITH",
    "=",
    "ROW",
    "ARRAY",
    "DECIMAL(",
    "CAST(",
    " AS ",
    "NULL",
    "--",
    "/*",
    "*/",
    "WATERMARK FOR",
    "UNION",
    "OVER",
    "999999999999999999999999",
    "1e999",
    "U&'\\d800'",
    "\u{0}",
    "\u{10348}",
    "TUMBLE(",
    "DESCRIPTOR(",
    "INSERT INTO",
    "NOT",
    "IN",
    "CASE",
    "END",
];

/// Says what becomes of a text; the same world for all.
fn take(text: &str) -> bool {
    let mut session = Session::new(Arc::new(NoConnectors));
    session.run("good.sql", &GOOD[..3].join(";")).unwrap_or_else(|e| panic!("{}", e.report()));
    match session.run("noise.sql", text) {
        Ok(_) => true,
        Err(e) => {
            assert!(!e.report().contains("panicked"), "{text}\n{}", e.report());
            false
        }
    }
}

/// A text with parts of it cut, doubled, or replaced by words.
fn changed() -> impl Strategy<Value = String> {
    let change = (0usize..400, 0usize..60, proptest::option::of(proptest::sample::select(WORDS)), proptest::bool::ANY);
    (0..GOOD.len(), proptest::collection::vec(change, 1..4)).prop_map(|(which, changes)| {
        let mut text: Vec<char> = GOOD[which].chars().collect();
        for (at, len, word, twice) in changes {
            let at = at % (text.len() + 1);
            let end = (at + len / 4).min(text.len());
            let part: Vec<char> = text[at..end].to_vec();
            let new = word.map_or(part.clone(), |word| format!(" {word} ").chars().collect());
            text.splice(at..end, if twice { [part, new].concat() } else { new });
        }
        text.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn changed_statements_are_refused_or_understood(text in changed()) {
        take(&text);
    }

    #[test]
    fn words_at_random_are_refused_or_understood(words in proptest::collection::vec(proptest::sample::select(WORDS), 0..25), glue in "[ \n]?") {
        take(&words.join(glue.as_str()));
    }

    #[test]
    fn any_text_is_refused_or_understood(text in "\\PC{0,60}") {
        take(&text);
    }
}

#[test]
fn good_statements_are_understood() {
    for good in &GOOD[3..] {
        assert!(take(good), "{good}");
    }
}

#[test]
fn what_is_nested_without_end_is_refused() {
    let nested = |open: &str, middle: &str, close: &str, times: usize| open.repeat(times) + middle + &close.repeat(times);
    for times in [200, 20_000] {
        for text in [
            format!("SELECT {} FROM a", nested("(", "x", ")", times)),
            format!("SELECT {} FROM a", nested("CAST(", "x", " AS BIGINT)", times)),
            format!("SELECT {} FROM a", nested("CASE WHEN x > 1 THEN ", "x", " END", times)),
            format!("SELECT {} x FROM a", "NOT ".repeat(times)),
            format!("SELECT {} x FROM a", "- ".repeat(times)),
            format!("SELECT x FROM {}", nested("(SELECT x FROM ", "a", ")", times)),
            format!("CREATE TABLE deep (x {}) WITH ('connector' = 'topics', 'format' = 'json')", nested("ROW<f ", "INT", ">", times)),
            format!("CREATE TABLE deep (x {}) WITH ('connector' = 'topics', 'format' = 'json')", nested("ROW(f ", "INT", ")", times)),
            format!("CREATE TABLE deep (x {}) WITH ('connector' = 'topics', 'format' = 'json')", nested("ARRAY<", "INT", ">", times)),
        ] {
            assert!(!take(&text), "{}...", &text[..60]);
        }
    }
}

#[test]
fn long_chains_are_refused_or_understood() {
    for times in [200, 400, 20_000] {
        take(&format!("SELECT x{} FROM a", " + 1".repeat(times)));
        take(&format!("SELECT x FROM a WHERE x = 1{}", " OR x = 1".repeat(times)));
        take(&format!("SELECT x FROM a{}", " UNION ALL SELECT x FROM a".repeat(times)));
        take(&format!("SELECT x FROM a WHERE x IN (1{})", ", 1".repeat(times)));
    }
}
