//! Joins of two keyed streams: which rows belong together, which results there are.
//!
//! Invariant: both inputs are dealt out by the same key, so rows of a key meet in one task; what a join needs is said before
//! the call that gives the results, and every join says in `explain` what it keeps and for how long.

use super::keyed::KeyedStream;
use super::stream::Stream;
use crate::error::Error;
use crate::graph::{Bound, EqualityClass, NodeNote, StateNote};
use crate::observe::human_duration;
use crate::operators::joins::{
    Bounds, EndsVersion, Forget, JoinKind, LATE_LEFT_PORT, LATE_RIGHT_PORT, LEFT, PairKernel, RIGHT, TypedPairs, growing_join,
    interval_join, regular_join, temporal_join,
};
use crate::operators::{Either, OperatorFactory, map, timed_either, union};
use crate::record::{Batch, Change, Data, Key, Rows};
use crate::state::StateValue;
use crate::time::millis;
use crate::windowing::{
    LATE_PORT, Session, Sides, SliceLayout, TimedEither, Together, WindowAssigner, WindowOptions, Windowed, Windows, pair_sides,
    window_join,
};
use std::sync::Arc;
use std::time::Duration;

/// A span of time with a direction, in milliseconds: see [`before`] and [`after`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Offset(pub i64);

/// So much earlier.
pub fn before(d: Duration) -> Offset {
    Offset(-millis(d))
}

/// So much later.
pub fn after(d: Duration) -> Offset {
    Offset(millis(d))
}

type Predicate<L, R> = Arc<dyn Fn(&L, &R) -> bool + Send + Sync>;
type LateTo<T> = Box<dyn FnOnce(Stream<T>)>;

/// An interval join that does not know its interval yet.
#[must_use = "say which rows belong together: .between(..) or .within(..)"]
pub struct IntervalJoin<L, R> {
    left: Stream<L>,
    right: Stream<R>,
    key: Option<String>,
}

/// A join that knows which rows belong together; the next call says which results there are.
#[must_use = "a join does nothing until it has results: .inner(..), .left(..), .semi(), ..."]
pub struct Join<L, R> {
    left: Stream<L>,
    right: Stream<R>,
    /// Kind of the keys.
    key: Option<String>,
    how: How,
    predicate: Option<Predicate<L, R>>,
    late_left: Option<LateTo<L>>,
    late_right: Option<LateTo<R>>,
}

enum How {
    Interval(Bounds),
    /// With the description of the windows.
    Windowed(SliceLayout, String),
    Sessions(Sessions),
    Temporal(EndsVersion),
    /// Rows are kept so long; for ever if nothing is said.
    Regular(Option<Duration>),
    /// What was asked for makes no sense; the plan says so.
    Nothing,
}

/// What runs the sessions of both sides.
struct Sessions {
    windows: OperatorFactory,
    /// Takes the rows out of the results.
    values: OperatorFactory,
    description: String,
}

/// Windows that two streams can be joined over: [`Tumbling`](crate::windowing::Tumbling), [`Sliding`](crate::windowing::Sliding),
/// [`Cumulative`](crate::windowing::Cumulative), [`Calendar`](crate::windowing::Calendar), [`Session`].
pub trait JoinWindows {
    /// What joins rows of these types, with keys of that type, over the windows.
    ///
    /// # Errors
    /// Sizes that make no sense.
    fn joined<K: Key, L: Data + StateValue, R: Data + StateValue>(&self) -> Result<JoinedWindows, Error>;
}

/// See [`JoinWindows`].
pub struct JoinedWindows(How);

impl<W: WindowAssigner> JoinWindows for W {
    fn joined<K: Key, L: Data + StateValue, R: Data + StateValue>(&self) -> Result<JoinedWindows, Error> {
        let layout = self.layout().map_err(|e| e.at(self.describe()))?;
        Ok(JoinedWindows(How::Windowed(layout, self.describe())))
    }
}

