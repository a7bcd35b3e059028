//! The coordinator as a (state, event) table, and under random orders of events.

use super::super::*;
use crate::operators::SegmentRef;
use crate::record::{Barrier, BarrierKind, Epoch, OperatorId, TaskId};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

fn task(index: u32) -> TaskId {
    TaskId { head: OperatorId::new("t"), index }
}

fn lane(lane: u32) -> LaneId {
    LaneId { sink: OperatorId::new("sink"), lane }
}

fn history(lanes: u32) -> JobHistory {
    JobHistory {
        job: "job".into(),
        max_parallelism: 8,
        lanes: vec![SinkLanes { sink: OperatorId::new("sink"), lanes }],
        lineage: "L".into(),
        start: Start::Fresh,
        retained: vec![],
        published: vec![],
        attempt: "a".into(),
        attempts: 1,
        parallelisms: vec![2],
        pinned: vec![],
    }
}

fn settings() -> Settings {
    Settings {
        interval: ms(100),
        timeout: ms(50),
        min_pause: ms(10),
        tolerated_failures: 1,
        retained: 2,
        max_unpublished: 2,
        ..Settings::default()
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn coordinator(lanes: u32) -> Coordinator {
    let tasks = vec![TaskRole { task: task(0), source: true }, TaskRole { task: task(1), source: false }];
    Coordinator::new(settings(), PlanSummary::default(), tasks, history(lanes), Duration::ZERO)
}

fn segment(epoch: Epoch, index: u32, lane: u32) -> SegmentRef {
    let (len, crc, records, noted_ends) = (1, 1, 1, vec![]);
    SegmentRef { name: format!("s{epoch}-{index}-{lane}"), lane, epoch, task: index, sequence: 0, len, crc, records, noted_ends }
}

/// An ack with one segment in lane 0.
fn ack(index: u32, epoch: Epoch) -> Event {
    let segments = vec![SinkSegment { sink: OperatorId::new("sink"), segment: segment(epoch, index, 0) }];
    let snapshot = TaskSnapshot { task: task(index), groups: 0..4, files: vec![], operators: vec![], segments, finished: false };
    Event::TaskAck { epoch, snapshot: Box::new(snapshot) }
}

fn stored(epoch: Epoch) -> Event {
    Event::ManifestStored(reference(epoch, BarrierKind::Checkpoint))
}

fn reference(epoch: Epoch, kind: BarrierKind) -> CheckpointRef {
    CheckpointRef { epoch, lineage: "L".into(), kind, manifest: format!("chk/{epoch}"), len: 1, crc: 1, savepoint: None }
}

fn published(l: u32, epoch: Epoch) -> Event {
    Event::Published { lane: lane(l), epoch }
}

fn short(action: &Action) -> String {
    match action {
        Action::InjectBarrier(b) => format!("barrier {} {:?}", b.epoch, b.kind),
        Action::StoreManifest { manifest, .. } => {
            let names: Vec<_> = manifest.segments().map(|s| s.segment.name.as_str()).collect();
            format!("store {} [{}]", manifest.epoch, names.join(" "))
        }
        Action::AppendLog(entry) => match &**entry {
            LogEntry::CheckpointComplete { checkpoint, published, dropped } => {
                let published: Vec<_> = published.iter().map(|p| format!("{}:{}", p.lane.lane, p.epoch)).collect();
                let dropped: Vec<_> = dropped.iter().map(|d| d.epoch.to_string()).collect();
                format!("log {} published [{}] dropped [{}]", checkpoint.epoch, published.join(" "), dropped.join(" "))
            }
            other => format!("log {}", if matches!(other, LogEntry::Published { .. }) { "published" } else { "?" }),
        },
        Action::Publish { epoch, lanes } => {
            let names: Vec<_> =
                lanes.iter().map(|(l, s)| format!("{}:{}", l.lane, s.iter().map(|s| &s.name[..]).collect::<Vec<_>>().join(" "))).collect();
            format!("publish {epoch} [{}]", names.join(", "))
        }
        Action::NotifyComplete { epoch } => format!("complete {epoch}"),
        Action::Discard { epoch, .. } => format!("discard {epoch}"),
        Action::FreeSegments(names) => format!("free [{}]", names.join(" ")),
        Action::DeleteCheckpoints(dropped) => format!("delete {:?}", dropped.iter().map(|d| d.epoch).collect::<Vec<_>>()),
        Action::CreateSavepoint { checkpoint, path } => format!("savepoint {} {path}", checkpoint.epoch),
        Action::SavepointFinished { path, outcome } => format!("savepoint {path} {outcome:?}"),
        Action::Fail(e) => format!("fail {:?}: {e}", e.kind()),
        Action::Finished { kind } => format!("finished {kind:?}"),
    }
}

/// Plays a table of (time, event, actions).
fn play(coordinator: &mut Coordinator, table: Vec<(u64, Event, Vec<&str>)>) {
    for (row, (at, event, expected)) in table.into_iter().enumerate() {
        let text = format!("{event:?}");
        let got: Vec<_> = coordinator.on(event, ms(at)).iter().map(short).collect();
        assert_eq!(got, expected, "row {row}: at {at}, {text}");
    }
}

fn running() -> Vec<(u64, Event, Vec<&'static str>)> {
    vec![(0, Event::Tick, vec![]), (500, Event::TaskRunning(task(0)), vec![]), (500, Event::TaskRunning(task(1)), vec![])]
}

#[test]
fn one_checkpoint_after_the_other_published_in_order_and_freed_after_the_log() {
    let mut c = coordinator(2);
    let mut table = running();
    table.extend([
        (599, Event::Tick, vec![]),
        (600, Event::Tick, vec!["barrier 1 Checkpoint"]),
        (601, ack(0, 1), vec![]),
        (602, ack(1, 1), vec!["store 1 [s1-0-0 s1-1-0]"]),
        (603, stored(1), vec!["log 1 published [] dropped []"]),
        (604, Event::LogAppended, vec!["publish 1 [0:s1-0-0 s1-1-0, 1:]", "complete 1"]),
        (605, published(0, 1), vec![]),
        (700, Event::Tick, vec!["barrier 2 Checkpoint"]),
        (701, ack(1, 2), vec![]),
        // Lane 1 has not published epoch 1, but has nothing of it either.
        (702, ack(0, 2), vec!["store 2 [s2-0-0 s2-1-0]"]),
        (703, published(1, 1), vec![]),
        (704, stored(2), vec!["log 2 published [0:1 1:1] dropped []"]),
        (705, Event::LogAppended, vec!["publish 2 [0:s2-0-0 s2-1-0, 1:]", "complete 2", "free [s1-0-0 s1-1-0]"]),
        (800, Event::Tick, vec!["barrier 3 Checkpoint"]),
        (801, ack(0, 3), vec![]),
        (802, ack(1, 3), vec!["store 3 [s2-0-0 s2-1-0 s3-0-0 s3-1-0]"]),
        (803, stored(3), vec!["log 3 published [] dropped [1]"]),
        (804, Event::LogAppended, vec!["publish 3 [0:s3-0-0 s3-1-0, 1:]", "complete 3", "delete [1]"]),
        // Two epochs wait to be published: no barrier flows.
        (950, Event::Tick, vec![]),
        (951, published(1, 3), vec![]),
        (952, published(0, 2), vec!["barrier 4 Checkpoint"]),
    ]);
    play(&mut c, table);
    assert_eq!(c.waiting_for(), [task(0), task(1)]);
    assert_eq!(c.next_wake(), Some(ms(1002)));
}

#[test]
fn output_of_a_failed_checkpoint_rides_in_the_next_one_also_when_it_comes_late() {
    let mut c = coordinator(1);
    let mut table = running();
    let decline = Event::TaskDeclined { task: task(1), epoch: 2, reason: "disk".into() };
    table.extend([
        (600, Event::Tick, vec!["barrier 1 Checkpoint"]),
        (601, ack(0, 1), vec![]),
        (650, Event::Tick, vec!["discard 1"]),
        (651, ack(1, 1), vec![]),
        (700, Event::Tick, vec!["barrier 2 Checkpoint"]),
        (701, ack(0, 2), vec![]),
        (702, decline, vec!["discard 2", "fail Restart: checkpoint 2 failed: task t/1: disk"]),
        (703, ack(1, 3), vec![]),
    ]);
    play(&mut c, table);

    let mut c = coordinator(1);
    let mut table = running();
    table.extend([
        (600, Event::Tick, vec!["barrier 1 Checkpoint"]),
        (601, ack(0, 1), vec![]),
        (602, ack(1, 1), vec!["store 1 [s1-0-0 s1-1-0]"]),
        (650, Event::Tick, vec!["discard 1"]),
        // Stored too late: an orphan that no log entry names.
        (651, stored(1), vec![]),
        (700, Event::Tick, vec!["barrier 2 Checkpoint"]),
        (701, ack(0, 2), vec![]),
        (702, ack(1, 2), vec!["store 2 [s1-0-0 s1-1-0 s2-0-0 s2-1-0]"]),
        (703, stored(2), vec!["log 2 published [] dropped []"]),
        // No timeout takes an entry back.
        (790, Event::Tick, vec![]),
        (791, Event::LogAppended, vec!["publish 2 [0:s1-0-0 s1-1-0 s2-0-0 s2-1-0]", "complete 2"]),
    ]);
    play(&mut c, table);
}

#[test]
fn an_answer_out_of_turn_restarts_the_job() {
    for wrong in [ack(0, 2), ack(5, 1), ack(0, 0)] {
        let mut c = coordinator(1);
        play(&mut c, running());
        c.on(Event::Tick, ms(600));
        let actions = c.on(wrong, ms(601));
        assert!(matches!(&actions[..], [Action::Fail(e)] if e.to_string().contains("out of turn")), "{actions:?}");
        assert!(c.on(Event::Tick, ms(9_999)).is_empty());
    }
}

#[test]
fn no_barrier_flows_while_too_many_bytes_wait() {
    let tasks = vec![TaskRole { task: task(0), source: true }, TaskRole { task: task(1), source: false }];
    let settings = Settings { max_unpublished: 100, max_unpublished_bytes: 4, ..settings() };
    let mut c = Coordinator::new(settings, PlanSummary::default(), tasks, history(1), Duration::ZERO);
    let mut table = running();
    table.extend([
        (600, Event::Tick, vec!["barrier 1 Checkpoint"]),
        (601, ack(0, 1), vec![]),
        (602, ack(1, 1), vec!["store 1 [s1-0-0 s1-1-0]"]),
        (603, stored(1), vec!["log 1 published [] dropped []"]),
        (604, Event::LogAppended, vec!["publish 1 [0:s1-0-0 s1-1-0]", "complete 1"]),
        // Two bytes wait.
        (700, Event::Tick, vec!["barrier 2 Checkpoint"]),
        (701, ack(0, 2), vec![]),
        (702, ack(1, 2), vec!["store 2 [s1-0-0 s1-1-0 s2-0-0 s2-1-0]"]),
        (703, stored(2), vec!["log 2 published [] dropped []"]),
        (704, Event::LogAppended, vec!["publish 2 [0:s2-0-0 s2-1-0]", "complete 2"]),
        // Four do.
        (900, Event::Tick, vec![]),
        (901, published(0, 1), vec!["barrier 3 Checkpoint"]),
    ]);
    play(&mut c, table);
}

#[test]
fn a_stop_publishes_notes_and_ends() {
    let mut c = coordinator(1);
    let mut table = running();
    table.extend([
        (501, Event::StopRequested, vec!["barrier 1 Stop"]),
        (502, ack(0, 1), vec![]),
        (503, ack(1, 1), vec!["store 1 [s1-0-0 s1-1-0]"]),
        (504, Event::ManifestStored(reference(1, BarrierKind::Stop)), vec!["log 1 published [] dropped []"]),
        (505, Event::SavepointRequested { path: "p".into() }, vec!["savepoint p Err(\"the job is about to end\")"]),
        (505, Event::LogAppended, vec!["publish 1 [0:s1-0-0 s1-1-0]", "complete 1"]),
        (900, Event::Tick, vec![]),
        (901, published(0, 1), vec!["log published"]),
        (902, Event::LogAppended, vec!["free [s1-0-0 s1-1-0]", "finished Stop"]),
        (903, Event::StopRequested, vec![]),
    ]);
    play(&mut c, table);
}

#[test]
fn bounded_input_ends_with_a_final_checkpoint_after_the_one_under_way() {
    let mut c = coordinator(0);
    let mut table = running();
    table.extend([
        (600, Event::Tick, vec!["barrier 1 Checkpoint"]),
        (601, Event::InputEnded(task(0)), vec![]),
        (602, ack(0, 1), vec![]),
        (603, ack(1, 1), vec!["store 1 [s1-0-0 s1-1-0]"]),
        (604, stored(1), vec!["log 1 published [] dropped []"]),
        (605, Event::LogAppended, vec!["complete 1", "barrier 2 Final"]),
        (606, ack(0, 2), vec![]),
        (607, ack(1, 2), vec!["store 2 [s2-0-0 s2-1-0]"]),
        (608, Event::ManifestStored(reference(2, BarrierKind::Final)), vec!["log 2 published [] dropped []"]),
        (609, Event::LogAppended, vec!["complete 2", "finished Final"]),
    ]);
    play(&mut c, table);
}

#[test]
fn a_last_checkpoint_that_fails_fails_the_attempt() {
    let mut c = coordinator(1);
    let mut table = running();
    let reason = String::from("full");
    table.extend([
        (501, Event::StopRequested, vec!["barrier 1 Stop"]),
        (502, ack(0, 1), vec![]),
        (503, ack(1, 1), vec!["store 1 [s1-0-0 s1-1-0]"]),
        (
            504,
            Event::ManifestFailed { epoch: 1, reason },
            vec!["discard 1", "fail Restart: checkpoint 1 failed: its manifest cannot be stored: full"],
        ),
    ]);
    play(&mut c, table);
}

#[test]
fn a_savepoint_is_copied_only_when_all_before_it_is_published_and_keeps_its_files_until_then() {
    let mut c = coordinator(1);
    let mut table = running();
    table.extend([
        (501, Event::SavepointRequested { path: "p".into() }, vec!["barrier 1 Savepoint"]),
        (502, ack(0, 1), vec![]),
        (503, ack(1, 1), vec!["store 1 [s1-0-0 s1-1-0]"]),
        (504, Event::ManifestStored(reference(1, BarrierKind::Savepoint)), vec!["log 1 published [] dropped []"]),
        (505, Event::LogAppended, vec!["publish 1 [0:s1-0-0 s1-1-0]", "complete 1"]),
        (506, published(0, 1), vec!["savepoint 1 p"]),
    ]);
    for epoch in 2..4 {
        let at = 600 + epoch * 100;
        let lines: [&str; 2] = if epoch == 2 { ["2", "1"] } else { ["3", "2"] };
        play(&mut c, std::mem::take(&mut table));
        assert!(matches!(c.on(Event::Tick, ms(at))[..], [Action::InjectBarrier(_)]), "{lines:?}");
        c.on(ack(0, epoch), ms(at));
        c.on(ack(1, epoch), ms(at));
        let log = c.on(stored(epoch), ms(at));
        assert!(short(&log[0]).ends_with("dropped []"), "{}", short(&log[0]));
        c.on(Event::LogAppended, ms(at));
        c.on(published(0, epoch), ms(at));
    }
    let done: Vec<_> = c.on(Event::SavepointStored { epoch: 1 }, ms(901)).iter().map(short).collect();
    assert_eq!(done, ["savepoint p Ok(1)"]);
}

#[test]
fn after_a_lost_log_nothing_but_the_end() {
    let mut c = coordinator(1);
    let mut table = running();
    table.extend([
        (600, Event::Tick, vec!["barrier 1 Checkpoint"]),
        (601, ack(0, 1), vec![]),
        (602, ack(1, 1), vec!["store 1 [s1-0-0 s1-1-0]"]),
        (603, stored(1), vec!["log 1 published [] dropped []"]),
        (604, Event::LogLost, vec!["fail Fatal: another process has taken this job over"]),
        (605, Event::LogAppended, vec![]),
        (606, Event::StopRequested, vec![]),
    ]);
    play(&mut c, table);
    assert_eq!(c.next_wake(), None);
}

/// The outside of a coordinator that answers in any order, and checks every action.
#[derive(Default)]
struct Outside {
    injected: Option<Barrier>,
    unanswered: BTreeMap<u32, Vec<Epoch>>,
    storing: Option<Manifest>,
    logging: Option<LogEntry>,
    logged: Epoch,
    noted: BTreeMap<LaneId, Epoch>,
    to_publish: BTreeMap<LaneId, Vec<Epoch>>,
    published: BTreeMap<LaneId, Vec<String>>,
    sealed: BTreeMap<LaneId, BTreeSet<String>>,
    retained: Vec<Manifest>,
    over: bool,
    now: u64,
}

impl Outside {
    fn check(&mut self, action: Action) {
        assert!(!self.over, "{} after the end", short(&action));
        match action {
            Action::InjectBarrier(barrier) => {
                assert!(self.injected.is_none(), "two under way");
                self.injected = Some(barrier);
                (0..2).for_each(|t| self.unanswered.entry(t).or_default().push(barrier.epoch));
            }
            Action::StoreManifest { manifest, .. } => self.storing = Some(*manifest),
            Action::AppendLog(entry) => {
                assert!(self.logging.is_none(), "two entries at once");
                self.logging = Some(*entry);
            }
            Action::Publish { epoch, lanes } => {
                assert_eq!(epoch, self.logged, "published before it is complete");
                for (lane, segments) in lanes {
                    assert!(segments.iter().map(|s| (s.epoch, s.task, s.sequence)).is_sorted());
                    let queue = self.to_publish.entry(lane.clone()).or_default();
                    assert!(queue.last().is_none_or(|last| *last < epoch), "out of order");
                    queue.push(epoch);
                    self.published.entry(lane).or_default().extend(segments.into_iter().map(|s| s.name));
                }
            }
            Action::FreeSegments(names) => {
                let waiting = |m: &Manifest| {
                    m.segments().filter(|s| s.segment.epoch > self.noted[&s.lane()]).map(|s| s.segment.name.clone()).collect::<Vec<_>>()
                };
                let needed: BTreeSet<_> = self.retained.last().map(waiting).into_iter().flatten().collect();
                assert!(names.iter().all(|n| !needed.contains(n)), "{names:?} are still needed");
            }
            Action::DeleteCheckpoints(dropped) => {
                assert!(dropped.iter().all(|d| self.retained.iter().all(|m| m.epoch != d.epoch)), "a retained checkpoint is deleted");
            }
            Action::Discard { .. } => (self.injected, self.storing) = (None, None),
            Action::Fail(_) | Action::Finished { .. } => self.over = true,
            Action::NotifyComplete { .. } | Action::CreateSavepoint { .. } | Action::SavepointFinished { .. } => {}
        }
    }

    /// The event that `choice` stands for, if it can happen now.
    fn event(&mut self, choice: u8) -> Option<Event> {
        let pop = |queue: &mut Vec<Epoch>| (!queue.is_empty()).then(|| queue.remove(0));
        Some(match choice {
            0..=39 => {
                let index = u32::from(choice % 2);
                let epoch = pop(self.unanswered.get_mut(&index)?)?;
                self.sealed.entry(lane(0)).or_default().insert(segment(epoch, index, 0).name);
                ack(index, epoch)
            }
            40..=59 => {
                let kind = self.injected?.kind;
                let manifest = self.storing.take()?;
                let stored = reference(manifest.epoch, kind);
                self.retained.push(manifest);
                Event::ManifestStored(stored)
            }
            60..=79 => {
                match self.logging.take()? {
                    LogEntry::CheckpointComplete { checkpoint, published, dropped } => {
                        self.logged = checkpoint.epoch;
                        self.injected = None;
                        self.retained.retain(|m| dropped.iter().all(|d| d.epoch != m.epoch));
                        self.noted.extend(published.into_iter().map(|p| (p.lane, p.epoch)));
                    }
                    LogEntry::Published { published } => self.noted.extend(published.into_iter().map(|p| (p.lane, p.epoch))),
                    other => panic!("{other:?}"),
                }
                Event::LogAppended
            }
            80..=99 => {
                let lane = lane(u32::from(choice % 2));
                let epoch = pop(self.to_publish.get_mut(&lane)?)?;
                Event::Published { lane, epoch }
            }
            100..=104 => Event::ManifestFailed { epoch: self.storing.take()?.epoch, reason: "x".into() },
            105 => Event::SavepointRequested { path: "p".into() },
            106 => Event::SavepointStored { epoch: self.logged },
            107 => Event::StopRequested,
            108 => Event::InputEnded(task(0)),
            _ => {
                self.now += u64::from(choice) / 8;
                Event::Tick
            }
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_the_order_nothing_is_lost_and_nothing_is_early(choices in proptest::collection::vec(0..150u8, 0..400)) {
        let settings = Settings { tolerated_failures: 1_000, ..settings() };
        let tasks = vec![TaskRole { task: task(0), source: true }, TaskRole { task: task(1), source: false }];
        let mut c = Coordinator::new(settings, PlanSummary::default(), tasks, history(2), Duration::ZERO);
        let mut outside = Outside { noted: (0..2).map(|l| (lane(l), 0)).collect(), ..Outside::default() };
        for event in [Event::TaskRunning(task(0)), Event::TaskRunning(task(1))] {
            c.on(event, Duration::ZERO).into_iter().for_each(|a| outside.check(a));
        }
        for choice in choices {
            if let Some(event) = outside.event(choice) {
                let now = ms(outside.now);
                // A manifest that its abandoned checkpoint does not wait for any more is not retained.
                c.on(event, now).into_iter().for_each(|a| outside.check(a));
            }
        }
        let complete = c.complete_epoch();
        prop_assert_eq!(complete, outside.logged);
        // Everything sealed up to the newest complete epoch was handed to its lane, once.
        let mut handed = outside.published.remove(&lane(0)).unwrap_or_default();
        let all = handed.len();
        handed.sort();
        handed.dedup();
        prop_assert_eq!(all, handed.len());
        let sealed = outside.sealed.remove(&lane(0)).unwrap_or_default();
        let epoch_of = |name: &String| name[1..].split('-').next().unwrap().parse::<Epoch>().unwrap();
        let expected: Vec<_> = sealed.into_iter().filter(|name| epoch_of(name) <= complete).collect();
        prop_assert_eq!(handed, expected);
    }
}
