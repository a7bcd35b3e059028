//! Topics in a job: `job.topic("payments").json::<Payment>()` and `stream.to_topic("alerts")`.
//!
//! Invariant: nothing is connected here. A topic to read becomes a source, a topic to write a sink, when the plan is made.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use std::sync::Arc;
use waterwheel_connectors::formats::{Decode, Json, Raw, Text, push};
use waterwheel_connectors::topics::{End, OnLostOffsets, SourceOptions, Start, Topics};
use waterwheel_engine::dsl::{self, Decoding, RecordKey, SinkHandle, SourceStream, Stream, Table, records};
use waterwheel_engine::graph::{ReadAs, TopicRequest};
use waterwheel_engine::operators::{Guarantee, to_raw};
use waterwheel_engine::record::{Data, RawBatch, RawRecord};
use waterwheel_engine::time::EventTime;

/// A topic to be read: first where to begin, then a format, which gives a stream.
#[must_use = "name the format: .json::<T>(), .string() or .records(..)"]
pub struct Topic<'a> {
    job: &'a dsl::Job,
    topics: Arc<dyn Topics>,
    options: SourceOptions,
}

impl<'a> Topic<'a> {
    pub(crate) fn new(job: &'a dsl::Job, topics: Arc<dyn Topics>, names: &str) -> Self {
        Topic { job, topics, options: SourceOptions::new(names) }
    }

    /// Where a new job begins; the oldest record unless said. A checkpoint overrules it.
    pub fn start(mut self, start: Start) -> Self {
        self.options.start = start;
        self
    }

    /// Where the input ends; never unless said.
    pub fn end(mut self, end: End) -> Self {
        self.options.end = end;
        self
    }

    /// What to do when the position to read from is gone; the job stops unless said otherwise.
    pub fn on_lost_offsets(mut self, what: OnLostOffsets) -> Self {
        self.options.on_lost_offsets = what;
        self
    }

    /// Consumer group whose offsets follow the checkpoints, for lag tools.
    pub fn group(mut self, group: &str) -> Self {
        self.options.group = Some(group.to_string());
        self
    }

    /// Values are JSON of `T`.
    pub fn json<T: Data + DeserializeOwned>(self) -> SourceStream<T> {
        self.format(Json::default())
    }

    /// Values are UTF-8 text.
    pub fn string(self) -> SourceStream<String> {
        self.format(Text)
    }

    /// Values are bytes as they are.
    pub fn raw(self) -> SourceStream<Vec<u8>> {
        self.format(Raw)
    }

