//! A world for tests: tables that are fed by hand, rows that are collected, a job that is stepped under a seed.

use crate::ScalarFunction;
use crate::catalog::Table;
use crate::connect::Connectors;
use crate::session::{Outcome, Planned, Session};
use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, SchemaRef};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::graph::{LogicalGraph, NoTopics, ReadAs, SinkRef, SourceFactory, plan};
use waterwheel_engine::operators::{
    Guarantee, LanePublisher, Poll, PublisherContext, ReaderContext, SegmentRef, Sink, SinkWriter, Source, SourceReader, Split, SplitId,
    SplitState, WriterContext,
};
use waterwheel_engine::record::{BatchBox, ChangeBatch, Epoch, RawBatch, RowKind, downcast};
use waterwheel_engine::runtime::{Outcome as Ended, Settings};
use waterwheel_engine::testing::{SimJob, SimMachine};

/// Records of a table, by split, and how many of them may be read yet.
pub(super) struct Feed {
    name: Arc<str>,
    splits: Vec<Vec<String>>,
    revealed: Vec<AtomicI64>,
    bounded: bool,
    /// Records are key and value, a tab between them; without a value behind it there is none.
    keyed: bool,
    /// Records a poll.
    batch: usize,
}

impl Feed {
    pub(super) fn new(name: &str, splits: Vec<Vec<String>>, batch: usize) -> Arc<Feed> {
        let revealed = splits.iter().map(|_| AtomicI64::new(0)).collect();
        Arc::new(Feed { name: name.into(), splits, revealed, bounded: true, keyed: false, batch })
    }

    /// Of records with keys.
    pub(super) fn keyed(name: &str, splits: Vec<Vec<String>>, batch: usize) -> Arc<Feed> {
        let revealed = splits.iter().map(|_| AtomicI64::new(0)).collect();
        Arc::new(Feed { name: name.into(), splits, revealed, bounded: true, keyed: true, batch })
    }

    /// Lets the first `n` records of each split be read.
    pub(super) fn reveal(&self, n: usize) {
        for (split, revealed) in self.splits.iter().zip(&self.revealed) {
            revealed.store(n.min(split.len()) as i64, Ordering::SeqCst);
        }
    }

    /// The records revealed, all splits together.
    pub(super) fn prefix(&self) -> Vec<String> {
        let of = |(split, revealed): (&Vec<String>, &AtomicI64)| split[..revealed.load(Ordering::SeqCst) as usize].to_vec();
        self.splits.iter().zip(&self.revealed).flat_map(of).collect()
    }
}

/// With how it is read.
struct FeedSource(Arc<Feed>, ReadAs);

impl Source for FeedSource {
    fn describe(&self) -> String {
        self.0.name.to_string()
    }
    fn is_bounded(&self) -> bool {
        self.0.bounded
    }
    fn splits(&self, _first: bool) -> Result<Vec<Split>> {
        let split = |(i, records): (usize, &Vec<String>)| Split {
            id: SplitId { name: self.0.name.clone(), partition: i as i32 },
            start: 0,
            end: Some(records.len() as i64),
            bootstrap_end: (self.1 == ReadAs::Table).then_some(records.len() as i64),
            topic_id: None,
        };
        Ok(self.0.splits.iter().enumerate().map(split).collect())
    }
    fn reader(&self, _: ReaderContext) -> Result<Box<dyn SourceReader>> {
        Ok(Box::new(FeedReader { feed: self.0.clone(), at: Vec::new(), turn: 0 }))
    }
}

struct FeedReader {
    feed: Arc<Feed>,
    at: Vec<(SplitId, i64)>,
    turn: usize,
}

impl SourceReader for FeedReader {
    fn assign(&mut self, splits: &[SplitState]) -> Result<()> {
        self.at.extend(splits.iter().map(|s| (s.split.id.clone(), s.position)));
        Ok(())
    }

