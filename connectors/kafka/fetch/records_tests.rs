//! Batches written here byte by byte are read as they were written; damage is found, and nothing panics.
//!
//! Invariant: what is handed out was written, whatever became of the bytes on their way.

use super::super::pool::Pool;
use super::*;
use crate::kafka::protocol::wire::put_varint;
use proptest::prelude::*;
use std::sync::Arc;

/// A record as it was written, and as it must be read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Plain {
    offset: i64,
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<u8>,
    logged: Logged,
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put_varint(out, bytes.map_or(-1, |b| b.len() as i64));
    out.extend_from_slice(bytes.unwrap_or_default());
}

/// Offset and timestamp as differences, key, value.
type Short = (i64, i64, Option<Vec<u8>>, Option<Vec<u8>>);

/// A batch as a broker stores it; compaction leaves gaps between offsets.
#[derive(Debug)]
struct Written {
    base: i64,
    attributes: i16,
    producer: i64,
    records: Vec<Short>,
}

impl Written {
    fn bytes(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for (delta, timestamp, key, value) in &self.records {
            let mut record = vec![0];
            put_varint(&mut record, *timestamp);
            put_varint(&mut record, *delta);
            put_nullable(&mut record, key.as_deref());
            put_nullable(&mut record, value.as_deref());
            put_varint(&mut record, 1);
            put_nullable(&mut record, Some(b"h"));
            put_nullable(&mut record, value.as_deref());
            put_varint(&mut body, record.len() as i64);
            body.extend_from_slice(&record);
        }
        let packed = match self.attributes & 7 {
            4 => zstd::stream::encode_all(&body[..], 1).unwrap(),
            _ => body,
        };
        let last = self.records.last().map_or(0, |r| r.0) as i32;
        let mut checked = self.attributes.to_be_bytes().to_vec();
        checked.extend_from_slice(&last.to_be_bytes());
        checked.extend_from_slice(&1_000_i64.to_be_bytes());
        checked.extend_from_slice(&9_999_i64.to_be_bytes());
        checked.extend_from_slice(&self.producer.to_be_bytes());
        checked.extend_from_slice(&[0; 6]);
        checked.extend_from_slice(&(self.records.len() as i32).to_be_bytes());
        checked.extend_from_slice(&packed);
        let mut out = self.base.to_be_bytes().to_vec();
        out.extend_from_slice(&((checked.len() + 9) as i32).to_be_bytes());
        out.extend_from_slice(&7_i32.to_be_bytes());
        out.push(2);
        out.extend_from_slice(&crc_fast::crc32_iscsi(&checked).to_be_bytes());
        out.extend_from_slice(&checked);
        out
    }

    fn plain(&self) -> Vec<Plain> {
        let record = |(delta, timestamp, key, value): &Short| {
            let mut headers = Vec::new();
            RawBatch::encode_header(&mut headers, "h", value.as_deref());
            let (timestamp, timestamps) = match self.attributes & APPEND_TIME {
                0 => (1_000 + timestamp, Timestamps::Created),
                _ => (9_999, Timestamps::Appended),
            };
            let logged = Logged { leader_epoch: Some(7), timestamps };
            Plain { offset: self.base + delta, timestamp, key: key.clone(), value: value.clone(), headers, logged }
        };
        self.records.iter().map(record).collect()
    }
}

fn marker(base: i64, producer: i64, commits: bool) -> Written {
    let key = vec![0, 0, 0, u8::from(commits)];
    Written { base, attributes: CONTROL | TRANSACTIONAL, producer, records: vec![(0, 0, Some(key), Some(vec![0; 6]))] }
}

/// Everything, taken `limit` at a time.
fn read(bytes: &[u8], from: i64, aborted: Vec<Aborted>, limit: usize) -> Read<Vec<Plain>> {
    let whole = walk(bytes).map_err(|_| Damaged("older"))?.whole;
    let pool = Arc::new(Pool::default());
    let mut records = Records::new(pool.share(bytes.to_vec()), 0..whole, from, aborted);
    let mut out = Vec::new();
    loop {
        let taken = records.take(limit, |r| {
            let (key, value) = (r.key.map(<[u8]>::to_vec), r.value.map(<[u8]>::to_vec));
            out.push(Plain { offset: r.offset, timestamp: r.timestamp, key, value, headers: r.headers.to_vec(), logged: r.logged });
        })?;
        if taken < limit {
            return Ok(out);
        }
    }
}

fn part() -> impl Strategy<Value = Option<Vec<u8>>> {
    proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300))
}

fn batches() -> impl Strategy<Value = Vec<Written>> {
    let record = (1_i64..4, -50_i64..50, part(), part());
    let batch = (proptest::collection::vec(record, 1..20), prop_oneof![Just(0_i16), Just(4), Just(APPEND_TIME)], 0_i64..3);
    proptest::collection::vec(batch, 0..6).prop_map(|batches| {
        let mut base = 100;
        let each = |(mut records, attributes, gap): (Vec<Short>, i16, i64)| {
            base += gap;
            let mut delta = -1;
            records.iter_mut().for_each(|r| {
                delta += r.0;
                r.0 = delta;
            });
            let batch = Written { base, attributes, producer: -1, records };
            base += delta + 1;
            batch
        };
        batches.into_iter().map(each).collect()
    })
}

