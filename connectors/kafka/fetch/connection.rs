//! A connection to one broker: a request goes out, its answer comes in, one at a time.
//!
//! Invariant: an answer belongs to the request before it; a connection that broke is never used again.

use super::pool::Pool;
use super::request::{self, Ask, Limits};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// Room taken for an answer before any of it has come: its length is not believed beyond this.
const ROOM: usize = 16 << 20;

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    pub(super) connect: Duration,
    pub(super) answer: Duration,
}

pub(super) struct Connection {
    stream: TcpStream,
    correlation: i32,
    /// The highest version of Fetch that the broker speaks; -1 = none.
    pub(super) highest: i16,
    out: Vec<u8>,
}

impl Connection {
    /// Connects and asks which versions the broker speaks. `opened` gets a handle by which the connection can be shut.
    ///
    /// # Errors
    /// Nobody answers there, or not as a broker does.
    pub(super) fn open(
        (host, port): &(String, u16),
        client_id: &str,
        timeouts: Timeouts,
        opened: impl FnOnce(TcpStream),
    ) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in (host.as_str(), *port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, timeouts.connect) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(timeouts.answer))?;
                    stream.set_write_timeout(Some(timeouts.answer))?;
                    opened(stream.try_clone()?);
                    return Connection { stream, correlation: 0, highest: -1, out: Vec::new() }.greeted(client_id);
                }
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    fn greeted(mut self, client_id: &str) -> io::Result<Self> {
        self.correlation += 1;
        request::put_api_versions(&mut self.out, self.correlation, client_id);
        self.stream.write_all(&self.out)?;
        let answer = self.answer(Vec::new())?;
        let versions = request::fetch_versions(&answer).map_err(|e| damaged(&e.to_string()))?;
        self.highest = versions.filter(|(lowest, _)| *lowest <= request::BY_NAME).map_or(-1, |(_, highest)| highest);
        Ok(self)
    }

    /// Asks, and waits for the answer's bytes.
    ///
    /// # Errors
    /// The connection broke, or the broker did not answer in time.
    pub(super) fn fetch(&mut self, version: i16, limits: &Limits, wait_ms: i32, asks: &[Ask], pool: &Pool) -> io::Result<Vec<u8>> {
        self.correlation = self.correlation.wrapping_add(1);
        request::put_fetch(&mut self.out, self.correlation, version, limits, wait_ms, asks);
        self.stream.write_all(&self.out)?;
        self.answer(pool.take())
    }

    fn answer(&mut self, mut into: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut len = [0; 4];
        self.stream.read_exact(&mut len)?;
        let len = usize::try_from(i32::from_be_bytes(len)).map_err(|_| damaged("an answer of a length below zero"))?;
        into.reserve(len.min(ROOM));
        (&self.stream).take(len as u64).read_to_end(&mut into)?;
        match into.get(..4) {
            Some(correlation) if into.len() == len && *correlation == self.correlation.to_be_bytes() => Ok(into),
            Some(_) if into.len() == len => Err(damaged("an answer to another question")),
            _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the broker closed the connection")),
        }
    }
}

/// What came is not Kafka's protocol.
pub(super) fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}
