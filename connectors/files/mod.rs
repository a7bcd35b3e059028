//! Files: JSON lines and CSV in, JSON lines out.
//!
//! Invariant: a record is a line; its offset is the byte where the line begins.

mod sink;
mod source;

pub use sink::FilesSink;
pub use source::FilesSource;
