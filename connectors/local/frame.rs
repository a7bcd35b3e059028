//! Frames: some records of one partition with a checksum around them.
//!
//! Format: length u32 LE | crc32 u32 LE | payload. Payload: version u8 | partition i32 LE | count u32 LE | records. A record:
//! timestamp i64 LE | key | value | headers, each with its length as u32 LE, `u32::MAX` = null. Offsets are not written: the
//! commit gives the first one, and they are dense.
//!
//! Invariant: a frame is used whole or not at all; its checksum holds before anything of it is looked at.

use std::sync::Arc;
use waterwheel_engine::record::{RawBatch, RawRecord};

const VERSION: u8 = 1;
const HEAD: usize = 8;
const PAYLOAD_HEAD: usize = 9;
/// A frame is closed when it holds so many bytes: small enough to read a few at once, large enough to cost little.
const FRAME_BYTES: usize = 128 << 10;

/// Collects records of one partition as frames.
#[derive(Default)]
pub(super) struct Frames {
    bytes: Vec<u8>,
    /// Where the open frame begins, and its records.
    open: Option<(usize, u32)>,
    records: u64,
    max_timestamp: Option<i64>,
}

impl Frames {
    pub(super) fn push(&mut self, partition: i32, record: &RawRecord<'_>) {
        let (start, count) = *self.open.get_or_insert_with(|| {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(&[0; HEAD]);
            self.bytes.push(VERSION);
            self.bytes.extend_from_slice(&partition.to_le_bytes());
            self.bytes.extend_from_slice(&[0; 4]);
            (start, 0)
        });
        self.bytes.extend_from_slice(&record.timestamp.to_le_bytes());
        put(&mut self.bytes, record.key);
        put(&mut self.bytes, record.value);
        put(&mut self.bytes, Some(record.header_bytes()));
        self.open = Some((start, count + 1));
        self.records += 1;
        self.max_timestamp = self.max_timestamp.max(Some(record.timestamp));
        if self.bytes.len() - start >= FRAME_BYTES {
            self.close();
        }
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The frames, how many records they hold, and the largest timestamp.
    pub(super) fn finish(mut self) -> (Vec<u8>, u64, i64) {
        self.close();
        (self.bytes, self.records, self.max_timestamp.unwrap_or(-1))
    }

    fn close(&mut self) {
        let Some((start, count)) = self.open.take() else { return };
        let frame = &mut self.bytes[start..];
        frame[HEAD + 5..HEAD + PAYLOAD_HEAD].copy_from_slice(&count.to_le_bytes());
        let len = (frame.len() - HEAD) as u32;
        let crc = crc32fast::hash(&frame[HEAD..]);
        frame[..4].copy_from_slice(&len.to_le_bytes());
        frame[4..HEAD].copy_from_slice(&crc.to_le_bytes());
    }
}

/// One checked frame, borrowed.
pub(super) struct Frame<'a> {
    pub(super) partition: i32,
    pub(super) count: u32,
    /// Bytes of the frame, head included.
    pub(super) size: usize,
    records: &'a [u8],
}

/// Why no frame could be taken.
pub(super) enum NoFrame {
    /// So many bytes are needed.
    Short(usize),
    Damaged(&'static str),
}

/// Takes the frame at the beginning of `bytes`.
pub(super) fn take(bytes: &[u8]) -> Result<Frame<'_>, NoFrame> {
    let Some((head, rest)) = bytes.split_at_checked(HEAD) else { return Err(NoFrame::Short(HEAD)) };
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let len = word(0) as usize;
    if len < PAYLOAD_HEAD {
        return Err(NoFrame::Damaged("a frame has no length"));
    }
    let Some(payload) = rest.get(..len) else { return Err(NoFrame::Short(HEAD + len)) };
    if crc32fast::hash(payload) != word(4) {
        return Err(NoFrame::Damaged("the checksum of a frame does not hold"));
    }
    if payload[0] != VERSION {
        return Err(NoFrame::Damaged("a frame was written by a newer version"));
    }
    let number = |at: usize| [payload[at], payload[at + 1], payload[at + 2], payload[at + 3]];
    Ok(Frame {
        partition: i32::from_le_bytes(number(1)),
        count: u32::from_le_bytes(number(5)),
        size: HEAD + len,
        records: &payload[PAYLOAD_HEAD..],
    })
}

