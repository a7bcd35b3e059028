//! Where records come from: the own fetcher on plain connections, librdkafka on all others.
//!
//! librdkafka's cost is per message, 0.3 us and more; the own fetcher's is per answer of half a megabyte. It speaks Fetch and
//! nothing else: who leads a partition is asked of librdkafka, which also keeps encrypted and authenticated connections, old
//! brokers and old record formats. Both hand out the same [`Fetched`], and a reader does not know which it has.
//!
//! | file | what it is |
//! |---|---|
//! | `fetcher` | the partitions of a reader, a thread a broker, answers into queues |
//! | `request` | what is asked and answered |
//! | `records` | record batches |
//! | `pool` | buffers used again |
//! | `native` | librdkafka's queues |
//!
//! Invariant: only committed records come out, in order, each once; what a partition hands out begins where it was assigned.

mod fetcher;
mod native;
mod pool;
mod records;
mod request;

pub(super) use fetcher::{Assigned, Fetcher};
pub(super) use native::PartitionQueue;
#[cfg(test)]
pub(super) use records::{Records, walk};

use bytes::Bytes;
use rdkafka::types::RDKafkaErrorCode as Code;
use std::sync::Arc;
use waterwheel_engine::record::Logged;

/// Called when an empty queue gets something; must not call back.
pub(super) type Wake = Arc<dyn Fn() + Send + Sync>;

/// A record, borrowed from where it was read.
pub(super) struct Record<'a> {
    pub(super) offset: i64,
    /// Milliseconds; -1 = none.
    pub(super) timestamp: i64,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    /// As [`RawBatch::encode_header`](waterwheel_engine::record::RawBatch::encode_header) writes them.
    pub(super) headers: &'a [u8],
    pub(super) logged: Logged,
    /// What key and value lie in, where that may be kept instead of copying them.
    pub(super) lender: Option<&'a Bytes>,
}

/// One thing from a partition.
pub(super) enum Fetched<'a> {
    Record(Record<'a>),
    /// Everything before this offset has come or never will (aborted, control records).
    End(i64),
    /// Reading this partition failed.
    Failed(Code, String),
}

/// The records of one assigned partition.
pub(super) enum Feed {
    Own(Assigned),
    Native(PartitionQueue),
}

impl Feed {
    /// Hands out up to `limit` things that are there already; never waits. Fewer than `limit` means that there are no more.
    pub(super) fn take(&mut self, limit: usize, each: impl FnMut(Fetched<'_>)) -> usize {
        match self {
            Feed::Own(assigned) => assigned.take(limit, each),
            Feed::Native(queue) => queue.take(limit, each),
        }
    }
}
