//! What a workload draws with: the source, the table, the outputs, all on the simulated broker.
//!
//! Invariant: every drawing of one workload with one input gives the same graph.

use super::input::{Input, ROWS, Row, TABLE, decode_entry};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use waterwheel::connectors::staging::{Partitioner, StagingWriter, TopicFacts};
use waterwheel::engine::dsl::{Decoding, Job, OutOfOrder, SourceStream, Stream};
use waterwheel::engine::error::{Error, Result};
use waterwheel::engine::graph::{LogicalNode, PhysicalPlan, ReadAs, Role, SinkRef, TopicRequest, TopicSinks};
use waterwheel::engine::operators::{
    Guarantee, LanePublisher, Operator, OperatorFactory, Output, ProcessContext, ProcessFunction, ProcessOpen, ProgressNote,
    PublisherContext, Sink, SinkWriter, Source, ValueState, WriterContext, note_progress, to_raw,
};
use waterwheel::engine::record::{BatchBox, Data, RawBatch, RawRecord, downcast};
use waterwheel::engine::testing::{SimBroker, SimLane, SimMachine, SimSource};
use waterwheel::engine::time::{EventTime, WatermarkStrategy};

/// Topic with the results.
pub(crate) const OUT: &str = "out";
/// Topic with late rows and other side results.
pub(crate) const SIDE: &str = "side";
/// Topic with dead letters.
pub(crate) const DEAD: &str = "rows.dead-letter";

/// A result: key and value of a record.
pub(crate) type Text = (String, String);

/// What was seen that must not be, whoever saw it.
#[derive(Clone, Default)]
pub(crate) struct Violations(Arc<Mutex<Vec<String>>>);

impl Violations {
    /// Notes one.
    pub(crate) fn add(&self, what: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    /// The first one.
    pub(crate) fn first(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).first().cloned()
    }
}

/// What the plan of one process rests on.
#[derive(Clone)]
pub(crate) struct Ground {
    /// The process.
    pub(crate) machine: SimMachine,
    /// The broker.
    pub(crate) broker: SimBroker,
    /// The input.
    pub(crate) input: Arc<Input>,
    /// Where violations go.
    pub(crate) violations: Violations,
    /// Lanes and partitions of the outputs.
    pub(crate) lanes: u32,
    /// Whether retention of the input follows the checkpoints.
    pub(crate) trims: bool,
    /// How far splits may run ahead of each other.
    pub(crate) max_ahead: Option<Duration>,
    /// Whether snapshots of state share files.
    pub(crate) shares_files: bool,
}

/// A job being drawn.
pub(crate) struct Draw {
    /// The job.
    pub(crate) job: Job,
    /// What it rests on.
    pub(crate) ground: Ground,
    /// A later version of the job: it has one operator with state more.
    upgraded: bool,
}

/// How a job is drawn this time; each start of a process may do it anew.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Tasks of an operator.
    pub(crate) parallelism: u32,
    /// See [`Draw`].
    pub(crate) upgraded: bool,
}

impl Draw {
    /// An empty job.
    pub(crate) fn new(ground: Ground, shape: Shape) -> Self {
        let job = Job::new("job");
        job.parallelism(shape.parallelism);
        job.max_parallelism(16);
        Draw { job, ground, upgraded: shape.upgraded }
    }

    /// The plan.
    pub(crate) fn plan(&self) -> Result<PhysicalPlan> {
        self.job.plan_with(&self.ground)
    }

    /// The input.
    pub(crate) fn input(&self) -> &Input {
        &self.ground.input
    }

    /// The rows, in event time; none is late.
    pub(crate) fn rows(&self) -> SourceStream<Row> {
        self.rows_by(OutOfOrder::by(Duration::from_millis(self.input().disorder_ms as u64)))
    }

    /// The rows, in event time as somebody else sees it.
    pub(crate) fn rows_by(&self, watermarks: WatermarkStrategy) -> SourceStream<Row> {
        self.rows_at(|row| EventTime(row.at), watermarks)
    }

