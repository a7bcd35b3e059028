//! `KeyedStream<K, T>`: rows dealt out by key, and what needs the rows of a key together.
//!
//! Invariant: all rows of a key reach one task, in order of arrival; state is per key.

use super::stream::Stream;
use super::windowed::WindowedStream;
use crate::graph::{Bound, EqualityClass, NodeNote, Routing, StateNote};
use crate::operators::{self, ProcessFunction};
use crate::record::{Data, Key};
use crate::state::StateValue;
use crate::windowing::Windows;
use std::marker::PhantomData;
use std::ops::Deref;
use std::time::Duration;

/// Rows of `T` by keys of `K`.
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct KeyedStream<K, T> {
    stream: Stream<T>,
    keys: PhantomData<fn() -> K>,
}

impl<K, T> Clone for KeyedStream<K, T> {
    /// Another handle of the same stream.
    fn clone(&self) -> Self {
        KeyedStream { stream: self.stream.clone(), keys: PhantomData }
    }
}

impl<K: Key, T: Data> KeyedStream<K, T> {
    /// From a stream whose batches carry keys.
    pub(super) fn new(keyed: Stream<T>) -> Self {
        KeyedStream { stream: keyed.routed(Routing::KeyGroup), keys: PhantomData }
    }

    pub(super) fn stream(&self) -> &Stream<T> {
        &self.stream
    }

    /// From a stream whose batches carry keys and whose rows are in the task of their key: what follows is chained.
    pub(super) fn in_place(keyed: Stream<T>) -> Self {
        KeyedStream { stream: keyed, keys: PhantomData }
    }

    /// Stable id of the operator that makes this stream, see [`Stream::id`].
    pub fn id(&self, id: &str) -> Self {
        KeyedStream { stream: self.stream.id(id), keys: PhantomData }
    }

    /// Cuts the rows into windows, of one of the kinds of [`Windows`].
    ///
    /// ```
    /// # use waterwheel_engine::dsl::{KeyedStream, mins, secs};
    /// # use waterwheel_engine::windowing::Sliding;
    /// # fn example(amounts: KeyedStream<String, i64>) {
    /// let sums = amounts.window(Sliding::of(mins(5)).every(secs(10))).reduce(|sum, amount| *sum += amount);
    /// # let _ = sums;
    /// # }
    /// ```
    pub fn window<W: Windows<T>>(&self, windows: W) -> WindowedStream<K, T, W> {
        WindowedStream::new(self.stream.clone(), windows)
    }

    /// A running aggregate over all rows of a key so far; its state is never dropped. Each batch gives the new value of
    /// every key in it: how often a value is repeated on the way depends on timing, the last one does not. Write it to a
    /// compacted topic, by key.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::{KeyedStream, Stream};
    /// # fn example(amounts: KeyedStream<String, i64>) {
    /// let totals: Stream<(String, i64)> = amounts.aggregate(|| 0, |sum, amount| *sum += amount);
    /// # let _ = totals;
    /// # }
    /// ```
    pub fn aggregate<A: Data + StateValue>(
        &self,
        create: impl Fn() -> A + Send + Sync + 'static,
        accumulate: impl Fn(&mut A, &T) + Send + Sync + 'static,
    ) -> Stream<(K, A)> {
        self.stream.add("aggregate", operators::aggregate::<K, T, A, A>(create, accumulate, A::clone), &[], running())
    }

