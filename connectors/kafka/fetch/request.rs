//! The request that a fetching connection makes: Fetch.
//!
//! Fetch is sent as version 13, which names a topic by its identity, so that a topic made again under the same name is
//! refused instead of read; where the identity is not known, as version 12, which names it by name.
//!
//! Invariant: reading an answer never trusts it: what does not parse is damage, and the connection is closed.

use crate::kafka::protocol::wire::{Cursor, Read, put_compact, put_uvarint};
use crate::kafka::protocol::{Versions, begin, finish};
use rdkafka::types::RDKafkaErrorCode as Code;
use std::ops::Range;
use std::sync::Arc;

const FETCH: i16 = 1;
/// By topic identity.
pub(super) const BY_ID: i16 = 13;
/// By topic name, and the first with tagged fields (Kafka 2.7).
pub(super) const BY_NAME: i16 = 12;
const READ_COMMITTED: i8 = 1;

/// Limits of one request.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub(super) client_id: String,
    pub(super) wait_ms: i32,
    pub(super) min_bytes: i32,
    pub(super) max_bytes: i32,
    pub(super) partition_bytes: i32,
}

/// What is asked of one partition.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) topic: Arc<str>,
    /// Identity of the topic, where it is known.
    pub(super) topic_id: Option<[u8; 16]>,
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// Leader epoch of the last batch read, -1 before the first: the broker says when its log no longer has that.
    pub(super) last_epoch: i32,
}

impl Ask {
    /// Whether an answer is to this.
    pub(super) fn is_answered_by(&self, answer: &Answer) -> bool {
        let same = match &answer.topic {
            Topic::Id(id) => self.topic_id == Some(*id),
            Topic::Name(name) => *self.topic == **name,
        };
        same && self.partition == answer.partition
    }

    fn put_topic(&self, version: i16, out: &mut Vec<u8>) {
        match self.topic_id.filter(|_| version >= BY_ID) {
            Some(id) => out.extend_from_slice(&id),
            None => put_compact(out, &self.topic),
        }
    }
}

/// How an answer names a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Topic {
    Id([u8; 16]),
    Name(String),
}

/// The highest version of Fetch that a broker speaks; -1 = none that is spoken here.
pub(super) fn highest(versions: &Versions) -> i16 {
    versions.of(FETCH).filter(|(lowest, _)| *lowest <= BY_NAME).map_or(-1, |(_, highest)| highest)
}

/// The version in which to ask a broker that speaks up to `highest`; `None` when it is too old.
pub(super) fn version(asks: &[Ask], highest: i16) -> Option<i16> {
    let by_id = highest >= BY_ID && asks.iter().all(|a| a.topic_id.is_some());
    if by_id { Some(BY_ID) } else { (highest >= BY_NAME).then_some(BY_NAME) }
}

/// A topic's identity from the form in which librdkafka writes it (22 digits of base64).
pub(super) fn uuid(text: &str) -> Option<[u8; 16]> {
    let mut bits = 0_u128;
    let digits = text.trim_end_matches('=');
    if digits.len() != 22 {
        return None;
    }
    for (at, digit) in digits.bytes().enumerate() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = match at {
            // 22 digits hold 132 bits: the last four are padding.
            21 => bits << 2 | u128::from(value >> 4),
            _ => bits << 6 | u128::from(value),
        };
    }
    (bits != 0).then(|| bits.to_be_bytes())
}

/// What the broker answered for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) topic: Topic,
    pub(super) partition: i32,
    pub(super) code: Code,
    /// End of what may be read: records of transactions still open lie at or after it.
    pub(super) stable_end: i64,
    pub(super) aborted: Vec<Aborted>,
    /// The log no longer has what was read last.
    pub(super) truncated: bool,
    /// Where the record batches lie in the answer; the last may be cut off.
    pub(super) records: Range<usize>,
}

/// An aborted transaction: records of this producer from this offset, up to its abort marker, never happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kafka) struct Aborted {
    pub(super) producer: i64,
    pub(super) first_offset: i64,
}

/// A Fetch of all `asks`, which the broker may hold back for `wait_ms` while there is nothing.
pub(super) fn put_fetch(out: &mut Vec<u8>, correlation: i32, version: i16, limits: &Limits, wait_ms: i32, asks: &[Ask]) {
    begin(out, FETCH, version, correlation, &limits.client_id);
    out.push(0);
    out.extend_from_slice(&(-1_i32).to_be_bytes());
    for n in [wait_ms, limits.min_bytes, limits.max_bytes] {
        out.extend_from_slice(&n.to_be_bytes());
    }
    out.push(READ_COMMITTED as u8);
    // No session: a request says everything, so that a lost answer loses nothing.
    out.extend_from_slice(&0_i32.to_be_bytes());
    out.extend_from_slice(&(-1_i32).to_be_bytes());
    put_uvarint(out, asks.chunk_by(|a, b| a.topic == b.topic).count() as u64 + 1);
    for of_topic in asks.chunk_by(|a, b| a.topic == b.topic) {
        of_topic[0].put_topic(version, out);
        put_uvarint(out, of_topic.len() as u64 + 1);
        for ask in of_topic {
            out.extend_from_slice(&ask.partition.to_be_bytes());
            out.extend_from_slice(&(-1_i32).to_be_bytes());
            out.extend_from_slice(&ask.offset.to_be_bytes());
            out.extend_from_slice(&ask.last_epoch.to_be_bytes());
            out.extend_from_slice(&(-1_i64).to_be_bytes());
            out.extend_from_slice(&limits.partition_bytes.to_be_bytes());
            out.push(0);
        }
        out.push(0);
    }
    // No forgotten topics, no rack, no tagged fields.
    out.extend_from_slice(&[1, 1, 0]);
    finish(out, 0);
}

