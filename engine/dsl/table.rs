//! `Table<K, V>`: the latest value of each key, what can be computed from it, and joins with it.
//!
//! Invariant: a table is read in up to where its topic ended when the job was first started, before any row of a stream
//! that joins it passes; from then on a row meets the table as it is when the row comes. Changes of one key travel in order,
//! with their keys beside them; only operators that keep state have them dealt out by key.

use super::keyed::KeyedStream;
use super::source::SourceStream;
use super::stream::Stream;
use crate::error::Error;
use crate::graph::{Bound, EqualityClass, NodeNote, Routing, StateNote};
use crate::observe::human_duration;
use crate::operators::tables::{self, Answer, Reference, Retract, Signed, Suppress, TableJoinKind};
use crate::operators::{self, OperatorFactory, joins};
use crate::record::{Change, Data, Key, Str};
use crate::state::StateValue;
use std::cmp::Ordering;
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

/// A key that can be read from the key of a record, as text, and written as one: what a record without a value (a tombstone)
/// removes.
pub trait RecordKey: Key {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with the bytes, for a person.
    fn from_record(key: &[u8]) -> Result<Self, String>;
    /// Writes it, so that it is read back the same.
    fn to_record(&self) -> Vec<u8>;
}

impl RecordKey for Vec<u8> {
    fn from_record(key: &[u8]) -> Result<Self, String> {
        Ok(key.to_vec())
    }
    fn to_record(&self) -> Vec<u8> {
        self.clone()
    }
}

