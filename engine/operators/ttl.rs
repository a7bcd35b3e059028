//! How long state of a process function is kept.
//!
//! Invariant: time is event time, so that a run over old records forgets what the run at their time forgot.

use crate::time::millis;
use std::time::Duration;

/// A time to live: an entry of a key is there until the watermark has come so far beyond a moment in event time.
///
/// A `Duration` alone counts from the last change.
///
/// ```
/// use std::time::Duration;
/// use waterwheel_engine::operators::Ttl;
/// let day = Duration::from_secs(86_400);
/// assert_eq!(Ttl::from(day), Ttl::since_change(day));
/// assert_ne!(Ttl::since_use(day), Ttl::since_creation(day));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ttl {
    pub(super) span_ms: i64,
    pub(super) since: Since,
}

/// What a time to live counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Since {
    /// The row or timer that made the entry.
    Creation,
    /// The last that changed it.
    Change,
    /// The last that changed it or looked at it.
    Use,
}

impl Ttl {
    /// Counted from the event time of the row or timer that made the entry; changes do not make it younger.
    pub fn since_creation(span: Duration) -> Self {
        Ttl { span_ms: millis(span), since: Since::Creation }
    }

    /// Counted from the latest event time of those that changed it.
    pub fn since_change(span: Duration) -> Self {
        Ttl { span_ms: millis(span), since: Since::Change }
    }

    /// Counted from the latest event time of those that changed it or looked at it.
    pub fn since_use(span: Duration) -> Self {
        Ttl { span_ms: millis(span), since: Since::Use }
    }
}

impl From<Duration> for Ttl {
    fn from(span: Duration) -> Self {
        Ttl::since_change(span)
    }
}
