//! A connection to one broker: requests go out, their answers come in, in order.
//!
//! Invariant: an answer belongs to the oldest request that has none; a connection that broke is never used again.

use super::wire::Damaged;
use super::{Versions, damaged, put_api_versions};
use std::io::{self, BufWriter, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// Room taken for an answer before any of it has come: its length is not believed beyond this.
const ROOM: usize = 16 << 20;
/// Smaller pieces of a request are put together before they leave.
const GATHERED: usize = 32 << 10;

/// Where a broker is: host and port.
pub(in crate::kafka) type Address = (String, u16);

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(in crate::kafka) struct Timeouts {
    pub(in crate::kafka) connect: Duration,
    pub(in crate::kafka) answer: Duration,
}

pub(in crate::kafka) struct Connection {
    stream: TcpStream,
    /// Numbers of the request that left last, and of the one answered last.
    sent: i32,
    answered: i32,
    versions: Versions,
    out: Vec<u8>,
}

impl Connection {
    /// Connects and asks which versions the broker speaks. `opened` gets a handle by which the connection can be shut.
    ///
    /// # Errors
    /// Nobody answers there, or not as a broker does.
    pub(in crate::kafka) fn open(
        (host, port): &Address,
        client_id: &str,
        timeouts: Timeouts,
        opened: impl FnOnce(TcpStream),
    ) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in (host.as_str(), *port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, timeouts.connect) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    opened(stream.try_clone()?);
                    let fresh = Connection { stream, sent: 0, answered: 0, versions: Versions::default(), out: Vec::new() };
                    fresh.allow(timeouts.answer)?;
                    return fresh.greeted(client_id);
                }
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    fn greeted(mut self, client_id: &str) -> io::Result<Self> {
        self.send(|out, correlation| put_api_versions(out, correlation, client_id))?;
        let answer = self.answer(Vec::new())?;
        self.versions = Versions::read(&answer).map_err(|Damaged(why)| damaged(why))?;
        Ok(self)
    }

    /// What the broker speaks.
    pub(in crate::kafka) fn versions(&self) -> &Versions {
        &self.versions
    }

    /// How long a part of a request or of an answer may take from now on.
    ///
    /// # Errors
    /// Of the socket.
    pub(in crate::kafka) fn allow(&self, time: Duration) -> io::Result<()> {
        // Zero would mean for ever.
        let time = Some(time.max(Duration::from_millis(1)));
        self.stream.set_read_timeout(time)?;
        self.stream.set_write_timeout(time)
    }

    /// Whether the broker still holds its end. Only between an answer and the next request.
    pub(in crate::kafka) fn is_open(&self) -> bool {
        let peeked = self.stream.set_nonblocking(true).and_then(|()| self.stream.peek(&mut [0]));
        let is_quiet = peeked.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock);
        is_quiet && self.stream.set_nonblocking(false).is_ok()
    }

    /// Sends the request that `put` writes with the number it is given.
    ///
    /// # Errors
    /// The connection broke.
    pub(in crate::kafka) fn send(&mut self, put: impl FnOnce(&mut Vec<u8>, i32)) -> io::Result<()> {
        self.send_lent(|out, correlation| {
            put(out, correlation);
            Vec::new()
        })
    }

    /// As [`send`](Self::send); `put` gives pieces of the request that lie elsewhere, each with its place in what it wrote.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub(in crate::kafka) fn send_lent<'a>(&mut self, put: impl FnOnce(&mut Vec<u8>, i32) -> Vec<(usize, &'a [u8])>) -> io::Result<()> {
        self.sent = self.sent.wrapping_add(1);
        let lent = put(&mut self.out, self.sent);
        let mut stream = BufWriter::with_capacity(GATHERED, &self.stream);
        let mut write = || {
            let mut from = 0;
            for (at, piece) in &lent {
                stream.write_all(&self.out[from..*at])?;
                stream.write_all(piece)?;
                from = *at;
            }
            stream.write_all(&self.out[from..])?;
            stream.flush()
        };
        let written = write();
        // Else what is left would be tried once more.
        let _ = stream.into_parts();
        written
    }

    /// Waits for the answer to the oldest request that has none.
    ///
    /// # Errors
    /// The connection broke, or the broker did not answer in time.
    pub(in crate::kafka) fn answer(&mut self, mut into: Vec<u8>) -> io::Result<Vec<u8>> {
        self.answered = self.answered.wrapping_add(1);
        let mut len = [0; 4];
        self.stream.read_exact(&mut len)?;
        let len = usize::try_from(i32::from_be_bytes(len)).map_err(|_| damaged("an answer of a length below zero"))?;
        into.reserve(len.min(ROOM));
        (&self.stream).take(len as u64).read_to_end(&mut into)?;
        match into.get(..4) {
            Some(correlation) if into.len() == len && *correlation == self.answered.to_be_bytes() => Ok(into),
            Some(_) if into.len() == len => Err(damaged("an answer to another question")),
            _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the broker closed the connection")),
        }
    }
}
