//! MATCH_RECOGNIZE against a naive matcher, which looks for the first match of the first row, then goes on from where it skips
//! to; and the examples of Flink's manual.

use super::oracle::pick;
use super::world::{Feed, Feeds, Running};
use proptest::prelude::*;
use std::collections::BTreeMap;

const DDL: &str = "CREATE TABLE t (k INT, id INT, x INT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '0.001' SECOND)
    WITH ('connector' = 'topics', 'format' = 'json');";

#[derive(Debug, Clone, Copy, PartialEq)]
struct Row {
    k: Option<i64>,
    id: i64,
    x: Option<i64>,
    ms: i64,
}

impl Row {
    fn json(&self) -> String {
        let number = |n: Option<i64>| n.map_or("null".to_string(), |n| n.to_string());
        let at = format!("2026-01-01 00:{:02}:{:02}.{:03}", self.ms / 60_000, self.ms / 1000 % 60, self.ms % 1000);
        format!("{{\"k\":{},\"id\":{},\"x\":{},\"ts\":\"{at}\"}}", number(self.k), self.id, number(self.x))
    }
}

/// Rows that were taken, each with its variable.
type Taken<'a> = [(usize, &'a Row)];

fn xs(taken: &Taken<'_>, of: Option<usize>) -> Vec<Option<i64>> {
    taken.iter().filter(|(v, _)| of.is_none_or(|of| of == *v)).map(|(_, row)| row.x).collect()
}

/// The value so many before the last.
fn back(values: &[Option<i64>], n: usize) -> Option<i64> {
    values.len().checked_sub(n + 1).and_then(|at| values[at])
}

fn sum(values: &[Option<i64>]) -> Option<i64> {
    let some: Vec<i64> = values.iter().flatten().copied().collect();
    (!some.is_empty()).then(|| some.iter().sum())
}

/// A condition as text, V being the variable, and by hand: of the rows taken, the one that is asked for included.
type Condition = (&'static str, fn(&Taken<'_>, usize) -> bool);

const CONDITIONS: [Condition; 9] = [
    ("", |_, _| true),
    ("V.x > 1", |taken, v| back(&xs(taken, Some(v)), 0).is_some_and(|x| x > 1)),
    ("x < 2 OR V.x IS NULL", |taken, _| back(&xs(taken, None), 0).is_none_or(|x| x < 2)),
    ("LAST(V.x, 1) IS NULL OR V.x > LAST(V.x, 1)", |taken, v| {
        let of = xs(taken, Some(v));
        back(&of, 1).is_none_or(|before| back(&of, 0).is_some_and(|x| x > before))
    }),
    ("SUM(V.x) < 4", |taken, v| sum(&xs(taken, Some(v))).is_some_and(|sum| sum < 4)),
    ("COUNT(*) <= 3 AND V.x IS NOT NULL", |taken, v| taken.len() <= 3 && back(&xs(taken, Some(v)), 0).is_some()),
    ("V.x >= FIRST(A.x)", |taken, v| {
        let first = xs(taken, Some(0)).first().copied().flatten();
        back(&xs(taken, Some(v)), 0).zip(first).is_some_and(|(x, first)| x >= first)
    }),
    ("LAST(x, 1) <> V.x", |taken, v| back(&xs(taken, None), 1).zip(back(&xs(taken, Some(v)), 0)).is_some_and(|(a, b)| a != b)),
    ("MAX(x) - MIN(x) < 2 AND FIRST(x * 2, 1) IS NULL OR V.x = 0", |taken, v| {
        let all = xs(taken, None);
        let near = all.iter().flatten().max().zip(all.iter().flatten().min()).map(|(hi, lo)| hi - lo < 2);
        let second = all.get(1).copied().flatten();
        near.unwrap_or(false) && second.is_none() || back(&xs(taken, Some(v)), 0) == Some(0)
    }),
];

/// Quantifiers: text, least and most rows, whether every row is taken that can be.
const QUANTIFIERS: [(&str, usize, Option<usize>, bool); 13] = [
    ("", 1, Some(1), false),
    ("", 1, Some(1), false),
    ("", 1, Some(1), false),
    ("*", 0, None, true),
    ("+", 1, None, true),
    ("?", 0, Some(1), false),
    ("{2}", 2, Some(2), false),
    ("{1,2}", 1, Some(2), true),
    ("{,2}", 0, Some(2), true),
    ("{2,}", 2, None, true),
    ("*?", 0, None, false),
    ("+?", 1, None, false),
    ("{1,3}?", 1, Some(3), false),
];

