//! The queries of the Nexmark benchmark on some 20,000 events, against DataFusion.
//!
//! DataFusion gets the text of the query itself; where it does not know a construct (windows) or leaves open what the dialect
//! defines (which of two rows is first that are equal in order), a text of its own, which says what it is about.

use super::oracle::{computed, context};
use super::world::{Feed, Feeds, Running, count_char};
use crate::json::JsonRows;
use crate::session::{Outcome, Session};
use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::datasource::MemTable;
use datafusion_expr::ScalarUDF;
use std::collections::BTreeMap;
use std::sync::Arc;
use waterwheel_engine::graph::{LogicalGraph, SinkRef};

#[path = "../../benches/nexmark/generator.rs"]
mod generator;

const EVENTS: u64 = 20_000;

macro_rules! texts {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("../../benches/nexmark/queries/", $name, ".sql")))),*]
    };
}

const TABLES: &str = include_str!("../../benches/nexmark/queries/tables.sql");
const QUERIES: &[(&str, &str)] = texts!["q0" "q1" "q2" "q3" "q4" "q5" "q6" "q7" "q8" "q9" "q10" "q11" "q12" "q13" "q14" "q15" "q16" "q17" "q18" "q19" "q20" "q21" "q22" "q23"];

/// Those that can be run and have one answer.
const CHECKED: &[&str] = &[
    "q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "q8", "q9", "q10", "q11", "q13", "q14", "q15", "q16", "q17", "q18", "q19", "q20",
    "q21", "q22", "q23",
];
/// Those of them that have no answer before a window is over.
const BY_WINDOW: &[&str] = &["q5", "q7", "q8", "q11"];
/// Those that can be run and whose answer depends on the clock.
const BY_CLOCK: &[&str] = &["q12"];

fn text(name: &str) -> &'static str {
    QUERIES.iter().find(|q| q.0 == name).unwrap().1
}

/// The query of an INSERT, without the table that it is for; views before it stay.
fn select(name: &str) -> (String, String) {
    let (before, insert) = text(name).split_once("INSERT INTO ").unwrap();
    let is_read = |s: &&str| s.contains("CREATE VIEW") || s.contains("TABLE side_input");
    let views: Vec<&str> = before.split_inclusive(';').filter(is_read).collect();
    let query = insert.trim_start_matches(|c: char| c.is_alphanumeric()).trim().trim_end_matches(';');
    (views.concat(), query.to_string())
}

fn events(n: u64) -> Vec<String> {
    let events = generator::Events { seed: 7 };
    let record = |n| {
        let mut out = Vec::new();
        events.write(n, &mut out);
        String::from_utf8(out).unwrap()
    };
    (0..n).map(record).collect()
}

/// The same events, twenty times as far apart, so that they are in several windows of ten seconds.
fn slower(records: &[String]) -> Vec<String> {
    let slowed = |(n, record): (usize, &String)| {
        let (before, rest) = record.split_once("\"dateTime\":\"").unwrap();
        let (_, after) = rest.split_once('"').unwrap();
        let ms = n * 2;
        format!("{before}\"dateTime\":\"2024-01-01 00:{:02}:{:02}.{:03}\"{after}", ms / 60_000, ms / 1000 % 60, ms % 1000)
    };
    records.iter().enumerate().map(slowed).collect()
}

fn schema() -> SchemaRef {
    let row = |fields: &[(&str, DataType)]| {
        DataType::Struct(fields.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect::<Vec<_>>().into())
    };
    let (int, text, time) = (DataType::Int64, DataType::Utf8, DataType::Timestamp(TimeUnit::Millisecond, None));
    let field = |name: &'static str, kind: &DataType| (name, kind.clone());
    let person = row(&[
        field("id", &int),
        field("name", &text),
        field("emailAddress", &text),
        field("creditCard", &text),
        field("city", &text),
        field("state", &text),
        field("dateTime", &time),
        field("extra", &text),
    ]);
    let auction = row(&[
        field("id", &int),
        field("itemName", &text),
        field("description", &text),
        field("initialBid", &int),
        field("reserve", &int),
        field("dateTime", &time),
        field("expires", &time),
        field("seller", &int),
        field("category", &int),
        field("extra", &text),
    ]);
    let bid = row(&[
        field("auction", &int),
        field("bidder", &int),
        field("price", &int),
        field("channel", &text),
        field("url", &text),
        field("dateTime", &time),
        field("extra", &text),
    ]);
    let fields = [("event_type", DataType::Int32), ("person", person), ("auction", auction), ("bid", bid)];
    Arc::new(Schema::new(fields.into_iter().map(|(name, kind)| Field::new(name, kind, true)).collect::<Vec<_>>()))
}

