//! What each operator of a job has done: `explain --analyze` of a running one, `EXPLAIN ANALYZE` of a query that ran to its end.
//!
//! Invariant: the numbers are those of the job's metrics, all tasks of an operator together; looking changes nothing.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use waterwheel_engine::graph::{Explain, ExplainedOperator};
use waterwheel_engine::observe::{BUSY_NS, Metric, Metrics, RECORDS_OUT, ROWS_OUT, STATE_BYTES, STATE_KEYS, human_bytes};

/// Headings of [`Done::cells`].
pub(crate) const HEAD: [&str; 5] = ["operator", "rows out", "keys in memory", "state in memory", "busy"];

/// What an operator has done; nothing where it is not counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Done {
    /// Stable id.
    pub(crate) operator: String,
    /// Rows that have left it, or records that a sink has published.
    pub(crate) rows_out: Option<u64>,
    /// Keys of its state that are in memory now.
    pub(crate) keys: Option<u64>,
    /// Bytes of state in memory now, of a chain of operators at its head.
    pub(crate) state_bytes: Option<u64>,
    /// Nanoseconds of work, of a chain of operators at its head.
    pub(crate) busy_ns: Option<u64>,
}

/// Numbers of all operators, by id and name of the metric.
type Numbers = BTreeMap<String, BTreeMap<String, u64>>;

/// All that a job's metrics say of its operators now.
pub(crate) fn numbers(metrics: &Metrics) -> Numbers {
    let mut all = Numbers::new();
    for (key, metric) in metrics.snapshot() {
        let value = match metric {
            Metric::Counter(count) => count.get(),
            Metric::Gauge(gauge) => gauge.get().unsigned_abs(),
        };
        *all.entry(key.operator.to_string()).or_default().entry(key.name.to_string()).or_insert(0) += value;
    }
    all
}

/// What the operators of a plan have done, upstream before downstream.
pub(crate) fn done(explained: &Explain, numbers: &Numbers) -> Vec<Done> {
    let row = |o: &ExplainedOperator| {
        let number = |name: &str| numbers.get(&o.id)?.get(name).copied();
        let of_chain = |name| number(name).filter(|_| o.id == o.chain);
        Done {
            operator: o.id.clone(),
            rows_out: number(RECORDS_OUT).filter(|_| o.kind == "sink").or_else(|| number(ROWS_OUT)),
            keys: number(STATE_KEYS),
            state_bytes: of_chain(STATE_BYTES),
            busy_ns: of_chain(BUSY_NS),
        }
    };
    explained.operators.iter().map(row).collect()
}

impl Done {
    /// As a person reads it, under [`HEAD`].
    pub(crate) fn cells(&self) -> [String; 5] {
        let shown = |value: Option<u64>, text: &dyn Fn(u64) -> String| value.map_or_else(String::new, text);
        [
            self.operator.clone(),
            shown(self.rows_out, &|n| n.to_string()),
            shown(self.keys, &|n| n.to_string()),
            shown(self.state_bytes, &human_bytes),
            shown(self.busy_ns, &|n| format!("{:.3} s", n as f64 / 1e9)),
        ]
    }
}

/// A line an operator, numbers to the right.
pub(super) fn text(all: &[Done]) -> String {
    let lines: Vec<[String; 5]> = std::iter::once(HEAD.map(String::from)).chain(all.iter().map(Done::cells)).collect();
    let widths: Vec<usize> = (0..HEAD.len()).map(|i| lines.iter().map(|line| line[i].chars().count()).max().unwrap_or(0)).collect();
    let line = |cells: &[String; 5]| {
        let padded = cells.iter().zip(&widths).enumerate().map(|(i, (cell, width))| {
            let gap = " ".repeat(width - cell.chars().count());
            if i == 0 { format!("{cell}{gap}") } else { format!("{gap}{cell}") }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_string() + "\n"
    };
    lines.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_below_each_other() {
        let all = [
            Done { operator: "payments".into(), rows_out: Some(12_000), busy_ns: Some(1_500_000_000), ..Done::default() },
            Done { operator: "count".into(), rows_out: Some(7), keys: Some(7), ..Done::default() },
        ];
        let expected = "operator  rows out  keys in memory  state in memory     busy\n\
                        payments     12000                                   1.500 s\n\
                        count            7               7\n";
        assert_eq!(text(&all), expected);
    }
}
