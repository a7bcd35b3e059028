//! `WindowedStream`: an aggregate per key and window of event time.
//!
//! Invariant: a window's result leaves when the watermark has passed its end, and again when a late row that is still
//! allowed changes it; each row is in the results or in the late stream.

use super::stream::Stream;
use crate::graph::{Bound, EqualityClass, NodeNote, StateNote};
use crate::observe::human_duration;
use crate::operators;
use crate::record::{Data, Key};
use crate::state::StateValue;
use crate::windowing::{Accumulate, Aggregate, LATE_PORT, WindowAssigner, Windowed, window};
use std::marker::PhantomData;
use std::time::Duration;

/// Two partial results become one: how an aggregate over several slices of a window is put together.
///
/// ```
/// use waterwheel_engine::dsl::Merge;
/// #[derive(Default)]
/// struct Count(u64);
/// impl Merge for Count {
///     fn merge(&mut self, later: &Self) { self.0 += later.0; }
/// }
/// ```
pub trait Merge {
    /// Takes in what was aggregated from later rows.
    fn merge(&mut self, later: &Self);
}

type LateTo<T> = Box<dyn FnOnce(Stream<T>)>;

/// A keyed stream cut into windows. Ends in an aggregate.
#[must_use = "a window does nothing until it aggregates"]
pub struct WindowedStream<K, T, W> {
    stream: Stream<T>,
    windows: W,
    allowed_lateness: Duration,
    late_to: Option<LateTo<T>>,
    keys: PhantomData<fn() -> K>,
}

impl<K: Key, T: Data, W: WindowAssigner> WindowedStream<K, T, W> {
    pub(super) fn new(keyed: Stream<T>, windows: W) -> Self {
        WindowedStream { stream: keyed, windows, allowed_lateness: Duration::ZERO, late_to: None, keys: PhantomData }
    }

    /// Rows up to this far behind the watermark still count: the window's result leaves again, updated, for the keys they
    /// touch. Later ones are late rows. None are allowed unless said.
    pub fn allow_late(mut self, d: Duration) -> Self {
        self.allowed_lateness = d;
        self
    }

    /// Where late rows go; without it they are counted and dropped.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::{KeyedStream, mins, secs};
    /// # use waterwheel_engine::windowing::Tumbling;
    /// # fn example(amounts: KeyedStream<String, i64>) {
    /// let sums = amounts
    ///     .window(Tumbling::of(mins(1)))
    ///     .allow_late(secs(30))
    ///     .late_to(|late| late.inspect(|amount| println!("late: {amount}")))
    ///     .reduce(|sum, amount| *sum += amount);
    /// # let _ = sums;
    /// # }
    /// ```
    pub fn late_to<R>(mut self, to: impl FnOnce(Stream<T>) -> R + 'static) -> Self {
        self.late_to = Some(Box::new(move |late| drop(to(late))));
        self
    }

    /// One result a window and key: `create` makes an empty one, `accumulate` takes a row in, [`Merge`] puts slices
    /// together. For the key and the bounds of the window as well see
    /// [`aggregate_windows`](Self::aggregate_windows).
    ///
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// # use waterwheel_engine::dsl::{KeyedStream, Merge, mins, secs};
    /// # use waterwheel_engine::windowing::Sliding;
    /// #[derive(Clone, Default, Serialize, Deserialize)]
    /// struct Activity { payments: u64, amount: i64 }
    ///
    /// impl Merge for Activity {
    ///     fn merge(&mut self, later: &Self) {
    ///         self.payments += later.payments;
    ///         self.amount += later.amount;
    ///     }
    /// }
    /// # fn example(amounts: KeyedStream<String, i64>) {
    /// let activity = amounts.window(Sliding::of(mins(5)).every(secs(10))).aggregate(Activity::default, |a, amount| {
    ///     a.payments += 1;
    ///     a.amount += amount;
    /// });
    /// # let _ = activity;
    /// # }
    /// ```
    pub fn aggregate<A: Data + StateValue + Merge>(
        self,
        create: impl Fn() -> A + Send + Sync + 'static,
        accumulate: impl Fn(&mut A, &T) + Send + Sync + 'static,
    ) -> Stream<A> {
        self.aggregate_windows(create, accumulate).with_glue("values", operators::map(|w: Windowed<K, A>| w.value))
    }

