//! Records as bytes: what connectors hand over and take, one arena a batch instead of an allocation a record. Bytes that a
//! connector has in one piece anyway are lent to the batch instead of copied into its arena.
//!
//! Invariant: every range in [`RecordMeta`] lies inside the arena or the bytes that it names; a missing value (`None`, a
//! tombstone) differs from an empty one (`Some(0..0)`).

use super::{Batch, BatchBox, Keys, Origins};
use crate::time::EventTime;
use bytes::Bytes;
use std::any::Any;
use std::ops::Range;
use std::sync::Arc;

/// Records of one or more topics, in order, as read or as to be written.
///
/// As a source's output all records come from one split and carry offsets. As a sink's input `partition` may be -1: the sink
/// chooses by key.
#[derive(Debug, Clone, Default)]
pub struct RawBatch {
    data: Vec<u8>,
    /// What records lie in that were not copied, and how much of it is theirs.
    lent: Vec<Bytes>,
    lent_bytes: usize,
    metas: Vec<RecordMeta>,
    times: Vec<EventTime>,
    topics: Vec<Arc<str>>,
    /// Rows that records stand for beyond one each.
    more: usize,
    /// What the log says of records, from the one of this number on.
    logged: Vec<(u32, Logged)>,
}

/// What a log keeps beside the records of a batch that was written to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Logged {
    /// Epoch of the partition's leader that took it; `None` where it is not known.
    pub leader_epoch: Option<i32>,
    /// What the timestamps are.
    pub timestamps: Timestamps,
}

/// What the timestamp of a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timestamps {
    /// There is none: the record is of a format without.
    None,
    /// When it was made, as whoever wrote it says.
    Created,
    /// When the broker appended it.
    Appended,
}

/// Where a record of a [`RawBatch`] lies in the arena, and what else is known of it.
#[derive(Debug, Clone)]
pub struct RecordMeta {
    /// Index into the batch's topics.
    pub topic: u16,
    /// Where key and value lie: 0 is the arena, n the n-th of the lent bytes.
    lender: u16,
    /// Partition; -1 when the sink is to choose.
    pub partition: i32,
    /// Offset in the source partition; -1 for a record to be written.
    pub offset: i64,
    /// Record timestamp in milliseconds; -1 when there is none.
    pub timestamp: i64,
    key: Option<Range<u32>>,
    value: Option<Range<u32>>,
    headers: Range<u32>,
}

/// One record of a batch, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct RawRecord<'a> {
    /// Topic.
    pub topic: &'a Arc<str>,
    /// Partition; -1 when the sink is to choose.
    pub partition: i32,
    /// Offset; -1 for a record to be written.
    pub offset: i64,
    /// Record timestamp in milliseconds; -1 when there is none.
    pub timestamp: i64,
    /// Key bytes.
    pub key: Option<&'a [u8]>,
    /// Value bytes; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    headers: &'a [u8],
}

impl<'a> RawRecord<'a> {
    /// A record of parts; `headers` as from [`RawBatch::encode_header`].
    pub fn new(
        topic: &'a Arc<str>,
        partition: i32,
        offset: i64,
        timestamp: i64,
        key: Option<&'a [u8]>,
        value: Option<&'a [u8]>,
        headers: &'a [u8],
    ) -> Self {
        RawRecord { topic, partition, offset, timestamp, key, value, headers }
    }

    /// The headers in order; duplicates and null values occur.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a> {
        let mut rest = self.headers;
        std::iter::from_fn(move || {
            let (name_len, r) = rest.split_first_chunk::<4>()?;
            let (name, r) = r.split_at_checked(u32::from_le_bytes(*name_len) as usize)?;
            let (value_len, r) = r.split_first_chunk::<4>()?;
            let (value, r) = match u32::from_le_bytes(*value_len) {
                u32::MAX => (None, r),
                n => r.split_at_checked(n as usize).map(|(v, r)| (Some(v), r))?,
            };
            rest = r;
            Some((std::str::from_utf8(name).unwrap_or("?"), value))
        })
    }

    /// The headers as encoded in the arena (see [`RawBatch::encode_header`]), for copying whole.
    pub fn header_bytes(&self) -> &'a [u8] {
        self.headers
    }
}

