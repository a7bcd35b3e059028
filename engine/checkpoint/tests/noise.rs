//! Damage behind a checksum that holds: whoever wrote it, it is refused or understood, never a panic and never more memory
//! than the bytes are worth.

use super::super::seal::{seal, unseal};
use super::super::*;
use crate::operators::{SegmentRef, Split, SplitId, SplitState};
use crate::record::{BarrierKind, OperatorId, TaskId};
use crate::time::EventTime;
use proptest::prelude::*;

fn manifest() -> Manifest {
    let id = OperatorId::new("count");
    let split =
        Split { id: SplitId { name: "t".into(), partition: 3 }, start: 1, end: Some(9), bootstrap_end: None, topic_id: Some("x".into()) };
    let splits = vec![SplitState { split, position: 4, watermark: EventTime(-7), ended: false, all_read: false }];
    let segment = SegmentRef {
        name: "s".into(),
        lane: 0,
        epoch: 4,
        task: 1,
        sequence: 0,
        len: 10,
        crc: 11,
        records: 2,
        noted_ends: vec![("t".into(), 0, 5)],
    };
    let operator = OperatorSnapshot {
        id: id.clone(),
        blob: vec![0, 255, 16],
        splits,
        tables: vec![TableSchema { name: "n".into(), schema: "point postcard/1 u64".into() }],
    };
    Manifest {
        version: 1,
        job: "job".into(),
        attempt: "a".into(),
        lineage: "L".into(),
        parent: Some(Fork { lineage: "K".into(), epoch: 2 }),
        epoch: 5,
        kind: BarrierKind::Checkpoint,
        wall_ms: 6,
        max_parallelism: 8,
        key_codec: 1,
        plan: PlanSummary::default(),
        lanes: vec![SinkLanes { sink: id.clone(), lanes: 2 }],
        tasks: vec![TaskSnapshot {
            task: TaskId { head: id.clone(), index: 0 },
            groups: 0..8,
            files: vec![],
            operators: vec![operator],
            segments: vec![SinkSegment { sink: id.clone(), segment }],
            finished: false,
        }],
        unpublished: vec![],
        published: vec![Published { lane: LaneId { sink: id, lane: 1 }, lineage: "L".into(), epoch: 3 }],
    }
}

fn entries() -> Vec<LogEntry> {
    let checkpoint = CheckpointRef {
        epoch: 5,
        lineage: "L".into(),
        kind: BarrierKind::Savepoint,
        manifest: "chk/5".into(),
        len: 1,
        crc: 2,
        savepoint: Some("/sp".into()),
    };
    vec![
        LogEntry::JobCreated { job: "job".into(), lanes: vec![], max_parallelism: 8, lineage: "L".into(), start: Start::Fresh },
        LogEntry::AttemptStarted { attempt: "a".into(), parallelism: 2, lineage: "L".into(), lanes: vec![] },
        LogEntry::CheckpointComplete { checkpoint, published: vec![], dropped: vec![] },
    ]
}

/// One change of some bytes.
#[derive(Debug, Clone)]
enum Change {
    Flip(usize, u8),
    Cut(usize),
    Insert(usize, Vec<u8>),
    Double(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let at = 0usize..4096;
    prop_oneof![
        (at.clone(), 0u8..8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        at.clone().prop_map(Change::Cut),
        (
            at.clone(),
            prop_oneof![
                Just(b"[[[[".to_vec()),
                Just(b"99999999999999999999".to_vec()),
                Just(b"\"\\u0000".to_vec()),
                Just(b"null".to_vec())
            ]
        )
            .prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (at.clone(), at).prop_map(|(a, b)| Change::Double(a, b)),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    let len = bytes.len().max(1);
    match change {
        Change::Flip(at, bit) if !bytes.is_empty() => bytes[at % len] ^= 1 << bit,
        Change::Cut(at) => bytes.truncate(at % len),
        Change::Insert(at, what) => drop(bytes.splice(at % len..at % len, what.iter().copied())),
        Change::Double(a, b) => {
            let (a, b) = ((a % len).min(b % len), (a % len).max(b % len).min(bytes.len()));
            let part = bytes[a..b].to_vec();
            bytes.splice(b..b, part);
        }
        Change::Flip(..) => {}
    }
}

/// The body of sealed bytes, changed and sealed anew.
fn resealed(sealed: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut body = sealed[..sealed.len() - "crc32 xxxxxxxx\n".len()].to_vec();
    changes.iter().for_each(|c| apply(&mut body, c));
    let crc = crc32fast::hash(&body);
    body.extend_from_slice(format!("crc32 {crc:08x}\n").as_bytes());
    body
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_manifest_is_refused_or_understood(changes in proptest::collection::vec(change(), 1..4)) {
        let good = manifest().encode().unwrap();
        if let Ok(read) = Manifest::decode("chk/5", &resealed(&good, &changes)) {
            // What is understood is a manifest like any other.
            prop_assert_eq!(Manifest::decode("chk/5", &read.encode().unwrap()).unwrap(), read);
        }
    }

    #[test]
    fn a_manifest_without_its_checksum_is_always_refused(changes in proptest::collection::vec(change(), 1..4)) {
        let good = manifest().encode().unwrap();
        let mut bad = good.clone();
        changes.iter().for_each(|c| apply(&mut bad, c));
        prop_assert!(bad == good || Manifest::decode("chk/5", &bad).is_err());
    }

    #[test]
    fn a_log_entry_is_refused_or_understood(nth in 0usize..3, changes in proptest::collection::vec(change(), 1..4)) {
        let bytes = resealed(&seal(&entries()[nth]).unwrap(), &changes);
        // Entries lie in an envelope with a version; on their own they have none, and are refused for that.
        prop_assert!(unseal::<LogEntry>("log", 1, &bytes).is_err());
        let mut history: Option<JobHistory> = None;
        for entry in &entries() {
            JobHistory::apply(&mut history, entry).unwrap();
        }
        if let Ok(entry) = serde_json::from_slice::<LogEntry>(&bytes[..bytes.len() - "crc32 xxxxxxxx\n".len()]) {
            let _ = JobHistory::apply(&mut history, &entry);
        }
    }

    #[test]
    fn noise_is_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Manifest::decode("chk/5", &bytes).is_err());
    }
}
