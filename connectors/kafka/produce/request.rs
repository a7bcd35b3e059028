//! The requests of a transactional producer, and what is answered to them.
//!
//! Each in the newest version without tagged fields: brokers from 2.4 to 4.2 and beyond speak these. Epochs are the client's
//! (the first transaction protocol), as librdkafka's are.
//!
//! Invariant: reading an answer never trusts it: what does not parse is damage, and the connection is closed.

use super::super::protocol::connection::Address;
use super::super::protocol::wire::{Cursor, Damaged, Read, put_text};
use super::super::protocol::{Versions, begin, code, finish};
use super::batch::Identity;
use rdkafka::types::RDKafkaErrorCode as Code;

/// A request and the version in which it is sent.
type Api = (i16, i16);

const PRODUCE: Api = (0, 8);
const FIND_COORDINATOR: Api = (10, 2);
const INIT_PRODUCER_ID: Api = (22, 1);
const ADD_PARTITIONS: Api = (24, 1);
const ADD_OFFSETS: Api = (25, 1);
const END: Api = (26, 1);
const OFFSETS: Api = (28, 2);

/// All replicas have to have it.
const ACKS: i16 = -1;
/// One of several failed, and the others were not looked at.
const NOT_ATTEMPTED: Code = Code::OperationNotAttempted;

/// Whether a broker can be written to in these versions.
pub(super) fn is_spoken(versions: &Versions) -> bool {
    let all = [PRODUCE, FIND_COORDINATOR, INIT_PRODUCER_ID, ADD_PARTITIONS, ADD_OFFSETS, END, OFFSETS];
    all.iter().all(|(key, version)| versions.of(*key).is_some_and(|(lowest, highest)| (lowest..=highest).contains(version)))
}

/// Whose coordinator is asked for; the number is the protocol's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    Group = 0,
    Transaction = 1,
}

/// What all requests of a transaction say.
#[derive(Debug, Clone)]
pub(super) struct Speaker {
    pub(super) client_id: String,
    /// The transactional id.
    pub(super) id: String,
    pub(super) who: Identity,
}

/// A sealed batch and where it goes.
pub(super) struct Piece<'a> {
    pub(super) topic: &'a str,
    pub(super) partition: i32,
    pub(super) batch: &'a [u8],
}

/// What became of one partition's part of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) code: Code,
    /// What the broker says about it, where it does.
    pub(super) why: Option<String>,
}

impl Speaker {
    fn begin(&self, out: &mut Vec<u8>, (key, version): Api, correlation: i32) {
        begin(out, key, version, correlation, &self.client_id);
    }

    /// With the id and who speaks for it.
    fn begin_signed(&self, out: &mut Vec<u8>, api: Api, correlation: i32) {
        self.begin(out, api, correlation);
        put_text(out, &self.id);
        self.sign(out);
    }

