//! Event time of a source task: splits that fall silent and come back, and several sources in step.

use super::*;
use crate::env::Env;
use crate::exchange::EdgeSender;
use crate::observe::Metrics;
use crate::operators::{Split, Target};
use crate::record::{BatchBox, OperatorId, Rows};
use crate::testing::SimMachine;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What a step without news says.
const NOTHING: [Option<i64>; 0] = [];

/// A split's number and the times of a batch.
type Batch = (i32, Vec<i64>);

/// Reads what it is told to.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<VecDeque<Batch>>>);

impl Source for Script {
    fn describe(&self) -> String {
        "script".into()
    }
    fn is_bounded(&self) -> bool {
        false
    }
    fn splits(&self, _first: bool) -> Result<Vec<Split>> {
        Ok(Vec::new())
    }
    fn reader(&self, _context: ReaderContext) -> Result<Box<dyn SourceReader>> {
        Ok(Box::new(self.clone()))
    }
}

impl SourceReader for Script {
    fn assign(&mut self, _splits: &[SplitState]) -> Result<()> {
        Ok(())
    }
    fn poll(&mut self) -> Result<Poll> {
        let next = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        Ok(next.map_or(Poll::Empty, |(partition, times)| Poll::Batch {
            split: split(partition),
            next: times.len() as i64,
            batch: Rows::new(times.clone(), times.into_iter().map(EventTime).collect()).boxed(),
        }))
    }
}

struct AsIs;

impl Ingest for AsIs {
    fn ingest(&mut self, batch: BatchBox, _rejected: &mut Vec<Rejected>) -> Result<BatchBox> {
        Ok(batch)
    }
}

/// Notes watermarks; `None` = idle.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<Option<i64>>>>);

impl EdgeSender for Said {
    fn send(&mut self, element: Element) {
        let said = match element {
            Element::Watermark(time) => Some(time.0),
            Element::Idle => None,
            _ => return,
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(said);
    }
    fn has_room(&self) -> bool {
        true
    }
}

fn split(partition: i32) -> SplitId {
    SplitId { name: "script".into(), partition }
}

fn context(env: Env) -> OpenContext {
    OpenContext {
        operator: OperatorId::new("source"),
        index: 0,
        parallelism: 1,
        max_parallelism: 16,
        groups: 0..16,
        policy: ErrorPolicy::Fail,
        env,
        metrics: Metrics::default(),
    }
}

struct Bench {
    script: Script,
    said: Said,
    task: SourceTask,
    targets: Targets,
    now_ms: i64,
}

impl Bench {
    /// A task that reads two splits; one that is silent for 100 ms is idle.
    fn new(watermark: EventTime) -> Bench {
        let (script, said) = (Script::default(), Said::default());
        let context = context(SimMachine::new(1).env());
        let targets = Targets::new(&context, vec![vec![Target::Edge(Box::new(said.clone()))]], Vec::new());
        let strategy = WatermarkStrategy::out_of_order(Duration::from_millis(5)).idle_after(Duration::from_millis(100));
        let mut task = SourceTask::open(Arc::new(script.clone()), Box::new(AsIs), Some(strategy), context, Arc::new(|| {}), 100).unwrap();
        let state = |partition| SplitState {
            split: Split { id: split(partition), start: 0, end: None, bootstrap_end: None, topic_id: None },
            position: 0,
            watermark,
            ended: false,
            all_read: false,
        };
        task.assign(&[state(0), state(1)], 0).unwrap();
        Bench { script, said, task, targets, now_ms: 0 }
    }

