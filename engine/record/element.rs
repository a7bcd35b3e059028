//! The element: what a channel carries, in order.
//!
//! Invariant: after `Barrier{epoch}` come only rows of later epochs; after `Watermark(t)` a row `<= t` is late; after `End`
//! come only barriers: a task whose input has ended goes on passing them until the last one.

use super::BatchBox;
use crate::time::EventTime;
use serde::{Deserialize, Serialize};

/// What lies between two barriers; grows by one within a lineage, starting at 1.
pub type Epoch = u64;

/// Why a barrier flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BarrierKind {
    /// Automatic, retained n.
    Checkpoint,
    /// Named and kept; the job goes on.
    Savepoint,
    /// The last one before a graceful stop: sources emit nothing after it; the job resumes exactly here.
    Stop,
    /// The last one of a bounded job: comes after every input has ended and every window has fired.
    Final,
}

impl BarrierKind {
    /// Whether tasks end after it.
    pub fn is_last(self) -> bool {
        matches!(self, BarrierKind::Stop | BarrierKind::Final)
    }
}

/// Cuts the stream into epochs (Chandy-Lamport, aligned).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Barrier {
    /// The epoch that ends here.
    pub epoch: Epoch,
    /// Why.
    pub kind: BarrierKind,
}

/// One thing in a channel.
pub enum Element {
    /// Rows.
    Batch(BatchBox),
    /// No row at or before this time is expected any more from this channel.
    Watermark(EventTime),
    /// This channel holds no watermark back until its next batch or watermark.
    Idle,
    /// An epoch ends.
    Barrier(Barrier),
    /// The input is complete. Preceded by `Watermark(EventTime::MAX)`; only barriers follow, so that checkpoints go on while
    /// other inputs still run.
    End,
}

impl std::fmt::Debug for Element {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Element::Batch(b) => write!(f, "Batch({} x {})", b.len(), b.type_name()),
            Element::Watermark(t) => write!(f, "Watermark({})", t.0),
            Element::Idle => write!(f, "Idle"),
            Element::Barrier(b) => write!(f, "Barrier({} {:?})", b.epoch, b.kind),
            Element::End => write!(f, "End"),
        }
    }
}
