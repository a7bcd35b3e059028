//! What is written into batches is what the own fetcher reads out of them.
//!
//! Invariant: no part of a record is lost, and none is another's.

use super::super::super::fetch::{Records, walk};
use super::*;
use bytes::Bytes;
use proptest::prelude::*;
use std::sync::Arc;
use waterwheel_engine::record::RawBatch;

const WHO: Identity = Identity { producer: 4_711, epoch: 3 };
const LARGE: Limits = Limits { bytes: 1 << 20, records: i32::MAX };
const CODECS: [Codec; 5] = [Codec::Plain, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

/// Timestamp, key, value, headers.
type Plain = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<u8>);

fn raw<'a>(topic: &'a Arc<str>, (timestamp, key, value, headers): &'a Plain) -> RawRecord<'a> {
    RawRecord::new(topic, 0, -1, *timestamp, key.as_deref(), value.as_deref(), headers)
}

/// Batches of the records, as many as it takes.
fn written(records: &[Plain], limits: Limits, codec: Codec) -> Vec<Vec<u8>> {
    let topic: Arc<str> = "t".into();
    let (mut sealed, mut batch, mut sequence) = (Vec::new(), Batch::new(vec![1; 100]), 0);
    let mut close = |batch: &mut Batch| {
        batch.seal(codec, WHO, sequence).unwrap();
        sequence += batch.records();
        sealed.push(batch.bytes().to_vec());
    };
    for record in records {
        if !batch.push(&raw(&topic, record), limits) {
            close(&mut batch);
            batch = Batch::new(batch.into_buffer());
            assert!(batch.push(&raw(&topic, record), limits), "an empty batch takes any record");
        }
    }
    if batch.records() > 0 {
        close(&mut batch);
    }
    sealed
}

fn read(batch: &[u8]) -> Vec<Plain> {
    let walked = walk(batch).expect("format 2");
    assert_eq!(walked.whole, batch.len());
    let mut records = Records::new(Bytes::from(batch.to_vec()), 0..batch.len(), 0, vec![]);
    let mut out = Vec::new();
    records
        .take(usize::MAX, |r| {
            assert_eq!(r.offset, out.len() as i64);
            out.push((r.timestamp, r.key.map(<[u8]>::to_vec), r.value.map(<[u8]>::to_vec), r.headers.to_vec()));
        })
        .expect("checked and parsed");
    assert_eq!(walked.after.expect("a batch").0, out.len() as i64);
    out
}

/// As Kafka can keep it.
fn kept(records: &[Plain]) -> Vec<Plain> {
    records.iter().cloned().map(|r| (timestamp(r.0), r.1, r.2, r.3)).collect()
}

fn number<const N: usize>(batch: &[u8], at: usize) -> [u8; N] {
    batch[at..at + N].try_into().unwrap()
}

fn part(longest: usize) -> impl Strategy<Value = Option<Vec<u8>>> {
    proptest::option::of(proptest::collection::vec(any::<u8>(), 0..longest))
}

fn headers() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(("[a-z\u{e4}]{0,5}", part(200)), 0..5).prop_map(|headers| {
        let mut out = Vec::new();
        headers.iter().for_each(|(name, value)| RawBatch::encode_header(&mut out, name, value.as_deref()));
        out
    })
}

fn records() -> impl Strategy<Value = Vec<Plain>> {
    let timestamp = prop_oneof![Just(0_i64), Just(-1), Just(i64::MIN), Just(i64::MAX), 1_i64..2_000_000_000_000];
    proptest::collection::vec((timestamp, part(100), part(20_000), headers()), 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_written_is_read(records in records(), bytes in 62_usize..30_000, most in 1_i32..20, codec in 0_usize..5) {
        let batches = written(&records, Limits { bytes, records: most }, CODECS[codec]);
        let mut all = Vec::new();
        for batch in &batches {
            let (sequence, count) = (i32::from_be_bytes(number(batch, 53)), i32::from_be_bytes(number(batch, 57)));
            prop_assert_eq!(sequence as usize, all.len());
            prop_assert!(count <= most && (count == 1 || batch.len() <= bytes));
            let of_batch = read(batch);
            let (first, latest) = (i64::from_be_bytes(number(batch, 27)), i64::from_be_bytes(number(batch, 35)));
            prop_assert_eq!((Some(first), Some(latest)), (of_batch.first().map(|r| r.0), of_batch.iter().map(|r| r.0).max()));
            prop_assert_eq!((i64::from_be_bytes(number(batch, 43)), i16::from_be_bytes(number(batch, 51))), (WHO.producer, WHO.epoch));
            all.extend(of_batch);
        }
        prop_assert!(all == kept(&records), "other records come back");
    }
}

#[test]
fn every_shape_comes_back_under_every_codec() {
    let mut many = Vec::new();
    (0..300).for_each(|i| RawBatch::encode_header(&mut many, &format!("h{i}"), (i % 3 > 0).then_some(&[7; 9][..i % 3])));
    let records: Vec<Plain> = vec![
        (5, None, None, vec![]),
        (0, Some(vec![]), Some(vec![]), vec![]),
        (-1, Some(b"k".to_vec()), None, many),
        (-9, None, Some(vec![b'x'; 1_000_000]), vec![]),
        (4, Some(vec![0; 64]), Some(vec![1; 8_192]), vec![]),
    ];
    for codec in CODECS {
        let batches = written(&records, Limits { bytes: 4 << 20, records: i32::MAX }, codec);
        assert_eq!(batches.len(), 1);
        assert!(read(&batches[0]) == kept(&records), "{codec:?}");
        let attributes = i16::from_be_bytes(number(&batches[0], 21));
        assert_eq!(attributes, TRANSACTIONAL | codec as i16, "{codec:?}");
    }
}

#[test]
fn what_does_not_get_smaller_is_not_packed() {
    let records: Vec<Plain> = vec![(1, None, Some(b"x".to_vec()), vec![])];
    for codec in CODECS {
        let batches = written(&records, LARGE, codec);
        assert_eq!(i16::from_be_bytes(number(&batches[0], 21)), TRANSACTIONAL, "{codec:?}");
        assert!(read(&batches[0]) == records);
    }
}

#[test]
fn a_batch_has_the_protocols_bytes() {
    let records: Vec<Plain> = vec![(1_000, Some(b"k".to_vec()), Some(b"v".to_vec()), vec![]), (999, None, None, vec![])];
    let batch = written(&records, LARGE, Codec::Plain).remove(0);
    let body = [&[16, 0, 0, 0, 2, b'k', 2, b'v', 0][..], &[12, 0, 1, 2, 1, 1, 0]].concat();
    let checked = [
        &[0, 16][..],
        &[0, 0, 0, 1],
        &1_000_i64.to_be_bytes(),
        &1_000_i64.to_be_bytes(),
        &4_711_i64.to_be_bytes(),
        &[0, 3],
        &[0, 0, 0, 0],
        &[0, 0, 0, 2],
        &body,
    ]
    .concat();
    let whole = [
        &[0; 8][..],
        &(checked.len() as i32 + 9).to_be_bytes(),
        &[0xff; 4],
        &[2],
        &crc_fast::crc32_iscsi(&checked).to_be_bytes(),
        &checked,
    ]
    .concat();
    assert_eq!(batch, whole);
}
