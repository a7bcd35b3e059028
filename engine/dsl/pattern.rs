//! Event patterns over rows of a key in the order of event time.
//!
//! Invariant: what is detected depends on event time and the order of ties alone, not on arrival.

use super::keyed::SortedStream;
use super::stream::Stream;
use crate::graph::{Bound, NodeNote, StateNote};
use crate::operators::{self, Match, Pattern};
use crate::record::{Data, Key};
use crate::state::StateValue;

impl<K: Key, T: Data + StateValue> SortedStream<K, T> {
    /// Finds a [`Pattern`] in the rows of each key; `select` makes a result of every match.
    ///
    /// ```
    /// use waterwheel_engine::dsl::{KeyedStream, Stream, mins};
    /// use waterwheel_engine::operators::{AfterMatch, Pattern};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Clone, Serialize, Deserialize)] struct Payment { id: String, card: String, amount: i64 }
    ///
    /// /// Cards that are tried with small amounts before they are used.
    /// fn probed(payments: &KeyedStream<String, Payment>) -> Stream<String> {
    ///     let pattern = Pattern::begin("small", |p: &Payment, _| p.amount < 100)
    ///         .times_or_more(3)
    ///         .greedy()
    ///         .followed_by("large", |p, _| p.amount > 100_000)
    ///         .within(mins(10))
    ///         .after_match(AfterMatch::PastLast);
    ///     let in_order = payments.sort_by_time(|p| p.id.clone());
    ///     in_order.detect(&pattern, |found| found.last("large").map_or(String::new(), |p| p.card.clone())).id("probed")
    /// }
    /// ```
    pub fn detect<U: Data>(&self, pattern: &Pattern<T>, select: impl Fn(&Match<'_, T>) -> U + Send + Sync + 'static) -> Stream<U> {
        self.detect_or_time_out(pattern, select, |_| ()).0
    }

    /// As [`detect`](Self::detect); the second stream has what `timed_out` makes of partial matches that lasted longer than the
    /// pattern's time: an order without a payment, say.
    pub fn detect_or_time_out<U: Data, V: Data>(
        &self,
        pattern: &Pattern<T>,
        select: impl Fn(&Match<'_, T>) -> U + Send + Sync + 'static,
        timed_out: impl Fn(&Match<'_, T>) -> V + Send + Sync + 'static,
    ) -> (Stream<U>, Stream<V>) {
        let stream = self.stream();
        if let Err(problem) = pattern.check() {
            stream.draw().problem(problem);
        }
        let bound = if pattern.is_bounded() { Bound::Watermark } else { Bound::Unbounded };
        let note = NodeNote {
            detail: pattern.describe(),
            state: vec![StateNote { what: "partial matches and their rows".into(), bound }],
            ..NodeNote::default()
        };
        let found: Stream<U> = stream.add("pattern", operators::detect::<K, T, U, V>(pattern, select, timed_out), &[], note);
        let late = found.port(operators::TIMED_OUT_PORT);
        (found, late)
    }
}
