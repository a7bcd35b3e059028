//! The graph: what a job is, before it runs.
//!
//! The DSL (and SQL) draw a logical graph of operators; the planner turns it into a [`PhysicalPlan`] of chains and edges;
//! `explain` says what it will do, what it costs and what it promises.
//!
//! Invariant: nothing here runs or connects; planning the same graph twice gives the same plan.

mod explain;
mod ids;
mod logical;
mod note;
mod physical;
mod planner;

#[cfg(test)]
mod tests;

pub use explain::{Explain, ExplainedInput, ExplainedOperator, Promise, explain};
pub use logical::{
    DEFAULT_MAX_PARALLELISM, DeadLetters, Input, LogicalGraph, LogicalNode, NEW_TOPIC_PARTITIONS, NoTopics, NodeIndex, ReadAs, Role,
    SinkRef, SourceFactory, SourceNode, TopicRequest, TopicSinks,
};
pub use note::{Bound, EqualityClass, NodeNote, StateNote};
pub use physical::{Chain, Edge, Entry, NodeKind, PhysicalPlan, PlanNode, PlanTarget, Routing, SinkSpec, SourceSpec};
pub use planner::plan;
