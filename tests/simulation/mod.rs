//! Whole jobs under a seed: the slice that every test run takes. See `docs/correctness.md`.
//!
//! Invariant: a seed that fails here fails again with `cargo run --example simulate -- --seed SEED`.

#![cfg_attr(test, allow(dead_code, reason = "the program, made of the same modules, uses the rest"))]

pub(crate) mod fault;
mod files;
mod graph;
mod input;
pub(crate) mod workloads;
pub(crate) mod world;

#[cfg(test)]
mod compaction;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod seam;
#[cfg(test)]
mod slice;
