//! A change as a row of a stream: of a table, or of a result that is kept up to date.
//!
//! Between tables a change travels as `(key, Some(new value))` or `(key, None)`: one row, so an update is never torn in two,
//! and repeating it changes nothing. Where a table becomes a stream, its changes have kinds, old values included.
//!
//! Invariant: the sum of the changes so far, what was given less what was taken back, is the table.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What a change says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RowKind {
    /// `+I`: a key that had no value has one.
    Insert,
    /// `-U`: the value that an update replaces; the new one follows at once.
    UpdateBefore,
    /// `+U`: the value that an update brings.
    UpdateAfter,
    /// `-D`: a key has lost its value, this one.
    Delete,
}

impl RowKind {
    /// Whether the value is there from now on; else it is no more.
    pub fn is_addition(self) -> bool {
        matches!(self, RowKind::Insert | RowKind::UpdateAfter)
    }

    /// +1 where the row is given, -1 where it is taken back.
    ///
    /// ```
    /// use waterwheel_engine::record::RowKind;
    /// assert_eq!([RowKind::UpdateBefore.weight(), RowKind::UpdateAfter.weight()], [-1, 1]);
    /// ```
    pub fn weight(self) -> i64 {
        if self.is_addition() { 1 } else { -1 }
    }

    /// The short form that people know: `+I`, `-U`, `+U`, `-D`.
    pub fn short(self) -> &'static str {
        match self {
            RowKind::Insert => "+I",
            RowKind::UpdateBefore => "-U",
            RowKind::UpdateAfter => "+U",
            RowKind::Delete => "-D",
        }
    }
}

impl fmt::Display for RowKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

/// One change, and the row that is given or taken back.
///
/// ```
/// use waterwheel_engine::record::{Change, RowKind};
/// let change = Change { kind: RowKind::UpdateAfter, row: ("de", 84) };
/// assert!(change.kind.is_addition());
/// assert_eq!(change.kind.to_string(), "+U");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Change<T> {
    /// What it says.
    pub kind: RowKind,
    /// Of which row.
    pub row: T,
}