impl RawBatch {
    /// An empty batch with room for `records` records of `bytes` bytes in all.
    pub fn with_capacity(records: usize, bytes: usize) -> Self {
        RawBatch {
            data: Vec::with_capacity(bytes),
            lent: Vec::new(),
            lent_bytes: 0,
            metas: Vec::with_capacity(records),
            times: Vec::with_capacity(records),
            topics: Vec::with_capacity(1),
            more: 0,
            logged: Vec::new(),
        }
    }

    /// Appends a record. Its event time is the record timestamp until the source operator says otherwise.
    pub fn push(&mut self, record: RawRecord<'_>) {
        let topic = self.topic_index(record.topic);
        let key = record.key.map(|k| self.copy_in(k));
        let value = record.value.map(|v| self.copy_in(v));
        let headers = self.copy_in(record.headers);
        self.metas.push(RecordMeta {
            topic,
            lender: 0,
            partition: record.partition,
            offset: record.offset,
            timestamp: record.timestamp,
            key,
            value,
            headers,
        });
        self.times.push(EventTime(record.timestamp));
    }

    /// Appends a record whose key and value lie in `lender`: they are not copied, `lender` stays alive as long as the batch.
    /// What lies elsewhere is copied after all. Only for bytes of which most will be records of this batch.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use std::sync::Arc;
    /// use waterwheel_engine::record::{RawBatch, RawRecord};
    /// let (topic, read): (Arc<str>, _) = ("t".into(), Bytes::from_static(b"k1value"));
    /// let mut batch = RawBatch::default();
    /// batch.push_lent(RawRecord::new(&topic, 0, 7, -1, Some(&read[..2]), Some(&read[2..]), &[]), &read);
    /// assert_eq!(batch.record(0).value, Some(&b"value"[..]));
    /// ```
    pub fn push_lent(&mut self, record: RawRecord<'_>, lender: &Bytes) {
        let place = |part: Option<&[u8]>| match part {
            None => Some(None),
            Some(part) => within(lender, part).map(Some),
        };
        let (Some(key), Some(value), Some(number)) = (place(record.key), place(record.value), self.lender(lender)) else {
            return self.push(record);
        };
        let part = |range: &Option<Range<u32>>| range.as_ref().map_or(0, ExactSizeIterator::len);
        self.lent_bytes += part(&key) + part(&value);
        let (topic, headers) = (self.topic_index(record.topic), self.copy_in(record.headers));
        let RawRecord { partition, offset, timestamp, .. } = record;
        self.metas.push(RecordMeta { topic, lender: number, partition, offset, timestamp, key, value, headers });
        self.times.push(EventTime(timestamp));
    }

    /// The number of lent bytes; none when there are too many.
    fn lender(&mut self, lender: &Bytes) -> Option<u16> {
        let is_last = self.lent.last().is_some_and(|last| last.as_ptr() == lender.as_ptr() && last.len() == lender.len());
        if !is_last {
            if self.lent.len() >= usize::from(u16::MAX) || lender.len() > u32::MAX as usize {
                return None;
            }
            self.lent.push(lender.clone());
        }
        u16::try_from(self.lent.len()).ok()
    }

    /// Appends a record from parts; `headers` as from [`encode_header`](RawBatch::encode_header).
    #[expect(clippy::too_many_arguments, reason = "the parts of a record are what they are")]
    pub fn push_parts(
        &mut self,
        topic: &Arc<str>,
        partition: i32,
        offset: i64,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[u8],
    ) {
        self.push(RawRecord::new(topic, partition, offset, timestamp, key, value, headers));
    }