proptest! {
    #[test]
    fn what_was_written_is_read(batches in batches(), from in 90_i64..200, limit in 1_usize..40, cut in 0_usize..500) {
        let mut bytes: Vec<u8> = batches.iter().flat_map(Written::bytes).collect();
        let all: Vec<Plain> = batches.iter().flat_map(Written::plain).collect();
        let expected: Vec<Plain> = all.iter().filter(|r| r.offset >= from).cloned().collect();
        prop_assert_eq!(read(&bytes, from, vec![], limit), Ok(expected));
        prop_assert_eq!(walk(&bytes).unwrap().after, all.last().map(|r| (r.offset + 1, 7)));
        // A broker cuts the last batch off where the answer is full.
        bytes.truncate(bytes.len().saturating_sub(cut));
        let whole = read(&bytes, 0, vec![], limit).unwrap();
        prop_assert!(all.starts_with(&whole));
    }

    #[test]
    fn damage_is_found(batches in batches(), at: prop::sample::Index, bit in 0_u8..8) {
        let mut bytes: Vec<u8> = batches.iter().flat_map(Written::bytes).collect();
        prop_assume!(!bytes.is_empty());
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let all: Vec<Plain> = batches.iter().flat_map(Written::plain).collect();
        // What the checksum does not cover are places and lengths of batches; contents are never other ones.
        if let Ok(read) = read(&bytes, i64::MIN, vec![], 7) {
            prop_assert!(read.iter().all(|r| all.iter().any(|a| (&a.key, &a.value, &a.headers) == (&r.key, &r.value, &r.headers))));
        }
    }

    #[test]
    fn bytes_of_any_kind_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), right: bool) {
        let mut bytes = bytes;
        if right && bytes.len() > HEADER {
            // Past the checksum: the records themselves are nonsense.
            let len = bytes.len() as i32 - PREFIX as i32;
            bytes[8..12].copy_from_slice(&len.to_be_bytes());
            bytes[16] = 2;
            let crc = crc_fast::crc32_iscsi(&bytes[CRC_FROM..]);
            bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        }
        let _ = read(&bytes, 0, vec![Aborted { producer: 0, first_offset: 0 }], 5);
    }
}

#[test]
fn what_was_taken_back_never_comes_and_markers_are_no_records() {
    let of = |base, producer, name: &str| Written {
        base,
        attributes: TRANSACTIONAL,
        producer,
        records: vec![(0, 0, None, Some(name.as_bytes().to_vec()))],
    };
    let log = [
        of(0, 1, "aborted"),
        of(1, 2, "committed"),
        marker(2, 1, false),
        of(3, 1, "next, committed"),
        marker(4, 2, true),
        of(5, 2, "aborted too"),
        marker(6, 1, true),
        marker(7, 2, false),
    ];
    let bytes: Vec<u8> = log.iter().flat_map(Written::bytes).collect();
    let aborted = vec![Aborted { producer: 1, first_offset: 0 }, Aborted { producer: 2, first_offset: 5 }];
    let values: Vec<Vec<u8>> = read(&bytes, 0, aborted, 3).unwrap().into_iter().filter_map(|r| r.value).collect();
    assert_eq!(values, [&b"committed"[..], b"next, committed"]);
    assert_eq!(walk(&bytes), Ok(Walked { whole: bytes.len(), after: Some((8, 7)) }));
}

/// A transaction that was given up before it had written anything, or whose records compaction took: its marker is there alone, and
/// the broker may name it all the same.
#[test]
fn an_abort_of_nothing_hides_nothing() {
    let of = |base, producer, name: &str| Written {
        base,
        attributes: TRANSACTIONAL,
        producer,
        records: vec![(0, 0, None, Some(name.as_bytes().to_vec()))],
    };
    let log = [
        marker(0, 1, false),
        of(1, 1, "a"),
        marker(2, 1, true),
        marker(3, 2, false),
        of(4, 2, "b"),
        of(5, 1, "c"),
        marker(6, 1, true),
        marker(7, 2, true),
        marker(8, 2, false),
    ];
    let bytes: Vec<u8> = log.iter().flat_map(Written::bytes).collect();
    let named = vec![Aborted { producer: 1, first_offset: 0 }, Aborted { producer: 2, first_offset: 2 }];
    for aborted in [vec![], named] {
        for from in [0, 1] {
            let values: Vec<Vec<u8>> = read(&bytes, from, aborted.clone(), 2).unwrap().into_iter().filter_map(|r| r.value).collect();
            assert_eq!(values, [&b"a"[..], b"b", b"c"], "from {from}");
        }
    }
}

#[test]
fn older_formats_are_told_apart_from_damage() {
    let mut bytes = Written { base: 0, attributes: 0, producer: -1, records: vec![(0, 0, None, None)] }.bytes();
    bytes[16] = 1;
    assert_eq!(walk(&bytes), Err(Older));
}
