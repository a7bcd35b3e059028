//! The engine of Waterwheel.
//!
//! Layers look down only: `time`, `record`, `env`, `observe` below; then `state` and `exchange`; then `operators`,
//! `windowing`, `graph`, `dsl` and `checkpoint`, `runtime`, `testing`. `ARCHITECTURE.md` walks a record through them.

pub mod checkpoint;
pub mod dsl;
pub mod env;
pub mod error;
pub mod exchange;
pub mod graph;
pub mod observe;
pub mod operators;
pub mod record;
pub mod runtime;
pub mod state;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod time;
pub mod windowing;
