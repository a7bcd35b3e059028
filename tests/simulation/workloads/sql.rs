//! SQL: the rows as JSON, plans of the query planner, results as records of their own.
//!
//! A plan is made once and drawn at each start, as it is filed with a job.
//!
//! Invariant: what is expected is worked out from the rows, not by any query.

use super::super::graph::{Draw, Ground, OUT};
use super::super::input::{Input, ROWS};
use super::{Order, Workload, by_key, nothing};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use waterwheel::engine::error::Result;
use waterwheel::engine::graph::{SinkRef, SourceFactory, TopicRequest, TopicSinks};
use waterwheel::sql::arrow::datatypes::SchemaRef;
use waterwheel::sql::{Connectors, Outcome, Planned, Session};
use waterwheel_sql::catalog::Table;

/// Tables on the simulated broker.
struct Place(Option<Ground>);

impl Connectors for Place {
    fn source(&self, _table: &Table, _columns: &SchemaRef) -> Result<SourceFactory> {
        match &self.0 {
            Some(ground) => Ok(Box::new(ground.connect(ROWS))),
            None => Err(waterwheel::engine::error::Error::fatal("nothing is read while a plan is made")),
        }
    }
    fn sink(&self, _table: &Table) -> Result<SinkRef> {
        Ok(SinkRef::Topic(TopicRequest::new(OUT)))
    }
    fn infer(&self, _name: &str) -> Result<Option<Table>> {
        Ok(None)
    }
    fn names(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
    fn topics(&self) -> &dyn TopicSinks {
        match &self.0 {
            Some(ground) => ground,
            None => &waterwheel::engine::graph::NoTopics,
        }
    }
}

/// The plan of a query into a table of these columns.
fn planned(input: &Input, columns: &str, query: &str) -> Arc<Planned> {
    static PLANS: Mutex<BTreeMap<String, Arc<Planned>>> = Mutex::new(BTreeMap::new());
    let text = format!(
        "CREATE TABLE input (id BIGINT, `key` BIGINT, ms BIGINT, ts AS TO_TIMESTAMP_LTZ(ms, 3),
             WATERMARK FOR ts AS ts - INTERVAL '{}' MILLISECOND) WITH ('connector' = 'topics', 'topic' = '{ROWS}', 'format' = 'json');
         CREATE TABLE output ({columns}) WITH ('connector' = 'topics', 'topic' = '{OUT}', 'format' = 'json');
         INSERT INTO output {query};",
        // SQL's watermark is the highest time less the delay, without the millisecond more that the typed one leaves.
        input.disorder_ms + 1
    );
    let mut plans = PLANS.lock().unwrap_or_else(PoisonError::into_inner);
    let plan = plans.entry(text.clone()).or_insert_with(|| {
        let outcomes = Session::new(Arc::new(Place(None))).run("query.sql", &text).unwrap_or_else(|e| panic!("{}", e.report()));
        match outcomes.into_iter().next_back() {
            Some(Outcome::Insert(planned)) => Arc::from(planned),
            other => panic!("{text} came to {other:?}"),
        }
    });
    plan.clone()
}

fn draw(draw: &Draw, planned: &Planned) {
    let place = Place(Some(draw.ground.clone()));
    if let Err(e) = draw.job.draw(|graph| planned.draw(graph, &place, None)) {
        draw.job.problem(e.into_error("query.sql", ""));
    }
}

/// Count, sum, least and greatest of ids, as a row of JSON.
fn row(key: &str, ids: &[u32]) -> String {
    let sum: u64 = ids.iter().map(|id| u64::from(*id)).sum();
    let (low, high) = (ids.iter().min().unwrap_or(&0), ids.iter().max().unwrap_or(&0));
    format!("{{{key}\"n\":{},\"ids\":{sum},\"low\":{low},\"high\":{high}}}", ids.len())
}

const FIGURES: &str = "COUNT(*) AS n, SUM(id) AS ids, MIN(id) AS low, MAX(id) AS high";
const COLUMNS: &str = "n BIGINT, ids BIGINT, low BIGINT, high BIGINT";

/// Size and slide: hopping windows in half of the runs.
fn window(input: &Input) -> (i64, i64) {
    let slide = (input.span_ms / (1 + (input.variant % 4) as i64)).max(1);
    (slide * if input.variant.is_multiple_of(2) { 1 } else { 3 }, slide)
}

