//! One job from its first start to its end, with faults in between: the fraud job on a broker of its own.
//!
//! Invariant: what it commits is what a run without faults commits, and no process of it ends but by a fault, at its end, or
//! with a reason that names cause and remedy where a person has to act.

use super::fault::Deck;
use super::ground::Ground;
use super::table::Tally;
use crate::support::fraud::{Chance, Fraud, Running, Size};
use crate::support::kafka::Broker;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Short, so that an outage can be longer.
const TRANSACTIONS: &str = "?transaction.timeout.ms=2000";
/// Faults of one job; its input lasts for about so many.
const FAULTS: usize = 24;

/// A job and all that it stands on.
pub(super) struct Round<'a> {
    pub(super) ground: &'a Ground,
    pub(super) broker: &'a mut Broker,
    pub(super) chance: &'a mut Chance,
    pub(super) tally: &'a mut Tally,
    pub(super) job: Option<Running>,
    fraud: Fraud,
    /// When the process was started that has not run yet.
    started: Option<Instant>,
    /// Something is kept: from now on it may have several tasks.
    kept: bool,
    done: bool,
}

/// Plays one job to its end; no fault begins after `until`.
pub(super) fn play(ground: &Ground, broker: &mut Broker, chance: &mut Chance, tally: &mut Tally, until: Instant) {
    let fraud = Fraud::on_kafka(Size::Long, &broker.bootstrap(), TRANSACTIONS);
    let mut deck = Deck::default();
    let mut round = Round { ground, broker, chance, tally, job: None, fraud, started: None, kept: false, done: false };
    round.start(&[], None);
    round.wait_for("the first checkpoint", |s| s["checkpoint"].is_u64());
    round.kept = true;
    for _ in 0..FAULTS {
        if round.done || Instant::now() > until {
            break;
        }
        let fault = deck.deal(round.chance);
        println!("{:>7.1} s  {}", round.tally.elapsed().as_secs_f64(), fault.name());
        round.suffer(fault);
    }
    round.finish();
}

impl Round<'_> {
    /// Starts a process; `moment` is one to die at.
    pub(super) fn start(&mut self, more: &[&str], moment: Option<&str>) {
        let tasks = if self.kept { 1 + self.chance.below(3) as u32 } else { 1 };
        let mut command = self.fraud.run_in(self.ground.checkpoints(), tasks);
        command.args(more);
        if let Some(moment) = moment {
            command.env("WATERWHEEL_MOMENT", moment);
        }
        self.started = Some(Instant::now());
        self.job = Some(Running::start(self.ground.enter(&command)));
    }

    /// Waits for a status; `false` when the job has finished.
    pub(super) fn wait_for(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> bool {
        let Some(job) = &mut self.job else { return false };
        let there = job.wait_for(what, wanted);
        if !there {
            self.ended();
        }
        there
    }

    /// Its process has ended by itself.
    fn ended(&mut self) {
        let Some(job) = self.job.take() else { return };
        let (status, last, said) = job.wait();
        assert!(status.success(), "the job gave up with {status}: {last} {said}");
        self.finished(&last);
    }

    /// Its last words.
    pub(super) fn finished(&mut self, last: &Value) {
        assert_eq!(last["phase"], "finished", "the job ended in the middle: {last}");
        self.done = true;
    }

    /// It runs, started if need be; `false` when it has finished.
    pub(super) fn running(&mut self) -> bool {
        if self.done {
            return false;
        }
        if self.job.is_none() {
            self.start(&[], None);
        }
        let running = self.wait_for("the job to run", |s| s["phase"] == "running" || s["phase"] == "finished");
        if let Some(started) = self.started.take().filter(|_| running) {
            self.tally.starts.push(started.elapsed());
        }
        running
    }

    /// It runs, and has done so for a moment of chance: since its start, or since its newest checkpoint.
    pub(super) fn runs_for_a_while(&mut self) -> bool {
        if !self.running() {
            return false;
        }
        if self.chance.below(3) > 0 {
            let before = self.checkpoint();
            if !self.wait_for("a checkpoint", |s| s["checkpoint"].as_u64() > before) {
                return false;
            }
        }
        self.sleep(100);
        true
    }

    /// Its newest checkpoint.
    pub(super) fn checkpoint(&self) -> Option<u64> {
        self.job.as_ref().and_then(|job| job.status()["checkpoint"].as_u64())
    }

    /// The fault is over: it goes on by itself.
    pub(super) fn heals(&mut self) {
        let (since, before) = (Instant::now(), self.checkpoint());
        if self.wait_for("a checkpoint after the fault", |s| s["checkpoint"].as_u64() > before) {
            self.tally.healed.push(since.elapsed());
        }
    }

    /// The fault is over: it goes on by itself, or ends with a reason and is started again.
    pub(super) fn heals_or_stops(&mut self) {
        let before = self.checkpoint();
        let Some(job) = &mut self.job else { return };
        if job.wait_for("a checkpoint after the fault, or an end", |s| s["checkpoint"].as_u64() > before) {
            return;
        }
        let Some(job) = self.job.take() else { return };
        let (status, last, said) = job.wait();
        match status.success() {
            true => self.finished(&last),
            false => assert!(said.contains("error: ") && said.contains("help: "), "the job gives no reason: {said}"),
        }
    }

    /// Kills the process; `false` when it had ended.
    pub(super) fn kill(&mut self) -> bool {
        self.started = None;
        let Some(mut job) = self.job.take() else { return false };
        if job.runs() {
            return job.kill9();
        }
        self.job = Some(job);
        self.ended();
        false
    }

    /// Sleeps up to so many milliseconds.
    pub(super) fn sleep(&mut self, milliseconds: u64) {
        std::thread::sleep(Duration::from_millis(self.chance.below(milliseconds)));
    }

    /// With all faults over it comes to its end, and the output is right.
    fn finish(&mut self) {
        while self.running() {
            let before = self.checkpoint();
            self.wait_for("a checkpoint, or the end", |s| s["checkpoint"].as_u64() > before);
        }
        self.tally.records.0 += self.fraud.input();
        self.tally.records.1 += self.fraud.assert_exact();
    }
}
