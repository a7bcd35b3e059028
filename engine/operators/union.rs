//! `union`: several inputs of one row type become one stream.
//!
//! Invariant: batches pass untouched, in the order in which the gate hands them over; the watermark is the gate's minimum. A
//! union is the head of its task, because only the gate merges inputs.

use super::{Operator, OperatorFactory, Output};
use crate::error::Result;
use crate::record::BatchBox;
use std::sync::Arc;

/// Passes everything on, whichever input it came from.
pub fn union() -> OperatorFactory {
    Arc::new(|| Box::new(Union))
}

struct Union;

impl Operator for Union {
    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        out.emit(batch)
    }
}
