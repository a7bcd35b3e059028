//! `SET 'key' = 'value'`, by Flink's keys.
//!
//! Invariant: a key that has no effect here says so; one that nobody knows is an error with the nearest name.

use crate::error::{SqlError, SqlResult};
use crate::options::milliseconds;
use crate::plan::Zone;
use datafusion_sql::sqlparser::tokenizer::Span;
use std::collections::BTreeMap;
use std::time::Duration;

/// Keys with an effect.
const EFFECTIVE: &[(&str, &str)] = &[
    ("pipeline.name", "name of the job: its state is filed under it"),
    ("parallelism.default", "tasks per operator"),
    ("execution.checkpointing.interval", "time between checkpoints, e.g. 10 s"),
    ("table.exec.state.ttl", "how long state that nothing else bounds is kept without a change, e.g. 36 h; 0 = for ever"),
    (
        "table.exec.emit.allow-lateness",
        "how long windows take rows in after their end, which changes their results, e.g. 1 h; 0 = not at all",
    ),
    ("table.exec.emit.early-fire.enabled", "true: windows give results before their end, which change"),
    ("table.exec.emit.early-fire.delay", "how often, e.g. 10 s; 0 = with each row"),
    ("table.local-time-zone", "what instants are on a clock: 'Europe/Berlin', 'GMT+01:00'; UTC unless said"),
    ("execution.runtime-mode", "streaming, or batch: every source ends at what is there now"),
    ("sql-client.execution.result-mode", "table, changelog or tableau"),
];

/// Keys that a Flink script may set and that change nothing here.
const WITHOUT_EFFECT: &[&str] = &[
    "table.exec.mini-batch.enabled",
    "table.exec.mini-batch.allow-latency",
    "table.exec.mini-batch.size",
    // Late rows change results as they come.
    "table.exec.emit.late-fire.enabled",
    "table.exec.emit.late-fire.delay",
    "state.backend",
    "state.backend.type",
    "state.backend.incremental",
    "execution.checkpointing.mode",
    "table.optimizer.agg-phase-strategy",
    "table.dynamic-table-options.enabled",
    "sql-client.verbose",
];

/// How long a statement keeps what, and when its windows give results.
#[derive(Debug, Clone, Default)]
pub(crate) struct Terms {
    /// How long state that nothing else bounds is kept without a change; none = for ever.
    pub(crate) ttl: Option<Duration>,
    /// The same of inputs that hints name, with the hint's place.
    pub(crate) hinted: Vec<(String, Option<Duration>, Span)>,
    /// Windows take rows in for so long after their end.
    pub(crate) lateness: Duration,
    /// Windows give results before their end: every so often, or with each row.
    pub(crate) early: Option<Duration>,
}

/// The settings of a session.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    values: BTreeMap<String, String>,
}

impl Settings {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// Every source ends at what is there at the start.
    pub fn is_batch(&self) -> bool {
        self.get("execution.runtime-mode").is_some_and(|v| v.eq_ignore_ascii_case("batch"))
    }

    /// The time between checkpoints, where it was set.
    pub fn checkpoint_interval(&self) -> Option<Duration> {
        self.duration("execution.checkpointing.interval")
    }

    /// How long state that nothing else bounds is kept without a change; none = for ever.
    pub fn state_ttl(&self) -> Option<Duration> {
        self.duration("table.exec.state.ttl").filter(|ttl| !ttl.is_zero())
    }

    /// What they say of a statement.
    pub(crate) fn terms(&self) -> Terms {
        let is_early = self.get("table.exec.emit.early-fire.enabled").is_some_and(|v| v.eq_ignore_ascii_case("true"));
        Terms {
            ttl: self.state_ttl(),
            hinted: Vec::new(),
            lateness: self.duration("table.exec.emit.allow-lateness").unwrap_or_default(),
            early: is_early.then(|| self.duration("table.exec.emit.early-fire.delay").unwrap_or_default()),
        }
    }

    fn duration(&self, key: &str) -> Option<Duration> {
        self.get(key).and_then(milliseconds).map(Duration::from_millis)
    }

    /// The zone that instants are turned into local times in; none = UTC.
    pub(crate) fn zone(&self) -> Option<Zone> {
        self.get("table.local-time-zone").and_then(|name| Zone::of(name).ok().flatten())
    }

    /// Sets a key; says what a person should know about it.
    ///
    /// # Errors
    /// A key that is not known, a value that it cannot have.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> SqlResult<Option<String>> {
        if WITHOUT_EFFECT.contains(&key) {
            return Ok(Some(format!("'{key}' has no effect here")));
        }
        if !EFFECTIVE.iter().any(|(known, _)| *known == key) {
            let known = EFFECTIVE.iter().map(|k| k.0).chain(WITHOUT_EFFECT.iter().copied());
            return Err(SqlError::new(format!("setting '{key}' is not known")).nearest(key, known));
        }
        let fits = match key {
            "parallelism.default" => value.parse::<u32>().is_ok_and(|n| n > 0),
            "execution.runtime-mode" => matches!(value.to_lowercase().as_str(), "streaming" | "batch"),
            "sql-client.execution.result-mode" => matches!(value.to_lowercase().as_str(), "table" | "changelog" | "tableau"),
            "table.exec.emit.early-fire.enabled" => matches!(value.to_lowercase().as_str(), "true" | "false"),
            "execution.checkpointing.interval"
            | "table.exec.state.ttl"
            | "table.exec.emit.allow-lateness"
            | "table.exec.emit.early-fire.delay" => {
                let least = u64::from(key == "execution.checkpointing.interval");
                return match milliseconds(value) {
                    Some(ms) if ms >= least => Ok(self.put(key, value)),
                    _ => Err(SqlError::new(format!("'{key}' cannot be '{value}'")).help("write a time: 10 s, 5 min, 36 h, PT10M")),
                };
            }
            "table.local-time-zone" => return Zone::of(value).map(|_| self.put(key, value)),
            _ => !value.is_empty(),
        };
        if !fits {
            return Err(SqlError::new(format!("'{key}' cannot be '{value}'")));
        }
        Ok(self.put(key, value))
    }

    fn put(&mut self, key: &str, value: &str) -> Option<String> {
        self.values.insert(key.to_string(), value.to_string());
        None
    }

    /// Forgets a key, or all.
    pub(crate) fn reset(&mut self, key: Option<&str>) {
        match key {
            Some(key) => drop(self.values.remove(key)),
            None => self.values.clear(),
        }
    }

    /// All keys with their meaning and value.
    pub(crate) fn list(&self) -> Vec<Vec<String>> {
        EFFECTIVE.iter().map(|(key, what)| vec![(*key).to_string(), self.get(key).unwrap_or("").to_string(), (*what).to_string()]).collect()
    }
}
