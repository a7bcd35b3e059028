//! Tests of checkpoints as a whole: a model of the outside, and crashes at every call into it.

mod coordinator;
mod disk;
mod exactly_once;
mod job;
mod log;
mod noise;
mod parts;
mod storage;
mod topic;