#[derive(Debug, Clone)]
struct Spec {
    /// Condition and quantifier of A, B, C, D.
    variables: Vec<(usize, usize)>,
    skip: &'static str,
    within_s: Option<i64>,
}

const NAMES: [&str; 4] = ["A", "B", "C", "D"];

fn spec() -> impl Strategy<Value = Spec> {
    let variables = proptest::collection::vec((0..CONDITIONS.len(), 0..QUANTIFIERS.len()), 1..5);
    let skip = pick(&["PAST LAST ROW", "PAST LAST ROW", "TO NEXT ROW", "TO LAST", "TO FIRST"]);
    (variables, skip, proptest::option::weighted(0.4, 1..20i64)).prop_map(|(mut variables, skip, within_s)| {
        let last = variables.len() - 1;
        if QUANTIFIERS[variables[last].1].3 {
            variables[last].1 = 0;
        }
        if variables.iter().all(|(_, q)| QUANTIFIERS[*q].1 == 0) {
            variables[0].1 = 0;
        }
        Spec { variables, skip, within_s }
    })
}

impl Spec {
    fn quantifier(&self, v: usize) -> (usize, Option<usize>, bool) {
        let (_, least, most, greedy) = QUANTIFIERS[self.variables[v].1];
        (least, most, greedy)
    }

    /// The variable that is skipped to: the last one, if it takes a row and is not the first of the match.
    fn target(&self) -> Option<usize> {
        let last = self.variables.len() - 1;
        (matches!(self.skip, "TO LAST" | "TO FIRST") && last > 0 && self.quantifier(last).0 > 0).then_some(last)
    }

