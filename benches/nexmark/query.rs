//! One query, from its text to the end of the events.
//!
//! Invariant: a query that cannot be run says so; none is left out.

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::datatypes::DataType;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use waterwheel::engine::env::Env;
use waterwheel::engine::error::{Error, Result};
use waterwheel::engine::graph::{LogicalGraph, plan};
use waterwheel::sql::{Connectors, Outcome, Planned, ScalarFunction, Session, Tables};
use waterwheel::topics::TopicsUrl;
use waterwheel_benches::job::{Place, Running};
use waterwheel_benches::meter::peak_rss;

/// A query of the suite.
pub(crate) struct Query {
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
    /// Thousands of events per CPU-second that are wanted from Kafka: eight times Flink 2.2 on the same machine, fifteen times
    /// where it keeps much.
    pub(crate) wanted: u64,
}

macro_rules! queries {
    ($($name:literal $wanted:expr,)*) => {
        &[$(Query { name: $name, text: include_str!(concat!("queries/", $name, ".sql")), wanted: $wanted },)*]
    };
}

pub(crate) const QUERIES: &[Query] = queries![
    "q0" 8 * 225,
    "q1" 8 * 258,
    "q2" 8 * 267,
    "q3" 8 * 236,
    "q4" 15 * 55,
    "q5" 15 * 92,
    "q6" 0,
    "q7" 15 * 33,
    "q8" 8 * 220,
    "q9" 15 * 27,
    "q10" 8 * 181,
    "q11" 8 * 75,
    "q12" 8 * 191,
    "q13" 8 * 272,
    "q14" 8 * 274,
    "q15" 8 * 160,
    "q16" 15 * 29,
    "q17" 8 * 199,
    "q18" 8 * 83,
    "q19" 8 * 71,
    "q20" 15 * 38,
    "q21" 8 * 189,
    "q22" 8 * 241,
    "q23" 8 * 23,
];

const TABLES: &str = include_str!("queries/tables.sql");

/// Those whose rows are also measured on their way into a topic: light and many, few, changing, wide.
pub(crate) const WRITTEN: &[&str] = &["q1", "q5", "q8", "q17", "q20"];
const NOWHERE: &str = ") WITH ('connector' = 'blackhole')";

/// The query with a topic as its target; one whose rows change has a key there.
fn into_topic(query: &Query, topic: &str) -> String {
    let key = if query.name == "q17" { ", PRIMARY KEY (auction, `day`) NOT ENFORCED" } else { "" };
    query.text.replace(NOWHERE, &format!("{key}) WITH ('connector' = 'topics', 'topic' = '{topic}', 'format' = 'json')"))
}

/// Runs one query over a topic, into nothing or another topic, with so many bytes for a task's state, and prints what it took.
pub(crate) fn run(url: &str, topic: &str, name: &str, memory: usize, target: Option<&str>) -> Result<()> {
    let query = QUERIES.iter().find(|q| q.name == name).ok_or_else(|| Error::fatal(format!("there is no query {name}")))?;
    let tables = Tables::new(url.parse::<TopicsUrl>()?.open(&Env::real())?, Env::real(), true);
    let mut place = Place::default();
    let text = target.map_or_else(|| query.text.to_string(), |target| into_topic(query, target));
    let inserts = match planned(&tables, topic, query.name, &text, place.folder()) {
        Ok(inserts) => inserts,
        Err(why) => {
            println!("result\trefused: {}", why.lines().next().unwrap_or_default());
            return Ok(());
        }
    };
    place.settings.checkpoint.interval = Duration::from_secs(10);
    place.settings.memory_per_task = memory;
    let draw = move || {
        let mut graph = LogicalGraph::new("nexmark");
        for insert in &inserts {
            insert.draw(&mut graph, &tables, None).map_err(|e| Error::fatal(e.message()))?;
        }
        plan(&graph, tables.topics())
    };
    let (spent, _) = Running::start(place.runner(draw)).wait();
    let state = place.checkpoint_bytes();
    println!("result\t{}\t{}\t{}\t{state}", spent.cpu.as_secs_f64(), spent.wall.as_secs_f64(), peak_rss());
    Ok(())
}

/// The inserts of a query, or why it is refused.
fn planned(tables: &Tables, topic: &str, name: &str, text: &str, folder: &Path) -> std::result::Result<Vec<Planned>, String> {
    let mut session = Session::new(Arc::new(tables.clone()));
    session.register(count_char());
    let (side, out) = (side_input(folder)?, folder.join("q10").display().to_string());
    let declared = TABLES.replace("'topic' = 'nexmark'", &format!("'topic' = '{topic}'"));
    session.run("tables.sql", &declared).map_err(|e| e.report())?;
    let outcomes =
        session.run(name, &text.replace("/tmp/nexmark-side-input", &side).replace("/tmp/nexmark-q10", &out)).map_err(|e| e.report())?;
    let inserts: Vec<Planned> = outcomes.into_iter().filter_map(|o| if let Outcome::Insert(i) = o { Some(*i) } else { None }).collect();
    let mut graph = LogicalGraph::new("nexmark");
    for insert in &inserts {
        insert.draw(&mut graph, tables, None).map_err(|e| e.message().to_string())?;
    }
    Ok(inserts)
}

/// The table beside the stream of q13; where it is.
fn side_input(folder: &Path) -> std::result::Result<String, String> {
    let path = folder.join("side-input.csv");
    let rows: String = (0..10_000).map(|key| format!("{key},value {key}\n")).collect();
    std::fs::write(&path, rows).map_err(|e| format!("the side input cannot be written: {e}"))?;
    Ok(path.display().to_string())
}

/// How often a letter is in a text: the function of q14.
fn count_char() -> ScalarFunction {
    ScalarFunction::new("count_char", vec![DataType::Utf8, DataType::Utf8], DataType::Int64, |args: &[ArrayRef]| {
        let (texts, letters) = (args[0].as_string::<i32>(), args[1].as_string::<i32>());
        let count = |(text, letter): (Option<&str>, Option<&str>)| {
            let letter = letter?.chars().next()?;
            Some(text?.chars().filter(|c| *c == letter).count() as i64)
        };
        debug_assert_eq!(texts.len(), letters.len());
        Ok(Arc::new(texts.iter().zip(letters.iter()).map(count).collect::<Int64Array>()))
    })
}
