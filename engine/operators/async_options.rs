//! How calls to the outside are made: order, how many at once, patience, a cache.

use std::time::Duration;

/// Options of [`map_async`](super::map_async) and [`lookup_async`](super::lookup_async).
///
/// ```
/// use std::time::Duration;
/// use waterwheel_engine::operators::AsyncOptions;
/// let options = AsyncOptions::unordered()
///     .capacity(50)
///     .timeout(Duration::from_secs(2))
///     .retries(5, Duration::from_millis(200))
///     .cache(Duration::from_secs(60), 10_000);
/// # let _ = options;
/// ```
#[derive(Debug, Clone)]
pub struct AsyncOptions {
    pub(super) ordered: bool,
    pub(super) capacity: usize,
    pub(super) timeout: Duration,
    pub(super) retries: u32,
    pub(super) backoff: Duration,
    pub(super) cache: Option<(Duration, usize)>,
}

impl AsyncOptions {
    /// Results leave in the order of the rows: a slow call holds those behind it back.
    ///
    /// 100 calls at once, each given 10 s, repeated 3 times after 100 ms, 200 ms and 400 ms; no cache.
    pub fn ordered() -> Self {
        let (timeout, backoff) = (Duration::from_secs(10), Duration::from_millis(100));
        AsyncOptions { ordered: true, capacity: 100, timeout, retries: 3, backoff, cache: None }
    }

    /// Results leave as they come, though never behind a watermark that their row came before. On a keyed stream rows of one
    /// key are called one at a time and leave in order.
    pub fn unordered() -> Self {
        AsyncOptions { ordered: false, ..Self::ordered() }
    }

    /// Whether results leave in the order of the rows.
    pub fn is_ordered(&self) -> bool {
        self.ordered
    }

    /// How many calls are made at once, per task.
    pub fn calls_at_once(&self) -> usize {
        self.capacity
    }

    /// Calls at once, per task; also about how many rows wait inside. At least 1.
    #[must_use]
    pub fn capacity(mut self, calls: usize) -> Self {
        self.capacity = calls.max(1);
        self
    }

    /// A call that takes longer has failed.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How often a failed call is made again; the first time after `backoff`, which doubles each time up to 30 s. Then the row
    /// is a bad record.
    #[must_use]
    pub fn retries(mut self, retries: u32, backoff: Duration) -> Self {
        (self.retries, self.backoff) = (retries, backoff);
        self
    }

    /// Of a lookup: remembers answers for `ttl` of wall time, at most `entries` of them per task. In memory only: a restart
    /// begins without.
    #[must_use]
    pub fn cache(mut self, ttl: Duration, entries: usize) -> Self {
        self.cache = Some((ttl, entries));
        self
    }
}