    /// The rows, at times of the workload's own.
    pub(crate) fn rows_at(
        &self,
        at: impl Fn(&Row) -> EventTime + Send + Sync + 'static,
        watermarks: WatermarkStrategy,
    ) -> SourceStream<Row> {
        let decode = |record: RawRecord<'_>| record.value.map(Row::decode).transpose();
        let rows: SourceStream<Row> = self.job.source_with(ROWS, self.ground.connect(ROWS), Decoding::Values(Arc::new(decode)));
        let rows = rows.event_time(at, watermarks).id("rows");
        match self.ground.max_ahead {
            Some(limit) => rows.max_ahead(limit),
            None => rows,
        }
    }

    /// The table's changes.
    pub(crate) fn entries(&self) -> SourceStream<(u32, u32)> {
        let decode = |record: RawRecord<'_>| record.value.map(decode_entry).transpose();
        self.job.source_with(TABLE, self.ground.connect(TABLE), Decoding::Values(Arc::new(decode)))
    }

    /// Notes a watermark of this stream that goes back.
    pub(crate) fn watched<T: Data>(&self, stream: &Stream<T>, id: &str) -> Stream<T> {
        let (violations, name) = (self.ground.violations.clone(), id.to_string());
        let factory: OperatorFactory =
            Arc::new(move || Box::new(Watch { violations: violations.clone(), name: name.clone(), last: EventTime::MIN }));
        stream.operator("watch", factory).id(id)
    }

    /// Writes the results.
    pub(crate) fn out(&self, results: &Stream<Text>) {
        self.ground.write(&self.as_of_version(results), OUT);
    }

    /// Writes the results' values, each behind the other, and between them what the tasks note at their barriers of how far event
    /// time has come ([`Noted`]).
    pub(crate) fn out_with_notes(&self, results: &Stream<Text>) {
        let encode = to_raw(|(_, value): &Text, time: EventTime, out: &mut RawBatch| {
            Noted::Row(value.clone()).push(time, out);
            Ok(())
        });
        let records: Stream<Text> = self.as_of_version(results).operator("encode", encode);
        let noted: Stream<Text> = records.id("encoded").operator("progress", note_progress());
        let shown: Stream<Text> = noted.id("noted").operator("show", Arc::new(|| Box::new(ShowNotes)));
        let mut sink =
            LogicalNode::new("sink", Role::Sink(SinkRef::Ready(Arc::new(self.ground.topic(OUT)))), vec![shown.id("shown").output()]);
        sink.id = Some(OUT.into());
        self.job.draw(|graph| graph.add(sink));
    }

    fn as_of_version(&self, results: &Stream<Text>) -> Stream<Text> {
        if self.upgraded { results.key_by(|(key, _)| key.clone()).process(Counted::default).id("added") } else { results.clone() }
    }
}

/// Passes everything on and counts it: what a later version of a job has more than the one before.
#[derive(Default)]
struct Counted(ValueState<u64>);

impl ProcessFunction<String, Text, Text> for Counted {
    fn open(&mut self, open: &mut ProcessOpen<'_>) {
        self.0 = open.value("count");
    }
    fn on_element(&mut self, context: &mut ProcessContext<'_, String, Text>, text: Text) {
        let count = self.0.get(context).copied().unwrap_or(0);
        self.0.set(context, count + 1);
        context.emit(text);
    }
}

/// A record of an output with notes. All of them are in one partition under one key, so that their order is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Noted {
    /// A result.
    Row(String),
    /// Behind it nothing comes of this task, of so many, at or before this time.
    Progress { task: u32, tasks: u32, watermark: i64 },
}

impl Noted {
    /// Its key.
    pub(crate) const KEY: &str = "all";

    fn push(&self, time: EventTime, out: &mut RawBatch) {
        let value = match self {
            Noted::Row(value) => format!("row {value}"),
            Noted::Progress { task, tasks, watermark } => format!("note {task} {tasks} {watermark}"),
        };
        out.push_parts(&OUT.into(), 0, -1, time.0.max(-1), Some(Self::KEY.as_bytes()), Some(value.as_bytes()), &[]);
    }

