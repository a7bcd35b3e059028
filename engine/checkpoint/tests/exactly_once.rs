//! Crashes, pauses and lost answers at every single call into the outside: the output is whole and comes once.

use super::super::*;
use super::disk::Disk;
use super::job::{Attempt, INPUT, LANES, options, whole};
use super::topic::{Fault, Topic};
use crate::error::{Error, Kind, Result};
use crate::record::BarrierKind;
use std::sync::{Arc, Mutex};

/// Runs the job over and over until it finishes. Only the first process crashes, at call `crash_at`.
fn run_with_crash(fault: Fault, seed: u64, crash_at: u64, expire: bool) -> Result<(Topic, bool)> {
    let disk = Disk::default();
    let topic = Topic::new(disk.calls.clone(), fault, seed);
    disk.calls.crash_at(Some(crash_at));
    let mut crashed = false;
    for attempt in 0..5 {
        let outcome =
            Attempt::start(&disk, &topic, &options(From::Newest, &format!("L{attempt}"), false), 0).and_then(|mut a| a.finish(&disk));
        match outcome {
            Ok(_) => return Ok((topic, crashed)),
            Err(e) if !disk.calls.is_down() => return Err(e),
            Err(_) => crashed = true,
        }
        disk.power_off();
        disk.calls.crash_at(None);
        if expire {
            topic.expire_markers();
        }
    }
    unreachable!("the second process cannot crash")
}

/// `Err` says what is wrong with the output.
fn check(topic: &Topic, run: u64) -> Result<(), String> {
    for lane in 0..LANES {
        let mut committed = topic.committed(lane);
        committed.retain(|r| r / 10_000 == run);
        // Per task, records of a lane are in the order of positions.
        for task in 0..2 {
            let of_task: Vec<_> = committed.iter().filter(|r| **r % 10_000 / 1_000 == task).collect();
            if !of_task.is_sorted() {
                return Err(format!("lane {lane} out of order: {committed:?}"));
            }
        }
        committed.sort_unstable();
        if committed != whole(run, lane) {
            return Err(format!("lane {lane}: {committed:?}"));
        }
    }
    Ok(())
}

/// Every crash point of a run; `Err` = the first run whose output is wrong, or that stopped.
fn every_crash_point(fault: Fault, seeds: std::ops::Range<u64>, expire: bool) -> Result<u64, String> {
    let mut runs = 0;
    for seed in seeds {
        for crash_at in 1.. {
            let (topic, crashed) =
                run_with_crash(fault, seed, crash_at, expire).map_err(|e| format!("seed {seed}, call {crash_at}: {}", e.report()))?;
            check(&topic, 0).map_err(|e| format!("seed {seed}, crash at call {crash_at}: {e}"))?;
            runs += 1;
            if !crashed {
                break;
            }
        }
    }
    Ok(runs)
}

#[test]
fn a_crash_at_any_call_changes_nothing() {
    let runs = every_crash_point(Fault::None, 0..2, false).unwrap();
    assert!(runs > 200, "only {runs} crash points");
}

#[test]
fn a_crash_and_expired_markers_change_nothing() {
    every_crash_point(Fault::None, 2..4, true).unwrap();
}

#[test]
fn rules_left_out_are_noticed() {
    for (fault, expire) in [
        (Fault::AlwaysRedo, false),
        (Fault::NeverRedo, false),
        (Fault::AbsentMeansNo, true),
        (Fault::MarkerBeforeFence, false),
        (Fault::MarkerFirst, false),
    ] {
        assert!(every_crash_point(fault, 0..2, expire).is_err(), "{fault:?} goes unnoticed");
    }
}

/// The first process is paused before call `pause_at`; meanwhile a second one starts and makes `steps` steps; then the first
/// goes on until it ends, then the second; if it was thrown out a third one finishes.
fn run_with_zombie(fault: Fault, seed: u64, pause_at: u64, steps: u64) -> Result<(Topic, bool), String> {
    let disk = Disk::default();
    let topic = Topic::new(disk.calls.clone(), fault, seed);
    let second: Arc<Mutex<Option<Result<Attempt>>>> = Arc::default();
    let (d, t, s) = (disk.clone(), topic.clone(), second.clone());
    let start_second = move || {
        let mut started = Attempt::start(&d, &t, &options(From::Newest, "second", false), 0);
        for _ in 0..steps {
            match &mut started {
                Ok(attempt) => match attempt.step(&d) {
                    Ok(super::job::Outcome::Going) => {}
                    Ok(super::job::Outcome::Finished(_)) => break,
                    Err(e) => started = Err(e),
                },
                Err(_) => break,
            }
        }
        *s.lock().unwrap() = Some(started);
    };
    disk.calls.interrupt_at(pause_at, Box::new(start_second));
    let first = Attempt::start(&disk, &topic, &options(From::Newest, "first", false), 0).and_then(|mut a| a.finish(&disk));
    let Some(second) = second.lock().unwrap().take() else {
        return first.map(|_| (topic, false)).map_err(|e| e.report());
    };
    if second.and_then(|mut a| a.finish(&disk)).is_err() || first.is_err() {
        for attempt in 0.. {
            let last = Attempt::start(&disk, &topic, &options(From::Newest, "third", false), 0).and_then(|mut a| a.finish(&disk));
            match last {
                Ok(_) => break,
                Err(e) if attempt > 3 || e.kind() == Kind::Fatal => return Err(e.report()),
                Err(_) => {}
            }
        }
    }
    Ok((topic, true))
}