/// How long the broker wants not to be asked (a quota), and what it answered, or the error of the request as a whole.
pub(super) fn fetched(bytes: &[u8], version: i16) -> Read<(i32, Result<Vec<Answer>, Code>)> {
    let mut answer = Cursor(bytes);
    answer.i32()?;
    answer.tags(|_, _| ())?;
    let throttle_ms = answer.i32()?;
    let code = code(answer.i16()?);
    if code != Code::NoError {
        return Ok((throttle_ms, Err(code)));
    }
    answer.i32()?;
    let mut answers = Vec::new();
    for _ in 0..answer.compact_len()?.unwrap_or(0) {
        let topic = match version {
            BY_ID => Topic::Id(answer.uuid()?),
            _ => {
                let len = answer.compact_len()?.unwrap_or(0);
                Topic::Name(String::from_utf8_lossy(answer.bytes(len)?).into_owned())
            }
        };
        for _ in 0..answer.compact_len()?.unwrap_or(0) {
            answers.push(partition(bytes, &mut answer, &topic)?);
        }
        answer.tags(|_, _| ())?;
    }
    answer.tags(|_, _| ())?;
    Ok((throttle_ms, Ok(answers)))
}

fn partition(whole: &[u8], answer: &mut Cursor<'_>, topic: &Topic) -> Read<Answer> {
    let (partition, code) = (answer.i32()?, code(answer.i16()?));
    let (_high, stable_end, _start) = (answer.i64()?, answer.i64()?, answer.i64()?);
    let mut aborted = Vec::new();
    for _ in 0..answer.compact_len()?.unwrap_or(0) {
        aborted.push(Aborted { producer: answer.i64()?, first_offset: answer.i64()? });
        answer.tags(|_, _| ())?;
    }
    aborted.sort_by_key(|a| a.first_offset);
    let _preferred_replica = answer.i32()?;
    let len = answer.compact_len()?.unwrap_or(0);
    let from = whole.len() - answer.0.len();
    answer.bytes(len)?;
    let mut truncated = false;
    answer.tags(|tag, mut field| truncated |= tag == 0 && field.i32().is_ok_and(|epoch| epoch >= 0))?;
    Ok(Answer { topic: topic.clone(), partition, code, stable_end, aborted, truncated, records: from..from + len })
}

/// The protocol's number of an error, as librdkafka names it; what is not known of Fetch passes, like all that is unknown.
fn code(number: i16) -> Code {
    match number {
        0 => Code::NoError,
        1 => Code::OffsetOutOfRange,
        2 => Code::InvalidMessage,
        3 => Code::UnknownTopicOrPartition,
        5 => Code::LeaderNotAvailable,
        6 => Code::NotLeaderForPartition,
        7 => Code::RequestTimedOut,
        8 => Code::BrokerNotAvailable,
        9 => Code::ReplicaNotAvailable,
        13 => Code::NetworkException,
        29 => Code::TopicAuthorizationFailed,
        31 => Code::ClusterAuthorizationFailed,
        35 => Code::UnsupportedVersion,
        56 => Code::KafkaStorageError,
        74 => Code::FencedLeaderEpoch,
        75 => Code::UnknownLeaderEpoch,
        76 => Code::UnsupportedCompressionType,
        78 => Code::OffsetNotAvailable,
        100 | 103 => Code::UnknownTopicId,
        _ => Code::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits() -> Limits {
        Limits { client_id: "w".into(), wait_ms: 500, min_bytes: 1, max_bytes: 9, partition_bytes: 7 }
    }

    #[test]
    fn a_request_has_the_protocols_bytes() {
        let ask = Ask { topic: "t".into(), topic_id: None, partition: 0, offset: 5, last_epoch: -1 };
        let mut out = Vec::new();
        let asks = [ask];
        assert_eq!((version(&asks, 17), version(&asks, 11)), (Some(BY_NAME), None));
        put_fetch(&mut out, 3, BY_NAME, &limits(), 500, &asks);
        let mut expected: Vec<u8> = [
            &[0; 4][..],
            &[0, 1, 0, 12, 0, 0, 0, 3, 0, 1, b'w', 0],
            &[0xff; 4],
            &[0, 0, 1, 0xf4, 0, 0, 0, 1, 0, 0, 0, 9, 1],
            &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
            &[2, 2, b't', 2],
            &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
            &[0, 0, 0, 0, 0, 0, 0, 5],
            &[0xff; 4],
            &[0xff; 8],
            &[0, 0, 0, 7, 0, 0],
            &[1, 1, 0],
        ]
        .concat();
        let len = expected.len() as u32 - 4;
        expected[..4].copy_from_slice(&len.to_be_bytes());
        assert_eq!(out, expected);
    }

    #[test]
    fn identities_are_read_in_both_alphabets() {
        assert_eq!(uuid("AAAAAAAAAAAAAAAAAAAAAQ"), Some(1_u128.to_be_bytes()));
        assert_eq!(uuid("_____________________w"), Some([0xff; 16]));
        assert_eq!(uuid("/////////////////////w"), Some([0xff; 16]));
        assert_eq!((uuid("not an id"), uuid("AAAAAAAAAAAAAAAAAAAAAA"), uuid(&"B".repeat(23))), (None, None, None));
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_are_an_answer_or_damage(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for version in [BY_NAME, BY_ID] {
                if let Ok((_, Ok(answers))) = fetched(&bytes, version) {
                    prop_assert!(answers.iter().all(|a| a.records.end <= bytes.len()));
                }
            }
        }
    }
}
