//! Retention, savepoints, uploads and restore, each with crashes or damage where it matters.

use super::super::*;
use super::disk::Disk;
use super::job::savepoint_store;
use crate::error::Result;
use crate::operators::{Split, SplitId, SplitState};
use crate::record::{BarrierKind, Epoch, KEY_CODEC_VERSION, OperatorId, TaskId};
use crate::state::StateFile;
use crate::time::EventTime;
use std::collections::BTreeSet;
use std::path::Path;

const DIR: &str = "/job";

fn storage(disk: &Disk) -> LocalStorage {
    LocalStorage::open(&disk.env(), Path::new(DIR), &JOB_FOLDERS).unwrap()
}

fn count() -> OperatorId {
    OperatorId::new("count")
}

fn table(schema: &str) -> TableSchema {
    TableSchema { name: "total".into(), schema: schema.into() }
}

fn write(disk: &Disk, path: &str, bytes: &[u8]) {
    let files = disk.env().files;
    files.create_dir_all(Path::new(path).parent().unwrap()).unwrap();
    files.create(Path::new(path)).unwrap().write_all(bytes).unwrap();
}

fn described(name: &str, bytes: &[u8], immutable: bool) -> StateFile {
    StateFile { name: name.into(), len: bytes.len() as u64, crc: crc32fast::hash(bytes), immutable }
}

fn split(partition: i32) -> SplitState {
    let id = SplitId { name: "in".into(), partition };
    let split = Split { id, start: 0, end: None, bootstrap_end: None, topic_id: None };
    SplitState { split, position: 7, watermark: EventTime(3), ended: false, all_read: false }
}

/// Two tasks; each has one immutable file of its own per epoch, one shared with the epoch before, and a `CURRENT`.
fn snapshot(disk: &Disk, storage: &LocalStorage, uploads: &mut [Uploads; 2], epoch: Epoch) -> Manifest {
    let mut tasks = Vec::new();
    for (index, uploads) in uploads.iter_mut().enumerate() {
        let mut files = Vec::new();
        for (name, immutable) in [(format!("{epoch}.sst"), true), (format!("{}.sst", epoch - 1), true), ("CURRENT".into(), false)] {
            let content = if immutable { format!("{index} {name}") } else { format!("{index} {epoch}") };
            write(disk, &format!("/snap/{name}"), content.as_bytes());
            files.push(described(&name, content.as_bytes(), immutable));
        }
        let files = uploads.upload(storage, epoch, Path::new("/snap"), &files).unwrap();
        let task = TaskId { head: count(), index: index as u32 };
        let groups = crate::record::key_groups_of(index as u32, 2, 8);
        let operators = vec![
            OperatorSnapshot { id: OperatorId::new("source"), blob: vec![], splits: vec![split(1 - index as i32)], tables: vec![] },
            OperatorSnapshot {
                id: count(),
                blob: vec![index as u8],
                splits: vec![],
                tables: vec![table("point postcard/1 Total; Total{n: u64, sum: i64}")],
            },
        ];
        tasks.push(TaskSnapshot { task, groups, files, operators, segments: vec![], finished: false });
    }
    Manifest {
        version: 1,
        job: "job".into(),
        attempt: "a".into(),
        lineage: "L".into(),
        parent: None,
        epoch,
        kind: BarrierKind::Checkpoint,
        wall_ms: 0,
        max_parallelism: 8,
        key_codec: KEY_CODEC_VERSION,
        plan: PlanSummary::default(),
        lanes: vec![],
        tasks,
        unpublished: vec![],
        published: vec![],
    }
}

/// Of a log that nobody else writes.
fn watch(disk: &Disk) -> LogWatch {
    let apart = LocalStorage::open(&disk.env(), Path::new("/apart"), &JOB_FOLDERS).unwrap();
    JobLog::open(&disk.env(), std::sync::Arc::new(apart), "b").unwrap().watch()
}

fn uploads() -> [Uploads; 2] {
    [0, 1].map(|index| Uploads::new("a", TaskId { head: count(), index }, &[]))
}

fn operators(schema: &str) -> Vec<PlanOperator> {
    vec![
        PlanOperator { id: OperatorId::new("source"), parallelism: 2, tables: vec![] },
        PlanOperator { id: count(), parallelism: 2, tables: vec![table(schema)] },
    ]
}

fn restore(
    disk: &Disk,
    from: &dyn CheckpointStorage,
    manifest: &Manifest,
    operators: &[PlanOperator],
    drop_state: &[OperatorId],
) -> Result<Restore> {
    let drop_state: BTreeSet<_> = drop_state.iter().cloned().collect();
    let target = RestoreTarget { job: "job", max_parallelism: 8, operators, drop_state: &drop_state, of_any_job: false };
    Restore::prepare(&disk.env(), from, manifest, target, Path::new("/restored"))
}