    /// Values in a format: one of [`formats`](waterwheel_connectors::formats), or your own. A record that does not fit is a
    /// bad record; one without a value (a tombstone) removes a row of a table, and is a bad record in a stream.
    ///
    /// ```
    /// # use waterwheel::prelude::*;
    /// # use waterwheel::connectors::formats::Csv;
    /// # fn example(job: &Job) -> Result<(), String> {
    /// let prices = job.topic("prices").format::<(String, i64), _>(Csv::new("item,cents")?);
    /// # let _ = prices;
    /// # Ok(())
    /// # }
    /// ```
    pub fn format<T: Data, F: Decode<T>>(self, format: F) -> SourceStream<T> {
        self.open(Decoding::Values(Arc::new(move |record: RawRecord<'_>| format.decode(record))))
    }

    /// One row of each record, with its key, headers, topic, partition, offset and time at hand; `None` leaves it out, an
    /// error makes it a bad record.
    ///
    /// ```
    /// # use waterwheel::prelude::*;
    /// # fn example(job: &Job) {
    /// let sizes = job.topic("uploads").records(|r| Ok(Some((r.offset, r.value.map_or(0, <[u8]>::len)))));
    /// # let _ = sizes;
    /// # }
    /// ```
    pub fn records<T: Data>(self, decode: impl Fn(RawRecord<'_>) -> Result<Option<T>, String> + Send + Sync + 'static) -> SourceStream<T> {
        self.open(Decoding::Custom(records(decode)))
    }

    fn open<T: Data>(self, decoding: Decoding<T>) -> SourceStream<T> {
        let Topic { job, topics, options } = self;
        let name = options.topics.to_string();
        let connect = move |read_as| topics.source(SourceOptions { table: read_as == ReadAs::Table, ..options.clone() });
        job.source_with(&name, connect, decoding)
    }
}

/// The end of a stream in a topic.
pub trait ToTopic<T> {
    /// Writes rows to a topic as JSON, exactly once: results are visible when the checkpoint is complete. The topic is made
    /// when it is missing. Rows have no key unless [`TopicSink::key`] gives one; the record's time is the row's event time.
    fn to_topic(&self, topic: &str) -> TopicSink<T>
    where
        T: Serialize;

    /// Writes records of any key, headers, partition, time and format: `encode` appends one for a row, none or several,
    /// also of other topics.
    ///
    /// ```
    /// # use waterwheel::prelude::*;
    /// # use std::sync::Arc;
    /// # fn example(totals: Stream<(String, i64)>) {
    /// let topic: Arc<str> = "totals".into();
    /// totals.to_topic_as("totals", move |(name, total), time, out| {
    ///     out.push_parts(&topic, -1, -1, time.0, Some(name.as_bytes()), Some(total.to_string().as_bytes()), &[]);
    ///     Ok(())
    /// });
    /// # }
    /// ```
    fn to_topic_as(
        &self,
        topic: &str,
        encode: impl Fn(&T, EventTime, &mut RawBatch) -> Result<(), String> + Send + Sync + 'static,
    ) -> TopicSink<T>;
}

/// The end of a table in a topic.
pub trait TableToTopic<K, V> {
    /// Writes a table's changes to a topic, exactly once: the newest value of each key as JSON under the key as text, a
    /// tombstone (no value) where a key has none any more. A topic that is made is compacted. What is written is read back by
    /// [`SourceStream::table`].
    ///
    /// ```
    /// # use waterwheel::prelude::*;
    /// # fn example(amounts: KeyedStream<String, i64>) {
    /// amounts.aggregate(|| 0, |sum, amount| *sum += amount).to_table().to_topic("totals");
    /// # }
    /// ```
    fn to_topic(&self, topic: &str) -> TopicSink<(K, Option<V>)>;
}

impl<K: RecordKey, V: Data + Serialize> TableToTopic<K, V> for Table<K, V> {
    fn to_topic(&self, topic: &str) -> TopicSink<(K, Option<V>)> {
        let name: Arc<str> = topic.into();
        let encode = move |(key, value): &(K, Option<V>), time: EventTime, out: &mut RawBatch| {
            let (key, time) = (key.to_record(), time.0.max(-1));
            match value {
                Some(value) => push(&Json::default(), value, &name, Some(&key), time, out),
                None => {
                    out.push_parts(&name, -1, -1, time, Some(&key), None, &[]);
                    Ok(())
                }
            }
        };
        self.changes().to_topic_as(topic, encode).compacted()
    }
}

pub(crate) type Key<T> = Arc<dyn Fn(&T) -> Vec<u8> + Send + Sync>;

/// A topic being written to.
pub struct TopicSink<T> {
    sink: SinkHandle,
    topic: Arc<str>,
    rows: PhantomData<fn(T)>,
}

impl<T: Data> ToTopic<T> for Stream<T> {
    fn to_topic(&self, topic: &str) -> TopicSink<T>
    where
        T: Serialize,
    {
        self.to_topic_as(topic, json(topic.into(), None))
    }

    fn to_topic_as(
        &self,
        topic: &str,
        encode: impl Fn(&T, EventTime, &mut RawBatch) -> Result<(), String> + Send + Sync + 'static,
    ) -> TopicSink<T> {
        let sink = self.to_records(TopicRequest::new(topic), encode);
        TopicSink { sink, topic: topic.into(), rows: PhantomData }
    }
}

pub(crate) fn json<T: Serialize>(
    topic: Arc<str>,
    key: Option<Key<T>>,
) -> impl Fn(&T, EventTime, &mut RawBatch) -> Result<(), String> + Send + Sync {
    move |row, time, out| {
        let key = key.as_ref().map(|key| key(row));
        // A record has no negative time: such a row gets the sink's default.
        push(&Json::default(), row, &topic, key.as_deref(), time.0.max(-1), out)
    }
}

impl<T: Data> TopicSink<T> {
    /// Key of each record: decides the partition, and what a compacted topic keeps.
    ///
    /// ```
    /// # use waterwheel::prelude::*;
    /// # #[derive(Clone, Serialize)] struct Alert { card: String }
    /// # fn example(alerts: Stream<Alert>) {
    /// alerts.to_topic("alerts").key(|a| a.card.clone());
    /// # }
    /// ```
    pub fn key<B: Into<Vec<u8>>>(mut self, key: impl Fn(&T) -> B + Send + Sync + 'static) -> Self
    where
        T: Serialize,
    {
        let key: Key<T> = Arc::new(move |row| key(row).into());
        self.sink = self.sink.encode_with(to_raw(json(self.topic.clone(), Some(key))));
        self
    }

    /// Writes at once instead of once per checkpoint: milliseconds of latency, but records may repeat after a failure.
    pub fn at_least_once(self) -> Self {
        self.request(|r| r.guarantee = Guarantee::AtLeastOnce)
    }

    /// A topic that is made gets so many partitions (4 unless said).
    pub fn create(self, partitions: u32) -> Self {
        self.request(|r| r.create_partitions = Some(partitions))
    }

    /// A topic that is missing is an error.
    pub fn must_exist(self) -> Self {
        self.request(|r| r.create_partitions = None)
    }

    /// A topic that is made is compacted: only the newest record of a key matters.
    pub fn compacted(self) -> Self {
        self.request(|r| r.compacted = true)
    }

    /// Stable id of the sink: what is not published yet is found by it.
    pub fn id(mut self, id: &str) -> Self {
        self.sink = self.sink.id(id);
        self
    }

    /// Number of writing tasks, in place of the job's.
    pub fn parallelism(mut self, tasks: u32) -> Self {
        self.sink = self.sink.parallelism(tasks);
        self
    }

    fn request(mut self, change: impl FnOnce(&mut TopicRequest)) -> Self {
        self.sink = self.sink.request(change);
        self
    }
}
