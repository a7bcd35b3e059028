//! Named moments in the life of a job, at which a test has its process killed or frozen.
//!
//! `WATERWHEEL_MOMENT=Delivered:3:kill` sends the process SIGKILL when it reaches that moment for the third time; `stop` sends
//! SIGSTOP. Random kills hardly ever meet the gap between two calls; here each gap has a name. Without the feature `testing`
//! a moment is nothing at all.
//!
//! Invariant: a moment changes nothing by itself, and is reached a few times per checkpoint, never per row.

/// Where a process can be killed or frozen, in the order of an epoch's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// A lane was fenced, at recovery or after trouble.
    Fenced,
    /// A manifest is stored, and the job log does not know it yet.
    ManifestStored,
    /// A checkpoint is in the job log, and nothing of it is published.
    CheckpointLogged,
    /// The records of a publish are out of this process, and nothing of them is visible.
    Delivered,
    /// The marker is in the same transaction as the records, and that is open.
    Marked,
    /// Records and marker are committed, and the job log does not know it.
    Committed,
}

/// The process has come to a moment.
#[inline]
pub fn reached(moment: Moment) {
    #[cfg(any(test, feature = "testing"))]
    order::obey(moment);
    #[cfg(not(any(test, feature = "testing")))]
    let _ = moment;
}

#[cfg(any(test, feature = "testing"))]
mod order {
    use super::Moment;
    use rustix::process::{Signal, getpid, kill_process};
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    const VARIABLE: &str = "WATERWHEEL_MOMENT";

    /// At which moment, at which time of reaching it, which signal.
    struct Order {
        moment: String,
        left: AtomicU64,
        signal: Signal,
    }

    impl Order {
        fn parse(text: &str) -> Option<Order> {
            let mut parts = text.split(':');
            let (moment, times, what) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
            let signal = match what {
                "kill" => Signal::KILL,
                "stop" => Signal::STOP,
                _ => return None,
            };
            Some(Order { moment: moment.into(), left: AtomicU64::new(times), signal })
        }
    }

    #[expect(clippy::disallowed_methods, reason = "waits for its own signal, in tests only")]
    pub(super) fn obey(moment: Moment) {
        static ORDER: OnceLock<Option<Order>> = OnceLock::new();
        let order = ORDER.get_or_init(|| {
            let text = std::env::var(VARIABLE).ok()?;
            let order = Order::parse(&text);
            assert!(order.is_some(), "{VARIABLE}={text} is not MOMENT:TIMES:kill|stop");
            order
        });
        if let Some(order) = order
            && order.moment == format!("{moment:?}")
            && order.left.fetch_sub(1, Ordering::SeqCst) == 1
        {
            let _ = kill_process(getpid(), order.signal);
            // Another thread may be the one that takes the signal; this one must not go on meanwhile.
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}
