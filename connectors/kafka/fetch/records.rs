//! Record batches (format 2) as the broker sends them: checked, decompressed, and read record by record.
//!
//! Invariant: a record is handed out only from a batch whose checksum was right, that lies wholly in the answer, and that no
//! abort marker takes back; control records are never handed out. After an error nothing more comes from this answer.

use super::Record;
use super::request::Aborted;
use crate::kafka::protocol::codec::decompress;
use crate::kafka::protocol::wire::{Cursor, Damaged, Read};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::ops::Range;
use waterwheel_engine::record::{Logged, RawBatch, Timestamps};

/// Bytes before the first record of a batch.
const HEADER: usize = 61;
/// Bytes before the length of a batch counts.
const PREFIX: usize = 12;
const CRC_FROM: usize = 21;
/// Records of fewer bytes in all are copied: they would keep the room of a whole answer.
const LENT_FROM: usize = 64 << 10;
const APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

/// What the headers of an answer's batches say, before anything is decoded.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::kafka) struct Walked {
    /// Bytes of whole batches; what follows is cut off.
    pub(in crate::kafka) whole: usize,
    /// Offset after the last whole batch, and the leader epoch it was written in.
    pub(in crate::kafka) after: Option<(i64, i32)>,
}

/// Walks the headers. A batch of an older format is no damage, but not read here.
pub(in crate::kafka) fn walk(bytes: &[u8]) -> Result<Walked, Older> {
    let mut walked = Walked { whole: 0, after: None };
    while let Some(header) = Header::read(&bytes[walked.whole..])? {
        walked.whole += header.len;
        walked.after = Some((header.last_offset() + 1, header.leader_epoch));
    }
    Ok(walked)
}

/// Batches are of a format before 2 (Kafka 0.11).
#[derive(Debug, PartialEq, Eq)]
pub(in crate::kafka) struct Older;

#[derive(Debug, Clone, Copy)]
struct Header {
    base_offset: i64,
    /// Of the whole batch.
    len: usize,
    leader_epoch: i32,
    crc: u32,
    attributes: i16,
    last_delta: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    producer: i64,
    count: i32,
}

impl Header {
    /// `None` when the batch is not there as a whole.
    fn read(bytes: &[u8]) -> Result<Option<Self>, Older> {
        let mut at = Cursor(bytes);
        let mut read = || -> Read<(Self, i8)> {
            let base_offset = at.i64()?;
            let len = usize::try_from(at.i32()?).map_err(|_| Damaged("a length below zero"))?;
            let (leader_epoch, magic) = (at.i32()?, at.i8()?);
            let (crc, attributes, last_delta) = (at.u32()?, at.i16()?, at.i32()?);
            let (base_timestamp, max_timestamp) = (at.i64()?, at.i64()?);
            let (producer, _epoch, _sequence, count) = (at.i64()?, at.i16()?, at.i32()?, at.i32()?);
            let len = len + PREFIX;
            let header =
                Header { base_offset, len, leader_epoch, crc, attributes, last_delta, base_timestamp, max_timestamp, producer, count };
            Ok((header, magic))
        };
        match read() {
            Ok((_, magic)) if magic != 2 => Err(Older),
            Ok((header, _)) if (HEADER..=bytes.len()).contains(&header.len) => Ok(Some(header)),
            _ => Ok(None),
        }
    }

    /// Whether the broker's clock has stamped the records, all with one time.
    fn is_append_time(&self) -> bool {
        self.attributes & APPEND_TIME != 0
    }

    fn logged(&self) -> Logged {
        let timestamps = if self.is_append_time() { Timestamps::Appended } else { Timestamps::Created };
        Logged { leader_epoch: (self.leader_epoch >= 0).then_some(self.leader_epoch), timestamps }
    }

    fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_delta)
    }
}

/// The records of one partition in one answer.
pub(in crate::kafka) struct Records {
    answer: Bytes,
    /// Whether they are enough for keeping the answer.
    is_lent: bool,
    /// What is left of the batches.
    rest: Range<usize>,
    /// Records below this were read before.
    from: i64,
    aborted: std::vec::IntoIter<Aborted>,
    next_aborted: Option<Aborted>,
    /// Producers whose records, up to their abort marker, never happened.
    hidden: BTreeSet<i64>,
    batch: Option<Open>,
    headers: Vec<u8>,
}

/// The batch being read.
struct Open {
    header: Header,
    /// Unpacked records; `None` while they lie in the answer itself.
    unpacked: Option<Bytes>,
    at: Range<usize>,
    left: i32,
}

impl Records {
    /// Of the whole batches in `range`; `aborted` is in order of offsets.
    pub(in crate::kafka) fn new(answer: Bytes, range: Range<usize>, from: i64, aborted: Vec<Aborted>) -> Self {
        let mut aborted = aborted.into_iter();
        let next_aborted = aborted.next();
        let is_lent = range.len() >= LENT_FROM;
        Records { answer, is_lent, rest: range, from, aborted, next_aborted, hidden: BTreeSet::new(), batch: None, headers: Vec::new() }
    }