    fn sql(&self) -> String {
        let pattern: Vec<String> = self.variables.iter().zip(NAMES).map(|((_, q), name)| format!("{name}{}", QUANTIFIERS[*q].0)).collect();
        let defines: Vec<String> = self
            .variables
            .iter()
            .zip(NAMES)
            .filter(|((c, _), _)| *c > 0)
            .map(|((c, _), name)| format!("{name} AS {}", CONDITIONS[*c].0.replace('V', name)))
            .collect();
        // One at least is asked for.
        let defines = if defines.is_empty() { "A AS TRUE".to_string() } else { defines.join(", ") };
        let skip = match (self.target(), self.skip) {
            (Some(target), skip) => format!("{skip} {}", NAMES[target]),
            (None, "PAST LAST ROW") => "PAST LAST ROW".into(),
            (None, _) => "TO NEXT ROW".into(),
        };
        let within = self.within_s.map_or(String::new(), |s| format!("WITHIN INTERVAL '{s}' SECOND"));
        let last = NAMES[self.variables.len() - 1];
        format!(
            "SELECT * FROM t MATCH_RECOGNIZE (PARTITION BY k ORDER BY ts, id
            MEASURES FIRST(id) AS a, LAST(id) AS z, COUNT(*) AS n, SUM(x) AS s, COUNT({last}.x) AS c, LAST({last}.id, 1) AS b, FIRST(x, 1) + SUM(A.x) AS e
            ONE ROW PER MATCH AFTER MATCH SKIP {skip} PATTERN ({}) {within} DEFINE {defines}) AS m",
            pattern.join(" ")
        )
    }

    /// Whether a row may be taken for a variable.
    fn fits(&self, taken: &Taken<'_>, v: usize, row: &Row, start: &Row) -> bool {
        let asked: Vec<(usize, &Row)> = taken.iter().copied().chain([(v, row)]).collect();
        self.within_s.is_none_or(|s| row.ms - start.ms <= s * 1000) && (CONDITIONS[self.variables[v].0].1)(&asked, v)
    }

    /// What a row may be taken for behind those that were taken.
    fn ways(&self, taken: &Taken<'_>, row: &Row) -> Vec<usize> {
        let start = taken.first().map_or(row, |(_, row)| row);
        let mut ways = Vec::new();
        let mut from = 0;
        if let Some((v, _)) = taken.last() {
            let (least, most, greedy) = self.quantifier(*v);
            let count = taken.iter().filter(|(of, _)| of == v).count();
            if most.is_none_or(|most| count < most) && self.fits(taken, *v, row, start) {
                ways.push(*v);
                if greedy {
                    return ways;
                }
            }
            if count < least {
                return ways;
            }
            from = v + 1;
        }
        for v in from..self.variables.len() {
            let (least, _, greedy) = self.quantifier(v);
            let fits = self.fits(taken, v, row, start);
            if fits {
                ways.push(v);
            }
            if least > 0 || fits && greedy {
                break;
            }
        }
        ways
    }

    fn is_complete(&self, taken: &Taken<'_>) -> bool {
        let v = taken[taken.len() - 1].0;
        let count = taken.iter().filter(|(of, _)| *of == v).count();
        count >= self.quantifier(v).0.max(1) && (v + 1..self.variables.len()).all(|v| self.quantifier(v).0 == 0)
    }

    /// The first match that starts with the first of some rows.
    fn first_match<'a>(&self, rows: &'a [Row]) -> Option<Vec<(usize, &'a Row)>> {
        let mut open: Vec<Vec<(usize, &Row)>> = vec![Vec::new()];
        for row in rows {
            let mut next: Vec<Vec<(usize, &Row)>> = Vec::new();
            for taken in &open {
                next.extend(self.ways(taken, row).into_iter().map(|v| taken.iter().copied().chain([(v, row)]).collect()));
            }
            let mut complete: Vec<_> = next.iter().filter(|taken| self.is_complete(taken)).cloned().collect();
            complete.sort_by_key(|taken| taken.iter().map(|(v, _)| *v).collect::<Vec<_>>());
            if let Some(first) = complete.into_iter().next() {
                return Some(first);
            }
            open = next;
        }
        None
    }

    /// The results for the rows of a key.
    fn matches(&self, rows: &[Row]) -> Vec<Vec<String>> {
        let (mut results, mut start) = (Vec::new(), 0);
        let last = self.variables.len() - 1;
        while start < rows.len() {
            let Some(taken) = self.first_match(&rows[start..]) else {
                start += 1;
                continue;
            };
            let number = |n: Option<i64>| n.map_or("NULL".to_string(), |n| n.to_string());
            let of_last: Vec<&Row> = taken.iter().filter(|(v, _)| *v == last).map(|(_, row)| *row).collect();
            let before = of_last.len().checked_sub(2).map(|at| of_last[at].id);
            let second = taken.get(1).and_then(|(_, row)| row.x);
            results.push(vec![
                number(rows[start].k),
                taken[0].1.id.to_string(),
                taken[taken.len() - 1].1.id.to_string(),
                taken.len().to_string(),
                number(sum(&xs(&taken, None))),
                of_last.iter().filter(|row| row.x.is_some()).count().to_string(),
                number(before),
                number(second.zip(sum(&xs(&taken, Some(0)))).map(|(a, b)| a + b)),
            ]);
            let at = |row: &Row| rows.iter().position(|r| r == row).unwrap();
            start = match (self.target(), self.skip) {
                (Some(_), "TO FIRST") => at(of_last[0]).max(start + 1),
                (Some(_), "TO LAST") => at(of_last[of_last.len() - 1]).max(start + 1),
                (None, "PAST LAST ROW") => start + taken.len(),
                _ => start + 1,
            };
        }
        results
    }
}

/// Two splits, each in the order of time.
fn rows() -> impl Strategy<Value = [Vec<Row>; 2]> {
    let key = prop_oneof![5 => Just(Some(1)), 3 => Just(Some(2)), 1 => Just(None)];
    let x = prop_oneof![6 => (0..4i64).prop_map(Some), 1 => Just(None)];
    let split = || proptest::collection::vec((key.clone(), x.clone(), 0..4000i64), 0..12);
    (split(), split()).prop_map(|(a, b)| {
        let of = |number: i64, rows: Vec<(Option<i64>, Option<i64>, i64)>| {
            let mut ms = 0;
            let row = |(i, (k, x, later)): (usize, (Option<i64>, Option<i64>, i64))| {
                // Rows of one time too.
                ms += later / 1000 * 1000;
                Row { k, id: number + 2 * i as i64, x, ms }
            };
            rows.into_iter().enumerate().map(row).collect::<Vec<Row>>()
        };
        [of(0, a), of(1, b)]
    })
}

