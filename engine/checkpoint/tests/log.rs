//! The job log: what is in it is in it once, and what is wrong with it is found.

use super::super::*;
use super::disk::Disk;
use crate::record::BarrierKind;
use std::path::Path;
use std::sync::Arc;

fn open(disk: &Disk, attempt: &str) -> crate::error::Result<JobLog> {
    let storage = LocalStorage::open(&disk.env(), Path::new("/job"), &JOB_FOLDERS)?;
    JobLog::open(&disk.env(), Arc::new(storage), attempt)
}

fn created() -> LogEntry {
    let (job, lineage) = ("job".to_string(), "L".to_string());
    LogEntry::JobCreated { job, lanes: vec![], max_parallelism: 8, lineage, start: Start::Fresh }
}

fn started(attempt: &str) -> LogEntry {
    LogEntry::AttemptStarted { attempt: attempt.into(), parallelism: 1, lineage: "L".into(), lanes: vec![] }
}

fn complete(epoch: u64) -> LogEntry {
    let checkpoint = |epoch| CheckpointRef {
        epoch,
        lineage: "L".into(),
        kind: BarrierKind::Checkpoint,
        manifest: format!("chk/{epoch}"),
        len: 1,
        crc: 1,
        savepoint: None,
    };
    let dropped = if epoch > 1 { vec![checkpoint(epoch - 1)] } else { vec![] };
    LogEntry::CheckpointComplete { checkpoint: checkpoint(epoch), published: vec![], dropped }
}

#[test]
fn what_was_appended_is_read_back_after_a_power_cut() {
    let disk = Disk::default();
    let mut log = open(&disk, "a").unwrap();
    assert!(log.history().is_none());
    for entry in [created(), started("a"), complete(1), complete(2)] {
        log.append(&entry).unwrap();
    }
    disk.power_off();
    let read = open(&disk, "b").unwrap();
    assert_eq!(read.history(), log.history());
    assert_eq!((read.next(), read.history().unwrap().epoch()), (5, 2));
    assert_eq!(read.history().unwrap().retained.len(), 1);
}

#[test]
fn the_loser_of_a_slot_has_lost_and_a_claim_takes_the_next() {
    let disk = Disk::default();
    let mut a = open(&disk, "a").unwrap();
    a.append(&created()).unwrap();
    let mut b = open(&disk, "b").unwrap();
    a.append(&started("a")).unwrap();
    let watch = a.watch();
    watch.still_ours().unwrap();
    b.claim(|_| Ok(started("b"))).unwrap();
    assert_eq!((b.next(), b.history().unwrap().attempts), (4, 2));
    assert!(matches!(watch.still_ours(), Err(LogError::Lost { sequence: 3 })));
    assert!(matches!(a.append(&complete(1)), Err(LogError::Lost { sequence: 3 })));
    b.append(&complete(1)).unwrap();
}

#[test]
fn an_append_of_unknown_outcome_is_tried_again_and_is_in_once() {
    for crash_after in 1..9 {
        let disk = Disk::default();
        let mut log = open(&disk, "a").unwrap();
        log.append(&created()).unwrap();
        disk.calls.crash_at(Some(disk.calls.made() + crash_after));
        let first = log.append(&started("a"));
        disk.calls.crash_at(None);
        if first.is_err() {
            assert!(matches!(first, Err(LogError::Failed(_))), "{first:?}");
            assert!(log.append(&complete(1)).is_err() || crash_after == 1, "another entry slipped in");
            log.append(&started("a")).unwrap();
        }
        assert_eq!(open(&disk, "b").unwrap().history().unwrap().attempts, 1, "crash after {crash_after}");
    }
}

#[test]
fn gaps_damage_and_lost_logs_are_refused_by_name() {
    let disk = Disk::default();
    let mut log = open(&disk, "a").unwrap();
    for entry in [created(), started("a"), complete(1)] {
        log.append(&entry).unwrap();
    }
    let files = disk.env().files;
    let path = |n: u64| format!("/job/log/{n:020}");
    let whole = files.read(Path::new(&path(2))).unwrap();
    for at in 0..whole.len() {
        disk.flip(Path::new(&path(2)), at);
        let e = open(&disk, "b").err().unwrap_or_else(|| panic!("flip at {at} goes unnoticed"));
        assert!(e.to_string().contains(&format!("{:020}", 2)), "{e}");
        disk.flip(Path::new(&path(2)), at);
    }
    files.remove(Path::new(&path(2))).unwrap();
    assert!(open(&disk, "b").err().unwrap().to_string().contains("log entry 2 is missing"));
    files.rename(Path::new(&path(3)), Path::new(&path(2))).unwrap();
    assert!(open(&disk, "b").err().unwrap().to_string().contains("holds entry 3"));
    files.remove(Path::new(&path(2))).unwrap();
    files.remove(Path::new(&path(1))).unwrap();
    files.create(Path::new("/job/chk/1")).unwrap();
    assert!(open(&disk, "b").err().unwrap().to_string().contains("the job log is gone, but chk/1 is there"));
}

#[test]
fn a_long_log_folds_and_a_zombie_from_before_the_fold_is_still_shut_out() {
    let disk = Disk::default();
    let mut log = open(&disk, "a").unwrap();
    log.append(&created()).unwrap();
    let mut zombie = open(&disk, "z").unwrap();
    log.append(&started("a")).unwrap();
    for epoch in 1..600 {
        log.append(&complete(epoch)).unwrap();
    }
    let entries = disk.env().files.list(Path::new("/job/log")).unwrap().len();
    assert!(entries < 400, "{entries} entries left");
    assert_eq!(open(&disk, "b").unwrap().history(), log.history());
    // Its slot was deleted, so it is free again.
    assert!(matches!(zombie.append(&started("z")), Err(LogError::Lost { .. })));
    assert!(zombie.watch().still_ours().is_err());
    assert_eq!(open(&disk, "b").unwrap().history(), log.history());
    // Without the fold the rest is not a log.
    let folded = (1..610).find(|n| {
        let bytes = disk.env().files.read(Path::new(&format!("/job/log/{n:020}"))).unwrap_or_default();
        String::from_utf8_lossy(&bytes).contains("\"folded\"") && *n > 300
    });
    disk.env().files.remove(Path::new(&format!("/job/log/{:020}", folded.unwrap()))).unwrap();
    assert!(open(&disk, "b").is_err());
}

#[test]
fn a_sink_that_left_the_plan_is_not_waited_for() {
    let disk = Disk::default();
    let mut log = open(&disk, "a").unwrap();
    let lanes = |n| vec![SinkLanes { sink: crate::record::OperatorId::new("sink"), lanes: n }];
    let (job, lineage) = ("job".to_string(), "L".to_string());
    log.append(&LogEntry::JobCreated { job, lanes: lanes(2), max_parallelism: 8, lineage, start: Start::Fresh }).unwrap();
    assert_eq!(log.history().unwrap().lane_ids().len(), 2);
    log.append(&started("a")).unwrap();
    assert!(log.history().unwrap().lane_ids().is_empty());
}