/// An aggregate over windows, of the rows that a condition lets through.
pub(crate) const WINDOWS: Workload = Workload {
    name: "sql-windows",
    draw: |d| {
        let (size, slide) = window(d.input());
        let of = "TABLE input, DESCRIPTOR(ts)";
        let windows = match size == slide {
            true => format!("TUMBLE({of}, INTERVAL '{size}' MILLISECOND)"),
            false => format!("HOP({of}, INTERVAL '{slide}' MILLISECOND, INTERVAL '{size}' MILLISECOND)"),
        };
        let query = format!("SELECT `key`, {FIGURES} FROM TABLE({windows}) WHERE MOD(id, 7) <> 3 GROUP BY window_start, window_end, `key`");
        draw(d, &planned(d.input(), &format!("`key` BIGINT, {COLUMNS}"), &query));
    },
    expect: |input| {
        let (size, slide) = window(input);
        let mut windows: BTreeMap<(u32, i64), Vec<u32>> = BTreeMap::new();
        for row in input.rows().filter(|row| row.id % 7 != 3) {
            let newest = row.at.div_euclid(slide) * slide;
            let starts = (0..size / slide).map(|back| newest - back * slide);
            starts.for_each(|start| windows.entry((row.key, start)).or_default().push(row.id));
        }
        windows.into_iter().map(|((key, _), ids)| (String::new(), row(&format!("\"key\":{key},"), &ids))).collect()
    },
    order: Order::None,
    also: nothing,
};

/// An aggregate over the whole stream, kept up to date by key.
pub(crate) const GROUPS: Workload = Workload {
    name: "sql-groups",
    draw: |d| {
        let query = format!("SELECT `key`, {FIGURES} FROM input GROUP BY `key`");
        draw(d, &planned(d.input(), &format!("`key` BIGINT, {COLUMNS}, PRIMARY KEY (`key`) NOT ENFORCED"), &query));
    },
    expect: |input| {
        let of_key = |(key, rows): (u32, Vec<super::super::input::Row>)| {
            let ids: Vec<u32> = rows.iter().map(|row| row.id).collect();
            (format!("{{\"key\":{key}}}"), row(&format!("\"key\":{key},"), &ids))
        };
        by_key(input).into_iter().map(of_key).collect()
    },
    order: Order::Last,
    also: nothing,
};

/// Each row with figures of the rows of its key up to it: so many before it, or all at most a span earlier.
pub(crate) const OVER: Workload = Workload {
    name: "sql-over",
    draw: |d| {
        let over = match frame(d.input()) {
            Frame::Rows(n) => format!("ORDER BY ts, id ROWS BETWEEN {n} PRECEDING AND CURRENT ROW"),
            Frame::Span(ms) => format!("ORDER BY ts RANGE BETWEEN INTERVAL '{ms}' MILLISECOND PRECEDING AND CURRENT ROW"),
        };
        let query = format!(
            "SELECT id, COUNT(*) OVER w AS n, SUM(id) OVER w AS ids, MIN(id) OVER w AS low, MAX(id) OVER w AS high
             FROM input WINDOW w AS (PARTITION BY `key` {over})"
        );
        draw(d, &planned(d.input(), &format!("id BIGINT, {COLUMNS}"), &query));
    },
    expect: |input| {
        let mut all = Vec::new();
        for mut rows in by_key(input).into_values() {
            rows.sort_by_key(|row| (row.at, row.id));
            for (at, own) in rows.iter().enumerate() {
                let frame = match frame(input) {
                    Frame::Rows(n) => &rows[at.saturating_sub(n)..=at],
                    Frame::Span(ms) => {
                        let (first, end) = (own.at - ms, rows.partition_point(|row| row.at <= own.at));
                        &rows[rows.partition_point(|row| row.at < first)..end]
                    }
                };
                let ids: Vec<u32> = frame.iter().map(|row| row.id).collect();
                all.push((String::new(), row(&format!("\"id\":{},", own.id), &ids)));
            }
        }
        all
    },
    order: Order::None,
    also: nothing,
};

enum Frame {
    Rows(usize),
    Span(i64),
}

fn frame(input: &Input) -> Frame {
    let size = input.variant / 2 % 12;
    if input.variant.is_multiple_of(2) { Frame::Rows(size as usize) } else { Frame::Span(size as i64 * input.span_ms / 8) }
}

/// An aggregate of an aggregate: what changes is taken back, and groups come and go.
pub(crate) const NESTED: Workload = Workload {
    name: "sql-nested",
    draw: |d| {
        let inner = "SELECT `key`, COUNT(*) AS c, MAX(id) AS id FROM input GROUP BY `key`";
        let query = format!("SELECT MOD(c, 5) AS rest, {FIGURES} FROM ({inner}) AS counts GROUP BY MOD(c, 5)");
        draw(d, &planned(d.input(), &format!("rest BIGINT, {COLUMNS}, PRIMARY KEY (rest) NOT ENFORCED"), &query));
    },
    expect: |input| {
        let mut groups: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        for rows in by_key(input).values() {
            let newest = rows.iter().map(|row| row.id).max().unwrap_or(0);
            groups.entry(rows.len() % 5).or_default().push(newest);
        }
        groups.into_iter().map(|(rest, ids)| (format!("{{\"rest\":{rest}}}"), row(&format!("\"rest\":{rest},"), &ids))).collect()
    },
    order: Order::Table,
    also: nothing,
};
