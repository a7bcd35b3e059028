//! Record batches (format 2) as they are written, straight from records.
//!
//! Invariant: a batch holds its records in the order in which they were pushed, each as `fetch/records.rs` reads it; it is
//! longer than its limit only if it holds one record.

use super::super::protocol::codec::{Codec, compress};
use super::super::protocol::wire::{put_varint, varint_len};
use super::super::send::timestamp;
use std::io;
use waterwheel_engine::record::RawRecord;

/// Bytes before the first record.
const HEADER: usize = 61;
/// Bytes before the length of a batch counts.
const PREFIX: usize = 12;
const CRC_AT: usize = 17;
const CRC_FROM: usize = 21;
const FORMAT: u8 = 2;
const TRANSACTIONAL: i16 = 1 << 4;

/// Who writes: what the broker gave this producer when it was fenced in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) producer: i64,
    pub(super) epoch: i16,
}

/// How much a batch may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) bytes: usize,
    pub(super) records: i32,
}

/// A batch being filled.
#[derive(Debug)]
pub(super) struct Batch {
    /// Room for the header, then the records.
    bytes: Vec<u8>,
    records: i32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl Batch {
    /// Bytes of a batch without records.
    pub(super) const EMPTY: usize = HEADER;

    /// An empty batch in a buffer, whatever is in that.
    pub(super) fn new(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        buffer.resize(HEADER, 0);
        Batch { bytes: buffer, records: 0, base_timestamp: 0, max_timestamp: 0 }
    }

    pub(super) fn records(&self) -> i32 {
        self.records
    }

    /// Bytes as of now, not packed.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The buffer, to be used again.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }

    /// Appends a record; `false` when it has no room any more. An empty batch takes a record of any size.
    pub(super) fn push(&mut self, record: &RawRecord<'_>, limits: Limits) -> bool {
        let timestamp = timestamp(record.timestamp);
        let base = if self.records == 0 { timestamp } else { self.base_timestamp };
        let (later, at) = (timestamp.wrapping_sub(base), i64::from(self.records));
        let (headers, headers_len) = measure(record);
        let parts = nullable_len(record.key) + nullable_len(record.value) + headers_len;
        let len = 1 + varint_len(later) + varint_len(at) + parts;
        let whole = varint_len(len as i64) + len;
        if self.records > 0 && (self.records >= limits.records || self.bytes.len() + whole > limits.bytes) {
            return false;
        }
        let out = &mut self.bytes;
        out.reserve(whole);
        put_varint(out, len as i64);
        // No attributes of a record are in use.
        out.push(0);
        put_varint(out, later);
        put_varint(out, at);
        put_nullable(out, record.key);
        put_nullable(out, record.value);
        put_varint(out, headers);
        for (name, value) in record.headers() {
            put_nullable(out, Some(name.as_bytes()));
            put_nullable(out, value);
        }
        self.max_timestamp = if self.records == 0 { timestamp } else { self.max_timestamp.max(timestamp) };
        self.base_timestamp = base;
        self.records += 1;
        true
    }

    /// Packs the records and writes the header: the bytes are what the broker keeps. Once, at the end.
    ///
    /// # Errors
    /// Of the codec.
    pub(super) fn seal(&mut self, codec: Codec, who: Identity, sequence: i32) -> io::Result<()> {
        let mut attributes = TRANSACTIONAL;
        if codec != Codec::Plain {
            let mut packed = vec![0; HEADER];
            compress(codec, &self.bytes[HEADER..], &mut packed)?;
            // What does not get smaller stays as it is.
            if packed.len() < self.bytes.len() {
                self.bytes = packed;
                attributes |= codec as i16;
            }
        }
        let len = (self.bytes.len() - PREFIX) as i32;
        let mut at = 0;
        let mut put = |part: &[u8]| {
            self.bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        };
        // The offset is the broker's to say, and so is the leader's epoch.
        put(&0_i64.to_be_bytes());
        put(&len.to_be_bytes());
        put(&(-1_i32).to_be_bytes());
        put(&[FORMAT]);
        put(&[0; CRC_FROM - CRC_AT]);
        put(&attributes.to_be_bytes());
        put(&(self.records - 1).to_be_bytes());
        put(&self.base_timestamp.to_be_bytes());
        put(&self.max_timestamp.to_be_bytes());
        put(&who.producer.to_be_bytes());
        put(&who.epoch.to_be_bytes());
        put(&sequence.to_be_bytes());
        put(&self.records.to_be_bytes());
        let crc = crc_fast::crc32_iscsi(&self.bytes[CRC_FROM..]);
        self.bytes[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
        Ok(())
    }

    /// The bytes of a sealed batch.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// How many headers a record has, and how many bytes they take with their count.
fn measure(record: &RawRecord<'_>) -> (i64, usize) {
    let (mut count, mut len) = (0, 0);
    for (name, value) in record.headers() {
        count += 1;
        len += nullable_len(Some(name.as_bytes())) + nullable_len(value);
    }
    (count, varint_len(count) + len)
}

#[inline]
fn nullable_len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |b| varint_len(b.len() as i64) + b.len())
}

#[inline]
fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put_varint(out, bytes.map_or(-1, |b| b.len() as i64));
    out.extend_from_slice(bytes.unwrap_or_default());
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
