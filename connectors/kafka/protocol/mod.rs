//! Kafka's protocol, as far as the own clients speak it: bytes, connections, packed batches.
//!
//! Invariant: nothing that comes from outside is trusted: what does not parse is damage, and whoever reads it closes the
//! connection.

pub(super) mod codec;
pub(super) mod connection;
pub(super) mod wire;

use rdkafka::types::{RDKafkaErrorCode as Code, RDKafkaRespErr};
use std::io;
use wire::{Cursor, Read};

const API_VERSIONS: i16 = 18;

/// Starts a request: room for its length, then the header.
pub(super) fn begin(out: &mut Vec<u8>, key: i16, version: i16, correlation: i32, client_id: &str) {
    out.clear();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&key.to_be_bytes());
    out.extend_from_slice(&version.to_be_bytes());
    out.extend_from_slice(&correlation.to_be_bytes());
    let id = &client_id.as_bytes()[..client_id.len().min(i16::MAX as usize)];
    out.extend_from_slice(&(id.len() as i16).to_be_bytes());
    out.extend_from_slice(id);
}

/// Ends a request; `lent` bytes of it lie elsewhere.
pub(super) fn finish(out: &mut [u8], lent: usize) {
    let len = (out.len() - 4 + lent) as i32;
    out[..4].copy_from_slice(&len.to_be_bytes());
}

/// Which versions the broker speaks: asked in the oldest form, which every broker answers.
fn put_api_versions(out: &mut Vec<u8>, correlation: i32, client_id: &str) {
    begin(out, API_VERSIONS, 0, correlation, client_id);
    finish(out, 0);
}

/// The versions of requests that a broker speaks.
#[derive(Debug, Default)]
pub(super) struct Versions(Vec<(i16, i16, i16)>);

impl Versions {
    /// From a broker's answer; none when it names none.
    fn read(answer: &[u8]) -> Read<Self> {
        let mut answer = Cursor(answer);
        answer.i32()?;
        let mut versions = Versions::default();
        if answer.i16()? != 0 {
            return Ok(versions);
        }
        for _ in 0..answer.i32()? {
            versions.0.push((answer.i16()?, answer.i16()?, answer.i16()?));
        }
        Ok(versions)
    }

    /// Lowest and highest version of a request.
    pub(super) fn of(&self, key: i16) -> Option<(i16, i16)> {
        self.0.iter().find(|(k, ..)| *k == key).map(|(_, lowest, highest)| (*lowest, *highest))
    }
}

/// The protocol's number of an error, as librdkafka names it.
pub(super) fn code(number: i16) -> Code {
    RDKafkaRespErr::try_from(i32::from(number)).map_or(Code::Unknown, Code::from)
}

/// A broken connection as librdkafka would name it.
pub(super) fn code_of(e: &io::Error) -> Code {
    match e.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Code::OperationTimedOut,
        io::ErrorKind::Unsupported => Code::UnsupportedVersion,
        _ => Code::BrokerTransportFailure,
    }
}

/// What came is not Kafka's protocol.
pub(super) fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn versions_are_read_or_damage(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Versions::read(&bytes);
        }
    }

    #[test]
    fn versions_and_errors_are_the_protocols() {
        let answer = [&[0, 0, 0, 1, 0, 0, 0, 0, 0, 2][..], &[0, 0, 0, 3, 0, 13], &[0, 22, 0, 0, 0, 6]].concat();
        let versions = Versions::read(&answer).unwrap();
        assert_eq!((versions.of(0), versions.of(22), versions.of(1)), (Some((3, 13)), Some((0, 6)), None));
        assert_eq!(
            [code(0), code(6), code(47), code(90)],
            [Code::NoError, Code::NotLeaderForPartition, Code::InvalidProducerEpoch, Code::ProducerFenced]
        );
        assert_eq!((code(-1), code(30_000)), (Code::Unknown, Code::Unknown));
    }
}
