//! Event times that are behind their rows' own: what a join leaves of the earlier of two times.
//!
//! Rows leave a join in the order of their later time, so the earlier one is behind the watermark, by a span that is known.
//! Where a query goes by it, rows take it for their own and the watermark is held back by that span, as in Flink.
//!
//! Invariant: no row is late because of it.

use super::{Lowered, Lowering, Place};
use crate::error::{SqlError, SqlResult};
use waterwheel_engine::graph::{NodeNote, Routing};
use waterwheel_engine::observe::human_duration;
use waterwheel_engine::operators::by_column;

impl Lowered {
    /// By how many milliseconds at most a column is behind the row's event time; none if it is no event time.
    pub(super) fn lag_of(&self, column: usize) -> Option<i64> {
        self.lagging.iter().find(|(i, _)| *i == column).map(|(_, ms)| *ms)
    }

    /// Whether a column holds an event time.
    pub(super) fn is_rowtime(&self, column: usize) -> bool {
        self.rowtimes.contains(&column) || self.lag_of(column).is_some()
    }

    /// Its event times, and by how much they may be behind where rows leave so many milliseconds later.
    pub(super) fn times_behind(&self, ms: i64) -> impl Iterator<Item = (usize, i64)> {
        let exact = self.rowtimes.iter().map(|&i| (i, 0));
        exact.chain(self.lagging.iter().copied()).map(move |(i, lag)| (i, lag.saturating_add(ms.max(0))))
    }
}

impl Lowering<'_> {
    /// The same rows with the event time that a column holds.
    pub(super) fn timed_by(&mut self, input: Lowered, column: usize) -> SqlResult<Lowered> {
        if input.rowtimes.contains(&column) {
            return Ok(input);
        }
        let (Some(lag), Place::Batch(at)) = (input.lag_of(column), input.places[column]) else {
            return Err(SqlError::new(format!("{:?} is no event time", input.schema.field(column).name())));
        };
        let name = input.schema.field(column).name();
        let behind = human_duration(std::time::Duration::from_millis(lag.unsigned_abs()));
        let note = NodeNote { detail: format!("{name}, watermark {behind} behind"), ..NodeNote::default() };
        let node = self.add("event_time", by_column(at, lag), &[(input.node, Routing::Forward)], note);
        // The others are as far behind at most: this one was not ahead of the row's.
        let lagging = input.times_behind(0).filter(|time| time.0 != column);
        let (lagging, rowtimes) = (lagging.collect(), vec![column]);
        Ok(Lowered { node, rowtimes, lagging, ..input })
    }
}