    /// Appends a record whose value is written straight into the arena by `write`; on an error nothing is appended.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn push_with<E>(
        &mut self,
        topic: &Arc<str>,
        partition: i32,
        timestamp: i64,
        key: Option<&[u8]>,
        headers: &[u8],
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.data.len();
        if let Err(e) = write(&mut self.data) {
            self.data.truncate(start);
            return Err(e);
        }
        let value = Some(Self::range(start, self.data.len()));
        let topic = self.topic_index(topic);
        let key = key.map(|k| self.copy_in(k));
        let headers = self.copy_in(headers);
        self.metas.push(RecordMeta { topic, lender: 0, partition, offset: -1, timestamp, key, value, headers });
        self.times.push(EventTime(timestamp));
        Ok(())
    }

    /// The record appended last stands for so many rows: it holds several lines. Known of a batch as it was made, not of its
    /// parts.
    pub fn stands_for(&mut self, rows: usize) {
        self.more += rows.saturating_sub(1);
    }

    /// What the log says of the records that are appended from now on. Known of a batch as it was read, not of its parts.
    pub fn from_log(&mut self, logged: Logged) {
        if self.logged.last().is_none_or(|(_, last)| *last != logged) {
            self.logged.push((self.metas.len() as u32, logged));
        }
    }

    /// What the log says of record `i`, where it was read from one that does.
    pub fn logged(&self, i: usize) -> Option<Logged> {
        let before = self.logged.partition_point(|(first, _)| *first as usize <= i);
        before.checked_sub(1).map(|at| self.logged[at].1)
    }

    /// Appends one header to `out` in the arena's form; `None` is a null value.
    pub fn encode_header(out: &mut Vec<u8>, name: &str, value: Option<&[u8]>) {
        out.extend_from_slice(&(name.len() as u32).to_le_bytes());
        out.extend_from_slice(name.as_bytes());
        match value {
            None => out.extend_from_slice(&u32::MAX.to_le_bytes()),
            Some(v) => {
                out.extend_from_slice(&(v.len() as u32).to_le_bytes());
                out.extend_from_slice(v);
            }
        }
    }

    /// Record `i`.
    pub fn record(&self, i: usize) -> RawRecord<'_> {
        let m = &self.metas[i];
        let from: &[u8] = match m.lender.checked_sub(1) {
            None => &self.data,
            Some(n) => &self.lent[usize::from(n)],
        };
        RawRecord {
            topic: &self.topics[m.topic as usize],
            partition: m.partition,
            offset: m.offset,
            timestamp: m.timestamp,
            key: m.key.clone().map(|r| slice(from, r)),
            value: m.value.clone().map(|r| slice(from, r)),
            headers: slice(&self.data, m.headers.clone()),
        }
    }

    /// The records in order.
    pub fn records(&self) -> impl ExactSizeIterator<Item = RawRecord<'_>> {
        (0..self.metas.len()).map(|i| self.record(i))
    }

    /// Bytes of the records: keys, values, headers.
    pub fn data_len(&self) -> usize {
        self.data.len() + self.lent_bytes
    }

    /// Records, and bytes in the arena: the room that the next batch of the same kind will need.
    pub fn room(&self) -> (usize, usize) {
        (self.metas.len(), self.data.len())
    }

    fn topic_index(&mut self, topic: &Arc<str>) -> u16 {
        match self.topics.iter().position(|t| Arc::ptr_eq(t, topic) || t == topic) {
            Some(i) => i as u16,
            None => {
                self.topics.push(topic.clone());
                u16::try_from(self.topics.len() - 1).expect("a batch names fewer than 65,536 topics")
            }
        }
    }

    fn copy_in(&mut self, bytes: &[u8]) -> Range<u32> {
        let start = self.data.len();
        self.data.extend_from_slice(bytes);
        Self::range(start, self.data.len())
    }

    fn range(start: usize, end: usize) -> Range<u32> {
        assert!(end <= u32::MAX as usize, "a raw batch holds less than 4 GiB; connectors cut far below");
        start as u32..end as u32
    }
}

fn slice(from: &[u8], r: Range<u32>) -> &[u8] {
    &from[r.start as usize..r.end as usize]
}

/// Where `part` lies in `whole`, if it is a piece of it.
fn within(whole: &[u8], part: &[u8]) -> Option<Range<u32>> {
    let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    let end = start.checked_add(part.len()).filter(|end| *end <= whole.len())?;
    Some(u32::try_from(start).ok()?..u32::try_from(end).ok()?)
}

