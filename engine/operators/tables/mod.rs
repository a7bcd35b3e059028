//! Tables: the latest value of each key, and what can be computed from it.
//!
//! A table's changes are `Rows<(K, Option<V>)>` with their keys: `Some` sets, `None` removes. All operators here take and give
//! such changes, but for [`to_changes`] at the end, whose changes have kinds.
//!
//! Invariant (the class *converging*): after any batch, the changes that have left sum up to the result over the changes that
//! have come in, whatever the batches; no key is removed that had no value. A change for which a user function fails is
//! rejected and changes nothing, unless it says otherwise below.

mod changes;
mod foreign;
mod group;
mod join;
mod map;
mod suppress;
mod top_n;

pub use changes::to_changes;
pub use foreign::{Answer, Reference, answer, collect, refer};
pub use group::{Retract, Signed, aggregate_groups, regroup};
pub use join::{TableJoinKind, join_tables};
pub use map::map_table;
pub use suppress::{Suppress, suppress};
pub use top_n::{latest, top_n};

use crate::record::{Keys, Rows};

/// A batch of changes.
type Changes<K, V> = Rows<(K, Option<V>)>;

/// The keys of a batch of changes.
fn keys_of<T>(batch: &Rows<T>) -> &Keys {
    let Some(keys) = &batch.keys else { unreachable!("plan bug: a table's changes are keyed") };
    keys
}

#[cfg(test)]
mod tests;
