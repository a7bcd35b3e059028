//! `Stream<T>`: rows of a Rust type, and what can be done to each of them.
//!
//! Invariant: a stream is one output of one node plus the way its rows travel to the next; every method adds one node.

use super::job::Draw;
use super::keyed::KeyedStream;
use super::sink::SinkHandle;
use crate::error::Error;
use crate::graph::{Input, LogicalNode, NodeIndex, NodeNote, Role, Routing, SinkRef, TopicRequest};
use crate::operators::{self, OperatorFactory, Sink};
use crate::record::{Data, Key, RawBatch};
use crate::time::EventTime;
use std::marker::PhantomData;
use std::sync::Arc;

/// A stream of `T`. Functions given to it run in tasks, in parallel: they are `Fn + Send + Sync`, and a row for which one
/// panics is a bad record, handled by the error policy of its source.
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct Stream<T> {
    draw: Draw,
    node: NodeIndex,
    port: usize,
    routing: Routing,
    /// The nodes drawn by the call that made this stream, when they are several: the first is the one with the id.
    parts: Vec<NodeIndex>,
    rows: PhantomData<fn() -> T>,
}

impl<T> Clone for Stream<T> {
    /// Another handle of the same stream.
    fn clone(&self) -> Self {
        Stream { draw: self.draw.clone(), parts: self.parts.clone(), ..*self }
    }
}

impl<T> Stream<T> {
    pub(super) fn of(draw: Draw, node: NodeIndex, port: usize) -> Self {
        Stream { draw, node, port, routing: Routing::Forward, parts: vec![node], rows: PhantomData }
    }

    pub(super) fn routed(&self, routing: Routing) -> Self {
        Stream { routing, ..self.clone() }
    }

    pub(super) fn input(&self) -> Input {
        Input { from: self.node, port: self.port, routing: self.routing }
    }

    pub(super) fn draw(&self) -> &Draw {
        &self.draw
    }

    /// Changes the node that has the id.
    pub(super) fn change(&self, change: impl FnOnce(&mut LogicalNode)) {
        self.draw.change(self.parts[0], change);
    }

    /// Adds plumbing that belongs to the operator of this stream: id, name and parallelism stay its own.
    pub(super) fn with_glue<U>(&self, kind: &'static str, factory: OperatorFactory) -> Stream<U> {
        let note = NodeNote { glue: true, ..NodeNote::default() };
        let mut glued = self.add(kind, factory, &[], note);
        glued.parts = [&self.parts[..], &glued.parts].concat();
        glued
    }

    /// Marks the source of this stream as a table's; its rows are changes from now on.
    pub(super) fn make_table<U>(&self) -> Stream<U> {
        self.draw.make_table(self.node);
        self.port(0)
    }

    /// Name of the source that this stream comes from.
    pub(super) fn origin_name(&self) -> String {
        self.draw.origin_name(self.node)
    }

    /// Kind of the node that makes this stream.
    pub(super) fn kind(&self) -> &'static str {
        self.draw.change(self.node, |node| node.kind)
    }

    /// A further output of the node.
    pub(super) fn port<U>(&self, port: usize) -> Stream<U> {
        Stream::of(self.draw.clone(), self.node, port)
    }

    /// Adds an operator with user functions behind this and further inputs.
    pub(super) fn add<U>(&self, kind: &'static str, factory: OperatorFactory, more: &[Input], note: NodeNote) -> Stream<U> {
        let inputs = [&[self.input()], more].concat();
        let mut node = LogicalNode::new(kind, Role::Operator(factory), inputs);
        node.note = note;
        node.can_reject = true;
        Stream::of(self.draw.clone(), self.draw.add(node), 0)
    }

    /// Which output of which node it is, and how its rows travel: for front ends other than this one (SQL), which draw behind it.
    pub fn output(&self) -> Input {
        self.input()
    }

    /// Gives the operator that makes this stream a stable id, under which its state and metrics are filed: letters, digits,
    /// `-`, `_`, `.`. Without one it is derived from kind and position, which changes when operators are added before it.
    pub fn id(&self, id: &str) -> Stream<T> {
        self.change(|node| node.id = Some(id.to_string()));
        self.clone()
    }

    /// Gives the operator that makes this stream a name for people.
    pub fn name(&self, name: &str) -> Stream<T> {
        self.change(|node| node.name = Some(name.to_string()));
        self.clone()
    }

    /// Number of tasks of the operator that makes this stream, in place of the job's. Rows are dealt out anew before and
    /// behind it, so that rows that are not keyed may overtake each other.
    pub fn parallelism(&self, tasks: u32) -> Stream<T> {
        for &part in &self.parts {
            self.draw.change(part, |node| node.parallelism = Some(tasks));
        }
        self.clone()
    }

    /// Deals batches out to the next operator's tasks in turn: for uneven splits. Rows may overtake each other.
    pub fn rebalance(&self) -> Stream<T> {
        self.routed(Routing::Rebalance)
    }
}