impl Batch for RawBatch {
    fn len(&self) -> usize {
        self.metas.len()
    }
    fn counted(&self) -> usize {
        self.metas.len() + self.more
    }
    fn bytes(&self) -> usize {
        self.data_len() + self.metas.len() * (size_of::<RecordMeta>() + 8)
    }
    fn times(&self) -> &[EventTime] {
        &self.times
    }
    fn keys(&self) -> Option<&Keys> {
        None
    }
    fn origins(&self) -> Option<&Origins> {
        None
    }
    fn scatter(self: Box<Self>, targets: &[u32], parts: usize) -> Vec<BatchBox> {
        let mut out: Vec<RawBatch> = (0..parts).map(|_| RawBatch::default()).collect();
        for (i, &t) in targets.iter().enumerate() {
            out[t as usize].push(self.record(i));
        }
        out.into_iter().map(|b| Box::new(b) as BatchBox).collect()
    }
    fn clone_batch(&self) -> BatchBox {
        Box::new(self.clone())
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn type_name(&self) -> &'static str {
        std::any::type_name::<Self>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_empty_stay_apart_and_headers_come_back() {
        let topic: Arc<str> = "t".into();
        let mut headers = Vec::new();
        RawBatch::encode_header(&mut headers, "a", None);
        RawBatch::encode_header(&mut headers, "a", Some(b""));
        let mut b = RawBatch::default();
        b.push_parts(&topic, 3, 7, 11, Some(b"k"), None, &headers);
        b.push_parts(&topic, 3, 8, 12, None, Some(b""), &[]);
        assert_eq!(b.record(0).value, None);
        assert_eq!(b.record(1).value, Some(&b""[..]));
        assert_eq!(b.record(0).headers().collect::<Vec<_>>(), [("a", None), ("a", Some(&b""[..]))]);
    }

    #[test]
    fn lent_records_are_those_that_were_pushed_and_live_on() {
        let (topic, mut headers): (Arc<str>, _) = ("t".into(), Vec::new());
        RawBatch::encode_header(&mut headers, "h", Some(b"1"));
        let (one, two) = (Bytes::from(b"..key1value1".to_vec()), Bytes::from(b"value2".to_vec()));
        let (mut lent, mut copied) = (RawBatch::default(), RawBatch::default());
        for (lender, key, value) in [
            (&one, Some(&one[2..6]), Some(&one[6..])),
            (&one, None, Some(&one[12..])),
            (&two, Some(&b"elsewhere"[..]), Some(&two[..])),
            (&two, Some(&two[..0]), None),
            (&one, None, None),
        ] {
            let record = RawRecord::new(&topic, 1, 5, 9, key, value, &headers);
            lent.push_lent(record, lender);
            copied.push(record);
        }
        drop((one, two));
        let shown = |batch: &RawBatch| batch.records().map(|r| format!("{r:?}")).collect::<Vec<_>>();
        assert_eq!(shown(&lent), shown(&copied));
        assert_eq!(shown(&lent.clone()), shown(&copied));
        assert_eq!(lent.data_len(), copied.data_len());
    }

    #[test]
    fn what_the_log_says_is_known_of_each_record_from_then_on() {
        let (topic, mut batch): (Arc<str>, _) = ("t".into(), RawBatch::default());
        let epoch = |leader_epoch| Logged { leader_epoch, timestamps: Timestamps::Created };
        batch.push_parts(&topic, 0, 0, 0, None, None, &[]);
        for (said, records) in [(epoch(Some(3)), 2), (epoch(None), 0), (epoch(Some(4)), 1), (epoch(Some(4)), 1)] {
            batch.from_log(said);
            (0..records).for_each(|_| batch.push_parts(&topic, 0, 0, 0, None, None, &[]));
        }
        let found: Vec<_> = (0..batch.len()).map(|i| batch.logged(i).and_then(|logged| logged.leader_epoch)).collect();
        assert_eq!(found, [None, Some(3), Some(3), Some(4), Some(4)]);
        assert_eq!(batch.logged(0), None);
    }

    #[test]
    fn a_failed_write_leaves_no_trace() {
        let topic: Arc<str> = "t".into();
        let mut b = RawBatch::default();
        let r = b.push_with(&topic, -1, 0, None, &[], |out| {
            out.extend_from_slice(b"half");
            Err("no")
        });
        assert!(r.is_err());
        assert_eq!((b.len(), b.data_len()), (0, 0));
    }
}