    fn sign(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.who.producer.to_be_bytes());
        out.extend_from_slice(&self.who.epoch.to_be_bytes());
    }

    /// Asks who coordinates the transactions of the id, or the group of that name.
    pub(super) fn put_find_coordinator(&self, out: &mut Vec<u8>, correlation: i32, role: Role, name: &str) {
        self.begin(out, FIND_COORDINATOR, correlation);
        put_text(out, name);
        out.push(role as u8);
        finish(out, 0);
    }

    /// Shuts out every older producer of the id. `timeout_ms`: how long a transaction may be open.
    pub(super) fn put_init(&self, out: &mut Vec<u8>, correlation: i32, timeout_ms: i32) {
        self.begin(out, INIT_PRODUCER_ID, correlation);
        put_text(out, &self.id);
        out.extend_from_slice(&timeout_ms.to_be_bytes());
        finish(out, 0);
    }

    /// Makes partitions part of the transaction; those of a topic stand together.
    pub(super) fn put_add_partitions(&self, out: &mut Vec<u8>, correlation: i32, partitions: &[(&str, i32)]) {
        self.begin_signed(out, ADD_PARTITIONS, correlation);
        put_topics(out, partitions, |p| p.0, |out, p| out.extend_from_slice(&p.1.to_be_bytes()));
        finish(out, 0);
    }

    /// Sends batches, at most one a partition, those of a topic together; where they belong in what is written here.
    pub(super) fn put_produce<'a>(&self, out: &mut Vec<u8>, correlation: i32, ack_ms: i32, pieces: &[Piece<'a>]) -> Vec<(usize, &'a [u8])> {
        let mut lent = Vec::with_capacity(pieces.len());
        self.begin(out, PRODUCE, correlation);
        put_text(out, &self.id);
        out.extend_from_slice(&ACKS.to_be_bytes());
        out.extend_from_slice(&ack_ms.to_be_bytes());
        put_topics(
            out,
            pieces,
            |p| p.topic,
            |out, p| {
                out.extend_from_slice(&p.partition.to_be_bytes());
                out.extend_from_slice(&(p.batch.len() as i32).to_be_bytes());
                lent.push((out.len(), p.batch));
            },
        );
        finish(out, lent.iter().map(|(_, piece)| piece.len()).sum());
        lent
    }

    /// Makes the offsets of a group part of the transaction.
    pub(super) fn put_add_offsets(&self, out: &mut Vec<u8>, correlation: i32, group: &str) {
        self.begin_signed(out, ADD_OFFSETS, correlation);
        put_text(out, group);
        finish(out, 0);
    }

    /// Commits an offset of partition 0 of a topic with the transaction.
    pub(super) fn put_offset(&self, out: &mut Vec<u8>, correlation: i32, group: &str, topic: &str, (offset, metadata): (i64, &str)) {
        self.begin(out, OFFSETS, correlation);
        put_text(out, &self.id);
        put_text(out, group);
        self.sign(out);
        put_topics(
            out,
            &[topic],
            |t| t,
            |out, _| {
                out.extend_from_slice(&0_i32.to_be_bytes());
                out.extend_from_slice(&offset.to_be_bytes());
                // Of no known leader epoch.
                out.extend_from_slice(&(-1_i32).to_be_bytes());
                put_text(out, metadata);
            },
        );
        finish(out, 0);
    }

    /// Commits or aborts.
    pub(super) fn put_end(&self, out: &mut Vec<u8>, correlation: i32, commits: bool) {
        self.begin_signed(out, END, correlation);
        out.push(u8::from(commits));
        finish(out, 0);
    }
}

/// Parts by topic: those of one topic stand behind each other.
fn put_topics<T>(out: &mut Vec<u8>, parts: &[T], topic: impl Fn(&T) -> &str, mut put: impl FnMut(&mut Vec<u8>, &T)) {
    let count = parts.chunk_by(|a, b| topic(a) == topic(b)).count();
    out.extend_from_slice(&(count as i32).to_be_bytes());
    for of_topic in parts.chunk_by(|a, b| topic(a) == topic(b)) {
        put_text(out, topic(&of_topic[0]));
        out.extend_from_slice(&(of_topic.len() as i32).to_be_bytes());
        of_topic.iter().for_each(|part| put(out, part));
    }
}

/// Past the number of the request. (The throttle times of answers are not heeded: brokers hold a client back by themselves.)
fn opened(answer: &[u8]) -> Read<Cursor<'_>> {
    let mut answer = Cursor(answer);
    let _correlation = answer.i32()?;
    Ok(answer)
}

fn owned(text: Option<&[u8]>) -> String {
    String::from_utf8_lossy(text.unwrap_or_default()).into_owned()
}

/// Code, and where the coordinator is.
pub(super) fn found_coordinator(answer: &[u8]) -> Read<(Code, Address)> {
    let mut answer = opened(answer)?;
    let (_throttle, code, _why, _node) = (answer.i32()?, code(answer.i16()?), answer.text()?, answer.i32()?);
    let (host, port) = (owned(answer.text()?), answer.i32()?);
    match u16::try_from(port) {
        Ok(port) => Ok((code, (host, port))),
        Err(_) if code != Code::NoError => Ok((code, (host, 0))),
        Err(_) => Err(Damaged("a port out of range")),
    }
}