    /// Some milliseconds later, `partition` has these rows, if any; what the task says.
    fn step(&mut self, after_ms: i64, rows: Option<(i32, &[i64])>) -> Vec<Option<i64>> {
        self.now_ms += after_ms;
        let rows = rows.map(|(partition, times)| (partition, times.to_vec()));
        self.script.0.lock().unwrap().extend(rows);
        self.task.step(self.now_ms, &mut self.targets).unwrap();
        std::mem::take(&mut *self.said.0.lock().unwrap())
    }
}

/// A silent split holds the others back until it is idle, no longer; when it comes back with old rows nothing goes back; when
/// all are silent the task says so, and that it is there again.
#[test]
fn idle_splits_stall_nothing_and_pull_nothing_back() {
    let mut b = Bench::new(EventTime::MIN);
    assert_eq!(b.step(10, Some((0, &[50, 60]))), NOTHING, "the other split may have earlier rows");
    assert_eq!(b.step(80, Some((0, &[100]))), NOTHING);
    assert_eq!(b.step(10, None), [Some(94)], "silent for 100 ms");
    assert_eq!(b.step(10, Some((1, &[20]))), NOTHING, "back, with a row of long ago");
    assert_eq!(b.step(10, Some((0, &[200]))), NOTHING, "and holds the watermark where it is");
    assert_eq!(b.step(10, Some((1, &[150]))), [Some(144)]);
    assert_eq!(b.step(100, None), [None], "all are silent");
    assert_eq!(b.step(50, None), NOTHING, "said once");
    assert_eq!(b.step(10, Some((1, &[10]))), [Some(144)], "there again, where it was");
    assert_eq!(b.step(10, Some((0, &[300]))), NOTHING);
    assert_eq!(b.step(10, Some((1, &[400]))), [Some(294)]);
}

/// The watermark is state: a restored split goes on from there, whatever its first rows say.
#[test]
fn a_restored_watermark_goes_ahead_of_the_rows() {
    let mut b = Bench::new(EventTime(500));
    assert_eq!(b.step(10, Some((0, &[100]))), [Some(500)]);
    assert_eq!(b.step(10, Some((1, &[700]))), NOTHING);
    assert_eq!(b.step(10, Some((0, &[600]))), [Some(594)]);
}

/// Found by simulation: a task without splits let a barrier in before it had said anything. The join at the other end then
/// waited for the table's watermark behind that barrier, and for the stream's barrier behind the table.
#[test]
fn a_task_lets_no_barrier_in_before_it_has_said_how_far_it_is() {
    let context = context(SimMachine::new(1).env());
    let targets = Said::default();
    let mut edges = Targets::new(&context, vec![vec![Target::Edge(Box::new(targets.clone()))]], Vec::new());
    let mut task = SourceTask::open(Arc::new(Script::default()), Box::new(AsIs), None, context, Arc::new(|| {}), 100).unwrap();
    task.assign(&[], 0).unwrap();
    assert!(!task.is_bootstrapped());
    task.step(0, &mut edges).unwrap();
    assert!(task.is_bootstrapped());
    assert_eq!(*targets.0.lock().unwrap(), [None], "it says that it has nothing");
}

/// A split that is gone holds the watermark back no more; one that was read in part stays, for its reader to fail of.
#[test]
fn splits_that_are_gone_are_forgotten_once_they_were_read() {
    let mut b = Bench::new(EventTime::MIN);
    assert_eq!(b.step(10, Some((0, &[50]))), NOTHING, "the other split may have earlier rows");
    let gone: BTreeSet<SplitId> = [split(0), split(1)].into();
    assert!(b.task.forget(&gone).is_empty(), "nothing says that they were read");
    b.task.splits[1].state.ended = true;
    assert_eq!(b.task.forget(&gone), [split(1)].into());
    assert_eq!(b.task.states().iter().map(|s| s.split.id.clone()).collect::<Vec<_>>(), [split(0)]);
    assert_eq!(b.step(10, None), [Some(44)]);
}

/// What the driver waits for before it lets the first barrier in: a stop before that need not wait for the table.
#[test]
fn a_table_is_read_in_where_its_end_was() {
    let context = context(SimMachine::new(1).env());
    let script = Script::default();
    let mut edges = Targets::new(&context, vec![vec![Target::Edge(Box::new(Said::default()))]], Vec::new());
    let mut task = SourceTask::open(Arc::new(script.clone()), Box::new(AsIs), None, context, Arc::new(|| {}), 100).unwrap();
    let table = Split { id: split(0), start: 0, end: None, bootstrap_end: Some(1), topic_id: None };
    task.assign(&[SplitState::fresh(table)], 0).unwrap();
    assert!(task.reads_in() && !task.is_bootstrapped());
    task.step(0, &mut edges).unwrap();
    assert!(task.reads_in() && !task.is_bootstrapped());
    script.0.lock().unwrap().push_back((0, vec![1]));
    task.step(0, &mut edges).unwrap();
    assert!(!task.reads_in() && task.is_bootstrapped());
}

/// Nobody runs ahead before all have begun; then the slowest of all sources counts, whoever it is and whatever it allows.
#[test]
fn tasks_of_several_sources_keep_step() {
    let all = Alignment::new(3);
    let (a, b, other) = (all.member(0, 10), all.member(1, 10), all.member(2, 1000));
    let at = EventTime;
    assert_eq!(a.limit(at(100)), EventTime::MIN.plus_ms(10));
    assert_eq!(b.limit(at(120)), EventTime::MIN.plus_ms(10));
    assert_eq!(other.limit(at(500)), at(1100));
    assert_eq!(a.limit(at(130)), at(130), "b is the slowest");
    assert_eq!(b.limit(EventTime::MAX), at(140), "b has nothing more to wait for");
    assert_eq!(other.limit(at(510)), at(1130));
}