/// Runs a query over splits to the end, in steps, with stops between.
fn run(
    ddl: &str,
    sql: &str,
    splits: Vec<Vec<String>>,
    batch: usize,
    prefixes: &[usize],
    restarts: &[u32],
    seed: u64,
) -> BTreeMap<Vec<String>, i64> {
    let feed = Feed::new("t", splits, batch);
    let feeds = Feeds(BTreeMap::from([("t".to_string(), feed.clone())]));
    let mut running = Running::start(&feeds, &format!("{ddl}\n{sql}"), seed, 1 + (seed % 3) as u32);
    for (i, &prefix) in prefixes.iter().enumerate() {
        feed.reveal(prefix);
        running.settle();
        if let Some(parallelism) = restarts.get(i) {
            running.restart(*parallelism);
        }
    }
    feed.reveal(usize::MAX);
    running.finish();
    running.rows.rows()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn patterns_are_what_the_naive_matcher_finds(spec in spec(), splits in rows(), batch in 1..6usize, mut prefixes in proptest::collection::vec(0..13usize, 0..4),
        restarts in proptest::collection::vec(1..4u32, 0..3), seed: u64)
    {
        prefixes.sort_unstable();
        let mut by_key: BTreeMap<Option<i64>, Vec<Row>> = BTreeMap::new();
        splits.iter().flatten().for_each(|row| by_key.entry(row.k).or_default().push(*row));
        let mut want: BTreeMap<Vec<String>, i64> = BTreeMap::new();
        for rows in by_key.values_mut() {
            rows.sort_by_key(|row| (row.ms, row.id));
            spec.matches(rows).into_iter().for_each(|result| *want.entry(result).or_default() += 1);
        }
        let sql = spec.sql();
        let records = splits.iter().map(|rows| rows.iter().map(Row::json).collect()).collect();
        let got = run(DDL, &sql, records, batch, &prefixes, &restarts, seed);
        prop_assert!(got == want, "{sql}\n got {got:?}\nwant {want:?}");
    }
}

/// What a query makes of a ticker: minute and second, price and tax.
fn ticker(rows: &[(&str, i64, i64)], clause: &str) -> Vec<Vec<String>> {
    let ddl = "CREATE TABLE t (symbol STRING, rowtime TIMESTAMP(3), price DOUBLE, tax BIGINT, WATERMARK FOR rowtime AS rowtime) WITH ('connector' = 'topics', 'format' = 'json');";
    let record = |(at, price, tax): &(&str, i64, i64)| {
        format!("{{\"symbol\":\"ACME\",\"rowtime\":\"2026-04-01 {at}\",\"price\":{price},\"tax\":{tax}}}")
    };
    let sql = format!("SELECT * FROM t MATCH_RECOGNIZE (PARTITION BY symbol ORDER BY rowtime {clause}) AS m");
    let rows = run(ddl, &sql, vec![rows.iter().map(record).collect()], 3, &[2, 5], &[2], 7);
    rows.into_keys().collect()
}

fn rows_of(at: &[&str], prices: &[i64]) -> Vec<(&'static str, i64, i64)> {
    at.iter().zip(prices).map(|(at, price)| (&*String::leak(at.to_string()), *price, 1)).collect()
}

fn seconds(prices: &[i64]) -> Vec<(&'static str, i64, i64)> {
    let at: Vec<String> = (0..prices.len()).map(|i| format!("10:00:{i:02}")).collect();
    rows_of(&at.iter().map(String::as_str).collect::<Vec<_>>(), prices)
}

fn text(rows: &[&[&str]]) -> Vec<Vec<String>> {
    rows.iter().map(|row| row.iter().map(ToString::to_string).collect()).collect()
}

