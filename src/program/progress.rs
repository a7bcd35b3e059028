//! A running job in numbers: what the status block, plain lines, JSON lines and Prometheus are made from.
//!
//! Invariant: made from counters and the status cell alone; looking changes nothing and waits for nobody.

use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use waterwheel_engine::env::Env;
use waterwheel_engine::graph::PhysicalPlan;
use waterwheel_engine::observe::{
    BLOCKED_NS, BUSY_NS, DEAD_LETTERED, DROPPED, DUPLICATES, LATE, Metric, MetricKey, Metrics, RECORDS_IN, RECORDS_OUT, WATERMARK_MS,
};
use waterwheel_engine::runtime::{JobRunner, Phase, StatusCell};

/// One look at a job. As JSON it is one line of `run --json`; names and meanings stay.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Progress {
    /// Job name.
    pub job: String,
    /// `recovering`, `running`, `stopping`, `restarting` or `finished`.
    pub phase: &'static str,
    /// Why it restarts, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Seconds since the process began to run it.
    pub seconds: f64,
    /// Tasks.
    pub tasks: usize,
    /// Records read by this process.
    pub records_in: u64,
    /// Rows handed to sinks by this process.
    pub records_out: u64,
    /// Of late, per second.
    pub in_per_second: f64,
    /// Of late, per second.
    pub out_per_second: f64,
    /// How far event time has come everywhere, in milliseconds since 1970.
    pub watermark_ms: Option<i64>,
    /// Behind the clock on the wall.
    pub watermark_lag_ms: Option<i64>,
    /// Newest complete checkpoint.
    pub checkpoint: Option<u64>,
    /// Since it was complete.
    pub checkpoint_age_ms: Option<u64>,
    /// Its files.
    pub checkpoint_bytes: u64,
    /// Newest epoch whose output is visible.
    pub published: Option<u64>,
    /// Checkpoints that failed.
    pub failed_checkpoints: u64,
    /// Checkpoint that the job went on from.
    pub resumed_from: Option<u64>,
    /// Recovery took this long.
    pub recovery_ms: u64,
    /// Restarts within this process.
    pub restarts: u64,
    /// Rows later than allowed.
    pub late: u64,
    /// Bad records put aside.
    pub dead_lettered: u64,
    /// Bad records dropped.
    pub dropped: u64,
    /// Duplicates dropped.
    pub duplicates: u64,
    /// The operator that works most, and how much of the time, 0 to 1.
    pub busiest: Option<(String, f64)>,
    /// The operator that waits most for room downstream, for whom, and how much of the time.
    pub held_back: Option<(String, String, f64)>,
    /// Who waits for the outside, and why.
    pub waiting: BTreeMap<String, String>,
}

/// Looks at a job again and again; rates are between two looks.
pub struct Watcher {
    job: String,
    env: Env,
    metrics: Metrics,
    status: StatusCell,
    /// Head of a chain, and the heads it sends to.
    downstream: BTreeMap<String, Vec<String>>,
    begun: Duration,
    last: Option<Look>,
}

struct Look {
    at: Duration,
    records: (u64, u64),
    busy: BTreeMap<String, (u64, u64)>,
}

impl Watcher {
    /// Of a job that is about to run this plan.
    pub fn new(runner: &JobRunner, plan: &PhysicalPlan, env: &Env) -> Self {
        let mut downstream: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for edge in &plan.edges {
            downstream.entry(plan.chains[edge.from].head.to_string()).or_default().push(plan.chains[edge.to].head.to_string());
        }
        let begun = env.clock.monotonic();
        Watcher {
            job: plan.job.clone(),
            env: env.clone(),
            metrics: runner.metrics(),
            status: runner.status(),
            downstream,
            begun,
            last: None,
        }
    }

    /// The job as of now.
    pub fn look(&mut self) -> Progress {
        let now = self.env.clock.monotonic();
        let status = self.status.get();
        let all = self.metrics.snapshot();
        let sum = |name: &str| counters(&all, name).map(|(_, n)| n).sum::<u64>();
        let (phase, reason) = phase(&status.phase);
        let records = (sum(RECORDS_IN), sum(RECORDS_OUT));
        let watermark_ms = watermark(&all);
        let wall = self.env.clock.wall_ms();
        let look = Look { at: now, records, busy: busy(&all) };
        let mut progress = Progress {
            job: self.job.clone(),
            phase,
            reason,
            seconds: now.saturating_sub(self.begun).as_secs_f64(),
            tasks: status.tasks,
            records_in: records.0,
            records_out: records.1,
            watermark_ms,
            watermark_lag_ms: watermark_ms.map(|w| wall.saturating_sub(w)),
            checkpoint: status.checkpoint,
            checkpoint_age_ms: status.checkpoint.map(|_| now.saturating_sub(status.checkpoint_at).as_millis() as u64),
            checkpoint_bytes: status.checkpoint_bytes,
            published: status.published,
            failed_checkpoints: status.failed_checkpoints,
            resumed_from: status.resumed_from,
            recovery_ms: status.recovery.as_millis() as u64,
            restarts: status.restarts,
            late: sum(LATE),
            dead_lettered: sum(DEAD_LETTERED),
            dropped: sum(DROPPED),
            duplicates: sum(DUPLICATES),
            waiting: status.waiting,
            ..Progress::default()
        };
        if let Some(last) = &self.last {
            self.rates(&mut progress, last, &look);
        }
        self.last = Some(look);
        progress
    }

