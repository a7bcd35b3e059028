//! Tools to test operators and whole jobs without a broker, threads or real time.
//!
//! [`Harness`] feeds one operator by hand. [`SimJob`] runs a whole job on a [`SimMachine`], against a [`SimBroker`], a step at a
//! time under a seed; what the simulator checks and how to repeat it is in `docs/correctness.md`.
//!
//! Invariant: nothing here is used by a running job; it is compiled for tests and with the feature `testing` only.

mod harness;
mod sim_broker;
mod sim_calls;
mod sim_client;
mod sim_disk;
mod sim_env;
mod sim_job;
mod sim_objects;
mod sim_store;
pub(crate) mod storage;

pub use harness::{Harness, Mode, Step};
pub use sim_broker::{BrokerFault, SimBroker, SimRecord};
pub use sim_client::{SimLane, SimSource};
pub use sim_disk::DiskFault;
pub use sim_env::SimMachine;
pub use sim_job::{SimJob, Trace};
pub use sim_objects::{SimObjects, StoreFault};
pub use storage::{StorageStep, storage_conforms};
