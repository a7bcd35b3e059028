//! Aging: how long operators keep what they know of a key that nothing changes any more, by the wall clock.
//!
//! The clock is looked at every so often, by a fraction of the time to live, and rows in between count as of the last look: an
//! entry is there as long as the time to live has not passed between the look before its last change and the last one. It is
//! forgotten silently: results that rest on it stay as they are, and a row that comes later begins anew.
//!
//! Invariant: time does not go back, also over a restart with a clock that was set back.

use crate::state::{PointTable, StateValue};
use crate::time::EventTime;

/// Between two looks at the clock, in milliseconds, at least and at most.
const TICK_MS: (i64, i64) = (10, 1_000);

/// How often the clock is looked at, for a time to live.
pub(super) fn tick_ms(ttl_ms: i64) -> i64 {
    (ttl_ms / 32).clamp(TICK_MS.0, TICK_MS.1)
}

/// A time to live, or none, and the time as of the last look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Aging {
    ttl_ms: Option<i64>,
    now: EventTime,
}

impl Aging {
    /// Entries go after so many milliseconds without a change; never without a number.
    pub(super) fn new(ttl_ms: Option<i64>) -> Self {
        Aging { ttl_ms, now: EventTime::MIN }
    }

    /// A table whose entries age.
    pub(super) fn table<V: StateValue>(self, name: &str) -> PointTable<V> {
        let table = PointTable::new(name);
        match self.ttl_ms {
            Some(ttl_ms) => table.with_ttl(ttl_ms),
            None => table,
        }
    }

    /// An entry was changed.
    #[inline]
    pub(super) fn touch<V: StateValue>(self, table: &mut PointTable<V>, slot: u32) {
        if self.ttl_ms.is_some() {
            table.touch(slot, self.now);
        }
    }

    /// For [`Operator::on_time`](super::Operator::on_time): drops what has become too old.
    pub(super) fn on_time<V: StateValue>(&mut self, wall_ms: i64, table: &mut PointTable<V>) -> Option<i64> {
        let ttl_ms = self.ttl_ms?;
        self.now = self.now.max(EventTime(wall_ms)).max(table.expired_to());
        table.expire(self.now);
        Some(wall_ms.saturating_add(tick_ms(ttl_ms)))
    }
}
