//! `WindowedStream`: an aggregate per key and window.
//!
//! Invariant: a window's result leaves when the watermark has passed its end, and again when a late row that is still
//! allowed changes it; each row is in the results or in the late stream.

use super::keyed::KeyedStream;
use super::stream::Stream;
use crate::graph::{Bound, EqualityClass, NodeNote, StateNote};
use crate::observe::human_duration;
use crate::operators;
use crate::record::{Data, Key};
use crate::state::StateValue;
use crate::windowing::{Accumulate, Aggregate, LATE_PORT, PaneInfo, WindowOptions, Windowed, Windows, aggregates};
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
    options: WindowOptions<T>,
    late_to: Option<LateTo<T>>,
    keys: PhantomData<fn() -> K>,
}

impl<K: Key, T: Data, W: Windows<T>> WindowedStream<K, T, W> {
    pub(super) fn new(keyed: Stream<T>, windows: W) -> Self {
        WindowedStream { stream: keyed, windows, options: WindowOptions::default(), late_to: None, keys: PhantomData }
    }

    /// Rows up to this far behind the watermark still count: the window's result leaves again, updated, for the keys they
    /// touch. Later ones are late rows. None are allowed unless said.
    pub fn allow_late(mut self, d: Duration) -> Self {
        self.options.allowed_lateness = d;
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

    /// Besides at its end, a window fires each `d` of processing time in which it was given rows. How far it has come by
    /// then depends on timing; the result at the end does not.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::{KeyedStream, hours, secs};
    /// # use waterwheel_engine::windowing::Tumbling;
    /// # fn example(amounts: KeyedStream<String, i64>) {
    /// let so_far = amounts.window(Tumbling::of(hours(1))).fire_every(secs(5)).reduce(|sum, amount| *sum += amount);
    /// # let _ = so_far;
    /// # }
    /// ```
    pub fn fire_every(mut self, d: Duration) -> Self {
        self.options.firing.every = Some(d);
        self
    }

    /// Besides at its end, a window fires each time that it was given so many rows of its key.
    pub fn fire_each(mut self, rows: u64) -> Self {
        self.options.firing.rows = Some(rows);
        self
    }

    /// Besides at its end, a window fires at rows for which `when` holds; it sees the row and the window with that row in it.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::{KeyedStream, hours};
    /// # use waterwheel_engine::windowing::Tumbling;
    /// # fn example(amounts: KeyedStream<String, i64>) {
    /// let sums = amounts
    ///     .window(Tumbling::of(hours(1)))
    ///     .fire_when(|amount, window| *amount > 100_000 || window.rows >= 1000)
    ///     .reduce(|sum, amount| *sum += amount);
    /// # let _ = sums;
    /// # }
    /// ```
    pub fn fire_when(mut self, when: impl Fn(&T, &PaneInfo) -> bool + Send + Sync + 'static) -> Self {
        self.options.firing.when = Some(std::sync::Arc::new(when));
        self
    }

    /// Each firing shows only the rows since the last one; else it shows the whole window so far.
    pub fn discarding(mut self) -> Self {
        self.options.firing.discarding = true;
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

    /// The `n` highest rows of each window and key, highest first; of equal ones the first to come.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::{KeyedStream, hours};
    /// # use waterwheel_engine::windowing::Tumbling;
    /// # fn example(amounts: KeyedStream<String, i64>) {
    /// let largest = amounts.window(Tumbling::of(hours(1))).top(3, |amount| *amount);
    /// # let _ = largest.map(|w| format!("{}: {:?}", w.key, w.value));
    /// # }
    /// ```
    pub fn top<O: Ord>(self, n: usize, by: impl Fn(&T) -> O + Send + Sync + 'static) -> Stream<Windowed<K, Vec<T>>>
    where
        T: StateValue,
    {
        self.aggregate_with(aggregates::top(n, by))
    }

    /// All rows of each window, with its key and bounds, for a function of your own: rows slice by slice, by arrival within
    /// them. They are still keyed, so a process function with state per key may follow.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::{KeyedStream, Stream, mins};
    /// # use waterwheel_engine::operators::{ProcessContext, ProcessFunction, ProcessOpen, ValueState};
    /// # use waterwheel_engine::windowing::{Tumbling, Windowed};
    /// /// How the sum of a window differs from that of the key's window before.
    /// #[derive(Default)]
    /// struct Change { before: ValueState<i64> }
    ///
    /// impl ProcessFunction<String, Windowed<String, Vec<i64>>, i64> for Change {
    ///     fn open(&mut self, open: &mut ProcessOpen<'_>) {
    ///         self.before = open.value("before");
    ///     }
    ///     fn on_element(&mut self, context: &mut ProcessContext<'_, String, i64>, window: Windowed<String, Vec<i64>>) {
    ///         let sum = window.value.iter().sum();
    ///         let before = self.before.update(context, |v| v.replace(sum)).unwrap_or(0);
    ///         context.emit(sum - before);
    ///     }
    /// }
    ///
    /// fn changes(amounts: &KeyedStream<String, i64>) -> Stream<i64> {
    ///     amounts.window(Tumbling::of(mins(1))).collect().id("minutes").process(Change::default).id("changes")
    /// }
    /// ```
    pub fn collect(self) -> KeyedStream<K, Windowed<K, Vec<T>>>
    where
        T: StateValue,
    {
        let windows = self.aggregate_with(aggregates::collect());
        KeyedStream::in_place(windows.with_glue("keys", operators::key_by(|w: &Windowed<K, Vec<T>>| w.key.clone())))
    }

    /// An aggregate as a type of its own, with a result that differs from what is kept: see [`Accumulate`], and
    /// [`aggregates`] for those that are ready.
    pub fn aggregate_with<G: Accumulate<Row = T>>(self, aggregate: G) -> Stream<Windowed<K, G::Out>> {
        let WindowedStream { stream, windows, options, late_to, .. } = self;
        let note = note(&windows, &options, stream.kind() == "sort");
        let factory = windows.operator::<K, G>(options, aggregate).unwrap_or_else(|e| {
            stream.draw().problem(e);
            operators::union() // never run: the problem stops the plan
        });
        let results: Stream<Windowed<K, G::Out>> = stream.add("window", factory, &[], note);
        if let Some(to) = late_to {
            to(results.port(LATE_PORT));
        }
        results
    }
}

/// What `explain` says of windows.
fn note<T: Data, W: Windows<T>>(windows: &W, options: &WindowOptions<T>, in_order: bool) -> NodeNote {
    let WindowOptions { allowed_lateness: late, firing } = options;
    let allowed = if late.is_zero() { String::new() } else { format!(", late by {}", human_duration(*late)) };
    let kept = windows.kept(firing);
    let mut class = Vec::new();
    if kept.until_watermark {
        class.push((EqualityClass::TimeDependent, "late rows".into()));
    }
    if kept.by_arrival && !in_order {
        class.push((EqualityClass::TimeDependent, "arrival order in windows".into()));
    }
    if firing.every.is_some() {
        class.push((EqualityClass::TimeDependent, "early results by processing time".into()));
    } else if !firing.is_plain() && !in_order {
        let by = if firing.discarding { EqualityClass::TimeDependent } else { EqualityClass::Converging };
        class.push((by, "early results by arrival".into()));
    }
    NodeNote {
        detail: format!("{}{allowed}{}", windows.describe(), firing.describe()),
        state: vec![StateNote { what: kept.what, bound: if kept.until_watermark { Bound::Watermark } else { Bound::Unbounded } }],
        class,
        glue: false,
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
