//! The crash matrix: a run of producers and lanes dies before, inside and after every single file operation, by kill or by
//! power loss; or is stopped there while its successor takes over, and wakes up later.
//!
//! Invariant checked: committed epochs are whole and match the marker, acknowledged records stay, nothing is doubled, lost or
//! moved, and what a reader has seen never changes.

mod damage;
mod disk;

use super::LocalTopics;
use crate::conformance::{batch, content, lane, marker, stage, writer_context};
use crate::topics::{SinkOptions, SourceOptions, TopicConfig, Topics};
use disk::{Disk, Loss, Moment};
use std::path::Path;
use std::sync::{Arc, Mutex};
use waterwheel_engine::env::Env;
use waterwheel_engine::error::Result;
use waterwheel_engine::operators::{LaneMarker, LanePublisher, PublisherContext, SegmentRef, Sink};
use waterwheel_engine::record::Epoch;

const EPOCHS: Epoch = 3;
const STAGING: &str = "staging";

fn topics(env: &Env) -> LocalTopics {
    LocalTopics::new(env.clone(), "data".into())
}

fn sink(env: &Env) -> Arc<dyn Sink> {
    topics(env).sink(SinkOptions::new("out")).unwrap()
}

/// What one epoch writes: both topics, several partitions, so that a transaction spans files.
fn rows(epoch: Epoch) -> Vec<(&'static str, i32, String)> {
    let mut rows: Vec<_> = (0..4).map(|p| ("out", p, format!("e{epoch}p{p}"))).collect();
    rows.push(("out", 0, format!("e{epoch}p0 again")));
    rows.push(("other", 0, format!("e{epoch}")));
    rows
}

/// A disk with topics and staged segments of all epochs, nothing published.
fn prepared() -> (Disk, Vec<SegmentRef>) {
    let disk = Disk::default();
    let env = disk.env(1);
    for name in ["out", "other"] {
        topics(&env).create(name, &TopicConfig::partitions(4)).unwrap();
    }
    let mut writer = sink(&env).writer(writer_context(&env, Path::new(STAGING), "a")).unwrap();
    let mut segments = Vec::new();
    for epoch in 1..=EPOCHS {
        let mut records = waterwheel_engine::record::RawBatch::default();
        for (topic, partition, value) in rows(epoch) {
            batch(topic, &[(partition, &value)]).records().for_each(|r| records.push(r));
        }
        segments.extend(stage(&mut *writer, epoch, &records));
    }
    for dir in [STAGING, "."] {
        env.files.sync_dir(Path::new(dir)).unwrap();
    }
    (disk, segments)
}

/// Publishes what the marker says is missing, as the engine does after a start.
fn publish_rest(
    publisher: &mut dyn LanePublisher,
    lane: u32,
    segments: &[SegmentRef],
    mut each: impl FnMut(Epoch) -> Result<()>,
) -> Result<()> {
    let last = publisher.marker()?.map_or(0, |m| m.epoch);
    for epoch in last + 1..=EPOCHS {
        let mine: Vec<SegmentRef> = segments.iter().filter(|s| s.lane == lane && s.epoch == epoch).cloned().collect();
        publisher.publish(&marker(epoch), &mine)?;
        each(epoch)?;
    }
    Ok(())
}

/// What a process may have shown and promised before it ended.
#[derive(Default)]
struct Seen {
    out: Vec<(i32, i64, String)>,
    acknowledged: Vec<String>,
    markers: [Option<LaneMarker>; 2],
}

/// Both lanes publish, a producer writes in between, a reader looks on. Ends early when the disk dies.
fn process(env: &Env, segments: &[SegmentRef], tag: &str, seen: &mut Seen) -> Result<()> {
    let (topics, sink) = (topics(env), sink(env));
    for lane in 0..2 {
        let context = PublisherContext { job: "job".into(), operator: "out".into(), lane, staging: STAGING.into(), env: env.clone() };
        let mut publisher = sink.lane(context)?;
        publisher.fence()?;
        publish_rest(&mut *publisher, lane, segments, |epoch| {
            seen.markers[lane as usize] = Some(marker(epoch));
            let value = format!("{tag} {lane} {epoch}");
            topics.produce(&batch("out", &[(1, &value), (2, &value)]))?;
            seen.acknowledged.push(value);
            seen.out = visible(env, "out");
            Ok(())
        })?;
    }
    Ok(())
}

/// What a reader sees; nothing once the disk is dead.
fn visible(env: &Env, topic: &str) -> Vec<(i32, i64, String)> {
    let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| content(&topics(env), env, SourceOptions::new(topic))));
    looked.unwrap_or_default()
}

