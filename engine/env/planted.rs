//! Planted bugs: rules that can be switched off in tests, one at a time, to prove that the suite notices.
//!
//! [`with_bug`] plants one in a thread, so that a simulated job with a bug harms no other test; the variable
//! `WATERWHEEL_BUG=SkipFence` plants one in a whole process, for jobs that tests start as processes. Without the feature
//! `testing` nothing can be switched and every question is answered `false` at compile time.
//!
//! Most are bugs that other engines have had; which seed finds which is printed by `cargo run --example simulate -- --bug all`.
//!
//! Invariant: a bug here that no test finds is a hole in the suite.

macro_rules! bugs {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// A rule to leave out.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Bug {
            $($(#[$doc])+ $name,)+
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Bug] = &[$(Bug::$name),+];
        }
    };
}

bugs! {
    // Barriers and tasks.
    /// The gate lets a barrier through at its first arrival.
    SkipAlignment,
    /// The gate reads on behind a barrier before the others are there.
    ReadPastBarrier,
    /// A task acknowledges a snapshot without the last chunk of its state.
    LoseLastChunk,
    /// A task acknowledges before its state is uploaded.
    AckBeforeUpload,
    /// A task acknowledges before its output is staged.
    AckBeforeStaged,
    /// Staged output of a barrier that a task declined is forgotten.
    ForgetDeclined,
    // State.
    /// A value that changes while its snapshot is drained is not copied first.
    OverwriteFrozen,
    /// The same, in a slice.
    OverwriteFrozenSlice,
    /// Eviction drops what has not reached the store.
    EvictDirty,
    /// A removed value stays in the store.
    KeepRemoved,
    /// A timer that has fired stays in the store.
    KeepFiredTimers,
    /// Timers of the first key group are not restored.
    ForgetTimerGroup,
    /// Timers of the first key group that left memory do not come back.
    ForgetLateTimers,
    // The coordinator.
    /// A checkpoint counts as complete although one task has not answered.
    MissAnAck,
    /// Output is published before its checkpoint is in the log.
    PublishBeforeLog,
    /// Files are deleted before the log says that nobody needs them.
    DeleteBeforeLog,
    /// Staged output of an abandoned checkpoint is forgotten.
    ForgetAbandoned,
    /// Staged output in an answer that comes after its checkpoint was abandoned is forgotten.
    ForgetLateAck,
    /// A manifest leaves out the segments of earlier epochs that are not published yet.
    ForgetUnpublished,
    /// The first epoch of an attempt has the number of the last one.
    ReuseEpoch,
    /// A job ends before its output is published.
    StopUndrained,
    /// Upstream hears of positions when a task has them, not when the checkpoint is complete.
    AckUpstreamEarly,
    // Lanes.
    /// A lane publishes again at recovery whatever its marker says.
    IgnoreMarker,
    /// A lane takes for published what it was told to publish, and never does after a crash.
    TrustTheLog,
    /// A new publisher of a lane shuts no older one out.
    SkipFence,
    /// A marker of another lineage is taken for ours.
    IgnoreLineage,
    /// A marker counts for the epoch after it as well.
    MarkerOffByOne,
    /// A marker that is gone means that nothing was published.
    AbsentMeansNo,
    /// After an error a lane goes on with the same client.
    KeepClient,
    /// What the newest checkpoint left unpublished is not published at the next start.
    SkipSettle,
    // Durability.
    /// A slot of the job log that somebody else took counts as ours.
    TakeAnySlot,
    /// Metadata is not synced before it is named.
    SkipFileSync,
    /// Names are not synced.
    SkipFolderSync,
    /// A segment is acknowledged before it is synced.
    AckBeforeSync,
    /// A sealed segment lacks what was in its buffer.
    ForgetLastFrame,
    /// A file goes with the first checkpoint that lets go of it.
    DeleteShared,
    /// A copy of a file of state is named by a checkpoint whatever the disk gave when it was read.
    CopyUnseen,
    /// A sync that failed is tried again, as if it had lost nothing.
    RetrySync,
    // Restore and rescale.
    /// Of several old tasks' state only the first one's is restored.
    RestoreOneTask,
    /// The last key group of a new task is left out of what it takes over.
    ForgetLastGroup,
    /// A split that the checkpoint has is read from its beginning.
    ForgetASplit,
    /// A source goes on one record behind where the checkpoint says.
    RereadOneRecord,
    /// A source goes on one record ahead of where the checkpoint says.
    SkipOneRecord,
    /// Windows forget the watermark of the checkpoint.
    ForgetWatermark,
    /// Rows that wait for an answer from outside are forgotten at a restore.
    ForgetCalls,
    /// Every task reads every split that it is shown.
    ShareASplit,
    // Routing and time.
    /// Rows go by their hash, state by its key group.
    RouteByHash,
    /// Only the first task of an edge hears of the watermark.
    WatermarkToOne,
    /// The fastest channel's watermark counts, not the slowest's.
    FastestWatermark,
    /// A watermark is a millisecond ahead of what it promises.
    WatermarkAhead,
    /// What a sink is told of event time is a millisecond ahead of the watermark.
    NoteAhead,
    // Operators.
    /// Windows fire a millisecond before their end is reached.
    FireAhead,
    /// Slices go with their window's first firing, allowed lateness or not.
    PurgeEarly,
    /// Late rows are counted and do not leave.
    LoseLateRows,
    /// Times below zero are rounded towards zero.
    TruncateTimes,
    /// Ids are forgotten a whole span before they may be.
    ForgetIdsEarly,
    /// Rows leave a sort a millisecond before their time.
    SortAhead,
    /// A stream does not wait until its table is read in.
    SkipBootstrap,
    /// A barrier leaves a table's task before the task has said that nothing is to be read.
    EagerBarrier,
    /// Of several dead letters of a batch only the first one leaves.
    LoseDeadLetters,
    // Sessions, joins, tables, patterns.
    /// Sessions that only touch are taken for one.
    JoinTouchingSessions,
    /// Of several sessions that a row joins only the first one's rows are kept.
    LoseMergedSession,
    /// A row of an interval join goes a millisecond before the last one that may look for it.
    ForgetRowsEarly,
    /// Where the accumulators of a moving frame are cut is not part of its state.
    ForgetBoundary,
    /// Rows that had their turn before a restore have it again.
    RepeatTurns,
    /// That a row has found a partner is forgotten at a restore.
    ForgetPartners,
    /// A windowed join lets rows go that the next window still holds.
    ReleaseEarly,
    /// Of two versions of one millisecond the older one holds.
    OlderVersion,
    /// A row that has found its first partner is not taken back as one without.
    KeepAlone,
    /// An answer of a foreign-key join counts although a newer one is there.
    StaleAnswers,
    /// A row that changes its group is not taken out of its old one.
    KeepOldGroup,
    /// A row is offered to partial matches that are too old for it.
    MatchTooOld,
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
    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    pub(super) fn planted() -> Option<Bug> {
        static OF_PROCESS: OnceLock<Option<Bug>> = OnceLock::new();
        PLANTED.get().or(*OF_PROCESS.get_or_init(|| {
            let name = std::env::var(VARIABLE).ok()?;
            let bug = Bug::ALL.iter().copied().find(|bug| format!("{bug:?}") == name);
            assert!(bug.is_some(), "{VARIABLE}={name} is none of {:?}", Bug::ALL);
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
