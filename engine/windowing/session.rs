//! Windows that the rows themselves make: sessions, and the one window over all time.
//!
//! A row at `t` with a gap `g` claims `[t, t + g)`; a session is what claims that overlap cover together. So a pause of the
//! gap or more ends a session: a row exactly a gap behind another begins a new one. That makes the last instant of a session
//! one that no later row can change, and it fires with the same watermark as any other window that ends there.
//!
//! Invariant: which sessions there are depends on the rows, never on the order in which they arrive.

use crate::observe::human_duration;
use crate::time::millis;
use std::sync::Arc;
use std::time::Duration;

/// How long a pause ends a session, in milliseconds.
#[derive(Clone)]
pub(super) enum Gap<T> {
    Fixed(i64),
    PerRow(Arc<dyn Fn(&T) -> Duration + Send + Sync>),
}

impl<T> Gap<T> {
    /// Of this row; at least 1 ms, or the row is a bad one.
    #[inline]
    pub(super) fn of(&self, row: &T) -> Result<i64, String> {
        match self {
            Gap::Fixed(ms) => Ok(*ms),
            Gap::PerRow(f) => match millis(f(row)) {
                0 => Err("the gap of a session must be at least 1 ms".into()),
                ms => Ok(ms),
            },
        }
    }
}

/// Sessions: stretches of activity of a key, ended by a pause.
///
/// ```
/// # use waterwheel_engine::dsl::{KeyedStream, mins};
/// # use waterwheel_engine::windowing::Session;
/// # fn example(clicks: KeyedStream<String, i64>) {
/// let visits = clicks.window(Session::gap(mins(30))).reduce(|sum, click| *sum += click);
/// # let _ = visits;
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    gap: Duration,
}

impl Session {
    /// A session ends when its key has no row for this long.
    pub fn gap(gap: Duration) -> Self {
        Session { gap }
    }

    /// Each row says how long a pause after it ends the session, at least 1 ms.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::{KeyedStream, mins};
    /// # use waterwheel_engine::windowing::Session;
    /// # fn example(clicks: KeyedStream<String, i64>) {
    /// let visits = clicks.window(Session::gap_by(|click| if *click > 100 { mins(60) } else { mins(10) }));
    /// # let _ = visits.reduce(|sum, click| *sum += click);
    /// # }
    /// ```
    pub fn gap_by<T>(gap: impl Fn(&T) -> Duration + Send + Sync + 'static) -> SessionBy<T> {
        SessionBy { gap: Arc::new(gap) }
    }

    pub(super) fn of_any<T>(self) -> Gap<T> {
        Gap::Fixed(millis(self.gap))
    }

    pub(super) fn name(self) -> String {
        format!("session {}", human_duration(self.gap))
    }
}

/// Sessions with a gap per row, see [`Session::gap_by`].
#[derive(Clone)]
pub struct SessionBy<T> {
    gap: Arc<dyn Fn(&T) -> Duration + Send + Sync>,
}

impl<T> SessionBy<T> {
    pub(super) fn rule(&self) -> Gap<T> {
        Gap::PerRow(self.gap.clone())
    }
}

/// One window over all time. It fires at the end of a bounded input, and when it is told to:
///
/// ```
/// # use waterwheel_engine::dsl::KeyedStream;
/// # use waterwheel_engine::windowing::Global;
/// # fn example(readings: KeyedStream<String, i64>) {
/// // What came up to each reading of zero.
/// let runs = readings.window(Global).fire_when(|reading, _| *reading == 0).discarding().reduce(|sum, reading| *sum += reading);
/// # let _ = runs;
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Global;
