//! What is measured, as types; no back end here.
//!
//! Invariant: a counter is a relaxed atomic that its task owns; nothing on the record path formats, hashes or locks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

pub use crate::time::human_duration;

/// A count that only grows.
#[derive(Debug, Default, Clone)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }
    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A value that goes up and down.
#[derive(Debug, Default, Clone)]
pub struct Gauge(Arc<AtomicI64>);

impl Gauge {
    /// Sets.
    pub fn set(&self, v: i64) {
        self.0.store(v, Relaxed);
    }
    /// The value.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// Where a metric belongs: its name plus the operator and task index it is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MetricKey {
    /// Name with unit, snake case, no prefix: `records_in`, `watermark_ms`.
    pub name: &'static str,
    /// Operator id.
    pub operator: String,
    /// Task index.
    pub task: u32,
}

/// One registered metric.
#[derive(Debug, Clone)]
pub enum Metric {
    /// Only grows.
    Counter(Counter),
    /// Goes up and down.
    Gauge(Gauge),
}

/// All metrics of a running job; registered once at task start, read by the status block, Prometheus and tests.
#[derive(Debug, Default, Clone)]
pub struct Metrics(Arc<Mutex<BTreeMap<MetricKey, Metric>>>);

impl Metrics {
    /// The counter of that key, made on first use; a restarted task goes on counting.
    pub fn counter(&self, name: &'static str, operator: &str, task: u32) -> Counter {
        let mut all = self.lock();
        let metric = all.entry(MetricKey { name, operator: operator.into(), task }).or_insert_with(|| Metric::Counter(Counter::default()));
        match metric {
            Metric::Counter(c) => c.clone(),
            Metric::Gauge(_) => Counter::default(),
        }
    }

    /// The gauge of that key, made on first use.
    pub fn gauge(&self, name: &'static str, operator: &str, task: u32) -> Gauge {
        let mut all = self.lock();
        let metric = all.entry(MetricKey { name, operator: operator.into(), task }).or_insert_with(|| Metric::Gauge(Gauge::default()));
        match metric {
            Metric::Gauge(g) => g.clone(),
            Metric::Counter(_) => Gauge::default(),
        }
    }

    /// Everything, in key order.
    pub fn snapshot(&self) -> Vec<(MetricKey, Metric)> {
        self.lock().iter().map(|(k, m)| (k.clone(), m.clone())).collect()
    }

    /// The sum of a counter over all operators and tasks.
    pub fn sum(&self, name: &str) -> u64 {
        self.lock().iter().filter(|(k, _)| k.name == name).map(|(_, m)| if let Metric::Counter(c) = m { c.get() } else { 0 }).sum()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<MetricKey, Metric>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Rows that entered at a source.
pub const RECORDS_IN: &str = "records_in";
/// Rows handed to a sink.
pub const RECORDS_OUT: &str = "records_out";
/// Rows that left an operator, by all its ports.
pub const ROWS_OUT: &str = "rows_out";
/// Rows later than allowed.
pub const LATE: &str = "late";
/// Rows refused under policy dead-letter.
pub const DEAD_LETTERED: &str = "dead_lettered";
/// Rows refused under policy drop.
pub const DROPPED: &str = "dropped";
/// Rows that `dedup_by` has seen before.
pub const DUPLICATES: &str = "duplicates";
/// Watermark of a task, in event-time milliseconds.
pub const WATERMARK_MS: &str = "watermark_ms";
/// Nanoseconds a task was busy in `step`.
pub const BUSY_NS: &str = "busy_ns";
/// Nanoseconds a task waited for room downstream.
pub const BLOCKED_NS: &str = "blocked_ns";
/// Bytes of state held in memory by a task.
pub const STATE_BYTES: &str = "state_bytes";
/// Keys that an operator holds in memory, over all its tables.
pub const STATE_KEYS: &str = "state_keys";
/// Keys of state that nothing bounds, of all tasks, when last warned of: 1 M, and each doubling.
pub const UNBOUNDED_KEYS: &str = "unbounded_keys";

/// `38 MB`, `1.2 GB`: sizes in powers of 1000.
pub fn human_bytes(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} B"),
        1_000..1_000_000 => format!("{} kB", n / 1_000),
        1_000_000..1_000_000_000 => format!("{} MB", n / 1_000_000),
        _ => format!("{:.1} GB", n as f64 / 1e9),
    }
}
