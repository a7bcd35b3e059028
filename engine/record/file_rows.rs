//! Rows of one file in columns, or rows for the files of one folder: what connectors of columnar files hand over and take.
//!
//! Read, the path is that of the file below the source's folder. To be written, it is the folder below the sink's (empty: the
//! sink's own), and the rows' times are the time that this folder is judged by.
//!
//! Invariant: all rows are of one path; those that were read follow each other in their file.

use super::{Batch, BatchBox, ChangeBatch, Keys, Origins};
use crate::time::EventTime;
use std::any::Any;
use std::sync::Arc;

/// Rows and the path that they are of.
#[derive(Debug, Clone)]
pub struct FileRows {
    /// File or folder.
    pub path: Arc<str>,
    /// Number of the first row in the file; 0 where rows are to be written.
    pub first: i64,
    /// The rows: inserts, all of them.
    pub rows: ChangeBatch,
}

impl Batch for FileRows {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn bytes(&self) -> usize {
        self.rows.bytes()
    }

    fn times(&self) -> &[EventTime] {
        self.rows.times()
    }

    fn keys(&self) -> Option<&Keys> {
        None
    }

    fn origins(&self) -> Option<&Origins> {
        None
    }

    fn scatter(self: Box<Self>, targets: &[u32], parts: usize) -> Vec<BatchBox> {
        let FileRows { path, first, rows } = *self;
        let of_path = |part: BatchBox| Box::new(FileRows { path: path.clone(), first, rows: super::downcast(part) }) as BatchBox;
        Box::new(rows).scatter(targets, parts).into_iter().map(of_path).collect()
    }

    fn clone_batch(&self) -> BatchBox {
        Box::new(self.clone())
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn type_name(&self) -> &'static str {
        std::any::type_name::<Self>()
    }
}
