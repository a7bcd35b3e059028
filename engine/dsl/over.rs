//! OVER windows: each row with what is true of the rows of its key up to it.
//!
//! Invariant: rows have their turn in the order of event time; a row has one result, with its own time, or is in the late
//! stream. `explain` says what is kept of a key and for how long.

use super::keyed::KeyedStream;
use super::stream::Stream;
use super::windowed::Merge;
use crate::graph::{Bound, EqualityClass, NodeNote, StateNote};
use crate::observe::human_duration;
use crate::operators::LATE_PORT;
use crate::operators::over::{Frame, Lag, Lead, Numbered, Numbers, OverFunctions, OverOptions, Place, Tie, TypedOver, over, tie};
use crate::record::{Data, Key};
use crate::state::StateValue;
use crate::time::{EventTime, millis};
use crate::windowing::{Accumulate, Aggregate};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

type LateTo<T> = Box<dyn FnOnce(Stream<T>)>;

/// Rows of a key in the order of event time, and a frame before each. Without a call that says which, the frame is all rows up
/// to the row's own time.
#[must_use = "an over window does nothing until it has results: .aggregate(..), .lag(..), ..."]
pub struct OverStream<K, T> {
    stream: Stream<T>,
    frame: Frame,
    ttl: Option<Duration>,
    tie: Option<Tie<T>>,
    late_to: Option<LateTo<T>>,
    keys: PhantomData<fn() -> K>,
}

impl<K: Key, T: Data + StateValue> KeyedStream<K, T> {
    /// Gives each row a result made of it and of the rows of its key before it: running totals, moving averages, the row
    /// before, ranks. What SQL calls `OVER (PARTITION BY key ORDER BY time ..)`. A row waits until the watermark has reached it.
    ///
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// # use waterwheel_engine::dsl::{KeyedStream, Merge, mins};
    /// # #[derive(Clone, Serialize, Deserialize)] struct Payment { id: String, amount: i64 }
    /// #[derive(Clone, Default, Serialize, Deserialize)]
    /// struct Spent { payments: u64, amount: i64 }
    ///
    /// impl Merge for Spent {
    ///     fn merge(&mut self, later: &Self) {
    ///         self.payments += later.payments;
    ///         self.amount += later.amount;
    ///     }
    /// }
    /// # fn example(payments: KeyedStream<String, Payment>) {
    /// // Each payment, with what was spent in the five minutes up to it.
    /// let with_spent = payments.over().within(mins(5)).ties_by(|p| p.id.clone()).aggregate(
    ///     Spent::default,
    ///     |spent, payment| {
    ///         spent.payments += 1;
    ///         spent.amount += payment.amount;
    ///     },
    ///     |payment, spent| (payment.id.clone(), spent.amount),
    /// );
    /// // Each payment, with the one before it.
    /// let jumps = payments.over().lag(1, |payment, before| payment.amount - before.map_or(0, |p| p.amount));
    /// # let _ = (with_spent, jumps);
    /// # }
    /// ```
    pub fn over(&self) -> OverStream<K, T> {
        OverStream { stream: self.stream().clone(), frame: Frame::Range(None), ttl: None, tie: None, late_to: None, keys: PhantomData }
    }
}

impl<K: Key, T: Data + StateValue> OverStream<K, T> {
    /// The frame of a row is itself and the `n` rows of its key before it.
    pub fn rows(mut self, n: u32) -> Self {
        self.frame = Frame::Rows(Some(n));
        self
    }

    /// The frame of a row is itself and all rows of its key before it; of rows of one time, each sees those before it.
    pub fn all_rows(mut self) -> Self {
        self.frame = Frame::Rows(None);
        self
    }

    /// The frame of a row is all rows of its key that are at most `d` earlier; of one time, all see each other.
    pub fn within(mut self, d: Duration) -> Self {
        self.frame = Frame::Range(Some(millis(d)));
        self
    }

    /// The order of rows of one time; without it they are in the order of arrival, which may be another at each run.
    pub fn ties_by<O: Key>(mut self, by: impl Fn(&T) -> O + Send + Sync + 'static) -> Self {
        self.tie = Some(tie(by));
        self
    }

    /// What is kept of a key is forgotten when it had no row for `d` of event time. [`within`](Self::within) needs no such thing:
    /// rows go with their span.
    pub fn keep_for(mut self, d: Duration) -> Self {
        self.ttl = Some(d);
        self
    }

    /// Where rows go that came later than the watermark; without it they are counted and dropped.
    pub fn late_to<S>(mut self, to: impl FnOnce(Stream<T>) -> S + 'static) -> Self {
        self.late_to = Some(Box::new(move |late| drop(to(late))));
        self
    }

    /// Each row with the aggregate of its frame: `create` makes an empty one, `accumulate` takes a later row in, [`Merge`] puts
    /// two together, the earlier first. Nothing is ever subtracted.
    pub fn aggregate<A: Data + StateValue + Merge, O: Data>(
        self,
        create: impl Fn() -> A + Send + Sync + 'static,
        accumulate: impl Fn(&mut A, &T) + Send + Sync + 'static,
        result: impl Fn(&T, &A) -> O + Send + Sync + 'static,
    ) -> Stream<O> {
        let aggregate = Aggregate::new(create, accumulate, A::merge, |_: &A| ());
        self.add(OfFrame { aggregate, result: move |row: &T, acc: &A, _: &dyn Fn(&A)| result(row, acc), types: PhantomData })
    }

