//! Planted bugs: rules that can be switched off in tests, one at a time, to prove that the suite notices.
//!
//! The switch is the thread's, so that a simulated job with a bug harms no other test. Without the feature `testing` nothing can
//! be switched and every question is answered `false` at compile time.
//!
//! Invariant: a bug here that no test finds is a hole in the suite.

/// A rule to leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// The gate lets a barrier through at its first arrival.
    SkipAlignment,
    /// A lane publishes again at recovery whatever its marker says.
    IgnoreMarker,
    /// A lane takes for published what it was told to publish, and never does after a crash.
    TrustTheLog,
    /// A task acknowledges a snapshot without the last chunk of its state.
    LoseLastChunk,
    /// A source goes on one record behind where the checkpoint says.
    RereadOneRecord,
    /// Windows forget the watermark of the checkpoint.
    ForgetWatermark,
    /// Rows that wait for an answer from outside are forgotten at a restore.
    ForgetCalls,
}

#[cfg(any(test, feature = "testing"))]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Whether this bug is planted in this thread.
#[inline]
pub fn planted(bug: Bug) -> bool {
    #[cfg(any(test, feature = "testing"))]
    return PLANTED.with(|p| p.get() == Some(bug));
    #[cfg(not(any(test, feature = "testing")))]
    {
        let _ = bug;
        false
    }
}

/// Runs `test` with a bug planted in this thread.
#[cfg(any(test, feature = "testing"))]
pub fn with_bug<R>(bug: Bug, test: impl FnOnce() -> R) -> R {
    struct Unplant;
    impl Drop for Unplant {
        fn drop(&mut self) {
            PLANTED.with(|p| p.set(None));
        }
    }
    PLANTED.with(|p| p.set(Some(bug)));
    let _unplant = Unplant;
    test()
}