const SCHEMA: &str = "point postcard/1 Total; Total{n: u64, sum: i64}";

#[test]
fn only_new_files_are_uploaded_and_all_come_back() {
    let disk = Disk::default();
    let storage = storage(&disk);
    let mut up = uploads();
    snapshot(&disk, &storage, &mut up, 1);
    let before = storage.list("state").unwrap();
    let mut manifest = snapshot(&disk, &storage, &mut up, 2);
    let new: Vec<_> = storage.list("state").unwrap().into_iter().filter(|n| !before.contains(n)).collect();
    assert_eq!(new, ["state/a-count-0-2.sst", "state/a-count-0-CURRENT@2", "state/a-count-1-2.sst", "state/a-count-1-CURRENT@2"]);
    let stored = store_manifest(&disk.env(), &storage, &mut manifest, None).unwrap();
    disk.power_off();
    assert_eq!(load_manifest(&storage, &stored).unwrap(), manifest);
    let restored = restore(&disk, &storage, &manifest, &operators(SCHEMA), &[]).unwrap();
    assert_eq!(disk.env().files.read(Path::new("/restored/count-1/1.sst")).unwrap(), b"1 1.sst");
    assert_eq!(restored.blobs(&count()), [vec![0], vec![1]]);
    assert_eq!(restored.splits(&OperatorId::new("source")), [split(0), split(1)]);
    let tasks = |groups| restored.snapshots(&[count()], &groups).iter().map(|t| t.task.index).collect::<Vec<_>>();
    assert_eq!((tasks(0..4), tasks(3..5), tasks(4..8)), (vec![0], vec![0, 1], vec![1]));
    assert!(restored.snapshots(&[OperatorId::new("source")], &(0..8)).is_empty());
}

#[test]
fn a_flipped_bit_in_any_file_is_found_before_it_is_used() {
    let disk = Disk::default();
    let storage = storage(&disk);
    let mut manifest = snapshot(&disk, &storage, &mut uploads(), 1);
    let stored = store_manifest(&disk.env(), &storage, &mut manifest, None).unwrap();
    for name in storage.list("state").unwrap() {
        let path = Path::new(DIR).join(&name);
        disk.flip(&path, 0);
        let e = restore(&disk, &storage, &manifest, &operators(SCHEMA), &[]).unwrap_err();
        assert!(e.to_string().contains(&name) && e.to_string().contains("checksum"), "{e}");
        disk.flip(&path, 0);
    }
    disk.flip(&Path::new(DIR).join(&stored.manifest), 9);
    assert!(load_manifest(&storage, &stored).unwrap_err().to_string().contains("damaged"));
}

#[test]
fn what_does_not_fit_the_plan_is_refused_with_the_reason() {
    let disk = Disk::default();
    let storage = storage(&disk);
    let manifest = snapshot(&disk, &storage, &mut uploads(), 1);
    let refused = |manifest: &Manifest, operators: &[PlanOperator], drop: &[OperatorId]| {
        restore(&disk, &storage, manifest, operators, drop).unwrap_err().report()
    };
    let changed = refused(&manifest, &operators("point postcard/1 Total; Total{n: u64, sum: f64}"), &[]);
    assert!(changed.contains("Total.sum: i64 became f64") && changed.contains("--drop-state count"), "{changed}");
    let evolved = operators("point postcard/1 Total; Total{n: u128, sum: i64, note: str default}");
    assert!(restore(&disk, &storage, &manifest, &evolved, &[]).is_ok());
    let gone = refused(&manifest, &operators(SCHEMA)[..1], &[]);
    assert!(gone.contains("state of operator count, which is not in the plan") && gone.contains("--drop-state count"), "{gone}");
    let dropped = restore(&disk, &storage, &manifest, &operators(SCHEMA)[..1], &[count()]).unwrap();
    assert!(dropped.blobs(&count()).is_empty() && dropped.snapshots(&[count()], &(0..8)).is_empty());
    let with = |change: fn(&mut Manifest)| {
        let mut manifest = manifest.clone();
        change(&mut manifest);
        refused(&manifest, &operators(SCHEMA), &[])
    };
    assert!(with(|m| m.job = "other".into()).contains("it is of job other"));
    assert!(with(|m| m.max_parallelism = 16).contains("it has 16 key groups"));
    assert!(with(|m| m.key_codec = 99).contains("version 99"));
    assert!(with(|m| drop(m.tasks.pop())).contains("key groups of count end at 4 of 8"));
    assert!(with(|m| m.tasks[1].groups = 5..8).contains("gap or an overlap"));
    assert!(with(|m| m.tasks[1].operators[0].splits = vec![split(1)]).contains("is in it twice"));
}

