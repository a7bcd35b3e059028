//! One call to the outside: made, given up when it takes too long, made again.
//!
//! Invariant: a call answers exactly once, whatever becomes of the user's future: an answer, an error, a panic, silence; only
//! a call that is dropped does not.

use super::guarded::panicked;
use crate::env::{Call, Calls};
use crate::observe::human_duration;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The user's future.
pub(super) type Answering<V> = Pin<Box<dyn Future<Output = Result<V, String>> + Send>>;

/// What is asked for a row.
pub(super) struct Asked<V> {
    /// Under which its answer may be remembered.
    pub(super) cache_key: Option<Vec<u8>>,
    /// Makes the call, once for each attempt.
    pub(super) call: Box<dyn FnMut() -> Answering<V> + Send>,
}

/// How long and how often.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) timeout: Duration,
    pub(super) retries: u32,
    pub(super) backoff: Duration,
}

/// The whole call, which ends with `reply`.
pub(super) fn make_call<V: Send + 'static>(
    mut call: Box<dyn FnMut() -> Answering<V> + Send>,
    calls: Arc<dyn Calls>,
    patience: Patience,
    reply: impl FnOnce(Result<V, String>) + Send + 'static,
) -> Call {
    Box::pin(async move {
        let mut pause = patience.backoff;
        for left in (0..=patience.retries).rev() {
            let answer = attempt(&mut *call, calls.sleep(patience.timeout), patience.timeout).await;
            if left == 0 || answer.is_ok() {
                return reply(answer);
            }
            calls.sleep(pause).await;
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
    })
}

/// One attempt; a panic while the future is made or polled is an error.
async fn attempt<V>(call: &mut (dyn FnMut() -> Answering<V> + Send), mut clock: Call, timeout: Duration) -> Result<V, String> {
    let mut answering = catch_unwind(AssertUnwindSafe(call)).map_err(|panic| panicked(&*panic))?;
    poll_fn(move |context| {
        match catch_unwind(AssertUnwindSafe(|| answering.as_mut().poll(context))) {
            Ok(Poll::Pending) => {}
            Ok(Poll::Ready(answer)) => return Poll::Ready(answer),
            Err(panic) => return Poll::Ready(Err(panicked(&*panic))),
        }
        clock.as_mut().poll(context).map(|()| Err(format!("no answer within {}", human_duration(timeout))))
    })
    .await
}
