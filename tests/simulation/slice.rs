//! What every test run simulates: some hundred seeds that must be right, and eleven rules left out that must be noticed.
//!
//! Invariant: the seeds are fixed, so that a failure here is one of the last change.

use super::world::{Options, Report, run};
use std::collections::BTreeMap;
use waterwheel::engine::env::Bug;

/// Clean seeds.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=300;
/// A rule left out must be noticed within so many seeds here; the program looks at 2,000.
const BUG_SEEDS: u64 = 400;

/// What faults some seeds meet, and how often; all of them must be right.
fn clean(seeds: impl Iterator<Item = u64>) -> BTreeMap<&'static str, u64> {
    let mut met = BTreeMap::new();
    for seed in seeds {
        let report = run(&Options::new(seed));
        let Report { workload, violation, faults, .. } = &report;
        assert_eq!(violation.as_deref(), None, "cargo run --example simulate -- --seed {seed} (workload {workload}, {faults:?})");
        if seed.is_multiple_of(10) {
            assert_eq!(run(&Options::new(seed)).trace, report.trace, "seed {seed} takes other steps the second time");
        }
        for (fault, n) in report.faults {
            *met.entry(fault).or_default() += n;
        }
    }
    met
}

#[test]
fn clean_seeds_are_right() {
    // A half for each of two cores.
    let met = std::thread::scope(|scope| {
        let odd = scope.spawn(|| clean(SEEDS.filter(|seed| seed % 2 == 1)));
        let mut met = clean(SEEDS.filter(|seed| seed % 2 == 0));
        let odd = odd.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        odd.into_iter().for_each(|(fault, n)| *met.entry(fault).or_default() += n);
        met
    });
    // Rare states are reached.
    for fault in [
        "power cut",
        "died in a call",
        "paused",
        "failed sync",
        "late commit",
        "lost answer of the broker",
        "lost answer of the store",
        "markers expired",
    ] {
        assert!(met.contains_key(fault), "no seed meets: {fault}; met: {met:?}");
    }
}

#[test]
fn rules_left_out_are_noticed() {
    let of_any = [
        Bug::SkipAlignment,
        Bug::ReadPastBarrier,
        Bug::PublishBeforeLog,
        Bug::ForgetUnpublished,
        Bug::AbsentMeansNo,
        Bug::KeepClient,
        Bug::TakeAnySlot,
        Bug::AckBeforeSync,
        Bug::RestoreOneTask,
        Bug::FastestWatermark,
    ];
    // A rule of one operator is looked for where that is.
    let of_one = [("progress-notes", Bug::NoteAhead)];
    for (workload, bug) in of_any.map(|bug| (None, bug)).into_iter().chain(of_one.map(|(workload, bug)| (Some(workload), bug))) {
        let options = |seed| Options { bug: Some(bug), workload, ..Options::new(seed) };
        let found = (1..=BUG_SEEDS).find(|&seed| run(&options(seed)).violation.is_some());
        assert!(found.is_some(), "{bug:?} goes unnoticed in {BUG_SEEDS} seeds");
    }
}