#[test]
fn a_crash_between_any_two_deletes_leaves_what_is_retained() {
    for crash_after in 0.. {
        let disk = Disk::default();
        let storage = storage(&disk);
        let (mut up, mut retention) = (uploads(), Retention::default());
        let mut stored = Vec::new();
        for epoch in 1..=4 {
            let mut manifest = snapshot(&disk, &storage, &mut up, epoch);
            let reference = store_manifest(&disk.env(), &storage, &mut manifest, None).unwrap();
            retention.keep(&reference, &manifest);
            stored.push(reference);
        }
        disk.calls.crash_at(Some(disk.calls.made() + crash_after));
        let deleted = retention.let_go(&storage, &stored[..2]);
        disk.power_off();
        disk.calls.crash_at(None);
        let (job, lineage, attempt) = ("job".into(), "L".into(), "b".into());
        let retained = stored[2..].to_vec();
        let history = JobHistory {
            job,
            max_parallelism: 8,
            lanes: vec![],
            lineage,
            start: Start::Fresh,
            retained,
            published: vec![],
            attempt,
            attempts: 2,
            parallelisms: vec![],
            pinned: vec![],
        };
        sweep(&storage, &history, &watch(&disk)).unwrap();
        for reference in &stored[2..] {
            let manifest = load_manifest(&storage, reference).unwrap();
            restore(&disk, &storage, &manifest, &operators(SCHEMA), &[]).unwrap();
        }
        // Files of epochs 2 to 4 (2 is shared with 3), two CURRENT each for 3 and 4; nothing else.
        assert_eq!(storage.list("state").unwrap().len(), 2 * 3 + 2 * 2, "crash after {crash_after}");
        assert_eq!(storage.list("chk").unwrap().len(), 2);
        if deleted.is_ok() {
            break;
        }
    }
}

#[test]
fn nothing_is_swept_while_a_retained_manifest_cannot_be_read() {
    let disk = Disk::default();
    let storage = storage(&disk);
    let mut manifest = snapshot(&disk, &storage, &mut uploads(), 1);
    let reference = store_manifest(&disk.env(), &storage, &mut manifest, None).unwrap();
    write(&disk, "/job/state/orphan", b"x");
    disk.flip(&Path::new(DIR).join(&reference.manifest), 3);
    let before = storage.list("state").unwrap();
    let history = JobHistory {
        job: "job".into(),
        max_parallelism: 8,
        lanes: vec![],
        lineage: "L".into(),
        start: Start::Fresh,
        retained: vec![reference],
        published: vec![],
        attempt: "b".into(),
        attempts: 2,
        parallelisms: vec![],
        pinned: vec![],
    };
    assert!(sweep(&storage, &history, &watch(&disk)).is_err());
    assert_eq!(storage.list("state").unwrap(), before);
}

#[test]
fn a_savepoint_is_whole_or_no_savepoint() {
    for crash_after in 1.. {
        let disk = Disk::default();
        let storage = storage(&disk);
        let manifest = snapshot(&disk, &storage, &mut uploads(), 1);
        disk.calls.crash_at(Some(disk.calls.made() + crash_after));
        let made = savepoint_store(&disk.env(), "/sp")
            .and_then(|to| savepoint::create(&disk.env(), &storage, &manifest, &*to, Path::new("/scratch")));
        disk.power_off();
        disk.calls.crash_at(None);
        let to = savepoint_store(&disk.env(), "/sp").unwrap();
        match savepoint::open(&*to) {
            Ok((found, _)) => {
                // The job's own folder is not needed.
                disk.env().files.remove_dir_all(Path::new(DIR)).unwrap();
                restore(&disk, &*to, &found, &operators(SCHEMA), &[]).unwrap();
            }
            Err(e) => {
                assert!(made.is_err() && e.to_string().contains("there is no savepoint in"), "crash after {crash_after}: {e}");
                savepoint::create(&disk.env(), &storage, &manifest, &*to, Path::new("/scratch")).unwrap();
            }
        }
        if made.is_ok() {
            break;
        }
    }
}

#[test]
fn another_savepoint_is_never_overwritten() {
    let disk = Disk::default();
    let storage = storage(&disk);
    let mut up = uploads();
    let to = savepoint_store(&disk.env(), "/sp").unwrap();
    let create = |manifest: &Manifest| savepoint::create(&disk.env(), &storage, manifest, &*to, Path::new("/scratch"));
    let first = snapshot(&disk, &storage, &mut up, 1);
    create(&first).unwrap();
    create(&first).unwrap();
    let second = snapshot(&disk, &storage, &mut up, 2);
    assert!(create(&second).unwrap_err().to_string().contains("another savepoint"));
    assert_eq!(savepoint::open(&*to).unwrap().0.epoch, 1);
}