/// Code, and who the producer is from now on.
pub(super) fn initialised(answer: &[u8]) -> Read<(Code, Identity)> {
    let mut answer = opened(answer)?;
    let (_throttle, code) = (answer.i32()?, code(answer.i16()?));
    Ok((code, Identity { producer: answer.i64()?, epoch: answer.i16()? }))
}

/// The code of a request that is done as a whole or not at all.
pub(super) fn done(answer: &[u8]) -> Read<(Code, ())> {
    let mut answer = opened(answer)?;
    let (_throttle, code) = (answer.i32()?, code(answer.i16()?));
    Ok((code, ()))
}

/// The code of a request about partitions: the first failure, and whose it is.
pub(super) fn done_each(answer: &[u8]) -> Read<(Code, Option<(String, i32)>)> {
    let mut answer = opened(answer)?;
    let _throttle = answer.i32()?;
    let mut failures = Vec::new();
    for _ in 0..answer.i32()? {
        let topic = owned(answer.text()?);
        for _ in 0..answer.i32()? {
            let (partition, code) = (answer.i32()?, code(answer.i16()?));
            if code != Code::NoError {
                failures.push((code, (topic.clone(), partition)));
            }
        }
    }
    let at = failures.iter().position(|(code, _)| *code != NOT_ATTEMPTED).unwrap_or(0);
    Ok(if failures.is_empty() { (Code::NoError, None) } else { (failures[at].0, Some(failures.swap_remove(at).1)) })
}