fn every_pause(fault: Fault) -> Result<(), String> {
    for steps in [0, 3, 7, 12, 1_000] {
        for pause_at in 1.. {
            let (topic, paused) =
                run_with_zombie(fault, 7, pause_at, steps).map_err(|e| format!("pause at {pause_at}, {steps} steps: {e}"))?;
            check(&topic, 0).map_err(|e| format!("pause at {pause_at}, {steps} steps: {e}"))?;
            if !paused {
                break;
            }
        }
    }
    Ok(())
}

#[test]
fn a_paused_process_does_no_harm_when_it_comes_back() {
    every_pause(Fault::None).unwrap();
}

#[test]
fn a_missing_fence_is_noticed() {
    assert!(every_pause(Fault::NoFence).is_err());
}

/// Runs to the end, then starts over in a new lineage, with a crash in the second run.
fn start_over(fault: Fault, crash_after: u64) -> Result<bool, String> {
    let disk = Disk::default();
    let topic = Topic::new(disk.calls.clone(), fault, 3);
    let run = |from: From, lineage: &str, run: u64| {
        Attempt::start(&disk, &topic, &options(from, lineage, false), run).and_then(|mut a| a.finish(&disk))
    };
    run(From::Newest, "one", 0).map_err(|e| e.report())?;
    disk.calls.crash_at(Some(disk.calls.made() + crash_after));
    let crashed = run(From::Fresh, "two", 1).is_err();
    disk.power_off();
    disk.calls.crash_at(None);
    if crashed {
        // Whoever starts over says so again if the fork was not in the log yet; `fork` tells by the lineage.
        run(From::Newest, "three", 1).map_err(|e| e.report())?;
    }
    let forked = topic.committed(0).iter().any(|r| r / 10_000 == 1);
    check(&topic, 0)?;
    // A crash before the fork was logged leaves the finished first run as it is.
    if forked { check(&topic, 1).map(|()| crashed) } else { Ok(crashed) }
}

#[test]
fn a_new_lineage_is_whole_too_and_without_lineages_it_is_not() {
    let every = |fault| -> Result<(), String> {
        for crash_after in 1.. {
            if !start_over(fault, crash_after).map_err(|e| format!("crash after {crash_after}: {e}"))? {
                return Ok(());
            }
        }
        Ok(())
    };
    every(Fault::None).unwrap();
    assert!(every(Fault::NoLineage).is_err());
}

#[test]
fn a_stop_in_the_middle_resumes_exactly_and_falling_back_is_refused() {
    let disk = Disk::default();
    let topic = Topic::new(disk.calls.clone(), Fault::None, 1);
    let start = |from: From, lineage: &str, accept| Attempt::start(&disk, &topic, &options(from, lineage, accept), 0);
    let mut first = start(From::Newest, "one", false).unwrap();
    first.tell(Event::SavepointRequested { path: "/savepoint".into() });
    first.stop_after(2);
    assert_eq!(first.finish(&disk).unwrap(), BarrierKind::Stop);
    let refused = start(From::Savepoint("/savepoint".into()), "two", false).err().unwrap();
    assert!(refused.report().contains("--accept-duplicates"), "{}", refused.report());
    let refused = start(From::Checkpoint(99), "two", false).err().unwrap();
    assert!(refused.to_string().contains("there is no checkpoint 99"));
    let mut second = start(From::Newest, "two", false).unwrap();
    assert_eq!(second.finish(&disk).unwrap(), BarrierKind::Final);
    check(&topic, 0).unwrap();
    let mut third = start(From::Savepoint("/savepoint".into()), "three", true).unwrap();
    assert_eq!(third.finish(&disk).unwrap(), BarrierKind::Final);
    // The savepoint was the second barrier: what two epochs read is not repeated; the rest comes twice, as accepted.
    assert_eq!(topic.committed(0).len() as u64, 2 * (INPUT + INPUT - 2));
}

#[test]
fn what_cannot_be_restored_is_refused_before_anything_moves() {
    for crash_at in 1.. {
        let disk = Disk::default();
        let topic = Topic::new(disk.calls.clone(), Fault::None, 1);
        disk.calls.crash_at(Some(crash_at));
        let first = Attempt::start(&disk, &topic, &options(From::Newest, "one", false), 0).and_then(|mut a| a.finish(&disk));
        disk.power_off();
        disk.calls.crash_at(None);
        let committed = || (0..LANES).map(|lane| topic.committed(lane)).collect::<Vec<_>>();
        let log = || disk.env().files.list(std::path::Path::new("/job/log")).unwrap_or_default();
        let (before, entries) = (committed(), log());
        let damaged = |_: &Manifest, _: &Arc<dyn CheckpointStorage>| Err(Error::fatal("it is damaged"));
        let again = options(From::Newest, "two", false);
        if let Err(e) = Attempt::start_if(&disk, &topic, &again, 0, &mut { damaged }) {
            assert!(e.to_string().contains("it is damaged"), "{e}");
            assert_eq!((committed(), log()), (before, entries), "crash at call {crash_at}");
        }
        Attempt::start(&disk, &topic, &again, 0).and_then(|mut a| a.finish(&disk)).unwrap();
        check(&topic, 0).unwrap();
        if first.is_ok() {
            break;
        }
    }
}

#[test]
fn a_name_known_to_the_topics_but_not_to_the_folder_is_no_new_job() {
    let disk = Disk::default();
    let topic = Topic::new(disk.calls.clone(), Fault::None, 1);
    Attempt::start(&disk, &topic, &options(From::Newest, "one", false), 0).and_then(|mut a| a.finish(&disk)).unwrap();
    let elsewhere = Disk::default();
    let start = |from: From| Attempt::start(&elsewhere, &topic, &options(from, "two", false), 1);
    let refused = start(From::Newest).err().unwrap();
    assert!(refused.to_string().contains("is not new"), "{refused}");
    start(From::Fresh).unwrap().finish(&elsewhere).unwrap();
    check(&topic, 1).unwrap();
}
