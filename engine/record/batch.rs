//! The batch: the unit of everything that flows.
//!
//! Invariant: an operator that knows the type takes the batch apart with [`downcast`]; one that does not (exchange, gate,
//! task) uses only this trait.

use super::{Keys, Origins};
use crate::time::EventTime;
use std::any::Any;

/// A batch behind its trait.
pub type BatchBox = Box<dyn Batch>;

/// Some thousand rows of one type, with their event times; object-safe, so that channels and tasks carry any kind.
///
/// Implementations: [`Rows<T>`](super::Rows) (the typed DSL), [`ChangeBatch`](super::ChangeBatch) (columns; SQL),
/// [`RawBatch`](super::RawBatch) (records as bytes, from and to connectors), [`FileRows`](super::FileRows) (columns, from and to
/// connectors of columnar files).
pub trait Batch: Any + Send {
    /// Rows.
    fn len(&self) -> usize;
    /// Approximate heap bytes, for queue bounds and budgets.
    fn bytes(&self) -> usize;
    /// Event time of each row.
    fn times(&self) -> &[EventTime];
    /// Canonical keys, one a row; absent before `key_by`.
    fn keys(&self) -> Option<&Keys>;
    /// Where each row came from; absent when nobody asked for dead letters.
    fn origins(&self) -> Option<&Origins>;
    /// Deals the rows out: row `i` goes to part `targets[i]`, order kept. Returns `parts` batches, empty ones included.
    fn scatter(self: Box<Self>, targets: &[u32], parts: usize) -> Vec<BatchBox>;
    /// A copy, for a fan-out to several consumers.
    fn clone_batch(&self) -> BatchBox;
    /// For [`downcast`].
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
    /// For peeking without taking.
    fn as_any(&self) -> &dyn Any;
    /// The row type, for messages.
    fn type_name(&self) -> &'static str;

    /// Rows that it stands for, to be counted: more than [`len`](Self::len) where some are put together.
    fn counted(&self) -> usize {
        self.len()
    }

    /// No rows.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Takes a batch apart as the concrete type the plan promises.
///
/// # Panics
/// When the batch is of another type. The planner connects only ports of equal types, so this is a bug, never data.
pub fn downcast<B: Batch>(batch: BatchBox) -> B {
    let got = batch.type_name();
    match batch.into_any().downcast::<B>() {
        Ok(b) => *b,
        Err(_) => panic!("plan bug: expected a batch of {}, got {got}", std::any::type_name::<B>()),
    }
}
