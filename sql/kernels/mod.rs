//! Leaf kernels: what looks inside the rows that the engine's operators move, key and keep.
//!
//! Invariant: no kernel keeps anything between batches; state is the engine's.

pub(crate) mod aggregate;
mod arrivals;
pub(crate) mod building;
pub(crate) mod calc;
mod common;
pub(crate) mod condition;
pub(crate) mod decimal;
mod distinct;
pub(crate) mod expand;
pub(crate) mod explode;
pub(crate) mod group;
pub(crate) mod keys;
mod moments;
mod nested;
pub(crate) mod newest;
pub(crate) mod over;
pub(crate) mod over_changes;
pub(crate) mod packed;
pub(crate) mod pairs;
pub(crate) mod pattern;
pub(crate) mod ranked;
pub(crate) mod value;
pub(crate) mod window;
pub(crate) mod window_rows;