/// Everything that must hold on a disk that some process has left.
fn check(disk: &Disk, seen: &Seen, place: &str) {
    let env = disk.env(77);
    let sink = sink(&env);
    let (out, other) = (content(&topics(&env), &env, SourceOptions::new("out")), content(&topics(&env), &env, SourceOptions::new("other")));
    for row in &seen.out {
        assert!(out.contains(row), "{place}: {row:?} was shown and is gone: {out:?}");
    }
    for value in &seen.acknowledged {
        assert_eq!(out.iter().filter(|r| r.2 == *value).count(), 2, "{place}: {value} was acknowledged");
    }
    for number in 0..2u32 {
        let last = lane(&*sink, &env, Path::new(STAGING), number).marker().unwrap();
        let published = last.as_ref().map_or(0, |m| m.epoch);
        assert!(published >= seen.markers[number as usize].as_ref().map_or(0, |m| m.epoch), "{place}: a marker went back");
        for epoch in 1..=EPOCHS {
            for (topic, partition, value) in rows(epoch) {
                if crate::partitioning::lane_of(topic, partition, 2) == number {
                    let rows = if topic == "out" { &out } else { &other };
                    let there = rows.iter().filter(|r| r.0 == partition && r.2 == value).count();
                    assert_eq!(there, usize::from(epoch <= published), "{place}: {value} in {topic}, marker {published}");
                }
            }
        }
    }
    for (partition, values) in out.chunk_by(|a, b| a.0 == b.0).map(|rows| (rows[0].0, rows)) {
        assert_eq!(values.iter().map(|r| r.1).collect::<Vec<_>>(), (0..values.len() as i64).collect::<Vec<_>>(), "{place}: offsets");
        let epochs: Vec<&String> = values.iter().map(|r| &r.2).filter(|v| v.starts_with('e')).collect();
        assert!(epochs.is_sorted(), "{place}: order in {partition}: {epochs:?}");
    }
}

/// A successor finishes the work; then all epochs are there once.
fn finish(disk: &Disk, segments: &[SegmentRef], seen: &mut Seen, place: &str) {
    process(&disk.env(5), segments, "second", seen).unwrap();
    seen.markers = [0, 1].map(|_| Some(marker(EPOCHS)));
    check(disk, seen, place);
}

#[test]
fn dying_at_any_file_operation_loses_and_doubles_nothing() {
    std::panic::set_hook(Box::new(|info| {
        // A reader on a dead disk panics in the helpers of the tests; that is expected and caught.
        if !info.to_string().contains("the process") {
            eprintln!("{info}");
        }
    }));
    let (fresh, segments) = prepared();
    for moment in [Moment::Before, Moment::Inside, Moment::After] {
        for k in 0.. {
            let disk = fresh.after(Loss::Process);
            disk.fail_at(k, moment);
            let mut seen = Seen::default();
            let ended = process(&disk.env(3), &segments, "first", &mut seen);
            assert!(ended.is_ok() || disk.is_dead(), "{ended:?}");
            // Dying while it tidies up at the very end fails nothing.
            if !disk.is_dead() {
                assert!(k > 100, "the run has only {k} operations: it does not do what it should");
                break;
            }
            for loss in [
                Loss::Process,
                Loss::Power { kept: 0 },
                Loss::Power { kept: (k % 97) as usize },
                Loss::PowerButNames,
                Loss::PowerAndRemovals,
            ] {
                let place = format!("died {moment:?} operation {k}, {loss:?}");
                let left = disk.after(loss);
                let mut seen = Seen { out: seen.out.clone(), acknowledged: seen.acknowledged.clone(), markers: seen.markers.clone() };
                check(&left, &seen, &place);
                finish(&left, &segments, &mut seen, &place);
            }
        }
    }
}

/// A reader looks just before an operation, with which the power fails.
#[test]
fn what_a_reader_has_seen_survives_a_power_loss() {
    let (fresh, segments) = prepared();
    for k in 0.. {
        let disk = fresh.after(Loss::Process);
        let (looker, saw) = (disk.clone(), Arc::new(Mutex::new(Vec::new())));
        let sees = saw.clone();
        disk.stop_at(
            k,
            Box::new(move || {
                *sees.lock().unwrap() = visible(&looker.env(8), "out");
                looker.fail_at(0, Moment::Before);
            }),
        );
        let _ = process(&disk.env(3), &segments, "first", &mut Seen::default());
        if disk.hook_is_waiting() {
            assert!(k > 100);
            break;
        }
        let seen = Seen { out: saw.lock().unwrap().clone(), ..Seen::default() };
        check(&disk.after(Loss::Power { kept: 0 }), &seen, &format!("seen before operation {k}"));
    }
}

#[test]
fn a_zombie_that_wakes_up_at_any_file_operation_changes_nothing() {
    let (fresh, segments) = prepared();
    for k in 0.. {
        let disk = fresh.after(Loss::Process);
        let (successor, theirs) = (disk.clone(), segments.clone());
        disk.stop_at(
            k,
            Box::new(move || {
                let mut seen = Seen::default();
                finish(&successor, &theirs, &mut seen, &format!("takeover at operation {k}"));
                // Enough commits to fold the ones the zombie knew.
                let env = successor.env(6);
                (0..20).for_each(|n| topics(&env).produce(&batch("other", &[(3, &format!("later {n}"))])).unwrap());
            }),
        );
        let mut seen = Seen::default();
        let ended = process(&disk.env(3), &segments, "first", &mut seen);
        if disk.hook_is_waiting() {
            assert!(ended.is_ok() && k > 100);
            break;
        }
        check(&disk, &seen, &format!("woke up at operation {k}"));
        finish(&disk, &segments, &mut seen, &format!("after the zombie of operation {k}"));
    }
}