    /// As [`aggregate`](Self::aggregate); each result with its key and the bounds of its window.
    pub fn aggregate_windows<A: Data + StateValue + Merge>(
        self,
        create: impl Fn() -> A + Send + Sync + 'static,
        accumulate: impl Fn(&mut A, &T) + Send + Sync + 'static,
    ) -> Stream<Windowed<K, A>> {
        self.aggregate_with(Aggregate::new(create, accumulate, A::merge, A::clone))
    }

    /// One row a window and key: `take` puts a later row into an earlier one.
    pub fn reduce(self, take: impl Fn(&mut T, &T) + Send + Sync + 'static) -> Stream<T>
    where
        T: StateValue,
    {
        self.reduced(take).with_glue("values", operators::filter_map(|w: Windowed<K, Option<T>>| w.value))
    }

    /// As [`reduce`](Self::reduce); each result with its key and the bounds of its window.
    pub fn reduce_windows(self, take: impl Fn(&mut T, &T) + Send + Sync + 'static) -> Stream<Windowed<K, T>>
    where
        T: StateValue,
    {
        let some = |Windowed { key, start, end, value }: Windowed<K, Option<T>>| value.map(|value| Windowed { key, start, end, value });
        self.reduced(take).with_glue("values", operators::filter_map(some))
    }

    /// A window exists only for keys with rows, so no result is `None`.
    fn reduced(self, take: impl Fn(&mut T, &T) + Send + Sync + 'static) -> Stream<Windowed<K, Option<T>>>
    where
        T: StateValue,
    {
        self.aggregate_with(Reduce { take, row: PhantomData })
    }

    /// An aggregate as a type of its own, with a result that differs from what is kept: see [`Accumulate`].
    pub fn aggregate_with<G: Accumulate<Row = T>>(self, aggregate: G) -> Stream<Windowed<K, G::Out>> {
        let factory = window::<K, G>(&self.windows, self.allowed_lateness, aggregate);
        let factory = factory.unwrap_or_else(|e| {
            self.stream.draw().problem(e);
            operators::union() // never run: the problem stops the plan
        });
        let slices = self.windows.layout().map_or(0, |l| l.slices_per_window());
        let late = self.allowed_lateness;
        let allowed = if late.is_zero() { String::new() } else { format!(", late by {}", human_duration(late)) };
        let note = NodeNote {
            detail: format!("{}{allowed}", self.windows.describe()),
            state: vec![StateNote {
                what: if slices == 1 { "1 slice a key".into() } else { format!("{slices} slices a key") },
                bound: Bound::Watermark,
            }],
            class: vec![(EqualityClass::TimeDependent, "late rows".into())],
            glue: false,
        };
        let results: Stream<Windowed<K, G::Out>> = self.stream.add("window", factory, &[], note);
        if let Some(to) = self.late_to {
            to(results.port(LATE_PORT));
        }
        results
    }
}

/// The rows so far as one row; none before the first.
struct Reduce<T, F> {
    take: F,
    row: PhantomData<fn(T)>,
}

impl<T: Data + StateValue, F: Fn(&mut T, &T) + Send + Sync + 'static> Accumulate for Reduce<T, F> {
    type Row = T;
    type Acc = Option<T>;
    type Out = Option<T>;

    fn create(&self) -> Option<T> {
        None
    }
    fn accumulate(&self, acc: &mut Option<T>, row: &T) {
        match acc {
            Some(acc) => (self.take)(acc, row),
            None => *acc = Some(row.clone()),
        }
    }
    fn merge(&self, acc: &mut Option<T>, later: &Option<T>) {
        if let Some(row) = later {
            self.accumulate(acc, row);
        }
    }
    fn finish(&self, acc: &Option<T>) -> Option<T> {
        acc.clone()
    }
}