/// What DataFusion makes of a query over these records; they are numbered, `seq`.
fn oracle(records: &[String], sql: &str) -> BTreeMap<Vec<String>, i64> {
    let mut rows = JsonRows::new(schema()).unwrap();
    records.iter().for_each(|r| rows.push(r.as_bytes()).unwrap());
    let batch = rows.take().unwrap();
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..records.len() as i64));
    let fields: Vec<Field> =
        schema().fields().iter().map(|f| f.as_ref().clone()).chain([Field::new("seq", DataType::Int64, false)]).collect();
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let columns = batch.columns().iter().cloned().chain([numbers]).collect();
    let batch = arrow::array::RecordBatch::try_new(schema.clone(), columns).unwrap();
    let context = context();
    context.register_udf(ScalarUDF::from(count_char()));
    context.register_table("events", Arc::new(MemTable::try_new(schema, vec![vec![batch]]).unwrap())).unwrap();
    let bids = "SELECT bid.auction AS auction, bid.bidder AS bidder, bid.price AS price, bid.channel AS channel, bid.url AS url,
        bid.dateTime AS dateTime, bid.extra AS extra, seq FROM events WHERE event_type = 2";
    let persons = "SELECT person.id AS id, person.name AS name, person.emailAddress AS emailAddress, person.creditCard AS creditCard,
        person.city AS city, person.state AS state, person.dateTime AS dateTime, person.extra AS extra FROM events WHERE event_type = 0";
    let auctions =
        "SELECT auction.id AS id, auction.itemName AS itemName, auction.description AS description, auction.initialBid AS initialBid,
        auction.reserve AS reserve, auction.dateTime AS dateTime, auction.expires AS expires, auction.seller AS seller,
        auction.category AS category, auction.extra AS extra FROM events WHERE event_type = 1";
    computed(&context, &format!("WITH bid AS ({bids}), person AS ({persons}), auction AS ({auctions}) {sql}"))
}

/// The table beside the stream of q13, as CSV: some auctions have none, some two.
fn side_input() -> Vec<String> {
    (1_000..2_400).filter(|key| key % 7 != 0).chain([1_001, 1_002]).map(|key| format!("{key},\"value, {key}\"")).collect()
}

