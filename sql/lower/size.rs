//! How large state is, for `EXPLAIN`: an estimate from types alone, before a row has come.
//!
//! Invariant: an estimate is of one row as it is kept, with what leads to it; it never looks at data, so a plan is always told
//! the same.

use super::join::Joined;
use crate::kernels::packed::about_bytes;
use datafusion_common::DFSchema;
use waterwheel_engine::operators::joins::{LEFT, RIGHT};

/// What leads to a kept row: its place in a table, its key's hash, its time.
const ENTRY: usize = 24;

/// Bytes of a row of these columns as it is kept.
pub(super) fn about(schema: &DFSchema) -> usize {
    about_bytes(schema.fields().iter().map(|field| field.data_type())) + ENTRY
}

/// `, about 64 B each`
pub(super) fn each(schema: &DFSchema) -> String {
    format!(", about {} B each", about(schema))
}

/// `about 64 and 48 B each`
pub(super) fn of_sides(joined: &Joined) -> String {
    let [left, right] = [LEFT, RIGHT].map(|side| about(&joined.sides[side].schema));
    format!("about {left} and {right} B each")
}
