//! What happens to a row that fails: fail, drop or dead-letter, decided per source and inherited downstream.
//!
//! Invariant: rows in = rows out + counted late + dropped + dead-lettered; a poison row never loops, because under `fail` the
//! job stops with its place instead of restarting into it again.

use serde::{Deserialize, Serialize};

/// The policy for a record that cannot be decoded or whose user function fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ErrorPolicy {
    /// The job stops, naming the record.
    #[default]
    Fail,
    /// The record is counted and dropped.
    Drop,
    /// The record goes, with its bytes and its place, to the dead-letter topic of its source, in the same epoch.
    DeadLetter,
}

/// Of a longer reason, so many bytes of its beginning and of its end are kept.
const KEPT: (usize, usize) = (400, 200);

/// A reason that is short whatever the record holds: a value of a megabyte that does not fit would come back in it, and with it in
/// the header of a dead letter, which no topic would take then.
pub fn shortened(reason: String) -> String {
    let (head, tail) = KEPT;
    if reason.len() <= head + tail + " ... ".len() {
        return reason;
    }
    let (head, tail) = (reason.floor_char_boundary(head), reason.ceil_char_boundary(reason.len() - tail));
    format!("{} ... {}", &reason[..head], &reason[tail..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_short_whatever_is_in_them() {
        for length in [0, 1, 200, 599, 605, 606, 1_000, 1_000_000] {
            for letter in ["x", "\u{e9}", "\u{1f600}"] {
                let reason = format!("wrong: {}!", letter.repeat(length));
                let shown = shortened(reason.clone());
                assert!(shown == reason || shown.len() <= 605 && shown.starts_with("wrong: ") && shown.ends_with('!'), "{shown}");
                assert!(shown == reason || reason.len() > 605);
            }
        }
    }
}