/// A text of the oracle's own, where it needs one.
fn theirs(name: &str) -> String {
    let columns = "auction, bidder, price, channel, url, dateTime, extra";
    let window = |every: u32| format!("date_bin(INTERVAL '{every} seconds', dateTime, TIMESTAMP '1970-01-01 00:00:00')");
    match name {
        // Five windows of ten seconds for each bid; of each window the auctions with the most bids.
        "q5" => {
            let spread = (0..5).map(|i| format!("SELECT auction, {} - INTERVAL '{} seconds' AS ws FROM bid", window(2), 2 * i));
            let counts = format!(
                "SELECT auction, ws, COUNT(*) AS num FROM ({}) AS s GROUP BY auction, ws",
                spread.collect::<Vec<_>>().join(" UNION ALL ")
            );
            format!(
                "SELECT auction, num FROM (SELECT auction, num, MAX(num) OVER (PARTITION BY ws) AS most FROM ({counts}) AS c) AS m WHERE num >= most"
            )
        }
        "q7" => {
            let highest = format!("SELECT MAX(price) AS maxprice, ws FROM (SELECT price, {} AS ws FROM bid) AS b GROUP BY ws", window(10));
            format!(
                "SELECT b.auction, b.price, b.bidder, b.dateTime, b.extra FROM bid AS b JOIN ({highest}) AS h ON b.price = h.maxprice
                 WHERE b.dateTime >= h.ws AND b.dateTime <= h.ws + INTERVAL '10 seconds'"
            )
        }
        "q8" => format!(
            "SELECT p.id, p.name, p.ws FROM (SELECT DISTINCT id, name, CAST({0} AS TIMESTAMP(3)) AS ws FROM person) AS p
             JOIN (SELECT DISTINCT seller, CAST({0} AS TIMESTAMP(3)) AS ws FROM auction) AS a ON p.id = a.seller AND p.ws = a.ws",
            window(10)
        ),
        // Rows meet the whole table, whatever comes when.
        "q13" => {
            let rows = side_input();
            let rows =
                rows.iter().map(|row| row.replace('"', "'").replacen(',', ", ", 1)).map(|row| format!("({row})")).collect::<Vec<_>>();
            format!(
                "SELECT b.auction, b.bidder, b.price, b.dateTime, s.v FROM bid AS b JOIN (VALUES {}) AS s (k, v) ON MOD(b.auction, 10000) = s.k",
                rows.join(", ")
            )
        }
        // Of winning bids of one time that of the first auction, of bids of one price the first to come; there is no AVG of a moving
        // frame.
        "q6" => {
            let text = select(name).1.replace("B.price DESC)", "B.price DESC, B.seq)");
            let (before, rest) = text.split_once("AVG(Q.price) ").unwrap_or_default();
            let (over, from) = rest.split_once(")\n").unwrap_or_default();
            format!("{before}SUM(Q.price) {over}) / COUNT(*) {over})\n{from}")
        }
        // Of bids of one price and time the first to come.
        "q9" => select(name).1.replace("B.dateTime ASC)", "B.dateTime ASC, B.seq)"),
        // Where the pause before a bid is longer than ten seconds a session begins.
        "q11" => {
            let begins = "CASE WHEN LAG(dateTime) OVER (PARTITION BY bidder ORDER BY dateTime) >= dateTime - INTERVAL '10 seconds' THEN 0 ELSE 1 END";
            let numbered = format!(
                "SELECT bidder, dateTime, SUM(begins) OVER (PARTITION BY bidder ORDER BY dateTime ROWS UNBOUNDED PRECEDING) AS sid
                 FROM (SELECT bidder, dateTime, {begins} AS begins FROM bid) AS m"
            );
            format!(
                "SELECT bidder, COUNT(*) AS bid_count, MIN(dateTime) AS starttime, CAST(MAX(dateTime) + INTERVAL '10 seconds' AS TIMESTAMP(3)) AS endtime
                 FROM ({numbered}) AS n GROUP BY bidder, sid"
            )
        }
        "q10" => {
            "SELECT auction, bidder, price, dateTime, extra, to_char(dateTime, '%Y-%m-%d'), to_char(dateTime, '%H:%M') FROM bid".to_string()
        }
        // Of bids of one time the latest to come.
        "q18" => format!(
            "SELECT {columns} FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY bidder, auction ORDER BY dateTime DESC, seq DESC) AS n FROM bid) AS r WHERE n <= 1"
        ),
        // Of bids of one price the first to come.
        "q19" => format!(
            "SELECT {columns}, n FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY auction ORDER BY price DESC, seq) AS n FROM bid) AS r WHERE n <= 10"
        ),
        _ => select(name).1,
    }
}

#[test]
fn queries_that_run_answer_as_datafusion_does() {
    let in_two_seconds = events(EVENTS);
    let in_forty = slower(&in_two_seconds);
    for name in CHECKED {
        let records = if matches!(*name, "q5" | "q7" | "q8") { &in_forty } else { &in_two_seconds };
        let feed = Feed::new("events", vec![records.clone()], 700);
        let side = Feed::new("side_input", vec![side_input()], 100);
        side.reveal(usize::MAX);
        let feeds = Feeds(BTreeMap::from([("events".to_string(), feed.clone()), ("side_input".to_string(), side)]));
        let (views, query) = select(name);
        let mut running = Running::start(&feeds, &format!("{TABLES}{views}{query}"), 11, 2);
        feed.reveal(EVENTS as usize / 3);
        running.settle();
        // Windows have their results when time has passed them.
        if !BY_WINDOW.contains(name) {
            assert_eq!(running.rows.rows(), oracle(&feed.prefix(), &theirs(name)), "{name} after a third");
        }
        running.restart(3);
        feed.reveal(usize::MAX);
        running.finish();
        let (got, want) = (running.rows.rows(), oracle(records, &theirs(name)));
        assert!(!want.is_empty(), "{name} has no answer");
        let first = got.iter().find(|row| want.get(row.0) != Some(row.1)).or_else(|| want.iter().find(|row| got.get(row.0) != Some(row.1)));
        assert!(got == want, "{name}: {} rows, {} wanted, first difference {first:?}", got.len(), want.len());
    }
}

