//! How rows enter a job: decode, event time, and what becomes of bad records.
//!
//! Invariant: a [`SourceStream`] is a [`Stream`] from the first call on; its own methods only change the source's node, so
//! their order does not matter.

use super::job::Draw;
use super::stream::Stream;
use crate::error::Result;
use crate::graph::{DeadLetters, LogicalNode, ReadAs, Role, SinkRef, SourceFactory, SourceNode, TopicRequest};
use crate::operators::{ErrorPolicy, Ingest, IngestFactory, OpenContext, dead_letters, guarded};
use crate::record::{Batch, BatchBox, Data, Key, Origin, RawBatch, RawRecord, Rejected, Rows, downcast};
use crate::time::{EventTime, WatermarkStrategy};
use std::ops::{Deref, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

/// Turns what a reader hands over into rows; one per source task. Times are those of the records.
pub trait Decode<T>: Send {
    /// Takes one batch; records that cannot be decoded go to `rejected`.
    ///
    /// # Errors
    /// Stops the task; never for the sake of a single record.
    fn decode(&mut self, batch: BatchBox, rejected: &mut Vec<Rejected>) -> Result<Rows<T>>;
}

/// Makes one [`Decode`] per source task.
pub type DecodeFactory<T> = Arc<dyn Fn(&OpenContext) -> Box<dyn Decode<T>> + Send + Sync>;

/// For readers that hand over `Rows<T>`.
fn typed<T: Data>() -> DecodeFactory<T> {
    struct Typed;
    impl<T: Data> Decode<T> for Typed {
        fn decode(&mut self, batch: BatchBox, _rejected: &mut Vec<Rejected>) -> Result<Rows<T>> {
            Ok(downcast(batch))
        }
    }
    Arc::new(|_| Box::new(Typed))
}

/// For readers that hand over records as bytes: `decode` makes one row of one record, `None` to leave it out, or says why
/// it cannot.
pub fn records<T: Data>(decode: impl Fn(RawRecord<'_>) -> Result<Option<T>, String> + Send + Sync + 'static) -> DecodeFactory<T> {
    let decode = Arc::new(decode);
    Arc::new(move |context| Box::new(Records { decode: decode.clone(), context: context.clone() }))
}

/// How a source's batches become rows.
#[derive(Clone)]
pub enum Decoding<T> {
    /// The reader hands over `Rows<T>`.
    Typed,
    /// By a [`Decode`] per task.
    Custom(DecodeFactory<T>),
    /// Record by record; `None` says that the record has no value (a tombstone): it removes a row of a table, and is a bad
    /// record in a stream.
    Values(DecodeValue<T>),
}

/// Makes a row of a record.
pub type DecodeValue<T> = Arc<dyn Fn(RawRecord<'_>) -> Result<Option<T>, String> + Send + Sync>;

impl<T: Data> Decoding<T> {
    fn stream(&self) -> DecodeFactory<T> {
        match self {
            Decoding::Typed => typed(),
            Decoding::Custom(factory) => factory.clone(),
            Decoding::Values(decode) => {
                let decode = decode.clone();
                records(move |record| decode(record)?.map(Some).ok_or_else(|| "the record has no value (a tombstone)".to_string()))
            }
        }
    }

    /// Changes of a table.
    fn changes<K: Key>(&self, key: KeyOf<T, K>, removed: RemovedKey<K>) -> DecodeFactory<(K, Option<T>)> {
        if let Decoding::Values(decode) = self {
            let decode = decode.clone();
            return records(move |record| match decode(record)? {
                Some(value) => Ok(Some((key(&value), Some(value)))),
                None => {
                    let name = record.key.ok_or("the record has neither key nor value")?;
                    Ok(Some((removed(name)?, None)))
                }
            });
        }
        let rows = self.stream();
        Arc::new(move |context| Box::new(Keyed { rows: rows(context), key: key.clone(), context: context.clone() }))
    }
}

type KeyOf<T, K> = Arc<dyn Fn(&T) -> K + Send + Sync>;
type RemovedKey<K> = Arc<dyn Fn(&[u8]) -> Result<K, String> + Send + Sync>;

/// Rows as changes that set them.
struct Keyed<T, K> {
    rows: Box<dyn Decode<T>>,
    key: KeyOf<T, K>,
    context: OpenContext,
}

impl<T: Data, K: Key> Decode<(K, Option<T>)> for Keyed<T, K> {
    fn decode(&mut self, batch: BatchBox, rejected: &mut Vec<Rejected>) -> Result<Rows<(K, Option<T>)>> {
        let rows = self.rows.decode(batch, rejected)?;
        let mut changes = Rows::with_capacity(rows.rows.len());
        let each = |changes: &mut Rows<_>, i: usize| {
            let row = rows.rows[i].clone();
            changes.push(((self.key)(&row), Some(row)), rows.times[i], rows.origin(i));
            Ok(())
        };
        guarded(rows.rows.len(), &mut changes, each, |_, i, error| {
            rejected.push(Rejected { origin: rows.origin(i), operator: self.context.operator.clone(), error, time: rows.times[i].0 });
            Ok(())
        })?;
        Ok(changes)
    }
}

struct Records<F> {
    decode: Arc<F>,
    context: OpenContext,
}

impl<T: Data, F> Decode<T> for Records<F>
where
    F: Fn(RawRecord<'_>) -> Result<Option<T>, String> + Send + Sync,
{
    fn decode(&mut self, batch: BatchBox, rejected: &mut Vec<Rejected>) -> Result<Rows<T>> {
        let raw = Arc::new(downcast::<RawBatch>(batch));
        let keep_origins = self.context.policy == ErrorPolicy::DeadLetter;
        let mut rows = Rows::with_capacity(raw.len());
        let each = |rows: &mut Rows<T>, i: usize| {
            if let Some(row) = (self.decode)(raw.record(i))? {
                let origin = keep_origins.then(|| Origin::new(raw.clone(), i as u32));
                rows.push(row, raw.times()[i], origin);
            }
            Ok(())
        };
        guarded(raw.len(), &mut rows, each, |_, i, error| {
            let origin = Some(Origin::new(raw.clone(), i as u32));
            rejected.push(Rejected { origin, operator: self.context.operator.clone(), error, time: raw.times()[i].0 });
            Ok(())
        })?;
        if keep_origins {
            rows.origins.get_or_insert_default();
        }
        Ok(rows)
    }
}

type Stamp<T> = Arc<dyn Fn(&T) -> EventTime + Send + Sync>;

/// Decodes, then stamps event time.
struct Enter<T> {
    decode: Box<dyn Decode<T>>,
    stamp: Option<Stamp<T>>,
    within: Option<RangeInclusive<EventTime>>,
    context: OpenContext,
}

impl<T: Data> Ingest for Enter<T> {
    fn ingest(&mut self, batch: BatchBox, rejected: &mut Vec<Rejected>) -> Result<BatchBox> {
        let mut rows = self.decode.decode(batch, rejected)?;
        let mut failed: Vec<(usize, String)> = Vec::new();
        let n = rows.rows.len();
        if let Some(stamp) = &self.stamp {
            let Rows { rows, times, .. } = &mut rows;
            let each = |times: &mut Vec<EventTime>, i: usize| {
                times[i] = stamp(&rows[i]);
                Ok(())
            };
            guarded(n, times, each, |_, i, error| {
                failed.push((i, error));
                Ok(())
            })?;
        }
        if let Some(within) = &self.within {
            let outside = (0..n).filter(|&i| !within.contains(&rows.times[i]));
            let known: Vec<usize> = failed.iter().map(|f| f.0).collect();
            failed.extend(outside.filter(|i| !known.contains(i)).map(|i| (i, format!("event time {} is out of range", rows.times[i].0))));
            failed.sort_by_key(|f| f.0);
        }
        if failed.is_empty() {
            return Ok(rows.boxed());
        }
        let mut bad = failed.iter().map(|f| f.0 as u32).peekable();
        let good: Vec<u32> = (0..n as u32).filter(|i| bad.next_if_eq(i).is_none()).collect();
        for (i, error) in failed {
            let operator = self.context.operator.clone();
            rejected.push(Rejected { origin: rows.origin(i), operator, error, time: rows.times[i].0 });
        }
        // Dead letters leave in the order of their records, wherever a batch begins and whatever was wrong with each.
        // (Without dead letters nobody keeps origins, and nobody sees an order.)
        if rejected.iter().all(|r| r.origin.is_some()) {
            rejected.sort_by_key(|r| r.origin.as_ref().map(|origin| origin.record().offset));
        }
        Ok(rows.gather(&good).boxed())
    }
}

/// A stream fresh from its source: all of [`Stream`], and how rows enter.
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct SourceStream<T> {
    stream: Stream<T>,
    name: String,
    decoding: Decoding<T>,
    stamp: Option<Stamp<T>>,
    /// Rows have event times.
    timed: bool,
    within: Option<RangeInclusive<EventTime>>,
}

impl<T> Deref for SourceStream<T> {
    type Target = Stream<T>;
    fn deref(&self) -> &Stream<T> {
        &self.stream
    }
}

impl<T: Data> SourceStream<T> {
    pub(super) fn new(draw: &Draw, name: &str, connect: SourceFactory, decoding: Decoding<T>) -> Self {
        let source = SourceNode {
            connect,
            read_as: ReadAs::Stream,
            ingest: ingest(decoding.stream(), None, None),
            watermarks: None,
            max_ahead_ms: None,
            in_step: None,
            policy: ErrorPolicy::Fail,
            dead_letters: None,
        };
        let mut node = LogicalNode::new("source", Role::Source(source), Vec::new());
        node.subject = Some(name.to_string());
        node.can_reject = true;
        let stream = Stream::of(draw.clone(), draw.add(node), 0);
        SourceStream { stream, name: name.to_string(), decoding, stamp: None, timed: false, within: None }
    }

    /// Where event time is in a row, and how far out of order rows may be. Without it a row has the time of its record, and
    /// there is no watermark: windows fire when the input ends.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::{Job, OutOfOrder, secs};
    /// # use waterwheel_engine::dsl::SourceStream;
    /// # #[derive(Clone)] struct Payment { at_ms: i64 }
    /// # fn example(payments: SourceStream<Payment>) {
    /// let payments = payments.event_time(|p| p.at_ms, OutOfOrder::by(secs(5)).idle_after(secs(60)));
    /// # let _ = payments;
    /// # }
    /// ```
    pub fn event_time<E: Into<EventTime>>(mut self, at: impl Fn(&T) -> E + Send + Sync + 'static, watermarks: WatermarkStrategy) -> Self {
        self.stamp = Some(Arc::new(move |row| at(row).into()));
        self.record_time(watermarks)
    }

    /// Event time is the time of the record (Kafka's timestamp; what the reader says).
    pub fn record_time(mut self, watermarks: WatermarkStrategy) -> Self {
        self.timed = true;
        self.change(|s| s.watermarks = Some(watermarks))
    }

    /// Rows with an event time outside of this range are bad records: one broken clock must not push the watermark years
    /// ahead. Unless said otherwise the range is the years 1 to 9999, which tells at least milliseconds from microseconds.
    pub fn times_within<E: Into<EventTime>>(mut self, range: RangeInclusive<E>) -> Self {
        let (from, to) = range.into_inner();
        self.within = Some(from.into()..=to.into());
        self.change(|_| {})
    }

    /// A split whose watermark is further ahead of the slowest than this is held back, so that joins and windows need not
    /// keep what is in between.
    pub fn max_ahead(self, d: Duration) -> Self {
        self.change(|s| s.max_ahead_ms = Some(crate::time::millis(d)))
    }

    /// As [`max_ahead`](Self::max_ahead), among all sources that are given the same name: none of them runs away from the
    /// others. A source that is quiet holds them all, until it is idle. Each needs event time.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::{OutOfOrder, SourceStream, mins, secs};
    /// # #[derive(Clone)] struct Payment { at_ms: i64 }
    /// # #[derive(Clone)] struct Login { at_ms: i64 }
    /// # fn example(payments: SourceStream<Payment>, logins: SourceStream<Login>) {
    /// let payments = payments.event_time(|p| p.at_ms, OutOfOrder::by(secs(5)).idle_after(secs(60))).in_step("cards", mins(10));
    /// let logins = logins.event_time(|l| l.at_ms, OutOfOrder::by(secs(5)).idle_after(secs(60))).in_step("cards", mins(10));
    /// # let _ = (payments, logins);
    /// # }
    /// ```
    pub fn in_step(self, name: &str, max_ahead: Duration) -> Self {
        self.change(|s| {
            s.max_ahead_ms = Some(crate::time::millis(max_ahead));
            s.in_step = Some(name.to_string());
        })
    }

    /// What becomes of a record that cannot be decoded, or whose row fails in a user function further down. Under
    /// [`ErrorPolicy::DeadLetter`] it goes, as it was, to the topic `<name>.dead-letter`, with the error and its place as
    /// headers, in the same epoch.
    pub fn on_error(self, policy: ErrorPolicy) -> Self {
        let topic = format!("{}.dead-letter", self.name);
        self.change(|s| {
            s.policy = policy;
            if policy == ErrorPolicy::DeadLetter && s.dead_letters.is_none() {
                s.dead_letters = Some(to_topic(&topic));
            }
        })
    }

    /// Dead letters, to another topic than `<name>.dead-letter`.
    pub fn dead_letters_to(self, topic: &str) -> Self {
        self.change(|s| {
            s.policy = ErrorPolicy::DeadLetter;
            s.dead_letters = Some(to_topic(topic));
        })
    }

    /// Stable id of the source: its positions in a checkpoint are found by it.
    pub fn id(self, id: &str) -> Self {
        let _ = self.stream.id(id);
        self
    }

    /// The stream, without the source's own methods.
    pub fn stream(&self) -> Stream<T> {
        self.stream.clone()
    }

    /// Makes this source the source of a table. Event time plays no part in it: what counts is the order of records.
    pub(super) fn into_changes<K: Key>(self, key: KeyOf<T, K>, removed: RemovedKey<K>) -> Stream<(K, Option<T>)> {
        let enter = ingest(self.decoding.changes(key, removed), None, None);
        self.change_source(|s| {
            s.ingest = enter;
            s.watermarks = None;
        });
        self.stream.make_table()
    }

    fn change(self, change: impl FnOnce(&mut SourceNode)) -> Self {
        let within = self.within.clone().or_else(|| self.timed.then_some(EventTime::CALENDAR));
        let enter = ingest(self.decoding.stream(), self.stamp.clone(), within);
        self.change_source(|s| {
            s.ingest = enter;
            change(s);
        });
        self
    }

    fn change_source(&self, change: impl FnOnce(&mut SourceNode)) {
        self.stream.change(|node| {
            if let Role::Source(source) = &mut node.role {
                change(source);
            }
        });
    }
}

fn to_topic(topic: &str) -> DeadLetters {
    DeadLetters { encode: dead_letters(topic), sink: SinkRef::Topic(TopicRequest::dead_letters(topic)) }
}

fn ingest<T: Data>(decode: DecodeFactory<T>, stamp: Option<Stamp<T>>, within: Option<RangeInclusive<EventTime>>) -> IngestFactory {
    Arc::new(move |context| {
        let (decode, stamp, within) = (decode(context), stamp.clone(), within.clone());
        Box::new(Enter { decode, stamp, within, context: context.clone() })
    })
}
