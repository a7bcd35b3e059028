//! One file a command.

pub(crate) mod consume;
pub(crate) mod produce;
pub(crate) mod savepoint;
pub(crate) mod shell;
pub(crate) mod sql;
pub(crate) mod topic;
