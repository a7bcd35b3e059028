//! The faults, and a deck that deals all of them before any comes again.
//!
//! Invariant: a fault that strikes is over when [`Round::suffer`] returns: broker, disk and cable are as they were.

use super::round::Round;
use crate::support::fraud::Chance;
use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};
use waterwheel::engine::env::Moment;

/// Longer than transactions may last here, and than the broker's next look at them.
const OUTAGE: Duration = Duration::from_millis(4_500);
/// How long a moment may take to be reached before the job is killed wherever it is.
const MOMENT_LIMIT: Duration = Duration::from_secs(10);

/// One thing that happens to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Killed at any time, while it runs or starts.
    KillJob,
    /// Killed again and again while it recovers.
    KillInRecovery,
    /// Killed between two calls of an epoch's life.
    KillAtMoment,
    /// Stopped as a person stops it.
    StopJob,
    /// Frozen for a moment.
    FreezeJob,
    /// Frozen for longer than a transaction may last.
    FreezeJobLong,
    /// Frozen, replaced, and woken up.
    Zombie,
    /// The broker is killed and started again.
    KillBroker,
    /// The broker is frozen for a moment.
    FreezeBroker,
    /// The broker is frozen for longer than a transaction may last.
    FreezeBrokerLong,
    /// Killed in an open transaction, and gone for longer than it may last.
    AwayTooLong,
    /// No room for checkpoints.
    FullDisk,
    /// No right to write checkpoints.
    ReadOnlyFolder,
    /// The cable is out, or swallows everything.
    CutNetwork,
    /// The cable is slow.
    SlowNetwork,
    /// The broker lets its clients send and read little.
    Throttle,
}

use Fault::*;

impl Fault {
    /// All of them.
    const ALL: [Fault; 16] = [
        KillJob,
        KillInRecovery,
        KillAtMoment,
        StopJob,
        FreezeJob,
        FreezeJobLong,
        Zombie,
        KillBroker,
        FreezeBroker,
        FreezeBrokerLong,
        AwayTooLong,
        FullDisk,
        ReadOnlyFolder,
        CutNetwork,
        SlowNetwork,
        Throttle,
    ];

    /// For the table.
    pub(super) fn name(self) -> &'static str {
        match self {
            KillJob => "job killed (-9)",
            KillInRecovery => "job killed again while it recovers",
            KillAtMoment => "job killed between two calls of an epoch",
            StopJob => "job stopped, started with other parallelism",
            FreezeJob => "job frozen (SIGSTOP)",
            FreezeJobLong => "job frozen beyond its transactions' timeout",
            Zombie => "job frozen, taken over, woken up",
            KillBroker => "broker killed (-9)",
            FreezeBroker => "broker frozen (SIGSTOP)",
            FreezeBrokerLong => "broker frozen beyond the transactions' timeout",
            AwayTooLong => "job dead beyond its transactions' timeout",
            FullDisk => "disk full",
            ReadOnlyFolder => "folder read-only",
            CutNetwork => "network cut",
            SlowNetwork => "network slow",
            Throttle => "client throttled",
        }
    }
}

/// All faults in an order of the seed's, dealt over and over.
#[derive(Default)]
pub(super) struct Deck(Vec<Fault>);

impl Deck {
    /// The next one.
    pub(super) fn deal(&mut self, chance: &mut Chance) -> Fault {
        if self.0.is_empty() {
            self.0 = Fault::ALL.to_vec();
        }
        self.0.swap_remove(chance.below(self.0.len() as u64) as usize)
    }
}