#[test]
fn a_price_that_falls_and_rises() {
    let rows = seconds(&[12, 17, 19, 21, 25, 18, 15, 14, 24, 25, 19]);
    let clause = "MEASURES START_ROW.rowtime AS start_tstamp, LAST(PRICE_DOWN.rowtime) AS bottom_tstamp, LAST(PRICE_UP.rowtime) AS end_tstamp
        ONE ROW PER MATCH AFTER MATCH SKIP TO LAST PRICE_UP
        PATTERN (START_ROW PRICE_DOWN+ PRICE_UP)
        DEFINE PRICE_DOWN AS (LAST(PRICE_DOWN.price, 1) IS NULL AND PRICE_DOWN.price < START_ROW.price) OR PRICE_DOWN.price < LAST(PRICE_DOWN.price, 1),
            PRICE_UP AS PRICE_UP.price > LAST(PRICE_DOWN.price, 1)";
    // PRICE_UP is above the second last of the falling ones: LAST counts from the last one mapped.
    let found = ticker(&rows, clause);
    assert_eq!(found, text(&[&["ACME", "2026-04-01 10:00:04", "2026-04-01 10:00:07", "2026-04-01 10:00:08"]]));
}

#[test]
fn an_average_that_stays_low() {
    let rows = seconds(&[12, 17, 13, 16, 25, 2, 4, 10, 15, 25, 25, 30]);
    let clause = "MEASURES FIRST(A.rowtime) AS s, LAST(A.rowtime) AS e, AVG(A.price) AS p AFTER MATCH SKIP PAST LAST ROW PATTERN (A+ B) DEFINE A AS AVG(A.price) < 15";
    let want = text(&[
        &["ACME", "2026-04-01 10:00:00", "2026-04-01 10:00:03", "14.5"],
        &["ACME", "2026-04-01 10:00:05", "2026-04-01 10:00:10", "13.5"],
    ]);
    assert_eq!(ticker(&rows, clause), want);
}

#[test]
fn greedy_and_reluctant() {
    let rows = seconds(&[10, 11, 12, 13, 14, 16]);
    let clause = |b: &str| {
        format!(
            "MEASURES C.price AS p AFTER MATCH SKIP PAST LAST ROW PATTERN (A {b} C) DEFINE A AS A.price > 10, B AS B.price < 15, C AS C.price > 12"
        )
    };
    assert_eq!(ticker(&rows, &clause("B*")), text(&[&["ACME", "16.0"]]));
    assert_eq!(ticker(&rows, &clause("B*?")), text(&[&["ACME", "13.0"], &["ACME", "16.0"]]));
}

#[test]
fn a_drop_within_an_hour() {
    let at =
        ["10:00", "10:20", "10:40", "11:00", "11:20", "11:40", "12:00", "12:20", "12:40", "13:00", "13:20"].map(|at| format!("{at}:00"));
    let rows = rows_of(&at.iter().map(String::as_str).collect::<Vec<_>>(), &[20, 17, 18, 11, 14, 9, 15, 14, 24, 1, 19]);
    let clause = "MEASURES C.rowtime AS t, A.price - C.price AS d AFTER MATCH SKIP PAST LAST ROW PATTERN (A B* C) WITHIN INTERVAL '1' HOUR
        DEFINE B AS B.price > A.price - 10, C AS C.price < A.price - 10";
    assert_eq!(ticker(&rows, clause), text(&[&["ACME", "2026-04-01 13:00:00", "14.0"]]));
}

#[test]
fn where_the_next_match_starts() {
    let rows = seconds(&[7, 9, 10, 5, 10, 7, 14]);
    let found = |skip: &str| {
        let clause = format!(
            "MEASURES SUM(A.price) AS s, FIRST(rowtime) AS f, LAST(rowtime) AS l {skip} PATTERN (A+ C) DEFINE A AS SUM(A.price) < 30"
        );
        let second = |at: &str| at.trim_start_matches("2026-04-01 10:00:").trim().parse::<u32>().unwrap() + 1;
        let mut rows: Vec<_> = ticker(&rows, &clause).into_iter().map(|row| (second(&row[2]), second(&row[3]), row[1].clone())).collect();
        rows.sort();
        rows.into_iter().map(|(from, to, sum)| format!("{from}-{to} {sum}")).collect::<Vec<_>>()
    };
    assert_eq!(found("AFTER MATCH SKIP PAST LAST ROW"), ["1-4 26.0", "5-7 17.0"]);
    let next = ["1-4 26.0", "2-5 24.0", "3-6 25.0", "4-7 22.0", "5-7 17.0"];
    assert_eq!(found("AFTER MATCH SKIP TO NEXT ROW"), next[..]);
    assert_eq!(found(""), next[..], "Flink's default");
    assert_eq!(found("AFTER MATCH SKIP TO LAST A"), ["1-4 26.0", "3-6 25.0", "5-7 17.0"]);
}

