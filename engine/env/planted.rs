//! Planted bugs: rules that can be switched off in tests, one at a time, to prove that the suite notices.
//!
//! [`with_bug`] plants one in a thread, so that a simulated job with a bug harms no other test; the variable
//! `WATERWHEEL_BUG=SkipFence` plants one in a whole process, for jobs that tests start as processes. Without the feature
//! `testing` nothing can be switched and every question is answered `false` at compile time.
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
    /// A new publisher of a lane shuts no older one out.
    SkipFence,
    /// A task acknowledges a snapshot without the last chunk of its state.
    LoseLastChunk,
    /// A source goes on one record behind where the checkpoint says.
    RereadOneRecord,
    /// Windows forget the watermark of the checkpoint.
    ForgetWatermark,
    /// Rows that wait for an answer from outside are forgotten at a restore.
    ForgetCalls,
}

/// Whether this bug is planted here.
#[inline]
pub fn planted(bug: Bug) -> bool {
    #[cfg(any(test, feature = "testing"))]
    return switches::planted() == Some(bug);
    #[cfg(not(any(test, feature = "testing")))]
    {
        let _ = bug;
        false
    }
}

#[cfg(any(test, feature = "testing"))]
pub use switches::with_bug;

#[cfg(any(test, feature = "testing"))]
mod switches {
    use super::Bug;
    use std::cell::Cell;
    use std::sync::OnceLock;

    /// Names the bug of a whole process.
    const VARIABLE: &str = "WATERWHEEL_BUG";
    const ALL: [Bug; 8] = [
        Bug::SkipAlignment,
        Bug::IgnoreMarker,
        Bug::TrustTheLog,
        Bug::SkipFence,
        Bug::LoseLastChunk,
        Bug::RereadOneRecord,
        Bug::ForgetWatermark,
        Bug::ForgetCalls,
    ];

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    pub(super) fn planted() -> Option<Bug> {
        static OF_PROCESS: OnceLock<Option<Bug>> = OnceLock::new();
        PLANTED.get().or(*OF_PROCESS.get_or_init(|| {
            let name = std::env::var(VARIABLE).ok()?;
            let bug = ALL.into_iter().find(|bug| format!("{bug:?}") == name);
            assert!(bug.is_some(), "{VARIABLE}={name} is none of {ALL:?}");
            bug
        }))
    }

    /// Runs `test` with a bug planted in this thread.
    pub fn with_bug<R>(bug: Bug, test: impl FnOnce() -> R) -> R {
        struct Unplant;
        impl Drop for Unplant {
            fn drop(&mut self) {
                PLANTED.set(None);
            }
        }
        PLANTED.set(Some(bug));
        let _unplant = Unplant;
        test()
    }
}
