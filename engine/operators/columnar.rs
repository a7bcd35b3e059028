//! Operators without state over columns: `columns` (compute, leave out, multiply rows) and `key_columns`.
//!
//! Invariant: what looks inside a row is the kernel, called once a batch; a row that it refuses is rejected by the policy of
//! its source, and the other rows of the batch go on.

use super::{OpenContext, Operator, OperatorFactory, Output};
use crate::error::Result;
use crate::record::{BatchBox, ChangeBatch, Keys, downcast};
use std::sync::Arc;

/// Row of the batch that was given, and why it fails.
pub type RowError = (usize, String);

/// Makes changes of changes, row by row in effect: the result for a batch is the result for its rows, one after the other.
pub trait ColumnKernel: Send {
    /// The changes that follow from these. Rows that cannot be processed are pushed to `failed`, in order.
    ///
    /// # Errors
    /// Stops the task; never for the sake of a single row.
    fn apply(&mut self, batch: &ChangeBatch, failed: &mut Vec<RowError>) -> Result<ChangeBatch>;
}

/// Makes one kernel a task.
pub type ColumnKernelFactory = Arc<dyn Fn() -> Result<Box<dyn ColumnKernel>> + Send + Sync>;

/// Computes batches of columns from batches of columns. The order of rows stays.
pub fn columns(make: ColumnKernelFactory) -> OperatorFactory {
    Arc::new(move || Box::new(Columns { make: make.clone(), kernel: None }))
}

struct Columns {
    make: ColumnKernelFactory,
    kernel: Option<Box<dyn ColumnKernel>>,
}

impl Operator for Columns {
    fn open(&mut self, _context: &OpenContext) -> Result<()> {
        self.kernel = Some((self.make)()?);
        Ok(())
    }

    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let batch = downcast::<ChangeBatch>(batch);
        let Some(kernel) = &mut self.kernel else { unreachable!("an operator is opened before it is used") };
        let mut failed = Vec::new();
        let result = kernel.apply(&batch, &mut failed)?;
        for (row, error) in failed {
            out.reject(batch.origin(row), batch.times[row], error)?;
        }
        out.emit(result.boxed())
    }
}

/// The canonical key of each row.
pub trait KeyKernel: Send + Sync {
    /// Keys of all rows.
    ///
    /// # Errors
    /// Stops the task: columns of another type than planned.
    fn keys(&self, batch: &ChangeBatch) -> Result<Keys>;
}

/// Gives each row its key; the rows stay what they are.
pub fn key_columns(kernel: Arc<dyn KeyKernel>) -> OperatorFactory {
    Arc::new(move || Box::new(KeyColumns(kernel.clone())))
}

struct KeyColumns(Arc<dyn KeyKernel>);

impl Operator for KeyColumns {
    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let mut batch = downcast::<ChangeBatch>(batch);
        batch.keys = Some(self.0.keys(&batch)?);
        out.emit(batch.boxed())
    }
}