/// The event time of results goes on: windows over matches, and a pattern of a view with members of rows.
#[test]
fn matches_are_rows_with_an_event_time() {
    let ddl = "CREATE TABLE t (k INT, r ROW<x INT, y STRING>, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH ('connector' = 'topics', 'format' = 'json');
        CREATE VIEW pairs AS SELECT * FROM t MATCH_RECOGNIZE (PARTITION BY k ORDER BY ts
            MEASURES A.r.y AS y, B.r.x - A.r.x AS up, MATCH_ROWTIME(ts) AS at AFTER MATCH SKIP PAST LAST ROW PATTERN (A B) WITHIN INTERVAL '10' SECOND
            DEFINE B AS B.r.x > A.r.x) AS m;";
    let record = |(s, x): (u32, i32)| format!("{{\"k\":1,\"r\":{{\"x\":{x},\"y\":\"y{x}\"}},\"ts\":\"2026-01-01 00:00:{s:02}\"}}");
    let records: Vec<String> = [(1, 5), (2, 7), (3, 1), (9, 2), (14, 1), (25, 9), (26, 11), (59, 0)].into_iter().map(record).collect();
    let window = "SELECT window_start, COUNT(*) AS n, SUM(up) AS up, MIN(y) AS y FROM TABLE(TUMBLE(TABLE pairs, DESCRIPTOR(at), INTERVAL '10' SECOND)) GROUP BY window_start, window_end";
    let got = run(ddl, window, vec![records.clone()], 2, &[3], &[2], 3);
    let want = text(&[&["2026-01-01 00:00:00", "2", "3", "y1"], &["2026-01-01 00:00:20", "1", "2", "y9"]]);
    assert_eq!(got.into_keys().collect::<Vec<_>>(), want);
    let legacy = "SELECT k, TUMBLE_START(m.at, INTERVAL '10' SECOND) AS w, SUM(m.up) AS up FROM pairs AS m GROUP BY k, TUMBLE(m.at, INTERVAL '10' SECOND)";
    let got = run(ddl, legacy, vec![records], 2, &[3], &[2], 3);
    assert_eq!(got.into_keys().collect::<Vec<_>>(), text(&[&["1", "2026-01-01 00:00:00", "3"], &["1", "2026-01-01 00:00:20", "2"]]));
}

/// What EXPLAIN says of a query.
fn explained(sql: &str) -> String {
    let feeds = Feeds(BTreeMap::from([("t".to_string(), Feed::new("t", vec![], 1))]));
    let mut session = crate::session::Session::new(std::sync::Arc::new(feeds));
    let outcomes = session.run("test.sql", &format!("{DDL}\nEXPLAIN {sql}")).unwrap_or_else(|e| panic!("{sql}\n{}", e.report()));
    match outcomes.into_iter().last() {
        Some(crate::session::Outcome::Text(text)) => text,
        other => panic!("no plan: {other:?}"),
    }
}

#[test]
fn a_plan_says_what_a_pattern_keeps() {
    let query = |within: &str| {
        explained(&format!(
            "SELECT * FROM t MATCH_RECOGNIZE (PARTITION BY k ORDER BY ts MEASURES A.id AS a PATTERN (A B+ C) {within} DEFINE B AS B.x > A.x)"
        ))
    };
    let bounded = query("WITHIN INTERVAL '10' MINUTE");
    assert!(bounded.contains("MatchRecognize: PATTERN (A B+ C)") && bounded.contains("A B+ C within 10m"), "{bounded}");
    assert!(bounded.contains("partial matches and their rows") && !bounded.contains("nothing bounds"), "{bounded}");
    // Only what is looked at is read.
    assert!(bounded.contains("reads k, id, x, ts"), "{bounded}");
    let unbounded = query("");
    assert!(unbounded.contains("nothing bounds the state of query-pattern-1"), "{unbounded}");
}