/// Which bids are in which window is a matter of the clock; that each is in one is not.
#[test]
fn windows_of_the_clock_lose_nothing() {
    for name in BY_CLOCK {
        let feed = Feed::new("events", vec![events(EVENTS)], 700);
        let feeds = Feeds(BTreeMap::from([("events".to_string(), feed.clone())]));
        let (views, query) = select(name);
        let mut running = Running::start(&feeds, &format!("{TABLES}{views}{query}"), 3, 2);
        feed.reveal(5_000);
        running.settle();
        running.restart(1);
        feed.reveal(usize::MAX);
        running.finish();
        let mut bids: BTreeMap<Vec<String>, i64> = BTreeMap::new();
        for (row, weight) in running.rows.rows() {
            assert_eq!(weight, 1);
            *bids.entry(vec![row[0].clone()]).or_insert(0) += row[1].parse::<i64>().unwrap();
        }
        let want = oracle(&feed.prefix(), "SELECT bidder, COUNT(*) FROM bid GROUP BY bidder");
        assert_eq!(bids.into_iter().map(|(k, n)| (vec![k[0].clone(), n.to_string()], 1)).collect::<BTreeMap<_, _>>(), want);
    }
}

#[test]
fn no_query_is_refused() {
    let feed = Feed::new("events", vec![Vec::new()], 1);
    let feeds = Feeds(BTreeMap::from([("events".to_string(), feed.clone()), ("side_input".to_string(), feed)]));
    let refused = |text: &str| {
        let mut session = Session::new(Arc::new(feeds.clone()));
        session.register(count_char());
        let outcomes = session.run("q.sql", &format!("{TABLES}{text}"))?;
        let Some(Outcome::Insert(insert)) = outcomes.into_iter().last() else { panic!("no insert: {text}") };
        let nowhere = SinkRef::Ready(Arc::new(crate::nowhere::Nowhere));
        insert.draw(&mut LogicalGraph::new("q"), &feeds, Some(nowhere)).map_err(|e| e.into_error("q.sql", text)).map(drop)
    };
    for (name, text) in QUERIES {
        refused(text).unwrap_or_else(|e| panic!("{name}: {}", e.report()));
        assert!(CHECKED.contains(name) || BY_CLOCK.contains(name), "{name}: its answer is to be checked");
    }
}

#[test]
fn events_have_the_shape_of_the_suite() {
    let records = events(50_000);
    let kind = |r: &String| r.as_bytes()["{\"event_type\":".len()] - b'0';
    let count = |k: u8| records.iter().filter(|r| kind(r) == k).count();
    assert_eq!((count(0), count(1), count(2)), (1_000, 3_000, 46_000));
    let bytes: usize = records.iter().map(String::len).sum();
    assert!((300..370).contains(&(bytes / records.len())), "{} bytes an event", bytes / records.len());
    assert_eq!(records, events(50_000));
    for record in records.iter().take(500) {
        let value: serde_json::Value = serde_json::from_str(record).unwrap();
        assert_eq!(value.as_object().unwrap().values().filter(|v| v.is_null()).count(), 2, "{record}");
    }
    assert!(records[49_999].contains("\"dateTime\":\"2024-01-01 00:00:04.999\""), "{}", records[49_999]);
    assert!(records[10_003].contains("\"dateTime\":\"2024-01-01 00:00:01\""), "{}", records[10_003]);
}
