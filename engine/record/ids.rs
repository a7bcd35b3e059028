//! Stable names: what state, metrics and errors are filed under.
//!
//! Invariant: an operator id is unique in a job and stable across versions of it; state is matched by it.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// The stable name of an operator: given by `.id("...")`, else derived from kind and position.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OperatorId(pub Arc<str>);

impl OperatorId {
    /// From a name.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        OperatorId(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OperatorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for OperatorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// One parallel instance of an operator chain: the chain's head operator and the instance's index.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId {
    /// The first operator of the chain.
    pub head: OperatorId,
    /// 0-based index among `parallelism` instances.
    pub index: u32,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.head, self.index)
    }
}