impl JoinWindows for Session {
    fn joined<K: Key, L: Data + StateValue, R: Data + StateValue>(&self) -> Result<JoinedWindows, Error> {
        let windows = self.operator::<K, Together<L, R>>(WindowOptions::default(), Together::default())?;
        let values = map(|session: Windowed<K, Sides<L, R>>| session.value);
        let description = Windows::<TimedEither<L, R>>::describe(self);
        Ok(JoinedWindows(How::Sessions(Sessions { windows, values, description })))
    }
}

impl<K: Key, L: Data + StateValue> KeyedStream<K, L> {
    /// Joins rows of one key whose event times lie within a span of each other. See [`Join`] for the results.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::{Stream, after, before, mins, secs};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Clone, Serialize, Deserialize)] struct Order { id: u64, amount: i64 }
    /// # #[derive(Clone, Serialize, Deserialize)] struct Shipment { order: u64, weight: i64 }
    /// # fn example(orders: Stream<Order>, shipments: Stream<Shipment>) {
    /// let shipped = orders
    ///     .key_by(|o| o.id)
    ///     .interval_join(&shipments.key_by(|s| s.order))
    ///     .between(before(secs(1)), after(mins(30))) // shipped from 1 s before the order to 30 min after it
    ///     .left(|order, shipment| (order.id, shipment.map(|s| s.weight)));
    /// # let _ = shipped;
    /// # }
    /// ```
    pub fn interval_join<R: Data + StateValue>(&self, right: &KeyedStream<K, R>) -> IntervalJoin<L, R> {
        IntervalJoin { left: self.stream().clone(), right: right.stream().clone(), key: K::kind() }
    }

    /// Joins rows of one key that lie in the same window: [`Tumbling`](crate::windowing::Tumbling) or
    /// [`Sliding`](crate::windowing::Sliding). A result leaves when the watermark has passed the window's end, with the last
    /// instant of the window as its time; two rows that lie in several sliding windows together are a result of each.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::{KeyedStream, mins};
    /// # use waterwheel_engine::windowing::Tumbling;
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Clone, Serialize, Deserialize)] struct View { page: String }
    /// # #[derive(Clone, Serialize, Deserialize)] struct Click { target: String }
    /// # fn example(views: KeyedStream<String, View>, clicks: KeyedStream<String, Click>) {
    /// let without_click = views.window_join(&clicks, Tumbling::of(mins(5))).on(|view, click| view.page == click.target).anti();
    /// # let _ = without_click;
    /// # }
    /// ```
    pub fn window_join<R: Data + StateValue>(&self, right: &KeyedStream<K, R>, windows: impl JoinWindows) -> Join<L, R> {
        let how = windows.joined::<K, L, R>().map_or_else(|e| How::refused(self.stream(), e), |joined| joined.0);
        Join::new(self.stream().clone(), right.stream().clone(), K::kind(), how)
    }

    /// Joins every row with every other of its key that has come before it, whatever their times; results are kept up to date.
    /// For ever, unless [`keep_for`](RegularJoin::keep_for) says for how long: where times bound what belongs together,
    /// [`interval_join`](Self::interval_join) keeps less and is exact.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::{KeyedStream, days};
    /// # fn example(orders: KeyedStream<u64, i64>, payments: KeyedStream<u64, i64>) {
    /// let paid = orders.join(&payments).keep_for(days(30)).left(|order, payment| (*order, payment.copied()));
    /// # let _ = paid;
    /// # }
    /// ```
    pub fn join<R: Data + StateValue>(&self, right: &KeyedStream<K, R>) -> RegularJoin<L, R> {
        RegularJoin { join: Join::new(self.stream().clone(), right.stream().clone(), K::kind(), How::Regular(None)) }
    }

    /// Joins each row with the version of its key that was valid at the row's event time: the right input's rows are versions,
    /// each valid from its event time until the next of its key. Results come when the watermark of **both** inputs has
    /// reached the row; an input that is silent for long needs `idle_after`.
    ///
    /// ```
    /// # use waterwheel_engine::dsl::Stream;
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Clone, Serialize, Deserialize)] struct Order { currency: String, amount: f64 }
    /// # #[derive(Clone, Serialize, Deserialize)] struct Rate { currency: String, euros: f64 }
    /// # fn example(orders: Stream<Order>, rates: Stream<Rate>) {
    /// let in_euros = orders
    ///     .key_by(|order| order.currency.clone())
    ///     .temporal_join(&rates.key_by(|rate| rate.currency.clone()))
    ///     .inner(|order, rate| order.amount * rate.euros);
    /// # let _ = in_euros;
    /// # }
    /// ```
    pub fn temporal_join<R: Data + StateValue>(&self, versions: &KeyedStream<K, R>) -> TemporalJoin<L, R> {
        let how = How::Temporal(Arc::new(|_, _| false));
        TemporalJoin { join: Join::new(self.stream().clone(), versions.stream().clone(), K::kind(), how) }
    }
}