    /// Reads a value back.
    pub(crate) fn parse(value: &str) -> Option<Noted> {
        let (kind, rest) = value.split_once(' ')?;
        if kind == "row" {
            return Some(Noted::Row(rest.into()));
        }
        let numbers: Vec<i64> = rest.split(' ').map_while(|n| n.parse().ok()).collect();
        match (kind, &numbers[..]) {
            ("note", &[task, tasks, watermark]) => Some(Noted::Progress { task: task as u32, tasks: tasks as u32, watermark }),
            _ => None,
        }
    }
}

/// Makes notes of progress records like others.
struct ShowNotes;

impl Operator for ShowNotes {
    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let mut shown = RawBatch::default();
        for record in downcast::<RawBatch>(batch).records() {
            match ProgressNote::of(&record) {
                Some(ProgressNote { task, tasks, watermark }) => {
                    Noted::Progress { task, tasks, watermark: watermark.0 }.push(watermark, &mut shown);
                }
                None => shown.push(record),
            }
        }
        out.emit(Box::new(shown))
    }
}

/// Passes everything on, and knows the watermark.
struct Watch {
    violations: Violations,
    name: String,
    last: EventTime,
}

impl Operator for Watch {
    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        out.emit(batch)
    }

    fn on_watermark(&mut self, time: EventTime, _out: &mut Output<'_>) -> Result<()> {
        if time < self.last {
            self.violations.add(format!("the watermark at {} goes back from {} to {}", self.name, self.last.0, time.0));
        }
        self.last = time;
        Ok(())
    }
}

/// A sink on the broker: the staging of every topic connector, lanes on the model.
struct SimSink {
    ground: Ground,
    topic: String,
}

impl Ground {
    /// A topic as a source.
    pub(crate) fn connect(&self, topic: &'static str) -> impl Fn(ReadAs) -> Result<Arc<dyn Source>> + Send + Sync + 'static {
        let ground = self.clone();
        move |read_as| Ok(Arc::new(SimSource::new(&ground.broker, &ground.machine, topic, read_as, ground.trims)))
    }

    fn topic(&self, topic: &str) -> SimSink {
        SimSink { ground: self.clone(), topic: topic.into() }
    }

    /// Writes results to a topic, exactly once.
    pub(crate) fn write(&self, results: &Stream<Text>, topic: &'static str) {
        let name: Arc<str> = topic.into();
        let encode = move |(key, value): &Text, time: EventTime, out: &mut RawBatch| {
            out.push_parts(&name, -1, -1, time.0, Some(key.as_bytes()), Some(value.as_bytes()), &[]);
            Ok(())
        };
        results.to_record_sink(topic, self.topic(topic), encode).id(topic);
    }
}

impl TopicSinks for Ground {
    fn sink(&self, request: &TopicRequest) -> Result<Arc<dyn Sink>> {
        Ok(Arc::new(self.topic(&request.topic)))
    }
}

impl Sink for SimSink {
    fn describe(&self) -> String {
        format!("simulated topic {}", self.topic)
    }
    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }
    fn lanes(&self) -> u32 {
        self.ground.lanes
    }
    fn check(&self) -> Result<()> {
        self.ground.broker.create(&self.topic, self.ground.lanes + 1);
        Ok(())
    }
    fn writer(&self, context: WriterContext) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(StagingWriter::new(context, self.ground.lanes, Box::new(Known(self.ground.broker.clone())))?))
    }
    fn lane(&self, context: PublisherContext) -> Result<Box<dyn LanePublisher>> {
        Ok(Box::new(SimLane::new(&self.ground.broker, &self.ground.machine, context)))
    }
}

/// What the broker knows of its topics.
struct Known(SimBroker);

impl Partitioner for Known {
    fn topic(&mut self, topic: &str) -> Result<TopicFacts> {
        match self.0.partitions(topic) {
            0 => Err(Error::fatal(format!("topic {topic} is not there"))),
            partitions => Ok(TopicFacts { partitions, max_record_bytes: 1 << 20 }),
        }
    }
    fn end_offset(&mut self, topic: &str, partition: i32) -> Result<i64> {
        Ok(self.0.bounds(topic, partition as usize).1)
    }
}
