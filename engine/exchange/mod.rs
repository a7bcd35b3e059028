//! How elements get from task to task within a process.
//!
//! One [`Sender`]/[`Receiver`] pair per (upstream task, downstream task, input); an [`Edge`] routes over the senders, a
//! [`Gate`] makes one ordered stream of the receivers.
//!
//! Invariant: a channel keeps order, loses nothing, and is bounded in bytes; nobody blocks a thread on it. A sender looks for
//! room before its task steps and may overshoot by that one step.

mod channel;
mod edge;
mod gate;

pub use channel::{Receiver, Sender, Waker, channel};
pub use edge::{Edge, Routing};
pub use gate::{Gate, Gated, InStep};

use crate::record::Element;

/// Takes elements that leave a task; [`Edge`] is the real one, the harness has one that collects.
pub trait EdgeSender: Send {
    /// Routes one element; batches are scattered, all else goes to every channel. Never blocks.
    fn send(&mut self, element: Element);
    /// Whether every channel has room for another step's results.
    fn has_room(&self) -> bool;
}