/// A regular join: the next call says which results there are.
#[must_use = "a join does nothing until it has results: .inner(..), .left(..)"]
pub struct RegularJoin<L, R> {
    join: Join<L, R>,
}

impl<L: Data + StateValue, R: Data + StateValue> RegularJoin<L, R> {
    /// Rows are forgotten when the watermark is this far past their event time; one that comes later than that is late.
    pub fn keep_for(mut self, ttl: Duration) -> Self {
        self.join.how = How::Regular(Some(ttl));
        self
    }

    /// Of rows with one key, only those for which this is true belong together.
    pub fn on(mut self, predicate: impl Fn(&L, &R) -> bool + Send + Sync + 'static) -> Self {
        self.join = self.join.on(predicate);
        self
    }

    /// Where late rows of the left input go; without it they are counted and dropped.
    pub fn late_left_to<S>(mut self, to: impl FnOnce(Stream<L>) -> S + 'static) -> Self {
        self.join = self.join.late_left_to(to);
        self
    }

    /// Where late rows of the right input go; without it they are counted and dropped.
    pub fn late_right_to<S>(mut self, to: impl FnOnce(Stream<R>) -> S + 'static) -> Self {
        self.join = self.join.late_right_to(to);
        self
    }

    /// Pairs, each when the later of its rows arrives. Nothing is ever taken back.
    pub fn inner<O: Data>(self, result: impl Fn(&L, &R) -> O + Send + Sync + 'static) -> Stream<O> {
        self.join.inner(result)
    }

    /// Pairs, and left rows that have no partner yet, as changes: such a row is taken back when its first partner comes.
    pub fn left<O: Data>(self, result: impl Fn(&L, Option<&R>) -> O + Send + Sync + 'static) -> Stream<Change<O>> {
        self.join.draw_changes(JoinKind::Left, move |left, right| Some(result(left?, right)))
    }

    /// Pairs, and right rows that have no partner yet, as changes.
    pub fn right<O: Data>(self, result: impl Fn(Option<&L>, &R) -> O + Send + Sync + 'static) -> Stream<Change<O>> {
        self.join.draw_changes(JoinKind::Right, move |left, right| Some(result(left, right?)))
    }

    /// Pairs, and rows of either side that have no partner yet, as changes: at least one of the two is there.
    pub fn full<O: Data>(self, result: impl Fn(Option<&L>, Option<&R>) -> O + Send + Sync + 'static) -> Stream<Change<O>> {
        self.join.draw_changes(JoinKind::Full, move |left, right| Some(result(left, right)))
    }

    /// Left rows that have a partner, each once: when it arrives, or when its first partner does.
    pub fn semi(self) -> Stream<L> {
        self.join.semi()
    }