    /// Hands out up to `limit` records; how many. Fewer than `limit` means that all have been.
    ///
    /// # Errors
    /// Damage: a wrong checksum, a batch that does not unpack or parse.
    pub(in crate::kafka) fn take(&mut self, limit: usize, mut each: impl FnMut(Record<'_>)) -> Read<usize> {
        let mut taken = 0;
        while taken < limit {
            let Some(open) = &mut self.batch else {
                if !self.open()? {
                    break;
                }
                continue;
            };
            let (bytes, is_lent) = match &open.unpacked {
                Some(unpacked) => (unpacked, unpacked.len() >= LENT_FROM),
                None => (&self.answer, self.is_lent),
            };
            let mut cursor = Cursor(&bytes[open.at.clone()]);
            while taken < limit && open.left > 0 {
                open.left -= 1;
                let record = record(&open.header, &mut cursor, &mut self.headers)?;
                if record.offset >= self.from {
                    taken += 1;
                    each(Record { lender: is_lent.then_some(bytes), ..record });
                }
            }
            open.at.start = open.at.end - cursor.0.len();
            if open.left == 0 {
                self.batch = None;
            }
        }
        Ok(taken)
    }

    /// Opens the next batch that has records for us; false when there is none.
    fn open(&mut self) -> Read<bool> {
        loop {
            let bytes = &self.answer[self.rest.clone()];
            let Ok(Some(header)) = Header::read(bytes) else { return Ok(false) };
            let batch = self.rest.start..self.rest.start + header.len;
            self.rest.start = batch.end;
            if crc_fast::crc32_iscsi(&self.answer[batch.start + CRC_FROM..batch.end]) != header.crc {
                return Err(Damaged("the checksum of a record batch is wrong"));
            }
            while let Some(aborted) = self.next_aborted.filter(|a| a.first_offset <= header.last_offset()) {
                self.hidden.insert(aborted.producer);
                self.next_aborted = self.aborted.next();
            }
            let body = batch.start + HEADER..batch.end;
            if header.attributes & CONTROL != 0 {
                if is_abort(&header, &self.answer[body])? {
                    self.hidden.remove(&header.producer);
                }
                continue;
            }
            let taken_back = header.attributes & TRANSACTIONAL != 0 && self.hidden.contains(&header.producer);
            if taken_back || header.last_offset() < self.from || header.count <= 0 {
                continue;
            }
            let unpacked = decompress(header.attributes & 7, &self.answer[body.clone()])?.map(Bytes::from);
            let at = unpacked.as_ref().map_or(body, |u| 0..u.len());
            self.batch = Some(Open { header, unpacked, at, left: header.count });
            return Ok(true);
        }
    }
}

/// Whether a control batch ends a transaction by taking it back.
fn is_abort(header: &Header, body: &[u8]) -> Read<bool> {
    let (mut headers, mut body) = (Vec::new(), Cursor(body));
    if header.count <= 0 {
        return Ok(false);
    }
    let marker = record(header, &mut body, &mut headers)?;
    let mut key = Cursor(marker.key.unwrap_or_default());
    let (_version, kind) = (key.i16()?, key.i16()?);
    Ok(kind == 0)
}

#[inline]
fn record<'a: 'h, 'h>(header: &Header, bytes: &mut Cursor<'a>, headers: &'h mut Vec<u8>) -> Read<Record<'h>> {
    let len = usize::try_from(bytes.varint()?).map_err(|_| Damaged("a record of a length below zero"))?;
    let mut body = Cursor(bytes.bytes(len)?);
    let _attributes = body.i8()?;
    let timestamp = header.base_timestamp.wrapping_add(body.varint()?);
    let offset = header.base_offset.wrapping_add(body.varint()?);
    let (key, value) = (nullable(&mut body)?, nullable(&mut body)?);
    headers.clear();
    for _ in 0..body.varint()? {
        let name = nullable(&mut body)?.ok_or(Damaged("a header without a name"))?;
        let value = nullable(&mut body)?;
        RawBatch::encode_header(headers, &String::from_utf8_lossy(name), value);
    }
    let timestamp = if header.is_append_time() { header.max_timestamp } else { timestamp };
    Ok(Record { offset, timestamp, key, value, headers, logged: header.logged(), lender: None })
}

#[inline]
fn nullable<'a>(bytes: &mut Cursor<'a>) -> Read<Option<&'a [u8]>> {
    match bytes.varint()? {
        -1 => Ok(None),
        len => bytes.bytes(usize::try_from(len).map_err(|_| Damaged("a length below zero"))?).map(Some),
    }
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