/// What became of batches.
pub(super) fn produced(answer: &[u8]) -> Read<Vec<Outcome>> {
    let mut answer = opened(answer)?;
    let mut outcomes = Vec::new();
    for _ in 0..answer.i32()? {
        let topic = owned(answer.text()?);
        for _ in 0..answer.i32()? {
            let (partition, code) = (answer.i32()?, code(answer.i16()?));
            let (_offset, _append_time, _start) = (answer.i64()?, answer.i64()?, answer.i64()?);
            let mut why = None;
            for _ in 0..answer.i32()? {
                let (record, said) = (answer.i32()?, answer.text()?);
                why = why.or(said.map(|said| format!("record {record}: {}", owned(Some(said)))));
            }
            let whole = answer.text()?.map(|said| owned(Some(said)));
            outcomes.push(Outcome { topic: topic.clone(), partition, code, why: why.or(whole) });
        }
    }
    Ok(outcomes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn speaker() -> Speaker {
        Speaker { client_id: "w".into(), id: "id".into(), who: Identity { producer: 9, epoch: 2 } }
    }

    /// Behind length, key, version, number 3 and client id.
    fn body(api: Api, out: &[u8], lent: usize) -> Vec<u8> {
        assert_eq!(out[..4], ((out.len() - 4 + lent) as i32).to_be_bytes());
        assert_eq!(out[4..8], [api.0.to_be_bytes(), api.1.to_be_bytes()].concat());
        assert_eq!(out[8..15], [0, 0, 0, 3, 0, 1, b'w']);
        out[15..].to_vec()
    }

    const ID: &[u8] = &[0, 2, b'i', b'd'];
    const WHO: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 9, 0, 2];

    #[test]
    fn requests_have_the_protocols_bytes() {
        let (s, mut out) = (speaker(), Vec::new());
        s.put_find_coordinator(&mut out, 3, Role::Transaction, "id");
        assert_eq!(body(FIND_COORDINATOR, &out, 0), [ID, &[1]].concat());
        s.put_init(&mut out, 3, 256);
        assert_eq!(body(INIT_PRODUCER_ID, &out, 0), [ID, &[0, 0, 1, 0]].concat());
        s.put_add_partitions(&mut out, 3, &[("a", 0), ("a", 7), ("b", 1)]);
        let topics = [&[0, 0, 0, 2][..], &[0, 1, b'a', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 7], &[0, 1, b'b', 0, 0, 0, 1, 0, 0, 0, 1]].concat();
        assert_eq!(body(ADD_PARTITIONS, &out, 0), [ID, WHO, &topics].concat());
        s.put_add_offsets(&mut out, 3, "g");
        assert_eq!(body(ADD_OFFSETS, &out, 0), [ID, WHO, &[0, 1, b'g']].concat());
        s.put_offset(&mut out, 3, "g", "t", (5, "m"));
        let offset = [&[0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 0][..], &5_i64.to_be_bytes(), &[0xff; 4], &[0, 1, b'm']].concat();
        assert_eq!(body(OFFSETS, &out, 0), [ID, &[0, 1, b'g'], WHO, &offset].concat());
        s.put_end(&mut out, 3, true);
        assert_eq!(body(END, &out, 0), [ID, WHO, &[1]].concat());
    }

    #[test]
    fn batches_lie_where_the_request_says() {
        let (mut out, pieces) = (Vec::new(), [("a", 0, &b"xyz"[..]), ("a", 1, &b"u"[..]), ("b", 0, &b"vw"[..])]);
        let pieces = pieces.map(|(topic, partition, batch)| Piece { topic, partition, batch });
        let lent = speaker().put_produce(&mut out, 3, 30_000, &pieces);
        let mut whole = out.clone();
        for (at, piece) in lent.iter().rev() {
            whole.splice(at..at, piece.iter().copied());
        }
        let expected = [
            ID,
            &[0xff, 0xff, 0, 0, 0x75, 0x30, 0, 0, 0, 2],
            &[0, 1, b'a', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, b'x', b'y', b'z', 0, 0, 0, 1, 0, 0, 0, 1, b'u'],
            &[0, 1, b'b', 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, b'v', b'w'],
        ];
        assert_eq!(body(PRODUCE, &whole, 0), expected.concat());
        assert_eq!(out[..4], ((whole.len() - 4) as i32).to_be_bytes());
    }

    #[test]
    fn the_first_failure_that_was_looked_at_counts() {
        let answer = |codes: &[i16]| {
            let mut out = [&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, b't'][..], &(codes.len() as i32).to_be_bytes()].concat();
            for (partition, code) in codes.iter().enumerate() {
                out.extend_from_slice(&(partition as i32).to_be_bytes());
                out.extend_from_slice(&code.to_be_bytes());
            }
            done_each(&out).unwrap()
        };
        assert_eq!(answer(&[0, 0]), (Code::NoError, None));
        assert_eq!(answer(&[55, 29, 55]), (Code::TopicAuthorizationFailed, Some(("t".into(), 1))));
        assert_eq!(answer(&[0, 55]), (Code::OperationNotAttempted, Some(("t".into(), 1))));
    }

    #[test]
    fn what_became_of_batches_is_read() {
        let one = [&[0, 0, 0, 3, 0, 87][..], &[0xff; 24], &[0, 0, 0, 1, 0, 0, 0, 6, 0, 3, b'b', b'a', b'd', 0xff, 0xff]].concat();
        let two = [&[0, 0, 0, 4, 0, 0][..], &[0; 24], &[0, 0, 0, 0, 0xff, 0xff]].concat();
        let answer = [&[0, 0, 0, 1, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 2][..], &one, &two, &[0, 0, 0, 0]].concat();
        let outcome = |partition, code, why: Option<&str>| Outcome { topic: "t".into(), partition, code, why: why.map(Into::into) };
        let expected = [outcome(3, Code::InvalidRecord, Some("record 6: bad")), outcome(4, Code::NoError, None)];
        assert_eq!(produced(&answer).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_are_an_answer_or_damage(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (found_coordinator(&bytes), initialised(&bytes), done(&bytes), done_each(&bytes), produced(&bytes));
        }
    }
}