    /// Left rows that have no partner yet, as changes.
    pub fn anti(self) -> Stream<Change<L>> {
        self.join.draw_changes(JoinKind::Anti, |left, _| left.cloned())
    }
}

/// A temporal join: the next call says which results there are.
#[must_use = "a join does nothing until it has results: .inner(..), .left(..)"]
pub struct TemporalJoin<L, R> {
    join: Join<L, R>,
}

impl<L: Data + StateValue, R: Data + StateValue> TemporalJoin<L, R> {
    /// Versions for which this is true say that their key has none from their time on.
    pub fn ends_when(mut self, ends: impl Fn(&R) -> bool + Send + Sync + 'static) -> Self {
        self.join.how = How::Temporal(Arc::new(move |batch: &dyn Batch, i: usize| {
            let Some(versions) = batch.as_any().downcast_ref::<Rows<R>>() else {
                panic!("plan bug: expected versions of another type than {}", batch.type_name())
            };
            ends(&versions.rows[i])
        }));
        self
    }

    /// Where late rows go; without it they are counted and dropped.
    pub fn late_to<S>(mut self, to: impl FnOnce(Stream<L>) -> S + 'static) -> Self {
        self.join = self.join.late_left_to(to);
        self
    }

    /// Where late versions go; without it they are counted. One that is the newest of its key holds from then on either way.
    pub fn late_versions_to<S>(mut self, to: impl FnOnce(Stream<R>) -> S + 'static) -> Self {
        self.join = self.join.late_right_to(to);
        self
    }

    /// Rows whose key had a version at their time, with it.
    pub fn inner<O: Data>(self, result: impl Fn(&L, &R) -> O + Send + Sync + 'static) -> Stream<O> {
        self.join.inner(result)
    }

    /// Every row, with the version that its key had at its time, if there was one.
    pub fn left<O: Data>(self, result: impl Fn(&L, Option<&R>) -> O + Send + Sync + 'static) -> Stream<O> {
        self.join.left(result)
    }
}

impl<L: Data + StateValue, R: Data + StateValue> IntervalJoin<L, R> {
    /// A right row belongs to a left one if its event time is from `from` to `to` away, both inside.
    pub fn between(self, from: Offset, to: Offset) -> Join<L, R> {
        let how = match Bounds::new(from.0, to.0) {
            Ok(bounds) => How::Interval(bounds),
            Err(e) => How::refused(&self.left, e),
        };
        Join::new(self.left, self.right, self.key, how)
    }

    /// Event times at most `d` apart, whichever is the later.
    pub fn within(self, d: Duration) -> Join<L, R> {
        self.between(before(d), after(d))
    }
}

impl<L: Data + StateValue, R: Data + StateValue> Join<L, R> {
    fn new(left: Stream<L>, right: Stream<R>, key: Option<String>, how: How) -> Self {
        Join { left, right, key, how, predicate: None, late_left: None, late_right: None }
    }

    /// Of rows with one key, only those for which this is true belong together.
    pub fn on(mut self, predicate: impl Fn(&L, &R) -> bool + Send + Sync + 'static) -> Self {
        self.predicate = Some(Arc::new(predicate));
        self
    }

    /// Where late rows of the left input go; without it they are counted and dropped.
    pub fn late_left_to<S>(mut self, to: impl FnOnce(Stream<L>) -> S + 'static) -> Self {
        self.late_left = Some(Box::new(move |late| drop(to(late))));
        self
    }

    /// Where late rows of the right input go; without it they are counted and dropped.
    pub fn late_right_to<S>(mut self, to: impl FnOnce(Stream<R>) -> S + 'static) -> Self {
        self.late_right = Some(Box::new(move |late| drop(to(late))));
        self
    }

    /// Pairs.
    pub fn inner<O: Data>(self, result: impl Fn(&L, &R) -> O + Send + Sync + 'static) -> Stream<O> {
        self.draw(JoinKind::Inner, move |left, right| Some(result(left?, right?)))
    }

