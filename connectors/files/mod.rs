//! Files: JSON lines and CSV in and out, in one folder or in folders named after values.
//!
//! Invariant: a record is a line; its offset is the byte where the line begins.

mod lane;
mod parts;
mod sink;
mod source;

pub use sink::{Commit, FilesSink, Ripe, Rolling};
pub use source::FilesSource;