    fn poll(&mut self) -> Result<Poll> {
        for _ in 0..self.at.len() {
            self.turn = (self.turn + 1) % self.at.len();
            let (id, at) = &mut self.at[self.turn];
            let records = &self.feed.splits[id.partition as usize];
            let revealed = self.feed.revealed[id.partition as usize].load(Ordering::SeqCst);
            if *at < revealed {
                let end = revealed.min(*at + self.feed.batch as i64);
                let mut batch = RawBatch::default();
                for offset in *at..end {
                    let record = records[offset as usize].as_str();
                    let (key, value) = match record.split_once('\t').filter(|_| self.feed.keyed) {
                        Some((key, value)) => (Some(key.as_bytes()), Some(value.as_bytes()).filter(|value| !value.is_empty())),
                        None => (None, Some(record.as_bytes())),
                    };
                    batch.push_parts(&self.feed.name, id.partition, offset, 1000 + offset, key, value, &[]);
                }
                *at = end;
                return Ok(Poll::Batch { split: id.clone(), batch: Box::new(batch), next: end });
            }
            if *at == records.len() as i64 {
                let split = id.clone();
                self.at.remove(self.turn);
                return Ok(Poll::Ended { split });
            }
        }
        Ok(Poll::Empty)
    }
}

/// What a query's rows add up to, and the changes in the order in which they came.
#[derive(Clone, Default)]
pub(super) struct Collected(Arc<Mutex<Sum>>);

#[derive(Default)]
struct Sum {
    rows: BTreeMap<Vec<String>, i64>,
    changes: Vec<(RowKind, Vec<String>)>,
}

impl Collected {
    /// Rows with their weights; none with 0.
    pub(super) fn rows(&self) -> BTreeMap<Vec<String>, i64> {
        self.0.lock().unwrap().rows.clone()
    }
    /// All changes so far.
    pub(super) fn log(&self) -> Vec<(RowKind, Vec<String>)> {
        self.0.lock().unwrap().changes.clone()
    }
    fn changes(&self) -> usize {
        self.0.lock().unwrap().changes.len()
    }
}

impl Sink for Collected {
    fn describe(&self) -> String {
        "collected".into()
    }
    fn guarantee(&self) -> Guarantee {
        Guarantee::None
    }
    fn lanes(&self) -> u32 {
        0
    }
    fn check(&self) -> Result<()> {
        Ok(())
    }
    fn writer(&self, _: WriterContext) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(self.clone()))
    }
    fn lane(&self, _: PublisherContext) -> Result<Box<dyn LanePublisher>> {
        Err(Error::fatal("no lanes"))
    }
}

impl SinkWriter for Collected {
    fn ready(&mut self) -> Result<bool> {
        Ok(true)
    }
    fn write(&mut self, batch: BatchBox) -> Result<()> {
        let batch = downcast::<ChangeBatch>(batch);
        let mut all = self.0.lock().unwrap();
        for row in 0..batch.times.len() {
            let cells: Vec<String> = (0..batch.columns.num_columns()).map(|c| shown(&crate::cell(&batch.columns, c, row))).collect();
            all.changes.push((batch.kind(row), cells.clone()));
            *all.rows.entry(cells).or_insert(0) += batch.kind(row).weight();
        }
        all.rows.retain(|_, weight| *weight != 0);
        Ok(())
    }
    fn prepare(&mut self, _: Epoch) -> Result<()> {
        Ok(())
    }
    fn prepared(&mut self) -> Result<Option<Vec<SegmentRef>>> {
        Ok(Some(Vec::new()))
    }
}

/// Zeros and NaNs have signs that SQL does not see.
pub(super) fn shown(cell: &str) -> String {
    match cell {
        "-0" | "-0.0" => "0.0".into(),
        "-NaN" => "NaN".into(),
        other => other.into(),
    }
}

/// Tables by name.
#[derive(Clone, Default)]
pub(super) struct Feeds(pub(super) BTreeMap<String, Arc<Feed>>);

