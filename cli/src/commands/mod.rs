//! One file a command.

pub(crate) mod consume;
pub(crate) mod produce;
pub(crate) mod savepoint;
pub(crate) mod topic;
