//! When the results of a window leave before its end, and what of it they show.
//!
//! Invariant: whatever leaves early, a window fires at its end, unless it has discarded all that it held.

use crate::observe::human_duration;
use crate::time::EventTime;
use std::sync::Arc;
use std::time::Duration;

/// What a condition of the user's own sees of a window, the row at hand included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PaneInfo {
    /// First instant inside; in a global window, the earliest row's.
    pub start: EventTime,
    /// First instant behind; in a global window, behind the latest row.
    pub end: EventTime,
    /// Rows since it fired last.
    pub rows: u64,
}

/// Decides on a row.
pub type FireWhen<T> = Arc<dyn Fn(&T, &PaneInfo) -> bool + Send + Sync>;

/// Firings besides the one at the end of the window. None unless said.
pub struct Firing<T> {
    /// Every so often in processing time, if rows came.
    pub every: Option<Duration>,
    /// Each time that so many rows have come.
    pub rows: Option<u64>,
    /// At rows for which this holds.
    pub when: Option<FireWhen<T>>,
    /// A firing takes what it shows out of the window; else each firing shows the whole window so far.
    pub discarding: bool,
}

impl<T> Default for Firing<T> {
    fn default() -> Self {
        Firing { every: None, rows: None, when: None, discarding: false }
    }
}

impl<T> Clone for Firing<T> {
    fn clone(&self) -> Self {
        Firing { every: self.every, rows: self.rows, when: self.when.clone(), discarding: self.discarding }
    }
}

impl<T> Firing<T> {
    /// At the end only, the whole window: what slices can do.
    pub fn is_plain(&self) -> bool {
        self.every.is_none() && self.rows.is_none() && self.when.is_none() && !self.discarding
    }

    /// For `explain`; empty when plain.
    pub fn describe(&self) -> String {
        let every = self.every.map(|d| format!(", early every {}", human_duration(d)));
        let rows = self.rows.map(|n| format!(", early each {n} rows"));
        let when = self.when.as_ref().map(|_| ", early on condition".to_string());
        let discarding = self.discarding.then(|| ", discarding".to_string());
        [every, rows, when, discarding].into_iter().flatten().collect()
    }

    /// Whether a window fires at this row.
    pub(super) fn fires_at(&self, row: &T, pane: &PaneInfo) -> bool {
        self.rows.is_some_and(|n| pane.rows >= n) || self.when.as_ref().is_some_and(|when| when(row, pane))
    }
}
