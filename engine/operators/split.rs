//! `split`: deals rows out to side outputs.
//!
//! Invariant: each row leaves by exactly one port, order kept per port; rows are moved, never cloned.

use super::guarded::guarded;
use super::{Operator, OperatorFactory, Output, Port};
use crate::error::Result;
use crate::record::{Batch, BatchBox, Data, Rows, downcast};
use std::marker::PhantomData;
use std::sync::Arc;

/// Sends each row to the port that `f` names, below `ports`. A row for which `f` panics or names another port is rejected.
pub fn split<T: Data>(ports: usize, f: impl Fn(&T) -> Port + Send + Sync + 'static) -> OperatorFactory {
    let f = Arc::new(f);
    Arc::new(move || Box::new(SplitBy { ports, f: f.clone(), types: PhantomData }))
}

struct SplitBy<F, T> {
    ports: usize,
    f: Arc<F>,
    types: PhantomData<fn(T)>,
}

impl<T: Data, F: Fn(&T) -> Port + Send + Sync + 'static> Operator for SplitBy<F, T> {
    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let batch = downcast::<Rows<T>>(batch);
        let n = batch.rows.len();
        let mut targets: Vec<u32> = Vec::with_capacity(n);
        let each = |targets: &mut Vec<u32>, i: usize| {
            let port = (self.f)(&batch.rows[i]);
            if port >= self.ports {
                return Err(format!("split function names port {port}, there are {}", self.ports));
            }
            targets.push(port as u32);
            Ok(())
        };
        guarded(n, &mut targets, each, |targets, i, error| {
            targets.push(self.ports as u32); // one part more than there are ports: dropped below
            out.reject(batch.origin(i), batch.times[i], error)
        })?;
        let parts = Box::new(batch).scatter(&targets, self.ports + 1);
        for (port, part) in parts.into_iter().take(self.ports).enumerate() {
            out.emit_to(port, part)?;
        }
        Ok(())
    }
}