    /// A running reduction: `take` puts a later row into an earlier one. As [`aggregate`](Self::aggregate) else.
    pub fn reduce(&self, take: impl Fn(&mut T, &T) + Send + Sync + 'static) -> Stream<(K, T)>
    where
        T: StateValue,
    {
        let combine = move |so_far: &T, row: &T| {
            let mut next = so_far.clone();
            take(&mut next, row);
            next
        };
        self.stream.add("reduce", operators::reduce::<K, T>(combine), &[], running())
    }

    /// Rows of each key in the order of event time, ties by `tie`, then by arrival: rows wait for the watermark. A row that
    /// comes later than the watermark cannot be put in order any more; see [`SortedStream::late_to`].
    ///
    /// ```
    /// # use waterwheel_engine::dsl::KeyedStream;
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Clone, Serialize, Deserialize)] struct Payment { id: String }
    /// # fn example(payments: KeyedStream<String, Payment>) {
    /// let in_order = payments.sort_by_time(|p| p.id.clone()).late_to(|late| late.inspect(|p| println!("late: {}", p.id)));
    /// # let _ = in_order;
    /// # }
    /// ```
    pub fn sort_by_time<O: Key>(&self, tie: impl Fn(&T) -> O + Send + Sync + 'static) -> SortedStream<K, T>
    where
        T: StateValue,
    {
        let note = NodeNote {
            detail: "by event time".into(),
            state: vec![StateNote { what: "rows ahead of the watermark".into(), bound: Bound::Watermark }],
            class: vec![(EqualityClass::TimeDependent, "late rows".into())],
            glue: false,
        };
        let sorted = self.stream.add("sort", operators::sort_by_time::<K, T, O>(tie), &[], note);
        SortedStream(KeyedStream::in_place(sorted))
    }

    /// Code of your own with state per key, timers and side outputs: `make` makes one function per task.
    ///
    /// ```
    /// use waterwheel_engine::dsl::{KeyedStream, Stream};
    /// use waterwheel_engine::operators::{ProcessContext, ProcessFunction, ProcessOpen, ValueState};
    ///
    /// /// Passes a value on when it is larger than any before it, of its key.
    /// #[derive(Default)]
    /// struct Records { highest: ValueState<i64> }
    ///
    /// impl ProcessFunction<String, i64, i64> for Records {
    ///     fn open(&mut self, open: &mut ProcessOpen<'_>) {
    ///         self.highest = open.value("highest");
    ///     }
    ///     fn on_element(&mut self, context: &mut ProcessContext<'_, String, i64>, row: i64) {
    ///         if self.highest.get(context).is_none_or(|highest| row > *highest) {
    ///             self.highest.set(context, row);
    ///             context.emit(row);
    ///         }
    ///     }
    /// }
    ///
    /// fn records(values: &KeyedStream<String, i64>) -> Stream<i64> {
    ///     values.process(Records::default).id("records")
    /// }
    /// ```
    pub fn process<U: Data, P: ProcessFunction<K, T, U>>(&self, make: impl Fn() -> P + Send + Sync + 'static) -> Stream<U> {
        let note = process_note(&self.stream);
        self.stream.add("process", operators::process::<K, T, U, P>(make), &[], note)
    }
}

/// A keyed stream in the order of event time: all of [`KeyedStream`], and where late rows go.
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct SortedStream<K, T>(KeyedStream<K, T>);

impl<K, T> Deref for SortedStream<K, T> {
    type Target = KeyedStream<K, T>;
    fn deref(&self) -> &KeyedStream<K, T> {
        &self.0
    }
}

impl<K: Key, T: Data> SortedStream<K, T> {
    /// Where rows go that came later than the watermark; without it they are counted and dropped.
    pub fn late_to<R>(self, to: impl FnOnce(Stream<T>) -> R) -> Self {
        drop(to(self.0.stream.port(operators::LATE_PORT)));
        self
    }

    /// Stable id of the sort: the rows that wait are found by it.
    pub fn id(self, id: &str) -> Self {
        let _ = self.0.stream.id(id);
        self
    }
}

impl<T: Data> Stream<T> {
    /// Drops repeats: of rows with the same id whose event times are less than `ttl` apart, the first to arrive passes.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::{Stream, hours};
    /// # #[derive(Clone)] struct Payment { id: String }
    /// # fn example(payments: Stream<Payment>) {
    /// let once = payments.dedup_by(|p| p.id.clone(), hours(1));
    /// # let _ = once;
    /// # }
    /// ```
    pub fn dedup_by<K: Key>(&self, id: impl Fn(&T) -> K + Send + Sync + 'static, ttl: Duration) -> Stream<T> {
        let note = NodeNote { state: vec![StateNote { what: "1 time an id".into(), bound: Bound::Ttl(ttl) }], ..NodeNote::default() };
        self.key_by(id).stream.add("dedup", operators::dedup_by::<K, T>(ttl), &[], note)
    }
}

/// What `explain` says of a process function behind `stream`.
pub(super) fn process_note<T>(stream: &Stream<T>) -> NodeNote {
    let in_order = stream.kind() == "sort";
    let class = (EqualityClass::TimeDependent, "arrival order in process".to_string());
    NodeNote {
        state: vec![StateNote { what: "what the function declares".into(), bound: Bound::User }],
        class: if in_order { Vec::new() } else { vec![class] },
        ..NodeNote::default()
    }
}

fn running() -> NodeNote {
    NodeNote {
        state: vec![StateNote { what: "1 value a key".into(), bound: Bound::Unbounded }],
        class: vec![(EqualityClass::Converging, "running aggregate".into())],
        ..NodeNote::default()
    }
}