impl Connectors for Feeds {
    fn source(&self, table: &Table, _columns: &SchemaRef) -> Result<SourceFactory> {
        let feed = self.0.get(&table.name).cloned().ok_or_else(|| Error::fatal("no feed"))?;
        Ok(Box::new(move |read_as| Ok(Arc::new(FeedSource(feed.clone(), read_as)))))
    }
    fn sink(&self, _table: &Table) -> Result<SinkRef> {
        Ok(SinkRef::Ready(Arc::new(crate::nowhere::Nowhere)))
    }
    fn infer(&self, _name: &str) -> Result<Option<Table>> {
        Ok(None)
    }
    fn names(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

/// A query running on the simulated machine.
pub(super) struct Running {
    pub(super) rows: Collected,
    job: SimJob,
    machine: SimMachine,
    parallelism: Arc<Mutex<u32>>,
    ended: bool,
}

/// A function that a user brings along: how often a letter is in a text.
pub(super) fn count_char() -> ScalarFunction {
    ScalarFunction::new("count_char", vec![DataType::Utf8, DataType::Utf8], DataType::Int64, |args: &[ArrayRef]| {
        let (texts, letters) = (args[0].as_string::<i32>(), args[1].as_string::<i32>());
        let count = |(text, letter): (Option<&str>, Option<&str>)| Some(text?.matches(letter?).count() as i64);
        Ok(Arc::new(texts.iter().zip(letters.iter()).map(count).collect::<Int64Array>()))
    })
}

/// Plans the one query of a script.
pub(super) fn query(feeds: &Feeds, script: &str) -> Planned {
    let mut session = Session::new(Arc::new(feeds.clone()));
    session.register(count_char());
    super::own_functions::register(&mut session);
    let outcomes = session.run("test.sql", script).unwrap_or_else(|e| panic!("{script}\n{}", e.report()));
    match outcomes.into_iter().last() {
        Some(Outcome::Query(planned)) => *planned,
        other => panic!("no query: {other:?}"),
    }
}

impl Running {
    pub(super) fn start(feeds: &Feeds, script: &str, seed: u64, parallelism: u32) -> Running {
        Running::try_start(feeds, script, seed, parallelism).unwrap_or_else(|e| panic!("{}", e.report()))
    }

    pub(super) fn try_start(feeds: &Feeds, script: &str, seed: u64, parallelism: u32) -> Result<Running> {
        // A plan is not shared between threads, and need not be: it is made anew from its text.
        let (rows, tasks) = (Collected::default(), Arc::new(Mutex::new(parallelism)));
        let (feeds, script, sink, wanted) = (feeds.clone(), script.to_string(), rows.clone(), tasks.clone());
        let make = move || {
            let mut graph = LogicalGraph::new("query");
            graph.parallelism = *wanted.lock().unwrap();
            let planned = query(&feeds, &script);
            planned.draw(&mut graph, &feeds, Some(SinkRef::Ready(Arc::new(sink.clone())))).map_err(|e| Error::fatal(e.message()))?;
            plan(&graph, &NoTopics)
        };
        let machine = SimMachine::new(seed);
        let mut job = SimJob::new(machine.clone(), Settings::default(), make);
        job.start()?;
        Ok(Running { rows, job, machine, parallelism: tasks, ended: false })
    }

    pub(super) fn settle(&mut self) {
        self.try_settle().unwrap_or_else(|e| panic!("{}", e.report()));
    }

    /// Steps until no more rows come: not for so long that a task which falls behind for long has had its turns.
    pub(super) fn try_settle(&mut self) -> Result<()> {
        let (mut before, mut quiet) = (self.rows.changes(), 0);
        while !self.ended && quiet < 12 {
            self.ended = self.job.run(150)?.is_some();
            quiet = if self.rows.changes() == before { quiet + 1 } else { 0 };
            before = self.rows.changes();
        }
        Ok(())
    }

    pub(super) fn finish(&mut self) {
        self.try_finish().unwrap_or_else(|e| panic!("{}", e.report()));
    }

    /// Lets the wall clock go on.
    pub(super) fn later(&mut self, ms: i64) {
        self.machine.jump_wall(ms);
    }

    /// Steps until the job has failed, and why.
    pub(super) fn failure(&mut self) -> String {
        let failed = (0..2000).find_map(|_| self.job.run(200).err());
        failed.unwrap_or_else(|| panic!("the job does not fail: {}", self.job.describe())).report()
    }

    /// Steps until the job has ended.
    pub(super) fn try_finish(&mut self) -> Result<()> {
        for _ in 0..2000 {
            if self.ended {
                return Ok(());
            }
            self.ended = self.job.run(200)?.is_some();
        }
        Err(Error::fatal(format!("the job does not end: {}", self.job.describe())))
    }

    pub(super) fn restart(&mut self, parallelism: u32) {
        self.try_restart(parallelism).unwrap_or_else(|e| panic!("{}", e.report()));
    }

    /// Stops with a checkpoint and goes on from it with other tasks.
    pub(super) fn try_restart(&mut self, parallelism: u32) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        self.job.stop();
        for _ in 0..2000 {
            match self.job.run(200)? {
                None => continue,
                Some(Ended::Stopped) => {
                    *self.parallelism.lock().unwrap() = parallelism;
                    return self.job.start();
                }
                Some(_) => self.ended = true,
            }
            return Ok(());
        }
        Err(Error::fatal(format!("the job does not stop: {}", self.job.describe())))
    }
}
