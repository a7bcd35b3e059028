//! The end of a stream: what can still be said about a sink once it is drawn.
//!
//! Invariant: a handle only changes its own nodes; leaving it out changes nothing.

use super::job::Draw;
use crate::graph::{LogicalNode, NodeIndex, Role, SinkRef, TopicRequest};
use crate::operators::OperatorFactory;

/// A sink of a job.
pub struct SinkHandle {
    draw: Draw,
    sink: NodeIndex,
    encoder: Option<NodeIndex>,
}

impl SinkHandle {
    pub(super) fn new(draw: Draw, sink: NodeIndex, encoder: Option<NodeIndex>) -> Self {
        SinkHandle { draw, sink, encoder }
    }

    /// Stable id: what is not published yet is found by it, and transactional ids carry it. Derived from the sink's name
    /// unless given.
    pub fn id(self, id: &str) -> Self {
        self.change(|node| node.id = Some(id.to_string()))
    }

    /// Name for people.
    pub fn name(self, name: &str) -> Self {
        self.change(|node| node.name = Some(name.to_string()))
    }

    /// Number of writing tasks, in place of the job's. Rows are dealt out anew before them and may overtake each other.
    pub fn parallelism(self, tasks: u32) -> Self {
        if let Some(encoder) = self.encoder {
            self.draw.change(encoder, |node| node.parallelism = Some(tasks));
        }
        self.change(|node| node.parallelism = Some(tasks))
    }

    /// Changes the wish for a topic; nothing for other sinks.
    pub fn request(self, change: impl FnOnce(&mut TopicRequest)) -> Self {
        self.change(|node| {
            if let Role::Sink(SinkRef::Topic(request)) = &mut node.role {
                change(request);
            }
        })
    }

    /// Encodes rows differently: `factory` makes an operator from the stream's rows to `RawBatch`. Nothing for sinks that
    /// take rows as they are.
    pub fn encode_with(self, factory: OperatorFactory) -> Self {
        if let Some(encoder) = self.encoder {
            self.draw.change(encoder, |node| node.role = Role::Operator(factory));
        }
        self
    }

    fn change(self, change: impl FnOnce(&mut LogicalNode)) -> Self {
        self.draw.change(self.sink, change);
        self
    }
}