    /// Pairs, and left rows that find no partner.
    pub fn left<O: Data>(self, result: impl Fn(&L, Option<&R>) -> O + Send + Sync + 'static) -> Stream<O> {
        self.draw(JoinKind::Left, move |left, right| Some(result(left?, right)))
    }

    /// Pairs, and right rows that find no partner.
    pub fn right<O: Data>(self, result: impl Fn(Option<&L>, &R) -> O + Send + Sync + 'static) -> Stream<O> {
        self.draw(JoinKind::Right, move |left, right| Some(result(left, right?)))
    }

    /// Pairs, and rows of either side that find no partner: at least one of the two is there.
    pub fn full<O: Data>(self, result: impl Fn(Option<&L>, Option<&R>) -> O + Send + Sync + 'static) -> Stream<O> {
        self.draw(JoinKind::Full, move |left, right| Some(result(left, right)))
    }

    /// Left rows that find a partner, each once.
    pub fn semi(self) -> Stream<L> {
        self.draw(JoinKind::Semi, |left, _| left.cloned())
    }

    /// Left rows that find no partner.
    pub fn anti(self) -> Stream<L> {
        self.draw(JoinKind::Anti, |left, _| left.cloned())
    }

    fn draw<O, F>(self, kind: JoinKind, result: F) -> Stream<O>
    where
        O: Data,
        F: Fn(Option<&L>, Option<&R>) -> Option<O> + Send + Sync + 'static,
    {
        let (predicate, result, key) = (self.predicate(), Arc::new(result), self.key.clone());
        self.add(kind, move || {
            let result = result.clone();
            TypedPairs::new(predicate.clone(), move |left: Option<&L>, right: Option<&R>| result(left, right)).with_key(key.clone())
        })
    }

    /// As [`draw`](Self::draw), with results that say what kind of change they are.
    fn draw_changes<O, F>(self, kind: JoinKind, result: F) -> Stream<Change<O>>
    where
        O: Data,
        F: Fn(Option<&L>, Option<&R>) -> Option<O> + Send + Sync + 'static,
    {
        let (predicate, result, key) = (self.predicate(), Arc::new(result), self.key.clone());
        self.add(kind, move || {
            let result = result.clone();
            TypedPairs::changes(predicate.clone(), move |left: Option<&L>, right: Option<&R>| result(left, right)).with_key(key.clone())
        })
    }

    fn predicate(&self) -> impl Fn(&L, &R) -> bool + Clone + Send + Sync + 'static + use<L, R> {
        let predicate = self.predicate.clone();
        move |left: &L, right: &R| predicate.as_ref().is_none_or(|p| p(left, right))
    }

    fn add<O: Data, N: PairKernel>(self, kind: JoinKind, kernel: impl Fn() -> N + Send + Sync + 'static) -> Stream<O> {
        if let How::Sessions(_) = self.how {
            return self.add_sessions(kind, kernel);
        }
        let (name, factory, note) = self.how.operator(kind, kernel);
        let joined: Stream<O> = self.left.add(name, factory, &self.left.meets(&self.right), note);
        if let Some(to) = self.late_left {
            to(joined.port(LATE_LEFT_PORT));
        }
        if let Some(to) = self.late_right {
            to(joined.port(LATE_RIGHT_PORT));
        }
        joined
    }

    /// Both sides go through one window operator.
    fn add_sessions<O: Data, N: PairKernel>(self, kind: JoinKind, kernel: impl Fn() -> N + Send + Sync + 'static) -> Stream<O> {
        let How::Sessions(Sessions { windows, values, description }) = self.how else { unreachable!("the caller looked") };
        let glue = NodeNote { glue: true, ..NodeNote::default() };
        let both: Stream<TimedEither<L, R>> = self.left.add("connect", timed_either::<L, R>(), &self.left.meets(&self.right), glue);
        both.change(|node| node.can_reject = false);
        let note = NodeNote {
            detail: format!("{}, {description}", kind.name()),
            state: vec![StateNote { what: "the rows of open sessions".into(), bound: Bound::Watermark }],
            class: vec![(EqualityClass::TimeDependent, "late rows".into())],
            glue: false,
        };
        // Rows keep their keys and stay in their task.
        let sessions: Stream<Sides<L, R>> = both.add("window_join", windows, &[], note);
        let late: Stream<TimedEither<L, R>> = sessions.port(LATE_PORT);
        if let Some(to) = self.late_left {
            to(late.filter_map(|(_, row)| if let Either::First(row) = row { Some(row) } else { None }));
        }
        if let Some(to) = self.late_right {
            to(late.filter_map(|(_, row)| if let Either::Second(row) = row { Some(row) } else { None }));
        }
        let sides: Stream<Sides<L, R>> = sessions.with_glue("values", values);
        sides.with_glue("pairs", pair_sides::<L, R, N>(kind, kernel))
    }
}