macro_rules! text_keys {
    ($($t:ty),*) => {$(
        impl RecordKey for $t {
            fn from_record(key: &[u8]) -> Result<Self, String> {
                let text = std::str::from_utf8(key).map_err(|_| "the key of the record is not UTF-8")?;
                text.parse().map_err(|e| format!("the key of the record does not fit: {e}"))
            }
            fn to_record(&self) -> Vec<u8> {
                self.to_string().into_bytes()
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
        changes.changes_to_table()
    }
}

impl<K: Key, V: Data> Stream<(K, V)> {
    /// The newest value of each key as a table: what a running aggregate gives.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::{KeyedStream, Table};
    /// # fn example(amounts: KeyedStream<String, i64>) {
    /// let totals: Table<String, i64> = amounts.aggregate(|| 0, |sum, amount| *sum += amount).to_table();
    /// # let _ = totals;
    /// # }
    /// ```
    pub fn to_table(&self) -> Table<K, V> {
        let set: Stream<(K, Option<V>)> = self.add("to_table", operators::map(|(key, value): (K, V)| (key, Some(value))), &[], glue());
        set.changes_to_table()
    }
}

impl<K: Key, V: Data> Stream<(K, Option<V>)> {
    /// Changes as a table: the newest of each key counts, `None` removes it.
    pub fn changes_to_table(&self) -> Table<K, V> {
        let keyed = self.add("key_by", operators::key_by(|(key, _): &(K, Option<V>)| key.clone()), &[], glue());
        Table::of(keyed)
    }
}

impl<K: Key, T: Data> KeyedStream<K, T> {
    /// The newest row of each key, in the order of arrival, as a table.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::{KeyedStream, Table};
    /// # fn example(positions: KeyedStream<String, (f64, f64)>) {
    /// let whereabouts: Table<String, (f64, f64)> = positions.latest();
    /// # let _ = whereabouts;
    /// # }
    /// ```
    pub fn latest(&self) -> Table<K, T> {
        // Keys stay beside the rows, so nothing is dealt out here.
        Table::of(self.stream().routed(Routing::Forward).add("latest", tables::latest::<K, T>(), &[], NodeNote::default()))
    }

    /// The first `n` rows of each key in an order, of all that have come so far, as a table by key and rank (from 1). Equal
    /// rows rank in the order of arrival.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::{KeyedStream, Table};
    /// # fn example(bids: KeyedStream<u64, i64>) {
    /// let highest: Table<(u64, u32), i64> = bids.top_n(3, |a, b| b.cmp(a));
    /// # let _ = highest;
    /// # }
    /// ```
    pub fn top_n(&self, n: usize, order: impl Fn(&T, &T) -> Ordering + Send + Sync + 'static) -> Table<(K, u32), T>
    where
        T: StateValue,
    {
        if n == 0 {
            self.stream().draw().problem(Error::fatal("a top-n of no rows").help("ask for at least 1"));
        }
        Table::of(self.stream().add("top_n", tables::top_n::<K, T>(n, order), &[], keeps(format!("{n} rows"), format!("{n} rows a key"))))
    }
}

fn glue() -> NodeNote {
    NodeNote { glue: true, ..NodeNote::default() }
}

/// Says what a stateful operator over tables keeps.
fn keeps(detail: String, what: String) -> NodeNote {
    NodeNote {
        detail,
        state: vec![StateNote { what, bound: Bound::Unbounded }],
        class: vec![(EqualityClass::Converging, "table".into())],
        glue: false,
    }
}

impl<K: Key, V: Data> Table<K, V> {
    /// From changes whose batches carry keys.
    fn of(changes: Stream<(K, Option<V>)>) -> Self {
        Table { changes, keys: PhantomData }
    }

    /// The changes, dealt out by key.
    pub(super) fn keyed(&self) -> Stream<(K, Option<V>)> {
        self.changes.routed(Routing::KeyGroup)
    }

    /// Gives the operator that makes this table a stable id, see [`Stream::id`].
    pub fn id(&self, id: &str) -> Table<K, V> {
        let _ = self.changes.id(id);
        self.clone()
    }

    /// The changes as they travel: the new value of a key, or `None` where it has none any more. What repeats a change changes
    /// nothing, so this is what to write to a compacted topic.
    pub fn changes(&self) -> Stream<(K, Option<V>)> {
        self.changes.clone()
    }

    /// Turns each value into another one, or leaves its key out.
    pub fn filter_map<W: Data>(&self, f: impl Fn(&K, V) -> Option<W> + Send + Sync + 'static) -> Table<K, W> {
        self.mapped("filter_map", f)
    }

    /// Turns each value into another one.
    pub fn map<W: Data>(&self, f: impl Fn(&K, V) -> W + Send + Sync + 'static) -> Table<K, W> {
        self.mapped("map", move |key, value| Some(f(key, value)))
    }

    /// Keeps the keys for whose values `keep` is true.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::Table;
    /// # fn example(balances: Table<String, i64>) {
    /// let overdrawn = balances.filter(|_, balance| *balance < 0);
    /// # let _ = overdrawn;
    /// # }
    /// ```
    pub fn filter(&self, keep: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> Table<K, V> {
        self.mapped("filter", move |key, value| keep(key, &value).then_some(value))
    }

    fn mapped<W: Data>(&self, kind: &'static str, f: impl Fn(&K, V) -> Option<W> + Send + Sync + 'static) -> Table<K, W> {
        Table::of(self.changes.add(kind, tables::map_table(f), &[], NodeNote::default()))
    }
}

impl<K: Key, V: Data + StateValue> Table<K, V> {
    /// The keys of both tables, with a value made of the two.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::Table;
    /// # fn example(prices: Table<String, i64>, stock: Table<String, i64>) {
    /// let worth: Table<String, i64> = prices.join(&stock, |_, price, pieces| price * pieces);
    /// # let _ = worth;
    /// # }
    /// ```
    pub fn join<W: Data + StateValue, R: Data>(
        &self,
        other: &Table<K, W>,
        result: impl Fn(&K, &V, &W) -> R + Send + Sync + 'static,
    ) -> Table<K, R> {
        self.joined("inner", TableJoinKind::Inner, other, move |key, left, right| Some(result(key, left?, right?)))
    }

    /// The keys of this table, with the other's value where it has one.
    pub fn left_join<W: Data + StateValue, R: Data>(
        &self,
        other: &Table<K, W>,
        result: impl Fn(&K, &V, Option<&W>) -> R + Send + Sync + 'static,
    ) -> Table<K, R> {
        self.joined("left", TableJoinKind::Left, other, move |key, left, right| Some(result(key, left?, right)))
    }

    /// The keys of either table: at least one of the two values is there.
    pub fn full_join<W: Data + StateValue, R: Data>(
        &self,
        other: &Table<K, W>,
        result: impl Fn(&K, Option<&V>, Option<&W>) -> R + Send + Sync + 'static,
    ) -> Table<K, R> {
        self.joined("full", TableJoinKind::Full, other, move |key, left, right| Some(result(key, left, right)))
    }

    fn joined<W: Data + StateValue, R: Data>(
        &self,
        name: &str,
        kind: TableJoinKind,
        other: &Table<K, W>,
        result: impl Fn(&K, Option<&V>, Option<&W>) -> Option<R> + Send + Sync + 'static,
    ) -> Table<K, R> {
        let note = keeps(name.into(), "1 row a key of both tables".into());
        let (left, right) = (self.keyed(), other.keyed());
        Table::of(left.add("join_tables", tables::join_tables(kind, result), &left.meets(&right), note))
    }

    /// The keys of this table whose row refers to a row of another table that is there, with a value made of the two. Follows
    /// changes on both sides, also of what a row refers to.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::Table;
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Clone, Serialize, Deserialize)] struct Order { customer: String, amount: i64 }
    /// # #[derive(Clone, Serialize, Deserialize)] struct Customer { name: String }
    /// # fn example(orders: Table<u64, Order>, customers: Table<String, Customer>) {
    /// let named = orders.foreign_join(&customers, |o| o.customer.clone(), |_, o, c| (c.name.clone(), o.amount));
    /// # let _ = named;
    /// # }
    /// ```
    pub fn foreign_join<F: Key, W: Data + StateValue, R: Data>(
        &self,
        other: &Table<F, W>,
        to: impl Fn(&V) -> F + Send + Sync + 'static,
        result: impl Fn(&K, &V, &W) -> R + Send + Sync + 'static,
    ) -> Table<K, R> {
        self.foreign("inner", other, to, move |key, left, right| Some(result(key, left, right?)))
    }

    /// As [`foreign_join`](Self::foreign_join), with all keys of this table.
    pub fn left_foreign_join<F: Key, W: Data + StateValue, R: Data>(
        &self,
        other: &Table<F, W>,
        to: impl Fn(&V) -> F + Send + Sync + 'static,
        result: impl Fn(&K, &V, Option<&W>) -> R + Send + Sync + 'static,
    ) -> Table<K, R> {
        self.foreign("left", other, to, move |key, left, right| Some(result(key, left, right)))
    }

    fn foreign<F: Key, W: Data + StateValue, R: Data>(
        &self,
        kind: &str,
        other: &Table<F, W>,
        to: impl Fn(&V) -> F + Send + Sync + 'static,
        result: impl Fn(&K, &V, Option<&W>) -> Option<R> + Send + Sync + 'static,
    ) -> Table<K, R> {
        let refer = keeps(String::new(), "1 reference a key".into());
        let told: Stream<Reference<K, V>> = self.keyed().add("refer", tables::refer::<K, V, F>(to), &[], refer);
        let (told, right) = (told.routed(Routing::KeyGroup), other.keyed());
        let note = keeps(kind.into(), "1 row a key of both tables".into());
        let factory = tables::answer::<K, F, V, W, R>(result);
        let answers: Stream<Answer<K, R>> = told.add("foreign_join", factory, &told.meets(&right), note);
        let collect = keeps(String::new(), "1 version a key".into());
        Table::of(answers.routed(Routing::KeyGroup).add("collect", tables::collect::<K, R>(), &[], collect))
    }

    /// Groups the table's rows by something else than its key, to aggregate each group.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::Table;
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Clone, Serialize, Deserialize)] struct Account { country: String, balance: i64 }
    /// # fn example(accounts: Table<u64, Account>) {
    /// let by_country = accounts.group_by(|_, account| account.country.clone());
    /// let accounts_of = by_country.count();
    /// let balance_of = by_country.aggregate(|| 0, |sum, account| *sum += account.balance, |sum, account| *sum -= account.balance);
    /// # let _ = (accounts_of, balance_of);
    /// # }
    /// ```
    pub fn group_by<G: Key>(&self, group: impl Fn(&K, &V) -> G + Send + Sync + 'static) -> GroupedTable<G, V> {
        let note = keeps(String::new(), "1 row a key".into());
        let moved = self.keyed().add("group_by", tables::regroup(group), &[], note);
        GroupedTable { moved, groups: PhantomData }
    }

    /// The changes as a stream, with kinds and old values: `+I`, `-U` with `+U`, `-D`.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::Table;
    /// # use waterwheel_engine::record::RowKind;
    /// # fn example(totals: Table<String, i64>) {
    /// let gone = totals.to_stream().filter(|change| change.kind == RowKind::Delete);
    /// # let _ = gone;
    /// # }
    /// ```
    pub fn to_stream(&self) -> Stream<Change<(K, V)>> {
        let note = keeps(String::new(), "1 row a key".into());
        self.keyed().add("to_stream", tables::to_changes::<K, V>(), &[], note)
    }

    /// Lets fewer changes through: the newest of each key at the end of each period of event time, or at the end of the input.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::{Table, mins};
    /// # use waterwheel_engine::operators::tables::Suppress;
    /// # fn example(totals: Table<String, i64>) {
    /// let once_a_minute = totals.suppress(Suppress::Every(mins(1)));
    /// # let _ = once_a_minute;
    /// # }
    /// ```
    pub fn suppress(&self, when: Suppress) -> Table<K, V> {
        let (detail, bound) = match when {
            Suppress::Every(d) => (format!("to one change in {}", human_duration(d)), Bound::Watermark),
            Suppress::UntilEnd => ("until the end".into(), Bound::Unbounded),
        };
        let note = NodeNote {
            detail,
            state: vec![StateNote { what: "1 change a key that has changed".into(), bound }],
            class: vec![(EqualityClass::Converging, "table".into())],
            glue: false,
        };
        Table::of(self.keyed().add("suppress", tables::suppress::<K, V>(when), &[], note))
    }
}

/// A table's rows by group. Ends in an aggregate.
#[must_use = "groups do nothing until they are aggregated"]
pub struct GroupedTable<G, V> {
    moved: Stream<Signed<V>>,
    groups: PhantomData<fn() -> G>,
}

impl<G: Key, V: Data> GroupedTable<G, V> {
    /// One value a group: `add` takes a row in, `subtract` takes one out that was taken in before; a group without rows has
    /// no value.
    pub fn aggregate<A: Data + StateValue>(
        &self,
        create: impl Fn() -> A + Send + Sync + 'static,
        add: impl Fn(&mut A, &V) + Send + Sync + 'static,
        subtract: impl Fn(&mut A, &V) + Send + Sync + 'static,
    ) -> Table<G, A> {
        self.aggregate_with(Retracting { create, add, subtract, types: PhantomData })
    }

    /// Rows of each group.
    pub fn count(&self) -> Table<G, u64> {
        self.aggregate(|| 0, |rows, _| *rows += 1, |rows, _| *rows -= 1)
    }

    /// An aggregate as a type of its own: see [`Retract`].
    pub fn aggregate_with<T: Retract<Row = V>>(&self, aggregate: T) -> Table<G, T::Out> {
        let note = keeps(String::new(), "1 value a group".into());
        let moved = self.moved.routed(Routing::KeyGroup);
        Table::of(moved.add("aggregate_groups", tables::aggregate_groups::<G, T>(aggregate), &[], note))
    }
}

/// An aggregate made of three closures.
struct Retracting<V, A, C, P, M> {
    create: C,
    add: P,
    subtract: M,
    types: PhantomData<fn(V) -> A>,
}

impl<V, A, C, P, M> Retract for Retracting<V, A, C, P, M>
where
    V: Data,
    A: Data + StateValue,
    C: Fn() -> A + Send + Sync + 'static,
    P: Fn(&mut A, &V) + Send + Sync + 'static,
    M: Fn(&mut A, &V) + Send + Sync + 'static,
{
    type Row = V;
    type Acc = A;
    type Out = A;

    fn create(&self) -> A {
        (self.create)()
    }
    fn add(&self, acc: &mut A, row: &V) {
        (self.add)(acc, row);
    }
    fn subtract(&self, acc: &mut A, row: &V) {
        (self.subtract)(acc, row);
    }
    fn finish(&self, acc: &A) -> A {
        acc.clone()
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

    /// As [`join_table`](Self::join_table), with a small table that every task holds whole: the stream is not dealt out by key
    /// and stays in order. For some thousands of entries.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::{Stream, Table};
    /// # fn example(visits: Stream<(String, i64)>, countries: Table<String, String>) {
    /// let named = visits.broadcast_join(&countries, |v| v.0.clone(), |v, name| (name.cloned().unwrap_or(v.0), v.1));
    /// # let _ = named;
    /// # }
    /// ```
    pub fn broadcast_join<K: Key, V: Data + StateValue, R: Data>(
        &self,
        table: &Table<K, V>,
        key: impl Fn(&T) -> K + Send + Sync + 'static,
        join: impl Fn(T, Option<&V>) -> R + Send + Sync + 'static,
    ) -> Stream<R> {
        let name = table.changes.origin_name();
        let note = NodeNote {
            detail: format!("with {name}"),
            state: vec![StateNote { what: format!("{name} whole, in every task"), bound: Bound::Unbounded }],
            class: vec![(EqualityClass::TimeDependent, "latest-value join".into())],
            glue: false,
        };
        let factory = joins::broadcast_join::<K, T, V, R>(key, move |row, entry| Some(join(row, entry)));
        self.add("broadcast_join", factory, &self.meets(&table.changes.routed(Routing::Broadcast)), note)
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
        keyed.stream().add("join_table", factory, &keyed.stream().meets(&table.keyed()), note)
    }
}