impl<T: Data> Stream<T> {
    fn each<U: Data>(&self, kind: &'static str, factory: OperatorFactory) -> Stream<U> {
        self.add(kind, factory, &[], NodeNote::default())
    }

    /// Turns each row into another one.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::Stream;
    /// # fn example(payments: Stream<i64>) {
    /// let texts = payments.map(|cents| format!("{}.{:02} EUR", cents / 100, cents % 100));
    /// # let _ = texts;
    /// # }
    /// ```
    pub fn map<U: Data>(&self, f: impl Fn(T) -> U + Send + Sync + 'static) -> Stream<U> {
        self.each("map", operators::map(f))
    }

    /// Turns each row into another one, or says why it cannot: then it is a bad record.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::Stream;
    /// # fn example(lines: Stream<String>) {
    /// let numbers = lines.try_map(|line| line.trim().parse::<i64>().map_err(|e| e.to_string()));
    /// # let _ = numbers;
    /// # }
    /// ```
    pub fn try_map<U: Data>(&self, f: impl Fn(T) -> Result<U, String> + Send + Sync + 'static) -> Stream<U> {
        self.each("map", operators::try_map(f))
    }

    /// Keeps the rows for which `keep` is true.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::Stream;
    /// # fn example(amounts: Stream<i64>) {
    /// let large = amounts.filter(|cents| *cents > 100_000);
    /// # let _ = large;
    /// # }
    /// ```
    pub fn filter(&self, keep: impl Fn(&T) -> bool + Send + Sync + 'static) -> Stream<T> {
        self.each("filter", operators::filter(keep))
    }

