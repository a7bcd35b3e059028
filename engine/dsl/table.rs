//! `Table<K, V>`: the latest value of each key, and joins with it.
//!
//! Invariant: a table is read in up to where its topic ended when the job was first started, before any row of a stream
//! that joins it passes; from then on a row meets the table as it is when the row comes.

use super::source::SourceStream;
use super::stream::Stream;
use crate::graph::{Bound, EqualityClass, NodeNote, Routing, StateNote};
use crate::operators::{self, OperatorFactory};
use crate::record::{Data, Key, Str};
use crate::state::StateValue;
use std::marker::PhantomData;
use std::sync::Arc;

/// The latest value of each key, kept wherever a stream joins it. Made by [`SourceStream::table`].
///
/// ```
/// # use waterwheel_engine::dsl::{SourceStream, Stream};
/// # use serde::{Deserialize, Serialize};
/// #[derive(Clone, Serialize, Deserialize)]
/// struct Customer { account: String, limit: i64 }
///
/// #[derive(Clone)]
/// struct Payment { account: String, amount: i64 }
///
/// fn over_limit(payments: Stream<Payment>, customers: SourceStream<Customer>) -> Stream<Payment> {
///     let customers = customers.table(|c| c.account.clone());
///     payments
///         .join_table(&customers, |p| p.account.clone(), |p, c| (p.amount > c.map_or(0, |c| c.limit)).then_some(p))
///         .filter_map(|p| p)
/// }
/// ```
pub struct Table<K, V> {
    changes: Stream<(K, Option<V>)>,
    keys: PhantomData<fn() -> K>,
}

impl<K, V> Clone for Table<K, V> {
    /// Another handle of the same table.
    fn clone(&self) -> Self {
        Table { changes: self.changes.clone(), keys: PhantomData }
    }
}

impl<K, V> Table<K, V> {
    /// The rows that change it, keyed.
    pub(super) fn changes(&self) -> &Stream<(K, Option<V>)> {
        &self.changes
    }
}

/// A key that can be read from the key of a record, as text: what a record without a value (a tombstone) removes.
pub trait RecordKey: Key {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with the bytes, for a person.
    fn from_record(key: &[u8]) -> Result<Self, String>;
}

impl RecordKey for Vec<u8> {
    fn from_record(key: &[u8]) -> Result<Self, String> {
        Ok(key.to_vec())
    }
}

macro_rules! text_keys {
    ($($t:ty),*) => {$(
        impl RecordKey for $t {
            fn from_record(key: &[u8]) -> Result<Self, String> {
                let text = std::str::from_utf8(key).map_err(|_| "the key of the record is not UTF-8")?;
                text.parse().map_err(|e| format!("the key of the record does not fit: {e}"))
            }
        }
    )*};
}
text_keys!(String, Str, bool, u8, u16, u32, u64, u128, i8, i16, i32, i64, i128);

impl<V: Data> SourceStream<V> {
    /// Reads the source as a table: the latest value of each key. A record without a value removes the key that the
    /// record's own key names; for keys that are not read from text so simply see [`table_by`](Self::table_by).
    pub fn table<K: RecordKey>(self, key: impl Fn(&V) -> K + Send + Sync + 'static) -> Table<K, V> {
        self.table_by(key, K::from_record)
    }

    /// As [`table`](Self::table); `removed` reads the key of a record without a value.
    pub fn table_by<K: Key>(
        self,
        key: impl Fn(&V) -> K + Send + Sync + 'static,
        removed: impl Fn(&[u8]) -> Result<K, String> + Send + Sync + 'static,
    ) -> Table<K, V> {
        let changes = self.into_changes(Arc::new(key), Arc::new(removed));
        let note = NodeNote { glue: true, ..NodeNote::default() };
        let keyed = changes.add("key_by", operators::key_by(|(key, _): &(K, Option<V>)| key.clone()), &[], note);
        Table { changes: keyed.routed(Routing::KeyGroup), keys: PhantomData }
    }
}

impl<T: Data> Stream<T> {
    /// Looks the key of each row up in a table: every row becomes `join(row, entry)`, whether there is an entry or not.
    pub fn join_table<K: Key, V: Data + StateValue, R: Data>(
        &self,
        table: &Table<K, V>,
        key: impl Fn(&T) -> K + Send + Sync + 'static,
        join: impl Fn(T, Option<&V>) -> R + Send + Sync + 'static,
    ) -> Stream<R> {
        self.lookup(table, key, operators::left_join_table::<K, T, V, R>(join))
    }

    /// As [`join_table`](Self::join_table); rows without an entry are left out.
    pub fn inner_join_table<K: Key, V: Data + StateValue, R: Data>(
        &self,
        table: &Table<K, V>,
        key: impl Fn(&T) -> K + Send + Sync + 'static,
        join: impl Fn(T, &V) -> R + Send + Sync + 'static,
    ) -> Stream<R> {
        self.lookup(table, key, operators::join_table::<K, T, V, R>(join))
    }

    fn lookup<K: Key, V: Data, R: Data>(
        &self,
        table: &Table<K, V>,
        key: impl Fn(&T) -> K + Send + Sync + 'static,
        factory: OperatorFactory,
    ) -> Stream<R> {
        let name = table.changes.origin_name();
        let note = NodeNote {
            detail: format!("with {name}"),
            state: vec![StateNote { what: format!("1 row a key of {name}"), bound: Bound::Unbounded }],
            class: vec![(EqualityClass::TimeDependent, "latest-value join".into())],
            glue: false,
        };
        let keyed = self.key_by(key);
        keyed.stream().add("join_table", factory, &keyed.stream().meets(&table.changes), note)
    }
}
