//! The graph: what a job is, before it runs.
//!
//! The DSL (and SQL) draw a logical graph of operators; the planner turns it into a [`PhysicalPlan`] of chains and edges;
//! `explain` says what it will do, what it costs and what it promises.
//!
//! Invariant: nothing here runs or connects; planning the same graph twice gives the same plan.

mod physical;

pub use physical::{Chain, Edge, NodeKind, PhysicalPlan, PlanNode, PlanTarget, Routing, SinkSpec, SourceSpec};
