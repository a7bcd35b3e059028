//! What a run of torture came to, as a table.
//!
//! Invariant: what was not run stands in it by name.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

/// Counts over all rounds.
pub(super) struct Tally {
    began: Instant,
    seed: u64,
    /// Jobs that were taken to their end or to a violation.
    pub(super) rounds: u64,
    /// Faults that struck, by name.
    pub(super) faults: BTreeMap<&'static str, u64>,
    /// Faults that could not strike here, and why.
    pub(super) not_run: BTreeMap<&'static str, String>,
    /// Records read, and committed and compared.
    pub(super) records: (u64, u64),
    /// From the start of a process to its job running, with the broker up.
    pub(super) starts: Vec<Duration>,
    /// From the end of a fault that the process lived through to the next complete checkpoint.
    pub(super) healed: Vec<Duration>,
    /// What was wrong, with the seed that repeats it.
    pub(super) violations: Vec<String>,
}

impl Tally {
    /// Nothing yet.
    pub(super) fn new(seed: u64) -> Self {
        Tally {
            began: Instant::now(),
            seed,
            rounds: 0,
            faults: BTreeMap::new(),
            not_run: BTreeMap::new(),
            records: (0, 0),
            starts: Vec::new(),
            healed: Vec::new(),
            violations: Vec::new(),
        }
    }

    /// Since the beginning.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Counts a fault.
    pub(super) fn struck(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }
}

/// The value below which so many of a hundred lie, and the largest.
fn percentiles(times: &[Duration]) -> String {
    let mut sorted = times.to_vec();
    sorted.sort();
    let at = |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default();
    format!("p50 {:.2} s, p99 {:.2} s, longest {:.2} s", at(50).as_secs_f64(), at(99).as_secs_f64(), at(100).as_secs_f64())
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cycles: u64 = self.faults.values().sum();
        writeln!(f, "torture       {} rounds in {:.0} s, WATERWHEEL_SEED={}", self.rounds, self.elapsed().as_secs_f64(), self.seed)?;
        writeln!(f, "cycles        {cycles}")?;
        for (fault, n) in &self.faults {
            writeln!(f, "              {n:>5}  {fault}")?;
        }
        for (fault, why) in &self.not_run {
            writeln!(f, "              NOT RUN: {fault}: {why}")?;
        }
        writeln!(f, "records       {} read, {} committed and compared", self.records.0, self.records.1)?;
        writeln!(
            f,
            "recovery      {} (start of a process to its job running, broker up; {} times)",
            percentiles(&self.starts),
            self.starts.len()
        )?;
        writeln!(f, "healing       {} (end of a fault to the next checkpoint; {} times)", percentiles(&self.healed), self.healed.len())?;
        writeln!(f, "violations    {}", self.violations.len())?;
        self.violations.iter().try_for_each(|violation| writeln!(f, "              {violation}"))
    }
}

#[test]
fn percentiles_are_those_of_the_nearest_rank() {
    let times: Vec<Duration> = (1..=100).rev().map(Duration::from_secs).collect();
    assert_eq!(percentiles(&times), "p50 50.00 s, p99 99.00 s, longest 100.00 s");
    assert_eq!(percentiles(&times[..1]), "p50 100.00 s, p99 100.00 s, longest 100.00 s");
    assert_eq!(percentiles(&[]), "p50 0.00 s, p99 0.00 s, longest 0.00 s");
}
