//! Files: JSON lines, CSV and, with the feature `parquet`, rows in columns, in and out, in one folder or in folders named after
//! values.
//!
//! Invariant: where files are of lines, a record is a line, and its offset is the byte where the line begins.

mod lane;
mod listing;
#[cfg(feature = "parquet")]
pub mod parquet;
mod parts;
mod sink;
mod source;

pub use sink::{Commit, FilesSink, Ripe, Rolling};
pub use source::FilesSource;
