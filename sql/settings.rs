//! `SET 'key' = 'value'`, by Flink's keys.
//!
//! Invariant: a key that has no effect here says so; one that nobody knows is an error with the nearest name.

use crate::error::{SqlError, SqlResult};
use std::collections::BTreeMap;

/// Keys with an effect.
const EFFECTIVE: &[(&str, &str)] = &[
    ("pipeline.name", "name of the job: its state is filed under it"),
    ("parallelism.default", "tasks per operator"),
    ("execution.checkpointing.interval", "time between checkpoints, e.g. 10s"),
    ("execution.runtime-mode", "streaming, or batch: every source ends at what is there now"),
    ("sql-client.execution.result-mode", "table, changelog or tableau"),
];

/// Keys that a Flink script may set and that change nothing here.
const WITHOUT_EFFECT: &[&str] = &[
    "table.exec.mini-batch.enabled",
    "table.exec.mini-batch.allow-latency",
    "table.exec.mini-batch.size",
    "state.backend",
    "state.backend.type",
    "state.backend.incremental",
    "execution.checkpointing.mode",
    "table.optimizer.agg-phase-strategy",
    "table.dynamic-table-options.enabled",
    "sql-client.verbose",
];

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

    /// Sets a key; says what a person should know about it.
    ///
    /// # Errors
    /// A key that is not known, a value that it cannot have.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> SqlResult<Option<String>> {
        if WITHOUT_EFFECT.contains(&key) {
            return Ok(Some(format!("'{key}' has no effect here")));
        }
        if key == "table.local-time-zone" {
            return match value {
                "UTC" => Ok(None),
                _ => Err(SqlError::unsupported(
                    "a time zone other than UTC",
                    "times are kept and shown in UTC",
                    "SET 'table.local-time-zone' = 'UTC'",
                )),
            };
        }
        if !EFFECTIVE.iter().any(|(known, _)| *known == key) {
            let known = EFFECTIVE.iter().map(|k| k.0).chain(WITHOUT_EFFECT.iter().copied());
            return Err(SqlError::new(format!("setting '{key}' is not known")).nearest(key, known));
        }
        let fits = match key {
            "parallelism.default" => value.parse::<u32>().is_ok_and(|n| n > 0),
            "execution.runtime-mode" => matches!(value.to_lowercase().as_str(), "streaming" | "batch"),
            "sql-client.execution.result-mode" => matches!(value.to_lowercase().as_str(), "table" | "changelog" | "tableau"),
            _ => !value.is_empty(),
        };
        if !fits {
            return Err(SqlError::new(format!("'{key}' cannot be '{value}'")));
        }
        self.values.insert(key.to_string(), value.to_string());
        Ok(None)
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