    /// As [`aggregate`](Self::aggregate), with a ready aggregate or several of them ([`aggregates`](crate::windowing::aggregates)).
    ///
    /// ```
    /// # use waterwheel_engine::dsl::KeyedStream;
    /// # use waterwheel_engine::windowing::aggregates::{count, max};
    /// # fn example(readings: KeyedStream<u32, i64>) {
    /// // Each reading, with the number of readings and the largest of the last ten.
    /// let peaks = readings.over().rows(9).aggregate_with((count(), max(|r: &i64| *r)), |reading, (n, peak)| (*reading, *n, *peak));
    /// # let _ = peaks;
    /// # }
    /// ```
    pub fn aggregate_with<G, O: Data>(self, aggregate: G, result: impl Fn(&T, &G::Out) -> O + Send + Sync + 'static) -> Stream<O>
    where
        G: Accumulate<Row = T>,
        G::Acc: Clone,
    {
        let result = move |row: &T, acc: &G::Acc, finish: &dyn Fn(&G::Acc) -> G::Out| result(row, &finish(acc));
        self.add(OfFrame { aggregate, result, types: PhantomData })
    }

    /// Each row with the one `distance` rows of its key before it, if there is one.
    pub fn lag<O: Data>(mut self, distance: u32, result: impl Fn(&T, Option<&T>) -> O + Send + Sync + 'static) -> Stream<O> {
        let lag = Lag::new(distance, result);
        self.frame = lag.frame();
        self.add(lag)
    }

    /// Each row with the one `distance` rows of its key behind it. The result leaves when that row has its turn, with its time;
    /// rows behind which none has come have theirs at the end of the input.
    pub fn lead<O: Data>(mut self, distance: u32, result: impl Fn(&T, Option<&T>) -> O + Send + Sync + 'static) -> Stream<O> {
        self.frame = Frame::Rows(None);
        self.add(Lead::new(distance, result))
    }

    /// Each row with its number and its ranks among the rows of its key so far.
    pub fn numbered<O: Data>(mut self, result: impl Fn(&T, Numbers) -> O + Send + Sync + 'static) -> Stream<O> {
        self.frame = Frame::Rows(None);
        self.add(Numbered::new(result))
    }

    fn add<F: OverFunctions<Row = T>>(self, functions: F) -> Stream<F::Out> {
        let note = self.note();
        let (functions, tie) = (Arc::new(functions), self.tie);
        let options = OverOptions { frame: self.frame, ttl_ms: self.ttl.map(millis), keys: K::kind() };
        let factory = over(options, move || Ok(TypedOver::new(functions.clone(), tie.clone())));
        let results = self.stream.add("over", factory, &[], note);
        if let Some(to) = self.late_to {
            to(results.port(LATE_PORT));
        }
        results
    }

    fn note(&self) -> NodeNote {
        let ends = self.ttl.map_or(Bound::Unbounded, Bound::Ttl);
        let (detail, what, bound) = match self.frame {
            Frame::Rows(Some(n)) => (format!("{n} rows before"), format!("{n} rows a key"), ends),
            Frame::Rows(None) => ("all rows before".into(), "1 value a key".into(), ends),
            Frame::Range(None) => ("all up to its time".into(), "1 value a key".into(), ends),
            Frame::Range(Some(ms)) => {
                let span = human_duration(Duration::from_millis(ms.unsigned_abs()));
                (format!("within {span}"), format!("rows for {span} of event time"), Bound::Watermark)
            }
        };
        let mut class = vec![(EqualityClass::TimeDependent, "late rows".to_string())];
        if self.tie.is_none() {
            class.push((EqualityClass::TimeDependent, "arrival order of rows of one time".to_string()));
        }
        let ahead = StateNote { what: "rows ahead of the watermark".into(), bound: Bound::Watermark };
        NodeNote { detail, state: vec![ahead, StateNote { what, bound }], class, glue: false }
    }
}

/// An aggregate of windows over a frame; `F` makes a row's result of the row, the accumulator and the way to finish it.
struct OfFrame<G, O, F> {
    aggregate: G,
    result: F,
    types: PhantomData<fn() -> O>,
}

impl<G, O, F> OverFunctions for OfFrame<G, O, F>
where
    G: Accumulate,
    G::Row: StateValue,
    G::Acc: Clone,
    O: Data,
    F: Fn(&G::Row, &G::Acc, &dyn Fn(&G::Acc) -> G::Out) -> O + Send + Sync + 'static,
{
    type Row = G::Row;
    type Acc = G::Acc;
    type Out = O;

    fn create(&self) -> G::Acc {
        self.aggregate.create()
    }

    fn fold(&self, acc: &mut G::Acc, row: &G::Row, _time: EventTime) {
        self.aggregate.accumulate(acc, row);
    }

    fn merge(&self, acc: &mut G::Acc, later: &G::Acc) {
        self.aggregate.merge(acc, later);
    }

    fn result(&self, row: &G::Row, acc: &G::Acc, _place: Place) -> Option<O> {
        Some((self.result)(row, acc, &|acc| self.aggregate.finish(acc)))
    }
}