    fn rates(&self, progress: &mut Progress, last: &Look, look: &Look) {
        let seconds = look.at.saturating_sub(last.at).as_secs_f64().max(1e-3);
        progress.in_per_second = look.records.0.saturating_sub(last.records.0) as f64 / seconds;
        progress.out_per_second = look.records.1.saturating_sub(last.records.1) as f64 / seconds;
        let share = |now: u64, before: u64| (now.saturating_sub(before) as f64 / 1e9 / seconds).min(1.0);
        let shares: Vec<(&String, f64, f64)> = look
            .busy
            .iter()
            .map(|(operator, (busy, blocked))| {
                let before = last.busy.get(operator).copied().unwrap_or_default();
                (operator, share(*busy, before.0), share(*blocked, before.1))
            })
            .collect();
        let most = |shares: &mut dyn Iterator<Item = (String, f64)>| shares.max_by(|a, b| a.1.total_cmp(&b.1)).filter(|s| s.1 > 0.01);
        progress.busiest = most(&mut shares.iter().map(|(o, busy, _)| (o.to_string(), *busy)));
        let held = most(&mut shares.iter().map(|(o, _, blocked)| (o.to_string(), *blocked)));
        progress.held_back = held.and_then(|(operator, blocked)| {
            let below = self.downstream.get(&operator)?;
            let by = most(&mut shares.iter().filter(|(o, ..)| below.contains(o)).map(|(o, busy, _)| (o.to_string(), *busy)))?;
            Some((operator, by.0, blocked))
        });
    }
}

fn phase(phase: &Phase) -> (&'static str, Option<String>) {
    match phase {
        Phase::Recovering => ("recovering", None),
        Phase::Running => ("running", None),
        Phase::Stopping => ("stopping", None),
        Phase::Restarting { reason } => ("restarting", Some(reason.clone())),
        Phase::Finished => ("finished", None),
    }
}

fn counters<'a>(all: &'a [(MetricKey, Metric)], name: &str) -> impl Iterator<Item = (&'a MetricKey, u64)> {
    all.iter().filter(move |(key, _)| key.name == name).filter_map(|(key, metric)| match metric {
        Metric::Counter(c) => Some((key, c.get())),
        Metric::Gauge(_) => None,
    })
}

/// The lowest watermark of all tasks that have one. A gauge that was never set says nothing, and neither does the end of time.
fn watermark(all: &[(MetricKey, Metric)]) -> Option<i64> {
    let gauges = all.iter().filter(|(key, _)| key.name == WATERMARK_MS).filter_map(|(_, metric)| match metric {
        Metric::Gauge(g) => Some(g.get()),
        Metric::Counter(_) => None,
    });
    gauges.filter(|w| !matches!(*w, 0 | i64::MIN | i64::MAX)).min()
}

/// Nanoseconds busy and blocked of the busiest task of each operator.
fn busy(all: &[(MetricKey, Metric)]) -> BTreeMap<String, (u64, u64)> {
    let mut most: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (key, n) in counters(all, BUSY_NS) {
        let entry = most.entry(key.operator.clone()).or_default();
        entry.0 = entry.0.max(n);
    }
    for (key, n) in counters(all, BLOCKED_NS) {
        let entry = most.entry(key.operator.clone()).or_default();
        entry.1 = entry.1.max(n);
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watermark_is_the_lowest_that_is_known() {
        let metrics = Metrics::default();
        for (task, at) in [(0, 0), (1, i64::MAX), (2, 7_000), (3, 5_000)] {
            metrics.gauge(WATERMARK_MS, "window", task).set(at);
        }
        assert_eq!(watermark(&metrics.snapshot()), Some(5_000));
        assert_eq!(watermark(&[]), None);
    }

    #[test]
    fn an_operator_is_as_busy_as_its_busiest_task() {
        let metrics = Metrics::default();
        metrics.counter(BUSY_NS, "window", 0).add(10);
        metrics.counter(BUSY_NS, "window", 1).add(30);
        metrics.counter(BLOCKED_NS, "source", 0).add(5);
        let busy = busy(&metrics.snapshot());
        assert_eq!((busy["window"], busy["source"]), ((30, 0), (0, 5)));
    }
}
