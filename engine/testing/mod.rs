//! Tools to test operators and whole jobs without a broker, threads or real time.
//!
//! Invariant: nothing here is used by a running job; it is compiled for tests and with the feature `testing` only.

mod harness;
mod sim_calls;
mod sim_env;
mod sim_job;

pub use harness::{Harness, Mode, Step};
pub use sim_env::SimMachine;
pub use sim_job::{SimJob, Trace};
