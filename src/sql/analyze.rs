//! `EXPLAIN ANALYZE`: what each operator of a query did, once it has run to its end.
//!
//! Invariant: the numbers are those of the job's metrics; rows of the query go nowhere.

use waterwheel_engine::graph::{Explain, ExplainedOperator};
use waterwheel_engine::observe::{BUSY_NS, Metric, Metrics, RECORDS_OUT, ROWS_OUT, STATE_BYTES, STATE_KEYS, human_bytes};
use waterwheel_sql::ShownRow;

/// Headings of the table.
pub(super) const HEAD: [&str; 5] = ["operator", "rows out", "keys at the end", "state in memory", "busy"];

/// A row for each operator; time and bytes are those of a chain, at its head.
pub(super) fn rows(explained: &Explain, metrics: &Metrics) -> Vec<ShownRow> {
    let all = metrics.snapshot();
    let sum = |name: &str, operator: &str| -> Option<u64> {
        let mut of = all.iter().filter(|(key, _)| key.name == name && key.operator == operator).peekable();
        of.peek()?;
        let value = |metric: &Metric| match metric {
            Metric::Counter(count) => count.get(),
            Metric::Gauge(gauge) => gauge.get().unsigned_abs(),
        };
        Some(of.map(|(_, metric)| value(metric)).sum())
    };
    let shown = |value: Option<u64>, text: &dyn Fn(u64) -> String| value.map_or_else(String::new, text);
    let row = |o: &ExplainedOperator| {
        let out = sum(RECORDS_OUT, &o.id).filter(|_| o.kind == "sink").or_else(|| sum(ROWS_OUT, &o.id));
        let of_chain = |name| sum(name, &o.id).filter(|_| o.id == o.chain);
        let cells = vec![
            o.id.clone(),
            shown(out, &|n| n.to_string()),
            shown(sum(STATE_KEYS, &o.id), &|n| n.to_string()),
            shown(of_chain(STATE_BYTES), &human_bytes),
            shown(of_chain(BUSY_NS), &|n| format!("{:.3} s", n as f64 / 1e9)),
        ];
        ShownRow { cells, json: Err(String::new()) }
    };
    explained.operators.iter().map(row).collect()
}