    /// Turns each row into none, one or several.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::Stream;
    /// # fn example(lines: Stream<String>) {
    /// let words = lines.flat_map(|line| line.split_whitespace().map(String::from).collect::<Vec<_>>());
    /// # let _ = words;
    /// # }
    /// ```
    pub fn flat_map<U: Data, I>(&self, f: impl Fn(T) -> I + Send + Sync + 'static) -> Stream<U>
    where
        I: IntoIterator<Item = U> + 'static,
    {
        self.each("flat_map", operators::flat_map(f))
    }

    /// Turns each row into another one or leaves it out.
    pub fn filter_map<U: Data>(&self, f: impl Fn(T) -> Option<U> + Send + Sync + 'static) -> Stream<U> {
        self.each("filter_map", operators::filter_map(f))
    }

    /// Looks at each row and passes it on. After a failure it may look at a row again.
    pub fn inspect(&self, f: impl Fn(&T) + Send + Sync + 'static) -> Stream<T> {
        self.each("inspect", operators::inspect(f))
    }

    /// Rows of both streams, in the order in which they arrive; the watermark is the smaller one. Rows that fail further
    /// down follow the error policy of this stream's source.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::Stream;
    /// # fn example(card: Stream<i64>, transfer: Stream<i64>) {
    /// let all = card.union(&transfer);
    /// # let _ = all;
    /// # }
    /// ```
    pub fn union(&self, other: &Stream<T>) -> Stream<T> {
        let union = self.add("union", operators::union(), &self.meets(other), NodeNote::default());
        union.change(|node| node.can_reject = false);
        union
    }

    /// Two streams: rows for which `first` is true, and the others.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::Stream;
    /// # fn example(amounts: Stream<i64>) {
    /// let (refunds, payments) = amounts.split(|cents| *cents < 0);
    /// # let _ = (refunds, payments);
    /// # }
    /// ```
    pub fn split(&self, first: impl Fn(&T) -> bool + Send + Sync + 'static) -> (Stream<T>, Stream<T>) {
        let [yes, no] = self.split_into(move |row| usize::from(!first(row)));
        (yes, no)
    }

    /// `N` streams: each row goes into the one that `which` names, from 0. Another number is a bad record.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::Stream;
    /// # fn example(amounts: Stream<i64>) {
    /// let [small, middle, large] = amounts.split_into(|cents| match cents { ..=999 => 0, ..=99_999 => 1, _ => 2 });
    /// # let _ = (small, middle, large);
    /// # }
    /// ```
    pub fn split_into<const N: usize>(&self, which: impl Fn(&T) -> usize + Send + Sync + 'static) -> [Stream<T>; N] {
        let split: Stream<T> = self.each("split", operators::split(N, which));
        std::array::from_fn(|port| split.port(port))
    }

    /// Brings rows of one key together: each key is processed by one task, in order of arrival.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::Stream;
    /// # #[derive(Clone)] struct Payment { card: String }
    /// # fn example(payments: Stream<Payment>) {
    /// let by_card = payments.key_by(|p| p.card.clone());
    /// # let _ = by_card;
    /// # }
    /// ```
    pub fn key_by<K: Key>(&self, key: impl Fn(&T) -> K + Send + Sync + 'static) -> KeyedStream<K, T> {
        let note = NodeNote { glue: true, ..NodeNote::default() };
        KeyedStream::new(self.add("key_by", operators::key_by::<T, K>(key), &[], note))
    }

    /// A side output of the operator that makes this stream: of a process function, or of an operator of your own. `S` must
    /// be the type of row that it emits there; another one stops the job when the first row comes.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::Stream;
    /// # fn example(processed: Stream<i64>) {
    /// let rejected: Stream<String> = processed.side_output(1);
    /// # let _ = rejected;
    /// # }
    /// ```
    pub fn side_output<S: Data>(&self, port: usize) -> Stream<S> {
        self.port(port)
    }

    /// An operator of your own, from rows of `T` to rows of `U`: it must take and emit [`Rows`](crate::record::Rows) of
    /// these types. `kind` is one word for `explain`.
    pub fn operator<U: Data>(&self, kind: &'static str, factory: OperatorFactory) -> Stream<U> {
        self.each(kind, factory)
    }

    /// Writes to a sink of your own, whose writer takes [`Rows<T>`](crate::record::Rows). The name becomes part of its id.
    ///
    /// A sink is a description ([`Sink`]) that makes writers, one per task. `write` takes rows, `prepare` and `prepared` make
    /// them safe at a barrier; a checkpoint completes only then. This one sends sums to another thread, at least once:
    ///
    /// ```
    /// use std::sync::mpsc::Sender;
    /// use waterwheel_engine::error::{Error, Result};
    /// use waterwheel_engine::operators::{Guarantee, LanePublisher, PublisherContext, SegmentRef, Sink, SinkWriter, WriterContext};
    /// use waterwheel_engine::record::{BatchBox, Epoch, Rows, downcast};
    ///
    /// struct Sums(Sender<i64>);
    ///
    /// impl Sink for Sums {
    ///     fn describe(&self) -> String { "sums to a thread".into() }
    ///     fn guarantee(&self) -> Guarantee { Guarantee::AtLeastOnce }
    ///     fn lanes(&self) -> u32 { 0 } // writes at once, so nothing is left to publish
    ///     fn check(&self) -> Result<()> { Ok(()) }
    ///     fn writer(&self, _context: WriterContext) -> Result<Box<dyn SinkWriter>> {
    ///         Ok(Box::new(Writer { to: self.0.clone(), sum: 0 }))
    ///     }
    ///     fn lane(&self, _context: PublisherContext) -> Result<Box<dyn LanePublisher>> {
    ///         Err(Error::fatal("this sink has no lanes"))
    ///     }
    /// }
    ///
    /// struct Writer { to: Sender<i64>, sum: i64 }
    ///
    /// impl SinkWriter for Writer {
    ///     fn ready(&mut self) -> Result<bool> { Ok(true) }
    ///     fn write(&mut self, batch: BatchBox) -> Result<()> {
    ///         self.sum += downcast::<Rows<i64>>(batch).rows.iter().sum::<i64>();
    ///         Ok(())
    ///     }
    ///     fn prepare(&mut self, _epoch: Epoch) -> Result<()> {
    ///         self.to.send(std::mem::take(&mut self.sum)).map_err(|_| Error::restart("nobody takes the sums"))
    ///     }
    ///     fn prepared(&mut self) -> Result<Option<Vec<SegmentRef>>> { Ok(Some(Vec::new())) }
    /// }
    ///
    /// # use waterwheel_engine::dsl::Stream;
    /// # fn example(numbers: Stream<i64>) {
    /// let (to, _sums) = std::sync::mpsc::channel();
    /// numbers.to_sink("sums", Sums(to)).id("sums");
    /// # }
    /// ```
    pub fn to_sink(&self, name: &str, sink: impl Sink + 'static) -> SinkHandle {
        self.end(name, SinkRef::Ready(Arc::new(sink)))
    }

    /// Encodes rows as records, then writes them to a sink that takes [`RawBatch`]. Connectors build on it.
    pub fn to_record_sink(
        &self,
        name: &str,
        sink: impl Sink + 'static,
        encode: impl Fn(&T, EventTime, &mut RawBatch) -> Result<(), String> + Send + Sync + 'static,
    ) -> SinkHandle {
        self.encoded(encode).end(name, SinkRef::Ready(Arc::new(sink)))
    }

    /// Encodes rows as records, then writes them to a topic that is connected when the plan is made.
    pub fn to_records(
        &self,
        topic: TopicRequest,
        encode: impl Fn(&T, EventTime, &mut RawBatch) -> Result<(), String> + Send + Sync + 'static,
    ) -> SinkHandle {
        let name = topic.topic.clone();
        self.encoded(encode).end(&name, SinkRef::Topic(topic))
    }

    /// The stream between encoding and the sink: its batches are [`RawBatch`]es.
    fn encoded(&self, encode: impl Fn(&T, EventTime, &mut RawBatch) -> Result<(), String> + Send + Sync + 'static) -> Stream<T> {
        let note = NodeNote { glue: true, ..NodeNote::default() };
        self.add("encode", operators::to_raw(encode), &[], note)
    }

    fn end(&self, name: &str, sink: SinkRef) -> SinkHandle {
        let mut node = LogicalNode::new("sink", Role::Sink(sink), vec![self.input()]);
        node.subject = Some(name.to_string());
        let encoder = Some(self.node).filter(|_| self.kind() == "encode");
        SinkHandle::new(self.draw.clone(), self.draw.add(node), encoder)
    }

    /// The other stream as a further input. Nodes of two graphs cannot be connected; reported when the plan is made.
    pub(super) fn meets<U>(&self, other: &Stream<U>) -> Vec<Input> {
        if self.draw.is_same(other.draw()) {
            return vec![other.input()];
        }
        self.draw.problem(Error::fatal("two streams of different jobs meet in one operator").help("take both from one job"));
        Vec::new()
    }
}
