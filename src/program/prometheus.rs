//! `--metrics ADDR`: everything that is measured, for Prometheus, at `/metrics`.
//!
//! Invariant: a request sees the counters as they are, without stopping anything; a slow or broken client costs one second
//! of this thread and nothing of the job.

use super::progress::{Progress, Watcher};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::observe::{Metric, MetricKey, Metrics};

struct Exported {
    job: String,
    metrics: Metrics,
    watcher: Mutex<Watcher>,
}

impl fmt::Debug for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "metrics of {}", self.job)
    }
}

impl Collector for Exported {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let all = self.metrics.snapshot();
        // In key order, so the metrics of one name are neighbours.
        for family in all.chunk_by(|a, b| a.0.name == b.0.name) {
            self.family(&mut encoder, family)?;
        }
        let progress = self.watcher.lock().unwrap_or_else(PoisonError::into_inner).look();
        for (name, help, value) in job_gauges(&progress) {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            metric.encode_family(&[("job", self.job.as_str())])?.encode_gauge(&value)?;
        }
        Ok(())
    }
}

impl Exported {
    fn family(&self, encoder: &mut DescriptorEncoder, family: &[(MetricKey, Metric)]) -> Result<(), fmt::Error> {
        let Some((key, first)) = family.first() else { return Ok(()) };
        let kind = if matches!(first, Metric::Counter(_)) { MetricType::Counter } else { MetricType::Gauge };
        let mut descriptor = encoder.encode_descriptor(key.name, help(key.name), None, kind)?;
        for (key, metric) in family {
            let task = key.task.to_string();
            let labels = [("job", self.job.as_str()), ("operator", key.operator.as_str()), ("task", task.as_str())];
            let mut one = descriptor.encode_family(&labels)?;
            match metric {
                Metric::Counter(c) => one.encode_counter::<NoLabelSet, _, u64>(&c.get(), None)?,
                Metric::Gauge(g) => one.encode_gauge(&g.get())?,
            }
        }
        Ok(())
    }
}

fn help(name: &str) -> &'static str {
    use waterwheel_engine::observe as o;
    match name {
        o::RECORDS_IN => "Records read",
        o::RECORDS_OUT => "Rows handed to a sink",
        o::ROWS_OUT => "Rows that left an operator",
        o::LATE => "Rows later than allowed",
        o::DEAD_LETTERED => "Bad records put aside",
        o::DROPPED => "Bad records dropped",
        o::DUPLICATES => "Duplicates dropped",
        o::WATERMARK_MS => "Watermark in milliseconds since 1970",
        o::BUSY_NS => "Nanoseconds at work",
        o::BLOCKED_NS => "Nanoseconds waiting for room downstream",
        o::STATE_BYTES => "Bytes of state in memory",
        o::STATE_KEYS => "Keys of state in memory",
        o::UNBOUNDED_KEYS => "Keys of state that nothing bounds, of all tasks, when last warned of",
        _ => "Metric of the job",
    }
}

fn job_gauges(p: &Progress) -> [(&'static str, &'static str, i64); 8] {
    [
        ("running", "1 while records flow", i64::from(p.phase == "running")),
        ("tasks", "Tasks", p.tasks as i64),
        ("watermark_lag_ms", "Milliseconds that the job's watermark is behind the clock; -1 without one", p.watermark_lag_ms.unwrap_or(-1)),
        ("restarts", "Restarts within this process", p.restarts as i64),
        ("checkpoint_epoch", "Newest complete checkpoint", p.checkpoint.unwrap_or(0) as i64),
        ("checkpoint_age_ms", "Milliseconds since it was complete", p.checkpoint_age_ms.map_or(-1, |age| age as i64)),
        ("checkpoint_bytes", "Bytes of its files", p.checkpoint_bytes as i64),
        ("failed_checkpoints", "Checkpoints that failed", p.failed_checkpoints as i64),
    ]
}

/// Serves until the process ends.
///
/// # Errors
/// An address that cannot be listened on.
#[expect(clippy::disallowed_methods, reason = "the program around a job, not the job: nothing here touches a result")]
pub(super) fn serve(addr: SocketAddr, job: &str, metrics: Metrics, watcher: Watcher) -> Result<SocketAddr> {
    let refused =
        |e| Error::fatal(format!("metrics cannot be served at {addr}")).because(e).help("name a free address: --metrics 127.0.0.1:9464");
    let listener = TcpListener::bind(addr).map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    let mut registry = Registry::with_prefix("waterwheel");
    registry.register_collector(Box::new(Exported { job: job.to_string(), metrics, watcher: Mutex::new(watcher) }));
    let serve = move || {
        for stream in listener.incoming().flatten() {
            // A client that fails concerns nobody but itself.
            let _ = answer(stream, &registry);
        }
    };
    std::thread::Builder::new().name("metrics".into()).spawn(serve).map_err(refused)?;
    Ok(bound)
}

fn answer(mut stream: TcpStream, registry: &Registry) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.set_write_timeout(Some(Duration::from_secs(1)))?;
    let mut request = Vec::new();
    let mut bytes = [0; 1024];
    while !request.windows(4).any(|w| w == b"\r\n\r\n") && request.len() < 16_384 {
        match stream.read(&mut bytes)? {
            0 => break,
            n => request.extend_from_slice(&bytes[..n]),
        }
    }
    let (status, kind, body) = if request.starts_with(b"GET /metrics ") || request.starts_with(b"GET / ") {
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, registry) {
            Ok(()) => ("200 OK", "application/openmetrics-text; version=1.0.0; charset=utf-8", text),
            Err(_) => ("500 Internal Server Error", "text/plain", String::new()),
        }
    } else {
        ("404 Not Found", "text/plain", "metrics are at /metrics\n".to_string())
    };
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}