impl Frame<'_> {
    /// Appends the records with offsets in `from..to` to a batch; the first record of the frame has offset `base`. `None`
    /// when the records do not fill the frame.
    pub(super) fn read(&self, topic: &Arc<str>, base: i64, from: i64, to: i64, batch: &mut RawBatch) -> Option<()> {
        let mut rest = self.records;
        for offset in base..base.saturating_add(i64::from(self.count)) {
            let (timestamp, r) = rest.split_first_chunk::<8>()?;
            rest = r;
            let key = get(&mut rest)?;
            let value = get(&mut rest)?;
            let headers = get(&mut rest)??;
            if offset >= from && offset < to {
                batch.push_parts(topic, self.partition, offset, i64::from_le_bytes(*timestamp), key, value, headers);
            }
        }
        rest.is_empty().then_some(())
    }
}

fn put(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    out.extend_from_slice(&bytes.map_or(u32::MAX, |b| b.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes.unwrap_or_default());
}

fn get<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let (len, r) = rest.split_first_chunk::<4>()?;
    let (bytes, r) = match u32::from_le_bytes(*len) {
        u32::MAX => (None, r),
        len => r.split_at_checked(len as usize).map(|(bytes, r)| (Some(bytes), r))?,
    };
    *rest = r;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use waterwheel_engine::record::Batch;

    type Row = (i64, Option<Vec<u8>>, Option<Vec<u8>>);

    fn frames(rows: &[Row]) -> (Vec<u8>, u64, i64) {
        let topic: Arc<str> = "t".into();
        let mut frames = Frames::default();
        let mut batch = RawBatch::default();
        for (time, key, value) in rows {
            batch.push_parts(&topic, 3, -1, *time, key.as_deref(), value.as_deref(), &[]);
        }
        batch.records().for_each(|r| frames.push(3, &r));
        frames.finish()
    }

    proptest! {
        #[test]
        fn records_come_back(rows in prop::collection::vec(any::<Row>(), 1..50)) {
            let (bytes, records, max) = frames(&rows);
            prop_assert_eq!(records, rows.len() as u64);
            prop_assert_eq!(max, rows.iter().map(|r| r.0).max().unwrap());
            let Ok(frame) = take(&bytes) else { panic!("no frame") };
            prop_assert_eq!((frame.partition, frame.size), (3, bytes.len()));
            let mut batch = RawBatch::default();
            frame.read(&"t".into(), 100, i64::MIN, i64::MAX, &mut batch).unwrap();
            let back: Vec<Row> = batch.records().map(|r| (r.timestamp, r.key.map(Into::into), r.value.map(Into::into))).collect();
            prop_assert_eq!(back, rows);
            prop_assert_eq!(batch.record(0).offset, 100);
        }

        #[test]
        fn noise_is_no_frame_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(take(&bytes).is_err());
        }

        /// Whoever sealed it: what does not fill its frame is refused, and nothing is taken for more than it is.
        #[test]
        fn noise_behind_a_good_checksum_is_no_panic(noise in prop::collection::vec(any::<u8>(), 8..80), count in 0u32..5, base in any::<i64>()) {
            let payload = [&[VERSION][..], &3i32.to_le_bytes(), &count.to_le_bytes(), &noise].concat();
            let head = [(payload.len() as u32).to_le_bytes(), crc32fast::hash(&payload).to_le_bytes()].concat();
            let bytes = [head, payload].concat();
            let Ok(frame) = take(&bytes) else { panic!("the checksum holds") };
            let mut batch = RawBatch::default();
            if frame.read(&"t".into(), base, i64::MIN, i64::MAX, &mut batch).is_some() {
                // Each record takes its time and three lengths.
                prop_assert_eq!(batch.data_len() + batch.len() * 20, noise.len());
            }
        }
    }

    #[test]
    fn any_flipped_bit_or_cut_is_found() {
        let (bytes, ..) = frames(&[(1, None, Some(b"v".to_vec()))]);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(take(&bad).is_err(), "flip at {at}");
            assert!(matches!(take(&bytes[..at]), Err(NoFrame::Short(n)) if n > at), "cut at {at}");
        }
    }

    #[test]
    fn a_part_of_a_frame_can_be_asked_for_and_large_input_makes_several() {
        let rows: Vec<Row> = (0..10).map(|i| (i, None, Some(vec![0; 50_000]))).collect();
        let (bytes, ..) = frames(&rows);
        let Ok(first) = take(&bytes) else { panic!("no frame") };
        assert_eq!(first.count, 3);
        let mut batch = RawBatch::default();
        first.read(&"t".into(), 0, 1, 2, &mut batch).unwrap();
        assert_eq!((batch.len(), batch.record(0).timestamp), (1, 1));
    }
}