impl How {
    fn refused<T>(stream: &Stream<T>, error: Error) -> How {
        stream.draw().problem(error);
        How::Nothing
    }

    /// Kind of node, factory and what `explain` says.
    fn operator<N: PairKernel>(
        self,
        kind: JoinKind,
        kernel: impl Fn() -> N + Send + Sync + 'static,
    ) -> (&'static str, OperatorFactory, NodeNote) {
        let class = vec![(EqualityClass::TimeDependent, "late rows".to_string())];
        match self {
            How::Interval(bounds) => {
                let keeps = |side| human_duration(Duration::from_millis(bounds.keeps(side).unwrap_or(0).unsigned_abs()));
                let state = |what: String| StateNote { what, bound: Bound::Watermark };
                let note = NodeNote {
                    detail: kind.name().into(),
                    state: vec![
                        state(format!("left rows for {} of event time", keeps(LEFT))),
                        state(format!("right rows for {}", keeps(RIGHT))),
                    ],
                    class,
                    glue: false,
                };
                ("interval_join", interval_join(bounds, kind, kernel), note)
            }
            How::Windowed(layout, windows) => {
                let state = vec![StateNote { what: "the rows of both sides".into(), bound: Bound::Watermark }];
                let note = NodeNote { detail: format!("{}, {windows}", kind.name()), state, class, glue: false };
                ("window_join", window_join(layout, kind, kernel), note)
            }
            How::Temporal(ends) => {
                let state = vec![
                    StateNote { what: "rows and versions ahead of the watermark".into(), bound: Bound::Watermark },
                    StateNote { what: "1 version a key".into(), bound: Bound::Unbounded },
                ];
                let note = NodeNote { detail: kind.name().into(), state, class, glue: false };
                ("temporal_join", temporal_join(kind, ends, kernel), note)
            }
            How::Regular(ttl) => {
                let state = vec![StateNote { what: "the rows of both sides".into(), bound: ttl.map_or(Bound::Unbounded, Bound::Ttl) }];
                let class = vec![match ttl {
                    Some(_) => (EqualityClass::TimeDependent, "rows that are forgotten".to_string()),
                    None => (EqualityClass::Converging, "regular join".to_string()),
                }];
                let note = NodeNote { detail: kind.name().into(), state, class, glue: false };
                // The rows of typed streams only come.
                let factory = match (kind, ttl) {
                    (JoinKind::Inner, None) => growing_join(kernel),
                    (_, ttl) => regular_join(kind, [ttl.map_or(Forget::Never, |ttl| Forget::ByWatermark(millis(ttl))); 2], kernel),
                };
                ("join", factory, note)
            }
            // The first is drawn elsewhere; the second never runs, because the problem stops the plan.
            How::Sessions(_) | How::Nothing => ("join", union(), NodeNote::default()),
        }
    }
}