impl Round<'_> {
    /// Lets a fault strike and pass.
    pub(super) fn suffer(&mut self, fault: Fault) {
        let lacks = match fault {
            FullDisk | ReadOnlyFolder => self.ground.lacks_disk(),
            CutNetwork | SlowNetwork => self.ground.lacks_cable(),
            _ => None,
        };
        if let Some(why) = lacks {
            self.tally.not_run.insert(fault.name(), why);
            return;
        }
        if self.strike(fault) {
            self.tally.struck(fault.name());
        }
    }

    /// `false` when the job was at its end before.
    fn strike(&mut self, fault: Fault) -> bool {
        if !self.runs_for_a_while() {
            return false;
        }
        match fault {
            KillJob => return self.kill(),
            KillInRecovery => {
                self.kill();
                for _ in 0..1 + self.chance.below(3) {
                    self.start(&[], None);
                    self.sleep(400);
                    self.kill();
                }
            }
            KillAtMoment => return self.kill_at_moment(),
            AwayTooLong => {
                let killed = self.kill_at_moment();
                std::thread::sleep(OUTAGE);
                return killed;
            }
            StopJob => return self.stop(),
            FreezeJob | FreezeJobLong => return self.freeze(fault == FreezeJobLong),
            Zombie => return self.zombie(),
            KillBroker => {
                self.broker.kill9();
                self.sleep(1_500);
                self.broker.restart();
                self.heals();
            }
            FreezeBroker | FreezeBrokerLong => {
                self.broker.sigstop();
                if fault == FreezeBroker {
                    self.sleep(1_500)
                } else {
                    std::thread::sleep(OUTAGE)
                }
                self.broker.sigcont();
                self.heals();
            }
            FullDisk => {
                let ballast = self.ground.fill_disk();
                self.sleep(2_500);
                drop(ballast);
                self.heals();
            }
            ReadOnlyFolder => self.read_only(),
            CutNetwork | SlowNetwork => self.network(fault == SlowNetwork),
            Throttle => {
                self.broker.throttle(Some((20_000 + self.chance.below(50_000), 50_000 + self.chance.below(200_000))));
                self.sleep(2_000);
                self.broker.throttle(None);
                self.heals();
            }
        }
        true
    }

    /// Starts it with a moment to die at.
    fn kill_at_moment(&mut self) -> bool {
        const MOMENTS: [Moment; 6] =
            [Moment::Fenced, Moment::ManifestStored, Moment::CheckpointLogged, Moment::Delivered, Moment::Marked, Moment::Committed];
        if !self.kill() {
            return false;
        }
        let moment = MOMENTS[self.chance.below(MOMENTS.len() as u64) as usize];
        let times = 1 + self.chance.below(4);
        self.start(&[], Some(&format!("{moment:?}:{times}:kill")));
        let Some(mut job) = self.job.take() else { return false };
        let deadline = Instant::now() + MOMENT_LIMIT;
        while job.runs() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        if job.runs() {
            job.kill9();
            return true;
        }
        let (status, last, said) = job.wait();
        if status.success() {
            self.finished(&last);
            return false;
        }
        assert_eq!(status.signal(), Some(9), "the job was to die at {moment:?} and ended with {status}: {said}");
        true
    }

    fn stop(&mut self) -> bool {
        let Some(job) = self.job.take() else { return false };
        job.signal(Signal::INT);
        let (status, last, said) = job.wait();
        // Whether its input was at its end, its next start will tell.
        assert!(status.success() && last["phase"] == "finished", "a graceful stop ended with {status}, {last}: {said}");
        true
    }

    fn freeze(&mut self, long: bool) -> bool {
        let Some(job) = &mut self.job else { return false };
        if !job.runs() {
            return false;
        }
        job.signal(Signal::STOP);
        if long {
            std::thread::sleep(OUTAGE)
        } else {
            self.sleep(1_000)
        }
        if let Some(job) = &self.job {
            job.signal(Signal::CONT);
        }
        self.heals();
        true
    }

    /// The old process sleeps, a new one takes over, and the old one wakes up.
    fn zombie(&mut self) -> bool {
        let Some(mut zombie) = self.job.take() else { return false };
        if !zombie.runs() {
            self.job = Some(zombie);
            return false;
        }
        zombie.signal(Signal::STOP);
        self.start(&["--take-over"], None);
        let runs = self.running();
        let resumed_from = self.job.as_ref().map(|job| job.status()["resumed_from"].clone());
        if runs {
            self.wait_for("its checkpoint", |s| s["checkpoint"].as_u64() > s["resumed_from"].as_u64());
        }
        zombie.signal(Signal::CONT);
        let (status, last, said) = zombie.wait();
        // It may have finished the input before it slept; then its successor has begun at that end.
        let was_done = last["phase"] == "finished" && resumed_from.as_ref() == Some(&last["checkpoint"]);
        assert!(!status.success() || was_done, "the zombie ended with {status}, {last}: {said}");
        assert!(was_done || said.contains("error: ") && said.contains("taken"), "the zombie gives no reason: {said}");
        true
    }

    /// That takes a person: the job may end, and then it says why.
    fn read_only(&mut self) {
        if !self.ground.set_read_only(true) {
            self.ground.set_read_only(false);
            self.tally.not_run.insert(ReadOnlyFolder.name(), "no right to forbid writing".into());
            return;
        }
        self.sleep(2_000);
        assert!(self.ground.set_read_only(false), "the folder stays read-only");
        self.heals_or_stops();
    }

    fn network(&mut self, slow: bool) {
        let (how, kilobits) = (self.chance.below(2), 300 + self.chance.below(4_000));
        let Some((cable, pid)) = self.ground.cable() else { return };
        let pulled = !slow && how == 0;
        let done = match (slow, pulled) {
            (true, _) => cable.slow(pid, kilobits),
            (false, true) => cable.pull(pid),
            (false, false) => cable.swallow(pid),
        };
        if let Err(why) = done {
            self.tally.not_run.insert(if slow { SlowNetwork.name() } else { CutNetwork.name() }, why);
            let _ = cable.restore(pid);
            return;
        }
        std::thread::sleep(Duration::from_millis(300 + self.chance.below(3_500)));
        let mended = if pulled { cable.plug(pid) } else { cable.restore(pid) };
        mended.unwrap_or_else(|why| panic!("the cable cannot be mended: {why}"));
        self.heals();
    }
}
