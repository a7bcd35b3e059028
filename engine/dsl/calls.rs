//! Calls to the outside for each row: enrichment over the network, lookups in a database.
//!
//! Invariant: rows that wait for their answers are state; each result leaves once, though a call may be made again after a
//! failure.

use super::keyed::KeyedStream;
use super::stream::Stream;
use crate::graph::{Bound, EqualityClass, NodeNote, StateNote};
use crate::operators::{self, AsyncOptions};
use crate::record::{Data, Key};
use crate::state::StateValue;
use std::future::Future;

impl<T: Data + StateValue> Stream<T> {
    /// Turns each row into what an asynchronous call answers, many at once. The futures run inside tokio. A row whose call
    /// fails, panics or takes too long after all its retries is a bad record; what cannot be mended by asking again is better
    /// answered as a value. Calls are made again after a failure: what they change must bear that.
    ///
    /// Rows of a stream without keys that wait while the number of tasks changes may come behind later ones.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::{Stream, secs};
    /// use waterwheel_engine::operators::AsyncOptions;
    /// # async fn score(text: String) -> Result<f64, String> { Ok(text.len() as f64) }
    /// # fn example(texts: Stream<String>) {
    /// let scores = texts.map_async(AsyncOptions::ordered().capacity(20).timeout(secs(1)), |text| async move {
    ///     let score = score(text.clone()).await?;
    ///     Ok((text, score))
    /// });
    /// # let _ = scores;
    /// # }
    /// ```
    pub fn map_async<U: Data, F>(&self, options: AsyncOptions, call: impl Fn(T) -> F + Send + Sync + 'static) -> Stream<U>
    where
        F: Future<Output = Result<U, String>> + Send + 'static,
    {
        let note = note(&options, false);
        self.add("map_async", operators::map_async(options, false, call), &[], note)
    }

    /// Joins each row with what an asynchronous call answers for its `key`. Answers may be
    /// [cached](AsyncOptions::cache). Else as [`map_async`](Self::map_async).
    ///
    /// ```
    /// # use waterwheel_engine::dsl::{Stream, mins};
    /// # use serde::{Deserialize, Serialize};
    /// use waterwheel_engine::operators::AsyncOptions;
    /// # #[derive(Clone, Serialize, Deserialize)] struct Payment { card: String, amount: i64 }
    /// # async fn owner_of(card: String) -> Result<String, String> { Ok(card) }
    /// # fn example(payments: Stream<Payment>) {
    /// let with_owner = payments.lookup_async(
    ///     AsyncOptions::unordered().cache(mins(10), 100_000),
    ///     |payment| payment.card.clone(),
    ///     owner_of,
    ///     |payment, owner| (owner.clone(), payment.amount),
    /// );
    /// # let _ = with_owner;
    /// # }
    /// ```
    pub fn lookup_async<Q: Key, V: Data, U: Data, F>(
        &self,
        options: AsyncOptions,
        key: impl Fn(&T) -> Q + Send + Sync + 'static,
        call: impl Fn(Q) -> F + Send + Sync + 'static,
        join: impl Fn(T, &V) -> U + Send + Sync + 'static,
    ) -> Stream<U>
    where
        F: Future<Output = Result<V, String>> + Send + 'static,
    {
        let note = note(&options, false);
        self.add("lookup_async", operators::lookup_async(options, false, key, call, join), &[], note)
    }
}

impl<K: Key, T: Data + StateValue> KeyedStream<K, T> {
    /// As [`Stream::map_async`]. Unordered, rows of one key are still called one at a time, each after the one before it is
    /// settled, and leave in order; rows of other keys overtake them.
    pub fn map_async<U: Data, F>(&self, options: AsyncOptions, call: impl Fn(T) -> F + Send + Sync + 'static) -> Stream<U>
    where
        F: Future<Output = Result<U, String>> + Send + 'static,
    {
        let note = note(&options, true);
        self.stream().add("map_async", operators::map_async(options, true, call), &[], note)
    }

    /// As [`Stream::lookup_async`], ordered as [`map_async`](Self::map_async) is.
    pub fn lookup_async<Q: Key, V: Data, U: Data, F>(
        &self,
        options: AsyncOptions,
        key: impl Fn(&T) -> Q + Send + Sync + 'static,
        call: impl Fn(Q) -> F + Send + Sync + 'static,
        join: impl Fn(T, &V) -> U + Send + Sync + 'static,
    ) -> Stream<U>
    where
        F: Future<Output = Result<V, String>> + Send + 'static,
    {
        let note = note(&options, true);
        self.stream().add("lookup_async", operators::lookup_async(options, true, key, call, join), &[], note)
    }
}

fn note(options: &AsyncOptions, keyed: bool) -> NodeNote {
    let order = match (options.is_ordered(), keyed) {
        (true, _) => "ordered",
        (false, true) => "ordered by key",
        (false, false) => "unordered",
    };
    NodeNote {
        detail: format!("{order}, {} at once", options.calls_at_once()),
        state: vec![StateNote { what: "rows without an answer".into(), bound: Bound::Rows(options.calls_at_once()) }],
        class: vec![(EqualityClass::TimeDependent, "answers from outside".into())],
        glue: false,
    }
}
